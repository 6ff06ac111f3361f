//! AFM: Llama with a plain MLP of squared ReLUs.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Activation, Arch, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static ARCEE: Family = Family {
    gguf: Some(InGguf { architecture: "arcee", describe: describe_gguf, tensors: in_gguf::INTERLEAVED }),
    ..Family::new("arcee", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names { mlp: MlpWeights { gate: None, ..llama::TENSORS.layer.mlp }, ..llama::TENSORS.layer },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: Norm::rms(1e-5),
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: r.flag("mlp_bias", false)?,
        gated: false,
        activation: ("hidden_act", "relu2"),
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    in_gguf::described(k, &in_gguf::Own { gated: false, activation: Activation::SquaredRelu, ..in_gguf::LLAMA })
}
