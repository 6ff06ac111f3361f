//! Figures and text of circuits, from their tables alone.

use super::tables::{CurveRow, FaithfulnessRow, MinimalityRow, StabilityRow, SummaryRow};
use crate::analyses::edges::{Drawn, OfEdge, layered};
use crate::analyses::effects::{INTERVAL, Share};
use crate::analyses::prelude::*;
use crate::figure::{BarSeries, Bars, Curve, CurvePoint, CurveRole, Curves, Estimate, Graph, Threshold};
use crate::names::short_name;
use crate::report::cells::{count, number, plural, share, share_interval, signed};
use crate::stats::beyond_zero;

/// How many edges a table lists, and a figure of bars shows.
const LISTED: usize = 20;

/// What a score is, for text and figures.
fn described(score: &str) -> &str {
    match score {
        "exact" => "exact effects",
        "reader_exact" => "the estimate by the reader computed anew",
        "eap" => "edge attribution patching",
        "eap_ig" => "EAP-IG",
        "graph" => "the file's scores",
        other => other,
    }
}

/// The tables of circuits that were chosen by scores.
struct Read<'a> {
    curve: Vec<CurveRow<'a>>,
    summary: Vec<SummaryRow<'a>>,
    minimality: Vec<MinimalityRow<'a>>,
    stability: Vec<StabilityRow<'a>>,
}

