//! Conversations to text and ids, through the model's chat template.

use super::{Tokenizer, TokenizerError};
use crate::model::template::{Message, MessageError};
use serde_json::{Map, Value};

/// What marks the end of a message that is gone on with, while it is rendered: `transformers`' own mark.
const MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";
/// The names by which files and templates know a message's thoughts; the first that is there counts.
const THOUGHTS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// How the text of a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// An assistant's turn is opened: the generation prompt.
    Opened,
    /// The last message is not closed, so that the model goes on with it (*prefill*).
    GoneOnWith,
    /// As the template ends it.
    Closed,
}

impl Tokenizer {
    /// The ids of a conversation: the chat template's text, encoded without adding special tokens,
    /// as `apply_chat_template(tokenize=True)` does. What BOS there is, is the template's; it is never
    /// doubled.
    ///
    /// # Errors
    /// [`TokenizerError::NoTemplate`] where the model has none, [`TokenizerError::Template`] where it
    /// cannot be used or refuses the conversation, and those of [`Tokenizer::encode`].
    pub fn encode_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<u32>, TokenizerError> {
        self.encode(&self.render_chat(messages, add_generation_prompt)?, false)
    }

    /// The text of a conversation, as the chat template writes it.
    ///
    /// # Errors
    /// [`TokenizerError::NoTemplate`] or [`TokenizerError::Template`].
    pub fn render_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TokenizerError> {
        let ending = if add_generation_prompt { Ending::Opened } else { Ending::Closed };
        self.render(messages, ending, &Map::new())
    }

    /// The text of a conversation with an ending of its own. `vars` are variables of the template, before those that the
    /// tokenizer was given for all conversations ([`Tokenizer::with_vars`]). What an assistant thought reaches the template
    /// as `reasoning_content` and as `thinking`, whichever of them (or `reasoning`) a message has, as in `transformers`.
    ///
    /// # Errors
    /// [`TokenizerError::NoTemplate`] or [`TokenizerError::Template`]; [`TokenizerError::Unfinished`] for a last message
    /// that cannot be gone on with.
    pub fn render(
        &self,
        messages: &[Message],
        ending: Ending,
        vars: &Map<String, Value>,
    ) -> Result<String, TokenizerError> {
        if self.is_planned() {
            let said = messages.iter().map(|message| Value::Object(message.fields().clone()).to_string());
            return Ok(said.collect::<Vec<_>>().join("\n"));
        }
        let template = self.template()?.ok_or_else(|| TokenizerError::NoTemplate { path: self.path.clone() })?;
        let mut all = self.vars.clone();
        all.extend(vars.iter().map(|(key, value)| (key.clone(), value.clone())));
        let write = |messages: &[Message]| {
            let messages: Vec<Message> = messages.iter().map(with_thoughts).collect();
            let text = template.render(&messages, ending == Ending::Opened, &all);
            text.map_err(|source| TokenizerError::Template { path: self.path.clone(), source })
        };
        if ending != Ending::GoneOnWith {
            return write(messages);
        }
        let unfinished = |why: &str| TokenizerError::Unfinished { path: self.path.clone(), why: why.to_owned() };
        let (last, before) = messages.split_last().ok_or_else(|| unfinished("there is none"))?;
        let (marked, said) =
            marked(last).ok_or_else(|| unfinished("it has no text; leave it out, and an answer is begun"))?;
        let text = write(&[before, &[marked.map_err(|e| unfinished(&e.to_string()))?]].concat())?;
        let whole = unclosed(&text).filter(|_| text.contains(said.trim()));
        whole.ok_or_else(|| unfinished("the chat template leaves its text out, or writes it otherwise"))
    }
}

/// The message with its thoughts, if it has some, under both names that templates read them by.
fn with_thoughts(message: &Message) -> Message {
    let given = |name: &&str| message.fields().get(*name).filter(|value| !value.is_null());
    let Some(thoughts) = THOUGHTS.iter().find_map(given) else { return message.clone() };
    // Where the message has a field, it keeps its place among the others: templates write whole messages.
    let mut fields = Map::from_iter([("thinking".to_owned(), thoughts.clone())]);
    fields.extend(message.fields().clone());
    fields.insert("reasoning_content".to_owned(), thoughts.clone());
    Message::from_fields(fields).unwrap_or_else(|_| message.clone())
}

/// The message with a mark behind its last text, if it has one, and that text.
fn marked(message: &Message) -> Option<(Result<Message, MessageError>, String)> {
    let mut fields = message.fields().clone();
    let text = match fields.get_mut("content")? {
        Value::Array(parts) => parts.iter_mut().rev().find_map(|part| part.get_mut("text"))?,
        text => text,
    };
    let said = text.as_str().filter(|text| !text.trim().is_empty())?.to_owned();
    *text = Value::String(format!("{said}{MARK}"));
    Some((Message::from_fields(fields), said))
}

/// The text before the mark, as `continue_final_message` of `transformers` cuts it: where the template trimmed the mark's
/// space, it trims the message's, too.
fn unclosed(text: &str) -> Option<String> {
    let at = text.rfind(MARK.trim_end())?;
    let before = &text[..at];
    let kept = if text[at..].starts_with(MARK) { before } else { before.trim_end() };
    Some(kept.to_owned())
}
