//! RWKV-4's recurrence along the positions of packed rows: each channel by itself is the mean of the values so far, weighed by the
//! exponentials of their keys, of which those before the position itself decay with their distance (Peng et al. 2023).
//!
//! ```text
//! o[t] = (sum over j < t of e^(k[j] + (t - 1 - j) w) v[j], + e^(k[t] + u) v[t]) / (the same without v)
//! ```
//!
//! Sums are kept beside the largest exponent so far, so that no key overflows. A fork's rows go on from the state of the run that it
//! forks from, as in [`super::scan`]. [`Wkv::stretch`] takes a state over some positions of one run, so that it can be looked at
//! between them.
//!
//! The state after a position is shown as three numbers a channel: the sum of weighted values, the sum of weights, and an exponent; both
//! sums are to be multiplied by its exponential. It is 0 as long as the larger sum is between e^-40 and e^40, and else what is beyond,
//! so that none overflows and nothing is lost. So a state is a sum over what was read, as in other recurrences: zeros are the state
//! before the first position, a state times a number counts as much more or less beside what is read later, and the sum of two states
//! remembers what both have read. `transformers` keeps the sums over the exponential of the largest exponent, which differs from run to
//! run: numbers of two runs could not be compared, nor one taken without the others.

use super::rows::{Rows, Span, Way};
use super::{floats, narrowed, on_cpu};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Channels that one task goes through.
const BLOCK: usize = 64;

/// Logarithms of sums that are shown without an exponent, either way.
const SHOWN: f64 = 40.0;

/// A recurrence of channels.
#[derive(Clone, Debug)]
pub struct Wkv {
    decay: Arc<[f32]>,
    first: Arc<[f32]>,
}

impl Wkv {
    /// Of these decays `w` and weights of the position itself `u`, both constants. `[width]`
    ///
    /// # Errors
    /// If they are not of one length or the device fails.
    pub fn new(decay: &Tensor, first: &Tensor) -> Result<Self> {
        let (decay, first) = (super::to_vec(decay)?, super::to_vec(first)?);
        if decay.len() != first.len() {
            candle_core::bail!("a recurrence of {} decays and {} first weights", decay.len(), first.len())
        }
        Ok(Wkv { decay: decay.into(), first: first.into() })
    }

    /// Numbers of a position's state. `3 * width`
    pub fn cells(&self) -> usize {
        3 * self.width()
    }

    /// What each channel gives at the spans' rows. `packed` has keys, then values, `[rows that spans read, 2 * width]`; `[rows, width]`.
    ///
    /// # Errors
    /// If a shape does not fit, a graph tracks rows that are not whole prompts', or candle fails.
    pub fn through(&self, packed: &Tensor, rows: &Rows) -> Result<Tensor> {
        let (n, width) = packed.dims2()?;
        if width != 2 * self.width() || rows.spans.iter().any(|span| !span.fits(n)) {
            candle_core::bail!("a recurrence of {:?} by {} decays", packed.shape(), self.width())
        }
        if packed.track_op() && rows.spans.iter().any(|span| span.start > 0 || span.own != span.rows) {
            candle_core::bail!("the gradient of a recurrence is of whole prompts")
        }
        let op = Through { of: self.clone(), rows: rows.clone() };
        match on_cpu(packed) {
            true => packed.contiguous()?.apply_op1(op),
            false => packed.to_device(&Device::Cpu)?.contiguous()?.apply_op1(op)?.to_device(packed.device()),
        }
    }

    /// Takes the state of every channel over consecutive rows of one run: what each gives at each row, `[rows, width]`, of which the first
    /// reads the state that is given, and the state after the last. `packed` is `[rows, 2 * width]`, `state` the one that they go on
    /// from, `[1, 3 * width]`, a channel's numbers together, both in f32 on the host.
    ///
    /// # Errors
    /// If a shape does not fit or candle fails.
    pub fn stretch(&self, packed: &Tensor, state: &Tensor) -> Result<(Tensor, Tensor)> {
        let (rows, width) = packed.dims2()?;
        if width != 2 * self.width() || state.dims() != [1, self.cells()] || rows == 0 {
            candle_core::bail!("a stretch of {:?} from {:?} by {} decays", packed.shape(), state.shape(), self.width())
        }
        let given = rows * self.width();
        let all = packed.contiguous()?.apply_op2(&state.contiguous()?, Stretch { of: self.clone() })?;
        let out = all.narrow(0, 0, given)?.reshape((rows, self.width()))?;
        Ok((out, all.narrow(0, given, self.cells())?.reshape((1, self.cells()))?))
    }

