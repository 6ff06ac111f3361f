//! The answers that steered prompts are gone on with: which conditions generate, what that costs, and the answers themselves.
//!
//! How they are classified is [`crate::analyses::answered`]'s; what is said of them, [`super::texts`]'.

use super::plans::{self, Condition, Vectors};
use super::{Items, Steer};
use crate::analyses::answered::{Answer, sampled};
use crate::analyses::{AnalysisError, Parts, planned};
use crate::dataset::shown::counted;
use crate::model::Model;
use crate::parameters::param;
use crate::plan::Plan;
use crate::run::Sampling;
use crate::session::Session;
use std::ops::Range;
use std::sync::Arc;

impl Steer {
    pub(super) fn generates(&self, condition: &Condition) -> bool {
        self.generate > 0 && condition.direction <= usize::from(self.generate_controls)
    }

    /// What generating costs, along the vector and along random directions.
    pub(super) fn parts_of_answers<'a>(&'a self, model: &'a Model, items: &'a Items) -> Parts<'a> {
        let zeros: Arc<[f32]> = vec![0.0; items.site.width(&model.decoder.arch, 0)].into();
        let vectors: Vectors = vec![vec![zeros]; 1 + usize::from(self.controls)];
        let (own, random): (Vec<Condition>, Vec<Condition>) =
            self.conditions(items, None).into_iter().filter(|c| self.generates(c)).partition(|c| c.direction == 0);
        let directions = self.generate_controls.min(self.controls);
        let names = [
            "answers along the vector".to_string(),
            format!(
                "answers along {} ({})",
                counted(directions.into(), "random direction"),
                param("generate_controls").is(directions)
            ),
        ];
        let parts = names.into_iter().zip([own, random]).filter(|(_, conditions)| !conditions.is_empty());
        parts.map(|(name, of)| (name, planned(self.generations(items, vectors.clone(), of)))).collect()
    }

    /// Answers under some conditions, each condition's by themselves.
    pub(super) fn generations<'a>(
        &'a self,
        items: &'a Items,
        vectors: Vectors,
        conditions: Vec<Condition>,
    ) -> impl Iterator<Item = Plan> + 'a {
        let answers = conditions.into_iter().flat_map(move |c| self.sweeps(items, vectors.clone(), vec![c]));
        answers.map(|plan| plan.longer(self.generate as usize - 1))
    }

    /// Generated answers of a sweep's prompts under one of its conditions.
    pub(super) fn answers(
        &self,
        session: &Session,
        items: &Items,
        plan: &Plan,
        some: Range<usize>,
        (k, conditions): (usize, &[Condition]),
    ) -> Result<Vec<Answer>, AnalysisError> {
        let sampling = match self.temperature {
            None => Sampling::Greedy,
            // What is drawn depends on a run's number in its plan: runs of another plan must not draw the same.
            Some(temperature) => {
                Sampling::Sample { temperature, top_p: 1.0, seed: session.seed ^ (some.start as u64) << 32 }
            }
        };
        let runs = (0..some.len()).map(|i| plans::fork_of(i, k, conditions.len())).collect();
        let much = (self.generate, self.steps(&conditions[k].kind));
        Ok(sampled(session, plan, runs, much, sampling, (&items.rules, &items.dataset.items[some]))?.1)
    }
}
