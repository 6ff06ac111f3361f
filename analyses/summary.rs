//! Numbers over items that analyses have in common: means and deviations, the effect of an edit on one item, and the
//! positions of a prompt that a [`Position`] names. Tests and intervals are left to `stats` and `effects`.

use crate::plan::Positions;
pub use crate::stats::mean;

/// The mean of rows of one width; nothing of none.
pub fn mean_row<'a>(rows: impl IntoIterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut means = RowMean::default();
    rows.into_iter().for_each(|row| means.add(row));
    means.mean()
}

/// The mean of rows of one width as they come, summed in f64.
#[derive(Clone, Debug, Default)]
pub struct RowMean {
    sums: Vec<f64>,
    n: f64,
}

impl RowMean {
    /// Takes one more row in.
    pub fn add(&mut self, row: &[f32]) {
        self.sums.resize(row.len(), 0.0);
        row.iter().zip(&mut self.sums).for_each(|(x, sum)| *sum += f64::from(*x));
        self.n += 1.0;
    }

    /// The mean of the rows so far; nothing of none.
    pub fn mean(&self) -> Vec<f32> {
        self.sums.iter().map(|sum| (sum / self.n) as f32).collect()
    }
}

/// One list minus another, item by item.
pub fn less(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// The sample standard deviation (over n - 1); none of fewer than two.
pub fn sd(x: &[f64]) -> Option<f64> {
    let m = mean(x).filter(|_| x.len() > 1)?;
    Some((x.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / (x.len() - 1) as f64).sqrt())
}

/// One item's metrics under an edit that takes something from another run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Swap {
    /// The metric of the run that is edited, without the edit.
    pub base: f64,
    /// The metric of the run that the edit takes from, if it takes from one.
    pub other: Option<f64>,
    /// The metric with the edit.
    pub patched: f64,
    /// How far the edit moves the answer's half of the metric; none where the metric has none.
    pub answer: Option<f64>,
}

impl Swap {
    /// How far the edit moves the metric.
    pub fn effect(self) -> f64 {
        self.patched - self.base
    }

    /// How far it moves the foil's half: the answer's less this is the effect.
    pub fn foil(self) -> Option<f64> {
        Some(self.answer? - self.effect())
    }

    /// What its effect is a share of: the way to the other run's metric, or, without one, the base.
    pub fn whole(self) -> f64 {
        self.other.map_or(self.base, |other| other - self.base)
    }

    /// The effect as a share of the gap between the two runs; none where there is no gap.
    pub fn normalized(self) -> Option<f64> {
        let gap = self.other? - self.base;
        (gap != 0.0).then(|| self.effect() / gap)
    }

    /// Whether the metric changes its sign, towards the other run where there is one.
    pub fn flips(self) -> bool {
        let towards = self.other.is_none_or(|other| self.effect() * (other - self.base) > 0.0);
        self.base * self.patched < 0.0 && towards
    }
}

/// Where in a prompt: `last`, `all`, or a number that counts from the end where it is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    Last,
    All,
    At(i64),
}

impl std::str::FromStr for Position {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "last" => Ok(Position::Last),
            "all" => Ok(Position::All),
            n => n.parse().map(Position::At).map_err(|_| format!("`{s}` is none of last, all and a whole number")),
        }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Position::Last => f.write_str("last"),
            Position::All => f.write_str("all"),
            Position::At(n) => write!(f, "{n}"),
        }
    }
}

impl serde::Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        crate::parameters::from_text(d)
    }
}

impl Position {
    /// Whether both are one and the same position of every prompt, as `last` and -1 are.
    pub fn is(self, other: Position) -> bool {
        let number = |position| match position {
            Position::Last => Some(-1),
            Position::At(n) => Some(n),
            Position::All => None,
        };
        number(self).is_some_and(|n| number(other) == Some(n))
    }

    /// The positions of a prompt of `length` tokens.
    ///
    /// # Errors
    /// If the prompt is shorter.
    pub fn of(self, length: usize) -> Result<Positions, String> {
        match self {
            Position::Last => Ok(Positions::Last),
            Position::All => Ok(Positions::All),
            Position::At(n) => {
                let at = if n < 0 { n + length as i64 } else { n };
                let found = usize::try_from(at).ok().filter(|p| *p < length);
                let found = found.map(|p| Positions::At(vec![p]));
                found.ok_or_else(|| format!("has {length} tokens; it has no position {n}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_deviations_follow_their_formulas() {
        assert_eq!((mean(&[]), mean(&[1.0, 2.0])), (None, Some(1.5)));
        assert_eq!((sd(&[1.0]), sd(&[1.0, 3.0])), (None, Some(2f64.sqrt())));
        assert_eq!(mean(&[0.1; 10]), Some(0.1), "the mean of equal items is that item, to the bit");
    }

    #[test]
    fn a_swap_is_normalised_by_its_own_gap_and_flips_only_towards_the_other_run() {
        let swap = |base, other, patched| Swap { base, other: Some(other), patched, answer: None };
        assert_eq!(swap(2.0, -2.0, 1.0).normalized(), Some(0.25));
        assert_eq!(swap(2.0, 2.0, 1.0).normalized(), None);
        assert!(swap(2.0, -2.0, -0.1).flips());
        assert!(!swap(2.0, 3.0, -0.1).flips());
        assert!(!swap(2.0, -2.0, 0.5).flips());
        let alone = Swap { base: 2.0, other: None, patched: -0.5, answer: Some(-0.5) };
        assert!(alone.flips() && alone.normalized().is_none());
        assert_eq!((alone.foil(), swap(2.0, 3.0, 1.0).foil()), (Some(2.0), None));
    }

    #[test]
    fn negative_positions_count_from_the_end() {
        assert_eq!(Position::At(-2).of(5), Ok(Positions::At(vec![3])));
        assert!(Position::At(5).of(5).is_err() && Position::At(-6).of(5).is_err());
        assert!("first".parse::<Position>().is_err());
        assert!(Position::Last.is(Position::At(-1)) && !Position::Last.is(Position::At(3)));
        assert!(!Position::All.is(Position::All), "many positions are not one");
    }
}
