//! What each head adds along directions of the residual stream, for direct logit attribution.

use super::floats;
use super::vectors::dot;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

/// `z[row][head] . through[direction][head]` for each pair of a row and a direction, and each head: `z` `[rows, n_heads *
/// d_head]` and `through` `[directions, n_heads * d_head]`, f32, to `[pairs, n_heads]`, f32.
///
/// Where `through` is `W_o^T u`, this is what the head adds along `u`, without its output of `d_model` numbers.
///
/// # Errors
/// If a shape or a pair does not fit, a graph tracks one of the tensors (there is no gradient), or candle fails.
pub fn head_dots(z: &Tensor, through: &Tensor, pairs: &[(u32, u32)], n_heads: usize) -> Result<Tensor> {
    if z.track_op() || through.track_op() {
        candle_core::bail!("head_dots has no gradient; detach what it reads")
    }
    z.contiguous()?.apply_op2_no_bwd(&through.contiguous()?, &HeadDots { pairs, n_heads })
}

struct HeadDots<'a> {
    pairs: &'a [(u32, u32)],
    n_heads: usize,
}

impl HeadDots<'_> {
    /// The width of a row, after a check that all fits.
    fn check(&self, z: &Layout, through: &Layout) -> Result<usize> {
        let ((rows, width), (directions, same)) = (z.shape().dims2()?, through.shape().dims2()?);
        let there = self.pairs.iter().all(|(r, d)| (*r as usize) < rows && (*d as usize) < directions);
        if self.n_heads == 0 || width % self.n_heads != 0 || width != same || !there {
            candle_core::bail!("{} heads of {:?} along {:?}", self.n_heads, z.shape(), through.shape())
        }
        Ok(width)
    }
}

impl CustomOp2 for HeadDots<'_> {
    fn name(&self) -> &'static str {
        "head_dots"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = self.check(l1, l2)?;
        let (z, through) = (floats(s1, l1)?, floats(s2, l2)?);
        let d = width / self.n_heads;
        let row = |i: u32, h: usize| i as usize * width + h * d..i as usize * width + (h + 1) * d;
        let each = self.pairs.iter().flat_map(|p| (0..self.n_heads).map(move |h| (p, h)));
        let out = each.map(|((r, u), h)| dot(&z[row(*r, h)], &through[row(*u, h)]) as f32).collect();
        Ok((CpuStorage::F32(out), Shape::from((self.pairs.len(), self.n_heads))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &candle_core::CudaStorage,
        l1: &Layout,
        s2: &candle_core::CudaStorage,
        l2: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let shape = [self.n_heads, self.check(l1, l2)? / self.n_heads];
        let out = super::kernels::cuda::head_dots([(s1, l1), (s2, l2)], self.pairs, shape)?;
        Ok((out, Shape::from((self.pairs.len(), self.n_heads))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    /// [`head_dots`] of candle's own operations.
    fn composed(z: &Tensor, through: &Tensor, pairs: &[(u32, u32)], n_heads: usize) -> Result<Tensor> {
        let index = |f: fn(&(u32, u32)) -> u32| Tensor::new(pairs.iter().map(f).collect::<Vec<_>>(), z.device());
        let z = z.index_select(&index(|p| p.0)?, 0)?.to_dtype(through.dtype())?;
        let product = (z * through.index_select(&index(|p| p.1)?, 0)?)?;
        product.reshape((pairs.len(), n_heads, ()))?.sum(2)
    }

    #[test]
    fn both_forms_give_each_head_its_own_product() -> Result<()> {
        let z = Tensor::new(&[[1f32, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], &Device::Cpu)?;
        let through = Tensor::new(&[[1f32, 0.0, 0.0, 1.0], [1.0, 1.0, 2.0, 2.0]], &Device::Cpu)?;
        let pairs = [(0, 0), (0, 1), (1, 1)];
        let expected = vec![vec![1.0, 4.0], vec![3.0, 14.0], vec![11.0, 30.0]];
        assert_eq!(head_dots(&z, &through, &pairs, 2)?.to_vec2::<f32>()?, expected);
        assert_eq!(composed(&z, &through, &pairs, 2)?.to_vec2::<f32>()?, expected);
        assert_eq!(head_dots(&z.to_dtype(DType::BF16)?, &through, &pairs, 2)?.to_vec2::<f32>()?, expected);
        Ok(())
    }

    #[test]
    fn a_gradient_through_it_is_an_error() -> Result<()> {
        let (plain, var) =
            (Tensor::ones((2, 4), DType::F32, &Device::Cpu)?, Var::ones((2, 4), DType::F32, &Device::Cpu)?);
        assert!(head_dots(&plain, &plain, &[(0, 0)], 2).is_ok());
        for (z, through) in [(var.as_tensor(), &plain), (&plain, var.as_tensor())] {
            assert!(head_dots(z, through, &[(0, 0)], 2).is_err_and(|e| e.to_string().contains("no gradient")));
        }
        Ok(())
    }

    #[test]
    fn a_pair_that_is_not_there_is_an_error() -> Result<()> {
        let z = Tensor::zeros((2, 4), DType::F32, &Device::Cpu)?;
        assert!(head_dots(&z, &z, &[(2, 0)], 2).is_err());
        assert!(head_dots(&z, &z, &[(0, 2)], 2).is_err());
        assert!(head_dots(&z, &z, &[(0, 0)], 3).is_err());
        Ok(())
    }
}
