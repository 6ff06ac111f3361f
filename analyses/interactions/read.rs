//! Figures and text of interactions and Shapley values, from their tables alone.

use super::tables::{PairOfHeadsRow, ShapleyRow};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT};
use crate::analyses::halves::LEAST;
use crate::analyses::interchange::Direction;
use crate::analyses::marks::LEAST_SHARE;
use crate::analyses::power::Power;
use crate::analyses::{AnalysisError, Figures, table};
use crate::figure::{BarSeries, Bars, Estimate, Figure, Forest, ForestRow, Heatmap};
use crate::names::short_name;
use crate::report::cells::{self, interval, number, p_value, plural, share, share_interval, signed};
use crate::report::{Heading, Section};
use crate::stats::beyond_zero;
use crate::table::Table;
use crate::table::rows::Row as _;
use std::path::Path;

/// How many pairs of heads a table lists, and a forest plot shows.
const LISTED: usize = 20;

/// What a dot and a filled sign say.
const MARK: &str = "q < 0.05 and at least 1 % of the gap";

/// A head by its layer and number.
type Head = (i64, i64);

impl PairOfHeadsRow<'_> {
    fn heads(&self) -> [Head; 2] {
        [(self.layer_a, self.head_a), (self.layer_b, self.head_b)]
    }

    /// What the two heads are called.
    pub fn label(&self) -> String {
        let [a, b] = self.heads().map(|(layer, head)| cells::head(layer, head));
        format!("{a} and {b}")
    }

    /// Whether it is significant and at least one per cent of the gap.
    fn matters(&self) -> bool {
        self.q_value.is_some_and(|q| q < SIGNIFICANT)
            && self.share.value.is_some_and(|share| share.abs() >= LEAST_SHARE)
    }

    /// Whether the two together move the metric further towards the other prompt than the sum of each alone (`Some(true)`), or less
    /// far; none where that is not beyond chance, or not beyond what rounding makes of runs that have nothing to do with each other.
    fn more(&self) -> Option<bool> {
        beyond_zero(self.interval, LEAST).and_then(|_| beyond_zero(self.share.interval, 0.0))
    }
}

/// The pairs of heads, those with the strongest interactions first.
fn read(tables: &[Table]) -> Result<Vec<PairOfHeadsRow<'_>>, AnalysisError> {
    let mut rows = PairOfHeadsRow::read(table(tables, PairOfHeadsRow::TABLE)?)?;
    let size = |row: &PairOfHeadsRow| row.interaction_mean.map_or(0.0, f64::abs);
    rows.sort_by(|a, b| size(b).total_cmp(&size(a)));
    Ok(rows)
}

/// The Shapley values, by layer and head; none where none were wanted.
fn values(tables: &[Table]) -> Result<Option<Vec<ShapleyRow<'_>>>, AnalysisError> {
    table(tables, ShapleyRow::TABLE).ok().map(|table| Ok(ShapleyRow::read(table)?)).transpose()
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let rows = read(tables)?;
    let mut figures = vec![("interactions.png".to_string(), map(&rows)), ("strongest.png".to_string(), forest(&rows))];
    if let Some(values) = values(tables)? {
        figures.push(("shapley.png".to_string(), bars(&values)));
    }
    Ok(figures)
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let mut sections = vec![interactions_section(&read(tables)?, dir)];
    sections.extend(values(tables)?.map(|values| shapley_section(&values, dir)));
    Ok(sections)
}

/// What is edited, for subtitles.
fn subtitle(model: &str, direction: &str, n: i64, position: &str) -> String {
    let [base, _] = runs(direction);
    let place = match position {
        "last" => "last position".to_string(),
        "all" => "all positions".to_string(),
        other => format!("position {other}"),
    };
    format!("{}: {base} run, {}, {place}", short_name(model), plural(n, "pair"))
}

/// Which run is edited, and which is taken from.
fn runs(direction: &str) -> [&'static str; 2] {
    if direction == Direction::Necessity.name() { ["positive", "negative"] } else { ["negative", "positive"] }
}

fn subtitle_of(rows: &[PairOfHeadsRow]) -> String {
    rows.first().map_or(String::new(), |row| subtitle(row.model, row.direction, row.n, &row.position))
}

/// The interactions of every two heads: the earlier one in a column, the later one in a row.
fn map(rows: &[PairOfHeadsRow]) -> Figure {
    let mut heads: Vec<Head> = rows.iter().flat_map(PairOfHeadsRow::heads).collect();
    heads.sort_unstable();
    heads.dedup();
    let at = |head: Head| heads.binary_search(&head).unwrap_or(0);
    let cell = |row: &PairOfHeadsRow| {
        let [a, b] = row.heads().map(at);
        // The first head has no earlier one.
        (b.saturating_sub(1), a, row.interaction_mean, row.matters())
    };
    let (values, marks) = Heatmap::of_heads(rows.iter().map(cell));
    let names: Vec<String> = heads.iter().map(|(layer, head)| cells::head(*layer, *head)).collect();
    Figure::from(Heatmap {
        title: "Interactions of heads".to_string(),
        subtitle: subtitle_of(rows),
        x_label: "with the earlier head".to_string(),
        y_label: "head".to_string(),
        value_label: "effect of both less that of each (nats)".to_string(),
        mark_meaning: (!marks.is_empty()).then(|| MARK.to_string()),
        values,
        marks,
        missing_meaning: Some("in the other half, or a head with itself".to_string()),
        row_names: names.iter().skip(1).cloned().collect(),
        column_names: names.iter().take(names.len().saturating_sub(1)).cloned().collect(),
        ..Heatmap::default()
    })
}

