//! Correlation of two lists of numbers about the same items.

use super::{all_finite, mean_of as mean};

/// Pearson's correlation, in [-1, 1].
///
/// `None` if the lists differ in length, hold fewer than two items or one that is not finite, or if one does not vary.
pub fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() || a.len() < 2 || !all_finite(a) || !all_finite(b) {
        return None;
    }
    let (a, b) = (deviations(a)?, deviations(b)?);
    Some(a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>().clamp(-1.0, 1.0))
}

/// Spearman's rank correlation, in [-1, 1]: Pearson's of the ranks, where equal numbers share their average rank.
///
/// `None` as for [`pearson`].
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    // Ranks of numbers that are not finite would be finite.
    if !all_finite(a) || !all_finite(b) {
        return None;
    }
    pearson(&ranks(a), &ranks(b))
}

/// The deviations from the mean, scaled to norm 1; none where nothing deviates.
fn deviations(x: &[f64]) -> Option<Vec<f64>> {
    let m = mean(x);
    let largest = x.iter().fold(0.0_f64, |max, v| max.max((v - m).abs()));
    if largest == 0.0 || !largest.is_finite() {
        return None;
    }
    let scaled: Vec<f64> = x.iter().map(|v| (v - m) / largest).collect();
    let norm = scaled.iter().map(|v| v * v).sum::<f64>().sqrt();
    Some(scaled.into_iter().map(|v| v / norm).collect())
}

/// Ranks from 1; equal numbers have the average of theirs.
pub fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|a, b| x[*a].total_cmp(&x[*b]));
    let mut ranks = vec![0.0; x.len()];
    let mut from = 0;
    // Numbers are compared by ==, for which 0 and -0 are equal.
    for tied in order.chunk_by(|a, b| x[*a] == x[*b]) {
        let to = from + tied.len();
        tied.iter().for_each(|i| ranks[*i] = (from + 1 + to) as f64 / 2.0);
        from = to;
    }
    ranks
}
