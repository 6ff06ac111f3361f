use super::*;
use crate::figure::testing::{draw, noise};

fn scatter(count: usize, scale: f64) -> Scatter {
    let point = |index: usize| {
        let x = noise(index).powi(3) * 16.0 * scale;
        let y = x * 0.9 + 0.25 * noise(index + 7777) * scale;
        let name = (x.abs() > 1.55 * scale && index < 270).then(|| format!("L{}.H{}", index % 30, index % 9));
        ScatterPoint { x, y, name }
    };
    Scatter {
        title: "Attribution patching against interchange".into(),
        subtitle: "SmolLM2-135M-Instruct, every head, r = 0.97".into(),
        x_label: "exact effect (logits)".into(),
        y_label: "estimated effect (logits)".into(),
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
        vec![ScatterPoint { x: 7.0, y: 7.0, name: Some("a name that is too long to be written out".into()) }; 3];
    draw("scatter-same", same);
}

#[test]
fn points_are_where_their_numbers_say_on_one_scale() {
    let mut figure = scatter(0, 1.0);
    let named = |x, y| ScatterPoint { x, y, name: Some(String::new()) };
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
fn no_points_is_an_error_that_names_the_figure() {
    let message = scatter(0, 1.0).draw().err().unwrap().to_string();
    assert!(message.contains("\"Attribution patching against interchange\": has no points"), "{message}");
    let mut nowhere = scatter(1, 1.0);
    nowhere.points[0].y = f64::NAN;
    assert!(matches!(nowhere.draw(), Err(FigureError::Empty { .. })));
}
