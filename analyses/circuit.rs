//! Circuits: how much of what tells two matched prompts apart do a few edges carry?
//!
//! A circuit is a set of edges that stay as they are in the positive run, while every other edge is the negative run's. *Faithfulness*
//! is the share of the gap between the two that the circuit keeps. Edges are ranked by scores; circuits of ten sizes are run, beside
//! random ones of the same sizes, and the smallest that keeps enough is looked into: what is lost without it (*completeness*),
//! without each of its edges (*minimality*), and whether other pairs would have given the same (*stability*).
//! Sources: Wang et al. 2022, "Interpretability in the Wild", for completeness and minimality; Hanna et al. 2024, "Have Faith in
//! Faithfulness"; Mueller et al. 2025, "MIB", for CPR and CMD; Meloux et al. 2025 for stability.

mod curve;
mod ranking;
mod read;
mod runs;
mod tables;

pub use read::with_interval;
pub use tables::{CurveRow, FaithfulnessRow, MinimalityRow, PairRow, StabilityRow, SummaryRow};

use super::edges::{Among, Matching, Score};
use super::inputs::{Spanned, disjoint, rest};
use super::prelude::*;
use crate::plan::{Alignment, Edge, Graph, Kv};
use curve::{FRACTIONS, Order};
use ranking::{Given, Ranking};
use runs::Runs;
use std::sync::Arc;

parameters! {
    /// Keep a few edges, take all others from the matched prompt, and measure what is left
    #[serde(default)]
    pub struct Circuit {
        ..pairs: PairArgs;

        /// Rank edges by what `edges` found: its run directory
        edges: Option<Data>, excludes graph, [value_name = "DIR"];

        /// Rank edges by the scores in this graph, JSON as EAP-IG writes it; or test the circuit that it marks
        graph: Option<Data>, excludes edges, [value_name = "FILE"];

        /// Where no scores are given, estimate every edge by these
        estimate: Vec<Score> => vec![Score::Reader], [value_enum, value_name = "SCORES"];

        /// For eap-ig: take this many steps on the way between the two embeddings
        steps: u32 = 5, in 1..=1000, [value_name = "N"];

        /// Let a circuit have an edge at some spans of the pairs and not at others
        ///
        /// Readers then read what is taken at one span at a time. A position in several spans is the last one's; all that are in none
        /// are one more, `rest`.
        by_span: bool, excludes graph | align;

        /// Match up prompts of unequal lengths
        ///
        /// Equal beginnings and ends are matched token by token, and the spans between them in proportion. A reader takes from the matching
        /// position; at positions that match none it reads what it does.
        align: bool;

        /// Whose keys and values readers are, where heads share some
        kv: Kv = Kv::Head, [value_enum];

        /// Choose the smallest circuit that keeps this share of the gap
        threshold: f64 = 0.8, in 0.01..=1.0, [value_name = "SHARE"];

        /// Run this many random circuits of each size, to compare with
        random: u32 = 5, in 0..=100, [value_name = "N"];

        /// Take each edge out of the chosen circuit, if these are no more than this many; 0 takes none
        minimality: u32 = 200, [value_name = "EDGES"];

        /// Do so on no more pairs than this
        minimality_pairs: u32 = 20, in 1.., [value_name = "N"];

        /// Choose circuits of this many samples of the pairs, to see how stable they are
        resamples: u32 = 200, in 0..=10000, [value_name = "N"];
    }
}

/// The pairs as the model reads them, the model's edges, and what they are ranked by.
///
/// Circuits are of *members*: an edge at a place, numbered edge by edge and place by place.
pub struct Items {
    pairs: Pairs,
    edges: Vec<Edge>,
    /// Where readers read what is taken: one place, or one a span and the rest.
    places: Vec<Spanned>,
    /// How each pair's negative prompt matches its positive one.
    alignments: Vec<Alignment>,
    kv: Kv,
    graph: Graph,
    n_layers: usize,
    given: Given,
}

/// What was found.
pub struct Measured {
    /// The metric of the positive and of the negative run, one a pair.
    base: Vec<f64>,
    donor: Vec<f64>,
    found: Found,
}

