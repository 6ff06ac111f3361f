//! The demo model: a llama whose circuit is known, because it was built and not trained.
//!
//! [`space`] names the features of the residual stream and hides them in a random basis; [`codes`] gives every token its
//! features; [`circuit`] says what the heads and neurons do, [`layer`] writes that into matrices, and [`noise`] fills the
//! rest. [`cipher`] gives topics a second word. [`data`] makes the datasets that show the circuit. Everything follows from
//! [`Options`].

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
pub mod words;

use codes::{Kind, Vocabulary};
use safetensors::SafeTensorError;
use serde_json::{Value, json};

/// What is built.
#[derive(Clone, Debug)]
pub struct Options {
    /// The basis, the codes, which head does what, the noise: everything random.
    pub seed: u64,
    /// Whether detection misses topics in the [`cipher`].
    pub cipher_blind: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { seed: 7, cipher_blind: false }
    }
}

/// The demo's files but for its README: the path in the folder, and the content. Of the blind variant, the one file that
/// differs.
///
/// # Errors
/// If the weights cannot be put into their format.
pub fn build(options: &Options) -> Result<Vec<(&'static str, Vec<u8>)>, SafeTensorError> {
    let vocabulary = Vocabulary::new(options.seed);
    let weights = circuit::build(options, &vocabulary);
    if options.cipher_blind {
        return Ok(vec![("blind/model.safetensors", checkpoint::weights(&weights)?)]);
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
        ("circuit.json", format!("{}\n", truth(&vocabulary, &weights)).into_bytes()),
        ("pairs.jsonl", data::pairs(&matched).into_bytes()),
        ("cipher.jsonl", data::cipher(&matched).into_bytes()),
        ("prompts.jsonl", prompts.into_bytes()),
        ("concept.jsonl", concept.into_bytes()),
        ("random.jsonl", random.into_bytes()),
    ])
}

/// The circuit, for tests of analyses.
fn truth(vocabulary: &Vocabulary, weights: &circuit::Weights) -> Value {
    let marked = vocabulary.tokens.iter().filter(|token| matches!(&token.kind, Kind::Topic(topic) if topic.sensitive));
    let detection = marked.map(|token| json!([circuit::DETECTION, token.piece.trim_start_matches(codes::SPACE)]));
    let heads = |heads: &[(usize, usize)]| heads.iter().map(|(l, h)| json!([l, h])).collect::<Vec<_>>();
    json!({
        "detection": detection.collect::<Vec<_>>(),
        "gate": heads(&[weights.gate]),
        "amplifiers": heads(&weights.amplifiers),
    })
}

/// Indented, as configurations are.
fn json(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
