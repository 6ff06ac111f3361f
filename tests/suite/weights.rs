//! Matrices of checkpoints: what numpy and scipy find of them, changes whose measures are known because they were made so, and every
//! family.

use crate::support::cli::{Bench, gatelens};
use crate::support::copies::{Folder, Stored};
use crate::support::fixtures;
use candle_core::{Device, Tensor};
use gatelens::linear::spectrum::{Singular, singular};
use gatelens::table::Table;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn weights(bench: &Bench, name: &str, model: &Path, more: &[&str]) -> PathBuf {
    let out = bench.out(name);
    let words = ["weights", model.to_str().unwrap(), "--out", out.to_str().unwrap(), "--quiet"];
    gatelens([&words[..], more].concat()).done();
    out
}

fn table(dir: &Path, name: &str) -> Table {
    Table::read_parquet(dir.join(format!("{name}.parquet"))).unwrap()
}

/// The number of a row in a column; NaN where it is empty.
fn at(table: &Table, column: &str, row: usize) -> f64 {
    table.floats(column).unwrap()[row].unwrap_or(f64::NAN)
}

/// The row of a tensor of the first model.
fn row_of(table: &Table, tensor: &str) -> usize {
    table.strs("tensor").unwrap().iter().position(|name| *name == tensor).unwrap()
}

fn near(found: f64, known: &Value, what: &str) {
    match known.as_f64() {
        None => assert!(found.is_nan(), "{what}: {found}, expected nothing"),
        Some(known) => assert!((found - known).abs() <= 1e-5 * known.abs().max(1.0), "{what}: {found}, {known}"),
    }
}

#[test]
fn every_measure_is_what_numpy_and_scipy_find() {
    let bench = Bench::new();
    let dir = fixtures().join("checkpoints");
    let parent = fixtures().join("llama");
    let more = ["--against", parent.to_str().unwrap(), "--composition"];
    let out = weights(&bench, "w", &dir.join("child"), &more);
    let known: Value = serde_json::from_slice(&std::fs::read(dir.join("reference.json")).unwrap()).unwrap();
    let matrices = table(&out, "matrices");
    let spectra = table(&out, "spectra");
    let child = spectra.strs("model").unwrap()[0].to_string();
    let same = |i: usize| spectra.strs("model").unwrap()[i] == child;
    let columns = [
        "norm",
        "spectral_norm",
        "stable_rank",
        "effective_rank",
        "top_energy",
        "relative_change",
        "update_sparsity",
        "spectral_drift",
        "angle_left_max",
        "angle_left_mean",
        "angle_right_max",
        "angle_right_mean",
        "in_principal",
        "in_small",
    ];
    let all = known["matrices"].as_array().unwrap();
    assert!(all.len() == 30 && matrices.rows() == 60);
    for matrix in all {
        let tensor = matrix["tensor"].as_str().unwrap();
        let row = row_of(&matrices, tensor);
        for column in columns {
            near(at(&matrices, column, row), &matrix[column], &format!("{tensor} {column}"));
        }
        let tensors = spectra.strs("tensor").unwrap();
        let own: Vec<usize> = (0..spectra.rows()).filter(|i| same(*i) && tensors[*i] == tensor).collect();
        let values = matrix["spectrum"].as_array().unwrap();
        assert_eq!(own.len(), values.len());
        own.iter().zip(values).for_each(|(i, value)| near(at(&spectra, "value", *i), value, tensor));
    }
    let heads = table(&out, "heads");
    for (row, head) in known["heads"].as_array().unwrap().iter().enumerate() {
        for (column, value) in
            head.as_object().unwrap().iter().filter(|(name, _)| !["layer", "head"].contains(&name.as_str()))
        {
            near(at(&heads, column, row), value, &format!("{head} {column}"));
        }
    }
    let layers = table(&out, "layers");
    for (row, layer) in known["layers"].as_array().unwrap().iter().enumerate() {
        near(at(&layers, "gate_norm", row), &layer["gate_norm"], "gate_norm");
    }
    let composition = table(&out, "composition");
    let ints = |name: &str| composition.ints(name).unwrap().to_vec();
    let places = ["writer_layer", "writer_head", "reader_layer", "reader_head"].map(ints);
    let parts = composition.strs("part").unwrap();
    for pair in known["composition"].as_array().unwrap() {
        let wanted: Vec<i64> = ["writer", "reader"]
            .iter()
            .flat_map(|end| pair[end].as_array().unwrap())
            .map(|n| n.as_i64().unwrap())
            .collect();
        for part in ["q", "k", "v"] {
            let row = (0..composition.rows())
                .find(|i| parts[*i] == part && places.iter().zip(&wanted).all(|(place, n)| place[*i] == *n))
                .unwrap();
            near(at(&composition, "score", row), &pair[part], &format!("{pair} {part}"));
        }
    }
}

