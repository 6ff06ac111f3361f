//! How far half precision moves what is measured, model by model, as a Markdown table: `docs/dtypes.md` holds its output.
//!
//! `cargo run --release --example dtypes -- MODEL...` runs four pairs of 16 tokens on the CPU in f32, bf16 and f16: the logits at
//! the last position, and the effect of every head's interchange there, on the difference of two logits.

use gatelens::model::{Model, Options as ModelOptions, device};
use gatelens::plan::{Activation, Change, Edit, Metric, Part, Plan, Positions, What};
use gatelens::run::{Array, Options, Reading, run};
use gatelens::site::SiteKind;
use gatelens::stats::spearman;

type Failed = Box<dyn std::error::Error>;

/// What one dtype gives.
struct Found {
    /// Of all pairs' first prompts, at the last position.
    logits: Vec<f64>,
    /// Of every head of every pair, in nats.
    effects: Vec<f64>,
}

fn main() -> Result<(), Failed> {
    println!(
        "| model | dtype | logits, largest difference | effects, largest difference | effects, rank correlation |"
    );
    println!("|---|---|---|---|---|");
    for name in std::env::args().skip(1) {
        let exact = measure(&name, "f32")?;
        for dtype in ["bf16", "f16"] {
            let line = match measure(&name, dtype) {
                // A model whose activations f16 cannot hold is said to be one.
                Err(why) => format!("{why} | | "),
                Ok(half) => {
                    let rank = spearman(&exact.effects, &half.effects).ok_or("the effects do not vary")?;
                    let (logits, effects) = (apart(&exact.logits, &half.logits), apart(&exact.effects, &half.effects));
                    format!("{:.2} % | {:.2} % | {rank:.4}", 100.0 * logits, 100.0 * effects)
                }
            };
            println!("| {name} | {dtype} | {line} |");
        }
    }
    Ok(())
}

/// The largest difference, as a share of the largest absolute value of what is exact.
fn apart(exact: &[f64], half: &[f64]) -> f64 {
    let most = exact.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    exact.iter().zip(half).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / most
}

fn measure(name: &str, dtype: &str) -> Result<Found, Failed> {
    let model = Model::open(name, &ModelOptions { dtype: device::dtype(dtype)?, ..ModelOptions::default() })?;
    let arch = &model.decoder.arch;
    let id = |i: u32| i.wrapping_mul(2_654_435_761) % arch.vocab as u32;
    let metric = || What::Metric(Metric::logit_difference(vec![id(3)], vec![id(5)]));
    let mut plan = Plan::default();
    for pair in 0..4 {
        let prompts = [0, 1].map(|side| plan.prompt("", (0..16).map(|i| id(100 * pair + i + 7 * side)).collect()));
        let (positions, part) = (Positions::Last, Part::All);
        plan.read(prompts[0], Activation { site: SiteKind::Logits.at(0), positions, part });
        plan.read(prompts[0], metric());
        for (layer, head) in model.heads() {
            let (site, part, positions) = (SiteKind::Z.at(layer), Part::Heads(vec![head]), Positions::Last);
            let fork =
                plan.fork(prompts[0], vec![Edit { site, part, positions, change: Change::interchange(prompts[1]) }]);
            plan.read(fork, metric());
        }
    }
    let (mut found, mut base) = (Found { logits: Vec::new(), effects: Vec::new() }, None);
    for reading in run(&model.decoder, &plan, &Options::default())? {
        match (reading, base) {
            (Reading::Array(Array { values, .. }), _) => {
                found.logits.extend(values.into_iter().map(f64::from));
                base = None;
            }
            (Reading::Number(x), None) => base = Some(x),
            (Reading::Number(x), Some(base)) => found.effects.push(x - base),
        }
    }
    Ok(found)
}
