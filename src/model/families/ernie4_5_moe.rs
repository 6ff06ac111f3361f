//! ERNIE 4.5 with several experts in some layers, chosen by a bias of the choice alone, beside those that all rows go through.

use super::{Family, InGguf, Names, Tensors, ernie4_5, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Experts, Mlp, Router, Shared};
use crate::model::channel::ExpertNames;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static ERNIE4_5_MOE: Family = Family {
    gguf: Some(InGguf { architecture: "ernie4_5-moe", describe: describe_gguf, tensors: in_gguf::INTERLEAVED }),
    ..Family::new("ernie4_5_moe", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        experts: ExpertNames {
            choice_bias: "mlp.moe_statics.e_score_correction_bias",
            choice_bias_in_rows: true,
            ..llama::EXPERTS
        },
        ..llama::TENSORS.layer
    },
    ..ernie4_5::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // What divides renormalised weights at least: no sum is so small.
    r.pass_over(&["moe_norm_min"]);
    let own = ernie4_5::own(r)?;
    let arch = rotary::described(r, &own)?;
    let width = r.size("moe_intermediate_size")?;
    let experts = rotary::experts(r, r.size("moe_num_experts")?, r.size("moe_k")?, width)?;
    let router = Router { choice_bias: true, renormalised: true, ..experts.router };
    let mlp = Mlp { bias: own.mlp_bias, ..experts.mlp };
    let shared = r.opt_size("moe_num_shared_experts")?.filter(|n| *n > 0);
    let shared = shared.map(|n| Shared { mlp: Mlp { width: width.saturating_mul(n), ..mlp }, gated: false });
    let first = r.opt_size("moe_layer_start_index")?.unwrap_or(1);
    // -1 is the last.
    let last = r.take("moe_layer_end_index").and_then(|n| n.as_u64()).map_or(arch.n_layers, |n| n as usize);
    let every = r.opt_size("moe_layer_interval")?.unwrap_or(1).max(1);
    let sparse = |l: usize| (l + 1).is_multiple_of(every) && l >= first && l <= last;
    Ok(rotary::with_experts(arch, Experts { mlp, router, shared, ..experts }, sparse))
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    // The tensors say which layers have experts.
    k.pass_over(&["interleave_moe_layer_step"]);
    let ropes = |k: &Keys, d_head: usize, n_ctx: usize| Ok(vec![k.rope(d_head, n_ctx, 500_000.0)?]);
    let arch = in_gguf::described(k, &in_gguf::Own { ropes, ..in_gguf::LLAMA })?;
    in_gguf::with_experts(k, arch, in_gguf::renormalised)
}
