//! Qwen 3.5 with several experts in every layer, beside one that all rows go through, by a gate.

use super::{Family, InGguf, Names, Tensors, in_gguf, qwen2_moe, qwen3_5_text, qwen3_next, rotary};
use crate::model::arch::{Arch, DeltaStored, Experts, Mlp, Router, Shared};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static QWEN3_5_MOE_TEXT: Family = Family {
    wrappers: &["qwen3_5_moe"],
    gguf: Some(InGguf { architecture: "qwen35moe", describe: describe_gguf, tensors: qwen3_5_text::IN_GGUF }),
    ..Family::new("qwen3_5_moe_text", describe, TENSORS)
};

const TENSORS: Tensors =
    Tensors { layer: Names { experts: qwen2_moe::EXPERTS, ..qwen3_5_text::TENSORS.layer }, ..qwen3_5_text::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    qwen3_5_text::pass_over(r);
    let width = r.size("moe_intermediate_size")?;
    let arch = qwen3_next::described(r, DeltaStored::Apart, Some(width))?;
    let experts = rotary::experts(r, r.size("num_experts")?, r.size("num_experts_per_tok")?, width)?;
    let mlp = Mlp { width: r.size("shared_expert_intermediate_size")?, ..experts.mlp };
    let shared = Some(Shared { mlp, gated: true });
    // The reference has no key for it.
    let router = Router { renormalised: true, ..experts.router };
    Ok(rotary::with_experts(arch, Experts { router, shared, ..experts }, |_| true))
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    in_gguf::with_experts(k, qwen3_5_text::describe_gguf(k)?, in_gguf::renormalised)
}
