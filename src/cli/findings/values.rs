//! What silencing neurons and adding vectors of a value does to replies.

use super::{Found, listed, read};
use crate::analyses::values::{CONTEXTS, EffectRow};
use crate::table::Table;

/// The largest changes by what is done without a prompt, and by the prompt itself.
pub(super) fn changes(tables: &[Table]) -> Option<Vec<String>> {
    let rows = read::<EffectRow>(tables)?;
    let found = |row: &EffectRow| {
        let label = format!("{}: {}", row.value, row.label());
        Some(Found { label, size: row.effect.mean?, interval: row.effect.interval, p_max: None, q: row.q_value })
    };
    let unprompted = rows.iter().filter(|row| row.context == CONTEXTS[0]);
    let heading = "largest changes of the preference for held-out replies with the value";
    Some(listed(heading, " nats a token", unprompted.filter_map(found).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;
    use crate::analyses::values::{DoneRow, MeanOf};
    use crate::table::rows::Row as _;

    #[test]
    fn the_largest_changes_without_a_prompt_are_listed_and_chance_is_said() {
        let row = |context, what, coefficient, mean: f64, q| EffectRow {
            value: "honesty",
            context,
            done: DoneRow { kind: "steer", what, layer: 4, coefficient: Some(coefficient) },
            n: 20,
            effect: MeanOf { mean: Some(mean), interval: Some((mean - 0.25, mean + 0.25)) },
            q_value: Some(q),
            ..EffectRow::default()
        };
        let rows = [
            row("unprompted", "intrinsic", 1.0, 0.125, 0.2),
            row("unprompted", "intrinsic", -1.0, -0.5, 0.01),
            row("prompted", "intrinsic", 1.0, 2.0, 0.001),
        ];
        assert_eq!(
            findings(&[EffectRow::table(rows).unwrap()]),
            [
                "largest changes of the preference for held-out replies with the value:",
                "  honesty: intrinsic × −1.00 after layer 4 −0.500 nats a token [−0.750, −0.250], q 0.010",
                "  honesty: intrinsic × 1.00 after layer 4 +0.125 nats a token [−0.125, 0.375], q 0.200, not significant",
            ]
        );
    }
}
