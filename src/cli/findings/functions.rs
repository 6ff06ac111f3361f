//! Whether a function vector does its task, and which heads carry it.

use super::{Found, listed, read, too_few, unless_significant};
use crate::analyses::functions::{HeadRow, SummaryRow};
use crate::report::cells::{exact, head, p_value, points, points_interval, share, share_interval};
use crate::table::Table;

/// Kinds of prompts and heads that are listed.
const FORMS: usize = 2;
const HEADS: usize = 3;

pub(super) fn functions(tables: &[Table]) -> Option<Vec<String>> {
    let (heads, summary) = (read::<HeadRow>(tables)?, read::<SummaryRow>(tables)?);
    let mut lines: Vec<String> = summary.iter().take(FORMS).flat_map(form).collect();
    let found = |row: &HeadRow| {
        let (size, interval) = (row.effect_mean?, row.interval);
        Some(Found { label: head(row.layer, row.head), size, interval, p_max: row.p_max, q: row.q_value })
    };
    let heading = "what heads add to the right output's probability";
    lines.extend(listed(heading, "", heads.iter().filter_map(found).collect()).into_iter().take(HEADS + 1));
    lines.extend(too_few(heads.iter().map(|row| (row.n, row.q_value)), heads.len()));
    Some(lines)
}

/// What the vector does in one kind of prompts, at the layer that other words chose.
fn form(row: &SummaryRow) -> [String; 2] {
    let added = format!("added after layer {}, coefficient {}", row.layer, exact(row.coefficient));
    [
        format!("in `{}`, {added}, the vector {}:", row.form, row.verdict()),
        format!(
            "  {} {} are right; {} without it, {} {}; {} with random heads, {} {}, p {}{}",
            share(row.accuracy),
            share_interval(row.interval),
            share(row.without),
            points(row.gain),
            points_interval(row.gain_interval),
            share(row.random),
            points(row.over_random),
            points_interval(row.over_random_interval),
            p_value(row.p_value),
            unless_significant(row.p_value),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;
    use crate::table::rows::Row as _;

    /// A vector that is right on so much more than nothing, with an interval of a quarter on each side, and a head's effect.
    fn said(gain: f64, p: f64, q: f64) -> Vec<String> {
        let interval = Some((gain - 0.25, gain + 0.25));
        let summary = SummaryRow {
            form: "{input}:".into(),
            layer: 4,
            coefficient: 1.0,
            n: 20,
            accuracy: Some(0.125 + gain),
            interval: Some((gain, 0.25 + gain)),
            without: Some(0.125),
            random: Some(0.125),
            gain: Some(gain),
            gain_interval: interval,
            over_random: Some(gain),
            over_random_interval: interval,
            p_value: Some(p),
            ..SummaryRow::default()
        };
        let head = |head, effect| HeadRow {
            layer: 3,
            head,
            n: 20,
            effect_mean: Some(effect),
            interval: Some((0.0, 0.5)),
            q_value: Some(q),
            ..HeadRow::default()
        };
        let heads = [head(1, 0.25), head(2, 0.5), head(3, 0.125), head(4, 0.0625)];
        findings(&[HeadRow::table(heads).unwrap(), SummaryRow::table([summary]).unwrap()])
    }

    #[test]
    fn a_vector_that_does_its_task_is_told_beside_none_and_random_heads() {
        assert_eq!(
            said(0.5, 0.01, 0.01),
            [
                "in `{input}:`, added after layer 4, coefficient 1.00, the vector does more than nothing and more than random heads:",
                "  62.5 % [50.0, 75.0] % are right; 12.5 % without it, +50.0 points [25.0, 75.0] points; 12.5 % with random heads, +50.0 \
                 points [25.0, 75.0] points, p 0.010",
                "what heads add to the right output's probability:",
                "  L3.H2      +0.500 [0.000, 0.500], q 0.010",
                "  L3.H1      +0.250 [0.000, 0.500], q 0.010",
                "  L3.H3      +0.125 [0.000, 0.500], q 0.010",
            ]
        );
    }

    #[test]
    fn a_vector_whose_intervals_include_0_does_nothing_beyond_chance() {
        let lines = said(0.125, 0.3, 0.3);
        assert!(lines[0].ends_with("the vector does nothing beyond chance:"), "{lines:?}");
        assert!(lines[1].ends_with("p 0.300, not significant"), "{lines:?}");
        assert!(lines[3].ends_with("q 0.300, not significant"), "{lines:?}");
    }
}
