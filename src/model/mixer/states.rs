//! The states of a recurrence that an engine looks at.
//!
//! The kernel takes a run's state over all its positions and shows it to nobody. Where a hook wants to see a run's state, the run goes in
//! stretches: to a position that is looked at, and on from what the hook makes of the state there. What heads give at that position
//! reads the state as the hook leaves it, but for RWKV-4, whose channels read the state before a position and its own key and value.
//! A fork goes on from the state of the run that it parts from, which stops for that too.

use crate::model::pass::Hook;
use crate::ops::rows::{Rows, Span};
use crate::ops::{self, Recurrence, Wkv};
use crate::site::SiteKind;
use candle_core::{DType, Device, Result, Tensor};
use std::collections::{BTreeMap, HashMap};

/// Where one span stops, by position.
type Stops = BTreeMap<usize, Stop>;

/// Why a span stops at a position.
#[derive(Clone, Copy, Default)]
struct Stop {
    /// The hook looks at the state.
    looked: bool,
    /// Another span goes on from it.
    forked: bool,
}

/// What takes a state from one row to the next. States without a number but 0 are those before the first position.
pub(super) enum Steps {
    Scan {
        of: Recurrence,
        /// Whether the site `state` has the numbers of a value together, `[heads, values, keys]`; `[heads, keys, values]` otherwise.
        by_value: bool,
    },
    Wkv(Wkv),
}

impl Steps {
    /// Numbers of a state.
    fn cells(&self) -> usize {
        match self {
            Steps::Scan { of, .. } => of.cells(),
            Steps::Wkv(of) => of.cells(),
        }
    }

    /// Whether what is given at a position reads the state after it.
    fn reads_after(&self) -> bool {
        matches!(self, Steps::Scan { .. })
    }

    /// What is given at all rows.
    fn through(&self, packed: &Tensor, rows: &Rows) -> Result<Tensor> {
        match self {
            Steps::Scan { of, .. } => ops::scan(packed, rows, *of),
            Steps::Wkv(of) => of.through(packed, rows),
        }
    }

    /// What is given at some rows of a run, and the state after them. If it is `begun`, the given state is that after the first row.
    fn stretch(&self, packed: &Tensor, state: &Tensor, begun: bool) -> Result<(Tensor, Tensor)> {
        match self {
            Steps::Scan { of, .. } => ops::stretch(packed, state, begun, *of),
            Steps::Wkv(of) => of.stretch(packed, state),
        }
    }
}

/// A recurrence of a layer.
pub(super) struct States<'a> {
    pub steps: Steps,
    pub layer: usize,
    pub rows: &'a Rows,
}

