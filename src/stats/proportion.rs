//! Shares of successes, and how well a number tells two classes apart.

use super::{Interval, all_finite};

/// The 95 % Wilson interval of a share; none of nothing.
///
/// Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
pub fn wilson(successes: usize, n: usize) -> Option<Interval> {
    if n == 0 || successes > n {
        return None;
    }
    let z = 1.959_963_984_540_054;
    let (n, share) = (n as f64, successes as f64 / n as f64);
    let scale = 1.0 + z * z / n;
    let center = (share + z * z / (2.0 * n)) / scale;
    let half = z / scale * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    Some(Interval { low: (center - half).max(0.0), high: (center + half).min(1.0) })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_intervals_are_those_of_the_textbook() {
        // 81 of 263: Brown, Cai and DasGupta 2001, "Interval Estimation for a Binomial Proportion".
        let interval = wilson(81, 263).unwrap();
        assert!((interval.low - 0.2553).abs() < 1e-3 && (interval.high - 0.3662).abs() < 1e-3, "{interval:?}");
        assert_eq!(wilson(0, 10).unwrap().low, 0.0);
        assert_eq!(wilson(10, 10).unwrap().high, 1.0);
        assert!(wilson(0, 0).is_none() && wilson(2, 1).is_none());
    }

    #[test]
    fn the_area_counts_pairs_that_are_in_order() {
        assert_eq!(auc(&[2.0, 3.0], &[0.0, 1.0]), Some(1.0));
        assert_eq!(auc(&[0.0, 1.0], &[0.0, 1.0]), Some(0.5));
        assert_eq!(auc(&[1.0], &[0.0, 1.0, 2.0]), Some(0.5));
        assert_eq!((auc(&[], &[1.0]), auc(&[f64::NAN], &[1.0])), (None, None));
    }
}
