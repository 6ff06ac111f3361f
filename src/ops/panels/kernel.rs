//! The sums of a product, in one order for every processor: see [`super`].

// Loads and stores of vectors take pointers; each stands beside the bound that makes it sound.
#![allow(unsafe_code)]

use std::ops::Range;

/// Outputs that are summed together: four of the widest vectors.
pub(in crate::ops) const WIDTH: usize = 64;

/// Rows that are summed together: with four vectors a row, as many as there are registers for.
pub(super) const ROWS: usize = 6;

/// The sums of some rows.
type Sums<const R: usize> = [[f32; WIDTH]; R];

/// Rows, `stride` apart: what a product multiplies, or the weights of [`WIDTH`] outputs for one input after another.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Lines<'a> {
    pub(in crate::ops) numbers: &'a [f32],
    pub(in crate::ops) stride: usize,
}

impl<'a> Lines<'a> {
    fn from(self, row: usize, column: usize) -> &'a [f32] {
        &self.numbers[row * self.stride + column..]
    }
}

/// Adds to the columns of each row of `cells` the product of some inputs of that row of `x` with the weights, whose first
/// line is that of the first of these inputs. The sum over them is made first, and then added.
///
/// # Panics
/// If `x` or the weights are too short.
pub(in crate::ops) fn add(
    x: Lines,
    inputs: &Range<usize>,
    weights: Lines,
    cells: &mut [&mut [f32]],
    columns: &Range<usize>,
) {
    for (t, cells) in cells.chunks_mut(ROWS).enumerate() {
        let x = Lines { numbers: x.from(t * ROWS, inputs.start), ..x };
        match cells.len() {
            1 => tile::<1>(x, inputs.len(), weights, cells, columns),
            2 => tile::<2>(x, inputs.len(), weights, cells, columns),
            3 => tile::<3>(x, inputs.len(), weights, cells, columns),
            4 => tile::<4>(x, inputs.len(), weights, cells, columns),
            5 => tile::<5>(x, inputs.len(), weights, cells, columns),
            _ => tile::<ROWS>(x, inputs.len(), weights, cells, columns),
        }
    }
}

/// [`add`] for `R` rows.
#[inline]
fn tile<const R: usize>(x: Lines, n: usize, weights: Lines, cells: &mut [&mut [f32]], columns: &Range<usize>) {
    let rows: [&[f32]; R] = std::array::from_fn(|r| &x.from(r, 0)[..n]);
    let sums = sums(rows, weights, n);
    for (cells, sums) in cells.iter_mut().zip(&sums) {
        cells[columns.clone()].iter_mut().zip(sums).for_each(|(cell, sum)| *cell += sum);
    }
}

/// The product of a row and one output's weights.
pub(in crate::ops) fn sum(x: &[f32], weights: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("fma") {
        // SAFETY: the processor has the instructions.
        return unsafe { chain_of_fma(x, weights) };
    }
    chain(x, weights)
}

#[inline(always)]
fn chain(x: &[f32], weights: &[f32]) -> f32 {
    x.iter().zip(weights).fold(0.0, |sum, (x, w)| multiply_add(*x, *w, sum))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "fma")]
fn chain_of_fma(x: &[f32], weights: &[f32]) -> f32 {
    x.iter().zip(weights).fold(0.0, |sum, (x, w)| x.mul_add(*w, sum))
}

/// The sums of rows of `n` inputs times the weights of [`WIDTH`] outputs.
#[inline]
fn sums<const R: usize>(rows: [&[f32]; R], weights: Lines, n: usize) -> Sums<R> {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { avx512(rows, weights, n) };
        }
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instructions.
            return unsafe { avx2(rows, weights, n) };
        }
    }
    portable(rows, weights, n)
}

/// The sums' definition.
fn portable<const R: usize>(rows: [&[f32]; R], weights: Lines, n: usize) -> Sums<R> {
    let mut sums = [[0f32; WIDTH]; R];
    for i in 0..n {
        let weights = &weights.from(i, 0)[..WIDTH];
        for (sums, row) in sums.iter_mut().zip(rows) {
            let x = row[i];
            for (sum, w) in sums.iter_mut().zip(weights) {
                *sum = multiply_add(x, *w, *sum);
            }
        }
    }
    sums
}

/// `x * w + sum`, rounded once. Without the instruction that is a call of a library for each number, a hundred times as
/// slow, so that such processors round twice.
#[inline(always)]
fn multiply_add(x: f32, w: f32, sum: f32) -> f32 {
    if cfg!(all(target_arch = "x86_64", not(target_feature = "fma"), not(test))) {
        x * w + sum
    } else {
        x.mul_add(w, sum)
    }
}

