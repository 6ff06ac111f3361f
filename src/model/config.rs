//! Hugging Face `config.json` to [`Arch`]: reading its keys. What they mean in a family is on its page, [`super::families`].
//!
//! Every key is accounted for: read, known not to change the forward pass, or required to hold the one value that
//! the decoder implements. A key that is none of these is an error if its name speaks of the forward pass and a
//! warning otherwise, so that no checkpoint is silently run as something that it is not; `null` counts as absent, and
//! so does `false`, with a warning where the name speaks of the forward pass. A number that is not given, and that no
//! tensor's shape would contradict, is the family's default, with a warning. Older keys (`rope_theta`, `rope_scaling`,
//! `sliding_window_pattern`, ...) and the nested `rope_parameters` of `transformers` 5 both load. Of a model that reads
//! images too, the text part's description is read (`wrapper`).

mod quantization;
mod reader;
mod ropes;
mod windows;
mod wrapper;

use super::arch::Arch;
use super::families::{self, Family};
use super::files::{LARGEST_CONFIG, read_bounded};
use crate::parameters::param;
pub(super) use reader::{Cap, Reader, slips};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
pub(super) use windows::{Slides, Sliding, Windows};

/// What is wrong with a `config.json`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {why}", path = path.display())]
    File { path: PathBuf, why: String },
    #[error("{path}: `{key}`: {why}", path = path.display())]
    Key { path: PathBuf, key: String, why: String },
    #[error("{path}: architecture `{found}` is unknown; gatelens runs {known}", path = path.display())]
    UnknownArchitecture { path: PathBuf, found: String, known: String },
}

/// A configuration that was read, with what a user should know about it.
#[derive(Debug)]
pub struct Config {
    pub arch: Arch,
    /// Keys that were not understood and do not look as if they mattered, and defaults that were assumed.
    pub warnings: Vec<String>,
    /// What the file calls the model (`_name_or_path`).
    pub name: Option<String>,
    /// The tokens that end a text, as it names them: an id or a list.
    pub eos_token_id: Option<Value>,
    /// Rows and columns that share a scale, where the weights are quantised.
    pub fp8_blocks: Option<[usize; 2]>,
}

/// Reads `config.json`. Keys in `ignore` are passed over, for a user who knows that they do not matter: they count as
/// absent. `rope_scaling.KEY` and `rope_parameters.KEY` are such keys too.
///
/// # Errors
/// If the file is not JSON, the architecture is unknown, a key is missing, has the wrong type, asks for something that
/// the decoder does not do, or is unknown and looks as if it changed the forward pass; or if a key in `ignore` is not
/// in the file.
pub fn read(path: &Path, ignore: &[String]) -> Result<Config, ConfigError> {
    let file = |why: String| ConfigError::File { path: path.to_path_buf(), why };
    let text = read_bounded(path, LARGEST_CONFIG).map_err(|e| file(e.to_string()))?;
    let text = text.ok_or_else(|| file("there is no such file".to_string()))?;
    let text = String::from_utf8(text).map_err(|e| file(format!("not UTF-8: {e}")))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| file(format!("not JSON: {e}")))?;
    let Value::Object(map) = value else { return Err(file("expected a JSON object".to_string())) };
    parse(path, &map, ignore)
}

/// [`read`] of an object at hand; `path` is for messages.
///
/// # Errors
/// As [`read`].
pub fn parse(path: &Path, map: &Map<String, Value>, ignore: &[String]) -> Result<Config, ConfigError> {
    let text = wrapper::text_part(path, map)?;
    let map = text.as_ref().map_or(map, |text| &text.keys);
    let found = map.get("model_type").filter(|_| !ignore.iter().any(|key| key == "model_type"));
    let found = found.and_then(Value::as_str).unwrap_or("(no `model_type`)");
    let unknown = || {
        let (path, found) = (path.to_path_buf(), found.to_string());
        ConfigError::UnknownArchitecture { path, found, known: families::known() }
    };
    let family = Family::named(found, text.is_some()).ok_or_else(unknown)?;
    let r = Reader::new(path, map, ignore, (family, text.is_some()));
    r.take("model_type");
    text.iter().for_each(|text| r.warn(text.warning.clone()));
    let mut arch = (family.describe)(&r)?;
    // Where one rotation of several is not stretched, the context given is what the whole model was made for.
    arch.n_ctx = r.contexts.borrow().iter().copied().min().unwrap_or(arch.n_ctx);
    arch.check().map_err(|why| r.file(why))?;
    let fp8_blocks = quantization::fp8_blocks(&r)?;
    r.account_for_the_rest()?;
    let name = map.get("_name_or_path").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
    let eos_token_id = map.get("eos_token_id").cloned();
    Ok(Config { arch, warnings: r.warnings.into_inner(), name, eos_token_id, fp8_blocks })
}

/// What is wrong with keys that nothing here knows; `slips` may be how they were meant to be passed over.
pub(super) fn not_understood(keys: &[String], slips: &[String]) -> String {
    let are = if keys.len() == 1 { "is" } else { "are" };
    let wrong = format!("{are} not understood and may change the forward pass; {}", passing_over(keys));
    std::iter::once(wrong).chain(slips.iter().cloned()).collect::<Vec<_>>().join("; ")
}

/// How keys are passed over by a user who knows better.
pub(super) fn passing_over(keys: &[String]) -> String {
    let passed: Vec<String> = keys.iter().map(|key| param("ignore_config_key").is(key).to_string()).collect();
    let they = if keys.len() == 1 { "it does" } else { "they do" };
    format!("if you know that {they} not matter, pass {}", passed.join(" "))
}

/// Keys that never change the forward pass of a decoder: training, generation, bookkeeping.
const HARMLESS: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_model_name_or_path",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "auto_map",
    "begin_suppress_tokens",
    "bos_token",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "dtype",
    "embd_pdrop",
    "eos_token",
    "eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "model_max_length",
    "n_ctx",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "rope_interleaved",
    "sep_token_id",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
];

/// What a key that changes the forward pass is called: parts of such names.
const TELLING: &[&str] = &[
    "act",
    "adapter",
    "alibi",
    "attn",
    "attention",
    "bias",
    "cap",
    "clip",
    "embed",
    "expert",
    "factor",
    "fuse",
    "gate",
    "head",
    "layer",
    "lora",
    "merge",
    "mlp",
    "moe",
    "mult",
    "norm",
    "parallel",
    "position",
    "quant",
    "query",
    "resid",
    "rope",
    "rotary",
    "router",
    "scal",
    "skip",
    "sparse",
    "tie",
    "window",
];
