//! Which runs go on together, what has to be run for them, and what that costs.

use super::cache::Kept;
use super::{Generated, Generation};
use crate::model::arch::{Arch, Layer};
use crate::plan::{Plan, Program, Run};
use crate::run::size::{Size, size};
use crate::run::{Engine, RunError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

/// Runs that go on together.
#[derive(Default)]
pub(super) struct Batch {
    /// Their numbers in [`Generation::runs`].
    pub members: Vec<usize>,
    /// What the prompt pass runs for them: themselves, the runs that they descend from, and donors.
    pub runs: BTreeSet<Run>,
    /// The positions whose keys and values are kept.
    pub kept: BTreeMap<Run, Range<usize>>,
    bytes: usize,
}

/// What one more member adds to a batch.
struct More {
    runs: Vec<Run>,
    kept: Vec<(Run, Range<usize>)>,
    bytes: usize,
}

impl Batch {
    /// The slot of the first kept position of each run, and how many slots those take.
    pub fn slots(&self) -> (HashMap<Run, Kept>, usize) {
        let mut slot = 0;
        let place = |(run, positions): (&Run, &Range<usize>)| {
            let kept = Kept { slot, positions: positions.clone() };
            slot += positions.len();
            (*run, kept)
        };
        (self.kept.iter().map(place).collect(), slot)
    }

    fn add(&mut self, member: usize, more: More) {
        self.members.push(member);
        self.runs.extend(more.runs);
        self.kept.extend(more.kept);
        self.bytes += more.bytes;
    }
}

/// The runs that hold a run's keys and values before the first new token, each with its positions, in their order.
pub(super) fn holders(program: &Program, run: Run) -> Vec<(Run, Range<usize>)> {
    let (mut found, mut at, mut end) = (Vec::new(), run, program.length(run));
    loop {
        let start = if let Run::Fork(f) = at { program.cone(f).start } else { 0 };
        if start < end {
            found.push((at, start..end));
            end = start;
        }
        match program.base(at) {
            Some(base) => at = base,
            None => break,
        }
    }
    found.reverse();
    found
}

/// Cuts a generation into batches that fit `budget` bytes each, or hold one run. Runs of one prompt are neighbours.
pub(super) fn batches(program: &Program, generation: &Generation, budget: usize) -> Vec<Batch> {
    let cutter = Cutter { program, generation };
    let mut order: Vec<usize> = (0..generation.runs.len()).collect();
    order.sort_by_key(|i| (program.root(generation.runs[*i]), generation.runs[*i], *i));
    let mut batches: Vec<Batch> = Vec::new();
    for member in order {
        let run = generation.runs[member];
        if let Some(last) = batches.last_mut() {
            let more = cutter.more(last, run);
            if last.bytes + more.bytes <= budget {
                last.add(member, more);
                continue;
            }
        }
        let mut batch = Batch::default();
        let more = cutter.more(&batch, run);
        batch.add(member, more);
        batches.push(batch);
    }
    batches
}

struct Cutter<'a> {
    program: &'a Program<'a>,
    generation: &'a Generation,
}

impl Cutter<'_> {
    /// What a run adds to a batch, in bytes of f32: rows of the prompt pass, keys and values, states, and logits.
    fn more(&self, batch: &Batch, run: Run) -> More {
        let Arch { d_model, vocab, .. } = *self.program.arch;
        let mut more = More { runs: Vec::new(), kept: Vec::new(), bytes: 4 * d_model };
        let mut slots = self.generation.max_tokens - 1;
        for needed in self.program.needed([run], true).into_iter().filter(|run| !batch.runs.contains(run)) {
            more.bytes += self.program.most_rows(needed) * self.program.arch.kept_width() * 4;
            more.runs.push(needed);
        }
        for (holder, positions) in holders(self.program, run) {
            let old = batch.kept.get(&holder).map_or(positions.start, |old| old.end);
            if positions.end > old || !batch.kept.contains_key(&holder) {
                slots += positions.end - old;
                more.kept.push((holder, positions));
            }
        }
        // Equal runs are neighbours.
        if batch.members.last().is_none_or(|i| self.generation.runs[*i] != run) {
            more.bytes += vocab * 4;
        }
        more.bytes += slots * slot_bytes(self.program.arch) + state_bytes(self.program.arch);
        more
    }
}

/// Bytes that one position's keys and values, and what convolutions read of it, take in all layers, in f32.
fn slot_bytes(arch: &Arch) -> usize {
    let of_layer = |layer: &Layer| 4 * layer.carried(arch.d_model).parts.into_iter().sum::<usize>();
    arch.layers.iter().map(of_layer).sum()
}

/// Bytes of a run's states in all layers.
fn state_bytes(arch: &Arch) -> usize {
    let of_layer = |layer: &Layer| 4 * layer.carried(arch.d_model).state;
    arch.layers.iter().map(of_layer).sum()
}

/// The plan of some runs of another, without readouts, and what each is there. Bases and donors must be among them.
pub(super) fn excerpt(plan: &Plan, runs: &BTreeSet<Run>) -> (Plan, HashMap<Run, Run>) {
    let (mut part, mut there) = (Plan::default(), HashMap::new());
    for run in runs {
        let new = match run {
            Run::Prompt(p) => part.prompt(plan.prompts[*p].name.clone(), plan.prompts[*p].ids.clone()),
            Run::Fork(f) => {
                let mut fork = plan.forks[*f].clone();
                fork.base = there[&fork.base];
                fork.move_donors(|donor| there[&donor]);
                part.forks.push(fork);
                Run::Fork(part.forks.len() - 1)
            }
        };
        there.insert(*run, new);
    }
    (part, there)
}

