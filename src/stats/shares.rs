//! Shares of items: how sure one is, and whether two of the same items differ.

use super::{Interval, all_finite};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Hypergeometric, Normal};

/// The 95 % interval of a share of `n` items (Wilson 1927): it stays within 0 and 1, and has a width where all items or none
/// count. `None` without items, or for more successes than items.
///
/// ```
/// let interval = gatelens::stats::wilson(10, 10).ok_or("no interval")?;
/// assert!(interval.low > 0.69 && interval.low < 0.73 && interval.high == 1.0);
/// # Ok::<(), &str>(())
/// ```
pub fn wilson(successes: usize, n: usize) -> Option<Interval> {
    if n == 0 || successes > n { None } else { wilson_of(successes as f64 / n as f64, n as f64) }
}

/// The same of a share of what counts for so many independent items, be that number whole or not. `None` outside of 0 to 1, or
/// for no items.
pub fn wilson_of(share: f64, n: f64) -> Option<Interval> {
    if !(n > 0.0 && n.is_finite() && (0.0..=1.0).contains(&share)) {
        return None;
    }
    let z = Normal::standard().inverse_cdf(0.975);
    let scale = 1.0 + z * z / n;
    let center = (share + z * z / (2.0 * n)) / scale;
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt() / scale;
    let (low, high) = ((center - half).max(0.0), (center + half).min(1.0));
    // Rounding must not leave out what was seen.
    Some(Interval { low: low.min(share), high: high.max(share) })
}

/// How many of `n` items a share is of, with `n`: what the intervals of shares take.
pub fn counted(share: f64, n: i64) -> (usize, usize) {
    ((share * n as f64).round() as usize, n as usize)
}

/// The 95 % interval of the share `b` minus the share `a`, each as (successes, items), of different items (Newcombe 1998, method
/// 10: a hybrid of Wilson's intervals). `None` as [`wilson`].
pub fn share_difference(a: (usize, usize), b: (usize, usize)) -> Option<Interval> {
    let (of_a, of_b) = (wilson(a.0, a.1)?, wilson(b.0, b.1)?);
    let (share_a, share_b) = (a.0 as f64 / a.1 as f64, b.0 as f64 / b.1 as f64);
    let difference = share_b - share_a;
    let low = difference - (share_b - of_b.low).hypot(of_a.high - share_a);
    let high = difference + (of_b.high - share_b).hypot(share_a - of_a.low);
    Some(Interval { low, high })
}

/// Yes or no twice about the same items, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairedCounts {
    /// Items that say yes both times.
    pub both: usize,
    /// Items that say yes the first time alone.
    pub only_first: usize,
    /// Items that say yes the second time alone.
    pub only_second: usize,
    /// Items that say yes neither time.
    pub neither: usize,
}

impl PairedCounts {
    /// Counts items, each with its first and its second answer.
    pub fn of(answers: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut counts = PairedCounts::default();
        for answer in answers {
            *match answer {
                (true, true) => &mut counts.both,
                (true, false) => &mut counts.only_first,
                (false, true) => &mut counts.only_second,
                (false, false) => &mut counts.neither,
            } += 1;
        }
        counts
    }

    /// How many items there are.
    pub fn n(&self) -> usize {
        self.both + self.only_first + self.only_second + self.neither
    }

    /// The share that says yes the second time less the share that does the first. `None` without items.
    pub fn difference(&self) -> Option<f64> {
        (self.n() > 0).then(|| (self.only_second as f64 - self.only_first as f64) / self.n() as f64)
    }

