//! Early commitment's figure and words, from its tables alone.

use super::LayerRow;
use super::committed::CommittedRow;
use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::halves::{Moved, Order, Shown};
use crate::analyses::power::Power;
use crate::analyses::prelude::*;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Threshold};
use crate::names::short_name;
use crate::report::cells::{number, p_value, plural, share, share_interval, signed};
use std::collections::BTreeMap;

/// A row of the table of decisive layers, with what was tested.
struct Row<'a> {
    of: CommittedRow<'a>,
    largest_share_interval: Option<(f64, f64)>,
    /// The share of the gap that is closed before the layer after the decisive one, with its interval.
    next: Option<(f64, Option<(f64, f64)>)>,
    /// The q-value of the largest effect.
    q: Option<f64>,
    /// How many layers were tested with it.
    tests: usize,
}

impl Row<'_> {
    /// Whether the largest effect is beyond chance; nothing is said of where the route is committed otherwise.
    fn is_told(&self) -> bool {
        self.q.is_some_and(|q| q < SIGNIFICANT)
    }
}

fn rows<'a>(table: &'a Table, layers: &[LayerRow]) -> Result<Vec<Row<'a>>, AnalysisError> {
    let row = |of: CommittedRow<'a>| {
        let tested: Vec<&LayerRow> = layers.iter().filter(|l| (l.place, l.change) == (of.place, of.change)).collect();
        // The row of the change at the place before a layer.
        let before = |layer: Option<f64>| tested.iter().find(|l| Some(l.layer as f64) == layer);
        let largest = before(of.largest_layer);
        Row {
            largest_share_interval: largest.and_then(|l| l.share_interval),
            next: before(of.layer.map(|layer| layer + 1.0)).and_then(|l| Some((l.share_of_gap?, l.share_interval))),
            q: largest.and_then(|l| l.q_value),
            tests: tested.len(),
            of,
        }
    };
    Ok(CommittedRow::read(table)?.into_iter().map(row).collect())
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let layers = LayerRow::read(table(tables, LayerRow::TABLE)?)?;
    let decisive = rows(table(tables, CommittedRow::TABLE)?, &layers)?;
    let draw = |change: &str, title: &str| curves(&layers, &decisive, change, title);
    let mut figures = vec![
        ("commitment.png".to_string(), draw("remove", "The signal removed, layer by layer")),
        ("restored.png".to_string(), draw("restore", "The signal restored, layer by layer")),
    ];
    let (shown, rows) = apart(&layers, &decisive);
    figures.extend(shown.figure(&rows).map(|figure| (shown.file, figure)));
    Ok(figures)
}

/// The halves of the largest effect of each change at each place.
fn apart(layers: &[LayerRow], decisive: &[Row]) -> (Shown<'static>, Vec<Moved>) {
    let moved = |Row { of, .. }: &Row| {
        let here =
            |l: &&LayerRow| (l.place, l.change) == (of.place, of.change) && Some(l.layer as f64) == of.largest_layer;
        let l = layers.iter().find(here)?;
        let label = format!("{}, {}, L{}", of.change, of.place, l.layer);
        Some(Moved { label, whole: l.effect_mean, halves: l.halves })
    };
    let shown = Shown {
        title: "Signal removed and restored: answer and foil apart".to_string(),
        subtitle: format!(
            "{}, {}, the largest effect of each change at each place",
            model(layers),
            numbers_of_pairs(decisive)
        ),
        subject: "the change",
        order: Order::Own("change, place, layer"),
        ..Shown::default()
    };
    (shown, decisive.iter().filter_map(moved).collect())
}

fn model(layers: &[LayerRow]) -> String {
    short_name(layers.first().map_or("", |l| l.model))
}

/// The share of the gap that a change closes at each layer, at both places.
fn curves(layers: &[LayerRow], decisive: &[Row], change: &str, title: &str) -> Figure {
    let places = [("content", "content"), ("last", "last position")];
    let own = places.map(|(place, name)| curve(layers, (place, change), name));
    let mut lines = Vec::from(own);
    if change == "remove" {
        let random = |(of, (place, name))| random(layers, place, name, CurveRole::ControlOf(of));
        lines.extend(places.into_iter().enumerate().filter_map(random));
    }
    let of = |place: &str| decisive.iter().find(|r| r.of.place == place && r.of.change == change);
    let threshold = |place: &str, label: &str| {
        let row = of(place)?;
        Some(Threshold { x: row.of.layer.filter(|_| row.is_told())?, label: label.to_string(), interval: None })
    };
    Figure::from(Curves {
        title: title.to_string(),
        subtitle: format!("{}, {}", model(layers), numbers_of_pairs(decisive)),
        x_label: "layer before which the residual stream is changed".to_string(),
        y_label: "share of the gap closed".to_string(),
        shares: true,
        curves: lines,
        thresholds: [
            threshold("content", "content: last with half of the effect"),
            threshold("last", "last position: first with half"),
        ]
        .into_iter()
        .flatten()
        .collect(),
        reference: None,
        y_range: Some((0.0, 1.0)),
        interval_meaning: Some(match change {
            "remove" => "95 % BCa interval; random: all directions".to_string(),
            _ => "95 % BCa interval".to_string(),
        }),
    })
}

