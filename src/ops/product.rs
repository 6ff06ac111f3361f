//! Products with weight matrices: the one door to them.

use super::panels::{self, Packed};
use super::{floats, narrowed};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// A weight matrix `[out, in]`, kept as products on its device want it. A constant: it gets no gradient. A clone shares
/// the numbers.
///
/// A row of a product does not depend, to the last bit, on how many others there are. On the CPU f32 weights are packed
/// (`panels`) and have that by construction; bf16 and f16 ones are candle's, which needs rows of zeros for it.
#[derive(Clone)]
pub struct Weight(Kept);

#[derive(Clone)]
enum Kept {
    Packed(Arc<dyn Packed>),
    Plain(Tensor),
}

impl Weight {
    /// A weight of the numbers of a tensor, `[out, in]`.
    ///
    /// # Errors
    /// If it has not two dimensions, or candle fails.
    pub fn new(weight: &Tensor) -> Result<Weight> {
        let (outputs, inputs) = weight.dims2()?;
        if !weight.device().is_cpu() || weight.dtype() != DType::F32 {
            return Ok(Weight(Kept::Plain(weight.clone())));
        }
        let weight = weight.contiguous()?;
        let (storage, layout) = weight.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("a weight of the CPU that is elsewhere")
        };
        Ok(Weight(Kept::Packed(panels::pack(&floats(storage, layout)?, outputs, inputs))))
    }

    /// Outputs and inputs.
    ///
    /// # Errors
    /// None: a weight has two dimensions.
    pub fn dims(&self) -> Result<(usize, usize)> {
        match &self.0 {
            Kept::Packed(panels) => Ok((panels.outputs(), panels.inputs())),
            Kept::Plain(weight) => weight.dims2(),
        }
    }

    /// What activations are that it multiplies.
    pub fn dtype(&self) -> DType {
        match &self.0 {
            Kept::Packed(_) => DType::F32,
            Kept::Plain(weight) => weight.dtype(),
        }
    }

    /// The bytes that the numbers take.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Kept::Packed(panels) => panels.bytes(),
            Kept::Plain(weight) => weight.elem_count() * weight.dtype().size_in_bytes(),
        }
    }

    /// `x . weight^T`: `[rows, in]` to `[rows, out]`.
    ///
    /// # Errors
    /// If the widths differ or candle fails.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Kept::Packed(panels) => packed_product(x, panels, 0..panels.inputs()),
            Kept::Plain(weight) => plain_product(x, weight),
        }
    }

    /// The product of some of the inputs with their part of the weight: `[rows, inputs.len()]` to `[rows, out]`.
    ///
    /// # Errors
    /// If the inputs are out of range, the widths differ or candle fails.
    pub fn product_of(&self, inputs: Range<usize>, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Kept::Packed(panels) => packed_product(x, panels, inputs),
            Kept::Plain(weight) => plain_product(&x.contiguous()?, &weight.narrow(1, inputs.start, inputs.len())?),
        }
    }

    /// The gradient of [`Weight::product`] with respect to its `x`, given that with respect to its result:
    /// `[rows, out]` to `[rows, in]`.
    ///
    /// # Errors
    /// If the widths differ or candle fails.
    pub fn product_back(&self, grad: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Kept::Packed(panels) => packed_product(grad, &panels.transposed(), 0..panels.outputs()),
            Kept::Plain(weight) => plain_product(&grad.contiguous()?, &weight.t()?),
        }
    }

    /// The rows of some outputs. `[outputs, in]`
    ///
    /// # Errors
    /// If an output is out of range or candle fails.
    pub fn rows(&self, outputs: &[u32]) -> Result<Tensor> {
        match &self.0 {
            Kept::Packed(panels) => {
                if let Some(output) = outputs.iter().find(|o| **o as usize >= panels.outputs()) {
                    candle_core::bail!("row {output} of a weight of {}", panels.outputs())
                }
                let values: Vec<f32> = outputs.iter().flat_map(|o| panels.row(*o as usize)).collect();
                Tensor::from_vec(values, (outputs.len(), panels.inputs()), &candle_core::Device::Cpu)
            }
            Kept::Plain(weight) => weight.index_select(&Tensor::new(outputs, weight.device())?, 0),
        }
    }

    /// The whole matrix as a tensor. `[out, in]`
    ///
    /// # Errors
    /// If candle fails.
    pub fn tensor(&self) -> Result<Tensor> {
        match &self.0 {
            Kept::Packed(panels) => self.rows(&(0..panels.outputs() as u32).collect::<Vec<_>>()),
            Kept::Plain(weight) => Ok(weight.clone()),
        }
    }
}

/// From now on this process multiplies on the CPU as processors with AVX2 do that have no wider vectors, so that what it computes goes
/// with what they do.
pub fn portable() {
    panels::kernel::portable_from_now_on();
}

/// How a device multiplies with weights of a dtype: the form that they are kept in, and on the CPU the width of the vectors.
/// Results of packed weights do not depend on the width; those of other kinds may.
pub fn products(device: &Device, dtype: DType) -> String {
    match device {
        Device::Cpu if dtype == DType::F32 => format!("packed, {}", panels::kernel::vectors()),
        Device::Cpu => format!("gemm, {}", panels::kernel::vectors()),
        Device::Cuda(_) => "cublas".to_string(),
        Device::Metal(_) => "metal".to_string(),
    }
}

fn packed_product(x: &Tensor, panels: &Arc<dyn Packed>, inputs: Range<usize>) -> Result<Tensor> {
    let x = x.contiguous()?;
    let op = PackedProduct { panels: panels.clone(), inputs };
    if x.track_op() { x.apply_op1(op) } else { x.apply_op1_no_bwd(&op) }
}

