//! Mixers: the half of a layer that moves information between the positions of a prompt.
//!
//! A [`Mixer`] describes one, [`MixerWeights`] run it. All that depends on which kind it is, is asked of it: the sites that
//! it has, how far along the prompt an edit reaches, what a fork takes over from its base, what it costs, and where its
//! tensors are stored. A new kind is a variant here and a file beside `attention`.

mod attention;
mod both;
mod delta;
mod recurrent;
mod rwkv;
mod states;

pub use attention::{
    Alibi, Attention, AttentionWeights, Difference, DifferenceWeights, Growth, Index, IndexWeights, Latent,
    LatentWeights, NormOver, QkNorm,
};
pub(super) use both::FedNames;
pub use both::{Both, Fed, FedWeights};
pub use delta::DeltaStored;
pub(super) use recurrent::RecurrentNames;
pub use recurrent::{Kind, Recurrent, RecurrentWeights};
pub use rwkv::Dynamic;

use super::pass::{Acts, Around, Hook};
use super::rope::Rope;
use super::weights::Linear;
use super::weights::form::{Form, Loaded, Located, Same, Translate};
use super::weights::layout::LayerLayout;
use crate::ops;
use crate::ops::attention::Heads;
use crate::site::{Lack, SiteKind, Units};
use candle_core::{Result, Tensor};

/// The mixer of a layer, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixer {
    Attention(Attention),
    Recurrent(Recurrent),
    /// Attention and a recurrent mixer, side by side or one before the other.
    Both(Both),
    /// The layer has a channel alone.
    None,
}

/// What a fork takes over from its base, for the positions before its own first one, and what a run goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Of all these positions, how many numbers each part has, in the order of [`Hook::carry`]'s: keys and values, and what keys are
    /// chosen by, where they are; what the convolution of a recurrent mixer reads, or its token shift; then what the channel's token
    /// shift reads.
    pub parts: Vec<usize>,
    /// The state of a recurrent mixer after the last of them.
    pub state: usize,
}

