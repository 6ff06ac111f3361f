//! The metric by language: which tokens an item is measured by, and what is said of tokens that do not tell.

use crate::support::cli::{Bench, Ended, gatelens};
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn table(dir: &Path, name: &str) -> Table {
    Table::read_parquet(dir.join(format!("{name}.parquet"))).unwrap_or_else(|e| panic!("{e}"))
}

/// The first demo pairs of a language, in another language's name, without tokens of their own.
fn pairs(of: &str, n: usize, lang: Option<&str>) -> Vec<Value> {
    let text = std::str::from_utf8(gatelens::demo::file("pairs.jsonl").unwrap()).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let bare = |(i, mut pair): (usize, Value)| {
        let fields = pair.as_object_mut().unwrap();
        fields.retain(|field, _| !["answer", "foil", "lang", "id"].contains(&field.as_str()));
        fields.insert("id".to_string(), json!(format!("{}-{i}", lang.unwrap_or("none"))));
        fields.extend(lang.map(|lang| ("lang".to_string(), json!(lang))));
        pair
    };
    all.filter(|pair| pair["lang"] == of).enumerate().map(bare).take(n).collect()
}

/// A file of the demo's metric with two languages: German measured by the tokens the other way round.
fn by_language(bench: &Bench, german: Value) -> PathBuf {
    let (sorry, sure) = (json!([{"id": 24, "text": "Sorry"}]), json!([{"id": 6, "text": "Sure"}]));
    let well = json!({"refused": 30, "answered": 30, "auc": 0.9, "ci_low": 0.8, "ci_high": 0.95});
    let file = json!({
        "model": "demo", "answer": sorry, "foil": sure, "basis": "refusals",
        "languages": [
            {"lang": "de", "own": true, "answer": sure, "foil": sorry, "held_out": german},
            {"lang": "en", "own": true, "answer": sorry, "foil": sure, "held_out": well},
        ],
    });
    bench.text("metric.json", &file.to_string())
}

fn interchange(bench: &Bench, pairs: &Path, more: &[&str]) -> (Ended, PathBuf) {
    let out = bench.out(&format!("run-{}", bench.written().len()));
    let words = ["interchange", "demo", "--pairs", pairs.to_str().unwrap(), "--out", out.to_str().unwrap()];
    (gatelens([&words[..], more].concat()), out)
}

/// Each pair's own metric.
fn base(out: &Path) -> Vec<(String, f64)> {
    let pairs = table(out, "pairs");
    let (ids, metric) = (pairs.strs("id").unwrap(), pairs.floats("base_metric").unwrap());
    let (directions, layers, heads) =
        (pairs.strs("direction").unwrap(), pairs.ints("layer").unwrap(), pairs.ints("head").unwrap());
    let first = |i: &usize| (directions[*i], layers[*i], heads[*i]) == (directions[0], layers[0], heads[0]);
    (0..pairs.rows()).filter(first).map(|i| (ids[i].to_string(), metric[i].unwrap())).collect()
}

#[test]
fn an_item_is_measured_by_the_tokens_of_its_language() {
    let bench = Bench::new();
    let told = json!({"refused": 30, "answered": 30, "auc": 0.8, "ci_low": 0.7, "ci_high": 0.9});
    let metric = by_language(&bench, told);
    let lines = [pairs("en", 3, Some("en")), pairs("de", 3, Some("de-AT"))].concat();
    let file = bench.dataset("pairs.jsonl", &lines);
    let (ended, with) = interchange(&bench, &file, &["--metric", metric.to_str().unwrap()]);
    // Both languages are known, and tell.
    assert!(!ended.stderr.contains("metric.json"), "{}", ended.stderr);
    ended.done();
    let (ended, plain) = interchange(&bench, &file, &["--quiet", "--answer", "Sorry", "--foil", "Sure"]);
    ended.done();
    let (with, plain) = (base(&with), base(&plain));
    assert_eq!((with.len(), plain.len()), (6, 6));
    for ((id, with), (_, plain)) in with.iter().zip(&plain) {
        let expected = if id.starts_with("de") { -plain } else { *plain };
        assert!((with - expected).abs() < 1e-5 && plain.abs() > 1.0, "{id}: {with} and {plain}");
    }
}

#[test]
fn tokens_that_do_not_tell_in_a_language_and_items_of_unknown_ones_are_said_in_every_report() {
    let bench = Bench::new();
    let told = json!({"refused": 21, "answered": 34, "auc": 0.61, "ci_low": 0.46, "ci_high": 0.74});
    let metric = by_language(&bench, told);
    let lines = [pairs("en", 2, Some("en")), pairs("en", 3, Some("fr")), pairs("en", 1, None)].concat();
    let file = bench.dataset("pairs.jsonl", &lines);
    let (ended, out) = interchange(&bench, &file, &["--metric", metric.to_str().unwrap()]);
    let weak = "the language's own tokens do not tell refused from answered prompts in language `de`: the area under the curve is 0.610";
    let unknown = "4 items of `fr` (3 items), no language (1 item) took the overall tokens, because the file has tokens for `de`, `en` \
                   alone";
    for said in [weak, unknown] {
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    for said in ["own tokens do not tell refused from answered prompts in language", "took the overall tokens"] {
        assert!(html.contains(said), "{said}");
    }
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("**Note.** metric.json: ") && report.contains("21 refused and 34 answered"), "{report}");
    ended.done();
    // The same of single prompts, of TCAV's classes and of the pairs that a direction is selected by.
    let prompts: Vec<Value> =
        lines.iter().map(|p| json!({"id": p["id"], "prompt": p["positive"], "lang": "en"})).collect();
    let prompts = bench.dataset("prompts.jsonl", &prompts);
    let (prompts, metric) = (prompts.to_str().unwrap(), metric.to_str().unwrap());
    let of_cav =
        ["cav", "demo", "--concept", "demo:concept.jsonl", "--random", "demo:random.jsonl", "--class", prompts];
    let ablate = ["ablate", "demo", "--prompts", prompts, "--mode", "zero"];
    for (i, words) in [&of_cav[..], &ablate].into_iter().enumerate() {
        let out = bench.out(&format!("other-{i}"));
        let ended = gatelens([words, &["--metric", metric, "--out", out.to_str().unwrap()]].concat());
        assert!(ended.stderr.contains(weak), "{}: {}", words[0], ended.stderr);
        ended.done();
        let report = std::fs::read_to_string(out.join("report.md")).unwrap();
        assert!(report.contains("do not tell refused from answered prompts in language"), "{}", words[0]);
    }
}

