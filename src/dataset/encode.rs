//! From a dataset's inputs to token ids of a model, with every error at its file, line and field.

use super::{Dataset, Input, TokenRef};
use crate::model::Model;
use crate::model::template::Message;
use crate::model::tokenizer::{Ending, Tokenizer, TokenizerError};
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An input that a model cannot read.
#[derive(Debug, thiserror::Error)]
#[error("{}: line {line}: field \"{field}\" of \"{id}\": {why}", path.display())]
pub struct EncodeError {
    pub path: PathBuf,
    pub line: usize,
    pub id: String,
    pub field: &'static str,
    pub why: String,
}

/// Where an input stands, for messages.
#[derive(Clone, Copy)]
pub struct At<'a> {
    pub path: &'a Path,
    pub line: usize,
    pub id: &'a str,
    pub field: &'static str,
}

impl At<'_> {
    /// An error here.
    pub fn error(self, why: impl Into<String>) -> EncodeError {
        let At { path, line, id, field } = self;
        EncodeError { path: path.to_path_buf(), line, id: id.to_string(), field, why: why.into() }
    }
}

impl<T> Dataset<T> {
    /// Where a field of an item of this dataset stands.
    pub fn at<'a>(&'a self, line: usize, id: &'a str, field: &'static str) -> At<'a> {
        At { path: &self.path, line, id, field }
    }
}

/// The token ids of an input: a user's message goes through the chat template, if the model has one.
///
/// # Errors
/// If the model has no tokenizer or no template where one is needed, or the result is empty, longer than the model's
/// context, or holds an id that the model has not.
pub fn prompt_ids(model: &Model, input: &Input, at: At) -> Result<Vec<u32>, EncodeError> {
    check(model, unchecked_ids(model, input, at)?, at)
}

/// [`prompt_ids`] of any number and length: for prompts that are made, where what is too long is left out.
///
/// # Errors
/// If the model has no tokenizer or no template where one is needed.
pub fn unchecked_ids(model: &Model, input: &Input, at: At) -> Result<Vec<u32>, EncodeError> {
    if let Input::Ids(ids) = input {
        return Ok(ids.clone());
    }
    let failed = |e: &dyn std::fmt::Display| at.error(e.to_string());
    let tokenizer = model.tokenizer().map_err(|e| failed(&e))?;
    let ids = match (input, rendered(tokenizer, input).map_err(|e| failed(&e))?) {
        (_, Some(text)) => tokenizer.encode(&text, false),
        (Input::User { text, .. }, None) => tokenizer.encode(text, true),
        (Input::Text { text, special_tokens }, None) => tokenizer.encode(text, *special_tokens),
        (Input::Messages { .. } | Input::Ids(_), None) => Ok(Vec::new()),
    };
    ids.map_err(|e| failed(&e))
}

/// The text that the chat template makes of an input; none for what goes through no template.
///
/// # Errors
/// If there is a template that cannot be used, none where one is needed, or one that refuses the conversation.
pub fn rendered(tokenizer: &Tokenizer, input: &Input) -> Result<Option<String>, TokenizerError> {
    match input {
        Input::User { text, vars } if tokenizer.template()?.is_some() => {
            tokenizer.render(&[Message::user(text.as_str())], Ending::Opened, vars).map(Some)
        }
        Input::Messages { messages, go_on, vars } => {
            let of_assistant = messages.last().is_some_and(|message| message.role() == "assistant");
            let ending = if go_on.unwrap_or(of_assistant) { Ending::GoneOnWith } else { Ending::Opened };
            tokenizer.render(messages, ending, vars).map(Some)
        }
        Input::User { .. } | Input::Text { .. } | Input::Ids(_) => Ok(None),
    }
}

fn check(model: &Model, ids: Vec<u32>, at: At) -> Result<Vec<u32>, EncodeError> {
    let arch = &model.decoder.arch;
    if ids.is_empty() {
        return Err(at.error("has no tokens"));
    }
    if ids.len() > arch.n_ctx {
        return Err(at.error(format!(
            "is {} tokens long; the model's context is {}: shorten it",
            ids.len(),
            arch.n_ctx
        )));
    }
    in_vocabulary(model, &ids).map_err(|why| at.error(why))?;
    Ok(ids)
}

