//! A heatmap of one number for every head of a model, layer 0 at the bottom; or for every pair of things that have names.
//!
//! Colour gives sign and size. Cells without a value are hatched, marked cells have a dot, and the strongest cells are named
//! with their values. Computing values and deciding what is marked is left to the caller.

mod layout;
#[cfg(test)]
mod tests;

use super::FigureError;
use super::axis::drawable;
use super::canvas::{Canvas, Rect};
use super::marks::draw_missing;
use super::parts::{Heading, Legend, UprightLabel};
use super::style::{
    FAINT_INK, GRID, INK, LABEL_SIZE, TICK_SIZE, contrast, diverging, index_step, nice_step, nice_ticks, signed,
    tick_labels,
};
use super::text::{Anchor, TextStyle};
use layout::Layout;

/// The most rows or columns that are drawn: more would be less than four pixels a cell.
pub const MOST_CELLS: usize = 256;

/// The most cells with tips, so that a page stays small: the strongest.
const MOST_TIPS: usize = 16_384;
/// How many steps of colour the bar shows.
const BAR_STEPS: i32 = 120;

const SIGN_WIDTH: i32 = 50;

/// One number for every cell of layers by heads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heatmap {
    /// The title, in bold.
    pub title: String,
    /// What else a reader needs, under the title: model, number of items. May be empty.
    pub subtitle: String,
    /// What a column is: `head`.
    pub x_label: String,
    /// What a row is: `layer`.
    pub y_label: String,
    /// What the colour means, with its unit.
    pub value_label: String,
    /// Values by row, from the bottom, and column. `None` and numbers that are not finite are drawn as missing.
    pub values: Vec<Vec<Option<f64>>>,
    /// Which cells have a dot; empty for none, else of the shape of `values`.
    pub marks: Vec<Vec<bool>>,
    /// What the dot says: `q < 0.05`.
    pub mark_meaning: Option<String>,
    /// What cells without a value are: `only estimated`. By default `no value`.
    pub missing_meaning: Option<String>,
    /// The value at both ends of the scale, where maps are to be compared; by default, and where it is less, the largest of its own.
    pub limit: Option<f64>,
    /// The number of the lowest row: maps of a part of the layers begin where that part does.
    pub first_row: usize,
    /// What rows are called, from the bottom; empty where they are layers by number.
    pub row_names: Vec<String>,
    /// What columns are called; empty where they are numbered.
    pub column_names: Vec<String>,
    /// What stands in each cell, cut off where it is too long; empty for nothing, else of the shape of `values`.
    pub texts: Vec<Vec<String>>,
    /// Whether values are of one sign: the scale begins at 0.
    pub from_zero: bool,
}

impl Heatmap {
    /// `values` and `marks` of heads, each given with its layer, its number there, its value and whether it has a dot. Heads
    /// that are not given are missing; `marks` is empty where no head has a dot.
    pub fn of_heads(
        heads: impl IntoIterator<Item = (usize, usize, Option<f64>, bool)>,
    ) -> (Vec<Vec<Option<f64>>>, Vec<Vec<bool>>) {
        let heads: Vec<_> = heads.into_iter().collect();
        let layers = heads.iter().map(|head| head.0 + 1).max().unwrap_or(0);
        let a_layer = heads.iter().map(|head| head.1 + 1).max().unwrap_or(0);
        let mut values = vec![vec![None; a_layer]; layers];
        let mut marks = vec![vec![false; a_layer]; if heads.iter().any(|head| head.3) { layers } else { 0 }];
        for (layer, head, value, mark) in heads {
            values[layer][head] = value;
            if mark {
                marks[layer][head] = true;
            }
        }
        (values, marks)
    }
}

struct Named {
    row: usize,
    column: usize,
    value: f64,
}

