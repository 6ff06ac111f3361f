//! The tables of values.

use super::found::Listed;
use super::items::OfValue;
use super::runs::{Condition, Done, Said};
use super::{Asked, CONTEXTS, Measured, SETS, VECTORS};
use crate::analyses::effects::{Tested, family};
use crate::analyses::neurons::{EXPERT, OfExpert};
use crate::analyses::prelude::*;
use crate::analyses::summary::less;
use crate::ops::vectors::norm;
use crate::stats::{bca_family, overlap_p, wilson};

rows! {
    /// How much likelier the reply with the value is, over items that were held out.
    pub struct PreferenceRow<'a> in "preferences" {
        model: &'a str = "the model, as it was named",
        value: &'a str = "the value",
        context: &'a str = "`unprompted`, or `prompted`: after a prompt that asks for the value",
        n: i64 = "items that were held out",
        preference_mean: Option<f64> =
            "log-probability of the reply with the value less that of the one without, each over its own tokens, mean, nats a token",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of that mean's 95 % BCa interval, nats a token", "its upper end, nats a token"],
        preferred: Option<f64> = "share of items whose reply with the value is the likelier one, by the token",
        preferred_interval: Option<(f64, f64)> as "preferred_ci_" =
            ["lower end of that share's 95 % Wilson interval", "its upper end"],
    }

    /// A value vector.
    pub struct VectorRow<'a> in "vectors" {
        model: &'a str = "the model, as it was named",
        value: &'a str = "the value",
        vector: &'a str = "`intrinsic`, made without the prompt, or `prompted`, made with it",
        layer: i64 = "the layer after which the residual stream was read, from 0",
        n: i64 = "items that it was made of",
        norm: Option<f64> = "its size",
        cosine: Option<f64> = "cosine to the layer's other vector",
        cosine_interval: Option<(f64, f64)> as "cosine_ci_" =
            ["lower end of that cosine's 95 % BCa interval over the items that they were made of", "its upper end"],
        test: i64 = "items that were held out",
        along_mean: Option<f64> =
            "how far the streams of the two replies to an item that was held out differ along the vector at norm 1, mean, same context",
        along_interval: Option<(f64, f64)> as "along_ci_" =
            ["lower end of that mean's 95 % BCa interval", "its upper end"],
        right: Option<f64> = "share of these items whose reply with the value is farther along the vector",
        right_interval: Option<(f64, f64)> as "right_ci_" =
            ["lower end of that share's 95 % Wilson interval", "its upper end"],
    }

    /// How many neurons of a value the two vectors share.
    #[derive(Copy)]
    pub struct OverlapRow<'a> in "overlap" {
        model: &'a str = "the model, as it was named",
        value: &'a str = "the value",
        neurons: i64 = "neurons of the model",
        intrinsic: i64 = "value neurons of the intrinsic vector",
        prompted: i64 = "value neurons of the prompted vector",
        shared: i64 = "those of both",
        only_intrinsic: i64 = "those of the intrinsic vector alone",
        only_prompted: i64 = "those of the prompted vector alone",
        by_chance: Option<f64> = "how many two random choices of as many neurons share on average",
        overlap_p: Option<f64> = "chance that two random choices share as many or more (hypergeometric)",
    }

    /// What a neuron writes along a vector at norm 1 in the reply with the value, less what it writes in the other.
    #[derive(Copy)]
    pub struct Written {
        write: Option<f64> = "{}, mean over the items by which it was found",
        p_value: Option<f64> = "p-value of a t-test that this mean is 0: of those that were taken it is under 0.05",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over all neurons",
        held_out: Option<f64> = "{}, mean over the items that were held out",
        /// Its 95 % BCa interval.
        interval: Option<(f64, f64)> as "ci_" = ["lower end of that mean's 95 % BCa interval", "its upper end"],
    }

    /// A value neuron.
    pub struct NeuronRow<'a> in "neurons" {
        model: &'a str = "the model, as it was named",
        value: &'a str = "the value",
        set: &'a str = "`shared` by both vectors, `only_intrinsic` or `only_prompted`",
        layer: i64 = "layer, from 0",
        expert: OfExpert [if any] = EXPERT,
        neuron: i64 = "neuron, from 0",
        intrinsic: Written as "intrinsic_" =
            "what it writes along the intrinsic vector of its layer, at norm 1, in the reply with the value, less that in the other, without a \
             prompt, means over own tokens",
        prompted: Written as "prompted_" = "the same along the prompted vector, with the prompt",
    }

    /// What is done to replies.
    #[derive(Copy)]
    pub struct DoneRow<'a> {
        kind: &'a str = "`prompt`: the prompt is put before; `ablate`: neurons are set to 0 at every position; `steer`: a vector is added",
        what: &'a str = "the set of neurons, or the vector",
        layer: i64 = "the layer after which it is added, from 0; -1 for other kinds",
        coefficient: Option<f64> = "what the vector is multiplied by; empty for other kinds",
    }

    /// A mean over items.
    #[derive(Copy)]
    pub struct MeanOf {
        mean: Option<f64> = "{}, mean, nats a token",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of that mean's 95 % BCa interval, nats a token", "its upper end, nats a token"],
    }

    /// What silencing neurons, or adding a vector, does to the preference for the reply with the value.
    #[derive(Copy)]
    pub struct EffectRow<'a> in "effects" {
        model: &'a str = "the model, as it was named",
        value: &'a str = "the value",
        context: &'a str = "`unprompted`, or `prompted`: after a prompt that asks for the value",
        done: DoneRow<'a> as "",
        neurons: i64 = "how many neurons are silenced",
        n: i64 = "items that were held out",
        base_mean: Option<f64> = "mean preference without an edit, nats a token",
        effect: MeanOf as "effect_" = "preference with the edit less that without",
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean effect",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over all that is done in this context for this value",
        with: MeanOf as "with_effect_" = "what the edit does to the log-probability of the reply with the value",
        without: MeanOf as "without_effect_" = "what it does to that of the reply without",
        controls: i64 = "random sets of as many neurons of the same layers, or random directions of the same norm",
        random_mean: Option<f64> = "their effect, mean over items and controls, nats a token",
        over_random: MeanOf as "over_random_" = "the effect less the controls' mean effect on the same item",
    }

    /// An item that was held out, under an edit.
    pub struct ItemRow<'a> in "items" {
        value: &'a str = "the value",
        id: &'a str = "the item",
        topic: Option<&'a str> = "its topic",
        context: &'a str = "`unprompted` or `prompted`",
        done: DoneRow<'a> as "",
        base: f64 = "preference for the reply with the value without an edit, nats a token",
        preference: f64 = "that with the edit, nats a token",
    }
}

