//! The neurons that the answer depends on.

use super::{Found, listed, read, too_few};
use crate::analyses::effects::interval;
use crate::analyses::neurons::{ContrastRow, EffectRow, NeuronRow, SetRow, beside, standings};
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
    let sets = read::<SetRow>(tables).unwrap_or_default();
    lines.extend(["listed", "heads", "listed and heads"].iter().filter_map(|set| together(&sets, set)));
    lines.extend(by_label(&read::<ContrastRow>(tables).unwrap_or_default()));
    Some(lines)
}

/// What some numbers of random sets are between; nothing of none.
fn among_random(random: &[f64]) -> String {
    let least = random.iter().copied().reduce(f64::min);
    let most = random.iter().copied().reduce(f64::max);
    least.zip(most).map_or(String::new(), |(least, most)| {
        format!("; {} {} to {}", plural(random.len() as i64, "random set"), signed(least, 3), signed(most, 3))
    })
}

/// All of them together, beside random sets.
fn together(rows: &[SetRow], set: &str) -> Option<String> {
    let (own, random) = beside(rows, set)?;
    let nothing = own.interval.is_none_or(|(low, high)| low <= 0.0 && high >= 0.0);
    let what = match set {
        "heads" => format!("{} {}", plural(own.heads, "head"), if own.heads == 1 { "alone" } else { "together" }),
        "listed and heads" => format!("all {} and {} together", own.neurons, plural(own.heads, "head")),
        _ => format!("all {} together", own.neurons),
    };
    Some(format!(
        "  {what}: {} nats {}{}{}",
        signed(own.effect_mean, 3),
        interval(own.interval),
        if nothing { ", not significant" } else { "" },
        among_random(&random),
    ))
}

/// Sets that move the prompts of one label otherwise than the others, beside random sets.
fn by_label(rows: &[ContrastRow]) -> Vec<String> {
    let line = |of: crate::analyses::neurons::Standing| {
        let row = of.row;
        let beyond = match of.is_beyond() {
            Some(false) => ", not beyond them",
            _ => "",
        };
        format!(
            "  {}, {} against the other prompts: {} nats {}{}{beyond}",
            row.set,
            row.label,
            signed(row.against.difference, 3),
            interval(row.against.interval),
            among_random(&of.random),
        )
    };
    standings(rows).into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;
    use crate::analyses::neurons::Against;

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
    fn a_label_is_named_where_the_interval_of_its_difference_excludes_0_beside_random_sets() {
        let row = |set: &'static str, label: &'static str, difference: f64| ContrastRow {
            set: set.into(),
            label: label.into(),
            n: 20,
            effect_mean: Some(difference),
            against: Against {
                n_others: 40,
                difference: Some(difference),
                interval: Some((difference - 0.5, difference + 0.5)),
                ..Against::default()
            },
            ..ContrastRow::default()
        };
        let contrasts = [
            row("listed", "months", -2.0),
            row("listed", "animals", 0.25),
            row("heads", "months", -0.75),
            row("random 1", "months", 0.125),
            row("random 2", "months", -0.25),
            row("random heads 1", "months", 1.0),
        ];
        let effects = EffectRow::table([effect(7, -0.25, 60, 0.01)]).unwrap();
        let sets = SetRow { heads: 1, set: "heads".into(), label: Some("months".into()), ..set("heads", -1.0) };
        let sets = SetRow::table([set("listed", -2.5), SetRow { heads: 1, ..set("heads", -1.0) }, sets]).unwrap();
        assert_eq!(
            findings(&[effects, sets, ContrastRow::table(contrasts).unwrap()])[2..],
            [
                "  all 2 together: −2.500 nats [−3.000, −2.000]",
                "  1 head alone: −1.000 nats [−1.500, −0.500]",
                "  listed, months against the other prompts: −2.000 nats [−2.500, −1.500]; 2 random sets −0.250 to +0.125",
                "  heads, months against the other prompts: −0.750 nats [−1.250, −0.250]; 1 random set +1.000 to +1.000, not \
                 beyond them",
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
