//! The tables of edges.

use super::choice::{Way, Why};
use super::graph::GraphFile;
use super::parts::PartRow;
use super::{Edges, Items, Measured, OfDirection};
use crate::analyses::columns::OfPair;
use crate::analyses::effects::{SIGNIFICANT, Share, Tested, part_of_family, shares_of_gap};
use crate::analyses::halves::{Halves, over_items};
use crate::analyses::marks::matters;
use crate::analyses::summary::{less, mean, sd};
use crate::analyses::{About, AnalysisError, Output};
use crate::plan::{Edge, Graph, Port, Reader, Writer};
use crate::rows;
use crate::stats::{self, benjamini_hochberg};
use crate::table::Table;
use crate::table::rows::{self, Row as _};
use std::borrow::Cow;

rows! {
    /// A writer and a later reader.
    pub struct OfEdge<'a> {
        writer: Cow<'a, str> = "what adds to the residual stream: input, a12.h3 (a head), m12 (an MLP)",
        reader: Cow<'a, str> = "what reads it: a12.h3<q>, a12.h1<k>, a12.h1<v> (of KV heads, or of query heads with `kv = query`), m12, logits",
        writer_layer: i64 = "the writer's layer, from 0; -1 for input",
        reader_layer: i64 = "the reader's layer, from 0; the number of layers for logits",
    }

    /// An edge in one direction, over pairs.
    pub struct EdgeRow<'a> in "edges" {
        model: &'a str = "the model, as it was named",
        edge: OfEdge<'a> as "",
        direction: &'a str = "necessity: the positive run takes the edge from the negative one; sufficiency: the reverse",
        position: Cow<'a, str> = "where readers read what is taken: last, all, a number, or a span's name",
        n: i64 = "pairs",
        effect_mean: Option<f64> = "mean of edited minus base metric, nats; empty where the edge was only estimated",
        effect_sd: Option<f64> = "standard deviation of the effect over pairs, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean effect's 95 % BCa interval, nats",
            "upper end of the mean effect's 95 % BCa interval, nats",
        ],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean effect",
        q_value: Option<f64> =
            "Benjamini-Hochberg q-value over all edges of the direction, those that were only estimated with p = 1",
        p_max: Option<f64> =
            "family-wise p-value by the max statistic, same sign flips for every edge; empty where some were only estimated",
        eap: Option<f64> [if any] = "mean estimate by edge attribution patching, nats",
        eap_ig: Option<f64> [if any] = "mean estimate by integrated gradients between the two embeddings (EAP-IG, inputs), nats",
        reader_exact: Option<f64> [if any] =
            "mean estimate by the reader computed anew, and the rest to first order, nats; exact for logits",
        horizons: Vec<Option<f64>> as "" = "mean estimate by the edge run exactly through so many layers, and the rest to first order, nats",
        share: Share as "share_of_gap" = "share of the gap: the mean effect over the mean of (other minus base metric)",
        halves: Halves [newer] as "effect" = "edited minus base of",
        run: Option<&'a str> = "why it was run exactly: all were, strongest by the first estimate, or sample of the rest",
    }

    /// One pair's exchange of one edge in one direction.
    pub struct PairRow<'a> in "pairs" {
        pair: OfPair<'a> as "",
        writer: Cow<'a, str> = "what adds to the residual stream",
        reader: Cow<'a, str> = "what reads it",
        direction: &'a str = "necessity or sufficiency",
        position: Option<&'a str> [if any] = "the span at which readers read what is taken; empty where there was one place",
        base_metric: Option<f64> = "metric of the run that is edited, without the edit, nats",
        patched_metric: Option<f64> = "metric with the edge taken, nats",
        eap: Option<f64> [if any] = "estimate by edge attribution patching, nats",
        eap_ig: Option<f64> [if any] = "estimate by integrated gradients, nats",
        reader_exact: Option<f64> [if any] = "estimate by the reader computed anew, nats",
    }

    /// How well one way of estimating agrees with exact effects, over the edges to one kind of reader that were run.
    pub struct AgreementRow<'a> in "agreement" {
        model: &'a str = "the model, as it was named",
        direction: &'a str = "necessity or sufficiency",
        position: &'a str = "where readers read what is taken",
        estimate: Cow<'a, str> = "the way of estimating: eap, eap_ig, reader_exact or horizon_N",
        reader: &'a str = "the kind of reader: q, k, v, m, logits, or all",
        edges: i64 = "edges that were run exactly",
        relative_error: Option<f64> = "mean |estimate - effect| over mean |effect|, of means over pairs",
        pearson: Option<f64> = "correlation of mean estimate and mean effect",
        spearman: Option<f64> = "rank correlation of the same",
        same_sign: Option<f64> = "share of edges whose estimate has the sign of the effect",
        found_20: Option<f64> = "share of the 20 strongest edges that are among the 20 strongest by the estimate; empty unless all were run",
        found_100: Option<f64> = "the same of the 100 strongest",
        found_2000: Option<f64> = "the same of the 2,000 strongest",
    }
}