/// What the prompt itself does is called so.
pub const PROMPT: &str = "prompt";
pub const ABLATE: &str = "ablate";
pub const STEER: &str = "steer";

impl DoneRow<'_> {
    fn prompt() -> Self {
        DoneRow { kind: PROMPT, what: PROMPT, layer: -1, coefficient: None }
    }

    fn of(done: &Done) -> Self {
        match done {
            Done::Silence { set, .. } => DoneRow { kind: ABLATE, what: SETS[*set], layer: -1, coefficient: None },
            Done::Add { vector, layer, coefficient, .. } => {
                DoneRow { kind: STEER, what: VECTORS[*vector], layer: *layer as i64, coefficient: Some(*coefficient) }
            }
        }
    }
}

/// What all rows of a value share.
struct Shared<'a> {
    model: &'a str,
    value: &'a str,
    seed: u64,
}

impl Shared<'_> {
    fn bootstrap(&self) -> Bootstrap {
        Bootstrap { seed: self.seed, ..Bootstrap::default() }
    }
}

pub(super) fn tables(about: &About, items: &Asked, measured: &[Measured]) -> Result<Vec<Table>, AnalysisError> {
    let (mut preferences, mut vectors, mut overlap) = (Vec::new(), Vec::new(), Vec::new());
    let (mut neurons, mut effects, mut of_items) = (Vec::new(), Vec::new(), Vec::new());
    for (of, found) in items.values.iter().zip(measured) {
        let shared = Shared { model: about.model, value: &of.name, seed: about.seed };
        preferences.extend(preferred(&shared, found));
        vectors.extend(vector_rows(&shared, of, found));
        overlap.push(overlapping(&shared, found));
        neurons.extend(neuron_rows(&shared, &found.sets.listed));
        for context in 0..CONTEXTS.len() {
            effects.extend(effect_rows(&shared, found, context)?);
            of_items.extend(item_rows(of, found, context));
        }
    }
    Ok(vec![
        PreferenceRow::table(preferences)?,
        VectorRow::table(vectors)?,
        OverlapRow::table(overlap)?,
        NeuronRow::table(neurons)?,
        EffectRow::table(effects)?,
        ItemRow::table(of_items)?,
    ])
}

/// The preference of each item: without an edit, or under a condition by its number from 1.
fn preferences(said: &[Said], condition: usize) -> Vec<f64> {
    said.iter().map(|of| of[condition][0] - of[condition][1]).collect()
}

