//! What a run found, for the terminal: the strongest units with their effects, from the tables alone.

use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::inputs::unit_label;
use crate::analyses::power::Power;
use crate::report::cells::{interval, p_value, signed};
use crate::table::Table;

/// Units that are listed of each direction or mode.
const LISTED: usize = 5;

/// Lines on the strongest units of a run's tables; none where no table is of effects or attributions.
pub(super) fn findings(tables: &[Table]) -> Vec<String> {
    let of_effects = tables.iter().find(|table| table.name() == "heads").and_then(effects);
    let of_attributions = || tables.iter().find(|table| table.name() == "components").and_then(attributions);
    of_effects.or_else(of_attributions).unwrap_or_default()
}

/// A unit as it is listed.
struct Found {
    label: String,
    size: f64,
    ends: (Option<f64>, Option<f64>),
    /// The family-wise p-value, or else q.
    p: (&'static str, Option<f64>),
}

fn effects(table: &Table) -> Option<Vec<String>> {
    let variant = ["direction", "mode"].into_iter().find_map(|name| table.strs(name).ok())?;
    let (sites, layers, heads) = (table.strs("site").ok()?, table.ints("layer").ok()?, table.ints("head").ok()?);
    let label = |row: usize| unit_label(sites[row], layers[row], heads[row]);
    let mut names: Vec<&str> = Vec::new();
    variant.iter().for_each(|name| names.extend((!names.contains(name)).then_some(*name)));
    let lines = names.into_iter().flat_map(|name| {
        let rows: Vec<usize> = (0..table.rows()).filter(|row| variant[*row] == name).collect();
        let all = rows.iter().filter_map(|row| found(table, *row, "effect_mean", label(*row))).collect();
        let mut lines = listed(&format!("strongest, {name}"), all);
        // Units that were only estimated count as tested.
        lines.extend(too_few(table, &rows, rows.len()));
        lines
    });
    Some(lines.collect())
}

fn attributions(table: &Table) -> Option<Vec<String>> {
    let (layers, components) = (table.ints("layer").ok()?, table.strs("component").ok()?);
    let label = |row: usize| match components[row].strip_prefix("head.") {
        Some(head) => format!("L{}.H{head}", layers[row]),
        None if components[row] == "mlp" => format!("L{}.MLP", layers[row]),
        None => components[row].to_owned(),
    };
    let rows: Vec<usize> = (0..table.rows()).collect();
    let all = rows.iter().filter_map(|row| found(table, *row, "attribution_mean", label(*row)));
    let mut lines = listed("largest attributions", all.collect());
    let tested = table.floats("q_value").map_or(0, |q| q.iter().flatten().count());
    lines.extend(too_few(table, &rows, tested));
    Some(lines)
}

/// A line that says so where the items are too few for any of so many tests to be significant by itself, and none is.
fn too_few(table: &Table, rows: &[usize], tests: usize) -> Option<String> {
    let (n, q) = (table.ints("n").ok()?, table.floats("q_value").ok()?);
    let significant = rows.iter().any(|row| q[*row].is_some_and(|q| q < SIGNIFICANT));
    let items = rows.iter().map(|row| n[*row]).max()?;
    let said = Power { items, item: "item", tests }.sentence();
    (!significant && !said.is_empty()).then(|| format!(" {}", said.replace("**", "")))
}

fn found(table: &Table, row: usize, size: &str, label: String) -> Option<Found> {
    let number = |name: &str| table.floats(name).ok()?.get(row).copied().flatten();
    let family_wise = number("p_max").map(|p| ("family-wise p", Some(p)));
    Some(Found {
        label,
        size: number(size)?,
        ends: (number("ci_low"), number("ci_high")),
        p: family_wise.unwrap_or(("q", number("q_value"))),
    })
}

fn listed(heading: &str, mut found: Vec<Found>) -> Vec<String> {
    found.sort_by(|a, b| b.size.abs().total_cmp(&a.size.abs()));
    let line = |found: &Found| {
        let (name, p) = found.p;
        let ends = interval(found.ends.0, found.ends.1, 3);
        format!("  {:<10} {} nats {ends}, {name} {}", found.label, signed(found.size, 3), p_value(p))
            .replace('\u{a0}', " ")
    };
    let lines: Vec<String> = found.iter().take(LISTED).map(line).collect();
    if lines.is_empty() { lines } else { std::iter::once(format!("{heading}:")).chain(lines).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_of_each_direction_are_listed_with_interval_and_corrected_p() {
        let table = Table::new("heads")
            .str("site", "", ["z"; 3])
            .and_then(|t| t.int("layer", "", [1, 2, 3]))
            .and_then(|t| t.int("head", "", [0, 1, 2]))
            .and_then(|t| t.str("direction", "", ["necessity", "necessity", "sufficiency"]))
            .and_then(|t| t.float("effect_mean", "", [Some(0.5), Some(-2.0), Some(1.0)]))
            .and_then(|t| t.float("ci_low", "", [Some(0.25), Some(-3.0), None]))
            .and_then(|t| t.float("ci_high", "", [Some(0.75), Some(-1.0), None]))
            .and_then(|t| t.float("p_max", "", [Some(0.25), Some(0.0001), None]))
            .and_then(|t| t.float("q_value", "", [Some(0.2), Some(0.001), Some(0.04)]))
            .unwrap();
        assert_eq!(
            findings(&[table]),
            [
                "strongest, necessity:",
                "  L2.H1      −2.000 nats [−3.000, −1.000], family-wise p < 0.001",
                "  L1.H0      +0.500 nats [0.250, 0.750], family-wise p 0.250",
                "strongest, sufficiency:",
                "  L3.H2      +1.000 nats –, q 0.040",
            ]
        );
        assert_eq!(findings(&[]), [""; 0]);
    }

    #[test]
    fn what_too_few_items_cannot_show_is_said() {
        let heads = |n: i64, q: f64| {
            let table = Table::new("heads").str("site", "", ["z"; 2]).and_then(|t| t.int("layer", "", [1, 2]));
            let table = table.and_then(|t| t.int("head", "", [0, 1])).and_then(|t| t.int("n", "", [n; 2]));
            let table = table.and_then(|t| t.str("mode", "", ["zero"; 2]));
            let table = table.and_then(|t| t.float("effect_mean", "", [0.5, -2.0]));
            let table =
                table.and_then(|t| t.float("ci_low", "", [0.0; 2])).and_then(|t| t.float("ci_high", "", [1.0; 2]));
            findings(&[table.and_then(|t| t.float("q_value", "", [q; 2])).unwrap()])
        };
        let said = heads(6, 0.3);
        assert!(
            said.last().unwrap().starts_with("  6 items are too few to tell: no p-value can be under 1/32"),
            "{said:?}"
        );
        assert_eq!((heads(8, 0.3).len(), heads(6, 0.01).len()), (3, 3));
    }
}
