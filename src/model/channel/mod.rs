//! Channels: the half of a layer that works at each position by itself.
//!
//! A [`Channel`] describes one, [`ChannelWeights`] run it. All that depends on which kind it is, is asked of it: the sites that
//! it has, what it costs, and where its tensors are stored. A new kind is a variant here and a file beside `mlp`.

mod mlp;

pub use mlp::{Mlp, MlpWeights};

use super::pass::{Acts, Hook};
use super::weights::Linear;
use super::weights::layout::{LayerLayout, LinearSpec};
use crate::site::{Lack, SiteKind, Units};
use candle_core::{Result, Tensor};

/// The channel of a layer, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Channel {
    Mlp(Mlp),
}

impl Channel {
    /// Why the channel lacks a site; nothing where it has it, or the site is none of a channel's.
    pub fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        match self {
            Channel::Mlp(mlp) => mlp.lacks(kind),
        }
    }

    /// How one of the channel's own sites divides; nothing for other sites.
    pub fn units(&self, kind: SiteKind) -> Option<Units> {
        match self {
            Channel::Mlp(mlp) => mlp.units(kind),
        }
    }

    /// Whether what the non-linearity gives is multiplied by another projection.
    pub fn gated(&self) -> bool {
        match self {
            Channel::Mlp(mlp) => mlp.gated,
        }
    }

    /// Weights, in numbers, without biases.
    pub fn params(&self, d_model: usize) -> u64 {
        match self {
            Channel::Mlp(mlp) => mlp.params(d_model),
        }
    }

    /// Where its tensors are stored.
    pub(super) fn stored(&self, at: &LayerLayout) -> ChannelWeights<LinearSpec> {
        match self {
            Channel::Mlp(mlp) => ChannelWeights::Mlp(*mlp, mlp.stored(at)),
        }
    }
}

/// A channel's weights with its description, or where each is stored.
pub enum ChannelWeights<M = Linear> {
    Mlp(Mlp, MlpWeights<M>),
}

impl<M> ChannelWeights<M> {
    /// The weights as an MLP's.
    pub fn mlp(&self) -> Option<&MlpWeights<M>> {
        match self {
            ChannelWeights::Mlp(_, weights) => Some(weights),
        }
    }

    /// The sites between what the channel reads and what it gives: where it is widest.
    pub(super) fn inside(&self) -> &'static [SiteKind] {
        match self {
            ChannelWeights::Mlp(..) => &mlp::INSIDE,
        }
    }

    /// All matrices.
    pub(super) fn matrices(&self) -> impl Iterator<Item = &M> {
        match self {
            ChannelWeights::Mlp(_, weights) => weights.matrices(),
        }
    }

    /// The same of what `matrix` makes of each.
    ///
    /// # Errors
    /// The first of its own.
    pub(super) fn try_map<P, E>(
        &self,
        matrix: &impl Fn(&M) -> std::result::Result<P, E>,
    ) -> std::result::Result<ChannelWeights<P>, E> {
        Ok(match self {
            ChannelWeights::Mlp(shape, weights) => ChannelWeights::Mlp(*shape, weights.try_map(matrix)?),
        })
    }
}

impl ChannelWeights {
    /// Takes `mlp_in`, which must be live, to what becomes `mlp_out`.
    ///
    /// # Errors
    /// If the hook stops the pass or candle fails.
    pub(super) fn forward(&self, layer: usize, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        match self {
            ChannelWeights::Mlp(shape, weights) => weights.forward(shape, layer, acts, hook),
        }
    }
}
