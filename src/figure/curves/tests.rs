use super::*;
use crate::figure::testing::{draw, noise};

fn curve(name: &str, role: CurveRole, xs: &[f64], of: impl Fn(f64) -> f64, half: f64) -> Curve {
    let point = |x: &f64| {
        let y = of(*x);
        CurvePoint { x: *x, y: Some(y), interval: (half > 0.0).then_some((y - half, y + half)) }
    };
    Curve { name: name.into(), role, points: xs.iter().map(point).collect() }
}

fn curves(curves: Vec<Curve>) -> Curves {
    Curves {
        title: "Refusals by strength of the direction".into(),
        subtitle: "Qwen2.5-0.5B-Instruct, 60 harmless prompts, layer 12".into(),
        x_label: "coefficient (multiples of the direction's norm)".into(),
        y_label: "share of answers".into(),
        shares: false,
        curves,
        thresholds: Vec::new(),
        reference: None,
        y_range: None,
        interval_meaning: None,
    }
}

fn logistic(x: f64, middle: f64) -> f64 {
    1.0 / (1.0 + (-2.0 * (x - middle)).exp())
}

fn doses() -> Vec<f64> {
    (-8..=8).map(|step| f64::from(step) * 0.5).collect()
}

fn dose_response() -> Curves {
    let xs = doses();
    let mut lines = vec![
        curve("refusal", CurveRole::Series, &xs, |x| logistic(x, 1.0), 0.06),
        curve("evasion", CurveRole::Series, &xs, |x| 0.3 * (-(x - 0.3) * (x - 0.3)).exp(), 0.04),
        curve("answer", CurveRole::Series, &xs, |x| 1.0 - logistic(x, 0.2), 0.06),
    ];
    for seed in 0..6 {
        let of = |x: f64| (0.1 + 0.02 * x.abs() + 0.1 * noise(seed * 100 + (x * 2.0 + 10.0) as usize)).max(0.0);
        lines.push(curve("refusal, random directions", CurveRole::Control, &xs, of, 0.0));
    }
    let thresholds = vec![
        Threshold { x: 0.93, label: "half refuse: 0.93 [0.71, 1.16]".into(), interval: Some((0.71, 1.16)) },
        Threshold { x: 0.2, label: "half answer no more".into(), interval: None },
    ];
    Curves { thresholds, y_range: Some((0.0, 1.0)), interval_meaning: Some("95 % interval".into()), ..curves(lines) }
}

fn by_layer(layers: usize, series: usize) -> Curves {
    let xs: Vec<f64> = (0..layers).map(|layer| layer as f64).collect();
    let names = ["harm", "refusal", "language", "politics", "medical", "code", "poetry"];
    let of = |number: usize| {
        let rate = 0.1 + 0.05 * number as f64;
        move |x: f64| 1.0 - 0.5 * (-x * rate).exp() - 0.02 * number as f64 + 0.02 * noise(x as usize + 100 * number)
    };
    let lines = (0..series).map(|number| curve(names[number], CurveRole::Series, &xs, of(number), 0.0)).collect();
    Curves {
        title: "Accuracy of the concept classifiers by layer".into(),
        x_label: "layer".into(),
        y_label: "held-out accuracy".into(),
        ..curves(lines)
    }
}

#[test]
fn doses_and_layers_are_drawn() {
    draw("curves-dose", dose_response());
    draw("curves-layers-7", by_layer(30, 7));
    draw("curves-layers-80", by_layer(80, 3));
    draw("curves-layers-3", by_layer(3, 2));
}

#[test]
fn single_points_gaps_and_extreme_numbers_are_drawn() {
    draw("curves-single", curves(vec![curve("one", CurveRole::Series, &[2.0], |_| 0.4, 0.1)]));
    draw("curves-constant", curves(vec![curve("one", CurveRole::Series, &[0.0, 1.0, 2.0], |_| 3e9, 0.0)]));
    let mut figure = by_layer(20, 3);
    for index in [3, 5, 11, 12] {
        figure.curves[0].points[index].y = None;
        figure.curves[1].points[index + 2].y = Some(f64::NAN);
        figure.curves[2].points[index].x = f64::INFINITY;
    }
    for point in &mut figure.curves[1].points {
        point.interval = point.y.map(|y| (y - 0.03, y + 0.02));
    }
    draw("curves-gaps", figure);
    let tiny = curve("effect", CurveRole::Series, &[1e-6, 2e-6, 4e-6], |x| -x * 3e-4, 0.0);
    let mut figure = curves(vec![tiny, curve("random", CurveRole::Control, &[3e-6], |_| -5e-10, 1e-10)]);
    figure.y_label =
        "a label of the value axis that is so long that it cannot stand in one line beside the plot".into();
    figure.x_label = "a label of the other axis that is so long that it cannot stand in one line under the plot".into();
    draw("curves-tiny", figure);
}

