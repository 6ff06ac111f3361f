//! `run.json`: what was run, on what, and what it cost; and the process's own measures for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::measured::Measured;
#[cfg(unix)]
use nix::sys::resource::{UsageWho, getrusage};
#[cfg(unix)]
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The name of the record's file in a run directory.
pub const RUN_FILE: &str = "run.json";

/// Everything that `run.json` says of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The command: `interchange`.
    pub command: String,
    /// The whole command, as a shell takes it.
    pub command_line: String,
    /// All parameters, with the defaults that were used.
    pub parameters: Map<String, Value>,
    /// The model.
    pub model: ModelRecord,
    /// SHA-256 in hex of each dataset file's bytes, by the path it was given as.
    pub dataset_sha256: BTreeMap<String, String>,
    /// What was measured, of which prompts; none in records from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// The seed of everything random.
    pub seed: u64,
    /// gatelens' version.
    pub version: String,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// `wavefront`, `full`.
    pub engine: String,
    /// How products with weights were computed: `packed, avx512f`. None in records from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub products: Option<String>,
    /// How many bytes of weights were held at most, where that was limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<u64>,
    /// Wall-clock times.
    pub timings: Timings,
    /// Processor time of all threads over this run, in seconds; in an experiment, that of loading a model is in the first
    /// run on it.
    pub cpu_s: f64,
    /// Prompts that were run.
    pub prompts: u64,
    /// Forks that were run.
    pub forks: u64,
    /// Rows times layers computed.
    pub rows: u64,
    /// Floating-point operations, counted from the plan.
    pub flops: f64,
    /// The most memory that the process held at once during the run; since its own start where the system does not count
    /// anew.
    pub peak_rss_bytes: u64,
}

/// A `run.json` that cannot be read, or is none.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct RecordError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What a directory's `run.json` says, as a [`RunRecord`] or as any JSON; none where the directory has no such file.
///
/// # Errors
/// If the file cannot be read, or says something else.
pub fn read_record<T: serde::de::DeserializeOwned>(directory: &Path) -> Result<Option<T>, RecordError> {
    let path = directory.join(RUN_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let bad = |reason: String| RecordError { path: path.clone(), reason };
    let text = std::fs::read(&path).map_err(|e| bad(format!("cannot be read: {e}")))?;
    serde_json::from_slice(&text).map(Some).map_err(|e| bad(e.to_string()))
}

impl RunRecord {
    /// Counts what was run.
    pub fn include(&mut self, size: &crate::run::Size) {
        self.prompts += size.prompts as u64;
        self.forks += size.forks as u64;
        self.rows += size.rows;
        self.flops += size.flops;
    }
}

/// Which model was run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Its path or name, as given.
    pub name: String,
    /// Its architecture, as its checkpoint calls it.
    pub architecture: String,
    /// How many parameters it has.
    pub parameters: u64,
    /// SHA-256 in hex of the weights' headers and files' sizes.
    pub sha256: String,
}

/// Wall-clock times of a run's stages, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Opening the model and reading the datasets.
    pub load_s: f64,
    /// The forward passes, with the weights that they read, and their statistics.
    pub compute_s: f64,
    /// Tables, figures and reports.
    pub output_s: f64,
}

/// The most memory that this process held at once, in bytes; 0 where the system does not say.
pub fn peak_rss_bytes() -> u64 {
    peak_from_proc().or_else(peak_from_rusage).unwrap_or(0)
}

fn peak_from_proc() -> Option<u64> {
    peak_from_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmHWM:     1234 kB` in bytes. It is preferred to `getrusage`, whose peak a process inherits from its parent.
fn peak_from_status(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Processor time of this process in seconds, all threads, user and system; 0 where the system does not say.
pub fn cpu_seconds() -> f64 {
    cpu_from_rusage().unwrap_or(0.0)
}

#[cfg(unix)]
fn peak_from_rusage() -> Option<u64> {
    // Apple's systems count bytes here, the others kibibytes.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    u64::try_from(usage.max_rss()).ok()?.checked_mul(unit)
}

#[cfg(unix)]
fn cpu_from_rusage() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

#[cfg(not(unix))]
fn peak_from_rusage() -> Option<u64> {
    None
}

#[cfg(not(unix))]
fn cpu_from_rusage() -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_systems_status() {
        assert_eq!(peak_from_status("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2048 * 1024));
        assert_eq!(peak_from_status("VmHWM:\tmany\n"), None);
        assert_eq!(peak_from_status(""), None);
    }

    #[cfg(unix)]
    #[test]
    fn both_measures_of_memory_and_the_processor_time_are_there() {
        assert!(peak_rss_bytes() > 100_000);
        assert!(peak_from_rusage().unwrap() > 100_000);
        assert!(cpu_seconds() > 0.0);
    }

    #[test]
    fn a_record_has_the_contracts_fields_in_the_contracts_order() {
        let record = RunRecord {
            command: "interchange".into(),
            command_line: "gatelens interchange demo".into(),
            parameters: Map::new(),
            model: ModelRecord {
                name: "demo".into(),
                architecture: "llama".into(),
                parameters: 1,
                sha256: "00".into(),
            },
            dataset_sha256: BTreeMap::new(),
            measured: Some(Measured::default()),
            seed: 0,
            version: "0.1.0".into(),
            device: "cpu".into(),
            engine: "wavefront".into(),
            products: None,
            max_memory: None,
            timings: Timings::default(),
            cpu_s: 0.0,
            prompts: 1,
            forks: 2,
            rows: 3,
            flops: 1e20,
            peak_rss_bytes: 4,
        };
        let text = serde_json::to_string(&record).unwrap();
        let value: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> = value.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "command",
                "command_line",
                "parameters",
                "model",
                "dataset_sha256",
                "measured",
                "seed",
                "version",
                "device",
                "engine",
                "timings",
                "cpu_s",
                "prompts",
                "forks",
                "rows",
                "flops",
                "peak_rss_bytes"
            ]
        );
        assert_eq!(serde_json::from_str::<RunRecord>(&text).unwrap(), record);
    }
}
