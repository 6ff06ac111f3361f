//! The kernels of this package on the device, held to their twins on the CPU, of the same numbers.

use crate::compare::off;
use crate::report::Finding;
use crate::{Failed, Setting};
use candle_core::{DType, Device, Result, Tensor, Var};
use gatelens::ops::attention::{Heads, attention};
use gatelens::ops::rows::{Rows, Span};
use gatelens::ops::{NormBy, NormKind, RowChange, RowEdit, Weight, edit, head_dots, norm, to_vec};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub fn stage(setting: &Setting) -> std::result::Result<(), Failed> {
    let mut held = Held { device: &setting.device, worst: BTreeMap::new(), wrong: Vec::new() };
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        held.attention(dtype)?;
        held.edits(dtype)?;
        held.products_of_heads(dtype)?;
        held.head_dots(dtype)?;
        held.norms(dtype)?;
    }
    for (of, off) in &held.worst {
        Finding::number(format!("{of}: largest difference from the CPU"), *off, "").say()?;
    }
    if held.wrong.is_empty() { Ok(()) } else { Err(held.wrong.join("; ").into()) }
}

/// Kernels on a device beside their twins.
struct Held<'a> {
    device: &'a Device,
    /// The largest difference of each kernel and dtype.
    worst: BTreeMap<String, f64>,
    /// The cases that are off by too much.
    wrong: Vec<String>,
}

impl Held<'_> {
    /// Computes a case in both places.
    fn hold(
        &mut self,
        kernel: &str,
        case: String,
        dtype: DType,
        inputs: &[Tensor],
        op: impl Fn(&[Tensor]) -> Result<Tensor>,
    ) -> Result<()> {
        let there = inputs.iter().map(|x| x.to_device(self.device)).collect::<Result<Vec<_>>>()?;
        let off = off(&to_vec(&op(&there)?)?, &to_vec(&op(inputs)?)?);
        let worst = self.worst.entry(format!("{kernel}, {}", dtype.as_str())).or_default();
        *worst = worst.max(off);
        if off > tolerance(dtype) {
            self.wrong.push(format!("{kernel} of {case} in {} is off by {off:.1e}", dtype.as_str()));
        }
        Ok(())
    }

    /// Heads, groups, windows and caps over prompts and forks of forks.
    fn attention(&mut self, dtype: DType) -> Result<()> {
        let shape = |n_heads: usize, n_kv_heads: usize, d_head: usize| {
            let scale = (d_head as f64).powf(-0.5);
            Heads { n_heads, n_kv_heads, d_head, scale, ..Heads::default() }
        };
        let mut shapes = vec![shape(1, 1, 1), shape(3, 1, 7), shape(4, 2, 33), shape(9, 3, 64), shape(8, 8, 128)];
        shapes.extend([shape(2, 1, 256), Heads { window: Some(3), ..shape(4, 2, 16) }]);
        shapes.extend([33, 1000].map(|window| Heads { window: Some(window), softcap: Some(1.5), ..shape(4, 1, 48) }));
        let rows = rows();
        for heads in shapes {
            let [wide, narrow] = [heads.n_heads, heads.n_kv_heads].map(|n| (rows.len(), n * heads.d_head));
            let inputs = [numbers(wide, 1, dtype)?, numbers(narrow, 2, dtype)?, numbers(narrow, 3, dtype)?];
            self.hold("attention", format!("{heads:?}"), dtype, &inputs, |x| {
                attention(&x[0], &x[1], &x[2], &rows, heads)
            })?;
        }
        Ok(())
    }

    /// Changes of every kind, on rows that others copy before and after.
    fn edits(&mut self, dtype: DType) -> Result<()> {
        for width in [9, 64, 333, 4096] {
            let list = edits(width);
            let x = [numbers((8, width), 5, dtype)?];
            self.hold("edits", format!("rows of {width}"), dtype, &x, |x| edit(&x[0], &list))?;
            let x = [numbers((8, width), 5, dtype)?, numbers((8, width), 6, dtype)?];
            self.hold("gradients of edits", format!("rows of {width}"), dtype, &x, |x| {
                let given = Var::from_tensor(&x[0])?;
                let grads = (edit(&given, &list)? * &x[1])?.sum_all()?.backward()?;
                grads.get(&given).cloned().map_or_else(|| given.zeros_like(), Ok)
            })?;
        }
        Ok(())
    }

    /// Rows of which each is for one head, some heads with none and one with most, and the gradients.
    fn products_of_heads(&mut self, dtype: DType) -> Result<()> {
        for (rows, inputs, heads, d_head) in [(1, 9, 3, 5), (70, 64, 9, 64), (500, 576, 32, 128)] {
            let of: Vec<usize> = (0..rows).map(|row| if row % 2 == 0 { 1 } else { row % (heads - 1) }).collect();
            // Sums as large as the numbers are.
            let weight =
                (numbers((heads * d_head, inputs), 2, DType::F32)? / (inputs as f64).sqrt())?.to_dtype(dtype)?;
            let inputs = [numbers((rows, inputs), 1, dtype)?, weight, numbers((rows, d_head), 3, dtype)?];
            let case = format!("{rows} rows for {heads} heads of {d_head}");
            self.hold("products of heads", case.clone(), dtype, &inputs, |x| {
                Weight::new(&x[1])?.product_by_group(&x[0], &of, d_head)
            })?;
            self.hold("gradients of products of heads", case, dtype, &inputs, |x| {
                let given = Var::from_tensor(&x[0])?;
                let made = Weight::new(&x[1])?.product_by_group(&given, &of, d_head)?;
                let grads = (made * &x[2])?.sum_all()?.backward()?;
                grads.get(&given).cloned().map_or_else(|| given.zeros_like(), Ok)
            })?;
        }
        Ok(())
    }

    fn head_dots(&mut self, dtype: DType) -> Result<()> {
        let pairs = [(4, 0), (0, 2), (0, 1), (3, 0)];
        for (n_heads, d_head) in [(1, 1), (9, 33), (14, 64), (3, 256)] {
            let width = n_heads * d_head;
            let inputs = [numbers((5, width), 1, dtype)?, numbers((3, width), 2, DType::F32)?];
            let case = format!("{n_heads} heads of {d_head}");
            self.hold("dot products of heads", case, dtype, &inputs, |x| head_dots(&x[0], &x[1], &pairs, n_heads))?;
        }
        Ok(())
    }

    /// Both kinds, with and without a bias, over whole rows and over heads of them.
    fn norms(&mut self, dtype: DType) -> Result<()> {
        for (width, group) in
            [(1, 1), (33, 33), (36, 9), (576, 64), (576, 576), (4096, 128), (4096, 4096), (11_008, 11_008)]
        {
            let vector = |seed| numbers((1, width), seed, DType::F32)?.squeeze(0);
            let inputs = [numbers((37, width), 4, dtype)?, vector(5)?, vector(6)?];
            for kind in [NormKind::Rms, NormKind::Layer] {
                for biased in [false, true] {
                    let by = NormBy { kind, eps: 1e-5, group };
                    let case = format!("rows of {width} by {by:?}, bias: {biased}");
                    self.hold("norms", case, dtype, &inputs, |x| norm(&x[0], &x[1], biased.then_some(&x[2]), by))?;
                }
            }
        }
        Ok(())
    }
}

