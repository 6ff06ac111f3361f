//! The engine on the device, held to itself and to the CPU: the wavefront to whole forward passes, layers that are
//! streamed to layers that stay, and readings of every kind to those of the CPU, for every family in f32.

use crate::compare::off;
use crate::golden::Family;
use crate::report::Finding;
use crate::{Failed, Setting};
use candle_core::{DType, Device};
use gatelens::model::Model;
use gatelens::model::arch::Arch;
use gatelens::plan::{
    Activation, Alignment, Change, EdgeEffects, EdgeEstimate, Edit, Exchange, Gradient, Graph, KlFrom, Metric, Part,
    Plan, Positions, Run, What,
};
use gatelens::run::{Engine, Options, run};
use gatelens::site::SiteKind;
use std::sync::Arc;

/// What two engines may differ by. Sums in other orders are all that differs.
const OFF_ENGINES: f64 = 5e-4;
/// What two devices may, in gradients too.
const OFF_DEVICES: f64 = 2e-3;
/// What layers may that were copied beside other work: nothing, unless a product's sums have no fixed order.
const OFF_STREAMED: f64 = 1e-5;

/// What is compared, and by how much it was off at most.
type Compared = (&'static str, f64, f64);

pub fn stage(setting: &Setting) -> Result<(), Failed> {
    let families = Family::all(&setting.data)?;
    let mut wrong = Vec::new();
    let mut worst: [Compared; 3] = [
        ("wavefront and whole passes", 0.0, OFF_ENGINES),
        ("streamed layers and kept ones", 0.0, OFF_STREAMED),
        ("device and CPU, gradients too", 0.0, OFF_DEVICES),
    ];
    for family in &families {
        let found = match held(family, &setting.device) {
            Ok(found) => found,
            Err(e) => {
                wrong.push(format!("{}: {e}", family.name));
                continue;
            }
        };
        for ((what, worst, most), found) in worst.iter_mut().zip(found) {
            if found > *most {
                wrong.push(format!("{}: {what} differ by {found:.1e}", family.name));
            }
            *worst = worst.max(found);
        }
    }
    Finding::number("families", families.len() as f64, "").say()?;
    for (what, worst, _) in worst {
        Finding::number(format!("{what}: largest difference"), worst, "").say()?;
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

/// How far apart engines, streamed and kept layers, and devices are.
fn held(family: &Family, device: &Device) -> Result<[f64; 3], Failed> {
    let model = |device: &Device, max_memory| family.model(device, DType::F32, max_memory);
    let (kept, streamed, on_cpu) = (model(device, None)?, model(device, Some(0))?, model(&Device::Cpu, None)?);
    let plan = plan(family, &kept)?;
    let wavefront = values(&kept, &plan, Engine::Wavefront)?;
    Ok([
        off(&wavefront, &values(&kept, &plan, Engine::Full)?),
        off(&values(&streamed, &plan, Engine::Wavefront)?, &wavefront),
        off(&wavefront, &values(&on_cpu, &plan, Engine::Wavefront)?),
    ])
}

/// All readings of a plan, one after another.
fn values(model: &Model, plan: &Plan, engine: Engine) -> Result<Vec<f32>, Failed> {
    let readings = run(&model.decoder, plan, &Options { engine, ..Options::default() })?;
    Ok(readings.iter().flat_map(|reading| reading.values()).collect())
}

/// Every head taken from another prompt, edits of every kind in every layer, forks of forks, gradients also through edits, and edges,
/// taken and estimated.
fn plan(family: &Family, model: &Model) -> Result<Plan, Failed> {
    let (arch, mut plan) = (&model.decoder.arch, Plan::default());
    let metric = Metric::logit_difference(vec![11], vec![23]);
    let prompt = plan.prompt("prompt", family.ids("input_ids", 0)?);
    let donor = plan.prompt("donor", family.ids("donor_ids", 0)?);
    plan.read(prompt, Activation { site: SiteKind::Logits.at(0), positions: Positions::All, part: Part::All });
    if arch.adds_up().is_ok() {
        plan.read(prompt, What::Attribution(metric.clone()));
    }
    for (layer, head) in model.heads() {
        let (site, part, change) = (SiteKind::Z.at(layer), Part::Heads(vec![head]), Change::interchange(donor));
        let fork = plan.fork(prompt, vec![Edit { site, part, positions: Positions::Last, change }]);
        plan.read(fork, metric.clone());
    }
    let mut base = prompt;
    for layer in 0..arch.n_layers {
        let direction: Arc<[f32]> = (0..arch.d_model).map(|i| (i * 7919 + layer) as f32 % 13.0 / 13.0 - 0.5).collect();
        let site = SiteKind::ResidPre.at(layer);
        let changes = [
            Change::Scale(0.9),
            Change::Add { vector: direction.clone(), coefficient: 0.3 },
            Change::ProjectOut(direction),
            Change::Clamp { low: -1.0, high: 1.0 },
            Change::Map(Arc::new(|row: &mut [f32]| row.iter_mut().for_each(|x| *x *= 0.5))),
        ];
        for change in changes {
            let fork =
                plan.fork(prompt, vec![Edit { site, part: Part::All, positions: Positions::At(vec![3]), change }]);
            plan.read(fork, metric.clone());
        }
        // Each from the one before.
        let (site, change) = (SiteKind::ResidPost.at(layer), Change::interchange(donor));
        base =
            plan.fork(base, vec![Edit { site, part: Part::Columns(vec![1, 5]), positions: Positions::Last, change }]);
        plan.read(base, KlFrom(prompt));
        let (positions, part) = (Positions::Last, Part::All);
        plan.read(prompt, Gradient { metric: metric.clone(), site, positions, part });
    }
    gradients_through_edits(&mut plan, prompt, &metric, arch.d_model);
    edges(&mut plan, (prompt, donor), &metric, arch);
    Ok(plan)
}

/// What is before edits of every kind but functions, which no gradient goes through.
fn gradients_through_edits(plan: &mut Plan, prompt: Run, metric: &Metric, d_model: usize) {
    let direction: Arc<[f32]> = (0..d_model).map(|i| (i * 7919) as f32 % 11.0 / 11.0 - 0.5).collect();
    let changes = [
        Change::Clamp { low: -0.05, high: 0.05 },
        Change::ProjectOut(direction.clone()),
        Change::Scale(1.5),
        Change::Add { vector: direction, coefficient: 0.3 },
    ];
    let site = SiteKind::ResidPost.at(0);
    let edit = |change| Edit { site, part: Part::All, positions: Positions::All, change };
    let fork = plan.fork(prompt, changes.map(edit).to_vec());
    let (site, positions, part) = (SiteKind::Embed.at(0), Positions::All, Part::All);
    plan.read(fork, Gradient { metric: metric.clone(), site, positions, part });
}

/// Edges of every kind of reader, and the estimates of all, where a model's edges can be told apart.
fn edges(plan: &mut Plan, (prompt, donor): (Run, Run), metric: &Metric, arch: &Arch) {
    if Graph::there(arch).is_err() {
        return;
    }
    let (positions, alignment) = (Positions::All, Alignment::Same);
    for edge in Graph::of(arch).edges().step_by(7) {
        let edges = std::iter::once(edge).collect();
        let exchange = Exchange { donor, edges, positions: positions.clone(), alignment: alignment.clone() };
        let fork = plan.exchange(prompt, exchange);
        plan.read(fork, metric.clone());
    }
    for by in [EdgeEstimate::Reader, EdgeEstimate::Attribution] {
        let (metric, positions, alignment) = (metric.clone(), positions.clone(), alignment.clone());
        plan.read(prompt, EdgeEffects { metric, donor, positions, alignment, by });
    }
}
