//! `gatelens run`: several analyses over several models, from one file.
//!
//! An entry of the file is a command line in other clothes: its keys are the command's flags. They are turned into words
//! and read by the same parser, so that the file knows every flag, default and check that the command line knows.

use super::analysis::{Call, Finished, Job, OF_RUN, command_line};
use super::{Cli, CliError, Command as Any, ModelArgs, combine, compare, say};
use crate::analyses::Command;
use crate::model::Model;
use crate::names::meant;
use crate::report::Section;
use crate::rundir::{RUN_FILE, RunDir, RunRecord};
use clap::{CommandFactory, Parser};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The arguments of `run`.
#[derive(clap::Args)]
pub(super) struct Spec {
    /// The experiment file: models, defaults, and an [[analysis]] for each; see the README
    #[arg(value_name = "SPEC.toml")]
    spec: PathBuf,

    /// Print what would be run, and what it costs
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    place: Place,
}

// Not a documentation comment: clap would show it as the command's.
// Where an experiment goes, and what it says meanwhile.
#[derive(clap::Args)]
pub(super) struct Place {
    /// The run directory to write: one folder an analysis and model, and a report over all
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,

    /// Replace the run directory if it exists
    #[arg(long)]
    force: bool,

    /// Go on with an unfinished run of the same experiment, or start, where there is none
    #[arg(long)]
    resume: bool,

    /// No progress bars, no warnings
    #[arg(long)]
    quiet: bool,

    /// A machine-readable summary of every analysis on standard output, one a line
    #[arg(long)]
    json: bool,
}

/// An experiment file as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The report's title.
    pub(super) title: Option<String>,
    /// What the report begins with.
    pub(super) intro: Option<String>,
    /// What `MODEL` is on the command line, one or more; patterns as `checkpoints/step-*` stand for all that they match.
    pub(super) models: Vec<String>,
    /// The name of the entry whose heads are compared between the models.
    pub(super) compare: Option<String>,
    /// Flags for every analysis that knows them.
    #[serde(default)]
    pub(super) defaults: toml::Table,
    pub(super) analysis: Vec<toml::Table>,
}

/// One analysis of one model.
pub(super) struct Entry {
    /// Its folder within the run directory.
    pub(super) folder: String,
    /// What the file calls it.
    pub(super) name: String,
    /// The model, as it was named.
    pub(super) model: String,
    /// The words after `gatelens`, but for `--out`.
    words: Vec<String>,
}

/// Flags that belong to the experiment as a whole.
const OF_THE_RUN: [&str; 6] = ["out", "force", "resume", "dry-run", "quiet", "json"];

/// Keys of an entry that are no flags.
const OWN_KEYS: [&str; 3] = ["command", "name", "models"];

impl Spec {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let shown = self.spec.display().to_string();
        let text = std::fs::read_to_string(&self.spec)
            .map_err(|e| CliError::Input(format!("{shown}: cannot be read: {e}; check the path")))?;
        let settings = Settings {
            place: &self.place,
            dry_run: self.dry_run,
            command_line: command_line(&[
                "run".to_string(),
                shown.clone(),
                "--out".to_string(),
                self.place.out.display().to_string(),
            ]),
            intro: Vec::new(),
            judge: None,
        };
        run(&shown, &text, &settings)
    }
}

/// How an experiment is run.
pub(super) struct Settings<'a> {
    pub(super) place: &'a Place,
    pub(super) dry_run: bool,
    pub(super) command_line: String,
    /// What stands at the report's beginning, before the file's own words.
    pub(super) intro: Vec<String>,
    /// Goes on where an analysis cannot be run on what the ones before it found, and judges what was: sections that stand
    /// before all others in the report.
    pub(super) judge: Option<&'a Judge<'a>>,
}

/// Writes what is to be said of an experiment as a whole.
pub(super) type Judge<'a> = dyn Fn(&RunDir, &Ran) -> Result<Vec<Section>, CliError> + 'a;

/// What was run of an experiment.
pub(super) struct Ran<'a> {
    pub(super) entries: &'a [Entry],
    /// Where the entries' folders are.
    pub(super) here: &'a Path,
    /// Folders of entries that could not be run, and why.
    pub(super) skipped: &'a BTreeMap<String, String>,
}

