//! Causal attention over packed rows.
//!
//! Rows come in spans ([`Rows`]): a prompt, or the part of a fork that an edit can reach. A fork's rows read the keys and
//! values of the run it forks from for the positions before its own, in place; all spans that share those read them in
//! one product. The keys and values may be those of a cache, of which each span names its rows. Scores live only inside a
//! task, and keys that a window hides from all its rows are passed over. What a row reads does not depend on which others
//! there are, to the last bit. To see or change scores and patterns, [`opened`] computes one span's attention step by step.

mod back;
mod blocks;
pub mod chosen;
pub mod opened;

use super::panels::Panels;
use super::panels::kernel::{self, Lines, WIDTH};
use super::rows::Rows;
use super::{floats, narrowed, on_cpu, simd};
use blocks::{Block, Keys};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// The shape of one layer's attention.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Heads {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    /// Numbers of a query and of a key.
    pub d_head: usize,
    /// Numbers of a value, where they are not as many.
    pub d_value: Option<usize>,
    /// What scores are multiplied by.
    pub scale: f64,
    pub softcap: Option<f64>,
    /// Position i attends to j with `i - j < window`, and to itself.
    pub window: Option<usize>,
    /// Positions are cut into chunks of so many, and each attends within its own.
    pub chunk: Option<usize>,
}

/// What the scores of each query head have beside the products of queries and keys. Either is empty where there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// What a score loses for each position that its key lies back (ALiBi; Press et al. 2022). `[n_heads]`
    pub slopes: Arc<[f32]>,
    /// Where it is not so, but a score gains its key's position times the slope, all in bfloat16, times this.
    pub rounded: Option<f32>,
    /// A score of a key that stands for none and has no value (attention sinks). `[n_heads]`
    pub sinks: Arc<[f32]>,
    /// How far back the keys lie that each row sees, the farthest first, where it does not see all ([`chosen::chosen`]). `[rows]`
    pub chosen: Option<chosen::Chosen>,
}

impl Terms {
    fn is_empty(&self) -> bool {
        self.slopes.is_empty() && self.sinks.is_empty() && self.chosen.is_none()
    }

    /// How far back the keys lie that a row sees; nothing where it sees all.
    fn of_row(&self, row: usize) -> Option<&[u32]> {
        self.chosen.as_ref().and_then(|rows| rows.get(row)).map(|back| &**back)
    }

    fn slope(&self, head: usize) -> f32 {
        self.slopes.get(head).copied().unwrap_or(0.0)
    }

    /// What a score of a head gains by its key's position, where slopes are rounded.
    fn gain(&self, head: usize, key: usize) -> Option<f32> {
        let product = bf16::from_f32(self.slope(head)).to_f32() * bf16::from_f32(key as f32).to_f32();
        self.rounded.map(|scale| scale * bf16::from_f32(product).to_f32())
    }

    fn sink(&self, head: usize) -> Option<f32> {
        self.sinks.get(head).copied()
    }
}

impl Heads {
    /// Query heads that share one KV head.
    pub fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Numbers of a value.
    pub fn d_value(&self) -> usize {
        self.d_value.unwrap_or(self.d_head)
    }

    /// Numbers of all queries, of all keys, of all values and of all that heads read, at one position.
    pub fn widths(&self) -> [usize; 4] {
        let (kv, value) = (self.n_kv_heads, self.d_value());
        [self.n_heads * self.d_head, kv * self.d_head, kv * value, self.n_heads * value]
    }

    /// The first position that a position sees.
    pub fn first_key(&self, position: usize) -> usize {
        let in_chunk = self.chunk.map_or(0, |n| position - position % n.max(1));
        let in_window = self.window.map_or(0, |w| (position + 1).saturating_sub(w.max(1)));
        in_chunk.max(in_window)
    }
}

/// [`attend`] without terms.
///
/// # Errors
/// As [`attend`].
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows, heads: Heads) -> Result<Tensor> {
    attend(q, k, v, rows, heads, &Terms::default())
}

