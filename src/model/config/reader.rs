//! The keys of a `config.json`, each accounted for.

use super::wrapper::default_size;
use super::{ConfigError, HARMLESS, TELLING, not_understood, passing_over};
use crate::model::arch::*;
use crate::names::{nearest, suggestion};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

/// A configuration's keys, and which of them were read.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    map: &'a Map<String, Value>,
    /// Keys that the user passes over: to the reader they are not there.
    ignore: &'a [String],
    /// Whether this is a wrapper's text part, which leaves out what is as its family has it.
    pub(super) wrapped: bool,
    taken: RefCell<BTreeSet<String>>,
    pub(super) warnings: RefCell<Vec<String>>,
    /// The longest prompt that each rotation is made for.
    pub(super) contexts: RefCell<Vec<usize>>,
}

impl<'a> Reader<'a> {
    /// A reader that passes over the keys in `ignore`. Of those that the file has not it warns: they may be another model's, or a slip of
    /// the pen.
    pub(super) fn new(path: &'a Path, map: &'a Map<String, Value>, ignore: &'a [String], wrapped: bool) -> Self {
        let (taken, warnings, contexts) = Default::default();
        let reader = Reader { path, map, ignore, wrapped, taken, warnings, contexts };
        reader.warnings.borrow_mut().extend(reader.slips());
        reader
    }

    /// What is to be said of keys that the user passes over and the file has not.
    fn slips(&self) -> Vec<String> {
        let mut known: Vec<String> = self.map.keys().cloned().collect();
        ROTATIONS.iter().for_each(|key| leaves(key, self.map.get(*key), &mut known));
        slips(self.ignore, &known.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The error of keys that nothing here knows.
    pub(super) fn not_understood(&self, keys: &[String]) -> ConfigError {
        self.key(&keys.join("`, `"), not_understood(keys, &self.slips()))
    }

    /// Whether the user passes a key over; one within another is named by both, `rope_scaling.factor`.
    pub(super) fn ignored(&self, key: &str) -> bool {
        self.ignore.iter().any(|ignored| ignored == key)
    }

    /// Whether the file gives a key, be it as `null`.
    fn given(&self, key: &str) -> bool {
        self.map.contains_key(key) && !self.ignored(key)
    }

    pub(super) fn file(&self, why: String) -> ConfigError {
        ConfigError::File { path: self.path.to_path_buf(), why }
    }

    pub(super) fn key(&self, key: &str, why: impl Into<String>) -> ConfigError {
        ConfigError::Key { path: self.path.to_path_buf(), key: key.to_string(), why: why.into() }
    }

    /// The key's value; a `null` counts as absent, as it does in `transformers`.
    pub(super) fn take(&self, key: &str) -> Option<&'a Value> {
        self.taken.borrow_mut().insert(key.to_string());
        self.map.get(key).filter(|v| !v.is_null() && !self.ignored(key))
    }

    pub(super) fn warn(&self, text: String) {
        // A key that two rotations read is spoken of once.
        if !self.warnings.borrow().contains(&text) {
            self.warnings.borrow_mut().push(text);
        }
    }

    /// A default that no tensor would contradict, which is said when it is taken.
    pub(super) fn assumed<T: std::fmt::Display>(&self, key: &str, value: T) -> T {
        self.warn(format!("`{key}` is not given: {value}, the family's default, is assumed"));
        value
    }

    /// The error of a key that must be there.
    pub(super) fn missing(&self, key: &str) -> ConfigError {
        self.key(key, if self.ignored(key) { "cannot be passed over: nothing stands in for it" } else { "is missing" })
    }

    pub(super) fn opt_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
        n.map(Some).ok_or_else(|| self.key(key, format!("expected a whole number, found {value}")))
    }

