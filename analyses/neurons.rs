//! Neurons: which of them does the answer depend on, what does each write, and where does it fire?
//!
//! A neuron is a column of an MLP's down projection with the activation that multiplies it. What it adds to the residual stream goes
//! through the final norm and the unembedding as everything does, so that it has a *vocabulary* (the tokens that it raises and
//! lowers) and an *attribution* to a logit difference, exact as heads' are while the norms' scales are held fixed. What the model
//! makes of it says the ablation. Over all texts each neuron's activity is counted, and the tokens at which it was highest, and where
//! the MLP has a gate lowest, are kept with what stands around them. Sources: Geva et al. 2022, "Transformer Feed-Forward Layers
//! Build Predictions by Promoting Concepts in the Vocabulary Space"; Gurnee et al. 2023, "Finding Neurons in a Haystack".
//!
//! Neurons may be chosen by words that their vocabulary holds (`words`) and silenced together with heads (`heads`). Where prompts have
//! labels, what that does to those of one label stands beside what it does to the others (`labels`): a concept's neurons move
//! its own answers, not all alike. What opens the neurons' gates is told apart by heads and MLPs (`drivers`).

mod drivers;
mod gather;
mod heads;
mod labels;
mod name;
mod report;
mod tables;
mod tally;
mod texts;
mod words;

pub use labels::Against;
pub(super) use name::{EXPERT, file as file_of};
pub use name::{Layer, Neuron, OfExpert};
pub use report::{Standing, beside, standings};
pub(super) use tables::vocabulary_of;
pub use tables::{ContrastRow, EffectRow, NeuronRow, SetRow};

use super::halves::{Asked as AskedValue, Value};
use super::heads::{Circuit, Head};
use super::inputs::layer_list;
use super::metric::MetricArgs;
use super::summary::Swap;
use crate::analyses::prelude::*;
use crate::dataset::TokenRef;
use crate::model::arch::Arch;
use crate::run::{directions_of_neurons, directions_of_stream};
use crate::stats;
use gather::Gathered;
use labels::OfLabel;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use texts::Texts;
use words::Word;

/// What a silenced neuron becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Silenced {
    /// 0.
    #[default]
    Zero,
    /// Its mean over all positions of the texts.
    Mean,
}

parameters! {
    /// Show what neurons do: their share in the answer, what they write, and where they fire
    #[serde(default)]
    pub struct Neurons {
        ..prompts: PromptArgs;

        /// Cut a corpus (plain text, or JSON Lines of {"text"}) into pieces of this many tokens
        length: u32 = 256, in 8..=65536, [value_name = "TOKENS"];

        /// Look closely at these neurons, as L5.N1234, or L5.E3.N12 of an expert; several with commas (default: the strongest)
        neuron: Vec<Neuron>, excludes set | words, [value_delimiter = ',', value_name = "NEURON"];

        /// Look closely at the neurons that this file lists, one a line: the neurons.txt of another run, say
        set: Option<Data>, excludes words, [value_name = "FILE"];

        /// Look closely at the neurons whose vocabulary holds these words best: strings, or id:N; several with commas
        ///
        /// They are chosen by the model's weights alone: by each word's logit for a unit of activation, in standard deviations over the
        /// vocabulary, mean over the words, whatever its sign. A word's first token counts, after a space where the model has such tokens.
        words: Vec<TokenRef>, [value_delimiter = ',', value_name = "WORD", value_parser = str::parse::<TokenRef>];

        /// Look at the neurons of these layers alone: 3, 0-5,8
        layers: Option<String>, [value_name = "LAYERS"];

        /// Without a choice of your own, look closely at this many neurons
        ///
        /// They are those with the largest attribution to the answer; where nothing is measured, those that write the most at once. Of
        /// those that hold the given words it is as many too.
        list: u16 = 50, in 1..=5000, [value_name = "N"];

        /// Keep this many contexts of every neuron, from each end of its activation
        contexts: u16 = 8, in 0..=100, [value_name = "K"];

        /// List this many tokens of a vocabulary, from each end
        vocabulary: u16 = 8, in 1..=100, [value_name = "K"];

        /// List the vocabulary of every neuron, not only of those looked at closely
        all_vocabulary: bool;

        /// Silence neurons with zeros, or with their mean
        mode: Silenced = Silenced::Zero, [value_enum];

        /// Silence them at this position: last, all, or a number (a negative one counts from the prompt's end)
        position: Position = Position::Last, [allow_hyphen_values = true];

        /// Silence these heads too, by themselves and with the neurons, as L16.H0; several with commas
        head: Vec<Head>, excludes circuit, [value_delimiter = ',', value_name = "HEAD"];

        /// Silence the heads of this circuit too, and look at the neurons of its MLPs alone where it has any
        ///
        /// That is the circuit.json or graph.json of `screen`, `edges` or `circuit`, or a list of heads, as `attention --list` writes
        /// it. With layers or neurons of your own, it is these that are looked at.
        circuit: Option<Data>, [value_name = "FILE"];

        /// Say what drives the neurons: what each head, each MLP and the embedding add to what their gates read
        drivers: bool;

        ..metric: MetricArgs;
    }
}

