//! Values that were computed elsewhere, what holds exactly, and error rates over simulated data.
//!
//! Reference values are scipy 1.17.1's unless said; `np` is numpy, `st` is scipy.stats. A simulated rate is held to
//! four standard errors of its binomial: `4 * sqrt(rate (1 - rate) / simulations)`.

use super::mean_of as mean;
use super::*;
use rand::Rng;
use statrs::distribution::{ContinuousCDF, Normal};

const EFFECTS: [f64; 12] = [0.31, -0.12, 0.55, 0.08, 0.91, -0.27, 0.40, 0.66, -0.05, 0.22, 0.17, 0.38];

fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} is not within {tolerance} of {expected}");
}

/// That `hits` of `simulations` agree with a rate.
fn rate(hits: usize, simulations: usize, expected: f64) {
    let error = (expected * (1.0 - expected) / simulations as f64).sqrt();
    near(hits as f64 / simulations as f64, expected, 4.0 * error);
}

fn normal(rng: &mut impl Rng) -> f64 {
    Normal::standard().inverse_cdf(rng.random_range(1e-12..1.0))
}

fn normals(rng: &mut impl Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| normal(rng)).collect()
}

#[test]
fn sign_flip_is_exact_for_few_items() {
    // All 4096 patterns in itertools.product([1, -1], repeat=12): 80 have a sum at least as far from 0.
    assert_eq!(sign_flip(&EFFECTS, 10, 0), Some(80.0 / 4096.0));
    assert_eq!(sign_flip(&[2.0], 10, 0), Some(1.0));
    assert_eq!(sign_flip(&[1.0; 16], 10, 0), Some(2.0 / 65536.0));
}

#[test]
fn sign_flip_counts_ties_whatever_the_rounding() {
    // Three patterns and their opposites have a sum of 0.3 or -0.3 in exact arithmetic; rounded, two of the three are less.
    assert_eq!(sign_flip(&[0.1, 0.2, 0.2, -0.2], 10, 0), Some(10.0 / 16.0));
    assert_eq!(sign_flip(&[0.1, 0.2, -0.3], 10, 0), Some(1.0));
    let scaled: Vec<f64> = EFFECTS.iter().map(|x| x * 1e-170 / 3.0).collect();
    assert_eq!(sign_flip(&scaled, 10, 0), Some(80.0 / 4096.0));
    let huge: Vec<f64> = EFFECTS.iter().map(|x| x * 1e307 / 3.0).collect();
    assert_eq!(sign_flip(&huge, 10, 0), Some(80.0 / 4096.0));
}

#[test]
fn sign_flip_by_draws_agrees_with_all_patterns() {
    // Eight more items of 0 change no sum, but make the test draw.
    let drawn: Vec<f64> = EFFECTS.iter().copied().chain([0.0; 8]).collect();
    let p = sign_flip(&drawn, 200_000, 1).unwrap();
    rate((p * 200_001.0).round() as usize - 1, 200_000, 80.0 / 4096.0);
    assert_eq!(sign_flip(&[1.0; 40], 5, 0), Some(1.0 / 10_001.0), "fewer draws than 10,000 are raised to it");
}

#[test]
fn sign_flip_of_nothing_and_of_zeros() {
    assert_eq!(sign_flip(&[], 10_000, 0), None);
    assert_eq!(sign_flip(&[1.0, f64::NAN], 10_000, 0), None);
    assert_eq!(sign_flip(&[0.0; 5], 10_000, 0), Some(1.0));
    assert_eq!(sign_flip(&[0.0, -0.0].repeat(20), 10_000, 0), Some(1.0));
}

#[test]
fn a_family_says_which_test_and_item_is_unsound() {
    let ragged = sign_flip_family(&[vec![1.0, 2.0], vec![1.0]], 10, 0);
    assert_eq!(ragged, Err(StatsError::Ragged { test: 1, expected: 2, found: 1 }));
    let infinite = sign_flip_family(&[vec![1.0, 2.0], vec![1.0, f64::INFINITY]], 10, 0);
    assert_eq!(infinite, Err(StatsError::NotFinite { test: 1, item: 1, value: f64::INFINITY }));
    assert_eq!(sign_flip_family(&[vec![]], 10, 0), Err(StatsError::NoItems));
    assert_eq!(sign_flip_family::<Vec<f64>>(&[], 10, 0), Ok(vec![]));
}

