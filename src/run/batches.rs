//! Which runs go through a layer together: those that have to do with each other always, others while there is room.

use crate::plan::{Program, Run};
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
pub(super) fn sets(program: &Program) -> Vec<Set> {
    let (set_of, depths) = (program.sets(), program.depths());
    let mut sets: Vec<Runs> = vec![Runs::new(); set_of.len()];
    for run in program.runs() {
        sets[set_of[program.root(run)]].push(run);
    }
    let (mut gradients, mut others) = (vec![false; set_of.len()], vec![false; set_of.len()]);
    program.gradients.iter().for_each(|r| gradients[set_of[program.root(r.run)]] = true);
    program.read_runs().into_iter().for_each(|run| others[set_of[program.root(run)]] = true);
    let is_run = |(s, runs): &(usize, Runs)| !runs.is_empty() && (others[*s] || !gradients[*s]);
    sets.into_iter().enumerate().filter(is_run).map(|(s, runs)| Set { runs, depth: depths[s] }).collect()
}

/// The width of the widest site that a program has computed.
pub(super) fn widest(program: &Program) -> usize {
    let (arch, plan) = (program.arch, program.plan);
    let edited = plan.forks.iter().flat_map(|f| &f.edits).map(|e| e.site);
    // Those that are computed only where they are looked at: of neurons, those of several experts.
    let looked_at = edited.chain(program.at_sites.iter().map(|r| r.site));
    let extra = looked_at.filter(|s| {
        use SiteKind::*;
        matches!(s.kind, HeadOut | MlpAct | ExpertOut | Scores | Pattern | State)
    });
    let longest = plan.prompts.iter().map(|p| p.ids.len()).max().unwrap_or(0);
    extra.map(|site| site.width(arch, longest)).fold(arch.d_mlp.max(arch.d_model), usize::max)
}

/// [`sets`], joined in order while they go through the same layers and have at most so many rows; a set that has more by
/// itself is a batch.
pub(super) fn batches(program: &Program, most: usize) -> Vec<Set> {
    let (mut joined, mut filled): (Vec<Set>, usize) = (Vec::new(), 0);
    for set in sets(program) {
        let rows: usize = set.runs.iter().map(|run| program.most_rows(*run)).sum();
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
