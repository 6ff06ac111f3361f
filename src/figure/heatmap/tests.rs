use super::*;
use crate::figure::style::PAPER;

fn value(layer: usize, head: usize) -> f64 {
    // A reproducible mixture: noise, and a few strong heads.
    let noise = ((layer * 37 + head * 101 + layer * head * 13) % 97) as f64 / 97.0 - 0.5;
    match (layer * 7 + head * 3) % 61 {
        0 => 2.4,
        1 => -1.9,
        _ => noise * 0.8,
    }
}

fn heatmap(layers: usize, heads: usize) -> Heatmap {
    Heatmap {
        title: "Necessity of every head for refusal".into(),
        subtitle: "SmolLM2-135M-Instruct, 120 pairs, last position".into(),
        x_label: "head".into(),
        y_label: "layer".into(),
        value_label: "effect on the logit difference".into(),
        values: (0..layers).map(|layer| (0..heads).map(|head| Some(value(layer, head))).collect()).collect(),
        marks: (0..layers).map(|layer| (0..heads).map(|head| value(layer, head).abs() > 0.39).collect()).collect(),
        mark_meaning: Some("q < 0.05".into()),
        ..Heatmap::default()
    }
}

fn layout(map: &Heatmap) -> Layout {
    let legend = Legend::new(map.legend_entries(), |_| SIGN_WIDTH).height();
    let heading = Heading::new(&map.title, &map.subtitle).height();
    Layout::new(map.values.len(), map.values[0].len(), heading, legend, map.strongest().len(), !map.texts.is_empty())
}

#[test]
fn every_shape_and_emptiness_is_drawn() {
    let folder = std::env::var_os("GATELENS_FIGURES").map(std::path::PathBuf::from);
    let scratch = tempfile::tempdir().unwrap();
    let folder = folder.as_deref().unwrap_or(scratch.path());
    for (layers, heads) in [(1, 1), (30, 9), (24, 14), (80, 64), (100, 128), (2, 32), (40, 1)] {
        let mut map = heatmap(layers, heads);
        if layers == 24 {
            map.values[3][5] = None;
            map.values[20] = vec![Some(f64::NAN); heads];
        }
        map.draw().unwrap().write_png(folder.join(format!("{layers}x{heads}.png"))).unwrap();
    }
    let mut empty = heatmap(6, 8);
    empty.values = vec![vec![None; 8]; 6];
    empty.marks.clear();
    empty.draw().unwrap().write_png(folder.join("empty.png")).unwrap();
    let mut zero = heatmap(2, 2);
    zero.values = vec![vec![Some(0.0); 2]; 2];
    zero.title = "A title so long that it cannot stand in one line of a column and is broken at a space".into();
    zero.draw().unwrap().write_png(folder.join("zero.png")).unwrap();
}

#[test]
fn positive_is_red_negative_is_blue_and_layer_zero_is_at_the_bottom() {
    let mut map = heatmap(2, 2);
    map.marks.clear();
    map.values = vec![vec![Some(1.0), Some(0.0)], vec![Some(-1.0), Some(0.0)]];
    let canvas = map.draw().unwrap();
    let layout = layout(&map);
    let corner = |row| {
        let cell = layout.cell(row, 0);
        canvas.pixel(cell.left + 8, cell.top + 8)
    };
    assert_eq!((corner(0), corner(1)), (diverging(1.0), diverging(-1.0)));
    assert!(layout.cell(0, 0).top > layout.cell(1, 0).top);
}

#[test]
fn only_marked_cells_have_something_on_their_colour() {
    let mut map = heatmap(1, 2);
    map.marks = vec![vec![false, true]];
    map.values = vec![vec![Some(-1.0), Some(-1.0)]];
    let layout = layout(&map);
    let canvas = map.draw().unwrap();
    let middle = |column| {
        let (x, y) = layout.cell(0, column).center();
        canvas.pixel(x, y)
    };
    assert_eq!((middle(0), middle(1)), (diverging(-1.0), PAPER));
}

#[test]
fn each_cell_with_a_value_has_a_tip_where_it_is() {
    let mut map = heatmap(2, 2);
    map.values = vec![vec![Some(0.5), None], vec![Some(-1.25), Some(f64::NAN)]];
    map.marks = vec![vec![false; 2], vec![true, false]];
    let (canvas, layout) = (map.draw().unwrap(), layout(&map));
    let expected = [(layout.cell(0, 0), "L0.H0: +0.500"), (layout.cell(1, 0), "L1.H0: −1.25; q < 0.05")];
    assert_eq!(canvas.tips(), expected.map(|(place, text)| (place, text.to_owned())));
    let svg = canvas.to_svg();
    assert!(svg.contains("<title>L1.H0: −1.25; q &lt; 0.05</title>"), "{svg}");
}

#[test]
fn files_stay_small() {
    let size = |layers, heads| heatmap(layers, heads).draw().unwrap().to_svg().len();
    assert!(size(30, 9) < 80_000 && size(24, 14) < 80_000, "{} and {}", size(30, 9), size(24, 14));
    assert!(size(80, 64) < 700_000, "{}", size(80, 64));
}

