//! The tables of who is right.

use super::Asked;
use super::votes::{METHODS, Result as Voted, Split};
use crate::analyses::neurons::{EXPERT, Neuron, OfExpert};
use crate::analyses::prelude::*;
use crate::stats::wilson;
use std::borrow::Cow;

rows! {
    /// How often a method is right.
    pub struct AccuracyRow<'a> in "accuracy" {
        model: &'a str = "the model, as it was named",
        held_out: Cow<'a, str> = "the topic of the items, none of which was labelled; `none` where items of all topics were drawn from",
        method: &'a str =
            "`neurons` (their vote), `likelihood` (of a candidate's own tokens), `likelihood_per_token`, or `probe` (logistic, of the \
             residual stream at the last token)",
        labelled: i64 = "items that neurons and probe were found by; the likelihood needs none",
        n: i64 = "items of the test",
        accuracy: Option<f64> = "share of items on which it is right",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of that share's 95 % Wilson interval", "its upper end"],
        chance: Option<f64> = "what guessing gives",
        layer: i64 = "the layer of the probe, from 0; -1 for other methods",
    }

    /// A neuron that votes.
    pub struct NeuronRow<'a> in "neurons" {
        held_out: Cow<'a, str> = "the topic that was held out, or `none`",
        layer: i64 = "layer, from 0",
        expert: OfExpert [if any] = EXPERT,
        neuron: i64 = "neuron, from 0",
        sense: &'a str = "`largest` where it chooses the candidate with the largest mean activation, or `smallest`",
        labelled: Option<f64> = "share of the labelled items on which it is right: by this it was chosen",
        accuracy: Option<f64> = "share of the items of the test on which it is right by itself",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of that share's 95 % Wilson interval", "its upper end"],
    }

    /// An item of the test.
    pub struct ItemRow<'a> in "items" {
        held_out: Cow<'a, str> = "the topic that was held out, or `none`",
        id: &'a str = "the item",
        topic: Option<&'a str> = "its topic",
        right: &'a str = "the true candidate",
        neurons: &'a str = "the candidate that the neurons' vote chooses",
        likelihood: &'a str = "the likeliest candidate",
        likelihood_per_token: &'a str = "the likeliest candidate, token by token",
        probe: &'a str = "the candidate that the probe chooses",
    }
}

/// What stands for no topic.
pub const NONE: &str = "none";

pub(super) fn tables(
    about: &About,
    items: &Asked,
    names: &[Neuron],
    splits: &[Split],
    results: &[Voted],
) -> Result<Vec<Table>, AnalysisError> {
    let held_out = |split: &Split| -> Cow<'static, str> { split.topic.clone().map_or(Cow::Borrowed(NONE), Cow::Owned) };
    let (mut accuracy, mut neurons, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (split, result) in splits.iter().zip(results) {
        let n = split.test.len();
        let chance =
            mean(&split.test.iter().map(|q| 1.0 / items.questions[*q].candidates.len() as f64).collect::<Vec<_>>());
        for (m, method) in METHODS.into_iter().enumerate() {
            let right =
                split.test.iter().zip(&result.chosen[m]).filter(|(q, c)| items.questions[**q].right == **c).count();
            accuracy.push(AccuracyRow {
                model: about.model,
                held_out: held_out(split),
                method,
                labelled: split.labelled.len() as i64,
                n: n as i64,
                accuracy: (n > 0).then(|| right as f64 / n as f64),
                interval: wilson(right, n).map(Interval::ends),
                chance,
                layer: if method == "probe" { result.layer as i64 } else { -1 },
            });
        }
        neurons.extend(result.voters.iter().map(|voter| NeuronRow {
            held_out: held_out(split),
            layer: names[voter.neuron].layer as i64,
            expert: names[voter.neuron].in_table(),
            neuron: names[voter.neuron].neuron as i64,
            sense: if voter.sign > 0.0 { "largest" } else { "smallest" },
            labelled: Some(voter.labelled as f64 / split.labelled.len().max(1) as f64),
            accuracy: Some(voter.test as f64 / n.max(1) as f64),
            interval: wilson(voter.test, n).map(Interval::ends),
        }));
        rows.extend(split.test.iter().enumerate().map(|(i, q)| {
            let question = &items.questions[*q];
            let text = |c: usize| question.candidates[c].text.as_str();
            let chosen = |m: usize| text(result.chosen[m][i]);
            ItemRow {
                held_out: held_out(split),
                id: &question.id,
                topic: question.topic.as_deref(),
                right: text(question.right),
                neurons: chosen(0),
                likelihood: chosen(1),
                likelihood_per_token: chosen(2),
                probe: chosen(3),
            }
        }));
    }
    Ok(vec![AccuracyRow::table(accuracy)?, NeuronRow::table(neurons)?, ItemRow::table(rows)?])
}