    fn width(&self) -> usize {
        self.decay.len()
    }

    /// The key and the value of a channel in a row.
    fn read(&self, packed: &[f32], row: usize, c: usize) -> [f32; 2] {
        let at = row * 2 * self.width() + c;
        [packed[at], packed[at + self.width()]]
    }

    /// What a channel gives at a position, of the state before it.
    fn given(&self, c: usize, [k, v]: [f32; 2], before: State) -> f32 {
        let here = before.with(0.0, k + self.first[c], v);
        here.values / here.weights
    }

    /// Takes the gradients of one channel over consecutive rows back, which went on from a state as it is shown: of keys and of values,
    /// `[rows]` each, and of that state. `upstream` is that of what it gave, and `of_last` that of the state after the last, as it is
    /// shown.
    fn back(
        &self,
        c: usize,
        [k, v, upstream]: [&[f64]; 3],
        from: [f64; 3],
        of_last: [f64; 3],
    ) -> ([Vec<f64>; 2], [f64; 3]) {
        let (w, u) = (f64::from(self.decay[c]), f64::from(self.first[c]));
        let [mut values, mut weights, mut most] = from;
        if values == 0.0 && weights == 0.0 {
            most = f64::NEG_INFINITY;
        }
        // What each position gave, and what it divided by: the first number times the exponential of the second.
        let (mut out, mut divisor) = (Vec::new(), Vec::new());
        for (k, v) in k.iter().zip(v) {
            let here = most.max(k + u);
            let (kept, new) = ((most - here).exp(), (k + u - here).exp());
            let sum = kept * weights + new;
            out.push((kept * values + new * v) / sum);
            divisor.push((sum, here));
            let next = (most + w).max(*k);
            let (kept, new) = ((most + w - next).exp(), (k - next).exp());
            (values, weights, most) = (kept * values + new * v, kept * weights + new, next);
        }
        // What later positions pass back: sums of the upstream, and of it times what they gave, over their divisors.
        let (mut passed, mut by_out, mut most) = shown_back(shown([values, weights, most]), of_last);
        let mut found = [vec![0.0; k.len()], vec![0.0; k.len()]];
        for t in (0..k.len()).rev() {
            let (sum, here) = divisor[t];
            let (later, own) = ((k[t] + most).exp(), (k[t] + u - here).exp() / sum);
            found[0][t] = later * (v[t] * passed - by_out) + own * upstream[t] * (v[t] - out[t]);
            found[1][t] = later * passed + own * upstream[t];
            let next = (most + w).max(-here);
            let (kept, new) = ((most + w - next).exp(), (-here - next).exp() / sum);
            passed = kept * passed + new * upstream[t];
            by_out = kept * by_out + new * upstream[t] * out[t];
            most = next;
        }
        let scale = (most + from[2]).exp();
        let (of_values, of_weights) = (scale * passed, -scale * by_out);
        (found, [of_values, of_weights, of_values * from[0] + of_weights * from[1]])
    }

    /// Writes the gradients of one channel's keys and values where they stand in rows from `first` on. `[rows, 2 * width]`
    fn put_back(&self, c: usize, first: usize, [of_k, of_v]: &[Vec<f64>; 2], into: &mut [f32]) {
        for (row, (of_k, of_v)) in (first..).zip(of_k.iter().zip(of_v)) {
            let at = row * 2 * self.width() + c;
            into[at] = *of_k as f32;
            into[at + self.width()] = *of_v as f32;
        }
    }
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

    /// One as it is shown.
    fn of(shown: &[f32]) -> State {
        match *shown {
            [values, weights, most] if values != 0.0 || weights != 0.0 => State { values, weights, most },
            _ => State::EMPTY,
        }
    }

    /// As it is shown.
    fn shown(self) -> [f32; 3] {
        shown([self.values, self.weights, self.most].map(f64::from)).map(|x| x as f32)
    }
}

