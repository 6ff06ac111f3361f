//! Linear axes: the range that values take, its ticks, and where a value is on the picture.
//!
//! Only finite numbers of a size that can be scaled count as values; whatever else is given is a gap.

use super::canvas::{Canvas, Rect, WIDTH};
use super::parts::{MARGIN, UprightLabel, line_height};
use super::style::{GRID, INK, LABEL_SIZE, TICK_SIZE, nice_step, nice_ticks, tick_labels};
use super::text::{Anchor, TextStyle};

/// Numbers beyond this are no values: their differences would overflow.
const LARGEST: f64 = 1e300;
/// A range narrower than this share of its values is one value with rounding errors.
const SAME: f64 = 1e-9;
/// No place is farther from the picture than this, so that pixels can be counted with.
const FARTHEST: f32 = 1e6;
/// From the plot to the labels of its ticks.
const TICK_GAP: f32 = 22.0;

/// The number, where it can be drawn.
pub(super) fn drawable(value: f64) -> Option<f64> {
    (value.abs() < LARGEST).then_some(value)
}

/// Both ends of an interval in order, where they can be drawn.
pub(super) fn drawable_interval(interval: Option<(f64, f64)>) -> Option<(f64, f64)> {
    let (a, b) = interval?;
    let (a, b) = (drawable(a)?, drawable(b)?);
    Some((a.min(b), a.max(b)))
}

/// A range of values; `low < high` once it is [`widened`](Span::widened).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub low: f64,
    pub high: f64,
}

impl Span {
    /// The range of those that can be drawn; none where there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Span> {
        values.into_iter().filter_map(drawable).fold(None, |span, value| match span {
            None => Some(Span { low: value, high: value }),
            Some(Span { low, high }) => Some(Span { low: low.min(value), high: high.max(value) }),
        })
    }

    /// The range with another value in it.
    pub fn with(self, value: f64) -> Span {
        Span { low: self.low.min(value), high: self.high.max(value) }
    }

    /// The range with some width, also where all values are the same.
    pub fn widened(self) -> Span {
        let size = self.low.abs().max(self.high.abs());
        if self.high - self.low > size * SAME && self.high - self.low > 1.0 / LARGEST {
            return self;
        }
        let half = if size > 1.0 / LARGEST { size * 0.1 } else { 1.0 };
        Span { low: self.low - half, high: self.high + half }
    }

    /// The range with that share of its width added at both ends.
    pub fn padded(self, share: f64) -> Span {
        let more = (self.high - self.low) * share;
        Span { low: self.low - more, high: self.high + more }
    }

    /// The range with that share of its width added at the ends that are not zero, where bars have their feet.
    pub fn padded_from_zero(self, share: f64) -> Span {
        let padded = self.padded(share);
        let keep = |end: f64, padded: f64| if end == 0.0 { 0.0 } else { padded };
        Span { low: keep(self.low, padded.low), high: keep(self.high, padded.high) }
    }

    /// Exactly the range asked for, but for the ends beyond which there are values: those are as they are here.
    pub fn or_wanted(self, wanted: Option<(f64, f64)>, values: Span) -> Span {
        let Some((low, high)) = drawable_interval(wanted) else {
            return self;
        };
        Span {
            low: if values.low < low { self.low } else { low },
            high: if values.high > high { self.high } else { high },
        }
        .widened()
    }
}

/// Where values are: `start` is the pixel of the lowest, `end` that of the highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub span: Span,
    pub start: f32,
    pub end: f32,
}

impl Scale {
    /// A scale from left to right.
    pub fn across(span: Span, plot: Rect) -> Scale {
        Scale { span, start: plot.left as f32, end: plot.right() as f32 }
    }

    /// A scale from bottom to top.
    pub fn upwards(span: Span, plot: Rect) -> Scale {
        Scale { span, start: plot.bottom() as f32, end: plot.top as f32 }
    }

