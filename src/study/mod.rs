//! Studies: an analysis with its parameters, put to a model.
//!
//! ```text
//! parameters  +  model (shared)  +  data  ->  run       ->  tables
//!                                             run_into  ->  a run directory: tables, figures, reports, the record
//! ```
//!
//! ```no_run
//! # use gatelens::analyses::dla::Dla;
//! # use gatelens::study::{self, Study};
//! # fn show(dla: &Dla) -> Result<(), Box<dyn std::error::Error>> {
//! let study = Study::open("demo")?;
//! for table in study::run(dla, &study)?.tables {
//!     println!("{}: {} rows", table.name(), table.rows());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The command line is one caller of these functions; it adds flags, a progress bar and what is printed. What an analysis asks of
//! its [`session`] is left to the analyses, and what a run directory promises to [`rundir`].

#![cfg_attr(
    not(feature = "report"),
    allow(dead_code, reason = "without reports no run has a directory that others share")
)]

#[cfg(feature = "report")]
mod again;
#[cfg(feature = "report")]
mod cost;
pub mod counter;
#[cfg(feature = "report")]
pub mod described;
#[cfg(feature = "report")]
mod directory;
#[cfg(feature = "report")]
pub(crate) mod document;
#[cfg(feature = "report")]
mod memory;
mod meter;
pub mod parts;
mod progress;
pub mod rundir;
#[cfg(feature = "report")]
mod runner;
mod scores;
pub mod session;
pub mod share;
mod stand_ins;

#[cfg(feature = "report")]
pub use again::Recorded;
#[cfg(feature = "report")]
pub use cost::{Cost, ENGINES};
#[cfg(feature = "cli")]
pub(crate) use cost::{TEXTS_NEED, TOKENS_SLOWER};
pub use counter::{Gather, Making, Runner};
#[cfg(feature = "report")]
pub use directory::{Finished, OF_RUN, Origin, Place, run_into, write_figures};
pub use meter::Meter;
pub use progress::{Progress, Work};
#[cfg(feature = "report")]
pub use runner::{Job, StudyError, run};
pub use share::{Missing, Shard, Share};

use crate::model::{Model, ModelError, Options};
use crate::run::{Cancel, Engine};
use session::Session;
use std::sync::Arc;

/// What an analysis is put to, and how it is computed. `Study { seed: 3, ..Study::of(model) }` changes the seed.
#[derive(Clone)]
pub struct Study {
    /// The model. Studies share it: a clone costs nothing.
    pub model: Arc<Model>,
    pub engine: Engine,
    /// The seed of everything random: permutations, the bootstrap, random sets and directions, sampled answers.
    pub seed: u64,
    /// Watches the work, if anybody does.
    pub progress: Option<Arc<dyn Progress>>,
    /// Stops the work from outside; see [`Cancel`].
    pub cancel: Cancel,
}

impl Study {
    /// A study of a model, by the default engine with seed 0.
    pub fn of(model: impl Into<Arc<Model>>) -> Study {
        Study { model: model.into(), engine: Engine::default(), seed: 0, progress: None, cancel: Cancel::default() }
    }

    /// A study of the model of a name, on the CPU in f32; see [`Model::open`].
    ///
    /// # Errors
    /// If there is no such model, or it cannot be loaded.
    pub fn open(model: &str) -> Result<Study, ModelError> {
        Ok(Study::of(Model::open(model, &Options::default())?))
    }

    /// A session of it that keeps nothing.
    pub fn session(&self) -> Session {
        let session = Session::new(&self.model, self.engine, self.seed).cancelled_by(self.cancel.clone());
        match &self.progress {
            Some(progress) => session.watched(progress.clone()),
            None => session,
        }
    }
}
