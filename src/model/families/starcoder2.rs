//! StarCoder 2: layer norms, biases everywhere, a plain MLP, a window in every layer.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader, Slides, Sliding, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static STARCODER2: Family = Family {
    gguf: Some(InGguf { architecture: "starcoder2", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("starcoder2", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        mlp: MlpWeights { gate: None, up: "mlp.c_fc", down: "mlp.c_proj", xielu: None },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(&["embedding_dropout", "residual_dropout"]);
    let bias = r.flag("use_bias", true)?;
    let own = rotary::Own {
        norm: Norm::layer(1e-5),
        eps: "norm_epsilon",
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: bias,
        gated: false,
        activation: ("hidden_act", "gelu_pytorch_tanh"),
        windows: Windows { used: true, default: None, slides: Slides::All },
        tied: true,
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let windows = |k: &Keys, n: usize, _: usize| {
        let window = k.window()?.unwrap_or_else(|| k.assumed("attention.sliding_window", 4096));
        Ok(Sliding { window: Some(window), layers: vec![true; n] })
    };
    in_gguf::described(k, &in_gguf::Own { windows, ..in_gguf::PLAIN })
}
