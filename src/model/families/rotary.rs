//! The families that descend from Llama: RMS norms, gated MLPs, rotary positions, grouped queries. A page says in [`Own`]
//! what its family has of its own.

use crate::model::arch::*;
use crate::model::config::{Cap, ConfigError, Reader, Slides, Sliding, Windows};
use crate::model::rope::Rope;

/// What a family has of its own among those that descend from Llama. [`LLAMA`] is Llama itself.
pub(super) struct Own {
    /// The size of a head where it is not given; without one, what the width divides into.
    pub d_head: Option<usize>,
    /// The norms; the epsilon is the one that is meant where it is not given.
    pub norm: Norm,
    /// The key of their epsilon, if there is one.
    pub eps: &'static str,
    pub placement: NormPlacement,
    /// Whether mixer and channel read the same stream.
    pub parallel: bool,
    /// The norms of queries and keys, of the same epsilon as the others.
    pub qk_norm: Option<QkNorm>,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has one.
    pub out_bias: bool,
    pub mlp_bias: bool,
    /// Whether the MLP has a gate.
    pub gated: bool,
    /// The key of the MLP's non-linearity, if there is one, and the one that is meant where it is not given.
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
    norm: Norm::rms(1e-6),
    eps: "rms_norm_eps",
    placement: NormPlacement::Before,
    parallel: false,
    qk_norm: None,
    qkv_bias: false,
    out_bias: false,
    mlp_bias: false,
    gated: true,
    activation: ("hidden_act", "silu"),
    query_scalar: None,
    softcaps: [Cap::Never, Cap::Never],
    windows: Windows { used: false, default: None, slides: Slides::All },
    ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 10_000.0, 1.0)?]),
    scaled_embedding: false,
    tied: false,
};

/// How large a model is, and how many of each it has.
pub(super) struct Sizes {
    pub d_model: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
    pub d_mlp: usize,
    pub vocab: usize,
    pub n_ctx: usize,
}

impl Sizes {
    /// By the keys that most families have.
    pub fn read(r: &Reader, d_head: Option<usize>) -> Result<Sizes, ConfigError> {
        Sizes::with_mlp(r, d_head, r.size("intermediate_size")?)
    }

    /// By these keys, but for the width of MLPs.
    pub fn with_mlp(r: &Reader, d_head: Option<usize>, d_mlp: usize) -> Result<Sizes, ConfigError> {
        let (d_model, n_heads) = (r.size("hidden_size")?, r.size("num_attention_heads")?);
        let n_layers = r.size("num_hidden_layers")?;
        let d_head = match (r.opt_size("head_dim")?, d_head) {
            (Some(n), _) => n,
            (None, Some(default)) => r.assumed("head_dim", default),
            (None, None) => r.divide("hidden_size", d_model, n_heads)?,
        };
        let (n_ctx, n_kv_heads) = (r.size("max_position_embeddings")?, r.kv_heads(n_heads)?);
        let vocab = r.size("vocab_size")?;
        Ok(Sizes { d_model, n_layers, n_heads, n_kv_heads, d_head, d_mlp, vocab, n_ctx })
    }
}

/// Describes a model of such a family.
pub(super) fn described(r: &Reader, own: &Own) -> Result<Arch, ConfigError> {
    of_sizes(r, own, &Sizes::read(r, own.d_head)?)
}

/// Describes a model of such a family whose sizes have keys of their own.
pub(super) fn of_sizes(r: &Reader, own: &Own, sizes: &Sizes) -> Result<Arch, ConfigError> {
    let Sizes { d_model, n_layers, n_heads, n_kv_heads, d_head, d_mlp, vocab, n_ctx } = *sizes;
    let scalar = own.query_scalar.map(|default| r.or_default("query_pre_attn_scalar", default)).transpose()?;
    let eps = if own.eps.is_empty() { own.norm.eps } else { r.or_default(own.eps, own.norm.eps)? };
    let norm = Norm { eps, ..own.norm };
    let (key, default) = own.activation;
    let activation = r.activation(key, default)?;
    let mlp = Mlp { width: d_mlp, gated: own.gated, activation, xielu: false, cut: None, bias: own.mlp_bias };
    let ropes = (own.ropes)(r, d_head, n_ctx)?;
    let sliding = r.windows(&own.windows, n_layers)?;
    let softcap = r.softcap("attn_logit_softcapping", own.softcaps[0])?;
    let scale = scalar.unwrap_or(d_head as f64).powf(-0.5);
    let heads = Heads { n_heads, n_kv_heads, d_head, scale, softcap, ..Heads::default() };
    let qk_norm = own.qk_norm.map(|qk| QkNorm { of: Norm { eps: norm.eps, ..qk.of }, ..qk });
    let (qkv_bias, out_bias) = (own.qkv_bias, own.out_bias);
    let attention = Attention { qk_norm, qkv_bias, out_bias, ..Attention::plain(heads) };
    Ok(Arch {
        placement: own.placement,
        parallel: own.parallel,
        logit_softcap: r.softcap("final_logit_softcapping", own.softcaps[1])?,
        embed_scale: own.scaled_embedding.then(|| (d_model as f64).sqrt()),
        tied: r.flag("tie_word_embeddings", own.tied)?,
        ropes: ropes.clone(),
        ..Arch::plain(r.family, [d_model, vocab, n_ctx], norm, layers(attention, mlp, &sliding, &ropes))
    })
}

