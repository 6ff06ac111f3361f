//! Doses: grids of coefficients, and where classes of answers take over along them.

use crate::answers::Class;
use crate::stats::{Threshold, logistic_threshold};

/// Coefficients, ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid(pub Vec<f64>);

impl serde::Serialize for Grid {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

/// `a:b:n` or `x,y,z`.
///
/// # Errors
/// What is wrong with the text, and how a grid is written.
pub fn grid(text: &str) -> Result<Grid, String> {
    let number = |word: &str| match word.trim().parse::<f64>() {
        Ok(x) if x.abs() <= 1e9 => Ok(x),
        _ => Err(format!("`{word}` is no number up to a thousand million; write -2:2:9 or -1,0,1")),
    };
    let mut found = match text.split(':').collect::<Vec<_>>()[..] {
        [list] => list.split(',').map(number).collect::<Result<Vec<f64>, _>>()?,
        [a, b, n] => {
            let (a, b) = (number(a)?, number(b)?);
            let n: usize = n.trim().parse().ok().filter(|n| (2..=1000).contains(n)).ok_or("n must be 2 to 1000")?;
            // Rounded, so that a grid through 0 has exactly 0 in it.
            (0..n).map(|i| ((a + (b - a) * i as f64 / (n - 1) as f64) * 1e9).round() / 1e9).collect()
        }
        _ => return Err("write from:to:how-many, or a list with commas".to_string()),
    };
    found.sort_by(f64::total_cmp);
    found.dedup();
    Ok(Grid(found))
}

/// Where the share of each class crosses one half along coefficients `x`, for the classes of which it does. At each
/// coefficient: how many answers there are, and their shares of [`Class::ALL`].
pub fn class_thresholds(x: &[f64], answers: &[i64], shares: &[&[Option<f64>]]) -> Vec<(Class, Threshold)> {
    let n: Vec<f64> = answers.iter().map(|n| *n as f64).collect();
    let of = |(c, class): (usize, &Class)| {
        let count = |(shares, n): (&&[Option<f64>], &f64)| (shares[c].unwrap_or(0.0) * n).round();
        let successes: Vec<f64> = shares.iter().zip(&n).map(count).collect();
        Some((*class, logistic_threshold(x, &successes, &n)?))
    };
    Class::ALL.iter().enumerate().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_read_as_ranges_and_as_lists() {
        assert_eq!(grid("-1:1:5"), Ok(Grid(vec![-1.0, -0.5, 0.0, 0.5, 1.0])));
        assert_eq!(grid("3,-1,0,0"), Ok(Grid(vec![-1.0, 0.0, 3.0])));
        assert_eq!(grid("-0.3:0.3:7").map(|g| g.0[3]), Ok(0.0));
        for wrong in ["", "a", "1:2", "1:2:1", "0:inf:3", "1:2:3:4"] {
            assert!(grid(wrong).is_err(), "{wrong}");
        }
    }
}
