//! Causal attention over packed rows.
//!
//! Rows come in spans ([`Rows`]): a prompt, or the part of a fork that an edit can reach. A fork's rows read the keys and
//! values of the run it forks from for the positions before its own, in place; all spans that share those read them in
//! one product. Scores live only inside a task. To see or change scores and patterns, [`opened`] computes one span's
//! attention step by step.

use super::{floats, narrowed, on_cpu, simd};
use crate::model::rows::{Rows, Span};
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;

/// The shape of one layer's attention.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
    /// What scores are multiplied by.
    pub scale: f64,
    pub softcap: Option<f64>,
    /// Position i attends to j with `i - j < window`.
    pub window: Option<usize>,
}

impl Heads {
    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }
}

/// `z` of every row: `q` `[rows, n_heads * d_head]`, `k` and `v` `[rows, n_kv_heads * d_head]`, all rotated where the family
/// rotates; returns `[rows, n_heads * d_head]`.
///
/// # Errors
/// If a shape does not fit the rows or candle fails.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows, heads: Heads) -> Result<Tensor> {
    if on_cpu(q) {
        let op = Attention { rows, heads };
        return op.run(&q.contiguous()?, &k.contiguous()?, &v.contiguous()?);
    }
    let z: Vec<Tensor> = rows
        .spans
        .iter()
        .map(|span| {
            let scores = opened::scores(q, k, span, heads)?;
            opened::z(&opened::pattern(&scores)?, v, span, heads)
        })
        .collect::<Result<_>>()?;
    Tensor::cat(&z, 0)
}

/// Attention of one span in its steps, of candle's own operations.
pub mod opened {
    use super::*;

    /// Scores of a span's rows over positions `0..keys`, scaled and soft-capped, minus infinity where a row may not look.
    /// Returns f32 `[span rows, n_heads, keys]`.
    ///
    /// # Errors
    /// If candle fails.
    pub fn scores(q: &Tensor, k: &Tensor, span: &Span, heads: Heads) -> Result<Tensor> {
        let q = by_head(&q.narrow(0, span.rows.start, span.rows.len())?, heads.n_heads, heads.d_head)?;
        let k = per_query_head(k, span, heads)?;
        let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)?.to_dtype(DType::F32)? * heads.scale)?;
        let scores = match heads.softcap {
            Some(cap) => ((scores / cap)?.tanh()? * cap)?,
            None => scores,
        };
        let keys = span.keys();
        let hidden: Vec<f32> = (span.start..keys)
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
        let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)
    }

    /// What a span's heads read by a pattern `[span rows, n_heads, keys]`. Returns `[span rows, n_heads * d_head]`.
    ///
    /// # Errors
    /// If candle fails.
    pub fn z(pattern: &Tensor, v: &Tensor, span: &Span, heads: Heads) -> Result<Tensor> {
        let v = per_query_head(v, span, heads)?;
        let pattern = pattern.to_dtype(v.dtype())?.transpose(0, 1)?.contiguous()?;
        let z = pattern.matmul(&v)?.transpose(0, 1)?.contiguous()?;
        z.reshape((span.rows.len(), heads.n_heads * heads.d_head))
    }

    fn visible(query: usize, key: usize, window: Option<usize>) -> bool {
        key <= query && window.is_none_or(|w| query - key < w)
    }

    /// `[rows, n * d_head]` to `[n, rows, d_head]`
    fn by_head(x: &Tensor, n: usize, d_head: usize) -> Result<Tensor> {
        x.reshape((x.dim(0)?, n, d_head))?.transpose(0, 1)?.contiguous()
    }

    /// The rows that a span reads, each KV head repeated for the query heads that share it. `[n_heads, keys, d_head]`
    fn per_query_head(kv: &Tensor, span: &Span, heads: Heads) -> Result<Tensor> {
        let index = Tensor::new(span.key_rows(), kv.device())?;
        let kv = by_head(&kv.index_select(&index, 0)?, heads.n_kv_heads, heads.d_head)?;
        let (n, keys, d) = kv.dims3()?;
        let shape = (n, heads.group(), keys, d);
        kv.unsqueeze(1)?.broadcast_as(shape)?.contiguous()?.reshape((n * heads.group(), keys, d))
    }
}

