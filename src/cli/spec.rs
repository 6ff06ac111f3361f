//! `gatelens run`: several analyses over several models, from one file.
//!
//! An entry of the file is a command line in other clothes: its keys are the command's flags. They are turned into words
//! and read by the same parser, so that the file knows every flag, default and check that the command line knows.
//! `policy` and `demo` are experiments too.

mod entries;

pub(super) use entries::{Entry, File, expanded, placed};

use super::analysis::{command_line, run_into, told};
use super::model_args::Output;
use super::overall::{COMPARED, Overall};
use super::{CliError, ModelArgs, combine, compare, cost, runs, say};
use crate::analyses::Command;
use crate::model::Model;
use crate::rundir::{RunDir, RunRecord};
use crate::study::{Meter, OF_RUN, Origin};
use entries::{entries, read};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The arguments of `run`.
#[derive(clap::Args)]
#[command(after_long_help = FORMAT)]
pub(super) struct Spec {
    /// The experiment file: models, defaults, and [[analysis]] entries; --help shows one
    #[arg(value_name = "SPEC.toml")]
    pub(super) spec: PathBuf,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    pub(super) output: Output,
}

/// What an experiment file holds, in short.
const FORMAT: &str = "\
An experiment file is TOML:

  title = \"Refusals of two models\"         # the title of the report
  models = [\"models/a.gguf\", \"models/b*\"]  # a pattern stands for all that it matches
  compare = \"screen\"                       # compare the models by this entry

  [defaults]                               # flags for every analysis that knows them
  pairs = \"pairs.jsonl\"
  max_pairs = 60

  [[analysis]]                             # analyses run in this order
  command = \"screen\"

  [[analysis]]
  command = \"cascade\"
  name = \"from-gate\"                       # its folder (default: the command)
  circuit = \"run:screen/circuit.json\"      # a file that an earlier entry leaves

Every other key is a flag of the command, written with _ or -. Its value is a string or a number, a list if the flag is \
repeated, or true if the flag takes no value. docs/experiments.md describes the file in full.";

// Not a documentation comment: clap would show it as the command's.
// Where an experiment goes.
#[derive(clap::Args)]
pub(super) struct Place {
    /// Write the run directory here: a folder for each analysis and model, and one report over all
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    out: Option<PathBuf>,

    /// Replace the run directory if it exists
    #[arg(long)]
    force: bool,

    /// Go on with an unfinished run of the same experiment, or start if there is none
    #[arg(long)]
    resume: bool,

    /// Print what would be run and what it costs under each engine, and stop
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl Spec {
    pub(super) fn run(&self, words: &[String]) -> Result<(), CliError> {
        let shown = self.spec.display().to_string();
        let settings =
            Settings { command: "run", words, place: &self.place, output: self.output, intro: Vec::new(), suite: None };
        let spec = read_table(&self.spec)?;
        // Read from the text again, for messages that show the place.
        let text = read_text(&self.spec)?;
        let file: File = toml::from_str(&text).map_err(|e| CliError::Input(format!("{shown}: {e}")))?;
        run_file(&shown, &file, &spec, &settings)
    }
}

fn read_text(path: &Path) -> Result<String, CliError> {
    let why = |e: std::io::Error| CliError::Input(format!("{}: cannot be read: {e}; check the path", path.display()));
    std::fs::read_to_string(path).map_err(why)
}

/// The experiment file at a path.
///
/// # Errors
/// If it cannot be read or is no TOML.
pub(super) fn read_table(path: &Path) -> Result<toml::Table, CliError> {
    toml::from_str(&read_text(path)?).map_err(|e| CliError::Input(format!("{}: {e}", path.display())))
}

/// How an experiment is run.
pub(super) struct Settings<'a> {
    /// The command that runs it, for its record.
    pub(super) command: &'static str,
    /// The words after `gatelens`.
    pub(super) words: &'a [String],
    pub(super) place: &'a Place,
    pub(super) output: Output,
    /// What stands at the report's beginning, before the file's own words.
    pub(super) intro: Vec<String>,
    /// What judges it, if it is a suite: then it goes on where an analysis cannot be run on what the ones before it found.
    pub(super) suite: Option<&'a dyn Suite>,
}

/// What a suite of analyses makes of them.
pub(super) trait Suite {
    /// Why nothing more is to be asked of an entry's model, once the entry is finished in `folder`.
    fn hindrance(&self, entry: &Entry, folder: &Path) -> Result<Option<String>, CliError>;

    /// Leaves the tables that say what came out as a whole.
    fn judge(&self, directory: &RunDir, ran: &Ran) -> Result<(), CliError>;
}

/// What was run of an experiment.
pub(super) struct Ran<'a> {
    pub(super) entries: &'a [Entry],
    /// Where the entries' folders are.
    pub(super) here: &'a Path,
    /// Folders of entries that could not be run, and why.
    pub(super) left_out: BTreeMap<String, String>,
}

