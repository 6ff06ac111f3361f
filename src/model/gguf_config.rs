//! GGUF metadata to [`Arch`], for the architectures whose GGUF files gatelens reads.

use super::arch::*;
use super::config::{not_understood, passing_over, slips};
use super::gguf::{Gguf, GgufError, TensorInfo, Value, dequantize};
use super::rope::{Rope, Scaling, yarn_mscale};
use std::cell::RefCell;
use std::path::PathBuf;

/// Architectures (`general.architecture`) with the family that each is.
const ARCHITECTURES: [(&str, Family); 4] =
    [("llama", Family::Llama), ("qwen2", Family::Qwen2), ("qwen3", Family::Qwen3), ("gemma3", Family::Gemma3)];

/// What is wrong with a GGUF file's description of its model.
#[derive(Debug, thiserror::Error)]
pub enum GgufConfigError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("{path}: architecture `{found}` is unknown; gatelens reads GGUF files of {known}", path = path.display())]
    UnknownArchitecture { path: PathBuf, found: String, known: String },
    #[error("{path}: {why}", path = path.display())]
    File { path: PathBuf, why: String },
    #[error("{path}: `{key}`: {why}", path = path.display())]
    Key { path: PathBuf, key: String, why: String },
}

/// Keys below the architecture's name that are read here, or that do not change the forward pass of these architectures:
/// those of other norms, of what is done with the last activations, of how tensors were laid out before conversion.
const KNOWN: &[&str] = &[
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "vocab_size",
    "pooling_type",
    "tensor_data_layout",
];

/// Keys that a file may hold at these values only, at which they change nothing: any other switches on what the decoder
/// does not do. Booleans count as 0 and 1.
const NEUTRAL: &[(&str, &[f64])] = &[
    ("attention.causal", &[1.0]),
    ("attention.clamp_kqv", &[0.0]),
    ("attention.max_alibi_bias", &[0.0]),
    ("attention.output_scale", &[0.0, 1.0]),
    ("attention.scale", &[0.0]),
    ("attention.shared_kv_layers", &[0.0]),
    ("attention.temperature_length", &[0.0]),
    ("attention.temperature_scale", &[0.0]),
    ("attn_logit_softcapping", &[0.0]),
    ("embedding_scale", &[0.0, 1.0]),
    ("expert_count", &[0.0]),
    ("expert_group_count", &[0.0]),
    ("expert_group_used_count", &[0.0]),
    ("expert_shared_count", &[0.0]),
    ("expert_used_count", &[0.0]),
    ("final_logit_softcapping", &[0.0]),
    ("full_attention_interval", &[1.0]),
    ("interleave_moe_layer_step", &[0.0]),
    ("leading_dense_block_count", &[0.0]),
    ("logit_scale", &[0.0, 1.0]),
    ("n_deepstack_layers", &[0.0]),
    ("nextn_predict_layers", &[0.0]),
    ("residual_scale", &[0.0, 1.0]),
    ("rope.scaling.yarn_attn_factor", &[1.0]),
    ("rope.scaling.yarn_ext_factor", &[-1.0, 1.0]),
    ("rope.scaling.yarn_log_multiplier", &[0.0]),
    ("router_logit_softcapping", &[0.0]),
    ("swin_norm", &[0.0]),
    ("use_parallel_residual", &[0.0]),
];

/// How many positions a model took before the rotation was scaled.
const ORIGINAL: &str = "rope.scaling.original_context_length";

/// Sizes that newer files give once more, and that gatelens has one of.
const SAME_AS_D_MODEL: [&str; 2] = ["embedding_length_out", "features_length"];
const SAME_AS_D_HEAD: [&str; 3] = ["attention.value_length", "attention.key_length_swa", "attention.value_length_swa"];
const SAME_AS_ROTARY: [&str; 1] = ["rope.dimension_count_swa"];

/// Reads the description of the model in a GGUF file, and what a user should know about it. Keys in `ignore` are passed
/// over, for a user who knows that they do not matter: they count as absent.
///
/// # Errors
/// For a part of a split file, an architecture that is unknown, a key that is missing or of the wrong type, keys of the
/// architecture that are not understood, and a key in `ignore` that the file does not have.
pub fn read(gguf: &Gguf, ignore: &[String]) -> Result<(Arch, Vec<String>), GgufConfigError> {
    if let Some(n) = gguf.opt_u64("split.count")?.filter(|n| *n > 1) {
        let why = format!("is one of {n} parts of a model; join them with llama.cpp's `llama-gguf-split`");
        return Err(GgufConfigError::File { path: gguf.path().to_path_buf(), why });
    }
    let name = gguf.str("general.architecture")?;
    let family = ARCHITECTURES.iter().find(|(n, _)| *n == name).map(|(_, f)| *f).ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|(n, _)| *n).collect();
        GgufConfigError::UnknownArchitecture {
            path: gguf.path().to_path_buf(),
            found: name.to_string(),
            known: known.join(", "),
        }
    })?;
    let keys = Keys { gguf, name, ignore, warnings: RefCell::default() };
    let arch = keys.arch(family)?;
    Ok((arch, keys.warnings.into_inner()))
}

