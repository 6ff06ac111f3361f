//! Shapes as SVG that every program shows alike: attributes alone, no style sheet, no pattern, nothing that is referred to.
//!
//! What is not data has the class of its [role](super::style::Color::role), by which a page gives it a colour of its own. Text
//! stays text, as wide as it was laid out whatever font a reader has. Tips are titles of shapes without a colour. The parts of a
//! graph are groups with a title: nodes say their number, edges those of their nodes and their rank.

use std::fmt::Write;

use super::canvas::{Part, Rect, Shape, Weave, WeaveKind};
use super::style::{Color, PAPER};
use super::text::{Anchor, TextStyle};
use crate::markup::escape;

/// What the files of this module begin with.
pub(crate) const OPENING: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" ";

/// A viewer's fonts, the nearest to the bundled one first; the others are squeezed into its widths.
const FONTS: &str = "DejaVu Sans Condensed, DejaVu Sans, Verdana, Noto Sans, sans-serif";

/// The picture of so many pixels with shapes, and with tips over them.
pub(super) fn write(width: u32, height: u32, shapes: &[Shape], tips: &[(Rect, String)]) -> String {
    let per_mm = super::canvas::PIXELS_PER_MM as f32;
    let (across, down) = (number(width as f32 / per_mm), number(height as f32 / per_mm));
    let mut file = Writer { out: String::new(), open: None, plain: false };
    push(
        &mut file.out,
        format_args!(
            "{OPENING}class=\"plot\" viewBox=\"0 0 {width} {height}\" width=\"{across}mm\" height=\"{down}mm\" \
             font-family=\"{FONTS}\">\n<rect class=\"ground\" width=\"{width}\" height=\"{height}\" fill=\"{}\"/>\n",
            PAPER.hex()
        ),
    );
    shapes.iter().for_each(|shape| file.draw(shape));
    file.close();
    if !tips.is_empty() {
        file.out.push_str("<g class=\"tips\" fill=\"none\" pointer-events=\"all\">\n");
        for (place, text) in tips {
            let (place, text) = (square(*place), escape(text));
            push(&mut file.out, format_args!("<path d=\"{place}\"><title>{text}</title></path>\n"));
        }
        file.out.push_str("</g>\n");
    }
    file.out.push_str("</svg>\n");
    file.out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
}

struct Writer {
    out: String,
    /// The attributes and the outlines of the path that shapes of the same look are still added to.
    open: Option<(String, String)>,
    /// Whether colours are as they are, without roles.
    plain: bool,
}

impl Writer {
    fn draw(&mut self, shape: &Shape) {
        match shape {
            Shape::Fill(rect, color) => self.add(self.filled(*color), &square(*rect)),
            Shape::Stripes(rect, color, weave) => self.add(self.filled(*color), &stripes(*rect, *weave)),
            Shape::Disc { center, radius, color } => self.add(self.filled(*color), &circle(*center, *radius)),
            Shape::Line { points, color, width, dash } => self.line(points, *color, *width, dash),
            Shape::Polygon(corners, color) => self.alone(self.filled(*color), &outline(corners)),
            Shape::Band { edges, color, opacity } => {
                let upper = edges.iter().map(|(x, upper, _)| (*x, *upper));
                let lower = edges.iter().rev().map(|(x, _, lower)| (*x, *lower));
                let look = format!("{} fill-opacity=\"{opacity}\"", self.filled(*color));
                self.alone(look, &outline(&upper.chain(lower).collect::<Vec<_>>()));
            }
            Shape::Text(text, place, style) => self.text(text, *place, style),
            Shape::Scale(cells) => {
                self.close();
                self.out.push_str("<g class=\"scale\" shape-rendering=\"crispEdges\">\n");
                self.plain = true;
                cells.iter().for_each(|cell| self.draw(cell));
                self.plain = false;
                self.close();
                self.out.push_str("</g>\n");
            }
            Shape::Part { part, title, shapes } => {
                self.close();
                push(&mut self.out, format_args!("<g {}><title>{}</title>\n", named(*part), escape(title)));
                shapes.iter().for_each(|shape| self.draw(shape));
                self.close();
                self.out.push_str("</g>\n");
            }
        }
    }

    /// `class="ink" fill="#1a1a1a"`.
    fn filled(&self, color: Color) -> String {
        match color.role().filter(|_| !self.plain) {
            Some(role) => format!("class=\"{role}\" fill=\"{}\"", color.hex()),
            None => format!("fill=\"{}\"", color.hex()),
        }
    }

