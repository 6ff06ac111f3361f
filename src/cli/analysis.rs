//! How every analysis is run: from its parameters to a run directory that appears whole.

use super::document::{document, write_report};
use super::findings::findings;
use super::meter::{Pace, about};
use super::{CliError, Meter, ModelArgs, bytes, interrupt, measured, runs, say};
use crate::analyses::{Analysis, AnalysisError, Output, Plans, WRITERS, Writer};
use crate::measured::ShownPrompt;
use crate::model::Model;
use crate::plan::{Extent, Plan};
use crate::run::{Engine, RunError, Size, rate, size};
use crate::rundir::{ModelRecord, RUN_FILE, RunDir, RunRecord};
use crate::session::{Scores, Session, SessionError, Work};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

// Not a documentation comment: clap would show it as each command's.
// The arguments of an analysis: its own, and those that all share.
#[derive(clap::Args)]
pub struct Args<A: Analysis + clap::Args> {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    analysis: A,

    /// Write the run directory here
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    out: Option<PathBuf>,

    /// Replace the run directory if it exists
    #[arg(long)]
    force: bool,

    /// Go on with an unfinished run of the same command, or start if there is none
    #[arg(long)]
    resume: bool,

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
}

/// An analysis with its arguments, whichever it is.
pub trait Job {
    /// The model that it asks for.
    fn model(&self) -> &ModelArgs;

    /// Says early what would only fail after a large model is loaded.
    ///
    /// # Errors
    /// If the run directory cannot be made, or must not be replaced.
    fn check(&self) -> Result<(), CliError>;

    /// What it would cost.
    ///
    /// # Errors
    /// If the datasets cannot be used.
    fn cost(&self, model: &Model) -> Result<Cost, CliError>;

    /// Whether it is only to be printed.
    fn is_dry(&self) -> bool;

    /// All that its results depend on, as its record has it.
    ///
    /// # Errors
    /// If the datasets cannot be used.
    fn parameters(&self, model: &Model, call: &Call) -> Result<Map<String, Value>, CliError>;

    /// Runs it into its run directory; returns the record and where it is. What it costs is counted by the meter.
    ///
    /// # Errors
    /// If the datasets cannot be used, the run directory cannot be written, or the work fails.
    fn run(&self, model: &Model, meter: &Meter, call: &Call) -> Result<Finished, CliError>;
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
    /// What was found, in lines for a terminal.
    pub findings: Vec<String>,
    /// Whether it was there already, and nothing was run.
    pub was_complete: bool,
}

/// Runs one analysis, as it was asked for on the command line.
///
/// # Errors
/// Whatever stops it.
pub fn run(job: &dyn Job) -> Result<(), CliError> {
    let meter = Meter::start();
    job.check()?;
    let model = job.model().open()?;
    let json = job.model().output.json;
    if job.is_dry() {
        let cost = job.cost(&model)?;
        return say(&if json { Value::Object(cost.json()).to_string() } else { cost.text() });
    }
    let finished = job.run(&model, &meter, &Call { command: &words(), run: None })?;
    finished.say(json)
}

/// The words after `gatelens` that the process was started with.
pub(crate) fn words() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// What an analysis would cost.
pub struct Cost {
    extent: Extent,
    /// By the wavefront, and by the full engine.
    sizes: [Size; 2],
    /// How long each would compute, by a rate that was measured on some of the plan's rows; none where nothing is run.
    seconds: [Option<f64>; 2],
    /// Parts of it that are said by themselves, with what they are.
    parts: Vec<(String, [Size; 2])>,
    /// The engine that is asked for.
    engine: Engine,
    first_prompt: Option<ShownPrompt>,
}

/// Both engines, in the order of their sizes.
const ENGINES: [Engine; 2] = [Engine::Wavefront, Engine::Full];

impl Cost {
    /// Each engine's name with its size and seconds.
    fn engines(&self) -> impl Iterator<Item = (Engine, &Size, Option<f64>)> {
        ENGINES
            .into_iter()
            .zip(self.sizes.iter().zip(self.seconds))
            .map(|(engine, (size, seconds))| (engine, size, seconds))
    }

    /// What each part costs, by the engine that is asked for.
    fn parts(&self) -> impl Iterator<Item = String> {
        let at = ENGINES.iter().position(|engine| *engine == self.engine).unwrap_or(0);
        self.parts.iter().map(move |(what, sizes)| {
            let (size, all) = (&sizes[at], self.sizes[at].flops);
            let share = if all > 0.0 { 100.0 * size.flops / all } else { 0.0 };
            format!("of which {what}: {:.1} GFLOP in {} rows ({share:.0} %)", size.flops / 1e9, size.rows)
        })
    }

    pub(super) fn json(&self) -> Map<String, Value> {
        let as_value = |size: &Size| serde_json::to_value(size).unwrap_or_default();
        let one = |(engine, size, seconds): (Engine, &Size, Option<f64>)| {
            let mut size = as_value(size);
            size["seconds"] = Value::from(seconds);
            (engine.to_string(), size)
        };
        let mut json: Map<String, Value> = self.engines().map(one).collect();
        if !self.parts.is_empty() {
            let of = |sizes: &[Size; 2]| -> Map<String, Value> {
                ENGINES.into_iter().zip(sizes).map(|(engine, size)| (engine.to_string(), as_value(size))).collect()
            };
            let parts = self.parts.iter().map(|(what, sizes)| (what.clone(), Value::Object(of(sizes))));
            json.insert("of_which".to_string(), Value::Object(parts.collect()));
        }
        json
    }

