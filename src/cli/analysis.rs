//! How every analysis is run: from its parameters to a run directory that appears whole.

use super::document::{document, write_report};
use super::{CliError, ModelArgs, bytes, say};
use crate::analyses::{Analysis, AnalysisError, Output, WRITERS, Writer};
use crate::model::Model;
use crate::plan::{Extent, Plan};
use crate::run::{Engine, Size, size};
use crate::rundir::{ModelRecord, RUN_FILE, RunDir, RunDirError, RunRecord, Timings, cpu_seconds, peak_rss_bytes};
use crate::session::Session;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::time::Instant;

// Not a documentation comment: clap would show it as each command's.
// The arguments of an analysis: its own, and those that all share.
#[derive(clap::Args)]
pub struct Args<A: Analysis> {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    analysis: A,

    /// The run directory to write
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    out: Option<PathBuf>,

    /// Replace the run directory if it exists
    #[arg(long)]
    force: bool,

    /// Go on with an unfinished run of the same command, or start, where there is none
    #[arg(long)]
    resume: bool,

    /// The seed of everything random: permutations, bootstrap, random sets and directions, sampled answers
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Which engine computes
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,

    /// Print what would be run, and what it costs under each engine
    #[arg(long)]
    dry_run: bool,
}

/// An analysis with its arguments, whichever it is.
pub trait Job {
    /// The model that it asks for.
    fn model(&self) -> &ModelArgs;

    /// Says early what would only fail after a large model is loaded.
    ///
    /// # Errors
    /// If the run directory exists and is not to be replaced.
    fn check(&self) -> Result<(), CliError>;

    /// What it would cost, printed.
    ///
    /// # Errors
    /// If the datasets cannot be used.
    fn dry_run(&self, model: &Model) -> Result<(), CliError>;

    /// Whether it is only to be printed.
    fn is_dry(&self) -> bool;

    /// All that its results depend on, as its record has it.
    ///
    /// # Errors
    /// If the datasets cannot be used.
    fn parameters(&self, model: &Model, call: &Call) -> Result<Map<String, Value>, CliError>;

    /// Runs it into its run directory; returns the record and where it is.
    ///
    /// # Errors
    /// If the datasets cannot be used, the run directory cannot be written, or the work fails.
    fn run(&self, model: &Model, started: Instant, call: &Call) -> Result<Finished, CliError>;
}

/// How an analysis was asked for, for its record.
pub struct Call<'a> {
    /// The words after `gatelens`.
    pub command: &'a [String],
    /// The folder of the whole run, if it is part of one: files in it are recorded as `run:NAME/FILE`, wherever it ends up.
    pub run: Option<&'a Path>,
}

impl Call<'_> {
    /// A file as it is recorded.
    fn named(&self, file: &str) -> String {
        let inside = self.run.and_then(|run| Path::new(file).strip_prefix(run).ok());
        inside.map_or_else(|| file.to_string(), |rest| format!("{OF_RUN}{}", rest.display()))
    }

    /// A parameter as it is recorded.
    fn recorded(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.named(&text)),
            Value::Array(values) => values.into_iter().map(|v| self.recorded(v)).collect(),
            other => other,
        }
    }
}

/// What the name of a file of an earlier analysis of the same run begins with: `run:screen/circuit.json`.
pub(crate) const OF_RUN: &str = "run:";

/// A run directory that was written.
pub struct Finished {
    pub record: RunRecord,
    pub path: PathBuf,
    /// The tables' names with their numbers of rows.
    pub tables: Vec<(String, usize)>,
}

