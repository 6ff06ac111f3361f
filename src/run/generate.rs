//! Generation: prompts and forks of a plan that go on token by token, under their edits.
//!
//! The prompt pass is the wavefront over the plan, in which a fork computes only what its edits reach; while it runs, the
//! keys and values of the runs that go on are kept, and the states of recurrent mixers after their last positions. Then all of
//! them go on together, one row a run and step, through the same decoder and the same edits. Runs that share a prompt share what is kept of it, so that many forks or samples of a
//! prompt cost little more memory than the tokens they add. What tokens mean is left to the tokenizer, which runs go on and
//! when they stop to the caller.
//!
//! A run keeps the rotation of its prompt's length, where a family has another for long prompts: keys that are kept cannot
//! be rotated anew.

mod batch;
mod cache;
mod sample;
mod steps;

pub use batch::generation_size;
pub(super) use cache::Cache;
pub use sample::Sampling;

use super::{Options, RunError, Size};
use crate::model::arch::Arch;
use crate::model::decoder::{Angles, Decoder};
use crate::plan::{Entropy, Plan, Program, Run};
use std::collections::HashMap;

/// Which runs of a plan go on, how far, and how their tokens are chosen.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The runs that go on; one that is listed several times is sampled several times.
    pub runs: Vec<Run>,
    /// How many tokens a run gets at most.
    pub max_tokens: usize,
    pub sampling: Sampling,
    pub steps: Steps,
    /// Tokens that end a run, such as [`crate::model::Model::stop_tokens`].
    pub stop: Vec<u32>,
}

/// Where the edits of a run hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Steps {
    /// In the prompt alone: [`crate::plan::Positions::Last`] is the prompt's last position. The tokens that follow feel the
    /// edits through the keys and values of the prompt, and its last states.
    #[default]
    PromptOnly,
    /// In the prompt, and for each new token as well. Edits at [`crate::plan::Positions::Last`] and
    /// [`crate::plan::Positions::All`] are made on every new row; those at [`crate::plan::Positions::At`] are of the prompt's
    /// positions, and interchanges too, because a donor has no such row. At `scores` and `pattern` whole heads have the new
    /// keys too; columns, and the vectors of `Set`, `Add` and `ProjectOut`, are those of the prompt's keys.
    Every,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Generated {
    /// The new tokens, without the one that ended the run.
    pub ids: Vec<u32>,
    /// Whether a stop token ended the run; it ran out of tokens otherwise.
    pub stopped: bool,
}

impl Generated {
    /// How many of its tokens the model read to choose the next one: all but the last that was chosen.
    pub(crate) fn steps(&self) -> usize {
        (self.ids.len() + usize::from(self.stopped)).saturating_sub(1)
    }
}

/// Continues runs of a plan: what each of [`Generation::runs`] came to, in their order.
///
/// The plan's readouts are left alone, and [`Options::engine`] has no say: there is one way to generate. What does not fit
/// [`Options::budget`] together goes on in batches; the budget bounds the keys and values that are kept, the residual
/// streams of the prompt pass and its logits, as long as one run fits in it. A streamed model is read from its file once for
/// each token of a batch, and so wants a large one. Results do not depend on it.
///
/// ```no_run
/// # use gatelens::model::{Model, Options as ModelOptions};
/// # use gatelens::plan::{Change, Edit, Part, Plan, Positions};
/// # use gatelens::run::{Generation, Options, Sampling, Steps, generate};
/// # use gatelens::site::SiteKind;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let model = Model::open("checkpoints/SmolLM2-135M", &ModelOptions::default())?;
/// let tokenizer = model.tokenizer()?;
/// let mut plan = Plan::default();
/// let plain = plan.prompt("plain", tokenizer.encode("My favourite city is", true)?);
/// let add = Change::Add { vector: vec![0.1; model.decoder.arch.d_model].into(), coefficient: 4.0 };
/// let edit = Edit { site: SiteKind::ResidPost.at(12), part: Part::All, positions: Positions::All, change: add };
/// let steered = plan.fork(plain, vec![edit]);
/// let generation = Generation {
///     runs: vec![plain, steered],
///     max_tokens: 40,
///     sampling: Sampling::Greedy,
///     steps: Steps::Every,
///     stop: model.stop_tokens().to_vec(),
/// };
/// for run in generate(&model.decoder, &plan, &generation, &Options::default())? {
///     println!("{}", tokenizer.decode_generated(&run.ids)?);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the plan does not make sense for the model or the generation for the plan, a logit is not finite, or candle fails.
pub fn generate(
    decoder: &Decoder,
    plan: &Plan,
    generation: &Generation,
    options: &Options,
) -> Result<Vec<Generated>, RunError> {
    let program = plan.compile(&decoder.of(plan.kv).arch)?;
    generate_samples(decoder, &program, generation, &samples(&generation.runs), options)
}

