//! Falcon Mamba: Mamba with norms of the time steps, `B` and `C` that have no weights.

use super::{Family, InGguf, in_gguf, mamba};
use crate::model::arch::{Arch, Gain, Norm};
use crate::model::config::{ConfigError, Reader};

pub(super) static FALCON_MAMBA: Family = Family {
    gguf: Some(InGguf { architecture: "mamba", describe: mamba::describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("falcon_mamba", describe, mamba::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let eps = r.or_default("mixer_rms_eps", 1e-6)?;
    mamba::describe(r, Some(Norm { gain: Gain::One, ..Norm::rms(eps) }))
}