/// The layer of a writer, -1 for the embedding.
pub(super) fn writer_layer(writer: Writer) -> i64 {
    match writer {
        Writer::Input => -1,
        Writer::Head { layer, .. } | Writer::Mlp { layer } => layer as i64,
    }
}

/// The kind of a reader, as tables and figures name it.
pub(super) fn kind(reader: Reader) -> &'static str {
    match reader {
        Reader::Head { port: Port::Query, .. } => "q",
        Reader::Head { port: Port::Key, .. } => "k",
        Reader::Head { port: Port::Value, .. } => "v",
        Reader::Mlp { .. } => "m",
        Reader::Logits => "logits",
    }
}

/// The kinds of readers, in the order of figures.
pub(super) const KINDS: [&str; 5] = ["q", "k", "v", "m", "logits"];

impl EdgeRow<'_> {
    /// Whether it was found to be there beyond chance.
    pub(super) fn is_significant(&self) -> bool {
        self.q_value.is_some_and(|q| q < SIGNIFICANT)
    }

    /// Whether it is significant and at least one per cent of the gap.
    pub(super) fn matters(&self) -> bool {
        matters(self.q_value, self.share.value)
    }
}

impl OfEdge<'static> {
    /// An edge of a model of so many layers.
    pub(in crate::analyses) fn of(edge: Edge, n_layers: usize) -> OfEdge<'static> {
        let reader_layer = match edge.reader {
            Reader::Head { layer, .. } | Reader::Mlp { layer } => layer,
            Reader::Logits => n_layers,
        };
        OfEdge {
            writer: edge.writer.to_string().into(),
            reader: edge.reader.to_string().into(),
            writer_layer: writer_layer(edge.writer),
            reader_layer: reader_layer as i64,
        }
    }
}

impl Edges {
    pub(super) fn output(&self, about: &About, items: &Items, measured: &Measured) -> Result<Output, AnalysisError> {
        let ways = self.ways();
        let (mut rows, mut agreement, mut files) = (Vec::new(), Vec::new(), Vec::new());
        let (graph_of, mut parts) = (Graph::of(&about.loaded.decoder.of(items.kv).arch), Vec::new());
        for of in &measured.directions {
            let here = self.rows(about, items, of)?;
            parts.extend(items.parts.rows(&here, &graph_of)?);
            rows.extend(here);
            for (way, estimates) in ways.iter().zip(&of.estimates) {
                agreement.extend(agreements(about.model, items, of, *way, &estimates.means));
            }
            let first = of.direction == measured.directions[0].direction;
            let direction = if first { String::new() } else { format!("-{}", of.direction.name()) };
            let span = if self.by_span { format!("-{}", of.place) } else { String::new() };
            files.push((format!("graph{direction}{span}.json"), graph(about, items, of).bytes()));
        }
        let parts = PartRow::table(parts)?;
        let mut tables = vec![rows::table(EdgeRow::TABLE, &self.horizons(), rows)?];
        tables.extend((parts.rows() > 0).then_some(parts));
        if !agreement.is_empty() {
            tables.push(AgreementRow::table(agreement)?);
        }
        if self.keep_pairs {
            tables.push(self.pairs_table(items, measured)?);
        }
        Ok(Output { tables, files })
    }

    /// The columns of horizons.
    fn horizons(&self) -> Vec<String> {
        (self.horizon > 0).then(|| Way::Horizon(self.horizon).column()).into_iter().collect()
    }

