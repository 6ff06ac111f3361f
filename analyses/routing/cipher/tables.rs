//! The tables of a cipher: the gate's necessity in each form, how much of it collapses, and what injection brings back.

use super::{CONDITIONS, FORMS, Form, Items, Measured};
use crate::analyses::answered::{Answer, Answered, shares};
use crate::analyses::columns::OfPair;
use crate::analyses::effects::{SIGNIFICANT, Subset, family, subsets};
use crate::analyses::halves::{self, Halves};
use crate::analyses::heads::names;
use crate::analyses::prelude::*;
use crate::analyses::routing::ciphered::OmittedPairs;
use crate::analyses::summary::{less, sd};
use crate::answers::Class;
use crate::stats::{
    PairedCounts, bca_family, bca_mean, bca_ratio, bca_ratio_family, draws_for, paired_sign_test, ratio, sign_flip,
    wilson,
};
use crate::table::rows;
use std::borrow::Cow;

/// What the tables are made of.
pub(super) struct Made<'a> {
    pub(super) model: &'a str,
    pub(super) seed: u64,
    pub(super) items: &'a Items,
    /// One a pair.
    pub(super) measured: &'a [Measured],
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

    /// A form's metrics, one a pair; none where there is no such form.
    fn form(&self, form: usize) -> Option<Vec<Form>> {
        self.measured.iter().map(|m| m.forms()[form]).collect::<Option<Vec<_>>>().filter(|of| !of.is_empty())
    }

    fn necessity_table(&self) -> Result<Table, AnalysisError> {
        let forms: Vec<(&str, Vec<Form>)> =
            FORMS.into_iter().enumerate().filter_map(|(f, name)| Some((name, self.form(f)?))).collect();
        let over = |of: &[Form], f: fn(&Form) -> f64| mean(&of.iter().map(f).collect::<Vec<_>>());
        let effects: Vec<Vec<f64>> = forms.iter().map(|r| r.1.iter().map(|m| m.effect()).collect()).collect();
        let tested = family(&effects, self.seed)?;
        let gap = forms.first().and_then(|r| over(&r.1, |m| m.negative - m.positive)).filter(|gap| *gap != 0.0);
        let shares = self.shares(&effects, forms.first().map_or(&[][..], |r| &r.1[..]));
        let half = |f: fn(Form) -> f64| forms.iter().map(|r| r.1.iter().map(|m| f(*m)).collect()).collect::<Vec<_>>();
        let halves = halves::over_items(&half(|m| m.answer), &half(Form::foil), self.seed);
        let gate = names(&self.items.gate);
        let rows = forms.iter().zip(&effects).zip(tested).zip(shares).zip(halves);
        Ok(NecessityRow::table(rows.map(|(((((condition, of), effects), tested), share), halves)| {
            let crossed = mean(effects).zip(gap).map(|(effect, gap)| effect / gap);
            NecessityRow {
                model: self.model,
                condition,
                n: self.n(),
                omitted: self.items.ciphered.omitted_pairs(),
                base_mean: over(of, |m| m.positive),
                other_mean: over(of, |m| m.negative),
                effect_mean: mean(effects),
                effect_sd: sd(effects),
                interval: tested.interval,
                effect_normalized: crossed,
                share_of_gap: crossed,
                p_value: tested.p,
                q_value: tested.q,
                gate: gate.as_str().into(),
                share_of_gap_interval: share.map(Interval::ends),
                halves,
            }
        }))?)
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
        let subsets: Vec<Subset> = std::iter::once(all).chain(subsets(&groups, &langs)).collect();
        let rows = subsets.iter().map(|subset| {
            let effects = |form: usize| -> Vec<f64> {
                subset.items.iter().filter_map(|i| Some(self.measured[*i].forms()[form]?.effect())).collect()
            };
            let (plain, wrapped, cipher) = (effects(0), effects(1), effects(2));
            let [found, alone, beyond] =
                [(&plain, &cipher), (&plain, &wrapped), (&wrapped, &cipher)].map(|(of, now)| self.collapse(of, now));
            CollapseRow {
                model: self.model,
                by: subset.by,
                value: &subset.value,
                n: subset.items.len() as i64,
                plain_effect: mean(&plain),
                cipher_effect: mean(&cipher),
                collapse: found.share,
                interval: found.interval.map(Interval::ends),
                plain_p: self.p(&plain),
                testable: self.told(&plain),
                wrapped_effect: mean(&wrapped),
                wrapped_collapse: alone.share,
                wrapped_interval: alone.interval.map(Interval::ends),
                beyond_wrapped: beyond.share,
                beyond_interval: beyond.interval.map(Interval::ends),
            }
        });
        Ok(CollapseRow::table(rows)?)
    }

    /// The rows of [`CONDITIONS`], without what is done to the metric in cipher.
    fn conditions(&self, answers: &[Answer]) -> Vec<InjectionRow<'_>> {
        let metrics: [Vec<f64>; 4] = std::array::from_fn(|c| self.measured.iter().map(|m| m.conditions()[c]).collect());
        let of = |c: usize| answers.iter().skip(c).step_by(CONDITIONS.len());
        let refused: [Vec<bool>; 4] = std::array::from_fn(|c| of(c).map(|a| a.class == Class::Refusal).collect());
        let count = |c: usize| refused[c].iter().filter(|r| **r).count();
        let drops = less(&metrics[0], &metrics[1]);
        let dropped = mean(&drops).is_some_and(|d| d > 0.0) && self.told(&drops);
        let numbers = refused.each_ref().map(|r| r.iter().map(|r| f64::from(u8::from(*r))).collect::<Vec<_>>());
        let lost = less(&numbers[0], &numbers[1]);
        let n = refused[0].len();
        let restored = |asked: bool, back: &[f64], of: &[f64]| {
            let interval = || bca_ratio(back, of, &self.bootstrap()).map(Interval::ends);
            (asked.then(|| ratio(back, of)).flatten(), asked.then(interval).flatten())
        };
        let one = |c: usize| {
            let exchanged = c >= 2;
            let (of_metric, of_refusals) = (exchanged && dropped, exchanged && count(0) > count(1));
            let (restored_metric, restored_metric_interval) =
                restored(of_metric, &less(&metrics[c], &metrics[1]), &drops);
            let (restored, restored_interval) = restored(of_refusals, &less(&numbers[c], &numbers[1]), &lost);
            let p = |asked: bool, other: usize| (asked && n > 0).then(|| differ(&refused[c], &refused[other]));
            InjectionRow {
                model: self.model,
                condition: CONDITIONS[c],
                n: self.n(),
                omitted: self.items.ciphered.omitted_pairs(),
                metric_mean: mean(&metrics[c]),
                interval: bca_mean(&metrics[c], &self.bootstrap()).map(Interval::ends),
                restored_metric,
                restored_metric_interval,
                answers: n as i64,
                shares: shares(&of(c).collect::<Vec<_>>(), &Class::ALL),
                refusal_interval: wilson(count(c), n).map(Interval::ends),
                restored,
                restored_interval,
                refusals: count(c) as i64,
                p_refusals: p(exchanged, 1),
                p_lost: p(c == 1, 0),
                p_over_control: p(c == 2, 3),
                ..InjectionRow::default()
            }
        };
        (0..CONDITIONS.len()).map(one).collect()
    }

    /// With what injection and its control do to the metric of the request in cipher, and to its halves; nothing of the other
    /// conditions.
    fn injection_table(&self, answers: &[Answer]) -> Result<Table, AnalysisError> {
        let of = |f: &dyn Fn(&Measured, usize) -> f64| -> Vec<Vec<f64>> {
            let one = |exchange: usize| self.measured.iter().map(|m| f(m, exchange)).collect();
            vec![Vec::new(), Vec::new(), one(0), one(1)]
        };
        let effect = |m: &Measured, exchange: usize| [m.injected, m.control][exchange] - m.cipher.positive;
        let effects = of(&effect);
        let intervals = bca_family(&effects, &self.bootstrap());
        let (of_answers, foils) = (of(&|m, e| m.answers[e]), of(&|m, e| m.answers[e] - effect(m, e)));
        let halves = halves::over_items(&of_answers, &foils, self.seed);
        let rows = self.conditions(answers).into_iter().zip(&effects).zip(intervals).zip(halves);
        let rows = rows.map(|(((row, effects), interval), halves)| InjectionRow {
            effect_mean: mean(effects),
            effect_interval: interval.map(Interval::ends),
            halves,
            ..row
        });
        let classes: Vec<String> = Class::ALL.iter().map(|class| class.name().to_string()).collect();
        Ok(rows::table(InjectionRow::TABLE, &classes, rows)?)
    }

    fn items_table(&self) -> Result<Table, AnalysisError> {
        let pairs = self.items.ciphered.plain.dataset.items.iter().zip(self.measured);
        Ok(ItemRow::table(pairs.map(|(pair, m)| ItemRow {
            pair: pair.into(),
            plain_positive: Some(m.plain.positive),
            plain_negative: Some(m.plain.negative),
            cipher_positive: Some(m.cipher.positive),
            cipher_negative: Some(m.cipher.negative),
            plain_exchanged: Some(m.plain.exchanged),
            cipher_exchanged: Some(m.cipher.exchanged),
            injected: Some(m.injected),
            control: Some(m.control),
            wrapped_positive: m.wrapped.map(|m| m.positive),
            wrapped_negative: m.wrapped.map(|m| m.negative),
            wrapped_exchanged: m.wrapped.map(|m| m.exchanged),
            plain_answer_effect: Some(m.plain.answer),
            cipher_answer_effect: Some(m.cipher.answer),
            wrapped_answer_effect: m.wrapped.map(|m| m.answer),
            injected_answer_effect: Some(m.answers[0]),
            control_answer_effect: Some(m.answers[1]),
        }))?)
    }
}

