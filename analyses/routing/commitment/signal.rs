//! The detection direction of each layer and place, and how far along it the two kinds of prompts lie in the mean.

use super::{Items, Place};
use crate::analyses::directions::{norm, scaled};
use crate::analyses::prelude::*;
use crate::analyses::summary::{RowMean, mean_row};
use crate::ops::vectors::dot;
use crate::stats;
use rand::Rng;
use rand_distr::StandardNormal;
use std::sync::Arc;

/// A direction with the two classes' places on it.
#[derive(Clone)]
pub(super) struct Signal {
    /// Of norm 1, from the negatives' mean to the positives'. `[d_model]`
    pub(super) unit: Arc<[f32]>,
    /// The positives' mean projection.
    pub(super) positive: f64,
    /// The negatives' mean projection.
    pub(super) negative: f64,
}

/// The signals of every place, layer and half of the pairs.
pub(super) struct Signals {
    /// `[places][layers][halves that they are from]`
    of: Vec<Vec<[Signal; 2]>>,
    /// Random directions of norm 1, each with one for every layer. `[directions][layers]`
    pub(super) random: Vec<Vec<Arc<[f32]>>>,
}

/// The pairs whose activations are read at once.
pub(super) fn some(items: &Items) -> impl Iterator<Item = Range<usize>> {
    let rows = |i: usize| -> usize { items.pairs.tokens[i].positive.len() + items.pairs.tokens[i].negative.len() };
    let longest = (0..items.pairs.tokens.len()).map(rows).max().unwrap_or(0);
    batches(items.pairs.tokens.len(), longest * items.layers.len() * items.d_model.div_ceil(1024))
}

/// The residual stream of a pair's prompt at a place, before each layer.
struct OfPlace {
    pair: usize,
    side: usize,
    place: Place,
    layers: Vec<Handle<Array>>,
}

/// Some pairs' residual streams.
fn plan(items: &Items, pairs: Range<usize>) -> (Plan, Vec<OfPlace>) {
    let (mut plan, mut asked) = (Plan::default(), Vec::new());
    for pair in pairs {
        for (side, run) in items.pairs.add(&mut plan, pair).into_iter().enumerate() {
            for place in items.places(pair) {
                let stream = |layer: &usize| {
                    let (site, part) = (SiteKind::ResidPre.at(*layer), Part::All);
                    plan.read(run, Activation { site, positions: items.positions(place, pair, side), part })
                };
                asked.push(OfPlace { pair, side, place, layers: items.layers.iter().map(stream).collect() });
            }
        }
    }
    (plan, asked)
}

impl Signals {
    /// Reads the activations of so many pairs at a time and makes directions of them, one of each half.
    pub(super) fn of(
        runner: &dyn Runner,
        items: &Items,
        pairs: impl Iterator<Item = Range<usize>>,
    ) -> Result<Self, AnalysisError> {
        let layers = items.layers.len();
        // [places][layers][halves][sides]
        let mut sums = vec![vec![<[[RowMean; 2]; 2]>::default(); layers]; 2];
        for some in pairs {
            let (plan, asked) = plan(items, some);
            let readings = runner.run(&plan)?;
            for OfPlace { pair, side, place, layers } in asked {
                let (place, fold) = (place as usize, items.fold[place as usize][pair]);
                for (of_layer, stream) in sums[place].iter_mut().zip(layers) {
                    of_layer[fold][side].add(&mean_row(readings[stream].rows()));
                }
            }
        }
        let signals =
            |of_place: &Vec<[[RowMean; 2]; 2]>| of_place.iter().map(|halves| halves.each_ref().map(signal)).collect();
        let of = sums.iter().map(signals).collect();
        Ok(Signals { of, random: random(items.controls, layers, items.d_model, runner.seed()) })
    }

    /// What a pair of a half is changed by: the other half's signal.
    pub(super) fn for_fold(&self, place: Place, layer: usize, fold: usize) -> &Signal {
        &self.of[place as usize][layer][1 - fold]
    }
}

/// The signal between the means of two classes; without a direction where they are equal.
fn signal([positive, negative]: &[RowMean; 2]) -> Signal {
    let (positive, negative) = (positive.mean(), negative.mean());
    let difference: Vec<f32> = positive.iter().zip(&negative).map(|(p, n)| p - n).collect();
    let length = norm(&difference);
    let unit = if length > 0.0 { scaled(&difference, 1.0 / length) } else { difference };
    Signal { positive: dot(&positive, &unit), negative: dot(&negative, &unit), unit: unit.into() }
}

/// Directions of norm 1, uniform over the sphere. `[directions][layers]`
fn random(directions: usize, layers: usize, d_model: usize, seed: u64) -> Vec<Vec<Arc<[f32]>>> {
    let mut rng = stats::rng(seed, "commitment.random");
    let mut one = || -> Arc<[f32]> {
        let direction: Vec<f32> = (0..d_model).map(|_| rng.sample(StandardNormal)).collect();
        scaled(&direction, 1.0 / norm(&direction).max(f64::MIN_POSITIVE)).into()
    };
    (0..directions).map(|_| (0..layers).map(|_| one()).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_points_from_the_negatives_to_the_positives_and_knows_where_both_lie() {
        let sum = |rows: &[[f32; 2]]| {
            let mut sum = RowMean::default();
            rows.iter().for_each(|row| sum.add(row));
            sum
        };
        let found = signal(&[sum(&[[4.0, 1.0], [6.0, 1.0]]), sum(&[[2.0, 1.0]])]);
        assert_eq!((&found.unit[..], found.positive, found.negative), (&[1.0, 0.0][..], 5.0, 2.0));
        let same = signal(&[sum(&[[1.0, 1.0]]), sum(&[[1.0, 1.0]])]);
        assert_eq!((&same.unit[..], same.positive), (&[0.0, 0.0][..], 0.0));
    }

    #[test]
    fn random_directions_have_norm_one_and_are_drawn_from_the_seed() {
        let found = random(2, 3, 64, 5);
        assert!(found.iter().flatten().all(|r| (norm(r) - 1.0).abs() < 1e-6));
        assert!(found[0][0] != found[0][1] && found[0] != found[1]);
        assert!(found == random(2, 3, 64, 5) && found != random(2, 3, 64, 6));
    }
}
