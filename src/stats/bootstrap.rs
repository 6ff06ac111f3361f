//! Bootstrap intervals: bias-corrected and accelerated (BCa), Efron 1987, "Better Bootstrap Confidence Intervals".

use super::{Interval, all_finite, mean_of as mean, rng};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, Normal};
use std::collections::BTreeMap;

/// Samples whose means are computed together, one a lane.
const LANES: usize = 8;

/// Indices that are held at a time, about: whole resamples, 512 at most.
const BLOCK: usize = 1 << 20;

/// How near a resample's statistic is the sample's own but for rounding, as a share of the resamples' range.
const TIE: f64 = 1e-12;

/// How an interval is to be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// Resamples; a thousand at least for an interval worth its name.
    pub resamples: usize,
    /// How often the interval is to hold the true value, between 0 and 1.
    pub level: f64,
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap { resamples: 10_000, level: 0.95, seed: 0 }
    }
}

impl Bootstrap {
    fn is_sound(&self) -> bool {
        self.resamples > 0 && self.level > 0.0 && self.level < 1.0
    }
}

/// The BCa interval of a statistic of independent items, which may be pairs or rows.
///
/// Quantiles of the resampled statistic, moved for its median bias and for its standard error's change with the value
/// (from the jackknife); between two resamples they are interpolated. Where all resamples lie on one side of the
/// statistic the bias is infinite, and the interval is the plain percentile interval. Where all are equal, the interval
/// is that value.
///
/// `None` for fewer than two items, no resamples, a level not between 0 and 1, or a statistic that is not finite for
/// the items, a resample of them, or all but one.
///
/// ```
/// use gatelens::stats::{Bootstrap, bca, pearson};
///
/// let pairs: Vec<(f64, f64)> = (0..40).map(|i| (f64::from(i), f64::from(i + i % 7))).collect();
/// let correlation = |pairs: &[(f64, f64)]| {
///     let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
///     pearson(&a, &b).unwrap_or(f64::NAN)
/// };
/// let interval = bca(&pairs, correlation, &Bootstrap::default()).ok_or("no interval")?;
/// assert!(interval.low > 0.97 && interval.high < 1.0);
/// # Ok::<(), &str>(())
/// ```
pub fn bca<T: Clone + Send + Sync>(
    items: &[T],
    statistic: impl Fn(&[T]) -> f64 + Sync,
    options: &Bootstrap,
) -> Option<Interval> {
    if items.len() < 2 || !options.is_sound() {
        return None;
    }
    let estimate = Some(statistic(items)).filter(|x| x.is_finite())?;
    let mut resampled = Vec::with_capacity(options.resamples);
    let mut indices = Indices::new(items.len(), options);
    while let Some(block) = indices.next_block() {
        let pick = |resample: &[u32]| -> Vec<T> { resample.iter().map(|i| items[*i as usize].clone()).collect() };
        resampled.par_extend(block.par_chunks_exact(items.len()).map(|resample| statistic(&pick(resample))));
    }
    let all_but = |out: usize| -> Vec<T> { [&items[..out], &items[out + 1..]].concat() };
    let jackknife: Vec<f64> = (0..items.len()).into_par_iter().map(|i| statistic(&all_but(i))).collect();
    if !all_finite(&resampled) || !all_finite(&jackknife) {
        return None;
    }
    let center = mean(&jackknife);
    let influence: Vec<f64> = jackknife.iter().map(|x| center - x).collect();
    Some(interval(estimate, resampled, acceleration(&influence), options.level))
}

/// The BCa interval of the mean; see [`bca`] and, for many samples, [`bca_family`].
pub fn bca_mean(items: &[f64], options: &Bootstrap) -> Option<Interval> {
    bca_family(&[items], options).pop().flatten()
}