/// Runs the experiment that `text` describes; `shown` is what messages call it.
///
/// # Errors
/// If the file does not make sense, or an analysis fails.
pub(super) fn run(shown: &str, text: &str, settings: &Settings) -> Result<(), CliError> {
    let spec: toml::Table = toml::from_str(text).map_err(|e| CliError::Input(format!("{shown}: {e}")))?;
    // Read from the text again, for messages that show the place.
    let file: File = toml::from_str(text).map_err(|e| CliError::Input(format!("{shown}: {e}")))?;
    run_file(shown, &file, &spec, settings)
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

/// Runs an experiment, of which `spec` is what its results depend on.
///
/// # Errors
/// As [`run`].
pub(super) fn run_file(shown: &str, file: &File, spec: &toml::Table, settings: &Settings) -> Result<(), CliError> {
    let mut entries = entries(shown, file)?;
    if settings.place.quiet {
        entries.iter_mut().for_each(|entry| entry.words.push("--quiet".to_string()));
    }
    // All of them are read before any is run.
    let read_in = |dir: &Path| entries.iter().map(|e| read(shown, e, dir)).collect::<Result<Vec<_>, _>>();
    let jobs = read_in(&settings.place.out)?;
    if settings.dry_run {
        return each(&jobs, |job, model, _| job.job().dry_run(model), &entries, settings);
    }
    let started = Instant::now();
    let directory = RunDir::create(&settings.place.out, settings.place.force, settings.place.resume)?;
    let parameters = parameters(spec)?;
    directory.claim(&parameters)?;
    let here = directory.folder();
    let jobs = read_in(here)?;
    let skipped = RefCell::new(BTreeMap::new());
    let run_one = |job: &Command, model: &Model, entry: &Entry| match one(job, model, entry, here, settings) {
        Err(CliError::NotAskable(why)) if settings.judge.is_some() => {
            // The folder has another name in the end.
            let why = why.replace(&format!("{}/", here.display()), OF_RUN);
            settings.note(&format!("{}: left out: {why}", entry.folder));
            skipped.borrow_mut().insert(entry.folder.clone(), why);
            Ok(())
        }
        outcome => outcome,
    };
    each(&jobs, run_one, &entries, settings)?;
    let skipped = skipped.into_inner();
    let is_there = |e: &&Entry| !skipped.contains_key(&e.folder);
    let mut sections = Vec::new();
    if let Some(name) = &file.compare {
        match compared(&directory, entries.iter().filter(is_there), name, here) {
            Ok(found) => sections = found,
            // Too few checkpoints are left.
            Err(CliError::Input(why)) if settings.judge.is_some() => settings.note(&why),
            Err(e) => return Err(e),
        }
    }
    if let Some(judge) = settings.judge {
        sections.splice(..0, judge(&directory, &Ran { entries: &entries, here, skipped: &skipped })?);
    }
    let folders: Vec<PathBuf> = entries.iter().filter(is_there).map(|e| here.join(&e.folder)).collect();
    let intro: Vec<String> = settings.intro.iter().chain(&file.intro).cloned().collect();
    let head = combine::Head { title: file.title.as_deref(), intro, sections };
    combine::write(&directory, &folders, head, &settings.command_line)?;
    let record = serde_json::json!({
        "command": "run",
        "command_line": settings.command_line,
        "parameters": parameters,
        "runs": entries.iter().filter(is_there).map(|e| e.folder.clone()).collect::<Vec<_>>(),
        "left_out": skipped,
        "version": env!("CARGO_PKG_VERSION"),
        "wall_s": started.elapsed().as_secs_f64(),
    });
    let json = serde_json::to_vec_pretty(&record).map_err(|e| CliError::Failed(e.to_string()))?;
    directory.write_atomic(RUN_FILE, &json)?;
    let path = directory.finish()?;
    if settings.place.json { Ok(()) } else { say(&format!("{}: report.html, report.md, tables.tex", path.display())) }
}

/// Compares the models by one of the entries, and by their behaviour.
fn compared<'a>(
    directory: &RunDir,
    entries: impl Iterator<Item = &'a Entry>,
    name: &str,
    here: &Path,
) -> Result<Vec<Section>, CliError> {
    let of = entries.filter(|e| e.name == name || e.words.first().is_some_and(|w| w == "behaviour"));
    let folders: Vec<PathBuf> = of.map(|e| here.join(&e.folder)).collect();
    // Which pairs an entry is over stands in the file: different ones are meant, and the report says so.
    compare::write(directory, &compare::checkpoints(&folders, true)?, "compare-")
}

