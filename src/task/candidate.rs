//! Candidates: texts of a task before a tokenizer has seen them.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// A pair of prompts with what comes next in each.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate {
    /// The template's name: the pair's group.
    pub group: &'static str,
    /// The text of both prompts, with slots for words: `{S2}`. A slot whose name begins with a capital is a span.
    pub text: String,
    /// The words of both prompts.
    pub words: Vec<Word>,
    /// What comes next in the positive prompt, with its leading space; of several, those that are one token count.
    pub answer: Vec<String>,
    /// What comes next in the negative one.
    pub foil: Vec<String>,
}

/// What stands in a slot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    slot: &'static str,
    /// In the positive prompt, and in the negative one.
    sides: [String; 2],
}

impl Word {
    /// A word that both prompts have.
    pub fn same(slot: &'static str, word: impl Into<String>) -> Word {
        let word = word.into();
        Word { slot, sides: [word.clone(), word] }
    }

    /// A word in which they differ: that of the positive prompt, and that of the negative one.
    pub fn other(slot: &'static str, positive: impl Into<String>, negative: impl Into<String>) -> Word {
        Word { slot, sides: [positive.into(), negative.into()] }
    }
}

/// A prompt of a candidate: its text, and the bytes of each span.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Filled {
    pub text: String,
    pub spans: Vec<(String, Range<usize>)>,
}

impl Candidate {
    /// The positive prompt and the negative one.
    pub fn filled(&self) -> [Filled; 2] {
        [0, 1].map(|side| {
            let mut filled = Filled { text: String::new(), spans: Vec::new() };
            let mut rest = self.text.as_str();
            while let Some((before, after)) = rest.split_once('{') {
                let (slot, after) = after.split_once('}').unwrap_or((after, ""));
                filled.text.push_str(before);
                let start = filled.text.len();
                let word = self.words.iter().find(|word| word.slot == slot);
                filled.text.push_str(word.map_or("", |word| &word.sides[side]));
                if slot.starts_with(|c: char| c.is_ascii_uppercase()) {
                    filled.spans.push((slot.to_string(), start..filled.text.len()));
                }
                rest = after;
            }
            filled.text.push_str(rest);
            filled
        })
    }
}

/// One of a list, which is not empty.
pub(super) fn one<T: Copy>(rng: &mut ChaCha8Rng, list: &[T]) -> T {
    list[rng.random_range(0..list.len())]
}

/// `N` different ones of a list, which has as many, in any order.
pub(super) fn several<T: Copy, const N: usize>(rng: &mut ChaCha8Rng, list: &[T]) -> [T; N] {
    let chosen = rand::seq::index::sample(rng, list.len(), N);
    std::array::from_fn(|k| list[chosen.index(k)])
}
