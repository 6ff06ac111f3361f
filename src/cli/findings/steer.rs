//! From which dose on a vector moves the metric, and where answers change their class.

use super::{read, unless_significant};
use crate::analyses::effects::{SIGNIFICANT, interval};
use crate::analyses::power;
use crate::analyses::steer::{DoseRow, RANDOM, ThresholdRow, VECTOR};
use crate::report::cells::{exact, p_value, plural, signed};
use crate::table::Table;

/// Classes of answers that are listed.
const CLASSES: usize = 3;

/// A vector under a condition, with the random directions under it, if there are any.
struct Dose<'r, 'a> {
    own: &'r DoseRow<'a>,
    random: Option<&'r DoseRow<'a>>,
}

pub(super) fn doses(tables: &[Table]) -> Option<Vec<String>> {
    let rows = read::<DoseRow>(tables)?;
    let base = rows.first()?.base_mean;
    let mut lines = vec![format!("without the vector the metric is {} nats:", signed(base, 3))];
    // The row of random directions stands after that of the vector.
    let dose = |i: usize| Dose { own: &rows[i], random: rows.get(i + 1).filter(|row| row.is_of_any_random()) };
    let doses: Vec<Dose> = (0..rows.len()).filter(|i| rows[*i].direction == VECTOR).map(dose).collect();
    let moving: Vec<&Dose> = doses.iter().filter(|dose| dose.moves()).collect();
    let of_sign = |sign: f64| {
        let along = moving.iter().filter(move |dose| dose.along() * sign > 0.0);
        along.min_by(|a, b| a.along().abs().total_cmp(&b.along().abs()))
    };
    for least in [1.0, -1.0].into_iter().filter_map(of_sign) {
        lines.push(format!("  least dose that moves it: {}", least.said()));
    }
    match moving.iter().max_by(|a, b| a.own.size().total_cmp(&b.own.size())) {
        Some(most) => lines.push(format!("  largest change: {}", most.said())),
        None => lines.push("  no dose moves it: the interval of each includes that".to_string()),
    }
    lines.extend(few_directions(&doses));
    lines.extend(classes(tables));
    Some(lines)
}

impl DoseRow<'_> {
    fn is_of_any_random(&self) -> bool {
        self.direction == RANDOM && self.directions > 0
    }
}

impl Dose<'_, '_> {
    /// The coefficient; 0 where the vector is not added by one.
    fn along(&self) -> f64 {
        self.own.coefficient.unwrap_or(0.0)
    }

    /// Whether the metric's interval leaves out the metric without the vector.
    fn moves(&self) -> bool {
        self.own.interval.zip(self.own.base_mean).is_some_and(|((low, high), base)| low > base || high < base)
    }

    fn said(&self) -> String {
        let own = self.own;
        let random = self.random.map_or(String::new(), |random| {
            let (low, high) = random.interval.unzip();
            format!(
                "; {} {} to {}, p over random {}{}",
                plural(random.directions, "random direction"),
                signed(low, 3),
                signed(high, 3),
                p_value(own.p_over_random),
                unless_significant(own.p_over_random)
            )
        });
        format!("{}, {} nats {}{random}", own.done(), signed(own.metric_mean, 3), interval(own.interval))
    }
}

/// A line where the random directions are too few for any p-value to be significant, and none is.
fn few_directions(doses: &[Dose]) -> Option<String> {
    let directions = doses.iter().filter_map(|dose| dose.random).map(|random| random.directions).max()?;
    let significant = doses.iter().any(|dose| dose.own.p_over_random.is_some_and(|p| p < SIGNIFICANT));
    let said = power::of_directions(directions);
    (!significant && !said.is_empty()).then(|| format!(" {}", said.replace("**", "")))
}