/// `40 pairs in the content, 120 at the last position`
fn numbers_of_pairs(decisive: &[Row]) -> String {
    let of = |place: &str| decisive.iter().find(|r| r.of.place == place).map_or(0, |r| r.of.n);
    format!("{} in the content, {} at the last position", plural(of("content"), "pair"), of("last"))
}

/// What random directions do at a place: their mean before each layer, within the range of all of them. There are others before each
/// layer, so that a line of one direction would join what does not belong together. None where there are none.
fn random(layers: &[LayerRow], place: &str, name: &str, role: CurveRole) -> Option<Curve> {
    let mut found: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for l in layers.iter().filter(|l| (l.place, l.change) == (place, "random")) {
        found.entry(l.layer).or_default().extend(l.share_of_gap);
    }
    let n = found.values().map(Vec::len).max().filter(|n| *n > 0)?;
    let point = |(layer, shares): (i64, Vec<f64>)| {
        let low = shares.iter().copied().reduce(f64::min);
        CurvePoint { x: layer as f64, y: mean(&shares), interval: low.zip(shares.iter().copied().reduce(f64::max)) }
    };
    let name = format!("{name}, {}", plural(n as i64, "random direction"));
    Some(Curve { name, role, points: found.into_iter().map(point).collect() })
}

/// The shares of one change at one place, with their intervals.
fn curve(layers: &[LayerRow], (place, change): (&str, &str), name: &str) -> Curve {
    let here = layers.iter().filter(|l| (l.place, l.change, l.direction) == (place, change, 0));
    let point = |l: &LayerRow| CurvePoint { x: l.layer as f64, y: l.share_of_gap, interval: l.share_interval };
    Curve { name: name.to_string(), role: CurveRole::Series, points: here.map(point).collect() }
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let layers = LayerRow::read(table(tables, LayerRow::TABLE)?)?;
    let decisive = rows(table(tables, CommittedRow::TABLE)?, &layers)?;
    let of = |place: &str, change: &str| decisive.iter().find(|r| r.of.place == place && r.of.change == change);
    let mut words = Vec::new();
    words.extend(of("content", "remove").map(|r| content(r, "Removing the signal from the content")));
    words.extend(of("content", "restore").map(|r| content(r, "Restoring it in the negative prompts' content")));
    words.extend(of("last", "remove").map(|r| arrival(r, "Removing it at the last position")));
    words.extend(of("last", "restore").map(|r| arrival(r, "Restoring it there")));
    let untold = decisive.iter().filter(|row| row.of.layer.is_some() && !row.is_told());
    let powers = untold.map(|row| Power { items: row.of.n, item: "pair", tests: row.tests }.sentence());
    // Said once of the places alike; the content may have fewer pairs.
    words.extend(powers.map(|said| said.trim_start().to_string()).find(|said| !said.is_empty()));
    words.push(control(&layers));
    let left_out = layers.iter().map(|l| l.left_out).max().unwrap_or(0);
    if left_out > 0 {
        let (have, are) = if left_out == 1 { ("has", "is") } else { ("have", "are") };
        words.push(format!(
            "{} {have} no content that differs before the last position, and {are} left out of it.",
            plural(left_out, "pair")
        ));
    }
    let block = Listing::of(table(tables, CommittedRow::TABLE)?)
        .column("place", Show::Text(CommittedRow::place.name))
        .column("change", Show::Text(CommittedRow::change.name))
        .column("measure", Show::Text(CommittedRow::measure.name))
        .column("pairs", Show::Count(CommittedRow::n.name))
        .column("layer", Show::Number(CommittedRow::layer.name, 0))
        .column("95 % interval", Show::Interval(CommittedRow::interval.name, 0))
        .column("large until", Show::Number(CommittedRow::until.name, 0))
        .column("depth", Show::Share(CommittedRow::relative_depth.name))
        .column("largest effect (nats)", Show::Signed(CommittedRow::largest_effect.name, 3))
        .column("of the gap", Show::Share(CommittedRow::largest_share.name))
        .block("The last layer with half of the effect in the content, and the first at the last position")?;
    let alt = "Share of the gap by layer, for changes of the content and of the last position.";
    let main = Section::new("Up to which layer the content changes the route")
        .paragraph(words.join(" "))
        .figure(
            dir.join("commitment.png"),
            "How much of the gap between the prompts is closed by removing the signal. Thin lines: by going as far along random \
             directions, on average; their bands: the least and the most of them.",
            alt,
        )
        .figure(
            dir.join("restored.png"),
            "How much of the gap is closed by restoring the signal in the negative prompts.",
            alt,
        )
        .block(Block::Table(block));
    let (shown, rows) = apart(&layers, &decisive);
    Ok(std::iter::once(main).chain(shown.section(&rows, dir, true)).collect())
}

