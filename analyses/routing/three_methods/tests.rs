use super::*;
use crate::plan::{Metric, Reading};

#[test]
fn ranks_are_by_size_whatever_the_sign() {
    assert_eq!(ranks(&[0.1, -3.0, 2.0]), [3, 1, 2]);
}

/// What is read of `n` pairs of a model of two layers and two heads, and what it comes to.
fn readings(n: usize) -> (Readings, Vec<OfPair>) {
    let (mut plan, metric) = (Plan::default(), || Metric::logit_difference(vec![1], vec![2]));
    let mut found = Vec::new();
    let asked = (0..n).map(|pair| {
        let run = plan.prompt("p", vec![1]);
        let number = move |k: usize| Reading::Number((7 * pair + k * k) as f64);
        let attribution = |by: f32| {
            let values = (0..12).map(|k| by * ((k as f32) - pair as f32)).collect();
            Reading::Array(Array { shape: vec![3, 4], values })
        };
        found.extend([number(0), number(1), number(2), attribution(1.0), attribution(2.0)]);
        found.extend((3..19).map(number));
        let mut value = || Asked { metric: plan.read(run, metric()), answer: Some(plan.read(run, metric())) };
        let positive = value();
        let negative = plan.read(run, metric());
        let attributions = [(); 2].map(|()| plan.read(run, Attribution(metric())));
        let mut value = || Asked { metric: plan.read(run, metric()), answer: Some(plan.read(run, metric())) };
        let heads = (0..4).map(|_| [value(), value()]).collect();
        OfPair { positive, negative, attributions, heads }
    });
    let asked = asked.collect();
    (Readings::new(found), asked)
}

#[test]
fn readings_say_the_same_in_one_plan_and_in_several() {
    let (all, asked) = readings(5);
    let mut whole = Measured::none(4);
    asked.iter().for_each(|of_pair| whole.add((2, 2), &all, of_pair));
    // The last head's four numbers are those of 15 to 18; each is less than the prompt's own of its kind.
    assert_eq!((whole.interchange[3][1], whole.ablation[3][1]), (225.0, 289.0));
    assert_eq!([0, 1].map(|method| whole.answers[method][3][1]), [16.0 * 16.0 - 1.0, 18.0 * 18.0 - 1.0]);
    assert_eq!((whole.positive.len(), whole.dla[2][4], whole.dla[3][0], whole.answers[2][3][0]), (5, 0.0, 5.0, 10.0));
    assert_eq!((whole.positive[1], whole.positive_answers[1]), (7.0, 8.0));
    let mut parts = Measured::none(4);
    for some in [0..2, 2..5] {
        asked[some].iter().for_each(|of_pair| parts.add((2, 2), &all, of_pair));
    }
    assert_eq!(parts, whole);
}

/// Three heads in four pairs: effects of interchange and attributions; the gap is -4 nats in each pair.
fn measured(interchange: [f64; 3], dla: [f64; 3]) -> Measured {
    let rows = |means: [f64; 3]| means.iter().map(|x| vec![x - 0.1, x + 0.1, x - 0.1, x + 0.1]).collect::<Vec<_>>();
    let shares = rows([0.3, 0.3, 0.3]);
    let interchange = rows(interchange);
    let (ablation, positive, negative) = (interchange.clone(), vec![2.0; 4], vec![-2.0; 4]);
    Measured { positive, negative, interchange, ablation, dla: rows(dla), shares, ..Measured::default() }
}

fn tested(q: [f64; 3]) -> Methods {
    let of = |q: f64| Tested { q: Some(q), ..Tested::default() };
    Methods { interchange: q.map(of).into(), ablation: q.map(of).into(), dla: q.map(of).into() }
}

#[test]
fn attribution_misses_what_is_not_among_as_many_of_its_strongest() {
    // Interchange finds heads 0 and 1; attribution's two strongest are 2 and 1.
    let found = missed(&measured([-2.0, -1.0, -0.5], [0.1, 0.5, 0.9]), &tested([0.01, 0.01, 0.5]));
    let by_attribution: Vec<(usize, bool)> = found.iter().map(|m| (m.head, m.by_attribution)).collect();
    assert_eq!(by_attribution, [(0, true), (1, false)]);
    // All three are found, and so all three are asked for.
    let found = missed(&measured([-2.0, -1.0, -0.5], [0.1, 0.5, 0.9]), &tested([0.01; 3]));
    assert!(found.len() == 3 && found.iter().all(|m| !m.by_attribution && !m.by_ablation));
}

#[test]
fn heads_that_are_taken_apart_are_the_strongest_of_either_method() {
    assert_eq!(measured([-2.0, -1.0, -0.5], [0.1, 0.5, 0.9]).strongest(1), [0, 2]);
    assert_eq!(measured([-2.0, -1.0, -0.5], [0.9, 0.5, 0.1]).strongest(1), [0]);
    assert!(measured([-2.0, -1.0, -0.5], [0.9, 0.5, 0.1]).strongest(0).is_empty());
}

#[test]
fn shares_of_the_gap_have_intervals_that_know_the_gap() {
    // Effects are a quarter of each pair's own gap: as a share they are sure, though both vary from pair to pair.
    let mut measured = measured([-1.0; 3], [0.1; 3]);
    measured.negative = vec![-1.0, -3.0, -6.0, 1.0];
    let effects: Vec<f64> = measured.gaps().iter().map(|gap| gap / 4.0).collect();
    let Crossed { share, interval } = crossed(&effects, &measured, 0);
    for number in [share, interval.unzip().0, interval.unzip().1] {
        assert!((number.unwrap() - 0.25).abs() < 1e-12, "{number:?}");
    }
}
