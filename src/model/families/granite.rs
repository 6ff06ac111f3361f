//! Granite: Llama whose embeddings, scores, logits and additions to the residual stream are multiplied.

use super::{Family, InGguf, in_gguf, llama, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static GRANITE: Family = Family {
    gguf: Some(InGguf { architecture: "granite", describe: describe_gguf, tensors: in_gguf::PERMUTED }),
    ..Family::new("granite", describe, llama::TENSORS)
};

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

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    pass_over_mixers(k);
    k.pass_over(&["expert_shared_feed_forward_length", "expert_used_count"]);
    let own = in_gguf::Own { width_of_tensor: true, ..in_gguf::LLAMA };
    scaled_in_gguf(k, in_gguf::described(k, &own)?)
}

/// Files of Granite 4 with attention in every layer are of this architecture, or of that with experts, and describe mixers that no
/// layer has.
pub(super) fn pass_over_mixers(k: &Keys) {
    k.pass_over(&["ssm.conv_kernel", "ssm.group_count", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank"]);
}

/// A model with Granite's multipliers, as GGUF files have them; 0 is none.
pub(super) fn scaled_in_gguf(k: &Keys, arch: Arch) -> Result<Arch, GgufConfigError> {
    let scale = k.factor_if_any("attention.scale")?;
    // The key says whether anything rotates.
    let rotates = k.flag("rope.scaling.finetuned", true)?;
    let mut arch = Arch {
        embed_scale: k.factor_if_any("embedding_scale")?,
        residual_scale: k.factor_if_any("residual_scale")?,
        logit_scale: 1.0 / k.factor_if_any("logit_scale")?.unwrap_or(1.0),
        ..in_gguf::rotating(arch, |_, _| rotates)
    };
    arch.each_attention(|_, attention| attention.heads.scale = scale.unwrap_or(attention.heads.scale));
    Ok(arch)
}
