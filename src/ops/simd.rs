//! Loops over slices, compiled for several instruction sets and chosen when they run.
//!
//! Plain loops that the compiler vectorises; the exponential is a polynomial (Cephes `expf`, 2 units in the last
//! place) because the library's is a call a number.

use multiversion::multiversion;

/// e^x for x in about [-87, 88]; below, the smallest normal number; above, infinity is not reached.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let e = p * r * r + r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32).wrapping_add(127);
    e * f32::from_bits((exponent << 23) as u32)
}

/// Both of Cephes' `tanhf` branches, of which one is chosen: near 0 the exponential form would cancel.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    p = p * z + 2.063_909e-2;
    p = p * z - 5.373_971_6e-2;
    p = p * z + 1.333_144_2e-1;
    p = p * z - 3.333_328e-1;
    let near = p * z * x + x;
    let far = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if x.abs() < 0.625 { near } else { far }
}

/// The error function by Abramowitz and Stegun 7.1.26, within 2e-7.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let poly = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    (1.0 - poly * exp(-a * a)).copysign(x)
}

/// NaN stays NaN, which `max` would make 0.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(0.797_884_6 * (x + 0.044_715 * x * x * x)))
}

/// NaN stays NaN.
#[inline(always)]
fn squared_relu(x: f32) -> f32 {
    let r = relu(x);
    r * r
}

/// The numbers of an xIELU (Huang and Schlag 2024, "Deriving Activation Functions Using Integration"), as they are applied:
/// positive ones have a parabola of `positive`, negative ones an exponential of `negative`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct XIelu {
    pub positive: f32,
    pub negative: f32,
    pub beta: f32,
    pub eps: f32,
}

impl XIelu {
    /// Of what is learned: the alphas of positive and of negative numbers before softplus, beta, and epsilon.
    pub fn of([positive, negative, beta, eps]: [f32; 4]) -> Self {
        let softplus = |x: f32| f64::from(x).exp().ln_1p() as f32;
        XIelu { positive: softplus(positive), negative: beta + softplus(negative), beta, eps }
    }
}

#[inline(always)]
fn xielu(x: f32, by: XIelu) -> f32 {
    let low = if x < by.eps { x } else { by.eps };
    // e^t - 1 of a small t would cancel.
    let grown = if low > -0.03 { low * (1.0 + low * (0.5 + low * (1.0 / 6.0 + low / 24.0))) } else { exp(low) - 1.0 };
    let negative = (grown - x) * by.negative + by.beta * x;
    let positive = by.positive * x * x + by.beta * x;
    if x > 0.0 { positive } else { negative }
}

#[inline(always)]
fn xielu_slope(x: f32, by: XIelu) -> f32 {
    if x > 0.0 {
        return 2.0 * by.positive * x + by.beta;
    }
    let grown = if x < by.eps { exp(x) } else { 0.0 };
    (grown - 1.0) * by.negative + by.beta
}

#[inline(always)]
fn silu_slope(x: f32) -> f32 {
    let s = 1.0 / (1.0 + exp(-x));
    s * (1.0 + x * (1.0 - s))
}

#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * FRAC_1_SQRT_2PI * exp(-0.5 * x * x)
}

#[inline(always)]
fn gelu_tanh_slope(x: f32) -> f32 {
    let t = tanh(0.797_884_6 * (x + 0.044_715 * x * x * x));
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.797_884_6 * (1.0 + 3.0 * 0.044_715 * x * x)
}

#[inline(always)]
fn softcap_slope(x: f32, cap: f32) -> f32 {
    let t = tanh(x / cap);
    1.0 - t * t
}

