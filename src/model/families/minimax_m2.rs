//! MiniMax M2: norms over all queries and all keys, half of each head rotated, several experts in every layer, chosen by a bias of
//! the choice alone.

use super::{Family, InGguf, in_gguf, mixtral, rotary};
use crate::model::arch::{Arch, Experts, Router, Scores};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static MINIMAX_M2: Family = Family {
    gguf: Some(InGguf { architecture: "minimax-m2", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("minimax_m2", describe, mixtral::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(&["router_jitter_noise"]);
    let normed = r.flag("use_qk_norm", true)?;
    let own = rotary::Own { qk_norm: rotary::OVER_HEADS.filter(|_| normed), ropes: rotary::partial, ..rotary::LLAMA };
    let arch = rotary::described(r, &own)?;
    let experts = rotary::experts(r, r.size("num_local_experts")?, r.size("num_experts_per_tok")?, arch.d_mlp)?;
    let router = Router { scores: Scores::Sigmoid, choice_bias: true, renormalised: true, ..experts.router };
    Ok(rotary::with_experts(arch, Experts { router, ..experts }, |_| true))
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    in_gguf::sigmoids(k)?;
    in_gguf::with_experts(k, in_gguf::described(k, &in_gguf::LLAMA)?, |experts| Experts {
        router: Router { scores: Scores::Sigmoid, renormalised: true, ..experts.router },
        ..experts
    })
}
