//! `gatelens slurm`: an experiment as job arrays of a Slurm cluster.
//!
//! Every task of an array is the same command with `--join`, so that tasks share the work as they find it, and one that was
//! preempted loses a piece at most. There is an array for each model, and a job for the report that waits for all of them. What
//! was submitted stands beside the run directory, in `DIR.slurm`: given again, the command submits what is missing and no more.

mod profile;
pub(super) mod queue;

use super::analysis::quoted;
use super::model_args::Output;
use super::share::{without, without_flags};
use super::spec::listed;
use super::{Cli, CliError, Command as Any, program, say};
use crate::files::write_file;
use crate::rundir::{RUN_FILE, RunDirError, names, with_suffix};
use clap::Parser;
use profile::{Profile, Resources};
use queue::Task;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The arguments of `slurm`.
#[derive(clap::Args)]
#[command(after_long_help = PROFILE)]
pub(super) struct Slurm {
    /// The experiment file, as `run` takes it; an array for each of its models
    #[arg(value_name = "SPEC.toml", required_unless_present = "command", conflicts_with = "command")]
    spec: Option<PathBuf>,

    /// Write the run directory here, and scripts, logs and the list of jobs to DIR.slurm
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Run up to this many tasks of an array at once; no more than there are pieces of work
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tasks: u32,

    /// What the cluster wants to be told: partition, account, time, memory; --help shows a file
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,

    /// Show the scripts, and submit nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) output: Output,

    /// In place of a file: an analysis or `policy` with its arguments, but for --out
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What a profile holds, in short.
const PROFILE: &str = "\
A profile is TOML, and every line of it may be left out:

  partition = \"cpu\"
  account = \"lab\"
  cpus = 8                        # of each task (default: 4)
  memory = \"24GiB\"                # of each task (default: what a dry run says, rounded up)
  time = \"4:00:00\"                # of each task (default: what a dry run says, doubled and rounded up)
  gres = \"gpu:1\"
  lines = [\"--constraint=avx512\"] # further options of sbatch
  setup = [\"module load cuda/13\"] # shell lines before gatelens

After `--` stands a command in place of a file: gatelens slurm --out runs/a -- interchange MODEL --pairs pairs.jsonl";

/// What was submitted, as `DIR.slurm` has it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Submitted {
    /// By the name of a script, the ids of its jobs, the last one last.
    pub(super) jobs: BTreeMap<String, Vec<String>>,
}

/// The list of jobs.
const JOBS_FILE: &str = "jobs.json";

/// The job that writes the report.
const GATHER: &str = "gather";

impl Submitted {
    /// What was submitted for a run directory.
    ///
    /// # Errors
    /// If what says so cannot be read.
    pub(super) fn of(out: &Path) -> Result<Submitted, CliError> {
        let path = folder(out)?.join(JOBS_FILE);
        if !path.exists() {
            return Ok(Submitted::default());
        }
        let bad =
            |e: &dyn std::fmt::Display| CliError::Input(format!("{}: cannot be read: {e}; remove it", path.display()));
        serde_json::from_slice(&std::fs::read(&path).map_err(|e| bad(&e))?).map_err(|e| bad(&e))
    }

    fn keep(&self, out: &Path) -> Result<(), CliError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        Ok(write_file(&folder(out)?.join(JOBS_FILE), &text).map_err(RunDirError::from)?)
    }

    /// The last job of a script.
    fn last(&self, script: &str) -> Option<&String> {
        self.jobs.get(script).and_then(|ids| ids.last())
    }
}

/// Where scripts, logs and the list of jobs are.
pub(super) fn folder(out: &Path) -> Result<PathBuf, CliError> {
    Ok(with_suffix(&names(out)?.0, ".slurm"))
}

/// An array of jobs.
struct Work {
    /// What its script is called.
    name: String,
    /// The words after `gatelens`.
    words: Vec<String>,
    /// The folders of the analyses that it runs; none of a run that is no experiment.
    entries: Vec<String>,
}

impl Slurm {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let (out, _) = names(&self.out)?;
        if out.join(RUN_FILE).exists() {
            return say(&format!("{}: is complete; nothing was left to submit", out.display()));
        }
        let works = self.works(&out)?;
        works.iter().try_for_each(|work| checked(&work.words))?;
        let profile = self.profile.as_deref().map_or(Ok(Profile::default()), Profile::read)?;
        let needs = self.needs(&works, &profile)?;
        let scripts: Vec<(String, String)> = works
            .iter()
            .zip(&needs)
            .map(|(work, needs)| Ok((work.name.clone(), self.script(&work.name, &work.words, needs, &profile)?)))
            .collect::<Result<_, CliError>>()?;
        let gather =
            self.script(GATHER, &["gather".to_string(), shown(&out)], &Resources::last(&needs, &profile), &profile)?;
        if self.dry_run {
            let shown = scripts.iter().map(|(name, text)| (name.as_str(), text)).chain([(GATHER, &gather)]);
            let texts: Vec<String> = shown.map(|(name, text)| format!("# {name}.sh\n{text}")).collect();
            return say(&texts.join("\n"));
        }
        let folder = folder(&out)?;
        std::fs::create_dir_all(folder.join("logs"))
            .map_err(|e| CliError::Failed(format!("{}: cannot be made: {e}", folder.display())))?;
        for (name, text) in scripts.iter().map(|(name, text)| (name.as_str(), text)).chain([(GATHER, &gather)]) {
            write_file(&folder.join(format!("{name}.sh")), text.as_bytes()).map_err(RunDirError::from)?;
        }
        self.submit(&out, &folder, &works)
    }

