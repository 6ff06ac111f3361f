//! The way from an analysis with its parameters to its tables.

use super::Study;
use super::cost::Cost;
use super::counter::{Counted, Counter};
use super::directory::{self, Finished, Origin, Place, run_into};
use super::parts::Parts;
use super::rundir::{RecordError, RunDirError};
use super::session::{Scores, SessionError};
use super::share::{Ended, Missing, Share, Sharing};
use crate::analyses::{About, Analysis, AnalysisError, Output, Prepared};
use crate::figure::FigureError;
use crate::measured::Measured;
use crate::parameters::param;
use crate::report::ReportError;
use crate::run::{RunError, Size};
use crate::table::TableError;
use serde_json::{Map, Value};
use std::rc::Rc;
use tracing::subscriber::{NoSubscriber, with_default};

/// Puts an analysis to a model: what it leaves, in memory. Nothing is written.
///
/// # Errors
/// If the data do not fit the model, the study is cancelled, or the work fails.
pub fn run<A: Analysis>(analysis: &A, study: &Study) -> Result<Output, AnalysisError> {
    computable(study)?;
    let prepared = prepared(analysis, study)?;
    let expected = expected(analysis, &prepared.items, study)?;
    study.progress.iter().for_each(|progress| progress.begin(expected.work()));
    let (output, _) = compute(analysis, &prepared, study, None)?;
    study.progress.iter().for_each(|progress| progress.end());
    Ok(output)
}

/// The data of an analysis whose parameters are sound, as the model reads them.
pub(super) fn prepared<A: Analysis>(analysis: &A, study: &Study) -> Result<Prepared<A::Items>, AnalysisError> {
    analysis.check()?;
    analysis.prepare(&study.model)
}

/// Refuses a study of prompts that are no prompts.
///
/// # Errors
/// If the model was opened to count alone.
pub(super) fn computable(study: &Study) -> Result<(), AnalysisError> {
    if study.model.options.prompt_tokens.is_some() {
        let why = "prompts of that many tokens are only counted, and nothing can be computed on them";
        return Err(AnalysisError::Bad(format!("{}: {why}", param("prompt_tokens"))));
    }
    Ok(())
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
    parts: Option<Parts>,
) -> Result<(Output, Ran), AnalysisError> {
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
    Ok((output, Ran { measured: scored.measured(&session.scores()), total: session.total() }))
}

/// What the plans of an analysis cost, where somebody watches; nothing is counted otherwise.
pub(super) fn expected<A: Analysis>(analysis: &A, items: &A::Items, study: &Study) -> Result<Counted, AnalysisError> {
    if study.progress.is_none() {
        return Ok(Counted::default());
    }
    let counter = Counter::new(&study.model, vec![study.engine], study.seed).cancelled_by(study.cancel.clone());
    analysis.measure(&counter, items)?;
    Ok(counter.counted())
}

/// Computes what falls to this process of a study that several share. What is missing in the end, if anything is.
///
/// `is_over` says whether the run was finished by another process.
pub(super) fn shared<A: Analysis>(
    analysis: &A,
    Prepared { items, scored, .. }: &Prepared<A::Items>,
    study: &Study,
    (share, parts): (Share, &Parts),
    is_over: &dyn Fn() -> bool,
) -> Result<Option<Missing>, AnalysisError> {
    let sharing = Rc::new(Sharing::new(share, parts));
    loop {
        sharing.begin();
        // What is scored is part of the plans, and so of the names of their parts.
        let session = study.session().scoring(scored.wanted(), |_| {});
        let session = session.resumable(parts.clone()).sharing(sharing.clone());
        // What there is to warn of is said when all parts are there.
        let pass = with_default(NoSubscriber::default(), || analysis.measure(&session, items).map(drop));
        study.cancel.check().map_err(SessionError::from)?;
        let broke = pass.is_err();
        if let Err(e) = pass
            && !sharing.may_be_due_to_stand_ins()
        {
            return Err(e);
        }
        match sharing.end(parts, broke, &mut || study.cancel.check().is_ok() && !is_over()) {
            Ended::Complete => return Ok(None),
            Ended::Stopped(missing) => return Ok(Some(missing)),
            Ended::Again if is_over() => return Ok(None),
            Ended::Again => {}
        }
    }
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
    /// What other processes compute is not there yet.
    #[error("{0}")]
    Missing(Missing),
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
            StudyError::Table(_)
            | StudyError::Figure(_)
            | StudyError::Report(_)
            | StudyError::Missing(_)
            | StudyError::Failed(_) => false,
        }
    }
}

impl From<RunError> for StudyError {
    fn from(e: RunError) -> Self {
        StudyError::Analysis(SessionError::from(e).into())
    }
}