#[test]
fn a_family_is_its_tests_with_a_correction() {
    let mut rng = rng(5, "family");
    let mut table: Vec<Vec<f64>> = (0..30).map(|_| normals(&mut rng, 40)).collect();
    table[7].iter_mut().for_each(|x| *x = 1e-6 * (*x + 2.0));
    table[8] = vec![0.0; 40];
    let family = sign_flip_family(&table, 10_000, 3).unwrap();
    for (row, test) in table.iter().zip(&family) {
        assert_eq!(sign_flip(row, 10_000, 3), Some(test.p), "the same flips for every test");
        assert!(test.p_max >= test.p);
    }
    // The effect is small but steady; what counts is its size against its own spread.
    assert!(family[7].p_max < 0.001);
    assert_eq!(family[8], FlipTest { p: 1.0, p_max: 1.0 });
    let twin = vec![table[7].clone(), table[7].iter().map(|x| -5.0 * x).collect()];
    let twins = sign_flip_family(&twin, 10_000, 3).unwrap();
    assert!(twins.iter().all(|t| t.p_max == t.p), "what is the same test twice needs no correction");
}

/// The definition, pattern by pattern: |t| in place of mean over root mean square.
#[test]
fn the_family_wise_p_is_that_of_the_largest_t() {
    let mut rng = rng(1, "t");
    let table: Vec<Vec<f64>> =
        (0..3).map(|i| normals(&mut rng, 9).iter().map(|x| x + 0.3 * i as f64).collect()).collect();
    let t = |row: &[f64], pattern: usize| {
        let flipped: Vec<f64> =
            row.iter().enumerate().map(|(i, x)| if pattern >> i & 1 == 1 { -x } else { *x }).collect();
        let m = mean(&flipped);
        let variance = flipped.iter().map(|x| (x - m).powi(2)).sum::<f64>() / 8.0;
        m.abs() / (variance / 9.0).sqrt()
    };
    let family = sign_flip_family(&table, 10, 0).unwrap();
    for (row, test) in table.iter().zip(&family) {
        let observed = t(row, 0) * (1.0 - 1e-9);
        let largest = |pattern| table.iter().map(|row| t(row, pattern)).fold(0.0, f64::max);
        let hits = (0..512).filter(|pattern| largest(*pattern) >= observed).count();
        assert_eq!(test.p_max, hits as f64 / 512.0);
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut rng = rng(2, "threads");
    let table: Vec<Vec<f64>> = (0..37).map(|_| normals(&mut rng, 30)).collect();
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| (sign_flip_family(&table, 20_000, 0).unwrap(), bca_family(&table, &Bootstrap::default())))
    };
    assert_eq!(with(1), with(5));
}

#[test]
fn sign_flip_rejects_true_hypotheses_as_often_as_it_says() {
    let mut rng = rng(3, "null");
    let simulations = 4000;
    for (items, name) in [(12, "exact"), (40, "drawn")] {
        let even: Vec<Vec<f64>> = (0..simulations).map(|_| normals(&mut rng, items)).collect();
        // Items of very different spread: a t-test's assumption, not this one's.
        let spread = |row: &Vec<f64>| row.iter().enumerate().map(|(i, x)| x * 1.3_f64.powi(i as i32 % 12)).collect();
        let uneven: Vec<Vec<f64>> = even.iter().map(spread).collect();
        for table in [even, uneven] {
            let tests = sign_flip_family(&table, 10_000, 0).unwrap();
            let rejected = tests.iter().filter(|t| t.p <= 0.05).count();
            println!("{name}: {rejected} of {simulations}");
            rate(rejected, simulations, 0.05);
        }
    }
}

#[test]
fn the_family_wise_p_rejects_in_as_many_families_as_it_says() {
    let mut rng = rng(4, "families");
    let (families, tests, items) = (1500, 20, 24);
    let mut rejected = (0, 0);
    for seed in 0..families {
        // Heads of one layer share much of their noise.
        let shared = normals(&mut rng, items);
        let noisy = |(own, common): (f64, &f64)| own + common;
        let row = |rng: &mut ChaCha8Rng| normals(rng, items).into_iter().zip(&shared).map(noisy).collect::<Vec<_>>();
        let table: Vec<Vec<f64>> = (0..tests).map(|_| row(&mut rng)).collect();
        let family = sign_flip_family(&table, 10_000, seed).unwrap();
        rejected.0 += usize::from(family.iter().any(|t| t.p_max <= 0.05));
        rejected.1 += usize::from(family.iter().any(|t| t.p <= 0.05));
    }
    println!("rejected families: {rejected:?} of {families}");
    rate(rejected.0, families as usize, 0.05);
    assert!(rejected.1 > families as usize / 4, "without the correction many families have a false positive");
}