fn forest(rows: &[PairOfHeadsRow]) -> Figure {
    let row = |row: &PairOfHeadsRow| ForestRow {
        label: row.label(),
        estimates: vec![row.interaction_mean.map(|value| Estimate {
            value,
            interval: row.interval,
            marked: Some(row.matters()),
        })],
    };
    Figure::from(Forest {
        title: "The strongest interactions".to_string(),
        subtitle: subtitle_of(rows),
        value_label: "effect of both less that of each (nats)".to_string(),
        series: vec!["interaction".to_string()],
        rows: rows.iter().take(LISTED).map(row).collect(),
        mark_meaning: Some(MARK.to_string()),
        interval_meaning: Some(INTERVAL.to_string()),
        missing_meaning: None,
    })
}

/// Each head's Shapley value beside its effect alone.
fn bars(rows: &[ShapleyRow]) -> Figure {
    let estimate = |value: Option<f64>, interval| Some(Estimate { interval, ..Estimate::new(value?).untested() });
    let series = |name: &str, estimates: Vec<Option<Estimate>>| BarSeries {
        name: name.to_string(),
        estimates,
        bands: Vec::new(),
    };
    Figure::from(Bars {
        title: "Shapley values of heads".to_string(),
        subtitle: rows.first().map_or(String::new(), |r| subtitle(r.model, r.direction, r.n, &r.position)),
        category_label: "head".to_string(),
        value_label: "effect on the logit difference (nats)".to_string(),
        categories: rows.iter().map(|row| cells::head(row.layer, row.head)).collect(),
        series: vec![
            series("Shapley value", rows.iter().map(|row| estimate(row.value_mean, row.interval)).collect()),
            series("alone", rows.iter().map(|row| estimate(row.alone.mean, row.alone.interval)).collect()),
        ],
        interval_meaning: Some(INTERVAL.to_string()),
        ..Bars::default()
    })
}

fn interactions_section(rows: &[PairOfHeadsRow], dir: &Path) -> Section {
    let section = Section::new("Interactions");
    let Some(first) = rows.first() else { return section.paragraph("Nothing was measured.") };
    let [base, donor] = runs(first.direction);
    let text = format!(
        "Heads of the {base} run are exchanged for those of the {donor} run, each alone and every two together, over {}. The \
         interaction of two heads is the effect of both less the effect of each alone. It is 0 where they work apart.{} {}",
        plural(first.n, "pair"),
        chosen(first.heads_by),
        found(rows),
    );
    let header: Vec<Heading> = std::iter::once(Heading::text("heads"))
        .chain(
            [
                "first alone (nats)",
                "second alone",
                "both",
                "interaction",
                "95 % interval",
                "share of the gap",
                "95 % interval",
            ]
            .map(Heading::number),
        )
        .chain([Heading::text("together")])
        .chain(["q", "family-wise p"].map(Heading::number))
        .collect();
    let row = |row: &PairOfHeadsRow| {
        let (low, high) = row.interval.unzip();
        vec![
            row.label(),
            signed(row.effect_a, 3),
            signed(row.effect_b, 3),
            signed(row.effect_both, 3),
            signed(row.interaction_mean, 3),
            interval(low, high, 3),
            share(row.share.value),
            share_interval(row.share.interval),
            row.more().map_or("–", |more| if more { "more" } else { "less" }).to_string(),
            p_value(row.q_value),
            p_value(row.p_max),
        ]
    };
    let listed = rows.iter().take(LISTED).map(row).collect();
    section
        .paragraph(text)
        .paragraph(meaning(first.direction))
        .figure(
            dir.join("interactions.png"),
            format!("Mean interactions; all are in pairs_of_heads.parquet. Dots mark {MARK}."),
            "Heatmap of the interaction of every two heads.",
        )
        .table("The strongest interactions; all are in pairs_of_heads.parquet", header, listed)
        .figure(
            dir.join("strongest.png"),
            "The strongest interactions with their intervals, the strongest on top.",
            "Forest plot of the strongest interactions with 95 % intervals.",
        )
}

/// A sentence on why these heads, after a space.
fn chosen(heads_by: &str) -> &'static str {
    match heads_by {
        "strongest" => {
            " The heads are those whose own exchange moves the metric of the same pairs most. A head that does nothing alone, such as one \
             that takes over only where another is silent, is not among them."
        }
        _ => "",
    }
}

