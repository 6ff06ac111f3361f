//! `gatelens rerun`: runs what a run directory records once more, and says what came out otherwise.
//!
//! An analysis is run by the parameters that its record has, whoever ran it; anything else by its command. The checksums of the
//! files and the model that it read say early whether they are still the same. On the same machine and version every table must come out as it was, byte for byte.

use super::analysis::{command_line, told, watched};
use super::runs::{self, Source};
use super::{Cli, CliError, Command as Any, say, spec};
use crate::analyses::Writer;
use crate::analyses::inputs::read_input;
use crate::dataset::IN_MEMORY;
use crate::model::source;
use crate::model::{ModelError, fingerprint};
use crate::rundir::{PARAMS_FILE, RUN_FILE};
use crate::study::{Meter, OF_RUN, Origin, Place, Recorded};
use crate::table::{Kind, Table};
use clap::Parser;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The arguments of `rerun`.
#[derive(clap::Args)]
pub(super) struct Rerun {
    /// The run directory whose command is run once more, from the current folder
    dir: PathBuf,

    /// Write to this directory (default: DIR.rerun)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Replace the directory if it exists
    #[arg(long)]
    force: bool,

    /// Go on with an unfinished rerun, or start if there is none
    #[arg(long)]
    resume: bool,
}

/// What is run once more.
enum Again {
    /// A study, by its recorded parameters.
    Study(Recorded),
    /// An experiment, or what is made of other run directories: by the words of the recorded command.
    Command(Vec<String>),
}

/// What stands in a run directory whatever came out: the command with the place it writes to, and its times.
const OF_THE_COMMAND: [&str; 5] = ["report.md", "report.html", "tables.tex", PARAMS_FILE, RUN_FILE];

