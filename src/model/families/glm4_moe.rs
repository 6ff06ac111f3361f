//! GLM 4.5: half of each head rotated, a norm of each head's query and key in some, several experts after the first layers, chosen
//! by groups, beside those that all rows go through.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Experts, Groups, Mlp, Norm, Router, Scores, Shared};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static GLM4_MOE: Family = Family {
    gguf: Some(InGguf { architecture: "glm4moe", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("glm4_moe", describe, llama::TENSORS)
};

const IN_GGUF: Tensors =
    Tensors { layer: Names { mlp_norm: "post_attention_norm", ..in_gguf::TENSORS.layer }, ..in_gguf::TENSORS };

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
    let further = r.opt_size("num_nextn_predict_layers")?.unwrap_or(0);
    Ok(Arch { further, ..rotary::with_experts(arch, Experts { router, shared, ..experts }, sparse) })
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    by_groups_in_gguf(k, in_gguf::described(k, &in_gguf::LLAMA)?, true)
}

/// A model with its experts, whose scores are sigmoids or a softmax.
pub(super) fn by_groups_in_gguf(k: &Keys, arch: Arch, sigmoids: bool) -> Result<Arch, GgufConfigError> {
    const GATING: &str = "expert_gating_func";
    if k.opt_size(GATING)?.is_some_and(|kind| kind > 0 && kind != if sigmoids { 2 } else { 1 }) {
        return Err(k.bad(GATING, "is none of 1, a softmax, and 2, sigmoids, as the architecture has them"));
    }
    // Older files have none, of models that have some.
    let (n, kept) = match k.opt_size("expert_group_count")? {
        Some(n) => (n, k.size("expert_group_used_count")?),
        None => (k.assumed("expert_group_count", 1), 1),
    };
    let best = if sigmoids { 2 } else { 1 };
    in_gguf::with_experts(k, arch, |experts| Experts {
        router: Router {
            scores: if sigmoids { Scores::Sigmoid } else { Scores::Softmax },
            groups: (n > 1).then_some(Groups { n, chosen: kept, best }),
            ..experts.router
        },
        ..experts
    })
}