#[test]
fn draws_leave_room_for_one_true_effect() {
    assert_eq!(draws_for(3), 10_000);
    assert_eq!(draws_for(usize::MAX), 1_000_000);
    for tests in [1000, 5000] {
        let mut p = vec![0.8; tests];
        p[3] = 1.0 / (draws_for(tests) + 1) as f64;
        assert!(benjamini_hochberg(&p)[3] < 0.05);
    }
}

#[test]
fn q_values_are_those_of_benjamini_and_hochberg() {
    // The p-values of Benjamini and Hochberg 1995, section 3; st.false_discovery_control(p)
    let p = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590,
        1.0,
    ];
    let expected = [
        0.0015,
        0.003,
        0.0095,
        0.035625,
        0.0603,
        0.06385714285714286,
        0.06385714285714286,
        0.0645,
        0.0765,
        0.486,
        0.5811818181818181,
        0.7148749999999999,
        0.7532307692307693,
        0.8132142857142857,
        1.0,
    ];
    let q = benjamini_hochberg(&p);
    q.iter().zip(expected).for_each(|(q, e)| near(*q, e, 1e-15));
    assert_eq!(q.iter().filter(|q| **q <= 0.05).count(), 4, "the paper rejects four");
    let backwards: Vec<f64> = p.iter().rev().copied().collect();
    assert!(benjamini_hochberg(&backwards).iter().rev().eq(&q), "in the order of the p-values");
}

#[test]
fn q_values_of_absent_tests() {
    assert_eq!(benjamini_hochberg(&[]), Vec::<f64>::new());
    assert_eq!(benjamini_hochberg(&[0.01, f64::NAN]), vec![0.02, 1.0], "a NaN stays in the family");
    let present = benjamini_hochberg_present(&[None, Some(0.01), None, Some(0.04)]);
    assert_eq!(present, vec![None, Some(0.02), None, Some(0.04)]);
}

#[test]
fn benjamini_hochberg_controls_the_false_discovery_rate() {
    let mut rng = rng(6, "fdr");
    let (simulations, tests, true_effects) = (2000, 100, 20);
    let (mut proportions, mut found) = (Vec::new(), 0);
    for _ in 0..simulations {
        let p = |i: usize, z: f64| 2.0 * Normal::standard().cdf(-(z + if i < true_effects { 3.0 } else { 0.0 }).abs());
        let p: Vec<f64> = (0..tests).map(|i| p(i, normal(&mut rng))).collect();
        let called: Vec<usize> =
            (0..tests).zip(benjamini_hochberg(&p)).filter(|(_, q)| *q <= 0.05).map(|c| c.0).collect();
        let wrong = called.iter().filter(|i| **i >= true_effects).count();
        found += called.len() - wrong;
        proportions.push(wrong as f64 / called.len().max(1) as f64);
    }
    // For independent tests the rate is exactly 5 % times the share of true hypotheses.
    let m = mean(&proportions);
    let sd = mean(&proportions.iter().map(|x| (x - m).powi(2)).collect::<Vec<_>>()).sqrt();
    println!("false discovery rate {m}, sd {sd}, power {}", found as f64 / (simulations * true_effects) as f64);
    near(m, 0.04, 4.0 * sd / (simulations as f64).sqrt());
    assert!(found > simulations * true_effects / 2);
}