    /// The 95 % interval of [`PairedCounts::difference`] (Newcombe 1998, "Improved confidence intervals for the difference
    /// between binomial proportions based on paired data", method 10: Wilson's intervals of both shares, joined by their
    /// correlation). `None` without items.
    pub fn interval(&self) -> Option<Interval> {
        let n = self.n();
        let (first, second) = (self.both + self.only_first, self.both + self.only_second);
        let (of_first, of_second) = (wilson(first, n)?, wilson(second, n)?);
        let (p, q) = (first as f64 / n as f64, second as f64 / n as f64);
        let end =
            |own: f64, other: f64| (own * own - 2.0 * self.correlation() * own * other + other * other).max(0.0).sqrt();
        let difference = q - p;
        Some(Interval {
            low: difference - end(q - of_second.low, of_first.high - p),
            high: difference + end(of_second.high - q, p - of_first.low),
        })
    }

    /// The correlation of both answers over items, corrected towards 0 for continuity as Newcombe has it.
    fn correlation(&self) -> f64 {
        let [a, b, c, d] = [self.both, self.only_first, self.only_second, self.neither].map(|x| x as f64);
        let square = (a + b) * (c + d) * (a + c) * (b + d);
        let determinant = a * d - b * c;
        let corrected = if determinant > 0.0 { (determinant - self.n() as f64 / 2.0).max(0.0) } else { determinant };
        if square > 0.0 { corrected / square.sqrt() } else { 0.0 }
    }
}

/// The chance that two random sets, of `a` and of `b` of `n` things, share `shared` or more (hypergeometric). `None` for sets
/// larger than `n`.
pub fn overlap_p(n: usize, a: usize, b: usize, shared: usize) -> Option<f64> {
    let by_chance = Hypergeometric::new(n as u64, a as u64, b as u64).ok()?;
    Some(if shared == 0 { 1.0 } else { by_chance.sf(shared as u64 - 1) })
}

/// The exact two-sided sign test of two answers to yes or no about the same items (McNemar 1947): `only_a` items say yes in
/// the first alone, `only_b` in the second alone. 1 where none differ.
pub fn paired_sign_test(only_a: usize, only_b: usize) -> f64 {
    let n = (only_a + only_b) as u64;
    match Binomial::new(0.5, n) {
        Ok(of) if n > 0 => (2.0 * of.cdf(only_a.min(only_b) as u64)).min(1.0),
        _ => 1.0,
    }
}

/// The area under the ROC curve: how often a number of `positive` is larger than one of `negative`, ties counted half.
/// None where one of them is empty or a number is not finite.
pub fn auc(positive: &[f64], negative: &[f64]) -> Option<f64> {
    if positive.is_empty() || negative.is_empty() || !all_finite(positive) || !all_finite(negative) {
        return None;
    }
    let mut sorted = negative.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let wins = |x: &f64| {
        let (below, upto) = (sorted.partition_point(|y| y < x), sorted.partition_point(|y| y <= x));
        (below + upto) as f64 / 2.0
    };
    Some(positive.iter().map(wins).sum::<f64>() / (positive.len() * negative.len()) as f64)
}

