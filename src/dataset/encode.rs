//! From a dataset's inputs to token ids of a model, with every error at its file, line and field.

use super::{Dataset, Input, TokenRef};
use crate::model::Model;
use std::path::{Path, PathBuf};

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
    let failed = |e: &dyn std::fmt::Display| at.error(e.to_string());
    Ok(match input {
        Input::Ids(ids) => ids.clone(),
        Input::Text(text) => model.tokenizer().map_err(|e| failed(&e))?.encode(text, true).map_err(|e| failed(&e))?,
        Input::User(text) => {
            let tokenizer = model.tokenizer().map_err(|e| failed(&e))?;
            let has_template = tokenizer.template().map_err(|e| failed(&e))?.is_some();
            let message = crate::model::template::Message::user(text.as_str());
            let ids = if has_template { tokenizer.encode_chat(&[message], true) } else { tokenizer.encode(text, true) };
            ids.map_err(|e| failed(&e))?
        }
        Input::Messages(messages) => {
            let tokenizer = model.tokenizer().map_err(|e| failed(&e))?;
            if tokenizer.template().map_err(|e| failed(&e))?.is_none() {
                return Err(at.error("the model has no chat template; give the prompt as {\"text\": ...}"));
            }
            tokenizer.encode_chat(messages, true).map_err(|e| failed(&e))?
        }
    })
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
    match ids.iter().find(|id| **id as usize >= arch.vocab) {
        Some(id) => Err(at.error(format!("token id {id} is out of range; the model has ids 0 to {}", arch.vocab - 1))),
        None => Ok(ids),
    }
}

/// The ids of answer or foil tokens: an item's own, or those of the command's flags. A flag is a string of which the
/// first token counts, or `id:N`.
///
/// # Errors
/// If neither gives any, a string has no token, or an id is out of range.
pub fn token_ids(model: &Model, own: &[TokenRef], flags: &[String], at: At) -> Result<Vec<u32>, EncodeError> {
    let given: Vec<TokenRef> =
        if own.is_empty() { flags.iter().map(|f| flag_token(f)).collect() } else { own.to_vec() };
    if given.is_empty() {
        return Err(at.error(format!("is not given; add it to the line, or give --{} for all lines", at.field)));
    }
    let mut ids = Vec::with_capacity(given.len());
    for token in &given {
        let id = match token {
            TokenRef::Id(id) => *id,
            TokenRef::Text(text) => {
                let tokenizer = model.tokenizer().map_err(|e| at.error(e.to_string()))?;
                tokenizer.first_token(text).map_err(|e| at.error(e.to_string()))?
            }
        };
        // Two spellings of one token would count it twice.
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    check(model, ids, at)
}

fn flag_token(flag: &str) -> TokenRef {
    match flag.strip_prefix("id:").and_then(|n| n.parse().ok()) {
        Some(id) => TokenRef::Id(id),
        None => TokenRef::Text(flag.to_string()),
    }
}
