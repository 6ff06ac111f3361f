//! What a plan costs, before it is run.

use super::{Engine, batches, cones, gradient};
use crate::model::arch::Arch;
use crate::plan::{Metric, Plan, Run, What};
use std::collections::{BTreeSet, HashSet};

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
    /// Bytes of the keys and values that generation keeps at once, in f32; 0 without it.
    pub cache_bytes: u64,
}

/// Counts a plan under an engine. The plan must be sound ([`Plan::check`]).
pub fn size(plan: &Plan, arch: &Arch, engine: Engine) -> Size {
    let mut size = Size { prompts: plan.prompts.len(), forks: plan.forks.len(), ..Size::default() };
    match engine {
        Engine::Wavefront => {
            let (mut widest, cones) = (0u64, cones(plan, arch));
            for run in batches::sets(plan).into_iter().flatten() {
                let (start, rows): (usize, Vec<usize>) = match run {
                    Run::Prompt(p) => (0, vec![plan.prompts[p].ids.len(); arch.n_layers]),
                    Run::Fork(f) => (cones[f].start, (0..arch.n_layers).map(|l| cones[f].rows(l)).collect()),
                };
                rows.iter().enumerate().for_each(|(l, rows)| size.add(arch, l, start, *rows));
                widest += rows.into_iter().max().unwrap_or(0) as u64;
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
    size.add_gradients(plan, arch);
    size.flops += logit_flops(plan, arch);
    size
}

impl Size {
    /// Adds what another plan costs, which is run after this one.
    pub fn include(&mut self, other: &Size) {
        self.prompts += other.prompts;
        self.forks += other.forks;
        self.rows += other.rows;
        self.flops += other.flops;
        self.resid_bytes = self.resid_bytes.max(other.resid_bytes);
        self.cache_bytes = self.cache_bytes.max(other.cache_bytes);
    }

    /// Counts `rows` rows from position `start` on through a layer.
    pub(super) fn add(&mut self, arch: &Arch, layer: usize, start: usize, rows: usize) {
        self.rows += rows as u64;
        let keys: usize =
            (start..start + rows).map(|p| arch.layers[layer].window.map_or(p + 1, |w| w.min(p + 1))).sum();
        let attention = 4.0 * keys as f64 * (arch.n_heads * arch.d_head) as f64;
        self.flops += 2.0 * rows as f64 * arch.layer_params() as f64 + attention;
    }

    /// Counts the passes of gradients: forward through every layer; through those that a gradient is wanted in, or before,
    /// forward once more and back once for each metric. The way back through a matrix costs as much as the way forward;
    /// what attention's costs more is left out.
    fn add_gradients(&mut self, plan: &Plan, arch: &Arch) {
        let asked = gradient::asked(plan);
        let runs: BTreeSet<Run> = asked.iter().flat_map(|a| gradient::with_donors(plan, a.run)).collect();
        for run in &runs {
            (0..arch.n_layers).for_each(|l| self.add(arch, l, 0, plan.length(*run)));
        }
        for a in &asked {
            let n = plan.length(a.run);
            let back = arch.n_layers - a.layers_back(arch.n_layers)..arch.n_layers;
            back.flat_map(|l| std::iter::repeat_n(l, 1 + a.metrics.len())).for_each(|l| self.add(arch, l, 0, n));
        }
        let rows: usize = runs.iter().map(|run| plan.length(*run)).sum();
        let kept = asked.iter().map(|a| a.layers_back(arch.n_layers)).max().unwrap_or(0);
        self.resid_bytes = self.resid_bytes.max((rows * kept * arch.d_model * 4) as u64);
    }
}

/// The runs that the full engine runs: those that are read, and donors.
pub(super) fn full_runs(plan: &Plan) -> Vec<Run> {
    let mut wanted: HashSet<Run> = HashSet::new();
    for readout in plan.readouts.iter().filter(|r| !matches!(r.what, What::Gradient { .. })) {
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
    let of_metric = |metric: &Metric| match metric {
        Metric::LogitDifference { answer, foil } => answer.len() + foil.len(),
        Metric::Continuation { .. } => arch.vocab,
    };
    let columns = |what: &What| match what {
        What::Metric(metric) => of_metric(metric),
        What::KlFrom(_) => 2 * arch.vocab,
        // The heads' outputs and the other components, once each for every token.
        What::Attribution(metric) => of_metric(metric) * (3 * arch.n_layers + 2),
        What::Entropy => arch.vocab,
        _ => 0,
    };
    let read = plan.readouts.iter().map(|r| columns(&r.what)).sum::<usize>();
    // Forward and back.
    let of_gradients = gradient::asked(plan).iter().flat_map(|a| &a.metrics).map(|m| 2 * of_metric(m)).sum::<usize>();
    2.0 * (read + of_gradients) as f64 * arch.d_model as f64
}
