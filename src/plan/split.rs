//! Cutting a plan into plans that can be run one after another.

use super::{Change, EdgeEffects, Fork, Kv, Plan, Program, Prompt, Readout, Run, What};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A plan cut out of another, with the number there of each of its readouts.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    pub plan: Plan,
    pub readouts: Vec<usize>,
}

/// For each prompt of a program, the first of those that its runs have to do with, by donors and by what is compared.
pub(super) fn sets(program: &Program) -> Vec<usize> {
    let mut sets = Sets::new(program.plan.prompts.len());
    for (f, fork) in program.plan.forks.iter().enumerate() {
        fork.donors().for_each(|donor| sets.join(program.roots[f], program.root(donor)));
    }
    for readout in &program.edges {
        sets.join(program.root(readout.run), program.root(readout.donor));
    }
    for readout in &program.at_end {
        for pair in readout.rows.windows(2) {
            sets.join(program.root(pair[0].0), program.root(pair[1].0));
        }
    }
    sets.numbers()
}

/// A hash of what is written to it.
struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

impl Plan {
    /// SHA-256 in hex of all that the plan's readings depend on, but for the model: ids, forks, edits with their vectors,
    /// readouts. A caller's function ([`Change::Map`]) is not part of it.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        // A hash takes whatever it is given.
        let say = |hash: &mut Sha256, what: std::fmt::Arguments| Hashing(hash).write_fmt(what).unwrap_or_default();
        self.prompts.iter().for_each(|p| say(&mut hash, format_args!("{:?}", p.ids)));
        for fork in &self.forks {
            say(&mut hash, format_args!("{fork:?}"));
            for edit in &fork.edits {
                if let Change::Set(v) | Change::ProjectOut(v) | Change::Add { vector: v, .. } = &edit.change {
                    v.iter().for_each(|x| hash.update(x.to_le_bytes()));
                }
                if let Change::Interchange { positions, .. } = &edit.change {
                    say(&mut hash, format_args!("{positions:?}"));
                }
            }
        }
        say(&mut hash, format_args!("{:?}", self.readouts));
        if self.kv != Kv::default() {
            hash.update(self.kv.to_string());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `n` pieces, `piece` naming that of each prompt and with it of all runs that descend from it.
    fn cut(&self, n: usize, piece: impl Fn(usize) -> usize) -> Vec<Piece> {
        let empty = Plan { kv: self.kv, ..Plan::default() };
        let mut pieces = vec![Piece { plan: empty, readouts: Vec::new() }; n];
        let mut prompt_at = Vec::with_capacity(self.prompts.len());
        let mut fork_at = Vec::with_capacity(self.forks.len());
        let moved = |run: Run, prompts: &[usize], forks: &[usize]| match run {
            Run::Prompt(p) => Run::Prompt(prompts[p]),
            Run::Fork(f) => Run::Fork(forks[f]),
        };
        for (p, prompt) in self.prompts.iter().enumerate() {
            let plan = &mut pieces[piece(p)].plan;
            prompt_at.push(plan.prompts.len());
            plan.prompts.push(Prompt::clone(prompt));
        }
        for (f, fork) in self.forks.iter().enumerate() {
            let mut fork = Fork { base: moved(fork.base, &prompt_at, &fork_at), ..fork.clone() };
            fork.move_donors(|donor| moved(donor, &prompt_at, &fork_at));
            let plan = &mut pieces[piece(self.root(Run::Fork(f)))].plan;
            fork_at.push(plan.forks.len());
            plan.forks.push(fork);
        }
        for (i, readout) in self.readouts.iter().enumerate() {
            let mut what = readout.what.clone();
            if let What::KlFrom(other) | What::EdgeEffects(EdgeEffects { donor: other, .. }) = &mut what {
                *other = moved(*other, &prompt_at, &fork_at);
            }
            let into = &mut pieces[piece(self.root(readout.run))];
            into.plan.readouts.push(Readout { run: moved(readout.run, &prompt_at, &fork_at), what });
            into.readouts.push(i);
        }
        pieces
    }
}

impl Program<'_> {
    /// Cuts the plan into pieces that do not depend on each other, each of which costs at most `most` by `cost` (of a
    /// prompt or fork), but for one whose runs cannot be parted; none where the plan is one piece as it is. Readings do not depend on
    /// where a plan is cut.
    pub fn split(&self, most: f64, cost: &dyn Fn(Run) -> f64) -> Option<Vec<Piece>> {
        let mut costs: BTreeMap<usize, f64> = BTreeMap::new();
        for run in self.runs() {
            *costs.entry(self.sets[self.root(run)]).or_default() += cost(run);
        }
        // The piece of each set: sets are joined in order while they fit.
        let (mut piece_of, mut n, mut filled) = (BTreeMap::new(), 0usize, 0f64);
        for (set, cost) in costs {
            if n == 0 || filled + cost > most {
                n += 1;
                filled = 0.0;
            }
            filled += cost;
            piece_of.insert(set, n - 1);
        }
        (n > 1).then(|| self.plan.cut(n, |prompt| piece_of[&self.sets[prompt]]))
    }
}

/// Disjoint sets of numbers, each led by its smallest.
struct Sets {
    parent: Vec<usize>,
}

impl Sets {
    /// `n` numbers, each in a set of its own.
    fn new(n: usize) -> Self {
        Sets { parent: (0..n).collect() }
    }

