//! Spectra of matrices: singular values and subspaces, whole or from the top, and the angles between subspaces.
//!
//! Small matrices are taken apart whole, through the inner products along their shorter side in f64. Of large ones only the top
//! is found, by a block Krylov method (Musco and Musco 2015, "Randomized Block Krylov Methods for Stronger and Faster Approximate
//! Singular Value Decomposition"), which says how near it came. The eigenvalues of the small symmetric matrices that both leave are
//! faer's.

use super::LinearError;
use crate::stats::rng;
use candle_core::{DType, Device, Tensor};
use faer::{Mat, Side};
use rand::Rng;

/// A matrix in f64, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f64>,
}

/// The eigenvalues of a symmetric matrix with their vectors.
#[derive(Clone, Debug)]
pub struct Eigen {
    /// Descending. \[n\]
    pub values: Vec<f64>,
    /// Row k is the unit vector of value k. `[n][n]`
    pub vectors: Vec<f64>,
}

impl Matrix {
    fn faer(&self) -> Mat<f64> {
        Mat::from_fn(self.rows, self.columns, |i, j| self.values[i * self.columns + j])
    }

    /// This times another: `[rows, n]` and `[n, columns]`.
    pub fn times(&self, other: &Matrix) -> Matrix {
        Matrix::of(&(self.faer() * other.faer()))
    }

    /// Rows for columns.
    pub fn turned(&self) -> Matrix {
        Matrix::of(&self.faer().transpose().to_owned())
    }

    fn of(matrix: &Mat<f64>) -> Matrix {
        let (rows, columns) = (matrix.nrows(), matrix.ncols());
        let values = (0..rows).flat_map(|i| (0..columns).map(move |j| matrix[(i, j)])).collect();
        Matrix { rows, columns, values }
    }

    /// The square root of the sum of all squares.
    pub fn norm(&self) -> f64 {
        super::dense::dot(&self.values, &self.values).sqrt()
    }

    /// `R` of `Q R`, where `Q` has orthonormal columns: what is left of a tall matrix when it is turned upright.
    /// `[min(rows, columns), columns]`
    pub fn upright(&self) -> Matrix {
        Matrix::of(&self.faer().qr().thin_R().to_owned())
    }
}

/// The eigenvalues and vectors of a symmetric matrix `[n][n]`.
///
/// # Errors
/// If a number is not finite, or the method does not converge.
pub fn eigen_symmetric(n: usize, values: &[f64]) -> Result<Eigen, LinearError> {
    if n == 0 {
        return Ok(Eigen { values: Vec::new(), vectors: Vec::new() });
    }
    finite(values)?;
    let matrix = Mat::from_fn(n, n, |i, j| values[i * n + j]);
    let found = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| LinearError::NoSpectrum)?;
    let (vectors, diagonal) = (found.U(), found.S().column_vector());
    let descending = || (0..n).rev();
    Ok(Eigen {
        values: descending().map(|k| diagonal[k]).collect(),
        vectors: descending().flat_map(|k| (0..n).map(move |i| vectors[(i, k)])).collect(),
    })
}

/// All singular values of a matrix, descending.
///
/// # Errors
/// As [`eigen_symmetric`].
pub fn singular_values(matrix: &Matrix) -> Result<Vec<f64>, LinearError> {
    finite(&matrix.values)?;
    if matrix.values.is_empty() {
        return Ok(Vec::new());
    }
    matrix.faer().singular_values().map_err(|_| LinearError::NoSpectrum)
}

/// The eigenvalues of a square matrix, as real and imaginary parts.
///
/// # Errors
/// As [`eigen_symmetric`].
pub fn eigenvalues(matrix: &Matrix) -> Result<Vec<(f64, f64)>, LinearError> {
    finite(&matrix.values)?;
    if matrix.values.is_empty() {
        return Ok(Vec::new());
    }
    let found = matrix.faer().eigenvalues().map_err(|_| LinearError::NoSpectrum)?;
    Ok(found.into_iter().map(|value| (value.re, value.im)).collect())
}