    /// The pixel of a value, or one far outside where the value is.
    pub fn place(&self, value: f64) -> f32 {
        let share = (value - self.span.low) / (self.span.high - self.span.low);
        (self.start + (self.end - self.start) * share as f32).clamp(-FARTHEST, FARTHEST)
    }
}

/// The values that an axis names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ticks {
    pub values: Vec<f64>,
    pub labels: Vec<String>,
}

impl Ticks {
    /// About `most` round values, two at least where the range has them.
    pub fn new(span: Span, most: usize) -> Ticks {
        let tries = most..=most + 4;
        tries.clone().map(|most| Ticks::exactly(span, most)).find(|ticks| ticks.values.len() > 1).unwrap_or_else(|| {
            let most = *tries.end();
            Ticks::exactly(span, most)
        })
    }

    /// The same with labels in percent, for shares.
    pub fn in_percent(span: Span, most: usize) -> Ticks {
        let shares = Ticks::new(Span { low: 100.0 * span.low, high: 100.0 * span.high }, most);
        let labels = shares.labels.iter().map(|label| format!("{label}\u{a0}%")).collect();
        Ticks { values: shares.values.iter().map(|percent| percent / 100.0).collect(), labels }
    }

    /// As many as can stand beside each other; whole numbers only, where fractions mean nothing.
    pub fn across(span: Span, pixels: i32, whole: bool) -> Ticks {
        let fitting = |most: &usize| {
            let ticks = Ticks::new(span, *most);
            let room = pixels as f32 * (Ticks::step(&ticks) / (span.high - span.low)) as f32;
            ticks.widest() + 0.7 * TICK_SIZE <= room
        };
        let most = (2..=8).rev().find(fitting).unwrap_or(2);
        let ticks = Ticks::new(span, most);
        if whole && Ticks::step(&ticks) < 1.0 { Ticks::whole(span) } else { ticks }
    }

    fn exactly(span: Span, most: usize) -> Ticks {
        let values = nice_ticks(span.low, span.high, most);
        let labels = tick_labels(&values, nice_step(span.high - span.low, most));
        Ticks { values, labels }
    }

    fn whole(span: Span) -> Ticks {
        let values = nice_ticks(span.low, span.high, 8);
        let values: Vec<f64> = values.into_iter().filter(|value| (value - value.round()).abs() < 1e-6).collect();
        let labels = tick_labels(&values, 1.0);
        Ticks { values, labels }
    }

    /// The distance between two ticks.
    fn step(&self) -> f64 {
        self.values.windows(2).next().map_or(f64::INFINITY, |pair| pair[1] - pair[0])
    }

    /// The width of the widest label in pixels.
    pub fn widest(&self) -> f32 {
        let style = TextStyle::new(TICK_SIZE, INK);
        self.labels.iter().map(|label| style.width(label)).fold(0.0, f32::max)
    }
}

/// How wide a plot may be: between what is left of it and the margin.
pub(super) fn right_of(left: i32) -> i32 {
    WIDTH as i32 - MARGIN - 24 - left
}

/// A plot with a value axis at its left.
pub(super) struct Panel {
    /// The inside of the frame.
    pub plot: Rect,
    /// Where values are.
    pub scale: Scale,
    ticks: Ticks,
    label: UprightLabel,
}

impl Panel {
    /// A plot as wide as the column allows, or `width` if that is less.
    pub fn new(top: i32, height: i32, width: Option<i32>, span: Span, label: &str) -> Panel {
        Panel::with(Ticks::new(span, most_ticks(height)), (top, height, width), span, label)
    }

    /// The same for shares: the axis is in percent.
    pub fn of_shares(top: i32, height: i32, width: Option<i32>, span: Span, label: &str) -> Panel {
        Panel::with(Ticks::in_percent(span, most_ticks(height)), (top, height, width), span, label)
    }

