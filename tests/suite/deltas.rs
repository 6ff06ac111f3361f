//! Delta activations: on the demo's variants, whose weights differ in known places, beside values of numpy.

use crate::support::cli::{Bench, gatelens};
use crate::support::family_dir;
use gatelens::table::Table;
use serde_json::json;
use std::path::{Path, PathBuf};

fn deltas(bench: &Bench, name: &str, more: &[&str]) -> PathBuf {
    let out = bench.out(name);
    let words = ["deltas", "demo", "--out", out.to_str().unwrap(), "--quiet"];
    gatelens([&words[..], more].concat()).done();
    out
}

fn table(dir: &Path, name: &str) -> Table {
    Table::read_parquet(dir.join(format!("{name}.parquet"))).unwrap()
}

fn near(found: Option<f64>, expected: f64) {
    assert!(found.is_some_and(|x| (x - expected).abs() < 2e-3), "{found:?} is not {expected}");
}

const CHILDREN: [&str; 6] = ["--children", "demo", "--children", "demo:blind", "--children", "demo:backup"];

/// In words that are not of the cipher the blind variant is the demo to the last bit, and the other variant is not. Its length is that of
/// a forward pass in numpy, in f64.
#[test]
fn a_child_that_computes_what_its_parent_does_adds_nothing_and_has_no_angle() {
    let bench = Bench::new();
    let out = deltas(&bench, "generic", &CHILDREN);
    let children = table(&out, "children");
    assert_eq!(children.strs("model").unwrap(), ["demo", "demo:blind", "demo:backup"]);
    let norms = children.floats("norm").unwrap();
    assert_eq!(norms[..2], [Some(0.0); 2]);
    near(norms[2], 0.88702);
    near(children.floats("relative").unwrap()[2], 0.88702 / 8.43157);
    assert_eq!(children.ints("n").unwrap(), [5; 3]);
    let agreement = children.floats("agreement").unwrap();
    assert!(agreement[0].is_none() && agreement[2].is_some(), "{agreement:?}");
    assert!(children.floats("agreement_ci_low").unwrap()[2].is_some());
    let distances = table(&out, "distances");
    assert_eq!(distances.floats("cosine").unwrap(), [None; 3]);
    let euclidean = distances.floats("euclidean").unwrap();
    assert_eq!((euclidean[0], euclidean[1], euclidean[1]), (Some(0.0), norms[2], euclidean[2]));
    assert_eq!((table(&out, "map").rows(), table(&out, "clusters").rows()), (1, 0));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("Nothing is added, to the last bit, by demo, demo:blind."), "{report}");
    // The array's last row is the last child's vector.
    let array = std::fs::read(out.join("deltas.npy")).unwrap();
    assert!(array.starts_with(b"\x93NUMPY"));
    let numbers = array[array.len() - 3 * 64 * 4..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    let vectors: Vec<f32> = numbers.collect();
    assert!(vectors[..128].iter().all(|x| *x == 0.0));
    near(Some(vectors[128..].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()), 0.88702);
}

