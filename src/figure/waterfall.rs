//! A waterfall: how the parts of the forward pass add up to a number, layer by layer, as direct logit attribution
//! splits a logit difference.
//!
//! The passage goes up the page, as layers do in heatmaps, a row for every part, so that eighty layers are still legible.
//! Every part is a bar from the sum before it to the sum after it, filled where it adds and an outline where it takes away;
//! attention and MLP differ in shade. That the parts do add up is left to the caller.

mod layout;
#[cfg(test)]
mod tests;

use super::FigureError;
use super::axis::{AxisBelow, Span, drawable};
use super::canvas::{Canvas, Rect};
use super::marks::{draw_bar, draw_missing};
use super::parts::{Heading, Legend, MARGIN};
use super::sign::Sign;
use super::style::{Color, FAINT_INK, INK, SERIES, signed};
use layout::Layout;

/// The most layers: with its caption the figure still fits a page.
pub const MOST_LAYERS: usize = 128;
/// The most parts before the layers, and after them.
pub const MOST_OTHERS: usize = 6;

/// Dark and light, so that greyscale tells them apart.
const ATTENTION: Color = SERIES[0];
const MLP: Color = SERIES[5];
/// The parts that add up to a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Waterfall {
    /// The title, in bold.
    pub title: String,
    /// What else a reader needs, under the title. May be empty.
    pub subtitle: String,
    /// What the parts add up to, with its unit.
    pub value_label: String,
    /// The parts before the first layer: the embedding.
    pub before: Vec<WaterfallPart>,
    /// The layers' parts, from layer 0.
    pub layers: Vec<WaterfallLayer>,
    /// The parts after the last layer: biases, a remainder.
    pub after: Vec<WaterfallPart>,
}

/// A part that belongs to no layer.
#[derive(Debug, Clone, PartialEq)]
pub struct WaterfallPart {
    /// What it is: `embed`.
    pub label: String,
    /// What it adds; `None`, and a number that is not finite, is shown as missing and adds nothing.
    pub value: Option<f64>,
}

/// The parts of one layer, in the order in which they are added; missing as in [`WaterfallPart::value`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WaterfallLayer {
    /// What attention adds.
    pub attention: Option<f64>,
    /// What the MLP adds.
    pub mlp: Option<f64>,
}

/// A bar: what it stands for, and the sums before and after it.
struct Step {
    color: Color,
    value: Option<f64>,
    from: f64,
    to: f64,
}

impl Waterfall {
    /// Draws the figure.
    ///
    /// # Errors
    /// Without layers, and with more parts than can be told apart.
    pub fn draw(&self) -> Result<Canvas, FigureError> {
        self.check()?;
        let steps = self.steps();
        let total = steps.last().map_or(0.0, |step| step.to);
        let heading = Heading::new(&self.title, &self.subtitle);
        let legend = self.legend(&steps, total);
        let layout = Layout::new(self.labels(), self.before.len(), self.layers.len(), heading.height());
        let axis = AxisBelow::new(self.span(&steps), layout.plot, &self.value_label, false);
        let legend_top = layout.plot.bottom() + axis.height() + 20;
        let mut canvas = Canvas::new((legend_top + legend.height() + MARGIN) as u32);
        heading.draw(&mut canvas);
        axis.draw_grid(&mut canvas, layout.plot);
        layout.draw_ground(&mut canvas);
        draw_steps(&mut canvas, &axis, &layout, &steps);
        let whole = bar(&axis, layout.slot(steps.len()), 0.0, total);
        draw_bar(&mut canvas, whole, INK, true);
        self.add_tips(&mut canvas, &layout, &steps);
        canvas.tip(
            Rect { left: layout.plot.left, width: layout.plot.width, ..whole },
            format!("total: {}", signed(total)),
        );
        let zero = axis.scale.place(0.0).round() as i32;
        canvas.fill(Rect { left: zero - 1, width: 3, ..layout.plot }, INK);
        canvas.frame(layout.plot, INK, 3);
        layout.draw_axis(&mut canvas);
        axis.draw(&mut canvas, layout.plot);
        legend.draw(&mut canvas, legend_top, |canvas, place, sign| sign.draw(canvas, place));
        Ok(canvas)
    }

