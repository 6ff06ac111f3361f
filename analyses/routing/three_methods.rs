//! Three methods on the same heads: interchange, ablation and attribution, and what self-repair hides.
//!
//! On the positive prompts, at the last position, every head is (1) given the `z` of the pair's negative prompt
//! (interchange: what does the behaviour need of what tells the two apart?), (2) silenced (zero ablation: what does it
//! need of the head at all?), and (3) attributed (direct logit attribution: what does the head write to the logits by
//! itself?). A head that works through later heads has a small attribution however necessary it is, and one whose part
//! later components take over has a small total effect. So effects are taken apart: the *direct* one is the change of the
//! head's own attribution, each run with its own final norm (all of it, where the head is silenced); the *frozen* one is
//! the change of the metric with every later component held at its clean value, which has the final norm's answer in it
//! too; what is beyond that comes from later components, with its sign where they pass it on, against it where they repair
//! it. Sources: "How Alignment Routes" (2026); McGrath et al. 2023, "The Hydra Effect: Emergent Self-repair in Language
//! Model Computations"; Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".

mod agreement;
mod apart;
mod report;

pub use agreement::{AgreementRow, Ranks};

use super::gate::{interchanged, silenced};
use crate::analyses::components::{attributions, components};
use crate::analyses::effects::{SIGNIFICANT, Tested, family};
use crate::analyses::halves;
use crate::analyses::halves::{Asked, Halves, Value, metric_and_half};
use crate::analyses::heads::Head;
use crate::analyses::inputs::halves as halves_of;
use crate::analyses::interchange::spread;
use crate::analyses::prelude::*;
use crate::analyses::summary::less;
use crate::plan::Attribution;
use crate::stats::{bca_family, bca_ratio, ratio};
use apart::{EffectPart, Parts};
use std::collections::BTreeSet;

parameters! {
    /// Compare interchange, ablation and attribution of the same heads, and what self-repair hides
    #[serde(default)]
    pub struct ThreeMethods {
        ..pairs: PairArgs;

        /// Take apart the effects of this many heads, with later components frozen
        ///
        /// They are the strongest by interchange, and as many by attribution.
        direct: u32 = 16, [value_name = "K"];
    }
}

/// The pairs as the model reads them, and the model's heads.
pub struct Items {
    pairs: Pairs,
    heads: Vec<Head>,
}