/// A matrix that constructions change.
const TENSOR: &str = "model.layers.1.mlp.up_proj.weight";

/// The parent, its matrix, and how many of its singular values count as principal.
struct Parent {
    folder: Folder,
    values: Vec<f32>,
    shape: [usize; 2],
    apart: Singular,
}

const PRINCIPAL: usize = 4;

impl Parent {
    fn new() -> Parent {
        let folder = Folder::of("llama");
        let stored = folder.tensors()[TENSOR].clone();
        let (values, shape) = (stored.values(), [stored.shape[0], stored.shape[1]]);
        let tensor = Tensor::from_vec(values.clone(), (shape[0], shape[1]), &Device::Cpu).unwrap();
        let apart = singular(&tensor, shape[0].min(shape[1]), 4096).unwrap();
        Parent { folder, values, shape, apart }
    }

    fn vectors(&self, of: &Tensor) -> Vec<Vec<f64>> {
        of.to_vec2::<f64>().unwrap()
    }

    /// The row of `matrices.parquet` of a child whose matrix is the parent's plus this.
    fn child(&self, plus: impl Fn(usize, usize) -> f64) -> Measured {
        let columns = self.shape[1];
        let changed = |i: usize, x: f32| (f64::from(x) + plus(i / columns, i % columns)) as f32;
        let values: Vec<f32> = self.values.iter().enumerate().map(|(i, x)| changed(i, *x)).collect();
        let child = Folder::of("llama").weights(|tensors| {
            tensors.insert(TENSOR.to_string(), Stored::floats(&self.shape, &values));
        });
        let bench = Bench::new();
        let more = ["--against", self.folder.path().to_str().unwrap(), "--tensors", TENSOR];
        let matrices = table(&weights(&bench, "w", child.path(), &more), "matrices");
        Measured { matrices }
    }
}

struct Measured {
    matrices: Table,
}

impl Measured {
    fn of(&self, column: &str) -> f64 {
        at(&self.matrices, column, 0)
    }
}

#[test]
fn a_principal_update_drifts_without_turning() {
    let parent = Parent::new();
    let (left, right) = (parent.vectors(&parent.apart.left), parent.vectors(&parent.apart.right));
    let s = &parent.apart.values;
    // Each principal value grows by half of itself.
    let found = parent.child(|i, j| (0..PRINCIPAL).map(|k| 0.5 * s[k] * left[k][i] * right[k][j]).sum());
    let grown: f64 = s[..PRINCIPAL].iter().map(|s| (0.5 * s).powi(2)).sum();
    let all: f64 = s.iter().map(|s| s * s).sum();
    let known = (grown / all).sqrt();
    assert!((found.of("spectral_drift") - known).abs() < 1e-5 && (found.of("relative_change") - known).abs() < 1e-5);
    assert!(found.of("angle_left_max") < 0.01 && found.of("angle_right_max") < 0.01);
    assert!(found.of("in_principal") > 0.1, "{}", found.of("in_principal"));
}

