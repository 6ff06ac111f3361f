//! Attention as a step of a graph, with its gradient: that of the kernel, for spans that are whole prompts.
//!
//! With `P` the pattern and `dz` the gradient with respect to `z`: `dv = P^T dz`; with respect to the pattern
//! `dP = dz v^T`; with respect to the scores `dS = P (dP - rowsum(P dP))`, times the soft-cap's slope; `dq = dS k`,
//! `dk = dS^T q`, times the scale. Scores are computed again, a few query rows at a time: nothing as large as a pattern
//! outlives a task.

use super::{Attention, Heads, Of, Terms};
use crate::ops::rows::{Rows, Span};
use crate::ops::simd::{self, Function};
use crate::ops::to_vec;
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Query rows whose scores a task holds at once.
const QUERIES: usize = 128;

/// [`super::attention`] of tensors that a graph tracks, contiguous and on the CPU.
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    rows: &Rows,
    heads: Heads,
    terms: &Terms,
) -> Result<Tensor> {
    if rows.spans.iter().any(|span| span.start > 0 || span.own != span.rows) {
        candle_core::bail!(
            "the gradient of attention is of whole prompts; a span begins after its prompt's first position, or has its keys in a cache"
        )
    }
    q.apply_op3(k, v, Step { rows: rows.clone(), heads, terms: terms.clone() })
}

struct Step {
    rows: Rows,
    heads: Heads,
    terms: Terms,
}

impl CustomOp3 for Step {
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
        Attention { rows: &self.rows, heads: self.heads, terms: &self.terms }.cpu_fwd(s1, l1, s2, l2, s3, l3)
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Heads { n_heads, n_kv_heads, d_head, .. } = self.heads;
        let (d_value, terms) = (self.heads.d_value(), &self.terms);
        let job = Back { q: to_vec(q)?, k: to_vec(k)?, v: to_vec(v)?, grad: to_vec(grad)?, heads: self.heads, terms };
        let tasks: Vec<(&Span, usize)> =
            self.rows.spans.iter().flat_map(|span| (0..n_heads).map(move |head| (span, head))).collect();
        let results: Vec<Gradients> = tasks.par_iter().map(|(span, head)| job.head(span.rows.clone(), *head)).collect();
        let (mut dq, mut dk, mut dv) = (vec![0f32; job.q.len()], vec![0f32; job.k.len()], vec![0f32; job.v.len()]);
        for ((span, head), result) in tasks.iter().zip(&results) {
            let kv = head / self.heads.group();
            add_columns(&mut dq, n_heads * d_head, head * d_head, &span.rows, &result.q, d_head);
            add_columns(&mut dk, n_kv_heads * d_head, kv * d_head, &span.rows, &result.k, d_head);
            add_columns(&mut dv, n_kv_heads * d_value, kv * d_value, &span.rows, &result.v, d_value);
        }
        let like = |values: Vec<f32>, x: &Tensor| {
            Tensor::from_vec(values, x.shape(), &Device::Cpu)?.to_dtype(x.dtype()).map(Some)
        };
        Ok((like(dq, q)?, like(dk, k)?, like(dv, v)?))
    }
}

/// Adds `[rows, d]` to as many columns from `column` on of these rows of a matrix `width` wide.
fn add_columns(to: &mut [f32], width: usize, column: usize, rows: &Range<usize>, from: &[f32], d: usize) {
    for (row, from) in rows.clone().zip(from.chunks_exact(d)) {
        let at = row * width + column;
        to[at..at + d].iter_mut().zip(from).for_each(|(to, from)| *to += from);
    }
}

/// The inputs of all tasks, `[rows, heads * d]` each.
struct Back<'a> {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    grad: Vec<f32>,
    heads: Heads,
    terms: &'a Terms,
}