    fn with(ticks: Ticks, (top, height, width): (i32, i32, Option<i32>), span: Span, label: &str) -> Panel {
        let label = UprightLabel::new(label, height as f32 + 30.0);
        let left = MARGIN + label.thickness() + (TICK_GAP + 14.0 + ticks.widest()).ceil() as i32;
        let width = width.unwrap_or(i32::MAX).min(right_of(left)).max(1);
        let plot = Rect { left, top, width, height };
        Panel { plot, scale: Scale::upwards(span, plot), ticks, label }
    }

    /// Draws what is behind the data.
    pub fn draw_grid(&self, canvas: &mut Canvas) {
        for value in &self.ticks.values {
            let y = self.scale.place(*value).round() as i32;
            canvas.fill(Rect { top: y - 1, height: 2, ..self.plot }, GRID);
        }
    }

    /// Draws a line across the plot at a value.
    pub fn draw_level(&self, canvas: &mut Canvas, value: f64, height: i32) {
        let y = self.scale.place(value).round() as i32;
        canvas.fill(Rect { top: y - height / 2, height, ..self.plot }, INK);
    }

    /// Draws the frame, and the value axis with its label.
    pub fn draw_axis(&self, canvas: &mut Canvas) {
        canvas.frame(self.plot, INK, 3);
        let style = TextStyle::new(TICK_SIZE, INK).anchored(Anchor::End);
        for (value, label) in self.ticks.values.iter().zip(&self.ticks.labels) {
            let y = self.scale.place(*value).round() as i32;
            canvas.line((self.plot.left - 14, y), (self.plot.left - 3, y), INK, 3);
            canvas.text_centered(label, self.plot.left as f32 - TICK_GAP, y as f32, style);
        }
        self.label.draw(canvas, MARGIN as f32, self.plot.center().1 as f32);
    }
}

/// How many ticks a value axis of a height has room for.
fn most_ticks(height: i32) -> usize {
    (height / 105).clamp(3, 8) as usize
}

/// A numeric axis under a plot.
pub(super) struct AxisBelow {
    /// Where values are.
    pub scale: Scale,
    ticks: Ticks,
    label: Vec<String>,
}

impl AxisBelow {
    /// An axis under a plot; `whole` where only whole numbers mean something.
    pub fn new(span: Span, plot: Rect, label: &str, whole: bool) -> AxisBelow {
        let style = TextStyle::new(LABEL_SIZE, INK);
        let ticks = Ticks::across(span, plot.width, whole);
        let label = style.wrap_within(label, label_width(plot), 3);
        AxisBelow { scale: Scale::across(span, plot), ticks, label }
    }

    /// What ticks and label take under the plot, in pixels.
    pub fn height(&self) -> i32 {
        TICKS_HEIGHT + line_height(LABEL_SIZE, self.label.len())
    }

    /// Draws what is behind the data.
    pub fn draw_grid(&self, canvas: &mut Canvas, plot: Rect) {
        for value in &self.ticks.values {
            let x = self.scale.place(*value).round() as i32;
            canvas.fill(Rect { left: x - 1, width: 2, ..plot }, GRID);
        }
    }

    /// Draws ticks and label.
    pub fn draw(&self, canvas: &mut Canvas, plot: Rect) {
        for (value, label) in self.ticks.values.iter().zip(&self.ticks.labels) {
            draw_tick_below(canvas, plot, self.scale.place(*value), label);
        }
        draw_label_below(canvas, plot, &self.label, TICKS_HEIGHT);
    }
}

/// What ticks under a plot and their labels take, in pixels.
pub(super) const TICKS_HEIGHT: i32 = 68;

/// How wide a label under a plot may be: it is centred under it.
pub(super) fn label_width(plot: Rect) -> f32 {
    let center = plot.center().0;
    (2 * (center - MARGIN).min(WIDTH as i32 - MARGIN - center)) as f32
}

/// Draws one tick under a plot; its label is moved rather than written beyond the picture.
pub(super) fn draw_tick_below(canvas: &mut Canvas, plot: Rect, x: f32, label: &str) {
    let style = TextStyle::new(TICK_SIZE, INK).anchored(Anchor::Middle);
    let column = x.round() as i32;
    canvas.line((column, plot.bottom() + 3), (column, plot.bottom() + 14), INK, 3);
    let half = style.width(label) / 2.0;
    let x = x.clamp(half + 8.0, (WIDTH as f32 - half - 8.0).max(half + 8.0));
    canvas.text(label, x, plot.bottom() as f32 + 14.0 + 0.95 * TICK_SIZE, style);
}

