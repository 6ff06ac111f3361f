//! GGUF metadata to [`Arch`], for the architectures whose GGUF files gatelens reads.

use super::arch::*;
use super::gguf::{Gguf, GgufError, Value};
use super::rope::{Rope, Scaling, yarn_mscale};

/// Architectures (`general.architecture`) with the family that each is.
const ARCHITECTURES: [(&str, Family); 4] =
    [("llama", Family::Llama), ("qwen2", Family::Qwen2), ("qwen3", Family::Qwen3), ("gemma3", Family::Gemma3)];

/// What is wrong with a GGUF file's description of its model.
#[derive(Debug, thiserror::Error)]
pub enum GgufConfigError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("{path}: architecture `{found}` is unknown; gatelens reads GGUF files of {known}")]
    UnknownArchitecture { path: String, found: String, known: String },
    #[error("{path}: `{key}`: {why}")]
    Key { path: String, key: String, why: String },
}

/// Keys below the architecture's name that are read here, or that do not change the forward pass.
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
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "vocab_size",
];

/// Keys that a file may hold at 0 only: they switch on what the decoder does not do.
const MUST_BE_ZERO: &[&str] =
    &["expert_count", "expert_used_count", "attn_logit_softcapping", "final_logit_softcapping", "nextn_predict_layers"];

/// Reads the description of the model in a GGUF file. Keys in `ignore` are passed over, for a user who knows that they
/// do not matter.
///
/// # Errors
/// For an architecture that is unknown, a key that is missing or of the wrong type, and a key of the architecture
/// that is not understood.
pub fn read(gguf: &Gguf, ignore: &[String]) -> Result<Arch, GgufConfigError> {
    let name = gguf.str("general.architecture")?;
    let family = ARCHITECTURES.iter().find(|(n, _)| *n == name).map(|(_, f)| *f).ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|(n, _)| *n).collect();
        GgufConfigError::UnknownArchitecture {
            path: gguf.path().display().to_string(),
            found: name.to_string(),
            known: known.join(", "),
        }
    })?;
    Keys { gguf, name, ignore }.arch(family)
}

