//! What training changed of the weights.

use super::read;
use crate::analyses::checkpoints::paths::short_names;
use crate::analyses::checkpoints::weights::{ALL, ChangeRow};
use crate::report::cells::{interval, number, share, share_interval};
use crate::table::Table;

/// What training changed of each child.
pub(super) fn changes(tables: &[Table]) -> Option<Vec<String>> {
    let rows = read::<ChangeRow>(tables)?;
    let mut names: Vec<&str> = rows.iter().map(|row| row.model).collect();
    names.dedup();
    let of = |name: &str, measure: &str| {
        rows.iter().find(|row| row.model == name && row.kind == ALL && row.measure == measure)
    };
    let line = |(name, short): (&&str, String)| {
        let (unchanged, drift, angle) =
            (of(name, "update_sparsity")?, of(name, "spectral_drift")?, of(name, "angle_left_max")?);
        let ends = |row: &ChangeRow, digits| {
            let (low, high) = row.interval.unzip();
            interval(low, high, digits)
        };
        Some(format!(
            "  {short}: {} unchanged {}, spectral drift {} {}, largest left angle {} {} degrees",
            share(unchanged.mean),
            share_interval(unchanged.interval),
            number(drift.mean, 5),
            ends(drift, 5),
            number(angle.mean, 2),
            ends(angle, 2),
        ))
    };
    let lines: Vec<String> = names.iter().zip(short_names(&names)).filter_map(line).collect();
    let heading = format!("against {}, means over matrices:", rows.first()?.parent);
    Some(std::iter::once(heading).chain(lines).collect())
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;
    use crate::table::rows::Row as _;

    #[test]
    fn what_training_changed_is_told_of_each_child() {
        let row = |model, measure, mean: f64| ChangeRow {
            model,
            parent: "p",
            kind: "all",
            measure,
            n: 3,
            mean: Some(mean),
            interval: Some((mean / 2.0, mean * 2.0)),
            ..ChangeRow::default()
        };
        let of = |model| {
            [row(model, "update_sparsity", 0.25), row(model, "spectral_drift", 0.5), row(model, "angle_left_max", 8.0)]
        };
        let table = ChangeRow::table([of("a/x"), of("b/x")].concat()).unwrap();
        let said = findings(&[table]);
        assert_eq!(said[0], "against p, means over matrices:");
        let expected = "  b/x: 25.0 % unchanged [12.5, 50.0] %, spectral drift 0.50000 [0.25000, 1.00000], largest left angle 8.00 \
                        [4.00, 16.00] degrees";
        assert_eq!(said[2], expected);
    }
}
