//! What a head's matrices are, by themselves: what it matches (QK) and what it moves (OV), and how much the layer's queries and keys
//! couple.
//!
//! Both are products of two thin matrices, and never made: their singular values are those of a small core.

use super::matrix::effective_rank;
use crate::analyses::AnalysisError;
use crate::linear::LinearError;
use crate::linear::spectrum::{Matrix, eigenvalues, singular_values};
use crate::model::Model;
use crate::model::weights::HeadWeights;
use crate::plan::{Array, Reading};
use crate::study::{Making, Runner};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::cell::OnceCell;

/// A head.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OfHead {
    pub layer: usize,
    pub head: usize,
    pub ov: Part,
    pub qk: Part,
    /// How far it copies tokens: the sum of the eigenvalues of `W_U W_OV W_E` over the sum of their sizes.
    pub copying: Option<f64>,
}

/// A product of two thin matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    pub norm: f64,
    pub spectral_norm: f64,
    pub stable_rank: Option<f64>,
    pub effective_rank: Option<f64>,
}

/// Numbers of a head in its reading.
const NUMBERS: usize = 9;

impl Part {
    /// Of singular values, descending.
    fn of(values: &[f64]) -> Part {
        let energy: f64 = values.iter().map(|s| s * s).sum();
        let first = values.first().copied().unwrap_or(0.0);
        Part {
            norm: energy.sqrt(),
            spectral_norm: first,
            stable_rank: (first > 0.0).then(|| energy / (first * first)),
            effective_rank: effective_rank(values),
        }
    }

    fn numbers(self) -> [f64; 4] {
        let share = |x: Option<f64>| x.unwrap_or(f64::NAN);
        [self.norm, self.spectral_norm, share(self.stable_rank), share(self.effective_rank)]
    }

    fn read(numbers: &[f32]) -> Part {
        let at = |i: usize| f64::from(numbers[i]);
        let known = |x: f64| x.is_finite().then_some(x);
        Part { norm: at(0), spectral_norm: at(1), stable_rank: known(at(2)), effective_rank: known(at(3)) }
    }
}

/// Every head of a model, layer by layer; none of layers without attention of the plain kind.
pub(super) fn measure(runner: &dyn Runner, model: &Model) -> Result<Vec<OfHead>, AnalysisError> {
    let arch = &model.decoder.arch;
    let tables = OnceCell::new();
    let mut found = Vec::new();
    for layer in 0..arch.n_layers {
        let of = format!("heads 1, layer {layer}");
        let (d, heads) = (arch.d_model as f64, arch.n_heads as f64);
        let flops = 8.0 * d * heads * (arch.d_head as f64).powi(2) + 4.0 * d * d * heads * arch.d_head as f64;
        let readings = runner.make(&Making { of: &of, flops, n: 1 }, &mut || {
            let made = of_layer(model, layer, &tables).map_err(|e| format!("{}: layer {layer}: {e}", model.name))?;
            let values: Vec<f32> = made.into_iter().map(|x| x as f32).collect();
            Ok(vec![Reading::Array(Array { shape: vec![values.len()], values })])
        })?;
        let numbers = readings.first().map(Reading::values).unwrap_or_default();
        found.extend(numbers.chunks_exact(NUMBERS).enumerate().map(|(head, numbers)| OfHead {
            layer,
            head,
            ov: Part::read(&numbers[..4]),
            qk: Part::read(&numbers[4..8]),
            copying: Some(f64::from(numbers[8])).filter(|x| x.is_finite()),
        }));
    }
    Ok(found)
}

/// The numbers of a layer's heads, one head after another.
fn of_layer(model: &Model, layer: usize, tables: &OnceCell<Tensor>) -> Result<Vec<f64>, String> {
    let Some(weights) = model.decoder.head_weights(layer).map_err(|e| e.to_string())? else { return Ok(Vec::new()) };
    let between = match tables.get() {
        Some(between) => between,
        None => {
            let made = between_tables(model)?;
            tables.get_or_init(|| made)
        }
    };
    let each = |head: usize| -> Result<Vec<f64>, LinearError> {
        let of = Thin::of(&weights, head);
        let [ov, qk] = [of.ov()?, of.qk()?].map(|values| Part::of(&values));
        let copying = copying(&of, between)?;
        Ok([&ov.numbers()[..], &qk.numbers(), &[copying.unwrap_or(f64::NAN)]].concat())
    };
    let each: Vec<Vec<f64>> =
        (0..weights.n_heads).into_par_iter().map(each).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    Ok(each.concat())
}

