//! Attention of one span in its steps, of candle's own operations, in f32 whatever the activations are, as the kernel
//! computes.

use super::{Heads, Terms};
use crate::ops::rows::Span;
use candle_core::{D, DType, Result, Tensor};

/// Scores of a span's rows over positions `0..keys`, scaled and soft-capped, minus infinity where a row may not look.
/// Returns f32 `[span rows, n_heads, keys]`.
///
/// # Errors
/// If candle fails.
pub fn scores(q: &Tensor, k: &Tensor, span: &Span, heads: Heads) -> Result<Tensor> {
    scores_with(q, k, span, heads, &Terms::default())
}

/// [`scores`], less what each loses by its key's distance, minus infinity too where a row does not choose a key.
///
/// # Errors
/// If candle fails.
pub fn scores_with(q: &Tensor, k: &Tensor, span: &Span, heads: Heads, terms: &Terms) -> Result<Tensor> {
    let q = q.narrow(0, span.rows.start, span.rows.len())?.to_dtype(DType::F32)?;
    let q = by_head(&q, heads.n_heads, heads.d_head)?;
    let k = per_query_head(k, span, heads, heads.d_head)?;
    let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? * heads.scale)?;
    let scores = match heads.softcap {
        Some(cap) => ((scores / cap)?.tanh()? * cap)?,
        None => scores,
    };
    let keys = span.keys();
    let cells = |cell: &dyn Fn(usize, usize) -> f32| -> Result<Tensor> {
        let all = (span.first()..keys).flat_map(|i| (0..keys).map(move |j| (i, j))).map(|(i, j)| cell(i, j)).collect();
        Tensor::from_vec(all, (1, span.rows.len(), keys), scores.device())
    };
    let chosen = |i: usize, j: usize| {
        let back = terms.of_row(span.rows.start + i - span.first());
        // They are sorted, the farthest first.
        back.is_none_or(|back| back.binary_search_by(|b| ((i - j) as u32).cmp(b)).is_ok())
    };
    let seen = |i: usize, j: usize| j <= i && j >= heads.first_key(i) && chosen(i, j);
    let hidden = cells(&|i, j| if seen(i, j) { 0.0 } else { f32::NEG_INFINITY })?;
    let scores = match (terms.slopes.is_empty(), terms.rounded) {
        (true, _) => scores.clone(),
        (false, None) => {
            let slopes = Tensor::from_vec(terms.slopes.to_vec(), (heads.n_heads, 1, 1), scores.device())?;
            scores.broadcast_sub(&cells(&|i, j| i as f32 - j as f32)?.broadcast_mul(&slopes)?)?
        }
        (false, Some(_)) => {
            let gain = |head| (0..keys).map(move |key| terms.gain(head, key).unwrap_or_default());
            let gains: Vec<f32> = (0..heads.n_heads).flat_map(gain).collect();
            scores.broadcast_add(&Tensor::from_vec(gains, (heads.n_heads, 1, keys), scores.device())?)?
        }
    };
    scores.broadcast_add(&hidden)?.transpose(0, 1)?.contiguous()
}

/// The softmax of scores over keys. `[span rows, n_heads, keys]`
///
/// # Errors
/// If candle fails.
pub fn pattern(scores: &Tensor) -> Result<Tensor> {
    // The result does not depend on what is subtracted, nor does its gradient.
    let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)
}

/// [`pattern`] beside the heads' sinks, which take their share: rows sum to less than 1.
///
/// # Errors
/// If candle fails.
pub fn pattern_beside(scores: &Tensor, terms: &Terms) -> Result<Tensor> {
    if terms.sinks.is_empty() {
        return pattern(scores);
    }
    let (rows, heads, keys) = scores.dims3()?;
    let sinks = Tensor::from_vec(terms.sinks.to_vec(), (1, heads, 1), scores.device())?;
    let sinks = sinks.broadcast_as((rows, heads, 1))?;
    pattern(&Tensor::cat(&[scores, &sinks], 2)?)?.narrow(2, 0, keys)
}

/// What a span's heads read by a pattern `[span rows, n_heads, keys]`, in f32. Returns `[span rows, n_heads * d_value]` in the
/// dtype of `v`.
///
/// # Errors
/// If candle fails.
pub fn z(pattern: &Tensor, v: &Tensor, span: &Span, heads: Heads) -> Result<Tensor> {
    let pattern = pattern.transpose(0, 1)?.contiguous()?;
    let z = pattern.matmul(&per_query_head(v, span, heads, heads.d_value())?)?.transpose(0, 1)?.contiguous()?;
    z.reshape((span.rows.len(), heads.n_heads * heads.d_value()))?.to_dtype(v.dtype())
}

/// `[rows, n * d_head]` to `[n, rows, d_head]`
fn by_head(x: &Tensor, n: usize, d_head: usize) -> Result<Tensor> {
    x.reshape((x.dim(0)?, n, d_head))?.transpose(0, 1)?.contiguous()
}

/// The rows that a span reads, `d` numbers a head, each KV head repeated for the query heads that share it. f32
/// `[n_heads, keys, d]`
fn per_query_head(kv: &Tensor, span: &Span, heads: Heads, d: usize) -> Result<Tensor> {
    let index = Tensor::new(span.key_rows(), kv.device())?;
    let kv = by_head(&kv.index_select(&index, 0)?.to_dtype(DType::F32)?, heads.n_kv_heads, d)?;
    let (n, keys, d) = kv.dims3()?;
    let shape = (n, heads.group(), keys, d);
    kv.unsqueeze(1)?.broadcast_as(shape)?.contiguous()?.reshape((n * heads.group(), keys, d))
}
