//! Plans: what an analysis wants to know, as plain data.
//!
//! A plan holds prompts, forks of them that differ by edits, and readouts. It can be printed, counted and checked
//! without a model being run; [`crate::run`] computes its readings. Forks and donors refer to runs that were added
//! before them, so a plan cannot contain a cycle.
//!
//! ```
//! use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions, Run, What};
//! use gatelens::site::SiteKind;
//!
//! let mut plan = Plan::default();
//! let (clean, other) = (plan.prompt("clean", vec![5, 6, 7]), plan.prompt("other", vec![5, 9, 7]));
//! let swapped = plan.fork(
//!     clean,
//!     vec![Edit {
//!         site: SiteKind::Z.at(2),
//!         part: Part::Heads(vec![1]),
//!         positions: Positions::Last,
//!         change: Change::interchange(other),
//!     }],
//! );
//! plan.read(swapped, What::Metric(Metric::logit_difference(vec![11], vec![23])));
//! assert_eq!(plan.to_string(), "2 prompts (6 tokens), 1 edited run, 1 readout");
//! ```

mod check;
mod split;

pub use split::Piece;

use crate::model::arch::Arch;
use crate::site::{Site, SiteError, SiteKind, Units};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A prompt or a fork of a plan, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Run {
    Prompt(usize),
    Fork(usize),
}

/// A prompt: token ids as the model reads them.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// What messages call it.
    pub name: String,
    pub ids: Vec<u32>,
}

/// A run that differs from another by edits. Edits of the run that it forks from hold in it too.
#[derive(Clone, Debug)]
pub struct Fork {
    pub base: Run,
    pub edits: Vec<Edit>,
}

/// A change at a site.
#[derive(Clone, Debug)]
pub struct Edit {
    pub site: Site,
    pub part: Part,
    pub positions: Positions,
    pub change: Change,
}

/// Which numbers of a row an edit or a readout concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    All,
    /// Heads of a site that comes in heads; KV heads at `k`, `v` and `rot_k`.
    Heads(Vec<usize>),
    /// Single columns: neurons of an MLP site, dimensions of the residual stream, tokens of `logits`.
    Columns(Vec<usize>),
}

/// Which positions of a prompt, from its first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Positions {
    Last,
    All,
    At(Vec<usize>),
}

/// A function of a caller's on a part of a row.
pub type RowFunction = Arc<dyn Fn(&mut [f32]) + Send + Sync>;

/// What an edit does. Vectors are as long as the edited part of a row.
#[derive(Clone)]
pub enum Change {
    Zero,
    /// These numbers, a mean say, at every edited position.
    Set(Arc<[f32]>),
    /// The value that another run has at the same site and part (*interchange*). With `positions`, the donor's
    /// position for each edited one; without, the same positions, and for [`Positions::Last`] the donor's last.
    Interchange {
        donor: Run,
        positions: Option<Vec<usize>>,
    },
    /// A vector times a coefficient (*steering*).
    Add {
        vector: Arc<[f32]>,
        coefficient: f32,
    },
    /// Take out the part along a direction (*directional ablation*).
    ProjectOut(Arc<[f32]>),
    Scale(f32),
    Clamp {
        low: f32,
        high: f32,
    },
    /// A function of the caller's on the part of each edited row.
    Map(RowFunction),
}

impl Change {
    /// Interchange from `donor` at the same positions.
    pub fn interchange(donor: Run) -> Self {
        Change::Interchange { donor, positions: None }
    }

    /// The run that it takes from, if it is an interchange.
    pub fn donor(&self) -> Option<Run> {
        if let Change::Interchange { donor, .. } = self { Some(*donor) } else { None }
    }

    /// Takes from another run, if it is an interchange.
    pub(crate) fn move_donor(&mut self, to: impl FnOnce(Run) -> Run) {
        if let Change::Interchange { donor, .. } = self {
            *donor = to(*donor);
        }
    }

    /// Whether it has a vector, which fits rows of one length alone.
    pub(crate) fn has_vector(&self) -> bool {
        self.vector_len().is_some()
    }