impl Ran<'_> {
    /// The entries that were run.
    fn there(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !self.left_out.contains_key(&entry.folder))
    }
}

/// Reads the experiment that `text` describes, with every analysis of every model, and runs nothing.
///
/// # Errors
/// If the file does not make sense.
pub fn check_experiment(text: &str) -> Result<(), CliError> {
    let shown = "the experiment";
    let file: File = toml::from_str(text).map_err(|e| CliError::Input(format!("{shown}: {e}")))?;
    let place = Path::new("experiment");
    entries(shown, &file)?.iter().try_for_each(|entry| read(shown, entry, place).map(drop))
}

/// Runs an experiment of ours, which is no file.
///
/// # Errors
/// As [`run_file`].
pub(super) fn run_own(shown: &str, spec: &toml::Table, settings: &Settings) -> Result<(), CliError> {
    let file: File = spec.clone().try_into().map_err(|e| CliError::Failed(format!("{shown}: {e}")))?;
    run_file(shown, &file, spec, settings)
}

/// Runs an experiment, of which `spec` is what its results depend on; `shown` is what messages call it.
///
/// # Errors
/// If the file does not make sense, or an analysis fails.
fn run_file(shown: &str, file: &File, spec: &toml::Table, settings: &Settings) -> Result<(), CliError> {
    let mut entries = entries(shown, file)?;
    if settings.output.quiet {
        entries.iter_mut().for_each(|entry| entry.words.push("--quiet".to_string()));
    }
    let read_in = |dir: &Path| entries.iter().map(|e| read(shown, e, dir)).collect::<Result<Vec<_>, _>>();
    let place = settings.place;
    // Without --out nothing is written.
    let out = place.out.as_deref().unwrap_or(Path::new("experiment"));
    // All of them are read before any is run.
    let jobs = read_in(out)?;
    if place.dry_run {
        return print_costs(&jobs, &entries, settings);
    }
    let started = Instant::now();
    let parameters = parameters(spec)?;
    if place.resume && !place.force && is_complete(out, settings.command, &parameters)? {
        return say(&format!("{}: is complete; nothing was left to run", out.display()));
    }
    let directory = RunDir::create(out, place.force, place.resume)?;
    directory.claim(&parameters)?;
    let here = directory.folder().to_path_buf();
    let left_out = run_all(&read_in(&here)?, &entries, &here, settings)?;
    let mut ran = Ran { entries: &entries, here: &here, left_out };
    if let Some(name) = &file.compare {
        match compared(&directory, &ran, name) {
            // Too few checkpoints are left.
            Err(CliError::NotAskable(why)) => drop(ran.left_out.insert("comparison".to_string(), why)),
            outcome => outcome?,
        }
    }
    if let Some(suite) = settings.suite {
        suite.judge(&directory, &ran)?;
    }
    let runs: Vec<PathBuf> = ran.there().map(|e| here.join(&e.folder)).collect();
    let sections = Overall { dir: &here, runs: &runs, before: 0, name: None }.sections(&directory)?;
    let intro: Vec<String> = settings.intro.iter().chain(&file.intro).cloned().collect();
    let line = command_line(settings.words);
    let record = [
        ("parameters", Value::Object(parameters)),
        ("title", json!(file.title)),
        ("intro", json!(intro)),
        ("runs", ran.there().map(|e| Value::from(e.folder.clone())).collect()),
        ("left_out", json!(ran.left_out)),
        ("wall_s", json!(started.elapsed().as_secs_f64())),
    ];
    let head = combine::Head { title: file.title.clone(), intro, sections, left_out: ran.left_out };
    combine::write(&directory, &runs, head, &line)?;
    let record = record.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    runs::write_record(&directory, settings.command, &line, record)?;
    let path = directory.finish()?;
    if settings.output.json { Ok(()) } else { say(&format!("{}: report.html, report.md, tables.tex", path.display())) }
}

