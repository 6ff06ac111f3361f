//! The tables of a function vector.

use super::evaluate::{Condition, Said};
use super::{Asked, Functions, Measured};
use crate::analyses::effects::family;
use crate::analyses::neurons::vocabulary_of;
use crate::analyses::prelude::*;
use crate::stats::{bca_family, sign_flip_family, wilson};
use std::borrow::Cow;

rows! {
    /// A head over prompts with shuffled examples.
    pub struct HeadRow<'a> in "heads" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0",
        n: i64 = "prompts",
        base_mean: Option<f64> = "probability of the right output after shuffled examples, mean",
        effect_mean: Option<f64> =
            "average indirect effect: what the head's mean after right examples, put in its place at the last token, adds to that \
             probability",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of the mean effect's 95 % BCa interval over prompts", "its upper end"],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean effect",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over all heads",
        p_max: Option<f64> = "family-wise p-value by the max statistic",
        chosen: bool = "whether the vector is made of it",
    }

    /// How often the right output is the likeliest, in one kind of prompts under one condition.
    pub struct AccuracyRow<'a> in "accuracy" {
        model: &'a str = "the model, as it was named",
        form: Cow<'a, str> = "the prompt, {input} being the word",
        words: &'a str = "`held out`, or `training`: of these the layer is chosen by, without examples",
        vector: &'a str = "`none`, `function`, `random` (the mean over sets of random heads, with the coefficient that was chosen), `examples` or `shuffled` (in the prompt)",
        layer: i64 = "the layer after which the vector is added, from 0; -1 where none is",
        coefficient: f64 = "how many times it is added; 0 where none is",
        n: i64 = "words",
        accuracy: Option<f64> = "share of words whose right output's first token is the likeliest",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of that share's 95 % interval (Wilson; BCa for `random`)", "its upper end"],
        logprob_mean: Option<f64> = "mean log-probability of the right output's first token, nats",
        logprob_interval: Option<(f64, f64)> as "logprob_ci_" =
            ["lower end of that mean's 95 % BCa interval, nats", "its upper end, nats"],
    }

    /// A kind of prompts at the layer that was chosen by the words for training, over the words that were held out.
    pub struct SummaryRow<'a> in "summary" {
        model: &'a str = "the model, as it was named",
        form: Cow<'a, str> = "the prompt, {input} being the word",
        layer: i64 = "the layer that was chosen",
        coefficient: f64 = "the coefficient that was chosen",
        n: i64 = "words that were held out",
        accuracy: Option<f64> = "share of words that are right with the function vector",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of that share's 95 % Wilson interval", "its upper end"],
        without: Option<f64> = "share of words that are right without a vector",
        random: Option<f64> = "mean share with sets of random heads, at the same layer and coefficient",
        gain: Option<f64> = "accuracy less that without a vector",
        gain_interval: Option<(f64, f64)> as "gain_ci_" =
            ["lower end of that gain's 95 % BCa interval over words", "its upper end"],
        over_random: Option<f64> = "accuracy less that with random heads",
        over_random_interval: Option<(f64, f64)> as "over_random_ci_" =
            ["lower end of that difference's 95 % BCa interval over words", "its upper end"],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the difference to random heads",
    }

    /// A word that was held out, at the layer that was chosen.
    pub struct ItemRow<'a> in "items" {
        form: Cow<'a, str> = "the prompt, {input} being the word",
        input: &'a str = "the word",
        output: &'a str = "the right output",
        token: Cow<'a, str> = "the output's first token, which is looked for",
        rank_without: Option<f64> = "its rank without a vector: 1 for the likeliest",
        rank: Option<f64> = "its rank with the function vector",
        rank_examples: Option<f64> = "its rank after right examples",
        logprob_without: Option<f64> = "its log-probability without a vector, nats",
        logprob: Option<f64> = "its log-probability with the function vector, nats",
    }

    /// A token of the vector's vocabulary.
    pub struct VocabularyRow<'a> in "vocabulary" {
        end: &'a str = "`raised` or `lowered`",
        rank: i64 = "1 for the one that is raised, or lowered, most",
        token: Cow<'a, str> = "the token",
        token_id: i64 = "its id",
        logit: Option<f64> =
            "what the vector adds to the token's logit through the final norm's gain, less the vocabulary's mean, before its scale",
    }
}

