//! Planted directions, what must hold at each optimum, values that scikit-learn gives, and data that make no sense.

use super::dense::{Cholesky, Symmetric, dot};
use super::direction::Tally;
use super::dual::{Gram, Problem};
use super::*;
use crate::ops::vectors::{cosine, norm};
use crate::stats::rng;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

const METHODS: [Method; 4] = [Method::Logistic, Method::Svm, Method::Ridge, Method::MeanDifference];

fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} is not within {tolerance} of {expected}");
}

fn fixed(method: Method, strength: f64) -> Options {
    Options { method, strength: Strength::Fixed(strength), seed: 0 }
}

fn chosen(method: Method) -> Options {
    Options { method, ..Options::default() }
}

/// About normal, of variance 1.
fn noise(rng: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| rng.random_range(-0.5..0.5_f32)).sum()
}

/// Rows of noise around a point.
fn cloud(rng: &mut ChaCha8Rng, n: usize, at: &[f32]) -> Vec<Vec<f32>> {
    (0..n).map(|_| at.iter().map(|x| x + noise(rng)).collect()).collect()
}

/// Two clouds at a distance along the first axis.
fn clouds(seed: u64, sizes: [usize; 2], dim: usize, distance: f32) -> Examples {
    let mut rng = rng(seed, "clouds");
    let at = |x: f32| (0..dim).map(|i| if i == 0 { x } else { 0.0 }).collect::<Vec<_>>();
    let positive = cloud(&mut rng, sizes[0], &at(distance / 2.0));
    Examples::new(&positive, &cloud(&mut rng, sizes[1], &at(-distance / 2.0))).unwrap()
}

fn first_axis(direction: &Direction) -> f64 {
    let mut axis = vec![0.0; direction.vector.len()];
    axis[0] = 1.0;
    cosine(&direction.vector, &axis).unwrap()
}

/// The accuracy of a direction on examples that it was not fitted to.
fn accuracy(direction: &Direction, examples: &Examples) -> f64 {
    let label = |i| if examples.is_positive(i) { 1.0 } else { -1.0 };
    let decided = (0..examples.len()).map(|i| (label(i), direction.decision(examples.row(i)).unwrap()));
    decided.collect::<Tally>().accuracy()
}

#[test]
fn a_planted_direction_is_found() {
    for (name, dim, distance) in [("separable", 40, 9.0), ("overlapping", 20, 2.0), ("wide", 400, 12.0)] {
        let (train, test) = (clouds(1, [80, 80], dim, distance), clouds(2, [300, 300], dim, distance));
        for method in METHODS {
            let direction = fit(&train, &chosen(method)).unwrap();
            let (cosine, accuracy) = (first_axis(&direction), accuracy(&direction, &test));
            println!("{name} {}: cosine {cosine:.3}, accuracy {accuracy:.3}", method.name());
            assert!(cosine > 0.8, "{name} {}: {cosine}", method.name());
            // The best possible are 1 and 0.841, the normal distribution's share below half the distance.
            assert!(accuracy > if distance > 5.0 { 0.97 } else { 0.8 });
            let held_out = cross_validated_accuracy(&train, &fixed(method, 0.05), 5).unwrap();
            near(held_out, accuracy, 0.09);
        }
    }
}

#[test]
fn directions_agree_with_scikit_learn() {
    let positive = [[2.0, 1.0, 0.5], [1.5, -0.5, 1.0], [0.5, 2.0, -1.0], [-0.5, 0.5, 0.0], [3.0, 0.0, 2.0]];
    let negative = [[-1.0, 0.5, 0.0], [0.0, -1.0, 1.5], [1.0, -2.0, -0.5], [-2.0, 0.0, 1.0]];
    let examples = Examples::new(&positive, &negative).unwrap();
    // scikit-learn 1.9.1 on (X - midpoint of means) / root mean square distance from it, with n = 9 and g = 0.05:
    // LogisticRegression(C=1/(n*g), solver="newton-cholesky", tol=1e-14), Ridge(alpha=n*g),
    // LinearSVC(loss="hinge", C=1/(n*g), tol=1e-12); weights and intercept taken back to X
    let expected = [
        (Method::Logistic, [0.7082871560785422, 0.6849009990815736, -0.0156210049739146], -0.04387052653183701),
        (Method::Ridge, [0.39019004746671704, 0.45435316084352007, -0.0019852088593074286], -0.10823315046167817),
        (Method::Svm, [0.7882062975569685, 0.6130493425443057, 0.0875784775067451], -0.5183183737151844),
    ];
    for (method, vector, bias) in expected {
        let found = fit(&examples, &fixed(method, 0.05)).unwrap();
        found.vector.iter().zip(vector).for_each(|(found, expected)| near(f64::from(*found), expected, 2e-6));
        near(found.bias, bias, 2e-6);
    }
}