/// Two sums over the exponential of a third number, as they are shown: with that number as near 0 as can be.
fn shown([values, weights, most]: [f64; 3]) -> [f64; 3] {
    let largest = values.abs().max(weights.abs());
    if largest == 0.0 {
        return [0.0; 3];
    }
    let log = most + largest.ln();
    let beyond = f64::from((log - log.clamp(-SHOWN, SHOWN)) as f32);
    let scale = (most - beyond).exp();
    [values * scale, weights * scale, beyond]
}

/// Back through [`shown`]: the gradient of the sum of values, that of the sum of weights with the other sign, both over the exponential of
/// the third number.
fn shown_back([values, weights, beyond]: [f64; 3], of: [f64; 3]) -> (f64, f64, f64) {
    let [mut of_values, mut of_weights, of_beyond] = of;
    if beyond != 0.0 {
        // The larger sum stays as it is shown, and the exponent moves in its place.
        let moved = of_beyond - of_values * values - of_weights * weights;
        match values.abs() > weights.abs() {
            true => of_values += moved / values,
            false => of_weights += moved / weights,
        }
    }
    let none = of_values == 0.0 && of_weights == 0.0;
    (of_values, -of_weights, if none { f64::NEG_INFINITY } else { -beyond })
}

struct Through {
    of: Wkv,
    rows: Rows,
}

impl Through {
    /// The rows of one block of channels. `[rows, channels of the block]`
    fn block(&self, packed: &[f32], channels: Range<usize>, way: &Way) -> Vec<f32> {
        let n = channels.len();
        let mut out = vec![0f32; self.rows.len() * n];
        way.along(&vec![State::EMPTY; n], |states, row, given| {
            for (i, (c, state)) in channels.clone().zip(states).enumerate() {
                let read = self.of.read(packed, row, c);
                if let Some(at) = given {
                    out[at * n + i] = self.of.given(c, read, *state);
                }
                *state = state.with(self.of.decay[c], read[0], read[1]);
            }
        });
        out
    }
}

impl CustomOp1 for Through {
    fn name(&self) -> &'static str {
        "wkv"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (packed, width, way) = (floats(storage, layout)?, self.of.width(), Way::of(&self.rows));
        let blocks: Vec<Range<usize>> = (0..width).step_by(BLOCK).map(|from| from..width.min(from + BLOCK)).collect();
        let each: Vec<Vec<f32>> = blocks.par_iter().map(|block| self.block(&packed, block.clone(), &way)).collect();
        let mut out = vec![0f32; self.rows.len() * width];
        for (block, values) in blocks.iter().zip(&each) {
            for (row, values) in values.chunks_exact(block.len()).enumerate() {
                out[row * width + block.start..row * width + block.end].copy_from_slice(values);
            }
        }
        Ok(narrowed(out, storage, (self.rows.len(), width)))
    }

    fn bwd(&self, packed: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (width, values, upstream) = (self.of.width(), super::to_vec(packed)?, super::to_vec(grad)?);
        let tasks: Vec<(&Span, usize)> =
            self.rows.spans.iter().flat_map(|span| (0..width).map(move |c| (span, c))).collect();
        let results: Vec<[Vec<f64>; 2]> = tasks
            .par_iter()
            .map(|(span, c)| {
                let of = |x: &[f32], wide: usize, c: usize| column(x, span.rows.clone(), wide, c);
                let (k, v) = (of(&values, 2 * width, *c), of(&values, 2 * width, width + c));
                self.of.back(*c, [&k, &v, &of(&upstream, width, *c)], [0.0; 3], [0.0; 3]).0
            })
            .collect();
        let mut found = vec![0f32; values.len()];
        for ((span, c), of) in tasks.iter().zip(&results) {
            self.of.put_back(*c, span.rows.start, of, &mut found);
        }
        Tensor::from_vec(found, packed.shape(), &Device::Cpu)?.to_dtype(packed.dtype()).map(Some)
    }
}

/// A column of some rows, each `wide` numbers.
fn column(x: &[f32], rows: Range<usize>, wide: usize, c: usize) -> Vec<f64> {
    rows.map(|row| f64::from(x[row * wide + c])).collect()
}

struct Stretch {
    of: Wkv,
}

