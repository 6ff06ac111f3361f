//! The tables of neurons.

use super::labels::{Against, corrected};
use super::{Asked, EXPERT, Effects, Layer, Measured, Neuron, Neurons, OfExpert, drivers, failed, words};
use crate::analyses::effects::{Share, Tested, part_of_family, shares_of_gap};
use crate::analyses::halves::{Halves, over_items};
use crate::analyses::lens::visible;
use crate::analyses::prelude::*;
use crate::analyses::summary::Swap;
use crate::model::decoder::Decoder;
use crate::model::tokenizer::Tokenizer;
use crate::report::cells;
use crate::stats::bca_family;
use candle_core::Tensor;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;

rows! {
    /// A neuron over all texts.
    pub struct NeuronRow<'a> in "neurons" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        expert: OfExpert [if any] = EXPERT,
        neuron: i64 = "neuron, from 0",
        n: i64 = "positions: all but the first of each text",
        activity: Option<f64> =
            "share of positions at which the neuron is at work: its activation is above 0, or, in an MLP with a gate, it is in the \
             smallest set of the layer's that holds 90 % of what is written (activation and size of the column, squared), all experts \
             together",
        positive: Option<f64> =
            "share of all positions at which the activation is above 0; where a position did not choose the neuron's expert, it is 0",
        mean: Option<f64> =
            "mean activation over all positions; an expert's has the expert's weight in it, and is 0 where it was not chosen",
        max: Option<f64> = "highest activation",
        min: Option<f64> = "lowest activation",
        size: Option<f64> = "size of the neuron's column of the down projection",
        attribution_mean: Option<f64> [if any] =
            "what it adds to the logit difference at the last position, mean over prompts, nats",
        vocabulary: Option<Cow<'a, str>> [if any] =
            "the tokens whose logits its column raises most, for a positive activation; a dot stands for a space",
        vocabulary_low: Option<Cow<'a, str>> [if any] = "the tokens whose logits it lowers most",
        words_score: Option<f64> [if any] =
            "what a unit of activation adds to the words' logits beyond the vocabulary's mean, in standard deviations over the \
             vocabulary, mean over the words; below 0 the neuron raises them by a negative activation",
        words_found: Option<f64> [if any] =
            "how many of the words are among the tokens of its vocabulary, at the end that the score's sign says",
    }

    /// A neuron that was looked at closely, over prompts with an answer.
    pub struct EffectRow<'a> in "effects" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        expert: OfExpert [if any] = EXPERT,
        neuron: i64 = "neuron, from 0",
        mode: Cow<'a, str> = "what a silenced neuron became: zero or mean",
        position: Cow<'a, str> = "where it was silenced",
        n: i64 = "prompts",
        base_mean: Option<f64> = "mean metric of the prompts, nats",
        attribution_mean: Option<f64> = "what it adds to the logit difference at the last position, nats",
        attribution_interval: Option<(f64, f64)> as "attribution_ci_" =
            ["lower end of that mean's 95 % BCa interval, nats", "its upper end, nats"],
        attribution_halves: Halves as "attribution" = "what it adds at the last position to",
        effect_mean: Option<f64> = "metric with the neuron silenced, minus that without, mean, nats",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of the mean effect's 95 % BCa interval, nats", "its upper end, nats"],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean effect",
        q_value: Option<f64> =
            "Benjamini-Hochberg q-value over all neurons of the layers asked about, those that were not silenced with p = 1, since \
             those that were are the strongest; over the chosen ones where they were chosen",
        p_max: Option<f64> = "family-wise p-value by the max statistic; empty where not all neurons were silenced",
        share: Share as "share_of_base" = "the mean effect over the mean base metric, a ratio of means",
        halves: Halves as "effect" = "silenced minus not, of",
    }

    /// Neurons that were silenced together.
    pub struct SetRow<'a> in "sets" {
        model: &'a str = "the model, as it was named",
        set: Cow<'a, str> =
            "`listed`: the neurons of effects.parquet; `heads`: the heads that were named; `listed and heads`; `random N`, `random \
             heads N` and `random neurons and heads N`: as many of each layer and expert, that are none of these",
        neurons: i64 = "how many neurons",
        heads: i64 [newer] = "how many heads",
        label: Option<Cow<'a, str>> [if any] = "the prompts with this label alone; empty for all",
        n: i64 = "prompts",
        effect_mean: Option<f64> = "metric with the set silenced, minus that without, mean, nats",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of the mean effect's 95 % BCa interval, nats", "its upper end, nats"],
        share: Share as "share_of_base" = "the mean effect over the mean base metric, a ratio of means",
        halves: Halves as "effect" = "silenced minus not, of",
    }

    /// What silencing a set does to the prompts of one label, beside what it does to the others.
    pub struct ContrastRow<'a> in "contrasts" {
        model: &'a str = "the model, as it was named",
        set: Cow<'a, str> = "the set, as in sets.parquet",
        label: Cow<'a, str> = "the label",
        n: i64 = "prompts with the label",
        effect_mean: Option<f64> = "metric with the set silenced, minus that without, mean over the prompts with the label, nats",
        /// Over all labels and all sets but random ones.
        against: Against as "",
    }

    /// A word that neurons were chosen by.
    pub struct WordRow<'a> in "words" {
        word: Cow<'a, str> = "the word",
        token: Cow<'a, str> = "the token that is scored: its first one, after a space where the model has such tokens",
        token_id: i64 = "its id",
    }

    /// Where a neuron was highest, or lowest.
    pub struct ContextRow<'a> in "contexts" {
        layer: i64 = "layer, from 0",
        expert: OfExpert [if any] = EXPERT,
        neuron: i64 = "neuron, from 0",
        end: &'a str = "`high` or, in an MLP with a gate, `low`",
        rank: i64 = "1 for the highest, or the lowest",
        id: Cow<'a, str> = "the text",
        position: i64 = "position in the text, from 0",
        before: Cow<'a, str> = "the text before the token",
        token: Cow<'a, str> = "the token",
        after: Cow<'a, str> = "the text after the token, which the model had not read",
        activation: Option<f64> = "the activation; tokens at which it is 0 are left out",
    }

    /// A token of a neuron's vocabulary.
    pub struct VocabularyRow<'a> in "vocabulary" {
        layer: i64 = "layer, from 0",
        expert: OfExpert [if any] = EXPERT,
        neuron: i64 = "neuron, from 0",
        end: &'a str = "`raised` or `lowered`, by a positive activation",
        rank: i64 = "1 for the one that is raised, or lowered, most",
        token: Cow<'a, str> = "the token",
        token_id: i64 = "its id",
        logit: Option<f64> =
            "what a unit of activation adds to the token's logit, less the vocabulary's mean, before the final norm's scale",
    }
}

