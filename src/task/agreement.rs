//! Agreement: the verb agrees with its subject, not with the noun before it (Linzen et al. 2016, "Assessing the Ability of LSTMs
//! to Learn Syntax-Sensitive Dependencies"; Finlayson et al. 2021, "Causal Analysis of Syntactic Agreement Mechanisms"). In the
//! counterfactual the subject has the other number.

use super::candidate::{Candidate, Word, one, several};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

const TEMPLATES: [(&str, &str); 4] = [
    ("near", "The {SUBJECT} near the {NOUN}"),
    ("behind", "The {SUBJECT} behind the {NOUN}"),
    ("beside", "The {SUBJECT} that stood beside the {NOUN}"),
    ("liked", "The {SUBJECT} that the {NOUN} liked"),
];

/// Of the singular and of the plural.
const VERBS: [[&str; 2]; 3] = [[" is", " are"], [" was", " were"], [" has", " have"]];

/// Nouns whose plural ends in an s.
const NOUNS: [&str; 28] = [
    "teacher", "farmer", "author", "pilot", "doctor", "student", "driver", "lawyer", "singer", "actor", "guard",
    "sister", "brother", "friend", "parent", "dog", "horse", "bird", "picture", "letter", "car", "house", "tree",
    "ship", "boat", "girl", "boy", "king",
];

pub(super) fn draw(rng: &mut ChaCha8Rng) -> Candidate {
    let (group, text) = one(rng, &TEMPLATES);
    let [subject, noun] = several(rng, &NOUNS);
    let (is_plural, noun_is_plural) = (rng.random(), rng.random());
    let number = |noun: &str, is_plural: bool| format!("{noun}{}", if is_plural { "s" } else { "" });
    let words = vec![
        Word::other("SUBJECT", number(subject, is_plural), number(subject, !is_plural)),
        Word::same("NOUN", number(noun, noun_is_plural)),
    ];
    let verbs = one(rng, &VERBS);
    let [answer, foil] = [is_plural, !is_plural].map(|plural| vec![verbs[usize::from(plural)].to_string()]);
    Candidate { group, text: text.to_string(), words, answer, foil }
}