    /// Adds an outline to the path of its look, or begins one.
    fn add(&mut self, look: String, outline: &str) {
        match &mut self.open {
            Some((open, outlines)) if *open == look => outlines.push_str(outline),
            _ => {
                self.close();
                self.open = Some((look, outline.to_owned()));
            }
        }
    }

    /// A path of its own: where outlines of one path overlap, they may cancel each other.
    fn alone(&mut self, look: String, outline: &str) {
        self.close();
        self.open = Some((look, outline.to_owned()));
        self.close();
    }

    fn close(&mut self) {
        if let Some((look, outlines)) = self.open.take().filter(|(_, outlines)| !outlines.is_empty()) {
            push(&mut self.out, format_args!("<path {look} d=\"{outlines}\"/>\n"));
        }
    }

    fn line(&mut self, points: &[(f32, f32)], color: Color, width: f32, dash: &[f32]) {
        let (class, mut dashes) = (color.role().filter(|_| !self.plain), String::new());
        if !dash.is_empty() {
            let lengths: Vec<String> = dash.iter().map(|length| number(*length)).collect();
            dashes = format!(" stroke-dasharray=\"{}\"", lengths.join(" "));
        }
        let class = class.map_or(String::new(), |role| format!("class=\"{role}-line\" "));
        let look = format!(
            "{class}fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linecap=\"round\" stroke-linejoin=\"round\"{dashes}",
            color.hex(),
            number(width)
        );
        self.add(look, &through(points));
    }

    fn text(&mut self, text: &str, (x, y): (f32, f32), style: &TextStyle) {
        self.close();
        let look = self.filled(style.color);
        let (x, y) = (number(x.round()), number(y.round()));
        let anchor = match style.anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let bold = if style.bold { " font-weight=\"bold\"" } else { "" };
        let turned = if style.upwards { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
        // A single letter has nothing to be squeezed.
        let length = match text.chars().nth(1) {
            Some(_) => format!(" textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\"", number(style.width(text))),
            None => String::new(),
        };
        let (size, text) = (number(style.size), escape(text));
        push(
            &mut self.out,
            format_args!(
                "<text {look} x=\"{x}\" y=\"{y}\" font-size=\"{size}\"{bold}{anchor}{length}{turned}>{text}</text>\n"
            ),
        );
    }
}

/// The attributes by which a page finds a part.
fn named(part: Part) -> String {
    match part {
        Part::Node(node) => format!("class=\"node\" data-node=\"{node}\""),
        Part::Edge { from, to, rank } => {
            format!("class=\"edge\" data-from=\"{from}\" data-to=\"{to}\" data-rank=\"{rank}\"")
        }
    }
}

/// A number with one digit behind the point, where it has one.
fn number(x: f32) -> String {
    let text = format!("{x:.1}");
    let text = text.strip_suffix(".0").map(str::to_owned).unwrap_or(text);
    if text == "-0" { "0".to_owned() } else { text }
}

fn square(Rect { left, top, width, height }: Rect) -> String {
    format!("M{left} {top}h{width}v{height}h-{width}z")
}

/// The way round a circle, in the same direction as round a rectangle.
fn circle((x, y): (f32, f32), radius: f32) -> String {
    if radius.is_nan() || radius <= 0.0 || !x.is_finite() || !y.is_finite() {
        return String::new();
    }
    let (left, y, r, across) = (number(x - radius), number(y), number(radius), number(2.0 * radius));
    format!("M{left} {y}a{r} {r} 0 1 1 {across} 0a{r} {r} 0 1 1 -{across} 0z")
}

/// The line through points that are somewhere.
fn through(points: &[(f32, f32)]) -> String {
    let there = points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
    let places = there.enumerate().map(|(index, (x, y))| {
        let step = if index == 0 { "M" } else { "L" };
        format!("{step}{} {}", number(*x), number(*y))
    });
    places.collect()
}

fn outline(corners: &[(f32, f32)]) -> String {
    let line = through(corners);
    if line.is_empty() { line } else { line + "z" }
}

/// The outlines of a rectangle's stripes, cut off at its sides.
fn stripes(rect: Rect, weave: Weave) -> String {
    let Rect { left, top, width, height } = rect;
    let (period, thick) = (weave.period.max(1), weave.width);
    // Where stripes begin, along a direction, so that the first one reaches into the range.
    let starts = |from: i32, to: i32| ((from - thick).div_euclid(period) * period..to).step_by(period as usize);
    let across = |start: i32, from: i32, to: i32| (start.max(from), (start + thick).min(to));
    match weave.kind {
        WeaveKind::Level | WeaveKind::Dots => {
            let rows = starts(top, rect.bottom()).map(|start| across(start, top, rect.bottom()));
            let rows = rows.filter(|(from, to)| from < to);
            let columns: Vec<(i32, i32)> = match weave.kind {
                WeaveKind::Dots => starts(left, rect.right()).map(|x| across(x, left, rect.right())).collect(),
                _ => vec![(left, rect.right())],
            };
            let of_row = |(from, to): (i32, i32)| {
                let columns = columns.iter().filter(|(left, right)| left < right);
                let one = |(left, right): &(i32, i32)| {
                    square(Rect { left: *left, top: from, width: right - left, height: to - from })
                };
                columns.map(one).collect::<String>()
            };
            rows.map(of_row).collect()
        }
        WeaveKind::Rising => {
            let all = starts(left + top, rect.right() + rect.bottom());
            all.map(|start| aslant(start - left - top, thick, (width, height), |x, y| (left + x, top + y))).collect()
        }
        WeaveKind::Falling => {
            // The same, seen in a mirror that stands at the lower side.
            let all = starts(left - rect.bottom(), rect.right() - top);
            let low = rect.bottom();
            all.map(|start| aslant(start - left + low, thick, (width, height), |x, y| (left + x, low - y))).collect()
        }
    }
}

/// The part of the stripe `start <= x + y < start + thick` that is in a rectangle at the origin.
fn aslant(start: i32, thick: i32, (width, height): (i32, i32), place: impl Fn(i32, i32) -> (i32, i32)) -> String {
    let mut corners: Vec<(i32, i32)> = Vec::new();
    // Along the first edge from the lower left to the upper right, then back along the second.
    let ends = |sum: i32| {
        let sum = sum.clamp(0, width + height);
        let (low, high) = (sum.min(height), sum.min(width));
        [(sum - low, low), (high, sum - high)]
    };
    let (near, far) = (ends(start), ends(start + thick));
    if start + thick <= 0 || start >= width + height {
        return String::new();
    }
    corners.extend(near);
    // A corner of the rectangle may lie between both edges.
    corners.extend((start < width && width < start + thick).then_some((width, 0)));
    corners.extend([far[1], far[0]]);
    corners.extend((start < height && height < start + thick).then_some((0, height)));
    let corners: Vec<(f32, f32)> =
        corners.into_iter().map(|(x, y)| place(x, y)).map(|(x, y)| (x as f32, y as f32)).collect();
    outline(&corners)
}

#[cfg(test)]
mod tests {
    use super::super::canvas::Canvas;
    use super::super::style::{BAND, CONTROL, FAINT_INK, GRID, INK, SERIES};
    use super::*;