/// The primal problem, in the examples' own numbers: weights, and decision values with labels.
fn primal(examples: &Examples, options: &Options) -> (Vec<f64>, Vec<(f64, f64)>, f64) {
    let gram = Gram::new(examples);
    let all: Vec<usize> = (0..examples.len()).collect();
    let problem = Problem::new(&gram, &all);
    let strength = choose::strength(&gram, &all, options).unwrap();
    let dual = problem.in_gram(problem.solve(options.method, strength, None).unwrap());
    let decided = all.iter().map(|i| (gram.label(*i), dual.decision(&gram, *i))).collect();
    let distance = |i: &usize| {
        let row = examples.row(*i).iter().zip(gram.center());
        row.map(|(x, c)| (f64::from(*x) - c).powi(2)).sum::<f64>()
    };
    let scale = all.iter().map(distance).sum::<f64>() / all.len() as f64;
    (gram.combine(&dual.alpha), decided, strength * scale)
}

/// The derivative by each weight of a mean loss plus a penalty, given the loss' derivatives by the decision values.
fn gradient(examples: &Examples, slopes: &[f64], penalty: impl Fn(usize) -> f64) -> Vec<f64> {
    let n = examples.len() as f64;
    let column = |j: usize| slopes.iter().enumerate().map(|(i, s)| s * f64::from(examples.row(i)[j])).sum::<f64>() / n;
    (0..examples.dim()).map(|j| column(j) + penalty(j)).collect()
}

#[test]
fn logistic_and_ridge_are_at_the_minimum_of_the_primal_problem() {
    for (examples, strength) in [
        (clouds(3, [30, 50], 12, 1.0), 1e-3),
        (clouds(4, [30, 50], 12, 20.0), 1e-5),
        (clouds(5, [20, 12], 300, 2.0), 0.1),
    ] {
        for method in [Method::Logistic, Method::Ridge] {
            let (weights, decided, penalty) = primal(&examples, &fixed(method, strength));
            let slope = |(y, f): &(f64, f64)| match method {
                Method::Logistic => -y / (1.0 + (y * f).exp()),
                _ => f - y,
            };
            let slopes: Vec<f64> = decided.iter().map(slope).collect();
            let largest =
                gradient(&examples, &slopes, |j| penalty * weights[j]).iter().fold(0.0_f64, |m, g| m.max(g.abs()));
            assert!(largest < 1e-8, "{} {strength}: {largest}", method.name());
            near(slopes.iter().sum(), 0.0, 1e-7);
        }
    }
}

#[test]
fn ridge_solves_the_primal_normal_equations() {
    let examples = clouds(6, [15, 10], 3, 1.5);
    let found = fit(&examples, &fixed(Method::Ridge, 0.3)).unwrap();
    let (_, _, penalty) = primal(&examples, &fixed(Method::Ridge, 0.3));
    // (X^T X + n penalty I) w = X^T y with a column of ones that is not penalised.
    let row = |i: usize| -> Vec<f64> { examples.row(i).iter().map(|x| f64::from(*x)).chain([1.0]).collect() };
    let sum = |of: &dyn Fn(usize) -> f64| (0..25).map(of).sum::<f64>();
    let matrix = Symmetric::from_fn(4, |a, b| {
        sum(&|i| row(i)[a] * row(i)[b]) + if a == b && a < 3 { 25.0 * penalty } else { 0.0 }
    });
    let target: Vec<f64> = (0..4).map(|a| sum(&|i| row(i)[a] * if i < 15 { 1.0 } else { -1.0 })).collect();
    let solved = Cholesky::new(matrix).unwrap().solve(&target);
    found.vector.iter().zip(&solved).for_each(|(found, expected)| near(f64::from(*found), *expected, 1e-6));
    near(found.bias, solved[3], 1e-6);
}

