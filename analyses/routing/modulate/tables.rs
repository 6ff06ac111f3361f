//! The tables of a modulation: doses, thresholds, whether thresholds differ, and what the ends of the grid change.

mod change;
mod crossing;

use super::{Items, Measured, SIDES};
use crate::analyses::AnalysisError;
use crate::analyses::answered::{Answer, CLASS_DOC, shares};
use crate::analyses::doses::class_thresholds;
use crate::analyses::effects::{Subset, subsets};
use crate::analyses::halves;
use crate::analyses::summary::{less, mean};
use crate::answers::Class;
use crate::dataset::Pair;
use crate::session::Session;
use crate::stats::{Bootstrap, LabelTest, bca, bca_family, benjamini_hochberg, label_test, ranks};
use crate::table::Table;
use crossing::{Place, crossing, mean_curve, rises};
use std::collections::BTreeMap;

/// Fewer prompts that generate give no thresholds of classes.
const ENOUGH: usize = 5;

/// Random orders of labels.
const DRAWS: usize = 10_000;

/// What the tables are made of.
pub(super) struct Made<'a> {
    pub(super) session: &'a Session,
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

/// The prompts of one side and subset under one coefficient.
struct Dose<'a> {
    side: usize,
    subset: &'a Subset,
    dose: usize,
    metric: Vec<f64>,
    /// What modulating moves: the metric, its answer half and its foil half, one a prompt.
    effects: [Vec<f64>; 3],
    kl: Option<f64>,
    answers: i64,
    /// Shares of the rules' classes.
    shares: Vec<Option<f64>>,
    random: Option<f64>,
    p_over_random: Option<f64>,
    random_answers: i64,
    random_refusal: Option<f64>,
}

/// Where something takes over.
struct Crossing<'a> {
    side: usize,
    subset: &'a Subset,
    class: &'static str,
    n: i64,
    at: f64,
    interval: Option<(f64, f64)>,
    rises: bool,
}

/// Whether per-item thresholds differ by label.
struct Difference {
    side: usize,
    by: &'static str,
    n: i64,
    /// Prompts whose threshold lies under the grid, and over it.
    beyond: [i64; 2],
    labels: i64,
    between: f64,
    p: f64,
    least_p: f64,
}

