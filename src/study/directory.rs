//! A study that leaves a run directory: parts while it goes on; in the end tables, figures, reports and the record.

use super::document::{document, write_report};
use super::parts::products;
use super::rundir::{ModelRecord, RUN_FILE, RecordError, RunDir, RunDirError, RunRecord, names, read_record};
use super::runner::{StudyError, computable, compute, expected, prepared, shared};
use super::session::SessionError;
use super::share::Note;
use super::share::claims::Claim;
use super::{Meter, Missing, Share, Study, memory};
use crate::analyses::{Analysis, AnalysisError, Output, Prepared, Writer};
use crate::figure::{self, Figure};
use crate::files::{look_again, parent};
use crate::model::{Model, device};
use crate::table::Table;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What the name of a file of an earlier analysis of the same run begins with: `run:screen/circuit.json`.
pub const OF_RUN: &str = "run:";

/// Where a run directory goes.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub out: PathBuf,
    /// Replaces what is there already.
    pub force: bool,
    /// Goes on with an unfinished run of the same study, or starts if there is none.
    pub resume: bool,
    /// Who computes it. What is shared is gone on with.
    pub share: Share,
}

impl Place {
    /// A folder that is not there yet.
    pub fn at(out: impl Into<PathBuf>) -> Place {
        Place { out: out.into(), ..Place::default() }
    }

    /// Says early what would only fail after a large model is loaded.
    ///
    /// # Errors
    /// If the run directory cannot be made, or must not be replaced.
    pub fn check(&self) -> Result<(), StudyError> {
        // Whether it is the same run is seen once the model is there.
        let is_complete = || self.goes_on() && self.out.join(RUN_FILE).is_file();
        if is_complete() {
            return Ok(());
        }
        // It may become complete at any moment.
        RunDir::check(&self.out, self.force, self.goes_on())
            .or_else(|e| if is_complete() { Ok(()) } else { Err(e.into()) })
    }

    /// Whether what is there already is gone on with.
    fn goes_on(&self) -> bool {
        (self.resume || self.share != Share::Whole) && !self.force
    }

    /// Opens the run's directory, `inside` the folder of another run or not.
    ///
    /// # Errors
    /// As [`RunDir::create`].
    pub(crate) fn open(&self, inside: bool) -> Result<RunDir, RunDirError> {
        match self.share.is_shared() {
            true => RunDir::join(&self.out, inside),
            false => RunDir::create(&self.out, self.force, self.goes_on()),
        }
    }
}

/// How a study came about, for its record.
#[derive(Default)]
pub struct Origin {
    /// The command as a shell takes it; empty where there was none.
    pub command_line: String,
    /// The folder of the whole run, if the study is part of one: files in it are recorded as `run:NAME/FILE`, wherever it ends up.
    pub run: Option<PathBuf>,
    /// The words after `gatelens`, for those who go on with a run that is shared; none where there was no command.
    pub words: Vec<String>,
    /// Counts from the study's start on.
    pub meter: Meter,
}

