//! Checkpoints on disk: named tensors of safetensors files or of a GGUF file, read as f32 on request.
//!
//! What a LoRA adapter changes of them is changed as they are read, and what a mixture adds to them is added then.
//!
//! Files are memory-mapped; nothing is converted before it is asked for, and what was converted is given back to the
//! system, so that a model's peak memory is that of its converted weights. Which tensors make up a model is
//! [`super::weights`]' business.

// Mapping a file is unsafe because another process may change it meanwhile.
#![allow(unsafe_code)]

mod adapter;
mod fp8;
mod mixture;
mod mxfp4;
mod names;
mod shards;

use super::adapter::{Adapter, AdapterError};
use super::gguf::{GgmlKind, Gguf, GgufError, dequantize};
use adapter::Merge;
use fp8::Scale;
use memmap2::Mmap;
pub(super) use mixture::Difference;
use mixture::Mixture;
use mxfp4::Mxfp4;
use rayon::prelude::*;
use safetensors::Dtype;
use sha2::{Digest, Sha256};
use shards::Shards;
pub(super) use shards::{INDEX, INSTEAD, SINGLE};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{path}: {why}", path = path.display())]
    File { path: PathBuf, why: String },
    #[error("{path}: tensor `{tensor}`: {why}", path = path.display())]
    Tensor { path: PathBuf, tensor: String, why: String },
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

/// An open checkpoint.
pub enum Checkpoint {
    Safetensors(Shards),
    Gguf(Gguf),
}

/// Which part of a stored matrix is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    All,
    /// Ranges of rows, in this order.
    Rows(Vec<Range<usize>>),
    /// Ranges of the columns of some rows, as rows: the stored matrix is `[in, out]` (GPT-2).
    Turned {
        rows: Range<usize>,
        columns: Vec<Range<usize>>,
    },
    /// Ranges of all its numbers, one after another.
    Flat(Vec<Range<usize>>),
    /// Of a stack `[n, in, out]` each matrix turned, one below another: `[n out, in]`.
    TurnedEach,
    /// Ranges of the columns of all rows, in this order.
    Columns(Vec<Range<usize>>),
    /// Of all numbers, in ranges one after another, which are negative, the logarithms of their sizes.
    Logs(Vec<Range<usize>>),
}

/// A part of a stored tensor, with the shape that the whole must have.
#[derive(Clone, Debug)]
pub struct Stored {
    pub name: String,
    pub shape: Vec<usize>,
    pub pick: Pick,
}

impl Stored {
    /// How many rows the whole has, those of a stack of matrices one below another, and how many numbers a row; numbers in a row,
    /// and one by itself, are rows of one.
    pub(super) fn lines(&self) -> (usize, usize) {
        match self.shape.split_last() {
            Some((columns, rest)) if !rest.is_empty() => (rest.iter().product(), *columns),
            Some((n, _)) => (*n, 1),
            None => (1, 1),
        }
    }

    /// How many matrices a stack has.
    fn stacked(&self) -> usize {
        self.shape.first().map_or(1, |n| *n).max(1)
    }

    /// The shape of the picked part.
    pub fn picked_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        match &self.pick {
            Pick::All | Pick::Logs(_) => {}
            Pick::Columns(columns) => shape = vec![self.lines().0, columns.iter().map(Range::len).sum()],
            Pick::TurnedEach => {
                let (rows, columns) = self.lines();
                let n = self.stacked();
                shape = vec![n * columns, rows / n];
            }
            Pick::Rows(rows) => {
                let n = rows.iter().map(Range::len).sum();
                shape = if self.shape.len() < 2 { vec![n] } else { vec![n, self.lines().1] };
            }
            Pick::Turned { rows, columns } => shape = vec![columns.iter().map(Range::len).sum(), rows.len()],
            Pick::Flat(ranges) => shape = vec![ranges.iter().map(Range::len).sum()],
        }
        shape
    }
}

