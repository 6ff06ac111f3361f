//! Sums and non-linearities, number by number.

pub use super::simd::XIelu;
use super::simd::{self, Function};
use super::{floats, narrowed, on_cpu};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Numbers that one task takes.
const CHUNK: usize = 1 << 14;

/// The non-linearity of the MLP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Silu,
    /// GELU by the error function.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    Relu,
    /// The square of what is positive.
    SquaredRelu,
    XIelu(XIelu),
    Sigmoid,
    /// `x sigmoid(alpha x)` of what is cut off at `limit`, times one more than the other, cut off too (GPT-OSS).
    ClampedSwish {
        limit: f32,
        alpha: f32,
    },
}

impl From<Activation> for Function {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Silu => Function::Silu,
            Activation::Gelu => Function::Gelu,
            Activation::GeluTanh => Function::GeluTanh,
            Activation::Relu => Function::Relu,
            Activation::SquaredRelu => Function::SquaredRelu,
            Activation::XIelu(by) => Function::XIelu(by),
            Activation::Sigmoid => Function::Sigmoid,
            // What it is times is made by the channel; by itself it is a SiLU.
            Activation::ClampedSwish { .. } => Function::Silu,
        }
    }
}

/// `f(x)`, number by number.
///
/// # Errors
/// If candle fails.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if on_cpu(x) { x.contiguous()?.apply_op1(Map(activation.into())) } else { composed(x, activation) }
}

/// `f(gate) * up`, number by number; both of one shape.
///
/// # Errors
/// If the shapes differ or candle fails.
pub fn activate_gate(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    if on_cpu(gate) {
        gate.contiguous()?.apply_op2(&up.contiguous()?, MapTimes(activation.into()))
    } else {
        composed(gate, activation)? * up
    }
}

/// `cap * tanh(x / cap)`, number by number.
///
/// # Errors
/// If candle fails.
pub fn softcap(x: &Tensor, cap: f64) -> Result<Tensor> {
    if on_cpu(x) { x.contiguous()?.apply_op1(Map(Function::Softcap(cap as f32))) } else { (x / cap)?.tanh()? * cap }
}

/// `x + y`, both of one shape.
///
/// # Errors
/// If the shapes differ or candle fails.
pub fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if on_cpu(x) { x.contiguous()?.apply_op2(&y.contiguous()?, Add) } else { x + y }
}

/// `x + bias` for every row. `x`: `[rows, width]`, `bias`: `[width]`, a constant.
///
/// # Errors
/// If the widths differ or candle fails.
pub fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if on_cpu(x) { x.contiguous()?.apply_op2(bias, AddBias) } else { x.broadcast_add(bias) }
}

pub(super) fn composed(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Silu | Activation::ClampedSwish { .. } => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        // candle's own makes 0 of NaN.
        Activation::Relu => x.lt(0f32)?.where_cond(&x.zeros_like()?, x),
        Activation::SquaredRelu => composed(x, Activation::Relu)?.sqr(),
        Activation::Sigmoid => (x.neg()?.exp()? + 1.0)?.recip(),
        Activation::XIelu(by) => {
            let line = (x * f64::from(by.beta))?;
            let positive = (x.sqr()? * f64::from(by.positive))?;
            let negative = (((x.minimum(by.eps)?.exp()? - 1.0)? - x)? * f64::from(by.negative))?;
            line + x.gt(0f32)?.where_cond(&positive, &negative)?
        }
    }
}

struct Map(Function);
struct MapTimes(Function);
/// `f'(x) * y`
struct SlopeTimes(Function);
struct Add;
struct AddBias;

fn equal_shapes(op: &'static str, l1: &Layout, l2: &Layout) -> Result<()> {
    if l1.shape() != l2.shape() {
        candle_core::bail!("{op} of {:?} and {:?}", l1.shape(), l2.shape())
    }
    Ok(())
}