impl Mixer {
    /// Why the mixer lacks a site; nothing where it has it, or the site is none of a mixer's.
    pub fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        match self {
            Mixer::Attention(attention) => lacks_beside(kind).or_else(|| attention.lacks(kind)),
            Mixer::Recurrent(recurrent) => recurrent.lacks(kind),
            Mixer::Both(both) => both.lacks(kind),
            Mixer::None => lacks_mixer(kind),
        }
    }

    /// How one of the mixer's own sites divides, in a model of this width; nothing for other sites.
    pub fn units(&self, kind: SiteKind, d_model: usize) -> Option<Units> {
        match self {
            Mixer::Attention(attention) => attention.units(kind, d_model),
            Mixer::Recurrent(recurrent) => recurrent.units(kind, d_model),
            Mixer::Both(both) => both.units(kind, d_model),
            Mixer::None => None,
        }
    }

    /// How far an edit reaches along a prompt of `length` positions: where what the mixer reads differs up to `end`, what it
    /// gives differs up to the position that is returned. Neither is among them.
    pub fn reach(&self, end: usize, length: usize) -> usize {
        match self {
            Mixer::Attention(attention) => attention.reach(end, length),
            Mixer::Recurrent(recurrent) => recurrent.reach(end, length),
            Mixer::Both(both) => both.reach(end, length),
            Mixer::None => end,
        }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Mixer::Attention(Attention { latent: Some(Latent { index: Some(_), .. }), .. }) => {
                "latent attention to chosen keys"
            }
            Mixer::Attention(Attention { latent: Some(_), .. }) => "latent attention",
            Mixer::Attention(Attention { difference: Some(_), .. }) => "differential attention",
            Mixer::Attention(Attention { gated: true, .. }) => "gated attention",
            Mixer::Attention(_) => "attention",
            Mixer::Recurrent(recurrent) => recurrent.name(),
            Mixer::Both(both) => both.name(),
            Mixer::None => "no mixer",
        }
    }

    /// It as attention, alone or beside another.
    pub fn attention(&self) -> Option<&Attention> {
        match self {
            Mixer::Attention(attention) | Mixer::Both(Both { attention, .. }) => Some(attention),
            Mixer::Recurrent(_) | Mixer::None => None,
        }
    }

    /// The same, to be changed.
    pub fn attention_mut(&mut self) -> Option<&mut Attention> {
        match self {
            Mixer::Attention(attention) | Mixer::Both(Both { attention, .. }) => Some(attention),
            Mixer::Recurrent(_) | Mixer::None => None,
        }
    }

    /// Whether it reads the values of layer 0 beside the residual stream (RWKV-7).
    pub(crate) fn reads_first_values(&self) -> bool {
        matches!(self, Mixer::Recurrent(Recurrent { kind: Kind::Dynamic(of), .. }) if !of.first)
    }

    /// It as a recurrent mixer, alone or beside attention.
    pub fn recurrent(&self) -> Option<&Recurrent> {
        match self {
            Mixer::Recurrent(recurrent) | Mixer::Both(Both { recurrent, .. }) => Some(recurrent),
            Mixer::Attention(_) | Mixer::None => None,
        }
    }

    /// Its heads of queries, keys and values, where it has such; `z` may have others ([`Attention::read`]).
    pub fn heads(&self) -> Option<Heads> {
        self.attention().map(|attention| attention.heads)
    }

    /// How many positions each one looks back on, itself included; none looks back on all.
    pub fn window(&self) -> Option<usize> {
        self.heads()?.window
    }

    /// What a fork takes over from its base, in a model of this width.
    pub fn carried(&self, d_model: usize) -> Carried {
        match self {
            Mixer::Attention(attention) => Carried { parts: attention.carried(), state: 0 },
            Mixer::Recurrent(recurrent) => recurrent.carried(d_model),
            Mixer::Both(both) => {
                let Carried { parts, state } = both.recurrent.carried(d_model);
                Carried { parts: both.attention.carried().into_iter().chain(parts).collect(), state }
            }
            Mixer::None => Carried::default(),
        }
    }

    /// Whether queries and keys go through a norm of their own.
    pub fn norms_queries(&self) -> bool {
        self.attention().is_some_and(|attention| attention.qk_norm.is_some())
    }

    /// Weights, in numbers, without biases and norms.
    pub fn params(&self, d_model: usize) -> u64 {
        match self {
            Mixer::Attention(attention) => attention.params(d_model),
            Mixer::Recurrent(recurrent) => recurrent.params(d_model),
            Mixer::Both(both) => both.params(d_model),
            Mixer::None => 0,
        }
    }

    /// Floating-point operations between positions, for `rows` positions from `start` on; products with weights are not
    /// among them.
    pub fn flops(&self, start: usize, rows: usize) -> f64 {
        match self {
            Mixer::Attention(attention) => attention.flops(start, rows),
            Mixer::Recurrent(recurrent) => recurrent.flops(rows),
            Mixer::Both(both) => both.attention.flops(start, rows) + both.recurrent.flops(rows),
            Mixer::None => 0.0,
        }
    }

    /// The same with keys and values for every query head.
    pub(super) fn by_query_head(self) -> Mixer {
        match self {
            Mixer::Attention(attention) => Mixer::Attention(attention.by_query_head()),
            Mixer::Both(both) => Mixer::Both(both.by_query_head()),
            other => other,
        }
    }

    /// Checks what the decoder relies on, in a model of these rotations.
    ///
    /// # Errors
    /// A sentence that names the number that no model has, or the two that do not fit.
    pub(super) fn check(&self, ropes: &[Rope]) -> std::result::Result<(), String> {
        match self {
            Mixer::Attention(attention) => attention.check(ropes),
            Mixer::Recurrent(recurrent) => recurrent.check(),
            Mixer::Both(both) => both.check(ropes),
            Mixer::None => Ok(()),
        }
    }

    /// Where its tensors are stored.
    pub(super) fn stored(&self, at: &LayerLayout) -> MixerWeights<Located> {
        match self {
            Mixer::Attention(attention) => MixerWeights::Attention(*attention, attention.stored(at)),
            Mixer::Recurrent(recurrent) => MixerWeights::Recurrent(*recurrent, recurrent.stored(at)),
            Mixer::Both(both) => both.stored(at),
            Mixer::None => MixerWeights::None,
        }
    }
}

/// A mixer's weights with its description, or where each is stored.
// One a layer: a box would save nothing that counts.
#[allow(clippy::large_enum_variant)]
pub enum MixerWeights<F: Form = Loaded> {
    Attention(Attention, AttentionWeights<F>),
    Recurrent(Recurrent, RecurrentWeights<F>),
    Both(Both, AttentionWeights<F>, RecurrentWeights<F>, Option<FedWeights<F>>),
    None,
}

impl<F: Form> MixerWeights<F> {
    /// The weights as attention's.
    pub fn attention(&self) -> Option<&AttentionWeights<F>> {
        match self {
            MixerWeights::Attention(_, weights) | MixerWeights::Both(_, weights, ..) => Some(weights),
            MixerWeights::Recurrent(..) | MixerWeights::None => None,
        }
    }

    /// What its output is multiplied by before it is added to the residual stream, the model's own scale apart: beside another, 1
    /// elsewhere.
    pub fn scale(&self) -> f64 {
        if let MixerWeights::Both(both, ..) = self { both.scales[0] } else { 1.0 }
    }

