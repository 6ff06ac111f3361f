//! The keys of a `config.json`, each accounted for.

use super::{ConfigError, HARMLESS, TELLING, not_understood, passing_over};
use crate::model::arch::Activation;
use crate::model::families::Family;
use crate::names::{nearest, suggestion};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

/// Whether a family caps numbers softly.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) enum Cap {
    Never,
    /// By what the description gives, if it does.
    Given,
    /// By what it gives; where it says nothing, by this.
    Or(f64),
}

/// A configuration's keys, and which of them were read.
pub(in crate::model) struct Reader<'a> {
    pub(super) path: &'a Path,
    map: &'a Map<String, Value>,
    /// Keys that the user passes over: to the reader they are not there.
    ignore: &'a [String],
    /// Whose description it is.
    pub(in crate::model) family: &'static Family,
    /// Whether this is a wrapper's text part, which leaves out what is as its family has it.
    wrapped: bool,
    taken: RefCell<BTreeSet<String>>,
    pub(super) warnings: RefCell<Vec<String>>,
    /// The longest prompt that each rotation is made for.
    pub(super) contexts: RefCell<Vec<usize>>,
}

impl<'a> Reader<'a> {
    /// A reader that passes over the keys in `ignore`. Of those that the file has not it warns: they may be another model's, or a slip of
    /// the pen.
    pub(in crate::model) fn new(
        path: &'a Path,
        map: &'a Map<String, Value>,
        ignore: &'a [String],
        of: (&'static Family, bool),
    ) -> Self {
        let ((family, wrapped), (taken, warnings, contexts)) = (of, Default::default());
        let reader = Reader { path, map, ignore, family, wrapped, taken, warnings, contexts };
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
    pub(in crate::model) fn not_understood(&self, keys: &[String]) -> ConfigError {
        self.key(&keys.join("`, `"), not_understood(keys, &self.slips()))
    }

    /// Whether the user passes a key over; one within another is named by both, `rope_scaling.factor`.
    pub(in crate::model) fn ignored(&self, key: &str) -> bool {
        self.ignore.iter().any(|ignored| ignored == key)
    }

    /// Whether the file gives a key, be it as `null`.
    pub(super) fn given(&self, key: &str) -> bool {
        self.map.contains_key(key) && !self.ignored(key)
    }

    pub(in crate::model) fn file(&self, why: String) -> ConfigError {
        ConfigError::File { path: self.path.to_path_buf(), why }
    }

    pub(in crate::model) fn key(&self, key: &str, why: impl Into<String>) -> ConfigError {
        ConfigError::Key { path: self.path.to_path_buf(), key: key.to_string(), why: why.into() }
    }

    /// The key's value; a `null` counts as absent, as it does in `transformers`.
    pub(in crate::model) fn take(&self, key: &str) -> Option<&'a Value> {
        self.taken.borrow_mut().insert(key.to_string());
        self.map.get(key).filter(|v| !v.is_null() && !self.ignored(key))
    }

    /// Keys that change nothing in this family's forward pass.
    pub(in crate::model) fn pass_over(&self, keys: &[&str]) {
        self.taken.borrow_mut().extend(keys.iter().map(|key| (*key).to_string()));
    }

    pub(in crate::model) fn warn(&self, text: String) {
        // A key that two rotations read is spoken of once.
        if !self.warnings.borrow().contains(&text) {
            self.warnings.borrow_mut().push(text);
        }
    }

    /// A default that no tensor would contradict, which is said when it is taken.
    pub(in crate::model) fn assumed<T: std::fmt::Display>(&self, key: &str, value: T) -> T {
        self.warn(format!("`{key}` is not given: {value}, the family's default, is assumed"));
        value
    }

    /// The error of a key that must be there.
    pub(in crate::model) fn missing(&self, key: &str) -> ConfigError {
        self.key(key, if self.ignored(key) { "cannot be passed over: nothing stands in for it" } else { "is missing" })
    }

    pub(in crate::model) fn opt_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
        n.map(Some).ok_or_else(|| self.key(key, format!("expected a whole number, found {value}")))
    }

    /// A size that must be there. A wrapper's text part may leave it to its family.
    pub(in crate::model) fn size(&self, key: &str) -> Result<usize, ConfigError> {
        let given = self.opt_size(key)?;
        let default = self.family.size(key).filter(|_| self.wrapped && !self.ignored(key));
        match (given, default) {
            (Some(n), _) => Ok(n),
            (None, Some(default)) => Ok(self.assumed(key, default)),
            (None, None) => Err(self.missing(key)),
        }
    }

    /// A size under the first of these keys that is there.
    pub(in crate::model) fn first_size(&self, keys: &[&str]) -> Result<usize, ConfigError> {
        let found = keys.iter().map(|key| self.opt_size(key)).collect::<Result<Vec<_>, _>>()?;
        found.into_iter().flatten().next().ok_or_else(|| self.missing(keys.first().copied().unwrap_or_default()))
    }

