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

use super::gate::{Head, interchanged, silenced};
use crate::analyses::components::{attributions, components};
use crate::analyses::effects::{SIGNIFICANT, Tested, family};
use crate::analyses::halves::Value;
use crate::analyses::inputs::{PairArgs, Pairs, halves as halves_of};
use crate::analyses::interchange::spread;
use crate::analyses::scored::Scored;
use crate::analyses::summary::{less, mean};
use crate::analyses::{Analysis, AnalysisError, Figures, Output, Plans, batches, halves, planned};
use crate::model::Model;
use crate::plan::{Plan, What};
use crate::report::Section;
use crate::run::Reading;
use crate::session::Session;
use crate::stats::{Bootstrap, bca_family, bca_ratio, ratio};
use crate::table::Table;
use apart::Parts;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

/// Compare interchange, ablation and attribution of the same heads, and what self-repair hides
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default)]
pub struct ThreeMethods {
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub pairs: PairArgs,

    /// Take apart the effects of this many heads, with later components frozen
    ///
    /// They are the strongest by interchange, and as many by attribution.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = Self::default().direct, value_name = "K"))]
    pub direct: u32,
}

impl Default for ThreeMethods {
    fn default() -> Self {
        ThreeMethods { pairs: PairArgs::default(), direct: 16 }
    }
}

/// The pairs as the model reads them, and the model's heads.
pub struct Items {
    pairs: Pairs,
    heads: Vec<Head>,
}

impl Analysis for ThreeMethods {
    const NAME: &'static str = "contrast-methods";
    const ABOUT: &'static str =
        "Compare interchange, ablation and attribution of the same heads, and what self-repair hides";
    const TITLE: &'static str = "Three methods on the same heads";
    type Items = Items;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        let heads = model.heads().map(|(layer, head)| Head { layer, head }).collect();
        Ok(Items { pairs: self.pairs.read(model)?, heads })
    }

    fn datasets(items: &Items) -> Vec<(String, String)> {
        items.pairs.sources.clone()
    }

    fn scored(items: &Items) -> &Scored {
        &items.pairs.scored
    }

    fn plans<'a>(&'a self, model: &'a Model, items: &'a Items) -> Result<Plans<'a>, AnalysisError> {
        // Which heads are the strongest is known later; as many from all layers cost about as much, or a little more where the
        // methods name the same.
        let chosen = spread(items.heads.len(), 2 * self.direct as usize);
        Ok(planned(methods_plans(items).chain(apart::plans(items, model.decoder.arch.n_layers, chosen))))
    }

    fn compute(&self, session: &Session, items: &Items) -> Result<Output, AnalysisError> {
        let arch = &session.model.decoder.arch;
        let mut measured = Measured::none(items.heads.len());
        for plan in methods_plans(items) {
            measured.add((arch.n_layers, arch.n_heads), &session.run(&plan)?);
        }
        let parts = apart::parts(session, items, &measured, &measured.strongest(self.direct as usize))?;
        let tested = Methods {
            interchange: family(&measured.interchange, session.seed)?,
            ablation: family(&measured.ablation, session.seed)?,
            dla: family(&measured.dla, session.seed)?,
        };
        let model = session.model.name.as_str();
        let missed = missed(&measured, &tested);
        Ok(vec![
            heads_table(model, items, (&measured, session.seed), &tested, &parts)?,
            agreement::table(model, &measured, &halves_of(&items.pairs.dataset.items))?,
            missed_table(model, items, &measured, &tested, &missed)?,
        ]
        .into())
    }

    fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
        report::figures(tables)
    }

    fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
        report::sections(tables, dir)
    }
}

/// Readouts of a pair before those of its forks, in [`methods_plan`].
const OF_PAIR: usize = 5;

/// Readouts of a head's two forks: of each the metric and its answer half.
const OF_HEAD: usize = 4;

