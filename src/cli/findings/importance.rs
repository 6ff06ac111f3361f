//! Which ranking of tokens is better.

use super::{is_above, read, too_few, unless_significant};
use crate::analyses::effects::{SIGNIFICANT, interval};
use crate::analyses::importance::SummaryRow;
use crate::report::cells::{p_value, signed};
use crate::table::Table;

/// All rankings, the best first, and whether it is better than random ones and than the next.
pub(super) fn rankings(tables: &[Table]) -> Option<Vec<String>> {
    let mut rows = read::<SummaryRow>(tables)?;
    // Random rankings are what the others are tested against.
    rows.retain(|row| row.over_random.is_some());
    rows.sort_by(|a, b| b.score.unwrap_or(0.0).total_cmp(&a.score.unwrap_or(0.0)));
    let mut lines = vec!["rankings, by insertion less deletion, nats:".to_string()];
    lines.extend(rows.iter().map(line));
    lines.extend(best(&rows));
    lines.extend(too_few(rows.iter().map(|row| (row.n, row.q_value)), rows.len()));
    Some(lines)
}

fn line(row: &SummaryRow) -> String {
    let sized = |mean, ends| format!("{} {}", signed(mean, 3), interval(ends));
    format!(
        "  {:<10} {} (insertion {}, deletion {}); over random {}, q {}{}",
        row.ranking,
        sized(row.score, row.score_interval),
        sized(row.insertion, row.insertion_interval),
        sized(row.deletion, row.deletion_interval),
        sized(row.over_random, row.over_random_interval),
        p_value(row.q_value),
        unless_significant(row.q_value),
    )
}

/// Which is the best, as far as tests and intervals say so.
fn best(rows: &[SummaryRow]) -> Option<String> {
    let better =
        |row: &SummaryRow| row.q_value.is_some_and(|q| q < SIGNIFICANT) && row.over_random.is_some_and(|x| x > 0.0);
    let [first, rest @ ..] = rows else { return None };
    if !rows.iter().any(better) {
        return Some("  none is better than random rankings beyond chance".to_string());
    }
    let next = rest.first()?;
    Some(match better(first) && is_above(first.score_interval, next.score_interval) {
        true => format!("  {} is best: its interval lies above that of {}", first.ranking, next.ranking),
        false => format!("  {} and {} are not told apart: their intervals overlap", first.ranking, next.ranking),
    })
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;
    use crate::table::rows::Row as _;

    /// Two rankings with these scores and intervals of a quarter on each side, and random ones.
    fn said(scores: [f64; 2], q: f64) -> Vec<String> {
        let ends = |x: f64| Some((x - 0.25, x + 0.25));
        let row = |ranking, score: f64| SummaryRow {
            ranking,
            n: 40,
            deletion: Some(0.0),
            deletion_interval: ends(0.0),
            insertion: Some(score),
            insertion_interval: ends(score),
            score: Some(score),
            score_interval: ends(score),
            over_random: Some(score),
            over_random_interval: ends(score),
            q_value: Some(q),
            ..SummaryRow::default()
        };
        let random = SummaryRow { ranking: "random", score: Some(0.0), n: 40, ..SummaryRow::default() };
        findings(&[SummaryRow::table([row("vatp", scores[0]), row("rise", scores[1]), random]).unwrap()])
    }

    #[test]
    fn the_best_ranking_is_named_where_its_interval_lies_above_the_next() {
        assert_eq!(
            said([1.0, 2.0], 0.01),
            [
                "rankings, by insertion less deletion, nats:",
                "  rise       +2.000 [1.750, 2.250] (insertion +2.000 [1.750, 2.250], deletion 0.000 [−0.250, 0.250]); over random +2.000 \
                 [1.750, 2.250], q 0.010",
                "  vatp       +1.000 [0.750, 1.250] (insertion +1.000 [0.750, 1.250], deletion 0.000 [−0.250, 0.250]); over random +1.000 \
                 [0.750, 1.250], q 0.010",
                "  rise is best: its interval lies above that of vatp",
            ]
        );
    }

    #[test]
    fn no_ranking_is_best_where_intervals_overlap_or_none_is_better_than_random_ones() {
        assert_eq!(said([1.75, 2.0], 0.01)[3], "  rise and vatp are not told apart: their intervals overlap");
        let lines = said([1.0, 2.0], 0.06);
        assert!(lines[1].ends_with("q 0.060, not significant"), "{lines:?}");
        assert_eq!(lines[3], "  none is better than random rankings beyond chance");
        assert_eq!(said([-1.0, -2.0], 0.01)[3], "  none is better than random rankings beyond chance");
    }
}
