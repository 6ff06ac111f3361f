//! The commands that run an analysis: flags, a study, and what is printed.

use super::findings::findings;
use super::model_args::Planned;
use super::share::{self, With};
use super::watch::Watch;
use super::{CliError, ModelArgs, bytes, cost, say};
use crate::analyses::{Analysis, WRITERS, Writer};
use crate::model::Model;
use crate::run::Engine;
use crate::study::{self, Finished, Meter, Origin, Place, Study};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

// Not a documentation comment: clap would show it as each command's.
// The arguments of an analysis: its own, and those that all share.
#[derive(clap::Args)]
pub struct Args<A: Analysis + clap::Args> {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    analysis: A,

    #[command(flatten)]
    how: How,
}

// Not a documentation comment: clap would show it as each command's.
// Where an analysis goes, and how it is computed.
#[derive(clap::Args)]
pub struct How {
    /// Write the run directory here
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    out: Option<PathBuf>,

    /// Replace the run directory if it exists
    #[arg(long)]
    force: bool,

    /// Go on with an unfinished run of the same command, or start if there is none
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    with: With,

    /// Draw everything random from this seed
    ///
    /// That is permutations, the bootstrap, random sets and directions, and sampled answers.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Compute with this engine
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,

    /// Print what would be run and what it costs under each engine, and stop
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    planned: Planned,
}

/// An analysis with its arguments, whichever it is.
pub trait Job {
    /// The model that it asks for.
    fn model(&self) -> &ModelArgs;

    /// Where it goes, and how it is computed.
    fn how(&self) -> &How;

    /// The analysis with its parameters.
    fn analysis(&self) -> &dyn study::Job;

    /// Opens the model, as far as it is asked for.
    ///
    /// # Errors
    /// As [`ModelArgs::open`].
    fn open(&self) -> Result<Model, CliError> {
        self.model().planned(self.how().planned)
    }
}

impl<A: Analysis + clap::Args> Job for Args<A> {
    fn model(&self) -> &ModelArgs {
        &self.model
    }

    fn how(&self) -> &How {
        &self.how
    }

    fn analysis(&self) -> &dyn study::Job {
        &self.analysis
    }
}

impl How {
    /// Whether it is only to be printed.
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run
    }

    /// Where the run directory goes.
    ///
    /// # Errors
    /// If that is not said.
    fn place(&self) -> Result<Place, CliError> {
        let out = self.out.clone().ok_or_else(|| CliError::Input("--out is missing".to_string()))?;
        Ok(Place { out, force: self.force, resume: self.resume, share: self.with.share() })
    }

    /// The study of a model, which nobody watches.
    pub(super) fn study(&self, model: &Arc<Model>) -> Study {
        Study { engine: self.engine, seed: self.seed, ..Study::of(model.clone()) }
    }
}

/// Runs one analysis, as words after `gatelens` asked for it.
///
/// # Errors
/// Whatever stops it.
pub fn run(job: &dyn Job, words: &[String]) -> Result<(), CliError> {
    let (meter, how, output) = (Meter::start(), job.how(), job.model().output);
    if how.is_dry() {
        let model = Arc::new(job.open()?);
        let cost = job.analysis().cost(&how.study(&model))?;
        return say(&if output.json { Value::Object(cost::json(&cost)).to_string() } else { cost::text(&cost) });
    }
    let place = how.place()?;
    place.check()?;
    let model = Arc::new(job.open()?);
    let origin = Origin { command_line: command_line(words), words: words.to_vec(), meter, run: None };
    match run_into(job, &model, &origin) {
        Err(CliError::Missing(missing)) => share::told(&missing, &place.out, place.share, output.json),
        outcome => told(&outcome?, output.json),
    }
}

/// Runs an analysis into its run directory, with a progress bar.
///
/// # Errors
/// Whatever stops it.
pub(super) fn run_into(job: &dyn Job, model: &Arc<Model>, origin: &Origin) -> Result<Finished, CliError> {
    watched(job.analysis(), job.how().study(model), &job.how().place()?, origin, job.model().output.quiet)
}

/// Runs a study into its run directory, with a progress bar.
///
/// # Errors
/// Whatever stops it.
pub(super) fn watched(
    job: &dyn study::Job,
    study: Study,
    place: &Place,
    origin: &Origin,
    quiet: bool,
) -> Result<Finished, CliError> {
    let watch = Arc::new(Watch::new(&place.out, quiet));
    let finished = job.run_into(&Study { progress: Some(watch.clone()), ..study }, place, origin)?;
    watch.done();
    Ok(finished)
}

/// The summary on standard output.
///
/// # Errors
/// If it cannot be written.
pub(super) fn told(finished: &Finished, json: bool) -> Result<(), CliError> {
    let (record, out) = (&finished.record, finished.path.display());
    if json {
        let mut summary = serde_json::to_value(record).unwrap_or_default();
        summary["out"] = Value::from(out.to_string());
        let rows = finished.tables.iter().map(|table| (table.name().to_string(), Value::from(table.rows())));
        summary["tables"] = rows.collect();
        return say(&summary.to_string());
    }
    if finished.was_complete {
        return say(&format!("{out}: is complete; nothing is left to run"));
    }
    let names: Vec<String> = finished.tables.iter().map(|table| format!("{}.parquet", table.name())).collect();
    let mut lines = vec![format!("{out}: {}, report.html", names.join(", "))];
    lines.extend(findings(&finished.tables));
    let many = |n: u64, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let forks = if record.forks == 0 { String::new() } else { format!(", {}", many(record.forks, "edited run")) };
    lines.push(format!(
        "{}{forks} in {:.1} s (load {:.1} s, output {:.1} s), peak memory {}",
        many(record.prompts, "prompt"),
        record.timings.compute_s,
        record.timings.load_s,
        record.timings.output_s,
        bytes(record.peak_rss_bytes)
    ));
    say(&lines.join("\n"))
}

/// What makes figures and reports of an analysis' tables.
///
/// # Errors
/// If there is no such analysis.
pub(crate) fn writer(name: &str) -> Result<&'static Writer, CliError> {
    let known = || WRITERS.iter().map(|w| w.name).collect::<Vec<_>>().join(", ");
    Writer::named(name).ok_or_else(|| CliError::Input(format!("`{name}` is no analysis; there are {}", known())))
}

/// The command as a shell would take it, without what says only how to start.
pub(crate) fn command_line(words: &[String]) -> String {
    let words = share::without(words);
    let words = words.iter().filter(|w| !matches!(w.as_str(), "--resume" | "--force" | "--quiet" | "--json"));
    std::iter::once("gatelens".to_string()).chain(words.map(|word| quoted(word))).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
