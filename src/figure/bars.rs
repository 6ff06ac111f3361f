//! A value for every category, as concept sensitivity (TCAV scores) by layer: bars from zero, or points on the range
//! that chance would give.
//!
//! Where a category has such a range, a shaded band, values are points: a bar would hide it. Series (classes) stand
//! beside each other in a category. What is marked is filled among points, and has a dot over bars.

mod labels;
#[cfg(test)]
mod tests;

use super::FigureError;
use super::axis::{Panel, Span, drawable, drawable_interval};
use super::canvas::{Canvas, Rect};
use super::estimate::{Estimate, has_intervals};
use super::marks::{MOST_SERIES, color, draw_filling, draw_missing};
use super::parts::{Heading, Legend, MARGIN};
use super::sign::{Explained, NO_VALUE, Sign, draw_estimate, draw_whisker};
use super::style::{BAND, INK, PAPER};
use labels::CategoryAxis;

/// The most bars, categories times series: more would be less than eight pixels a bar.
pub const MOST_BARS: usize = 160;

const PLOT_HEIGHT: i32 = 800;
const WIDEST_BAR: f32 = 160.0;
const DOT_RADIUS: f32 = 9.0;
/// A bar that is lower is a stub of this height in its series' colour, and so is its interval.
const LEAST_BAR: i32 = 8;
const REFERENCE_DASH: &[f32] = &[18.0, 14.0];

/// Values by category, of one or more series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bars {
    /// The title, in bold.
    pub title: String,
    /// What else a reader needs, under the title. May be empty.
    pub subtitle: String,
    /// What a category is: `layer`.
    pub category_label: String,
    /// What the values are, with their unit.
    pub value_label: String,
    /// Whether they are shares, whose axis is in percent.
    pub shares: bool,
    /// The categories' names, from left to right.
    pub categories: Vec<String>,
    /// The series.
    pub series: Vec<BarSeries>,
    /// The value axis' range, 0 to 1 for shares; it is wider only where values are beyond. By default as values need.
    pub range: Option<(f64, f64)>,
    /// A value that a line is drawn at, and what it is: 0.5, `no preference`.
    pub reference: Option<(f64, String)>,
    /// What a mark says: `q < 0.05`.
    pub mark_meaning: Option<String>,
    /// What the lines are: `95 % interval`.
    pub interval_meaning: Option<String>,
    /// What the bands are: `random concepts, mean ± sd`.
    pub band_meaning: Option<String>,
}

/// The values of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct BarSeries {
    /// Its name; not shown where it is the only one.
    pub name: String,
    /// An estimate for each category; `None`, and numbers that are not finite, are shown as missing.
    pub estimates: Vec<Option<Estimate>>,
    /// For each category the range behind it, as both of its ends; empty for none at all.
    pub bands: Vec<Option<(f64, f64)>>,
}

/// Where the series of a category are, in pixels.
struct Slots {
    left: f32,
    category: f32,
    slot: f32,
    series: usize,
}

impl Slots {
    /// The middle of a series' slot.
    fn middle(&self, category: usize, series: usize) -> f32 {
        let center = self.left + (category as f32 + 0.5) * self.category;
        center + (series as f32 - (self.series - 1) as f32 / 2.0) * self.slot
    }

    /// The columns that are a share of a slot.
    fn columns(&self, category: usize, series: usize, share: f32) -> (i32, i32) {
        let (middle, half) = (self.middle(category, series), self.slot * share / 2.0);
        let left = (middle - half).round() as i32;
        (left, ((middle + half).round() as i32 - left).max(2))
    }
}

impl Bars {
    /// Draws the figure.
    ///
    /// # Errors
    /// Without categories or series, with more than can be told apart, and if a series has not one estimate (or, where
    /// it has any, one band) a category.
    pub fn draw(&self) -> Result<Canvas, FigureError> {
        self.check()?;
        let heading = Heading::new(&self.title, &self.subtitle);
        let legend = self.legend();
        let panel = self.panel(heading.height());
        let axis = CategoryAxis::new(&self.categories, panel.plot, &self.category_label);
        let legend_top = panel.plot.bottom() + axis.height() + 20;
        let mut canvas = Canvas::new((legend_top + legend.height() + MARGIN) as u32);
        heading.draw(&mut canvas);
        let slots = self.slots(panel.plot);
        self.draw_bands(&mut canvas, &panel, &slots);
        panel.draw_grid(&mut canvas);
        if self.as_points() {
            self.draw_reference(&mut canvas, &panel);
            self.draw_values(&mut canvas, &panel, &slots);
        } else {
            // Behind bars the line would be seen in pieces.
            self.draw_values(&mut canvas, &panel, &slots);
            self.draw_reference(&mut canvas, &panel);
        }
        if panel.scale.span.low <= 0.0 && panel.scale.span.high >= 0.0 {
            panel.draw_level(&mut canvas, 0.0, 3);
        }
        panel.draw_axis(&mut canvas);
        axis.draw(&mut canvas, panel.plot);
        legend.draw(&mut canvas, legend_top, |canvas, place, sign| sign.draw(canvas, place));
        Ok(canvas)
    }

