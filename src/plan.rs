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
//! assert_eq!(plan.to_string(), "2 prompts (6 tokens), 1 fork, 1 readout");
//! ```

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
    /// The log-probability of the prompt's own tokens from position `from` on, each given those before it. Nats.
    Continuation { from: usize },
}

impl Metric {
    /// The logit difference between sets of tokens.
    pub fn logit_difference(answer: Vec<u32>, foil: Vec<u32>) -> Self {
        Metric::LogitDifference { answer, foil }
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
    /// The direct logit attribution of a logit difference, at the last position, before soft-capping of the logits:
    /// `[n_layers + 1, n_heads + 2]`. A layer's row has its heads, its MLP, and the attention's bias; the last row the
    /// embedding, the final norm's bias, what several tokens' logsumexp has beyond its weighted sum, then zeros.
    /// They sum to the logit difference where nothing after `z` is edited: what such an edit adds is no component's.
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
        let mut chain = Vec::new();
        let mut at = run;
        while let Run::Fork(f) = at {
            chain.push(f);
            at = self.forks[f].base;
        }
        chain.iter().rev().flat_map(|f| &self.forks[*f].edits).collect()
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

    /// Checks that the plan makes sense for a model; engines rely on it.
    ///
    /// # Errors
    /// Names the prompt, fork or readout, and what is wrong: a token id, length, site, head, column or position out
    /// of range; a base or donor that does not come before its fork; a vector of the wrong length; an empty prompt.
    pub fn check(&self, arch: &Arch) -> Result<(), PlanError> {
        for (i, prompt) in self.prompts.iter().enumerate() {
            self.check_prompt(i, prompt, arch)?;
        }
        for (i, fork) in self.forks.iter().enumerate() {
            let run = Run::Fork(i);
            self.check_before(fork.base, run, "base")?;
            for edit in &fork.edits {
                self.check_edit(run, edit, arch)?;
            }
        }
        for (i, readout) in self.readouts.iter().enumerate() {
            self.check_readout(i, readout, arch)?;
        }
        Ok(())
    }

    fn check_prompt(&self, i: usize, prompt: &Prompt, arch: &Arch) -> Result<(), PlanError> {
        let bad = |why: String| PlanError::Bad { at: self.describe(Run::Prompt(i)), why };
        if prompt.ids.is_empty() {
            return Err(bad("has no tokens".to_string()));
        }
        if prompt.ids.len() > arch.n_ctx {
            let n = prompt.ids.len();
            return Err(bad(format!("is {n} tokens long; the model's context is {}; shorten it", arch.n_ctx)));
        }
        match prompt.ids.iter().position(|id| *id as usize >= arch.vocab) {
            None => Ok(()),
            Some(at) => Err(bad(format!(
                "token id {} at position {at} is out of range; the model has ids 0 to {}",
                prompt.ids[at],
                arch.vocab - 1
            ))),
        }
    }

    /// A base or donor must exist and come before the fork that names it.
    fn check_before(&self, run: Run, fork: Run, role: &str) -> Result<(), PlanError> {
        let Run::Fork(own) = fork else { return Ok(()) };
        let why = match run {
            Run::Prompt(p) if p >= self.prompts.len() => format!("its {role}, prompt {p}, does not exist"),
            Run::Fork(f) if f >= own => format!("its {role}, fork {f}, does not come before it"),
            _ => return Ok(()),
        };
        Err(PlanError::Bad { at: format!("fork {own}"), why })
    }

    fn check_edit(&self, run: Run, edit: &Edit, arch: &Arch) -> Result<(), PlanError> {
        let at = || format!("{}, edit at {}", self.describe(run), edit.site);
        let bad = |why: String| PlanError::Bad { at: at(), why };
        let keys = self.length(run);
        edit.site.check(arch).map_err(|source| PlanError::Site { at: at(), source })?;
        let columns =
            columns(edit.site, &edit.part, arch, keys).map_err(|source| PlanError::Site { at: at(), source })?;
        let wide: usize = columns.iter().map(Range::len).sum();
        let positions = resolve(&edit.positions, keys).map_err(bad)?;
        if positions.is_empty() || wide == 0 {
            return Err(bad("changes nothing: no position or no part is chosen".to_string()));
        }
        let mut seen = std::collections::HashSet::new();
        let mut starts: Vec<usize> = columns.iter().map(|c| c.start).collect();
        starts.sort_unstable();
        if starts.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(bad("names a head or column twice".to_string()));
        }
        if let Some(twice) = positions.iter().find(|p| !seen.insert(**p)) {
            return Err(bad(format!("names position {twice} twice")));
        }
        if let Some(found) = edit.change.vector_len().filter(|n| *n != wide) {
            return Err(bad(format!("its vector has {found} numbers; the part has {wide}")));
        }
        if let Change::Interchange { donor, positions: from } = &edit.change {
            self.check_before(*donor, run, "donor")?;
            self.donor_positions(edit, *donor, from.as_deref(), keys).map_err(bad)?;
            let ragged = matches!(edit.site.kind, SiteKind::Scores | SiteKind::Pattern);
            if ragged && self.length(*donor) != keys {
                let n = self.length(*donor);
                return Err(bad(format!(
                    "{} has {n} positions, not {keys}: scores and patterns do not fit",
                    self.describe(*donor)
                )));
            }
        }
        Ok(())
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

    fn check_readout(&self, i: usize, readout: &Readout, arch: &Arch) -> Result<(), PlanError> {
        let bad = |why: String| PlanError::Bad { at: format!("readout {i}"), why };
        let exists = |run: Run| match run {
            Run::Prompt(p) => p < self.prompts.len(),
            Run::Fork(f) => f < self.forks.len(),
        };
        if !exists(readout.run) {
            return Err(bad(format!("{:?} does not exist", readout.run)));
        }
        let keys = self.length(readout.run);
        let site_columns = |site: Site, part: &Part| {
            let of = |source| PlanError::Site { at: format!("readout {i}"), source };
            site.check(arch).and_then(|site| columns(site, part, arch, keys)).map_err(of)
        };
        match &readout.what {
            What::Attribution(Metric::Continuation { .. }) => {
                Err(bad("an attribution needs a metric of one position: a logit difference".to_string()))
            }
            What::Metric(metric) | What::Attribution(metric) => check_metric(metric, arch, keys).map_err(bad),
            What::KlFrom(other) if !exists(*other) => Err(bad(format!("{other:?} does not exist"))),
            What::KlFrom(_) | What::Entropy => Ok(()),
            What::Activation { site, positions, part } => {
                site_columns(*site, part)?;
                read_positions(positions, keys).map_err(bad)
            }
            What::Projection { site, positions, direction } => {
                let wide: usize = site_columns(*site, &Part::All)?.iter().map(Range::len).sum();
                if wide != direction.len() {
                    return Err(bad(format!("its direction has {} numbers; {site} has {wide}", direction.len())));
                }
                read_positions(positions, keys).map_err(bad)
            }
            What::Gradient { metric, site, positions, part } => {
                site_columns(*site, part)?;
                check_metric(metric, arch, keys).map_err(bad)?;
                read_positions(positions, keys).map_err(bad)?;
                let unknown = |e: &&Edit| matches!(e.change, Change::Map(_)) && e.site > *site;
                match self.edits(readout.run).into_iter().find(unknown) {
                    None => Ok(()),
                    Some(edit) => Err(bad(format!(
                        "{} is edited at {} by a function of the caller's, whose derivative is not known: read gradients at \
                         that site or after it, or edit by one of the other changes",
                        self.describe(readout.run),
                        edit.site
                    ))),
                }
            }
        }
    }
}

/// Checks a metric of a run of `keys` positions.
fn check_metric(metric: &Metric, arch: &Arch, keys: usize) -> Result<(), String> {
    match metric {
        Metric::LogitDifference { answer, foil } => {
            match answer.iter().chain(foil).find(|id| **id as usize >= arch.vocab) {
                Some(id) => Err(format!("token id {id} is out of range; the model has ids 0 to {}", arch.vocab - 1)),
                None if answer.is_empty() || foil.is_empty() => {
                    Err("a logit difference needs answer and foil tokens".to_string())
                }
                None => Ok(()),
            }
        }
        Metric::Continuation { from } if *from == 0 || *from >= keys => {
            Err(format!("a continuation from position {from} of {keys} has nothing before it, or nothing in it"))
        }
        Metric::Continuation { .. } => Ok(()),
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
            count(self.forks, "fork"),
            count(self.readouts, "readout")
        )
    }
}

/// Checks the positions of a readout, which must name one at least.
fn read_positions(positions: &Positions, length: usize) -> Result<(), String> {
    match resolve(positions, length)?.is_empty() {
        true => Err("reads nothing: no position is chosen".to_string()),
        false => Ok(()),
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