impl SetRow<'_> {
    /// Whether it is of all prompts, not of those of one label.
    pub fn is_whole(&self) -> bool {
        self.label.is_none()
    }
}

impl ContrastRow<'_> {
    /// Whether its set was drawn, to compare with.
    pub fn is_random(&self) -> bool {
        self.set.starts_with(super::RANDOM)
    }
}

impl EffectRow<'_> {
    pub fn name(&self) -> String {
        named(self.key())
    }

    /// What tells it from other neurons.
    pub(super) fn key(&self) -> Key {
        (self.layer, self.expert, self.neuron)
    }
}

impl NeuronRow<'_> {
    pub(super) fn key(&self) -> Key {
        (self.layer, self.expert, self.neuron)
    }
}

impl ContextRow<'_> {
    pub(super) fn key(&self) -> Key {
        (self.layer, self.expert, self.neuron)
    }
}

/// A neuron in tables: its layer, its expert and its number.
pub(super) type Key = (i64, OfExpert, i64);

/// The name of a neuron in tables.
pub(super) fn named((layer, expert, neuron): Key) -> String {
    cells::neuron(layer, expert.0, neuron)
}

/// The tokens that a neuron raises and lowers, each with what it adds to their logits.
pub(in crate::analyses) type Vocabulary = [Vec<(u32, f32)>; 2];

/// How many tokens stand before and after one that a context is about.
const AROUND: usize = 12;

/// How many logits are held at once: 256 MiB.
const LOGITS: usize = 1 << 26;