    pub(super) fn text(&self) -> String {
        let mut lines = vec![
            self.extent.to_string(),
            format!(
                "{:<10} {:>14} {:>14} {:>12} {:>22}",
                "engine", "rows x layers", "GFLOP", "time", "residual streams"
            ),
        ];
        lines.extend(self.engines().map(|(engine, size, seconds)| {
            let (rows, gflops, time) = (size.rows, size.flops / 1e9, seconds.map_or(String::new(), about));
            format!("{engine:<10} {rows:>14} {gflops:>14.1} {time:>12} {:>22}", bytes(size.resid_bytes))
        }));
        lines.extend(self.parts());
        if self.seconds.iter().any(Option::is_some) {
            lines.push("the time is that of computing, at the pace of some of these rows here and now".to_owned());
        }
        lines.extend(self.first_prompt.as_ref().map(measured::first_prompt));
        lines.join("\n")
    }
}

impl<A: Analysis + clap::Args> Job for Args<A> {
    fn model(&self) -> &ModelArgs {
        &self.model
    }

    fn check(&self) -> Result<(), CliError> {
        match self.out.as_deref().filter(|_| !self.dry_run) {
            // Whether it is the same run is seen once the model is there.
            Some(out) if self.resume && !self.force && out.join(RUN_FILE).is_file() => Ok(()),
            Some(out) => Ok(RunDir::check(out, self.force, self.resume)?),
            None => Ok(()),
        }
    }

    fn is_dry(&self) -> bool {
        self.dry_run
    }

    fn cost(&self, model: &Model) -> Result<Cost, CliError> {
        let items = self.analysis.prepare(model)?;
        let first_prompt = A::scored(&items).first_prompt().cloned();
        let mut extent = Extent::default();
        // Of plans that differ, the one that costs most says how fast it goes.
        let mut dearest: Option<(f64, Plan)> = None;
        let mut sized = |plans: Plans<'_>, counted: bool| -> Result<[Size; 2], CliError> {
            let mut sizes = [Size::default(); 2];
            for plan in plans {
                let plan = plan?;
                let mut of = [Size::default(); 2];
                for (size, engine) in of.iter_mut().zip(ENGINES) {
                    *size = Session::new(model, engine, 0).size(&plan)?;
                }
                sizes.iter_mut().zip(&of).for_each(|(total, size)| total.include(size));
                if counted {
                    extent.include(&plan);
                    if dearest.as_ref().is_none_or(|(flops, _)| of[0].flops > *flops) {
                        dearest = Some((of[0].flops, plan));
                    }
                }
            }
            Ok(sizes)
        };
        let sizes = sized(self.analysis.plans(model, &items)?, true)?;
        let parts = self.analysis.parts(model, &items)?.into_iter();
        let parts = parts.map(|(what, plans)| Ok((what, sized(plans, false)?))).collect::<Result<_, CliError>>()?;
        let failed = |e: candle_core::Error| CliError::Failed(format!("{}: {e}", model.name));
        let mut seconds = [None; 2];
        for ((seconds, size), engine) in seconds.iter_mut().zip(&sizes).zip(ENGINES) {
            if let Some((_, plan)) = &dearest {
                let rate = rate(&model.decoder, &plan.compile(&model.decoder.arch)?, engine).map_err(failed)?;
                *seconds = rate.map(|rate| size.flops / rate);
            }
        }
        Ok(Cost { extent, sizes, seconds, parts, engine: self.engine, first_prompt })
    }

    fn parameters(&self, model: &Model, call: &Call) -> Result<Map<String, Value>, CliError> {
        let items = self.analysis.prepare(model)?;
        Ok(self.record(model, A::datasets(&items), call).parameters)
    }

    fn run(&self, model: &Model, meter: &Meter, call: &Call) -> Result<Finished, CliError> {
        let items = self.analysis.prepare(model)?;
        let out = self.out.as_deref().ok_or_else(|| CliError::Input("--out is missing".to_string()))?;
        let mut record = self.record(model, A::datasets(&items), call);
        if let Some(finished) = self.complete(out, &record)? {
            return Ok(finished);
        }
        let flops = |plan: Result<Plan, AnalysisError>| {
            let plan = plan?;
            let program = plan.compile(&model.decoder.arch).map_err(|e| SessionError::from(RunError::from(e)))?;
            Ok(size(&program, self.engine).flops)
        };
        let expected = self.analysis.plans(model, &items)?.map(flops).sum::<Result<f64, AnalysisError>>()?;
        let directory = RunDir::create(out, self.force, self.resume)?;
        directory.claim(&claimed(&record))?;
        record.timings.load_s = meter.elapsed_s();

        let computing = Instant::now();
        let pace = Arc::new(Pace::start(expected));
        let bar = progress_bar(expected, &pace, self.model.output.quiet);
        interrupt::begin(out, expected as u64);
        let advance = |done: Work| {
            bar.inc(done.flops as u64);
            interrupt::advance(done.flops as u64);
        };
        let progress = |done: Work| {
            pace.computed(done.flops);
            advance(done);
        };
        let kept = |done: Work| {
            pace.kept(done.flops);
            advance(done);
        };
        let scored = A::scored(&items);
        let warn = |scores: &Scores| scored.warn(scores);
        let session = Session::new(model, self.engine, self.seed).resumable(&directory).watched(&progress, &kept);
        let session = session.scoring(scored.wanted(), &warn);
        // What stopped the run is what a user must hear of, not that something of it could not be taken away.
        let output = self.analysis.compute(&session, &items).inspect_err(|_| drop(directory.abandon()))?;
        record.measured = Some(scored.measured(&session.scores()));
        record.include(&session.total());
        bar.finish_and_clear();
        record.timings.compute_s = computing.elapsed().as_secs_f64();

        let writing = Instant::now();
        write::<A>(&directory, &output, &record)?;
        record.timings.output_s = writing.elapsed().as_secs_f64();
        meter.measure(&mut record);
        let json = serde_json::to_vec_pretty(&record).map_err(|e| CliError::Failed(e.to_string()))?;
        directory.write_atomic(RUN_FILE, &json)?;
        let tables = output.tables.iter().map(|t| (t.name().to_string(), t.rows())).collect();
        let path = directory.finish()?;
        interrupt::end();
        let findings = findings(&output.tables);
        Ok(Finished { path, record, tables, findings, was_complete: false })
    }
}

