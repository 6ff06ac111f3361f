//! Errors as Python sees them.

use gatelens::analyses::AnalysisError;
use gatelens::run::RunError;
use gatelens::session::SessionError;
use gatelens::study::StudyError;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::prelude::*;
use std::fmt::Display;

pyo3::create_exception!(gatelens, Error, PyException, "What stops gatelens. Its kinds are InputError and ModelError.");
pyo3::create_exception!(
    gatelens,
    InputError,
    Error,
    "Data, parameters or a plan are wrong. The message names the item, line, field or site, and what would mend it."
);
pyo3::create_exception!(gatelens, ModelError, Error, "A model cannot be opened or read.");

/// Data, parameters or a plan that are wrong.
pub fn input(why: impl Display) -> PyErr {
    InputError::new_err(why.to_string())
}

/// A model that cannot be opened or read.
pub fn model(why: impl Display) -> PyErr {
    ModelError::new_err(why.to_string())
}

/// Work that failed.
pub fn failed(why: impl Display) -> PyErr {
    Error::new_err(why.to_string())
}

fn of_input(is: bool, why: impl Display) -> PyErr {
    if is { input(why) } else { failed(why) }
}

/// What stops a run of a plan.
pub fn of_run(e: SessionError) -> PyErr {
    match &e {
        SessionError::Run(RunError::Cancelled(_)) => PyKeyboardInterrupt::new_err(()),
        SessionError::Run(run) => of_input(run.of_input(), &e),
        _ => failed(e),
    }
}

/// What stops a study.
pub fn of_study(e: StudyError) -> PyErr {
    match e {
        StudyError::Analysis(AnalysisError::Session(e)) => of_run(e),
        e => of_input(e.of_input(), &e),
    }
}
