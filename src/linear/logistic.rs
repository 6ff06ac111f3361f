//! Penalised logistic regression in the dual, by Newton's method.
//!
//! Each step is a weighted least-squares problem (iteratively reweighted least squares); its matrix is written as
//! `I + W^1/2 K W^1/2 / penalty`, whose eigenvalues are at least 1, so that it has Cholesky factors whatever the
//! examples (Rasmussen and Williams 2006, section 3.4).

use super::dense::{Cholesky, Symmetric, add_scaled};
use super::dual::{Problem, Solution};
use super::{LinearError, Method};

/// Newton steps; a fit takes about ten.
const STEPS: usize = 200;

/// How near 0 each derivative is at the end, where a residual is at most 1.
const TOLERANCE: f64 = 1e-10;

/// What rounding may leave of a derivative where no step lowers the objective any more.
const ROUNDING: f64 = 1e-6;

/// Minimises `sum log(1 + exp(-y f)) + n strength / 2 |w|^2` with `f = K alpha + bias`.
pub fn solve(problem: &Problem, strength: f64, start: Option<&Solution>) -> Result<Solution, LinearError> {
    let n = problem.labels.len();
    let penalty = strength * n as f64;
    let mut at = start.cloned().unwrap_or(Solution { alpha: vec![0.0; n], bias: 0.0 });
    let mut products = problem.products.times(&at.alpha);
    let mut value = objective(problem, &at, &products, penalty);
    let failed = || LinearError::NotConverged { method: Method::Logistic, strength };
    for _ in 0..STEPS {
        let local = Local::new(problem, &at, &products);
        if local.largest_derivative(&at, penalty) <= TOLERANCE {
            return Ok(at);
        }
        let target = local.newton(problem, penalty).ok_or_else(failed)?;
        let target_products = problem.products.times(&target.alpha);
        let better = (0..40).map(|halvings| 0.5_f64.powi(halvings)).find_map(|size| {
            let next = Solution {
                alpha: between(&at.alpha, &target.alpha, size),
                bias: at.bias + size * (target.bias - at.bias),
            };
            let products = between(&products, &target_products, size);
            let next_value = objective(problem, &next, &products, penalty);
            (next_value < value).then_some((next, products, next_value))
        });
        if let Some(next) = better {
            (at, products, value) = next;
            continue;
        }
        // The objective is as low as rounding lets it be; among equal examples it is flat in their coefficients.
        let derivative = Local::new(problem, &target, &target_products).largest_derivative(&target, penalty);
        return if derivative <= ROUNDING { Ok(target) } else { Err(failed()) };
    }
    Err(failed())
}

fn between(from: &[f64], to: &[f64], share: f64) -> Vec<f64> {
    from.iter().zip(to).map(|(from, to)| from + share * (to - from)).collect()
}

fn objective(problem: &Problem, at: &Solution, products: &[f64], penalty: f64) -> f64 {
    let losses = products.iter().zip(&problem.labels).map(|(f, y)| loss(y * (f + at.bias)));
    let squared_norm: f64 = products.iter().zip(&at.alpha).map(|(f, alpha)| f * alpha).sum();
    losses.sum::<f64>() + 0.5 * penalty * squared_norm
}

/// The log loss of a margin, `log(1 + exp(-margin))`.
pub fn loss(margin: f64) -> f64 {
    (-margin).max(0.0) + (-margin.abs()).exp().ln_1p()
}

/// The loss around a point: decision values, residuals (label less probability) and weights of the examples.
struct Local {
    decisions: Vec<f64>,
    residuals: Vec<f64>,
    root_weights: Vec<f64>,
}

impl Local {
    fn new(problem: &Problem, at: &Solution, products: &[f64]) -> Self {
        let decisions: Vec<f64> = products.iter().map(|f| f + at.bias).collect();
        let of = |(f, y): (&f64, &f64)| {
            // e is exp(-|f|), so nothing cancels where a probability is near 0 or 1.
            let e = (-f.abs()).exp();
            let wrong = if y * f > 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) };
            (y * wrong, (e.sqrt() / (1.0 + e)).max(1e-150))
        };
        let (residuals, root_weights) = decisions.iter().zip(&problem.labels).map(of).unzip();
        Local { decisions, residuals, root_weights }
    }

    /// At the minimum the coefficients are the residuals over the penalty, and the residuals sum to 0.
    fn largest_derivative(&self, at: &Solution, penalty: f64) -> f64 {
        let of_alpha = at.alpha.iter().zip(&self.residuals).map(|(alpha, r)| (penalty * alpha - r).abs());
        of_alpha.fold((self.residuals.iter().sum::<f64>() / self.residuals.len() as f64).abs(), f64::max)
    }

    /// The minimum of the second-order approximation.
    fn newton(&self, problem: &Problem, penalty: f64) -> Option<Solution> {
        let root = &self.root_weights;
        let matrix = Symmetric::from_fn(root.len(), |i, j| {
            // One order of factors for both triangles: the matrix is symmetric to the bit.
            let scaled = root[i] * root[j] * problem.products.row(i)[j] / penalty;
            if i == j { 1.0 + scaled } else { scaled }
        });
        let factors = Cholesky::new(matrix)?;
        let weighted = |x: Vec<f64>| -> Vec<f64> { factors.solve(&x).iter().zip(root).map(|(x, w)| x * w).collect() };
        let working = root.iter().zip(&self.decisions).zip(&self.residuals).map(|((w, f), r)| w * f + r / w);
        let mut alpha = weighted(working.collect());
        let of_ones = weighted(root.clone());
        let bias = alpha.iter().sum::<f64>() / of_ones.iter().sum::<f64>();
        add_scaled(&mut alpha, -bias, &of_ones);
        alpha.iter_mut().for_each(|alpha| *alpha /= penalty);
        Some(Solution { alpha, bias })
    }
}
