//! What a plan costs, before it is run.

use super::end::{self, n_mean_tokens};
use super::{Engine, batches, estimates, gradient};
use crate::model::arch::Arch;
use crate::plan::{EndReadout, EndWhat, Metric, Program, Run};
use std::collections::BTreeSet;

/// The cost of a plan under one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Size {
    pub prompts: usize,
    pub forks: usize,
    /// Rows times the layers that each goes through.
    pub rows: u64,
    /// Floating-point operations: two for each multiplication with its addition, in matrices and attention.
    pub flops: f64,
    /// Bytes of the residual streams that are held at once, in f32.
    pub resid_bytes: u64,
}

/// Counts a plan under an engine.
pub fn size(program: &Program, engine: Engine) -> Size {
    let mut size = match engine {
        Engine::Wavefront => wavefront(program),
        Engine::Full => full(program),
    };
    (size.prompts, size.forks) = (program.plan.prompts.len(), program.plan.forks.len());
    size.add_gradients(program);
    size.flops += logit_flops(program);
    size.include(&estimates::cost(program, engine));
    size
}

/// The passes of the wavefront: all runs' residual streams are held together.
fn wavefront(program: &Program) -> Size {
    let (arch, cones) = (program.arch, program.cones());
    let (mut size, mut widest, mut last) = (Size::default(), 0, None);
    for set in batches::sets(program) {
        for run in set.runs {
            let (cost, rows) = match (run, last) {
                // Forks of one base that differ in the head alone follow each other.
                (Run::Fork(f), Some((g, depth, cost, rows))) if cones[f] == cones[g] && set.depth == depth => {
                    (cost, rows)
                }
                (Run::Fork(f), _) => Size::of_rows(arch, set.depth, cones[f].start, |l| cones[f].rows(l)),
                (Run::Prompt(_), _) => Size::of_rows(arch, set.depth, 0, |_| program.length(run)),
            };
            if let Run::Fork(f) = run {
                last = Some((f, set.depth, cost, rows));
            }
            size.rows += cost.rows;
            size.flops += cost.flops;
            widest += rows;
        }
    }
    size.resid_bytes = (widest * arch.kept_width() * 4) as u64;
    size
}

/// One pass a run: its residual stream is held, and those rows of all that are read at the end.
fn full(program: &Program) -> Size {
    let arch = program.arch;
    let (mut size, mut longest, mut last) = (Size::default(), 0, ((0, 0), Size::default()));
    let depths = program.depths();
    for run in full_runs(program) {
        let (length, depth) = (program.length(run), depths[program.root(run)]);
        if last.0 != (length, depth) {
            last = ((length, depth), Size::of_rows(arch, depth, 0, |_| length).0);
        }
        size.rows += last.1.rows;
        size.flops += last.1.flops;
        longest = longest.max(length);
    }
    size.resid_bytes = ((longest + end::rows_read(program).len()) * arch.d_model * 4) as u64;
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
    }

    /// A run of so many rows in each of the first `depth` layers, from position `start` on; and the most that it has in one.
    fn of_rows(arch: &Arch, depth: usize, start: usize, rows: impl Fn(usize) -> usize) -> (Size, usize) {
        let (mut size, mut most) = (Size::default(), 0);
        for l in 0..depth {
            size.add(arch, l, start, rows(l));
            most = most.max(rows(l));
        }
        (size, most)
    }

    /// Counts `rows` rows from position `start` on through a layer.
    pub(super) fn add(&mut self, arch: &Arch, layer: usize, start: usize, rows: usize) {
        self.rows += rows as u64;
        let between = arch.layers[layer].mixer.flops(start, rows);
        self.flops += 2.0 * rows as f64 * arch.active_params(layer) as f64 + between;
    }

    /// Counts the passes of gradients: forward through every layer; through those that a gradient is wanted in, or before,
    /// forward once more and back once for each metric. The way back through a matrix costs as much as the way forward;
    /// what attention's costs more is left out.
    fn add_gradients(&mut self, program: &Program) {
        let (arch, asked) = (program.arch, gradient::asked(program));
        let runs = program.needed(asked.iter().map(|a| a.run), false);
        for run in &runs {
            (0..arch.n_layers).for_each(|l| self.add(arch, l, 0, program.length(*run)));
        }
        for a in &asked {
            let n = program.length(a.run);
            let back = arch.n_layers - a.layers_back(arch.n_layers)..arch.n_layers;
            back.flat_map(|l| std::iter::repeat_n(l, 1 + a.metrics.len())).for_each(|l| self.add(arch, l, 0, n));
        }
        let rows: usize = runs.iter().map(|run| program.length(*run)).sum();
        let kept = asked.iter().map(|a| a.layers_back(arch.n_layers)).max().unwrap_or(0);
        self.resid_bytes = self.resid_bytes.max((rows * kept * arch.stream_width() * 4) as u64);
    }
}

