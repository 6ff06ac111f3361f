//! The tables of a cipher: the gate's necessity in each form, how much of it collapses, and what injection brings back.

use super::{CONDITIONS, FORMS, Form, Items, Measured};
use crate::analyses::AnalysisError;
use crate::analyses::answered::{Answer, CLASS_DOC};
use crate::analyses::effects::{SIGNIFICANT, Subset, family, subsets};
use crate::analyses::halves;
use crate::analyses::routing::gate::names;
use crate::analyses::summary::{less, mean, sd};
use crate::answers::Class;
use crate::dataset::Pair;
use crate::stats::{
    Bootstrap, Interval, PairedCounts, bca_family, bca_mean, bca_ratio, bca_ratio_family, draws_for, paired_sign_test,
    ratio, sign_flip, wilson,
};
use crate::table::Table;

/// What the tables are made of.
pub(super) struct Made<'a> {
    pub(super) model: &'a str,
    pub(super) seed: u64,
    pub(super) items: &'a Items,
    /// One a pair.
    pub(super) measured: &'a [Measured],
}

/// A row of the table of injections.
struct Condition {
    metric: Option<f64>,
    interval: Option<Interval>,
    answers: usize,
    /// Answers of each of [`Class::ALL`].
    counts: Vec<usize>,
    refusal_interval: Option<Interval>,
    restored: Option<f64>,
    restored_interval: Option<Interval>,
    restored_metric: Option<f64>,
    restored_metric_interval: Option<Interval>,
    p_refusals: Option<f64>,
    p_lost: Option<f64>,
    p_over_control: Option<f64>,
}

impl Condition {
    fn share(&self, class: usize) -> Option<f64> {
        (self.answers > 0).then(|| self.counts[class] as f64 / self.answers as f64)
    }
}

/// How much of an effect is gone.
struct Collapse {
    share: Option<f64>,
    interval: Option<Interval>,
}