impl Rerun {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let source = Source::open(&self.dir)?;
        let out = self.out()?;
        let again = match source.text("command").and_then(Writer::named) {
            Some(_) => Again::Study(Recorded::of(&self.dir, &self.around(), &runs::record(&self.dir)?)?),
            None => Again::Command(self.words(&source, &out)?),
        };
        let mut notes = self.changed(&source, &again)?;
        let version = source.text("version").unwrap_or("unknown");
        if version != env!("CARGO_PKG_VERSION") {
            notes.insert(format!("it was made by gatelens {version}, this is {}", env!("CARGO_PKG_VERSION")));
        }
        for note in &notes {
            // Nowhere is left to say it if standard error is gone too.
            let _ = writeln!(std::io::stderr(), "note: {note}");
        }
        match again {
            Again::Command(words) => self.command(words)?,
            Again::Study(recorded) => self.study(&recorded, &source, &out)?,
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

    /// Runs a study with the parameters that its record has.
    fn study(&self, recorded: &Recorded, source: &Source, out: &Path) -> Result<(), CliError> {
        let meter = Meter::start();
        let place = Place { force: self.force, resume: self.resume, ..Place::at(out) };
        place.check()?;
        let study = recorded.study()?;
        // For people: a study that was not run from the command line has none.
        let line = self.words(source, out).map_or(String::new(), |words| command_line(&words));
        let origin = Origin { command_line: line, meter, ..Origin::default() };
        told(&watched(recorded.job.as_ref(), study, &place, &origin, false)?, false)
    }

    /// Runs the command that a record has.
    fn command(&self, mut words: Vec<String>) -> Result<(), CliError> {
        words.extend([("--force", self.force), ("--resume", self.resume)].iter().filter(|f| f.1).map(|f| f.0.into()));
        let bad =
            |e: clap::Error| CliError::Input(format!("{}: `command_line`: {e}", self.dir.join(RUN_FILE).display()));
        let cli =
            Cli::try_parse_from(std::iter::once("gatelens").chain(words.iter().map(String::as_str))).map_err(bad)?;
        cli.command.run(&words)
    }

    fn out(&self) -> Result<PathBuf, CliError> {
        if let Some(out) = &self.out {
            return Ok(out.clone());
        }
        let bad = |why: &str| Err(CliError::Input(format!("{}: {why}; give --out", self.dir.display())));
        if Source::open(&self.around()).is_ok_and(|around| around.is_experiment()) {
            return bad("is a part of an experiment, in whose folder nothing else may stand");
        }
        match self.dir.file_name() {
            Some(name) => Ok(self.dir.with_file_name(format!("{}.rerun", name.to_string_lossy()))),
            None => bad("has no name of its own"),
        }
    }

    /// The folder that the directory is in: of a part of an experiment, the experiment's.
    fn around(&self) -> PathBuf {
        match self.dir.file_name() {
            Some(_) => self.dir.parent().unwrap_or(Path::new("")).to_path_buf(),
            None => self.dir.join(".."),
        }
    }

    /// The recorded command, which writes to `out` instead, and reads files of its experiment where they are.
    fn words(&self, source: &Source, out: &Path) -> Result<Vec<String>, CliError> {
        let path = self.dir.join(RUN_FILE);
        let bad = |why: &str| CliError::Input(format!("{}: `command_line`: {why}", path.display()));
        let line = source.text("command_line").ok_or_else(|| bad("is missing"))?;
        let words = shlex::split(line).ok_or_else(|| bad("is not a line that a shell takes"))?;
        let Some(("gatelens", words)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) else {
            return Err(bad("is no command of gatelens"));
        };
        let around = self.around();
        let mut words: Vec<String> = words.iter().map(|word| spec::placed(word, &around)).collect();
        if let Some(at) = words.iter().position(|word| word == "--out").filter(|at| at + 1 < words.len()) {
            words[at + 1] = out.display().to_string();
        } else if let Some(at) = words.iter().position(|word| word.starts_with("--out=")) {
            words[at] = format!("--out={}", out.display());
        } else {
            words.extend(["--out".to_string(), out.display().to_string()]);
        }
        Ok(words)
    }

    /// What the runs read and is not any more what it was: files, models, the experiment file.
    fn changed(&self, source: &Source, again: &Again) -> Result<BTreeSet<String>, CliError> {
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for run in &source.runs {
            let record = Source::open(run)?.record;
            let sums = record.get("dataset_sha256").and_then(Value::as_object).cloned().unwrap_or_default();
            for (name, sum) in &sums {
                let file = match name.strip_prefix(OF_RUN) {
                    // An experiment makes its own files anew.
                    Some(_) if source.is_experiment() => continue,
                    Some(file) => self.around().join(file),
                    None => name.strip_prefix(IN_MEMORY).map_or(PathBuf::from(name), |kept| run.join(kept)),
                };
                match read_input(&file) {
                    Ok((_, (_, now))) if Some(now.as_str()) == sum.as_str() => {}
                    Ok(_) => drop(found.insert(format!("{name} has changed since"))),
                    Err(why) => drop(found.insert(why.to_string())),
                }
            }
            let model = |key: &str| record.get("model").and_then(|model| model.get(key)).and_then(Value::as_str);
            if let Some((name, sum)) = model("name").zip(model("sha256"))
                && seen.insert(name.to_string())
            {
                found.extend(changed_model(name, sum));
            }
        }
        let recorded = source.record.get("parameters").and_then(|parameters| parameters.get("spec"));
        if let (Some(recorded), Again::Command(words)) = (recorded, again)
            && let Some(file) = experiment_file(words)
        {
            match spec::read_table(&file).and_then(|table| spec::parameters(&table)) {
                Ok(now) if now.get("spec") == Some(recorded) => {}
                Ok(_) => drop(found.insert(format!("{} has changed since", file.display()))),
                Err(why) => drop(found.insert(why.to_string())),
            }
        }
        Ok(found)
    }
}

/// Why a model is not the one that a record names; nothing where it is.
fn changed_model(name: &str, sum: &str) -> Option<String> {
    // A model of the hub is fetched, if it must be, when it is run.
    if name.starts_with("hf:") {
        return None;
    }
    let now = source::resolve(name, false).map_err(ModelError::from).and_then(|(found, _)| fingerprint(&found));
    match now {
        Ok(now) if now == sum => None,
        Ok(_) => Some(format!("model `{name}`: its weights' files have changed since")),
        Err(why) => Some(why.to_string()),
    }
}

/// The experiment file that a command names, if it is one that takes one.
fn experiment_file(words: &[String]) -> Option<PathBuf> {
    let words = std::iter::once("gatelens").chain(words.iter().map(String::as_str));
    match Cli::try_parse_from(words).ok()?.command {
        Any::Run(spec) => Some(spec.spec),
        _ => None,
    }
}

/// How many files two run directories share byte for byte, and what is to be said of the others.
fn compare(old: &Path, new: &Path) -> Result<(usize, Vec<String>), CliError> {
    let (mut left, mut right) = (BTreeSet::new(), BTreeSet::new());
    files(old, Path::new(""), &mut left).map_err(|e| unreadable(old, &e))?;
    files(new, Path::new(""), &mut right).map_err(|e| unreadable(new, &e))?;
    let bytes = |path: &Path| std::fs::read(path).map_err(|e| unreadable(path, &e));
    let (mut same, mut differences) = (0, Vec::new());
    for name in left.union(&right) {
        let shown = name.display();
        if !right.contains(name) {
            differences.push(format!("{shown}: is not made any more"));
        } else if !left.contains(name) {
            differences.push(format!("{shown}: was not there"));
        } else if bytes(&old.join(name))? == bytes(&new.join(name))? {
            same += 1;
        } else if name.extension().is_some_and(|extension| extension == "parquet") {
            let tables = (runs::read_table(&old.join(name))?, runs::read_table(&new.join(name))?);
            differences.push(format!("{shown}: {}", difference(&tables.0, &tables.1)?));
        } else {
            differences.push(format!("{shown}: differs"));
        }
    }
    Ok((same, differences))
}

fn unreadable(path: &Path, why: &std::io::Error) -> CliError {
    CliError::Failed(format!("{}: cannot be read: {why}", path.display()))
}

/// The files under `root`, by their paths in it, but for those that name the command.
fn files(root: &Path, inside: &Path, found: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
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
        let (rows, how) = match kind {
            Kind::Str => (unequal(&old.opt_strs(&name)?, &new.opt_strs(&name)?), String::new()),
            Kind::Int => (unequal(old.ints(&name)?, new.ints(&name)?), String::new()),
            Kind::Flag => (unequal(old.flags(&name)?, new.flags(&name)?), String::new()),
            Kind::Float => {
                let (a, b) = (old.floats(&name)?, new.floats(&name)?);
                (unequal(a, b), how_far(a, b))
            }
        };
        if rows > 0 {
            found.push(format!("`{name}` differs in {rows} of {} rows{how}", old.rows()));
        }
    }
    Ok(if found.is_empty() { "differs in what is written beside its cells".to_string() } else { found.join("; ") })
}

