//! What figures of every kind have around their plots: a heading, a legend, and labels that read upwards.

use super::canvas::{Canvas, Rect, WIDTH};
use super::style::{FAINT_INK, INK, LABEL_SIZE, TICK_SIZE, TITLE_SIZE};
use super::text::{Anchor, TextStyle};

/// What stays white at every side.
pub(super) const MARGIN: i32 = 24;
/// A title or subtitle of more lines is cut.
const MOST_LINES: usize = 6;
/// From a legend's sign to what it means.
const SIGN_GAP: f32 = 14.0;
/// Between two entries of a legend.
const ENTRY_GAP: f32 = 50.0;

/// The width that text over or under a plot may take.
pub(super) fn text_width() -> f32 {
    (WIDTH as i32 - 2 * MARGIN) as f32
}

/// The height of so many lines of text of a size.
pub(super) fn line_height(size: f32, lines: usize) -> i32 {
    (size * 1.25 * lines as f32).ceil() as i32
}

/// Title and subtitle, broken into lines.
pub(super) struct Heading {
    title: Vec<String>,
    subtitle: Vec<String>,
}

impl Heading {
    /// Breaks both into lines of the picture's width.
    pub fn new(title: &str, subtitle: &str) -> Heading {
        let lines = |style: TextStyle, text: &str| match text.trim() {
            "" => Vec::new(),
            text => style.wrap_within(text, text_width(), MOST_LINES),
        };
        Heading { title: lines(title_style(), title), subtitle: lines(faint_style(), subtitle) }
    }

    /// What it takes at the top of the picture, with the margin and a gap below.
    pub fn height(&self) -> i32 {
        MARGIN + line_height(TITLE_SIZE, self.title.len()) + line_height(TICK_SIZE, self.subtitle.len()) + 28
    }

    /// Draws it at the top of the picture.
    pub fn draw(&self, canvas: &mut Canvas) {
        let mut y = MARGIN as f32;
        for (lines, style) in [(&self.title, title_style()), (&self.subtitle, faint_style())] {
            for line in lines {
                canvas.text(line, MARGIN as f32, y + 0.93 * style.size, style);
                y += style.line_height();
            }
        }
    }
}

fn title_style() -> TextStyle {
    TextStyle::new(TITLE_SIZE, INK).bold()
}

fn faint_style() -> TextStyle {
    TextStyle::new(TICK_SIZE, FAINT_INK)
}

/// Signs with their meanings, in as many lines as they need.
pub(super) struct Legend<S> {
    lines: Vec<Vec<Entry<S>>>,
}

struct Entry<S> {
    sign: S,
    sign_width: i32,
    meaning: Vec<String>,
    width: f32,
}

impl<S> Legend<S> {
    /// Puts the entries into lines in their order; `sign_width` says how many pixels a sign is wide.
    pub fn new(entries: impl IntoIterator<Item = (S, String)>, sign_width: impl Fn(&S) -> i32) -> Legend<S> {
        let style = TextStyle::new(TICK_SIZE, INK);
        let mut lines: Vec<Vec<Entry<S>>> = Vec::new();
        let mut used = f32::INFINITY;
        for (sign, meaning) in entries {
            let sign_width = sign_width(&sign);
            let beside = sign_width as f32 + SIGN_GAP;
            let meaning = style.wrap_within(&meaning, text_width() - beside, MOST_LINES);
            let widest = meaning.iter().map(|line| style.width(line)).fold(0.0, f32::max);
            let entry = Entry { sign, sign_width, meaning, width: beside + widest };
            if used + entry.width > text_width() {
                lines.push(Vec::new());
                used = 0.0;
            }
            used += entry.width + ENTRY_GAP;
            if let Some(line) = lines.last_mut() {
                line.push(entry);
            }
        }
        Legend { lines }
    }

    /// How many lines of text it has.
    pub fn line_count(&self) -> usize {
        self.lines.iter().map(|line| lines_in(line)).sum()
    }

    /// The height of its lines.
    pub fn height(&self) -> i32 {
        line_height(TICK_SIZE, self.line_count())
    }

