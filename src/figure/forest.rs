//! A forest plot: a row for every head or layer, with its estimate and the interval around it, against zero.
//!
//! Series in a row (necessity and sufficiency, or groups of prompts) stand under each other, each with a marker of its
//! own. Marked estimates are filled, the others are outlines, and small ones where it was not asked. Choosing and ordering the rows is left to the caller.

#[cfg(test)]
mod tests;

use super::FigureError;
use super::axis::{AxisBelow, Span, right_of};
use super::canvas::{Canvas, Rect};
use super::estimate::{Estimate, has_intervals};
use super::marks::{MOST_SERIES, draw_missing};
use super::parts::{Heading, Legend, MARGIN};
use super::sign::{Explained, NO_VALUE, Sign, draw_estimate};
use super::style::{GRID, INK, TICK_SIZE};
use super::text::{Anchor, TextStyle};

/// The most rows: more would be higher than a page.
pub const MOST_ROWS: usize = 100;
/// The most estimates, rows times series, for the same reason.
pub const MOST_ESTIMATES: usize = 160;

/// Labels of rows are not wider than this, in pixels.
const LABEL_WIDTH: f32 = 520.0;
const LABEL_LINES: usize = 2;
const ROW_HEIGHT: i32 = 58;
/// What each series takes in a row.
const SERIES_HEIGHT: i32 = 38;
const MARKER_RADIUS: f32 = 13.0;
/// Of what was not tested, which is neither marked nor not.
const UNTESTED_RADIUS: f32 = 7.0;

/// Estimates by row, drawn from top to bottom.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forest {
    /// The title, in bold.
    pub title: String,
    /// What else a reader needs, under the title. May be empty.
    pub subtitle: String,
    /// What the values are, with their unit.
    pub value_label: String,
    /// The names of the series, at least one; a single name is not shown.
    pub series: Vec<String>,
    /// The rows.
    pub rows: Vec<ForestRow>,
    /// What a filled marker says: `q < 0.05`.
    pub mark_meaning: Option<String>,
    /// What the lines are: `95 % interval (BCa)`.
    pub interval_meaning: Option<String>,
    /// What is missing: `does not cross 0`. By default `no value`.
    pub missing_meaning: Option<String>,
}

/// One row of a forest plot.
#[derive(Debug, Clone, PartialEq)]
pub struct ForestRow {
    /// What the row is about: `L14.H13`.
    pub label: String,
    /// An estimate for each series; `None`, and numbers that are not finite, are shown as missing.
    pub estimates: Vec<Option<Estimate>>,
}

struct Layout {
    plot: Rect,
    /// The rows' labels, broken into lines.
    labels: Vec<Vec<String>>,
    row_height: i32,
    series: i32,
}

impl Forest {
    /// Draws the figure.
    ///
    /// # Errors
    /// Without rows or series, with more than can be drawn, and if a row has not one estimate a series.
    pub fn draw(&self) -> Result<Canvas, FigureError> {
        self.check()?;
        let heading = Heading::new(&self.title, &self.subtitle);
        let legend = self.legend();
        let layout = self.layout(heading.height());
        let axis = AxisBelow::new(self.span(), layout.plot, &self.value_label, false);
        let legend_top = layout.plot.bottom() + axis.height() + 20;
        let mut canvas = Canvas::new((legend_top + legend.height() + MARGIN) as u32);
        heading.draw(&mut canvas);
        axis.draw_grid(&mut canvas, layout.plot);
        layout.draw_rows(&mut canvas);
        self.draw_missing(&mut canvas, &layout);
        let zero = axis.scale.place(0.0).round() as i32;
        canvas.fill(Rect { left: zero - 1, width: 3, ..layout.plot }, INK);
        self.draw_estimates(&mut canvas, &layout, &axis);
        canvas.frame(layout.plot, INK, 3);
        axis.draw(&mut canvas, layout.plot);
        legend.draw(&mut canvas, legend_top, |canvas, place, sign| sign.draw(canvas, place));
        Ok(canvas)
    }

    fn check(&self) -> Result<(), FigureError> {
        let title = || self.title.clone();
        if self.rows.is_empty() || self.series.is_empty() {
            return Err(FigureError::Empty { title: title(), what: "rows with a series" });
        }
        let too_many = |what, found, limit| FigureError::TooMany { title: title(), what, found, limit };
        if self.rows.len() > MOST_ROWS {
            return Err(too_many("rows", self.rows.len(), MOST_ROWS));
        }
        if self.series.len() > MOST_SERIES {
            return Err(too_many("series", self.series.len(), MOST_SERIES));
        }
        let expected = self.series.len();
        if self.rows.len() * expected > MOST_ESTIMATES {
            return Err(too_many("estimates", self.rows.len() * expected, MOST_ESTIMATES));
        }
        match self.rows.iter().find(|row| row.estimates.len() != expected) {
            None => Ok(()),
            Some(row) => {
                let (what, found) = (format!("row \"{}\"", row.label), row.estimates.len());
                Err(FigureError::Unequal { title: title(), what, found, expected, each: "series" })
            }
        }
    }

