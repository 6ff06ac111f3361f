//! Circuits of growing size, and what a curve of them comes to.

use crate::stats::mean;

/// The shares of all edges that circuits have (Mueller et al. 2025).
pub(super) const FRACTIONS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// How edges are ranked by their scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Those that help most come first: for the circuit performance ratio.
    Score,
    /// Those of the largest scores come first, whichever their sign: for the distance from the model.
    Size,
}

impl Order {
    pub(super) const ALL: [Order; 2] = [Order::Score, Order::Size];

    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Score => "score",
            Order::Size => "size",
        }
    }

    /// The numbers of the edges in this order; of equal ones, in theirs.
    pub(super) fn of(self, scores: &[f64]) -> Vec<usize> {
        let by = |edge: &usize| if self == Order::Size { scores[*edge].abs() } else { scores[*edge] };
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| by(b).total_cmp(&by(a)));
        order
    }
}

/// How many edges a fraction of all is.
pub(super) fn size(fraction: f64, all: usize) -> usize {
    // Against 0.1 * 30 = 2.9999….
    (fraction * all as f64 + 1e-9) as usize
}

/// The share of the gap between base and donor that is kept, means over pairs; none where there is no gap.
pub(super) fn faithfulness(metric: &[f64], base: &[f64], donor: &[f64]) -> Option<f64> {
    let (metric, base, donor) = (mean(metric)?, mean(base)?, mean(donor)?);
    let share = (metric - donor) / (base - donor);
    share.is_finite().then_some(share)
}

/// The area under values at ascending places, by trapezoids.
fn area(places: impl Iterator<Item = f64>, values: impl Iterator<Item = f64>) -> f64 {
    let points: Vec<(f64, f64)> = places.zip(values).collect();
    points.windows(2).map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0).sum()
}

/// The circuit performance ratio: the area under faithfulness over [`FRACTIONS`].
pub(super) fn performance_ratio(f: &[f64]) -> f64 {
    area(FRACTIONS.into_iter(), f.iter().copied())
}

/// The circuit-model distance: the area under how far faithfulness is from 1.
pub(super) fn model_distance(f: &[f64]) -> f64 {
    area(FRACTIONS.into_iter(), f.iter().map(|f| (1.0 - f).abs()))
}

/// The area under faithfulness over the logarithm of the fraction, as a share of the logarithms' range.
pub(super) fn log_performance_ratio(f: &[f64]) -> f64 {
    area(FRACTIONS.into_iter().map(f64::ln), f.iter().copied()) / (FRACTIONS[9] / FRACTIONS[0]).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_those_of_a_curve_worked_out_by_hand() {
        let f = [0.023235, 0.239347, 0.498787, 0.802995, 0.881251, 0.920282, 0.935666, 0.967239, 0.978128, 1.0];
        assert!((performance_ratio(&f) - 0.96782).abs() < 1e-5);
        assert!((model_distance(&f) - 0.03118).abs() < 1e-5);
        assert!((log_performance_ratio(&f) - 0.74828).abs() < 1e-5);
    }

    #[test]
    fn edges_are_ranked_by_what_helps_or_by_size() {
        let scores = [0.5, -2.0, 1.0, 0.5];
        assert_eq!(Order::Score.of(&scores), [2, 0, 3, 1]);
        assert_eq!(Order::Size.of(&scores), [1, 2, 0, 3]);
        assert_eq!((size(0.1, 30), size(0.001, 479), size(1.0, 479)), (3, 0, 479));
        assert_eq!(faithfulness(&[1.0, 3.0], &[4.0, 4.0], &[0.0, 0.0]), Some(0.5));
        assert_eq!(faithfulness(&[1.0], &[1.0], &[1.0]), None);
    }
}
