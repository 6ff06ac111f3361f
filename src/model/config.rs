//! Hugging Face `config.json` to [`Arch`].
//!
//! Every key is accounted for: read, known not to change the forward pass, or required to hold the one value that
//! the decoder implements. A key that is none of these is an error if its name speaks of the forward pass and a
//! warning otherwise, so that no checkpoint is silently run as something that it is not. Older keys (`rope_theta`,
//! `rope_scaling`, `sliding_window_pattern`, ...) and the nested `rope_parameters` of `transformers` 5 both load.

use super::arch::*;
use super::rope::{Rope, Scaling, yarn_mscale};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
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
    /// The dtype that the checkpoint was saved in, as it says.
    pub dtype: Option<String>,
}

/// Reads `config.json`. Keys in `ignore` are passed over, for a user who knows that they do not matter.
///
/// # Errors
/// If the file is not JSON, the architecture is unknown, a key is missing, has the wrong type, asks for something that
/// the decoder does not do, or is unknown and looks as if it changed the forward pass.
pub fn read(path: &Path, ignore: &[String]) -> Result<Config, ConfigError> {
    let file = |why: String| ConfigError::File { path: path.to_path_buf(), why };
    let size = std::fs::metadata(path).map_err(|e| file(e.to_string()))?.len();
    if size > 16 << 20 {
        return Err(file(format!("{size} bytes are too many for a configuration")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| file(e.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| file(format!("not JSON: {e}")))?;
    let Value::Object(map) = value else { return Err(file("expected a JSON object".to_string())) };
    parse(path, &map, ignore)
}

/// [`read`] of an object at hand; `path` is for messages.
///
/// # Errors
/// As [`read`].
pub fn parse(path: &Path, map: &Map<String, Value>, ignore: &[String]) -> Result<Config, ConfigError> {
    let r = Reader::new(path, map);
    let family = family(&r)?;
    let mut arch = match family {
        Family::Gpt2 => gpt2(&r)?,
        Family::GptNeox => gpt_neox(&r)?,
        _ => rotary_family(&r, family)?,
    };
    arch.check().map_err(|why| r.file(why))?;
    if let Some(rope) = arch.ropes.first()
        && let Scaling::Dynamic { factor, original } = rope.scaling
    {
        arch.n_ctx = arch.n_ctx.max((original as f64 * factor) as usize);
    }
    r.account_for_the_rest(ignore)?;
    let dtype = map.get("dtype").or(map.get("torch_dtype")).and_then(Value::as_str).map(str::to_string);
    Ok(Config { arch, warnings: r.warnings.into_inner(), dtype })
}

fn family(r: &Reader) -> Result<Family, ConfigError> {
    let found = r.map.get("model_type").and_then(Value::as_str).unwrap_or("(no `model_type`)");
    r.take("model_type");
    FAMILIES.iter().find(|(_, name)| *name == found).map(|(family, _)| *family).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|(_, name)| *name).collect();
        ConfigError::UnknownArchitecture {
            path: r.path.to_path_buf(),
            found: found.to_string(),
            known: known.join(", "),
        }
    })
}

fn gpt2(r: &Reader) -> Result<Arch, ConfigError> {
    let (d_model, n_layers, n_heads) = (r.size("n_embd")?, r.size("n_layer")?, r.size("n_head")?);
    r.require("scale_attn_weights", &Value::Bool(true))?;
    r.require("scale_attn_by_inverse_layer_idx", &Value::Bool(false))?;
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
        norm_eps: r.opt_number("layer_norm_epsilon")?.unwrap_or(1e-5),
        norm_plus_one: false,
        placement: NormPlacement::Before,
        qk_norm: QkNorm::None,
        parallel: false,
        mlp: Mlp::Plain,
        activation: r.activation(&["activation_function"], "gelu_new")?,
        biases: Biases { qkv: true, attn_out: true, mlp: true },
        ropes: Vec::new(),
        layers: vec![Layer { window: None, rope: 0 }; r.bounded_layers(n_layers)?],
        score_scale: (d_head as f64).powf(-0.5),
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
        norm_eps: r.opt_number("layer_norm_eps")?.unwrap_or(1e-5),
        norm_plus_one: false,
        placement: NormPlacement::Before,
        qk_norm: QkNorm::None,
        parallel: r.flag("use_parallel_residual", true)?,
        mlp: Mlp::Plain,
        activation: r.activation(&["hidden_act"], "gelu")?,
        biases: Biases { qkv: bias, attn_out: bias, mlp: true },
        ropes: vec![r.rope(d_head, n_ctx, 10_000.0, 0.25)?],
        layers: vec![Layer { window: None, rope: 0 }; r.bounded_layers(n_layers)?],
        score_scale: (d_head as f64).powf(-0.5),
        score_softcap: None,
        logit_softcap: None,
        embed_scale: None,
        tied: r.flag("tie_word_embeddings", false)?,
    })
}

