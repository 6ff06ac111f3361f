//! Changes to chosen columns of chosen rows.

use super::{floats, narrowed, on_cpu};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A function of a caller's on a part of a row.
pub type RowFunction = Arc<dyn Fn(&mut [f32]) + Send + Sync>;

/// What is done to the chosen numbers of a row.
#[derive(Clone)]
pub enum RowChange {
    Zero,
    /// Take the same columns of another row, as the edits before this one left it.
    CopyRow(usize),
    /// Take these numbers, as many as the columns.
    Set(Arc<[f32]>),
    /// Add a vector, as long as the columns, times a coefficient.
    Add(Arc<[f32]>, f32),
    /// Take out the part along a direction, as long as the columns.
    ProjectOut(Arc<[f32]>),
    Scale(f32),
    Clamp(f32, f32),
    /// A function of the caller's, on the columns joined.
    Map(RowFunction),
}

impl fmt::Debug for RowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowChange::Zero => f.write_str("Zero"),
            RowChange::CopyRow(row) => write!(f, "CopyRow({row})"),
            RowChange::Set(x) => write!(f, "Set([{}])", x.len()),
            RowChange::Add(x, c) => write!(f, "Add([{}], {c})", x.len()),
            RowChange::ProjectOut(x) => write!(f, "ProjectOut([{}])", x.len()),
            RowChange::Scale(c) => write!(f, "Scale({c})"),
            RowChange::Clamp(a, b) => write!(f, "Clamp({a}, {b})"),
            RowChange::Map(_) => f.write_str("Map(..)"),
        }
    }
}

/// One change to one row of `[rows, width]`. Changes of a list are made in its order.
#[derive(Clone, Debug)]
pub struct RowEdit {
    pub row: usize,
    pub columns: Arc<[Range<usize>]>,
    pub change: RowChange,
}

impl RowEdit {
    /// Whether it calls a function of the caller's.
    fn calls_back(&self) -> bool {
        matches!(self.change, RowChange::Map(_))
    }

    /// Whether it fits `[rows, width]`.
    fn check(&self, rows: usize, width: usize) -> Result<()> {
        let wide = self.columns.iter().map(|c| c.len()).sum::<usize>();
        let sound = self.row < rows
            && self.columns.iter().all(|c| c.start <= c.end && c.end <= width)
            && match &self.change {
                RowChange::CopyRow(from) => *from < rows,
                RowChange::Set(x) | RowChange::Add(x, _) | RowChange::ProjectOut(x) => x.len() == wide,
                _ => true,
            };
        if !sound {
            candle_core::bail!("edit {self:?} does not fit {rows} rows of {width}")
        }
        Ok(())
    }
}

/// `x` with the edits made. `[rows, width]`
///
/// For gradients what an edit takes from elsewhere is a constant, a copied row too: nothing flows back to that row. The
/// derivative of a caller's function is not known: what lies behind it gets NaN.
///
/// # Errors
/// If a row, a column or a vector's length does not fit, or candle fails.
pub fn edit(x: &Tensor, edits: &[RowEdit]) -> Result<Tensor> {
    if edits.is_empty() {
        return Ok(x.clone());
    }
    // A caller's function runs on the host.
    let kernels = cfg!(feature = "cuda") && x.device().is_cuda() && !edits.iter().any(RowEdit::calls_back);
    let here = on_cpu(x) || kernels;
    let from = if here { x.clone() } else { x.to_device(&Device::Cpu)? }.contiguous()?;
    let edited = match from.track_op() {
        true => from.apply_op1(Edits(edits.to_vec().into()))?,
        false => from.apply_op1_no_bwd(&Edits(edits.into()))?,
    };
    if here { Ok(edited) } else { edited.to_device(x.device()) }
}

struct Edits<'a>(Cow<'a, [RowEdit]>);