    fn check(&self) -> Result<(), FigureError> {
        let (title, layers) = (|| self.title.clone(), self.layers.len());
        if layers == 0 {
            return Err(FigureError::Empty { title: title(), what: "layers" });
        }
        if layers > MOST_LAYERS {
            return Err(FigureError::TooMany { title: title(), what: "layers", found: layers, limit: MOST_LAYERS });
        }
        for (what, found) in [("parts before the layers", self.before.len()), ("parts after them", self.after.len())] {
            if found > MOST_OTHERS {
                return Err(FigureError::TooMany { title: title(), what, found, limit: MOST_OTHERS });
            }
        }
        Ok(())
    }

    /// All bars but the total, in their order.
    fn steps(&self) -> Vec<Step> {
        let others = |parts: &[WaterfallPart]| -> Vec<_> { parts.iter().map(|part| (FAINT_INK, part.value)).collect() };
        let layers = self.layers.iter().flat_map(|layer| [(ATTENTION, layer.attention), (MLP, layer.mlp)]);
        let mut sum = 0.0;
        let step = |(color, value): (Color, Option<f64>)| {
            let value = value.and_then(drawable);
            let from = sum;
            sum += value.unwrap_or(0.0);
            Step { color, value, from, to: sum }
        };
        others(&self.before).into_iter().chain(layers).chain(others(&self.after)).map(step).collect()
    }

    /// The names of the parts that belong to no layer, and of the total.
    fn labels(&self) -> Vec<String> {
        let parts = self.before.iter().chain(&self.after).map(|part| part.label.clone());
        parts.chain(["total".to_owned()]).collect()
    }

    /// Says what each bar adds, and the sum after it, wherever the pointer is in its row.
    fn add_tips(&self, canvas: &mut Canvas, layout: &Layout, steps: &[Step]) {
        let others = |parts: &[WaterfallPart]| parts.iter().map(|part| part.label.clone()).collect::<Vec<_>>();
        let layers =
            (0..self.layers.len()).flat_map(|layer| ["attention", "MLP"].map(|part| format!("layer {layer} {part}")));
        let names = others(&self.before).into_iter().chain(layers).chain(others(&self.after));
        for (index, (name, step)) in names.zip(steps).enumerate() {
            let (top, bottom) = layout.slot(index);
            let value = step.value.map_or("no value".to_owned(), signed);
            let text = format!("{name}: {value}; sum {}", signed(step.to));
            canvas.tip(Rect { top, height: bottom - top, ..layout.plot }, text);
        }
    }

    fn span(&self, steps: &[Step]) -> Span {
        let values = steps.iter().map(|step| step.to).chain([0.0]);
        Span::of(values).unwrap_or(Span { low: 0.0, high: 0.0 }).widened().padded(0.03)
    }

    fn legend(&self, steps: &[Step], total: f64) -> Legend<Sign> {
        let mut entries = vec![(Sign::Bar(ATTENTION, true), "attention".into()), (Sign::Bar(MLP, true), "MLP".into())];
        if steps.iter().any(|step| step.to < step.from) {
            entries.push((Sign::Bar(FAINT_INK, false), "outline: negative".into()));
        }
        entries.push((Sign::Bar(INK, true), format!("total {}", signed(total))));
        if steps.iter().any(|step| step.value.is_none()) {
            entries.push((Sign::Missing, "no value".into()));
        }
        Legend::new(entries, Sign::width)
    }
}

/// The pixels of a bar between two sums.
fn bar(axis: &AxisBelow, (top, bottom): (i32, i32), from: f64, to: f64) -> Rect {
    let (a, b) = (axis.scale.place(from).round() as i32, axis.scale.place(to).round() as i32);
    Rect { left: a.min(b), top, width: (a - b).abs(), height: bottom - top }
}

/// Draws the bars, each with a line from its end to the next one's start.
fn draw_steps(canvas: &mut Canvas, axis: &AxisBelow, layout: &Layout, steps: &[Step]) {
    for (index, step) in steps.iter().enumerate() {
        let slot = layout.slot(index);
        match step.value {
            Some(value) => draw_bar(canvas, bar(axis, slot, step.from, step.to), step.color, value >= 0.0),
            None => draw_missing(canvas, Rect { top: slot.0, height: slot.1 - slot.0, ..layout.plot }),
        }
        let level = bar(axis, (layout.slot(index + 1).1, slot.0), step.to, step.to);
        canvas.fill(Rect { left: level.left - 1, width: 3, ..level }, FAINT_INK);
    }
}