/// Panics if rows or weights are too short for `n` inputs.
#[inline]
fn hold(rows: &[&[f32]], weights: Lines, n: usize) {
    assert!(rows.iter().all(|row| row.len() >= n), "rows shorter than {n}");
    assert!(n == 0 || weights.numbers.len() >= (n - 1) * weights.stride + WIDTH, "weights of fewer than {n} inputs");
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512<const R: usize>(rows: [&[f32]; R], weights: Lines, n: usize) -> Sums<R> {
    use std::arch::x86_64::*;
    const VECTORS: usize = WIDTH / 16;
    hold(&rows, weights, n);
    let mut kept = [[_mm512_setzero_ps(); VECTORS]; R];
    for i in 0..n {
        // SAFETY: `hold` has seen that there are 4 times 16 numbers from here on.
        let w: [__m512; VECTORS] = std::array::from_fn(|v| unsafe {
            _mm512_loadu_ps(weights.numbers.as_ptr().add(i * weights.stride + 16 * v))
        });
        for (kept, row) in kept.iter_mut().zip(&rows) {
            // SAFETY: `hold` has seen that rows are `n` long.
            let x = _mm512_set1_ps(unsafe { *row.get_unchecked(i) });
            for (sum, w) in kept.iter_mut().zip(&w) {
                *sum = _mm512_fmadd_ps(x, *w, *sum);
            }
        }
    }
    let mut sums = [[0f32; WIDTH]; R];
    for (sums, kept) in sums.iter_mut().zip(&kept) {
        for (to, sum) in sums.chunks_exact_mut(16).zip(kept) {
            // SAFETY: `to` has 16 numbers.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), *sum) };
        }
    }
    sums
}

/// As [`avx512`] in four strips: there are registers for six rows by 16 outputs.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<const R: usize>(rows: [&[f32]; R], weights: Lines, n: usize) -> Sums<R> {
    use std::arch::x86_64::*;
    hold(&rows, weights, n);
    let mut sums = [[0f32; WIDTH]; R];
    for strip in (0..WIDTH).step_by(16) {
        let mut kept = [[_mm256_setzero_ps(); 2]; R];
        for i in 0..n {
            // SAFETY: `hold` has seen that there are 64 numbers from the strip's first line on.
            let w: [__m256; 2] = std::array::from_fn(|v| unsafe {
                _mm256_loadu_ps(weights.numbers.as_ptr().add(i * weights.stride + strip + 8 * v))
            });
            for (kept, row) in kept.iter_mut().zip(&rows) {
                // SAFETY: `hold` has seen that rows are `n` long.
                let x = _mm256_set1_ps(unsafe { *row.get_unchecked(i) });
                for (sum, w) in kept.iter_mut().zip(&w) {
                    *sum = _mm256_fmadd_ps(x, *w, *sum);
                }
            }
        }
        for (sums, kept) in sums.iter_mut().zip(&kept) {
            for (to, sum) in sums[strip..strip + 16].chunks_exact_mut(8).zip(kept) {
                // SAFETY: `to` has 8 numbers.
                unsafe { _mm256_storeu_ps(to.as_mut_ptr(), *sum) };
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::tests::{bits, numbers};
    use super::*;

    #[test]
    fn the_kernels_agree_to_the_bit() {
        fn of<const R: usize>() {
            for (n, stride) in [(131, WIDTH), (131, 192), (1, 100), (0, WIDTH)] {
                let (x, w) = (numbers(R * 131, 5), numbers(131 * 192, 6));
                let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * 131..(r + 1) * 131]);
                let weights = Lines { numbers: &w, stride };
                let expected = bits(portable(rows, weights, n).as_flattened());
                assert_eq!(bits(sums(rows, weights, n).as_flattened()), expected, "{R} rows");
                let columns: Vec<f32> = (0..n).map(|i| w[i * stride + 7]).collect();
                assert!(
                    rows.iter()
                        .enumerate()
                        .all(|(r, row)| sum(&row[..n], &columns).to_bits() == expected[r * WIDTH + 7])
                );
                #[cfg(target_arch = "x86_64")]
                if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has the instructions.
                    assert_eq!(bits(unsafe { avx2(rows, weights, n) }.as_flattened()), expected, "{R} rows, AVX2");
                }
            }
        }
        of::<1>();
        of::<2>();
        of::<3>();
        of::<4>();
        of::<5>();
        of::<6>();
    }
}