rows! {
    /// The exchange of the gate in one form of the request.
    pub struct NecessityRow<'a> in "necessity" {
        model: &'a str = "the model, as it was named",
        condition: &'a str = "plain; wrapped: in plain within the cipher prompt's instructions; cipher",
        n: i64 = "pairs",
        omitted: OmittedPairs as "",
        base_mean: Option<f64> = "mean metric of the positive prompts, nats",
        other_mean: Option<f64> = "mean metric of the negative prompts, nats",
        effect_mean: Option<f64> =
            "mean change of the positive prompts' metric with the gate of the negative, nats",
        effect_sd: Option<f64> = "its standard deviation over pairs, nats",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of the mean effect's 95 % BCa interval, nats", "upper end, nats"],
        effect_normalized: Option<f64> =
            "the same as share_of_gap, under an older name: here too the mean effect over the mean plain gap",
        share_of_gap: Option<f64> [newer] =
            "share of the gap: the mean effect over the mean of plain negative minus plain positive metric, a ratio of means",
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean effect",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over the forms",
        gate: Cow<'a, str> = "the heads that were exchanged",
        share_of_gap_interval: Option<(f64, f64)> [newer] as "share_of_gap_ci_" = [
            "lower end of that share's 95 % BCa interval over pairs, effect and gap resampled together",
            "its upper end",
        ],
        halves: Halves [newer] as "effect" = "with the exchange minus without, of",
    }

    /// How much of the exchange's effect is gone in cipher, over some pairs.
    pub struct CollapseRow<'a> in "collapse" {
        model: &'a str = "the model, as it was named",
        by: &'a str = "what the pairs were split by: all, group or lang",
        value: &'a str = "which group or language",
        n: i64 = "pairs",
        plain_effect: Option<f64> = "mean effect of the exchange in plain, nats",
        cipher_effect: Option<f64> = "mean effect of the exchange in cipher, nats",
        collapse: Option<f64> = "1 - cipher effect / plain effect, of the means; empty where not testable",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of its 95 % BCa interval over pairs", "upper end"],
        plain_p: Option<f64> = "two-sided sign-flip p-value of the plain effect",
        testable: bool = "whether the plain effect differs from 0 (plain_p < 0.05)",
        wrapped_effect: Option<f64> =
            "mean effect of the exchange in plain within the cipher prompt's instructions, nats; empty for a cipher of a file",
        wrapped_collapse: Option<f64> = "1 - wrapped effect / plain effect: what the instructions alone take away",
        wrapped_interval: Option<(f64, f64)> as "wrapped_ci_" =
            ["lower end of its 95 % BCa interval over pairs", "upper end"],
        beyond_wrapped: Option<f64> =
            "1 - cipher effect / wrapped effect: what the letters take away of what the instructions leave; empty where the \
             wrapped effect cannot be told from 0",
        beyond_interval: Option<(f64, f64)> as "beyond_ci_" =
            ["lower end of its 95 % BCa interval over pairs", "upper end"],
    }

    /// The positive requests in one condition.
    pub struct InjectionRow<'a> in "injection" {
        model: &'a str = "the model, as it was named",
        condition: &'a str =
            "positive prompt in plain; in cipher; in cipher with the gate of the plain positive (injected); of the plain \
             negative (control)",
        n: i64 = "pairs",
        omitted: OmittedPairs as "",
        metric_mean: Option<f64> = "mean metric, nats",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of its 95 % BCa interval, nats", "upper end, nats"],
        restored_metric: Option<f64> =
            "share of the metric's drop from plain to cipher that comes back, of the means; empty where nothing dropped \
             (sign-flip p < 0.05)",
        restored_metric_interval: Option<(f64, f64)> as "restored_metric_" =
            ["lower end of its 95 % BCa interval over pairs", "upper end"],
        answers: i64 = "generated answers",
        /// Of [`Class::ALL`].
        shares: Vec<Option<f64>> = "share of generated answers of this class",
        refusal_interval: Option<(f64, f64)> as "refusal_" =
            ["lower end of the share of refusals' 95 % Wilson interval", "upper end"],
        restored: Option<f64> =
            "share of the refusals lost from plain to cipher that come back; empty where none were lost",
        restored_interval: Option<(f64, f64)> as "restored_" = [
            "lower end of its 95 % BCa interval over pairs; empty where a resample has lost none",
            "upper end",
        ],
        refusals: i64 = "answers that refuse",
        p_refusals: Option<f64> =
            "exact two-sided sign test (McNemar) of refusals against cipher on the same pairs",
        p_lost: Option<f64> = "the same of cipher against plain",
        p_over_control: Option<f64> = "the same of injected against control",
        effect_mean: Option<f64> [newer] =
            "mean metric less that of the request in cipher, nats; of the two exchanges alone",
        effect_interval: Option<(f64, f64)> [newer] as "effect_ci_" =
            ["lower end of its 95 % BCa interval, nats", "upper end, nats"],
        halves: Halves [newer] as "effect" = "with the exchange minus in cipher, of",
    }

    /// One pair.
    pub struct ItemRow<'a> in "items" {
        pair: OfPair<'a> as "",
        plain_positive: Option<f64> = "metric of the plain positive prompt, nats",
        plain_negative: Option<f64> = "metric of the plain negative prompt, nats",
        cipher_positive: Option<f64> = "metric of the positive prompt in cipher, nats",
        cipher_negative: Option<f64> = "metric of the negative prompt in cipher, nats",
        plain_exchanged: Option<f64> = "plain positive, gate of the plain negative, nats",
        cipher_exchanged: Option<f64> = "cipher positive, gate of the cipher negative, nats",
        injected: Option<f64> = "cipher positive, gate of the plain positive, nats",
        control: Option<f64> = "cipher positive, gate of the plain negative, nats",
        wrapped_positive: Option<f64> =
            "metric of the plain positive prompt within the cipher's instructions, nats",
        wrapped_negative: Option<f64> = "the same of the negative prompt, nats",
        wrapped_exchanged: Option<f64> = "wrapped positive, gate of the wrapped negative, nats",
        plain_answer_effect: Option<f64> =
            "plain_exchanged less plain_positive, of logsumexp(answer logits) less the mean logit, nats; the foil's is this less \
             that of the metric",
        cipher_answer_effect: Option<f64> = "the same in cipher, nats",
        wrapped_answer_effect: Option<f64> = "the same within the instructions, nats",
        injected_answer_effect: Option<f64> = "injected less cipher_positive, likewise, nats",
        control_answer_effect: Option<f64> = "control less cipher_positive, likewise, nats",
    }

    /// The answer to a pair's positive request in one condition.
    pub struct GenerationRow<'a> in "generations" {
        pair: OfPair<'a> as "",
        condition: &'a str = "plain, cipher, injected or control",
        answer: Answered<'a> as "",
    }
}

/// The exact sign test of yes or no about the same pairs.
fn differ(a: &[bool], b: &[bool]) -> f64 {
    let counts = PairedCounts::of(a.iter().copied().zip(b.iter().copied()));
    paired_sign_test(counts.only_first, counts.only_second)
}

fn generations_table(items: &Items, answers: &[Answer]) -> Result<Table, AnalysisError> {
    let pairs = &items.ciphered.plain.dataset.items;
    Ok(GenerationRow::table(answers.iter().enumerate().map(|(i, answer)| GenerationRow {
        pair: (&pairs[i / CONDITIONS.len()]).into(),
        condition: CONDITIONS[i % CONDITIONS.len()],
        answer: answer.into(),
    }))?)
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
