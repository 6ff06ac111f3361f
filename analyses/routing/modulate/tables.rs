//! The tables of a modulation: doses, thresholds, whether thresholds differ, and what the ends of the grid change.

mod change;
mod crossing;

use super::{Items, Measured, SIDES};
use crate::analyses::answered::{Answer, Answered, columns_of, shares};
use crate::analyses::columns::OfPair;
use crate::analyses::doses::class_thresholds;
use crate::analyses::effects::{Subset, subsets};
use crate::analyses::halves::{self, Halves};
use crate::analyses::prelude::*;
use crate::analyses::summary::less;
use crate::answers::Class;
use crate::stats::{LabelTest, bca, bca_family, benjamini_hochberg, label_test, ranks};
use crate::table::rows;
pub use change::ChangeRow;
use crossing::{Place, crossing, mean_curve, rises};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Fewer prompts that generate give no thresholds of classes.
const ENOUGH: usize = 5;

/// Random orders of labels.
const DRAWS: usize = 10_000;

/// What the tables are made of.
pub(super) struct Made<'a> {
    pub(super) about: &'a About<'a>,
    pub(super) items: &'a Items,
    /// The coefficients.
    pub(super) x: &'a [f64],
    /// The numbers of those that random directions have.
    pub(super) ends: &'a [usize],
    pub(super) measured: &'a Measured,
    pub(super) given: &'a [Given],
}

/// A generated answer, and to what.
pub(super) struct Given {
    pub(super) pair: usize,
    pub(super) side: usize,
    pub(super) direction: usize,
    /// The number of the coefficient.
    pub(super) dose: usize,
    pub(super) answer: Answer,
}

rows! {
    /// The prompts that a row is over.
    #[derive(Copy)]
    pub struct OfPrompts<'a> {
        side: &'a str = "positive or negative prompts",
        by: &'a str = "what the pairs were split by: all, group or lang",
        value: &'a str = "which group or language",
    }

    /// Some prompts under one coefficient.
    pub struct DoseRow<'a> in "dose" {
        model: &'a str = "the model, as it was named",
        prompts: OfPrompts<'a> as "",
        coefficient: Option<f64> = "times the difference of means, which is added at the last position and after",
        n: i64 = "prompts",
        metric_mean: Option<f64> = "mean metric, nats",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of its 95 % BCa interval, nats", "upper end, nats"],
        kl_to_base: Option<f64> = "mean KL divergence of the next token from the unmodulated run, nats",
        answers: i64 = "generated answers",
        /// Of the rules' classes.
        shares: Vec<Option<f64>> = "share of generated answers of this class",
        random_metric_mean: Option<f64> =
            "mean metric along random directions of the same norm, nats; at the ends of the grid, and at 0",
        p_over_random: Option<f64> =
            "share of random directions that move the mean metric as far, (hits + 1) / (R + 1); at the ends of the grid",
        directions: i64 [newer] = "random directions of the same norm, at the ends of the grid",
        random_answers: i64 = "answers generated along random directions",
        random_refusal: Option<f64> = "share of refusals among them",
        site: Cow<'a, str> = "where it was added",
        effect_mean: Option<f64> [newer] = "mean of the metric less that of the unmodulated prompts, nats",
        halves: Halves [newer] as "effect" = "modulated minus base of",
    }

    /// Where a class or the metric takes over.
    pub struct ThresholdRow<'a> in "thresholds" {
        model: &'a str = "the model, as it was named",
        prompts: OfPrompts<'a> as "",
        class: &'a str =
            "a class of answers, whose share crosses one half (logistic fit); or metric, whose mean crosses 0 (between \
             coefficients in proportion; where it goes the way of all prompts' mean from end to end; of several such \
             crossings the nearest to coefficient 0)",
        n: i64 = "prompts",
        coefficient: Option<f64> = "where it crosses",
        ci_low: Option<f64> =
            "lower end of the 95 % BCa interval over prompts: of a class empty where a resample does not cross; of the metric a \
             resample that does not cross counts at the grid's end on its side, and it is empty where it is the grid's end",
        ci_high: Option<f64> = "upper end",
        low_open: bool = "whether the interval goes on below the grid",
        high_open: bool = "whether it goes on above the grid",
        rises: bool = "whether it rises with the coefficient",
    }

    /// Whether the prompts' own thresholds differ by their labels.
    pub struct DifferenceRow<'a> in "differences" {
        model: &'a str = "the model, as it was named",
        side: &'a str = "positive or negative prompts",
        by: &'a str = "group or lang",
        n: i64 = "prompts that have such a label",
        below: i64 = "those whose own metric has crossed 0 before the grid begins; they rank before all others, as equals",
        above: i64 = "those whose own metric has not crossed 0 where the grid ends; they rank after all others, as equals",
        labels: i64 = "groups or languages",
        between: Option<f64> =
            "share of the variance of the ranks of the prompts' own metric thresholds that lies between labels (eta squared)",
        p_value: Option<f64> = "permutation p-value (Kruskal-Wallis): labels dealt out anew 10,000 times",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over the table",
        least_p: Option<f64> [newer] = "the least p-value that so many prompts of each label can have",
    }

    /// One prompt under one coefficient.
    pub struct ItemRow<'a> in "items" {
        pair: OfPair<'a> as "",
        side: &'a str = "positive or negative prompt",
        fold: i64 = "half of the pair; its direction is made from the other's",
        coefficient: Option<f64> = "coefficient",
        base_metric: Option<f64> = "metric without modulation, nats",
        metric: Option<f64> = "metric, nats",
        answer_effect: Option<f64> =
            "logsumexp(answer logits) less the mean logit, modulated minus base, nats; the foil's is this less metric minus \
             base_metric",
        kl_to_base: Option<f64> = "KL divergence of the next token from the unmodulated run, nats",
    }

    /// The answer to one prompt under one coefficient.
    pub struct GenerationRow<'a> in "generations" {
        pair: OfPair<'a> as "",
        side: &'a str = "positive or negative prompt",
        direction: i64 = "0: the concept's; from 1 on: random directions",
        coefficient: Option<f64> = "coefficient",
        answer: Answered<'a> as "",
    }
}