/// What both may differ by: each rounds to the dtype by itself.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 1.0 / 64.0,
        DType::F16 => 1.0 / 512.0,
        _ => 1e-4,
    }
}

/// Numbers between -2 and 2 that a seed decides, on the CPU.
fn numbers(shape: (usize, usize), seed: u64, dtype: DType) -> Result<Tensor> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.0 * shape.1).map(|_| random.random_range(-2.0..2.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)
}

/// Prompts and forks of forks, a long one among them, one row and more a fork.
fn rows() -> Rows {
    let spans = vec![
        Span::new(0..337, 0, Vec::new()),
        Span::new(337..341, 333, vec![0..333]),
        Span::new(341..342, 336, vec![0..336]),
        Span::new(342..343, 336, vec![0..336]),
        Span::new(343..346, 334, vec![0..333, 337..338]),
        Span::new(346..351, 0, Vec::new()),
        Span::new(351..352, 4, vec![346..350]),
    ];
    Rows { entries: vec![0; 352], spans }
}

/// Changes of eight rows, over several ranges of columns.
fn edits(width: usize) -> Vec<RowEdit> {
    let vector = |n: usize, seed: usize| -> Arc<[f32]> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0).collect()
    };
    let all: Arc<[Range<usize>]> = [0..width].into();
    let some: Arc<[Range<usize>]> = [1..width / 3, width / 2..width - 1].into();
    let (on_all, on_some) = (vector(width, 7), vector(some.iter().map(Range::len).sum(), 8));
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
        one(3, &all, RowChange::CopyRow(6)),
        one(6, &all, RowChange::Zero),
    ]
}
