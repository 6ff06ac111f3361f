//! What a plan costs, before it is run.

use super::{Engine, cones};
use crate::model::arch::Arch;
use crate::plan::{Plan, Run, What};
use std::collections::HashSet;

/// The cost of a plan under one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Size {
    pub prompts: usize,
    pub forks: usize,
    /// Rows times the layers that each goes through.
    pub rows: u64,
    /// Floating-point operations: two for each multiplication with its addition, in matrices and attention.
    pub flops: f64,
    /// Bytes that the residual streams of all runs take together, in f32.
    pub resid_bytes: u64,
}

/// Counts a plan under an engine. The plan must be sound ([`Plan::check`]).
pub fn size(plan: &Plan, arch: &Arch, engine: Engine) -> Size {
    let mut size = Size { prompts: plan.prompts.len(), forks: plan.forks.len(), ..Size::default() };
    match engine {
        Engine::Wavefront => {
            let mut widest = 0u64;
            for prompt in &plan.prompts {
                (0..arch.n_layers).for_each(|l| size.add(arch, l, 0, prompt.ids.len()));
                widest += prompt.ids.len() as u64;
            }
            for cone in cones(plan, arch) {
                (0..arch.n_layers).for_each(|l| size.add(arch, l, cone.start, cone.rows(l)));
                widest += (0..arch.n_layers).map(|l| cone.rows(l) as u64).max().unwrap_or(0);
            }
            size.resid_bytes = widest * arch.d_model as u64 * 4;
        }
        Engine::Full => {
            let mut longest = 0;
            for run in full_runs(plan) {
                let length = plan.length(run);
                (0..arch.n_layers).for_each(|l| size.add(arch, l, 0, length));
                longest = longest.max(length);
            }
            size.resid_bytes = (longest * arch.d_model * 4) as u64;
        }
    }
    size.flops += logit_flops(plan, arch);
    size
}

impl Size {
    /// Counts `rows` rows from position `start` on through a layer.
    fn add(&mut self, arch: &Arch, layer: usize, start: usize, rows: usize) {
        self.rows += rows as u64;
        let keys: usize =
            (start..start + rows).map(|p| arch.layers[layer].window.map_or(p + 1, |w| w.min(p + 1))).sum();
        let attention = 4.0 * keys as f64 * (arch.n_heads * arch.d_head) as f64;
        self.flops += 2.0 * rows as f64 * arch.layer_params() as f64 + attention;
    }
}

/// The runs that the full engine runs: those that are read, and donors.
pub(super) fn full_runs(plan: &Plan) -> Vec<Run> {
    let mut wanted: HashSet<Run> = HashSet::new();
    for readout in &plan.readouts {
        wanted.insert(readout.run);
        if let What::KlFrom(other) = readout.what {
            wanted.insert(other);
        }
    }
    // Donors come before the forks that name them, so that one pass from the last fork on finds all.
    for f in (0..plan.forks.len()).rev() {
        if wanted.contains(&Run::Fork(f)) {
            wanted.extend(plan.edits(Run::Fork(f)).iter().filter_map(|e| match e.change {
                crate::plan::Change::Interchange { donor, .. } => Some(donor),
                _ => None,
            }));
        }
    }
    let mut runs: Vec<Run> = wanted.into_iter().collect();
    runs.sort();
    runs
}

fn logit_flops(plan: &Plan, arch: &Arch) -> f64 {
    let columns = |what: &What| match what {
        What::Metric(crate::plan::Metric::LogitDifference { answer, foil }) => answer.len() + foil.len(),
        What::KlFrom(_) => 2 * arch.vocab,
        What::Metric(crate::plan::Metric::Continuation { .. }) => arch.vocab,
        _ => 0,
    };
    plan.readouts.iter().map(|r| 2.0 * columns(&r.what) as f64 * arch.d_model as f64).sum()
}
