//! What so few items cannot show.
//!
//! A sign-flip test of n items has 2^(n - 1) patterns that differ in size, so that no p-value is under one over that, and the correction
//! over a family of tests makes a lone one larger yet. Where even the least q is not under 0.05, "not significant" says nothing of the
//! model, and a report that finds nothing says so in the words of this file.

use super::effects::SIGNIFICANT;
use crate::report::cells::{number, plural};
use crate::stats::draws_for;

/// A family of sign-flip tests over the same items.
#[derive(Clone, Copy, Debug)]
pub struct Power<'a> {
    pub items: i64,
    /// What an item is: `pair`, `prompt`.
    pub item: &'a str,
    pub tests: usize,
}

impl Power<'_> {
    /// One over the least p-value that a test can have.
    fn patterns(&self) -> usize {
        // Up to 16 items all patterns of signs are counted, of which a pattern and its opposite are as far out as each other.
        match self.items {
            ..=16 => 1 << (self.items - 1).max(0),
            _ => draws_for(self.tests) + 1,
        }
    }

    /// The least q-value that a test can have which is alone in being significant; 1 without items.
    pub fn least_q(&self) -> f64 {
        if self.items < 1 { 1.0 } else { (self.tests.max(1) as f64 / self.patterns() as f64).min(1.0) }
    }

    /// Whether no test can be significant by itself.
    pub fn is_too_small(&self) -> bool {
        self.least_q() >= SIGNIFICANT
    }

    /// What is said of a family in which nothing is significant, as a sentence after a space; nothing where one could have been.
    pub fn sentence(&self) -> String {
        if !self.is_too_small() || self.items < 1 || self.tests == 0 {
            return String::new();
        }
        let items = plural(self.items, self.item);
        match (self.items, self.tests) {
            (1, _) => format!(" **One {} is too few to tell anything from chance.**", self.item),
            (_, 1) => format!(
                " **{items} are too few to tell**: no p-value can be under 1/{}, which is {}.",
                self.patterns(),
                number(self.least_q(), 3)
            ),
            _ => format!(
                " **{items} are too few to tell**: no p-value can be under 1/{}, so that after the correction over {} the \
                 least q that one alone can have is {}.",
                self.patterns(),
                plural(self.tests as i64, "test"),
                number(self.least_q(), 3)
            ),
        }
    }
}

/// The same of a p-value that counts how many of so many random directions do as much; nothing where they are enough.
pub fn of_directions(directions: i64) -> String {
    let least = 1.0 / (directions + 1) as f64;
    if directions < 1 || least < SIGNIFICANT {
        return String::new();
    }
    format!(
        " **{} {} too few to tell**: no p over random can be under {}.",
        plural(directions, "random direction"),
        if directions == 1 { "is" } else { "are" },
        number(least, 3)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power(items: i64, tests: usize) -> Power<'static> {
        Power { items, item: "pair", tests }
    }

    #[test]
    fn the_least_q_is_the_least_p_times_the_tests() {
        // All patterns up to 16 items; then as many as are drawn, and the one that was seen.
        assert_eq!(
            (power(16, 1).patterns(), power(17, 1).patterns(), power(17, 1000).patterns()),
            (32768, 10_001, 200_001)
        );
        assert_eq!(power(12, 270).least_q(), 270.0 / 2048.0);
        assert_eq!((power(3, 270).least_q(), power(0, 1).least_q(), power(1, 1).least_q()), (1.0, 1.0, 1.0));
        assert!(power(12, 270).is_too_small() && !power(14, 270).is_too_small() && !power(120, 1000).is_too_small());
    }

    #[test]
    fn the_least_q_is_the_one_that_the_statistics_give() {
        for (items, tests) in [(5_usize, 1_usize), (6, 1), (8, 6), (9, 20)] {
            let mut rows = vec![vec![1.0; items]];
            // The others have no effect: as far one way as the other.
            rows.extend((1..tests).map(|t| (0..items).map(|i| if (i + t) % 2 == 0 { 1.0 } else { -1.0 }).collect()));
            rows.iter_mut().skip(1).for_each(|row| row[0] = 0.0);
            let found = crate::analyses::effects::family(&rows, 0).unwrap();
            assert!(
                (found[0].q.unwrap() - power(items as i64, tests).least_q()).abs() < 1e-12,
                "{items} {tests} {:?}",
                found[0]
            );
        }
    }

    #[test]
    fn it_is_said_only_where_nothing_could_be_significant() {
        assert_eq!((power(120, 270).sentence(), power(6, 1).sentence()), (String::new(), String::new()));
        let said = power(12, 270).sentence();
        assert!(
            said.contains("12 pairs are too few to tell") && said.contains("1/2048") && said.contains("270 tests"),
            "{said}"
        );
        assert!(said.ends_with("the least q that one alone can have is 0.132."), "{said}");
        assert!(power(5, 1).sentence().ends_with("no p-value can be under 1/16, which is 0.062."));
        assert!(power(1, 9).sentence().contains("One pair is too few"));
        assert_eq!(of_directions(20), "");
        assert!(of_directions(19).contains("19 random directions are too few") && of_directions(19).contains("0.050"));
        assert!(of_directions(1).contains("1 random direction is too few"));
    }
}
