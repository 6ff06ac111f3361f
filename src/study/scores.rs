//! Log-probabilities of the tokens that a study scores, read beside its own plans: wherever a plan runs a prompt that is asked
//! about, one readout is added to it. So the record can say how likely the answers were, at no pass of its own.

use crate::plan::{LogProbs, Plan, Program, Reading, Run};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Which tokens are asked about after which prompts, both as ids.
pub type Wanted = HashMap<Vec<u32>, Vec<u32>>;

/// By prompt, the log-probability of each token that is asked about, in nats, in the order of [`Wanted`].
pub type Scores = HashMap<Vec<u32>, Vec<f64>>;

/// What is asked, and what was found so far.
#[derive(Default)]
pub(super) struct Asked {
    wanted: Wanted,
    found: RefCell<Scores>,
    told: Cell<bool>,
}

impl Asked {
    pub(super) fn new(wanted: Wanted) -> Self {
        Asked { wanted, ..Asked::default() }
    }

    /// The plan with a readout more for each of its prompts that is asked about, was not read and goes through all layers
    /// anyway; none where there is no such prompt.
    pub(super) fn extended(&self, program: &Program) -> Option<Plan> {
        let (found, depths) = (self.found.borrow(), program.depths());
        let mut asked: Vec<(Run, Vec<u32>)> = Vec::new();
        let mut taken = std::collections::HashSet::new();
        for (p, prompt) in program.plan.prompts.iter().enumerate() {
            if let Some(tokens) = self.wanted.get(&prompt.ids)
                && !found.contains_key(&prompt.ids)
                && depths[p] == program.arch.n_layers
                && taken.insert(&prompt.ids)
            {
                asked.push((Run::Prompt(p), tokens.clone()));
            }
        }
        if asked.is_empty() {
            return None;
        }
        let mut plan = program.plan.clone();
        for (run, tokens) in asked {
            plan.read(run, LogProbs { tokens });
        }
        Some(plan)
    }

    /// Takes in the reading of a readout that was added to a plan.
    pub(super) fn take(&self, plan: &Plan, readout: usize, reading: &Reading) {
        let Run::Prompt(p) = plan.readouts[readout].run else { return };
        let values = reading.values().iter().map(|v| f64::from(*v)).collect();
        self.found.borrow_mut().insert(plan.prompts[p].ids.clone(), values);
    }

    /// All that is asked, once it was found; the first time only.
    pub(super) fn completed(&self) -> Option<Scores> {
        let complete = self.found.borrow().len() == self.wanted.len();
        (complete && !self.told.replace(true)).then(|| self.found())
    }

    pub(super) fn found(&self) -> Scores {
        self.found.borrow().clone()
    }
}