    /// The smallest number of the set of `x`.
    fn find(&mut self, mut x: usize) -> usize {
        while self.parent[x] != x {
            self.parent[x] = self.parent[self.parent[x]];
            x = self.parent[x];
        }
        x
    }

    /// Makes one set of those of `a` and `b`.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.parent[a.max(b)] = a.min(b);
    }

    /// The leader of every number's set.
    fn numbers(mut self) -> Vec<usize> {
        (0..self.parent.len()).map(|x| self.find(x)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Activation, Edit, Gradient, KlFrom, Metric, Part, Positions};
    use super::*;
    use crate::model::tests::tiny_arch;
    use crate::site::SiteKind;

    fn swap(donor: Run) -> Vec<Edit> {
        let change = Change::interchange(donor);
        vec![Edit { site: SiteKind::Z.at(0), part: Part::All, positions: Positions::Last, change }]
    }

    /// Three pairs, each prompt with a fork that takes from the other, and a fork of the first fork.
    fn three_pairs() -> Plan {
        let mut plan = Plan::default();
        let prompts: Vec<Run> = (0..6).map(|p| plan.prompt(format!("p{p}"), vec![p; 4])).collect();
        let mut forks = Vec::new();
        for pair in prompts.chunks(2) {
            forks.push(plan.fork(pair[0], swap(pair[1])));
            forks.push(plan.fork(pair[1], swap(pair[0])));
        }
        let deep = plan.fork(forks[4], swap(forks[5]));
        let metric = || Metric::logit_difference(vec![1], vec![2]);
        for run in [deep, forks[0], prompts[3], prompts[0]] {
            plan.read(run, metric());
        }
        plan.read(forks[2], KlFrom(prompts[2]));
        plan
    }

    #[test]
    fn runs_that_take_from_each_other_stay_together_and_nothing_is_lost() {
        let plan = three_pairs();
        let arch = tiny_arch();
        let pieces = plan.compile(&arch).unwrap().split(4.0, &|_| 1.0).unwrap();
        assert_eq!(pieces.len(), 3);
        let mut readouts: Vec<usize> = pieces.iter().flat_map(|p| p.readouts.clone()).collect();
        readouts.sort_unstable();
        assert_eq!(readouts, [0, 1, 2, 3, 4]);
        let last = &pieces[2].plan;
        assert_eq!((last.prompts.len(), last.forks.len(), last.prompts[0].name.as_str()), (2, 3, "p4"));
        assert_eq!(last.forks[2].base, Run::Fork(0));
        assert!(matches!(last.forks[2].edits[0].change, Change::Interchange { donor: Run::Fork(1), .. }));
        assert!(matches!(pieces[1].plan.readouts[1].what, What::KlFrom(Run::Prompt(0))));
    }

    #[test]
    fn runs_go_as_deep_as_what_is_read_of_their_set() {
        let mut plan = Plan::default();
        let prompts: Vec<Run> = (0..7).map(|p| plan.prompt(format!("p{p}"), vec![p; 4])).collect();
        let (positions, part) = (Positions::Last, Part::All);
        let activation = |site| Activation { site, positions: positions.clone(), part: part.clone() };
        let metric = Metric::logit_difference(vec![1], vec![2]);
        plan.read(prompts[0], activation(SiteKind::Embed.at(0)));
        plan.read(prompts[1], activation(SiteKind::ResidPost.at(2)));
        plan.read(prompts[1], activation(SiteKind::Q.at(1)));
        // A donor goes as deep as its taker, whatever is read of itself.
        let fork = plan.fork(prompts[2], swap(prompts[3]));
        plan.read(fork, activation(SiteKind::Z.at(4)));
        plan.read(prompts[3], activation(SiteKind::ResidPre.at(0)));
        plan.read(prompts[4], metric.clone());
        let site = SiteKind::Z.at(0);
        plan.read(prompts[5], Gradient { metric, site, positions: positions.clone(), part: part.clone() });
        plan.read(prompts[5], activation(SiteKind::MlpOut.at(0)));
        let mut arch = tiny_arch();
        arch.n_layers = 6;
        arch.layers = vec![arch.layers[0]; 6];
        assert_eq!(plan.compile(&arch).unwrap().depths(), [0, 3, 5, 5, 6, 1, 6]);
    }

    #[test]
    fn a_digest_tells_plans_apart_by_their_numbers() {
        let steered = |x: f32| {
            let mut plan = three_pairs();
            let change = Change::Add { vector: vec![x; 3].into(), coefficient: 1.0 };
            let edit = Edit { site: SiteKind::Z.at(0), part: Part::All, positions: Positions::Last, change };
            plan.fork(Run::Prompt(0), vec![edit]);
            plan
        };
        assert_eq!(steered(1.0).digest(), steered(1.0).digest());
        assert_ne!(steered(1.0).digest(), steered(1.5).digest());
        assert_ne!(three_pairs().digest(), steered(1.0).digest());
    }

    #[test]
    fn pieces_are_filled_as_far_as_they_may_cost() {
        let (plan, arch) = (three_pairs(), tiny_arch());
        let plan = plan.compile(&arch).unwrap();
        assert!(plan.split(1e9, &|_| 1.0).is_none(), "it is one piece");
        let pieces = |most: f64| plan.split(most, &|_| 1.0).unwrap();
        assert_eq!(pieces(8.0).iter().map(|p| p.plan.prompts.len()).collect::<Vec<_>>(), [4, 2]);
        assert_eq!(pieces(0.0).len(), 3);
    }
}
