//! `gatelens compare`: where the circuit sits in several checkpoints, from their run directories alone.

use super::analysis::command_line;
use super::runs::{self, Source};
use super::{CliError, combine, say};
use crate::analyses::behaviour::{AnswerRow, RateRow};
use crate::analyses::checkpoints::paths::step_of;
use crate::analyses::compare::steps::{self, AtStep, FOLLOWED, StepRow};
use crate::analyses::compare::{self, Behaviour, Checkpoint, CheckpointRow, HeadRow, OverlapRow, PairSet};
use crate::analyses::interchange::Row;
use crate::report::{Block, Report, Section, latex};
use crate::rundir::{RunDir, RunRecord};
use crate::study::document::write_report;
use crate::study::write_figures;
use crate::table::Table;
use crate::table::rows::{Column, Row as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The arguments of `compare`.
#[derive(clap::Args)]
pub(super) struct Compare {
    /// The run directories of `screen` or `interchange`, one per checkpoint
    ///
    /// Run directories of `behaviour` on the same models are joined to them. Of checkpoints of one training, runs of `edges`, `circuit`
    /// and `lens` are followed over its steps too, with or without those.
    #[arg(value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,

    /// Write the comparison to this directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Compare runs over different pairs all the same, and say so in the report
    #[arg(long)]
    different_pairs: bool,

    /// Take the checkpoints' training steps from this file, JSON Lines: {"model", "step"} (default: the numbers that their names end with)
    #[arg(long, value_name = "FILE")]
    steps: Option<PathBuf>,

    /// Replace the directory if it exists
    #[arg(long)]
    force: bool,
}

impl Compare {
    pub(super) fn run(&self, words: &[String]) -> Result<(), CliError> {
        let sources = self.runs.iter().map(|dir| Source::open(dir)).collect::<Result<Vec<_>, _>>()?;
        let of_sources = |kept| -> Result<Vec<PathBuf>, CliError> {
            Ok(sources.iter().map(|source| of_source(source, kept)).collect::<Result<Vec<_>, _>>()?.concat())
        };
        let runs = of_sources(|command| is_compared(command) || is_followed(command))?;
        let known = self.steps.as_deref().map(StepsFile::read).transpose()?;
        let followed = followed(&runs, known.as_ref())?;
        // Where nothing is followed, a run that was named and cannot be compared is an error.
        let compared = match followed.is_empty() {
            true => of_sources(is_compared)?,
            false => of_commands(&runs, is_compared)?,
        };
        let (checkpoints, tables) = match compared.is_empty() && !followed.is_empty() {
            true => (Vec::new(), Vec::new()),
            false => {
                let checkpoints = checkpoints(&compared, self.different_pairs)?;
                let tables = compare::tables(&checkpoints)?;
                (checkpoints, tables)
            }
        };
        let steps = (!followed.is_empty()).then(|| steps::table(&followed, 0)).transpose()?;
        runs::keep_apart(&self.out, &[&self.runs[..], &runs].concat())?;
        // All of it is made anew each time: without a claim, what a stopped one left is none to go on with.
        let directory = RunDir::create(&self.out, self.force, false)?;
        let line = command_line(words);
        write_tables(&directory, &tables, "")?;
        write_tables(&directory, steps.as_slice(), "")?;
        let mut report = Report::new("Comparison of checkpoints");
        report.intro.push(Block::Code(line.clone()));
        if !tables.is_empty() {
            report.sections = sections(&directory, &tables, "")?;
        }
        if let Some(steps) = &steps {
            report.sections.extend(steps_sections(&directory, steps, "")?);
        }
        directory.write_atomic("tables.tex", latex::render(&report).as_bytes())?;
        write_report(&directory, &report)?;
        let record =
            [("different_pairs", json!(self.different_pairs)), ("pairs", checkpoints.iter().map(pairs).collect())];
        runs::write_record(
            &directory,
            "compare",
            &line,
            record.into_iter().map(|(k, v)| (k.to_string(), v)).collect(),
        )?;
        let out = directory.finish()?;
        let names: Vec<String> = tables.iter().chain(&steps).map(|table| format!("{}.parquet", table.name())).collect();
        say(&format!("{}: report.html, {}", out.display(), names.join(", ")))
    }
}

/// The tables of a comparison.
pub(super) const TABLES: [&str; 3] = [CheckpointRow::TABLE, OverlapRow::TABLE, HeadRow::TABLE];

/// The commands whose runs show which heads carry a behaviour.
pub(super) const OF_HEADS: [&str; 2] = ["screen", "interchange"];

/// The command whose runs are joined to those.
pub(super) const OF_BEHAVIOUR: &str = "behaviour";

/// The table of what is followed over steps.
pub(super) const STEPS: &str = StepRow::TABLE;

/// Whether runs of a command can be followed over the steps of a training.
pub(super) fn is_followed(command: &str) -> bool {
    FOLLOWED.iter().any(|(known, _)| *known == command)
}

/// The steps of models, as a file gives them.
pub(super) struct StepsFile(BTreeMap<String, f64>);

/// A line of it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct StepLine {
    model: String,
    step: f64,
}

