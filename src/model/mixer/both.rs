//! Attention and a recurrent mixer side by side: both read the same, and what both give is added to the residual stream (Falcon-H1).
//!
//! Attention has its sites under their names, the other has what is before and after its output projection at `mix_z` and `mix_out`, and
//! its own: `conv_in` and `state`.
//!
//! In Zamba 2 ([`Fed`]) the recurrent mixer comes last in its layer, after attention and the channel.

use super::{Attention, AttentionWeights, MixerWeights, Recurrent, RecurrentWeights};
use crate::model::channel::ChannelWeights;
use crate::model::checkpoint::Stored;
use crate::model::pass::{Acts, Around, Hook};
use crate::model::rope::Rope;
use crate::model::weights::form::{Form, Loaded, Located, Translate};
use crate::model::weights::layout::{LayerLayout, LinearSpec, Outputs};
use crate::ops;
use crate::site::{Lack, SiteKind, Units};
use candle_core::{Result, Tensor};

/// Attention and what stands beside it, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Both {
    pub attention: Attention,
    pub recurrent: Recurrent,
    /// What each one's output is multiplied by before it is added to the residual stream.
    pub scales: [f64; 2],
    /// Where attention adds not to the residual stream but to what the recurrent mixer reads: its scale is 0 then.
    pub fed: Option<Fed>,
}

/// Attention and the layer's channel as a block that few layers share in turn (Zamba 2; Glorioso et al. 2024). The channel reads what
/// attention gives, through its norm; a matrix of the layer's own takes what the channel gives to the recurrent mixer, which reads it
/// added to the residual stream, through a norm. Nothing but what the recurrent mixer gives is added to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Which of the layers with such a block it is, from 0.
    pub turn: usize,
    /// How many blocks they take turns with.
    pub blocks: usize,
    /// The rank of what each layer adds to the block's matrices as its own.
    pub rank: usize,
    /// Whether it adds to those of queries, keys and values; it always does to the channel's gate and up projection.
    pub adapts_attention: bool,
}

/// What the parts of layers with [`Fed`] are called.
pub(crate) struct FedNames {
    /// What stands before the names of attention and channel.
    pub block: &'static str,
    /// What stands before those of the recurrent mixer and its norm, which is called as that of layers without a block.
    pub recurrent: &'static str,
    pub down: &'static str,
    /// Of queries, keys, values, and of gate and up together; what follows are the turn, and 0 or 1 for what reads and what gives.
    pub adapters: [&'static str; 4],
}

/// What is a layer's own between its channel and its recurrent mixer.
pub struct FedWeights<F: Form = Loaded> {
    /// `[d_model, d_model]`
    pub down: F::Matrix,
    /// Of what the recurrent mixer reads.
    pub norm: F::Norm,
}

impl<F: Form> FedWeights<F> {
    pub(super) fn translate<G: Form, T: Translate<F, G>>(
        &self,
        to: &T,
    ) -> std::result::Result<FedWeights<G>, T::Error> {
        Ok(FedWeights { down: to.matrix(&self.down)?, norm: to.norm(&self.norm)? })
    }
}

impl Fed {
    /// What is added to a matrix of this many inputs, of which `out` are the outputs.
    fn adapter(&self, name: &str, at: &LayerLayout, inputs: usize, out: Outputs) -> Option<[Stored; 2]> {
        let of = |part: usize, inputs: usize, out: Outputs| {
            at.linear(&format!("{name}.{}.{part}", self.turn), inputs, out, false).weight
        };
        Some([of(0, inputs, Outputs::whole(self.rank)), of(1, self.rank, out)])
    }

    /// Gives the channel's matrices what the layer adds to them; `at` is the block's place.
    pub(in crate::model) fn adapt(&self, channel: &mut ChannelWeights<Located>, at: &LayerLayout) {
        let (Some(names), ChannelWeights::Mlp(mlp, weights)) = (&at.tensors.layer.fed, channel) else { return };
        let (d, m) = (at.d_model, mlp.width);
        // Gate and up are one matrix, as their adapter is.
        let own = |rows: std::ops::Range<usize>| self.adapter(names.adapters[3], at, d, Outputs::of(2 * m, rows));
        weights.gate.iter_mut().for_each(|gate| gate.more = own(0..m));
        weights.up.more = own(m..2 * m);
    }
}

impl Both {
    /// What the two are called together.
    pub(super) fn name(&self) -> &'static str {
        if self.fed.is_some() { "attention before a recurrent mixer" } else { "attention beside a recurrent mixer" }
    }

