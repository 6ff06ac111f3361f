//! MPT: layer norms without bias, no bias anywhere, scores that fall with distance, queries, keys and values that may be cut off.

use super::{Family, InGguf, Names, Qkv, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Activation, Alibi, Arch, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::AttentionWeights;
use serde_json::json;

pub(super) static MPT: Family = Family {
    gguf: Some(InGguf { architecture: "mpt", describe: describe_gguf, tensors: in_gguf::FUSED }),
    ..Family::new("mpt", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    prefix: "transformer.",
    embed: "wte",
    final_norm: "norm_f",
    layers: "blocks.",
    layer: Names {
        attn_norm: "norm_1",
        attention: AttentionWeights {
            q: "attn.Wqkv",
            k: Some("attn.Wqkv"),
            v: Some("attn.Wqkv"),
            o: "attn.out_proj",
            ..llama::TENSORS.layer.attention
        },
        mlp_norm: "norm_2",
        mlp: MlpWeights { gate: None, up: "ffn.up_proj", down: "ffn.down_proj", xielu: None },
        ..llama::TENSORS.layer
    },
    qkv: Qkv::InTurn,
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.require("no_bias", &json!(true))?;
    r.require("embedding_fraction", &json!(1.0))?;
    r.require("logit_scale", &json!(1.0))?;
    r.pass_over(&["emb_pdrop", "init_device", "learned_pos_emb", "norm_type", "init_config", "verbose"]);
    let (clip, scale, slopes) = r.within("attn_config", |of| {
        of.require("alibi", &json!(true))?;
        of.require("qk_ln", &json!(false))?;
        of.require("prefix_lm", &json!(false))?;
        of.require("attn_type", &json!("multihead_attention"))?;
        of.require("attn_uses_sequence_id", &json!(false))?;
        of.pass_over(&["attn_impl", "attn_pdrop", "rope", "dtype"]);
        let slopes = of.opt_number("alibi_bias_max")?.unwrap_or(8.0);
        Ok((of.opt_number("clip_qkv")?, of.opt_number("softmax_scale")?, slopes))
    })?;
    let (d_model, n_heads) = (r.size("d_model")?, r.size("n_heads")?);
    let eps = r.opt_number("layer_norm_epsilon")?.unwrap_or(1e-5);
    let own = rotary::Own {
        norm: Norm { bias: false, ..Norm::layer(eps) },
        eps: "",
        gated: false,
        activation: ("", "gelu"),
        ropes: |_, _, _| Ok(Vec::new()),
        tied: true,
        ..rotary::LLAMA
    };
    let sizes = rotary::Sizes {
        d_model,
        n_layers: r.size("n_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        d_head: r.divide("d_model", d_model, n_heads)?,
        // `transformers` has no other width, whatever `expansion_ratio` says; the first implementation goes by that.
        d_mlp: d_model.saturating_mul(4),
        vocab: r.size("vocab_size")?,
        n_ctx: r.size("max_seq_len")?,
    };
    let ratio = r.opt_number("expansion_ratio")?.filter(|ratio| *ratio != 4.0);
    let mut arch = rotary::of_sizes(r, &own, &sizes)?;
    arch.or_width = ratio.map(|ratio| (d_model as f64 * ratio) as usize);
    arch.each_attention(|_, attention| {
        (attention.alibi, attention.clip) = (Some(Alibi { most: slopes, rounded: false }), clip);
        attention.heads.scale = scale.unwrap_or(attention.heads.scale);
    });
    Ok(arch)
}

/// The converter takes it for granted that MLPs are four times as wide as the model; the tensors know.
fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    const SLOPES: &str = "attention.max_alibi_bias";
    let own =
        in_gguf::Own { ropes: in_gguf::none, width_of_tensor: true, activation: Activation::Gelu, ..in_gguf::PLAIN };
    let mut arch = in_gguf::described(k, &own)?;
    let clip = k.factor_if_any("attention.clamp_kqv")?;
    let Some(most) = k.factor_if_any(SLOPES)? else {
        return Err(k.bad(SLOPES, "is 0 or missing: MPT with other positions is not implemented"));
    };
    arch.each_attention(|_, attention| {
        (attention.alibi, attention.clip) = (Some(Alibi { most, rounded: false }), clip);
    });
    Ok(arch)
}