pub(super) fn tables(
    of: &Neurons,
    about: &About,
    items: &Asked,
    measured: &Measured,
) -> Result<Vec<Table>, AnalysisError> {
    let tokenizer = about.loaded.tokenizer().ok();
    let texts = Texts { tokenizer };
    let vocabularies = vocabularies(of, about, items, measured)?;
    let mut tables = vec![neurons(about, items, measured, &vocabularies, texts)?];
    if let Some(effects) = &measured.effects {
        tables.push(effects_table(of, about, items, measured, effects)?);
        if !effects.sets.is_empty() {
            tables.push(sets_table(about, items, measured, effects)?);
        }
        if !effects.sets.is_empty() && !items.labels.is_empty() {
            tables.push(contrasts_table(about, items, measured, effects)?);
        }
    }
    if let Some(drivers) = &measured.drivers {
        tables.push(drivers::table(about, items, &measured.listed, drivers)?);
    }
    if !items.words.is_empty() {
        let rows = items.words.iter().map(|word| WordRow {
            word: word.word.as_str().into(),
            token: texts.token(word.token).into(),
            token_id: i64::from(word.token),
        });
        tables.push(WordRow::table(rows)?);
    }
    tables.push(contexts(items, measured, texts)?);
    tables.push(vocabulary_table(&vocabularies, texts)?);
    Ok(tables)
}

/// The texts of tokens.
#[derive(Clone, Copy)]
struct Texts<'a> {
    tokenizer: Option<&'a Tokenizer>,
}

impl Texts<'_> {
    fn token(self, id: u32) -> String {
        self.tokenizer.and_then(|t| t.token(id)).unwrap_or_else(|| format!("id:{id}"))
    }

    fn text(self, ids: &[u32]) -> String {
        match self.tokenizer.map(|t| t.decode(ids, false)) {
            Some(Ok(text)) => text,
            _ => ids.iter().map(|id| self.token(*id)).collect(),
        }
    }

    fn list(self, tokens: &[(u32, f32)]) -> String {
        let names: Vec<String> = tokens.iter().map(|(id, _)| visible(&self.token(*id))).collect();
        names.join(" ")
    }
}

/// The vocabularies of the neurons that were looked at closely, or of all.
fn vocabularies(
    of: &Neurons,
    about: &About,
    items: &Asked,
    measured: &Measured,
) -> Result<BTreeMap<Neuron, Vocabulary>, AnalysisError> {
    let decoder = &about.loaded.decoder;
    let mut found = BTreeMap::new();
    for layer in &items.layers {
        let listed = measured.listed.iter().filter(|n| n.layer == layer.layer).map(|n| layer.column(*n));
        let mut wanted: Vec<usize> = if of.all_vocabulary { (0..layer.width).collect() } else { listed.collect() };
        wanted.sort_unstable();
        let of_layer = of_layer(decoder, layer, &wanted, usize::from(of.vocabulary)).map_err(failed)?;
        found.extend(wanted.into_iter().map(|column| layer.name(column)).zip(of_layer));
    }
    Ok(found)
}

/// The vocabularies of some columns, ascending.
fn of_layer(decoder: &Decoder, layer: &Layer, columns: &[usize], k: usize) -> candle_core::Result<Vec<Vocabulary>> {
    let at_once = (LOGITS / decoder.arch.vocab.max(1)).max(1);
    let (mut found, mut left, mut first) = (Vec::with_capacity(columns.len()), columns, 0);
    if left.is_empty() {
        return Ok(found);
    }
    for writes in decoder.neuron_writes(layer.layer)? {
        let writes = writes?;
        let n = writes.dim(0)?;
        let here = left.partition_point(|column| *column < first + n);
        for some in left[..here].chunks(at_once) {
            let index: Vec<u32> = some.iter().map(|column| (column - first) as u32).collect();
            let rows = writes.index_select(&Tensor::new(index, writes.device())?, 0)?;
            let logits: Vec<Vec<f32>> = decoder.vocabulary(&rows)?.to_vec2()?;
            found.par_extend(logits.par_iter().map(|row| ends(row, k)));
        }
        left = &left[here..];
        first += n;
    }
    Ok(found)
}