    /// The rows of one direction: every edge.
    fn rows<'a>(
        &self,
        about: &About<'a>,
        items: &'a Items,
        of: &'a OfDirection,
    ) -> Result<Vec<EdgeRow<'a>>, AnalysisError> {
        let (all, n_layers) = (items.edges.len(), about.loaded.decoder.arch.n_layers);
        let tested = tested(&of.effects, all, about.seed)?;
        let shares = shares_of_gap(&of.effects, &less(&of.other, &of.base), about.seed);
        let (halves, ways) = (halves(of, about.seed), self.ways());
        let estimate = |column: &str, edge: usize| {
            let at = ways.iter().position(|way| way.column() == column)?;
            Some(of.estimates[at].means[edge])
        };
        let horizons = self.horizons();
        let row = |edge: usize| {
            let at = of.chosen.edges.binary_search(&edge).ok();
            let effects = at.map(|k| of.effects[k].as_slice());
            let tested = at.map_or(Tested::default(), |k| tested[k]);
            EdgeRow {
                model: about.model,
                edge: OfEdge::of(items.edges[edge], n_layers),
                direction: of.direction.name(),
                position: of.place.as_str().into(),
                n: of.base.len() as i64,
                effect_mean: effects.and_then(mean),
                effect_sd: effects.and_then(sd),
                interval: tested.interval,
                p_value: tested.p,
                q_value: tested.q,
                p_max: tested.p_max,
                eap: estimate("eap", edge),
                eap_ig: estimate("eap_ig", edge),
                reader_exact: estimate("reader_exact", edge),
                horizons: horizons.iter().map(|name| estimate(name, edge)).collect(),
                share: at.map_or(Share::default(), |k| shares[k]),
                halves: at.map_or(Halves::default(), |k| halves[k]),
                run: at.map(|k| of.chosen.why[k].name()),
            }
        };
        Ok((0..all).map(row).collect())
    }

    fn pairs_table<'m>(&self, items: &'m Items, measured: &'m Measured) -> Result<Table, AnalysisError> {
        let ways = self.ways();
        let of_direction = |of: &'m OfDirection| -> Vec<PairRow<'m>> {
            let mut rows = Vec::new();
            for (k, edge) in of.chosen.edges.iter().enumerate() {
                let name = items.edges[*edge];
                for (i, pair) in of.of.iter().map(|pair| &items.pairs.dataset.items[*pair]).enumerate() {
                    let estimate = |column: &str| {
                        let at = ways.iter().position(|way| way.column() == column)?;
                        Some(f64::from(of.estimates[at].of_pairs[i][*edge]))
                    };
                    rows.push(PairRow {
                        pair: pair.into(),
                        writer: name.writer.to_string().into(),
                        reader: name.reader.to_string().into(),
                        direction: of.direction.name(),
                        position: self.by_span.then_some(of.place.as_str()),
                        base_metric: Some(of.base[i]),
                        patched_metric: Some(of.base[i] + of.effects[k][i]),
                        eap: estimate("eap"),
                        eap_ig: estimate("eap_ig"),
                        reader_exact: estimate("reader_exact"),
                    });
                }
            }
            rows
        };
        Ok(PairRow::table(measured.directions.iter().flat_map(of_direction))?)
    }
}

/// The statistics of the edges that were run, of so many in the family.
fn tested(effects: &[Vec<f64>], family: usize, seed: u64) -> Result<Vec<Tested>, AnalysisError> {
    let found = part_of_family(effects, family, seed)?;
    // Edges that were only estimated count as tested without success: they were chosen against on the same pairs.
    let p: Vec<f64> = found.iter().filter_map(|t| t.p).chain((effects.len()..family).map(|_| 1.0)).collect();
    let whole = effects.len() == family;
    let with = |(found, q): (Tested, f64)| Tested { q: Some(q), p_max: found.p_max.filter(|_| whole), ..found };
    Ok(found.into_iter().zip(benjamini_hochberg(&p)).map(with).collect())
}

