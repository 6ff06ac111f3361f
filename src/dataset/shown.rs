//! What a model reads of a file's prompts: how they became token ids, the first of them in pieces, and what is likely a
//! mistake. Each warning is given once a file, however often a command reads it.

use super::encode::rendered;
use super::{Input, warn_once};
use crate::demo;
use crate::measured::{NamedToken, ShownPrompt, Ways};
use crate::model::Model;
use crate::model::template::Message;
use crate::model::tokenizer::Tokenizer;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Prompts whose rendered text is looked through for marks that are no tokens. All go through one template.
const LOOKED_THROUGH: usize = 64;

/// Words in the names of models that were tuned to follow a chat template.
const TUNED: [&str; 14] = [
    "instruct",
    "chat",
    "it",
    "sft",
    "dpo",
    "rlhf",
    "tuned",
    "assistant",
    "aligned",
    "hermes",
    "zephyr",
    "thinking",
    "reasoning",
    "distill",
];

/// Words in the names of models that were not.
const UNTUNED: [&str; 4] = ["base", "pt", "pretrain", "pretrained"];

/// A prompt of a file, with the ids that it became.
#[derive(Clone, Copy)]
pub struct Prompt<'a> {
    pub input: &'a Input,
    pub ids: &'a [u32],
    /// The item's id and field.
    pub id: &'a str,
    pub field: &'static str,
}

/// What a model reads of a file's prompts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    pub template: Ways,
    pub first_prompt: Option<ShownPrompt>,
    pub warnings: Vec<String>,
}

impl Shown {
    /// Looks at the prompts of a file, and warns of what is likely a mistake.
    pub fn of<'a>(model: &Model, path: &Path, prompts: impl Iterator<Item = Prompt<'a>>) -> Shown {
        let tokenizer = model.tokenizer().ok();
        if tokenizer.is_some_and(Tokenizer::is_planned) {
            // Nothing is read: there is nothing to show, and no mistake to be seen.
            return Shown::default();
        }
        let has_template = tokenizer.is_some_and(|t| t.template().is_ok_and(|t| t.is_some()));
        let (mut shown, mut bare, mut all, mut doubled) = (Shown::default(), 0usize, 0usize, Vec::new());
        let mut marks: BTreeMap<String, Vec<NamedToken>> = BTreeMap::new();
        let mut lost = Lost::default();
        for prompt in prompts {
            all += 1;
            bare += usize::from(matches!(prompt.input, Input::User { .. }));
            *way(&mut shown.template, prompt.input, has_template) += 1;
            let Some(tokenizer) = tokenizer else { continue };
            if shown.first_prompt.is_none() {
                shown.first_prompt = Some(first(tokenizer, prompt));
            }
            let bos = tokenizer.bos().filter(|_| !matches!(prompt.input, Input::Ids(_)));
            if bos.is_some_and(|bos| prompt.ids.starts_with(&[bos, bos])) {
                doubled.push(prompt.id);
            }
            lost.look(tokenizer, prompt);
            if all <= LOOKED_THROUGH {
                marks.extend(broken_marks(tokenizer, prompt.input));
            }
        }
        let mut warnings = Vec::new();
        warnings.extend(of_marks(&marks));
        warnings.extend(of_doubled(&doubled));
        warnings.extend(lost.warning());
        warnings.extend(of_bare(model, bare, all, has_template));
        shown.warnings = warnings.into_iter().map(|text| format!("{}: {text}", path.display())).collect();
        warn_once(&shown.warnings);
        shown
    }
}

fn way<'w>(ways: &'w mut Ways, input: &Input, has_template: bool) -> &'w mut usize {
    match input {
        Input::Ids(_) => &mut ways.ids,
        Input::Messages { .. } => &mut ways.applied,
        Input::User { .. } if has_template => &mut ways.applied,
        Input::User { .. } | Input::Text { .. } => &mut ways.text,
    }
}

fn first(tokenizer: &Tokenizer, prompt: Prompt<'_>) -> ShownPrompt {
    ShownPrompt { id: prompt.id.to_owned(), field: prompt.field.to_owned(), tokens: tokenizer.named(prompt.ids) }
}

/// Marks that look like tokens and are none.
fn of_marks(marks: &BTreeMap<String, Vec<NamedToken>>) -> Option<String> {
    let one = |(mark, pieces): (&String, &Vec<NamedToken>)| format!("`{mark}` is {}", joined(pieces));
    let list: Vec<String> = marks.iter().take(5).map(one).collect();
    let more = marks.len().saturating_sub(list.len());
    (!list.is_empty()).then(|| {
        format!(
            "the chat template writes marks that are not one token each: {}{}; if the model was trained with them as tokens, \
             the tokenizer's files lack them (tokenizer.json, tokenizer_config.json, added_tokens.json): take all of them \
             from the checkpoint",
            list.join(", "),
            if more > 0 { format!(", and {more} more") } else { String::new() }
        )
    })
}

