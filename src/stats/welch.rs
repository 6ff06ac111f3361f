//! Welch's t-test.

use super::{all_finite, mean_of as mean};
use statrs::function::beta::checked_beta_reg;

/// The two-sided p-value of equal means of two samples whose variances may differ (Welch 1947).
///
/// `None` if a sample has fewer than two items or one that is not finite, and where neither sample varies: there is no error to
/// compare with then. That happens by chance, as TCAV scores of a layer are often all 0 or 1, and few items then say little
/// however far apart they are.
pub fn welch(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() < 2 || b.len() < 2 || !all_finite(a) || !all_finite(b) {
        return None;
    }
    let (va, vb) = (squared_error(a), squared_error(b));
    let (na, nb) = ((a.len() - 1) as f64, (b.len() - 1) as f64);
    let variance = va + vb;
    if variance == 0.0 {
        return None;
    }
    let t = (mean(a) - mean(b)) / variance.sqrt();
    // Degrees of freedom by Welch and Satterthwaite.
    let (sa, sb) = (va / variance, vb / variance);
    let df = 1.0 / (sa * sa / na + sb * sb / nb);
    // Student's tails as an incomplete beta function: 1 - cdf would lose every digit of a small p-value.
    checked_beta_reg(df / 2.0, 0.5, df / (df + t * t)).ok()
}

/// The squared standard error of the mean.
fn squared_error(x: &[f64]) -> f64 {
    let m = mean(x);
    x.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / (x.len() - 1) as f64 / x.len() as f64
}
