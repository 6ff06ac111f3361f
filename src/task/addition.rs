//! Addition: of two numbers with a sum of one digit or two (Stolfo et al. 2023, "A Mechanistic Interpretation of Arithmetic
//! Reasoning in Language Models using Causal Mediation Analysis"). In the counterfactual the second number is another. Where a
//! vocabulary has no number with the space before it, the space ends the prompt.

use super::candidate::{Candidate, Word, one};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Each text for numbers that are one token with the space before them, and for others.
const TEMPLATES: [(&str, &str, &str); 4] = [
    ("sign", "sign-space", "{A} + {B} ="),
    ("sum", "sum-space", "The sum of {A} and {B} is"),
    ("plus", "plus-space", "Question: What is {A} plus {B}?\nAnswer:"),
    ("examples", "examples-space", "2 + 1 = 3\n4 + 5 = 9\n{A} + {B} ="),
];

pub(super) fn draw(rng: &mut ChaCha8Rng) -> Candidate {
    let (plain, spaced, text) = one(rng, &TEMPLATES);
    let largest: u32 = one(rng, &[9, 99]);
    let a = rng.random_range(1..largest);
    // Where both are the same number, the pair is put aside: answer and foil are the same token.
    let [b, other] = [(); 2].map(|()| rng.random_range(1..=largest - a));
    let words = vec![Word::same("A", a.to_string()), Word::other("B", b.to_string(), other.to_string())];
    let (group, end, space) = if rng.random() { (plain, "", " ") } else { (spaced, " ", "") };
    let [answer, foil] = [b, other].map(|second| vec![format!("{space}{}", a + second)]);
    Candidate { group, text: format!("{text}{end}"), words, answer, foil }
}