impl Made<'_> {
    pub(super) fn tables(&self) -> Result<Vec<Table>, AnalysisError> {
        let (groups, langs): (Vec<_>, Vec<_>) = self.items.pairs.labels().unzip();
        let all = Subset { by: "all", value: "all".to_string(), items: super::everything(self.items).collect() };
        let subsets: Vec<Subset> = std::iter::once(all).chain(subsets(&groups, &langs)).collect();
        let doses = self.doses(&subsets);
        let mut tables = vec![
            self.dose_table(&doses)?,
            self.thresholds_table(&self.thresholds(&subsets, &doses))?,
            self.differences_table(&self.differences([("group", &groups), ("lang", &langs)]))?,
            self.items_table()?,
        ];
        if !self.given.is_empty() {
            tables.push(self.change_table()?);
            tables.push(self.generations_table()?);
        }
        Ok(tables)
    }

    fn model(&self) -> &str {
        &self.session.model.name
    }

    /// Rows by side and subset, each with all coefficients in their order.
    fn doses<'a>(&self, subsets: &'a [Subset]) -> Vec<Dose<'a>> {
        let mut rows = Vec::new();
        for side in 0..SIDES.len() {
            for subset in subsets {
                rows.extend((0..self.x.len()).map(|dose| self.dose(side, subset, dose)));
            }
        }
        rows
    }

    fn dose<'a>(&self, side: usize, subset: &'a Subset, dose: usize) -> Dose<'a> {
        let pick = |of: &[f64]| subset.items.iter().map(|i| of[*i]).collect::<Vec<f64>>();
        let base = mean(&pick(&self.measured.base[side]));
        let metric = pick(&self.measured.metric[side][dose]);
        let (effect, answer) =
            (less(&metric, &pick(&self.measured.base[side])), pick(&self.measured.answer[side][dose]));
        let effects = [effect.clone(), answer.clone(), less(&answer, &effect)];
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
        Dose {
            side,
            subset,
            dose,
            random: if self.x[dose] == 0.0 { base } else { random.as_ref().and_then(of_random) },
            p_over_random: random.as_ref().map(|of| (hits(of) + 1) as f64 / (of.len() + 1) as f64),
            metric,
            effects,
            kl: mean(&pick(&self.measured.kl[side][dose])),
            answers: own.len() as i64,
            shares: shares(&own, &self.items.rules.classes()),
            random_answers: controls.len() as i64,
            random_refusal: crate::analyses::answered::share(&controls, Class::Refusal),
        }
    }

    fn dose_table(&self, rows: &[Dose]) -> Result<Table, AnalysisError> {
        let samples: Vec<&[f64]> = rows.iter().map(|r| r.metric.as_slice()).collect();
        let intervals = bca_family(&samples, &self.bootstrap());
        let mut table = Table::new("dose")
            .str("model", "the model, as it was named", rows.iter().map(|_| self.model()))?
            .str("side", "positive or negative prompts", rows.iter().map(|r| SIDES[r.side]))?
            .str("by", "what the pairs were split by: all, group or lang", rows.iter().map(|r| r.subset.by))?
            .str("value", "which group or language", rows.iter().map(|r| r.subset.value.as_str()))?
            .float(
                "coefficient",
                "times the difference of means, which is added at the last position and after",
                rows.iter().map(|r| self.x[r.dose]),
            )?
            .int("n", "prompts", rows.iter().map(|r| r.metric.len() as i64))?
            .float("metric_mean", "mean metric, nats", rows.iter().map(|r| mean(&r.metric)))?
            .float("ci_low", "lower end of its 95 % BCa interval, nats", intervals.iter().map(|i| i.map(|i| i.low)))?
            .float("ci_high", "upper end, nats", intervals.iter().map(|i| i.map(|i| i.high)))?
            .float(
                "kl_to_base",
                "mean KL divergence of the next token from the unmodulated run, nats",
                rows.iter().map(|r| r.kl),
            )?
            .int("answers", "generated answers", rows.iter().map(|r| r.answers))?;
        for (c, class) in self.items.rules.classes().iter().enumerate() {
            let share = rows.iter().map(|r| r.shares[c]);
            table = table.float(&class.column(), "share of generated answers of this class", share)?;
        }
        let table = table
            .float(
                "random_metric_mean",
                "mean metric along random directions of the same norm, nats; at the ends of the grid, and at 0",
                rows.iter().map(|r| r.random),
            )?
            .float(
                "p_over_random",
                "share of random directions that move the mean metric as far, (hits + 1) / (R + 1); at the ends of the grid",
                rows.iter().map(|r| r.p_over_random),
            )?
            .int(
                "directions",
                "random directions of the same norm, at the ends of the grid",
                rows.iter().map(|r| self.measured.random[r.side].len() as i64),
            )?
            .int("random_answers", "answers generated along random directions", rows.iter().map(|r| r.random_answers))?
            .float("random_refusal", "share of refusals among them", rows.iter().map(|r| r.random_refusal))?
            .str("site", "where it was added", rows.iter().map(|_| self.items.site.to_string()))?
            .float(
                "effect_mean",
                "mean of the metric less that of the unmodulated prompts, nats",
                rows.iter().map(|r| mean(&r.effects[0])),
            )?;
        let of = |k: usize| rows.iter().map(|r| r.effects[k].clone()).collect::<Vec<_>>();
        halves::columns(table, "effect", "modulated minus base of", [&of(1), &of(2)], self.session.seed)
    }

    fn bootstrap(&self) -> Bootstrap {
        Bootstrap { seed: self.session.seed, ..Bootstrap::default() }
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
    fn thresholds<'a>(&self, subsets: &'a [Subset], doses: &[Dose]) -> Vec<Crossing<'a>> {
        let mut found = Vec::new();
        for (k, of_subset) in doses.chunks(self.x.len()).enumerate() {
            let (side, subset) = (k / subsets.len(), &subsets[k % subsets.len()]);
            let curves: Vec<Vec<f64>> = subset.items.iter().map(|i| self.curve(side, *i)).collect();
            let curves: Vec<&[f64]> = curves.iter().map(Vec::as_slice).collect();
            let rises = self.rises(side);
            if let Place::At(at) = crossing(self.x, &mean_curve(&curves), rises) {
                let statistic = |of: &[&[f64]]| crossing(self.x, &mean_curve(of), rises).within(self.x);
                let interval = bca(&curves, statistic, &self.bootstrap()).map(|i| (i.low, i.high));
                found.push(Crossing { side, subset, class: "metric", n: curves.len() as i64, at, interval, rises });
            }
            let answers: Vec<i64> = of_subset.iter().map(|d| d.answers).collect();
            if answers.iter().any(|n| (*n as usize) < ENOUGH) {
                continue;
            }
            let found_here =
                class_thresholds(self.x, &self.classes(side, subset), &self.items.rules.classes(), &self.bootstrap());
            found.extend(found_here.into_iter().map(|(class, threshold)| Crossing {
                side,
                subset,
                class: class.name(),
                n: answers.first().copied().unwrap_or(0),
                at: threshold.at,
                interval: threshold.interval.map(|i| (i.low, i.high)),
                rises: threshold.rises,
            }));
        }
        found
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

    fn thresholds_table(&self, found: &[Crossing]) -> Result<Table, AnalysisError> {
        let (first, last) = (self.x.first().copied(), self.x.last().copied());
        // Whether an interval reaches to an end of the grid, beyond which nothing is known.
        let low_open = |f: &Crossing| f.interval.zip(first).is_some_and(|(i, first)| i.0 <= first);
        let high_open = |f: &Crossing| f.interval.zip(last).is_some_and(|(i, last)| i.1 >= last);
        Ok(Table::new("thresholds")
            .str("model", "the model, as it was named", found.iter().map(|_| self.model()))?
            .str("side", "positive or negative prompts", found.iter().map(|f| SIDES[f.side]))?
            .str("by", "what the pairs were split by: all, group or lang", found.iter().map(|f| f.subset.by))?
            .str("value", "which group or language", found.iter().map(|f| f.subset.value.as_str()))?
            .str(
                "class",
                "a class of answers, whose share crosses one half (logistic fit); or metric, whose mean crosses 0 (between \
                 coefficients in proportion; where it goes the way of all prompts' mean from end to end; of several such \
                 crossings the nearest to coefficient 0)",
                found.iter().map(|f| f.class),
            )?
            .int("n", "prompts", found.iter().map(|f| f.n))?
            .float("coefficient", "where it crosses", found.iter().map(|f| f.at))?
            .float(
                "ci_low",
                "lower end of the 95 % BCa interval over prompts: of a class empty where a resample does not cross; of the metric a \
                 resample that does not cross counts at the grid's end on its side, and it is empty where it is the grid's end",
                found.iter().map(|f| f.interval.map(|i| i.0).filter(|_| !low_open(f))),
            )?
            .float("ci_high", "upper end", found.iter().map(|f| f.interval.map(|i| i.1).filter(|_| !high_open(f))))?
            .flag("low_open", "whether the interval goes on below the grid", found.iter().map(low_open))?
            .flag("high_open", "whether it goes on above the grid", found.iter().map(high_open))?
            .flag("rises", "whether it rises with the coefficient", found.iter().map(|f| f.rises))?)
    }

    /// Tests of each side's per-item thresholds against their labels, by ranks: those beyond an end of the grid come before or
    /// after all others, whatever they are.
    fn differences(&self, labels: [(&'static str, &Vec<Option<&str>>); 2]) -> Vec<Difference> {
        let one = |side: usize, by: &'static str, labels: &[Option<&str>]| {
            let rises = self.rises(side);
            let labelled: Vec<usize> = super::everything(self.items).filter(|i| labels[*i].is_some()).collect();
            let mut names: Vec<&str> = labels.iter().flatten().copied().collect();
            names.sort_unstable();
            names.dedup();
            let places: Vec<Place> = labelled.iter().map(|i| crossing(self.x, &self.curve(side, *i), rises)).collect();
            let number = |i: &usize| names.binary_search(&labels[*i]?).ok();
            let numbers = ranks(&places.iter().map(|place| place.order()).collect::<Vec<_>>());
            let test = label_test(
                &numbers,
                &labelled.iter().filter_map(number).collect::<Vec<_>>(),
                DRAWS,
                self.session.seed,
            )?;
            let beyond = [Place::Under, Place::Over].map(|end| places.iter().filter(|p| **p == end).count() as i64);
            let (n, labels) = (labelled.len() as i64, names.len() as i64);
            let LabelTest { between, p, least_p } = test;
            Some(Difference { side, by, n, beyond, labels, between, p, least_p })
        };
        let sides = (0..SIDES.len()).flat_map(|side| labels.into_iter().map(move |(by, of)| (side, by, of)));
        sides.filter_map(|(side, by, of)| one(side, by, of)).collect()
    }

    fn differences_table(&self, found: &[Difference]) -> Result<Table, AnalysisError> {
        let q = benjamini_hochberg(&found.iter().map(|f| f.p).collect::<Vec<_>>());
        Ok(Table::new("differences")
            .str("model", "the model, as it was named", found.iter().map(|_| self.model()))?
            .str("side", "positive or negative prompts", found.iter().map(|f| SIDES[f.side]))?
            .str("by", "group or lang", found.iter().map(|f| f.by))?
            .int("n", "prompts that have such a label", found.iter().map(|f| f.n))?
            .int(
                "below",
                "those whose own metric has crossed 0 before the grid begins; they rank before all others, as equals",
                found.iter().map(|f| f.beyond[0]),
            )?
            .int(
                "above",
                "those whose own metric has not crossed 0 where the grid ends; they rank after all others, as equals",
                found.iter().map(|f| f.beyond[1]),
            )?
            .int("labels", "groups or languages", found.iter().map(|f| f.labels))?
            .float(
                "between",
                "share of the variance of the ranks of the prompts' own metric thresholds that lies between labels (eta squared)",
                found.iter().map(|f| f.between),
            )?
            .float(
                "p_value",
                "permutation p-value (Kruskal-Wallis): labels dealt out anew 10,000 times",
                found.iter().map(|f| f.p),
            )?
            .float("q_value", "Benjamini-Hochberg q-value over the table", q)?
            .float(
                "least_p",
                "the least p-value that so many prompts of each label can have",
                found.iter().map(|f| f.least_p),
            )?)
    }

    fn items_table(&self) -> Result<Table, AnalysisError> {
        let mut rows: Vec<(usize, usize, usize)> = Vec::new();
        for side in 0..SIDES.len() {
            for dose in 0..self.x.len() {
                rows.extend(super::everything(self.items).map(|i| (i, side, dose)));
            }
        }
        let pair = |r: &(usize, usize, usize)| &self.items.pairs.dataset.items[r.0];
        let measured = self.measured;
        Ok(Table::new("items")
            .str("id", "the pair", rows.iter().map(|r| pair(r).id.as_str()))?
            .opt_str("group", "the pair's group", rows.iter().map(|r| pair(r).group.as_deref()))?
            .opt_str("lang", "the pair's language", rows.iter().map(|r| pair(r).lang.as_deref()))?
            .str("side", "positive or negative prompt", rows.iter().map(|r| SIDES[r.1]))?
            .int(
                "fold",
                "half of the pair; its direction is made from the other's",
                rows.iter().map(|r| self.items.fold[r.0] as i64),
            )?
            .float("coefficient", "coefficient", rows.iter().map(|r| self.x[r.2]))?
            .float("base_metric", "metric without modulation, nats", rows.iter().map(|r| measured.base[r.1][r.0]))?
            .float("metric", "metric, nats", rows.iter().map(|r| measured.metric[r.1][r.2][r.0]))?
            .float(
                "answer_effect",
                "logsumexp(answer logits) less the mean logit, modulated minus base, nats; the foil's is this less metric minus \
                 base_metric",
                rows.iter().map(|r| measured.answer[r.1][r.2][r.0]),
            )?
            .float(
                "kl_to_base",
                "KL divergence of the next token from the unmodulated run, nats",
                rows.iter().map(|r| measured.kl[r.1][r.2][r.0]),
            )?)
    }

    fn generations_table(&self) -> Result<Table, AnalysisError> {
        let rows = self.given;
        let pairs: Vec<&Pair> = rows.iter().map(|g| &self.items.pairs.dataset.items[g.pair]).collect();
        Ok(Table::new("generations")
            .str("id", "the pair", pairs.iter().map(|p| p.id.as_str()))?
            .opt_str("group", "the pair's group", pairs.iter().map(|p| p.group.as_deref()))?
            .opt_str("lang", "the pair's language", pairs.iter().map(|p| p.lang.as_deref()))?
            .str("side", "positive or negative prompt", rows.iter().map(|g| SIDES[g.side]))?
            .int(
                "direction",
                "0: the concept's; from 1 on: random directions",
                rows.iter().map(|g| g.direction as i64),
            )?
            .float("coefficient", "coefficient", rows.iter().map(|g| self.x[g.dose]))?
            .str("class", CLASS_DOC, rows.iter().map(|g| g.answer.class.name()))?
            .opt_str("rule", "the rule that decided", rows.iter().map(|g| g.answer.rule.as_deref()))?
            .flag("stopped", "whether the answer ended by itself", rows.iter().map(|g| g.answer.stopped))?
            .str("text", "the generated answer", rows.iter().map(|g| g.answer.text.as_str()))?)
    }
}
