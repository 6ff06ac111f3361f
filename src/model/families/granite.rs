//! Granite: Llama whose embeddings, scores, logits and additions to the residual stream are multiplied.

use super::{Family, llama, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader};

pub(super) static GRANITE: Family = Family::new("granite", describe, llama::TENSORS);

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let mlp_bias = r.flag("mlp_bias", false)?;
    scaled(r, rotary::described(r, &rotary::Own { qkv_bias: bias, out_bias: bias, mlp_bias, ..rotary::LLAMA })?)
}

/// A model with Granite's multipliers.
pub(super) fn scaled(r: &Reader, arch: Arch) -> Result<Arch, ConfigError> {
    let scale = r.or_default("attention_multiplier", 1.0)?;
    let mut arch = Arch {
        embed_scale: Some(r.or_default("embedding_multiplier", 1.0)?),
        residual_scale: Some(r.or_default("residual_multiplier", 1.0)?),
        logit_scale: 1.0 / r.or_default("logits_scaling", 1.0)?,
        ..arch
    };
    arch.each_attention(|_, attention| attention.heads.scale = scale);
    Ok(arch)
}
