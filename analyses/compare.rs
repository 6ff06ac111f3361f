//! Comparison of checkpoints: where does the circuit sit in each, and are they the same heads?
//!
//! Works on the tables of finished runs over the same pairs: the heads of `screen` or `interchange`, and the answers of
//! `behaviour` where there are such. Depth is relative, (layer + 1/2) / layers, so that models of different sizes stand on one
//! axis. Heads of models of one shape are compared as sets: how many of the heads that carry the behaviour in both directions
//! they share, against what two random sets of these sizes would (hypergeometric). Refusals are compared prompt by prompt.
//! Source: "How Alignment Routes" (2026), on circuits that relocate between the generations of a family while behaviour stays.
//! Which runs may be compared is left to the command.

mod report;

pub use report::{figures, sections};

use super::AnalysisError;
use super::effects::{Read, Row, read};
use super::interchange::Direction;
use super::routing::screen::{Carrier, circuit};
use crate::stats::{PairedCounts, counted, overlap_p, share_difference, spearman, wilson};
use crate::table::Table;
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
        let heads = read(&checkpoint.heads, "direction")?;
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
        rows.iter().map(|r| Some(r.effect.or(r.estimate)? / gap?)).collect()
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
    let (sides, bys, n, shares) = (rates.strs("side")?, rates.strs("by")?, rates.ints("n")?, rates.floats("refusal")?);
    let all = (0..rates.rows()).find(|i| sides[*i] == "positive" && bys[*i] == "all");
    Ok(all.and_then(|i| Some((shares[i]?, n[i]))))
}

/// Whether each positive prompt is refused.
fn refused(answers: &Table) -> Result<BTreeMap<&str, bool>, AnalysisError> {
    let (ids, sides, classes) = (answers.strs("id")?, answers.strs("side")?, answers.strs("class")?);
    let positive = (0..answers.rows()).filter(|i| sides[*i] == "positive");
    Ok(positive.map(|i| (ids[i], classes[i] == "refusal")).collect())
}

/// The tables of a comparison: `checkpoints`, one row a model; `overlap`, one a pair of models; `heads`, all heads of all.
///
/// # Errors
/// If a checkpoint's tables are not those of a screen or interchange.
pub fn tables(checkpoints: &[Checkpoint]) -> Result<Vec<Table>, AnalysisError> {
    let found = checkpoints.iter().map(Found::of).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![checkpoints_table(&found)?, overlap_table(&found)?, heads_table(&found)?])
}

fn checkpoints_table(found: &[Found]) -> Result<Table, AnalysisError> {
    // Rows of heads that were not run know neither the metrics nor all pairs.
    let metrics = |f: &Found| f.heads.rows.iter().find_map(|r| r.positive.zip(r.negative));
    let first_pairs = found.first().map(|f| &f.checkpoint.pairs);
    let same_pairs = |f: &Found| {
        let behaviour = f.checkpoint.behaviour.as_ref().map(|b| &b.pairs);
        let mut sets = std::iter::once(&f.checkpoint.pairs).chain(behaviour);
        sets.all(|set| first_pairs.is_none_or(|first| first.same(set)))
    };
    let interval = |f: &Found| {
        let (successes, n) = f.refusals.map(|(share, n)| counted(share, n))?;
        wilson(successes, n)
    };
    let table = Table::new("checkpoints")
        .str("model", "the model, as it was named", found.iter().map(|f| f.checkpoint.model.as_str()))?
        .int("parameters", "how many parameters it has", found.iter().map(|f| f.checkpoint.parameters as i64))?
        .int("n_layers", "its layers", found.iter().map(|f| f.layers))?
        .int("n_heads", "its heads a layer", found.iter().map(|f| f.heads_a_layer))?
        .int("n", "pairs", found.iter().map(|f| f.checkpoint.pairs.n))?
        .str("pairs", "the file of pairs, as it was named", found.iter().map(|f| f.checkpoint.pairs.file.as_str()))?
        .flag(
            "same_pairs",
            "whether its heads and its behaviour were measured on the same pairs as the first model's heads",
            found.iter().map(same_pairs),
        )?
        .float(
            "positive_mean",
            "mean metric of the positive prompts, nats",
            found.iter().map(|f| metrics(f).map(|m| m.0)),
        )?
        .float(
            "negative_mean",
            "mean metric of the negative prompts, nats",
            found.iter().map(|f| metrics(f).map(|m| m.1)),
        )?;
    Ok(circuit_columns(table, found)?
        .float(
            "refusal",
            "share of positive prompts that are refused, where behaviour was measured",
            found.iter().map(|f| f.refusals.map(|r| r.0)),
        )?
        .float(
            "refusal_low",
            "lower end of its 95 % Wilson interval",
            found.iter().map(|f| interval(f).map(|i| i.low)),
        )?
        .float("refusal_high", "its upper end", found.iter().map(|f| interval(f).map(|i| i.high)))?)
}

