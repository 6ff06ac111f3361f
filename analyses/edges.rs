//! Edges: who feeds whom? Which writer's output, as one reader alone reads it, carries what tells two matched prompts apart?
//!
//! The base run is run again with one edge taken from the donor: the reader reads, of that writer, what it adds in the donor, and
//! all that follows is recomputed (Wang et al. 2022, "Interpretability in the Wild", for paths; Conmy et al. 2023, "Towards
//! Automated Circuit Discovery", for edges). Edges are named as in EAP-IG. A model has tens of thousands of them: all are estimated
//! ([`EdgeEstimate`](crate::plan::EdgeEstimate)), the strongest and a random sample of the rest are run exactly, or all are.

mod choice;
pub mod graph;
mod horizon;
mod parts;
mod read;
mod tables;

pub(super) use choice::HORIZON;
pub use choice::{Exact, Score};
pub use parts::PartRow;
pub(super) use parts::Parts;
pub(super) use read::{Drawn, layered};
pub use tables::{AgreementRow, EdgeRow, OfEdge, PairRow};

use super::align::align;
use super::forks_at_once;
use super::halves::{Asked, Value};
use super::inputs::{PairTokens, Spanned};
use super::interchange::Direction;
use super::prelude::*;
use crate::plan::{Alignment, Edge, EdgeEffects, Exchange, Graph, Kv};

use choice::{Chosen, Way};
use std::collections::BTreeMap;

parameters! {
    /// Take every edge from the matched prompt, and measure what changes
    #[serde(default)]
    pub struct Edges {
        ..pairs: PairArgs;

        /// Where readers read what is taken: last, all, or a number (a negative one counts from the prompt's end)
        position: Position = Position::All, [allow_hyphen_values = true];

        /// Take edges at each span of the pairs by itself: rows have the span's name as their position
        ///
        /// Readers read what is taken at the span alone. A pair names its spans in the field `spans` of its line; it does not count in
        /// the rows of a span that it lacks.
        by_span: bool, excludes position | align;

        /// Match up prompts of unequal lengths
        ///
        /// Equal beginnings and ends are matched token by token, and the spans between them in proportion. A reader takes from the matching
        /// position; at positions that match none it reads what it does.
        align: bool;

        /// Whose keys and values readers are, where heads share some
        kv: Kv = Kv::Head, [value_enum];

        /// Only edges that begin or end at these parts: L23.H3, a23.h3, m0, input, logits; several with commas
        ///
        /// p-values and q-values are corrected over these edges.
        of: Vec<String>, excludes circuit, [value_delimiter = ',', value_name = "PARTS"];

        /// Only edges that begin or end at the gate in the circuit.json that `screen` writes, or at the heads of a list or a graph
        circuit: Option<Data>, [value_name = "FILE"];

        /// Take edges into only one of the two runs (default: each in turn)
        direction: Option<Direction>, [value_enum];

        /// Estimate every edge by these; the first chooses which are run exactly
        estimate: Vec<Score> => vec![Score::Reader], [value_enum, value_name = "SCORES"];

        /// For eap-ig: take this many steps on the way between the two embeddings
        steps: u32 = 5, in 1..=1000, [value_name = "N"];

        /// Estimate every edge also by running it exactly through this many layers, the reader's the first, and the rest to first order;
        /// this estimate then chooses
        horizon: u32 = 0, [value_name = "LAYERS"];

        /// Run this many of the strongest edges exactly, in each direction, or all
        exact: Exact = Exact::Strongest(2000), [value_name = "N|all"];

        /// Run this many of the other edges too, drawn at random: they say what the estimate missed
        sample: u32 = 500, [value_name = "N"];

        /// Leave the effect on every pair of every edge that was run, too
        keep_pairs: bool;
    }
}

/// The pairs as the model reads them, and the model's edges.
pub struct Items {
    pub(super) pairs: Pairs,
    /// Where readers read what is taken: one place, or one a span.
    pub(super) places: Vec<Spanned>,
    /// How each pair's negative prompt matches its positive one, and the reverse: by [`Direction`].
    pub(super) alignments: Vec<[Alignment; 2]>,
    /// The edges in question, and the number of each among all of the model's.
    pub(super) edges: Vec<Edge>,
    numbers: Vec<usize>,
    /// The parts that edges are asked about, if not all.
    parts: Parts,
    kv: Kv,
}

