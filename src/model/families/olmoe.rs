//! OLMoE: Llama with several experts in every layer, norms over all queries and all keys, which may be cut off.

use super::{Family, InGguf, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Experts, Norm, Router};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static OLMOE: Family = Family {
    gguf: Some(InGguf { architecture: "olmoe", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("olmoe", describe, llama::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: Norm::rms(1e-5),
        qk_norm: rotary::OVER_HEADS,
        qkv_bias: bias,
        out_bias: bias,
        ..rotary::LLAMA
    };
    let (clip, mut arch) = (r.opt_number("clip_qkv")?, rotary::described(r, &own)?);
    arch.each_attention(|_, attention| attention.clip = clip);
    let experts = rotary::experts(r, r.size("num_experts")?, r.size("num_experts_per_tok")?, arch.d_mlp)?;
    let router = Router { renormalised: r.flag("norm_topk_prob", false)?, ..experts.router };
    Ok(rotary::with_experts(arch, Experts { router, ..experts }, |_| true))
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    in_gguf::with_experts(k, in_gguf::described(k, &in_gguf::LLAMA)?, |experts| experts)
}
