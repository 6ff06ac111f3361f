//! Run directories: they appear whole, can be resumed after any kind of stop, and are never overwritten by accident.
//!
//! ```text
//! let run = RunDir::create(out, force, resume)?;
//! run.claim(&parameters)?;                       // refuses to resume the work of another command
//! let parts = run.parts();                       // where a session keeps what is finished
//! run.write_atomic("heads.parquet", &bytes)?;
//! run.finish()?;                                 // DIR.partial becomes DIR
//! ```
//!
//! Work goes on in `DIR.partial` beside `DIR`. A lock that the system releases with the process keeps a second
//! process out. Which parts a command has, and what is in them, is left to the command.

mod record;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::parameters::param;
use serde_json::{Map, Value};
use thiserror::Error;

pub use crate::files::{WriteError, write_file, write_file_with};
pub use record::{ModelRecord, RUN_FILE, RecordError, RunRecord, Timings, cpu_seconds, peak_rss_bytes, read_record};

use super::parts::Parts;
use super::share::claims::{self, Claim, Claims, Turn};
use crate::files::{TEMPORARY_SUFFIX, look_again, parent, sync_dir, sync_tree, write_new};
use sha2::{Digest, Sha256};

pub(crate) const LOCK_FILE: &str = ".lock";
pub(crate) const PARAMS_FILE: &str = "params.json";
/// What a process that shares a run says of it, for those that join and gather.
pub(crate) const COMMAND_FILE: &str = ".command.json";
// Begins with a dot so that no run directory of an experiment can have its name.
pub(crate) const PARTS_DIR: &str = ".parts";
/// What the process claims that finishes a run.
const FINISH: &str = ".finish";
/// How often it is looked whether another has finished it.
const LOOK: Duration = Duration::from_millis(200);

