//! Programs: plans that were checked for a model, with every position, column and donor resolved.
//!
//! [`Plan::compile`] finds whatever is wrong with a plan. An engine takes a [`Program`] and resolves nothing itself: where an
//! edit stands, which rows it takes from and what a readout is of are numbers here, and readouts are sorted by where in
//! the pass they are read.

use super::cone::{self, Cone};
use super::{Change, EdgeEstimate, Edit, Metric, Plan, Positions, Reader, Run, Writer};
use crate::model::arch::Arch;
use crate::ops::RowChange;
use crate::site::{Site, SiteKind};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// A row of a pass: a run's position.
pub(crate) type Row = (Run, usize);

/// A plan as engines run it.
pub struct Program<'p> {
    pub(crate) plan: &'p Plan,
    pub(crate) arch: &'p Arch,
    /// The prompt that each fork descends from.
    pub(super) roots: Vec<usize>,
    /// The runs that others fork from.
    pub(super) forked: HashSet<Run>,
    /// Each fork's own edits.
    pub(super) edits: Vec<Vec<Placed<'p>>>,
    /// The edges that each fork takes itself.
    pub(super) exchanges: Vec<Vec<Exchanged>>,
    pub(super) cones: Vec<Cone>,
    /// For each prompt, the first of those that its runs have to do with.
    pub(super) sets: Vec<usize>,
    /// What is read while the pass goes by, within the layers and before them.
    pub(crate) at_sites: Vec<SiteReadout<'p>>,
    /// What is read of the final norm and the logits.
    pub(crate) at_end: Vec<EndReadout<'p>>,
    pub(crate) attributions: Vec<AttributionReadout<'p>>,
    pub(crate) gradients: Vec<GradientReadout<'p>>,
    pub(crate) edges: Vec<EdgesReadout<'p>>,
}

/// An edit in its place.
pub(crate) struct Placed<'p> {
    pub edit: &'p Edit,
    pub site: Site,
    /// In the order in which the plan names them.
    pub positions: Vec<usize>,
    pub columns: Arc<[Range<usize>]>,
    pub made: Made,
}

/// A position of a run, and the donor's that corresponds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Matched {
    pub own: usize,
    pub theirs: usize,
}

/// Edges that are taken from a donor, by where their readers are.
pub(crate) struct Exchanged {
    pub donor: Run,
    /// Those of the readers, each once.
    pub positions: Vec<Matched>,
    /// The readers at each site.
    pub readers: BTreeMap<Site, Vec<Reads>>,
}

/// What one reader takes from the donor.
pub(crate) struct Reads {
    pub reader: Reader,
    /// In the order of the flow.
    pub writers: Vec<Writer>,
    /// Whether it takes all writers before it but these: the shorter list stands here.
    pub all_but: bool,
}

/// What an edit does to each of its positions' rows.
pub(crate) enum Made {
    Change(RowChange),
    /// Takes the donor's row of these positions, one for each that is edited.
    Taken {
        donor: Run,
        from: Vec<usize>,
    },
}

impl Placed<'_> {
    /// The run that it takes from, if it does.
    pub fn donor(&self) -> Option<Run> {
        if let Made::Taken { donor, .. } = &self.made { Some(*donor) } else { None }
    }

    /// The row that it takes from for a position, if it edits that and takes from anywhere.
    pub fn donor_row(&self, position: usize) -> Option<Row> {
        let Made::Taken { donor, from } = &self.made else { return None };
        self.positions.iter().position(|p| *p == position).map(|i| (*donor, from[i]))
    }
}

/// What is kept of a site's rows.
pub(crate) enum Take<'p> {
    /// `[positions, columns]`
    Columns(Vec<Range<usize>>),
    /// Their inner products with a direction. `[positions]`
    Along(&'p [f32]),
}

/// A readout of a site.
pub(crate) struct SiteReadout<'p> {
    /// Its number in the plan.
    pub readout: usize,
    pub run: Run,
    pub site: Site,
    pub positions: Vec<usize>,
    pub take: Take<'p>,
}

/// A readout of the end of the pass.
pub(crate) struct EndReadout<'p> {
    /// Its number in the plan.
    pub readout: usize,
    /// The rows that it is computed from.
    pub rows: Vec<Row>,
    pub what: EndWhat<'p>,
    /// Whether the logits of one of its rows are edited: then it needs them all.
    pub logits_are_edited: bool,
}

