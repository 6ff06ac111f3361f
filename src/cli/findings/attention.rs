//! Which heads look where.

use super::{is_above, read};
use crate::analyses::attention::{HeadRow, Score};
use crate::analyses::effects::interval;
use crate::report::cells::{head, number};
use crate::table::Table;

/// A score of a row.
type Of = fn(&HeadRow) -> Score;

/// What is looked at, in words, and the score of it. The entropy is left out: it says how many are looked at, not which.
const LOOKS: [(&str, Of); 5] = [
    ("previous token", |row| row.previous),
    ("first token", |row| row.first),
    ("itself", |row| row.own),
    ("same token", |row| row.duplicate),
    ("after same token", |row| row.induction),
];

/// Heads that are listed of each score.
const LISTED: usize = 2;

/// The heads that stand out by each score. Of many heads some one is always the first: it stands out where its whole interval lies
/// above that of the head in the middle.
pub(super) fn heads(tables: &[Table]) -> Option<Vec<String>> {
    let rows = read::<HeadRow>(tables)?;
    let (mut lines, mut none) = (vec!["heads by where they look, mean weights:".to_string()], Vec::new());
    for (looks, score) in LOOKS {
        let mut by_score: Vec<&HeadRow> = rows.iter().filter(|row| score(row).value.is_some()).collect();
        by_score.sort_by(|a, b| score(b).value.unwrap_or(0.0).total_cmp(&score(a).value.unwrap_or(0.0)));
        let Some(middle) = by_score.get(by_score.len() / 2).map(|row| score(row)) else { continue };
        by_score.truncate(LISTED);
        by_score.retain(|row| is_above(score(row).interval, middle.interval));
        let said: Vec<String> =
            by_score.iter().map(|row| format!("{} {}", head(row.layer, row.head), sized(score(row)))).collect();
        match said.is_empty() {
            true => none.push(looks),
            false => lines.push(format!("  {looks:<16} {}; the middle head {}", said.join(", "), sized(middle))),
        }
    }
    if !none.is_empty() {
        lines.push(format!("  no head's interval lies above the middle head's: {}", none.join(", ")));
    }
    Some(lines)
}

fn sized(score: Score) -> String {
    format!("{} {}", number(score.value, 3), interval(score.interval))
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;
    use crate::table::rows::Row as _;

    /// What is said of heads whose weights on the token before are these, with intervals of so much on each side.
    fn said(previous: [f64; 4], half: Option<f64>) -> Vec<String> {
        let score = |value: f64| Score { value: Some(value), interval: half.map(|half| (value - half, value + half)) };
        let row = |(i, value): (usize, f64)| HeadRow {
            model: "m",
            layer: 1,
            head: i as i64,
            n: 9,
            previous: score(value),
            first: score(0.5),
            ..HeadRow::default()
        };
        findings(&[HeadRow::table(previous.into_iter().enumerate().map(row)).unwrap()])
    }

    #[test]
    fn heads_are_named_where_their_interval_lies_above_the_middle_heads() {
        assert_eq!(
            said([0.125, 0.875, 0.25, 0.25], Some(0.0625)),
            [
                "heads by where they look, mean weights:",
                "  previous token   L1.H1 0.875 [0.812, 0.938]; the middle head 0.250 [0.188, 0.312]",
                "  no head's interval lies above the middle head's: first token",
            ]
        );
    }

    #[test]
    fn no_head_is_named_where_intervals_overlap_or_are_missing() {
        for half in [Some(0.5), None] {
            assert_eq!(
                said([0.125, 0.875, 0.25, 0.25], half)[1..],
                ["  no head's interval lies above the middle head's: previous token, first token"]
            );
        }
    }
}
