//! The tables of the knockout cascade.

use super::{Class, Knocked, KnockedOut, Loss, Shared, class};
use crate::analyses::components::{OfComponent, OfWriter};
use crate::analyses::effects::family;
use crate::analyses::halves::{self, Halves};
use crate::analyses::heads::{Head, names};
use crate::analyses::prelude::*;
use crate::analyses::summary::{less, sd};
use crate::stats::{bca_family, bca_ratio, ratio};
use std::borrow::Cow;

/// Below this, in nats, an attribution is next to nothing, and a share of it says nothing.
const NEGLIGIBLE: f64 = 1e-3;

rows! {
    /// What a component loses.
    pub struct DropRow<'a> in "components" {
        model: &'a str = "the model, as it was named",
        mode: &'a str = "how the gate was knocked out: interchange or zero",
        component: OfComponent<'a> as "",
        writer: OfWriter<'a> [newer] as "",
        n: i64 = "pairs",
        clean_mean: Option<f64> = "mean attribution in the positive prompts, nats",
        knocked_mean: Option<f64> = "the same with the gate knocked out, nats",
        drop_mean: Option<f64> =
            "mean of clean minus knocked out, nats; those of all components add up to the fall of the metric before \
             soft-capping",
        drop_sd: Option<f64> = "its standard deviation over pairs, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean drop's 95 % BCa interval, nats",
            "upper end of the mean drop's 95 % BCa interval, nats",
        ],
        drop_share: Option<f64> = "mean drop over mean clean attribution; empty where that is under 0.001 nats",
        share_of_effect: Option<f64> =
            "mean drop over the metric's mean fall when the gate is knocked out; empty where that is under 0.001 nats",
        p_value: Option<f64> =
            "two-sided sign-flip permutation p-value of the mean drop; empty where the gate cannot reach",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over the heads and MLPs that the gate can reach",
        p_max: Option<f64> = "family-wise p-value by the max statistic over the same",
        is_gate: bool = "whether it is of the gate",
        amplifier: bool = "a later head with q < 0.05 whose drop and clean attribution have the sign of the metric's fall",
        halves: Halves [newer] as "drop" = "clean minus knocked out attribution to",
    }

    /// What a knockout does.
    pub struct KnockoutRow<'a> in "knockouts" {
        model: &'a str = "the model, as it was named",
        mode: &'a str = "how heads were knocked out: interchange or zero",
        heads: &'a str = "what was knocked out; `amplifiers`: all that have a row of their own",
        layer: i64 = "the amplifier's layer, from 0; -1 where it is not one",
        head: i64 = "the amplifier's number in its layer, from 0; -1 where it is not one",
        with_gate: bool = "whether the gate was knocked out as well",
        n: i64 = "pairs",
        metric_mean: Option<f64> = "mean metric with the knockout, nats",
        effect_mean: Option<f64> = "mean of that minus the positive prompt's metric, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean effect's 95 % BCa interval, nats",
            "upper end of the mean effect's 95 % BCa interval, nats",
        ],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean effect",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over all knockouts",
        alone: Option<f64> = "mean effect of the amplifiers without the gate, nats",
        beyond_gate: Option<f64> = "mean effect of the amplifiers on top of the gate's knockout, nats",
        beyond: Option<(f64, f64)> as "beyond_ci_" =
            ["lower end of its 95 % BCa interval, nats", "upper end of its 95 % BCa interval, nats"],
        halves: Halves [newer] as "effect" = "knocked out minus clean of",
    }

    /// A number over pairs, with its interval.
    #[derive(Copy)]
    pub struct OverPairs {
        mean: Option<f64> = "{}, mean, nats",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of its 95 % BCa interval, nats", "upper end of its 95 % BCa interval, nats"],
    }

    /// The gate's direct and total effect, and what stands between them.
    pub struct RepairRow<'a> in "repair" {
        model: &'a str = "the model, as it was named",
        gate: Cow<'a, str> = "the gate's heads",
        mode: &'a str = "how it was knocked out: interchange or zero",
        n: i64 = "pairs",
        positive_mean: Option<f64> = "mean metric of the positive prompts, nats",
        negative_mean: Option<f64> = "mean metric of the negative prompts, nats",
        knocked_mean: Option<f64> = "mean metric of the positive prompts with the gate out, nats",
        direct: OverPairs as "direct_" = "change of the gate's own attribution",
        total: OverPairs as "total_" = "change of the metric",
        difference: OverPairs as "difference_" =
            "total minus direct effect; against the direct one where later components repair it",
        later_heads: OverPairs as "later_heads_" = "change of the attributions of heads after the gate's first layer",
        later_mlps: OverPairs as "later_mlps_" = "change of the attributions of MLPs from that layer on",
        rest: OverPairs as "rest_" =
            "what is left: the final norm's scale on all other components, and soft-capping",
        later_heads_share: Option<f64> = "mean change of later heads over the mean total effect",
        later_heads_share_interval: Option<(f64, f64)> as "later_heads_share_ci_" = [
            "lower end of that share's 95 % BCa interval over pairs, both resampled together; empty where the total effect is \
             not beyond chance",
            "its upper end",
        ],
        direct_halves: Halves [newer] as "direct" = "change of the gate's own attribution to",
        total_halves: Halves [newer] as "total" = "change of",
        difference_halves: Halves [newer] as "difference" = "total minus direct effect on",
        later_heads_halves: Halves [newer] as "later_heads" =
            "change of the attributions of heads after the gate's first layer to",
        later_mlps_halves: Halves [newer] as "later_mlps" =
            "change of the attributions of MLPs from that layer on to",
        rest_halves: Halves [newer] as "rest" = "what is left of the change of",
    }
}

