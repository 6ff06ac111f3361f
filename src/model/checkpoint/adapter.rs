//! A LoRA adapter's weights, and the base's matrices that they change.

use super::names::{meant, place};
use super::shards::Shards;
use super::{Checkpoint, CheckpointError, Pick, Stored};
use crate::model::adapter::{Adapter, AdapterError, WEIGHTS, not_merged};
use rayon::prelude::*;
use sha2::Digest;
use std::collections::BTreeMap;
use std::ops::Range;

/// What an adapter does to a base's tensors.
pub(super) struct Merge {
    weights: Checkpoint,
    config: Vec<u8>,
    changes: BTreeMap<String, Change>,
    /// Tensors of the base that are replaced, with the adapter's that stand for them.
    replaced: BTreeMap<String, String>,
}

/// `scaling * B A`.
struct Change {
    /// `[rank, in]`
    a: Stored,
    /// `[out, rank]`
    b: Stored,
    scaling: f64,
}

impl Merge {
    /// Reads which of the base's tensors an adapter changes.
    ///
    /// # Errors
    /// If the adapter has no sound weights, or some that fit no tensor of the base.
    pub(super) fn open(adapter: &Adapter, base: &Shards) -> Result<Self, CheckpointError> {
        let path = adapter.folder.join(WEIGHTS);
        if !path.exists() && adapter.folder.join("adapter_model.bin").exists() {
            let why =
                format!("there is no such file; save the adapter in Python with safe_serialization, as `{WEIGHTS}`");
            return Err(AdapterError::File { path, why }.into());
        }
        let config = std::fs::read(adapter.folder.join(crate::model::adapter::CONFIG));
        let config = config.map_err(|e| AdapterError::File { path: adapter.folder.clone(), why: e.to_string() })?;
        let shards = Shards::open_file(&path)?;
        let bad =
            |tensor: &str, why: String| AdapterError::Tensor { path: path.clone(), tensor: tensor.to_string(), why };
        let (mut changes, mut replaced) = (BTreeMap::new(), BTreeMap::new());
        for name in shards.names() {
            let inner = name.strip_prefix("base_model.model.").unwrap_or(name);
            let change = [".lora_A.weight", ".lora_B.weight"].iter().find_map(|end| inner.strip_suffix(end));
            let tensor = change.map_or(inner.to_string(), |module| format!("{module}.weight"));
            if change.is_none() && inner.contains("lora_") {
                return Err(bad(name, not_merged("such a part of an adapter")).into());
            }
            // An unembedding of its own, where the base ties it.
            let head = change.is_none() && matches!(place(&tensor), "lm_head.weight" | "embed_out.weight");
            let Some(target) = meant(&tensor, base).or(head.then(|| tensor.clone())) else {
                return Err(
                    bad(name, not_merged(&format!("a change of `{tensor}`, of which the base has not one,"))).into()
                );
            };
            match change {
                None => drop(replaced.insert(target, name.to_string())),
                Some(module) => {
                    let found = change_of(adapter, &shards, name, module).map_err(|why| bad(name, why))?;
                    changes.insert(target, found);
                }
            }
        }
        if changes.is_empty() && replaced.is_empty() {
            return Err(AdapterError::File { path, why: "holds no tensor".to_string() }.into());
        }
        Ok(Merge { weights: Checkpoint::Safetensors(shards), config, changes, replaced })
    }

    /// Whether a tensor is not as the base has it.
    pub(super) fn changes(&self, name: &str) -> bool {
        self.changes.contains_key(name) || self.replaced.contains_key(name)
    }

    /// The names of the tensors that are the adapter's own.
    pub(super) fn own(&self) -> impl Iterator<Item = &str> {
        self.replaced.keys().map(String::as_str)
    }

    /// The adapter's tensor that stands for one of the base, with what it is of.
    pub(super) fn replaced(&self, name: &str) -> Option<(&Shards, &str)> {
        match (&self.weights, self.replaced.get(name)) {
            (Checkpoint::Safetensors(shards), Some(own)) => Some((shards, own.as_str())),
            _ => None,
        }
    }

    /// Small enough to be read whole: adapters of one shape differ in nothing else.
    pub(super) fn fingerprint(&self, hash: &mut impl Digest) {
        hash.update(&self.config);
        if let Checkpoint::Safetensors(shards) = &self.weights {
            shards.hash_whole(hash);
        }
    }

