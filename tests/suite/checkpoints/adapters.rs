//! LoRA adapters, which are merged into their base as it is read.

use super::*;
use std::path::PathBuf;
use tempfile::TempDir;

/// The modules of a family that an adapter may change: parts of their names.
const TARGETS: [(&str, &[&str]); 5] = [
    ("llama", &["q_proj", "v_proj", "down_proj"]),
    ("gpt2", &["c_attn", "c_proj", "c_fc"]),
    ("phi3", &["qkv_proj", "gate_up_proj"]),
    ("gpt_neox", &["query_key_value", "dense_h_to_4h"]),
    ("gemma3", &["q_proj", "k_proj", "o_proj", "up_proj"]),
];

/// Numbers between -0.2 and 0.2 that a seed decides.
fn numbers(seed: usize, n: usize) -> Vec<f32> {
    let mut state = 2 * seed as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 0.2
    };
    (0..n + 7).map(|_| next()).skip(7).collect()
}

/// An adapter's folder.
struct Lora {
    dir: TempDir,
    config: Value,
    tensors: Tensors,
}

impl Lora {
    /// A change of rank 3, alpha 6, of all modules of these names in a base.
    fn of(base: &Folder, family: &str, targets: &[&str]) -> Self {
        let mut tensors = Tensors::new();
        for (name, stored) in base.tensors() {
            let Some(module) = name.strip_suffix(".weight").filter(|m| targets.iter().any(|t| m.ends_with(t))) else {
                continue;
            };
            let [down, across] = stored.shape[..] else { panic!("{name} is no matrix") };
            let (inputs, outputs) = if family == "gpt2" { (down, across) } else { (across, down) };
            let seed = tensors.len();
            let module = format!("base_model.model.{module}");
            tensors.insert(format!("{module}.lora_A.weight"), Stored::floats(&[3, inputs], &numbers(seed, 3 * inputs)));
            tensors.insert(
                format!("{module}.lora_B.weight"),
                Stored::floats(&[outputs, 3], &numbers(seed + 1, outputs * 3)),
            );
        }
        let base = base.path().to_str().expect("UTF-8");
        let config = json!({ "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": 3, "lora_alpha": 6,
            "lora_dropout": 0.05, "bias": "none", "target_modules": targets, "inference_mode": true });
        Lora { dir: TempDir::new().expect("a folder"), config, tensors }.written()
    }

    fn written(self) -> Self {
        self.write("adapter_config.json", self.config.to_string());
        self.write("adapter_model.safetensors", serialized(&self.tensors));
        self
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.dir.path().join(name), bytes).expect("a file");
    }

    fn key(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self.written()
    }

    fn weights(mut self, change: impl FnOnce(&mut Tensors)) -> Self {
        change(&mut self.tensors);
        self.written()
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The base's weights with the change added in f64; `scaling` is that of a module.
    fn merged(&self, base: Folder, family: &str, scaling: impl Fn(&str) -> f64) -> Folder {
        base.weights(|tensors| {
            for (name, a) in self.tensors.iter().filter(|(name, _)| name.ends_with("lora_A.weight")) {
                let b = &self.tensors[&name.replace("lora_A", "lora_B")];
                let module = name.strip_prefix("base_model.model.").and_then(|n| n.strip_suffix(".lora_A.weight"));
                let module = module.expect("a module");
                let stored = tensors.get_mut(&format!("{module}.weight")).expect("a tensor");
                let (rank, inputs, outputs) = (a.shape[0], a.shape[1], b.shape[0]);
                let (a, b, mut w) = (a.values(), b.values(), stored.values());
                for o in 0..outputs {
                    for i in 0..inputs {
                        let sum: f64 =
                            (0..rank).map(|r| f64::from(b[o * rank + r]) * f64::from(a[r * inputs + i])).sum();
                        let at = if family == "gpt2" { i * outputs + o } else { o * inputs + i };
                        w[at] = (f64::from(w[at]) + scaling(module) * sum) as f32;
                    }
                }
                *stored = Stored::floats(&stored.shape.clone(), &w);
            }
        })
    }
}

#[track_caller]
fn same(what: &str, found: &Path, expected: &Path, family: &str) {
    let ids = prompts(family);
    assert_close(what, &logits(&open(found), &ids), &logits(&open(expected), &ids), 1e-5, 1e-5);
}

#[test]
fn an_adapter_that_peft_wrote_gives_the_logits_of_its_merged_model() {
    for family in ["lora_llama", "lora_gpt2"] {
        let golden = std::fs::read(family_dir(family).join("golden.json")).expect("golden values");
        let golden: Value = serde_json::from_slice(&golden).expect("JSON");
        let list = |key: &str| golden[key].as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number"));
        let model = open(&family_dir(family));
        let found = logits(&model, &[list("ids").map(|id| id as u32).collect()]);
        let expected: Vec<f32> = list("logits").map(|x| x as f32).collect();
        assert_close(family, &found[found.len() - expected.len()..], &expected, 5e-5, 5e-5);
        assert!(model.warnings[0].contains("LoRA adapter"), "{:?}", model.warnings);
    }
}