#[test]
fn bca_agrees_with_published_and_independent_intervals() {
    // Efron and Tibshirani 1993, chapter 14: variance of the spatial test data A, 90 %: (115.8, 259.6), 2,000
    // resamples.
    // st.bootstrap((A,), np.var, method="BCa", confidence_level=0.9, n_resamples=1_000_000): (115.75, 261.41)
    let a = [
        48.0, 36.0, 20.0, 29.0, 42.0, 42.0, 20.0, 42.0, 22.0, 41.0, 45.0, 14.0, 6.0, 0.0, 33.0, 28.0, 34.0, 4.0, 32.0,
        24.0, 47.0, 41.0, 24.0, 26.0, 30.0, 41.0,
    ];
    let variance = |x: &[f64]| {
        let m = mean(x);
        mean(&x.iter().map(|v| (v - m).powi(2)).collect::<Vec<_>>())
    };
    let options = Bootstrap { resamples: 200_000, level: 0.9, seed: 0 };
    let found = bca(&a, variance, &options).unwrap();
    println!("{found:?}");
    near(found.low, 115.75, 0.6);
    near(found.high, 261.41, 0.6);
    // st.bootstrap((skew,), np.mean, method="BCa", n_resamples=1_000_000), mean over five seeds: (0.5379, 2.3172), of
    // standard deviation (0.0005, 0.0018)
    let skew = [0.02, 0.05, 0.11, 0.13, 0.21, 0.22, 0.35, 0.41, 0.56, 0.72, 0.98, 1.4, 2.1, 3.3, 5.9];
    let found = bca_mean(&skew, &Bootstrap { resamples: 400_000, ..Bootstrap::default() }).unwrap();
    println!("{found:?}");
    near(found.low, 0.5379, 0.004);
    near(found.high, 2.3172, 0.012);
}

#[test]
fn the_interval_of_a_difference_of_two_means_is_an_independent_one() {
    // st.bootstrap((skew, EFFECTS), lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis), method="BCa",
    // n_resamples=400_000), mean over five seeds: (0.2428, 2.0349), of standard deviation (0.0011, 0.0044)
    let skew = [0.02, 0.05, 0.11, 0.13, 0.21, 0.22, 0.35, 0.41, 0.56, 0.72, 0.98, 1.4, 2.1, 3.3, 5.9];
    let options = Bootstrap { resamples: 400_000, ..Bootstrap::default() };
    let found = bca_difference(&skew, &EFFECTS, &options).unwrap();
    println!("{found:?}");
    near(found.low, 0.2428, 0.006);
    near(found.high, 2.0349, 0.024);
    // Turned round it is the same but for the sign and the draws.
    let turned = bca_difference(&EFFECTS, &skew, &options).unwrap();
    near(turned.low, -2.0349, 0.024);
    near(turned.high, -0.2428, 0.006);
    assert_eq!(bca_difference(&skew, &[1.0], &options), None);
    assert_eq!(
        bca(&[1.0], |items| items.len() as f64, &options),
        None,
        "one item has no interval, whatever is computed of it"
    );
    assert_eq!(bca_difference(&[1.0, f64::NAN], &skew, &options), None);
    let none = Interval { low: -1.0, high: -1.0 };
    assert_eq!(bca_difference(&[2.0; 4], &[3.0; 4], &options), Some(none), "what does not vary has no width");
    // Two samples of the same numbers are not resampled alike: the interval has a width.
    let same = bca_difference(&EFFECTS, &EFFECTS, &options).unwrap();
    assert!(same.low < -0.15 && same.high > 0.15, "{same:?}");
}

#[test]
fn the_mean_and_a_function_that_computes_it_have_one_interval() {
    let options = Bootstrap { resamples: 3000, ..Bootstrap::default() };
    let fast = bca_mean(&EFFECTS, &options).unwrap();
    let general = bca(&EFFECTS, mean, &options).unwrap();
    near(fast.low, general.low, 1e-12);
    near(fast.high, general.high, 1e-12);
    let moved: Vec<f64> = EFFECTS.iter().map(|x| x + 4096.0).collect();
    let samples = [&EFFECTS[..], &moved, &[1.0], &EFFECTS[..5], &[]];
    let family = bca_family(&samples, &options);
    assert_eq!(family[0], Some(fast));
    near(family[1].unwrap().low, fast.low + 4096.0, 1e-9);
    assert_eq!(family[3], bca_mean(&EFFECTS[..5], &options), "samples of different length have each their own");
    assert_eq!((family[2], family[4]), (None, None));
}

