//! The tables of a mixture at several scales: over pairs, and pair by pair.

use super::{Both, Items};
use crate::analyses::columns::OfPair;
use crate::analyses::effects::{Tested, family};
use crate::analyses::halves::{self, Halves, Value};
use crate::analyses::prelude::*;
use crate::analyses::summary::Swap;
use crate::stats::bca_mean;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The prompts of a pair, as tables call them.
pub(super) const SIDES: [&str; 2] = ["positive", "negative"];

rows! {
    /// One kind of prompts at one scale, over pairs.
    pub struct ScaleRow<'a> in "scale" {
        model: &'a str = "the model, as it was named: the recipe",
        mixture: Cow<'a, str> = "what is mixed, at scale 1",
        scale: f64 = "what the recipe's coefficients are multiplied by",
        side: &'a str = "which prompts of the pairs: positive or negative",
        n: i64 = "pairs",
        metric_mean: Option<f64> = "mean metric, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean metric's 95 % BCa interval, nats",
            "upper end of the mean metric's 95 % BCa interval, nats",
        ],
        change_mean: Option<f64> = "mean of metric minus metric at scale 0, nats; empty at scale 0, as all that follows",
        change_interval: Option<(f64, f64)> as "change_ci_" = [
            "lower end of the mean change's 95 % BCa interval, nats",
            "upper end of the mean change's 95 % BCa interval, nats",
        ],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean change",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over all scales of these prompts but 0",
        p_max: Option<f64> = "family-wise p-value by the max statistic over the same, same sign flips for every scale",
        halves: Halves as "change" = "metric minus metric at scale 0 of",
    }

    /// One prompt of a pair at one scale.
    pub struct PairRow<'a> in "pairs" {
        pair: OfPair<'a> as "",
        scale: f64 = "what the recipe's coefficients are multiplied by",
        side: &'a str = "positive or negative",
        metric: Option<f64> = "metric, nats",
        change: Option<f64> = "metric minus metric at scale 0, nats",
        answer_change: Option<f64> = "the same of logsumexp(answer logits) less the mean logit, nats",
        foil_change: Option<f64> = "the same of the foil: answer_change less this is change",
    }
}

/// One kind of prompts at all scales.
struct Side<'m> {
    name: &'static str,
    number: usize,
    measured: &'m [Vec<Both>],
    /// Which of the scales is 0.
    base: usize,
}

impl Side<'_> {
    /// What was read of each pair at a scale.
    fn values(&self, scale: usize) -> impl Iterator<Item = Value> {
        self.measured[scale].iter().map(|both| both[self.number])
    }

    fn metrics(&self, scale: usize) -> Vec<f64> {
        self.values(scale).map(|value| value.metric).collect()
    }

    /// How far each pair moves from the base to a scale.
    fn changes(&self, scale: usize) -> Vec<Swap> {
        self.values(self.base).zip(self.values(scale)).map(|(base, value)| base.swap(None, value)).collect()
    }

    /// All scales but the base's.
    fn others(&self) -> impl Iterator<Item = usize> {
        let base = self.base;
        (0..self.measured.len()).filter(move |scale| *scale != base)
    }
}

/// Both tables.
///
/// # Errors
/// If numbers are not all there.
pub(super) fn tables(about: &About, items: &Items, measured: &[Vec<Both>]) -> Result<Vec<Table>, AnalysisError> {
    let base = items.scales.iter().position(|scale| *scale == 0.0).unwrap_or(0);
    let side = |(number, name): (usize, &&'static str)| Side { name, number, measured, base };
    let sides: Vec<Side> = SIDES.iter().enumerate().map(side).collect();
    let mut rows = Vec::new();
    for side in &sides {
        rows.extend(scale_rows(about, items, side)?);
    }
    let pairs = sides.iter().flat_map(|side| (0..items.scales.len()).map(move |scale| (side, scale)));
    let pairs = pairs.flat_map(|(side, scale)| pair_rows(items, side, scale));
    Ok(vec![ScaleRow::table(rows)?, PairRow::table(pairs)?])
}

/// The rows of one kind of prompts, scale by scale.
fn scale_rows<'a>(about: &'a About, items: &Items, side: &Side) -> Result<Vec<ScaleRow<'a>>, AnalysisError> {
    let changes: Vec<Vec<Swap>> = side.others().map(|scale| side.changes(scale)).collect();
    let over = |of: fn(&Swap) -> Option<f64>| -> Vec<Vec<f64>> {
        changes.iter().map(|swaps| swaps.iter().filter_map(of).collect()).collect()
    };
    let effects = over(|swap| Some(swap.effect()));
    let tested = family(&effects, about.seed)?;
    let halves = halves::over_items(&over(|swap| swap.answer), &over(|swap| swap.foil()), about.seed);
    let bootstrap = Bootstrap { seed: about.seed, ..Bootstrap::default() };
    let changed = side.others().zip(effects.iter().zip(tested).zip(halves));
    let changed: BTreeMap<usize, (Option<f64>, Tested, Halves)> =
        changed.map(|(scale, ((effects, tested), halves))| (scale, (mean(effects), tested, halves))).collect();
    let row = |(i, scale): (usize, &f64)| {
        let metrics = side.metrics(i);
        let (change_mean, tested, halves) = changed.get(&i).copied().unwrap_or_default();
        ScaleRow {
            model: about.model,
            mixture: items.recipe.to_string().into(),
            scale: *scale,
            side: side.name,
            n: metrics.len() as i64,
            metric_mean: mean(&metrics),
            interval: bca_mean(&metrics, &bootstrap).map(Interval::ends),
            change_mean,
            change_interval: tested.interval,
            p_value: tested.p,
            q_value: tested.q,
            p_max: tested.p_max,
            halves,
        }
    };
    Ok(items.scales.iter().enumerate().map(row).collect())
}

/// The rows of one kind of prompts at a scale, pair by pair.
fn pair_rows<'a>(items: &'a Items, side: &Side, scale: usize) -> Vec<PairRow<'a>> {
    let is_base = scale == side.base;
    let row = |(pair, (metric, swap)): (&'a Pair, (f64, Swap))| PairRow {
        pair: pair.into(),
        scale: items.scales[scale],
        side: side.name,
        metric: Some(metric),
        change: Some(swap.effect()).filter(|_| !is_base),
        answer_change: swap.answer.filter(|_| !is_base),
        foil_change: swap.foil().filter(|_| !is_base),
    };
    let of_pairs = side.metrics(scale).into_iter().zip(side.changes(scale));
    items.pairs.dataset.items.iter().zip(of_pairs).map(row).collect()
}
