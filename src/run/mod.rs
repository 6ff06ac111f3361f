//! Engines: they turn a [`Plan`] into readings.
//!
//! [`Engine::Wavefront`] runs every prompt and fork through a layer before the next and computes only what edits can
//! reach; [`Engine::Full`] runs a whole forward pass for each and is the reference that the tests hold the wavefront to.
//! [`generate`] lets runs of a plan go on token by token.
//! Gradients ([`What::Gradient`]) are read by passes of their own, forward and back, which both engines share.
//!
//! ```no_run
//! use gatelens::model::{Model, Options as ModelOptions};
//! use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions};
//! use gatelens::run::{Options, run};
//! use gatelens::site::SiteKind;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let model = Model::open("checkpoints/SmolLM2-135M", &ModelOptions::default())?;
//!     let tokenizer = model.tokenizer()?;
//!     let mut plan = Plan::default();
//!     let clean = plan.prompt("clean", tokenizer.encode("The Eiffel Tower is in", true)?);
//!     let other = plan.prompt("other", tokenizer.encode("The Colosseum is in", true)?);
//!     let metric = Metric::logit_difference(
//!         vec![tokenizer.first_token(" Paris")?],
//!         vec![tokenizer.first_token(" Rome")?],
//!     );
//!     let mut found = Vec::new();
//!     for (layer, head) in model.heads() {
//!         let change = Change::interchange(other);
//!         let edit = Edit { site: SiteKind::Z.at(layer), part: Part::Heads(vec![head]), positions: Positions::Last, change };
//!         let fork = plan.fork(clean, vec![edit]);
//!         found.push((layer, head, plan.read(fork, metric.clone())));
//!     }
//!     let readings = run(&model.decoder, &plan, &Options::default())?;
//!     for (layer, head, metric) in found {
//!         println!("L{layer}.H{head}: {}", readings[metric]);
//!     }
//!     Ok(())
//! }
//! ```

mod attribution;
mod batches;
mod cancel;
mod edits;
mod end;
mod estimates;
mod full;
mod generate;
mod gradient;
mod rate;
mod reading;
mod size;
mod wavefront;
mod writers;

pub use attribution::{
    direction_of_channel, direction_of_experts, direction_of_gates, direction_of_z, directions_of_neurons,
    directions_of_stream, directions_of_z, writes_of_heads,
};
pub use cancel::{Cancel, Cancelled};
#[cfg(feature = "report")]
pub(crate) use end::log_sum_exp;
pub use generate::{Generated, Generation, Sampling, Steps, generate, generation_size};
pub(crate) use generate::{continued_alone, generate_samples, samples, whole_and_prompts};
pub use gradient::NoGradient;
pub use rate::rate;
pub use size::{Size, size};

use crate::model::decoder::Decoder;
use crate::model::weights::WeightsError;
use crate::parameters::param;
pub use crate::plan::{Array, Reading, Readings};
use crate::plan::{Plan, PlanError, Program, What};
use crate::site::SiteKind;
use candle_core::DType;

/// Which engine computes a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// All prompts and edited runs together, layer by layer.
    #[default]
    Wavefront,
    /// A whole forward pass for each prompt and edited run: slow and simple, the reference.
    Full,
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Engine::Wavefront => "wavefront",
            Engine::Full => "full",
        })
    }
}

/// How a plan is run.
pub struct Options<'a> {
    pub engine: Engine,
    /// What the activations of one MLP may take at their widest, in bytes: more rows go through it in parts, but for a layer
    /// in whose MLP something is edited or read, where one prompt's forks stay together; what logits over the whole vocabulary
    /// may take; for gradients, what a batch's checkpoints and one layer's graph may take. Results do not depend on it.
    pub budget: usize,
    /// Told of every layer that rows went through.
    pub progress: &'a (dyn Fn(Told) + Sync),
    /// What stops the run from outside, after the layer that it is in.
    pub cancel: Option<&'a Cancel>,
}

/// What a run tells of its work: rows times layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Rows of prompts and edited runs were computed.
    Rows(u64),
    /// Rows of new tokens were computed, one a text and step: they take more time, operation for operation.
    Tokens(u64),
    /// So many rows of new tokens will not be computed, because their text ended before it was as long as it may be.
    Spared(u64),
}

impl Told {
    /// The rows that were computed.
    pub fn computed(self) -> u64 {
        match self {
            Told::Rows(rows) | Told::Tokens(rows) => rows,
            Told::Spared(_) => 0,
        }
    }
}

