//! Welch's t-test.

use super::{all_finite, mean_of as mean};
use statrs::function::beta::checked_beta_reg;

/// What Welch's test says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Welch {
    /// The difference of means, first minus second, over its standard error.
    pub t: f64,
    /// Degrees of freedom by Welch and Satterthwaite.
    pub df: f64,
    /// Two-sided p-value.
    pub p: f64,
}

/// Two-sided t-test for equal means of two samples whose variances may differ (Welch 1947).
///
/// Where neither sample varies there is no error to compare with: then `p` is 1 (and `t` 0) for equal means and 0 (and
/// `t` infinite) for others. That happens: TCAV scores of a layer are often all 1. `None` if a sample has fewer than
/// two items or one that is not finite.
pub fn welch(a: &[f64], b: &[f64]) -> Option<Welch> {
    if a.len() < 2 || b.len() < 2 || !all_finite(a) || !all_finite(b) {
        return None;
    }
    let (va, vb) = (squared_error(a), squared_error(b));
    let difference = mean(a) - mean(b);
    let (na, nb) = ((a.len() - 1) as f64, (b.len() - 1) as f64);
    let variance = va + vb;
    if variance == 0.0 {
        let (t, p) = if difference == 0.0 { (0.0, 1.0) } else { (f64::INFINITY.copysign(difference), 0.0) };
        return Some(Welch { t, df: na + nb, p });
    }
    let t = difference / variance.sqrt();
    let (sa, sb) = (va / variance, vb / variance);
    let df = 1.0 / (sa * sa / na + sb * sb / nb);
    // Student's tails as an incomplete beta function: 1 - cdf would lose every digit of a small p-value.
    let p = checked_beta_reg(df / 2.0, 0.5, df / (df + t * t)).ok()?;
    Some(Welch { t, df, p })
}

/// The squared standard error of the mean.
fn squared_error(x: &[f64]) -> f64 {
    let m = mean(x);
    x.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / (x.len() - 1) as f64 / x.len() as f64
}