impl Analysis for ThreeMethods {
    const NAME: &'static str = "contrast-methods";
    const TITLE: &'static str = "Three methods on the same heads";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Items;
    type Measured = Found;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        let heads = model.heads().map(|(layer, head)| Head { layer, head }).collect();
        Ok(self.pairs.read(model)?.map(|pairs| Items { pairs, heads }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Found, AnalysisError> {
        let arch = &runner.model().decoder.arch;
        let mut measured = Measured::none(items.heads.len());
        for pairs in batches(items.pairs.tokens.len(), 2 * items.heads.len()) {
            let (plan, asked) = methods_plan(items, pairs);
            let readings = runner.run(&plan)?;
            asked.iter().for_each(|of_pair| measured.add((arch.n_layers, arch.n_heads), &readings, of_pair));
        }
        let chosen = if runner.is_counting() {
            // As many from all layers cost about as much, or a little more where the methods name the same.
            spread(items.heads.len(), 2 * self.direct as usize)
        } else {
            measured.strongest(self.direct as usize)
        };
        let parts = apart::parts(runner, items, &measured, &chosen)?;
        Ok(Found { measured, parts })
    }

    fn tables(&self, about: &About, items: &Items, found: Found) -> Result<Output, AnalysisError> {
        let (Found { measured, parts }, About { model, seed, .. }) = (found, *about);
        let tested = Methods {
            interchange: family(&measured.interchange, seed)?,
            ablation: family(&measured.ablation, seed)?,
            dla: family(&measured.dla, seed)?,
        };
        let missed = missed(&measured, &tested);
        Ok(vec![
            heads_table(model, items, (&measured, seed), &tested, &parts)?,
            agreement::table(model, &measured, &halves_of(&items.pairs.dataset.items))?,
            missed_table(model, items, &measured, &tested, &missed)?,
        ]
        .into())
    }
}

/// What was found of the pairs.
pub struct Found {
    measured: Measured,
    /// One a head.
    parts: Vec<Parts>,
}

/// What is read of a pair.
struct OfPair {
    positive: Asked,
    negative: Handle<f64>,
    /// The positive prompt's attributions to the metric, and to its answer half.
    attributions: [Handle<Array>; 2],
    /// Of every head's interchange and of its ablation.
    heads: Vec<[Asked; 2]>,
}

/// Each pair's metrics and the positive prompt's attributions; then for every head the metrics of its interchange and of its
/// ablation.
fn methods_plan(items: &Items, pairs: Range<usize>) -> (Plan, Vec<OfPair>) {
    let mut plan = Plan::default();
    let of_pair = |i: usize| {
        let [positive, negative] = items.pairs.add(&mut plan, i);
        let metric = &items.pairs.tokens[i].metric;
        OfPair {
            positive: Value::ask(&mut plan, positive, metric),
            negative: plan.read(negative, metric.clone()),
            attributions: metric_and_half(metric).map(|metric| plan.read(positive, Attribution(metric))),
            heads: Vec::from_iter(items.heads.iter().map(|head| {
                [interchanged(&[*head], negative), silenced(&[*head])].map(|edits| {
                    let fork = plan.fork(positive, edits);
                    Value::ask(&mut plan, fork, metric)
                })
            })),
        }
    };
    let asked = pairs.map(of_pair).collect();
    (plan, asked)
}

/// Attribution's number among the three methods.
const ATTRIBUTION: usize = 2;

/// What the three methods say of every head in every pair: `[heads][pairs]`, nats.
#[derive(Debug, Default, PartialEq)]
struct Measured {
    positive: Vec<f64>,
    /// The answer's half of it.
    positive_answers: Vec<f64>,
    negative: Vec<f64>,
    /// Edited minus clean metric.
    interchange: Vec<Vec<f64>>,
    ablation: Vec<Vec<f64>>,
    /// Attribution in the clean run.
    dla: Vec<Vec<f64>>,
    /// The same three of the answer's half of the metric.
    answers: [Vec<Vec<f64>>; 3],
    /// Its share of the sum of all components' absolute attributions.
    shares: Vec<Vec<f64>>,
}

impl Measured {
    /// Nothing yet, of so many heads.
    fn none(heads: usize) -> Self {
        let rows = || vec![Vec::new(); heads];
        let answers = [rows(), rows(), rows()];
        Measured { interchange: rows(), ablation: rows(), dla: rows(), answers, shares: rows(), ..Measured::default() }
    }

    /// Adds a pair's readings, of a model of so many layers and heads a layer.
    fn add(&mut self, (n_layers, n_heads): (usize, usize), readings: &Readings, of_pair: &OfPair) {
        let components = components(n_layers, n_heads);
        // Heads stand among the components in their own order.
        let heads: Vec<usize> = (0..components.len()).filter(|c| components[*c].head().is_some()).collect();
        let [attributed, to_answer] = of_pair.attributions.map(|of| attributions(&readings[of], &components, n_heads));
        let total: f64 = attributed.iter().map(|v| v.abs()).sum();
        let clean = of_pair.positive.of(readings);
        self.positive.push(clean.metric);
        self.positive_answers.extend(clean.answer);
        self.negative.push(readings[of_pair.negative]);
        for ((h, c), forks) in heads.iter().enumerate().zip(&of_pair.heads) {
            let [interchange, ablation] = forks.map(|fork| clean.swap(None, fork.of(readings)));
            self.interchange[h].push(interchange.effect());
            self.ablation[h].push(ablation.effect());
            self.dla[h].push(attributed[*c]);
            let answers = [interchange.answer, ablation.answer, Some(to_answer[*c])];
            for (of_method, x) in self.answers.iter_mut().zip(answers) {
                of_method[h].extend(x);
            }
            self.shares[h].push(if total > 0.0 { attributed[*c].abs() / total } else { 0.0 });
        }
    }

    /// How far each pair's metric has to go from the positive to the negative prompt.
    fn gaps(&self) -> Vec<f64> {
        self.negative.iter().zip(&self.positive).map(|(n, p)| n - p).collect()
    }

    /// The `n` strongest heads by interchange and the `n` strongest by attribution, ascending.
    fn strongest(&self, n: usize) -> Vec<usize> {
        let of = |rows: &[Vec<f64>]| order(&means(rows)).into_iter().take(n);
        of(&self.interchange).chain(of(&self.dla)).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The means of rows.
fn means(rows: &[Vec<f64>]) -> Vec<f64> {
    rows.iter().map(|x| mean(x).unwrap_or(0.0)).collect()
}

/// The numbers of the entries, the largest absolute first.
fn order(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()));
    order
}

/// Each entry's rank by absolute value, from 1.
fn ranks(values: &[f64]) -> Vec<i64> {
    let mut ranks = vec![0; values.len()];
    order(values).into_iter().enumerate().for_each(|(rank, i)| ranks[i] = rank as i64 + 1);
    ranks
}

/// The tests of every head by each method.
struct Methods {
    interchange: Vec<Tested>,
    ablation: Vec<Tested>,
    dla: Vec<Tested>,
}

rows! {
    /// What one method says of a head.
    #[derive(Copy)]
    pub struct Method {
        mean: Option<f64> = "mean {}, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of that mean's 95 % BCa interval, nats",
            "upper end of that mean's 95 % BCa interval, nats",
        ],
        p: Option<f64> = "two-sided sign-flip permutation p-value of that mean",
        q: Option<f64> = "Benjamini-Hochberg q-value over all heads",
        p_max: Option<f64> =
            "family-wise p-value by the max statistic over all heads: it holds for a head that was picked on these pairs too",
    }

    /// An effect as a share of the mean gap, with an interval that the gap's own uncertainty is in.
    #[derive(Copy)]
    pub struct Crossed {
        share: Option<f64> as "" = "that mean as a share of the mean gap, negative minus positive prompt's metric",
        interval: Option<(f64, f64)> [newer] as "_ci_" = [
            "lower end of that share's 95 % BCa interval over pairs, effect and gap resampled together; empty where the gap is \
             not beyond chance",
            "its upper end",
        ],
    }

    /// A head under each method.
    pub struct HeadRow<'a> in "heads" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0",
        n: i64 = "pairs",
        positive_mean: Option<f64> = "mean metric of the positive prompts, nats",
        negative_mean: Option<f64> = "mean metric of the negative prompts, nats",
        interchange: Method as "interchange_" = "effect of z from the negative prompt, edited minus clean metric",
        rank_interchange: i64 = "rank of the absolute mean; 1 is the largest",
        interchange_crossed: Crossed as "interchange_crossed",
        ablation: Method as "ablation_" = "effect of z set to zero, edited minus clean metric",
        rank_ablation: i64 = "rank of the absolute mean; 1 is the largest",
        ablation_crossed: Crossed as "ablation_crossed",
        dla: Method as "dla_" = "attribution in the clean run",
        rank_dla: i64 = "rank of the absolute mean; 1 is the largest",
        dla_share: Option<f64> = "mean share of the sum of all components' absolute attributions",
        dla_share_interval: Option<(f64, f64)> as "dla_share_ci_" =
            ["lower end of its 95 % BCa interval", "upper end of its 95 % BCa interval"],
        ablation_direct_mean: Option<f64> =
            "direct part of the ablation's effect: the attribution with its sign turned, nats",
        ablation_repair_mean: Option<f64> =
            "effect of ablation less its direct part: what the final norm and later components change, nats",
        ablation_frozen_mean: Option<f64> =
            "effect of ablation with every later component frozen, the final norm free, nats; empty where it was not run",
        interchange_direct_mean: Option<f64> =
            "direct part of the interchange's effect: change of the head's own attribution, each run with its own final \
             norm, nats; empty where it was not run",
        interchange_repair_mean: Option<f64> =
            "effect of interchange less its direct part: what the final norm and later components change, nats",
        interchange_frozen_mean: Option<f64> =
            "effect of interchange with every later component frozen, the final norm free, nats; empty where it was not run",
        interchange_halves: Halves [newer] as "interchange" = "with z from the negative prompt, edited minus clean",
        ablation_halves: Halves [newer] as "ablation" = "with z set to zero, edited minus clean",
        dla_halves: Halves [newer] as "dla" = "attribution to",
        ablation_direct_halves: Halves [newer] as "ablation_direct" = "with its sign turned, attribution to",
        ablation_frozen_halves: Halves [newer] as "ablation_frozen" =
            "with z set to zero and every later component frozen, edited minus clean",
        interchange_direct_halves: Halves [newer] as "interchange_direct" =
            "with z from the negative prompt, change of the head's own attribution to",
        interchange_frozen_halves: Halves [newer] as "interchange_frozen" =
            "with z from the negative prompt and every later component frozen, edited minus clean",
        ablation_repair_halves: Halves [newer] as "ablation_repair" =
            "with z set to zero, what the final norm and later components change of",
        interchange_repair_halves: Halves [newer] as "interchange_repair" =
            "with z from the negative prompt, what the final norm and later components change of",
    }