impl Origin {
    /// A file as it is recorded.
    fn named(&self, file: &str) -> String {
        let inside = self.run.as_ref().and_then(|run| Path::new(file).strip_prefix(run).ok());
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

/// A run directory that was written.
pub struct Finished {
    pub record: RunRecord,
    pub path: PathBuf,
    /// The tables; none where nothing was run.
    pub tables: Vec<Table>,
    /// Whether it was there already, and nothing was run.
    pub was_complete: bool,
}

/// Puts an analysis to a model and leaves a run directory. It appears whole at the end; until then finished parts stand in
/// `DIR.partial`, from which a later call goes on ([`Place::resume`]). What is complete already is left as it is.
///
/// Where the study is shared with other processes ([`Place::share`]), each computes its parts, and one of them writes the rest.
///
/// # Errors
/// If the data do not fit the model, the directory cannot be written or is of another run, the study is cancelled, or the work fails;
/// [`StudyError::Missing`] if parts of other processes are not there yet.
pub fn run_into<A: Analysis>(
    analysis: &A,
    study: &Study,
    place: &Place,
    origin: &Origin,
) -> Result<Finished, StudyError> {
    computable(study)?;
    let prepared = prepared(analysis, study)?;
    let (record, data) = record(analysis, study, prepared.sources.clone(), origin);
    if let Some(finished) = complete(place, &record)? {
        return Ok(finished);
    }
    match work(analysis, &prepared, study, (place, origin), record.clone(), &data) {
        // Another process may have finished it at any moment.
        Err(e) if place.share.is_shared() => complete_soon(place, &record)?.ok_or(e),
        Ok(None) => complete_soon(place, &record)?.ok_or_else(|| gone(place)),
        Err(e) => Err(e),
        Ok(Some(finished)) => Ok(finished),
    }
}

/// Computes a study and writes its run directory; none where another process did.
fn work<A: Analysis>(
    analysis: &A,
    prepared: &Prepared<A::Items>,
    study: &Study,
    (place, origin): (&Place, &Origin),
    mut record: RunRecord,
    data: &[(String, Vec<u8>)],
) -> Result<Option<Finished>, StudyError> {
    let expected = expected(analysis, &prepared.items, study)?;
    let directory = place.open(origin.run.is_some())?;
    directory.claim(&claimed(&record))?;
    record.timings.load_s = origin.meter.elapsed_s();
    study.progress.iter().for_each(|progress| progress.begin(expected.work()));

    let (computing, parts) = (Instant::now(), directory.parts());
    let mut watched = study.clone();
    let mut claim = None;
    if place.share != Share::Whole {
        note(&record, origin, study, expected.pieces).leave(&directory)?;
        let is_over = || {
            look_again(parent(&place.out));
            place.out.join(RUN_FILE).exists()
        };
        if let Some(missing) = shared(analysis, prepared, study, (place.share, &parts), &is_over)? {
            return Err(StudyError::Missing(missing));
        }
        if !place.share.finishes() {
            return Err(StudyError::Missing(Missing { there: parts.count(), missing: 0, at_barrier: false }));
        }
        // One writes; what there was to watch was told.
        claim = directory.finishing(&mut || study.cancel.check().is_ok())?;
        if claim.is_none() {
            return study.cancel.check().map(|()| None).map_err(|e| AnalysisError::from(SessionError::from(e)).into());
        }
        watched.progress = None;
    }
    let computed = compute(analysis, prepared, &watched, Some(parts));
    // What stopped the run is what a user must hear of, not that something of it could not be taken away.
    let alone = |_: &AnalysisError| drop((place.share == Share::Whole).then(|| directory.abandon()));
    let (output, ran) = computed.inspect_err(alone)?;
    study.progress.iter().for_each(|progress| progress.end());
    record.measured = Some(ran.measured);
    record.include(&ran.total);
    record.timings.compute_s = computing.elapsed().as_secs_f64();

    let writing = Instant::now();
    for (name, bytes) in data {
        directory.write_atomic(name, bytes)?;
    }
    write::<A>(&directory, &output, &record)?;
    record.timings.output_s = writing.elapsed().as_secs_f64();
    origin.meter.measure(&mut record);
    let json = serde_json::to_vec_pretty(&record).map_err(|e| StudyError::Failed(e.to_string()))?;
    directory.write_atomic(RUN_FILE, &json)?;
    let path = directory.finish()?;
    // The claim went with the directory that it stood in.
    claim.into_iter().for_each(Claim::made_good);
    Ok(Some(Finished { path, record, tables: output.tables, was_complete: false }))
}

/// As [`complete`], where the run's folder is gone: other machines may take some seconds to see where it went.
fn complete_soon(place: &Place, record: &RunRecord) -> Result<Option<Finished>, StudyError> {
    let (out, partial) = names(&place.out)?;
    for _ in 0..SECONDS {
        look_again(parent(&out));
        let found = complete(place, record)?;
        if found.is_some() || partial.exists() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(None)
}

/// For how many seconds a folder is looked for that another machine has moved.
const SECONDS: usize = 60;

/// What those who share a study must have in common.
fn note(record: &RunRecord, origin: &Origin, study: &Study, parts: usize) -> Note {
    let streamed = study.model.decoder.streamed();
    Note { products: record.products.clone(), streamed, parts, ..Note::of(&origin.words) }
}

/// The directory is not where it was left.
fn gone(place: &Place) -> StudyError {
    StudyError::Failed(format!("{}: was taken away while this run was at work", place.out.display()))
}

/// The run of the same study that is there already, if it is to be gone on with.
fn complete(place: &Place, record: &RunRecord) -> Result<Option<Finished>, StudyError> {
    if !place.goes_on() {
        return Ok(None);
    }
    let Some(found): Option<RunRecord> = read_record(&place.out).map_err(StudyError::Record)? else { return Ok(None) };
    if claimed(&found) != claimed(record) {
        let reason = "is of another run, which is complete".to_string();
        return Err(StudyError::Record(RecordError { path: place.out.join(RUN_FILE), reason }));
    }
    Ok(Some(Finished { path: place.out.clone(), record: found, tables: Vec::new(), was_complete: true }))
}

/// What an unfinished run must share to be gone on with: the analysis, then its parameters.
fn claimed(record: &RunRecord) -> Map<String, Value> {
    let command = ("command".to_string(), Value::from(record.command.clone()));
    std::iter::once(command).chain(record.parameters.clone()).collect()
}

/// The record of a study, before it is run; and the data that were in memory, as files to stand beside it.
pub(super) fn record<A: Analysis>(
    analysis: &A,
    study: &Study,
    datasets: Vec<(String, String)>,
    origin: &Origin,
) -> (RunRecord, Vec<(String, Vec<u8>)>) {
    let (model, version) = (&study.model, env!("CARGO_PKG_VERSION").to_string());
    let device = device_names(model);
    let (parameters, data) = match serde_json::to_value(analysis) {
        Ok(Value::Object(map)) => memory::taken_out(map),
        _ => Default::default(),
    };
    let mut parameters: Map<String, Value> =
        parameters.into_iter().map(|(key, value)| (key, origin.recorded(value))).collect();
    // As `again` reads them back.
    for (key, value) in [
        ("model", Value::from(model.name.clone())),
        ("ignore_config_key", Value::from(model.options.ignore_config_keys.clone())),
        ("dataset_sha256", datasets.iter().map(|(_, sha)| Value::from(sha.clone())).collect()),
        ("model_sha256", Value::from(model.sha256.clone())),
        ("dtype", Value::from(model.decoder.dtype.as_str())),
        ("seed", Value::from(study.seed)),
        ("engine", Value::from(study.engine.to_string())),
        ("device", Value::from(device.clone())),
        ("version", Value::from(version.clone())),
    ] {
        parameters.insert(key.to_string(), value);
    }
    let vars = model.options.template_vars.iter().map(|(key, value)| Value::from(format!("{key}={value}")));
    let vars: Vec<Value> = vars.collect();
    if !vars.is_empty() {
        parameters.insert("template_var".to_string(), Value::from(vars));
    }
    parameters.extend(model.date().map(|day| ("date".to_string(), Value::from(day.to_string()))));
    let record = RunRecord {
        command: A::NAME.to_string(),
        command_line: origin.command_line.clone(),
        parameters,
        model: ModelRecord {
            name: model.name.clone(),
            architecture: model.decoder.arch.family.name().to_string(),
            parameters: model.decoder.parameters,
            sha256: model.sha256.clone(),
        },
        dataset_sha256: datasets.into_iter().map(|(name, sha256)| (origin.named(&name), sha256)).collect(),
        seed: study.seed,
        version,
        device,
        engine: study.engine.to_string(),
        products: Some(products(model)),
        max_memory: model.options.max_memory,
        ..RunRecord::default()
    };
    (record, data)
}

/// The names of a model's devices.
pub(crate) fn device_names(model: &Model) -> String {
    let names: Vec<String> = model.decoder.places.iter().map(|(d, _)| device::name(d)).collect();
    names.join(",")
}

/// Writes tables, files, figures and reports.
fn write<A: Analysis>(directory: &RunDir, output: &Output, record: &RunRecord) -> Result<(), StudyError> {
    for table in &output.tables {
        directory.write_atomic(&format!("{}.parquet", table.name()), &table.to_parquet()?)?;
    }
    for (name, bytes) in &output.files {
        directory.write_atomic(name, bytes)?;
    }
    write_figures(directory, (A::FROM_TABLES.figures)(&output.tables)?)?;
    write_report(directory, &document(&Writer::of::<A>(), record, &output.tables, directory.folder())?)
}

/// Draws figures into a run directory, as PNG and beside that as SVG, and warns of letters that they cannot show.
///
/// # Errors
/// If a figure cannot be drawn, or a file cannot be written.
pub fn write_figures(directory: &RunDir, figures: Vec<(String, Figure)>) -> Result<(), StudyError> {
    for (name, drawn) in figures {
        let canvas = drawn.draw()?;
        canvas.lacking().iter().for_each(|text| warn_of_letters(&name, text));
        directory.write_atomic(&name, &canvas.to_png()?)?;
        directory.write_atomic(&figure::beside(&name), canvas.to_svg().as_bytes())?;
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
