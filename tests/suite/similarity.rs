//! Layers beside layers: on the demo and a variant, beside values of numpy, and between models that read texts as other tokens.

use crate::support::cli::{Bench, gatelens};
use crate::support::{family_dir, fixtures};
use gatelens::model::{Model, Options};
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const TEXTS: [&str; 6] = [
    "Tell me about rivers.",
    "Write a short text about music.",
    "I want to learn more about cheese today.",
    "What should I know about gardens?",
    "Please explain mountains to me.",
    "Help me understand bread better.",
];

fn prompts(bench: &Bench) -> PathBuf {
    bench.dataset("prompts.jsonl", &TEXTS.map(|text| json!({ "prompt": text })))
}

/// The layers of a model beside those of another.
fn layers(bench: &Bench, [model, with]: [&str; 2], prompts: &Path, more: &[&str]) -> Table {
    let out = bench.out(&format!("similarity{}", more.concat()));
    let words = ["similarity", model, "--with", with, "--prompts", prompts.to_str().unwrap(), "--quiet"];
    gatelens([&words[..], &["--out", out.to_str().unwrap()], more].concat()).done();
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("Which layers are alike?") && report.contains("cka.png"), "{report}");
    Table::read_parquet(out.join("layers.parquet")).unwrap()
}

/// A column at a layer of each.
fn at(table: &Table, name: &str, a: i64, b: i64) -> Option<f64> {
    let (layers_a, layers_b) = (table.ints("layer_a").unwrap(), table.ints("layer_b").unwrap());
    let row = (0..table.rows()).find(|i| (layers_a[*i], layers_b[*i]) == (a, b)).unwrap();
    table.floats(name).unwrap()[row]
}

fn near(found: Option<f64>, expected: f64, tolerance: f64) {
    assert!(found.is_some_and(|x| (x - expected).abs() < tolerance), "{found:?} is not {expected}");
}

#[test]
fn a_model_beside_itself_is_1_on_the_diagonal_and_symmetric() {
    let bench = Bench::new();
    let table = layers(&bench, ["demo", "demo"], &prompts(&bench), &[]);
    assert_eq!((table.rows(), table.ints("n").unwrap()[0], table.strs("positions").unwrap()[0]), (64, 6, "last"));
    for layer in 0..8 {
        near(at(&table, "cka", layer, layer), 1.0, 1e-9);
        near(at(&table, "cka_biased", layer, layer), 1.0, 1e-9);
        near(at(&table, "procrustes", layer, layer), 0.0, 1e-5);
        near(at(&table, "rsa", layer, layer), 1.0, 1e-9);
        assert_eq!(at(&table, "cka_ci_low", layer, layer), None);
        for other in 0..layer {
            let (one, turned) = (at(&table, "cka", layer, other), at(&table, "cka", other, layer).unwrap());
            near(one, turned, 1e-9);
        }
    }
}

/// A forward pass in numpy, in f64, and the formulas; scipy's rank correlation. Layer 0 of both is the same.
#[test]
fn layers_of_a_variant_are_as_alike_as_numpy_says() {
    let bench = Bench::new();
    let prompts = prompts(&bench);
    let table = layers(&bench, ["demo", "demo:backup"], &prompts, &["--positions", "words"]);
    assert_eq!((table.ints("n").unwrap()[0], table.ints("prompts").unwrap()[0]), (40, 6));
    near(at(&table, "cka", 0, 0), 1.0, 1e-9);
    near(at(&table, "procrustes", 0, 0), 0.0, 1e-5);
    for (a, b, [cka, biased, procrustes, rsa]) in [
        (2, 5, [0.75843, 0.81216, 0.46097, 0.68158]),
        (5, 2, [0.60898, 0.69409, 0.51284, 0.55516]),
        (7, 7, [0.55669, 0.63904, 0.59899, 0.43792]),
    ] {
        near(at(&table, "cka", a, b), cka, 1e-3);
        near(at(&table, "cka_biased", a, b), biased, 1e-3);
        near(at(&table, "procrustes", a, b), procrustes, 1e-3);
        near(at(&table, "rsa", a, b), rsa, 5e-3);
        let (low, high) = (at(&table, "cka_ci_low", a, b).unwrap(), at(&table, "cka_ci_high", a, b).unwrap());
        assert!(low < cka && cka < high, "{low} {high}");
    }
    let fewer = layers(&bench, ["demo", "demo:backup"], &prompts, &["--positions", "words", "--rows", "10"]);
    assert_eq!(fewer.ints("n").unwrap()[0], 10);
}

/// The other model reads single letters, so that all tokens of the first end where one of its own does.
#[test]
fn models_with_other_tokenizers_are_compared_where_tokens_of_both_end() {
    let bench = Bench::new();
    let [bytes, pieces] = ["bytes", "sentencepiece"].map(|name| fixtures().join("inputs").join(name));
    let (bytes, pieces) = (bytes.to_str().unwrap(), pieces.to_str().unwrap());
    let texts = ["The capital of France is Paris.", "When Mary and John went to the store"];
    let prompts = bench.dataset("prompts.jsonl", &texts.map(|text| json!({ "prompt": { "text": text } })));
    let table = layers(&bench, [bytes, pieces], &prompts, &["--positions", "words"]);
    let model = Model::open(bytes, &Options::default()).unwrap();
    // The first position is left out.
    let tokens = |text: &str| model.tokenizer().unwrap().encode(text, true).unwrap().len() as i64 - 1;
    assert_eq!(table.ints("n").unwrap()[0], texts.into_iter().map(tokens).sum::<i64>());
    assert_eq!(table.rows(), 9);
}

#[test]
fn token_ids_are_compared_at_their_last_positions_whatever_the_models_widths_and_depths() {
    let bench = Bench::new();
    let line = |i: u32| json!({ "prompt": { "ids": [3, 40 + i, 7 * i, 90 - i] } });
    let lines: Vec<Value> = (1..7).map(line).collect();
    let prompts = bench.dataset("prompts.jsonl", &lines);
    let llama = family_dir("llama");
    let table = layers(&bench, ["demo", llama.to_str().unwrap()], &prompts, &[]);
    assert_eq!(table.rows(), 8 * 4);
    assert!(table.floats("procrustes").unwrap().iter().flatten().all(|distance| (0.0..1.5).contains(distance)));
}

#[test]
fn too_few_rows_and_models_that_are_not_there_are_refused() {
    let bench = Bench::new();
    let (out, prompts) = (bench.out("refused"), prompts(&bench));
    let few = bench.dataset("few.jsonl", &TEXTS[..3].iter().map(|text| json!({ "prompt": text })).collect::<Vec<_>>());
    let ids = bench.text("ids.jsonl", &"{\"prompt\": {\"ids\": [3, 4, 5, 6, 7, 8]}}\n".repeat(4));
    let refused = |with: &str, prompts: &Path, more: &[&str], parts: &[&str]| {
        let words = ["similarity", "demo", "--with", with, "--prompts", prompts.to_str().unwrap()];
        gatelens([&words[..], &["--out", out.to_str().unwrap()], more].concat()).refused(parts);
    };
    refused("no/such", &prompts, &[], &["no/such"]);
    refused("demo", &few, &[], &["few.jsonl", "3 rows are too few", "--positions words"]);
    refused("demo", &ids, &["--positions", "words"], &["0 rows are too few", "token ids have no text"]);
}