/// Where classes of answers take over.
fn classes(tables: &[Table]) -> Vec<String> {
    let rows = read::<ThresholdRow>(tables).unwrap_or_default();
    let line = |row: &ThresholdRow| {
        let way = if row.rises { "rises above" } else { "falls below" };
        let ends = match row.interval {
            Some(_) => format!("{}, 95 % interval {}", exact(row.coefficient), interval(row.interval)),
            None => format!("{}, where that is uncertain: other prompts may not cross it", exact(row.coefficient)),
        };
        format!("  answers of class {}: their share {way} one half at coefficient {ends}", row.class)
    };
    rows.iter().filter(|row| row.is_shown()).take(CLASSES).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;
    use crate::table::rows::Row as _;

    /// A coefficient's mean metric from a base of 1, with an interval of a half on each side, beside so many random directions.
    fn dose(coefficient: f64, metric: f64, directions: i64, p: Option<f64>) -> [DoseRow<'static>; 2] {
        let row = |direction, directions, mean: f64, half| DoseRow {
            kind: "add",
            direction,
            directions,
            coefficient: Some(coefficient),
            n: 9,
            base_mean: Some(1.0),
            metric_mean: Some(mean),
            interval: Some((mean - half, mean + half)),
            ..DoseRow::default()
        };
        [DoseRow { p_over_random: p, ..row(VECTOR, 1, metric, 0.5) }, row(RANDOM, directions, 1.0, 0.25)]
    }

    fn said(doses: impl IntoIterator<Item = [DoseRow<'static>; 2]>) -> Vec<String> {
        findings(&[DoseRow::table(doses.into_iter().flatten()).unwrap()])
    }

    #[test]
    fn the_least_dose_that_moves_the_metric_is_told_beside_random_directions() {
        let p = Some(0.01);
        let doses = [dose(-1.0, 1.25, 99, p), dose(0.5, 1.25, 99, p), dose(1.0, 2.0, 99, p), dose(2.0, 4.0, 99, p)];
        assert_eq!(
            said(doses),
            [
                "without the vector the metric is +1.000 nats:",
                "  least dose that moves it: coefficient 1.00, +2.000 nats [1.500, 2.500]; 99 random directions +0.750 to +1.250, p over \
                 random 0.010",
                "  largest change: coefficient 2.00, +4.000 nats [3.500, 4.500]; 99 random directions +0.750 to +1.250, p over random \
                 0.010",
            ]
        );
    }

    #[test]
    fn a_change_that_random_directions_make_too_is_not_called_significant() {
        let lines = said([dose(-1.0, -1.0, 4, Some(0.2))]);
        assert!(lines[1].starts_with("  least dose that moves it: coefficient −1.00, −1.000 nats [−1.500, −0.500]"));
        assert!(lines[1].ends_with("p over random 0.200, not significant"), "{lines:?}");
        assert_eq!(lines[3..], ["  4 random directions are too few to tell: no p over random can be under 0.200."]);
    }

    #[test]
    fn no_dose_is_named_where_every_interval_includes_the_metric_without_the_vector() {
        let lines = said([dose(1.0, 1.25, 0, None), dose(2.0, 0.75, 0, None)]);
        assert_eq!(lines[1..], ["  no dose moves it: the interval of each includes that"]);
    }

    #[test]
    fn classes_take_over_where_they_do_with_intervals_where_there_are_any() {
        let row = |class, interval, rises| ThresholdRow { class, coefficient: Some(0.75), interval, rises };
        let thresholds = [
            row("refusal", Some((0.5, 1.0)), true),
            row("evasion", Some((0.5, 1.0)), true),
            row("answer", None, false),
        ];
        let tables = [DoseRow::table(dose(1.0, 1.0, 0, None)).unwrap(), ThresholdRow::table(thresholds).unwrap()];
        assert_eq!(
            findings(&tables)[2..],
            [
                "  answers of class refusal: their share rises above one half at coefficient 0.75, 95 % interval [0.500, 1.000]",
                "  answers of class answer: their share falls below one half at coefficient 0.75, where that is uncertain: other \
                 prompts may not cross it",
            ]
        );
    }
}
