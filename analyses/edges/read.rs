//! Figures and text of edges, from their tables alone.

use super::parts::{self, PartRow};
use super::tables::{AgreementRow, EdgeRow, KINDS, OfEdge, kind};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT};
use crate::analyses::marks::LEAST_SHARE;
use crate::analyses::power::Power;
use crate::analyses::summary::Position;
use crate::analyses::{AnalysisError, Figures, table};
use crate::figure::{Estimate, Figure, Forest, ForestRow, Graph, GraphEdge, GraphNode, Scatter, ScatterPoint};
use crate::names::short_name;
use crate::plan::Reader;
use crate::report::cells::{capitalised, count, interval, p_value, plural, share, share_interval, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Heading, Section};
use crate::stats::wilson;
use crate::table::Table;
use crate::table::rows::Row as _;
use std::borrow::Cow;
use std::path::Path;

/// How many edges a table lists, and a forest plot shows.
const LISTED: usize = 20;

/// The most edges that a scatter plot shows.
const SCATTERED: usize = 3000;

/// One direction's edges at one place.
struct OfDirection<'a> {
    direction: &'a str,
    position: Cow<'a, str>,
    rows: Vec<EdgeRow<'a>>,
    /// Whether they are those of some parts alone.
    of_parts: bool,
}

/// The edges of each direction and place, in the order of the table.
fn read(tables: &[Table]) -> Result<Vec<OfDirection<'_>>, AnalysisError> {
    let (mut found, of_parts) = (Vec::<OfDirection>::new(), table(tables, PartRow::TABLE).is_ok());
    for row in EdgeRow::read(table(tables, EdgeRow::TABLE)?)? {
        match found.last_mut().filter(|of| (of.direction, &of.position) == (row.direction, &row.position)) {
            Some(of) => of.rows.push(row),
            None => {
                let (direction, position) = (row.direction, row.position.clone());
                found.push(OfDirection { direction, position, rows: vec![row], of_parts });
            }
        }
    }
    Ok(found)
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let (all, mut figures) = (read(tables)?, Figures::new());
    for of in &all {
        if let Some(graph) = of.graph() {
            figures.push((of.file("graph"), graph.into()));
        }
        figures.extend(of.forest().map(|forest| (of.file("forest"), forest)));
        if let Some(scatter) = of.scatter() {
            figures.push((of.file("agreement"), scatter));
        }
    }
    Ok(figures)
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let mut sections = Vec::new();
    for of in read(tables)? {
        sections.push(of.strongest_section(dir));
        if let Ok(parts) = table(tables, PartRow::TABLE) {
            sections.push(parts::section(parts, (of.direction, &of.position), &of.named())?);
        }
        if let Ok(found) = table(tables, AgreementRow::TABLE) {
            sections.push(of.estimates_section(found, dir)?);
        }
    }
    Ok(sections)
}

