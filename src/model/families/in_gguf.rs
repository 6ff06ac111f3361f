//! What families that descend from Llama have in common in GGUF files.

use super::{Names, Qkv, Tensors, llama, rotary};
use crate::model::arch::*;
use crate::model::channel::MlpWeights;
use crate::model::config::Sliding;
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::AttentionWeights;
use crate::model::rope::Rope;

/// The names of tensors, which are the same for every architecture.
pub(super) const TENSORS: Tensors = Tensors {
    prefix: "",
    embed: "token_embd",
    embed_norm: "token_embd_norm",
    led: [""; 2],
    positions: "position_embd",
    final_norm: "output_norm",
    unembed: &["output"],
    layers: "blk.",
    layer: Names {
        attn_norm: "attn_norm",
        attention: AttentionWeights {
            q: "attn_q",
            k: "attn_k",
            v: "attn_v",
            q_norm: Some("attn_q_norm"),
            k_norm: Some("attn_k_norm"),
            sinks: None,
            gate: None,
            latent: None,
            difference: None,
            o: "attn_output",
        },
        attn_post_norm: "post_attention_norm",
        mlp_norm: "ffn_norm",
        mlp: MlpWeights { gate: Some("ffn_gate"), up: "ffn_up", down: "ffn_down", xielu: None },
        experts: llama::EXPERTS,
        recurrent: llama::RECURRENT,
        mlp_post_norm: "post_ffw_norm",
    },
    qkv: Qkv::Apart,
    transposed: false,
    interleaved: false,
};

/// What a family has of its own there. [`LLAMA`] has what most do.
pub(super) struct Own {
    pub placement: NormPlacement,
    pub activation: Activation,
    /// By whose root scores are divided; without one, the size of a head.
    pub query_scalar: Option<f64>,
    pub windows: fn(&Keys, usize, usize) -> Result<Sliding, GgufConfigError>,
    /// Reads the rotations; of two, the second is of layers whose attention slides.
    pub ropes: fn(&Keys, usize, usize) -> Result<Vec<Rope>, GgufConfigError>,
    /// Whether token embeddings are multiplied by the root of the width.
    pub scaled_embedding: bool,
}

/// What most families have.
pub(super) const LLAMA: Own = Own {
    placement: NormPlacement::Before,
    activation: Activation::Silu,
    query_scalar: None,
    windows: |k, n, n_ctx| k.no_window(n, n_ctx),
    ropes: |k, d_head, n_ctx| Ok(vec![k.rope(d_head, n_ctx, 10_000.0)?]),
    scaled_embedding: false,
};

/// Describes a model of such a family. What the file does not say, its tensors do: which biases and norms there are.
pub(super) fn described(k: &Keys, own: &Own) -> Result<Arch, GgufConfigError> {
    let (d_model, n_heads) = (k.d_model()?, k.size("attention.head_count")?);
    let n_layers = k.layers(n_heads)?;
    let d_head = k.d_head(d_model, n_heads)?;
    let n_ctx = k.size("context_length")?;
    let n_kv_heads = k.opt_size("attention.head_count_kv")?.unwrap_or(n_heads);
    let mlp = Mlp {
        width: k.size("feed_forward_length")?,
        gated: true,
        activation: own.activation,
        xielu: false,
        bias: k.has("blk.0.ffn_up.bias"),
    };
    let norm = Norm::rms(k.gguf.f64(&k.must("attention.layer_norm_rms_epsilon")?)?);
    let ropes = (own.ropes)(k, d_head, n_ctx)?;
    let sliding = (own.windows)(k, n_layers, n_ctx)?;
    let scale = own.query_scalar.unwrap_or(d_head as f64).powf(-0.5);
    let attention = Attention {
        qk_norm: k.has("blk.0.attn_q_norm.weight").then_some(QkNorm { of: norm, over: NormOver::Head, rotated: false }),
        qkv_bias: k.has("blk.0.attn_q.bias"),
        out_bias: k.has("blk.0.attn_output.bias"),
        ..Attention::plain(Heads { n_heads, n_kv_heads, d_head, scale, ..Heads::default() })
    };
    let vocab = k.gguf.tensor("token_embd.weight")?.shape.first().copied().unwrap_or(0);
    let layers = rotary::layers(attention, mlp, &sliding, &ropes);
    Ok(Arch {
        placement: own.placement,
        ropes,
        embed_scale: own.scaled_embedding.then(|| (d_model as f64).sqrt()),
        tied: !k.has("output.weight"),
        ..Arch::plain(k.family, [d_model, vocab, k.context(n_ctx)?], norm, layers)
    })
}
