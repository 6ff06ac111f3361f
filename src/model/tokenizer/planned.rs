//! A stand-in for a tokenizer, where a study is only counted: every text has the same number of tokens, whatever it
//! says.
//!
//! What plans cost depends on how long prompts are, and on whether two of them are the same or begin alike. So different
//! texts have different tokens from the first on: such prompts cost the most. Texts are numbered as they come, and not by
//! what they say: two of them never meet in one number by accident, however small the vocabulary is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Texts and answers as token ids that mean nothing.
#[derive(Debug)]
pub(super) struct Planned {
    /// How many tokens each text has.
    length: usize,
    /// How many tokens there are.
    vocab: usize,
    texts: Numbers,
    answers: Numbers,
}

impl Planned {
    pub(super) fn new(length: usize, vocab: usize) -> Self {
        Planned { length, vocab: vocab.max(1), texts: Numbers::default(), answers: Numbers::default() }
    }

    /// A text's ids: ascending ones from its number on. Once every token has begun a text, the steps are wider.
    pub(super) fn text(&self, text: &str) -> Vec<u32> {
        let number = self.texts.of(text);
        let step = 1 + number / self.vocab;
        (0..self.length).map(|position| ((number + position * step) % self.vocab) as u32).collect()
    }

    /// An answer's one id. Another answer has another one, until all are taken.
    pub(super) fn answer(&self, answer: &str) -> u32 {
        (self.answers.of(answer) % self.vocab) as u32
    }
}

/// The numbers of texts, in the order in which they were first asked for.
#[derive(Debug, Default)]
struct Numbers(Mutex<HashMap<String, usize>>);

impl Numbers {
    fn of(&self, text: &str) -> usize {
        // Whoever panicked while it held the lock has left whole numbers.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = known.len();
        *known.entry(text.to_owned()).or_insert(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_one_length_and_differ_from_their_first_token_on() {
        let planned = Planned::new(6, 10);
        let [a, b] = ["a", "b"].map(|text| planned.text(text));
        assert_eq!((a.len(), b.len(), planned.text("a")), (6, 6, a.clone()));
        assert!(a.iter().zip(&b).all(|(a, b)| a != b), "{a:?}, {b:?}");
    }

    #[test]
    fn more_texts_than_tokens_are_still_different_ones() {
        let planned = Planned::new(2, 10);
        let all: std::collections::HashSet<Vec<u32>> = (0..100).map(|i| planned.text(&i.to_string())).collect();
        assert_eq!(all.len(), 100);
        assert!(all.iter().flatten().all(|id| *id < 10));
    }

    #[test]
    fn answers_are_numbered_by_themselves() {
        let planned = Planned::new(6, 4);
        planned.text("a prompt");
        assert_eq!(["yes", "no", "yes", "maybe"].map(|answer| planned.answer(answer)), [0, 1, 0, 2]);
    }
}