impl Heatmap {
    /// Draws the heatmap.
    pub fn draw(&self) -> Result<Canvas, FigureError> {
        let (rows, columns) = self.check()?;
        let heading = Heading::new(&self.title, &self.subtitle);
        let legend = Legend::new(self.legend_entries(), |_| SIGN_WIDTH);
        // Pairs of names are too long to be listed beside.
        let named = if self.row_names.is_empty() { self.strongest() } else { Vec::new() };
        let texts = !self.texts.is_empty();
        let named = if texts { Vec::new() } else { named };
        let layout = Layout::new(rows, columns, heading.height(), legend.height(), named.len(), texts);
        let mut canvas = Canvas::new(layout.height);
        heading.draw(&mut canvas);
        let limit = self.limit();
        self.draw_cells(&mut canvas, &layout, limit);
        self.add_tips(&mut canvas, &layout);
        self.draw_axes(&mut canvas, &layout);
        self.draw_bar(&mut canvas, &layout, limit);
        legend.draw(&mut canvas, layout.legend_top, |canvas, place, sign| sign.draw(canvas, place));
        self.draw_strip(&mut canvas, &layout, &named[..layout.named]);
        Ok(canvas)
    }

    /// Rows and columns, once the shape is known to be right.
    fn check(&self) -> Result<(usize, usize), FigureError> {
        let (rows, columns) = (self.values.len(), self.values.first().map_or(0, Vec::len));
        let title = || self.title.clone();
        if rows == 0 || columns == 0 {
            return Err(FigureError::Empty { title: title(), what: "cells" });
        }
        if rows > MOST_CELLS || columns > MOST_CELLS {
            return Err(FigureError::TooLarge { title: title(), rows, columns, limit: MOST_CELLS });
        }
        let ragged = |what, row, found| FigureError::Ragged { title: title(), what, row, expected: columns, found };
        if let Some(row) = self.values.iter().position(|row| row.len() != columns) {
            return Err(ragged("values", row, self.values[row].len()));
        }
        let marks = if self.marks.is_empty() { 0 } else { rows };
        if self.marks.len() != marks {
            return Err(ragged("marks", self.marks.len(), 0));
        }
        if let Some(row) = self.marks.iter().position(|row| row.len() != columns) {
            return Err(ragged("marks", row, self.marks[row].len()));
        }
        if let Some(row) = self.texts.iter().position(|row| row.len() != columns) {
            return Err(ragged("texts", row, self.texts[row].len()));
        }
        if !self.texts.is_empty() && self.texts.len() != rows {
            return Err(ragged("texts", self.texts.len(), 0));
        }
        for (what, names, expected, each) in [
            ("names of rows", &self.row_names, rows, "row"),
            ("names of columns", &self.column_names, columns, "column"),
        ] {
            if !names.is_empty() && names.len() != expected {
                let what = what.to_string();
                return Err(FigureError::Unequal { title: title(), what, found: names.len(), expected, each });
            }
        }
        Ok((rows, columns))
    }

    /// The value at both ends of the scale; 1 where there is nothing to scale by.
    fn limit(&self) -> f64 {
        let largest = self.present().map(|cell| cell.value.abs()).fold(self.limit.unwrap_or(0.0), f64::max);
        if largest > 0.0 { largest } else { 1.0 }
    }

