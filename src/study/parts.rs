//! Parts: the readings of a piece of a plan, kept under a name that says what they are of.
//!
//! A part's name is the SHA-256 of all that its readings depend on (`Of`): the piece of the plan, the weights, the dtype, the
//! engine, the kind of products and the version. So a part is the same wherever it was made: several machines can share the
//! work of a study, and to gather it is to copy their parts into one folder. Readings are kept exactly, in the safetensors
//! format; answers as JSON.

use super::rundir::{RunDirError, plain};
use crate::files::write_file;
use crate::model::Model;
use crate::ops;
use crate::parameters::param;
use crate::plan::{Array, Change, Plan, Reading};
use crate::run::{Engine, Generated};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The tensor that holds all readings that are one number; an array's reading is NaN there and has a tensor of its own.
const NUMBERS: &str = "numbers";

/// The metadata that says what a part is of.
const OF: &str = "of";

/// Why a part does not fit.
const ANOTHER: &str = "is not what its name says: it was renamed, or made by something else";

/// A folder of finished parts.
#[derive(Clone, Debug)]
pub struct Parts {
    folder: PathBuf,
    /// What all that is kept here is of, for plans whose digest does not say all.
    scope: String,
}

impl Parts {
    /// The parts in a folder, which is there. `scope` is any text that tells the study from others in the same folder; only
    /// parts of plans with functions of a caller's ([`Change::Map`]) are named by it.
    pub fn new(folder: impl Into<PathBuf>, scope: impl Into<String>) -> Parts {
        Parts { folder: folder.into(), scope: scope.into() }
    }

    /// The part of that name, if it was finished.
    pub fn part(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.join(name)).filter(|path| path.is_file())
    }

    /// Keeps a part's bytes as finished.
    ///
    /// # Errors
    /// If they cannot be written, or the name is no plain file name.
    pub fn commit(&self, name: &str, bytes: &[u8]) -> Result<(), RunDirError> {
        Ok(write_file(&self.folder.join(plain(name)?), bytes)?)
    }

    /// The folder that they are in.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many are finished.
    pub(super) fn count(&self) -> usize {
        let files = std::fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|path| is_part(path)).count()
    }

    /// What is kept here of a part of so many values, if it was finished.
    ///
    /// # Errors
    /// If the file of that name is torn, or of something else.
    pub(super) fn kept<T: Part>(&self, of: &Of, n: usize) -> Result<Option<T>, BadPart> {
        let Some(path) = self.part(&of.file::<T>()) else { return Ok(None) };
        let bad = |why: String| BadPart { path: path.clone(), why };
        let bytes = std::fs::read(&path).map_err(|e| bad(format!("cannot be read: {e}")))?;
        T::read(&bytes, n, &of.0).map(Some).map_err(bad)
    }

    /// Keeps a part.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn keep<T: Part>(&self, of: &Of, part: &T) -> Result<(), RunDirError> {
        self.commit(&of.file::<T>(), &part.written(&of.0))
    }
}

/// Whether a file of a folder of parts is one that was finished: not a claim, nor one that is being written.
pub(crate) fn is_part(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    [READINGS, ANSWERS].iter().any(|ending| name.ends_with(ending)) && !name.starts_with('.')
}

/// The ends of the names of parts.
const READINGS: &str = ".safetensors";
const ANSWERS: &str = ".json";

/// What a part holds: readings, or answers of runs that went on.
pub(super) trait Part: Sized {
    /// The end of its file's name.
    const ENDING: &'static str;

    /// Its bytes.
    fn written(&self, of: &str) -> Vec<u8>;

    /// The `n` values of a part.
    ///
    /// # Errors
    /// If the bytes are not those of a part of so many values of that piece.
    fn read(bytes: &[u8], n: usize, of: &str) -> Result<Self, String>;
}

impl Part for Vec<Reading> {
    const ENDING: &'static str = READINGS;

    fn written(&self, of: &str) -> Vec<u8> {
        encode(self, of)
    }

    fn read(bytes: &[u8], n: usize, of: &str) -> Result<Self, String> {
        decode(bytes, n, of)
    }
}

impl Part for Vec<Generated> {
    const ENDING: &'static str = ANSWERS;

    fn written(&self, of: &str) -> Vec<u8> {
        let part = Answers { of: of.to_string(), answers: self.clone() };
        serde_json::to_vec(&part).unwrap_or_default()
    }

    fn read(bytes: &[u8], n: usize, of: &str) -> Result<Self, String> {
        let part: Answers = serde_json::from_slice(bytes).map_err(|e| format!("is no finished part: {e}"))?;
        match part.of == of && part.answers.len() == n {
            true => Ok(part.answers),
            false => Err(ANOTHER.to_string()),
        }
    }
}

/// A file among the parts that is not what its name says.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}; remove it, or start anew with {force}", path.display(), force = param("force"))]
pub struct BadPart {
    pub path: PathBuf,
    pub why: String,
}

/// Generated answers as a part.
#[derive(serde::Serialize, serde::Deserialize)]
struct Answers {
    /// What they are of.
    of: String,
    answers: Vec<Generated>,
}

