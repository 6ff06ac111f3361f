//! Qwen 3 with several experts in some layers.

use super::{Family, llama, qwen2_moe, qwen3, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader};

pub(super) static QWEN3_MOE: Family = Family::new("qwen3_moe", describe, llama::TENSORS);

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = qwen3::own(r)?;
    qwen2_moe::mixed(r, rotary::described(r, &own)?, false)
}
