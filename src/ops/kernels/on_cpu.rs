//! The kernels' own sources on the CPU, one fiber a CUDA thread, against the operations that the CPU engine uses and
//! against sums in f64. See `kernels/cpu/cuda_on_cpu.h` for what this can show and what not.

// The kernels are functions of another language.
#![allow(unsafe_code)]

use super::super::attention::{Heads, attention as plain_attention};
use super::super::edit::{RowChange, RowEdit, edit as plain_edit};
use super::super::head_dots as plain_head_dots;
use super::super::norm::composed;
use super::super::{NormBy, NormKind, norm as plain_norm};
use super::{Argument, Grid, Kernel, Machine, attention, dla, edit, norm};
use crate::ops::rows::{Rows, Span};
use candle_core::{DType, Device, Result, Tensor, Var};
use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::Cell;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

type Launcher = unsafe extern "C" fn(*const u32, *const u32, usize, u64, *mut *mut c_void) -> i32;

macro_rules! launchers {
    ($($name:ident => $cpu:ident),* $(,)?) => {
        unsafe extern "C" {
            $(fn $cpu(grid: *const u32, block: *const u32, shared: usize, order: u64, args: *mut *mut c_void) -> i32;)*
        }

        fn launcher(name: &str) -> Launcher {
            match name {
                $(stringify!($name) => $cpu,)*
                other => panic!("there is no kernel {other}"),
            }
        }
    };
}

launchers! {
    attention_f32 => cpu_attention_f32, attention_bf16 => cpu_attention_bf16, attention_f16 => cpu_attention_f16,
    dla_f32 => cpu_dla_f32, dla_bf16 => cpu_dla_bf16, dla_f16 => cpu_dla_f16,
    edit_rows => cpu_edit_rows,
    edit_rows_without_barrier_1 => cpu_edit_rows_without_barrier_1,
    edit_rows_without_barrier_2 => cpu_edit_rows_without_barrier_2,
    edit_rows_without_barrier_3 => cpu_edit_rows_without_barrier_3,
    widen_rows_f32 => cpu_widen_rows_f32, widen_rows_bf16 => cpu_widen_rows_bf16, widen_rows_f16 => cpu_widen_rows_f16,
    narrow_rows_f32 => cpu_narrow_rows_f32, narrow_rows_bf16 => cpu_narrow_rows_bf16,
    narrow_rows_f16 => cpu_narrow_rows_f16,
    norm_f32 => cpu_norm_f32, norm_bf16 => cpu_norm_bf16, norm_f16 => cpu_norm_f16,
    norm_without_barrier_1_f32 => cpu_norm_without_barrier_1_f32,
    norm_without_barrier_2_f32 => cpu_norm_without_barrier_2_f32,
    reverse => cpu_reverse, reverse_without_barrier => cpu_reverse_without_barrier,
    neighbour_without_barrier => cpu_neighbour_without_barrier, leaves_before_barrier => cpu_leaves_before_barrier,
    overwritten_too_soon => cpu_overwritten_too_soon, two_barriers => cpu_two_barriers, shuffle_without_one => cpu_shuffle_without_one, outside_shared => cpu_outside_shared,
}

/// Forward, reverse, and three in which warps get ahead of each other.
const ORDERS: [u64; 5] = [0, 1, 2, 3, 17];

/// Blocks of a warp, of an odd number of warps, and as the GPU's.
const BLOCKS: [u32; 3] = [32, 96, super::THREADS];

/// The CPU as a machine for kernels.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    order: u64,
    threads: u32,
}

enum Buffer {
    Ints(Vec<i32>),
    F32(Vec<f32>),
    Halves(Vec<u16>),
}

impl Buffer {
    fn of(values: &[f32], dtype: DType) -> Buffer {
        match dtype {
            DType::BF16 => Buffer::Halves(values.iter().map(|x| bf16::from_f32(*x).to_bits()).collect()),
            DType::F16 => Buffer::Halves(values.iter().map(|x| f16::from_f32(*x).to_bits()).collect()),
            _ => Buffer::F32(values.to_vec()),
        }
    }

