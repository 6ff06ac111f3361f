//! Tests of the parameters of analyses: the command line, Rust and JSON have the same ones, with the same defaults.

use crate::analyses::*;
use crate::parameters::{ParameterError, read};
use clap::Args;
use routing::{cascade, cipher, cipher_contrast, commitment, modulate, screen, three_methods};
use serde_json::{Map, Value, json};
use std::fmt::Debug;

/// What the command line makes of words.
fn of_words<A: Args>(words: &[&str]) -> A {
    let command = A::augment_args(clap::Command::new("x").no_binary_name(true));
    A::from_arg_matches(&command.get_matches_from(words)).unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Parameters that have no default, as words and in JSON: the same, with defaults for all else, whoever reads them.
fn agree<A: Analysis + Args + Default + PartialEq + Debug>(words: &[&str], least: Value) {
    let parameters: A = of_words(words);
    assert_eq!(read::<A>(&object(least.clone())).unwrap(), parameters, "{}", A::NAME);
    let written = serde_json::to_value(&parameters).unwrap();
    assert_eq!(read::<A>(&object(written.clone())).unwrap(), parameters, "{}", A::NAME);
    // What has a default is what `Default` says.
    let defaults = serde_json::to_value(A::default()).unwrap();
    for (name, value) in object(written) {
        let expected = least.get(&name).unwrap_or(&defaults[&name]);
        assert_eq!(&value, expected, "{}: {name}", A::NAME);
    }
    let mut more = object(least);
    more.insert("no_such_thing".to_string(), json!(1));
    assert!(matches!(read::<A>(&more), Err(ParameterError::Unknown { .. })), "{}", A::NAME);
}

const PAIRS: [&str; 2] = ["--pairs", "p.jsonl"];
const PROMPTS: [&str; 2] = ["--prompts", "p.jsonl"];
const GATED: [&str; 4] = ["--pairs", "p.jsonl", "--gate", "L1.H2"];

fn pairs() -> Value {
    json!({"pairs": "p.jsonl"})
}

fn prompts() -> Value {
    json!({"prompts": "p.jsonl"})
}

fn gated() -> Value {
    json!({"pairs": "p.jsonl", "gate": ["L1.H2"]})
}

#[test]
fn behaviour_has_the_same_parameters_everywhere() {
    agree::<behaviour::Behaviour>(&PAIRS, pairs());
}

#[test]
fn interchange_has_the_same_parameters_everywhere() {
    agree::<interchange::Interchange>(&PAIRS, pairs());
}

#[test]
fn screen_has_the_same_parameters_everywhere() {
    agree::<screen::Screen>(&PAIRS, pairs());
}

#[test]
fn ablate_has_the_same_parameters_everywhere() {
    agree::<ablate::Ablate>(&PROMPTS, prompts());
}

#[test]
fn dla_has_the_same_parameters_everywhere() {
    agree::<dla::Dla>(&PROMPTS, prompts());
}

#[test]
fn three_methods_has_the_same_parameters_everywhere() {
    agree::<three_methods::ThreeMethods>(&PAIRS, pairs());
}

#[test]
fn cascade_has_the_same_parameters_everywhere() {
    agree::<cascade::Cascade>(&GATED, gated());
}

#[test]
fn commitment_has_the_same_parameters_everywhere() {
    agree::<commitment::Commitment>(&PAIRS, pairs());
}

#[test]
fn modulate_has_the_same_parameters_everywhere() {
    agree::<modulate::Modulate>(&GATED, gated());
}

#[test]
fn cipher_has_the_same_parameters_everywhere() {
    agree::<cipher::Cipher>(&GATED, gated());
}

#[test]
fn cipher_contrast_has_the_same_parameters_everywhere() {
    agree::<cipher_contrast::CipherContrast>(&PAIRS, pairs());
}

#[test]
fn cav_has_the_same_parameters_everywhere() {
    let least = json!({"concept": "c.jsonl", "random": ["r.jsonl"]});
    agree::<cav::Cav>(&["--concept", "c.jsonl", "--random", "r.jsonl"], least);
}

#[test]
fn steer_has_the_same_parameters_everywhere() {
    agree::<steer::Steer>(
        &["--prompts", "p.jsonl", "--vector", "v.npy"],
        json!({"prompts": "p.jsonl", "vector": "v.npy"}),
    );
}

#[test]
fn what_differs_from_the_defaults_is_read_back_too() {
    let more = ["--position", "-3", "--align", "--site", "resid_pre", "--estimate", "gradient", "--max-pairs", "7"];
    let tokens = ["--answer", "id:5", "--foil", " no", "--mark-p", "0.2", "--metric", "m.json"];
    let parameters: interchange::Interchange = of_words(&[&PAIRS[..], &more, &tokens].concat());
    let written = object(serde_json::to_value(&parameters).unwrap());
    assert_eq!(read::<interchange::Interchange>(&written).unwrap(), parameters);
    let short = json!({"prompts": "p", "from": "caa", "pairs": "q", "position": 5, "coefficients": "-1:1:3"});
    let steer: steer::Steer = read(&object(short)).unwrap();
    assert_eq!((steer.position, &*steer.coefficients.0), (summary::Position::At(5), &[-1.0, 0.0, 1.0][..]));
}

#[test]
fn what_cannot_be_read_says_what_is_wrong_with_it() {
    let wrong = |value: Value| read::<interchange::Interchange>(&object(value)).unwrap_err().to_string();
    assert!(wrong(json!({})).contains("missing field `pairs`"));
    let misspelt = wrong(json!({"pairs": "p", "max_pair": 3}));
    assert_eq!(misspelt, "no parameter is called `max_pair`; did you mean `max_pairs`?");
    assert!(wrong(json!({"pairs": "p", "position": "frist"})).contains("`frist` is none of last, all"));
    assert!(wrong(json!({"pairs": "p", "site": "zz"})).contains("zz"));
}