impl Options<'_> {
    /// So many rows went through a layer.
    ///
    /// # Errors
    /// If the run is to stop.
    fn advance(&self, rows: usize) -> candle_core::Result<()> {
        self.tell(Told::Rows(rows as u64))
    }

    /// As [`Options::advance`], of anything.
    fn tell(&self, told: Told) -> candle_core::Result<()> {
        (self.progress)(told);
        Ok(self.cancel.map_or(Ok(()), Cancel::check)?)
    }
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { engine: Engine::default(), budget: 256 << 20, progress: &|_| {}, cancel: None }
    }
}

/// What stops a run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("generation: `{field}`: {why}")]
    Generation { field: &'static str, why: String },
    #[error("{at} came out as {value}: {}", mend(*dtype))]
    NotFinite { at: String, value: f64, dtype: DType },
    #[error(transparent)]
    NoGradient(#[from] NoGradient),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    Candle(candle_core::Error),
}

impl From<candle_core::Error> for RunError {
    fn from(e: candle_core::Error) -> Self {
        if Cancelled::is_within(&e) { RunError::Cancelled(Cancelled) } else { RunError::Candle(e) }
    }
}

impl RunError {
    /// Whether what was asked for is wrong, or a file that was read for it, rather than the work having failed.
    pub fn of_input(&self) -> bool {
        match self {
            RunError::Plan(_) | RunError::Generation { .. } => true,
            RunError::Candle(e) => WeightsError::within(e).is_some_and(WeightsError::of_input),
            RunError::NotFinite { .. } | RunError::NoGradient(_) | RunError::Cancelled(_) => false,
        }
    }
}

/// What helps where numbers of a model that computes in this dtype are not finite.
fn mend(dtype: DType) -> String {
    match dtype {
        DType::F32 => {
            "the model computes in f32 already; look for an edit that is too large, or a damaged checkpoint".to_string()
        }
        _ => format!("the activations overflowed; load the model with {}", param("dtype").is("f32")),
    }
}

/// Readings with the numbers of their readouts, in the order in which they were found.
type Found = Vec<(usize, Reading)>;

/// Computes a plan's readings, one for each of its readouts.
///
/// # Errors
/// If the plan does not make sense for the model, a reading is not finite, or candle fails.
pub fn run(decoder: &Decoder, plan: &Plan, options: &Options) -> Result<Readings, RunError> {
    let decoder = decoder.of(plan.kv);
    run_program(decoder, &plan.compile(&decoder.arch)?, options)
}

/// Computes a program's readings, one for each of its plan's readouts.
///
/// # Errors
/// If a reading is not finite, or candle fails.
pub fn run_program(decoder: &Decoder, program: &Program, options: &Options) -> Result<Readings, RunError> {
    let decoder = decoder.of(program.plan.kv);
    let mut found = match options.engine {
        Engine::Full => full::run(decoder, program, options)?,
        Engine::Wavefront => wavefront::run(decoder, program, options)?,
    };
    found.sort_unstable_by_key(|(readout, _)| *readout);
    let plan = program.plan;
    debug_assert!(found.iter().map(|(readout, _)| *readout).eq(0..plan.readouts.len()), "each readout is read once");
    let readings = found.into_iter().map(|(_, reading)| reading);
    let checked = readings.zip(&plan.readouts).enumerate().map(|(i, (reading, readout))| {
        // Scores of keys that a query may not see are minus infinity.
        let hidden = matches!(&readout.what, What::Activation(a) if a.site.kind == SiteKind::Scores);
        match not_finite(&reading, hidden) {
            None => Ok(reading),
            Some(value) => {
                let at = format!("readout {i} of {}", plan.describe(readout.run));
                Err(RunError::NotFinite { at, value, dtype: decoder.dtype })
            }
        }
    });
    Ok(Readings::new(checked.collect::<Result<_, _>>()?))
}

/// A number of a reading that is not finite, if any is; minus infinity may be `hidden`.
fn not_finite(reading: &Reading, hidden: bool) -> Option<f64> {
    match reading {
        Reading::Number(value) => Some(*value).filter(|v| !v.is_finite()),
        Reading::Array(array) => {
            let bad = array.values.iter().find(|v| !(v.is_finite() || hidden && **v == f32::NEG_INFINITY));
            bad.map(|v| f64::from(*v))
        }
    }
}
