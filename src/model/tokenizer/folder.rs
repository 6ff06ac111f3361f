//! The tokenizer of a Hugging Face folder.

use std::path::Path;

use serde_json::Value;

use super::{Ends, Parts, TokenizerError, guarded};
use crate::model::files::{LARGEST_CONFIG, read_bounded};
use crate::model::template::{ChatTemplate, LONGEST_SOURCE};

/// The largest `tokenizer.json`; those of vocabularies of 256,000 tokens have some 35 MB.
const LARGEST_TOKENIZER: u64 = 256 << 20;

/// Reads what the folder has.
pub(super) fn read(dir: &Path) -> Result<Parts, TokenizerError> {
    let path = dir.join("tokenizer.json");
    let Some(bytes) = read_file(&path, LARGEST_TOKENIZER)? else {
        return Err(TokenizerError::NoTokenizer { path: dir.to_owned() });
    };
    let malformed = |why| TokenizerError::Malformed { path: path.clone(), what: "not a tokenizer".to_owned(), why };
    let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(malformed)?;
    // A file may ask for texts to be cut or padded, which transformers ignores unless asked to.
    inner.with_padding(None);
    guarded(|| inner.with_truncation(None).map(drop)).map_err(malformed)?;

    let config = Config::read(dir)?;
    let bos_text = config.token("bos_token");
    let eos_text = config.token("eos_token");
    let id = |text: &Option<String>| text.as_deref().and_then(|text| inner.token_to_id(text));
    let (bos, eos) = (id(&bos_text), id(&eos_text));
    let (ends, warnings) = ends(&inner, &config, bos, eos).map_err(malformed)?;
    let template = template_source(dir, &config)?.map(|source| {
        let special = |(name, text): (&str, Option<String>)| Some((name.to_owned(), text?));
        let specials = [("bos_token", bos_text), ("eos_token", eos_text)].into_iter().filter_map(special).collect();
        ChatTemplate::new(&source, &specials)
    });
    Ok(Parts { inner, bos, eos, ends, template, warnings })
}

/// `tokenizer_config.json`; empty where there is none.
struct Config(Value);

impl Config {
    fn read(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer_config.json");
        let Some(bytes) = read_file(&path, LARGEST_CONFIG)? else {
            return Ok(Self(Value::Null));
        };
        let malformed =
            |why: String| TokenizerError::Malformed { path: path.clone(), what: "not a JSON object".to_owned(), why };
        match serde_json::from_slice(&bytes) {
            Ok(object @ Value::Object(_)) => Ok(Self(object)),
            Ok(_) => Err(malformed("it holds another value".to_owned())),
            Err(error) => Err(malformed(error.to_string())),
        }
    }

    /// A special token's text, given as a string or as an object with its `content`.
    fn token(&self, key: &str) -> Option<String> {
        let token = self.0.get(key)?;
        token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
    }

    /// Whether `add_bos_token` and `add_eos_token` decide over the post-processing in `tokenizer.json`, also to say no.
    /// transformers 4 rebuilds it for these classes.
    fn class_decides(&self) -> bool {
        let class = self.0.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        ["Llama", "CodeLlama", "Gemma", "Cohere"].iter().any(|family| class.starts_with(family))
    }

    /// The chat template: a string, or a list of named ones, of which `default` is taken.
    fn template(&self) -> Option<&str> {
        let template = self.0.get("chat_template")?;
        template.as_str().or_else(|| {
            let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
            template.as_array()?.iter().find(named)?.get("template")?.as_str()
        })
    }
}

/// Holds the inner tokenizer's own post-processing against `add_bos_token` and `add_eos_token`, and says where they differ.
fn ends(
    inner: &tokenizers::Tokenizer,
    config: &Config,
    bos: Option<u32>,
    eos: Option<u32>,
) -> Result<(Ends, Vec<String>), String> {
    let empty = guarded(|| inner.encode_fast("", true))?;
    let ids = empty.get_ids();
    let begun = bos.is_some() && ids.first().copied() == bos;
    // Where one token is both, a single one is the first.
    let ended = eos.is_some() && ids.len() > usize::from(begun) && ids.last().copied() == eos;
    let decides = config.class_decides();
    let [wants_bos, wants_eos] =
        ["add_bos_token", "add_eos_token"].map(|key| config.0.get(key).and_then(Value::as_bool));
    let ends = Ends {
        before: bos.filter(|_| wants_bos == Some(true) && !begun),
        after: eos.filter(|_| wants_eos == Some(true) && !ended && decides),
        drop_first: wants_bos == Some(false) && begun && decides,
        drop_last: wants_eos == Some(false) && ended && decides,
    };
    let differ = [
        ("add_bos_token", ends.before.is_some() || ends.drop_first),
        ("add_eos_token", ends.after.is_some() || ends.drop_last),
    ];
    let warning = |key: &str| {
        format!(
            "`{key}` in tokenizer_config.json is not what tokenizer.json does; it is followed, as in transformers 4 \
             (transformers 5 follows tokenizer.json)"
        )
    };
    Ok((ends, differ.iter().filter(|(_, differ)| *differ).map(|(key, _)| warning(key)).collect()))
}

fn template_source(dir: &Path, config: &Config) -> Result<Option<String>, TokenizerError> {
    let path = dir.join("chat_template.jinja");
    let Some(bytes) = read_file(&path, LONGEST_SOURCE as u64)? else {
        return Ok(config.template().map(str::to_owned));
    };
    String::from_utf8(bytes).map(Some).map_err(|error| TokenizerError::Malformed {
        path,
        what: "not UTF-8".to_owned(),
        why: error.to_string(),
    })
}

fn read_file(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, TokenizerError> {
    read_bounded(path, limit).map_err(|source| TokenizerError::Io { path: path.to_owned(), source })
}
