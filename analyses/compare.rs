//! Comparison of checkpoints: where does the circuit sit in each, and are they the same heads?
//!
//! Works on the tables of finished runs over the same pairs: the heads of `screen` or `interchange`, and the answers of
//! `behaviour` where there are such. Depth is relative, (layer + 1/2) / layers, so that models of different sizes stand on one
//! axis. Heads of models of one shape are compared as sets: how many of the heads that carry the behaviour in both directions
//! they share, against what two random sets of these sizes would (hypergeometric). Refusals are compared prompt by prompt.
//! Source: "How Alignment Routes" (2026), on circuits that relocate between the generations of a family while behaviour stays.
//! Which runs may be compared is left to the command.

mod report;
pub mod steps;

pub use report::{figures, sections};

use super::answered::Answered;
use super::behaviour::{AnswerRow, RateRow};
use super::effects::read;
use super::interchange::{Direction, Exchange, Read, Row};
use super::routing::screen::{Carrier, circuit};
use crate::analyses::prelude::*;
use crate::answers::Class;
use crate::stats::{PairedCounts, counted, overlap_p, share_difference, spearman, wilson};
use std::collections::BTreeMap;

/// A finished run of a checkpoint.
pub struct Checkpoint {
    /// The model, as it was named.
    pub model: String,
    /// The checksum of its files' headers: another one is another model, the same need not be the same.
    pub sha256: String,
    /// How many parameters it has.
    pub parameters: u64,
    /// What its heads were measured on.
    pub pairs: PairSet,
    /// The table `heads` of its screen or interchange.
    pub heads: Table,
    /// Its behaviour, where it was measured.
    pub behaviour: Option<Behaviour>,
}

/// The tables of a run of `behaviour`.
#[derive(Clone)]
pub struct Behaviour {
    /// What was asked.
    pub pairs: PairSet,
    pub rates: Table,
    /// The answers themselves, where they were kept.
    pub answers: Option<Table>,
}

/// The pairs of a run.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PairSet {
    /// The file, as it was named.
    pub file: String,
    pub sha256: String,
    /// How many of the file's pairs were used: which ones follows from that.
    pub n: i64,
}

impl PairSet {
    /// Whether both are the same pairs, whatever their file is called.
    pub fn same(&self, other: &PairSet) -> bool {
        (&self.sha256, self.n) == (&other.sha256, other.n)
    }
}

/// How deep a layer lies in a model, in the middle of its layer, from 0 to 1.
pub fn relative_depth(layer: i64, n_layers: i64) -> f64 {
    (layer as f64 + 0.5) / n_layers.max(1) as f64
}

/// What is compared of a checkpoint.
struct Found<'a> {
    checkpoint: &'a Checkpoint,
    heads: Read<'a>,
    layers: i64,
    heads_a_layer: i64,
    carriers: Vec<Carrier>,
    /// Shares of positive prompts that are refused, with their number.
    refusals: Option<(f64, i64)>,
    /// Whether each positive prompt is refused, by its pair.
    refused: Option<BTreeMap<&'a str, bool>>,
}

impl<'a> Found<'a> {
    fn of(checkpoint: &'a Checkpoint) -> Result<Self, AnalysisError> {
        let heads = read::<Exchange>(&checkpoint.heads)?;
        let most = |of: fn(&Row) -> i64| heads.rows.iter().map(of).max().unwrap_or(-1) + 1;
        let behaviour = checkpoint.behaviour.as_ref();
        Ok(Found {
            checkpoint,
            layers: most(|r| r.layer),
            heads_a_layer: most(|r| r.head),
            carriers: circuit(&heads),
            heads,
            refusals: behaviour.map(|b| refusals(&b.rates)).transpose()?.flatten(),
            refused: behaviour.and_then(|b| b.answers.as_ref()).map(refused).transpose()?,
        })
    }

    fn depth(&self, layer: i64) -> f64 {
        relative_depth(layer, self.layers)
    }

    fn gate_depth(&self) -> Option<f64> {
        self.carriers.first().map(|c| self.depth(c.head.layer as i64))
    }

    /// Every head's effect in one direction as a share of the gap, by its estimate where it was not run.
    fn shares(&self, direction: Direction) -> Vec<Option<f64>> {
        let rows: Vec<&Row> = self.heads.rows.iter().filter(|r| r.variant == direction.name()).collect();
        let gap = rows.iter().find_map(|r| r.gap());
        rows.iter().map(|r| Some(r.effect_mean.or(r.estimate_mean)? / gap?)).collect()
    }

