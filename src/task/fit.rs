//! Which candidates a tokenizer cuts so that a pair can be made of them.

use super::candidate::{Candidate, Filled};
use crate::dataset::{Input, Pair, Span, TokenRef};
use crate::model::Model;
use crate::model::tokenizer::{Tokenizer, TokenizerError};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Why a candidate was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    /// It is there already.
    Again,
    /// Something of it is no token.
    Unknown,
    /// One prompt has more tokens than the other.
    Lengths,
    /// A span is elsewhere in the other prompt.
    Places,
    /// It is longer than what the model reads.
    Context,
    /// No answer, or no foil, is one token after the prompts.
    Answers,
    /// An answer is a foil too.
    Same,
}

impl Rejection {
    /// A short name for programs.
    pub fn key(self) -> &'static str {
        match self {
            Rejection::Again => "again",
            Rejection::Unknown => "unknown",
            Rejection::Lengths => "lengths",
            Rejection::Places => "places",
            Rejection::Context => "context",
            Rejection::Answers => "answers",
            Rejection::Same => "same",
        }
    }
}

/// As what comes after "because".
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rejection::Again => "the same prompts were drawn before",
            Rejection::Unknown => "the tokenizer has no token for a part of them",
            Rejection::Lengths => "the two prompts have different numbers of tokens",
            Rejection::Places => "a word is at other positions in the other prompt",
            Rejection::Context => "they are longer than the model's context",
            Rejection::Answers => "answer or foil is more than one token",
            Rejection::Same => "answer and foil are the same token",
        })
    }
}

/// Candidates as a model's tokenizer cuts them.
pub(super) struct Fit<'m> {
    model: &'m Model,
    tokenizer: &'m Tokenizer,
    /// The prompts of all candidates so far.
    seen: HashSet<[String; 2]>,
}

/// The name of the span of the last position, which every pair has.
const END: &str = "END";

impl<'m> Fit<'m> {
    /// For a model.
    ///
    /// # Errors
    /// If it has no tokenizer.
    pub fn new(model: &'m Model) -> Result<Self, Arc<TokenizerError>> {
        Ok(Fit { model, tokenizer: model.tokenizer()?, seen: HashSet::new() })
    }

    /// The pair of a candidate, without an id, or why it is put aside.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn pair(&mut self, candidate: &Candidate) -> Result<Result<Pair, Rejection>, TokenizerError> {
        let prompts = candidate.filled();
        let pair = match self.prompts(&prompts)? {
            Ok(pair) => pair,
            Err(why) => return Ok(Err(why)),
        };
        let (answer, foil) = (self.tokens(&prompts, &candidate.answer)?, self.tokens(&prompts, &candidate.foil)?);
        if answer.is_empty() || foil.is_empty() {
            return Ok(Err(Rejection::Answers));
        }
        if answer.iter().any(|(id, _)| foil.iter().any(|(other, _)| id == other)) {
            return Ok(Err(Rejection::Same));
        }
        let [answer, foil] = [answer, foil].map(|tokens| tokens.into_iter().map(|(_, token)| token));
        Ok(Ok(Pair { group: Some(candidate.group.to_string()), ..pair.answer(answer).foil(foil) }))
    }

    /// A pair of these prompts with their spans, without an id, answer and foil; or why they are put aside.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn prompts(&mut self, prompts: &[Filled; 2]) -> Result<Result<Pair, Rejection>, TokenizerError> {
        if !self.seen.insert(prompts.each_ref().map(|prompt| prompt.text.clone())) {
            return Ok(Err(Rejection::Again));
        }
        let cut = |prompt: &Filled| self.tokenizer.encode_with_places(&prompt.text, true);
        let tokens = [cut(&prompts[0])?, cut(&prompts[1])?];
        if !self.knows(&prompts[0])? || !self.knows(&prompts[1])? {
            return Ok(Err(Rejection::Unknown));
        }
        if tokens[0].len() != tokens[1].len() {
            return Ok(Err(Rejection::Lengths));
        }
        if tokens[0].len() > self.model.decoder.arch.n_ctx {
            return Ok(Err(Rejection::Context));
        }
        let [spans, others] = [0, 1].map(|side| self.spans(&prompts[side], &tokens[side]));
        if spans != others {
            return Ok(Err(Rejection::Places));
        }
        let [positive, negative] = prompts.each_ref().map(|prompt| Input::text(&prompt.text));
        Ok(Ok(Pair { spans, ..Pair::new(positive, negative) }))
    }

    /// Whether the tokenizer has tokens for all of a prompt: none stands for what is unknown, and nothing but space has none.
    fn knows(&self, prompt: &Filled) -> Result<bool, TokenizerError> {
        let tokens = self.tokenizer.encode_with_places(&prompt.text, false)?;
        let has_token = |at: usize| tokens.iter().any(|(_, bytes)| bytes.contains(&at));
        let all_have = prompt.text.char_indices().all(|(at, letter)| letter.is_whitespace() || has_token(at));
        Ok(all_have && !tokens.iter().any(|(id, _)| self.tokenizer.is_special(*id)))
    }

    /// Those of these texts that are one token, the same after both prompts: its id, and how a file has it.
    fn tokens(&self, prompts: &[Filled; 2], texts: &[String]) -> Result<Vec<(u32, TokenRef)>, TokenizerError> {
        let before = [self.ids(&prompts[0].text)?, self.ids(&prompts[1].text)?];
        let mut found = Vec::new();
        for text in texts {
            let after = |side: usize| -> Result<Option<u32>, TokenizerError> {
                let ids = self.ids(&format!("{}{text}", prompts[side].text))?;
                let rest = ids.strip_prefix(before[side].as_slice());
                Ok(rest.and_then(|rest| if let [id] = rest { Some(*id) } else { None }))
            };
            if let (Some(id), Some(other)) = (after(0)?, after(1)?)
                && id == other
                && !self.tokenizer.is_special(id)
            {
                found.push((id, self.written(text, id)?));
            }
        }
        Ok(found)
    }

    /// A token as a file has it: its text, where that is read as this token and no more.
    fn written(&self, text: &str, id: u32) -> Result<TokenRef, TokenizerError> {
        let is_read_so = self.tokenizer.answer_tokens(text)? == [id];
        Ok(if is_read_so { TokenRef::Text(text.to_string()) } else { TokenRef::Id(id) })
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.tokenizer.encode(text, false)
    }

    /// The positions of each span: of all tokens that stand for a part of it; and the last position. A space that the tokenizer
    /// puts before a text is none of the first word's tokens.
    fn spans(&self, prompt: &Filled, tokens: &[(u32, Range<usize>)]) -> Vec<Span> {
        let is_blank = |id: u32| self.tokenizer.token(id).is_some_and(|text| text.trim().is_empty());
        let positions = |of: &Range<usize>| {
            let holds =
                |(id, bytes): &(u32, Range<usize>)| bytes.start < of.end && of.start < bytes.end && !is_blank(*id);
            (0..tokens.len()).filter(|at| holds(&tokens[*at])).map(|at| at as i64).collect()
        };
        let named = prompt.spans.iter().map(|(name, of)| Span { name: name.clone(), positions: positions(of) });
        let last = tokens.len() as i64 - 1;
        named.chain([Span { name: END.to_string(), positions: vec![last] }]).collect()
    }
}