#[test]
fn a_rotated_matrix_turns_without_drifting() {
    let parent = Parent::new();
    let (left, right) = (parent.vectors(&parent.apart.left), parent.vectors(&parent.apart.right));
    let (s, last) = (&parent.apart.values, parent.apart.values.len() - 1);
    for degrees in [0.5f64, 20.0, 70.0] {
        let (sin, cos) = degrees.to_radians().sin_cos();
        // The first left vector turns towards the last, and that one away.
        let found = parent.child(|i, j| {
            let first = cos * left[0][i] + sin * left[last][i] - left[0][i];
            let other = cos * left[last][i] - sin * left[0][i] - left[last][i];
            s[0] * first * right[0][j] + s[last] * other * right[last][j]
        });
        assert!(found.of("spectral_drift") < 1e-6, "{}", found.of("spectral_drift"));
        assert!((found.of("angle_left_max") - degrees).abs() < 2e-3, "{} {degrees}", found.of("angle_left_max"));
        assert!((found.of("angle_left_mean") - degrees / PRINCIPAL as f64).abs() < 2e-3);
        assert!(found.of("angle_right_max") < 2e-3, "{}", found.of("angle_right_max"));
    }
}

#[test]
fn a_sparse_update_of_small_weights_is_found_there() {
    let parent = Parent::new();
    let mut order: Vec<usize> = (0..parent.values.len()).collect();
    order.sort_by(|a, b| parent.values[*a].abs().total_cmp(&parent.values[*b].abs()));
    let chosen: std::collections::BTreeSet<usize> = order[..parent.values.len() / 20].iter().copied().collect();
    let columns = parent.shape[1];
    let found = parent.child(|i, j| if chosen.contains(&(i * columns + j)) { 0.5 } else { 0.0 });
    assert!((found.of("in_small") - 1.0).abs() < 1e-9, "{}", found.of("in_small"));
    let unchanged = 1.0 - chosen.len() as f64 / parent.values.len() as f64;
    assert!((found.of("update_sparsity") - unchanged).abs() < 1e-6);
    // The child that nothing happened to has no changed entry to speak of.
    let same = parent.child(|_, _| 0.0);
    assert!(same.of("update_sparsity") == 1.0 && same.of("relative_change") == 0.0);
    assert!(
        same.matrices.columns().all(|column| column.name != "in_small"),
        "nothing changed, so nothing lies anywhere"
    );
}

#[test]
fn steps_of_a_training_stand_in_their_order_with_curves() {
    let bench = Bench::new();
    let parent = Folder::of("llama");
    let training = tempfile::TempDir::new().unwrap();
    for step in [100, 20, 3] {
        let child = Folder::of("llama").weights(|tensors| {
            let tensor = tensors.get_mut(TENSOR).unwrap();
            let values: Vec<f32> = tensor.values().iter().map(|x| x * (1.0 + step as f32 / 100.0)).collect();
            *tensor = Stored::floats(&tensor.shape.clone(), &values);
        });
        let to = training.path().join(format!("checkpoint-{step}"));
        std::fs::create_dir(&to).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(child.file(file), to.join(file)).unwrap();
        }
    }
    let [first, pattern] = ["checkpoint-3", "checkpoint-*"].map(|name| training.path().join(name));
    let more = ["--children", pattern.to_str().unwrap(), "--against", parent.path().to_str().unwrap()];
    let out = weights(&bench, "w", &first, &more);
    let changes = table(&out, "changes");
    let (kinds, measures) = (changes.strs("kind").unwrap(), changes.strs("measure").unwrap());
    let rows = (0..changes.rows()).filter(|i| kinds[*i] == "mlp.up_proj" && measures[*i] == "relative_change");
    let found: Vec<(f64, f64)> = rows.map(|i| (at(&changes, "step", i), at(&changes, "mean", i))).collect();
    assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [3.0, 20.0, 100.0]);
    // One of four layers changed by that share.
    assert!(found.iter().all(|(step, mean)| (mean - step / 400.0).abs() < 1e-5), "{found:?}");
    assert!(out.join("steps-drift.png").is_file());
}