    /// How long its vector is, if it has one.
    fn vector_len(&self) -> Option<usize> {
        match self {
            Change::Set(v) | Change::ProjectOut(v) | Change::Add { vector: v, .. } => Some(v.len()),
            _ => None,
        }
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Zero => f.write_str("zero"),
            Change::Set(v) => write!(f, "set to {} numbers", v.len()),
            Change::Interchange { donor, .. } => write!(f, "interchange from {donor:?}"),
            Change::Add { vector, coefficient } => write!(f, "add {coefficient} times {} numbers", vector.len()),
            Change::ProjectOut(v) => write!(f, "project out {} numbers", v.len()),
            Change::Scale(c) => write!(f, "scale by {c}"),
            Change::Clamp { low, high } => write!(f, "clamp to {low}..{high}"),
            Change::Map(_) => f.write_str("map"),
        }
    }
}

/// A number for a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// `logsumexp(answer logits) - logsumexp(foil logits)` at the last position. Nats.
    LogitDifference { answer: Vec<u32>, foil: Vec<u32> },
    /// `logsumexp(the tokens' logits) - mean logit` at the last position, the mean over the vocabulary. Nats. A logit difference
    /// is the difference of two of these, its halves: which of them an edit moves, the difference does not say. Where logits
    /// are soft-capped, the mean is over 1,024 tokens that are the same in every run (the whole vocabulary, if it is smaller):
    /// it would need all logits otherwise, and any constant that runs share keeps the difference.
    AboveMean { tokens: Vec<u32> },
    /// The log-probability of the prompt's own tokens from position `from` on, each given those before it. Nats.
    Continuation { from: usize },
}

impl Metric {
    /// The logit difference between sets of tokens.
    pub fn logit_difference(answer: Vec<u32>, foil: Vec<u32>) -> Self {
        Metric::LogitDifference { answer, foil }
    }

    /// The answer's half of a logit difference; the foil's is this less the difference. None of any other metric.
    pub fn answer_half(&self) -> Option<Metric> {
        match self {
            Metric::LogitDifference { answer, .. } => Some(Metric::AboveMean { tokens: answer.clone() }),
            Metric::AboveMean { .. } | Metric::Continuation { .. } => None,
        }
    }
}

/// What to keep of a run.
#[derive(Clone, Debug)]
pub struct Readout {
    pub run: Run,
    pub what: What,
}

/// The kinds of readouts.
#[derive(Clone, Debug)]
pub enum What {
    /// One number.
    Metric(Metric),
    /// A site's value, `[positions, part]`; for `scores` and `pattern` each head's row is as long as the prompt.
    Activation { site: Site, positions: Positions, part: Part },
    /// The KL divergence of the next-token distribution at the last position from that of another run,
    /// `KL(other || this)`. One number, nats.
    KlFrom(Run),
    /// The entropy of the next-token distribution at the last position. One number, nats.
    Entropy,
    /// The log-probabilities of some tokens as the next one, after the last position. `[tokens]`, nats
    LogProbs { tokens: Vec<u32> },
    /// The direct logit attribution of a logit difference, or of one of its halves, at the last position, before soft-capping of
    /// the logits (and so a half's mean is over the whole vocabulary): `[n_layers + 1, n_heads + 2]`. A layer's row has its
    /// heads, its MLP, and the attention's bias; the last row the embedding, the final norm's bias, what several tokens'
    /// logsumexp has beyond its weighted sum, then zeros. They sum to the metric where nothing after `z` is edited: what such an
    /// edit adds is no component's.
    Attribution(Metric),
    /// The inner product of a site's value with a direction. `[positions]`
    Projection { site: Site, positions: Positions, direction: Arc<[f32]> },
    /// The derivative of a metric of the run with respect to a site's value, as the run's own edits leave it; what those
    /// edits take from other runs is held fixed. `[positions, part]`, in nats for each unit of the value. 0 where the
    /// metric does not depend on the value, so for scores of keys that a query may not see.
    Gradient { metric: Metric, site: Site, positions: Positions, part: Part },
}

/// Prompts, forks and readouts; see the module's first lines.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub prompts: Vec<Prompt>,
    pub forks: Vec<Fork>,
    pub readouts: Vec<Readout>,
}

/// What does not make sense in a plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{at}: {source}")]
    Site { at: String, source: SiteError },
    #[error("{at}: {why}")]
    Bad { at: String, why: String },
}

