//! Text to token ids and back, as the model's own tokenizer does it, whichever file it comes in: the
//! `tokenizer.json` of a Hugging Face folder or the metadata of a GGUF file. The `tokenizers` crate does
//! the work; here it is built, held to the model's conventions (which special tokens begin and end a
//! text, which template a conversation takes) and kept from panicking on a damaged file.

mod bytes;
mod chat;
mod error;
mod folder;
mod from_gguf;
mod markers;
mod marks;
mod planned;
mod recipes;
mod side;
mod spm;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use tokenizers::Encoding;
use tokenizers::models::bpe::BPE;

pub use chat::Ending;
pub use error::TokenizerError;
use planned::Planned;

use crate::measured::NamedToken;

use super::gguf::Gguf;
use super::template::{ChatTemplate, Day, TemplateError};

/// The longest text that is encoded at once, in bytes.
pub const LONGEST_TEXT: usize = 16 << 20;
/// How much of a text an error message shows, in characters.
const SHOWN: usize = 60;
/// SentencePiece's sign for a space.
const SPACE_SIGN: char = '\u{2581}';

/// A model's tokenizer and, where it has one, its chat template.
///
/// ```no_run
/// # use gatelens::model::tokenizer::Tokenizer;
/// let tokenizer = Tokenizer::from_folder("models/smollm2".as_ref())?;
/// let ids = tokenizer.encode("The capital of France is", true)?;
/// assert_eq!(tokenizer.decode(&ids, true)?, "The capital of France is");
/// # Ok::<(), gatelens::model::tokenizer::TokenizerError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The file or folder that it came from, for messages.
    path: PathBuf,
    /// One more than the highest id. A model may have more rows in its embedding, never fewer.
    vocab_size: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: Ends,
    /// Whether a space is put before each text, so that " x" has one too many.
    adds_space: bool,
    template: Option<Result<ChatTemplate, TemplateError>>,
    /// Variables that every conversation's template is given.
    vars: Map<String, Value>,
    warnings: Vec<String>,
    /// What stands in for all of it, where a study is only counted.
    planned: Option<Arc<Planned>>,
}

/// What special tokens do to the ends of a text, beyond what the inner tokenizer's own
/// post-processing does.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    /// A token to put before.
    before: Option<u32>,
    /// A token to put after.
    after: Option<u32>,
    /// Whether to take away the first token, which the inner tokenizer put there.
    drop_first: bool,
    /// Whether to take away the last one.
    drop_last: bool,
}

/// What the readers of both kinds of file provide.
struct Parts {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: Ends,
    template: Option<Result<ChatTemplate, TemplateError>>,
    /// What a user should know about how they were read.
    warnings: Vec<String>,
}

impl Tokenizer {
    /// From a Hugging Face folder: `tokenizer.json`, and where they are there `tokenizer_config.json`
    /// (special tokens, chat template) and `chat_template.jinja`, which overrides the template.
    ///
    /// # Errors
    /// Where `tokenizer.json` is missing, or a file cannot be read or understood: the message names it.
    /// A chat template that cannot be understood is an error only when it is asked for.
    pub fn from_folder(dir: &Path) -> Result<Self, TokenizerError> {
        Self::new(dir, folder::read(dir)?)
    }

    /// From the metadata of a GGUF file: `tokenizer.ggml.*` and `tokenizer.chat_template`.
    ///
    /// # Errors
    /// Where a key is missing or contradicts another, and for kinds of tokenizers
    /// (`tokenizer.ggml.model`, `tokenizer.ggml.pre`) that are not known: the message lists those that are.
    pub fn from_gguf(file: &Gguf) -> Result<Self, TokenizerError> {
        Self::new(file.path(), from_gguf::read(file)?)
    }

    fn new(path: &Path, parts: Parts) -> Result<Self, TokenizerError> {
        let Parts { inner, bos, eos, ends, template, warnings } = parts;
        let highest = inner.get_vocab(true).into_values().max();
        let mut tokenizer = Self {
            inner,
            path: path.to_owned(),
            vocab_size: highest.map_or(0, |id| id as usize + 1),
            bos,
            eos,
            ends,
            adds_space: false,
            template,
            vars: Map::new(),
            warnings,
            planned: None,
        };
        let first = tokenizer.encode("a", false)?.first().copied();
        let first = first.and_then(|id| tokenizer.inner.id_to_token(id));
        tokenizer.adds_space = first.is_some_and(|piece| piece.starts_with(SPACE_SIGN));
        Ok(tokenizer)
    }