    fn values(&self, dtype: DType) -> Vec<f32> {
        match self {
            Buffer::Ints(_) => panic!("a result of whole numbers"),
            Buffer::F32(x) => x.clone(),
            Buffer::Halves(x) if dtype == DType::BF16 => x.iter().map(|b| bf16::from_bits(*b).to_f32()).collect(),
            Buffer::Halves(x) => x.iter().map(|b| f16::from_bits(*b).to_f32()).collect(),
        }
    }

    fn pointer(&self) -> *const c_void {
        match self {
            Buffer::Ints(x) => x.as_ptr().cast(),
            Buffer::F32(x) => x.as_ptr().cast(),
            Buffer::Halves(x) => x.as_ptr().cast(),
        }
    }
}

impl Machine for Cpu {
    type Buffer = Buffer;

    fn ints(&self, values: &[i32]) -> Result<Buffer> {
        Ok(Buffer::Ints(values.to_vec()))
    }

    fn floats(&self, values: &[f32]) -> Result<Buffer> {
        Ok(Buffer::F32(values.to_vec()))
    }

    fn blank(&self, n: usize) -> Result<Buffer> {
        Ok(Buffer::F32(vec![f32::NAN; n]))
    }

    fn launch(&self, kernel: &Kernel, grid: Grid, arguments: &mut [Argument<Buffer>]) -> Result<()> {
        let mut values: Vec<u64> = Vec::new();
        for argument in arguments {
            values.push(match argument {
                Argument::Read(buffer) => buffer.pointer() as u64,
                Argument::Write(buffer) => buffer.pointer() as u64,
                Argument::Int(x) => u64::from(x.cast_unsigned()),
                Argument::Float(x) => u64::from(x.to_bits()),
            });
        }
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let (grid_dim, block) = ([grid.x as u32, grid.y as u32, 1], [self.threads, 1, 1]);
        let run = launcher(&kernel.name);
        // SAFETY: the arguments are the kernel's, which the test is there to show; buffers outlive the call.
        let code = unsafe { run(grid_dim.as_ptr(), block.as_ptr(), grid.shared, self.order, pointers.as_mut_ptr()) };
        match code {
            0 => Ok(()),
            1 => candle_core::bail!("{}: threads of a block wait at different barriers", kernel.name),
            2 => candle_core::bail!("{}: threads of a warp are at different shuffles", kernel.name),
            _ => candle_core::bail!("{}: wrote outside its shared memory", kernel.name),
        }
    }

    fn threads(&self) -> u32 {
        self.threads
    }
}

fn machines() -> impl Iterator<Item = Cpu> {
    ORDERS.iter().flat_map(|order| BLOCKS.iter().map(|threads| Cpu { order: *order, threads: *threads }))
}

const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// Numbers that a dtype can hold.
fn random(n: usize, seed: u64, dtype: DType) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..n).map(|_| rng.random_range(-2.0..2.0)).collect();
    Buffer::of(&values, dtype).values(dtype)
}

/// What a dtype may be off by: sums are in f32, results are rounded to it.
fn tolerance(dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => 1.0 / 128.0,
        DType::F16 => 1.0 / 1024.0,
        _ => 1e-4,
    }
}

fn tensor(values: &[f32], rows: usize, dtype: DType) -> Tensor {
    let shape = (rows, values.len() / rows);
    Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).and_then(|t| t.to_dtype(dtype)).expect("a small tensor")
}

fn host(x: &Tensor) -> Vec<f32> {
    super::super::to_vec(x).expect("a small tensor")
}

#[track_caller]
fn close(found: &[f32], expected: &[f32], tolerance: f32, of: &dyn std::fmt::Debug) {
    assert_eq!(found.len(), expected.len(), "{of:?}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance * e.abs().max(1.0), "{of:?}: number {i} is {f}, not {e}");
    }
}

/// Prompts and forks of forks, a long one among them, one row and more a fork.
fn rows() -> Rows {
    let spans = vec![
        Span::new(0..37, 0, Vec::new()),
        Span::new(37..41, 33, vec![0..33]),
        Span::new(41..42, 36, vec![0..36]),
        Span::new(42..43, 36, vec![0..36]),
        Span::new(43..46, 34, vec![0..33, 37..38]),
        Span::new(46..51, 0, Vec::new()),
        Span::new(51..52, 4, vec![46..50]),
    ];
    Rows { entries: vec![0; 52], spans }
}

