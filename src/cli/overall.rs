//! What is said of an experiment as a whole, from the tables that it left beside its parts: the verdicts on the claims that
//! it was run for, and the comparison of its models.

use super::runs;
use super::{CliError, combine, compare};
use crate::analyses::routing::claims::{self, ClaimRow};
use crate::report::Section;
use crate::rundir::RunDir;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the names of a comparison's tables and figures begin with, in an experiment's folder.
pub(super) const COMPARED: &str = "compare-";
/// The table of verdicts.
pub(super) const CLAIMS: &str = "claims.parquet";

/// An experiment as part of a report.
pub(super) struct Overall<'a> {
    /// Its folder.
    pub(super) dir: &'a Path,
    /// The run directories of its parts.
    pub(super) runs: &'a [PathBuf],
    /// How many runs stand before its own in the report.
    pub(super) before: usize,
    /// What it is called, where the report is over others too.
    pub(super) name: Option<&'a str>,
}

impl Overall<'_> {
    /// The sections on it as a whole; their own figures are drawn into the report's directory.
    ///
    /// # Errors
    /// If a table is not one of its kind, or a figure cannot be written.
    pub(super) fn sections(&self, directory: &RunDir) -> Result<Vec<Section>, CliError> {
        let mut sections = Vec::new();
        if let Some(table) = runs::table(self.dir, CLAIMS)? {
            let model = table.column(ClaimRow::model)?.first().map_or(String::new(), |model| (*model).to_string());
            sections.extend(claims::sections(&table, &self.figures(&model, directory.folder())?)?);
        }
        let names = compare::TABLES.map(|name| format!("{COMPARED}{name}.parquet"));
        let tables = names.iter().filter_map(|file| runs::table(self.dir, file).transpose());
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        if tables.len() == names.len() {
            let prefix = self.name.map_or(COMPARED.to_string(), |name| format!("{name}-{COMPARED}"));
            sections.extend(compare::sections(directory, &tables, &prefix)?);
        }
        if let Some(steps) = runs::table(self.dir, &format!("{COMPARED}{}.parquet", compare::STEPS))? {
            let prefix = self.name.map_or(COMPARED.to_string(), |name| format!("{name}-{COMPARED}"));
            sections.extend(compare::steps_sections(directory, &steps, &prefix)?);
        }
        if let Some(name) = self.name {
            sections.iter_mut().for_each(|section| section.heading = format!("{name}: {}", section.heading));
        }
        Ok(sections)
    }

    /// Where the report's figures of a model's analyses are drawn: beside the report, with the run's number and name before
    /// theirs.
    fn figures(&self, model: &str, folder: &Path) -> Result<BTreeMap<String, PathBuf>, CliError> {
        let mut places = BTreeMap::new();
        for (number, run) in self.runs.iter().enumerate() {
            let record = runs::record(run)?;
            if record.model.name == model {
                let name = run.file_name().unwrap_or_default().to_string_lossy();
                places.insert(record.command, folder.join(combine::prefix(self.before + number, &name)));
            }
        }
        Ok(places)
    }
}
