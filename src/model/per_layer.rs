//! Per-layer embeddings: a narrow embedding of each token for every layer, which the layer adds to the residual stream by a gate
//! (Gemma 3n and 4).
//!
//! A layer's input is made of two parts. One is the token's row of a table of its own, and follows the token whatever is edited.
//! The other is a projection of what enters layer 0 ([`SiteKind::Embed`]), and so follows edits there, but none after it: in
//! `transformers`, `inputs_embeds` and `input_ids` are these two. What the layer makes of them after its channel, and adds, is the
//! site [`SiteKind::PleOut`].

use super::arch::Arch;
use super::pass::{Acts, Lent};
use super::places::moved;
use super::store::Table;
use super::weights::NormWeights;
use super::weights::form::{Form, Loaded, Located, Translate};
use super::weights::layout::{LayerLayout, Outputs};
use crate::ops::{self, Activation};
use crate::site::{Lack, SiteKind};
use candle_core::{Result, Tensor};

/// Per-layer embeddings, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerLayer {
    /// How many numbers each layer has of a token.
    pub width: usize,
    /// How many tokens the table has.
    pub vocab: usize,
    /// The non-linearity of the gate.
    pub activation: Activation,
}

/// What the families call the parts: the same in all that have them.
pub(super) const TABLE: &str = "embed_tokens_per_layer";
pub(super) const CONTEXT_NORM: &str = "per_layer_projection_norm";
const CONTEXT: &str = "per_layer_model_projection";
const GATE: &str = "per_layer_input_gate";
const OUT: &str = "per_layer_projection";
const POST_NORM: &str = "post_per_layer_input_norm";
/// And what each layer multiplies the residual stream by.
pub(super) const SCALAR: &str = "layer_scalar";

/// Why a model has no such site.
pub(crate) const LACK: Lack = Lack { why: "its layers have no embeddings of their own", nearest: SiteKind::ResidPost };

impl PerLayer {
    /// Weights of one layer, in numbers, but for its share of the table.
    pub(super) fn params(&self, d_model: usize) -> u64 {
        3 * d_model as u64 * self.width as u64
    }

    /// Checks what the decoder relies on.
    ///
    /// # Errors
    /// A sentence that names the number that no model has.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let sizes = [(self.width, "the width of per-layer embeddings"), (self.vocab, "their vocabulary")];
        match sizes.into_iter().find(|(n, _)| *n == 0 || *n > 1 << 26) {
            Some((n, name)) => Err(format!("{name} is {n}, which no model has")),
            None => Ok(()),
        }
    }

    /// Where the parts of a layer are stored: one of them among those of all layers.
    pub(super) fn stored(&self, layer: usize, at: &LayerLayout, whole: &LayerLayout) -> PerLayerWeights<Located> {
        let (d, n) = (at.d_model, self.width);
        let own = Outputs::of(at.arch.n_layers * n, layer * n..(layer + 1) * n);
        PerLayerWeights {
            context: whole.linear(CONTEXT, d, own, false),
            gate: at.linear(GATE, d, Outputs::whole(n), false),
            out: at.linear(OUT, n, Outputs::whole(d), false),
            post_norm: at.norm(POST_NORM, at.arch.norm, d),
        }
    }
}

/// The parts of one layer.
pub struct PerLayerWeights<F: Form = Loaded> {
    /// What makes the layer's input of what enters layer 0. `[width, d_model]`
    pub context: F::Matrix,
    /// What the residual stream opens of the input. `[width, d_model]`
    pub gate: F::Matrix,
    /// `[d_model, width]`
    pub out: F::Matrix,
    /// The norm of what is added.
    pub post_norm: F::Norm,
}

impl<F: Form> PerLayerWeights<F> {
    pub(super) fn translate<G: Form, T: Translate<F, G>>(
        &self,
        to: &T,
    ) -> std::result::Result<PerLayerWeights<G>, T::Error> {
        Ok(PerLayerWeights {
            context: to.matrix(&self.context)?,
            gate: to.matrix(&self.gate)?,
            out: to.matrix(&self.out)?,
            post_norm: to.norm(&self.post_norm)?,
        })
    }
}

/// The table of all layers' embeddings, and the norm of what is projected beside them.
#[derive(Clone)]
pub(super) struct TokenEmbedding {
    /// `[vocab, n_layers * width]`
    pub table: Table,
    pub norm: NormWeights,
}

/// The tokens of a pass' rows, with what the table has of each.
#[derive(Clone)]
pub(crate) struct TokenRows {
    /// Which of `table`'s rows is each row's. `[rows]`
    of_row: Vec<u32>,
    /// `[tokens, n_layers * width]`
    table: Tensor,
}

impl TokenRows {
    /// Those of rows that are copies of the old ones which `from` names, all in range.
    pub fn gather(&mut self, from: &[u32]) {
        self.of_row = from.iter().filter_map(|row| self.of_row.get(*row as usize).copied()).collect();
    }
}

impl TokenEmbedding {
    /// What rows of these tokens are given.
    ///
    /// # Errors
    /// If the table has no row for a token, or cannot be read.
    pub fn rows(&self, of: &PerLayer, ids: &[u32]) -> Result<TokenRows> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= of.vocab) {
            candle_core::bail!("token {id} has no per-layer embedding: the model has those of {} tokens", of.vocab)
        }
        let mut tokens = ids.to_vec();
        tokens.sort_unstable();
        tokens.dedup();
        let of_row = ids.iter().map(|id| tokens.binary_search(id).unwrap_or_default() as u32).collect();
        let table = self.table.rows(&tokens)?;
        // Rounded to the model's dtype, as the embedding's own scale is.
        let scale = Tensor::new((of.width as f64).sqrt() as f32, table.device())?.to_dtype(table.dtype())?;
        Ok(TokenRows { of_row, table: table.broadcast_mul(&scale)? })
    }
}

impl PerLayerWeights {
    /// What a layer adds, of its rows' tokens and of `resid`, what it reads of the residual stream after its channel.
    /// `[rows, d_model]`
    ///
    /// # Errors
    /// If the pass did not begin with tokens, or candle fails.
    pub(super) fn forward(
        &self,
        (arch, of): (&Arch, &PerLayer),
        layer: usize,
        embedding: &TokenEmbedding,
        acts: &Acts,
        resid: &Tensor,
    ) -> Result<Tensor> {
        let Some(tokens) = &acts.loans.tokens else {
            candle_core::bail!("layer {layer} was not told its rows' tokens")
        };
        let gate = self.gate.apply(resid)?;
        let context = (self.context.apply(acts.loans.get(Lent::Embed)?)? * (arch.d_model as f64).powf(-0.5))?;
        let norm = NormWeights { weight: moved(&embedding.norm.weight, resid.device())?, ..embedding.norm.clone() };
        let context = norm.apply(&context)?;
        let of_row = Tensor::new(tokens.of_row.as_slice(), tokens.table.device())?;
        let own = tokens.table.narrow(1, layer * of.width, of.width)?.contiguous()?.index_select(&of_row, 0)?;
        let input = (ops::add(&context, &moved(&own, resid.device())?)? * 0.5f64.sqrt())?;
        let out = self.out.apply(&ops::activate_gate(&gate, &input, of.activation)?)?;
        self.post_norm.apply(&out)
    }
}