/// Texts, and which neurons are asked about.
pub struct Asked {
    texts: Texts,
    layers: Vec<Layer>,
    /// Those that were chosen, if any were.
    chosen: Option<Vec<Neuron>>,
    /// The words that neurons are chosen by, if they are.
    words: Vec<Word>,
    /// Heads that are silenced too.
    heads: Vec<Head>,
    /// Where each prompt's edits are, where something is measured.
    positions: Vec<Positions>,
    /// The labels of prompts, where there are two or more.
    labels: Vec<OfLabel>,
}

impl Asked {
    /// Whether a neuron of a layer is asked about: any, unless some were chosen.
    fn asks_of(&self, layer: &Layer, column: usize) -> bool {
        self.chosen.as_ref().is_none_or(|chosen| chosen.contains(&layer.name(column)))
    }

    /// A layer that is asked about.
    fn layer(&self, layer: usize) -> Option<&Layer> {
        self.layers.iter().find(|of| of.layer == layer)
    }

    /// The column of a neuron in its layer.
    fn column(&self, neuron: Neuron) -> usize {
        self.layer(neuron.layer).map_or(0, |layer| layer.column(neuron))
    }
}

/// What was found.
pub struct Measured {
    all: Gathered,
    /// Those that were looked at closely, the strongest first where they were not chosen.
    listed: Vec<Neuron>,
    /// Each layer's scores for the words, where neurons were chosen by these.
    scores: Vec<Vec<f32>>,
    /// What each of them does to the logit difference, prompt by prompt; none where nothing is measured.
    effects: Option<Effects>,
    /// What their gates read, where that was asked.
    drivers: Option<drivers::Measured>,
}

/// Attributions and ablations, prompt by prompt.
#[derive(Default)]
pub struct Effects {
    /// Of each listed neuron: its attribution to the difference and to the answer's half.
    attributions: Vec<Vec<[f64; 2]>>,
    /// Of each listed neuron, and after them of each set.
    swaps: Vec<Vec<Swap>>,
    sets: Vec<Set>,
}

/// Neurons and heads that were silenced together.
pub struct Set {
    pub name: String,
    pub neurons: Vec<Neuron>,
    pub heads: Vec<Head>,
}

/// What is silenced in one run.
type Silent<'a> = (&'a [Neuron], &'a [Head]);

/// The means that silenced neurons and heads become, where they do not become 0.
struct Means<'a> {
    of_neurons: &'a Gathered,
    of_heads: BTreeMap<usize, Vec<f32>>,
}

/// How many random sets stand beside the one that was listed.
const RANDOM_SETS: usize = 10;

