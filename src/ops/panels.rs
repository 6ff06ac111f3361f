//! f32 weights packed for the CPU's products, and the product itself.
//!
//! A weight is kept as panels of [`WIDTH`] outputs: the panel's numbers for the first input, then for the second, and so on.
//! A product walks a panel once for each six rows, six times 64 sums in registers. Libraries pack a weight so on every call,
//! which for the one row of a step of generation is most of the work; here it happens once, when the weight is loaded.
//!
//! **A sum's order is fixed.** The sum for a row and an output runs over the inputs in order, one fused multiply-add each,
//! broken at [`step`]s that depend on the number of inputs alone. So a row's result does not depend on how many rows there
//! are, on the number of threads, or on the width of the processor's vectors. (An x86-64 processor without FMA, older than
//! 2013, rounds twice a step and so has results of its own.)
//!
//! The scheme is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), without its
//! packing of the rows: six rows by 512 inputs stay in the first cache as they are.

// Loads and stores of vectors take pointers; each stands beside the bound that makes it sound.
#![allow(unsafe_code)]

use rayon::prelude::*;
use std::ops::Range;

/// Outputs of a panel.
const WIDTH: usize = 64;

/// Rows whose sums are in registers at once.
const ROWS: usize = 6;

/// Inputs that are summed without a break at most: a panel's part of so many stays in the second cache.
const MOST_INPUTS: usize = 512;

/// Multiplications below which a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 17;

/// Tasks a thread, so that a thread that is held up leaves its work to others.
const TASKS_A_THREAD: usize = 8;

/// Rows of a task at least, where a product has too few panels to share: a task loads its panels itself.
const LEAST_ROWS: usize = 48;

/// A weight `[outputs, inputs]`, packed. The last panel is filled up with zeros.
pub(super) struct Panels {
    outputs: usize,
    inputs: usize,
    /// `[panels, inputs, WIDTH]`
    data: Vec<f32>,
}

/// The sums of some rows for the outputs of a panel.
type Sums<const R: usize> = [[f32; WIDTH]; R];

impl Panels {
    /// Packs a weight of `outputs` rows of `inputs` numbers.
    pub(super) fn pack(weight: &[f32], outputs: usize, inputs: usize) -> Panels {
        Panels::filled(outputs, inputs, |panel, first| {
            let rows = weight[first * inputs..].chunks_exact(inputs).take(WIDTH);
            // Sixteen inputs at a time: what is written stays in the first cache until it is whole.
            for from in (0..inputs).step_by(16) {
                let to = inputs.min(from + 16);
                for (column, row) in rows.clone().enumerate() {
                    for (cells, x) in panel[from * WIDTH..to * WIDTH].chunks_exact_mut(WIDTH).zip(&row[from..to]) {
                        cells[column] = *x;
                    }
                }
            }
        })
    }

    /// The same weight with inputs and outputs exchanged.
    pub(super) fn transposed(&self) -> Panels {
        Panels::filled(self.inputs, self.outputs, |panel, first| {
            let inputs = first..self.inputs.min(first + WIDTH);
            for (cells, output) in panel.chunks_exact_mut(WIDTH).zip(0..self.outputs) {
                let from = &self.panel(output / WIDTH)[inputs.start * WIDTH..inputs.end * WIDTH];
                for (cell, column) in cells.iter_mut().zip(from.chunks_exact(WIDTH)) {
                    *cell = column[output % WIDTH];
                }
            }
        })
    }

