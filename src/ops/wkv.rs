//! RWKV-4's recurrence along the positions of packed rows: each channel by itself is the mean of the values so far, weighed by the
//! exponentials of their keys, of which those before the position itself decay with their distance (Peng et al. 2023).
//!
//! ```text
//! o[t] = (sum over j < t of e^(k[j] + (t - 1 - j) w) v[j], + e^(k[t] + u) v[t]) / (the same without v)
//! ```
//!
//! Sums are kept beside the largest exponent so far, so that no key overflows. A fork's rows go on from the state of the run that it
//! forks from, as in [`super::scan`].

use super::rows::{Rows, Span};
use super::{floats, narrowed, on_cpu};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// Channels that one task goes through.
const BLOCK: usize = 64;

/// What each channel gives at the spans' rows. `packed` has keys, then values, `[rows that spans read, 2 * width]`; `decay` is `w`, and
/// `first` is `u`, the weight of the position itself; both are constants, `[width]`. `[rows, width]`
///
/// # Errors
/// If a shape does not fit, a graph tracks rows that are not whole prompts', or candle fails.
pub fn wkv(packed: &Tensor, decay: &Tensor, first: &Tensor, rows: &Rows) -> Result<Tensor> {
    let (n, width) = packed.dims2()?;
    let (decay, first) = (super::to_vec(decay)?, super::to_vec(first)?);
    if width != 2 * decay.len() || decay.len() != first.len() || rows.spans.iter().any(|span| !span.fits(n)) {
        candle_core::bail!("a recurrence of {:?} by {} decays", packed.shape(), decay.len())
    }
    if packed.track_op() && rows.spans.iter().any(|span| span.start > 0 || span.own != span.rows) {
        candle_core::bail!("the gradient of a recurrence is of whole prompts")
    }
    let op = Wkv { rows: rows.clone(), decay: decay.into(), first: first.into() };
    match on_cpu(packed) {
        true => packed.contiguous()?.apply_op1(op),
        false => packed.to_device(&Device::Cpu)?.contiguous()?.apply_op1(op)?.to_device(packed.device()),
    }
}

struct Wkv {
    rows: Rows,
    decay: Arc<[f32]>,
    first: Arc<[f32]>,
}

/// A channel's weighted sum of values and sum of weights, both divided by the exponential of `most`.
#[derive(Clone, Copy)]
struct State {
    values: f32,
    weights: f32,
    most: f32,
}

impl State {
    const EMPTY: State = State { values: 0.0, weights: 0.0, most: f32::NEG_INFINITY };

    /// With one more value at an exponent, the others' moved by `decay`.
    fn with(self, decay: f32, k: f32, v: f32) -> State {
        let old = self.most + decay;
        let most = old.max(k);
        let (kept, new) = ((old - most).exp(), (k - most).exp());
        State { values: kept * self.values + new * v, weights: kept * self.weights + new, most }
    }
}

impl Wkv {
    fn width(&self) -> usize {
        self.decay.len()
    }

    /// The rows of one block of channels. `[rows, channels of the block]`
    fn block(&self, packed: &[f32], channels: Range<usize>, order: &[usize], wanted: &HashSet<usize>) -> Vec<f32> {
        let (width, n) = (self.width(), channels.len());
        let mut out = vec![0f32; self.rows.len() * n];
        let mut kept: HashMap<usize, Vec<State>> = HashMap::new();
        let step = |state: &mut [State], row: usize, mut given: Option<&mut [f32]>| {
            for (i, (c, state)) in channels.clone().zip(state).enumerate() {
                let (k, v) = (packed[row * 2 * width + c], packed[row * 2 * width + width + c]);
                if let Some(out) = given.as_mut() {
                    let here = state.with(0.0, k + self.first[c], v);
                    out[i] = here.values / here.weights;
                }
                *state = state.with(self.decay[c], k, v);
            }
        };
        for span in order.iter().map(|i| &self.rows.spans[*i]) {
            let known = span.prefix.last().and_then(|rows| kept.get(&(rows.end - 1))).cloned();
            let again = if known.is_none() { span.prefix.clone() } else { Vec::new() };
            let mut state = known.unwrap_or_else(|| vec![State::EMPTY; n]);
            again.into_iter().flatten().for_each(|row| step(&mut state, row, None));
            let first = span.own.end - span.rows.len();
            for row in span.own.clone() {
                let at = row.checked_sub(first).map(|i| (span.rows.start + i) * n);
                step(&mut state, row, at.map(|at| &mut out[at..at + n]));
                if wanted.contains(&row) {
                    kept.insert(row, state.clone());
                }
            }
        }
        out
    }

