//! Plans: what an analysis wants to know, as plain data.
//!
//! A plan holds prompts, forks of them that differ by edits, and readouts. It can be printed, counted and checked
//! without a model being run; [`crate::run`] computes its readings. Forks and donors refer to runs that were added
//! before them, so a plan cannot contain a cycle.
//!
//! ```
//! use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions};
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
//! let found = plan.read(swapped, Metric::logit_difference(vec![11], vec![23]));
//! // Once the plan was run, `readings[found]` is the number.
//! assert_eq!(plan.to_string(), "2 prompts (6 tokens), 1 edited run, 1 readout");
//! ```

mod compile;
mod cone;
mod edges;
mod program;
mod reading;
mod split;
mod what;

pub use cone::Cone;
pub use edges::{Edge, Graph, Kv, Port, Reader, Writer};
pub use program::Program;
pub(crate) use program::{
    AttributionReadout, EdgesReadout, EndReadout, EndWhat, Exchanged, GradientReadout, Made, Matched, Placed, Row,
    SiteReadout, Take,
};
pub use reading::{Array, Reading, Readings};
pub use split::Piece;
pub use what::{
    Activation, Attribution, EdgeEffects, EdgeEstimate, Entropy, Gradient, Handle, KlFrom, LogProbs, Metric,
    Projection, Rank, Readable, What,
};

use crate::model::arch::Arch;
pub use crate::ops::RowFunction;
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

/// A run that differs from another by edits, or by edges that it takes from a third. What the run that it forks from has of them
/// holds in it too.
#[derive(Clone, Debug)]
pub struct Fork {
    pub base: Run,
    pub edits: Vec<Edit>,
    /// Each at positions of its own, or of edges of its own.
    pub exchanges: Vec<Exchange>,
}

/// Edges that are taken from another run: their readers read, of their writers, what these add in the donor instead of what they
/// add in the run itself. Nothing else that a writer feeds changes but by what follows.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub donor: Run,
    pub edges: EdgeSet,
    /// The positions of the readers.
    pub positions: Positions,
    /// Where in the donor each takes from.
    pub alignment: Alignment,
}

/// Which position of a donor corresponds to each of a run's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Alignment {
    /// The same one: both have as many.
    #[default]
    Same,
    /// For each position of the run that of the donor, if any corresponds to it; where none does, the run keeps what it has.
    Of(Arc<[Option<usize>]>),
}

impl Alignment {
    /// For each of `length` positions of a run the one of the donor's `theirs` that corresponds to it.
    fn resolve(&self, length: usize, theirs: usize) -> Result<Vec<Option<usize>>, String> {
        match self {
            Alignment::Same if length == theirs => Ok((0..length).map(Some).collect()),
            Alignment::Same => Err(format!("has {theirs} tokens, not {length}: edges need as many, or an alignment")),
            Alignment::Of(list) if list.len() != length => {
                Err(format!("is aligned at {} positions, and the run has {length}", list.len()))
            }
            Alignment::Of(list) => match list.iter().flatten().find(|p| **p >= theirs) {
                Some(p) => Err(format!("has no position {p}: it has 0 to {}", theirs - 1)),
                None => Ok(list.to_vec()),
            },
        }
    }
}

impl FromIterator<Option<usize>> for Alignment {
    fn from_iter<I: IntoIterator<Item = Option<usize>>>(positions: I) -> Self {
        Alignment::Of(positions.into_iter().collect())
    }
}

/// Some of a model's edges, each once, in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeSet {
    These(Arc<[Edge]>),
    /// All edges but these: where a circuit stays and the rest is taken, these are the circuit.
    AllBut(Arc<[Edge]>),
}

impl From<Vec<Edge>> for EdgeSet {
    fn from(edges: Vec<Edge>) -> Self {
        EdgeSet::These(edges.into())
    }
}

impl FromIterator<Edge> for EdgeSet {
    fn from_iter<I: IntoIterator<Item = Edge>>(edges: I) -> Self {
        EdgeSet::These(edges.into_iter().collect())
    }
}

impl Fork {
    /// The runs that it takes from itself, each as often as it does.
    pub(crate) fn donors(&self) -> impl Iterator<Item = Run> {
        let of_edits = self.edits.iter().filter_map(|edit| edit.change.donor());
        of_edits.chain(self.exchanges.iter().map(|exchange| exchange.donor))
    }

    /// Takes from other runs where it takes from any.
    pub(crate) fn move_donors(&mut self, to: impl Fn(Run) -> Run) {
        self.edits.iter_mut().for_each(|edit| edit.change.move_donor(&to));
        self.exchanges.iter_mut().for_each(|exchange| exchange.donor = to(exchange.donor));
    }
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

/// What to keep of a run.
#[derive(Clone, Debug)]
pub struct Readout {
    pub run: Run,
    pub what: What,
}

/// Prompts, forks and readouts; see the module's first lines.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub prompts: Vec<Prompt>,
    pub forks: Vec<Fork>,
    pub readouts: Vec<Readout>,
    /// Whether keys and values are told apart by query head: the plan is then one for the model with as many KV heads as heads, equal
    /// ones where it has one ([`Decoder::of`](crate::model::decoder::Decoder::of)).
    pub kv: Kv,
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
        self.forks.push(Fork { base, edits, exchanges: Vec::new() });
        Run::Fork(self.forks.len() - 1)
    }

    /// Adds a fork that takes edges from a donor.
    pub fn exchange(&mut self, base: Run, exchange: Exchange) -> Run {
        self.exchanges(base, vec![exchange])
    }

    /// Adds a fork that takes some edges at some positions and others at others.
    pub fn exchanges(&mut self, base: Run, exchanges: Vec<Exchange>) -> Run {
        self.forks.push(Fork { base, edits: Vec::new(), exchanges });
        Run::Fork(self.forks.len() - 1)
    }

    /// Adds a readout; its reading is found by what is returned.
    pub fn read<R: Readable>(&mut self, run: Run, what: R) -> Handle<R::Value> {
        self.readouts.push(Readout { run, what: what.into() });
        Handle::new(self.readouts.len() - 1)
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

    /// Some runs with all that they descend from or take from, directly or not. The plan must be sound.
    pub(crate) fn needed(&self, runs: impl IntoIterator<Item = Run>) -> BTreeSet<Run> {
        let (mut found, mut open) = (BTreeSet::new(), Vec::from_iter(runs));
        while let Some(run) = open.pop() {
            if found.insert(run)
                && let Run::Fork(f) = run
            {
                let fork = &self.forks[f];
                open.push(fork.base);
                open.extend(fork.donors());
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

/// The columns that a part covers in a row of a site, for a prompt of `keys` positions.
fn columns(site: Site, part: &Part, arch: &Arch, keys: usize) -> Result<Vec<Range<usize>>, SiteError> {
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
