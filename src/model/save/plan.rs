//! Which tensors are written, as what, and into which file: as `transformers` divides them.

use super::{SaveAs, SaveError, Settings};
use crate::model::checkpoint::{Checkpoint, CheckpointError, SINGLE};
use safetensors::Dtype;

/// A tensor that is written.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// What it is written as.
    pub dtype: Dtype,
    /// What the base has it stored as.
    pub stored: Dtype,
    /// How many bytes are written.
    pub bytes: u64,
    /// Whether its numbers are others than the base's stored ones.
    pub changed: bool,
}

impl Tensor {
    /// Whether it is written byte for byte as it is stored.
    pub fn is_copied(&self) -> bool {
        !self.changed && self.dtype == self.stored
    }
}

/// A file of weights.
#[derive(Clone, Debug)]
pub struct Shard {
    pub file: String,
    /// In the order in which they stand in the file.
    pub tensors: Vec<Tensor>,
}

impl Shard {
    /// How many bytes of weights it has.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }
}

impl SaveAs {
    /// What a tensor is written as that is stored so; whole numbers stay what they are.
    fn of(self, stored: Dtype) -> Dtype {
        match (self, stored) {
            (SaveAs::F32, Dtype::F16 | Dtype::BF16) => Dtype::F32,
            (SaveAs::Bf16, Dtype::F32 | Dtype::F16) => Dtype::BF16,
            (SaveAs::F16, Dtype::F32 | Dtype::BF16) => Dtype::F16,
            _ => stored,
        }
    }
}

/// The files of a checkpoint.
///
/// # Errors
/// If its weights are quantised.
pub(super) fn shards(checkpoint: &Checkpoint, settings: &Settings) -> Result<Vec<Shard>, SaveError> {
    let mut names = checkpoint.names();
    names.sort();
    let tensors = names.into_iter().map(|name| tensor(checkpoint, name, settings.save_as));
    let parts = divided(tensors.collect::<Result<_, _>>()?, settings.max_shard);
    let n = parts.len();
    let file = |i: usize| if n == 1 { SINGLE.to_string() } else { format!("model-{:05}-of-{n:05}.safetensors", i + 1) };
    let shards = parts.into_iter().enumerate().map(|(i, mut tensors)| {
        // As the safetensors library orders them: the widest first, so that all are aligned.
        tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        Shard { file: file(i), tensors }
    });
    Ok(shards.collect())
}

fn tensor(checkpoint: &Checkpoint, name: String, save_as: SaveAs) -> Result<Tensor, SaveError> {
    let bad = |why: String| {
        let (path, tensor) = (checkpoint.path_of(&name), name.clone());
        SaveError::Checkpoint(CheckpointError::Tensor { path, tensor, why })
    };
    let (stored, shape) = checkpoint.stored(&name).ok_or_else(|| bad("is missing".to_string()))?;
    let quantised = match stored {
        Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ => Some("FP8"),
        Dtype::F4 => Some("MXFP4"),
        _ => None,
    };
    if let Some(kind) = quantised {
        let why = format!("is stored in {kind}, which is read but not written; take the unquantised checkpoint");
        return Err(bad(why));
    }
    let (shape, dtype, changed) = (shape.to_vec(), save_as.of(stored), checkpoint.changes(&name));
    let bytes = match dtype == stored {
        true => checkpoint.stored_bytes(&name)?.bytes.len() as u64,
        // Only floats of whole bytes become others.
        false => (shape.iter().product::<usize>() * (dtype.bitsize() / 8)) as u64,
    };
    Ok(Tensor { name, shape, dtype, stored, bytes, changed })
}

/// Tensors in parts of so many bytes at most; one that is larger by itself has a part of its own.
fn divided(tensors: Vec<Tensor>, most: u64) -> Vec<Vec<Tensor>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for tensor in tensors {
        if tensor.bytes > most {
            parts.push(vec![tensor]);
            continue;
        }
        if bytes + tensor.bytes > most {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += tensor.bytes;
        part.push(tensor);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(bytes: &[u64]) -> Vec<Tensor> {
        let one = |(i, bytes): (usize, &u64)| Tensor {
            name: i.to_string(),
            shape: Vec::new(),
            dtype: Dtype::F32,
            stored: Dtype::F32,
            bytes: *bytes,
            changed: false,
        };
        bytes.iter().enumerate().map(one).collect()
    }

    fn parts(bytes: &[u64], most: u64) -> Vec<Vec<u64>> {
        let parts = divided(sized(bytes), most);
        parts.iter().map(|part| part.iter().map(|tensor| tensor.bytes).collect()).collect()
    }

    #[test]
    fn parts_are_full_but_not_over_and_a_large_tensor_has_its_own() {
        assert_eq!(parts(&[3, 4, 3, 5, 5, 1], 10), [vec![3, 4, 3], vec![5, 5], vec![1]]);
        // As `transformers` does, which goes on with the part before it.
        assert_eq!(parts(&[3, 20, 4, 5], 10), [vec![20], vec![3, 4], vec![5]]);
        assert_eq!(parts(&[20, 30], 10), [vec![20], vec![30]]);
        assert_eq!(parts(&[1, 1], 10), [vec![1, 1]]);
    }

    #[test]
    fn only_floats_are_written_as_others() {
        assert_eq!(SaveAs::Bf16.of(Dtype::F32), Dtype::BF16);
        assert_eq!(SaveAs::F32.of(Dtype::BF16), Dtype::F32);
        assert_eq!(SaveAs::F16.of(Dtype::I64), Dtype::I64);
        assert_eq!(SaveAs::Keep.of(Dtype::F16), Dtype::F16);
    }
}