    pub(super) fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.opt_size(key)?.ok_or_else(|| self.missing(key))
    }

    /// A size that a wrapper's text part may leave to its family.
    pub(super) fn size_of(&self, family: Family, key: &str) -> Result<usize, ConfigError> {
        match default_size(family, key).filter(|_| self.wrapped && !self.ignored(key)) {
            Some(default) => Ok(self.opt_size(key)?.unwrap_or_else(|| self.assumed(key, default))),
            None => self.size(key),
        }
    }

    /// As many KV heads as heads, where the family has no number of its own.
    pub(super) fn kv_heads(&self, family: Family, n_heads: usize) -> Result<usize, ConfigError> {
        const KEY: &str = "num_key_value_heads";
        match default_size(family, KEY).filter(|_| self.wrapped && family != Family::Llama) {
            Some(_) => self.size_of(family, KEY),
            None => Ok(self.opt_size(KEY)?.unwrap_or(n_heads)),
        }
    }

    pub(super) fn opt_number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.take(key)
            .map(|v| number(v).ok_or_else(|| self.key(key, format!("expected a number, found {v}"))))
            .transpose()
    }

    /// A number that the family has a default for, which is said when it is assumed.
    pub(super) fn or_default(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        Ok(self.opt_number(key)?.unwrap_or_else(|| self.assumed(key, default)))
    }

    /// A soft-cap of Gemma 2 and 3: `null` switches it off; where it is not given, Gemma 2 has one.
    pub(super) fn softcap(&self, key: &str, family: Family, default: f64) -> Result<Option<f64>, ConfigError> {
        match (self.opt_number(key)?, family) {
            (given, Family::Gemma2 | Family::Gemma3) if given.is_some() => Ok(given),
            (None, Family::Gemma2) if !self.given(key) => Ok(Some(self.assumed(key, default))),
            (Some(_), _) => {
                let why = "soft-capping is not implemented for this family";
                Err(self.key(key, format!("{why}; {}", passing_over(&[key.to_string()]))))
            }
            (None, _) => Ok(None),
        }
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.take(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.key(key, format!("expected true or false, found {v}"))),
        }
    }

    /// A key of which the decoder implements one value; absent counts as that value.
    pub(super) fn require(&self, key: &str, value: &Value) -> Result<(), ConfigError> {
        match self.take(key) {
            Some(found) if found != value => {
                let why = format!("is {found}; gatelens implements only {value} for this family");
                Err(self.key(key, format!("{why}; {}", passing_over(&[key.to_string()]))))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn divide(&self, key: &str, width: usize, heads: usize) -> Result<usize, ConfigError> {
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(self.key(key, format!("{width} does not divide over {heads} heads; give `head_dim`")));
        }
        Ok(width / heads)
    }

    /// Layers, checked before anything is allocated for each.
    pub(super) fn bounded_layers(&self, n: usize) -> Result<usize, ConfigError> {
        if n > 10_000 { Err(self.file(format!("{n} layers are more than any model has"))) } else { Ok(n) }
    }

    pub(super) fn activation(&self, key: &str, default: &str) -> Result<Activation, ConfigError> {
        let name = match self.take(key) {
            None => self.assumed(key, default),
            Some(v) => v.as_str().unwrap_or("(not a string)"),
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
    pub(super) fn layers(&self, family: Family, n: usize) -> Result<Vec<Layer>, ConfigError> {
        let n = self.bounded_layers(n)?;
        let window = self.opt_size("sliding_window")?;
        let used = match family {
            Family::Qwen2 | Family::Qwen3 => self.flag("use_sliding_window", false)?,
            Family::Llama | Family::Olmo2 => false,
            _ => true,
        };
        // Only a `null` says that there is no window; where it is not given, these families have one.
        let has_default = !matches!(family, Family::Phi3) && used && !self.given("sliding_window");
        let window = if has_default { Some(self.assumed("sliding_window", 4096)) } else { window };
        let window = if used { window } else { None };
        // Where `layer_types` is given, the older keys that it is made of say nothing more.
        for key in ["max_window_layers", "sliding_window_pattern", "_sliding_window_pattern"] {
            self.take(key);
        }
        let slides = match self.layer_types(n)? {
            None => self.window_pattern(family, n, window.is_some())?,
            Some(typed) => match typed.iter().position(|slides| *slides).filter(|_| window.is_none()) {
                None => typed,
                Some(l) => {
                    let why = format!("layer {l} is `sliding_attention`, but no window is in use");
                    return Err(self.key("layer_types", why));
                }
            },
        };
        let local_rope = family == Family::Gemma3;
        let layer = |slides: bool| Layer { window: window.filter(|_| slides), rope: usize::from(local_rope && slides) };
        Ok(slides.into_iter().map(layer).collect())
    }

    /// Whether each layer's attention slides where `layer_types` does not say it.
    fn window_pattern(&self, family: Family, n: usize, windowed: bool) -> Result<Vec<bool>, ConfigError> {
        Ok(match family {
            Family::Gemma2 => (0..n).map(|l| l.is_multiple_of(2)).collect(),
            Family::Gemma3 => {
                let every = self.opt_size("sliding_window_pattern")?.or(self.opt_size("_sliding_window_pattern")?);
                let every = every.unwrap_or_else(|| self.assumed("sliding_window_pattern", 6));
                if every == 0 {
                    return Err(self.key("sliding_window_pattern", "must be positive"));
                }
                (0..n).map(|l| !(l + 1).is_multiple_of(every)).collect()
            }
            Family::Qwen2 | Family::Qwen3 if windowed => {
                let from = self.opt_size("max_window_layers")?;
                let from = from.unwrap_or_else(|| self.assumed("max_window_layers", 28));
                (0..n).map(|l| l >= from).collect()
            }
            _ => vec![true; n],
        })
    }

    /// `layer_types`, as whether each layer's attention slides.
    pub(super) fn layer_types(&self, n: usize) -> Result<Option<Vec<bool>>, ConfigError> {
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

    /// Every key must have been read or be known not to matter.
    pub(super) fn account_for_the_rest(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        for (key, value) in self.map {
            let known = self.taken.borrow().contains(key) || HARMLESS.contains(&key.as_str()) || self.ignored(key);
            let telling = TELLING.iter().any(|part| key.contains(part));
            match value {
                _ if known => {}
                Value::Null => {}
                // What is off is most often something that others have; but what all have can be off too.
                Value::Bool(false) if telling && !key.ends_with("bias") => {
                    self.warn(format!("`{key}` in config.json is not understood; it is false and was ignored"));
                }
                Value::Bool(false) => {}
                _ if telling => faults.push(key.clone()),
                _ => self.warn(format!("`{key}` in config.json is not understood and was ignored")),
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(self.not_understood(&faults)) }
    }
}

/// What is to be said of keys that are to be passed over and are not `there`.
pub(in crate::model) fn slips(ignore: &[String], there: &[&str]) -> Vec<String> {
    let missing = ignore.iter().filter(|key| !there.contains(&key.as_str()));
    let said = |key: &String| {
        let near = suggestion(&nearest(key, there.iter().copied()));
        format!("`{key}` is to be passed over, and the file has no such key{near}")
    };
    missing.map(said).collect()
}

/// Keys that hold a rotation, whose own keys can be passed over by name too.
const ROTATIONS: [&str; 2] = ["rope_scaling", "rope_parameters"];

/// The keys of an object and of those in it, each named with those that it is in.
fn leaves(name: &str, value: Option<&Value>, found: &mut Vec<String>) {
    for (key, value) in value.and_then(Value::as_object).into_iter().flatten() {
        let name = format!("{name}.{key}");
        match value {
            Value::Object(_) => leaves(&name, Some(value), found),
            _ => found.push(name),
        }
    }
}

pub(super) fn number(v: &Value) -> Option<f64> {
    v.as_f64().filter(|n| n.is_finite())
}
