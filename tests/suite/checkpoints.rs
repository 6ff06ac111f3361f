//! Checkpoints as people have them: weights stored under other names, wrapped, quantised, or as what changes another's.

mod adapters;
mod contexts;
mod quantized;
mod tied;
mod wrapped;

use crate::support::copies::{Folder, Stored, Tensors, serialized};
use crate::support::{Golden, assert_close, family_dir, logits};
use gatelens::model::config::{self, Config, ConfigError};
use gatelens::model::{Model, Options};
use serde_json::{Map, Value, json};
use std::path::Path;

fn try_open(model: &Path) -> Result<Model, String> {
    Model::open(model.to_str().expect("UTF-8"), &Options::default()).map_err(|e| e.to_string())
}

#[track_caller]
fn open(model: &Path) -> Model {
    try_open(model).unwrap_or_else(|e| panic!("{e}"))
}

/// Holds that a model cannot be opened to what is said of it.
#[track_caller]
fn unopened(model: &Path, parts: &[&str]) {
    let error = try_open(model).err().expect("an error");
    parts.iter().for_each(|part| assert!(error.contains(part), "no `{part}` in: {error}"));
}

/// Holds what is said when the numbers of a model that can be opened are read.
#[track_caller]
fn unread(model: &Path, parts: &[&str]) {
    let error = open(model).decoder.read().expect_err("an error").to_string();
    parts.iter().for_each(|part| assert!(error.contains(part), "no `{part}` in: {error}"));
}

fn described(text: &str) -> Result<Config, ConfigError> {
    let map: Map<String, Value> = serde_json::from_str(text).expect("a JSON object");
    config::parse(Path::new("config.json"), &map, &[])
}

fn prompts(family: &str) -> Vec<Vec<u32>> {
    let golden = Golden::of(family);
    vec![golden.ids("input_ids", 0), golden.ids("input_ids", 1)]
}
