//! `gatelens rerun`: runs what a run directory records once more, and says what came out otherwise.
//!
//! The record names the whole command with its seed; the checksums of the files it read say early whether they are still the
//! same. On the same machine and version every table must come out as it was, byte for byte.

use super::{CliError, combine, say};
use crate::analyses::inputs::read_input;
use crate::rundir::{PARAMS_FILE, RUN_FILE};
use crate::table::{Kind, Table};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The arguments of `rerun`.
#[derive(clap::Args)]
pub(super) struct Rerun {
    /// A run directory. Its command is run from the current folder, as it was
    dir: PathBuf,

    /// The directory to write (default: DIR.rerun)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Replace the directory if it exists
    #[arg(long)]
    force: bool,

    /// Go on with an unfinished rerun, or start, where there is none
    #[arg(long)]
    resume: bool,
}

/// What stands in a run directory whatever came out: the command with the place it writes to, and its times.
const OF_THE_COMMAND: [&str; 5] = ["report.md", "report.html", "tables.tex", PARAMS_FILE, RUN_FILE];

impl Rerun {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let record = read_json(&self.dir.join(RUN_FILE))?;
        let out = self.out()?;
        let mut words = self.words(&record, &out)?;
        words.extend([("--force", self.force), ("--resume", self.resume)].iter().filter(|f| f.1).map(|f| f.0.into()));
        let mut notes = changed(&combine::expand(&self.dir)?)?;
        let version = record.get("version").and_then(Value::as_str).unwrap_or("unknown");
        if version != env!("CARGO_PKG_VERSION") {
            notes.push(format!("it was made by gatelens {version}, this is {}", env!("CARGO_PKG_VERSION")));
        }
        for note in &notes {
            // Nowhere is left to say it if standard error is gone too.
            let _ = writeln!(std::io::stderr(), "note: {note}");
        }
        let program = std::env::current_exe().map_err(|e| CliError::Failed(format!("gatelens itself: {e}")))?;
        let status = std::process::Command::new(program).args(&words).status();
        let status = status.map_err(|e| CliError::Failed(format!("gatelens could not be started again: {e}")))?;
        if !status.success() {
            let code = status.code().map_or_else(|| status.to_string(), |code| format!("code {code}"));
            return Err(CliError::Failed(format!("the command of {} ended with {code}", self.dir.display())));
        }
        let (same, differences) = compare(&self.dir, &out)?;
        let (old, new) = (self.dir.display(), out.display());
        if differences.is_empty() {
            return say(&format!("{new}: {same} files, byte for byte those of {old}"));
        }
        say(&differences.join("\n"))?;
        let all = same + differences.len();
        Err(CliError::Failed(format!("{} of {all} files of {new} are not those of {old}", differences.len())))
    }

    fn out(&self) -> Result<PathBuf, CliError> {
        if let Some(out) = &self.out {
            return Ok(out.clone());
        }
        let name = self.dir.file_name().map(|name| format!("{}.rerun", name.to_string_lossy()));
        name.map(|name| self.dir.with_file_name(name))
            .ok_or_else(|| CliError::Input(format!("{}: has no name of its own; give --out", self.dir.display())))
    }

    /// The recorded command, which writes to `out` instead.
    fn words(&self, record: &Map<String, Value>, out: &Path) -> Result<Vec<String>, CliError> {
        let path = self.dir.join(RUN_FILE);
        let bad = |why: &str| CliError::Input(format!("{}: `command_line`: {why}", path.display()));
        let line = record.get("command_line").and_then(Value::as_str).ok_or_else(|| bad("is missing"))?;
        let words = shlex::split(line).ok_or_else(|| bad("is not a line that a shell takes"))?;
        let Some(("gatelens", words)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) else {
            return Err(bad("is no command of gatelens"));
        };
        let mut words = words.to_vec();
        if let Some(at) = words.iter().position(|word| word == "--out").filter(|at| at + 1 < words.len()) {
            words[at + 1] = out.display().to_string();
        } else if let Some(at) = words.iter().position(|word| word.starts_with("--out=")) {
            words[at] = format!("--out={}", out.display());
        } else {
            words.extend(["--out".to_string(), out.display().to_string()]);
        }
        Ok(words)
    }
}

