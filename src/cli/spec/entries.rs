//! What an experiment file holds: its entries, as words that the command line's parser reads.

use crate::analyses::Command;
use crate::cli::compare::is_followed;
use crate::cli::share::With;
use crate::cli::{Cli, CliError, Command as Any};
use crate::names::meant;
use crate::study::OF_RUN;
use clap::{Arg, CommandFactory, Parser};
use std::path::Path;

/// An experiment file as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct File {
    /// The report's title.
    pub(in crate::cli) title: Option<String>,
    /// What the report begins with.
    pub(in crate::cli) intro: Option<String>,
    /// What `MODEL` is on the command line, one or more; patterns as `checkpoints/step-*` stand for all that they match.
    pub(in crate::cli) models: Vec<String>,
    /// The name of the entry whose heads are compared between the models.
    pub(in crate::cli) compare: Option<String>,
    /// Flags for every analysis that knows them.
    #[serde(default)]
    pub(in crate::cli) defaults: toml::Table,
    pub(in crate::cli) analysis: Vec<toml::Table>,
}

/// One analysis of one model.
pub(in crate::cli) struct Entry {
    /// Its folder within the run directory.
    pub(in crate::cli) folder: String,
    /// What the file calls it.
    pub(in crate::cli) name: String,
    /// The model, as it was named.
    pub(in crate::cli) model: String,
    /// The words after `gatelens`, but for `--out`.
    pub(super) words: Vec<String>,
}

/// Flags that belong to the experiment as a whole.
const OF_THE_RUN: [&str; 10] =
    ["out", "force", "resume", "shard", "join", "gathered", "dry-run", "prompt-tokens", "quiet", "json"];

/// Keys of an entry that are no flags.
const OWN_KEYS: [&str; 3] = ["command", "name", "models"];

/// Every analysis of every model, a model at a time.
pub(super) fn entries(shown: &str, file: &File) -> Result<Vec<Entry>, CliError> {
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
    file.compare.as_ref().map_or(Ok(()), |name| comparable(name, &drafts)).map_err(bad)?;
    unused_defaults(file).map_or(Ok(entries), |key| Err(bad(format!("[defaults]: no analysis has a flag `{key}`"))))
}

/// Whether the entry that models are to be compared by shows which heads carry a behaviour, and stands for several models.
fn comparable(name: &str, drafts: &[Draft]) -> Result<(), String> {
    let named: Vec<&Draft> = drafts.iter().filter(|draft| draft.name == name).collect();
    if named.is_empty() {
        return Err(format!("`compare`: no [[analysis]] is called `{name}`"));
    }
    if let Some(other) = named.iter().find(|draft| !is_followed(draft.command)) {
        let known =
            "`screen` or `interchange`, or, of checkpoints of one training, by one of `edges`, `circuit` or `lens`";
        return Err(format!(
            "`compare`: `{name}` is a run of `{}`; models are compared by one of {known}",
            other.command
        ));
    }
    match named.iter().map(|draft| draft.models.len()).sum::<usize>() {
        0 | 1 => Err(format!("`compare`: `{name}` is run on one model; a comparison needs two")),
        _ => Ok(()),
    }
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
        let counts = |key: &str| is_known(key) && !own(key) && !is_excluded(command, key, table);
        let defaults = file.defaults.iter().filter(|(key, _)| counts(key));
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
pub(in crate::cli) fn expanded(models: &[String]) -> Result<Vec<String>, String> {
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

/// Whether a flag of an analysis and one of those that an entry has exclude each other.
fn is_excluded(command: &str, key: &str, entry: &toml::Table) -> bool {
    let cli = Cli::command();
    let Some(analysis) = cli.find_subcommand(command) else { return false };
    let of = |key: &str| {
        let long = key.replace('_', "-");
        analysis.get_arguments().find(|arg| arg.get_long() == Some(long.as_str()))
    };
    let excludes = |a: &Arg, b: &Arg| analysis.get_arg_conflicts_with(a).iter().any(|of| of.get_id() == b.get_id());
    let given = entry.iter().filter(|(_, value)| value.as_bool() != Some(false)).filter_map(|(key, _)| of(key));
    of(key).is_some_and(|arg| given.into_iter().any(|other| excludes(arg, other) || excludes(other, arg)))
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
pub(super) fn slug(model: &str) -> String {
    let name = crate::names::short_name(model);
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    name.chars().map(plain).collect::<String>().trim_matches(['-', '.']).to_string()
}

impl Entry {
    /// The files of the run itself that it reads: `screen/circuit.json`.
    pub(super) fn reads_of_run(&self) -> impl Iterator<Item = &str> {
        self.words.iter().filter_map(|word| of_run(word).map(|(_, file)| file))
    }
}

/// The flag of a word, and the file of the run itself that it names.
fn of_run(word: &str) -> Option<(&str, &str)> {
    let (flag, value) = word.split_once('=').filter(|(flag, _)| flag.starts_with("--"))?;
    Some((flag, value.strip_prefix(OF_RUN)?))
}

/// A word with the files of the run where they are: `--circuit=run:screen/circuit.json`.
pub(in crate::cli) fn placed(word: &str, run: &Path) -> String {
    match of_run(word) {
        Some((flag, file)) => format!("{flag}={}", run.join(file).display()),
        None => word.to_string(),
    }
}

/// An entry as the command line's parser reads it, with the folder of the whole run and whoever computes it.
pub(super) fn read(shown: &str, entry: &Entry, run: &Path, with: With) -> Result<Command, CliError> {
    let out = run.join(&entry.folder);
    let words = std::iter::once("gatelens".to_string()).chain(entry.words.iter().map(|word| placed(word, run)));
    let words = words.chain(["--resume".to_string(), "--out".to_string(), out.display().to_string()]);
    let words = words.chain(with.words());
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