impl States<'_> {
    /// What heads or channels give at all rows: by the kernel, and in stretches for the spans whose states the hook looks at. `packed` is
    /// `[rows, width]`, as [`Recurrence`] or [`Wkv`] lays it out; `[rows, heads * values]`, or `[rows, channels]`.
    pub fn through(&self, packed: &Tensor, hook: &mut dyn Hook) -> Result<Tensor> {
        let spans = &self.rows.spans;
        let stops = self.stops(hook)?;
        if stops.is_empty() {
            return self.steps.through(packed, self.rows);
        }
        let all = stops.len() == spans.iter().filter(|span| !span.rows.is_empty()).count();
        let scanned = if all { None } else { Some(self.steps.through(packed, self.rows)?) };
        let on_host = packed.to_device(&Device::Cpu)?;
        let mut ends = HashMap::new();
        let mut parts = Vec::with_capacity(spans.len());
        // A run comes before those that fork from it, and before those that take from it.
        for (i, span) in spans.iter().enumerate().filter(|(_, span)| !span.rows.is_empty()) {
            match (stops.get(&i), &scanned) {
                (None, Some(scanned)) => parts.push(scanned.narrow(0, span.rows.start, span.rows.len())?),
                (stops, _) => {
                    let none = Stops::new();
                    let given = self.span((i, span), stops.unwrap_or(&none), &on_host, &mut ends, hook)?;
                    parts.push(given.to_device(packed.device())?);
                }
            }
        }
        Tensor::cat(&parts, 0)
    }

    /// The spans that go in stretches: those that the hook names, and those whose state these go on from.
    fn stops(&self, hook: &mut dyn Hook) -> Result<BTreeMap<usize, Stops>> {
        let spans = &self.rows.spans;
        let looked = hook.stops(self.layer)?.into_iter().filter(|(span, _)| !spans[*span].rows.is_empty());
        let stop = Stop { looked: true, forked: false };
        let mut found: BTreeMap<usize, Stops> =
            looked.map(|(span, at)| (span, at.into_iter().map(|p| (p, stop)).collect())).collect();
        for i in (0..spans.len()).rev().filter(|i| spans[*i].start > 0) {
            if !found.contains_key(&i) || hook.state_before(self.layer, i)?.is_some() {
                continue;
            }
            let row = last_before(&spans[i])?;
            let base = spans.partition_point(|span| span.rows.end <= row);
            let position = spans[base].start + row - spans[base].rows.start;
            found.entry(base).or_default().entry(position).or_default().forked = true;
        }
        Ok(found)
    }

    /// One span. `ends` holds the states that later ones go on from, by the row that they are of.
    fn span(
        &self,
        (i, span): (usize, &Span),
        stops: &Stops,
        packed: &Tensor,
        ends: &mut HashMap<usize, Tensor>,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        let mut state = match hook.state_before(self.layer, i)? {
            Some(state) => state,
            None if span.start == 0 => Tensor::zeros((1, self.steps.cells()), DType::F32, &Device::Cpu)?,
            None => match ends.get(&last_before(span)?) {
                Some(state) => state.clone(),
                None => candle_core::bail!("a fork's rows come before those of the run that it parts from"),
            },
        };
        let (mut at, mut begun, mut parts) = (0, false, Vec::with_capacity(stops.len() + 1));
        for (position, Stop { looked, forked }) in stops {
            let stop = position - span.first();
            let rows = packed.narrow(0, span.rows.start + at, stop + 1 - at)?;
            let (given, after) = self.steps.stretch(&rows, &state, begun)?;
            // What the last row gives is read once more, of the state that the hook leaves, if it reads that.
            let done = if self.steps.reads_after() { stop } else { stop + 1 };
            if done > at {
                parts.push(given.narrow(0, 0, done - at)?);
            }
            state = if *looked { self.looked_at((i, *position), &after, hook)? } else { after };
            if *forked {
                ends.insert(span.rows.start + stop, state.clone());
            }
            (at, begun) = (done, true);
        }
        if at < span.rows.len() {
            let rows = packed.narrow(0, span.rows.start + at, span.rows.len() - at)?;
            let (given, last) = self.steps.stretch(&rows, &state, begun)?;
            parts.push(given);
            state = last;
        }
        hook.state_after(self.layer, i, &state)?;
        Tensor::cat(&parts, 0)
    }

    /// The state after a position as the hook leaves it.
    fn looked_at(&self, at: (usize, usize), state: &Tensor, hook: &mut dyn Hook) -> Result<Tensor> {
        let site = SiteKind::State.at(self.layer);
        let Steps::Scan { of: Recurrence { heads, keys, values, .. }, by_value: true } = self.steps else {
            return hook.at_state(site, at, state.clone());
        };
        let turned = |x: Tensor, shape: (usize, usize, usize)| {
            x.reshape(shape)?.transpose(1, 2)?.contiguous()?.reshape((1, self.steps.cells()))
        };
        turned(hook.at_state(site, at, turned(state.clone(), (heads, keys, values))?)?, (heads, values, keys))
    }
}

/// The row of the last position before a span's own.
fn last_before(span: &Span) -> Result<usize> {
    match span.prefix.last() {
        Some(rows) => Ok(rows.end - 1),
        None => candle_core::bail!("a span has no rows of the positions before its own"),
    }
}