impl Checkpoint {
    /// Opens the weights of a Hugging Face folder: one file, or shards with their index.
    ///
    /// # Errors
    /// If the folder holds no weights, a shard is missing, an index points outside the folder, or a file is not sound.
    pub fn open_folder(dir: &Path) -> Result<Self, CheckpointError> {
        Ok(Checkpoint::Safetensors(Shards::open(dir)?))
    }

    /// [`Checkpoint::open_folder`] of weights that may be quantised in blocks of these rows and columns.
    ///
    /// # Errors
    /// As [`Checkpoint::open_folder`].
    pub fn open_quantized(dir: &Path, block: [usize; 2]) -> Result<Self, CheckpointError> {
        Ok(Checkpoint::Safetensors(Shards::open(dir)?.in_blocks(block)))
    }

    /// What stands for the weights of a model of which there is a description alone, at this path: nothing of them can be
    /// read.
    pub(super) fn described(path: &Path) -> Self {
        Checkpoint::Safetensors(Shards::described(path))
    }

    /// Whether nothing is stored, because the model is only described.
    pub(super) fn is_described(&self) -> bool {
        match self {
            Checkpoint::Safetensors(s) => s.is_described(),
            Checkpoint::Gguf(_) => false,
        }
    }

    /// The checkpoint with an adapter merged into its weights as they are read.
    ///
    /// # Errors
    /// If the adapter's weights are not sound or not of this base, or the base is a GGUF file, whose names and order of rows
    /// are others.
    pub fn merged(self, adapter: &Adapter) -> Result<Self, CheckpointError> {
        match self {
            Checkpoint::Safetensors(s) => Ok(Checkpoint::Safetensors(s.merged(adapter)?)),
            Checkpoint::Gguf(g) => {
                let why = "an adapter is merged into a folder of safetensors, not into a GGUF file".to_string();
                Err(CheckpointError::File { path: g.path().to_path_buf(), why })
            }
        }
    }

    /// The checkpoint with differences between others added to its weights as they are read, in this order.
    ///
    /// # Errors
    /// If it is a GGUF file or one of the others is, if one lacks a tensor that is to be mixed, has it in another shape or has
    /// one more, or if a pattern is of no tensor.
    pub(super) fn mixed(self, terms: Vec<Difference>) -> Result<Self, CheckpointError> {
        if terms.is_empty() {
            return Ok(self);
        }
        let mixture = Mixture::open(terms, &self)?;
        Ok(match self {
            Checkpoint::Safetensors(s) => Checkpoint::Safetensors(s.mixed(mixture)),
            // Refused before.
            gguf => gguf,
        })
    }

    /// Whether a tensor is not as it is stored, but changed by an adapter or by a mixture.
    pub fn changes(&self, name: &str) -> bool {
        self.adapts(name) || self.mixture().is_some_and(|mixture| mixture.changes(name))
    }

    /// Whether an adapter changes a tensor.
    pub fn adapts(&self, name: &str) -> bool {
        self.merge().is_some_and(|merge| merge.changes(name))
    }

    fn mixture(&self) -> Option<&Mixture> {
        match self {
            Checkpoint::Safetensors(s) => s.mixture(),
            Checkpoint::Gguf(_) => None,
        }
    }

    /// Whether an adapter has a part in it: in its own weights, or in what is mixed into them.
    pub(super) fn is_adapted(&self) -> bool {
        self.merge().is_some() || self.mixture().is_some_and(Mixture::is_adapted)
    }

    /// How a tensor is stored, and in what shape, if it is of safetensors.
    pub(super) fn stored(&self, name: &str) -> Option<(Dtype, &[usize])> {
        match self {
            Checkpoint::Safetensors(s) => s.stored(name),
            Checkpoint::Gguf(_) => None,
        }
    }

