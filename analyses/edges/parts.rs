//! The parts of a model that edges are asked about: what each reads, and what reads it.

use super::tables::kind;
use super::{EdgeRow, Edges};
use crate::analyses::effects::Share;
use crate::analyses::heads::{Circuit, Head};
use crate::analyses::inputs::Sources;
use crate::analyses::prelude::*;
use crate::plan::{Edge, Graph};
use crate::report::Block;
use crate::report::cells::{count, interval, plural, signed};
use crate::report::listing::{Listing, Show};
use std::borrow::Cow;
use std::collections::BTreeSet;

rows! {
    /// One way in which a part is read or reads, in one direction at one place.
    pub struct PartRow<'a> in "parts" {
        model: &'a str = "the model, as it was named",
        part: Cow<'a, str> = "the part that was asked about: input, a12.h3, m12 or logits",
        side: &'a str = "q, k, v, m, logits: what it reads so (by a key or value that heads share, the same for each of them); out: what reads it",
        direction: &'a str = "necessity: the positive run takes the edge from the negative one; sufficiency: the reverse",
        position: Cow<'a, str> = "where readers read what is taken: last, all, a number, or a span's name",
        n: i64 = "pairs",
        edges: i64 = "edges of this side",
        run: i64 = "those of them that were run exactly",
        matter: i64 = "those of these with q < 0.05 and an effect of at least 1 % of the gap",
        strongest: Option<Cow<'a, str>> = "the other end of the strongest of them; empty where none was run",
        effect_mean: Option<f64> = "its mean effect, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of its 95 % BCa interval, nats",
            "upper end of its 95 % BCa interval, nats",
        ],
        q_value: Option<f64> = "its q-value, as in edges.parquet",
        share: Share as "share_of_gap" = "its share of the gap: the mean effect over the mean of (other minus base metric)",
    }
}

/// Some parts by their names, or all of the model where there are none.
#[derive(Default)]
pub(in crate::analyses) struct Parts(Vec<String>);

impl Edges {
    /// The parts that the parameters name, with what was read for it.
    pub(super) fn parts(&self, model: &Model) -> Result<(Parts, Sources), AnalysisError> {
        let graph = Graph::of(&model.decoder.of(self.kv).arch);
        let Some(file) = &self.circuit else { return Ok((Parts::named(&self.of, &graph)?, Sources::new())) };
        let (gate, sources) = Circuit::gate_in(file, model, "of")?;
        let words: Vec<String> = gate.iter().map(Head::to_string).collect();
        Ok((Parts::named(&words, &graph)?, sources))
    }
}

impl Parts {
    /// The parts that some words name, as writers and readers are written or as heads are elsewhere; each once.
    fn named(words: &[String], graph: &Graph) -> Result<Parts, AnalysisError> {
        let known: BTreeSet<String> =
            graph.writers().map(|writer| writer.to_string()).chain(["logits".to_string()]).collect();
        let mut parts: Vec<String> = Vec::with_capacity(words.len());
        for word in words {
            let head = word.parse::<Head>().map(|head| format!("a{}.h{}", head.layer, head.head));
            let part = head.unwrap_or_else(|_| word.clone());
            if !known.contains(&part) {
                let last = graph.writers().last().map_or(String::new(), |writer| writer.to_string());
                let why = format!("`{word}` is no part of this model: it has input, a0.h0 to {last}, and logits");
                return Err(AnalysisError::Bad(format!("{}: {why}", param("of"))));
            }
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        Ok(Parts(parts))
    }

    /// Whether an edge begins or ends at one of the parts, if there are any.
    pub(super) fn have(&self, edge: Edge, graph: &Graph) -> bool {
        self.0.is_empty() || self.0.iter().any(|part| side(edge, part, graph).is_some())
    }

    /// A row for each side that each part has, of the edges of one direction at one place.
    pub(super) fn rows<'a>(&self, edges: &[EdgeRow<'a>], graph: &Graph) -> Result<Vec<PartRow<'a>>, AnalysisError> {
        let edge = |row: &EdgeRow| -> Result<Edge, AnalysisError> {
            let edge = row.edge.writer.parse().and_then(|writer| Ok(Edge { writer, reader: row.edge.reader.parse()? }));
            edge.map_err(AnalysisError::Failed)
        };
        let named = edges.iter().map(edge).collect::<Result<Vec<_>, _>>()?;
        let mut rows = Vec::new();
        for part in &self.0 {
            for wanted in SIDES {
                let of = named.iter().zip(edges).filter(|(edge, _)| side(**edge, part, graph) == Some(wanted));
                rows.extend(PartRow::of(part, wanted, &of.map(|(_, row)| row).collect::<Vec<_>>()));
            }
        }
        Ok(rows)
    }
}

