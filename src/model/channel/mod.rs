//! Channels: the half of a layer that works at each position by itself. RWKV's read the position before it too.
//!
//! A [`Channel`] describes one, [`ChannelWeights`] run it. All that depends on which kind it is, is asked of it: the sites that
//! it has, what it costs, and where its tensors are stored. A new kind is a variant here and a file beside `mlp`.

mod experts;
mod mlp;
mod routed;
mod shifted;

pub(super) use experts::{ApartWeights, ExpertNames, Part, StoredExperts};
pub use experts::{Experts, ExpertsWeights, Groups, Router, Scores, Shared};
pub use mlp::{Mlp, MlpWeights};
pub use routed::RoutedExperts;
pub use shifted::{Shifted, ShiftedWeights};

use super::pass::{Acts, Hook};
use super::weights::Linear;
use super::weights::form::{Form, Loaded, Located, Translate};
use super::weights::layout::LayerLayout;
use crate::site::{Lack, SiteKind, Units};
use candle_core::{Result, Tensor};

/// The channel of a layer, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Channel {
    Mlp(Mlp),
    Experts(Experts),
    Shifted(Shifted),
    /// The layer has a mixer alone.
    None,
}

impl Channel {
    /// Why the channel lacks a site; nothing where it has it, or the site is none of a channel's.
    pub fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        match self {
            Channel::Mlp(mlp) => mlp.lacks(kind),
            Channel::Experts(experts) => experts.lacks(kind),
            Channel::Shifted(shifted) => shifted.mlp.lacks(kind),
            Channel::None => lacks_channel(kind),
        }
    }

    /// How one of the channel's own sites divides, in a model of this width; nothing for other sites.
    pub fn units(&self, kind: SiteKind, d_model: usize) -> Option<Units> {
        match self {
            Channel::Mlp(mlp) => mlp.units(kind),
            Channel::Experts(experts) => experts.units(kind, d_model),
            Channel::Shifted(shifted) => shifted.mlp.units(kind),
            Channel::None => None,
        }
    }

    /// How far along a prompt of `length` positions an edit reaches: where what the channel reads differs up to `end`, what it gives
    /// differs up to the position that is returned. Neither is among them.
    pub fn reach(&self, end: usize, length: usize) -> usize {
        if let Channel::Shifted(_) = self { length.min(end + 1) } else { end }
    }

    /// What a fork takes over from its base, as [`super::mixer::Mixer::carried`] says it.
    pub fn carried(&self, d_model: usize) -> Vec<usize> {
        if let Channel::Shifted(_) = self { vec![d_model] } else { Vec::new() }
    }

    /// How its neurons stand in `mlp_act`.
    pub fn neurons(&self) -> Numbering {
        match self {
            Channel::Mlp(mlp) => Numbering { common: mlp.width, ..Numbering::default() },
            Channel::Experts(experts) => experts.neurons(),
            Channel::Shifted(shifted) => Numbering { common: shifted.mlp.width, ..Numbering::default() },
            Channel::None => Numbering::default(),
        }
    }

    /// How many neurons it has, or each of its experts.
    pub fn width(&self) -> usize {
        match self {
            Channel::Mlp(mlp) => mlp.width,
            Channel::Experts(experts) => experts.mlp.width,
            Channel::Shifted(shifted) => shifted.mlp.width,
            Channel::None => 0,
        }
    }

    /// Whether what the non-linearity gives is multiplied by another projection.
    pub fn gated(&self) -> bool {
        match self {
            Channel::Mlp(mlp) => mlp.gated,
            Channel::Experts(experts) => experts.mlp.gated,
            Channel::Shifted(_) | Channel::None => false,
        }
    }

    /// Weights, in numbers, without biases.
    pub fn params(&self, d_model: usize) -> u64 {
        match self {
            Channel::Mlp(mlp) => mlp.params(d_model),
            Channel::Experts(experts) => experts.params(d_model),
            Channel::Shifted(shifted) => shifted.params(d_model),
            Channel::None => 0,
        }
    }

    /// Those that a row is multiplied with.
    pub fn active_params(&self, d_model: usize) -> u64 {
        match self {
            Channel::Mlp(mlp) => mlp.params(d_model),
            Channel::Experts(experts) => experts.active_params(d_model),
            Channel::Shifted(shifted) => shifted.params(d_model),
            Channel::None => 0,
        }
    }

    /// Checks what the decoder relies on.
    ///
    /// # Errors
    /// A sentence that names the numbers that do not fit.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        match self {
            Channel::Mlp(_) | Channel::Shifted(_) => Ok(()),
            Channel::Experts(experts) => experts.check(),
            Channel::None => Ok(()),
        }
    }

    /// Where its tensors are stored.
    pub(super) fn stored(&self, at: &LayerLayout) -> ChannelWeights<Located> {
        match self {
            Channel::Mlp(mlp) => ChannelWeights::Mlp(*mlp, mlp.stored(at)),
            Channel::Experts(experts) => ChannelWeights::Experts(*experts, experts.stored(at)),
            Channel::Shifted(shifted) => ChannelWeights::Shifted(*shifted, shifted.stored(at)),
            Channel::None => ChannelWeights::None,
        }
    }
}

