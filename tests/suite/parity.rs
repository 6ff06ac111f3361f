//! Every family gives the activations that an independent implementation gives (`transformers`, f32, eager attention).

use crate::support::{FAMILIES, Golden, assert_close, assert_golden, open};
use gatelens::plan::{Activation, Change, Edit, Metric, Part, Plan, Positions, Run, What};
use gatelens::run::{Engine, Options, run};
use gatelens::site::{Site, SiteKind};

const ENGINES: [Engine; 2] = [Engine::Full, Engine::Wavefront];

fn options(engine: Engine) -> Options<'static> {
    Options { engine, ..Options::default() }
}

/// The metric of the golden values: `logit[11] - logit[23]` at the last position.
fn metric() -> What {
    What::Metric(Metric::logit_difference(vec![11], vec![23]))
}

#[test]
fn residual_streams_heads_patterns_and_logits_are_as_in_transformers() {
    for family in FAMILIES {
        let (model, golden) = (open(family), Golden::of(family));
        let arch = &model.decoder.arch;
        use SiteKind::*;
        let golden_sites = |kinds: &[SiteKind]| -> Vec<(Site, String)> {
            let layers = (0..arch.n_layers).flat_map(|l| kinds.iter().map(move |kind| kind.at(l)));
            layers.map(|site| (site, format!("clean.{site}"))).collect()
        };
        let mut through = golden_sites(&[ResidPre, ResidPost, Z, AttnOut, MlpOut]);
        through.push((Logits.at(0), "clean.logits".to_string()));
        // Patterns by themselves: where they are read, attention is computed step by step instead of by its kernel.
        let plans = [through, golden_sites(&[Pattern])];
        for (engine, sites) in ENGINES.into_iter().flat_map(|e| plans.iter().map(move |sites| (e, sites))) {
            let mut plan = Plan::default();
            let prompts = [0, 1].map(|i| plan.prompt(format!("{i}"), golden.ids("input_ids", i)));
            for (site, _) in sites {
                for prompt in prompts {
                    let what = Activation { site: *site, positions: Positions::All, part: Part::All };
                    plan.read(prompt, what);
                }
            }
            let readings = run(&model.decoder, &plan, &options(engine)).expect("readings");
            for ((_, name), pair) in sites.iter().zip(readings.chunks(2)) {
                assert!(golden.has(name), "{family} has no golden {name}");
                let found: Vec<f32> = pair.iter().flat_map(|r| r.values()).collect();
                let found = if name.contains("pattern") { heads_first(&found, &golden, name) } else { found };
                assert_golden(&format!("{family} {name} {engine}"), &found, &golden.values(name));
            }
        }
    }
}

/// Patterns from `[prompt, position, head, key]` to the golden `[prompt, head, position, key]`.
fn heads_first(x: &[f32], golden: &Golden, name: &str) -> Vec<f32> {
    let [prompts, heads, n, keys] = golden.shape(name).try_into().expect("four dimensions");
    let mut out = Vec::with_capacity(x.len());
    for p in 0..prompts {
        for h in 0..heads {
            for i in 0..n {
                let at = ((p * n + i) * heads + h) * keys;
                out.extend_from_slice(&x[at..at + keys]);
            }
        }
    }
    out
}

/// The metric of each prompt with one head changed, for every head: `[prompt, layer, head]`, as the golden values.
fn sweep(family: &str, engine: Engine, change: impl Fn(Run) -> Change, positions: &Positions) -> Vec<f32> {
    let (model, golden) = (open(family), Golden::of(family));
    let mut plan = Plan::default();
    for i in 0..2 {
        let prompt = plan.prompt(format!("{i}"), golden.ids("input_ids", i));
        let donor = plan.prompt(format!("donor {i}"), golden.ids("donor_ids", i));
        for (layer, head) in model.heads() {
            let edit = Edit {
                site: SiteKind::Z.at(layer),
                part: Part::Heads(vec![head]),
                positions: positions.clone(),
                change: change(donor),
            };
            let fork = plan.fork(prompt, vec![edit]);
            plan.read(fork, metric());
        }
    }
    let readings = run(&model.decoder, &plan, &options(engine)).expect("readings");
    readings.iter().flat_map(|r| r.values()).collect()
}

#[test]
fn silencing_a_head_moves_the_metric_as_in_transformers() {
    for family in FAMILIES {
        for engine in ENGINES {
            let found = sweep(family, engine, |_| Change::Zero, &Positions::All);
            let what = format!("{family} zero_ablation {engine}");
            assert_close(&what, &found, &Golden::of(family).values("zero_ablation"), 1e-4, 0.0);
        }
    }
}

#[test]
fn interchange_of_a_head_moves_the_metric_as_in_transformers() {
    for family in FAMILIES {
        for engine in ENGINES {
            for (name, positions) in [("interchange_last", Positions::Last), ("interchange_all", Positions::All)] {
                let found = sweep(family, engine, Change::interchange, &positions);
                assert_close(&format!("{family} {name} {engine}"), &found, &Golden::of(family).values(name), 1e-4, 0.0);
            }
        }
    }
}

#[test]
fn the_metric_of_clean_and_donor_prompts_is_as_in_transformers() {
    for family in FAMILIES {
        let (model, golden) = (open(family), Golden::of(family));
        for (ids, expected) in [("input_ids", "metric_clean"), ("donor_ids", "metric_donor")] {
            let mut plan = Plan::default();
            for i in 0..2 {
                let prompt = plan.prompt("p", golden.ids(ids, i));
                plan.read(prompt, metric());
            }
            let found = run(&model.decoder, &plan, &Options::default()).expect("readings");
            let found: Vec<f32> = found.iter().flat_map(|r| r.values()).collect();
            assert_close(&format!("{family} {expected}"), &found, &golden.values(expected), 1e-4, 0.0);
        }
    }
}
