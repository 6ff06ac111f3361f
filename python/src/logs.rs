//! What the library says, for Python's `logging`.
//!
//! The library speaks from any thread, and one that computes must not wait for Python: what is said is kept until the thread
//! that called hears of it.

use pyo3::prelude::*;
use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::{Mutex, Once, PoisonError};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

/// How much is kept if nobody listens.
const KEPT: usize = 1000;

/// What was said, with its level as `logging` counts.
static SAID: Mutex<VecDeque<(u8, String)>> = Mutex::new(VecDeque::new());

struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => 40,
            Level::WARN => 30,
            Level::INFO => 20,
            // Of other crates this is a flood.
            _ if event.metadata().target().starts_with("gatelens") => 10,
            _ => return,
        };
        let mut text = Text(String::new());
        event.record(&mut text);
        let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == KEPT {
            said.pop_front();
        }
        said.push_back((level, text.0));
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a text does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// Keeps what the library says, from the first call on. Whatever hears of it calls this first: the command, in a process of its own,
/// speaks for itself.
pub fn start() {
    static STARTED: Once = Once::new();
    // A process whose library has a listener already keeps that.
    STARTED.call_once(|| drop(tracing::subscriber::set_global_default(registry().with(Keep))));
}

/// Takes what was said since the last call: levels as `logging` counts, and texts.
#[pyfunction]
pub fn drain_logs() -> Vec<(u8, String)> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
}
