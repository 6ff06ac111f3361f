//! The detection direction of each layer and place, and how far along it the two kinds of prompts lie in the mean.

use super::{Items, Place};
use crate::analyses::AnalysisError;
use crate::analyses::directions::{norm, scaled};
use crate::analyses::summary::mean_row;
use crate::ops::vectors::dot;
use crate::plan::{Part, Plan, What};
use crate::session::Session;
use crate::site::SiteKind;
use crate::stats;
use rand::Rng;
use rand_distr::StandardNormal;
use std::sync::Arc;

/// Pairs whose activations are held at once.
const PAIRS_AT_ONCE: usize = 16;

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
    /// A random direction of norm 1 for each layer.
    pub(super) random: Vec<Arc<[f32]>>,
}

/// Sums of the activations of one place, layer, half and class: every pair counts once.
#[derive(Clone, Default)]
struct Sum {
    sum: Vec<f64>,
    n: usize,
}

impl Sum {
    fn add(&mut self, row: &[f32]) {
        self.sum.resize(row.len(), 0.0);
        self.sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        self.n += 1;
    }

    fn mean(&self) -> Vec<f32> {
        self.sum.iter().map(|sum| (sum / self.n as f64) as f32).collect()
    }
}

/// Every pair's activations, so many pairs at a time.
pub(super) fn plans(items: &Items) -> Vec<Plan> {
    let pairs: Vec<usize> = (0..items.pairs.tokens.len()).collect();
    pairs.chunks(PAIRS_AT_ONCE).map(|some| plan(items, some)).collect()
}

/// For each pair, side, place and layer, the residual stream at that place.
fn plan(items: &Items, pairs: &[usize]) -> Plan {
    let mut plan = Plan::default();
    for pair in pairs {
        for (side, run) in items.pairs.add(&mut plan, *pair).into_iter().enumerate() {
            for place in Place::ALL {
                for layer in &items.layers {
                    let (site, part) = (SiteKind::ResidPre.at(*layer), Part::All);
                    plan.read(run, What::Activation { site, positions: items.positions(place, *pair, side), part });
                }
            }
        }
    }
    plan
}

impl Signals {
    /// Reads the activations and makes directions of them, one of each half.
    pub(super) fn of(session: &Session, items: &Items) -> Result<Self, AnalysisError> {
        let layers = items.layers.len();
        // [places][layers][halves][sides]
        let mut sums = vec![vec![[[Sum::default(), Sum::default()], [Sum::default(), Sum::default()]]; layers]; 2];
        for (k, plan) in plans(items).iter().enumerate() {
            let readings = session.run(plan)?;
            for (j, of_pair) in readings.chunks_exact(2 * 2 * layers).enumerate() {
                let fold = items.fold[k * PAIRS_AT_ONCE + j];
                for (i, reading) in of_pair.iter().enumerate() {
                    let (side, place, layer) = (i / (2 * layers), i / layers % 2, i % layers);
                    sums[place][layer][fold][side].add(&mean_row(reading.rows()));
                }
            }
        }
        let signals =
            |of_place: &Vec<[[Sum; 2]; 2]>| of_place.iter().map(|halves| halves.each_ref().map(signal)).collect();
        let of = sums.iter().map(signals).collect();
        Ok(Signals { of, random: random(layers, session.model.decoder.arch.d_model, session.seed) })
    }

    /// Signals without a direction, to count with.
    pub(super) fn zeros(items: &Items, d_model: usize) -> Self {
        let none: Arc<[f32]> = vec![0.0; d_model].into();
        let signal = Signal { unit: none.clone(), positive: 0.0, negative: 0.0 };
        let layers = items.layers.len();
        Signals { of: vec![vec![[signal.clone(), signal]; layers]; 2], random: vec![none; layers] }
    }

    /// What a pair of a half is changed by: the other half's signal.
    pub(super) fn for_fold(&self, place: Place, layer: usize, fold: usize) -> &Signal {
        &self.of[place as usize][layer][1 - fold]
    }
}

/// The signal between the means of two classes; without a direction where they are equal.
fn signal([positive, negative]: &[Sum; 2]) -> Signal {
    let (positive, negative) = (positive.mean(), negative.mean());
    let difference: Vec<f32> = positive.iter().zip(&negative).map(|(p, n)| p - n).collect();
    let length = norm(&difference);
    let unit = if length > 0.0 { scaled(&difference, 1.0 / length) } else { difference };
    Signal { positive: dot(&positive, &unit), negative: dot(&negative, &unit), unit: unit.into() }
}

/// Directions of norm 1, uniform over the sphere, one a layer.
fn random(layers: usize, d_model: usize, seed: u64) -> Vec<Arc<[f32]>> {
    let mut rng = stats::rng(seed, "commitment.random");
    let mut one = |_| -> Arc<[f32]> {
        let direction: Vec<f32> = (0..d_model).map(|_| rng.sample(StandardNormal)).collect();
        scaled(&direction, 1.0 / norm(&direction).max(f64::MIN_POSITIVE)).into()
    };
    (0..layers).map(&mut one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_points_from_the_negatives_to_the_positives_and_knows_where_both_lie() {
        let sum = |rows: &[[f32; 2]]| {
            let mut sum = Sum::default();
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
        let found = random(3, 64, 5);
        assert!(found.iter().all(|r| (norm(r) - 1.0).abs() < 1e-6));
        assert!(found[0] != found[1] && found == random(3, 64, 5) && found != random(3, 64, 6));
    }
}
