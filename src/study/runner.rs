//! The way from an analysis with its parameters to its tables.

use super::Study;
use super::cost::Cost;
use super::counter::Counter;
use super::directory::{self, Finished, Origin, Place, run_into};
use super::parts::Parts;
use super::progress::Work;
use super::rundir::{RecordError, RunDirError};
use super::session::{Scores, SessionError};
use crate::analyses::{About, Analysis, AnalysisError, Output, Prepared};
use crate::figure::FigureError;
use crate::measured::Measured;
use crate::parameters::param;
use crate::report::ReportError;
use crate::run::{RunError, Size};
use crate::table::TableError;
use serde_json::{Map, Value};

/// Puts an analysis to a model: what it leaves, in memory. Nothing is written.
///
/// # Errors
/// If the data do not fit the model, the study is cancelled, or the work fails.
pub fn run<A: Analysis>(analysis: &A, study: &Study) -> Result<Output, AnalysisError> {
    let prepared = prepared(analysis, study)?;
    let expected = expected(analysis, &prepared.items, study)?;
    Ok(compute(analysis, &prepared, study, expected, None)?.0)
}

/// The data of an analysis whose parameters are sound, as the model reads them.
pub(super) fn prepared<A: Analysis>(analysis: &A, study: &Study) -> Result<Prepared<A::Items>, AnalysisError> {
    analysis.check()?;
    analysis.prepare(&study.model)
}

/// What was run, for the record.
pub(super) struct Ran {
    pub(super) measured: Measured,
    pub(super) total: Size,
}

/// Runs an analysis on items that are prepared; of parts, those that are kept are taken over.
pub(super) fn compute<A: Analysis>(
    analysis: &A,
    Prepared { items, scored, .. }: &Prepared<A::Items>,
    study: &Study,
    expected: Work,
    parts: Option<Parts>,
) -> Result<(Output, Ran), AnalysisError> {
    study.progress.iter().for_each(|progress| progress.begin(expected));
    let warned = scored.clone();
    let session = study.session().scoring(scored.wanted(), move |scores: &Scores| warned.warn(scores));
    let session = match parts {
        Some(parts) => session.resumable(parts),
        None => session,
    };
    let measured = analysis.measure(&session, items)?;
    // Statistics are not stopped within; nothing is begun, or written, that nobody waits for.
    let going_on = || study.cancel.check().map_err(SessionError::from);
    going_on()?;
    let output = analysis.tables(&About::of(&session), items, measured)?;
    going_on()?;
    study.progress.iter().for_each(|progress| progress.end());
    Ok((output, Ran { measured: scored.measured(&session.scores()), total: session.total() }))
}

/// What the plans of an analysis cost, where somebody watches; nothing is counted otherwise.
pub(super) fn expected<A: Analysis>(analysis: &A, items: &A::Items, study: &Study) -> Result<Work, AnalysisError> {
    if study.progress.is_none() {
        return Ok(Work::default());
    }
    let counter = Counter::new(&study.model, vec![study.engine], study.seed).cancelled_by(study.cancel.clone());
    analysis.measure(&counter, items)?;
    Ok(counter.counted().work())
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
        let sources = prepared(self, study)?.sources;
        Ok(directory::record(self, study, sources, origin).0.parameters)
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
    #[error("{}: {}; start anew with {force}", .0.path.display(), .0.reason, force = param("force"))]
    Record(RecordError),
    /// A record that is to be read, and says something else.
    #[error(transparent)]
    Unread(RecordError),
    #[error("{0}")]
    Failed(String),
}

impl StudyError {
    /// Whether the parameters or the data are wrong, rather than the work having failed.
    pub fn of_input(&self) -> bool {
        match self {
            StudyError::Analysis(e) => e.of_input(),
            StudyError::RunDir(e) => !matches!(e, RunDirError::Write(_)),
            StudyError::Record(_) | StudyError::Unread(_) => true,
            StudyError::Table(_) | StudyError::Figure(_) | StudyError::Report(_) | StudyError::Failed(_) => false,
        }
    }
}

impl From<RunError> for StudyError {
    fn from(e: RunError) -> Self {
        StudyError::Analysis(SessionError::from(e).into())
    }
}
