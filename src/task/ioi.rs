//! Indirect object identification: of two names, one comes up again; who is given something is the other (Wang et al. 2022,
//! "Interpretability in the Wild"). In the counterfactual the other name comes up again, so that the answer flips.

use super::candidate::{Candidate, Word, one, several};
use rand_chacha::ChaCha8Rng;

/// Each text with the indirect object first, and with the subject first.
const TEMPLATES: [(&str, &str); 8] = [
    ("went-io-first", "When {IO} and {S1} went to the {place}, {S2} gave a {object} to"),
    ("went-s-first", "When {S1} and {IO} went to the {place}, {S2} gave a {object} to"),
    ("met-io-first", "After {IO} and {S1} met at the {place}, {S2} handed a {object} to"),
    ("met-s-first", "After {S1} and {IO} met at the {place}, {S2} handed a {object} to"),
    ("waited-io-first", "While {IO} and {S1} were waiting at the {place}, {S2} showed a {object} to"),
    ("waited-s-first", "While {S1} and {IO} were waiting at the {place}, {S2} showed a {object} to"),
    ("sat-io-first", "Yesterday {IO} and {S1} sat near the {place}. Then {S2} offered a {object} to"),
    ("sat-s-first", "Yesterday {S1} and {IO} sat near the {place}. Then {S2} offered a {object} to"),
];

const NAMES: [&str; 48] = [
    "Mary", "John", "James", "Tom", "Anna", "Sarah", "David", "Paul", "Mark", "Peter", "Emma", "Kate", "Laura",
    "Alice", "Jack", "Henry", "Robert", "Michael", "Daniel", "Susan", "Linda", "Jane", "George", "Frank", "Helen",
    "Simon", "Martin", "Adam", "Julia", "Maria", "Thomas", "Richard", "Charles", "Joseph", "William", "Rachel", "Lucy",
    "Grace", "Eric", "Brian", "Kevin", "Steven", "Ruth", "Carl", "Rose", "Alex", "Sam", "Ben",
];

const PLACES: [&str; 16] = [
    "store", "park", "office", "school", "market", "garden", "station", "museum", "library", "hospital", "hotel",
    "church", "river", "bridge", "theater", "beach",
];

const OBJECTS: [&str; 16] = [
    "drink", "book", "ring", "letter", "key", "ticket", "gift", "cake", "map", "phone", "bag", "hat", "coin",
    "picture", "flower", "watch",
];

pub(super) fn draw(rng: &mut ChaCha8Rng) -> Candidate {
    let (group, text) = one(rng, &TEMPLATES);
    let [io, subject] = several(rng, &NAMES);
    let words = vec![
        Word::same("IO", io),
        Word::same("S1", subject),
        Word::other("S2", subject, io),
        Word::same("place", one(rng, &PLACES)),
        Word::same("object", one(rng, &OBJECTS)),
    ];
    let [answer, foil] = [io, subject].map(|name| vec![format!(" {name}")]);
    Candidate { group, text: text.to_string(), words, answer, foil }
}
