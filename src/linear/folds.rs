//! Which examples are held out: stratified by side, and whole groups.

use super::{Examples, LinearError, Side};
use rand::Rng;
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of examples to learn from and to test on, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pub train: Vec<usize>,
    pub test: Vec<usize>,
}

/// Examples of one group.
struct Group {
    rows: Vec<usize>,
    /// How many are positive and how many negative.
    sides: [usize; 2],
}

/// The groups of some examples, shuffled, then the largest first: small ones fill up what large ones leave uneven.
fn groups(examples: &Examples, rows: &[usize], rng: &mut impl Rng) -> Vec<Group> {
    let mut by_name: BTreeMap<usize, Group> = BTreeMap::new();
    for row in rows {
        let group = by_name.entry(examples.group(*row)).or_insert(Group { rows: Vec::new(), sides: [0; 2] });
        group.rows.push(*row);
        group.sides[usize::from(!examples.is_positive(*row))] += 1;
    }
    let mut groups: Vec<Group> = by_name.into_values().collect();
    groups.shuffle(rng);
    groups.sort_by_key(|group| std::cmp::Reverse(group.rows.len()));
    groups
}

/// How many examples of each side the groups have together.
fn totals(groups: &[Group]) -> [usize; 2] {
    [0, 1].map(|side| groups.iter().map(|group| group.sides[side]).sum())
}

/// For each side, how many groups have an example of it: at least 2, to be in both parts of a split.
fn groups_of_sides(groups: &[Group]) -> Result<[usize; 2], LinearError> {
    let counts = [0, 1].map(|side| groups.iter().filter(|group| group.sides[side] > 0).count());
    for (side, found) in [Side::Positive, Side::Negative].into_iter().zip(counts) {
        if found < 2 {
            return Err(LinearError::TooFewGroups { side, found, needed: 2 });
        }
    }
    Ok(counts)
}

/// That no part of a split lacks a side; `parts` are examples of each side in a part that must have some.
fn check(parts: &[[usize; 2]], counts: [usize; 2]) -> Result<(), LinearError> {
    for (i, side) in [Side::Positive, Side::Negative].into_iter().enumerate() {
        if parts.iter().any(|part| part[i] == 0) {
            return Err(LinearError::TooFewGroups { side, found: counts[i], needed: 2 });
        }
    }
    Ok(())
}

/// Splits examples (`rows`) into at most `folds` parts of similar size and composition, each to be held out once.
///
/// There are fewer where a side has fewer groups.
///
/// # Errors
/// If a side would be missing from what is left when one part is held out.
pub fn assign(
    examples: &Examples,
    rows: &[usize],
    folds: usize,
    rng: &mut impl Rng,
) -> Result<Vec<Split>, LinearError> {
    let groups = groups(examples, rows, rng);
    let counts = groups_of_sides(&groups)?;
    let totals = totals(&groups);
    let folds = folds.min(counts[0]).min(counts[1]);
    let mut held = vec![(Vec::new(), [0_usize; 2]); folds];
    for group in groups {
        // The growth of the sum of squared shares, which is least where all folds are alike.
        let growth = |sides: &[usize; 2]| -> f64 {
            let of = |i: usize| (group.sides[i] * sides[i]) as f64 / (totals[i] as f64).powi(2);
            of(0) + of(1)
        };
        let order = |(rows, sides): &(Vec<usize>, [usize; 2])| (growth(sides), rows.len());
        let least = held.iter_mut().min_by(|a, b| {
            let (a, b) = (order(a), order(b));
            a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
        });
        if let Some((rows, sides)) = least {
            rows.extend(group.rows);
            sides.iter_mut().zip(group.sides).for_each(|(sum, n)| *sum += n);
        }
    }
    let left: Vec<[usize; 2]> = held.iter().map(|(_, sides)| [0, 1].map(|i| totals[i] - sides[i])).collect();
    check(&left, counts)?;
    Ok(held.into_iter().map(|(test, _)| split(rows, test)).collect())
}

/// How many groups have an example of a side.
pub fn groups_of(examples: &Examples, rows: &[usize], side: Side) -> usize {
    let of_side = rows.iter().filter(|row| examples.is_positive(**row) == (side == Side::Positive));
    of_side.map(|row| examples.group(*row)).collect::<BTreeSet<_>>().len()
}

fn split(rows: &[usize], mut test: Vec<usize>) -> Split {
    test.sort_unstable();
    let mut train: Vec<usize> = rows.iter().copied().filter(|row| test.binary_search(row).is_err()).collect();
    train.sort_unstable();
    Split { train, test }
}
