//! Function vectors from the command line: what is written, and that other commands read it.

use crate::support::cli::{Bench, gatelens};
use gatelens::table::Table;
use std::path::{Path, PathBuf};

fn task(bench: &Bench) -> PathBuf {
    let words = ["bread", "rivers", "mountains", "cheese", "music", "gardens", "trees", "birds", "books", "soup"];
    let line =
        |i: usize| format!("{{\"input\": \"{}\", \"output\": \"{}\"}}\n", words[i], words[(i + 1) % words.len()]);
    bench.text("task.jsonl", &(0..words.len()).map(line).collect::<String>())
}

fn functions(bench: &Bench, name: &str, more: &[&str]) -> PathBuf {
    let (task, out) = (task(bench), bench.out(name));
    let words = ["functions", "demo", "--task", task.to_str().unwrap(), "--out", out.to_str().unwrap(), "--quiet"];
    let small = ["--shots", "2", "--trials", "4", "--heads", "3", "--random", "2"];
    gatelens([&words[..], &small, more].concat()).done();
    out
}

fn floats(dir: &Path, table: &str, column: &str) -> Vec<Option<f64>> {
    Table::read_parquet(dir.join(format!("{table}.parquet"))).unwrap().floats(column).unwrap().to_vec()
}

#[test]
fn a_function_vector_is_written_and_added_to_another_and_steered_with() {
    let bench = Bench::new();
    let first = functions(&bench, "first", &[]);
    let report = std::fs::read_to_string(first.join("report.md")).unwrap();
    for said in ["Does the vector do the task?", "Which heads carry it", "What it says", "were read as text"] {
        assert!(report.contains(said), "{said}: {report}");
    }
    let file = first.join("function.safetensors");
    let read = |dir: &Path| {
        let path = dir.join("function.safetensors");
        let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
        tensors["function"].to_vec1::<f32>().unwrap()
    };
    let both = functions(&bench, "both", &["--add", file.to_str().unwrap()]);
    let (own, twice) = (read(&first), read(&both));
    assert!(own.iter().any(|x| x.abs() > 1e-3));
    own.iter().zip(&twice).for_each(|(a, b)| assert!((2.0 * a - b).abs() < 1e-6, "{a} and {b}"));
    // Three times the vector is that vector three times: the same as a coefficient.
    let three = functions(&bench, "three", &["--coefficient", "2", "--layers", "4"]);
    let once = functions(&bench, "once", &["--add", file.to_str().unwrap(), "--layers", "4"]);
    let of = |dir: &Path| floats(dir, "items", "logprob");
    for (a, b) in of(&three).iter().zip(of(&once)) {
        assert!((a.unwrap() - b.unwrap()).abs() < 1e-4, "{a:?} and {b:?}");
    }
    // After two layers in a row it acts otherwise than after one.
    let spread = functions(&bench, "spread", &["--coefficient", "2", "--layers", "4", "--spread", "2"]);
    assert_ne!(of(&spread), of(&three));
    let (prompts, out) = (bench.text("p.jsonl", "{\"prompt\": \"Tell me about bread.\"}\n"), bench.out("steer"));
    let words = ["steer", "demo", "--prompts", prompts.to_str().unwrap(), "--vector", file.to_str().unwrap()];
    let more = ["--layer", "4", "--answer", "Sorry", "--foil", "Sure", "--out", out.to_str().unwrap(), "--quiet"];
    gatelens([&words[..], &more].concat()).done();
}

#[test]
fn vectors_of_another_width_and_words_without_room_are_refused() {
    let bench = Bench::new();
    let task = task(&bench);
    let vector = candle_core::Tensor::new(&[1f32, 2.0], &candle_core::Device::Cpu).unwrap();
    let path = bench.path("v.safetensors");
    candle_core::safetensors::save(&std::collections::HashMap::from([("v", vector)]), &path).unwrap();
    let refused = |more: &[&str], said: &str| {
        let out = bench.out("refused");
        let words = ["functions", "demo", "--task", task.to_str().unwrap(), "--out", out.to_str().unwrap()];
        gatelens([&words[..], more].concat()).refused(&[said]);
    };
    refused(&[], "8 examples need 9 and 2");
    refused(&["--shots", "2", "--template", "Q"], "--template: `Q` has no {input}");
    refused(&["--shots", "2", "--natural", "X"], "--natural: `X` has no {input}");
    refused(&["--shots", "2", "--add", path.to_str().unwrap()], "the vector has 2 numbers, the model's stream 64");
}
