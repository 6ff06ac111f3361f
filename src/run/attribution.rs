//! Direct logit attribution: what each head, each MLP and the embedding add to the metric by themselves.
//!
//! The residual stream before the final norm is a sum, so that a logit is a sum too once the norm's scale is held fixed:
//! a component `c` contributes `(c / s) . u`, with `u` the unembedding row times the norm's gain and `s` the scale of the
//! whole stream (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). A layer norm centres what it
//! reads; centring `u` instead is the same. Where a family norms what attention adds, the norm's own scale is held fixed
//! too and the rest of it is linear in the heads. Where layers multiply the whole stream by numbers of theirs, what is added counts
//! as multiplied by those that follow. For several tokens, the weights are the gradient of logsumexp at the
//! run's own logits. Of one half of a logit difference, the direction is the tokens' unembedding less the vocabulary's mean.
//!
//! Attributions are read at the last position, while the pass goes by: a few numbers a component are kept, no activation.

use super::Found;
use super::end::log_sum_exp;
use crate::model::arch::{Mixer, NormKind};
use crate::model::decoder::Decoder;
use crate::model::places::moved;
use crate::model::weights::ChannelWeights;
use crate::model::weights::{LayerWeights, Linear};
use crate::ops;
use crate::ops::vectors::dot;
use crate::plan::{Array, AttributionReadout, Program, Reading, Run};
use crate::site::{Site, SiteKind};
use candle_core::{Result, Tensor};
use std::ops::Range;

/// The attributions that a pass reads.
pub(super) struct Attributions<'a> {
    decoder: &'a Decoder,
    /// The tokens of all entries, ascending.
    tokens: Vec<u32>,
    /// Unembedding rows times the final norm's gain, centred where that norm centres. `[tokens, d_model]`
    directions: Tensor,
    /// That of the vocabulary's mean, if an entry is of half of a logit difference. `[1, d_model]`
    mean: Option<Tensor>,
    /// All of them on the host, the mean's last.
    rows: Vec<Vec<f32>>,
    entries: Vec<Entry>,
}

/// One readout.
struct Entry {
    readout: usize,
    run: Run,
    /// Indices into the directions: the answers, then the foils, or, of half of a logit difference, the mean.
    tokens: Vec<usize>,
    answers: usize,
    less_mean: bool,
    /// Contributions before division by the final scale. `[layers + 1][heads + 2][tokens of the entry]`
    cells: Vec<f64>,
}

impl<'a> Attributions<'a> {
    /// The attributions that a program reads of the runs that `of` names; none if there are none.
    pub(super) fn new(decoder: &'a Decoder, program: &Program, of: impl Fn(Run) -> bool) -> Result<Option<Self>> {
        let wanted: Vec<&AttributionReadout> = program.attributions.iter().filter(|r| of(r.run)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let named = |r: &AttributionReadout| r.answer.iter().chain(r.foil.unwrap_or_default()).copied().collect();
        let mut tokens: Vec<u32> = wanted.iter().flat_map(|r| -> Vec<u32> { named(r) }).collect();
        tokens.sort_unstable();
        tokens.dedup();
        let cells = (decoder.arch.n_layers + 1) * (decoder.arch.n_heads + 2);
        let index = |id: u32| tokens.partition_point(|t| *t < id);
        let entry = |r: &&AttributionReadout| {
            let less_mean = r.foil.is_none();
            let mean = less_mean.then_some(tokens.len());
            let tokens: Vec<usize> = named(r).into_iter().map(index).chain(mean).collect();
            let (answers, cells) = (r.answer.len(), vec![0.0; cells * tokens.len()]);
            Entry { readout: r.readout, run: r.run, answers, less_mean, cells, tokens }
        };
        let entries: Vec<Entry> = wanted.iter().map(entry).collect();
        let directions = through_norm(decoder, &decoder.unembedding(&tokens)?)?;
        let mean = entries.iter().any(|e| e.less_mean).then(|| -> Result<Tensor> {
            let row = Tensor::new(decoder.mean_unembedding()?, directions.device())?;
            through_norm(decoder, &row.unsqueeze(0)?)
        });
        let mean = mean.transpose()?;
        let mut rows: Vec<Vec<f32>> = directions.to_vec2()?;
        rows.extend(mean.as_ref().map(Tensor::to_vec2).transpose()?.unwrap_or_default());
        Ok(Some(Attributions { decoder, rows, tokens, directions, mean, entries }))
    }

    /// The sites that are read.
    pub(super) fn wants(&self, site: Site) -> bool {
        match site.kind {
            SiteKind::Embed | SiteKind::MixOut | SiteKind::Z | SiteKind::MlpDelta | SiteKind::PleOut => true,
            SiteKind::AttnOut => self.decoder.arch.placement.after(),
            _ => false,
        }
    }

    /// The runs whose last rows are read, in the order in which they are handed over.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> {
        self.entries.iter().map(|e| e.run)
    }