    /// The bytes of a tensor of safetensors as they are stored: what changes them is not in them.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub(super) fn stored_bytes(&self, name: &str) -> Result<StoredBytes<'_>, CheckpointError> {
        match self {
            Checkpoint::Safetensors(s) => {
                let (bytes, map) = s.stored_bytes(name)?;
                Ok(StoredBytes { bytes, map })
            }
            Checkpoint::Gguf(g) => {
                let why = "is a GGUF file, of which no tensor is copied".to_string();
                Err(CheckpointError::File { path: g.path().to_path_buf(), why })
            }
        }
    }

    fn merge(&self) -> Option<&Merge> {
        match self {
            Checkpoint::Safetensors(s) => s.merge(),
            Checkpoint::Gguf(_) => None,
        }
    }

    /// Whether a tensor is no weight, but says how the numbers of a quantised one are to be read.
    pub fn is_scale(&self, name: &str) -> bool {
        match self {
            Checkpoint::Safetensors(s) => s.is_scale(name),
            Checkpoint::Gguf(_) => false,
        }
    }

    /// What a user should know about which files it is of.
    pub fn warnings(&self) -> &[String] {
        match self {
            Checkpoint::Safetensors(s) => s.warnings(),
            Checkpoint::Gguf(_) => &[],
        }
    }

    /// Whether the checkpoint has a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Checkpoint::Safetensors(s) => s.contains(name),
            Checkpoint::Gguf(g) => g.opt_tensor(name).is_some(),
        }
    }

    /// The names of all tensors.
    pub fn names(&self) -> Vec<String> {
        match self {
            Checkpoint::Safetensors(s) => s.names().map(str::to_string).collect(),
            Checkpoint::Gguf(g) => g.tensors().map(|t| t.name.clone()).collect(),
        }
    }

    /// The shape of a tensor, if there is one of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        match self {
            Checkpoint::Safetensors(s) => s.shape(name),
            Checkpoint::Gguf(g) => g.opt_tensor(name).map(|tensor| tensor.shape.as_slice()),
        }
    }

    /// SHA-256 of the headers and the sizes of the checkpoint's files: which weights these are, without reading them all.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        match self {
            Checkpoint::Safetensors(s) => s.fingerprint(&mut hash),
            Checkpoint::Gguf(g) => {
                hash.update((g.map().len() as u64).to_le_bytes());
                hash.update(g.header());
            }
        }
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// SHA-256 in hex of the fingerprint and of some numbers of every tensor. Checkpoints of one training, whose headers are the
    /// same, differ in it; what is alike in it is not for sure the same.
    pub fn sample(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.fingerprint());
        match self {
            Checkpoint::Safetensors(s) => s.sample(&mut hash),
            Checkpoint::Gguf(g) => {
                let data = &g.map()[g.header().len()..];
                // A file of a thousand tensors at most has as many places.
                let step = (data.len() / 1024).max(1);
                data.chunks(step).flat_map(some_bytes).for_each(|some| hash.update(some));
                give_back(g.map(), data);
            }
        }
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The numbers of a stored part as f32, row-major, in the part's picked shape.
    ///
    /// # Errors
    /// If the tensor is missing, has another shape or a dtype that is not read, or holds NaN or infinity.
    pub fn read(&self, stored: &Stored) -> Result<Vec<f32>, CheckpointError> {
        let (all, columns) = stored.lines();
        let rows: Vec<Range<usize>> = match &stored.pick {
            Pick::Rows(rows) => rows.clone(),
            Pick::Turned { rows, .. } => std::iter::once(rows.clone()).collect(),
            Pick::Flat(ranges) => std::iter::once(rows_around(ranges, columns)).collect(),
            _ => std::iter::once(0..all).collect(),
        };
        let out = self.rows(stored, &rows)?;
        match &stored.pick {
            Pick::Turned { columns: picked, .. } => {
                Ok(picked.iter().flat_map(|picked| transposed(&out, columns, picked.clone())).collect())
            }
            Pick::Flat(ranges) => {
                let first = rows[0].start * columns;
                Ok(ranges.iter().flat_map(|r| &out[r.start - first..r.end - first]).copied().collect())
            }
            Pick::TurnedEach => {
                let each = out.chunks((all / stored.stacked() * columns).max(1));
                Ok(each.flat_map(|matrix| transposed(matrix, columns, 0..columns)).collect())
            }
            Pick::Columns(ranges) => {
                let row = |row: &[f32]| ranges.iter().flat_map(|r| row[r.clone()].to_vec()).collect::<Vec<f32>>();
                Ok(out.par_chunks(columns.max(1)).flat_map_iter(row).collect())
            }
            Pick::Logs(ranges) => match out.iter().all(|x| *x < 0.0) {
                true => Ok(ranges.iter().flat_map(|r| &out[r.clone()]).map(|x| (-x).ln()).collect()),
                false => Err(self.bad(stored, "holds a number that is not negative, and decays are")),
            },
            _ => Ok(out),
        }
    }

    /// Ranges of rows of a tensor as f32, one after another, whole and in the order in which they are stored; the part's own
    /// pick only says whether what is stored is `[in, out]`. `[rows, columns]`
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub(super) fn rows(&self, stored: &Stored, rows: &[Range<usize>]) -> Result<Vec<f32>, CheckpointError> {
        let raw = self.find(stored)?;
        let columns = stored.lines().1;
        let mut out = vec![0f32; rows.iter().map(Range::len).sum::<usize>() * columns];
        self.read_rows(stored, &raw, rows, columns, &mut out)?;
        if let Some(merge) = self.merge() {
            let mut rest = out.as_mut_slice();
            for range in rows {
                let (part, later) = rest.split_at_mut(range.len() * columns);
                merge.add(stored, range.clone(), part)?;
                rest = later;
            }
        }
        for range in rows {
            let part = raw.part(range, stored);
            self.counter().fetch_add(part.len() as u64, Relaxed);
            give_back(raw.map, part);
        }
        if !all_finite(&out) {
            return Err(
                self.bad(stored, "holds a number that is not finite (NaN or infinity); the checkpoint is damaged")
            );
        }
        let Some(mixture) = self.mixture().filter(|mixture| mixture.changes(&stored.name)) else { return Ok(out) };
        let mut rest = out.as_mut_slice();
        for range in rows {
            let (part, later) = rest.split_at_mut(range.len() * columns);
            mixture.add(stored, range.clone(), part)?;
            rest = later;
        }
        if !all_finite(&out) {
            return Err(self.bad(stored, "mixed, holds a number that f32 cannot; take a smaller coefficient or scale"));
        }
        Ok(out)
    }

    /// Whether two stored tensors of one shape hold the same numbers.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn equal(&self, a: &Stored, b: &Stored) -> Result<bool, CheckpointError> {
        let (x, y) = (self.find(a)?, self.find(b)?);
        let changed = self.changes(&a.name) || self.changes(&b.name);
        if !changed && x.numbers == y.numbers && x.bytes.len() == y.bytes.len() {
            let each = x.bytes.par_chunks(1 << 20).zip(y.bytes.par_chunks(1 << 20));
            let equal = each.map(|(x, y)| x == y).reduce(|| true, |all, one| all && one);
            x.give_back();
            y.give_back();
            return Ok(equal);
        }
        // Stored in two ways, they are compared as numbers, a part at a time.
        let rows = |from: usize| Pick::Rows(vec![from..a.shape[0].min(from + (1 << 12))]);
        for from in (0..a.shape[0]).step_by(1 << 12) {
            let part = |stored: &Stored| self.read(&Stored { pick: rows(from), ..stored.clone() });
            if part(a)? != part(b)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Finds a tensor and holds it to the shape that it must have.
    fn find(&self, stored: &Stored) -> Result<Raw<'_>, CheckpointError> {
        let (shape, raw) = match self {
            Checkpoint::Safetensors(s) => s.find(&stored.name)?,
            Checkpoint::Gguf(g) => {
                let info = g.tensor(&stored.name)?;
                (&info.shape, Raw { bytes: g.bytes(info)?, numbers: Numbers::Ggml(info.kind), map: g.map() })
            }
        };
        // A GGUF file's dimensions of 1 may be left out or put in, and it may have a list by parts.
        let fits = match self {
            Checkpoint::Safetensors(_) => *shape == stored.shape,
            Checkpoint::Gguf(_) => without_ones(shape) == without_ones(&stored.shape) || in_parts(shape, &stored.shape),
        };
        if !fits {
            let why = format!("has the shape {shape:?}; the model's description asks for {:?}", stored.shape);
            return Err(self.bad(stored, why));
        }
        Ok(raw)
    }

    /// Whether a part of a tensor can be read, as far as can be told without its numbers.
    ///
    /// # Errors
    /// As [`Checkpoint::read`], NaN and infinity apart.
    pub fn check(&self, stored: &Stored) -> Result<(), CheckpointError> {
        let raw = self.find(stored)?;
        let (rows, columns) = stored.lines();
        self.rows_of(stored, &raw, 0..rows, columns)?;
        self.merge().map_or(Ok(()), |merge| merge.check(stored))?;
        self.mixture().map_or(Ok(()), |mixture| mixture.check(stored))
    }

    /// The bytes of a range of rows, and how many a row has.
    fn rows_of<'r>(
        &self,
        stored: &Stored,
        raw: &Raw<'r>,
        rows: Range<usize>,
        columns: usize,
    ) -> Result<(&'r [u8], usize), CheckpointError> {
        let row_bytes = raw.row_bytes(columns).map_err(|why| self.bad(stored, why))?;
        let bytes = raw.bytes.get(rows.start * row_bytes..rows.end * row_bytes);
        Ok((bytes.ok_or_else(|| self.bad(stored, "is shorter than its shape says"))?, row_bytes))
    }

    /// Converts ranges of rows, in parallel.
    fn read_rows(
        &self,
        stored: &Stored,
        raw: &Raw,
        rows: &[Range<usize>],
        columns: usize,
        mut out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        let step = ((1 << 16) / columns.max(1)).max(1);
        let mut parts = Vec::new();
        for range in rows {
            let (bytes, row_bytes) = self.rows_of(stored, raw, range.clone(), columns)?;
            let (own, later) = out.split_at_mut(range.len() * columns);
            out = later;
            let part = (step * row_bytes).max(1);
            let each = own.chunks_mut((step * columns).max(1)).enumerate();
            // Where rows have no bytes of their own, a part has none.
            let of = |i: usize| bytes.chunks(part).nth(i).unwrap_or_default();
            parts.extend(each.map(|(i, out)| (range.start + i * step, out, of(i))));
        }
        let decode = |(row, out, bytes): (usize, &mut [f32], &[u8])| match &raw.numbers {
            Numbers::Ggml(kind) => dequantize(*kind, bytes, out),
            Numbers::Fp8(scale) => {
                scale.decode(bytes, row, columns, out);
                Ok(())
            }
            Numbers::Mxfp4(packed) => {
                packed.decode(row, out);
                Ok(())
            }
        };
        parts.into_par_iter().try_for_each(decode).map_err(|e| self.bad(stored, e.to_string()))
    }

    /// How many bytes of its files' tensors were read as numbers; what was read again counts again. Scales of quantised ones, and
    /// the files of what changes its weights, are left out.
    pub fn bytes_read(&self) -> u64 {
        self.counter().load(Relaxed)
    }

    fn counter(&self) -> &AtomicU64 {
        match self {
            Checkpoint::Safetensors(s) => s.counter(),
            Checkpoint::Gguf(g) => g.counter(),
        }
    }

    /// The file that a tensor is stored in.
    pub fn path_of(&self, tensor: &str) -> PathBuf {
        match self {
            Checkpoint::Safetensors(s) => s.path_of(tensor),
            Checkpoint::Gguf(g) => g.path().to_path_buf(),
        }
    }

    fn bad(&self, stored: &Stored, why: impl Into<String>) -> CheckpointError {
        let path = self.path_of(&stored.name);
        CheckpointError::Tensor { path, tensor: stored.name.clone(), why: why.into() }
    }
}

