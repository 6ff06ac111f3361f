//! Stopping a run from outside, between two layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A handle that stops runs. Clone it, give one to the run, and call [`Cancel::cancel`] on the other, from any thread:
/// the run ends after the layer that it is in, with [`RunError::Cancelled`](super::RunError::Cancelled).
///
/// ```
/// # use gatelens::run::Cancel;
/// let (of_the_run, mine) = { let cancel = Cancel::default(); (cancel.clone(), cancel) };
/// mine.cancel();
/// assert!(of_the_run.is_cancelled());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

/// The error that ends a pass in which a run was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the run was cancelled")]
pub struct Cancelled;

impl Cancel {
    /// Stops every run that holds a clone of this handle.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether runs are to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Nothing while runs may go on.
    ///
    /// # Errors
    /// Once they are to stop.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

impl Cancelled {
    /// Whether this is what stopped a pass.
    pub(super) fn is_within(e: &candle_core::Error) -> bool {
        matches!(e, candle_core::Error::Io(e) if e.get_ref().is_some_and(|e| e.is::<Cancelled>()))
    }
}

impl From<Cancelled> for candle_core::Error {
    fn from(e: Cancelled) -> Self {
        // The one of candle's errors that lets this be found within it again.
        std::io::Error::new(std::io::ErrorKind::Interrupted, e).into()
    }
}