/// `z` of every row: `q` `[rows, n_heads * d_head]`, `k` `[key rows, n_kv_heads * d_head]`, rotated where the family rotates,
/// `v` `[key rows, n_kv_heads * d_value]`; returns `[rows, n_heads * d_value]`.
///
/// # Errors
/// If a shape does not fit the rows or candle fails.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows, heads: Heads, terms: &Terms) -> Result<Tensor> {
    // Checked here because index operations on some devices are not.
    let n = k.dim(0)?;
    if let Some(span) = rows.spans.iter().find(|span| !span.fits(n)) {
        candle_core::bail!("attention of {span:?} over {n} rows of keys")
    }
    if on_cpu(q) {
        let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
        if [&q, &k, &v].iter().any(|x| x.track_op()) {
            return back::attention(&q, &k, &v, rows, heads, terms);
        }
        return Attention { rows, heads, terms }.run(&q, &k, &v);
    }
    #[cfg(feature = "cuda")]
    if q.device().is_cuda()
        && heads.d_head <= super::kernels::attention::WIDEST_HEAD
        && heads.d_value() == heads.d_head
        && heads.chunk.is_none()
        && terms.is_empty()
        && ![q, k, v].iter().any(|x| x.track_op())
    {
        return Attention { rows, heads, terms }.run(&q.contiguous()?, &k.contiguous()?, &v.contiguous()?);
    }
    let z: Vec<Tensor> = rows
        .spans
        .iter()
        .map(|span| {
            let scores = opened::scores_with(q, k, span, heads, terms)?;
            opened::z(&opened::pattern_beside(&scores, terms)?, v, span, heads)
        })
        .collect::<Result<_>>()?;
    Tensor::cat(&z, 0)
}

struct Attention<'a> {
    rows: &'a Rows,
    heads: Heads,
    terms: &'a Terms,
}

impl Attention<'_> {
    fn run(self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        // The op borrows the rows, which a boxed op of candle's graph could not; what is recorded goes through `back`.
        q.apply_op3_no_bwd(k, v, &self)
    }

    /// Holds the shapes of queries, keys and values to the rows and heads.
    fn check(&self, [q, k, v]: [&Layout; 3]) -> Result<()> {
        let (n, keys, [queries, key, value, _]) = (self.rows.len(), k.shape().dims2()?.0, self.heads.widths());
        let count = |l: &Layout| l.shape().elem_count();
        if count(q) != n * queries || count(k) != keys * key || count(v) != keys * value {
            candle_core::bail!("attention of {:?}, {:?} and {:?} over {n} rows", q.shape(), k.shape(), v.shape())
        }
        Ok(())
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
        self.check([l1, l2, l3])?;
        let (q, k, v) = (floats(s1, l1)?, floats(s2, l2)?, floats(s3, l3)?);
        let Heads { n_heads, n_kv_heads, .. } = self.heads;
        let d_value = self.heads.d_value();
        let blocks = blocks::blocks(self.rows, self.heads);
        let tasks: Vec<(&Block, usize)> = blocks.iter().flat_map(|b| (0..n_kv_heads).map(move |h| (b, h))).collect();
        let job = Job { q: &q, k: &k, v: &v, heads: self.heads, terms: self.terms };
        let results: Vec<Vec<f32>> = tasks.par_iter().map(|(block, kv)| job.z(block, *kv)).collect();
        let mut z = vec![0f32; self.rows.len() * n_heads * d_value];
        for ((block, kv), result) in tasks.iter().zip(&results) {
            let mut heads = result.chunks_exact(d_value);
            for piece in &block.pieces {
                for g in 0..self.heads.group() {
                    let head = kv * self.heads.group() + g;
                    for (row, from) in piece.rows.clone().zip(&mut heads) {
                        let at = (row * n_heads + head) * d_value;
                        z[at..at + d_value].copy_from_slice(from);
                    }
                }
            }
        }
        Ok(narrowed(z, s1, (self.rows.len(), n_heads * d_value)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &candle_core::CudaStorage,
        l1: &Layout,
        s2: &candle_core::CudaStorage,
        l2: &Layout,
        s3: &candle_core::CudaStorage,
        l3: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        self.check([l1, l2, l3])?;
        let z = super::kernels::cuda::attend([(s1, l1), (s2, l2), (s3, l3)], self.rows, self.heads)?;
        Ok((z, l1.shape().clone()))
    }
}

/// The inputs of all tasks.
struct Job<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    heads: Heads,
    terms: &'a Terms,
}

