//! Greater than: what began in a year ends in a later one of the same century (Hanna et al. 2023, "How does GPT-2 compute
//! greater-than?"). Answers are all later years, foils all earlier ones. In the counterfactual the last two digits of the first
//! year are 01, so that every year is later. For vocabularies that cut numbers into single digits the next digit is the decade.

use super::candidate::{Candidate, Word, one};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Each text for years of which the last two digits are one token, and for decades.
const TEMPLATES: [(&str, &str, &str); 3] = [
    ("lasted-years", "lasted-decades", "The {NOUN} lasted from the year {century}{YEAR} to the year {century}"),
    ("began-years", "began-decades", "The {NOUN} that began in {century}{YEAR} did not end before {century}"),
    ("from-years", "from-decades", "The history of the {NOUN} covers the years {century}{YEAR} to {century}"),
];

const NOUNS: [&str; 24] = [
    "war",
    "siege",
    "reign",
    "strike",
    "drought",
    "plague",
    "famine",
    "voyage",
    "dispute",
    "rebellion",
    "expedition",
    "construction",
    "campaign",
    "truce",
    "alliance",
    "trial",
    "marriage",
    "partnership",
    "tour",
    "project",
    "conflict",
    "journey",
    "revolt",
    "occupation",
];

pub(super) fn draw(rng: &mut ChaCha8Rng) -> Candidate {
    let (years, decades, text) = one(rng, &TEMPLATES);
    let (century, year): (u32, u32) = (rng.random_range(11..=19), rng.random_range(20..=88));
    let words = vec![
        Word::same("NOUN", one(rng, &NOUNS)),
        Word::same("century", century.to_string()),
        Word::other("YEAR", year.to_string(), "01"),
    ];
    let (group, answer, foil) = if rng.random() {
        let year_of = |year: u32| format!("{year:02}");
        (years, (year + 1..=99).map(year_of).collect(), (2..year).map(year_of).collect())
    } else {
        let decade = year / 10;
        let decade_of = |decade: u32| decade.to_string();
        (decades, (decade + 1..=9).map(decade_of).collect(), (1..decade).map(decade_of).collect())
    };
    Candidate { group, text: text.to_string(), words, answer, foil }
}
