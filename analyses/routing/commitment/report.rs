//! Early commitment's figure and words, from its tables alone.

use super::LayerRow;
use super::committed::CommittedRow;
use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::halves::{Moved, Shown, moved};
use crate::analyses::power::Power;
use crate::analyses::{AnalysisError, Figures, table};
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Figure, Threshold};
use crate::names::short_name;
use crate::report::cells::{number, p_value, plural, share, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::table::Table;
use crate::table::rows::Row as _;
use std::path::Path;

/// A row of the table of decisive layers, with what was tested.
struct Row<'a> {
    of: CommittedRow<'a>,
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

fn rows<'a>(table: &'a Table, layers: &Table) -> Result<Vec<Row<'a>>, AnalysisError> {
    let (places, changes) = (layers.column(LayerRow::place)?, layers.column(LayerRow::change)?);
    let (at, q) = (layers.column(LayerRow::layer)?, layers.column(LayerRow::q_value)?);
    let row = |of: CommittedRow<'a>| {
        let same = |j: &usize| (places[*j], changes[*j]) == (of.place, of.change);
        let tested: Vec<usize> = (0..layers.rows()).filter(same).collect();
        let largest = tested.iter().find(|j| Some(at[**j] as f64) == of.largest_layer);
        Row { q: largest.and_then(|j| q[*j]), tests: tested.len(), of }
    };
    Ok(CommittedRow::read(table)?.into_iter().map(row).collect())
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let layers = table(tables, LayerRow::TABLE)?;
    let decisive = rows(table(tables, CommittedRow::TABLE)?, layers)?;
    let draw = |change: &str, title: &str| curves(layers, &decisive, change, title);
    let mut figures = vec![
        ("commitment.png".to_string(), draw("remove", "The signal removed, layer by layer")?),
        ("restored.png".to_string(), draw("restore", "The signal restored, layer by layer")?),
    ];
    let (shown, rows) = apart(layers, &decisive)?;
    figures.extend(shown.figure(&rows).map(|figure| (shown.file, figure)));
    Ok(figures)
}

/// The halves of the largest effect of each change at each place.
fn apart(layers: &Table, decisive: &[Row]) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
    let (places, changes, at) =
        (layers.column(LayerRow::place)?, layers.column(LayerRow::change)?, layers.column(LayerRow::layer)?);
    let row = |of: &Row| {
        let here = |i: &usize| {
            (places[*i], changes[*i]) == (of.of.place, of.of.change) && Some(at[*i] as f64) == of.of.largest_layer
        };
        let i = (0..layers.rows()).find(here)?;
        Some((i, format!("{}, {}, L{}", of.of.change, of.of.place, at[i])))
    };
    let model = short_name(layers.column(LayerRow::model)?.first().copied().unwrap_or_default());
    let shown = Shown {
        subtitle: format!("{model}, the largest effect of each change at each place"),
        what: "effect",
        subject: "the change",
        strongest: false,
        ..Shown::default()
    };
    Ok((
        shown,
        moved(layers.column(LayerRow::halves)?, layers.column(LayerRow::effect_mean)?, decisive.iter().filter_map(row)),
    ))
}

/// The share of the gap that a change closes at each layer, at both places.
fn curves(layers: &Table, decisive: &[Row], change: &str, title: &str) -> Result<Figure, AnalysisError> {
    let mut lines = Vec::new();
    for (place, name) in [("content", "content"), ("last", "last position")] {
        lines.push(curve(layers, (place, change, 0), name, CurveRole::Series)?);
    }
    if change == "remove" {
        for (of, (place, name)) in
            [("content", "random, content"), ("last", "random, last position")].iter().enumerate()
        {
            let (places, directions) = (layers.column(LayerRow::place)?, layers.column(LayerRow::direction)?);
            let last = (0..layers.rows()).filter(|i| places[*i] == *place).map(|i| directions[i]).max().unwrap_or(0);
            for direction in 1..=last {
                let role = CurveRole::ControlOf(of);
                lines.push(curve(layers, (place, "random", direction), name, role)?);
            }
        }
    }
    let of = |place: &str| decisive.iter().find(|r| r.of.place == place && r.of.change == change);
    let threshold = |place: &str, label: &str| {
        let row = of(place)?;
        Some(Threshold { x: row.of.layer.filter(|_| row.is_told())?, label: label.to_string(), interval: None })
    };
    let n = |place: &str| of(place).map_or(0, |r| r.of.n);
    let model = short_name(layers.column(LayerRow::model)?.first().copied().unwrap_or_default());
    Ok(Figure::from(Curves {
        title: title.to_string(),
        subtitle: format!(
            "{model}, {} at the last position, {} in the content",
            plural(n("last"), "pair"),
            n("content")
        ),
        x_label: "layer before which the residual stream is changed".to_string(),
        y_label: "effect (share of the gap)".to_string(),
        curves: lines,
        thresholds: [threshold("content", "content read"), threshold("last", "arrived")]
            .into_iter()
            .flatten()
            .collect(),
        y_range: Some((0.0, 1.0)),
        interval_meaning: Some("95 % BCa interval".to_string()),
    }))
}

