//! GLM 4.5: half of each head rotated, a norm of each head's query and key in some, several experts after the first layers, chosen
//! by groups, beside those that all rows go through.

use super::{Family, llama, rotary};
use crate::model::arch::{Arch, Experts, Groups, Mlp, Norm, Router, Scores, Shared};
use crate::model::config::{ConfigError, Reader};

pub(super) static GLM4_MOE: Family = Family::new("glm4_moe", describe, llama::TENSORS);

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = rotary::Own {
        norm: Norm::rms(1e-5),
        qk_norm: rotary::BY_HEAD.filter(|_| r.flag("use_qk_norm", false).unwrap_or(false)),
        qkv_bias: r.flag("attention_bias", false)?,
        ropes: rotary::partial,
        ..rotary::LLAMA
    };
    let arch = rotary::described(r, &own)?;
    by_groups(r, arch, r.size("n_routed_experts")?)
}

/// A model of DeepSeek's keys with its experts.
pub(super) fn by_groups(r: &Reader, arch: Arch, n: usize) -> Result<Arch, ConfigError> {
    let width = r.size("moe_intermediate_size")?;
    let experts = rotary::experts(r, n, r.first_size(&["num_experts_per_tok", "num_experts_per_token"])?, width)?;
    let groups = r.opt_size("n_group")?.or(r.opt_size("num_expert_group")?).unwrap_or(1);
    let kept = r.opt_size("topk_group")?.unwrap_or(1);
    let router = Router {
        scores: Scores::Sigmoid,
        choice_bias: true,
        renormalised: r.flag("norm_topk_prob", r.flag("moe_renormalize", true)?)?,
        scale: r.opt_number("routed_scaling_factor")?.unwrap_or(1.0),
        groups: (groups > 1).then_some(Groups { n: groups, chosen: kept, best: 2 }),
        ..experts.router
    };
    let shared = r.opt_size("n_shared_experts")?.or(r.opt_size("num_shared_experts")?).filter(|n| *n > 0);
    let mlp = |n: usize| Mlp { width: width.saturating_mul(n), ..experts.mlp };
    let shared = shared.map(|n| Shared { mlp: mlp(n), gated: false });
    let dense = r.opt_size("first_k_dense_replace")?.unwrap_or(0);
    let every = r.opt_size("moe_layer_freq")?.unwrap_or(1).max(1);
    let words = r.layer_words("mlp_layer_types", arch.n_layers)?;
    let sparse = |l: usize| match &words {
        Some(words) => words[l] == "sparse",
        None => l >= dense && l.is_multiple_of(every),
    };
    Ok(rotary::with_experts(arch, Experts { router, shared, ..experts }, sparse))
}