/// By what was given.
enum Found {
    /// Of a circuit that a file brings.
    Circuit(OfCircuit),
    Curves {
        of: Vec<OfRanking>,
        /// For each fraction, the metrics of each random circuit, one a pair.
        random: Vec<Vec<Vec<f64>>>,
    },
}

/// A circuit and what was measured of it, one a pair.
struct OfCircuit {
    /// How many edges it has, before those on no path are left out.
    edges: usize,
    /// Its edges on paths from the embedding to the logits, by number, ascending.
    kept: Vec<usize>,
    metric: Vec<f64>,
    /// With the circuit's edges taken, and no other.
    without: Vec<f64>,
    /// For each of its edges, the metric of the circuit without it, of the first pairs.
    less: Vec<Vec<f64>>,
}

/// What was found by one ranking of the edges.
struct OfRanking {
    ranking: Arc<Ranking>,
    /// The circuits of each order and size.
    points: Vec<Point>,
    /// The smallest circuit that keeps enough; none where the two prompts do not differ.
    chosen: Option<OfCircuit>,
    /// How often each edge is in the circuit of a resample, and the circuits' mean overlap.
    stability: Option<Stability>,
}

/// A circuit of one size that is to be run.
struct OfSize<'a> {
    order: Order,
    fraction: f64,
    members: &'a [usize],
}

/// The circuit of one size.
struct Point {
    order: Order,
    fraction: f64,
    edges: usize,
    /// Without those on no path.
    left: usize,
    metric: Vec<f64>,
}

/// Circuits of resampled pairs.
struct Stability {
    /// The share of the resamples that choose an edge, by number.
    selected: Vec<f64>,
    /// Mean Jaccard overlap of two of them.
    jaccard: Option<f64>,
}

