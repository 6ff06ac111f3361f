use super::*;
use crate::figure::marks::color;
use crate::figure::testing::{draw, noise};

fn bars(categories: usize, series: &[&str], bands: bool) -> Bars {
    let value = |index: usize, series: usize| {
        (0.55 + 0.4 * (index as f64 / categories as f64) * if series == 1 { -1.0 } else { 1.0 } + 0.1 * noise(index))
            .clamp(0.0, 1.0)
    };
    let one = |(number, name): (usize, &&str)| BarSeries {
        name: name.to_string(),
        estimates: (0..categories)
            .map(|index| {
                let value = value(index, number);
                Some(Estimate::new(value).within(value - 0.06, value + 0.05).marked((value - 0.5).abs() > 0.2))
            })
            .collect(),
        bands: if bands {
            (0..categories).map(|index| Some((0.4 + 0.05 * noise(index), 0.6))).collect()
        } else {
            vec![]
        },
    };
    Bars {
        title: "Concept sensitivity by layer".into(),
        subtitle: "TCAV score of \"harm\", 20 independent CAVs".into(),
        category_label: "layer".into(),
        value_label: "share with positive derivative".into(),
        shares: false,
        categories: (0..categories).map(|layer| layer.to_string()).collect(),
        series: series.iter().enumerate().map(one).collect(),
        range: Some((0.0, 1.0)),
        reference: Some((0.5, "no preference".into())),
        mark_meaning: Some("q < 0.05".into()),
        interval_meaning: Some("95 % interval".into()),
        band_meaning: Some("random concepts, mean ± sd".into()),
    }
}

fn plain(values: &[f64]) -> Bars {
    Bars {
        categories: (0..values.len()).map(|index| format!("c{index}")).collect(),
        series: vec![BarSeries {
            name: "all".into(),
            estimates: values.iter().map(|value| Some(Estimate::new(*value))).collect(),
            bands: Vec::new(),
        }],
        range: None,
        reference: None,
        mark_meaning: None,
        ..bars(1, &["all"], false)
    }
}

#[test]
fn every_number_of_categories_and_series_is_drawn() {
    draw("bars-30-bands", bars(30, &["refusal"], true));
    draw("bars-80-bands-2", bars(80, &["refusal", "compliance"], true));
    draw("bars-12-bands-3", bars(12, &["refusal", "compliance", "evasion"], true));
    draw("bars-12", bars(12, &["refusal"], false));
    draw("bars-30-2", bars(30, &["refusal", "compliance"], false));
    draw("bars-3-7", bars(3, &["de", "en", "fr", "es", "zh", "ar", "hi"], false));
    draw("bars-1", bars(1, &["refusal"], false));
}

#[test]
fn names_gaps_and_all_kinds_of_ranges_are_drawn() {
    let mut figure = bars(9, &["harmful", "harmless"], true);
    figure.categories =
        "violence|self harm|weapons of mass destruction|fraud|hate|privacy of natural persons|politics|\
                         medical advice and everything that has to do with it|x"
            .split('|')
            .map(str::to_owned)
            .collect();
    figure.category_label = "concept".into();
    figure.series[0].estimates[2] = None;
    figure.series[1].bands[4] = None;
    draw("bars-named", figure.clone());
    figure.categories.truncate(4);
    figure.series.truncate(1);
    figure.series[0].estimates.truncate(4);
    figure.series[0].bands.clear();
    draw("bars-named-4", figure);
    draw("bars-negative", plain(&[-1e-7, -3e-7, -2.2e-7]));
    draw("bars-mixed", plain(&[12_345.0, -3_000.0, 0.0, f64::NAN, 400.0]));
    draw("bars-zero", plain(&[0.0, 0.0]));
    draw("bars-none", plain(&[f64::NAN, f64::NAN]));
}

fn places(figure: &Bars) -> (Panel, Slots) {
    let top = Heading::new(&figure.title, &figure.subtitle).height();
    let panel = figure.panel(top);
    let slots = figure.slots(panel.plot);
    (panel, slots)
}

#[test]
fn bars_go_from_zero_to_their_values() {
    let values = [3.0, -2.0, 1.0];
    let figure = plain(&values);
    let canvas = figure.draw().unwrap();
    let (panel, slots) = places(&figure);
    let zero = panel.scale.place(0.0);
    for (category, value) in values.into_iter().enumerate() {
        let x = slots.middle(category, 0) as i32;
        let inside = panel.plot.top..panel.plot.bottom();
        let rows: Vec<i32> = inside.filter(|y| canvas.pixel(x, *y) == color(0)).collect();
        let (end, foot) = if value > 0.0 { (rows[0], rows[rows.len() - 1]) } else { (rows[rows.len() - 1], rows[0]) };
        assert!((end as f32 - panel.scale.place(value)).abs() <= 2.0, "bar {category} ends at {end}");
        assert!((foot as f32 - zero).abs() <= 3.0, "bar {category} starts at {foot}, zero is at {zero}");
    }
}

