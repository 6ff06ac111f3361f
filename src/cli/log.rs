//! Warnings on standard error, as all that users are told: `warning: WHAT`.
//!
//! The library warns through `tracing`; what is said, and whether, is the command line's. `GATELENS_LOG` takes other
//! directives.

use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Says from now on what the library warns of, unless it is to be quiet.
pub(super) fn start(quiet: bool) {
    let ours = if quiet { "error" } else { "error,gatelens=warn" };
    let filter = EnvFilter::try_from_env("GATELENS_LOG").unwrap_or_else(|_| EnvFilter::new(ours));
    let told = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .event_format(Told)
        // A reader who has left is no error.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(told).init();
}

/// How a message looks: its weight, and what it says.
struct Told;

impl<S, N> FormatEvent<S, N> for Told
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let weight = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => "note",
        };
        write!(writer, "{weight}: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
