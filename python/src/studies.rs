//! Studies: analyses by their names, with parameters as JSON, put to a model.

use crate::errors::{failed, input, of_study};
use crate::logs;
use crate::models::Model;
use crate::plans::engine_of;
use crate::tables::Table;
use crate::waiting::{Watched, settled, waited};
use gatelens::analyses::Writer;
use gatelens::dataset::Data;
use gatelens::report::{Block, Report, Section, html};
use gatelens::study::{self, ENGINES, Finished, Meter, Origin, Place, Share, StudyError};
use gatelens::{cli, table};
use pyo3::prelude::*;
use serde_json::{Map, Value, json};
use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

/// An analysis with its parameters.
#[pyclass(frozen, module = "gatelens._core")]
pub struct Study {
    writer: &'static Writer,
    parameters: Map<String, Value>,
}

impl Study {
    fn put_to(&self, model: &Model, engine: &str, seed: u64, watched: &Arc<Watched>) -> PyResult<study::Study> {
        let (engine, progress) = (engine_of(engine)?, Some(watched.clone() as Arc<dyn study::Progress>));
        Ok(study::Study { engine, seed, progress, ..study::Study::of(model.0.clone()) })
    }
}

#[pymethods]
impl Study {
    /// Checks the parameters, as far as they can be without a model.
    #[new]
    fn new(name: &str, parameters: &str) -> PyResult<Study> {
        logs::start();
        let writer = Writer::named(name).ok_or_else(|| input(format!("`{name}` is no analysis")))?;
        let parameters = serde_json::from_str(parameters).map_err(|e| input(format!("the parameters: {e}")))?;
        (writer.job)(&parameters).map_err(|e| input(format!("{name}: {e}")))?;
        Ok(Study { writer, parameters })
    }