/// The runs that the full engine runs: those that are read, and donors.
pub(super) fn full_runs(program: &Program) -> BTreeSet<Run> {
    program.needed(program.read_runs(), false)
}

/// What unembedding costs.
fn logit_flops(program: &Program) -> f64 {
    let arch = program.arch;
    // The mean is a product with one row, or over the sample.
    let with_mean = |tokens: &[u32]| tokens.len() + n_mean_tokens(arch).unwrap_or(1);
    let columns = |r: &EndReadout| match &r.what {
        EndWhat::Difference { answer, foil } => answer.len() + foil.len(),
        EndWhat::AboveMean(tokens) => with_mean(tokens),
        EndWhat::Continuation(_)
        | EndWhat::Kl
        | EndWhat::Entropy
        | EndWhat::Rank(_)
        | EndWhat::LogProbs(_)
        | EndWhat::Logits(_) => r.rows.len() * arch.vocab,
        EndWhat::Normed(_) => 0,
    };
    let read: usize = program.at_end.iter().map(columns).sum();
    // The heads' outputs and the other components, once each for every token.
    let attributed = program.attributions.iter().map(|a| match a.foil {
        Some(foil) => (a.answer.len() + foil.len()) * (3 * arch.n_layers + 2),
        None => with_mean(a.answer) * (3 * arch.n_layers + 2),
    });
    let of_metric = |run: Run, metric: &Metric| match metric {
        Metric::LogitDifference { answer, foil } => answer.len() + foil.len(),
        Metric::AboveMean { tokens } => with_mean(tokens),
        Metric::Continuation { from } => (program.length(run) - from) * arch.vocab,
    };
    let asked = gradient::asked(program);
    // Forward and back.
    let of_gradients = asked.iter().flat_map(|a| a.metrics.iter().map(|m| 2 * of_metric(a.run, m))).sum::<usize>();
    2.0 * (read + attributed.sum::<usize>() + of_gradients) as f64 * arch.d_model as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Activation, Entropy, Plan, Positions, What};
    use crate::site::SiteKind;

    #[test]
    fn rows_cost_by_the_keys_that_each_sees() {
        for window in [None, Some(1), Some(4), Some(30)] {
            let arch = crate::model::tests::windowed(&[window]);
            for (start, rows) in [(0, 0), (0, 9), (2, 1), (3, 9), (4, 5), (7, 0), (7, 6)] {
                let keys: usize = (start..start + rows).map(|p| window.map_or(p + 1, |w| w.min(p + 1))).sum();
                let mut size = Size::default();
                size.add(&arch, 0, start, rows);
                let matrices = 2.0 * (rows * arch.layer_params() as usize) as f64;
                assert_eq!(size.flops, matrices + 4.0 * (keys * arch.n_heads * arch.d_head) as f64, "{window:?}");
            }
        }
    }
    #[test]
    fn the_full_engine_holds_one_whole_stream_and_the_rows_that_are_read() {
        let arch = crate::model::tests::tiny_arch();
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", vec![1; 10]);
        for _ in 0..7 {
            let fork = plan.fork(prompt, Vec::new());
            plan.read(fork, Entropy);
        }
        plan.read(prompt, Metric::Continuation { from: 4 });
        assert_eq!(size(&plan.compile(&arch).unwrap(), Engine::Full).resid_bytes, (4 * 48 * (10 + 7 + 6)) as u64);
    }

    #[test]
    fn every_position_whose_logits_are_read_is_unembedded() {
        let arch = crate::model::tests::tiny_arch();
        let flops = |what: Option<What>| {
            let mut plan = Plan::default();
            let prompt = plan.prompt("p", vec![1; 10]);
            if let Some(what) = what {
                plan.read(prompt, what);
            }
            size(&plan.compile(&arch).unwrap(), Engine::Wavefront).flops
        };
        let rows = |what: What| (flops(Some(what)) - flops(None)) / (2 * arch.vocab * arch.d_model) as f64;
        let activation = |kind: SiteKind, positions: Positions| {
            What::Activation(Activation { site: kind.at(0), positions, part: crate::plan::Part::All })
        };
        assert_eq!(rows(What::Entropy), 1.0);
        assert_eq!(rows(What::Metric(Metric::Continuation { from: 4 })), 6.0);
        assert_eq!(rows(activation(SiteKind::Logits, Positions::All)), 10.0);
        assert_eq!(rows(activation(SiteKind::Logits, Positions::At(vec![1, 7]))), 2.0);
        assert_eq!(rows(activation(SiteKind::FinalNorm, Positions::All)), 0.0);
    }
}
