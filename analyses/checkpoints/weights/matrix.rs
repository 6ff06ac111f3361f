//! What a matrix is, by itself.

use crate::linear::spectrum::Singular;
use crate::plan::{Array, Reading};
use candle_core::Tensor;

/// What a matrix is, by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alone {
    /// The square root of the sum of all squares.
    pub norm: f64,
    /// Singular values, descending: all, or the principal ones.
    pub values: Vec<f64>,
    /// Whether these are all.
    pub whole: bool,
    /// How far the worst of them is from being one; see [`Singular::residual`].
    pub residual: f64,
    /// How many are the principal ones.
    pub principal: usize,
}

impl Alone {
    /// Of a matrix `[rows, columns]` that was taken apart.
    pub(super) fn new(values: &Tensor, singular: &Singular, principal: usize) -> Result<Alone, String> {
        Ok(Alone {
            norm: norm(values).map_err(|e| e.to_string())?,
            values: singular.values.clone(),
            whole: singular.whole,
            residual: singular.residual,
            principal,
        })
    }

    /// The largest singular value.
    pub fn spectral_norm(&self) -> Option<f64> {
        self.values.first().copied()
    }

    /// How many singular values as large as the largest would hold all the energy: `|W|^2 / s_1^2`.
    pub fn stable_rank(&self) -> Option<f64> {
        let first = self.spectral_norm().filter(|first| *first > 0.0)?;
        Some((self.norm / first).powi(2))
    }

    /// The exponential of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007); none where not all are
    /// known.
    pub fn effective_rank(&self) -> Option<f64> {
        if self.whole { effective_rank(&self.values) } else { None }
    }

    /// The share of the energy, the sum of squares, that the principal singular values hold.
    pub fn top_energy(&self) -> Option<f64> {
        let held: f64 = self.values.iter().take(self.principal).map(|s| s * s).sum();
        (self.norm > 0.0).then(|| held / (self.norm * self.norm))
    }

    pub(super) fn reading(&self) -> Reading {
        let head = [self.norm, self.residual, if self.whole { 1.0 } else { 0.0 }, self.principal as f64];
        let values: Vec<f32> = head.iter().chain(&self.values).map(|x| *x as f32).collect();
        Reading::Array(Array { shape: vec![values.len()], values })
    }

    pub(super) fn of(reading: &Reading) -> Alone {
        let numbers = reading.values();
        let mut numbers = numbers.iter().map(|x| f64::from(*x));
        let mut next = || numbers.next().unwrap_or_default();
        let (norm, residual, whole, principal) = (next(), next(), next() > 0.0, next() as usize);
        Alone { norm, residual, whole, principal, values: numbers.collect() }
    }
}

/// The square root of the sum of all squares, added in the order of the rows: the same bits whatever the number of threads.
fn norm(matrix: &Tensor) -> candle_core::Result<f64> {
    let (rows, columns) = matrix.dims2()?;
    let step = ((1 << 20) / columns.max(1)).max(1);
    let mut sum = 0.0;
    for from in (0..rows).step_by(step) {
        let some = matrix.narrow(0, from, step.min(rows - from))?.flatten_all()?.to_vec1::<f32>()?;
        sum += some.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    }
    Ok(sum.sqrt())
}

/// The exponential of the entropy of numbers as shares of their sum; none where that is 0.
pub(in crate::analyses::checkpoints) fn effective_rank(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().sum();
    let shares = values.iter().map(|s| s / sum).filter(|share| *share > 0.0);
    (sum > 0.0).then(|| shares.map(|share| -share * share.ln()).sum::<f64>().exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_singular_values() {
        let alone = Alone { norm: 5.0, values: vec![4.0, 3.0], whole: true, residual: 0.0, principal: 1 };
        assert_eq!(alone.stable_rank(), Some(25.0 / 16.0));
        assert_eq!(alone.top_energy(), Some(16.0 / 25.0));
        let [p, q] = [4.0f64 / 7.0, 3.0 / 7.0];
        assert!((alone.effective_rank().unwrap() - (-p * p.ln() - q * q.ln()).exp()).abs() < 1e-12);
        assert_eq!(Alone { whole: false, ..alone.clone() }.effective_rank(), None, "the rest is not known");
        assert_eq!(Alone::of(&alone.reading()), alone);
        let none = Alone { norm: 0.0, values: vec![0.0, 0.0], ..alone };
        assert_eq!((none.stable_rank(), none.effective_rank(), none.top_energy()), (None, None, None));
    }
}
