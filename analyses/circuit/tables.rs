//! Tables and files of circuits.

use super::{Circuit, Found, Items, Measured, OfCircuit, OfRanking};
use crate::analyses::circuit::curve::{self, FRACTIONS, Order};
use crate::analyses::columns::OfPair;
use crate::analyses::edges::OfEdge;
use crate::analyses::edges::graph::GraphFile;
use crate::analyses::effects::{Share, shares_of_gap};
use crate::analyses::prelude::*;
use crate::analyses::summary::less;

rows! {
    /// Circuits of one size.
    pub struct CurveRow<'a> in "curve" {
        model: &'a str = "the model, as it was named",
        level: &'a str = "what circuits are of: edge",
        score: &'a str = "what edges are ranked by: exact, horizon_N, reader_exact, eap, eap_ig, or graph (a file's)",
        order: &'a str = "score: those that help most are kept; size: those of the largest scores, whichever their sign",
        fraction: f64 = "which share of all edges is kept",
        edges: i64 = "how many these are",
        edges_left: i64 = "those of them on a path from input to logits: the others change nothing",
        n: i64 = "pairs",
        metric_mean: Option<f64> = "mean metric with these edges kept and all others taken from the negative run, nats",
        faithfulness: Option<f64> = "share of the gap that is kept: (metric - negative) / (positive - negative), means over pairs",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the faithfulness' 95 % BCa interval over pairs, the gap resampled too",
            "its upper end",
        ],
        random_mean: Option<f64> = "mean faithfulness of random circuits of as many edges",
        random_range: Option<(f64, f64)> as "random_" = [
            "the smallest of these",
            "the largest",
        ],
    }

    /// One way of ranking edges, and the circuit that was chosen by it.
    pub struct SummaryRow<'a> in "summary" {
        model: &'a str = "the model, as it was named",
        score: &'a str = "what edges are ranked by: exact, horizon_N, reader_exact, eap, eap_ig, or graph (a file's)",
        n: i64 = "pairs",
        positive_mean: Option<f64> = "mean metric of the positive runs, nats",
        negative_mean: Option<f64> = "mean metric of the negative runs, nats",
        cpr: Option<f64> = "circuit performance ratio: area under faithfulness over the fraction, edges ranked by score",
        cmd: Option<f64> = "circuit-model distance: area under |1 - faithfulness|, edges ranked by size",
        cpr_log: Option<f64> = "area under faithfulness over the fraction's logarithm, as a share of its range",
        edges: i64 = "edges of the chosen circuit: the smallest that keeps enough of the gap; 0 where the prompts do not differ",
        edges_left: i64 = "those of them on a path from input to logits",
        faithfulness: Share as "faithfulness" = "share of the gap that the chosen circuit keeps: (metric - negative) / (positive - negative), means over pairs",
        completeness: Share as "completeness" = "share of the gap that is left with the chosen circuit taken and all else kept; 0 is complete",
        jaccard: Option<f64> = "mean Jaccard overlap of circuits of as many edges, chosen on resampled pairs",
        resamples: i64 = "resamples of the pairs",
    }

    /// What the chosen circuit loses without one of its edges.
    pub struct MinimalityRow<'a> in "minimality" {
        model: &'a str = "the model, as it was named",
        score: &'a str = "what edges were ranked by",
        edge: OfEdge<'a> as "",
        position: Option<&'a str> [if any] = "the span at which the reader reads it; empty where circuits have edges at all positions",
        n: i64 = "pairs",
        faithfulness_lost: Option<f64> = "faithfulness of the circuit less that of the circuit without the edge",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of its 95 % BCa interval over pairs, the gap resampled too",
            "its upper end",
        ],
    }

    /// How often resampled pairs choose an edge.
    pub struct StabilityRow<'a> in "stability" {
        model: &'a str = "the model, as it was named",
        score: &'a str = "what edges were ranked by",
        edge: OfEdge<'a> as "",
        position: Option<&'a str> [if any] = "the span at which the reader reads it; empty where circuits have edges at all positions",
        support: f64 = "the edge's score over all pairs, nats: how far it helps the metric",
        in_circuit: bool = "whether it is in the chosen circuit, on a path",
        selected: f64 = "share of the resamples whose circuit of as many edges has it",
    }

    /// The metric of one pair in one circuit.
    pub struct PairRow<'a> in "pairs" {
        pair: OfPair<'a> as "",
        score: Option<&'a str> [if any] = "what edges are ranked by",
        order: Option<&'a str> [if any] = "score or size; chosen and without: the chosen circuit, and all edges but it",
        fraction: Option<f64> [if any] = "which share of all edges is kept",
        positive_metric: f64 = "metric of the positive run, nats",
        negative_metric: f64 = "metric of the negative run, nats",
        metric: f64 = "metric with the circuit kept and all else taken, nats",
    }

    /// A circuit that a file brings.
    pub struct FaithfulnessRow<'a> in "faithfulness" {
        model: &'a str = "the model, as it was named",
        edges: i64 = "edges of the circuit",
        edges_left: i64 = "those of them on a path from input to logits: the others change nothing",
        n: i64 = "pairs",
        positive_mean: Option<f64> = "mean metric of the positive runs, nats",
        negative_mean: Option<f64> = "mean metric of the negative runs, nats",
        metric_mean: Option<f64> = "mean metric with the circuit kept and all else taken, nats",
        kept: Share as "faithfulness" = "share of the gap that is kept: (metric - negative) / (positive - negative), means over pairs",
        completeness: Share as "completeness" = "share of the gap that is left with the circuit taken and all else kept; 0 is complete",
    }
}