#[test]
fn the_support_vector_machine_meets_its_optimality_conditions() {
    for (examples, strength) in [
        (clouds(7, [40, 60], 8, 1.0), 1e-4),
        (clouds(8, [40, 60], 8, 12.0), 1e-3),
        (clouds(9, [25, 25], 200, 1.0), 0.01),
    ] {
        let gram = Gram::new(&examples);
        let all: Vec<usize> = (0..examples.len()).collect();
        let problem = Problem::new(&gram, &all);
        let solution = problem.solve(Method::Svm, strength, None).unwrap();
        let bound = 1.0 / (strength * all.len() as f64);
        let decisions = problem.products.times(&solution.alpha);
        let mut hinge = 0.0;
        for i in all {
            let (margin, beta) =
                (problem.labels[i] * (decisions[i] + solution.bias), problem.labels[i] * solution.alpha[i]);
            assert!((0.0..=bound).contains(&beta));
            assert!(beta == bound || margin > 1.0 - 1e-5, "a margin below 1 has a coefficient at the bound");
            assert!(beta == 0.0 || margin < 1.0 + 1e-5, "a margin above 1 has no coefficient");
            hinge += (1.0 - margin).max(0.0);
        }
        // Strong duality: what is minimised and what is maximised meet.
        let squared_norm = dot(&decisions, &solution.alpha) + solution.bias * solution.bias;
        let dual = solution.alpha.iter().zip(&problem.labels).map(|(a, y)| a * y).sum::<f64>() - 0.5 * squared_norm;
        let primal = bound * hinge + 0.5 * squared_norm;
        near(primal / dual, 1.0, 1e-4);
    }
}

#[test]
fn support_vectors_of_two_separated_pairs_are_the_inner_ones() {
    let examples = Examples::new(&[[2.0_f32], [5.0]], &[[-2.0], [-5.0]]).unwrap();
    let found = fit(&examples, &fixed(Method::Svm, 1e-4)).unwrap();
    near(f64::from(found.vector[0]), 0.5, 1e-5);
    near(found.decision(&[2.0]).unwrap(), 1.0, 1e-5);
}

#[test]
fn the_mean_difference_is_that_with_its_boundary_midway() {
    let examples = Examples::new(&[[1.0_f32, 4.0], [3.0, 4.0]], &[[0.0, 4.0]]).unwrap();
    let found = fit(&examples, &chosen(Method::MeanDifference)).unwrap();
    assert_eq!(found.vector, vec![2.0, 0.0]);
    assert_eq!((found.bias, found.strength), (-2.0, None));
    assert_eq!(examples.mean_difference(), found.vector);
    assert_eq!(found.decision(&[1.0, 100.0]), Ok(0.0));
}

#[test]
fn neither_an_offset_nor_a_scale_of_the_activations_matters() {
    let plain = clouds(10, [20, 24], 30, 3.0);
    let rows = |side: std::ops::Range<usize>, f: &dyn Fn(usize, f32) -> f32| -> Vec<Vec<f32>> {
        side.map(|i| plain.row(i).iter().enumerate().map(|(j, x)| f(j, *x)).collect()).collect()
    };
    let changed = |f: &dyn Fn(usize, f32) -> f32| Examples::new(&rows(0..20, f), &rows(20..44, f)).unwrap();
    // Residual streams have single numbers that are large in every example.
    let moved = changed(&|j, x| if j == 5 { x + 2000.0 } else { x });
    let scaled = changed(&|_, x| x * 1e-12);
    for method in METHODS {
        let direction = fit(&plain, &chosen(method)).unwrap();
        for other in [&moved, &scaled] {
            let other = fit(other, &chosen(method)).unwrap();
            assert!(cosine(&direction.vector, &other.vector).unwrap() > 1.0 - 1e-6, "{}", method.name());
            assert_eq!(direction.strength, other.strength);
        }
        let far: Vec<f32> = moved.row(0).to_vec();
        let found = fit(&moved, &chosen(method)).unwrap().decision(&far).unwrap();
        near(found, direction.decision(plain.row(0)).unwrap(), 2e-3);
    }
}

