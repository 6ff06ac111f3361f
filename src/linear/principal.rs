//! The first principal component of differences, as representation engineering takes it (Zou et al. 2023).

use super::LinearError;
use super::dense::{Cholesky, Symmetric, add_scaled, dot};
use super::examples::check;
use crate::stats::rng;
use rand::Rng;

/// How near an eigenvector the result is: `|K v - value v| <= TOLERANCE value`.
const TOLERANCE: f64 = 1e-10;

/// Factorisations; each takes about two digits.
const STEPS: usize = 200;

/// The first principal component of differences (positive minus negative activation of each pair), which are *not*
/// centred: the mean difference, which centring would take away, is what is looked for. Of norm 1. \[dim\]
///
/// Its sign is such that most differences project on it positively; where as many do not, the sum of projections
/// decides. Where two components are equally strong it is one between them, the same for the same differences.
///
/// # Errors
/// If there are none, all are 0, lengths differ, or a number is not finite.
pub fn principal_direction<R: AsRef<[f32]>>(differences: &[R]) -> Result<Vec<f32>, LinearError> {
    let dim = differences.first().map_or(0, |row| row.as_ref().len());
    let mut rows: Vec<f64> = Vec::with_capacity(differences.len() * dim);
    for (i, row) in differences.iter().enumerate() {
        check(row.as_ref(), dim, || format!("difference {i}"))?;
        rows.extend(row.as_ref().iter().map(|x| f64::from(*x)));
    }
    let total = dot(&rows, &rows);
    if total == 0.0 {
        return Err(LinearError::NoPrincipal);
    }
    let mut vector = if differences.len() <= dim {
        let top = top_eigenvector(&scaled(Symmetric::gram(&rows, dim), total))?;
        transposed_times(&rows, dim, &top)
    } else {
        let columns: Vec<f64> = (0..dim).flat_map(|j| rows.iter().skip(j).step_by(dim).copied()).collect();
        top_eigenvector(&scaled(Symmetric::gram(&columns, differences.len()), total))?
    };
    let norm = dot(&vector, &vector).sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    let projections: Vec<f64> = rows.chunks_exact(dim).map(|row| dot(row, &vector)).collect();
    let count = |sign: f64| projections.iter().filter(|p| sign * **p > 0.0).count();
    let (positive, negative) = (count(1.0), count(-1.0));
    let turned = negative > positive || (negative == positive && projections.iter().sum::<f64>() < 0.0);
    let sign = if turned { -1.0 } else { 1.0 };
    Ok(vector.into_iter().map(|x| (sign * x) as f32).collect())
}

fn scaled(matrix: Symmetric, by: f64) -> Symmetric {
    Symmetric::from_fn(matrix.n(), |i, j| matrix.row(i)[j] / by)
}

/// `rows^T x`. \[dim\]
fn transposed_times(rows: &[f64], dim: usize, x: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; dim];
    rows.chunks_exact(dim).zip(x).for_each(|(row, x)| add_scaled(&mut sum, *x, row));
    sum
}

/// The eigenvector of the largest eigenvalue of a matrix without negative ones and of trace 1.
///
/// Inverse iteration with `shift - matrix`, which has Cholesky factors just where the shift is above the eigenvalue: a
/// failed factorisation is a lower bound, so the shift closes in on the largest one and no other.
fn top_eigenvector(matrix: &Symmetric) -> Result<Vec<f64>, LinearError> {
    let mut rng = rng(0, "principal direction");
    let mut vector: Vec<f64> = (0..matrix.n()).map(|_| rng.random_range(-1.0..1.0)).collect();
    // The trace bounds the eigenvalues from above.
    let (mut low, mut high) = (0.0_f64, 1.0 + 1e-9);
    let mut shift = high;
    for _ in 0..STEPS {
        let shifted = |i: usize, j: usize| if i == j { shift - matrix.row(i)[j] } else { -matrix.row(i)[j] };
        let Some(factors) = Cholesky::new(Symmetric::from_fn(matrix.n(), shifted)) else {
            low = low.max(shift);
            shift = 0.5 * (low + high);
            continue;
        };
        high = shift;
        for _ in 0..3 {
            vector = factors.solve(&vector);
            let norm = dot(&vector, &vector).sqrt();
            vector.iter_mut().for_each(|x| *x /= norm);
        }
        let image = matrix.times(&vector);
        let value = dot(&image, &vector);
        let residual: f64 = image.iter().zip(&vector).map(|(image, x)| (image - value * x).powi(2)).sum();
        // Close to the bound from above, and an eigenvector: then it is that of the largest eigenvalue.
        if residual.sqrt() <= TOLERANCE * value && high - value <= 1e-4 * value {
            return Ok(vector);
        }
        low = low.max(value);
        shift = low + 0.01 * (high - low);
    }
    Err(LinearError::PrincipalNotConverged(STEPS))
}
