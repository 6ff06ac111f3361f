//! The multilayer perceptron, gated or plain.

use crate::model::pass::{Acts, Hook};
use crate::model::weights::Linear;
use crate::model::weights::layout::{LayerLayout, LinearSpec, Outputs};
use crate::ops::{self, Activation};
use crate::site::{Lack, SiteKind, Units};
use candle_core::{Result, Tensor};

/// An MLP, described: `down(act(gate(x)) * up(x))` with a gate, `down(act(up(x)))` without.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mlp {
    /// How many neurons it has.
    pub width: usize,
    pub gated: bool,
    pub activation: Activation,
    /// Whether its projections have biases.
    pub bias: bool,
}

/// Its sites between `mlp_in` and `mlp_out`.
pub(super) const INSIDE: [SiteKind; 3] = [SiteKind::MlpGate, SiteKind::MlpPre, SiteKind::MlpAct];

impl Mlp {
    pub(super) fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        let lack = Lack { why: "its MLP has no gate", nearest: SiteKind::MlpPre };
        (kind == SiteKind::MlpGate && !self.gated).then_some(lack)
    }

    pub(super) fn units(&self, kind: SiteKind) -> Option<Units> {
        INSIDE.contains(&kind).then_some(Units::Columns { width: self.width })
    }

    pub(super) fn params(&self, d_model: usize) -> u64 {
        let matrices = if self.gated { 3 } else { 2 };
        matrices * d_model as u64 * self.width as u64
    }

    pub(super) fn stored(&self, at: &LayerLayout) -> MlpWeights<LinearSpec> {
        let (names, d_model, m) = (&at.tensors.layer.mlp, at.d_model, self.width);
        // Under one name the gate's outputs come first.
        let [gate, up] = match names.gate == Some(names.up) {
            true => [Outputs::of(2 * m, 0..m), Outputs::of(2 * m, m..2 * m)],
            false => [Outputs::whole(m), Outputs::whole(m)],
        };
        let gate = self.gated.then(|| at.linear(names.gate.unwrap_or_default(), d_model, gate, self.bias));
        MlpWeights {
            gate,
            up: at.linear(names.up, d_model, up, self.bias),
            down: at.linear(names.down, m, Outputs::whole(d_model), self.bias),
        }
    }
}

/// The parts of an MLP: its weights, or where each is stored, or what a family calls it.
#[derive(Clone, Copy)]
pub struct MlpWeights<M = Linear> {
    pub gate: Option<M>,
    pub up: M,
    pub down: M,
}

impl<M> MlpWeights<M> {
    pub(super) fn matrices(&self) -> impl Iterator<Item = &M> {
        self.gate.iter().chain([&self.up, &self.down])
    }

    pub(super) fn try_map<P, E>(
        &self,
        matrix: &impl Fn(&M) -> std::result::Result<P, E>,
    ) -> std::result::Result<MlpWeights<P>, E> {
        Ok(MlpWeights {
            gate: self.gate.as_ref().map(matrix).transpose()?,
            up: matrix(&self.up)?,
            down: matrix(&self.down)?,
        })
    }
}

impl MlpWeights {
    pub(super) fn forward(&self, shape: &Mlp, layer: usize, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        use SiteKind::*;
        let x = acts.take(MlpIn)?;
        if let Some(gate) = &self.gate {
            acts.put(MlpGate, gate.apply(&x)?);
        }
        acts.put(MlpPre, self.up.apply(&x)?);
        if self.gate.is_some() {
            hook.at(MlpGate.at(layer), acts)?;
        }
        hook.at(MlpPre.at(layer), acts)?;
        let pre = acts.take(MlpPre)?;
        let act = match self.gate {
            Some(_) => ops::activate_gate(&acts.take(MlpGate)?, &pre, shape.activation)?,
            None => ops::activate(&pre, shape.activation)?,
        };
        acts.put(MlpAct, act);
        hook.at(MlpAct.at(layer), acts)?;
        self.down.apply(&acts.take(MlpAct)?)
    }
}
