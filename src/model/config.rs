//! Hugging Face `config.json` to [`Arch`].
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
mod wrapper;

use super::arch::*;
use super::files::{LARGEST_CONFIG, read_bounded};
use crate::parameters::param;
use reader::Reader;
pub(super) use reader::slips;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

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
    let r = Reader::new(path, map, ignore, text.is_some());
    text.iter().for_each(|text| r.warn(text.warning.clone()));
    let family = family(&r)?;
    let mut arch = match family {
        Family::Gpt2 => gpt2(&r)?,
        Family::GptNeox => gpt_neox(&r)?,
        _ => rotary_family(&r, family)?,
    };
    // Where one rotation of several is not stretched, the context given is what the whole model was made for.
    arch.n_ctx = r.contexts.borrow().iter().copied().min().unwrap_or(arch.n_ctx);
    arch.check().map_err(|why| r.file(why))?;
    let fp8_blocks = quantization::fp8_blocks(&r)?;
    r.account_for_the_rest()?;
    let name = map.get("_name_or_path").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
    let eos_token_id = map.get("eos_token_id").cloned();
    Ok(Config { arch, warnings: r.warnings.into_inner(), name, eos_token_id, fp8_blocks })
}

/// The families that are known, in words.
fn known_families() -> String {
    FAMILIES.map(|(_, name)| name).join(", ")
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

fn family(r: &Reader) -> Result<Family, ConfigError> {
    let found = r.take("model_type").and_then(Value::as_str).unwrap_or("(no `model_type`)");
    wrapper::family(found, r.wrapped).ok_or_else(|| ConfigError::UnknownArchitecture {
        path: r.path.to_path_buf(),
        found: found.to_string(),
        known: known_families(),
    })
}

fn gpt2(r: &Reader) -> Result<Arch, ConfigError> {
    let (d_model, n_layers, n_heads) = (r.size("n_embd")?, r.size("n_layer")?, r.size("n_head")?);
    r.require("scale_attn_weights", &Value::Bool(true))?;
    r.require("add_cross_attention", &Value::Bool(false))?;
    let d_head = r.divide("n_embd", d_model, n_heads)?;
    Ok(Arch {
        family: Family::Gpt2,
        d_model,
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        d_head,
        d_mlp: r.opt_size("n_inner")?.unwrap_or(d_model.saturating_mul(4)),
        vocab: r.size("vocab_size")?,
        n_ctx: r.size("n_positions")?,
        norm: NormKind::Layer,
        norm_eps: r.or_default("layer_norm_epsilon", 1e-5)?,
        norm_plus_one: false,
        placement: NormPlacement::Before,
        qk_norm: QkNorm::None,
        parallel: false,
        mlp: Mlp::Plain,
        activation: r.activation("activation_function", "gelu_new")?,
        biases: Biases { qkv: true, attn_out: true, mlp: true },
        ropes: Vec::new(),
        layers: vec![Layer { window: None, rope: 0 }; r.bounded_layers(n_layers)?],
        score_scale: (d_head as f64).powf(-0.5),
        scores_by_depth: r.flag("scale_attn_by_inverse_layer_idx", false)?,
        score_softcap: None,
        logit_softcap: None,
        embed_scale: None,
        tied: r.flag("tie_word_embeddings", true)?,
    })
}

fn gpt_neox(r: &Reader) -> Result<Arch, ConfigError> {
    let (d_model, n_heads) = (r.size("hidden_size")?, r.size("num_attention_heads")?);
    let n_layers = r.size("num_hidden_layers")?;
    let d_head = r.divide("hidden_size", d_model, n_heads)?;
    let n_ctx = r.size("max_position_embeddings")?;
    let bias = r.flag("attention_bias", true)?;
    Ok(Arch {
        family: Family::GptNeox,
        d_model,
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        d_head,
        d_mlp: r.size("intermediate_size")?,
        vocab: r.size("vocab_size")?,
        n_ctx,
        norm: NormKind::Layer,
        norm_eps: r.or_default("layer_norm_eps", 1e-5)?,
        norm_plus_one: false,
        placement: NormPlacement::Before,
        qk_norm: QkNorm::None,
        parallel: r.flag("use_parallel_residual", true)?,
        mlp: Mlp::Plain,
        activation: r.activation("hidden_act", "gelu")?,
        biases: Biases { qkv: bias, attn_out: bias, mlp: true },
        ropes: vec![r.rope(d_head, n_ctx, 10_000.0, 0.25)?],
        layers: vec![Layer { window: None, rope: 0 }; r.bounded_layers(n_layers)?],
        score_scale: (d_head as f64).powf(-0.5),
        scores_by_depth: false,
        score_softcap: None,
        logit_softcap: None,
        embed_scale: None,
        tied: r.flag("tie_word_embeddings", false)?,
    })
}

/// The families that descend from Llama: RMS norms, gated MLPs, rotary positions, grouped queries.
fn rotary_family(r: &Reader, family: Family) -> Result<Arch, ConfigError> {
    let gemma = matches!(family, Family::Gemma2 | Family::Gemma3);
    let (d_model, n_heads) = (r.size_of(family, "hidden_size")?, r.size_of(family, "num_attention_heads")?);
    let n_layers = r.size_of(family, "num_hidden_layers")?;
    let d_head = match (r.opt_size("head_dim")?, family) {
        (Some(n), _) => n,
        (None, Family::Gemma2 | Family::Gemma3) => r.assumed("head_dim", 256usize),
        (None, Family::Qwen3) => r.assumed("head_dim", 128usize),
        (None, _) => r.divide("hidden_size", d_model, n_heads)?,
    };
    let n_ctx = r.size_of(family, "max_position_embeddings")?;
    let query_scalar = if gemma { r.or_default("query_pre_attn_scalar", 256.0)? } else { d_head as f64 };
    let one_value = match family {
        Family::Gemma2 | Family::Gemma3 => vec![("use_bidirectional_attention", json!(false))],
        Family::Qwen2 => vec![("use_mrope", json!(false))],
        // Written into the released Phi-4-mini, read by nothing.
        Family::Phi3 => vec![("full_attn_mod", json!(1)), ("interpolate_factor", json!(1))],
        _ => Vec::new(),
    };
    one_value.iter().try_for_each(|(key, value)| r.require(key, value))?;
    Ok(Arch {
        family,
        d_model,
        n_layers,
        n_heads,
        n_kv_heads: r.kv_heads(family, n_heads)?,
        d_head,
        d_mlp: r.size_of(family, "intermediate_size")?,
        vocab: r.size_of(family, "vocab_size")?,
        n_ctx,
        norm: NormKind::Rms,
        norm_eps: r
            .or_default("rms_norm_eps", if matches!(family, Family::Phi3 | Family::Olmo2) { 1e-5 } else { 1e-6 })?,
        norm_plus_one: gemma,
        placement: placement(family),
        qk_norm: qk_norm(family),
        parallel: false,
        mlp: Mlp::Gated,
        activation: activation(r, family)?,
        biases: biases(r, family)?,
        ropes: r.ropes(family, d_head, n_ctx)?,
        layers: r.layers(family, n_layers)?,
        score_scale: query_scalar.powf(-0.5),
        scores_by_depth: false,
        score_softcap: r.softcap("attn_logit_softcapping", family, 50.0)?,
        logit_softcap: r.softcap("final_logit_softcapping", family, 30.0)?,
        embed_scale: gemma.then(|| (d_model as f64).sqrt()),
        tied: r.flag("tie_word_embeddings", gemma)?,
    })
}

fn placement(family: Family) -> NormPlacement {
    match family {
        Family::Olmo2 => NormPlacement::After,
        Family::Gemma2 | Family::Gemma3 => NormPlacement::Both,
        _ => NormPlacement::Before,
    }
}

fn qk_norm(family: Family) -> QkNorm {
    match family {
        Family::Olmo2 => QkNorm::Whole,
        Family::Qwen3 | Family::Gemma3 => QkNorm::PerHead,
        _ => QkNorm::None,
    }
}

fn activation(r: &Reader, family: Family) -> Result<Activation, ConfigError> {
    if !matches!(family, Family::Gemma2 | Family::Gemma3) {
        return r.activation("hidden_act", "silu");
    }
    // Gemma's first configurations say `hidden_act: gelu` and mean the tanh form; the reference does not read it.
    r.take("hidden_act");
    r.activation("hidden_activation", "gelu_pytorch_tanh")
}

fn biases(r: &Reader, family: Family) -> Result<Biases, ConfigError> {
    let attention = match family {
        Family::Qwen2 => true,
        Family::Phi3 => false,
        _ => r.flag("attention_bias", false)?,
    };
    Ok(Biases {
        qkv: attention,
        attn_out: attention && family != Family::Qwen2,
        mlp: family == Family::Llama && r.flag("mlp_bias", false)?,
    })
}

/// Keys that never change the forward pass of a decoder: training, generation, bookkeeping.
const HARMLESS: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
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
