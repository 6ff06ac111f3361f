//! `gatelens status`: how far a run is that one process or several are at.

use super::gather::whole;
use super::slurm::queue::{Task, tasks};
use super::slurm::{Submitted, folder};
use super::{CliError, say};
use crate::report::cells::plural;
use crate::rundir::{PARTS_DIR, RUN_FILE, names};
use crate::study::parts::is_part;
use crate::study::share::Note;
use crate::study::share::claims::{STALE, claimed, owner};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The arguments of `status`.
#[derive(clap::Args)]
pub(super) struct Status {
    /// What the run was given as --out
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Print a machine-readable summary on standard output
    #[arg(long)]
    json: bool,
}

/// How far a run is.
#[derive(Debug, Default, Serialize)]
struct State {
    complete: bool,
    /// Of an experiment, those that are finished; else none.
    finished: Vec<String>,
    /// By the name of an analysis that is not finished; `.` of a run that is no experiment.
    unfinished: BTreeMap<String, Parts>,
    /// The last job of each script.
    jobs: BTreeMap<String, Vec<Job>>,
}

/// The parts of an analysis that is not finished.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Parts {
    done: usize,
    /// About how many there will be; none where that is not known.
    expected: Option<usize>,
    /// Who is at work on one each.
    running: Vec<String>,
    /// Who was at work on one and has said nothing for a minute.
    lost: Vec<String>,
}

/// A task of a job.
#[derive(Debug, Serialize)]
struct Job {
    task: String,
    state: String,
    /// The last lines of its log, where it failed.
    log: Vec<String>,
}

/// How many lines of a log are shown.
const LINES: usize = 3;

impl Status {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let (out, partial) = names(&whole(&self.dir))?;
        let complete = out.join(RUN_FILE).is_file();
        if !complete && !partial.is_dir() && !folder(&out)?.is_dir() {
            let why = "no run was begun there; give what a run was given as --out";
            return Err(CliError::Input(format!("{}: {why}", out.display())));
        }
        let mut state = State { complete, jobs: jobs(&out)?, ..State::default() };
        if !complete && partial.is_dir() {
            state.look(&partial)?;
        }
        if self.json {
            return say(&serde_json::to_value(&state).unwrap_or_default().to_string());
        }
        say(&state.lines(&out).join("\n"))
    }
}

impl State {
    /// Looks at the folder of an unfinished run.
    fn look(&mut self, partial: &Path) -> Result<(), CliError> {
        let unread = |e: std::io::Error| CliError::Input(format!("{}: cannot be read: {e}", partial.display()));
        let mut is_experiment = false;
        for entry in fs::read_dir(partial).map_err(unread)? {
            let path = entry.map_err(unread)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.join(RUN_FILE).is_file() {
                self.finished.push(name);
            } else if let Some(name) = name.strip_suffix(".partial") {
                self.unfinished.insert(name.to_string(), Parts::of(&path));
            } else {
                continue;
            }
            is_experiment = true;
        }
        self.finished.sort();
        if !is_experiment {
            self.unfinished.insert(".".to_string(), Parts::of(partial));
        }
        Ok(())
    }

    fn lines(&self, out: &Path) -> Vec<String> {
        let mut lines = vec![match self.complete {
            true => format!("{}: is complete", out.display()),
            false => format!("{}: is not complete", out.display()),
        }];
        if !self.finished.is_empty() {
            lines.push(format!("finished: {}", self.finished.join(", ")));
        }
        lines.extend(self.unfinished.iter().map(|(name, parts)| match name.as_str() {
            "." => parts.to_string(),
            name => format!("{name}: {parts}"),
        }));
        for (script, jobs) in &self.jobs {
            let mut states: BTreeMap<&str, usize> = BTreeMap::new();
            jobs.iter().for_each(|job| *states.entry(&job.state).or_default() += 1);
            let states: Vec<String> = states.iter().map(|(state, n)| format!("{n} {}", state.to_lowercase())).collect();
            lines.push(format!("jobs of {script}: {}", states.join(", ")));
            for job in jobs.iter().filter(|job| !job.log.is_empty()) {
                lines.push(format!("  {} {}:", job.task, job.state.to_lowercase()));
                lines.extend(job.log.iter().map(|line| format!("    {line}")));
            }
        }
        lines
    }
}