impl Analysis for Neurons {
    const NAME: &'static str = "neurons";
    const TITLE: &'static str = "Neurons";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Asked;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Asked>, AnalysisError> {
        let arch = &model.decoder.arch;
        let (chosen, sources) = match name::named(&self.neuron, self.set.as_ref(), arch)? {
            Some((neurons, sources)) => (Some(neurons), sources),
            None => (None, Vec::new()),
        };
        let (circuit, of_circuit) = Circuit::named(SiteKind::Z, &self.head, self.circuit.as_ref(), model)?;
        let layers = self.layers(arch, chosen.as_deref(), &circuit.mlps)?;
        let heads = circuit.heads;
        let (words, notes) = words::read(&self.words, model)?;
        let mut prepared = Texts::read(&self.prompts, &self.metric, self.length as usize, model)?;
        prepared.sources.extend(sources.into_iter().chain(of_circuit));
        prepared.scored.note(notes);
        let path = self.prompts.prompts.display();
        if prepared.items.texts.iter().all(|text| text.ids.len() < 2) {
            let why = "has no text of two tokens: the first position, where attention sinks, is left out";
            return Err(AnalysisError::Bad(format!("{path}: {why}")));
        }
        let measured = prepared.items.metrics.is_some();
        self.warn_idle(measured, !heads.is_empty());
        if self.drivers {
            drivers::check(&layers, arch)?;
        }
        self.warn_of_many(&layers, chosen.as_deref());
        let at = |text: &texts::Text| {
            let found = self.position.of(text.ids.len());
            found.map_err(|why| AnalysisError::Bad(format!("{path}: \"{}\": {why}", text.id)))
        };
        let positions = match measured || self.drivers {
            true => prepared.items.texts.iter().map(at).collect::<Result<_, _>>()?,
            false => Vec::new(),
        };
        let labels = labels::of_texts(&prepared.items.texts);
        Ok(prepared.map(|texts| Asked { texts, layers, chosen, words, heads, positions, labels }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Asked) -> Result<Measured, AnalysisError> {
        let all = gather::gather(runner, items, usize::from(self.contexts))?;
        let scores = match items.words.as_slice() {
            [] => Vec::new(),
            words => words::scores(runner, &items.layers, words)?,
        };
        let listed = match &items.chosen {
            Some(chosen) => chosen.clone(),
            None if !items.words.is_empty() && !runner.is_counting() => {
                words::best(&items.layers, &scores, usize::from(self.list))
            }
            None => self.strongest(runner.model(), items, &all, runner.is_counting())?,
        };
        let effects = match &items.texts.metrics {
            Some(metrics) => {
                let means = Means { of_neurons: &all, of_heads: heads::means(runner, items, self.mode)? };
                Some(self.effects(runner, items, metrics, &means, &listed)?)
            }
            None => None,
        };
        let drivers = self.drivers.then(|| drivers::measure(runner, items, &listed)).transpose()?;
        Ok(Measured { all, listed, scores, effects, drivers })
    }

    fn tables(&self, about: &About, items: &Asked, measured: Measured) -> Result<Output, AnalysisError> {
        let tables = tables::tables(self, about, items, &measured)?;
        let said = match &self.set {
            Some(_) => "the neurons that were given".to_string(),
            None if items.chosen.is_some() => "the neurons that were named".to_string(),
            None if !items.words.is_empty() => {
                let words: Vec<String> = items.words.iter().map(|word| word.word.clone()).collect();
                format!("the neurons whose vocabulary holds {} best, the best first", words::named(&words))
            }
            None if measured.effects.is_some() => {
                "the largest attributions to the answer, the strongest first".to_string()
            }
            None => "the neurons that write most at once, the first the most".to_string(),
        };
        let file = name::file(&measured.listed, &format!("{}: {said}", about.model));
        Ok(Output { tables, files: vec![(FILE.to_string(), file)] })
    }
}

/// The file that lists the neurons that were looked at closely.
const FILE: &str = "neurons.txt";

/// So many contexts take some gigabytes while their table is made.
const MANY: usize = 10_000_000;

impl Neurons {
    /// Says how many contexts there will be, where that is many: experts may have millions of neurons.
    fn warn_of_many(&self, layers: &[Layer], chosen: Option<&[Neuron]>) {
        let ends = |layer: &Layer| layer.width * if layer.gated { 2 } else { 1 };
        let rows = usize::from(self.contexts) * layers.iter().map(ends).sum::<usize>();
        if chosen.is_none() && rows > MANY {
            let (layers, contexts) = (param("layers"), param("contexts"));
            tracing::warn!(
                "up to {rows} contexts are kept and written, 300 bytes each: {layers} or {contexts} makes them fewer"
            );
        }
    }

