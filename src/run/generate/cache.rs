//! Keys and values that are kept while tokens are generated.

use crate::model::decoder::Decoder;
use crate::plan::Run;
use candle_core::{Result, Tensor};
use std::collections::HashMap;
use std::ops::Range;

/// Keys, rotated, and values of every layer, in slots that are the same in all layers.
pub(in crate::run) struct Cache {
    /// What each layer carries ([`crate::model::arch::Layer::carried`]). `[slots, width]` each.
    layers: Vec<Vec<Tensor>>,
    kept: HashMap<Run, Kept>,
}

/// Positions of a run that are kept.
#[derive(Clone, Debug)]
pub(in crate::run) struct Kept {
    /// The slot of the first of them; the others follow.
    pub slot: usize,
    pub positions: Range<usize>,
}

impl Kept {
    /// The slots of some of the positions.
    pub fn slots(&self, positions: &Range<usize>) -> Range<usize> {
        let first = self.slot + positions.start - self.positions.start;
        first..first + positions.len()
    }
}

impl Cache {
    /// An empty cache of `slots` slots, some of which are meant for `kept`.
    ///
    /// # Errors
    /// If candle fails.
    pub fn new(decoder: &Decoder, slots: usize, kept: HashMap<Run, Kept>) -> Result<Self> {
        let empty = |layer: usize| {
            let empty = |width: usize| Tensor::zeros((slots, width), decoder.dtype, decoder.places.layer(layer));
            decoder.arch.layers[layer]
                .carried(decoder.arch.d_model)
                .into_iter()
                .map(empty)
                .collect::<Result<Vec<Tensor>>>()
        };
        let layers = (0..decoder.arch.n_layers).map(empty).collect::<Result<_>>()?;
        Ok(Cache { layers, kept })
    }

    /// The positions of a run that are to be kept, if any are.
    pub fn kept(&self, run: Run) -> Option<&Kept> {
        self.kept.get(&run)
    }

    /// Writes a part of what a layer carries, of some rows, to the slots from `slot` on.
    ///
    /// # Errors
    /// If they do not fit or candle fails.
    pub fn put(&self, layer: usize, part: usize, slot: usize, rows: &Tensor) -> Result<()> {
        self.layers[layer][part].slice_set(&rows.to_dtype(self.layers[layer][part].dtype())?, 0, slot)
    }

    /// A part of what a layer carries, of all slots.
    pub fn part(&self, layer: usize, part: usize) -> Tensor {
        self.layers[layer][part].clone()
    }
}
