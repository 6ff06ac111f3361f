//! The keys of a `config.json`, each accounted for.

use super::{ConfigError, HARMLESS, TELLING};
use crate::model::arch::*;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

/// A configuration's keys, and which of them were read.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    pub(super) map: &'a Map<String, Value>,
    pub(super) taken: RefCell<BTreeSet<String>>,
    pub(super) warnings: RefCell<Vec<String>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: &'a Path, map: &'a Map<String, Value>) -> Self {
        Reader { path, map, taken: RefCell::default(), warnings: RefCell::default() }
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
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn assumed<T: std::fmt::Display>(&self, key: &str, value: T) -> T {
        self.warnings.borrow_mut().push(format!("`{key}` is not given: {value}, the family's default, is assumed"));
        value
    }

    pub(super) fn opt_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
        n.map(Some).ok_or_else(|| self.key(key, format!("expected a whole number, found {value}")))
    }

    pub(super) fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.opt_size(key)?.ok_or_else(|| self.key(key, "is missing"))
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
            (None, Family::Gemma2) if !self.map.contains_key(key) => Ok(Some(self.assumed(key, default))),
            (Some(_), _) => Err(self.key(key, "soft-capping is not implemented for this family")),
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
                Err(self.key(key, format!("is {found}; gatelens implements only {value} for this family")))
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

    pub(super) fn activation(&self, keys: &[&str], default: &str) -> Result<Activation, ConfigError> {
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
    pub(super) fn layers(&self, family: Family, n: usize) -> Result<Vec<Layer>, ConfigError> {
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
    pub(super) fn account_for_the_rest(&self, ignore: &[String]) -> Result<(), ConfigError> {
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

pub(super) fn number(v: &Value) -> Option<f64> {
    v.as_f64().filter(|n| n.is_finite())
}
