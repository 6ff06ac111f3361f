//! The statistics of analyses: is an effect more than chance, how sure is its size, where does a behaviour take over?
//!
//! Everything is computed in f64 from numbers that an analysis already has; which numbers, and what to call them in
//! tables, is the analysis' business. What is undefined (no items, no spread) is `None`, which becomes an empty cell.
//! Whatever draws random numbers takes a seed and gives the same bytes for it, whatever the number of threads.
//!
//! ```
//! use gatelens::stats::{Bootstrap, bca_mean, benjamini_hochberg, draws_for, sign_flip_family};
//!
//! // The effects of three heads on the same eight items.
//! let effects = [
//!     [0.9, 1.1, 0.8, 1.3, 1.0, 0.7, 1.2, 0.9],
//!     [0.1, -0.2, 0.0, 0.3, -0.1, 0.2, -0.3, 0.1],
//!     [0.0, 0.4, 0.1, 0.5, -0.1, 0.2, 0.3, 0.1],
//! ];
//! let tests = sign_flip_family(&effects, draws_for(effects.len()), 0)?;
//! assert_eq!(tests[0].p, 2.0 / 256.0);
//! assert!(tests[0].p_max < 0.05 && tests[1].p_max > 0.05);
//!
//! let p: Vec<f64> = tests.iter().map(|t| t.p).collect();
//! let q = benjamini_hochberg(&p);
//! assert!(q[0] < 0.05 && q[1] > 0.05);
//!
//! let interval = bca_mean(&effects[0], &Bootstrap::default()).ok_or("no interval")?;
//! assert!(0.8 < interval.low && interval.low < 0.99 && 0.99 < interval.high && interval.high < 1.2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bootstrap;
pub mod clusters;
mod correlation;
mod flip;
mod jackknife;
mod labels;
mod multiple;
mod shares;
#[cfg(test)]
mod tests;
mod threshold;
mod welch;

pub use bootstrap::{Bootstrap, bca, bca_difference, bca_family, bca_mean, bca_ratio, bca_ratio_family, ratio};
pub use correlation::{pearson, ranks, spearman};
pub use flip::{FlipTest, draws_for, sign_flip, sign_flip_family};
pub use jackknife::jackknife_correlation;
pub use labels::{LabelTest, label_test};
pub use multiple::{benjamini_hochberg, benjamini_hochberg_present};
pub use shares::{
    PairedCounts, auc, auc_interval, counted, overlap_p, paired_sign_test, share_difference, wilson, wilson_of,
};
pub use threshold::{Threshold, logistic_threshold};
pub use welch::welch;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// An interval of a number, in its units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// Lower and upper end.
    pub fn ends(self) -> (f64, f64) {
        (self.low, self.high)
    }
}

/// On which side of 0 an interval lies: above it (true) or below; none where it holds 0, or where one end is nearer to it than `least`.
pub fn beyond_zero(interval: Option<(f64, f64)>, least: f64) -> Option<bool> {
    let (low, high) = interval?;
    let (above, below) = (low > 0.0 && low >= least, high < 0.0 && high <= -least);
    (above || below).then_some(above)
}

/// Numbers that a family of tests cannot be made of.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum StatsError {
    #[error(
        "test {test} of the family has {found} items and test 0 has {expected}; the same items must be in every test"
    )]
    Ragged { test: usize, expected: usize, found: usize },
    #[error("item {item} of test {test} is {value}; leave the item out of every test of the family")]
    NotFinite { test: usize, item: usize, value: f64 },
    #[error("the family's tests have no items; give at least one")]
    NoItems,
}

/// A generator of random numbers for one purpose, named by `stream`.
///
/// Streams of one seed are independent, so that an analysis that is added does not change what another one draws.
pub fn rng(seed: u64, stream: &str) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(Sha256::new().chain_update(seed.to_le_bytes()).chain_update(stream).finalize().into())
}

fn all_finite(x: &[f64]) -> bool {
    x.iter().all(|v| v.is_finite())
}

/// The mean, summed from the first item so that the mean of equal items is that item, to the bit; `None` of nothing.
///
/// Intervals are made around this mean: another way to sum could leave its own interval by a bit.
pub fn mean(x: &[f64]) -> Option<f64> {
    let first = x.first()?;
    Some(first + x.iter().map(|v| v - first).sum::<f64>() / x.len() as f64)
}

/// [`mean`]; NaN of nothing.
fn mean_of(x: &[f64]) -> f64 {
    mean(x).unwrap_or(f64::NAN)
}