    /// Panels of zeros that `fill` is given, each with the number of its first output.
    fn filled(outputs: usize, inputs: usize, fill: impl Fn(&mut [f32], usize) + Sync) -> Panels {
        let mut data = vec![0f32; outputs.div_ceil(WIDTH) * WIDTH * inputs];
        if inputs > 0 {
            let panels = data.par_chunks_exact_mut(WIDTH * inputs);
            panels.enumerate().for_each(|(j, panel)| fill(panel, j * WIDTH));
        }
        Panels { outputs, inputs, data }
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    fn panel(&self, j: usize) -> &[f32] {
        &self.data[j * WIDTH * self.inputs..(j + 1) * WIDTH * self.inputs]
    }

    /// The numbers of one output. `[inputs]`
    pub(super) fn row(&self, output: usize) -> impl Iterator<Item = f32> {
        self.panel(output / WIDTH).iter().skip(output % WIDTH).step_by(WIDTH).copied()
    }

    /// `x . weight^T` over some of the inputs: `[rows, inputs.len()]` to `[rows, outputs]`, row-major.
    ///
    /// # Panics
    /// If the inputs are out of range or `x` does not hold whole rows.
    pub(super) fn product(&self, x: &[f32], inputs: Range<usize>) -> Vec<f32> {
        assert!(inputs.end <= self.inputs && x.len().is_multiple_of(inputs.len().max(1)), "{inputs:?} of a product");
        let rows = x.len() / inputs.len().max(1);
        let mut out = vec![0f32; rows * self.outputs];
        if out.is_empty() || inputs.is_empty() {
            return out;
        }
        let cut = Cut::new(rows, self.outputs, inputs.len());
        let tasks = cut.tasks(&mut out, self.outputs);
        let run = |(task, mut cells): (usize, Vec<&mut [f32]>)| {
            let (block, group) = (task / cut.groups, task % cut.groups);
            let x = &x[block * cut.rows * inputs.len()..][..cells.len() * inputs.len()];
            self.task(x, &inputs, group * cut.panels, &mut cells);
        };
        match tasks.len() {
            1 => tasks.into_iter().enumerate().for_each(run),
            _ => tasks.into_par_iter().enumerate().for_each(run),
        }
        out
    }

    /// The products of some rows with the panels from `first` on, as many as the cells are wide.
    fn task(&self, x: &[f32], inputs: &Range<usize>, first: usize, cells: &mut [&mut [f32]]) {
        let (n, width) = (inputs.len(), cells.first().map_or(0, |c| c.len()));
        for (j, from) in (0..width).step_by(WIDTH).enumerate() {
            let columns = from..width.min(from + WIDTH);
            let panel = &self.panel(first + j)[inputs.start * WIDTH..inputs.end * WIDTH];
            for start in (0..n).step_by(step(n)) {
                let part = start..n.min(start + step(n));
                let weights = &panel[part.start * WIDTH..part.end * WIDTH];
                for (x, cells) in x.chunks(ROWS * n).zip(cells.chunks_mut(ROWS)) {
                    match cells.len() {
                        1 => tile::<1>(x, n, &part, weights, cells, &columns),
                        2 => tile::<2>(x, n, &part, weights, cells, &columns),
                        3 => tile::<3>(x, n, &part, weights, cells, &columns),
                        4 => tile::<4>(x, n, &part, weights, cells, &columns),
                        5 => tile::<5>(x, n, &part, weights, cells, &columns),
                        _ => tile::<ROWS>(x, n, &part, weights, cells, &columns),
                    }
                }
            }
        }
    }
}

/// How many inputs are summed without a break, of `n`: even parts of [`MOST_INPUTS`] at most.
fn step(n: usize) -> usize {
    n.div_ceil(n.div_ceil(MOST_INPUTS).max(1)).max(1)
}

/// How a product is cut into tasks: blocks of rows by groups of panels.
struct Cut {
    /// Rows of a block.
    rows: usize,
    /// Panels of a group.
    panels: usize,
    groups: usize,
}

impl Cut {
    fn new(rows: usize, outputs: usize, inputs: usize) -> Cut {
        let panels = outputs.div_ceil(WIDTH);
        let threads = rayon::current_num_threads().min(rows * outputs * inputs / WORTH_A_THREAD + 1);
        if threads == 1 {
            return Cut { rows, panels, groups: 1 };
        }
        let wanted = threads * TASKS_A_THREAD;
        let blocks = wanted.div_ceil(panels).min(rows.div_ceil(LEAST_ROWS)).max(1);
        let a_group = (panels / wanted).max(1);
        Cut { rows: rows.div_ceil(blocks).next_multiple_of(ROWS), panels: a_group, groups: panels.div_ceil(a_group) }
    }