    /// A number under the first of these keys that is there.
    pub(in crate::model) fn first_number(&self, keys: &[&str]) -> Result<Option<f64>, ConfigError> {
        Ok(keys.iter().map(|key| self.opt_number(key)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().next())
    }

    /// Reads the object under a key as a description of its own, every key of which is accounted for; an empty one where there
    /// is none.
    pub(in crate::model) fn within<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Reader) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        let empty = Map::new();
        let map = match self.take(key) {
            None => &empty,
            Some(Value::Object(map)) => map,
            Some(other) => return Err(self.key(key, format!("expected an object, found {other}"))),
        };
        let inner = Reader::new(self.path, map, &[], (self.family, false));
        let found = read(&inner)?;
        inner.account_for_the_rest()?;
        inner.warnings.into_inner().into_iter().for_each(|text| self.warn(text));
        Ok(found)
    }

    /// A list of texts, one a layer.
    pub(in crate::model) fn layer_words(&self, key: &str, n: usize) -> Result<Option<Vec<&'a str>>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let words = value.as_array().and_then(|all| all.iter().map(Value::as_str).collect::<Option<Vec<&str>>>());
        match words.filter(|words| words.len() == n) {
            Some(words) => Ok(Some(words)),
            None => Err(self.key(key, format!("expected a list of {n} texts, one a layer"))),
        }
    }

    /// Two limits; infinity may be written as an object.
    pub(in crate::model) fn limits(&self, key: &str) -> Result<[f64; 2], ConfigError> {
        let Some(value) = self.take(key) else { return Ok([0.0, f64::INFINITY]) };
        let limit = |v: &Value| v.as_f64().or_else(|| v.get("__float__")?.as_str()?.parse().ok());
        let pair = value.as_array().and_then(|all| all.iter().map(limit).collect::<Option<Vec<f64>>>());
        match pair.as_deref() {
            Some([low, high]) if low <= high => Ok([*low, *high]),
            _ => Err(self.key(key, format!("expected two limits, found {value}"))),
        }
    }

    /// A number of the rotation's part.
    pub(in crate::model) fn in_rope(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let part = ROTATIONS.iter().rev().find_map(|part| self.take(part)?.as_object());
        let Some(value) = part.and_then(|part| part.get(key)).filter(|v| !v.is_null()) else { return Ok(None) };
        number(value).map(Some).ok_or_else(|| self.key(key, format!("expected a number, found {value}")))
    }

    /// As many KV heads as heads, where the family has no number of its own.
    pub(in crate::model) fn kv_heads(&self, n_heads: usize) -> Result<usize, ConfigError> {
        const KEY: &str = "num_key_value_heads";
        match self.family.size(KEY).filter(|_| self.wrapped) {
            Some(_) => self.size(KEY),
            None => Ok(self.opt_size(KEY)?.unwrap_or(n_heads)),
        }
    }

    pub(in crate::model) fn opt_number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.take(key)
            .map(|v| number(v).ok_or_else(|| self.key(key, format!("expected a number, found {v}"))))
            .transpose()
    }

    pub(in crate::model) fn opt_text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        let text = |v: &'a Value| v.as_str().ok_or_else(|| self.key(key, format!("expected a text, found {v}")));
        self.take(key).map(text).transpose()
    }

    /// A number that the family has a default for, which is said when it is assumed.
    pub(in crate::model) fn or_default(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        Ok(self.opt_number(key)?.unwrap_or_else(|| self.assumed(key, default)))
    }

    /// A soft-cap; `null` switches it off.
    pub(in crate::model) fn softcap(&self, key: &str, cap: Cap) -> Result<Option<f64>, ConfigError> {
        match (self.opt_number(key)?, cap) {
            (Some(_), Cap::Never) => {
                let why = "soft-capping is not implemented for this family";
                Err(self.key(key, format!("{why}; {}", passing_over(&[key.to_string()]))))
            }
            (None, Cap::Or(default)) if !self.given(key) => Ok(Some(self.assumed(key, default))),
            (given, _) => Ok(given),
        }
    }

    pub(in crate::model) fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.take(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.key(key, format!("expected true or false, found {v}"))),
        }
    }

    /// A key of which the decoder implements one value; absent counts as that value.
    pub(in crate::model) fn require(&self, key: &str, value: &Value) -> Result<(), ConfigError> {
        match self.take(key) {
            Some(found) if found != value => {
                let why = format!("is {found}; gatelens implements only {value} for this family");
                Err(self.key(key, format!("{why}; {}", passing_over(&[key.to_string()]))))
            }
            _ => Ok(()),
        }
    }

    pub(in crate::model) fn divide(&self, key: &str, width: usize, heads: usize) -> Result<usize, ConfigError> {
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(self.key(key, format!("{width} does not divide over {heads} heads; give `head_dim`")));
        }
        Ok(width / heads)
    }

    /// Layers, checked before anything is allocated for each.
    pub(in crate::model) fn bounded_layers(&self, n: usize) -> Result<usize, ConfigError> {
        if n > 10_000 { Err(self.file(format!("{n} layers are more than any model has"))) } else { Ok(n) }
    }

    pub(in crate::model) fn activation(&self, key: &str, default: &str) -> Result<Activation, ConfigError> {
        let name = match self.take(key) {
            // Some families have no key for it.
            None if key.is_empty() => default,
            None => self.assumed(key, default),
            Some(v) => v.as_str().unwrap_or("(not a string)"),
        };
        match name {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            "relu2" => Ok(Activation::SquaredRelu),
            other => Err(self.key(
                key,
                format!("unknown activation `{other}`; known are silu, gelu, gelu_new, gelu_pytorch_tanh, relu, relu2"),
            )),
        }
    }

    /// Every key must have been read or be known not to matter.
    pub(in crate::model) fn account_for_the_rest(&self) -> Result<(), ConfigError> {
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