#[test]
fn the_strongest_heads_are_named_the_strongest_first() {
    let mut map = heatmap(3, 3);
    map.values =
        vec![vec![Some(0.1), None, Some(-3.0)], vec![Some(f64::INFINITY); 3], vec![Some(2.0), Some(0.0), None]];
    let names: Vec<String> = map.strongest().iter().map(|cell| map.name_of(cell)).collect();
    assert_eq!(names, ["L0.H2", "L2.H0", "L0.H0"]);
}

#[test]
fn wrong_shapes_are_errors_that_name_the_row() {
    let mut map = heatmap(3, 3);
    map.values[1].pop();
    let message = map.draw().err().unwrap().to_string();
    assert!(message.contains("row 1 of the values has 2 columns, expected 3"), "{message}");
    let mut map = heatmap(3, 3);
    map.marks[2].push(true);
    assert!(map.draw().err().unwrap().to_string().contains("row 2 of the marks has 4 columns"));
    map.marks.pop();
    assert!(matches!(map.draw(), Err(FigureError::Ragged { .. })));
    map.values.clear();
    assert!(matches!(map.draw(), Err(FigureError::Empty { .. })));
    assert!(matches!(heatmap(1, MOST_CELLS + 1).draw(), Err(FigureError::TooLarge { .. })));
}

#[test]
fn the_first_and_the_last_layer_are_named_and_no_two_stand_too_near() {
    let of = |count, step| ticks(count, step).collect::<Vec<_>>();
    assert_eq!(of(30, 5), [0, 5, 10, 15, 20, 29]);
    assert_eq!(of(31, 5), [0, 5, 10, 15, 20, 25, 30]);
    assert_eq!((of(24, 1).len(), of(1, 1), of(3, 5)), (24, vec![0], vec![0]));
}

#[test]
fn values_are_named_with_their_unit() {
    let unit = |label: &str| Heatmap { value_label: label.into(), ..heatmap(1, 1) }.unit().to_owned();
    assert_eq!([unit("effect (nats)"), unit("effect (x) of it"), unit("effect")], ["(nats)", "", ""]);
}

#[test]
fn the_same_values_give_the_same_bytes() {
    assert_eq!(heatmap(5, 4).draw().unwrap().to_png().unwrap(), heatmap(5, 4).draw().unwrap().to_png().unwrap());
}

#[test]
fn heads_stand_at_their_layer_and_number_and_marks_are_there_where_one_is() {
    let (values, marks) = Heatmap::of_heads([(1, 0, Some(2.0), false), (0, 2, Some(1.0), true)]);
    assert_eq!(values, [[None, None, Some(1.0)], [Some(2.0), None, None]]);
    assert_eq!(marks, [[false, false, true], [false; 3]]);
    assert_eq!(Heatmap::of_heads([(0, 0, None, false)]), (vec![vec![None]], Vec::new()));
}

#[test]
fn a_map_of_a_part_of_the_layers_numbers_them_as_they_are() {
    let part = Heatmap { first_row: 15, ..heatmap(3, 2) };
    assert_eq!(part.name_of(&Named { row: 2, column: 1, value: 1.0 }), "L17.H1");
    let svg = part.draw().unwrap().to_svg();
    assert!(["15", "16", "17"].iter().all(|layer| svg.contains(&format!(">{layer}</text>"))), "{svg}");
}

#[test]
fn rows_and_columns_may_have_names_one_each() {
    let names = |n: usize| (0..n).map(|i| format!("L{i}.H{}", 2 * i)).collect::<Vec<_>>();
    let named = Heatmap { row_names: names(3), column_names: names(2), ..heatmap(3, 2) };
    let cell = Named { row: 2, column: 1, value: 1.0 };
    assert_eq!(named.name_of(&cell), "L1.H2, L2.H4");
    assert!(named.draw().is_ok());
    let one_short = Heatmap { row_names: names(2), ..named };
    assert!(matches!(one_short.draw(), Err(FigureError::Unequal { found: 2, expected: 3, each: "row", .. })));
}

#[test]
fn texts_are_cut_to_their_cells_and_a_scale_from_zero_has_no_negative_half() {
    let style = TextStyle::new(30.0, INK);
    assert_eq!(fitted("Mary", 200.0, style), "Mary");
    let cut = fitted("incomprehensibly", 100.0, style);
    assert!(
        cut.ends_with('…') && "incomprehensibly".starts_with(cut.trim_end_matches('…')) && style.width(&cut) <= 100.0
    );
    assert_eq!(fitted("Mary", 1.0, style), "");
    let texts = |word: &str| vec![vec![word.to_string(); 8]; 30];
    let plain = Heatmap { marks: Vec::new(), from_zero: true, limit: Some(1.0), ..heatmap(30, 8) };
    let with = Heatmap { texts: texts("Mary"), column_names: vec!["a".into(); 8], ..plain.clone() };
    let svg = |map: &Heatmap| map.draw().unwrap().to_svg();
    assert!(svg(&with).len() > svg(&plain).len() && !svg(&with).contains("Strongest"));
    assert!(layout(&with).cell(0, 0).width > 130, "cells take the room across");
    assert!(layout(&with).text_size() > 25.0, "a text is read without a glass");
    let ragged = Heatmap { texts: texts("Mary")[..29].to_vec(), ..plain };
    assert!(matches!(ragged.draw(), Err(FigureError::Ragged { what: "texts", .. })));
}
