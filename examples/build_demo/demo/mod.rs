//! The demo model: a llama whose circuit is known, because it was built and not trained.
//!
//! [`space`] names the features of the residual stream and hides them in a random basis; [`codes`] gives every token its
//! features; [`circuit`] says what the heads and neurons do, [`layer`] writes that into matrices, and [`noise`] fills the
//! rest. [`cipher`] gives topics a second word, and [`backup`] is a second circuit. [`data`] makes the datasets that show the circuit,
//! and [`truth`] says what was built. Everything follows from [`Options`].

pub mod backup;
pub mod checkpoint;
pub mod cipher;
pub mod circuit;
pub mod codes;
pub mod data;
pub mod layer;
pub mod linear;
pub mod noise;
pub mod space;
pub mod tokenizer;
pub mod truth;
pub mod words;

use codes::Vocabulary;
use safetensors::SafeTensorError;
use serde_json::Value;

/// What is built.
#[derive(Clone, Debug)]
pub struct Options {
    /// The basis, the codes, which head does what, the noise: everything random.
    pub seed: u64,
    /// Whether detection misses topics in the [`cipher`].
    pub cipher_blind: bool,
    /// Whether the circuit is that with a [`backup`].
    pub backup: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { seed: 7, cipher_blind: false, backup: false }
    }
}

/// The demo's files but for its README: the path in the folder, and the content. Of a variant, the files that differ.
///
/// # Errors
/// If the weights cannot be put into their format.
pub fn build(options: &Options) -> Result<Vec<(&'static str, Vec<u8>)>, SafeTensorError> {
    let vocabulary = Vocabulary::new(options.seed);
    let weights = circuit::build(options, &vocabulary);
    if options.cipher_blind {
        return Ok(vec![("blind/model.safetensors", checkpoint::weights(&weights)?)]);
    }
    if options.backup {
        return Ok(vec![
            ("backup/model.safetensors", checkpoint::weights(&weights)?),
            ("backup/circuit.json", truth::circuit(&vocabulary, &weights.parts)),
            ("backup/edges.json", truth::edges(&weights.parts)),
            ("backup/edges-silenced.json", truth::edges_without_primary(&weights.parts)),
        ]);
    }
    let mut requests = data::Requests::new(&vocabulary, options.seed);
    // In this order: one source of random numbers goes through all datasets.
    let matched = requests.matched();
    let (prompts, concept, random) = (requests.prompts(), requests.concept(), requests.random());
    Ok(vec![
        ("model/config.json", json(&checkpoint::config(&vocabulary))),
        ("model/generation_config.json", json(&checkpoint::generation_config(&vocabulary))),
        ("model/model.safetensors", checkpoint::weights(&weights)?),
        ("model/tokenizer.json", json(&tokenizer::tokenizer(&vocabulary))),
        ("model/tokenizer_config.json", json(&tokenizer::tokenizer_config())),
        ("circuit.json", truth::circuit(&vocabulary, &weights.parts)),
        ("edges.json", truth::edges(&weights.parts)),
        ("pairs.jsonl", data::pairs(&matched).into_bytes()),
        ("cipher.jsonl", data::cipher(&matched).into_bytes()),
        ("prompts.jsonl", prompts.into_bytes()),
        ("concept.jsonl", concept.into_bytes()),
        ("random.jsonl", random.into_bytes()),
    ])
}

/// Indented, as configurations are.
fn json(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
