//! Linear recurrences along the positions of packed rows: what state-space models and linear attention have in common.
//!
//! Each head keeps a state `S`, a matrix of keys by values. At each position, with `*` by number and vectors as columns,
//!
//! ```text
//! S <- d * S + a (b^T S) + k v^T      o = S^T q
//! ```
//!
//! where the decay `d` has a number for each key. The middle term is there for delta rules alone, whose `b` looks up what is to be
//! replaced. Mamba, Mamba 2, gated delta rules, RG-LRU and RWKV-7 differ in where `q`, `k`, `v`, `d`, `a` and `b` come from.
//!
//! A fork's rows go on from the state of the run that it forks from, at the position before its own first. Where that run's rows are
//! not among those that are scanned, the state is made again from the first position on. [`stretch`] takes a state over some
//! positions of one run, so that it can be looked at between them.

use super::rows::{Rows, Span, Way};
use super::{floats, narrowed, on_cpu};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// A recurrence's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recurrence {
    pub heads: usize,
    pub keys: usize,
    pub values: usize,
    /// Whether it has `a` and `b`.
    pub delta: bool,
}

impl Recurrence {
    /// Numbers of a row: `q`, `k` and `d` of all heads, `a` and `b` if it has them, then `v`.
    pub fn width(&self) -> usize {
        self.heads * (self.keys * if self.delta { 5 } else { 3 } + self.values)
    }

    /// Numbers of a position's state. `heads * keys * values`
    pub fn cells(&self) -> usize {
        self.heads * self.keys * self.values
    }

    /// Where a head's part begins in a row, of the parts `q, k, d, a, b`, or, the last, `v`.
    fn at(&self, part: usize, head: usize) -> usize {
        let wide = if self.delta { 5 } else { 3 };
        match part < wide {
            true => part * self.heads * self.keys + head * self.keys,
            false => wide * self.heads * self.keys + head * self.values,
        }
    }
}

/// What each head gives at the spans' rows. `packed` is `[rows that spans read, width]`; `[rows, heads * values]`.
///
/// # Errors
/// If a shape does not fit, a graph tracks rows that are not whole prompts', or candle fails.
pub fn scan(packed: &Tensor, rows: &Rows, of: Recurrence) -> Result<Tensor> {
    let (n, width) = packed.dims2()?;
    if width != of.width() || rows.spans.iter().any(|span| !span.fits(n)) {
        candle_core::bail!("a scan of {:?} by {of:?}", packed.shape())
    }
    if packed.track_op() && rows.spans.iter().any(|span| span.start > 0 || span.own != span.rows) {
        candle_core::bail!(
            "the gradient of a scan is of whole prompts; a span begins after its prompt's first position"
        )
    }
    let op = Scan { rows: rows.clone(), of };
    if on_cpu(packed) {
        return packed.contiguous()?.apply_op1(op);
    }
    let on_host = packed.to_device(&Device::Cpu)?.contiguous()?;
    on_host.apply_op1(op)?.to_device(packed.device())
}

/// Takes the state of every head over consecutive rows of one run: what each head gives at each row, `[rows, heads * values]`, and the
/// state after the last. `packed` is `[rows, width]`, `state` the one that they go on from, `[1, heads * keys * values]`, both in
/// f32 on the host. If it is `begun`, that is the state after the first row, whose heads only read it.
///
/// # Errors
/// If a shape does not fit or candle fails.
pub fn stretch(packed: &Tensor, state: &Tensor, begun: bool, of: Recurrence) -> Result<(Tensor, Tensor)> {
    let (rows, width) = packed.dims2()?;
    if width != of.width() || state.dims() != [1, of.cells()] || rows == 0 {
        candle_core::bail!("a stretch of {:?} from {:?} by {of:?}", packed.shape(), state.shape())
    }
    let given = rows * of.heads * of.values;
    let all = packed.contiguous()?.apply_op2(&state.contiguous()?, Stretch { of, begun })?;
    let out = all.narrow(0, 0, given)?.reshape((rows, of.heads * of.values))?;
    Ok((out, all.narrow(0, given, of.cells())?.reshape((1, of.cells()))?))
}