/// The shares of one place, change and direction with their intervals.
fn curve(
    layers: &Table,
    (place, change, direction): (&str, &str, i64),
    name: &str,
    role: CurveRole,
) -> Result<Curve, AnalysisError> {
    let (places, changes, at) =
        (layers.column(LayerRow::place)?, layers.column(LayerRow::change)?, layers.column(LayerRow::layer)?);
    let (directions, shares) = (layers.column(LayerRow::direction)?, layers.column(LayerRow::share_of_gap)?);
    let ends = layers.column(LayerRow::share_interval)?;
    let here = |i: &usize| (places[*i], changes[*i], directions[*i]) == (place, change, direction);
    let point = |i: usize| CurvePoint { x: at[i] as f64, y: shares[i], interval: ends[i] };
    Ok(Curve { name: name.to_string(), role, points: (0..layers.rows()).filter(here).map(point).collect() })
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let layers = table(tables, LayerRow::TABLE)?;
    let decisive = rows(table(tables, CommittedRow::TABLE)?, layers)?;
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
    words.push(control(layers)?);
    let left_out = layers.column(LayerRow::left_out)?.iter().copied().max().unwrap_or(0);
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
        .block("Where the content is read, and where the signal has arrived")?;
    let alt = "Share of the gap by layer, for changes of the content and of the last position.";
    let main = Section::new("Until where the route is open")
        .paragraph(words.join(" "))
        .figure(
            dir.join("commitment.png"),
            "What removing the signal closes of the gap between the prompts; grey: as far along random directions.",
            alt,
        )
        .figure(dir.join("restored.png"), "What restoring it in the negative prompts closes of the gap.", alt)
        .block(Block::Table(block));
    let (shown, rows) = apart(layers, &decisive)?;
    Ok(std::iter::once(main).chain(shown.section(&rows, dir, true)).collect())
}

/// ` (interval 3 to 4)`
fn between(row: &Row) -> String {
    let ends = |(low, high)| format!(" (95 % interval {} to {})", number(Some(low), 0), number(Some(high), 0));
    row.of.interval.map_or(String::new(), ends)
}

fn largest(row: &Row) -> String {
    format!(
        "moves the metric by up to {} nats ({} of the gap, before layer {}; {}; q {})",
        signed(row.of.largest_effect, 3),
        share(row.of.largest_share),
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
            "{what} {}. It does so until before **layer {}** of {}{}: that layer reads the content, and from the next on the \
             route is committed.",
            largest(row),
            number(Some(layer), 0),
            row.of.n_layers,
            between(row)
        ),
    }
}

fn arrival(row: &Row, what: &str) -> String {
    match row.of.layer {
        None => format!("{what} moves nothing towards the other prompts at any layer."),
        Some(_) if !row.is_told() => untold(row, what),
        Some(layer) => {
            format!(
                "{what} {}. The signal is there from before **layer {}** on{}.",
                largest(row),
                number(Some(layer), 0),
                between(row)
            )
        }
    }
}

/// The largest effect of the random directions.
fn control(layers: &Table) -> Result<String, AnalysisError> {
    let (places, directions, shares) =
        (layers.column(LayerRow::place)?, layers.column(LayerRow::direction)?, layers.column(LayerRow::share_of_gap)?);
    let mut words = Vec::new();
    for (place, name) in [("content", "in the content"), ("last", "at the last position")] {
        let random = (0..layers.rows()).filter(|i| places[*i] == place && directions[*i] > 0);
        let found: Vec<f64> = random.clone().filter_map(|i| shares[i]).collect();
        if let Some(most) = found.into_iter().reduce(|most, x| if x.abs() > most.abs() { x } else { most }) {
            let directions = random.map(|i| directions[i]).max().unwrap_or(0);
            words.push(format!("{} {name} (of {directions} before each layer)", share(most)));
        }
    }
    Ok(match words.is_empty() {
        true => String::new(),
        false => format!("Going as far along a random direction closes at most {} of the gap.", words.join(" and ")),
    })
}
