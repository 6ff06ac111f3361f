//! Phi 1 and 2: attention and a plain MLP side by side after one layer norm, biases everywhere, of the logits too, half of each
//! head rotated.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::AttentionWeights;
use serde_json::json;

pub(super) static PHI: Family = Family {
    gguf: Some(InGguf { architecture: "phi2", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("phi", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    final_norm: "final_layernorm",
    layer: Names {
        attention: AttentionWeights { o: "self_attn.dense", ..llama::TENSORS.layer.attention },
        mlp_norm: "input_layernorm",
        mlp: MlpWeights { gate: None, up: "mlp.fc1", down: "mlp.fc2", xielu: None },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

const IN_GGUF: Tensors =
    Tensors { layer: Names { mlp_norm: "attn_norm", ..in_gguf::TENSORS.layer }, ..in_gguf::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.require("qk_layernorm", &json!(false))?;
    let own = rotary::Own {
        norm: Norm::layer(1e-5),
        eps: "layer_norm_eps",
        parallel: true,
        qkv_bias: true,
        out_bias: true,
        mlp_bias: true,
        gated: false,
        activation: ("hidden_act", "gelu_new"),
        ropes: rotary::partial,
        ..rotary::LLAMA
    };
    Ok(Arch { unembed_bias: true, ..rotary::described(r, &own)? })
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let own = in_gguf::Own { parallel: true, width_of_tensor: true, ..in_gguf::PLAIN };
    Ok(Arch { unembed_bias: k.has("output.bias"), ..in_gguf::described(k, &own)? })
}
