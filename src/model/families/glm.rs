//! GLM 4, first of its kind: Llama with half of each head rotated, interleaved, and gate and up stored in one.

use super::{Family, Names, Tensors, llama, rotary};
use crate::model::arch::{Arch, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};

pub(super) static GLM: Family = Family::new("glm", describe, TENSORS);

/// Those of GLM 4 (0414) too.
pub(super) const TENSORS: Tensors = Tensors {
    layer: Names {
        mlp: MlpWeights { gate: Some("mlp.gate_up_proj"), up: "mlp.gate_up_proj", ..llama::TENSORS.layer.mlp },
        ..llama::TENSORS.layer
    },
    interleaved: true,
    ..llama::TENSORS
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
