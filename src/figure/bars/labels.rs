//! The names under bars: beside each other where they fit, else reading upwards; numbers are thinned out instead.

use super::super::axis::{TICKS_HEIGHT, draw_label_below, draw_tick_below, label_width};
use super::super::canvas::{Canvas, Rect};
use super::super::parts::line_height;
use super::super::style::{INK, LABEL_SIZE, TICK_SIZE, index_step};
use super::super::text::{Anchor, TextStyle};

const MOST_LINES: usize = 3;
const LONGEST: f32 = 420.0;
/// From one upright line to the next.
const UPRIGHT_PITCH: f32 = 1.15 * TICK_SIZE;

/// Categories under a plot.
pub(super) struct CategoryAxis {
    names: Names,
    label: Vec<String>,
    pitch: f32,
}

#[derive(Debug, PartialEq)]
enum Names {
    /// All of them, broken into lines.
    Beside(Vec<Vec<String>>),
    /// Every so many, upright, broken into lines.
    Upright(Vec<Vec<String>>, usize),
    /// Every so many, each in one line.
    Thinned(Vec<String>, usize),
}

impl CategoryAxis {
    pub fn new(categories: &[String], plot: Rect, label: &str) -> CategoryAxis {
        let pitch = plot.width as f32 / categories.len() as f32;
        let label = match label.trim() {
            "" => Vec::new(),
            label => TextStyle::new(LABEL_SIZE, INK).wrap_within(label, label_width(plot), MOST_LINES),
        };
        CategoryAxis { names: Names::new(categories, pitch), label, pitch }
    }

    /// What names and label take under the plot.
    pub fn height(&self) -> i32 {
        self.names.height() + line_height(LABEL_SIZE, self.label.len())
    }

    pub fn draw(&self, canvas: &mut Canvas, plot: Rect) {
        let x = |index: usize| plot.left as f32 + (index as f32 + 0.5) * self.pitch;
        let style = TextStyle::new(TICK_SIZE, INK);
        match &self.names {
            Names::Beside(names) => {
                let style = style.anchored(Anchor::Middle);
                for (index, lines) in names.iter().enumerate() {
                    for (below, line) in lines.iter().enumerate() {
                        let y = plot.bottom() as f32 + 10.0 + 0.95 * TICK_SIZE + below as f32 * style.line_height();
                        canvas.text(line, x(index), y, style);
                    }
                }
            }
            Names::Upright(names, step) => {
                let style = style.anchored(Anchor::End).upwards();
                for (index, lines) in names.iter().enumerate().step_by(*step) {
                    for (line, text) in lines.iter().enumerate() {
                        let beside = (line as f32 - (lines.len() - 1) as f32 / 2.0) * UPRIGHT_PITCH;
                        canvas.text_centered(text, x(index) + beside, plot.bottom() as f32 + 16.0, style);
                    }
                }
            }
            Names::Thinned(names, step) => {
                for (index, name) in names.iter().enumerate().step_by(*step) {
                    draw_tick_below(canvas, plot, x(index), name);
                }
            }
        }
        draw_label_below(canvas, plot, &self.label, self.names.height());
    }
}

impl Names {
    fn new(names: &[String], pitch: f32) -> Names {
        let style = TextStyle::new(TICK_SIZE, INK);
        let room = pitch - 16.0;
        let fits = |name: &String| {
            let lines = style.wrap(name, room);
            lines.len() <= MOST_LINES && lines.iter().all(|line| style.width(line) <= room)
        };
        if names.iter().all(fits) {
            return Names::Beside(names.iter().map(|name| style.wrap_within(name, room, MOST_LINES)).collect());
        }
        if are_numbered(names) {
            let names: Vec<String> = style.shorten_all(names, LONGEST);
            let widest = names.iter().map(|name| style.width(name)).fold(0.0, f32::max);
            let step = index_step(pitch, widest + 0.5 * TICK_SIZE);
            return Names::Thinned(names, step);
        }
        let lines = ((pitch / UPRIGHT_PITCH) as usize).clamp(1, MOST_LINES);
        let fits = |name: &String| style.wrap(name, LONGEST).iter().all(|line| style.width(line) <= LONGEST);
        // Words are broken into lines; one long name is shortened, and stays one.
        let names = match names.iter().all(fits) {
            true => names.iter().map(|name| style.wrap_within(name, LONGEST, lines)).collect(),
            false => style.shorten_all(names, LONGEST).into_iter().map(|name| vec![name]).collect(),
        };
        Names::Upright(names, index_step(pitch, UPRIGHT_PITCH))
    }

    fn height(&self) -> i32 {
        let style = TextStyle::new(TICK_SIZE, INK);
        match self {
            Names::Beside(names) => {
                let lines = names.iter().map(Vec::len).max().unwrap_or(0);
                14 + line_height(TICK_SIZE, lines)
            }
            Names::Upright(names, _) => {
                names.iter().flatten().map(|line| style.width(line)).fold(0.0, f32::max).ceil() as i32 + 26
            }
            Names::Thinned(..) => TICKS_HEIGHT,
        }
    }
}

/// Whether names are one word with different numbers, so that those between can be left out.
fn are_numbered(names: &[String]) -> bool {
    let word = |name: &String| name.trim_end_matches(|letter: char| letter.is_ascii_digit()).to_owned();
    let first = names.first().map(word);
    names.iter().all(|name| Some(word(name)) == first && name.ends_with(|letter: char| letter.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: impl Fn(usize) -> String, count: usize, pitch: f32) -> Names {
        Names::new(&(0..count).map(of).collect::<Vec<_>>(), pitch)
    }

    #[test]
    fn layers_are_thinned_out_and_concepts_stand_upright() {
        assert!(matches!(names(|layer| layer.to_string(), 12, 120.0), Names::Beside(_)));
        assert!(matches!(names(|layer| layer.to_string(), 80, 18.0), Names::Thinned(_, 5)));
        assert!(matches!(names(|layer| format!("L{layer}"), 30, 48.0), Names::Thinned(_, 2 | 5)));
        assert!(matches!(names(|index| format!("concept {index} of harm"), 20, 70.0), Names::Upright(_, 1)));
    }

    #[test]
    fn long_names_are_broken_where_there_is_room() {
        let Names::Beside(lines) = names(|_| "violent extremism".into(), 3, 250.0) else { panic!("not beside") };
        assert_eq!(lines[0], ["violent", "extremism"]);
    }

    #[test]
    fn an_endless_name_is_cut() {
        let axis = names(|_| "endless".repeat(50), 10, 140.0);
        assert!(axis.height() < 480 && matches!(axis, Names::Upright(_, 1)));
    }
}
