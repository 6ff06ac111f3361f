//! Intervals of correlations whose variables are themselves means over items.
//!
//! A correlation of heads' mean effects is blurred by the noise of the means: in a bootstrap, which adds as much noise again,
//! every resample lies below the estimate, and its interval misses the value that more items would give. Leaving out one item at
//! a time adds next to none.

use super::{Interval, all_finite, mean_of as mean};
use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// The 95 % interval of a correlation over items, by the delete-one jackknife on Fisher's scale (Efron and Tibshirani 1993, "An
/// Introduction to the Bootstrap", chapter 11; the quantile is Student's with one degree of freedom less than there are items).
///
/// `None` for fewer than three items, or where the correlation of all, or of all but one, is not strictly between -1 and 1.
pub fn jackknife_correlation<T: Clone + Send + Sync>(
    items: &[T],
    correlation: impl Fn(&[T]) -> Option<f64> + Sync,
) -> Option<Interval> {
    let n = items.len();
    if n < 3 {
        return None;
    }
    let fisher = |items: &[T]| correlation(items).filter(|r| r.abs() < 1.0).map_or(f64::NAN, f64::atanh);
    let whole = fisher(items);
    let without = |out: usize| fisher(&[&items[..out], &items[out + 1..]].concat());
    let parts: Vec<f64> = (0..n).into_par_iter().map(without).collect();
    if !whole.is_finite() || !all_finite(&parts) {
        return None;
    }
    let center = mean(&parts);
    let square: f64 = parts.iter().map(|z| (z - center) * (z - center)).sum();
    let error = ((n - 1) as f64 / n as f64 * square).sqrt();
    let half = StudentsT::new(0.0, 1.0, (n - 1) as f64).ok()?.inverse_cdf(0.975) * error;
    Some(Interval { low: (whole - half).tanh(), high: (whole + half).tanh() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{pearson, rng, spearman};
    use rand::Rng;

    #[test]
    fn the_interval_of_a_plain_correlation_covers_at_its_level() {
        let (n, draws, rho) = (40, 1000, 0.6f64);
        let mut rng = rng(0, "jackknife");
        let normal = |rng: &mut rand_chacha::ChaCha8Rng| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let mut held = 0;
        for _ in 0..draws {
            let item = |_| {
                let (x, e) = (normal(&mut rng), normal(&mut rng));
                (x, rho * x + (1.0 - rho * rho).sqrt() * e)
            };
            let items: Vec<(f64, f64)> = (0..n).map(item).collect();
            let correlation = |items: &[(f64, f64)]| {
                let (a, b): (Vec<f64>, Vec<f64>) = items.iter().copied().unzip();
                pearson(&a, &b)
            };
            let found = jackknife_correlation(&items, correlation).unwrap();
            held += usize::from(found.low <= rho && rho <= found.high);
        }
        let coverage = held as f64 / f64::from(draws);
        assert!((0.92..=0.98).contains(&coverage), "{coverage}");
    }

    /// Sixty heads' effects by two methods that order them alike, over 24 items with noise.
    #[test]
    fn a_rank_correlation_of_noisy_means_lies_within_its_interval() {
        let mut rng = rng(1, "jackknife");
        let items: Vec<Vec<(f64, f64)>> = (0..24)
            .map(|_| {
                let head = |h: i32| {
                    let x = f64::from(h) / 10.0;
                    (x + 4.0 * (rng.random::<f64>() - 0.5), 2.0 * x + 4.0 * (rng.random::<f64>() - 0.5))
                };
                (0..60).map(head).collect()
            })
            .collect();
        let correlation = |items: &[Vec<(f64, f64)>]| {
            let mean = |f: fn(&(f64, f64)) -> f64| -> Vec<f64> {
                (0..60).map(|h| items.iter().map(|i| f(&i[h])).sum::<f64>() / items.len() as f64).collect()
            };
            spearman(&mean(|p| p.0), &mean(|p| p.1))
        };
        let (estimate, found) = (correlation(&items).unwrap(), jackknife_correlation(&items, correlation).unwrap());
        assert!(found.low < estimate && estimate < found.high && found.high < 1.0, "{estimate} {found:?}");
        assert!(found.high - found.low < 0.1, "{found:?}");
    }

    /// The fifteen law schools of Efron and Tibshirani (1993, table 3.1), by the formula in plain Python.
    #[test]
    fn the_interval_of_a_known_correlation_is_that_of_another_program() {
        let lsat = [576., 635., 558., 578., 666., 580., 555., 661., 651., 605., 653., 575., 545., 572., 594.];
        let gpa = [3.39, 3.30, 2.81, 3.03, 3.44, 3.07, 3.00, 3.43, 3.36, 3.13, 3.12, 2.74, 2.76, 2.88, 2.96];
        let items: Vec<(f64, f64)> = lsat.into_iter().zip(gpa).collect();
        let correlation = |items: &[(f64, f64)]| {
            let (a, b): (Vec<f64>, Vec<f64>) = items.iter().copied().unzip();
            pearson(&a, &b)
        };
        assert!((correlation(&items).unwrap() - 0.776374491289407).abs() < 1e-12);
        let found = jackknife_correlation(&items, correlation).unwrap();
        assert!((found.low - 0.09077114306668721).abs() < 1e-9, "{found:?}");
        assert!((found.high - 0.9626848976907507).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn what_has_no_interval_is_none() {
        let r = |items: &[(f64, f64)]| {
            let (a, b): (Vec<f64>, Vec<f64>) = items.iter().copied().unzip();
            pearson(&a, &b)
        };
        assert_eq!(jackknife_correlation(&[(1.0, 2.0), (2.0, 1.0)], r), None);
        assert_eq!(jackknife_correlation(&[(1.0, 2.0), (2.0, 4.0), (3.0, 6.0), (4.0, 8.0)], r), None);
    }
}
