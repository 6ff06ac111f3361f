//! The rotations of a `config.json`.

use super::ConfigError;
use super::reader::{Reader, number};
use crate::model::rope::{Rope, Scaling, yarn_mscale};
use serde_json::{Map, Value};

impl Reader<'_> {
    /// The rotation of layers of one kind, which has its part of `rope_parameters`; none where that is not given.
    pub(in crate::model) fn rope_of(
        &self,
        kind: &str,
        d_head: usize,
        n_ctx: usize,
        base: f64,
    ) -> Result<Option<Rope>, ConfigError> {
        let nested = self.take("rope_parameters").and_then(Value::as_object);
        let Some(part) = nested.and_then(|p| p.get(kind)).and_then(Value::as_object) else { return Ok(None) };
        let at = format!("rope_parameters.{kind}");
        RopeReader { r: self, part, at: &at, nested: true, alone: false }.read(d_head, n_ctx, base, 1.0).map(Some)
    }

    /// Two rotations, of layers that see all positions and of those that see a window: each in its part of `rope_parameters`,
    /// or in the older keys, where the second is plain. `bases` are theirs where they are not given.
    pub(in crate::model) fn global_and_local_ropes(
        &self,
        d_head: usize,
        n_ctx: usize,
        bases: [f64; 2],
    ) -> Result<Vec<Rope>, ConfigError> {
        let local_base = self.opt_number("rope_local_base_freq")?;
        let nested = self.take("rope_parameters").and_then(Value::as_object);
        match nested.filter(|p| p.contains_key("full_attention") || p.contains_key("sliding_attention")) {
            Some(p) => {
                let part = |kind: &str| match p.get(kind).and_then(Value::as_object) {
                    Some(part) => {
                        let at = format!("rope_parameters.{kind}");
                        let reader = RopeReader { r: self, part, at: &at, nested: true, alone: false };
                        reader.read(d_head, n_ctx, bases[1], 1.0)
                    }
                    None => Err(self.key("rope_parameters", format!("has no `{kind}`"))),
                };
                Ok(vec![part("full_attention")?, part("sliding_attention")?])
            }
            None => {
                let base = local_base.unwrap_or_else(|| self.assumed("rope_local_base_freq", bases[1]));
                self.contexts.borrow_mut().push(n_ctx);
                let local = Rope { base, rotary: d_head, scaling: Scaling::None, reversed: false };
                Ok(vec![self.rope(d_head, n_ctx, bases[0], 1.0)?, local])
            }
        }
    }

    /// The model's one rotation, from `rope_parameters` or the older keys.
    pub(in crate::model) fn rope(
        &self,
        d_head: usize,
        n_ctx: usize,
        base: f64,
        partial: f64,
    ) -> Result<Rope, ConfigError> {
        let empty = Map::new();
        let (scaling, parameters) = (self.take("rope_scaling"), self.take("rope_parameters"));
        let (part, at) = match (parameters, scaling) {
            (Some(Value::Object(p)), Some(s)) if !agree(p, s) => {
                let why = "contradicts `rope_parameters`; keep the one that the model was trained with";
                return Err(self.key("rope_scaling", why));
            }
            (Some(Value::Object(p)), _) => (p, "rope_parameters"),
            (None, Some(Value::Object(p))) => (p, "rope_scaling"),
            (None, None) => (&empty, "rope_scaling"),
            (Some(other), _) => return Err(self.key("rope_parameters", format!("expected an object, found {other}"))),
            (_, Some(other)) => return Err(self.key("rope_scaling", format!("expected an object, found {other}"))),
        };
        let nested = at == "rope_parameters";
        RopeReader { r: self, part, at, nested, alone: true }.read(d_head, n_ctx, base, partial)
    }
}

/// The rope part of a configuration: `rope_parameters` (with the base inside) or `rope_scaling` (with it outside).
struct RopeReader<'r, 'a> {
    r: &'r Reader<'a>,
    part: &'r Map<String, Value>,
    /// Where the part stands in the file.
    at: &'r str,
    nested: bool,
    /// Whether it is the model's only part: then the keys outside are about it too.
    alone: bool,
}

/// Keys of every rope scaling that [`RopeReader`] reads.
const ROPE_KEYS: &[&str] = &[
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "attention_factor",
    ORIGINAL,
    "low_freq_factor",
    "high_freq_factor",
    "beta_fast",
    "beta_slow",
    "truncate",
    "mscale",
    "mscale_all_dim",
    "short_factor",
    "long_factor",
    "alpha",
    "llama_4_scaling_beta",
];

