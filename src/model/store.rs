//! Where a decoder's weights are when it needs them: in memory, or in the checkpoint, from which they are read layer by
//! layer.
//!
//! Streaming keeps two layers in memory, the one that runs and the one after it, which a thread reads meanwhile; where
//! layers are asked for in reverse, as gradients do, the one before it. The wavefront asks for each layer once a sweep, so
//! that a model larger than memory costs one reading of its file, however many forks there are.

use super::checkpoint::{Pick, Stored};
use super::weights::{LayerWeights, WeightReader, WeightsError};
use crate::ops::{Weight, to_vec};
use candle_core::{Device, Result, Tensor};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// The layers of a model.
pub(super) enum Layers {
    Resident(Vec<Arc<LayerWeights>>),
    Streamed(Stream),
}

impl Layers {
    /// The weights of a layer.
    ///
    /// # Errors
    /// If there is no such layer, or it cannot be read.
    pub(super) fn get(&self, layer: usize) -> Result<Arc<LayerWeights>> {
        let found = match self {
            Layers::Resident(layers) => layers.get(layer).cloned(),
            Layers::Streamed(stream) => Some(stream.get(layer).map_err(candle_core::Error::wrap)?),
        };
        found.ok_or_else(|| candle_core::Error::Msg(format!("there is no layer {layer}")))
    }

    /// Whether the layers are read as they are needed.
    pub(super) fn streamed(&self) -> bool {
        matches!(self, Layers::Streamed(_))
    }
}

/// Layers that are read from the checkpoint as they are needed.
pub(super) struct Stream {
    source: Arc<WeightReader>,
    window: Mutex<Window>,
}

/// The layers that are in memory.
#[derive(Default)]
struct Window {
    current: Option<(usize, Arc<LayerWeights>)>,
    /// The one that is being read.
    next: Option<(usize, JoinHandle<std::result::Result<LayerWeights, WeightsError>>)>,
}

impl Stream {
    pub(super) fn new(source: Arc<WeightReader>) -> Self {
        Stream { source, window: Mutex::default() }
    }

    fn get(&self, layer: usize) -> std::result::Result<Arc<LayerWeights>, WeightsError> {
        // A thread that panicked while it held the lock left at worst an empty window.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((l, weights)) = &window.current
            && *l == layer
        {
            return Ok(weights.clone());
        }
        // Let go of the old layer before the new one takes memory.
        let down = window.current.take().is_some_and(|(l, _)| l == layer + 1);
        let read = match window.next.take() {
            Some((l, thread)) if l == layer => thread.join().unwrap_or(Err(WeightsError::Stopped { layer })),
            _ => self.source.layer(layer),
        };
        let weights = Arc::new(read?);
        window.current = Some((layer, weights.clone()));
        let next = if down { layer.checked_sub(1) } else { Some(layer + 1) };
        if let Some(next) = next.filter(|l| *l < self.source.n_layers()) {
            let source = self.source.clone();
            window.next = Some((next, std::thread::spawn(move || source.layer_ahead(next))));
        }
        Ok(weights)
    }
}

/// Some entries of a stored table.
fn part_of(source: &WeightReader, stored: &Stored, device: &Device, range: Range<usize>) -> Result<Tensor> {
    let stored = Stored { pick: Pick::Rows(vec![range]), ..stored.clone() };
    source.tensor(&stored, device).map_err(candle_core::Error::wrap)
}

/// A matrix of which single rows are wanted: `[entries, width]`.
#[derive(Clone)]
pub(super) enum Table {
    Resident(Weight),
    /// Read as it is needed, for a device.
    Stored {
        source: Arc<WeightReader>,
        stored: Stored,
        device: Device,
    },
}

/// Entries of a stored table that are in memory at once while all of them are multiplied.
const ENTRIES_AT_ONCE: usize = 16_384;

