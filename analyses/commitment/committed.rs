//! Where the route is committed: the layer that reads the content, and the one at which the signal has arrived.

use super::{Items, Kind, Measured, Place};
use crate::analyses::AnalysisError;
use crate::analyses::summary::mean;
use crate::stats;
use crate::table::Table;
use rand::Rng;

/// Resamples of pairs for the interval of a layer.
const RESAMPLES: usize = 1000;

/// The share of the largest effect that a layer must still have.
const HALF: f64 = 0.5;

/// The last layer at which a change of the content, or the first at which one of the last position, has half of the
/// largest effect towards the other prompt. `effects` are means, one a layer; none where no effect goes there.
fn decisive(place: Place, effects: &[f64], gap: f64) -> Option<usize> {
    let towards = |x: f64| x * gap.signum();
    let largest = effects.iter().copied().map(towards).fold(0.0, f64::max);
    let enough = |l: &usize| largest > 0.0 && towards(effects[*l]) >= HALF * largest;
    match place {
        Place::Content => (0..effects.len()).rev().find(enough),
        Place::Last => (0..effects.len()).find(enough),
    }
}

/// The layer over some of the pairs.
fn over(of: &Measured, pairs: &[usize]) -> Option<usize> {
    let mean_of = |x: &Vec<f64>| pairs.iter().map(|i| x[*i]).sum::<f64>() / pairs.len() as f64;
    decisive(of.place, &of.effects.iter().map(mean_of).collect::<Vec<_>>(), mean_of(&of.gap))
}

/// The middle 95 % of the layers that resamples of the pairs give; none where one of them gives none.
fn interval(of: &Measured, layers: &[usize], seed: u64) -> Option<(usize, usize)> {
    let n = of.base.len();
    let mut rng = stats::rng(seed, &format!("commitment.{}.{}", of.place.name(), of.kind.name()));
    let mut resample = |_| over(of, &(0..n).map(|_| rng.random_range(0..n)).collect::<Vec<_>>());
    let mut found = (0..RESAMPLES).map(&mut resample).collect::<Option<Vec<_>>>()?;
    found.sort_unstable();
    let quantile = |q: f64| layers[found[(q * (RESAMPLES - 1) as f64).round() as usize]];
    Some((quantile(0.025), quantile(0.975)))
}

/// The table of decisive layers: one row for each place, and for removal and restoration.
pub(super) fn table(model: &str, items: &Items, measured: &[Measured], seed: u64) -> Result<Table, AnalysisError> {
    let rows: Vec<&Measured> = measured.iter().filter(|of| of.kind != Kind::Random).collect();
    let means = |of: &Measured| -> Vec<f64> { of.effects.iter().map(|x| mean(x).unwrap_or(0.0)).collect() };
    let whole = |of: &Measured| over(of, &(0..of.base.len()).collect::<Vec<_>>());
    let found: Vec<Option<usize>> = rows.iter().map(|of| whole(of).map(|l| items.layers[l])).collect();
    let intervals: Vec<Option<(usize, usize)>> = rows.iter().map(|of| interval(of, &items.layers, seed)).collect();
    let largest = |of: &&Measured| {
        let sign = of.mean_gap()?.signum();
        let best = means(of).into_iter().enumerate().max_by(|a, b| (a.1 * sign).total_cmp(&(b.1 * sign)))?;
        Some((items.layers[best.0], best.1))
    };
    let measure = |of: &&Measured| if of.place == Place::Content { "committed" } else { "arrival" };
    Ok(Table::new("commitment")
        .str("model", "the model, as it was named", rows.iter().map(|_| model))?
        .str("place", "content or last", rows.iter().map(|of| of.place.name()))?
        .str("change", "remove or restore", rows.iter().map(|of| of.kind.name()))?
        .str(
            "measure",
            "committed: the last layer at which a change of the content has half of its largest effect, so the one that reads \
             it; arrival: the first layer at which a change of the last position has",
            rows.iter().map(measure),
        )?
        .int("n", "pairs", rows.iter().map(|of| of.base.len() as i64))?
        .int("n_layers", "layers of the model", rows.iter().map(|_| items.n_layers as i64))?
        .float(
            "layer",
            "that layer; empty where no change moves the metric towards the other prompt",
            found.iter().map(|l| l.map(|l| l as f64)),
        )?
        .float(
            "ci_low",
            "lower end of its 95 % percentile bootstrap interval over pairs (1000 resamples)",
            intervals.iter().map(|i| i.map(|i| i.0 as f64)),
        )?
        .float(
            "ci_high",
            "upper end of its 95 % percentile bootstrap interval over pairs (1000 resamples)",
            intervals.iter().map(|i| i.map(|i| i.1 as f64)),
        )?
        .float(
            "relative_depth",
            "that layer over the number of layers",
            found.iter().map(|l| l.map(|l| l as f64 / items.n_layers as f64)),
        )?
        .float(
            "largest_layer",
            "the layer of the largest effect towards the other prompt",
            rows.iter().map(|of| largest(of).map(|l| l.0 as f64)),
        )?
        .float("largest_effect", "that effect, mean, nats", rows.iter().map(|of| largest(of).map(|l| l.1)))?
        .float(
            "largest_share",
            "that effect over the mean gap",
            rows.iter().map(|of| Some(largest(of)?.1 / of.mean_gap()?)),
        )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_read_at_the_last_large_effect_and_the_signal_arrives_at_the_first() {
        let effects = [-0.1, -2.0, -3.0, -1.6, -0.2];
        assert_eq!(decisive(Place::Content, &effects, -4.0), Some(3));
        assert_eq!(decisive(Place::Last, &effects, -4.0), Some(1));
        assert_eq!(decisive(Place::Last, &effects, 4.0), None, "all go the other way");
        assert_eq!(decisive(Place::Content, &[0.0, 0.0], 1.0), None);
    }

    #[test]
    fn a_layer_that_every_pair_agrees_on_has_an_interval_of_one() {
        let of = Measured {
            place: Place::Content,
            kind: Kind::Remove,
            base: vec![1.0; 5],
            gap: vec![-2.0; 5],
            effects: vec![vec![-1.0; 5], vec![-1.5; 5], vec![0.0; 5]],
        };
        assert_eq!(interval(&of, &[2, 4, 6], 0), Some((4, 4)));
    }
}