    /// Submits what is neither done nor on its way, and the report after all of it.
    fn submit(&self, out: &Path, folder: &Path, works: &[Work]) -> Result<(), CliError> {
        let mut submitted = Submitted::of(out)?;
        let (mut awaited, mut said) = (Vec::new(), Vec::new());
        let gather = submitted.last(GATHER).cloned();
        let states = gather.as_deref().map(queue::tasks).transpose()?.unwrap_or_default();
        let waits = states.iter().any(|task| task.state == "PENDING");
        if let (Some(id), true) = (&gather, !waits && states.iter().any(Task::is_on_its_way)) {
            return say(&format!("{GATHER}: job {id} is at work, and nothing is submitted before it ends"));
        }
        let mut any_new = false;
        for work in works {
            let last = submitted.last(&work.name).cloned();
            let is_on_its_way = last.as_deref().map_or(Ok(false), queue::is_on_its_way)?;
            if work.is_done(out)? {
                said.push(format!("{}: is done", work.name));
            } else if let Some(id) = last.filter(|_| is_on_its_way) {
                said.push(format!("{}: job {id} is on its way", work.name));
                awaited.push(id);
            } else {
                let id = queue::submit(&folder.join(format!("{}.sh", work.name)), &[])?;
                said.push(format!("{}: job {id}", work.name));
                submitted.jobs.entry(work.name.clone()).or_default().push(id.clone());
                // What was submitted is on record, whatever comes next.
                submitted.keep(out)?;
                awaited.push(id);
                any_new = true;
            }
        }
        match gather.filter(|_| waits) {
            Some(id) if !any_new => said.push(format!("{GATHER}: job {id} is on its way")),
            earlier => {
                // It waits for jobs that are not all there are.
                earlier.iter().for_each(|id| queue::cancel(id));
                let id = queue::submit(&folder.join(format!("{GATHER}.sh")), &awaited)?;
                said.push(format!("{GATHER}: job {id}"));
                submitted.jobs.entry(GATHER.to_string()).or_default().push(id);
                submitted.keep(out)?;
            }
        }
        if self.output.json {
            return say(&serde_json::to_value(&submitted).unwrap_or_default().to_string());
        }
        said.push(format!("`gatelens status {}` says how it goes", shown(out)));
        say(&said.join("\n"))
    }

    /// The arrays: one for each model of an experiment, else one.
    fn works(&self, out: &Path) -> Result<Vec<Work>, CliError> {
        let to = ["--out".to_string(), shown(out), "--join".to_string()];
        let Some(spec) = &self.spec else {
            let words = own(&self.command).into_iter().chain(to);
            return Ok(vec![Work { name: "work".to_string(), words: words.collect(), entries: Vec::new() }]);
        };
        let mut works: Vec<(String, Work)> = Vec::new();
        for (folder, model, slug) in listed(spec)? {
            if let Some((_, work)) = works.iter_mut().find(|(of, _)| *of == model) {
                work.entries.push(folder);
                continue;
            }
            let words = ["run".to_string(), shown(spec)].into_iter().chain(to.clone());
            let words = words.chain(["--only".to_string(), model.clone()]).collect();
            let taken = works.iter().any(|(_, work)| work.name == slug) || slug == GATHER || slug.is_empty();
            let name = if taken { format!("{slug}-{}", works.len() + 1) } else { slug };
            works.push((model, Work { name, words, entries: vec![folder] }));
        }
        Ok(works.into_iter().map(|(_, work)| work).collect())
    }

