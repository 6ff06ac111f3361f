//! Run directories as commands are given them: of an analysis, or of an experiment with a run directory for each part.

use super::CliError;
use crate::rundir::{self, RUN_FILE, RunDir, RunRecord};
use crate::table::Table;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A directory with a record.
pub(super) struct Source {
    pub(super) dir: PathBuf,
    /// What its `run.json` says.
    pub(super) record: Map<String, Value>,
    /// The run directories of its parts; of an analysis, the directory itself.
    pub(super) runs: Vec<PathBuf>,
}

impl Source {
    /// Reads a directory's record.
    ///
    /// # Errors
    /// If there is none that can be read.
    pub(super) fn open(dir: &Path) -> Result<Source, CliError> {
        let record: Map<String, Value> = read_record(dir)?;
        let runs = match record.get("runs").and_then(Value::as_array) {
            None => vec![dir.to_path_buf()],
            Some(parts) => parts.iter().filter_map(Value::as_str).map(|name| dir.join(name)).collect(),
        };
        Ok(Source { dir: dir.to_path_buf(), record, runs })
    }

    pub(super) fn is_experiment(&self) -> bool {
        self.record.contains_key("runs")
    }

    /// A field of the record that is text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.record.get(key).and_then(Value::as_str)
    }
}

/// The record of an analysis.
///
/// # Errors
/// If there is none that can be read.
pub(super) fn record(dir: &Path) -> Result<RunRecord, CliError> {
    let fields: Map<String, Value> = read_record(dir)?;
    if let Some(command @ ("report" | "compare")) = fields.get("command").and_then(Value::as_str) {
        let why = format!("was made by `{command}` of other run directories, and is no run of an analysis; give those");
        return Err(CliError::Input(format!("{}: {why}", dir.display())));
    }
    read_record(dir)
}

fn read_record<T: serde::de::DeserializeOwned>(dir: &Path) -> Result<T, CliError> {
    let found = rundir::read_record(dir).map_err(|e| CliError::Input(e.to_string()))?;
    let path = dir.join(RUN_FILE);
    found.ok_or_else(|| {
        CliError::Input(format!("{}: cannot be read: there is none; give a run directory", path.display()))
    })
}

/// What a run left in a directory that is to be gone on with; none where it left no record.
///
/// # Errors
/// If there is a record that cannot be read.
pub(super) fn left<T: serde::de::DeserializeOwned>(dir: &Path) -> Result<Option<T>, CliError> {
    rundir::read_record(dir).map_err(|e| anew(dir, &e.reason))
}

/// Why a run cannot be gone on with, and what mends it.
pub(super) fn anew(dir: &Path, why: &str) -> CliError {
    CliError::Input(format!("{}: {why}; start anew with --force", dir.join(RUN_FILE).display()))
}

/// A table of a directory; none if there is no such file.
///
/// # Errors
/// If it cannot be read.
pub(super) fn table(dir: &Path, file: &str) -> Result<Option<Table>, CliError> {
    let path = dir.join(file);
    if path.is_file() { read_table(&path).map(Some) } else { Ok(None) }
}

/// All tables of a directory, by their names.
///
/// # Errors
/// If one cannot be read.
pub(super) fn tables(dir: &Path) -> Result<Vec<Table>, CliError> {
    let entries = std::fs::read_dir(dir).map_err(|e| CliError::Input(format!("{}: {e}", dir.display())))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "parquet"));
    files.sort();
    files.iter().map(|file| read_table(file)).collect()
}

/// A table as an input: one that is damaged is the user's to mend.
pub(super) fn read_table(path: &Path) -> Result<Table, CliError> {
    Table::read_parquet(path).map_err(|e| CliError::Input(e.to_string()))
}

/// Refuses to write where something is read from: with --force, what is read would be gone.
///
/// # Errors
/// If the directory to write is one of those that are read, or holds one.
pub(super) fn keep_apart(out: &Path, read: &[PathBuf]) -> Result<(), CliError> {
    // Where nothing is yet, nothing can be lost.
    let Ok(place) = out.canonicalize() else { return Ok(()) };
    match read.iter().find(|dir| dir.canonicalize().is_ok_and(|dir| dir.starts_with(&place))) {
        None => Ok(()),
        Some(dir) => Err(CliError::Input(format!(
            "{}: {} is to be read there, and would be replaced; choose another --out",
            out.display(),
            dir.display()
        ))),
    }
}

/// Writes the record of a command that made its directory of others: the command and the version, and what `more` says.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write_record(
    directory: &RunDir,
    command: &str,
    command_line: &str,
    more: Map<String, Value>,
) -> Result<(), CliError> {
    let mut record = Map::from_iter([
        ("command".to_string(), Value::from(command)),
        ("command_line".to_string(), Value::from(command_line)),
        ("version".to_string(), Value::from(env!("CARGO_PKG_VERSION"))),
    ]);
    record.extend(more);
    let json = serde_json::to_vec_pretty(&record).map_err(|e| CliError::Failed(e.to_string()))?;
    Ok(directory.write_atomic(RUN_FILE, &json)?)
}