/// Those of what a prompt is rendered as; texts that people wrote may hold any.
fn broken_marks(tokenizer: &Tokenizer, input: &Input) -> Vec<(String, Vec<NamedToken>)> {
    match (input, rendered(tokenizer, input)) {
        (Input::Text { text, .. }, _) => tokenizer.broken_marks_of_text(text),
        (Input::User { text, .. }, Ok(Some(whole))) => tokenizer.broken_marks(&whole, &[text]),
        (Input::Messages { messages, .. }, Ok(Some(whole))) => {
            let written = |message: &Message| Value::Object(message.fields().clone()).to_string();
            let contents: Vec<String> = messages.iter().map(written).collect();
            tokenizer.broken_marks(&whole, &contents.iter().map(String::as_str).collect::<Vec<_>>())
        }
        _ => Vec::new(),
    }
}

/// Pieces as messages have them: `"<|", "im", "_start"`.
pub fn joined(pieces: &[NamedToken]) -> String {
    let most = 8;
    let mut list: Vec<String> = pieces.iter().take(most).map(|piece| format!("{:?}", piece.text)).collect();
    list.extend((pieces.len() > most).then(|| "...".to_owned()));
    list.join(" + ")
}

fn of_doubled(ids: &[&str]) -> Option<String> {
    let first = ids.first()?;
    Some(format!(
        "{} {} with two BOS tokens, `{first}` first: the text spells one, and one is added before it; take it out of the \
         text, or give {{\"text\": ..., \"special_tokens\": false}}",
        counted(ids.len(), "prompt"),
        if ids.len() == 1 { "begins" } else { "begin" }
    ))
}

/// Control characters that the vocabulary has no token for: the tokenizer drops them without a word.
#[derive(Default)]
struct Lost<'a> {
    /// Of each control character that was met, whether it is dropped.
    known: HashMap<char, bool>,
    /// The prompts that hold one that is.
    ids: Vec<&'a str>,
}

impl<'a> Lost<'a> {
    fn look(&mut self, tokenizer: &Tokenizer, prompt: Prompt<'a>) {
        let mut found = false;
        for letter in texts(prompt.input).into_iter().flat_map(str::chars).filter(|letter| letter.is_control()) {
            let dropped = || tokenizer.encode(letter.encode_utf8(&mut [0; 4]), false).is_ok_and(|ids| ids.is_empty());
            found |= *self.known.entry(letter).or_insert_with(dropped);
        }
        self.ids.extend(found.then_some(prompt.id));
    }

    fn warning(&self) -> Option<String> {
        let first = self.ids.first()?;
        let mut letters: Vec<char> =
            self.known.iter().filter(|(_, dropped)| **dropped).map(|(letter, _)| *letter).collect();
        letters.sort_unstable();
        let letters: Vec<String> = letters.into_iter().map(|letter| format!("U+{:04X}", u32::from(letter))).collect();
        Some(format!(
            "{} {} control characters that the model's vocabulary has no token for ({}), `{first}` first: they were dropped; take \
             them out of the text",
            counted(self.ids.len(), "prompt"),
            if self.ids.len() == 1 { "holds" } else { "hold" },
            letters.join(", ")
        ))
    }
}

/// The texts that people wrote into an input.
fn texts(input: &Input) -> Vec<&str> {
    match input {
        Input::Ids(_) => Vec::new(),
        Input::User { text, .. } | Input::Text { text, .. } => vec![text],
        Input::Messages { messages, .. } => {
            messages.iter().flat_map(|message| message.fields().values()).filter_map(Value::as_str).collect()
        }
    }
}

/// What was done with plain strings, where it is likely not what was meant.
fn of_bare(model: &Model, bare: usize, all: usize, has_template: bool) -> Option<String> {
    if bare == 0 || bare < all {
        return None;
    }
    let prompts = counted(all, "prompt");
    if !has_template {
        return Some(format!(
            "all {prompts} are plain strings, and the model has no chat template: they were read as text; write \
             {{\"text\": ...}} to say so, or take the model's chat-tuned version"
        ));
    }
    let base = untuned(model)?;
    Some(format!(
        "all {prompts} are plain strings, and went through the chat template as a user's messages, though `{base}` is, by its \
         name, a model that was not tuned to chat; write {{\"text\": ...}} where text is meant"
    ))
}

/// The name by which a model seems not to be tuned to follow a template.
fn untuned(model: &Model) -> Option<&str> {
    if demo::MODELS.iter().any(|(name, _)| *name == model.name) {
        return None;
    }
    let words = |name: &str| -> Vec<String> {
        let short = crate::names::short_name(name).to_ascii_lowercase();
        short.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_owned).collect()
    };
    let names = || model.also_called.iter().chain([&model.name]);
    let has = |known: &[&str]| names().find(|name| words(name).iter().any(|word| known.contains(&word.as_str())));
    if has(&TUNED).is_some() {
        return None;
    }
    // The names of most released models end with their size, and those of tuned ones with a word for it.
    let ends_with_size = || names().find(|name| words(name).last().is_some_and(|word| is_size(word)));
    has(&UNTUNED).or_else(ends_with_size).map(String::as_str)
}

/// Whether a word of a name is a number of parameters: `7b`, `135m`.
fn is_size(word: &str) -> bool {
    let number = word.strip_suffix(['b', 'm']);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// `1 prompt`, `2 prompts`.
pub(crate) fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
