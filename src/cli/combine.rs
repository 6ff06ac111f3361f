//! `gatelens report`: one report over several run directories, from their tables alone.

use super::analysis::{command_line, write_figures, writer};
use super::document::{document, write_report};
use super::{CliError, say};
use crate::figure::Figure;
use crate::report::{Block, Heading, Report, Section, latex};
use crate::rundir::{RUN_FILE, RunDir, RunRecord};
use crate::table::Table;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The arguments of `report`.
#[derive(clap::Args)]
pub(super) struct Combine {
    /// Run directories: of analyses, or of `gatelens run`
    #[arg(value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,

    /// The directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// The report's title
    #[arg(long)]
    title: Option<String>,

    /// Replace the directory if it exists
    #[arg(long)]
    force: bool,
}

/// A run directory, read back.
pub(super) struct Run {
    pub(super) record: RunRecord,
    pub(super) tables: Vec<Table>,
}

impl Combine {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let runs: Vec<PathBuf> = self.runs.iter().map(|dir| expand(dir)).collect::<Result<Vec<_>, _>>()?.concat();
        // Read once before anything is made, so that what is wrong with one leaves nothing behind.
        for run in &runs {
            writer(&read(run)?.record.command)?;
        }
        let directory = RunDir::create(&self.out, self.force, false)?;
        let shown: Vec<String> = self.runs.iter().map(|r| r.display().to_string()).collect();
        let mut words = vec!["report".to_string()];
        words.extend(shown.iter().cloned().chain(["--out".to_string(), self.out.display().to_string()]));
        let command_line = command_line(&words);
        directory.claim(&Map::from_iter([("runs".to_string(), Value::from(shown))]))?;
        let head = Head { title: self.title.as_deref(), ..Head::default() };
        write(&directory, &runs, head, &command_line)?;
        let record = serde_json::json!({
            "command": "report",
            "command_line": command_line,
            "version": env!("CARGO_PKG_VERSION"),
        });
        let json = serde_json::to_vec_pretty(&record).map_err(|e| CliError::Failed(e.to_string()))?;
        directory.write_atomic(RUN_FILE, &json)?;
        say(&format!("{}: report.html, report.md, tables.tex", directory.finish()?.display()))
    }
}

/// The run directories that a directory stands for: itself, or those of an experiment.
pub(super) fn expand(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let path = dir.join(RUN_FILE);
    let bad = |why: String| CliError::Input(format!("{}: {why}", path.display()));
    let text = std::fs::read(&path).map_err(|e| bad(format!("cannot be read: {e}; give run directories")))?;
    let value: Value = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    match value.get("runs").and_then(Value::as_array) {
        None => Ok(vec![dir.to_path_buf()]),
        Some(runs) => Ok(runs.iter().filter_map(Value::as_str).map(|name| dir.join(name)).collect()),
    }
}

/// What a report over runs begins with.
#[derive(Default)]
pub(super) struct Head<'a> {
    pub(super) title: Option<&'a str>,
    pub(super) intro: Vec<String>,
    /// Sections that stand before those of the runs.
    pub(super) sections: Vec<Section>,
}

/// Writes figures, report and LaTeX tables over run directories.
///
/// # Errors
/// If a run directory is not whole, or a file cannot be written.
pub(super) fn write(directory: &RunDir, runs: &[PathBuf], head: Head, command_line: &str) -> Result<(), CliError> {
    let mut report = Report::new(head.title.unwrap_or("Report"));
    report.intro.push(Block::Code(command_line.to_string()));
    report.intro.extend(head.intro.into_iter().map(Block::Paragraph));
    let mut overview = Vec::new();
    let mut sections = Vec::new();
    for (i, dir) in runs.iter().enumerate() {
        let run = read(dir)?;
        let writer = writer(&run.record.command)?;
        let name = dir.file_name().map_or(i.to_string(), |n| n.to_string_lossy().into_owned());
        let prefix = prefix(i, &name);
        let figures: Vec<(String, Figure)> = (writer.figures)(&run.tables)?;
        write_figures(directory, figures.into_iter().map(|(n, f)| (format!("{prefix}-{n}"), f)).collect())?;
        let part = document(writer, &run.record, &run.tables, directory.folder())?;
        let model = crate::names::short_name(&run.record.model.name);
        let (prompts, forks) = (run.record.prompts.to_string(), run.record.forks.to_string());
        overview.push(vec![name.clone(), writer.title.to_string(), model.clone(), prompts, forks]);
        let mut first = Section::new(format!("{} of {model} ({name})", writer.title));
        first.blocks = part.intro;
        sections.push(first);
        sections.extend(part.sections.into_iter().map(|section| placed(section, &prefix, &name)));
    }
    let header = vec![
        Heading::text("run"),
        Heading::text("analysis"),
        Heading::text("model"),
        Heading::number("prompts"),
        Heading::number("forks"),
    ];
    report.sections = head.sections;
    report.sections.push(Section::new("Overview").table("What was run", header, overview));
    report.sections.extend(sections);
    directory.write_atomic("tables.tex", latex::render(&report).as_bytes())?;
    write_report(directory, &report)
}

/// What the names of a run's figures begin with, by its number in the report.
pub(super) fn prefix(i: usize, name: &str) -> String {
    format!("{:02}-{name}", i + 1)
}

/// A section with its figures where they were drawn, and a heading that says of which run it is.
fn placed(mut section: Section, prefix: &str, name: &str) -> Section {
    section.heading = format!("{name}: {}", section.heading);
    for block in &mut section.blocks {
        if let Block::Figure(figure) = block
            && let Some(file) = figure.path.file_name()
        {
            figure.path = figure.path.with_file_name(format!("{prefix}-{}", file.to_string_lossy()));
        }
    }
    section
}

/// Reads a run directory's record and all its tables.
///
/// # Errors
/// If it is not whole.
pub(super) fn read(dir: &Path) -> Result<Run, CliError> {
    let path = dir.join(RUN_FILE);
    let bad = |path: &Path, why: String| CliError::Input(format!("{}: {why}", path.display()));
    let text = std::fs::read(&path).map_err(|e| bad(&path, format!("cannot be read: {e}; give run directories")))?;
    let record: RunRecord = serde_json::from_slice(&text).map_err(|e| bad(&path, e.to_string()))?;
    let entries = std::fs::read_dir(dir).map_err(|e| bad(dir, e.to_string()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "parquet"));
    files.sort();
    let tables = files.iter().map(Table::read_parquet).collect::<Result<Vec<_>, _>>()?;
    Ok(Run { record, tables })
}