fn finite(values: &[f64]) -> Result<(), LinearError> {
    if values.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(LinearError::NoSpectrum) }
}

/// What is known of a matrix's singular value decomposition.
#[derive(Clone, Debug)]
pub struct Singular {
    /// Descending; all of them, or those of the top.
    pub values: Vec<f64>,
    /// Whether these are all.
    pub whole: bool,
    /// Unit vectors of the top, each a row. `[k, rows]`, f64
    pub left: Tensor,
    /// The same on the other side. `[k, columns]`, f64
    pub right: Tensor,
    /// By how much the worst of them misses being a pair: `|W^T u - s v|` over the largest value. 0 where all were found.
    pub residual: f64,
}

/// Numbers of a matrix that are in f64 at once.
const AT_ONCE: usize = 1 << 22;

/// Vectors of a block beyond those that are wanted.
const BEYOND: usize = 16;

/// Blocks of a Krylov space at most.
const STEPS: usize = 10;

/// Blocks that a matrix's shorter side must have room for, for its top to be looked for alone.
const ROOM: usize = 6;

/// The change of the wanted values, as a share of the largest, below which they are taken as found.
const SETTLED: f64 = 1e-6;

/// The singular values of a matrix `[rows, columns]` in f32 with the top `k` vectors; all values where its shorter side is at most
/// `whole`, or so short that a Krylov space would be all of it.
///
/// # Errors
/// If a number is not finite, the method does not converge, or candle fails.
pub fn singular(matrix: &Tensor, k: usize, whole: usize) -> Result<Singular, LinearError> {
    let (rows, columns) = matrix.dims2()?;
    let shorter = rows.min(columns);
    let k = k.min(shorter);
    if shorter <= whole.max(ROOM * (k + BEYOND)) { all(matrix, k) } else { top(matrix, k) }
}

/// All values, through the inner products along the shorter side.
fn all(matrix: &Tensor, k: usize) -> Result<Singular, LinearError> {
    let (rows, columns) = matrix.dims2()?;
    let (long, n) = (if rows >= columns { 0 } else { 1 }, rows.min(columns));
    let mut inner = Tensor::zeros((n, n), DType::F64, &Device::Cpu)?;
    for block in blocks(matrix, long)? {
        let block = block?;
        let tall = if long == 0 { block } else { block.t()?.contiguous()? };
        inner = (inner + tall.t()?.contiguous()?.matmul(&tall)?)?;
    }
    let found = eigen_symmetric(n, &inner.flatten_all()?.to_vec1::<f64>()?)?;
    let values: Vec<f64> = found.values.iter().map(|value| value.max(0.0).sqrt()).collect();
    let short = Tensor::from_vec(found.vectors[..k * n].to_vec(), (k, n), &Device::Cpu)?;
    // `W v / s`, or `W^T u / s`, block by block along the longer side.
    let by = short.t()?.contiguous()?;
    let least = values.first().copied().unwrap_or(0.0) * 1e-12;
    let shares: Vec<f64> = values[..k].iter().map(|s| if *s > least { 1.0 / s } else { 0.0 }).collect();
    let shares = Tensor::from_vec(shares, (1, k), &Device::Cpu)?;
    let mut long_ones = Vec::new();
    for block in blocks(matrix, long)? {
        let block = block?;
        let tall = if long == 0 { block } else { block.t()?.contiguous()? };
        long_ones.push(tall.matmul(&by)?.broadcast_mul(&shares)?);
    }
    let long_ones = Tensor::cat(&long_ones, 0)?.t()?.contiguous()?;
    let (left, right) = if long == 0 { (long_ones, short) } else { (short, long_ones) };
    Ok(Singular { values, whole: true, left, right, residual: 0.0 })
}

