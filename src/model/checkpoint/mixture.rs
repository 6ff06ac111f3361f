//! A mixture's weights: differences between checkpoints, added to the tensors of their base as these are read.
//!
//! `x + c (a - b)` for each term in turn, in f32 and from left to right, where `a` and `b` are what the term's checkpoints have for
//! the tensor: numpy's float32 gives the same bits. Which checkpoints those are is said by a recipe ([`crate::model::mixture`]).

use super::names::{in_layer, is_buffer, meant};
use super::shards::Shards;
use super::{Checkpoint, CheckpointError, Pick, Stored};
use crate::model::mixture::matches;
use crate::names::{nearest, suggestion};
use rayon::prelude::*;
use safetensors::Dtype;
use sha2::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

/// A difference between two checkpoints, to be added to a third.
pub(in crate::model) struct Difference {
    pub coefficient: f32,
    pub plus: Checkpoint,
    /// What is taken off it: the base, where there is none.
    pub minus: Option<Checkpoint>,
    /// Patterns of the names of the tensors that it is added to; all where there is none.
    pub tensors: Vec<String>,
}

/// What is added to the tensors of a base.
pub(super) struct Mixture {
    terms: Vec<Term>,
}

/// A difference whose tensors were found.
struct Term {
    of: Difference,
    /// What the tensors that it is added to are called in both of its checkpoints, by their names in the base.
    names: BTreeMap<String, Counterparts>,
}

struct Counterparts {
    plus: String,
    minus: String,
}

/// How many numbers are mixed at once: 16 MiB of each checkpoint.
const AT_ONCE: usize = 1 << 22;

impl Mixture {
    /// Finds the tensors that differences are added to.
    ///
    /// # Errors
    /// If a checkpoint is no folder of safetensors, lacks a tensor, has it in another shape or in a way that is not mixed, or has
    /// one that the base has not; or if a pattern is of no tensor.
    pub(super) fn open(terms: Vec<Difference>, base: &Checkpoint) -> Result<Self, CheckpointError> {
        let terms = terms.into_iter().map(|of| Term::open(of, base)).collect::<Result<_, _>>()?;
        Ok(Mixture { terms })
    }

    /// Whether anything is added to a tensor.
    pub(super) fn changes(&self, name: &str) -> bool {
        self.terms.iter().any(|term| term.names.contains_key(name))
    }

    /// Whether an adapter changes what is added.
    pub(super) fn is_adapted(&self) -> bool {
        self.terms.iter().flat_map(Term::checkpoints).any(Checkpoint::is_adapted)
    }

    /// What is added to which tensors, by the headers of the files.
    pub(super) fn fingerprint(&self, hash: &mut impl Digest) {
        self.hash(hash, Checkpoint::fingerprint);
    }

    /// The same with some numbers of every tensor.
    pub(super) fn sample(&self, hash: &mut impl Digest) {
        self.hash(hash, Checkpoint::sample);
    }

    fn hash(&self, hash: &mut impl Digest, of: fn(&Checkpoint) -> String) {
        for term in &self.terms {
            hash.update(term.of.coefficient.to_le_bytes());
            hash.update((term.names.len() as u64).to_le_bytes());
            hash.update([u8::from(term.of.minus.is_some())]);
            term.names.keys().for_each(|name| hash.update(format!("{name}\n")));
            term.checkpoints().for_each(|checkpoint| hash.update(of(checkpoint)));
        }
    }

    /// Holds what is added to a tensor, if anything is, to the tensor's shape.
    ///
    /// # Errors
    /// If it cannot be read, as far as can be told without its numbers.
    pub(super) fn check(&self, stored: &Stored) -> Result<(), CheckpointError> {
        for term in &self.terms {
            let Some(names) = term.names.get(&stored.name) else { continue };
            term.of.plus.check(&named(stored, &names.plus))?;
            term.of.minus.iter().try_for_each(|minus| minus.check(&named(stored, &names.minus)))?;
        }
        Ok(())
    }

    /// Adds to a range of a tensor's rows, which hold the base's own numbers.
    ///
    /// # Errors
    /// If what is to be added cannot be read.
    pub(super) fn add(&self, stored: &Stored, rows: Range<usize>, out: &mut [f32]) -> Result<(), CheckpointError> {
        let columns = stored.lines().1;
        let step = (AT_ONCE / columns.max(1)).max(1);
        let starts = rows.clone().step_by(step);
        for (from, out) in starts.zip(out.chunks_mut((step * columns).max(1))) {
            let some = [from..rows.end.min(from + step)];
            let own = out.to_vec();
            for term in &self.terms {
                let Some(names) = term.names.get(&stored.name) else { continue };
                let plus = term.of.plus.rows(&named(stored, &names.plus), &some)?;
                let minus = match &term.of.minus {
                    Some(minus) => &minus.rows(&named(stored, &names.minus), &some)?,
                    None => &own,
                };
                mix(out, term.of.coefficient, &plus, minus);
            }
        }
        Ok(())
    }
}

