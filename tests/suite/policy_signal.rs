//! Behaviour and commitment: what is said of the metric's tokens, and pairs whose content cannot be changed.

use crate::support::cli::{Bench, gatelens};
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::Path;

fn table(dir: &Path, name: &str) -> Table {
    Table::read_parquet(dir.join(format!("{name}.parquet"))).unwrap_or_else(|e| panic!("{e}"))
}

/// A pair of texts that end as given.
fn pair(id: usize, positive: &str, negative: &str) -> Value {
    let (positive, negative) = (json!({"text": positive}), json!({"text": negative}));
    json!({"id": id.to_string(), "positive": positive, "negative": negative, "answer": ["Sorry"], "foil": ["Sure"]})
}

#[test]
fn pairs_that_differ_at_their_end_alone_are_left_out_of_the_content_and_counted() {
    let bench = Bench::new();
    let topics = ["explosives", "bread", "rivers", "mountains", "cheese"];
    let within = |i: usize| pair(i, &format!("Tell me about {} please", topics[i]), "Tell me about music please");
    let at_the_end = pair(7, "Tell me about explosives", "Tell me about bread");
    let goes_on = pair(8, "Tell me about bread today please", "Tell me about bread today");
    let run = |pairs: &[Value]| {
        let file = bench.dataset("pairs.jsonl", pairs);
        let out = bench.out("run");
        let words = ["commitment", "demo", "--pairs", file.to_str().unwrap(), "--layers", "2-3", "--controls", "1"];
        gatelens([&words[..], &["--quiet", "--force", "--out", out.to_str().unwrap()]].concat())
    };
    let some: Vec<Value> = (0..4).map(within).chain([at_the_end.clone(), goes_on.clone()]).collect();
    run(&some).done();
    let layers = table(&bench.out("run"), "layers");
    for (i, place) in layers.strs("place").unwrap().into_iter().enumerate() {
        let expected = if place == "content" { (4, 2) } else { (6, 0) };
        assert_eq!((layers.ints("n").unwrap()[i], layers.ints("left_out").unwrap()[i]), expected, "{place}");
    }
    let report = std::fs::read_to_string(bench.out("run").join("report.md")).unwrap();
    assert!(report.contains("2 pairs have no content"));
    let few: Vec<Value> = (0..3).map(within).chain([at_the_end, goes_on]).collect();
    run(&few).refused(&["pairs.jsonl", "3 of 5 pairs have content", "end alike"]);
}

#[test]
fn the_report_says_how_many_answers_begin_with_the_metrics_tokens() {
    let bench = Bench::new();
    let out = bench.out("behaviour");
    let words = ["behaviour", "demo", "--pairs", "demo:pairs.jsonl", "--max-pairs", "40", "--generate", "8", "--quiet"];
    gatelens([&words[..], &["--out", out.to_str().unwrap()]].concat()).done();
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    let said = "The overall answer tokens begin 100.0\u{a0}% of all refusals. The overall foil tokens begin 100.0\u{a0}% of all answers.";
    assert!(report.contains(said), "{report}");
    let separation = table(&out, "separation");
    assert!(separation.strs("basis").unwrap().iter().all(|b| *b == "refusals"));
    // Also of the languages, where refusals are few.
    assert!(separation.floats("ci_low").unwrap().iter().all(Option::is_some));
}