/// The 95 % interval of an area under the ROC curve over so many positive and negative numbers (Newcombe 2006, "Confidence
/// intervals for an effect size measure based on the Mann-Whitney statistic", part 2, method 5: a score interval, of Hanley and
/// McNeil's variance). It stays within 0 and 1, and has a width where all positive numbers are the larger ones. `None` without
/// numbers of either kind, or for an area that is none.
///
/// ```
/// let interval = gatelens::stats::auc_interval(1.0, 8, 30).ok_or("no interval")?;
/// assert!(interval.low > 0.8 && interval.low < 0.9 && interval.high == 1.0);
/// # Ok::<(), &str>(())
/// ```
pub fn auc_interval(area: f64, positive: usize, negative: usize) -> Option<Interval> {
    if positive == 0 || negative == 0 || !(0.0..=1.0).contains(&area) {
        return None;
    }
    let (z, m, n) = (Normal::standard().inverse_cdf(0.975), positive as f64, negative as f64);
    let spread = |at: f64| {
        let shared = ((m + n) / 2.0 - 1.0) * ((1.0 - at) / (2.0 - at) + at / (1.0 + at));
        at * (1.0 - at) * (1.0 + shared) / (m * n)
    };
    let within = |at: f64| (area - at).powi(2) <= z * z * spread(at);
    // From the area, which is within, to an end of the scale, which is not, unless it is the area.
    let end = |outside: f64| {
        let (mut inside, mut outside) = (area, outside);
        for _ in 0..100 {
            let middle = 0.5 * (inside + outside);
            *if within(middle) { &mut inside } else { &mut outside } = middle;
        }
        inside
    };
    Some(Interval { low: end(0.0).min(area), high: end(1.0).max(area) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilsons_interval_is_that_of_the_textbook() {
        // Newcombe 1998, table I: 81 of 263.
        let found = wilson(81, 263).unwrap();
        assert!((found.low - 0.2553).abs() < 5e-5 && (found.high - 0.3662).abs() < 5e-5, "{found:?}");
        assert_eq!((wilson(0, 0), wilson(2, 1)), (None, None));
        assert_eq!(wilson(0, 5).map(|i| i.low), Some(0.0));
        assert_eq!(wilson(5, 5).map(|i| i.high), Some(1.0));
    }

    #[test]
    fn the_interval_of_a_difference_is_newcombes() {
        // Newcombe 1998, table II (a): 56/70 against 48/80, method 10.
        let found = share_difference((48, 80), (56, 70)).unwrap();
        assert!((found.low - 0.0524).abs() < 5e-5 && (found.high - 0.3339).abs() < 5e-5, "{found:?}");
        assert_eq!(share_difference((0, 0), (1, 2)), None);
    }

    #[test]
    fn the_interval_of_a_paired_difference_covers_at_its_level_and_is_narrower_than_the_unpaired_one() {
        use rand::Rng;
        // 30 % say yes the first time; of those 90 % the second time, of the others 20 %: a difference of 11 points.
        let (n, draws) = (80, 2000);
        let mut rng = crate::stats::rng(0, "paired");
        let mut held = 0;
        for _ in 0..draws {
            let item = |_| {
                let first = rng.random_bool(0.3);
                (first, rng.random_bool(if first { 0.9 } else { 0.2 }))
            };
            let counts = PairedCounts::of((0..n).map(item).collect::<Vec<_>>());
            let found = counts.interval().unwrap();
            held += usize::from(found.low <= 0.11 && 0.11 <= found.high);
            let (first, second) = (counts.both + counts.only_first, counts.both + counts.only_second);
            let unpaired = share_difference((first, n), (second, n)).unwrap();
            assert!(found.high - found.low <= unpaired.high - unpaired.low + 1e-12);
        }
        let coverage = held as f64 / f64::from(draws);
        assert!((0.935..=0.975).contains(&coverage), "{coverage}");
        assert_eq!(PairedCounts::default().interval(), None);
    }

    #[test]
    fn without_correlation_the_paired_interval_is_the_unpaired_one() {
        let counts = PairedCounts { both: 12, only_first: 18, only_second: 28, neither: 42 };
        let (paired, unpaired) = (counts.interval().unwrap(), share_difference((30, 100), (40, 100)).unwrap());
        assert!((paired.low - unpaired.low).abs() < 1e-12 && (paired.high - unpaired.high).abs() < 1e-12);
        assert_eq!(counts.difference(), Some(0.1));
    }

    /// By Newcombe's formulas in plain Python.
    #[test]
    fn the_interval_of_a_paired_difference_is_that_of_another_program() {
        let known = [
            ((30, 5, 10, 15), (-0.0448155153026574, 0.20707273024949308)),
            ((3, 12, 14, 2), (-0.24542578721549746, 0.36143014001112395)),
            ((10, 0, 0, 0), (-0.27753279986288926, 0.27753279986288926)),
        ];
        for ((both, only_first, only_second, neither), (low, high)) in known {
            let found = PairedCounts { both, only_first, only_second, neither }.interval().unwrap();
            assert!((found.low - low).abs() < 1e-9 && (found.high - high).abs() < 1e-9, "{found:?} is {low} to {high}");
        }
    }

    #[test]
    fn the_chance_of_an_overlap_is_the_hypergeometric_tail() {
        assert_eq!(overlap_p(10, 2, 2, 0), Some(1.0));
        // Two of two out of four: one choice in six.
        assert!((overlap_p(4, 2, 2, 2).unwrap() - 1.0 / 6.0).abs() < 1e-12);
        // One or more: all but the one choice that shares none.
        assert!((overlap_p(4, 2, 2, 1).unwrap() - 5.0 / 6.0).abs() < 1e-12);
        assert!((overlap_p(3, 3, 3, 3).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(overlap_p(3, 4, 1, 1), None);
    }

    #[test]
    fn the_sign_test_counts_tails_of_a_fair_coin() {
        assert_eq!(paired_sign_test(0, 0), 1.0);
        assert!((paired_sign_test(0, 5) - 2.0 / 32.0).abs() < 1e-12);
        assert!((paired_sign_test(1, 4) - 12.0 / 32.0).abs() < 1e-12);
        assert_eq!(paired_sign_test(3, 3), 1.0);
    }

    #[test]
    fn the_area_counts_pairs_that_are_in_order() {
        assert_eq!(auc(&[2.0, 3.0], &[0.0, 1.0]), Some(1.0));
        assert_eq!(auc(&[0.0, 1.0], &[0.0, 1.0]), Some(0.5));
        assert_eq!(auc(&[1.0], &[0.0, 1.0, 2.0]), Some(0.5));
        assert_eq!((auc(&[], &[1.0]), auc(&[f64::NAN], &[1.0])), (None, None));
    }

    #[test]
    fn the_interval_of_an_area_is_that_of_its_score_equation() {
        // The ends of { t : (area - t)^2 <= z^2 V(t) } on a grid of two million, made in Python.
        for (area, m, n, low, high) in [
            (0.8, 10, 30, 0.595458, 0.9102465),
            (1.0, 8, 30, 0.8424955, 1.0),
            (1.0, 8, 8, 0.755647, 1.0),
            (0.5, 20, 20, 0.331488, 0.668512),
            (0.0, 5, 7, 0.0, 0.31721),
        ] {
            let found = auc_interval(area, m, n).unwrap();
            assert!((found.low - low).abs() < 1e-6 && (found.high - high).abs() < 1e-6, "{area}, {m}, {n}: {found:?}");
        }
        assert_eq!(
            (auc_interval(0.5, 0, 3), auc_interval(0.5, 3, 0), auc_interval(f64::NAN, 3, 3)),
            (None, None, None)
        );
    }

    #[test]
    fn intervals_of_areas_hold_the_true_area_as_often_as_they_say() {
        use rand::Rng;
        let mut rng = super::super::rng(0, "areas");
        let normal = Normal::standard();
        // Two normal distributions one and a half apart: the area is that of a normal at 1.5 over the root of two.
        let truth = normal.cdf(1.5 / 2f64.sqrt());
        for (m, n) in [(8, 30), (12, 12)] {
            let mut draw = |mean: f64| mean + normal.inverse_cdf(rng.random::<f64>());
            let held = (0..2000).filter(|_| {
                let positive: Vec<f64> = (0..m).map(|_| draw(1.5)).collect();
                let negative: Vec<f64> = (0..n).map(|_| draw(0.0)).collect();
                let area = auc(&positive, &negative).unwrap();
                let found = auc_interval(area, m, n).unwrap();
                found.low <= truth && truth <= found.high
            });
            let held = held.count() as f64 / 2000.0;
            assert!((0.93..0.985).contains(&held), "{m} and {n}: {held}");
        }
    }
}