/// What was found of the pairs, for each direction and place.
pub struct Measured {
    directions: Vec<OfDirection>,
}

/// One direction at one place.
struct OfDirection {
    direction: Direction,
    /// Where readers read what is taken.
    place: String,
    /// The pairs that have the place, by number.
    of: Vec<usize>,
    /// One a way.
    estimates: Vec<Estimates>,
    chosen: Chosen,
    /// For each chosen edge, one effect a pair.
    effects: Vec<Vec<f64>>,
    /// The same of the answer's half of the metric; empty where it has none.
    answers: Vec<Vec<f64>>,
    /// The metric of the run that is edited and of the one that is taken from, one a pair.
    base: Vec<f64>,
    other: Vec<f64>,
}

/// Estimates by one way.
struct Estimates {
    /// Each edge's mean over pairs.
    means: Vec<f64>,
    /// Each pair's, where they are kept.
    of_pairs: Vec<Vec<f32>>,
}

impl Analysis for Edges {
    const NAME: &'static str = "edges";
    const TITLE: &'static str = "Edges";
    const FROM_TABLES: FromTables = FromTables { figures: read::figures, sections: read::sections };
    type Items = Items;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        if self.exact != Exact::All && self.ways().is_empty() {
            let (estimate, exact) = (param("estimate"), param("exact").is("all"));
            let why = format!("the strongest edges are chosen by an estimate: give {estimate}, or {exact}");
            return Err(AnalysisError::Bad(why));
        }
        let (parts, gate) = self.parts(model)?;
        if self.align && matches!(self.position, Position::At(_)) {
            let (align, [all, last]) = (param("align"), ["all", "last"].map(|at| param("position").is(at)));
            let why = format!(
                "{align} matches prompts of unequal lengths, where a number is no one place: give {all} or {last}"
            );
            return Err(AnalysisError::Bad(why));
        }
        let position = (!self.by_span).then_some(self.position);
        let matching = Matching { position, align: self.align };
        let mut prepared = prepare(&self.pairs, matching, Among { parts, kv: self.kv }, model)?;
        prepared.sources.extend(gate);
        Ok(prepared)
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Measured, AnalysisError> {
        let at = |direction| items.places.iter().map(move |place| (direction, place));
        let all = self.directions().into_iter().flat_map(at);
        let directions = all.map(|(direction, place)| self.of_direction(runner, items, direction, place));
        Ok(Measured { directions: directions.collect::<Result<_, _>>()? })
    }

    fn tables(&self, about: &About, items: &Items, measured: Measured) -> Result<Output, AnalysisError> {
        self.output(about, items, &measured)
    }
}

/// Where readers read what is taken, and how prompts are matched.
#[derive(Clone, Copy)]
pub(super) struct Matching {
    /// None: at each span of the pairs.
    pub position: Option<Position>,
    /// Whether prompts may differ in length.
    pub align: bool,
}

/// Which edges are asked about.
#[derive(Default)]
pub(super) struct Among {
    pub parts: Parts,
    pub kv: Kv,
}

/// Pairs with how their prompts match, and the model's edges, of some parts or all.
pub(super) fn prepare(
    pairs: &PairArgs,
    matching: Matching,
    among: Among,
    model: &Model,
) -> Result<Prepared<Items>, AnalysisError> {
    Graph::there(&model.decoder.arch).map_err(AnalysisError::NotAskable)?;
    let prepared = pairs.read(model)?;
    let Pairs { dataset, tokens } = &prepared.items;
    let (mut of, mut alignments) = (BTreeMap::new(), Vec::with_capacity(tokens.len()));
    for (i, (pair, tokens)) in dataset.items.iter().zip(tokens).enumerate() {
        let at = |field| dataset.at(pair.line, &pair.id, field);
        alignments.push(matching.alignments(tokens).map_err(|why| at("positive").error(why))?);
        if let Some(position) = matching.position {
            of.insert(i, position.of(tokens.positive.len()).map_err(|why| at("positive").error(why))?);
        }
    }
    let places = match matching.position {
        Some(position) => vec![Spanned { name: position.to_string(), of }],
        None => prepared.items.spans()?,
    };
    let Among { parts, kv } = among;
    let graph = Graph::of(&model.decoder.of(kv).arch);
    let of = graph.edges().enumerate().filter(|(_, edge)| parts.have(*edge, &graph));
    let (numbers, edges) = of.unzip();
    Ok(prepared.map(|pairs| Items { pairs, places, alignments, edges, numbers, parts, kv }))
}