    pub(super) fn reach(&self, end: usize, length: usize) -> usize {
        let attended = self.attention.reach(end, length);
        attended.max(self.recurrent.reach(if self.fed.is_some() { attended } else { end }, length))
    }

    pub(super) fn params(&self, d_model: usize) -> u64 {
        let down = if self.fed.is_some() { d_model as u64 * d_model as u64 } else { 0 };
        self.attention.params(d_model) + self.recurrent.params(d_model) + down
    }

    /// Where its parts are stored.
    pub(super) fn stored(&self, at: &LayerLayout) -> MixerWeights<Located> {
        let (Some(fed), Some(names)) = (&self.fed, &at.tensors.layer.fed) else {
            return MixerWeights::Both(*self, self.attention.stored(at), self.recurrent.stored(at), None);
        };
        let (block, own, d) = (at.of_block(), at.within(names.recurrent), at.d_model);
        let (mut attention, inputs) = (self.attention.stored(&block), self.attention.inputs(d));
        if fed.adapts_attention {
            let [q, k, v, _] = self.attention.heads.widths();
            let add = |part: &mut LinearSpec, i: usize, n: usize| {
                part.more = fed.adapter(names.adapters[i], &block, inputs, Outputs::whole(n));
            };
            add(&mut attention.q, 0, q);
            attention.k.iter_mut().for_each(|part| add(part, 1, k));
            attention.v.iter_mut().for_each(|part| add(part, 2, v));
        }
        let between = FedWeights {
            down: at.linear(names.down, d, Outputs::whole(d), false),
            norm: own.norm(at.tensors.layer.attn_norm, at.arch.norm, d),
        };
        MixerWeights::Both(*self, attention, self.recurrent.stored(&own), Some(between))
    }

    pub(super) fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        match kind {
            SiteKind::ConvIn | SiteKind::State => self.recurrent.lacks(kind),
            _ => self.attention.lacks(kind),
        }
    }

    pub(super) fn units(&self, kind: SiteKind, d_model: usize) -> Option<Units> {
        match kind {
            SiteKind::MixZ => self.recurrent.units(SiteKind::Z, d_model),
            SiteKind::ConvIn | SiteKind::State => self.recurrent.units(kind, d_model),
            _ => self.attention.units(kind, d_model),
        }
    }

    pub(super) fn by_query_head(self) -> Self {
        Both { attention: self.attention.by_query_head(), ..self }
    }

    pub(super) fn check(&self, ropes: &[Rope]) -> std::result::Result<(), String> {
        self.attention.check(ropes)?;
        self.recurrent.check()?;
        match self.scales.iter().find(|scale| !scale.is_finite()) {
            Some(scale) => Err(format!("a mixer's output is multiplied by {scale}")),
            None => Ok(()),
        }
    }

    /// Takes `attn_in` to what becomes `attn_out`, and leaves `mix_out` live.
    pub(super) fn forward(
        &self,
        (attention, recurrent): (&AttentionWeights, &RecurrentWeights),
        around: &Around,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        // The recurrent mixer goes first: its sites come before those of attention.
        let out = recurrent.forward(&self.recurrent, &Around { beside: true, ..*around }, acts, hook)?;
        acts.put(SiteKind::MixOut, out);
        hook.at(SiteKind::MixOut.at(around.layer), acts)?;
        attention.forward(&self.attention, around, acts, hook)
    }

    /// What both give together.
    pub(super) fn sum(&self, acts: &mut Acts) -> Result<Tensor> {
        let [attention, recurrent] = self.scales;
        ops::add(&(acts.take(SiteKind::AttnOut)? * attention)?, &(acts.take(SiteKind::MixOut)? * recurrent)?)
    }
}