    /// The mean depth of the heads that carry, weighted by how much of the gap each crosses.
    fn center(&self) -> Option<f64> {
        let weight = |c: &Carrier| c.crossed.iter().sum::<f64>();
        let all: f64 = self.carriers.iter().map(weight).sum();
        let depths = self.carriers.iter().map(|c| weight(c) * self.depth(c.head.layer as i64));
        (all > 0.0).then(|| depths.sum::<f64>() / all)
    }
}

/// The share of positive prompts that are refused.
fn refusals(rates: &Table) -> Result<Option<(f64, i64)>, AnalysisError> {
    let (sides, bys, n) = (rates.column(RateRow::side)?, rates.column(RateRow::by)?, rates.column(RateRow::n)?);
    let shares = rates.floats(Class::Refusal.name())?;
    let all = (0..rates.rows()).find(|i| sides[*i] == "positive" && bys[*i] == "all");
    Ok(all.and_then(|i| Some((shares[i]?, n[i]))))
}

/// Whether each positive prompt is refused.
fn refused(answers: &Table) -> Result<BTreeMap<&str, bool>, AnalysisError> {
    let ids = answers.column(AnswerRow::id)?;
    let (sides, classes) = (answers.strs(AnswerRow::side.name)?, answers.column(Answered::class)?);
    let positive = (0..answers.rows()).filter(|i| sides[*i] == "positive");
    Ok(positive.map(|i| (ids[i], classes[i] == Class::Refusal.name())).collect())
}

/// The tables of a comparison: `checkpoints`, one row a model; `overlap`, one a pair of models; `heads`, all heads of all.
///
/// # Errors
/// If a checkpoint's tables are not those of a screen or interchange.
pub fn tables(checkpoints: &[Checkpoint]) -> Result<Vec<Table>, AnalysisError> {
    let found = checkpoints.iter().map(Found::of).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![checkpoints_table(&found)?, overlap_table(&found)?, heads_table(&found)?])
}

rows! {
    /// A checkpoint: a model with its circuit and its behaviour.
    pub struct CheckpointRow<'a> in "checkpoints" {
        model: &'a str = "the model, as it was named",
        parameters: i64 = "how many parameters it has",
        n_layers: i64 = "its layers",
        n_heads: i64 = "its heads a layer",
        n: i64 = "pairs",
        pairs: &'a str = "the file of pairs, as it was named",
        same_pairs: bool = "whether its heads and its behaviour were measured on the same pairs as the first model's heads",
        positive_mean: Option<f64> = "mean metric of the positive prompts, nats",
        negative_mean: Option<f64> = "mean metric of the negative prompts, nats",
        carriers: i64 = "heads that carry the behaviour in both directions of interchange (q < 0.05)",
        gate_layer: i64 = "layer of the strongest; -1 for none",
        gate_head: i64 = "its head; -1 for none",
        gate_depth: Option<f64> = "its relative depth, (layer + 1/2) / layers",
        gate_necessity: Option<f64> = "share of the gap that its exchange crosses in the positive run",
        gate_sufficiency: Option<f64> = "the same in the negative run",
        center_depth: Option<f64> = "mean relative depth of the carriers, weighted by the shares they cross",
        refusal: Option<f64> = "share of positive prompts that are refused, where behaviour was measured",
        refusal_interval: Option<(f64, f64)> as "refusal_" =
            ["lower end of its 95 % Wilson interval", "its upper end"],
    }

    /// Two checkpoints.
    pub struct OverlapRow<'a> in "overlap" {
        model: &'a str = "the first model",
        other: &'a str = "the second model",
        same_shape: bool = "whether both have as many layers and heads, so that heads can be matched",
        same_model: bool [newer] = "whether both are one model, of one checksum and one name",
        same_effects: bool [newer] = "whether every head has the same effects in both, to the last bit",
        carriers: i64 = "heads that carry the behaviour in the first",
        other_carriers: i64 = "heads that carry it in the second",
        shared: Option<f64> = "heads that carry the behaviour in both; empty for other shapes",
        expected: Option<f64> = "how many random sets of these sizes share",
        p_value: Option<f64> = "how often random sets share as many or more (hypergeometric)",
        jaccard: Option<f64> = "shared heads as a share of those that carry in either",
        necessity_spearman: Option<f64> =
            "rank correlation of all heads' effects in the positive runs; estimates stand in for heads that were not run",
        sufficiency_spearman: Option<f64> = "the same in the negative runs",
        gate_shift: Option<f64> = "relative depth of the other's gate minus the first's",
        center_shift: Option<f64> = "the same of the carriers' mean depth",
        refusal_difference: Option<f64> = "share of refusals of the other minus the first's",
        refusal_interval: Option<(f64, f64)> as "refusal_" =
            ["lower end of its 95 % interval (Newcombe)", "its upper end"],
        refusal_paired: bool = "whether the interval is of the same prompts, asked of both; else it is of different prompts",
    }

    /// A head of a checkpoint in one direction.
    pub struct HeadRow<'a> in "heads" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0",
        relative_depth: Option<f64> = "(layer + 1/2) / layers",
        direction: &'a str = "necessity or sufficiency",
        n: i64 = "pairs",
        effect_mean: Option<f64> = "mean effect, nats; empty where it was only estimated",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of its 95 % interval", "its upper end"],
        crossed: Option<f64> = "share of the gap between the mean metrics that is crossed",
        p_value: Option<f64> = "sign-flip p-value",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over the model's heads",
        carries: bool = "whether it carries the behaviour in both directions",
    }
}

