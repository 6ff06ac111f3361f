//! How every analysis is run: from its parameters to a run directory that appears whole.

use super::{CliError, ModelArgs, bytes, say};
use crate::analyses::Analysis;
use crate::model::Model;
use crate::plan::Plan;
use crate::report::{self, Block, Report, Section};
use crate::run::{Engine, Options, Reading, Size, run, size};
use crate::rundir::{ModelRecord, RUN_FILE, RunDir, RunDirError, RunRecord, Timings, cpu_seconds, peak_rss_bytes};
use crate::table::Table;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Instant;

/// The arguments of an analysis: its own, and those that all share.
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

    /// Take up an unfinished run of the same command (it is computed again), or start, where there is none
    #[arg(long)]
    resume: bool,

    /// The seed of everything random (interchange draws nothing; the seed is recorded)
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Which engine computes
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,

    /// Print what would be run, and what it costs under each engine
    #[arg(long)]
    dry_run: bool,
}

impl<A: Analysis> Args<A> {
    /// Runs the analysis.
    ///
    /// # Errors
    /// If the model or the dataset cannot be used, the run directory cannot be written, or the work fails.
    pub fn run(&self) -> Result<(), CliError> {
        let started = Instant::now();
        // Said before a large model is loaded; the run directory sees to it again.
        if let Some(path) = self.out.clone().filter(|out| out.exists() && !self.force && !self.dry_run) {
            return Err(RunDirError::Exists { path }.into());
        }
        let model = self.model.open()?;
        let (plan, items) = self.analysis.plan(&model)?;
        plan.check(&model.decoder.arch)?;
        let Some(out) = self.out.as_ref().filter(|_| !self.dry_run) else {
            return self.print_size(&model, &plan);
        };
        let directory = RunDir::create(out, self.force, self.resume)?;
        let mut record = self.record(&model, &plan, A::datasets(&items));
        directory.claim(&record.parameters)?;
        record.timings.load_s = started.elapsed().as_secs_f64();

        let computing = Instant::now();
        let readings = self.readings(&model, &plan, record.rows)?;
        record.timings.compute_s = computing.elapsed().as_secs_f64();

        let writing = Instant::now();
        let tables = self.analysis.tables(&model, &items, &readings)?;
        self.write(&directory, &tables, &record)?;
        record.timings.output_s = writing.elapsed().as_secs_f64();
        record.cpu_s = cpu_seconds();
        record.peak_rss_bytes = peak_rss_bytes();
        let json = serde_json::to_vec_pretty(&record).map_err(|e| CliError::Failed(e.to_string()))?;
        directory.write_atomic(RUN_FILE, &json)?;
        let finished = directory.finish()?;
        self.summary(&record, &tables, &finished.display().to_string())
    }

    fn readings(&self, model: &Model, plan: &Plan, rows: u64) -> Result<Vec<Reading>, CliError> {
        let bar = progress_bar(rows, self.model.quiet);
        let progress = |done: u64| bar.inc(done);
        let options = Options { engine: self.engine, progress: &progress, ..Options::default() };
        let readings = run(&model.decoder, plan, &options)?;
        bar.finish_and_clear();
        Ok(readings)
    }

    /// Writes tables, figures and reports.
    fn write(&self, directory: &RunDir, tables: &[Table], record: &RunRecord) -> Result<(), CliError> {
        for table in tables {
            directory.write_atomic(&format!("{}.parquet", table.name()), &table.to_parquet()?)?;
        }
        for (name, figure) in self.analysis.figures(tables)? {
            directory.write_atomic(&name, &figure.draw()?.to_png()?)?;
        }
        let folder = directory.path(RUN_FILE)?.parent().map(PathBuf::from).unwrap_or_default();
        let mut report = Report::new(A::TITLE).paragraph(format!(
            "`{}` ({}, {} parameters), {} prompts and {} forks by the {} engine.",
            record.model.name,
            record.model.architecture,
            record.model.parameters,
            record.prompts,
            record.forks,
            record.engine
        ));
        report.intro.insert(0, Block::Code(command_line()));
        report.sections = self.analysis.sections(tables, &folder)?;
        report.sections.push(provenance(record));
        directory.write_atomic("report.md", report::markdown::render(&report).as_bytes())?;
        directory.write_atomic("report.html", report::html::render(&report)?.as_bytes())?;
        Ok(())
    }

