//! The tokens that end a turn: at which generation stops.
//!
//! A checkpoint says it in several places, of which none is always right: `generation_config.json`, `config.json`, the
//! metadata of a GGUF file, and the tokens of its tokenizer. What any of them says counts.

use super::files::{LARGEST_CONFIG, read_bounded};
use super::gguf::Gguf;
use super::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::Path;

/// Tokens that end a turn in the chat formats in use. Some files forget to say that they are special.
const ENDS_OF_TURN: [&str; 7] =
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"];

/// The end of a text in many vocabularies, and a piece of HTML in others, in which it is not special.
const END: &str = "</s>";

/// Keys of a GGUF file that name such tokens.
const KEYS: [&str; 3] = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// What a folder's configurations name, and what is wrong with them, which does not keep the model from being used.
/// `config` is the `eos_token_id` of `config.json`.
pub(super) fn of_folder(dir: &Path, config: Option<&Value>) -> (Vec<u32>, Vec<String>) {
    const GENERATION: &str = "generation_config.json";
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    let generation = generation(&dir.join(GENERATION)).and_then(|config| named(config.get("eos_token_id")));
    for (name, ids) in [(GENERATION, generation), ("config.json", named(config))] {
        match ids {
            Ok(ids) => found.extend(ids),
            Err(why) => warnings.push(format!("{name}: {why}; generation may not stop where it should")),
        }
    }
    (found, warnings)
}

/// `generation_config.json`; null where there is none.
fn generation(path: &Path) -> Result<Value, String> {
    match read_bounded(path, LARGEST_CONFIG).map_err(|e| e.to_string())? {
        None => Ok(Value::Null),
        Some(text) => serde_json::from_slice(&text).map_err(|e| format!("not JSON: {e}")),
    }
}

/// What an `eos_token_id` names: one token or several.
fn named(found: Option<&Value>) -> Result<Vec<u32>, String> {
    let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    let found = match found {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(one) => id(one).map(|id| vec![id]),
    };
    found.ok_or_else(|| "`eos_token_id` is neither a token id nor a list of them".to_string())
}

/// What a GGUF file's metadata name.
pub(super) fn of_gguf(gguf: &Gguf) -> (Vec<u32>, Vec<String>) {
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for key in KEYS {
        match gguf.opt_u64(key).map(|id| id.map(u32::try_from)) {
            Ok(None) => {}
            Ok(Some(Ok(id))) => found.push(id),
            Ok(Some(Err(_))) => {
                warnings.push(format!("`{key}` is no token id; generation may not stop where it should"))
            }
            Err(e) => warnings.push(format!("{e}; generation may not stop where it should")),
        }
    }
    (found, warnings)
}

/// Those named, the end of a text by the tokenizer, and its tokens that end a turn, ascending; of a vocabulary of
/// `vocab`.
pub(super) fn joined(named: Vec<u32>, tokenizer: Option<&Tokenizer>, vocab: usize) -> Vec<u32> {
    let mut found = named;
    if let Some(tokenizer) = tokenizer {
        found.extend(tokenizer.eos());
        found.extend(ENDS_OF_TURN.iter().filter_map(|piece| tokenizer.id(piece)));
        found.extend(tokenizer.id(END).filter(|id| tokenizer.is_special(*id)));
    }
    found.retain(|id| (*id as usize) < vocab);
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf_builder::{GgufBuilder, Meta};
    use serde_json::json;

    fn folder(generation: Option<&str>, config: &Value) -> (Vec<u32>, Vec<String>) {
        let dir = tempfile::tempdir().expect("a folder");
        if let Some(text) = generation {
            std::fs::write(dir.path().join("generation_config.json"), text).expect("a file");
        }
        of_folder(dir.path(), config.get("eos_token_id"))
    }

    #[test]
    fn a_folder_names_one_token_or_several_in_either_file() {
        let (ids, warnings) = folder(Some(r#"{"eos_token_id": [7, 5]}"#), &json!({"eos_token_id": 9}));
        assert_eq!((ids, warnings.len()), (vec![7, 5, 9], 0));
        assert_eq!(folder(None, &json!({"eos_token_id": null})), (vec![], vec![]));
        assert_eq!(folder(Some("{}"), &json!({})), (vec![], vec![]));
    }

    #[test]
    fn what_cannot_be_read_is_a_warning_that_names_it() {
        let (ids, warnings) = folder(Some(r#"{"eos_token_id": "x"}"#), &json!({"eos_token_id": 9}));
        assert_eq!(ids, [9]);
        assert!(warnings[0].contains("generation_config.json") && warnings[0].contains("eos_token_id"), "{warnings:?}");
        let (_, warnings) = folder(Some("{"), &json!({"eos_token_id": -1}));
        assert!(warnings[0].contains("not JSON") && warnings[1].starts_with("config.json: "), "{warnings:?}");
    }

    #[test]
    fn a_gguf_files_keys_and_the_tokenizers_marks_count_but_not_html() {
        let pieces = ["<unk>", "</s>", "<|im_end|>", "<|eot_id|>", "a", "<|end|>"];
        let builder = GgufBuilder::new()
            .key("tokenizer.ggml.model", "llama")
            .key("tokenizer.ggml.tokens", Meta::Strs(pieces.iter().map(|p| p.to_string()).collect()))
            .key("tokenizer.ggml.token_type", Meta::I32s(vec![2, 1, 3, 4, 1, 3]))
            .key("tokenizer.ggml.scores", Meta::F32s(vec![0.0; 6]))
            .key("tokenizer.ggml.eos_token_id", Meta::U32(2))
            .key("tokenizer.ggml.eot_token_id", Meta::U32(4));
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("m.gguf");
        builder.write(&path);
        let gguf = Gguf::open(&path).expect("a sound file");
        let (ids, warnings) = of_gguf(&gguf);
        assert_eq!((ids.as_slice(), warnings.len()), ([2, 4].as_slice(), 0));
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
        assert_eq!(joined(ids.clone(), Some(&tokenizer), 6), [2, 3, 4, 5]);
        assert_eq!(joined(ids, Some(&tokenizer), 5), [2, 3, 4]);
        assert_eq!(joined(vec![9, 1], None, 5), [1]);
    }
}