impl Settings<'_> {
    /// Says something on standard error, unless it is to be quiet.
    fn note(&self, text: &str) {
        if !self.place.quiet {
            // Nowhere is left to say it if standard error is gone.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
}

/// Calls `f` for every job with its model, which is loaded once for the jobs in a row that ask for the same.
fn each(
    jobs: &[Command],
    f: impl Fn(&Command, &Model, &Entry) -> Result<(), CliError>,
    entries: &[Entry],
    settings: &Settings,
) -> Result<(), CliError> {
    let mut loaded: Option<(ModelArgs, Model)> = None;
    for (i, (job, entry)) in jobs.iter().zip(entries).enumerate() {
        let wanted = job.job().model();
        // Let go of the old one before the new one takes memory.
        let same = loaded.take_if(|(args, _)| args.same_model(wanted));
        drop(loaded.take());
        let (_, model) = loaded.insert(match same {
            Some(same) => same,
            None => (wanted.clone(), wanted.open()?),
        });
        settings.note(&format!("[{}/{}] {}", i + 1, jobs.len(), entry.folder));
        f(job, model, entry)?;
    }
    Ok(())
}

/// Runs an analysis, unless it was finished before the experiment was stopped.
fn one(command: &Command, model: &Model, entry: &Entry, here: &Path, settings: &Settings) -> Result<(), CliError> {
    let job: &dyn Job = command.job();
    let before = here.join(&entry.folder).join(RUN_FILE);
    if before.is_file() {
        let bad = |why: String| CliError::Input(format!("{}: {why}; start anew with --force", before.display()));
        let text = std::fs::read(&before).map_err(|e| bad(e.to_string()))?;
        let record: RunRecord = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        return match record.parameters == job.parameters(model, &Call { command: &[], run: Some(here) })? {
            true => Ok(()),
            false => Err(bad("its model or one of its files has changed since".to_string())),
        };
    }
    let mut words = entry.words.clone();
    words.extend(["--out".to_string(), settings.place.out.join(&entry.folder).display().to_string()]);
    let call = Call { command: &words, run: Some(here) };
    let mut finished: Finished = job.run(model, Instant::now(), &call)?;
    finished.path = settings.place.out.join(&entry.folder);
    finished.say(settings.place.json)
}

/// What the results depend on.
fn parameters(spec: &toml::Table) -> Result<Map<String, Value>, CliError> {
    let spec = serde_json::to_value(spec).map_err(|e| CliError::Input(e.to_string()))?;
    Ok(Map::from_iter([("spec".to_string(), spec)]))
}

/// Every analysis of every model, a model at a time.
fn entries(shown: &str, file: &File) -> Result<Vec<Entry>, CliError> {
    let bad = |why: String| CliError::Input(format!("{shown}: {why}"));
    if file.models.is_empty() || file.analysis.is_empty() {
        return Err(bad("`models` and [[analysis]] need one entry at least".to_string()));
    }
    let drafts = file.analysis.iter().enumerate().map(|(i, table)| Draft::of(i, table, file).map_err(bad));
    let drafts = drafts.collect::<Result<Vec<_>, _>>()?;
    let mut models: Vec<&String> = Vec::new();
    for model in drafts.iter().flat_map(|d| &d.models) {
        if !models.contains(&model) {
            models.push(model);
        }
    }
    let mut entries: Vec<Entry> = Vec::new();
    for (m, model) in models.iter().enumerate() {
        // Models of one name in different folders are told apart by their number.
        let same = models.iter().filter(|m| slug(m) == slug(model)).count() > 1;
        let number = if same { format!("-{}", m + 1) } else { String::new() };
        let prefix = if models.len() > 1 { format!("{}{number}-", slug(model)) } else { String::new() };
        for draft in drafts.iter().filter(|d| d.models.contains(model)) {
            let folder = format!("{prefix}{}", draft.name);
            if entries.iter().any(|e| e.folder == folder) {
                let why = format!("\"{folder}\" is there already; give one of them another `name`");
                return Err(bad(format!("{}: {why}", draft.at)));
            }
            let mut words = vec![draft.command.to_string(), (*model).clone()];
            for (key, value) in &draft.flags {
                let at = |why: String| bad(format!("{} ({}): `{key}`: {why}", draft.at, draft.command));
                let earlier = |name: &str| entries.iter().any(|e| e.folder == format!("{prefix}{name}"));
                let value = in_run(value, &prefix, earlier).map_err(at)?;
                words.extend(flag(key, &value).map_err(at)?);
            }
            let (name, model) = (draft.name.to_string(), (*model).clone());
            entries.push(Entry { folder, name, model, words });
        }
    }
    if let Some(name) = file.compare.as_ref().filter(|name| !drafts.iter().any(|d| d.name == name.as_str())) {
        return Err(bad(format!("`compare`: no [[analysis]] is called `{name}`")));
    }
    unused_defaults(file).map_or(Ok(entries), |key| Err(bad(format!("[defaults]: no analysis has a flag `{key}`"))))
}

/// An [[analysis]] of the file, as it is written.
struct Draft<'a> {
    /// What messages call it.
    at: String,
    command: &'a str,
    name: &'a str,
    models: Vec<String>,
    /// Its own flags, and those of the defaults that it knows.
    flags: Vec<(&'a str, &'a toml::Value)>,
}