impl StepsFile {
    fn read(path: &Path) -> Result<StepsFile, CliError> {
        let bad = |why: String| CliError::Input(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| bad(format!("cannot be read: {e}; check the path")))?;
        let mut steps = BTreeMap::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line: StepLine = serde_json::from_str(line)
                .map_err(|e| bad(format!("line {}: {e}; write {{\"model\": NAME, \"step\": NUMBER}}", i + 1)))?;
            if steps.insert(line.model.clone(), line.step).is_some() {
                return Err(bad(format!("line {}: `{}` stands there twice", i + 1, line.model)));
            }
        }
        Ok(StepsFile(steps))
    }
}

/// Runs of the checkpoints of one training, which are followed over its steps: none where fewer than two steps are known.
///
/// # Errors
/// If a run cannot be read, a file gives no step for a model, or two runs are of one command on one model.
pub(super) fn followed(runs: &[PathBuf], known: Option<&StepsFile>) -> Result<Vec<AtStep>, CliError> {
    let mut found: Vec<AtStep> = Vec::new();
    for dir in runs {
        let record = runs::record(dir)?;
        let Some((_, names)) = FOLLOWED.iter().find(|(command, _)| *command == record.command) else { continue };
        let model = record.model.name;
        let step = match known {
            None => step_of(&model).map(|step| step as f64),
            Some(StepsFile(steps)) => Some(*steps.get(&model).ok_or_else(|| {
                CliError::Input(format!("{}: is a run of `{model}`, whose step --steps does not give", dir.display()))
            })?),
        };
        let Some(step) = step else { continue };
        if found.iter().any(|other| other.command == record.command && other.model == model) {
            if known.is_none() {
                // Whether it is a training was only guessed at by names.
                return Ok(Vec::new());
            }
            return Err(CliError::Input(format!(
                "{}: is the second run of `{}` on `{model}`; give one for each checkpoint",
                dir.display(),
                record.command
            )));
        }
        let mut tables = BTreeMap::new();
        for (i, name) in names.iter().enumerate() {
            match runs::table(dir, &format!("{name}.parquet"))? {
                Some(table) => drop(tables.insert((*name).to_string(), table)),
                None if i == 0 => return needed(dir, name).map(|_| Vec::new()),
                None => {}
            }
        }
        found.push(AtStep { model, step, command: record.command, tables });
    }
    let mut steps: Vec<f64> = found.iter().map(|run| run.step).collect();
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    if steps.len() < 2 {
        found.clear();
    }
    Ok(found)
}

/// Draws the figures over steps, each name with a prefix, and returns the report's sections.
///
/// # Errors
/// As [`sections`].
pub(super) fn steps_sections(directory: &RunDir, steps: &Table, prefix: &str) -> Result<Vec<Section>, CliError> {
    let figures = steps::figures(steps)?;
    write_figures(directory, figures.into_iter().map(|(name, f)| (format!("{prefix}{name}"), f)).collect())?;
    let sections = steps::sections(steps, directory.folder())?;
    Ok(sections.into_iter().map(|section| combine::placed(section, prefix)).collect())
}