impl CustomOp1 for Edits<'_> {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let mut out = floats(storage, layout)?.into_owned();
        for e in self.0.iter() {
            e.check(rows, width)?;
            apply(&mut out, width, e);
        }
        Ok(narrowed(out, storage, layout.shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        self.0.iter().try_for_each(|e| e.check(rows, width))?;
        Ok((super::kernels::cuda::edited(storage, layout, &self.0)?, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        x.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &EditsBack(&self.0)).map(Some)
    }
}

/// The way back through edits: from what they were made on and the gradient with respect to what they made, the gradient with respect
/// to the former. `[rows, width]` each.
struct EditsBack<'a>(&'a [RowEdit]);

impl CustomOp2 for EditsBack<'_> {
    fn name(&self) -> &'static str {
        "edit back"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = l1.shape().dims2()?.1;
        let (mut values, mut back) = (floats(s1, l1)?.into_owned(), floats(s2, l2)?.into_owned());
        // What a clamp lets through depends on what it was given, after the edits before it.
        let mut passed: Vec<Vec<bool>> = Vec::new();
        for e in self.0 {
            let mut inside = Vec::new();
            if let RowChange::Clamp(low, high) = &e.change {
                each(&mut values, e.row * width, &e.columns, |v, _| inside.push((*low..=*high).contains(v)));
            }
            passed.push(inside);
            apply(&mut values, width, e);
        }
        for (e, inside) in self.0.iter().zip(&passed).rev() {
            apply_back(&mut back, width, e, inside);
        }
        Ok(narrowed(back, s2, l2.shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &candle_core::CudaStorage,
        l1: &Layout,
        s2: &candle_core::CudaStorage,
        l2: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        Ok((super::kernels::cuda::edited_back([(s1, l1), (s2, l2)], self.0)?, l2.shape().clone()))
    }
}

/// Turns the gradient with respect to an edit's result into that with respect to what it was made on; `inside` says which
/// numbers a clamp left as they were.
fn apply_back(grad: &mut [f32], width: usize, e: &RowEdit, inside: &[bool]) {
    let at = e.row * width;
    match &e.change {
        RowChange::Zero | RowChange::Set(_) | RowChange::CopyRow(_) => each(grad, at, &e.columns, |g, _| *g = 0.0),
        RowChange::Add(..) => {}
        // A projection is its own transpose, a multiple too.
        RowChange::ProjectOut(_) | RowChange::Scale(_) => apply(grad, width, e),
        RowChange::Clamp(..) => each(grad, at, &e.columns, |g, i| *g = if inside[i] { *g } else { 0.0 }),
        RowChange::Map(_) => each(grad, at, &e.columns, |g, _| *g = f32::NAN),
    }
}

/// Makes one edit, which was checked to fit.
fn apply(x: &mut [f32], width: usize, e: &RowEdit) {
    let at = e.row * width;
    match &e.change {
        RowChange::CopyRow(from) => {
            for c in e.columns.iter() {
                x.copy_within(from * width + c.start..from * width + c.end, at + c.start);
            }
        }
        RowChange::Map(f) => {
            let mut joined: Vec<f32> = e.columns.iter().flat_map(|c| x[at + c.start..at + c.end].to_vec()).collect();
            f(&mut joined);
            let mut rest = joined.as_slice();
            for c in e.columns.iter() {
                let (part, later) = rest.split_at(c.len());
                x[at + c.start..at + c.end].copy_from_slice(part);
                rest = later;
            }
        }
        RowChange::ProjectOut(r) => {
            let (mut along, mut square, mut i) = (0f64, 0f64, 0);
            for v in e.columns.iter().flat_map(|c| &x[at + c.start..at + c.end]) {
                along += f64::from(*v) * f64::from(r[i]);
                square += f64::from(r[i]) * f64::from(r[i]);
                i += 1;
            }
            let c = if square > 0.0 { (along / square) as f32 } else { 0.0 };
            each(x, at, &e.columns, |v, i| *v -= c * r[i]);
        }
        RowChange::Zero => each(x, at, &e.columns, |v, _| *v = 0.0),
        RowChange::Set(values) => each(x, at, &e.columns, |v, i| *v = values[i]),
        RowChange::Add(values, c) => each(x, at, &e.columns, |v, i| *v += c * values[i]),
        RowChange::Scale(c) => each(x, at, &e.columns, |v, _| *v *= c),
        // What is no number stays so: `max` and `min` would make a number of it.
        RowChange::Clamp(low, high) => {
            each(x, at, &e.columns, |v, _| *v = if v.is_nan() { *v } else { v.max(*low).min(*high) })
        }
    }
}