    /// All cells that have a value.
    fn present(&self) -> impl Iterator<Item = Named> + '_ {
        self.values.iter().enumerate().flat_map(|(row, cells)| {
            cells.iter().enumerate().filter_map(move |(column, cell)| {
                let value = cell.and_then(drawable)?;
                Some(Named { row, column, value })
            })
        })
    }

    /// The cells with the largest values either way, as many as may be named, the largest first; among equals the first by layer and
    /// head.
    fn strongest(&self) -> Vec<Named> {
        let mut cells: Vec<Named> = self.present().filter(|cell| cell.value != 0.0).collect();
        cells.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
        cells.truncate(layout::NAMED_BESIDE);
        cells
    }

    /// Says each cell's name and value where it is, layer by layer.
    fn add_tips(&self, canvas: &mut Canvas, layout: &Layout) {
        let mut sizes: Vec<f64> = self.present().map(|cell| cell.value.abs()).collect();
        sizes.sort_by(|a, b| b.total_cmp(a));
        let least = sizes.get(MOST_TIPS).copied().unwrap_or(f64::NEG_INFINITY);
        for cell in self.present().filter(|cell| cell.value.abs() > least) {
            let mark = self.mark_meaning.as_deref().filter(|_| self.marked(cell.row, cell.column));
            let mark = mark.map_or(String::new(), |meaning| format!("; {meaning}"));
            let text = self.texts.get(cell.row).and_then(|row| row.get(cell.column));
            let text = text.map_or(String::new(), |text| format!("{text}, "));
            let text = format!("{}: {text}{}{mark}", self.name_of(&cell), self.shown(cell.value));
            canvas.tip(layout.cell(cell.row, cell.column), text);
        }
    }

    fn marked(&self, row: usize, column: usize) -> bool {
        self.marks.get(row).and_then(|cells| cells.get(column)).is_some_and(|mark| *mark)
    }

    fn draw_cells(&self, canvas: &mut Canvas, layout: &Layout, limit: f64) {
        for (row, cells) in self.values.iter().enumerate() {
            let missing = cells.iter().enumerate().filter(|(_, value)| value.and_then(drawable).is_none());
            missing.for_each(|(column, _)| draw_missing(canvas, layout.cell(row, column)));
        }
        // Cells of one colour after each other are one shape in SVG.
        let mut cells: Vec<Named> = self.present().collect();
        cells.sort_by(|a, b| a.value.total_cmp(&b.value));
        canvas.scale(|canvas| {
            let place = |cell: &Named| (layout.cell(cell.row, cell.column), cell.value / limit);
            for (cell, share) in cells.iter().map(place) {
                canvas.fill(cell, diverging(share));
            }
            for (cell, share) in cells.iter().filter(|cell| self.marked(cell.row, cell.column)).map(place) {
                draw_dot(canvas, cell, share);
            }
        });
        let cell = layout.cell(0, 0);
        if cell.width.min(cell.height) >= 24 {
            draw_grid(canvas, layout, self.values.len(), self.values[0].len());
        }
        self.draw_texts(canvas, layout, limit);
        canvas.frame(layout.plot, INK, 3);
    }

    /// What stands in cells, each in a colour that is read on its own.
    fn draw_texts(&self, canvas: &mut Canvas, layout: &Layout, limit: f64) {
        for cell in self.present() {
            let Some(text) = self.texts.get(cell.row).and_then(|row| row.get(cell.column)) else { continue };
            let place = layout.cell(cell.row, cell.column);
            let style = TextStyle::new(layout.text_size(), contrast(diverging(cell.value / limit)));
            let (x, y) = place.center();
            let shown = fitted(text, place.width as f32 - 8.0, style);
            canvas.text_centered(&shown, x as f32, y as f32, style.anchored(Anchor::Middle));
        }
    }

    fn draw_axes(&self, canvas: &mut Canvas, layout: &Layout) {
        let style = TextStyle::new(TICK_SIZE, INK);
        let (rows, columns) = (self.values.len(), self.values[0].len());
        let (plot, cell) = (layout.plot, layout.cell(0, 0));
        // Above cells with texts stand texts of the same size.
        let of_column = if self.texts.is_empty() { style } else { TextStyle::new(layout.text_size(), INK) };
        let name = |column: usize| match self.texts.is_empty() {
            true => self.column_name(column),
            false => fitted(&self.column_name(column), cell.width as f32 - 8.0, of_column),
        };
        let widest = (0..columns).map(|column| of_column.width(&name(column))).fold(0.0, f32::max);
        let widest = if self.texts.is_empty() { widest + 0.7 * TICK_SIZE } else { widest };
        let below = plot.bottom() as f32 + 14.0 + 0.95 * TICK_SIZE;
        for column in (0..columns).step_by(index_step(cell.width as f32, widest)) {
            let x = layout.cell(0, column).center().0;
            canvas.line((x, plot.bottom() + 3), (x, plot.bottom() + 14), INK, 3);
            canvas.text(&name(column), x as f32, below, of_column.anchored(Anchor::Middle));
        }
        for row in ticks(rows, index_step(cell.height as f32, 1.15 * TICK_SIZE)) {
            let y = layout.cell(row, 0).center().1;
            canvas.line((plot.left - 14, y), (plot.left - 3, y), INK, 3);
            let x = plot.left as f32 - 22.0;
            canvas.text_centered(&self.row_name(row), x, y as f32, style.anchored(Anchor::End));
        }
        let label = TextStyle::new(LABEL_SIZE, INK).anchored(Anchor::Middle);
        let (x, y) = plot.center();
        canvas.text(&self.x_label, x as f32, below + 1.2 * LABEL_SIZE, label);
        // Names take the room of the label.
        if self.row_names.is_empty() {
            canvas.text_centered(&self.y_label, 50.0, y as f32, label.upwards());
        }
    }

    fn draw_bar(&self, canvas: &mut Canvas, layout: &Layout, limit: f64) {
        let bar = layout.bar;
        let lowest = if self.from_zero { 0.0 } else { -1.0 };
        canvas.scale(|canvas| {
            let start = |step: i32| bar.top + bar.height * step / BAR_STEPS;
            for step in 0..BAR_STEPS {
                let share = 1.0 - (1.0 - lowest) * (f64::from(step) + 0.5) / f64::from(BAR_STEPS);
                let (top, end) = (start(step), start(step + 1));
                canvas.fill(Rect { top, height: end - top, ..bar }, diverging(share));
            }
        });
        canvas.frame(bar, INK, 3);
        let style = TextStyle::new(TICK_SIZE, INK);
        let most = if bar.height < 500 { 3 } else { 6 };
        let values = nice_ticks(lowest * limit, limit, most);
        let labels = tick_labels(&values, nice_step((1.0 - lowest) * limit, most));
        let mut widest = 0.0f32;
        for (value, text) in values.iter().zip(&labels) {
            let y = height_of(bar, (value / limit - lowest) / (1.0 - lowest));
            canvas.line((bar.right() + 3, y), (bar.right() + 14, y), INK, 3);
            canvas.text_centered(text, bar.right() as f32 + 24.0, y as f32, style);
            widest = widest.max(style.width(text));
        }
        let label = UprightLabel::new(&self.value_label, bar.height as f32 + 30.0);
        label.draw(canvas, bar.right() as f32 + 36.0 + widest, bar.center().1 as f32);
    }

    /// The signs that occur, each with its meaning.
    fn legend_entries(&self) -> Vec<(Sign, String)> {
        let mut entries = Vec::new();
        if self.marks.iter().flatten().any(|mark| *mark) {
            let meaning = self.mark_meaning.clone().unwrap_or_else(|| "marked".to_owned());
            entries.push((Sign::Dot, meaning));
        }
        if self.present().count() < self.values.iter().map(Vec::len).sum() {
            let meaning = self.missing_meaning.clone().unwrap_or_else(|| "no value".to_owned());
            entries.push((Sign::Hatch, meaning));
        }
        entries
    }

    fn draw_strip(&self, canvas: &mut Canvas, layout: &Layout, named: &[Named]) {
        if named.is_empty() {
            return;
        }
        let style = TextStyle::new(TICK_SIZE, INK);
        let (strip, columns) = (layout.strip, layout.strip_columns);
        let (left, line) = (strip.left as f32, style.line_height());
        let mut baseline = strip.top as f32 + 0.95 * TICK_SIZE;
        let heading = ["Strongest", self.unit()].join(" ");
        canvas.text(heading.trim_end(), left, baseline, style.bold());
        baseline += 0.12 * TICK_SIZE;
        // Names are in a column, and values right-aligned in one.
        let widest =
            |texts: &dyn Fn(&Named) -> String| named.iter().map(|c| style.width(&texts(c))).fold(0.0, f32::max);
        let end = widest(&|cell| self.name_of(cell)) + 0.4 * TICK_SIZE + widest(&|cell| self.shown(cell.value));
        for (index, cell) in named.iter().enumerate() {
            let (across, down) = (index % columns, index / columns + 1);
            let x = left + across as f32 * strip.width as f32 / columns as f32;
            let y = baseline + down as f32 * line;
            let name = self.name_of(cell);
            canvas.text(&name, x, y, style);
            canvas.text(
                &self.shown(cell.value),
                x + end,
                y,
                TextStyle { color: FAINT_INK, ..style }.anchored(Anchor::End),
            );
            if self.marked(cell.row, cell.column) {
                let dot = (x + end + 0.4 * TICK_SIZE, y - style.cap_height() / 2.0);
                canvas.disc(dot, 8.0, INK);
            }
        }
    }

    /// A value as it is written: with a sign, where values may have either.
    fn shown(&self, value: f64) -> String {
        let signed = signed(value);
        if self.from_zero { signed.trim_start_matches('+').to_string() } else { signed }
    }

    /// The unit that ends the values' label, in its brackets; nothing where there is none.
    fn unit(&self) -> &str {
        let bracket = self.value_label.rfind('(').filter(|_| self.value_label.ends_with(')'));
        bracket.map_or("", |from| &self.value_label[from..])
    }

    /// `L12.H5`: the labels' first letters with the indices; or the names of column and row.
    fn name_of(&self, cell: &Named) -> String {
        if !self.row_names.is_empty() {
            return format!("{}, {}", self.column_name(cell.column), self.row_name(cell.row));
        }
        let letter = |label: &str| label.chars().next().map(|first| first.to_uppercase().to_string());
        let (row, column) = (letter(&self.y_label), letter(&self.x_label));
        let (row, column) = (row.unwrap_or_default(), column.unwrap_or_default());
        format!("{row}{}.{column}{}", self.row_name(cell.row), self.column_name(cell.column))
    }

    /// What a row is called: its number where it has no name.
    fn row_name(&self, row: usize) -> String {
        self.row_names.get(row).cloned().unwrap_or_else(|| (self.first_row + row).to_string())
    }

    /// What a column is called: its number where it has no name.
    fn column_name(&self, column: usize) -> String {
        self.column_names.get(column).cloned().unwrap_or_else(|| column.to_string())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Dot,
    Hatch,
}

