//! The rotations of a `config.json`.

use super::ConfigError;
use super::reader::{Reader, number};
use crate::model::arch::Family;
use crate::model::rope::{Rope, Scaling, yarn_mscale};
use serde_json::{Map, Value};

impl Reader<'_> {
    /// The rotations that the family's layers choose from: Gemma 3 has a global and a local one, all others one.
    pub(super) fn ropes(&self, family: Family, d_head: usize, n_ctx: usize) -> Result<Vec<Rope>, ConfigError> {
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
    pub(super) fn rope(&self, d_head: usize, n_ctx: usize, base: f64, partial: f64) -> Result<Rope, ConfigError> {
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

    pub(super) fn scaling(&self, rotary: usize, n_ctx: usize) -> Result<Scaling, ConfigError> {
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

    pub(super) fn yarn(&self, original: usize) -> Result<Scaling, ConfigError> {
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

    pub(super) fn longrope(
        &self,
        rotary: usize,
        original: usize,
        outer: bool,
        n_ctx: usize,
    ) -> Result<Scaling, ConfigError> {
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

    pub(super) fn factor(&self) -> Result<f64, ConfigError> {
        let factor = self.must("factor")?;
        if factor > 0.0 { Ok(factor) } else { Err(self.bad("factor", "must be positive")) }
    }

    pub(super) fn must(&self, key: &str) -> Result<f64, ConfigError> {
        self.opt(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    pub(super) fn opt(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        match self.part.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => number(v).map(Some).ok_or_else(|| self.bad(key, "expected a number")),
        }
    }

    pub(super) fn bad(&self, key: &str, why: &str) -> ConfigError {
        self.r.key(&format!("{}.{key}", if self.nested { "rope_parameters" } else { "rope_scaling" }), why)
    }
}

/// Whether `rope_scaling` says nothing that `rope_parameters`, where both are given, does not say too.
fn agree(parameters: &Map<String, Value>, scaling: &Value) -> bool {
    let name = |key: &str| if key == "type" { "rope_type".to_string() } else { key.to_string() };
    scaling.as_object().is_some_and(|s| s.iter().all(|(key, value)| parameters.get(&name(key)) == Some(value)))
}