    /// A head that interchange finds.
    pub struct MissedRow<'a> in "missed" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0",
        n: i64 = "pairs",
        interchange_mean: Option<f64> = "mean effect of interchange, nats",
        share_of_gap: Option<f64> = "that over the mean gap between the negative and the positive prompts' metrics",
        ablation_mean: Option<f64> = "mean effect of zero ablation, nats",
        ablation_q: Option<f64> = "Benjamini-Hochberg q-value of it over all heads",
        dla_share: Option<f64> = "mean share of the sum of absolute attributions",
        ablation_misses: bool = "whether its ablation does not move the metric the same way with q < 0.05",
        dla_misses: bool = "whether attribution has it not among as many of its strongest heads as interchange finds",
    }
}

fn heads_table(
    model: &str,
    items: &Items,
    (measured, seed): (&Measured, u64),
    tested: &Methods,
    parts: &[Parts],
) -> Result<Table, AnalysisError> {
    let whole = [&measured.interchange, &measured.ablation, &measured.dla];
    let [by_interchange, by_ablation, by_dla] = whole.map(|values| ranks(&means(values)));
    let [interchange_halves, ablation_halves, dla_halves] =
        std::array::from_fn(|method| both_halves(&measured.answers[method], whole[method], seed));
    let removed = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
        rows.iter().map(|x| x.iter().map(|attribution| -attribution).collect()).collect()
    };
    let ablation_direct = both_halves(&removed(&measured.answers[ATTRIBUTION]), &removed(&measured.dla), seed);
    let [interchange_direct, interchange_frozen, ablation_frozen] =
        [EffectPart::InterchangeDirect, EffectPart::InterchangeFrozen, EffectPart::AblationFrozen]
            .map(|part| part_over_pairs(parts, part, seed));
    let [of_interchange, of_ablation, _] = &measured.answers;
    let direct = |of: usize| -> Vec<Vec<f64>> {
        parts.iter().map(|parts| parts.of(EffectPart::InterchangeDirect)[of].to_vec()).collect()
    };
    let ablation_repair = both_halves(
        &beyond(of_ablation, &removed(&measured.answers[ATTRIBUTION])),
        &beyond(&measured.ablation, &removed(&measured.dla)),
        seed,
    );
    let interchange_repair =
        both_halves(&beyond(of_interchange, &direct(1)), &beyond(&measured.interchange, &direct(0)), seed);
    let shares = bca_family(&measured.shares, &Bootstrap { seed, ..Bootstrap::default() });
    let row = |h: usize| {
        let [interchange, ablation, dla] = whole.map(|values| mean(&values[h]).unwrap_or(0.0));
        let head = items.heads[h];
        let of_interchange = interchange_direct[h].0;
        HeadRow {
            model,
            layer: head.layer as i64,
            head: head.head as i64,
            n: measured.positive.len() as i64,
            positive_mean: mean(&measured.positive),
            negative_mean: mean(&measured.negative),
            interchange: Method::of(interchange, &tested.interchange[h]),
            rank_interchange: by_interchange[h],
            interchange_crossed: crossed(&measured.interchange[h], measured, seed),
            ablation: Method::of(ablation, &tested.ablation[h]),
            rank_ablation: by_ablation[h],
            ablation_crossed: crossed(&measured.ablation[h], measured, seed),
            dla: Method::of(dla, &tested.dla[h]),
            rank_dla: by_dla[h],
            dla_share: mean(&measured.shares[h]),
            dla_share_interval: shares[h].map(Interval::ends),
            ablation_direct_mean: Some(-dla),
            ablation_repair_mean: Some(ablation - -dla),
            ablation_frozen_mean: ablation_frozen[h].0,
            interchange_direct_mean: of_interchange,
            interchange_repair_mean: of_interchange.map(|direct| interchange - direct),
            interchange_frozen_mean: interchange_frozen[h].0,
            interchange_halves: interchange_halves[h],
            ablation_halves: ablation_halves[h],
            dla_halves: dla_halves[h],
            ablation_direct_halves: ablation_direct[h],
            ablation_frozen_halves: ablation_frozen[h].1,
            interchange_direct_halves: interchange_direct[h].1,
            interchange_frozen_halves: interchange_frozen[h].1,
            ablation_repair_halves: ablation_repair[h],
            interchange_repair_halves: interchange_repair[h],
        }
    };
    Ok(HeadRow::table((0..items.heads.len()).map(row))?)
}