/// Rows of scores that a task holds at least; enough that its products run at full speed, few enough for the cache.
const SCORE_ROWS: usize = 256;

/// Query rows whose scores one task computes for one KV head. All share `prefix`.
struct Block<'a> {
    prefix: &'a [Range<usize>],
    prefix_len: usize,
    pieces: Vec<Piece>,
}

/// Consecutive query rows of one span, with the span's first row.
struct Piece {
    rows: Range<usize>,
    own: usize,
}

impl Piece {
    /// The span's rows that the piece's last row sees.
    fn own_rows(&self) -> Range<usize> {
        self.own..self.rows.end
    }
}

struct Attention<'a> {
    rows: &'a Rows,
    heads: Heads,
}

impl Attention<'_> {
    fn run(self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        // The op borrows the rows, which a boxed op of candle's graph could not: none is recorded.
        q.apply_op3_no_bwd(k, v, &self)
    }

    /// Cuts the spans into blocks, those of one prefix together. Depends on the rows alone, so that results do not
    /// depend on the number of threads.
    fn blocks(&self) -> Vec<Block<'_>> {
        let limit = SCORE_ROWS.div_ceil(self.heads.group());
        let mut shared: HashMap<&[Range<usize>], usize> = HashMap::new();
        let mut blocks: Vec<Block> = Vec::new();
        let mut filled: Vec<usize> = Vec::new();
        for span in &self.rows.spans {
            let mut from = span.rows.start;
            while from < span.rows.end {
                let open = shared.get(span.prefix.as_slice()).copied().filter(|b| filled[*b] < limit);
                // Without a prefix there is nothing to share: each prompt has blocks of its own.
                let b = open.filter(|_| span.start > 0).unwrap_or_else(|| {
                    blocks.push(Block { prefix: &span.prefix, prefix_len: span.start, pieces: Vec::new() });
                    filled.push(0);
                    shared.insert(&span.prefix, blocks.len() - 1);
                    blocks.len() - 1
                });
                let to = span.rows.end.min(from + limit - filled[b]);
                blocks[b].pieces.push(Piece { rows: from..to, own: span.rows.start });
                filled[b] += to - from;
                from = to;
            }
        }
        blocks
    }
}

impl CustomOp3 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (floats(s1, l1)?, floats(s2, l2)?, floats(s3, l3)?);
        let Heads { n_heads, n_kv_heads, d_head, .. } = self.heads;
        let n = self.rows.len();
        if q.len() != n * n_heads * d_head || k.len() != n * n_kv_heads * d_head || v.len() != k.len() {
            candle_core::bail!("attention of {:?}, {:?} and {:?} over {n} rows", l1.shape(), l2.shape(), l3.shape())
        }
        let blocks = self.blocks();
        let tasks: Vec<(&Block, usize)> = blocks.iter().flat_map(|b| (0..n_kv_heads).map(move |h| (b, h))).collect();
        let job = Job { q: &q, k: &k, v: &v, heads: self.heads };
        let results: Vec<Vec<f32>> = tasks.par_iter().map(|(block, kv)| job.z(block, *kv)).collect();
        let mut z = vec![0f32; q.len()];
        for ((block, kv), result) in tasks.iter().zip(&results) {
            let mut heads = result.chunks_exact(d_head);
            for piece in &block.pieces {
                for g in 0..self.heads.group() {
                    let head = kv * self.heads.group() + g;
                    for (row, from) in piece.rows.clone().zip(&mut heads) {
                        let at = (row * n_heads + head) * d_head;
                        z[at..at + d_head].copy_from_slice(from);
                    }
                }
            }
        }
        Ok(narrowed(z, s1, l1.shape()))
    }
}

/// The inputs of all tasks.
struct Job<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    heads: Heads,
}