/// The families that descend from Llama: RMS norms, gated MLPs, rotary positions, grouped queries.
fn rotary_family(r: &Reader, family: Family) -> Result<Arch, ConfigError> {
    let gemma = matches!(family, Family::Gemma2 | Family::Gemma3);
    let (d_model, n_heads) = (r.size("hidden_size")?, r.size("num_attention_heads")?);
    let n_layers = r.size("num_hidden_layers")?;
    let d_head = match (r.opt_size("head_dim")?, family) {
        (Some(n), _) => n,
        (None, Family::Gemma2 | Family::Gemma3) => r.assumed("head_dim", 256usize),
        (None, Family::Qwen3) => r.assumed("head_dim", 128usize),
        (None, _) => r.divide("hidden_size", d_model, n_heads)?,
    };
    let n_ctx = r.size("max_position_embeddings")?;
    let query_scalar = if gemma { r.opt_number("query_pre_attn_scalar")?.unwrap_or(256.0) } else { d_head as f64 };
    if gemma {
        r.require("use_bidirectional_attention", &Value::Bool(false))?;
    }
    let attention_bias = match family {
        Family::Qwen2 => true,
        Family::Phi3 => false,
        _ => r.flag("attention_bias", false)?,
    };
    Ok(Arch {
        family,
        d_model,
        n_layers,
        n_heads,
        n_kv_heads: r.opt_size("num_key_value_heads")?.unwrap_or(n_heads),
        d_head,
        d_mlp: r.size("intermediate_size")?,
        vocab: r.size("vocab_size")?,
        n_ctx,
        norm: NormKind::Rms,
        norm_eps: r
            .or_default("rms_norm_eps", if matches!(family, Family::Phi3 | Family::Olmo2) { 1e-5 } else { 1e-6 })?,
        norm_plus_one: gemma,
        placement: match family {
            Family::Olmo2 => NormPlacement::After,
            _ if gemma => NormPlacement::Both,
            _ => NormPlacement::Before,
        },
        qk_norm: match family {
            Family::Olmo2 => QkNorm::Whole,
            Family::Qwen3 | Family::Gemma3 => QkNorm::PerHead,
            _ => QkNorm::None,
        },
        parallel: false,
        mlp: Mlp::Gated,
        activation: if gemma {
            // Gemma's first configurations say `hidden_act: gelu` and mean the tanh form; the reference does not read it.
            r.take("hidden_act");
            r.activation(&["hidden_activation"], "gelu_pytorch_tanh")?
        } else {
            r.activation(&["hidden_act"], "silu")?
        },
        biases: Biases {
            qkv: attention_bias,
            attn_out: attention_bias && family != Family::Qwen2,
            mlp: family == Family::Llama && r.flag("mlp_bias", false)?,
        },
        ropes: r.ropes(family, d_head, n_ctx)?,
        layers: r.layers(family, n_layers)?,
        score_scale: query_scalar.powf(-0.5),
        score_softcap: r.softcap("attn_logit_softcapping", family, 50.0)?,
        logit_softcap: r.softcap("final_logit_softcapping", family, 30.0)?,
        embed_scale: gemma.then(|| (d_model as f64).sqrt()),
        tied: r.flag("tie_word_embeddings", gemma)?,
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

/// A configuration's keys, and which of them were read.
struct Reader<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
    taken: RefCell<BTreeSet<String>>,
    warnings: RefCell<Vec<String>>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, map: &'a Map<String, Value>) -> Self {
        Reader { path, map, taken: RefCell::default(), warnings: RefCell::default() }
    }

    fn file(&self, why: String) -> ConfigError {
        ConfigError::File { path: self.path.to_path_buf(), why }
    }

    fn key(&self, key: &str, why: impl Into<String>) -> ConfigError {
        ConfigError::Key { path: self.path.to_path_buf(), key: key.to_string(), why: why.into() }
    }

    /// The key's value; a `null` counts as absent, as it does in `transformers`.
    fn take(&self, key: &str) -> Option<&'a Value> {
        self.taken.borrow_mut().insert(key.to_string());
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn assumed<T: std::fmt::Display>(&self, key: &str, value: T) -> T {
        self.warnings.borrow_mut().push(format!("`{key}` is not given: {value}, the family's default, is assumed"));
        value
    }

    fn opt_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
        n.map(Some).ok_or_else(|| self.key(key, format!("expected a whole number, found {value}")))
    }

    fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.opt_size(key)?.ok_or_else(|| self.key(key, "is missing"))
    }

    fn opt_number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.take(key)
            .map(|v| number(v).ok_or_else(|| self.key(key, format!("expected a number, found {v}"))))
            .transpose()
    }

    /// A number that the family has a default for, which is said when it is assumed.
    fn or_default(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        Ok(self.opt_number(key)?.unwrap_or_else(|| self.assumed(key, default)))
    }

    /// A soft-cap of Gemma 2 and 3: `null` switches it off; where it is not given, Gemma 2 has one.
    fn softcap(&self, key: &str, family: Family, default: f64) -> Result<Option<f64>, ConfigError> {
        match (self.opt_number(key)?, family) {
            (given, Family::Gemma2 | Family::Gemma3) if given.is_some() => Ok(given),
            (None, Family::Gemma2) if !self.map.contains_key(key) => Ok(Some(self.assumed(key, default))),
            (Some(_), _) => Err(self.key(key, "soft-capping is not implemented for this family")),
            (None, _) => Ok(None),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.take(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.key(key, format!("expected true or false, found {v}"))),
        }
    }

    /// A key of which the decoder implements one value; absent counts as that value.
    fn require(&self, key: &str, value: &Value) -> Result<(), ConfigError> {
        match self.take(key) {
            Some(found) if found != value => {
                Err(self.key(key, format!("is {found}; gatelens implements only {value} for this family")))
            }
            _ => Ok(()),
        }
    }

    fn divide(&self, key: &str, width: usize, heads: usize) -> Result<usize, ConfigError> {
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(self.key(key, format!("{width} does not divide over {heads} heads; give `head_dim`")));
        }
        Ok(width / heads)
    }

    /// Layers, checked before anything is allocated for each.
    fn bounded_layers(&self, n: usize) -> Result<usize, ConfigError> {
        if n > 10_000 { Err(self.file(format!("{n} layers are more than any model has"))) } else { Ok(n) }
    }

    fn activation(&self, keys: &[&str], default: &str) -> Result<Activation, ConfigError> {
        let found: Vec<_> = keys.iter().filter_map(|k| self.take(k).map(|v| (*k, v))).collect();
        let (key, name) = match found.first() {
            None => (keys[0], default),
            Some((k, v)) => (*k, v.as_str().unwrap_or("(not a string)")),
        };
        match name {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => Err(self.key(
                key,
                format!("unknown activation `{other}`; known are silu, gelu, gelu_new, gelu_pytorch_tanh, relu"),
            )),
        }
    }

    /// Window and rotation of each layer.
    fn layers(&self, family: Family, n: usize) -> Result<Vec<Layer>, ConfigError> {
        let n = self.bounded_layers(n)?;
        let window = self.opt_size("sliding_window")?;
        let used = match family {
            Family::Qwen2 | Family::Qwen3 => self.flag("use_sliding_window", false)?,
            Family::Llama | Family::Olmo2 => false,
            _ => true,
        };
        // Only a `null` says that there is no window; where it is not given, these families have one.
        let has_default = !matches!(family, Family::Phi3) && used && !self.map.contains_key("sliding_window");
        let window = if has_default { Some(self.assumed("sliding_window", 4096)) } else { window };
        let from = self.opt_size("max_window_layers")?;
        let pattern = self.opt_size("sliding_window_pattern")?.or(self.opt_size("_sliding_window_pattern")?);
        let typed = self.layer_types(n)?;
        let window = if used { window } else { None };
        let slides = |l: usize| match (&typed, family) {
            (Some(types), _) => types[l],
            (None, Family::Gemma2) => l.is_multiple_of(2),
            (None, Family::Gemma3) => !(l + 1).is_multiple_of(pattern.unwrap_or(6).max(1)),
            (None, Family::Qwen2 | Family::Qwen3) => l >= from.unwrap_or(28),
            (None, _) => true,
        };
        if let Some(l) = (0..n).find(|l| typed.is_some() && slides(*l) && window.is_none()) {
            return Err(self.key("layer_types", format!("layer {l} is `sliding_attention`, but no window is in use")));
        }
        let local_rope = family == Family::Gemma3;
        Ok((0..n)
            .map(|l| Layer { window: window.filter(|_| slides(l)), rope: usize::from(local_rope && slides(l)) })
            .collect())
    }

    /// `layer_types`, as whether each layer's attention slides.
    fn layer_types(&self, n: usize) -> Result<Option<Vec<bool>>, ConfigError> {
        let Some(value) = self.take("layer_types") else { return Ok(None) };
        let types = value.as_array().ok_or_else(|| self.key("layer_types", "expected a list"))?;
        if types.len() != n {
            return Err(self.key("layer_types", format!("has {} entries for {n} layers", types.len())));
        }
        let slides = |t: &Value| match t.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => Err(self.key("layer_types", format!("unknown type {t}; known are full_attention, sliding_attention"))),
        };
        types.iter().map(slides).collect::<Result<_, _>>().map(Some)
    }

    /// The rotations that the family's layers choose from: Gemma 3 has a global and a local one, all others one.
    fn ropes(&self, family: Family, d_head: usize, n_ctx: usize) -> Result<Vec<Rope>, ConfigError> {
        if family != Family::Gemma3 {
            return Ok(vec![self.rope(d_head, n_ctx, 10_000.0, 1.0)?]);
        }
        let local_base = self.opt_number("rope_local_base_freq")?.unwrap_or(10_000.0);
        let nested = self.take("rope_parameters").and_then(Value::as_object);
        match nested.filter(|p| p.contains_key("full_attention") || p.contains_key("sliding_attention")) {
            Some(p) => {
                let part = |kind: &str, base: f64| match p.get(kind).and_then(Value::as_object) {
                    Some(part) => RopeReader { r: self, part, nested: true }.read(d_head, n_ctx, base, 1.0),
                    None => Err(self.key("rope_parameters", format!("has no `{kind}`"))),
                };
                Ok(vec![part("full_attention", 1e6)?, part("sliding_attention", local_base)?])
            }
            None => {
                let local = Rope { base: local_base, rotary: d_head, scaling: Scaling::None };
                Ok(vec![self.rope(d_head, n_ctx, 1e6, 1.0)?, local])
            }
        }
    }

    /// The model's one rotation, from `rope_parameters` or the older keys.
    fn rope(&self, d_head: usize, n_ctx: usize, base: f64, partial: f64) -> Result<Rope, ConfigError> {
        let empty = Map::new();
        let (scaling, parameters) = (self.take("rope_scaling"), self.take("rope_parameters"));
        let (part, nested) = match (parameters, scaling) {
            (Some(Value::Object(p)), Some(s)) if !agree(p, s) => {
                let why = "contradicts `rope_parameters`; keep the one that the model was trained with";
                return Err(self.key("rope_scaling", why));
            }
            (Some(Value::Object(p)), _) => (p, true),
            (None, Some(Value::Object(p))) => (p, false),
            (None, None) => (&empty, false),
            (Some(other), _) => return Err(self.key("rope_parameters", format!("expected an object, found {other}"))),
            (_, Some(other)) => return Err(self.key("rope_scaling", format!("expected an object, found {other}"))),
        };
        RopeReader { r: self, part, nested }.read(d_head, n_ctx, base, partial)
    }

    /// Every key must have been read or be known not to matter.
    fn account_for_the_rest(&self, ignore: &[String]) -> Result<(), ConfigError> {
        let taken = self.taken.borrow();
        for (key, value) in self.map {
            let off = matches!(value, Value::Null | Value::Bool(false));
            if taken.contains(key) || off || HARMLESS.contains(&key.as_str()) || ignore.contains(key) {
                continue;
            }
            if TELLING.iter().any(|part| key.contains(part)) {
                let why = format!(
                    "is not understood and may change the forward pass; if you know that it does not, pass \
                     --ignore-config-key {key}"
                );
                return Err(self.key(key, why));
            }
            self.warnings.borrow_mut().push(format!("`{key}` in config.json is not understood and was ignored"));
        }
        Ok(())
    }
}