impl Parts {
    fn of(partial: &Path) -> Parts {
        let files = fs::read_dir(partial.join(PARTS_DIR)).into_iter().flatten().flatten().map(|entry| entry.path());
        let files: Vec<PathBuf> = files.collect();
        let done: BTreeSet<&str> =
            files.iter().filter(|path| is_part(path)).filter_map(|path| path.file_name()?.to_str()).collect();
        let expected = Note::read(partial).map(|note| note.parts).filter(|n| *n > 0);
        let mut parts = Parts { done: done.len(), expected, ..Parts::default() };
        // Of several claims to a part the last is in force.
        let mut claims: BTreeMap<&str, (usize, &PathBuf)> = BTreeMap::new();
        for path in &files {
            if let Some((name, number)) = claimed(path)
                && !done.contains(name)
                && claims.get(name).is_none_or(|(before, _)| *before < number)
            {
                claims.insert(name, (number, path));
            }
        }
        for (_, path) in claims.values() {
            let word = fs::read_to_string(path).unwrap_or_default();
            let who = owner(&word).map_or("unknown".to_string(), |(machine, process)| format!("{machine}:{process}"));
            let age = path.metadata().and_then(|of| of.modified()).ok().and_then(|at| at.elapsed().ok());
            let list = if age.is_some_and(|age| age > STALE) { &mut parts.lost } else { &mut parts.running };
            list.push(who);
        }
        parts.running.sort();
        parts.lost.sort();
        parts
    }
}

impl std::fmt::Display for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.expected {
            Some(expected) => {
                write!(f, "{} of about {} done", self.done, plural(expected.max(self.done) as i64, "part"))?
            }
            None => write!(f, "{} done", plural(self.done as i64, "part"))?,
        }
        let mut list = |what: &str, who: &[String]| match who {
            [] => Ok(()),
            who => write!(f, ", {} {what} ({})", who.len(), who.join(", ")),
        };
        list("running", &self.running)?;
        list("lost", &self.lost)
    }
}

/// The last job of each script, with logs of what failed.
fn jobs(out: &Path) -> Result<BTreeMap<String, Vec<Job>>, CliError> {
    let logs = folder(out)?.join("logs");
    let mut jobs = BTreeMap::new();
    for (script, ids) in Submitted::of(out)?.jobs {
        let Some(id) = ids.last() else { continue };
        let job = |task: Task| {
            let log =
                if task.has_failed() { tail(&logs.join(format!("{script}-{}.log", task.id))) } else { Vec::new() };
            Job { task: task.id, state: task.state, log }
        };
        let mut of: Vec<Job> = tasks(id)?.into_iter().map(job).collect();
        if of.is_empty() {
            // What it came to is not known, but what it said last is.
            let log = last_words(&logs, &format!("{script}-{id}"));
            of.push(Job { task: id.clone(), state: "FORGOTTEN".to_string(), log });
        }
        jobs.insert(script, of);
    }
    Ok(jobs)
}

/// The last lines of the log that was written to last, of those whose names begin so.
fn last_words(logs: &Path, begin: &str) -> Vec<String> {
    let is_one = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin));
    let all = fs::read_dir(logs).into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_one);
    let written = |path: &PathBuf| path.metadata().and_then(|of| of.modified()).ok();
    all.max_by_key(written).map_or_else(Vec::new, |path| tail(&path))
}

/// The last lines of a log.
fn tail(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| line.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_from_claims_and_claims_by_whether_their_owner_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let parts = folder.path().join(PARTS_DIR);
        fs::create_dir(&parts).unwrap();
        let write = |name: &str, text: &str| fs::write(parts.join(name), text).unwrap();
        write("a.safetensors", "");
        write("a.safetensors.claim.0", "0000000001 one 1\n");
        write("b.json.claim.0", "0000000001 one 1\n");
        write("b.json.claim.1", "0000000001 two 2\n");
        write("c.json.claim.0", "0000000001 three 3\n");
        write(".d.json.1.tmp", "");
        let old = std::time::SystemTime::now() - 2 * STALE;
        fs::File::open(parts.join("c.json.claim.0")).unwrap().set_modified(old).unwrap();
        let found = Parts::of(folder.path());
        assert_eq!((found.done, found.expected), (1, None));
        assert_eq!((found.running.join(" "), found.lost.join(" ")), ("two:2".to_string(), "three:3".to_string()));
        assert_eq!(found.to_string(), "1 part done, 1 running (two:2), 1 lost (three:3)");
    }
}
