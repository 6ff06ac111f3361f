//! What the files beside `tokenizer.json` add to it: `tokenizer_config.json`, `special_tokens_map.json` and
//! `added_tokens.json`.
//!
//! A chat token that only one of these files names is a token all the same: without it, text that the template writes would
//! be cut into pieces that the model never saw. The rules are those of `transformers` 5 (`from_pretrained` in
//! `tokenization_utils_base.py`), but that an id which cannot be kept is an error here: there, the token silently gets
//! another.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::folder::read_file;
use super::{TokenizerError, guarded};
use crate::model::files::LARGEST_CONFIG;

const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";
const DECODER: &str = "added_tokens_decoder";

/// Lists of special tokens that have no name of their own.
const UNNAMED: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// The side files of a folder; empty where they are not there.
pub(super) struct Side<'a> {
    dir: &'a Path,
    pub config: Map<String, Value>,
    special: Map<String, Value>,
    added: Map<String, Value>,
}

/// A token that a side file names, with the file and the key, for messages.
struct Named {
    token: AddedToken,
    /// The id that the file gives it, if it gives one.
    id: Option<u32>,
    file: &'static str,
    key: String,
}

impl<'a> Side<'a> {
    /// Reads them.
    pub fn read(dir: &'a Path) -> Result<Self, TokenizerError> {
        Ok(Self {
            dir,
            config: object(&dir.join(CONFIG))?,
            special: object(&dir.join(SPECIAL))?,
            added: object(&dir.join(ADDED))?,
        })
    }

    /// A special token's text. `special_tokens_map.json` counts first only for checkpoints from before
    /// `added_tokens_decoder`.
    pub fn token(&self, key: &str) -> Option<String> {
        let both = [&self.config, &self.special];
        let order = if self.config.contains_key(DECODER) { both } else { [both[1], both[0]] };
        order.into_iter().find_map(|file| text_of(file.get(key)?))
    }