/// Attention in f64, by its definition.
fn attention_in_f64(q: &[f32], k: &[f32], v: &[f32], rows: &Rows, heads: Heads) -> Vec<f32> {
    let Heads { n_heads, n_kv_heads, d_head: d, .. } = heads;
    let mut z = Vec::new();
    for span in &rows.spans {
        let keys = span.key_rows();
        for row in span.rows.clone() {
            let position = span.first() + row - span.rows.start;
            for h in 0..n_heads {
                let kv = h * n_kv_heads / n_heads;
                let first = heads.window.map_or(0, |w| (position + 1).saturating_sub(w));
                let of = |x: &[f32], j: usize, i: usize| f64::from(x[(keys[j] as usize * n_kv_heads + kv) * d + i]);
                let score = |j: usize| {
                    let s: f64 = (0..d).map(|i| f64::from(q[(row * n_heads + h) * d + i]) * of(k, j, i)).sum();
                    let s = s * heads.scale;
                    heads.softcap.map_or(s, |cap| cap * (s / cap).tanh())
                };
                let weights: Vec<f64> = (first..=position).map(|j| score(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                let read = |i: usize| (first..=position).zip(&weights).map(|(j, w)| w * of(v, j, i)).sum::<f64>();
                z.extend((0..d).map(|i| (read(i) / total) as f32));
            }
        }
    }
    z
}

fn attention_agrees(heads: Heads, dtype: DType, machines: impl Iterator<Item = Cpu>) -> Result<()> {
    let rows = rows();
    let n = rows.len();
    let (wide, narrow) = (heads.n_heads * heads.d_head, heads.n_kv_heads * heads.d_head);
    let [q, k, v] = [(n * wide, 1), (n * narrow, 2), (n * narrow, 3)].map(|(n, seed)| random(n, seed, dtype));
    let expected = attention_in_f64(&q, &k, &v, &rows, heads);
    let [tq, tk, tv] = [&q, &k, &v].map(|x| tensor(x, n, dtype));
    close(&host(&plain_attention(&tq, &tk, &tv, &rows, heads)?), &expected, tolerance(dtype), &"the twin");
    let buffers = [&q, &k, &v].map(|x| Buffer::of(x, dtype));
    for machine in machines {
        let mut z = Buffer::of(&vec![f32::NAN; n * wide], dtype);
        let [q, k, v] = &buffers;
        attention::attention(&machine, dtype, [q, k, v], &mut z, &rows, heads)?;
        close(&z.values(dtype), &expected, tolerance(dtype), &(machine, heads, dtype));
    }
    Ok(())
}

fn heads(n_heads: usize, n_kv_heads: usize, d_head: usize) -> Heads {
    Heads {
        n_heads,
        n_kv_heads,
        d_head,
        scale: (d_head as f64).powf(-0.5),
        softcap: None,
        window: None,
        ..Heads::default()
    }
}

#[test]
fn attention_is_right_in_every_order_for_every_dtype() -> Result<()> {
    DTYPES.iter().try_for_each(|dtype| attention_agrees(heads(4, 2, 33), *dtype, machines()))
}

#[test]
fn attention_is_right_for_odd_heads_groups_caps_and_windows() -> Result<()> {
    let few = || [Cpu { order: 2, threads: 256 }, Cpu { order: 1, threads: 64 }].into_iter();
    let shapes = [heads(1, 1, 1), heads(3, 1, 7), heads(6, 6, 20), heads(2, 2, 64), heads(3, 3, 80), heads(12, 1, 128)];
    shapes.iter().try_for_each(|heads| attention_agrees(*heads, DType::F32, few()))?;
    attention_agrees(heads(2, 1, attention::WIDEST_HEAD), DType::BF16, few())?;
    for window in [1, 3, 32, 35, 1000] {
        attention_agrees(Heads { window: Some(window), ..heads(4, 2, 16) }, DType::F32, few())?;
    }
    attention_agrees(Heads { softcap: Some(1.5), window: Some(33), ..heads(4, 1, 48) }, DType::F16, few())
}

#[test]
fn keys_that_a_window_hides_from_a_whole_tile_are_not_read() -> Result<()> {
    // A prompt of 200 and two forks of it from position 150. The window hides at least 64 keys from each, two chunks.
    let spans = vec![Span::new(0..200, 0, Vec::new()), Span::new(200..201, 150, vec![0..150])];
    let rows = Rows { entries: vec![0; 201], spans };
    let heads = Heads { window: Some(40), ..heads(2, 1, 16) };
    let [q, mut k, mut v] = [(201 * 32, 1), (201 * 16, 2), (201 * 16, 3)].map(|(n, seed)| random(n, seed, DType::F32));
    let expected = attention_in_f64(&q, &k, &v, &rows, heads);
    // What is multiplied by a weight of 0 would still be NaN.
    k[..64 * 16].fill(f32::NAN);
    v[..64 * 16].fill(f32::NAN);
    let [q, k, v] = [&q, &k, &v].map(|x| Buffer::of(x, DType::F32));
    for machine in machines() {
        let mut z = Buffer::of(&vec![f32::NAN; 201 * 32], DType::F32);
        attention::attention(&machine, DType::F32, [&q, &k, &v], &mut z, &rows, heads)?;
        // Rows from position 111 on, in tiles of their own, see none of the first 64 keys.
        close(&z.values(DType::F32)[112 * 32..], &expected[112 * 32..], 1e-4, &machine);
    }
    Ok(())
}

#[test]
fn a_head_that_is_too_wide_for_the_kernel_is_an_error() {
    let mut z = Buffer::F32(Vec::new());
    let none = Buffer::F32(Vec::new());
    let wide = heads(1, 1, attention::WIDEST_HEAD + 1);
    let machine = Cpu { order: 0, threads: 32 };
    assert!(attention::attention(&machine, DType::F32, [&none, &none, &none], &mut z, &rows(), wide).is_err());
}

/// Changes of every kind, on rows that others copy before and after, over several ranges of columns.
fn edits(width: usize) -> Vec<RowEdit> {
    let all: Arc<[Range<usize>]> = [0..width].into();
    let some: Arc<[Range<usize>]> = [1..width / 3, width / 2..width - 1].into();
    let wide = some.iter().map(Range::len).sum();
    let vector = |n: usize, seed: u64| -> Arc<[f32]> { random(n, seed, DType::F32).into() };
    let (on_all, on_some) = (vector(width, 7), vector(wide, 8));
    let one = |row, columns: &Arc<[Range<usize>]>, change| RowEdit { row, columns: columns.clone(), change };
    vec![
        one(3, &some, RowChange::CopyRow(0)),
        one(4, &some, RowChange::CopyRow(0)),
        one(0, &some, RowChange::Scale(-0.5)),
        one(5, &all, RowChange::CopyRow(0)),
        one(5, &some, RowChange::Add(on_some.clone(), 0.7)),
        one(5, &all, RowChange::Add(on_all.clone(), -0.3)),
        one(2, &some, RowChange::Set(on_some.clone())),
        one(2, &all, RowChange::Clamp(-0.5, 1.0)),
        one(6, &some, RowChange::Zero),
        one(6, &all, RowChange::ProjectOut(on_all)),
        one(1, &some, RowChange::ProjectOut(on_some)),
        one(1, &all, RowChange::ProjectOut(vec![0.0; width].into())),
        one(3, &all, RowChange::CopyRow(6)),
        one(6, &all, RowChange::Zero),
    ]
}

#[test]
fn edits_are_those_of_the_cpu_in_every_order_for_every_dtype() -> Result<()> {
    for dtype in DTYPES {
        for width in [9, 64, 333, 1024] {
            let (x, list) = (random(8 * width, 5, dtype), edits(width));
            let expected = host(&plain_edit(&tensor(&x, 8, dtype), &list)?);
            for machine in machines() {
                let mut found = Buffer::of(&x, dtype);
                edit::edit(&machine, dtype, &mut found, width, &list)?;
                let found = found.values(dtype);
                // The sums of a projection are in another order; all else is exact.
                let projected = |row: usize| matches!(row, 1 | 3);
                for row in 0..8 {
                    let part = row * width..(row + 1) * width;
                    let off = if projected(row) { tolerance(dtype) } else { 0.0 };
                    close(&found[part.clone()], &expected[part], off, &(machine, dtype, width, row));
                }
            }
        }
    }
    Ok(())
}

/// The gradient through a list of edits by the operation that engines use.
fn plain_back(x: &Tensor, grad: &Tensor, list: &[RowEdit]) -> Result<Vec<f32>> {
    let x = Var::from_tensor(x)?;
    // Of the sum of what the edits made times these numbers, which are the gradient with respect to it.
    let grads = (plain_edit(&x, list)? * grad)?.sum_all()?.backward()?;
    Ok(host(grads.get(&x).expect("edits have a gradient")))
}

#[test]
fn gradients_through_edits_are_those_of_the_cpu_in_every_order_for_every_dtype() -> Result<()> {
    for dtype in DTYPES {
        for width in [9, 64, 333] {
            let mut list = edits(width);
            // A clamp on what another left, and one on what is no number.
            list.push(RowEdit { row: 2, columns: [1..width - 2].into(), change: RowChange::Clamp(-0.25, 0.25) });
            list.push(RowEdit { row: 7, columns: [0..width].into(), change: RowChange::Clamp(-1.0, 1.0) });
            let (mut x, grad) = (random(8 * width, 5, dtype), random(8 * width, 9, dtype));
            x[7 * width + 1] = f32::NAN;
            let expected = plain_back(&tensor(&x, 8, dtype), &tensor(&grad, 8, dtype), &list)?;
            assert_eq!(expected[7 * width + 1], 0.0, "what is no number is not within");
            for machine in machines() {
                let (x, mut found) = (Buffer::of(&x, dtype), Buffer::of(&grad, dtype));
                edit::edit_back(&machine, dtype, &x, &mut found, width, &list)?;
                close(&found.values(dtype), &expected, tolerance(dtype), &(machine, dtype, width));
            }
        }
    }
    Ok(())
}

#[test]
fn each_barrier_of_the_edits_is_missed_there_and_back() -> Result<()> {
    let width = 300;
    // The second takes what the first left of a column to another thread: its columns begin elsewhere.
    let along: Arc<[f32]> = random(width, 3, DType::F32).into();
    let list = [
        RowEdit { row: 0, columns: [7..width].into(), change: RowChange::Clamp(-0.5, 0.5) },
        RowEdit { row: 0, columns: [0..width].into(), change: RowChange::ProjectOut(along) },
        RowEdit { row: 0, columns: [5..width - 1].into(), change: RowChange::Scale(3.0) },
    ];
    let (x, grad) = (random(width, 1, DType::F32), random(width, 2, DType::F32));
    let there = host(&plain_edit(&tensor(&x, 1, DType::F32), &list)?);
    let back = plain_back(&tensor(&x, 1, DType::F32), &tensor(&grad, 1, DType::F32), &list)?;
    let near = |found: &Buffer, expected: &[f32]| {
        // What is not there yet is NaN, which is near nothing.
        found.values(DType::F32).iter().zip(expected).all(|(f, e)| (f - e).abs() <= 1e-3)
    };
    for barrier in ["none", "1", "2", "3"] {
        let (mut seen_there, mut seen_back) = (0, 0);
        for order in ORDERS {
            let machine = WithoutBarrier::new("edit_rows", barrier, order);
            let mut found = Buffer::of(&x, DType::F32);
            edit::edit(&machine, DType::F32, &mut found, width, &list)?;
            seen_there += usize::from(!near(&found, &there));
            let mut found = Buffer::of(&grad, DType::F32);
            edit::edit_back(&machine, DType::F32, &Buffer::of(&x, DType::F32), &mut found, width, &list)?;
            seen_back += usize::from(!near(&found, &back));
        }
        assert_eq!((seen_there > 0, seen_back > 0), (barrier != "none", barrier != "none"), "barrier {barrier}");
    }
    Ok(())
}

#[test]
fn as_many_launches_are_made_for_a_thousand_forks_as_for_one() -> Result<()> {
    let width = 40;
    let one = |row: usize, change| RowEdit { row, columns: [3..20].into(), change };
    for forks in [1, 1000] {
        // A head of each is taken from one donor, scaled and cut off.
        let of_fork =
            |row| [RowChange::CopyRow(0), RowChange::Scale(0.5), RowChange::Clamp(-0.1, 0.1)].map(|c| one(row, c));
        let list: Vec<RowEdit> = (1..=forks).flat_map(of_fork).collect();
        let x = random((forks + 1) * width, 1, DType::F32);
        let machine = WithoutBarrier::new("none", "none", 0);
        edit::edit(&machine, DType::F32, &mut Buffer::of(&x, DType::F32), width, &list)?;
        // Widen, edit, narrow.
        assert_eq!(machine.launches.take(), 3, "{forks} forks");
        edit::edit_back(
            &machine,
            DType::F32,
            &Buffer::of(&x, DType::F32),
            &mut Buffer::of(&x, DType::F32),
            width,
            &list,
        )?;
        // Once more there for what the clamps mark, and back.
        assert_eq!(machine.launches.take(), 5, "{forks} forks");
    }
    Ok(())
}

#[test]
fn a_clamp_leaves_what_is_no_number() -> Result<()> {
    let list = [RowEdit { row: 0, columns: [0..4].into(), change: RowChange::Clamp(-1.0, 1.0) }];
    for dtype in DTYPES {
        let mut x = Buffer::of(&[f32::NAN, f32::NEG_INFINITY, 0.5, f32::INFINITY], dtype);
        edit::edit(&Cpu { order: 0, threads: 32 }, dtype, &mut x, 4, &list)?;
        let found = x.values(dtype);
        assert!(found[0].is_nan(), "{dtype:?}");
        assert_eq!(found[1..], [-1.0, 0.5, 1.0], "{dtype:?}");
    }
    Ok(())
}

#[test]
fn random_lists_of_edits_are_made_in_their_order() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for case in 0..60 {
        let width = rng.random_range(1..40);
        let x = random(6 * width, case, DType::F32);
        let list: Vec<RowEdit> = (0..rng.random_range(1..25))
            .map(|_| {
                let start = rng.random_range(0..width);
                let columns = [start..rng.random_range(start..=width)].into();
                let change = match rng.random_range(0..4) {
                    0 | 1 => RowChange::CopyRow(rng.random_range(0..6)),
                    2 => RowChange::Scale(rng.random_range(-2.0..2.0)),
                    _ => RowChange::Clamp(-0.5, 0.5),
                };
                RowEdit { row: rng.random_range(0..6), columns, change }
            })
            .collect();
        let expected = host(&plain_edit(&tensor(&x, 6, DType::F32), &list)?);
        for order in ORDERS {
            let mut found = Buffer::of(&x, DType::F32);
            edit::edit(&Cpu { order, threads: 32 }, DType::F32, &mut found, width, &list)?;
            assert_eq!(found.values(DType::F32), expected, "case {case} in order {order}: {list:?}");
        }
    }
    Ok(())
}

#[test]
fn head_dots_are_those_of_the_cpu_in_every_order_for_every_dtype() -> Result<()> {
    let (rows, directions) = (5, 3);
    let pairs: Vec<(u32, u32)> = vec![(4, 0), (0, 2), (0, 1), (3, 0)];
    for dtype in DTYPES {
        for (n_heads, d_head) in [(1, 1), (9, 33), (14, 64), (3, 256)] {
            let width = n_heads * d_head;
            let (z, through) = (random(rows * width, 1, dtype), random(directions * width, 2, DType::F32));
            let (tz, tt) = (tensor(&z, rows, dtype), tensor(&through, directions, DType::F32));
            let expected = host(&plain_head_dots(&tz, &tt, &pairs, n_heads)?);
            for machine in machines() {
                let mut out = Buffer::F32(vec![f32::NAN; pairs.len() * n_heads]);
                let given = [&Buffer::of(&z, dtype), &Buffer::of(&through, DType::F32)];
                dla::head_dots(&machine, dtype, given, &mut out, &pairs, [n_heads, d_head])?;
                close(&out.values(DType::F32), &expected, 1e-4, &(machine, dtype, n_heads, d_head));
            }
        }
    }
    Ok(())
}

/// A norm's numbers, in f64.
fn norm_in_f64(x: &[f32], weight: &[f32], bias: Option<&[f32]>, by: NormBy) -> Vec<f32> {
    let mut out = Vec::new();
    for (g, group) in x.chunks(by.group).enumerate() {
        let n = group.len() as f64;
        let mean = match by.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => group.iter().map(|x| f64::from(*x)).sum::<f64>() / n,
        };
        let square: f64 = group.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
        let scale = (square / n + by.eps).sqrt();
        for (i, x) in group.iter().enumerate() {
            let at = (g * by.group + i) % weight.len();
            let added = bias.filter(|_| by.kind == NormKind::Layer).map_or(0.0, |bias| f64::from(bias[at]));
            out.push(((f64::from(*x) - mean) / scale * f64::from(weight[at]) + added) as f32);
        }
    }
    out
}