    /// Warns of parameters that do nothing, as nothing is silenced where no prompt has an answer.
    fn warn_idle(&self, measured: bool, heads: bool) {
        let mut idle = Vec::new();
        if self.position != Position::Last && !self.drivers {
            idle.push(param("position"));
        }
        if self.mode != Silenced::Zero {
            idle.push(param("mode"));
        }
        if heads && !self.drivers {
            idle.push(param(if self.circuit.is_some() { "circuit" } else { "head" }));
        }
        if !measured && !idle.is_empty() {
            let named: Vec<String> = idle.iter().map(ToString::to_string).collect();
            let does = if idle.len() == 1 { "does" } else { "do" };
            let named = named.join(" and ");
            tracing::warn!("{named} {does} nothing: no prompt has an answer, so that nothing is silenced");
        }
    }

    /// The layers that are asked about, and have neurons; `mlps` are those of a circuit.
    fn layers(&self, arch: &Arch, chosen: Option<&[Neuron]>, mlps: &[usize]) -> Result<Vec<Layer>, AnalysisError> {
        let mut asked = layer_list(self.layers.as_deref(), arch.n_layers)?;
        if self.layers.is_none() && chosen.is_none() && !mlps.is_empty() {
            asked.retain(|layer| mlps.contains(layer));
        }
        if let Some(neuron) = chosen.into_iter().flatten().find(|neuron| !asked.contains(&neuron.layer)) {
            return Err(AnalysisError::Bad(format!("{}: leaves out {neuron}, which is asked about", param("layers"))));
        }
        if let Some(chosen) = chosen {
            asked.retain(|layer| chosen.iter().any(|neuron| neuron.layer == *layer));
        }
        layers_of(asked, arch).map_err(AnalysisError::Bad)
    }

    /// The neurons that are looked at where none is chosen; of none that was run, the first ones.
    fn strongest(
        &self,
        model: &Model,
        items: &Asked,
        all: &Gathered,
        counting: bool,
    ) -> Result<Vec<Neuron>, AnalysisError> {
        let list = usize::from(self.list);
        if counting {
            return Ok(items.layers.iter().flat_map(|layer| layer.neurons()).take(list).collect());
        }
        let mut sized: Vec<(f64, Neuron)> = Vec::new();
        for (layer, tally) in items.layers.iter().zip(&all.tallies) {
            let sizes = match items.texts.metrics {
                Some(_) => vec![1.0; layer.width],
                None => gather::sizes(&model.decoder, layer.layer).map_err(failed)?.iter().map(|x| x.sqrt()).collect(),
            };
            sized.extend(layer.neurons().zip(sizes).enumerate().map(|(i, (neuron, size))| {
                let strength = match items.texts.metrics {
                    Some(_) => tally.attribution[i].abs(),
                    None => f64::from(tally.max[i].abs().max(tally.min[i].abs()) * size),
                };
                (strength, neuron)
            }));
        }
        sized.sort_by(|(a, i), (b, j)| b.total_cmp(a).then(i.cmp(j)));
        Ok(sized.into_iter().take(list).map(|(_, neuron)| neuron).collect())
    }

