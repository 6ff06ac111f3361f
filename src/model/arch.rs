//! The typed description of a model: all that the one decoder has to know to run any family.
//!
//! A family's differences are values of these types. [`super::config`] reads them from a Hugging Face `config.json`,
//! [`super::gguf_config`] from GGUF metadata; both ask for the family for its defaults, [`super::weights`] for where its
//! tensors are stored. [`super::decoder`] and the engines never do.

use super::rope::Rope;
pub use crate::ops::{Activation, NormKind};
use std::fmt;

/// The model families that the decoder covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    Gpt2,
    GptNeox,
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma2,
    Gemma3,
    Phi3,
    Olmo2,
}

/// Every family with the `model_type` that its `config.json` carries.
pub const FAMILIES: [(Family, &str); 10] = [
    (Family::Gpt2, "gpt2"),
    (Family::GptNeox, "gpt_neox"),
    (Family::Llama, "llama"),
    (Family::Mistral, "mistral"),
    (Family::Qwen2, "qwen2"),
    (Family::Qwen3, "qwen3"),
    (Family::Gemma2, "gemma2"),
    (Family::Gemma3, "gemma3_text"),
    (Family::Phi3, "phi3"),
    (Family::Olmo2, "olmo2"),
];

impl Family {
    /// The family's `model_type`.
    pub fn name(self) -> &'static str {
        FAMILIES[self as usize].1
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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

/// Whether queries and keys are normed before rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    None,
    /// Each head by itself, one weight of `d_head` for all heads (Qwen 3, Gemma 3).
    PerHead,
    /// All heads together, a weight of `n_heads * d_head` (OLMo 2).
    Whole,
}

/// The shape of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// `down(act(gate(x)) * up(x))`
    Gated,
    /// `down(act(up(x)))`
    Plain,
}

/// Which projections have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Biases {
    pub qkv: bool,
    pub attn_out: bool,
    pub mlp: bool,
}

/// A decoder, described. Sizes are in numbers, positions in tokens.
#[derive(Clone, Debug)]
pub struct Arch {
    pub family: Family,
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
    /// Whether the checkpoint's norm weights are offsets from 1 (Gemma in safetensors; its GGUF has the 1 added).
    pub norm_plus_one: bool,
    pub placement: NormPlacement,
    pub qk_norm: QkNorm,
    /// Attention and MLP read the same residual stream and are added together (GPT-NeoX).
    pub parallel: bool,
    pub mlp: Mlp,
    pub activation: Activation,
    pub biases: Biases,
    /// The rotations that layers choose from by [`Layer::rope`]; none where positions are learned.
    pub ropes: Vec<Rope>,
    /// One entry a layer.
    pub layers: Vec<Layer>,
    /// What scores are multiplied by before the softmax; by [`Arch::score_scale_of`] in a layer.
    pub score_scale: f64,
    /// Whether layer `l` divides its scores by `l + 1` too (GPT-2's `scale_attn_by_inverse_layer_idx`).
    pub scores_by_depth: bool,
    pub score_softcap: Option<f64>,
    pub logit_softcap: Option<f64>,
    /// What token embeddings are multiplied by.
    pub embed_scale: Option<f64>,
    /// The unembedding is the embedding.
    pub tied: bool,
}

/// What differs between the layers of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Position i attends to j with `i - j < window`; none attends to all before it.
    pub window: Option<usize>,
    /// Index into [`Arch::ropes`].
    pub rope: usize,
}

impl Arch {
    /// Query heads that share one KV head.
    pub fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// What a layer's scores are multiplied by before the softmax.
    pub fn score_scale_of(&self, layer: usize) -> f64 {
        if self.scores_by_depth { self.score_scale / (layer + 1) as f64 } else { self.score_scale }
    }

    /// Weights of one layer, in numbers (biases and norms left out, which are under a thousandth).
    pub fn layer_params(&self) -> u64 {
        let (d, dh) = (self.d_model as u64, self.d_head as u64);
        let attention = d * dh * (2 * self.n_heads as u64 + 2 * self.n_kv_heads as u64);
        let matrices = if self.mlp == Mlp::Gated { 3 } else { 2 };
        attention + matrices * d * self.d_mlp as u64
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
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(format!("{} heads do not divide over {} KV heads", self.n_heads, self.n_kv_heads));
        }
        let numbers = [
            ("the norms' epsilon", Some(self.norm_eps)),
            ("the scale of attention scores", Some(self.score_scale)),
            ("the soft-cap of attention scores", self.score_softcap),
            ("the soft-cap of logits", self.logit_softcap),
            ("the scale of embeddings", self.embed_scale),
        ];
        for (name, n) in numbers {
            if let Some(n) = n.filter(|n| !(*n > 0.0 && n.is_finite())) {
                return Err(format!("{name} is {n}; it is a positive number"));
            }
        }
        self.ropes.iter().try_for_each(Rope::check)?;
        if let Some(rope) = self.ropes.iter().find(|r| 2 * r.pairs() > self.d_head || r.rotary == 0) {
            return Err(format!("{} rotated dimensions do not fit a head of {}", rope.rotary, self.d_head));
        }
        if self.layers.iter().any(|l| l.window == Some(0)) {
            return Err("a sliding window of 0 positions sees nothing".to_string());
        }
        Ok(())
    }
}
