//! Work in a thread of its own, while Python runs others, shows how far it is, and hears Ctrl-C.

use crate::errors::failed;
use gatelens::run::Cancel;
use gatelens::study::{Progress, Work};
use pyo3::prelude::*;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often Python is asked whether it was interrupted.
const TICK: Duration = Duration::from_millis(50);

/// What a thread of work has of a stack: as a main thread.
const STACK: usize = 16 << 20;

/// How far the work is.
#[derive(Default)]
pub struct Watched(Mutex<State>);

#[derive(Clone, Copy, Default, PartialEq)]
struct State {
    expected: f64,
    done: f64,
}

impl Watched {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Progress for Watched {
    fn begin(&self, expected: Work) {
        self.with(|state| *state = State { expected: expected.flops, done: 0.0 });
    }

    fn advance(&self, done: Work) {
        self.with(|state| state.done += done.flops);
    }

    fn kept(&self, done: Work) {
        self.advance(done);
    }

    fn spared(&self, not_needed: Work) {
        self.advance(not_needed);
    }
}

/// How long work that was stopped is waited for. A pass stops after a layer, but statistics are not stopped within: they go on to
/// their end, and then nothing is written.
const PATIENCE: Duration = Duration::from_millis(700);

/// Does work in a thread of its own until it is done. `tick` is called with what is done and what is expected, in floating-point
/// operations, whenever that has changed. What it raises, and Ctrl-C, stops the work, by `cancel`.
///
/// # Errors
/// What `tick` raises, or Ctrl-C; or if the work panics, which is a defect.
pub fn waited<T: Send + 'static>(
    py: Python<'_>,
    cancel: &Cancel,
    watched: &Arc<Watched>,
    tick: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let tick: Option<Py<PyAny>> = tick.map(|tick| tick.clone().unbind());
    py.detach(|| {
        let (ended, end) = channel::<()>();
        let worker = thread::Builder::new().stack_size(STACK).spawn(move || {
            // Let go of when the work ends, in whatever way.
            let _ended = ended;
            work()
        });
        let worker = worker.map_err(|e| failed(format!("no thread can be started: {e}")))?;
        let mut told = State::default();
        while end.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            let now = watched.with(|state| *state);
            let heard = Python::attach(|py| {
                py.check_signals()?;
                match &tick {
                    Some(tick) if now != told => tick.call1(py, (now.done, now.expected)).map(drop),
                    _ => Ok(()),
                }
            });
            told = now;
            if let Err(e) = heard {
                cancel.cancel();
                // It ends in time, or goes on by itself.
                let _ = end.recv_timeout(PATIENCE);
                LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(end);
                return Err(e);
            }
        }
        worker.join().map_err(|panic| failed(format!("internal: {}; this is a defect of gatelens", said(&*panic))))
    })
}

/// The ends of work that was stopped and was not waited for any more: each is let go of when its work ends.
static LEFT: Mutex<Vec<Receiver<()>>> = Mutex::new(Vec::new());

/// Waits for work that was stopped before and still goes on: it holds its run directory until it ends.
///
/// # Errors
/// Ctrl-C.
pub fn settled(py: Python<'_>) -> PyResult<()> {
    loop {
        let goes_on = |end: &Receiver<()>| end.try_recv() == Err(TryRecvError::Empty);
        let left = {
            let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
            left.retain(goes_on);
            left.len()
        };
        if left == 0 {
            return Ok(());
        }
        py.check_signals()?;
        py.detach(|| thread::sleep(TICK));
    }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_string())
}
