//! Edits of rows where they lie: `kernels/edit.cu`.

use super::{Argument, Grid, Kernel, Machine, int};
use crate::ops::edit::{RowChange, RowEdit};
use candle_core::{DType, Result};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// A list of edits as the kernels take it, cut into chains that need not wait for each other.
#[derive(Debug, Default)]
struct Chains {
    /// The rows that are edited or copied from, ascending: the rows of the scratch matrix.
    rows: Vec<i32>,
    /// Of the edited rows, where they are in the scratch matrix and in `x`.
    edited: [Vec<i32>; 2],
    /// The first edit of each chain, and the end.
    first_edit: Vec<i32>,
    /// The chains of each launch.
    waves: Vec<Range<usize>>,
    /// Kind, row, copied row, where the vector begins, first range, ranges. `[edits][6]`
    edits: Vec<i32>,
    /// A coefficient and nothing, or the two ends of a clamp. `[edits][2]`
    numbers: Vec<f32>,
    /// Start, end, and the number of the first column among all of the edit. `[ranges][3]`
    ranges: Vec<i32>,
    /// The vectors, one after another.
    vectors: Vec<f32>,
}

impl Chains {
    /// The edits of a list, which were checked to fit and hold no function of the caller's.
    fn new(list: &[RowEdit]) -> Result<Chains> {
        let mut chains = Chains::default();
        let mut place: BTreeMap<usize, usize> = BTreeMap::new();
        for e in list {
            place.insert(e.row, 0);
            place.extend(copied(e).map(|from| (from, 0)));
        }
        place.values_mut().enumerate().for_each(|(i, at)| *at = i);
        chains.rows = place.keys().map(|row| int(*row)).collect::<Result<_>>()?;
        let mut written: Vec<usize> = list.iter().map(|e| e.row).collect();
        written.sort_unstable();
        written.dedup();
        let of = |rows: &[usize], f: &dyn Fn(usize) -> usize| rows.iter().map(|r| int(f(*r))).collect::<Result<_>>();
        chains.edited = [of(&written, &|row| place[&row])?, of(&written, &|row| row)?];

        let mut order: Vec<(usize, usize, usize)> =
            waves(list).into_iter().enumerate().map(|(i, wave)| (wave, list[i].row, i)).collect();
        order.sort_unstable();
        let mut shared = Shared::default();
        let mut last = None;
        for (n, (wave, row, i)) in order.into_iter().enumerate() {
            if last != Some((wave, row)) {
                let chain = chains.first_edit.len();
                chains.first_edit.push(int(n)?);
                match last {
                    Some((before, _)) if before == wave => {
                        chains.waves.iter_mut().last().into_iter().for_each(|w| w.end = chain + 1);
                    }
                    _ => chains.waves.push(chain..chain + 1),
                }
                last = Some((wave, row));
            }
            chains.push(&list[i], &place, &mut shared)?;
        }
        chains.first_edit.push(int(list.len())?);
        Ok(chains)
    }

    /// Adds an edit to the last chain.
    fn push(&mut self, e: &RowEdit, place: &BTreeMap<usize, usize>, shared: &mut Shared) -> Result<()> {
        let (mut source, mut vector, mut numbers) = (0, 0, [0.0, 0.0]);
        let kind = match &e.change {
            RowChange::Zero => 0,
            RowChange::CopyRow(from) => {
                source = place[from];
                1
            }
            RowChange::Set(values) => {
                vector = shared.vector(values, &mut self.vectors);
                2
            }
            RowChange::Add(values, c) => {
                vector = shared.vector(values, &mut self.vectors);
                numbers[0] = *c;
                3
            }
            RowChange::ProjectOut(values) => {
                vector = shared.vector(values, &mut self.vectors);
                4
            }
            RowChange::Scale(c) => {
                numbers[0] = *c;
                5
            }
            RowChange::Clamp(low, high) => {
                numbers = [*low, *high];
                6
            }
            RowChange::Map(_) => candle_core::bail!("a function of the caller's cannot run in a kernel"),
        };
        let first = shared.columns(&e.columns, &mut self.ranges)?;
        self.edits.extend([kind, int(place[&e.row])?, int(source)?, int(vector)?, int(first)?, int(e.columns.len())?]);
        self.numbers.extend(numbers);
        Ok(())
    }
}

/// What many edits have in common is sent once.
#[derive(Default)]
struct Shared {
    vectors: HashMap<*const f32, usize>,
    columns: HashMap<*const Range<usize>, usize>,
}

impl Shared {
    /// Where a vector begins.
    fn vector(&mut self, values: &Arc<[f32]>, to: &mut Vec<f32>) -> usize {
        *self.vectors.entry(values.as_ptr()).or_insert_with(|| {
            to.extend_from_slice(values);
            to.len() - values.len()
        })
    }

    /// The number of the first of an edit's ranges.
    fn columns(&mut self, columns: &Arc<[Range<usize>]>, to: &mut Vec<i32>) -> Result<usize> {
        if let Some(first) = self.columns.get(&columns.as_ptr()) {
            return Ok(*first);
        }
        let (first, mut joined) = (to.len() / 3, 0);
        for c in columns.iter() {
            to.extend([int(c.start)?, int(c.end)?, int(joined)?]);
            joined += c.len();
        }
        self.columns.insert(columns.as_ptr(), first);
        Ok(first)
    }
}