    /// Runs it into a run directory: the directory, its record as JSON, the tables that were made, and whether it was there already.
    #[pyo3(signature = (model, out, force, resume, join, engine, seed, call, tick=None))]
    #[allow(clippy::too_many_arguments)]
    fn run_into(
        &self,
        py: Python<'_>,
        model: &Bound<'_, Model>,
        out: PathBuf,
        force: bool,
        resume: bool,
        join: bool,
        engine: &str,
        seed: u64,
        call: String,
        tick: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(PathBuf, String, Vec<Table>, bool)> {
        settled(py)?;
        let watched = Arc::new(Watched::default());
        let put = self.put_to(model.get(), engine, seed, &watched)?;
        let cancel = put.cancel.clone();
        let share = if join { Share::Joint } else { Share::Whole };
        let place = Place { out, force, resume, share };
        let (writer, parameters) = (self.writer, self.parameters.clone());
        let work = move || -> Result<Finished, StudyError> {
            let origin = Origin { command_line: call, meter: Meter::start(), ..Origin::default() };
            place.check()?;
            let job = (writer.job)(&parameters).map_err(|e| StudyError::Analysis(e.into()))?;
            job.run_into(&put, &place, &origin)
        };
        let finished = waited(py, &cancel, &watched, tick, work)?.map_err(of_study)?;
        let record = serde_json::to_string(&finished.record).map_err(failed)?;
        let tables = finished.tables.into_iter().map(Table).collect();
        Ok((finished.path, record, tables, finished.was_complete))
    }

    /// What it would cost by each engine, as JSON.
    fn cost(&self, py: Python<'_>, model: &Bound<'_, Model>, engine: &str, seed: u64) -> PyResult<String> {
        let watched = Arc::new(Watched::default());
        let put = self.put_to(model.get(), engine, seed, &watched)?;
        let cancel = put.cancel.clone();
        let (writer, parameters) = (self.writer, self.parameters.clone());
        let work = move || {
            let job = (writer.job)(&parameters).map_err(|e| StudyError::Analysis(e.into()))?;
            job.cost(&put)
        };
        let cost = waited(py, &cancel, &watched, None, work)?.map_err(of_study)?;
        let one = |((engine, size), seconds): ((gatelens::run::Engine, &gatelens::run::Size), &Option<f64>)| {
            let mut size = serde_json::to_value(size).unwrap_or_default();
            size["seconds"] = json!(seconds);
            (engine.to_string(), size)
        };
        let by: Map<String, Value> = ENGINES.into_iter().zip(&cost.sizes).zip(&cost.seconds).map(one).collect();
        Ok(Value::Object(by).to_string())
    }
}

/// Data in memory, as JSON that parameters hold.
#[pyfunction]
pub fn data(name: &str, bytes: Vec<u8>) -> PyResult<String> {
    serde_json::to_string(&Data::in_memory(name, bytes)).map_err(failed)
}

/// What the tables say first, in lines.
#[pyfunction]
pub fn findings(tables: Vec<Bound<'_, Table>>) -> Vec<String> {
    cli::findings(&owned(&tables))
}

fn owned(tables: &[Bound<'_, Table>]) -> Vec<table::Table> {
    tables.iter().map(|table| table.get().0.clone()).collect()
}

/// A page of some blocks of the report alone: of the figures of these names, and of token views if they are asked for. None where
/// there is none of them.
#[pyfunction]
pub fn view(
    analysis: &str,
    tables: Vec<Bound<'_, Table>>,
    folder: PathBuf,
    figures: Vec<String>,
    tokens: bool,
) -> PyResult<Option<String>> {
    let writer = Writer::named(analysis).ok_or_else(|| input(format!("`{analysis}` is no analysis")))?;
    let sections = (writer.from_tables.sections)(&owned(&tables), &folder).map_err(failed)?;
    let wanted = |block: &Block| match block {
        Block::Figure(figure) => {
            let stem = figure.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            stem.is_some_and(|stem| figures.contains(&stem))
        }
        Block::Tokens(_) => tokens,
        _ => false,
    };
    let blocks: Vec<Block> = sections.into_iter().flat_map(|section| section.blocks).filter(wanted).collect();
    if blocks.is_empty() {
        return Ok(None);
    }
    let report = Report { title: writer.title.to_string(), intro: blocks, sections: Vec::<Section>::new() };
    html::render(&report).map(Some).map_err(failed)
}

/// Runs the command `gatelens` with these words after it; gives its exit code.
#[pyfunction]
pub fn command(py: Python<'_>, words: Vec<OsString>) -> u8 {
    // Jobs that the command submits start it as this process was started.
    let python = py.import("sys").and_then(|sys| sys.getattr("executable")?.extract::<String>());
    if let Ok(python) = python {
        cli::started_by(vec![python, "-m".to_string(), "gatelens".to_string()]);
    }
    py.detach(|| cli::command(words))
}

/// Flags that all analyses share: those of the model, and of how it is run.
const SHARED: [&str; 21] = [
    "portable",
    "shard",
    "join",
    "gathered",
    "model",
    "device",
    "dtype",
    "max_memory",
    "threads",
    "ignore_config_key",
    "date",
    "template_var",
    "quiet",
    "json",
    "out",
    "force",
    "resume",
    "seed",
    "engine",
    "dry_run",
    "prompt_tokens",
];

/// All analyses with their parameters, as JSON: what the package's classes are written from.
#[pyfunction]
pub fn commands() -> String {
    let mut root = cli::commands();
    root.build();
    let analyses: Vec<Value> = gatelens::analyses::WRITERS
        .iter()
        .filter_map(|writer| {
            let command = root.find_subcommand(writer.name)?;
            let own = command.get_arguments().filter(|arg| !SHARED.contains(&arg.get_id().as_str()));
            let own = own.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"));
            let parameters: Vec<Value> = own.map(parameter).collect();
            let about = command.get_about().map(ToString::to_string);
            Some(json!({"name": writer.name, "title": writer.title, "about": about, "parameters": parameters}))
        })
        .collect();
    Value::from(analyses).to_string()
}

fn parameter(arg: &clap::Arg) -> Value {
    let kind = arg.get_value_parser().type_id();
    let is = |wanted: TypeId| kind == wanted;
    let of = if is(TypeId::of::<bool>()) {
        "flag"
    } else if is(TypeId::of::<u8>()) || is(TypeId::of::<u16>()) || is(TypeId::of::<u32>()) || is(TypeId::of::<u64>()) {
        "int"
    } else if is(TypeId::of::<f64>()) {
        "float"
    } else if is(TypeId::of::<Data>()) {
        "data"
    } else {
        "text"
    };
    let text = |styled: Option<&clap::builder::StyledStr>| styled.map(ToString::to_string);
    let defaults: Vec<String> = arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    let possible: Vec<String> = match of {
        "flag" => Vec::new(),
        _ => arg.get_possible_values().iter().map(|value| value.get_name().to_string()).collect(),
    };
    let many = matches!(arg.get_action(), clap::ArgAction::Append);
    json!({
        "name": arg.get_id().as_str(),
        "kind": of,
        "many": many,
        "required": arg.is_required_set(),
        "default": defaults,
        "possible": possible,
        "help": text(arg.get_help()),
        "long_help": text(arg.get_long_help()),
    })
}