/// What shares are of: the metrics of both prompts, one a pair.
struct Gap<'a> {
    base: &'a [f64],
    donor: &'a [f64],
    seed: u64,
}

impl Gap<'_> {
    /// The shares of the gap that circuits keep, from their metrics.
    fn kept(&self, metrics: &[&[f64]]) -> Vec<Share> {
        let above: Vec<Vec<f64>> = metrics.iter().map(|metric| less(metric, self.donor)).collect();
        shares_of_gap(&above, &less(self.base, self.donor), self.seed)
    }
}

impl Circuit {
    pub(super) fn output(&self, about: &About, items: &Items, measured: &Measured) -> Result<Output, AnalysisError> {
        let gap = Gap { base: &measured.base, donor: &measured.donor, seed: about.seed };
        match &measured.found {
            Found::Circuit(circuit) => of_file(about, items, &gap, circuit),
            Found::Curves { of, random } => self.of_curves(about, items, &gap, of, random),
        }
    }

    fn of_curves(
        &self,
        about: &About,
        items: &Items,
        gap: &Gap,
        of: &[OfRanking],
        random: &[Vec<Vec<f64>>],
    ) -> Result<Output, AnalysisError> {
        let mut curve = Vec::new();
        of.iter().for_each(|of| curve.extend(curve_rows(about.model, gap, of, random)));
        let summary = of.iter().map(|of| self.summary(about.model, gap, of));
        let chosen = of.iter().filter_map(|of| Some((of.ranking.name.as_str(), of.chosen.as_ref()?)));
        let minimality = chosen.flat_map(|(score, circuit)| minimality(about.model, items, gap, score, circuit));
        let stability = of.iter().flat_map(|of| stability(about.model, items, of));
        let pairs = of.iter().flat_map(|of| pair_rows(items, gap, of));
        let tables = vec![
            CurveRow::table(curve)?,
            SummaryRow::table(summary)?,
            MinimalityRow::table(minimality)?,
            StabilityRow::table(stability)?,
            PairRow::table(pairs)?,
        ];
        let mut files = Vec::new();
        for (i, of) in of.iter().enumerate() {
            let by = if i == 0 { String::new() } else { format!("-{}", of.ranking.name) };
            let kept = of.chosen.as_ref().map_or(&[][..], |circuit| &circuit.kept);
            let all = items.edges.len();
            for (k, scores) in of.ranking.scores.chunks_exact(all).enumerate() {
                let at = items.place(k * all).map_or(String::new(), |place| format!("-{place}"));
                let in_circuit = |edge: usize| kept.binary_search(&(k * all + edge)).is_ok();
                let scored = items.edges.iter().zip(scores).enumerate();
                let scored = scored.map(|(i, (edge, score))| (edge, *score, in_circuit(i)));
                let file = GraphFile::new(&about.loaded.decoder.arch, items.kv, scored);
                files.push((format!("circuit{by}{at}.json"), file.bytes()));
            }
        }
        Ok(Output { tables, files })
    }

    fn summary<'a>(&self, model: &'a str, gap: &Gap, of: &'a OfRanking) -> SummaryRow<'a> {
        let f = |order| {
            let points = of.points.iter().filter(move |point| point.order == order);
            points.map(|point| curve::faithfulness(&point.metric, gap.base, gap.donor)).collect::<Option<Vec<f64>>>()
        };
        let (by_score, by_size) = (f(Order::Score), f(Order::Size));
        let shares = of.chosen.as_ref().map(|circuit| gap.kept(&[&circuit.metric, &circuit.without]));
        let share = |i: usize| shares.as_ref().map_or(Share::default(), |shares| shares[i]);
        SummaryRow {
            model,
            score: &of.ranking.name,
            n: gap.base.len() as i64,
            positive_mean: mean(gap.base),
            negative_mean: mean(gap.donor),
            cpr: by_score.as_deref().map(curve::performance_ratio),
            cmd: by_size.as_deref().map(curve::model_distance),
            cpr_log: by_score.as_deref().map(curve::log_performance_ratio),
            edges: of.chosen.as_ref().map_or(0, |circuit| circuit.edges as i64),
            edges_left: of.chosen.as_ref().map_or(0, |circuit| circuit.kept.len() as i64),
            faithfulness: share(0),
            completeness: share(1),
            jaccard: of.stability.as_ref().and_then(|stability| stability.jaccard),
            resamples: if of.stability.is_some() { i64::from(self.resamples) } else { 0 },
        }
    }
}

