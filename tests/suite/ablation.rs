//! What ablation puts in place of a head: zeros, the reference set's mean, another prompt's value; held to golden values and
//! to forks made by hand.

use crate::support::cli::{Bench, Ended, gatelens};
use crate::support::{Golden, assert_close, family_dir, open};
use gatelens::plan::{Activation, Change, Edit, Metric, Part, Plan, Positions, What};
use gatelens::run::{Options, run};
use gatelens::site::SiteKind;
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::Path;

fn prompt(id: &str, ids: &[u32]) -> Value {
    json!({ "id": id, "prompt": { "ids": ids }, "answer": [11], "foil": [23] })
}

fn ablate(prompts: &Path, out: &Path, more: &[&str]) -> Ended {
    let (model, prompts, out) = (family_dir("llama"), prompts.to_str().unwrap(), out.to_str().unwrap());
    let words = ["ablate", model.to_str().unwrap(), "--prompts", prompts, "--out", out, "--quiet"];
    gatelens([&words[..], more].concat())
}

/// Every item's metric under the ablation of every head: `[item, layer, head]`, as golden values are.
fn ablated(bench: &Bench, prompts: &[Value], more: &[&str]) -> Vec<f32> {
    let (path, out) = (bench.dataset("prompts.jsonl", prompts), bench.out(&bench.written().len().to_string()));
    ablate(&path, &out, more).done();
    let items = Table::read_parquet(out.join("items.parquet")).unwrap();
    let metrics: Vec<f32> = items.floats("ablated_metric").unwrap().iter().map(|m| m.unwrap() as f32).collect();
    let units = metrics.len() / prompts.len();
    (0..prompts.len()).flat_map(|i| (0..units).map(move |u| u * prompts.len() + i)).map(|k| metrics[k]).collect()
}

fn both(golden: &Golden, name: &str) -> Vec<Value> {
    (0..2).map(|i| prompt(&i.to_string(), &golden.ids(name, i))).collect()
}

#[test]
fn heads_set_to_zero_move_the_metric_as_in_transformers() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let found = ablated(&bench, &both(&golden, "input_ids"), &["--mode", "zero", "--position", "all"]);
    assert_close("zero", &found, &golden.values("zero_ablation"), 1e-4, 0.0);
}

#[test]
fn heads_set_to_the_references_mean_are_those_of_forks_made_by_hand() {
    let (bench, golden, model) = (Bench::new(), Golden::of("llama"), open("llama"));
    let reference = bench.dataset("reference.jsonl", &both(&golden, "donor_ids"));
    for (name, positions) in [("last", Positions::Last), ("all", Positions::All)] {
        let more = ["--mode", "mean", "--reference", reference.to_str().unwrap(), "--position", name];
        let found = ablated(&bench, &both(&golden, "input_ids"), &more);

        let mut plan = Plan::default();
        for i in 0..2 {
            let donor = plan.prompt("donor", golden.ids("donor_ids", i));
            for layer in 0..model.decoder.arch.n_layers {
                let site = SiteKind::Z.at(layer);
                plan.read(donor, Activation { site, positions: positions.clone(), part: Part::All });
            }
        }
        let values = run(&model.decoder, &plan, &Options::default()).unwrap();
        let (layers, width) = (model.decoder.arch.n_layers, model.decoder.arch.d_head);
        let mean = |layer: usize, head: usize| -> Vec<f32> {
            let rows: Vec<&[f32]> = [layer, layers + layer].iter().flat_map(|k| values[*k].rows()).collect();
            let column = |c: usize| rows.iter().map(|r| r[head * width + c]).sum::<f32>() / rows.len() as f32;
            (0..width).map(column).collect()
        };
        let mut plan = Plan::default();
        for i in 0..2 {
            let prompt = plan.prompt("prompt", golden.ids("input_ids", i));
            for (layer, head) in model.heads() {
                let (site, part, change) = (SiteKind::Z.at(layer), Part::Heads(vec![head]), mean(layer, head).into());
                let edit = Edit { site, part, positions: positions.clone(), change: Change::Set(change) };
                let fork = plan.fork(prompt, vec![edit]);
                plan.read(fork, What::Metric(Metric::logit_difference(vec![11], vec![23])));
            }
        }
        let expected = run(&model.decoder, &plan, &Options::default()).unwrap();
        let expected: Vec<f32> = expected.iter().flat_map(|r| r.values()).collect();
        assert_close(name, &found, &expected, 1e-5, 0.0);
    }
}

/// Of a reference set of a prompt and its donor only the donor may be drawn: an interchange.
#[test]
fn a_prompt_is_never_drawn_for_itself_though_the_reference_set_has_it() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    for i in 0..2 {
        let (own, donor) = (golden.ids("input_ids", i), golden.ids("donor_ids", i));
        let reference = bench.dataset("reference.jsonl", &[prompt("own", &own), prompt("donor", &donor)]);
        for (position, golden_name) in [("last", "interchange_last"), ("all", "interchange_all")] {
            let more = ["--mode", "resample", "--reference", reference.to_str().unwrap(), "--position", position];
            let found = ablated(&bench, &[prompt("own", &own)], &[&more[..], &["--draws", "4"]].concat());
            let expected = golden.values(golden_name);
            let expected = &expected[i * found.len()..][..found.len()];
            assert_close(golden_name, &found, expected, 1e-4, 0.0);
        }
    }
}

#[test]
fn what_no_mode_uses_is_refused_and_so_is_a_reference_set_without_another_prompt() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let prompts = bench.dataset("prompts.jsonl", &both(&golden, "input_ids"));
    let path = prompts.to_str().unwrap();
    let refused = |more: &[&str], parts: &[&str]| ablate(&prompts, &bench.out("run"), more).refused(parts);
    refused(&["--reference", path], &["--reference is of --mode mean and resample"]);
    refused(&["--mode", "zero,mean", "--draws", "4"], &["--draws is of --mode resample"]);
    let twice = bench.dataset("twice.jsonl", &["a", "b"].map(|id| prompt(id, &golden.ids("input_ids", 0))));
    let parts = ["prompts.jsonl: line 1", "every prompt of the reference set is this one"];
    refused(&["--mode", "resample", "--reference", twice.to_str().unwrap()], &parts);
}