/// Which function [`map`], [`map_times`] and [`slope_times`] apply.
#[derive(Clone, Copy, Debug)]
pub enum Function {
    Silu,
    Gelu,
    GeluTanh,
    Relu,
    SquaredRelu,
    XIelu(XIelu),
    Sigmoid,
    /// `cap * tanh(x / cap)`
    Softcap(f32),
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `out = f(x)`
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn map(f: Function, x: &[f32], out: &mut [f32]) {
    match f {
        Function::Silu => out.iter_mut().zip(x).for_each(|(o, x)| *o = silu(*x)),
        Function::Gelu => out.iter_mut().zip(x).for_each(|(o, x)| *o = gelu(*x)),
        Function::GeluTanh => out.iter_mut().zip(x).for_each(|(o, x)| *o = gelu_tanh(*x)),
        Function::Relu => out.iter_mut().zip(x).for_each(|(o, x)| *o = relu(*x)),
        Function::SquaredRelu => out.iter_mut().zip(x).for_each(|(o, x)| *o = squared_relu(*x)),
        Function::XIelu(by) => out.iter_mut().zip(x).for_each(|(o, x)| *o = xielu(*x, by)),
        Function::Sigmoid => out.iter_mut().zip(x).for_each(|(o, x)| *o = sigmoid(*x)),
        Function::Softcap(c) => out.iter_mut().zip(x).for_each(|(o, x)| *o = c * tanh(x / c)),
    }
}

/// `out = f(x) * y`
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn map_times(f: Function, x: &[f32], y: &[f32], out: &mut [f32]) {
    let lanes = out.iter_mut().zip(x.iter().zip(y));
    match f {
        Function::Silu => lanes.for_each(|(o, (x, y))| *o = silu(*x) * y),
        Function::Gelu => lanes.for_each(|(o, (x, y))| *o = gelu(*x) * y),
        Function::GeluTanh => lanes.for_each(|(o, (x, y))| *o = gelu_tanh(*x) * y),
        Function::Relu => lanes.for_each(|(o, (x, y))| *o = relu(*x) * y),
        Function::SquaredRelu => lanes.for_each(|(o, (x, y))| *o = squared_relu(*x) * y),
        Function::XIelu(by) => lanes.for_each(|(o, (x, y))| *o = xielu(*x, by) * y),
        Function::Sigmoid => lanes.for_each(|(o, (x, y))| *o = sigmoid(*x) * y),
        Function::Softcap(c) => lanes.for_each(|(o, (x, y))| *o = c * tanh(x / c) * y),
    }
}

/// `out = f'(x) * y`
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn slope_times(f: Function, x: &[f32], y: &[f32], out: &mut [f32]) {
    let lanes = out.iter_mut().zip(x.iter().zip(y));
    match f {
        Function::Silu => lanes.for_each(|(o, (x, y))| *o = silu_slope(*x) * y),
        Function::Gelu => lanes.for_each(|(o, (x, y))| *o = gelu_slope(*x) * y),
        Function::GeluTanh => lanes.for_each(|(o, (x, y))| *o = gelu_tanh_slope(*x) * y),
        Function::Relu => lanes.for_each(|(o, (x, y))| *o = if *x > 0.0 { *y } else { 0.0 }),
        Function::SquaredRelu => lanes.for_each(|(o, (x, y))| *o = 2.0 * relu(*x) * y),
        Function::XIelu(by) => lanes.for_each(|(o, (x, y))| *o = xielu_slope(*x, by) * y),
        Function::Sigmoid => lanes.for_each(|(o, (x, y))| *o = sigmoid(*x) * (1.0 - sigmoid(*x)) * y),
        Function::Softcap(c) => lanes.for_each(|(o, (x, y))| *o = softcap_slope(*x, c) * y),
    }
}

/// `out = x + y`
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn add(x: &[f32], y: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(x.iter().zip(y)).for_each(|(o, (x, y))| *o = x + y);
}

/// Sums in eight lanes, so that the compiler may use vectors without reordering what it is told.
#[inline(always)]
fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 8];
    let chunks = x.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().map(|v| f(*v)).sum();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += f(*v);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// [`sum_of`] in f64: attention and MLP amplify what a norm's scale is off by. What follows the sum is rounded to f32
/// step by step as the reference implementations round it.
#[inline(always)]
fn wide_sum_of(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0f64; 8];
    let chunks = x.chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().map(|v| f(f64::from(*v))).sum();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += f(f64::from(*v));
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// One row of a root-mean-square norm: `x / sqrt(mean(x^2) + eps) * weight`.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn rms_norm_row(x: &[f32], weight: &[f32], eps: f64, out: &mut [f32]) {
    let scale = (1.0 / (wide_sum_of(x, |v| v * v) / x.len() as f64 + eps).sqrt()) as f32;
    out.iter_mut().zip(x.iter().zip(weight)).for_each(|(o, (x, w))| *o = x * scale * w);
}

