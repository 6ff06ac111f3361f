//! Runs of circuits on all pairs.

use super::{Items, Point};
use crate::analyses::circuit::curve::{FRACTIONS, Order};
use crate::analyses::inputs::Spanned;
use crate::analyses::prelude::*;
use crate::plan::{Edge, EdgeSet, Exchange};
use crate::stats;
use rand::seq::index::sample;
use std::sync::Arc;

/// Where circuits are run.
pub(super) struct Runs<'a> {
    pub runner: &'a dyn Runner,
    pub items: &'a Items,
}

/// Members that stay while all others are taken, or that are taken while all others stay.
enum Set<'a> {
    Kept(&'a [usize]),
    Taken(&'a [usize]),
}

/// What the writers of the circuits that are run at once may take, in bytes.
const AT_ONCE: usize = 384 << 20;

impl Runs<'_> {
    fn pairs(&self) -> usize {
        self.items.pairs.tokens.len()
    }

    /// The metrics of the positive and of the negative runs.
    pub(super) fn unedited(&self) -> Result<(Vec<f64>, Vec<f64>), AnalysisError> {
        let (mut base, mut donor) = (Vec::new(), Vec::new());
        for i in 0..self.pairs() {
            let (mut plan, runs) = self.items.plan(i);
            let metric = &self.items.pairs.tokens[i].metric;
            let [positive, negative] = runs.map(|run| plan.read(run, metric.clone()));
            let readings = self.runner.run(&plan)?;
            base.push(readings[positive]);
            donor.push(readings[negative]);
        }
        Ok((base, donor))
    }

    /// For each circuit, its metrics, one a pair.
    pub(super) fn kept(&self, circuits: &[&[usize]]) -> Result<Vec<Vec<f64>>, AnalysisError> {
        let sets: Vec<Set> = circuits.iter().map(|edges| Set::Kept(edges)).collect();
        self.metrics(&sets, self.pairs())
    }

    /// The metrics of a circuit, and those with the circuit taken and nothing else, one a pair.
    pub(super) fn with_and_without(&self, circuit: &[usize]) -> Result<(Vec<f64>, Vec<f64>), AnalysisError> {
        let mut metrics = self.metrics(&[Set::Kept(circuit), Set::Taken(circuit)], self.pairs())?;
        let without = metrics.pop().unwrap_or_default();
        Ok((metrics.pop().unwrap_or_default(), without))
    }

    /// For each of some edges of a circuit, the metrics of the circuit without it, of so many pairs.
    pub(super) fn without_each(
        &self,
        circuit: &[usize],
        edges: &[usize],
        pairs: usize,
    ) -> Result<Vec<Vec<f64>>, AnalysisError> {
        let less = |edge: &usize| circuit.iter().copied().filter(|kept| kept != edge).collect();
        let circuits: Vec<Vec<usize>> = edges.iter().map(less).collect();
        let sets: Vec<Set> = circuits.iter().map(|edges| Set::Kept(edges)).collect();
        self.metrics(&sets, pairs.min(self.pairs()))
    }

    /// The metrics of random circuits of each size, none of sizes that leave no choice.
    pub(super) fn random(&self, sizes: &[usize], of_each: usize) -> Result<Vec<Vec<Vec<f64>>>, AnalysisError> {
        let (all, seed) = (self.items.members(), self.runner.seed());
        let mut found = Vec::with_capacity(sizes.len());
        for (of, size) in sizes.iter().enumerate() {
            let drawn = |k: usize| {
                sample(&mut stats::rng(seed, &format!("random circuit {k} of fraction {of}")), all, *size).into_vec()
            };
            let circuits: Vec<Vec<usize>> = (0..of_each).filter(|_| (1..all).contains(size)).map(drawn).collect();
            let circuits: Vec<&[usize]> = circuits.iter().map(Vec::as_slice).collect();
            found.push(self.kept(&circuits)?);
        }
        Ok(found)
    }

    /// For each set, the metrics of the first pairs.
    fn metrics(&self, sets: &[Set], pairs: usize) -> Result<Vec<Vec<f64>>, AnalysisError> {
        let mut found = vec![Vec::with_capacity(pairs); sets.len()];
        for i in 0..pairs {
            let each = found.chunks_mut(self.at_once(i)).zip(sets.chunks(self.at_once(i)));
            for (found, sets) in each {
                let metrics = self.of_pair(i, sets)?;
                found.iter_mut().zip(metrics).for_each(|(found, metric)| found.push(metric));
            }
        }
        Ok(found)
    }

    /// How many circuits are run at once: their writers are held.
    fn at_once(&self, i: usize) -> usize {
        let (arch, n) = (&self.runner.model().decoder.arch, self.items.pairs.tokens[i].positive.len());
        let held = 4 * n * arch.n_layers * arch.d_model * (arch.n_heads + 3);
        (AT_ONCE / held.max(1)).clamp(4, 64)
    }

    fn of_pair(&self, i: usize, sets: &[Set]) -> Result<Vec<f64>, AnalysisError> {
        let (mut plan, [base, donor]) = self.items.plan(i);
        let metric = &self.items.pairs.tokens[i].metric;
        let mut asked: Vec<Handle<f64>> = Vec::with_capacity(sets.len());
        for set in sets {
            let run = match set {
                // With every edge taken it is the donor whose stream the logits read.
                Set::Kept([]) => donor,
                _ => match self.exchanges(i, donor, set) {
                    none if none.is_empty() => base,
                    exchanges => plan.exchanges(base, exchanges),
                },
            };
            asked.push(plan.read(run, metric.clone()));
        }
        let readings = self.runner.run(&plan)?;
        Ok(asked.into_iter().map(|handle| readings[handle]).collect())
    }

    /// What a set takes from the donor at each place that a pair has; nothing where it takes none.
    fn exchanges(&self, i: usize, donor: Run, set: &Set) -> Vec<Exchange> {
        let all = self.items.edges.len();
        let at = |(k, place): (usize, &Spanned)| {
            let positions = place.of.get(&i)?.clone();
            let here = |members: &[usize]| -> Arc<[Edge]> {
                let here = members.iter().filter(|member| **member / all == k);
                here.map(|member| self.items.edge(*member)).collect()
            };
            let edges = match set {
                Set::Kept(members) => Some(here(members)).filter(|kept| kept.len() < all).map(EdgeSet::AllBut),
                Set::Taken(members) => Some(here(members)).filter(|taken| !taken.is_empty()).map(EdgeSet::These),
            };
            Some(Exchange { donor, edges: edges?, positions, alignment: self.items.alignments[i].clone() })
        };
        self.items.places.iter().enumerate().filter_map(at).collect()
    }

    /// Those of some members whose edge lies on a path from the embedding to the logits, ascending: the others change nothing.
    pub(super) fn on_paths(&self, members: &[usize]) -> Vec<usize> {
        let mut numbers = members.to_vec();
        numbers.sort_unstable();
        let named: Vec<Edge> = numbers.iter().map(|member| self.items.edge(*member)).collect();
        let on_path = self.items.graph.on_paths(&named);
        numbers.into_iter().zip(on_path).filter(|(_, on_path)| *on_path).map(|(member, _)| member).collect()
    }

    /// The size of the smallest circuit that keeps enough, of edges in a ranking's order: the first of the curve's sizes that does,
    /// bisected between it and the one before.
    pub(super) fn smallest(
        &self,
        points: &[Point],
        ranked: &[usize],
        enough: &dyn Fn(&[f64]) -> bool,
    ) -> Result<usize, AnalysisError> {
        let curve: Vec<&Point> = points.iter().filter(|point| point.order == Order::Score).collect();
        // Where nothing is computed, a twentieth of all.
        let counted = FRACTIONS.iter().position(|fraction| *fraction == 0.05);
        let first = match self.runner.is_counting() {
            true => counted,
            false => curve.iter().position(|point| enough(&point.metric)),
        };
        let first = first.unwrap_or(curve.len() - 1);
        let mut most = curve[first].edges;
        let mut least = first.checked_sub(1).map_or(0, |before| curve[before].edges);
        while most > least + 1 {
            let middle = least + (most - least) / 2;
            let metric = self.kept(&[&ranked[..middle]])?.pop().unwrap_or_default();
            if enough(&metric) {
                most = middle;
            } else {
                least = middle;
            }
        }
        Ok(most)
    }
}