/// What a part that a reader writes of reads by it, and last what reads the part.
const SIDES: [&str; 6] = ["q", "k", "v", "m", "logits", "out"];

/// The side of a part at which an edge is, if it is at any. A key or value that heads share ends at each of them.
fn side(edge: Edge, part: &str, graph: &Graph) -> Option<&'static str> {
    if edge.writer.to_string() == part {
        return Some("out");
    }
    let ends = graph.writers_of(edge.reader).into_iter().map(|writer| writer.to_string());
    let here = ends.chain([edge.reader.to_string()]).any(|name| name == part);
    here.then(|| kind(edge.reader))
}

impl<'a> PartRow<'a> {
    /// A side's row; none where it has no edge.
    fn of(part: &str, side: &'static str, edges: &[&EdgeRow<'a>]) -> Option<PartRow<'a>> {
        let first = edges.first()?;
        let run = edges.iter().filter(|row| row.effect_mean.is_some());
        let size = |row: &EdgeRow| row.effect_mean.map_or(0.0, f64::abs);
        let strongest = run.clone().max_by(|a, b| size(a).total_cmp(&size(b)));
        let other = |row: &&&EdgeRow<'a>| if side == "out" { row.edge.reader.clone() } else { row.edge.writer.clone() };
        Some(PartRow {
            model: first.model,
            part: part.to_string().into(),
            side,
            direction: first.direction,
            position: first.position.clone(),
            n: first.n,
            edges: edges.len() as i64,
            run: run.clone().count() as i64,
            matter: run.filter(|row| row.matters()).count() as i64,
            strongest: strongest.as_ref().map(other),
            effect_mean: strongest.and_then(|row| row.effect_mean),
            interval: strongest.and_then(|row| row.interval),
            q_value: strongest.and_then(|row| row.q_value),
            share: strongest.map_or(Share::default(), |row| row.share),
        })
    }

    /// What is said of a side.
    fn sentence(&self) -> String {
        let side = match self.side {
            "out" => "What reads it",
            "q" => "Its query",
            "k" => "Its key",
            "v" => "Its value",
            _ => "What it reads",
        };
        let Some(strongest) = &self.strongest else {
            return format!("{side}: none of {} was run.", plural(self.edges, "edge"));
        };
        let (low, high) = self.interval.unzip();
        format!(
            "{side}: {} of {} {} (the strongest: {strongest}, {} nats, 95 % interval {}).",
            count(self.matter),
            plural(self.run, "edge"),
            if self.matter == 1 { "matters" } else { "matter" },
            signed(self.effect_mean, 3),
            interval(low, high, 3),
        )
    }
}

/// A section on the parts that were asked about, of one direction at one place, by the table of parts.
pub(super) fn section(
    parts: &Table,
    (direction, position): (&str, &str),
    named: &str,
) -> Result<Section, AnalysisError> {
    let rows = PartRow::read(parts)?;
    let rows: Vec<&PartRow> =
        rows.iter().filter(|row| (row.direction, &*row.position) == (direction, position)).collect();
    let mut section = Section::new(format!("What feeds the parts, and what reads them: {named}")).paragraph(
        "An edge matters here if its q is below 0.05 and its effect at least 1 % of the gap. The graph of the section before shows those that do.",
    );
    for of_part in rows.chunk_by(|a, b| a.part == b.part) {
        let sentences: Vec<String> = of_part.iter().map(|row| row.sentence()).collect();
        section = section.paragraph(format!("**{}.** {}", of_part[0].part, sentences.join(" ")));
    }
    let listing = Listing::of(parts)
        .only(PartRow::direction.name, direction)
        .only(PartRow::position.name, position)
        .column("part", Show::Text(PartRow::part.name))
        .column("side", Show::Text(PartRow::side.name))
        .column("edges", Show::Count(PartRow::edges.name))
        .column("that matter", Show::Count(PartRow::matter.name))
        .column("the strongest", Show::Text(PartRow::strongest.name))
        .column("effect (nats)", Show::Signed(PartRow::effect_mean.name, 3))
        .column("95 % interval", Show::Interval("ci_", 3))
        .column("share of the gap", Show::Share("share_of_gap"))
        .column("95 % interval", Show::ShareInterval("share_of_gap_ci_"))
        .column("q", Show::PValue(PartRow::q_value.name));
    let block = listing.block(&format!("Each part's sides ({named})"))?;
    Ok(section.block(Block::Table(block)))
}
