//! Cipher: does the behaviour still need its gate when the request comes in a form that the detector cannot read?
//!
//! Each request is put in plain and in cipher ([`super::ciphered`]). *Necessity* of the gate in either form: the positive run
//! with the gate's `z` of the negative run of the same form; where the model no longer sees what it would refuse, the gate
//! carries nothing, and the effect collapses. *Injection*: the ciphered request with the gate's `z` of the plain run. If
//! refusals come back, the route behind the gate is whole, and only detection was blind. The control injects the `z` of the
//! plain harmless request instead. All exchanges are at the last position. Source: "How Alignment Routes" (2026).

mod report;

use super::answered::{Answer, continued, item_of};
use super::ciphered::{CipherArgs, Ciphered};
use super::effects::{SIGNIFICANT, Subset, family, subsets};
use super::gate::{GateArgs, Head, interchanged, names};
use super::inputs::{PairArgs, Sources, room};
use super::summary::{mean, sd};
use super::{Analysis, AnalysisError, Figures, Output, Plans, planned};
use crate::answers::Class;
use crate::dataset::{Item, Pair};
use crate::model::Model;
use crate::plan::{Plan, Run, What};
use crate::report::Section;
use crate::run::{Reading, Steps};
use crate::session::Session;
use crate::stats::{Bootstrap, bca, bca_mean, draws_for, paired_sign_test, sign_flip, wilson};
use crate::table::Table;
use std::path::Path;

/// Whether the gate is needed in cipher, and whether injecting it restores refusals
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Cipher {
    #[command(flatten)]
    #[serde(flatten)]
    pub pairs: PairArgs,

    #[command(flatten)]
    #[serde(flatten)]
    pub gate: GateArgs,

    #[command(flatten)]
    #[serde(flatten)]
    pub cipher: CipherArgs,

    /// Generate answers of so many tokens, and classify them; the exchange is made in the prompt
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub generate: u32,
}

/// The pairs as the model reads them, and the gate.
pub struct Items {
    ciphered: Ciphered,
    gate: Vec<Head>,
    sources: Sources,
}

/// What answers are generated of, in the order of tables.
const CONDITIONS: [&str; 4] = ["plain", "cipher", "injected", "control"];

/// One pair's metrics, nats.
#[derive(Clone, Copy)]
struct Measured {
    /// Of the plain positive and negative prompt.
    plain: [f64; 2],
    /// Of both in cipher.
    cipher: [f64; 2],
    /// Of the plain positive prompt with the gate of the plain negative; of the same in cipher.
    exchanged: [f64; 2],
    /// Of the ciphered positive prompt with the gate of the plain positive.
    injected: f64,
    /// Of the ciphered positive prompt with the gate of the plain negative.
    control: f64,
}

impl Measured {
    /// Readouts of a pair.
    const READOUTS: usize = 8;

    fn of(numbers: &[f64]) -> Option<Measured> {
        let [p, n, cp, cn, exchanged, cipher_exchanged, injected, control] = numbers.try_into().ok()?;
        let (plain, cipher) = ([p, n], [cp, cn]);
        Some(Measured { plain, cipher, exchanged: [exchanged, cipher_exchanged], injected, control })
    }

    /// The metric under each of [`CONDITIONS`].
    fn conditions(&self) -> [f64; 4] {
        [self.plain[0], self.cipher[0], self.injected, self.control]
    }

    /// The effects of the exchange in plain and in cipher.
    fn effects(&self) -> [f64; 2] {
        [self.exchanged[0] - self.plain[0], self.exchanged[1] - self.cipher[0]]
    }
}

