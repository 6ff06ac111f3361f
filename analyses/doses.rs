//! Doses: grids of coefficients, and where classes of answers take over along them.
//!
//! What a dose is of, and what answers there are, is left to the analyses.

use crate::answers::Class;
use crate::stats::{Bootstrap, Threshold, bca, logistic_threshold};

/// Coefficients, ascending: as text `from:to:how-many`, or a list with commas.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Written")]
pub struct Grid(Vec<f64>);

/// A grid as a file or a program writes it.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "expected coefficients, or a text as -2:2:9")]
enum Written {
    List(Vec<f64>),
    Text(String),
}

impl TryFrom<Written> for Grid {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::List(coefficients) => Grid::of(coefficients),
            Written::Text(text) => text.parse(),
        }
    }
}

impl Grid {
    /// `n` coefficients, two at least, at even distances from `from` to `to`.
    pub(super) fn even(from: f64, to: f64, n: usize) -> Self {
        let steps = n.max(2) - 1;
        // Rounded, so that a grid through 0 has exactly 0 in it.
        let at = |i: usize| ((from + (to - from) * i as f64 / steps as f64) * 1e9).round() / 1e9;
        Grid::sorted((0..=steps).map(at).collect())
    }

    /// These coefficients.
    ///
    /// # Errors
    /// If there are none, or one is no number up to a thousand million.
    pub fn of(coefficients: Vec<f64>) -> Result<Self, String> {
        match coefficients.iter().find(|x| !(-1e9..=1e9).contains(*x)) {
            Some(wrong) => Err(format!("`{wrong}` is no number up to a thousand million")),
            None if coefficients.is_empty() => Err("there are no coefficients; write -2:2:9 or -1,0,1".to_string()),
            None => Ok(Grid::sorted(coefficients)),
        }
    }

    fn sorted(mut coefficients: Vec<f64>) -> Self {
        coefficients.sort_by(f64::total_cmp);
        coefficients.dedup();
        Grid(coefficients)
    }

    /// The coefficients, ascending.
    pub fn values(&self) -> &[f64] {
        &self.0
    }
}

impl std::fmt::Display for Grid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0[..] {
            [from, _, .., to] if *self == Grid::even(from, to, self.0.len()) => {
                write!(f, "{from}:{to}:{}", self.0.len())
            }
            _ => f.write_str(&self.0.iter().map(f64::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

impl std::str::FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |word: &str| match word.trim().parse::<f64>() {
            Ok(x) if x.abs() <= 1e9 => Ok(x),
            _ => Err(format!("`{word}` is no number up to a thousand million; write -2:2:9 or -1,0,1")),
        };
        match text.split(':').collect::<Vec<_>>()[..] {
            [list] => Grid::of(list.split(',').map(number).collect::<Result<_, _>>()?),
            [a, b, n] => {
                let (from, to) = (number(a)?, number(b)?);
                let n = n.trim().parse().ok().filter(|n| (2..=1000).contains(n)).ok_or("n must be 2 to 1000")?;
                Ok(Grid::even(from, to, n))
            }
            _ => Err("write from:to:how-many, or a list with commas".to_string()),
        }
    }
}

/// Where the share of each of some classes crosses one half along coefficients `x`, for the classes of which it does. `prompts` are the
/// classes of each prompt's answers, one a coefficient, none where it gave none.
///
/// The same prompts answer at every coefficient, so that answers are not independent: intervals are BCa over prompts, each
/// with all its answers. None where the prompts of a resample do not cross.
pub fn class_thresholds(
    x: &[f64],
    prompts: &[Vec<Option<Class>>],
    classes: &[Class],
    options: &Bootstrap,
) -> Vec<(Class, Threshold)> {
    let prompts: Vec<&[Option<Class>]> = prompts.iter().map(Vec::as_slice).collect();
    let of = |class: &Class| {
        let threshold = |prompts: &[&[Option<Class>]]| {
            let (mut successes, mut n) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            for (dose, answer) in prompts.iter().flat_map(|answers| answers.iter().enumerate()) {
                n[dose] += f64::from(u8::from(answer.is_some()));
                successes[dose] += f64::from(u8::from(*answer == Some(*class)));
            }
            logistic_threshold(x, &successes, &n)
        };
        let found = threshold(&prompts)?;
        let interval = bca(&prompts, |some| threshold(some).map_or(f64::NAN, |t| t.at), options);
        Some((*class, Threshold { interval, ..found }))
    };
    classes.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prompts that each turn from an answer to a refusal at a coefficient of their own, asked at `n` coefficients of -1 to 1.
    fn turning(n: usize, at: impl Fn(usize) -> f64, prompts: usize) -> (Vec<f64>, Vec<Vec<Option<Class>>>) {
        let x: Vec<f64> = (0..n).map(|i| 2.0 * i as f64 / (n - 1) as f64 - 1.0).collect();
        let class = |at: f64, x: &f64| Some(if *x > at { Class::Refusal } else { Class::Answer });
        let classes = (0..prompts).map(|p| x.iter().map(|x| class(at(p), x)).collect()).collect();
        (x, classes)
    }

    #[test]
    fn more_coefficients_of_the_same_prompts_make_no_threshold_surer() {
        let width = |n| {
            let (x, prompts) = turning(n, |p| (p as f64 - 19.5) / 40.0, 40);
            let found = class_thresholds(&x, &prompts, &Class::ALL, &Bootstrap::default());
            let (class, refusal) = found[0];
            assert!(class == Class::Refusal && refusal.rises && refusal.at.abs() < 0.02, "{found:?}");
            let interval = refusal.interval.unwrap();
            interval.high - interval.low
        };
        let (few, many) = (width(11), width(81));
        // The standard error of the mean of 40 thresholds with a standard deviation of 0.289 is 0.046.
        assert!((0.8..1.25).contains(&(many / few)) && (0.14..0.25).contains(&many), "{few} and {many}");
    }

    #[test]
    fn a_prompt_counts_only_where_it_answered_and_a_threshold_that_a_resample_lacks_has_no_interval() {
        let (x, mut prompts) = turning(9, |_| 0.1, 6);
        prompts.iter_mut().skip(3).for_each(|answers| answers[0] = None);
        let found = class_thresholds(&x, &prompts, &Class::ALL, &Bootstrap::default());
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [Class::Refusal, Class::Answer]);
        assert!(found.iter().all(|f| f.1.interval.is_some()), "{found:?}");
        let (x, prompts) = turning(9, |p| if p < 4 { 0.1 } else { 2.0 }, 6);
        let found = class_thresholds(&x, &prompts, &Class::ALL, &Bootstrap::default());
        assert!(found.len() == 2 && found.iter().all(|f| f.1.interval.is_none()), "{found:?}");
    }

    #[test]
    fn grids_are_read_as_ranges_and_as_lists() {
        assert_eq!("-1:1:5".parse(), Ok(Grid(vec![-1.0, -0.5, 0.0, 0.5, 1.0])));
        assert_eq!("3,-1,0,0".parse(), Ok(Grid(vec![-1.0, 0.0, 3.0])));
        assert_eq!("-0.3:0.3:7".parse().map(|g: Grid| g.0[3]), Ok(0.0));
        for text in ["-2:2:9", "-1.5:1.5:13", "1,2", "-1,0,3"] {
            assert_eq!(text.parse::<Grid>().unwrap().to_string(), text);
        }
        for wrong in ["", "a", "1:2", "1:2:1", "0:inf:3", "1:2:3:4"] {
            assert!(wrong.parse::<Grid>().is_err(), "{wrong}");
        }
    }
}
