//! Vertical lines with their labels over the plot, like flags: to the right of the line, or to its left where there is
//! no room. Between plot and labels stand their intervals.

use super::super::axis::{Scale, drawable, drawable_interval};
use super::super::canvas::{Canvas, Rect};
use super::super::parts::line_height;
use super::super::style::{INK, PAPER, TICK_SIZE};
use super::super::text::TextStyle;
use super::Threshold;

const LINE_WIDTH: i32 = 4;
/// What an interval takes over the plot, where it meets no other.
pub(super) const INTERVAL_HEIGHT: i32 = 28;
/// Between a line and its label, and between labels.
const GAP: f32 = 14.0;
/// The white ground of a label reaches so far beyond its text.
const GROUND: f32 = 4.0;

/// The thresholds of a plot.
pub(super) struct Flags {
    flags: Vec<Flag>,
}

struct Flag {
    x: f32,
    interval: Option<Ends>,
    label: String,
    /// Where the label starts and ends.
    from: f32,
    to: f32,
    /// The line over the plot that the label stands in, from 0 at the bottom.
    lane: usize,
}

/// An interval over a plot, in pixels.
#[derive(Clone, Copy)]
struct Ends {
    low: f32,
    high: f32,
    /// Whether either end is beyond the plot.
    beyond: (bool, bool),
    /// The line over the plot that it stands in, from 0 at the bottom.
    lane: usize,
}

impl Flags {
    /// Places those that are somewhere, each as low as the others leave room.
    pub fn new(thresholds: &[Threshold], scale: Scale, plot: Rect) -> Flags {
        let style = TextStyle::new(TICK_SIZE, INK);
        let places: Vec<f32> = thresholds.iter().filter_map(|t| drawable(t.x)).map(|x| scale.place(x)).collect();
        let mut left: Vec<Flag> =
            thresholds.iter().filter_map(|threshold| flag(threshold, scale, plot, style, &places)).collect();
        left.sort_by(|a, b| b.x.total_cmp(&a.x));
        let mut flags: Vec<Flag> = Vec::new();
        // Lines end at their labels: first those whose labels are in no other line's way up.
        while !left.is_empty() {
            let free = |one: &Flag| left.iter().all(|other| other.x == one.x || !one.is_over(other.x));
            let next = left.iter().position(free).unwrap_or(0);
            let mut one = left.remove(next);
            let below = flags.iter().filter(|other| one.meets(other) || one.is_over(other.x));
            one.lane = below.map(|other| other.lane + 1).max().unwrap_or(0);
            flags.push(one);
        }
        stack(&mut flags);
        Flags { flags }
    }

    /// What labels and intervals take over the plot.
    pub fn height(&self) -> i32 {
        let lanes = self.flags.iter().map(|flag| flag.lane + 1).max().unwrap_or(0);
        line_height(TICK_SIZE, lanes) + self.intervals_height()
    }

    fn intervals_height(&self) -> i32 {
        let lanes = self.flags.iter().filter_map(|flag| flag.interval).map(|ends| ends.lane as i32 + 1);
        lanes.max().unwrap_or(0) * INTERVAL_HEIGHT
    }

    /// Draws the intervals: lines with a short bar across at the ends that are within the plot.
    fn draw_intervals(&self, canvas: &mut Canvas, plot: Rect) {
        for ends in self.flags.iter().filter_map(|flag| flag.interval) {
            let y = plot.top as f32 - (ends.lane as f32 + 0.5) * INTERVAL_HEIGHT as f32;
            canvas.stroke((ends.low, y), (ends.high, y), INK, 4.0);
            for (x, beyond) in [(ends.low, ends.beyond.0), (ends.high, ends.beyond.1)] {
                if !beyond {
                    canvas.stroke((x, y - 8.0), (x, y + 8.0), INK, 4.0);
                }
            }
        }
    }

