//! Linear directions between two sets of examples, activations say: concept activation vectors, probes, steering
//! vectors.
//!
//! A [`Direction`] is the normal of a linear classifier and points from the negative examples to the positive. There
//! are some hundreds of examples of some thousands of numbers, so everything is solved in the dual, from the matrix of
//! inner products. Time grows with the cube of the examples and memory with their square, however few numbers each has: a
//! layer's logistic direction, with its penalty and its held-out accuracy, takes half a second of one core for 200 examples,
//! half a minute for 1,000 and five minutes for 2,000. Where activations come from, and what a direction is then used for, is
//! left to the analyses.
//!
//! Numbers are not standardised: a direction has to be one of the model's own space, to be added to activations and
//! compared between methods. Examples are centred between the means of the two sets, and the bias takes the centre up,
//! so that a large offset that all examples share changes nothing.
//!
//! ```
//! use gatelens::linear::{Examples, Method, Options, Wanted, cross_validated_accuracy, fit};
//! use gatelens::ops::vectors::cosine;
//!
//! // Two clouds that differ in their second number.
//! let cloud = |at: f32| (0..20).map(|i| vec![(i % 5) as f32, at + (i % 3) as f32, 7.0]).collect::<Vec<_>>();
//! let examples = Examples::new(&cloud(2.5), &cloud(0.0))?;
//! let direction = fit(&examples, &Options::default())?;
//! assert!(cosine(&direction.vector, &[0.0, 1.0, 0.0]).is_some_and(|c| c > 0.99));
//! assert_eq!(cross_validated_accuracy(&examples, &Options::default(), 5)?, 1.0);
//!
//! // How far along the second number does an example become positive with a probability of 0.9?
//! let coefficient = direction.smallest_coefficient(&[2.0, 0.0, 7.0], &[0.0, 1.0, 0.0], Wanted::AtLeast(0.9))?;
//! assert!(coefficient.is_some_and(|c| c > 1.0));
//!
//! let mean_difference = fit(&examples, &Options { method: Method::MeanDifference, ..Options::default() })?;
//! assert!((mean_difference.norm() - 2.5).abs() < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod choose;
mod dense;
mod direction;
mod dual;
mod examples;
mod folds;
mod logistic;
mod principal;
#[cfg(feature = "report")]
pub mod scaling;
#[cfg(feature = "report")]
pub mod similarity;
#[cfg(feature = "report")]
pub mod spectrum;
mod svm;
#[cfg(test)]
mod tests;

pub use choose::{HeldOut, cross_validated_accuracy, held_out};
pub use direction::{Direction, Wanted};
pub use examples::Examples;
pub use principal::principal_direction;

use crate::parameters::param;
use dual::{Gram, Problem};

/// What makes a direction of two sets of examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Logistic regression with an L2 penalty: the mean log loss plus strength / 2 times |w|^2.
    Logistic,
    /// Linear support vector machine: the mean hinge loss plus strength / 2 times (|w|^2 + bias^2).
    Svm,
    /// Ridge regression to +1 and -1: the mean squared error plus strength times |w|^2.
    Ridge,
    /// The mean of the positive minus the mean of the negative examples, with the boundary midway; has no strength.
    MeanDifference,
}

impl Method {
    /// The name in tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Method::Logistic => "logistic",
            Method::Svm => "svm",
            Method::Ridge => "ridge",
            Method::MeanDifference => "mean_difference",
        }
    }
}

/// How strongly the length of a direction is penalised.
///
/// A strength is a number without unit: |w| is measured as if the examples' mean squared distance from their centre
/// were 1, so that one strength means the same at every layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strength {
    Fixed(f64),
    /// The strength from 10 down to 0.00001 that has the least loss on held-out examples; the stronger where two are
    /// equal. There are fewer folds where a set has fewer groups.
    CrossValidated {
        folds: usize,
    },
}

