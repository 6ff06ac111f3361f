//! What the rows of a packed activation are.
//!
//! Every position of every prompt and fork is a row of one matrix `[rows, width]`: there is no padding and no mask for
//! it. [`Rows`] says, for each row, its position and its angles, and which other rows its attention may read.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// The rows of one packed pass.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The spans, one after another over the rows without gaps.
    pub spans: Vec<Span>,
    /// Each row's entry in the tables of cosines and sines that rotate it. `[rows]`
    pub entries: Vec<u32>,
}

/// Consecutive positions of one prompt or fork, as consecutive rows.
///
/// Keys and values are rows of matrices of their own, which in an ordinary pass have the same rows as all else. Where they
/// are kept in a cache, a span's queries are the last of the positions whose keys and values it has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub rows: Range<usize>,
    /// The position of the first row of `own`.
    pub start: usize,
    /// The rows of keys and values that hold positions `0..start`, in order: those of the runs that this one forks from.
    pub prefix: Vec<Range<usize>>,
    /// The rows of keys and values that hold positions `start..keys()`; as many as `rows` at least.
    pub own: Range<usize>,
}

impl Span {
    /// A span whose keys and values are the same rows as all else.
    pub fn new(rows: Range<usize>, start: usize, prefix: Vec<Range<usize>>) -> Self {
        Span { own: rows.clone(), rows, start, prefix }
    }

    /// How many positions the span reads, from position 0 to its last.
    pub fn keys(&self) -> usize {
        self.start + self.own.len()
    }

    /// The position of the first query.
    pub fn first(&self) -> usize {
        self.keys() - self.rows.len()
    }

    /// The rows of keys and values that hold positions `0..keys()`, in order.
    pub fn key_rows(&self) -> Vec<u32> {
        let all = self.prefix.iter().cloned().chain([self.own.clone()]);
        all.flatten().map(|r| r as u32).collect()
    }

    /// Whether the span reads the positions that it says it does, from `rows` rows of keys and values.
    pub fn fits(&self, rows: usize) -> bool {
        let all = self.prefix.iter().chain([&self.own]);
        self.prefix.iter().map(Range::len).sum::<usize>() == self.start
            && self.own.len() >= self.rows.len()
            && all.into_iter().all(|r| r.start <= r.end && r.end <= rows)
    }
}

impl Rows {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.spans.last().map_or(0, |s| s.rows.end)
    }

    /// The position of each row.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.spans.iter().flat_map(|span| span.first()..span.keys())
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The way of a recurrence's state along all rows: a span goes on from the state of the run that it forks from, at the position before
/// its own first. Where that run's rows are not among the spans', the state is made again from the first position on.
pub(super) struct Way<'a> {
    rows: &'a Rows,
    /// The spans, a run before those that fork from it.
    order: Vec<usize>,
    /// The rows after which others go on.
    parting: HashSet<usize>,
}

impl<'a> Way<'a> {
    pub fn of(rows: &'a Rows) -> Self {
        let mut order: Vec<usize> = (0..rows.spans.len()).collect();
        // Forks begin later.
        order.sort_by_key(|i| rows.spans[*i].start);
        let parting = rows.spans.iter().filter_map(|span| Some(span.prefix.last()?.end - 1)).collect();
        Way { rows, order, parting }
    }

    /// Takes a state, which is `none` before the first position, along. `step` takes it over a row of keys and values, with which comes
    /// its number among the queries, if it is one.
    pub fn along<S: Clone>(&self, none: &S, mut step: impl FnMut(&mut S, usize, Option<usize>)) {
        let mut kept: HashMap<usize, S> = HashMap::new();
        for span in self.order.iter().map(|i| &self.rows.spans[*i]) {
            let known = span.prefix.last().and_then(|rows| kept.get(&(rows.end - 1))).cloned();
            let again = if known.is_none() { span.prefix.clone() } else { Vec::new() };
            let mut state = known.unwrap_or_else(|| none.clone());
            again.into_iter().flatten().for_each(|row| step(&mut state, row, None));
            let first = span.own.end - span.rows.len();
            for row in span.own.clone() {
                step(&mut state, row, row.checked_sub(first).map(|i| span.rows.start + i));
                if self.parting.contains(&row) {
                    kept.insert(row, state.clone());
                }
            }
        }
    }
}