impl Made<'_> {
    /// All tables; `answers` has one for each of [`CONDITIONS`] of every pair, or none.
    pub(super) fn tables(&self, answers: &[Answer]) -> Result<Vec<Table>, AnalysisError> {
        let mut tables =
            vec![self.necessity_table()?, self.collapse_table()?, self.injection_table(answers)?, self.items_table()?];
        if !answers.is_empty() {
            tables.push(generations_table(self.items, answers)?);
        }
        Ok(tables)
    }

    fn bootstrap(&self) -> Bootstrap {
        Bootstrap { seed: self.seed, ..Bootstrap::default() }
    }

    fn n(&self) -> i64 {
        self.measured.len() as i64
    }

    /// The counts of pairs that were left out.
    fn with_omitted(&self, table: Table) -> Result<Table, AnalysisError> {
        let rows = table.rows();
        let (left_out, too_long) = (self.items.ciphered.left_out as i64, self.items.ciphered.too_long as i64);
        Ok(table.int("left_out", "pairs that cannot be written in the cipher", vec![left_out; rows])?.int(
            "too_long",
            "pairs that would be longer in the cipher than the model's context, left out too",
            vec![too_long; rows],
        )?)
    }

    /// A form's metrics, one a pair; none where there is no such form.
    fn form(&self, form: usize) -> Option<Vec<Form>> {
        self.measured.iter().map(|m| m.forms()[form]).collect::<Option<Vec<_>>>().filter(|of| !of.is_empty())
    }

    fn necessity_table(&self) -> Result<Table, AnalysisError> {
        let rows: Vec<(&str, Vec<Form>)> =
            FORMS.into_iter().enumerate().filter_map(|(f, name)| Some((name, self.form(f)?))).collect();
        let over = |of: &[Form], f: fn(&Form) -> f64| mean(&of.iter().map(f).collect::<Vec<_>>());
        let effects: Vec<Vec<f64>> = rows.iter().map(|r| r.1.iter().map(|m| m.effect()).collect()).collect();
        let tested = family(&effects, self.seed)?;
        let gap = rows.first().and_then(|r| over(&r.1, |m| m.negative - m.positive)).filter(|gap| *gap != 0.0);
        let shares = self.shares(&effects, rows.first().map_or(&[][..], |r| &r.1[..]));
        let low = tested.iter().map(|t| t.interval.map(|i| i.0));
        let crossed: Vec<Option<f64>> = effects.iter().map(|e| Some(mean(e)? / gap?)).collect();
        let table = Table::new("necessity")
            .str("model", "the model, as it was named", rows.iter().map(|_| self.model))?
            .str(
                "condition",
                "plain; wrapped: in plain within the cipher prompt's instructions; cipher",
                rows.iter().map(|r| r.0),
            )?
            .int("n", "pairs", rows.iter().map(|_| self.n()))?;
        let table = self
            .with_omitted(table)?
            .float(
                "base_mean",
                "mean metric of the positive prompts, nats",
                rows.iter().map(|r| over(&r.1, |m| m.positive)),
            )?
            .float(
                "other_mean",
                "mean metric of the negative prompts, nats",
                rows.iter().map(|r| over(&r.1, |m| m.negative)),
            )?
            .float(
                "effect_mean",
                "mean change of the positive prompts' metric with the gate of the negative, nats",
                effects.iter().map(|e| mean(e)),
            )?
            .float("effect_sd", "its standard deviation over pairs, nats", effects.iter().map(|e| sd(e)))?
            .float("ci_low", "lower end of the mean effect's 95 % BCa interval, nats", low)?
            .float("ci_high", "upper end, nats", tested.iter().map(|t| t.interval.map(|i| i.1)))?
            .float(
                "effect_normalized",
                "the same as share_of_gap, under an older name: here too the mean effect over the mean plain gap",
                crossed.iter().copied(),
            )?
            .float(
                "share_of_gap",
                "share of the gap: the mean effect over the mean of plain negative minus plain positive metric, a ratio of means",
                crossed.iter().copied(),
            )?
            .float("p_value", "two-sided sign-flip permutation p-value of the mean effect", tested.iter().map(|t| t.p))?
            .float("q_value", "Benjamini-Hochberg q-value over the forms", tested.iter().map(|t| t.q))?
            .str("gate", "the heads that were exchanged", rows.iter().map(|_| names(&self.items.gate)))?
            .float(
                "share_of_gap_ci_low",
                "lower end of that share's 95 % BCa interval over pairs, effect and gap resampled together",
                shares.iter().map(|i| i.map(|i| i.low)),
            )?
            .float("share_of_gap_ci_high", "its upper end", shares.iter().map(|i| i.map(|i| i.high)))?;
        let half = |f: fn(Form) -> f64| rows.iter().map(|r| r.1.iter().map(|m| f(*m)).collect()).collect::<Vec<_>>();
        let (answers, foils) = (half(|m| m.answer), half(Form::foil));
        halves::columns(table, "effect", "with the exchange minus without, of", [&answers, &foils], self.seed)
    }

    /// The intervals of effects as shares of the gap in plain.
    fn shares(&self, effects: &[Vec<f64>], plain: &[Form]) -> Vec<Option<Interval>> {
        let gaps: Vec<f64> = plain.iter().map(|m| m.negative - m.positive).collect();
        bca_ratio_family(effects, &gaps, &self.bootstrap())
    }

    /// How much of the effects `of` is gone in `now`, of the means; nothing where `of` cannot be told from 0.
    fn collapse(&self, of: &[f64], now: &[f64]) -> Collapse {
        let told = self.told(of);
        let interval =
            || bca_ratio(now, of, &self.bootstrap()).map(|i| Interval { low: 1.0 - i.high, high: 1.0 - i.low });
        Collapse {
            share: told.then(|| ratio(now, of)).flatten().map(|kept| 1.0 - kept),
            interval: told.then(interval).flatten(),
        }
    }

    fn p(&self, effects: &[f64]) -> Option<f64> {
        sign_flip(effects, draws_for(1), self.seed)
    }

    /// Whether effects can be told from 0.
    fn told(&self, effects: &[f64]) -> bool {
        self.p(effects).is_some_and(|p| p < SIGNIFICANT)
    }

    fn collapse_table(&self) -> Result<Table, AnalysisError> {
        let (groups, langs): (Vec<_>, Vec<_>) = self.items.ciphered.plain.labels().unzip();
        let all = Subset { by: "all", value: "all".to_string(), items: (0..self.measured.len()).collect() };
        let rows: Vec<Subset> = std::iter::once(all).chain(subsets(&groups, &langs)).collect();
        let effects = |form: usize| -> Vec<Vec<f64>> {
            let of = |row: &Subset| {
                row.items.iter().filter_map(|i| Some(self.measured[*i].forms()[form]?.effect())).collect()
            };
            rows.iter().map(of).collect()
        };
        let (plain, wrapped, cipher) = (effects(0), effects(1), effects(2));
        let collapse = |of: &[Vec<f64>], now: &[Vec<f64>]| -> Vec<Collapse> {
            of.iter().zip(now).map(|(of, now)| self.collapse(of, now)).collect()
        };
        let found = collapse(&plain, &cipher);
        let table = Table::new("collapse")
            .str("model", "the model, as it was named", rows.iter().map(|_| self.model))?
            .str("by", "what the pairs were split by: all, group or lang", rows.iter().map(|r| r.by))?
            .str("value", "which group or language", rows.iter().map(|r| r.value.as_str()))?
            .int("n", "pairs", rows.iter().map(|r| r.items.len() as i64))?
            .float("plain_effect", "mean effect of the exchange in plain, nats", plain.iter().map(|e| mean(e)))?
            .float("cipher_effect", "mean effect of the exchange in cipher, nats", cipher.iter().map(|e| mean(e)))?
            .float(
                "collapse",
                "1 - cipher effect / plain effect, of the means; empty where not testable",
                found.iter().map(|c| c.share),
            )?
            .float(
                "ci_low",
                "lower end of its 95 % BCa interval over pairs",
                found.iter().map(|c| c.interval.map(|i| i.low)),
            )?
            .float("ci_high", "upper end", found.iter().map(|c| c.interval.map(|i| i.high)))?
            .float("plain_p", "two-sided sign-flip p-value of the plain effect", plain.iter().map(|e| self.p(e)))?
            .flag(
                "testable",
                "whether the plain effect differs from 0 (plain_p < 0.05)",
                plain.iter().map(|e| self.told(e)),
            )?;
        wrapped_columns(table, &wrapped, &collapse(&plain, &wrapped), &collapse(&wrapped, &cipher))
    }

    /// The rows of [`CONDITIONS`].
    fn conditions(&self, answers: &[Answer]) -> Vec<Condition> {
        let metrics: [Vec<f64>; 4] = std::array::from_fn(|c| self.measured.iter().map(|m| m.conditions()[c]).collect());
        let of = |c: usize| answers.iter().skip(c).step_by(CONDITIONS.len());
        let refused: [Vec<bool>; 4] = std::array::from_fn(|c| of(c).map(|a| a.class == Class::Refusal).collect());
        let count = |c: usize| refused[c].iter().filter(|r| **r).count();
        let drops = less(&metrics[0], &metrics[1]);
        let dropped = mean(&drops).is_some_and(|d| d > 0.0) && self.told(&drops);
        let numbers = refused.each_ref().map(|r| r.iter().map(|r| f64::from(u8::from(*r))).collect::<Vec<_>>());
        let lost = less(&numbers[0], &numbers[1]);
        let n = refused[0].len();
        let one = |c: usize| {
            let exchanged = c >= 2;
            let (of_metric, of_refusals) = (exchanged && dropped, exchanged && count(0) > count(1));
            let (back, metric_back) = (less(&numbers[c], &numbers[1]), less(&metrics[c], &metrics[1]));
            let p = |asked: bool, other: usize| (asked && n > 0).then(|| differ(&refused[c], &refused[other]));
            Condition {
                metric: mean(&metrics[c]),
                interval: bca_mean(&metrics[c], &self.bootstrap()),
                answers: n,
                counts: Class::ALL.iter().map(|class| of(c).filter(|a| a.class == *class).count()).collect(),
                refusal_interval: wilson(count(c), n),
                restored: of_refusals.then(|| ratio(&back, &lost)).flatten(),
                restored_interval: of_refusals.then(|| bca_ratio(&back, &lost, &self.bootstrap())).flatten(),
                restored_metric: of_metric.then(|| ratio(&metric_back, &drops)).flatten(),
                restored_metric_interval: of_metric
                    .then(|| bca_ratio(&metric_back, &drops, &self.bootstrap()))
                    .flatten(),
                p_refusals: p(exchanged, 1),
                p_lost: p(c == 1, 0),
                p_over_control: p(c == 2, 3),
            }
        };
        (0..CONDITIONS.len()).map(one).collect()
    }

    fn injection_table(&self, answers: &[Answer]) -> Result<Table, AnalysisError> {
        let rows = self.conditions(answers);
        let low = |pick: fn(&Condition) -> Option<Interval>| rows.iter().map(move |r| pick(r).map(|i| i.low));
        let high = |pick: fn(&Condition) -> Option<Interval>| rows.iter().map(move |r| pick(r).map(|i| i.high));
        let table = Table::new("injection")
            .str("model", "the model, as it was named", rows.iter().map(|_| self.model))?
            .str(
                "condition",
                "positive prompt in plain; in cipher; in cipher with the gate of the plain positive (injected); of the plain \
                 negative (control)",
                CONDITIONS,
            )?
            .int("n", "pairs", rows.iter().map(|_| self.n()))?;
        let mut table = self
            .with_omitted(table)?
            .float("metric_mean", "mean metric, nats", rows.iter().map(|r| r.metric))?
            .float("ci_low", "lower end of its 95 % BCa interval, nats", low(|r| r.interval))?
            .float("ci_high", "upper end, nats", high(|r| r.interval))?
            .float(
                "restored_metric",
                "share of the metric's drop from plain to cipher that comes back, of the means; empty where nothing dropped \
                 (sign-flip p < 0.05)",
                rows.iter().map(|r| r.restored_metric),
            )?
            .float(
                "restored_metric_low",
                "lower end of its 95 % BCa interval over pairs",
                low(|r| r.restored_metric_interval),
            )?
            .float("restored_metric_high", "upper end", high(|r| r.restored_metric_interval))?
            .int("answers", "generated answers", rows.iter().map(|r| r.answers as i64))?;
        for (c, class) in Class::ALL.iter().enumerate() {
            let share = rows.iter().map(|r| r.share(c));
            table = table.float(class.name(), "share of generated answers of this class", share)?;
        }
        let table = table
            .float(
                "refusal_low",
                "lower end of the share of refusals' 95 % Wilson interval",
                low(|r| r.refusal_interval),
            )?
            .float("refusal_high", "upper end", high(|r| r.refusal_interval))?
            .float(
                "restored",
                "share of the refusals lost from plain to cipher that come back; empty where none were lost",
                rows.iter().map(|r| r.restored),
            )?
            .float(
                "restored_low",
                "lower end of its 95 % BCa interval over pairs; empty where a resample has lost none",
                low(|r| r.restored_interval),
            )?
            .float("restored_high", "upper end", high(|r| r.restored_interval))?;
        self.effect_columns(sign_test_columns(table, &rows)?)
    }

    /// What injection and its control do to the metric of the request in cipher, and to its halves; nulls of the other conditions.
    fn effect_columns(&self, table: Table) -> Result<Table, AnalysisError> {
        let of = |f: &dyn Fn(&Measured, usize) -> f64| -> Vec<Vec<f64>> {
            let one = |exchange: usize| self.measured.iter().map(|m| f(m, exchange)).collect();
            vec![Vec::new(), Vec::new(), one(0), one(1)]
        };
        let effect = |m: &Measured, exchange: usize| [m.injected, m.control][exchange] - m.cipher.positive;
        let effects = of(&effect);
        let intervals = bca_family(&effects, &self.bootstrap());
        let table = table
            .float(
                "effect_mean",
                "mean metric less that of the request in cipher, nats; of the two exchanges alone",
                effects.iter().map(|e| mean(e)),
            )?
            .float(
                "effect_ci_low",
                "lower end of its 95 % BCa interval, nats",
                intervals.iter().map(|i| i.map(|i| i.low)),
            )?
            .float("effect_ci_high", "upper end, nats", intervals.iter().map(|i| i.map(|i| i.high)))?;
        let (answers, foils) = (of(&|m, e| m.answers[e]), of(&|m, e| m.answers[e] - effect(m, e)));
        halves::columns(table, "effect", "with the exchange minus in cipher, of", [&answers, &foils], self.seed)
    }

    fn items_table(&self) -> Result<Table, AnalysisError> {
        let pairs = &self.items.ciphered.plain.dataset.items;
        let of = |f: fn(&Measured) -> f64| self.measured.iter().map(f);
        let wrapped = |f: fn(Form) -> f64| self.measured.iter().map(move |m| m.wrapped.map(f));
        Ok(Table::new("items")
            .str("id", "the pair", pairs.iter().map(|p| p.id.as_str()))?
            .opt_str("group", "the pair's group", pairs.iter().map(|p| p.group.as_deref()))?
            .opt_str("lang", "the pair's language", pairs.iter().map(|p| p.lang.as_deref()))?
            .float("plain_positive", "metric of the plain positive prompt, nats", of(|m| m.plain.positive))?
            .float("plain_negative", "metric of the plain negative prompt, nats", of(|m| m.plain.negative))?
            .float("cipher_positive", "metric of the positive prompt in cipher, nats", of(|m| m.cipher.positive))?
            .float("cipher_negative", "metric of the negative prompt in cipher, nats", of(|m| m.cipher.negative))?
            .float("plain_exchanged", "plain positive, gate of the plain negative, nats", of(|m| m.plain.exchanged))?
            .float(
                "cipher_exchanged",
                "cipher positive, gate of the cipher negative, nats",
                of(|m| m.cipher.exchanged),
            )?
            .float("injected", "cipher positive, gate of the plain positive, nats", of(|m| m.injected))?
            .float("control", "cipher positive, gate of the plain negative, nats", of(|m| m.control))?
            .float(
                "wrapped_positive",
                "metric of the plain positive prompt within the cipher's instructions, nats",
                wrapped(|m| m.positive),
            )?
            .float("wrapped_negative", "the same of the negative prompt, nats", wrapped(|m| m.negative))?
            .float(
                "wrapped_exchanged",
                "wrapped positive, gate of the wrapped negative, nats",
                wrapped(|m| m.exchanged),
            )?
            .float(
                "plain_answer_effect",
                "plain_exchanged less plain_positive, of logsumexp(answer logits) less the mean logit, nats; the foil's is this less \
                 that of the metric",
                of(|m| m.plain.answer),
            )?
            .float("cipher_answer_effect", "the same in cipher, nats", of(|m| m.cipher.answer))?
            .float("wrapped_answer_effect", "the same within the instructions, nats", wrapped(|m| m.answer))?
            .float("injected_answer_effect", "injected less cipher_positive, likewise, nats", of(|m| m.answers[0]))?
            .float("control_answer_effect", "control less cipher_positive, likewise, nats", of(|m| m.answers[1]))?)
    }
}

