//! Norms over the last dimension.

use super::{ROWS_A_TASK, floats, narrowed, on_cpu, simd};
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// How a norm scales: by the root mean square, or, after centring, by the standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    Rms,
    Layer,
}

/// How [`norm`] scales.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormBy {
    pub kind: NormKind,
    pub eps: f64,
    /// How many numbers are scaled together, a divisor of the weight's: heads may have a weight each.
    pub group: usize,
}

/// Norms `x`, whose rows are as wide as the weight, or several times as wide: head by head where the weight is as wide as a
/// head. Within the weight's width, each `group` of numbers is scaled by itself. `bias` is read by the layer norm alone.
/// Weights are constants, in f32 whatever `x` is.
///
/// # Errors
/// If the widths do not divide or candle fails.
pub fn norm(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, norm: NormBy) -> Result<Tensor> {
    if on_cpu(x) {
        return match (norm.kind, bias) {
            (NormKind::Layer, None) => x.contiguous()?.apply_op3(weight, &weight.zeros_like()?, norm),
            // Where there is no bias to read, the weight stands in its place.
            _ => x.contiguous()?.apply_op3(weight, bias.unwrap_or(weight), norm),
        };
    }
    // The kernel has no gradient.
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() && !x.track_op() {
        let none = weight.narrow(0, 0, 0)?;
        let bias = bias.filter(|_| norm.kind == NormKind::Layer).unwrap_or(&none);
        return x.contiguous()?.apply_op3_no_bwd(&weight.contiguous()?, &bias.contiguous()?, &norm);
    }
    composed(x, weight, bias, norm)
}

/// [`norm`] of candle's own operations, on any device.
pub(super) fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, norm: NormBy) -> Result<Tensor> {
    let (shape, NormBy { kind, eps, group }) = (x.shape(), norm);
    let groups = (weight.elem_count() / group, group);
    let wide = x.to_dtype(DType::F32)?.reshape(((), groups.0, groups.1))?;
    let (weight, bias) = (weight.reshape(groups)?, bias.map(|bias| bias.reshape(groups)).transpose()?);
    let centred = match kind {
        NormKind::Rms => wide,
        NormKind::Layer => wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?,
    };
    let scale = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    let normed = centred.broadcast_div(&scale)?.broadcast_mul(&weight)?;
    let normed = match (kind, bias) {
        (NormKind::Layer, Some(bias)) => normed.broadcast_add(&bias)?,
        _ => normed,
    };
    normed.reshape(shape)?.to_dtype(x.dtype())
}

/// The gradient of a norm with respect to `x`, of `x`, the weight and the gradient with respect to the output.
struct NormBack(NormBy);

impl CustomOp3 for NormBy {
    fn name(&self) -> &'static str {
        "norm"
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
        let (x, weight, bias) = (floats(s1, l1)?, floats(s2, l2)?, floats(s3, l3)?);
        let width = weight.len();
        if width == 0 || x.len() % width != 0 || bias.len() != width || !width.is_multiple_of(self.group) {
            candle_core::bail!("norm of {:?} by a weight of {width} and a bias of {}", l1.shape(), bias.len())
        }
        let mut out = vec![0f32; x.len()];
        let rows = out.par_chunks_mut(width).zip(x.par_chunks(width)).with_min_len(ROWS_A_TASK);
        rows.for_each(|(out, x)| {
            for at in (0..width).step_by(self.group).map(|at| at..at + self.group) {
                let (x, weight, out) = (&x[at.clone()], &weight[at.clone()], &mut out[at.clone()]);
                match self.kind {
                    NormKind::Rms => simd::rms_norm_row(x, weight, self.eps, out),
                    NormKind::Layer => simd::layer_norm_row(x, weight, &bias[at], self.eps, out),
                }
            }
        });
        Ok(narrowed(out, s1, l1.shape()))
    }

    /// A bias of no numbers is none.
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &candle_core::CudaStorage,
        l1: &Layout,
        s2: &candle_core::CudaStorage,
        l2: &Layout,
        s3: &candle_core::CudaStorage,
        l3: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let [numbers, width, biases] = [l1, l2, l3].map(|l| l.shape().elem_count());
        let whole = numbers.is_multiple_of(width) && width.is_multiple_of(self.group);
        if width == 0 || !whole || ![0, width].contains(&biases) {
            candle_core::bail!("norm of {:?} by a weight of {width} and a bias of {biases}", l1.shape())
        }
        Ok((super::kernels::cuda::normed([(s1, l1), (s2, l2), (s3, l3)], *self)?, l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((Some(x.apply_op3_no_bwd(weight, &grad.contiguous()?, &NormBack(*self))?), None, None))
    }
}

impl CustomOp3 for NormBack {
    fn name(&self) -> &'static str {
        "norm_back"
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
        let (x, weight, grad) = (floats(s1, l1)?, floats(s2, l2)?, floats(s3, l3)?);
        let (width, NormBy { kind, eps, group }) = (weight.len(), self.0);
        if width == 0 || x.len() % width != 0 || grad.len() != x.len() || !width.is_multiple_of(group) {
            candle_core::bail!("norm_back of {:?} and {:?} by a weight of {width}", l1.shape(), l3.shape())
        }
        let mut out = vec![0f32; x.len()];
        let inputs = x.par_chunks(width).zip(grad.par_chunks(width));
        out.par_chunks_mut(width).zip(inputs).with_min_len(ROWS_A_TASK).for_each(|(out, (x, grad))| {
            for at in (0..width).step_by(group).map(|at| at..at + group) {
                let (x, weight, grad) = (&x[at.clone()], &weight[at.clone()], &grad[at.clone()]);
                match kind {
                    NormKind::Rms => simd::rms_norm_back_row(x, weight, eps, grad, &mut out[at]),
                    NormKind::Layer => simd::layer_norm_back_row(x, weight, eps, grad, &mut out[at]),
                }
            }
        });
        Ok(narrowed(out, s1, l1.shape()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_kernel_equals_the_composed_form() -> Result<()> {
        let device = Device::Cpu;
        for (width, group) in [(1, 1), (7, 7), (48, 48), (48, 12), (100, 100)] {
            let x = Tensor::randn(0.5f32, 2.0, (9, width), &device)?;
            let (w, b) = (Tensor::randn(1f32, 0.2, width, &device)?, Tensor::randn(0f32, 0.2, width, &device)?);
            for (kind, bias) in [NormKind::Rms, NormKind::Layer].into_iter().flat_map(|k| [(k, None), (k, Some(&b))]) {
                let by = NormBy { kind, eps: 1e-5, group };
                let (fast, slow) = (norm(&x, &w, bias, by)?, composed(&x, &w, bias, by)?);
                let off = (fast - slow)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(off < 1e-5, "{by:?} {width}, bias: {}", bias.is_some());
            }
        }
        Ok(())
    }
}
