//! How the parts of a gated delta rule are stored: which outputs of which tensors its projections are, and in which order its value heads
//! stand.

use super::RecurrentWeights;
use crate::model::checkpoint::{Pick, Stored};
use crate::model::weights::form::Located;
use crate::model::weights::layout::Outputs;
use std::ops::Range;

/// How the projections of a gated delta rule are stored. Value heads that share a key head follow one another, but where it says
/// otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaStored {
    /// Queries, keys and values in one tensor; gates, how much is written, and time steps in one each (Qwen 3.5).
    Apart,
    /// Head by head of the keys, in two tensors (Qwen 3 Next).
    ByKeyHead,
    /// As apart, but how much is written and time steps in one, head by head of the keys (Qwen 3 Next in GGUF files).
    StepsByKeyHead,
    /// As apart, but the first value head of every key head comes first, then the second of every one (Qwen 3.5 in GGUF files).
    InTurn,
}

/// The heads of a gated delta rule and their sizes.
#[derive(Clone, Copy)]
pub(super) struct DeltaShape {
    pub key_heads: usize,
    pub value_heads: usize,
    pub d_key: usize,
    pub d_value: usize,
}

impl DeltaShape {
    /// Which name each projection has, and which outputs of what is stored it is: queries, keys and values; gates; how much is
    /// written; time steps.
    pub fn inputs(self, stored: DeltaStored) -> Vec<(usize, Outputs)> {
        let DeltaShape { key_heads, value_heads, d_key, d_value } = self;
        let (keys, values) = (key_heads * d_key, value_heads * d_value);
        let apart = [2 * keys + values, values, value_heads, value_heads].map(Outputs::whole).into_iter().enumerate();
        match stored {
            DeltaStored::Apart => apart.collect(),
            DeltaStored::StepsByKeyHead => apart.take(2).chain([(2, self.step(0)), (2, self.step(1))]).collect(),
            DeltaStored::InTurn => {
                let of = |stored: usize, rows: Vec<Range<usize>>| Outputs { stored, rows };
                vec![
                    (0, of(2 * keys + values, self.mixed())),
                    (1, of(values, self.heads(0, d_value))),
                    (2, of(value_heads, self.heads(0, 1))),
                    (3, of(value_heads, self.heads(0, 1))),
                ]
            }
            DeltaStored::ByKeyHead => {
                let each = value_heads / key_heads;
                let of_key_head = [d_key, d_key, each * d_value, each * d_value];
                let wide: usize = of_key_head.iter().sum();
                let part = |i: usize| -> Vec<Range<usize>> {
                    let from: usize = of_key_head[..i].iter().sum();
                    (0..key_heads).map(|h| h * wide + from..h * wide + from + of_key_head[i]).collect()
                };
                let qkvz = |rows: Vec<Range<usize>>| Outputs { stored: key_heads * wide, rows };
                let mixed = [part(0), part(1), part(2)].concat();
                vec![(0, qkvz(mixed)), (0, qkvz(part(3))), (1, self.step(0)), (1, self.step(1))]
            }
        }
    }

    /// How much is written, or the time steps, where both are stored head by head of the keys.
    fn step(self, half: usize) -> Outputs {
        let each = self.value_heads / self.key_heads;
        let rows = (0..self.key_heads).map(|h| (2 * h + half) * each..(2 * h + half + 1) * each).collect();
        Outputs { stored: 2 * self.value_heads, rows }
    }

    /// Where `width` numbers of each value head are stored that stand [in turn](DeltaStored::InTurn), after so many others.
    fn heads(self, after: usize, width: usize) -> Vec<Range<usize>> {
        let each = self.value_heads / self.key_heads;
        let place = |head: usize| after + (head % each * self.key_heads + head / each) * width;
        (0..self.value_heads).map(|head| place(head)..place(head) + width).collect()
    }

    /// Where the channels of queries, keys and values are stored where value heads stand in turn.
    fn mixed(self) -> Vec<Range<usize>> {
        let keys = 2 * self.key_heads * self.d_key;
        std::iter::once(0..keys).chain(self.heads(keys, self.d_value)).collect()
    }

    /// The parts beside the projections of what the layer reads, where value heads stand in turn.
    pub fn in_turn(self, weights: RecurrentWeights<Located>) -> RecurrentWeights<Located> {
        let picked = |stored: Stored, pick: Pick| Stored { pick, ..stored };
        let mut out = weights.out;
        out.weight.pick = Pick::Columns(self.heads(0, self.d_value));
        RecurrentWeights {
            conv: weights.conv.into_iter().map(|conv| picked(conv, Pick::Rows(self.mixed()))).collect(),
            decay: weights.decay.map(|decay| picked(decay, Pick::Logs(self.heads(0, 1)))),
            dt_bias: weights.dt_bias.map(|bias| picked(bias, Pick::Flat(self.heads(0, 1)))),
            out,
            ..weights
        }
    }
}
