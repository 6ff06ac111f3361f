//! A plan's edits as changes to the rows of a matrix.

use crate::model::arch::Arch;
use crate::ops::{RowChange, RowEdit};
use crate::plan::{Change, Edit, Plan, Run, columns, resolve};
use candle_core::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// An edit of a run as changes to rows. `row` gives the row of a position, if the run has one for it; `take` makes the change
/// that an interchange is, of the donor, its position and the columns.
pub(super) fn row_edits(
    plan: &Plan,
    arch: &Arch,
    run: Run,
    edit: &Edit,
    row: impl Fn(usize) -> Option<usize>,
    take: impl Fn(Run, usize, &[Range<usize>]) -> Result<RowChange>,
) -> Result<Vec<RowEdit>> {
    let keys = plan.length(run);
    let columns: Arc<[Range<usize>]> = columns(edit.site, &edit.part, arch, keys).map_err(Error::wrap)?.into();
    let positions = resolve(&edit.positions, keys).map_err(Error::Msg)?;
    let taken = match &edit.change {
        Change::Interchange { donor, positions } => {
            let from = plan.donor_positions(edit, *donor, positions.as_deref(), keys).map_err(Error::Msg)?;
            Some((*donor, from))
        }
        _ => None,
    };
    let one = |(i, row): (usize, usize)| {
        let change = match &taken {
            Some((donor, from)) => take(*donor, from[i], &columns)?,
            None => row_change(&edit.change, None),
        };
        Ok(RowEdit { row, columns: columns.clone(), change })
    };
    positions.iter().enumerate().filter_map(|(i, p)| Some((i, row(*p)?))).map(one).collect()
}

/// An edit's change as it is made on a row, with the row that an interchange takes from.
pub(super) fn row_change(change: &Change, donor: Option<usize>) -> RowChange {
    match change {
        Change::Zero => RowChange::Zero,
        Change::Set(v) => RowChange::Set(v.clone()),
        // The plan was checked: every interchange has its donor's row.
        Change::Interchange { .. } => RowChange::CopyRow(donor.unwrap_or(usize::MAX)),
        Change::Add { vector, coefficient } => RowChange::Add(vector.clone(), *coefficient),
        Change::ProjectOut(v) => RowChange::ProjectOut(v.clone()),
        Change::Scale(c) => RowChange::Scale(*c),
        Change::Clamp { low, high } => RowChange::Clamp(*low, *high),
        Change::Map(f) => RowChange::Map(f.clone()),
    }
}
