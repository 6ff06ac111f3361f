//! `gatelens run`: several analyses over several models, from one file.
//!
//! An entry of the file is a command line in other clothes: its keys are the command's flags. They are turned into words
//! and read by the same parser, so that the file knows every flag, default and check that the command line knows.
//! `policy` and `demo` are experiments too.

mod entries;

pub(super) use entries::{Entry, File, expanded, placed};

use super::analysis::{command_line, run_into, told};
use super::model_args::{Output, Planned};
use super::overall::{COMPARED, Overall};
use super::share::{self, With};
use super::{CliError, ModelArgs, combine, compare, cost, runs, say};
use crate::analyses::Command;
use crate::model::Model;
use crate::rundir::{RunDir, RunRecord};
use crate::study::share::Note;
use crate::study::share::claims::Claim;
use crate::study::{self, Meter, Missing, OF_RUN, Origin, Share};
use entries::{entries, read, slug};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
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

    #[command(flatten)]
    with: With,

    /// Of several processes, let this one run the analyses of this model alone, and leave the report to others (repeatable)
    #[arg(long, value_name = "MODEL")]
    only: Vec<String>,

    /// Print what would be run and what it costs under each engine, and stop
    #[arg(long)]
    pub(super) dry_run: bool,

    #[command(flatten)]
    pub(super) planned: Planned,
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

/// The analyses of an experiment file: the folder of each, its model, and what that is called in folders' names.
///
/// # Errors
/// If the file does not make sense.
pub(super) fn listed(path: &Path) -> Result<Vec<(String, String, String)>, CliError> {
    let shown = path.display().to_string();
    let file: File = toml::from_str(&read_text(path)?).map_err(|e| CliError::Input(format!("{shown}: {e}")))?;
    Ok(entries(&shown, &file)?.into_iter().map(|e| (e.folder, e.model.clone(), slug(&e.model))).collect())
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
    entries(shown, &file)?.iter().try_for_each(|entry| read(shown, entry, place, With::default()).map(drop))
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
    entries.iter_mut().for_each(|entry| entry.words.extend(settings.place.planned.words()));
    let place = settings.place;
    let read_in = |dir: &Path| entries.iter().map(|e| read(shown, e, dir, place.with)).collect::<Result<Vec<_>, _>>();
    // Without --out nothing is written.
    let out = place.out.as_deref().unwrap_or(Path::new("experiment"));
    // All of them are read before any is run.
    let jobs = read_in(out)?;
    if place.dry_run {
        return print_costs(&jobs, &entries, settings);
    }
    place.check(&entries).map_err(|why| CliError::Input(format!("{shown}: {why}")))?;
    let parameters = parameters(spec)?;
    let share = place.with.share();
    let complete = || is_complete(out, settings.command, &parameters);
    let found_complete = || say(&format!("{}: is complete; nothing is left to run", out.display()));
    if (place.resume || share != Share::Whole) && !place.force && complete()? {
        return found_complete();
    }
    let study_place = study::Place { force: place.force, resume: place.resume, share, ..study::Place::at(out) };
    let directory = match study_place.open(false) {
        Err(_) if share.is_shared() && complete()? => return found_complete(),
        directory => directory?,
    };
    let experiment =
        Experiment { file, entries: &entries, here: directory.folder().to_path_buf(), parameters, settings };
    let jobs = read_in(&experiment.here)?;
    match experiment.run(directory, &jobs) {
        Ok(Outcome::Written(path)) if !settings.output.json => {
            say(&format!("{}: report.html, report.md, tables.tex", path.display()))
        }
        Ok(Outcome::Written(_)) => Ok(()),
        Ok(Outcome::Left) if settings.output.json => say(&json!({"out": out, "complete": false}).to_string()),
        Ok(Outcome::Left) => say(&format!(
            "{}.partial: the analyses of {} are done; the report is left to a process without --only",
            out.display(),
            place.only.join(", ")
        )),
        Err(CliError::Missing(missing)) => share::told(&missing, out, share, settings.output.json),
        // Another process may have finished it at any moment.
        Ok(Outcome::Elsewhere) => found_complete(),
        Err(_) if share.is_shared() && is_complete(out, settings.command, &experiment.parameters)? => found_complete(),
        Err(e) => Err(e),
    }
}

/// How far an experiment was run.
enum Outcome {
    /// It is complete, and there.
    Written(PathBuf),
    /// Another process has finished it.
    Elsewhere,
    /// The analyses of this process' models are done, and the report is left to others.
    Left,
}

/// An experiment in its folder.
struct Experiment<'a> {
    file: &'a File,
    entries: &'a [Entry],
    here: PathBuf,
    /// What its results depend on.
    parameters: Map<String, Value>,
    settings: &'a Settings<'a>,
}