#[test]
fn thresholds_that_are_near_each_other_are_drawn() {
    let mut figure = dose_response();
    let threshold =
        |x: f64, label: &str| Threshold { x, label: label.into(), interval: Some((x - 0.3, f64::INFINITY)) };
    figure.thresholds = vec![
        threshold(3.9, "at the right edge of all"),
        threshold(3.6, "near it"),
        threshold(-4.0, "at the left"),
        threshold(
            0.0,
            "in the middle, with a label that is much too long to stand anywhere in the width that a plot has",
        ),
        threshold(0.1, "beside it"),
        threshold(f64::NAN, "nowhere"),
    ];
    figure.thresholds[0].interval = Some((-100.0, 100.0));
    draw("curves-thresholds", figure);
}

struct Places {
    panel: Panel,
    axis: AxisBelow,
}

impl Places {
    fn of(figure: &Curves) -> Places {
        let (x_span, y_span) = figure.check(&figure.lines()).unwrap();
        let width = Panel::new(0, PLOT_HEIGHT, None, y_span, &figure.y_label).plot;
        let flags = Flags::new(&figure.thresholds, AxisBelow::new(x_span, width, "", false).scale, width);
        let top = Heading::new(&figure.title, &figure.subtitle).height() + flags.height();
        let panel = Panel::new(top, PLOT_HEIGHT, None, y_span, &figure.y_label);
        let axis = AxisBelow::new(x_span, panel.plot, "", false);
        Places { panel, axis }
    }

    fn at(&self, canvas: &Canvas, x: f64, y: f64) -> Color {
        canvas.pixel(self.axis.scale.place(x) as i32, self.panel.scale.place(y) as i32)
    }
}

#[test]
fn a_line_goes_through_its_points_whatever_their_order_and_stops_at_gaps() {
    let mut line = curve("one", CurveRole::Series, &[3.0, 0.0, 2.0, 1.0, 4.0], |x| x, 0.0);
    line.points[4].y = None;
    line.points.push(CurvePoint { x: 5.0, y: Some(5.0), interval: None });
    let figure = curves(vec![line]);
    let canvas = figure.draw().unwrap();
    let places = Places::of(&figure);
    for x in [0.0, 0.5, 1.0, 1.5, 2.5, 3.0, 5.0] {
        assert_eq!(places.at(&canvas, x, x), color(0), "at {x}");
    }
    for x in [3.5, 4.0, 4.5] {
        assert_ne!(places.at(&canvas, x, x), color(0), "at {x}");
    }
}

#[test]
fn the_band_covers_the_interval_and_no_more() {
    let figure = curves(vec![curve("one", CurveRole::Series, &[0.0, 1.0, 2.0], |x| x, 0.4)]);
    let canvas = figure.draw().unwrap();
    let places = Places::of(&figure);
    let shaded = crate::figure::marks::tint(color(0), BAND_OPACITY);
    for x in [0.13, 0.63, 1.31] {
        assert_eq!(places.at(&canvas, x, x + 0.32), shaded);
        assert_eq!(places.at(&canvas, x, x - 0.32), shaded);
        assert_ne!(places.at(&canvas, x, x + 0.48), shaded);
        assert_ne!(places.at(&canvas, x, x - 0.48), shaded);
    }
}

#[test]
fn a_threshold_is_a_line_through_the_plot_with_its_interval_over_it() {
    let mut figure = curves(vec![curve("one", CurveRole::Series, &[0.0, 4.0], |_| 0.0, 0.0)]);
    figure.y_range = Some((-1.0, 1.0));
    figure.thresholds = vec![Threshold { x: 2.0, label: "half".into(), interval: Some((1.0, 2.5)) }];
    let canvas = figure.draw().unwrap();
    let places = Places::of(&figure);
    assert_eq!(places.at(&canvas, 2.0, 0.63), crate::figure::style::INK);
    let over = places.panel.plot.top - thresholds::INTERVAL_HEIGHT / 2;
    let at = |x: f64| canvas.pixel(places.axis.scale.place(x) as i32, over);
    let white = crate::figure::style::PAPER;
    assert_eq!([at(1.3), at(2.4)], [crate::figure::style::INK; 2]);
    assert_eq!([at(0.7), at(2.8), places.at(&canvas, 1.3, 0.63)], [white; 3]);
}