/// The rows of a matrix of so many columns that hold ranges of its numbers.
fn rows_around(ranges: &[Range<usize>], columns: usize) -> Range<usize> {
    let columns = columns.max(1);
    let (start, end) = (ranges.iter().map(|r| r.start).min(), ranges.iter().map(|r| r.end).max());
    start.unwrap_or(0) / columns..end.unwrap_or(0).div_ceil(columns)
}

/// The dimensions of a shape that are more than 1.
fn without_ones(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|n| *n != 1).collect()
}

/// Whether a shape is of a list, cut into parts.
fn in_parts(found: &[usize], list: &[usize]) -> bool {
    matches!(list, [n] if found.iter().product::<usize>() == *n)
}

/// Whether no number is NaN or infinite.
fn all_finite(x: &[f32]) -> bool {
    !x.par_chunks(1 << 16).any(|some| some.iter().any(|x| !x.is_finite()))
}

/// Columns of a row-major matrix, as rows.
fn transposed(x: &[f32], columns: usize, picked: Range<usize>) -> Vec<f32> {
    let rows = x.len() / columns.max(1);
    let mut out = vec![0f32; rows * picked.len()];
    let each = out.par_chunks_mut(rows.max(1)).zip(picked);
    each.for_each(|(out, c)| out.iter_mut().enumerate().for_each(|(r, o)| *o = x[r * columns + c]));
    out
}

