//! The coefficient at which a share of successes crosses one half.

use super::{Interval, all_finite};
use statrs::distribution::{ContinuousCDF, Normal};

/// How often the interval is to hold the true threshold.
const LEVEL: f64 = 0.95;

/// Newton steps; a fit that exists takes about ten.
const STEPS: usize = 100;

/// Where a share crosses one half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub at: f64,
    /// 95 % interval; `None` where the data do not bound it.
    pub interval: Option<Interval>,
    /// Whether the share rises with the coefficient.
    pub rises: bool,
}

/// Trials at one coefficient.
#[derive(Clone, Copy)]
struct Dose {
    x: f64,
    successes: f64,
    n: f64,
}

/// The coefficient at which the share `successes / n` crosses one half, by a logistic fit (maximum likelihood).
///
/// The interval is Fieller's: the coefficients at which a share of one half is not rejected at 5 %. It is not
/// symmetric, and there is none where the slope cannot be told from 0.
///
/// Where one coefficient parts all failures from all successes the fit does not exist, as its slope would be infinite.
/// Then the threshold is the midpoint between the last coefficient of the one kind and the first of the other, and the
/// interval is that gap. Where the two meet at a coefficient that has both, the threshold is that coefficient, which
/// the fit tends to, and the interval reaches to its neighbour on the side where the share crosses one half.
///
/// `None` if the share does not cross one half within the coefficients; if the lists differ in length; if a number is
/// not finite, or successes are not between 0 and n. Coefficients without trials are left out.
pub fn logistic_threshold(x: &[f64], successes: &[f64], n: &[f64]) -> Option<Threshold> {
    let doses = doses(x, successes, n)?;
    // At a single coefficient nothing is crossed, whatever its share.
    if doses.len() < 2 {
        return None;
    }
    let (first, last) = (doses.first()?.x, doses.last()?.x);
    let with = |some: fn(&Dose) -> bool| -> Option<(f64, f64)> {
        let mut doses = doses.iter().filter(|d| some(d)).map(|d| d.x);
        let low = doses.next()?;
        Some((low, doses.next_back().unwrap_or(low)))
    };
    let (first_success, last_success) = with(|d| d.successes > 0.0)?;
    let (first_failure, last_failure) = with(|d| d.successes < d.n)?;
    if last_failure <= first_success {
        return stepped(&doses, last_failure, first_success, true);
    }
    if last_success <= first_failure {
        return stepped(&doses, last_success, first_failure, false);
    }
    fitted(&doses, first, last)
}

/// The doses with trials, by coefficient, those of equal coefficient taken together.
fn doses(x: &[f64], successes: &[f64], n: &[f64]) -> Option<Vec<Dose>> {
    let finite = [x, successes, n].iter().all(|list| list.len() == x.len() && all_finite(list));
    let counts = || successes.iter().zip(n);
    if !finite || counts().any(|(s, n)| *s < 0.0 || s > n) {
        return None;
    }
    let lists = x.iter().zip(counts()).map(|(x, (successes, n))| Dose { x: *x, successes: *successes, n: *n });
    let mut doses: Vec<Dose> = lists.filter(|d| d.n > 0.0).collect();
    doses.sort_by(|a, b| a.x.total_cmp(&b.x));
    doses.dedup_by(|next, kept| {
        let same = next.x == kept.x;
        if same {
            kept.successes += next.successes;
            kept.n += next.n;
        }
        same
    });
    Some(doses)
}

/// The threshold of shares that step once, from the last coefficient before to the first one after.
fn stepped(doses: &[Dose], before: f64, after: f64, rises: bool) -> Option<Threshold> {
    if before < after {
        let at = before + (after - before) / 2.0;
        return Some(Threshold { at, interval: Some(Interval { low: before, high: after }), rises });
    }
    let mixed = doses.iter().position(|d| d.x == before)?;
    let share = doses[mixed].successes / doses[mixed].n;
    let neighbour = |i: Option<usize>| i.and_then(|i| doses.get(i)).map(|d| d.x);
    let (previous, next) = (neighbour(mixed.checked_sub(1)), neighbour(Some(mixed + 1)));
    let still_to_cross = if rises { share < 0.5 } else { share > 0.5 };
    let interval = match (previous, next) {
        _ if share == 0.5 => Interval { low: previous.unwrap_or(before), high: next.unwrap_or(before) },
        (_, Some(next)) if still_to_cross => Interval { low: before, high: next },
        (Some(previous), _) if !still_to_cross => Interval { low: previous, high: before },
        _ => return None,
    };
    Some(Threshold { at: before, interval: Some(interval), rises })
}