/// The share of numbers over 0, with its interval.
fn over_zero(numbers: &[f64]) -> (Option<f64>, Option<(f64, f64)>) {
    let (over, n) = (numbers.iter().filter(|x| **x > 0.0).count(), numbers.len());
    ((n > 0).then(|| over as f64 / n as f64), wilson(over, n).map(Interval::ends))
}

fn preferred<'a>(shared: &Shared<'a>, found: &Measured) -> Vec<PreferenceRow<'a>> {
    let numbers = found.said.each_ref().map(|said| preferences(said, 0));
    let intervals = bca_family(&numbers, &shared.bootstrap());
    let row = |((context, numbers), interval): ((&'static str, &Vec<f64>), Option<Interval>)| {
        let (preferred, preferred_interval) = over_zero(numbers);
        PreferenceRow {
            model: shared.model,
            value: shared.value,
            context,
            n: numbers.len() as i64,
            preference_mean: mean(numbers),
            interval: interval.map(Interval::ends),
            preferred,
            preferred_interval,
        }
    };
    CONTEXTS.into_iter().zip(&numbers).zip(intervals).map(row).collect()
}

fn vector_rows<'a>(shared: &Shared<'a>, of: &OfValue, found: &Measured) -> Vec<VectorRow<'a>> {
    let bootstrap = shared.bootstrap();
    let n = of.half(false).len() as i64;
    let layers = found.vectors.vectors[0].len();
    let cosines: Vec<_> = (0..layers).map(|layer| found.vectors.cosine(layer, &bootstrap)).collect();
    let of_vector = |v: usize| {
        let along = &found.vectors.along[v];
        let intervals = bca_family(along, &bootstrap);
        let rows = along.iter().zip(intervals).enumerate().map(|(layer, (along, interval))| {
            let (right, right_interval) = over_zero(along);
            let (cosine, cosine_interval) = cosines[layer];
            VectorRow {
                model: shared.model,
                value: shared.value,
                vector: VECTORS[v],
                layer: layer as i64,
                n,
                norm: Some(norm(&found.vectors.vectors[v][layer])),
                cosine,
                cosine_interval: cosine_interval.map(Interval::ends),
                test: along.len() as i64,
                along_mean: mean(along),
                along_interval: interval.map(Interval::ends),
                right,
                right_interval,
            }
        });
        rows.collect::<Vec<_>>()
    };
    (0..VECTORS.len()).flat_map(of_vector).collect()
}

fn overlapping<'a>(shared: &Shared<'a>, found: &Measured) -> OverlapRow<'a> {
    let [both, a, b] = found.sets.neurons.each_ref().map(Vec::len);
    let (total, intrinsic, prompted) = (found.sets.total, both + a, both + b);
    OverlapRow {
        model: shared.model,
        value: shared.value,
        neurons: total as i64,
        intrinsic: intrinsic as i64,
        prompted: prompted as i64,
        shared: both as i64,
        only_intrinsic: a as i64,
        only_prompted: b as i64,
        by_chance: (total > 0).then(|| (intrinsic * prompted) as f64 / total as f64),
        overlap_p: overlap_p(total, intrinsic, prompted, both),
    }
}

fn neuron_rows<'a>(shared: &Shared<'a>, listed: &[Listed]) -> Vec<NeuronRow<'a>> {
    let written = |v: usize| -> Vec<Written> {
        let numbers: Vec<&[f64]> = listed.iter().map(|of| of.writes[v].held_out.as_slice()).collect();
        let intervals = bca_family(&numbers, &shared.bootstrap());
        let of = |(of, interval): (&Listed, Option<Interval>)| Written {
            write: Some(of.writes[v].training),
            p_value: Some(of.writes[v].p),
            q_value: Some(of.writes[v].q),
            held_out: mean(&of.writes[v].held_out),
            interval: interval.map(Interval::ends),
        };
        listed.iter().zip(intervals).map(of).collect()
    };
    let row = |((of, intrinsic), prompted): ((&Listed, Written), Written)| NeuronRow {
        model: shared.model,
        value: shared.value,
        set: SETS[of.set],
        layer: of.neuron.layer as i64,
        expert: of.neuron.in_table(),
        neuron: of.neuron.neuron as i64,
        intrinsic,
        prompted,
    };
    listed.iter().zip(written(0)).zip(written(1)).map(row).collect()
}

/// What is done in a context: its row, and the numbers of each item.
struct Edited<'a> {
    row: EffectRow<'a>,
    /// Of the preference, and of each reply's log-probability.
    effects: [Vec<f64>; 3],
    /// The effect less that of the controls; empty without controls.
    over_random: Vec<f64>,
}

