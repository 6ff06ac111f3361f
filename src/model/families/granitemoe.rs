//! Granite with several experts in every layer.

use super::{Family, InGguf, Names, Tensors, granite, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Experts, Router, Scores};
use crate::model::channel::{ExpertNames, StoredExperts};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static GRANITEMOE: Family = Family {
    gguf: Some(InGguf { architecture: "granitemoe", describe: describe_gguf, tensors: in_gguf::PERMUTED }),
    ..Family::new("granitemoe", describe, TENSORS)
};

pub(super) const TENSORS: Tensors = Tensors {
    layer: Names {
        experts: ExpertNames {
            router: "block_sparse_moe.router.layer",
            stored: StoredExperts::Stacked {
                gate_up: "block_sparse_moe.input_linear.weight",
                down: "block_sparse_moe.output_linear.weight",
            },
            ..llama::EXPERTS
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let arch = rotary::described(r, &rotary::Own { qkv_bias: bias, out_bias: bias, ..rotary::LLAMA })?;
    let experts = rotary::experts(r, r.size("num_local_experts")?, r.size("num_experts_per_tok")?, arch.d_mlp)?;
    let router = Router { scores: Scores::SoftmaxOfChosen, ..experts.router };
    granite::scaled(r, rotary::with_experts(arch, Experts { router, ..experts }, |_| true))
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    granite::pass_over_mixers(k);
    mixed_in_gguf(k, granite::scaled_in_gguf(k, in_gguf::described(k, &in_gguf::LLAMA)?)?)
}

/// A model with its experts, if it has any.
pub(super) fn mixed_in_gguf(k: &Keys, arch: Arch) -> Result<Arch, GgufConfigError> {
    if k.first_with(arch.n_layers, "ffn_gate_inp.weight").is_none() {
        // Files of models without experts give the width of what all rows go through, and how many would be chosen.
        k.pass_over(&["expert_shared_feed_forward_length", "expert_used_count"]);
        return Ok(arch);
    }
    in_gguf::with_experts(k, arch, |experts| Experts {
        router: Router { scores: Scores::SoftmaxOfChosen, ..experts.router },
        ..experts
    })
}