    fn estimates(&self) -> impl Iterator<Item = Estimate> {
        self.places().filter_map(|(.., estimate)| estimate)
    }

    /// The values' range, always with zero in it.
    fn span(&self) -> Span {
        let values = self.estimates().flat_map(Estimate::values);
        Span::of(values.chain([0.0])).unwrap_or(Span { low: 0.0, high: 0.0 }).widened().padded(0.04)
    }

    fn marking(&self) -> bool {
        self.mark_meaning.is_some() || self.estimates().any(Estimate::is_marked)
    }

    fn legend(&self) -> Legend<Sign> {
        let meaning = self.mark_meaning.as_deref().unwrap_or("marked");
        let explained = Explained {
            series: self.series.iter().map(String::as_str).collect(),
            sign: Sign::Marker,
            marks: self.marking().then(|| (Sign::FilledOrOpen(0), format!("filled: {meaning}"))),
            intervals: self.interval_meaning.as_deref().filter(|_| has_intervals(self.estimates())),
            bands: None,
            reference: None,
            untested: self.estimates().any(|estimate| estimate.marked.is_none()),
            missing: self
                .places()
                .any(|(.., estimate)| estimate.is_none())
                .then(|| self.missing_meaning.as_deref().unwrap_or(NO_VALUE)),
        };
        explained.legend()
    }

    fn layout(&self, top: i32) -> Layout {
        let style = TextStyle::new(TICK_SIZE, INK);
        let labels: Vec<Vec<String>> =
            self.rows.iter().map(|row| style.wrap_within(&row.label, LABEL_WIDTH, LABEL_LINES)).collect();
        let lines = labels.iter().map(Vec::len).max().unwrap_or(1) as i32;
        let widest = labels.iter().flatten().map(|line| style.width(line)).fold(0.0, f32::max);
        let series = self.series.len() as i32;
        let row_height = ROW_HEIGHT.max(lines * 52 + 8).max(series * SERIES_HEIGHT + 18);
        let left = MARGIN + widest.ceil() as i32 + 22;
        let plot = Rect { left, top, width: right_of(left), height: row_height * self.rows.len() as i32 };
        Layout { plot, labels, row_height, series }
    }

    /// All estimates as they are drawn, each with its row and series.
    fn places(&self) -> impl Iterator<Item = (usize, usize, Option<Estimate>)> {
        self.rows.iter().enumerate().flat_map(|(row, one)| {
            let estimates = one.estimates.iter().enumerate();
            estimates.map(move |(series, estimate)| (row, series, estimate.and_then(Estimate::drawable)))
        })
    }

    fn draw_missing(&self, canvas: &mut Canvas, layout: &Layout) {
        for (row, series, _) in self.places().filter(|(.., estimate)| estimate.is_none()) {
            let y = layout.y_of(row, series) as i32;
            draw_missing(canvas, Rect { top: y - 10, height: 20, ..layout.plot });
        }
    }

    fn draw_estimates(&self, canvas: &mut Canvas, layout: &Layout, axis: &AxisBelow) {
        let marking = self.marking();
        for (row, series, estimate) in self.places() {
            let Some(estimate) = estimate else { continue };
            let look = match estimate.marked {
                None => (UNTESTED_RADIUS, false),
                Some(marked) => (MARKER_RADIUS, marked || !marking),
            };
            let y = layout.y_of(row, series);
            draw_estimate(canvas, series, estimate, look, |value| (axis.scale.place(value), y));
            let name = if self.series.len() > 1 { format!(", {}", self.series[series]) } else { String::new() };
            let text =
                format!("{}{name}: {}", self.rows[row].label, estimate.told(self.mark_meaning.as_deref(), false));
            let half = SERIES_HEIGHT / 2;
            canvas.tip(Rect { top: y as i32 - half, height: 2 * half, ..layout.plot }, text);
        }
    }
}

impl Layout {
    /// The height at which a series of a row is drawn.
    fn y_of(&self, row: usize, series: usize) -> f32 {
        let middle = self.plot.top as f32 + (row as f32 + 0.5) * self.row_height as f32;
        middle + (series as f32 - (self.series - 1) as f32 / 2.0) * SERIES_HEIGHT as f32
    }

    /// Draws what leads the eye from a label to its values: lines through rows of one series, else between rows.
    fn draw_rows(&self, canvas: &mut Canvas) {
        let style = TextStyle::new(TICK_SIZE, INK).anchored(Anchor::End);
        for (row, lines) in self.labels.iter().enumerate() {
            let top = self.plot.top + row as i32 * self.row_height;
            let line = if self.series == 1 { top + self.row_height / 2 } else { top };
            canvas.fill(Rect { top: line - 1, height: 2, ..self.plot }, GRID);
            let middle = (top + self.row_height / 2) as f32;
            for (index, line) in lines.iter().enumerate() {
                let y = middle + (index as f32 - (lines.len() - 1) as f32 / 2.0) * 50.0;
                canvas.text_centered(line, self.plot.left as f32 - 20.0, y, style);
            }
        }
    }
}
