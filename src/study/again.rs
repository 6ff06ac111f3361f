//! Studies as run directories record them: by their parameters, which are enough to run them again.

use super::directory::OF_RUN;
use super::rundir::{RUN_FILE, RecordError, RunRecord};
use super::runner::{Job, StudyError};
use super::{Study, memory};
use crate::analyses::Writer;
use crate::model::{Model, ModelError, Options, device};
use crate::names::{nearest, suggestion};
use crate::run::Engine;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// A study that was recorded.
pub struct Recorded {
    /// The analysis with its parameters.
    pub job: Box<dyn Job>,
    /// The model, as it was named.
    pub model: String,
    /// How it was loaded.
    pub options: Options,
    pub engine: Engine,
    pub seed: u64,
}

/// What a record has among the parameters beside those of the analysis.
const OF_THE_STUDY: [&str; 11] = [
    "model",
    "ignore_config_key",
    "dataset_sha256",
    "model_sha256",
    "dtype",
    "seed",
    "engine",
    "device",
    "version",
    "template_var",
    "date",
];

impl Recorded {
    /// The study that made a run directory, from its record. `around` is the folder that the directory is in; files of
    /// the whole run, if it was part of one, are there.
    ///
    /// # Errors
    /// If the record does not say what was run.
    pub fn of(directory: &Path, around: &Path, record: &RunRecord) -> Result<Recorded, StudyError> {
        let path = directory.join(RUN_FILE);
        let bad = |reason: String| StudyError::Unread(RecordError { path: path.clone(), reason });
        let writer = Writer::named(&record.command).ok_or_else(|| {
            let near = nearest(&record.command, crate::analyses::WRITERS.iter().map(|writer| writer.name));
            bad(format!("`command`: `{}` is no analysis{}", record.command, suggestion(&near)))
        })?;
        let of_the_study = |key: &str| OF_THE_STUDY.contains(&key);
        let own = record.parameters.iter().filter(|(key, _)| !of_the_study(key));
        let own = own.map(|(key, value)| Ok((key.clone(), placed(value, directory, around)?)));
        let own: Map<String, Value> = own.collect::<Result<_, String>>().map_err(bad)?;
        let job = (writer.job)(&own).map_err(|e| bad(format!("`parameters`: {e}")))?;
        let field = Fields(&record.parameters);
        let said = |e: &dyn std::fmt::Display| bad(format!("`parameters`: {e}"));
        let options = Options {
            devices: device::devices(&record.device).map_err(|e| said(&e))?,
            dtype: device::dtype(&field.get::<String>("dtype").map_err(bad)?).map_err(|e| said(&e))?,
            max_memory: record.max_memory,
            ignore_config_keys: field.get("ignore_config_key").map_err(bad)?,
            date: field.day().map_err(bad)?,
            template_vars: field.template_vars().map_err(bad)?,
            prompt_tokens: None,
            progress: false,
        };
        let engine = field.get("engine").map_err(bad)?;
        Ok(Recorded { job, model: record.model.name.clone(), options, engine, seed: record.seed })
    }

    /// The study, with its model opened.
    ///
    /// # Errors
    /// If the model cannot be loaded.
    pub fn study(&self) -> Result<Study, ModelError> {
        let model = Arc::new(Model::open(&self.model, &self.options)?);
        Ok(Study { engine: self.engine, seed: self.seed, ..Study::of(model) })
    }
}

/// A parameter with files of the run where they are, and data that were in memory as they were kept.
fn placed(value: &Value, directory: &Path, around: &Path) -> Result<Value, String> {
    match value {
        Value::String(text) => match text.strip_prefix(OF_RUN) {
            Some(file) => Ok(Value::from(around.join(file).display().to_string())),
            None => memory::taken_up(text, directory),
        },
        Value::Array(values) => values.iter().map(|value| placed(value, directory, around)).collect(),
        other => Ok(other.clone()),
    }
}

/// The parameters of a record.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T, String> {
        let value = self.0.get(key).cloned().unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|e| format!("`parameters`: `{key}`: {e}"))
    }

    fn day(&self) -> Result<Option<crate::model::template::Day>, String> {
        let day: Option<String> = self.get("date")?;
        day.map(|day| day.parse().map_err(|e| format!("`parameters`: `date`: {e}"))).transpose()
    }

    fn template_vars(&self) -> Result<Map<String, Value>, String> {
        let written: Option<Vec<String>> = self.get("template_var")?;
        let one = |text: String| {
            let (key, json) = text.split_once('=')?;
            Some((key.to_string(), serde_json::from_str(json).ok()?))
        };
        let vars: Option<Map<String, Value>> = written.unwrap_or_default().into_iter().map(one).collect();
        vars.ok_or_else(|| "`parameters`: `template_var`: expected texts as enable_thinking=false".to_string())
    }
}
