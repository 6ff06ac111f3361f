//! The report of a run directory, from its record and its tables alone.

use super::rundir::{RunDir, RunRecord};
use super::{StudyError, described};
use crate::analyses::Writer;
use crate::report::cells::{count, plural};
use crate::report::{self, Block, Report, Section};
use crate::table::Table;
use serde_json::Value;
use std::path::Path;

/// An analysis' report; its figures stand in `folder`.
///
/// # Errors
/// If a table lacks what the report says.
pub(crate) fn document(
    writer: &Writer,
    record: &RunRecord,
    tables: &[Table],
    folder: &Path,
) -> Result<Report, StudyError> {
    let mut report = Report::new(writer.title).paragraph(format!(
        "`{}` ({}, {}), {}{} by the {} engine.",
        record.model.name,
        record.model.architecture,
        plural(record.model.parameters as i64, "parameter"),
        match record.prompts {
            1 => "1 pass over a prompt".to_string(),
            n => format!("{} passes over prompts", count(n as i64)),
        },
        match record.forks {
            0 => String::new(),
            forks => format!(" and {}", plural(forks as i64, "edited run")),
        },
        record.engine
    ));
    report.intro.insert(0, Block::Code(record.command_line.clone()));
    report.sections.extend(record.measured.as_ref().map(described::section));
    report.sections.extend((writer.from_tables.sections)(tables, folder)?);
    report.sections.push(provenance(record));
    Ok(report)
}

/// Writes a report in all its forms.
///
/// # Errors
/// If a figure is missing, or a file cannot be written.
pub(crate) fn write_report(directory: &RunDir, report: &Report) -> Result<(), StudyError> {
    directory.write_atomic("report.md", report::markdown::render(report).as_bytes())?;
    directory.write_atomic("report.html", report::html::render(report)?.as_bytes())?;
    Ok(())
}

/// How the run was made, for the report's end. Times stand in `run.json` alone, so that a report made again is the same.
fn provenance(record: &RunRecord) -> Section {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    let mut values: Vec<(String, String)> = record.parameters.iter().map(|(k, v)| (k.clone(), text(v))).collect();
    values.extend(record.dataset_sha256.iter().map(|(path, sha)| (format!("SHA-256 of {path}"), sha.clone())));
    values.push(("gatelens".to_string(), record.version.clone()));
    Section::new("How this was made").block(Block::KeyValues(values))
}
