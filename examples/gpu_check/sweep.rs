//! The sweep over every head, of random models in known shapes: time, rate, memory, and whether whole forward passes
//! agree.

use crate::card::{Peaks, Watch};
use crate::common::{median, pair};
use crate::compare::off;
use crate::random::{LARGE, SMALL, Weights};
use crate::report::Finding;
use crate::{Failed, Setting};
use candle_core::DType;
use gatelens::model::Model;
use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions};
use gatelens::run::{Engine, Options, run, size};
use gatelens::site::SiteKind;
use std::time::Instant;

const RUNS: usize = 3;

/// SmolLM2's shape, in f32 and bf16.
pub fn small(setting: &Setting) -> Result<(), Failed> {
    let shape = if setting.small() { SMALL.for_cpu() } else { SMALL };
    let weights = Weights::write(shape, &setting.scratch)?;
    measure(setting, &weights, DType::F32, 9)?;
    measure(setting, &weights, DType::BF16, 9)
}

/// 7B in bf16, kept and streamed.
pub fn large(setting: &Setting) -> Result<(), Failed> {
    let shape = if setting.small() { LARGE.for_cpu() } else { LARGE };
    let begun = Instant::now();
    let weights = Weights::write(shape, &setting.scratch)?;
    Finding::number("weights made and written", begun.elapsed().as_secs_f64(), "s").say()?;
    measure(setting, &weights, DType::BF16, 64)?;
    streamed(setting, &weights)
}

/// What two engines may differ by: in bf16 products of other numbers of rows round otherwise.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F32 { 1e-3 } else { 0.1 }
}

/// The sweep with all weights on the device. Of the heads, one in `every` goes through whole forward passes too.
fn measure(setting: &Setting, weights: &Weights, dtype: DType, every: usize) -> Result<(), Failed> {
    let at = |what: &str| format!("{} in {}: {what}", weights.shape.name, dtype.as_str());
    let watch = Watch::begin(&setting.device);
    let begun = Instant::now();
    let model = weights.open(&setting.device, dtype, None)?;
    model.decoder.read()?;
    setting.device.synchronize()?;
    let bytes = (model.decoder.parameters * dtype.size_in_bytes() as u64) as f64;
    Finding::number(at("weights read and copied"), bytes / begun.elapsed().as_secs_f64() / 1e9, "GB/s").say()?;
    let heads: Vec<(usize, usize)> = model.heads().collect();
    let (plain, sweep) = (plan(&model, &[], 1), plan(&model, &heads, 1));
    // Before anything is timed: a GPU compiles kernels when it first meets them.
    metrics(&model, &plain, Engine::Wavefront)?;
    let (plain_s, sweep_s) = (seconds(&model, &plain)?, seconds(&model, &sweep)?);
    let of_sweep = size(&sweep.compile(&model.decoder.arch)?, Engine::Wavefront);
    let rate = of_sweep.flops / sweep_s / 1e12;
    let most = Peaks::of(&setting.device).map(|peaks| peaks.products(dtype) / 1e12);
    Finding::number(at("plain pass of the pair"), plain_s, "s").say()?;
    Finding::number(at(&format!("sweep of {} heads, both directions", heads.len())), sweep_s, "s").say()?;
    Finding::number(at("the sweep's operations"), rate, "TFLOP/s").of(most).say()?;
    let some: Vec<(usize, usize)> = heads.iter().copied().step_by(every).collect();
    let sample = plan(&model, &some, 1);
    let begun = Instant::now();
    let whole = metrics(&model, &sample, Engine::Full)?;
    let whole_s = begun.elapsed().as_secs_f64() * heads.len() as f64 / some.len() as f64;
    Finding::number(at("the same by whole passes, from some heads"), whole_s / sweep_s, "times as long").say()?;
    let off = off(&metrics(&model, &sample, Engine::Wavefront)?, &whole);
    Finding::number(at("wavefront and whole passes differ by"), off, "nats").say()?;
    Finding::number(at("most memory in use"), watch.end(), "GB").say()?;
    match off <= tolerance(dtype) {
        true => Ok(()),
        false => Err(at(&format!("wavefront and whole passes differ by {off:.1e}")).into()),
    }
}

/// The sweep with two layers on the device at a time.
fn streamed(setting: &Setting, weights: &Weights) -> Result<(), Failed> {
    let at = |what: &str| format!("{} in bf16, layers streamed: {what}", weights.shape.name);
    let watch = Watch::begin(&setting.device);
    let model = weights.open(&setting.device, DType::BF16, Some(0))?;
    let heads: Vec<(usize, usize)> = model.heads().collect();
    let begun = Instant::now();
    metrics(&model, &plan(&model, &heads, 1), Engine::Wavefront)?;
    Finding::number(at("the sweep"), begun.elapsed().as_secs_f64(), "s").say()?;
    Finding::number(at("most memory in use"), watch.end(), "GB").say()
}

/// Seconds that a plan takes.
fn seconds(model: &Model, plan: &Plan) -> Result<f64, Failed> {
    let once = |_| -> Result<f64, Failed> {
        let begun = Instant::now();
        metrics(model, plan, Engine::Wavefront)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    Ok(median((0..RUNS).map(once).collect::<Result<_, _>>()?))
}

/// The readings of a plan of metrics.
pub fn metrics(model: &Model, plan: &Plan, engine: Engine) -> Result<Vec<f32>, Failed> {
    let readings = run(&model.decoder, plan, &Options { engine, ..Options::default() })?;
    Ok(readings.iter().flat_map(|reading| reading.values()).collect())
}

/// Pairs of 64 tokens, with heads exchanged at the last position in both directions.
pub fn plan(model: &Model, heads: &[(usize, usize)], pairs: usize) -> Plan {
    let mut plan = Plan::default();
    let metric = || Metric::logit_difference(vec![11], vec![23]);
    let (a, b) = pair(model.decoder.arch.vocab as u32);
    for _ in 0..pairs {
        let prompts = [plan.prompt("a", a.clone()), plan.prompt("b", b.clone())];
        for (prompt, donor) in [(prompts[0], prompts[1]), (prompts[1], prompts[0])] {
            plan.read(prompt, metric());
            for (layer, head) in heads {
                let (site, part, change) =
                    (SiteKind::Z.at(*layer), Part::Heads(vec![*head]), Change::interchange(donor));
                let fork = plan.fork(prompt, vec![Edit { site, part, positions: Positions::Last, change }]);
                plan.read(fork, metric());
            }
        }
    }
    plan
}