impl Method {
    fn of(mean: f64, tested: &Tested) -> Self {
        let Tested { interval, p, q, p_max } = *tested;
        Method { mean: Some(mean), interval, p, q, p_max }
    }
}

/// One head's effects as a share of the mean gap.
fn crossed(effects: &[f64], measured: &Measured, seed: u64) -> Crossed {
    let (gaps, options) = (measured.gaps(), Bootstrap { seed, ..Bootstrap::default() });
    Crossed { share: ratio(effects, &gaps), interval: bca_ratio(effects, &gaps, &options).map(Interval::ends) }
}

/// Both halves of one method's effects or attributions.
fn both_halves(answers: &[Vec<f64>], whole: &[Vec<f64>], seed: u64) -> Vec<Halves> {
    let foils: Vec<Vec<f64>> = answers.iter().zip(whole).map(|(answer, whole)| less(answer, whole)).collect();
    halves::over_items(answers, &foils, seed)
}

/// Effects less their direct part, pair by pair; nothing of a head that was not run.
fn beyond(effects: &[Vec<f64>], direct: &[Vec<f64>]) -> Vec<Vec<f64>> {
    effects.iter().zip(direct).map(|(effects, direct)| less(effects, direct)).collect()
}

/// A part's mean of each head, and its halves; none of heads that were not run.
fn part_over_pairs(parts: &[Parts], part: EffectPart, seed: u64) -> Vec<(Option<f64>, Halves)> {
    let rows = |of: usize| -> Vec<Vec<f64>> { parts.iter().map(|parts| parts.of(part)[of].to_vec()).collect() };
    let (whole, answers) = (rows(0), rows(1));
    let halves = both_halves(&answers, &whole, seed);
    whole.iter().map(|x| mean(x)).zip(halves).collect()
}

