//! Where the rows of a waterfall are, and what stands beside them.

use super::super::axis::right_of;
use super::super::canvas::{Canvas, Rect};
use super::super::parts::{MARGIN, UprightLabel};
use super::super::style::{GRID, INK, TICK_SIZE, index_step};
use super::super::text::{Anchor, TextStyle};

/// A row that belongs to no layer, in pixels.
const OTHER_HEIGHT: i32 = 60;
/// All layers together, where they need no more and do not get too high.
const LAYERS_HEIGHT: i32 = 1400;
const LOWEST_LAYER: i32 = 24;
const HIGHEST_LAYER: i32 = 64;
const LONGEST_LABEL: f32 = 360.0;
/// What is left free under the first row and over the last.
const END: i32 = 10;

/// Rows of a waterfall.
pub(super) struct Layout {
    /// All rows together.
    pub plot: Rect,
    /// The names of the rows that belong to no layer, with the total as the last.
    labels: Vec<String>,
    before: usize,
    layers: usize,
    layer_height: i32,
    layer_label: UprightLabel,
}

impl Layout {
    pub fn new(labels: Vec<String>, before: usize, layers: usize, top: i32) -> Layout {
        let style = TextStyle::new(TICK_SIZE, INK);
        let labels: Vec<String> = labels.iter().map(|label| style.shorten(label, LONGEST_LABEL)).collect();
        let layer_height = (LAYERS_HEIGHT / layers as i32).clamp(LOWEST_LAYER, HIGHEST_LAYER);
        let layers_height = layer_height * layers as i32;
        let layer_label = UprightLabel::new("layer", layers_height.max(OTHER_HEIGHT * 2) as f32);
        let widest = labels.iter().map(|label| style.width(label)).fold(style.width("100"), f32::max);
        let left = MARGIN + layer_label.thickness() + widest.ceil() as i32 + 32;
        let height = labels.len() as i32 * OTHER_HEIGHT + layers_height + 2 * END;
        let plot = Rect { left, top, width: right_of(left), height };
        Layout { plot, labels, before, layers, layer_height, layer_label }
    }

    /// The lower end of a layer; the number of layers gives the upper end of the last.
    fn start(&self, layer: usize) -> i32 {
        self.plot.bottom() - END - self.before as i32 * OTHER_HEIGHT - layer as i32 * self.layer_height
    }

    /// The rows of pixels of a bar, the first and the one after the last; the first step is the lowest, the bar after
    /// all of them the total.
    pub fn slot(&self, step: usize) -> (i32, i32) {
        let (half, gap) = (self.layer_height / 2, (self.layer_height / 12).min(4));
        let other = |start: i32| (start - OTHER_HEIGHT + 8, start - 8);
        match step.checked_sub(self.before) {
            None => other(self.plot.bottom() - END - step as i32 * OTHER_HEIGHT),
            Some(step) if step < 2 * self.layers => {
                let start = self.start(step / 2) - (step % 2) as i32 * half;
                (start - half + gap - gap / 2, start - gap / 2)
            }
            Some(step) => other(self.start(self.layers) - (step - 2 * self.layers) as i32 * OTHER_HEIGHT),
        }
    }

    /// Every how many layers one is named.
    fn step(&self) -> usize {
        index_step(self.layer_height as f32, 1.15 * TICK_SIZE)
    }

    /// Draws what is behind the bars: lines between layers that are named.
    pub fn draw_ground(&self, canvas: &mut Canvas) {
        let starts = (0..self.layers).step_by(self.step()).chain([self.layers]);
        for start in starts.map(|layer| self.start(layer)) {
            canvas.fill(Rect { top: start - 1, height: 2, ..self.plot }, GRID);
        }
    }

    /// Draws the layers' numbers and the other parts' names.
    pub fn draw_axis(&self, canvas: &mut Canvas) {
        let style = TextStyle::new(TICK_SIZE, INK).anchored(Anchor::End);
        let mut write = |y: i32, label: &str| {
            canvas.line((self.plot.left - 14, y), (self.plot.left - 3, y), INK, 3);
            canvas.text_centered(label, self.plot.left as f32 - 22.0, y as f32, style);
        };
        for layer in (0..self.layers).step_by(self.step()) {
            write(self.start(layer) - self.layer_height / 2, &layer.to_string());
        }
        for (index, label) in self.labels.iter().enumerate() {
            let (top, bottom) = self.slot(if index < self.before { index } else { index + 2 * self.layers });
            write((top + bottom) / 2, label);
        }
        // Beside the layers, but with few of them not beyond the plot.
        let middle = ((self.start(0) + self.start(self.layers)) / 2).min(self.plot.bottom() - OTHER_HEIGHT);
        self.layer_label.draw(canvas, MARGIN as f32, middle as f32);
    }
}
