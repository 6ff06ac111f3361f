//! The command line: flags in one place, errors that say what would mend them, exit codes that scripts rely on.
//!
//! 0: done. 1: the work failed. 2: the command or an input file is wrong. Results go to files, summaries to standard
//! output, progress and errors to standard error.

pub mod analysis;
mod combine;
mod compare;
mod cost;
mod demo;
mod findings;
mod flags;
mod gather;
mod inspect;
mod interrupt;
mod log;
mod merge;
mod model_args;
mod overall;
mod pace;
mod policy;
mod rerun;
mod runs;
mod share;
mod shell;
mod slurm;
mod spec;
mod status;
mod subcommands;
mod task;
#[cfg(test)]
mod tests;
mod tokens;
mod trace;
mod watch;

pub use findings::findings;
pub use model_args::{ModelArgs, Output};
pub use spec::check_experiment;

use crate::analyses::AnalysisError;
use crate::dataset::DatasetError;
use crate::dataset::encode::EncodeError;
use crate::figure::FigureError;
use crate::model::ModelError;
use crate::model::device::DeviceError;
use crate::model::source::SourceError;
use crate::plan::PlanError;
use crate::report::ReportError;
use crate::run::RunError;
use crate::rundir::RunDirError;
use crate::site::SiteError;
use crate::study::{Missing, StudyError};
use crate::table::TableError;
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock};

/// Find out which parts of a language model decide a behaviour
#[derive(Parser)]
#[command(name = "gatelens", version, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run five analyses on the built-in model, whose circuit is known
    Demo(demo::Demo),
    /// Show a model's layers, heads, sizes, sites, chat template and memory
    #[command(mut_arg("model", inspect::unless_described))]
    Inspect(inspect::Inspect),
    /// Show what the model reads of prompts or pairs, token by token
    Tokens(tokens::Tokens),
    /// Record activations of prompts to a safetensors file
    Trace(trace::Trace),
    /// Make pairs of a task whose answers are known, cut alike by the model's tokenizer
    #[command(mut_arg("model", |arg| arg.long("model").value_name("MODEL")))]
    Task(task::Task),
    #[command(flatten)]
    Analysis(crate::analyses::Command),
    /// Run several analyses over several models, from one file
    Run(spec::Spec),
    /// Write a mixture of checkpoints, or an adapter in its base, as a Hugging Face folder
    Merge(Box<merge::Merge>),
    /// Make one report over several run directories: Markdown, HTML, LaTeX tables
    Report(combine::Combine),
    /// Compare where the circuit sits in several checkpoints, from their run directories
    Compare(compare::Compare),
    /// Test the claims of "How Alignment Routes" on a checkpoint, with a verdict on each
    Policy(policy::Policy),
    /// Submit an experiment to a Slurm cluster, as job arrays that share its work
    Slurm(slurm::Slurm),
    /// Show how far a run is that processes or jobs are at
    Status(status::Status),
    /// Make the tables of a run that several processes computed in shards
    Gather(gather::Gather),
    /// Run a run directory's command once more, and show what came out differently
    Rerun(rerun::Rerun),
    Completions(shell::Completions),
    Man(shell::Man),
}

/// What ends a command early.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command or an input file is wrong.
    #[error("{0}")]
    Input(String),
    /// The command is right, but what was found so far leaves nothing to ask.
    #[error("{0}")]
    NotAskable(String),
    /// Parts that other processes compute are not there yet.
    #[error("{0}")]
    Missing(Missing),
    /// The work failed.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            CliError::Input(_) | CliError::NotAskable(_) => 2,
            CliError::Missing(_) | CliError::Failed(_) => 1,
        }
    }
}

impl Command {
    /// Runs it; `words` are those after `gatelens`.
    fn run(&self, words: &[String]) -> Result<(), CliError> {
        match self {
            Command::Inspect(inspect) => inspect.run(),
            Command::Tokens(tokens) => tokens.run(),
            Command::Trace(trace) => trace.run(),
            Command::Task(task) => task.run(),
            Command::Demo(demo) => demo.run(words),
            Command::Analysis(command) => analysis::run(command.job(), words),
            Command::Run(spec) => spec.run(words),
            Command::Report(combine) => combine.run(words),
            Command::Compare(compare) => compare.run(words),
            Command::Merge(merge) => merge.run(words),
            Command::Policy(policy) => policy.run(words),
            Command::Slurm(slurm) => slurm.run(),
            Command::Status(status) => status.run(),
            Command::Gather(gather) => gather.run(),
            Command::Rerun(rerun) => rerun.run(),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
        }
    }

    /// Whether nothing is to be said but results and errors.
    fn is_quiet(&self) -> bool {
        match self {
            Command::Inspect(inspect) => inspect.model.output.quiet,
            Command::Tokens(tokens) => tokens.model.output.quiet,
            Command::Trace(trace) => trace.model.output.quiet,
            Command::Task(task) => task.model.output.quiet,
            Command::Demo(demo) => demo.output.quiet,
            Command::Analysis(command) => command.job().model().output.quiet,
            Command::Run(spec) => spec.output.quiet,
            Command::Policy(policy) => policy.is_quiet(),
            Command::Merge(merge) => merge.output.quiet,
            Command::Report(_) | Command::Compare(_) | Command::Gather(_) | Command::Rerun(_) => false,
            Command::Slurm(slurm) => slurm.output.quiet,
            Command::Status(_) => false,
            Command::Completions(_) | Command::Man(_) => false,
        }
    }
}

/// Errors that mean that an input is wrong.
macro_rules! input_errors {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for CliError {
            fn from(e: $error) -> Self {
                CliError::Input(e.to_string())
            }
        })*
    };
}