/// [`methods_plan`]s of all pairs, some pairs in each.
fn methods_plans(items: &Items) -> impl Iterator<Item = Plan> {
    let forks = 2 * items.heads.len();
    batches(items.pairs.tokens.len(), forks).map(|pairs| methods_plan(items, pairs))
}

/// Each pair's positive metric with its answer half, its negative one, and the positive prompt's attributions to either; then for
/// every head the metrics of its interchange and of its ablation, each with its answer half.
fn methods_plan(items: &Items, pairs: Range<usize>) -> Plan {
    let mut plan = Plan::default();
    for i in pairs {
        let [positive, negative] = items.pairs.add(&mut plan, i);
        let metric = &items.pairs.tokens[i].metric;
        Value::read(&mut plan, positive, metric);
        plan.read(negative, What::Metric(metric.clone()));
        // Pairs' metrics are logit differences.
        for metric in [Some(metric.clone()), metric.answer_half()].into_iter().flatten() {
            plan.read(positive, What::Attribution(metric));
        }
        for head in &items.heads {
            for edits in [interchanged(&[*head], negative), silenced(&[*head])] {
                let fork = plan.fork(positive, edits);
                Value::read(&mut plan, fork, metric);
            }
        }
    }
    plan
}

/// What the three methods say of every head in every pair: `[heads][pairs]`, nats.
#[derive(Debug, Default, PartialEq)]
struct Measured {
    positive: Vec<f64>,
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
    /// Of no pairs yet.
    fn none(heads: usize) -> Self {
        let rows = || vec![Vec::new(); heads];
        let answers = [rows(), rows(), rows()];
        Measured { interchange: rows(), ablation: rows(), dla: rows(), answers, shares: rows(), ..Measured::default() }
    }