impl Experiment<'_> {
    /// Runs it, as far as this process does.
    fn run(&self, directory: RunDir, jobs: &[Command]) -> Result<Outcome, CliError> {
        let (started, settings, here) = (Instant::now(), self.settings, self.here.as_path());
        directory.claim(&self.parameters)?;
        let share = settings.place.with.share();
        if share != Share::Whole {
            Note::of(settings.words).leave(&directory)?;
        }
        let Came { left_out, missing } = run_all(jobs, self.entries, here, settings)?;
        if let Some(missing) = missing {
            return Err(CliError::Missing(missing));
        }
        if self.entries.iter().any(|entry| !settings.place.has(entry)) {
            return Ok(Outcome::Left);
        }
        let mut claim = None;
        if share.is_shared() {
            claim = directory.finishing(&mut || true)?;
            if claim.is_none() {
                return Ok(Outcome::Elsewhere);
            }
        }
        let mut ran = Ran { entries: self.entries, here, left_out };
        if let Some(name) = &self.file.compare {
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
        let sections = Overall { dir: here, runs: &runs, before: 0, name: None }.sections(&directory)?;
        let (title, intro) = (&self.file.title, settings.intro.iter().chain(&self.file.intro));
        let intro: Vec<String> = intro.cloned().collect();
        let line = command_line(settings.words);
        let record = [
            ("parameters", Value::Object(self.parameters.clone())),
            ("title", json!(title)),
            ("intro", json!(intro)),
            ("runs", ran.there().map(|e| Value::from(e.folder.clone())).collect()),
            ("left_out", json!(ran.left_out)),
            ("wall_s", json!(started.elapsed().as_secs_f64())),
        ];
        let head = combine::Head { title: title.clone(), intro, sections, left_out: ran.left_out };
        combine::write(&directory, &runs, head, &line)?;
        let record = record.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        runs::write_record(&directory, settings.command, &line, record)?;
        let path = directory.finish()?;
        // The claim went with the directory that it stood in.
        claim.into_iter().for_each(Claim::made_good);
        Ok(Outcome::Written(path))
    }
}

impl Place {
    /// Whether what it asks for is there.
    fn check(&self, entries: &[Entry]) -> Result<(), String> {
        if !self.only.is_empty() && !self.with.share().is_shared() {
            return Err("--only is for one of several processes; give --join or --shard as well".to_string());
        }
        match self.only.iter().find(|model| entries.iter().all(|entry| entry.model != **model)) {
            None => Ok(()),
            Some(model) => Err(format!("--only {model}: no analysis is of that model, as the file names it")),
        }
    }

    /// Whether this process runs the entry.
    fn has(&self, entry: &Entry) -> bool {
        self.only.is_empty() || self.only.contains(&entry.model)
    }
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

/// Calls `f` with the number of each job that is `wanted` and its model, which is opened once for the jobs in a row that ask for the
/// same.
fn each(
    jobs: &[Command],
    wanted: impl Fn(usize) -> bool,
    mut f: impl FnMut(usize, &Arc<Model>, Meter) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut loaded: Option<(ModelArgs, Arc<Model>)> = None;
    for (i, job) in jobs.iter().enumerate().filter(|(i, _)| wanted(*i)) {
        let (wanted, meter) = (job.job().model(), Meter::start());
        // Let go of the old one before the new one takes memory.
        let same = loaded.take_if(|(args, _)| args.same_model(wanted));
        drop(loaded.take());
        let (_, model) = loaded.insert(match same {
            Some(same) => same,
            None => (wanted.clone(), Arc::new(job.job().open()?)),
        });
        f(i, model, meter)?;
    }
    Ok(())
}

/// Prints what each entry would cost.
fn print_costs(jobs: &[Command], entries: &[Entry], settings: &Settings) -> Result<(), CliError> {
    each(
        jobs,
        |_| true,
        |i, model, _| {
            let folder = &entries[i].folder;
            let cost = match entries[i].reads_of_run().next() {
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
        },
    )
}

/// What came of an experiment's entries.
#[derive(Default)]
struct Came {
    /// Folders of entries that cannot be asked, and why.
    left_out: BTreeMap<String, String>,
    /// What other processes have to compute, if anything is left.
    missing: Option<Missing>,
}

impl Came {
    /// Something is left to other processes.
    fn lacks(&mut self, more: Missing) {
        let all = self.missing.get_or_insert(Missing { there: 0, missing: 0, at_barrier: false });
        let Missing { there, missing, at_barrier } = *all;
        let at_barrier = at_barrier || more.at_barrier;
        *all = Missing { there: there + more.there, missing: missing + more.missing, at_barrier };
    }
}

/// Runs every entry, but those that cannot be asked.
fn run_all(jobs: &[Command], entries: &[Entry], here: &Path, settings: &Settings) -> Result<Came, CliError> {
    let (mut came, mut left_out) = (Came::default(), BTreeMap::new());
    let mut unfinished: BTreeSet<&str> = BTreeSet::new();
    let mut hindered: BTreeMap<&str, String> = BTreeMap::new();
    let jobs_of = |entry: &Entry| settings.place.has(entry);
    each(
        jobs,
        |i| jobs_of(&entries[i]),
        |i, model, meter| {
            let entry = &entries[i];
            let folder = |file: &str| file.split('/').next().unwrap_or_default().to_string();
            if entry.reads_of_run().any(|file| unfinished.contains(folder(file).as_str())) {
                unfinished.insert(&entry.folder);
                came.lacks(Missing { there: 0, missing: 0, at_barrier: true });
                return Ok(());
            }
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
                (Err(CliError::Missing(missing)), _) => {
                    settings.note(&format!("{}: {missing}", entry.folder));
                    unfinished.insert(&entry.folder);
                    came.lacks(missing);
                    Ok(())
                }
                (outcome, _) => outcome,
            }
        },
    )?;
    Ok(Came { left_out, ..came })
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
    let origin = Origin { command_line: command_line(&words), run, meter, words: Vec::new() };
    let mut finished = run_into(job, model, &origin)?;
    finished.path = place;
    told(&finished, settings.output.json)
}

/// What the results depend on: all of the experiment but how many threads compute it.
pub(super) fn parameters(spec: &toml::Table) -> Result<Map<String, Value>, CliError> {
    let mut spec = serde_json::to_value(spec).map_err(|e| CliError::Input(e.to_string()))?;
    let analyses = spec.get_mut("analysis").and_then(Value::as_array_mut).into_iter().flatten();
    analyses.filter_map(Value::as_object_mut).for_each(|entry| drop(entry.remove("threads")));
    spec.get_mut("defaults").and_then(Value::as_object_mut).map(|defaults| defaults.remove("threads"));
    Ok(Map::from_iter([("spec".to_string(), spec)]))
}