/// Where the heads that carry the behaviour sit, and how strong the first is.
fn circuit_columns(table: Table, found: &[Found]) -> Result<Table, AnalysisError> {
    let first = |f: &Found| f.carriers.first().map(|c| (c.head, c.crossed));
    Ok(table
        .int(
            "carriers",
            "heads that carry the behaviour in both directions of interchange (q < 0.05)",
            found.iter().map(|f| f.carriers.len() as i64),
        )?
        .int(
            "gate_layer",
            "layer of the strongest; -1 for none",
            found.iter().map(|f| first(f).map_or(-1, |c| c.0.layer as i64)),
        )?
        .int("gate_head", "its head; -1 for none", found.iter().map(|f| first(f).map_or(-1, |c| c.0.head as i64)))?
        .float("gate_depth", "its relative depth, (layer + 1/2) / layers", found.iter().map(Found::gate_depth))?
        .float(
            "gate_necessity",
            "share of the gap that its exchange crosses in the positive run",
            found.iter().map(|f| first(f).map(|c| c.1[0])),
        )?
        .float("gate_sufficiency", "the same in the negative run", found.iter().map(|f| first(f).map(|c| c.1[1])))?
        .float(
            "center_depth",
            "mean relative depth of the carriers, weighted by the shares they cross",
            found.iter().map(Found::center),
        )?)
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
        let effects = |f: &Found| f.heads.rows.iter().map(|r| r.effect.map(f64::to_bits)).collect::<Vec<_>>();
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
    let mut rows = Vec::new();
    for (i, a) in found.iter().enumerate() {
        rows.extend(found[i + 1..].iter().map(|b| Two { a, b }));
    }
    let float = |f: &dyn Fn(&Two) -> Option<f64>| rows.iter().map(f).collect::<Vec<_>>();
    let table = Table::new("overlap")
        .str("model", "the first model", rows.iter().map(|t| t.a.checkpoint.model.as_str()))?
        .str("other", "the second model", rows.iter().map(|t| t.b.checkpoint.model.as_str()))?
        .flag(
            "same_shape",
            "whether both have as many layers and heads, so that heads can be matched",
            rows.iter().map(Two::same_shape),
        )?
        .flag("same_model", "whether both are one model, of one checksum and one name", rows.iter().map(Two::same_model))?
        .flag(
            "same_effects",
            "whether every head has the same effects in both, to the last bit",
            rows.iter().map(Two::same_effects),
        )?
        .int("carriers", "heads that carry the behaviour in the first", rows.iter().map(|t| t.sizes().1 as i64))?
        .int("other_carriers", "heads that carry it in the second", rows.iter().map(|t| t.sizes().2 as i64))?
        .float(
            "shared",
            "heads that carry the behaviour in both; empty for other shapes",
            float(&|t| t.shared().map(|n| n as f64)),
        )?
        .float("expected", "how many random sets of these sizes share", float(&|t| t.expected()))?
        .float("p_value", "how often random sets share as many or more (hypergeometric)", float(&|t| t.p_value()))?
        .float("jaccard", "shared heads as a share of those that carry in either", float(&|t| t.jaccard()))?
        .float(
            "necessity_spearman",
            "rank correlation of all heads' effects in the positive runs; estimates stand in for heads that were not run",
            float(&|t| t.agreement(Direction::Necessity)),
        )?
        .float(
            "sufficiency_spearman",
            "the same in the negative runs",
            float(&|t| t.agreement(Direction::Sufficiency)),
        )?
        .float(
            "gate_shift",
            "relative depth of the other's gate minus the first's",
            float(&|t| Some(t.b.gate_depth()? - t.a.gate_depth()?)),
        )?
        .float(
            "center_shift",
            "the same of the carriers' mean depth",
            float(&|t| Some(t.b.center()? - t.a.center()?)),
        )?;
    refusal_columns(table, &rows)
}

