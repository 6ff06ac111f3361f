//! Mixers: the half of a layer that moves information between the positions of a prompt.
//!
//! A [`Mixer`] describes one, [`MixerWeights`] run it. All that depends on which kind it is, is asked of it: the sites that
//! it has, how far along the prompt an edit reaches, what a fork takes over from its base, what it costs, and where its
//! tensors are stored. A new kind is a variant here and a file beside `attention`.

mod attention;

pub use attention::{Attention, AttentionWeights, Growth, Latent, LatentWeights, NormOver, QkNorm};

use super::pass::{Acts, Around, Hook};
use super::rope::Rope;
use super::weights::form::{Form, Loaded, Located, Translate};
use super::weights::layout::LayerLayout;
use crate::ops::attention::Heads;
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
    /// The keys and the values of all these positions, so many numbers each.
    KeysValues { keys: usize, values: usize },
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

    /// Its heads, where it has such.
    pub fn heads(&self) -> Option<Heads> {
        match self {
            Mixer::Attention(attention) => Some(attention.heads),
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
            Mixer::Attention(attention) => attention.qk_norm.is_some(),
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
    pub(super) fn stored(&self, at: &LayerLayout) -> MixerWeights<Located> {
        match self {
            Mixer::Attention(attention) => MixerWeights::Attention(*attention, attention.stored(at)),
        }
    }
}

/// A mixer's weights with its description, or where each is stored.
pub enum MixerWeights<F: Form = Loaded> {
    Attention(Attention, AttentionWeights<F>),
}

impl<F: Form> MixerWeights<F> {
    /// The weights as attention's.
    pub fn attention(&self) -> Option<&AttentionWeights<F>> {
        match self {
            MixerWeights::Attention(_, weights) => Some(weights),
        }
    }

    /// The same in another form.
    ///
    /// # Errors
    /// The first of `to`'s.
    pub(super) fn translate<G: Form, T: Translate<F, G>>(
        &self,
        to: &T,
    ) -> std::result::Result<MixerWeights<G>, T::Error> {
        Ok(match self {
            MixerWeights::Attention(shape, weights) => MixerWeights::Attention(*shape, weights.translate(to)?),
        })
    }
}

impl MixerWeights {
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