#[test]
fn cross_validation_chooses_a_strong_penalty_for_noise_and_a_weak_one_for_a_clear_difference() {
    for method in [Method::Logistic, Method::Svm, Method::Ridge] {
        let strength = |distance| fit(&clouds(11, [40, 40], 60, distance), &chosen(method)).unwrap().strength.unwrap();
        let (noise, clear) = (strength(0.0), strength(15.0));
        println!("{}: {noise} for noise, {clear} for a clear difference", method.name());
        assert!(noise > clear);
    }
}

#[test]
fn accuracy_on_noise_is_chance() {
    for method in METHODS {
        let accuracy =
            |seed: u64| cross_validated_accuracy(&clouds(100 + seed, [20, 20], 50, 0.0), &fixed(method, 0.1), 5);
        let mean = (0..30_u64).map(|seed| accuracy(seed).unwrap()).sum::<f64>() / 30.0;
        // 1,200 held-out examples; those of one data set are not independent, so twice four standard errors.
        near(mean, 0.5, 8.0 * (0.25_f64 / 1200.0).sqrt());
    }
}

#[test]
fn each_side_counts_half_in_the_accuracy_and_the_boundary_is_half_right() {
    let of = |decided: &[(f64, f64)]| decided.iter().copied().collect::<Tally>().accuracy();
    assert_eq!(of(&[(1.0, -0.5), (1.0, 0.5), (1.0, 1.5), (-1.0, -2.5)]), 0.5 * (2.0 / 3.0 + 1.0));
    assert_eq!(of(&[(1.0, 0.0), (1.0, 1.0), (-1.0, -2.0)]), 0.5 * (0.75 + 1.0));
}

#[test]
fn the_accuracys_interval_counts_copies_within_a_group_once() {
    let tally = |decided: &[(f64, f64)]| decided.iter().copied().collect::<Tally>();
    // 8 of 10 and 9 of 10 are right, and six copies of each.
    let decided = |copies: usize| -> Vec<Vec<(f64, f64)>> {
        let side = |label: f64, right: usize| (0..10).map(move |i| (label, if i < right { label } else { -label }));
        side(1.0, 8).chain(side(-1.0, 9)).map(|one| vec![one; copies]).collect()
    };
    let of = |copies: usize, together: bool| {
        let groups = decided(copies);
        let all = tally(&groups.concat());
        let groups: Vec<Tally> = match together {
            true => groups.iter().map(|of| tally(of)).collect(),
            false => groups.concat().iter().map(|one| tally(&[*one])).collect(),
        };
        all.interval(&groups).unwrap()
    };
    let alone = of(1, true);
    // Wilson's intervals of 8 and of 9 of 10 are [0.490, 0.943] and [0.596, 0.982].
    near(alone.low, 0.85 - 0.5 * (0.8_f64 - 0.490_162).hypot(0.9 - 0.595_850), 1e-5);
    near(alone.high, 0.85 + 0.5 * (0.943_318_f64 - 0.8).hypot(0.982_124 - 0.9), 1e-5);
    let (copied, apart) = (of(6, true), of(6, false));
    assert!((copied.low - alone.low).abs() < 0.02 && (copied.high - alone.high).abs() < 0.02, "{copied:?} {alone:?}");
    let width = |i: crate::stats::Interval| i.high - i.low;
    assert!(width(apart) < 0.5 * width(alone), "{apart:?}");
    assert_eq!(tally(&[(1.0, 1.0), (-1.0, -1.0)]).interval(&[tally(&[(1.0, 1.0), (-1.0, -1.0)])]), None, "one group");
}

/// Topics of six near copies each; which side a topic is on is arbitrary, so there is nothing to learn but topics.
fn topics() -> (Vec<Vec<f32>>, Vec<Vec<f32>>, Vec<usize>) {
    let mut rng = rng(12, "topics");
    let mut sides = (Vec::new(), Vec::new());
    for topic in 0..24 {
        let center: Vec<f32> = (0..40).map(|_| noise(&mut rng)).collect();
        let side = if topic % 2 == 0 { &mut sides.0 } else { &mut sides.1 };
        side.extend((0..6).map(|_| center.iter().map(|x| x + 0.05 * noise(&mut rng)).collect::<Vec<_>>()));
    }
    let groups = (0..12).map(|t| 2 * t).chain((0..12).map(|t| 2 * t + 1));
    (sides.0, sides.1, groups.flat_map(|topic| [topic; 6]).collect())
}