/// The same with several experts in some layers.
pub(super) fn with_experts(mut arch: Arch, experts: Experts, sparse: impl Fn(usize) -> bool) -> Arch {
    for (_, layer) in arch.layers.iter_mut().enumerate().filter(|(l, _)| sparse(*l)) {
        layer.channel = Channel::Experts(experts);
    }
    Arch { d_mlp: arch.layers.iter().map(|layer| layer.channel.width()).max().unwrap_or(0), ..arch }
}

/// The same with a recurrent mixer in place of attention in some layers.
pub(super) fn with_recurrent(
    r: &Reader,
    arch: Arch,
    recurrent: Recurrent,
    which: impl Fn(usize) -> bool,
) -> Result<Arch, ConfigError> {
    let arch = replaced(arch, recurrent, which);
    if arch.layers.iter().all(|layer| matches!(layer.mixer, Mixer::None)) {
        return Err(r.file("no layer has a mixer".to_string()));
    }
    Ok(arch)
}

/// [`with_recurrent`] of a model that is known to have layers.
pub(super) fn replaced(mut arch: Arch, recurrent: Recurrent, which: impl Fn(usize) -> bool) -> Arch {
    for (_, layer) in arch.layers.iter_mut().enumerate().filter(|(l, _)| which(*l)) {
        layer.mixer = Mixer::Recurrent(recurrent);
    }
    Arch { n_heads: arch.layers.iter().map(Layer::heads).max().unwrap_or(1).max(1), ..arch }
}

/// Keys of training a router, which change nothing afterwards.
pub(super) const OF_TRAINING: &[&str] =
    &["output_router_logits", "router_aux_loss_coef", "router_z_loss_coef", "num_nextn_predict_layers", "ep_size"];

/// Experts that are gated MLPs of this width, of which so many are chosen, by a softmax over all.
pub(super) fn experts(r: &Reader, n: usize, chosen: usize, width: usize) -> Result<Experts, ConfigError> {
    r.pass_over(OF_TRAINING);
    let activation = r.activation("hidden_act", "silu")?;
    let mlp = Mlp { width, gated: true, activation, xielu: false, cut: None, bias: false };
    Ok(Experts { n, chosen, mlp, router: Router::SOFTMAX, shared: None, weighs_input: false, apart: None })
}

/// Which of `n` layers rotate: `no_rope_layers` has a 1 for each that does; else all do but every fourth.
pub(super) fn rotated_layers(r: &Reader, n: usize) -> Result<Vec<bool>, ConfigError> {
    const KEY: &str = "no_rope_layers";
    let every = r.opt_size("no_rope_layer_interval")?.unwrap_or(4).max(1);
    let Some(list) = r.take(KEY) else { return Ok((1..=n).map(|l| !l.is_multiple_of(every)).collect()) };
    let found: Option<Vec<bool>> = list.as_array().map(|all| all.iter().map(|flag| flag.as_u64() == Some(1)).collect());
    match found {
        Some(found) if found.is_empty() => Ok((1..=n).map(|l| !l.is_multiple_of(every)).collect()),
        Some(found) if found.len() == n => Ok(found),
        _ => Err(r.key(KEY, format!("is no list of {n} numbers, 1 for each layer that rotates"))),
    }
}

/// Norms of each head's query and key, one weight for all heads.
pub(super) const BY_HEAD: Option<QkNorm> = Some(QkNorm { of: Norm::rms(1e-6), over: NormOver::Head, rotated: false });

/// Norms of all queries together, and of all keys.
pub(super) const OVER_HEADS: Option<QkNorm> = Some(QkNorm { of: Norm::rms(1e-6), over: NormOver::All, rotated: false });

/// The model's rotation, plain or stretched, of a share of each head.
pub(super) fn partial(r: &Reader, d_head: usize, n_ctx: usize) -> Result<Vec<Rope>, ConfigError> {
    Ok(vec![r.rope(d_head, n_ctx, 10_000.0, 0.5)?])
}

/// Layers that are alike but for where attention slides.
pub(super) fn layers(attention: Attention, mlp: Mlp, sliding: &Sliding, ropes: &[Rope]) -> Vec<Layer> {
    let layer = |slides: &bool| {
        let heads = Heads { window: sliding.window.filter(|_| *slides), ..attention.heads };
        let rope = (!ropes.is_empty()).then_some(usize::from(*slides && ropes.len() > 1));
        Layer { mixer: Mixer::Attention(Attention { heads, rope, ..attention }), channel: Channel::Mlp(mlp) }
    };
    sliding.layers.iter().map(layer).collect()
}
