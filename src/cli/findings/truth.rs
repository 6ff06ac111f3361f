//! How often neurons, the likelihood and a probe know which statement is true.

use super::{LISTED, read};
use crate::analyses::truth::{AccuracyRow, named};
use crate::report::cells::{plural, share, share_interval};
use crate::table::Table;
use crate::table::rows::Row as _;
use std::cmp::Ordering;

pub(super) fn accuracies(tables: &[Table]) -> Option<Vec<String>> {
    let rows = read::<AccuracyRow>(tables)?;
    let splits: Vec<&[AccuracyRow]> = rows.chunk_by(|a, b| a.held_out == b.held_out).collect();
    let heading = "items whose true statement is told:".to_string();
    let line = |of: &&[AccuracyRow]| {
        let methods: Vec<String> = of.iter().map(method).collect();
        let (place, items, chance) = (named(&of[0].held_out), plural(of[0].n, "item"), share(of[0].chance));
        format!("  {place}, {items}, by guessing {chance}: {}", methods.join(", "))
    };
    let mut lines: Vec<String> = std::iter::once(heading).chain(splits.iter().take(LISTED).map(line)).collect();
    if splits.len() > LISTED {
        lines.push(format!("  {} more in {}.parquet", splits.len() - LISTED, AccuracyRow::TABLE));
    }
    Some(lines)
}

/// What a method comes to, and whether that is no more than guessing.
fn method(row: &AccuracyRow) -> String {
    let beside = match row.beyond_guessing() {
        Some(Ordering::Greater) => "",
        Some(_) => " (worse than guessing)",
        None => " (not significant)",
    };
    let name = row.method.replace('_', " ");
    format!("{name} {} {}{beside}", share(row.accuracy), share_interval(row.interval))
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;

    fn row(held_out: &'static str, method: &'static str, accuracy: f64) -> AccuracyRow<'static> {
        AccuracyRow {
            held_out: held_out.into(),
            method,
            n: 40,
            accuracy: Some(accuracy),
            interval: Some((accuracy - 0.125, accuracy + 0.125)),
            chance: Some(0.5),
            ..AccuracyRow::default()
        }
    }

    #[test]
    fn each_method_is_told_of_each_topic_and_marked_where_it_may_be_guessing() {
        let rows = [
            row("rivers", "neurons", 0.75),
            row("rivers", "likelihood_per_token", 0.5625),
            row("rivers", "probe", 0.25),
            row("none", "neurons", 0.5),
        ];
        assert_eq!(
            findings(&[AccuracyRow::table(rows).unwrap()]),
            [
                "items whose true statement is told:",
                "  rivers held out, 40 items, by guessing 50.0 %: neurons 75.0 % [62.5, 87.5] %, likelihood per token 56.2 % [43.8, \
                 68.8] % (not significant), probe 25.0 % [12.5, 37.5] % (worse than guessing)",
                "  all topics mixed, 40 items, by guessing 50.0 %: neurons 50.0 % [37.5, 62.5] % (not significant)",
            ]
        );
    }

    #[test]
    fn of_many_topics_the_first_are_told() {
        let rows = ["a", "b", "c", "d", "e", "f", "g"].map(|topic| row(topic, "neurons", 0.75));
        let lines = findings(&[AccuracyRow::table(rows).unwrap()]);
        assert_eq!((lines.len(), lines[6].as_str()), (7, "  2 more in accuracy.parquet"));
    }
}