/// Rows to norm: in one of them numbers are far from 0, in another they are all 0.
struct Normed {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    dtype: DType,
}

impl Normed {
    fn new(width: usize, dtype: DType) -> Normed {
        let mut x = random(5 * width, 4, DType::F32);
        x[width..2 * width].iter_mut().for_each(|x| *x += 30.0);
        x[3 * width..4 * width].fill(0.0);
        let x = Buffer::of(&x, dtype).values(dtype);
        Normed { x, weight: random(width, 5, DType::F32), bias: random(width, 6, DType::F32), dtype }
    }

    /// What a machine makes of it.
    fn by<M: Machine<Buffer = Buffer>>(&self, machine: &M, biased: bool, by: NormBy) -> Result<Vec<f32>> {
        let [x, weight, bias] = [(&self.x, self.dtype), (&self.weight, DType::F32), (&self.bias, DType::F32)]
            .map(|(values, dtype)| Buffer::of(values, dtype));
        let mut out = Buffer::of(&vec![f32::NAN; self.x.len()], self.dtype);
        let sizes = [self.x.len(), self.weight.len()];
        norm::norm(machine, self.dtype, [&x, &weight], biased.then_some(&bias), &mut out, sizes, by)?;
        Ok(out.values(self.dtype))
    }
}

