//! The typed description of a model: all that the one decoder has to know to run any family.
//!
//! A family's page ([`super::families`]) makes it of a Hugging Face `config.json` or of GGUF metadata. What differs between
//! families, and between the layers of one model, is values of these types; [`super::decoder`] and the engines never ask
//! for a family.

pub use super::channel::{Channel, Mlp};
use super::families::Family;
pub use super::mixer::{Attention, Carried, Mixer, QkNorm};
use super::rope::Rope;
pub use crate::ops::attention::Heads;
pub use crate::ops::{Activation, NormKind};
use crate::site::{Lack, SiteKind, Units};

/// Where a block's norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and before the MLP (most families).
    Before,
    /// After attention and after the MLP, none before (OLMo 2).
    After,
    /// Both (Gemma 2 and 3).
    Both,
}

impl NormPlacement {
    /// Whether a norm stands before attention and MLP.
    pub fn before(self) -> bool {
        self != NormPlacement::After
    }

    /// Whether a norm stands after attention and MLP, on what they add to the residual stream.
    pub fn after(self) -> bool {
        self != NormPlacement::Before
    }
}

/// A layer: a mixer, which moves information between positions, and a channel, which works at each position by itself.
/// Layers of one model may differ in kind and in shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    pub mixer: Mixer,
    pub channel: Channel,
}

impl Layer {
    /// Why the layer's mixer or channel lacks a site; nothing where it has it, or the site is neither's.
    pub fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        self.mixer.lacks(kind).or_else(|| self.channel.lacks(kind))
    }

    /// How a site of the layer divides, in a model of this width.
    pub fn units(&self, kind: SiteKind, d_model: usize) -> Units {
        let own = self.mixer.units(kind, d_model).or_else(|| self.channel.units(kind));
        own.unwrap_or(Units::Columns { width: d_model })
    }

    /// Weights of the layer, in numbers (biases and norms left out, which are under a thousandth).
    pub fn params(&self, d_model: usize) -> u64 {
        self.mixer.params(d_model) + self.channel.params(d_model)
    }
}

/// A decoder, described. Sizes are in numbers, positions in tokens.
///
/// `n_heads`, `n_kv_heads`, `d_head` and `d_mlp` are the largest of any layer. Lists of heads and tables are made by them;
/// what a layer has is in [`Arch::layers`].
#[derive(Clone, Debug)]
pub struct Arch {
    pub family: &'static Family,
    pub d_model: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
    pub d_mlp: usize,
    pub vocab: usize,
    /// The longest prompt that the model takes.
    pub n_ctx: usize,
    pub norm: NormKind,
    pub norm_eps: f64,
    pub placement: NormPlacement,
    /// Attention and MLP read the same residual stream and are added together (GPT-NeoX).
    pub parallel: bool,
    /// Whether each position has an embedding, which is added to the token's.
    pub learned_positions: bool,
    /// The rotations that layers choose from by [`Attention::rope`].
    pub ropes: Vec<Rope>,
    /// One entry per layer.
    pub layers: Vec<Layer>,
    pub logit_softcap: Option<f64>,
    /// What token embeddings are multiplied by.
    pub embed_scale: Option<f64>,
    /// The unembedding is the embedding.
    pub tied: bool,
}

impl Arch {
    /// Weights of one layer, in numbers: the mean over the layers.
    pub fn layer_params(&self) -> u64 {
        self.layers.iter().map(|layer| layer.params(self.d_model)).sum::<u64>() / self.layers.len().max(1) as u64
    }

    /// The same with keys and values for every query head.
    #[must_use]
    pub fn by_query_head(&self) -> Arch {
        let layer = |layer: &Layer| Layer { mixer: layer.mixer.by_query_head(), ..*layer };
        Arch { n_kv_heads: self.n_heads, layers: self.layers.iter().map(layer).collect(), ..self.clone() }
    }

    /// Checks what the decoder relies on.
    ///
    /// # Errors
    /// A sentence that names the number that no model has, or the two that do not fit.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("d_model", self.d_model),
            ("layers", self.n_layers),
            ("heads", self.n_heads),
            ("KV heads", self.n_kv_heads),
            ("head size", self.d_head),
            ("MLP size", self.d_mlp),
            ("vocabulary", self.vocab),
            ("context", self.n_ctx),
        ];
        for (name, n) in positive {
            if n == 0 || n > 1 << 26 {
                return Err(format!("{name} is {n}, which no model has"));
            }
        }
        // Lists of heads and their rows are made before any tensor is seen.
        if self.n_heads.saturating_mul(self.d_head) > 1 << 22 || self.n_layers > 10_000 {
            return Err(format!("{} heads of {} in {} layers are no model", self.n_heads, self.d_head, self.n_layers));
        }
        let numbers = [
            ("the norms' epsilon", Some(self.norm_eps)),
            ("the soft-cap of logits", self.logit_softcap),
            ("the scale of embeddings", self.embed_scale),
        ];
        numbers.into_iter().try_for_each(|(name, n)| positive_if_any(name, n))?;
        self.ropes.iter().try_for_each(Rope::check)?;
        self.layers.iter().try_for_each(|layer| layer.mixer.check(&self.ropes))
    }
}

/// Checks a number that need not be there.
///
/// # Errors
/// If it is not a positive number.
pub(super) fn positive_if_any(name: &str, n: Option<f64>) -> Result<(), String> {
    match n.filter(|n| !(*n > 0.0 && n.is_finite())) {
        Some(n) => Err(format!("{name} is {n}; it is a positive number")),
        None => Ok(()),
    }
}
