//! The folder that a mixture is written to: whose it is, what of it is finished, and that one process works there at a time.
//!
//! While the work goes on the folder holds [`STATE`], which says what is being written and which files of weights are finished, and
//! a lock that the system releases with the process. Both are gone in the end.

use super::shard::sha256_of;
use super::{Place, SaveError};
use crate::files::{TEMPORARY_SUFFIX, parent, sync_dir};
use crate::parameters::param;
use crate::rundir::{WriteError, write_file};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// What says what a finished folder was made of.
pub(super) const RECORD: &str = "merge.json";

/// What says what is being written.
const STATE: &str = ".merge-state.json";

const LOCK: &str = ".merge-lock";

/// What is being written, and which files of it are finished.
#[derive(serde::Serialize, serde::Deserialize)]
struct State {
    digest: String,
    /// The SHA-256 of each finished file of weights, in hex.
    shards: BTreeMap<String, String>,
}

/// What [`RECORD`] says for whoever goes on.
#[derive(serde::Deserialize)]
struct Record {
    digest: String,
    files: BTreeMap<String, String>,
}

/// A folder that this process writes.
pub(super) struct Claim {
    out: PathBuf,
    state: State,
    // Held for its lock alone, which ends when the file is closed.
    _lock: File,
}

/// How the work begins.
pub(super) enum Begun {
    /// It is done already; with its files of weights.
    Complete(BTreeMap<String, String>),
    Open(Claim),
}

/// Refuses a place that is not to be written to, and changes nothing.
///
/// # Errors
/// If something is there that no merge made or that is not to be replaced, or it lies in a folder that is read or holds one.
pub(super) fn check(place: &Place, read: &[PathBuf]) -> Result<(), SaveError> {
    let out = &place.out;
    if out.file_name().is_none() {
        return Err(SaveError::refused(out, format!("is no name for a folder; give another {}", param("out"))));
    }
    apart(out, read)?;
    if fs::symlink_metadata(out).is_err() {
        return Ok(());
    }
    let (force, resume) = (param("force"), param("resume"));
    if !place.force && !place.resume {
        let why =
            format!("exists already; go on with {resume}, replace it with {force}, or choose another {}", param("out"));
        return Err(SaveError::refused(out, why));
    }
    if out.is_symlink() || !out.is_dir() {
        let why = format!("is no folder, which neither {force} nor {resume} replaces; choose another {}", param("out"));
        return Err(SaveError::refused(out, why));
    }
    let ours = [RECORD, STATE].iter().any(|name| out.join(name).is_file());
    // What a user put there is not ours to remove.
    let foreign = |name: &String| name.ends_with(".toml") || out.join(name).is_dir();
    if let Some(name) = left(out)?.iter().find(|name| place.force && foreign(name)) {
        let why = format!("holds `{name}`, which no merge made; move it, or choose another {}", param("out"));
        return Err(SaveError::refused(out, why));
    }
    if !ours && !left(out)?.is_empty() {
        let why =
            format!("holds neither {RECORD} nor {STATE}, so that no merge made it; choose another {}", param("out"));
        return Err(SaveError::refused(out, why));
    }
    Ok(())
}

/// Refuses to write within a folder that is read, or around one.
fn apart(out: &Path, read: &[PathBuf]) -> Result<(), SaveError> {
    let Some(place) = canonical(out) else { return Ok(()) };
    let near = |dir: &&PathBuf| dir.canonicalize().is_ok_and(|dir| dir.starts_with(&place) || place.starts_with(dir));
    match read.iter().find(near) {
        None => Ok(()),
        Some(dir) => {
            let why = format!("is, holds or lies in {}, which is read; choose another {}", dir.display(), param("out"));
            Err(SaveError::refused(out, why))
        }
    }
}

/// Where a path leads, be it that its end is not there yet.
fn canonical(path: &Path) -> Option<PathBuf> {
    let (mut there, mut rest) = (path, Vec::new());
    loop {
        if let Ok(found) = there.canonicalize() {
            return Some(rest.into_iter().rev().fold(found, |path, name| path.join(name)));
        }
        rest.push(there.file_name()?);
        there = parent(there);
    }
}

/// The names in a folder, but for those that a stopped process leaves and that hold nothing.
fn left(out: &Path) -> Result<Vec<String>, WriteError> {
    let names = names(out)?;
    Ok(names.into_iter().filter(|name| name != LOCK && !name.ends_with(TEMPORARY_SUFFIX)).collect())
}

fn names(out: &Path) -> Result<Vec<String>, WriteError> {
    let failed = || WriteError::new(out, "be read");
    let entries = fs::read_dir(out).map_err(failed())?;
    entries.map(|entry| Ok(entry.map_err(failed())?.file_name().to_string_lossy().into_owned())).collect()
}