#[test]
fn an_adapter_gives_what_its_merged_weights_give_in_every_way_of_storing() {
    for (family, targets) in TARGETS {
        let base = Folder::of(family);
        let lora = Lora::of(&base, family, targets);
        let merged = lora.merged(Folder::of(family), family, |_| 2.0);
        same(family, lora.path(), merged.path(), family);
        let lora = lora.key("use_rslora", json!(true));
        let merged = lora.merged(Folder::of(family), family, |_| 6.0 / 3f64.sqrt());
        same(family, lora.path(), merged.path(), family);
    }
}

#[test]
fn a_modules_own_alpha_and_rank_count_for_it() {
    let base = Folder::of("llama");
    let lora = Lora::of(&base, "llama", &["q_proj", "v_proj"]).key("r", json!(8));
    let lora = lora.key("rank_pattern", json!({ "q_proj": 3, "v_proj": 3 }));
    let lora = lora.key("alpha_pattern", json!({ "layers.2.self_attn.q_proj": 30 }));
    let scaling = |module: &str| if module.ends_with("layers.2.self_attn.q_proj") { 10.0 } else { 2.0 };
    same("patterns", lora.path(), lora.merged(Folder::of("llama"), "llama", scaling).path(), "llama");
    unopened(lora.key("rank_pattern", json!({})).path(), &["lora_", "is of rank 3", "adapter_config.json says 8"]);
}

#[test]
fn a_base_may_be_bare_sharded_streamed_or_wrapped() {
    let bare = Folder::of("gpt2").renamed(|name| name.strip_prefix("transformer.").unwrap_or(name).to_string());
    let full = Folder::of("gpt2");
    let lora = Lora::of(&full, "gpt2", &["c_attn", "c_proj"]);
    let merged = lora.merged(Folder::of("gpt2"), "gpt2", |_| 2.0);
    let lora = lora.key("base_model_name_or_path", json!(bare.path()));
    same("bare", lora.path(), merged.path(), "gpt2");

    let (full, sharded) = (Folder::of("llama"), Folder::of("llama").sharded());
    let lora = Lora::of(&full, "llama", &["q_proj", "gate_proj"]);
    let merged = lora.merged(Folder::of("llama"), "llama", |_| 2.0);
    let lora = lora.key("base_model_name_or_path", json!(sharded.path()));
    same("sharded", lora.path(), merged.path(), "llama");
    let options = Options { max_memory: Some(1000), ..Options::default() };
    let streamed = Model::open(lora.path().to_str().expect("UTF-8"), &options).expect("a sound model");
    let expected = logits(&open(lora.path()), &prompts("llama"));
    assert_eq!(logits(&streamed, &prompts("llama")), expected);

    let inside = Folder::of("llama").renamed(|name| format!("language_model.{name}"));
    let lora = lora.key("base_model_name_or_path", json!(inside.path()));
    assert_eq!(logits(&open(lora.path()), &prompts("llama")), expected, "under other names");
}

#[test]
fn modules_that_were_trained_whole_replace_the_bases() {
    let head = || Stored::floats(&[160, 48], &numbers(3, 160 * 48));
    let saved = |family: &str, targets: &[&str], name: &str| {
        let base = Folder::of(family);
        let lora = Lora::of(&base, family, targets).key("modules_to_save", json!([name]));
        let merged = lora.merged(Folder::of(family), family, |_| 2.0);
        (base, lora.weights(|t| drop(t.insert(format!("base_model.model.{name}.weight"), head()))), merged)
    };
    let (_base, lora, merged) = saved("llama", &["q_proj"], "lm_head");
    let merged = merged.weights(|t| drop(t.insert("lm_head.weight".to_string(), head())));
    same("an unembedding", lora.path(), merged.path(), "llama");
    // A tied one becomes one of its own.
    let (_base, lora, merged) = saved("gemma3", &["q_proj"], "lm_head");
    let merged = merged.weights(|t| drop(t.insert("lm_head.weight".to_string(), head())));
    same("a tied unembedding", lora.path(), merged.path(), "gemma3");
    // The embedding alone: `peft` and its merged model differ in what the unembedding then is.
    let (_base, lora, _) = saved("gemma3", &["q_proj"], "model.embed_tokens");
    unopened(lora.path(), &["model.embed_tokens.weight", "ties", "merge_and_unload"]);
}

