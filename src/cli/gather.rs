//! `gatelens gather`: the parts of several shards in one folder, and the last step of the run that they are of.

use super::share::{without, without_flags};
use super::{Cli, CliError, say};
use crate::files::{TEMPORARY_SUFFIX, WriteError, write_file_with};
use crate::rundir::{LOCK_FILE, PARAMS_FILE, RUN_FILE, RunDirError, differences, names};
use crate::study::share::{Note, claims};
use clap::Parser;
use serde_json::{Map, Value};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The arguments of `gather`.
#[derive(clap::Args)]
pub(super) struct Gather {
    /// What the shards were given as --out: one folder that they shared, or several
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,

    /// Write the run directory here (default: DIR, if there is one)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Print a machine-readable summary on standard output
    #[arg(long)]
    json: bool,
}

impl Gather {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let out = match (&self.out, self.dirs.as_slice()) {
            (Some(out), _) => out,
            (None, [dir]) => dir,
            (None, _) => return Err(CliError::Input("give --out: where several shards are gathered".to_string())),
        };
        let out = &whole(out);
        if out.join(RUN_FILE).is_file() {
            return say(&format!("{}: is complete; nothing is left to gather", out.display()));
        }
        let found = self.dirs.iter().map(|dir| Shard::open(&whole(dir))).collect::<Result<Vec<_>, _>>()?;
        let [first, others @ ..] = found.as_slice() else { return Ok(()) };
        for other in others {
            first.is_of_same_run(other)?;
        }
        let (_, partial) = names(out)?;
        let mut all = 0;
        for shard in found.iter().filter(|shard| !is_same(&shard.partial, &partial)) {
            all += gathered(&shard.partial, &partial)?;
        }
        if all > 0 && !self.json {
            say(&format!("{}: {all} files of {} shards", partial.display(), found.len()))?;
        }
        self.finish(&first.note, out)
    }

    /// Runs the command of the shards once more, for which all parts are there.
    fn finish(&self, note: &Note, out: &Path) -> Result<(), CliError> {
        let here = std::env::current_dir().unwrap_or_default();
        if note.folder != here {
            // Nowhere is left to say it if standard error is gone.
            let _ = writeln!(
                std::io::stderr(),
                "note: the shards were run in {}; relative paths of their command are taken from here",
                note.folder.display()
            );
        }
        let mut words = placed(&without(&note.words), out);
        words.push("--gathered".to_string());
        words.extend(self.json.then(|| "--json".to_string()));
        let line = || words.iter().map(String::as_str);
        let cli = Cli::try_parse_from(std::iter::once("gatelens").chain(line()))
            .map_err(|e| CliError::Input(format!("the shards' command is no command of this version: {e}")))?;
        cli.command.run(&words)
    }
}

/// The words of a command with another place to write to, and without what says how to start or what to leave.
fn placed(words: &[String], out: &Path) -> Vec<String> {
    let mut placed = without_flags(words, &["--resume", "--json"], &["--out", "--only"]);
    placed.extend(["--out".to_string(), out.display().to_string()]);
    placed
}

/// The unfinished run of a shard.
struct Shard {
    partial: PathBuf,
    note: Note,
    parameters: Map<String, Value>,
}

impl Shard {
    fn open(dir: &Path) -> Result<Shard, CliError> {
        let (_, partial) = names(dir)?;
        let bad = |why: &str| CliError::Input(format!("{}: {why}", partial.display()));
        if !partial.is_dir() {
            return Err(match dir.join(RUN_FILE).is_file() {
                true => CliError::Input(format!("{}: is complete; there is nothing to gather", dir.display())),
                false => bad("is not there; give what the shards were given as --out"),
            });
        }
        let note = Note::read(&partial).ok_or_else(|| bad("is no run that was shared; go on from it with --resume"))?;
        if note.words.is_empty() {
            return Err(bad("was not begun by a command; finish it from where it was begun"));
        }
        let read = |text: Vec<u8>| serde_json::from_slice(&text).map_err(|e| e.to_string());
        let parameters = fs::read(partial.join(PARAMS_FILE)).map_err(|e| e.to_string()).and_then(read);
        let parameters = parameters.map_err(|e| bad(&format!("{PARAMS_FILE}: cannot be read: {e}")))?;
        Ok(Shard { partial, note, parameters })
    }

    /// Whether the two may be gathered.
    fn is_of_same_run(&self, other: &Shard) -> Result<(), CliError> {
        let bad = |why: String| {
            Err(CliError::Input(format!(
                "{}: does not go with {}: {why}",
                other.partial.display(),
                self.partial.display()
            )))
        };
        if let Err(why) = self.note.fits(&other.note) {
            return bad(why);
        }
        match differences(&self.parameters, &other.parameters) {
            differences if differences.is_empty() => Ok(()),
            differences => bad(differences.join(", ")),
        }
    }
}

/// Copies what is finished in the folder of an unfinished run into another, unless it is there; how many files that was. Parts of the
/// analyses of an experiment that are of another kind than those that are there are refused.
fn gathered(from: &Path, to: &Path) -> Result<usize, CliError> {
    fs::create_dir_all(to).map_err(|e| RunDirError::from(WriteError::new(to, "be made")(e)))?;
    let said = |why: String| CliError::Input(format!("{}: does not go with {}: {why}", from.display(), to.display()));
    if let (Some(here), Some(there)) = (Note::read(to), Note::read(from)) {
        here.fits(&there).map_err(said)?;
    }
    let parameters = |folder: &Path| -> Option<Map<String, Value>> {
        serde_json::from_slice(&fs::read(folder.join(PARAMS_FILE)).ok()?).ok()
    };
    if let (Some(here), Some(there)) = (parameters(to), parameters(from)) {
        let differences = differences(&here, &there);
        if !differences.is_empty() {
            return Err(said(differences.join(", ")));
        }
    }
    let unread = |e: std::io::Error| CliError::Input(format!("{}: cannot be read: {e}", from.display()));
    let mut n = 0;
    let entries = fs::read_dir(from).map_err(unread)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<std::io::Result<Vec<_>>>().map_err(unread)?;
    // The record comes last: what has one is complete.
    paths.sort_by_key(|path| path.file_name() == Some(OsStr::new(RUN_FILE)));
    for path in paths {
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        if path.is_dir() {
            // What is finished here needs no parts.
            let is_finished = |partial: &Path| whole(partial) != partial && whole(partial).join(RUN_FILE).exists();
            let finished = is_finished(&target) || is_finished(&path);
            n += if finished { 0 } else { gathered(&path, &target)? };
        } else if is_gathered(&path) && !target.exists() {
            let copied = |temporary: &Path| fs::copy(&path, temporary).map(drop);
            write_file_with(&target, copied).map_err(RunDirError::from)?;
            n += 1;
        }
    }
    Ok(n)
}

/// The run directory that is meant by its own name or by that of its unfinished folder.
pub(super) fn whole(dir: &Path) -> PathBuf {
    match dir.extension() == Some(OsStr::new("partial")) {
        true => dir.with_extension(""),
        false => dir.to_path_buf(),
    }
}

/// Whether a file is more than a sign of who is at work.
fn is_gathered(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name != LOCK_FILE && !name.ends_with(TEMPORARY_SUFFIX) && claims::claimed(path).is_none()
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
