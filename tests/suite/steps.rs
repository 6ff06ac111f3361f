//! Checkpoints of one training, followed over its steps: of the demo, whose gate is weakened step by step.

use crate::support::cli::{Bench, gatelens};
use crate::support::copies::{Stored, serialized};
use gatelens::demo;
use gatelens::table::Table;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The demo's gate, and how much of what it writes is left at each step.
const GATE: (usize, usize) = (3, 5);
const STEPS: [(u32, f32); 3] = [(5, 1.0), (10, 0.5), (100, 0.0)];

/// A folder of checkpoints.
fn training() -> tempfile::TempDir {
    let model = demo::folder().unwrap().join("model");
    let bytes = std::fs::read(model.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    for (step, left) in STEPS {
        let to = folder.path().join(format!("checkpoint-{step}"));
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(&model).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
        let stored = |t: &safetensors::tensor::TensorView| Stored {
            dtype: t.dtype(),
            shape: t.shape().to_vec(),
            data: t.data().to_vec(),
        };
        let mut tensors: BTreeMap<String, Stored> =
            file.tensors().iter().map(|(name, tensor)| (name.clone(), stored(tensor))).collect();
        weaken(tensors.get_mut(&format!("model.layers.{}.self_attn.o_proj.weight", GATE.0)).unwrap(), left);
        std::fs::write(to.join("model.safetensors"), serialized(&tensors)).unwrap();
    }
    folder
}

/// Scales the columns of an output projection that read the gate.
fn weaken(projection: &mut Stored, left: f32) {
    let (columns, heads) = (projection.shape[1], 8);
    let width = columns / heads;
    let numbers: Vec<f32> = match projection.dtype {
        safetensors::Dtype::F32 => projection.values(),
        safetensors::Dtype::F16 => halves(&projection.data).map(half::f16::to_f32).collect(),
        _ => projection.data.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
    };
    let of_gate = |i: usize| (i % columns) / width == GATE.1;
    let scaled: Vec<f32> = numbers.iter().enumerate().map(|(i, x)| if of_gate(i) { x * left } else { *x }).collect();
    *projection = Stored::floats(&projection.shape.clone(), &scaled);
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = half::f16> {
    bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]))
}

fn run(bench: &Bench, model: &Path, command: &str, more: &[&str]) -> PathBuf {
    let name = format!("{command}-{}", model.file_name().unwrap().to_str().unwrap());
    let out = bench.out(&name);
    let pairs = ["--pairs", "demo:pairs.jsonl", "--max-pairs", "24"];
    let words = [command, model.to_str().unwrap(), "--out", out.to_str().unwrap(), "--quiet"];
    gatelens([&words[..], &pairs, more].concat()).done();
    out
}

/// The values of a thing, step by step, with whether each has an interval.
fn course(steps: &Table, what: &str, direction: &str, measure: &str) -> Vec<(f64, f64, bool)> {
    let column = |name: &str| steps.strs(name).unwrap();
    let (of, directions, measures) = (column("what"), column("direction"), column("measure"));
    let floats = |name: &str| steps.floats(name).unwrap();
    let (at, values, low) = (floats("step"), floats("value"), floats("ci_low"));
    (0..steps.rows())
        .filter(|i| of[*i] == what && directions[*i] == direction && measures[*i] == measure)
        .map(|i| (at[i].unwrap(), values[i].unwrap(), low[i].is_some()))
        .collect()
}

#[test]
fn a_gate_that_training_weakens_is_followed_by_heads_edges_and_metric() {
    let (bench, training) = (Bench::new(), training());
    let mut runs = Vec::new();
    for (step, _) in STEPS {
        let model = training.path().join(format!("checkpoint-{step}"));
        runs.push(run(&bench, &model, "interchange", &[]));
        runs.push(run(&bench, &model, "edges", &["--of", "L3.H5", "--exact", "all", "--direction", "necessity"]));
    }
    // In another order than they were trained in.
    runs.reverse();
    let out = bench.out("compared");
    let words: Vec<&str> = runs.iter().map(|run| run.to_str().unwrap()).collect();
    let told = gatelens([&["compare"][..], &words, &["--out", out.to_str().unwrap()]].concat()).done();
    assert!(told.contains("steps.parquet"), "{told}");
    let steps = Table::read_parquet(out.join("steps.parquet")).unwrap();
    let gate = course(&steps, "L3.H5", "necessity", "effect");
    assert_eq!(gate.iter().map(|row| row.0).collect::<Vec<_>>(), [5.0, 10.0, 100.0]);
    let effects: Vec<f64> = gate.iter().map(|row| row.1.abs()).collect();
    assert!(effects[0] > 2.0 * effects[2] && effects[2] < 1e-6 && effects[1] < effects[0], "{gate:?}");
    let metric = course(&steps, "positive prompts", "", "metric");
    assert!(metric.len() == 3 && metric[0].1 > metric[2].1 && metric.iter().all(|row| row.2), "{metric:?}");
    // Some edge out of the gate fades with it.
    let (names, measures) = (steps.strs("what").unwrap(), steps.strs("measure").unwrap());
    let edge = (0..steps.rows()).find(|i| names[*i].starts_with("a3.h5->") && measures[*i] == "effect").unwrap();
    let edge = course(&steps, names[edge], "necessity", "effect");
    assert!(edge.len() == 3 && edge[0].1.abs() > edge[2].1.abs() && edge[2].1.abs() < 1e-6, "{edge:?}");
    for figure in ["steps-metric.png", "steps-heads.png", "steps-edges.png"] {
        assert!(out.join(figure).is_file(), "{figure}");
    }
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("Over the steps of training") && report.contains("step 100"), "{report}");
}