    /// Draws it from `top` on; `sign` draws a sign into a rectangle one line of text high.
    pub fn draw(&self, canvas: &mut Canvas, top: i32, mut sign: impl FnMut(&mut Canvas, Rect, &S)) {
        let style = TextStyle::new(TICK_SIZE, INK);
        let mut y = top as f32 + 0.5 * style.line_height();
        for line in &self.lines {
            let mut x = MARGIN as f32;
            for entry in line {
                let place = Rect { left: x as i32, top: y as i32 - 21, width: entry.sign_width, height: 42 };
                sign(canvas, place, &entry.sign);
                for (index, text) in entry.meaning.iter().enumerate() {
                    let below = index as f32 * style.line_height();
                    canvas.text_centered(text, x + entry.sign_width as f32 + SIGN_GAP, y + below, style);
                }
                x += entry.width + ENTRY_GAP;
            }
            y += lines_in(line) as f32 * style.line_height();
        }
    }
}

fn lines_in<S>(line: &[Entry<S>]) -> usize {
    line.iter().map(|entry| entry.meaning.len()).max().unwrap_or(0)
}

/// A label that reads from bottom to top: in two lines, then smaller, rather than longer than its room.
pub(super) struct UprightLabel {
    style: TextStyle,
    lines: Vec<String>,
}

impl UprightLabel {
    /// Fits a label into a room of that length.
    pub fn new(text: &str, room: f32) -> UprightLabel {
        let style = TextStyle::new(LABEL_SIZE, INK).anchored(Anchor::Middle).upwards();
        let sizes = (0..6).map(|smaller| LABEL_SIZE * (1.0 - 0.1 * smaller as f32));
        let fitting = sizes.map(|size| TextStyle { size, ..style }).find_map(|style| {
            let lines = style.wrap(text, room);
            (lines.len() <= 2 && lines.iter().all(|line| style.width(line) <= room)).then_some((style, lines))
        });
        let smallest = TextStyle { size: LABEL_SIZE * 0.5, ..style };
        let (style, lines) = fitting.unwrap_or_else(|| (smallest, smallest.wrap_within(text, room, 2)));
        UprightLabel { style, lines }
    }

    /// How many pixels it takes across its lines.
    pub fn thickness(&self) -> i32 {
        (self.style.line_height() * self.lines.len() as f32).ceil() as i32
    }

    /// Draws it to the right of `left`, its middle at the height `y`.
    pub fn draw(&self, canvas: &mut Canvas, left: f32, y: f32) {
        for (index, line) in self.lines.iter().enumerate() {
            let x = left + (index as f32 + 0.5) * self.style.line_height();
            canvas.text_centered(line, x, y, self.style);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legend_entries_flow_into_lines_and_long_ones_are_broken() {
        let short = |count: usize| Legend::new((0..count).map(|_| ((), "necessity".to_owned())), |()| 50);
        assert_eq!([short(0), short(3), short(12)].map(|legend| legend.line_count()), [0, 1, 3]);
        let long = Legend::new([((), "a meaning that is told at length ".repeat(5)), ((), "short".into())], |()| 50);
        assert_eq!((long.lines.len(), long.line_count()), (2, 4));
    }

    #[test]
    fn a_long_upright_label_gets_smaller_rather_than_longer() {
        let short = UprightLabel::new("layer", 400.0);
        let long = UprightLabel::new("effect of the head on the logit difference in the edited run", 500.0);
        let unbreakable = UprightLabel::new(&"x".repeat(300), 400.0);
        assert_eq!((short.style.size, short.lines.len()), (LABEL_SIZE, 1));
        assert!(long.style.size < LABEL_SIZE && long.lines.len() == 2);
        for (label, room) in [(&long, 500.0), (&unbreakable, 400.0)] {
            assert!(label.lines.iter().all(|line| label.style.width(line) <= room));
        }
    }

    #[test]
    fn a_heading_grows_with_its_lines_and_nothing_takes_no_line() {
        let height = |title: &str, subtitle: &str| Heading::new(title, subtitle).height();
        assert!(height("", "") < height("title", "") && height("title", "") < height("title", "subtitle"));
        let endless = "word ".repeat(5000);
        assert_eq!(height(&endless, ""), height("", "") + line_height(TITLE_SIZE, MOST_LINES));
    }
}
