//! Steering vectors: what they are made of, where they come from, and what is recorded of them.

use crate::support::cli::{Bench, gatelens, listed};
use gatelens::analyses::vectors::{Given, from_file};
use gatelens::demo;
use gatelens::model::template::Message;
use gatelens::model::{Model, Options};
use gatelens::plan::{Activation, Change, Edit, Metric, Part, Plan, Positions, What};
use gatelens::run::{self, run};
use gatelens::site::SiteKind;
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    let vector = from_file(out.join("vectors.safetensors"), None, None).unwrap();
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
    let mut plan = Plan::default();
    let text = std::fs::read_to_string(&path).unwrap();
    for line in text.lines() {
        let pair: Value = serde_json::from_str(line).unwrap();
        for side in ["positive", "negative"] {
            let ids = ids(&model, pair[side].as_str().unwrap());
            let positions = Positions::At(vec![ids.len() - 3]);
            let prompt = plan.prompt(side, ids);
            plan.read(prompt, Activation { site: SiteKind::ResidPost.at(4), positions, part: Part::All });
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
fn a_layer_and_a_position_are_selected_by_what_their_direction_does() {
    let bench = Bench::new();
    let path = pairs(&bench, 6);
    let prompts =
        bench.dataset("one.jsonl", &[json!({ "id": "1", "prompt": "Hello.", "answer": ["Sorry"], "foil": ["Sure"] })]);
    let words = ["steer", "demo", "--quiet", "--coefficients", "0,1", "--controls", "2", "--from", "mean"];
    let files = ["--pairs", path.to_str().unwrap(), "--prompts", prompts.to_str().unwrap()];
    let (out, again) = (bench.out("selected"), bench.out("again"));
    let select = ["--select", "2", "--out", out.to_str().unwrap()];
    gatelens([&words[..], &files, &select].concat()).done();

    let selection = Table::read_parquet(out.join("selection.parquet")).unwrap();
    let (layers, positions) = (selection.ints("layer").unwrap(), selection.ints("position").unwrap());
    let float = |name: &str| -> Vec<f64> { selection.floats(name).unwrap().iter().map(|x| x.unwrap()).collect() };
    let (left, brought, kl) = (float("ablated_mean"), float("induced_mean"), float("kl_mean"));
    // Four fifths of the demo's eight layers are 0 to 6.
    assert!(layers.iter().all(|l| (0..=6).contains(l)) && positions.iter().all(|p| [-1, -2].contains(p)));
    let allowed: Vec<usize> = (0..selection.rows()).filter(|i| brought[*i] > 0.0 && kl[*i] <= 0.1).collect();
    let best = allowed.iter().copied().min_by(|a, b| left[*a].total_cmp(&left[*b])).unwrap();
    assert_eq!(selection.flags("chosen").unwrap().iter().position(|c| *c), Some(best));
    assert_eq!(selection.flags("allowed").unwrap().iter().filter(|a| **a).count(), allowed.len());

    // The vector is that of the layer and position that were chosen, and steers as it does by itself.
    let (layer, position) = (layers[best].to_string(), positions[best].to_string());
    let by_hand = ["--layer", &layer, "--vector-position", &position, "--out", again.to_str().unwrap()];
    gatelens([&words[..], &files, &by_hand].concat()).done();
    for name in ["vectors.safetensors", "dose.parquet", "items.parquet"] {
        assert_eq!(std::fs::read(out.join(name)).unwrap(), std::fs::read(again.join(name)).unwrap(), "{name}");
    }

    // What it leaves, by hand.
    let direction: Arc<[f32]> = from_file(out.join("vectors.safetensors"), None, None).unwrap().named.vector.into();
    let model = Model::open("demo", &Options::default()).unwrap();
    let mut plan = Plan::default();
    for line in std::fs::read_to_string(&path).unwrap().lines() {
        let pair: Value = serde_json::from_str(line).unwrap();
        let prompt = plan.prompt("positive", ids(&model, pair["positive"].as_str().unwrap()));
        let kinds = [SiteKind::ResidPre, SiteKind::AttnDelta, SiteKind::MlpDelta];
        let sites = (0..model.decoder.arch.n_layers).flat_map(|l| kinds.map(|kind| kind.at(l)));
        let change = || Change::ProjectOut(direction.clone());
        let edit = |site| Edit { site, part: Part::All, positions: Positions::All, change: change() };
        let fork = plan.fork(prompt, sites.map(edit).collect());
        let token = |text| model.tokenizer().unwrap().first_token(text).unwrap();
        plan.read(fork, What::Metric(Metric::logit_difference(vec![token("Sorry")], vec![token("Sure")])));
    }
    let found = run(&model.decoder, &plan, &run::Options::default()).unwrap();
    let mean = found.iter().map(|r| r.number().unwrap()).sum::<f64>() / found.len() as f64;
    assert!((mean - left[best]).abs() < 1e-4, "{mean} and {}", left[best]);
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains(&format!("Chosen is layer {layer}, position {position}.")), "{report}");
}

fn ids(model: &Model, message: &str) -> Vec<u32> {
    model.tokenizer().unwrap().encode_chat(&[Message::user(message)], true).unwrap()
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
        assert_eq!(sha256, json!(from_file(&file, None, None).unwrap().source.1), "{record}");
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
    let fitted = from_file(out.join("cavs.safetensors"), None, None).unwrap();
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
    for words in
        ["were generated along the vector, and 12 along 1 random direction.", "refusal along 1 random direction."]
    {
        assert!(report.contains(words), "no `{words}` in {report}");
    }
    // What chance does is a range, not a mean that tends to nothing.
    assert!(report.contains("2 random directions of the same norm change it by "), "{report}");
    assert!(report.contains("2 random directions are too few to tell") && report.contains("under 0.333"), "{report}");
    assert!(report.contains("answer and foil apart") && report.contains("What moved"), "{report}");
    assert!(listed(&out).contains(&"answers.png".to_string()));
}

#[test]
fn a_dry_run_counts_what_generating_costs() {
    let bench = Bench::new();
    let path = pairs(&bench, 12);
    let prompts = std::str::from_utf8(demo::file("prompts.jsonl").unwrap()).unwrap();
    let prompts = bench.text("prompts.jsonl", &prompts.lines().take(6).collect::<Vec<_>>().join("\n"));
    let made = ["--from", "mean", "--pairs", path.to_str().unwrap(), "--controls", "2"];
    // No answer of the demo has ended after four tokens.
    let words = [&STEER[..], &[prompts.to_str().unwrap()], &made, &["--generate", "4"]].concat();
    let counted: Value =
        serde_json::from_str(&gatelens([&words[..], &["--dry-run", "--json"]].concat()).done()).unwrap();
    let out = bench.out("steered");
    gatelens([&words[..], &["--out", out.to_str().unwrap()]].concat()).done();
    let (dry, ran) = (counted["wavefront"]["rows"].as_f64().unwrap(), record(&out)["rows"].as_f64().unwrap());
    // What it takes without answers is counted exactly, which is a third of it.
    assert!((dry / ran - 1.0).abs() < 0.12, "{dry} and {ran}");
}

/// The same vector in a control vector's file, in an array with a row a layer, and in half the width.
#[test]
fn a_vector_steers_alike_from_every_kind_of_file() {
    let bench = Bench::new();
    let path = pairs(&bench, 8);
    let control = bench.path("v.gguf");
    let export = ["--from", "caa", "--pairs", path.to_str().unwrap(), "--export", control.to_str().unwrap()];
    let (first, made) = steered(&bench, &export);
    let vector = &made.named.vector;
    let layers = Model::open("demo", &Options::default()).unwrap().decoder.arch.n_layers;
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({layers}, {}), }}\n", vector.len());
    let mut array = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    for layer in 0..layers {
        let of_layer = vector.iter().map(|x| if layer == 4 { f64::from(*x) } else { 9.0 });
        array.extend(of_layer.flat_map(f64::to_le_bytes));
    }
    let rows = bench.path("rows.npy");
    std::fs::write(&rows, array).unwrap();
    let table = |dir: &Path| {
        let dose = Table::read_parquet(dir.join("dose.parquet")).unwrap();
        dose.floats("metric_mean").unwrap().to_vec()
    };
    for file in [control, rows] {
        let (out, given) = steered(&bench, &["--vector", file.to_str().unwrap()]);
        assert_eq!(&given.named.vector, vector);
        assert_eq!(table(&out), table(&first));
    }
    let model = bench.text("model.gguf", "GGUF, or so");
    let (prompts, given) = (bench.path("prompts.jsonl"), first.join("vectors.safetensors"));
    let ends = [prompts.to_str().unwrap(), "--vector", given.to_str().unwrap(), "--export", model.to_str().unwrap()];
    gatelens([&STEER[..], &ends, &["--out", "never"]].concat()).refused(&["take another name"]);
}
