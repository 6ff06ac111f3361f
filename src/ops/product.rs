//! Products with weight matrices.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, Tensor};

/// `x . weight^T`, `[rows, in]` and `[out, in]` to `[rows, out]`; a row of it does not depend on how many others there are.
/// The weight is a constant.
///
/// The CPU's matrix product sums in another order for one row, for fewer than 257 numbers in all, and for up to 64 rows by
/// 64 columns. Rows of zeros keep small products out of those cases.
///
/// # Errors
/// If the widths differ or candle fails.
pub fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (rows, out) = (x.dim(0)?, weight.dim(0)?.max(1));
    let least = (256 / out + 1).max(if out <= 64 { 65 } else { 2 });
    if rows >= least || !x.device().is_cpu() {
        return times(x, weight);
    }
    times(&x.pad_with_zeros(0, 0, least - rows)?, weight)?.narrow(0, 0, rows)
}

fn times(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if x.track_op() { x.contiguous()?.apply_op2(weight, Times) } else { x.matmul(&weight.t()?) }
}

/// The product as a step of a graph. candle's own would also compute the weight's gradient, which is as much work as the
/// input's, and keep it, which is as much memory as the weight.
struct Times;

impl Times {
    fn on<S: BackendStorage>(&self, x: &S, l1: &Layout, weight: &S, l2: &Layout) -> Result<(S, Shape)> {
        let ((rows, width), (out, expected)) = (l1.shape().dims2()?, l2.shape().dims2()?);
        if width != expected {
            candle_core::bail!("product of {:?} and {:?}", l1.shape(), l2.shape())
        }
        let product = x.matmul(weight, (1, rows, out, width), l1, &l2.transpose(0, 1)?)?;
        Ok((product, Shape::from((rows, out))))
    }
}

impl CustomOp2 for Times {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on(s1, l1, s2, l2)
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on(s1, l1, s2, l2)
    }

    fn bwd(&self, _: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(product(&grad.contiguous()?, &weight.t()?)?), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn the_product_in_a_graph_equals_the_plain_one_bit_for_bit() -> Result<()> {
        for dtype in [DType::F32, DType::BF16] {
            for (rows, width, out) in [(1, 48, 160), (3, 5, 7), (70, 33, 20), (130, 64, 64)] {
                let random = |n: usize| Tensor::randn(0f32, 1.0, (n, width), &Device::Cpu)?.to_dtype(dtype);
                let (x, weight) = (random(rows)?, random(out)?);
                let tracked = product(Var::from_tensor(&x)?.as_tensor(), &weight)?;
                assert!(tracked.track_op());
                let bits = |t: &Tensor| t.to_dtype(DType::F32)?.to_vec2::<f32>();
                assert_eq!(bits(&tracked)?, bits(&product(&x, &weight)?)?, "{rows} x {width} x {out}");
            }
        }
        Ok(())
    }

    #[test]
    fn the_gradient_goes_to_the_input_and_not_to_the_weight() -> Result<()> {
        let (x, weight) = (Var::ones((3, 2), DType::F32, &Device::Cpu)?, Var::ones((4, 2), DType::F32, &Device::Cpu)?);
        let grads = product(&x, &weight)?.sum_all()?.backward()?;
        assert_eq!(grads.get(&x).map(|g| g.to_vec2::<f32>()).transpose()?, Some(vec![vec![4.0, 4.0]; 3]));
        assert!(grads.get(&weight).is_none());
        Ok(())
    }
}