impl Job<'_> {
    /// `z` of a block's rows for the query heads of one KV head: `[pieces][group][piece rows][d_head]`.
    fn z(&self, block: &Block, kv: usize) -> Vec<f32> {
        let Heads { n_kv_heads, d_head, .. } = self.heads;
        let group = self.heads.group();
        let queries = self.queries(block, kv);
        let m = queries.len() / d_head;
        let own = block.pieces.iter().map(|p| p.own_rows().len()).max().unwrap_or(0);
        let width = block.prefix_len + own;
        let stride = n_kv_heads * d_head;
        let (mut scores, mut z) = (vec![0f32; m * width], vec![0f32; m * d_head]);
        let mut column = 0;
        for rows in block.prefix {
            let keys = &self.k[rows.start * stride + kv * d_head..];
            scores_of(&queries, keys, stride, m, rows.len(), d_head, &mut scores[column..], width);
            column += rows.len();
        }
        let mut at = 0;
        for piece in &block.pieces {
            let (own, n) = (piece.own_rows(), group * piece.rows.len());
            let keys = &self.k[own.start * stride + kv * d_head..];
            let to = &mut scores[at * width + block.prefix_len..];
            scores_of(&queries[at * d_head..], keys, stride, n, own.len(), d_head, to, width);
            for (i, row) in scores[at * width..(at + n) * width].chunks_exact_mut(width).enumerate() {
                let position = block.prefix_len + piece.rows.start + i % piece.rows.len() - piece.own;
                self.softmax(row, position);
            }
            at += n;
        }
        let mut column = 0;
        for rows in block.prefix {
            let values = &self.v[rows.start * stride + kv * d_head..];
            read_values(&scores[column..], width, values, stride, m, rows.len(), d_head, &mut z);
            column += rows.len();
        }
        let mut at = 0;
        for piece in &block.pieces {
            let (own, n) = (piece.own_rows(), group * piece.rows.len());
            let values = &self.v[own.start * stride + kv * d_head..];
            let from = &scores[at * width + block.prefix_len..];
            read_values(from, width, values, stride, n, own.len(), d_head, &mut z[at * d_head..]);
            at += n;
        }
        z
    }

    /// The block's queries, contiguous: `[pieces][group][piece rows][d_head]`.
    fn queries(&self, block: &Block, kv: usize) -> Vec<f32> {
        let Heads { n_heads, d_head, .. } = self.heads;
        let group = self.heads.group();
        let mut queries = Vec::new();
        for piece in &block.pieces {
            for g in 0..group {
                for row in piece.rows.clone() {
                    let at = (row * n_heads + kv * group + g) * d_head;
                    queries.extend_from_slice(&self.q[at..at + d_head]);
                }
            }
        }
        queries
    }

    /// Scores to probabilities over the keys that `position` sees; 0 for the others.
    fn softmax(&self, row: &mut [f32], position: usize) {
        let first = self.heads.window.map_or(0, |w| (position + 1).saturating_sub(w));
        let (hidden, rest) = row.split_at_mut(first);
        let (seen, later) = rest.split_at_mut(position + 1 - first);
        simd::softmax_row(seen, self.heads.scale as f32, self.heads.softcap.map(|c| c as f32));
        hidden.fill(0.0);
        later.fill(0.0);
    }
}

/// Below this many products a call of the matrix product costs more than plain loops.
const SMALL: usize = 16;