/// A logistic fit in coefficients that were moved and scaled to [-1, 1].
struct Fit {
    intercept: f64,
    slope: f64,
    /// Variances of intercept and slope, and their covariance between.
    covariance: [f64; 3],
}

fn fitted(doses: &[Dose], first: f64, last: f64) -> Option<Threshold> {
    let (center, half) = (first + (last - first) / 2.0, (last - first) / 2.0);
    let scaled: Vec<Dose> = doses.iter().map(|d| Dose { x: (d.x - center) / half, ..*d }).collect();
    let fit = newton(&scaled)?;
    let at = -fit.intercept / fit.slope;
    if !(-1.0..=1.0).contains(&at) {
        return None;
    }
    let back = |x: f64| center + half * x;
    let interval = fieller(&fit).map(|i| Interval { low: back(i.low), high: back(i.high) });
    Some(Threshold { at: back(at), interval, rises: fit.slope > 0.0 })
}

/// Maximum likelihood by Newton's method with halved steps; the likelihood is concave and has a maximum here.
fn newton(doses: &[Dose]) -> Option<Fit> {
    let (mut intercept, mut slope) = (0.0, 0.0);
    let mut value = log_likelihood(doses, intercept, slope);
    for _ in 0..STEPS {
        let ([g0, g1], [h00, h01, h11]) = derivatives(doses, intercept, slope);
        let determinant = h00 * h11 - h01 * h01;
        let (d0, d1) = ((h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant);
        // The decrement is the step's squared length in standard errors.
        let decrement = g0 * d0 + g1 * d1;
        if !decrement.is_finite() {
            return None;
        }
        if decrement < 1e-20 {
            let covariance = [h11 / determinant, -h01 / determinant, h00 / determinant];
            return Some(Fit { intercept, slope, covariance });
        }
        let step = |size: f64| (intercept + size * d0, slope + size * d1);
        let sizes = (0..30).map(|halvings| 0.5_f64.powi(halvings));
        let rises = |size: &f64| log_likelihood(doses, step(*size).0, step(*size).1) >= value;
        // Near the maximum the likelihood changes by rounding alone, which would call for ever smaller steps, while whole ones
        // converge.
        let size = if decrement < 1e-9 { 1.0 } else { sizes.into_iter().find(rises)? };
        (intercept, slope) = step(size);
        value = log_likelihood(doses, intercept, slope);
    }
    None
}

fn log_likelihood(doses: &[Dose], intercept: f64, slope: f64) -> f64 {
    let of = |d: &Dose| {
        let f = intercept + slope * d.x;
        d.successes * f - d.n * (f.max(0.0) + (-f.abs()).exp().ln_1p())
    };
    doses.iter().map(of).sum()
}

/// The log-likelihood's gradient, and its negative second derivatives [00, 01, 11].
fn derivatives(doses: &[Dose], intercept: f64, slope: f64) -> ([f64; 2], [f64; 3]) {
    let (mut gradient, mut hessian) = ([0.0; 2], [0.0; 3]);
    for d in doses {
        let p = 1.0 / (1.0 + (-(intercept + slope * d.x)).exp());
        let (residual, weight) = (d.successes - d.n * p, d.n * p * (1.0 - p));
        gradient[0] += residual;
        gradient[1] += residual * d.x;
        hessian[0] += weight;
        hessian[1] += weight * d.x;
        hessian[2] += weight * d.x * d.x;
    }
    (gradient, hessian)
}

/// The coefficients x with |b0 + b1 x| <= z standard errors, if they are an interval (Fieller 1954).
fn fieller(fit: &Fit) -> Option<Interval> {
    let z = Normal::standard().inverse_cdf(0.5 + LEVEL / 2.0);
    let [v00, v01, v11] = fit.covariance.map(|v| v * z * z);
    let (b0, b1) = (fit.intercept, fit.slope);
    let (a, b, c) = (b1 * b1 - v11, b0 * b1 - v01, b0 * b0 - v00);
    let discriminant = b * b - a * c;
    if a <= 0.0 || discriminant < 0.0 {
        return None;
    }
    let root = discriminant.sqrt();
    Some(Interval { low: (-b - root) / a, high: (-b + root) / a })
}
