//! Where along the scales of a mixture the metric is largest, and where it crosses 0.

use super::{read, too_few, unless_significant};
use crate::analyses::checkpoints::scale::ScaleRow;
use crate::analyses::effects::interval;
use crate::report::cells::{exact, p_value, signed};
use crate::stats::beyond_zero;
use crate::table::Table;

pub(super) fn scales(tables: &[Table]) -> Option<Vec<String>> {
    let rows = read::<ScaleRow>(tables)?;
    let mut lines = vec![format!("the metric along scales of {}:", rows.first()?.mixture)];
    for side in rows.chunk_by(|a, b| a.side == b.side) {
        lines.extend(largest(side));
        lines.push(crossing(side));
        let tests = side.iter().filter(|row| row.q_value.is_some());
        lines.extend(too_few(tests.clone().map(|row| (row.n, row.q_value)), tests.count()));
    }
    Some(lines)
}

/// Where the metric is largest, and whether it differs there from that of the base.
fn largest(side: &[ScaleRow]) -> Option<String> {
    let metric = |row: &ScaleRow| row.metric_mean.unwrap_or(f64::NEG_INFINITY);
    let row = side.iter().max_by(|a, b| metric(a).total_cmp(&metric(b)))?;
    let change = match row.change_mean {
        None => "the base itself".to_string(),
        Some(change) => format!(
            "{} over the base {}, q {}{}",
            signed(change, 3),
            interval(row.change_interval),
            p_value(row.q_value),
            unless_significant(row.q_value)
        ),
    };
    let place = format!("{} prompts: largest at scale {}", row.side, exact(row.scale));
    Some(format!("  {place}, {} nats {} ({change})", signed(row.metric_mean, 3), interval(row.interval)))
}

/// Between which scales the metric crosses 0. Where its interval includes 0, its sign is not known.
fn crossing(side: &[ScaleRow]) -> String {
    let sign = |row: &ScaleRow| beyond_zero(row.interval, 0.0);
    let known: Vec<(&ScaleRow, bool)> = side.iter().filter_map(|row| Some((row, sign(row)?))).collect();
    let name = side.first().map_or("", |row| row.side);
    let pairs: Vec<String> = known
        .windows(2)
        .filter(|pair| pair[0].1 != pair[1].1)
        .map(|pair| format!("{} and {}", exact(pair[0].0.scale), exact(pair[1].0.scale)))
        .collect();
    match known.is_empty() {
        true => format!("  {name} prompts: no scale has an interval on one side of 0"),
        false if pairs.is_empty() => format!("  {name} prompts: no two scales have intervals on different sides of 0"),
        false => format!("  {name} prompts: 0 is crossed between scales {}", pairs.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;
    use crate::table::rows::Row as _;

    /// One kind of prompts: the metric is this at scales 0, 0.5 and 1, with an interval of so much on each side.
    fn said(metric: [f64; 3], half: f64, q: f64) -> Vec<String> {
        let base = metric[0];
        let row = |(i, mean): (usize, f64)| ScaleRow {
            mixture: "p + c".into(),
            scale: i as f64 / 2.0,
            side: "positive",
            n: 40,
            metric_mean: Some(mean),
            interval: Some((mean - half, mean + half)),
            change_mean: (i > 0).then_some(mean - base),
            change_interval: (i > 0).then_some((mean - base - half, mean - base + half)),
            q_value: (i > 0).then_some(q),
            ..ScaleRow::default()
        };
        findings(&[ScaleRow::table(metric.into_iter().enumerate().map(row)).unwrap()])
    }

    #[test]
    fn the_largest_metric_is_told_with_its_change_and_where_0_is_crossed() {
        assert_eq!(
            said([-1.0, 0.125, 2.0], 0.5, 0.01),
            [
                "the metric along scales of p + c:",
                "  positive prompts: largest at scale 1.00, +2.000 nats [1.500, 2.500] (+3.000 over the base [2.500, 3.500], q 0.010)",
                "  positive prompts: 0 is crossed between scales 0.00 and 1.00",
            ]
        );
    }

    #[test]
    fn no_crossing_is_told_where_intervals_include_0_and_no_change_where_q_does_not_say_so() {
        let lines = said([-1.0, 0.125, 2.0], 4.0, 0.2);
        assert!(lines[1].ends_with("q 0.200, not significant)"), "{lines:?}");
        assert_eq!(lines[2], "  positive prompts: no scale has an interval on one side of 0");
        let falls = said([2.0, 1.5, 1.0], 0.5, 0.01);
        assert!(falls[1].ends_with("(the base itself)"), "{falls:?}");
        assert_eq!(falls[2], "  positive prompts: no two scales have intervals on different sides of 0");
    }
}
