//! What is read of the replies: how far the stream and every neuron differ between the reply with the value and the one without.

use super::items::{OfValue, Statement};
use super::{Asked, CONTEXTS};
use crate::analyses::prelude::*;
use crate::analyses::summary::{RowMean, mean_row};
use crate::model::arch::{Arch, Norm};
use crate::plan::Reading;
use crate::study::Gather;
use crate::study::session::SessionError;

/// With the value less without, of means over the replies' own tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Of every neuron's activation, layer by layer; over the scale of a norm after the MLP, where there is one.
    pub acts: Vec<f32>,
    /// Of the residual stream after each layer. `[layers][d_model]`
    pub stream: Vec<f32>,
}

/// The differences of each item, without and with the prompt. `[items][contexts]`
pub fn differences(runner: &dyn Runner, items: &Asked, of: &OfValue) -> Result<Vec<[Difference; 2]>, AnalysisError> {
    let arch = &runner.model().decoder.arch;
    let own = of.items.iter().flat_map(|item| item.replies.as_flattened()).map(|reply| reply.own()).max().unwrap_or(1);
    let neurons: usize = items.layers.iter().map(|layer| layer.width).sum();
    let lengths = [neurons, arch.n_layers * arch.d_model];
    let each = 4 * own * (lengths[0] + lengths[1]).div_ceil(1024);
    let mut found = Vec::with_capacity(of.items.len());
    for some in batches(of.items.len(), each) {
        let mut plan = Plan::default();
        let asked: Vec<[[OfReply; 2]; 2]> =
            of.items[some].iter().map(|item| ask(&mut plan, items, item, arch)).collect();
        let mut means = Means { asked: &asked, norm: arch.norm, lengths, made: Vec::new() };
        let readings = runner.gather(&[plan], "values: with less without, means over own tokens", &mut means)?;
        let mut each = readings.into_iter().map(Reading::into_values);
        // Where nothing was run, there are zeros.
        let mut one = |k: usize| each.next().unwrap_or_else(|| vec![0.0; lengths[k]]);
        let mut next = || Difference { acts: one(0), stream: one(1) };
        found.extend(asked.iter().map(|_| [next(), next()]));
    }
    Ok(found)
}

/// What is read of a reply.
struct OfReply {
    /// The activations of each layer that has neurons, and the output of its MLP where a norm follows.
    layers: Vec<(Handle<Array>, Option<Handle<Array>>)>,
    stream: Vec<Handle<Array>>,
}

fn ask(plan: &mut Plan, items: &Asked, item: &Statement, arch: &Arch) -> [[OfReply; 2]; 2] {
    [0, 1].map(|context| {
        [0, 1].map(|r| {
            let reply = &item.replies[context][r];
            let name = format!("{}, {}, {}", item.id, CONTEXTS[context], ["with", "without"][r]);
            let run = plan.prompt(name, reply.ids.clone());
            let positions = Positions::At((reply.from..reply.ids.len()).collect());
            let mut read =
                |site: Site| plan.read(run, Activation { site, positions: positions.clone(), part: Part::All });
            let layers = items.layers.iter().map(|of| {
                let out = arch.placement.after().then(|| read(SiteKind::MlpOut.at(of.layer)));
                (read(SiteKind::MlpAct.at(of.layer)), out)
            });
            let layers = layers.collect();
            let stream = (0..arch.n_layers).map(|layer| read(SiteKind::ResidPost.at(layer))).collect();
            OfReply { layers, stream }
        })
    })
}

/// Keeps the differences between the means of two replies.
struct Means<'a> {
    asked: &'a [[[OfReply; 2]; 2]],
    norm: Norm,
    /// How many numbers a difference has of neurons, and of the stream.
    lengths: [usize; 2],
    made: Vec<Reading>,
}

impl Means<'_> {
    fn acts(&self, readings: &Readings, of: &OfReply) -> Vec<f32> {
        let means = of.layers.iter().map(|(acts, out)| match out {
            None => mean_row(readings[*acts].rows()),
            Some(out) => scaled_mean(&readings[*acts], &readings[*out], self.norm),
        });
        means.collect::<Vec<_>>().concat()
    }
}

/// The mean of activations, each row over what the norm after the MLP divides that row's output by.
fn scaled_mean(acts: &Array, outs: &Array, by: Norm) -> Vec<f32> {
    let mut means = RowMean::default();
    for (row, out) in acts.rows().zip(outs.rows()) {
        let scale = by.divisor(out);
        means.add(&row.iter().map(|x| (f64::from(*x) / scale) as f32).collect::<Vec<_>>());
    }
    means.mean()
}

fn less(with: &[f32], without: &[f32]) -> Vec<f32> {
    with.iter().zip(without).map(|(a, b)| a - b).collect()
}

impl Gather for Means<'_> {
    fn take(&mut self, _: usize, readings: &Readings) -> Result<(), SessionError> {
        for [with, without] in self.asked.iter().flatten() {
            let stream = |of: &OfReply| -> Vec<f32> {
                of.stream.iter().flat_map(|handle| mean_row(readings[*handle].rows())).collect()
            };
            let acts = less(&self.acts(readings, with), &self.acts(readings, without));
            for values in [acts, less(&stream(with), &stream(without))] {
                self.made.push(Reading::Array(Array { shape: vec![values.len()], values }));
            }
        }
        Ok(())
    }

    fn made(&self) -> usize {
        4 * self.asked.len()
    }

    fn finish(&mut self) -> Vec<Reading> {
        let zeros = || self.lengths.map(|n| Reading::Array(Array { shape: vec![n], values: vec![0.0; n] }));
        match self.made.is_empty() {
            // A stand-in for what another process computes has the same shape.
            true => (0..2 * self.asked.len()).flat_map(|_| zeros()).collect(),
            false => std::mem::take(&mut self.made),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_over_what_the_norm_after_the_mlp_divides_by() {
        let array =
            |width: usize, values: &[f32]| Array { shape: vec![values.len() / width, width], values: values.to_vec() };
        let (acts, outs) = (array(1, &[10.0, 6.0]), array(2, &[3.0, 4.0, 1.0, 3.0]));
        let means = |by: Norm| f64::from(scaled_mean(&acts, &outs, by)[0]);
        let rms = (10.0 / 12.5f64.sqrt() + 6.0 / 5f64.sqrt()) / 2.0;
        assert!((means(Norm::rms(0.0)) - rms).abs() < 1e-6);
        // Less their means the rows are (-0.5, 0.5) and (-1, 1).
        assert!((means(Norm::layer(0.0)) - (20.0 + 6.0) / 2.0).abs() < 1e-5);
    }

    #[test]
    fn where_nothing_was_run_there_are_zeros_of_the_same_shape() {
        let reply = || OfReply { layers: Vec::new(), stream: Vec::new() };
        let asked = [[[reply(), reply()], [reply(), reply()]]];
        let mut means = Means { asked: &asked, norm: Norm::rms(0.0), lengths: [3, 5], made: Vec::new() };
        let lengths: Vec<usize> = means.finish().iter().map(|reading| reading.values().len()).collect();
        assert_eq!((lengths, means.made()), (vec![3, 5, 3, 5], 4));
    }
}