impl Recurrence {
    /// Takes a head's state over one position.
    fn step(&self, row: &[f32], head: usize, state: &mut [f32]) {
        let key = |part: usize| &row[self.at(part, head)..][..self.keys];
        let (k, decay) = (key(1), key(2));
        let v = &row[self.at(5, head)..][..self.values];
        let old = self.delta.then(|| {
            let (b, mut old) = (key(4), vec![0f32; self.values]);
            for (b, line) in b.iter().zip(state.chunks_exact(self.values)) {
                old.iter_mut().zip(line).for_each(|(old, s)| *old += b * s);
            }
            old
        });
        for (i, line) in state.chunks_exact_mut(self.values).enumerate() {
            let (d, k) = (decay[i], k[i]);
            line.iter_mut().zip(v).for_each(|(s, v)| *s = d * *s + k * v);
            if let Some(old) = &old {
                let a = key(3)[i];
                line.iter_mut().zip(old).for_each(|(s, old)| *s += a * old);
            }
        }
    }

    /// What a head gives of its state.
    fn read(&self, row: &[f32], head: usize, state: &[f32], out: &mut [f32]) {
        let q = &row[self.at(0, head)..][..self.keys];
        out.fill(0.0);
        for (q, line) in q.iter().zip(state.chunks_exact(self.values)) {
            out.iter_mut().zip(line).for_each(|(out, s)| *out += q * s);
        }
    }

    /// Takes the gradients of one head over consecutive rows back, which went on from a state as in [`stretch`]. `upstream` is that of
    /// what it gave, `[rows, values]`, and `of_state` that of the state after the last, which becomes that of the first; `[rows][part]`.
    fn back(
        &self,
        rows: &[&[f32]],
        head: usize,
        (from, begun): (&[f32], bool),
        upstream: &[f32],
        of_state: &mut [f32],
    ) -> Vec<[Vec<f32>; 6]> {
        let (n, cells) = (rows.len(), self.keys * self.values);
        let mut states = vec![0f32; (n + 1) * cells];
        states[..cells].copy_from_slice(from);
        for (t, row) in rows.iter().enumerate() {
            let (before, after) = states.split_at_mut((t + 1) * cells);
            after[..cells].copy_from_slice(&before[t * cells..]);
            if t > 0 || !begun {
                self.step(row, head, &mut after[..cells]);
            }
        }
        let mut found: Vec<[Vec<f32>; 6]> = Vec::with_capacity(n);
        for (t, row) in rows.iter().enumerate().rev() {
            let (before, after) = (&states[t * cells..(t + 1) * cells], &states[(t + 1) * cells..(t + 2) * cells]);
            let out = &upstream[t * self.values..(t + 1) * self.values];
            let of_q = self.read_back(row, head, after, out, of_state);
            let of_rest =
                if t > 0 || !begun { self.step_back(row, head, before, of_state) } else { Default::default() };
            let [of_k, of_d, of_a, of_b, of_v] = of_rest;
            found.push([of_q, of_k, of_d, of_a, of_b, of_v]);
        }
        found.reverse();
        found
    }

    /// Back through [`Recurrence::read`]: adds to the gradient with respect to the state, and returns that of `q`.
    fn read_back(&self, row: &[f32], head: usize, state: &[f32], upstream: &[f32], of_state: &mut [f32]) -> Vec<f32> {
        let q = &row[self.at(0, head)..][..self.keys];
        for (q, line) in q.iter().zip(of_state.chunks_exact_mut(self.values)) {
            line.iter_mut().zip(upstream).for_each(|(s, out)| *s += q * out);
        }
        state.chunks_exact(self.values).map(|line| dot(line, upstream)).collect()
    }

    /// Back through [`Recurrence::step`]: `of_state` is the gradient with respect to the state after it, then before it. Returns those
    /// of `k`, `d`, `a`, `b` and `v`.
    fn step_back(&self, row: &[f32], head: usize, before: &[f32], of_state: &mut [f32]) -> [Vec<f32>; 5] {
        let (keys, values) = (self.keys, self.values);
        let key = |part: usize| &row[self.at(part, head)..][..keys];
        let v = &row[self.at(5, head)..][..values];
        let line = |x: &[f32], i: usize| x[i * values..(i + 1) * values].to_vec();
        let of_k = (0..keys).map(|i| dot(&line(of_state, i), v)).collect();
        let across = |by: &[f32], of: &[f32]| {
            let mut sum = vec![0f32; values];
            for (by, line) in by.iter().zip(of.chunks_exact(values)) {
                sum.iter_mut().zip(line).for_each(|(sum, x)| *sum += by * x);
            }
            sum
        };
        let of_v = across(key(1), of_state);
        let of_d = (0..keys).map(|i| dot(&line(of_state, i), &line(before, i))).collect();
        let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
        let mut back = None;
        if self.delta {
            let (old, through) = (across(key(4), before), across(key(3), of_state));
            of_a = (0..keys).map(|i| dot(&line(of_state, i), &old)).collect();
            of_b = (0..keys).map(|i| dot(&line(before, i), &through)).collect();
            back = Some(through);
        }
        for (i, line) in of_state.chunks_exact_mut(values).enumerate() {
            line.iter_mut().for_each(|s| *s *= key(2)[i]);
            if let Some(through) = &back {
                line.iter_mut().zip(through).for_each(|(s, through)| *s += key(4)[i] * through);
            }
        }
        [of_k, of_d, of_a, of_b, of_v]
    }