    /// The cells of each task, one slice a row.
    fn tasks<'a>(&self, out: &'a mut [f32], outputs: usize) -> Vec<Vec<&'a mut [f32]>> {
        let mut tasks: Vec<Vec<&mut [f32]>> = Vec::new();
        for block in out.chunks_mut(self.rows * outputs) {
            let first = tasks.len();
            tasks.resize_with(first + self.groups, || Vec::with_capacity(block.len() / outputs));
            for row in block.chunks_mut(outputs) {
                let parts = row.chunks_mut(self.panels * WIDTH);
                tasks[first..].iter_mut().zip(parts).for_each(|(task, cells)| task.push(cells));
            }
        }
        tasks
    }
}

/// Adds the products of `R` rows of `n` inputs with a part of a panel to the columns of their cells, or sets them where the
/// part is the first.
#[inline]
fn tile<const R: usize>(
    x: &[f32],
    n: usize,
    part: &Range<usize>,
    weights: &[f32],
    cells: &mut [&mut [f32]],
    columns: &Range<usize>,
) {
    let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * n..][part.clone()]);
    let sums = sums(rows, weights);
    for (cells, sums) in cells.iter_mut().zip(&sums) {
        let cells = &mut cells[columns.clone()];
        match part.start {
            0 => cells.copy_from_slice(&sums[..cells.len()]),
            _ => cells.iter_mut().zip(sums).for_each(|(cell, sum)| *cell += sum),
        }
    }
}

/// The sums of rows times a part of a panel, whose length is theirs times [`WIDTH`].
#[inline]
fn sums<const R: usize>(rows: [&[f32]; R], weights: &[f32]) -> Sums<R> {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { avx512(rows, weights) };
        }
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instructions.
            return unsafe { avx2(rows, weights) };
        }
    }
    portable(rows, weights)
}