struct Keys<'a> {
    gguf: &'a Gguf,
    name: &'a str,
    ignore: &'a [String],
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn bad(&self, key: &str, why: impl Into<String>) -> GgufConfigError {
        GgufConfigError::Key { path: self.gguf.path().display().to_string(), key: self.key(key), why: why.into() }
    }

    fn size(&self, key: &str) -> Result<usize, GgufConfigError> {
        let n = self.gguf.u64(&self.key(key))?;
        usize::try_from(n).map_err(|_| self.bad(key, format!("{n} is too large")))
    }

    fn opt_size(&self, key: &str) -> Result<Option<usize>, GgufConfigError> {
        self.gguf.get(&self.key(key)).map(|_| self.size(key)).transpose()
    }

    fn opt_number(&self, key: &str) -> Result<Option<f64>, GgufConfigError> {
        Ok(self.gguf.opt_f64(&self.key(key))?)
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
        if self.opt_size("attention.value_length")?.is_some_and(|v| v != d_head) {
            return Err(self.bad("attention.value_length", "differs from the key's length, which gatelens does not do"));
        }
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
            n_ctx,
            norm: NormKind::Rms,
            norm_eps: self.gguf.f64(&self.key("attention.layer_norm_rms_epsilon"))?,
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
            layers: self.layers(family, n_layers)?,
            score_scale: query_scalar.powf(-0.5),
            score_softcap: None,
            logit_softcap: None,
            embed_scale: gemma.then(|| (d_model as f64).sqrt()),
            tied: !has("output.weight"),
        };
        arch.check().map_err(|why| self.bad("block_count", why))?;
        Ok(arch)
    }

    fn layers(&self, family: Family, n: usize) -> Result<Vec<Layer>, GgufConfigError> {
        let window = self.opt_size("attention.sliding_window")?.filter(|w| *w > 0);
        let gemma = family == Family::Gemma3;
        if gemma && window.is_none() {
            return Err(self.bad("attention.sliding_window", "is missing; Gemma 3's local layers need it"));
        }
        let pattern = if gemma { self.opt_size("attention.sliding_window_pattern")?.unwrap_or(6).max(1) } else { 1 };
        if window.is_some() && !gemma {
            return Err(self.bad("attention.sliding_window", "is not understood for this architecture"));
        }
        let slides = |l: usize| gemma && !(l + 1).is_multiple_of(pattern);
        Ok((0..n).map(|l| Layer { window: window.filter(|_| slides(l)), rope: usize::from(slides(l)) }).collect())
    }

    fn ropes(&self, family: Family, d_head: usize, n_ctx: usize) -> Result<Vec<Rope>, GgufConfigError> {
        let gemma = family == Family::Gemma3;
        let base = self.opt_number("rope.freq_base")?.unwrap_or(if gemma { 1e6 } else { 10_000.0 });
        if !(base > 1.0 && base.is_finite()) {
            return Err(self.bad("rope.freq_base", format!("{base} is no base")));
        }
        let rotary = self.opt_size("rope.dimension_count")?.unwrap_or(d_head);
        if family == Family::Llama && rotary != d_head {
            let why = format!(
                "is {rotary} where a head has {d_head}: partial rotation is not implemented for this architecture"
            );
            return Err(self.bad("rope.dimension_count", why));
        }
        let mut ropes = vec![Rope { base, rotary, scaling: self.scaling(rotary, n_ctx)? }];
        if gemma {
            let local = self.opt_number("rope.freq_base_swa")?.filter(|b| *b > 1.0).unwrap_or(10_000.0);
            ropes.push(Rope { base: local, rotary, scaling: Scaling::None });
        }
        Ok(ropes)
    }

    fn scaling(&self, rotary: usize, n_ctx: usize) -> Result<Scaling, GgufConfigError> {
        if let Some(info) = self.gguf.opt_tensor("rope_freqs.weight") {
            return self.divisors(info, rotary);
        }
        let kind = self.gguf.opt_str(&self.key("rope.scaling.type"))?.unwrap_or("linear");
        let factor = self.opt_number("rope.scaling.factor")?.unwrap_or(1.0);
        if factor <= 0.0 {
            return Err(self.bad("rope.scaling.factor", "must be positive"));
        }
        match kind {
            "none" => Ok(Scaling::None),
            "linear" => Ok(Scaling::Linear { factor }),
            "yarn" => Ok(Scaling::Yarn {
                factor,
                original: self.opt_size("rope.scaling.original_context_length")?.unwrap_or(n_ctx).max(1),
                beta_fast: self.opt_number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: self.opt_number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                truncate: true,
                attention_factor: self.opt_number("rope.scaling.attn_factor")?.unwrap_or(1.0)
                    * yarn_mscale(factor, 1.0),
            }),
            other => Err(self.bad("rope.scaling.type", format!("`{other}` is unknown; known are none, linear, yarn"))),
        }
    }

    fn divisors(&self, info: &super::gguf::TensorInfo, rotary: usize) -> Result<Scaling, GgufConfigError> {
        if info.elements() != rotary.div_ceil(2) {
            let why = format!("holds {} divisors for {rotary} rotated dimensions", info.elements());
            return Err(GgufConfigError::Key {
                path: self.gguf.path().display().to_string(),
                key: "rope_freqs.weight".to_string(),
                why,
            });
        }
        let mut by = vec![0f32; info.elements()];
        super::gguf::dequantize(info.kind, self.gguf.bytes(info)?, &mut by)?;
        if by.iter().any(|d| !(d.is_finite() && *d > 0.0)) {
            return Err(self.bad("rope_freqs.weight", "holds a divisor that is not positive"));
        }
        Ok(Scaling::Divisors(by.into_iter().map(f64::from).collect()))
    }

    fn account_for_every_key(&self) -> Result<(), GgufConfigError> {
        let prefix = format!("{}.", self.name);
        let asked = self.gguf.keys().filter(|k| !self.ignore.iter().any(|i| i == k));
        for key in asked.filter_map(|k| k.strip_prefix(&prefix)) {
            if MUST_BE_ZERO.contains(&key) {
                let zero = match self.gguf.get(&self.key(key)) {
                    Some(Value::Unsigned(n)) => *n == 0,
                    Some(Value::Signed(n)) => *n == 0,
                    Some(Value::Float(n)) => *n == 0.0,
                    _ => false,
                };
                if !zero {
                    return Err(self.bad(key, "switches on something that gatelens does not do"));
                }
            } else if !KNOWN.contains(&key) {
                let why = format!(
                    "is not understood and may change the forward pass; if you know that it does not, pass \
                     --ignore-config-key {prefix}{key}"
                );
                return Err(self.bad(key, why));
            }
        }
        Ok(())
    }
}
