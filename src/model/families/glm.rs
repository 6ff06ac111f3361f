//! GLM 4, first of its kind: Llama with half of each head rotated, interleaved, and gate and up stored in one.

use super::{Family, InGguf, Names, Qkv, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static GLM: Family = Family {
    gguf: Some(InGguf { architecture: "chatglm", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("glm", describe, TENSORS)
};

/// Those of GLM 4 (0414) too.
pub(super) const TENSORS: Tensors = Tensors {
    layer: Names {
        mlp: MlpWeights { gate: Some("mlp.gate_up_proj"), up: "mlp.gate_up_proj", ..llama::TENSORS.layer.mlp },
        ..llama::TENSORS.layer
    },
    interleaved: true,
    ..llama::TENSORS
};

/// Those of GLM 4 (0414) too.
pub(super) const IN_GGUF: Tensors =
    Tensors { layer: Names { mlp: in_gguf::GATE_UP, ..in_gguf::TENSORS.layer }, ..in_gguf::INTERLEAVED };

/// Of files of the first releases, which have queries, keys and values in one.
static FUSED: Tensors = Tensors {
    layer: Names { mlp: in_gguf::GATE_UP, ..in_gguf::FUSED.layer },
    qkv: Qkv::InTurn,
    ..in_gguf::INTERLEAVED
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = own(r)?;
    rotary::described(r, &own)
}

pub(super) fn own(r: &Reader) -> Result<rotary::Own, ConfigError> {
    Ok(rotary::Own {
        d_head: Some(128),
        norm: Norm::rms(1.5625e-7),
        qkv_bias: r.flag("attention_bias", false)?,
        ropes: rotary::partial,
        ..rotary::LLAMA
    })
}

/// Of ChatGLM 2 and 3 too, which are no other models.
fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let stored = k.has("blk.0.attn_qkv.weight").then_some(&FUSED);
    Ok(Arch { stored, ..in_gguf::described(k, &in_gguf::LLAMA)? })
}
