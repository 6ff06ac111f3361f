use super::*;
use crate::figure::marks::color;
use crate::figure::testing::{draw, noise};

fn scatter(count: usize, scale: f64) -> Scatter {
    let point = |index: usize| {
        let x = noise(index).powi(3) * 16.0 * scale;
        let y = x * 0.9 + 0.25 * noise(index + 7777) * scale;
        let name = (x.abs() > 1.55 * scale && index < 270).then(|| format!("L{}.H{}", index % 30, index % 9));
        ScatterPoint { x, y, name, series: 0 }
    };
    Scatter {
        title: "Attribution patching against interchange".into(),
        subtitle: "SmolLM2-135M-Instruct, every head, r = 0.97".into(),
        x_label: "exact effect (logits)".into(),
        y_label: "estimated effect (logits)".into(),
        identity: true,
        series: Vec::new(),
        named_meaning: Some("the largest".into()),
        points: (0..count).map(point).collect(),
    }
}

#[test]
fn few_and_many_points_are_drawn() {
    draw("scatter-270", scatter(270, 1.0));
    draw("scatter-2000", scatter(2000, 1e-5));
    draw("scatter-1", scatter(1, 1.0));
    let mut same = scatter(3, 1.0);
    same.points =
        vec![
            ScatterPoint { x: 7.0, y: 7.0, name: Some("a name that is too long to be written out".into()), series: 0 };
            3
        ];
    draw("scatter-same", same);
    let mut two = scatter(270, 1.0);
    two.series = vec!["necessity".into(), "sufficiency".into()];
    for (index, point) in two.points.iter_mut().enumerate() {
        point.series = index % 2;
        point.y *= if index % 2 == 0 { 1.0 } else { 0.5 };
    }
    draw("scatter-two", two);
    draw("scatter-own-ranges", Scatter { identity: false, ..scatter(270, 1.0) });
}

#[test]
fn points_are_where_their_numbers_say_on_one_scale() {
    let mut figure = scatter(0, 1.0);
    let named = |x, y| ScatterPoint { x, y, name: Some(String::new()), series: 1 };
    figure.points = vec![named(0.0, 0.0), named(1.0, 3.0), named(f64::NAN, 9.0)];
    let canvas = figure.draw().unwrap();
    let span = Span { low: 0.0, high: 3.0 }.padded(0.04);
    let panel =
        Panel::new(Heading::new(&figure.title, &figure.subtitle).height(), SIDE, Some(SIDE), span, &figure.y_label);
    let axis = AxisBelow::new(span, panel.plot, "", false);
    let at = |x: f64, y: f64| canvas.pixel(axis.scale.place(x) as i32, panel.scale.place(y) as i32);
    assert_eq!([at(0.0, 0.0), at(1.0, 3.0)], [color(1); 2]);
    assert_ne!(at(3.0, 1.0), color(1));
}

#[test]
fn numbers_of_two_kinds_have_a_range_each_and_no_line_of_equality() {
    let mut figure = scatter(0, 1.0);
    let point = |x, y| ScatterPoint { x, y, name: None, series: 0 };
    figure.points = vec![point(0.0, 0.0), point(1.0, 0.05)];
    let narrow = Span { low: 0.0, high: 0.05 }.padded(0.04);
    let wide = Span { low: 0.0, high: 1.0 }.padded(0.04);
    assert_eq!(figure.spans().unwrap(), (wide, wide));
    assert_eq!(figure.legend().line_count(), 1);
    let with = figure.draw().unwrap();
    figure.identity = false;
    assert_eq!(figure.spans().unwrap(), (wide, narrow));
    assert_eq!(figure.legend().line_count(), 0);
    let without = figure.draw().unwrap();
    let top = Heading::new(&figure.title, &figure.subtitle).height();
    let drawn = |canvas: &Canvas, span| {
        let plot = Panel::new(top, SIDE, Some(SIDE), span, &figure.y_label).plot;
        (1..SIDE - 1).any(|step| canvas.pixel(plot.left + step, plot.bottom() - step) == FAINT_INK)
    };
    assert_eq!((drawn(&with, wide), drawn(&without, narrow)), (true, false));
}

#[test]
fn series_are_named_and_their_points_told_apart() {
    let mut figure = scatter(0, 1.0);
    figure.series = vec!["necessity".into(), "sufficiency".into()];
    let point = |x, series| ScatterPoint { x, y: x, name: Some(String::new()), series };
    figure.points = vec![point(-1.0, 0), point(1.0, 1)];
    let canvas = figure.draw().unwrap();
    let (x, y) = figure.spans().unwrap();
    let panel =
        Panel::new(Heading::new(&figure.title, &figure.subtitle).height(), SIDE, Some(SIDE), y, &figure.y_label);
    let axis = AxisBelow::new(x, panel.plot, "", false);
    let at = |x: f64| canvas.pixel(axis.scale.place(x) as i32, panel.scale.place(x) as i32);
    assert_eq!([at(-1.0), at(1.0)], [color(0), color(1)]);
    figure.series = vec!["s".into(); 8];
    assert!(figure.draw().err().unwrap().to_string().contains("8 series are more than the 7"));
}

#[test]
fn no_points_is_an_error_that_names_the_figure() {
    let message = scatter(0, 1.0).draw().err().unwrap().to_string();
    assert!(message.contains("\"Attribution patching against interchange\": has no points"), "{message}");
    let mut nowhere = scatter(1, 1.0);
    nowhere.points[0].y = f64::NAN;
    assert!(matches!(nowhere.draw(), Err(FigureError::Empty { .. })));
}