fn checkpoints_table(found: &[Found]) -> Result<Table, AnalysisError> {
    let first_pairs = found.first().map(|f| &f.checkpoint.pairs);
    let same_pairs = |f: &Found| {
        let behaviour = f.checkpoint.behaviour.as_ref().map(|b| &b.pairs);
        let mut sets = std::iter::once(&f.checkpoint.pairs).chain(behaviour);
        sets.all(|set| first_pairs.is_none_or(|first| first.same(set)))
    };
    Ok(CheckpointRow::table(found.iter().map(|f| CheckpointRow { same_pairs: same_pairs(f), ..f.row() }))?)
}

impl Found<'_> {
    /// The checkpoint's row, without what it has in common with others.
    fn row(&self) -> CheckpointRow<'_> {
        // Rows of heads that were not run know neither the metrics nor all pairs.
        let metrics = self.heads.rows.iter().find_map(|r| r.positive_mean.zip(r.negative_mean));
        let gate = self.carriers.first().map(|c| (c.head, c.crossed));
        let interval =
            self.refusals.map(|(share, n)| counted(share, n)).and_then(|(successes, n)| wilson(successes, n));
        CheckpointRow {
            model: &self.checkpoint.model,
            parameters: self.checkpoint.parameters as i64,
            n_layers: self.layers,
            n_heads: self.heads_a_layer,
            n: self.checkpoint.pairs.n,
            pairs: &self.checkpoint.pairs.file,
            same_pairs: false,
            positive_mean: metrics.map(|m| m.0),
            negative_mean: metrics.map(|m| m.1),
            carriers: self.carriers.len() as i64,
            gate_layer: gate.map_or(-1, |g| g.0.layer as i64),
            gate_head: gate.map_or(-1, |g| g.0.head as i64),
            gate_depth: self.gate_depth(),
            gate_necessity: gate.map(|g| g.1[0]),
            gate_sufficiency: gate.map(|g| g.1[1]),
            center_depth: self.center(),
            refusal: self.refusals.map(|r| r.0),
            refusal_interval: interval.map(Interval::ends),
        }
    }
}

/// Two checkpoints.
struct Two<'a> {
    a: &'a Found<'a>,
    b: &'a Found<'a>,
}

