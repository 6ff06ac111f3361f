//! GPT-NeoX and Pythia: attention and MLP side by side, layer norms, a quarter of each head rotated. Queries, keys and values
//! are stored in one, head by head.

use super::{Family, Names, Qkv, Tensors, llama};
use crate::model::arch::*;
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::mixer::AttentionWeights;

pub(super) static GPT_NEOX: Family = Family::new("gpt_neox", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    prefix: "gpt_neox.",
    embed: "embed_in",
    final_norm: "final_layer_norm",
    // `transformers` 5 saves the unembedding under the name that all others use.
    unembed: &["embed_out", "lm_head"],
    layer: Names {
        attention: AttentionWeights {
            q: "attention.query_key_value",
            k: "attention.query_key_value",
            v: "attention.query_key_value",
            q_norm: None,
            k_norm: None,
            o: "attention.dense",
        },
        mlp: MlpWeights { gate: None, up: "mlp.dense_h_to_4h", down: "mlp.dense_4h_to_h" },
        ..llama::TENSORS.layer
    },
    qkv: Qkv::ByHead,
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let (d_model, n_heads) = (r.size("hidden_size")?, r.size("num_attention_heads")?);
    let n_layers = r.size("num_hidden_layers")?;
    let d_head = r.divide("hidden_size", d_model, n_heads)?;
    let n_ctx = r.size("max_position_embeddings")?;
    let bias = r.flag("attention_bias", true)?;
    let (d_mlp, vocab) = (r.size("intermediate_size")?, r.size("vocab_size")?);
    let norm_eps = r.or_default("layer_norm_eps", 1e-5)?;
    let parallel = r.flag("use_parallel_residual", true)?;
    let activation = r.activation("hidden_act", "gelu")?;
    let scale = (d_head as f64).powf(-0.5);
    let heads = Heads { n_heads, n_kv_heads: n_heads, d_head, scale, softcap: None, window: None };
    let layer = Layer {
        mixer: Mixer::Attention(Attention {
            heads,
            rope: Some(0),
            qk_norm: QkNorm::None,
            qkv_bias: bias,
            out_bias: bias,
        }),
        channel: Channel::Mlp(Mlp { width: d_mlp, gated: false, activation, bias: true }),
    };
    Ok(Arch {
        family: r.family,
        d_model,
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        d_head,
        d_mlp,
        vocab,
        n_ctx,
        norm: NormKind::Layer,
        norm_eps,
        placement: NormPlacement::Before,
        parallel,
        learned_positions: false,
        ropes: vec![r.rope(d_head, n_ctx, 10_000.0, 0.25)?],
        layers: vec![layer; r.bounded_layers(n_layers)?],
        logit_softcap: None,
        embed_scale: None,
        tied: r.flag("tie_word_embeddings", false)?,
    })
}
