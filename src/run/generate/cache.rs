//! Keys and values, what keys are chosen by, and states of recurrent mixers, that are kept while tokens are generated.

use crate::model::arch::Carried;
use crate::model::decoder::Decoder;
use crate::plan::Run;
use candle_core::{DType, Device, Result, Tensor};
use std::collections::HashMap;
use std::ops::Range;

/// Keys, rotated, and values of every layer, in slots that are the same in all layers, and the states of the runs that go on.
pub(in crate::run) struct Cache {
    /// What each layer carries of all positions ([`crate::model::arch::Carried`]). `[slots, width]` each.
    layers: Vec<Vec<Tensor>>,
    /// The state of each run that goes on after its last position, in each layer. `[streams, width]` in f32 on the host.
    states: Vec<Tensor>,
    kept: HashMap<Run, Kept>,
    /// Which rows of the states are a run's: as many as it is sampled.
    streams: HashMap<Run, Vec<usize>>,
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
    /// An empty cache of `slots` slots, some of which are meant for `kept`, for runs that go on in these streams.
    ///
    /// # Errors
    /// If candle fails.
    pub fn new(
        decoder: &Decoder,
        slots: usize,
        kept: HashMap<Run, Kept>,
        streams: HashMap<Run, Vec<usize>>,
    ) -> Result<Self> {
        let (mut layers, mut states) = (Vec::new(), Vec::new());
        let n: usize = streams.values().map(Vec::len).sum();
        for (l, layer) in decoder.arch.layers.iter().enumerate() {
            let Carried { parts, state } = layer.carried(decoder.arch.d_model);
            let empty = |width: usize| Tensor::zeros((slots, width), decoder.dtype, decoder.places.layer(l));
            layers.push(parts.into_iter().map(empty).collect::<Result<Vec<Tensor>>>()?);
            states.push(Tensor::zeros((n, state), DType::F32, &Device::Cpu)?);
        }
        Ok(Cache { layers, states, kept, streams })
    }

    /// Whether a run goes on.
    pub fn goes_on(&self, run: Run) -> bool {
        self.streams.contains_key(&run)
    }

    /// Keeps a run's state after the prompt for all its streams. `[1, width]`
    ///
    /// # Errors
    /// If it does not fit or candle fails.
    pub fn put_state(&self, layer: usize, run: Run, state: &Tensor) -> Result<()> {
        let streams = self.streams.get(&run).into_iter().flatten();
        streams.copied().try_for_each(|stream| self.put_state_of(layer, stream, state))
    }

    /// Keeps a stream's state. `[1, width]`
    ///
    /// # Errors
    /// If it does not fit or candle fails.
    pub fn put_state_of(&self, layer: usize, stream: usize, state: &Tensor) -> Result<()> {
        self.states[layer].slice_set(&state.contiguous()?, 0, stream)
    }

    /// A stream's state. `[1, width]`
    ///
    /// # Errors
    /// If candle fails.
    pub fn state(&self, layer: usize, stream: usize) -> Result<Tensor> {
        self.states[layer].narrow(0, stream, 1)
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