impl<'a> Draft<'a> {
    fn of(i: usize, table: &'a toml::Table, file: &'a File) -> Result<Self, String> {
        let at = format!("[[analysis]] {}", i + 1);
        let text = |key: &str| match table.get(key) {
            Some(toml::Value::String(s)) => Ok(Some(s.as_str())),
            Some(other) => Err(format!("{at}: `{key}`: expected a string, found {}", other.type_str())),
            None => Ok(None),
        };
        let command = text("command")?.ok_or_else(|| format!("{at}: `command` is missing"))?;
        let name = text("name")?.unwrap_or(command);
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c)) {
            return Err(format!("{at}: `name`: \"{name}\" is no folder's name; use letters, digits, - and _"));
        }
        let models = match table.get("models") {
            None => expanded(&file.models)?,
            Some(list) => {
                let list = list.clone().try_into::<Vec<String>>().map_err(|e| format!("{at}: `models`: {e}"))?;
                expanded(&list).map_err(|why| format!("{at}: {why}"))?
            }
        };
        let known = flags(command).ok_or_else(|| format!("{at}: `{command}` is no analysis"))?;
        let is_known = |key: &str| known.iter().any(|f| f == &key.replace('_', "-"));
        let own = |key: &str| table.keys().any(|k| k.replace('_', "-") == key.replace('_', "-"));
        let defaults = file.defaults.iter().filter(|(key, _)| is_known(key) && !own(key));
        let all = defaults.chain(table.iter().filter(|(key, _)| !OWN_KEYS.contains(&key.as_str())));
        let flags: Vec<(&str, &toml::Value)> = all.map(|(key, value)| (key.as_str(), value)).collect();
        if let Some((key, _)) = flags.iter().find(|(key, _)| !is_known(key)) {
            let near = meant(&key.replace('_', "-"), known.iter().map(String::as_str));
            let near = near.map_or(String::new(), |n| format!("; did you mean `{}`?", n.replace('-', "_")));
            return Err(format!("{at} ({command}): no flag `{key}`{near}"));
        }
        Ok(Draft { at, command, name, models, flags })
    }
}

/// Models with patterns replaced by what they match, in the order of their names; each once.
///
/// # Errors
/// If a pattern is none, or nothing matches it.
pub(super) fn expanded(models: &[String]) -> Result<Vec<String>, String> {
    let mut found: Vec<String> = Vec::new();
    for model in models {
        let pattern = model.contains(['*', '?', '[']) && !Path::new(model).exists();
        let mut matched = vec![model.clone()];
        if pattern {
            let paths = glob::glob(model).map_err(|e| format!("`models`: \"{model}\" is no pattern: {e}"))?;
            matched = paths.filter_map(|p| Some(p.ok()?.display().to_string())).collect();
            if matched.is_empty() {
                return Err(format!("`models`: nothing matches \"{model}\"; check the path"));
            }
        }
        matched.retain(|m| !found.contains(m));
        found.extend(matched);
    }
    Ok(found)
}