/// Draws the lines of a label under a plot, `below` pixels from it.
pub(super) fn draw_label_below(canvas: &mut Canvas, plot: Rect, lines: &[String], below: i32) {
    let style = TextStyle::new(LABEL_SIZE, INK).anchored(Anchor::Middle);
    for (index, line) in lines.iter().enumerate() {
        let y = (plot.bottom() + below) as f32 + 0.95 * LABEL_SIZE + index as f32 * style.line_height();
        canvas.text(line, plot.center().0 as f32, y, style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_width_whatever_the_values() {
        for values in [vec![3.0], vec![0.0, 0.0], vec![1e-310], vec![-9e299], vec![5.0, 5.0 + 1e-12], vec![-2.0, 7.0]] {
            let span = Span::of(values.clone()).unwrap().widened();
            let scale = Scale { span, start: 0.0, end: 1000.0 };
            assert!(span.high > span.low, "{values:?}");
            assert!((0.0..=1000.0).contains(&scale.place(values[0])), "{values:?}");
        }
        assert_eq!(Span::of([f64::NAN, f64::INFINITY, -1e308]), None);
        assert_eq!(Span::of([f64::NAN, 1.0, -2.0]), Some(Span { low: -2.0, high: 1.0 }));
    }

    #[test]
    fn bars_keep_their_feet_on_the_axis() {
        assert_eq!(Span { low: 0.0, high: 10.0 }.padded_from_zero(0.1), Span { low: 0.0, high: 11.0 });
        assert_eq!(Span { low: -10.0, high: 0.0 }.padded_from_zero(0.1), Span { low: -11.0, high: 0.0 });
    }

    #[test]
    fn ticks_stand_apart_and_there_are_two_at_least() {
        let style = TextStyle::new(TICK_SIZE, INK);
        for (low, high) in [(0.0, 1.0), (-3e-7, 2e-7), (0.0, 123_456_789.0), (0.31, 0.34), (1e9, 1e9 + 3.0)] {
            let span = Span { low, high };
            let ticks = Ticks::across(span, 1000, false);
            assert!(ticks.values.len() >= 2, "{low}..{high}: {ticks:?}");
            let scale = Scale { span, start: 0.0, end: 1000.0 };
            for pair in ticks.values.windows(2) {
                assert!(scale.place(pair[1]) - scale.place(pair[0]) > style.width(&ticks.labels[0]), "{ticks:?}");
            }
        }
    }

    #[test]
    fn an_axis_of_shares_is_in_percent() {
        let ticks = Ticks::in_percent(Span { low: -0.01, high: 1.0 }, 5);
        assert_eq!(ticks.labels, ["0", "50", "100"].map(|label| format!("{label}\u{a0}%")));
        assert!((ticks.values[1] - 0.5).abs() < 1e-12);
        assert_eq!(Ticks::in_percent(Span { low: 0.0, high: 0.031 }, 4).labels.last().unwrap(), "3\u{a0}%");
    }

    #[test]
    fn layers_have_whole_ticks() {
        assert_eq!(Ticks::across(Span { low: -0.1, high: 2.1 }, 1000, true).labels, ["0", "1", "2"]);
        assert_eq!(Ticks::across(Span { low: -0.1, high: 0.1 }, 1000, true).labels, ["0"]);
    }

    #[test]
    fn intervals_are_put_in_order_and_dropped_without_ends() {
        assert_eq!(drawable_interval(Some((2.0, 1.0))), Some((1.0, 2.0)));
        assert_eq!(drawable_interval(Some((2.0, f64::NAN))), None);
        assert_eq!(drawable_interval(Some((f64::NEG_INFINITY, 1.0))), None);
    }
}
