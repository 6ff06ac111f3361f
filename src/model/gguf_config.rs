//! GGUF metadata to [`Arch`]: reading its keys. What they mean in a family is on its page, [`super::families`].

use super::arch::Arch;
use super::config::{Sliding, not_understood, passing_over, slips};
use super::families::Family;
use super::gguf::{Gguf, GgufError, TensorInfo, Value, dequantize};
use super::rope::{Rope, Scaling, yarn_mscale};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

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

/// Keys that a file may hold at these values only where its family does not read them: there they change nothing, and any other
/// switches on what the decoder does not do. Booleans count as 0 and 1.
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
    ("residual_scale", &[0.0, 1.0]),
    ("rope.scaling.yarn_attn_factor", &[1.0]),
    ("rope.scaling.yarn_ext_factor", &[-1.0, 1.0]),
    ("rope.scaling.yarn_log_multiplier", &[0.0]),
    ("router_logit_softcapping", &[0.0]),
    ("swin_norm", &[0.0]),
    ("use_parallel_residual", &[0.0]),
];

/// Keys that some families read, and that the others do not understand.
const OF_SOME: &[&str] = &[
    "attention.decay_lora_rank",
    "attention.gate_lora_rank",
    "attention.iclr_lora_rank",
    "attention.key_length_mla",
    "attention.kv_lora_rank",
    "attention.q_lora_rank",
    "attention.recurrent_layers",
    "attention.value_length_mla",
    "attention.value_residual_mix_lora_rank",
    "expert_feed_forward_length",
    "expert_gating_func",
    "expert_shared_feed_forward_length",
    "expert_weights_norm",
    "expert_weights_scale",
    "kda.head_dim",
    "rope.dimension_sections",
    "shortconv.l_cache",
    "ssm.conv_kernel",
    "ssm.dt_b_c_rms",
    "ssm.group_count",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
    "wkv.head_size",
];

/// How far back layers that slide look.
const WINDOW: &str = "attention.sliding_window";

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
        let why = format!("is one of {n} parts of a model; join them with llama.cpp's `llama-gguf-split --merge`");
        return Err(GgufConfigError::File { path: gguf.path().to_path_buf(), why });
    }
    let name = gguf.str("general.architecture")?;
    let found = Family::in_gguf().find(|(_, family)| family.architectures().any(|of| of == name));
    let (family, in_gguf) = found.ok_or_else(|| GgufConfigError::UnknownArchitecture {
        path: gguf.path().to_path_buf(),
        found: name.to_string(),
        known: architectures().join(", "),
    })?;
    let (taken, warnings) = (RefCell::default(), RefCell::default());
    let keys = Keys { gguf, name, family, ignore, taken, warnings };
    let arch = (in_gguf.describe)(&keys);
    // Keys that nothing understands are told of first: they may be why the rest does not fit.
    keys.account_for_every_key(arch.is_ok())?;
    let arch = arch?;
    arch.check().map_err(|why| GgufConfigError::File { path: gguf.path().to_path_buf(), why })?;
    Ok((arch, keys.warnings.into_inner()))
}

/// The architectures that are read, each once: several families may be of one.
fn architectures() -> Vec<&'static str> {
    let mut found: Vec<&str> = Vec::new();
    for architecture in Family::in_gguf().flat_map(|(_, family)| family.architectures()) {
        if !found.contains(&architecture) {
            found.push(architecture);
        }
    }
    found
}