/// The rope part of a configuration: `rope_parameters` (with the base inside) or `rope_scaling` (with it outside).
struct RopeReader<'r, 'a> {
    r: &'r Reader<'a>,
    part: &'r Map<String, Value>,
    nested: bool,
}

/// Keys of every rope scaling that [`RopeReader`] reads.
const ROPE_KEYS: &[&str] = &[
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "attention_factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "beta_fast",
    "beta_slow",
    "truncate",
    "mscale",
    "mscale_all_dim",
    "short_factor",
    "long_factor",
];

impl RopeReader<'_, '_> {
    fn read(&self, d_head: usize, n_ctx: usize, base: f64, partial: f64) -> Result<Rope, ConfigError> {
        if let Some(key) = self.part.keys().find(|k| !ROPE_KEYS.contains(&k.as_str())) {
            return Err(self.bad(key, "is not understood and changes the rotation"));
        }
        // Both forms of every outer key are read, so that none counts as unknown.
        let outer = [self.r.opt_number("rope_theta")?, self.r.opt_number("rotary_emb_base")?];
        let outer_partial = [self.r.opt_number("partial_rotary_factor")?, self.r.opt_number("rotary_pct")?];
        let base = match self.opt("rope_theta")?.or(outer[0]).or(outer[1]) {
            Some(base) => base,
            None if self.nested => return Err(self.bad("rope_theta", "is missing")),
            None => self.r.assumed("rope_theta", base),
        };
        let partial = self.opt("partial_rotary_factor")?.or(outer_partial[0]).or(outer_partial[1]).unwrap_or(partial);
        if !(base > 1.0 && base.is_finite() && partial > 0.0 && partial <= 1.0) {
            return Err(self.bad("rope_theta", &format!("base {base} over a share of {partial} is no rotation")));
        }
        let rotary = (d_head as f64 * partial) as usize;
        Ok(Rope { base, rotary, scaling: self.scaling(rotary, n_ctx)? })
    }