struct Keys<'a> {
    gguf: &'a Gguf,
    name: &'a str,
    /// Keys that the user passes over: here they are not there.
    ignore: &'a [String],
    warnings: RefCell<Vec<String>>,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn bad(&self, key: &str, why: impl Into<String>) -> GgufConfigError {
        self.bad_key(self.key(key), why)
    }

    fn bad_key(&self, key: String, why: impl Into<String>) -> GgufConfigError {
        GgufConfigError::Key { path: self.gguf.path().to_path_buf(), key, why: why.into() }
    }

    /// The whole name of a key that is there and not passed over.
    fn given(&self, key: &str) -> Option<String> {
        Some(self.key(key)).filter(|key| self.gguf.get(key).is_some() && !self.ignore.contains(key))
    }

    /// The whole name of a key that must be there.
    fn must(&self, key: &str) -> Result<String, GgufConfigError> {
        match self.ignore.contains(&self.key(key)) {
            true => Err(self.bad(key, "cannot be passed over: nothing stands in for it")),
            false => Ok(self.key(key)),
        }
    }

    /// A size: one number, or a list with one a layer, which must all be one.
    fn size(&self, key: &str) -> Result<usize, GgufConfigError> {
        let name = self.must(key)?;
        let n = match self.gguf.get(&name) {
            Some(Value::Ints(each)) => match each.first() {
                Some(n) if each.iter().all(|other| other == n) => u64::try_from(*n).unwrap_or(u64::MAX),
                _ => return Err(self.bad(key, "differs between layers, which gatelens does not do")),
            },
            _ => self.gguf.u64(&name)?,
        };
        usize::try_from(n).ok().filter(|n| *n < usize::MAX).ok_or_else(|| self.bad(key, format!("{n} is too large")))
    }

    /// Sizes that have to be the same as another, where they are given.
    fn same(&self, keys: &[&str], size: usize, what: &str) -> Result<(), GgufConfigError> {
        for key in keys {
            if let Some(n) = self.opt_size(key)?.filter(|n| *n != size) {
                return Err(self.bad(key, format!("{n} differs from {what} ({size}), which gatelens does not do")));
            }
        }
        Ok(())
    }

    fn opt_size(&self, key: &str) -> Result<Option<usize>, GgufConfigError> {
        self.given(key).map(|_| self.size(key)).transpose()
    }

    fn opt_number(&self, key: &str) -> Result<Option<f64>, GgufConfigError> {
        self.given(key).map(|key| Ok(self.gguf.f64(&key)?)).transpose()
    }

    /// A default that no tensor would contradict, which is said when it is taken.
    fn assumed<T: std::fmt::Display>(&self, key: &str, value: T) -> T {
        let text = format!("`{}` is not given: {value}, the architecture's default, is assumed", self.key(key));
        self.warnings.borrow_mut().push(text);
        value
    }

    fn arch(&self, family: Family) -> Result<Arch, GgufConfigError> {
        self.account_for_every_key()?;
        let gemma = family == Family::Gemma3;
        let (d_model, n_heads) = (self.size("embedding_length")?, self.size("attention.head_count")?);
        let n_layers = self.size("block_count")?;
        if n_heads == 0 || n_layers > 10_000 {
            return Err(self.bad("block_count", format!("{n_layers} layers of {n_heads} heads are no model")));
        }
        let d_head = self.opt_size("attention.key_length")?.unwrap_or(d_model / n_heads);
        self.same(&SAME_AS_D_MODEL, d_model, "the embedding's length")?;
        self.same(&SAME_AS_D_HEAD, d_head, "the key's length")?;
        let n_ctx = self.size("context_length")?;
        let vocab = self.gguf.tensor("token_embd.weight")?.shape.first().copied().unwrap_or(0);
        // Gemma 3's 27B divides scores by the root of d_model / n_heads, all others by that of the head's size.
        let query_scalar = if gemma && n_layers == 62 { d_model as f64 / n_heads as f64 } else { d_head as f64 };
        let has = |name: &str| self.gguf.opt_tensor(name).is_some();
        let arch = Arch {
            family,
            d_model,
            n_layers,
            n_heads,
            n_kv_heads: self.opt_size("attention.head_count_kv")?.unwrap_or(n_heads),
            d_head,
            d_mlp: self.size("feed_forward_length")?,
            vocab,
            n_ctx: self.context(n_ctx)?,
            norm: NormKind::Rms,
            norm_eps: self.gguf.f64(&self.must("attention.layer_norm_rms_epsilon")?)?,
            norm_plus_one: false,
            placement: if gemma { NormPlacement::Both } else { NormPlacement::Before },
            qk_norm: if has("blk.0.attn_q_norm.weight") { QkNorm::PerHead } else { QkNorm::None },
            parallel: false,
            mlp: Mlp::Gated,
            activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
            biases: Biases {
                qkv: has("blk.0.attn_q.bias"),
                attn_out: has("blk.0.attn_output.bias"),
                mlp: has("blk.0.ffn_up.bias"),
            },
            ropes: self.ropes(family, d_head, n_ctx)?,
            layers: self.layers(family, n_layers, n_ctx)?,
            score_scale: query_scalar.powf(-0.5),
            scores_by_depth: false,
            score_softcap: None,
            logit_softcap: None,
            embed_scale: gemma.then(|| (d_model as f64).sqrt()),
            tied: !has("output.weight"),
        };
        let path = self.gguf.path().to_path_buf();
        arch.check().map_err(|why| GgufConfigError::File { path, why })?;
        Ok(arch)
    }

    /// How many positions the model takes: those that it was trained on, or those that the scaling of its rotation makes
    /// of the ones before it.
    fn context(&self, n_ctx: usize) -> Result<usize, GgufConfigError> {
        let kind = self.given("rope.scaling.type").map(|key| self.gguf.str(&key)).transpose()?;
        let original = self.opt_size(ORIGINAL)?.filter(|_| kind != Some("none"));
        let scaled = original.map(|n| Ok::<_, GgufConfigError>(n as f64 * self.factor()?)).transpose()?;
        Ok(scaled.map_or(n_ctx, |scaled| n_ctx.max(scaled.round() as usize)))
    }

    /// By how much rotations are slowed; older files have it under a name of its own.
    fn factor(&self) -> Result<f64, GgufConfigError> {
        let factor = match self.opt_number("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.opt_number("rope.scale_linear")?,
        };
        Ok(factor.unwrap_or(1.0))
    }

    fn layers(&self, family: Family, n: usize, n_ctx: usize) -> Result<Vec<Layer>, GgufConfigError> {
        const WINDOW: &str = "attention.sliding_window";
        const PATTERN: &str = "attention.sliding_window_pattern";
        let window = self.opt_size(WINDOW)?.filter(|w| *w > 0);
        if family != Family::Gemma3 {
            // A window that holds all positions is none.
            return match window.filter(|w| *w < n_ctx) {
                Some(_) => Err(self.bad(WINDOW, not_understood(&[self.key(WINDOW)], &[]))),
                None => Ok(vec![Layer { window: None, rope: 0 }; n]),
            };
        }
        if window.is_none() {
            return Err(self.bad(WINDOW, "is missing; Gemma 3's local layers need it"));
        }
        let slides: Vec<bool> = match self.given(PATTERN).and_then(|key| self.gguf.get(&key)) {
            Some(Value::Bools(each)) if each.len() == n => each.clone(),
            Some(Value::Bools(each)) => {
                return Err(self.bad(PATTERN, format!("has {} entries for {n} layers", each.len())));
            }
            _ => {
                let pattern = match self.opt_size(PATTERN)? {
                    Some(0) => return Err(self.bad(PATTERN, "must be positive")),
                    Some(n) => n,
                    None => self.assumed(PATTERN, 6),
                };
                (0..n).map(|l| !(l + 1).is_multiple_of(pattern)).collect()
            }
        };
        let layer = |slides: bool| Layer { window: window.filter(|_| slides), rope: usize::from(slides) };
        Ok(slides.into_iter().map(layer).collect())
    }

    fn ropes(&self, family: Family, d_head: usize, n_ctx: usize) -> Result<Vec<Rope>, GgufConfigError> {
        let gemma = family == Family::Gemma3;
        let base = self.base("rope.freq_base", if gemma { 1e6 } else { 10_000.0 })?;
        let rotary = self.opt_size("rope.dimension_count")?.unwrap_or(d_head);
        if family == Family::Llama && rotary != d_head {
            let why = format!(
                "is {rotary} where a head has {d_head}: partial rotation is not implemented for this architecture"
            );
            return Err(self.bad("rope.dimension_count", why));
        }
        self.same(&SAME_AS_ROTARY, rotary, "the rotated dimensions")?;
        let mut ropes = vec![Rope { base, rotary, scaling: self.scaling(rotary, n_ctx)? }];
        if gemma {
            let base = self.base("rope.freq_base_swa", 10_000.0)?;
            ropes.push(Rope { base, rotary, scaling: Scaling::None });
        }
        Ok(ropes)
    }

    fn base(&self, key: &str, default: f64) -> Result<f64, GgufConfigError> {
        let base = self.opt_number(key)?.unwrap_or_else(|| self.assumed(key, default));
        if base > 1.0 {
            Ok(base)
        } else {
            Err(self.bad(key, format!("{base} is no base of a rotation; it is above 1")))
        }
    }

    fn scaling(&self, rotary: usize, n_ctx: usize) -> Result<Scaling, GgufConfigError> {
        const KIND: &str = "rope.scaling.type";
        let kind = match self.given(KIND) {
            Some(key) => self.gguf.str(&key)?,
            None => "linear",
        };
        let factor = self.factor()?;
        if let Some(info) = self.gguf.opt_tensor("rope_freqs.weight") {
            if kind != "none" && (kind, factor) != ("linear", 1.0) {
                let why =
                    "stands beside the tensor `rope_freqs.weight`, which gatelens does not combine with a scaling";
                return Err(self.bad(KIND, why));
            }
            return self.divisors(info, rotary);
        }
        match kind {
            "none" => Ok(Scaling::None),
            "linear" => Ok(Scaling::Linear { factor }),
            "yarn" => Ok(Scaling::Yarn {
                factor,
                original: self.opt_size(ORIGINAL)?.unwrap_or_else(|| self.assumed(ORIGINAL, n_ctx)),
                beta_fast: self.opt_number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: self.opt_number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                truncate: true,
                attention_factor: self.opt_number("rope.scaling.attn_factor")?.unwrap_or(1.0)
                    * yarn_mscale(factor, 1.0),
            }),
            other => Err(self.bad(KIND, format!("`{other}` is unknown; known are none, linear, yarn"))),
        }
    }

    fn divisors(&self, info: &TensorInfo, rotary: usize) -> Result<Scaling, GgufConfigError> {
        if info.elements() != rotary.div_ceil(2) {
            let why = format!("holds {} divisors for {rotary} rotated dimensions", info.elements());
            return Err(self.bad_key(info.name.clone(), why));
        }
        let mut by = vec![0f32; info.elements()];
        dequantize(info.kind, self.gguf.bytes(info)?, &mut by)?;
        Ok(Scaling::Divisors(by.into_iter().map(f64::from).collect()))
    }

    /// Every key of the architecture must be known; a key that the user passes over and that is not there is warned of.
    fn account_for_every_key(&self) -> Result<(), GgufConfigError> {
        let prefix = self.key("");
        let there: Vec<&str> = self.gguf.keys().filter(|key| key.starts_with(&prefix)).collect();
        let slips = slips(self.ignore, &there);
        self.warnings.borrow_mut().extend(slips.iter().cloned());
        let asked = there.iter().filter_map(|key| key.strip_prefix(&prefix)).filter(|key| self.given(key).is_some());
        let mut rest = Vec::new();
        for key in asked {
            match NEUTRAL.iter().find(|(name, _)| *name == key) {
                Some((_, neutral)) => self.check_neutral(key, neutral)?,
                None => rest.push(key),
            }
        }
        let known = [KNOWN, &SAME_AS_D_MODEL, &SAME_AS_D_HEAD, &SAME_AS_ROTARY].concat();
        let unknown: Vec<String> = rest.into_iter().filter(|k| !known.contains(k)).map(|k| self.key(k)).collect();
        if unknown.is_empty() {
            Ok(())
        } else {
            Err(self.bad_key(unknown.join("`, `"), not_understood(&unknown, &slips)))
        }
    }

    fn check_neutral(&self, key: &str, neutral: &[f64]) -> Result<(), GgufConfigError> {
        let found = match self.gguf.get(&self.key(key)) {
            Some(Value::Unsigned(n)) => Some(*n as f64),
            Some(Value::Signed(n)) => Some(*n as f64),
            Some(Value::Float(n)) => Some(*n),
            Some(Value::Bool(on)) => Some(f64::from(u8::from(*on))),
            _ => None,
        };
        if found.is_some_and(|found| neutral.contains(&found)) {
            Ok(())
        } else {
            let over = passing_over(&[self.key(key)]);
            Err(self.bad(key, format!("switches on something that gatelens does not do; {over}")))
        }
    }
}

#[cfg(test)]
mod tests;