/// Runs one analysis, as it was asked for on the command line.
///
/// # Errors
/// Whatever stops it.
pub fn run(job: &dyn Job) -> Result<(), CliError> {
    let started = Instant::now();
    job.check()?;
    let model = job.model().open()?;
    if job.is_dry() {
        return job.dry_run(&model);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let finished = job.run(&model, started, &Call { command: &words, run: None })?;
    finished.say(job.model().json)
}

impl<A: Analysis> Job for Args<A> {
    fn model(&self) -> &ModelArgs {
        &self.model
    }

    fn check(&self) -> Result<(), CliError> {
        // The run directory sees to it again.
        match self.out.clone().filter(|out| out.exists() && !self.force && !self.dry_run) {
            Some(path) => Err(RunDirError::Exists { path }.into()),
            None => Ok(()),
        }
    }

    fn is_dry(&self) -> bool {
        self.dry_run
    }

    fn dry_run(&self, model: &Model) -> Result<(), CliError> {
        let items = self.analysis.prepare(model)?;
        let (mut extent, mut sizes) = (Extent::default(), [Size::default(); 2]);
        for plan in self.analysis.plans(model, &items)? {
            let plan = plan?;
            plan.check(&model.decoder.arch)?;
            extent.include(&plan);
            let of = [Engine::Wavefront, Engine::Full].map(|engine| size(&plan, &model.decoder.arch, engine));
            sizes.iter_mut().zip(&of).for_each(|(total, size)| total.include(size));
        }
        self.print_size(&extent, &sizes)
    }

    fn parameters(&self, model: &Model, call: &Call) -> Result<Map<String, Value>, CliError> {
        let items = self.analysis.prepare(model)?;
        Ok(self.record(model, A::datasets(&items), call).parameters)
    }

    fn run(&self, model: &Model, started: Instant, call: &Call) -> Result<Finished, CliError> {
        let items = self.analysis.prepare(model)?;
        let rows = |plan: Result<Plan, AnalysisError>| Ok(size(&plan?, &model.decoder.arch, self.engine).rows);
        let expected = self.analysis.plans(model, &items)?.map(rows).sum::<Result<u64, AnalysisError>>()?;
        let out = self.out.as_deref().ok_or_else(|| CliError::Input("--out is missing".to_string()))?;
        let directory = RunDir::create(out, self.force, self.resume)?;
        let mut record = self.record(model, A::datasets(&items), call);
        directory.claim(&record.parameters)?;
        record.timings.load_s = started.elapsed().as_secs_f64();

        let computing = Instant::now();
        let bar = progress_bar(expected, self.model.quiet);
        let progress = |done: u64| bar.inc(done);
        let session = Session::new(model, self.engine, self.seed).resumable(&directory).watched(&progress);
        let output = self.analysis.compute(&session, &items)?;
        record.include(&session.total());
        bar.finish_and_clear();
        record.timings.compute_s = computing.elapsed().as_secs_f64();

        let writing = Instant::now();
        write::<A>(&directory, &output, &record)?;
        record.timings.output_s = writing.elapsed().as_secs_f64();
        record.cpu_s = cpu_seconds();
        record.peak_rss_bytes = peak_rss_bytes();
        let json = serde_json::to_vec_pretty(&record).map_err(|e| CliError::Failed(e.to_string()))?;
        directory.write_atomic(RUN_FILE, &json)?;
        let tables = output.tables.iter().map(|t| (t.name().to_string(), t.rows())).collect();
        Ok(Finished { path: directory.finish()?, record, tables })
    }
}

impl<A: Analysis> Args<A> {
    fn record(&self, model: &Model, datasets: Vec<(String, String)>, call: &Call) -> RunRecord {
        let mut parameters = match serde_json::to_value(&self.analysis) {
            Ok(Value::Object(map)) => map.into_iter().map(|(key, value)| (key, call.recorded(value))).collect(),
            _ => Map::new(),
        };
        for (key, value) in [
            ("model", Value::from(model.name.clone())),
            ("ignore_config_key", Value::from(self.model.ignore_config_key.clone())),
            ("dataset_sha256", datasets.iter().map(|(_, sha)| Value::from(sha.clone())).collect()),
            ("model_sha256", Value::from(model.sha256.clone())),
            ("dtype", Value::from(model.decoder.dtype.as_str())),
            ("seed", Value::from(self.seed)),
            ("engine", Value::from(self.engine.to_string())),
            ("device", Value::from(ModelArgs::device_names(model))),
            ("version", Value::from(env!("CARGO_PKG_VERSION"))),
        ] {
            parameters.insert(key.to_string(), value);
        }
        parameters.extend(model.date().map(|day| ("date".to_string(), Value::from(day.to_string()))));
        RunRecord {
            command: A::NAME.to_string(),
            command_line: command_line(call.command),
            parameters,
            model: ModelRecord {
                name: model.name.clone(),
                architecture: model.decoder.arch.family.name().to_string(),
                parameters: model.decoder.parameters,
                sha256: model.sha256.clone(),
            },
            dataset_sha256: datasets.into_iter().map(|(name, sha256)| (call.named(&name), sha256)).collect(),
            seed: self.seed,
            version: env!("CARGO_PKG_VERSION").to_string(),
            device: ModelArgs::device_names(model),
            engine: self.engine.to_string(),
            timings: Timings::default(),
            cpu_s: 0.0,
            prompts: 0,
            forks: 0,
            rows: 0,
            flops: 0.0,
            peak_rss_bytes: 0,
        }
    }

    /// Prints what all plans hold, and their sizes by the wavefront and by the full engine.
    fn print_size(&self, extent: &Extent, [wavefront, full]: &[Size; 2]) -> Result<(), CliError> {
        let sizes = [(Engine::Wavefront, wavefront), (Engine::Full, full)];
        if self.model.json {
            let map: Map<String, Value> =
                sizes.iter().map(|(e, s)| (e.to_string(), serde_json::to_value(s).unwrap_or_default())).collect();
            return say(&Value::Object(map).to_string());
        }
        let line = |(engine, s): &(Engine, &Size)| {
            let (rows, gflops) = (s.rows, s.flops / 1e9);
            format!("{engine:<10} {rows:>14} {gflops:>14.1} {:>22}", bytes(s.resid_bytes))
        };
        let head = format!("{:<10} {:>14} {:>14} {:>22}", "engine", "rows x layers", "GFLOP", "residual streams");
        say(&format!("{extent}\n{head}\n{}\n{}", line(&sizes[0]), line(&sizes[1])))
    }
}

impl Finished {
    /// The summary on standard output.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn say(&self, json: bool) -> Result<(), CliError> {
        let (record, out) = (&self.record, self.path.display());
        if json {
            let mut summary = serde_json::to_value(record).unwrap_or_default();
            summary["out"] = Value::from(out.to_string());
            return say(&summary.to_string());
        }
        let names: Vec<String> = self.tables.iter().map(|(name, n)| format!("{name}.parquet ({n} rows)")).collect();
        say(&format!(
            "{out}: {}, report.html\n{} prompts, {} forks in {:.1} s (load {:.1} s, output {:.1} s), peak memory {}",
            names.join(", "),
            record.prompts,
            record.forks,
            record.timings.compute_s,
            record.timings.load_s,
            record.timings.output_s,
            bytes(record.peak_rss_bytes)
        ))
    }
}

