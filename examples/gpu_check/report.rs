//! What stages found, as JSON and as a Markdown table.

use crate::Failed;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// One thing that a stage found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    pub what: String,
    /// None where what was found is a text.
    pub value: Option<f64>,
    /// The value's unit, or the text.
    pub unit: String,
    /// Of the most that the card's maker promises.
    pub share: Option<f64>,
}

impl Finding {
    pub fn number(what: impl Into<String>, value: f64, unit: impl Into<String>) -> Finding {
        Finding { what: what.into(), value: Some(value), unit: unit.into(), share: None }
    }

    pub fn text(what: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding { what: what.into(), value: None, unit: text.into(), share: None }
    }

    /// The same with its share of the most that it could be, in its own unit, where that is known.
    pub fn of(self, most: Option<f64>) -> Finding {
        let share = self.value.zip(most).map(|(value, most)| value / most);
        Finding { share, ..self }
    }

    /// Prints it for the process that gathers findings.
    pub fn say(&self) -> Result<(), Failed> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Passed,
    Failed,
    /// It was stopped at its limit, or was not begun.
    OutOfTime,
}

/// What became of a stage.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub stage: String,
    pub status: Status,
    pub seconds: f64,
    pub limit_s: f64,
    pub error: Option<String>,
    pub findings: Vec<Finding>,
}

impl Outcome {
    /// How it ended, in a line.
    pub fn line(&self) -> String {
        let seconds = self.seconds;
        match self.status {
            Status::Passed => format!("passed in {seconds:.1} s"),
            _ => format!("FAILED after {seconds:.1} s: {}", self.error.as_deref().unwrap_or_default()),
        }
    }
}

/// What became of all stages.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub gatelens: &'static str,
    pub device: String,
    /// Seconds since 1970.
    pub begun: u64,
    pub seconds: f64,
    pub stages: Vec<Outcome>,
}

impl Report {
    pub fn new(device: &str) -> Report {
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (gatelens, device) = (env!("CARGO_PKG_VERSION"), device.to_string());
        Report { gatelens, device, begun, seconds: 0.0, stages: Vec::new() }
    }

    pub fn passed(&self) -> bool {
        self.stages.iter().all(|stage| stage.status == Status::Passed)
    }

    pub fn write(&self, path: &Path) -> Result<(), Failed> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .map_err(|e| format!("{}: {e}", path.display()).into())
    }

    /// The Markdown table.
    pub fn table(&self) -> String {
        let mut lines = vec!["| Stage | What | Found | Of the card's |".to_string(), "|---|---|---|---|".to_string()];
        for stage in &self.stages {
            lines.push(format!("| **{}** | {} | | |", stage.stage, cell(&stage.line())));
            for finding in &stage.findings {
                let found = match finding.value {
                    Some(value) => format!("{} {}", figures(value), finding.unit),
                    None => finding.unit.clone(),
                };
                let share = finding.share.map_or(String::new(), |share| format!("{:.0} %", 100.0 * share));
                lines.push(format!("| | {} | {} | {share} |", cell(&finding.what), cell(&found)));
            }
        }
        lines.join("\n")
    }
}

/// A text that fits a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// A number with three figures or so.
fn figures(x: f64) -> String {
    match x.abs() {
        size if size == 0.0 || size >= 100.0 => format!("{x:.0}"),
        size if size >= 10.0 => format!("{x:.1}"),
        size if size >= 1.0 => format!("{x:.2}"),
        size if size >= 0.01 => format!("{x:.3}"),
        _ => format!("{x:.1e}"),
    }
}
