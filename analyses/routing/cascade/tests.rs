use super::*;
use crate::plan::{Metric, Reading};

fn component(layer: i64, name: &str) -> Component {
    Component { layer, name: name.to_string() }
}

#[test]
fn a_knockout_reaches_later_heads_and_mlps_from_its_own_layer_on() {
    let gate = [Head { layer: 2, head: 1 }, Head { layer: 3, head: 0 }];
    let of = |layer, name: &str| class(&component(layer, name), &gate);
    assert!(of(2, "head.1") == Some(Class::Gate) && of(3, "head.0") == Some(Class::Gate));
    assert!(of(2, "head.0").is_none() && of(1, "mlp").is_none() && of(-1, "embed").is_none());
    assert!(of(3, "head.1") == Some(Class::Head) && of(2, "mlp") == Some(Class::Mlp) && of(3, "bias").is_none());
}

#[test]
fn the_strongest_amplifiers_come_first_and_are_knocked_out_one_by_one_and_together() {
    let loss = |layer, name: &str, drop: f64, amplifier| Loss {
        component: component(layer, name),
        drops: vec![drop, drop],
        answers: vec![drop, drop],
        tested: Tested::default(),
        is_gate: false,
        amplifier,
    };
    let losses = [loss(4, "head.0", 0.5, true), loss(5, "head.3", 2.0, true), loss(5, "head.4", 9.0, false)];
    let found = strongest(&losses, 8);
    assert_eq!(found, [Head { layer: 5, head: 3 }, Head { layer: 4, head: 0 }]);
    let names: Vec<String> = sets(&found).into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["L5.H3", "L4.H0", "amplifiers"]);
    assert!(strongest(&losses, 0).is_empty() && sets(&[]).is_empty() && sets(&found[..1]).len() == 1);
}

/// What a plan reads of so many pairs, and what that comes to: of pair 1 the numbers 20 to 26, in the order of the readouts.
fn readings(pairs: u8) -> (Readings, Vec<OfPair>) {
    let (mut plan, metric) = (Plan::default(), || Metric::logit_difference(vec![1], vec![2]));
    let mut found = Vec::new();
    let asked = (0..pairs).map(|pair| {
        let run = plan.prompt("p", vec![1]);
        let number = |k: u8| Reading::Number(f64::from(20 * pair + k));
        let attribution = |k: u8| {
            let values = (0..8u8).map(|x| f32::from(20 * pair + k + x)).collect();
            Reading::Array(Array { shape: vec![2, 4], values })
        };
        found.extend([number(0), number(1), number(3), number(4), number(6)]);
        found.extend([2, 7, 5, 9].map(attribution));
        let positive = plan.read(run, metric());
        let negative = plan.read(run, metric());
        let answer = Some(plan.read(run, metric()));
        let gate_out = plan.read(run, metric());
        let gate_answer = Some(plan.read(run, metric()));
        let values = [Asked { metric: positive, answer }, Asked { metric: gate_out, answer: gate_answer }];
        let mut both = || [(); 2].map(|()| plan.read(run, Attribution(metric())));
        OfPair { negative, values, attributions: [both(), both()] }
    });
    let asked = asked.collect();
    (Readings::new(found), asked)
}

#[test]
fn readings_say_the_same_in_one_plan_and_in_several() {
    let all = components(1, 2);
    let measured = |plans: &[u8]| {
        let mut measured = Measured::default();
        for (readings, asked) in plans.iter().map(|pairs| readings(*pairs)) {
            asked.iter().for_each(|of_pair| measured.add(&all, 2, &readings, of_pair));
        }
        measured
    };
    let whole = measured(&[3]);
    assert_eq!((&whole.gate_out[..], whole.attributions[1].len()), (&[4.0, 24.0, 44.0][..], 3));
    assert_eq!(whole.answers, [vec![3.0, 23.0, 43.0], vec![6.0, 26.0, 46.0]]);
    // Of the layer's first head: without the knockout 2 to the metric and 7 to its answer's half, with it 5 and 9.
    let first = |rows: &[Vec<Vec<f64>>; 2]| [0, 1].map(|run: usize| rows[run][1][1]);
    assert_eq!((first(&whole.attributions), first(&whole.to_answers)), ([22.0, 25.0], [27.0, 29.0]));
    assert_eq!((&whole.positive[..], &whole.negative[..]), (&[0.0, 20.0, 40.0][..], &[1.0, 21.0, 41.0][..]));
    // The same first pair in plans of its own.
    assert_eq!(measured(&[1, 1]).answers, [vec![3.0; 2], vec![6.0; 2]]);
}

#[test]
fn what_a_component_loses_of_the_answers_half_is_that_of_its_own_attributions() {
    let all = components(1, 2);
    let mut measured = Measured::default();
    let (readings, asked) = readings(3);
    asked.iter().for_each(|of_pair| measured.add(&all, 2, &readings, of_pair));
    let found = drops(&Knocked::of(all, measured), &[Head { layer: 0, head: 0 }], 0).unwrap();
    let head = found.iter().find(|loss| loss.component == component(0, "head.1")).unwrap();
    assert_eq!((&head.drops[..], &head.answers[..]), (&[-3.0; 3][..], &[-2.0; 3][..]));
}
