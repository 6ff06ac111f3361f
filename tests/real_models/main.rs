//! Two models that others trained, and the tokenizers of four more, held to what `transformers` gives for them.
//!
//! They need `scripts/fetch_models.sh smollm2 qwen2.5-coder-0.5b` and `scripts/fetch_vocabularies.sh`, and are ignored
//! without being asked for:
//! `cargo test --release --test real_models -- --ignored`.

#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "../suite/support/mod.rs"]
mod support;
mod tasks;
mod to_folder;
mod vocabularies;

use candle_core::Device;
use gatelens::model::template::Message;
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Activation, Part, Plan, Positions};
use gatelens::run::{Generation, Options, Reading, Sampling, Steps, generate, run};
use gatelens::site::SiteKind;
use serde_json::Value;
use std::path::PathBuf;
use support::fixtures;

/// Where a script leaves what it fetches: the folder that the variable names, or one in the user's cache.
fn cached(variable: &str, folder: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache")));
    let dir = std::env::var_os(variable).map(PathBuf::from);
    dir.or_else(|| cache.map(|c| c.join("gatelens").join(folder))).expect("a home folder")
}

fn model_path(name: &str) -> PathBuf {
    let path = cached("GATELENS_MODELS", "models").join(format!("{name}.gguf"));
    assert!(path.exists(), "{} is missing: run scripts/fetch_models.sh {name}", path.display());
    path
}

fn open(path: &std::path::Path) -> Model {
    Model::open(path.to_str().expect("UTF-8"), &ModelOptions::default()).expect("a sound model")
}

/// The prompts of `real_NAME.json` with their expected values.
fn expected(name: &str) -> Vec<Value> {
    let text = std::fs::read(fixtures().join(format!("real_{name}.json"))).expect("expected values");
    serde_json::from_slice(&text).expect("JSON")
}

fn ids_of(prompt: &Value) -> Vec<u32> {
    prompt["ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[track_caller]
fn tokenises_as_expected(model: &Model, prompt: &Value) {
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let rendered = match prompt.get("messages") {
        Some(messages) => {
            let messages: Vec<Message> = serde_json::from_value(messages.clone()).expect("messages");
            assert_eq!(tokenizer.encode_chat(&messages, true).expect("ids"), ids_of(prompt));
            tokenizer.render_chat(&messages, true).expect("a rendered template")
        }
        None => {
            let text = prompt["text"].as_str().expect("text");
            assert_eq!(tokenizer.encode(text, true).expect("ids"), ids_of(prompt));
            text.to_string()
        }
    };
    assert_eq!(rendered, prompt["rendered"].as_str().expect("a rendered prompt"));
    assert_eq!(tokenizer.decode(&ids_of(prompt), false).expect("text"), rendered);
    let (ids, texts) = (prompt["top_ids"].as_array().expect("ids"), prompt["top_tokens"].as_array().expect("texts"));
    for (id, text) in ids.iter().zip(texts) {
        let text = text.as_str().expect("text");
        // Part of a character is no text.
        if !text.contains(char::REPLACEMENT_CHARACTER) {
            assert_eq!(tokenizer.token(id.as_u64().expect("an id") as u32).expect("a token"), text);
        }
    }
}

/// Every layer's residual norm at the last position, then the last logits.
fn norms_and_logits(model: &Model, prompts: &[Value]) -> Vec<(Vec<f32>, Vec<f32>)> {
    let layers = model.decoder.arch.n_layers;
    let mut plan = Plan::default();
    for (i, prompt) in prompts.iter().enumerate() {
        let run = plan.prompt(format!("{i}"), ids_of(prompt));
        for site in (0..layers).map(|l| SiteKind::ResidPre.at(l)).chain([SiteKind::Logits.at(0)]) {
            plan.read(run, Activation { site, positions: Positions::Last, part: Part::All });
        }
    }
    let readings = run(&model.decoder, &plan, &Options::default()).expect("readings");
    let norm = |r: &Reading| r.values().iter().map(|x| x * x).sum::<f32>().sqrt();
    readings.chunks(layers + 1).map(|r| (r[..layers].iter().map(norm).collect(), r[layers].values())).collect()
}

/// Holds a model to its expected values; returns its last logits for each prompt.
fn is_as_in_transformers(name: &str) -> Vec<Vec<f32>> {
    let model = open(&model_path(name));
    let prompts = expected(name);
    let logits = fixtures().join(format!("real_{name}.safetensors"));
    let logits = candle_core::safetensors::load(logits, &Device::Cpu).expect("expected logits");
    let found = norms_and_logits(&model, &prompts);
    let (mut worst_norm, mut worst_logit) = (0f32, 0f32);
    for (i, (prompt, (norms, last))) in prompts.iter().zip(&found).enumerate() {
        tokenises_as_expected(&model, prompt);
        for (l, norm) in norms.iter().enumerate() {
            let expected = prompt["resid_norm_last"][l].as_f64().expect("a norm") as f32;
            worst_norm = worst_norm.max((norm - expected).abs() / expected);
        }
        let expected: Vec<f32> = logits[&format!("logits_last.{i}")].to_vec1().expect("logits");
        assert_eq!(last.len(), expected.len(), "vocabulary");
        worst_logit = last.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(worst_logit, f32::max);
    }
    println!("{name}: residual norms within {worst_norm:.1e} relative, logits within {worst_logit:.1e}");
    assert!(worst_norm < 1e-4 && worst_logit < 3e-4, "{name}: {worst_norm} {worst_logit}");
    found.into_iter().map(|(_, logits)| logits).collect()
}

/// Holds a model to its expected values from GGUF, and the folder that it was made from, in so many shards, to the same logits.
fn is_as_in_transformers_from_gguf_and_from_a_folder(name: &str, shards: usize) {
    let from_gguf = is_as_in_transformers(name);
    let folder = tempfile::tempdir().expect("a folder");
    to_folder::convert(&model_path(name), folder.path(), shards);
    let from_folder = norms_and_logits(&open(folder.path()), &expected(name));
    for (gguf, (_, folder)) in from_gguf.iter().zip(&from_folder) {
        assert_eq!(gguf, folder);
    }
}

#[test]
#[ignore = "needs scripts/fetch_models.sh smollm2"]
fn smollm2_is_as_in_transformers_from_gguf_and_from_a_sharded_folder() {
    is_as_in_transformers_from_gguf_and_from_a_folder("smollm2", 2);
}

#[test]
#[ignore = "needs scripts/fetch_models.sh qwen2.5-coder-0.5b"]
fn qwen_is_as_in_transformers_from_gguf_and_from_a_folder() {
    is_as_in_transformers_from_gguf_and_from_a_folder("qwen2.5-coder-0.5b", 1);
}

#[test]
#[ignore = "needs scripts/fetch_models.sh smollm2"]
fn smollm2_answers_a_question_and_stops() {
    let model = open(&model_path("smollm2"));
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let question = Message::user("What is the capital of France?");
    let mut plan = Plan::default();
    let prompt = plan.prompt("question", tokenizer.encode_chat(&[question], true).expect("ids"));
    let generation = Generation {
        runs: vec![prompt],
        max_tokens: 60,
        sampling: Sampling::Greedy,
        steps: Steps::PromptOnly,
        stop: model.stop_tokens().to_vec(),
    };
    let found = generate(&model.decoder, &plan, &generation, &Options::default()).expect("generated").remove(0);
    let answer = tokenizer.decode_generated(&found.ids).expect("text");
    println!("{answer}");
    assert!(answer.contains("Paris") && found.stopped, "{answer}");
}