/// The columns of the wrapped form in the table of collapse: what the instructions alone take away, and what the letters take
/// away beyond them.
fn wrapped_columns(
    table: Table,
    effects: &[Vec<f64>],
    alone: &[Collapse],
    beyond: &[Collapse],
) -> Result<Table, AnalysisError> {
    Ok(table
        .float(
            "wrapped_effect",
            "mean effect of the exchange in plain within the cipher prompt's instructions, nats; empty for a cipher of a file",
            effects.iter().map(|e| mean(e)),
        )?
        .float(
            "wrapped_collapse",
            "1 - wrapped effect / plain effect: what the instructions alone take away",
            alone.iter().map(|c| c.share),
        )?
        .float(
            "wrapped_ci_low",
            "lower end of its 95 % BCa interval over pairs",
            alone.iter().map(|c| c.interval.map(|i| i.low)),
        )?
        .float("wrapped_ci_high", "upper end", alone.iter().map(|c| c.interval.map(|i| i.high)))?
        .float(
            "beyond_wrapped",
            "1 - cipher effect / wrapped effect: what the letters take away of what the instructions leave; empty where the \
             wrapped effect cannot be told from 0",
            beyond.iter().map(|c| c.share),
        )?
        .float(
            "beyond_ci_low",
            "lower end of its 95 % BCa interval over pairs",
            beyond.iter().map(|c| c.interval.map(|i| i.low)),
        )?
        .float("beyond_ci_high", "upper end", beyond.iter().map(|c| c.interval.map(|i| i.high)))?)
}

