use super::*;

#[test]
fn ranks_are_by_size_whatever_the_sign() {
    assert_eq!(ranks(&[0.1, -3.0, 2.0]), [3, 1, 2]);
}

/// What [`methods_plan`] reads of `n` pairs of a model of two layers and two heads.
fn readings(n: usize) -> Vec<Reading> {
    let of_pair = |pair: usize| {
        let number = move |k: usize| Reading::Number((7 * pair + k * k) as f64);
        let attribution = |by: f32| {
            let values = (0..12).map(|k| by * ((k as f32) - pair as f32)).collect();
            Reading::Array(crate::plan::Array { shape: vec![3, 4], values })
        };
        let of_pair = [number(0), number(1), number(2), attribution(1.0), attribution(2.0)];
        of_pair.into_iter().chain((3..19).map(number))
    };
    (0..n).flat_map(of_pair).collect()
}

#[test]
fn readings_say_the_same_in_one_plan_and_in_several() {
    let all = readings(5);
    let of_pair = all.len() / 5;
    let mut whole = Measured::none(4);
    whole.add((2, 2), &all);
    // The last head's four numbers are those of 15 to 18; each is less than the prompt's own of its kind.
    assert_eq!((whole.interchange[3][1], whole.ablation[3][1]), (225.0, 289.0));
    assert_eq!([0, 1].map(|method| whole.answers[method][3][1]), [16.0 * 16.0 - 1.0, 18.0 * 18.0 - 1.0]);
    assert_eq!((whole.positive.len(), whole.dla[2][4], whole.dla[3][0], whole.answers[2][3][0]), (5, 0.0, 5.0, 10.0));
    let mut parts = Measured::none(4);
    [0..2, 2..5].into_iter().for_each(|some| parts.add((2, 2), &all[some.start * of_pair..some.end * of_pair]));
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
    let effects = vec![measured.gaps().iter().map(|gap| gap / 4.0).collect::<Vec<_>>()];
    let table = crossed_columns(Table::new("heads"), "interchange", &effects, (&measured, 0)).unwrap();
    for column in ["interchange_crossed", "interchange_crossed_ci_low", "interchange_crossed_ci_high"] {
        assert!((table.floats(column).unwrap()[0].unwrap() - 0.25).abs() < 1e-12, "{column}");
    }
}
