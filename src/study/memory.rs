//! Data that were in memory, kept in the run directory of the study, so that the study can be run again.

use crate::dataset::{Data, IN_MEMORY};
use serde_json::{Map, Value};
use std::path::Path;

/// The name and the bytes of data that are kept as a file.
type File = (String, Vec<u8>);

/// Parameters with the names of data in memory in their place, and these data by their names as files.
pub(super) fn taken_out(parameters: Map<String, Value>) -> (Map<String, Value>, Vec<File>) {
    let mut files = Vec::new();
    let named = parameters.into_iter().map(|(key, value)| (key, named(value, &mut files))).collect();
    (named, files)
}

fn named(value: Value, files: &mut Vec<File>) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(|value| named(value, files)).collect(),
        Value::Object(object) if object.contains_key("memory") => {
            match serde_json::from_value::<Data>(Value::Object(object.clone())) {
                Ok(data) => {
                    let name = data.display().to_string();
                    let file = name.trim_start_matches(IN_MEMORY).to_string();
                    files.push((file, data.read().ok().and_then(Result::ok).unwrap_or_default()));
                    Value::from(name)
                }
                Err(_) => Value::Object(object),
            }
        }
        other => other,
    }
}

/// A text of a record's parameters: data that were in memory as the run directory keeps them, anything else as it is.
///
/// # Errors
/// If the file is not there any more.
pub(super) fn taken_up(text: &str, directory: &Path) -> Result<Value, String> {
    let Some(name) = text.strip_prefix(IN_MEMORY) else { return Ok(Value::from(text)) };
    let file = Path::new(name).file_name().map(|name| directory.join(name)).unwrap_or_default();
    let bytes = std::fs::read(&file).map_err(|e| format!("{}: cannot be read: {e}", file.display()))?;
    serde_json::to_value(Data::again(name, bytes)).map_err(|e| e.to_string())
}
