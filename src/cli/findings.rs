//! What a run found, for the terminal: the strongest units with their effects, from the tables alone.

use crate::analyses::ablate::Ablation;
use crate::analyses::checkpoints::paths::short_names;
use crate::analyses::checkpoints::weights::{ALL, ChangeRow};
use crate::analyses::circuit::{FaithfulnessRow, SummaryRow, with_interval};
use crate::analyses::components::OfComponent;
use crate::analyses::dla::ComponentRow;
use crate::analyses::edges::EdgeRow;
use crate::analyses::effects::{Edited, Row as Effect, SIGNIFICANT};
use crate::analyses::inputs::unit_label;
use crate::analyses::interactions::PairOfHeadsRow;
use crate::analyses::interchange::Exchange;
use crate::analyses::power::Power;
use crate::report::cells::{interval, number, p_value, plural, share, share_interval, signed};
use crate::table::Table;
use crate::table::rows::Row as _;

/// Units that are listed of each direction or mode.
const LISTED: usize = 5;

/// Lines on the strongest units of a run's tables; none where no table is of effects or attributions.
pub fn findings(tables: &[Table]) -> Vec<String> {
    let of = |name: &str| tables.iter().find(|table| table.name() == name);
    let of_effects = || {
        let table = of(Effect::<Exchange>::TABLE)?;
        effects::<Exchange>(table).or_else(|| effects::<Ablation>(table))
    };
    let of_attributions = || attributions(of(ComponentRow::TABLE)?);
    let of_edges = || edges(of(EdgeRow::TABLE)?);
    let of_circuits = || circuits(tables);
    let of_interactions = || interactions(of(PairOfHeadsRow::TABLE)?);
    let found = of_effects().or_else(of_attributions).or_else(of_edges).or_else(of_circuits);
    let of_changes = || changes(of(ChangeRow::TABLE)?);
    found.or_else(of_interactions).or_else(of_changes).unwrap_or_default()
}

/// A unit as it is listed.
struct Found {
    label: String,
    size: f64,
    interval: Option<(f64, f64)>,
    p_max: Option<f64>,
    q: Option<f64>,
}

fn effects<E: Edited>(table: &Table) -> Option<Vec<String>> {
    let rows = Effect::<E>::read(table).ok()?;
    let spans = rows.iter().any(|row| row.position != rows[0].position);
    let found = |row: &Effect<E>| {
        let label = unit_label(row.site, row.layer, row.head);
        let (size, interval) = (row.effect_mean?, row.interval);
        Some(Found { label, size, interval, p_max: row.p_max, q: row.q_value })
    };
    let families = rows.chunk_by(|a, b| (a.variant, a.position) == (b.variant, b.position));
    let lines = families.flat_map(|of| {
        let place = if spans { format!(" at {}", of[0].position) } else { String::new() };
        let mut lines = listed(&format!("strongest, {}{place}", of[0].variant), of.iter().filter_map(found).collect());
        // Units that were only estimated count as tested.
        lines.extend(too_few(of.iter().map(|row| (row.n, row.q_value)), of.len()));
        lines
    });
    Some(lines.collect())
}

fn edges(table: &Table) -> Option<Vec<String>> {
    let rows = EdgeRow::read(table).ok()?;
    let found = |row: &EdgeRow| {
        let label = format!("{}->{}", row.edge.writer, row.edge.reader);
        let (size, interval) = (row.effect_mean?, row.interval);
        Some(Found { label, size, interval, p_max: row.p_max, q: row.q_value })
    };
    let spans = rows.iter().any(|row| row.position != rows[0].position);
    let same = |a: &EdgeRow, b: &EdgeRow| (a.direction, &a.position) == (b.direction, &b.position);
    let lines = rows.chunk_by(same).flat_map(|of| {
        let at = if spans { format!(" at {}", of[0].position) } else { String::new() };
        let mut lines =
            listed(&format!("strongest edges, {}{at}", of[0].direction), of.iter().filter_map(found).collect());
        // Edges that were only estimated count as tested.
        lines.extend(too_few(of.iter().map(|row| (row.n, row.q_value)), of.len()));
        lines
    });
    Some(lines.collect())
}

fn interactions(table: &Table) -> Option<Vec<String>> {
    let rows = PairOfHeadsRow::read(table).ok()?;
    let found = |row: &PairOfHeadsRow| {
        let (size, interval) = (row.interaction_mean?, row.interval);
        Some(Found { label: row.label(), size, interval, p_max: row.p_max, q: row.q_value })
    };
    let direction = rows.first()?.direction;
    let mut lines = listed(&format!("strongest interactions, {direction}"), rows.iter().filter_map(found).collect());
    lines.extend(too_few(rows.iter().map(|row| (row.n, row.q_value)), rows.len()));
    Some(lines)
}

/// What training changed of each child.
fn changes(table: &Table) -> Option<Vec<String>> {
    let rows = ChangeRow::read(table).ok()?;
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
        let line = format!(
            "  {short}: {} unchanged {}, spectral drift {} {}, largest left angle {} {} degrees",
            share(unchanged.mean),
            share_interval(unchanged.interval),
            number(drift.mean, 5),
            ends(drift, 5),
            number(angle.mean, 2),
            ends(angle, 2),
        );
        Some(line.replace('\u{a0}', " "))
    };
    let lines: Vec<String> = names.iter().zip(short_names(&names)).filter_map(line).collect();
    let heading = format!("against {}, means over matrices:", rows.first()?.parent);
    Some(std::iter::once(heading).chain(lines).collect())
}

