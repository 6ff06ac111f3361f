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
mod tables;

pub use tables::{DropRow, KnockoutRow, OverPairs, RepairRow};

use super::gate::{GateArgs, interchanged, silenced};
use crate::analyses::components::{Component, attributions, components, without_empty};
use crate::analyses::effects::{SIGNIFICANT, Tested, family};
use crate::analyses::halves::{Asked, Value, metric_and_half};
use crate::analyses::heads::{Head, names};
use crate::analyses::prelude::*;
use crate::analyses::summary::less;
use crate::plan::Attribution;
use crate::stats::bca_family;

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

parameters! {
    /// Knock the gate out, and show what later heads lose
    #[serde(default)]
    pub struct Cascade {
        ..pairs: PairArgs;
        ..gate: GateArgs;

        /// Knock heads out in this way
        mode: Knockout = Knockout::Interchange, [value_enum];

        /// Also knock out this many amplifiers, the strongest
        amplifiers: u32 = 8, [value_name = "K"];
    }
}

/// The pairs as the model reads them, and the gate.
pub struct Items {
    pairs: Pairs,
    gate: Vec<Head>,
}

impl Items {
    /// The tokens of a pair's two prompts, at most: a plan has few forks beside them.
    fn longest(&self) -> usize {
        self.pairs.tokens.iter().map(|t| t.positive.len() + t.negative.len()).max().unwrap_or(0)
    }
}

impl Analysis for Cascade {
    const NAME: &'static str = "cascade";
    const TITLE: &'static str = "Knockout cascade";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Items;
    type Measured = Found;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        let (gate, of_gate) = self.gate.read(model)?;
        let mut prepared = self.pairs.read(model)?;
        prepared.sources.extend(of_gate);
        Ok(prepared.map(|pairs| Items { pairs, gate }))
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
            tables::components_table(&shared, &knocked, &drops)?,
            tables::knockouts_table(&shared, &rows)?,
            tables::repair_table(&shared, &items.gate, &knocked)?,
        ]
        .into())
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
    /// To the metric, and to its answer's half.
    attributions: [[Handle<Array>; 2]; 2],
}

impl Cascade {
    /// Each pair's two metrics, and the positive prompt's attributions; then the positive's with the gate knocked out.
    fn gate_plan(&self, items: &Items, pairs: Range<usize>) -> (Plan, Vec<OfPair>) {
        let mut plan = Plan::default();
        let of_pair = |i: usize| {
            let ([positive, negative], tokens) = (items.pairs.add(&mut plan, i), &items.pairs.tokens[i]);
            let gate_out = plan.fork(positive, self.mode.edits(&items.gate, negative));
            let both = metric_and_half(&tokens.metric);
            let mut attributed = |run| both.clone().map(|metric| plan.read(run, Attribution(metric)));
            let attributions = [positive, gate_out].map(&mut attributed);
            OfPair {
                negative: plan.read(negative, tokens.metric.clone()),
                values: [positive, gate_out].map(|run| Value::ask(&mut plan, run, &tokens.metric)),
                attributions,
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
    /// Those to the answer's half.
    to_answers: [Vec<Vec<f64>>; 2],
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
        for (k, of_run) in of_pair.attributions.into_iter().enumerate() {
            let [whole, to_answer] = of_run.map(|of| attributions(&readings[of], all, n_heads));
            self.attributions[k].push(whole);
            self.to_answers[k].push(to_answer);
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
    /// The same two to the answer's half.
    to_answers: [Vec<Vec<f64>>; 2],
}

impl Knocked {
    fn of(all: Vec<Component>, measured: Measured) -> Self {
        let all_four = [measured.attributions.concat(), measured.to_answers.concat()].concat();
        let (components, all_four) = without_empty(all, all_four);
        let by_component = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
            (0..components.len()).map(|c| rows.iter().map(|row| row[c]).collect()).collect()
        };
        let n = measured.positive.len();
        let of = |k: usize| by_component(&all_four[k * n..(k + 1) * n]);
        Knocked {
            positive: measured.positive,
            negative: measured.negative,
            gate_out: measured.gate_out,
            answers: measured.answers,
            clean: of(0),
            knocked: of(1),
            to_answers: [of(2), of(3)],
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
    /// The same of the answer's half.
    answers: Vec<f64>,
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
        let answers = less(&knocked.to_answers[0][c], &knocked.to_answers[1][c]);
        Loss { component, drops, answers, tested, is_gate: class == Some(Class::Gate), amplifier }
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

#[cfg(test)]
mod tests;
