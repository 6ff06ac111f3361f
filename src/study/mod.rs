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

mod cost;
pub mod described;
mod directory;
pub(crate) mod document;
mod meter;
pub mod parts;
mod progress;
pub mod rundir;
mod scores;
pub mod session;

pub use cost::{Cost, ENGINES};
pub use directory::{Finished, OF_RUN, Origin, Place, run_into, write_figures};
pub use meter::Meter;
pub use progress::{Progress, Work};

use crate::analyses::{Analysis, AnalysisError, Output};
use crate::figure::FigureError;
use crate::measured::Measured;
use crate::model::{Model, ModelError, Options};
use crate::plan::Plan;
use crate::report::ReportError;
use crate::run::{Cancel, Engine, RunError, Size, size};
use crate::table::TableError;
use parts::Parts;
use rundir::{RecordError, RunDirError};
use serde_json::{Map, Value};
use session::{Scores, Session, SessionError};
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

/// Puts an analysis to a model: what it leaves, in memory. Nothing is written.
///
/// # Errors
/// If the data do not fit the model, the study is cancelled, or the work fails.
pub fn run<A: Analysis>(analysis: &A, study: &Study) -> Result<Output, AnalysisError> {
    let items = analysis.prepare(&study.model)?;
    let expected = expected(analysis, &items, study)?;
    Ok(compute(analysis, &items, study, expected, None)?.0)
}

/// What was run, for the record.
struct Ran {
    measured: Measured,
    total: Size,
}

/// Runs an analysis on items that are prepared; of parts, those that are kept are taken over.
fn compute<A: Analysis>(
    analysis: &A,
    items: &A::Items,
    study: &Study,
    expected: Work,
    parts: Option<Parts>,
) -> Result<(Output, Ran), AnalysisError> {
    study.progress.iter().for_each(|progress| progress.begin(expected));
    let scored = A::scored(items);
    let warned = scored.clone();
    let session = study.session().scoring(scored.wanted(), move |scores: &Scores| warned.warn(scores));
    let session = match parts {
        Some(parts) => session.resumable(parts),
        None => session,
    };
    let output = analysis.compute(&session, items)?;
    study.progress.iter().for_each(|progress| progress.end());
    Ok((output, Ran { measured: scored.measured(&session.scores()), total: session.total() }))
}

/// What the plans of an analysis cost, where somebody watches; nothing is counted otherwise.
fn expected<A: Analysis>(analysis: &A, items: &A::Items, study: &Study) -> Result<Work, AnalysisError> {
    let mut all = Work::default();
    if study.progress.is_none() {
        return Ok(all);
    }
    for plan in analysis.plans(&study.model, items)? {
        let size = sized(&plan?, study)?;
        (all.rows, all.flops) = (all.rows + size.rows, all.flops + size.flops);
    }
    Ok(all)
}

fn sized(plan: &Plan, study: &Study) -> Result<Size, SessionError> {
    let program = plan.compile(&study.model.decoder.arch).map_err(RunError::from)?;
    Ok(size(&program, study.engine))
}

/// An analysis with its parameters, whichever it is.
pub trait Job {
    /// What the analysis is called.
    fn name(&self) -> &'static str;

    /// As [`run`].
    ///
    /// # Errors
    /// As [`run`].
    fn run(&self, study: &Study) -> Result<Output, AnalysisError>;

    /// As [`run_into`].
    ///
    /// # Errors
    /// As [`run_into`].
    fn run_into(&self, study: &Study, place: &Place, origin: &Origin) -> Result<Finished, StudyError>;

    /// What it would cost; nothing is computed but some rows, for the pace.
    ///
    /// # Errors
    /// If the data do not fit the model.
    fn cost(&self, study: &Study) -> Result<Cost, StudyError>;

    /// All that its results depend on, as its record has it.
    ///
    /// # Errors
    /// If the data do not fit the model.
    fn parameters(&self, study: &Study, origin: &Origin) -> Result<Map<String, Value>, StudyError>;
}

impl<A: Analysis> Job for A {
    fn name(&self) -> &'static str {
        A::NAME
    }

    fn run(&self, study: &Study) -> Result<Output, AnalysisError> {
        run(self, study)
    }

    fn run_into(&self, study: &Study, place: &Place, origin: &Origin) -> Result<Finished, StudyError> {
        run_into(self, study, place, origin)
    }

    fn cost(&self, study: &Study) -> Result<Cost, StudyError> {
        Cost::of(self, study)
    }

    fn parameters(&self, study: &Study, origin: &Origin) -> Result<Map<String, Value>, StudyError> {
        let items = self.prepare(&study.model)?;
        Ok(directory::record(self, study, A::datasets(&items), origin).parameters)
    }
}

/// What stops a study that writes a run directory.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Figure(#[from] FigureError),
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A record that is there already, of a run that is to be gone on with.
    #[error("{}: {}; start anew with --force", .0.path.display(), .0.reason)]
    Record(RecordError),
    #[error("{0}")]
    Failed(String),
}

impl StudyError {
    /// Whether the parameters or the data are wrong, rather than the work having failed.
    pub fn of_input(&self) -> bool {
        match self {
            StudyError::Analysis(e) => e.of_input(),
            StudyError::RunDir(e) => !matches!(e, RunDirError::Write(_)),
            StudyError::Record(_) => true,
            StudyError::Table(_) | StudyError::Figure(_) | StudyError::Report(_) | StudyError::Failed(_) => false,
        }
    }
}

impl From<RunError> for StudyError {
    fn from(e: RunError) -> Self {
        StudyError::Analysis(SessionError::from(e).into())
    }
}