impl Plan {
    /// Adds a prompt.
    pub fn prompt(&mut self, name: impl Into<String>, ids: Vec<u32>) -> Run {
        self.prompts.push(Prompt { name: name.into(), ids });
        Run::Prompt(self.prompts.len() - 1)
    }

    /// Adds a fork of a run.
    pub fn fork(&mut self, base: Run, edits: Vec<Edit>) -> Run {
        self.forks.push(Fork { base, edits });
        Run::Fork(self.forks.len() - 1)
    }

    /// Adds a readout; its reading has the returned number.
    pub fn read(&mut self, run: Run, what: What) -> usize {
        self.readouts.push(Readout { run, what });
        self.readouts.len() - 1
    }

    /// A plan that costs about what this one does where its runs go on for so many tokens more: prompts of which something is
    /// read are longer, and each of their forks has tokens of its own there. The plan must be sound ([`Plan::check`]).
    #[must_use]
    pub fn longer(mut self, more: usize) -> Self {
        let read: BTreeSet<usize> = self.readouts.iter().map(|r| self.root(r.run)).collect();
        let ends: Vec<usize> = (0..self.forks.len()).map(|f| self.length(Run::Fork(f))).collect();
        let going_on: Vec<usize> = (0..self.forks.len()).filter(|f| read.contains(&self.root(Run::Fork(*f)))).collect();
        for f in going_on.into_iter().filter(|_| more > 0) {
            let positions = Positions::At((ends[f]..ends[f] + more).collect());
            let (site, part, change) = (SiteKind::ResidPre.at(0), Part::All, Change::Scale(1.0));
            self.forks[f].edits.push(Edit { site, part, positions, change });
        }
        read.into_iter().for_each(|p| self.prompts[p].ids.extend(std::iter::repeat_n(0, more)));
        self
    }

    /// Whether there is such a run.
    pub fn has(&self, run: Run) -> bool {
        match run {
            Run::Prompt(p) => p < self.prompts.len(),
            Run::Fork(f) => f < self.forks.len(),
        }
    }

    /// The number of the prompt that a run descends from. The plan must be sound ([`Plan::check`]).
    pub fn root(&self, mut run: Run) -> usize {
        loop {
            match run {
                Run::Prompt(p) => return p,
                Run::Fork(f) => run = self.forks[f].base,
            }
        }
    }

    /// How many positions a run has. The plan must be sound.
    pub fn length(&self, run: Run) -> usize {
        self.prompts[self.root(run)].ids.len()
    }

    /// All edits that hold in a run: those of the runs it descends from, then its own. The plan must be sound.
    pub fn edits(&self, run: Run) -> Vec<&Edit> {
        let chain: Vec<&Fork> = self.lineage(run).collect();
        chain.into_iter().rev().flat_map(|fork| &fork.edits).collect()
    }

    /// A fork and the forks that it descends from; none of a prompt. The plan must be sound.
    pub(crate) fn lineage(&self, run: Run) -> impl Iterator<Item = &Fork> {
        let fork = |run: Run| if let Run::Fork(f) = run { Some(&self.forks[f]) } else { None };
        std::iter::successors(fork(run), move |child| fork(child.base))
    }

    /// Whether any edit of that kind of site holds in a run. The plan must be sound.
    pub(crate) fn edits_at(&self, run: Run, kind: SiteKind) -> bool {
        self.lineage(run).flat_map(|fork| &fork.edits).any(|e| e.site.kind == kind)
    }

    /// Some runs and all that they take from, directly or not; with those that they descend from, if `with_bases`. The plan
    /// must be sound.
    pub(crate) fn needed(&self, runs: impl IntoIterator<Item = Run>, with_bases: bool) -> BTreeSet<Run> {
        let (mut found, mut open) = (BTreeSet::new(), Vec::from_iter(runs));
        while let Some(run) = open.pop() {
            if found.insert(run)
                && let Run::Fork(f) = run
            {
                open.extend(with_bases.then_some(self.forks[f].base));
                open.extend(self.lineage(run).flat_map(|fork| &fork.edits).filter_map(|e| e.change.donor()));
            }
        }
        found
    }

