//! The tables of rankings.

use super::{Asked, METHODS, OfPrompt, STEPS, area};
use crate::analyses::columns::OfItem;
use crate::analyses::effects::family;
use crate::analyses::prelude::*;
use crate::stats::bca_family;
use std::borrow::Cow;

rows! {
    /// A token of a prompt.
    pub struct TokenRow<'a> in "tokens" {
        item: OfItem<'a> as "",
        position: i64 = "position of the prompt, from 0",
        token: Cow<'a, str> = "the token",
        own: bool = "whether it is of the prompt's own text, and was masked; what a template or the tokenizer adds stays",
        attention: Option<f64> = "attention that it is given, summed over queries and layers, mean over heads",
        vatp: Option<f64> = "the same, each weight times the L1 norm of the token's value",
        occlusion: Option<f64> = "metric of the prompt less that with this token masked, nats",
        rise: Option<f64> =
            "mean metric where it was kept less that where it was masked, over prompts with a random half masked, nats",
    }

    /// A ranking, or random ones on average, as tokens are masked or put back in its order.
    pub struct CurveRow<'a> in "curves" {
        model: &'a str = "the model, as it was named",
        ranking: &'a str = "attention, vatp, occlusion, rise or random",
        kind: &'a str = "`deletion`: tokens are masked from the most important on; `insertion`: they are put back in that order",
        share: f64 = "share of the prompt's own tokens that are masked, or are back",
        n: i64 = "prompts",
        metric_mean: Option<f64> = "mean metric, nats",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of that mean's 95 % BCa interval over prompts, nats", "its upper end, nats"],
    }

    /// How good a ranking is.
    pub struct SummaryRow<'a> in "summary" {
        model: &'a str = "the model, as it was named",
        ranking: &'a str = "attention, vatp, occlusion, rise or random",
        n: i64 = "prompts",
        deletion: Option<f64> = "mean height of the deletion curve, nats: the lower, the better",
        deletion_interval: Option<(f64, f64)> as "deletion_ci_" =
            ["lower end of its 95 % BCa interval, nats", "its upper end, nats"],
        insertion: Option<f64> = "mean height of the insertion curve, nats: the higher, the better",
        insertion_interval: Option<(f64, f64)> as "insertion_ci_" =
            ["lower end of its 95 % BCa interval, nats", "its upper end, nats"],
        score: Option<f64> = "insertion less deletion, nats",
        score_interval: Option<(f64, f64)> as "score_ci_" =
            ["lower end of its 95 % BCa interval, nats", "its upper end, nats"],
        over_random: Option<f64> = "score less that of random rankings, nats",
        over_random_interval: Option<(f64, f64)> as "over_random_ci_" =
            ["lower end of its 95 % BCa interval, nats", "its upper end, nats"],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of that difference",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over the rankings",
    }
}

pub(super) fn tables(about: &About, items: &Asked, measured: &[OfPrompt]) -> Result<Vec<Table>, AnalysisError> {
    Ok(vec![tokens(about, items, measured)?, summary(about, measured)?, curves(about, measured)?])
}

fn tokens(about: &About, items: &Asked, measured: &[OfPrompt]) -> Result<Table, AnalysisError> {
    let mut rows = Vec::new();
    for (i, of) in measured.iter().enumerate() {
        let (item, (ids, _)) = (&items.prompts.dataset.items[i], &items.prompts.tokens[i]);
        for (position, id) in ids.iter().enumerate() {
            let at = items.own[i].iter().position(|own| *own == position);
            let score = |k: usize| at.map(|at| of.scores[k][at]);
            rows.push(TokenRow {
                item: item.into(),
                position: position as i64,
                token: about.token(*id).into(),
                own: at.is_some(),
                attention: score(0),
                vatp: score(1),
                occlusion: score(2),
                rise: score(3),
            });
        }
    }
    Ok(TokenRow::table(rows)?)
}

/// The names of all rankings, the random ones last.
fn names() -> impl Iterator<Item = &'static str> {
    METHODS.into_iter().chain(["random"])
}

fn curves(about: &About, measured: &[OfPrompt]) -> Result<Table, AnalysisError> {
    let mut keys = Vec::new();
    let mut values: Vec<Vec<f64>> = Vec::new();
    for (m, ranking) in names().enumerate() {
        for (side, kind) in ["deletion", "insertion"].into_iter().enumerate() {
            for step in 0..=STEPS {
                keys.push((ranking, kind, step as f64 / STEPS as f64));
                values.push(measured.iter().map(|of| of.curves[m][side][step]).collect());
            }
        }
    }
    let intervals = bca_family(&values, &Bootstrap { seed: about.seed, ..Bootstrap::default() });
    let rows =
        keys.into_iter().zip(&values).zip(intervals).map(|(((ranking, kind, share), values), interval)| CurveRow {
            model: about.model,
            ranking,
            kind,
            share,
            n: values.len() as i64,
            metric_mean: mean(values),
            interval: interval.map(Interval::ends),
        });
    Ok(CurveRow::table(rows)?)
}

fn summary(about: &About, measured: &[OfPrompt]) -> Result<Table, AnalysisError> {
    let of =
        |m: usize, f: fn(&[Vec<f64>; 2]) -> f64| -> Vec<f64> { measured.iter().map(|of| f(&of.curves[m])).collect() };
    let score = |m: usize| of(m, |[deletion, insertion]| area(insertion) - area(deletion));
    let random = score(METHODS.len());
    let over: Vec<Vec<f64>> =
        (0..METHODS.len()).map(|m| score(m).iter().zip(&random).map(|(a, b)| a - b).collect()).collect();
    let tested = family(&over, about.seed)?;
    let mut rows = Vec::new();
    for (m, ranking) in names().enumerate() {
        let all = [of(m, |[deletion, _]| area(deletion)), of(m, |[_, insertion]| area(insertion)), score(m)];
        let intervals = bca_family(&all, &Bootstrap { seed: about.seed, ..Bootstrap::default() });
        let ends = |k: usize| intervals[k].map(Interval::ends);
        let tested = tested.get(m);
        rows.push(SummaryRow {
            model: about.model,
            ranking,
            n: measured.len() as i64,
            deletion: mean(&all[0]),
            deletion_interval: ends(0),
            insertion: mean(&all[1]),
            insertion_interval: ends(1),
            score: mean(&all[2]),
            score_interval: ends(2),
            over_random: over.get(m).and_then(|over| mean(over)),
            over_random_interval: tested.and_then(|tested| tested.interval),
            p_value: tested.and_then(|tested| tested.p),
            q_value: tested.and_then(|tested| tested.q),
        });
    }
    Ok(SummaryRow::table(rows)?)
}
