//! Writing a file so that it is there whole or not at all, whatever stops the process.

use crate::parameters::param;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A file or folder could not be written.
#[derive(Debug, Error)]
#[error("{}: cannot {action}: {source}{}", path.display(), mend(source))]
pub struct WriteError {
    /// The file or folder.
    pub path: PathBuf,
    /// What was tried, as a verb with its object: `be written`.
    pub action: &'static str,
    /// The system's reason.
    pub source: io::Error,
}

impl WriteError {
    /// For `map_err`: wraps the system's reason with the path and what was tried.
    pub(crate) fn new(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> WriteError + use<> {
        let path = path.to_owned();
        move |source| WriteError { path, action, source }
    }
}

fn mend(error: &io::Error) -> String {
    let out = param("out");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => format!("; free space there, or choose another {out}"),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            format!("; choose an {out} that may be written to")
        }
        ErrorKind::NotFound => "; check that the folder is there and was not moved".to_string(),
        _ => String::new(),
    }
}

/// Writes a file under its final name only once all of its bytes are on the disk.
///
/// The bytes go to a hidden file beside it first; an older file of that name stays until the moment it is replaced.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write_file_with(path, |temporary| File::create(temporary)?.write_all(bytes))
}

/// The same for what `write` puts into the file that it is given the path of, piece by piece.
pub fn write_file_with(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), WriteError> {
    let temporary = temporary_beside(path);
    let written = write(&temporary)
        .and_then(|()| File::open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_dir(parent(path)));
    written.map_err(|source| {
        // Best effort: the write's own failure is what the caller must hear of.
        let _ = fs::remove_file(&temporary);
        WriteError::new(path, "be written")(source)
    })
}

/// Writes a file that is not there yet, whole or not at all; whether this process did, and not another one before it.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<bool, WriteError> {
    let temporary = temporary_beside(path);
    let written = File::create(&temporary).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    // A link is refused where the name is taken. Where there are no links, a file that is new is.
    let linked = written.and_then(|()| match fs::hard_link(&temporary, path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists && !path.exists() => {
            File::create_new(path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        }
        linked => linked,
    });
    // Best effort: what is left of it is in nobody's way.
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync_dir(parent(path)).map(|()| true).map_err(WriteError::new(path, "be written")),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(WriteError::new(path, "be written")(e)),
    }
}

/// A name of its own for every call of every process on every machine.
fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}-{:016x}{TEMPORARY_SUFFIX}", std::process::id(), random()))
}

/// A number that no other call gives, of any process.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// Makes a file system of a network say anew what is in a folder, where it would answer from memory.
pub(crate) fn look_again(folder: &Path) {
    let _ = fs::read_dir(folder).map(|mut entries| entries.next());
}

/// The end of the names of files that are being written.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The folder that holds `path`: `.` for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes renames and removals in a folder last through a power cut.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    // Only Unix opens folders as files; elsewhere the file system keeps this promise by itself or not at all.
    #[cfg(unix)]
    File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Makes every file and folder below `path`, and `path` itself, last through a power cut.
pub(crate) fn sync_tree(path: &Path) -> Result<(), WriteError> {
    let failed = |path: &Path| WriteError::new(path, "be made to last on the disk");
    for entry in fs::read_dir(path).map_err(failed(path))? {
        let entry = entry.map_err(failed(path))?;
        let child = entry.path();
        let kind = entry.file_type().map_err(failed(&child))?;
        if kind.is_dir() {
            sync_tree(&child)?;
        } else if kind.is_file() {
            File::open(&child).and_then(|file| file.sync_all()).map_err(failed(&child))?;
        }
    }
    sync_dir(path).map_err(failed(path))
}