/// What one query head of one span contributes, `[span rows, d]` each.
struct Gradients {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Back<'_> {
    fn head(&self, rows: Range<usize>, head: usize) -> Gradients {
        let Heads { n_heads, n_kv_heads, d_head: d, scale, .. } = self.heads;
        let (n, kv, e) = (rows.len(), head / self.heads.group(), self.heads.d_value());
        // Queries are scaled once, which scales the gradient of the keys too.
        let mut q = columns(&self.q, n_heads * d, head * d, &rows, d);
        q.iter_mut().for_each(|x| *x *= scale as f32);
        let grad = columns(&self.grad, n_heads * e, head * e, &rows, e);
        let k = columns(&self.k, n_kv_heads * d, kv * d, &rows, d);
        let v = columns(&self.v, n_kv_heads * e, kv * e, &rows, e);
        let mut found = Gradients { q: vec![0.0; n * d], k: vec![0.0; n * d], v: vec![0.0; n * e] };
        for from in (0..n).step_by(QUERIES) {
            let queries = from..n.min(from + QUERIES);
            let keys = self.heads.first_key(from)..queries.end;
            let (m, w) = (queries.len(), keys.len());
            let of = |rows: &Range<usize>, d: usize| rows.start * d..rows.end * d;
            let (own, seen) = (of(&queries, d), of(&keys, d));
            let (mut scores, mut back) = (vec![0f32; m * w], vec![0f32; m * w]);
            multiply(&mut scores, (m, d, w), rows_of(&q[own.clone()], d), columns_of(&k[seen.clone()], d));
            multiply(&mut back, (m, e, w), rows_of(&grad[of(&queries, e)], e), columns_of(&v[of(&keys, e)], e));
            for (i, position) in queries.clone().enumerate() {
                let line = i * w..(i + 1) * w;
                let visible = self.heads.first_key(position) - keys.start..position + 1 - keys.start;
                let of = Of { head, row: rows.start + position, position };
                self.scores_back(of, &mut scores[line.clone()], &mut back[line], visible);
            }
            multiply(&mut found.q[own.clone()], (m, w, d), rows_of(&back, w), rows_of(&k[seen.clone()], d));
            multiply(&mut found.k[seen], (w, m, d), columns_of(&back, w), rows_of(&q[own], d));
            let of_values = (&mut found.v[of(&keys, e)], rows_of(&grad[of(&queries, e)], e));
            multiply(of_values.0, (w, m, e), columns_of(&scores, w), of_values.1);
        }
        found.q.iter_mut().for_each(|x| *x *= scale as f32);
        found
    }

    /// One row of scores to its pattern, and of the pattern's gradient to the scores'; 0 where the row may not look.
    fn scores_back(&self, of: Of, scores: &mut [f32], back: &mut [f32], visible: Range<usize>) {
        for row in [&mut *scores, &mut *back] {
            row[..visible.start].fill(0.0);
            row[visible.end..].fill(0.0);
        }
        let (scores, back) = (&mut scores[visible.clone()], &mut back[visible]);
        let Some(cap) = self.heads.softcap.map(|cap| cap as f32) else {
            super::softmax(scores, 1.0, None, self.terms, of);
            simd::softmax_back_row(scores, back);
            return;
        };
        let uncapped = scores.to_vec();
        super::softmax(scores, 1.0, Some(cap), self.terms, of);
        simd::softmax_back_row(scores, back);
        let capped = back.to_vec();
        simd::slope_times(Function::Softcap(cap), &uncapped, &capped, back);
    }
}

/// `d` columns from `column` on of these rows of a matrix `width` wide.
fn columns(from: &[f32], width: usize, column: usize, rows: &Range<usize>, d: usize) -> Vec<f32> {
    rows.clone().flat_map(|row| &from[row * width + column..row * width + column + d]).copied().collect()
}

/// A matrix in a slice, with the distances between its rows and between its columns.
struct Matrix<'a>(&'a [f32], usize, usize);

/// The matrix whose rows lie one after another.
fn rows_of(x: &[f32], width: usize) -> Matrix<'_> {
    Matrix(x, width, 1)
}

/// Its transpose.
fn columns_of(x: &[f32], width: usize) -> Matrix<'_> {
    Matrix(x, 1, width)
}

/// `out[m, n] += a[m, k] . b[k, n]`
#[allow(unsafe_code, reason = "gemm's raw interface")]
fn multiply(out: &mut [f32], (m, k, n): (usize, usize, usize), a: Matrix, b: Matrix) {
    let last = |rows: usize, columns: usize, x: &Matrix| (rows - 1) * x.1 + (columns - 1) * x.2;
    if m == 0 || k == 0 || n == 0 {
        return;
    }
    assert!(out.len() >= m * n && a.0.len() > last(m, k, &a) && b.0.len() > last(k, n, &b));
    // SAFETY: the assertion above bounds every element that the strides reach; `out` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            true,
            a.0.as_ptr(),
            a.2 as isize,
            a.1 as isize,
            b.0.as_ptr(),
            b.2 as isize,
            b.1 as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
