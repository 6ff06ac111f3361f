//! RWKV's channel-mix: an MLP that reads, at each position, a mixture of that position and the one before it; in RWKV-4 a gate of its own
//! multiplies what it gives (Peng et al. 2023, 2025).

use super::mlp::{Mlp, MlpWeights};
use crate::model::pass::{Acts, Hook};
use crate::model::weights::form::{Form, Loaded, Located, Named, Translate};
use crate::model::weights::layout::{LayerLayout, Outputs};
use crate::ops::{self, Activation};
use crate::site::SiteKind;
use candle_core::{Result, Tensor};

/// Such a channel, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shifted {
    /// The MLP, which has no gate.
    pub mlp: Mlp,
    /// Whether what it gives is multiplied by the sigmoid of a projection (RWKV-4).
    pub receptance: bool,
    /// Whether what is stored is how much is read of the position before, not of the position itself.
    pub of_previous: bool,
}

impl Shifted {
    pub(super) fn params(&self, d_model: usize) -> u64 {
        let d = d_model as u64;
        self.mlp.params(d_model) + if self.receptance { d * d } else { 0 }
    }

    pub(super) fn stored(&self, at: &LayerLayout) -> ShiftedWeights<Located> {
        let (d, names) = (at.d_model, &at.tensors.layer.mlp);
        // The names of an MLP's parts, whose gate is the receptance.
        let plain = MlpWeights::<Named> { gate: None, up: names.up, down: names.down, xielu: None };
        let gate = names.gate.unwrap_or_default();
        let shape = if self.of_previous { vec![d] } else { vec![1, 1, d] };
        ShiftedWeights {
            mlp: self.mlp.named(&plain, at),
            receptance: self.receptance.then(|| at.linear(gate, d, Outputs::whole(d), false)),
            shares: at.tensors.layer.shifts.iter().map(|name| at.numbers(name, shape.clone())).collect(),
        }
    }

    /// What a projection reads: so much of the position itself, the rest of the one before.
    fn mixed(&self, x: &Tensor, previous: &Tensor, share: &Tensor) -> Result<Tensor> {
        let share = share.flatten_all()?.unsqueeze(0)?.to_dtype(x.dtype())?;
        match self.of_previous {
            true => x + (previous - x)?.broadcast_mul(&share)?,
            false => x.broadcast_mul(&share)? + previous.broadcast_mul(&(1.0 - &share)?)?,
        }
    }
}

/// The parts of such a channel.
pub struct ShiftedWeights<F: Form = Loaded> {
    pub mlp: MlpWeights<F>,
    pub receptance: Option<F::Matrix>,
    /// How much the MLP reads of which position, and then the receptance, if there is one. `[d_model]` each
    pub shares: Vec<F::Numbers>,
}

impl<F: Form> ShiftedWeights<F> {
    pub(super) fn translate<G: Form, T: Translate<F, G>>(
        &self,
        to: &T,
    ) -> std::result::Result<ShiftedWeights<G>, T::Error> {
        Ok(ShiftedWeights {
            mlp: self.mlp.translate(to)?,
            receptance: to.matrix_if(&self.receptance)?,
            shares: self.shares.iter().map(|part| to.numbers(part)).collect::<std::result::Result<_, _>>()?,
        })
    }
}

impl ShiftedWeights {
    pub(super) fn forward(
        &self,
        shape: &Shifted,
        (layer, part): (usize, usize),
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        use SiteKind::*;
        let x = acts.take(MlpIn)?;
        let previous = ops::shifted(&hook.carry(layer, part, x.clone())?, &acts.rows)?;
        let mixed = |i: usize| match self.shares.get(i) {
            Some(share) => shape.mixed(&x, &previous, share),
            None => candle_core::bail!("the channel of layer {layer} lacks the shares of its projection {i}"),
        };
        // What the receptance makes of it must have the rows that the hook may add: it stands where a gate does.
        if let Some(receptance) = &self.receptance {
            acts.put(MlpGate, ops::activate(&receptance.apply(&mixed(1)?)?, Activation::Sigmoid)?);
        }
        acts.put(MlpPre, self.mlp.up.apply(&mixed(0)?)?);
        hook.at(MlpPre.at(layer), acts)?;
        let act = ops::activate(&acts.take(MlpPre)?, self.mlp.activation(&shape.mlp)?)?;
        acts.put(MlpAct, act);
        hook.at(MlpAct.at(layer), acts)?;
        let out = self.mlp.down.apply(&acts.take(MlpAct)?)?;
        if self.receptance.is_some() { out * acts.take(MlpGate)? } else { Ok(out) }
    }
}
