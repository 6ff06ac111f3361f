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

pub(super) mod kernel;

use half::{bf16, f16};
use kernel::{Lines, Number, WIDTH};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Inputs that are summed without a break at most: a panel's part of so many stays in the second cache.
const MOST_INPUTS: usize = 512;

/// Multiplications below which a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 17;

/// Tasks a thread, so that a thread that is held up leaves its work to others.
const TASKS_A_THREAD: usize = 8;

/// Rows of a task at least, where a product has too few panels to share: a task loads its panels itself.
const LEAST_ROWS: usize = 48;

/// A weight `[outputs, inputs]`, packed. The last panel is filled up with zeros.
pub(super) struct Panels<T = f32> {
    outputs: usize,
    inputs: usize,
    /// `[panels, inputs, WIDTH]`
    data: Vec<T>,
}

/// A packed weight, whatever its numbers are kept as: results do not depend on it.
pub(super) trait Packed: Send + Sync {
    fn outputs(&self) -> usize;

    fn inputs(&self) -> usize;

    /// The bytes that it takes.
    fn bytes(&self) -> usize;

    /// The numbers of one output. `[inputs]`
    fn row(&self, output: usize) -> Vec<f32>;

    /// The same weight with inputs and outputs exchanged.
    fn transposed(&self) -> Arc<dyn Packed>;

    /// `x . weight^T` over some of the inputs: `[rows, inputs.len()]` to `[rows, outputs]`, row-major.
    ///
    /// # Panics
    /// If the inputs are out of range or `x` does not hold whole rows.
    fn product(&self, x: &[f32], inputs: Range<usize>) -> Vec<f32> {
        self.product_to(x, inputs, 0..self.outputs())
    }

    /// The same for some of the outputs: `[rows, inputs.len()]` to `[rows, outputs.len()]`. Whole panels are computed: outputs that
    /// begin and end with panels cost the least.
    ///
    /// # Panics
    /// If the inputs or outputs are out of range or `x` does not hold whole rows.
    fn product_to(&self, x: &[f32], inputs: Range<usize>, outputs: Range<usize>) -> Vec<f32>;
}

/// Packs a weight of `outputs` rows of `inputs` numbers: in 16 bits a number where all of them are bf16 or all f16, as
/// those of most checkpoints are, which is half of the memory and of the reading.
pub(super) fn pack(weight: &[f32], outputs: usize, inputs: usize) -> Arc<dyn Packed> {
    let lines = Lines { numbers: weight, stride: inputs };
    if let Some(panels) = Panels::<bf16>::pack(lines, outputs, inputs) {
        return Arc::new(panels);
    }
    if let Some(panels) = Panels::<f16>::pack(lines, outputs, inputs) {
        return Arc::new(panels);
    }
    Arc::new(Panels::pack_lines(lines, outputs, inputs))
}

impl Panels {
    /// Packs a weight whose rows, `outputs` of `inputs` numbers, lie apart.
    pub(super) fn pack_lines(weight: Lines, outputs: usize, inputs: usize) -> Panels {
        Panels::filled(outputs, inputs, |panel, first| fill(panel, &weight, first..outputs, inputs, |x| x))
    }
}

/// Fills a panel with the first outputs' numbers.
fn fill<T>(panel: &mut [T], weight: &Lines, outputs: Range<usize>, inputs: usize, as_kept: impl Fn(f32) -> T) {
    let row = |output: usize| &weight.numbers[output * weight.stride..][..inputs];
    // Sixteen inputs at a time: what is written stays in the first cache until it is whole.
    for from in (0..inputs).step_by(16) {
        let to = inputs.min(from + 16);
        for (column, row) in outputs.clone().take(WIDTH).map(row).enumerate() {
            for (cells, x) in panel[from * WIDTH..to * WIDTH].chunks_exact_mut(WIDTH).zip(&row[from..to]) {
                cells[column] = as_kept(*x);
            }
        }
    }
}

impl<T: Number> Panels<T> {
    /// Packs a weight of `outputs` rows of `inputs` numbers, if all of them are of the kind.
    fn pack(weight: Lines, outputs: usize, inputs: usize) -> Option<Panels<T>> {
        let all = weight.numbers.par_chunks(1 << 16).all(|numbers| numbers.iter().all(|x| T::of(*x).is_some()));
        let kept = |x| T::of(x).unwrap_or(T::ZERO);
        all.then(|| Panels::filled(outputs, inputs, |panel, first| fill(panel, &weight, first..outputs, inputs, kept)))
    }

