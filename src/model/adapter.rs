//! What a LoRA adapter says of itself: `adapter_config.json`, as `peft` writes it.
//!
//! An adapter changes matrices of another model, its base: `W + scaling * B A` (Hu et al. 2021). It is merged into them as
//! they are read ([`super::checkpoint`]). Every key is accounted for: what would change the result in another way is
//! refused, with the way to merge it in Python.

use super::files::{LARGEST_CONFIG, read_bounded};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The description of an adapter.
pub(super) const CONFIG: &str = "adapter_config.json";

/// The weights of an adapter.
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";

/// What does it where gatelens does not.
const IN_PYTHON: &str = "merge it in Python: `model.merge_and_unload()` and `save_pretrained`";

/// Keys that change nothing once an adapter is trained.
const HARMLESS: [&str; 21] = [
    "arrow_config",
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
    "target_modules",
    "task_type",
];

/// Keys that are read.
const READ: [&str; 10] = [
    "alpha_pattern",
    "base_model_name_or_path",
    "bias",
    "init_lora_weights",
    "lora_alpha",
    "peft_type",
    "r",
    "rank_pattern",
    "revision",
    "use_rslora",
];

/// Ways of setting an adapter up that change the base's own weights too.
const CHANGES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// A LoRA adapter, described.
#[derive(Debug)]
pub struct Adapter {
    pub folder: PathBuf,
    /// The model that it changes, as the file names it.
    pub base: String,
    /// The base's revision on the hub.
    pub revision: Option<String>,
    rank: usize,
    alpha: f64,
    by_root: bool,
    ranks: Vec<(String, f64)>,
    alphas: Vec<(String, f64)>,
}

/// What is wrong with an adapter.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    #[error("{path}: {why}", path = path.display())]
    File { path: PathBuf, why: String },
    #[error("{path}: `{key}`: {why}", path = path.display())]
    Key { path: PathBuf, key: String, why: String },
    #[error("{path}: tensor `{tensor}`: {why}", path = path.display())]
    Tensor { path: PathBuf, tensor: String, why: String },
}

/// Whether a folder holds an adapter, and no weights of a whole model.
pub(super) fn is_adapter(folder: &Path, whole: &[&str]) -> bool {
    let there = |file: &str| folder.join(file).exists();
    there(CONFIG) && !(there("config.json") && whole.iter().any(|file| there(file)))
}

/// What to say of something that is not merged here.
pub(super) fn not_merged(what: &str) -> String {
    format!("{what} is not merged by gatelens; {IN_PYTHON}")
}

impl Adapter {
    /// Reads the description in a folder.
    ///
    /// # Errors
    /// If it is no JSON object, lacks a key, or describes what is not merged here.
    pub fn read(folder: &Path) -> Result<Self, AdapterError> {
        let path = folder.join(CONFIG);
        let file = |why: String| AdapterError::File { path: path.clone(), why };
        let text = read_bounded(&path, LARGEST_CONFIG).map_err(|e| file(e.to_string()))?;
        let text = text.ok_or_else(|| file("there is no such file".to_string()))?;
        let map: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|e| file(format!("not a JSON object: {e}")))?;
        let keys = Keys { path: &path, map: &map };
        keys.account_for_all()?;
        let must = |key: &str| keys.number(key)?.ok_or_else(|| keys.bad(key, "is missing"));
        let rank = must("r")?;
        if !(1.0..=65_536.0).contains(&rank) || rank.fract() != 0.0 {
            return Err(keys.bad("r", format!("{rank} is no rank of a matrix")));
        }
        Ok(Adapter {
            folder: folder.to_path_buf(),
            base: keys
                .text("base_model_name_or_path")?
                .ok_or_else(|| keys.bad("base_model_name_or_path", "is missing"))?,
            revision: keys.text("revision")?,
            rank: rank as usize,
            alpha: must("lora_alpha")?,
            by_root: keys.flag("use_rslora")?,
            ranks: keys.patterns("rank_pattern")?,
            alphas: keys.patterns("alpha_pattern")?,
        })
    }

    /// The rank of a module's change.
    pub(super) fn rank_of(&self, module: &str) -> usize {
        found(&self.ranks, module).map_or(self.rank, |rank| rank as usize)
    }

    /// What a module's change is multiplied by: alpha over the rank, or over its root.
    pub(super) fn scaling_of(&self, module: &str) -> f64 {
        let (alpha, rank) = (found(&self.alphas, module).unwrap_or(self.alpha), self.rank_of(module) as f64);
        alpha / if self.by_root { rank.sqrt() } else { rank }
    }
}

/// The value of the first pattern that a module's name is, or ends with at a dot, as in `peft`.
fn found(patterns: &[(String, f64)], module: &str) -> Option<f64> {
    let is = |pattern: &str| match pattern.strip_prefix('^') {
        Some(whole) => module == whole,
        None => module.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    };
    patterns.iter().find(|(pattern, _)| is(pattern)).map(|(_, value)| *value)
}

/// The keys of a description.
struct Keys<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
}