/// Every kind of norm, with whether there is a bias.
fn norms(group: usize) -> [(NormBy, bool); 4] {
    let by = |kind| NormBy { kind, eps: 1e-5, group };
    let (rms, layer) = (by(NormKind::Rms), by(NormKind::Layer));
    [(rms, false), (rms, true), (layer, false), (layer, true)]
}

#[test]
fn norms_are_right_in_every_order_for_every_dtype() -> Result<()> {
    for dtype in DTYPES {
        // As wide as a weight, and in groups; a warp's and a block's.
        for (width, group) in [(1, 1), (33, 33), (36, 9), (300, 300), (514, 257)] {
            let given = Normed::new(width, dtype);
            let [weight, bias] = [&given.weight, &given.bias].map(|x| tensor(x, 1, DType::F32).squeeze(0));
            let (x, weight, bias) = (tensor(&given.x, 5, dtype), weight?, bias?);
            for (by, biased) in norms(group) {
                let expected = norm_in_f64(&given.x, &given.weight, biased.then_some(given.bias.as_slice()), by);
                let (bias, tolerance) = (biased.then_some(&bias), tolerance(dtype));
                close(&host(&plain_norm(&x, &weight, bias, by)?), &expected, tolerance, &("the twin", by));
                close(&host(&composed(&x, &weight, bias, by)?), &expected, tolerance, &("candle", by));
                for machine in machines() {
                    let found = given.by(&machine, biased, by)?;
                    close(&found, &expected, tolerance, &(machine, dtype, width, by, biased));
                }
            }
        }
    }
    Ok(())
}