/// The row that an edit copies.
fn copied(e: &RowEdit) -> Option<usize> {
    match e.change {
        RowChange::CopyRow(from) if from != e.row => Some(from),
        _ => None,
    }
}

/// The launch in which each edit is made: those of one row in their order, after what they copy was written and before it
/// is written again.
fn waves(list: &[RowEdit]) -> Vec<usize> {
    // The wave in which a row was last written, and that after the one in which it was last copied.
    let (mut written, mut free): (HashMap<usize, usize>, HashMap<usize, usize>) = Default::default();
    let one = |e: &RowEdit| {
        let own = written.get(&e.row).copied().max(free.get(&e.row).copied()).unwrap_or(0);
        let source = copied(e).and_then(|from| written.get(&from)).map_or(0, |wave| wave + 1);
        let wave = own.max(source);
        written.insert(e.row, wave);
        if let Some(from) = copied(e) {
            let after = free.entry(from).or_default();
            *after = (*after).max(wave + 1);
        }
        wave
    };
    list.iter().map(one).collect()
}

/// Makes edits, which were checked to fit and hold no function of the caller's, on `x` `[rows, width]`.
///
/// # Errors
/// If there is more than the tables can count, or the machine fails.
pub(in crate::ops) fn edit<M: Machine>(
    machine: &M,
    dtype: DType,
    x: &mut M::Buffer,
    width: usize,
    list: &[RowEdit],
) -> Result<()> {
    if list.is_empty() || width == 0 {
        return Ok(());
    }
    let chains = Chains::new(list)?;
    let columns = int(width)?;
    let grid = |x: usize| Grid { x, y: 1, shared: 0 };
    let rows = machine.ints(&chains.rows)?;
    let mut scratch = machine.blank(chains.rows.len() * width)?;
    machine.launch(
        &Kernel::of("edit", "widen_rows", dtype),
        grid(chains.rows.len()),
        &mut [Argument::Read(x), Argument::Read(&rows), Argument::Write(&mut scratch), Argument::Int(columns)],
    )?;
    let (first_edit, edits) = (machine.ints(&chains.first_edit)?, machine.ints(&chains.edits)?);
    let (numbers, ranges) = (machine.floats(&chains.numbers)?, machine.ints(&chains.ranges)?);
    // A buffer of nothing is none.
    let vectors = machine.floats(if chains.vectors.is_empty() { &[0.0] } else { &chains.vectors })?;
    for wave in &chains.waves {
        let kernel = Kernel { file: "edit", name: "edit_rows".to_string() };
        machine.launch(
            &kernel,
            grid(wave.len()),
            &mut [
                Argument::Write(&mut scratch),
                Argument::Int(columns),
                Argument::Read(&first_edit),
                Argument::Int(int(wave.start)?),
                Argument::Read(&edits),
                Argument::Read(&numbers),
                Argument::Read(&ranges),
                Argument::Read(&vectors),
            ],
        )?;
    }
    let [from, to] = [machine.ints(&chains.edited[0])?, machine.ints(&chains.edited[1])?];
    machine.launch(
        &Kernel::of("edit", "narrow_rows", dtype),
        grid(chains.edited[0].len()),
        &mut [
            Argument::Read(&scratch),
            Argument::Read(&from),
            Argument::Read(&to),
            Argument::Write(x),
            Argument::Int(columns),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(row: usize, change: RowChange) -> RowEdit {
        RowEdit { row, columns: [0..2].into(), change }
    }

    #[test]
    fn edits_wait_for_what_they_copy_and_for_those_that_copy_them() {
        let list = [
            one(0, RowChange::CopyRow(5)), // a row that nobody writes before
            one(1, RowChange::CopyRow(5)),
            one(1, RowChange::Scale(2.0)), // in its chain
            one(2, RowChange::CopyRow(1)), // after both
            one(5, RowChange::Zero),       // after those that copied it
            one(1, RowChange::Zero),       // after 2 has copied it
            one(3, RowChange::CopyRow(3)), // itself
        ];
        assert_eq!(waves(&list), [0, 0, 0, 1, 1, 2, 0]);
        let chains = Chains::new(&list).expect("a few edits");
        assert_eq!(chains.waves, [0..3, 3..5, 5..6]);
        assert_eq!(chains.first_edit, [0, 1, 3, 4, 5, 6, 7]);
        assert_eq!(chains.rows, [0, 1, 2, 3, 5]);
        assert_eq!(chains.edited, [vec![0, 1, 2, 3, 4], vec![0, 1, 2, 3, 5]]);
    }

    #[test]
    fn a_vector_and_columns_of_many_edits_are_sent_once() {
        let (vector, columns): (Arc<[f32]>, Arc<[Range<usize>]>) = ([1.0, 2.0].into(), [0..1, 3..4].into());
        let add = |row| RowEdit { row, columns: columns.clone(), change: RowChange::Add(vector.clone(), 1.0) };
        let chains = Chains::new(&[add(0), add(1), add(2)]).expect("a few edits");
        assert_eq!((chains.vectors.len(), chains.ranges), (2, vec![0, 1, 0, 3, 4, 1]));
    }
}
