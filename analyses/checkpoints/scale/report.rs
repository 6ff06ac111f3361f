//! Figures and text of a mixture at several scales, from the table over pairs.

use super::tables::{SIDES, ScaleRow};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, interval};
use crate::analyses::halves::{Moved, Order, Shown};
use crate::analyses::power::Power;
use crate::analyses::prelude::*;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves};
use crate::names::short_name;
use crate::report::cells::{exact, p_value, plural, signed};

const METRIC: &str = "scale.png";

/// What the table says.
struct Read<'a> {
    rows: Vec<ScaleRow<'a>>,
}

impl<'a> Read<'a> {
    fn of(tables: &'a [Table]) -> Result<Self, AnalysisError> {
        Ok(Read { rows: ScaleRow::read(table(tables, ScaleRow::TABLE)?)? })
    }

    fn first(&self) -> ScaleRow<'a> {
        self.rows.first().cloned().unwrap_or_default()
    }

    fn subtitle(&self) -> String {
        let first = self.first();
        format!("{}, {}", short_name(first.model), plural(first.n, "pair"))
    }

    /// The rows of one kind of prompts, from the smallest scale on.
    fn side(&self, side: &str) -> Vec<&ScaleRow<'a>> {
        self.rows.iter().filter(|row| row.side == side).collect()
    }

    /// The mean metric of both kinds of prompts by scale.
    fn curves(&self) -> Figure {
        let point = |row: &&ScaleRow<'a>| CurvePoint { x: row.scale, y: row.metric_mean, interval: row.interval };
        let curve = |side: &str| Curve {
            name: format!("{side} prompts"),
            role: CurveRole::Series,
            points: self.side(side).iter().map(point).collect(),
        };
        Figure::from(Curves {
            title: "The metric by the scale of the mixture".to_string(),
            subtitle: self.subtitle(),
            x_label: "scale: 0 is the base, 1 the recipe".to_string(),
            y_label: "logit difference (nats)".to_string(),
            curves: SIDES.into_iter().map(curve).collect(),
            interval_meaning: Some(INTERVAL.to_string()),
            ..Curves::default()
        })
    }

    /// What moved of the answer and of the foil, after one kind of prompts.
    fn apart(&self, side: &str) -> (Shown<'static>, Vec<Moved>) {
        let shown = Shown {
            file: format!("halves-{side}.png"),
            title: format!("Answer and foil apart, {side} prompts"),
            subtitle: self.subtitle(),
            what: "change",
            subject: "the mixture",
            order: Order::Own("scale of the mixture"),
            ..Shown::default()
        };
        let moved = |row: &&ScaleRow<'a>| Moved {
            label: format!("scale {}", exact(row.scale)),
            whole: row.change_mean,
            halves: row.halves,
        };
        // At scale 0 nothing is added.
        let rows = self.side(side).iter().filter(|row| row.scale != 0.0).map(moved).collect();
        (shown, rows)
    }

    /// What became of the metric after one kind of prompts.
    fn finding(&self, side: &str) -> String {
        let rows = self.side(side);
        let at = |scale: f64| rows.iter().find(|row| row.scale == scale).and_then(|row| row.metric_mean);
        let recipe =
            at(1.0).map_or(String::new(), |metric| format!(", and {} with the recipe as it is", signed(metric, 3)));
        let tested = || rows.iter().filter(|row| row.q_value.is_some());
        let size = |row: &&&ScaleRow| row.change_mean.map_or(0.0, f64::abs);
        let largest = tested().max_by(|a, b| size(a).total_cmp(&size(b))).map_or(String::new(), |row| {
            format!(
                " The largest change is {} nats at scale {} (95 % interval {}, q {}).{}",
                signed(row.change_mean, 3),
                exact(row.scale),
                interval(row.change_interval),
                p_value(row.q_value),
                row.halves.sentence("There the mixture")
            )
        });
        let power = match tested().any(|row| row.q_value.is_some_and(|q| q < SIGNIFICANT)) {
            true => String::new(),
            false => Power { items: self.first().n, item: "pair", tests: tested().count() }.sentence(),
        };
        format!(
            "After {side} prompts the mean logit difference of the base is {} nats{recipe}.{largest}{power}",
            signed(at(0.0), 3)
        )
    }

    fn listed(&self, table: &Table) -> Result<Block, AnalysisError> {
        let listing = Listing::of(table)
            .column("prompts", Show::Text(ScaleRow::side.name))
            .column("scale", Show::Exact(ScaleRow::scale.name))
            .column("metric (nats)", Show::Signed(ScaleRow::metric_mean.name, 3))
            .column("95 % interval", Show::Interval(ScaleRow::interval.name, 3))
            .column("change (nats)", Show::Signed(ScaleRow::change_mean.name, 3))
            .column("95 % interval", Show::Interval(ScaleRow::change_interval.name, 3))
            .column("q", Show::PValue(ScaleRow::q_value.name))
            .column("family-wise p", Show::PValue(ScaleRow::p_max.name));
        Ok(Block::Table(listing.block("Every scale; each pair's numbers are in pairs.parquet")?))
    }
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let read = Read::of(tables)?;
    let mut figures = vec![(METRIC.to_string(), read.curves())];
    for side in SIDES {
        let (shown, rows) = read.apart(side);
        figures.extend(shown.figure(&rows).map(|figure| (shown.file, figure)));
    }
    Ok(figures)
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let read = Read::of(tables)?;
    let what = format!(
        "The mixture is `{}`. A scale is what its coefficients are multiplied by: at 0 the model is the base. Changes are those of \
         each pair's own metric from scale 0 on.",
        read.first().mixture
    );
    let caption = "The mean logit difference by scale, after the positive and after the negative prompts of the pairs.";
    let alt = "Curves of the mean logit difference over scales of the mixture, with 95 % intervals.";
    let mut section = Section::new("The metric by scale").paragraph(what);
    for side in SIDES {
        section = section.paragraph(read.finding(side));
    }
    let section = section.figure(dir.join(METRIC), caption, alt).block(read.listed(table(tables, ScaleRow::TABLE)?)?);
    let mut sections = vec![section];
    for (i, side) in SIDES.into_iter().enumerate() {
        let (shown, rows) = read.apart(side);
        sections.extend(shown.section(&rows, dir, i == 0));
    }
    Ok(sections)
}
