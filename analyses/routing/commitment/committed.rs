//! Where the route is committed: the layer that reads the content, and the one at which the signal has arrived.

use super::{Items, Kind, Measured, Place};
use crate::analyses::prelude::*;
use crate::stats;
use rand::Rng;

/// Resamples of pairs for the interval of a layer.
const RESAMPLES: usize = 1000;

/// The share of the largest effect that a layer must still have.
const HALF: f64 = 0.5;

/// The first and the last layer at which a change has half of the largest effect towards the other prompt. `effects` are means,
/// one a layer; none where no effect goes there.
fn large(effects: &[f64], gap: f64) -> Option<(usize, usize)> {
    let towards = |x: f64| x * gap.signum();
    let largest = effects.iter().copied().map(towards).fold(0.0, f64::max);
    let enough = |l: &usize| largest > 0.0 && towards(effects[*l]) >= HALF * largest;
    Some(((0..effects.len()).find(enough)?, (0..effects.len()).rev().find(enough)?))
}

/// [`large`] over some of the pairs.
fn over(of: &Measured, pairs: &[usize]) -> Option<(usize, usize)> {
    let mean_of = |x: &Vec<f64>| pairs.iter().map(|i| x[*i]).sum::<f64>() / pairs.len() as f64;
    large(&of.effects.iter().map(mean_of).collect::<Vec<_>>(), mean_of(&of.gap))
}

/// The layer that tells: of the content the last at which a change is large, of the last position the first.
fn decisive(place: Place, (first, last): (usize, usize)) -> usize {
    if place == Place::Content { last } else { first }
}

/// The middle 95 % of the layers that resamples of the pairs give; none where one of them gives none.
fn interval(of: &Measured, layers: &[usize], seed: u64) -> Option<(usize, usize)> {
    let n = of.base.len();
    let mut rng = stats::rng(seed, &format!("commitment.{}.{}", of.place.name(), of.kind.name()));
    let mut resample = |_| {
        let pairs: Vec<usize> = (0..n).map(|_| rng.random_range(0..n)).collect();
        Some(decisive(of.place, over(of, &pairs)?))
    };
    let mut found = (0..RESAMPLES).map(&mut resample).collect::<Option<Vec<_>>>()?;
    found.sort_unstable();
    let quantile = |q: f64| layers[found[(q * (RESAMPLES - 1) as f64).round() as usize]];
    Some((quantile(0.025), quantile(0.975)))
}

/// What one kind of change at one place says over all pairs; layers by their numbers in the model.
struct Found<'a> {
    of: &'a Measured,
    /// The layer that tells, and the last at which the change is large.
    layer: Option<(usize, usize)>,
    interval: Option<(usize, usize)>,
    /// The layer of the largest effect towards the other prompt, and that effect's mean.
    largest: Option<(usize, f64)>,
    /// The largest size of each random direction's mean effect before any layer. What is removed is compared with random
    /// directions in the same run.
    controls: Vec<f64>,
}

fn found<'a>(items: &Items, measured: &'a [Measured], of: &'a Measured, seed: u64) -> Found<'a> {
    let means = |of: &Measured| -> Vec<f64> { of.effects.iter().map(|x| mean(x).unwrap_or(0.0)).collect() };
    let large = over(of, &(0..of.base.len()).collect::<Vec<_>>());
    let largest = || {
        let sign = of.mean_gap()?.signum();
        let best = means(of).into_iter().enumerate().max_by(|a, b| (a.1 * sign).total_cmp(&(b.1 * sign)))?;
        Some((items.layers[best.0], best.1))
    };
    let controls = measured.iter().filter(|c| of.kind == Kind::Remove && c.place == of.place && !c.of_signal());
    Found {
        of,
        layer: large.map(|l| (items.layers[decisive(of.place, l)], items.layers[l.1])),
        interval: interval(of, &items.layers, seed),
        largest: largest(),
        controls: controls.map(|c| means(c).into_iter().map(f64::abs).fold(0.0, f64::max)).collect(),
    }
}

rows! {
    /// The decisive layers of a change of one place.
    pub struct CommittedRow<'a> in "commitment" {
        model: &'a str = "the model, as it was named",
        place: &'a str = "content or last",
        change: &'a str = "remove or restore",
        measure: &'a str =
            "committed: the last layer at which a change of the content has half of its largest effect, so the one that reads \
             it; arrival: the first layer at which a change of the last position has",
        n: i64 = "pairs",
        n_layers: i64 = "layers of the model",
        layer: Option<f64> = "that layer; empty where no change moves the metric towards the other prompt",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of its 95 % percentile bootstrap interval over pairs (1000 resamples)",
            "upper end of its 95 % percentile bootstrap interval over pairs (1000 resamples)",
        ],
        until: Option<f64> =
            "the last layer at which the change has half of its largest effect; of the content the same layer",
        relative_depth: Option<f64> =
            "layer / layers: the place before that layer; a head of it lies at (layer + 1/2) / layers",
        largest_layer: Option<f64> = "the layer of the largest effect towards the other prompt",
        largest_effect: Option<f64> = "that effect, mean, nats",
        largest_share: Option<f64> = "that effect over the mean gap",
        controls: i64 = "random directions at that place, before each layer; of removal alone",
        controls_largest: Option<f64> =
            "the largest size of the mean effect that any of them has before any layer, nats",
    }
}

/// The table of decisive layers: one row for each place, and for removal and restoration.
pub(super) fn table(model: &str, items: &Items, measured: &[Measured], seed: u64) -> Result<Table, AnalysisError> {
    let of_signal = measured.iter().filter(|of| of.of_signal());
    let rows = of_signal.map(|of| found(items, measured, of, seed)).map(|found| {
        let layer = found.layer.map(|l| l.0 as f64);
        CommittedRow {
            model,
            place: found.of.place.name(),
            change: found.of.kind.name(),
            measure: if found.of.place == Place::Content { "committed" } else { "arrival" },
            n: found.of.base.len() as i64,
            n_layers: items.n_layers as i64,
            layer,
            interval: found.interval.map(|(low, high)| (low as f64, high as f64)),
            until: found.layer.map(|l| l.1 as f64),
            relative_depth: layer.map(|l| l / items.n_layers as f64),
            largest_layer: found.largest.map(|l| l.0 as f64),
            largest_effect: found.largest.map(|l| l.1),
            largest_share: found.largest.zip(found.of.mean_gap()).map(|(largest, gap)| largest.1 / gap),
            controls: found.controls.len() as i64,
            controls_largest: found.controls.iter().copied().reduce(f64::max),
        }
    });
    Ok(CommittedRow::table(rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_read_at_the_last_large_effect_and_the_signal_arrives_at_the_first() {
        let effects = [-0.1, -2.0, -3.0, -1.6, -0.2];
        let found = large(&effects, -4.0).unwrap();
        assert_eq!((decisive(Place::Content, found), decisive(Place::Last, found)), (3, 1));
        assert_eq!(large(&effects, 4.0), None, "all go the other way");
        assert_eq!(large(&[0.0, 0.0], 1.0), None);
    }

    #[test]
    fn a_layer_that_every_pair_agrees_on_has_an_interval_of_one() {
        let of = Measured {
            place: Place::Content,
            kind: Kind::Remove,
            base: vec![1.0; 5],
            gap: vec![-2.0; 5],
            effects: vec![vec![-1.0; 5], vec![-1.5; 5], vec![0.0; 5]],
            answers: vec![vec![0.0; 5]; 3],
        };
        assert_eq!(interval(&of, &[2, 4, 6], 0), Some((4, 4)));
    }
}
