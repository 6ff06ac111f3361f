//! Knockout cascade: what do deeper heads lose when the gate is knocked out?
//!
//! The gate's `z` at the last position is taken from the pair's negative prompt, or set to zero, and the direct logit
//! attribution of every component is read in that same run. Later heads whose attribution drops are what the gate works
//! through, its *amplifiers*. Forks of forks then knock out the amplifiers as well, alone and on top of the gate: one that
//! only passes the gate's signal on does little once the gate is out. Source: "How Alignment Routes" (2026).
//!
//! Every attribution is read with its own run's final norm, so that the changes of all components add up to the change of
//! the metric (before soft-capping). The gate's *direct effect* is the change of its own attribution; its *total effect*
//! the change of the metric; between them stand the later heads and MLPs, which pass an effect on, or repair it. Source:
//! McGrath et al. 2023, "The Hydra Effect: Emergent Self-repair in Language Model Computations".

mod report;

use super::gate::{GateArgs, Head, interchanged, names, silenced};
use crate::analyses::components::{Component, OfComponent, OfWriter, attributions, components, without_empty};
use crate::analyses::effects::{SIGNIFICANT, Tested, family};
use crate::analyses::halves::{Asked, Halves, Value};
use crate::analyses::inputs::{PairArgs, Pairs, Sources};
use crate::analyses::scored::Scored;
use crate::analyses::summary::{less, mean, sd};
use crate::analyses::{About, Analysis, AnalysisError, Figures, Output, batches, halves};
use crate::model::Model;
use crate::plan::{Array, Attribution, Edit, Handle, Plan, Readings, Run};
use crate::report::Section;
use crate::rows;
use crate::stats::{Bootstrap, Interval, bca_family, bca_ratio, ratio};
use crate::study::Runner;
use crate::table::Table;
use crate::table::rows::Row as _;
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

/// How heads are knocked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Knockout {
    /// Take their `z` from the negative prompt.
    Interchange,
    /// Set their `z` to zero.
    Zero,
}

impl Knockout {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Knockout::Interchange => "interchange",
            Knockout::Zero => "zero",
        }
    }

    /// The edits at the last position.
    fn edits(self, heads: &[Head], negative: Run) -> Vec<Edit> {
        match self {
            Knockout::Interchange => interchanged(heads, negative),
            Knockout::Zero => silenced(heads),
        }
    }
}

/// Knock the gate out, and show what later heads lose
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default)]
pub struct Cascade {
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub pairs: PairArgs,

    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub gate: GateArgs,

    /// Knock heads out in this way
    #[cfg_attr(feature = "cli", arg(long, value_enum, default_value_t = Self::default().mode))]
    pub mode: Knockout,

    /// Also knock out this many amplifiers, the strongest
    #[cfg_attr(feature = "cli", arg(long, default_value_t = Self::default().amplifiers, value_name = "K"))]
    pub amplifiers: u32,
}

impl Default for Cascade {
    fn default() -> Self {
        Cascade { pairs: PairArgs::default(), gate: GateArgs::default(), mode: Knockout::Interchange, amplifiers: 8 }
    }
}

/// The pairs as the model reads them, and the gate.
pub struct Items {
    pairs: Pairs,
    gate: Vec<Head>,
    sources: Sources,
}

impl Items {
    /// The tokens of a pair's two prompts, at most: a plan has few forks beside them.
    fn longest(&self) -> usize {
        self.pairs.tokens.iter().map(|t| t.positive.len() + t.negative.len()).max().unwrap_or(0)
    }
}