/// The `k` tokens that a vector raises most, and the `k` that it lowers.
pub(in crate::analyses) fn vocabulary_of(
    decoder: &Decoder,
    vector: &[f32],
    k: usize,
) -> candle_core::Result<Vocabulary> {
    let row = Tensor::new(vector, decoder.places.last())?.unsqueeze(0)?;
    Ok(ends(&decoder.vocabulary(&row)?.flatten_all()?.to_vec1::<f32>()?, k))
}

/// The `k` largest numbers of a row and the `k` smallest, less the row's mean; of equal ones the first.
fn ends(row: &[f32], k: usize) -> Vocabulary {
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / row.len().max(1) as f64;
    let k = k.min(row.len());
    [1f32, -1.0].map(|sign| {
        let before = |a: &u32, b: &u32| (sign * row[*b as usize]).total_cmp(&(sign * row[*a as usize])).then(a.cmp(b));
        let mut ids: Vec<u32> = (0..row.len() as u32).collect();
        if k < ids.len() {
            ids.select_nth_unstable_by(k, before);
            ids.truncate(k);
        }
        ids.sort_by(before);
        ids.into_iter().map(|id| (id, (f64::from(row[id as usize]) - mean) as f32)).collect()
    })
}

fn neurons(
    about: &About,
    items: &Asked,
    measured: &Measured,
    vocabularies: &BTreeMap<Neuron, Vocabulary>,
    texts: Texts,
) -> Result<Table, AnalysisError> {
    let n = measured.all.positions;
    let share = |count: u32| Some(f64::from(count) / n.max(1) as f64);
    let mut rows = Vec::new();
    for (layer, tally) in items.layers.iter().zip(&measured.all.tallies) {
        let sizes = super::gather::sizes(&about.loaded.decoder, layer.layer).map_err(failed)?;
        for (i, size) in sizes.iter().enumerate().filter(|(i, _)| items.asks_of(layer, *i)) {
            let neuron = layer.name(i);
            let vocabulary = vocabularies.get(&neuron);
            let list = |end: usize| vocabulary.map(|both| Cow::Owned(texts.list(&both[end])));
            let prompts = items.texts.metrics.as_ref().map(Vec::len);
            let score = words::score(&items.layers, &measured.scores, neuron);
            rows.push(NeuronRow {
                model: about.model,
                layer: layer.layer as i64,
                expert: neuron.in_table(),
                neuron: neuron.neuron as i64,
                n: n as i64,
                activity: share(if layer.gated { tally.leading[i] } else { tally.positive[i] }),
                positive: share(tally.positive[i]),
                mean: Some(tally.sum[i] / n.max(1) as f64),
                max: Some(f64::from(tally.max[i])),
                min: Some(f64::from(tally.min[i])),
                size: Some(f64::from(*size).sqrt()),
                attribution_mean: prompts.map(|n| tally.attribution[i] / n.max(1) as f64),
                vocabulary: list(0),
                vocabulary_low: list(1),
                words_score: score,
                words_found: score.zip(vocabulary).map(|(score, both)| {
                    let end = &both[usize::from(score < 0.0)];
                    let found = |word: &&words::Word| end.iter().any(|(id, _)| *id == word.token);
                    items.words.iter().filter(found).count() as f64
                }),
            });
        }
    }
    Ok(NeuronRow::table(rows)?)
}

