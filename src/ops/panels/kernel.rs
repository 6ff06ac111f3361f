//! The sums of a product, in one order for every processor: see [`super`].

// Loads and stores of vectors take pointers; each stands beside the bound that makes it sound.
#![allow(unsafe_code)]

use half::{bf16, f16};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Outputs that are summed together: four of the widest vectors.
pub(in crate::ops) const WIDTH: usize = 64;

/// Rows that are summed together: with four vectors a row, as many as there are registers for.
pub(super) const ROWS: usize = 6;

/// The sums of some rows.
type Sums<const R: usize> = [[f32; WIDTH]; R];

/// Rows, `stride` apart: what a product multiplies, or the weights of [`WIDTH`] outputs for one input after another.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Lines<'a, T = f32> {
    pub(in crate::ops) numbers: &'a [T],
    pub(in crate::ops) stride: usize,
}

impl<'a, T> Lines<'a, T> {
    fn from(&self, row: usize, column: usize) -> &'a [T] {
        &self.numbers[row * self.stride + column..]
    }
}

/// What a weight's numbers may be kept as. Each is an f32 without loss, and is one when it is multiplied.
pub(in crate::ops) trait Number: Copy + Send + Sync + 'static {
    const ZERO: Self;

    /// The number, if it is exactly one of these.
    fn of(x: f32) -> Option<Self>;

    fn get(self) -> f32;

    /// Sixteen numbers.
    ///
    /// # Safety
    /// There are so many from there on, and the processor has AVX-512F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_16(from: *const Self) -> __m512;

    /// Eight numbers.
    ///
    /// # Safety
    /// There are so many from there on, and the processor has AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_8(from: *const Self) -> __m256;
}

// `inline(always)`, because only within a function for these processors do loads become single instructions.
impl Number for f32 {
    const ZERO: f32 = 0.0;

    fn of(x: f32) -> Option<f32> {
        Some(x)
    }

    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_16(from: *const f32) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_8(from: *const f32) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_ps(from) }
    }
}

/// A bf16 is the upper half of an f32.
impl Number for bf16 {
    const ZERO: bf16 = bf16::ZERO;

    fn of(x: f32) -> Option<bf16> {
        (x.to_bits() & 0xffff == 0).then(|| bf16::from_bits((x.to_bits() >> 16) as u16))
    }

    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_16(from: *const bf16) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())))) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_8(from: *const bf16) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())))) }
    }
}

impl Number for f16 {
    const ZERO: f16 = f16::ZERO;

    fn of(x: f32) -> Option<f16> {
        let half = f16::from_f32(x);
        (half.to_f32().to_bits() == x.to_bits()).then_some(half)
    }

    #[inline(always)]
    fn get(self) -> f32 {
        self.to_f32()
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_16(from: *const f16) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_8(from: *const f16) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
}

/// Adds to the columns of each row of `cells` the product of some inputs of that row of `x` with the weights, whose first
/// line is that of the first of these inputs. The sum over them is made first, and then added.
///
/// # Panics
/// If `x` or the weights are too short.
pub(in crate::ops) fn add<T: Number>(
    x: Lines,
    inputs: &Range<usize>,
    weights: Lines<T>,
    cells: &mut [&mut [f32]],
    columns: &Range<usize>,
) {
    for (t, cells) in cells.chunks_mut(ROWS).enumerate() {
        let x = Lines { numbers: x.from(t * ROWS, inputs.start), ..x };
        match cells.len() {
            1 => tile::<T, 1>(x, inputs.len(), weights, cells, columns),
            2 => tile::<T, 2>(x, inputs.len(), weights, cells, columns),
            3 => tile::<T, 3>(x, inputs.len(), weights, cells, columns),
            4 => tile::<T, 4>(x, inputs.len(), weights, cells, columns),
            5 => tile::<T, 5>(x, inputs.len(), weights, cells, columns),
            _ => tile::<T, ROWS>(x, inputs.len(), weights, cells, columns),
        }
    }
}

/// [`add`] for `R` rows.
#[inline]
fn tile<T: Number, const R: usize>(
    x: Lines,
    n: usize,
    weights: Lines<T>,
    cells: &mut [&mut [f32]],
    columns: &Range<usize>,
) {
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
fn sums<T: Number, const R: usize>(rows: [&[f32]; R], weights: Lines<T>, n: usize) -> Sums<R> {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            // SAFETY: the processor has the instructions.
            return unsafe { avx512(rows, weights, n) };
        }
        if has_avx2() {
            // SAFETY: the processor has the instructions.
            return unsafe { avx2(rows, weights, n) };
        }
    }
    portable(rows, weights, n)
}

/// Which vectors the sums run on here.
pub(in crate::ops) fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            return "avx512f";
        }
        if has_avx2() {
            return "avx2";
        }
    }
    "portable"
}

/// Whether [`avx512`] is left alone.
static PORTABLE: AtomicBool = AtomicBool::new(false);