/// A tensor's bytes in a mapped file.
struct Raw<'a> {
    bytes: &'a [u8],
    numbers: Numbers<'a>,
    /// The mapping that the bytes are of.
    map: &'a Mmap,
}

/// How a tensor's numbers are stored.
#[derive(PartialEq)]
enum Numbers<'a> {
    Ggml(GgmlKind),
    /// In E4M3, a byte each, with the scales that they share.
    Fp8(Scale),
    /// In E2M1, two a byte, by columns: a row has no bytes of its own.
    Mxfp4(Mxfp4<'a>),
}

impl Raw<'_> {
    fn row_bytes(&self, columns: usize) -> Result<usize, String> {
        match &self.numbers {
            Numbers::Fp8(_) => Ok(columns),
            Numbers::Mxfp4(_) => Ok(0),
            Numbers::Ggml(kind) => kind
                .row_bytes(columns)
                .ok_or_else(|| format!("has rows of {columns} numbers, which are no whole blocks of {kind}")),
        }
    }

    /// The bytes that hold a range of rows.
    fn part(&self, rows: &Range<usize>, stored: &Stored) -> &[u8] {
        let part = match self.row_bytes(stored.lines().1) {
            // A matrix of a stack has bytes of its own.
            Ok(0) => {
                let (each, n) = (stored.lines().0 / stored.stacked(), stored.stacked());
                let matrix = self.bytes.len() / n;
                rows.start / each.max(1) * matrix..rows.end.div_ceil(each.max(1)) * matrix
            }
            Ok(n) => rows.start * n..rows.end * n,
            Err(_) => 0..0,
        };
        self.bytes.get(part).unwrap_or_default()
    }

    fn give_back(&self) {
        give_back(self.map, self.bytes);
    }
}

/// A tensor's bytes in a mapped file, as they are stored.
pub(super) struct StoredBytes<'a> {
    pub(super) bytes: &'a [u8],
    map: &'a Mmap,
}

impl StoredBytes<'_> {
    /// Gives a part of the bytes, which was read, back to the system.
    pub(super) fn give_back(&self, part: Range<usize>) {
        self.bytes.get(part).into_iter().for_each(|part| give_back(self.map, part));
    }
}

/// Tells the system that pages of a mapping need not stay in memory; they are read again from the file if they must be.
#[cfg(unix)]
fn give_back(map: &Mmap, bytes: &[u8]) {
    let offset = bytes.as_ptr() as usize - map.as_ptr() as usize;
    // SAFETY: the mapping is shared and read-only, so that dropping its pages loses nothing. A failure only costs memory.
    let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, bytes.len()) };
}

#[cfg(not(unix))]
fn give_back(_: &Mmap, _: &[u8]) {}

/// The first bytes of some, and as many from their middle.
fn some_bytes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let from = |at: usize| &bytes[at..bytes.len().min(at + 64)];
    [from(0), from(bytes.len() / 2)].into_iter()
}