impl CustomOp2 for Stretch {
    fn name(&self) -> &'static str {
        "wkv-stretch"
    }

    /// What channels give, then the state.
    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (packed, from) = (floats(s1, l1)?, floats(s2, l2)?);
        let (of, width, rows) = (&self.of, self.of.width(), l1.shape().dims2()?.0);
        let channel = |c: usize| {
            let mut state = State::of(&from[3 * c..3 * c + 3]);
            let step = |row: usize| {
                let read = of.read(&packed, row, c);
                let given = of.given(c, read, state);
                state = state.with(of.decay[c], read[0], read[1]);
                given
            };
            let out: Vec<f32> = (0..rows).map(step).collect();
            (out, state.shown())
        };
        let each: Vec<(Vec<f32>, [f32; 3])> = (0..width).into_par_iter().with_min_len(BLOCK).map(channel).collect();
        let given = (0..rows).flat_map(|row| each.iter().map(move |(out, _)| out[row]));
        let all: Vec<f32> = given.chain(each.iter().flat_map(|(_, state)| *state)).collect();
        let n = all.len();
        Ok(narrowed(all, s1, n))
    }

    fn bwd(
        &self,
        packed: &Tensor,
        from: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (of, width, rows) = (&self.of, self.of.width(), packed.dim(0)?);
        let [values, from, upstream] = [packed, from, grad].map(super::to_vec);
        let (values, from, upstream) = (values?, from?, upstream?);
        let (upstream, of_last) = upstream.split_at(rows * width);
        let cells = |x: &[f32], c: usize| [0, 1, 2].map(|i| f64::from(x[3 * c + i]));
        let channel = |c: usize| {
            let part = |x: &[f32], wide: usize, c: usize| column(x, 0..rows, wide, c);
            let (k, v) = (part(&values, 2 * width, c), part(&values, 2 * width, width + c));
            of.back(c, [&k, &v, &part(upstream, width, c)], cells(&from, c), cells(of_last, c))
        };
        let each: Vec<_> = (0..width).into_par_iter().with_min_len(BLOCK).map(channel).collect();
        let mut found = vec![0f32; values.len()];
        each.iter().enumerate().for_each(|(c, (parts, _))| of.put_back(c, 0, parts, &mut found));
        let of_state: Vec<f32> = each.iter().flat_map(|(_, of_state)| of_state.map(|x| x as f32)).collect();
        let found = Tensor::from_vec(found, packed.shape(), &Device::Cpu)?;
        Ok((Some(found), Some(Tensor::from_vec(of_state, (1, of.cells()), &Device::Cpu)?)))
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
        channels()?.through(&Tensor::from_vec(values, (n, 4), &Device::Cpu)?, rows)
    }

    fn channels() -> Result<Wkv> {
        let [decay, first] = [[-0.3f32, -1.2], [0.4, -0.6]].map(|x| Tensor::new(&x, &Device::Cpu));
        Wkv::new(&decay?, &first?)
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
        let grads = (channels()?.through(&variable, &spans)? * &weights)?.sum_all()?.backward()?;
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

    #[test]
    fn stretches_one_after_another_give_what_the_whole_gives() -> Result<()> {
        let (of, none) = (channels()?, Tensor::zeros((1, 6), candle_core::DType::F32, &Device::Cpu)?);
        // Keys that no exponential of a float holds, too.
        for by in [1.0, 100.0, -100.0] {
            let mut values = packed(6, 4);
            values.chunks_exact_mut(4).for_each(|row| row[..2].iter_mut().for_each(|k| *k += by));
            let whole = run(values.clone(), &rows(vec![Span::new(0..6, 0, vec![])]))?.to_vec2::<f32>()?;
            let all = Tensor::from_vec(values, (6, 4), &Device::Cpu)?;
            let (mut state, mut found) = (none.clone(), Vec::new());
            for at in [0..3, 3..4, 4..6] {
                let (given, after) = of.stretch(&all.narrow(0, at.start, at.len())?, &state)?;
                found.extend(given.to_vec2::<f32>()?);
                state = after;
            }
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
            assert!(found.iter().flatten().zip(whole.iter().flatten()).all(near), "{by}: {found:?} {whole:?}");
            let beyond: Vec<f32> = state.get(0)?.to_vec1::<f32>()?.into_iter().skip(2).step_by(3).collect();
            assert!(beyond.iter().all(|x| if by == 1.0 { *x == 0.0 } else { x * by > 1000.0 }), "{by}: {beyond:?}");
        }
        Ok(())
    }

    #[test]
    fn a_state_is_the_sum_of_what_was_read_and_zeros_are_nothing() -> Result<()> {
        let (of, values) = (channels()?, packed(4, 5));
        let none = Tensor::zeros((1, 6), candle_core::DType::F32, &Device::Cpu)?;
        let all = Tensor::from_vec(values.clone(), (4, 4), &Device::Cpu)?;
        let state = of.stretch(&all.narrow(0, 0, 3)?, &none)?.1.get(0)?.to_vec1::<f32>()?;
        for (c, w) in [-0.3f32, -1.2].into_iter().enumerate() {
            let weight = |j: usize| (values[j * 4 + c] + (2 - j) as f32 * w).exp();
            let sums =
                [(0..3).map(|j| weight(j) * values[j * 4 + 2 + c]).sum::<f32>(), (0..3).map(weight).sum::<f32>(), 0.0];
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
            assert!(state[3 * c..3 * c + 3].iter().zip(&sums).all(near), "{state:?} {sums:?}");
        }
        // One position after nothing gives its own value, wherever its key is.
        let alone = Tensor::from_vec(vec![-300f32, 300.0, 0.5, -0.25], (1, 4), &Device::Cpu)?;
        let found = of.stretch(&alone, &Tensor::new(&[[0f32, 0.0, 7.0, 0.0, 0.0, 0.0]], &Device::Cpu)?)?.0;
        assert_eq!(found.to_vec2::<f32>()?, [[0.5, -0.25]]);
        Ok(())
    }

    #[test]
    fn the_gradient_of_a_stretch_is_that_of_differences() -> Result<()> {
        let of = channels()?;
        let weights: Vec<f32> = (0..12).map(|i| (i * 7 % 5) as f32 - 1.7).collect();
        let weights = Tensor::from_vec(weights, 12, &Device::Cpu)?;
        // From sums as they are, from nothing, and from sums whose exponents are beyond what is shown without.
        for (from, by) in
            [([0.7f32, 1.9, 0.0], 0.0), ([0.0; 3], 0.0), ([0.4, 1.5, 60.0], 60.0), ([2.5, 1.1, -60.0], -60.0)]
        {
            let mut values = packed(3, 6);
            values.chunks_exact_mut(4).for_each(|row| row[..2].iter_mut().for_each(|k| *k += by));
            values.extend(from.iter().chain(&from));
            // Sums beyond what is shown without an exponent are near e^40 or e^-40: here all count alike.
            let like = |i: usize| if by != 0.0 && i % 3 < 2 { (-SHOWN as f32 * f32::signum(by)).exp() } else { 1.0 };
            let scale = Tensor::from_vec((0..6).map(like).collect::<Vec<_>>(), 6, &Device::Cpu)?;
            let sum = |x: &Tensor| -> Result<Tensor> {
                let (rows, state) = (x.narrow(0, 0, 12)?.reshape((3, 4))?, x.narrow(0, 12, 6)?.reshape((1, 6))?);
                let (out, state) = of.stretch(&rows, &state)?;
                let state = (state.flatten_all()? * &scale)?;
                (Tensor::cat(&[out.flatten_all()?, state], 0)? * &weights)?.sum_all()
            };
            let variable = candle_core::Var::from_vec(values.clone(), 18, &Device::Cpu)?;
            let grads = sum(&variable)?.backward()?;
            let found = grads.get(&variable).expect("a gradient").to_vec1::<f32>()?;
            for (i, found) in found.iter().enumerate() {
                // The sums of nothing are 0, and there the exponent says nothing.
                if from == [0.0; 3] && i >= 12 {
                    continue;
                }
                let moved = |by: f32| -> Result<f64> {
                    let mut values = values.clone();
                    values[i] += by;
                    Ok(f64::from(sum(&Tensor::from_vec(values, 18, &Device::Cpu)?)?.to_scalar::<f32>()?))
                };
                let expected = (moved(1e-2)? - moved(-1e-2)?) / 2e-2;
                assert!(
                    (f64::from(*found) - expected).abs() < 5e-3 * (1.0 + expected.abs()),
                    "{from:?} {i}: {found} {expected}"
                );
            }
        }
        Ok(())
    }
}
