//! Which keys each row sees, where a layer lets it see the best alone: the lightning indexer of DeepSeek Sparse Attention (DeepSeek-AI
//! 2025). Each of its few heads has a query and a weight for every row, and all share one key.
//!
//! On the host, whatever the device: what is chosen is a list. It does not depend on what else is computed, and has no gradient.

use super::Heads;
use crate::ops::rows::{Rows, Span};
use crate::ops::{simd, to_vec};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// How far back the keys lie that each row sees, the farthest first. `[rows][keys]`
pub type Chosen = Arc<[Box<[u32]>]>;

/// What keys are chosen by.
pub struct Index<'a> {
    /// Rotated where the layer rotates. `[rows, heads * d]`
    pub queries: &'a Tensor,
    /// `[rows, heads]`
    pub weights: &'a Tensor,
    /// Rotated as the queries are. `[key rows, d]`
    pub keys: &'a Tensor,
    /// How many keys a row sees at most.
    pub top: usize,
}

/// How far back the keys lie that each row sees, the farthest first: those with the largest `sum_h w_h relu(q_h . k)` among those that
/// window and chunk leave it. Of equal ones the first.
///
/// # Errors
/// If a shape does not fit the rows or candle fails.
pub fn chosen(index: &Index, rows: &Rows, heads: Heads) -> Result<Chosen> {
    let ((n, width), (key_rows, d)) = (index.queries.dims2()?, index.keys.dims2()?);
    let of = index.weights.dim(1)?;
    let there = rows.spans.iter().all(|span| span.fits(key_rows));
    if n != rows.len() || index.weights.dim(0)? != n || width != of * d || !there {
        candle_core::bail!("{n} rows of {width} choose among {key_rows} keys of {d}")
    }
    let [q, w, k] = [to_vec(index.queries)?, to_vec(index.weights)?, to_vec(index.keys)?];
    let of_span = |span: &Span| {
        let keys: Arc<[u32]> = span.key_rows().into();
        span.rows.clone().zip(span.first()..).map(move |(row, position)| (row, position, keys.clone()))
    };
    let all: Vec<(usize, usize, Arc<[u32]>)> = rows.spans.iter().flat_map(of_span).collect();
    let of_row = |(row, position, keys): &(usize, usize, Arc<[u32]>)| {
        let first = heads.first_key(*position);
        let score = |key: &u32| {
            let key = &k[*key as usize * d..][..d];
            let of_head = |(q, w): (&[f32], &f32)| f64::from(w * simd::dot(q, key).max(0.0));
            q[row * width..][..width].chunks_exact(d).zip(&w[row * of..][..of]).map(of_head).sum::<f64>()
        };
        let mut back: Vec<u32> = (0..=(position - first) as u32).rev().collect();
        if back.len() <= index.top {
            return back.into();
        }
        let scores: Vec<f64> = keys[first..=*position].iter().map(score).collect();
        let score_of = |back: &u32| scores[scores.len() - 1 - *back as usize];
        // The sort is stable, and the farthest come first.
        back.sort_by(|a, b| score_of(b).total_cmp(&score_of(a)));
        back.truncate(index.top);
        back.sort_unstable_by(|a, b| b.cmp(a));
        back.into()
    };
    Ok(all.par_iter().map(of_row).collect::<Vec<Box<[u32]>>>().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::attention::{Terms, attend, opened};
    use candle_core::{D, Device};
    use std::ops::Range;

    fn heads() -> Heads {
        Heads { n_heads: 2, n_kv_heads: 1, d_head: 8, scale: 0.3, ..Heads::default() }
    }

    fn rows(spans: &[(Range<usize>, usize, Range<usize>)]) -> Rows {
        let span = |(rows, start, prefix): &(Range<usize>, usize, Range<usize>)| {
            Span::new(rows.clone(), *start, std::iter::once(prefix.clone()).filter(|r| !r.is_empty()).collect())
        };
        let spans: Vec<Span> = spans.iter().map(span).collect();
        Rows { entries: vec![0; spans.last().map_or(0, |s| s.rows.end)], spans }
    }

    /// What a row of this query sees of keys of one number each.
    fn seen(query: f32, weight: f32, keys: &[f32], top: usize) -> Vec<u32> {
        let tensor = |x: &[f32]| Tensor::from_slice(x, (x.len(), 1), &Device::Cpu).unwrap();
        let n = keys.len();
        let (queries, weights) = (tensor(&vec![query; n]), tensor(&vec![weight; n]));
        let index = Index { queries: &queries, weights: &weights, keys: &tensor(keys), top };
        let found = chosen(&index, &rows(&[(0..n, 0, 0..0)]), heads()).unwrap();
        found[n - 1].to_vec()
    }

    #[test]
    fn the_best_keys_are_seen_and_of_equal_ones_the_first() {
        assert_eq!(seen(1.0, 1.0, &[0.1, 3.0, 2.0, 0.5], 2), [2, 1]);
        assert_eq!(seen(1.0, -1.0, &[0.1, 3.0, 2.0, 0.5], 2), [3, 0]);
        // Products below 0 count as 0.
        assert_eq!(seen(-1.0, 1.0, &[0.1, 3.0, 2.0, 0.5], 2), [3, 2]);
        assert_eq!(seen(1.0, 1.0, &[0.1, 3.0], 2), [1, 0]);
    }

    #[test]
    fn the_kernel_reads_what_is_chosen_as_steps_do_and_its_gradient_is_theirs() -> Result<()> {
        let device = Device::Cpu;
        let all = rows(&[(0..40, 0, 0..0), (40..46, 30, 0..30), (46..47, 39, 0..39)]);
        let random = |width: usize| Tensor::randn(0f32, 1.0, (all.len(), width), &device);
        let (q, k, v, queries, weights, keys) =
            (random(16)?, random(8)?, random(8)?, random(12)?, random(3)?, random(4)?);
        let index = Index { queries: &queries, weights: &weights, keys: &keys, top: 7 };
        let terms = Terms { chosen: Some(chosen(&index, &all, heads())?), ..Terms::default() };
        let z = attend(&q, &k, &v, &all, heads(), &terms)?;
        for span in &all.spans {
            let pattern = opened::pattern_beside(&opened::scores_with(&q, &k, span, heads(), &terms)?, &terms)?;
            let seen = pattern.gt(0f32)?.to_dtype(candle_core::DType::F32)?.sum(D::Minus1)?;
            assert!(seen.max_all()?.to_scalar::<f32>()? <= 7.0, "{span:?}");
            let slow = opened::z(&pattern, &v, span, heads())?;
            let fast = z.narrow(0, span.rows.start, span.rows.len())?;
            assert!((fast - slow)?.abs()?.max_all()?.to_scalar::<f32>()? < 2e-5, "{span:?}");
        }
        // The gradient is that of whole prompts.
        let one = rows(&[(0..40, 0, 0..0)]);
        let vars: Vec<candle_core::Var> = [&q, &k, &v]
            .into_iter()
            .map(|x| candle_core::Var::from_tensor(&x.narrow(0, 0, 40)?.contiguous()?))
            .collect::<Result<_>>()?;
        let z = attend(&vars[0], &vars[1], &vars[2], &one, heads(), &terms)?;
        let scores = opened::scores_with(&vars[0], &vars[1], &one.spans[0], heads(), &terms)?;
        let slow = opened::z(&opened::pattern_beside(&scores, &terms)?, &vars[2], &one.spans[0], heads())?;
        let upstream = Tensor::randn(0f32, 1.0, z.shape(), &device)?;
        let [fast, slow] = [(z * &upstream)?.sum_all()?.backward()?, (slow * &upstream)?.sum_all()?.backward()?];
        for var in &vars {
            let (Some(fast), Some(slow)) = (fast.get(var), slow.get(var)) else { panic!("no gradient") };
            assert!((fast - slow)?.abs()?.max_all()?.to_scalar::<f32>()? < 2e-4);
        }
        Ok(())
    }
}