/// What a readout of the end is of.
pub(crate) enum EndWhat<'p> {
    Difference {
        answer: &'p [u32],
        foil: &'p [u32],
    },
    AboveMean(&'p [u32]),
    /// The tokens whose log-probabilities add up, one for each row.
    Continuation(&'p [u32]),
    /// Of the first row, from that of the second.
    Kl,
    Entropy,
    Rank(u32),
    LogProbs(&'p [u32]),
    Normed(Take<'p>),
    Logits(Take<'p>),
}

/// A readout of a direct logit attribution.
pub(crate) struct AttributionReadout<'p> {
    /// Its number in the plan.
    pub readout: usize,
    pub run: Run,
    pub answer: &'p [u32],
    /// None where the attribution is to the answer less the mean logit.
    pub foil: Option<&'p [u32]>,
}

/// A readout of a gradient.
pub(crate) struct GradientReadout<'p> {
    /// Its number in the plan.
    pub readout: usize,
    pub run: Run,
    pub metric: &'p Metric,
    pub site: Site,
    pub positions: Vec<usize>,
    pub columns: Vec<Range<usize>>,
}

/// A readout of estimates of edges' effects.
pub(crate) struct EdgesReadout<'p> {
    /// Its number in the plan.
    pub readout: usize,
    pub run: Run,
    pub donor: Run,
    pub metric: &'p Metric,
    /// Ascending, each once.
    pub positions: Vec<Matched>,
    /// For each position of the run the donor's.
    pub aligned: Vec<Option<usize>>,
    pub by: EdgeEstimate,
}

impl<'p> Program<'p> {
    /// Its runs: prompts, then forks.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run> + use<> {
        let (prompts, forks) = (self.plan.prompts.len(), self.plan.forks.len());
        (0..prompts).map(Run::Prompt).chain((0..forks).map(Run::Fork))
    }

    /// The number of the prompt that a run descends from.
    pub(crate) fn root(&self, run: Run) -> usize {
        match run {
            Run::Prompt(p) => p,
            Run::Fork(f) => self.roots[f],
        }
    }

    /// The token ids of the prompt that a run descends from.
    pub(crate) fn ids(&self, run: Run) -> &'p [u32] {
        &self.plan.prompts[self.root(run)].ids
    }

    /// How many positions a run has.
    pub(crate) fn length(&self, run: Run) -> usize {
        self.ids(run).len()
    }

    /// The run that a fork parts from.
    pub(crate) fn base(&self, run: Run) -> Option<Run> {
        if let Run::Fork(f) = run { Some(self.plan.forks[f].base) } else { None }
    }

    /// What a fork can change of its base.
    pub(crate) fn cone(&self, fork: usize) -> &Cone {
        &self.cones[fork]
    }

    /// The most rows that a run has in any layer.
    pub(crate) fn most_rows(&self, run: Run) -> usize {
        match run {
            Run::Prompt(p) => self.plan.prompts[p].ids.len(),
            Run::Fork(f) => (0..self.arch.n_layers).map(|l| self.cones[f].rows(l)).max().unwrap_or(0),
        }
    }

    /// A run's own edits and those of the runs it descends from, its own first.
    pub(super) fn lineage(&self, run: Run) -> impl Iterator<Item = &[Placed<'p>]> {
        self.forks_of(run).map(|f| self.edits[f].as_slice())
    }

    /// A fork and the forks that it descends from; none of a prompt.
    fn forks_of(&self, run: Run) -> impl Iterator<Item = usize> {
        let fork = |run: Run| if let Run::Fork(f) = run { Some(f) } else { None };
        std::iter::successors(fork(run), move |f| fork(self.plan.forks[*f].base))
    }

    /// All edits that hold in a run: those of the runs it descends from, then its own.
    pub(crate) fn edits(&self, run: Run) -> Vec<&Placed<'p>> {
        let chain: Vec<&[Placed]> = self.lineage(run).collect();
        chain.into_iter().rev().flatten().collect()
    }

    /// All exchanges of edges that hold in a run: those of the runs it descends from, then its own.
    pub(crate) fn exchanges(&self, run: Run) -> Vec<&Exchanged> {
        let mut chain: Vec<&Exchanged> = self.forks_of(run).flat_map(|f| self.exchanges[f].iter().rev()).collect();
        chain.reverse();
        chain
    }

    /// A run, and all that it descends from.
    fn and_bases(&self, run: Run) -> impl Iterator<Item = Run> {
        std::iter::successors(Some(run), |run| self.base(*run))
    }

    /// The runs that edges are taken from, with all that these descend from.
    pub(crate) fn donors_of_edges(&self) -> HashSet<Run> {
        self.exchanges.iter().flatten().flat_map(|exchange| self.and_bases(exchange.donor)).collect()
    }

    /// The runs whose writers are needed by exchanges of edges: donors and what is edited, with all that these descend from; a fork
    /// itself where it reads more than once.
    pub(crate) fn written(&self) -> HashSet<Run> {
        let mut found = self.donors_of_edges();
        for (f, exchanges) in self.exchanges.iter().enumerate().filter(|(_, exchanges)| !exchanges.is_empty()) {
            let sites: BTreeSet<&Site> = exchanges.iter().flat_map(|exchange| exchange.readers.keys()).collect();
            let again = sites.len() > 1 || self.forked.contains(&Run::Fork(f));
            found.extend(self.and_bases(Run::Fork(f)).skip(usize::from(!again)));
        }
        found
    }

    /// Whether any edit of that kind of site holds in a run.
    pub(crate) fn edits_at(&self, run: Run, kind: SiteKind) -> bool {
        self.lineage(run).flatten().any(|edit| edit.site.kind == kind)
    }

    /// Some runs and all that they take from, directly or not; with those that they descend from, if `with_bases`.
    pub(crate) fn needed(&self, runs: impl IntoIterator<Item = Run>, with_bases: bool) -> BTreeSet<Run> {
        let (mut found, mut open) = (BTreeSet::new(), Vec::from_iter(runs));
        while let Some(run) = open.pop() {
            if found.insert(run) {
                open.extend(self.base(run).filter(|_| with_bases));
                open.extend(self.forks_of(run).flat_map(|f| self.plan.forks[f].donors()));
            }
        }
        found
    }

    /// The runs whose readings are taken at the end of a pass or while it goes by: gradients have passes of their own.
    pub(crate) fn read_runs(&self) -> BTreeSet<Run> {
        let sites = self.at_sites.iter().map(|r| r.run);
        let ends = self.at_end.iter().flat_map(|r| &r.rows).map(|row| row.0);
        sites.chain(ends).chain(self.attributions.iter().map(|r| r.run)).collect()
    }

    /// For each prompt, the first of those that its runs have to do with, by donors and by what is compared.
    pub(crate) fn sets(&self) -> &[usize] {
        &self.sets
    }

    /// For each prompt, how many layers from the first its runs have to go through, and with them those of its set
    /// ([`Program::sets`]), for all that is read of these: gradients apart, which have passes of their own. All layers where
    /// nothing is read.
    pub(crate) fn depths(&self) -> Vec<usize> {
        let n_layers = self.arch.n_layers;
        let sites = self.at_sites.iter().map(|r| (r.run, r.site.layers_up_to(n_layers)));
        let ends = self.at_end.iter().flat_map(|r| &r.rows).map(|row| (row.0, n_layers));
        let attributions = self.attributions.iter().map(|r| (r.run, n_layers));
        let mut depths: Vec<Option<usize>> = vec![None; self.sets.len()];
        for (run, depth) in sites.chain(ends).chain(attributions) {
            let set = &mut depths[self.sets[self.root(run)]];
            *set = (*set).max(Some(depth));
        }
        self.sets.iter().map(|set| depths[*set].unwrap_or(n_layers)).collect()
    }

    /// The cones of the plan's forks.
    pub fn cones(&self) -> &[Cone] {
        &self.cones
    }

    /// Finds how far each fork's edits reach, once all edits and readouts are in their places.
    pub(super) fn find_cones(&mut self) {
        self.cones = cone::cones(self);
    }
}