impl Matching {
    /// How a pair's prompts match, by [`Direction`].
    fn alignments(self, tokens: &PairTokens) -> Result<[Alignment; 2], String> {
        let (positive, negative) = (&tokens.positive, &tokens.negative);
        let (p, n) = (positive.len(), negative.len());
        if p == n {
            return Ok([Alignment::Same, Alignment::Same]);
        }
        if !self.align {
            return Err(format!(
                "has {p} tokens and the negative {n}: an edge is taken position by position, so that both need as many, or {}; \
                 choose words that the tokenizer cuts alike (`gatelens tokens` shows how it cuts)",
                param("align")
            ));
        }
        let both = [align(positive, negative), align(negative, positive)];
        if both.iter().any(|of| of.last() == Some(&None)) {
            let why = "one prompt is the beginning of the other: its last position, where the metric is read, matches another's";
            return Err(format!("has {p} tokens and the negative {n}, and {why}"));
        }
        Ok(both.map(Alignment::from_iter))
    }
}

impl Edges {
    fn directions(&self) -> Vec<Direction> {
        self.direction.map_or(vec![Direction::Necessity, Direction::Sufficiency], |d| vec![d])
    }

    /// The ways of estimating, each once; the first chooses.
    fn ways(&self) -> Vec<Way> {
        let horizon = (self.horizon > 0).then_some(Way::Horizon(self.horizon));
        horizon.into_iter().chain(Score::each_once(&self.estimate).into_iter().map(Way::Score)).collect()
    }

    fn of_direction(
        &self,
        runner: &dyn Runner,
        items: &Items,
        direction: Direction,
        place: &Spanned,
    ) -> Result<OfDirection, AnalysisError> {
        let estimates = self.estimates(runner, items, direction, place)?;
        let by = estimates.first().map(|of| of.means.as_slice());
        let counting = runner.is_counting();
        let chosen = Chosen::of(self.exact, self.sample as usize, items.edges.len(), by, runner.seed(), counting);
        let (mut base, mut other) = (Vec::new(), Vec::new());
        let mut effects = vec![Vec::with_capacity(place.of.len()); chosen.edges.len()];
        let mut answers = effects.clone();
        for (i, positions) in &place.of {
            let of_pair = Taken { items, direction, i: *i, positions };
            let run = of_pair.run(runner, &chosen.edges)?;
            base.push(run.base.metric);
            other.push(run.other.metric);
            for ((effects, answers), patched) in effects.iter_mut().zip(&mut answers).zip(run.patched) {
                let swap = run.base.swap(Some(run.other), patched);
                effects.push(swap.effect());
                answers.extend(swap.answer);
            }
        }
        let (place, of) = (place.name.clone(), place.of.keys().copied().collect());
        Ok(OfDirection { direction, place, of, estimates, chosen, effects, answers, base, other })
    }

    /// Each way's mean estimates of all edges, and those of each pair where they are to be kept.
    fn estimates(
        &self,
        runner: &dyn Runner,
        items: &Items,
        direction: Direction,
        place: &Spanned,
    ) -> Result<Vec<Estimates>, AnalysisError> {
        let (ways, n) = (self.ways(), place.of.len());
        let none = |_: &Way| Estimates { means: vec![0.0; items.edges.len()], of_pairs: Vec::new() };
        let mut found: Vec<Estimates> = ways.iter().map(none).collect();
        for (i, positions) in place.of.iter().filter(|_| !ways.is_empty()) {
            let taken = Taken { items, direction, i: *i, positions };
            for (estimates, found) in taken.estimates(runner, &ways, self.steps)?.into_iter().zip(&mut found) {
                let values = estimates.iter().map(|value| f64::from(*value) / n as f64);
                found.means.iter_mut().zip(values).for_each(|(mean, value)| *mean += value);
                if self.keep_pairs {
                    found.of_pairs.push(estimates);
                }
            }
        }
        Ok(found)
    }
}