/// Why a run directory cannot be made, resumed or finished.
#[derive(Debug, Error)]
pub enum RunDirError {
    /// The path has no name of its own, as `/` or `..`.
    #[error(
        "{}: is no name for a run directory; give {out} a folder that can be made, such as runs/first",
        path.display(), out = param("out")
    )]
    Unnamed {
        /// What was given.
        path: PathBuf,
    },
    /// The directory is there already.
    #[error(
        "{}: exists already; choose another {out}, or replace it with {force}",
        path.display(), out = param("out"), force = param("force")
    )]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was made while this run was at work.
    #[error(
        "{}: was made while this run was at work. The run's results are kept in {}: move the other away and give the same \
         command with {resume}, or replace it with {resume} {force}",
        path.display(), partial.display(), resume = param("resume"), force = param("force")
    )]
    Appeared {
        /// The directory.
        path: PathBuf,
        /// The partial directory.
        partial: PathBuf,
    },
    /// A symbolic link was to be replaced.
    #[error(
        "{}: is a symbolic link, which {force} does not replace; give the folder that it leads to, choose another {out}, \
         or remove it yourself", path.display(), out = param("out"), force = param("force")
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Something that no run made was to be replaced.
    #[error(
        "{}: holds no {RUN_FILE}, so it is not a run directory and {force} does not replace it; \
         choose another {out}, or remove it yourself", path.display(), out = param("out"), force = param("force")
    )]
    Foreign {
        /// The file or directory.
        path: PathBuf,
    },
    /// An earlier run stopped before its end.
    #[error(
        "{}: holds an unfinished run; go on from it with {resume}, or start anew with {force}",
        path.display(), resume = param("resume"), force = param("force")
    )]
    Unfinished {
        /// The partial directory.
        path: PathBuf,
    },
    /// Another process works there.
    #[error("{}: another process is at work there; wait for it, or choose another {out}", path.display(), out = param("out"))]
    Busy {
        /// The partial directory.
        path: PathBuf,
    },
    /// The unfinished run has other parameters.
    #[error(
        "{}: the unfinished run is another one: {}; give the same command, choose another {out}, or start anew \
         with {force}", path.display(), differences.join(", "), out = param("out"), force = param("force")
    )]
    OtherRun {
        /// The partial directory.
        path: PathBuf,
        /// What differs: `seed was 0, is 1`.
        differences: Vec<String>,
    },
    /// The unfinished run's parts are of another kind.
    #[error("{}: {why}", path.display())]
    OtherParts {
        /// The partial directory.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// The unfinished run's parameters cannot be read.
    #[error("{}: cannot be read: {reason}; start anew with {force}", path.display(), force = param("force"))]
    Params {
        /// The parameters' file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file's name leads out of the run directory.
    #[error("\"{name}\" is not a plain file name")]
    Name {
        /// The name.
        name: String,
    },
    /// Something could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A run directory in the making. Dropped before [`finish`](RunDir::finish), it stays as `DIR.partial` to resume from.
#[derive(Debug)]
pub struct RunDir {
    out: PathBuf,
    partial: PathBuf,
    force: bool,
    // Held for its lock alone, which ends when the file is closed.
    _lock: File,
}

impl RunDir {
    /// Opens `DIR.partial` for the run that will be `out`.
    ///
    /// An existing `out` needs `force`; it is only replaced at the end, and only if a run made it. An existing
    /// `DIR.partial` needs `resume`, which keeps it, or `force`, which empties it.
    pub fn create(out: &Path, force: bool, resume: bool) -> Result<RunDir, RunDirError> {
        RunDir::check(out, force, resume)?;
        let (out, partial) = names(out)?;
        make_dir(&partial)?;
        let lock = lock(&partial, Lock::Alone)?;
        // A run that stopped before it claimed its parameters has done nothing that could be lost or gone on from.
        let found = partial.join(PARAMS_FILE).exists();
        if found && !resume && !force {
            return Err(RunDirError::Unfinished { path: partial });
        }
        let run = RunDir { out, partial, force, _lock: lock };
        run.clear(|name| found && resume && !name.ends_with(TEMPORARY_SUFFIX))?;
        make_dir(&run.partial.join(PARTS_DIR))?;
        claims::clear(&run.partial);
        claims::clear(&run.partial.join(PARTS_DIR));
        Ok(run)
    }

    /// Opens `DIR.partial` for a run that other processes may be at as well; goes on with what is there. A run `inside` another one's folder
    /// does not make that folder: whoever finishes the other one moves it.
    pub fn join(out: &Path, inside: bool) -> Result<RunDir, RunDirError> {
        RunDir::check(out, false, true)?;
        let (out, partial) = names(out)?;
        match fs::create_dir(&partial) {
            Err(e) if inside && e.kind() != ErrorKind::AlreadyExists => {
                return Err(WriteError::new(&partial, "be made")(e).into());
            }
            _ => make_dir(&partial)?,
        }
        let lock = lock(&partial, Lock::Shared)?;
        let run = RunDir { out, partial, force: false, _lock: lock };
        if fs::symlink_metadata(&run.out).is_ok() {
            // The run was finished in between, and what was just made is not gone on from.
            run.abandon()?;
            return Err(RunDirError::Exists { path: run.out });
        }
        make_dir(&run.partial.join(PARTS_DIR))?;
        Ok(run)
    }

    /// Claims to finish a run that others may be at too: waits while one of them does. None once another has, or when
    /// `waiting` says that it is not to be waited for.
    ///
    /// # Errors
    /// If the claim cannot be made.
    pub(crate) fn finishing(&self, waiting: &mut dyn FnMut() -> bool) -> Result<Option<Claim>, RunDirError> {
        let claims = Claims::new(&self.partial);
        let is_out = || {
            look_again(parent(&self.out));
            fs::symlink_metadata(&self.out).is_ok()
        };
        while !is_out() && waiting() {
            match claims.claim(FINISH) {
                Ok(Turn::Ours(claim)) => return Ok((!is_out()).then_some(claim)),
                Ok(Turn::Others) => std::thread::sleep(LOOK),
                Err(_) if is_out() => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(None)
    }

    /// Refuses what [`create`](RunDir::create) would refuse, and changes nothing: for before long work.
    pub fn check(out: &Path, force: bool, resume: bool) -> Result<(), RunDirError> {
        let (out, partial) = names(out)?;
        if fs::symlink_metadata(&out).is_ok() {
            if !force {
                return Err(RunDirError::Exists { path: out });
            }
            refuse_foreign(&out, &[RUN_FILE])?;
        }
        if fs::symlink_metadata(&partial).is_err() {
            return Ok(());
        }
        refuse_foreign(&partial, &[LOCK_FILE, PARAMS_FILE])?;
        let locked = File::open(partial.join(LOCK_FILE)).map(|lock| lock.try_lock_shared());
        if let Ok(Err(TryLockError::WouldBlock)) = locked {
            return Err(RunDirError::Busy { path: partial });
        }
        if partial.join(PARAMS_FILE).exists() && !resume && !force {
            return Err(RunDirError::Unfinished { path: partial });
        }
        Ok(())
    }

    /// Records the parameters that the results depend on, or checks that they are those of the run that is resumed.
    pub fn claim(&self, parameters: &Map<String, Value>) -> Result<(), RunDirError> {
        let path = self.partial.join(PARAMS_FILE);
        if !path.exists() && write_new(&path, Value::Object(parameters.clone()).to_string().as_bytes())? {
            return Ok(());
        }
        let unreadable = |reason: String| RunDirError::Params { path: path.clone(), reason };
        let text = fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
        let earlier: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        let differences = differences(&earlier, parameters);
        if differences.is_empty() {
            return Ok(());
        }
        Err(RunDirError::OtherRun { path: self.partial.clone(), differences })
    }

    /// The folder that holds the run's files while it goes on.
    pub fn folder(&self) -> &Path {
        &self.partial
    }

    /// Where the file of that name is while the run goes on.
    pub fn path(&self, name: &str) -> Result<PathBuf, RunDirError> {
        Ok(self.partial.join(plain(name)?))
    }

    /// Writes a file of the run directory, whole or not at all.
    pub fn write_atomic(&self, name: &str, bytes: &[u8]) -> Result<(), RunDirError> {
        Ok(write_file(&self.path(name)?, bytes)?)
    }

    /// Where finished parts are kept, by this process and the one that is resumed. They serve to resume and are gone from the
    /// finished directory.
    pub fn parts(&self) -> Parts {
        let claimed = fs::read(self.partial.join(PARAMS_FILE)).unwrap_or_default();
        let scope = Sha256::digest(claimed).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Parts::new(self.partial.join(PARTS_DIR), scope)
    }

    /// Makes the run directory appear under its name; gives where it is.
    ///
    /// What can be refused, or fail for want of room, comes first: until then everything stays to be resumed from. A directory
    /// that is replaced is moved aside first and removed last, so that a failure loses neither.
    pub fn finish(self) -> Result<PathBuf, RunDirError> {
        self.check_replaceable()?;
        self.clear(|name| !name.ends_with(TEMPORARY_SUFFIX))?;
        self.sync()?;
        let replaced = self.move_aside()?;
        if let Err(source) = fs::rename(&self.partial, &self.out) {
            if let Some(old) = &replaced {
                // Best effort: what the caller must hear of is why the new directory could not take its place.
                let _ = fs::rename(old, &self.out);
            }
            return Err(WriteError::new(&self.out, "be put in place")(source).into());
        }
        // These go last: until the rename, there is something to go on from, the parameters say what, and the lock keeps others
        // out.
        remove_tree(&self.out.join(PARTS_DIR))?;
        claims::clear(&self.out);
        remove_tree(&self.out.join(COMMAND_FILE))?;
        remove_tree(&self.out.join(PARAMS_FILE))?;
        remove_tree(&self.out.join(LOCK_FILE))?;
        sync_dir(&self.out)
            .and_then(|()| sync_dir(parent(&self.out)))
            .map_err(WriteError::new(&self.out, "be made to last on the disk"))?;
        if let Some(old) = replaced {
            remove_tree(&old)?;
        }
        Ok(self.out)
    }

    /// Makes what stays of the partial directory last. Parts do not stay, and others may still be writing them.
    fn sync(&self) -> Result<(), RunDirError> {
        let failed = |path: &Path| WriteError::new(path, "be made to last on the disk");
        for entry in fs::read_dir(&self.partial).map_err(failed(&self.partial))? {
            let path = entry.map_err(failed(&self.partial))?.path();
            let goes = path.file_name().is_some_and(|name| name == PARTS_DIR || name == LOCK_FILE)
                || claims::claimed(&path).is_some();
            if path.is_dir() && !goes {
                sync_tree(&path)?;
            } else if path.is_file() && !goes {
                File::open(&path).and_then(|file| file.sync_all()).map_err(failed(&path))?;
            }
        }
        Ok(sync_dir(&self.partial).map_err(failed(&self.partial))?)
    }

    /// Takes the partial directory away, if the run has finished nothing that could be gone on from.
    pub fn abandon(&self) -> Result<(), RunDirError> {
        let failed = || WriteError::new(&self.partial, "be read");
        let names = |path: &Path| -> Result<Vec<OsString>, RunDirError> {
            let entries = fs::read_dir(path).map_err(failed())?;
            entries.map(|entry| Ok(entry.map_err(failed())?.file_name())).collect()
        };
        let bare = |name: &OsString| [LOCK_FILE, PARAMS_FILE, COMMAND_FILE, PARTS_DIR].iter().any(|own| name == own);
        let parts = self.partial.join(PARTS_DIR);
        if names(&self.partial)?.iter().all(bare) && (!parts.exists() || names(&parts)?.is_empty()) {
            remove_tree(&self.partial)?;
        }
        Ok(())
    }

    /// Refuses a directory in the way that is not to be replaced. It may have appeared while this run was at work.
    fn check_replaceable(&self) -> Result<(), RunDirError> {
        if fs::symlink_metadata(&self.out).is_err() {
            return Ok(());
        }
        if !self.force {
            return Err(RunDirError::Appeared { path: self.out.clone(), partial: self.partial.clone() });
        }
        refuse_foreign(&self.out, &[RUN_FILE])
    }

    /// Moves the directory that is to be replaced out of the way; gives where to.
    fn move_aside(&self) -> Result<Option<PathBuf>, RunDirError> {
        self.check_replaceable()?;
        if fs::symlink_metadata(&self.out).is_err() {
            return Ok(None);
        }
        let aside = with_suffix(&self.out, &format!(".replaced-{}", std::process::id()));
        fs::rename(&self.out, &aside).map_err(WriteError::new(&self.out, "be moved aside"))?;
        Ok(Some(aside))
    }

    /// Removes what is in the partial directory, but for the lock and what `keep` names.
    fn clear(&self, keep: impl Fn(&str) -> bool) -> Result<(), RunDirError> {
        let failed = || WriteError::new(&self.partial, "be read");
        for entry in fs::read_dir(&self.partial).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == LOCK_FILE || keep(&name) {
                continue;
            }
            remove_tree(&entry.path())?;
        }
        Ok(())
    }
}

/// The run directory's path without a slash at its end, and its partial sibling.
pub(crate) fn names(out: &Path) -> Result<(PathBuf, PathBuf), RunDirError> {
    let unnamed = || RunDirError::Unnamed { path: out.to_owned() };
    let name = out.file_name().ok_or_else(unnamed)?;
    let out = parent(out).join(name);
    let partial = with_suffix(&out, ".partial");
    Ok((out, partial))
}

/// A path with something at its name's end.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Refuses to touch a link and what no run made: anything but an empty directory or one with a file of the given names.
fn refuse_foreign(path: &Path, own: &[&str]) -> Result<(), RunDirError> {
    if path.is_symlink() {
        return Err(RunDirError::Link { path: path.to_owned() });
    }
    // In this order: another process may be making the directory, and the first that it makes in it is one of these files.
    let is_empty = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        // Another process finished it in the meantime.
        Err(e) if e.kind() == ErrorKind::NotFound => true,
        Err(_) => false,
    };
    if is_empty || path.is_dir() && own.iter().any(|name| path.join(name).is_file()) || !path.exists() {
        return Ok(());
    }
    Err(RunDirError::Foreign { path: path.to_owned() })
}

/// Whether others may hold the lock as well.
#[derive(Clone, Copy)]
enum Lock {
    Alone,
    Shared,
}

/// Takes the partial directory's lock, which ends with the process however it ends.
fn lock(partial: &Path, kind: Lock) -> Result<File, RunDirError> {
    let path = partial.join(LOCK_FILE);
    // Some file systems of networks want to read what is locked for several.
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let file = opened.map_err(WriteError::new(&path, "be made"))?;
    let locked = match kind {
        Lock::Alone => file.try_lock(),
        Lock::Shared => file.try_lock_shared(),
    };
    match locked {
        Ok(()) if is_at(&file, &path) => Ok(file),
        // The process that held the lock has finished its run and taken the file away in the meantime.
        Ok(()) | Err(TryLockError::WouldBlock) => Err(RunDirError::Busy { path: partial.to_owned() }),
        // Some file systems of clusters have no locks. Those who share a run there have their claims.
        Err(TryLockError::Error(source)) if matches!(kind, Lock::Shared) && has_no_locks(&source) => Ok(file),
        Err(TryLockError::Error(source)) => Err(WriteError::new(&path, "be locked")(source).into()),
    }
}

/// Whether the file system has no locks.
fn has_no_locks(source: &std::io::Error) -> bool {
    #[cfg(unix)]
    if source.raw_os_error() == Some(nix::libc::ENOLCK) {
        return true;
    }
    source.kind() == ErrorKind::Unsupported
}

/// Whether the open file is still the one at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

fn make_dir(path: &Path) -> Result<(), RunDirError> {
    Ok(fs::create_dir_all(path).map_err(WriteError::new(path, "be made"))?)
}

fn remove_tree(path: &Path) -> Result<(), RunDirError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    Ok(removed.map_err(WriteError::new(path, "be removed"))?)
}

/// A name, if it is a file's and leads nowhere else.
pub(super) fn plain(name: &str) -> Result<&str, RunDirError> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only == name => Ok(name),
        _ => Err(RunDirError::Name { name: name.to_owned() }),
    }
}

/// What differs between the parameters of two runs: `seed was 0, is 1`.
pub(crate) fn differences(earlier: &Map<String, Value>, now: &Map<String, Value>) -> Vec<String> {
    let shown = |value: Option<&Value>| value.map_or_else(|| "not set".to_owned(), Value::to_string);
    let added = now.keys().filter(|key| !earlier.contains_key(*key));
    earlier
        .keys()
        .chain(added)
        .filter(|key| earlier.get(*key) != now.get(*key))
        .map(|key| format!("{key} was {}, is {}", shown(earlier.get(key)), shown(now.get(key))))
        .collect()
}