#[test]
fn the_interval_of_a_ratio_covers_the_ratio_of_the_means() {
    // An effect that is 0.4 of the gap in the mean, with gaps that vary by half of their mean.
    let (n, simulations) = (60, 400);
    let mut rng = rng(0, "ratio");
    let mut held = 0;
    for _ in 0..simulations {
        let gaps: Vec<f64> = (0..n).map(|_| 2.0 + normal(&mut rng)).collect();
        let effects: Vec<f64> = gaps.iter().map(|gap| 0.4 * gap + 0.5 * normal(&mut rng)).collect();
        let options = Bootstrap { resamples: 1000, ..Bootstrap::default() };
        let found = bca_ratio(&effects, &gaps, &options).unwrap();
        held += usize::from(found.low <= 0.4 && 0.4 <= found.high);
    }
    rate(held, simulations, 0.95);
}

#[test]
fn a_ratio_whose_denominator_may_be_zero_has_no_interval() {
    let options = Bootstrap { resamples: 1000, ..Bootstrap::default() };
    let (ones, around_zero) = ([1.0; 8], [1.0, -1.0, 2.0, -2.0, 1.5, -1.0, 0.5, 0.0]);
    assert_eq!(bca_ratio(&ones, &around_zero, &options), None);
    assert_eq!(bca_ratio(&ones, &[2.0; 7], &options), None);
    assert_eq!(bca_ratio(&ones, &[-2.0; 8], &options), Some(Interval { low: -0.5, high: -0.5 }));
    assert_eq!((ratio(&ones, &[2.0; 8]), ratio(&ones, &[0.0; 8]), ratio(&[], &[])), (Some(0.5), None, None));
}

#[test]
fn ratios_of_a_family_have_each_the_interval_of_the_general_bootstrap_to_the_bit() {
    let options = Bootstrap { resamples: 2000, seed: 3, ..Bootstrap::default() };
    let mut rng = rng(0, "ratios");
    let gaps: Vec<f64> = (0..14).map(|_| -3.0 + 0.5 * normal(&mut rng)).collect();
    let mut samples: Vec<Vec<f64>> =
        (0..11).map(|k| gaps.iter().map(|gap| f64::from(k) / 10.0 * gap + 0.2 * normal(&mut rng)).collect()).collect();
    samples.push(vec![1.0; 13]);
    samples.push(vec![f64::NAN; 14]);
    let family = bca_ratio_family(&samples, &gaps, &options);
    for (sample, found) in samples.iter().zip(&family).take(11) {
        let items: Vec<(f64, f64)> = sample.iter().copied().zip(gaps.iter().copied()).collect();
        let sums = |items: &[(f64, f64)]| items.iter().fold((0.0, 0.0), |(a, b), item| (a + item.0, b + item.1));
        let ratio = |items: &[(f64, f64)]| sums(items).0 / sums(items).1;
        assert!(found.is_some());
        assert_eq!(*found, bca(&items, ratio, &options));
        assert_eq!(*found, bca_ratio(sample, &gaps, &options));
    }
    assert_eq!((family[11], family[12]), (None, None));
}

#[test]
fn bca_of_degenerate_data() {
    let options = Bootstrap { resamples: 2000, ..Bootstrap::default() };
    assert_eq!(bca_mean(&[0.1; 7], &options), Some(Interval { low: 0.1, high: 0.1 }));
    assert_eq!(bca_mean(&[1.0], &options), None);
    assert_eq!(bca_mean(&[1.0, f64::NAN], &options), None);
    assert_eq!(bca_mean(&[1.0, 2.0], &Bootstrap { level: 1.0, ..options }), None);
    assert_eq!(bca_mean(&[1.0, 2.0], &Bootstrap { resamples: 0, ..options }), None);
    let undefined = |x: &[f64]| if x.contains(&1.0) { f64::NAN } else { 0.0 };
    assert_eq!(bca(&[0.0, 0.0, 1.0], undefined, &options), None);
    // No resample's statistic is above that of the items, so the bias is infinite: percentiles.
    let distinct = |x: &[f64]| x.iter().map(|v| v.to_bits()).collect::<std::collections::BTreeSet<_>>().len() as f64;
    let items: Vec<f64> = (0..60).map(f64::from).collect();
    let percentile = bca(&items, distinct, &options).unwrap();
    assert!(30.0 < percentile.low && percentile.low < 36.0 && 40.0 < percentile.high && percentile.high < 46.0);
}