/// Whether the same experiment is there already.
///
/// # Errors
/// If another one is.
fn is_complete(out: &Path, command: &str, parameters: &Map<String, Value>) -> Result<bool, CliError> {
    let Some(found) = runs::left::<Value>(out)? else { return Ok(false) };
    match found["command"] == command && found["parameters"] == json!(parameters) {
        true => Ok(true),
        false => Err(runs::anew(out, "is of another run, which is complete")),
    }
}

/// Compares the models by one of the entries, and by their behaviour.
fn compared(directory: &RunDir, ran: &Ran, name: &str) -> Result<(), CliError> {
    let command = |e: &Entry| e.words.first().cloned().unwrap_or_default();
    let folder = |e: &Entry| ran.here.join(&e.folder);
    let named: Vec<&Entry> = ran.there().filter(|e| e.name == name).collect();
    if named.iter().any(|e| compare::OF_HEADS.contains(&command(e).as_str())) {
        let behaviour = ran.there().filter(|e| e.name != name && command(e) == compare::OF_BEHAVIOUR);
        let folders: Vec<PathBuf> = named.iter().copied().chain(behaviour).map(folder).collect();
        // Which pairs an entry is over stands in the file: different ones are meant, and the report says so.
        let checkpoints = compare::checkpoints(&folders, true)?;
        compare::write_tables(directory, &crate::analyses::compare::tables(&checkpoints)?, COMPARED)?;
    }
    // Of each command the named entry, or the first, is followed over the steps of the models' training.
    let mut names: BTreeMap<String, &str> = named.iter().map(|e| (command(e), name)).collect();
    for entry in ran.there().filter(|e| compare::is_followed(&command(e))) {
        names.entry(command(entry)).or_insert(&entry.name);
    }
    let of = ran.there().filter(|e| names.get(&command(e)).is_some_and(|name| *name == e.name));
    let followed = compare::followed(&of.map(folder).collect::<Vec<_>>(), None)?;
    if followed.is_empty() {
        return Ok(());
    }
    compare::write_tables(directory, &[crate::analyses::compare::steps::table(&followed, 0)?], COMPARED)
}

