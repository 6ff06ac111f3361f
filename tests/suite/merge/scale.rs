//! The metric of pairs at several scales of a mixture.

use super::*;
use crate::support::cli::pair;
use gatelens::analyses::checkpoints::scale::Scale;
use gatelens::plan::{Metric, Plan};
use gatelens::run::{self, run};
use gatelens::study::{self, Study};
use gatelens::table::Table;

/// Prompts of pairs, the positive one's and the negative one's.
fn ids(i: u32) -> [Vec<u32>; 2] {
    [vec![5 + i, 9, 17 + 2 * i, 33], vec![7 + 3 * i, 9, 21, 40 + i]]
}

const PAIRS: u32 = 6;

fn pairs(bench: &Bench) -> PathBuf {
    let lines: Vec<Value> = (0..PAIRS)
        .map(|i| {
            let [positive, negative] = ids(i);
            pair(&format!("p{i}"), &positive, &negative)
        })
        .collect();
    bench.dataset("pairs.jsonl", &lines)
}

/// The metrics of one kind of prompts.
fn metrics(model: &Model, side: usize) -> Vec<f64> {
    let mut plan = Plan::default();
    let asked: Vec<_> = (0..PAIRS)
        .map(|i| {
            let prompt = plan.prompt("p", ids(i)[side].clone());
            plan.read(prompt, Metric::logit_difference(vec![11], vec![23]))
        })
        .collect();
    let readings = run(&model.decoder, &plan, &run::Options::default()).expect("readings");
    asked.into_iter().map(|handle| readings[handle]).collect()
}

/// A recipe in a file of its own, with the models that it is of.
fn mix(bench: &Bench) -> (PathBuf, Recipe, [Folder; 2]) {
    let (base, a) = (Folder::of("llama"), child("llama", 1));
    let recipe = recipe(&base, vec![term(0.5, &a, None, &[])]);
    let text = format!("base = {:?}\n[[term]]\ncoefficient = 0.5\nplus = {:?}\n", text(base.path()), text(a.path()));
    (bench.text("mix.toml", &text), recipe, [base, a])
}

#[test]
fn each_scale_is_measured_on_the_mixture_of_that_scale() {
    let bench = Bench::new();
    let (file, recipe, _folders) = mix(&bench);
    let (pairs, out) = (pairs(&bench), bench.out("scale"));
    let words = ["scale", file.to_str().unwrap(), "--pairs", pairs.to_str().unwrap(), "--at", "-1,0.5,1", "--quiet"];
    let dry = gatelens([&words[..], &["--dry-run", "--json"]].concat()).done();
    let dry: Value = serde_json::from_str(&dry).expect("JSON");
    assert_eq!(dry["wavefront"]["prompts"], json!(4 * 2 * PAIRS), "{dry}");
    gatelens([&words[..], &["--out", out.to_str().unwrap()]].concat()).done();
    let table = Table::read_parquet(out.join("scale.parquet")).expect("a table");
    let (scales, sides) = (table.floats("scale").unwrap(), table.strs("side").unwrap());
    let (means, changes) = (table.floats("metric_mean").unwrap(), table.floats("change_mean").unwrap());
    assert_eq!(sides, [["positive"; 4], ["negative"; 4]].concat());
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    for (row, (scale, side)) in scales.iter().zip(&sides).enumerate() {
        let (scale, side) = (scale.unwrap(), usize::from(*side == "negative"));
        assert_eq!(scale, [-1.0, 0.0, 0.5, 1.0][row % 4]);
        let at = |by: f64| mean(&metrics(&opened(&recipe.scaled(by)), side));
        assert!((means[row].unwrap() - at(scale)).abs() < 1e-6, "{scale}: {:?} and {}", means[row], at(scale));
        match changes[row] {
            None => assert_eq!(scale, 0.0),
            Some(change) => assert!((change - (at(scale) - at(0.0))).abs() < 1e-6 && scale != 0.0),
        }
    }
    let of_pairs = Table::read_parquet(out.join("pairs.parquet")).expect("a table");
    assert_eq!(of_pairs.rows(), 8 * PAIRS as usize);
    let report = std::fs::read_to_string(out.join("report.md")).expect("a report");
    for said in
        ["The mixture is `", "After positive prompts the mean logit difference of the base is", "The largest change is"]
    {
        assert!(report.contains(said), "no `{said}` in {report}");
    }
    assert!(
        listed(&out).contains(&"scale.png".to_string()) && listed(&out).contains(&"halves-negative.png".to_string())
    );
}

#[test]
fn a_study_of_a_recipe_in_memory_needs_no_file() {
    let bench = Bench::new();
    let (_, recipe, _folders) = mix(&bench);
    let scale = Scale { pairs: pairs(&bench).as_path().into(), at: "0,2".parse().expect("a grid") };
    let tables = study::run(&scale, &Study::of(opened(&recipe))).expect("tables").tables;
    let table = tables.iter().find(|table| table.name() == "scale").expect("a table");
    assert_eq!(table.floats("scale").unwrap(), [Some(0.0), Some(2.0), Some(0.0), Some(2.0)]);
}

#[test]
fn a_model_that_is_no_mixture_has_no_scale() {
    let bench = Bench::new();
    let (model, pairs) = (family_dir("llama"), pairs(&bench));
    let words = ["scale", model.to_str().unwrap(), "--pairs", pairs.to_str().unwrap(), "--dry-run"];
    gatelens(words).refused(&["`scale` needs a recipe", ".toml"]);
    let (file, _, _folders) = mix(&bench);
    let words = ["scale", file.to_str().unwrap(), "--pairs", pairs.to_str().unwrap(), "--quiet", "--dry-run", "--at"];
    gatelens([&words[..], &["0"]].concat()).refused(&["--at", "the base alone is no scale"]);
    gatelens([&words[..], &["1e60"]].concat()).told_by_the_parser(&["thousand million"]);
}
