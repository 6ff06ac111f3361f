//! What the rows of a packed activation are.
//!
//! Every position of every prompt and fork is a row of one matrix `[rows, width]`: there is no padding and no mask for
//! it. [`Rows`] says, for each row, its position and its angles, and which other rows its attention may read.

use std::ops::Range;

/// The rows of one packed pass.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The spans, one after another over the rows without gaps.
    pub spans: Vec<Span>,
    /// Each row's entry in the tables of [`super::decoder::Angles`]. `[rows]`
    pub entries: Vec<u32>,
}

/// Consecutive positions of one prompt or fork, as consecutive rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub rows: Range<usize>,
    /// The position of the first row.
    pub start: usize,
    /// The rows that hold positions `0..start`, in order: those of the runs that this one forks from.
    pub prefix: Vec<Range<usize>>,
}

impl Span {
    /// How many positions the span has and reads, from position 0 to its last.
    pub fn keys(&self) -> usize {
        self.start + self.rows.len()
    }

    /// The rows that hold positions `0..keys()`, in order.
    pub fn key_rows(&self) -> Vec<u32> {
        let all = self.prefix.iter().cloned().chain([self.rows.clone()]);
        all.flatten().map(|r| r as u32).collect()
    }
}

impl Rows {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.spans.last().map_or(0, |s| s.rows.end)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
