//! BLOOM: layer norms, of the embedding too, biases everywhere, scores that fall with distance. Queries, keys and values are
//! stored in one, head by head.

use super::{Family, InGguf, Names, Qkv, Tensors, gpt_neox, in_gguf, rotary};
use crate::model::arch::{Alibi, Arch, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::AttentionWeights;
use serde_json::json;

pub(super) static BLOOM: Family = Family {
    gguf: Some(InGguf { architecture: "bloom", describe: describe_gguf, tensors: in_gguf::FUSED }),
    ..Family::new("bloom", describe, TENSORS)
};

/// Those of Falcon too.
pub(super) const TENSORS: Tensors = Tensors {
    prefix: "transformer.",
    embed: "word_embeddings",
    embed_norm: "word_embeddings_layernorm",
    final_norm: "ln_f",
    unembed: &["lm_head"],
    layers: "h.",
    layer: Names {
        attention: AttentionWeights {
            q: "self_attention.query_key_value",
            k: Some("self_attention.query_key_value"),
            v: Some("self_attention.query_key_value"),
            o: "self_attention.dense",
            ..gpt_neox::TENSORS.layer.attention
        },
        mlp: MlpWeights { ..gpt_neox::TENSORS.layer.mlp },
        ..gpt_neox::TENSORS.layer
    },
    qkv: Qkv::ByHead,
    ..gpt_neox::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.require("apply_residual_connection_post_layernorm", &json!(false))?;
    // Of how the reference sums, and of training.
    r.pass_over(&["slow_but_exact", "skip_bias_add", "skip_bias_add_qkv", "attention_softmax_in_fp32"]);
    r.pass_over(&["bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi", "unk_token_id", "n_inner"]);
    let own = rotary::Own {
        norm: Norm::layer(1e-5),
        eps: "layer_norm_epsilon",
        qkv_bias: true,
        out_bias: true,
        mlp_bias: true,
        gated: false,
        activation: ("", "gelu_new"),
        ropes: |_, _, _| Ok(Vec::new()),
        tied: true,
        ..rotary::LLAMA
    };
    let (d_model, n_heads) =
        (r.first_size(&["hidden_size", "n_embed"])?, r.first_size(&["n_head", "num_attention_heads"])?);
    let sizes = rotary::Sizes {
        d_model,
        n_layers: r.first_size(&["n_layer", "num_hidden_layers"])?,
        n_heads,
        n_kv_heads: n_heads,
        d_head: r.divide("hidden_size", d_model, n_heads)?,
        d_mlp: d_model.saturating_mul(4),
        vocab: r.size("vocab_size")?,
        // Slopes reach as far as anyone likes; this is what the released models were trained on.
        n_ctx: r.opt_size("seq_length")?.unwrap_or(2048),
    };
    let mut arch = rotary::of_sizes(r, &own, &sizes)?;
    arch.each_attention(|_, attention| attention.alibi = Some(Alibi { most: 8.0, rounded: false }));
    Ok(Arch { embed_norm: Some(arch.norm), ..arch })
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let mut arch = in_gguf::described(k, &in_gguf::Own { ropes: in_gguf::none, ..in_gguf::PLAIN })?;
    arch.each_attention(|_, attention| attention.alibi = Some(Alibi { most: 8.0, rounded: false }));
    Ok(Arch { embed_norm: Some(arch.norm), ..arch })
}
