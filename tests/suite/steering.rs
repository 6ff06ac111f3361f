//! Steering vectors: what they are made of, where they come from, and what is recorded of them.

use crate::support::cli::{Bench, gatelens, listed};
use gatelens::analyses::vectors::{Given, from_file};
use gatelens::demo;
use gatelens::model::{Model, Options};
use gatelens::plan::{Part, Plan, Positions, What};
use gatelens::run::{self, run};
use gatelens::site::SiteKind;
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const STEER: [&str; 8] = ["steer", "demo", "--quiet", "--layer", "4", "--coefficients", "0,1", "--prompts"];

/// The first pairs of the demo.
fn pairs(bench: &Bench, n: usize) -> PathBuf {
    let all = std::str::from_utf8(demo::file("pairs.jsonl").unwrap()).unwrap();
    bench.text("pairs.jsonl", &all.lines().take(n).collect::<Vec<_>>().join("\n"))
}

/// A few prompts, and the vector that a run made.
fn steered(bench: &Bench, more: &[&str]) -> (PathBuf, Given) {
    let prompts = std::str::from_utf8(demo::file("prompts.jsonl").unwrap()).unwrap();
    let prompts = bench.text("prompts.jsonl", &prompts.lines().take(6).collect::<Vec<_>>().join("\n"));
    let out = bench.out(&bench.written().len().to_string());
    let ends = [prompts.to_str().unwrap(), "--controls", "2", "--out", out.to_str().unwrap()];
    gatelens([&STEER[..], &ends, more].concat()).done();
    let vector = from_file(&out.join("vectors.safetensors"), None).unwrap();
    (out, vector)
}

fn record(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("run.json")).unwrap()).unwrap()
}

#[test]
fn caa_is_made_at_the_position_that_was_asked_for() {
    let bench = Bench::new();
    let path = pairs(&bench, 12);
    let of_pairs = ["--from", "caa", "--pairs", path.to_str().unwrap()];
    let (_, at) = steered(&bench, &[&of_pairs[..], &["--vector-position", "-3"]].concat());
    let (_, last) = steered(&bench, &of_pairs);
    assert_eq!(at.position.map(|p| p.to_string()).as_deref(), Some("-3"));

    let model = Model::open("demo", &Options::default()).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let mut plan = Plan::default();
    let text = std::fs::read_to_string(&path).unwrap();
    for line in text.lines() {
        let pair: Value = serde_json::from_str(line).unwrap();
        for side in ["positive", "negative"] {
            let message = gatelens::model::template::Message::user(pair[side].as_str().unwrap());
            let ids = tokenizer.encode_chat(&[message], true).unwrap();
            let positions = Positions::At(vec![ids.len() - 3]);
            let prompt = plan.prompt(side, ids);
            plan.read(prompt, What::Activation { site: SiteKind::ResidPost.at(4), positions, part: Part::All });
        }
    }
    let rows = run(&model.decoder, &plan, &run::Options::default()).unwrap();
    let rows: Vec<Vec<f32>> = rows.iter().map(|r| r.values()).collect();
    for (i, found) in at.named.vector.iter().enumerate() {
        let expected = rows.chunks(2).map(|pair| pair[0][i] - pair[1][i]).sum::<f32>() / 12.0;
        assert!((found - expected).abs() < 1e-5, "{i}: {found} and {expected}");
    }
    assert!(at.named.vector.iter().zip(&last.named.vector).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn a_vectors_file_is_recorded_and_another_one_is_another_run() {
    let bench = Bench::new();
    let path = pairs(&bench, 8);
    let (first, _) = steered(&bench, &["--from", "mean", "--pairs", path.to_str().unwrap()]);
    let (other, _) = steered(&bench, &["--from", "caa", "--pairs", path.to_str().unwrap()]);
    let file = bench.path("vector.safetensors");
    let given = |from: &Path| {
        std::fs::copy(from.join("vectors.safetensors"), &file).unwrap();
        let (out, given) = steered(&bench, &["--site", "resid_pre", "--vector", file.to_str().unwrap()]);
        let record = record(&out);
        let sha256 = record["dataset_sha256"][file.to_str().unwrap()].clone();
        assert_eq!(sha256, json!(from_file(&file, None).unwrap().source.1), "{record}");
        assert_eq!(given.position.map(|p| p.to_string()).as_deref(), Some("last"));
        record["parameters"].clone()
    };
    assert_ne!(given(&first), given(&other));
}

/// The groups that keep examples together when `cav` chooses a strength do so here too.
#[test]
fn cav_and_steer_make_one_classifier_of_the_same_examples() {
    let bench = Bench::new();
    let examples = |label: &str, n: usize| -> Vec<Value> {
        let file = if label == "concept" { "concept.jsonl" } else { "random.jsonl" };
        let lines = std::str::from_utf8(demo::file(file).unwrap()).unwrap().lines();
        let all = lines.map(|l| serde_json::from_str::<Value>(l).unwrap());
        all.filter(|e| label == "random" || e["label"] == "concept").take(n).collect()
    };
    let concept = bench.dataset("concept.jsonl", &examples("concept", 24));
    let random = bench.dataset("random.jsonl", &examples("random", 32));
    let files = ["--concept", concept.to_str().unwrap(), "--random", random.to_str().unwrap()];
    let out = bench.out("cav");
    let cav = ["cav", "demo", "--quiet", "--layers", "4", "--out", out.to_str().unwrap()];
    gatelens([&cav[..], &files].concat()).done();
    let fitted = from_file(&out.join("cavs.safetensors"), None).unwrap();
    let (_, made) = steered(&bench, &[&["--from", "cav"], &files[..]].concat());
    assert_eq!((&made.named, made.position), (&fitted.named, fitted.position));
    // What was fitted at the last position gives no probability at another.
    let vector = out.join("cavs.safetensors");
    let gcav = ["--vector", vector.to_str().unwrap(), "--gcav", "0.9", "--position", "-2", "--dry-run"];
    let prompts = bench.path("prompts.jsonl");
    gatelens([&STEER[..], &[prompts.to_str().unwrap()], &gcav].concat()).refused(&["fitted at position last"]);
}

#[test]
fn shares_of_answers_say_of_how_many_directions_they_are() {
    let bench = Bench::new();
    let path = pairs(&bench, 8);
    let generate = ["--generate", "6", "--generate-controls", "1"];
    let (out, _) = steered(&bench, &[&["--from", "mean", "--pairs", path.to_str().unwrap()], &generate[..]].concat());
    let dose = Table::read_parquet(out.join("dose.parquet")).unwrap();
    let (direction, answering) = (dose.strs("direction").unwrap(), dose.ints("answer_directions").unwrap());
    assert!(answering.iter().all(|n| *n == 1), "{answering:?}");
    assert!(direction.contains(&"random") && dose.ints("directions").unwrap().contains(&2));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    for words in ["those beside the vector's along 1 random direction;", "grey: 1 random direction."] {
        assert!(report.contains(words), "no `{words}` in {report}");
    }
    // What chance does is a range, not a mean that tends to nothing.
    assert!(report.contains("2 random directions of the same norm change it by "), "{report}");
    assert!(listed(&out).contains(&"answers.png".to_string()));
}
