//! The signs of legends, drawn by what draws the data, so that both look the same.

use super::canvas::{Canvas, Rect};
use super::estimate::Estimate;
use super::marks::{color, draw_bar, draw_filling, draw_marker, draw_missing};
use super::parts::Legend;
use super::style::{BAND, Color, FAINT_INK, INK};

/// The width of signs that are one marker or one swatch, in pixels.
const NARROW: i32 = 60;
/// The width of signs that show a line.
const WIDE: i32 = 130;

const MARKER_RADIUS: f32 = 14.0;

/// What is said of what is missing, where nothing better is known.
pub(super) const NO_VALUE: &str = "no value";

/// A sign in a legend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Sign {
    /// A series' marker.
    Marker(usize),
    /// A series' marker as an outline.
    Open(usize),
    /// The same, smaller.
    Small(usize),
    /// A series' bar.
    Filling(usize),
    /// A bar of a colour, filled or as an outline.
    Bar(Color, bool),
    /// A filled marker beside an open one.
    FilledOrOpen(usize),
    /// An interval's line.
    Whisker,
    /// A shaded range.
    Band,
    /// A dot of ink.
    Dot,
    /// What stands where a value is missing.
    Missing,
    /// A line, with a series' marker on it.
    Line { color: Color, dash: &'static [f32], width: f32, marker: Option<usize> },
}

impl Sign {
    /// How many pixels the sign is wide.
    pub fn width(&self) -> i32 {
        if matches!(self, Sign::Line { .. }) { WIDE } else { NARROW }
    }

    /// Draws the line that the sign stands for; of another sign, nothing.
    pub fn draw_line(&self, canvas: &mut Canvas, from: (f32, f32), to: (f32, f32)) {
        if let Sign::Line { color, dash, width, .. } = *self {
            canvas.polyline(&[from, to], color, width, dash);
        }
    }

    /// Draws the sign into its place in a legend.
    pub fn draw(&self, canvas: &mut Canvas, place: Rect) {
        let (x, y) = (place.left as f32 + place.width as f32 / 2.0, place.top as f32 + place.height as f32 / 2.0);
        let (left, right) = ((place.left as f32, y), (place.right() as f32, y));
        match *self {
            Sign::Marker(series) => draw_marker(canvas, series, (x, y), MARKER_RADIUS, true),
            Sign::Open(series) => draw_marker(canvas, series, (x, y), MARKER_RADIUS * 0.7, false),
            Sign::Small(series) => draw_marker(canvas, series, (x, y), MARKER_RADIUS * 0.5, false),
            Sign::Filling(series) => draw_filling(canvas, series, place),
            Sign::Bar(color, filled) => draw_bar(canvas, place, color, filled),
            Sign::FilledOrOpen(series) => {
                draw_marker(canvas, series, (x - 16.0, y), MARKER_RADIUS * 0.9, true);
                draw_marker(canvas, series, (x + 16.0, y), MARKER_RADIUS * 0.9, false);
            }
            Sign::Whisker => draw_whisker(canvas, (left.0 + 4.0, y), (right.0 - 4.0, y), INK, 4.0),
            Sign::Band => {
                canvas.fill(place, BAND);
                canvas.frame(place, FAINT_INK, 2);
            }
            Sign::Dot => canvas.disc((x, y), 9.0, INK),
            Sign::Missing => {
                draw_missing(canvas, place);
                canvas.frame(place, FAINT_INK, 2);
            }
            Sign::Line { marker, .. } => {
                self.draw_line(canvas, left, right);
                if let Some(series) = marker {
                    draw_marker(canvas, series, (x, y), MARKER_RADIUS, true);
                }
            }
        }
    }
}

/// Draws an interval: a line with a short bar across at both ends.
pub(super) fn draw_whisker(canvas: &mut Canvas, from: (f32, f32), to: (f32, f32), color: Color, width: f32) {
    canvas.stroke(from, to, color, width);
    let half = 1.8 * width;
    let (dx, dy) = if from.1 == to.1 { (0.0, half) } else { (half, 0.0) };
    for (x, y) in [from, to] {
        canvas.stroke((x - dx, y - dy), (x + dx, y + dy), color, width);
    }
}

/// Draws an estimate's interval and marker; `place` gives the pixels of a value.
pub(super) fn draw_estimate(
    canvas: &mut Canvas,
    series: usize,
    estimate: Estimate,
    look: (f32, bool),
    place: impl Fn(f64) -> (f32, f32),
) {
    let (radius, filled) = look;
    if let Some((low, high)) = estimate.interval {
        draw_whisker(canvas, place(low), place(high), color(series), (radius * 0.3).clamp(2.0, 4.0));
    }
    draw_marker(canvas, series, place(estimate.value), radius, filled);
}

/// What of estimates needs explaining in a legend.
pub(super) struct Explained<'a> {
    /// The names of the series; a single one is named by the title.
    pub series: Vec<&'a str>,
    /// The sign of a series.
    pub sign: fn(usize) -> Sign,
    /// What marks say, where anything is marked, and the sign for it.
    pub marks: Option<(Sign, String)>,
    /// What intervals are.
    pub intervals: Option<&'a str>,
    /// What shaded ranges are.
    pub bands: Option<&'a str>,
    /// A line across the plot.
    pub reference: Option<(Sign, String)>,
    /// Whether something was not tested.
    pub untested: bool,
    /// What is missing, where a value is.
    pub missing: Option<&'a str>,
}

impl Explained<'_> {
    /// The legend that says it.
    pub fn legend(self) -> Legend<Sign> {
        let mut entries: Vec<(Sign, String)> = Vec::new();
        if self.series.len() > 1 {
            entries
                .extend(self.series.iter().enumerate().map(|(index, name)| ((self.sign)(index), (*name).to_owned())));
        }
        entries.extend(self.marks);
        entries.extend(self.untested.then(|| (Sign::Small(0), "small: not tested".to_owned())));
        entries.extend(self.intervals.map(|meaning| (Sign::Whisker, meaning.to_owned())));
        entries.extend(self.bands.map(|meaning| (Sign::Band, meaning.to_owned())));
        entries.extend(self.reference);
        entries.extend(self.missing.map(|meaning| (Sign::Missing, meaning.to_owned())));
        Legend::new(entries, Sign::width)
    }
}