    /// Takes a site's value at the last position of every run. `[runs, width]`
    pub(super) fn at(&mut self, site: Site, value: &Tensor) -> Result<()> {
        if site.kind == SiteKind::Z {
            return self.heads(value, site.layer);
        }
        let width = value.dim(1)?;
        let value = ops::to_vec(value)?;
        let (heads, layers) = (self.decoder.arch.n_heads, self.decoder.arch.n_layers);
        let rows: Vec<&[f32]> = value.chunks_exact(width).collect();
        match site.kind {
            SiteKind::Embed => self.whole(&rows, layers, 0),
            SiteKind::MlpDelta => self.whole(&rows, site.layer, heads),
            // Beside the attention's bias, which is there already.
            SiteKind::PleOut => self.whole(&rows, site.layer, heads + 1),
            SiteKind::MixOut => self.beside(&rows, site.layer),
            SiteKind::AttnOut => {
                let arch = &self.decoder.arch;
                for (entry, row) in self.entries.iter_mut().zip(&rows) {
                    let scale = arch.norm.divisor(row);
                    let n = entry.tokens.len();
                    // The bias, in the cell after the MLP's, is part of what the norm scales.
                    for c in (0..heads).chain([heads + 1]).map(|column| cell(heads, site.layer, column)) {
                        entry.cells[c * n..(c + 1) * n].iter_mut().for_each(|v| *v /= scale);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What a mixer beside attention adds, in the cell of attention's bias.
    fn beside(&mut self, rows: &[&[f32]], layer: usize) {
        let arch = &self.decoder.arch;
        let Mixer::Both(both) = arch.layers[layer].mixer else { return };
        let scale = both.scales[1] * arch.residual_scale.unwrap_or(1.0);
        let at = cell(arch.n_heads, layer, arch.n_heads + 1);
        for (entry, row) in self.entries.iter_mut().zip(rows) {
            for (k, t) in entry.tokens.iter().enumerate() {
                entry.cells[at * entry.tokens.len() + k] += scale * dot(row, &self.rows[*t]);
            }
        }
    }

    /// What one component adds as a whole.
    fn whole(&mut self, rows: &[&[f32]], layer: usize, column: usize) {
        let heads = self.decoder.arch.n_heads;
        for (entry, row) in self.entries.iter_mut().zip(rows) {
            let at = cell(heads, layer, column);
            for (k, t) in entry.tokens.iter().enumerate() {
                entry.cells[at * entry.tokens.len() + k] += dot(row, &self.rows[*t]);
            }
        }
    }

    /// What each head adds, and the output projection's bias; before a post-norm's scale.
    fn heads(&mut self, z: &Tensor, layer: usize) -> Result<()> {
        let heads = self.decoder.arch.n_heads;
        let weights = self.decoder.weights(layer)?;
        // A mixer of another kind has no heads to attribute to.
        let Some((o, own)) = weights.mixer.out() else { return Ok(()) };
        let through = |directions: &Tensor| through_layer(self.decoder, &weights, o, &moved(directions, z.device())?);
        let (mut through_o, mut read) = through(&self.directions)?;
        if let Some(mean) = &self.mean {
            // By itself: the others' bits do not depend on whether it is there.
            let of_mean = through(mean)?;
            through_o = Tensor::cat(&[through_o, of_mean.0], 0)?;
            read = Tensor::cat(&[read, of_mean.1], 0)?;
        }
        let of = |(row, entry): (usize, &Entry)| entry.tokens.iter().map(move |t| (row as u32, *t as u32)).collect();
        let pairs: Vec<(u32, u32)> = self.entries.iter().enumerate().flat_map(|e| -> Vec<_> { of(e) }).collect();
        let dots: Vec<Vec<f32>> = ops::head_dots(z, &through_o, &pairs, own.unwrap_or(1))?.to_vec2()?;
        let bias = o.bias.as_ref().map(|b| b.to_dtype(read.dtype())?.to_vec1::<f32>()).transpose()?;
        let read: Vec<Vec<f32>> = if bias.is_some() { read.to_vec2()? } else { Vec::new() };
        let mut dots = dots.iter();
        for entry in &mut self.entries {
            let (n, first) = (entry.tokens.len(), cell(heads, layer, 0));
            for ((k, t), dots) in entry.tokens.iter().enumerate().zip(&mut dots) {
                let bias = bias.as_ref().map_or(0.0, |b| dot(b, &read[*t]));
                // What a mixer without heads gives stands beside its bias.
                let rest = if own.is_none() { dots.iter().map(|added| f64::from(*added)).sum() } else { 0.0 };
                for (h, added) in dots.iter().enumerate().filter(|_| own.is_some()) {
                    entry.cells[(first + h) * n + k] = f64::from(*added);
                }
                entry.cells[(first + heads + 1) * n + k] += bias + rest;
            }
        }
        Ok(())
    }

    /// The readings, from the last residual stream of every run. `[runs, d_model]`
    pub(super) fn finish(self, resid: &Tensor) -> Result<Found> {
        let arch = &self.decoder.arch;
        let logits = self.decoder.uncapped_logits(&self.decoder.final_norm(resid)?, &self.tokens)?;
        let logits: Vec<Vec<f32>> = logits.to_dtype(candle_core::DType::F32)?.to_vec2()?;
        let biases = self.biases()?;
        let resid: Vec<Vec<f32>> = resid.to_dtype(candle_core::DType::F32)?.to_vec2()?;
        let shape = vec![arch.n_layers + 1, arch.n_heads + 2];
        // The embedding stands in the last row, and goes through all layers.
        let later: Vec<f64> = (0..arch.n_layers).chain([0]).map(|l| self.decoder.scale_of(l..arch.n_layers)).collect();
        let readings = self.entries.into_iter().zip(resid).zip(logits).map(|((entry, resid), logits)| {
            let scale = arch.final_norm.unwrap_or(arch.norm).divisor(&resid);
            let of =
                |range: Range<usize>| entry.tokens[range].iter().map(|t| f64::from(logits[*t])).collect::<Vec<_>>();
            let answer = Soft::of(&of(0..entry.answers));
            let foil = match entry.less_mean {
                // The mean is one direction, and linear.
                true => Soft { weights: vec![1.0], rest: 0.0 },
                false => Soft::of(&of(entry.answers..entry.tokens.len())),
            };
            let weights: Vec<f64> = answer.weights.iter().copied().chain(foil.weights.iter().map(|w| -w)).collect();
            let weighed = |cell: &[f64]| cell.iter().zip(&weights).map(|(c, w)| c * w).sum::<f64>() / scale;
            let cells = entry.cells.chunks_exact(weights.len()).enumerate();
            let mut values: Vec<f32> =
                cells.map(|(at, c)| (weighed(c) * later[at / (arch.n_heads + 2)]) as f32).collect();
            let last = arch.n_layers * (arch.n_heads + 2);
            let bias = entry.tokens.iter().zip(&weights).map(|(t, w)| w * biases[*t]).sum::<f64>();
            values[last + 1] = bias as f32;
            values[last + 2] = (answer.rest - foil.rest) as f32;
            (entry.readout, Reading::Array(Array { shape: shape.clone(), values }))
        });
        Ok(readings.collect())
    }

    /// What the final norm's bias and the unembedding's add to each token's logit, and to the mean logit.
    fn biases(&self) -> Result<Vec<f64>> {
        let (own, mean) = self.decoder.unembedding_bias(&self.tokens)?;
        let mut biases: Vec<f64> = own.into_iter().map(f64::from).chain([mean]).collect();
        let Some(bias) = self.decoder.final_norm.as_ref().and_then(|norm| norm.bias.as_ref()) else {
            return Ok(biases);
        };
        let bias: Vec<f32> = bias.to_dtype(candle_core::DType::F32)?.to_vec1()?;
        let rows: Vec<Vec<f32>> = self.decoder.unembedding(&self.tokens)?.to_vec2()?;
        biases.iter_mut().zip(rows).for_each(|(sum, row)| *sum += dot(&row, &bias));
        if self.mean.is_some() {
            biases[self.tokens.len()] += dot(self.decoder.mean_unembedding()?, &bias);
        }
        Ok(biases)
    }
}

/// The directions of the residual stream after the last layer along which what is added to it is attributed to a logit difference at
/// one position, and to the answer's half of it: the inner product with what a component adds is its attribution. They are of the run
/// whose stream is `resid` there: the final norm's scale, and the weights of several tokens, are held at this run's. `[d_model]` each,
/// nats a unit
///
/// # Errors
/// If the stream is no sum, a token is out of range or candle fails.
pub fn directions_of_stream(decoder: &Decoder, [answer, foil]: [&[u32]; 2], resid: &[f32]) -> Result<[Vec<f32>; 2]> {
    let arch = &decoder.arch;
    arch.adds_up().map_err(candle_core::Error::Msg)?;
    let tokens: Vec<u32> = answer.iter().chain(foil).copied().collect();
    let stream = Tensor::new(resid, decoder.places.last())?.to_dtype(decoder.dtype)?.unsqueeze(0)?;
    let logits = ops::to_vec(&decoder.uncapped_logits(&decoder.final_norm(&stream)?, &tokens)?)?;
    let logits: Vec<f64> = logits.into_iter().map(f64::from).collect();
    let of_answer = Soft::of(&logits[..answer.len()]).weights;
    let of_foil = Soft::of(&logits[answer.len()..]).weights;
    let scale_of_end = arch.final_norm.unwrap_or(arch.norm).divisor(resid);
    let directions = through_norm(decoder, &decoder.unembedding(&tokens)?)?;
    let along = |weights: Vec<f64>| -> Result<Vec<f32>> {
        let weights: Vec<f32> = weights.into_iter().map(|w| (w / scale_of_end) as f32).collect();
        ops::to_vec(&Tensor::new(weights, directions.device())?.unsqueeze(0)?.matmul(&directions)?)
    };
    let less = of_foil.iter().map(|w| -w);
    let difference = along(of_answer.iter().copied().chain(less).collect())?;
    let mut half = along(of_answer.iter().copied().chain(of_foil.iter().map(|_| 0.0)).collect())?;
    let mean = Tensor::new(decoder.mean_unembedding()?, directions.device())?.unsqueeze(0)?;
    let mean = ops::to_vec(&through_norm(decoder, &mean)?)?;
    half.iter_mut().zip(mean).for_each(|(x, mean)| *x -= (f64::from(mean) / scale_of_end) as f32);
    Ok([difference, half])
}

/// A direction of the residual stream after the last layer as one of a layer's `z`: the inner product of what a head gives, or of a part of that, with the
/// direction's part of the head is what that adds along it. It is of the run whose `attn_out` of the layer is given, since a norm
/// after it is held at this run's scale. `[width of z]`
///
/// # Errors
/// If the layer has no mixer or cannot be read, or candle fails.
pub fn direction_of_z(decoder: &Decoder, layer: usize, direction: &[f32], attn_out: &[f32]) -> Result<Vec<f32>> {
    Ok(directions_of_z(decoder, layer, &[direction], &[attn_out])?.concat())
}

/// [`direction_of_z`] of several directions, each of the run whose `attn_out` is given beside it. `[rows][width of z]`
///
/// # Errors
/// As [`direction_of_z`].
pub fn directions_of_z(
    decoder: &Decoder,
    layer: usize,
    directions: &[&[f32]],
    attn_outs: &[&[f32]],
) -> Result<Vec<Vec<f32>>> {
    let arch = &decoder.arch;
    let weights = decoder.weights(layer)?;
    let Some((o, _)) = weights.mixer.out() else { candle_core::bail!("layer {layer} has no mixer") };
    let rows = (directions.len(), arch.d_model);
    let directions = Tensor::from_vec(directions.concat(), rows, decoder.places.layer(layer))?;
    let (through_o, _) = through_layer(decoder, &weights, o, &directions)?;
    let mut found: Vec<Vec<f32>> = (through_o * decoder.scale_of(layer..arch.n_layers))?.to_vec2()?;
    if arch.placement.after() {
        for (row, out) in found.iter_mut().zip(attn_outs) {
            let by = arch.norm.divisor(out);
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / by) as f32);
        }
    }
    Ok(found)
}

/// A direction of the residual stream after the last layer as one of what a layer's channel gives, and so of each part of it: the inner product of a part
/// with it is what that part adds along the direction. It is of the run whose `mlp_out` of the layer is given, since a norm after it is
/// held at this run's scale. `[d_model]`
///
/// # Errors
/// If the layer cannot be read or candle fails.
pub fn direction_of_channel(decoder: &Decoder, layer: usize, direction: &[f32], mlp_out: &[f32]) -> Result<Vec<f32>> {
    let arch = &decoder.arch;
    let scale = arch.residual_scale.unwrap_or(1.0) * decoder.scale_of(layer..arch.n_layers);
    let Some(norm) = &decoder.weights(layer)?.mlp_post_norm else {
        return Ok(direction.iter().map(|x| (f64::from(*x) * scale) as f32).collect());
    };
    let (gain, scale) = (ops::to_vec(&norm.weight)?, scale / arch.norm.divisor(mlp_out));
    Ok(direction.iter().zip(gain).map(|(x, gain)| (f64::from(*x) * f64::from(gain) * scale) as f32).collect())
}

/// The same of what single experts of a layer give, `routed` being the sum of all: a norm of that sum is held at its scale.
///
/// # Errors
/// As [`direction_of_channel`].
pub fn direction_of_experts(
    decoder: &Decoder,
    layer: usize,
    direction: &[f32],
    mlp_out: &[f32],
    routed: &[f32],
) -> Result<Vec<f32>> {
    let along = direction_of_channel(decoder, layer, direction, mlp_out)?;
    let weights = decoder.weights(layer)?;
    let ChannelWeights::Experts(of, experts) = &weights.channel else { return Ok(along) };
    let Some((norm, apart)) = of.apart.zip(experts.apart.as_ref()) else { return Ok(along) };
    let (gain, by) = (ops::to_vec(&apart.routed.weight)?, norm.divisor(routed));
    Ok(along.iter().zip(gain).map(|(x, gain)| (f64::from(*x) * f64::from(gain) / by) as f32).collect())
}

/// The direction of the residual stream that a layer's MLP reads along which it moves what the gates of some neurons read, on average
/// over these; of an MLP without a gate, what their non-linearity reads. With it what they get whatever the stream: biases. It is of
/// the run whose stream is `resid`: a norm before the MLP is held at this run's scale. `[d_model]`
///
/// # Errors
/// If the layer has no MLP or cannot be read, a neuron is out of range, or candle fails.
pub fn direction_of_gates(
    decoder: &Decoder,
    layer: usize,
    neurons: &[usize],
    resid: &[f32],
) -> Result<(Vec<f32>, f64)> {
    let weights = decoder.weights(layer)?;
    let Some(mlp) = weights.channel.mlp() else { candle_core::bail!("layer {layer} has no MLP of its own") };
    let read = mlp.gate.as_ref().unwrap_or(&mlp.up);
    let index: Vec<u32> = neurons.iter().map(|neuron| *neuron as u32).collect();
    let mean = |x: Tensor| ops::to_vec(&x.to_dtype(candle_core::DType::F32)?.mean(0)?);
    let mut direction = mean(read.weight.rows(&index)?)?;
    let mut bias = 0.0;
    if let Some(of) = &read.bias {
        bias += f64::from(mean(of.index_select(&Tensor::new(index, of.device())?, 0)?.unsqueeze(1)?)?[0]);
    }
    let Some(norm) = &weights.mlp_norm else { return Ok((direction, bias)) };
    if let Some(of) = &norm.bias {
        bias += dot(&direction, &ops::to_vec(of)?);
    }
    direction.iter_mut().zip(ops::to_vec(&norm.weight)?).for_each(|(x, gain)| *x *= gain);
    let center = match norm.by.kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => direction.iter().map(|x| f64::from(*x)).sum::<f64>() / direction.len().max(1) as f64,
    };
    let by = decoder.arch.norm.divisor(resid);
    Ok((direction.into_iter().map(|x| ((f64::from(x) - center) / by) as f32).collect(), bias))
}

/// What each head of a layer adds to the residual stream by a `z` of its own: through the output projection without its bias and,
/// where a norm follows, through that norm held at the scale of `attn_out`. `[heads][d_model]`
///
/// # Errors
/// If the layer has no heads or cannot be read, or candle fails.
pub fn writes_of_heads(decoder: &Decoder, layer: usize, z: &[f32], attn_out: &[f32]) -> Result<Vec<Vec<f32>>> {
    let arch = &decoder.arch;
    let weights = decoder.weights(layer)?;
    let z = Tensor::new(z, decoder.places.layer(layer))?.to_dtype(decoder.dtype)?.unsqueeze(0)?;
    let heads = decoder.head_outputs(layer, &z)?.to_dtype(candle_core::DType::F32)?.reshape(((), arch.d_model))?;
    let gained = match &weights.attn_post_norm {
        Some(norm) => (heads.broadcast_mul(&norm.weight)? / arch.norm.divisor(attn_out))?,
        None => heads,
    };
    match scale(decoder, &weights) {
        Some(scale) => (gained * scale)?.to_vec2(),
        None => gained.to_vec2(),
    }
}

/// Directions of the residual stream after the layer `at`, `[rows, d_model]`, as what each neuron of a layer adds along them for a unit
/// of its activation.
/// Each row is of the run whose `mlp_out` of the layer is given beside it, since a norm after it is held at this run's scale; without
/// one, nothing has to be given. `[rows, neurons]`, neurons as in `mlp_act`
///
/// # Errors
/// If the layer has no neurons or cannot be read, or candle fails.
pub fn directions_of_neurons(
    decoder: &Decoder,
    layer: usize,
    at: usize,
    directions: &[&[f32]],
    mlp_outs: &[&[f32]],
) -> Result<Vec<Vec<f32>>> {
    let arch = &decoder.arch;
    let rows = (directions.len(), arch.d_model);
    let directions = Tensor::from_vec(directions.concat(), rows, decoder.places.layer(layer))?;
    let directions = (directions * decoder.scale_of(layer..at + 1))?;
    let mut found: Vec<Vec<f32>> = vec![Vec::new(); directions.dim(0)?];
    for writes in decoder.neuron_writes(layer)? {
        let along: Vec<Vec<f32>> = directions.matmul(&writes?.t()?)?.to_vec2()?;
        found.iter_mut().zip(along).for_each(|(row, part)| row.extend(part));
    }
    if arch.placement.after() {
        for (row, out) in found.iter_mut().zip(mlp_outs) {
            let by = arch.norm.divisor(out);
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / by) as f32);
        }
    }
    Ok(found)
}

