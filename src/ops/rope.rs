//! Rotation of queries and keys by their positions.

use super::{ROWS_A_TASK, floats, narrowed, on_cpu, simd};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Rotates every head of `x` by its row's angles: `[rows, heads * d_head]`, with `cos` and `sin` `[entries, rotary / 2]`
/// in f32 and `entries` naming the one of each row. The halves of the rotated part turn against each other (the
/// convention of Hugging Face checkpoints); what is beyond it passes through.
///
/// # Errors
/// If an entry is out of range, the widths do not fit, or candle fails.
pub fn rotate(x: &Tensor, d_head: usize, cos: &Tensor, sin: &Tensor, entries: &[u32]) -> Result<Tensor> {
    let n = cos.dim(0)?;
    // Checked here because index operations on some devices are not.
    if entries.iter().any(|e| *e as usize >= n) || entries.len() != x.dim(0)? {
        candle_core::bail!("rotation of {} rows by entries beyond {n}", x.dim(0)?)
    }
    if on_cpu(x) {
        x.contiguous()?.apply_op3(cos, sin, Rotate { d_head, entries: entries.to_vec() })
    } else {
        composed(x, d_head, cos, sin, entries)
    }
}

/// [`rotate`] of candle's own operations, on any device.
pub(super) fn composed(x: &Tensor, d_head: usize, cos: &Tensor, sin: &Tensor, entries: &[u32]) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let half = cos.dim(1)?;
    let index = Tensor::new(entries, x.device())?;
    let pick = |t: &Tensor| t.index_select(&index, 0)?.unsqueeze(1)?.to_dtype(x.dtype());
    let (cos, sin) = (pick(cos)?, pick(sin)?);
    let heads = x.reshape((rows, width / d_head, d_head))?;
    let (x1, x2) = (heads.narrow(2, 0, half)?, heads.narrow(2, half, half)?);
    let o1 = (x1.broadcast_mul(&cos)? - x2.broadcast_mul(&sin)?)?;
    let o2 = (x2.broadcast_mul(&cos)? + x1.broadcast_mul(&sin)?)?;
    let rest = heads.narrow(2, 2 * half, d_head - 2 * half)?;
    Tensor::cat(&[o1, o2, rest], 2)?.reshape((rows, width))
}

struct Rotate {
    d_head: usize,
    entries: Vec<u32>,
}

impl CustomOp3 for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, cos, sin) = (floats(s1, l1)?, floats(s2, l2)?, floats(s3, l3)?);
        let half = l2.shape().dims2()?.1;
        let (_, width) = l1.shape().dims2()?;
        if 2 * half > self.d_head || width % self.d_head != 0 {
            candle_core::bail!("rotation of heads of {} in rows of {width} by {half} angles", self.d_head)
        }
        let mut out = vec![0f32; x.len()];
        let rows = out.par_chunks_mut(width).zip(x.par_chunks(width)).zip(&self.entries).with_min_len(ROWS_A_TASK);
        rows.for_each(|((out, x), entry)| {
            let at = *entry as usize * half;
            let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
            for (out, x) in out.chunks_exact_mut(self.d_head).zip(x.chunks_exact(self.d_head)) {
                simd::rotate_head(x, cos, sin, out);
            }
        });
        Ok(narrowed(out, s1, l1.shape()))
    }

    /// A rotation's transpose is the rotation back.
    fn bwd(
        &self,
        _: &Tensor,
        cos: &Tensor,
        sin: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.contiguous()?.apply_op3_no_bwd(cos, &sin.neg()?, self)?), None, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_kernel_equals_the_composed_form_with_and_without_a_part_that_passes() -> Result<()> {
        let device = Device::Cpu;
        for (d_head, half) in [(16, 8), (12, 3), (2, 1)] {
            let x = Tensor::randn(0f32, 1.0, (5, 3 * d_head), &device)?;
            let (cos, sin) =
                (Tensor::randn(0f32, 1.0, (4, half), &device)?, Tensor::randn(0f32, 1.0, (4, half), &device)?);
            let entries = [3, 0, 1, 1, 2];
            let fast = rotate(&x, d_head, &cos, &sin, &entries)?;
            let slow = composed(&x, d_head, &cos, &sin, &entries)?;
            assert!((fast - slow)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-5);
        }
        Ok(())
    }

    #[test]
    fn an_entry_out_of_range_is_an_error() -> Result<()> {
        let device = Device::Cpu;
        let (x, angles) = (
            Tensor::zeros((1, 4), candle_core::DType::F32, &device)?,
            Tensor::ones((2, 1), candle_core::DType::F32, &device)?,
        );
        assert!(rotate(&x, 4, &angles, &angles, &[2]).is_err());
        Ok(())
    }
}