impl Analysis for Circuit {
    const NAME: &'static str = "circuit";
    const TITLE: &'static str = "Circuit";
    const FROM_TABLES: FromTables = FromTables { figures: read::figures, sections: read::sections };
    type Items = Items;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        let position = (!self.by_span).then_some(Position::All);
        let matching = Matching { position, align: self.align };
        let among = Among { kv: self.kv, ..Among::default() };
        let mut prepared = super::edges::prepare(&self.pairs, matching, among, model)?;
        if self.by_span {
            disjoint(&mut prepared.items.places);
            let super::edges::Items { pairs, places, .. } = &mut prepared.items;
            let rest = rest(places, pairs.tokens.iter().map(|tokens| tokens.positive.len()));
            places.extend(rest);
        }
        let (graph, n_layers) = (Graph::of(&model.decoder.of(self.kv).arch), model.decoder.arch.n_layers);
        let edges = std::mem::take(&mut prepared.items.edges);
        let places = std::mem::take(&mut prepared.items.places);
        let given = Given::read(self, model, (&edges, &places), &mut prepared.sources)?;
        let necessity = |[positive, _]: [Alignment; 2]| positive;
        Ok(prepared.map(|super::edges::Items { pairs, alignments, .. }| {
            let alignments = alignments.into_iter().map(necessity).collect();
            Items { pairs, edges, places, alignments, kv: self.kv, graph, n_layers, given }
        }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Measured, AnalysisError> {
        let runs = Runs { runner, items };
        let (base, donor) = runs.unedited()?;
        let of = |metrics: &[f64]| curve::faithfulness(metrics, &base, &donor);
        let found = match &items.given {
            Given::Circuit(edges) => Found::Circuit(self.of_circuit(&runs, edges)?),
            Given::Scores(rankings) => self.curves(&runs, rankings.clone(), &of)?,
            Given::Estimates(scores) => {
                let rankings = scores.iter().map(|score| ranking::estimated(&runs, *score, self.steps).map(Arc::new));
                self.curves(&runs, rankings.collect::<Result<_, _>>()?, &of)?
            }
        };
        Ok(Measured { base, donor, found })
    }

    fn tables(&self, about: &About, items: &Items, measured: Measured) -> Result<Output, AnalysisError> {
        self.output(about, items, &measured)
    }
}

impl Items {
    /// A plan with a pair's prompts.
    fn plan(&self, i: usize) -> (Plan, [Run; 2]) {
        let mut plan = Plan { kv: self.kv, ..Plan::default() };
        let runs = self.pairs.add(&mut plan, i);
        (plan, runs)
    }

    /// How many members there are.
    fn members(&self) -> usize {
        self.edges.len() * self.places.len()
    }

    fn edge(&self, member: usize) -> Edge {
        self.edges[member % self.edges.len()]
    }

    /// The name of a member's place, where there are several.
    fn place(&self, member: usize) -> Option<&str> {
        (self.places.len() > 1).then(|| self.places[member / self.edges.len()].name.as_str())
    }
}

/// The faithfulness of metrics, one a pair; none where the two prompts do not differ.
type Faithfulness<'a> = dyn Fn(&[f64]) -> Option<f64> + 'a;

impl Circuit {
    fn curves(&self, runs: &Runs, rankings: Vec<Arc<Ranking>>, of: &Faithfulness) -> Result<Found, AnalysisError> {
        let all = runs.items.members();
        let sizes = FRACTIONS.map(|fraction| curve::size(fraction, all));
        let random = runs.random(&sizes, self.random as usize)?;
        let of = rankings.into_iter().map(|ranking| self.of_ranking(runs, ranking, of));
        Ok(Found::Curves { of: of.collect::<Result<_, _>>()?, random })
    }

    fn of_ranking(&self, runs: &Runs, ranking: Arc<Ranking>, of: &Faithfulness) -> Result<OfRanking, AnalysisError> {
        let all = runs.items.members();
        let orders = Order::ALL.map(|order| (order, order.of(&ranking.scores)));
        let size = |fraction: f64| (fraction, curve::size(fraction, all));
        let circuits =
            orders.iter().flat_map(|(order, ranked)| FRACTIONS.map(size).map(|at| (*order, at, &ranked[..at.1])));
        let circuits: Vec<OfSize> =
            circuits.map(|(order, (fraction, _), members)| OfSize { order, fraction, members }).collect();
        let metrics = runs.kept(&circuits.iter().map(|circuit| circuit.members).collect::<Vec<_>>())?;
        let point = |(OfSize { order, fraction, members }, metric): (OfSize, Vec<f64>)| {
            let (edges, left) = (members.len(), runs.on_paths(members).len());
            Point { order, fraction, edges, left, metric }
        };
        let points: Vec<Point> = circuits.into_iter().zip(metrics).map(point).collect();
        let (_, ranked) = &orders[Order::Score as usize];
        let enough = |metric: &[f64]| of(metric).is_some_and(|f| f >= self.threshold);
        let differ = points.last().is_some_and(|all| of(&all.metric).is_some());
        let chosen = match differ || runs.runner.is_counting() {
            false => None,
            true => {
                let size = runs.smallest(&points, ranked, &enough)?;
                Some(self.of_circuit(runs, &ranked[..size])?)
            }
        };
        let size = chosen.as_ref().map(|circuit| circuit.edges);
        let stability = size.and_then(|size| ranking.stability(size, self.resamples as usize, runs.runner.seed()));
        Ok(OfRanking { ranking, points, chosen, stability })
    }

    /// Runs a circuit, all but it, and it without each of its edges.
    fn of_circuit(&self, runs: &Runs, edges: &[usize]) -> Result<OfCircuit, AnalysisError> {
        let kept = runs.on_paths(edges);
        let (metric, without) = runs.with_and_without(&kept)?;
        // What would be run of a circuit that is not known yet.
        let counted: Vec<usize> = (0..kept.len().min(self.minimality as usize)).collect();
        let tried: &[usize] = match kept.len() <= self.minimality as usize {
            true => &kept,
            false if runs.runner.is_counting() => &counted,
            false => &[],
        };
        let less = runs.without_each(&kept, tried, self.minimality_pairs as usize)?;
        Ok(OfCircuit { edges: edges.len(), metric, without, less, kept })
    }
}