input_errors!(DatasetError, EncodeError, DeviceError, PlanError, SiteError);

/// Errors that mean that the work failed.
macro_rules! work_errors {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for CliError {
            fn from(e: $error) -> Self {
                CliError::Failed(e.to_string())
            }
        })*
    };
}

work_errors!(FigureError, ReportError, TableError, candle_core::Error);

impl From<AnalysisError> for CliError {
    fn from(e: AnalysisError) -> Self {
        match e {
            AnalysisError::NotAskable(why) => CliError::NotAskable(why),
            e if e.of_input() => CliError::Input(e.to_string()),
            e => CliError::Failed(e.to_string()),
        }
    }
}

impl From<StudyError> for CliError {
    fn from(e: StudyError) -> Self {
        match e {
            StudyError::Analysis(e) => e.into(),
            StudyError::Missing(missing) => CliError::Missing(missing),
            e if e.of_input() => CliError::Input(e.to_string()),
            e => CliError::Failed(e.to_string()),
        }
    }
}

impl From<ModelError> for CliError {
    fn from(e: ModelError) -> Self {
        match e {
            ModelError::Weights(e) if !e.of_input() => CliError::Failed(e.to_string()),
            ModelError::Source(SourceError::Demo(_) | SourceError::Unreachable { .. }) => {
                CliError::Failed(e.to_string())
            }
            _ => CliError::Input(e.to_string()),
        }
    }
}

impl From<RunError> for CliError {
    fn from(e: RunError) -> Self {
        if e.of_input() { CliError::Input(e.to_string()) } else { CliError::Failed(e.to_string()) }
    }
}

impl From<RunDirError> for CliError {
    fn from(e: RunDirError) -> Self {
        match e {
            RunDirError::Write(_) => CliError::Failed(e.to_string()),
            _ => CliError::Input(e.to_string()),
        }
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    ExitCode::from(command(std::env::args_os().skip(1)))
}

/// Runs a command by its words, those after `gatelens`, and gives its exit code. Ends the process where it shows help or its words
/// make no sense. A process runs one: it takes over what is said on standard error, and Ctrl-C.
pub fn command(words: impl IntoIterator<Item = OsString>) -> u8 {
    watch_panics();
    flags::start();
    let words: Vec<OsString> = words.into_iter().collect();
    let cli = Cli::parse_from(std::iter::once("gatelens".into()).chain(words.clone()));
    log::start(cli.command.is_quiet());
    interrupt::watch();
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    ended(|| cli.command.run(&words))
}

/// How this program is started, where that is not its own file: for jobs that are to start it.
static STARTED_BY: OnceLock<Vec<String>> = OnceLock::new();

/// Says that these words start this program, as `python -m gatelens` does.
pub fn started_by(words: Vec<String>) {
    // It is said once.
    let _ = STARTED_BY.set(words);
}

/// The words that start this program; one at least.
fn program() -> Result<Vec<String>, CliError> {
    if let Some(words) = STARTED_BY.get().filter(|words| !words.is_empty()) {
        return Ok(words.clone());
    }
    let unknown = |e: std::io::Error| CliError::Failed(format!("this program's file is not known: {e}"));
    Ok(vec![std::env::current_exe().map_err(unknown)?.display().to_string()])
}

/// All commands with their arguments, as clap has them: for what is made of them, documentation or another front end.
pub fn commands() -> clap::Command {
    Cli::command()
}

/// Where the last panic happened.
static PANICKED_AT: Mutex<Option<String>> = Mutex::new(None);

/// A panic is a defect of ours; a user is told so in one line, not shown a trace.
fn watch_panics() {
    std::panic::set_hook(Box::new(|info| {
        if let (Ok(mut at), Some(place)) = (PANICKED_AT.lock(), info.location()) {
            *at = Some(place.to_string());
        }
    }));
}

/// Runs a command to its end, says what went wrong, and gives the exit code.
fn ended(run: impl FnOnce() -> Result<(), CliError>) -> u8 {
    // Nothing that a panic leaves half done is looked at again.
    let error = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return 0,
        Ok(Err(e)) => e,
        Err(panic) => {
            let at = PANICKED_AT.lock().ok().and_then(|at| at.clone()).map_or(String::new(), |at| format!(" ({at})"));
            let what = said(&*panic);
            CliError::Failed(format!("internal: {what}{at}; this is a defect of gatelens, please report it"))
        }
    };
    // Nowhere is left to say it if standard error is gone too.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    error.code()
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_string());
    text.lines().collect::<Vec<_>>().join(" ")
}

/// Refuses a file that cannot or must not be written, before anything is computed.
fn check_out(out: &Path, force: bool) -> Result<(), CliError> {
    let refused = |why: &str| Err(CliError::Input(format!("{}: {why}", out.display())));
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty());
    if folder.is_some_and(|p| !p.is_dir()) {
        return refused("there is no such folder to write it in; make it, or choose another --out");
    }
    match std::fs::metadata(out) {
        Err(_) => Ok(()),
        // A file takes its place under a name of its own, which a device or a folder must not lose.
        Ok(there) if !there.is_file() => refused("is not a file; choose another --out"),
        Ok(_) if !force => refused("exists already; choose another --out, or replace it with --force"),
        Ok(_) => Ok(()),
    }
}

/// Writes to standard output; a reader who has left is no error.
fn say(text: &str) -> Result<(), CliError> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::Failed(format!("standard output: cannot be written: {e}")))
        }
        _ => Ok(()),
    }
}

/// A number of bytes as people read it.
fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut x, mut unit) = (n as f64, 0);
    while x >= 1024.0 && unit + 1 < units.len() {
        x /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{x:.1} {}", units[unit]) }
}
