//! Inner products of activations, and what of a matrix they show to be used.

use crate::analyses::checkpoints::weights::effective_rank;
use crate::linear::LinearError;
use crate::linear::spectrum::{Matrix, eigen_symmetric, singular_values};
use crate::plan::{Array, Reading};
use candle_core::{DType, Device, Tensor};

/// The sum of `x x^T` over tokens, not centred: a matrix sees the mean too.
pub struct Energy {
    width: usize,
    /// `[width, width]`, f64; none before the first token.
    sum: Option<Tensor>,
}

impl Energy {
    pub(super) fn of(width: usize) -> Energy {
        Energy { width, sum: None }
    }

    /// Adds rows. `[tokens, width]`
    pub(super) fn add(&mut self, rows: &[f32]) -> candle_core::Result<()> {
        let n = rows.len() / self.width.max(1);
        let rows = Tensor::from_slice(rows, (n, self.width), &Device::Cpu)?.to_dtype(DType::F64)?;
        let more = rows.t()?.contiguous()?.matmul(&rows)?;
        self.sum = Some(match self.sum.take() {
            Some(sum) => (sum + more)?,
            None => more,
        });
        Ok(())
    }

    pub(super) fn reading(self) -> Reading {
        let zeros = || vec![0f32; self.width * self.width];
        let values = self.sum.as_ref().and_then(|sum| sum.to_dtype(DType::F32).and_then(|s| s.flatten_all()).ok());
        let values = values.and_then(|flat| flat.to_vec1::<f32>().ok()).unwrap_or_else(zeros);
        Reading::Array(Array { shape: vec![self.width, self.width], values })
    }

    pub(super) fn read(reading: &Reading) -> Energy {
        let values: Vec<f64> = reading.values().iter().map(|x| f64::from(*x)).collect();
        let width = values.len().isqrt();
        Energy { width, sum: Tensor::from_vec(values, (width, width), &Device::Cpu).ok() }
    }
}

/// What of a matrix is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Used {
    /// Directions that hold the share of the inputs' energy.
    pub inputs: usize,
    /// The same of the outputs.
    pub outputs: usize,
    /// The rank of what leads from these inputs to these outputs.
    pub rank: usize,
    /// Over how many directions its singular values are spread.
    pub effective_rank: Option<f64>,
    /// Its share of the matrix's squared norm.
    pub kept: f64,
}

/// Singular values below this share of the largest are rounding.
const ROUNDING: f64 = 1e-6;

/// What of a matrix `[out, in]` leads from the inputs' directions that hold `share` of the energy to the outputs' that do.
pub(super) fn used(matrix: &Tensor, energy: &Energy, share: f64) -> Result<Used, LinearError> {
    let (rows, columns) = matrix.dims2()?;
    let Some(inputs) = &energy.sum else {
        return Ok(Used { inputs: 0, outputs: 0, rank: 0, effective_rank: None, kept: 0.0 });
    };
    let outputs = matrix.matmul(inputs)?.matmul(&matrix.t()?.contiguous()?)?;
    let (from, to) = (directions(inputs, columns, share)?, directions(&outputs, rows, share)?);
    let through = to.matmul(matrix)?.matmul(&from.t()?.contiguous()?)?;
    let (out, into) = through.dims2()?;
    let through = Matrix { rows: out, columns: into, values: through.flatten_all()?.to_vec1::<f64>()? };
    let values = singular_values(&through)?;
    let first = values.first().copied().unwrap_or(0.0);
    let energy: f64 = values.iter().map(|s| s * s).sum();
    let all = matrix.sqr()?.sum_all()?.to_scalar::<f64>()?;
    Ok(Used {
        inputs: into,
        outputs: out,
        rank: values.iter().filter(|s| **s > ROUNDING * first).count(),
        effective_rank: effective_rank(&values),
        kept: if all > 0.0 { energy / all } else { 0.0 },
    })
}

/// The fewest directions that hold the share of the energy, each a row. `[n, width]`
fn directions(energy: &Tensor, width: usize, share: f64) -> Result<Tensor, LinearError> {
    let found = eigen_symmetric(width, &energy.flatten_all()?.to_vec1::<f64>()?)?;
    let values: Vec<f64> = found.values.iter().map(|value| value.max(0.0)).collect();
    let all: f64 = values.iter().sum();
    let mut held = 0.0;
    let mut n = 0;
    while n < width && (n == 0 || held < share * all) {
        held += values[n];
        n += 1;
    }
    Ok(Tensor::from_vec(found.vectors[..n * width].to_vec(), (n, width), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagonal(values: &[f64]) -> Tensor {
        let n = values.len();
        let of = |i: usize| if i / n == i % n { values[i % n] } else { 0.0 };
        Tensor::from_vec((0..n * n).map(of).collect::<Vec<f64>>(), (n, n), &Device::Cpu).unwrap()
    }

    #[test]
    fn what_inputs_never_show_is_not_used_nor_is_what_goes_nowhere() {
        // Inputs along the first three of five axes; of these the matrix lets two through.
        let mut energy = Energy::of(5);
        energy.add(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]).unwrap();
        let energy = Energy::read(&energy.reading());
        let found = used(&diagonal(&[2.0, 1.0, 0.0, 3.0, 3.0]), &energy, 0.999).unwrap();
        assert_eq!((found.inputs, found.outputs, found.rank), (3, 2, 2));
        assert!((found.kept - 5.0 / 23.0).abs() < 1e-12, "{}", found.kept);
        // 4 of 5 parts of the outputs' energy are along the first axis.
        let found = used(&diagonal(&[2.0, 1.0, 0.0, 3.0, 3.0]), &energy, 0.75).unwrap();
        assert_eq!((found.outputs, found.rank), (1, 1));
    }

    #[test]
    fn a_matrix_that_sees_all_directions_is_used_whole() {
        let mut energy = Energy::of(3);
        energy.add(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]).unwrap();
        let found = used(&diagonal(&[1.0, 1.0, 1.0]), &energy, 0.999).unwrap();
        assert_eq!((found.inputs, found.outputs, found.rank), (3, 3, 3));
        assert!((found.kept - 1.0).abs() < 1e-12 && (found.effective_rank.unwrap() - 3.0).abs() < 1e-9);
    }
}