/// How a direction is to be found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    pub method: Method,
    pub strength: Strength,
    /// For the folds of a cross-validation.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { method: Method::Logistic, strength: Strength::CrossValidated { folds: 5 }, seed: 0 }
    }
}

/// The sets of examples, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Positive,
    Negative,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Side::Positive { "positive" } else { "negative" })
    }
}

/// How the analyses are asked for the difference of means.
fn mean() -> String {
    format!("cav: {}, steer: {}", param("method").is("mean"), param("from").is("mean"))
}

/// Why there is no direction.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LinearError {
    #[error("there are no {0} examples; a direction needs at least one on each side")]
    Empty(Side),
    #[error("{what} has {found} numbers, expected {expected}")]
    Length { what: String, expected: usize, found: usize },
    #[error(
        "{what}: number {column} is {value}; activations must be finite (f16 overflows: try another {dtype})",
        dtype = param("dtype")
    )]
    NotFinite { what: String, column: usize, value: f32 },
    #[error("{found} groups for {expected} examples; give one a row, the positives' first")]
    Groups { expected: usize, found: usize },
    #[error(
        "the {side} examples are of {found} group(s), and examples to hold out need {needed} or more that can be parted; \
         add examples of other groups, or use the difference of means, which has no penalty to choose ({mean})", mean = mean()
    )]
    TooFewGroups { side: Side, found: usize, needed: usize },
    #[error("{method} finds no difference between the positive and the negative examples", method = .0.name())]
    NoDifference(Method),
    #[error("there are no differences, or all are 0; a principal direction needs one that is not")]
    NoPrincipal,
    #[error("the matrix has no spectrum that can be found: it holds NaN or infinity")]
    NoSpectrum,
    #[error("{0}")]
    Tensor(String),
    #[error("the principal direction did not converge in {0} steps")]
    PrincipalNotConverged(usize),
    #[error("the direction's numbers are beyond f32; scale the activations")]
    Overflow,
    #[error(
        "{method} did not converge at a penalty of {strength}; use the difference of means ({mean})", method = .method.name(), mean = mean()
    )]
    NotConverged { method: Method, strength: f64 },
    #[error("a direction of {method} has no probabilities; fit a logistic one", method = .0.name())]
    NoProbability(Method),
    #[error("{what} is {value}; expected {expected}")]
    Option { what: &'static str, value: f64, expected: &'static str },
}

impl From<candle_core::Error> for LinearError {
    fn from(e: candle_core::Error) -> Self {
        LinearError::Tensor(e.to_string())
    }
}

/// The direction from the negative to the positive examples.
///
/// # Errors
/// If the examples do not differ, an option is out of its range, or there are too few groups for cross-validation.
pub fn fit(examples: &Examples, options: &Options) -> Result<Direction, LinearError> {
    let gram = Gram::new(examples);
    let all: Vec<usize> = (0..examples.len()).collect();
    let strength = choose::strength(&gram, &all, options)?;
    let problem = Problem::new(&gram, &all);
    let solution = problem.solve(options.method, strength, None)?;
    let dual = problem.in_gram(solution);
    let exact = gram.combine(&dual.alpha);
    // What rounding makes of equal sets is far below, what differs in f32 far above.
    if problem.relative_length(options.method, &exact) < 1e-9 {
        return Err(LinearError::NoDifference(options.method));
    }
    let vector: Vec<f32> = exact.into_iter().map(|x| x as f32).collect();
    if vector.iter().any(|x| !x.is_finite()) || vector.iter().all(|x| *x == 0.0) {
        return Err(LinearError::Overflow);
    }
    // Of the vector as it was rounded, so that the two belong together.
    let bias = dual.bias - vector.iter().zip(gram.center()).map(|(v, c)| f64::from(*v) * c).sum::<f64>();
    let strength = (options.method != Method::MeanDifference).then_some(strength);
    Ok(Direction { method: options.method, vector, bias, strength })
}