#[test]
fn the_range_asked_for_is_kept_and_controls_are_grey() {
    let figure = dose_response();
    let (_, y) = figure.check(&figure.lines()).unwrap();
    assert!(y.low < 0.0 && y.high > 1.0, "intervals reach beyond");
    let flat = curve("control", CurveRole::Control, &[0.0, 4.0], |_| 0.5, 0.0);
    let figure = Curves { y_range: Some((0.0, 1.0)), ..curves(vec![flat]) };
    assert_eq!(figure.check(&figure.lines()).unwrap().1, Span { low: 0.0, high: 1.0 });
    let canvas = figure.draw().unwrap();
    assert_eq!(Places::of(&figure).at(&canvas, 0.01, 0.5), CONTROL);
}

#[test]
fn controls_of_two_series_are_told_apart_and_each_is_named() {
    let xs = [0.0, 4.0];
    let figure = Curves {
        y_range: Some((0.0, 1.0)),
        ..curves(vec![
            curve("content", CurveRole::Series, &xs, |_| 0.8, 0.0),
            curve("last position", CurveRole::Series, &xs, |_| 0.6, 0.0),
            curve("random, content", CurveRole::ControlOf(0), &xs, |_| 0.4, 0.0),
            curve("random, last position", CurveRole::ControlOf(1), &xs, |_| 0.2, 0.0),
        ])
    };
    let canvas = draw("curves-controls", figure.clone());
    let places = Places::of(&figure);
    let (first, second) = (places.at(&canvas, 0.01, 0.4), places.at(&canvas, 0.01, 0.2));
    assert_eq!([first, second], [tint(color(0), CONTROL_TINT), tint(color(1), CONTROL_TINT)]);
    // Two lines of two entries; controls of one name and no series of their own share one.
    let lines = |figure: &Curves| figure.legend(&figure.lines()).line_count();
    assert_eq!(lines(&figure), 2);
    let mut shared = figure.clone();
    for curve in &mut shared.curves[2..] {
        (curve.role, curve.name) = (CurveRole::Control, "random".into());
    }
    assert_eq!(lines(&shared), 1);
    for (index, dash) in CONTROL_DASHES.iter().enumerate() {
        assert!(!CONTROL_DASHES[index + 1..].contains(dash), "{dash:?}");
    }
}

#[test]
fn every_point_has_a_marker_unless_they_are_dense_and_ends_and_extremes_always() {
    // The grid of a modulation: fine in the middle, coarse at the ends.
    let grid = [-4.0, -3.0, -2.0, -1.0, -0.75, -0.5, -0.375, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0];
    let points: Vec<(f32, f32)> = grid.iter().map(|x| (x * 165.0, 0.0)).collect();
    assert_eq!(marked(&points), points);
    let mut dense: Vec<(f32, f32)> = (0..80).map(|x| (x as f32 * 10.0, 0.0)).collect();
    (dense[31].1, dense[43].1) = (-5.0, 5.0);
    let marks = marked(&dense);
    assert!(marks.len() < 45, "{marks:?}");
    assert!([0, 31, 43, 79].iter().all(|i| marks.contains(&dense[*i])), "{marks:?}");
    assert_eq!((marked(&dense[..1]).len(), marked(&[]).len()), (1, 0));
}

#[test]
fn nothing_to_draw_and_too_much_are_errors_that_name_the_figure() {
    let message = |figure: Curves| figure.draw().err().unwrap().to_string();
    let empty = message(curves(Vec::new()));
    assert!(empty.contains("\"Refusals by strength of the direction\": has no points with a value"), "{empty}");
    let nowhere = curve("one", CurveRole::Series, &[f64::NAN, 1.0], |_| f64::NAN, 0.0);
    assert!(message(curves(vec![nowhere])).contains("has no points with a value"));
    let one = || curve("one", CurveRole::Series, &[1.0], |x| x, 0.0);
    assert!(message(curves((0..8).map(|_| one()).collect())).contains("8 series are more than the 7"));
    let mut figure = curves(vec![one()]);
    figure.thresholds = vec![Threshold { x: 1.0, label: "t".into(), interval: None }; 9];
    assert!(message(figure).contains("9 thresholds are more than the 8"));
}