fn effect_rows<'a>(shared: &Shared<'a>, found: &Measured, context: usize) -> Result<Vec<EffectRow<'a>>, AnalysisError> {
    let edited = edited(shared, found, context);
    let of = |k: usize| edited.iter().map(|of| of.effects[k].clone()).collect::<Vec<_>>();
    let bootstrap = shared.bootstrap();
    let tested = family(&of(0), shared.seed)?;
    let halves = [1, 2].map(|k| bca_family(&of(k), &bootstrap));
    let over: Vec<Option<Interval>> =
        edited.iter().map(|of| bca_family(&[of.over_random.as_slice()], &bootstrap).pop().flatten()).collect();
    let rows = edited.iter().zip(tested).enumerate().map(|(i, (of, tested))| {
        let Tested { interval, p, q, .. } = tested;
        let half = |k: usize| MeanOf { mean: mean(&of.effects[k]), interval: halves[k - 1][i].map(Interval::ends) };
        EffectRow {
            effect: MeanOf { mean: mean(&of.effects[0]), interval },
            p_value: p,
            q_value: q,
            with: half(1),
            without: half(2),
            over_random: MeanOf { mean: mean(&of.over_random), interval: over[i].map(Interval::ends) },
            ..of.row
        }
    });
    Ok(rows.collect())
}

/// What the prompt does, in the context without it; and what each condition does beside its controls.
fn edited<'a>(shared: &Shared<'a>, found: &Measured, context: usize) -> Vec<Edited<'a>> {
    let said = &found.said[context];
    let base = preferences(said, 0);
    let row = |done: DoneRow<'a>| EffectRow {
        model: shared.model,
        value: shared.value,
        context: CONTEXTS[context],
        done,
        n: base.len() as i64,
        base_mean: mean(&base),
        ..EffectRow::default()
    };
    let prompt = (context == 0).then(|| Edited {
        row: row(DoneRow::prompt()),
        effects: effects(said, &found.said[1], 0),
        over_random: Vec::new(),
    });
    let conditions = found.conditions.iter().enumerate().filter(|(_, condition)| condition.control == 0);
    let each = conditions.map(|(i, condition)| {
        let effects = effects(said, said, i + 1);
        let random = controls(&found.conditions, condition, said);
        // None where there are no controls.
        let of_item = |item: usize| mean(&random.iter().map(|of| of[item]).collect::<Vec<_>>());
        let means: Vec<f64> = (0..base.len()).filter_map(of_item).collect();
        Edited {
            row: EffectRow {
                neurons: condition.done.neurons() as i64,
                controls: random.len() as i64,
                random_mean: mean(&means),
                ..row(DoneRow::of(&condition.done))
            },
            over_random: less(&effects[0], &means),
            effects,
        }
    });
    prompt.into_iter().chain(each).collect()
}

/// How far a condition moves the preference of each item, and each reply's log-probability.
fn effects(base: &[Said], edited: &[Said], condition: usize) -> [Vec<f64>; 3] {
    let moved = |reply: usize| -> Vec<f64> {
        base.iter().zip(edited).map(|(base, edited)| edited[condition][reply] - base[0][reply]).collect()
    };
    let (with, without) = (moved(0), moved(1));
    [less(&with, &without), with, without]
}

/// The effects of a condition's controls on the preference. `[controls][items]`
fn controls(conditions: &[Condition], of: &Condition, said: &[Said]) -> Vec<Vec<f64>> {
    let like = |(_, other): &(usize, &Condition)| other.control > 0 && other.done.is_like(&of.done);
    let random = conditions.iter().enumerate().filter(like);
    random.map(|(i, _)| effects(said, said, i + 1)[0].clone()).collect()
}

fn item_rows<'a>(of: &'a OfValue, found: &Measured, context: usize) -> Vec<ItemRow<'a>> {
    let said = &found.said[context];
    let base = preferences(said, 0);
    let held_out = of.half(true);
    let rows = |done: DoneRow<'a>, edited: Vec<f64>| {
        let row = |((i, base), preference): ((&usize, &f64), f64)| ItemRow {
            value: &of.name,
            id: &of.items[*i].id,
            topic: of.items[*i].topic.as_deref(),
            context: CONTEXTS[context],
            done,
            base: *base,
            preference,
        };
        held_out.iter().zip(&base).zip(edited).map(row).collect::<Vec<_>>()
    };
    let mut found_rows = Vec::new();
    if context == 0 {
        found_rows.extend(rows(DoneRow::prompt(), preferences(&found.said[1], 0)));
    }
    for (i, condition) in found.conditions.iter().enumerate().filter(|(_, condition)| condition.control == 0) {
        found_rows.extend(rows(DoneRow::of(&condition.done), preferences(said, i + 1)));
    }
    found_rows
}