    /// Writes the gradients of one head's parts at each row, `[row][part]`, where they stand in `[rows, width]`.
    fn put_back(&self, head: usize, rows: &[[Vec<f32>; 6]], into: &mut [f32]) {
        for (parts, row) in rows.iter().zip(into.chunks_exact_mut(self.width())) {
            for (part, numbers) in parts.iter().enumerate().filter(|(_, numbers)| !numbers.is_empty()) {
                let at = self.at(part, head);
                row[at..at + numbers.len()].copy_from_slice(numbers);
            }
        }
    }
}

fn dot(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>()
}

/// What heads give, `[rows, values]` each, side by side. `[rows, heads * values]`
fn side_by_side<'a>(of: Recurrence, rows: usize, heads: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut out = vec![0f32; rows * of.heads * of.values];
    for (head, values) in heads.enumerate() {
        for (row, values) in values.chunks_exact(of.values).enumerate() {
            let at = (row * of.heads + head) * of.values;
            out[at..at + of.values].copy_from_slice(values);
        }
    }
    out
}

struct Scan {
    rows: Rows,
    of: Recurrence,
}

impl Scan {
    /// What one head gives at all rows. `[rows, values]`
    fn head(&self, packed: &[f32], head: usize, way: &Way) -> Vec<f32> {
        let (of, width) = (&self.of, self.of.width());
        let mut out = vec![0f32; self.rows.len() * of.values];
        way.along(&vec![0f32; of.keys * of.values], |state, row, given| {
            of.step(&packed[row * width..], head, state);
            if let Some(at) = given.map(|row| row * of.values) {
                of.read(&packed[row * width..], head, state, &mut out[at..at + of.values]);
            }
        });
        out
    }
}

impl CustomOp1 for Scan {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let packed = floats(storage, layout)?;
        let (of, way) = (&self.of, Way::of(&self.rows));
        let each: Vec<Vec<f32>> = (0..of.heads).into_par_iter().map(|head| self.head(&packed, head, &way)).collect();
        let out = side_by_side(*of, self.rows.len(), each.iter().map(Vec::as_slice));
        Ok(narrowed(out, storage, (self.rows.len(), of.heads * of.values)))
    }

    fn bwd(&self, packed: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (of, width) = (self.of, self.of.width());
        let (values, upstream) = (super::to_vec(packed)?, super::to_vec(grad)?);
        let tasks: Vec<(&Span, usize)> =
            self.rows.spans.iter().flat_map(|span| (0..of.heads).map(move |head| (span, head))).collect();
        let results: Vec<Vec<[Vec<f32>; 6]>> = tasks
            .par_iter()
            .map(|(span, head)| {
                let rows: Vec<&[f32]> = span.rows.clone().map(|row| &values[row * width..(row + 1) * width]).collect();
                let part = |row: usize| &upstream[(row * of.heads + head) * of.values..][..of.values];
                let upstream: Vec<f32> = span.rows.clone().flat_map(|row| part(row).to_vec()).collect();
                let [none, mut of_last] = [(); 2].map(|()| vec![0f32; of.keys * of.values]);
                of.back(&rows, *head, (&none, false), &upstream, &mut of_last)
            })
            .collect();
        let mut found = vec![0f32; values.len()];
        for ((span, head), rows) in tasks.iter().zip(&results) {
            of.put_back(*head, rows, &mut found[span.rows.start * width..span.rows.end * width]);
        }
        Tensor::from_vec(found, packed.shape(), &Device::Cpu)?.to_dtype(packed.dtype()).map(Some)
    }
}

struct Stretch {
    of: Recurrence,
    begun: bool,
}

