//! The neurons that the answer depends on.

use super::{Found, listed, read, too_few};
use crate::analyses::effects::interval;
use crate::analyses::neurons::{EffectRow, NeuronRow, SetRow, beside};
use crate::report::cells::{plural, signed};
use crate::table::Table;
use crate::table::rows::Row as _;

/// The neurons whose silencing does most, and all of them together.
pub(super) fn neurons(tables: &[Table]) -> Option<Vec<String>> {
    let rows = read::<EffectRow>(tables)?;
    let found = |row: &EffectRow| {
        let (size, interval) = (row.effect_mean?, row.interval);
        Some(Found { label: row.name(), size, interval, p_max: row.p_max, q: row.q_value })
    };
    let by = rows.first().map_or("0", |row| if row.mode == "mean" { "its mean" } else { "0" });
    let heading = format!("strongest neurons, each set to {by}");
    let mut lines = listed(&heading, " nats", rows.iter().filter_map(found).collect());
    // Neurons that were not silenced count as tested.
    let all = tables.iter().find(|table| table.name() == NeuronRow::TABLE);
    let tests = all.map_or(rows.len(), Table::rows);
    lines.extend(too_few(rows.iter().map(|row| (row.n, row.q_value)), tests));
    lines.extend(together(&read::<SetRow>(tables).unwrap_or_default()));
    Some(lines)
}

/// All of them together, beside random sets.
fn together(rows: &[SetRow]) -> Option<String> {
    let (listed, random) = beside(rows)?;
    let nothing = listed.interval.is_none_or(|(low, high)| low <= 0.0 && high >= 0.0);
    let least = random.iter().copied().reduce(f64::min);
    let most = random.iter().copied().reduce(f64::max);
    let beside = least.zip(most).map_or(String::new(), |(least, most)| {
        format!("; {} {} to {}", plural(random.len() as i64, "random set"), signed(least, 3), signed(most, 3))
    });
    Some(format!(
        "  all {} together: {} nats {}{}{beside}",
        listed.neurons,
        signed(listed.effect_mean, 3),
        interval(listed.interval),
        if nothing { ", not significant" } else { "" },
    ))
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;

    fn effect(neuron: i64, effect: f64, n: i64, q: f64) -> EffectRow<'static> {
        EffectRow {
            layer: 3,
            neuron,
            mode: "zero".into(),
            n,
            effect_mean: Some(effect),
            interval: Some((effect - 0.5, effect + 0.5)),
            q_value: Some(q),
            ..EffectRow::default()
        }
    }

    fn set(set: &'static str, effect: f64) -> SetRow<'static> {
        let interval = Some((effect - 0.5, effect + 0.5));
        SetRow { set: set.into(), neurons: 2, n: 40, effect_mean: Some(effect), interval, ..SetRow::default() }
    }

    #[test]
    fn the_strongest_are_listed_and_all_together_beside_random_sets() {
        let effects = EffectRow::table([effect(7, 0.25, 40, 0.5), effect(11, -2.0, 40, 0.01)]).unwrap();
        let sets = SetRow::table([set("listed", -2.5), set("random 1", -0.125), set("random 2", 0.25)]).unwrap();
        assert_eq!(
            findings(&[effects, sets]),
            [
                "strongest neurons, each set to 0:",
                "  L3.N11     −2.000 nats [−2.500, −1.500], q 0.010",
                "  L3.N7      +0.250 nats [−0.250, 0.750], q 0.500, not significant",
                "  all 2 together: −2.500 nats [−3.000, −2.000]; 2 random sets −0.125 to +0.250",
            ]
        );
    }

    #[test]
    fn where_nothing_is_significant_each_line_says_so() {
        let effects = EffectRow::table([effect(7, 0.25, 3, 1.0)]).unwrap();
        let lines = findings(&[effects, SetRow::table([set("listed", 0.25)]).unwrap()]);
        assert!(lines[1].ends_with("q 1.000, not significant"), "{lines:?}");
        assert!(lines[2].starts_with("  3 items are too few to tell"), "{lines:?}");
        assert!(lines[3].ends_with("[−0.250, 0.750], not significant"), "{lines:?}");
    }
}
