//! How strong is the gate on pairs that it was not picked on?
//!
//! The head that crosses most in both directions together is picked on one half of the pairs and measured on the other, and
//! the reverse. Over all pairs each is measured under the head that the other half picked: an estimate of the strongest
//! head's share of the gap without the luck of having been picked. Which heads are run at all was estimated on pairs of both
//! halves; among the many that are, that decides little.

use crate::analyses::columns::OfUnit;
use crate::analyses::interchange::{Direction, PairRow};
use crate::analyses::prelude::*;
use crate::analyses::table as named;
use crate::report::cells::{self, share};
use crate::stats::{bca_ratio, ratio};

/// What a half is called in the table.
const HALVES: [&str; 2] = ["first", "second"];

/// The row over all pairs.
const BOTH: &str = "both";

/// A head's exchange in both directions: effects, one a pair, nats.
struct Exchanged {
    layer: i64,
    head: i64,
    effects: [Vec<f64>; 2],
}

/// Every head that was run.
struct Heads<'a> {
    heads: Vec<Exchanged>,
    /// How far each pair's metric has to go, in both directions.
    gaps: [Vec<f64>; 2],
    /// Which half each pair is in.
    halves: &'a [usize],
}

impl<'a> Heads<'a> {
    /// Reads the table of pairs: all heads in one direction, then the same heads in the other, each over every pair.
    fn of(pairs: &Table, halves: &'a [usize]) -> Result<Self, AnalysisError> {
        let number = |column| Ok::<_, AnalysisError>(pairs.column(column)?);
        let (base, other) = (number(PairRow::base_metric)?, number(PairRow::other_metric)?);
        let patched = number(PairRow::patched_metric)?;
        let less = |a: &[Option<f64>]| -> Vec<Vec<f64>> {
            let less = |(a, b): (&Option<f64>, &Option<f64>)| a.zip(*b).map_or(f64::NAN, |(a, b)| a - b);
            let all: Vec<f64> = a.iter().zip(&base).map(less).collect();
            all.chunks_exact(halves.len()).map(<[f64]>::to_vec).collect()
        };
        let (mut gaps, effects) = (less(&other).into_iter(), less(&patched));
        let n = effects.len() / 2;
        let mut effects = effects.into_iter();
        let gaps = [gaps.next(), gaps.nth(n.max(1) - 1)].map(Option::unwrap_or_default);
        let necessity: Vec<Vec<f64>> = effects.by_ref().take(n).collect();
        let (layers, heads) = (pairs.column(OfUnit::layer)?, pairs.column(OfUnit::head)?);
        let head = |(k, effects): (usize, [Vec<f64>; 2])| {
            let row = k * halves.len();
            Exchanged { layer: layers[row], head: heads[row], effects }
        };
        let heads = necessity.into_iter().zip(effects).map(|(a, b)| [a, b]).enumerate().map(head).collect();
        Ok(Heads { heads, gaps, halves })
    }

    /// The pairs of a half; all of them where none is given.
    fn pairs(&self, half: Option<usize>) -> impl Iterator<Item = usize> {
        (0..self.halves.len()).filter(move |i| half.is_none_or(|half| self.halves[*i] == half))
    }

    /// Effects and gaps over the pairs of a half, or over all, each pair under the head that `head` says.
    fn over(&self, half: Option<usize>, direction: usize, head: impl Fn(usize) -> usize) -> (Vec<f64>, Vec<f64>) {
        let effect = |i: usize| self.heads[head(i)].effects[direction][i];
        self.pairs(half).map(|i| (effect(i), self.gaps[direction][i])).unzip()
    }

    /// The head that crosses most over a half, of those that cross in both directions.
    fn picked(&self, half: usize) -> Option<usize> {
        let crossed = |h: usize| {
            let [necessity, sufficiency] = [0, 1].map(|direction| {
                let (effects, gaps) = self.over(Some(half), direction, |_| h);
                ratio(&effects, &gaps).filter(|share| *share > 0.0)
            });
            Some(necessity? + sufficiency?)
        };
        let crossed = (0..self.heads.len()).filter_map(|h| Some((h, crossed(h)?)));
        crossed.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(h, _)| h)
    }
}

