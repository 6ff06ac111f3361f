//! DBRX: layer norms without bias, queries, keys and values that are cut off, several experts in every layer, whose matrices lie one
//! below another.

use super::{Family, InGguf, Names, Qkv, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Experts, Norm, Router};
use crate::model::channel::{ExpertNames, StoredExperts};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::AttentionWeights;
use serde_json::json;

pub(super) static DBRX: Family = Family {
    gguf: Some(InGguf { architecture: "dbrx", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("dbrx", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    prefix: "transformer.",
    embed: "wte",
    final_norm: "norm_f",
    layers: "blocks.",
    layer: Names {
        attn_norm: "norm_attn_norm.norm_1",
        attention: AttentionWeights {
            q: "norm_attn_norm.attn.Wqkv",
            k: Some("norm_attn_norm.attn.Wqkv"),
            v: Some("norm_attn_norm.attn.Wqkv"),
            o: "norm_attn_norm.attn.out_proj",
            ..llama::TENSORS.layer.attention
        },
        mlp_norm: "norm_attn_norm.norm_2",
        experts: ExpertNames {
            router: "ffn.router.layer",
            stored: StoredExperts::Flat {
                gate: "ffn.experts.mlp.w1",
                up: "ffn.experts.mlp.v1",
                down: "ffn.experts.mlp.w2",
            },
            ..llama::EXPERTS
        },
        ..llama::TENSORS.layer
    },
    qkv: Qkv::InTurn,
    ..llama::TENSORS
};

const IN_GGUF: Tensors =
    Tensors { layer: Names { mlp_norm: "attn_output_norm", ..in_gguf::FUSED.layer }, ..in_gguf::FUSED };

/// Keys of the parts that say nothing of the model.
const OF_PARTS: &[&str] = &["attn_pdrop", "moe_jitter_eps", "moe_loss_weight", "moe_uniform_expert_assignment"];

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(&["emb_pdrop", "num_key_value_heads"]);
    let (clip, kv, base) = r.within("attn_config", |of| {
        of.pass_over(OF_PARTS);
        Ok((of.opt_number("clip_qkv")?, of.opt_size("kv_n_heads")?, of.opt_number("rope_theta")?))
    })?;
    let (n, chosen, width, normed) = r.within("ffn_config", |of| {
        of.pass_over(OF_PARTS);
        of.pass_over(&["hidden_size"]);
        of.within("ffn_act_fn", |of| of.require("name", &json!("silu")))?;
        let normed = of.opt_number("moe_normalize_expert_weights")?;
        Ok((of.size("moe_num_experts")?, of.size("moe_top_k")?, of.size("ffn_hidden_size")?, normed))
    })?;
    if normed.is_some_and(|p| p != 1.0) {
        return Err(r.key("ffn_config.moe_normalize_expert_weights", "gatelens divides weights by their sum alone: 1"));
    }
    let (d_model, n_heads) = (r.size("d_model")?, r.size("n_heads")?);
    // The reference ignores the part's own base where the model gives one.
    let _ = base;
    let own = rotary::Own {
        norm: Norm { bias: false, ..Norm::layer(1e-5) },
        eps: "",
        activation: ("", "silu"),
        ..rotary::LLAMA
    };
    let sizes = rotary::Sizes {
        d_model,
        n_layers: r.size("n_layers")?,
        n_heads,
        n_kv_heads: kv.unwrap_or(n_heads),
        d_head: r.divide("d_model", d_model, n_heads)?,
        d_mlp: width,
        vocab: r.size("vocab_size")?,
        n_ctx: r.size("max_seq_len")?,
    };
    let mut arch = rotary::of_sizes(r, &own, &sizes)?;
    arch.each_attention(|_, attention| attention.clip = clip);
    r.pass_over(&["hidden_act"]);
    let experts = Experts { chosen, ..rotary::experts(r, n, chosen, width)? };
    let router = Router { renormalised: normed.is_some(), ..experts.router };
    Ok(rotary::with_experts(arch, Experts { router, ..experts }, |_| true))
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let clip = k.factor_if_any("attention.clamp_kqv")?;
    let mut arch = in_gguf::described(k, &in_gguf::Own { norm: in_gguf::layer, ..in_gguf::LLAMA })?;
    arch.each_attention(|_, attention| attention.clip = clip);
    in_gguf::with_experts(k, arch, in_gguf::renormalised)
}