impl Job<'_> {
    /// `z` of a block's rows for the query heads of one KV head: `[pieces][group][piece rows][d_value]`, and rows beyond.
    fn z(&self, block: &Block, kv: usize) -> Vec<f32> {
        let (d_head, d_value) = (self.heads.d_head, self.heads.d_value());
        let group = self.heads.group();
        let queries = self.queries(block, kv);
        let m = queries.len() / d_head;
        let own = block.pieces.iter().map(|p| p.own.kept().len()).max().unwrap_or(0);
        let width = block.prefix_len + own;
        let (mut scores, mut z) = (vec![0f32; m * width], vec![0f32; m * d_value]);
        let mut column = 0;
        for kept in block.prefix.iter().map(Keys::kept) {
            add_scores(
                &queries,
                self.lines(self.k, d_head, kv, kept.start),
                kept.len(),
                d_head,
                &mut scores[column..],
                width,
            );
            column += kept.len();
        }
        let mut at = 0;
        for piece in &block.pieces {
            let (own, n) = (piece.own.kept(), group * piece.rows.len());
            let to = &mut scores[at * width + block.prefix_len..];
            add_scores(
                &queries[at * d_head..(at + n) * d_head],
                self.lines(self.k, d_head, kv, own.start),
                own.len(),
                d_head,
                to,
                width,
            );
            for (i, row) in scores[at * width..(at + n) * width].chunks_exact_mut(width).enumerate() {
                let (g, i) = (i / piece.rows.len(), i % piece.rows.len());
                let of = Of { head: kv * group + g, row: piece.rows.start + i, position: block.position(piece, i) };
                self.softmax(of, row, block.seen(piece, i, self.heads));
            }
            at += n;
        }
        let mut column = 0;
        for keys in &block.prefix {
            let pattern = Lines { numbers: &scores[column..], stride: width };
            read_values(pattern, self.lines(self.v, d_value, kv, keys.rows.start), keys, d_value, &mut z);
            column += keys.kept().len();
        }
        let mut at = 0;
        for piece in &block.pieces {
            let n = group * piece.rows.len();
            let pattern = Lines { numbers: &scores[at * width + block.prefix_len..], stride: width };
            let to = &mut z[at * d_value..(at + n) * d_value];
            read_values(pattern, self.lines(self.v, d_value, kv, piece.own.rows.start), &piece.own, d_value, to);
            at += n;
        }
        z
    }

    /// The rows of a KV head from `row` on, of all keys or values, `d` numbers a head.
    fn lines<'a>(&self, x: &'a [f32], d: usize, kv: usize, row: usize) -> Lines<'a> {
        let stride = self.heads.n_kv_heads * d;
        Lines { numbers: &x[row * stride + kv * d..], stride }
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

    /// Scores to probabilities over the columns that a row sees; 0 for the others.
    fn softmax(&self, of: Of, row: &mut [f32], seen: Range<usize>) {
        let (before, rest) = row.split_at_mut(seen.start);
        let (seen, after) = rest.split_at_mut(seen.len());
        softmax(seen, self.heads.scale as f32, self.heads.softcap.map(|c| c as f32), self.terms, of);
        before.fill(0.0);
        after.fill(0.0);
    }
}

/// Of which head and row some scores are, and at which position the row is.
#[derive(Clone, Copy)]
struct Of {
    head: usize,
    row: usize,
    position: usize,
}

/// One row of a head's scores, of the keys that it sees up to its own, to probabilities; 0 for those that it does not choose.
fn softmax(scores: &mut [f32], scale: f32, softcap: Option<f32>, terms: &Terms, of: Of) {
    if terms.is_empty() {
        return simd::softmax_row(scores, scale, softcap);
    }
    let (slope, sink) = (terms.slope(of.head), terms.sink(of.head));
    if let Some(back) = terms.of_row(of.row) {
        let last = scores.len() - 1;
        let mut chosen: Vec<f32> = back.iter().map(|back| scores[last - *back as usize]).collect();
        simd::softmax_row_beside(&mut chosen, scale, softcap, 0.0, sink);
        scores.fill(0.0);
        back.iter().zip(chosen).for_each(|(back, p)| scores[last - *back as usize] = p);
        return;
    }
    if terms.rounded.is_none() {
        return simd::softmax_row_beside(scores, scale, softcap, slope, sink);
    }
    let first = of.position + 1 - scores.len();
    for (key, score) in (first..).zip(&mut *scores) {
        *score = *score * scale + terms.gain(of.head, key).unwrap_or_default();
    }
    simd::softmax_row_beside(scores, 1.0, None, 0.0, sink);
}

/// Below so many keys, packing them costs more than sums one by one.
const WORTH_PACKING: usize = 8;

/// Keys over whose values is summed without a break.
const UNBROKEN_KEYS: usize = 512;