/// What is made of a plan.
pub(super) struct Made<'a> {
    pub(super) plan: &'a Plan,
    pub(super) digest: &'a str,
    /// The number of the plan, or of the plan that this is a piece of, among those of its session.
    pub(super) number: usize,
    /// What is made: nothing more where it is readings.
    pub(super) more: String,
    /// What spreads the pieces of a plan evenly over shards; none where there is one.
    pub(super) lane: Option<u64>,
}

/// What a part is of, as SHA-256 in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Of(String);

impl Of {
    /// What a model and an engine make of a plan, with all else that it depends on.
    pub(super) fn new(made: &Made, model: &Model, engine: Engine, parts: &Parts) -> Of {
        let mut hash = Sha256::new();
        let decoder = &model.decoder;
        let mut add = |what: &str, value: &str| hash.update(format!("{what} {} {value}\n", value.len()));
        add("version", env!("CARGO_PKG_VERSION"));
        add("model", &model.sample);
        add("dtype", decoder.dtype.as_str());
        add("engine", &engine.to_string());
        add("products", &products(model));
        add("plan", made.digest);
        add("more", &made.more);
        if has_functions(made.plan) {
            // Their digest does not say what the functions do.
            add("scope", &parts.scope);
            add("number", &made.number.to_string());
        }
        Of(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The name of the part's file.
    pub(super) fn file<T: Part>(&self) -> String {
        format!("{}{}", self.0, T::ENDING)
    }

    /// A number that is another one for every part.
    pub(super) fn seed(&self) -> u64 {
        lane(&self.0, 0)
    }
}

/// The number of a piece at a place of its plan: plans begin anywhere, and pieces follow one another.
pub(super) fn lane(digest: &str, place: usize) -> u64 {
    let first = digest.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default();
    first.wrapping_add(place as u64)
}

/// How a model's devices multiply, each kind once: `packed, avx2`.
pub(super) fn products(model: &Model) -> String {
    let decoder = &model.decoder;
    let mut kinds: Vec<String> = decoder.places.iter().map(|(d, _)| ops::products(d, decoder.dtype)).collect();
    kinds.dedup();
    kinds.join("; ")
}

/// Whether functions of a caller are in it, of which its digest does not say what they do.
pub(super) fn has_functions(plan: &Plan) -> bool {
    plan.forks.iter().flat_map(|fork| &fork.edits).any(|edit| matches!(edit.change, Change::Map(_)))
}

/// Readings as the bytes of a part.
fn encode(readings: &[Reading], of: &str) -> Vec<u8> {
    let numbers: Vec<u8> = readings.iter().flat_map(|r| r.number().unwrap_or(f64::NAN).to_le_bytes()).collect();
    let mut tensors = vec![(NUMBERS.to_string(), Dtype::F64, vec![readings.len()], numbers)];
    for (i, reading) in readings.iter().enumerate() {
        if let Reading::Array(Array { shape, values }) = reading {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.push((i.to_string(), Dtype::F32, shape.clone(), bytes));
        }
    }
    // Shapes were made with their values: none can fail to fit.
    let views = tensors.iter().filter_map(|(name, dtype, shape, bytes)| {
        Some((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).ok()?))
    });
    let of = HashMap::from([(OF.to_string(), of.to_string())]);
    safetensors::serialize(views, Some(of)).unwrap_or_default()
}

/// The `n` readings of a part.
///
/// # Errors
/// If the bytes are not those of a part of so many readings of that piece.
fn decode(bytes: &[u8], n: usize, of: &str) -> Result<Vec<Reading>, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| format!("is no finished part: {e}"))?;
    if header.metadata().as_ref().and_then(|m| m.get(OF)).is_none_or(|found| found != of) {
        return Err(ANOTHER.to_string());
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| format!("is no finished part: {e}"))?;
    let numbers = tensors.tensor(NUMBERS).map_err(|e| format!("is no finished part: {e}"))?;
    if numbers.dtype() != Dtype::F64 || numbers.shape() != [n] {
        return Err(format!("holds {:?} readings, the plan has {n}", numbers.shape()));
    }
    let reading = |(i, bytes): (usize, &[u8; 8])| {
        let Ok(array) = tensors.tensor(&i.to_string()) else {
            return Ok(Reading::Number(f64::from_le_bytes(*bytes)));
        };
        if array.dtype() != Dtype::F32 {
            return Err(format!("reading {i} is not in f32"));
        }
        let values = array.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(Reading::Array(Array { shape: array.shape().to_vec(), values }))
    };
    numbers.data().as_chunks::<8>().0.iter().enumerate().map(reading).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_come_back_bit_for_bit() {
        let readings = vec![
            Reading::Number(0.1 + 0.2),
            Reading::Array(Array { shape: vec![2, 1], values: vec![f32::MIN_POSITIVE, -0.0] }),
            Reading::Number(-1e-300),
            Reading::Array(Array { shape: vec![0], values: vec![] }),
        ];
        assert_eq!(decode(&encode(&readings, "a"), 4, "a"), Ok(readings));
    }

    #[test]
    fn what_is_no_part_of_the_plan_is_refused() {
        let bytes = encode(&[Reading::Number(1.0)], "a");
        assert!(decode(&bytes, 2, "a").is_err());
        assert_eq!(decode(&bytes, 1, "b"), Err(ANOTHER.to_string()));
        assert!(decode(&bytes[..bytes.len() - 1], 1, "a").is_err());
        assert!(decode(b"", 0, "a").is_err());
    }
}