/// Parts of a matrix along one dimension, in f64.
fn blocks(matrix: &Tensor, along: usize) -> Result<impl Iterator<Item = candle_core::Result<Tensor>>, LinearError> {
    let (n, across) = (matrix.dim(along)?, matrix.dim(1 - along)?);
    let step = (AT_ONCE / across.max(1)).max(1);
    Ok((0..n)
        .step_by(step)
        .map(move |from| matrix.narrow(along, from, step.min(n - from))?.contiguous()?.to_dtype(DType::F64)))
}

/// The top alone.
fn top(matrix: &Tensor, k: usize) -> Result<Singular, LinearError> {
    let (rows, columns) = matrix.dims2()?;
    let upright = rows >= columns;
    let tall = if upright { matrix.clone() } else { matrix.t()? };
    let n = rows.min(columns);
    let width = (k + BEYOND).min(n);
    let mut rng = rng(0, "block krylov");
    let start: Vec<f64> = (0..n * width).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mut block = orthonormal(&Tensor::from_vec(start, (n, width), &Device::Cpu)?)?;
    let (mut basis, mut images): (Vec<Tensor>, Vec<Tensor>) = (Vec::new(), Vec::new());
    // The inner products of the images, block by block: below the diagonal as above.
    let mut inner: Vec<Vec<Tensor>> = Vec::new();
    let mut before = f64::NAN;
    loop {
        // Products with the matrix are in f32, as it is; all that is orthogonal is so in f64.
        let image = tall.matmul(&block.to_dtype(DType::F32)?)?;
        basis.push(block);
        images.push(image.clone());
        let wide = image.to_dtype(DType::F64)?;
        let with = |other: &Tensor| other.to_dtype(DType::F64)?.t()?.contiguous()?.matmul(&wide);
        let new = images.iter().map(with).collect::<candle_core::Result<Vec<_>>>()?;
        drop(wide);
        for (row, block) in inner.iter_mut().zip(&new) {
            row.push(block.clone());
        }
        inner.push(new.iter().map(|block| block.t()?.contiguous()).collect::<candle_core::Result<_>>()?);
        let rows = inner.iter().map(|row| Tensor::cat(row, 1)).collect::<candle_core::Result<Vec<_>>>()?;
        let all = Tensor::cat(&rows, 0)?;
        let size = all.dim(0)?;
        let found = eigen_symmetric(size, &all.flatten_all()?.to_vec1::<f64>()?)?;
        let values: Vec<f64> = found.values[..k].iter().map(|value| value.max(0.0).sqrt()).collect();
        let (first, last) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
        let settled = (last - before).abs() <= SETTLED * first;
        if settled || basis.len() == STEPS || size + width > n {
            let mixed = Tensor::from_vec(found.vectors[..k * size].to_vec(), (k, size), &Device::Cpu)?;
            return paired(&tall, upright, values, &mixed, (&basis, &images));
        }
        before = last;
        let next = tall.t()?.matmul(&image)?.to_dtype(DType::F64)?;
        block = orthonormal(&without(next, &basis)?)?;
    }
}

/// Singular vectors of the mixtures of a basis and of its images, and how far they are from being pairs.
fn paired(
    tall: &Tensor,
    upright: bool,
    values: Vec<f64>,
    mixed: &Tensor,
    (basis, images): (&[Tensor], &[Tensor]),
) -> Result<Singular, LinearError> {
    let k = values.len();
    let over = |blocks: &[Tensor]| -> candle_core::Result<Option<Tensor>> {
        let (mut sum, mut from): (Option<Tensor>, usize) = (None, 0);
        for block in blocks {
            let n = block.dim(1)?;
            let wide = block.to_dtype(DType::F64)?.t()?.contiguous()?;
            let part = mixed.narrow(1, from, n)?.contiguous()?.matmul(&wide)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
            from += n;
        }
        Ok(sum)
    };
    let (Some(short), Some(long)) = (over(basis)?, over(images)?) else { return Err(LinearError::NoSpectrum) };
    let scales = Tensor::from_vec(values.clone(), (k, 1), &Device::Cpu)?;
    let long = long.broadcast_div(&scales.maximum(f64::MIN_POSITIVE)?)?;
    let back = long.to_dtype(DType::F32)?.matmul(tall)?.to_dtype(DType::F64)?;
    let missed = (back - short.broadcast_mul(&scales)?)?.sqr()?.sum(1)?.to_vec1::<f64>()?;
    let most = missed.into_iter().fold(0.0f64, f64::max).sqrt();
    let residual = most / values.first().copied().unwrap_or(1.0).max(f64::MIN_POSITIVE);
    let (left, right) = if upright { (long, short) } else { (short, long) };
    Ok(Singular { values, whole: false, left, right, residual })
}