#[test]
fn bca_covers_a_skewed_mean_better_than_percentiles_do() {
    let mut rng = rng(7, "skewed");
    let (simulations, n) = (4000, 30);
    let exponential = |rng: &mut ChaCha8Rng| -rng.random_range(1e-12..1.0_f64).ln();
    let samples: Vec<Vec<f64>> = (0..simulations).map(|_| (0..n).map(|_| exponential(&mut rng)).collect()).collect();
    let options = Bootstrap { resamples: 2000, ..Bootstrap::default() };
    let percentile = |sample: &Vec<f64>| {
        let draw = |rng: &mut ChaCha8Rng| mean(&(0..n).map(|_| sample[rng.random_range(0..n)]).collect::<Vec<_>>());
        let mut means: Vec<f64> = (0..2000).map(|_| draw(&mut rng)).collect();
        means.sort_by(f64::total_cmp);
        Interval { low: means[49], high: means[1949] }
    };
    let plain: Vec<Interval> = samples.iter().map(percentile).collect();
    let corrected: Vec<Interval> = bca_family(&samples, &options).into_iter().map(Option::unwrap).collect();
    // How often the interval lies wholly below, and wholly above, the true mean of 1.
    let misses = |x: &[Interval]| {
        let count = |miss: fn(&Interval) -> bool| x.iter().filter(|i| miss(i)).count() as f64 / simulations as f64;
        (count(|i| i.high < 1.0), count(|i| i.low > 1.0))
    };
    let (plain, corrected) = (misses(&plain), misses(&corrected));
    println!("misses below and above: percentile {plain:?}, BCa {corrected:?}");
    let total = |(below, above): (f64, f64)| below + above;
    assert!(total(corrected) < total(plain));
    // The mean of 30 exponential items is too skewed for either to reach 95 %.
    assert!(total(corrected) < 0.08, "covers 92 % at least");
    let lopsided = |(below, above): (f64, f64)| (below - above).abs();
    assert!(lopsided(corrected) < lopsided(plain));
}

#[test]
fn bca_covers_a_normal_mean() {
    let mut rng = rng(8, "normal");
    let samples: Vec<Vec<f64>> = (0..4000).map(|_| normals(&mut rng, 120)).collect();
    let intervals = bca_family(&samples, &Bootstrap { resamples: 2000, ..Bootstrap::default() });
    let covered = intervals.iter().flatten().filter(|i| i.low <= 0.0 && 0.0 <= i.high).count();
    // A bootstrap's quantiles are a normal's, of a variance over n, not n - 1:
    // 2 * st.t.cdf(st.norm.ppf(0.975) * np.sqrt(119 / 120), 119) - 1
    rate(covered, 4000, 0.9466);
}

#[test]
fn welch_agrees_with_independent_values() {
    // st.ttest_ind(a, b, equal_var=False)
    let a = [14.2, 15.1, 13.8, 16.0, 14.9, 15.5];
    let b = [11.3, 18.9, 9.7, 21.4, 16.6, 8.8, 13.2, 19.5, 12.1];
    near(welch(&a, &b).unwrap(), 0.8501213915980794, 1e-12);
    let found = welch(&[1.00, 1.01, 0.99, 1.02, 0.98, 1.00], &[0.51, 0.48, 0.50, 0.49, 0.52]).unwrap();
    near(found / 8.345569541377098e-12, 1.0, 1e-9);
}

#[test]
fn welch_of_samples_that_do_not_vary() {
    // By chance too: three scores of 1 against three of 0 are no evidence that survives any correction.
    assert_eq!((welch(&[0.1; 3], &[0.1; 7]), welch(&[1.0; 3], &[0.0; 3])), (None, None));
    // One varies: t is the root of 75, with 2 degrees of freedom.
    near(welch(&[1.0; 3], &[0.4, 0.6, 0.5]).unwrap(), 1.0 - (75.0_f64 / 77.0).sqrt(), 1e-12);
    assert_eq!(welch(&[1.0], &[1.0, 2.0]), None);
    assert_eq!(welch(&[1.0, f64::NAN], &[1.0, 2.0]), None);
}