/// What an interaction's sign can come of, in a direction.
fn meaning(direction: &str) -> &'static str {
    match direction == Direction::Necessity.name() {
        true => {
            "Where the table says more, both together move the metric further towards the negative prompt than the sum of each alone. \
             Heads that stand in for each other do so, because the loss of one is made up for by the other. Where it says less, they do \
             not move it as far. So do heads that must both be there, and heads of which one feeds the other; the table alone does not \
             tell these two apart."
        }
        false => {
            "Where the table says more, both together move the metric further towards the positive prompt than the sum of each alone. \
             Heads that must both be there do so. Where it says less, they do not move it as far. So do heads that stand in for each \
             other, and heads of which one feeds the other; the table alone does not tell these two apart."
        }
    }
}

/// Sentences on how many interactions matter, and on the strongest.
fn found(rows: &[PairOfHeadsRow]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let mattering: Vec<&PairOfHeadsRow> = rows.iter().filter(|row| row.matters()).collect();
    let more = mattering.iter().filter(|row| row.more() == Some(true)).count();
    let less = mattering.iter().filter(|row| row.more() == Some(false)).count();
    let counted = match mattering.len() {
        0 => {
            let power = Power { items: first.n, item: "pair", tests: rows.len() }.sentence();
            format!(
                "None of {} has q < {SIGNIFICANT} and an interaction of at least 1 % of the gap.{power}",
                of_all(rows)
            )
        }
        n => format!(
            "Of {}, {n} {} q < {SIGNIFICANT} and an interaction of at least 1 % of the gap: {more} {} more together than the sum of \
             each alone, {less} less.",
            of_all(rows),
            if n == 1 { "has" } else { "have" },
            if more == 1 { "does" } else { "do" },
        ),
    };
    let (low, high) = first.interval.unzip();
    let of_gap = match first.share.interval {
        Some(ends) => format!(", {} of the gap {}", share(first.share.value), share_interval(Some(ends))),
        None => String::new(),
    };
    let [_, donor] = runs(first.direction);
    let said = match first.more() {
        Some(true) => format!(" Together they move it further towards the {donor} prompt than the sum of each alone."),
        Some(false) => {
            format!(" Together they do not move it as far towards the {donor} prompt as the sum of each alone.")
        }
        None => " The interaction is not beyond chance.".to_string(),
    };
    format!(
        "{counted} The strongest is that of **{}**: {} nats, 95 % interval {}{of_gap} (q {}). Both together move the metric by {} \
         nats, the first alone by {} and the second alone by {}.{said}",
        first.label(),
        signed(first.interaction_mean, 3),
        interval(low, high, 3),
        p_value(first.q_value),
        signed(first.effect_both, 3),
        signed(first.effect_a, 3),
        signed(first.effect_b, 3),
    )
}

fn of_all(rows: &[PairOfHeadsRow]) -> String {
    format!("{} of heads", plural(rows.len() as i64, "pair"))
}

fn shapley_section(rows: &[ShapleyRow], dir: &Path) -> Section {
    let total: f64 = rows.iter().filter_map(|row| row.value_mean).sum();
    let coalitions = rows.first().map_or(0, |row| row.coalitions);
    let sampled = rows.iter().any(|row| row.standard_error.is_some());
    let how = match sampled {
        true => "Orders were drawn at random: the standard error says how far the mean value may be off for that",
        false => "All sets of heads were run, so that the values are exact",
    };
    let text = format!(
        "Exchange the heads one after another, and each adds something to the effect, which depends on the order. A head's Shapley value \
         is the mean of what it adds over all orders. {how} ({} for each pair). The values add up to the effect of all {} heads \
         together, {} nats.",
        plural(coalitions, "set"),
        rows.len(),
        signed(total, 3),
    );
    let mut header = vec![Heading::text("head")];
    header.extend(
        ["Shapley value (nats)", "95 % interval", "share of the gap", "95 % interval", "alone (nats)", "95 % interval"]
            .map(Heading::number),
    );
    header.extend(sampled.then(|| Heading::number("standard error (nats)")));
    let mut sorted: Vec<&ShapleyRow> = rows.iter().collect();
    let size = |row: &ShapleyRow| row.value_mean.map_or(0.0, f64::abs);
    sorted.sort_by(|a, b| size(b).total_cmp(&size(a)));
    let row = |row: &&ShapleyRow| {
        let [(low, high), (alone_low, alone_high)] = [row.interval, row.alone.interval].map(Option::unzip);
        let mut cells = vec![
            cells::head(row.layer, row.head),
            signed(row.value_mean, 3),
            interval(low, high, 3),
            share(row.share.value),
            share_interval(row.share.interval),
            signed(row.alone.mean, 3),
            interval(alone_low, alone_high, 3),
        ];
        cells.extend(sampled.then(|| number(row.standard_error, 3)));
        cells
    };
    Section::new("Shapley values")
        .paragraph(text)
        .figure(
            dir.join("shapley.png"),
            "Each head's Shapley value beside its effect alone.",
            "Bars of each head's Shapley value and of its effect alone, with 95 % intervals.",
        )
        .table(
            "Shapley values, the largest first; all are in shapley.parquet",
            header,
            sorted.iter().map(row).collect(),
        )
}
