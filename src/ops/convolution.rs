//! Causal convolutions along the positions of packed rows, each channel by itself.
//!
//! A row reads its own position and the few before it, those of the run that it forks from where they come before its own.

use super::rows::{Rows, Span};
use super::{floats, narrowed, on_cpu};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// The convolution of `x`, `[rows that spans read, channels]`, with `weight`, `[channels, width]`, oldest first, and a bias.
/// Weights are constants, in f32. `[rows, channels]`
///
/// # Errors
/// If a shape does not fit, a graph tracks rows that are not whole prompts', or candle fails.
pub fn convolution(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, rows: &Rows) -> Result<Tensor> {
    let (n, channels) = x.dims2()?;
    let weight = super::to_vec(weight)?;
    if channels == 0 || weight.len() % channels != 0 || rows.spans.iter().any(|span| !span.fits(n)) {
        candle_core::bail!("a convolution of {:?} by {} weights", x.shape(), weight.len())
    }
    if x.track_op() && rows.spans.iter().any(|span| span.start > 0 || span.own != span.rows) {
        candle_core::bail!("the gradient of a convolution is of whole prompts")
    }
    let bias = bias.map(super::to_vec).transpose()?.unwrap_or_else(|| vec![0.0; channels]);
    let op = Convolution { rows: rows.clone(), channels, weight: weight.into(), bias: bias.into() };
    match on_cpu(x) {
        true => x.contiguous()?.apply_op1(op),
        false => x.to_device(&Device::Cpu)?.contiguous()?.apply_op1(op)?.to_device(x.device()),
    }
}

/// What each row's run has at the position before it, and 0 at the first. `[rows that spans read, channels]` to `[rows, channels]`
///
/// # Errors
/// As [`convolution`].
pub fn shifted(x: &Tensor, rows: &Rows) -> Result<Tensor> {
    let channels = x.dim(1)?;
    let before = Tensor::from_vec([1f32, 0.0].repeat(channels), (channels, 2), &Device::Cpu)?;
    convolution(x, &before, None, rows)
}

struct Convolution {
    rows: Rows,
    channels: usize,
    weight: Arc<[f32]>,
    bias: Arc<[f32]>,
}

impl Convolution {
    fn width(&self) -> usize {
        self.weight.len() / self.channels
    }

    /// The rows that each of a span's rows reads, the oldest first; fewer where the prompt begins. `[rows][width]`
    fn read(&self, span: &Span) -> Vec<Vec<usize>> {
        let keys = span.key_rows();
        let of = |p: usize| (p + 1).saturating_sub(self.width())..p + 1;
        (span.first()..span.keys()).map(|p| keys[of(p)].iter().map(|row| *row as usize).collect()).collect()
    }
}

impl CustomOp1 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, channels, width) = (floats(storage, layout)?, self.channels, self.width());
        let read: Vec<Vec<usize>> = self.rows.spans.iter().flat_map(|span| self.read(span)).collect();
        let mut out = vec![0f32; self.rows.len() * channels];
        out.par_chunks_mut(channels).zip(&read).for_each(|(out, read)| {
            out.copy_from_slice(&self.bias);
            for (j, row) in read.iter().enumerate().map(|(i, row)| (width - read.len() + i, row)) {
                for (c, (out, x)) in out.iter_mut().zip(&x[row * channels..(row + 1) * channels]).enumerate() {
                    *out += self.weight[c * width + j] * x;
                }
            }
        });
        Ok(narrowed(out, storage, (self.rows.len(), channels)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (channels, width, grad) = (self.channels, self.width(), super::to_vec(grad)?);
        let mut found = vec![0f32; x.elem_count()];
        let read = self.rows.spans.iter().flat_map(|span| self.read(span));
        for (read, grad) in read.zip(grad.chunks_exact(channels)) {
            for (j, row) in read.iter().enumerate().map(|(i, row)| (width - read.len() + i, row)) {
                for (c, grad) in grad.iter().enumerate() {
                    found[row * channels + c] += self.weight[c * width + j] * grad;
                }
            }
        }
        Tensor::from_vec(found, x.shape(), &Device::Cpu)?.to_dtype(x.dtype()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_its_own_position_and_those_before_it() -> Result<()> {
        let device = Device::Cpu;
        let spans = vec![Span::new(0..3, 0, vec![]), Span::new(3..4, 2, vec![0..2])];
        let rows = Rows { spans, entries: vec![0; 4] };
        let x = Tensor::new(&[[1f32, 10.0], [2.0, 20.0], [3.0, 30.0], [7.0, 70.0]], &device)?;
        let weight = Tensor::new(&[[100f32, 10.0, 1.0], [0.0, 0.0, 1.0]], &device)?;
        let bias = Tensor::new(&[0f32, 0.5], &device)?;
        let found = convolution(&x, &weight, Some(&bias), &rows)?.to_vec2::<f32>()?;
        assert_eq!(found, [[1.0, 10.5], [12.0, 20.5], [123.0, 30.5], [127.0, 70.5]]);
        Ok(())
    }

    #[test]
    fn the_gradient_is_that_of_the_transpose() -> Result<()> {
        let device = Device::Cpu;
        let rows = Rows { spans: vec![Span::new(0..3, 0, vec![]), Span::new(3..5, 0, vec![])], entries: vec![0; 5] };
        let weight = Tensor::new(&[[3f32, 2.0, 1.0]], &device)?;
        let x = candle_core::Var::new(&[[1f32], [2.0], [3.0], [4.0], [5.0]], &device)?;
        let grads = convolution(&x, &weight, None, &rows)?.sum_all()?.backward()?;
        let found = grads.get(&x).expect("a gradient").flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(found, [6.0, 3.0, 1.0, 3.0, 1.0]);
        Ok(())
    }
}