/// A ranking's curve: one row an order and fraction.
fn curve_rows<'a>(model: &'a str, gap: &Gap, of: &'a OfRanking, random: &[Vec<Vec<f64>>]) -> Vec<CurveRow<'a>> {
    let metrics: Vec<&[f64]> = of.points.iter().map(|point| point.metric.as_slice()).collect();
    let row = |(point, kept): (&super::Point, Share)| {
        let at = FRACTIONS.iter().position(|fraction| *fraction == point.fraction).unwrap_or_default();
        let random = random[at].iter().map(|metric| curve::faithfulness(metric, gap.base, gap.donor));
        let random: Vec<f64> = random.flatten().collect();
        CurveRow {
            model,
            level: "edge",
            score: &of.ranking.name,
            order: point.order.name(),
            fraction: point.fraction,
            edges: point.edges as i64,
            edges_left: point.left as i64,
            n: gap.base.len() as i64,
            metric_mean: mean(&point.metric),
            faithfulness: kept.value,
            interval: kept.interval,
            random_mean: mean(&random),
            random_range: random.iter().copied().reduce(f64::min).zip(random.iter().copied().reduce(f64::max)),
        }
    };
    of.points.iter().zip(gap.kept(&metrics)).map(row).collect()
}

fn minimality<'a>(
    model: &'a str,
    items: &'a Items,
    gap: &Gap,
    score: &'a str,
    circuit: &OfCircuit,
) -> Vec<MinimalityRow<'a>> {
    let n = circuit.less.first().map_or(0, Vec::len);
    let gaps = less(&gap.base[..n], &gap.donor[..n]);
    let lost: Vec<Vec<f64>> = circuit.less.iter().map(|metric| less(&circuit.metric[..n], metric)).collect();
    let shares = shares_of_gap(&lost, &gaps, gap.seed);
    let row = |(edge, share): (&usize, Share)| MinimalityRow {
        model,
        score,
        edge: OfEdge::of(items.edge(*edge), items.n_layers),
        position: items.place(*edge),
        n: n as i64,
        faithfulness_lost: share.value,
        interval: share.interval,
    };
    circuit.kept.iter().zip(shares).map(row).collect()
}

/// The edges that any resample chooses, the most often chosen first.
fn stability<'a>(model: &'a str, items: &'a Items, of: &'a OfRanking) -> Vec<StabilityRow<'a>> {
    let Some(found) = &of.stability else { return Vec::new() };
    let kept = of.chosen.as_ref().map_or(&[][..], |circuit| &circuit.kept);
    let mut chosen: Vec<usize> = (0..found.selected.len()).filter(|edge| found.selected[*edge] > 0.0).collect();
    chosen.sort_by(|a, b| found.selected[*b].total_cmp(&found.selected[*a]));
    let row = |edge: usize| StabilityRow {
        model,
        score: &of.ranking.name,
        edge: OfEdge::of(items.edge(edge), items.n_layers),
        position: items.place(edge),
        support: of.ranking.scores[edge],
        in_circuit: kept.binary_search(&edge).is_ok(),
        selected: found.selected[edge],
    };
    chosen.into_iter().map(row).collect()
}

fn pair_rows<'a>(items: &'a Items, gap: &Gap, of: &'a OfRanking) -> Vec<PairRow<'a>> {
    let points = of.points.iter().map(|point| (point.order.name(), Some(point.fraction), &point.metric));
    let chosen = of.chosen.iter().flat_map(|of| [("chosen", None, &of.metric), ("without", None, &of.without)]);
    let rows = points.chain(chosen).flat_map(|(order, fraction, metrics)| {
        let pairs = items.pairs.dataset.items.iter().zip(metrics).enumerate();
        pairs.map(move |(i, (pair, metric))| PairRow {
            pair: pair.into(),
            score: Some(&of.ranking.name),
            order: Some(order),
            fraction,
            positive_metric: gap.base[i],
            negative_metric: gap.donor[i],
            metric: *metric,
        })
    });
    rows.collect()
}

/// The tables of a circuit that a file brings.
fn of_file(about: &About, items: &Items, gap: &Gap, circuit: &OfCircuit) -> Result<Output, AnalysisError> {
    let shares = gap.kept(&[&circuit.metric, &circuit.without]);
    let row = FaithfulnessRow {
        model: about.model,
        edges: circuit.edges as i64,
        edges_left: circuit.kept.len() as i64,
        n: gap.base.len() as i64,
        positive_mean: mean(gap.base),
        negative_mean: mean(gap.donor),
        metric_mean: mean(&circuit.metric),
        kept: shares[0],
        completeness: shares[1],
    };
    let pairs = items.pairs.dataset.items.iter().zip(&circuit.metric).enumerate().map(|(i, (pair, metric))| PairRow {
        pair: pair.into(),
        positive_metric: gap.base[i],
        negative_metric: gap.donor[i],
        metric: *metric,
        ..PairRow::default()
    });
    let mut tables = vec![FaithfulnessRow::table([row])?];
    tables.push(MinimalityRow::table(minimality(about.model, items, gap, "graph", circuit))?);
    tables.push(PairRow::table(pairs)?);
    Ok(Output::from(tables))
}