impl Analysis for Cascade {
    const NAME: &'static str = "cascade";
    const ABOUT: &'static str = "Knock the gate out, and show what later heads lose";
    const TITLE: &'static str = "Knockout cascade";
    type Items = Items;
    type Measured = Found;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        let (gate, of_gate) = self.gate.read(model)?;
        let pairs = self.pairs.read(model)?;
        let sources = pairs.sources.iter().cloned().chain(of_gate).collect();
        Ok(Items { pairs, gate, sources })
    }

    fn datasets(items: &Items) -> Vec<(String, String)> {
        items.sources.clone()
    }

    fn scored(items: &Items) -> &Scored {
        &items.pairs.scored
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Found, AnalysisError> {
        let arch = &runner.model().decoder.arch;
        let all = components(arch.n_layers, arch.n_heads);
        let mut measured = Measured::default();
        for pairs in batches(items.pairs.tokens.len(), items.longest()) {
            let (plan, asked) = self.gate_plan(items, pairs);
            let readings = runner.run(&plan)?;
            asked.iter().for_each(|of_pair| measured.add(&all, arch.n_heads, &readings, of_pair));
        }
        let knocked = Knocked::of(all, measured);
        let (drops, amplifiers) = if runner.is_counting() {
            // Which heads amplify is known later; as many of the first that can cost a little more.
            let later = (first_layer(&items.gate) + 1..arch.n_layers)
                .flat_map(|layer| (0..arch.n_heads).map(move |head| Head { layer, head }))
                .filter(|head| !items.gate.contains(head));
            (Vec::new(), later.take(self.amplifiers as usize).collect())
        } else {
            let drops = drops(&knocked, &items.gate, runner.seed())?;
            let amplifiers = strongest(&drops, self.amplifiers as usize);
            (drops, amplifiers)
        };
        let sets = sets(&amplifiers);
        let n = if sets.is_empty() { 0 } else { items.pairs.tokens.len() };
        let mut outs = Vec::with_capacity(n);
        for pairs in batches(n, items.longest() + 2 * sets.len()) {
            let (plan, asked) = self.amplifiers_plan(items, &sets, pairs);
            let readings = runner.run(&plan)?;
            let of_pair =
                |of_pair: Vec<[Asked; 2]>| of_pair.into_iter().map(|set| set.map(|a| a.of(&readings))).collect();
            outs.extend(asked.into_iter().map(of_pair));
        }
        Ok(Found { knocked, drops, sets, outs })
    }

    fn tables(&self, about: &About, items: &Items, found: Found) -> Result<Output, AnalysisError> {
        let Found { knocked, drops, sets, outs } = found;
        let rows = knockouts(items, &knocked, &sets, &outs);
        let shared = Shared { model: about.model, mode: self.mode.name(), seed: about.seed };
        Ok(vec![
            components_table(&shared, &knocked, &drops)?,
            knockouts_table(&shared, &rows)?,
            repair_table(&shared, &items.gate, &knocked)?,
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

/// What was found of the pairs.
pub struct Found {
    knocked: Knocked,
    drops: Vec<Loss>,
    sets: Vec<Set>,
    /// For each pair and set, the metric with the set knocked out alone, and on top of the gate.
    outs: Vec<Vec<[Value; 2]>>,
}

/// What is read of a pair: of the positive prompt, then of the same with the gate knocked out.
struct OfPair {
    negative: Handle<f64>,
    values: [Asked; 2],
    attributions: [Handle<Array>; 2],
}

impl Cascade {
    /// Each pair's two metrics, and the positive prompt's attributions; then the positive's with the gate knocked out.
    fn gate_plan(&self, items: &Items, pairs: Range<usize>) -> (Plan, Vec<OfPair>) {
        let mut plan = Plan::default();
        let of_pair = |i: usize| {
            let ([positive, negative], tokens) = (items.pairs.add(&mut plan, i), &items.pairs.tokens[i]);
            let gate_out = plan.fork(positive, self.mode.edits(&items.gate, negative));
            OfPair {
                negative: plan.read(negative, tokens.metric.clone()),
                values: [positive, gate_out].map(|run| Value::ask(&mut plan, run, &tokens.metric)),
                attributions: [positive, gate_out].map(|run| plan.read(run, Attribution(tokens.metric.clone()))),
            }
        };
        let asked = pairs.map(of_pair).collect();
        (plan, asked)
    }

    /// For each pair and set of heads, the metric with the set knocked out alone, and on top of the gate.
    fn amplifiers_plan(&self, items: &Items, sets: &[Set], pairs: Range<usize>) -> (Plan, Vec<Vec<[Asked; 2]>>) {
        let mut plan = Plan::default();
        let of_pair = |i: usize| {
            let ([positive, negative], tokens) = (items.pairs.add(&mut plan, i), &items.pairs.tokens[i]);
            let gate_out = plan.fork(positive, self.mode.edits(&items.gate, negative));
            let of_set = |set: &Set| {
                [positive, gate_out].map(|base| {
                    let fork = plan.fork(base, self.mode.edits(&set.heads, negative));
                    Value::ask(&mut plan, fork, &tokens.metric)
                })
            };
            sets.iter().map(of_set).collect()
        };
        let asked = pairs.map(of_pair).collect();
        (plan, asked)
    }
}

/// The layer of the first of the gate's heads: what comes after it can change.
fn first_layer(gate: &[Head]) -> usize {
    gate.iter().map(|h| h.layer).min().unwrap_or(0)
}

/// Heads that are knocked out together.
struct Set {
    name: String,
    heads: Vec<Head>,
}

/// Each amplifier by itself, then all of them.
fn sets(amplifiers: &[Head]) -> Vec<Set> {
    let mut sets: Vec<Set> = amplifiers.iter().map(|h| Set { name: h.to_string(), heads: vec![*h] }).collect();
    if amplifiers.len() > 1 {
        sets.push(Set { name: "amplifiers".to_string(), heads: amplifiers.to_vec() });
    }
    sets
}

/// What all tables share.
struct Shared<'a> {
    model: &'a str,
    mode: &'static str,
    seed: u64,
}

/// The readings of [`Cascade::gate_plan`]: metrics, one a pair, and attributions without the knockout and with it,
/// `[pairs][components]`.
#[derive(Debug, Default, PartialEq)]
struct Measured {
    positive: Vec<f64>,
    negative: Vec<f64>,
    gate_out: Vec<f64>,
    /// The answer's half of the metric, clean and with the gate out.
    answers: [Vec<f64>; 2],
    attributions: [Vec<Vec<f64>>; 2],
}

impl Measured {
    /// Adds a pair's readings, of a model of these components and so many heads a layer.
    fn add(&mut self, all: &[Component], n_heads: usize, readings: &Readings, of_pair: &OfPair) {
        let [clean, out] = of_pair.values.map(|asked| asked.of(readings));
        self.positive.push(clean.metric);
        self.negative.push(readings[of_pair.negative]);
        self.gate_out.push(out.metric);
        for (list, value) in self.answers.iter_mut().zip([clean, out]) {
            list.extend(value.answer);
        }
        for (rows, of) in self.attributions.iter_mut().zip(of_pair.attributions) {
            rows.push(attributions(&readings[of], all, n_heads));
        }
    }
}

/// What the knockout of the gate does: metrics, one a pair, and attributions, `[components][pairs]`.
struct Knocked {
    positive: Vec<f64>,
    negative: Vec<f64>,
    gate_out: Vec<f64>,
    answers: [Vec<f64>; 2],
    components: Vec<Component>,
    clean: Vec<Vec<f64>>,
    knocked: Vec<Vec<f64>>,
}

impl Knocked {
    fn of(all: Vec<Component>, measured: Measured) -> Self {
        let (components, both) = without_empty(all, measured.attributions.concat());
        let by_component = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
            (0..components.len()).map(|c| rows.iter().map(|row| row[c]).collect()).collect()
        };
        let (clean, knocked) = both.split_at(measured.positive.len());
        Knocked {
            positive: measured.positive,
            negative: measured.negative,
            gate_out: measured.gate_out,
            answers: measured.answers,
            clean: by_component(clean),
            knocked: by_component(knocked),
            components,
        }
    }

    /// How far the metric falls, one a pair.
    fn fall(&self) -> Vec<f64> {
        less(&self.positive, &self.gate_out)
    }
}

/// What one component loses.
struct Loss {
    component: Component,
    /// Clean minus knocked out, one a pair.
    drops: Vec<f64>,
    /// Only the interval, where the component is not of the family.
    tested: Tested,
    is_gate: bool,
    amplifier: bool,
}

/// What every component loses. The family of tests are the components that the gate can reach: heads after its first
/// layer, but for its own, and MLPs from that layer on.
fn drops(knocked: &Knocked, gate: &[Head], seed: u64) -> Result<Vec<Loss>, AnalysisError> {
    let drops: Vec<Vec<f64>> = knocked.clean.iter().zip(&knocked.knocked).map(|(c, k)| less(c, k)).collect();
    let intervals = bca_family(&drops, &Bootstrap { seed, ..Bootstrap::default() });
    let reached: Vec<usize> =
        (0..drops.len()).filter(|c| class(&knocked.components[*c], gate).is_some_and(|c| c != Class::Gate)).collect();
    let of_family: Vec<Vec<f64>> = reached.iter().map(|c| drops[*c].clone()).collect();
    let mut tested: Vec<Tested> =
        intervals.into_iter().map(|i| Tested { interval: i.map(|i| (i.low, i.high)), ..Tested::default() }).collect();
    reached.iter().zip(family(&of_family, seed)?).for_each(|(c, found)| tested[*c] = found);
    let fall = mean(&knocked.fall()).unwrap_or(0.0);
    let loss = |((c, drops), tested): ((usize, Vec<f64>), Tested)| {
        let component = knocked.components[c].clone();
        let class = class(&component, gate);
        let (drop, clean) = (mean(&drops).unwrap_or(0.0), mean(&knocked.clean[c]).unwrap_or(0.0));
        let amplifier = class == Some(Class::Head)
            && tested.q.is_some_and(|q| q < SIGNIFICANT)
            && drop * fall > 0.0
            && clean * fall > 0.0;
        Loss { component, drops, tested, is_gate: class == Some(Class::Gate), amplifier }
    };
    Ok(drops.into_iter().enumerate().zip(tested).map(loss).collect())
}

/// How a knockout of the gate can reach a component.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It is of the gate.
    Gate,
    /// A head after the gate's first layer.
    Head,
    /// An MLP from that layer on.
    Mlp,
}

/// A component's class; none where it is not reached.
fn class(component: &Component, gate: &[Head]) -> Option<Class> {
    let layer = usize::try_from(component.layer).ok()?;
    let first = first_layer(gate);
    match component.head() {
        Some(head) if gate.contains(&Head { layer, head }) => Some(Class::Gate),
        Some(_) => (layer > first).then_some(Class::Head),
        None => (component.name == "mlp" && layer >= first).then_some(Class::Mlp),
    }
}

/// The amplifiers that lose most.
fn strongest(losses: &[Loss], n: usize) -> Vec<Head> {
    let size = |l: &&Loss| mean(&l.drops).map_or(0.0, f64::abs);
    let mut flagged: Vec<&Loss> = losses.iter().filter(|l| l.amplifier).collect();
    flagged.sort_by(|a, b| size(b).total_cmp(&size(a)));
    let head = |l: &Loss| Some(Head { layer: usize::try_from(l.component.layer).ok()?, head: l.component.head()? });
    flagged.into_iter().take(n).filter_map(head).collect()
}

/// One knockout over all pairs.
struct KnockedOut {
    name: String,
    head: Option<Head>,
    with_gate: bool,
    metrics: Vec<f64>,
    /// Edited minus clean metric.
    effects: Vec<f64>,
    /// The same of the answer's half.
    answers: Vec<f64>,
    /// The effect of the heads without the gate.
    alone: Option<f64>,
    /// What they do on top of the gate's knockout.
    beyond: Vec<f64>,
}

/// The gate alone, then each set alone and on top of the gate, whose metrics are those of [`Cascade::amplifiers_plan`].
fn knockouts(items: &Items, knocked: &Knocked, sets: &[Set], outs: &[Vec<[Value; 2]>]) -> Vec<KnockedOut> {
    let of_gate = less(&knocked.gate_out, &knocked.positive);
    let gate = names(&items.gate);
    let mut rows = vec![KnockedOut {
        name: gate.clone(),
        head: None,
        with_gate: true,
        metrics: knocked.gate_out.clone(),
        alone: mean(&of_gate),
        effects: of_gate,
        answers: less(&knocked.answers[1], &knocked.answers[0]),
        beyond: Vec::new(),
    }];
    for (s, set) in sets.iter().enumerate() {
        // Alone and with the gate.
        let metrics = |k: usize| -> Vec<f64> { outs.iter().map(|of_pair| of_pair[s][k].metric).collect() };
        let answers = |k: usize| -> Vec<f64> { outs.iter().filter_map(|of_pair| of_pair[s][k].answer).collect() };
        let [own, both] = [0, 1].map(metrics);
        let [own_half, both_half] = [0, 1].map(answers);
        let (alone, beyond) = (mean(&less(&own, &knocked.positive)), less(&both, &knocked.gate_out));
        for (with_gate, metrics, halves) in [(false, own, own_half), (true, both, both_half)] {
            rows.push(KnockedOut {
                name: if with_gate { format!("{gate}+{}", set.name) } else { set.name.clone() },
                head: (set.heads.len() == 1).then(|| set.heads[0]),
                with_gate,
                effects: less(&metrics, &knocked.positive),
                answers: less(&halves, &knocked.answers[0]),
                metrics,
                alone,
                beyond: beyond.clone(),
            });
        }
    }
    rows
}

/// Below this, in nats, an attribution is next to nothing, and a share of it says nothing.
const NEGLIGIBLE: f64 = 1e-3;

rows! {
    /// What a component loses.
    pub struct DropRow<'a> in "components" {
        model: &'a str = "the model, as it was named",
        mode: &'a str = "how the gate was knocked out: interchange or zero",
        component: OfComponent<'a> as "",
        writer: OfWriter<'a> [newer] as "",
        n: i64 = "pairs",
        clean_mean: Option<f64> = "mean attribution in the positive prompts, nats",
        knocked_mean: Option<f64> = "the same with the gate knocked out, nats",
        drop_mean: Option<f64> =
            "mean of clean minus knocked out, nats; those of all components add up to the fall of the metric before \
             soft-capping",
        drop_sd: Option<f64> = "its standard deviation over pairs, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean drop's 95 % BCa interval, nats",
            "upper end of the mean drop's 95 % BCa interval, nats",
        ],
        drop_share: Option<f64> = "mean drop over mean clean attribution; empty where that is under 0.001 nats",
        share_of_effect: Option<f64> =
            "mean drop over the metric's mean fall when the gate is knocked out; empty where that is under 0.001 nats",
        p_value: Option<f64> =
            "two-sided sign-flip permutation p-value of the mean drop; empty where the gate cannot reach",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over the heads and MLPs that the gate can reach",
        p_max: Option<f64> = "family-wise p-value by the max statistic over the same",
        is_gate: bool = "whether it is of the gate",
        amplifier: bool = "a later head with q < 0.05 whose drop and clean attribution have the sign of the metric's fall",
    }

    /// What a knockout does.
    pub struct KnockoutRow<'a> in "knockouts" {
        model: &'a str = "the model, as it was named",
        mode: &'a str = "how heads were knocked out: interchange or zero",
        heads: &'a str = "what was knocked out; `amplifiers`: all that have a row of their own",
        layer: i64 = "the amplifier's layer, from 0; -1 where it is not one",
        head: i64 = "the amplifier's number in its layer, from 0; -1 where it is not one",
        with_gate: bool = "whether the gate was knocked out as well",
        n: i64 = "pairs",
        metric_mean: Option<f64> = "mean metric with the knockout, nats",
        effect_mean: Option<f64> = "mean of that minus the positive prompt's metric, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean effect's 95 % BCa interval, nats",
            "upper end of the mean effect's 95 % BCa interval, nats",
        ],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean effect",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over all knockouts",
        alone: Option<f64> = "mean effect of the amplifiers without the gate, nats",
        beyond_gate: Option<f64> = "mean effect of the amplifiers on top of the gate's knockout, nats",
        beyond: Option<(f64, f64)> as "beyond_ci_" =
            ["lower end of its 95 % BCa interval, nats", "upper end of its 95 % BCa interval, nats"],
        halves: Halves [newer] as "effect" = "knocked out minus clean of",
    }

    /// A number over pairs, with its interval.
    #[derive(Copy)]
    pub struct OverPairs {
        mean: Option<f64> = "{}, mean, nats",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of its 95 % BCa interval, nats", "upper end of its 95 % BCa interval, nats"],
    }

    /// The gate's direct and total effect, and what stands between them.
    pub struct RepairRow<'a> in "repair" {
        model: &'a str = "the model, as it was named",
        gate: Cow<'a, str> = "the gate's heads",
        mode: &'a str = "how it was knocked out: interchange or zero",
        n: i64 = "pairs",
        positive_mean: Option<f64> = "mean metric of the positive prompts, nats",
        negative_mean: Option<f64> = "mean metric of the negative prompts, nats",
        knocked_mean: Option<f64> = "mean metric of the positive prompts with the gate out, nats",
        direct: OverPairs as "direct_" = "change of the gate's own attribution",
        total: OverPairs as "total_" = "change of the metric",
        difference: OverPairs as "difference_" =
            "total minus direct effect; against the direct one where later components repair it",
        later_heads: OverPairs as "later_heads_" = "change of the attributions of heads after the gate's first layer",
        later_mlps: OverPairs as "later_mlps_" = "change of the attributions of MLPs from that layer on",
        rest: OverPairs as "rest_" =
            "what is left: the final norm's scale on all other components, and soft-capping",
        later_heads_share: Option<f64> = "mean change of later heads over the mean total effect",
        later_heads_share_interval: Option<(f64, f64)> as "later_heads_share_ci_" = [
            "lower end of that share's 95 % BCa interval over pairs, both resampled together; empty where the total effect is \
             not beyond chance",
            "its upper end",
        ],
    }
}