/// The BCa interval of the difference of the means of two samples of independent items, `a`'s less `b`'s, each of which is resampled
/// by itself.
///
/// The acceleration is that of several samples: an item's influence is its deviation over the number of items of its sample (Davison
/// and Hinkley 1997, section 5.3). `None` as in [`bca`], if either sample has fewer than two items or one that is not finite.
pub fn bca_difference(a: &[f64], b: &[f64], options: &Bootstrap) -> Option<Interval> {
    if !options.is_sound() || [a, b].iter().any(|sample| sample.len() < 2 || !all_finite(sample)) {
        return None;
    }
    // Streams of their own: with one of both, samples of one length would be resampled alike.
    let [a, b] = [(a, "bootstrap"), (b, "bootstrap, other sample")].map(|(sample, stream)| {
        let mut group = Group::new(std::iter::once(sample), sample.len());
        let mut indices = Indices::of_stream(sample.len(), options, stream);
        while let Some(block) = indices.next_block() {
            group.resample(block, sample.len());
        }
        group
    });
    let influence = |group: &Group, sign: f64| -> Vec<f64> {
        group.deviations.iter().map(|item| sign * item[0] / group.deviations.len() as f64).collect()
    };
    let acceleration = acceleration(&[influence(&a, 1.0), influence(&b, -1.0)].concat());
    let resampled = a.resampled[0].iter().zip(&b.resampled[0]).map(|(a, b)| a - b).collect();
    let difference = a.means[0] - b.means[0];
    let Interval { low, high } = interval(0.0, resampled, acceleration, options.level);
    Some(Interval { low: difference + low, high: difference + high })
}

/// The ratio of the sums of numerators and denominators, one of each an item: a share of the whole, as an effect is of a gap.
///
/// `None` without items, or where the denominators sum to 0 or a number is not finite.
pub fn ratio(numerators: &[f64], denominators: &[f64]) -> Option<f64> {
    let ratio = numerators.iter().sum::<f64>() / denominators.iter().sum::<f64>();
    (numerators.len() == denominators.len() && ratio.is_finite()).then_some(ratio)
}

/// The BCa interval of [`ratio`] over items: numerator and denominator are resampled together, so that the denominator's own
/// uncertainty is in it.
///
/// `None` as in [`bca`], and where the denominators' sum has another sign, or is 0, in a resample: the ratio has no bounds then.
pub fn bca_ratio(numerators: &[f64], denominators: &[f64], options: &Bootstrap) -> Option<Interval> {
    bca_ratio_family(&[numerators], denominators, options).pop().flatten()
}

/// [`bca_ratio`] of each sample of numerators to the same denominators, all of them resampled alike.
///
/// Each interval is what [`bca_ratio`] gives for the sample; `None` as there. Holds 8 bytes for each resample of each sample.
pub fn bca_ratio_family<R: AsRef<[f64]> + Sync>(
    samples: &[R],
    denominators: &[f64],
    options: &Bootstrap,
) -> Vec<Option<Interval>> {
    let n = denominators.len();
    let mut intervals = vec![None; samples.len()];
    let sound = |i: &usize| samples[*i].as_ref().len() == n && all_finite(samples[*i].as_ref());
    let members: Vec<usize> = (0..samples.len()).filter(sound).collect();
    if n < 2 || !options.is_sound() || !all_finite(denominators) || members.is_empty() {
        return intervals;
    }
    let lanes = |chunk: &[usize]| Ratios::new(chunk.iter().map(|i| samples[*i].as_ref()), denominators);
    let mut groups: Vec<Ratios> = members.chunks(LANES).map(lanes).collect();
    let mut indices = Indices::new(n, options);
    while let Some(block) = indices.next_block() {
        groups.par_iter_mut().for_each(|group| block.chunks_exact(n).for_each(|resample| group.resample(resample)));
    }
    let found: Vec<Vec<Option<Interval>>> =
        groups.into_par_iter().map(|group| group.intervals(options.level)).collect();
    members.into_iter().zip(found.into_iter().flatten()).for_each(|(i, interval)| intervals[i] = interval);
    intervals
}

/// Up to [`LANES`] samples of numerators over the same denominators, resampled together.
struct Ratios<'a> {
    samples: usize,
    numerators: Vec<[f64; LANES]>,
    denominators: &'a [f64],
    /// Whether the denominators sum to more than 0.
    positive: bool,
    /// Ratios of resamples, [sample][resample].
    resampled: Vec<Vec<f64>>,
}