/// A machine of which one kernel lacks a barrier, as `kernels/cpu/planted.cu` builds it again.
struct WithoutBarrier {
    kernel: &'static str,
    /// Which, as the planted kernel's name says it, or none.
    barrier: &'static str,
    on: Cpu,
    launches: Cell<usize>,
}

impl WithoutBarrier {
    fn new(kernel: &'static str, barrier: &'static str, order: u64) -> WithoutBarrier {
        WithoutBarrier { kernel, barrier, on: Cpu { order, threads: 96 }, launches: Cell::new(0) }
    }
}

impl Machine for WithoutBarrier {
    type Buffer = Buffer;

    fn ints(&self, values: &[i32]) -> Result<Buffer> {
        self.on.ints(values)
    }

    fn floats(&self, values: &[f32]) -> Result<Buffer> {
        self.on.floats(values)
    }

    fn blank(&self, n: usize) -> Result<Buffer> {
        self.on.blank(n)
    }

    fn launch(&self, kernel: &Kernel, grid: Grid, arguments: &mut [Argument<Buffer>]) -> Result<()> {
        self.launches.set(self.launches.get() + 1);
        let planted = format!("{}_without_barrier_{}", self.kernel, self.barrier);
        let name =
            if self.barrier == "none" { kernel.name.clone() } else { kernel.name.replace(self.kernel, &planted) };
        self.on.launch(&Kernel { file: kernel.file, name }, grid, arguments)
    }

