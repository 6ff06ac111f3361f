//! The tables of interactions and of Shapley values.

use super::Found;
use crate::analyses::AnalysisError;
use crate::analyses::effects::{Share, family, shares_of_gap};
use crate::analyses::summary::{less, mean};
use crate::plan::Writer;
use crate::rows;
use crate::stats::{Bootstrap, Interval, bca_family};
use crate::table::Table;
use crate::table::rows::Row as _;
use std::borrow::Cow;

rows! {
    /// Two heads that are exchanged together, over pairs of prompts.
    pub struct PairOfHeadsRow<'a> in "pairs_of_heads" {
        model: &'a str = "the model, as it was named",
        layer_a: i64 = "layer of the first head, from 0; the second is in the same or a later one",
        head_a: i64 = "the first head's number in its layer, from 0",
        layer_b: i64 = "layer of the second head, from 0",
        head_b: i64 = "the second head's number in its layer, from 0",
        direction: &'a str = "necessity: positive run, heads from the negative; sufficiency: the reverse",
        position: Cow<'a, str> = "where heads were exchanged",
        n: i64 = "pairs of prompts",
        effect_a: Option<f64> = "mean effect of the first head alone, nats",
        effect_b: Option<f64> = "mean effect of the second head alone, nats",
        effect_both: Option<f64> = "mean effect of both together, nats",
        interaction_mean: Option<f64> = "mean of the effect of both less the effect of each alone, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean interaction's 95 % BCa interval, nats",
            "upper end of the mean interaction's 95 % BCa interval, nats",
        ],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean interaction",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over all pairs of these heads",
        p_max: Option<f64> = "family-wise p-value by the max statistic, same sign flips for every pair of heads",
        share: Share as "share_of_gap" =
            "share of the gap: the mean interaction over the mean of (other minus base metric); above 0 where the two together move \
             the metric further towards the other prompt than the sum of each alone",
        heads_by: &'a str = "why these heads: named, or strongest by their own exchange over the same pairs",
    }

    /// A mean over pairs.
    #[derive(Copy)]
    pub struct Over {
        mean: Option<f64> as "" = "mean {}, nats",
        interval: Option<(f64, f64)> as "_ci_" =
            ["lower end of its 95 % BCa interval, nats", "upper end of its 95 % BCa interval, nats"],
    }

    /// What a head has of the effect of all heads together.
    pub struct ShapleyRow<'a> in "shapley" {
        model: &'a str = "the model, as it was named",
        writer: Cow<'a, str> = "the head, as tables of edges name it: a12.h3",
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0",
        direction: &'a str = "necessity: positive run, heads from the negative; sufficiency: the reverse",
        position: Cow<'a, str> = "where heads were exchanged",
        n: i64 = "pairs of prompts",
        coalitions: i64 = "sets of heads that were run on each pair",
        value_mean: Option<f64> =
            "mean over pairs of the Shapley value: of what the head adds, over all orders of exchanging the heads one by one, nats; the \
             values of all heads add up to the effect of exchanging all together",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean value's 95 % BCa interval over pairs, nats",
            "upper end of the mean value's 95 % BCa interval over pairs, nats",
        ],
        standard_error: Option<f64> =
            "standard error of the mean value for the orders that were drawn, nats; empty where all sets of heads were run",
        share: Share as "share_of_gap" = "share of the gap: the mean value over the mean of (other minus base metric)",
        alone: Over as "effect_alone" = "effect of exchanging this head alone",
        heads_by: &'a str = "why these heads: named, or strongest by their own exchange over the same pairs",
    }
}

/// What all rows share.
pub(super) struct Shared<'a> {
    pub model: &'a str,
    pub direction: &'static str,
    pub position: String,
    /// Why these heads.
    pub chosen_by: &'static str,
    pub seed: u64,
}

/// The tables of what was found.
pub(super) fn tables(shared: &Shared, found: &Found) -> Result<Vec<Table>, AnalysisError> {
    let mut tables = vec![interactions(shared, found)?];
    tables.extend(shapley(shared, found)?);
    Ok(tables)
}

fn interactions(shared: &Shared, found: &Found) -> Result<Table, AnalysisError> {
    let of_heads = super::coalitions::pairs(found.heads.len());
    let interactions: Vec<Vec<f64>> = of_heads
        .iter()
        .zip(&found.both)
        .map(|((a, b), both)| less(&less(both, &found.alone[*a]), &found.alone[*b]))
        .collect();
    let tested = family(&interactions, shared.seed)?;
    let shares = shares_of_gap(&interactions, &less(&found.other, &found.base), shared.seed);
    let rows = of_heads.iter().enumerate().map(|(k, (a, b))| {
        let (first, second) = (found.heads[*a], found.heads[*b]);
        PairOfHeadsRow {
            model: shared.model,
            layer_a: first.layer as i64,
            head_a: first.head as i64,
            layer_b: second.layer as i64,
            head_b: second.head as i64,
            direction: shared.direction,
            position: shared.position.as_str().into(),
            n: found.base.len() as i64,
            effect_a: mean(&found.alone[*a]),
            effect_b: mean(&found.alone[*b]),
            effect_both: mean(&found.both[k]),
            interaction_mean: mean(&interactions[k]),
            interval: tested[k].interval,
            p_value: tested[k].p,
            q_value: tested[k].q,
            p_max: tested[k].p_max,
            share: shares[k],
            heads_by: shared.chosen_by,
        }
    });
    Ok(PairOfHeadsRow::table(rows)?)
}

/// The table of Shapley values; none where none were wanted.
fn shapley(shared: &Shared, found: &Found) -> Result<Option<Table>, AnalysisError> {
    let Some(values) = &found.shapley else { return Ok(None) };
    let bootstrap = Bootstrap { seed: shared.seed, ..Bootstrap::default() };
    let intervals = |numbers: &[Vec<f64>]| -> Vec<Option<(f64, f64)>> {
        bca_family(numbers, &bootstrap).into_iter().map(|interval| interval.map(Interval::ends)).collect()
    };
    let (of_values, of_alone) = (intervals(&values.of_pairs), intervals(&found.alone));
    let shares = shares_of_gap(&values.of_pairs, &less(&found.other, &found.base), shared.seed);
    let errors = values.errors();
    let rows = found.heads.iter().enumerate().map(|(k, head)| ShapleyRow {
        model: shared.model,
        writer: Writer::Head { layer: head.layer, head: head.head }.to_string().into(),
        layer: head.layer as i64,
        head: head.head as i64,
        direction: shared.direction,
        position: shared.position.as_str().into(),
        n: found.base.len() as i64,
        coalitions: values.coalitions as i64,
        value_mean: mean(&values.of_pairs[k]),
        interval: of_values[k],
        standard_error: errors[k],
        share: shares[k],
        alone: Over { mean: mean(&found.alone[k]), interval: of_alone[k] },
        heads_by: shared.chosen_by,
    });
    Ok(Some(ShapleyRow::table(rows)?))
}
