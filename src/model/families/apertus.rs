//! Apertus: Llama with a plain MLP of xIELUs, whose numbers are learned, and a norm of each head's query and key.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Activation, Arch, Channel, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::ops::XIelu;
use serde_json::json;

pub(super) static APERTUS: Family = Family {
    gguf: Some(InGguf { architecture: "apertus", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("apertus", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        attn_norm: "attention_layernorm",
        mlp_norm: "feedforward_layernorm",
        mlp: MlpWeights {
            gate: None,
            xielu: Some(["mlp.act_fn.alpha_p", "mlp.act_fn.alpha_n", "mlp.act_fn.beta", "mlp.act_fn.eps"]),
            ..llama::TENSORS.layer.mlp
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.require("hidden_act", &json!("xielu"))?;
    r.require("post_norm", &json!(false))?;
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: Norm::rms(1e-5),
        qk_norm: rotary::BY_HEAD,
        qkv_bias: bias,
        out_bias: bias,
        gated: false,
        activation: ("", "silu"),
        ..rotary::LLAMA
    };
    let mut arch = rotary::described(r, &own)?;
    for layer in &mut arch.layers {
        if let Channel::Mlp(mlp) = &mut layer.channel {
            mlp.xielu = true;
        }
    }
    Ok(arch)
}

/// The numbers of xIELUs are keys there, not tensors.
fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let mut arch = in_gguf::described(k, &in_gguf::Own { gated: false, ..in_gguf::LLAMA })?;
    let numbers = |name: &str| k.each_number(&format!("xielu.{name}"), arch.n_layers);
    let (positive, negative) = (numbers("alpha_p")?, numbers("alpha_n")?);
    let (beta, eps) = (numbers("beta")?, numbers("eps")?);
    for (l, layer) in arch.layers.iter_mut().enumerate() {
        if let Channel::Mlp(mlp) = &mut layer.channel {
            mlp.activation =
                Activation::XIelu(XIelu::of([positive[l], negative[l], beta[l], eps[l]].map(|n| n as f32)));
        }
    }
    Ok(arch)
}
