//! Descriptions that wrap a language model's: those of models that also read images or sound, whose text part is described
//! in a `text_config`. With text alone, the three positions that some of their rotations turn by are one, and what else they
//! add acts on images.

use super::ConfigError;
use crate::model::families::{self, Family};
use serde_json::{Map, Value};
use std::path::Path;

/// Wrappers whose text part reads its prompt in another way than from left to right.
const NOT_CAUSAL: [&str; 2] = ["paligemma", "colpali"];

/// What the names of a wrapper's own keys are of, which the text part does not read: parts of such names.
const OTHER_PARTS: [&str; 17] = [
    "vision",
    "image",
    "img",
    "video",
    "audio",
    "multimodal",
    "multi_modal",
    "projector",
    "mm_",
    "boi_",
    "eoi_",
    "boa_",
    "eoa_",
    "spatial_merge",
    "downsample",
    "pixel_shuffle",
    "ignore_index",
];

/// A wrapper's text part.
pub(super) struct TextPart {
    /// Its description, with what of the wrapper's keys is about it.
    pub keys: Map<String, Value>,
    /// What a user should know.
    pub warning: String,
}

/// The text part, where `map` describes a model that has other parts too.
///
/// # Errors
/// If the text part is of no known family, or reads its prompt in another way than decoders do.
pub(super) fn text_part(path: &Path, map: &Map<String, Value>) -> Result<Option<TextPart>, ConfigError> {
    let outer = map.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let Some(text) =
        map.get("text_config").and_then(Value::as_object).filter(|_| Family::named(outer, false).is_none())
    else {
        return Ok(None);
    };
    let unsaid = Family::within(outer).map(|family| family.name);
    let inner = text.get("model_type").and_then(Value::as_str).or(unsaid).unwrap_or("(no `model_type`)");
    if Family::named(inner, true).is_none() {
        let (path, found) = (path.to_path_buf(), format!("{outer}, with the text part {inner}"));
        return Err(ConfigError::UnknownArchitecture { path, found, known: families::known() });
    }
    if NOT_CAUSAL.iter().any(|name| outer.starts_with(name)) {
        let why = format!("`{outer}` lets every token of a prompt read all others, which gatelens does not do");
        return Err(ConfigError::Key { path: path.to_path_buf(), key: "model_type".to_string(), why });
    }
    let warning =
        format!("`{outer}` reads more than text: its text part, a {inner} decoder, is run, and nothing else is read");
    Ok(Some(TextPart { keys: joined(map, text, inner), warning }))
}

/// The text part's keys, and those of the wrapper's that count for it: its own come first, but for ties, and all ends of a
/// text count.
fn joined(outer: &Map<String, Value>, text: &Map<String, Value>, model_type: &str) -> Map<String, Value> {
    const ENDS: &str = "eos_token_id";
    const TIED: &str = "tie_word_embeddings";
    let mut joined = text.clone();
    for (key, value) in outer.iter().filter(|(key, _)| *key != "text_config") {
        // `scale_factor` is by how much Idefics' images shrink.
        if key != "scale_factor" && !OTHER_PARTS.iter().any(|part| key.contains(part)) {
            joined.entry(key).or_insert_with(|| value.clone());
        }
    }
    let ends = [outer, text].into_iter().filter_map(|map| map.get(ENDS)).filter(|v| !v.is_null());
    let each = |v: &Value| v.as_array().cloned().unwrap_or_else(|| vec![v.clone()]);
    let ends: Vec<Value> = ends.flat_map(each).collect();
    if !ends.is_empty() {
        joined.insert(ENDS.to_string(), Value::Array(ends));
    }
    // What the wrapper says of ties counts, as in transformers: the unembedding is its own.
    if let Some(tied) = outer.get(TIED).filter(|v| !v.is_null()) {
        joined.insert(TIED.to_string(), tied.clone());
    }
    joined.insert("model_type".to_string(), Value::from(model_type));
    joined
}
