//! A program's edits as changes to the rows of a matrix.

use crate::ops::{RowChange, RowEdit};
use crate::plan::{Made, Placed, Run};
use candle_core::Result;
use std::ops::Range;

/// An edit of a run as changes to rows. `row` gives the row of a position, if the run has one for it; `take` makes the change
/// that an interchange is, of the donor, its position and the columns.
pub(super) fn row_edits(
    placed: &Placed,
    row: impl Fn(usize) -> Option<usize>,
    take: impl Fn(Run, usize, &[Range<usize>]) -> Result<RowChange>,
) -> Result<Vec<RowEdit>> {
    let one = |(i, row): (usize, usize)| {
        let change = match &placed.made {
            Made::Change(change) => change.clone(),
            Made::Taken { donor, from } => take(*donor, from[i], &placed.columns)?,
        };
        Ok(RowEdit { row, columns: placed.columns.clone(), change })
    };
    placed.positions.iter().enumerate().filter_map(|(i, p)| Some((i, row(*p)?))).map(one).collect()
}