/// Keys of a rope scaling that say where it comes from, or how a token's position in an image turns it.
const HARMLESS: &[&str] = &["finetuned", "mrope_section", "mrope_interleaved", "max_position_embeddings"];

const ORIGINAL: &str = "original_max_position_embeddings";

impl RopeReader<'_, '_> {
    fn read(&self, d_head: usize, n_ctx: usize, base: f64, partial: f64) -> Result<Rope, ConfigError> {
        self.account_for_every_key()?;
        // Both forms of every outer key are read, so that none counts as unknown.
        let outer = [self.r.opt_number("rope_theta")?, self.r.opt_number("rotary_emb_base")?];
        let outer_partial = [self.r.opt_number("partial_rotary_factor")?, self.r.opt_number("rotary_pct")?];
        let base = match self.opt("rope_theta")?.or(outer[0]).or(outer[1]) {
            Some(base) => base,
            None if self.nested => return Err(self.bad("rope_theta", "is missing")),
            None => self.r.assumed("rope_theta", base),
        };
        let raised = |alpha: f64| base * alpha.powf(d_head as f64 / (d_head as f64 - 2.0));
        let base = match self.opt("alpha")? {
            Some(alpha) if self.named()? == "dynamic" && alpha > 0.0 && d_head > 2 => raised(alpha),
            Some(_) => return Err(self.bad("alpha", "is not understood beside this `rope_type`")),
            None => base,
        };
        if base <= 1.0 {
            return Err(self.bad("rope_theta", &format!("{base} is no base of a rotation; it is above 1")));
        }
        let partial = match self.opt("partial_rotary_factor")?.or(outer_partial[0]).or(outer_partial[1]) {
            Some(share) if share > 0.0 && share <= 1.0 => share,
            Some(share) => return Err(self.bad("partial_rotary_factor", &format!("{share} is no share of a head"))),
            None if partial < 1.0 => self.r.assumed("rotary_pct", partial),
            None => partial,
        };
        let rope = if self.named()? == "proportional" {
            // The share is of pairs that lie as far apart as those of a whole head.
            let scaling = Scaling::Proportional { share: partial, factor: self.opt("factor")?.unwrap_or(1.0) };
            Rope { base, rotary: d_head, scaling, reversed: false }
        } else {
            let rotary = (d_head as f64 * partial) as usize;
            Rope { base, rotary, scaling: self.scaling(rotary, n_ctx)?, reversed: false }
        };
        self.r.contexts.borrow_mut().push(self.context(&rope.scaling, n_ctx)?);
        Ok(rope)
    }

    /// The longest prompt that the rotation is made for, where the description gives `n_ctx` positions: model cards give
    /// what the model was first trained on and have the scaling stretch it, or what comes of that. Llama 3's scaling and
    /// LongRoPE always stand beside the latter.
    fn context(&self, scaling: &Scaling, n_ctx: usize) -> Result<usize, ConfigError> {
        let (factor, original) = match scaling {
            Scaling::Linear { factor } => (*factor, self.original()?.unwrap_or(n_ctx)),
            Scaling::Dynamic { factor, original } | Scaling::Yarn { factor, original, .. } => (*factor, *original),
            _ => return Ok(n_ctx),
        };
        Ok(n_ctx.max((original as f64 * factor) as usize))
    }

    fn account_for_every_key(&self) -> Result<(), ConfigError> {
        let known = |key: &str| ROPE_KEYS.contains(&key) || HARMLESS.contains(&key);
        let unknown = self.part.keys().filter(|key| !known(key) && self.get(key).is_some());
        let unknown: Vec<String> = unknown.map(|key| format!("{}.{key}", self.at)).collect();
        if unknown.is_empty() { Ok(()) } else { Err(self.r.not_understood(&unknown)) }
    }