/// ` (interval 3 to 4)`
fn between(row: &Row) -> String {
    match row.of.interval {
        None => String::new(),
        // A layer is a whole number: no spread among resamples is no certainty.
        Some((low, high)) if low == high && Some(low) == row.of.layer => {
            " (the same in every resample of the pairs)".to_string()
        }
        Some((low, high)) => format!(" (95 % interval {} to {})", number(Some(low), 0), number(Some(high), 0)),
    }
}

fn largest(row: &Row) -> String {
    format!(
        "moves the metric by up to {} nats ({} of the gap, 95 % interval {}, before layer {}; {}; q {})",
        signed(row.of.largest_effect, 3),
        share(row.of.largest_share),
        share_interval(row.largest_share_interval),
        number(row.of.largest_layer, 0),
        plural(row.of.n, "pair"),
        p_value(row.q),
    )
}

/// What is said where the largest effect is not beyond chance.
fn untold(row: &Row, what: &str) -> String {
    format!("{what} {}, which is not beyond chance.", largest(row))
}

fn content(row: &Row, what: &str) -> String {
    match row.of.layer {
        None => format!("{what} moves nothing towards the other prompts at any layer."),
        Some(_) if !row.is_told() => untold(row, what),
        Some(layer) => format!(
            "{what} {}. It has half of that effect or more up to **layer {}** of {}{}.{}",
            largest(row),
            number(Some(layer), 0),
            row.of.n_layers,
            between(row),
            row.next.map_or(String::new(), |(closed, ends)| format!(
                " Before layer {} it still closes {} of the gap (95 % interval {}).",
                number(Some(layer + 1.0), 0),
                share(closed),
                share_interval(ends)
            )),
        ),
    }
}

fn arrival(row: &Row, what: &str) -> String {
    match row.of.layer {
        None => format!("{what} moves nothing towards the other prompts at any layer."),
        Some(_) if !row.is_told() => untold(row, what),
        Some(layer) => {
            format!(
                "{what} {}. It has half of that effect or more from **layer {}** on{}.",
                largest(row),
                number(Some(layer), 0),
                between(row)
            )
        }
    }
}

/// The most that a random direction closes of the gap.
fn control(layers: &[LayerRow]) -> String {
    let mut words = Vec::new();
    for (place, name) in [("content", "in the content"), ("last", "at the last position")] {
        let random = || layers.iter().filter(|l| l.place == place && l.direction > 0);
        if let Some(most) = random().filter_map(|l| l.share_of_gap).reduce(f64::max) {
            let n = random().map(|l| l.direction).max().unwrap_or(0);
            words.push(format!("{} of the gap {name} ({} before each layer)", share(most), plural(n, "direction")));
        }
    }
    match words.is_empty() {
        true => String::new(),
        false => format!("Going as far along a random direction closes at most {}.", words.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(interval: Option<(f64, f64)>) -> Row<'static> {
        let of = CommittedRow {
            place: "content",
            change: "remove",
            n: 40,
            n_layers: 24,
            layer: Some(14.0),
            interval,
            largest_layer: Some(12.0),
            largest_effect: Some(-0.5),
            largest_share: Some(0.6),
            ..CommittedRow::default()
        };
        Row {
            of,
            largest_share_interval: Some((0.5, 0.7)),
            next: Some((0.139, Some((0.097, 0.239)))),
            q: Some(0.01),
            tests: 24,
        }
    }

    #[test]
    fn what_is_left_after_the_decisive_layer_is_said_with_its_interval() {
        let said = content(&row(Some((14.0, 14.0))), "Removing it");
        for part in ["60.0", "[50.0", "up to **layer 14** of 24 (the same in every resample", "Before layer 15", "[9.7"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("committed") && !said.contains("reads the content"), "{said}");
        assert!(between(&row(Some((13.0, 15.0)))).contains("13 to 15"));
    }

    #[test]
    fn random_directions_are_a_range_before_each_layer() {
        let rows = [(0, 0, 0.9), (0, 1, 0.1), (0, 2, -0.3), (1, 1, -0.5), (1, 2, 0.2)];
        let row = |(layer, direction, share)| LayerRow {
            place: "content",
            change: if direction == 0 { "remove" } else { "random" },
            layer,
            direction,
            share_of_gap: Some(share),
            ..LayerRow::default()
        };
        let layers = rows.map(row);
        let curve = random(&layers, "content", "content", CurveRole::ControlOf(0)).unwrap();
        assert_eq!(curve.name, "content, 2 random directions");
        let points: Vec<_> = curve.points.iter().map(|p| (p.x, p.interval)).collect();
        assert_eq!(points, [(0.0, Some((-0.3, 0.1))), (1.0, Some((-0.5, 0.2)))]);
        assert!((curve.points[0].y.unwrap() + 0.1).abs() < 1e-12);
        // The most that is closed, not the largest size with its sign.
        let said = control(&layers);
        assert!(said.contains("at most 20.0\u{a0}% of the gap in the content (2 directions"), "{said}");
        assert!(random(&layers, "last", "last", CurveRole::ControlOf(1)).is_none());
    }
}
