//! Two sets of examples.

use super::{LinearError, Side};

/// Positive and negative examples: rows of equally many finite numbers, each of a group.
///
/// Examples of one group, the two prompts of a pair or all prompts of a topic, are never on both sides of a split:
/// what they share would be learnt on one and counted as success on the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Examples {
    /// [positives then negatives][dim]
    values: Vec<f32>,
    dim: usize,
    positives: usize,
    groups: Vec<usize>,
}

impl Examples {
    /// Examples that have nothing in common with each other: each is a group.
    ///
    /// # Errors
    /// If a side is empty, rows differ in length or have none, or a number is not finite.
    pub fn new<R: AsRef<[f32]>>(positive: &[R], negative: &[R]) -> Result<Self, LinearError> {
        let groups: Vec<usize> = (0..positive.len() + negative.len()).collect();
        Examples::grouped(positive, negative, &groups)
    }

    /// Examples with the group of each, the positives' first.
    ///
    /// # Errors
    /// As for [`Examples::new`], and if there is not a group for each example.
    pub fn grouped<R: AsRef<[f32]>>(positive: &[R], negative: &[R], groups: &[usize]) -> Result<Self, LinearError> {
        for (side, rows) in [(Side::Positive, positive), (Side::Negative, negative)] {
            let Some(first) = rows.first() else { return Err(LinearError::Empty(side)) };
            if first.as_ref().is_empty() {
                return Err(LinearError::Length { what: format!("{side} example 0"), expected: 1, found: 0 });
            }
        }
        let examples = positive.len() + negative.len();
        if groups.len() != examples {
            return Err(LinearError::Groups { expected: examples, found: groups.len() });
        }
        let dim = positive.first().map_or(0, |row| row.as_ref().len());
        let mut values = Vec::with_capacity(examples * dim);
        for (side, rows) in [(Side::Positive, positive), (Side::Negative, negative)] {
            for (i, row) in rows.iter().enumerate() {
                check(row.as_ref(), dim, || format!("{side} example {i}"))?;
                values.extend_from_slice(row.as_ref());
            }
        }
        Ok(Examples { values, dim, positives: positive.len(), groups: groups.to_vec() })
    }

    /// Matched pairs: row i of each side is of group i.
    ///
    /// # Errors
    /// As for [`Examples::grouped`]; the sides must be of one size.
    pub fn paired<R: AsRef<[f32]>>(positive: &[R], negative: &[R]) -> Result<Self, LinearError> {
        if positive.len() != negative.len() {
            let what = "the list of negative examples of pairs".to_string();
            return Err(LinearError::Length { what, expected: positive.len(), found: negative.len() });
        }
        let groups: Vec<usize> = (0..positive.len()).chain(0..negative.len()).collect();
        Examples::grouped(positive, negative, &groups)
    }

    /// How many examples there are on both sides.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How many numbers an example has.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// An example's numbers; positives come first.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }

    /// Whether an example is positive.
    pub fn is_positive(&self, i: usize) -> bool {
        i < self.positives
    }

    pub(super) fn group(&self, i: usize) -> usize {
        self.groups[i]
    }

    /// The mean of the positive minus the mean of the negative examples; of pairs, the mean difference.
    pub fn mean_difference(&self) -> Vec<f32> {
        let (positive, negative) = (self.mean(0..self.positives), self.mean(self.positives..self.len()));
        positive.iter().zip(negative).map(|(p, n)| (p - n) as f32).collect()
    }

    /// The mean of some examples. \[dim\]
    pub(super) fn mean(&self, rows: std::ops::Range<usize>) -> Vec<f64> {
        let mut mean = vec![0.0; self.dim];
        let n = rows.len() as f64;
        for i in rows {
            mean.iter_mut().zip(self.row(i)).for_each(|(m, x)| *m += f64::from(*x));
        }
        mean.iter_mut().for_each(|m| *m /= n);
        mean
    }

    pub(super) fn sides(&self) -> [std::ops::Range<usize>; 2] {
        [0..self.positives, self.positives..self.len()]
    }
}

/// That a row has the length and finite numbers.
pub(super) fn check(row: &[f32], dim: usize, what: impl Fn() -> String) -> Result<(), LinearError> {
    if row.len() != dim {
        return Err(LinearError::Length { what: what(), expected: dim, found: row.len() });
    }
    match row.iter().position(|x| !x.is_finite()) {
        Some(column) => Err(LinearError::NotFinite { what: what(), column, value: row[column] }),
        None => Ok(()),
    }
}