rows! {
    /// A share of the gap, with its interval.
    #[derive(Copy)]
    pub struct Crossed {
        share: Option<f64> as "" = "{}",
        interval: Option<(f64, f64)> as "_ci_" = ["lower end of its 95 % BCa interval over pairs", "its upper end"],
    }

    /// A half of the pairs under the head that the other picked, or all pairs.
    pub struct HeldOutRow<'a> in "held_out" {
        model: &'a str = "the model, in short",
        half: &'a str =
            "the half of the pairs that is measured, first or second, under the head that is the strongest in the other; both: \
             every pair under the head that the half it is not in picked",
        layer: i64 = "the head's layer; -1 where the halves pick different ones",
        head: i64 = "the head; -1 where the halves pick different ones",
        n: i64 = "pairs",
        necessity: Crossed as "necessity" =
            "share of the gap between the mean metrics that the exchange crosses in the positive run",
        sufficiency: Crossed as "sufficiency" = "the same in the negative run",
    }
}

/// The table `held_out`; without rows where in one of the halves no head crosses in both directions. `pairs` is that of an
/// interchange of the same heads in both directions.
pub(super) fn table(model: &str, pairs: &Table, halves: &[usize], seed: u64) -> Result<Table, AnalysisError> {
    let heads = Heads::of(pairs, halves)?;
    let options = Bootstrap { seed, ..Bootstrap::default() };
    let picked = heads.picked(0).zip(heads.picked(1)).map(|(a, b)| [a, b]);
    let row = |half: Option<usize>, [first, second]: [usize; 2]| {
        // A pair is measured under what the other half picked.
        let of_pair = |i: usize| if heads.halves[i] == 0 { second } else { first };
        let head = match half {
            Some(half) => Some([second, first][half]),
            None => (first == second).then_some(first),
        };
        let [necessity, sufficiency] = [0, 1].map(|direction| {
            let (effects, gaps) = heads.over(half, direction, of_pair);
            let interval = bca_ratio(&effects, &gaps, &options).map(Interval::ends);
            Crossed { share: ratio(&effects, &gaps), interval }
        });
        HeldOutRow {
            model,
            half: half.map_or(BOTH, |half| HALVES[half]),
            layer: head.map_or(-1, |h| heads.heads[h].layer),
            head: head.map_or(-1, |h| heads.heads[h].head),
            n: heads.pairs(half).count() as i64,
            necessity,
            sufficiency,
        }
    };
    let rows = picked.into_iter().flat_map(|picked| [Some(0), Some(1), None].map(|half| row(half, picked)));
    Ok(HeldOutRow::table(rows)?)
}

