//! All neurons over all texts: batches of texts are run one after another, and of their activations tallies are kept.

use super::tally::{Scratch, Tally};
use super::{Asked, Layer, failed};
use crate::analyses::prelude::*;
use crate::model::decoder::Decoder;
use crate::plan::Reading;
use crate::run::{RunError, directions_of_neurons, directions_of_stream};
use crate::study::Gather;
use crate::study::session::SessionError;
use rayon::prelude::*;

/// What all texts came to.
pub struct Gathered {
    /// One a layer that has neurons.
    pub tallies: Vec<Tally>,
    /// At how many positions: all but the first of each text.
    pub positions: usize,
}

/// What one part of the work is at least: tokens, and operations. A part's tally is as large as one of all texts.
const TOKENS: usize = 1 << 14;
const FLOPS: f64 = 6e12;

/// Numbers of activations that are read at once: 256 MiB of them.
const NUMBERS: usize = 1 << 26;

/// Runs all texts and tallies every neuron of the layers asked about. The first position of a text is left out: attention sinks there,
/// with activations that are like no others.
pub(super) fn gather(runner: &dyn Runner, items: &Asked, contexts: usize) -> Result<Gathered, AnalysisError> {
    let decoder = &runner.model().decoder;
    let sizes: Vec<Vec<f32>> = match runner.is_counting() {
        true => Vec::new(),
        false => items.layers.iter().map(|l| sizes(decoder, l.layer)).collect::<Result<_, _>>().map_err(failed)?,
    };
    let empty = || items.layers.iter().map(|l| Tally::new(l.width, contexts, l.gated)).collect::<Vec<_>>();
    let mut all = Gathered { tallies: empty(), positions: 0 };
    let mut first = 0;
    for group in groups(items, decoder) {
        let (plans, asked): (Vec<Plan>, Vec<Vec<OfText>>) =
            group.iter().map(|some| plan(items, decoder, some.clone())).unzip();
        let tokens: usize = group.iter().cloned().flatten().map(|i| items.texts.texts[i].ids.len()).sum();
        let mut gatherer =
            Gatherer { decoder, items, sizes: &sizes, asked: &asked, tallies: empty(), first: first as u32 };
        let how = format!("neurons, {contexts} contexts, from token {first}");
        let readings = runner.gather(&plans, &how, &mut gatherer)?;
        for (tally, reading) in all.tallies.iter_mut().zip(&readings).filter(|_| !runner.is_counting()) {
            if let Reading::Array(array) = reading {
                tally.add(array);
            }
        }
        first += tokens;
    }
    all.positions = items.texts.texts.iter().map(|text| text.ids.len() - 1).sum();
    Ok(all)
}

/// The squared size of what each neuron of a layer writes for a unit, before a norm after the MLP.
pub(super) fn sizes(decoder: &Decoder, layer: usize) -> candle_core::Result<Vec<f32>> {
    let mut sizes = Vec::new();
    for columns in decoder.neuron_columns(layer)? {
        sizes.extend(columns?.sqr()?.sum(1)?.to_vec1::<f32>()?);
    }
    Ok(sizes)
}

/// The texts of each batch, and the batches of each part.
fn groups(items: &Asked, decoder: &Decoder) -> Vec<Vec<Range<usize>>> {
    let a_token: usize = items.layers.iter().map(|layer| layer.width).sum();
    let a_part = TOKENS.max((FLOPS / (2 * decoder.arch.layer_params() * decoder.arch.n_layers as u64) as f64) as usize);
    let (mut groups, mut batches): (Vec<Vec<Range<usize>>>, Vec<Range<usize>>) = (Vec::new(), Vec::new());
    let (mut from, mut in_batch, mut in_part) = (0, 0, 0);
    for (i, text) in items.texts.texts.iter().enumerate() {
        if i > from && (in_batch + text.ids.len()) * a_token > NUMBERS {
            batches.push(from..i);
            (from, in_batch) = (i, 0);
            if in_part >= a_part {
                groups.push(std::mem::take(&mut batches));
                in_part = 0;
            }
        }
        in_batch += text.ids.len();
        in_part += text.ids.len();
    }
    batches.push(from..items.texts.texts.len());
    groups.push(batches);
    groups
}

/// What is read of a text.
struct OfText {
    text: usize,
    /// The activations of each layer, and the output of its MLP at the last position, where something is measured.
    layers: Vec<(Handle<Array>, Option<Handle<Array>>)>,
    /// The residual stream after the last layer, at the last position.
    stream: Option<Handle<Array>>,
}

