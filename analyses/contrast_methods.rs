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

mod apart;
mod report;

use super::components::{attributions, components};
use super::effects::{SIGNIFICANT, Tested, family};
use super::gate::{Head, interchanged, silenced};
use super::inputs::{PairArgs, Pairs};
use super::summary::mean;
use super::{Analysis, AnalysisError, Figures, Output, Plans, planned};
use crate::model::Model;
use crate::plan::{Plan, What};
use crate::report::Section;
use crate::run::Reading;
use crate::session::Session;
use crate::stats::{Bootstrap, Interval, bca, bca_family, overlap_p, spearman};
use crate::table::Table;
use apart::Parts;
use std::path::Path;

/// How many heads of each method are compared.
const TOP: usize = 10;

/// From this share of the sum of absolute attributions on, attribution is taken to find a head.
const FOUND_SHARE: f64 = 0.01;

/// Resamples of pairs for the intervals of correlations, each of which ranks all heads.
const RESAMPLES: usize = 2000;

/// Interchange, ablation and attribution of the same heads, and what self-repair hides
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct ContrastMethods {
    #[command(flatten)]
    #[serde(flatten)]
    pub pairs: PairArgs,

    /// How many heads, the strongest by interchange, have their effects taken apart by runs with later components frozen
    #[arg(long, default_value_t = 16, value_name = "K")]
    pub direct: u32,
}

/// The pairs as the model reads them, and the model's heads.
pub struct Items {
    pairs: Pairs,
    heads: Vec<Head>,
}