/// A head that interchange finds, and which other methods do.
struct Missed {
    head: usize,
    by_ablation: bool,
    by_attribution: bool,
}

/// The heads whose interchange moves the metric towards the negative prompts beyond chance, the strongest first. Attribution
/// is asked for as many: a mark on the share of attributions would depend on how many heads a model has.
fn missed(measured: &Measured, tested: &Methods) -> Vec<Missed> {
    let gap: f64 = measured.gaps().iter().sum();
    let (interchange, ablation) = (means(&measured.interchange), means(&measured.ablation));
    let significant = |t: &Tested| t.q.is_some_and(|q| q < SIGNIFICANT);
    let found = |h: &usize| significant(&tested.interchange[*h]) && interchange[*h] * gap > 0.0;
    let found: Vec<usize> = order(&interchange).into_iter().filter(found).collect();
    let attributed: Vec<usize> = order(&means(&measured.dla)).into_iter().take(found.len()).collect();
    let row = |head: &usize| Missed {
        head: *head,
        by_ablation: !(significant(&tested.ablation[*head]) && ablation[*head] * gap > 0.0),
        by_attribution: !attributed.contains(head),
    };
    found.iter().map(row).collect()
}

fn missed_table(
    model: &str,
    items: &Items,
    measured: &Measured,
    tested: &Methods,
    missed: &[Missed],
) -> Result<Table, AnalysisError> {
    let gaps = measured.gaps();
    Ok(MissedRow::table(missed.iter().map(|m| MissedRow {
        model,
        layer: items.heads[m.head].layer as i64,
        head: items.heads[m.head].head as i64,
        n: measured.positive.len() as i64,
        interchange_mean: mean(&measured.interchange[m.head]),
        share_of_gap: ratio(&measured.interchange[m.head], &gaps),
        ablation_mean: mean(&measured.ablation[m.head]),
        ablation_q: tested.ablation[m.head].q,
        dla_share: mean(&measured.shares[m.head]),
        ablation_misses: m.by_ablation,
        dla_misses: m.by_attribution,
    }))?)
}

#[cfg(test)]
mod tests;
