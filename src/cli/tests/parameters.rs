//! Tests of the parameters of analyses: the command line, Rust and JSON have the same ones, with the same defaults.

use crate::analyses::*;
use crate::parameters::{ParameterError, read};
use checkpoints::{deltas, rank, scale, similarity, weights};
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

#[test]
fn every_analysis_has_the_same_parameters_everywhere() {
    let pairs = || json!({"pairs": "p.jsonl"});
    agree::<behaviour::Behaviour>(&PAIRS, pairs());
    agree::<interchange::Interchange>(&PAIRS, pairs());
    agree::<screen::Screen>(&PAIRS, pairs());
    agree::<edges::Edges>(&PAIRS, pairs());
    agree::<interactions::Interactions>(&PAIRS, pairs());
    agree::<three_methods::ThreeMethods>(&PAIRS, pairs());
    agree::<commitment::Commitment>(&PAIRS, pairs());
    agree::<cipher_contrast::CipherContrast>(&PAIRS, pairs());
    agree::<circuit::Circuit>(&PAIRS, pairs());
    let (gated, words) =
        (|| json!({"pairs": "p.jsonl", "gate": ["L1.H2"]}), [&PAIRS[..], &["--gate", "L1.H2"]].concat());
    agree::<cascade::Cascade>(&words, gated());
    agree::<modulate::Modulate>(&words, gated());
    agree::<cipher::Cipher>(&words, gated());
    let (prompts, words) = (|| json!({"prompts": "p.jsonl"}), ["--prompts", "p.jsonl"]);
    agree::<ablate::Ablate>(&words, prompts());
    agree::<dla::Dla>(&words, prompts());
    agree::<lens::Lens>(&words, prompts());
    agree::<attention::Attention>(&words, prompts());
    agree::<neurons::Neurons>(&words, prompts());
    agree::<importance::Importance>(&words, prompts());
    agree::<rank::Rank>(&words, prompts());
    agree::<weights::Weights>(&[], json!({}));
    agree::<deltas::Deltas>(&["--children", "c"], json!({"children": ["c"]}));
    let with = [&words[..], &["--with", "b"]].concat();
    agree::<similarity::Similarity>(&with, json!({"prompts": "p.jsonl", "with": "b"}));
    agree::<scale::Scale>(&PAIRS, pairs());
    agree::<truth::Truth>(&["--items", "t.jsonl"], json!({"items": "t.jsonl"}));
    agree::<values::Values>(&["--items", "v.jsonl"], json!({"items": "v.jsonl"}));
    agree::<functions::Functions>(&["--task", "t.jsonl"], json!({"task": "t.jsonl"}));
    let least = json!({"concept": "c.jsonl", "random": ["r.jsonl"]});
    agree::<cav::Cav>(&["--concept", "c.jsonl", "--random", "r.jsonl"], least);
    let least = json!({"prompts": "p.jsonl", "vector": "v.npy"});
    agree::<steer::Steer>(&[&words[..], &["--vector", "v.npy"]].concat(), least);
    assert_eq!(WRITERS.len(), 28, "an analysis is missing here");
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
    assert_eq!((steer.position, steer.coefficients.values()), (summary::Position::At(5), &[-1.0, 0.0, 1.0][..]));
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

#[test]
fn what_no_flag_takes_is_refused_from_a_program_and_from_a_record_too() {
    let wrong = |analysis: &str, value: Value| {
        let job = Writer::named(analysis).unwrap().job;
        job(&object(value)).err().unwrap().to_string()
    };
    let few = json!({"pairs": "p", "content_pairs": 3});
    assert_eq!(wrong("commitment", few), "`content_pairs`: `3` is no number from 4 on");
    assert_eq!(wrong("dla", json!({"prompts": "p", "mark_p": 1.5})), "`mark_p`: `1.5` is no number from 0 to 1");
    assert_eq!(wrong("screen", json!({"pairs": "p", "max_pairs": 0})), "`max_pairs`: `0` is no number from 1 on");
    let cold = json!({"prompts": "p", "vector": "v", "generate": 4, "temperature": 0.0});
    assert_eq!(wrong("steer", cold), "`temperature`: `0` is no number over 0 and under inf");
    let both = json!({"pairs": "p", "layer": 2, "gate": ["L1.H2"]});
    assert_eq!(wrong("modulate", both), "`layer` and `gate` exclude each other: leave one out");
    let alone = json!({"prompts": "p", "vector": "v", "temperature": 0.5});
    assert_eq!(wrong("steer", alone), "`temperature` needs `generate`: give it too, or leave `temperature` out");
    assert!(wrong("steer", json!({"prompts": "p", "vector": "v", "coefficients": []})).contains("coefficients"));
    let study = crate::study::Study::open(crate::demo::NAME).unwrap();
    let screen = screen::Screen { gates: 0, ..screen::Screen::default() };
    let refused = crate::study::run(&screen, &study).err().unwrap();
    assert!(refused.of_input() && refused.to_string() == "`gates`: `0` is no number from 1 on", "{refused}");
}
