//! What stands beside the weights: the base's configuration, tokenizer and whatever else it has.

use super::folder::{Claim, RECORD};
use super::{SaveAs, SaveError, pretty};
use crate::model::files::{LARGEST_CONFIG, read_bounded};
use crate::model::mixture::Folder;
use crate::rundir::{WriteError, write_file_with};
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The ends of the names of files that hold weights, in whatever format.
const WEIGHTS: [&str; 11] =
    [".safetensors", ".index.json", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".ot", ".onnx"];

/// What a tokenizer is of: an adapter that has one brings all of it.
const TOKENIZER: [&str; 13] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "chat_template.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
];

/// Copies what of a model's files is neither weights nor written by us.
///
/// # Errors
/// If a file cannot be read or written.
pub(super) fn copy(model: &Folder, claim: &Claim) -> Result<(), SaveError> {
    let tokenizer = model.of_tokenizer();
    let of_model = |name: &str| tokenizer == model.dir || !TOKENIZER.contains(&name);
    let mut all: Vec<PathBuf> = files(&model.dir, of_model)?;
    if tokenizer != model.dir {
        all.extend(files(tokenizer, |name| TOKENIZER.contains(&name))?);
    }
    for from in all {
        let to = claim.path(&from.file_name().unwrap_or_default().to_string_lossy());
        write_file_with(&to, |temporary| io::copy(&mut File::open(&from)?, &mut File::create(temporary)?).map(drop))?;
    }
    Ok(())
}

/// The files of a folder that are copied, those of which `also` says so.
fn files(folder: &Path, also: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, WriteError> {
    let failed = || WriteError::new(folder, "be read");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A file of the hub's cache is a link to one.
        if path.is_file() && is_copied(&name) && also(&name) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file is neither weights, nor hidden, nor written by us.
fn is_copied(name: &str) -> bool {
    let ours = [RECORD, "config.json"].contains(&name);
    !ours && !name.starts_with('.') && !WEIGHTS.iter().any(|end| name.ends_with(end))
}

/// The model's configuration, which says what the weights are written as.
///
/// # Errors
/// If it cannot be read.
pub(super) fn config(model: &Path, save_as: SaveAs, untied: bool) -> Result<Vec<u8>, SaveError> {
    let path = model.join("config.json");
    let text = read_bounded(&path, LARGEST_CONFIG).map_err(WriteError::new(&path, "be read"))?;
    let text = text.ok_or_else(|| SaveError::refused(&path, "there is no such file"))?;
    let map: Result<Map<String, Value>, _> = serde_json::from_slice(&text);
    let mut map = map.map_err(|e| SaveError::refused(&path, format!("not a JSON object: {e}")))?;
    // Whoever believes the tie would pass over the unembedding that is written.
    let tied = untied && untie(&mut map);
    let Some(dtype) = save_as.name() else { return Ok(if tied { pretty(&Value::Object(map)) } else { text }) };
    if !said(&mut map, dtype) {
        map.insert("dtype".to_string(), Value::from(dtype));
    }
    // Of a model that reads images too, the text part says it as well.
    if let Some(Value::Object(text)) = map.get_mut("text_config") {
        said(text, dtype);
    }
    Ok(pretty(&Value::Object(map)))
}

/// Takes back what a configuration says of a tie; gives whether it said so.
fn untie(map: &mut Map<String, Value>) -> bool {
    const TIE: &str = "tie_word_embeddings";
    let own = map.get(TIE) == Some(&Value::Bool(true));
    if own {
        map.insert(TIE.to_string(), Value::Bool(false));
    }
    let inner = map.get_mut("text_config").and_then(Value::as_object_mut);
    let inner = inner.is_some_and(|text| {
        text.get(TIE) == Some(&Value::Bool(true)) && text.insert(TIE.to_string(), Value::Bool(false)).is_some()
    });
    own || inner
}

/// The keys that say what weights are stored as: that of `transformers` 5, and the one before it.
const DTYPE: [&str; 2] = ["dtype", "torch_dtype"];

/// Sets what an object says of the dtype; gives whether it says anything.
fn said(map: &mut Map<String, Value>, dtype: &str) -> bool {
    let found: Vec<&str> = DTYPE.into_iter().filter(|key| map.contains_key(*key)).collect();
    found.iter().for_each(|key| drop(map.insert((*key).to_string(), Value::from(dtype))));
    !found.is_empty()
}

impl SaveAs {
    /// What `config.json` calls it; none where each tensor stays what it is.
    fn name(self) -> Option<&'static str> {
        match self {
            SaveAs::Keep => None,
            SaveAs::F32 => Some("float32"),
            SaveAs::Bf16 => Some("bfloat16"),
            SaveAs::F16 => Some("float16"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_hidden_files_and_our_own_are_not_copied() {
        for name in [
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            ".gitattributes",
            "merge.json",
            "config.json",
            "consolidated.00.pth",
        ] {
            assert!(!is_copied(name), "{name}");
        }
        for name in ["tokenizer.json", "generation_config.json", "chat_template.jinja", "LICENSE", "modeling_x.py"] {
            assert!(is_copied(name), "{name}");
        }
    }

    #[test]
    fn a_configuration_says_the_dtype_where_it_said_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &str, save_as| {
            std::fs::write(dir.path().join("config.json"), text).unwrap();
            String::from_utf8(config(dir.path(), save_as, false).unwrap()).unwrap()
        };
        let compact = |text: String| text.split_whitespace().collect::<String>();
        assert_eq!(of("{ \"b\": 1 }", SaveAs::Keep), "{ \"b\": 1 }");
        assert_eq!(
            compact(of("{\"b\": 1, \"torch_dtype\": \"x\", \"a\": 2}", SaveAs::Bf16)),
            "{\"b\":1,\"torch_dtype\":\"bfloat16\",\"a\":2}"
        );
        assert_eq!(
            compact(of("{\"text_config\": {\"dtype\": \"x\"}}", SaveAs::F32)),
            "{\"text_config\":{\"dtype\":\"float32\"},\"dtype\":\"float32\"}"
        );
    }
}