    /// Every named special token (`bos_token`, `pad_token`, `image_token`, ...) with its text, by its name: what a chat
    /// template may write.
    pub fn specials(&self) -> BTreeMap<String, String> {
        let of_extra = self.config.get("extra_special_tokens").and_then(Value::as_object);
        let names = self.config.keys().chain(self.special.keys()).filter(|key| key.ends_with("_token"));
        let named = names.filter_map(|key| Some((key.clone(), self.token(key)?)));
        let extra = of_extra.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), text_of(value)?)));
        extra.chain(named).collect()
    }

    /// Gives the tokenizer every token that the files name and that it has not, each under the id that they say; and has
    /// those that it has matched as the files say.
    ///
    /// # Errors
    /// If a file is not of its form, or an id contradicts `tokenizer.json` or another file.
    pub fn add_to(&self, inner: &mut tokenizers::Tokenizer) -> Result<(), TokenizerError> {
        let (with_id, without): (Vec<Named>, Vec<Named>) =
            self.named()?.into_iter().partition(|named| named.id.is_some());
        let mut by_id: BTreeMap<u32, Named> = BTreeMap::new();
        for named in with_id {
            let Some(id) = named.id else { continue };
            self.check(inner, &named, id)?;
            match by_id.get(&id).filter(|first| first.token.content != named.token.content) {
                Some(first) => {
                    let (text, other) = (&named.token.content, &first.token.content);
                    let why = format!("id {id} is {text:?} there, and {other:?} in {}", first.file);
                    return Err(self.contradiction(&named, &why));
                }
                None => drop(by_id.entry(id).or_insert(named)),
            }
        }
        let stated: HashSet<&str> = by_id.values().map(|named| named.token.content.as_str()).collect();
        let known = inner.get_added_vocabulary().get_vocab();
        let new = without.iter().filter(|named| {
            let content = named.token.content.as_str();
            !stated.contains(content) && !known.contains_key(content)
        });
        // All at once: each addition builds the search for all tokens anew.
        let tokens: Vec<AddedToken> = by_id.values().chain(new).map(|named| named.token.clone()).collect();
        guarded(|| inner.add_tokens(tokens)).map_err(|why| TokenizerError::Malformed {
            path: self.dir.join(CONFIG),
            what: "special tokens".to_owned(),
            why,
        })?;
        for (id, named) in &by_id {
            let given = inner.token_to_id(&named.token.content);
            if let Some(given) = given.filter(|given| given != id) {
                let text = &named.token.content;
                let why =
                    format!("{text:?} has id {id} there, and the next free one is {given}: tokens between are missing");
                return Err(self.contradiction(named, &why));
            }
        }
        Ok(())
    }

    /// Holds a token's id to `tokenizer.json`.
    fn check(&self, inner: &tokenizers::Tokenizer, named: &Named, id: u32) -> Result<(), TokenizerError> {
        let content = &named.token.content;
        let why = match (inner.token_to_id(content), inner.id_to_token(id)) {
            (Some(found), _) if found != id => format!("{content:?} has id {id} there, and {found} in tokenizer.json"),
            (None, Some(other)) => format!("id {id} is {content:?} there, and {other:?} in tokenizer.json"),
            _ => return Ok(()),
        };
        Err(self.contradiction(named, &why))
    }

    fn contradiction(&self, named: &Named, why: &str) -> TokenizerError {
        TokenizerError::Malformed {
            path: self.dir.join(named.file),
            what: format!("`{}`", named.key),
            why: why.to_owned(),
        }
    }

    /// All tokens that the files name, those with ids first.
    fn named(&self) -> Result<Vec<Named>, TokenizerError> {
        let mut found = self.decoder()?;
        let named: HashSet<String> = self.specials().into_values().collect();
        let known: HashSet<String> = found.iter().map(|named| named.token.content.clone()).collect();
        let special: HashSet<String> = self.unnamed().map(|(_, _, token)| token.content).chain(named).collect();
        for (content, id) in &self.added {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| TokenizerError::Malformed {
                path: self.dir.join(ADDED),
                what: format!("{content:?}"),
                why: format!("expected the token's id, found {id}"),
            })?;
            if !known.contains(content) {
                let is_special = special.contains(content);
                let token = AddedToken::from(content.clone(), is_special).normalized(!is_special);
                found.push(Named { token, id: Some(id), file: ADDED, key: content.clone() });
            }
        }
        let unnamed = self.unnamed().map(|(file, key, token)| Named { token, id: None, file, key });
        let files = [(CONFIG, &self.config), (SPECIAL, &self.special)];
        let named = files.into_iter().flat_map(|(file, map)| {
            let tokens = map.iter().filter(|(key, _)| key.ends_with("_token"));
            tokens.filter_map(move |(key, value)| {
                Some(Named { token: token_of(value)?, id: None, file, key: key.clone() })
            })
        });
        found.extend(
            named.chain(unnamed).map(|named| Named { token: AddedToken { special: true, ..named.token }, ..named }),
        );
        Ok(found)
    }

    /// `added_tokens_decoder`: id to token.
    fn decoder(&self) -> Result<Vec<Named>, TokenizerError> {
        let malformed =
            |what: String, why: String| TokenizerError::Malformed { path: self.dir.join(CONFIG), what, why };
        let Some(decoder) = self.config.get(DECODER).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
        let entries = decoder.as_object();
        let entries = entries
            .ok_or_else(|| malformed(format!("`{DECODER}`"), "expected an object of ids and tokens".to_owned()))?;
        let read = |(id, value): (&String, &Value)| {
            let key = format!("{DECODER}.{id}");
            let wrong = || malformed(format!("`{key}`"), "expected an id and a token with its `content`".to_owned());
            let token = token_of(value).ok_or_else(wrong)?;
            Ok(Named { token, id: Some(id.parse().map_err(|_| wrong())?), file: CONFIG, key: key.clone() })
        };
        entries.iter().map(read).collect()
    }

    /// Special tokens of the lists, with the file and the key that they stand in.
    fn unnamed(&self) -> impl Iterator<Item = (&'static str, String, AddedToken)> + '_ {
        let lists = [(CONFIG, &self.config), (SPECIAL, &self.special)]
            .into_iter()
            .flat_map(|(file, map)| UNNAMED.into_iter().filter_map(move |key| Some((file, key, map.get(key)?))));
        lists.flat_map(|(file, key, list)| {
            let values: Vec<&Value> = match list {
                Value::Array(list) => list.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            };
            values.into_iter().filter_map(move |value| Some((file, key.to_owned(), token_of(value)?)))
        })
    }
}

/// A token's text, given as a string or as an object with its `content`.
fn text_of(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// A token with how it is matched, given as a string or as an object with its `content`.
fn token_of(value: &Value) -> Option<AddedToken> {
    let content = text_of(value).filter(|text| !text.is_empty())?;
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(value.is_string());
    Some(
        AddedToken::from(content, special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special)),
    )
}

/// The object that a JSON file holds; an empty one where there is no file.
pub(super) fn object(path: &Path) -> Result<Map<String, Value>, TokenizerError> {
    let Some(bytes) = read_file(path, LARGEST_CONFIG)? else {
        return Ok(Map::new());
    };
    let malformed =
        |why: String| TokenizerError::Malformed { path: path.to_owned(), what: "not a JSON object".to_owned(), why };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(malformed("it holds another value".to_owned())),
        Err(error) => Err(malformed(error.to_string())),
    }
}
