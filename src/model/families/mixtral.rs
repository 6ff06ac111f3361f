//! Mixtral: Mistral with several experts in every layer.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Norm, Router};
use crate::model::channel::{ExpertNames, StoredExperts};
use crate::model::config::{ConfigError, Reader, Slides, Windows};

pub(super) static MIXTRAL: Family = Family {
    gguf: Some(InGguf { architecture: "llama", describe: llama::describe_gguf, tensors: in_gguf::INTERLEAVED }),
    ..Family::new("mixtral", describe, TENSORS)
};

/// Those of MiniMax M2 and PhiMoE too.
pub(super) const TENSORS: Tensors =
    Tensors { layer: Names { experts: EXPERTS, ..llama::TENSORS.layer }, ..llama::TENSORS };

const EXPERTS: ExpertNames = ExpertNames {
    router: "block_sparse_moe.gate",
    choice_bias: "block_sparse_moe.e_score_correction_bias",
    each: "block_sparse_moe.experts.{e}.",
    stored: StoredExperts::Each { gate: "w1", up: "w3", down: "w2" },
    ..llama::EXPERTS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // Of training.
    r.pass_over(&["router_jitter_noise"]);
    let windows = Windows { used: true, default: None, slides: Slides::All };
    let ropes = |r: &Reader, d_head: usize, n_ctx: usize| Ok(vec![r.rope(d_head, n_ctx, 1e6, 1.0)?]);
    let own = rotary::Own { norm: Norm::rms(1e-5), windows, ropes, ..rotary::LLAMA };
    let arch = rotary::described(r, &own)?;
    let experts = rotary::experts(r, r.size("num_local_experts")?, r.size("num_experts_per_tok")?, arch.d_mlp)?;
    let router = Router { renormalised: true, ..experts.router };
    Ok(rotary::with_experts(arch, crate::model::arch::Experts { router, ..experts }, |_| true))
}