    /// What each array needs: as the profile says, else as a dry run does.
    fn needs(&self, works: &[Work], profile: &Profile) -> Result<Vec<Resources>, CliError> {
        if let Some(known) = profile.resources(self.tasks) {
            return Ok(works.iter().map(|_| known.clone()).collect());
        }
        let words = match &self.spec {
            Some(spec) => vec!["run".to_string(), shown(spec)],
            None => own(&self.command),
        };
        let lines = dry_run(&words)?;
        let of = |work: &Work| {
            let own = lines.iter().filter(|line| match line["entry"].as_str() {
                Some(entry) if !work.entries.is_empty() => work.entries.iter().any(|own| own == entry),
                _ => true,
            });
            Resources::estimated(&own.collect::<Vec<_>>(), self.tasks, profile)
                .map_err(|why| CliError::Input(format!("{}: {why}", work.name)))
        };
        works.iter().map(of).collect()
    }

    /// The script of a job.
    fn script(&self, name: &str, words: &[String], needs: &Resources, profile: &Profile) -> Result<String, CliError> {
        let folder = std::path::absolute(folder(&self.out)?).map_err(|e| CliError::Failed(e.to_string()))?;
        let here = std::env::current_dir().map_err(|e| CliError::Failed(e.to_string()))?;
        if let Some(c) = shown(&folder).chars().find(|c| c.is_whitespace() || "%\"'\\".contains(*c)) {
            let why = format!("sbatch would not take a path with {c:?} for logs; choose another --out");
            return Err(CliError::Input(format!("{}: {why}", folder.display())));
        }
        let array = name != GATHER;
        let mut options = vec![format!("--job-name=gatelens-{name}")];
        options.extend(array.then(|| format!("--array=1-{}", needs.tasks)));
        let log = folder.join("logs").join(format!("{name}-{}.log", if array { "%A_%a" } else { "%j" }));
        // A job that was requeued goes on in its log.
        options.extend([
            format!("--output={}", log.display()),
            "--open-mode=append".to_string(),
            "--requeue".to_string(),
        ]);
        options.extend(profile.options(needs));
        let mut lines = vec!["#!/usr/bin/env bash".to_string()];
        lines.extend(options.iter().map(|option| format!("#SBATCH {option}")));
        lines.push("set -eo pipefail".to_string());
        lines.push(format!("cd {}", quoted(&shown(&here))));
        lines.extend(profile.setup.iter().cloned());
        lines.push("export RAYON_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}".to_string());
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let program: Vec<String> = program()?.iter().map(|word| quoted(word)).collect();
        lines.push(format!("exec {} {}", program.join(" "), words.join(" ")));
        Ok(lines.join("\n") + "\n")
    }
}

impl Work {
    /// Whether all of its analyses are finished.
    fn is_done(&self, out: &Path) -> Result<bool, CliError> {
        let (_, partial) = names(out)?;
        Ok(!self.entries.is_empty() && self.entries.iter().all(|entry| partial.join(entry).join(RUN_FILE).exists()))
    }
}

/// The words of a command, but for those that the array has its own of.
fn own(words: &[String]) -> Vec<String> {
    without_flags(&without(words), &["--resume", "--quiet", "--json"], &[])
}

/// Refuses words that no task could run.
fn checked(words: &[String]) -> Result<(), CliError> {
    let said = |e: clap::Error| {
        let text = e.render().to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string();
        CliError::Input(format!("gatelens {}: {first}", words.join(" ")))
    };
    let words_of = std::iter::once("gatelens").chain(words.iter().map(String::as_str));
    match Cli::try_parse_from(words_of).map_err(said)?.command {
        Any::Analysis(_) | Any::Run(_) | Any::Policy(_) | Any::Demo(_) => Ok(()),
        _ => Err(CliError::Input(format!(
            "`{}` is not shared by processes; give an analysis, `policy` or an experiment file",
            words.first().map_or("", String::as_str)
        ))),
    }
}

/// What a dry run of a command says, a line for each analysis. It runs by itself: models are let go of with it.
fn dry_run(words: &[String]) -> Result<Vec<Value>, CliError> {
    let failed = |why: String| CliError::Failed(format!("the dry run: {why}"));
    let program = program()?;
    let mut command = Command::new(&program[0]);
    let output = command
        .args(&program[1..])
        .args(words)
        .args(["--dry-run", "--json", "--quiet"])
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(CliError::Input(said.trim().trim_start_matches("error: ").to_string()));
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    lines.lines().map(|line| serde_json::from_str(line).map_err(|e| failed(format!("{e}: {line}")))).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