impl Keys<'_> {
    fn bad(&self, key: &str, why: impl Into<String>) -> AdapterError {
        AdapterError::Key { path: self.path.to_path_buf(), key: key.to_string(), why: why.into() }
    }

    /// A key's value; `null` counts as absent.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn number(&self, key: &str) -> Result<Option<f64>, AdapterError> {
        let number = |v: &Value| v.as_f64().filter(|n| n.is_finite());
        self.get(key).map(|v| number(v).ok_or_else(|| self.bad(key, "expected a number"))).transpose()
    }

    fn text(&self, key: &str) -> Result<Option<String>, AdapterError> {
        let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_string);
        self.get(key).map(|v| text(v).ok_or_else(|| self.bad(key, "expected a name"))).transpose()
    }

    fn flag(&self, key: &str) -> Result<bool, AdapterError> {
        self.get(key).map_or(Ok(false), |v| v.as_bool().ok_or_else(|| self.bad(key, "expected true or false")))
    }

    /// Numbers by names of modules, in their order.
    fn patterns(&self, key: &str) -> Result<Vec<(String, f64)>, AdapterError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let map = value.as_object().ok_or_else(|| self.bad(key, "expected an object"))?;
        let plain = |c: char| c.is_alphanumeric() || "_.-".contains(c);
        let one = |(name, value): (&String, &Value)| {
            let bare = name.strip_prefix('^').unwrap_or(name);
            if bare.is_empty() || !bare.chars().all(plain) {
                return Err(self.bad(key, not_merged(&format!("the pattern `{name}`, which is no module's name,"))));
            }
            let n = value.as_f64().filter(|n| *n > 0.0 && n.is_finite());
            Ok((name.clone(), n.ok_or_else(|| self.bad(key, format!("`{name}`: {value} is no positive number")))?))
        };
        map.iter().map(one).collect()
    }

    /// Every key must be read, be known not to matter, or be off.
    fn account_for_all(&self) -> Result<(), AdapterError> {
        match self.text("peft_type")?.as_deref() {
            Some("LORA") => {}
            other => {
                return Err(self.bad("peft_type", not_merged(&format!("`{}`", other.unwrap_or("an unnamed kind")))));
            }
        }
        let bias = self.text("bias")?;
        if let Some(bias) = bias.filter(|bias| bias != "none") {
            return Err(self.bad("bias", not_merged(&format!("an adapter that trains biases (`{bias}`)"))));
        }
        let start = self.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
        if CHANGES_BASE.iter().any(|kind| start.starts_with(kind)) {
            let what = format!("an adapter that began as `{start}`, which changes the base's weights too,");
            return Err(self.bad("init_lora_weights", not_merged(&what)));
        }
        let off = |v: &Value| match v {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        let known = |key: &str| READ.contains(&key) || HARMLESS.contains(&key);
        match self.map.iter().find(|(key, value)| !known(key) && !off(value)) {
            None => Ok(()),
            Some((key, _)) => Err(self.bad(key, not_merged("what it switches on"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(more: Value) -> Result<Adapter, String> {
        let mut map = json!({ "peft_type": "LORA", "base_model_name_or_path": "base", "r": 4, "lora_alpha": 8 });
        map.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(CONFIG), map.to_string()).expect("a file");
        Adapter::read(dir.path()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_change_is_scaled_by_alpha_over_rank_or_its_root_of_its_module() {
        let scaling = |more: Value, module: &str| read(more).expect("an adapter").scaling_of(module);
        let module = "model.layers.1.self_attn.q_proj";
        assert_eq!(scaling(json!({}), module), 2.0);
        assert_eq!(scaling(json!({ "use_rslora": true }), module), 4.0);
        for (pattern, ranked) in [
            ("q_proj", true),
            ("self_attn.q_proj", true),
            ("layers.1.self_attn.q_proj", true),
            ("^model.layers.1.self_attn.q_proj", true),
            ("^layers.1.self_attn.q_proj", false),
            ("_proj", false),
            ("v_proj", false),
        ] {
            let adapter = read(json!({ "rank_pattern": { pattern: 16 }, "alpha_pattern": { pattern: 48 } }));
            let adapter = adapter.expect("an adapter");
            let expected = if ranked { (16, 3.0) } else { (4, 2.0) };
            assert_eq!((adapter.rank_of(module), adapter.scaling_of(module)), expected, "{pattern}");
        }
        let first = json!({ "alpha_pattern": { "self_attn.q_proj": 4, "q_proj": 40 } });
        assert_eq!(scaling(first, module), 1.0);
    }

    #[test]
    fn what_is_not_merged_says_how_to() {
        for (key, value) in [
            ("use_dora", json!(true)),
            ("layer_replication", json!([[0, 2], [1, 3]])),
            ("peft_type", json!("IA3")),
            ("bias", json!("all")),
            ("lora_bias", json!(true)),
            ("use_qalora", json!(true)),
            ("trainable_token_indices", json!([1, 2])),
            ("target_parameters", json!(["experts"])),
            ("alora_invocation_tokens", json!([5])),
            ("init_lora_weights", json!("pissa_niter_4")),
            ("something_new", json!(3)),
            ("rank_pattern", json!({ "layers\\.[0-3].*": 3 })),
        ] {
            let error = read(json!({ key: value })).expect_err(key);
            assert!(error.contains(key) && error.contains("merge_and_unload"), "{error}");
        }
        let off = json!({ "use_dora": false, "layer_replication": null, "trainable_token_indices": null, "bias": "none",
            "target_parameters": [], "megatron_core": "megatron.core", "init_lora_weights": true, "something_new": null });
        read(off).expect("all off");
        for (key, value) in
            [("r", json!(0)), ("r", json!(null)), ("lora_alpha", json!("x")), ("base_model_name_or_path", json!(null))]
        {
            assert!(read(json!({ key: value })).expect_err(key).contains(key));
        }
    }
}
