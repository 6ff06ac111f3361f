//! Capitals: the model knows a country's capital. In the counterfactual another country is asked about.

use super::candidate::{Candidate, Word, one, several};
use rand_chacha::ChaCha8Rng;

const TEMPLATES: [(&str, &str); 4] = [
    ("is", "The capital of {COUNTRY} is"),
    ("called", "The capital city of {COUNTRY} is called"),
    ("question", "Question: What is the capital of {COUNTRY}?\nAnswer: The capital is"),
    ("flew", "They flew to {COUNTRY} and stayed in its capital,"),
];

const CAPITALS: [(&str, &str); 44] = [
    ("Afghanistan", "Kabul"),
    ("Australia", "Canberra"),
    ("Austria", "Vienna"),
    ("Belgium", "Brussels"),
    ("Bulgaria", "Sofia"),
    ("Canada", "Ottawa"),
    ("Chile", "Santiago"),
    ("China", "Beijing"),
    ("Cuba", "Havana"),
    ("Denmark", "Copenhagen"),
    ("Egypt", "Cairo"),
    ("England", "London"),
    ("Finland", "Helsinki"),
    ("France", "Paris"),
    ("Germany", "Berlin"),
    ("Greece", "Athens"),
    ("Hungary", "Budapest"),
    ("Indonesia", "Jakarta"),
    ("Iran", "Tehran"),
    ("Iraq", "Baghdad"),
    ("Ireland", "Dublin"),
    ("Italy", "Rome"),
    ("Japan", "Tokyo"),
    ("Kenya", "Nairobi"),
    ("Lebanon", "Beirut"),
    ("Libya", "Tripoli"),
    ("Norway", "Oslo"),
    ("Peru", "Lima"),
    ("Poland", "Warsaw"),
    ("Portugal", "Lisbon"),
    ("Qatar", "Doha"),
    ("Romania", "Bucharest"),
    ("Russia", "Moscow"),
    ("Scotland", "Edinburgh"),
    ("Serbia", "Belgrade"),
    ("Spain", "Madrid"),
    ("Sweden", "Stockholm"),
    ("Switzerland", "Bern"),
    ("Syria", "Damascus"),
    ("Thailand", "Bangkok"),
    ("Turkey", "Ankara"),
    ("Venezuela", "Caracas"),
    ("Vietnam", "Hanoi"),
    ("Wales", "Cardiff"),
];

pub(super) fn draw(rng: &mut ChaCha8Rng) -> Candidate {
    let (group, text) = one(rng, &TEMPLATES);
    let [(country, capital), (other, other_capital)] = several(rng, &CAPITALS);
    let [answer, foil] = [capital, other_capital].map(|city| vec![format!(" {city}")]);
    Candidate { group, text: text.to_string(), words: vec![Word::other("COUNTRY", country, other)], answer, foil }
}