/// The halves of the effects; nothing where the metric has none.
fn halves(of: &OfDirection, seed: u64) -> Vec<Halves> {
    let foils: Vec<Vec<f64>> =
        of.answers.iter().zip(&of.effects).map(|(answer, effect)| less(answer, effect)).collect();
    over_items(&of.answers, &foils, seed)
}

/// The graph of a direction: an edge's score is how far it helps the metric, by its effect or, where it was not run, by the first
/// estimate; of sufficiency, by how much it brings of it.
fn graph(about: &About, items: &Items, of: &OfDirection) -> GraphFile {
    let sign = if of.direction.name() == "necessity" { -1.0 } else { 1.0 };
    let score = |edge: usize| {
        let effect = of.chosen.edges.binary_search(&edge).ok().and_then(|k| mean(&of.effects[k]));
        let estimate = || of.estimates.first().map_or(0.0, |by| by.means[edge]);
        sign * effect.unwrap_or_else(estimate)
    };
    let edges = items.edges.iter().enumerate().map(|(i, edge)| (edge, score(i), true));
    GraphFile::new(&about.loaded.decoder.arch, items.kv, edges)
}

/// How well one way agrees with the exact effects: over each kind of reader, and over all.
fn agreements<'a>(
    model: &'a str,
    items: &Items,
    of: &'a OfDirection,
    way: Way,
    estimates: &[f64],
) -> Vec<AgreementRow<'a>> {
    let all: Vec<(usize, f64, f64)> = of
        .chosen
        .edges
        .iter()
        .zip(&of.effects)
        .filter_map(|(edge, effects)| Some((*edge, estimates[*edge], mean(effects)?)))
        .collect();
    let whole = of.chosen.why.iter().all(|why| *why == Why::All);
    let row = |reader: &'static str| {
        let here = |edge: usize| reader == "all" || kind(items.edges[edge].reader) == reader;
        let (a, b): (Vec<f64>, Vec<f64>) = all.iter().filter(|x| here(x.0)).map(|x| (x.1, x.2)).unzip();
        let both = || a.iter().zip(&b);
        let exact: f64 = b.iter().map(|b| b.abs()).sum();
        let error: f64 = both().map(|(a, b)| (a - b).abs()).sum();
        let found = |k: usize| (whole && reader == "all").then(|| shared(&a, &b, k)).flatten();
        AgreementRow {
            model,
            direction: of.direction.name(),
            position: &of.place,
            estimate: way.column().into(),
            reader,
            edges: a.len() as i64,
            relative_error: (exact > 0.0).then_some(error / exact),
            pearson: stats::pearson(&a, &b),
            spearman: stats::spearman(&a, &b),
            same_sign: mean(&both().map(|(a, b)| f64::from(u8::from(a * b > 0.0))).collect::<Vec<_>>()),
            found_20: found(20),
            found_100: found(100),
            found_2000: found(2000),
        }
    };
    let rows = KINDS.into_iter().chain(["all"]).map(row);
    rows.filter(|row| row.edges > 0).collect()
}

/// Which share of the `k` largest of one list, by size, are among the `k` largest of another; none where there are no more than `k`.
fn shared(a: &[f64], b: &[f64], k: usize) -> Option<f64> {
    let strongest = |x: &[f64]| {
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|i, j| x[*j].abs().total_cmp(&x[*i].abs()));
        order.truncate(k);
        order.into_iter().collect::<std::collections::HashSet<usize>>()
    };
    (a.len() > k).then(|| strongest(a).intersection(&strongest(b)).count() as f64 / k as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_that_are_shared_are_counted_by_size() {
        let (a, b) = ([3.0, -2.0, 0.1, 0.0], [2.5, 0.3, -4.0, 0.1]);
        assert_eq!(shared(&a, &b, 2), Some(0.5));
        assert_eq!(shared(&a, &b, 4), None);
    }

    #[test]
    fn edges_that_were_not_run_count_in_q_and_leave_no_family_wise_p() {
        let steady: Vec<f64> = (0..12).map(|i| -1.0 - f64::from(i) / 100.0).collect();
        let of = |family| tested(std::slice::from_ref(&steady), family, 0).unwrap()[0];
        assert!(of(1).p_max.is_some() && of(40).p_max.is_none());
        assert_eq!(of(40).q.unwrap(), 40.0 * of(1).p.unwrap());
    }
}
