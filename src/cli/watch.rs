//! What watches a run on a terminal: a bar over floating-point operations, and the word that Ctrl-C says.

use super::interrupt;
use super::pace::{Pace, about};
use crate::study::{Progress, Work};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Watches one run.
pub(super) struct Watch {
    /// Where its run directory goes.
    out: PathBuf,
    quiet: bool,
    /// From the moment on that the work begins.
    shown: OnceLock<(ProgressBar, Arc<Pace>)>,
}

impl Watch {
    pub(super) fn new(out: &Path, quiet: bool) -> Watch {
        Watch { out: out.to_path_buf(), quiet, shown: OnceLock::new() }
    }

    /// The run's directory stands under its name.
    pub(super) fn done(&self) {
        interrupt::end();
    }

    fn advanced(&self, done: Work, tell: impl Fn(&Pace)) {
        if let Some((bar, pace)) = self.shown.get() {
            tell(pace);
            bar.inc(done.flops as u64);
        }
        interrupt::advance(done.flops as u64);
    }
}

impl Progress for Watch {
    fn begin(&self, expected: Work) {
        let pace = Arc::new(Pace::start(expected));
        self.shown.get_or_init(|| (progress_bar(expected.flops, &pace, self.quiet), pace));
        interrupt::begin(&self.out, expected.flops as u64);
    }

    fn advance(&self, done: Work) {
        self.advanced(done, |pace| pace.computed(done));
    }

    fn kept(&self, done: Work) {
        self.advanced(done, |pace| pace.kept(done));
    }

    fn spared(&self, not_needed: Work) {
        self.advanced(not_needed, |pace| pace.spared(not_needed));
    }

    fn end(&self) {
        self.shown.get().inspect(|(bar, _)| bar.finish_and_clear());
    }
}

/// A bar over floating-point operations, on a terminal alone.
fn progress_bar(expected: f64, pace: &Arc<Pace>, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(expected as u64), target);
    let pace = Arc::clone(pace);
    // Nowhere is left to say it if a bar cannot be drawn.
    let time = move |state: &ProgressState, to: &mut dyn std::fmt::Write| {
        let spent = state.elapsed().as_secs_f64();
        let _ = match (pace.left_s(), pace.left_at_most_s()) {
            (Some(left), Some(most)) if most > left => {
                let [of, most] = [left, most].map(|left| about(spent + left));
                write!(to, "{} of {of}, at most {most}", about(spent))
            }
            (Some(left), _) => write!(to, "{} of {}", about(spent), about(spent + left)),
            (None, _) => write!(to, "{}", about(spent)),
        };
    };
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {time}  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("time", time));
    bar
}