    fn scaling(&self, rotary: usize, n_ctx: usize) -> Result<Scaling, ConfigError> {
        let kind = self.named()?;
        let original = self.original()?;
        let assumed = || original.unwrap_or_else(|| self.r.assumed(ORIGINAL, n_ctx));
        match kind {
            // Of text alone, all of a token's positions are one.
            "default" | "mrope" => Ok(Scaling::None),
            "linear" => Ok(Scaling::Linear { factor: self.must("factor")? }),
            // Of a raised base, nothing depends on the prompt (Hunyuan).
            "dynamic" if self.opt("alpha")?.is_some() => Ok(Scaling::None),
            "dynamic" if rotary > 2 => {
                if original.is_some_and(|n| n != n_ctx) {
                    let begins = format!("dynamic scaling begins at `max_position_embeddings`, {n_ctx}");
                    self.r.warn(format!("`{ORIGINAL}` is not used: {begins}, as in transformers"));
                }
                Ok(Scaling::Dynamic { factor: self.must("factor")?, original: n_ctx })
            }
            "llama3" => Ok(Scaling::Llama3 {
                factor: self.must("factor")?,
                low_freq: self.must("low_freq_factor")?,
                high_freq: self.must("high_freq_factor")?,
                original: original.ok_or_else(|| self.bad(ORIGINAL, "is missing"))?,
            }),
            "yarn" => self.yarn(assumed()),
            "longrope" | "su" => self.longrope(rotary, assumed(), n_ctx),
            other => {
                let known = "default, linear, dynamic, llama3, yarn, longrope, proportional";
                Err(self.bad("rope_type", &format!("`{other}` is unknown; known are {known}")))
            }
        }
    }

    /// The kind of scaling.
    fn named(&self) -> Result<&str, ConfigError> {
        match self.get("rope_type").or(self.get("type")) {
            None => Ok("default"),
            Some(v) => v.as_str().ok_or_else(|| self.bad("rope_type", &format!("expected a name, found {v}"))),
        }
    }

    /// The context that the model was first trained on. Given on both sides, the outer one counts, as in `transformers`.
    fn original(&self) -> Result<Option<usize>, ConfigError> {
        let whole = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
        let inner = self.get(ORIGINAL).map(|v| whole(v).ok_or_else(|| self.bad(ORIGINAL, "expected a whole number")));
        let inner = inner.transpose()?;
        let outer = if self.alone { self.r.opt_size(ORIGINAL)? } else { None };
        if let (Some(inner), Some(outer)) = (inner, outer)
            && inner != outer
        {
            self.r.warn(format!("`{ORIGINAL}` is {outer}, and {inner} in `{}`: {outer} counts", self.at));
        }
        Ok(outer.or(inner))
    }

    fn yarn(&self, original: usize) -> Result<Scaling, ConfigError> {
        let factor = self.must("factor")?;
        let attention_factor = match (self.opt("attention_factor")?, self.opt("mscale")?, self.opt("mscale_all_dim")?) {
            (Some(given), _, _) => given,
            (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => yarn_mscale(factor, m) / yarn_mscale(factor, all),
            _ => yarn_mscale(factor, 1.0),
        };
        let truncate = match self.get("truncate") {
            None => true,
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

    fn longrope(&self, rotary: usize, original: usize, n_ctx: usize) -> Result<Scaling, ConfigError> {
        let factor = self.opt("factor")?.unwrap_or(n_ctx as f64 / original as f64);
        let attention_factor = match self.opt("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
        };
        let set = |key: &str| -> Result<Vec<f64>, ConfigError> {
            let list = self.get(key).and_then(Value::as_array).ok_or_else(|| self.bad(key, "expected a list"))?;
            let numbers: Option<Vec<f64>> = list.iter().map(number).collect();
            let numbers = numbers.ok_or_else(|| self.bad(key, "expected numbers"))?;
            if numbers.len() != rotary.div_ceil(2) {
                let why = format!("expected {} numbers, found {}", rotary.div_ceil(2), numbers.len());
                return Err(self.bad(key, &why));
            }
            Ok(numbers)
        };
        Ok(Scaling::LongRope { short: set("short_factor")?, long: set("long_factor")?, original, attention_factor })
    }

    fn must(&self, key: &str) -> Result<f64, ConfigError> {
        self.opt(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    fn opt(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.get(key).map(|v| number(v).ok_or_else(|| self.bad(key, "expected a number"))).transpose()
    }

    /// A key's value; `null`, and what the user passes over, count as absent.
    fn get(&self, key: &str) -> Option<&Value> {
        self.part.get(key).filter(|v| !v.is_null() && !self.r.ignored(&format!("{}.{key}", self.at)))
    }

    fn bad(&self, key: &str, why: &str) -> ConfigError {
        self.r.key(&format!("{}.{key}", self.at), why)
    }
}

/// Whether `rope_scaling` says nothing that `rope_parameters`, where both are given, does not say too.
fn agree(parameters: &Map<String, Value>, scaling: &Value) -> bool {
    let name = |key: &str| if key == "type" { "rope_type".to_string() } else { key.to_string() };
    scaling.as_object().is_some_and(|s| s.iter().all(|(key, value)| parameters.get(&name(key)) == Some(value)))
}