/// One row of a layer norm: `(x - mean) / sqrt(var + eps) * weight + bias`.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn layer_norm_row(x: &[f32], weight: &[f32], bias: &[f32], eps: f64, out: &mut [f32]) {
    let mean = wide_sum_of(x, |v| v) / x.len() as f64;
    let var = wide_sum_of(x, |v| (v - mean) * (v - mean)) / x.len() as f64;
    let (mean, scale) = (mean as f32, 1.0 / (var as f32 + eps as f32).sqrt());
    let lanes = out.iter_mut().zip(x.iter().zip(weight.iter().zip(bias)));
    lanes.for_each(|(o, (x, (w, b)))| *o = (x - mean) * scale * w + b);
}

/// The sum of products in f64, in eight lanes.
#[inline(always)]
fn wide_dot(x: &[f32], y: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    for (a, b) in xs.zip(ys) {
        for i in 0..8 {
            lanes[i] += f64::from(a[i]) * f64::from(b[i]);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// The gradient of [`rms_norm_row`] with respect to `x`, given that with respect to its output.
///
/// With `u = grad * weight` and `s` the row's scale: `s * (u - x * s^2 * mean(u * x))`.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn rms_norm_back_row(x: &[f32], weight: &[f32], eps: f64, grad: &[f32], out: &mut [f32]) {
    let n = x.len() as f64;
    let scale = 1.0 / (wide_sum_of(x, |v| v * v) / n + eps).sqrt();
    out.iter_mut().zip(grad.iter().zip(weight)).for_each(|(o, (g, w))| *o = g * w);
    let along = (scale * scale * wide_dot(out, x) / n) as f32;
    let scale = scale as f32;
    out.iter_mut().zip(x).for_each(|(o, x)| *o = scale * (*o - x * along));
}

/// The gradient of [`layer_norm_row`] with respect to `x`, given that with respect to its output.
///
/// With `u = grad * weight`, `y` the row centred and scaled, and `s` its scale: `s * (u - mean(u) - y * mean(u * y))`.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn layer_norm_back_row(x: &[f32], weight: &[f32], eps: f64, grad: &[f32], out: &mut [f32]) {
    let n = x.len() as f64;
    let mean = wide_sum_of(x, |v| v) / n;
    let scale = 1.0 / (wide_sum_of(x, |v| (v - mean) * (v - mean)) / n + eps).sqrt();
    out.iter_mut().zip(grad.iter().zip(weight)).for_each(|(o, (g, w))| *o = g * w);
    let level = wide_sum_of(out, |v| v) / n;
    let along = scale * (wide_dot(out, x) / n - level * mean);
    let (mean, scale, level, along) = (mean as f32, scale as f32, level as f32, along as f32);
    out.iter_mut().zip(x).for_each(|(o, x)| *o = scale * (*o - level - (x - mean) * scale * along));
}

/// The gradient of a softmax with respect to what it was of, in place of that with respect to its `values`:
/// `values * (grad - sum(values * grad))`.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn softmax_back_row(values: &[f32], grad: &mut [f32]) {
    let mean = wide_dot(values, grad) as f32;
    grad.iter_mut().zip(values).for_each(|(g, p)| *g = p * (*g - mean));
}

/// `scores = softmax(softcap(scores * scale))` in place.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn softmax_row(scores: &mut [f32], scale: f32, softcap: Option<f32>) {
    match softcap {
        None => scores.iter_mut().for_each(|s| *s *= scale),
        Some(cap) => scores.iter_mut().for_each(|s| *s = cap * tanh(*s * scale / cap)),
    }
    let mut lanes = [f32::NEG_INFINITY; 8];
    let chunks = scores.chunks_exact(8);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(*v);
        }
    }
    let max = lanes.iter().fold(rest, |a, b| a.max(*b));
    scores.iter_mut().for_each(|s| *s = exp(*s - max));
    let total = sum_of(scores, |v| v);
    scores.iter_mut().for_each(|s| *s /= total);
}

