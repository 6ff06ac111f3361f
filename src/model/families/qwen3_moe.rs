//! Qwen 3 with several experts in some layers.

use super::{Family, InGguf, in_gguf, llama, qwen2_moe, qwen3, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static QWEN3_MOE: Family = Family {
    gguf: Some(InGguf { architecture: "qwen3moe", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("qwen3_moe", describe, llama::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = qwen3::own(r)?;
    qwen2_moe::mixed(r, rotary::described(r, &own)?, false)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    in_gguf::with_experts(k, in_gguf::described(k, &in_gguf::LLAMA)?, in_gguf::renormalised)
}