    /// The gradients of one span's keys and values in one channel, given that of what it gave; `[rows]` each.
    fn back(&self, c: usize, [k, v, upstream]: [&[f64]; 3]) -> [Vec<f64>; 2] {
        let (w, u) = (f64::from(self.decay[c]), f64::from(self.first[c]));
        // What each position gave, and the logarithm of what it divided by.
        let (mut values, mut weights, mut most) = (0.0, 0.0, f64::NEG_INFINITY);
        let (mut out, mut divisor) = (Vec::new(), Vec::new());
        for (k, v) in k.iter().zip(v) {
            let here = most.max(k + u);
            let (kept, new) = ((most - here).exp(), (k + u - here).exp());
            let sum = kept * weights + new;
            out.push((kept * values + new * v) / sum);
            divisor.push(here + sum.ln());
            let next = (most + w).max(*k);
            let (kept, new) = ((most + w - next).exp(), (k - next).exp());
            (values, weights, most) = (kept * values + new * v, kept * weights + new, next);
        }
        // What later positions pass back: sums of the upstream, and of it times what they gave, over their divisors.
        let (mut passed, mut by_out, mut most) = (0.0, 0.0, f64::NEG_INFINITY);
        let mut found = [vec![0.0; k.len()], vec![0.0; k.len()]];
        for t in (0..k.len()).rev() {
            let (later, own) = ((k[t] + most).exp(), (k[t] + u - divisor[t]).exp());
            found[0][t] = later * (v[t] * passed - by_out) + own * upstream[t] * (v[t] - out[t]);
            found[1][t] = later * passed + own * upstream[t];
            let next = (most + w).max(-divisor[t]);
            let (kept, new) = ((most + w - next).exp(), (-divisor[t] - next).exp());
            passed = kept * passed + new * upstream[t];
            by_out = kept * by_out + new * upstream[t] * out[t];
            most = next;
        }
        found
    }
}