impl Sign {
    fn draw(self, canvas: &mut Canvas, place: Rect) {
        match self {
            Sign::Dot => canvas.scale(|canvas| {
                canvas.fill(place, diverging(0.0));
                draw_dot(canvas, place, 0.0);
            }),
            Sign::Hatch => draw_missing(canvas, place),
        }
        canvas.frame(place, FAINT_INK, 2);
    }
}

/// Every so many of the numbers from 0 on, and the last instead of the one that is too near to it.
fn ticks(count: usize, step: usize) -> impl Iterator<Item = usize> {
    let last = count.saturating_sub(1);
    let before = last - last % step;
    let replaced = before != last && before != 0;
    (0..count).step_by(step).filter(move |tick| !replaced || *tick != before).chain(replaced.then_some(last))
}

/// The height in the bar of a share of the scale from 0 at its bottom to 1 at its top.
fn height_of(bar: Rect, share: f64) -> i32 {
    bar.top + ((1.0 - share) * f64::from(bar.height)).round() as i32
}

/// A text, cut off where it is wider than this.
fn fitted(text: &str, width: f32, style: TextStyle) -> String {
    if style.width(text) <= width {
        return text.to_string();
    }
    let ends = text.char_indices().map(|(at, _)| at).rev();
    let cut = ends.map(|end| format!("{}…", &text[..end])).find(|cut| style.width(cut) <= width);
    cut.unwrap_or_default()
}

/// Draws the dot of a marked cell.
fn draw_dot(canvas: &mut Canvas, cell: Rect, share: f64) {
    let size = cell.width.min(cell.height) as f32;
    let center = (cell.left as f32 + cell.width as f32 / 2.0, cell.top as f32 + cell.height as f32 / 2.0);
    canvas.disc(center, (size * 0.16).clamp(1.5, 12.0), contrast(diverging(share)));
}

fn draw_grid(canvas: &mut Canvas, layout: &Layout, rows: usize, columns: usize) {
    let plot = layout.plot;
    for column in 1..columns {
        canvas.fill(Rect { left: layout.cell(0, column).left - 1, width: 2, ..plot }, GRID);
    }
    for row in 1..rows {
        canvas.fill(Rect { top: layout.cell(row, 0).bottom() - 1, height: 2, ..plot }, GRID);
    }
}
