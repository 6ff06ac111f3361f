//! Two numbers of many things against each other: an estimate against the exact value, a size against a depth.
//!
//! Where both numbers are of one kind, both axes have one range, and the line on which they are the same is the diagonal.
//! Series differ in colour and marker. Named points are filled and drawn over the others, and their names stand where they
//! cover no point; those for which there is no such place are listed under the plot.

mod names;
#[cfg(test)]
mod tests;

use super::FigureError;
use super::axis::{AxisBelow, Panel, Span, drawable};
use super::canvas::{Canvas, Rect};
use super::marks::{MOST_SERIES, draw_marker};
use super::parts::{Heading, Legend, MARGIN, line_height, text_width};
use super::sign::Sign;
use super::style::{FAINT_INK, INK, TICK_SIZE, written};
use super::text::TextStyle;
use names::place_names;

/// The side of the plot in pixels, where the column is wide enough.
const SIDE: i32 = 1400;
/// With more points than this only those with a name have tips.
const MOST_TIPS: usize = 1500;
const NAMED_RADIUS: f32 = 15.0;
const IDENTITY: Sign = Sign::Line { color: FAINT_INK, dash: &[22.0, 16.0], width: 4.0, marker: None };
/// Names beside points are not wider than this.
const NAME_WIDTH: f32 = 420.0;
/// How many lines the names that found no place may take.
const MOST_LINES: usize = 4;

/// Pairs of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Scatter {
    /// The title, in bold.
    pub title: String,
    /// What else a reader needs, under the title: how well both agree. May be empty.
    pub subtitle: String,
    /// The number to the right: `estimated effect`.
    pub x_label: String,
    /// The number upwards: `exact effect`.
    pub y_label: String,
    /// Whether both are one number, measured twice: then the axes share a range, and the line is drawn on which they are
    /// the same.
    pub identity: bool,
    /// The names of the series; none where there is only one.
    pub series: Vec<String>,
    /// Which points have a name: `the first five by either method`.
    pub named_meaning: Option<String>,
    /// The points; those that are nowhere are left out.
    pub points: Vec<ScatterPoint>,
}

/// A pair of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct ScatterPoint {
    /// The number to the right.
    pub x: f64,
    /// The number upwards.
    pub y: f64,
    /// The name of a point that is set off from the others.
    pub name: Option<String>,
    /// The number of its series, from 0.
    pub series: usize,
}

impl Scatter {
    /// Draws the figure.
    ///
    /// # Errors
    /// Without a point whose numbers are both finite, and with more series than can be told apart.
    pub fn draw(&self) -> Result<Canvas, FigureError> {
        let (x_span, y_span) = self.spans()?;
        let heading = Heading::new(&self.title, &self.subtitle);
        let legend = self.legend();
        let panel = Panel::new(heading.height(), SIDE, Some(SIDE), y_span, &self.y_label);
        let axis = AxisBelow::new(x_span, panel.plot, &self.x_label, false);
        let place = |point: &ScatterPoint| (axis.scale.place(point.x), panel.scale.place(point.y));

        let style = TextStyle::new(TICK_SIZE, INK);
        let radius = if self.points().count() > 400 { 6.0 } else { 9.0 };
        let reach = |point: &ScatterPoint| if point.name.is_some() { NAMED_RADIUS + 4.0 } else { radius };
        let taken: Vec<_> = self.points().map(|point| (place(point), reach(point))).collect();
        let named = self.points().filter_map(|p| Some((place(p), style.shorten(p.name.as_ref()?, NAME_WIDTH))));
        let names = place_names(named.collect(), &taken, panel.plot, style);
        let others = match names.listed() {
            none if none.is_empty() => Vec::new(),
            listed => style.wrap_within(&listed, text_width(), MOST_LINES),
        };
        let legend_top = panel.plot.bottom() + axis.height() + 20;
        let list_top = legend_top + legend.height();
        let mut canvas = Canvas::new((list_top + line_height(TICK_SIZE, others.len()) + MARGIN) as u32);
        heading.draw(&mut canvas);
        panel.draw_grid(&mut canvas);
        axis.draw_grid(&mut canvas, panel.plot);
        if self.identity {
            let (low, high) = ((axis.scale.start, panel.scale.start), (axis.scale.end, panel.scale.end));
            IDENTITY.draw_line(&mut canvas, low, high);
        }
        for point in self.points().filter(|point| point.name.is_none()) {
            draw_marker(&mut canvas, point.series, place(point), radius, false);
        }
        for point in self.points().filter(|point| point.name.is_some()) {
            draw_marker(&mut canvas, point.series, place(point), NAMED_RADIUS, true);
        }
        names.draw(&mut canvas, style, FAINT_INK);
        self.add_tips(&mut canvas, place);
        panel.draw_axis(&mut canvas);
        axis.draw(&mut canvas, panel.plot);
        legend.draw(&mut canvas, legend_top, |canvas, place, sign| sign.draw(canvas, place));
        for (index, line) in others.iter().enumerate() {
            let y = list_top as f32 + 0.95 * TICK_SIZE + index as f32 * style.line_height();
            canvas.text(line, MARGIN as f32, y, style);
        }
        Ok(canvas)
    }

