//! A direction and what it says of an example.

use super::examples::check;
use super::{LinearError, Method, Side};
use crate::ops::vectors::{dot, norm};

/// A linear classifier: positive where `vector . x + bias` is.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    pub method: Method,
    /// Points from the negative to the positive examples, in the examples' space and the classifier's own scale.
    /// \[dim\]
    pub vector: Vec<f32>,
    pub bias: f64,
    /// The strength of the penalty that it was fitted with, if it has one.
    pub strength: Option<f64>,
}

/// What a classifier's probability of a positive is wanted to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Direction {
    /// The decision value of an example; 0 is the boundary.
    ///
    /// # Errors
    /// If `x` has another length than the vector, or a number is not finite.
    pub fn decision(&self, x: &[f32]) -> Result<f64, LinearError> {
        check(x, self.vector.len(), || "the example".to_string())?;
        Ok(dot(&self.vector, x) + self.bias)
    }

    /// The coefficient c of least size for which `x + c along` has the wanted probability.
    ///
    /// In closed form, as the decision value is linear: `c = (logit(wanted) - decision(x)) / (vector . along)`; 0 where
    /// the probability already is as wanted. With `along` the direction's own unit vector this is GCAV's steering
    /// strength ("Controlling Large Language Models Through Concept Activation Vectors", Zhang et al. 2025). `None` if
    /// `along` does not change the decision.
    ///
    /// # Errors
    /// If the direction is not logistic, the probability is not between 0 and 1, or a length is wrong.
    pub fn smallest_coefficient(&self, x: &[f32], along: &[f32], wanted: Wanted) -> Result<Option<f64>, LinearError> {
        if self.method != Method::Logistic {
            return Err(LinearError::NoProbability(self.method));
        }
        let (Wanted::AtLeast(probability) | Wanted::AtMost(probability)) = wanted;
        if !(probability > 0.0 && probability < 1.0) {
            let expected = "a number between 0 and 1";
            return Err(LinearError::Option { what: "the wanted probability", value: probability, expected });
        }
        check(along, self.vector.len(), || "the vector to go along".to_string())?;
        let missing = (probability / (1.0 - probability)).ln() - self.decision(x)?;
        let reached = match wanted {
            Wanted::AtLeast(_) => missing <= 0.0,
            Wanted::AtMost(_) => missing >= 0.0,
        };
        if reached {
            return Ok(Some(0.0));
        }
        let slope = dot(&self.vector, along);
        Ok((slope != 0.0).then(|| missing / slope))
    }

    /// The vector's Euclidean norm.
    pub fn norm(&self) -> f64 {
        norm(&self.vector)
    }
}

/// How many examples of each side were decided on, and how many of them rightly.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    right: [f64; 2],
    all: [f64; 2],
}

impl FromIterator<(f64, f64)> for Tally {
    /// From labels, +1 or -1, with decision values.
    fn from_iter<I: IntoIterator<Item = (f64, f64)>>(decided: I) -> Self {
        let mut tally = Tally::default();
        for (label, decision) in decided {
            let side = if label > 0.0 { Side::Positive } else { Side::Negative } as usize;
            tally.all[side] += 1.0;
            tally.right[side] += match label * decision {
                0.0 => 0.5,
                margin => f64::from(u8::from(margin > 0.0)),
            };
        }
        tally
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Tally>>(tallies: I) -> Self {
        tallies.fold(Tally::default(), |a, b| Tally {
            right: [a.right[0] + b.right[0], a.right[1] + b.right[1]],
            all: [a.all[0] + b.all[0], a.all[1] + b.all[1]],
        })
    }
}

impl Tally {
    /// The mean of the two sides' shares on the right side; an example on the boundary counts half.
    pub(super) fn accuracy(&self) -> f64 {
        let share = |side: usize| self.right[side] / self.all[side];
        0.5 * (share(0) + share(1))
    }
}