impl<'a> OfDirection<'a> {
    /// The edges that were run, the strongest first.
    fn strongest(&self) -> Vec<&EdgeRow<'a>> {
        let mut run: Vec<&EdgeRow> = self.rows.iter().filter(|row| row.effect_mean.is_some()).collect();
        run.sort_by(|a, b| size(b).total_cmp(&size(a)));
        run
    }

    /// All edges, the largest estimates first.
    fn largest(&self) -> Vec<&EdgeRow<'a>> {
        let mut rows: Vec<&EdgeRow> = self.rows.iter().collect();
        let by = |row: &EdgeRow| estimate(row).map_or(0.0, f64::abs);
        rows.sort_by(|a, b| by(b).total_cmp(&by(a)));
        rows
    }

    /// The span at which readers read, where it is one.
    fn span(&self) -> Option<&str> {
        Some(&*self.position).filter(|name| !name.is_empty() && name.parse::<Position>().is_err())
    }

    /// The direction; at a span with its name.
    fn named(&self) -> String {
        self.span().map_or(self.direction.to_string(), |span| format!("{} at {span}", self.direction))
    }

    /// The file of a figure.
    fn file(&self, stem: &str) -> String {
        let direction = self.direction;
        self.span().map_or(format!("{stem}-{direction}.png"), |span| format!("{stem}-{direction}-{span}.png"))
    }

    /// What is edited, for subtitles.
    fn subtitle(&self) -> String {
        let Some(first) = self.rows.first() else { return String::new() };
        let base = if self.direction == "necessity" { "positive" } else { "negative" };
        let model = short_name(first.model);
        format!("{model}: {base} run, {}, position {}", plural(first.n, "pair"), first.position)
    }

    /// The strongest edges that are significant and at least one per cent of the gap; or, if none is, the strongest.
    fn graph(&self) -> Option<Graph> {
        let strongest = self.strongest();
        let drawn: Vec<&EdgeRow> = match strongest.iter().filter(|row| row.matters()).count() {
            0 => strongest.into_iter().take(LISTED).collect(),
            _ => strongest.into_iter().filter(|row| row.matters()).collect(),
        };
        let drawn = drawn.into_iter().filter_map(|row| {
            let (effect, interval) = (row.effect_mean?, row.interval);
            Some(Drawn { edge: &row.edge, effect, interval, significant: row.is_significant() })
        });
        let (nodes, edges) = layered(drawn);
        (!edges.is_empty()).then(|| Graph {
            title: format!("Edges: {}", self.named()),
            subtitle: self.subtitle(),
            effect_label: "effect of taking the edge (nats)".to_string(),
            dashed_meaning: format!("q ≥ {SIGNIFICANT}"),
            nodes,
            edges,
        })
    }

    /// The strongest edges that were run, if any was.
    fn forest(&self) -> Option<Figure> {
        let row = |row: &&EdgeRow| ForestRow {
            label: name(row),
            estimates: vec![row.effect_mean.map(|value| Estimate {
                value,
                interval: row.interval,
                marked: Some(row.is_significant()),
            })],
        };
        let rows: Vec<ForestRow> = self.strongest().iter().take(LISTED).map(row).collect();
        (!rows.is_empty()).then(|| {
            Figure::from(Forest {
                title: format!("The strongest edges: {}", self.named()),
                subtitle: self.subtitle(),
                value_label: "effect of taking the edge on the logit difference (nats)".to_string(),
                series: vec![self.direction.to_string()],
                rows,
                mark_meaning: Some(format!("q < {SIGNIFICANT}")),
                interval_meaning: Some(INTERVAL.to_string()),
                missing_meaning: None,
            })
        })
    }

    /// The first estimate beside the exact effect.
    fn scatter(&self) -> Option<Figure> {
        let strongest = self.strongest();
        let all = strongest.len();
        let point = |(rank, row): (usize, &&EdgeRow)| {
            let reader: Reader = row.edge.reader.parse().ok()?;
            let series = KINDS.iter().position(|k| *k == kind(reader))?;
            let name = (rank < 5).then(|| name(row));
            Some(ScatterPoint { x: estimate(row)?, y: row.effect_mean?, name, series })
        };
        let points: Vec<ScatterPoint> = strongest.iter().take(SCATTERED).enumerate().filter_map(point).collect();
        let shown = match all > SCATTERED {
            true => format!("the {} strongest of {} edges", count(SCATTERED as i64), count(all as i64)),
            false => plural(all as i64, "edge"),
        };
        (!points.is_empty()).then(|| {
            Figure::from(Scatter {
                title: format!("Estimate and exact effect: {}", self.named()),
                subtitle: format!("{}; {shown}", self.subtitle()),
                x_label: format!("estimate: {} (nats)", self.first_way()),
                y_label: "exact effect (nats)".to_string(),
                identity: true,
                series: KINDS.iter().map(|kind| format!("read by {kind}")).collect(),
                named_meaning: Some("the five strongest".to_string()),
                points,
            })
        })
    }

    /// The name of the estimate that figures and tables show.
    fn first_way(&self) -> &'static str {
        match self.rows.iter().find(|row| estimate(row).is_some()) {
            Some(row) if row.reader_exact.is_some() => "reader_exact",
            Some(row) if row.eap_ig.is_some() => "eap_ig",
            _ => "eap",
        }
    }

    fn strongest_section(&self, dir: &Path) -> Section {
        let (strongest, all) = (self.strongest(), self.rows.len() as i64);
        let base = if self.direction == "necessity" { ["positive", "negative"] } else { ["negative", "positive"] };
        let mut text = format!(
            "Each edge of the {} run is taken from the {} run: its reader reads what the writer adds there. {} {} edges; {} \
             were run exactly, over {}. {}",
            base[0],
            base[1],
            if self.of_parts { "The parts that were asked about have" } else { "The model has" },
            count(all),
            count(strongest.len() as i64),
            plural(self.rows.first().map_or(0, |row| row.n), "pair"),
            self.found(&strongest),
        );
        text.push_str(&self.missed());
        let header: Vec<Heading> = std::iter::once(Heading::text("edge"))
            .chain(
                [
                    "effect (nats)",
                    "95 % interval",
                    "of the answer",
                    "of the foil",
                    "share of the gap",
                    "95 % interval",
                    "p",
                    "q",
                ]
                .map(Heading::number),
            )
            .chain(estimate_heading(&self.largest(), self.first_way()))
            .collect();
        let cells = |row: &&EdgeRow| {
            let (low, high) = row.interval.unzip();
            let mut cells = vec![
                name(row),
                signed(row.effect_mean, 3),
                interval(low, high, 3),
                signed(row.halves.answer.mean, 3),
                signed(row.halves.foil.mean, 3),
                share(row.share.value),
                share_interval(row.share.interval),
                p_value(row.p_value),
                p_value(row.q_value),
            ];
            cells.extend(estimate(row).map(|estimate| signed(estimate, 3)));
            cells
        };
        // Where none was run, those of the largest estimates.
        let shown = if strongest.is_empty() { self.largest() } else { strongest.clone() };
        let rows = shown.iter().take(LISTED).map(cells).collect();
        let by = if strongest.is_empty() { "estimate" } else { "effect" };
        let caption =
            format!("The strongest edges by the size of the {by} ({}); all are in edges.parquet", self.named());
        let mut section = Section::new(capitalised(&self.named())).paragraph(text);
        if self.graph().is_some() {
            let what = match strongest.iter().any(|row| row.matters()) {
                true => "Edges with q below 0.05 and an effect of at least 1 % of the gap.",
                false => "The strongest edges; none has both q below 0.05 and an effect of at least 1 % of the gap.",
            };
            section = section.figure(
                dir.join(self.file("graph")),
                what,
                format!("Layered graph of the strongest edges ({}).", self.named()),
            );
        }
        let section = section.table(caption, header, rows);
        if strongest.is_empty() {
            return section;
        }
        section.figure(
            dir.join(self.file("forest")),
            "The strongest edges with their intervals, the strongest on top.",
            format!("Forest plot of the strongest edges ({}).", self.named()),
        )
    }

    /// Sentences on the strongest edge, and on how many are significant.
    fn found(&self, strongest: &[&EdgeRow]) -> String {
        let Some(first) = strongest.first() else { return "No edge was run.".to_string() };
        let significant = strongest.iter().filter(|row| row.is_significant()).count();
        let (low, high) = first.interval.unzip();
        let moved = format!(
            "The strongest is **{}**: taking it moves the logit difference by {} nats, 95 % interval {}{}.{}",
            name(first),
            signed(first.effect_mean, 3),
            interval(low, high, 3),
            match first.is_significant() {
                true => String::new(),
                false => format!(", which is not significant (q {})", p_value(first.q_value)),
            },
            first.halves.sentence("Taking it"),
        );
        let at_least = strongest.iter().filter(|row| row.matters()).count();
        let power = Power { items: first.n, item: "pair", tests: self.rows.len() }.sentence();
        let power = if significant == 0 && !power.is_empty() { format!(" {power}") } else { String::new() };
        format!(
            "{moved} Of those that were run, {} have q below {SIGNIFICANT}, and {} of these an effect of at least 1 % of the gap.{power}",
            count(significant as i64),
            count(at_least as i64),
        )
    }

    /// What the sample says of the edges that were only estimated.
    fn missed(&self) -> String {
        let sample: Vec<&EdgeRow> = self.rows.iter().filter(|row| row.run == Some("sample")).collect();
        if sample.is_empty() {
            return String::new();
        }
        let large = |row: &&&EdgeRow| row.share.value.is_some_and(|share| share.abs() >= LEAST_SHARE);
        let found = sample.iter().filter(large).count();
        let ends = wilson(found, sample.len()).map(|i| i.ends());
        format!(
            " The others were only estimated. Of a random sample of {} of them, {found} {} an effect of at least 1 % of the gap ({}, \
             95 % interval {}).",
            plural(sample.len() as i64, "edge"),
            if found == 1 { "has" } else { "have" },
            share(found as f64 / sample.len() as f64),
            share_interval(ends),
        )
    }

    fn estimates_section(&self, found: &Table, dir: &Path) -> Result<Section, AnalysisError> {
        let listing = Listing::of(found)
            .only(AgreementRow::direction.name, self.direction)
            .only(AgreementRow::position.name, &self.position)
            .column("estimate", Show::Text(AgreementRow::estimate.name))
            .column("reader", Show::Text(AgreementRow::reader.name))
            .column("edges", Show::Count(AgreementRow::edges.name))
            .column("error", Show::Share(AgreementRow::relative_error.name))
            .column("Pearson", Show::Signed(AgreementRow::pearson.name, 2))
            .column("Spearman", Show::Signed(AgreementRow::spearman.name, 2))
            .column("same sign", Show::Share(AgreementRow::same_sign.name))
            .column("of the 20", Show::Share(AgreementRow::found_20.name))
            .column("of the 100", Show::Share(AgreementRow::found_100.name))
            .column("of the 2,000", Show::Share(AgreementRow::found_2000.name));
        let block = listing.block(&format!("Agreement of estimates with exact effects ({})", self.named()))?;
        let chosen = self.rows.iter().any(|row| row.run == Some("strongest"));
        let text = format!(
            "The table compares estimates with exact effects, over the edges that were run. The error is the mean distance as a \
             share of the mean size of the effects. The last columns say which share of the strongest edges are among the strongest \
             by the estimate, where all were run.{}",
            if chosen {
                " Edges that were chosen by an estimate are those that it takes for strong, so that agreement over them is not agreement over all."
            } else {
                ""
            }
        );
        let section = Section::new(format!("Estimates: {}", self.named())).paragraph(text).block(Block::Table(block));
        Ok(section.figure(
            dir.join(self.file("agreement")),
            "Each edge's mean estimate and its mean exact effect.",
            format!("Scatter plot of estimate and exact effect ({}).", self.named()),
        ))
    }
}

