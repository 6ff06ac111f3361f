//! Which runs go through a layer together: those that have to do with each other always, others while there is room.

use super::cone::Cone;
use crate::model::arch::Arch;
use crate::plan::{Plan, Run, What};
use crate::site::SiteKind;

/// Runs of a batch, ascending: prompts, then forks.
pub(super) type Runs = Vec<Run>;

/// Runs that go through the same layers.
pub(super) struct Set {
    pub runs: Runs,
    /// How many layers they go through, from the first.
    pub depth: usize,
}

/// Sets of runs that do not touch each other, in the order of the plan, but for those of which nothing is read but
/// gradients: they have passes of their own.
pub(super) fn sets(plan: &Plan, n_layers: usize) -> Vec<Set> {
    let (set_of, depths) = (plan.sets(), plan.depths(n_layers));
    let mut sets: Vec<Runs> = vec![Runs::new(); set_of.len()];
    let forks = (0..plan.forks.len()).map(Run::Fork);
    for run in (0..plan.prompts.len()).map(Run::Prompt).chain(forks) {
        sets[set_of[plan.root(run)]].push(run);
    }
    let (mut gradients, mut others) = (vec![false; set_of.len()], vec![false; set_of.len()]);
    for readout in &plan.readouts {
        let of = if let What::Gradient { .. } = readout.what { &mut gradients } else { &mut others };
        of[set_of[plan.root(readout.run)]] = true;
    }
    let is_run = |(s, runs): &(usize, Runs)| !runs.is_empty() && (others[*s] || !gradients[*s]);
    sets.into_iter().enumerate().filter(is_run).map(|(s, runs)| Set { runs, depth: depths[s] }).collect()
}

/// The width of the widest site that a plan has computed.
pub(super) fn widest(plan: &Plan, arch: &Arch) -> usize {
    let read = |what: &What| match what {
        What::Activation { site, .. } | What::Projection { site, .. } => Some(*site),
        _ => None,
    };
    let edited = plan.forks.iter().flat_map(|f| &f.edits).map(|e| e.site);
    // Those that are computed only where they are looked at.
    let looked_at = edited.chain(plan.readouts.iter().filter_map(|r| read(&r.what)));
    let extra = looked_at.filter(|s| matches!(s.kind, SiteKind::HeadOut | SiteKind::Scores | SiteKind::Pattern));
    let longest = plan.prompts.iter().map(|p| p.ids.len()).max().unwrap_or(0);
    extra.map(|site| site.width(arch, longest)).fold(arch.d_mlp.max(arch.d_model), usize::max)
}

/// [`sets`], joined in order while they go through the same layers and have at most so many rows; a set that has more by
/// itself is a batch.
pub(super) fn batches(plan: &Plan, n_layers: usize, cones: &[Cone], most: usize) -> Vec<Set> {
    let rows_of = |run: &Run| match run {
        Run::Prompt(p) => plan.prompts[*p].ids.len(),
        Run::Fork(f) => (0..cones[*f].ends.len()).map(|l| cones[*f].rows(l)).max().unwrap_or(0),
    };
    let (mut joined, mut filled): (Vec<Set>, usize) = (Vec::new(), 0);
    for set in sets(plan, n_layers) {
        let rows: usize = set.runs.iter().map(rows_of).sum();
        match joined.last_mut() {
            Some(last) if filled + rows <= most && last.depth == set.depth => {
                last.runs.extend(set.runs);
                filled += rows;
            }
            _ => {
                joined.push(set);
                filled = rows;
            }
        }
    }
    joined.iter_mut().for_each(|set| set.runs.sort());
    joined
}
