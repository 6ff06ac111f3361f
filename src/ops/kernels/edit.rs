//! Edits of rows where they lie: `kernels/edit.cu`.

use super::{Argument, Grid, Kernel, Machine, int};
use crate::ops::edit::{RowChange, RowEdit};
use candle_core::{DType, Result};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// One change of a row as the kernel makes it.
struct Step<'a> {
    row: usize,
    columns: &'a Arc<[Range<usize>]>,
    made: Made<'a>,
}

enum Made<'a> {
    Zero,
    CopyRow(usize),
    Set(&'a Arc<[f32]>),
    Add(&'a Arc<[f32]>, f32),
    ProjectOut(&'a Arc<[f32]>),
    Scale(f32),
    Clamp(f32, f32),
    /// And leaves marks of what was within, from this one on.
    ClampAndMark(f32, f32, usize),
    /// Zero where a clamp's marks, from this one on, say that something was not within.
    KeepMarked(usize),
}

/// The marks that the clamps before each edit of a list leave, and all.
fn marks(list: &[RowEdit]) -> (Vec<usize>, usize) {
    let mut all = 0;
    let before = |e: &RowEdit| {
        let first = all;
        if let RowChange::Clamp(..) = e.change {
            all += e.columns.iter().map(|c| c.len()).sum::<usize>();
        }
        first
    };
    let each = list.iter().map(before).collect();
    (each, all)
}

/// A list's steps, in its order; clamps leave marks where `marks` says from which on.
fn steps<'a>(list: &'a [RowEdit], marks: Option<&[usize]>) -> Result<Vec<Step<'a>>> {
    let step = |(i, e): (usize, &'a RowEdit)| {
        let made = match &e.change {
            RowChange::Zero => Made::Zero,
            RowChange::CopyRow(from) => Made::CopyRow(*from),
            RowChange::Set(values) => Made::Set(values),
            RowChange::Add(values, c) => Made::Add(values, *c),
            RowChange::ProjectOut(values) => Made::ProjectOut(values),
            RowChange::Scale(c) => Made::Scale(*c),
            RowChange::Clamp(low, high) => match marks {
                Some(marks) => Made::ClampAndMark(*low, *high, marks[i]),
                None => Made::Clamp(*low, *high),
            },
            RowChange::Map(_) => candle_core::bail!("a function of the caller's cannot run in a kernel"),
        };
        Ok(Step { row: e.row, columns: &e.columns, made })
    };
    list.iter().enumerate().map(step).collect()
}

/// The steps back of a list, from the last edit's to the first's: from the gradient with respect to what each made to that with
/// respect to what it was made on.
fn steps_back<'a>(list: &'a [RowEdit], marks: &[usize]) -> Vec<Step<'a>> {
    let step = |(e, mark): (&'a RowEdit, &usize)| {
        let made = match &e.change {
            // What is taken from elsewhere is a constant. A function of the caller's is none that a kernel is asked for.
            RowChange::Zero | RowChange::CopyRow(_) | RowChange::Set(_) | RowChange::Map(_) => Made::Zero,
            RowChange::Add(..) => return None,
            // A projection is its own transpose, a multiple too.
            RowChange::ProjectOut(values) => Made::ProjectOut(values),
            RowChange::Scale(c) => Made::Scale(*c),
            RowChange::Clamp(..) => Made::KeepMarked(*mark),
        };
        Some(Step { row: e.row, columns: &e.columns, made })
    };
    list.iter().zip(marks).rev().filter_map(step).collect()
}

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
    /// Kind, row, copied row, where the vector or the marks begin, first range, ranges. `[edits][6]`
    edits: Vec<i32>,
    /// A coefficient and nothing, or the two ends of a clamp. `[edits][2]`
    numbers: Vec<f32>,
    /// Start, end, and the number of the first column among all of the edit. `[ranges][3]`
    ranges: Vec<i32>,
    /// The vectors, one after another.
    vectors: Vec<f32>,
}