impl<'a> Read<'a> {
    /// None where a file's circuit was run.
    fn of(tables: &'a [Table]) -> Result<Option<Read<'a>>, AnalysisError> {
        let Ok(summary) = table(tables, SummaryRow::TABLE) else { return Ok(None) };
        Ok(Some(Read {
            curve: CurveRow::read(table(tables, CurveRow::TABLE)?)?,
            summary: SummaryRow::read(summary)?,
            minimality: MinimalityRow::read(table(tables, MinimalityRow::TABLE)?)?,
            stability: StabilityRow::read(table(tables, StabilityRow::TABLE)?)?,
        }))
    }

    fn subtitle(&self) -> String {
        let Some(first) = self.summary.first() else { return String::new() };
        let model = short_name(first.model);
        format!("{model}: edges of the positive run kept, all others taken; {}", plural(first.n, "pair"))
    }

    /// Faithfulness over the size of the circuit, of every ranking, beside random circuits.
    fn curves(&self) -> Figure {
        let points = |rows: &mut dyn Iterator<Item = &CurveRow>, y: fn(&CurveRow) -> Option<f64>, band: Band| {
            let point = |row: &CurveRow| CurvePoint { x: row.fraction.log10(), y: y(row), interval: band(row) };
            rows.map(point).collect::<Vec<_>>()
        };
        let mut curves = Vec::new();
        for of in &self.summary {
            let mut rows = self.curve.iter().filter(|row| row.score == of.score && row.order == "score");
            curves.push(Curve {
                name: of.score.to_string(),
                role: CurveRole::Series,
                points: points(&mut rows, |row| row.faithfulness, |row| row.interval),
            });
        }
        let first = self.summary.first().map(|row| row.score);
        let mut random = self.curve.iter().filter(|row| Some(row.score) == first && row.order == "score");
        let random = points(&mut random, |row| row.random_mean, |row| row.random_range);
        if random.iter().any(|point| point.y.is_some()) {
            curves.push(Curve { name: "random circuits".to_string(), role: CurveRole::Control, points: random });
        }
        let chosen = self.summary.first().filter(|row| row.edges > 0);
        let all = self.curve.iter().find(|row| row.fraction == 1.0).map_or(1, |row| row.edges.max(1));
        let threshold = |row: &SummaryRow| Threshold {
            x: (row.edges as f64 / all as f64).log10(),
            label: format!("chosen by {}: {}", row.score, plural(row.edges, "edge")),
            interval: None,
        };
        Figure::from(Curves {
            title: "Faithfulness of circuits".to_string(),
            subtitle: self.subtitle(),
            x_label: format!("log10 of the share of edges kept (0 is all {})", count(all)),
            y_label: "share of the gap that is kept".to_string(),
            shares: true,
            curves,
            thresholds: chosen.map(threshold).into_iter().collect(),
            reference: Some((1.0, "the model itself".to_string())),
            y_range: None,
            interval_meaning: Some(format!("{INTERVAL}; of random circuits the range")),
        })
    }

    /// The chosen circuit by the first ranking, with its file: one graph, or one a span that has edges in it.
    fn graphs(&self) -> Vec<(String, Graph)> {
        let Some(score) = self.summary.first().map(|row| row.score) else { return Vec::new() };
        let mut places: Vec<(Option<&str>, Vec<&MinimalityRow>)> = Vec::new();
        for row in self.minimality.iter().filter(|row| row.score == score) {
            match places.iter_mut().find(|(place, _)| *place == row.position) {
                Some((_, rows)) => rows.push(row),
                None => places.push((row.position, vec![row])),
            }
        }
        let graph = |(place, rows): (Option<&str>, Vec<&MinimalityRow>)| {
            let file = place.map_or("graph.png".to_string(), |place| format!("graph-{place}.png"));
            (file, self.graph(score, place, rows))
        };
        places.into_iter().map(graph).collect()
    }

    fn graph(&self, score: &str, place: Option<&str>, mut rows: Vec<&MinimalityRow>) -> Graph {
        rows.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let drawn = rows.into_iter().filter_map(|row| {
            let (effect, interval) = (row.faithfulness_lost?, row.interval);
            Some(Drawn { edge: &row.edge, effect, interval, significant: holds(row) })
        });
        let (nodes, edges) = layered(drawn);
        Graph {
            title: place.map_or("The chosen circuit".to_string(), |place| format!("The chosen circuit at {place}")),
            subtitle: format!("{}; chosen by {}", self.subtitle(), described(score)),
            effect_label: "share of the gap lost without the edge".to_string(),
            dashed_meaning: "the loss' interval holds 0".to_string(),
            nodes,
            edges,
        }
    }

    /// How often resamples choose the edges of the first ranking's circuit.
    fn bars(&self) -> Option<Figure> {
        let score = self.summary.first()?.score;
        let mut rows: Vec<&StabilityRow> =
            self.stability.iter().filter(|row| row.score == score && row.in_circuit).collect();
        rows.sort_by(|a, b| b.support.abs().total_cmp(&a.support.abs()));
        let rows: Vec<&StabilityRow> = rows.into_iter().take(2 * LISTED).collect();
        let estimate = |row: &&StabilityRow| Some(Estimate { value: row.selected, interval: None, marked: None });
        (!rows.is_empty()).then(|| {
            Figure::from(Bars {
                title: "Stability of the chosen circuit".to_string(),
                subtitle: format!("{}; its {} edges of the largest scores", self.subtitle(), rows.len()),
                category_label: "edge, the largest score first".to_string(),
                value_label: "share of resamples that choose it".to_string(),
                shares: true,
                categories: rows.iter().map(|row| named(row)).collect(),
                series: vec![BarSeries {
                    name: score.to_string(),
                    estimates: rows.iter().map(estimate).collect(),
                    bands: Vec::new(),
                }],
                ..Bars::default()
            })
        })
    }

    fn curve_section(&self, tables: &[Table], dir: &Path) -> Result<Section, AnalysisError> {
        let text = "A circuit's edges are as in the positive run, and all others are taken from the negative one. Faithfulness is the \
                    share of the gap between the two runs that is kept: 100 % is the whole model's, 0 % the negative run's. CPR is the \
                    area under faithfulness over the share of edges, CMD the area under its distance from 100 %; both run over ten \
                    sizes from 0.1 % to all, as in MIB, and large circuits have most of their weight. CPR (log) weighs each \
                    tenfold alike.";
        let summary = Listing::of(table(tables, SummaryRow::TABLE)?)
            .column("edges ranked by", Show::Text(SummaryRow::score.name))
            .column("CPR", Show::Number(SummaryRow::cpr.name, 3))
            .column("CMD", Show::Number(SummaryRow::cmd.name, 3))
            .column("CPR (log)", Show::Number(SummaryRow::cpr_log.name, 3))
            .column("edges of the chosen", Show::Count(SummaryRow::edges.name))
            .column("on paths", Show::Count(SummaryRow::edges_left.name))
            .column("faithfulness", Show::Share("faithfulness"))
            .column("95 % interval", Show::ShareInterval("faithfulness_ci_"))
            .column("without it", Show::Share("completeness"))
            .column("95 % interval", Show::ShareInterval("completeness_ci_"))
            .column("overlap", Show::Number(SummaryRow::jaccard.name, 2))
            .block("Rankings, and the circuit chosen by each")?;
        let curve = Listing::of(table(tables, CurveRow::TABLE)?)
            .only(CurveRow::order.name, "score")
            .column("edges ranked by", Show::Text(CurveRow::score.name))
            .column("share of edges", Show::Share(CurveRow::fraction.name))
            .column("edges", Show::Count(CurveRow::edges.name))
            .column("on paths", Show::Count(CurveRow::edges_left.name))
            .column("faithfulness", Show::Share(CurveRow::faithfulness.name))
            .column("95 % interval", Show::ShareInterval("ci_"))
            .column("random", Show::Share(CurveRow::random_mean.name))
            .block("Faithfulness by size, edges ranked by score")?;
        let mut section = Section::new("Faithfulness").paragraph(text);
        for of in &self.summary {
            section = section.paragraph(found(of));
        }
        Ok(section
            .block(Block::Table(summary))
            .figure(
                dir.join(CURVES),
                "Share of the gap that circuits keep, by the share of edges in them; shaded: intervals, of random circuits their range.",
                "Curves of faithfulness over the size of circuits.",
            )
            .block(Block::Table(curve)))
    }

    fn chosen_section(&self, tables: &[Table], dir: &Path) -> Result<Option<Section>, AnalysisError> {
        let Some(of) = self.summary.first().filter(|row| row.edges > 0) else { return Ok(None) };
        let mut section = Section::new("The chosen circuit");
        let tested: Vec<&MinimalityRow> = self.minimality.iter().filter(|row| row.score == of.score).collect();
        if let Some(first) = tested.first() {
            let needed = tested.iter().filter(|row| holds(row)).count();
            section = section.paragraph(format!(
                "Each of its {} was taken out in turn, over {}. Of {} the loss has an interval that does not hold 0.",
                plural(tested.len() as i64, "edge"),
                plural(first.n, "pair"),
                count(needed as i64),
            ));
            for (file, graph) in self.graphs() {
                section = section.figure(
                    dir.join(file),
                    format!("{}: its edges, as thick as what is lost without them.", graph.title),
                    format!("Layered graph. {}.", graph.title),
                );
            }
            let spans = tested.iter().any(|row| row.position.is_some());
            let listing = Listing::of(table(tables, MinimalityRow::TABLE)?).only(MinimalityRow::score.name, of.score);
            section = section.block(lost(listing, spans)?);
        } else {
            section = section.paragraph(format!(
                "It has {} on paths; no edge was taken out of it by itself.",
                plural(of.edges_left, "edge")
            ));
        }
        if self.bars().is_some() {
            let always = self.stability.iter().filter(|row| row.score == of.score && row.selected >= 0.95).count();
            section = section
                .paragraph(format!(
                    "Of circuits of as many edges, chosen on {} of the pairs, two overlap by {} on average (Jaccard). {} in at least \
                     95 % of them.",
                    plural(of.resamples, "resample"),
                    number(of.jaccard, 2),
                    match always {
                        1 => "1 edge is".to_string(),
                        n => format!("{} edges are", count(n as i64)),
                    },
                ))
                .figure(
                    dir.join(STABILITY),
                    "Share of the resamples that choose an edge of the circuit.",
                    "Bars of how often resamples choose each edge.",
                );
        } else {
            let why = "How stable the circuit is was not measured: this needs every pair's own scores, which `edges` leaves \
                       where it is asked to keep them, and two pairs at least.";
            section = section.paragraph(why);
        }
        Ok(Some(section))
    }
}

/// An interval of a row.
type Band = fn(&CurveRow) -> Option<(f64, f64)>;

const CURVES: &str = "faithfulness.png";
const STABILITY: &str = "stability.png";

fn size(row: &MinimalityRow) -> f64 {
    row.faithfulness_lost.map_or(0.0, f64::abs)
}

/// An edge; where circuits tell spans apart, with its span.
fn named(row: &StabilityRow) -> String {
    let at = row.position.map_or(String::new(), |place| format!(" at {place}"));
    format!("{}->{}{at}", row.edge.writer, row.edge.reader)
}

/// Whether the loss' interval does not hold 0.
fn holds(row: &MinimalityRow) -> bool {
    beyond_zero(row.interval, 0.0).is_some()
}

fn lie(edges: i64) -> String {
    if edges == 1 { "1 lies".to_string() } else { format!("{} lie", count(edges)) }
}

/// A sentence on the circuit that was chosen by a ranking.
fn found(of: &SummaryRow) -> String {
    if of.edges == 0 {
        return format!(
            "By {}: the two prompts do not differ on average, so that no circuit can be chosen.",
            described(of.score)
        );
    }
    format!(
        "By {}, the smallest circuit that keeps enough has {}, of which {} on paths; of the gap of {} nats it keeps {}. With these edges \
         taken and all others kept, the share that is left is {}.",
        described(of.score),
        plural(of.edges, "edge"),
        lie(of.edges_left),
        number(of.positive_mean.zip(of.negative_mean).map(|(a, b)| a - b), 3),
        with_interval(&of.faithfulness),
        with_interval(&of.completeness),
    )
}

/// A share, with its interval where there is one.
pub fn with_interval(kept: &Share) -> String {
    let interval = kept.interval.map(|ends| format!(" (95 % interval {})", share_interval(Some(ends))));
    format!("{}{}", share(kept.value), interval.unwrap_or_default())
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let Some(read) = Read::of(tables)? else { return Ok(Figures::new()) };
    let mut figures: Figures = vec![(CURVES.to_string(), read.curves())];
    figures.extend(read.graphs().into_iter().map(|(file, graph)| (file, graph.into())));
    figures.extend(read.bars().map(|bars| (STABILITY.to_string(), bars)));
    Ok(figures)
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let Some(read) = Read::of(tables)? else { return Ok(vec![file_section(tables)?]) };
    let mut sections = vec![read.curve_section(tables, dir)?];
    sections.extend(read.chosen_section(tables, dir)?);
    Ok(sections)
}

/// The circuit of a file.
fn file_section(tables: &[Table]) -> Result<Section, AnalysisError> {
    let rows = FaithfulnessRow::read(table(tables, FaithfulnessRow::TABLE)?)?;
    let Some(row) = rows.first() else { return Ok(Section::new("Faithfulness")) };
    let text = format!(
        "The file's circuit has {}, of which {} on paths from the embedding to the logits. With these kept, and all others taken from \
         the negative run, the metric is {} nats over {}: of the gap it keeps {}. With these taken and all others kept, the share that \
         is left is {}.",
        plural(row.edges, "edge"),
        lie(row.edges_left),
        signed(row.metric_mean, 3),
        plural(row.n, "pair"),
        with_interval(&row.kept),
        with_interval(&row.completeness),
    );
    let mut section = Section::new("Faithfulness").paragraph(text);
    let minimality = table(tables, MinimalityRow::TABLE)?;
    if minimality.rows() > 0 {
        section = section.block(lost(Listing::of(minimality), false)?);
    }
    Ok(section)
}

/// The edges of a circuit without which most is lost; where circuits tell spans apart, with their spans.
fn lost(listing: Listing, spans: bool) -> Result<Block, AnalysisError> {
    let mut listing = listing
        .strongest(MinimalityRow::faithfulness_lost.name)
        .first(LISTED)
        .column("writer", Show::Text(OfEdge::writer.name))
        .column("reader", Show::Text(OfEdge::reader.name));
    if spans {
        listing = listing.column("at", Show::Text(MinimalityRow::position.name));
    }
    let listing = listing
        .column("lost without it", Show::Share(MinimalityRow::faithfulness_lost.name))
        .column("95 % interval", Show::ShareInterval("ci_"));
    Ok(Block::Table(listing.block("What the circuit loses without an edge")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_name_the_model_without_its_folder() {
        let (curve, minimality, stability) = Default::default();
        let summary = vec![SummaryRow { model: "models/m.gguf", n: 2, ..SummaryRow::default() }];
        let subtitle = Read { curve, summary, minimality, stability }.subtitle();
        assert_eq!(subtitle, "m: edges of the positive run kept, all others taken; 2 pairs");
    }
}
