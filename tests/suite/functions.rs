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

/// A row of the committed tables: a share in percent, with its interval if it is asked for.
fn percent(of: &Table, row: usize, with_interval: bool) -> String {
    let value = |name: &str| (100.0 * of.floats(name).unwrap()[row].unwrap()).round();
    let share = format!("{} %", value("accuracy"));
    if with_interval { format!("{share} ({} to {})", value("ci_low"), value("ci_high")) } else { share }
}

/// What docs/inside.md says of twelve tasks in Qwen2.5-Coder-0.5B is what the committed tables say.
#[test]
fn what_is_written_of_tasks_in_a_model_is_what_its_tables_say() {
    const FORM: &str = "Q: {input}\\nA:";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/inside.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| task | after examples |")).skip(2);
    let rows: Vec<Vec<&str>> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), 12);
    for (i, row) in rows.iter().enumerate() {
        let (name, words) = row[0].trim_end_matches(" words)").trim_end_matches(')').rsplit_once(" (").unwrap();
        let folder = match name {
            "English to French" => "english-french".to_string(),
            // The first word names the folder: `languages of countries`.
            _ if name.contains(" of ") => name.split(' ').next().unwrap().to_string(),
            _ => name.replace(' ', "-"),
        };
        let dir = root.join("reports/functions-qwen2.5-coder-0.5b").join(&folder);
        let read = |table: &str| Table::read_parquet(dir.join(format!("{table}.parquet"))).unwrap();
        let (accuracy, summary) = (read("accuracy"), read("summary"));
        let [form, vector, of_words] = ["form", "vector", "words"].map(|name| accuracy.strs(name).unwrap());
        let examples = vector.iter().position(|v| *v == "examples").unwrap();
        assert_eq!(row[1], percent(&accuracy, examples, false), "{name}, after examples");
        // The layer is the one that is best for the words for training.
        let once: Vec<usize> = (0..accuracy.rows())
            .filter(|r| vector[*r] == "function" && form[*r] == FORM)
            .filter(|r| accuracy.floats("coefficient").unwrap()[*r] == Some(1.0))
            .collect();
        let float = |name: &str, r: usize| accuracy.floats(name).unwrap()[r].unwrap();
        let best = once.iter().filter(|r| of_words[**r] == "training").max_by(|a, b| {
            let key = |r: usize| (float("accuracy", r), float("logprob_mean", r));
            key(**a).partial_cmp(&key(**b)).unwrap()
        });
        let layer = |r: usize| accuracy.ints("layer").unwrap()[r];
        let best = layer(*best.unwrap());
        let held = once.iter().find(|r| of_words[**r] == "held out" && layer(**r) == best).unwrap();
        assert_eq!(row[2], percent(&accuracy, *held, true), "{name}, once");
        let chosen = summary.strs("form").unwrap().iter().position(|f| *f == FORM).unwrap();
        let column = |name: &str| summary.floats(name).unwrap()[chosen].unwrap();
        assert_eq!(summary.ints("n").unwrap()[chosen].to_string(), words, "{name}");
        let times = match column("coefficient") {
            1.0 => "no more than once",
            2.0 => "twice",
            _ => "four times",
        };
        match row[3] {
            "no more than once" => assert_eq!(times, row[3], "{name}"),
            said if said.ends_with("times") || said.ends_with("twice") => {
                assert_eq!(said, format!("{}, {times}", percent(&summary, chosen, true)), "{name}");
            }
            said => assert_eq!(said, percent(&summary, chosen, true), "{name}"),
        }
        assert!(column("without") < 0.08 && column("random") < 0.08, "{name}");
        let beyond = column("gain_ci_low") > 0.0 && column("over_random_ci_low") > 0.0 && column("p_value") < 0.05;
        assert_eq!(beyond, i < 8, "{name} does more than nothing and more than random heads");
    }
}