    fn scaling(&self, rotary: usize, n_ctx: usize) -> Result<Scaling, ConfigError> {
        let kind = match self.part.get("rope_type").or(self.part.get("type")) {
            None | Some(Value::Null) => "default",
            Some(v) => v.as_str().ok_or_else(|| self.bad("rope_type", &format!("expected a name, found {v}")))?,
        };
        let trained = self.r.opt_size("original_max_position_embeddings")?;
        let inner = self.opt("original_max_position_embeddings")?.map(|n| n as usize);
        let original = trained.or(inner).unwrap_or(n_ctx).max(1);
        match kind {
            "default" => Ok(Scaling::None),
            "linear" => Ok(Scaling::Linear { factor: self.factor()? }),
            "dynamic" if rotary > 2 => {
                Ok(Scaling::Dynamic { factor: self.factor()?, original: inner.unwrap_or(n_ctx) })
            }
            "llama3" => Ok(Scaling::Llama3 {
                factor: self.factor()?,
                low_freq: self.must("low_freq_factor")?,
                high_freq: self.must("high_freq_factor")?,
                original: inner.ok_or_else(|| self.bad("original_max_position_embeddings", "is missing"))?,
            }),
            "yarn" => self.yarn(inner.unwrap_or(n_ctx)),
            "longrope" | "su" => self.longrope(rotary, original, trained.is_some(), n_ctx),
            other => {
                let known = "default, linear, dynamic, llama3, yarn, longrope";
                Err(self.bad("rope_type", &format!("`{other}` is unknown; known are {known}")))
            }
        }
    }

