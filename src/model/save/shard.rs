//! One file of weights: written block by block, and read back before it has its name.

use super::plan::{Shard, Tensor};
use super::{Prepared, SaveError};
use crate::model::checkpoint::{CheckpointError, Pick, Stored};
use crate::rundir::write_file_with;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::Path;

/// How many numbers, or four times as many bytes, are in memory at once.
const AT_ONCE: usize = 1 << 22;

/// What stops a file.
enum Stop {
    Disk(io::Error),
    Other(SaveError),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Stop::Disk(e)
    }
}

impl From<SaveError> for Stop {
    fn from(e: SaveError) -> Self {
        Stop::Other(e)
    }
}

impl From<CheckpointError> for Stop {
    fn from(e: CheckpointError) -> Self {
        Stop::Other(e.into())
    }
}

/// Writes a file of weights under its name once it is on the disk and was read back; gives its SHA-256 in hex.
///
/// # Errors
/// If a tensor cannot be read or does not fit its dtype, or the disk fails.
pub(super) fn write(of: &Prepared, path: &Path, shard: &Shard, done: &dyn Fn(u64)) -> Result<String, SaveError> {
    let (mut sha256, mut stopped) = (String::new(), None);
    let written = write_file_with(path, |temporary| match checked(of, temporary, shard, done) {
        Ok(found) => {
            sha256 = found;
            Ok(())
        }
        Err(Stop::Disk(e)) => Err(e),
        Err(Stop::Other(e)) => {
            stopped = Some(e);
            Err(io::Error::other("stopped"))
        }
    });
    match stopped {
        Some(e) => Err(e),
        None => Ok(written.map(|()| sha256)?),
    }
}

/// Writes a file, makes it last, and reads it back.
fn checked(of: &Prepared, path: &Path, shard: &Shard, done: &dyn Fn(u64)) -> Result<String, Stop> {
    let mut out = Hashed { file: File::create(path)?, hash: Sha256::new() };
    out.put(&header(shard)?)?;
    for tensor in &shard.tensors {
        write_tensor(of, tensor, &mut out, done)?;
    }
    out.file.sync_all()?;
    let sha256 = hex(out.hash);
    if sha256_of(path)? != sha256 {
        let why = "what was read back is not what was written: the disk or its driver is at fault";
        return Err(io::Error::other(why).into());
    }
    Ok(sha256)
}

/// A file that is hashed as it is written.
struct Hashed {
    file: File,
    hash: Sha256,
}

impl Hashed {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of a file, in hex.
///
/// # Errors
/// If it cannot be read.
pub(super) fn sha256_of(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut some) = (File::open(path)?, Sha256::new(), vec![0u8; 1 << 20]);
    loop {
        match file.read(&mut some)? {
            0 => return Ok(hex(hash)),
            n => hash.update(&some[..n]),
        }
    }
}

