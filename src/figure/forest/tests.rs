use super::*;
use crate::figure::marks::color;
use crate::figure::style::PAPER;
use crate::figure::testing::{draw, noise};

fn row(label: &str, estimates: Vec<Option<Estimate>>) -> ForestRow {
    ForestRow { label: label.into(), estimates }
}

fn forest(series: &[&str], rows: Vec<ForestRow>) -> Forest {
    Forest {
        title: "Strongest heads for refusal".into(),
        subtitle: "SmolLM2-135M-Instruct, 120 pairs, last position".into(),
        value_label: "effect on the logit difference".into(),
        series: series.iter().map(|name| name.to_string()).collect(),
        rows,
        mark_meaning: Some("q < 0.05".into()),
        interval_meaning: Some("95 % interval (BCa)".into()),
        missing_meaning: None,
    }
}

fn heads(count: usize, series: usize, scale: f64) -> Vec<ForestRow> {
    let estimate = |index: usize| {
        let value = (2.5 / (1.0 + index as f64 * 0.3) * if index % 3 == 2 { -0.6 } else { 1.0 }) * scale;
        let half = (0.25 + noise(index).abs() * 0.4) * scale;
        Some(Estimate::new(value).within(value - half, value + 1.2 * half).marked(value.abs() > 1.4 * half))
    };
    let one = |index: usize| {
        row(&format!("L{}.H{}", 29 - index % 30, index % 9), (0..series).map(|s| estimate(index + 2 * s)).collect())
    };
    (0..count).map(one).collect()
}

#[test]
fn every_number_of_rows_and_series_is_drawn() {
    draw("forest-12", forest(&["necessity"], heads(12, 1, 1.0)));
    draw("forest-40x2", forest(&["necessity", "sufficiency"], heads(40, 2, 1.0)));
    draw("forest-6x7", forest(&["de", "en", "fr", "es", "zh", "ar", "hi"], heads(6, 7, 1e-6)));
    draw("forest-100", forest(&["necessity"], heads(100, 1, 1e6)));
    draw("forest-1", forest(&["necessity"], vec![row("L14.H13", vec![Some(Estimate::new(-3.25))])]));
}

#[test]
fn gaps_long_labels_and_equal_values_are_drawn() {
    let nan = Some(Estimate::new(f64::NAN).within(0.0, 1.0));
    let open = Some(Estimate::new(-1.0).within(f64::NEG_INFINITY, 0.0).marked(true));
    let rows = vec![
        row(
            "a label that does not fit into the room that there is for labels, not even in two lines",
            vec![open, None],
        ),
        row("an_unbreakable_label_that_is_too_long_as_well", vec![nan, Some(Estimate::new(-1.0).within(-0.5, -2.0))]),
        row("", vec![None, None]),
    ];
    let mut figure = forest(&["necessity of the head for refusals, all languages together", "sufficiency"], rows);
    figure.title = "A title that is so long that it must be broken into two lines".into();
    draw("forest-gaps", figure);
    let same = (0..3).map(|index| row(&index.to_string(), vec![Some(Estimate::new(0.0))])).collect();
    draw("forest-zero", forest(&["necessity"], same));
    draw("forest-none", forest(&["necessity"], vec![row("L0.H0", vec![None])]));
}

/// Where the colour is that is nearest to the left, and to the right, at a height.
fn ends(canvas: &Canvas, y: i32, series: usize) -> Option<(i32, i32)> {
    let (width, _) = canvas.size();
    let mut found = (0..width).filter(|x| canvas.pixel(*x, y) == color(series));
    let first = found.next()?;
    Some((first, found.next_back().unwrap_or(first)))
}

#[test]
fn markers_and_intervals_are_where_the_values_say() {
    let estimates = [Estimate::new(1.0).within(0.5, 2.0), Estimate::new(-1.0).within(-2.0, 0.0)];
    let rows = estimates.map(|estimate| row("L0.H0", vec![Some(estimate.marked(true))])).to_vec();
    let figure = forest(&["necessity"], rows);
    let canvas = figure.draw().unwrap();
    let layout = figure.layout(Heading::new(&figure.title, &figure.subtitle).height());
    let axis = AxisBelow::new(figure.span(), layout.plot, "", false);
    for (index, estimate) in estimates.iter().enumerate() {
        let (left, right) = ends(&canvas, layout.y_of(index, 0) as i32, 0).unwrap();
        let (low, high) = estimate.interval.unwrap();
        assert!((left as f32 - axis.scale.place(low)).abs() < 4.0, "row {index} starts at {left}");
        assert!((right as f32 - axis.scale.place(high)).abs() < 4.0, "row {index} ends at {right}");
        // Above the interval's line there is only the marker.
        let (left, right) = ends(&canvas, layout.y_of(index, 0) as i32 - 11, 0).unwrap();
        assert!(((left + right) as f32 / 2.0 - axis.scale.place(estimate.value)).abs() < 2.0);
    }
}

#[test]
fn marked_is_filled_and_the_rest_is_open_unless_nothing_is_ever_marked() {
    let center = |marked: bool, meaning: Option<&str>| {
        let mut figure = forest(&["necessity"], vec![row("a", vec![Some(Estimate::new(1.0).marked(marked))])]);
        figure.mark_meaning = meaning.map(str::to_owned);
        let canvas = figure.draw().unwrap();
        let layout = figure.layout(Heading::new(&figure.title, &figure.subtitle).height());
        let x = AxisBelow::new(figure.span(), layout.plot, "", false).scale.place(1.0);
        canvas.pixel(x as i32, layout.y_of(0, 0) as i32)
    };
    assert_eq!(center(true, Some("q < 0.05")), color(0));
    assert_eq!(center(false, Some("q < 0.05")), PAPER);
    assert_eq!(center(false, None), color(0));
}

#[test]
fn wrong_shapes_are_errors_that_name_the_figure_and_the_row() {
    let message = |figure: Forest| figure.draw().err().unwrap().to_string();
    let empty = message(forest(&["necessity"], Vec::new()));
    assert!(empty.contains("\"Strongest heads for refusal\": has no rows"), "{empty}");
    assert!(matches!(forest(&[], heads(1, 0, 1.0)).draw(), Err(FigureError::Empty { .. })));
    let unequal = message(forest(&["necessity", "sufficiency"], heads(3, 1, 1.0)));
    assert!(unequal.contains("row \"L29.H0\" has 1 values, expected 2, one for each series"), "{unequal}");
    let many = message(forest(&["necessity"], heads(MOST_ROWS + 1, 1, 1.0)));
    assert!(many.contains("101 rows are more than the 100"), "{many}");
    let high = message(forest(&["a", "b"], heads(81, 2, 1.0)));
    assert!(high.contains("162 estimates are more than the 160"), "{high}");
    assert!(matches!(forest(&["s"; 8], heads(1, 8, 1.0)).draw(), Err(FigureError::TooMany { .. })));
}

#[test]
fn the_same_values_give_the_same_bytes() {
    let bytes = || forest(&["necessity", "sufficiency"], heads(5, 2, 1.0)).draw().unwrap().to_png().unwrap();
    assert_eq!(bytes(), bytes());
}
