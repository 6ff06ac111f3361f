//! How far a run is, and how long it will take.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far a run is, and how long it will take. What an earlier run did and this one took over is done, and says nothing of the pace.
pub struct Pace {
    expected: f64,
    state: Mutex<State>,
}

struct State {
    /// Work that was taken over from an earlier run.
    kept: f64,
    /// Work that was done in this process, and the time that it took.
    computed: f64,
    worked: Duration,
    /// When the last work was done or taken over.
    last: Instant,
}

impl Pace {
    /// Begins to count, of so much work as is expected.
    pub fn start(expected: f64) -> Pace {
        let (kept, computed, worked, last) = (0.0, 0.0, Duration::ZERO, Instant::now());
        Pace { expected, state: Mutex::new(State { kept, computed, worked, last }) }
    }

    /// So much was computed since the last call.
    pub fn computed(&self, work: f64) {
        self.with(|state| {
            state.computed += work;
            state.worked += state.last.elapsed();
            state.last = Instant::now();
        });
    }

    /// So much was taken over; the time since the last call went by with that.
    pub fn kept(&self, work: f64) {
        self.with(|state| {
            state.kept += work;
            state.last = Instant::now();
        });
    }

    /// Seconds that are left; none before anything was computed.
    pub fn left_s(&self) -> Option<f64> {
        self.with(|s| left_s(s.computed, s.worked.as_secs_f64(), self.expected - s.kept - s.computed))
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Seconds for the work that is left, by the time that the work of this process took; none before there is any.
fn left_s(computed: f64, seconds: f64, left: f64) -> Option<f64> {
    (computed > 0.0).then(|| seconds / computed * left.max(0.0))
}

/// `under 0.1 s`, `0.4 s`, `35 s`, `12 min`, `3.5 h`: about so long.
pub fn about(seconds: f64) -> String {
    match seconds {
        s if s < 0.05 => "under 0.1 s".to_owned(),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 570.0 => format!("{:.1} min", s / 60.0),
        s if s < 5970.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done_in_this_process() {
        assert_eq!(left_s(0.0, 5.0, 100.0), None);
        assert_eq!((left_s(10.0, 5.0, 90.0), left_s(10.0, 5.0, 0.0)), (Some(45.0), Some(0.0)));
        assert_eq!(left_s(110.0, 5.0, -10.0), Some(0.0), "more was done than expected");
    }

    #[test]
    fn what_was_taken_over_is_no_work_done_in_no_time() {
        let pace = Pace::start(1000.0);
        pace.kept(700.0);
        assert_eq!(pace.left_s(), None);
        let set = |seconds: u64| pace.with(|s| s.worked = Duration::from_secs(seconds));
        pace.computed(100.0);
        set(20);
        // 200 of 1000 are left, at 5 a second.
        assert_eq!(pace.left_s(), Some(40.0));
        pace.kept(100.0);
        assert_eq!(pace.left_s(), Some(20.0));
        let worked = pace.with(|s| s.worked);
        std::thread::sleep(Duration::from_millis(20));
        pace.kept(0.0);
        pace.computed(100.0);
        assert!(pace.with(|s| s.worked) < worked + Duration::from_millis(15), "taking over is not working");
        assert_eq!(pace.left_s(), Some(0.0));
    }

    #[test]
    fn durations_are_written_about() {
        let said = [0.04, 9.4, 61.0, 140.0, 1800.0, 9000.0].map(about);
        assert_eq!(said, ["under 0.1 s", "9.4 s", "61 s", "2.3 min", "30 min", "2.5 h"]);
    }
}