impl Analysis for ContrastMethods {
    const NAME: &'static str = "contrast-methods";
    const ABOUT: &'static str = "Interchange, ablation and attribution of the same heads, and what self-repair hides";
    const TITLE: &'static str = "Three methods on the same heads";
    type Items = Items;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        let heads = model.heads().map(|(layer, head)| Head { layer, head }).collect();
        Ok(Items { pairs: self.pairs.read(model)?, heads })
    }

    fn datasets(items: &Items) -> Vec<(String, String)> {
        items.pairs.sources.clone()
    }

    fn plans<'a>(&'a self, model: &'a Model, items: &'a Items) -> Result<Plans<'a>, AnalysisError> {
        // Which heads are the strongest is known later; as many from all layers cost about as much.
        let (all, some) = (items.heads.len(), (self.direct as usize).min(items.heads.len()));
        let chosen: Vec<usize> = (0..some).map(|k| k * all / some).collect();
        Ok(planned([methods_plan(items), apart::plan(items, model.decoder.arch.n_layers, &chosen)]))
    }

    fn compute(&self, session: &Session, items: &Items) -> Result<Output, AnalysisError> {
        let measured = Measured::of(session.model, items, &session.run(&methods_plan(items))?);
        let by_strength = order(&means(&measured.interchange));
        let chosen: Vec<usize> = by_strength.into_iter().take(self.direct as usize).collect();
        let readings = match chosen.is_empty() {
            true => Vec::new(),
            false => session.run(&apart::plan(items, session.model.decoder.arch.n_layers, &chosen))?,
        };
        let parts = apart::parts(items, &measured, &chosen, &readings);
        let tested = Methods {
            interchange: family(&measured.interchange, session.seed)?,
            ablation: family(&measured.ablation, session.seed)?,
            dla: family(&measured.dla, session.seed)?,
        };
        let model = session.model.name.as_str();
        let missed = missed(&measured, &tested);
        Ok(vec![
            heads_table(model, items, (&measured, session.seed), &tested, &parts)?,
            agreement_table(model, &measured, session.seed)?,
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
const OF_PAIR: usize = 3;

/// Each pair's two metrics and the positive prompt's attributions, then for every head the metrics of its interchange and
/// of its ablation.
fn methods_plan(items: &Items) -> Plan {
    let mut plan = Plan::default();
    for (i, tokens) in items.pairs.tokens.iter().enumerate() {
        let [positive, negative] = items.pairs.add(&mut plan, i);
        let metric = || What::Metric(tokens.metric.clone());
        plan.read(positive, metric());
        plan.read(negative, metric());
        plan.read(positive, What::Attribution(tokens.metric.clone()));
        for head in &items.heads {
            for edits in [interchanged(&[*head], negative), silenced(&[*head])] {
                let fork = plan.fork(positive, edits);
                plan.read(fork, metric());
            }
        }
    }
    plan
}

/// What the three methods say of every head in every pair: `[heads][pairs]`, nats.
struct Measured {
    positive: Vec<f64>,
    negative: Vec<f64>,
    /// Edited minus clean metric.
    interchange: Vec<Vec<f64>>,
    ablation: Vec<Vec<f64>>,
    /// Attribution in the clean run.
    dla: Vec<Vec<f64>>,
    /// Its share of the sum of all components' absolute attributions.
    shares: Vec<Vec<f64>>,
}

impl Measured {
    fn of(model: &Model, items: &Items, readings: &[Reading]) -> Self {
        let (arch, n) = (&model.decoder.arch, items.heads.len());
        let of_pair: Vec<&[Reading]> = readings.chunks_exact(OF_PAIR + 2 * n).collect();
        let number = |r: &[Reading], k: usize| r[k].number().unwrap_or(f64::NAN);
        let metrics = |k: usize| -> Vec<f64> { of_pair.iter().map(|r| number(r, k)).collect() };
        let effects = |k: usize| -> Vec<Vec<f64>> {
            let of_head = |h: usize| of_pair.iter().map(|r| number(r, OF_PAIR + 2 * h + k) - number(r, 0)).collect();
            (0..n).map(of_head).collect()
        };
        let components = components(arch.n_layers, arch.n_heads);
        let attributed: Vec<Vec<f64>> =
            of_pair.iter().map(|r| attributions(&r[2], &components, arch.n_heads)).collect();
        // Heads stand among the components in their own order.
        let heads: Vec<usize> = (0..components.len()).filter(|c| components[*c].head().is_some()).collect();
        let dla = heads.iter().map(|c| attributed.iter().map(|a| a[*c]).collect()).collect();
        let share = |a: &Vec<f64>, c: usize| {
            let total: f64 = a.iter().map(|v| v.abs()).sum();
            if total > 0.0 { a[c].abs() / total } else { 0.0 }
        };
        let shares = heads.iter().map(|c| attributed.iter().map(|a| share(a, *c)).collect()).collect();
        Measured {
            positive: metrics(0),
            negative: metrics(1),
            interchange: effects(0),
            ablation: effects(1),
            dla,
            shares,
        }
    }

    /// How far the metric has to go from the positive to the negative prompt.
    fn gap(&self) -> f64 {
        mean(&self.negative).unwrap_or(0.0) - mean(&self.positive).unwrap_or(0.0)
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
    let what = "effect of z set to zero, edited minus clean metric";
    let table = method_columns(table, ("ablation", what), &measured.ablation, &tested.ablation)?;
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
    parts_columns(table, measured, parts)
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
        .int(&format!("rank_{name}"), "rank of the absolute mean; 1 is the largest", ranks(&means(values)))?)
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

/// Two methods side by side.
struct Agreement {
    first: &'static str,
    second: &'static str,
    size: Option<f64>,
    size_interval: Option<Interval>,
    signed: Option<f64>,
    signed_interval: Option<Interval>,
    overlap: usize,
}

fn agreement_table(model: &str, measured: &Measured, seed: u64) -> Result<Table, AnalysisError> {
    let turned: Vec<Vec<f64>> = measured.dla.iter().map(|x| x.iter().map(|v| -v).collect()).collect();
    let methods = [("interchange", &measured.interchange), ("ablation", &measured.ablation), ("attribution", &turned)];
    let rows: Vec<Agreement> =
        [(0, 1), (0, 2), (1, 2)].into_iter().map(|(a, b)| agreement(methods[a], methods[b], seed)).collect();
    let (heads, n) = (measured.dla.len(), measured.positive.len());
    let top = TOP.min(heads);
    let low = |i: &Option<Interval>| i.map(|i| i.low);
    let high = |i: &Option<Interval>| i.map(|i| i.high);
    Ok(Table::new("agreement")
        .str("model", "the model, as it was named", rows.iter().map(|_| model))?
        .str("first", "interchange, ablation or attribution", rows.iter().map(|r| r.first))?
        .str("second", "the method it is compared to", rows.iter().map(|r| r.second))?
        .int("n", "pairs", rows.iter().map(|_| n as i64))?
        .int("heads", "heads that are compared", rows.iter().map(|_| heads as i64))?
        .float("spearman_size", "rank correlation of the heads' absolute means", rows.iter().map(|r| r.size))?
        .float(
            "spearman_size_ci_low",
            "lower end of its 95 % BCa interval over pairs (2000 resamples)",
            rows.iter().map(|r| low(&r.size_interval)),
        )?
        .float(
            "spearman_size_ci_high",
            "upper end of its 95 % BCa interval over pairs (2000 resamples)",
            rows.iter().map(|r| high(&r.size_interval)),
        )?
        .float(
            "spearman_signed",
            "rank correlation of the heads' means with their signs; attributions with theirs turned: what silencing the \
             head takes away directly",
            rows.iter().map(|r| r.signed),
        )?
        .float(
            "spearman_signed_ci_low",
            "lower end of its 95 % BCa interval over pairs (2000 resamples)",
            rows.iter().map(|r| low(&r.signed_interval)),
        )?
        .float(
            "spearman_signed_ci_high",
            "upper end of its 95 % BCa interval over pairs (2000 resamples)",
            rows.iter().map(|r| high(&r.signed_interval)),
        )?
        .int("top", "how many of the strongest heads of each are compared", rows.iter().map(|_| top as i64))?
        .int("overlap", "how many of them both have", rows.iter().map(|r| r.overlap as i64))?
        .float(
            "overlap_expected",
            "how many two random choices would share in the mean",
            rows.iter().map(|_| (top * top) as f64 / heads as f64),
        )?
        .float(
            "overlap_p",
            "chance that two random choices share as many or more (hypergeometric)",
            rows.iter().map(|r| overlap_p(heads, top, top, r.overlap)),
        )?)
}

type Method<'a> = (&'static str, &'a Vec<Vec<f64>>);

fn agreement((first, a): Method, (second, b): Method, seed: u64) -> Agreement {
    let pairs: Vec<usize> = (0..a.first().map_or(0, Vec::len)).collect();
    let over = |rows: &[Vec<f64>], pairs: &[usize], size: bool| -> Vec<f64> {
        let one = |row: &Vec<f64>| pairs.iter().map(|i| row[*i]).sum::<f64>() / pairs.len() as f64;
        rows.iter().map(one).map(|x| if size { x.abs() } else { x }).collect()
    };
    let correlation = |pairs: &[usize], size: bool| spearman(&over(a, pairs, size), &over(b, pairs, size));
    let interval = |size: bool| {
        let options = Bootstrap { resamples: RESAMPLES, seed, ..Bootstrap::default() };
        bca(&pairs, |some| correlation(some, size).unwrap_or(f64::NAN), &options)
    };
    let top = |rows: &[Vec<f64>]| -> Vec<usize> { order(&means(rows)).into_iter().take(TOP).collect() };
    let (of_a, of_b) = (top(a), top(b));
    Agreement {
        first,
        second,
        size: correlation(&pairs, true),
        size_interval: interval(true),
        signed: correlation(&pairs, false),
        signed_interval: interval(false),
        overlap: of_a.iter().filter(|h| of_b.contains(h)).count(),
    }
}

/// A head that interchange finds, and which other methods do.
struct Missed {
    head: usize,
    by_ablation: bool,
    by_attribution: bool,
}

/// The heads whose interchange moves the metric towards the negative prompts beyond chance, the strongest first.
fn missed(measured: &Measured, tested: &Methods) -> Vec<Missed> {
    let (gap, interchange, ablation) = (measured.gap(), means(&measured.interchange), means(&measured.ablation));
    let significant = |t: &Tested| t.q.is_some_and(|q| q < SIGNIFICANT);
    let found = |h: &usize| significant(&tested.interchange[*h]) && interchange[*h] * gap > 0.0;
    let row = |head: usize| Missed {
        head,
        by_ablation: !(significant(&tested.ablation[head]) && ablation[head] * gap > 0.0),
        by_attribution: mean(&measured.shares[head]).is_none_or(|share| share < FOUND_SHARE),
    };
    order(&interchange).into_iter().filter(found).map(row).collect()
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
    let gap = Some(measured.gap()).filter(|gap| *gap != 0.0);
    Ok(Table::new("missed")
        .str("model", "the model, as it was named", missed.iter().map(|_| model))?
        .int("layer", "layer, from 0", missed.iter().map(|m| head(m).layer as i64))?
        .int("head", "head, from 0", missed.iter().map(|m| head(m).head as i64))?
        .int("n", "pairs", missed.iter().map(|_| measured.positive.len() as i64))?
        .float("interchange_mean", "mean effect of interchange, nats", of(&measured.interchange))?
        .float(
            "share_of_gap",
            "that over the mean gap between the negative and the positive prompts' metrics",
            of(&measured.interchange).into_iter().map(|x| Some(x? / gap?)),
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
            "whether its share of attributions is under 1 %",
            missed.iter().map(|m| m.by_attribution),
        )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_by_size_whatever_the_sign() {
        assert_eq!(ranks(&[0.1, -3.0, 2.0]), [3, 1, 2]);
    }

    #[test]
    fn methods_that_order_heads_alike_agree_whole() {
        let rows: Vec<Vec<f64>> =
            (0..12).map(|h| (0..6).map(|i| f64::from(h) + 0.01 * f64::from(i)).collect()).collect();
        let twice: Vec<Vec<f64>> = rows.iter().map(|r| r.iter().map(|x| -2.0 * x).collect()).collect();
        let found = agreement(("interchange", &rows), ("ablation", &twice), 0);
        assert_eq!(found.overlap, 10);
        assert!((found.size.unwrap() - 1.0).abs() < 1e-12 && (found.signed.unwrap() + 1.0).abs() < 1e-12);
    }
}
