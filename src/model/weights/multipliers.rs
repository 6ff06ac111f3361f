//! Multipliers of what projections read and give (muP), as scales of their matrices and biases: what is multiplied where weights are
//! read is not multiplied in every pass.

use super::LayerWeights;
use super::form::Located;
use super::layout::LinearSpec;
use crate::model::channel::ChannelWeights;
use crate::model::mixer::{MixerWeights, RecurrentWeights};

/// The multipliers of a model's layers (Falcon-H1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multipliers {
    /// Of what attention reads, and of its keys.
    pub attention: f64,
    pub keys: f64,
    /// Of what the recurrent mixer reads, and of what each of its projections gives: so many outputs each, in their order.
    pub recurrent: f64,
    pub projections: [(usize, f64); 5],
    /// Of the MLP's gate and of what it gives.
    pub gate: f64,
    pub down: f64,
}

/// What a projection is multiplied by as it is read.
#[derive(Clone, Debug, Default)]
pub(in crate::model) struct Scales {
    /// Of what it reads: the matrix alone; none is 1.
    input: Option<f64>,
    /// Of its outputs, the matrix and the bias; so many at a time, and none are all by 1.
    outputs: Vec<(usize, f64)>,
}

impl Scales {
    fn of(input: f64, outputs: Vec<(usize, f64)>) -> Self {
        Scales { input: Some(input), outputs }
    }

    /// By one number each way.
    fn whole(input: f64, output: f64) -> Self {
        Scales::of(input, vec![(usize::MAX, output)])
    }

    fn is_one(&self) -> bool {
        self.input.is_none_or(|x| x == 1.0) && self.outputs.iter().all(|(_, x)| *x == 1.0)
    }

    /// Rows of `width` numbers, one an output.
    fn scaled(&self, input: f64, mut values: Vec<f32>, width: usize) -> Vec<f32> {
        if self.is_one() {
            return values;
        }
        let each = self.outputs.iter().flat_map(|(n, by)| std::iter::repeat_n(*by, *n));
        let each = each.chain(std::iter::repeat(1.0));
        for (row, by) in values.chunks_mut(width.max(1)).zip(each) {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) * input * by) as f32);
        }
        values
    }
}

impl LinearSpec {
    /// The matrix's numbers as the decoder multiplies by them. `[outputs, inputs]`
    pub fn scaled(&self, values: Vec<f32>) -> Vec<f32> {
        let width = self.weight.picked_shape().last().copied().unwrap_or(1);
        self.scales.scaled(self.scales.input.unwrap_or(1.0), values, width)
    }

    /// The bias' numbers as the decoder adds them. `[outputs]`
    pub fn scaled_bias(&self, values: Vec<f32>) -> Vec<f32> {
        self.scales.scaled(1.0, values, 1)
    }
}

impl Multipliers {
    /// Gives a layer's projections their scales.
    pub(super) fn scale(&self, layer: &mut LayerWeights<Located>) {
        if let MixerWeights::Both(_, attention, recurrent, _) = &mut layer.mixer {
            attention.q.scales = Scales::whole(self.attention, 1.0);
            attention.k.iter_mut().for_each(|k| k.scales = Scales::whole(self.attention, self.keys));
            attention.v.iter_mut().for_each(|v| v.scales = Scales::whole(self.attention, 1.0));
            self.scale_recurrent(recurrent);
        }
        if let ChannelWeights::Mlp(_, mlp) = &mut layer.channel {
            mlp.gate.iter_mut().for_each(|gate| gate.scales = Scales::whole(1.0, self.gate));
            mlp.down.scales = Scales::whole(1.0, self.down);
        }
    }

    /// Those of Mamba 2: what is convolved, the gate, the time steps.
    fn scale_recurrent(&self, recurrent: &mut RecurrentWeights<Located>) {
        let [gate, x, b, c, dt] = self.projections;
        for (part, outputs) in recurrent.inputs.iter_mut().zip([vec![x, b, c], vec![gate], vec![dt]]) {
            part.scales = Scales::of(self.recurrent, outputs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_scale_the_matrix_and_outputs_the_bias_too() {
        let scales = Scales::of(2.0, vec![(1, 3.0), (2, 5.0)]);
        assert_eq!(scales.scaled(2.0, vec![1.0; 6], 2), [6.0, 6.0, 10.0, 10.0, 10.0, 10.0]);
        assert_eq!(scales.scaled(1.0, vec![1.0; 3], 1), [3.0, 5.0, 5.0]);
        assert_eq!(Scales::default().scaled(1.0, vec![7.0; 3], 1), [7.0; 3]);
    }
}