/// `x + c (a - b)`, each operation rounded to f32.
fn mix(x: &mut [f32], c: f32, a: &[f32], b: &[f32]) {
    const PART: usize = 1 << 14;
    let parts = x.par_chunks_mut(PART).zip(a.par_chunks(PART)).zip(b.par_chunks(PART));
    parts.for_each(|((x, a), b)| x.iter_mut().zip(a).zip(b).for_each(|((x, a), b)| *x += c * (a - b)));
}

/// A tensor under another name.
fn named(stored: &Stored, name: &str) -> Stored {
    Stored { name: name.to_string(), ..stored.clone() }
}

impl Term {
    fn open(of: Difference, base: &Checkpoint) -> Result<Self, CheckpointError> {
        let known: Vec<String> = base.names().into_iter().filter(|name| is_mixed(base, name)).collect();
        let covered = covered(&of.tensors, &known, safetensors_of(base)?)?;
        let plus = counterparts(&covered, base, &of.plus)?;
        let minus = match &of.minus {
            Some(minus) => counterparts(&covered, base, minus)?,
            None => covered.clone(),
        };
        for (other, found) in std::iter::once((&of.plus, &plus)).chain(of.minus.as_ref().map(|other| (other, &minus))) {
            nothing_left(&of.tensors, other, found, base)?;
        }
        let both = plus.into_iter().zip(minus).map(|(plus, minus)| Counterparts { plus, minus });
        let names = covered.into_iter().zip(both).collect();
        Ok(Term { of, names })
    }

    fn checkpoints(&self) -> impl Iterator<Item = &Checkpoint> {
        std::iter::once(&self.of.plus).chain(&self.of.minus)
    }
}

/// The safetensors files of a checkpoint.
///
/// # Errors
/// If it is a GGUF file, whose names and order of rows are others.
fn safetensors_of(checkpoint: &Checkpoint) -> Result<&Shards, CheckpointError> {
    match checkpoint {
        Checkpoint::Safetensors(shards) => Ok(shards),
        Checkpoint::Gguf(gguf) => {
            let why = "a mixture is of folders of safetensors, not of GGUF files".to_string();
            Err(CheckpointError::File { path: gguf.path().to_path_buf(), why })
        }
    }
}

/// Whether a tensor is a weight that a mixture may change: no mask, no scale, no whole numbers.
fn is_mixed(checkpoint: &Checkpoint, name: &str) -> bool {
    let floats = checkpoint.stored(name).is_some_and(|(dtype, _)| !is_whole(dtype));
    floats && !is_buffer(name) && !checkpoint.is_scale(name)
}

/// Whether a dtype is of whole numbers or of truths.
fn is_whole(dtype: Dtype) -> bool {
    use Dtype::*;
    matches!(dtype, BOOL | U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64)
}

/// The tensors that patterns are of, in order.
///
/// # Errors
/// If one is of none.
fn covered(patterns: &[String], known: &[String], base: &Shards) -> Result<Vec<String>, CheckpointError> {
    let none = |pattern: &&String| !known.iter().any(|name| matches(pattern, name));
    if let Some(pattern) = patterns.iter().find(none) {
        let near = suggestion(&nearest(pattern, known.iter().map(String::as_str)));
        return Err(file_error(base.dir(), format!("no tensor is called as the pattern `{pattern}` says{near}")));
    }
    let of = |name: &&String| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name));
    Ok(known.iter().filter(of).cloned().collect())
}

/// What tensors of a base are called in another checkpoint.
///
/// # Errors
/// If one is missing there, has another shape, or is stored in a way that is not mixed.
fn counterparts(names: &[String], base: &Checkpoint, other: &Checkpoint) -> Result<Vec<String>, CheckpointError> {
    let shards = safetensors_of(other)?;
    let mut taken = BTreeSet::new();
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        readable(base, name)?;
        // Under another name, one that stands for another already cannot stand for this one.
        let own = match meant(name, shards).filter(|own| own == name || !taken.contains(own)) {
            Some(own) => {
                taken.insert(own.clone());
                own
            }
            None => of_twin(name, base, shards)?.ok_or_else(|| missing(name, base, shards))?,
        };
        readable(other, &own)?;
        let [shape, expected] = [other.stored(&own), base.stored(name)].map(|stored| stored.map(|(_, shape)| shape));
        if shape != expected {
            let [shape, expected] = [shape, expected].map(Option::unwrap_or_default);
            let why =
                format!("has the shape {shape:?}; `{name}` of the base, {}, has {expected:?}", place(base).display());
            return Err(tensor_error(other.path_of(&own), &own, why));
        }
        found.push(own);
    }
    Ok(found)
}