/// What the table says, as a sentence with a space before it; nothing where it has no rows.
pub(super) fn sentence(tables: &[Table]) -> Result<String, AnalysisError> {
    let rows = HeldOutRow::read(named(tables, HeldOutRow::TABLE)?)?;
    let Some(at) = rows.iter().position(|row| row.half == BOTH) else { return Ok(String::new()) };
    let head = |row: &HeldOutRow| cells::head(row.layer, row.head);
    let crossed = |name: &str, of: Crossed| {
        let ends = cells::share_interval(of.interval);
        format!("{} of the gap ({name}; 95 % interval {ends})", share(of.share))
    };
    let both = &rows[at];
    // Where both halves pick one head, it is measured on all pairs: the number is the same as without the halves.
    let by = match both.layer {
        0.. => format!(
            "Each half of the pairs by itself picks {} too, so that its numbers are not flattered by the choice. It crosses",
            head(both)
        ),
        _ => format!(
            "One half of the pairs picks {}, the other {}. Picked on one half and measured on the other, the strongest crosses",
            head(&rows[at - 1]),
            head(&rows[at - 2])
        ),
    };
    Ok(format!(
        " {by} {} and {}.",
        crossed(Direction::Necessity.name(), both.necessity),
        crossed(Direction::Sufficiency.name(), both.sufficiency),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight pairs that stand 4 nats apart, and heads' effects in the positive run, one list a head; in the negative run they
    /// are as large, the other way.
    fn pairs(effects: &[[f64; 8]]) -> Table {
        let mut columns: [Vec<f64>; 3] = Default::default();
        let mut heads = Vec::new();
        for sign in [-1.0, 1.0] {
            for (head, effects) in effects.iter().enumerate() {
                for effect in effects {
                    let base = -2.0 * sign;
                    columns[0].push(base);
                    columns[1].push(-base);
                    columns[2].push(base + sign * effect);
                    heads.push(head as i64);
                }
            }
        }
        let [base, other, patched] = columns;
        let rows = heads.into_iter().zip(base).zip(other).zip(patched);
        PairRow::table(rows.map(|(((head, base), other), patched)| PairRow {
            unit: OfUnit { layer: 7, head },
            base_metric: Some(base),
            other_metric: Some(other),
            patched_metric: Some(patched),
            ..PairRow::default()
        }))
        .unwrap()
    }

    const HALF: [usize; 8] = [0, 1, 0, 1, 0, 1, 0, 1];

    #[test]
    fn each_half_is_measured_under_the_head_that_the_other_picked() {
        // Head 0 is strong in the first half alone, head 1 in the second alone: by luck both look like 2 of 4 nats.
        let lucky = [[2.0, 0.2, 2.0, 0.2, 2.0, 0.2, 2.0, 0.2], [0.4, 2.0, 0.4, 2.0, 0.4, 2.0, 0.4, 2.0]];
        let found = table("m", &pairs(&lucky), &HALF, 0).unwrap();
        assert_eq!(found.strs("half").unwrap(), ["first", "second", "both"]);
        assert_eq!((found.ints("layer").unwrap(), found.ints("head").unwrap()), (&[7, 7, -1][..], &[1, 0, -1][..]));
        assert_eq!(found.ints("n").unwrap(), [4, 4, 8]);
        for direction in ["necessity", "sufficiency"] {
            let shares: Vec<f64> = found.floats(direction).unwrap().iter().map(|x| x.unwrap()).collect();
            for (share, expected) in shares.iter().zip([0.1, 0.05, 0.075]) {
                assert!((share - expected).abs() < 1e-12, "{direction}: {shares:?}");
            }
        }
        let said = sentence(&[found]).unwrap();
        assert!(
            said.contains("One half of the pairs picks L7.H0, the other L7.H1") && said.contains("7.5\u{a0}%"),
            "{said}"
        );
    }

    #[test]
    fn a_head_that_both_halves_pick_is_named() {
        let found = table("m", &pairs(&[[1.0, 1.2, 0.8, 1.0, 1.1, 0.9, 1.0, 1.0], [0.1; 8]]), &HALF, 0).unwrap();
        assert_eq!(found.ints("head").unwrap(), [0, 0, 0]);
        let (low, high) = (found.floats("necessity_ci_low").unwrap()[2], found.floats("necessity_ci_high").unwrap()[2]);
        assert!(low.unwrap() < 0.25 && high.unwrap() > 0.25);
        let said = sentence(&[found]).unwrap();
        assert!(said.starts_with(" Each half of the pairs by itself picks L7.H0 too"), "{said}");
    }

    #[test]
    fn a_half_in_which_no_head_crosses_in_both_directions_leaves_no_rows() {
        let found = table("m", &pairs(&[[1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0]]), &HALF, 0).unwrap();
        assert_eq!((found.rows(), sentence(&[found]).unwrap()), (0, String::new()));
    }
}