    fn record(&self, model: &Model, plan: &Plan, datasets: Vec<(String, String)>) -> RunRecord {
        let cost = size(plan, &model.decoder.arch, self.engine);
        let mut parameters = match serde_json::to_value(&self.analysis) {
            Ok(Value::Object(map)) => map,
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
        ] {
            parameters.insert(key.to_string(), value);
        }
        RunRecord {
            command: A::NAME.to_string(),
            parameters,
            model: ModelRecord {
                name: model.name.clone(),
                architecture: model.decoder.arch.family.name().to_string(),
                parameters: model.decoder.parameters,
                sha256: model.sha256.clone(),
            },
            dataset_sha256: datasets.into_iter().collect(),
            seed: self.seed,
            version: env!("CARGO_PKG_VERSION").to_string(),
            device: ModelArgs::device_name(&model.decoder.device),
            engine: self.engine.to_string(),
            timings: Timings::default(),
            cpu_s: 0.0,
            prompts: cost.prompts as u64,
            forks: cost.forks as u64,
            rows: cost.rows,
            flops: cost.flops,
            peak_rss_bytes: 0,
        }
    }

    fn print_size(&self, model: &Model, plan: &Plan) -> Result<(), CliError> {
        let arch = &model.decoder.arch;
        let sizes = [Engine::Wavefront, Engine::Full].map(|engine| (engine, size(plan, arch, engine)));
        if self.model.json {
            let map: Map<String, Value> =
                sizes.iter().map(|(e, s)| (e.to_string(), serde_json::to_value(s).unwrap_or_default())).collect();
            return say(&Value::Object(map).to_string());
        }
        let line = |(engine, s): &(Engine, Size)| {
            let (rows, gflops) = (s.rows, s.flops / 1e9);
            format!("{engine:<10} {rows:>14} {gflops:>14.1} {:>22}", bytes(s.resid_bytes))
        };
        let head = format!("{:<10} {:>14} {:>14} {:>22}", "engine", "rows x layers", "GFLOP", "residual streams");
        say(&format!("{plan}\n{head}\n{}\n{}", line(&sizes[0]), line(&sizes[1])))
    }

    fn summary(&self, record: &RunRecord, tables: &[Table], out: &str) -> Result<(), CliError> {
        if self.model.json {
            let mut summary = serde_json::to_value(record).unwrap_or_default();
            summary["out"] = Value::from(out);
            return say(&summary.to_string());
        }
        let names: Vec<String> = tables.iter().map(|t| format!("{}.parquet ({} rows)", t.name(), t.rows())).collect();
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

/// The command as a shell would take it.
fn command_line() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    let quoted = |word: String| match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let words = std::env::args().skip(1).map(quoted);
    std::iter::once("gatelens".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// How the run was made, for the report's end. Times stand in `run.json` alone, so that a report made again is the same.
fn provenance(record: &RunRecord) -> Section {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    let mut values: Vec<(String, String)> = record.parameters.iter().map(|(k, v)| (k.clone(), text(v))).collect();
    values.extend(record.dataset_sha256.iter().map(|(path, sha)| (format!("SHA-256 of {path}"), sha.clone())));
    values.push(("gatelens".to_string(), record.version.clone()));
    Section::new("How this was made").block(Block::KeyValues(values))
}

/// A bar over rows times layers, on a terminal alone.
fn progress_bar(rows: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(rows), target);
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {elapsed} of {duration}  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
