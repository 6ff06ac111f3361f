//! `gatelens report`: one report over several run directories, from their tables alone.
//!
//! The report of an experiment is made here too, when it is run and when it is made again: what is said of it as a whole
//! is [`super::overall`]'s.

use super::analysis::{command_line, writer};
use super::overall::Overall;
use super::runs::{self, Source};
use super::{CliError, say};
use crate::figure::Figure;
use crate::report::cells::count;
use crate::report::{Block, Heading, Report, Section, latex};
use crate::rundir::RunDir;
use crate::study::document::{document, write_report};
use crate::study::write_figures;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The arguments of `report`.
#[derive(clap::Args)]
pub(super) struct Combine {
    /// The run directories, of analyses or of experiments (`run`, `policy`, `demo`)
    #[arg(value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,

    /// Write the report to this directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Give the report this title (default: the experiment's, if it is over one)
    #[arg(long)]
    title: Option<String>,

    /// Replace the directory if it exists
    #[arg(long)]
    force: bool,
}

impl Combine {
    pub(super) fn run(&self, words: &[String]) -> Result<(), CliError> {
        let sources = self.runs.iter().map(|dir| Source::open(dir)).collect::<Result<Vec<_>, _>>()?;
        let all: Vec<PathBuf> = sources.iter().flat_map(|source| source.runs.clone()).collect();
        // Read once before anything is made, so that what is wrong with one leaves nothing behind.
        for run in &all {
            writer(&runs::record(run)?.command)?;
            runs::tables(run)?;
        }
        runs::keep_apart(&self.out, &[&self.runs[..], &all].concat())?;
        // All of it is made anew each time: without a claim, what a stopped one left is none to go on with.
        let directory = RunDir::create(&self.out, self.force, false)?;
        let head = self.head(&sources, &directory)?;
        let line = command_line(words);
        write(&directory, &all, head, &line)?;
        runs::write_record(&directory, "report", &line, Map::new())?;
        say(&format!("{}: report.html, report.md, tables.tex", directory.finish()?.display()))
    }

    /// What the experiments among the sources say as a whole.
    fn head(&self, sources: &[Source], directory: &RunDir) -> Result<Head, CliError> {
        let alone = sources.len() == 1;
        let own = sources.first().and_then(|source| source.text("title")).filter(|_| alone);
        let mut head = Head { title: self.title.clone().or(own.map(str::to_string)), ..Head::default() };
        for (number, source) in sources.iter().enumerate().filter(|(_, source)| source.is_experiment()) {
            let before = sources[..number].iter().map(|earlier| earlier.runs.len()).sum();
            let texts = source.record.get("intro").and_then(Value::as_array);
            head.intro.extend(texts.into_iter().flatten().filter_map(Value::as_str).map(str::to_string));
            let name = source.dir.file_name().map_or(number.to_string(), |name| name.to_string_lossy().into_owned());
            let left_out = source.record.get("left_out").and_then(Value::as_object);
            let called = |entry: &String| if alone { entry.clone() } else { format!("{name}/{entry}") };
            let left_out = left_out.into_iter().flatten();
            head.left_out.extend(left_out.filter_map(|(entry, why)| Some((called(entry), why.as_str()?.to_string()))));
            let name = (!alone).then(|| prefix(number, &name));
            let overall = Overall { dir: &source.dir, runs: &source.runs, before, name: name.as_deref() };
            head.sections.extend(overall.sections(directory)?);
        }
        Ok(head)
    }
}

/// What a report over runs begins with.
#[derive(Default)]
pub(super) struct Head {
    pub(super) title: Option<String>,
    pub(super) intro: Vec<String>,
    /// Sections that stand before those of the runs.
    pub(super) sections: Vec<Section>,
    /// What could not be run, and why.
    pub(super) left_out: BTreeMap<String, String>,
}

/// Writes figures, report and LaTeX tables over run directories.
///
/// # Errors
/// If a run directory is not whole, or a file cannot be written.
pub(super) fn write(directory: &RunDir, runs: &[PathBuf], head: Head, command_line: &str) -> Result<(), CliError> {
    let mut report = Report::new(head.title.as_deref().unwrap_or("Report"));
    report.intro.push(Block::Code(command_line.to_string()));
    report.intro.extend(head.intro.into_iter().map(Block::Paragraph));
    let mut overview = Vec::new();
    let mut sections = Vec::new();
    for (i, dir) in runs.iter().enumerate() {
        let (record, tables) = (runs::record(dir)?, runs::tables(dir)?);
        let writer = writer(&record.command)?;
        let name = dir.file_name().map_or(i.to_string(), |n| n.to_string_lossy().into_owned());
        let prefix = prefix(i, &name);
        let figures: Vec<(String, Figure)> = (writer.from_tables.figures)(&tables)?;
        write_figures(directory, figures.into_iter().map(|(n, f)| (format!("{prefix}-{n}"), f)).collect())?;
        let part = document(writer, &record, &tables, directory.folder())?;
        let model = crate::names::short_name(&record.model.name);
        let numbers = [record.prompts, record.forks].map(|n| count(n as i64));
        overview.push([vec![name.clone(), writer.title.to_string(), model.clone()], numbers.to_vec()].concat());
        let mut first = Section::new(format!("{} of {model} ({name})", writer.title));
        first.blocks = part.intro;
        sections.push(first);
        sections.extend(part.sections.into_iter().map(|section| {
            let heading = format!("{name}: {}", section.heading);
            placed(Section { heading, ..section }, &format!("{prefix}-"))
        }));
    }
    let overview = what_was_run(overview, head.left_out, &head.sections);
    report.sections = head.sections;
    report.sections.push(overview);
    report.sections.extend(sections);
    directory.write_atomic("tables.tex", latex::render(&report).as_bytes())?;
    Ok(write_report(directory, &report)?)
}

/// The runs, and what could not be run for which reason. A reason is said once, and not again if a section before has said it.
fn what_was_run(rows: Vec<Vec<String>>, left_out: BTreeMap<String, String>, before: &[Section]) -> Section {
    let header = vec![
        Heading::text("run"),
        Heading::text("analysis"),
        Heading::text("model"),
        Heading::number("passes over prompts"),
        Heading::number("edited runs"),
    ];
    let section = Section::new("Overview").table("What was run", header, rows);
    if left_out.is_empty() {
        return section;
    }
    let mut by_reason: Vec<(String, String)> = Vec::new();
    for (entry, why) in left_out {
        match by_reason.iter_mut().find(|(_, said)| *said == why) {
            Some((entries, _)) => *entries += &format!(", {entry}"),
            None => by_reason.push((entry, why)),
        }
    }
    for (_, why) in &mut by_reason {
        let says = |block: &Block| matches!(block, Block::Paragraph(text) if text.contains(why.as_str()));
        if let Some(place) = before.iter().find(|section| section.blocks.iter().any(says)) {
            *why = format!("as said under \u{201c}{}\u{201d}", place.heading);
        }
    }
    section.paragraph("Left out, and why:").block(Block::KeyValues(by_reason))
}

/// What the names of a run's figures begin with, by its number in the report.
pub(super) fn prefix(i: usize, name: &str) -> String {
    format!("{:02}-{name}", i + 1)
}

/// A section with its figures where they were drawn: with a prefix before their names.
pub(super) fn placed(mut section: Section, prefix: &str) -> Section {
    for block in &mut section.blocks {
        if let Block::Figure(figure) = block
            && let Some(file) = figure.path.file_name()
        {
            figure.path = figure.path.with_file_name(format!("{prefix}{}", file.to_string_lossy()));
        }
    }
    section
}