    fn threads(&self) -> u32 {
        self.on.threads()
    }
}

#[test]
fn each_barrier_of_the_norm_is_missed() -> Result<()> {
    let given = Normed::new(300, DType::F32);
    let by = NormBy { kind: NormKind::Layer, eps: 1e-5, group: 300 };
    let expected = norm_in_f64(&given.x, &given.weight, None, by);
    let mut seen = [Vec::new(), Vec::new()];
    for (barrier, seen) in ["1", "2"].into_iter().zip(&mut seen) {
        for order in ORDERS {
            let machine = WithoutBarrier::new("norm", barrier, order);
            let found = given.by(&machine, false, by)?;
            // What is not there yet is NaN, which is near nothing.
            if !found.iter().zip(&expected).all(|(f, e)| (f - e).abs() <= 1e-3) {
                seen.push(order);
            }
        }
    }
    // Without the first a sum reads what is not there. Without the second it does only where a warp gets ahead of another.
    assert_eq!(seen, [ORDERS.to_vec(), ORDERS[2..].to_vec()]);
    Ok(())
}

/// Runs a small kernel of `kernels/cpu/planted.cu` on one block.
fn planted(name: &str, order: u64, threads: u32) -> Result<Vec<f32>> {
    let from = Buffer::F32((0..threads).map(|i| i as f32).collect());
    let mut to = Buffer::F32(vec![f32::NAN; threads as usize]);
    let kernel = Kernel { file: "planted", name: name.to_string() };
    let grid = Grid { x: 1, y: 1, shared: 0 };
    Cpu { order, threads }.launch(&kernel, grid, &mut [Argument::Read(&from), Argument::Write(&mut to)])?;
    Ok(to.values(DType::F32))
}

