//! Where the last position knows what was asked, and steering along what it knows.

use super::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The residual stream of some prompts after every layer, at one position each: `[layer][prompt]`.
fn residuals(demo: &Demo, prompts: &[(Vec<u32>, Positions)]) -> Vec<Vec<Vec<f32>>> {
    let mut plan = Plan::default();
    for (ids, position) in prompts {
        let prompt = plan.prompt("prompt", ids.clone());
        for l in 0..demo.layers() {
            let site = SiteKind::ResidPost.at(l);
            plan.read(prompt, Activation { site, positions: position.clone(), part: Part::All });
        }
    }
    let readings = demo.run(&plan);
    let of_layer = |l: usize| readings.chunks_exact(demo.layers()).map(|each| each[l].clone()).collect();
    (0..demo.layers()).map(of_layer).collect()
}

fn at_last(prompts: &[Vec<u32>]) -> Vec<(Vec<u32>, Positions)> {
    prompts.iter().map(|ids| (ids.clone(), Positions::Last)).collect()
}

/// A linear classifier by ridge regression on +1 and -1, with hardly any ridge, so that it uses whatever there is.
struct Classifier {
    weights: Vec<f64>,
    mean: Vec<f64>,
}

impl Classifier {
    fn fit(rows: &[&Vec<f32>], labels: &[bool]) -> Self {
        let d = rows[0].len();
        let mean: Vec<f64> = (0..d).map(|j| mean(rows.iter().map(|row| f64::from(row[j])))).collect();
        let centred: Vec<Vec<f64>> =
            rows.iter().map(|row| row.iter().zip(&mean).map(|(x, m)| f64::from(*x) - m).collect()).collect();
        let mut system = vec![vec![0.0; d + 1]; d];
        for (row, label) in centred.iter().zip(labels) {
            let y = if *label { 1.0 } else { -1.0 };
            for i in 0..d {
                for j in 0..d {
                    system[i][j] += row[i] * row[j];
                }
                system[i][d] += row[i] * y;
            }
        }
        let trace: f64 = (0..d).map(|i| system[i][i]).sum();
        (0..d).for_each(|i| system[i][i] += 1e-6 * trace);
        Classifier { weights: solve(system), mean }
    }

    fn accuracy(&self, rows: &[&Vec<f32>], labels: &[bool]) -> f64 {
        let side = |row: &Vec<f32>| {
            let centred = row.iter().zip(&self.mean).map(|(x, m)| f64::from(*x) - m);
            centred.zip(&self.weights).map(|(x, w)| x * w).sum::<f64>() > 0.0
        };
        mean(rows.iter().zip(labels).map(|(row, label)| f64::from(u8::from(side(row) == *label))))
    }
}

/// Solves a linear system by elimination; the last column is the right-hand side.
fn solve(mut system: Vec<Vec<f64>>) -> Vec<f64> {
    let d = system.len();
    for i in 0..d {
        let pivot = (i..d).max_by(|a, b| system[*a][i].abs().total_cmp(&system[*b][i].abs())).expect("rows");
        system.swap(i, pivot);
        let row: Vec<f64> = system[i].iter().map(|x| x / system[i][i]).collect();
        for (_, other) in system.iter_mut().enumerate().filter(|(k, _)| *k != i) {
            let factor = other[i];
            other.iter_mut().zip(&row).for_each(|(x, r)| *x -= factor * r);
        }
        system[i] = row;
    }
    system.iter().map(|row| row[d]).collect()
}

/// How often a classifier is right that was fitted on every second topic, on the prompts of the others; by layer.
fn held_out(demo: &Demo, prompts: &[(Vec<u32>, Positions)], labels: &[bool], topics: &[&str]) -> Vec<f64> {
    let different: BTreeSet<&str> = topics.iter().copied().collect();
    let fitted: BTreeSet<&str> = different.into_iter().step_by(2).collect();
    let (fit, test): (Vec<usize>, Vec<usize>) = (0..prompts.len()).partition(|i| fitted.contains(topics[*i]));
    let accuracy = |rows: &Vec<Vec<f32>>| {
        let of =
            |list: &[usize]| -> (Vec<&Vec<f32>>, Vec<bool>) { list.iter().map(|i| (&rows[*i], labels[*i])).unzip() };
        let ((fit_rows, fit_labels), (test_rows, test_labels)) = (of(&fit), of(&test));
        Classifier::fit(&fit_rows, &fit_labels).accuracy(&test_rows, &test_labels)
    };
    residuals(demo, prompts).iter().map(accuracy).collect()
}

