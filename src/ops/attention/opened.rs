//! Attention of one span in its steps, of candle's own operations, in f32 whatever the activations are, as the kernel
//! computes.

use super::Heads;
use crate::ops::rows::Span;
use candle_core::{D, DType, Result, Tensor};

/// Scores of a span's rows over positions `0..keys`, scaled and soft-capped, minus infinity where a row may not look.
/// Returns f32 `[span rows, n_heads, keys]`.
///
/// # Errors
/// If candle fails.
pub fn scores(q: &Tensor, k: &Tensor, span: &Span, heads: Heads) -> Result<Tensor> {
    let q = q.narrow(0, span.rows.start, span.rows.len())?.to_dtype(DType::F32)?;
    let q = by_head(&q, heads.n_heads, heads.d_head)?;
    let k = per_query_head(k, span, heads)?;
    let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? * heads.scale)?;
    let scores = match heads.softcap {
        Some(cap) => ((scores / cap)?.tanh()? * cap)?,
        None => scores,
    };
    let keys = span.keys();
    let hidden: Vec<f32> = (span.first()..keys)
        .flat_map(|i| (0..keys).map(move |j| if visible(i, j, heads.window) { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    let hidden = Tensor::from_vec(hidden, (1, span.rows.len(), keys), scores.device())?;
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

/// What a span's heads read by a pattern `[span rows, n_heads, keys]`, in f32. Returns `[span rows, n_heads * d_head]` in the
/// dtype of `v`.
///
/// # Errors
/// If candle fails.
pub fn z(pattern: &Tensor, v: &Tensor, span: &Span, heads: Heads) -> Result<Tensor> {
    let pattern = pattern.transpose(0, 1)?.contiguous()?;
    let z = pattern.matmul(&per_query_head(v, span, heads)?)?.transpose(0, 1)?.contiguous()?;
    z.reshape((span.rows.len(), heads.n_heads * heads.d_head))?.to_dtype(v.dtype())
}

fn visible(query: usize, key: usize, window: Option<usize>) -> bool {
    key <= query && window.is_none_or(|w| query - key < w)
}

/// `[rows, n * d_head]` to `[n, rows, d_head]`
fn by_head(x: &Tensor, n: usize, d_head: usize) -> Result<Tensor> {
    x.reshape((x.dim(0)?, n, d_head))?.transpose(0, 1)?.contiguous()
}

/// The rows that a span reads, each KV head repeated for the query heads that share it. f32 `[n_heads, keys, d_head]`
fn per_query_head(kv: &Tensor, span: &Span, heads: Heads) -> Result<Tensor> {
    let index = Tensor::new(span.key_rows(), kv.device())?;
    let kv = by_head(&kv.index_select(&index, 0)?.to_dtype(DType::F32)?, heads.n_kv_heads, heads.d_head)?;
    let (n, keys, d) = kv.dims3()?;
    let shape = (n, heads.group(), keys, d);
    kv.unsqueeze(1)?.broadcast_as(shape)?.contiguous()?.reshape((n * heads.group(), keys, d))
}