/// A value whose `run:NAME/FILE` names the folder that an earlier entry of the same model has.
fn in_run(value: &toml::Value, prefix: &str, earlier: impl Fn(&str) -> bool + Copy) -> Result<toml::Value, String> {
    match value {
        toml::Value::String(text) if text.starts_with(OF_RUN) => {
            let rest = &text[OF_RUN.len()..];
            let (name, file) = rest.split_once('/').ok_or_else(|| format!("`{text}`: write run:NAME/FILE"))?;
            if !earlier(name) {
                return Err(format!("`{text}`: no entry before this one is called `{name}`"));
            }
            Ok(toml::Value::String(format!("{OF_RUN}{prefix}{name}/{file}")))
        }
        toml::Value::Array(values) => {
            values.iter().map(|v| in_run(v, prefix, earlier)).collect::<Result<_, _>>().map(toml::Value::Array)
        }
        other => Ok(other.clone()),
    }
}

/// A default that no analysis of the file knows.
fn unused_defaults(file: &File) -> Option<&String> {
    let commands: Vec<&str> = file.analysis.iter().filter_map(|t| t.get("command")?.as_str()).collect();
    let known = |key: &str| commands.iter().filter_map(|c| flags(c)).flatten().any(|f| f == key.replace('_', "-"));
    file.defaults.keys().find(|key| !known(key))
}

/// The long flags of an analysis; none if there is no such analysis.
fn flags(command: &str) -> Option<Vec<String>> {
    crate::analyses::WRITERS.iter().find(|w| w.name == command)?;
    let cli = Cli::command();
    let found = cli.find_subcommand(command)?;
    let long = found.get_arguments().filter_map(|a| a.get_long().map(str::to_string));
    Some(long.filter(|name| !OF_THE_RUN.contains(&name.as_str())).collect())
}

/// A key and its value as words.
fn flag(key: &str, value: &toml::Value) -> Result<Vec<String>, String> {
    let key = key.replace('_', "-");
    let one = |value: &toml::Value| match value {
        toml::Value::String(s) => Ok(format!("--{key}={s}")),
        toml::Value::Integer(n) => Ok(format!("--{key}={n}")),
        toml::Value::Float(x) => Ok(format!("--{key}={x}")),
        other => Err(format!("expected a string, a number or true, found {}", other.type_str())),
    };
    match value {
        toml::Value::Boolean(true) => Ok(vec![format!("--{key}")]),
        toml::Value::Boolean(false) => Ok(Vec::new()),
        toml::Value::Array(values) => values.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// A model's name as part of a folder's.
fn slug(model: &str) -> String {
    let name = crate::names::short_name(model);
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    name.chars().map(plain).collect::<String>().trim_matches(['-', '.']).to_string()
}

/// A word with the files of the run where they are: `--circuit=run:screen/circuit.json`.
fn placed(word: &str, run: &Path) -> String {
    match word.split_once('=') {
        Some((key, value)) if key.starts_with("--") && value.starts_with(OF_RUN) => {
            format!("{key}={}", run.join(&value[OF_RUN.len()..]).display())
        }
        _ => word.to_string(),
    }
}

/// An entry as the command line's parser reads it, with the folder of the whole run.
fn read(shown: &str, entry: &Entry, run: &Path) -> Result<Command, CliError> {
    let out = run.join(&entry.folder);
    let words = std::iter::once("gatelens".to_string()).chain(entry.words.iter().map(|word| placed(word, run)));
    let words = words.chain(["--resume".to_string(), "--out".to_string(), out.display().to_string()]);
    let cli = Cli::try_parse_from(words).map_err(|e| {
        let text = e.render().to_string();
        let lines: Vec<&str> = text.lines().take_while(|l| !l.trim().is_empty()).map(str::trim).collect();
        let why = lines.join(" ").trim_start_matches("error: ").to_string();
        CliError::Input(format!("{shown}: {}: {why}", entry.folder))
    })?;
    match cli.command {
        Any::Analysis(command) => Ok(command),
        _ => Err(CliError::Input(format!("{shown}: {}: is no analysis", entry.folder))),
    }
}