/// What stands before the tensors: the length of a JSON object, and that object, to a multiple of 8 bytes.
fn header(shard: &Shard) -> Result<Vec<u8>, Stop> {
    let mut at = 0;
    let infos = shard.tensors.iter().map(|tensor| {
        let begin = at;
        at += tensor.bytes as usize;
        let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (begin, at) };
        (tensor.name.clone(), info)
    });
    // Without this, `transformers` refuses the file.
    let about = HashMap::from([("format".to_string(), "pt".to_string())]);
    let failed = |e: String| io::Error::other(format!("no header can be made: {e}"));
    let metadata = Metadata::new(Some(about), infos.collect()).map_err(|e| failed(e.to_string()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| failed(e.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([(json.len() as u64).to_le_bytes().to_vec(), json].concat())
}

fn write_tensor(of: &Prepared, tensor: &Tensor, out: &mut Hashed, done: &dyn Fn(u64)) -> Result<(), Stop> {
    if tensor.is_copied() {
        return copy(of, tensor, out, done);
    }
    let stored = Stored { name: tensor.name.clone(), shape: tensor.shape.clone(), pick: of.pick(&tensor.name) };
    let (rows, columns) = stored.lines();
    let step = (AT_ONCE / columns.max(1)).max(1);
    for from in (0..rows).step_by(step) {
        let values = of.checkpoint.rows(&stored, &[from..rows.min(from + step)])?;
        let bytes = encoded(&values, tensor.dtype)
            .ok_or_else(|| SaveError::Overflow { tensor: tensor.name.clone(), dtype: tensor.dtype.to_string() })?;
        out.put(&bytes)?;
        done(bytes.len() as u64);
    }
    Ok(())
}

/// Writes a tensor as it is stored.
fn copy(of: &Prepared, tensor: &Tensor, out: &mut Hashed, done: &dyn Fn(u64)) -> Result<(), Stop> {
    let stored = of.checkpoint.stored_bytes(&tensor.name)?;
    let all = stored.bytes.len();
    for from in (0..all).step_by(4 * AT_ONCE) {
        let part: Range<usize> = from..all.min(from + 4 * AT_ONCE);
        out.put(&stored.bytes[part.clone()])?;
        stored.give_back(part.clone());
        done(part.len() as u64);
    }
    Ok(())
}

impl Prepared {
    /// How a tensor is stored, for whatever changes it.
    fn pick(&self, name: &str) -> Pick {
        match self.turned.contains(name) {
            true => Pick::Turned { rows: 0..0, columns: Vec::new() },
            false => Pick::All,
        }
    }
}

/// Numbers as bytes, each the nearest of the dtype, ties to even; none if one does not fit.
fn encoded(values: &[f32], dtype: Dtype) -> Option<Vec<u8>> {
    match dtype {
        Dtype::F32 => each(values, |x| (x.to_le_bytes(), x.is_finite())),
        Dtype::BF16 => each(values, |x| {
            let x = bf16::from_f32(x);
            (x.to_le_bytes(), x.is_finite())
        }),
        Dtype::F16 => each(values, |x| {
            let x = f16::from_f32(x);
            (x.to_le_bytes(), x.is_finite())
        }),
        _ => None,
    }
}

/// The bytes of each number, if all fit.
fn each<const N: usize>(values: &[f32], one: impl Fn(f32) -> ([u8; N], bool) + Sync) -> Option<Vec<u8>> {
    const PART: usize = 1 << 14;
    let mut bytes = vec![0u8; N * values.len()];
    let fit = bytes.par_chunks_mut(N * PART).zip(values.par_chunks(PART)).map(|(bytes, values)| {
        bytes.chunks_exact_mut(N).zip(values).fold(true, |all, (bytes, x)| {
            let (written, fits) = one(*x);
            bytes.copy_from_slice(&written);
            all && fits
        })
    });
    let fit = fit.reduce(|| true, |all, some| all && some);
    fit.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_ties_to_even() {
        let bits = |x: f32, dtype| encoded(&[x], dtype).map(|b| u16::from_le_bytes([b[0], b[1]]));
        // Between 1 and its neighbour 1 + 2^-7 in bf16, and in f16 1 + 2^-10.
        for (x, found) in
            [(1.0, 0x3f80), (1.0 + 0.00390625, 0x3f80), (1.0 + 3.0 / 256.0, 0x3f82), (1.003_906_4, 0x3f81)]
        {
            assert_eq!(bits(x, Dtype::BF16), Some(found), "{x}");
        }
        assert_eq!(bits(-0.0, Dtype::BF16), Some(0x8000));
        assert_eq!([bits(65504.0, Dtype::F16), bits(65520.0, Dtype::F16)], [Some(0x7bff), None]);
        assert_eq!([bits(2f32.powi(-25), Dtype::F16), bits(3e38, Dtype::BF16)], [Some(0), Some(0x7f62)]);
        assert_eq!(bits(f32::MAX, Dtype::BF16), None);
        assert_eq!(encoded(&[1.5, -2.0], Dtype::F32).unwrap(), [0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]);
    }

    #[test]
    fn a_header_is_the_librarys_own() {
        let tensor = |name: &str, shape: &[usize], dtype: Dtype| Tensor {
            name: name.to_string(),
            shape: shape.to_vec(),
            dtype,
            stored: dtype,
            bytes: (shape.iter().product::<usize>() * dtype.bitsize() / 8) as u64,
            changed: false,
        };
        let tensors = vec![tensor("b", &[2, 3], Dtype::F32), tensor("a", &[5], Dtype::BF16)];
        let shard = Shard { file: "model.safetensors".to_string(), tensors };
        let (b, a) = ([0u8; 24], [0u8; 10]);
        let views = [("b", Dtype::F32, vec![2, 3], &b[..]), ("a", Dtype::BF16, vec![5], &a[..])];
        let views = views.into_iter().map(|(name, dtype, shape, data)| {
            (name, safetensors::tensor::TensorView::new(dtype, shape, data).unwrap())
        });
        let about = HashMap::from([("format".to_string(), "pt".to_string())]);
        let whole = safetensors::serialize(views, Some(about)).unwrap();
        let Ok(header) = header(&shard) else { panic!("a header") };
        assert_eq!(header, whole[..whole.len() - 34]);
    }
}