fn effects_table(
    of: &Neurons,
    about: &About,
    items: &Asked,
    measured: &Measured,
    effects: &Effects,
) -> Result<Table, AnalysisError> {
    let listed = &measured.listed;
    let alone = &effects.swaps[..listed.len()];
    let numbers: Vec<Vec<f64>> = alone.iter().map(|swaps| swaps.iter().map(|s| s.effect()).collect()).collect();
    let all: usize = items.layers.iter().map(|layer| layer.width).sum();
    // Those that were chosen, or hold words, were not chosen by what they do to these prompts.
    let chosen = items.chosen.is_some() || !items.words.is_empty();
    let tests = if chosen { listed.len() } else { all };
    let tested = tested(&numbers, tests, about.seed)?;
    let bases: Vec<f64> = alone.first().into_iter().flatten().map(|swap| swap.base).collect();
    let shares = shares_of_gap(&numbers, &bases, about.seed);
    let halves = halves_of(alone, about.seed);
    let part = |k: usize| -> Vec<Vec<f64>> {
        effects.attributions.iter().map(|of| of.iter().map(|both| both[k]).collect()).collect()
    };
    let (difference, answer) = (part(0), part(1));
    let foil: Vec<Vec<f64>> =
        difference.iter().zip(&answer).map(|(d, a)| a.iter().zip(d).map(|(a, d)| a - d).collect()).collect();
    let attribution_halves = over_items(&answer, &foil, about.seed);
    let options = Bootstrap { seed: about.seed, ..Bootstrap::default() };
    let intervals = bca_family(&difference, &options);
    let rows = listed.iter().enumerate().map(|(i, neuron)| EffectRow {
        model: about.model,
        layer: neuron.layer as i64,
        expert: neuron.in_table(),
        neuron: neuron.neuron as i64,
        mode: match of.mode {
            super::Silenced::Zero => "zero".into(),
            super::Silenced::Mean => "mean".into(),
        },
        position: of.position.to_string().into(),
        n: numbers[i].len() as i64,
        base_mean: mean(&bases),
        attribution_mean: mean(&difference[i]),
        attribution_interval: intervals[i].map(Interval::ends),
        attribution_halves: attribution_halves[i],
        effect_mean: mean(&numbers[i]),
        interval: tested[i].interval,
        p_value: tested[i].p,
        q_value: tested[i].q,
        p_max: tested[i].p_max.filter(|_| tests == listed.len()),
        share: shares[i],
        halves: halves[i],
    });
    Ok(EffectRow::table(rows)?)
}

/// The tests of neurons that are the strongest of so many.
fn tested(numbers: &[Vec<f64>], tests: usize, seed: u64) -> Result<Vec<Tested>, AnalysisError> {
    let mut found = part_of_family(numbers, tests, seed)?;
    let mut p: Vec<f64> = found.iter().filter_map(|tested| tested.p).collect();
    let n = p.len();
    p.resize(tests.max(n), 1.0);
    let q = crate::stats::benjamini_hochberg(&p);
    found.iter_mut().zip(q).for_each(|(tested, q)| tested.q = Some(q));
    Ok(found)
}

fn halves_of(swaps: &[Vec<Swap>], seed: u64) -> Vec<Halves> {
    let half = |f: fn(&Swap) -> Option<f64>| -> Vec<Vec<f64>> {
        swaps.iter().map(|swaps| swaps.iter().filter_map(f).collect()).collect()
    };
    over_items(&half(|s| s.answer), &half(|s| s.foil()), seed)
}

/// What each set does to all prompts, and to those of each label.
fn sets_table(about: &About, items: &Asked, measured: &Measured, effects: &Effects) -> Result<Table, AnalysisError> {
    let together = &effects.swaps[measured.listed.len()..];
    let all: Vec<usize> = (0..together.first().map_or(0, Vec::len)).collect();
    let parts = items.labels.iter().map(|label| (Some(label.label.as_str()), label.own.as_slice()));
    let mut rows = Vec::new();
    for (label, prompts) in std::iter::once((None, all.as_slice())).chain(parts) {
        let some: Vec<Vec<Swap>> = together.iter().map(|swaps| prompts.iter().map(|i| swaps[*i]).collect()).collect();
        let numbers: Vec<Vec<f64>> = some.iter().map(|swaps| swaps.iter().map(|s| s.effect()).collect()).collect();
        let bases: Vec<f64> = some.first().into_iter().flatten().map(|swap| swap.base).collect();
        let intervals = bca_family(&numbers, &Bootstrap { seed: about.seed, ..Bootstrap::default() });
        let shares = shares_of_gap(&numbers, &bases, about.seed);
        let halves = halves_of(&some, about.seed);
        rows.extend(effects.sets.iter().enumerate().map(|(i, set)| SetRow {
            model: about.model,
            set: set.name.as_str().into(),
            neurons: set.neurons.len() as i64,
            heads: set.heads.len() as i64,
            label: label.map(Cow::Borrowed),
            n: numbers[i].len() as i64,
            effect_mean: mean(&numbers[i]),
            interval: intervals[i].map(Interval::ends),
            share: shares[i],
            halves: halves[i],
        }));
    }
    Ok(SetRow::table(rows)?)
}