#[test]
fn what_a_group_shares_is_not_counted_as_learnt() {
    let (positive, negative, groups) = topics();
    let apart = Examples::new(&positive, &negative).unwrap();
    let together = Examples::grouped(&positive, &negative, &groups).unwrap();
    let accuracy = |examples| cross_validated_accuracy(examples, &fixed(Method::Ridge, 1e-3), 6).unwrap();
    let (apart, together) = (accuracy(&apart), accuracy(&together));
    println!("accuracy: copies apart {apart}, together {together}");
    assert!(apart > 0.95);
    assert!(together < 0.65);
}

#[test]
fn splits_keep_groups_together_and_have_both_sides() {
    let mut rng = rng(15, "groups");
    for _ in 0..300 {
        let sizes = [rng.random_range(2..30), rng.random_range(2..30)];
        let names = rng.random_range(2..20);
        let groups: Vec<usize> = (0..sizes[0] + sizes[1]).map(|_| rng.random_range(0..names)).collect();
        let row = |n: usize| vec![vec![0.0_f32]; n];
        let examples = Examples::grouped(&row(sizes[0]), &row(sizes[1]), &groups).unwrap();
        let all: Vec<usize> = (0..examples.len()).collect();
        let splits = match folds::assign(&examples, &all, 5, &mut rng) {
            Ok(splits) => {
                let mut held: Vec<usize> = splits.iter().flat_map(|s| s.test.clone()).collect();
                held.sort_unstable();
                assert_eq!(held, all, "each example is held out once");
                splits
            }
            Err(LinearError::TooFewGroups { .. }) => continue,
            Err(other) => panic!("{other}"),
        };
        for split in splits {
            let sides = |rows: &[usize]| rows.iter().filter(|i| examples.is_positive(**i)).count();
            assert!((1..split.train.len()).contains(&sides(&split.train)), "both sides to learn from");
            let apart = split.train.iter().all(|i| split.test.iter().all(|j| groups[*i] != groups[*j]));
            assert!(apart, "a group on both sides of a split");
            assert_eq!(split.train.len() + split.test.len(), all.len());
        }
    }
}

#[test]
fn folds_of_pairs_are_even() {
    let rows: Vec<Vec<f32>> = (0..23).map(|i| vec![i as f32]).collect();
    let examples = Examples::paired(&rows, &rows).unwrap();
    let all: Vec<usize> = (0..46).collect();
    for split in folds::assign(&examples, &all, 5, &mut rng(0, "pairs")).unwrap() {
        assert!(split.test.len() == 8 || split.test.len() == 10);
        assert_eq!(split.test.iter().filter(|i| examples.is_positive(**i)).count() * 2, split.test.len());
    }
}

#[test]
fn one_example_a_side_is_enough_where_nothing_is_held_out() {
    let examples = Examples::new(&[[1.0_f32, 3.0]], &[[0.0, 1.0]]).unwrap();
    for method in METHODS {
        let direction = fit(&examples, &fixed(method, 0.01)).unwrap();
        assert!(cosine(&direction.vector, &[1.0, 2.0]).unwrap() > 1.0 - 1e-9, "{}", method.name());
        near(direction.decision(&[0.5, 2.0]).unwrap(), 0.0, 1e-6);
    }
    assert!(fit(&examples, &chosen(Method::MeanDifference)).is_ok(), "it has no strength to choose");
    let error = fit(&examples, &chosen(Method::Logistic)).unwrap_err();
    assert_eq!(error, LinearError::TooFewGroups { side: Side::Positive, found: 1, needed: 2 });
    assert!(error.to_string().contains("`method = mean`"), "{error}");
}