/// `out[m, n] = queries[m, d] . keys[n, d]`, keys `stride` apart, rows of `out` `width` apart.
#[allow(clippy::too_many_arguments)]
fn scores_of(
    queries: &[f32],
    keys: &[f32],
    stride: usize,
    m: usize,
    n: usize,
    d: usize,
    out: &mut [f32],
    width: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    if m * n <= SMALL {
        for i in 0..m {
            for j in 0..n {
                out[i * width + j] = simd::dot(&queries[i * d..(i + 1) * d], &keys[j * stride..j * stride + d]);
            }
        }
        return;
    }
    assert!(queries.len() >= m * d && keys.len() >= (n - 1) * stride + d && out.len() >= (m - 1) * width + n);
    // SAFETY: the assertion above bounds every element that the strides reach; `out` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            d,
            out.as_mut_ptr(),
            1,
            width as isize,
            false,
            queries.as_ptr(),
            1,
            d as isize,
            keys.as_ptr(),
            stride as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `out[m, d] += pattern[m, n] . values[n, d]`, rows of `pattern` `width` apart, values `stride` apart.
#[allow(clippy::too_many_arguments)]
fn read_values(
    pattern: &[f32],
    width: usize,
    values: &[f32],
    stride: usize,
    m: usize,
    n: usize,
    d: usize,
    out: &mut [f32],
) {
    if m == 0 || n == 0 {
        return;
    }
    if m * n <= SMALL {
        for i in 0..m {
            for j in 0..n {
                simd::axpy(pattern[i * width + j], &values[j * stride..j * stride + d], &mut out[i * d..(i + 1) * d]);
            }
        }
        return;
    }
    assert!(pattern.len() >= (m - 1) * width + n && values.len() >= (n - 1) * stride + d && out.len() >= m * d);
    // SAFETY: the assertion above bounds every element that the strides reach; `out` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            d,
            n,
            out.as_mut_ptr(),
            1,
            d as isize,
            true,
            pattern.as_ptr(),
            1,
            width as isize,
            values.as_ptr(),
            1,
            stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn rows(spans: Vec<Span>) -> Rows {
        let n = spans.last().map_or(0, |s| s.rows.end);
        Rows { spans, entries: vec![0; n] }
    }

    fn span(rows: Range<usize>, start: usize, prefix: Vec<Range<usize>>) -> Span {
        Span { rows, start, prefix }
    }

    /// Two prompts of unlike lengths, forks of the first from two positions, a fork of a fork.
    fn packed() -> Rows {
        rows(vec![
            span(0..300, 0, vec![]),
            span(300..305, 0, vec![]),
            span(305..306, 299, vec![0..299]),
            span(306..307, 299, vec![0..299]),
            span(307..347, 260, vec![0..260]),
            span(347..357, 290, vec![0..260, 307..337]),
        ])
    }

    #[test]
    fn the_kernel_equals_attention_step_by_step() -> Result<()> {
        let device = Device::Cpu;
        let rows = packed();
        for (n_heads, n_kv_heads, d_head, softcap, window) in [
            (4, 2, 16, None, None),
            (3, 1, 12, Some(20.0), Some(6)),
            (2, 2, 64, None, Some(290)),
            (6, 2, 5, Some(3.0), None),
        ] {
            let heads = Heads { n_heads, n_kv_heads, d_head, scale: 0.3, softcap, window };
            let random = |n: usize| Tensor::randn(0f32, 1.5, (rows.len(), n * d_head), &device);
            let (q, k, v) = (random(n_heads)?, random(n_kv_heads)?, random(n_kv_heads)?);
            let fast = attention(&q, &k, &v, &rows, heads)?;
            for span in &rows.spans {
                let pattern = opened::pattern(&opened::scores(&q, &k, span, heads)?)?;
                let slow = opened::z(&pattern, &v, span, heads)?;
                let fast = fast.narrow(0, span.rows.start, span.rows.len())?;
                let difference = (fast - slow)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(difference < 2e-5, "{heads:?} {span:?}: {difference}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_window_of_one_reads_its_own_value() -> Result<()> {
        let device = Device::Cpu;
        let rows = rows(vec![span(0..4, 0, vec![])]);
        let heads = Heads { n_heads: 1, n_kv_heads: 1, d_head: 8, scale: 1.0, softcap: None, window: Some(1) };
        let (q, v) = (Tensor::randn(0f32, 1.0, (4, 8), &device)?, Tensor::randn(0f32, 1.0, (4, 8), &device)?);
        let z = attention(&q, &q, &v, &rows, heads)?;
        assert!((z - v)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-6);
        Ok(())
    }
}
