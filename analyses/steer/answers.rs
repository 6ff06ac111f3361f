//! The answers that steered prompts are gone on with: which conditions generate, what that costs, and the answers themselves.
//!
//! How they are classified is [`crate::analyses::answered`]'s; what is said of them, [`super::texts`]'.

use super::plans::{Condition, OfPrompt};
use super::{Items, Steer};
use crate::analyses::answered::{Answer, sampled};
use crate::analyses::prelude::*;
use crate::dataset::shown::counted;
use crate::run::{Sampling, continued_alone};

impl Steer {
    /// Whether runs go on under a condition.
    pub(super) fn generates(&self, condition: &Condition) -> bool {
        self.generate > 0 && condition.direction <= usize::from(self.generate_controls)
    }

    /// What answers under a condition are called, where costs are said.
    fn name_of_part(&self, condition: &Condition) -> String {
        if condition.direction == 0 {
            return "answers along the vector".to_string();
        }
        let directions = self.generate_controls.min(self.controls);
        let random = counted(directions.into(), "random direction");
        format!("answers along {random} ({})", param("generate_controls").is(directions))
    }

    /// Generated answers of a sweep's prompts under one of its conditions.
    pub(super) fn answers(
        &self,
        runner: &dyn Runner,
        items: &Items,
        plan: &Plan,
        (asked, some): (&[OfPrompt], Range<usize>),
        (k, conditions): (usize, &[Condition]),
    ) -> Result<Vec<Answer>, AnalysisError> {
        let sampling = match self.temperature {
            None => Sampling::Greedy,
            // What is drawn depends on a run's number in its plan: runs of another plan must not draw the same.
            Some(temperature) => {
                Sampling::Sample { temperature, top_p: 1.0, seed: runner.seed() ^ (some.start as u64) << 32 }
            }
        };
        let runs: Vec<Run> = asked.iter().map(|of_prompt| of_prompt.steered[k].run).collect();
        runner
            .name_part(&self.name_of_part(&conditions[k]), &|| continued_alone(plan, &runs, self.generate as usize))?;
        let much = (self.generate, self.steps(&conditions[k].kind));
        Ok(sampled(runner, plan, runs, much, sampling, (&items.rules, &items.dataset.items[some]))?.1)
    }
}
