//! Exchanged edges: against values of an independent implementation, and the engines against each other.

use crate::support::open;
use gatelens::model::Model;
use gatelens::plan::{Edge, Exchange, Graph, Handle, Metric, Plan, Positions, Run};
use gatelens::run::{Engine, Options, run};
use std::collections::HashMap;
use std::path::Path;

/// Independent values (`edges_golden.py`): all edges of two prompts, and circuits.
struct Edges {
    names: Vec<Edge>,
    tensors: HashMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Edges {
    fn of(family: &str) -> Edges {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/edges/{family}.safetensors"));
        let bytes = std::fs::read(&path).expect("golden edges");
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
        let names = metadata.metadata().clone().expect("metadata")["edges"].clone();
        let names: Vec<String> = serde_json::from_str(&names).expect("names");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
        let values = |view: safetensors::tensor::TensorView| -> Vec<f64> {
            match view.dtype() {
                safetensors::Dtype::F32 => {
                    view.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
                }
                safetensors::Dtype::I64 => view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
                _ => view.data().iter().map(|b| f64::from(*b)).collect(),
            }
        };
        let tensors = tensors.tensors().into_iter().map(|(name, view)| (name, (view.shape().to_vec(), values(view))));
        Edges { names: names.iter().map(|name| name.parse().expect("an edge")).collect(), tensors: tensors.collect() }
    }

    fn row(&self, name: &str, i: usize) -> Vec<f64> {
        let (shape, values) = &self.tensors[name];
        let width: usize = shape[1..].iter().product();
        values[i * width..(i + 1) * width].to_vec()
    }

    fn ids(&self, name: &str, i: usize) -> Vec<u32> {
        self.row(name, i).into_iter().map(|id| id as u32).collect()
    }
}

const FAMILIES: [&str; 4] = ["gpt2", "gpt_neox", "llama", "gemma2"];

fn metric() -> Metric {
    Metric::logit_difference(vec![11], vec![23])
}

/// The metric of a prompt with each set of edges taken from its donor.
fn taken(model: &Model, golden: &Edges, i: usize, sets: &[Vec<Edge>], engine: Engine) -> Vec<f64> {
    let mut plan = Plan::default();
    let [base, donor] = ["input_ids", "donor_ids"].map(|name| plan.prompt(name, golden.ids(name, i)));
    let exchange = |edges: &Vec<Edge>| Exchange { donor, edges: edges.clone().into(), positions: Positions::All };
    let mut asked: Vec<Handle<f64>> = Vec::new();
    for edges in sets {
        let run: Run = if edges.is_empty() { base } else { plan.exchange(base, exchange(edges)) };
        asked.push(plan.read(run, metric()));
    }
    let readings = run(&model.decoder, &plan, &Options { engine, ..Options::default() }).unwrap_or_else(|e| panic!("{e}"));
    asked.into_iter().map(|metric| readings[metric]).collect()
}

#[test]
fn every_edge_has_the_effect_that_it_has_by_an_independent_implementation() {
    for family in FAMILIES {
        let (model, golden) = (open(family), Edges::of(family));
        let edges: Vec<Edge> = Graph::of(&model.decoder.arch).edges().collect();
        assert_eq!(edges, golden.names, "{family}");
        for i in 0..2 {
            let sets: Vec<Vec<Edge>> = std::iter::once(Vec::new()).chain(edges.iter().map(|e| vec![*e])).collect();
            let found = taken(&model, &golden, i, &sets, Engine::Wavefront);
            let exact = golden.row("exact", i);
            for ((edge, metric), exact) in edges.iter().zip(&found[1..]).zip(exact) {
                let effect = metric - found[0];
                assert!((effect - exact).abs() < 1e-4, "{family} {i} {edge}: {effect} {exact}");
            }
        }
    }
}

#[test]
fn circuits_and_random_sets_have_their_metrics_and_all_edges_give_the_donors() {
    for family in FAMILIES {
        let (model, golden) = (open(family), Edges::of(family));
        let edges = &golden.names;
        for i in 0..2 {
            let kept = |mask: &[f64]| -> Vec<Edge> {
                edges.iter().zip(mask).filter(|(_, kept)| **kept == 0.0).map(|(edge, _)| *edge).collect()
            };
            let mut sets: Vec<Vec<Edge>> = (0..12).map(|k| kept(&golden.row("random_kept", k))).collect();
            sets.push(edges.clone());
            let mut expected: Vec<f64> = (0..12).map(|k| golden.row("random_metric", k)[i]).collect();
            expected.push(golden.row("metric_donor", i)[0]);
            for engine in [Engine::Full, Engine::Wavefront] {
                let found = taken(&model, &golden, i, &sets, engine);
                for (k, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert!((found - expected).abs() < 1e-4, "{family} {engine} {i}, set {k}: {found} {expected}");
                }
            }
        }
    }
}