    /// A stand-in, where a study is only counted: every text has `length` tokens of a vocabulary, which no other text has at
    /// the same places, and every answer has one. It has no chat template; of a conversation it takes all that is said.
    /// `path` is for messages.
    pub(in crate::model) fn planned(path: &Path, length: usize, vocab: usize) -> Self {
        Self {
            inner: tokenizers::Tokenizer::new(BPE::default()),
            path: path.to_owned(),
            vocab_size: vocab,
            bos: None,
            eos: None,
            ends: Ends::default(),
            // Of a space before an answer it knows nothing.
            adds_space: true,
            template: None,
            vars: Map::new(),
            warnings: Vec::new(),
            planned: Some(Arc::new(Planned::new(length, vocab))),
        }
    }

    /// Whether it is a stand-in, whose ids mean nothing.
    pub fn is_planned(&self) -> bool {
        self.planned.is_some()
    }

    /// With a chat template that takes this day for today.
    #[must_use]
    pub fn at(mut self, day: Day) -> Self {
        self.template = self.template.map(|template| template.map(|template| template.at(day)));
        self
    }

    /// With variables that the template is given for every conversation.
    #[must_use]
    pub fn with_vars(self, vars: Map<String, Value>) -> Self {
        Self { vars, ..self }
    }

    /// What a user should know about how the tokenizer was read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The ids of a text. With `add_special` the tokens that the model expects at the ends of a text
    /// (usually BOS, or none) are added. Special tokens that are spelled out in `text` become their ids
    /// either way.
    ///
    /// # Errors
    /// [`TokenizerError::TooLong`] beyond [`LONGEST_TEXT`]; [`TokenizerError::Encode`] otherwise.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        if let Some(planned) = &self.planned {
            return Ok(planned.text(text));
        }
        let encoding = self.encoding(text, || self.inner.encode_fast(text, add_special))?;
        let ids = encoding.get_ids().to_vec();
        Ok(if add_special { self.with_ends(ids, |id| id) } else { ids })
    }

    /// [`Tokenizer::encode`], each id with the bytes of the text that it stands for; none (`0..0`) of one that is added.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_places(
        &self,
        text: &str,
        add_special: bool,
    ) -> Result<Vec<(u32, Range<usize>)>, TokenizerError> {
        if let Some(planned) = &self.planned {
            let ids = planned.text(text);
            // Tokens of a stand-in share a text evenly.
            let (n, bytes) = (ids.len(), text.len());
            return Ok(ids.into_iter().enumerate().map(|(i, id)| (id, i * bytes / n..(i + 1) * bytes / n)).collect());
        }
        let encoding = self.encoding(text, || self.inner.encode(text, add_special))?;
        let places = encoding.get_offsets().iter().map(|(start, end)| *start..*end);
        let ids = encoding.get_ids().iter().copied().zip(places).collect();
        Ok(if add_special { self.with_ends(ids, |id| (id, 0..0)) } else { ids })
    }

    fn encoding(
        &self,
        text: &str,
        encode: impl FnOnce() -> tokenizers::Result<Encoding>,
    ) -> Result<Encoding, TokenizerError> {
        if text.len() > LONGEST_TEXT {
            return Err(TokenizerError::TooLong { bytes: text.len() });
        }
        guarded(encode).map_err(|why| TokenizerError::Encode {
            path: self.path.clone(),
            text: text.chars().take(SHOWN).collect(),
            why,
        })
    }

    /// The tokens of a text with what special tokens do to its ends; `added` makes a token of an id.
    fn with_ends<T>(&self, mut tokens: Vec<T>, added: impl Fn(u32) -> T) -> Vec<T> {
        if self.ends.drop_first && !tokens.is_empty() {
            tokens.remove(0);
        }
        if self.ends.drop_last {
            tokens.pop();
        }
        if let Some(bos) = self.ends.before {
            tokens.insert(0, added(bos));
        }
        tokens.extend(self.ends.after.map(added));
        tokens
    }

    /// The text of some tokens. With `skip_special`, special tokens are left out. Bytes that make no
    /// whole character are shown as U+FFFD.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownId`] for an id that stands for no token.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        if let Some(id) = ids.iter().find(|id| self.inner.id_to_token(**id).is_none()) {
            return Err(TokenizerError::UnknownId { path: self.path.clone(), id: *id, size: self.vocab_size });
        }
        guarded(|| self.inner.decode(ids, skip_special)).map_err(|why| TokenizerError::Decode {
            path: self.path.clone(),
            count: ids.len(),
            why,
        })
    }

    /// The text of tokens that a model chose: without special tokens, and with U+FFFD for ids that stand for no token, which
    /// a model has where its vocabulary is padded.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`].
    pub fn decode_generated(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let parts = ids.split(|id| self.inner.id_to_token(*id).is_none()).map(|part| self.decode(part, true));
        Ok(parts.collect::<Result<Vec<_>, _>>()?.join("\u{fffd}"))
    }

    /// The token that is spelled so, if there is one.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.inner.token_to_id(piece)
    }

    /// Whether a token is special: no text, but a mark that the model was trained with.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// One token in readable form, its leading space kept. Bytes of a token that are part of a character are written as
    /// `<0xE4>`, in every kind of vocabulary. Nothing for an id that stands for no token.
    pub fn token(&self, id: u32) -> Option<String> {
        let piece = self.inner.id_to_token(id)?;
        let readable = self.decode(&[id], false).ok()?;
        // Some decoders take the space from the beginning of a text. What a second, equal token adds
        // to the first has kept it.
        let twice = self.decode(&[id, id], false).ok()?;
        let readable = twice.strip_prefix(readable.as_str()).unwrap_or(&readable);
        let broken = readable.is_empty() || readable.contains(char::REPLACEMENT_CHARACTER);
        Some(if broken { bytes::readable(&piece).unwrap_or(piece) } else { readable.to_owned() })
    }

    /// Tokens with their texts.
    pub fn named(&self, ids: &[u32]) -> Vec<NamedToken> {
        let named = |id: &u32| NamedToken { id: *id, text: self.token(*id).unwrap_or_default() };
        ids.iter().map(named).collect()
    }

    /// The tokens of an answer that is given as text, as they follow a prompt. Write the leading space where the answer has
    /// one (`" Paris"`). Tokenizers that put a space before each text anyway get it without, so that both spellings mean
    /// the token of the word; where that space does not become one token with what follows it (a line break, a Chinese
    /// character, spaces), it is none of the answer's.
    ///
    /// # Errors
    /// [`TokenizerError::NoToken`] for an empty text, and those of [`Tokenizer::encode`].
    pub fn answer_tokens(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let none = || TokenizerError::NoToken { text: text.to_owned() };
        if let Some(planned) = &self.planned {
            return (!text.is_empty()).then(|| vec![planned.answer(text)]).ok_or_else(none);
        }
        let spared = text.strip_prefix(' ').filter(|rest| self.adds_space && !rest.trim().is_empty());
        let mut ids = self.encode(spared.unwrap_or(text), false)?;
        let lone = |id: &u32| self.inner.id_to_token(*id).is_some_and(|piece| piece.chars().all(|c| c == SPACE_SIGN));
        if self.adds_space && ids.first().is_some_and(lone) {
            // What follows a letter is as it follows a prompt, with no space of the tokenizer's own.
            let (before, both) =
                (self.encode("a", false)?, self.encode(&format!("a{}", spared.unwrap_or(text)), false)?);
            match both.strip_prefix(before.as_slice()) {
                Some(after) => ids = after.to_vec(),
                None => drop(ids.remove(0)),
            }
        }
        if ids.is_empty() { Err(none()) } else { Ok(ids) }
    }

    /// The first of an answer's tokens ([`Tokenizer::answer_tokens`]): the one that a metric scores.
    ///
    /// # Errors
    /// As [`Tokenizer::answer_tokens`].
    pub fn first_token(&self, text: &str) -> Result<u32, TokenizerError> {
        Ok(self.answer_tokens(text)?[0])
    }

    /// Whether a space before a text is a matter of how it is written (`" Paris"` and `"Paris"` begin with different tokens),
    /// not one that the tokenizer adds.
    pub fn tells_spaces(&self) -> bool {
        !self.adds_space
    }

    /// The marks in a rendered text that look like tokens and are not read as one, with the tokens that they become. Marks
    /// in `contents`, which people wrote, are passed over.
    pub fn broken_marks(&self, text: &str, contents: &[&str]) -> Vec<(String, Vec<NamedToken>)> {
        let own = marks::marks(text).into_iter().filter(|mark| !contents.iter().any(|content| content.contains(mark)));
        let pieces = |mark: &str| Some((mark.to_owned(), self.encode(mark, false).ok().filter(|ids| ids.len() != 1)?));
        own.filter_map(pieces).map(|(mark, ids)| (mark, self.named(&ids))).collect()
    }

    /// Those of a text that was written without a template: only marks with bars, `<|x|>`, which no text of people has.
    pub fn broken_marks_of_text(&self, text: &str) -> Vec<(String, Vec<NamedToken>)> {
        self.broken_marks(text, &[]).into_iter().filter(|(mark, _)| marks::is_piped(mark)).collect()
    }

    /// The token that begins a text, if the model has one (whether it is added is another matter).
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The chat template, if the model has one.
    ///
    /// # Errors
    /// [`TokenizerError::Template`] where it has one that cannot be understood. Texts can be encoded all
    /// the same.
    pub fn template(&self) -> Result<Option<&ChatTemplate>, TokenizerError> {
        match &self.template {
            None => Ok(None),
            Some(Ok(template)) => Ok(Some(template)),
            Some(Err(source)) => Err(TokenizerError::Template { path: self.path.clone(), source: source.clone() }),
        }
    }
}

/// Runs a call of the `tokenizers` crate, which asserts that its files are consistent: a damaged one
/// must be an error here.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the tokenizer's data is inconsistent".to_owned()),
    }
}