/// The metadata of an architecture.
pub(super) struct Keys<'a> {
    pub(super) gguf: &'a Gguf,
    name: &'a str,
    /// Whose they are.
    pub(super) family: &'static Family,
    /// Keys that the user passes over: here they are not there.
    ignore: &'a [String],
    /// Keys that were read, without the architecture's name.
    taken: RefCell<BTreeSet<String>>,
    warnings: RefCell<Vec<String>>,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    pub(super) fn bad(&self, key: &str, why: impl Into<String>) -> GgufConfigError {
        self.bad_key(self.key(key), why)
    }

    fn bad_key(&self, key: String, why: impl Into<String>) -> GgufConfigError {
        GgufConfigError::Key { path: self.gguf.path().to_path_buf(), key, why: why.into() }
    }

    /// The whole name of a key that is there and not passed over. It counts as read.
    fn given(&self, key: &str) -> Option<String> {
        self.pass_over(&[key]);
        self.there(key)
    }

    /// Whether a key is there. It does not count as read.
    pub(super) fn gives(&self, key: &str) -> bool {
        self.there(key).is_some()
    }

    fn there(&self, key: &str) -> Option<String> {
        Some(self.key(key)).filter(|key| self.gguf.get(key).is_some() && !self.ignore.contains(key))
    }

    /// Counts keys as read: what they say, the tensors say too.
    pub(super) fn pass_over(&self, keys: &[&str]) {
        self.taken.borrow_mut().extend(keys.iter().map(|key| (*key).to_string()));
    }

    /// The whole name of a key that must be there.
    pub(super) fn must(&self, key: &str) -> Result<String, GgufConfigError> {
        self.pass_over(&[key]);
        match self.ignore.contains(&self.key(key)) {
            true => Err(self.bad(key, "cannot be passed over: nothing stands in for it")),
            false => Ok(self.key(key)),
        }
    }

    /// A size: one number, or a list with one a layer, which must all be one.
    pub(super) fn size(&self, key: &str) -> Result<usize, GgufConfigError> {
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

    /// How many KV heads the layers with attention have, and which of the first `n` layers have none: a recurrent mixer stands
    /// there.
    pub(super) fn kv_heads_or_none(&self, n: usize) -> Result<(usize, Vec<bool>), GgufConfigError> {
        const KEY: &str = "attention.head_count_kv";
        let Some(Value::Ints(each)) = self.gguf.get(&self.must(KEY)?) else {
            let heads = self.size(KEY)?;
            return Ok((heads.max(1), vec![heads == 0; n]));
        };
        let each = self.of_layers(KEY, each, n)?;
        let (mut some, none) =
            (each.iter().filter(|heads| **heads != 0), each.iter().map(|heads| *heads == 0).collect());
        let heads = some.next().copied().unwrap_or(1);
        if some.any(|other| *other != heads) {
            return Err(self.bad(KEY, "differs between layers with attention, which gatelens does not do"));
        }
        let size = usize::try_from(heads).map_err(|_| self.bad(KEY, format!("{heads} is no number of heads")))?;
        Ok((size, none))
    }

    /// Which of `n` layers have a recurrent mixer: as a list says, or all but every n-th.
    pub(super) fn recurrent_layers(&self, n: usize) -> Result<Vec<bool>, GgufConfigError> {
        const LIST: &str = "attention.recurrent_layers";
        const EVERY: &str = "full_attention_interval";
        let every = self.opt_size(EVERY)?;
        match self.given(LIST).and_then(|key| self.gguf.get(&key)) {
            Some(Value::Bools(each)) => Ok(self.of_layers(LIST, each, n)?.to_vec()),
            Some(_) => Err(self.bad(LIST, "is no list of truths, one a layer")),
            None => {
                let every = every.unwrap_or_else(|| self.assumed(EVERY, 4)).max(1);
                Ok((1..=n).map(|l| !l.is_multiple_of(every)).collect())
            }
        }
    }

    /// The entries of the first `n` layers in a list that has one for every layer, those that predict tokens further on too.
    fn of_layers<'v, T>(&self, key: &str, each: &'v [T], n: usize) -> Result<&'v [T], GgufConfigError> {
        match each.len() == n || each.len() == n + self.further()? {
            true => Ok(&each[..n]),
            false => Err(self.bad(key, format!("has {} entries for {n} layers", each.len()))),
        }
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

    pub(super) fn opt_size(&self, key: &str) -> Result<Option<usize>, GgufConfigError> {
        self.given(key).map(|_| self.size(key)).transpose()
    }

    pub(super) fn opt_number(&self, key: &str) -> Result<Option<f64>, GgufConfigError> {
        self.given(key).map(|key| Ok(self.gguf.f64(&key)?)).transpose()
    }

    /// A number that a 0 stands for the absence of.
    pub(super) fn factor_if_any(&self, key: &str) -> Result<Option<f64>, GgufConfigError> {
        Ok(self.opt_number(key)?.filter(|n| *n != 0.0))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, GgufConfigError> {
        let given = self.given(key).map(|key| self.gguf.opt_bool(&key)).transpose()?;
        Ok(given.flatten().unwrap_or(default))
    }

    /// A default that no tensor would contradict, which is said when it is taken.
    pub(super) fn assumed<T: std::fmt::Display>(&self, key: &str, value: T) -> T {
        let text = format!("`{}` is not given: {value}, the architecture's default, is assumed", self.key(key));
        self.warnings.borrow_mut().push(text);
        value
    }

    /// The width of the residual stream, with what else is to be as large.
    pub(super) fn d_model(&self) -> Result<usize, GgufConfigError> {
        let d_model = self.size("embedding_length")?;
        self.same(&SAME_AS_D_MODEL, d_model, "the embedding's length")?;
        Ok(d_model)
    }

    /// The size of a head.
    pub(super) fn d_head(&self, d_model: usize, n_heads: usize) -> Result<usize, GgufConfigError> {
        let d_head = self.opt_size("attention.key_length")?.unwrap_or(d_model / n_heads.max(1));
        self.same(&SAME_AS_D_HEAD, d_head, "the key's length")?;
        Ok(d_head)
    }

    /// How many layers there are, checked before anything is allocated for each. Those that predict tokens further on, which the
    /// file counts too, are not among them.
    pub(super) fn layers(&self, n_heads: usize) -> Result<usize, GgufConfigError> {
        let n_layers = self.size("block_count")?.saturating_sub(self.further()?);
        if n_heads == 0 || n_layers > 10_000 {
            return Err(self.bad("block_count", format!("{n_layers} layers of {n_heads} heads are no model")));
        }
        Ok(n_layers)
    }

    /// How many layers predict tokens further on.
    pub(super) fn further(&self) -> Result<usize, GgufConfigError> {
        Ok(self.opt_size("nextn_predict_layers")?.unwrap_or(0))
    }

    /// Whether the file has a tensor.
    pub(super) fn has(&self, tensor: &str) -> bool {
        self.gguf.opt_tensor(tensor).is_some()
    }

    /// The first layer that has a tensor, and the tensor's shape.
    pub(super) fn first_with(&self, n_layers: usize, tensor: &str) -> Option<(usize, &[usize])> {
        let of = |l: usize| Some((l, self.gguf.opt_tensor(&format!("blk.{l}.{tensor}"))?.shape.as_slice()));
        (0..n_layers).find_map(of)
    }

    /// The numbers of a tensor of so many.
    pub(super) fn numbers(&self, tensor: &str, n: usize) -> Result<Vec<f64>, GgufConfigError> {
        let info = self.gguf.tensor(tensor)?;
        if info.elements() != n {
            let why = format!("holds {} numbers where there are {n}", info.elements());
            return Err(self.bad_key(info.name.clone(), why));
        }
        let mut numbers = vec![0f32; n];
        dequantize(info.kind, self.gguf.bytes(info)?, &mut numbers)?;
        Ok(numbers.into_iter().map(f64::from).collect())
    }

    /// The numbers of `n` layers under a whole name: a list of them, or one for all.
    pub(super) fn each_number(&self, key: &str, n: usize) -> Result<Vec<f64>, GgufConfigError> {
        let found = match self.gguf.get(key) {
            Some(Value::Floats(each)) => each.clone(),
            Some(Value::Float(one)) => vec![*one; n],
            _ => Vec::new(),
        };
        match found.len() == n && found.iter().all(|x| x.is_finite()) {
            true => Ok(found),
            false => Err(self.bad_key(key.to_string(), format!("is no list of {n} numbers, one a layer"))),
        }
    }

    /// How many positions the model takes: those that it was trained on, or those that the scaling of its rotation makes
    /// of the ones before it.
    pub(super) fn context(&self, n_ctx: usize) -> Result<usize, GgufConfigError> {
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

    /// Layers that all see every position; a window is refused, unless it holds all.
    pub(super) fn no_window(&self, n: usize, n_ctx: usize) -> Result<Sliding, GgufConfigError> {
        match self.opt_size(WINDOW)?.filter(|w| *w > 0 && *w < n_ctx) {
            Some(_) => Err(self.bad(WINDOW, not_understood(&[self.key(WINDOW)], &[]))),
            None => Ok(Sliding { window: None, layers: vec![false; n] }),
        }
    }

    /// How far back layers look, if they do not see all.
    pub(super) fn window(&self) -> Result<Option<usize>, GgufConfigError> {
        Ok(self.opt_size(WINDOW)?.filter(|w| *w > 0))
    }

    /// Layers that slide, but for every n-th: as the file says, or as many as `default`. `what` needs the window.
    pub(super) fn windows(&self, n: usize, default: usize, what: &str) -> Result<Sliding, GgufConfigError> {
        const PATTERN: &str = "attention.sliding_window_pattern";
        let window = self.window()?;
        if window.is_none() {
            return Err(self.bad(WINDOW, format!("is missing; {what} need it")));
        }
        let layers: Vec<bool> = match self.given(PATTERN).and_then(|key| self.gguf.get(&key)) {
            Some(Value::Bools(each)) if each.len() == n => each.clone(),
            Some(Value::Bools(each)) => {
                return Err(self.bad(PATTERN, format!("has {} entries for {n} layers", each.len())));
            }
            _ => {
                let pattern = match self.opt_size(PATTERN)? {
                    Some(0) => return Err(self.bad(PATTERN, "must be positive")),
                    Some(n) => n,
                    None => self.assumed(PATTERN, default),
                };
                (0..n).map(|l| !(l + 1).is_multiple_of(pattern)).collect()
            }
        };
        Ok(Sliding { window, layers })
    }

    /// How many dimensions of a head are rotated.
    pub(super) fn rotary(&self, d_head: usize) -> Result<usize, GgufConfigError> {
        Ok(self.opt_size("rope.dimension_count")?.unwrap_or(d_head))
    }

    /// The rotation of layers that see all positions.
    pub(super) fn rope(&self, d_head: usize, n_ctx: usize, base: f64) -> Result<Rope, GgufConfigError> {
        let (base, rotary) = (self.base("rope.freq_base", base)?, self.rotary(d_head)?);
        self.same(&SAME_AS_ROTARY, rotary, "the rotated dimensions")?;
        Ok(Rope { base, rotary, scaling: self.scaling(rotary, n_ctx)?, reversed: false })
    }

    /// The rotation of layers that slide.
    pub(super) fn local_rope(&self, d_head: usize, base: f64) -> Result<Rope, GgufConfigError> {
        let base = self.base("rope.freq_base_swa", base)?;
        Ok(Rope { base, rotary: self.rotary(d_head)?, scaling: Scaling::None, reversed: false })
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
                attention_factor: self.attention_factor(factor)?,
            }),
            other => Err(self.bad(KIND, format!("`{other}` is unknown; known are none, linear, yarn"))),
        }
    }

    /// What a stretched rotation multiplies queries and keys by. Newer files give what `transformers` is given for it, 1 standing
    /// for nothing; older ones what stands beside the usual factor.
    fn attention_factor(&self, factor: f64) -> Result<f64, GgufConfigError> {
        match self.opt_number("rope.scaling.yarn_attn_factor")?.filter(|whole| *whole != 1.0) {
            Some(whole) => Ok(whole),
            None => Ok(self.opt_number("rope.scaling.attn_factor")?.unwrap_or(1.0) * yarn_mscale(factor, 1.0)),
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

    /// Every key of the architecture must be known; a key that the user passes over and that is not there is warned of. Where the
    /// model could not be `described`, a key that was not read yet may still have its use.
    fn account_for_every_key(&self, described: bool) -> Result<(), GgufConfigError> {
        let prefix = self.key("");
        let there: Vec<&str> = self.gguf.keys().filter(|key| key.starts_with(&prefix)).collect();
        let slips = slips(self.ignore, &there);
        self.warnings.borrow_mut().extend(slips.iter().cloned());
        let asked = there.iter().filter_map(|key| key.strip_prefix(&prefix)).filter(|key| self.there(key).is_some());
        let (taken, mut rest) = (self.taken.borrow(), Vec::new());
        let open = |key: &str| !described && OF_SOME.contains(&key);
        for key in asked.filter(|key| !taken.contains(*key) && !open(key)) {
            match NEUTRAL.iter().find(|(name, _)| *name == key) {
                Some(_) if !described => {}
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
