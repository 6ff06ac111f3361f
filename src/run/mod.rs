//! Engines: they turn a [`Plan`] into readings.
//!
//! [`Engine::Wavefront`] runs every prompt and fork through a layer before the next and computes only what edits can
//! reach; [`Engine::Full`] runs a whole forward pass for each and is the reference that the tests hold the wavefront to.
//! [`generate`] lets runs of a plan go on token by token.
//! Gradients ([`What::Gradient`]) are read by passes of their own, forward and back, which both engines share.
//!
//! ```no_run
//! use gatelens::model::{Model, Options as ModelOptions};
//! use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions, What};
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
//!     for (layer, head) in model.heads() {
//!         let change = Change::interchange(other);
//!         let edit = Edit { site: SiteKind::Z.at(layer), part: Part::Heads(vec![head]), positions: Positions::Last, change };
//!         let fork = plan.fork(clean, vec![edit]);
//!         plan.read(fork, What::Metric(metric.clone()));
//!     }
//!     let readings = run(&model.decoder, &plan, &Options::default())?;
//!     for ((layer, head), reading) in model.heads().zip(&readings) {
//!         println!("L{layer}.H{head}: {:?}", reading.number());
//!     }
//!     Ok(())
//! }
//! ```

mod attribution;
mod batches;
mod cone;
mod edits;
mod full;
mod generate;
mod gradient;
mod head;
mod rate;
mod size;
mod wavefront;

pub use cone::{Cone, cones};
pub use generate::{Generated, Generation, Sampling, Steps, generate, generation_size};
pub(crate) use generate::{generate_samples, samples};
pub use gradient::NoGradient;
pub(crate) use head::log_sum_exp;
pub use rate::rate;
pub use size::{Size, size};

use crate::model::decoder::Decoder;
use crate::model::weights::WeightsError;
use crate::plan::{Plan, PlanError, What};
use crate::site::SiteKind;
use candle_core::DType;

/// Which engine computes a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
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
    /// Told of every layer that rows went through: how many rows did.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { engine: Engine::default(), budget: 256 << 20, progress: &|_| {} }
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
    Candle(#[from] candle_core::Error),
}

impl RunError {
    /// Whether what was asked for is wrong, or a file that was read for it, rather than the work having failed.
    pub fn of_input(&self) -> bool {
        match self {
            RunError::Plan(_) | RunError::Generation { .. } => true,
            RunError::Candle(e) => WeightsError::within(e).is_some_and(WeightsError::of_input),
            RunError::NotFinite { .. } | RunError::NoGradient(_) => false,
        }
    }
}

/// What helps where numbers of a model that computes in this dtype are not finite.
fn mend(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "the model computes in f32 already; look for an edit that is too large, or a damaged checkpoint",
        _ => "the activations overflowed; load the model with --dtype f32",
    }
}

/// The value of one readout.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    Number(f64),
    /// Row-major.
    Array {
        shape: Vec<usize>,
        values: Vec<f32>,
    },
}

impl Reading {
    /// The number, if the readout was one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Reading::Number(x) => Some(*x),
            Reading::Array { .. } => None,
        }
    }

    /// An array's rows; none of a number.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        let (values, width) = match self {
            Reading::Number(_) => (&[][..], 1),
            Reading::Array { shape, values } => (values.as_slice(), shape.last().copied().unwrap_or(1).max(1)),
        };
        values.chunks_exact(width)
    }

    /// [`Reading::values`], taken out.
    pub fn into_values(self) -> Vec<f32> {
        match self {
            Reading::Number(x) => vec![x as f32],
            Reading::Array { values, .. } => values,
        }
    }

    /// The values: an array's, or the number alone.
    pub fn values(&self) -> Vec<f32> {
        match self {
            Reading::Number(x) => vec![*x as f32],
            Reading::Array { values, .. } => values.clone(),
        }
    }
}

/// Computes a plan's readings, one for each of its readouts.
///
/// # Errors
/// If the plan does not make sense for the model, a reading is not finite, or candle fails.
pub fn run(decoder: &Decoder, plan: &Plan, options: &Options) -> Result<Vec<Reading>, RunError> {
    plan.check(&decoder.arch)?;
    let readings = match options.engine {
        Engine::Full => full::run(decoder, plan, options)?,
        Engine::Wavefront => wavefront::run(decoder, plan, options)?,
    };
    for (i, (reading, readout)) in readings.iter().zip(&plan.readouts).enumerate() {
        // Scores of keys that a query may not see are minus infinity.
        let hidden = matches!(&readout.what, What::Activation { site, .. } if site.kind == SiteKind::Scores);
        let bad = match reading {
            Reading::Number(value) => Some(*value).filter(|v| !v.is_finite()),
            Reading::Array { values, .. } => {
                let bad = values.iter().find(|v| !(v.is_finite() || hidden && **v == f32::NEG_INFINITY));
                bad.map(|v| f64::from(*v))
            }
        };
        if let Some(value) = bad {
            let at = format!("readout {i} of {}", plan.describe(readout.run));
            return Err(RunError::NotFinite { at, value, dtype: decoder.dtype });
        }
    }
    Ok(readings)
}