impl<'a> Ratios<'a> {
    fn new<'s>(samples: impl Iterator<Item = &'s [f64]>, denominators: &'a [f64]) -> Self {
        let positive = denominators.iter().sum::<f64>() > 0.0;
        let numerators = vec![[0.0; LANES]; denominators.len()];
        let mut group = Ratios { samples: 0, numerators, denominators, positive, resampled: Vec::new() };
        for (lane, sample) in samples.enumerate() {
            group.numerators.iter_mut().zip(sample).for_each(|(item, x)| item[lane] = *x);
            group.samples += 1;
            group.resampled.push(Vec::new());
        }
        group
    }

    /// The ratio of each sample over some items; not a number where the denominators' sum has another sign than that of all.
    fn of(&self, items: impl Iterator<Item = usize>) -> [f64; LANES] {
        let (mut above, mut below) = ([0.0; LANES], 0.0);
        for i in items {
            above.iter_mut().zip(&self.numerators[i]).for_each(|(sum, x)| *sum += x);
            below += self.denominators[i];
        }
        let defined = below != 0.0 && (below > 0.0) == self.positive;
        above.map(|above| if defined { above / below } else { f64::NAN })
    }

    fn resample(&mut self, resample: &[u32]) {
        let ratios = self.of(resample.iter().map(|i| *i as usize));
        self.resampled.iter_mut().zip(ratios).for_each(|(of, ratio)| of.push(ratio));
    }

    fn intervals(mut self, level: f64) -> Vec<Option<Interval>> {
        let n = self.denominators.len();
        let whole = self.of(0..n);
        let without: Vec<[f64; LANES]> = (0..n).map(|out| self.of((0..n).filter(|i| *i != out))).collect();
        let resampled = std::mem::take(&mut self.resampled);
        let of_sample = |(lane, resampled): (usize, Vec<f64>)| {
            let jackknife: Vec<f64> = without.iter().map(|ratios| ratios[lane]).collect();
            let sound = whole[lane].is_finite() && all_finite(&resampled) && all_finite(&jackknife);
            let center = mean(&jackknife);
            let influence: Vec<f64> = jackknife.iter().map(|x| center - x).collect();
            sound.then(|| interval(whole[lane], resampled, acceleration(&influence), level))
        };
        resampled.into_iter().enumerate().map(of_sample).collect()
    }
}

/// The BCa interval of the mean of each sample; samples of one length are resampled alike.
///
/// Each interval is what [`bca_mean`] gives for the sample. `None` for a sample that has fewer than two items or one
/// that is not finite, and for options as in [`bca`]. Holds 8 bytes for each resample of each sample.
pub fn bca_family<R: AsRef<[f64]> + Sync>(samples: &[R], options: &Bootstrap) -> Vec<Option<Interval>> {
    let mut intervals = vec![None; samples.len()];
    let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, sample) in samples.iter().enumerate() {
        let sample = sample.as_ref();
        if sample.len() > 1 && all_finite(sample) && options.is_sound() {
            by_length.entry(sample.len()).or_default().push(i);
        }
    }
    for (length, members) in by_length {
        let groups: Vec<Group> =
            members.chunks(LANES).map(|lanes| Group::new(lanes.iter().map(|i| samples[*i].as_ref()), length)).collect();
        let found = family_of_length(groups, length, options);
        members.into_iter().zip(found).for_each(|(i, interval)| intervals[i] = Some(interval));
    }
    intervals
}

/// The intervals of samples of one length, in their order.
fn family_of_length(mut groups: Vec<Group>, length: usize, options: &Bootstrap) -> Vec<Interval> {
    let mut indices = Indices::new(length, options);
    while let Some(block) = indices.next_block() {
        groups.par_iter_mut().for_each(|group| group.resample(block, length));
    }
    let of_group = |group: Group| {
        let lanes = group.means.into_iter().zip(group.resampled).enumerate();
        lanes
            .map(|(lane, (mean, resampled))| {
                let deviations: Vec<f64> = group.deviations.iter().map(|item| item[lane]).collect();
                let Interval { low, high } = interval(0.0, resampled, acceleration(&deviations), options.level);
                Interval { low: mean + low, high: mean + high }
            })
            .collect::<Vec<_>>()
    };
    groups.into_par_iter().map(of_group).collect::<Vec<_>>().into_iter().flatten().collect()
}

/// Up to [`LANES`] samples of one length, resampled together.
struct Group {
    means: Vec<f64>,
    /// Each item's deviation from its sample's mean: rounding is then relative to the spread.
    deviations: Vec<[f64; LANES]>,
    /// Means of resampled deviations, [sample][resample].
    resampled: Vec<Vec<f64>>,
}

