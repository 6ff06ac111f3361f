//! Which runs go through a layer together: those that have to do with each other always, others while there is room.

use super::cone::Cone;
use crate::model::arch::Arch;
use crate::plan::{Plan, Run, What};
use crate::site::{Site, SiteKind};
use std::collections::{BTreeMap, HashSet};

/// Runs of a batch, ascending: prompts, then forks.
pub(super) type Runs = Vec<Run>;

/// Sets of runs that do not touch each other, in the order of the plan, but for those of which nothing is read but
/// gradients: they have passes of their own.
pub(super) fn sets(plan: &Plan) -> Vec<Runs> {
    let set_of = plan.sets();
    let mut sets: BTreeMap<usize, Runs> = BTreeMap::new();
    let forks = (0..plan.forks.len()).map(Run::Fork);
    for run in (0..plan.prompts.len()).map(Run::Prompt).chain(forks) {
        sets.entry(set_of[plan.root(run)]).or_default().push(run);
    }
    let (mut of_gradients, mut of_others) = (HashSet::new(), HashSet::new());
    for readout in &plan.readouts {
        match &readout.what {
            What::Gradient { .. } => of_gradients.insert(readout.run),
            What::KlFrom(other) => of_others.insert(readout.run) | of_others.insert(*other),
            _ => of_others.insert(readout.run),
        };
    }
    let any = |set: &Runs, of: &HashSet<Run>| set.iter().any(|run| of.contains(run));
    sets.into_values().filter(|set| any(set, &of_others) || !any(set, &of_gradients)).collect()
}

/// The width of the widest site that a plan has computed.
pub(super) fn widest(plan: &Plan, arch: &Arch) -> usize {
    let by_head = |site: Site| site.kind == SiteKind::HeadOut;
    let read = |what: &What| match what {
        What::Activation { site, .. } | What::Projection { site, .. } => by_head(*site),
        _ => false,
    };
    let edited = plan.forks.iter().flat_map(|f| &f.edits).any(|e| by_head(e.site));
    let heads = if edited || plan.readouts.iter().any(|r| read(&r.what)) { arch.n_heads } else { 1 };
    arch.d_mlp.max(heads * arch.d_model)
}

/// [`sets`], joined in order while they have at most so many rows; a set that has more by itself is a batch.
pub(super) fn batches(plan: &Plan, cones: &[Cone], most: usize) -> Vec<Runs> {
    let rows_of = |run: &Run| match run {
        Run::Prompt(p) => plan.prompts[*p].ids.len(),
        Run::Fork(f) => (0..cones[*f].ends.len()).map(|l| cones[*f].rows(l)).max().unwrap_or(0),
    };
    let (mut joined, mut filled): (Vec<Runs>, usize) = (Vec::new(), 0);
    for set in sets(plan) {
        let rows: usize = set.iter().map(rows_of).sum();
        match joined.last_mut() {
            Some(last) if filled + rows <= most => {
                last.extend(set);
                filled += rows;
            }
            _ => {
                joined.push(set);
                filled = rows;
            }
        }
    }
    joined.iter_mut().for_each(|runs| runs.sort());
    joined
}