/// What a generation cost that came to `generated`; prompts and forks are the plan's and not counted. `budget` is
/// [`crate::run::Options::budget`], which decides how often a prompt that many runs share is run.
///
/// # Errors
/// If the plan does not make sense for the model.
pub fn generation_size(
    program: &Program,
    generation: &Generation,
    generated: &[Generated],
    budget: usize,
) -> Result<Size, RunError> {
    let (arch, mut total) = (program.arch, Size::default());
    for batch in batches(program, generation, budget) {
        let prompts = size(&excerpt(program.plan, &batch.runs).0.compile(arch)?, Engine::Wavefront);
        total.include(&Size { prompts: 0, forks: 0, ..prompts });
        // Samples of a run share the logits after its prompt.
        let mut unembedded = batch.members.iter().map(|i| generation.runs[*i]).collect::<BTreeSet<Run>>().len();
        for member in &batch.members {
            let (length, steps) =
                (program.length(generation.runs[*member]), generated.get(*member).map_or(0, Generated::steps));
            (0..arch.n_layers).for_each(|l| total.add(arch, l, length, steps));
            unembedded += steps;
        }
        total.flops += 2.0 * (unembedded * arch.vocab) as f64 * arch.d_model as f64;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::super::{Sampling, Steps};
    use super::*;
    use crate::model::tests::tiny_arch;
    use crate::plan::{Change, Edit, Part, Positions};
    use crate::site::SiteKind;

    fn edit(at: usize, change: Change) -> Edit {
        Edit { site: SiteKind::Z.at(1), part: Part::All, positions: Positions::At(vec![at]), change }
    }

    fn generation(runs: Vec<Run>) -> Generation {
        Generation { runs, max_tokens: 5, sampling: Sampling::Greedy, steps: Steps::PromptOnly, stop: Vec::new() }
    }

    /// Two prompts; a fork from position 6 of the first, one of that from position 3 that takes from the second prompt.
    fn plan() -> (Plan, [Run; 4]) {
        let mut plan = Plan::default();
        let (a, b) = (plan.prompt("a", vec![1; 10]), plan.prompt("b", vec![2; 8]));
        let c = plan.fork(a, vec![edit(6, Change::Zero)]);
        let d = plan.fork(c, vec![edit(3, Change::interchange(b))]);
        (plan, [a, b, c, d])
    }

    #[test]
    fn positions_before_a_cone_are_held_by_what_it_forks_from() {
        let (mut plan, [a, _, c, d]) = plan();
        let arch = tiny_arch();
        let late = plan.fork(d, vec![edit(8, Change::Zero)]);
        let program = plan.compile(&arch).unwrap();
        assert_eq!(holders(&program, a), [(a, 0..10)]);
        assert_eq!(holders(&program, c), [(a, 0..6), (c, 6..10)]);
        assert_eq!(holders(&program, d), [(a, 0..3), (d, 3..10)]);
        assert_eq!(holders(&program, late), [(a, 0..3), (d, 3..8), (late, 8..10)]);
    }

    #[test]
    fn a_batch_runs_what_its_members_need_and_keeps_what_they_read() {
        let (plan, [a, b, c, d]) = plan();
        let arch = tiny_arch();
        let program = plan.compile(&arch).unwrap();
        let together = batches(&program, &generation(vec![d, c, b, d]), usize::MAX);
        assert_eq!(together.len(), 1);
        assert_eq!(together[0].members, [1, 0, 3, 2]);
        assert_eq!(together[0].kept, BTreeMap::from([(a, 0..6), (b, 0..8), (c, 6..10), (d, 3..10)]));
        let alone = batches(&program, &generation(vec![c, d]), 1);
        assert_eq!(alone[0].runs, BTreeSet::from([a, c]));
        assert_eq!(alone[1].runs, BTreeSet::from([a, b, c, d]));
        assert_eq!(alone[1].kept, BTreeMap::from([(a, 0..3), (d, 3..10)]));
    }

    #[test]
    fn batches_stay_within_the_budget() {
        let (plan, [a, _, c, d]) = plan();
        let arch = tiny_arch();
        let program = plan.compile(&arch).unwrap();
        let generation = generation([a, c, d].repeat(20));
        let whole = batches(&program, &generation, usize::MAX).remove(0).bytes;
        let parts = batches(&program, &generation, whole / 3);
        assert!(parts.len() > 2 && parts.iter().all(|b| b.bytes <= whole / 3));
        assert_eq!(parts.iter().map(|b| b.members.len()).sum::<usize>(), 60);
    }

    #[test]
    fn samples_of_a_prompt_share_what_is_kept_of_it() {
        let (plan, [a, ..]) = plan();
        let arch = tiny_arch();
        let program = plan.compile(&arch).unwrap();
        let bytes = |n: usize| batches(&program, &generation(vec![a; n]), usize::MAX)[0].bytes;
        // Each more has a row of the residual stream and slots for its new tokens.
        let of_one = 4 * arch.d_model + 4 * slot_bytes(&arch);
        assert_eq!(bytes(9) - bytes(1), 8 * of_one);
    }

    #[test]
    fn a_generation_costs_the_tokens_that_came_of_it() {
        let (plan, [a, ..]) = plan();
        let arch = tiny_arch();
        let program = plan.compile(&arch).unwrap();
        let came = |n: usize, stopped: bool| Generated { ids: vec![7; n], stopped };
        let rows = |generated: &[Generated]| {
            generation_size(&program, &generation(vec![a; generated.len()]), generated, usize::MAX).unwrap().rows
        };
        assert_eq!(rows(&[came(5, false)]), 4 * (10 + 4));
        assert_eq!(rows(&[came(5, false), came(2, true), came(0, true)]), 4 * (10 + 4 + 2));
    }
}
