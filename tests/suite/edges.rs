//! Exchanged edges: against values of an independent implementation, and the engines against each other.

use crate::support::edges::GoldenEdges;
use crate::support::{FAMILIES, open};
use gatelens::model::Model;
use gatelens::plan::{
    Alignment, Edge, EdgeEffects, EdgeEstimate, EdgeSet, Exchange, Graph, Handle, Metric, Plan, Positions, Run,
};
use gatelens::run::{Engine, Options, run};

fn metric() -> Metric {
    Metric::logit_difference(vec![11], vec![23])
}

/// The metric of a prompt with each set of edges taken from its donor.
fn taken(model: &Model, golden: &GoldenEdges, i: usize, sets: &[Vec<Edge>], engine: Engine) -> Vec<f64> {
    let mut plan = Plan::default();
    let [base, donor] = ["input_ids", "donor_ids"].map(|name| plan.prompt(name, golden.ids(name, i)));
    let exchange = |edges: &Vec<Edge>| Exchange {
        donor,
        edges: edges.clone().into(),
        positions: Positions::All,
        alignment: Alignment::Same,
    };
    let mut asked: Vec<Handle<f64>> = Vec::new();
    for edges in sets {
        let run: Run = if edges.is_empty() { base } else { plan.exchange(base, exchange(edges)) };
        asked.push(plan.read(run, metric()));
    }
    let readings =
        run(&model.decoder, &plan, &Options { engine, ..Options::default() }).unwrap_or_else(|e| panic!("{e}"));
    asked.into_iter().map(|metric| readings[metric]).collect()
}

