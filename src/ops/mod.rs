//! The tensor operations of the decoder that candle has no fast form of on the CPU, or no good one on a GPU.
//!
//! Each is a function on tensors. On the CPU it is a candle `CustomOp` whose kernel is a loop over slices, compiled for plain
//! x86-64 and for AVX2 with FMA and chosen when it runs; those that cost something use all cores (rayon over rows). On a GPU
//! attention, edits, norms and [`head_dots`] are kernels of this package (`kernels/`), the others the same formula
//! composed of candle's own operations. Tests hold the forms together.
//!
//! A result computed from a tensor that a graph tracks is tracked too, with a gradient that tests hold to finite differences;
//! what has none ([`head_dots`], on the CPU attention of anything but whole prompts) is an error there. Weights are constants:
//! none gets a gradient. Activations may be f32, bf16 or f16; kernels compute in f32. Products with weights go through
//! [`Weight`] and use every core; those inside attention are gemm's, one task each.

pub mod attention;
mod convolution;
mod dla;
mod edit;
mod elementwise;
#[cfg(any(feature = "cuda", all(test, feature = "kernels-on-cpu")))]
mod kernels;
mod norm;
mod panels;
mod product;
mod rope;
pub mod rows;
mod scan;
mod simd;
#[cfg(test)]
mod slopes;
pub mod vectors;
mod wkv;

pub use convolution::{convolution, shifted};
pub use dla::head_dots;
pub use edit::{RowChange, RowEdit, RowFunction, edit};
pub use elementwise::{Activation, XIelu, activate, activate_gate, add, add_bias, softcap};
pub use norm::{NormBy, NormKind, norm};
pub use product::{Weight, portable, products};
pub use rope::rotate;
pub use scan::{Recurrence, scan, stretch};
pub use wkv::Wkv;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Layout, Result, Shape, Tensor};
use half::slice::HalfFloatSliceExt;
use std::borrow::Cow;

/// Rows that one task of a row-parallel kernel takes at least; below it a task costs more than it saves.
const ROWS_A_TASK: usize = 8;

/// A contiguous CPU tensor's numbers, widened to f32.
fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [f32]>> {
    let Some((from, to)) = layout.contiguous_offsets() else {
        candle_core::bail!("a kernel was given a tensor that is not contiguous")
    };
    Ok(match storage {
        CpuStorage::F32(x) => Cow::Borrowed(&x[from..to]),
        CpuStorage::BF16(x) => Cow::Owned(x[from..to].to_f32_vec()),
        CpuStorage::F16(x) => Cow::Owned(x[from..to].to_f32_vec()),
        other => candle_core::bail!("a kernel was given {:?}; it takes f32, bf16 and f16", other.dtype()),
    })
}

/// `values` in the dtype of `like`.
fn narrowed(values: Vec<f32>, like: &CpuStorage, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    let storage = match like {
        CpuStorage::BF16(_) => CpuStorage::BF16(values.into_iter().map(half::bf16::from_f32).collect()),
        CpuStorage::F16(_) => CpuStorage::F16(values.into_iter().map(half::f16::from_f32).collect()),
        _ => CpuStorage::F32(values),
    };
    (storage, shape.into())
}

/// The numbers of a tensor as f32 on the host, row-major.
///
/// # Errors
/// If the device fails.
pub fn to_vec(x: &Tensor) -> Result<Vec<f32>> {
    x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// Whether the CPU kernels apply.
fn on_cpu(x: &Tensor) -> bool {
    x.device().is_cpu()
}