impl Group {
    fn new<'a>(samples: impl Iterator<Item = &'a [f64]>, length: usize) -> Self {
        let mut group = Group { means: Vec::new(), deviations: vec![[0.0; LANES]; length], resampled: Vec::new() };
        for (lane, sample) in samples.enumerate() {
            let mean = mean(sample);
            group.deviations.iter_mut().zip(sample).for_each(|(item, x)| item[lane] = x - mean);
            group.means.push(mean);
            group.resampled.push(Vec::new());
        }
        group
    }

    /// Adds the means of a block of resamples.
    fn resample(&mut self, block: &[u32], length: usize) {
        for resample in block.chunks_exact(length) {
            let mut sums = [0.0; LANES];
            for i in resample {
                let item = &self.deviations[*i as usize];
                sums.iter_mut().zip(item).for_each(|(sum, x)| *sum += x);
            }
            self.resampled.iter_mut().zip(sums).for_each(|(means, sum)| means.push(sum / length as f64));
        }
    }
}

/// Indices of resamples, in blocks. They depend on the seed, the number of items and the resample's number alone.
struct Indices {
    items: usize,
    left: usize,
    rng: ChaCha8Rng,
    block: Vec<u32>,
}

impl Indices {
    fn new(items: usize, options: &Bootstrap) -> Self {
        Indices::of_stream(items, options, "bootstrap")
    }

    fn of_stream(items: usize, options: &Bootstrap, stream: &str) -> Self {
        Indices { items, left: options.resamples, rng: rng(options.seed, stream), block: Vec::new() }
    }

    fn next_block(&mut self) -> Option<&[u32]> {
        let resamples = self.left.min((BLOCK / self.items).clamp(1, 512));
        self.left -= resamples;
        let (rng, items) = (&mut self.rng, self.items as u32);
        self.block.clear();
        self.block.extend((0..resamples * self.items).map(|_| rng.random_range(0..items)));
        (resamples > 0).then_some(&self.block)
    }
}

/// How fast the standard error changes with the value, from the influence of each item (up to a common factor).
fn acceleration(influence: &[f64]) -> f64 {
    let largest = influence.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    let power = |p: i32| influence.iter().map(|x| (x / largest).powi(p)).sum::<f64>();
    power(3) / (6.0 * power(2).powf(1.5))
}

fn interval(estimate: f64, mut resampled: Vec<f64>, acceleration: f64, level: f64) -> Interval {
    let (least, most) = resampled.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
    let tie = TIE * (most - least);
    let below = resampled.iter().filter(|x| **x < estimate - tie).count();
    let not_above = resampled.iter().filter(|x| **x <= estimate + tie).count();
    // Resamples that equal the estimate lie half on each side.
    let share = (below + not_above) as f64 / (2 * resampled.len()) as f64;
    let tail = (1.0 - level) / 2.0;
    let moved = |p: f64| if share > 0.0 && share < 1.0 { moved(p, share, acceleration) } else { p };
    Interval { low: quantile(&mut resampled, moved(tail)), high: quantile(&mut resampled, moved(1.0 - tail)) }
}

/// The quantile that BCa takes for a nominal one; `share` of the resamples lie below the estimate.
fn moved(p: f64, share: f64, acceleration: f64) -> f64 {
    let normal = Normal::standard();
    let bias = normal.inverse_cdf(share);
    let z = bias + normal.inverse_cdf(p);
    let slope = 1.0 - acceleration * z;
    // At 0 the transformation has its pole; it tends to the outermost resample there.
    if slope > 0.0 { normal.cdf(bias + z / slope) } else { f64::from(u8::from(z > 0.0)) }
}

/// The quantile of some numbers, interpolated between them. Two of them are all that it needs: to sort would take the most of a
/// sweep's statistics.
fn quantile(numbers: &mut [f64], p: f64) -> f64 {
    let at = p * (numbers.len() - 1) as f64;
    let (_, below, more) = numbers.select_nth_unstable_by(at.floor() as usize, f64::total_cmp);
    let above = more.iter().copied().min_by(f64::total_cmp).unwrap_or(*below);
    *below + (at - at.floor()) * (above - *below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_pole_of_its_transformation_an_end_is_the_outermost_resample() {
        assert_eq!(moved(0.975, 0.9, 1.0), 1.0);
        assert_eq!(moved(0.025, 0.1, -1.0), 0.0);
        // Without bias and acceleration it is the nominal one.
        assert!((moved(0.025, 0.5, 0.0) - 0.025).abs() < 1e-9);
    }
}