#[test]
fn a_missing_barrier_is_seen() -> Result<()> {
    let reversed: Vec<f32> = (0..64).rev().map(|i| i as f32).collect();
    let shifted: Vec<f32> = (0..64).map(|i: i32| (i - 1).max(0) as f32).collect();
    for order in ORDERS {
        assert_eq!(planted("reverse", order, 64)?, reversed, "the sound kernel in order {order}");
    }
    let wrong = |name: &str, right: &[f32]| -> Result<Vec<u64>> {
        let mut seen = Vec::new();
        for order in ORDERS {
            let found = planted(name, order, 64)?;
            // What is not there yet is NaN, which equals nothing.
            if found != right {
                seen.push(order);
            }
        }
        Ok(seen)
    };
    assert_eq!(wrong("reverse_without_barrier", &reversed)?, ORDERS);
    // In forward order the thread before has always run: only other orders show it.
    assert_eq!(wrong("neighbour_without_barrier", &shifted)?, ORDERS[1..]);
    // And only where one warp gets ahead of another.
    assert_eq!(wrong("overwritten_too_soon", &reversed)?, ORDERS[2..]);
    Ok(())
}

#[test]
fn threads_that_part_ways_and_writes_outside_shared_memory_are_seen() {
    for order in ORDERS {
        let why = |name: &str| planted(name, order, 32).map_err(|e| e.to_string()).expect_err("a planted bug");
        assert!(why("leaves_before_barrier").contains("different barriers"));
        assert!(why("two_barriers").contains("different barriers"));
        assert!(why("shuffle_without_one").contains("different shuffles"));
        assert!(why("outside_shared").contains("outside its shared memory"));
    }
}