#[test]
fn welch_rejects_true_hypotheses_as_often_as_it_says_where_variances_differ() {
    let mut rng = rng(9, "welch");
    let simulations = 4000;
    let test = |_: &usize| {
        let wide: Vec<f64> = normals(&mut rng, 10).iter().map(|x| 4.0 * x).collect();
        welch(&wide, &normals(&mut rng, 40)).unwrap() <= 0.05
    };
    rate((0..simulations).filter(test).count(), simulations, 0.05);
}

#[test]
fn correlations_agree_with_independent_values() {
    // st.spearmanr(x, y), st.pearsonr(x, y)
    let x = [1.0, 2.0, 2.0, 3.0, 5.0, 8.0, 8.0, 8.0, 9.0, 12.5];
    let y = [2.0, 1.0, 4.0, 4.0, 3.0, 9.0, 7.0, 7.0, 12.0, 10.0];
    near(spearman(&x, &y).unwrap(), 0.9071598722068406, 1e-14);
    near(pearson(&x, &y).unwrap(), 0.8841157265042676, 1e-14);
    let cubes: Vec<f64> = x.iter().map(|x| -x * x * x).collect();
    near(spearman(&x, &cubes).unwrap(), -1.0, 1e-15);
    near(pearson(&x, &x.map(|x| 1e200 * x)).unwrap(), 1.0, 1e-15);
    assert_eq!(spearman(&[0.0, -0.0, 1.0], &[2.0, 2.0, 3.0]), Some(1.0));
}

#[test]
fn correlations_that_are_undefined() {
    assert_eq!(pearson(&[0.1; 4], &[1.0, 2.0, 3.0, 4.0]), None);
    assert_eq!(pearson(&[1.0], &[1.0]), None);
    assert_eq!(pearson(&[1.0, 2.0], &[1.0, 2.0, 3.0]), None);
    assert_eq!(spearman(&[1.0, f64::INFINITY], &[1.0, 2.0]), None);
}

#[test]
fn thresholds_are_those_of_a_logistic_fit() {
    // Bliss 1935, beetles: statsmodels GLM(Binomial), -b0/b1, and numpy.roots of Fieller's quadratic
    let x = [1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839];
    let killed = [6.0, 13.0, 18.0, 28.0, 52.0, 53.0, 61.0, 60.0];
    let n = [59.0, 60.0, 62.0, 56.0, 63.0, 59.0, 62.0, 60.0];
    let found = logistic_threshold(&x, &killed, &n).unwrap();
    near(found.at, 1.7717209644475749, 1e-9);
    near(found.interval.unwrap().low, 1.76385817, 1e-7);
    near(found.interval.unwrap().high, 1.77920048, 1e-7);
    assert!(found.rises);

    // Refusals that fall with a steering coefficient, given in any order.
    let x = [8.0, -8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0];
    let refused = [0.0, 20.0, 20.0, 19.0, 17.0, 12.0, 5.0, 2.0, 0.0];
    let found = logistic_threshold(&x, &refused, &[20.0; 9]).unwrap();
    near(found.at, 0.5012319558242886, 1e-9);
    near(found.interval.unwrap().low, -0.25682429, 1e-7);
    near(found.interval.unwrap().high, 1.26103148, 1e-7);
    assert!(!found.rises);
}

#[test]
fn doses_of_one_coefficient_are_taken_together() {
    let apart = logistic_threshold(
        &[0.0, 1.0, 1.0, 2.0, 3.0, 0.0],
        &[1.0, 2.0, 3.0, 7.0, 9.0, 0.0],
        &[5.0, 4.0, 6.0, 10.0, 10.0, 5.0],
    );
    let together = logistic_threshold(&[0.0, 1.0, 2.0, 3.0], &[1.0, 5.0, 7.0, 9.0], &[10.0; 4]);
    assert!(together.is_some());
    assert_eq!(apart, together);
}

#[test]
fn a_threshold_whose_slope_is_uncertain_has_no_interval() {
    let found = logistic_threshold(&[0.0, 1.0, 2.0, 3.0], &[1.0, 2.0, 2.0, 3.0], &[4.0; 4]).unwrap();
    near(found.at, 1.5, 1e-9);
    assert_eq!(found.interval, None);
}