    /// What listed neurons add to the logit difference, and what silencing each, and all of them together, does to it.
    fn effects(
        &self,
        runner: &dyn Runner,
        items: &Asked,
        metrics: &[Metric],
        means: &Means,
        listed: &[Neuron],
    ) -> Result<Effects, AnalysisError> {
        let arch = &runner.model().decoder.arch;
        let sets = sets(items, listed, arch, runner.seed());
        let alone = listed.iter().map(|neuron| -> Silent { (std::slice::from_ref(neuron), &[]) });
        let together = sets.iter().map(|set| -> Silent { (&set.neurons, &set.heads) });
        let silenced: Vec<Silent> = alone.chain(together).collect();
        let mut found = Effects {
            attributions: vec![Vec::new(); listed.len()],
            swaps: vec![Vec::new(); silenced.len()],
            sets: Vec::new(),
        };
        // The numbers of a layer's neurons, by column.
        let mut layers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut by_column: Vec<usize> = (0..listed.len()).collect();
        by_column.sort_by_key(|n| listed[*n]);
        by_column.iter().for_each(|n| layers.entry(listed[*n].layer).or_default().push(*n));
        let edits_of = |of: &Silent| of.0.len().min(arch.n_layers) + of.1.len().min(arch.n_layers);
        let edits: usize = silenced.iter().map(edits_of).sum();
        for some in batches(metrics.len(), edits) {
            let mut plan = Plan::default();
            let mut asked = Vec::new();
            for i in some {
                let text = &items.texts.texts[i];
                let prompt = plan.prompt(text.id.clone(), text.ids.clone());
                let clean = Value::ask(&mut plan, prompt, &metrics[i]);
                let stream = gather::at_last(&mut plan, prompt, SiteKind::ResidPost.at(arch.n_layers - 1), Part::All);
                let of_layers: Vec<[Handle<Array>; 2]> = layers
                    .iter()
                    .map(|(layer, of_layer)| {
                        let columns = of_layer.iter().map(|n| items.column(listed[*n])).collect();
                        let act = SiteKind::MlpAct.at(*layer);
                        let act = gather::at_last(&mut plan, prompt, act, Part::Columns(columns));
                        [act, gather::at_last(&mut plan, prompt, SiteKind::MlpOut.at(*layer), Part::All)]
                    })
                    .collect();
                let forks: Vec<AskedValue> = silenced
                    .iter()
                    .map(|(neurons, heads)| {
                        let positions = &items.positions[i];
                        let mut edits = self.silencing(items, means.of_neurons, neurons, positions);
                        edits.extend(heads::silencing(heads, &means.of_heads, arch, positions));
                        let fork = plan.fork(prompt, edits);
                        Value::ask(&mut plan, fork, &metrics[i])
                    })
                    .collect();
                asked.push((i, clean, stream, of_layers, forks));
            }
            let readings = runner.run(&plan)?;
            for (_, clean, _, _, forks) in &asked {
                let base = clean.of(&readings);
                let swaps = found.swaps.iter_mut().zip(forks);
                swaps.for_each(|(swaps, fork)| swaps.push(base.swap(None, fork.of(&readings))));
            }
            if runner.is_counting() {
                continue;
            }
            let decoder = &runner.model().decoder;
            let mut along: Vec<Vec<f32>> = Vec::new();
            for (i, _, stream, ..) in &asked {
                let Some(sides) = gather::sides(&metrics[*i]) else { continue };
                along.extend(directions_of_stream(decoder, sides, &readings[*stream].values).map_err(failed)?);
            }
            let along: Vec<&[f32]> = along.iter().map(Vec::as_slice).collect();
            for (l, (layer, of_layer)) in layers.iter().enumerate() {
                // Each prompt has two directions, and one output of the MLP for both.
                let outs: Vec<&[f32]> = asked.iter().flat_map(|a| [&readings[a.3[l][1]].values[..]; 2]).collect();
                let last = decoder.arch.n_layers - 1;
                let each = directions_of_neurons(decoder, *layer, last, &along, &outs).map_err(failed)?;
                for (a, both) in asked.iter().zip(each.chunks_exact(2)) {
                    let acts = &readings[a.3[l][0]].values;
                    for (n, act) in of_layer.iter().zip(acts) {
                        let of = |row: &Vec<f32>| f64::from(*act) * f64::from(row[items.column(listed[*n])]);
                        found.attributions[*n].push([of(&both[0]), of(&both[1])]);
                    }
                }
            }
        }
        found.sets = sets;
        Ok(found)
    }

