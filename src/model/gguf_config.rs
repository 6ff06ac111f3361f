//! GGUF metadata to [`Arch`], for the architectures whose GGUF files gatelens reads.

use super::arch::*;
use super::config::{not_understood, slips};
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

/// Reads the description of the model in a GGUF file, and what a user should know about it. Keys in `ignore` are passed
/// over, for a user who knows that they do not matter: they count as absent.
///
/// # Errors
/// For a part of a split file, an architecture that is unknown, a key that is missing or of the wrong type, keys of the
/// architecture that are not understood, and a key in `ignore` that the file does not have.
pub fn read(gguf: &Gguf, ignore: &[String]) -> Result<(Arch, Vec<String>), GgufConfigError> {
    if let Some(n) = gguf.opt_u64("split.count")?.filter(|n| *n > 1) {
        let why = format!("is one of {n} parts of a model; join them with `llama-gguf-split --merge`");
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

    fn size(&self, key: &str) -> Result<usize, GgufConfigError> {
        let n = self.gguf.u64(&self.must(key)?)?;
        usize::try_from(n).map_err(|_| self.bad(key, format!("{n} is too large")))
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
            layers: self.layers(family, n_layers)?,
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

    fn layers(&self, family: Family, n: usize) -> Result<Vec<Layer>, GgufConfigError> {
        const WINDOW: &str = "attention.sliding_window";
        const PATTERN: &str = "attention.sliding_window_pattern";
        let window = self.opt_size(WINDOW)?.filter(|w| *w > 0);
        if family != Family::Gemma3 {
            return match window {
                Some(_) => Err(self.bad(WINDOW, not_understood(&[self.key(WINDOW)], &[]))),
                None => Ok(vec![Layer { window: None, rope: 0 }; n]),
            };
        }
        if window.is_none() {
            return Err(self.bad(WINDOW, "is missing; Gemma 3's local layers need it"));
        }
        let pattern = match self.opt_size(PATTERN)? {
            Some(0) => return Err(self.bad(PATTERN, "must be positive")),
            Some(n) => n,
            None => self.assumed(PATTERN, 6),
        };
        let slides = |l: usize| !(l + 1).is_multiple_of(pattern);
        Ok((0..n).map(|l| Layer { window: window.filter(|_| slides(l)), rope: usize::from(slides(l)) }).collect())
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
        let factor = self.opt_number("rope.scaling.factor")?.unwrap_or(1.0);
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
            "yarn" => {
                const ORIGINAL: &str = "rope.scaling.original_context_length";
                Ok(Scaling::Yarn {
                    factor,
                    original: self.opt_size(ORIGINAL)?.unwrap_or_else(|| self.assumed(ORIGINAL, n_ctx)),
                    beta_fast: self.opt_number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.opt_number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                    truncate: true,
                    attention_factor: self.opt_number("rope.scaling.attn_factor")?.unwrap_or(1.0)
                        * yarn_mscale(factor, 1.0),
                })
            }
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
        let (switches, rest): (Vec<&str>, Vec<&str>) = asked.partition(|key| MUST_BE_ZERO.contains(key));
        let off = |key: &str| match self.gguf.get(&self.key(key)) {
            Some(Value::Unsigned(n)) => *n == 0,
            Some(Value::Signed(n)) => *n == 0,
            Some(Value::Float(n)) => *n == 0.0,
            _ => false,
        };
        if let Some(key) = switches.into_iter().find(|key| !off(key)) {
            return Err(self.bad(key, "switches on something that gatelens does not do"));
        }
        let unknown: Vec<String> = rest.into_iter().filter(|k| !KNOWN.contains(k)).map(|k| self.key(k)).collect();
        if unknown.is_empty() {
            Ok(())
        } else {
            Err(self.bad_key(unknown.join("`, `"), not_understood(&unknown, &slips)))
        }
    }
}