/// What the tensor that one of the base is tied to is called elsewhere: an unembedding that is stored as a copy of the embedding
/// in the base, and in the other checkpoint not at all.
fn of_twin(name: &str, base: &Checkpoint, other: &Shards) -> Result<Option<String>, CheckpointError> {
    Ok(twin(name, base)?.and_then(|twin| meant(&twin, other)))
}

/// Another tensor of a checkpoint outside its layers that holds the same numbers.
fn twin(name: &str, checkpoint: &Checkpoint) -> Result<Option<String>, CheckpointError> {
    let Some(stored) = whole(name, checkpoint).filter(|stored| stored.shape.len() == 2 && !in_layer(name)) else {
        return Ok(None);
    };
    let others = checkpoint.names().into_iter().filter(|other| other != name && !in_layer(other));
    for other in others.filter_map(|other| whole(&other, checkpoint)).filter(|other| other.shape == stored.shape) {
        if checkpoint.equal(&stored, &other)? {
            return Ok(Some(other.name));
        }
    }
    Ok(None)
}

/// All of a tensor.
fn whole(name: &str, checkpoint: &Checkpoint) -> Option<Stored> {
    let (_, shape) = checkpoint.stored(name)?;
    Some(Stored { name: name.to_string(), shape: shape.to_vec(), pick: Pick::All })
}

/// Refuses a checkpoint with a tensor that would be left out: one that stands for none of the base's, unless it is a copy of one
/// that does, or patterns leave it out.
fn nothing_left(
    patterns: &[String],
    other: &Checkpoint,
    found: &[String],
    base: &Checkpoint,
) -> Result<(), CheckpointError> {
    let known: BTreeSet<&String> = found.iter().collect();
    let wanted = |name: &String| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name));
    for name in other.names() {
        if known.contains(&name) || !wanted(&name) || !is_mixed(other, &name) {
            continue;
        }
        if twin(&name, other)?.is_some_and(|twin| known.contains(&twin)) {
            continue;
        }
        let why = format!(
            "is not in the base, {}, so that it cannot be added to it; give `tensors`, patterns that leave it out",
            place(base).display()
        );
        return Err(tensor_error(other.path_of(&name), &name, why));
    }
    Ok(())
}

/// Refuses a tensor whose numbers are not mixed.
fn readable(checkpoint: &Checkpoint, name: &str) -> Result<(), CheckpointError> {
    let why = match checkpoint.stored(name) {
        Some((Dtype::F32 | Dtype::F16 | Dtype::BF16, _)) => return Ok(()),
        Some((Dtype::F8_E4M3, _)) => {
            "is stored in FP8, which is not mixed; take the unquantised checkpoint".to_string()
        }
        Some((Dtype::F4, _)) => "is stored in MXFP4, which is not mixed; take the unquantised checkpoint".to_string(),
        Some((dtype, _)) => format!("is stored as {dtype:?}; a mixture is of F32, F16 and BF16"),
        None => "is missing".to_string(),
    };
    Err(tensor_error(checkpoint.path_of(name), name, why))
}

fn missing(name: &str, base: &Checkpoint, other: &Shards) -> CheckpointError {
    let near = suggestion(&nearest(name, other.names()));
    let why = format!("is missing, and the base, {}, has it{near}", place(base).display());
    tensor_error(other.dir().to_path_buf(), name, why)
}

/// Where a checkpoint is.
fn place(checkpoint: &Checkpoint) -> PathBuf {
    match checkpoint {
        Checkpoint::Safetensors(shards) => shards.dir().to_path_buf(),
        Checkpoint::Gguf(gguf) => gguf.path().to_path_buf(),
    }
}

fn file_error(path: &std::path::Path, why: String) -> CheckpointError {
    CheckpointError::File { path: path.to_path_buf(), why }
}

fn tensor_error(path: PathBuf, tensor: &str, why: String) -> CheckpointError {
    CheckpointError::Tensor { path, tensor: tensor.to_string(), why }
}
