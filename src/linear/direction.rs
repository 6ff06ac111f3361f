//! A direction and what it says of an example.

use super::examples::check;
use super::{LinearError, Method, Side};
use crate::ops::vectors::{dot, norm};
use crate::stats::{Interval, wilson_of};

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

impl Tally {
    /// The mean of the two sides' shares on the right side; an example on the boundary counts half.
    pub(super) fn accuracy(&self) -> f64 {
        0.5 * (self.share(0) + self.share(1))
    }

    fn share(&self, side: usize) -> f64 {
        self.right[side] / self.all[side]
    }

    /// The 95 % interval of the accuracy, of examples that come in these groups.
    pub(super) fn interval(&self, groups: &[Tally]) -> Option<Interval> {
        let effect = self.design_effect(groups)?;
        let of_side = |side: usize| wilson_of(self.share(side), self.all[side] / effect);
        let (a, b) = (of_side(0)?, of_side(1)?);
        let (accuracy, [p, q]) = (self.accuracy(), [self.share(0), self.share(1)]);
        Some(Interval {
            low: accuracy - 0.5 * (p - a.low).hypot(q - b.low),
            high: accuracy + 0.5 * (a.high - p).hypot(b.high - q),
        })
    }

    /// How many times the variance of the accuracy between groups is that of as many independent examples; 1 at least. None of one
    /// group, which has no spread.
    fn design_effect(&self, groups: &[Tally]) -> Option<f64> {
        let n = groups.len() as f64;
        if groups.len() < 2 {
            return None;
        }
        // What a group is above the shares, as part of the accuracy.
        let above = |group: &Tally| -> f64 {
            (0..2).map(|side| (group.right[side] - self.share(side) * group.all[side]) / (2.0 * self.all[side])).sum()
        };
        let between = n / (n - 1.0) * groups.iter().map(|group| above(group).powi(2)).sum::<f64>();
        let examples = self.all[0] + self.all[1];
        let alone = |side: usize| self.share(side) * (1.0 - self.share(side)) / (4.0 * self.all[side]);
        let independent = examples / (examples - 1.0) * (alone(0) + alone(1));
        Some(if independent > 0.0 { (between / independent).max(1.0) } else { 1.0 })
    }
}