impl CustomOp1 for Wkv {
    fn name(&self) -> &'static str {
        "wkv"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (packed, width) = (floats(storage, layout)?, self.width());
        let spans = &self.rows.spans;
        // A run comes before those that fork from it: they begin later.
        let mut order: Vec<usize> = (0..spans.len()).collect();
        order.sort_by_key(|i| spans[*i].start);
        let wanted: HashSet<usize> = spans.iter().filter_map(|span| Some(span.prefix.last()?.end - 1)).collect();
        let blocks: Vec<Range<usize>> = (0..width).step_by(BLOCK).map(|from| from..width.min(from + BLOCK)).collect();
        let each: Vec<Vec<f32>> =
            blocks.par_iter().map(|block| self.block(&packed, block.clone(), &order, &wanted)).collect();
        let mut out = vec![0f32; self.rows.len() * width];
        for (block, values) in blocks.iter().zip(&each) {
            for (row, values) in values.chunks_exact(block.len()).enumerate() {
                out[row * width + block.start..row * width + block.end].copy_from_slice(values);
            }
        }
        Ok(narrowed(out, storage, (self.rows.len(), width)))
    }

    fn bwd(&self, packed: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (width, values, upstream) = (self.width(), super::to_vec(packed)?, super::to_vec(grad)?);
        let column = |of: &[f32], span: &Span, wide: usize, c: usize| -> Vec<f64> {
            span.rows.clone().map(|row| f64::from(of[row * wide + c])).collect()
        };
        let tasks: Vec<(&Span, usize)> =
            self.rows.spans.iter().flat_map(|span| (0..width).map(move |c| (span, c))).collect();
        let results: Vec<[Vec<f64>; 2]> = tasks
            .par_iter()
            .map(|(span, c)| {
                let (k, v) = (column(&values, span, 2 * width, *c), column(&values, span, 2 * width, width + c));
                self.back(*c, [&k, &v, &column(&upstream, span, width, *c)])
            })
            .collect();
        let mut found = vec![0f32; values.len()];
        for ((span, c), [of_k, of_v]) in tasks.iter().zip(&results) {
            for (row, (of_k, of_v)) in span.rows.clone().zip(of_k.iter().zip(of_v)) {
                found[row * 2 * width + c] = *of_k as f32;
                found[row * 2 * width + width + c] = *of_v as f32;
            }
        }
        Tensor::from_vec(found, packed.shape(), &Device::Cpu)?.to_dtype(packed.dtype()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two channels' packed keys and values of `n` rows, by a number that is any.
    fn packed(n: usize, seed: usize) -> Vec<f32> {
        (0..n * 4).map(|i| (((i * 37 + seed * 11) % 23) as f32 / 7.0) - 1.5).collect()
    }

    fn run(values: Vec<f32>, rows: &Rows) -> Result<Tensor> {
        let n = values.len() / 4;
        let device = Device::Cpu;
        let [decay, first] = [[-0.3f32, -1.2], [0.4, -0.6]].map(|x| Tensor::new(&x, &device));
        wkv(&Tensor::from_vec(values, (n, 4), &device)?, &decay?, &first?, rows)
    }

    fn rows(spans: Vec<Span>) -> Rows {
        let n = spans.last().map_or(0, |s| s.rows.end);
        Rows { spans, entries: vec![0; n] }
    }

    #[test]
    fn each_channel_gives_the_weighted_mean_of_its_values() -> Result<()> {
        let (n, values) = (5, packed(5, 1));
        let found = run(values.clone(), &rows(vec![Span::new(0..n, 0, vec![])]))?.to_vec2::<f32>()?;
        for (c, (w, u)) in [(-0.3f32, 0.4f32), (-1.2, -0.6)].into_iter().enumerate() {
            for (t, found) in found.iter().enumerate() {
                let weight = |j: usize| {
                    let k = values[j * 4 + c];
                    if j == t { (k + u).exp() } else { (k + (t - 1 - j) as f32 * w).exp() }
                };
                let sum: f32 = (0..=t).map(weight).sum();
                let mean = (0..=t).map(|j| weight(j) * values[j * 4 + 2 + c]).sum::<f32>() / sum;
                assert!((found[c] - mean).abs() < 1e-5, "{c} {t}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_fork_goes_on_from_its_base_and_large_keys_do_not_overflow() -> Result<()> {
        let mut values = packed(6, 2);
        values[4] = 300.0;
        values[16] = -300.0;
        let forked = rows(vec![Span::new(0..4, 0, vec![]), Span::new(4..6, 2, vec![0..2])]);
        let found = run(values.clone(), &forked)?.to_vec2::<f32>()?;
        let whole: Vec<f32> = [0, 1, 4, 5].iter().flat_map(|r| values[r * 4..r * 4 + 4].to_vec()).collect();
        let alone = run(whole, &rows(vec![Span::new(0..4, 0, vec![])]))?.to_vec2::<f32>()?;
        assert_eq!(found[4..], alone[2..]);
        assert!(found.iter().flatten().all(|x| x.is_finite()));
        Ok(())
    }

    #[test]
    fn the_gradient_is_that_of_differences() -> Result<()> {
        let (values, spans) = (packed(6, 3), rows(vec![Span::new(0..4, 0, vec![]), Span::new(4..6, 0, vec![])]));
        let device = Device::Cpu;
        let weights = Tensor::from_vec((0..12).map(|i| (i % 5) as f32 - 1.7).collect::<Vec<_>>(), (6, 2), &device)?;
        let sum = |values: Vec<f32>| -> Result<f64> {
            Ok(f64::from((run(values, &spans)? * &weights)?.sum_all()?.to_scalar::<f32>()?))
        };
        let variable = candle_core::Var::from_vec(values.clone(), (6, 4), &device)?;
        let [decay, first] = [[-0.3f32, -1.2], [0.4, -0.6]].map(|x| Tensor::new(&x, &device));
        let grads = (wkv(&variable, &decay?, &first?, &spans)? * &weights)?.sum_all()?.backward()?;
        let found = grads.get(&variable).expect("a gradient").flatten_all()?.to_vec1::<f32>()?;
        for (i, found) in found.iter().enumerate() {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[i] += by;
                sum(values)
            };
            let expected = (moved(1e-2)? - moved(-1e-2)?) / 2e-2;
            assert!((f64::from(*found) - expected).abs() < 2e-3 * (1.0 + expected.abs()), "{i}: {found} {expected}");
        }
        Ok(())
    }
}