    /// Holds the change of a tensor, if it has one, to what it changes.
    ///
    /// # Errors
    /// If the change has another shape than the tensor, or another dtype than those that are read.
    pub(super) fn check(&self, stored: &Stored) -> Result<(), CheckpointError> {
        let halves = self.change_of(stored)?.map(|(change, _)| [&change.a, &change.b]);
        halves.into_iter().flatten().try_for_each(|half| self.weights.check(half))
    }

    /// The change of a matrix, if it has one, and how many numbers a stored row of that has.
    fn change_of(&self, stored: &Stored) -> Result<Option<(&Change, usize)>, CheckpointError> {
        let Some(change) = self.changes.get(&stored.name) else { return Ok(None) };
        let [down, across] = stored.shape[..] else {
            return Err(self.weights.bad(&change.a, format!("changes `{}`, which is no matrix", stored.name)));
        };
        // What is stored as `[in, out]` is changed by the transpose.
        let (inputs, outputs) = if is_turned(stored) { (down, across) } else { (across, down) };
        if change.a.shape[1] != inputs || change.b.shape[0] != outputs {
            let (a, b) = (&change.a.shape, &change.b.shape);
            let why =
                format!("of {a:?} and its `lora_B` of {b:?} do not fit `{}` of {outputs} by {inputs}", stored.name);
            return Err(self.weights.bad(&change.a, why));
        }
        Ok(Some((change, across)))
    }

    /// Adds the change of a range of a matrix's rows to them; nothing where it has none.
    ///
    /// # Errors
    /// If the change has another shape than the matrix, or is not sound.
    pub(super) fn add(&self, stored: &Stored, rows: Range<usize>, out: &mut [f32]) -> Result<(), CheckpointError> {
        let Some((change, across)) = self.change_of(stored)? else { return Ok(()) };
        let rank = change.a.shape[0];
        let columns = |stored: &Stored, picked: Range<usize>| {
            self.weights.read(&Stored {
                pick: Pick::Turned { rows: 0..stored.shape[0], columns: std::iter::once(picked).collect() },
                ..stored.clone()
            })
        };
        let whole = |stored: &Stored, rows: Range<usize>| {
            self.weights.read(&Stored { pick: Pick::Rows(vec![rows]), ..stored.clone() })
        };
        // [rows, rank] and [rank, columns]
        let (left, right) = match is_turned(stored) {
            false => (whole(&change.b, rows)?, whole(&change.a, 0..rank)?),
            true => (columns(&change.a, rows)?, columns(&change.b, 0..rank)?),
        };
        let each = out.par_chunks_mut(across.max(1)).zip(left.par_chunks(rank));
        each.for_each(|(out, left)| {
            let mut sums = vec![0f64; across];
            for (l, right) in left.iter().zip(right.chunks(across.max(1))) {
                sums.iter_mut().zip(right).for_each(|(sum, r)| *sum += f64::from(*l) * f64::from(*r));
            }
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = (f64::from(*out) + change.scaling * sum) as f32);
        });
        Ok(())
    }
}

/// Whether a matrix is stored as `[in, out]`.
fn is_turned(stored: &Stored) -> bool {
    matches!(stored.pick, Pick::Turned { .. })
}

/// A module's change, both halves of which must be there and of the rank that the description says.
fn change_of(adapter: &Adapter, shards: &Shards, name: &str, module: &str) -> Result<Change, String> {
    let stem = name.strip_suffix(".lora_A.weight").or(name.strip_suffix(".lora_B.weight")).unwrap_or(name);
    let rank = adapter.rank_of(module);
    let half = |end: &str| {
        let name = format!("{stem}.{end}.weight");
        match shards.shape(&name) {
            Some(shape) if shape.len() == 2 => Ok(Stored { shape: shape.to_vec(), name, pick: Pick::All }),
            Some(shape) => Err(format!("`{name}` has the shape {shape:?}; it is a matrix")),
            None => Err(format!("its other half, `{name}`, is missing")),
        }
    };
    let (a, b) = (half("lora_A")?, half("lora_B")?);
    if a.shape[0] != rank || b.shape[1] != rank {
        return Err(format!("is of rank {}; adapter_config.json says {rank}", a.shape[0]));
    }
    Ok(Change { a, b, scaling: adapter.scaling_of(module) })
}