/// [`softmax_row`] of scores that lose `slope` for each position that a key lies before the last, beside a `sink`, which takes
/// its share and is read by nothing.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn softmax_row_beside(scores: &mut [f32], scale: f32, softcap: Option<f32>, slope: f32, sink: Option<f32>) {
    match softcap {
        None => scores.iter_mut().for_each(|s| *s *= scale),
        Some(cap) => scores.iter_mut().for_each(|s| *s = cap * tanh(*s * scale / cap)),
    }
    for (back, s) in scores.iter_mut().rev().enumerate() {
        *s -= slope * back as f32;
    }
    let sink = sink.unwrap_or(f32::NEG_INFINITY);
    let max = scores.iter().fold(sink, |a, b| a.max(*b));
    scores.iter_mut().for_each(|s| *s = exp(*s - max));
    let total = sum_of(scores, |v| v) + if sink == f32::NEG_INFINITY { 0.0 } else { exp(sink - max) };
    scores.iter_mut().for_each(|s| *s /= total);
}

/// Rotates the first `2 * cos.len()` numbers of a head, halves against each other, and copies the rest.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn rotate_head(x: &[f32], cos: &[f32], sin: &[f32], out: &mut [f32]) {
    let half = cos.len();
    let (x1, rest) = x.split_at(half);
    let (x2, passed) = rest.split_at(half);
    let (o1, rest) = out.split_at_mut(half);
    let (o2, kept) = rest.split_at_mut(half);
    for i in 0..half {
        o1[i] = x1[i] * cos[i] - x2[i] * sin[i];
        o2[i] = x2[i] * cos[i] + x1[i] * sin[i];
    }
    kept.copy_from_slice(passed);
}

/// The inner product.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0f32; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in xs.zip(ys) {
        for i in 0..8 {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// `out += a * x`
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn axpy(a: f32, x: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(x).for_each(|(o, x)| *o += a * x);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTIONS: [Function; 8] = [
        Function::Silu,
        Function::Gelu,
        Function::GeluTanh,
        Function::Relu,
        Function::SquaredRelu,
        Function::Sigmoid,
        Function::XIelu(XIelu { positive: 0.8, negative: 1.1, beta: 0.5, eps: -1e-6 }),
        Function::Softcap(30.0),
    ];

    fn grid() -> Vec<f32> {
        (-2000..2000).map(|i| i as f32 * 0.01).collect()
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for x in grid().into_iter().chain([-87.0, 88.0]) {
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 2.5e-7 * exact, "{x}");
        }
    }

    #[test]
    fn activations_follow_their_formulas() {
        let x = grid();
        let reference = |f: Function, x: f64| match f {
            Function::Silu => x / (1.0 + (-x).exp()),
            Function::Gelu => 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x / 2f64.sqrt())),
            Function::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
            }
            Function::Relu => x.max(0.0),
            Function::SquaredRelu => x.max(0.0).powi(2),
            Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Function::XIelu(by) => {
                let [positive, negative, beta, eps] = [by.positive, by.negative, by.beta, by.eps].map(f64::from);
                let low = (x.min(eps).exp_m1() - x) * negative + beta * x;
                if x > 0.0 { positive * x * x + beta * x } else { low }
            }
            Function::Softcap(c) => f64::from(c) * (x / f64::from(c)).tanh(),
        };
        for f in FUNCTIONS {
            let (mut out, mut times) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            map(f, &x, &mut out);
            map_times(f, &x, &x, &mut times);
            for ((x, o), t) in x.iter().zip(&out).zip(&times) {
                let exact = reference(f, f64::from(*x));
                assert!((f64::from(*o) - exact).abs() < 3e-6 + 1e-6 * exact.abs(), "{f:?}({x}) = {o}, not {exact}");
                assert!((t - o * x).abs() <= 1e-6 * (o * x).abs());
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_so() {
        let mut out = [0.0; 9];
        for f in FUNCTIONS {
            map(f, &[f32::NAN; 9], &mut out);
            assert!(out.iter().all(|x| x.is_nan()), "{f:?}");
            map_times(f, &[f32::NAN; 9], &[1.0; 9], &mut out);
            assert!(out.iter().all(|x| x.is_nan()), "{f:?}, times");
        }
    }

    #[test]
    fn softmax_sums_to_one_and_follows_its_formula() {
        for n in [1, 7, 8, 9, 64, 100] {
            let mut row: Vec<f32> = (0..n).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
            let total: f64 = row.iter().map(|s| (f64::from(*s) * 0.5).exp()).sum();
            let exact: Vec<f64> = row.iter().map(|s| (f64::from(*s) * 0.5).exp() / total).collect();
            softmax_row(&mut row, 0.5, None);
            assert!(row.iter().zip(exact).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6));
        }
    }
}