/// Exchanges between the prompts of a pair.
pub(super) struct Taken<'a> {
    pub items: &'a Items,
    pub direction: Direction,
    /// Which pair.
    pub i: usize,
    /// Where readers read what is taken.
    pub positions: &'a Positions,
}

/// What was measured of a pair.
pub(super) struct OfPair {
    pub base: Value,
    pub other: Value,
    /// With each edge taken.
    pub patched: Vec<Value>,
}

impl Taken<'_> {
    /// Takes each of some edges, given by number, by itself. Edges are run a part of them at a time, so that what all their rows take
    /// at their widest stays small; readers follow each other in the order of layers, so that those of a part begin about alike.
    pub(super) fn run(&self, runner: &dyn Runner, edges: &[usize]) -> Result<OfPair, AnalysisError> {
        let (mut clean, mut patched) = (None, Vec::with_capacity(edges.len()));
        let parts: Vec<&[usize]> =
            if edges.is_empty() { vec![&[]] } else { edges.chunks(self.at_once(runner)).collect() };
        for part in parts {
            let (mut plan, base, donor) = self.plan();
            let metric = self.metric();
            let asked = [base, donor].map(|run| Value::ask(&mut plan, run, &metric));
            let mut taken: Vec<Asked> = Vec::with_capacity(part.len());
            for edge in part {
                let run = self.exchange(&mut plan, (base, donor), *edge);
                taken.push(Value::ask(&mut plan, run, &metric));
            }
            let readings = runner.run(&plan)?;
            clean = Some(asked.map(|asked| asked.of(&readings)));
            patched.extend(taken.into_iter().map(|asked| asked.of(&readings)));
        }
        // There is one part at least.
        let [base, other] = clean.unwrap_or([Value { metric: 0.0, answer: None }; 2]);
        Ok(OfPair { base, other, patched })
    }

    /// How many edges are run at once.
    fn at_once(&self, runner: &dyn Runner) -> usize {
        let PairTokens { positive, negative, .. } = &self.items.pairs.tokens[self.i];
        let base = if self.direction == Direction::Necessity { positive } else { negative };
        forks_at_once(&runner.model().decoder.arch, base.len())
    }

    /// Each way's estimates of all edges.
    fn estimates(&self, runner: &dyn Runner, ways: &[Way], steps: u32) -> Result<Vec<Vec<f32>>, AnalysisError> {
        let (mut plan, base, donor) = self.plan();
        let mut asked: Vec<Handle<Array>> = Vec::new();
        for way in ways {
            if let Way::Score(score) = way {
                let (metric, positions) = (self.metric(), self.positions.clone());
                let (alignment, by) = (self.alignment().clone(), score.estimate(steps));
                asked.push(plan.read(base, EdgeEffects { metric, donor, positions, alignment, by }));
            }
        }
        let readings = if asked.is_empty() { None } else { Some(runner.run(&plan)?) };
        let mut read =
            asked.into_iter().filter_map(|handle| readings.as_ref().map(|found| found[handle].values.clone()));
        let of = |way: &Way| match way {
            Way::Score(_) => {
                let all = read.next().unwrap_or_default();
                Ok(self.items.numbers.iter().map(|edge| all[*edge]).collect())
            }
            Way::Horizon(layers) => self.horizon(runner, *layers as usize),
        };
        ways.iter().map(of).collect()
    }

    fn metric(&self) -> Metric {
        self.items.pairs.tokens[self.i].metric.clone()
    }

    /// A run with one edge taken, by its number.
    fn exchange(&self, plan: &mut Plan, (base, donor): (Run, Run), edge: usize) -> Run {
        let edges = std::iter::once(self.items.edges[edge]).collect();
        let (positions, alignment) = (self.positions.clone(), self.alignment().clone());
        plan.exchange(base, Exchange { donor, edges, positions, alignment })
    }

    /// How the run that is taken from matches the one that is edited.
    fn alignment(&self) -> &Alignment {
        &self.items.alignments[self.i][self.direction as usize]
    }

    /// A plan with the pair's prompts: the run that is edited, and the one that is taken from.
    pub(super) fn plan(&self) -> (Plan, Run, Run) {
        let mut plan = Plan { kv: self.items.kv, ..Plan::default() };
        let runs = self.items.pairs.add(&mut plan, self.i);
        (plan, runs[self.direction as usize], runs[1 - self.direction as usize])
    }
}