    /// Panels of zeros that `fill` is given, each with the number of its first output.
    fn filled(outputs: usize, inputs: usize, fill: impl Fn(&mut [T], usize) + Sync) -> Panels<T> {
        let mut data = vec![T::ZERO; outputs.div_ceil(WIDTH) * WIDTH * inputs];
        let fill = |(j, panel): (usize, &mut [T])| fill(panel, j * WIDTH);
        let size = (WIDTH * inputs).max(1);
        match data.len() < WORTH_A_THREAD {
            true => data.chunks_exact_mut(size).enumerate().for_each(fill),
            false => data.par_chunks_exact_mut(size).enumerate().for_each(fill),
        }
        Panels { outputs, inputs, data }
    }

    fn panel(&self, j: usize) -> &[T] {
        &self.data[j * WIDTH * self.inputs..(j + 1) * WIDTH * self.inputs]
    }

    /// Adds `x . weight^T` to the first columns of the cells, one slice a row of `x`, on this thread.
    ///
    /// # Panics
    /// If there are fewer rows of `x` than of cells, or these are narrower than the outputs.
    pub(super) fn add(&self, x: &[f32], cells: &mut [&mut [f32]]) {
        self.task(x, &(0..self.inputs), 0..self.outputs, cells);
    }

    /// The products of some rows with some outputs, the first of a panel's, added to the first columns of the cells.
    fn task(&self, x: &[f32], inputs: &Range<usize>, outputs: Range<usize>, cells: &mut [&mut [f32]]) {
        let n = inputs.len();
        for output in outputs.clone().step_by(WIDTH) {
            let columns = output - outputs.start..outputs.end.min(output + WIDTH) - outputs.start;
            let panel = &self.panel(output / WIDTH)[inputs.start * WIDTH..inputs.end * WIDTH];
            for start in (0..n).step_by(step(n)) {
                let part = start..n.min(start + step(n));
                let weights = Lines { numbers: &panel[part.start * WIDTH..part.end * WIDTH], stride: WIDTH };
                kernel::add(Lines { numbers: x, stride: n }, &part, weights, cells, &columns);
            }
        }
    }
}

impl<T: Number> Packed for Panels<T> {
    fn outputs(&self) -> usize {
        self.outputs
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn bytes(&self) -> usize {
        size_of_val(self.data.as_slice())
    }

    fn row(&self, output: usize) -> Vec<f32> {
        let numbers = self.panel(output / WIDTH).iter().skip(output % WIDTH).step_by(WIDTH);
        numbers.map(|x| x.get()).collect()
    }

    fn transposed(&self) -> Arc<dyn Packed> {
        let turned = Panels::filled(self.inputs, self.outputs, |panel: &mut [T], first| {
            let inputs = first..self.inputs.min(first + WIDTH);
            for (cells, output) in panel.chunks_exact_mut(WIDTH).zip(0..self.outputs) {
                let from = &self.panel(output / WIDTH)[inputs.start * WIDTH..inputs.end * WIDTH];
                for (cell, column) in cells.iter_mut().zip(from.chunks_exact(WIDTH)) {
                    *cell = column[output % WIDTH];
                }
            }
        });
        Arc::new(turned)
    }

    fn product_to(&self, x: &[f32], inputs: Range<usize>, outputs: Range<usize>) -> Vec<f32> {
        assert!(inputs.end <= self.inputs && x.len().is_multiple_of(inputs.len().max(1)), "{inputs:?} of a product");
        assert!(outputs.end <= self.outputs, "{outputs:?} of a product");
        let rows = x.len() / inputs.len().max(1);
        let whole = outputs.start / WIDTH * WIDTH..outputs.end.next_multiple_of(WIDTH).min(self.outputs);
        let mut out = vec![0f32; rows * whole.len()];
        if out.is_empty() || inputs.is_empty() {
            return vec![0f32; rows * outputs.len()];
        }
        let cut = Cut::new(rows, whole.len(), inputs.len());
        let tasks = cut.tasks(&mut out, whole.len());
        let run = |(task, mut cells): (usize, Vec<&mut [f32]>)| {
            let (block, group) = (task / cut.groups, task % cut.groups);
            let x = &x[block * cut.rows * inputs.len()..][..cells.len() * inputs.len()];
            let first = whole.start + group * cut.panels * WIDTH;
            self.task(x, &inputs, first..whole.end.min(first + cut.panels * WIDTH), &mut cells);
        };
        match tasks.len() {
            1 => tasks.into_iter().enumerate().for_each(run),
            _ => tasks.into_par_iter().enumerate().for_each(run),
        }
        if whole == outputs {
            return out;
        }
        let wanted = outputs.start - whole.start..outputs.end - whole.start;
        out.chunks_exact(whole.len()).flat_map(|row| &row[wanted.clone()]).copied().collect()
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
        Cut {
            rows: rows.div_ceil(blocks).next_multiple_of(kernel::ROWS),
            panels: a_group,
            groups: panels.div_ceil(a_group),
        }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::ops) fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    pub(in crate::ops) fn bits(x: &[f32]) -> Vec<u32> {
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
            let found = pack(&w, outputs, inputs).product(&x, 0..inputs);
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
            let panels = pack(&w, outputs, inputs);
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
    fn what_is_packed_is_read_back() {
        for (_, inputs, outputs) in SHAPES {
            let w = numbers(outputs * inputs, 7);
            let panels = pack(&w, outputs, inputs);
            let rows: Vec<f32> = (0..outputs).flat_map(|o| panels.row(o)).collect();
            assert_eq!(rows, w);
            let turned = panels.transposed();
            let columns: Vec<f32> =
                (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i))).map(|(o, i)| turned.row(i)[o]).collect();
            assert_eq!((columns, turned.outputs(), turned.inputs()), (w, inputs, outputs));
        }
    }

