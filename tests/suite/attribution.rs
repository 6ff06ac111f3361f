//! Direct logit attributions: they sum to the metric in every family, and both engines give the same.

use crate::support::{FAMILIES, Golden, open, other_families};
use gatelens::model::Model;
use gatelens::plan::{Activation, Change, Edit, LogProbs, Metric, Part, Plan, Positions, What};
use gatelens::run::{Engine, Options, Reading, run};
use gatelens::site::SiteKind;

fn readings(model: &Model, plan: &Plan, engine: Engine) -> Vec<Reading> {
    run(&model.decoder, plan, &Options { engine, ..Options::default() }).expect("readings").into_inner()
}

/// The logit difference of rows of logits before soft-capping, by the definition.
fn uncapped(logits: &[f32], cap: Option<f64>, answer: &[u32], foil: &[u32]) -> f64 {
    let before = |id: &u32| {
        let x = f64::from(logits[*id as usize]);
        cap.map_or(x, |cap| cap * (x / cap).atanh())
    };
    let log_sum_exp = |ids: &[u32]| ids.iter().map(|id| before(id).exp()).sum::<f64>().ln();
    log_sum_exp(answer) - log_sum_exp(foil)
}

/// Holds the attributions of a family's two prompts to their logit differences.
fn sums(family: &str, tolerance: f64) {
    let (model, golden) = (open(family), Golden::of(family));
    let (answer, foil) = (vec![11, 30, 4], vec![23, 7]);
    let mut plan = Plan::default();
    for p in 0..2 {
        let prompt = plan.prompt(format!("{p}"), golden.ids("input_ids", p));
        plan.read(prompt, What::Attribution(Metric::logit_difference(answer.clone(), foil.clone())));
        let (site, positions) = (SiteKind::Logits.at(0), Positions::Last);
        plan.read(prompt, Activation { site, positions, part: Part::All });
    }
    if let Err(why) = model.decoder.arch.adds_up() {
        let refused = plan.compile(&model.decoder.arch).map(|_| ()).expect_err("a stream that is no sum").to_string();
        assert!(refused.contains(&why), "{family}: {refused}");
        return;
    }
    for pair in readings(&model, &plan, Engine::Wavefront).chunks_exact(2) {
        let expected = uncapped(&pair[1].values(), model.decoder.arch.logit_softcap, &answer, &foil);
        let sum: f64 = pair[0].values().iter().map(|v| f64::from(*v)).sum();
        assert!((sum - expected).abs() < tolerance, "{family}: {sum} and {expected}");
    }
}

#[test]
fn attributions_sum_to_the_logit_difference_in_every_family() {
    FAMILIES.iter().for_each(|family| sums(family, 1e-4));
    // Those that cap logits close to their caps leave fewer digits.
    other_families().iter().for_each(|family| sums(family, 1e-3));
}

/// A head's attribution from its own output: through the post-norm, the final norm and the unembedding, step by step.
#[test]
fn a_heads_attribution_is_its_output_through_the_rest_of_the_pass() {
    let (model, golden) = (open("llama"), Golden::of("llama"));
    let arch = &model.decoder.arch;
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", golden.ids("input_ids", 0));
    plan.read(prompt, What::Attribution(Metric::logit_difference(vec![11], vec![23])));
    let last = |site| Activation { site, positions: Positions::Last, part: Part::All };
    plan.read(prompt, last(SiteKind::HeadOut.at(1)));
    plan.read(prompt, last(SiteKind::ResidPost.at(arch.n_layers - 1)));
    plan.read(prompt, last(SiteKind::FinalNorm.at(0)));
    let found = readings(&model, &plan, Engine::Wavefront);
    let (attribution, heads, resid, normed) =
        (found[0].values(), found[1].values(), found[2].values(), found[3].values());
    let rows: Vec<Vec<f32>> = model.decoder.unembedding(&[11, 23]).and_then(|t| t.to_vec2()).unwrap();
    for h in 0..arch.n_heads {
        let out = &heads[h * arch.d_model..(h + 1) * arch.d_model];
        // What the final norm multiplied each number of the residual stream by is what it multiplies the head's by.
        let each = (0..arch.d_model)
            .map(|i| f64::from(out[i]) * f64::from(normed[i] / resid[i]) * f64::from(rows[0][i] - rows[1][i]));
        let expected: f64 = each.sum();
        let found = f64::from(attribution[(arch.n_heads + 2) + h]);
        assert!((found - expected).abs() < 1e-5, "head {h}: {found} and {expected}");
    }
}

#[test]
fn both_engines_give_the_same_attributions_and_entropies_of_prompts_forks_and_forks_of_forks() {
    for family in FAMILIES {
        let (model, golden) = (open(family), Golden::of(family));
        let mut plan = Plan::default();
        let (a, b) = (plan.prompt("a", golden.ids("input_ids", 0)), plan.prompt("b", golden.ids("donor_ids", 0)));
        let edit = |layer: usize, positions: Positions, change: Change| {
            vec![Edit { site: SiteKind::Z.at(layer), part: Part::Heads(vec![1]), positions, change }]
        };
        let one = plan.fork(a, edit(0, Positions::At(vec![3]), Change::interchange(b)));
        let two = plan.fork(one, edit(1, Positions::Last, Change::Zero));
        for run in [a, b, one, two] {
            plan.read(run, What::Attribution(Metric::logit_difference(vec![11], vec![23, 5])));
            plan.read(run, What::Entropy);
            plan.read(run, LogProbs { tokens: vec![11, 23] });
        }
        let (fast, slow) = (readings(&model, &plan, Engine::Wavefront), readings(&model, &plan, Engine::Full));
        for (fast, slow) in fast.iter().zip(&slow) {
            for (fast, slow) in fast.values().iter().zip(slow.values()) {
                assert!((fast - slow).abs() < 1e-4, "{family}: {fast} and {slow}");
            }
        }
        assert!(fast[6].values().iter().zip(fast[9].values()).any(|(x, y)| (x - y).abs() > 1e-6), "the fork differs");
    }
}