/// The product with packed weights as a step of a graph.
struct PackedProduct {
    panels: Arc<dyn Packed>,
    inputs: Range<usize>,
}

impl CustomOp1 for PackedProduct {
    fn name(&self) -> &'static str {
        "packed product"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = l.shape().dims2()?;
        let (outputs, all) = (self.panels.outputs(), self.panels.inputs());
        if width != self.inputs.len() || self.inputs.end > all {
            candle_core::bail!("product of {:?} and inputs {:?} of [{outputs}, {all}]", l.shape(), self.inputs)
        }
        let CpuStorage::F32(_) = s else {
            candle_core::bail!("product of {:?} activations and F32 weights", s.dtype())
        };
        Ok(narrowed(self.panels.product(&floats(s, l)?, self.inputs.clone()), s, (rows, outputs)))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Weight(Kept::Packed(self.panels.clone())).product_back(grad)?;
        Ok(Some(back.narrow(1, self.inputs.start, self.inputs.len())?))
    }
}

/// candle's product. On the CPU it sums in another order for one row, for fewer than 257 numbers in all, and for up to 64
/// rows by 64 columns. Rows of zeros keep small products out of those cases.
fn plain_product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
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

/// candle's product as a step of a graph. candle's own would also compute the weight's gradient, which is as much work as
/// the input's, and keep it, which is as much memory as the weight.
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
        Ok((Some(plain_product(&grad.contiguous()?, &weight.t()?)?), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    const SHAPES: [(usize, usize, usize); 4] = [(1, 48, 160), (3, 5, 7), (70, 33, 20), (130, 64, 64)];

    fn random(n: usize, width: usize, dtype: DType) -> Result<Tensor> {
        Tensor::randn(0f32, 1.0, (n, width), &Device::Cpu)?.to_dtype(dtype)
    }

    fn bits(t: &Tensor) -> Result<Vec<Vec<u32>>> {
        let rows = t.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        Ok(rows.iter().map(|row| row.iter().map(|v| v.to_bits()).collect()).collect())
    }

    #[test]
    fn the_product_in_a_graph_equals_the_plain_one_bit_for_bit() -> Result<()> {
        for dtype in [DType::F32, DType::BF16] {
            for (rows, width, out) in SHAPES {
                let (x, weight) = (random(rows, width, dtype)?, Weight::new(&random(out, width, dtype)?)?);
                let tracked = weight.product(Var::from_tensor(&x)?.as_tensor())?;
                assert!(tracked.track_op());
                assert_eq!(bits(&tracked)?, bits(&weight.product(&x)?)?, "{rows} x {width} x {out}");
            }
        }
        Ok(())
    }

    #[test]
    fn packed_weights_give_what_candles_product_does() -> Result<()> {
        for (rows, width, out) in SHAPES {
            let (x, grad) = (random(rows, width, DType::F32)?, random(rows, out, DType::F32)?);
            let tensor = random(out, width, DType::F32)?;
            let weight = Weight::new(&tensor)?;
            let near = |a: Tensor, b: Tensor| {
                Ok::<_, candle_core::Error>((a - b)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-4)
            };
            assert!(near(weight.product(&x)?, x.matmul(&tensor.t()?)?)?);
            assert!(near(weight.product_back(&grad)?, grad.matmul(&tensor)?)?);
            assert_eq!(bits(&weight.tensor()?)?, bits(&tensor)?);
            assert_eq!(weight.dims()?, (out, width));
        }
        Ok(())
    }

    #[test]
    fn a_row_does_not_depend_on_how_many_others_there_are() -> Result<()> {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            for (rows, width, out) in SHAPES {
                let (x, weight) = (random(rows, width, dtype)?, Weight::new(&random(out, width, dtype)?)?);
                let alone = (0..rows).map(|r| weight.product(&x.narrow(0, r, 1)?)).collect::<Result<Vec<_>>>()?;
                assert_eq!(bits(&weight.product(&x)?)?, bits(&Tensor::cat(&alone, 0)?)?, "{dtype:?} {rows}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_product_that_does_not_fit_is_an_error() -> Result<()> {
        for dtype in [DType::F32, DType::BF16] {
            let weight = Weight::new(&random(8, 6, dtype)?)?;
            assert!(weight.product(&random(3, 5, dtype)?).is_err());
            assert!(weight.product_back(&random(3, 6, dtype)?).is_err());
            assert!(weight.product_of(4..7, &random(3, 3, dtype)?).is_err());
            assert!(weight.rows(&[8]).is_err());
        }
        assert!(Weight::new(&random(8, 6, DType::F32)?)?.product(&random(3, 6, DType::BF16)?).is_err());
        Ok(())
    }

    #[test]
    fn the_gradient_goes_to_the_input_and_not_to_the_weight() -> Result<()> {
        for dtype in [DType::F32, DType::BF16] {
            let x = Var::ones((3, 2), dtype, &Device::Cpu)?;
            let weight = Tensor::ones((4, 2), dtype, &Device::Cpu)?;
            let grads = Weight::new(&weight)?.product(&x)?.sum_all()?.backward()?;
            let of_x = grads.get(&x).map(|g| g.to_dtype(DType::F32)?.to_vec2::<f32>()).transpose()?;
            assert_eq!(of_x, Some(vec![vec![4.0, 4.0]; 3]));
            assert!(grads.get(&weight).is_none());
        }
        Ok(())
    }
}
