//! What a run costs, apart from the runs before it in the same process.

use super::rundir::{RunRecord, cpu_seconds, peak_rss_bytes};
use std::time::Instant;

/// Counts from its start on.
pub struct Meter {
    started: Instant,
    cpu_s: f64,
}

impl Default for Meter {
    fn default() -> Self {
        Meter::start()
    }
}

impl Meter {
    /// Starts to count.
    pub fn start() -> Meter {
        // Linux counts the most memory anew from here; elsewhere it stays that since the process' start.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Meter { started: Instant::now(), cpu_s: cpu_seconds() }
    }

    /// Seconds since the start.
    pub fn elapsed_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Puts processor time and memory into a record.
    pub fn measure(&self, record: &mut RunRecord) {
        record.cpu_s = cpu_seconds() - self.cpu_s;
        record.peak_rss_bytes = peak_rss_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(seconds: f64) {
        let end = cpu_seconds() + seconds;
        while cpu_seconds() < end {
            std::hint::black_box((0..10_000).sum::<u64>());
        }
    }

    #[test]
    fn what_was_used_before_counts_for_nothing() {
        busy(0.1);
        let (before, meter) = (cpu_seconds(), Meter::start());
        busy(0.05);
        let mut record = RunRecord::default();
        meter.measure(&mut record);
        // Other tests run beside this one, in the same process.
        assert!(record.cpu_s >= 0.04 && record.cpu_s <= cpu_seconds() - before, "{}", record.cpu_s);
        assert!(meter.elapsed_s() > 0.0);
    }
}