impl CustomOp1 for Map {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(storage, layout)?;
        let mut out = vec![0f32; x.len()];
        let chunks = out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
        chunks.for_each(|(out, x)| simd::map(self.0, x, out));
        Ok(narrowed(out, storage, layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        x.apply_op2_no_bwd(&grad.contiguous()?, &SlopeTimes(self.0)).map(Some)
    }
}

impl CustomOp2 for MapTimes {
    fn name(&self) -> &'static str {
        "activate_gate"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        equal_shapes(self.name(), l1, l2)?;
        let (x, y) = (floats(s1, l1)?, floats(s2, l2)?);
        let mut out = vec![0f32; x.len()];
        let chunks = out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)));
        chunks.for_each(|(out, (x, y))| simd::map_times(self.0, x, y, out));
        Ok(narrowed(out, s1, l1.shape()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let of_y = x.apply_op2_no_bwd(&grad.contiguous()?, self)?;
        let of_x = x.apply_op2_no_bwd(&grad.mul(y)?, &SlopeTimes(self.0))?;
        Ok((Some(of_x), Some(of_y)))
    }
}

impl CustomOp2 for SlopeTimes {
    fn name(&self) -> &'static str {
        "slope_times"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        equal_shapes(self.name(), l1, l2)?;
        let (x, y) = (floats(s1, l1)?, floats(s2, l2)?);
        let mut out = vec![0f32; x.len()];
        let chunks = out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)));
        chunks.for_each(|(out, (x, y))| simd::slope_times(self.0, x, y, out));
        Ok(narrowed(out, s1, l1.shape()))
    }
}

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        equal_shapes(self.name(), l1, l2)?;
        let (x, y) = (floats(s1, l1)?, floats(s2, l2)?);
        let mut out = vec![0f32; x.len()];
        let chunks = out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)));
        chunks.for_each(|(out, (x, y))| simd::add(x, y, out));
        Ok(narrowed(out, s1, l1.shape()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), Some(grad.clone())))
    }
}

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add_bias"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (floats(s1, l1)?, floats(s2, l2)?);
        let width = bias.len();
        if width == 0 || x.len() % width != 0 {
            candle_core::bail!("add_bias of {:?} and {:?}", l1.shape(), l2.shape())
        }
        let mut out = vec![0f32; x.len()];
        let rows = out.par_chunks_mut(width).zip(x.par_chunks(width)).with_min_len(super::ROWS_A_TASK);
        rows.for_each(|(out, x)| simd::add(x, &bias, out));
        Ok(narrowed(out, s1, l1.shape()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    const ACTIVATIONS: [Activation; 7] = [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::SquaredRelu,
        Activation::Sigmoid,
        Activation::XIelu(XIelu { positive: 0.8, negative: 1.1, beta: 0.5, eps: -1e-6 }),
    ];

    #[test]
    fn the_kernels_equal_the_composed_forms_in_f32_and_bf16() -> Result<()> {
        for (dtype, most) in [(DType::F32, 1e-5), (DType::BF16, 0.02)] {
            let random = || Tensor::randn(0f32, 2.0, (7, 33), &Device::Cpu)?.to_dtype(dtype);
            let (x, y, bias) = (random()?, random()?, random()?.get(0)?);
            let near = |a: Tensor, b: Tensor| -> Result<()> {
                let (a, b) = (a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?);
                // The composed forms round in between, so that a bf16 is off by a few of its last places.
                let off = ((a - &b)?.abs()? / (b.abs()? + 1.0)?)?.max_all()?.to_scalar::<f32>()?;
                assert!(off < most, "{dtype:?}: {off}");
                Ok(())
            };
            for f in ACTIVATIONS {
                near(activate(&x, f)?, composed(&x, f)?)?;
                near(activate_gate(&x, &y, f)?, (composed(&x, f)? * &y)?)?;
            }
            let nan = (&x * f64::NAN)?;
            for relu in [activate(&nan, Activation::Relu)?, composed(&nan, Activation::Relu)?] {
                assert!(crate::ops::to_vec(&relu)?.iter().all(|x| x.is_nan()), "{dtype:?}");
            }
            near(softcap(&x, 3.0)?, ((&x / 3.0)?.tanh()? * 3.0)?)?;
            near(add(&x, &y)?, (&x + &y)?)?;
            near(add_bias(&x, &bias)?, x.broadcast_add(&bias)?)?;
        }
        Ok(())
    }
}