    fn panel(&self, top: i32) -> Panel {
        let new = if self.shares { Panel::of_shares } else { Panel::new };
        new(top, PLOT_HEIGHT, None, self.span(), &self.value_label)
    }

    fn check(&self) -> Result<(), FigureError> {
        let title = || self.title.clone();
        if self.categories.is_empty() || self.series.is_empty() {
            return Err(FigureError::Empty { title: title(), what: "categories with a series" });
        }
        let too_many = |what, found, limit| FigureError::TooMany { title: title(), what, found, limit };
        if self.series.len() > MOST_SERIES {
            return Err(too_many("series", self.series.len(), MOST_SERIES));
        }
        let (bars, expected) = (self.categories.len() * self.series.len(), self.categories.len());
        if bars > MOST_BARS {
            return Err(too_many("bars", bars, MOST_BARS));
        }
        for series in &self.series {
            let bands = if series.bands.is_empty() { expected } else { series.bands.len() };
            for (what, found) in [("series", series.estimates.len()), ("bands of series", bands)] {
                if found != expected {
                    let what = format!("{what} \"{}\"", series.name);
                    return Err(FigureError::Unequal { title: title(), what, found, expected, each: "category" });
                }
            }
        }
        Ok(())
    }

    fn estimates(&self) -> impl Iterator<Item = Estimate> {
        let all = self.series.iter().flat_map(|series| &series.estimates);
        all.filter_map(|estimate| estimate.and_then(Estimate::drawable))
    }

    fn bands(&self) -> impl Iterator<Item = (f64, f64)> {
        self.series.iter().flat_map(|series| &series.bands).filter_map(|band| drawable_interval(*band))
    }

    /// Whether values are points.
    fn as_points(&self) -> bool {
        self.bands().next().is_some()
    }

    fn marking(&self) -> bool {
        self.mark_meaning.is_some() || self.estimates().any(|estimate| estimate.is_marked())
    }

    fn span(&self) -> Span {
        let foot = (!self.as_points()).then_some(0.0);
        let reference = self.reference.as_ref().map(|(value, _)| *value);
        let values =
            self.estimates().flat_map(Estimate::values).chain(self.bands().flat_map(|(low, high)| [low, high]));
        let values = Span::of(values.chain(foot).chain(reference)).unwrap_or(Span { low: 0.0, high: 1.0 }).widened();
        let span = values.padded_from_zero(0.06).or_wanted(self.range, values);
        if self.as_points() || !self.marking() {
            return span;
        }
        // Dots stand beyond the bars' ends.
        let room = (span.high - span.low) * f64::from(5.0 * DOT_RADIUS) / f64::from(PLOT_HEIGHT);
        let marked = self.estimates().filter(|estimate| estimate.is_marked());
        marked.map(|estimate| beyond(estimate, room)).fold(span, Span::with)
    }

    fn slots(&self, plot: Rect) -> Slots {
        let (series, category) = (self.series.len(), plot.width as f32 / self.categories.len() as f32);
        let slot = (category * 0.86 / series as f32).min(WIDEST_BAR);
        Slots { left: plot.left as f32, category, slot, series }
    }

    fn legend(&self) -> Legend<Sign> {
        let points = self.as_points();
        let meaning = self.mark_meaning.as_deref().unwrap_or("marked");
        let mark = if points {
            (Sign::FilledOrOpen(0), format!("filled: {meaning}"))
        } else {
            (Sign::Dot, meaning.to_owned())
        };
        let line = Sign::Line { color: INK, dash: REFERENCE_DASH, width: 4.0, marker: None };
        let cells = self.categories.len() * self.series.len();
        let explained = Explained {
            series: self.series.iter().map(|series| series.name.as_str()).collect(),
            sign: if points { Sign::Marker } else { Sign::Filling },
            marks: self.marking().then_some(mark),
            intervals: self.interval_meaning.as_deref().filter(|_| has_intervals(self.estimates())),
            bands: self.band_meaning.as_deref().filter(|_| points),
            reference: self.reference.as_ref().map(|(_, meaning)| (line, meaning.clone())),
            untested: false,
            missing: (self.estimates().count() < cells).then_some(NO_VALUE),
        };
        explained.legend()
    }