fn unequal<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    a.iter().zip(b).filter(|(a, b)| a != b).count()
}

/// By how much numbers differ at most, and how many are missing on one side.
fn how_far(a: &[Option<f64>], b: &[Option<f64>]) -> String {
    let gone = a.iter().zip(b).filter(|(a, b)| a.is_some() != b.is_some()).count();
    let both = a.iter().zip(b).filter_map(|(a, b)| Some((*a)? - (*b)?));
    let most = both.filter(|apart| *apart != 0.0).map(f64::abs).reduce(f64::max);
    let gone = if gone > 0 { format!(", {gone} of them with a value on one side alone") } else { String::new() };
    most.map_or(gone.clone(), |most| format!("{gone}, by {most:.1e} at most"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_gone_is_told_from_one_that_is_a_little_off() {
        let table = |values: [Option<f64>; 3]| Table::new("t").float("x", "", values).unwrap();
        let old = table([Some(1.0), Some(2.0), None]);
        let told = |values| difference(&old, &table(values)).unwrap();
        assert_eq!(
            told([Some(1.0), None, None]),
            "`x` differs in 1 of 3 rows, 1 of them with a value on one side alone"
        );
        assert_eq!(told([Some(1.5), Some(2.0), None]), "`x` differs in 1 of 3 rows, by 5.0e-1 at most");
        assert_eq!(
            told([Some(1.5), Some(2.0), Some(3.0)]),
            "`x` differs in 2 of 3 rows, 1 of them with a value on one side alone, by 5.0e-1 at most"
        );
    }
}