/// Visits the columns of the row that begins at `at`, with the index in the columns joined.
fn each(x: &mut [f32], at: usize, columns: &[Range<usize>], mut f: impl FnMut(&mut f32, usize)) {
    let mut i = 0;
    for c in columns {
        for v in &mut x[at + c.start..at + c.end] {
            f(v, i);
            i += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x() -> Tensor {
        Tensor::arange(0f32, 12.0, &Device::Cpu).and_then(|t| t.reshape((3, 4))).expect("a small tensor")
    }

    fn one(row: usize, columns: &[Range<usize>], change: RowChange) -> RowEdit {
        RowEdit { row, columns: columns.into(), change }
    }

    fn after(edits: &[RowEdit]) -> Vec<Vec<f32>> {
        edit(&x(), edits).and_then(|t| t.to_vec2()).expect("edits that fit")
    }

    #[test]
    fn each_change_touches_its_columns_alone() {
        assert_eq!(after(&[one(0, &[1..3], RowChange::Zero)])[0], [0.0, 0.0, 0.0, 3.0]);
        assert_eq!(after(&[one(0, &[0..1, 3..4], RowChange::Set([7.0, 8.0].into()))])[0], [7.0, 1.0, 2.0, 8.0]);
        assert_eq!(after(&[one(1, &[0..2], RowChange::Add([1.0, 2.0].into(), 0.5))])[1], [4.5, 6.0, 6.0, 7.0]);
        assert_eq!(after(&[one(2, &[0..4], RowChange::Clamp(8.5, 10.0))])[2], [8.5, 9.0, 10.0, 10.0]);
        assert_eq!(after(&[one(2, &[3..4], RowChange::Scale(-1.0))])[2], [8.0, 9.0, 10.0, -11.0]);
        let reverse = RowChange::Map(Arc::new(|v: &mut [f32]| v.reverse()));
        assert_eq!(after(&[one(0, &[0..1, 3..4], reverse)])[0], [3.0, 1.0, 2.0, 0.0]);
        assert_eq!(after(&[one(0, &[1..2], RowChange::Zero)])[1..], [[4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]);
    }

    #[test]
    fn a_clamp_leaves_what_is_no_number() -> Result<()> {
        let x = Tensor::new(&[[f32::NAN, f32::NEG_INFINITY, 0.5, f32::INFINITY]], &Device::Cpu)?;
        let row = edit(&x, &[one(0, &[0..4], RowChange::Clamp(-1.0, 1.0))])?.flatten_all()?.to_vec1::<f32>()?;
        assert!(row[0].is_nan());
        assert_eq!(row[1..], [-1.0, 0.5, 1.0]);
        Ok(())
    }

    #[test]
    fn nothing_is_left_along_a_direction_that_was_taken_out() {
        let row = &after(&[one(1, &[0..4], RowChange::ProjectOut([1.0, 1.0, 0.0, 0.0].into()))])[1];
        assert_eq!(row, &[-0.5, 0.5, 6.0, 7.0]);
    }

    #[test]
    fn a_copy_sees_the_edits_before_it() {
        let edits = [one(0, &[0..4], RowChange::Zero), one(2, &[0..2], RowChange::CopyRow(0))];
        assert_eq!(after(&edits)[2], [0.0, 0.0, 10.0, 11.0]);
    }

    #[test]
    fn an_edit_that_does_not_fit_is_an_error() {
        assert!(edit(&x(), &[one(3, &[0..1], RowChange::Zero)]).is_err());
        assert!(edit(&x(), &[one(0, &[0..5], RowChange::Zero)]).is_err());
        assert!(edit(&x(), &[one(0, &[0..2], RowChange::Set([1.0].into()))]).is_err());
        assert!(edit(&x(), &[one(0, &[0..2], RowChange::CopyRow(9))]).is_err());
    }
}