/// The sums' definition.
fn portable<const R: usize>(rows: [&[f32]; R], weights: &[f32]) -> Sums<R> {
    let mut sums = [[0f32; WIDTH]; R];
    for (i, weights) in weights.chunks_exact(WIDTH).enumerate() {
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

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512<const R: usize>(rows: [&[f32]; R], weights: &[f32]) -> Sums<R> {
    use std::arch::x86_64::*;
    const VECTORS: usize = WIDTH / 16;
    let n = weights.len() / WIDTH;
    assert!(rows.iter().all(|row| row.len() == n));
    let mut kept = [[_mm512_setzero_ps(); VECTORS]; R];
    for (i, weights) in weights.chunks_exact(WIDTH).enumerate() {
        // SAFETY: `weights` has 4 times 16 numbers.
        let w: [__m512; VECTORS] = std::array::from_fn(|v| unsafe { _mm512_loadu_ps(weights.as_ptr().add(16 * v)) });
        for (kept, row) in kept.iter_mut().zip(&rows) {
            // SAFETY: `i` is below `n`, which each row is long.
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
fn avx2<const R: usize>(rows: [&[f32]; R], weights: &[f32]) -> Sums<R> {
    use std::arch::x86_64::*;
    let n = weights.len() / WIDTH;
    assert!(rows.iter().all(|row| row.len() == n));
    let mut sums = [[0f32; WIDTH]; R];
    for strip in (0..WIDTH).step_by(16) {
        let mut kept = [[_mm256_setzero_ps(); 2]; R];
        for (i, weights) in weights.chunks_exact(WIDTH).enumerate() {
            let weights = &weights[strip..strip + 16];
            // SAFETY: `weights` has 2 times 8 numbers.
            let w: [__m256; 2] = std::array::from_fn(|v| unsafe { _mm256_loadu_ps(weights.as_ptr().add(8 * v)) });
            for (kept, row) in kept.iter_mut().zip(&rows) {
                // SAFETY: `i` is below `n`, which each row is long.
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
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    /// Rows, inputs and outputs: within a panel and over its edge, one part and several, one task and many.
    const SHAPES: [(usize, usize, usize); 8] = [
        (1, 1, 1),
        (3, 5, 7),
        (7, 48, 160),
        (13, 512, 64),
        (2, 513, 65),
        (150, 96, 192),
        (40, 1300, 130),
        (310, 64, 64),
    ];

    #[test]
    fn products_are_within_rounding_of_those_in_f64() {
        for (rows, inputs, outputs) in SHAPES {
            let (x, w) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
            let found = Panels::pack(&w, outputs, inputs).product(&x, 0..inputs);
            for (cell, found) in found.iter().enumerate() {
                let (row, output) = (&x[cell / outputs * inputs..][..inputs], &w[cell % outputs * inputs..][..inputs]);
                let terms = row.iter().zip(output).map(|(a, b)| f64::from(*a) * f64::from(*b));
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                let most = size * inputs as f64 * f64::from(f32::EPSILON);
                assert!((f64::from(*found) - sum).abs() <= most, "{rows} x {inputs} x {outputs}: {found} for {sum}");
            }
        }
    }

    #[test]
    fn a_row_is_the_same_alone_and_in_company_and_on_any_number_of_threads() {
        for (rows, inputs, outputs) in SHAPES {
            let (x, w) = (numbers(rows * inputs, 3), numbers(outputs * inputs, 4));
            let panels = Panels::pack(&w, outputs, inputs);
            let together = bits(&panels.product(&x, 0..inputs));
            let alone: Vec<f32> = x.chunks(inputs).flat_map(|row| panels.product(row, 0..inputs)).collect();
            assert_eq!(together, bits(&alone), "{rows} x {inputs} x {outputs}");
            for threads in [1, 2, 7] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                assert_eq!(pool.install(|| bits(&panels.product(&x, 0..inputs))), together, "{threads} threads");
            }
        }
    }

    #[test]
    fn the_kernels_agree_to_the_bit() {
        fn of<const R: usize>() {
            let (x, w) = (numbers(R * 131, 5), numbers(131 * WIDTH, 6));
            let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * 131..(r + 1) * 131]);
            let expected = bits(portable(rows, &w).as_flattened());
            assert_eq!(bits(sums(rows, &w).as_flattened()), expected, "{R} rows");
            #[cfg(target_arch = "x86_64")]
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                // SAFETY: the processor has the instructions.
                assert_eq!(bits(unsafe { avx2(rows, &w) }.as_flattened()), expected, "{R} rows, AVX2");
            }
        }
        of::<1>();
        of::<2>();
        of::<3>();
        of::<4>();
        of::<5>();
        of::<6>();
    }

    #[test]
    fn what_is_packed_is_read_back() {
        for (_, inputs, outputs) in SHAPES {
            let w = numbers(outputs * inputs, 7);
            let panels = Panels::pack(&w, outputs, inputs);
            let rows: Vec<f32> = (0..outputs).flat_map(|o| panels.row(o)).collect();
            assert_eq!(rows, w);
            let turned = panels.transposed();
            let columns: Vec<f32> = (0..outputs)
                .flat_map(|o| (0..inputs).map(move |i| (o, i)))
                .map(|(o, i)| turned.row(i).nth(o).expect("a number"))
                .collect();
            assert_eq!((columns, turned.outputs(), turned.inputs()), (w, inputs, outputs));
        }
    }

    #[test]
    fn some_inputs_alone_are_a_product_of_the_weights_columns() {
        let (x, w) = (numbers(5 * 20, 8), numbers(70 * 48, 9));
        let columns: Vec<f32> = w.chunks_exact(48).flat_map(|row| row[16..36].to_vec()).collect();
        let expected = Panels::pack(&columns, 70, 20).product(&x, 0..20);
        assert_eq!(bits(&Panels::pack(&w, 70, 48).product(&x, 16..36)), bits(&expected));
    }
}