#[test]
fn every_edge_has_the_effect_that_it_has_by_an_independent_implementation() {
    for family in FAMILIES {
        let (model, golden) = (open(family), GoldenEdges::of(family));
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
        let (model, golden) = (open(family), GoldenEdges::of(family));
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

#[test]
fn estimates_of_every_edge_are_those_of_an_independent_implementation() {
    for family in FAMILIES {
        let (model, golden) = (open(family), GoldenEdges::of(family));
        for i in 0..2 {
            let mut plan = Plan::default();
            let [base, donor] = ["input_ids", "donor_ids"].map(|name| plan.prompt(name, golden.ids(name, i)));
            let ways = [
                ("eap", EdgeEstimate::Attribution),
                ("eap_ig", EdgeEstimate::IntegratedGradients { steps: 5 }),
                ("reader_exact", EdgeEstimate::Reader),
            ];
            let asked = ways.map(|(name, by)| {
                let of =
                    EdgeEffects { metric: metric(), donor, positions: Positions::All, alignment: Alignment::Same, by };
                (name, plan.read(base, of))
            });
            let readings = run(&model.decoder, &plan, &Options::default()).unwrap_or_else(|e| panic!("{family}: {e}"));
            for (name, handle) in asked {
                let found = &readings[handle].values;
                assert_eq!(found.len(), golden.names.len(), "{family}");
                for ((edge, found), expected) in golden.names.iter().zip(found).zip(golden.row(name, i)) {
                    let far = (f64::from(*found) - expected).abs();
                    assert!(far < 1e-4, "{family} {i} {name} {edge}: {found} {expected}");
                }
            }
        }
    }
}

/// What is taken at some positions and at the others is taken at all; what differs between them is the same to both engines.
#[test]
fn exchanges_at_parts_of_the_positions_are_one_together() {
    for family in FAMILIES {
        let (model, golden) = (open(family), GoldenEdges::of(family));
        let n = golden.ids("input_ids", 0).len();
        let half = |k: usize| Positions::At((0..n).filter(|p| p % 2 == k).collect());
        let some = |k: usize| -> Vec<Edge> {
            let kept = golden.row("random_kept", k);
            golden.names.iter().zip(kept).filter(|(_, kept)| *kept != 0.0).map(|(edge, _)| *edge).collect()
        };
        let (a, b) = (some(4), some(7));
        let of = |engine: Engine| -> Vec<f64> {
            let mut plan = Plan::default();
            let [base, donor] = ["input_ids", "donor_ids"].map(|name| plan.prompt(name, golden.ids(name, 0)));
            let at =
                |edges: EdgeSet, positions: Positions| Exchange { donor, edges, positions, alignment: Alignment::Same };
            let these = |edges: &Vec<Edge>| EdgeSet::from(edges.clone());
            let but = |edges: &Vec<Edge>| EdgeSet::AllBut(edges.clone().into());
            let whole = plan.exchange(base, at(these(&a), Positions::All));
            let parts = plan.exchanges(base, vec![at(these(&a), half(0)), at(these(&a), half(1))]);
            let unlike = plan.exchanges(base, vec![at(these(&a), half(0)), at(but(&b), half(1))]);
            // The same, one after another.
            let first = plan.exchange(base, at(these(&a), half(0)));
            let chained = plan.exchange(first, at(but(&b), half(1)));
            let asked = [whole, parts, unlike, chained].map(|run| plan.read(run, metric()));
            let options = Options { engine, ..Options::default() };
            let readings = run(&model.decoder, &plan, &options).unwrap_or_else(|e| panic!("{family}: {e}"));
            asked.into_iter().map(|asked| readings[asked]).collect()
        };
        let (wavefront, full) = (of(Engine::Wavefront), of(Engine::Full));
        assert!(wavefront.iter().zip(&full).all(|(a, b)| (a - b).abs() < 1e-4), "{family}: {wavefront:?} {full:?}");
        assert!((full[0] - full[1]).abs() < 1e-4 && (full[2] - full[3]).abs() < 1e-4, "{family}: {full:?}");
        assert!((full[0] - full[2]).abs() > 1e-4, "{family}: {full:?}");
    }
}

/// Estimates where only some positions of the readers count: of all positions together, they are the sums of those of each.
#[test]
fn first_order_estimates_of_positions_add_up_and_reading_at_the_last_alone_leaves_the_others() {
    for family in ["llama", "gemma2", "olmo2", "gpt_neox"] {
        let (model, golden) = (open(family), GoldenEdges::of(family));
        let n = golden.ids("input_ids", 0).len();
        let of = |positions: Positions, by: EdgeEstimate| -> Vec<f64> {
            let mut plan = Plan::default();
            let [base, donor] = ["input_ids", "donor_ids"].map(|name| plan.prompt(name, golden.ids(name, 0)));
            let handle =
                plan.read(base, EdgeEffects { metric: metric(), donor, positions, alignment: Alignment::Same, by });
            let readings = run(&model.decoder, &plan, &Options::default()).unwrap_or_else(|e| panic!("{family}: {e}"));
            readings[handle].values.iter().map(|x| f64::from(*x)).collect()
        };
        let all = of(Positions::All, EdgeEstimate::Attribution);
        let each: Vec<Vec<f64>> = (0..n).map(|p| of(Positions::At(vec![p]), EdgeEstimate::Attribution)).collect();
        for (edge, all) in all.iter().enumerate() {
            let sum: f64 = each.iter().map(|of| of[edge]).sum();
            assert!((sum - all).abs() < 1e-4, "{family} {}: {sum} {all}", golden.names[edge]);
        }
        // A query matters where it stands, whatever the others are.
        let (last, all) = (of(Positions::Last, EdgeEstimate::Reader), of(Positions::All, EdgeEstimate::Reader));
        for ((edge, last), all) in golden.names.iter().zip(last).zip(all) {
            let last_alone = edge.to_string().starts_with(&format!("m{}", model.decoder.arch.n_layers - 1));
            assert!(!last_alone || (last - all).abs() < 1e-5, "{family} {edge}: {last} {all}");
        }
    }
}

#[test]
fn what_cannot_be_exchanged_or_estimated_is_refused_by_name() {
    let model = open("llama");
    let compile = |plan: &Plan| plan.compile(&model.decoder.arch).err().map(|e| e.to_string()).unwrap_or_default();
    let prompts = |lengths: [usize; 2]| {
        let mut plan = Plan::default();
        let runs = lengths.map(|n| plan.prompt(format!("p{n}"), vec![5; n]));
        (plan, runs)
    };
    let taken = |lengths: [usize; 2], edges: &[&str], positions: Positions| {
        let (mut plan, [base, donor]) = prompts(lengths);
        let edges = edges.iter().map(|edge| edge.parse().expect("an edge")).collect();
        let run = plan.exchange(base, Exchange { donor, edges, positions, alignment: Alignment::Same });
        plan.read(run, metric());
        compile(&plan)
    };
    assert_eq!(taken([4, 4], &["input->m0"], Positions::All), "");
    assert!(taken([4, 5], &["input->m0"], Positions::All).contains("has 5 tokens, not 4: edges need as many"));
    assert!(taken([4, 4], &["m1->m0"], Positions::All).contains("does not come after"));
    assert!(taken([4, 4], &["a0.h99->m3"], Positions::All).contains("heads 0 to"));
    assert!(taken([4, 4], &["input->m0", "input->m0"], Positions::All).contains("twice"));
    assert!(taken([4, 4], &[], Positions::All).contains("no edge"));
    assert!(taken([4, 4], &["input->m0"], Positions::At(vec![7])).contains("position 7"));
    let estimated = |lengths: [usize; 2], steps: usize| {
        let (mut plan, [base, donor]) = prompts(lengths);
        let by = EdgeEstimate::IntegratedGradients { steps };
        plan.read(
            base,
            EdgeEffects { metric: metric(), donor, positions: Positions::All, alignment: Alignment::Same, by },
        );
        compile(&plan)
    };
    assert_eq!(estimated([4, 4], 5), "");
    assert!(estimated([4, 5], 5).contains("edges need as many"));
    assert!(estimated([4, 4], 0).contains("one step"));
}
