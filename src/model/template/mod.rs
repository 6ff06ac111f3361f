//! Chat templates: a model's own Jinja program that turns a conversation into the text it was trained on.
//!
//! The program comes with the checkpoint, so it is someone else's: its steps, its output and the sizes
//! it may ask for are bounded, and it can reach nothing but what is passed to it. What it is given and how it is
//! rendered follows Hugging Face's `apply_chat_template`. Encoding the text is left to the tokenizer.

#[cfg(test)]
mod against_python;
mod date;
mod jinja;
mod message;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use serde_json::{Map, Value as Json};

pub use date::Day;
use jinja::{Bounds, ErrorKind, Program};
pub use message::{Message, MessageError};

/// The longest template that is accepted, in bytes. The longest in use have some tens of thousands.
pub const LONGEST_SOURCE: usize = 1 << 20;
/// The longest text that a template may produce, in bytes.
pub const LONGEST_OUTPUT: usize = 16 << 20;
/// Steps of the template's program. A conversation of a hundred messages takes some tens of thousands.
const FUEL: usize = 2_000_000;

/// Why a chat template could not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TemplateError {
    /// The source is longer than any template in use by far.
    #[error("the chat template has {bytes} bytes; {LONGEST_SOURCE} is the most")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The source is no Jinja that is understood.
    #[error(
        "the chat template has an error in line {line}: {why}; \
         give the prompts as {{\"text\": ...}} to do without it"
    )]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        why: String,
    },
    /// A variable has the name of one that the conversation gives.
    #[error("the template variable `{name}` cannot be given: it comes from the conversation")]
    Reserved {
        /// The name.
        name: String,
    },
    /// The template itself refused the conversation with `raise_exception`.
    #[error("the chat template refuses this conversation: {message}")]
    Raised {
        /// Its words.
        message: String,
    },
    /// The template did not end within its allowance of steps.
    #[error(
        "the chat template took more than {FUEL} steps for {messages} messages: \
         it loops without end, or the conversation is too long"
    )]
    Endless {
        /// How many messages it was given.
        messages: usize,
    },
    /// The template writes without end.
    #[error("the chat template wrote more than {LONGEST_OUTPUT} bytes for {messages} messages")]
    Flood {
        /// How many messages it was given.
        messages: usize,
    },
    /// The template failed while it ran.
    #[error("the chat template failed in line {line}: {why}")]
    Failed {
        /// The line, from 1; 0 where it is not known.
        line: usize,
        /// What went wrong.
        why: String,
    },
}

/// A chat template, ready to render.
///
/// ```
/// # use gatelens::model::template::{ChatTemplate, Message};
/// # use serde_json::Map;
/// let source = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}";
/// let specials = [("bos_token".to_owned(), "<s>".to_owned())].into();
/// let template = ChatTemplate::new(source, &specials)?;
/// assert_eq!(template.render(&[Message::user(" hi ")], true, &Map::new())?, "<s><user>hi");
/// # Ok::<(), gatelens::model::template::TemplateError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    program: Arc<Program>,
    /// The texts of the special tokens, by the variables' names.
    specials: BTreeMap<String, String>,
    /// Whether the template asks for the date.
    dated: bool,
    /// The day that it takes for today.
    day: Day,
}

impl ChatTemplate {
    /// Compiles `source`. `specials` are the texts of the model's special tokens by the names that a template knows
    /// them by: `bos_token`, `eos_token`, `pad_token`, `image_token`. One that the model has not is left out, and
    /// undefined in the template.
    ///
    /// # Errors
    /// [`TemplateError::TooLong`], or [`TemplateError::Syntax`] with the line.
    pub fn new(source: &str, specials: &BTreeMap<String, String>) -> Result<Self, TemplateError> {
        if source.len() > LONGEST_SOURCE {
            return Err(TemplateError::TooLong { bytes: source.len() });
        }
        let program = on_deep_stack(|| Program::parse(source));
        let program = program.map_err(|error| TemplateError::Syntax { line: error.line, why: error.words() })?;
        let dated = source.contains("strftime_now");
        Ok(Self { program: Arc::new(program), specials: specials.clone(), dated, day: Day::default() })
    }

    /// Takes another day for today than [`Day::default`]. The clock is never asked: a template that writes the date
    /// renders the same text every day.
    #[must_use]
    pub fn at(mut self, day: Day) -> Self {
        self.day = day;
        self
    }

    /// The day that the template takes for today; none where it does not ask.
    pub fn date(&self) -> Option<Day> {
        self.dated.then_some(self.day)
    }

    /// The text for a conversation, special tokens and all. `add_generation_prompt` asks for the words
    /// that open the assistant's turn. `variables` are what else the template is told, such as `enable_thinking` or
    /// `tools`; they go before special tokens of the same name.
    ///
    /// # Errors
    /// [`TemplateError::Raised`] where the template refuses the conversation, [`TemplateError::Endless`]
    /// and [`TemplateError::Flood`] where it exceeds its bounds, [`TemplateError::Reserved`] for a variable that the
    /// conversation gives, [`TemplateError::Failed`] otherwise.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &Map<String, Json>,
    ) -> Result<String, TemplateError> {
        let conversation = self.conversation(messages, add_generation_prompt);
        if let Some(name) = conversation.keys().find(|name| variables.contains_key(*name)) {
            return Err(TemplateError::Reserved { name: name.clone() });
        }
        let text = |text: &String| Json::String(text.clone());
        let specials = self.specials.iter().map(|(name, special)| (name.clone(), text(special))).collect();
        // Present and none, as Hugging Face passes them: templates ask `is defined` and `is none`.
        let absent = ["tools", "documents"].map(|name| (name.to_owned(), Json::Null)).into_iter().collect();
        let bounds = Bounds { steps: FUEL, output: LONGEST_OUTPUT };
        let rendered =
            on_deep_stack(|| self.program.run(&[&absent, &specials, variables, &conversation], self.day, &bounds));
        rendered.map_err(|error| match error.kind {
            ErrorKind::Raised(message) => TemplateError::Raised { message },
            ErrorKind::Endless => TemplateError::Endless { messages: messages.len() },
            ErrorKind::Flood => TemplateError::Flood { messages: messages.len() },
            ErrorKind::Failed(why) => TemplateError::Failed { line: error.line, why },
        })
    }

    /// What the conversation gives by name.
    fn conversation(&self, messages: &[Message], add_generation_prompt: bool) -> Map<String, Json> {
        let messages = messages.iter().map(|message| Json::Object(message.fields().clone())).collect();
        let given = [("messages", messages), ("add_generation_prompt", Json::Bool(add_generation_prompt))];
        given.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
    }
}

/// Runs what may nest deep on a stack that is made for it. A template must not be able to end the program: a panic there is
/// an error here.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, jinja::Error> + Send) -> Result<T, jinja::Error> {
    let gave_up = |why: &str| jinja::Error { line: 0, kind: ErrorKind::Failed(why.to_owned()) };
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(jinja::STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| gave_up(&format!("no thread can be started for it: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(gave_up("the template engine gave up")))
    })
}
