//! The families that descend from Llama: RMS norms, gated MLPs, rotary positions, grouped queries. A page says in [`Own`]
//! what its family has of its own.

use crate::model::arch::*;
use crate::model::config::{Cap, ConfigError, Reader, Slides, Sliding, Windows};
use crate::model::rope::Rope;

/// What a family has of its own among those that descend from Llama. [`LLAMA`] is Llama itself.
pub(super) struct Own {
    /// The size of a head where it is not given; without one, what the width divides into.
    pub d_head: Option<usize>,
    /// The epsilon of norms, where it is not given.
    pub norm_eps: f64,
    pub placement: NormPlacement,
    pub qk_norm: QkNorm,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has one.
    pub out_bias: bool,
    pub mlp_bias: bool,
    /// The key of the MLP's non-linearity, and the one that is meant where it is not given.
    pub activation: (&'static str, &'static str),
    /// The default of `query_pre_attn_scalar`, by whose root scores are divided; without one, it is the head's size.
    pub query_scalar: Option<f64>,
    /// The soft-caps of attention scores and of logits.
    pub softcaps: [Cap; 2],
    pub windows: Windows,
    /// Reads the rotations; of two, the second is of layers whose attention slides.
    pub ropes: fn(&Reader, usize, usize) -> Result<Vec<Rope>, ConfigError>,
    /// Whether token embeddings are multiplied by the root of the width.
    pub scaled_embedding: bool,
    /// Whether the unembedding is the embedding, where it is not said.
    pub tied: bool,
}

/// Llama's own.
pub(super) const LLAMA: Own = Own {
    d_head: None,
    norm_eps: 1e-6,
    placement: NormPlacement::Before,
    qk_norm: QkNorm::None,
    qkv_bias: false,
    out_bias: false,
    mlp_bias: false,
    activation: ("hidden_act", "silu"),
    query_scalar: None,
    softcaps: [Cap::Never, Cap::Never],
    windows: Windows { used: false, default: None, slides: Slides::All },
    ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 10_000.0, 1.0)?]),
    scaled_embedding: false,
    tied: false,
};

/// Describes a model of such a family.
pub(super) fn described(r: &Reader, own: &Own) -> Result<Arch, ConfigError> {
    let (d_model, n_heads) = (r.size("hidden_size")?, r.size("num_attention_heads")?);
    let n_layers = r.size("num_hidden_layers")?;
    let d_head = match (r.opt_size("head_dim")?, own.d_head) {
        (Some(n), _) => n,
        (None, Some(default)) => r.assumed("head_dim", default),
        (None, None) => r.divide("hidden_size", d_model, n_heads)?,
    };
    let n_ctx = r.size("max_position_embeddings")?;
    let scalar = own.query_scalar.map(|default| r.or_default("query_pre_attn_scalar", default)).transpose()?;
    let n_kv_heads = r.kv_heads(n_heads)?;
    let (d_mlp, vocab) = (r.size("intermediate_size")?, r.size("vocab_size")?);
    let norm_eps = r.or_default("rms_norm_eps", own.norm_eps)?;
    let (key, default) = own.activation;
    let mlp = Mlp { width: d_mlp, gated: true, activation: r.activation(key, default)?, bias: own.mlp_bias };
    let ropes = (own.ropes)(r, d_head, n_ctx)?;
    let sliding = r.windows(&own.windows, n_layers)?;
    let softcap = r.softcap("attn_logit_softcapping", own.softcaps[0])?;
    let scale = scalar.unwrap_or(d_head as f64).powf(-0.5);
    let heads = Heads { n_heads, n_kv_heads, d_head, scale, softcap, window: None };
    let (qk_norm, qkv_bias, out_bias) = (own.qk_norm, own.qkv_bias, own.out_bias);
    let attention = Attention { heads, rope: Some(0), qk_norm, qkv_bias, out_bias };
    Ok(Arch {
        family: r.family,
        d_model,
        n_layers,
        n_heads,
        n_kv_heads,
        d_head,
        d_mlp,
        vocab,
        n_ctx,
        norm: NormKind::Rms,
        norm_eps,
        placement: own.placement,
        parallel: false,
        learned_positions: false,
        layers: layers(attention, mlp, &sliding, &ropes),
        ropes,
        logit_softcap: r.softcap("final_logit_softcapping", own.softcaps[1])?,
        embed_scale: own.scaled_embedding.then(|| (d_model as f64).sqrt()),
        tied: r.flag("tie_word_embeddings", own.tied)?,
    })
}

/// Layers that are alike but for where attention slides.
pub(super) fn layers(attention: Attention, mlp: Mlp, sliding: &Sliding, ropes: &[Rope]) -> Vec<Layer> {
    let layer = |slides: &bool| {
        let heads = Heads { window: sliding.window.filter(|_| *slides), ..attention.heads };
        let rope = Some(usize::from(*slides && ropes.len() > 1));
        Layer { mixer: Mixer::Attention(Attention { heads, rope, ..attention }), channel: Channel::Mlp(mlp) }
    };
    sliding.layers.iter().map(layer).collect()
}
