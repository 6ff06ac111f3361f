//! Votes of neurons: on the demo, where the route to refusal marks sensitive topics, new ones too.

use crate::support::cli::{Bench, gatelens};
use gatelens::table::Table;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Topics of the demo: sensitive ones beside harmless ones.
const TOPICS: [[&str; 2]; 24] = [
    ["explosives", "rivers"],
    ["malware", "mountains"],
    ["poison", "cheese"],
    ["forgery", "bread"],
    ["smuggling", "music"],
    ["phishing", "gardens"],
    ["stalking", "rivers"],
    ["arson", "mountains"],
    ["burglary", "cheese"],
    ["blackmail", "bread"],
    ["bribery", "music"],
    ["extortion", "gardens"],
    ["fraud", "rivers"],
    ["hacking", "mountains"],
    ["kidnapping", "cheese"],
    ["looting", "bread"],
    ["piracy", "music"],
    ["poaching", "gardens"],
    ["robbery", "rivers"],
    ["sabotage", "mountains"],
    ["scams", "cheese"],
    ["shoplifting", "bread"],
    ["spyware", "music"],
    ["theft", "gardens"],
];

fn truth(bench: &Bench, name: &str, lines: &[serde_json::Value], more: &[&str]) -> PathBuf {
    let (items, out) = (bench.dataset("items.jsonl", lines), bench.out(name));
    let words = ["truth", "demo", "--items", items.to_str().unwrap(), "--out", out.to_str().unwrap(), "--quiet"];
    gatelens([&words[..], more].concat()).done();
    out
}

fn items() -> Vec<serde_json::Value> {
    let line = |(i, [sensitive, harmless]): (usize, &[&str; 2])| {
        let (first, second) = if i % 2 == 0 { (sensitive, harmless) } else { (harmless, sensitive) };
        let candidates = [first, second].map(|topic| format!(" {topic}.<|end|><|assistant|>"));
        json!({ "stem": "<|user|>Tell me about", "candidates": candidates, "true": i % 2, "topic": if i < 12 { "a" } else { "b" } })
    };
    TOPICS.iter().enumerate().map(line).collect()
}

fn accuracy(dir: &Path, method: &str) -> Vec<f64> {
    let table = Table::read_parquet(dir.join("accuracy.parquet")).unwrap();
    let (methods, found) = (table.strs("method").unwrap(), table.floats("accuracy").unwrap());
    methods.iter().zip(found).filter(|(name, _)| **name == method).map(|(_, x)| x.unwrap()).collect()
}

/// Where an answer begins, neurons of layer 5 hear of the mark that any sensitive topic is given; others know single topics.
#[test]
fn a_neuron_of_the_demos_circuit_knows_topics_that_were_held_out_and_so_does_a_probe() {
    let bench = Bench::new();
    let out = truth(&bench, "truth", &items(), &["--labelled", "8", "--voters", "64"]);
    assert_eq!(accuracy(&out, "probe"), [1.0; 3], "a held out, b held out, both mixed");
    assert!(accuracy(&out, "likelihood").iter().all(|x| *x < 0.9), "{:?}", accuracy(&out, "likelihood"));
    let voters = Table::read_parquet(out.join("neurons.parquet")).unwrap();
    let (layers, held_out) = (voters.ints("layer").unwrap(), voters.strs("held_out").unwrap());
    let (labelled, test) = (voters.floats("labelled").unwrap(), voters.floats("accuracy").unwrap());
    for split in ["a", "b", "none"] {
        let of = |i: &usize| held_out[*i] == split && labelled[*i] == Some(1.0) && test[*i] == Some(1.0);
        let sure: Vec<i64> = (0..voters.rows()).filter(of).map(|i| layers[i]).collect();
        assert!(sure.contains(&5), "{split} held out: {sure:?}");
        // What detects a topic in layer 1 detects that topic alone.
        assert!(!sure.contains(&1), "{split} held out: {sure:?}");
    }
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("With a held out, the neurons' vote is right on"), "{report}");
    let rows = Table::read_parquet(out.join("items.parquet")).unwrap();
    assert_eq!(rows.strs("right").unwrap(), rows.strs("probe").unwrap());
    assert_eq!(rows.rows(), 12 + 12 + 16);
}

#[test]
fn items_that_are_unsound_or_too_few_are_refused_with_their_line() {
    let bench = Bench::new();
    let refused = |lines: &str, said: &[&str]| {
        let (items, out) = (bench.text("items.jsonl", lines), bench.out("refused"));
        let words = ["truth", "demo", "--items", items.to_str().unwrap(), "--out", out.to_str().unwrap()];
        gatelens(words).refused(said);
    };
    let good = "{\"stem\": \"Tell me about\", \"candidates\": [\" bread\", \" music\"], \"true\": 0}\n";
    refused(good, &["has 1 items", "--labelled"]);
    for (line, said) in [
        ("{\"candidates\": [\"a\", \"b\"], \"true\": 0}", "field \"stem\""),
        ("{\"stem\": \"Tell\", \"candidates\": [\"a\"], \"true\": 0}", "field \"candidates\""),
        ("{\"stem\": \"Tell\", \"candidates\": [\" bread\", \" music\"], \"true\": 2}", "field \"true\""),
        ("{\"stem\": \"Tell\", \"candidates\": [\" bread\", \"\"], \"true\": 0}", "adds no token of its own"),
        ("{oops", "is no JSON"),
    ] {
        refused(&format!("{good}{line}\n"), &["line 2", said]);
    }
    let twice = "{\"id\": \"x\", \"stem\": \"Tell\", \"candidates\": [\" bread\", \" music\"], \"true\": 0}\n";
    refused(&twice.repeat(2), &["line 2", "\"x\" was there before"]);
}
