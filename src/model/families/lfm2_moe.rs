//! LFM 2 with several experts after the first layers, chosen by a bias of the choice alone.

use super::{Family, InGguf, Names, Tensors, in_gguf, lfm2, llama, rotary};
use crate::model::arch::{Arch, Experts, Router, Scores};
use crate::model::channel::{ExpertNames, StoredExperts};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static LFM2_MOE: Family = Family {
    gguf: Some(InGguf { architecture: "lfm2moe", describe: describe_gguf, tensors: lfm2::IN_GGUF }),
    ..Family::new("lfm2_moe", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        experts: ExpertNames {
            router: "feed_forward.gate",
            choice_bias: "feed_forward.expert_bias",
            each: "feed_forward.experts.{e}.",
            stored: StoredExperts::Each { gate: "w1", up: "w3", down: "w2" },
            ..llama::EXPERTS
        },
        ..lfm2::TENSORS.layer
    },
    ..lfm2::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let arch = lfm2::described(r, r.size("intermediate_size")?)?;
    let (n, chosen) = (r.size("num_experts")?, r.size("num_experts_per_tok")?);
    let experts = rotary::experts(r, n, chosen, r.size("moe_intermediate_size")?)?;
    let router = Router {
        scores: Scores::Sigmoid,
        choice_bias: r.flag("use_expert_bias", true)?,
        renormalised: r.flag("norm_topk_prob", true)?,
        scale: r.opt_number("routed_scaling_factor")?.unwrap_or(1.0),
        ..experts.router
    };
    let dense = r.opt_size("num_dense_layers")?.unwrap_or(2);
    Ok(rotary::with_experts(arch, Experts { router, ..experts }, |l| l >= dense))
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    in_gguf::sigmoids(k)?;
    in_gguf::with_experts(k, lfm2::describe_gguf(k)?, |experts| Experts {
        router: Router { scores: Scores::Sigmoid, renormalised: true, ..experts.router },
        ..experts
    })
}
