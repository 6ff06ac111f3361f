//! Rows of a matrix in another order.

use super::on_cpu;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Numbers that one task copies.
const CHUNK: usize = 1 << 16;

/// Rows of `x`, of which `from` names one for each of the result; some may come several times. `[rows, width]` to `[from, width]`
///
/// candle's own selection of rows is one task's work; of all activations of a sweep it is a good part of the time.
///
/// # Errors
/// If a row is out of range or candle fails.
pub fn take_rows(x: &Tensor, from: &[u32]) -> Result<Tensor> {
    match on_cpu(x) && !x.track_op() {
        true => x.contiguous()?.apply_op1_no_bwd(&TakeRows(from)),
        false => x.index_select(&Tensor::new(from, x.device())?, 0),
    }
}

/// A copy of numbers, by all cores.
pub(super) fn copied<T: Copy + Default + Send + Sync>(x: &[T]) -> Vec<T> {
    let mut out = vec![T::default(); x.len()];
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| out.copy_from_slice(x));
    out
}

struct TakeRows<'a>(&'a [u32]);

impl TakeRows<'_> {
    fn of<T: Copy + Default + Send + Sync>(&self, x: &[T], width: usize) -> Vec<T> {
        let mut out = vec![T::default(); self.0.len() * width];
        let rows = (CHUNK / width.max(1)).max(1);
        let tasks = out.par_chunks_mut((rows * width).max(1)).zip(self.0.par_chunks(rows));
        tasks.for_each(|(out, from)| {
            for (out, row) in out.chunks_exact_mut(width.max(1)).zip(from) {
                let at = *row as usize * width;
                out.copy_from_slice(&x[at..at + width]);
            }
        });
        out
    }
}

impl CustomOp1 for TakeRows<'_> {
    fn name(&self) -> &'static str {
        "take rows"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        if let Some(row) = self.0.iter().find(|row| **row as usize >= rows) {
            candle_core::bail!("row {row} of {rows}")
        }
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("a kernel was given a tensor that is not contiguous")
        };
        let taken = match storage {
            CpuStorage::F32(x) => CpuStorage::F32(self.of(&x[start..end], width)),
            CpuStorage::BF16(x) => CpuStorage::BF16(self.of(&x[start..end], width)),
            CpuStorage::F16(x) => CpuStorage::F16(self.of(&x[start..end], width)),
            _ => candle_core::bail!("activations are f32, bf16 or f16"),
        };
        Ok((taken, (self.0.len(), width).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn rows_are_those_that_candle_selects() {
        // More numbers than one task takes, and rows in no order.
        let x = Tensor::arange(0f32, 700.0 * 300.0, &Device::Cpu).unwrap().reshape((700, 300)).unwrap();
        let from: Vec<u32> = (0..1500u32).map(|i| i * 7919 % 700).collect();
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let x = x.to_dtype(dtype).unwrap().narrow(0, 3, 690).unwrap();
            let from: Vec<u32> = from.iter().map(|row| row % 690).collect();
            let found = take_rows(&x, &from).unwrap();
            let expected = x.index_select(&Tensor::new(from, &Device::Cpu).unwrap(), 0).unwrap();
            let numbers = |t: &Tensor| t.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(numbers(&found), numbers(&expected), "{dtype:?}");
        }
        assert!(take_rows(&x, &[700]).is_err());
        assert_eq!(take_rows(&x, &[]).unwrap().dims(), [0, 300]);
    }
}