/// Whether runs of a command are compared, head by head or by what they refuse.
fn is_compared(command: &str) -> bool {
    command == OF_BEHAVIOUR || OF_HEADS.contains(&command)
}

/// A run directory; of a whole experiment, those of its parts whose commands are kept.
fn of_source(source: &Source, kept: fn(&str) -> bool) -> Result<Vec<PathBuf>, CliError> {
    if source.is_experiment() { of_commands(&source.runs, kept) } else { Ok(source.runs.clone()) }
}

/// Of runs, those whose commands are kept.
fn of_commands(runs: &[PathBuf], kept: fn(&str) -> bool) -> Result<Vec<PathBuf>, CliError> {
    let mut found = Vec::new();
    for run in runs {
        if kept(&runs::record(run)?.command) {
            found.push(run.clone());
        }
    }
    Ok(found)
}

/// Reads runs as checkpoints: a screen or interchange each, with the behaviour of the same weights where there is one.
/// `different_pairs` lets them be over different pairs.
///
/// # Errors
/// If a run directory is not whole, is of another command or of other flags than the rest, or fewer than two checkpoints
/// are there; or if the runs are not over the same pairs.
pub(super) fn checkpoints(runs: &[PathBuf], different_pairs: bool) -> Result<Vec<Checkpoint>, CliError> {
    // Two sets of weights of one shape have one checksum of their headers: the name counts too.
    type Of<T> = ((String, String), T);
    let mut checkpoints: Vec<Of<Checkpoint>> = Vec::new();
    let mut behaviours: Vec<Of<Behaviour>> = Vec::new();
    let mut sets: Vec<(&Path, PairSet)> = Vec::new();
    let mut first: Option<(&Path, String)> = None;
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
            let checkpoint = checkpoint(dir, record)?;
            sets.push((dir, checkpoint.pairs.clone()));
            checkpoints.push((key, checkpoint));
        } else if record.command == OF_BEHAVIOUR {
            let behaviour = behaviour(dir, &record)?;
            sets.push((dir, behaviour.pairs.clone()));
            behaviours.push((key, behaviour));
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
fn checkpoint(dir: &Path, record: RunRecord) -> Result<Checkpoint, CliError> {
    let heads = needed(dir, Row::TABLE)?;
    let pairs = pair_set(&record, &heads, Row::n)?;
    let crate::rundir::ModelRecord { name: model, sha256, parameters, .. } = record.model;
    Ok(Checkpoint { model, sha256, parameters, pairs, heads, behaviour: None })
}

/// What is compared of a run of behaviour. Single answers may have been left out of what was handed on.
fn behaviour(dir: &Path, record: &RunRecord) -> Result<Behaviour, CliError> {
    let (rates, answers) = (needed(dir, RateRow::TABLE)?, runs::table(dir, &format!("{}.parquet", AnswerRow::TABLE))?);
    Ok(Behaviour { pairs: pair_set(record, &rates, RateRow::n)?, rates, answers })
}

/// A table of a run that must be there.
fn needed(dir: &Path, name: &str) -> Result<Table, CliError> {
    let missing = || CliError::Input(format!("{}: the table {name}.parquet is missing", dir.display()));
    runs::table(dir, &format!("{name}.parquet"))?.ok_or_else(missing)
}

/// The pairs that a run was over, so many of a file's. Not all rows of a table need be over all of them.
fn pair_set(record: &RunRecord, table: &Table, n: Column<i64>) -> Result<PairSet, CliError> {
    let file = record.parameters.get("pairs").and_then(Value::as_str).unwrap_or_default().to_string();
    let sha256 = record.dataset_sha256.get(&file).cloned().unwrap_or_default();
    Ok(PairSet { file, sha256, n: table.column(n)?.iter().copied().max().unwrap_or(0) })
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
    if record.parameters.get("by_span").and_then(Value::as_bool).unwrap_or_default() {
        return Err(bad(
            "is a run with --by-span; heads are compared at one position: run it with --position".to_string()
        ));
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