#[test]
fn steps_may_stand_in_a_file_and_edges_alone_are_followed() {
    let (bench, training) = (Bench::new(), training());
    let edges = ["--of", "L3.H5", "--direction", "necessity"];
    let models = ["checkpoint-5", "checkpoint-100"].map(|name| training.path().join(name));
    let runs: Vec<PathBuf> = models.iter().map(|model| run(&bench, model, "edges", &edges)).collect();
    let lines: Vec<serde_json::Value> = models
        .iter()
        .zip([0, 7])
        .map(|(model, step)| serde_json::json!({ "model": model.to_str().unwrap(), "step": step }))
        .collect();
    let (file, out) = (bench.dataset("steps.jsonl", &lines), bench.out("compared"));
    let compare = |steps: &Path, out: &Path| {
        let [first, second] = [&runs[0], &runs[1]].map(|run| run.to_str().unwrap());
        gatelens(["compare", first, second, "--steps", steps.to_str().unwrap(), "--out", out.to_str().unwrap()])
    };
    compare(&file, &out).done();
    let steps = Table::read_parquet(out.join("steps.parquet")).unwrap();
    let mut at: Vec<f64> = steps.floats("step").unwrap().iter().flatten().copied().collect();
    at.sort_by(f64::total_cmp);
    at.dedup();
    assert_eq!(at, [0.0, 7.0]);
    assert!(!out.join("checkpoints.parquet").exists());
    let short = bench.dataset("short.jsonl", &lines[..1]);
    compare(&short, &bench.out("other")).refused(&["checkpoint-100", "whose step --steps does not give"]);
    let bad = bench.text("bad.jsonl", "{\"model\": \"a\"}\n");
    compare(&bad, &bench.out("other")).refused(&["bad.jsonl", "line 1", "step"]);
}

#[test]
fn an_experiment_follows_its_checkpoints() {
    let (bench, training) = (Bench::new(), training());
    let spec = format!(
        "title = \"A training\"\nmodels = [\"{}/checkpoint-*\"]\ncompare = \"edges\"\n[defaults]\npairs = \"demo:pairs.jsonl\"\n\
         max_pairs = 16\n[[analysis]]\ncommand = \"edges\"\nof = [\"L3.H5\"]\ndirection = \"necessity\"\n",
        training.path().display()
    );
    let (spec, out) = (bench.text("spec.toml", &spec), bench.out("all"));
    gatelens(["run", spec.to_str().unwrap(), "--out", out.to_str().unwrap(), "--quiet"]).done();
    assert!(out.join("compare-steps.parquet").is_file() && out.join("compare-steps-edges.png").is_file());
    assert!(std::fs::read_to_string(out.join("report.md")).unwrap().contains("Over the steps of training"));
}

/// Models that are no steps of a training are compared by their heads, whatever else an experiment asked of them.
#[test]
fn an_experiments_edges_do_not_hinder_the_comparison_of_its_heads() {
    let bench = Bench::new();
    let spec = "title = \"Two\"\nmodels = [\"demo\", \"demo:blind\"]\n[defaults]\npairs = \"demo:pairs.jsonl\"\nmax_pairs = 8\n\
                [[analysis]]\ncommand = \"interchange\"\n[[analysis]]\ncommand = \"edges\"\nof = [\"L3.H5\"]\n";
    let (spec, all, out) = (bench.text("spec.toml", spec), bench.out("all"), bench.out("compared"));
    gatelens(["run", spec.to_str().unwrap(), "--out", all.to_str().unwrap(), "--quiet"]).done();
    gatelens(["compare", all.to_str().unwrap(), "--out", out.to_str().unwrap()]).done();
    assert!(out.join("checkpoints.parquet").is_file() && !out.join("steps.parquet").exists());
}

/// Four pairs cannot tell one edge of thousands: the largest are followed, and the report says so.
#[test]
fn what_no_step_shows_to_be_there_is_said_to_be_so() {
    let (bench, training) = (Bench::new(), training());
    let few = ["--direction", "necessity", "--exact", "20", "--sample", "0", "--max-pairs", "4"];
    let run = |name: &str| {
        let (model, out) = (training.path().join(name), bench.out(name));
        let words = [
            "edges",
            model.to_str().unwrap(),
            "--pairs",
            "demo:pairs.jsonl",
            "--out",
            out.to_str().unwrap(),
            "--quiet",
        ];
        gatelens([&words[..], &few].concat()).done();
        out
    };
    let (runs, out) = (["checkpoint-5", "checkpoint-10"].map(run), bench.out("compared"));
    let [first, second] = [&runs[0], &runs[1]].map(|run| run.to_str().unwrap());
    gatelens(["compare", first, second, "--out", out.to_str().unwrap()]).done();
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("Edges over training: none is significant at any step"), "{report}");
}
