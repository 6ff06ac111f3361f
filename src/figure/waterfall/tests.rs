use super::*;
use crate::figure::style::PAPER;
use crate::figure::testing::{draw, noise};

fn part(label: &str, value: f64) -> WaterfallPart {
    WaterfallPart { label: label.into(), value: Some(value) }
}

fn waterfall(layers: usize, scale: f64) -> Waterfall {
    let layer = |index: usize| {
        let late = if index * 3 > layers * 2 { 1.2 } else { 0.15 };
        WaterfallLayer {
            attention: Some((noise(index) + 0.1) * late * scale),
            mlp: Some((noise(index + 500) + 0.05) * late * 1.5 * scale),
        }
    };
    Waterfall {
        title: "Direct logit attribution by layer".into(),
        subtitle: "SmolLM2-135M-Instruct, mean over 120 prompts, refusal against compliance".into(),
        value_label: "sum of contributions (logits)".into(),
        before: vec![part("embed", 0.12 * scale)],
        layers: (0..layers).map(layer).collect(),
        after: vec![part("bias", -0.2 * scale)],
    }
}

#[test]
fn every_number_of_layers_is_drawn() {
    draw("waterfall-30", waterfall(30, 1.0));
    draw("waterfall-80", waterfall(80, 1.0));
    draw("waterfall-128", waterfall(MOST_LAYERS, -1e-5));
    draw("waterfall-4", waterfall(4, 1e4));
    let mut one = waterfall(1, 1.0);
    one.before.clear();
    one.after.clear();
    draw("waterfall-1", one);
}

#[test]
fn gaps_and_zeros_and_long_labels_are_drawn() {
    let mut figure = waterfall(12, 1.0);
    figure.layers[3].attention = None;
    figure.layers[9].mlp = Some(f64::NAN);
    figure.after.push(part("a remainder with a name that is far too long to stand", 0.4));
    figure.value_label =
        "contribution to the difference of the logits of refusal and of compliance, before soft-capping".into();
    draw("waterfall-gaps", figure);
    let mut zero = waterfall(5, 0.0);
    zero.before[0].value = None;
    draw("waterfall-zero", zero);
}

fn places(figure: &Waterfall) -> (AxisBelow, Layout) {
    let top = Heading::new(&figure.title, &figure.subtitle).height();
    let layout = Layout::new(figure.labels(), figure.before.len(), figure.layers.len(), top);
    let axis = AxisBelow::new(figure.span(&figure.steps()), layout.plot, "", false);
    (axis, layout)
}

#[test]
fn each_bar_goes_from_the_sum_before_it_to_the_sum_after_it() {
    let mut figure = waterfall(2, 1.0);
    figure.before = vec![part("embed", 1.0)];
    figure.layers = vec![WaterfallLayer { attention: Some(2.0), mlp: Some(1.5) }; 2];
    figure.after = vec![part("bias", 0.5)];
    let canvas = figure.draw().unwrap();
    let (axis, layout) = places(&figure);
    let bars = [
        (FAINT_INK, 0.0, 1.0),
        (ATTENTION, 1.0, 3.0),
        (MLP, 3.0, 4.5),
        (ATTENTION, 4.5, 6.5),
        (MLP, 6.5, 8.0),
        (FAINT_INK, 8.0, 8.5),
        (INK, 0.0, 8.5),
    ];
    for (index, (color, from, to)) in bars.into_iter().enumerate() {
        let (top, bottom) = layout.slot(index);
        let y = (top + bottom) / 2;
        let found: Vec<i32> =
            (layout.plot.left..layout.plot.right()).filter(|x| canvas.pixel(*x, y) == color).collect();
        let (left, right) = (found[0] as f32, found[found.len() - 1] as f32);
        assert!((left - axis.scale.place(from)).abs() <= 3.0, "bar {index} starts at {left}");
        assert!((right - axis.scale.place(to)).abs() <= 3.0, "bar {index} ends at {right}");
    }
    let tips: Vec<&str> = canvas.tips().iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(tips[..2], ["embed: +1.00; sum +1.00", "layer 0 attention: +2.00; sum +3.00"]);
    assert_eq!((tips.len(), tips[6]), (7, "total: +8.50"));
}

#[test]
fn the_passage_goes_up_the_page() {
    let (_, layout) = places(&waterfall(3, 1.0));
    let tops: Vec<i32> = (0..9).map(|step| layout.slot(step).0).collect();
    assert!(tops.windows(2).all(|pair| pair[1] < pair[0]), "{tops:?}");
    assert!(tops[8] >= layout.plot.top && layout.slot(0).1 <= layout.plot.bottom());
}

#[test]
fn what_takes_away_is_an_outline_at_any_number_of_layers() {
    for layers in [1, 80, MOST_LAYERS] {
        let mut figure = waterfall(layers, 0.0);
        figure.layers[0] = WaterfallLayer { attention: Some(3.0), mlp: Some(-2.0) };
        figure.before.clear();
        figure.after.clear();
        let canvas = figure.draw().unwrap();
        let (axis, layout) = places(&figure);
        let inside = |index: usize| {
            let (top, bottom) = layout.slot(index);
            canvas.pixel(axis.scale.place(2.0) as i32, (top + bottom) / 2)
        };
        let edge = canvas.pixel(axis.scale.place(2.0) as i32, layout.slot(1).0);
        assert_eq!((inside(0), inside(1), edge), (ATTENTION, PAPER, MLP), "{layers} layers");
    }
}

#[test]
fn sums_beyond_what_can_be_scaled_are_drawn_all_the_same() {
    draw("waterfall-huge", waterfall(12, 1e299));
    draw("waterfall-smallest", waterfall(12, 1e-310));
}

#[test]
fn a_missing_part_adds_nothing_to_the_sum() {
    let mut figure = waterfall(2, 1.0);
    figure.layers = vec![WaterfallLayer { attention: Some(2.0), mlp: None }; 2];
    figure.before.clear();
    figure.after.clear();
    assert_eq!(figure.steps().last().unwrap().to, 4.0);
    figure.layers[0].mlp = Some(f64::INFINITY);
    assert_eq!(figure.steps().last().unwrap().to, 4.0);
}

#[test]
fn wrong_shapes_are_errors_that_name_the_figure() {
    let message = |figure: Waterfall| figure.draw().err().unwrap().to_string();
    let empty = message(waterfall(0, 1.0));
    assert!(empty.contains("\"Direct logit attribution by layer\": has no layers"), "{empty}");
    let many = message(waterfall(MOST_LAYERS + 1, 1.0));
    assert!(many.contains("129 layers are more than the 128"), "{many}");
    let mut figure = waterfall(3, 1.0);
    figure.after = vec![part("bias", 0.1); MOST_OTHERS + 1];
    assert!(message(figure).contains("7 parts after them are more than the 6"));
}