    /// Draws the lines through the plot.
    pub fn draw_lines(&self, canvas: &mut Canvas, plot: Rect) {
        for flag in &self.flags {
            let left = flag.x.round() as i32 - LINE_WIDTH / 2;
            canvas.fill(Rect { left, width: LINE_WIDTH, ..plot }, INK);
        }
    }

    /// Draws the labels with the lines' ends beside them, and the intervals.
    pub fn draw_labels(&self, canvas: &mut Canvas, plot: Rect) {
        let over = (plot.top - self.intervals_height()) as f32;
        let style = TextStyle::new(TICK_SIZE, INK);
        let line = style.line_height();
        let bottom_of = |flag: &Flag| over - flag.lane as f32 * line;
        for flag in &self.flags {
            let left = flag.x.round() as i32 - LINE_WIDTH / 2;
            // Beside its own label, but not through one that has room on neither side.
            let beside = if flag.is_over(flag.x) { 0.0 } else { line * 0.85 };
            let top = (bottom_of(flag) - beside).round() as i32;
            canvas.fill(Rect { left, top, width: LINE_WIDTH, height: plot.top - top }, INK);
        }
        for flag in &self.flags {
            let (top, bottom) = ((bottom_of(flag) - line) as i32, bottom_of(flag) as i32 - 4);
            let (left, width) = ((flag.from - GROUND) as i32, (flag.to - flag.from + 2.0 * GROUND) as i32);
            canvas.fill(Rect { left, top, width, height: bottom - top }, PAPER);
            canvas.text_centered(&flag.label, flag.from, bottom_of(flag) - line / 2.0, style);
        }
        self.draw_intervals(canvas, plot);
    }
}

impl Flag {
    /// Whether its label and another one's would meet in one lane.
    fn meets(&self, other: &Flag) -> bool {
        other.from < self.to + GAP && self.from < other.to + GAP
    }

    /// Whether its label, with the ground that it stands on, is over a line at a place.
    fn is_over(&self, x: f32) -> bool {
        let reach = GROUND + LINE_WIDTH as f32 / 2.0;
        self.from - reach < x && x < self.to + reach
    }
}

/// Gives the intervals lines of their own where they would meet.
fn stack(flags: &mut [Flag]) {
    let mut placed: Vec<Ends> = Vec::new();
    for ends in flags.iter_mut().filter_map(|flag| flag.interval.as_mut()) {
        let meets = |other: &&Ends| other.low < ends.high + GAP && ends.low < other.high + GAP;
        ends.lane = placed.iter().filter(meets).map(|other| other.lane + 1).max().unwrap_or(0);
        placed.push(*ends);
    }
}

/// A threshold with its label on that side of its line where it hides none of the lines at `places`, if there is one.
fn flag(threshold: &Threshold, scale: Scale, plot: Rect, style: TextStyle, places: &[f32]) -> Option<Flag> {
    let x = scale.place(drawable(threshold.x)?);
    let label = style.shorten(&threshold.label, plot.width as f32);
    let width = style.width(&label);
    let (left, right) = (plot.left as f32, plot.right() as f32);
    let beside = [x + GAP, x - GAP - width].into_iter().filter(|from| *from >= left && from + width <= right);
    let at = |from: f32| Flag { x, interval: None, label: label.clone(), from, to: from + width, lane: 0 };
    let hides = |flag: &Flag| places.iter().any(|place| *place != x && flag.is_over(*place));
    let sides: Vec<Flag> = beside.chain([(x - width / 2.0).clamp(left, right - width)]).map(at).collect();
    let free = sides.iter().position(|flag| !hides(flag) && !flag.is_over(x)).unwrap_or(0);
    let inside = |x: f32| x.clamp(left, right);
    let ends = drawable_interval(threshold.interval).map(|(low, high)| {
        let (low, high) = (scale.place(low), scale.place(high));
        Ends { low: inside(low), high: inside(high), beyond: (low < left, high > right), lane: 0 }
    });
    sides.into_iter().nth(free).map(|flag| Flag { interval: ends, ..flag })
}