/// From now on no wider vectors are used than those of AVX2.
pub(in crate::ops) fn portable_from_now_on() {
    PORTABLE.store(true, Ordering::Relaxed);
}

/// Whether the processor has what [`avx512`] needs, and may use it.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    std::is_x86_feature_detected!("avx512f") && !PORTABLE.load(Ordering::Relaxed)
}

/// Whether the processor has what [`avx2`] needs.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("fma")
        && std::is_x86_feature_detected!("f16c")
}

/// The sums' definition.
fn portable<T: Number, const R: usize>(rows: [&[f32]; R], weights: Lines<T>, n: usize) -> Sums<R> {
    let mut sums = [[0f32; WIDTH]; R];
    for i in 0..n {
        let weights = &weights.from(i, 0)[..WIDTH];
        for (sums, row) in sums.iter_mut().zip(rows) {
            let x = row[i];
            for (sum, w) in sums.iter_mut().zip(weights) {
                *sum = multiply_add(x, w.get(), *sum);
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
fn hold<T>(rows: &[&[f32]], weights: Lines<T>, n: usize) {
    assert!(rows.iter().all(|row| row.len() >= n), "rows shorter than {n}");
    assert!(n == 0 || weights.numbers.len() >= (n - 1) * weights.stride + WIDTH, "weights of fewer than {n} inputs");
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512<T: Number, const R: usize>(rows: [&[f32]; R], weights: Lines<T>, n: usize) -> Sums<R> {
    const VECTORS: usize = WIDTH / 16;
    hold(&rows, weights, n);
    let mut kept = [[_mm512_setzero_ps(); VECTORS]; R];
    for i in 0..n {
        // SAFETY: `hold` has seen that there are 4 times 16 numbers from here on.
        let w: [__m512; VECTORS] =
            std::array::from_fn(|v| unsafe { T::load_16(weights.numbers.as_ptr().add(i * weights.stride + 16 * v)) });
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
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<T: Number, const R: usize>(rows: [&[f32]; R], weights: Lines<T>, n: usize) -> Sums<R> {
    hold(&rows, weights, n);
    let mut sums = [[0f32; WIDTH]; R];
    for strip in (0..WIDTH).step_by(16) {
        let mut kept = [[_mm256_setzero_ps(); 2]; R];
        for i in 0..n {
            // SAFETY: `hold` has seen that there are 64 numbers from the strip's first line on.
            let w: [__m256; 2] = std::array::from_fn(|v| unsafe {
                T::load_8(weights.numbers.as_ptr().add(i * weights.stride + strip + 8 * v))
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

    fn agree<T: Number, const R: usize>() {
        for (n, stride) in [(131, WIDTH), (131, 192), (1, 100), (0, WIDTH)] {
            let x = numbers(R * 131, 5);
            // A few bits each, so that every kind holds them.
            let w: Vec<T> =
                numbers(131 * 192, 6).iter().map(|w| T::of((w * 100.0).round() / 64.0).expect("few bits")).collect();
            let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * 131..(r + 1) * 131]);
            let weights = Lines { numbers: &w, stride };
            let expected = bits(portable(rows, weights, n).as_flattened());
            assert_eq!(bits(sums(rows, weights, n).as_flattened()), expected, "{R} rows");
            let column: Vec<f32> = (0..n).map(|i| w[i * stride + 7].get()).collect();
            let alone = rows.iter().map(|row| sum(&row[..n], &column).to_bits());
            assert!(alone.eq(expected.iter().skip(7).step_by(WIDTH).copied()), "{R} rows, one by one");
            #[cfg(target_arch = "x86_64")]
            if has_avx2() {
                // SAFETY: the processor has the instructions.
                assert_eq!(bits(unsafe { avx2(rows, weights, n) }.as_flattened()), expected, "{R} rows, AVX2");
            }
        }
    }

    #[test]
    fn the_kernels_agree_to_the_bit() {
        fn of<T: Number>() {
            agree::<T, 1>();
            agree::<T, 2>();
            agree::<T, 3>();
            agree::<T, 4>();
            agree::<T, 5>();
            agree::<T, 6>();
        }
        of::<f32>();
        of::<bf16>();
        of::<f16>();
    }

    #[test]
    fn a_number_is_kept_in_16_bits_only_where_nothing_is_lost() {
        for x in [0.0, -0.0, 1.0, -3.5, 1.0 + 1.0 / 128.0, 1e30] {
            assert_eq!(bf16::of(x).map(|b| b.get().to_bits()), (x.abs() != 1e30).then(|| x.to_bits()), "{x}");
        }
        for (x, kept) in [
            (0.0, true),
            (-0.0, true),
            (1.0 + 1.0 / 1024.0, true),
            (1.0 + 1.0 / 2048.0, false),
            (65_504.0, true),
            (65_520.0, false),
            (5.960_464_5e-8, true),
            (1e-9, false),
        ] {
            assert_eq!(f16::of(x).map(|h| h.get().to_bits()), kept.then(|| f32::to_bits(x)), "{x}");
        }
    }
}