/// Directions of the residual stream as directions of a layer's `z` and of its mixer's output, but for the scale of a norm after it.
fn through_layer(
    decoder: &Decoder,
    weights: &LayerWeights,
    out: &Linear,
    directions: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let matrix = out.weight.tensor()?.to_dtype(directions.dtype())?;
    let read = match &weights.attn_post_norm {
        Some(norm) => directions.broadcast_mul(&norm.weight)?,
        None => directions.clone(),
    };
    let read = match scale(decoder, weights) {
        Some(scale) => (read * scale)?,
        None => read,
    };
    Ok((read.matmul(&matrix)?, read))
}

/// What a layer's `attn_out` is multiplied by on its way to the residual stream, if it is.
fn scale(decoder: &Decoder, weights: &LayerWeights) -> Option<f64> {
    let scale = decoder.arch.residual_scale.unwrap_or(1.0) * weights.mixer.scale();
    (scale != 1.0).then_some(scale)
}

/// The number of a cell; an entry's tokens have one each.
fn cell(heads: usize, layer: usize, column: usize) -> usize {
    layer * (heads + 2) + column
}

/// logsumexp, to first order at its arguments: its gradient, and what is left.
struct Soft {
    weights: Vec<f64>,
    /// logsumexp less the weighted sum: the entropy of the weights. 0 for one token.
    rest: f64,
}