/// Positions as numbers, in a prompt of `length`.
pub(super) fn resolve(positions: &Positions, length: usize) -> Result<Vec<usize>, String> {
    match positions {
        Positions::Last => Ok(vec![length - 1]),
        Positions::All => Ok((0..length).collect()),
        Positions::At(list) => match list.iter().find(|p| **p >= length) {
            Some(p) => Err(format!("position {p} does not exist; the prompt has 0 to {}", length - 1)),
            None => Ok(list.clone()),
        },
    }
}

/// A change as it is made on a row; an interchange is none, but takes from another.
pub(super) fn row_change(change: &Change) -> Result<RowChange, (Run, Option<&[usize]>)> {
    Ok(match change {
        Change::Zero => RowChange::Zero,
        Change::Set(v) => RowChange::Set(v.clone()),
        Change::Interchange { donor, positions } => return Err((*donor, positions.as_deref())),
        Change::Add { vector, coefficient } => RowChange::Add(vector.clone(), *coefficient),
        Change::ProjectOut(v) => RowChange::ProjectOut(v.clone()),
        Change::Scale(c) => RowChange::Scale(*c),
        Change::Clamp { low, high } => RowChange::Clamp(*low, *high),
        Change::Map(f) => RowChange::Map(f.clone()),
    })
}