fn estimate_heading(rows: &[&EdgeRow], way: &str) -> Option<Heading> {
    rows.first().and_then(|row| estimate(row)).map(|_| Heading::number(format!("{way} (nats)")))
}

/// The estimate that is shown.
fn estimate(row: &EdgeRow) -> Option<f64> {
    row.reader_exact.or(row.eap_ig).or(row.eap)
}

fn size(row: &EdgeRow) -> f64 {
    row.effect_mean.map_or(0.0, f64::abs)
}

fn name(row: &EdgeRow) -> String {
    format!("{}->{}", row.edge.writer, row.edge.reader)
}

/// An edge as figures draw it.
pub(in crate::analyses) struct Drawn<'a> {
    pub edge: &'a OfEdge<'a>,
    pub effect: f64,
    pub interval: Option<(f64, f64)>,
    pub significant: bool,
}

/// The nodes and edges of a graph, of edges in the order of their ranks.
pub(in crate::analyses) fn layered<'a>(drawn: impl IntoIterator<Item = Drawn<'a>>) -> (Vec<GraphNode>, Vec<GraphEdge>) {
    let (mut nodes, mut edges) = (Vec::<GraphNode>::new(), Vec::new());
    let mut node = |name: &str, layer: i64| {
        nodes.iter().position(|known| known.name == name).unwrap_or_else(|| {
            nodes.push(GraphNode { name: name.to_string(), layer });
            nodes.len() - 1
        })
    };
    for (rank, Drawn { edge, effect, interval, significant }) in drawn.into_iter().enumerate() {
        let (name, port) = node_of(&edge.reader);
        let (from, to) = (node(&edge.writer, edge.writer_layer), node(name, edge.reader_layer));
        edges.push(GraphEdge { from, to, port, effect, interval, significant, rank });
    }
    (nodes, edges)
}