#[test]
fn a_metric_file_of_before_is_one_metric_for_all_languages() {
    let bench = Bench::new();
    let file = json!({"model": "demo", "answer": [{"id": 24, "text": "Sorry"}], "foil": [{"id": 6, "text": "Sure"}]});
    let metric = bench.text("metric.json", &file.to_string());
    let lines = [pairs("en", 2, Some("en")), pairs("de", 2, Some("de"))].concat();
    let pairs = bench.dataset("pairs.jsonl", &lines);
    let (ended, with) = interchange(&bench, &pairs, &["--metric", metric.to_str().unwrap()]);
    assert!(!ended.stderr.contains("metric.json"), "{}", ended.stderr);
    ended.done();
    let (ended, plain) = interchange(&bench, &pairs, &["--quiet", "--answer", "Sorry", "--foil", "Sure"]);
    ended.done();
    assert_eq!(base(&with), base(&plain));
}

#[test]
fn a_metric_file_that_is_not_sound_is_refused_with_the_place() {
    let bench = Bench::new();
    let pairs = bench.dataset("pairs.jsonl", &pairs("en", 2, Some("en")));
    let run = |change: fn(&mut Value)| {
        let told = json!({"refused": 30, "answered": 30, "auc": 0.8, "ci_low": 0.7, "ci_high": 0.9});
        let mut file = serde_json::from_slice(&std::fs::read(by_language(&bench, told)).unwrap()).unwrap();
        change(&mut file);
        let metric = bench.text("changed.json", &file.to_string());
        interchange(&bench, &pairs, &["--quiet", "--metric", metric.to_str().unwrap()]).0
    };
    run(|file| file["languages"][0]["foil"] = json!([])).refused(&["changed.json", "no foil token", "`de`"]);
    run(|file| file["languages"][0]["lang"] = json!("en")).refused(&["changed.json", "`en` twice"]);
    run(|file| file["languages"][1]["answer"][0]["text"] = json!("Nope"))
        .refused(&["changed.json", "\"Nope\" in demo"]);
}

#[test]
fn a_language_with_too_few_refusals_takes_the_overall_tokens_and_every_report_says_so() {
    let bench = Bench::new();
    let lines = [pairs("en", 24, Some("en")), pairs("de", 3, Some("de"))].concat();
    let file = bench.dataset("pairs.jsonl", &lines);
    let out = bench.out("behaviour");
    let words = ["behaviour", "demo", "--pairs", file.to_str().unwrap(), "--generate", "12"];
    let ended = gatelens([&words[..], &["--out", out.to_str().unwrap()]].concat());
    let said = "3 refused and 3 answered prompts in language `de` are too few to say whether the overall tokens tell the two apart";
    assert!(ended.stderr.contains(&format!("metric.json: {said}")), "{}", ended.stderr);
    ended.done();
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(
        report.contains("are too few to say") && report.contains("The overall tokens stand in for `de`"),
        "{report}"
    );
    let metric: Value = serde_json::from_slice(&std::fs::read(out.join("metric.json")).unwrap()).unwrap();
    let own: Vec<(&str, bool)> = metric["languages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| (of["lang"].as_str().unwrap(), of["own"].as_bool().unwrap()))
        .collect();
    assert_eq!(own, [("de", false), ("en", true)]);
    assert_eq!(metric["languages"][0]["answer"], metric["answer"]);
    // The area of each language stands in the table, of prompts that the tokens were not chosen by, with its interval.
    let separation = table(&out, "separation");
    let (half, lang, tells) =
        (separation.strs("half").unwrap(), separation.strs("lang").unwrap(), separation.opt_strs("tells").unwrap());
    let (used, low, high) = (
        separation.flags("used").unwrap(),
        separation.floats("ci_low").unwrap(),
        separation.floats("ci_high").unwrap(),
    );
    let row = |of: &str| (0..separation.rows()).find(|i| half[*i] == "held out" && used[*i] && lang[*i] == of).unwrap();
    assert_eq!((tells[row("de")], tells[row("en")], tells[row("")]), (Some("too few"), Some("yes"), Some("yes")));
    assert!(low[row("en")].unwrap() > 0.7 && high[row("en")] == Some(1.0) && low[row("de")].unwrap() < 0.7);

    let metric = out.join("metric.json");
    let (ended, with) = interchange(&bench, &file, &["--quiet", "--metric", metric.to_str().unwrap()]);
    ended.done();
    let report = std::fs::read_to_string(with.join("report.md")).unwrap();
    assert!(report.contains("**Note.** metric.json: 3 refused and 3 answered prompts"), "{report}");
    let record: Value = serde_json::from_slice(&std::fs::read(with.join("run.json")).unwrap()).unwrap();
    assert!(record["measured"]["warnings"][0].as_str().unwrap().contains(said), "{record}");
}