/// Adds `queries[m, d] . keys[n, d]` to the first `n` columns of `scores`, whose rows are `width` apart.
fn add_scores(queries: &[f32], keys: Lines, n: usize, d: usize, scores: &mut [f32], width: usize) {
    if n >= WORTH_PACKING {
        let mut cells: Vec<&mut [f32]> = scores.chunks_mut(width).take(queries.len() / d).collect();
        Panels::pack_lines(keys, n, d).add(queries, &mut cells);
        return;
    }
    for (query, scores) in queries.chunks_exact(d).zip(scores.chunks_mut(width)) {
        for (j, score) in scores.iter_mut().take(n).enumerate() {
            *score += kernel::sum(query, &keys.numbers[j * keys.stride..][..d]);
        }
    }
}

/// Adds `pattern[m, kept] . values[kept, d]` to `out[m, d]`; the values begin with those that are passed over, the pattern
/// does not. Sums break at the same keys however many these are, and a hidden key adds 0: passing over it changes no bit.
fn read_values(pattern: Lines, values: Lines, keys: &Keys, d: usize, out: &mut [f32]) {
    let (mut from, end) = (keys.passed, keys.rows.len());
    let mut cells: Vec<&mut [f32]> = out.chunks_exact_mut(d).collect();
    while from < end {
        let to = end.min((from / UNBROKEN_KEYS + 1) * UNBROKEN_KEYS);
        let inputs = from - keys.passed..to - keys.passed;
        for column in (0..d).step_by(WIDTH) {
            let columns = column..d.min(column + WIDTH);
            let numbers = &values.numbers[from * values.stride + column..];
            if columns.len() == WIDTH {
                kernel::add(pattern, &inputs, Lines { numbers, ..values }, &mut cells, &columns);
                continue;
            }
            // The last columns of a head that is no multiple of the kernel's width.
            let mut padded = vec![0f32; inputs.len() * WIDTH];
            for (to, from) in padded.chunks_exact_mut(WIDTH).zip(numbers.chunks(values.stride)) {
                to[..columns.len()].copy_from_slice(&from[..columns.len()]);
            }
            kernel::add(pattern, &inputs, Lines { numbers: &padded, stride: WIDTH }, &mut cells, &columns);
        }
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::rows::Span;
    use candle_core::DType;
    use candle_core::Device;

    fn rows(spans: Vec<Span>) -> Rows {
        let n = spans.last().map_or(0, |s| s.rows.end);
        Rows { spans, entries: vec![0; n] }
    }

    fn span(rows: Range<usize>, start: usize, prefix: Vec<Range<usize>>) -> Span {
        Span::new(rows, start, prefix)
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
            let heads = Heads { n_heads, n_kv_heads, d_head, scale: 0.3, softcap, window, ..Heads::default() };
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
    fn the_kernel_equals_attention_step_by_step_in_half_precision_too() -> Result<()> {
        let device = Device::Cpu;
        let rows = packed();
        let heads = Heads {
            n_heads: 4,
            n_kv_heads: 2,
            d_head: 16,
            scale: 0.3,
            softcap: None,
            window: None,
            ..Heads::default()
        };
        for (dtype, most) in [(DType::BF16, 0.02), (DType::F16, 0.003)] {
            // Of size 100 a product of queries and keys is beyond f16's largest number, and bf16 would have 8 bits of it.
            let random =
                |n: usize, size: f32| Tensor::randn(0f32, size, (rows.len(), n * 16), &device)?.to_dtype(dtype);
            let (q, k, v) = (random(4, 100.0)?, random(2, 100.0)?, random(2, 1.0)?);
            let fast = attention(&q, &k, &v, &rows, heads)?;
            for span in &rows.spans {
                let pattern = opened::pattern(&opened::scores(&q, &k, span, heads)?)?;
                let slow = opened::z(&pattern, &v, span, heads)?;
                assert_eq!(slow.dtype(), dtype);
                let fast = fast.narrow(0, span.rows.start, span.rows.len())?.to_dtype(DType::F32)?;
                let difference = (fast - slow.to_dtype(DType::F32)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(difference < most, "{dtype:?} {span:?}: {difference}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_window_of_one_reads_its_own_value() -> Result<()> {
        let device = Device::Cpu;
        let rows = rows(vec![span(0..4, 0, vec![])]);
        let heads = Heads {
            n_heads: 1,
            n_kv_heads: 1,
            d_head: 8,
            scale: 1.0,
            softcap: None,
            window: Some(1),
            ..Heads::default()
        };
        let (q, v) = (Tensor::randn(0f32, 1.0, (4, 8), &device)?, Tensor::randn(0f32, 1.0, (4, 8), &device)?);
        let z = attention(&q, &q, &v, &rows, heads)?;
        assert!((z - v)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-6);
        Ok(())
    }

    #[test]
    fn the_last_queries_of_spans_read_a_cache_as_they_read_their_rows() -> Result<()> {
        let device = Device::Cpu;
        let whole = packed();
        let heads = Heads {
            n_heads: 4,
            n_kv_heads: 2,
            d_head: 8,
            scale: 0.3,
            softcap: None,
            window: Some(40),
            ..Heads::default()
        };
        let random = |n: usize| Tensor::randn(0f32, 1.5, (whole.len(), n * 8), &device);
        let (q, k, v) = (random(4)?, random(2)?, random(2)?);
        let all = attention(&q, &k, &v, &whole, heads)?;
        // One query a span, the last; of the first span three.
        let last = |s: &Span| s.rows.end - if s.rows.start == 0 { 3 } else { 1 }..s.rows.end;
        let index: Vec<u32> = whole.spans.iter().flat_map(last).map(|r| r as u32).collect();
        let index = Tensor::new(index, &device)?;
        let mut at = 0;
        let spans = whole.spans.iter().map(|s| {
            let n = last(s).len();
            at += n;
            Span { rows: at - n..at, start: s.start, prefix: s.prefix.clone(), own: s.rows.clone() }
        });
        let some = rows(spans.collect());
        let z = attention(&q.index_select(&index, 0)?, &k, &v, &some, heads)?;
        let difference = (&z - all.index_select(&index, 0)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(difference < 2e-5, "{difference}");
        for span in &some.spans {
            let pattern = opened::pattern(&opened::scores(&q.index_select(&index, 0)?, &k, span, heads)?)?;
            let slow = opened::z(&pattern, &v, span, heads)?;
            let fast = z.narrow(0, span.rows.start, span.rows.len())?;
            assert!((fast - slow)?.abs()?.max_all()?.to_scalar::<f32>()? < 2e-5, "{span:?}");
        }
        Ok(())
    }

    #[test]
    fn what_a_row_reads_does_not_depend_on_the_others_that_share_its_prefix() -> Result<()> {
        let device = Device::Cpu;
        // Of a prefix of 516 keys four are left for the last product, of 518 six.
        for (n, d_head, n_heads, n_kv_heads, window) in [
            (2, 16, 2, 2, None),
            (5, 16, 3, 1, None),
            (70, 64, 4, 4, None),
            (517, 16, 2, 2, None),
            (519, 16, 2, 2, Some(200)),
            (700, 64, 6, 2, None),
            (1200, 16, 2, 1, Some(600)),
        ] {
            let heads = Heads { n_heads, n_kv_heads, d_head, scale: 0.3, softcap: None, window, ..Heads::default() };
            // A prompt, then forks of one to four rows from one position of it.
            let lengths = [1, 3, 1, 1, 4, 2].repeat(30);
            let mut spans = vec![span(0..n, 0, vec![])];
            for length in &lengths {
                let at = spans.last().map_or(0, |s| s.rows.end);
                spans.push(span(at..at + length, n - 1, vec![0..n - 1]));
            }
            let all = rows(spans.clone());
            let random = |heads: usize| Tensor::randn(0f32, 1.5, (all.len(), heads * d_head), &device);
            let (q, k, v) = (random(n_heads)?, random(n_kv_heads)?, random(n_kv_heads)?);
            let together = attention(&q, &k, &v, &all, heads)?;
            for s in spans[1..].iter().step_by(7) {
                let one = rows(vec![Span { rows: 0..s.rows.len(), own: s.rows.clone(), ..s.clone() }]);
                let q = q.narrow(0, s.rows.start, s.rows.len())?;
                let alone = attention(&q, &k, &v, &one, heads)?.flatten_all()?.to_vec1::<f32>()?;
                let found = together.narrow(0, s.rows.start, s.rows.len())?.flatten_all()?.to_vec1::<f32>()?;
                assert!(alone.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()), "{n} {d_head} {s:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_span_that_reads_what_is_not_there_is_an_error() -> Result<()> {
        let x = Tensor::zeros((4, 8), DType::F32, &Device::Cpu)?;
        let heads =
            Heads { n_heads: 1, n_kv_heads: 1, d_head: 8, scale: 1.0, softcap: None, window: None, ..Heads::default() };
        for (start, prefix, own) in [(0, vec![], 1..5), (2, vec![3..5], 0..4), (3, vec![0..2], 0..4), (0, vec![], 0..3)]
        {
            let span = Span { rows: 0..4, start, prefix, own };
            assert!(attention(&x, &x, &x, &rows(vec![span]), heads).is_err());
        }
        Ok(())
    }
}
