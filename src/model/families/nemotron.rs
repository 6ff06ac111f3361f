//! Nemotron and Minitron: layer norms whose weights are stored less 1, a plain MLP of squared ReLUs, half of each head rotated.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Activation, Arch, Gain, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static NEMOTRON: Family = Family {
    gguf: Some(InGguf { architecture: "nemotron", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("nemotron", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names { mlp: MlpWeights { gate: None, ..llama::TENSORS.layer.mlp }, ..llama::TENSORS.layer },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: Norm { gain: Gain::LessOne, ..Norm::layer(1e-5) },
        eps: "norm_eps",
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: r.flag("mlp_bias", false)?,
        gated: false,
        activation: ("hidden_act", "relu2"),
        ropes: rotary::partial,
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    in_gguf::described(k, &in_gguf::Own { activation: Activation::SquaredRelu, ..in_gguf::PLAIN })
}