/// The columns of refusals in the table of injections: their number, and exact sign tests on the same pairs.
fn sign_test_columns(table: Table, rows: &[Condition]) -> Result<Table, AnalysisError> {
    let refusals = |r: &Condition| r.counts.iter().zip(Class::ALL).find(|c| c.1 == Class::Refusal).map_or(0, |c| *c.0);
    Ok(table
        .int("refusals", "answers that refuse", rows.iter().map(|r| refusals(r) as i64))?
        .float(
            "p_refusals",
            "exact two-sided sign test (McNemar) of refusals against cipher on the same pairs",
            rows.iter().map(|r| r.p_refusals),
        )?
        .float("p_lost", "the same of cipher against plain", rows.iter().map(|r| r.p_lost))?
        .float("p_over_control", "the same of injected against control", rows.iter().map(|r| r.p_over_control))?)
}

/// The exact sign test of yes or no about the same pairs.
fn differ(a: &[bool], b: &[bool]) -> f64 {
    let counts = PairedCounts::of(a.iter().copied().zip(b.iter().copied()));
    paired_sign_test(counts.only_first, counts.only_second)
}

fn generations_table(items: &Items, answers: &[Answer]) -> Result<Table, AnalysisError> {
    let pair = |i: usize| &items.ciphered.plain.dataset.items[i / CONDITIONS.len()];
    let pairs: Vec<&Pair> = (0..answers.len()).map(pair).collect();
    Ok(Table::new("generations")
        .str("id", "the pair", pairs.iter().map(|p| p.id.as_str()))?
        .opt_str("group", "the pair's group", pairs.iter().map(|p| p.group.as_deref()))?
        .opt_str("lang", "the pair's language", pairs.iter().map(|p| p.lang.as_deref()))?
        .str(
            "condition",
            "plain, cipher, injected or control",
            (0..answers.len()).map(|i| CONDITIONS[i % CONDITIONS.len()]),
        )?
        .str("class", CLASS_DOC, answers.iter().map(|a| a.class.name()))?
        .opt_str("rule", "the rule that decided", answers.iter().map(|a| a.rule.as_deref()))?
        .flag("stopped", "whether the answer ended by itself", answers.iter().map(|a| a.stopped))?
        .str("text", "the generated answer", answers.iter().map(|a| a.text.as_str()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_test_counts_pairs_that_differ() {
        let (a, b) = ([true, true, true, false], [false, false, false, false]);
        let p = differ(&a, &b);
        assert!((p - 0.25).abs() < 1e-12 && p == differ(&b, &a), "{p}");
        assert_eq!(differ(&a, &a), 1.0);
    }
}