#[test]
fn held_out_accuracy_needs_a_group_more_where_a_penalty_is_chosen_and_says_how_many_there_are() {
    let rows = |from: usize| (0..6).map(|i| vec![(from + i) as f32, (i % 2) as f32]).collect::<Vec<_>>();
    let examples = |groups: usize| {
        let of = |side: usize| (0..6).map(move |i| 10 * side + i % groups);
        Examples::grouped(&rows(9), &rows(0), &of(0).chain(of(1)).collect::<Vec<_>>()).unwrap()
    };
    let accuracy = |groups, options| cross_validated_accuracy(&examples(groups), &options, 5);
    for method in [Method::Logistic, Method::Svm, Method::Ridge] {
        let too_few = LinearError::TooFewGroups { side: Side::Positive, found: 2, needed: 3 };
        assert_eq!(accuracy(2, chosen(method)), Err(too_few), "{}", method.name());
        assert_eq!(accuracy(3, chosen(method)), Ok(1.0), "{}", method.name());
        assert_eq!(accuracy(2, fixed(method, 0.1)), Ok(1.0), "{}", method.name());
    }
    assert_eq!(accuracy(2, chosen(Method::MeanDifference)), Ok(1.0));
    let one = LinearError::TooFewGroups { side: Side::Positive, found: 1, needed: 2 };
    assert_eq!(accuracy(1, chosen(Method::MeanDifference)), Err(one));
}

#[test]
fn sets_that_do_not_differ_have_no_direction() {
    let same = cloud(&mut rng(16, "same"), 12, &[0.0; 20]);
    let equal = vec![vec![0.3_f32, 0.1]; 6];
    for method in METHODS {
        for rows in [&same, &equal] {
            let examples = Examples::paired(rows, rows).unwrap();
            let found = fit(&examples, &chosen(method));
            assert_eq!(found, Err(LinearError::NoDifference(method)), "{}", method.name());
            // Both prompts of a pair have one decision value: one of them is wrong, whatever was learnt.
            near(cross_validated_accuracy(&examples, &fixed(method, 0.1), 3).unwrap(), 0.5, 1e-12);
        }
    }
}

#[test]
fn constant_numbers_and_repeated_examples_are_no_trouble() {
    let mut rng = rng(17, "repeated");
    let with_constant = |rows: Vec<Vec<f32>>| -> Vec<Vec<f32>> {
        rows.into_iter()
            .flat_map(|mut row| {
                row[3] = 9.5;
                [row.clone(), row.clone(), row]
            })
            .collect()
    };
    let at = [2.0, 0.0, 0.0, 0.0, 0.0];
    let positive = with_constant(cloud(&mut rng, 10, &at));
    let negative = with_constant(cloud(&mut rng, 10, &[0.0; 5]));
    let examples = Examples::new(&positive, &negative).unwrap();
    for method in METHODS {
        let direction = fit(&examples, &chosen(method)).unwrap();
        assert_eq!(direction.vector[3], 0.0, "{}", method.name());
        assert!(first_axis(&direction) > 0.7);
    }
}

#[test]
fn unsound_examples_and_options_are_named() {
    let good = [[1.0_f32, 2.0], [2.0, 1.0]];
    let nan = Examples::new(&good, &[[0.0, f32::NAN], [0.0, 0.0]]).unwrap_err();
    assert_eq!(nan.to_string().split(';').next(), Some("negative example 0: number 1 is NaN"));
    let short = Examples::new(&[vec![1.0_f32, 2.0]], &[vec![1.0]]).unwrap_err();
    assert_eq!(short.to_string(), "negative example 0 has 1 numbers, expected 2");
    assert_eq!(Examples::new::<[f32; 2]>(&[], &good), Err(LinearError::Empty(Side::Positive)));
    assert!(matches!(Examples::new(&[[0.0_f32; 0]], &[[]]), Err(LinearError::Length { .. })));
    assert!(matches!(Examples::grouped(&good, &good, &[0]), Err(LinearError::Groups { expected: 4, found: 1 })));
    assert!(matches!(Examples::paired(&good, &good[..1]), Err(LinearError::Length { .. })));
    let examples = Examples::new(&good, &[[0.0, 0.0], [0.5, 0.1]]).unwrap();
    for strength in [Strength::Fixed(0.0), Strength::Fixed(f64::NAN), Strength::CrossValidated { folds: 1 }] {
        let found = fit(&examples, &Options { strength, ..Options::default() });
        assert!(matches!(found, Err(LinearError::Option { .. })), "{found:?}");
    }
    let one_fold = cross_validated_accuracy(&examples, &fixed(Method::Ridge, 1.0), 1);
    assert!(matches!(one_fold, Err(LinearError::Option { .. })));
    let direction = fit(&examples, &fixed(Method::Ridge, 1.0)).unwrap();
    assert!(matches!(direction.decision(&[1.0]), Err(LinearError::Length { .. })));
}

