//! The multilayer perceptron, gated or plain.

use crate::model::pass::{Acts, Hook};
use crate::model::weights::form::{Form, Loaded, Located, Named, Translate};
use crate::model::weights::layout::{LayerLayout, Outputs};
use crate::ops::{self, Activation, XIelu};
use crate::site::{Lack, SiteKind, Units};
use candle_core::{D, DType, Result, Tensor};

/// An MLP, described: `down(act(gate(x)) * up(x))` with a gate, `down(act(up(x)))` without.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mlp {
    /// How many neurons it has.
    pub width: usize,
    pub gated: bool,
    pub activation: Activation,
    /// Whether the activation is an xIELU of the layer's own numbers (Apertus).
    pub xielu: bool,
    /// Above how many deviations over the mean of its row a gate opens at all (Gemma 3n).
    pub cut: Option<f64>,
    /// Whether its projections have biases.
    pub bias: bool,
}

/// Its sites between `mlp_in` and `mlp_out`.
pub(super) const INSIDE: [SiteKind; 3] = [SiteKind::MlpGate, SiteKind::MlpPre, SiteKind::MlpAct];

impl Mlp {
    pub(super) fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        if super::experts::INSIDE.contains(&kind) && !INSIDE.contains(&kind) {
            return Some(Lack { why: "its layer has one MLP, not several experts", nearest: SiteKind::MlpOut });
        }
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

    /// What the activation reads of gates: how far each is above the cut of its row, 0 where it is not. `[rows, width]`
    fn opened(&self, gate: Tensor) -> Result<Tensor> {
        let Some(deviations) = self.cut else { return Ok(gate) };
        let x = gate.to_dtype(DType::F32)?;
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let cut = (centred.sqr()?.mean_keepdim(D::Minus1)?.sqrt()? * deviations)?;
        ops::activate(&centred.broadcast_sub(&cut)?, Activation::Relu)?.to_dtype(gate.dtype())
    }

    pub(super) fn stored(&self, at: &LayerLayout) -> MlpWeights<Located> {
        self.named(&at.tensors.layer.mlp, at)
    }

    /// Where one of these names is stored.
    pub(super) fn named(&self, names: &MlpWeights<Named>, at: &LayerLayout) -> MlpWeights<Located> {
        let (d_model, m) = (at.d_model, self.width);
        // Under one name the gate's outputs come first.
        let [gate, up] = match names.gate == Some(names.up) {
            true => [Outputs::of(2 * m, 0..m), Outputs::of(2 * m, m..2 * m)],
            false => [Outputs::whole(m), Outputs::whole(m)],
        };
        let gate = self.gated.then(|| at.linear(names.gate.unwrap_or_default(), d_model, gate, self.bias));
        let numbers = |[a, b, c, d]: [&str; 4]| {
            [at.numbers(a, vec![1]), at.numbers(b, vec![1]), at.numbers(c, vec![]), at.numbers(d, vec![])]
        };
        MlpWeights {
            gate,
            up: at.linear(names.up, d_model, up, self.bias),
            down: at.linear(names.down, m, Outputs::whole(d_model), self.bias),
            xielu: names.xielu.filter(|_| self.xielu).map(numbers),
        }
    }
}

/// The parts of an MLP.
pub struct MlpWeights<F: Form = Loaded> {
    pub gate: Option<F::Matrix>,
    pub up: F::Matrix,
    pub down: F::Matrix,
    /// Of an xIELU: the two alphas, before softplus, beta and epsilon.
    pub xielu: Option<[F::Numbers; 4]>,
}

impl<F: Form> MlpWeights<F> {
    pub(in crate::model) fn translate<G: Form, T: Translate<F, G>>(
        &self,
        to: &T,
    ) -> std::result::Result<MlpWeights<G>, T::Error> {
        let numbers = |[a, b, c, d]: &[F::Numbers; 4]| -> std::result::Result<[G::Numbers; 4], T::Error> {
            Ok([to.numbers(a)?, to.numbers(b)?, to.numbers(c)?, to.numbers(d)?])
        };
        Ok(MlpWeights {
            gate: to.matrix_if(&self.gate)?,
            up: to.matrix(&self.up)?,
            down: to.matrix(&self.down)?,
            xielu: self.xielu.as_ref().map(numbers).transpose()?,
        })
    }
}

impl MlpWeights {
    /// What it gives, unobserved. `[rows, d_model]`
    pub(super) fn plain(&self, shape: &Mlp, x: &Tensor) -> Result<Tensor> {
        self.down.apply(&self.neurons(shape, x)?)
    }

    /// Its neurons, unobserved. `[rows, width]`
    pub(super) fn neurons(&self, shape: &Mlp, x: &Tensor) -> Result<Tensor> {
        let (up, activation) = (self.up.apply(x)?, self.activation(shape)?);
        match &self.gate {
            Some(gate) => gated(&shape.opened(gate.apply(x)?)?, &up, activation),
            None => ops::activate(&up, activation),
        }
    }

    /// The activation, of the layer's own numbers where it has such.
    pub(super) fn activation(&self, shape: &Mlp) -> Result<Activation> {
        let Some(numbers) = &self.xielu else { return Ok(shape.activation) };
        let number =
            |i: usize| Ok::<f32, candle_core::Error>(ops::to_vec(&numbers[i])?.first().copied().unwrap_or(0.0));
        Ok(Activation::XIelu(XIelu::of([number(0)?, number(1)?, number(2)?, number(3)?])))
    }

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
        let activation = self.activation(shape)?;
        let act = match self.gate {
            Some(_) => gated(&shape.opened(acts.take(MlpGate)?)?, &pre, activation)?,
            None => ops::activate(&pre, activation)?,
        };
        acts.put(MlpAct, act);
        hook.at(MlpAct.at(layer), acts)?;
        self.down.apply(&acts.take(MlpAct)?)
    }
}

/// What gate and up make together.
fn gated(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        // `(up + 1) * gate * sigmoid(alpha * gate)`, both cut off first (GPT-OSS)
        Activation::ClampedSwish { limit, alpha } => {
            let gate = gate.minimum(f64::from(limit))?;
            let up = up.clamp(-f64::from(limit), f64::from(limit))?;
            let swish = ops::activate_gate(&(&gate * f64::from(alpha))?, &gate, Activation::Sigmoid)?;
            swish * (up + 1.0)?
        }
        _ => ops::activate_gate(gate, up, activation),
    }
}
