//! Chat templates: a model's own Jinja program that turns a conversation into the text it was trained on.
//!
//! The program comes with the checkpoint, so it is someone else's: its steps, its output and the sizes
//! it may ask for are bounded, and it can reach nothing but what is passed to it. What it is given and how it is
//! rendered follows Hugging Face's `apply_chat_template`. Encoding the text is left to the tokenizer.

mod date;
mod engine;
mod made;
mod message;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json};

pub use date::Day;
use engine::{Bounded, Raised};
pub use message::{Message, MessageError};

/// The longest template that is accepted, in bytes. The longest in use have some tens of thousands.
pub const LONGEST_SOURCE: usize = 1 << 20;
/// The longest text that a template may produce, in bytes.
pub const LONGEST_OUTPUT: usize = 16 << 20;
/// Steps of the template's program. A conversation of a hundred messages takes some tens of thousands.
const FUEL: u64 = 2_000_000;

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
    environment: Environment<'static>,
    /// The texts of the special tokens, by the variables' names.
    specials: BTreeMap<String, String>,
    /// Whether the template asks for the date.
    dated: bool,
    /// The day that it takes for today.
    day: Day,
}

/// The name under which the environment keeps the one template.
const NAME: &str = "chat_template";

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
        let mut environment = engine::environment();
        environment.set_fuel(Some(FUEL));
        environment.add_template_owned(NAME, made::counted(&engine::without_generation_tags(source))).map_err(
            |error| TemplateError::Syntax { line: error.line().unwrap_or(0), why: engine::describe(&error) },
        )?;
        let dated = source.contains("strftime_now");
        Ok(Self { environment, specials: specials.clone(), dated, day: Day::default() })
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
        let context = self.context(messages, add_generation_prompt, variables)?;
        let mut out = Bounded::new(LONGEST_OUTPUT);
        // The engine asserts in places (a width that overflows, say). A template must not be able to
        // end the program with that.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let template = self.environment.get_template(NAME)?;
            template.render_captured_to(context, &mut out).map(drop)
        }));
        match outcome {
            Ok(Ok(())) => out.into_text().ok_or_else(|| failure(0, "it wrote invalid UTF-8")),
            Ok(Err(_)) if out.is_full() => Err(TemplateError::Flood { messages: messages.len() }),
            Ok(Err(error)) => Err(refusal(&error, messages.len())),
            Err(_) => Err(failure(0, "the template engine gave up")),
        }
    }

    /// What the template can ask for by name.
    fn context(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &Map<String, Json>,
    ) -> Result<Value, TemplateError> {
        let given = [
            ("messages", Value::from_serialize(messages)),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        if let Some((name, _)) = given.iter().find(|(name, _)| variables.contains_key(*name)) {
            return Err(TemplateError::Reserved { name: (*name).to_owned() });
        }
        let day = self.day;
        // Present and none, as Hugging Face passes them: templates ask `is defined` and `is none`.
        let mut context = BTreeMap::from([("tools", Value::from(())), ("documents", Value::from(()))]);
        context.insert("strftime_now", Value::from_function(move |format: &str| day.format(format)));
        context.extend(self.specials.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))));
        context.extend(variables.iter().map(|(name, value)| (name.as_str(), Value::from_serialize(value))));
        context.extend(given);
        Ok(Value::from_iter(context))
    }
}

fn failure(line: usize, why: impl Into<String>) -> TemplateError {
    TemplateError::Failed { line, why: why.into() }
}

/// Finds in the engine's error what a person wants to know of it.
fn refusal(error: &minijinja::Error, messages: usize) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(raised) = found.downcast_ref::<Raised>() {
            return match raised {
                Raised::ByTemplate(message) => TemplateError::Raised { message: message.clone() },
                Raised::Flood => TemplateError::Flood { messages },
            };
        }
        let engine = found.downcast_ref::<minijinja::Error>();
        if engine.is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            return TemplateError::Endless { messages };
        }
        cause = found.source();
    }
    failure(error.line().unwrap_or(0), engine::describe(error))
}
