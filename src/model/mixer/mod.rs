//! Mixers: the half of a layer that moves information between the positions of a prompt.
//!
//! A [`Mixer`] describes one, [`MixerWeights`] run it. All that depends on which kind it is, is asked of it: the sites that
//! it has, how far along the prompt an edit reaches, what a fork takes over from its base, what it costs, and where its
//! tensors are stored. A new kind is a variant here and a file beside `attention`.

mod attention;

pub use attention::{Attention, AttentionWeights, QkNorm};

use super::pass::{Acts, Around, Hook};
use super::rope::Rope;
use super::weights::layout::{LayerLayout, LinearSpec, NormSpec};
use super::weights::{Linear, NormWeights};
use crate::site::{Lack, SiteKind, Units};
use candle_core::{Result, Tensor};

/// The mixer of a layer, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixer {
    Attention(Attention),
}

/// What a fork takes over from its base, for the positions before its own first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// The keys and the values of all these positions, `width` numbers each.
    KeysValues { width: usize },
}

impl Mixer {
    /// Why the mixer lacks a site; nothing where it has it, or the site is none of a mixer's.
    pub fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        match self {
            Mixer::Attention(attention) => attention.lacks(kind),
        }
    }

    /// How one of the mixer's own sites divides, in a model of this width; nothing for other sites.
    pub fn units(&self, kind: SiteKind, d_model: usize) -> Option<Units> {
        match self {
            Mixer::Attention(attention) => attention.units(kind, d_model),
        }
    }

    /// How far an edit reaches along a prompt of `length` positions: where what the mixer reads differs up to `end`, what it
    /// gives differs up to the position that is returned. Neither is among them.
    pub fn reach(&self, end: usize, length: usize) -> usize {
        match self {
            Mixer::Attention(attention) => attention.reach(end, length),
        }
    }

    /// How many positions each one looks back on, itself included; none looks back on all.
    pub fn window(&self) -> Option<usize> {
        match self {
            Mixer::Attention(attention) => attention.heads.window,
        }
    }

    /// What a fork takes over from its base.
    pub fn carried(&self) -> Carried {
        match self {
            Mixer::Attention(attention) => attention.carried(),
        }
    }

    /// Whether queries and keys go through a norm of their own.
    pub fn norms_queries(&self) -> bool {
        match self {
            Mixer::Attention(attention) => attention.qk_norm != QkNorm::None,
        }
    }

    /// Weights, in numbers, without biases and norms.
    pub fn params(&self, d_model: usize) -> u64 {
        match self {
            Mixer::Attention(attention) => attention.params(d_model),
        }
    }

    /// Floating-point operations between positions, for `rows` positions from `start` on; products with weights are not
    /// among them.
    pub fn flops(&self, start: usize, rows: usize) -> f64 {
        match self {
            Mixer::Attention(attention) => attention.flops(start, rows),
        }
    }

    /// The same with keys and values for every query head.
    pub(super) fn by_query_head(self) -> Mixer {
        match self {
            Mixer::Attention(attention) => Mixer::Attention(attention.by_query_head()),
        }
    }

    /// Checks what the decoder relies on, in a model of these rotations.
    ///
    /// # Errors
    /// A sentence that names the number that no model has, or the two that do not fit.
    pub(super) fn check(&self, ropes: &[Rope]) -> std::result::Result<(), String> {
        match self {
            Mixer::Attention(attention) => attention.check(ropes),
        }
    }

    /// Where its tensors are stored.
    pub(super) fn stored(&self, at: &LayerLayout) -> MixerWeights<LinearSpec, NormSpec> {
        match self {
            Mixer::Attention(attention) => MixerWeights::Attention(*attention, attention.stored(at)),
        }
    }
}

/// A mixer's weights with its description, or where each is stored.
pub enum MixerWeights<M = Linear, N = NormWeights> {
    Attention(Attention, AttentionWeights<M, N>),
}

impl<M, N> MixerWeights<M, N> {
    /// The weights as attention's.
    pub fn attention(&self) -> Option<&AttentionWeights<M, N>> {
        match self {
            MixerWeights::Attention(_, weights) => Some(weights),
        }
    }

    /// All norms.
    pub(super) fn norms(&self) -> impl Iterator<Item = &N> {
        match self {
            MixerWeights::Attention(_, weights) => weights.norms(),
        }
    }

    /// All matrices.
    pub(super) fn matrices(&self) -> impl Iterator<Item = &M> {
        match self {
            MixerWeights::Attention(_, weights) => weights.matrices(),
        }
    }

    /// The same of what `matrix` and `norm` make of each.
    ///
    /// # Errors
    /// The first of theirs.
    pub(super) fn try_map<P, Q, E>(
        &self,
        matrix: &impl Fn(&M) -> std::result::Result<P, E>,
        norm: &impl Fn(&N) -> std::result::Result<Q, E>,
    ) -> std::result::Result<MixerWeights<P, Q>, E> {
        Ok(match self {
            MixerWeights::Attention(shape, weights) => MixerWeights::Attention(*shape, weights.try_map(matrix, norm)?),
        })
    }
}

impl MixerWeights {
    /// The same with keys and values for every query head, equal ones where heads share one.
    ///
    /// # Errors
    /// If candle fails.
    pub(super) fn by_query_head(&self) -> Result<MixerWeights> {
        match self {
            MixerWeights::Attention(shape, weights) => {
                Ok(MixerWeights::Attention(shape.by_query_head(), weights.by_query_head(shape)?))
            }
        }
    }

    /// Takes `attn_in`, which must be live, to what becomes `attn_out`.
    ///
    /// # Errors
    /// If the hook stops the pass or candle fails.
    pub(super) fn forward(&self, around: &Around, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        match self {
            MixerWeights::Attention(shape, weights) => weights.forward(shape, around, acts, hook),
        }
    }
}