impl Soft {
    fn of(logits: &[f64]) -> Self {
        let total = log_sum_exp(logits.iter().copied());
        let weights: Vec<f64> = logits.iter().map(|l| (l - total).exp()).collect();
        let sum: f64 = weights.iter().zip(logits).map(|(w, l)| w * l).sum();
        Soft { rest: total - sum, weights }
    }
}

/// Rows of the unembedding as directions of the stream before the final norm. `[rows, d_model]`, f32
fn through_norm(decoder: &Decoder, rows: &Tensor) -> Result<Tensor> {
    let Some(norm) = &decoder.final_norm else { return Ok(rows.clone()) };
    let directions = rows.broadcast_mul(&norm.weight)?;
    match norm.by.kind {
        NormKind::Rms => Ok(directions),
        NormKind::Layer => directions.broadcast_sub(&directions.mean_keepdim(1)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_order_of_logsumexp_and_its_rest_make_it_whole() {
        let logits = [1.0, 3.0, -2.0];
        let soft = Soft::of(&logits);
        let sum: f64 = soft.weights.iter().zip(logits).map(|(w, l)| w * l).sum();
        let whole = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
        assert!((sum + soft.rest - whole).abs() < 1e-12);
        assert_eq!(Soft::of(&[5.0]).rest, 0.0);
    }
}
