//! The strongest units: of edits, of attributions, edges and pairs of heads.

use super::{Found, listed, read, too_few};
use crate::analyses::ablate::Ablation;
use crate::analyses::components::OfComponent;
use crate::analyses::dla::ComponentRow;
use crate::analyses::edges::EdgeRow;
use crate::analyses::effects::{Edited, Row as Effect};
use crate::analyses::inputs::unit_label;
use crate::analyses::interactions::PairOfHeadsRow;
use crate::analyses::interchange::Exchange;
use crate::table::Table;
use crate::table::rows::Row as _;

const NATS: &str = " nats";

/// The strongest units of interchange or ablation.
pub(super) fn effects(tables: &[Table]) -> Option<Vec<String>> {
    of_edits::<Exchange>(tables).or_else(|| of_edits::<Ablation>(tables))
}

fn of_edits<E: Edited>(tables: &[Table]) -> Option<Vec<String>> {
    let rows = read::<Effect<E>>(tables)?;
    let spans = rows.iter().any(|row| row.position != rows[0].position);
    let found = |row: &Effect<E>| {
        let label = unit_label(row.site, row.layer, row.head);
        let (size, interval) = (row.effect_mean?, row.interval);
        Some(Found { label, size, interval, p_max: row.p_max, q: row.q_value })
    };
    let families = rows.chunk_by(|a, b| (a.variant, a.position) == (b.variant, b.position));
    let lines = families.flat_map(|of| {
        let place = if spans { format!(" at {}", of[0].position) } else { String::new() };
        let heading = format!("strongest, {}{place}", of[0].variant);
        let mut lines = listed(&heading, NATS, of.iter().filter_map(found).collect());
        // Units that were only estimated count as tested.
        lines.extend(too_few(of.iter().map(|row| (row.n, row.q_value)), of.len()));
        lines
    });
    Some(lines.collect())
}

/// The strongest edges.
pub(super) fn edges(tables: &[Table]) -> Option<Vec<String>> {
    let rows = read::<EdgeRow>(tables)?;
    let found = |row: &EdgeRow| {
        let label = format!("{}->{}", row.edge.writer, row.edge.reader);
        let (size, interval) = (row.effect_mean?, row.interval);
        Some(Found { label, size, interval, p_max: row.p_max, q: row.q_value })
    };
    let spans = rows.iter().any(|row| row.position != rows[0].position);
    let same = |a: &EdgeRow, b: &EdgeRow| (a.direction, &a.position) == (b.direction, &b.position);
    let lines = rows.chunk_by(same).flat_map(|of| {
        let at = if spans { format!(" at {}", of[0].position) } else { String::new() };
        let heading = format!("strongest edges, {}{at}", of[0].direction);
        let mut lines = listed(&heading, NATS, of.iter().filter_map(found).collect());
        // Edges that were only estimated count as tested.
        lines.extend(too_few(of.iter().map(|row| (row.n, row.q_value)), of.len()));
        lines
    });
    Some(lines.collect())
}

/// The strongest interactions of heads.
pub(super) fn interactions(tables: &[Table]) -> Option<Vec<String>> {
    let rows = read::<PairOfHeadsRow>(tables)?;
    let found = |row: &PairOfHeadsRow| {
        let (size, interval) = (row.interaction_mean?, row.interval);
        Some(Found { label: row.label(), size, interval, p_max: row.p_max, q: row.q_value })
    };
    let direction = rows.first()?.direction;
    let heading = format!("strongest interactions, {direction}");
    let mut lines = listed(&heading, NATS, rows.iter().filter_map(found).collect());
    lines.extend(too_few(rows.iter().map(|row| (row.n, row.q_value)), rows.len()));
    Some(lines)
}

/// The largest attributions of components.
pub(super) fn attributions(tables: &[Table]) -> Option<Vec<String>> {
    let table = tables.iter().find(|table| table.name() == ComponentRow::TABLE)?;
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
    let mut lines = listed("largest attributions", NATS, rows.iter().filter_map(found).collect());
    lines.extend(too_few(n.into_iter().zip(q.iter().copied()), q.iter().flatten().count()));
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::super::findings;
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
            row(4, "necessity", 0.25, Some((0.125, 0.375)), Some(0.25), 0.01),
            row(3, "sufficiency", 1.0, None, None, 0.04),
        ])
        .unwrap();
        assert_eq!(
            findings(&[table]),
            [
                "strongest, necessity:",
                "  L2.H1      −2.000 nats [−3.000, −1.000], family-wise p < 0.001",
                "  L1.H0      +0.500 nats [0.250, 0.750], family-wise p 0.250, q 0.200, not significant",
                "  L4.H3      +0.250 nats [0.125, 0.375], family-wise p 0.250, q 0.010",
                "strongest, sufficiency:",
                "  L3.H2      +1.000 nats –, q 0.040",
            ]
        );
        assert_eq!(findings(&[]), [""; 0]);
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