    /// The edits that silence some neurons, one a layer.
    fn silencing(&self, items: &Asked, all: &Gathered, neurons: &[Neuron], positions: &Positions) -> Vec<Edit> {
        let edit = |(layer, columns): (usize, Vec<usize>)| {
            let change = match self.mode {
                Silenced::Zero => Change::Zero,
                Silenced::Mean => {
                    let l = items.layers.iter().position(|of| of.layer == layer).unwrap_or(0);
                    let mean = |i: &usize| (all.tallies[l].sum[*i] / all.positions.max(1) as f64) as f32;
                    Change::Set(columns.iter().map(mean).collect())
                }
            };
            Edit {
                site: SiteKind::MlpAct.at(layer),
                part: Part::Columns(columns),
                positions: positions.clone(),
                change,
            }
        };
        by_layer(&items.layers, neurons).into_iter().map(edit).collect()
    }
}

/// The layers among some that have neurons.
///
/// # Errors
/// If none has, why the first has not.
pub(super) fn layers_of(some: impl IntoIterator<Item = usize>, arch: &Arch) -> Result<Vec<Layer>, String> {
    let found: Vec<Result<Layer, String>> = some.into_iter().map(|layer| Layer::of(arch, layer)).collect();
    match found.iter().all(Result::is_err) {
        true => found.into_iter().collect(),
        false => Ok(found.into_iter().flatten().collect()),
    }
}

/// The columns of each layer's neurons among some, ascending.
pub(super) fn by_layer(layers: &[Layer], neurons: &[Neuron]) -> BTreeMap<usize, Vec<usize>> {
    let mut by_layer: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for layer in layers {
        let mut columns: Vec<usize> =
            neurons.iter().filter(|n| n.layer == layer.layer).map(|n| layer.column(*n)).collect();
        columns.sort_unstable();
        if !columns.is_empty() {
            by_layer.insert(layer.layer, columns);
        }
    }
    by_layer
}

/// The listed neurons together, the heads that are silenced too, both; and random ones, as many of each layer and expert, that are none
/// of them.
fn sets(items: &Asked, listed: &[Neuron], arch: &Arch, seed: u64) -> Vec<Set> {
    // One neuron alone is a set of its own only beside heads, or where labels are told apart.
    if listed.len() < 2 && items.heads.is_empty() && items.labels.is_empty() {
        return Vec::new();
    }
    let neurons = (0..RANDOM_SETS).map_while(|k| {
        let mut rng = stats::rng(seed, &format!("neurons.random.{k}"));
        random_like(&items.layers, listed, listed, &mut rng)
    });
    let neurons: Vec<Vec<Neuron>> = neurons.collect();
    let heads = if items.heads.is_empty() { Vec::new() } else { heads::random(&items.heads, arch, seed) };
    let set = |name: &str, neurons: &[Neuron], heads: &[Head]| Set {
        name: name.to_string(),
        neurons: neurons.to_vec(),
        heads: heads.to_vec(),
    };
    let numbered = |of: &str, k: usize| format!("{} {}", random_of(of), k + 1);
    let mut sets = vec![set(LISTED, listed, &[])];
    if !items.heads.is_empty() {
        sets.push(set(HEADS, &[], &items.heads));
        sets.push(set(BOTH, listed, &items.heads));
    }
    sets.extend(neurons.iter().enumerate().map(|(k, neurons)| set(&numbered(LISTED, k), neurons, &[])));
    sets.extend(heads.iter().enumerate().map(|(k, heads)| set(&numbered(HEADS, k), &[], heads)));
    let both = neurons.iter().zip(&heads).enumerate();
    sets.extend(both.map(|(k, (neurons, heads))| set(&numbered(BOTH, k), neurons, heads)));
    sets
}

/// Random neurons, as many of each layer and each of its experts as a set has, that are none of those `without`. None where there are
/// too few others: nothing is left to compare with.
pub(super) fn random_like(
    layers: &[Layer],
    set: &[Neuron],
    without: &[Neuron],
    rng: &mut ChaCha8Rng,
) -> Option<Vec<Neuron>> {
    let without = by_layer(layers, without);
    let mut wanted: BTreeMap<(usize, Option<usize>), usize> = BTreeMap::new();
    set.iter().for_each(|n| *wanted.entry((n.layer, n.expert)).or_default() += 1);
    let mut found = Vec::new();
    for layer in layers {
        let out = without.get(&layer.layer).map(Vec::as_slice).unwrap_or_default();
        for ((_, expert), n) in wanted.range((layer.layer, None)..=(layer.layer, Some(usize::MAX))) {
            let others: Vec<usize> = layer.columns(*expert).filter(|i| !out.contains(i)).collect();
            if others.len() < *n {
                return None;
            }
            let drawn = sample(rng, others.len(), *n);
            found.extend(drawn.iter().map(|i| layer.name(others[i])));
        }
    }
    Some(found)
}

/// What the set of all listed neurons is called, that of the heads, and both together.
const LISTED: &str = "listed";
const HEADS: &str = "heads";
const BOTH: &str = "listed and heads";

/// What the names of random sets begin with.
const RANDOM: &str = "random";

/// What random sets that are like one of these are called, before their number.
fn random_of(set: &str) -> &'static str {
    match set {
        HEADS => "random heads",
        BOTH => "random neurons and heads",
        _ => "random",
    }
}

fn failed(e: candle_core::Error) -> AnalysisError {
    AnalysisError::Failed(e.to_string())
}
