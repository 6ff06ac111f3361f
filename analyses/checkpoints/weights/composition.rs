//! How much of what each head writes the heads of later layers read: composition scores (Elhage et al. 2021).
//!
//! A score is `|A B| / (|A| |B|)` with `B` the writer's OV and `A` what the reader does with it: `W_QK^T` for its queries, `W_QK` for
//! its keys, its OV for its values. Random matrices of a model `d` wide come to about `1 / sqrt(d)`. Norms between layers and
//! rotations are left out, as there.

use super::heads::Thin;
use crate::analyses::AnalysisError;
use crate::linear::spectrum::Matrix;
use crate::model::Model;
use crate::plan::{Array, Reading};
use crate::study::{Making, Runner};
use candle_core::{DType, Device, Tensor};

/// What a reader does with what it reads, in the order of [`Composed::scores`].
pub const READ_AS: [&str; 3] = ["q", "k", "v"];

/// How much a head reads of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Composed {
    /// The writer's layer and head.
    pub writer: (usize, usize),
    pub reader: (usize, usize),
    /// Of queries, keys and values.
    pub scores: [f64; 3],
}

/// All pairs of heads of a model.
pub(super) fn measure(runner: &dyn Runner, model: &Model) -> Result<Vec<Composed>, AnalysisError> {
    let arch = &model.decoder.arch;
    let (n, heads) = (arch.n_layers, arch.n_heads);
    let mut found = Vec::new();
    // What the heads of a layer write is asked for by every later one: kept in f32 where that is little.
    let mut written: Vec<Option<Option<Writers>>> = (0..n).map(|_| None).collect();
    let keep = n * arch.d_model * heads * arch.d_head * 4 <= KEPT;
    for reader in 1..n {
        let of = format!("composition 1, layer {reader}");
        let flops = 6.0 * (heads * arch.d_head).pow(2) as f64 * arch.d_model as f64 * reader as f64;
        let readings = runner.make(&Making { of: &of, flops, n: 1 }, &mut || {
            let failed = |e: String| format!("{}: layer {reader}: {e}", model.name);
            let values = of_reader(model, reader, &mut written, keep).map_err(failed)?;
            Ok(vec![Reading::Array(Array { shape: vec![values.len()], values })])
        })?;
        let numbers = readings.first().map(Reading::values).unwrap_or_default();
        // Writer's layer, writer, reader, then three scores.
        found.extend(numbers.chunks_exact(6).map(|row| Composed {
            writer: (row[0] as usize, row[1] as usize),
            reader: (reader, row[2] as usize),
            scores: [row[3], row[4], row[5]].map(f64::from),
        }));
    }
    Ok(found)
}

/// Bytes of writers that are kept at most.
const KEPT: usize = 512 << 20;

/// What the heads of a layer write: `W_O` times what of `W_V` counts for its size, side by side.
#[derive(Clone)]
struct Writers {
    /// `[d_model, heads * width]`, f32
    all: Tensor,
    norms: Vec<f64>,
}

/// What the heads of a layer do with what they read: one below another. `[heads * width, d_model]`, f32
struct Readers {
    by: [Tensor; 3],
    norms: Vec<[f64; 3]>,
}

fn of_reader(
    model: &Model,
    reader: usize,
    written: &mut [Option<Option<Writers>>],
    keep: bool,
) -> Result<Vec<f32>, String> {
    let Some(readers) = readers(model, reader)? else { return Ok(Vec::new()) };
    let mut numbers = Vec::new();
    for (layer, known) in written.iter_mut().enumerate().take(reader) {
        let found = match known.take() {
            Some(found) => found,
            None => writers(model, layer)?,
        };
        if keep {
            *known = Some(found.clone());
        }
        let Some(writers) = found else { continue };
        let squares = readers.by.each_ref().map(|by| squares(by, &writers, readers.norms.len()));
        let [q, k, v] = squares;
        let (q, k, v) = (q?, k?, v?);
        for (w, of_writer) in writers.norms.iter().enumerate() {
            for (r, of_reader) in readers.norms.iter().enumerate() {
                let score = |i: usize, square: f64| {
                    let sizes = of_reader[i] * of_writer;
                    if sizes > 0.0 { (square.max(0.0).sqrt() / sizes) as f32 } else { 0.0 }
                };
                let at = r * writers.norms.len() + w;
                numbers.extend([layer as f32, w as f32, r as f32, score(0, q[at]), score(1, k[at]), score(2, v[at])]);
            }
        }
    }
    Ok(numbers)
}

/// The squared sizes of all products of a reader's and a writer's part. `[readers][writers]`
fn squares(readers: &Tensor, writers: &Writers, n: usize) -> Result<Vec<f64>, String> {
    let product = || -> candle_core::Result<Vec<f64>> {
        let product = readers.matmul(&writers.all)?.to_dtype(DType::F64)?.sqr()?;
        let (rows, columns) = product.dims2()?;
        let m = writers.norms.len().max(1);
        let by_writer = product.reshape((rows, m, columns / m))?.sum(2)?;
        by_writer.reshape((n, rows / n.max(1), m))?.sum(1)?.flatten_all()?.to_vec1::<f64>()
    };
    product().map_err(|e| e.to_string())
}

fn stacked(parts: &[Matrix], along: usize) -> Result<Tensor, String> {
    let tensor = |m: &Matrix| {
        let values: Vec<f32> = m.values.iter().map(|x| *x as f32).collect();
        Tensor::from_vec(values, (m.rows, m.columns), &Device::Cpu)
    };
    let parts: candle_core::Result<Vec<Tensor>> = parts.iter().map(tensor).collect();
    parts.and_then(|parts| Tensor::cat(&parts, along)).map_err(|e| e.to_string())
}

fn writers(model: &Model, layer: usize) -> Result<Option<Writers>, String> {
    let Some(weights) = model.decoder.head_weights(layer).map_err(|e| e.to_string())? else { return Ok(None) };
    let each = |head: usize| {
        let of = Thin::of(&weights, head);
        // `W_O W_V` is as large as `W_O R^T`, where `W_V^T` is `Q R`.
        of.o.times(&of.v.turned().upright().turned())
    };
    let each: Vec<Matrix> = (0..weights.n_heads).map(each).collect();
    Ok(Some(Writers { all: stacked(&each, 1)?, norms: each.iter().map(Matrix::norm).collect() }))
}

fn readers(model: &Model, layer: usize) -> Result<Option<Readers>, String> {
    let Some(weights) = model.decoder.head_weights(layer).map_err(|e| e.to_string())? else { return Ok(None) };
    let each = |head: usize| {
        let of = Thin::of(&weights, head);
        let (q, k) = (of.q.turned().upright(), of.k.turned().upright());
        // `W_QK^T` is `W_K^T W_Q`, `W_QK` is `W_Q^T W_K`; of the first factor only its size counts.
        [k.times(&of.q), q.times(&of.k), of.o.upright().times(&of.v)]
    };
    let each: Vec<[Matrix; 3]> = (0..weights.n_heads).map(each).collect();
    let of = |i: usize| stacked(&each.iter().map(|parts| parts[i].clone()).collect::<Vec<_>>(), 0);
    Ok(Some(Readers {
        by: [of(0)?, of(1)?, of(2)?],
        norms: each.iter().map(|parts| parts.each_ref().map(Matrix::norm)).collect(),
    }))
}
