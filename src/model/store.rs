//! Where a decoder's weights are when it needs them: in memory, or in the checkpoint, from which they are read layer by
//! layer.
//!
//! Streaming keeps two layers in memory, the one that runs and the one after it, which a thread reads meanwhile. The
//! wavefront asks for each layer once a sweep, so that a model larger than memory costs one reading of its file, however
//! many forks there are.

use super::checkpoint::{Pick, Stored};
use super::decoder::product;
use super::weights::{LayerWeights, Source, WeightsError};
use candle_core::{Result, Tensor};
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
    source: Arc<Source>,
    window: Mutex<Window>,
}

/// The layers that are in memory.
#[derive(Default)]
struct Window {
    current: Option<(usize, Arc<LayerWeights>)>,
    next: Option<(usize, JoinHandle<std::result::Result<LayerWeights, WeightsError>>)>,
}

impl Stream {
    pub(super) fn new(source: Arc<Source>) -> Self {
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
        window.current = None;
        let read = match window.next.take() {
            Some((l, thread)) if l == layer => thread.join().unwrap_or(Err(WeightsError::Stopped { layer })),
            _ => self.source.layer(layer),
        };
        let weights = Arc::new(read?);
        window.current = Some((layer, weights.clone()));
        if layer + 1 < self.source.n_layers() {
            let source = self.source.clone();
            window.next = Some((layer + 1, std::thread::spawn(move || source.layer(layer + 1))));
        }
        Ok(weights)
    }
}

/// A matrix of which single rows are wanted: `[entries, width]`.
#[derive(Clone)]
pub(super) enum Table {
    Resident(Tensor),
    Stored { source: Arc<Source>, stored: Stored },
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
            Table::Resident(table) => table.index_select(&Tensor::new(entries, table.device())?, 0),
            Table::Stored { source, stored } => {
                let rows = entries.iter().map(|e| *e as usize..*e as usize + 1).collect();
                let stored = Stored { pick: Pick::Rows(rows), ..stored.clone() };
                source.tensor(&stored).map_err(candle_core::Error::wrap)
            }
        }
    }

    /// `x` times every entry: `[rows, width]` to `[rows, entries]`.
    ///
    /// # Errors
    /// If the widths differ, or the table cannot be read.
    pub(super) fn product(&self, x: &Tensor) -> Result<Tensor> {
        let (source, stored) = match self {
            Table::Resident(table) => return product(x, table),
            Table::Stored { source, stored } => (source, stored),
        };
        let n = self.entries()?;
        let part = |from: usize| {
            let stored = Stored { pick: Pick::Rows(vec![from..n.min(from + ENTRIES_AT_ONCE)]), ..stored.clone() };
            product(x, &source.tensor(&stored).map_err(candle_core::Error::wrap)?)
        };
        let parts: Vec<Tensor> = (0..n).step_by(ENTRIES_AT_ONCE).map(part).collect::<Result<_>>()?;
        Tensor::cat(&parts, 1)
    }

    fn entries(&self) -> Result<usize> {
        match self {
            Table::Resident(table) => table.dim(0),
            Table::Stored { stored, .. } => Ok(stored.shape[0]),
        }
    }
}
