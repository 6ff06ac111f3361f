//! Sign-flip permutation tests of a mean, alone and as a family.
//!
//! Under the hypothesis that each item's effect is as likely to be `x` as `-x`, every pattern of signs is as likely as
//! the one that was seen (Fisher 1935; Nichols and Holmes 2002 for the maximum over a family). The sum of a pattern is
//! looked up eight items at a time in a table of 256 partial sums, so that a draw costs n / 8 additions.

use super::{StatsError, rng};
use rand::RngCore;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Up to this many items every pattern of signs is counted instead of drawn.
const EXACT: usize = 16;

/// Patterns drawn at least where they are drawn.
const MIN_DRAWS: usize = 10_000;

/// Patterns drawn at most by [`draws_for`], which keeps the largest sweeps at seconds.
const MAX_DRAWS: usize = 1_000_000;

/// How near two statistics, which lie in [0, 1], are the same number but for rounding.
const TIE: f64 = 1e-10;

/// Bytes of signs that are worked on together, about: 8192 patterns at most, which fit the second-level cache.
const BLOCK: usize = 1 << 22;

/// What a test of a family says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlipTest {
    /// Two-sided p-value of this test's mean alone.
    pub p: f64,
    /// Family-wise p-value: how often the largest statistic of any test is as large as this test's.
    pub p_max: f64,
}

/// How many draws a family of tests needs so that one true effect among them can survive Benjamini-Hochberg.
///
/// The smallest p-value of D draws is 1 / (D + 1), and the smallest of m tests is multiplied by m: with 10,000 draws
/// a single head of 1,000 could never have q below 0.1. 200 draws a test put that floor at 0.005.
pub fn draws_for(tests: usize) -> usize {
    tests.saturating_mul(200).clamp(MIN_DRAWS, MAX_DRAWS)
}

/// Two-sided sign-flip permutation test of the hypothesis that the effects are symmetric about 0.
///
/// Exact (all 2^n patterns) for n <= 16; else `draws` random patterns, at least 10,000, and (hits + 1) / (draws + 1).
/// A pattern hits if its |mean| is at least the one seen, or would be but for rounding. 1 if all effects are 0; `None`
/// if there are none or one is not finite. The same p-value as in a [`sign_flip_family`] of any tests.
pub fn sign_flip(effects: &[f64], draws: usize, seed: u64) -> Option<f64> {
    let family = sign_flip_family(&[effects], draws, seed).ok()?;
    family.first().map(|test| test.p)
}

/// The sign-flip test of every row of a table `[tests][items]`, with the same sign flips for every test.
///
/// `p` is what [`sign_flip`] gives. `p_max` is corrected for the family by the distribution of the largest statistic,
/// which takes the tests' correlation into account. The statistic is |mean| / root mean square of the test's items, so
/// that tests of different scale are comparable. It is |t| on another scale, `t^2 = (n - 1) r^2 / (1 - r^2)`, but flips
/// leave its denominator as it is, and it stays finite for items that are all equal. A test of zeros has statistic 0.
///
/// Every test must have every item: one that is missing in some test has to be left out of all.
///
/// # Errors
/// If tests have different numbers of items or none, or an item is not finite. No tests are no error.
pub fn sign_flip_family<R: AsRef<[f64]> + Sync>(
    table: &[R],
    draws: usize,
    seed: u64,
) -> Result<Vec<FlipTest>, StatsError> {
    let Some(items) = table.first().map(|row| row.as_ref().len()) else { return Ok(Vec::new()) };
    check(table, items)?;
    let units: Vec<Vec<f64>> = table.iter().map(|row| unit(row.as_ref())).collect();
    let observed: Vec<f64> = units.iter().map(|unit| unit.iter().sum::<f64>().abs()).collect();
    let mut patterns = Patterns::new(items, draws, seed);
    let total = patterns.left;
    let mut hits = vec![0_usize; units.len()];
    let mut maxima = Vec::with_capacity(total);
    let mut signs = Vec::new();
    while let Some(block) = patterns.next_block(&mut signs) {
        maxima.extend(count(&units, &observed, &signs, block, &mut hits));
    }
    maxima.sort_unstable_by(f64::total_cmp);
    // The pattern that was seen is among all patterns, but not among random ones.
    let seen = usize::from(items > EXACT);
    let share = |hits: usize| (hits + seen) as f64 / (total + seen) as f64;
    let family = hits.iter().zip(&observed).map(|(hits, observed)| {
        let above = total - maxima.partition_point(|max| *max < observed - TIE);
        FlipTest { p: share(*hits), p_max: share(above) }
    });
    Ok(family.collect())
}