impl CustomOp2 for Stretch {
    fn name(&self) -> &'static str {
        "stretch"
    }

    /// What heads give, then the state.
    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (packed, from) = (floats(s1, l1)?, floats(s2, l2)?);
        let (of, cells, rows) = (self.of, self.of.keys * self.of.values, l1.shape().dims2()?.0);
        let head = |head: usize| {
            let mut state = from[head * cells..(head + 1) * cells].to_vec();
            let mut out = vec![0f32; rows * of.values];
            for (t, row) in packed.chunks_exact(of.width()).enumerate() {
                if t > 0 || !self.begun {
                    of.step(row, head, &mut state);
                }
                of.read(row, head, &state, &mut out[t * of.values..(t + 1) * of.values]);
            }
            (out, state)
        };
        let each: Vec<(Vec<f32>, Vec<f32>)> = (0..of.heads).into_par_iter().map(head).collect();
        let mut all = side_by_side(of, rows, each.iter().map(|(out, _)| out.as_slice()));
        all.extend(each.iter().flat_map(|(_, state)| state));
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
        let (of, cells, rows) = (self.of, self.of.keys * self.of.values, packed.dim(0)?);
        let [values, from, upstream] = [packed, from, grad].map(super::to_vec);
        let (values, from, upstream) = (values?, from?, upstream?);
        let (upstream, of_last) = upstream.split_at(rows * of.heads * of.values);
        let lines: Vec<&[f32]> = values.chunks_exact(of.width()).collect();
        let head = |head: usize| {
            let at = head * cells..(head + 1) * cells;
            let part = |row: usize| &upstream[(row * of.heads + head) * of.values..][..of.values];
            let upstream: Vec<f32> = (0..rows).flat_map(part).copied().collect();
            let mut of_state = of_last[at.clone()].to_vec();
            (of.back(&lines, head, (&from[at], self.begun), &upstream, &mut of_state), of_state)
        };
        let each: Vec<_> = (0..of.heads).into_par_iter().map(head).collect();
        let mut found = vec![0f32; values.len()];
        each.iter().enumerate().for_each(|(head, (parts, _))| of.put_back(head, parts, &mut found));
        let of_state: Vec<f32> = each.into_iter().flat_map(|(_, of_state)| of_state).collect();
        let found = Tensor::from_vec(found, packed.shape(), &Device::Cpu)?;
        Ok((Some(found), Some(Tensor::from_vec(of_state, (1, of.cells()), &Device::Cpu)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn spans(spans: Vec<Span>) -> Rows {
        let n = spans.last().map_or(0, |s| s.rows.end);
        Rows { spans, entries: vec![0; n] }
    }

    #[test]
    fn a_fork_goes_on_from_the_state_of_its_base() -> Result<()> {
        for delta in [false, true] {
            let of = Recurrence { heads: 2, keys: 3, values: 4, delta };
            // A prompt of six positions, a fork of it from the third on, a fork of that from its fifth, and one of the prompt's end.
            let forked = spans(vec![
                Span::new(0..6, 0, vec![]),
                Span::new(6..10, 2, vec![0..2]),
                Span::new(10..12, 4, vec![0..2, 6..8]),
                Span::new(12..13, 5, vec![0..5]),
            ]);
            let packed = Tensor::from_vec(numbers(13 * of.width(), 3), (13, of.width()), &Device::Cpu)?;
            let found = scan(&packed, &forked, of)?;
            for (span, whole) in
                [(1usize, vec![0, 1, 6, 7, 8, 9]), (2, vec![0, 1, 6, 7, 10, 11]), (3, vec![0, 1, 2, 3, 4, 12])]
            {
                let rows = packed.index_select(
                    &Tensor::new(whole.iter().map(|r| *r as u32).collect::<Vec<_>>(), &Device::Cpu)?,
                    0,
                )?;
                let alone = scan(&rows, &spans(vec![Span::new(0..6, 0, vec![])]), of)?;
                let own = &forked.spans[span].rows;
                let (a, b) = (found.narrow(0, own.start, own.len())?, alone.narrow(0, 6 - own.len(), own.len())?);
                assert_eq!(a.to_vec2::<f32>()?, b.to_vec2::<f32>()?, "{delta} {span}");
            }
            // The last query alone, over a cache of what went before.
            let cached = spans(vec![Span { rows: 0..1, start: 2, prefix: vec![0..2], own: 6..10 }]);
            let last = scan(&packed, &cached, of)?;
            assert_eq!(last.to_vec2::<f32>()?[0], found.to_vec2::<f32>()?[9]);
        }
        Ok(())
    }

    #[test]
    fn stretches_one_after_another_give_what_the_whole_gives() -> Result<()> {
        for delta in [false, true] {
            let of = Recurrence { heads: 2, keys: 3, values: 4, delta };
            let packed = Tensor::from_vec(numbers(6 * of.width(), 3), (6, of.width()), &Device::Cpu)?;
            let whole = scan(&packed, &spans(vec![Span::new(0..6, 0, vec![])]), of)?;
            let nothing = Tensor::zeros((1, of.cells()), DType::F32, &Device::Cpu)?;
            let (first, state) = stretch(&packed.narrow(0, 0, 3)?, &nothing, false, of)?;
            // The third row reads the state that it has made, then three more go on from it.
            let (rest, last) = stretch(&packed.narrow(0, 2, 4)?, &state, true, of)?;
            let parts = Tensor::cat(&[first.narrow(0, 0, 2)?, rest], 0)?;
            assert_eq!(parts.to_vec2::<f32>()?, whole.to_vec2::<f32>()?, "{delta}");
            let q = packed.get(5)?.to_vec1::<f32>()?;
            let last = last.get(0)?.to_vec1::<f32>()?;
            let read = |h: usize, j: usize| (0..3).map(|i| q[h * 3 + i] * last[(h * 3 + i) * 4 + j]).sum::<f32>();
            assert!((read(1, 2) - whole.to_vec2::<f32>()?[5][6]).abs() < 1e-5);
        }
        Ok(())
    }

    #[test]
    fn the_gradient_of_a_stretch_is_that_of_differences() -> Result<()> {
        for (delta, begun) in [(false, false), (true, false), (false, true), (true, true)] {
            let of = Recurrence { heads: 2, keys: 2, values: 3, delta };
            let (width, cells) = (3 * of.width(), of.cells());
            let values = numbers(width + cells, 5);
            let weights = Tensor::from_vec(numbers(18 + cells, 9), 18 + cells, &Device::Cpu)?;
            let sum = |x: &Tensor| -> Result<Tensor> {
                let (packed, state) = (x.narrow(0, 0, width)?.reshape((3, ()))?, x.narrow(0, width, cells)?);
                let (out, state) = stretch(&packed, &state.reshape((1, cells))?, begun, of)?;
                (Tensor::cat(&[out.flatten_all()?, state.flatten_all()?], 0)? * &weights)?.sum_all()
            };
            let variable = candle_core::Var::from_vec(values.clone(), width + cells, &Device::Cpu)?;
            let grads = sum(&variable)?.backward()?;
            let found = grads.get(&variable).expect("a gradient").to_vec1::<f32>()?;
            for (i, found) in found.iter().enumerate() {
                let moved = |by: f32| -> Result<f64> {
                    let mut values = values.clone();
                    values[i] += by;
                    let n = values.len();
                    Ok(f64::from(sum(&Tensor::from_vec(values, n, &Device::Cpu)?)?.to_scalar::<f32>()?))
                };
                let expected = (moved(1e-2)? - moved(-1e-2)?) / 2e-2;
                assert!(
                    (f64::from(*found) - expected).abs() < 2e-3 * (1.0 + expected.abs()),
                    "{delta} {begun} {i}: {found} {expected}"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn the_gradient_is_that_of_differences() -> Result<()> {
        for delta in [false, true] {
            let of = Recurrence { heads: 2, keys: 2, values: 3, delta };
            let rows = spans(vec![Span::new(0..4, 0, vec![]), Span::new(4..6, 0, vec![])]);
            let values = numbers(6 * of.width(), 5);
            let weights = Tensor::from_vec(numbers(6 * 6, 9), (6, 6), &Device::Cpu)?;
            let sum = |values: Vec<f32>| -> Result<f64> {
                let packed = Tensor::from_vec(values, (6, of.width()), &Device::Cpu)?;
                Ok(f64::from((scan(&packed, &rows, of)? * &weights)?.sum_all()?.to_scalar::<f32>()?))
            };
            let variable = candle_core::Var::from_vec(values.clone(), (6, of.width()), &Device::Cpu)?;
            let grads = (scan(&variable, &rows, of)? * &weights)?.sum_all()?.backward()?;
            let found = grads.get(&variable).expect("a gradient").flatten_all()?.to_vec1::<f32>()?;
            for (i, found) in found.iter().enumerate() {
                let moved = |by: f32| {
                    let mut values = values.clone();
                    values[i] += by;
                    sum(values)
                };
                let expected = (moved(1e-2)? - moved(-1e-2)?) / 2e-2;
                assert!(
                    (f64::from(*found) - expected).abs() < 2e-3 * (1.0 + expected.abs()),
                    "{delta} {i}: {found} {expected}"
                );
            }
        }
        Ok(())
    }
}
