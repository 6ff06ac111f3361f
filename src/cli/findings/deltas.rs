//! Which fine-tuned models are alike.

use super::{is_above, read};
use crate::analyses::checkpoints::deltas::{ChildRow, CutRow, DistanceRow, LABELS, of_kinds};
use crate::analyses::checkpoints::paths::short_names;
use crate::analyses::effects::interval;
use crate::report::cells::number;
use crate::table::Table;

/// The nearest pair and the farthest, and what the test of the labels says.
pub(super) fn children(tables: &[Table]) -> Option<Vec<String>> {
    let (children, cuts) = (read::<ChildRow>(tables)?, read::<CutRow>(tables)?);
    let mut pairs = read::<DistanceRow>(tables)?;
    pairs.retain(|row| row.by_prompt.is_some());
    pairs.sort_by(|a, b| a.by_prompt.unwrap_or(0.0).total_cmp(&b.by_prompt.unwrap_or(0.0)));
    let names: Vec<&str> = children.iter().map(|row| row.model).collect();
    let short = short_names(&names);
    let name = |model: &str| {
        let at = names.iter().position(|name| *name == model);
        at.map_or(model.to_string(), |at| short[at].clone())
    };
    let pair = |row: &DistanceRow| {
        let ends = interval(row.by_prompt_interval);
        format!("{} and {}, cosine distance by prompt {} {ends}", name(row.a), name(row.b), number(row.by_prompt, 3))
    };
    let mut lines = Vec::new();
    match pairs.as_slice() {
        [] => lines.push("no two children have vectors with an angle".to_string()),
        [only] => lines.push(format!("two children: {}", pair(only))),
        [near, .., far] => {
            lines.push(format!("nearest:  {}", pair(near)));
            lines.push(format!("farthest: {}", pair(far)));
            if !is_above(far.by_prompt_interval, near.by_prompt_interval) {
                lines.push("  no interval lies above the other: these distances are not told apart".to_string());
            }
        }
    }
    lines.extend(cuts.iter().find(|row| row.grouping == LABELS).map(of_kinds));
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;
    use crate::table::rows::Row as _;

    /// Three children at these distances from each other, with intervals of so much on each side, and a test of their labels.
    fn said(half: f64, p: f64) -> Vec<String> {
        let child = |model| ChildRow { parent: "p", model, n: 9, ..ChildRow::default() };
        let distance = |a, b, by_prompt: f64| DistanceRow {
            a,
            b,
            n: 9,
            by_prompt: Some(by_prompt),
            by_prompt_interval: Some((by_prompt - half, by_prompt + half)),
            ..DistanceRow::default()
        };
        let labels =
            CutRow { grouping: LABELS, k: 2, n: 3, silhouette: Some(0.5), p_value: Some(p), least_p: Some(0.01) };
        let distances =
            [distance("out/a", "out/b", 0.75), distance("out/a", "out/c", 0.25), distance("out/b", "out/c", 0.5)];
        findings(&[
            ChildRow::table(["out/a", "out/b", "out/c"].map(child)).unwrap(),
            DistanceRow::table(distances).unwrap(),
            CutRow::table([labels]).unwrap(),
        ])
    }

    #[test]
    fn the_nearest_and_the_farthest_are_named_with_what_the_labels_come_to() {
        let lines = said(0.125, 0.02);
        assert_eq!(
            lines[..2],
            [
                "nearest:  a and c, cosine distance by prompt 0.250 [0.125, 0.375]",
                "farthest: a and b, cosine distance by prompt 0.750 [0.625, 0.875]",
            ]
        );
        assert!(
            lines[2].starts_with("Children of one kind are nearer to each other") && lines[2].contains("p = 0.020"),
            "{lines:?}"
        );
    }

    #[test]
    fn distances_and_labels_that_are_not_told_from_chance_are_said_to_be_so() {
        let lines = said(0.5, 0.4);
        assert_eq!(lines[2], "  no interval lies above the other: these distances are not told apart");
        assert!(lines[3].starts_with("Children of one kind are not nearer to each other"), "{lines:?}");
    }
}