/// What is read of a run at its last position.
pub(super) fn at_last(plan: &mut Plan, run: Run, site: Site, part: Part) -> Handle<Array> {
    plan.read(run, Activation { site, positions: Positions::Last, part })
}

fn plan(items: &Asked, decoder: &Decoder, some: Range<usize>) -> (Plan, Vec<OfText>) {
    let mut plan = Plan::default();
    let measured = items.texts.metrics.is_some();
    let last = SiteKind::ResidPost.at(decoder.arch.n_layers - 1);
    let asked = some
        .map(|i| {
            let text = &items.texts.texts[i];
            let run = plan.prompt(text.id.clone(), text.ids.clone());
            let of_layer = |layer: &Layer| {
                let act = SiteKind::MlpAct.at(layer.layer);
                let act = plan.read(run, Activation { site: act, positions: Positions::All, part: Part::All });
                let out = measured.then(|| at_last(&mut plan, run, SiteKind::MlpOut.at(layer.layer), Part::All));
                (act, out)
            };
            let layers = items.layers.iter().map(of_layer).collect();
            let stream = measured.then(|| at_last(&mut plan, run, last, Part::All));
            OfText { text: i, layers, stream }
        })
        .collect();
    (plan, asked)
}

/// The answer and foil of a logit difference.
pub(super) fn sides(metric: &Metric) -> Option<[&[u32]; 2]> {
    match metric {
        Metric::LogitDifference { answer, foil } => Some([answer, foil]),
        Metric::AboveMean { .. } | Metric::Continuation { .. } => None,
    }
}

/// Tallies the activations of one part.
struct Gatherer<'a> {
    decoder: &'a Decoder,
    items: &'a Asked,
    sizes: &'a [Vec<f32>],
    /// What is read by each plan.
    asked: &'a [Vec<OfText>],
    tallies: Vec<Tally>,
    /// The number, among the tokens of all texts, of the next plan's first.
    first: u32,
}

impl Gather for Gatherer<'_> {
    fn take(&mut self, plan: usize, readings: &Readings) -> Result<(), SessionError> {
        let asked = &self.asked[plan];
        let candle = |e: candle_core::Error| SessionError::from(RunError::from(e));
        let mut along: Vec<Vec<f32>> = Vec::new();
        for of in asked {
            let metric = self.items.texts.metrics.as_ref().and_then(|metrics| sides(&metrics[of.text]));
            if let (Some(sides), Some(stream)) = (metric, of.stream) {
                let [difference, _] =
                    directions_of_stream(self.decoder, sides, &readings[stream].values).map_err(candle)?;
                along.push(difference);
            }
        }
        let along: Vec<&[f32]> = along.iter().map(Vec::as_slice).collect();
        let (decoder, items, sizes, first) = (self.decoder, self.items, self.sizes, self.first);
        let taken = self.tallies.par_iter_mut().enumerate().map(|(l, tally)| {
            let (mut scratch, mut token) = (Scratch::default(), first);
            for of in asked {
                let (act, width) = (&readings[of.layers[l].0], items.layers[l].width);
                tally.take(&act.values[width..], token + 1, &sizes[l], &mut scratch);
                token += items.texts.texts[of.text].ids.len() as u32;
            }
            if along.is_empty() {
                return Ok(());
            }
            let outs: Vec<&[f32]> = asked.iter().filter_map(|of| Some(&readings[of.layers[l].1?].values[..])).collect();
            let last = decoder.arch.n_layers - 1;
            let each = directions_of_neurons(decoder, items.layers[l].layer, last, &along, &outs)?;
            for (of, row) in asked.iter().zip(each) {
                let acts = &readings[of.layers[l].0].values;
                let last = &acts[acts.len() - row.len()..];
                let sums = tally.attribution.iter_mut().zip(last.iter().zip(&row));
                sums.for_each(|(sum, (act, unit))| *sum += f64::from(*act) * f64::from(*unit));
            }
            Ok(())
        });
        taken.collect::<candle_core::Result<()>>().map_err(candle)?;
        self.first += asked.iter().map(|of| self.items.texts.texts[of.text].ids.len() as u32).sum::<u32>();
        Ok(())
    }

    fn made(&self) -> usize {
        self.tallies.len()
    }

    fn finish(&mut self) -> Vec<Reading> {
        self.tallies.iter().map(|tally| Reading::Array(tally.array())).collect()
    }
}