/// Writes tables, files, figures and reports.
fn write<A: Analysis>(directory: &RunDir, output: &Output, record: &RunRecord) -> Result<(), CliError> {
    for table in &output.tables {
        directory.write_atomic(&format!("{}.parquet", table.name()), &table.to_parquet()?)?;
    }
    for (name, bytes) in &output.files {
        directory.write_atomic(name, bytes)?;
    }
    write_figures(directory, A::figures(&output.tables)?)?;
    write_report(directory, &document(&Writer::of::<A>(), record, &output.tables, directory.folder())?)
}

/// Draws figures into a run directory.
pub(crate) fn write_figures(directory: &RunDir, figures: Vec<(String, crate::figure::Figure)>) -> Result<(), CliError> {
    for (name, figure) in figures {
        directory.write_atomic(&name, &figure.draw()?.to_png()?)?;
    }
    Ok(())
}

/// What makes figures and reports of an analysis' tables.
///
/// # Errors
/// If there is no such analysis.
pub(crate) fn writer(name: &str) -> Result<&'static Writer, CliError> {
    let known = || WRITERS.iter().map(|w| w.name).collect::<Vec<_>>().join(", ");
    let found = WRITERS.iter().find(|w| w.name == name);
    found.ok_or_else(|| CliError::Input(format!("`{name}` is no analysis; there are {}", known())))
}

/// The command as a shell would take it, without what says only how to start.
pub(crate) fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    let quoted = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let words =
        words.iter().filter(|w| !matches!(w.as_str(), "--resume" | "--force" | "--quiet" | "--json")).map(quoted);
    std::iter::once("gatelens".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A bar over rows times layers, on a terminal alone.
fn progress_bar(rows: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(rows), target);
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {elapsed} of {duration}  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