    fn yarn(&self, original: usize) -> Result<Scaling, ConfigError> {
        let factor = self.factor()?;
        let attention_factor = match (self.opt("attention_factor")?, self.opt("mscale")?, self.opt("mscale_all_dim")?) {
            (Some(given), _, _) => given,
            (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => yarn_mscale(factor, m) / yarn_mscale(factor, all),
            _ => yarn_mscale(factor, 1.0),
        };
        let truncate = match self.part.get("truncate") {
            None | Some(Value::Null) => true,
            Some(v) => v.as_bool().ok_or_else(|| self.bad("truncate", "expected true or false"))?,
        };
        Ok(Scaling::Yarn {
            factor,
            original,
            beta_fast: self.opt("beta_fast")?.unwrap_or(32.0),
            beta_slow: self.opt("beta_slow")?.unwrap_or(1.0),
            truncate,
            attention_factor,
        })
    }

    fn longrope(&self, rotary: usize, original: usize, outer: bool, n_ctx: usize) -> Result<Scaling, ConfigError> {
        // A configuration with `original_max_position_embeddings` at its top stretches by the ratio of its contexts.
        let stretched = n_ctx as f64 / original as f64;
        let factor = if outer { stretched } else { self.opt("factor")?.unwrap_or(stretched) };
        let attention_factor = match self.opt("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
        };
        let set = |key: &str| -> Result<Vec<f64>, ConfigError> {
            let list = self.part.get(key).and_then(Value::as_array).ok_or_else(|| self.bad(key, "expected a list"))?;
            let numbers: Option<Vec<f64>> = list.iter().map(number).collect();
            let numbers = numbers.ok_or_else(|| self.bad(key, "expected numbers"))?;
            if numbers.len() != rotary.div_ceil(2) || numbers.iter().any(|n| *n <= 0.0) {
                return Err(self
                    .bad(key, &format!("expected {} positive numbers, found {}", rotary.div_ceil(2), numbers.len())));
            }
            Ok(numbers)
        };
        Ok(Scaling::LongRope { short: set("short_factor")?, long: set("long_factor")?, original, attention_factor })
    }

    fn factor(&self) -> Result<f64, ConfigError> {
        let factor = self.must("factor")?;
        if factor > 0.0 { Ok(factor) } else { Err(self.bad("factor", "must be positive")) }
    }

    fn must(&self, key: &str) -> Result<f64, ConfigError> {
        self.opt(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    fn opt(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        match self.part.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => number(v).map(Some).ok_or_else(|| self.bad(key, "expected a number")),
        }
    }

    fn bad(&self, key: &str, why: &str) -> ConfigError {
        self.r.key(&format!("{}.{key}", if self.nested { "rope_parameters" } else { "rope_scaling" }), why)
    }
}

/// Whether `rope_scaling` says nothing that `rope_parameters`, where both are given, does not say too.
fn agree(parameters: &Map<String, Value>, scaling: &Value) -> bool {
    let name = |key: &str| if key == "type" { "rope_type".to_string() } else { key.to_string() };
    scaling.as_object().is_some_and(|s| s.iter().all(|(key, value)| parameters.get(&name(key)) == Some(value)))
}

fn number(v: &Value) -> Option<f64> {
    v.as_f64().filter(|n| n.is_finite())
}