/// [`generate`] for a part of a longer list of runs: `samples` says how often each of them was listed before.
///
/// # Errors
/// As [`generate`].
pub(crate) fn generate_samples(
    decoder: &Decoder,
    program: &Program,
    generation: &Generation,
    samples: &[u64],
    options: &Options,
) -> Result<Vec<Generated>, RunError> {
    let plan = program.plan;
    let decoder = decoder.of(plan.kv);
    generation.check(plan, &decoder.arch)?;
    let lengths = plan.prompts.iter().map(|p| p.ids.len());
    let angles = Angles::reaching(decoder, lengths, generation.max_tokens)?;
    let mut found: Vec<Option<Generated>> = vec![None; generation.runs.len()];
    let course = steps::Course { decoder, program, generation, options, angles: &angles, samples };
    for batch in batch::batches(program, generation, options.budget) {
        for (i, generated) in course.run(&batch)? {
            found[i] = Some(generated);
        }
    }
    // Every run is in one batch.
    Ok(found.into_iter().flatten().collect())
}

/// What it would cost to let some runs of a plan go on by `tokens` tokens, at most, and what of that their prompts do, counted by
/// `size`.
pub(crate) fn whole_and_prompts<E>(
    plan: &Plan,
    generation: &Generation,
    size: impl Fn(&Plan) -> Result<Size, E>,
) -> Result<[Size; 2], E> {
    let of = |tokens: usize| size(&continued_alone(plan, &generation.runs, tokens));
    Ok([of(generation.max_tokens)?, of(1)?])
}

/// A plan that costs about what it costs to let some runs of another go on by `tokens` tokens: those runs and what they need, longer.
pub(crate) fn continued_alone(plan: &Plan, runs: &[Run], tokens: usize) -> Plan {
    let needed = plan.needed(runs.iter().copied());
    let (mut alone, there) = batch::excerpt(plan, &needed);
    for run in runs {
        alone.read(there[run], Entropy);
    }
    // The last token is not read.
    alone.longer(tokens.saturating_sub(1))
}

/// How often each listed run was listed before.
pub(crate) fn samples(runs: &[Run]) -> Vec<u64> {
    let mut seen: HashMap<Run, u64> = HashMap::new();
    let number = |run: &Run| {
        let count = seen.entry(*run).or_default();
        *count += 1;
        *count - 1
    };
    runs.iter().map(number).collect()
}

impl Generation {
    /// Checks that the generation makes sense for a plan and a model; the plan must be sound ([`Plan::check`]).
    ///
    /// # Errors
    /// Names the field and what is wrong with it: a run that does not exist, no tokens, more than the model's context
    /// holds, a temperature or share out of range, a stop token that the model has not.
    pub fn check(&self, plan: &Plan, arch: &Arch) -> Result<(), RunError> {
        let bad = |field: &'static str, why: String| Err(RunError::Generation { field, why });
        let most = self.max_tokens;
        if most == 0 {
            return bad("max_tokens", "is 0; ask for one token at least".to_string());
        }
        for (i, run) in self.runs.iter().enumerate() {
            if !plan.has(*run) {
                let (prompts, forks) = (plan.prompts.len(), plan.forks.len());
                let why = format!("{run:?}, number {i}, does not exist; the plan has {prompts} prompts, {forks} forks");
                return bad("runs", why);
            }
            let length = plan.length(*run);
            if length.saturating_add(most) > arch.n_ctx {
                let (of, n_ctx) = (plan.describe(Run::Prompt(plan.root(*run))), arch.n_ctx);
                let mend = match n_ctx - length {
                    0 => "shorten the prompt".to_string(),
                    left => format!("ask for {left} at most, or shorten the prompt"),
                };
                let why =
                    format!("{of} is {length} tokens long, and {most} more exceed the context of {n_ctx}: {mend}");
                return bad("max_tokens", why);
            }
        }
        self.sampling.check()?;
        match self.stop.iter().find(|id| **id as usize >= arch.vocab) {
            Some(id) => {
                bad("stop", format!("token id {id} is out of range; the model has ids 0 to {}", arch.vocab - 1))
            }
            None => Ok(()),
        }
    }
}