    /// What messages call a run.
    pub fn describe(&self, run: Run) -> String {
        match run {
            Run::Prompt(p) => match self.prompts.get(p) {
                Some(prompt) => format!("prompt `{}`", prompt.name),
                None => format!("prompt {p}"),
            },
            Run::Fork(f) => match self.forks.get(f) {
                Some(fork) if fork.base < run || matches!(fork.base, Run::Prompt(_)) => {
                    format!("fork {f} of {}", self.describe(fork.base))
                }
                _ => format!("fork {f}"),
            },
        }
    }

    /// The donor's position for each position of an interchange.
    ///
    /// # Errors
    /// If lengths differ where positions are matched one to one, or a position is out of range.
    pub(crate) fn donor_positions(
        &self,
        edit: &Edit,
        donor: Run,
        from: Option<&[usize]>,
        keys: usize,
    ) -> Result<Vec<usize>, String> {
        let theirs = self.length(donor);
        let name = || self.describe(donor);
        let wanted = resolve(&edit.positions, keys)?;
        let found = match (from, &edit.positions) {
            (Some(list), _) => list.to_vec(),
            (None, Positions::Last) => vec![theirs - 1],
            (None, Positions::All) if theirs != keys => {
                return Err(format!(
                    "the prompt has {keys} tokens and its donor, {}, has {theirs}: give an alignment, or `last`",
                    name()
                ));
            }
            (None, _) => wanted.clone(),
        };
        if found.len() != wanted.len() {
            return Err(format!("{} positions take from {} of the donor", wanted.len(), found.len()));
        }
        match found.iter().find(|p| **p >= theirs) {
            Some(p) => Err(format!("its donor, {}, has no position {p}: it has 0 to {}", name(), theirs - 1)),
            None => Ok(found),
        }
    }
}

/// How much plans hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    pub prompts: usize,
    pub tokens: usize,
    pub forks: usize,
    pub readouts: usize,
}

impl Extent {
    /// Counts another plan in.
    pub fn include(&mut self, plan: &Plan) {
        self.prompts += plan.prompts.len();
        self.tokens += plan.prompts.iter().map(|p| p.ids.len()).sum::<usize>();
        self.forks += plan.forks.len();
        self.readouts += plan.readouts.len();
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut extent = Extent::default();
        extent.include(self);
        extent.fmt(f)
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        write!(
            f,
            "{} ({}), {}, {}",
            count(self.prompts, "prompt"),
            count(self.tokens, "token"),
            count(self.forks, "edited run"),
            count(self.readouts, "readout")
        )
    }
}

/// Positions as numbers, in a prompt of `length`.
pub(crate) fn resolve(positions: &Positions, length: usize) -> Result<Vec<usize>, String> {
    match positions {
        Positions::Last => Ok(vec![length - 1]),
        Positions::All => Ok((0..length).collect()),
        Positions::At(list) => match list.iter().find(|p| **p >= length) {
            Some(p) => Err(format!("position {p} does not exist; the prompt has 0 to {}", length - 1)),
            None => Ok(list.clone()),
        },
    }
}

/// The columns that a part covers in a row of a site, for a prompt of `keys` positions.
pub(crate) fn columns(site: Site, part: &Part, arch: &Arch, keys: usize) -> Result<Vec<Range<usize>>, SiteError> {
    let width = site.width(arch, keys);
    match part {
        Part::All => Ok(std::iter::once(0..width).collect()),
        Part::Columns(list) => {
            let column = |c: &usize| match *c < width {
                true => Ok(*c..*c + 1),
                false => Err(SiteError::NoSuchColumn { site, column: *c, width }),
            };
            list.iter().map(column).collect()
        }
        Part::Heads(list) => {
            let (n, wide) = match site.units(arch) {
                Units::Heads { n, width } => (n, width),
                Units::HeadsByKeys { n } => (n, keys),
                Units::Columns { .. } => return Err(SiteError::NoHeads { site }),
            };
            let head = |h: &usize| match *h < n {
                true => Ok(h * wide..(h + 1) * wide),
                false => Err(SiteError::NoSuchHead { site, head: *h, n_heads: n }),
            };
            list.iter().map(head).collect()
        }
    }
}