/// The ids of answer or foil tokens, each once: two spellings of one token would count it twice.
///
/// # Errors
/// What is wrong, if a string has no token or an id is out of range.
pub fn token_ids(model: &Model, tokens: &[TokenRef]) -> Result<Vec<u32>, String> {
    let mut ids = Vec::with_capacity(tokens.len());
    for token in tokens {
        let id = match token {
            TokenRef::Id(id) => *id,
            TokenRef::Text(text) => {
                let tokenizer = model.tokenizer().map_err(|e| e.to_string())?;
                tokenizer.first_token(text).map_err(|e| e.to_string())?
            }
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    in_vocabulary(model, &ids)?;
    Ok(ids)
}

fn in_vocabulary(model: &Model, ids: &[u32]) -> Result<(), String> {
    let vocab = model.decoder.arch.vocab;
    match ids.iter().find(|id| **id as usize >= vocab) {
        Some(id) => Err(format!("token id {id} is out of range; the model has ids 0 to {}", vocab - 1)),
        None => Ok(()),
    }
}

/// As flags have it: a string of which the first token counts, or `id:N`.
impl FromStr for TokenRef {
    type Err = String;

    fn from_str(flag: &str) -> Result<Self, String> {
        match flag.strip_prefix("id:") {
            Some(id) => id.parse().map(TokenRef::Id).map_err(|_| {
                let text = "a text that begins with `id:` can stand in the dataset alone";
                format!("a token id is a whole number, as in id:12; {text}")
            }),
            None if flag.is_empty() => Err("a token is a text that is not empty, or id:N".to_owned()),
            None => Ok(TokenRef::Text(flag.to_owned())),
        }
    }
}

impl fmt::Display for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenRef::Id(id) => write!(f, "id:{id}"),
            TokenRef::Text(text) => f.write_str(text),
        }
    }
}

/// As the flag that gives it, in which form a record has it.
impl Serialize for TokenRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for TokenRef {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        crate::parameters::from_text(d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;
    use crate::model::Options;

    fn model() -> Model {
        Model::open(demo::NAME, &Options::default()).unwrap()
    }

    #[test]
    fn a_flag_is_a_text_or_an_id_and_is_recorded_as_it_was_given() {
        for (flag, token) in [
            ("id:12", TokenRef::Id(12)),
            (" Sorry", TokenRef::Text(" Sorry".to_owned())),
            ("ID:5", TokenRef::Text("ID:5".to_owned())),
        ] {
            assert_eq!(flag.parse(), Ok(token.clone()));
            assert_eq!(serde_json::to_value(token).unwrap(), flag);
        }
        for wrong in ["id:12a", "id:5,6", "id:-1", "id: 7", "id:", "id:4294967296"] {
            let why = wrong.parse::<TokenRef>().unwrap_err();
            assert!(why.contains("whole number"), "{wrong}: {why}");
        }
        assert!("".parse::<TokenRef>().is_err());
    }

    #[test]
    fn two_spellings_of_one_token_are_one() {
        let model = model();
        let id = model.tokenizer().unwrap().first_token(" sorry").unwrap();
        let spellings = [TokenRef::Text(" sorry".to_owned()), TokenRef::Id(id), TokenRef::Id(id + 1)];
        assert_eq!(token_ids(&model, &spellings), Ok(vec![id, id + 1]));
        assert_eq!(token_ids(&model, &[]), Ok(vec![]));
    }

    #[test]
    fn a_token_has_no_length_and_a_prompt_has_one() {
        let model = model();
        let (n, at) = (model.decoder.arch.n_ctx, At { path: Path::new("f"), line: 1, id: "p", field: "prompt" });
        let many: Vec<TokenRef> = (0..=n).map(|_| TokenRef::Id(0)).collect();
        assert_eq!(token_ids(&model, &many), Ok(vec![0]));
        let why = prompt_ids(&model, &Input::Ids(vec![0; n + 1]), at).unwrap_err().to_string();
        assert!(why.starts_with("f: line 1: ") && why.contains("shorten it"), "{why}");
        let vocab = model.decoder.arch.vocab as u32;
        let beyond = token_ids(&model, &[TokenRef::Id(vocab)]).unwrap_err();
        assert_eq!(beyond, format!("token id {vocab} is out of range; the model has ids 0 to {}", vocab - 1));
        let why = prompt_ids(&model, &Input::Ids(vec![vocab]), at).unwrap_err().why;
        assert_eq!(why, beyond);
    }
}
