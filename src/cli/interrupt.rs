//! What Ctrl-C does: it says how far a run came and how to go on, and ends with code 130. Finished parts are on the disk already.
//! A system that ends the process, as schedulers do before they kill it, is answered alike, with code 143.

use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The code with which a process ends that Ctrl-C stopped, as shells have it.
pub(crate) const INTERRUPTED: i32 = 130;

/// The code of a process that was asked to end.
#[cfg(unix)]
const TERMINATED: i32 = 143;

/// How far the run at work is.
static DONE: AtomicU64 = AtomicU64::new(0);
static EXPECTED: AtomicU64 = AtomicU64::new(0);

/// Where what is finished stands, from which a later run of the same command goes on.
static AT_WORK: Mutex<Option<String>> = Mutex::new(None);

/// Stops the process with a word when it is interrupted, from here on. Elsewhere than on Unix, and where no handler can be set, the system
/// stops it as before, which loses no more.
pub(crate) fn watch() {
    #[cfg(unix)]
    {
        use crate::study::share::claims::give_up;
        use signal_hook::consts::{SIGINT, SIGTERM};
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else { return };
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Others need not wait to see that this process is gone.
                give_up();
                // Nowhere is left to say it if standard error is gone.
                let _ = writeln!(std::io::stderr(), "\n{}", word());
                std::process::exit(if signal == SIGTERM { TERMINATED } else { INTERRUPTED });
            }
        });
    }
}

/// A run begins to compute `expected` rows times layers into a directory.
pub(crate) fn begin(out: &Path, expected: u64) {
    begin_in(format!("{}.partial", out.display()), expected);
}

/// Work of so many units begins, whose finished parts stand at a place of its own.
pub(crate) fn begin_in(place: String, expected: u64) {
    DONE.store(0, Ordering::Relaxed);
    EXPECTED.store(expected, Ordering::Relaxed);
    set(Some(place));
}

/// So many rows times layers more are done.
pub(crate) fn advance(rows: u64) {
    DONE.fetch_add(rows, Ordering::Relaxed);
}

/// The run's directory stands under its name.
pub(crate) fn end() {
    set(None);
}

fn set(place: Option<String>) {
    if let Ok(mut at_work) = AT_WORK.lock() {
        *at_work = place;
    }
}

fn word() -> String {
    let at_work = AT_WORK.lock().ok().and_then(|at_work| at_work.clone());
    let (done, expected) = (DONE.load(Ordering::Relaxed), EXPECTED.load(Ordering::Relaxed).max(1));
    match at_work {
        None => "stopped; nothing was being written".to_owned(),
        Some(place) => format!(
            "stopped at {} %: give the same command with --resume to go on ({place} holds what is finished)",
            (100 * done / expected).min(99)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_says_how_far_the_run_came_and_how_to_go_on() {
        begin(Path::new("runs/a"), 200);
        advance(50);
        advance(46);
        assert_eq!(
            word(),
            "stopped at 48 %: give the same command with --resume to go on (runs/a.partial holds what is finished)"
        );
        begin_in("models/mixed".to_string(), 10);
        assert!(word().ends_with("to go on (models/mixed holds what is finished)"));
        end();
        assert_eq!(word(), "stopped; nothing was being written");
    }
}
