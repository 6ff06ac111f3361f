//! The linear support vector machine by dual coordinate descent.
//!
//! Hsieh et al. 2008, "A Dual Coordinate Descent Method for Large-scale Linear SVM": as there, the bias is one more
//! number of every example (here 1, where the examples' mean squared norm is 1) and penalised with the others, which
//! leaves bounds as the only constraints. With all inner products at hand every derivative is known at every step, so
//! the coordinate with the most to gain is taken in place of a random one. Descent finds soon which coefficients are at
//! a bound, but creeps along the others where sets overlap; those are solved for together, as in an active-set method.

use super::dense::{Cholesky, Symmetric, add_scaled};
use super::dual::{Problem, Solution};
use super::{LinearError, Method};

/// How far a margin may be on the wrong side of 1 for its coefficient.
const TOLERANCE: f64 = 1e-6;

/// Rounds of descent and solving.
const ROUNDS: usize = 1000;

/// Steps of descent in a round, for each example.
const STEPS: usize = 5;

/// What is added to the diagonal of the coefficients that are solved for: examples may depend on each other.
const RIDGE: f64 = 1e-10;

/// Minimises `mean max(0, 1 - y f) + strength / 2 (|w|^2 + bias^2)` with `f = K alpha + bias`.
///
/// From nothing: a solution at another strength has its coefficients at another bound, which is no good start.
pub fn solve(problem: &Problem, strength: f64) -> Result<Solution, LinearError> {
    let n = problem.labels.len();
    let bound = 1.0 / (strength * n as f64);
    let mut at = Iterate { problem, bound, beta: vec![0.0; n], decisions: vec![0.0; n] };
    for _ in 0..ROUNDS {
        for _ in 0..STEPS * n {
            let Some((i, step)) = at.best_step() else { return Ok(at.solution()) };
            at.take(&[i], &[step]);
        }
        // Each solution either has the free coefficients right or takes one of them to a bound.
        while at.solve_free() < 1.0 {}
        at.refresh();
    }
    Err(LinearError::NotConverged { method: Method::Svm, strength })
}

/// A feasible point: each example's coefficient (times its label, so not negative) and decision value.
struct Iterate<'a> {
    problem: &'a Problem,
    bound: f64,
    beta: Vec<f64>,
    decisions: Vec<f64>,
}

impl<'a> Iterate<'a> {
    fn solution(&self) -> Solution {
        let alpha: Vec<f64> = self.beta.iter().zip(&self.problem.labels).map(|(b, y)| b * y).collect();
        let bias = alpha.iter().sum();
        Solution { alpha, bias }
    }

    /// Decision values from the coefficients, without the rounding of many steps.
    fn refresh(&mut self) {
        let Solution { alpha, bias } = self.solution();
        self.decisions = self.problem.products.times(&alpha).iter().map(|f| f + bias).collect();
    }

    /// What a margin lacks to 1: the dual objective's derivative.
    fn missing(&self, i: usize) -> f64 {
        1.0 - self.problem.labels[i] * self.decisions[i]
    }

    /// The coordinate whose step gains most, and the step; none where all margins are as they should be.
    fn best_step(&self) -> Option<(usize, f64)> {
        let mut best = None;
        let mut most = 0.0;
        for (i, beta) in self.beta.iter().enumerate() {
            let missing = self.missing(i);
            let at_bound = (missing < 0.0 && *beta == 0.0) || (missing > 0.0 && *beta == self.bound);
            if at_bound || missing.abs() <= TOLERANCE {
                continue;
            }
            let curvature = self.problem.products.row(i)[i] + 1.0;
            let step = (missing / curvature).clamp(-beta, self.bound - beta);
            let gain = step * (missing - 0.5 * step * curvature);
            if gain > most {
                (most, best) = (gain, Some((i, step)));
            }
        }
        best
    }

    /// Moves some coefficients, none of them beyond a bound.
    fn take(&mut self, coordinates: &[usize], steps: &[f64]) {
        for (i, step) in coordinates.iter().zip(steps) {
            let moved = (self.beta[*i] + step).clamp(0.0, self.bound);
            let change = (moved - self.beta[*i]) * self.problem.labels[*i];
            self.beta[*i] = moved;
            add_scaled(&mut self.decisions, change, self.problem.products.row(*i));
            self.decisions.iter_mut().for_each(|f| *f += change);
        }
    }

    /// Goes towards the optimum of the coefficients that are at no bound, as far as the bounds allow; returns the share
    /// of the way, 1 where there is none.
    fn solve_free(&mut self) -> f64 {
        let free: Vec<usize> =
            (0..self.beta.len()).filter(|i| self.beta[*i] > 0.0 && self.beta[*i] < self.bound).collect();
        let labels = &self.problem.labels;
        let matrix = Symmetric::from_fn(free.len(), |a, b| {
            let (i, j) = (free[a], free[b]);
            let ridge = if a == b { RIDGE } else { 0.0 };
            labels[i] * labels[j] * (self.problem.products.row(i)[j] + 1.0) + ridge
        });
        let missing: Vec<f64> = free.iter().map(|i| self.missing(*i)).collect();
        let Some(steps) = Cholesky::new(matrix).map(|factors| factors.solve(&missing)) else { return 1.0 };
        let room = |(i, step): (&usize, &f64)| {
            let room = if *step > 0.0 { self.bound - self.beta[*i] } else { -self.beta[*i] };
            if *step == 0.0 { f64::INFINITY } else { room / step }
        };
        let (first, share) = free
            .iter()
            .zip(&steps)
            .map(room)
            .enumerate()
            .fold((None, 1.0), |least, (at, share)| if share < least.1 { (Some(at), share) } else { least });
        let mut taken: Vec<f64> = steps.iter().map(|step| share * step).collect();
        if let Some(first) = first {
            // To the bound exactly, whatever the rounding: it must not stay free.
            taken[first] = steps[first].signum() * 2.0 * self.bound;
        }
        self.take(&free, &taken);
        share
    }
}
