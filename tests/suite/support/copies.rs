//! Copies of the fixtures, to be changed and damaged.

use super::family_dir;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A tensor as it is stored.
#[derive(Clone)]
pub struct Stored {
    pub dtype: safetensors::Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

pub type Tensors = BTreeMap<String, Stored>;

impl Stored {
    pub fn floats(shape: &[usize], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Stored { dtype: safetensors::Dtype::F32, shape: shape.to_vec(), data }
    }

    pub fn values(&self) -> Vec<f32> {
        self.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

/// A model folder of its own.
pub struct Folder {
    dir: TempDir,
}

impl Folder {
    pub fn of(family: &str) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(family_dir(family).join(file), dir.path().join(file)).expect("a copy");
        }
        Folder { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), bytes).expect("a file");
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.file(name)).expect("a file");
    }

    /// Changes `config.json`.
    pub fn config(self, change: impl FnOnce(&mut Map<String, Value>)) -> Self {
        let text = std::fs::read(self.file("config.json")).expect("a config");
        let mut map: Map<String, Value> = serde_json::from_slice(&text).expect("JSON");
        change(&mut map);
        self.write("config.json", Value::Object(map).to_string());
        self
    }

    /// Sets one key of `config.json`.
    pub fn key(self, key: &str, value: Value) -> Self {
        self.config(|map| {
            map.insert(key.to_string(), value);
        })
    }

    /// Changes the weights.
    pub fn weights(self, change: impl FnOnce(&mut Tensors)) -> Self {
        let mut tensors = self.tensors();
        change(&mut tensors);
        self.write("model.safetensors", serialized(&tensors));
        self
    }

    /// Gives tensors other names.
    pub fn renamed(self, name: impl Fn(&str) -> String) -> Self {
        self.weights(|t| *t = std::mem::take(t).into_iter().map(|(old, tensor)| (name(&old), tensor)).collect())
    }

    /// Takes tensors out of the weights that are there under other names too, and notes it as safetensors' `save_model`
    /// does: `(alias, kept)`.
    pub fn noted(self, aliases: &[(&str, &str)]) -> Self {
        let mut tensors = self.tensors();
        aliases.iter().for_each(|(alias, _)| drop(tensors.remove(*alias)));
        let note = |(alias, kept): &(&str, &str)| ((*alias).to_string(), (*kept).to_string());
        let notes = aliases.iter().map(note).chain([("format".to_string(), "pt".to_string())]).collect();
        self.write("model.safetensors", serialized_with(&tensors, Some(notes)));
        self
    }

    pub fn tensors(&self) -> Tensors {
        let bytes = std::fs::read(self.file("model.safetensors")).expect("weights");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a sound file");
        let stored = |t: &safetensors::tensor::TensorView| Stored {
            dtype: t.dtype(),
            shape: t.shape().to_vec(),
            data: t.data().to_vec(),
        };
        file.tensors().iter().map(|(name, tensor)| (name.clone(), stored(tensor))).collect()
    }

    /// Cuts the weights into two shards with an index.
    pub fn sharded(self) -> Self {
        let tensors = self.tensors();
        let mut shards = [Tensors::new(), Tensors::new()];
        let mut map = Map::new();
        for (i, (name, tensor)) in tensors.into_iter().enumerate() {
            map.insert(name.clone(), Value::from(SHARDS[i % 2]));
            shards[i % 2].insert(name, tensor);
        }
        self.remove("model.safetensors");
        SHARDS.iter().zip(&shards).for_each(|(name, shard)| self.write(name, serialized(shard)));
        self.write(INDEX, json!({ "metadata": {}, "weight_map": map }).to_string());
        self
    }

    /// Lets the index name another file for its first tensor.
    pub fn index_names(self, file: &str) -> Self {
        let mut index: Value = serde_json::from_slice(&std::fs::read(self.file(INDEX)).expect("index")).expect("JSON");
        let map = index["weight_map"].as_object_mut().expect("a map");
        *map.values_mut().next().expect("a tensor") = Value::from(file);
        self.write(INDEX, index.to_string());
        self
    }

    /// Takes words, each with the space before it where it has one, into the vocabulary of `inputs/bytes` as a token each.
    pub fn with_words(self, words: &[&str]) -> Self {
        let source = family_dir("inputs/bytes");
        let mut tokenizer: Value =
            serde_json::from_slice(&std::fs::read(source.join("tokenizer.json")).expect("a tokenizer")).expect("JSON");
        // A word that is a token is taken whole, whatever merges would make of it.
        tokenizer["model"]["ignore_merges"] = json!(true);
        let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
        for word in words {
            let id = vocab.len();
            vocab.entry(word.replace(' ', "\u{120}")).or_insert(id.into());
        }
        let rows = vocab.len().max(400);
        self.write("tokenizer.json", tokenizer.to_string());
        std::fs::copy(source.join("tokenizer_config.json"), self.file("tokenizer_config.json")).expect("a copy");
        self.key("vocab_size", json!(rows)).weights(|tensors| {
            for name in ["model.embed_tokens.weight", "lm_head.weight"] {
                let tensor = tensors.get_mut(name).expect("a table of tokens");
                let bytes = rows * tensor.data.len() / tensor.shape[0];
                tensor.data = tensor.data.iter().copied().cycle().take(bytes).collect();
                tensor.shape[0] = rows;
            }
        })
    }

    /// Adds a tokenizer of a few words, with a chat template.
    pub fn with_template(self, template: &str) -> Self {
        let words = ["[UNK]", "how", "are", "you", "user", "assistant"];
        let vocab: Map<String, Value> = words.iter().enumerate().map(|(i, w)| (w.to_string(), i.into())).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
        });
        self.write("tokenizer.json", tokenizer.to_string());
        self.write("tokenizer_config.json", json!({ "chat_template": template }).to_string());
        self
    }
}

pub const INDEX: &str = "model.safetensors.index.json";
pub const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

pub fn serialized(tensors: &Tensors) -> Vec<u8> {
    serialized_with(tensors, None)
}

fn serialized_with(tensors: &Tensors, notes: Option<HashMap<String, String>>) -> Vec<u8> {
    let mut views = HashMap::new();
    for (name, t) in tensors {
        let view = safetensors::tensor::TensorView::new(t.dtype, t.shape.clone(), &t.data).expect("a tensor");
        views.insert(name, view);
    }
    safetensors::serialize(views, notes).expect("weights")
}