impl Table {
    /// Rows of the table. `[entries, width]`
    ///
    /// # Errors
    /// If an entry is out of range, or the table cannot be read.
    pub(super) fn rows(&self, entries: &[u32]) -> Result<Tensor> {
        let n = self.entries()?;
        if let Some(entry) = entries.iter().find(|e| **e as usize >= n) {
            candle_core::bail!("entry {entry} of a table of {n}")
        }
        match self {
            Table::Resident(table) => table.rows(entries),
            Table::Stored { source, stored, device } => {
                let rows = entries.iter().map(|e| *e as usize..*e as usize + 1).collect();
                let stored = Stored { pick: Pick::Rows(rows), ..stored.clone() };
                source.tensor(&stored, device).map_err(candle_core::Error::wrap)
            }
        }
    }

    /// `x` times every entry: `[rows, width]` to `[rows, entries]`.
    ///
    /// # Errors
    /// If the widths differ, or the table cannot be read.
    pub(super) fn product(&self, x: &Tensor) -> Result<Tensor> {
        let (source, stored, device) = match self {
            Table::Resident(table) => return table.product(x),
            Table::Stored { source, stored, device } => (source, stored, device),
        };
        let part = |range: Range<usize>| Weight::new(&part_of(source, stored, device, range)?)?.product(x);
        Tensor::cat(&self.parts()?.map(part).collect::<Result<Vec<_>>>()?, 1)
    }

    /// The mean of all entries, summed in f64. `[width]`
    ///
    /// # Errors
    /// If the table cannot be read.
    pub(super) fn mean(&self) -> Result<Vec<f32>> {
        let mut sums: Vec<f64> = Vec::new();
        for range in self.parts()? {
            let part = match self {
                Table::Resident(table) => table.rows(&range.map(|r| r as u32).collect::<Vec<_>>())?,
                Table::Stored { source, stored, device } => part_of(source, stored, device, range)?,
            };
            let (width, values) = (part.dim(1)?, to_vec(&part)?);
            sums.resize(width, 0.0);
            for row in values.chunks_exact(width.max(1)) {
                row.iter().zip(&mut sums).for_each(|(x, sum)| *sum += f64::from(*x));
            }
        }
        let n = self.entries()? as f64;
        Ok(sums.iter().map(|sum| (sum / n) as f32).collect())
    }

    /// The gradient of [`Table::product`] with respect to its `x`, given that with respect to its result: `[rows, entries]`
    /// to `[rows, width]`.
    ///
    /// # Errors
    /// If the widths differ, or the table cannot be read.
    pub(super) fn product_back(&self, grad: &Tensor) -> Result<Tensor> {
        let (source, stored, device) = match self {
            Table::Resident(table) => return table.product_back(grad),
            Table::Stored { source, stored, device } => (source, stored, device),
        };
        let mut sum: Option<Tensor> = None;
        for range in self.parts()? {
            let part = part_of(source, stored, device, range.clone())?;
            let part = Weight::new(&part)?.product_back(&grad.narrow(1, range.start, range.len())?)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        sum.ok_or_else(|| candle_core::Error::Msg("a table has no entries".to_string()))
    }

    /// The entries of a table that are handled at once.
    fn parts(&self) -> Result<impl Iterator<Item = Range<usize>> + use<>> {
        let n = self.entries()?;
        Ok((0..n).step_by(ENTRIES_AT_ONCE).map(move |from| from..n.min(from + ENTRIES_AT_ONCE)))
    }

    fn entries(&self) -> Result<usize> {
        match self {
            Table::Resident(table) => Ok(table.dims()?.0),
            Table::Stored { stored, .. } => Ok(stored.shape[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_that_is_read_ahead_is_the_next_in_the_direction_of_the_pass() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama");
        let options = crate::model::Options { max_memory: Some(1000), ..Default::default() };
        let model = crate::model::Model::open(dir, &options).expect("a sound model");
        let Layers::Streamed(stream) = &model.decoder.layers else { panic!("the model is streamed") };
        let ahead_of = |layer: usize| {
            stream.get(layer).expect("a layer");
            stream.window.lock().expect("a window").next.as_ref().map(|(l, _)| *l)
        };
        assert_eq!([0, 1, 2, 3].map(ahead_of), [Some(1), Some(2), Some(3), None]);
        assert_eq!([3, 2, 1, 0].map(ahead_of), [None, Some(1), Some(0), None]);
        assert_eq!([0, 1].map(ahead_of), [None, Some(2)]);
    }
}