    fn svg(draw: impl FnOnce(&mut Canvas)) -> String {
        let mut canvas = Canvas::new(200);
        draw(&mut canvas);
        canvas.to_svg()
    }

    const RECT: Rect = Rect { left: 10, top: 20, width: 30, height: 40 };

    #[test]
    fn a_file_states_its_size_and_stands_on_white() {
        let file = svg(|_| ());
        assert!(file.starts_with(OPENING) && file.ends_with("</svg>\n"));
        assert!(file.contains("viewBox=\"0 0 1700 200\" width=\"85mm\" height=\"10mm\""), "{file}");
        assert!(file.contains("<rect class=\"ground\" width=\"1700\" height=\"200\" fill=\"#ffffff\"/>"));
        assert!(!file.contains("tips"));
    }

    #[test]
    fn shapes_of_one_look_after_each_other_are_one_path() {
        let file = svg(|canvas| {
            canvas.fill(RECT, SERIES[0]);
            canvas.fill(Rect { left: 100, ..RECT }, SERIES[0]);
            canvas.disc((5.0, 6.0), 2.0, SERIES[0]);
            canvas.fill(RECT, INK);
        });
        let expected = "<path fill=\"#0072b2\" d=\"M10 20h30v40h-30zM100 20h30v40h-30zM3 6a2 2 0 1 1 4 0a2 2 0 1 1 -4 0z\"/>\n\
                        <path class=\"ink\" fill=\"#1a1a1a\" d=\"M10 20h30v40h-30z\"/>\n</svg>\n";
        assert!(file.ends_with(expected), "{file}");
    }