#[test]
fn the_smallest_coefficient_reaches_the_wanted_probability() {
    let direction = fit(&clouds(18, [30, 30], 25, 3.0), &chosen(Method::Logistic)).unwrap();
    let along: Vec<f32> = direction.vector.iter().map(|x| (f64::from(*x) / norm(&direction.vector)) as f32).collect();
    let oblique: Vec<f32> = along.iter().enumerate().map(|(i, x)| x + 0.1 * (i % 3) as f32).collect();
    let start = vec![0.25_f32; 25];
    for (axis, wanted) in [
        (&along, Wanted::AtLeast(0.9)),
        (&oblique, Wanted::AtLeast(0.999)),
        (&along, Wanted::AtMost(0.01)),
        (&oblique, Wanted::AtMost(0.3)),
    ] {
        let (Wanted::AtLeast(p) | Wanted::AtMost(p)) = wanted;
        let coefficient = direction.smallest_coefficient(&start, axis, wanted).unwrap().unwrap();
        let reached: Vec<f32> =
            start.iter().zip(axis).map(|(x, a)| (f64::from(*x) + coefficient * f64::from(*a)) as f32).collect();
        near(1.0 / (1.0 + (-direction.decision(&reached).unwrap()).exp()), p, 1e-5);
        assert_eq!(
            direction.smallest_coefficient(&reached, axis, shifted(wanted)),
            Ok(Some(0.0)),
            "it is there already"
        );
    }
}

/// A little less is wanted.
fn shifted(wanted: Wanted) -> Wanted {
    match wanted {
        Wanted::AtLeast(p) => Wanted::AtLeast(p - 1e-4),
        Wanted::AtMost(p) => Wanted::AtMost(p + 1e-4),
    }
}

#[test]
fn there_is_no_coefficient_where_none_helps_or_none_is_defined() {
    let direction = Direction { method: Method::Logistic, vector: vec![1.0, 0.0], bias: 0.0, strength: Some(1.0) };
    let coefficient = |along: &[f32], p| direction.smallest_coefficient(&[0.0, 0.0], along, Wanted::AtLeast(p));
    assert_eq!(coefficient(&[0.0, 1.0], 0.7), Ok(None));
    near(coefficient(&[2.0, 1.0], 0.7).unwrap().unwrap(), (0.7_f64 / 0.3).ln() / 2.0, 1e-15);
    assert!(matches!(coefficient(&[1.0, 0.0], 1.0), Err(LinearError::Option { .. })));
    assert!(matches!(coefficient(&[1.0], 0.5), Err(LinearError::Length { .. })));
    let ridge = Direction { method: Method::Ridge, ..direction.clone() };
    let of_ridge = ridge.smallest_coefficient(&[0.0, 0.0], &[1.0, 0.0], Wanted::AtLeast(0.7));
    assert_eq!(of_ridge, Err(LinearError::NoProbability(Method::Ridge)));
}

#[test]
fn the_principal_direction_is_that_of_the_largest_sum_of_squares() {
    let mut rng = rng(19, "principal");
    for _ in 0..20 {
        let differences: Vec<[f32; 2]> = (0..9).map(|_| [noise(&mut rng) + 0.4, 2.0 * noise(&mut rng)]).collect();
        let found = principal_direction(&differences).unwrap();
        let along = |angle: f64| -> f64 {
            let (sin, cos) = angle.sin_cos();
            differences.iter().map(|d| (f64::from(d[0]) * cos + f64::from(d[1]) * sin).powi(2)).sum()
        };
        let angles = (0..200_000).map(|i| f64::from(i) * std::f64::consts::PI / 200_000.0);
        let best = angles.max_by(|a, b| along(*a).total_cmp(&along(*b))).unwrap();
        let expected = [best.cos() as f32, best.sin() as f32];
        assert!(cosine(&found, &expected).unwrap().abs() > 1.0 - 1e-9);
        let positive = |d: &&[f32; 2]| d[0] * found[0] + d[1] * found[1] > 0.0;
        assert!(differences.iter().filter(positive).count() > 4, "most go its way");
    }
}