impl Chains {
    /// The steps of a list, which was checked to fit.
    fn new(list: &[Step]) -> Result<Chains> {
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
    fn push(&mut self, e: &Step, place: &BTreeMap<usize, usize>, shared: &mut Shared) -> Result<()> {
        let mut vector = |values: &Arc<[f32]>| shared.vector(values, &mut self.vectors);
        // The kind as the kernel numbers it, the copied row, where the vector or the marks begin, and the numbers.
        let (kind, source, vector, numbers) = match e.made {
            Made::Zero => (0, 0, 0, [0.0, 0.0]),
            Made::CopyRow(from) => (1, place[&from], 0, [0.0, 0.0]),
            Made::Set(values) => (2, 0, vector(values), [0.0, 0.0]),
            Made::Add(values, c) => (3, 0, vector(values), [c, 0.0]),
            Made::ProjectOut(values) => (4, 0, vector(values), [0.0, 0.0]),
            Made::Scale(c) => (5, 0, 0, [c, 0.0]),
            Made::Clamp(low, high) => (6, 0, 0, [low, high]),
            Made::ClampAndMark(low, high, marks) => (7, 0, marks, [low, high]),
            Made::KeepMarked(marks) => (8, 0, marks, [0.0, 0.0]),
        };
        let first = shared.columns(e.columns, &mut self.ranges)?;
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

/// The row that a step copies.
fn copied(e: &Step) -> Option<usize> {
    match e.made {
        Made::CopyRow(from) if from != e.row => Some(from),
        _ => None,
    }
}

/// The launch in which each edit is made: those of one row in their order, after what they copy was written and before it
/// is written again.
fn waves(list: &[Step]) -> Vec<usize> {
    // The wave in which a row was last written, and that after the one in which it was last copied.
    let (mut written, mut free): (HashMap<usize, usize>, HashMap<usize, usize>) = Default::default();
    let one = |e: &Step| {
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

/// Where edits are made: matrices `[rows, width]` of a dtype, on a machine.
struct Place<'a, M> {
    machine: &'a M,
    dtype: DType,
    width: i32,
}

fn grid(blocks: usize) -> Grid {
    Grid { x: blocks, y: 1, shared: 0 }
}

impl<M: Machine> Place<'_, M> {
    /// The rows of a matrix that chains edit or copy from, widened to f32.
    fn widened(&self, chains: &Chains, x: &M::Buffer) -> Result<M::Buffer> {
        let rows = self.machine.ints(&chains.rows)?;
        let mut scratch = self.machine.blank(chains.rows.len() * self.width as usize)?;
        self.machine.launch(
            &Kernel::of("edit", "widen_rows", self.dtype),
            grid(chains.rows.len()),
            &mut [Argument::Read(x), Argument::Read(&rows), Argument::Write(&mut scratch), Argument::Int(self.width)],
        )?;
        Ok(scratch)
    }

    /// Makes chains on the scratch matrix, a launch a wave.
    fn make(&self, chains: &Chains, scratch: &mut M::Buffer, marks: &mut M::Buffer) -> Result<()> {
        let machine = self.machine;
        let (first_edit, edits) = (machine.ints(&chains.first_edit)?, machine.ints(&chains.edits)?);
        let (numbers, ranges) = (machine.floats(&chains.numbers)?, machine.ints(&chains.ranges)?);
        // A buffer of nothing is none.
        let vectors = machine.floats(if chains.vectors.is_empty() { &[0.0] } else { &chains.vectors })?;
        for wave in &chains.waves {
            machine.launch(
                &Kernel { file: "edit", name: "edit_rows".to_string() },
                grid(wave.len()),
                &mut [
                    Argument::Write(scratch),
                    Argument::Int(self.width),
                    Argument::Read(&first_edit),
                    Argument::Int(int(wave.start)?),
                    Argument::Read(&edits),
                    Argument::Read(&numbers),
                    Argument::Read(&ranges),
                    Argument::Read(&vectors),
                    Argument::Write(marks),
                ],
            )?;
        }
        Ok(())
    }

    /// Writes the edited rows back.
    fn narrow(&self, chains: &Chains, scratch: &M::Buffer, x: &mut M::Buffer) -> Result<()> {
        let [from, to] = [self.machine.ints(&chains.edited[0])?, self.machine.ints(&chains.edited[1])?];
        self.machine.launch(
            &Kernel::of("edit", "narrow_rows", self.dtype),
            grid(chains.edited[0].len()),
            &mut [
                Argument::Read(scratch),
                Argument::Read(&from),
                Argument::Read(&to),
                Argument::Write(x),
                Argument::Int(self.width),
            ],
        )
    }
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
    let (place, chains) = (Place { machine, dtype, width: int(width)? }, Chains::new(&steps(list, None)?)?);
    let mut scratch = place.widened(&chains, x)?;
    place.make(&chains, &mut scratch, &mut machine.blank(1)?)?;
    place.narrow(&chains, &scratch, x)
}

/// Turns the gradient with respect to what edits made, `grad`, into that with respect to what they were made on, `x`: both are
/// `[rows, width]`. The edits were checked to fit and hold no function of the caller's.
///
/// # Errors
/// If there is more than the tables can count, or the machine fails.
pub(in crate::ops) fn edit_back<M: Machine>(
    machine: &M,
    dtype: DType,
    x: &M::Buffer,
    grad: &mut M::Buffer,
    width: usize,
    list: &[RowEdit],
) -> Result<()> {
    let (each, all) = marks(list);
    let back = steps_back(list, &each);
    if back.is_empty() || width == 0 {
        return Ok(());
    }
    let (place, mut marks) = (Place { machine, dtype, width: int(width)? }, machine.blank(all.max(1))?);
    // What comes after the last clamp is not asked for.
    if let Some(last) = list.iter().rposition(|e| matches!(e.change, RowChange::Clamp(..))) {
        let chains = Chains::new(&steps(&list[..=last], Some(&each))?)?;
        place.make(&chains, &mut place.widened(&chains, x)?, &mut marks)?;
    }
    let chains = Chains::new(&back)?;
    let mut scratch = place.widened(&chains, grad)?;
    place.make(&chains, &mut scratch, &mut marks)?;
    place.narrow(&chains, &scratch, grad)
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
        let list = steps(&list, None).expect("no function");
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
        let list = [add(0), add(1), add(2)];
        let chains = Chains::new(&steps(&list, None).expect("no function")).expect("a few edits");
        assert_eq!((chains.vectors.len(), chains.ranges), (2, vec![0, 1, 0, 3, 4, 1]));
    }

    #[test]
    fn the_way_back_is_one_launch_and_clamps_have_marks_of_their_own() {
        let list = [
            one(0, RowChange::Clamp(0.0, 1.0)),
            one(1, RowChange::CopyRow(0)),
            one(0, RowChange::Add([1.0, 2.0].into(), 1.0)),
            one(1, RowChange::Clamp(0.0, 1.0)),
        ];
        let (each, all) = marks(&list);
        assert_eq!((each.as_slice(), all), ([0, 2, 2, 2].as_slice(), 4));
        let back = steps_back(&list, &each);
        assert_eq!(back.iter().map(|step| step.row).collect::<Vec<_>>(), [1, 1, 0]);
        assert_eq!(Chains::new(&back).expect("a few steps").waves, [0..2]);
    }
}
