//! `gatelens compare`: where the circuit sits in several checkpoints, from their run directories alone.

use super::analysis::{command_line, write_figures};
use super::combine::{self, Run};
use super::document::write_report;
use super::{CliError, say};
use crate::analyses::compare::{self, Behaviour, Checkpoint, PairSet};
use crate::report::{Block, Report, Section, latex};
use crate::rundir::{RUN_FILE, RunDir, RunRecord};
use crate::table::Table;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The arguments of `compare`.
#[derive(clap::Args)]
pub(super) struct Compare {
    /// Run directories of `screen` or `interchange`, one a checkpoint; those of `behaviour` on the same models are joined
    #[arg(value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,

    /// The directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Compare runs over different pairs all the same; the report says so
    #[arg(long)]
    different_pairs: bool,

    /// Replace the directory if it exists
    #[arg(long)]
    force: bool,
}

impl Compare {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let runs: Vec<PathBuf> = self.runs.iter().map(|dir| of_run(dir)).collect::<Result<Vec<_>, _>>()?.concat();
        let checkpoints = checkpoints(&runs, self.different_pairs)?;
        let directory = RunDir::create(&self.out, self.force, false)?;
        let shown: Vec<String> = self.runs.iter().map(|r| r.display().to_string()).collect();
        let mut words = vec!["compare".to_string()];
        words.extend(self.different_pairs.then(|| "--different-pairs".to_string()));
        words.extend(shown.iter().cloned().chain(["--out".to_string(), self.out.display().to_string()]));
        let command_line = command_line(&words);
        directory.claim(&Map::from_iter([("runs".to_string(), Value::from(shown))]))?;
        let mut report = Report::new("Comparison of checkpoints");
        report.intro.push(Block::Code(command_line.clone()));
        report.sections = write(&directory, &checkpoints, "")?;
        directory.write_atomic("tables.tex", latex::render(&report).as_bytes())?;
        write_report(&directory, &report)?;
        let record = serde_json::json!({
            "command": "compare",
            "command_line": command_line,
            "different_pairs": self.different_pairs,
            "pairs": checkpoints.iter().map(pairs).collect::<Vec<_>>(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        let json = serde_json::to_vec_pretty(&record).map_err(|e| CliError::Failed(e.to_string()))?;
        directory.write_atomic(RUN_FILE, &json)?;
        say(&format!(
            "{}: report.html, checkpoints.parquet, overlap.parquet, heads.parquet",
            directory.finish()?.display()
        ))
    }
}

/// A run directory; of a whole experiment, those of its parts that can be compared.
fn of_run(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let runs = combine::expand(dir)?;
    if runs.len() == 1 {
        return Ok(runs);
    }
    let mut kept = Vec::new();
    for run in runs {
        if COMPARABLE.contains(&combine::read(&run)?.record.command.as_str()) {
            kept.push(run);
        }
    }
    Ok(kept)
}

/// The commands whose runs are compared.
const COMPARABLE: [&str; 3] = ["screen", "interchange", "behaviour"];

/// Reads runs as checkpoints: a screen or interchange each, with the behaviour of the same weights where there is one.
/// `different_pairs` lets them be over different pairs.
///
/// # Errors
/// If a run directory is not whole, is of another command, or fewer than two checkpoints are there; or if the runs are not over
/// the same pairs.
pub(super) fn checkpoints(runs: &[PathBuf], different_pairs: bool) -> Result<Vec<Checkpoint>, CliError> {
    // Two sets of weights of one shape have one checksum of their headers: the name counts too.
    type Of<T> = ((String, String), T);
    let mut checkpoints: Vec<Of<Checkpoint>> = Vec::new();
    let mut behaviours: Vec<Of<Behaviour>> = Vec::new();
    let mut sets: Vec<(&Path, PairSet)> = Vec::new();
    for dir in runs {
        let run = combine::read(dir)?;
        let key = (run.record.model.sha256.clone(), run.record.model.name.clone());
        match run.record.command.as_str() {
            "screen" | "interchange" => {
                let checkpoint = checkpoint(dir, run)?;
                sets.push((dir, checkpoint.pairs.clone()));
                checkpoints.push((key, checkpoint));
            }
            "behaviour" => {
                let behaviour = behaviour(dir, run)?;
                sets.push((dir, behaviour.pairs.clone()));
                behaviours.push((key, behaviour));
            }
            other => {
                return Err(CliError::Input(format!(
                    "{}: is a run of `{other}`; give runs of `screen` or `interchange`, and of `behaviour`",
                    dir.display()
                )));
            }
        }
    }
    if checkpoints.len() < 2 {
        return Err(CliError::Input(format!(
            "{} run of `screen` or `interchange` was given; a comparison needs two checkpoints",
            checkpoints.len()
        )));
    }
    if !different_pairs {
        same_pairs(&sets)?;
    }
    for (key, behaviour) in behaviours {
        // Runs of one checkpoint by different flags each get its behaviour.
        for (_, checkpoint) in checkpoints.iter_mut().filter(|(of, _)| *of == key) {
            checkpoint.behaviour = Some(behaviour.clone());
        }
    }
    Ok(checkpoints.into_iter().map(|(_, checkpoint)| checkpoint).collect())
}

/// What is compared of a run of heads.
fn checkpoint(dir: &Path, mut run: Run) -> Result<Checkpoint, CliError> {
    let heads = taken(dir, &mut run.tables, "heads")?;
    let pairs = pair_set(&run.record, &heads)?;
    let (model, parameters) = (run.record.model.name, run.record.model.parameters);
    Ok(Checkpoint { model, parameters, pairs, heads, behaviour: None })
}

/// What is compared of a run of behaviour. Single answers may have been left out of what was handed on.
fn behaviour(dir: &Path, mut run: Run) -> Result<Behaviour, CliError> {
    let rates = taken(dir, &mut run.tables, "rates")?;
    let answers = taken(dir, &mut run.tables, "answers").ok();
    Ok(Behaviour { pairs: pair_set(&run.record, &rates)?, rates, answers })
}

/// A table, out of those of a run.
fn taken(dir: &Path, tables: &mut Vec<Table>, name: &str) -> Result<Table, CliError> {
    let found = tables.iter().position(|table| table.name() == name);
    let missing = || CliError::Input(format!("{}: the table {name}.parquet is missing", dir.display()));
    found.map(|at| tables.swap_remove(at)).ok_or_else(missing)
}

/// The pairs that a run was over, so many of a file's. Not all rows of a table need be over all of them.
fn pair_set(record: &RunRecord, table: &Table) -> Result<PairSet, CliError> {
    let file = record.parameters.get("pairs").and_then(Value::as_str).unwrap_or_default().to_string();
    let sha256 = record.dataset_sha256.get(&file).cloned().unwrap_or_default();
    Ok(PairSet { file, sha256, n: table.ints("n")?.iter().copied().max().unwrap_or(0) })
}

/// Checks that runs are over the same pairs.
///
/// # Errors
/// Which two are not.
fn same_pairs(runs: &[(&Path, PairSet)]) -> Result<(), CliError> {
    let Some((first, pairs)) = runs.first() else { return Ok(()) };
    let Some((dir, others)) = runs.iter().find(|(_, other)| !pairs.same(other)) else { return Ok(()) };
    let named = |set: &PairSet| format!("{} ({} pairs, SHA-256 {:.8})", set.file, set.n, set.sha256);
    Err(CliError::Input(format!(
        "{} was made of {}, {} of {}: compare runs over the same pairs, or give --different-pairs",
        first.display(),
        named(pairs),
        dir.display(),
        named(others)
    )))
}

/// The pairs of a checkpoint, for the record.
fn pairs(checkpoint: &Checkpoint) -> Value {
    let behaviour = checkpoint.behaviour.as_ref().map(|behaviour| &behaviour.pairs);
    serde_json::json!({"model": checkpoint.model, "heads": checkpoint.pairs, "behaviour": behaviour})
}

/// Writes tables and figures, each name with a prefix; returns the report's sections.
///
/// # Errors
/// If the checkpoints cannot be compared or a file cannot be written.
pub(super) fn write(directory: &RunDir, checkpoints: &[Checkpoint], prefix: &str) -> Result<Vec<Section>, CliError> {
    let tables = compare::tables(checkpoints)?;
    for table in &tables {
        directory.write_atomic(&format!("{prefix}{}.parquet", table.name()), &table.to_parquet()?)?;
    }
    let figures = compare::figures(&tables)?;
    write_figures(directory, figures.into_iter().map(|(name, f)| (format!("{prefix}{name}"), f)).collect())?;
    let mut sections = compare::sections(&tables, directory.folder())?;
    for block in sections.iter_mut().flat_map(|s| &mut s.blocks) {
        if let Block::Figure(figure) = block
            && let Some(file) = figure.path.file_name()
        {
            figure.path = figure.path.with_file_name(format!("{prefix}{}", file.to_string_lossy()));
        }
    }
    Ok(sections)
}
