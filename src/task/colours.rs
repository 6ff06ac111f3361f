//! Colours: three objects have a colour each, and one is asked about (the colored objects of BIG-bench; Merullo et al. 2024,
//! "Circuit Component Reuse Across Tasks in Transformer Language Models"). In the counterfactual another of them is asked about.

use super::candidate::{Candidate, Word, one, several};
use rand_chacha::ChaCha8Rng;

/// Each text stands around a list of the three objects.
const TEMPLATES: [(&str, [&str; 2]); 3] = [
    ("table", ["On the table there is ", ". The color of the {ASKED} is"]),
    ("question", ["On the desk there is ", ".\nQuestion: What color is the {ASKED}?\nAnswer: The {asked} is"]),
    ("carries", ["My friend carries ", ". The {ASKED} that my friend carries is"]),
];

/// The object that is asked about, the one that the counterfactual asks about, and the third.
const OBJECTS: [&str; 3] =
    ["a {COLOUR} {OBJECT}", "a {OTHER_COLOUR} {OTHER_OBJECT}", "a {third_colour} {third_object}"];

/// Words that follow `a`.
const NAMES: [&str; 16] = [
    "pen", "cup", "book", "box", "key", "hat", "ball", "bag", "shirt", "plate", "card", "lamp", "phone", "coat",
    "bottle", "knife",
];

const COLOURS: [&str; 10] = ["red", "blue", "green", "yellow", "black", "white", "brown", "pink", "purple", "gray"];

pub(super) fn draw(rng: &mut ChaCha8Rng) -> Candidate {
    let (group, [before, after]) = one(rng, &TEMPLATES);
    let [first, second, last] = several(rng, &OBJECTS);
    let text = format!("{before}{first}, {second} and {last}{after}");
    let [object, other, third] = several(rng, &NAMES);
    let [colour, other_colour, third_colour] = several(rng, &COLOURS);
    let words = vec![
        Word::same("COLOUR", colour),
        Word::same("OBJECT", object),
        Word::same("OTHER_COLOUR", other_colour),
        Word::same("OTHER_OBJECT", other),
        Word::same("third_colour", third_colour),
        Word::same("third_object", third),
        Word::other("ASKED", object, other),
        Word::other("asked", object, other),
    ];
    let [answer, foil] = [colour, other_colour].map(|colour| vec![format!(" {colour}")]);
    Candidate { group, text, words, answer, foil }
}
