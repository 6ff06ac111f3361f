//! Edges: who feeds whom? Which writer's output, as one reader alone reads it, carries what tells two matched prompts apart?
//!
//! The base run is run again with one edge taken from the donor: the reader reads, of that writer, what it adds in the donor, and
//! all that follows is recomputed (Wang et al. 2022, "Interpretability in the Wild", for paths; Conmy et al. 2023, "Towards
//! Automated Circuit Discovery", for edges). Edges are named as in EAP-IG. A model has tens of thousands of them: all are estimated
//! ([`EdgeEstimate`](crate::plan::EdgeEstimate)), the strongest and a random sample of the rest are run exactly, or all are.

mod choice;
pub mod graph;
mod read;
mod tables;

pub use choice::{Exact, Score};
pub use tables::{AgreementRow, EdgeRow, PairRow};

use super::forks_at_once;
use super::interchange::Direction;
use super::prelude::*;
use crate::plan::{Edge, EdgeEffects, Exchange, Graph};
use choice::Chosen;

parameters! {
    /// Take every edge from the matched prompt, and measure what changes
    #[serde(default)]
    pub struct Edges {
        ..pairs: PairArgs;

        /// Where readers read what is taken: last, all, or a number (a negative one counts from the prompt's end)
        position: Position = Position::All, [allow_hyphen_values = true];

        /// Take edges into only one of the two runs (default: each in turn)
        direction: Option<Direction>, [value_enum];

        /// Estimate every edge by these; the first chooses which are run exactly
        estimate: Vec<Score> => vec![Score::Reader], [value_enum, value_name = "SCORES"];

        /// For eap-ig: take this many steps on the way between the two embeddings
        steps: u32 = 5, in 1..=1000, [value_name = "N"];

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
    /// Where readers read what is taken, one a pair.
    pub(super) positions: Vec<Positions>,
    pub(super) edges: Vec<Edge>,
}

/// What was found of the pairs, for each direction.
pub struct Measured {
    directions: Vec<OfDirection>,
}

/// One direction.
struct OfDirection {
    direction: Direction,
    /// One a way.
    estimates: Vec<Estimates>,
    chosen: Chosen,
    /// For each chosen edge, one effect a pair.
    effects: Vec<Vec<f64>>,
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
        if self.exact != Exact::All && self.estimate.is_empty() {
            let (estimate, exact) = (param("estimate"), param("exact").is("all"));
            let why = format!("the strongest edges are chosen by an estimate: give {estimate}, or {exact}");
            return Err(AnalysisError::Bad(why));
        }
        prepare(&self.pairs, self.position, model)
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Measured, AnalysisError> {
        let directions = self.directions().into_iter().map(|direction| self.of_direction(runner, items, direction));
        Ok(Measured { directions: directions.collect::<Result<_, _>>()? })
    }

    fn tables(&self, about: &About, items: &Items, measured: Measured) -> Result<Output, AnalysisError> {
        self.output(about, items, &measured)
    }
}

/// Pairs whose prompts are as long as each other, and the model's edges.
pub(super) fn prepare(pairs: &PairArgs, position: Position, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
    let prepared = pairs.read(model)?;
    let Pairs { dataset, tokens } = &prepared.items;
    let mut positions = Vec::with_capacity(tokens.len());
    for (pair, tokens) in dataset.items.iter().zip(tokens) {
        let at = |field| dataset.at(pair.line, &pair.id, field);
        let (p, n) = (tokens.positive.len(), tokens.negative.len());
        if p != n {
            let why = format!(
                "has {p} tokens and the negative {n}: an edge is taken position by position, so that both need as many; \
                 choose words that the tokenizer cuts alike (`gatelens tokens` shows how it cuts)"
            );
            return Err(at("positive").error(why).into());
        }
        positions.push(position.of(p).map_err(|why| at("positive").error(why))?);
    }
    let edges = Graph::of(&model.decoder.arch).edges().collect();
    Ok(prepared.map(|pairs| Items { pairs, positions, edges }))
}

impl Edges {
    fn directions(&self) -> Vec<Direction> {
        self.direction.map_or(vec![Direction::Necessity, Direction::Sufficiency], |d| vec![d])
    }

    /// The ways of estimating, each once.
    fn ways(&self) -> Vec<Score> {
        let mut ways: Vec<Score> = Vec::new();
        self.estimate.iter().for_each(|way| ways.extend((!ways.contains(way)).then_some(*way)));
        ways
    }

    fn of_direction(
        &self,
        runner: &dyn Runner,
        items: &Items,
        direction: Direction,
    ) -> Result<OfDirection, AnalysisError> {
        let estimates = self.estimates(runner, items, direction)?;
        let by = estimates.first().map(|of| of.means.as_slice());
        let counting = runner.is_counting();
        let chosen = Chosen::of(self.exact, self.sample as usize, items.edges.len(), by, runner.seed(), counting);
        let (mut base, mut other) = (Vec::new(), Vec::new());
        let mut effects = vec![Vec::with_capacity(items.pairs.tokens.len()); chosen.edges.len()];
        for i in 0..items.pairs.tokens.len() {
            let of_pair = Taken { items, direction, i };
            let run = of_pair.run(runner, &chosen.edges)?;
            base.push(run.base);
            other.push(run.other);
            effects.iter_mut().zip(run.patched).for_each(|(of_edge, patched)| of_edge.push(patched - run.base));
        }
        Ok(OfDirection { direction, estimates, chosen, effects, base, other })
    }

    /// Each way's mean estimates of all edges, and those of each pair where they are to be kept.
    fn estimates(
        &self,
        runner: &dyn Runner,
        items: &Items,
        direction: Direction,
    ) -> Result<Vec<Estimates>, AnalysisError> {
        let (ways, n) = (self.ways(), items.pairs.tokens.len());
        let none = |_: &Score| Estimates { means: vec![0.0; items.edges.len()], of_pairs: Vec::new() };
        let mut found: Vec<Estimates> = ways.iter().map(none).collect();
        for i in (0..n).filter(|_| !ways.is_empty()) {
            let mut plan = Plan::default();
            let runs = items.pairs.add(&mut plan, i);
            let (base, donor) = (runs[direction as usize], runs[1 - direction as usize]);
            let metric = &items.pairs.tokens[i].metric;
            let asked: Vec<Handle<_>> = ways
                .iter()
                .map(|way| {
                    let (metric, positions) = (metric.clone(), items.positions[i].clone());
                    plan.read(base, EdgeEffects { metric, donor, positions, by: way.estimate(self.steps) })
                })
                .collect();
            let readings = runner.run(&plan)?;
            for (asked, found) in asked.into_iter().zip(&mut found) {
                let values = &readings[asked].values;
                found.means.iter_mut().zip(values).for_each(|(mean, value)| *mean += f64::from(*value) / n as f64);
                if self.keep_pairs {
                    found.of_pairs.push(values.clone());
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
}

/// What was measured of a pair.
pub(super) struct OfPair {
    pub base: f64,
    pub other: f64,
    /// The metric with each edge, or set of edges, taken.
    pub patched: Vec<f64>,
}

impl Taken<'_> {
    /// Takes each of some edges, given by number, by itself. Edges are run a part of them at a time, so that what all their rows take
    /// at their widest stays small; readers follow each other in the order of layers, so that those of a part begin about alike.
    pub(super) fn run(&self, runner: &dyn Runner, edges: &[usize]) -> Result<OfPair, AnalysisError> {
        let arch = &runner.model().decoder.arch;
        let at_once = forks_at_once(arch, self.items.pairs.tokens[self.i].positive.len());
        let mut found = OfPair { base: 0.0, other: 0.0, patched: Vec::with_capacity(edges.len()) };
        let parts: Vec<&[usize]> = if edges.is_empty() { vec![&[]] } else { edges.chunks(at_once).collect() };
        for part in parts {
            let (mut plan, base, donor) = self.plan();
            let metric = &self.items.pairs.tokens[self.i].metric;
            let [clean, other] = [base, donor].map(|run| plan.read(run, metric.clone()));
            let taken: Vec<Handle<f64>> = part
                .iter()
                .map(|e| {
                    let edges = std::iter::once(self.items.edges[*e]).collect();
                    let positions = self.items.positions[self.i].clone();
                    let run = plan.exchange(base, Exchange { donor, edges, positions });
                    plan.read(run, metric.clone())
                })
                .collect();
            let readings = runner.run(&plan)?;
            (found.base, found.other) = (readings[clean], readings[other]);
            found.patched.extend(taken.into_iter().map(|handle| readings[handle]));
        }
        Ok(found)
    }

    /// A plan with the pair's prompts: the run that is edited, and the one that is taken from.
    pub(super) fn plan(&self) -> (Plan, Run, Run) {
        let mut plan = Plan::default();
        let runs = self.items.pairs.add(&mut plan, self.i);
        (plan, runs[self.direction as usize], runs[1 - self.direction as usize])
    }
}
