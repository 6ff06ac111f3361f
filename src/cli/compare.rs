//! `gatelens compare`: where the circuit sits in several checkpoints, from their run directories alone.

use super::analysis::{command_line, words, write_figures};
use super::document::{write_record, write_report};
use super::runs::{self, Source};
use super::{CliError, combine, say};
use crate::analyses::compare::{self, Checkpoint};
use crate::report::{Block, Report, Section, latex};
use crate::rundir::{RunDir, RunRecord};
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

    /// Replace the directory if it exists
    #[arg(long)]
    force: bool,
}

impl Compare {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let sources = self.runs.iter().map(|dir| Source::open(dir)).collect::<Result<Vec<_>, _>>()?;
        let runs: Vec<PathBuf> = sources.into_iter().map(of_source).collect::<Result<Vec<_>, _>>()?.concat();
        let tables = tables(&runs)?;
        runs::keep_apart(&self.out, &self.runs)?;
        // All of it is made anew each time: without a claim, what a stopped one left is none to go on with.
        let directory = RunDir::create(&self.out, self.force, false)?;
        let line = command_line(&words());
        write_tables(&directory, &tables, "")?;
        let mut report = Report::new("Comparison of checkpoints");
        report.intro.push(Block::Code(line.clone()));
        report.sections = sections(&directory, &tables, "")?;
        directory.write_atomic("tables.tex", latex::render(&report).as_bytes())?;
        write_report(&directory, &report)?;
        write_record(&directory, "compare", &line, Map::new())?;
        let out = directory.finish()?;
        say(&format!("{}: report.html, {}", out.display(), TABLES.map(|name| format!("{name}.parquet")).join(", ")))
    }
}

/// The tables of a comparison.
pub(super) const TABLES: [&str; 3] = ["checkpoints", "overlap", "heads"];

/// The commands whose runs show which heads carry a behaviour.
pub(super) const OF_HEADS: [&str; 2] = ["screen", "interchange"];

/// The command whose runs are joined to those.
pub(super) const OF_BEHAVIOUR: &str = "behaviour";

/// A run directory; of a whole experiment, those of its parts that can be compared.
fn of_source(source: Source) -> Result<Vec<PathBuf>, CliError> {
    if !source.is_experiment() {
        return Ok(source.runs);
    }
    let mut kept = Vec::new();
    for run in source.runs {
        let command = runs::record(&run)?.command;
        if command == OF_BEHAVIOUR || OF_HEADS.contains(&command.as_str()) {
            kept.push(run);
        }
    }
    Ok(kept)
}

/// Compares runs: a screen or interchange each, with the behaviour of the same weights where there is one.
///
/// # Errors
/// If a run directory is not whole, is of another command or of other flags than the rest, or fewer than two checkpoints
/// are there.
pub(super) fn tables(runs: &[PathBuf]) -> Result<Vec<Table>, CliError> {
    Ok(compare::tables(&checkpoints(runs)?)?)
}

fn checkpoints(runs: &[PathBuf]) -> Result<Vec<Checkpoint>, CliError> {
    // Two sets of weights of one shape have one checksum of their headers: the name counts too.
    type Of<T> = ((String, String), T);
    let mut checkpoints: Vec<Of<Checkpoint>> = Vec::new();
    let mut behaviours: Vec<Of<&PathBuf>> = Vec::new();
    let mut first: Option<(&PathBuf, String)> = None;
    for dir in runs {
        let record = runs::record(dir)?;
        let key = (record.model.sha256.clone(), record.model.name.clone());
        if OF_HEADS.contains(&record.command.as_str()) {
            let position = of_heads(dir, &record)?;
            let (other, at) = first.get_or_insert_with(|| (dir, position.clone()));
            if *at != position {
                return Err(CliError::Input(format!(
                    "{}: heads were exchanged at --position {position}, those of {} at {at}; compare runs at one position",
                    dir.display(),
                    other.display()
                )));
            }
            let heads = runs::table(dir, "heads.parquet")?.into_iter().collect();
            let (model, parameters) = (record.model.name, record.model.parameters);
            checkpoints.push((key, Checkpoint { model, parameters, heads, behaviour: None }));
        } else if record.command == OF_BEHAVIOUR {
            behaviours.push((key, dir));
        } else {
            return Err(CliError::Input(format!(
                "{}: is a run of `{}`; give runs of `screen` or `interchange`, and of `behaviour`",
                dir.display(),
                record.command
            )));
        }
    }
    if checkpoints.len() < 2 {
        return Err(CliError::NotAskable(format!(
            "{} run of `screen` or `interchange` was given; a comparison needs two checkpoints",
            checkpoints.len()
        )));
    }
    for (key, dir) in behaviours {
        let tables = runs::tables(dir)?;
        // Runs of one checkpoint by different flags each get its behaviour.
        for (_, checkpoint) in checkpoints.iter_mut().filter(|(of, _)| *of == key) {
            checkpoint.behaviour = Some(tables.clone());
        }
    }
    Ok(checkpoints.into_iter().map(|(_, checkpoint)| checkpoint).collect())
}

/// Checks that a run exchanged heads in both directions; gives the position.
fn of_heads(dir: &Path, record: &RunRecord) -> Result<String, CliError> {
    let flag = |name: &str| record.parameters.get(name).and_then(Value::as_str);
    let bad = |why: String| CliError::Input(format!("{}: {why}", dir.display()));
    if let Some(site) = flag("site").filter(|site| *site != "z") {
        return Err(bad(format!("is a run with --site {site}; heads are compared: run it with --site z")));
    }
    if let Some(direction) = flag("direction") {
        let why = "heads that carry a behaviour are told by both directions: run it without --direction";
        return Err(bad(format!("is a run with --direction {direction}; {why}")));
    }
    Ok(flag("position").unwrap_or("last").to_string())
}

/// Writes a comparison's tables, each name with a prefix.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn write_tables(directory: &RunDir, tables: &[Table], prefix: &str) -> Result<(), CliError> {
    for table in tables {
        directory.write_atomic(&format!("{prefix}{}.parquet", table.name()), &table.to_parquet()?)?;
    }
    Ok(())
}

/// Draws a comparison's figures, each name with a prefix, and returns the report's sections.
///
/// # Errors
/// If a table is not one of a comparison, or a file cannot be written.
pub(super) fn sections(directory: &RunDir, tables: &[Table], prefix: &str) -> Result<Vec<Section>, CliError> {
    let figures = compare::figures(tables)?;
    write_figures(directory, figures.into_iter().map(|(name, f)| (format!("{prefix}{name}"), f)).collect())?;
    let sections = compare::sections(tables, directory.folder())?;
    Ok(sections.into_iter().map(|section| combine::placed(section, prefix)).collect())
}