fn read_json(path: &Path) -> Result<Map<String, Value>, CliError> {
    let bad = |why: String| CliError::Input(format!("{}: {why}", path.display()));
    let text = std::fs::read(path).map_err(|e| bad(format!("cannot be read: {e}; give a run directory")))?;
    serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))
}

/// The files that runs read and that are not any more what they were.
fn changed(runs: &[PathBuf]) -> Result<Vec<String>, CliError> {
    let mut found = BTreeSet::new();
    for run in runs {
        let record = read_json(&run.join(RUN_FILE))?;
        let sums = record.get("dataset_sha256").and_then(Value::as_object).cloned().unwrap_or_default();
        // Files of the run itself are made anew.
        for (name, sum) in sums.iter().filter(|(name, _)| !name.starts_with(super::analysis::OF_RUN)) {
            match read_input(Path::new(name)) {
                Ok((_, (_, now))) if Some(now.as_str()) == sum.as_str() => {}
                Ok(_) => drop(found.insert(format!("{name} has changed since"))),
                Err(why) => drop(found.insert(why.to_string())),
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// How many files two run directories share byte for byte, and what is to be said of the others.
fn compare(old: &Path, new: &Path) -> Result<(usize, Vec<String>), CliError> {
    let (mut left, mut right) = (BTreeSet::new(), BTreeSet::new());
    files(old, Path::new(""), &mut left)?;
    files(new, Path::new(""), &mut right)?;
    let (mut same, mut differences) = (0, Vec::new());
    for name in left.union(&right) {
        let shown = name.display();
        if !right.contains(name) {
            differences.push(format!("{shown}: is not made any more"));
        } else if !left.contains(name) {
            differences.push(format!("{shown}: was not there"));
        } else if std::fs::read(old.join(name))? == std::fs::read(new.join(name))? {
            same += 1;
        } else if name.extension().is_some_and(|extension| extension == "parquet") {
            let tables = (Table::read_parquet(old.join(name))?, Table::read_parquet(new.join(name))?);
            differences.push(format!("{shown}: {}", difference(&tables.0, &tables.1)?));
        } else {
            differences.push(format!("{shown}: differs"));
        }
    }
    Ok((same, differences))
}

/// The files under `root`, by their paths in it, but for those that name the command.
fn files(root: &Path, inside: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), CliError> {
    for entry in std::fs::read_dir(root.join(inside))? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), inside.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            files(root, &path, found)?;
        } else if !OF_THE_COMMAND.iter().any(|own| name == *own) {
            found.insert(path);
        }
    }
    Ok(())
}

/// In which columns, in how many rows and by how much at most two tables differ.
fn difference(old: &Table, new: &Table) -> Result<String, CliError> {
    if old.rows() != new.rows() {
        return Ok(format!("has {} rows, had {}", new.rows(), old.rows()));
    }
    let names = |table: &Table| table.columns().map(|c| (c.name.to_string(), c.kind)).collect::<Vec<_>>();
    if names(old) != names(new) {
        return Ok("has other columns".to_string());
    }
    let mut found = Vec::new();
    for (name, kind) in names(old) {
        let (rows, most) = match kind {
            Kind::Str => (unequal(&old.opt_strs(&name)?, &new.opt_strs(&name)?), None),
            Kind::Int => (unequal(old.ints(&name)?, new.ints(&name)?), None),
            Kind::Flag => (unequal(old.flags(&name)?, new.flags(&name)?), None),
            Kind::Float => {
                let (a, b) = (old.floats(&name)?, new.floats(&name)?);
                let apart = a.iter().zip(b).filter_map(|(a, b)| Some((*a)? - (*b)?)).map(f64::abs);
                (unequal(a, b), Some(apart.fold(0.0, f64::max)))
            }
        };
        let by = most.map_or_else(String::new, |most| format!(", by {most:.1e} at most"));
        if rows > 0 {
            found.push(format!("`{name}` differs in {rows} of {} rows{by}", old.rows()));
        }
    }
    Ok(if found.is_empty() { "differs in what is written beside its cells".to_string() } else { found.join("; ") })
}

fn unequal<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    a.iter().zip(b).filter(|(a, b)| a != b).count()
}