#[cfg(test)]
mod tests {
    use super::super::super::axis::Span;
    use super::*;

    const PLOT: Rect = Rect { left: 200, top: 300, width: 1400, height: 800 };

    fn flags(places: &[f64]) -> Flags {
        let one = |x: &f64| Threshold { x: *x, label: "half of the answers refuse".into(), interval: None };
        let scale = Scale::across(Span { low: 0.0, high: 10.0 }, PLOT);
        Flags::new(&places.iter().map(one).collect::<Vec<_>>(), scale, PLOT)
    }

    #[test]
    fn labels_share_a_line_only_where_they_do_not_meet() {
        let lanes = |places: &[f64]| flags(places).flags.iter().map(|flag| flag.lane).collect::<Vec<_>>();
        assert_eq!(lanes(&[1.0, 6.0]), [0, 0]);
        assert_eq!(lanes(&[1.0, 2.0, 6.0]), [0, 0, 1]);
        assert_eq!(lanes(&[2.0, 2.0, 2.0]), [0, 1, 2]);
        // Both stand to the left of their lines: the one further right must be over the other's line.
        assert_eq!(lanes(&[9.0, 9.9]), [0, 1]);
    }

    #[test]
    fn a_label_hides_no_part_of_another_ones_line() {
        let one = &flags(&[2.0]).flags[0];
        let at = |pixel: f32| f64::from((pixel - 200.0) / 140.0);
        for beside in [-5.0, -1.0, 1.0, 5.0] {
            let two = flags(&[2.0, at(one.to + beside)]).flags;
            let label = two.iter().find(|flag| flag.x == one.x).unwrap();
            assert!(label.lane > 0, "its line is hidden {beside} pixels beside the label");
        }
        let apart = flags(&[2.0, at(one.to + 30.0)]).flags;
        assert!(apart.iter().all(|flag| flag.lane == 0));
    }

    #[test]
    fn a_label_stands_on_the_side_where_it_hides_no_other_line() {
        // To the right of the first there is the second; to the left there is room.
        for places in [[5.0, 6.0], [4.6, 5.9]] {
            let flags = flags(&places).flags;
            let hidden = flags.iter().any(|one| flags.iter().any(|two| one.x != two.x && one.is_over(two.x)));
            assert!(!hidden && flags.iter().all(|flag| flag.lane == 0), "{places:?}");
        }
    }

    #[test]
    fn intervals_that_meet_stand_over_each_other() {
        let one = |x: f64, low, high| Threshold { x, label: "half".into(), interval: Some((low, high)) };
        let scale = Scale::across(Span { low: 0.0, high: 10.0 }, PLOT);
        let lanes = |thresholds: &[Threshold]| {
            let flags = Flags::new(thresholds, scale, PLOT);
            let mut lanes: Vec<usize> = flags.flags.iter().filter_map(|flag| flag.interval).map(|i| i.lane).collect();
            lanes.sort_unstable();
            (lanes, flags.intervals_height() / INTERVAL_HEIGHT)
        };
        assert_eq!(lanes(&[one(2.0, 1.0, 3.0), one(3.5, 3.0, 5.0)]), (vec![0, 1], 2));
        assert_eq!(lanes(&[one(2.0, 1.0, 3.0), one(8.0, 7.0, 99.0)]), (vec![0, 0], 1));
        assert_eq!(lanes(&[]), (vec![], 0));
    }

    #[test]
    fn labels_stay_within_the_plot_and_nowhere_has_none() {
        for places in [[0.0, 10.0], [9.0, 9.9], [5.0, 5.0]] {
            for flag in &flags(&places).flags {
                assert!(flag.from >= 200.0 && flag.to <= 1600.0);
            }
        }
        assert!(flags(&[f64::NAN]).flags.is_empty());
    }
}