#[test]
fn every_family_has_matrices_and_heads_where_it_attends() {
    let bench = Bench::new();
    let dir = fixtures().join("families");
    let mut names: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.join("config.json").is_file());
    names.sort();
    assert!(names.len() > 60);
    let mut with_heads = 0;
    for path in &names {
        let name = path.file_name().unwrap().to_str().unwrap();
        let out = weights(&bench, name, path, &[]);
        let matrices = table(&out, "matrices");
        assert!(matrices.rows() > 0, "{name}");
        assert!((0..matrices.rows()).all(|row| at(&matrices, "norm", row) > 0.0), "{name}");
        with_heads += usize::from(table(&out, "heads").rows() > 0);
    }
    assert!(with_heads > 50, "{with_heads} of {}", names.len());
}

#[test]
fn what_does_not_match_is_named() {
    let bench = Bench::new();
    let (parent, out) = (Folder::of("llama"), bench.out("w"));
    let run = |child: &Path, more: &[&str]| {
        let words = ["weights", child.to_str().unwrap(), "--against", parent.path().to_str().unwrap(), "--out"];
        gatelens([&words[..], &[out.to_str().unwrap()], more].concat())
    };
    run(&fixtures().join("gpt2"), &[]).refused(&["has no matrix of a name that", "wpe.weight", "of one family"]);
    run(&fixtures().join("qwen3"), &["--tensors", "*no_such*"]).refused(&["no matrix has such a name", "*no_such*"]);
    let wide = Folder::of("llama").key("intermediate_size", 40.into()).weights(|tensors| {
        for (name, tensor) in tensors.iter_mut().filter(|(name, _)| name.contains(".mlp.")) {
            let down = name.contains("down_proj");
            let values = tensor.values();
            let shape = if down { vec![tensor.shape[0], 40] } else { vec![40, tensor.shape[1]] };
            let n = shape[0] * shape[1];
            *tensor = Stored::floats(&shape, &values[..n]);
        }
    });
    run(wide.path(), &[]).refused(&["mlp.down_proj.weight", "48 by 40", "compare models of one shape", "--tensors"]);
    run(parent.path(), &["--children", "/nowhere/checkpoint-*"])
        .refused(&["/nowhere/checkpoint-*", "matches no folder of a model"]);
}

/// GPT-2 stores its matrices turned; an adapter's changes are turned with them.
#[test]
fn an_adapter_of_a_turned_checkpoint_is_measured_as_what_it_is_merged_to() {
    let bench = Bench::new();
    let (adapter, merged) = (fixtures().join("lora_gpt2"), bench.out("merged"));
    let words = ["merge", adapter.to_str().unwrap(), "--out", merged.to_str().unwrap(), "--quiet"];
    gatelens(words).done();
    let alone = table(&weights(&bench, "alone", &adapter, &[]), "matrices");
    let both = table(&weights(&bench, "both", &merged, &["--against", adapter.to_str().unwrap()]), "matrices");
    assert!(alone.rows() == 18 && both.rows() == 36);
    assert!((0..18).all(|row| at(&both, "relative_change", row) < 1e-6 && at(&both, "update_sparsity", row) == 1.0));
    assert!((0..18).all(|row| (at(&alone, "norm", row) - at(&both, "norm", row)).abs() < 1e-5));
    // A coefficient multiplies a difference; of an adapter alone there is none.
    let other = bench.out("half");
    let half = ["merge", adapter.to_str().unwrap(), "--scale", "0.5", "--out", other.to_str().unwrap()];
    gatelens(half).refused(&["no coefficients that --scale could multiply", "0.5*"]);
}

#[test]
fn quantised_weights_are_not_mixed() {
    let bench = Bench::new();
    let quantised =
        Folder::of("llama").key("quantization_config", serde_json::json!({ "quant_method": "gptq", "bits": 4 }));
    let (plain, out) = (Folder::of("llama"), bench.out("merged"));
    let term = format!("0.5*{}", quantised.path().display());
    let words = ["merge", plain.path().to_str().unwrap(), "--add", &term, "--out", out.to_str().unwrap()];
    gatelens(words).refused(&["quantization_config", "gptq"]);
    assert!(!out.exists());
}
