//! Inputs that are wrong and work that fails: what is said, with which exit code, and that nothing is left behind.

mod descriptions;
mod gguf;
mod inputs;
mod output;
mod weights;

use crate::support::cli::{Bench, Ended, command, ended, gatelens, pair};
use crate::support::copies::{Folder, INDEX, SHARDS, Stored};
use crate::support::gguf_builder::{GgufBuilder, Meta};
use crate::support::{Golden, assert_close, family_dir, logits};
use gatelens::model::{Model, ModelError, Options};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;

/// Asks for an analysis of a model that is faulty.
#[track_caller]
fn refused(model: &Path, parts: &[&str]) {
    refused_with(model, &[], parts);
}

#[track_caller]
fn refused_with(model: &Path, more: &[&str], parts: &[&str]) {
    let bench = Bench::new();
    let pairs = bench.dataset("pairs.jsonl", &[pair("p", &[5, 6, 7], &[8, 9, 10])]);
    bench.interchange(model, &pairs, more).refused(parts);
    assert_eq!(bench.written(), [""; 0], "something was written");
}

/// Asks for an analysis of pairs that are faulty.
#[track_caller]
fn refused_pairs(text: &str, more: &[&str], parts: &[&str]) {
    let bench = Bench::new();
    let pairs = bench.text("pairs.jsonl", text);
    bench.interchange(&family_dir("llama"), &pairs, more).refused(&[&["pairs.jsonl"], parts].concat());
    assert_eq!(bench.written(), [""; 0], "something was written");
}

fn inspect(model: &Path, more: &[&str]) -> Ended {
    gatelens(["inspect", model.to_str().expect("UTF-8")].iter().chain(more))
}

fn open(model: &Path) -> Model {
    open_with(model, &[]).unwrap_or_else(|e| panic!("{e}"))
}

/// Opens a model with keys of its description passed over.
fn open_with(model: &Path, ignored: &[&str]) -> Result<Model, ModelError> {
    let ignore_config_keys = ignored.iter().map(|key| (*key).to_string()).collect();
    Model::open(model.to_str().expect("UTF-8"), &Options { ignore_config_keys, ..Options::default() })
}

/// Holds that a model cannot be opened to what is said of it.
#[track_caller]
fn unopened(model: &Path, parts: &[&str]) {
    holds_all(&open_with(model, &[]).err().expect("an error").to_string(), parts);
}

#[track_caller]
fn holds_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

/// Two golden prompts and one that is longer than any context that a fixture was first trained on.
fn prompts(family: &str) -> Vec<Vec<u32>> {
    let golden = Golden::of(family);
    vec![golden.ids("input_ids", 0), golden.ids("input_ids", 1), (3..103).collect()]
}