/// How the neurons of a channel stand in [`SiteKind::MlpAct`]: first those that all rows go through, then those of each expert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbering {
    /// Neurons that all rows go through: of an MLP, or of a shared expert.
    pub common: usize,
    /// How many experts there are that rows choose from.
    pub experts: usize,
    /// How many neurons each of these has.
    pub of_each: usize,
}

impl Numbering {
    /// How many there are in all.
    pub fn total(&self) -> usize {
        self.common + self.experts * self.of_each
    }
}

/// A channel's weights with its description, or where each is stored.
pub enum ChannelWeights<F: Form = Loaded> {
    Mlp(Mlp, MlpWeights<F>),
    Experts(Experts, ExpertsWeights<F>),
    Shifted(Shifted, ShiftedWeights<F>),
    None,
}

impl<F: Form> ChannelWeights<F> {
    /// The weights as an MLP's, whose neurons add what they do whatever else there is.
    pub fn mlp(&self) -> Option<&MlpWeights<F>> {
        match self {
            ChannelWeights::Mlp(_, weights) => Some(weights),
            ChannelWeights::Shifted(shifted, weights) => (!shifted.receptance).then_some(&weights.mlp),
            ChannelWeights::Experts(..) | ChannelWeights::None => None,
        }
    }

    /// The sites between what the channel reads and what it gives: where it is widest.
    pub(super) fn inside(&self) -> &'static [SiteKind] {
        match self {
            ChannelWeights::Mlp(..) | ChannelWeights::Shifted(..) => &mlp::INSIDE,
            ChannelWeights::Experts(..) => &experts::INSIDE,
            ChannelWeights::None => &[],
        }
    }

    /// The same in another form.
    ///
    /// # Errors
    /// The first of `to`'s.
    pub(super) fn translate<G: Form, T: Translate<F, G>>(
        &self,
        to: &T,
    ) -> std::result::Result<ChannelWeights<G>, T::Error> {
        Ok(match self {
            ChannelWeights::Mlp(shape, weights) => ChannelWeights::Mlp(*shape, weights.translate(to)?),
            ChannelWeights::Experts(shape, weights) => ChannelWeights::Experts(*shape, weights.translate(to)?),
            ChannelWeights::Shifted(shape, weights) => ChannelWeights::Shifted(*shape, weights.translate(to)?),
            ChannelWeights::None => ChannelWeights::None,
        })
    }
}

impl ChannelWeights {
    /// How many matrices its neurons write through.
    pub fn downs(&self) -> usize {
        match self {
            ChannelWeights::Experts(of, weights) => usize::from(weights.shared.is_some()) + of.n,
            _ => usize::from(self.mlp().is_some()),
        }
    }

    /// One of the matrices through which its neurons write, in the order in which these stand in `mlp_act`.
    ///
    /// # Errors
    /// If there is no such matrix, or it is of an expert that cannot be read.
    pub fn down(&self, i: usize) -> Result<Linear> {
        match self {
            ChannelWeights::Experts(_, weights) => match (&weights.shared, i) {
                (Some(shared), 0) => Ok(shared.down.clone()),
                (shared, i) => Ok(weights.experts.get(i - usize::from(shared.is_some()))?.down.clone()),
            },
            // What RWKV-4's neurons add together is gated by the position's own receptance.
            _ => match self.mlp() {
                Some(mlp) => Ok(mlp.down.clone()),
                None => candle_core::bail!("the channel has no neurons"),
            },
        }
    }

    /// Reads what was left in the checkpoint until rows choose it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read(&self) -> Result<()> {
        let ChannelWeights::Experts(of, weights) = self else { return Ok(()) };
        weights.experts.ask(0..of.n);
        (0..of.n).try_for_each(|e| weights.experts.get(e).map(drop))
    }

    /// Whether rows read others', so that all must be there.
    pub(super) fn moves(&self) -> bool {
        matches!(self, ChannelWeights::Shifted(..))
    }

    /// Takes `mlp_in`, which must be live, to what becomes `mlp_out`; `first` is the number of the first part that it carries.
    ///
    /// # Errors
    /// If the hook stops the pass or candle fails.
    pub(super) fn forward(&self, layer: usize, first: usize, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        match self {
            ChannelWeights::Mlp(shape, weights) => weights.forward(shape, layer, acts, hook),
            ChannelWeights::Experts(shape, weights) => weights.forward(shape, layer, acts, hook),
            ChannelWeights::Shifted(shape, weights) => weights.forward(shape, (layer, first), acts, hook),
            ChannelWeights::None => candle_core::bail!("layer {layer} has no channel"),
        }
    }
}

/// What a layer without a channel lacks.
fn lacks_channel(kind: SiteKind) -> Option<Lack> {
    let of_channel = kind >= SiteKind::MlpIn && kind <= SiteKind::MlpDelta;
    of_channel.then_some(Lack { why: "the layer has no MLP and nothing in its place", nearest: SiteKind::ResidPost })
}