    #[test]
    fn some_inputs_alone_are_a_product_of_the_weights_columns() {
        let (x, w) = (numbers(5 * 20, 8), numbers(70 * 48, 9));
        let columns: Vec<f32> = w.chunks_exact(48).flat_map(|row| row[16..36].to_vec()).collect();
        let expected = pack(&columns, 70, 20).product(&x, 0..20);
        assert_eq!(bits(&pack(&w, 70, 48).product(&x, 16..36)), bits(&expected));
    }
    #[test]
    fn some_outputs_alone_are_the_same_to_the_last_bit() {
        let (x, w) = (numbers(9 * 48, 8), numbers(300 * 48, 9));
        let panels = pack(&w, 300, 48);
        let all = panels.product(&x, 0..48);
        for outputs in [0..300, 0..64, 64..128, 70..71, 60..200, 256..300, 299..300, 5..5] {
            let expected: Vec<f32> = all.chunks_exact(300).flat_map(|row| row[outputs.clone()].to_vec()).collect();
            assert_eq!(bits(&panels.product_to(&x, 0..48, outputs.clone())), bits(&expected), "{outputs:?}");
        }
    }

    #[test]
    fn numbers_of_16_bits_are_kept_so_and_change_no_result() {
        fn of<T: Number>() {
            for (rows, inputs, outputs) in SHAPES {
                let few_bits = |x: &f32| T::of((x * 100.0).round() / 64.0).expect("few bits").get();
                let w: Vec<f32> = numbers(outputs * inputs, 10).iter().map(few_bits).collect();
                let (x, lines) = (numbers(rows * inputs, 11), Lines { numbers: &w, stride: inputs });
                let (kept, full) =
                    (pack(&w, outputs, inputs), Panels::<f32>::pack(lines, outputs, inputs).expect("f32"));
                assert_eq!(2 * kept.bytes(), full.bytes());
                assert_eq!(bits(&kept.product(&x, 0..inputs)), bits(&full.product(&x, 0..inputs)));
                let back = numbers(rows * outputs, 12);
                let turned = [kept.transposed(), full.transposed()].map(|w| bits(&w.product(&back, 0..outputs)));
                assert_eq!(turned[0], turned[1]);
            }
        }
        of::<bf16>();
        of::<f16>();
        let (third, tenth) = (vec![1.0f32 / 3.0; 640], vec![bf16::from_f32(0.1).to_f32(); 640]);
        assert_eq!(pack(&third, 10, 64).bytes(), 2 * pack(&tenth, 10, 64).bytes());
        // Of f16's range and not of bf16's digits, and the other way round.
        assert_eq!(
            pack(&[1.0 + 1.0 / 1024.0; 640], 10, 64).bytes(),
            pack(&[1e30f32.to_bits(); 640].map(|b| f32::from_bits(b & !0xffff)), 10, 64).bytes()
        );
    }
}