/// What each set does to the prompts of each label, beside what it does to the others.
fn contrasts_table(
    about: &About,
    items: &Asked,
    measured: &Measured,
    effects: &Effects,
) -> Result<Table, AnalysisError> {
    let together = &effects.swaps[measured.listed.len()..];
    let numbers: Vec<Vec<f64>> = together.iter().map(|swaps| swaps.iter().map(|s| s.effect()).collect()).collect();
    let cells: Vec<(usize, usize)> =
        (0..items.labels.len()).flat_map(|l| (0..numbers.len()).map(move |set| (l, set))).collect();
    let against = |(l, set): &(usize, usize)| Against::of(&numbers[*set], &items.labels[*l], about.seed);
    let against: Vec<Against> = cells.par_iter().map(against).collect();
    let row = |((l, set), against): (&(usize, usize), Against)| {
        let label = &items.labels[*l];
        let own: Vec<f64> = label.own.iter().map(|i| numbers[*set][*i]).collect();
        ContrastRow {
            model: about.model,
            set: effects.sets[*set].name.as_str().into(),
            label: label.label.as_str().into(),
            n: own.len() as i64,
            effect_mean: mean(&own),
            against,
        }
    };
    let mut rows: Vec<ContrastRow> = cells.iter().zip(against).map(row).collect();
    corrected(rows.iter_mut().filter(|row| !row.is_random()).map(|row| &mut row.against));
    Ok(ContrastRow::table(rows)?)
}

fn contexts(items: &Asked, measured: &Measured, texts: Texts) -> Result<Table, AnalysisError> {
    let mut firsts = Vec::with_capacity(items.texts.texts.len());
    let mut next = 0u32;
    for text in &items.texts.texts {
        firsts.push(next);
        next += text.ids.len() as u32;
    }
    let of_neuron = |layer: &Layer, tally: &super::tally::Tally, i: usize| {
        let (neuron, mut rows) = (layer.name(i), Vec::new());
        for (end, tops) in [("high", &tally.high), ("low", &tally.low)] {
            rows.extend(tops.of(i).enumerate().map(|(rank, (activation, token))| {
                let t = firsts.partition_point(|first| *first <= token) - 1;
                let (text, at) = (&items.texts.texts[t], (token - firsts[t]) as usize);
                let until = text.ids.len().min(at + 1 + AROUND);
                ContextRow {
                    layer: layer.layer as i64,
                    expert: neuron.in_table(),
                    neuron: neuron.neuron as i64,
                    end,
                    rank: rank as i64 + 1,
                    id: text.id.as_str().into(),
                    position: at as i64,
                    before: texts.text(&text.ids[at.saturating_sub(AROUND)..at]).into(),
                    token: texts.token(text.ids[at]).into(),
                    after: texts.text(&text.ids[at + 1..until]).into(),
                    activation: Some(f64::from(activation)),
                }
            }));
        }
        rows
    };
    let mut rows = Vec::new();
    for (layer, tally) in items.layers.iter().zip(&measured.all.tallies) {
        let each = (0..layer.width).into_par_iter().filter(|i| items.asks_of(layer, *i));
        let each: Vec<Vec<ContextRow>> = each.map(|i| of_neuron(layer, tally, i)).collect();
        rows.extend(each.into_iter().flatten());
    }
    Ok(ContextRow::table(rows)?)
}

fn vocabulary_table(vocabularies: &BTreeMap<Neuron, Vocabulary>, texts: Texts) -> Result<Table, AnalysisError> {
    let mut rows = Vec::new();
    for neuron in vocabularies.keys() {
        for (end, tokens) in ["raised", "lowered"].into_iter().zip(&vocabularies[neuron]) {
            rows.extend(tokens.iter().enumerate().map(|(rank, (id, logit))| VocabularyRow {
                layer: neuron.layer as i64,
                expert: neuron.in_table(),
                neuron: neuron.neuron as i64,
                end,
                rank: rank as i64 + 1,
                token: texts.token(*id).into(),
                token_id: i64::from(*id),
                logit: Some(f64::from(*logit)),
            }));
        }
    }
    Ok(VocabularyRow::table(rows)?)
}