#[test]
fn centring_would_have_found_something_else() {
    // All differences go along the first axis; only the second varies.
    let differences: Vec<[f32; 3]> = (0..10).map(|i| [5.0, if i % 2 == 0 { 3.0 } else { -3.0 }, 0.0]).collect();
    let along =
        |differences: &[[f32; 3]], axis: [f32; 3]| cosine(&principal_direction(differences).unwrap(), &axis).unwrap();
    near(along(&differences, [1.0, 0.0, 0.0]), 1.0, 1e-12);
    let centred: Vec<[f32; 3]> = differences.iter().map(|d| [d[0] - 5.0, d[1], d[2]]).collect();
    near(along(&centred, [0.0, 1.0, 0.0]).abs(), 1.0, 1e-12);
    // Most differences project positively, whichever way they go.
    let backwards: Vec<[f32; 3]> = differences.iter().map(|d| d.map(|x| -x)).collect();
    near(along(&backwards, [-1.0, 0.0, 0.0]), 1.0, 1e-12);
}

#[test]
fn the_principal_direction_is_an_eigenvector_however_near_the_next() {
    let mut rng = rng(20, "near");
    for gap in [0.5, 1e-3, 1e-6, 1e-12, 0.0] {
        // Orthogonal differences of lengths 1 + gap, 1, 1, ...: the sums of squares are their squares.
        for dim in [30, 6] {
            let rows: Vec<Vec<f32>> = (0..dim.min(12))
                .map(|i| {
                    (0..dim).map(|j| if i == j { 1.0 + if i == 3 { gap as f32 } else { 0.0 } } else { 0.0 }).collect()
                })
                .collect();
            let found = principal_direction(&rows).unwrap();
            near(norm(&found), 1.0, 1e-6);
            if gap > 1e-5 {
                near(found[3].abs().into(), 1.0, 1e-6);
            }
        }
    }
    // As many differences as numbers, or more, or fewer: one answer whichever matrix is smaller.
    let rows = cloud(&mut rng, 40, &[0.5; 10]);
    let padded: Vec<Vec<f32>> = rows.iter().map(|row| row.iter().copied().chain([0.0; 60]).collect()).collect();
    let (found, other) = (principal_direction(&rows).unwrap(), principal_direction(&padded).unwrap());
    assert!(cosine(&found, &other[..10]).unwrap() > 1.0 - 1e-10);
}

#[test]
fn principal_directions_of_little() {
    assert_eq!(principal_direction(&[[3.0_f32, -4.0]]), Ok(vec![0.6, -0.8]));
    assert_eq!(principal_direction(&[[0.0_f32; 4]; 3]), Err(LinearError::NoPrincipal));
    assert_eq!(principal_direction::<Vec<f32>>(&[]), Err(LinearError::NoPrincipal));
    assert!(matches!(principal_direction(&[[1.0_f32], [f32::INFINITY]]), Err(LinearError::NotFinite { .. })));
    assert!(matches!(principal_direction(&[vec![1.0_f32], vec![1.0, 2.0]]), Err(LinearError::Length { .. })));
}

#[test]
fn directions_do_not_depend_on_the_number_of_threads() {
    let examples = clouds(21, [30, 30], 700, 2.0);
    let differences: Vec<&[f32]> = (0..30).map(|i| examples.row(i)).collect();
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let fits: Vec<Direction> = METHODS.iter().map(|m| fit(&examples, &chosen(*m)).unwrap()).collect();
            let accuracy = cross_validated_accuracy(&examples, &chosen(Method::Logistic), 4).unwrap();
            (fits, accuracy, principal_direction(&differences).unwrap())
        })
    };
    assert_eq!(with(1), with(6));
}

#[test]
fn cholesky_refuses_what_is_not_positive_definite() {
    let matrix = |off: f64| Symmetric::from_fn(2, |i, j| if i == j { 1.0 } else { off });
    assert!(Cholesky::new(matrix(1.0)).is_none());
    assert!(Cholesky::new(matrix(f64::NAN)).is_none());
    let solved = Cholesky::new(matrix(0.5)).unwrap().solve(&[1.0, 0.0]);
    near(solved[0], 4.0 / 3.0, 1e-15);
    near(solved[1], -2.0 / 3.0, 1e-15);
}