/// The node that a reader belongs to, and the port by which it reads.
fn node_of(reader: &str) -> (&str, Option<char>) {
    match reader.split_once('<') {
        Some((node, port)) => (node, port.chars().next()),
        None => (reader, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyses::edges::tables::writer_layer;
    use crate::analyses::effects::Share;
    use crate::plan::Writer;

    fn row(
        writer: &'static str,
        reader: &'static str,
        effect: Option<f64>,
        q: f64,
        run: Option<&'static str>,
    ) -> EdgeRow<'static> {
        let of: Writer = writer.parse().unwrap();
        let edge =
            OfEdge { writer: writer.into(), reader: reader.into(), writer_layer: writer_layer(of), reader_layer: 3 };
        EdgeRow {
            model: "models/m.gguf",
            edge,
            direction: "necessity",
            n: 30,
            effect_mean: effect,
            interval: effect.map(|e| (e - 0.1, e + 0.1)),
            q_value: effect.map(|_| q),
            reader_exact: Some(0.5),
            share: Share { value: effect.map(|e| e / -10.0), interval: None },
            run,
            ..EdgeRow::default()
        }
    }

    #[test]
    fn figures_name_the_model_without_its_folder() {
        let tables = [EdgeRow::table([row("input", "m0", Some(-5.0), 0.001, None)]).unwrap()];
        assert_eq!(read(&tables).unwrap()[0].subtitle(), "m: positive run, 30 pairs, position ");
    }

    #[test]
    fn the_report_says_what_was_run_what_is_significant_and_what_the_sample_missed() {
        let rows = [
            row("input", "m0", Some(-5.0), 0.001, Some("strongest")),
            row("m0", "a3.h1<q>", Some(0.01), 0.5, Some("strongest")),
            row("m0", "a3.h1<k>", Some(1.0), 0.2, Some("sample")),
            row("m0", "logits", None, 1.0, None),
        ];
        let tables = [EdgeRow::table(rows).unwrap()];
        let of = &read(&tables).unwrap()[0];
        let Block::Paragraph(text) = &of.strongest_section(Path::new("")).blocks[0] else { panic!("no text") };
        for part in
            ["4 edges", "3 were run", "**input->m0**", "−5.000 nats", "1 have q below 0.05", "1 edge of them, 1 has"]
        {
            assert!(text.replace('\u{a0}', " ").contains(part), "{part}: {text}");
        }
        let graph = of.graph().unwrap();
        assert_eq!((graph.edges.len(), graph.nodes.len()), (1, 2));
        assert!(of.scatter().is_some());
    }
}