fn components_table(shared: &Shared, knocked: &Knocked, losses: &[Loss]) -> Result<Table, AnalysisError> {
    let fall = mean(&knocked.fall());
    let part = |part: Option<f64>, of: Option<f64>| Some(part? / of.filter(|of| of.abs() >= NEGLIGIBLE)?);
    let attributions = knocked.clean.iter().zip(&knocked.knocked);
    Ok(DropRow::table(losses.iter().zip(attributions).map(|(loss, (clean, knocked))| DropRow {
        model: shared.model,
        mode: shared.mode,
        component: (&loss.component).into(),
        writer: (&loss.component).into(),
        n: loss.drops.len() as i64,
        clean_mean: mean(clean),
        knocked_mean: mean(knocked),
        drop_mean: mean(&loss.drops),
        drop_sd: sd(&loss.drops),
        interval: loss.tested.interval,
        drop_share: part(mean(&loss.drops), mean(clean)),
        share_of_effect: part(mean(&loss.drops), fall),
        p_value: loss.tested.p,
        q_value: loss.tested.q,
        p_max: loss.tested.p_max,
        is_gate: loss.is_gate,
        amplifier: loss.amplifier,
    }))?)
}

fn knockouts_table(shared: &Shared, knockouts: &[KnockedOut]) -> Result<Table, AnalysisError> {
    let effects: Vec<Vec<f64>> = knockouts.iter().map(|k| k.effects.clone()).collect();
    let tested = family(&effects, shared.seed)?;
    let beyond: Vec<Vec<f64>> = knockouts.iter().map(|k| k.beyond.clone()).collect();
    let beyond = bca_family(&beyond, &Bootstrap { seed: shared.seed, ..Bootstrap::default() });
    let answers: Vec<Vec<f64>> = knockouts.iter().map(|k| k.answers.clone()).collect();
    let foils: Vec<Vec<f64>> = knockouts.iter().map(|k| less(&k.answers, &k.effects)).collect();
    let halves = halves::over_items(&answers, &foils, shared.seed);
    let rows = knockouts.iter().zip(tested).zip(beyond).zip(halves);
    Ok(KnockoutRow::table(rows.map(|(((knockout, tested), beyond), halves)| KnockoutRow {
        model: shared.model,
        mode: shared.mode,
        heads: &knockout.name,
        layer: knockout.head.map_or(-1, |h| h.layer as i64),
        head: knockout.head.map_or(-1, |h| h.head as i64),
        with_gate: knockout.with_gate,
        n: knockout.metrics.len() as i64,
        metric_mean: mean(&knockout.metrics),
        effect_mean: mean(&knockout.effects),
        interval: tested.interval,
        p_value: tested.p,
        q_value: tested.q,
        alone: knockout.alone,
        beyond_gate: mean(&knockout.beyond),
        beyond: beyond.map(Interval::ends),
        halves,
    }))?)
}

