//! Sums: is the vector of a model that was trained on two things that of one plus that of the other?

use super::children::find_one;
use super::vectors::{Delta, less, plus};
use crate::analyses::prelude::*;
use crate::ops::vectors::{cosine, norm};

/// `A + B = C`, by the numbers of the children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    pub parts: [usize; 2],
    pub whole: usize,
}

/// Reads a sum.
///
/// # Errors
/// If it is none, or names what is no child.
pub fn read(text: &str, names: &[String]) -> Result<Sum, AnalysisError> {
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", param("sums").is(text)));
    let sides = text.split_once(" = ").and_then(|(parts, whole)| Some((parts.split_once(" + ")?, whole)));
    let ((a, b), whole) =
        sides.ok_or_else(|| bad("write it as \"A + B = C\", with spaces around + and =".to_string()))?;
    let child = |name: &str| find_one(name.trim(), names).map_err(bad);
    Ok(Sum { parts: [child(a)?, child(b)?], whole: child(whole)? })
}

/// How near the sum comes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Added {
    /// The cosine of the whole with the sum of the parts, and with each part alone.
    pub cosine: Option<f64>,
    pub cosines: [Option<f64>; 2],
    /// The length of the whole less the sum, as a share of the whole's.
    pub error: Option<f64>,
    /// At each prompt, the cosine with the sum less the larger of the cosines with one part; prompts at which one is 0 are left out.
    pub gains: Vec<f64>,
}

impl Sum {
    /// Adds.
    pub fn of(self, deltas: &[Delta]) -> Added {
        let [a, b, whole] = [self.parts[0], self.parts[1], self.whole].map(|i| &deltas[i]);
        let sum = plus(&a.mean, &b.mean);
        let length = norm(&whole.mean);
        let gain = |i: usize| {
            let [a, b, whole] = [a, b, whole].map(|delta| &delta.prompts[i]);
            let alone = cosine(whole, a)?.max(cosine(whole, b)?);
            Some(cosine(whole, &plus(a, b))? - alone)
        };
        Added {
            cosine: cosine(&whole.mean, &sum),
            cosines: [a, b].map(|part| cosine(&whole.mean, &part.mean)),
            error: (length > 0.0).then(|| norm(&less(&whole.mean, &sum)) / length),
            gains: (0..whole.prompts.len()).filter_map(gain).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(rows: &[[f32; 2]]) -> Delta {
        let rows: Vec<Vec<f32>> = rows.iter().map(|row| row.to_vec()).collect();
        Delta::of(&rows, &vec![vec![0.0; 2]; rows.len()])
    }

    #[test]
    fn a_sum_is_nearer_to_the_whole_than_its_parts_are() {
        let (a, b, c) = (delta(&[[1.0, 0.0]; 2]), delta(&[[0.0, 1.0]; 2]), delta(&[[1.0, 1.0]; 2]));
        let zero = delta(&[[0.0, 0.0]; 2]);
        let deltas = [a, b, c, zero];
        let found = Sum { parts: [0, 1], whole: 2 }.of(&deltas);
        let half = 0.5f64.sqrt();
        let close = |found: Option<f64>, expected: f64| found.is_some_and(|x| (x - expected).abs() < 1e-12);
        assert!(close(found.cosine, 1.0) && found.cosines.iter().all(|x| close(*x, half)), "{found:?}");
        assert_eq!(found.error, Some(0.0));
        assert!(found.gains.len() == 2 && found.gains.iter().all(|x| (x - (1.0 - half)).abs() < 1e-12), "{found:?}");
        let nothing = Sum { parts: [0, 1], whole: 3 }.of(&deltas);
        assert_eq!(nothing, Added::default());
    }

    #[test]
    fn sums_are_read_by_the_childrens_names() {
        let names = ["m/a-1", "m/b", "m/both"].map(str::to_string);
        assert_eq!(read("a-1 + m/b = both", &names).unwrap(), Sum { parts: [0, 1], whole: 2 });
        for (text, why) in [("a-1+b=both", "\"A + B = C\""), ("a-1 + c = both", "`c` is none of the children")] {
            let found = read(text, &names).unwrap_err().to_string();
            assert!(found.contains(why) && found.contains(text), "{found}");
        }
    }
}
