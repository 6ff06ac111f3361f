//! Small dense matrices in f64: products and Cholesky's factors.
//!
//! Sums run in an order that depends on the sizes alone, without fused operations: the same bytes whatever the
//! processor.

/// Partial sums of an inner product, for the compiler to keep in vectors.
const LANES: usize = 8;

/// The inner product.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// `y += c x`
pub fn add_scaled(y: &mut [f64], c: f64, x: &[f64]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += c * x);
}

/// A symmetric matrix, both triangles stored.
#[derive(Clone, Debug)]
pub struct Symmetric {
    n: usize,
    values: Vec<f64>,
}

impl Symmetric {
    /// From its elements; `of` must be symmetric.
    pub fn from_fn(n: usize, of: impl Fn(usize, usize) -> f64) -> Self {
        let mut values = Vec::with_capacity(n * n);
        for i in 0..n {
            values.extend((0..n).map(|j| of(i, j)));
        }
        Symmetric { n, values }
    }

    pub fn n(&self) -> usize {
        self.n
    }

    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.n..(i + 1) * self.n]
    }

    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        self.values.chunks_exact(self.n).map(|row| dot(row, x)).collect()
    }

    /// The inner products of rows with each other. `rows` is [n][dim].
    pub fn gram(rows: &[f64], dim: usize) -> Self {
        use rayon::prelude::*;
        /// Numbers of each row that are worked on together: so much of every row fits the cache.
        const PANEL: usize = 512;
        let n = rows.len() / dim.max(1);
        let mut values = vec![0.0; n * n];
        for from in (0..dim).step_by(PANEL) {
            let panel = |i: usize| &rows[i * dim + from..i * dim + (from + PANEL).min(dim)];
            values.par_chunks_exact_mut(n).enumerate().for_each(|(i, out)| {
                (0..=i).for_each(|j| out[j] += dot(panel(i), panel(j)));
            });
        }
        for i in 0..n {
            for j in 0..i {
                values[j * n + i] = values[i * n + j];
            }
        }
        Symmetric { n, values }
    }
}

/// The lower triangle L with `L L^T` equal to a positive definite matrix.
pub struct Cholesky(Symmetric);

impl Cholesky {
    /// `None` if the matrix is not positive definite.
    pub fn new(mut matrix: Symmetric) -> Option<Self> {
        let n = matrix.n;
        for i in 0..n {
            let (above, from_i) = matrix.values.split_at_mut(i * n);
            let row = &mut from_i[..n];
            for j in 0..i {
                let other = &above[j * n..j * n + j + 1];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let pivot = row[i] - dot(&row[..i], &row[..i]);
            // Not <= 0: a NaN is no pivot either.
            if !(pivot > 0.0 && pivot.is_finite()) {
                return None;
            }
            row[i] = pivot.sqrt();
        }
        Some(Cholesky(matrix))
    }

    /// The x that the matrix takes to b.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x = b.to_vec();
        for i in 0..x.len() {
            let row = self.0.row(i);
            x[i] = (x[i] - dot(&row[..i], &x[..i])) / row[i];
        }
        for i in (0..x.len()).rev() {
            let row = self.0.row(i);
            let (before, from_i) = x.split_at_mut(i);
            from_i[0] /= row[i];
            add_scaled(before, -from_i[0], &row[..i]);
        }
        x
    }
}