impl Two<'_> {
    fn same_shape(&self) -> bool {
        (self.a.layers, self.a.heads_a_layer) == (self.b.layers, self.b.heads_a_layer)
    }

    /// Whether both are one model: of one checksum and of one name.
    fn same_model(&self) -> bool {
        let [a, b] = [self.a, self.b].map(|f| f.checkpoint);
        a.sha256 == b.sha256 && a.model == b.model
    }

    /// Whether every head has the same effects in both, to the last bit.
    fn same_effects(&self) -> bool {
        let effects = |f: &Found| f.heads.rows.iter().map(|r| r.effect_mean.map(f64::to_bits)).collect::<Vec<_>>();
        self.same_shape() && effects(self.a) == effects(self.b)
    }

    fn shared(&self) -> Option<usize> {
        let in_b = |c: &&Carrier| self.b.carriers.iter().any(|d| d.head == c.head);
        self.same_shape().then(|| self.a.carriers.iter().filter(in_b).count())
    }

    fn sizes(&self) -> (usize, usize, usize) {
        ((self.a.layers * self.a.heads_a_layer) as usize, self.a.carriers.len(), self.b.carriers.len())
    }

    fn expected(&self) -> Option<f64> {
        let (all, a, b) = self.sizes();
        (self.same_shape() && all > 0).then(|| a as f64 * b as f64 / all as f64)
    }

    /// How often random sets share as many heads or more.
    fn p_value(&self) -> Option<f64> {
        let (all, a, b) = self.sizes();
        overlap_p(all, a, b, self.shared()?)
    }

    /// Shared heads as a share of those that carry in either.
    fn jaccard(&self) -> Option<f64> {
        let (_, a, b) = self.sizes();
        let shared = self.shared()?;
        let either = a + b - shared;
        (either > 0).then(|| shared as f64 / either as f64)
    }

    /// Rank correlation of all heads' effects in one direction.
    fn agreement(&self, direction: Direction) -> Option<f64> {
        let both = self.a.shares(direction).into_iter().zip(self.b.shares(direction)).filter_map(|(a, b)| a.zip(b));
        let (a, b): (Vec<f64>, Vec<f64>) = both.unzip();
        if self.same_shape() { spearman(&a, &b) } else { None }
    }

    fn row(&self) -> OverlapRow<'_> {
        let (_, carriers, other_carriers) = self.sizes();
        let refusals = self.refusals();
        OverlapRow {
            model: &self.a.checkpoint.model,
            other: &self.b.checkpoint.model,
            same_shape: self.same_shape(),
            same_model: self.same_model(),
            same_effects: self.same_effects(),
            carriers: carriers as i64,
            other_carriers: other_carriers as i64,
            shared: self.shared().map(|n| n as f64),
            expected: self.expected(),
            p_value: self.p_value(),
            jaccard: self.jaccard(),
            necessity_spearman: self.agreement(Direction::Necessity),
            sufficiency_spearman: self.agreement(Direction::Sufficiency),
            gate_shift: self.a.gate_depth().zip(self.b.gate_depth()).map(|(a, b)| b - a),
            center_shift: self.a.center().zip(self.b.center()).map(|(a, b)| b - a),
            refusal_difference: refusals.map(|(difference, ..)| difference),
            refusal_interval: refusals.map(|(_, low, high)| (low, high)),
            refusal_paired: self.paired().is_some(),
        }
    }

    /// The refusals of the same prompts by both; none where they were asked different ones.
    fn paired(&self) -> Option<PairedCounts> {
        let sets = [self.a, self.b].map(|f| f.checkpoint.behaviour.as_ref().map(|b| &b.pairs));
        let [Some(a), Some(b)] = sets else { return None };
        let (of_a, of_b) = (self.a.refused.as_ref()?, self.b.refused.as_ref()?);
        let both = of_a.iter().filter_map(|(id, a)| Some((*a, *of_b.get(id)?)));
        a.same(b).then(|| PairedCounts::of(both))
    }

    /// The difference of the shares of refusals, b minus a, with Newcombe's interval; of the same prompts where both were asked
    /// the same.
    fn refusals(&self) -> Option<(f64, f64, f64)> {
        let (a, b) = (self.a.refusals?, self.b.refusals?);
        let interval = match self.paired() {
            Some(counts) => counts.interval()?,
            None => share_difference(counted(a.0, a.1), counted(b.0, b.1))?,
        };
        Some((b.0 - a.0, interval.low, interval.high))
    }
}

fn overlap_table(found: &[Found]) -> Result<Table, AnalysisError> {
    let others = |(i, a)| found[i + 1..].iter().map(move |b| Two { a, b });
    let pairs: Vec<Two> = found.iter().enumerate().flat_map(others).collect();
    Ok(OverlapRow::table(pairs.iter().map(Two::row))?)
}

/// All heads of all checkpoints in one table.
fn heads_table(found: &[Found]) -> Result<Table, AnalysisError> {
    let carries =
        |f: &Found, r: &Row| f.carriers.iter().any(|c| (c.head.layer as i64, c.head.head as i64) == (r.layer, r.head));
    let rows = found.iter().flat_map(|f| f.heads.rows.iter().map(move |r| (f, r)));
    Ok(HeadRow::table(rows.map(|(f, r)| HeadRow {
        model: &f.checkpoint.model,
        layer: r.layer,
        head: r.head,
        relative_depth: Some(f.depth(r.layer)),
        direction: r.variant,
        n: r.n,
        effect_mean: r.effect_mean,
        interval: r.interval,
        crossed: r.crossed(),
        p_value: r.p_value,
        q_value: r.q_value,
        carries: carries(f, r),
    }))?)
}

#[cfg(test)]
mod tests;