    /// Adds some pairs' readings of [`methods_plan`], of a model of so many layers and heads a layer.
    fn add(&mut self, (n_layers, n_heads): (usize, usize), readings: &[Reading]) {
        let components = components(n_layers, n_heads);
        // Heads stand among the components in their own order.
        let heads: Vec<usize> = (0..components.len()).filter(|c| components[*c].head().is_some()).collect();
        for of_pair in readings.chunks_exact(OF_PAIR + OF_HEAD * heads.len()) {
            let number = |k: usize| of_pair[k].number().unwrap_or(f64::NAN);
            let attributed = attributions(&of_pair[3], &components, n_heads);
            let to_answer = attributions(&of_pair[4], &components, n_heads);
            let total: f64 = attributed.iter().map(|v| v.abs()).sum();
            self.positive.push(number(0));
            self.negative.push(number(2));
            for (h, c) in heads.iter().enumerate() {
                // Of the metric, or of its answer half, which stand one after the other for the prompt as for its forks.
                let change = |fork: usize, half: usize| number(OF_PAIR + OF_HEAD * h + 2 * fork + half) - number(half);
                self.interchange[h].push(change(0, 0));
                self.ablation[h].push(change(1, 0));
                self.dla[h].push(attributed[*c]);
                for (answers, x) in self.answers.iter_mut().zip([change(0, 1), change(1, 1), to_answer[*c]]) {
                    answers[h].push(x);
                }
                self.shares[h].push(if total > 0.0 { attributed[*c].abs() / total } else { 0.0 });
            }
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

fn heads_table(
    model: &str,
    items: &Items,
    (measured, seed): (&Measured, u64),
    tested: &Methods,
    parts: &[Parts],
) -> Result<Table, AnalysisError> {
    let n = items.heads.len();
    let table = Table::new("heads")
        .str("model", "the model, as it was named", (0..n).map(|_| model))?
        .int("layer", "layer, from 0", items.heads.iter().map(|h| h.layer as i64))?
        .int("head", "head, from 0", items.heads.iter().map(|h| h.head as i64))?
        .int("n", "pairs", (0..n).map(|_| measured.positive.len() as i64))?
        .float("positive_mean", "mean metric of the positive prompts, nats", (0..n).map(|_| mean(&measured.positive)))?
        .float(
            "negative_mean",
            "mean metric of the negative prompts, nats",
            (0..n).map(|_| mean(&measured.negative)),
        )?;
    let what = "effect of z from the negative prompt, edited minus clean metric";
    let table = method_columns(table, ("interchange", what), &measured.interchange, &tested.interchange)?;
    let table = crossed_columns(table, "interchange", &measured.interchange, (measured, seed))?;
    let what = "effect of z set to zero, edited minus clean metric";
    let table = method_columns(table, ("ablation", what), &measured.ablation, &tested.ablation)?;
    let table = crossed_columns(table, "ablation", &measured.ablation, (measured, seed))?;
    let table = method_columns(table, ("dla", "attribution in the clean run"), &measured.dla, &tested.dla)?;
    let shares = bca_family(&measured.shares, &Bootstrap { seed, ..Bootstrap::default() });
    let table = table
        .float(
            "dla_share",
            "mean share of the sum of all components' absolute attributions",
            measured.shares.iter().map(|x| mean(x)),
        )?
        .float("dla_share_ci_low", "lower end of its 95 % BCa interval", shares.iter().map(|i| i.map(|i| i.low)))?
        .float("dla_share_ci_high", "upper end of its 95 % BCa interval", shares.iter().map(|i| i.map(|i| i.high)))?;
    halves_columns(parts_columns(table, measured, parts)?, measured, seed)
}

/// Both halves of each method's effects or attributions.
fn halves_columns(mut table: Table, measured: &Measured, seed: u64) -> Result<Table, AnalysisError> {
    let whole = [&measured.interchange, &measured.ablation, &measured.dla];
    let methods = [
        ("interchange", "with z from the negative prompt, edited minus clean"),
        ("ablation", "with z set to zero, edited minus clean"),
        ("dla", "attribution to"),
    ];
    for ((method, answers), whole) in methods.into_iter().zip(&measured.answers).zip(whole) {
        let foils: Vec<Vec<f64>> = answers.iter().zip(whole).map(|(answer, whole)| less(answer, whole)).collect();
        table = halves::columns(table, method.0, method.1, [answers, &foils], seed)?;
    }
    Ok(table)
}

/// One method's mean of every head, with its interval, test and rank.
fn method_columns(
    table: Table,
    (name, what): (&str, &str),
    values: &[Vec<f64>],
    tested: &[Tested],
) -> Result<Table, AnalysisError> {
    let end = |which: &str| format!("{which} end of that mean's 95 % BCa interval, nats");
    Ok(table
        .float(&format!("{name}_mean"), &format!("mean {what}, nats"), means(values))?
        .float(&format!("{name}_ci_low"), &end("lower"), tested.iter().map(|t| t.interval.map(|i| i.0)))?
        .float(&format!("{name}_ci_high"), &end("upper"), tested.iter().map(|t| t.interval.map(|i| i.1)))?
        .float(
            &format!("{name}_p"),
            "two-sided sign-flip permutation p-value of that mean",
            tested.iter().map(|t| t.p),
        )?
        .float(&format!("{name}_q"), "Benjamini-Hochberg q-value over all heads", tested.iter().map(|t| t.q))?
        .float(
            &format!("{name}_p_max"),
            "family-wise p-value by the max statistic over all heads: it holds for a head that was picked on these pairs too",
            tested.iter().map(|t| t.p_max),
        )?
        .int(&format!("rank_{name}"), "rank of the absolute mean; 1 is the largest", ranks(&means(values)))?)
}

/// One method's effects as shares of the mean gap, with intervals that the gap's own uncertainty is in.
fn crossed_columns(
    table: Table,
    name: &str,
    effects: &[Vec<f64>],
    (measured, seed): (&Measured, u64),
) -> Result<Table, AnalysisError> {
    let gaps = measured.gaps();
    let options = Bootstrap { seed, ..Bootstrap::default() };
    let ends: Vec<_> = effects.iter().map(|effects| bca_ratio(effects, &gaps, &options)).collect();
    Ok(table
        .float(
            &format!("{name}_crossed"),
            "that mean as a share of the mean gap, negative minus positive prompt's metric",
            effects.iter().map(|effects| ratio(effects, &gaps)),
        )?
        .float(
            &format!("{name}_crossed_ci_low"),
            "lower end of that share's 95 % BCa interval over pairs, effect and gap resampled together; empty where the gap is \
             not beyond chance",
            ends.iter().map(|i| i.map(|i| i.low)),
        )?
        .float(&format!("{name}_crossed_ci_high"), "its upper end", ends.iter().map(|i| i.map(|i| i.high)))?)
}

/// Effects taken apart.
fn parts_columns(table: Table, measured: &Measured, parts: &[Parts]) -> Result<Table, AnalysisError> {
    let [interchange, ablation, dla] = [&measured.interchange, &measured.ablation, &measured.dla].map(|x| means(x));
    let beyond = |total: &[f64], part: &dyn Fn(usize) -> Option<f64>| -> Vec<Option<f64>> {
        (0..total.len()).map(|h| Some(total[h] - part(h)?)).collect()
    };
    Ok(table
        .float(
            "ablation_direct_mean",
            "direct part of the ablation's effect: the attribution with its sign turned, nats",
            dla.iter().map(|x| -x),
        )?
        .float(
            "ablation_repair_mean",
            "effect of ablation less its direct part: what the final norm and later components change, nats",
            beyond(&ablation, &|h| Some(-dla[h])),
        )?
        .float(
            "ablation_frozen_mean",
            "effect of ablation with every later component frozen, the final norm free, nats; empty where it was not run",
            parts.iter().map(|p| p.ablation_frozen),
        )?
        .float(
            "interchange_direct_mean",
            "direct part of the interchange's effect: change of the head's own attribution, each run with its own final \
             norm, nats; empty where it was not run",
            parts.iter().map(|p| p.interchange_direct),
        )?
        .float(
            "interchange_repair_mean",
            "effect of interchange less its direct part: what the final norm and later components change, nats",
            beyond(&interchange, &|h| parts[h].interchange_direct),
        )?
        .float(
            "interchange_frozen_mean",
            "effect of interchange with every later component frozen, the final norm free, nats; empty where it was not run",
            parts.iter().map(|p| p.interchange_frozen),
        )?)
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
    let head = |m: &Missed| items.heads[m.head];
    let of = |rows: &[Vec<f64>]| missed.iter().map(|m| mean(&rows[m.head])).collect::<Vec<_>>();
    let gaps = measured.gaps();
    Ok(Table::new("missed")
        .str("model", "the model, as it was named", missed.iter().map(|_| model))?
        .int("layer", "layer, from 0", missed.iter().map(|m| head(m).layer as i64))?
        .int("head", "head, from 0", missed.iter().map(|m| head(m).head as i64))?
        .int("n", "pairs", missed.iter().map(|_| measured.positive.len() as i64))?
        .float("interchange_mean", "mean effect of interchange, nats", of(&measured.interchange))?
        .float(
            "share_of_gap",
            "that over the mean gap between the negative and the positive prompts' metrics",
            missed.iter().map(|m| ratio(&measured.interchange[m.head], &gaps)),
        )?
        .float("ablation_mean", "mean effect of zero ablation, nats", of(&measured.ablation))?
        .float(
            "ablation_q",
            "Benjamini-Hochberg q-value of it over all heads",
            missed.iter().map(|m| tested.ablation[m.head].q),
        )?
        .float("dla_share", "mean share of the sum of absolute attributions", of(&measured.shares))?
        .flag(
            "ablation_misses",
            "whether its ablation does not move the metric the same way with q < 0.05",
            missed.iter().map(|m| m.by_ablation),
        )?
        .flag(
            "dla_misses",
            "whether attribution has it not among as many of its strongest heads as interchange finds",
            missed.iter().map(|m| m.by_attribution),
        )?)
}

#[cfg(test)]
mod tests;