/// What the metric's own thresholds are called, beside those of classes.
pub(crate) const METRIC: &str = "metric";

/// Some prompts under one coefficient, with their numbers.
struct Dose<'a> {
    /// Without its interval and halves.
    row: DoseRow<'a>,
    metric: Vec<f64>,
    /// What modulating moves: the metric's answer half and its foil half, one a prompt.
    halves: [Vec<f64>; 2],
}

impl Made<'_> {
    pub(super) fn tables(&self) -> Result<Vec<Table>, AnalysisError> {
        let (groups, langs): (Vec<_>, Vec<_>) = self.items.pairs.labels().unzip();
        let all = Subset { by: "all", value: "all".to_string(), items: super::everything(self.items).collect() };
        let subsets: Vec<Subset> = std::iter::once(all).chain(subsets(&groups, &langs)).collect();
        let doses = self.doses(&subsets);
        let mut tables = vec![
            self.dose_table(&doses)?,
            ThresholdRow::table(self.thresholds(&subsets, &doses))?,
            self.differences_table([("group", &groups), ("lang", &langs)])?,
            self.items_table()?,
        ];
        if !self.given.is_empty() {
            tables.push(self.change_table()?);
            tables.push(self.generations_table()?);
        }
        Ok(tables)
    }

    fn model(&self) -> &str {
        self.about.model
    }

    /// Rows by side and subset, each with all coefficients in their order.
    fn doses<'a>(&'a self, subsets: &'a [Subset]) -> Vec<Dose<'a>> {
        let mut rows = Vec::new();
        for side in 0..SIDES.len() {
            for subset in subsets {
                rows.extend((0..self.x.len()).map(|dose| self.dose(side, subset, dose)));
            }
        }
        rows
    }

    fn dose<'a>(&'a self, side: usize, subset: &'a Subset, dose: usize) -> Dose<'a> {
        let pick = |of: &[f64]| subset.items.iter().map(|i| of[*i]).collect::<Vec<f64>>();
        let base = mean(&pick(&self.measured.base[side]));
        let metric = pick(&self.measured.metric[side][dose]);
        let (effect, answer) =
            (less(&metric, &pick(&self.measured.base[side])), pick(&self.measured.answer[side][dose]));
        let end = self.ends.iter().position(|end| *end == dose);
        let along = |end: usize| self.measured.random[side].iter().map(|of| mean(&pick(&of[end]))).collect();
        let random: Option<Vec<Option<f64>>> = end.map(along);
        let change = |m: &Option<f64>| m.zip(base).map(|(m, b)| (m - b).abs());
        let hits = |random: &Vec<Option<f64>>| random.iter().filter(|m| change(m) >= change(&mean(&metric))).count();
        let of_random = |of: &Vec<Option<f64>>| mean(&of.iter().flatten().copied().collect::<Vec<_>>());
        let answers = |of_random: bool| -> Vec<&Answer> {
            let here = |g: &&Given| {
                (g.side, g.dose, g.direction > 0) == (side, dose, of_random) && subset.items.contains(&g.pair)
            };
            self.given.iter().filter(here).map(|g| &g.answer).collect()
        };
        let (own, controls) = (answers(false), answers(true));
        let row = DoseRow {
            model: self.model(),
            prompts: OfPrompts { side: SIDES[side], by: subset.by, value: &subset.value },
            coefficient: Some(self.x[dose]),
            n: metric.len() as i64,
            metric_mean: mean(&metric),
            kl_to_base: mean(&pick(&self.measured.kl[side][dose])),
            answers: own.len() as i64,
            shares: shares(&own, &self.items.rules.classes()),
            random_metric_mean: if self.x[dose] == 0.0 { base } else { random.as_ref().and_then(of_random) },
            p_over_random: random.as_ref().map(|of| (hits(of) + 1) as f64 / (of.len() + 1) as f64),
            directions: self.measured.random[side].len() as i64,
            random_answers: controls.len() as i64,
            random_refusal: crate::analyses::answered::share(&controls, Class::Refusal),
            site: self.items.site.to_string().into(),
            effect_mean: mean(&effect),
            ..DoseRow::default()
        };
        Dose { row, metric, halves: [answer.clone(), less(&answer, &effect)] }
    }

    fn dose_table(&self, doses: &[Dose]) -> Result<Table, AnalysisError> {
        let samples: Vec<&[f64]> = doses.iter().map(|d| d.metric.as_slice()).collect();
        let intervals = bca_family(&samples, &self.bootstrap());
        let half = |k: usize| doses.iter().map(|d| d.halves[k].clone()).collect::<Vec<_>>();
        let halves = halves::over_items(&half(0), &half(1), self.about.seed);
        let rows = doses.iter().zip(intervals).zip(halves).map(|((dose, interval), halves)| DoseRow {
            interval: interval.map(Interval::ends),
            halves,
            ..dose.row.clone()
        });
        Ok(rows::table(DoseRow::TABLE, &columns_of(&self.items.rules.classes()), rows)?)
    }

    fn bootstrap(&self) -> Bootstrap {
        Bootstrap { seed: self.about.seed, ..Bootstrap::default() }
    }

    /// A pair's metric along the grid.
    fn curve(&self, side: usize, pair: usize) -> Vec<f64> {
        self.measured.metric[side].iter().map(|of_dose| of_dose[pair]).collect()
    }

    /// Whether the metric of a side rises along the grid, over all prompts.
    fn rises(&self, side: usize) -> bool {
        let curves: Vec<Vec<f64>> = super::everything(self.items).map(|i| self.curve(side, i)).collect();
        rises(&mean_curve(&curves.iter().map(Vec::as_slice).collect::<Vec<_>>()))
    }

    /// Thresholds of the mean metric, then of each class of answers, by side and subset.
    fn thresholds<'a>(&'a self, subsets: &'a [Subset], doses: &[Dose]) -> Vec<ThresholdRow<'a>> {
        let mut found = Vec::new();
        for (k, of_subset) in doses.chunks(self.x.len()).enumerate() {
            let (side, subset) = (k / subsets.len(), &subsets[k % subsets.len()]);
            let curves: Vec<Vec<f64>> = subset.items.iter().map(|i| self.curve(side, *i)).collect();
            let curves: Vec<&[f64]> = curves.iter().map(Vec::as_slice).collect();
            let rises = self.rises(side);
            let row = |class, n, at, interval: Option<Interval>, rises| {
                let prompts = OfPrompts { side: SIDES[side], by: subset.by, value: &subset.value };
                self.threshold(ThresholdRow { prompts, class, n, rises, ..ThresholdRow::default() }, at, interval)
            };
            if let Place::At(at) = crossing(self.x, &mean_curve(&curves), rises) {
                let statistic = |of: &[&[f64]]| crossing(self.x, &mean_curve(of), rises).within(self.x);
                let interval = bca(&curves, statistic, &self.bootstrap());
                found.push(row(METRIC, curves.len() as i64, at, interval, rises));
            }
            let answers: Vec<i64> = of_subset.iter().map(|d| d.row.answers).collect();
            if answers.iter().any(|n| (*n as usize) < ENOUGH) {
                continue;
            }
            let found_here =
                class_thresholds(self.x, &self.classes(side, subset), &self.items.rules.classes(), &self.bootstrap());
            let n = answers.first().copied().unwrap_or(0);
            found.extend(found_here.into_iter().map(|(class, of)| row(class.name(), n, of.at, of.interval, of.rises)));
        }
        found
    }

    /// With where it crosses. An interval may reach to an end of the grid, beyond which nothing is known.
    fn threshold<'a>(&'a self, row: ThresholdRow<'a>, at: f64, interval: Option<Interval>) -> ThresholdRow<'a> {
        let (first, last) = (self.x.first().copied(), self.x.last().copied());
        let low_open = interval.zip(first).is_some_and(|(i, first)| i.low <= first);
        let high_open = interval.zip(last).is_some_and(|(i, last)| i.high >= last);
        ThresholdRow {
            model: self.model(),
            coefficient: Some(at),
            ci_low: interval.map(|i| i.low).filter(|_| !low_open),
            ci_high: interval.map(|i| i.high).filter(|_| !high_open),
            low_open,
            high_open,
            ..row
        }
    }

    /// The classes of each prompt's answers along the concept's direction, one a coefficient; none where it gave none.
    fn classes(&self, side: usize, subset: &Subset) -> Vec<Vec<Option<Class>>> {
        let mut classes: BTreeMap<usize, Vec<Option<Class>>> = BTreeMap::new();
        let here = |g: &&Given| g.side == side && g.direction == 0 && subset.items.contains(&g.pair);
        for given in self.given.iter().filter(here) {
            let of_prompt = classes.entry(given.pair).or_insert_with(|| vec![None; self.x.len()]);
            of_prompt[given.dose] = Some(given.answer.class);
        }
        classes.into_values().collect()
    }

    /// Tests of each side's per-item thresholds against their labels, by ranks: those beyond an end of the grid come before or
    /// after all others, whatever they are.
    fn differences_table(&self, labels: [(&'static str, &Vec<Option<&str>>); 2]) -> Result<Table, AnalysisError> {
        let one = |side: usize, by: &'static str, labels: &[Option<&str>]| {
            let rises = self.rises(side);
            let labelled: Vec<usize> = super::everything(self.items).filter(|i| labels[*i].is_some()).collect();
            let mut names: Vec<&str> = labels.iter().flatten().copied().collect();
            names.sort_unstable();
            names.dedup();
            let places: Vec<Place> = labelled.iter().map(|i| crossing(self.x, &self.curve(side, *i), rises)).collect();
            let number = |i: &usize| names.binary_search(&labels[*i]?).ok();
            let numbers = ranks(&places.iter().map(|place| place.order()).collect::<Vec<_>>());
            let LabelTest { between, p, least_p } =
                label_test(&numbers, &labelled.iter().filter_map(number).collect::<Vec<_>>(), DRAWS, self.about.seed)?;
            let [below, above] =
                [Place::Under, Place::Over].map(|end| places.iter().filter(|p| **p == end).count() as i64);
            let row = DifferenceRow {
                model: self.model(),
                side: SIDES[side],
                by,
                n: labelled.len() as i64,
                below,
                above,
                labels: names.len() as i64,
                between: Some(between),
                p_value: Some(p),
                q_value: None,
                least_p: Some(least_p),
            };
            Some((row, p))
        };
        let sides = (0..SIDES.len()).flat_map(|side| labels.into_iter().map(move |(by, of)| (side, by, of)));
        let (rows, p): (Vec<_>, Vec<f64>) = sides.filter_map(|(side, by, of)| one(side, by, of)).unzip();
        let rows = rows.into_iter().zip(benjamini_hochberg(&p));
        Ok(DifferenceRow::table(rows.map(|(row, q)| DifferenceRow { q_value: Some(q), ..row }))?)
    }

    fn items_table(&self) -> Result<Table, AnalysisError> {
        let Measured { base, metric, answer, kl, .. } = self.measured;
        let under = |(side, dose): (usize, usize)| {
            super::everything(self.items).map(move |i| ItemRow {
                pair: (&self.items.pairs.dataset.items[i]).into(),
                side: SIDES[side],
                fold: self.items.fold[i] as i64,
                coefficient: Some(self.x[dose]),
                base_metric: Some(base[side][i]),
                metric: Some(metric[side][dose][i]),
                answer_effect: Some(answer[side][dose][i]),
                kl_to_base: Some(kl[side][dose][i]),
            })
        };
        let doses = (0..SIDES.len()).flat_map(|side| (0..self.x.len()).map(move |dose| (side, dose)));
        Ok(ItemRow::table(doses.flat_map(under))?)
    }

    fn generations_table(&self) -> Result<Table, AnalysisError> {
        Ok(GenerationRow::table(self.given.iter().map(|given| GenerationRow {
            pair: (&self.items.pairs.dataset.items[given.pair]).into(),
            side: SIDES[given.side],
            direction: given.direction as i64,
            coefficient: Some(self.x[given.dose]),
            answer: (&given.answer).into(),
        }))?)
    }
}
