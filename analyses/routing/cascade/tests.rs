use super::*;

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

#[test]
fn readings_say_the_same_in_one_plan_and_in_several() {
    let number = |pair: u8, k: u8| f64::from(20 * pair + k);
    let attribution = |pair, k| {
        let values = (0..8u8).map(|x| (number(pair, k) + f64::from(x)) as f32).collect();
        Reading::Array(crate::plan::Array { shape: vec![2, 4], values })
    };
    let of_pair = |pair| {
        let metric = |k| Reading::Number(number(pair, k));
        [metric(0), metric(1), attribution(pair, 2), metric(3), metric(4), attribution(pair, 5), metric(6)]
    };
    let readings: Vec<Reading> = (0..3).flat_map(of_pair).collect();
    let all = components(1, 2);
    let (mut whole, mut parts) = (Measured::default(), Measured::default());
    whole.add(&all, 2, &readings);
    assert_eq!((&whole.gate_out[..], whole.attributions[1].len()), (&[4.0, 24.0, 44.0][..], 3));
    assert_eq!(whole.answers, [vec![3.0, 23.0, 43.0], vec![6.0, 26.0, 46.0]]);
    readings.chunks(OF_PAIR).for_each(|some| parts.add(&all, 2, some));
    assert_eq!(parts, whole);
}
