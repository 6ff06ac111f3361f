//! Tasks: pairs of prompts of which the right answer is known, made for a model's tokenizer.
//!
//! ```no_run
//! use gatelens::model::{Model, Options};
//! use gatelens::task::{self, Task};
//! let model = Model::open("models/smollm2.gguf", &Options::default())?;
//! let pairs = task::make(Task::Ioi, &model, 50, 0)?.pairs;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A task draws *candidates*: a template's text with words for the positive prompt, others for the negative one (the
//! counterfactual), and what comes next in either. The tasks and their counterfactuals are those of circuit studies (Mueller et
//! al. 2025, "MIB: A Mechanistic Interpretability Benchmark", and the sources that each page names); prompts and words are our
//! own. `fit.rs` keeps the candidates that the tokenizer cuts alike, and [`import()`] reads pairs that others made.

mod addition;
mod agreement;
mod candidate;
mod capitals;
mod colours;
mod docstring;
mod fit;
mod greater_than;
mod import;
mod ioi;
#[cfg(test)]
mod tests;

pub use fit::Rejection;
pub use import::{ImportError, import};

use crate::dataset::Pair;
use crate::model::Model;
use crate::model::tokenizer::TokenizerError;
use crate::parameters::param;
use crate::stats;
use candidate::Candidate;
use fit::Fit;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// A task that pairs can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Task {
    /// Name the one who is given something: "When Mary and John went to the store, John gave a drink to"
    Ioi,
    /// End no earlier than it began: "The war lasted from the year 1741 to the year 17"
    GreaterThan,
    /// Describe a function's parameters in their order
    Docstring,
    /// Agree with the subject, not with the noun beside the verb: "The keys near the cabinet"
    Agreement,
    /// Name a country's capital: "The capital of France is"
    Capitals,
    /// Say which of three objects has which colour
    Colours,
    /// Add two numbers: "3 + 4 ="
    Addition,
}

impl Task {
    /// All of them.
    pub const ALL: [Task; 7] =
        [Task::Ioi, Task::GreaterThan, Task::Docstring, Task::Agreement, Task::Capitals, Task::Colours, Task::Addition];

    /// What commands call it.
    pub fn name(self) -> &'static str {
        match self {
            Task::Ioi => "ioi",
            Task::GreaterThan => "greater-than",
            Task::Docstring => "docstring",
            Task::Agreement => "agreement",
            Task::Capitals => "capitals",
            Task::Colours => "colours",
            Task::Addition => "addition",
        }
    }

    fn draw(self, rng: &mut ChaCha8Rng) -> Candidate {
        match self {
            Task::Ioi => ioi::draw(rng),
            Task::GreaterThan => greater_than::draw(rng),
            Task::Docstring => docstring::draw(rng),
            Task::Agreement => agreement::draw(rng),
            Task::Capitals => capitals::draw(rng),
            Task::Colours => colours::draw(rng),
            Task::Addition => addition::draw(rng),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Pairs, and what was put aside on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The pairs; none is there twice.
    pub pairs: Vec<Pair>,
    /// How many candidates were looked at.
    pub candidates: usize,
    /// How many of them were rejected, and why.
    pub rejected: Rejected,
}

/// How many candidates were rejected, by the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected(pub BTreeMap<Rejection, usize>);

impl Rejected {
    fn add(&mut self, why: Rejection) {
        *self.0.entry(why).or_default() += 1;
    }

    /// The reasons with how many candidates each rejected, the commonest first.
    pub fn by_number(&self) -> Vec<(Rejection, usize)> {
        let mut all: Vec<(Rejection, usize)> = self.0.iter().map(|(why, n)| (*why, *n)).collect();
        all.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        all
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.by_number().into_iter().map(|(why, n)| format!("{n} rejected because {why}"));
        f.write_str(&all.collect::<Vec<_>>().join(", "))
    }
}

/// Why pairs of a task cannot be made.
#[derive(Debug, Error)]
pub enum TaskError {
    /// The model has no tokenizer.
    #[error(transparent)]
    NoTokenizer(#[from] Arc<TokenizerError>),
    /// The tokenizer cannot read a prompt.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Too few candidates are fit for the tokenizer.
    #[error(
        "{task}: {passed} of {candidates} candidates can be used, and {wanted} pairs are wanted: {rejected}; {}", mend(*passed)
    )]
    TooFew {
        /// The task.
        task: Task,
        /// How many pairs were asked for.
        wanted: usize,
        /// How many candidates can be used.
        passed: usize,
        /// How many were drawn.
        candidates: usize,
        /// Why the others cannot.
        rejected: Rejected,
    },
}

fn mend(passed: usize) -> String {
    match passed {
        0 => "take another task or model".to_string(),
        n => format!("give {} or less, or take another task or model", param("n").is(n)),
    }
}

/// How many candidates are drawn at most, and for each pair that is wanted.
const CANDIDATES: usize = 4_000;
const CANDIDATES_A_PAIR: usize = 40;

/// Makes `n` pairs of a task for a model: both prompts of a pair have as many tokens, with its spans at the same positions, and
/// answer and foil are one token each. The same seed makes the same pairs.
///
/// # Errors
/// If the model has no tokenizer, or too few candidates can be used with it.
pub fn make(task: Task, model: &Model, n: usize, seed: u64) -> Result<Made, TaskError> {
    let most = CANDIDATES.max(n.saturating_mul(CANDIDATES_A_PAIR));
    let mut rng = stats::rng(seed, &format!("task.{task}"));
    let mut fit = Fit::new(model)?;
    let mut made = Made { pairs: Vec::new(), candidates: 0, rejected: Rejected::default() };
    while made.pairs.len() < n && made.candidates < most {
        made.candidates += 1;
        match fit.pair(&task.draw(&mut rng))? {
            Ok(pair) => made.pairs.push(Pair { id: format!("{task}-{}", made.pairs.len() + 1), ..pair }),
            Err(why) => made.rejected.add(why),
        }
    }
    if made.pairs.len() < n {
        let Made { pairs, candidates, rejected } = made;
        return Err(TaskError::TooFew { task, wanted: n, passed: pairs.len(), candidates, rejected });
    }
    Ok(made)
}