impl Claim {
    /// Takes a folder for what has this digest, or finds it complete.
    ///
    /// # Errors
    /// If another process works there, or what is there is of something else.
    pub(super) fn take(place: &Place, digest: &str) -> Result<Begun, SaveError> {
        let out = place.out.clone();
        fs::create_dir_all(&out).map_err(WriteError::new(&out, "be made"))?;
        let lock = lock(&out)?;
        let found = if place.resume { found(&out, digest) } else { Ok(None) };
        let state = match found {
            Ok(Some(Found::Complete(shards))) => {
                drop(lock);
                remove(&out.join(LOCK))?;
                return Ok(Begun::Complete(shards));
            }
            Ok(Some(Found::Begun(state))) => Some(state),
            Ok(None) => None,
            // What cannot be gone on with is replaced, if that was said too.
            Err(_) if place.force => None,
            Err(e) => return Err(e),
        };
        let keep = state.is_some();
        let state = state.unwrap_or_else(|| State { digest: digest.to_string(), shards: BTreeMap::new() });
        for name in names(&out)?.into_iter().filter(|name| name != LOCK) {
            if !keep || name.ends_with(TEMPORARY_SUFFIX) {
                remove(&out.join(name))?;
            }
        }
        let claim = Claim { out, state, _lock: lock };
        claim.keep()?;
        Ok(Begun::Open(claim))
    }

    /// Where a file of the folder is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// The finished files of weights.
    pub(super) fn shards(&self) -> &BTreeMap<String, String> {
        &self.state.shards
    }

    /// Whether a file of weights was finished and is whole.
    pub(super) fn has(&self, file: &str) -> Result<bool, WriteError> {
        let (path, known) = (self.path(file), self.state.shards.get(file));
        match known {
            Some(sha256) if path.is_file() => {
                Ok(sha256_of(&path).map_err(WriteError::new(&path, "be read"))? == *sha256)
            }
            _ => Ok(false),
        }
    }

    /// Notes that a file of weights is finished.
    pub(super) fn finished(&mut self, file: &str, sha256: String) -> Result<(), WriteError> {
        self.state.shards.insert(file.to_string(), sha256);
        self.keep()
    }

    fn keep(&self) -> Result<(), WriteError> {
        // Text always has a form.
        let text = serde_json::to_vec(&self.state).unwrap_or_default();
        write_file(&self.path(STATE), &text)
    }

    /// Writes a file, whole or not at all.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        write_file(&self.path(name), bytes)
    }

    /// Takes the folder away, if nothing was finished that could be gone on from.
    pub(super) fn abandon(self) {
        if self.state.shards.is_empty() {
            // Best effort: what stopped the work is what a user must hear of.
            let _ = self.finish_at(|out| fs::remove_dir(out).map_err(WriteError::new(out, "be removed")));
        }
    }

    /// The folder is complete: what served the work goes.
    pub(super) fn finish(self) -> Result<(), WriteError> {
        self.finish_at(|out| {
            let failed = WriteError::new(out, "be made to last on the disk");
            sync_dir(out).and_then(|()| sync_dir(parent(out))).map_err(failed)
        })
    }

    /// Removes what served the work, and does something with the folder then.
    fn finish_at(self, last: impl FnOnce(&Path) -> Result<(), WriteError>) -> Result<(), WriteError> {
        remove(&self.out.join(STATE))?;
        remove(&self.out.join(LOCK))?;
        last(&self.out)
    }
}

/// What an earlier merge left.
enum Found {
    Complete(BTreeMap<String, String>),
    Begun(State),
}

/// What an earlier merge of the same left in a folder, if anything.
fn found(out: &Path, digest: &str) -> Result<Option<Found>, SaveError> {
    let other = |name: &str, what: &str| {
        let why =
            format!("is of another mixture, {what}; give the same command, or start anew with {}", param("force"));
        SaveError::refused(&out.join(name), why)
    };
    if let Some(state) = read::<State>(&out.join(STATE))? {
        return match state.digest == digest {
            true => Ok(Some(Found::Begun(state))),
            false => Err(other(STATE, "which is unfinished")),
        };
    }
    match read::<Record>(&out.join(RECORD))? {
        None => Ok(None),
        Some(record) if record.digest != digest => Err(other(RECORD, "which is complete")),
        // The configuration is written last. Where something was taken away since, what is left is gone on with.
        Some(record) => {
            let same =
                |(name, sha256): (&String, &String)| sha256_of(&out.join(name)).is_ok_and(|found| found == *sha256);
            let whole = out.join("config.json").is_file() && record.files.iter().all(same);
            Ok(Some(match whole {
                true => Found::Complete(record.files),
                false => Found::Begun(State { digest: record.digest, shards: record.files }),
            }))
        }
    }
}

/// A file of ours, if it is there.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, SaveError> {
    if !path.is_file() {
        return Ok(None);
    }
    let bad =
        |why: String| SaveError::refused(path, format!("cannot be read: {why}; start anew with {}", param("force")));
    let text = fs::read(path).map_err(|e| bad(e.to_string()))?;
    serde_json::from_slice(&text).map(Some).map_err(|e| bad(e.to_string()))
}

/// Takes the folder's lock, which ends with the process however it ends.
fn lock(out: &Path) -> Result<File, SaveError> {
    let path = out.join(LOCK);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(WriteError::new(&path, "be made"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let why = format!("another process is at work there; wait for it, or choose another {}", param("out"));
            Err(SaveError::refused(out, why))
        }
        Err(TryLockError::Error(source)) => Err(WriteError::new(&path, "be locked")(source).into()),
    }
}

fn remove(path: &Path) -> Result<(), WriteError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    };
    removed.map_err(WriteError::new(path, "be removed"))
}
