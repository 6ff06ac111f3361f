//! Linear classifiers as combinations of their examples.
//!
//! A direction of least norm lies in the span of the examples, `w = sum_i alpha_i x_i`, so that a problem over
//! thousands of numbers is one over as many coefficients as there are examples, and sees only their inner products. The
//! products are computed once; every fold of a cross-validation takes its own out of them.

use super::dense::{Cholesky, Symmetric, dot};
use super::{Examples, LinearError, Method, logistic, svm};

/// The examples, less the point midway between the means of their sides, and their inner products.
pub struct Gram<'a> {
    pub examples: &'a Examples,
    products: Symmetric,
    /// [examples][dim]
    centered: Vec<f64>,
    center: Vec<f64>,
}

impl<'a> Gram<'a> {
    pub fn new(examples: &'a Examples) -> Self {
        let [positive, negative] = examples.sides().map(|side| examples.mean(side));
        let center: Vec<f64> = positive.iter().zip(negative).map(|(p, n)| 0.5 * (p + n)).collect();
        let rows = (0..examples.len()).flat_map(|i| examples.row(i).iter().zip(&center));
        let centered: Vec<f64> = rows.map(|(x, c)| f64::from(*x) - c).collect();
        Gram { examples, products: Symmetric::gram(&centered, examples.dim()), centered, center }
    }

    pub fn center(&self) -> &[f64] {
        &self.center
    }

    /// The sum of the centred examples times coefficients. \[dim\]
    pub fn combine(&self, alpha: &[f64]) -> Vec<f64> {
        let mut sum = vec![0.0; self.center.len()];
        for (alpha, row) in alpha.iter().zip(self.centered.chunks_exact(sum.len())) {
            super::dense::add_scaled(&mut sum, *alpha, row);
        }
        sum
    }

    /// +1 or -1.
    pub fn label(&self, example: usize) -> f64 {
        if self.examples.is_positive(example) { 1.0 } else { -1.0 }
    }
}

/// A classifier in terms of a [`Gram`]'s centred examples: coefficients of some of them, and the bias.
pub struct Dual {
    pub rows: Vec<usize>,
    pub alpha: Vec<f64>,
    pub bias: f64,
}

impl Dual {
    /// The decision value of an example.
    pub fn decision(&self, gram: &Gram, example: usize) -> f64 {
        let products = gram.products.row(example);
        self.rows.iter().zip(&self.alpha).map(|(i, alpha)| alpha * products[*i]).sum::<f64>() + self.bias
    }
}

/// Coefficients and bias in a [`Problem`]'s own center and scale.
#[derive(Clone, Debug)]
pub struct Solution {
    pub alpha: Vec<f64>,
    pub bias: f64,
}

/// Learning from some examples: their products, centred midway between their own sides and scaled to a mean diagonal
/// of 1, so that a strength means the same whatever the activations' size.
pub struct Problem {
    pub products: Symmetric,
    /// +1 or -1.
    pub labels: Vec<f64>,
    rows: Vec<usize>,
    /// What each example weighs in the center.
    weights: Vec<f64>,
    /// The [`Gram`]'s product of each example with the center.
    with_center: Vec<f64>,
    scale: f64,
}

impl Problem {
    /// `rows` must have examples of both sides.
    pub fn new(gram: &Gram, rows: &[usize]) -> Self {
        let labels: Vec<f64> = rows.iter().map(|i| gram.label(*i)).collect();
        let positives = labels.iter().filter(|y| **y > 0.0).count();
        let weight = |y: &f64| 0.5 / if *y > 0.0 { positives } else { labels.len() - positives } as f64;
        let weights: Vec<f64> = labels.iter().map(weight).collect();
        let product = |i: usize, j: usize| gram.products.row(rows[i])[rows[j]];
        let row_with_center = |i: usize| weights.iter().enumerate().map(|(j, w)| w * product(i, j)).sum::<f64>();
        let with_center: Vec<f64> = (0..rows.len()).map(row_with_center).collect();
        let of_center = dot(&with_center, &weights);
        let centered = |i: usize, j: usize| product(i, j) - with_center[i] - with_center[j] + of_center;
        let spread = (0..rows.len()).map(|i| centered(i, i)).sum::<f64>() / rows.len() as f64;
        // Examples that are all equal have no scale, and need none.
        let scale = if spread > 0.0 { spread } else { 1.0 };
        let products = Symmetric::from_fn(rows.len(), |i, j| centered(i.max(j), i.min(j)) / scale);
        Problem { products, labels, rows: rows.to_vec(), weights, with_center, scale }
    }

    /// Solves by a method; `start` may be the solution at a nearby strength, which spares logistic regression some
    /// steps.
    pub fn solve(&self, method: Method, strength: f64, start: Option<&Solution>) -> Result<Solution, LinearError> {
        match method {
            Method::Logistic => logistic::solve(self, strength, start),
            Method::Svm => svm::solve(self, strength),
            Method::Ridge => self.ridge(strength),
            Method::MeanDifference => Ok(self.mean_difference()),
        }
    }

    /// Least squares to the labels with a bias that is not penalised: `(K + n strength I) alpha + bias = y` and
    /// `sum alpha = 0`.
    fn ridge(&self, strength: f64) -> Result<Solution, LinearError> {
        let penalty = strength * self.labels.len() as f64;
        let matrix =
            Symmetric::from_fn(self.labels.len(), |i, j| self.products.row(i)[j] + if i == j { penalty } else { 0.0 });
        let not_converged = LinearError::NotConverged { method: Method::Ridge, strength };
        let factors = Cholesky::new(matrix).ok_or(not_converged)?;
        let (of_labels, of_ones) = (factors.solve(&self.labels), factors.solve(&vec![1.0; self.labels.len()]));
        let bias = of_labels.iter().sum::<f64>() / of_ones.iter().sum::<f64>();
        let alpha = of_labels.iter().zip(&of_ones).map(|(y, one)| y - bias * one).collect();
        Ok(Solution { alpha, bias })
    }

    fn mean_difference(&self) -> Solution {
        // The center is midway, so the boundary goes through it. Undoes the scale, to be the difference itself.
        let alpha = self.weights.iter().zip(&self.labels).map(|(w, y)| 2.0 * w * y * self.scale).collect();
        Solution { alpha, bias: 0.0 }
    }

    /// The length of a direction that solves the problem, without unit.
    pub fn relative_length(&self, method: Method, direction: &[f64]) -> f64 {
        let length = dot(direction, direction).sqrt();
        // A difference of examples has their unit; a classifier's vector makes of them a number without one.
        if method == Method::MeanDifference { length / self.scale.sqrt() } else { length * self.scale.sqrt() }
    }

    /// The solution in terms of the [`Gram`]'s center and scale.
    pub fn in_gram(&self, solution: Solution) -> Dual {
        let total = solution.alpha.iter().sum::<f64>();
        let moved = solution.alpha.iter().zip(&self.weights).map(|(alpha, w)| (alpha - total * w) / self.scale);
        let alpha: Vec<f64> = moved.collect();
        let bias = solution.bias - dot(&alpha, &self.with_center);
        Dual { rows: self.rows.clone(), alpha, bias }
    }
}
