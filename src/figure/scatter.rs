//! Points against the line on which both numbers are the same: an estimate against the exact value.
//!
//! Both axes have one range, so that the line is the diagonal. Named points are drawn over the others, and their names
//! stand where they cover no point; those for which there is no such place are listed under the plot.

mod names;
#[cfg(test)]
mod tests;

use super::FigureError;
use super::axis::{AxisBelow, Panel, Span, drawable};
use super::canvas::Canvas;
use super::marks::{color, draw_marker};
use super::parts::{Heading, MARGIN, line_height, text_width};
use super::style::{FAINT_INK, INK, TICK_SIZE};
use super::text::TextStyle;
use names::place_names;

/// The side of the plot in pixels.
const SIDE: i32 = 1200;
const NAMED_RADIUS: f32 = 15.0;
const IDENTITY_DASH: &[f32] = &[22.0, 16.0];
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
    /// What is compared against: `exact effect`.
    pub x_label: String,
    /// What is compared: `estimated effect`.
    pub y_label: String,
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
}

impl Scatter {
    /// Draws the figure.
    ///
    /// # Errors
    /// Without a point whose numbers are both finite.
    pub fn draw(&self) -> Result<Canvas, FigureError> {
        let points = || self.points.iter().filter(|point| drawable(point.x).and(drawable(point.y)).is_some());
        let Some(span) = Span::of(points().flat_map(|point| [point.x, point.y])) else {
            return Err(FigureError::Empty { title: self.title.clone(), what: "points with two finite numbers" });
        };
        let span = span.widened().padded(0.04);
        let heading = Heading::new(&self.title, &self.subtitle);
        let panel = Panel::new(heading.height(), SIDE, Some(SIDE), span, &self.y_label);
        let axis = AxisBelow::new(span, panel.plot, &self.x_label, false);
        let place = |point: &ScatterPoint| (axis.scale.place(point.x), panel.scale.place(point.y));

        let style = TextStyle::new(TICK_SIZE, INK);
        let radius = if points().count() > 400 { 6.0 } else { 9.0 };
        let named = points().filter_map(|point| Some((place(point), style.clip(point.name.as_ref()?, NAME_WIDTH))));
        let reach = |point: &ScatterPoint| if point.name.is_some() { NAMED_RADIUS + 4.0 } else { radius };
        let taken: Vec<_> = points().map(|point| (place(point), reach(point))).collect();
        let names = place_names(named.collect(), &taken, panel.plot, style);
        let others = style.wrap_within(&names.listed(), text_width(), MOST_LINES);
        let list_top = panel.plot.bottom() + axis.height() + 20;
        let lines = if names.listed().is_empty() { 0 } else { others.len() };
        let mut canvas = Canvas::new((list_top + line_height(TICK_SIZE, lines) + MARGIN) as u32);
        heading.draw(&mut canvas);
        panel.draw_grid(&mut canvas);
        axis.draw_grid(&mut canvas, panel.plot);
        let (low, high) = ((axis.scale.start, panel.scale.start), (axis.scale.end, panel.scale.end));
        canvas.polyline(&[low, high], FAINT_INK, 4.0, IDENTITY_DASH);
        for point in points().filter(|point| point.name.is_none()) {
            draw_marker(&mut canvas, 0, place(point), radius, false);
        }
        for point in points().filter(|point| point.name.is_some()) {
            draw_marker(&mut canvas, 1, place(point), NAMED_RADIUS, true);
        }
        names.draw(&mut canvas, style, color(1));
        panel.draw_axis(&mut canvas);
        axis.draw(&mut canvas, panel.plot);
        for (index, line) in others.iter().take(lines).enumerate() {
            let y = list_top as f32 + 0.95 * TICK_SIZE + index as f32 * style.line_height();
            canvas.text(line, MARGIN as f32, y, style);
        }
        Ok(canvas)
    }
}