/// Lines on the circuits that were found.
fn circuits(tables: &[Table]) -> Option<Vec<String>> {
    let of = |name: &str| tables.iter().find(|table| table.name() == name);
    if let Some(table) = of(FaithfulnessRow::TABLE) {
        let rows = FaithfulnessRow::read(table).ok()?;
        let line = |row: &FaithfulnessRow| {
            format!("  {} on paths keep {} of the gap", plural(row.edges_left, "edge"), with_interval(&row.kept))
        };
        return Some(std::iter::once("the file's circuit:".to_string()).chain(rows.iter().map(line)).collect());
    }
    let rows = SummaryRow::read(of(SummaryRow::TABLE)?).ok()?;
    let line = |row: &SummaryRow| match row.edges_left {
        0 => format!("  {:<12} the two prompts do not differ", row.score),
        left => format!(
            "  {:<12} {} on paths keep {} of the gap, CPR {}, CMD {}",
            row.score,
            plural(left, "edge"),
            with_interval(&row.faithfulness),
            number(row.cpr, 3),
            number(row.cmd, 3),
        ),
    };
    let lines = std::iter::once("circuits, by what edges are ranked:".to_string()).chain(rows.iter().map(line));
    Some(lines.map(|line| line.replace('\u{a0}', " ")).collect())
}

fn attributions(table: &Table) -> Option<Vec<String>> {
    // Those of a knockout are no attributions, but may be too few as well.
    let rows = ComponentRow::read(table).unwrap_or_default();
    let (n, q) = (table.column(ComponentRow::n).ok()?, table.column(ComponentRow::q_value).ok()?);
    let label = |row: &ComponentRow| {
        let OfComponent { layer, component } = row.component;
        match component.strip_prefix("head.") {
            Some(head) => format!("L{layer}.H{head}"),
            None if component == "mlp" => format!("L{layer}.MLP"),
            None => component.to_owned(),
        }
    };
    let found = |row: &ComponentRow| {
        let (size, interval) = (row.attribution_mean?, row.interval);
        Some(Found { label: label(row), size, interval, p_max: row.p_max, q: row.q_value })
    };
    let mut lines = listed("largest attributions", rows.iter().filter_map(found).collect());
    lines.extend(too_few(n.into_iter().zip(q.iter().copied()), q.iter().flatten().count()));
    Some(lines)
}

/// A line that says so where the items are too few for any of so many tests to be significant by itself, and none is; `rows` have
/// their items and q-value.
fn too_few(rows: impl Iterator<Item = (i64, Option<f64>)> + Clone, tests: usize) -> Option<String> {
    let significant = rows.clone().any(|(_, q)| q.is_some_and(|q| q < SIGNIFICANT));
    let items = rows.map(|(n, _)| n).max()?;
    let said = Power { items, item: "item", tests }.sentence();
    (!significant && !said.is_empty()).then(|| format!(" {}", said.replace("**", "")))
}

fn listed(heading: &str, mut found: Vec<Found>) -> Vec<String> {
    found.sort_by(|a, b| b.size.abs().total_cmp(&a.size.abs()));
    let line = |found: &Found| {
        let (name, p) = found.p_max.map_or(("q", found.q), |p| ("family-wise p", Some(p)));
        let (low, high) = found.interval.unzip();
        let ends = interval(low, high, 3);
        format!("  {:<10} {} nats {ends}, {name} {}", found.label, signed(Some(found.size), 3), p_value(p))
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
        let row = |layer, variant, effect, interval, p_max, q| Effect::<Exchange> {
            site: "z",
            layer,
            head: layer - 1,
            variant,
            n: 100,
            effect_mean: Some(effect),
            interval,
            p_max,
            q_value: Some(q),
            ..Effect::default()
        };
        let table = Effect::table([
            row(1, "necessity", 0.5, Some((0.25, 0.75)), Some(0.25), 0.2),
            row(2, "necessity", -2.0, Some((-3.0, -1.0)), Some(0.0001), 0.001),
            row(3, "sufficiency", 1.0, None, None, 0.04),
        ])
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

    #[test]
    fn what_too_few_items_cannot_show_is_said() {
        let heads = |n: i64, q: f64| {
            let row = |head, effect| Effect::<Ablation> {
                site: "z",
                layer: head + 1,
                head,
                n,
                variant: "zero",
                effect_mean: Some(effect),
                interval: Some((0.0, 1.0)),
                q_value: Some(q),
                ..Effect::default()
            };
            findings(&[Effect::table([row(0, 0.5), row(1, -2.0)]).unwrap()])
        };
        let said = heads(6, 0.3);
        assert!(
            said.last().unwrap().starts_with("  6 items are too few to tell: no p-value can be under 1/32"),
            "{said:?}"
        );
        assert_eq!((heads(8, 0.3).len(), heads(6, 0.01).len()), (3, 3));
    }
}