pub(super) fn tables(
    of: &Functions,
    about: &About,
    items: &Asked,
    measured: &Measured,
) -> Result<Vec<Table>, AnalysisError> {
    let mut tables = vec![heads(about, items, measured)?];
    tables.push(summary(about, items, measured)?);
    tables.push(accuracy(about, items, measured)?);
    tables.push(words(about, items, measured)?);
    tables.push(vocabulary(of, about, measured)?);
    Ok(tables)
}

fn heads(about: &About, items: &Asked, measured: &Measured) -> Result<Table, AnalysisError> {
    let tested = family(&measured.aie, about.seed)?;
    let rows = items.units.iter().enumerate().map(|(i, unit)| HeadRow {
        model: about.model,
        layer: unit.site.layer as i64,
        head: unit.head_number(),
        n: measured.aie[i].len() as i64,
        base_mean: mean(&measured.base),
        effect_mean: mean(&measured.aie[i]),
        interval: tested[i].interval,
        p_value: tested[i].p,
        q_value: tested[i].q,
        p_max: tested[i].p_max,
        chosen: measured.chosen.contains(&i),
    });
    Ok(HeadRow::table(rows)?)
}

/// What a word came to with random heads after a layer: the mean over their sets.
fn of_random(conditions: &[Condition], said: &[Said], layer: usize) -> [f64; 2] {
    let of: Vec<Said> = conditions.iter().zip(said).filter(|(c, _)| c.layer == layer).map(|(_, said)| *said).collect();
    let n = of.len().max(1) as f64;
    let right = of.iter().filter(|said| said.right()).count() as f64;
    [right / n, of.iter().map(|said| said.logprob).sum::<f64>() / n]
}

/// Whether a word was right, and its log-probability.
fn numbers(said: Said) -> [f64; 2] {
    [f64::from(u8::from(said.right())), said.logprob]
}

/// The template as it was written.
fn written(items: &Asked, form: usize) -> Cow<'static, str> {
    items.forms[form].template.replace('\n', "\\n").into()
}

fn summary(about: &About, items: &Asked, measured: &Measured) -> Result<Table, AnalysisError> {
    let (all, n) = (&measured.evaluated, items.words.held_out.len());
    let options = Bootstrap { seed: about.seed, ..Bootstrap::default() };
    let mut rows = Vec::new();
    for (form, best) in all.chosen.iter().enumerate() {
        let at = all.conditions[*best];
        let right = |k: usize| -> Vec<f64> { all.alone[form][..n].iter().map(|said| numbers(said[k])[0]).collect() };
        let (with, without) = (right(best + 1), right(0));
        let (conditions, said) = &all.random[form];
        let random: Vec<f64> = said.iter().map(|said| of_random(conditions, said, at.layer)[0]).collect();
        let less = |other: &[f64]| -> Vec<f64> { with.iter().zip(other).map(|(a, b)| a - b).collect() };
        let differences = [less(&without), less(&random)];
        let intervals = bca_family(&differences, &options);
        let tests = sign_flip_family(&differences[1..], crate::stats::draws_for(1), about.seed);
        let tests = tests.map_err(|e| AnalysisError::Failed(format!("statistics: {e}")))?;
        let right = with.iter().sum::<f64>() as usize;
        rows.push(SummaryRow {
            model: about.model,
            form: written(items, form),
            layer: at.layer as i64,
            coefficient: f64::from(at.coefficient),
            n: n as i64,
            accuracy: mean(&with),
            interval: wilson(right, n).map(Interval::ends),
            without: mean(&without),
            random: mean(&random),
            gain: mean(&differences[0]),
            gain_interval: intervals[0].map(Interval::ends),
            over_random: mean(&differences[1]),
            over_random_interval: intervals[1].map(Interval::ends),
            p_value: tests.first().map(|test| test.p),
        });
    }
    Ok(SummaryRow::table(rows)?)
}