impl Analysis for Cipher {
    const NAME: &'static str = "cipher";
    const ABOUT: &'static str = "Whether the gate is needed in cipher, and whether injecting it restores refusals";
    const TITLE: &'static str = "Cipher";
    type Items = Items;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        let (gate, of_gate) = self.gate.read(model)?;
        let ciphered = Ciphered::read(&self.pairs, &self.cipher, model)?;
        let dataset = &ciphered.plain.dataset;
        for ((pair, tokens), [cipher, _]) in dataset.items.iter().zip(&ciphered.plain.tokens).zip(&ciphered.cipher) {
            let longest = tokens.positive.len().max(cipher.len());
            room(&model.decoder.arch, longest, self.generate as usize)
                .map_err(|why| dataset.at(pair.line, &pair.id, "positive").error(why))?;
        }
        let sources = ciphered.sources().into_iter().chain(of_gate).collect();
        Ok(Items { ciphered, gate, sources })
    }

    fn datasets(items: &Items) -> Vec<(String, String)> {
        items.sources.clone()
    }

    fn plans<'a>(&'a self, _: &'a Model, items: &'a Items) -> Result<Plans<'a>, AnalysisError> {
        let generation = (self.generate > 0).then(|| generation_plan(items, self.generate as usize).0);
        Ok(planned(std::iter::once(metrics_plan(items)).chain(generation)))
    }

    fn compute(&self, session: &Session, items: &Items) -> Result<Output, AnalysisError> {
        let readings = session.run(&metrics_plan(items))?;
        let numbers: Vec<f64> = readings.iter().filter_map(Reading::number).collect();
        let measured: Vec<Measured> = numbers.chunks(Measured::READOUTS).filter_map(Measured::of).collect();
        let answers = self.answers(session, items)?;
        let context = Context { model: &session.model.name, seed: session.seed, items, measured: &measured };
        let mut tables = vec![
            context.necessity_table()?,
            context.collapse_table()?,
            context.injection_table(&answers)?,
            context.items_table()?,
        ];
        if self.generate > 0 {
            tables.push(generations_table(items, &answers)?);
        }
        Ok(tables.into())
    }

    fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
        report::figures(tables)
    }

    fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
        report::sections(tables, dir)
    }
}

/// A pair's prompts: positive and negative in plain, then in cipher.
fn prompts(items: &Items, plan: &mut Plan, i: usize) -> ([Run; 2], [Run; 2]) {
    (items.ciphered.plain.add(plan, i), items.ciphered.add_cipher(plan, i))
}

/// Each pair's metrics: four prompts, the gate exchanged in both forms, injected from plain, and the control.
fn metrics_plan(items: &Items) -> Plan {
    let mut plan = Plan::default();
    for (i, tokens) in items.ciphered.plain.tokens.iter().enumerate() {
        let (plain, cipher) = prompts(items, &mut plan, i);
        let forks = [(plain[0], plain[1]), (cipher[0], cipher[1]), (cipher[0], plain[0]), (cipher[0], plain[1])];
        let forks = forks.map(|(base, donor)| plan.fork(base, interchanged(&items.gate, donor)));
        for run in plain.into_iter().chain(cipher).chain(forks) {
            plan.read(run, What::Metric(tokens.metric.clone()));
        }
    }
    plan
}

/// What generates, and the runs that go on: for each pair one for each of [`CONDITIONS`]. Prompts are made longer by `more`
/// tokens, to count what generating so many would cost.
fn generation_plan(items: &Items, more: usize) -> (Plan, Vec<Run>) {
    let (mut plan, mut runs) = (Plan::default(), Vec::new());
    for i in 0..items.ciphered.n() {
        let (plain, cipher) = prompts(items, &mut plan, i);
        let injected = [plain[0], plain[1]].map(|donor| plan.fork(cipher[0], interchanged(&items.gate, donor)));
        runs.extend([plain[0], cipher[0], injected[0], injected[1]]);
    }
    for prompt in &mut plan.prompts {
        prompt.ids.extend(std::iter::repeat_n(0, more));
    }
    for run in &runs {
        plan.read(*run, What::Entropy);
    }
    (plan, runs)
}

impl Cipher {
    /// Generated answers with their classes: for each pair one for each of [`CONDITIONS`]; none where none were asked for.
    fn answers(&self, session: &Session, items: &Items) -> Result<Vec<Answer>, AnalysisError> {
        if self.generate == 0 {
            return Ok(Vec::new());
        }
        let (plan, runs) = generation_plan(items, 0);
        let pairs = &items.ciphered.plain.dataset.items;
        let item = |pair: &Pair| std::iter::repeat_n(item_of(pair, &pair.positive), CONDITIONS.len());
        let asked: Vec<Item> = pairs.iter().flat_map(item).collect();
        Ok(continued(session, &plan, runs, (self.generate, Steps::PromptOnly), &asked)?.1)
    }
}

/// What the tables are made of.
struct Context<'a> {
    model: &'a str,
    seed: u64,
    items: &'a Items,
    measured: &'a [Measured],
}