impl<A: Analysis + clap::Args> Args<A> {
    /// The run of the same command that is there already, if it is to be gone on with.
    fn complete(&self, out: &Path, record: &RunRecord) -> Result<Option<Finished>, CliError> {
        if !self.resume || self.force {
            return Ok(None);
        }
        let Some(found) = runs::left(out)? else { return Ok(None) };
        if claimed(&found) != claimed(record) {
            return Err(runs::anew(out, "is of another run, which is complete"));
        }
        Ok(Some(Finished {
            path: out.to_path_buf(),
            record: found,
            tables: Vec::new(),
            findings: Vec::new(),
            was_complete: true,
        }))
    }

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
        let vars = self.model.template_var.iter().map(|(key, value)| Value::from(format!("{key}={value}")));
        let vars: Vec<Value> = vars.collect();
        if !vars.is_empty() {
            parameters.insert("template_var".to_string(), Value::from(vars));
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
            ..RunRecord::default()
        }
    }
}

/// What an unfinished run must share to be gone on with: the command, then its parameters.
fn claimed(record: &RunRecord) -> Map<String, Value> {
    let command = ("command".to_string(), Value::from(record.command.clone()));
    std::iter::once(command).chain(record.parameters.clone()).collect()
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
            summary["tables"] = self.tables.iter().map(|(name, rows)| (name.clone(), Value::from(*rows))).collect();
            return say(&summary.to_string());
        }
        if self.was_complete {
            return say(&format!("{out}: is complete; nothing was left to run"));
        }
        let names: Vec<String> = self.tables.iter().map(|(name, _)| format!("{name}.parquet")).collect();
        let mut lines = vec![format!("{out}: {}, report.html", names.join(", "))];
        lines.extend(self.findings.iter().cloned());
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

/// Draws figures into a run directory, as PNG and beside that as SVG, and warns of letters that they cannot show.
pub(crate) fn write_figures(directory: &RunDir, figures: Vec<(String, crate::figure::Figure)>) -> Result<(), CliError> {
    for (name, figure) in figures {
        let canvas = figure.draw()?;
        canvas.lacking().iter().for_each(|text| warn_of_letters(&name, text));
        directory.write_atomic(&name, &canvas.to_png()?)?;
        directory.write_atomic(&crate::figure::beside(&name), canvas.to_svg().as_bytes())?;
    }
    Ok(())
}

/// Says once of each text that no font has letters of it; an experiment draws each figure twice.
fn warn_of_letters(figure: &str, text: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().is_ok_and(|mut said| said.insert(text.to_string())) {
        tracing::warn!(
            "{figure}: \"{text}\" has letters that neither the figures' own font (Latin, Greek, Cyrillic) nor one of this system \
             has: each is drawn as a box; the reports and tables have them. A font that has them, Noto Sans CJK for example, mends it"
        );
    }
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

/// A bar over floating-point operations, on a terminal alone.
fn progress_bar(expected: f64, pace: &Arc<Pace>, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(expected as u64), target);
    let pace = Arc::clone(pace);
    // Nowhere is left to say it if a bar cannot be drawn.
    let time = move |state: &ProgressState, to: &mut dyn std::fmt::Write| {
        let spent = state.elapsed().as_secs_f64();
        let _ = match pace.left_s() {
            Some(left) => write!(to, "{} of {}", about(spent), about(spent + left)),
            None => write!(to, "{}", about(spent)),
        };
    };
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {time}  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("time", time));
    bar
}