fn refusal_columns(table: Table, rows: &[Two]) -> Result<Table, AnalysisError> {
    let float = |f: &dyn Fn((f64, f64, f64)) -> f64| rows.iter().map(|t| t.refusals().map(f)).collect::<Vec<_>>();
    Ok(table
        .float("refusal_difference", "share of refusals of the other minus the first's", float(&|r| r.0))?
        .float("refusal_low", "lower end of its 95 % interval (Newcombe)", float(&|r| r.1))?
        .float("refusal_high", "its upper end", float(&|r| r.2))?
        .flag(
            "refusal_paired",
            "whether the interval is of the same prompts, asked of both; else it is of different prompts",
            rows.iter().map(|t| t.paired().is_some()),
        )?)
}

/// All heads of all checkpoints in one table.
fn heads_table(found: &[Found]) -> Result<Table, AnalysisError> {
    let rows: Vec<(&Found, &Row)> = found.iter().flat_map(|f| f.heads.rows.iter().map(move |r| (f, r))).collect();
    let carries =
        |f: &Found, r: &Row| f.carriers.iter().any(|c| (c.head.layer as i64, c.head.head as i64) == (r.layer, r.head));
    Ok(Table::new("heads")
        .str("model", "the model, as it was named", rows.iter().map(|(f, _)| f.checkpoint.model.as_str()))?
        .int("layer", "layer, from 0", rows.iter().map(|(_, r)| r.layer))?
        .int("head", "head, from 0", rows.iter().map(|(_, r)| r.head))?
        .float("relative_depth", "(layer + 1/2) / layers", rows.iter().map(|(f, r)| f.depth(r.layer)))?
        .str("direction", "necessity or sufficiency", rows.iter().map(|(_, r)| r.variant))?
        .int("n", "pairs", rows.iter().map(|(_, r)| r.n))?
        .float(
            "effect_mean",
            "mean effect, nats; empty where it was only estimated",
            rows.iter().map(|(_, r)| r.effect),
        )?
        .float("ci_low", "lower end of its 95 % interval", rows.iter().map(|(_, r)| r.interval.map(|i| i.0)))?
        .float("ci_high", "its upper end", rows.iter().map(|(_, r)| r.interval.map(|i| i.1)))?
        .float(
            "crossed",
            "share of the gap between the mean metrics that is crossed",
            rows.iter().map(|(_, r)| r.crossed()),
        )?
        .float("p_value", "sign-flip p-value", rows.iter().map(|(_, r)| r.p))?
        .float("q_value", "Benjamini-Hochberg q-value over the model's heads", rows.iter().map(|(_, r)| r.q))?
        .flag(
            "carries",
            "whether it carries the behaviour in both directions",
            rows.iter().map(|(f, r)| carries(f, r)),
        )?)
}

#[cfg(test)]
mod tests;