#[test]
fn the_last_position_knows_nothing_before_the_gate_and_all_from_it_on() {
    let demo = Demo::open();
    let pairs = &demo.pairs.items;
    let inputs = pairs.iter().flat_map(|pair| [&pair.positive, &pair.negative]);
    let prompts: Vec<Vec<u32>> = inputs.map(|input| demo.ids(input)).collect();
    let labels: Vec<bool> = (0..prompts.len()).map(|i| i % 2 == 0).collect();
    let topics: Vec<&str> = pairs.iter().flat_map(|pair| [pair.group.as_deref().expect("a group"); 2]).collect();
    let accuracies = held_out(&demo, &at_last(&prompts), &labels, &topics);
    let (before, after) = accuracies.split_at(demo.gate.0);
    assert!(before.iter().all(|accuracy| (0.35..0.65).contains(accuracy)), "{accuracies:?}");
    assert!(after.iter().all(|accuracy| *accuracy == 1.0), "{accuracies:?}");
}

#[test]
fn the_topics_token_says_nothing_of_its_kind_before_the_detection_layer() {
    let demo = Demo::open();
    let items = &demo.prompts.items;
    let topics: Vec<&str> = items.iter().map(|item| item.group.as_deref().expect("a group")).collect();
    let at_topic = |(item, topic): (&Item, &&str)| {
        let (ids, topic) = (demo.ids(&item.prompt), demo.token(topic));
        let position = ids.iter().position(|id| *id == topic).expect("the topic");
        (ids, Positions::At(vec![position]))
    };
    let prompts: Vec<_> = items.iter().zip(&topics).map(at_topic).collect();
    let labels: Vec<bool> = items.iter().map(|item| item.label.as_deref() == Some("sensitive")).collect();
    let accuracies = held_out(&demo, &prompts, &labels, &topics);
    let (before, after) = accuracies.split_at(demo.detection.0);
    assert!(before.iter().all(|accuracy| (0.3..0.7).contains(accuracy)), "{accuracies:?}");
    assert!(after.iter().all(|accuracy| *accuracy == 1.0), "{accuracies:?}");
}

/// The mean of the sensitive minus that of the harmless rows.
fn difference(sensitive: &[Vec<f32>], harmless: &[Vec<f32>]) -> Vec<f32> {
    let mean = |rows: &[Vec<f32>], j: usize| mean(rows.iter().map(|row| f64::from(row[j])));
    (0..sensitive[0].len()).map(|j| (mean(sensitive, j) - mean(harmless, j)) as f32).collect()
}

fn norm(v: &[f32]) -> f32 {
    v.iter().map(|x| x * x).sum::<f32>().sqrt()
}

/// A direction at random, of a given norm. Sums of uniform numbers are close enough to normal.
fn random_direction(rng: &mut ChaCha8Rng, d: usize, length: f32) -> Vec<f32> {
    let mut normal = || (0..12).map(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.5).sum::<f32>();
    let v: Vec<f32> = (0..d).map(|_| normal()).collect();
    let scale = length / norm(&v);
    v.iter().map(|x| x * scale).collect()
}

#[test]
fn steering_along_the_class_means_flips_every_decision_and_random_directions_hardly_any() {
    let demo = Demo::open();
    let ids = |label: &str| -> Vec<Vec<u32>> { demo.with_label(label).map(|item| demo.ids(&item.prompt)).collect() };
    let (sensitive, harmless) = (ids("sensitive"), ids("harmless"));
    let (of_sensitive, of_harmless) = (residuals(&demo, &at_last(&sensitive)), residuals(&demo, &at_last(&harmless)));
    let some: Vec<Vec<u32>> = harmless.iter().step_by(10).cloned().collect();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for layer in demo.gate.0..demo.layers() {
        let direction = difference(&of_sensitive[layer], &of_harmless[layer]);
        let steered = |prompts: &[Vec<u32>], vectors: &[Vec<f32>], coefficient: f32| {
            let mut plan = Plan::default();
            for ids in prompts {
                let prompt = plan.prompt("prompt", ids.clone());
                for vector in vectors {
                    let change = Change::Add { vector: vector.as_slice().into(), coefficient };
                    let fork = plan.fork(prompt, vec![edit(SiteKind::ResidPost.at(layer), Part::All, change)]);
                    plan.read(fork, demo.metric());
                }
            }
            demo.numbers(&plan)
        };
        let along = [direction.clone()];
        assert!(steered(&harmless, &along, 1.0).iter().all(|m| *m > 0.0), "layer {layer}: to refusal");
        assert!(steered(&sensitive, &along, -1.0).iter().all(|m| *m < 0.0), "layer {layer}: to an answer");
        let means: Vec<f64> = (0..=6).map(|c| mean(steered(&harmless, &along, 0.25 * c as f32))).collect();
        assert!(means.is_sorted(), "layer {layer}: more of it is more refusal: {means:?}");
        let random: Vec<Vec<f32>> =
            (0..400).map(|_| random_direction(&mut rng, direction.len(), norm(&direction))).collect();
        let metrics = steered(&some, &random, 1.0);
        let (flips, runs) = (metrics.iter().filter(|m| **m > 0.0).count(), metrics.len());
        assert!(flips * 100 < runs, "layer {layer}: {flips} of {runs} flipped by random directions");
    }
}