pub(super) fn components_table(shared: &Shared, knocked: &Knocked, losses: &[Loss]) -> Result<Table, AnalysisError> {
    let fall = mean(&knocked.fall());
    let part = |part: Option<f64>, of: Option<f64>| Some(part? / of.filter(|of| of.abs() >= NEGLIGIBLE)?);
    let attributions = knocked.clean.iter().zip(&knocked.knocked);
    let answers: Vec<Vec<f64>> = losses.iter().map(|loss| loss.answers.clone()).collect();
    let foils: Vec<Vec<f64>> = losses.iter().map(|loss| less(&loss.answers, &loss.drops)).collect();
    let halves = halves::over_items(&answers, &foils, shared.seed);
    Ok(DropRow::table(losses.iter().zip(attributions).zip(halves).map(|((loss, (clean, knocked)), halves)| DropRow {
        model: shared.model,
        mode: shared.mode,
        component: (&loss.component).into(),
        writer: (&loss.component).into(),
        n: loss.drops.len() as i64,
        clean_mean: mean(clean),
        knocked_mean: mean(knocked),
        drop_mean: mean(&loss.drops),
        drop_sd: sd(&loss.drops),
        interval: loss.tested.interval,
        drop_share: part(mean(&loss.drops), mean(clean)),
        share_of_effect: part(mean(&loss.drops), fall),
        p_value: loss.tested.p,
        q_value: loss.tested.q,
        p_max: loss.tested.p_max,
        is_gate: loss.is_gate,
        amplifier: loss.amplifier,
        halves,
    }))?)
}