    /// The output projection of what [`SiteKind::Z`] is, with how many heads it reads, where they are told apart.
    pub fn out(&self) -> Option<(&F::Matrix, Option<usize>)> {
        match self {
            MixerWeights::Attention(shape, weights) => Some((&weights.o, Some(shape.read().0))),
            MixerWeights::Both(both, weights, ..) => Some((&weights.o, Some(both.attention.read().0))),
            MixerWeights::Recurrent(shape, weights) => Some((&weights.out, shape.heads())),
            MixerWeights::None => None,
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
            MixerWeights::Recurrent(shape, weights) => MixerWeights::Recurrent(*shape, weights.translate(to)?),
            MixerWeights::Both(both, attention, recurrent, fed) => {
                let fed = fed.as_ref().map(|fed| fed.translate(to)).transpose()?;
                MixerWeights::Both(*both, attention.translate(to)?, recurrent.translate(to)?, fed)
            }
            MixerWeights::None => MixerWeights::None,
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
            MixerWeights::Recurrent(shape, weights) => Ok(MixerWeights::Recurrent(*shape, weights.translate(&Same)?)),
            MixerWeights::Both(both, attention, recurrent, fed) => {
                let attention = attention.by_query_head(&both.attention)?;
                let fed = fed.as_ref().map(|fed| fed.translate(&Same)).transpose()?;
                Ok(MixerWeights::Both(both.by_query_head(), attention, recurrent.translate(&Same)?, fed))
            }
            MixerWeights::None => Ok(MixerWeights::None),
        }
    }

    /// Takes `attn_in`, which must be live, to what becomes `attn_out`.
    ///
    /// # Errors
    /// If the hook stops the pass or candle fails.
    pub(super) fn forward(&self, around: &Around, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        match self {
            MixerWeights::Attention(shape, weights) => weights.forward(shape, around, acts, hook),
            MixerWeights::Recurrent(shape, weights) => weights.forward(shape, around, acts, hook),
            MixerWeights::Both(both, attention, recurrent, _) => {
                both.forward((attention, recurrent), around, acts, hook)
            }
            MixerWeights::None => candle_core::bail!("layer {} has no mixer", around.layer),
        }
    }
}

impl MixerWeights {
    /// `attn_out`, which must be live and is taken, with what is beside it: what is added to the residual stream, before a norm after it.
    ///
    /// # Errors
    /// If candle fails.
    pub(super) fn sum(&self, acts: &mut Acts) -> Result<Tensor> {
        match self {
            MixerWeights::Both(both, ..) => both.sum(acts),
            _ => acts.take(SiteKind::AttnOut),
        }
    }
}

/// What attention alone lacks.
fn lacks_beside(kind: SiteKind) -> Option<Lack> {
    let nearest = match kind {
        SiteKind::MixZ => SiteKind::Z,
        SiteKind::MixOut => SiteKind::AttnOut,
        _ => return None,
    };
    Some(Lack { why: "the layer has no recurrent mixer beside its attention", nearest })
}

/// What a layer without a mixer lacks.
fn lacks_mixer(kind: SiteKind) -> Option<Lack> {
    let of_mixer = kind > SiteKind::ResidPre && kind < SiteKind::MlpIn;
    of_mixer.then_some(Lack { why: "the layer has no attention and nothing in its place", nearest: SiteKind::ResidPre })
}

/// What each head adds by itself. `[rows, heads * width]` to `[rows, heads * d_model]`
pub(super) fn head_outputs(out: &Linear, heads: usize, z: &Tensor) -> Result<Tensor> {
    let d = z.dim(1)? / heads.max(1);
    let head = |i: usize| out.weight.product_of(i * d..(i + 1) * d, &z.narrow(1, i * d, d)?);
    Tensor::cat(&(0..heads).map(head).collect::<Result<Vec<_>>>()?, 1)
}

/// `z` through the output projection, head by head where the hook looks at single heads.
fn projected(
    out: &Linear,
    heads: Option<usize>,
    around: &Around,
    acts: &mut Acts,
    hook: &mut dyn Hook,
) -> Result<Tensor> {
    let site = SiteKind::HeadOut.at(around.layer);
    let Some(h) = heads.filter(|_| !around.beside && hook.wants(site)) else {
        return out.apply(&acts.take(around.z())?);
    };
    let clean = head_outputs(out, h, acts.get(SiteKind::Z)?)?;
    acts.put(SiteKind::HeadOut, clean);
    // Kept as a live value of the pass, so that rows which the hook adds get theirs too.
    acts.put(SiteKind::AttnOut, acts.get(SiteKind::HeadOut)?.clone());
    hook.at(site, acts)?;
    // The edits' difference is added to the plain product: rows without edits are as they would be without the hook.
    let (edited, clean) = (acts.take(SiteKind::HeadOut)?, acts.take(SiteKind::AttnOut)?);
    let change = (edited - clean)?.reshape((acts.rows.len(), h, around.arch.d_model))?.sum(1)?;
    ops::add(&out.apply(&acts.take(SiteKind::Z)?)?, &change)
}