fn check<R: AsRef<[f64]>>(table: &[R], items: usize) -> Result<(), StatsError> {
    if items == 0 {
        return Err(StatsError::NoItems);
    }
    for (test, row) in table.iter().enumerate() {
        let row = row.as_ref();
        if row.len() != items {
            return Err(StatsError::Ragged { test, expected: items, found: row.len() });
        }
        if let Some(item) = row.iter().position(|x| !x.is_finite()) {
            return Err(StatsError::NotFinite { test, item, value: row[item] });
        }
    }
    Ok(())
}

/// The row over n times its root mean square, so that its sum is the statistic with its sign.
fn unit(row: &[f64]) -> Vec<f64> {
    let largest = row.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
    if largest == 0.0 {
        return vec![0.0; row.len()];
    }
    // Scaled first: the squares of very large or small effects would overflow or vanish.
    let scaled: Vec<f64> = row.iter().map(|x| x / largest).collect();
    let norm = (scaled.iter().map(|x| x * x).sum::<f64>() * row.len() as f64).sqrt();
    scaled.into_iter().map(|x| x / norm).collect()
}

/// Patterns of signs, one bit an item (1 for +), each in as many bytes as it needs.
struct Patterns {
    stride: usize,
    /// Patterns that are still to come.
    left: usize,
    next: usize,
    random: Option<ChaCha8Rng>,
}

impl Patterns {
    fn new(items: usize, draws: usize, seed: u64) -> Self {
        let exact = items <= EXACT;
        // A pattern and its opposite have the same |mean|: the last item's sign stays as it is.
        let left = if exact { 1 << (items - 1) } else { draws.max(MIN_DRAWS) };
        Patterns { stride: items.div_ceil(8), left, next: 0, random: (!exact).then(|| rng(seed, "sign flips")) }
    }

    /// Fills `signs` with the next patterns and says how many.
    fn next_block(&mut self, signs: &mut Vec<u8>) -> Option<usize> {
        let block = self.left.min((BLOCK / self.stride).clamp(64, 8192));
        signs.resize(block * self.stride, 0);
        match &mut self.random {
            Some(rng) => rng.fill_bytes(signs),
            None => {
                for (i, pattern) in signs.chunks_exact_mut(self.stride).enumerate() {
                    pattern.copy_from_slice(&(self.next + i).to_le_bytes()[..self.stride]);
                }
            }
        }
        self.left -= block;
        self.next += block;
        (block > 0).then_some(block)
    }
}

/// Adds each test's hits in a block of patterns to `hits`; returns each pattern's largest statistic.
fn count(units: &[Vec<f64>], observed: &[f64], signs: &[u8], block: usize, hits: &mut [usize]) -> Vec<f64> {
    let stride = signs.len() / block;
    let larger = |mut a: Vec<f64>, b: Vec<f64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a = a.max(b));
        a
    };
    let tests = units.par_iter().zip(observed).zip(hits);
    let maxima = tests.fold(
        || vec![0.0; block],
        |mut maxima, ((unit, observed), hits)| {
            let tables: Vec<[f64; 256]> = unit.chunks(8).map(partial_sums).collect();
            for (pattern, max) in signs.chunks_exact(stride).zip(&mut maxima) {
                let sum: f64 = pattern.iter().zip(&tables).map(|(byte, table)| table[usize::from(*byte)]).sum();
                let statistic = sum.abs();
                *hits += usize::from(statistic >= observed - TIE);
                *max = f64::max(*max, statistic);
            }
            maxima
        },
    );
    // A maximum does not depend on the order in which it is taken, so threads do not matter.
    maxima.reduce(|| vec![0.0; block], larger)
}

/// The sums of up to eight numbers under every pattern of signs.
fn partial_sums(numbers: &[f64]) -> [f64; 256] {
    let mut sums = [-numbers.iter().sum::<f64>(); 256];
    for (bit, x) in numbers.iter().enumerate() {
        let half = 1 << bit;
        for low in 0..half {
            sums[half + low] = sums[low] + 2.0 * x;
        }
    }
    // Bits without a number change nothing.
    let used = 1 << numbers.len();
    for i in used..256 {
        sums[i] = sums[i % used];
    }
    sums
}