/// A head's four matrices, in f64.
pub(super) struct Thin {
    /// `[d_head, d_model]`
    pub q: Matrix,
    /// `[d_head, d_model]`, shared by some heads
    pub k: Matrix,
    /// `[d_value, d_model]`, shared by the same
    pub v: Matrix,
    /// `[d_model, d_value]`
    pub o: Matrix,
}

impl Thin {
    pub(super) fn of(weights: &HeadWeights, head: usize) -> Thin {
        let HeadWeights { n_heads, n_kv_heads, d_head, d_value, d_model, .. } = *weights;
        let shared = head / (n_heads / n_kv_heads.max(1)).max(1);
        let rows = |of: &[f32], head: usize, width: usize| Matrix {
            rows: width,
            columns: d_model,
            values: of[head * width * d_model..(head + 1) * width * d_model].iter().map(|x| f64::from(*x)).collect(),
        };
        let all = n_heads * d_value;
        let column = |row: usize| weights.o[row * all + head * d_value..row * all + (head + 1) * d_value].iter();
        Thin {
            q: rows(&weights.q, head, d_head),
            k: rows(&weights.k, shared, d_head),
            v: rows(&weights.v, shared, d_value),
            o: Matrix {
                rows: d_model,
                columns: d_value,
                values: (0..d_model).flat_map(column).map(|x| f64::from(*x)).collect(),
            },
        }
    }

    /// The singular values of `W_O W_V`, as many as a head is wide.
    fn ov(&self) -> Result<Vec<f64>, LinearError> {
        singular_values(&self.o.upright().times(&self.v.turned().upright().turned()))
    }

    /// Those of `W_Q^T W_K`.
    fn qk(&self) -> Result<Vec<f64>, LinearError> {
        singular_values(&self.q.turned().upright().times(&self.k.turned().upright().turned()))
    }
}

/// `W_E^T W_U`: what of an embedding points to which unembedding. `[d_model, d_model]`, f64
fn between_tables(model: &Model) -> Result<Tensor, String> {
    let (d, vocab) = (model.decoder.arch.d_model, model.decoder.arch.vocab);
    let step = ((1usize << 22) / d.max(1)).max(1);
    let mut sum = Tensor::zeros((d, d), DType::F64, &Device::Cpu).map_err(|e| e.to_string())?;
    for from in (0..vocab).step_by(step) {
        let rows = from..vocab.min(from + step);
        let n = rows.len();
        let both = model.decoder.both_tables(rows).map_err(|e| e.to_string())?;
        let wide = |values: Vec<f32>| Tensor::from_vec(values, (n, d), &Device::Cpu)?.to_dtype(DType::F64);
        let [embed, unembed] = both.map(wide);
        let add = || -> candle_core::Result<Tensor> { &sum + embed?.t()?.contiguous()?.matmul(&unembed?)? };
        sum = add().map_err(|e| e.to_string())?;
    }
    Ok(sum)
}

/// The eigenvalues of `W_U W_OV W_E` that are not 0 are those of `W_V (W_E^T W_U) W_O`, which is as small as a head is wide.
fn copying(of: &Thin, between: &Tensor) -> Result<Option<f64>, LinearError> {
    let tensor =
        |m: &Matrix| Tensor::from_vec(m.values.clone(), (m.rows, m.columns), &Device::Cpu).map_err(LinearError::from);
    let small = tensor(&of.v)?.matmul(between)?.matmul(&tensor(&of.o)?)?;
    let (rows, columns) = small.dims2()?;
    let found = eigenvalues(&Matrix { rows, columns, values: small.flatten_all()?.to_vec1::<f64>()? })?;
    let sizes: f64 = found.iter().map(|(re, im)| re.hypot(*im)).sum();
    Ok((sizes > 0.0).then(|| found.iter().map(|(re, _)| re).sum::<f64>() / sizes))
}