#[test]
fn a_bar_of_next_to_nothing_is_a_stub_in_its_series_colour_and_so_is_its_interval() {
    let mut figure = plain(&[0.0, 1.0]);
    figure.series.insert(0, figure.series[0].clone());
    for series in &mut figure.series {
        series.estimates = vec![Some(Estimate::new(0.0).within(0.0, 0.5)), Some(Estimate::new(1.0))];
    }
    let canvas = figure.draw().unwrap();
    let (panel, slots) = places(&figure);
    for series in [0, 1] {
        let at = |y: f32| canvas.pixel(slots.middle(0, series) as i32, y as i32);
        let zero = panel.scale.place(0.0);
        assert_eq!([at(zero - 5.0), at(panel.scale.place(0.25))], [color(series); 2], "series {series}");
    }
}

#[test]
fn shares_are_told_in_percent() {
    let figure = Bars { shares: true, ..plain(&[0.25]) };
    assert_eq!(figure.draw().unwrap().tips()[0].1, "layer c0: 25.0\u{a0}%");
}

#[test]
fn a_band_covers_its_range_behind_the_point() {
    let mut figure = bars(5, &["refusal"], true);
    // Away from the lines of ticks.
    figure.series[0].bands = (0..5).map(|category| Some((0.43 + 0.01 * category as f64, 0.57))).collect();
    let canvas = figure.draw().unwrap();
    let (panel, slots) = places(&figure);
    for category in 0..5 {
        let (low, high) = figure.series[0].bands[category].unwrap();
        let (left, _) = slots.columns(category, 0, 1.0);
        let shaded = |value: f64| canvas.pixel(left + 2, panel.scale.place(value) as i32) == BAND;
        assert!(shaded(low + 0.01) && shaded(high - 0.01), "category {category}");
        assert!(!shaded(low - 0.01) && !shaded(high + 0.01), "category {category}");
        let value = figure.series[0].estimates[category].unwrap().value;
        let edge = panel.scale.place(value) as i32 - 12;
        assert_eq!(canvas.pixel(slots.middle(category, 0) as i32, edge), color(0), "category {category}");
    }
}

#[test]
fn the_range_asked_for_is_kept_unless_values_are_beyond() {
    let mut figure = bars(5, &["refusal"], true);
    figure.series[0].estimates = vec![Some(Estimate::new(0.7)); 5];
    assert_eq!(figure.span(), Span { low: 0.0, high: 1.0 });
    figure.series[0].estimates[3] = Some(Estimate::new(1.5));
    let span = figure.span();
    assert!(span.low == 0.0 && span.high > 1.5);
}

#[test]
fn a_marked_bar_has_a_dot_beyond_its_interval() {
    let mut figure = plain(&[1.0, 1.0]);
    figure.series[0].estimates[0] = Some(Estimate::new(1.0).within(0.8, 1.4).marked(true));
    let canvas = figure.draw().unwrap();
    let (panel, slots) = places(&figure);
    let dot = |category| {
        let y = panel.scale.place(1.4) - 2.5 * DOT_RADIUS;
        canvas.pixel(slots.middle(category, 0) as i32, y as i32)
    };
    assert_eq!((dot(0), dot(1) == INK), (INK, false));
    figure.mark_meaning = Some("q < 0.05".into());
    let tips: Vec<String> = figure.draw().unwrap().tips().iter().map(|(_, text)| text.clone()).collect();
    assert_eq!(tips, ["layer c0: 1.00 [0.800, 1.40]; q < 0.05", "layer c1: 1.00"]);
}

#[test]
fn wrong_shapes_are_errors_that_name_the_figure_and_the_series() {
    let message = |figure: Bars| figure.draw().err().unwrap().to_string();
    let empty = message(plain(&[]));
    assert!(empty.contains("\"Concept sensitivity by layer\": has no categories"), "{empty}");
    assert!(message(bars(5, &[], false)).contains("has no categories"));
    let mut figure = bars(5, &["refusal"], true);
    figure.series[0].estimates.pop();
    assert!(message(figure).contains("series \"refusal\" has 4 values, expected 5, one for each category"));
    let mut figure = bars(5, &["refusal"], true);
    figure.series[0].bands.pop();
    assert!(message(figure).contains("bands of series \"refusal\" has 4 values"));
    assert!(message(bars(81, &["a", "b"], false)).contains("162 bars are more than the 160"));
    assert!(message(bars(2, &["s"; 8], false)).contains("8 series are more than the 7"));
}