pub(super) fn knockouts_table(shared: &Shared, knockouts: &[KnockedOut]) -> Result<Table, AnalysisError> {
    let effects: Vec<Vec<f64>> = knockouts.iter().map(|k| k.effects.clone()).collect();
    let tested = family(&effects, shared.seed)?;
    let beyond: Vec<Vec<f64>> = knockouts.iter().map(|k| k.beyond.clone()).collect();
    let beyond = bca_family(&beyond, &Bootstrap { seed: shared.seed, ..Bootstrap::default() });
    let answers: Vec<Vec<f64>> = knockouts.iter().map(|k| k.answers.clone()).collect();
    let foils: Vec<Vec<f64>> = knockouts.iter().map(|k| less(&k.answers, &k.effects)).collect();
    let halves = halves::over_items(&answers, &foils, shared.seed);
    let rows = knockouts.iter().zip(tested).zip(beyond).zip(halves);
    Ok(KnockoutRow::table(rows.map(|(((knockout, tested), beyond), halves)| KnockoutRow {
        model: shared.model,
        mode: shared.mode,
        heads: &knockout.name,
        layer: knockout.head.map_or(-1, |h| h.layer as i64),
        head: knockout.head.map_or(-1, |h| h.head as i64),
        with_gate: knockout.with_gate,
        n: knockout.metrics.len() as i64,
        metric_mean: mean(&knockout.metrics),
        effect_mean: mean(&knockout.effects),
        interval: tested.interval,
        p_value: tested.p,
        q_value: tested.q,
        alone: knockout.alone,
        beyond_gate: mean(&knockout.beyond),
        beyond: beyond.map(Interval::ends),
        halves,
    }))?)
}

/// A change that the knockout makes, one number a pair, taken apart: direct, total, what is between them, later heads, later MLPs,
/// and what is left.
fn taken_apart(knocked: &Knocked, gate: &[Head], total: Vec<f64>, [clean, out]: [&[Vec<f64>]; 2]) -> [Vec<f64>; 6] {
    let of_class = |wanted: Class| {
        let mut sum = vec![0.0; total.len()];
        let members = (0..knocked.components.len()).filter(|c| class(&knocked.components[*c], gate) == Some(wanted));
        for c in members {
            sum.iter_mut().zip(less(&out[c], &clean[c])).for_each(|(sum, x)| *sum += x);
        }
        sum
    };
    let [direct, heads, mlps] = [Class::Gate, Class::Head, Class::Mlp].map(of_class);
    let indirect = less(&total, &direct);
    let rest = less(&less(&indirect, &heads), &mlps);
    [direct, total, indirect, heads, mlps, rest]
}

/// The gate's direct and total effect, and what stands between them.
pub(super) fn repair_table(shared: &Shared, gate: &[Head], knocked: &Knocked) -> Result<Table, AnalysisError> {
    let total = less(&knocked.gate_out, &knocked.positive);
    let numbers = taken_apart(knocked, gate, total, [&knocked.clean, &knocked.knocked]);
    let of_answer = less(&knocked.answers[1], &knocked.answers[0]);
    let answers = taken_apart(knocked, gate, of_answer, knocked.to_answers.each_ref().map(|rows| &rows[..]));
    let foils: [Vec<f64>; 6] = std::array::from_fn(|k| less(&answers[k], &numbers[k]));
    let halves = halves::over_items(&answers, &foils, shared.seed);
    let options = Bootstrap { seed: shared.seed, ..Bootstrap::default() };
    let [_, total, _, heads, ..] = &numbers;
    let (share, share_interval) = (ratio(heads, total), bca_ratio(heads, total, &options));
    let over = |numbers: &Vec<f64>, interval: &Option<Interval>| OverPairs {
        mean: mean(numbers),
        interval: interval.map(Interval::ends),
    };
    let intervals = bca_family(&numbers.each_ref(), &options);
    let [direct, total, difference, later_heads, later_mlps, rest] =
        std::array::from_fn(|k| over(&numbers[k], &intervals[k]));
    Ok(RepairRow::table([RepairRow {
        model: shared.model,
        gate: names(gate).into(),
        mode: shared.mode,
        n: knocked.positive.len() as i64,
        positive_mean: mean(&knocked.positive),
        negative_mean: mean(&knocked.negative),
        knocked_mean: mean(&knocked.gate_out),
        direct,
        total,
        difference,
        later_heads,
        later_mlps,
        rest,
        later_heads_share: share,
        later_heads_share_interval: share_interval.map(Interval::ends),
        direct_halves: halves[0],
        total_halves: halves[1],
        difference_halves: halves[2],
        later_heads_halves: halves[3],
        later_mlps_halves: halves[4],
        rest_halves: halves[5],
    }])?)
}