/// A row of the table of injections.
struct Condition {
    metric: Option<f64>,
    interval: Option<(f64, f64)>,
    answers: usize,
    /// Answers of each of [`Class::ALL`].
    counts: Vec<usize>,
    refusal_interval: Option<(f64, f64)>,
    restored: Option<f64>,
    restored_metric: Option<f64>,
    restored_interval: Option<(f64, f64)>,
    p_refusals: Option<f64>,
}

impl Condition {
    fn share(&self, class: usize) -> Option<f64> {
        (self.answers > 0).then(|| self.counts[class] as f64 / self.answers as f64)
    }
}

impl Context<'_> {
    fn bootstrap(&self) -> Bootstrap {
        Bootstrap { seed: self.seed, ..Bootstrap::default() }
    }

    fn n(&self) -> i64 {
        self.measured.len() as i64
    }

    fn left_out(&self) -> i64 {
        self.items.ciphered.left_out as i64
    }

    /// Mean of a number over pairs.
    fn over(&self, f: impl Fn(&Measured) -> f64) -> Option<f64> {
        mean(&self.measured.iter().map(f).collect::<Vec<_>>())
    }

    fn necessity_table(&self) -> Result<Table, AnalysisError> {
        let effects: [Vec<f64>; 2] = [0, 1].map(|form| self.measured.iter().map(|m| m.effects()[form]).collect());
        let tested = family(&effects, self.seed)?;
        let gap = self.over(|m| m.plain[1] - m.plain[0]).filter(|gap| *gap != 0.0);
        let base = [self.over(|m| m.plain[0]), self.over(|m| m.cipher[0])];
        let other = [self.over(|m| m.plain[1]), self.over(|m| m.cipher[1])];
        let two = |x: i64| [x, x];
        Ok(Table::new("necessity")
            .str("model", "the model, as it was named", [self.model; 2])?
            .str("condition", "plain or cipher", CONDITIONS[..2].iter().copied())?
            .int("n", "pairs", two(self.n()))?
            .int("left_out", "pairs that cannot be written in the cipher", two(self.left_out()))?
            .float("base_mean", "mean metric of the positive prompts, nats", base)?
            .float("other_mean", "mean metric of the negative prompts, nats", other)?
            .float(
                "effect_mean",
                "mean change of the positive prompts' metric with the gate of the negative, nats",
                effects.iter().map(|e| mean(e)),
            )?
            .float("effect_sd", "its standard deviation over pairs, nats", effects.iter().map(|e| sd(e)))?
            .float(
                "ci_low",
                "lower end of the mean effect's 95 % BCa interval, nats",
                tested.iter().map(|t| t.interval.map(|i| i.0)),
            )?
            .float("ci_high", "upper end, nats", tested.iter().map(|t| t.interval.map(|i| i.1)))?
            .float(
                "effect_normalized",
                "mean effect as a share of the mean plain gap, negative minus positive",
                effects.iter().map(|e| mean(e).zip(gap).map(|(e, gap)| e / gap)),
            )?
            .float("p_value", "two-sided sign-flip permutation p-value of the mean effect", tested.iter().map(|t| t.p))?
            .float("q_value", "Benjamini-Hochberg q-value over both", tested.iter().map(|t| t.q))?
            .str("gate", "the heads that were exchanged", [names(&self.items.gate), names(&self.items.gate)])?)
    }

    fn collapse_table(&self) -> Result<Table, AnalysisError> {
        let (groups, langs): (Vec<_>, Vec<_>) = self.items.ciphered.plain.labels().unzip();
        let all = Subset { by: "all", value: "all".to_string(), items: (0..self.measured.len()).collect() };
        let rows: Vec<Subset> = std::iter::once(all).chain(subsets(&groups, &langs)).collect();
        let effects: Vec<Vec<(f64, f64)>> =
            rows.iter().map(|r| r.items.iter().map(|i| self.measured[*i].effects().into()).collect()).collect();
        let of = |side: fn(&(f64, f64)) -> f64| effects.iter().map(move |e| e.iter().map(side).collect::<Vec<_>>());
        let plain: Vec<Vec<f64>> = of(|e| e.0).collect();
        let p: Vec<Option<f64>> = plain.iter().map(|e| sign_flip(e, draws_for(1), self.seed)).collect();
        let testable: Vec<bool> = p.iter().map(|p| p.is_some_and(|p| p < SIGNIFICANT)).collect();
        let tried = || effects.iter().zip(&testable);
        let collapse = tried().map(|(effects, testable)| testable.then(|| collapsed(effects)));
        let interval = |(effects, testable): (&Vec<(f64, f64)>, &bool)| {
            testable.then(|| bca(effects, collapsed, &self.bootstrap()))?
        };
        let intervals: Vec<_> = tried().map(interval).collect();
        Ok(Table::new("collapse")
            .str("model", "the model, as it was named", rows.iter().map(|_| self.model))?
            .str("by", "what the pairs were split by: all, group or lang", rows.iter().map(|r| r.by))?
            .str("value", "which group or language", rows.iter().map(|r| r.value.as_str()))?
            .int("n", "pairs", rows.iter().map(|r| r.items.len() as i64))?
            .float("plain_effect", "mean effect of the exchange in plain, nats", plain.iter().map(|e| mean(e)))?
            .float("cipher_effect", "mean effect of the exchange in cipher, nats", of(|e| e.1).map(|e| mean(&e)))?
            .float("collapse", "1 - cipher effect / plain effect, of the means; empty where not testable", collapse)?
            .float(
                "ci_low",
                "lower end of its 95 % BCa interval over pairs",
                intervals.iter().map(|i| i.map(|i| i.low)),
            )?
            .float("ci_high", "upper end", intervals.iter().map(|i| i.map(|i| i.high)))?
            .float("plain_p", "two-sided sign-flip p-value of the plain effect", p)?
            .flag("testable", "whether the plain effect differs from 0 (plain_p < 0.05)", testable)?)
    }

    /// The rows of [`CONDITIONS`]; `answers` as [`Cipher::answers`] gives them.
    fn conditions(&self, answers: &[Answer]) -> Vec<Condition> {
        let metrics: [Vec<f64>; 4] = std::array::from_fn(|c| self.measured.iter().map(|m| m.conditions()[c]).collect());
        let refused = |c: usize| answers.iter().skip(c).step_by(CONDITIONS.len()).map(|a| a.class == Class::Refusal);
        let counts = |c: usize, class: Class| {
            answers.iter().skip(c).step_by(CONDITIONS.len()).filter(|a| a.class == class).count()
        };
        let drops: Vec<f64> = metrics[0].iter().zip(&metrics[1]).map(|(p, c)| p - c).collect();
        let dropped = mean(&drops).is_some_and(|d| d > 0.0)
            && sign_flip(&drops, draws_for(1), self.seed).is_some_and(|p| p < SIGNIFICANT);
        let refusals: [usize; 4] = std::array::from_fn(|c| counts(c, Class::Refusal));
        let n = answers.len() / CONDITIONS.len();
        let one = |c: usize| {
            let exchanged = c >= 2;
            let triples: Vec<(f64, f64, f64)> =
                (0..self.measured.len()).map(|i| (metrics[0][i], metrics[1][i], metrics[c][i])).collect();
            let of_metric = exchanged && dropped;
            let of_refusals = exchanged && refusals[0] > refusals[1];
            let differ = |want: bool| refused(c).zip(refused(1)).filter(|(a, b)| a != b && *a == want).count();
            Condition {
                metric: mean(&metrics[c]),
                interval: bca_mean(&metrics[c], &self.bootstrap()).map(|i| (i.low, i.high)),
                answers: n,
                counts: Class::ALL.iter().map(|class| counts(c, *class)).collect(),
                refusal_interval: wilson(refusals[c], n).map(|i| (i.low, i.high)),
                restored: of_refusals
                    .then(|| (refusals[c] as f64 - refusals[1] as f64) / (refusals[0] as f64 - refusals[1] as f64)),
                restored_metric: of_metric.then(|| restored(&triples)),
                restored_interval: of_metric
                    .then(|| bca(&triples, restored, &self.bootstrap()).map(|i| (i.low, i.high)))
                    .flatten(),
                p_refusals: (exchanged && n > 0).then(|| paired_sign_test(differ(true), differ(false))),
            }
        };
        (0..CONDITIONS.len()).map(one).collect()
    }

    fn injection_table(&self, answers: &[Answer]) -> Result<Table, AnalysisError> {
        let rows = self.conditions(answers);
        let low = |pick: fn(&Condition) -> Option<(f64, f64)>| rows.iter().map(move |r| pick(r).map(|i| i.0));
        let high = |pick: fn(&Condition) -> Option<(f64, f64)>| rows.iter().map(move |r| pick(r).map(|i| i.1));
        let mut table = Table::new("injection")
            .str("model", "the model, as it was named", rows.iter().map(|_| self.model))?
            .str(
                "condition",
                "positive prompt in plain; in cipher; in cipher with the gate of the plain positive (injected); of the plain \
                 negative (control)",
                CONDITIONS,
            )?
            .int("n", "pairs", rows.iter().map(|_| self.n()))?
            .int("left_out", "pairs that cannot be written in the cipher", rows.iter().map(|_| self.left_out()))?
            .float("metric_mean", "mean metric, nats", rows.iter().map(|r| r.metric))?
            .float("ci_low", "lower end of its 95 % BCa interval, nats", low(|r| r.interval))?
            .float("ci_high", "upper end, nats", high(|r| r.interval))?
            .float(
                "restored_metric",
                "share of the metric's drop from plain to cipher that comes back, of the means; empty where nothing dropped \
                 (sign-flip p < 0.05)",
                rows.iter().map(|r| r.restored_metric),
            )?
            .float("restored_metric_low", "lower end of its 95 % BCa interval over pairs", low(|r| r.restored_interval))?
            .float("restored_metric_high", "upper end", high(|r| r.restored_interval))?
            .int("answers", "generated answers", rows.iter().map(|r| r.answers as i64))?;
        for (c, class) in Class::ALL.iter().enumerate() {
            let share = rows.iter().map(|r| r.share(c));
            table = table.float(class.name(), "share of generated answers of this class", share)?;
        }
        Ok(table
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
                "p_refusals",
                "exact two-sided sign test (McNemar) of refusals against cipher on the same pairs",
                rows.iter().map(|r| r.p_refusals),
            )?)
    }

    fn items_table(&self) -> Result<Table, AnalysisError> {
        let pairs = &self.items.ciphered.plain.dataset.items;
        let of = |f: fn(&Measured) -> f64| self.measured.iter().map(f);
        Ok(Table::new("items")
            .str("id", "the pair", pairs.iter().map(|p| p.id.as_str()))?
            .opt_str("group", "the pair's group", pairs.iter().map(|p| p.group.as_deref()))?
            .opt_str("lang", "the pair's language", pairs.iter().map(|p| p.lang.as_deref()))?
            .float("plain_positive", "metric of the plain positive prompt, nats", of(|m| m.plain[0]))?
            .float("plain_negative", "metric of the plain negative prompt, nats", of(|m| m.plain[1]))?
            .float("cipher_positive", "metric of the positive prompt in cipher, nats", of(|m| m.cipher[0]))?
            .float("cipher_negative", "metric of the negative prompt in cipher, nats", of(|m| m.cipher[1]))?
            .float("plain_exchanged", "plain positive, gate of the plain negative, nats", of(|m| m.exchanged[0]))?
            .float("cipher_exchanged", "cipher positive, gate of the cipher negative, nats", of(|m| m.exchanged[1]))?
            .float("injected", "cipher positive, gate of the plain positive, nats", of(|m| m.injected))?
            .float("control", "cipher positive, gate of the plain negative, nats", of(|m| m.control))?)
    }
}

/// 1 - cipher / plain effect, of means.
fn collapsed(effects: &[(f64, f64)]) -> f64 {
    1.0 - effects.iter().map(|e| e.1).sum::<f64>() / effects.iter().map(|e| e.0).sum::<f64>()
}

/// How much of the drop from plain to cipher comes back, of (plain, cipher, with the gate).
fn restored(metrics: &[(f64, f64, f64)]) -> f64 {
    metrics.iter().map(|m| m.2 - m.1).sum::<f64>() / metrics.iter().map(|m| m.0 - m.1).sum::<f64>()
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
        .str("class", "refusal, evasion, answer or undecided", answers.iter().map(|a| a.class.name()))?
        .opt_str("rule", "the rule that decided", answers.iter().map(|a| a.rule.as_deref()))?
        .flag("stopped", "whether the answer ended by itself", answers.iter().map(|a| a.stopped))?
        .str("text", "the generated answer", answers.iter().map(|a| a.text.as_str()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collapse_and_restoration_are_ratios_of_means() {
        assert_eq!(collapsed(&[(-4.0, -1.0), (-6.0, 0.0)]), 0.9);
        assert_eq!(restored(&[(6.0, -4.0, 1.0), (4.0, -6.0, 4.0)]), 0.75);
    }
}