#[test]
fn the_base_is_found_by_its_path_or_name() {
    let parent = TempDir::new().expect("a folder");
    let copy = |from: &Path, to: PathBuf| {
        std::fs::create_dir(&to).expect("a folder");
        for file in std::fs::read_dir(from).expect("a folder").flatten() {
            std::fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
        }
    };
    let base = Folder::of("llama");
    let lora = Lora::of(&base, "llama", &["q_proj"]);
    let expected = logits(&open(lora.path()), &prompts("llama"));
    copy(base.path(), parent.path().join("base"));
    let lora = lora.key("base_model_name_or_path", json!("../base"));
    copy(lora.path(), parent.path().join("lora"));
    assert_eq!(logits(&open(&parent.path().join("lora")), &prompts("llama")), expected);
    for name in ["./nowhere", "/nowhere/at/all", "a b"] {
        unopened(lora.key_of(name).path(), &[name, "no such file or folder"]);
    }
    let inner = Lora::of(&base, "llama", &["q_proj"]);
    let outer = Lora::of(&base, "llama", &["q_proj"]).key("base_model_name_or_path", json!(inner.path()));
    unopened(outer.path(), &["is an adapter itself"]);
}

impl Lora {
    /// A second adapter of the same tensors, of another base.
    fn key_of(&self, base: &str) -> Lora {
        let (dir, config, tensors) = (TempDir::new().expect("a folder"), self.config.clone(), self.tensors.clone());
        Lora { dir, config, tensors }.key("base_model_name_or_path", json!(base))
    }
}

#[test]
fn adapters_of_one_shape_have_fingerprints_of_their_own() {
    let base = Folder::of("llama");
    let lora = Lora::of(&base, "llama", &["q_proj"]);
    let first = open(lora.path()).sha256;
    assert_ne!(first, open(base.path()).sha256);
    let lora = lora.weights(|t| {
        let stored = t.values_mut().next().expect("a tensor");
        stored.data[0] ^= 1;
    });
    let second = open(lora.path()).sha256;
    let third = open(lora.key("lora_alpha", json!(7)).path()).sha256;
    assert!(first != second && second != third && third != first);
}

#[test]
fn an_adapters_own_tokenizer_comes_before_its_bases() {
    let base = Folder::of("llama").with_template("{{ messages }}base");
    let lora = Lora::of(&base, "llama", &["q_proj"]);
    let pieces = |lora: &Lora| open(lora.path()).tokenizer().expect("a tokenizer").id("how");
    assert_eq!(pieces(&lora), Some(1));
    let text = std::fs::read_to_string(base.file("tokenizer.json")).expect("a tokenizer");
    lora.write("tokenizer.json", text.replace("\"how\":1", "\"how\":11"));
    assert_eq!(pieces(&lora), Some(11));
}

#[test]
fn an_adapter_that_fits_no_tensor_of_its_base_is_refused_by_name() {
    const A: &str = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight";
    const B: &str = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight";
    let base = Folder::of("llama");
    let changed = |change: &dyn Fn(&mut Tensors)| Lora::of(&base, "llama", &["q_proj"]).weights(|t| change(t));
    unopened(changed(&|t| drop(t.remove(A))).path(), &[B, A, "is missing"]);
    unopened(
        changed(&|t| drop(t.insert(A.to_string(), Stored::floats(&[3, 50], &[0.5; 150])))).path(),
        &[A, "[3, 50]", "48 by 48"],
    );
    for name in ["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight", "base_model.model.other.weight"] {
        let lora = changed(&|t| drop(t.insert(name.to_string(), Stored::floats(&[3, 48], &[0.5; 144]))));
        unopened(lora.path(), &[name, "merge_and_unload"]);
    }
    for part in ["embed_tokens.lora_embedding_A", "layers.0.self_attn.q_proj.lora_magnitude_vector.weight"] {
        let name = format!("base_model.model.model.{part}");
        let lora = changed(&|t| drop(t.insert(name.clone(), Stored::floats(&[3, 48], &[0.5; 144]))));
        unopened(lora.path(), &[&name, "merge_and_unload"]);
    }
    unopened(changed(&|t| t.clear()).path(), &["holds no tensor"]);
    let nan = changed(&|t| t.get_mut(A).expect("a tensor").data[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    unread(nan.path(), &[A, "not finite"]);
    let lora = changed(&|_| ());
    std::fs::rename(lora.path().join("adapter_model.safetensors"), lora.path().join("adapter_model.bin"))
        .expect("a file");
    unopened(lora.path(), &["adapter_model.safetensors", "safe_serialization"]);
    let dora = changed(&|_| ()).key("use_dora", json!(true));
    unopened(dora.path(), &["use_dora", "merge_and_unload"]);
}