    fn draw_bands(&self, canvas: &mut Canvas, panel: &Panel, slots: &Slots) {
        for (index, series) in self.series.iter().enumerate() {
            for (category, band) in series.bands.iter().enumerate() {
                let Some((low, high)) = drawable_interval(*band) else { continue };
                let (left, width) = slots.columns(category, index, 1.0);
                let (top, bottom) = (panel.scale.place(high).round() as i32, panel.scale.place(low).round() as i32);
                canvas.fill(Rect { left, top, width, height: (bottom - top).max(3) }, BAND);
            }
        }
    }

    fn draw_reference(&self, canvas: &mut Canvas, panel: &Panel) {
        if let Some(value) = self.reference.as_ref().and_then(|(value, _)| drawable(*value)) {
            let y = panel.scale.place(value);
            let ends = [(panel.plot.left as f32, y), (panel.plot.right() as f32, y)];
            canvas.polyline(&ends, PAPER, 8.0, REFERENCE_DASH);
            canvas.polyline(&ends, INK, 4.0, REFERENCE_DASH);
        }
    }

    /// Says an estimate's numbers wherever the pointer is in its column.
    fn add_tip(
        &self,
        canvas: &mut Canvas,
        panel: &Panel,
        slots: &Slots,
        (category, series): (usize, usize),
        estimate: Estimate,
    ) {
        let (left, width) = slots.columns(category, series, 1.0);
        let name = match self.series.len() {
            1 => String::new(),
            _ => format!(", {}", self.series[series].name),
        };
        let told = estimate.told(self.mark_meaning.as_deref(), self.shares);
        let text = format!("{} {}{name}: {told}", self.category_label, self.categories[category]);
        canvas.tip(Rect { left, width, ..panel.plot }, text.trim_start());
    }

    fn draw_values(&self, canvas: &mut Canvas, panel: &Panel, slots: &Slots) {
        let (points, marking) = (self.as_points(), self.marking());
        for (index, series) in self.series.iter().enumerate() {
            for (category, estimate) in series.estimates.iter().enumerate() {
                let middle = slots.middle(category, index);
                match estimate.and_then(Estimate::drawable) {
                    None => {
                        let (left, width) = slots.columns(category, index, 0.8);
                        draw_missing(canvas, Rect { left, width, ..panel.plot });
                    }
                    Some(estimate) if points => {
                        let look = ((slots.slot * 0.4).clamp(5.0, 15.0), estimate.is_marked() || !marking);
                        draw_estimate(canvas, index, estimate, look, |value| (middle, panel.scale.place(value)));
                        self.add_tip(canvas, panel, slots, (category, index), estimate);
                    }
                    Some(estimate) => {
                        let (left, width) = slots.columns(category, index, 0.8);
                        draw_column(canvas, panel, index, (left, width), estimate);
                        self.add_tip(canvas, panel, slots, (category, index), estimate);
                    }
                }
            }
        }
    }
}

/// Draws a bar from zero with its interval and its mark.
fn draw_column(canvas: &mut Canvas, panel: &Panel, series: usize, (left, width): (i32, i32), estimate: Estimate) {
    let (zero, end) = (panel.scale.place(0.0).round() as i32, panel.scale.place(estimate.value).round() as i32);
    let low_bar = (zero - end).abs() < LEAST_BAR;
    if low_bar {
        // No filling can be told in it, and at 0 there would be none: a stub shows that there is a value, and whose.
        let top = if estimate.value < 0.0 { zero } else { zero - LEAST_BAR };
        canvas.fill(Rect { left, top, width, height: LEAST_BAR }, color(series));
    } else {
        draw_filling(canvas, series, Rect { left, top: zero.min(end), width, height: (zero - end).abs() });
    }
    let middle = left as f32 + width as f32 / 2.0;
    if let Some((low, high)) = estimate.interval {
        let (low, high) = ((middle, panel.scale.place(low)), (middle, panel.scale.place(high)));
        // A line of paper around it, for bars as dark as ink.
        canvas.stroke(low, high, PAPER, line_width(width) + 4.0);
        draw_whisker(canvas, low, high, if low_bar { color(series) } else { INK }, line_width(width));
    }
    if estimate.is_marked() {
        let tip = panel.scale.place(beyond(estimate, 0.0));
        let away = if estimate.value < 0.0 { 2.5 } else { -2.5 } * DOT_RADIUS;
        canvas.disc((middle, tip + away), DOT_RADIUS.min(width as f32 * 0.6), INK);
    }
}

/// How thick the line of an interval is over a bar of a width.
fn line_width(width: i32) -> f32 {
    (width as f32 / 8.0).clamp(2.0, 4.0)
}

/// The value so far from a bar's end, or its interval's, seen from zero.
fn beyond(estimate: Estimate, room: f64) -> f64 {
    let (low, high) = estimate.interval.unwrap_or((estimate.value, estimate.value));
    if estimate.value < 0.0 { low.min(estimate.value) - room } else { high.max(estimate.value) + room }
}