fn accuracy(about: &About, items: &Asked, measured: &Measured) -> Result<Table, AnalysisError> {
    let (all, held_out) = (&measured.evaluated, items.words.held_out.len());
    let options = Bootstrap { seed: about.seed, ..Bootstrap::default() };
    // The numbers of each row, before their intervals.
    struct Of {
        form: usize,
        words: &'static str,
        vector: &'static str,
        at: Option<Condition>,
        values: Vec<[f64; 2]>,
    }
    let mut found: Vec<Of> = Vec::new();
    for (k, vector) in ["examples", "shuffled"].into_iter().enumerate() {
        let values = all.shown.iter().map(|both| numbers(both[k])).collect();
        found.push(Of { form: 0, words: "held out", vector, at: None, values });
    }
    for form in 0..items.forms.len() {
        let (out, training) = all.alone[form].split_at(held_out);
        for (words, said) in [("held out", out), ("training", training)] {
            let values = |k: usize| said.iter().map(|said| numbers(said[k])).collect();
            found.push(Of { form, words, vector: "none", at: None, values: values(0) });
            found.extend(all.conditions.iter().enumerate().map(|(c, at)| Of {
                form,
                words,
                vector: "function",
                at: Some(*at),
                values: values(c + 1),
            }));
        }
        let (conditions, said) = &all.random[form];
        found.extend(conditions.iter().filter(|c| c.vector == 1).map(|at| Of {
            form,
            words: "held out",
            vector: "random",
            at: Some(*at),
            values: said.iter().map(|said| of_random(conditions, said, at.layer)).collect(),
        }));
    }
    let column =
        |k: usize| -> Vec<Vec<f64>> { found.iter().map(|of| of.values.iter().map(|both| both[k]).collect()).collect() };
    let (rights, logprobs) = (column(0), column(1));
    let (of_rights, of_logprobs) = (bca_family(&rights, &options), bca_family(&logprobs, &options));
    let rows = found.iter().enumerate().map(|(i, of)| {
        let n = of.values.len();
        let interval = match of.vector {
            "random" => of_rights[i],
            _ => wilson(rights[i].iter().sum::<f64>() as usize, n),
        };
        AccuracyRow {
            model: about.model,
            form: written(items, of.form),
            words: of.words,
            vector: of.vector,
            layer: of.at.map_or(-1, |at| at.layer as i64),
            coefficient: of.at.map_or(0.0, |at| f64::from(at.coefficient)),
            n: n as i64,
            accuracy: mean(&rights[i]),
            interval: interval.map(Interval::ends),
            logprob_mean: mean(&logprobs[i]),
            logprob_interval: of_logprobs[i].map(Interval::ends),
        }
    });
    Ok(AccuracyRow::table(rows)?)
}

fn words(about: &About, items: &Asked, measured: &Measured) -> Result<Table, AnalysisError> {
    let all = &measured.evaluated;
    let mut rows = Vec::new();
    for (form, best) in all.chosen.iter().enumerate() {
        for (i, word) in items.words.held_out.iter().enumerate() {
            let said = &all.alone[form][i];
            rows.push(ItemRow {
                form: written(items, form),
                input: &word.input,
                output: &word.output,
                token: about.token(word.token).into(),
                rank_without: Some(said[0].rank),
                rank: Some(said[best + 1].rank),
                rank_examples: (form == 0).then(|| all.shown[i][0].rank),
                logprob_without: Some(said[0].logprob),
                logprob: Some(said[best + 1].logprob),
            });
        }
    }
    Ok(ItemRow::table(rows)?)
}

fn vocabulary(of: &Functions, about: &About, measured: &Measured) -> Result<Table, AnalysisError> {
    let decoder = &about.loaded.decoder;
    let both = vocabulary_of(decoder, &measured.vector, usize::from(of.vocabulary));
    let both = both.map_err(|e| AnalysisError::Failed(e.to_string()))?;
    let mut rows = Vec::new();
    for (end, tokens) in ["raised", "lowered"].into_iter().zip(&both) {
        rows.extend(tokens.iter().enumerate().map(|(rank, (id, logit))| VocabularyRow {
            end,
            rank: rank as i64 + 1,
            token: about.token(*id).into(),
            token_id: i64::from(*id),
            logit: Some(f64::from(*logit)),
        }));
    }
    Ok(VocabularyRow::table(rows)?)
}