impl Settings<'_> {
    /// Says something on standard error, unless it is to be quiet.
    fn note(&self, text: &str) {
        if !self.output.quiet {
            // Nowhere is left to say it if standard error is gone.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
}

/// Calls `f` with the number of each job and its model, which is opened once for the jobs in a row that ask for the same.
fn each(
    jobs: &[Command],
    mut f: impl FnMut(usize, &Arc<Model>, Meter) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut loaded: Option<(ModelArgs, Arc<Model>)> = None;
    for (i, job) in jobs.iter().enumerate() {
        let (wanted, meter) = (job.job().model(), Meter::start());
        // Let go of the old one before the new one takes memory.
        let same = loaded.take_if(|(args, _)| args.same_model(wanted));
        drop(loaded.take());
        let (_, model) = loaded.insert(match same {
            Some(same) => same,
            None => (wanted.clone(), Arc::new(wanted.open()?)),
        });
        f(i, model, meter)?;
    }
    Ok(())
}

/// Prints what each entry would cost.
fn print_costs(jobs: &[Command], entries: &[Entry], settings: &Settings) -> Result<(), CliError> {
    each(jobs, |i, model, _| {
        let folder = &entries[i].folder;
        let cost = match entries[i].reads_of_run() {
            Some(file) => Err(format!("reads {file}, which the run makes: its cost is not known before")),
            None => {
                let job = jobs[i].job();
                Ok(job.analysis().cost(&job.how().study(model))?)
            }
        };
        if settings.output.json {
            let mut line = Map::from_iter([("entry".to_string(), Value::from(folder.clone()))]);
            line.extend(
                cost.map_or_else(|why| Map::from_iter([("unknown".to_string(), why.into())]), |c| cost::json(&c)),
            );
            return say(&Value::Object(line).to_string());
        }
        say(&format!("{folder}: {}", cost.map_or_else(|why| why, |c| cost::text(&c))))
    })
}

/// Runs every entry, but those that cannot be asked; gives the folders of these, and why.
fn run_all(
    jobs: &[Command],
    entries: &[Entry],
    here: &Path,
    settings: &Settings,
) -> Result<BTreeMap<String, String>, CliError> {
    let mut left_out = BTreeMap::new();
    let mut hindered: BTreeMap<&str, String> = BTreeMap::new();
    each(jobs, |i, model, meter| {
        let entry = &entries[i];
        settings.note(&format!("[{}/{}] {}", i + 1, jobs.len(), entry.folder));
        let outcome = match hindered.get(entry.model.as_str()) {
            Some(why) => Err(CliError::NotAskable(why.clone())),
            None => one(&jobs[i], model, entry, meter, here, settings),
        };
        match (outcome, settings.suite) {
            (Err(CliError::NotAskable(why)), Some(_)) => {
                // The folder has another name in the end.
                let why = why.replace(&format!("{}/", here.display()), OF_RUN);
                let said = left_out.values().any(|before| *before == why);
                let shown = if said { "for the same reason" } else { &why };
                settings.note(&format!("{}: left out: {shown}", entry.folder));
                left_out.insert(entry.folder.clone(), why);
                Ok(())
            }
            (Ok(()), Some(suite)) => {
                let why = suite.hindrance(entry, &here.join(&entry.folder))?;
                hindered.extend(why.map(|why| (entry.model.as_str(), why)));
                Ok(())
            }
            (outcome, _) => outcome,
        }
    })?;
    Ok(left_out)
}

/// Runs an analysis, unless it was finished before the experiment was stopped.
fn one(
    command: &Command,
    model: &Arc<Model>,
    entry: &Entry,
    meter: Meter,
    here: &Path,
    settings: &Settings,
) -> Result<(), CliError> {
    let job = command.job();
    let before = here.join(&entry.folder);
    let run = Some(here.to_path_buf());
    if let Some(record) = runs::left::<RunRecord>(&before)? {
        let origin = Origin { run, ..Origin::default() };
        return match record.parameters == job.analysis().parameters(&job.how().study(model), &origin)? {
            true => Ok(()),
            false => Err(runs::anew(&before, "its model or one of its files has changed since")),
        };
    }
    let place = settings.place.out.as_deref().unwrap_or(here).join(&entry.folder);
    let mut words = entry.words.clone();
    words.extend(["--out".to_string(), place.display().to_string()]);
    let origin = Origin { command_line: command_line(&words), run, meter };
    let mut finished = run_into(job, model, &origin)?;
    finished.path = place;
    told(&finished, settings.output.json)
}

/// What the results depend on.
pub(super) fn parameters(spec: &toml::Table) -> Result<Map<String, Value>, CliError> {
    let spec = serde_json::to_value(spec).map_err(|e| CliError::Input(e.to_string()))?;
    Ok(Map::from_iter([("spec".to_string(), spec)]))
}