/// The gate's direct and total effect, and what stands between them.
fn repair_table(shared: &Shared, gate: &[Head], knocked: &Knocked) -> Result<Table, AnalysisError> {
    let total = less(&knocked.gate_out, &knocked.positive);
    let of_class = |wanted: Class| {
        let mut sum = vec![0.0; total.len()];
        let members = (0..knocked.components.len()).filter(|c| class(&knocked.components[*c], gate) == Some(wanted));
        for c in members {
            let change = less(&knocked.knocked[c], &knocked.clean[c]);
            sum.iter_mut().zip(change).for_each(|(sum, x)| *sum += x);
        }
        sum
    };
    let [direct, heads, mlps] = [Class::Gate, Class::Head, Class::Mlp].map(of_class);
    let indirect = less(&total, &direct);
    let rest = less(&less(&indirect, &heads), &mlps);
    let options = Bootstrap { seed: shared.seed, ..Bootstrap::default() };
    let (share, share_interval) = (ratio(&heads, &total), bca_ratio(&heads, &total, &options));
    let numbers = [direct, total, indirect, heads, mlps, rest];
    let over = |numbers: &Vec<f64>, interval: &Option<Interval>| OverPairs {
        mean: mean(numbers),
        interval: interval.map(Interval::ends),
    };
    let intervals = bca_family(&numbers.each_ref(), &options);
    let [direct, total, difference, later_heads, later_mlps, rest] =
        std::array::from_fn(|k| over(&numbers[k], &intervals[k]));
    Ok(RepairRow::table([RepairRow {
        model: shared.model,
        gate: names(gate).into(),
        mode: shared.mode,
        n: knocked.positive.len() as i64,
        positive_mean: mean(&knocked.positive),
        negative_mean: mean(&knocked.negative),
        knocked_mean: mean(&knocked.gate_out),
        direct,
        total,
        difference,
        later_heads,
        later_mlps,
        rest,
        later_heads_share: share,
        later_heads_share_interval: share_interval.map(Interval::ends),
    }])?)
}

#[cfg(test)]
mod tests;