    #[test]
    fn what_is_no_data_has_its_role_but_in_a_scale() {
        let file = svg(|canvas| {
            for color in [FAINT_INK, GRID, PAPER, BAND, CONTROL] {
                canvas.stroke((0.0, 0.0), (10.0, 10.0), color, 3.0);
            }
            canvas.scale(|canvas| canvas.fill(RECT, PAPER));
        });
        for role in ["faint", "grid", "paper", "band", "control"] {
            assert!(file.contains(&format!("<path class=\"{role}-line\" fill=\"none\" stroke=")), "{role}: {file}");
        }
        assert!(
            file.contains("<g class=\"scale\" shape-rendering=\"crispEdges\">\n<path fill=\"#ffffff\" d="),
            "{file}"
        );
    }

    #[test]
    fn text_is_text_as_wide_as_it_was_laid_out() {
        let style = TextStyle::new(40.0, INK);
        let file = svg(|canvas| {
            canvas.text("<a & \"b\">\u{1b}", 10.0, 50.0, style.bold().anchored(Anchor::End));
            canvas.text("layer", 60.0, 90.0, style.upwards());
            canvas.text("7", 60.0, 90.0, style);
        });
        assert!(file.contains("text-anchor=\"end\"") && file.contains(">&lt;a &amp; &quot;b&quot;&gt;\u{fffd}</text>"));
        let length = format!("textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\"", number(style.width("layer")));
        assert!(file.contains(&format!("{length} transform=\"rotate(-90 60 90)\">layer</text>")), "{file}");
        assert!(file.contains("font-size=\"40\">7</text>"), "one letter is not squeezed: {file}");
    }

    #[test]
    fn tips_are_titles_over_everything_else() {
        let file = svg(|canvas| {
            canvas.tip(RECT, "L0.H1: <0.4>");
            canvas.fill(RECT, INK);
        });
        let tips = "<g class=\"tips\" fill=\"none\" pointer-events=\"all\">\n<path d=\"M10 20h30v40h-30z\"><title>L0.H1: \
                    &lt;0.4&gt;</title></path>\n</g>\n</svg>\n";
        assert!(file.ends_with(tips), "{file}");
    }

    #[test]
    fn stripes_cover_what_the_pixels_cover() {
        for kind in [WeaveKind::Rising, WeaveKind::Falling, WeaveKind::Level, WeaveKind::Dots] {
            for rect in [RECT, Rect { left: 13, top: 7, width: 200, height: 9 }, Rect { width: 3, ..RECT }] {
                let weave = Weave { kind, period: 14, width: 5 };
                let mut canvas = Canvas::new(200);
                canvas.striped(rect, PAPER, INK, weave);
                // The area of the outlines, each corner by corner, against the number of pixels.
                let outlines = stripes(rect, weave);
                let area: f64 = outlines.split_terminator('z').map(|outline| area(outline).abs()).sum();
                let places = (rect.top..rect.bottom()).flat_map(|y| (rect.left..rect.right()).map(move |x| (x, y)));
                let pixels = places.filter(|(x, y)| canvas.pixel(*x, *y) == INK).count() as f64;
                let edge = f64::from(rect.width.min(rect.height)) * 1.5 + 12.0;
                assert!((area - pixels).abs() <= edge.max(0.08 * pixels), "{kind:?} in {rect:?}: {area} for {pixels}");
            }
        }
    }

    /// The area inside of an outline of lines, or of a square as [`square`] writes it.
    fn area(outline: &str) -> f64 {
        let numbers = |text: &str| -> Vec<f64> {
            text.split([' ', 'h', 'v']).filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect()
        };
        if let Some((_, sides)) = outline.split_once('h') {
            let sides = numbers(sides);
            return sides[0] * sides[1];
        }
        let corners: Vec<Vec<f64>> = outline.split(['M', 'L']).filter(|part| !part.is_empty()).map(numbers).collect();
        let next = corners.iter().cycle().skip(1);
        corners.iter().zip(next).map(|(a, b)| (a[0] * b[1] - a[1] * b[0]) / 2.0).sum()
    }

    #[test]
    fn nowhere_and_nothing_are_no_shapes() {
        let file = svg(|canvas| {
            canvas.stroke((f32::NAN, 1.0), (5.0, f32::INFINITY), INK, 3.0);
            canvas.disc((5.0, 5.0), -1.0, INK);
            canvas.polygon(&[], INK);
            canvas.fill(Rect { width: 0, ..RECT }, INK);
        });
        assert!(!file.contains("<path") && !file.contains("NaN"), "{file}");
    }
}