/// What of columns is orthogonal to all that are in a basis; taken away twice, since once leaves rounding.
fn without(columns: Tensor, basis: &[Tensor]) -> Result<Tensor, LinearError> {
    let mut rest = columns;
    for _ in 0..2 {
        for known in basis {
            rest = (&rest - known.matmul(&known.t()?.contiguous()?.matmul(&rest)?)?)?;
        }
    }
    Ok(rest)
}

/// Orthonormal columns that span the same.
fn orthonormal(columns: &Tensor) -> Result<Tensor, LinearError> {
    let (rows, n) = columns.dims2()?;
    let matrix = Matrix { rows, columns: n, values: columns.flatten_all()?.to_vec1::<f64>()? };
    finite(&matrix.values)?;
    let found = Matrix::of(&matrix.faer().qr().compute_thin_Q());
    Ok(Tensor::from_vec(found.values, (rows, n), &Device::Cpu)?)
}

/// The principal angles between the spaces that orthonormal rows span, in radians, ascending. `[k, n]` each, f64
///
/// An angle is found by its sine where it is below 45 degrees and by its cosine above, as Björck and Golub 1973 do: either alone
/// is blind at one end.
///
/// # Errors
/// If they are not of one shape, or candle fails.
pub fn principal_angles(a: &Tensor, b: &Tensor) -> Result<Vec<f64>, LinearError> {
    let (k, n) = a.dims2()?;
    let shared = a.matmul(&b.t()?.contiguous()?)?;
    let matrix = Matrix { rows: k, columns: k, values: shared.flatten_all()?.to_vec1::<f64>()? };
    let cosines = singular_values(&matrix)?;
    let rest = (b - shared.t()?.contiguous()?.matmul(a)?)?;
    let rest = Matrix { rows: k, columns: n, values: rest.flatten_all()?.to_vec1::<f64>()? };
    let mut sines = singular_values(&rest)?;
    sines.resize(k, 0.0);
    sines.reverse();
    let angle = |(cosine, sine): (&f64, &f64)| match cosine * cosine > 0.5 {
        true => sine.clamp(0.0, 1.0).asin(),
        false => cosine.clamp(0.0, 1.0).acos(),
    };
    Ok(cosines.iter().zip(&sines).map(angle).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, columns: usize, stream: &str) -> Vec<f32> {
        let mut rng = rng(7, stream);
        (0..rows * columns).map(|_| rng.random_range(-1.0f32..1.0)).collect()
    }

    fn tensor(values: Vec<f32>, rows: usize, columns: usize) -> Tensor {
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    /// A matrix of these singular values, with how its vectors stand known.
    fn made(rows: usize, columns: usize, values: &[f64]) -> (Tensor, Tensor, Tensor) {
        let part = |n: usize, stream: &str| {
            let x = tensor(random(n, values.len(), stream), n, values.len()).to_dtype(DType::F64).unwrap();
            orthonormal(&x).unwrap()
        };
        let (u, v) = (part(rows, "left"), part(columns, "right"));
        let scales = Tensor::from_vec(values.to_vec(), (1, values.len()), &Device::Cpu).unwrap();
        let w = u.broadcast_mul(&scales).unwrap().matmul(&v.t().unwrap().contiguous().unwrap()).unwrap();
        (w.to_dtype(DType::F32).unwrap(), u.t().unwrap().contiguous().unwrap(), v.t().unwrap().contiguous().unwrap())
    }

    #[test]
    fn values_and_vectors_are_those_that_a_matrix_was_made_of() {
        let values: Vec<f64> = (0..30).map(|i| 10.0 * 0.8f64.powi(i)).collect();
        for (rows, columns) in [(90, 40), (40, 90), (64, 64)] {
            let (w, u, v) = made(rows, columns, &values);
            let found = singular(&w, 5, 1024).unwrap();
            assert!(found.whole && found.values.len() == rows.min(columns));
            for (a, b) in found.values.iter().zip(&values) {
                assert!((a / b - 1.0).abs() < 1e-4, "{a} {b}");
            }
            for (space, known) in [(&found.left, u), (&found.right, v)] {
                let angles = principal_angles(space, &known.narrow(0, 0, 5).unwrap()).unwrap();
                assert!(angles.iter().all(|angle| *angle < 1e-5), "{angles:?}");
            }
        }
    }

    #[test]
    fn the_top_of_a_large_matrix_is_that_of_the_whole() {
        for (rows, columns) in [(700, 300), (300, 700)] {
            let values: Vec<f64> = (0..300).map(|i| 50.0 / f64::from(i + 1)).collect();
            let (w, u, _) = made(rows, columns, &values);
            let found = singular(&w, 12, 100).unwrap();
            assert!(!found.whole && found.values.len() == 12 && found.residual < 1e-4, "{}", found.residual);
            for (a, b) in found.values.iter().zip(&values) {
                assert!((a / b - 1.0).abs() < 1e-5, "{a} {b}");
            }
            let angles = principal_angles(&found.left, &u.narrow(0, 0, 12).unwrap()).unwrap();
            assert!(angles.iter().all(|angle| *angle < 1e-3), "{angles:?}");
        }
    }

    #[test]
    fn a_spectrum_without_a_top_says_that_it_was_not_found_exactly() {
        let w = tensor(random(900, 600, "flat"), 900, 600);
        let (top, all) = (singular(&w, 32, 100).unwrap(), singular(&w, 32, 1024).unwrap());
        assert!(top.residual > 1e-6);
        for (a, b) in top.values.iter().zip(&all.values) {
            assert!((a / b - 1.0).abs() < 5e-3, "{a} {b}");
        }
    }

    #[test]
    fn angles_between_planes_are_those_that_they_were_turned_by() {
        let plane = |angle: f64| {
            let rows = vec![1.0, 0.0, 0.0, 0.0, 0.0, angle.cos(), angle.sin(), 0.0];
            Tensor::from_vec(rows, (2, 4), &Device::Cpu).unwrap()
        };
        for angle in [1e-9, 1e-3, 0.5, 1.2, std::f64::consts::FRAC_PI_2] {
            let angles = principal_angles(&plane(0.0), &plane(angle)).unwrap();
            assert!(angles[0] < 1e-12 && (angles[1] - angle).abs() < 1e-12 + 1e-9 * angle, "{angle} {angles:?}");
        }
    }

    #[test]
    fn eigenvalues_may_turn() {
        let quarter = Matrix { rows: 2, columns: 2, values: vec![0.0, -1.0, 1.0, 0.0] };
        let mut found = eigenvalues(&quarter).unwrap();
        found.sort_by(|a, b| a.1.total_cmp(&b.1));
        assert!((found[0].1 + 1.0).abs() < 1e-12 && (found[1].1 - 1.0).abs() < 1e-12 && found[0].0.abs() < 1e-12);
        let lower = eigen_symmetric(2, &[2.0, 1.0, 1.0, 2.0]).unwrap();
        assert!((lower.values[0] - 3.0).abs() < 1e-12 && (lower.values[1] - 1.0).abs() < 1e-12);
        assert!((lower.vectors[0] - lower.vectors[1]).abs() < 1e-12);
        assert_eq!(eigen_symmetric(1, &[f64::NAN]).unwrap_err(), LinearError::NoSpectrum);
    }
}