    /// Says the numbers of points where they are; those with a name last, so that they are in front.
    fn add_tips(&self, canvas: &mut Canvas, place: impl Fn(&ScatterPoint) -> (f32, f32)) {
        let few = self.points().count() <= MOST_TIPS;
        let unnamed = self.points().filter(|point| few && point.name.is_none());
        for point in unnamed.chain(self.points().filter(|point| point.name.is_some())) {
            let ((x, y), half) = (place(point), NAMED_RADIUS as i32);
            let (left, top) = (x.round() as i32 - half, y.round() as i32 - half);
            let names = point.name.iter().chain(self.series.get(point.series)).map(String::as_str).collect::<Vec<_>>();
            let numbers = format!("{}: {}, {}: {}", self.x_label, written(point.x), self.y_label, written(point.y));
            let text = if names.is_empty() { numbers } else { format!("{}; {numbers}", names.join(", ")) };
            canvas.tip(Rect { left, top, width: 2 * half, height: 2 * half }, text);
        }
    }

    /// The points that are somewhere.
    fn points(&self) -> impl Iterator<Item = &ScatterPoint> {
        self.points.iter().filter(|point| drawable(point.x).and(drawable(point.y)).is_some())
    }

    /// The ranges of both axes, once it is known that there is something to draw and not too much.
    fn spans(&self) -> Result<(Span, Span), FigureError> {
        let (title, found) = (|| self.title.clone(), self.series.len());
        if found > MOST_SERIES {
            return Err(FigureError::TooMany { title: title(), what: "series", found, limit: MOST_SERIES });
        }
        let (x, y) = (Span::of(self.points().map(|p| p.x)), Span::of(self.points().map(|p| p.y)));
        let Some((x, y)) = x.zip(y) else {
            return Err(FigureError::Empty { title: title(), what: "points with two finite numbers" });
        };
        let both = x.with(y.low).with(y.high);
        let (x, y) = if self.identity { (both, both) } else { (x, y) };
        Ok((x.widened().padded(0.04), y.widened().padded(0.04)))
    }

    /// Which series is which, which points are filled, and what the line is.
    fn legend(&self) -> Legend<Sign> {
        let series = self.series.iter().enumerate().map(|(number, name)| (Sign::Open(number), name.clone()));
        let series = series.filter(|_| self.series.len() > 1);
        let named = self.named_meaning.iter().filter(|_| self.points().any(|point| point.name.is_some()));
        let named = named.map(|meaning| (Sign::FilledOrOpen(0), format!("filled: {meaning}")));
        let line = self.identity.then(|| (IDENTITY, "both are the same".to_owned()));
        Legend::new(series.chain(named).chain(line), Sign::width)
    }
}