#[test]
fn a_threshold_between_coefficients_that_separate_is_their_gap() {
    let found = logistic_threshold(&[-2.0, -1.0, 1.0, 4.0], &[0.0, 0.0, 5.0, 5.0], &[5.0; 4]).unwrap();
    assert_eq!(found, Threshold { at: 0.0, interval: Some(Interval { low: -1.0, high: 1.0 }), rises: true });
    let found = logistic_threshold(&[-2.0, -1.0, 1.0, 4.0], &[5.0, 5.0, 5.0, 0.0], &[5.0; 4]).unwrap();
    assert_eq!(found, Threshold { at: 2.5, interval: Some(Interval { low: 1.0, high: 4.0 }), rises: false });
    let mixed = |share: f64| logistic_threshold(&[0.0, 1.0, 3.0], &[0.0, share, 10.0], &[10.0; 3]).unwrap();
    let at_one = |low, high| Threshold { at: 1.0, interval: Some(Interval { low, high }), rises: true };
    assert_eq!(mixed(3.0), at_one(1.0, 3.0));
    assert_eq!(mixed(7.0), at_one(0.0, 1.0));
    assert_eq!(mixed(5.0), at_one(0.0, 3.0));
}

#[test]
fn there_is_no_threshold_where_no_half_is_crossed() {
    let none = |successes: &[f64], n: &[f64]| {
        let x: Vec<f64> = (0..successes.len()).map(|x| x as f64).collect();
        assert_eq!(logistic_threshold(&x, successes, n), None);
    };
    none(&[0.0, 0.0, 0.0], &[9.0; 3]);
    none(&[9.0, 9.0, 9.0], &[9.0; 3]);
    none(&[0.0, 1.0, 1.0, 2.0], &[9.0; 4]);
    none(&[0.0, 0.0, 3.0], &[9.0; 3]);
    none(&[9.0], &[9.0]);
    none(&[4.0], &[9.0]);
    none(&[4.0], &[8.0]);
    none(&[], &[]);
    none(&[4.0, 4.0, 4.0], &[8.0; 3]);
    none(&[1.0, 10.0], &[9.0, 9.0]);
    none(&[1.0, f64::NAN], &[9.0, 9.0]);
    none(&[1.0, 2.0], &[9.0]);
    assert_eq!(logistic_threshold(&[2.0, 2.0], &[0.0, 8.0], &[8.0; 2]), None, "all trials at one coefficient");
    let repeated = logistic_threshold(&[0.0, 0.0, 1.0], &[0.0, 0.0, 1.0], &[1.0, 0.0, 1.0]).unwrap();
    assert_eq!(repeated.at, 0.5, "a coefficient without trials counts for nothing");
}

#[test]
fn streams_are_repeatable_and_apart() {
    let draw = |seed, stream| rng(seed, stream).random::<u64>();
    assert_eq!(draw(1, "a"), draw(1, "a"));
    assert_ne!(draw(1, "a"), draw(1, "b"));
    assert_ne!(draw(1, "a"), draw(2, "a"));
}

#[test]
fn an_interval_lies_beyond_0_where_neither_end_is_nearer_than_it_must_be() {
    for (ends, least, expected) in [
        ((0.1, 0.2), 0.0, Some(true)),
        ((-0.2, -0.1), 0.0, Some(false)),
        ((-0.1, 0.2), 0.0, None),
        ((0.0, 0.2), 0.0, None),
        ((-0.2, 0.0), 0.0, None),
        ((0.1, 0.2), 0.1, Some(true)),
        ((0.1, 0.2), 0.15, None),
        ((-0.2, -0.1), 0.1, Some(false)),
        ((-0.2, -0.1), 0.15, None),
    ] {
        assert_eq!(beyond_zero(Some(ends), least), expected, "{ends:?} {least}");
    }
    assert_eq!(beyond_zero(None, 0.0), None);
}

/// By the formulas in numpy, over 400,000 resamples; with the influence of items not divided by their number the ends would be -0.756
/// and 2.056.
#[test]
fn the_acceleration_of_a_difference_weighs_samples_by_their_sizes() {
    let small = [0.1, 0.2, 0.15, 0.3, 2.5, 0.4, 0.25, 6.0];
    let large: Vec<f64> = (0..40).map(|i| f64::from(i % 7) * 0.3 + f64::from(i % 3) * 0.11).collect();
    let options = Bootstrap { resamples: 100_000, ..Bootstrap::default() };
    let found = bca_difference(&small, &large, &options).unwrap();
    near(found.low, -0.674, 0.02);
    near(found.high, 2.513, 0.06);
}