/// In the cipher both variants differ from the demo, by lengths that numpy gives.
#[test]
fn prompts_labels_and_sums_are_read_from_files_and_flags() {
    let bench = Bench::new();
    let prompt = |topic: &str| json!({ "prompt": format!("Some words are in code. Tell me about {topic}.") });
    let prompts = bench.dataset("prompts.jsonl", &["takipe", "monoku"].map(prompt));
    let label = |model: &str, label: &str| json!({ "model": model, "label": label });
    let labels = [label("demo:blind", "sees less"), label("demo:backup", "sees all"), label("else", "other")];
    let labels = bench.dataset("labels.jsonl", &labels);
    let more = ["--prompts", prompts.to_str().unwrap(), "--labels", labels.to_str().unwrap()];
    let sum = ["--sums", "demo:blind + demo:backup = demo:backup"];
    let out = deltas(&bench, "cipher", &[&CHILDREN[2..], &more, &sum].concat());
    let children = table(&out, "children");
    let norms = children.floats("norm").unwrap();
    near(norms[0], 2.09839);
    near(norms[1], 4.05820);
    assert_eq!(children.opt_strs("label").unwrap(), [Some("sees less"), Some("sees all")]);
    assert_eq!(children.opt_strs("nearest").unwrap(), [Some("demo:backup"), Some("demo:blind")]);
    let sums = table(&out, "sums");
    near(sums.floats("relative_error").unwrap()[0], 2.09839 / 4.05820);
    near(sums.floats("cosine_b").unwrap()[0], 1.0);
    assert_eq!(sums.floats("gain_ci_low").unwrap(), [None], "two prompts are too few");
    let cuts = table(&out, "cuts");
    assert_eq!((cuts.strs("grouping").unwrap(), cuts.floats("p_value").unwrap()), (vec!["labels"], &[None][..]));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    for said in ["There are two: demo:blind and demo:backup", "cannot be tested", "at too few prompts"] {
        assert!(report.contains(said), "{said}: {report}");
    }
    assert!(out.join("map.png").exists() && out.join("distances.svg").exists() && !out.join("cuts.png").exists());
}

/// A checkpoint is often saved without its tokenizer: it reads what the parent does.
#[test]
fn a_pattern_finds_checkpoints_and_one_without_a_tokenizer_reads_its_parents_tokens() {
    let bench = Bench::new();
    let demo = gatelens::demo::folder().unwrap().join("backup");
    for name in ["checkpoint-20", "checkpoint-7"] {
        let folder = bench.path(name);
        std::fs::create_dir(&folder).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(demo.join(file), folder.join(file)).unwrap();
        }
    }
    std::fs::create_dir(bench.path("checkpoint-logs")).unwrap();
    let pattern = bench.path("checkpoint-*");
    let out = deltas(&bench, "pattern", &["--children", pattern.to_str().unwrap()]);
    let children = table(&out, "children");
    assert_eq!(children.ints("step").unwrap(), [7, 20]);
    children.floats("norm").unwrap().iter().for_each(|norm| near(*norm, 0.88702));
    near(table(&out, "distances").floats("cosine").unwrap()[0], 0.0);
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("has no tokenizer, so that it reads the parent's tokens"), "{report}");
}

#[test]
fn what_is_no_child_or_no_sum_is_refused_by_its_name() {
    let bench = Bench::new();
    let out = bench.out("refused");
    let refused = |more: &[&str], parts: &[&str]| {
        let words = ["deltas", "demo", "--out", out.to_str().unwrap()];
        gatelens([&words[..], more].concat()).refused(parts);
    };
    let llama = family_dir("llama");
    let nothing = bench.path("nothing-*");
    let labels = bench.dataset("labels.jsonl", &[json!({ "model": "else", "label": "x" })]);
    refused(&["--children", "no/such"], &["no/such"]);
    let wide = ["its stream has 48 numbers and the parent's 64", "llama"];
    refused(&["--children", llama.to_str().unwrap()], &wide);
    refused(&["--children", nothing.to_str().unwrap()], &["nothing-*", "matches no folder of a model"]);
    let sums = |text: &'static str| ["--children", "demo", "--sums", text];
    refused(&sums("demo+demo=demo"), &["--sums", "A + B = C"]);
    refused(&sums("demo + other = demo"), &["--sums", "`other` is none of the children"]);
    let more = ["--children", "demo", "--labels", labels.to_str().unwrap()];
    refused(&more, &["labels.jsonl", "names none of the children"]);
    let words = ["deltas", "demo", "--out", out.to_str().unwrap()];
    gatelens(words).told_by_the_parser(&["--children"]);
}

/// What a dry run counts is of all models.
#[test]
fn a_dry_run_counts_the_prompts_of_every_model() {
    let said = gatelens(["deltas", "demo", "--children", "demo:backup", "--dry-run"]).done();
    assert!(said.contains("10 prompts"), "{said}");
}
