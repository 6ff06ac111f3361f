//! Docstring: a function's parameters are described in their order; the next one is the third (Heimersheim and Janiak 2023, "A
//! circuit for Python docstrings in a 4-layer attention-only transformer"). In the counterfactual the function's third parameter
//! has another name.

use super::candidate::{Candidate, Word, one, several};
use rand_chacha::ChaCha8Rng;

const TEMPLATES: [(&str, &str); 2] = [
    (
        "param",
        "def {function}(self, {A_def}, {B_def}, {C_def}, {d}):\n    \"\"\"{v} {w}\n\n    :param {A_doc}: {x} {y}\n    \
         :param {B_doc}: {z} {v}\n    :param",
    ),
    (
        "at-param",
        "def {function}(self, {A_def}, {B_def}, {C_def}, {d}):\n    \"\"\"{v} {w}\n\n    @param {A_doc}: {x} {y}\n    \
         @param {B_doc}: {z} {v}\n    @param",
    ),
];

const FUNCTIONS: [&str; 12] =
    ["port", "load", "send", "build", "parse", "check", "update", "create", "read", "write", "run", "find"];

const PARAMETERS: [&str; 40] = [
    "size", "files", "last", "name", "path", "mode", "key", "value", "index", "count", "data", "text", "line", "user",
    "date", "time", "type", "label", "color", "width", "height", "depth", "level", "limit", "offset", "target",
    "source", "parent", "child", "node", "page", "table", "column", "row", "image", "model", "group", "result",
    "state", "order",
];

const DESCRIPTIONS: [&str; 24] = [
    "oil",
    "piece",
    "crime",
    "population",
    "unit",
    "dark",
    "water",
    "street",
    "music",
    "garden",
    "winter",
    "paper",
    "doctor",
    "stone",
    "market",
    "river",
    "engine",
    "letter",
    "window",
    "sugar",
    "animal",
    "iron",
    "summer",
    "bread",
];

pub(super) fn draw(rng: &mut ChaCha8Rng) -> Candidate {
    let (group, text) = one(rng, &TEMPLATES);
    let [a, b, c, other, d] = several(rng, &PARAMETERS);
    let [v, w, x, y, z] = several(rng, &DESCRIPTIONS);
    let words = vec![
        Word::same("function", one(rng, &FUNCTIONS)),
        Word::same("A_def", a),
        Word::same("B_def", b),
        Word::other("C_def", c, other),
        Word::same("d", d),
        Word::same("A_doc", a),
        Word::same("B_doc", b),
        Word::same("v", v),
        Word::same("w", w),
        Word::same("x", x),
        Word::same("y", y),
        Word::same("z", z),
    ];
    let [answer, foil] = [c, other].map(|name| vec![format!(" {name}")]);
    Candidate { group, text: text.to_string(), words, answer, foil }
}
