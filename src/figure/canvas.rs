//! A picture of one column's width to draw on, and its way into files: PNG for Markdown and SVG for pages and papers, both
//! from one list of shapes.
//!
//! Shapes are kept in the order in which they are drawn; `raster` and `svg` turn them into
//! files, so that nothing can be in one of them and not in the other.

use std::path::Path;

use super::FigureError;
use super::raster::Pixels;
use super::style::Color;
use super::svg;
use super::text::TextStyle;
use crate::rundir::write_file;

/// Pixels to the millimetre (508 dpi).
pub const PIXELS_PER_MM: u32 = 20;

/// Every figure's width in pixels: one column of 85 mm.
pub const WIDTH: u32 = 85 * PIXELS_PER_MM;

/// A rectangle of pixels: `left` and `top` are inside, `left + width` and `top + height` are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// The leftmost column of pixels.
    pub left: i32,
    /// The topmost row of pixels.
    pub top: i32,
    /// Columns.
    pub width: i32,
    /// Rows.
    pub height: i32,
}

impl Rect {
    /// The pixel column after the last.
    pub fn right(&self) -> i32 {
        self.left + self.width
    }

    /// The pixel row after the last.
    pub fn bottom(&self) -> i32 {
        self.top + self.height
    }

    /// The middle.
    pub fn center(&self) -> (i32, i32) {
        (self.left + self.width / 2, self.top + self.height / 2)
    }
}

/// What is drawn, with places in pixels.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// A filled rectangle.
    Fill(Rect, Color),
    /// The stripes of a rectangle, without what is between them.
    Stripes(Rect, Color, Weave),
    /// A filled circle.
    Disc { center: (f32, f32), radius: f32, color: Color },
    /// A line through all points with round ends; `dash` is the lengths of pen down and pen up by turns, none for a solid one.
    Line { points: Vec<(f32, f32)>, color: Color, width: f32, dash: &'static [f32] },
    /// A filled polygon.
    Polygon(Vec<(f32, f32)>, Color),
    /// What lies between two lines, given as places along with the upper and the lower line's height there.
    Band { edges: Vec<(f32, f32, f32)>, color: Color, opacity: f32 },
    /// A text whose baseline goes through the place.
    Text(String, (f32, f32), TextStyle),
    /// Cells of a colour scale whose middle is the paper's colour: on a dark ground they are shown inverted.
    Scale(Vec<Shape>),
    /// A part of the picture that pages let a reader pick, with what is said of it.
    Part { part: Part, title: String, shapes: Vec<Shape> },
}

/// A part of a [graph](super::graph) that pages let a reader pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A node, by its number.
    Node(usize),
    /// An edge, by the numbers of its nodes and its place among the edges by strength, from 0.
    Edge {
        /// The node that writes.
        from: usize,
        /// The node that reads.
        to: usize,
        /// 0 for the strongest.
        rank: usize,
    },
}

/// How a rectangle is striped, by the sum, the difference or the height of its pixels' places in the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weave {
    /// The stripes' direction.
    pub kind: WeaveKind,
    /// From one stripe to the next, in pixels along a row or a column.
    pub period: i32,
    /// A stripe's width, measured in the same way.
    pub width: i32,
}

/// The direction of stripes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeaveKind {
    /// From the lower left to the upper right.
    Rising,
    /// From the upper left to the lower right.
    Falling,
    /// Level.
    Level,
    /// Squares, where level and upright stripes cross.
    Dots,
}

/// A picture to draw on, white until then; the origin is at the top left.
#[derive(Debug)]
pub struct Canvas {
    height: u32,
    shapes: Vec<Shape>,
    tips: Vec<(Rect, String)>,
    lacking: Vec<String>,
    #[cfg(test)]
    pixels: std::cell::OnceCell<Pixels>,
}

impl Canvas {
    /// An empty picture of [`WIDTH`] by `height` pixels.
    pub fn new(height: u32) -> Canvas {
        Canvas {
            height,
            shapes: Vec::new(),
            tips: Vec::new(),
            lacking: Vec::new(),
            #[cfg(test)]
            pixels: std::cell::OnceCell::new(),
        }
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, rect: Rect, color: Color) {
        if rect.width > 0 && rect.height > 0 {
            self.shapes.push(Shape::Fill(rect, color));
        }
    }

    /// Fills a rectangle with `ground`, and draws stripes on it.
    pub fn striped(&mut self, rect: Rect, ground: Color, stripe: Color, weave: Weave) {
        self.fill(rect, ground);
        if rect.width > 0 && rect.height > 0 {
            self.shapes.push(Shape::Stripes(rect, stripe, weave));
        }
    }

    /// Draws a rectangle's border, `width` pixels wide, just outside of it.
    pub fn frame(&mut self, rect: Rect, color: Color, width: i32) {
        let Rect { left, top, width: across, height: down } = rect;
        let (full, left_of, above) = (across + 2 * width, left - width, top - width);
        self.fill(Rect { left: left_of, top: above, width: full, height: width }, color);
        self.fill(Rect { left: left_of, top: rect.bottom(), width: full, height: width }, color);
        self.fill(Rect { left: left_of, top, width, height: down }, color);
        self.fill(Rect { left: rect.right(), top, width, height: down }, color);
    }

    /// Draws a level or an upright line of pixels from one place to another, `width` pixels wide.
    pub fn line(&mut self, from: (i32, i32), to: (i32, i32), color: Color, width: i32) {
        let (left, top) = (from.0.min(to.0), from.1.min(to.1));
        let (across, down) = ((from.0 - to.0).abs(), (from.1 - to.1).abs());
        let rect = if across > down {
            Rect { left, top: top - width / 2, width: across + 1, height: width }
        } else {
            Rect { left: left - width / 2, top, width, height: down + 1 }
        };
        self.fill(rect, color);
    }

    /// Draws a filled circle.
    pub fn disc(&mut self, center: (f32, f32), radius: f32, color: Color) {
        self.shapes.push(Shape::Disc { center, radius, color });
    }

    /// Draws a straight line with round ends between two places in pixels and fractions of them.
    pub fn stroke(&mut self, from: (f32, f32), to: (f32, f32), color: Color, width: f32) {
        self.polyline(&[from, to], color, width, &[]);
    }

    /// Draws a line through all points; `dash` is the lengths of pen down and pen up by turns, none for a solid line.
    pub fn polyline(&mut self, points: &[(f32, f32)], color: Color, width: f32, dash: &'static [f32]) {
        self.shapes.push(Shape::Line { points: points.to_vec(), color, width, dash });
    }

    /// Fills a polygon.
    pub fn polygon(&mut self, corners: &[(f32, f32)], color: Color) {
        self.shapes.push(Shape::Polygon(corners.to_vec(), color));
    }

    /// Shades what lies between two lines, given as places along with the upper and the lower line's height there.
    pub fn band(&mut self, edges: &[(f32, f32, f32)], color: Color, opacity: f32) {
        self.shapes.push(Shape::Band { edges: edges.to_vec(), color, opacity });
    }

    /// Writes text whose baseline goes through `(x, y)`.
    pub fn text(&mut self, text: &str, x: f32, y: f32, style: TextStyle) {
        if style.lacks(text) {
            self.lacking.push(text.to_owned());
        }
        self.shapes.push(Shape::Text(text.to_owned(), (x, y), style));
    }

    /// Writes text whose capitals are centred on `(x, y)` across the line; along it the anchor decides.
    pub fn text_centered(&mut self, text: &str, x: f32, y: f32, style: TextStyle) {
        let half = style.cap_height() / 2.0;
        let (x, y) = if style.upwards { (x + half, y) } else { (x, y + half) };
        self.text(text, x, y, style);
    }

    /// Draws what is on a colour scale whose middle is the paper's colour.
    pub fn scale(&mut self, draw: impl FnOnce(&mut Canvas)) {
        let cells = self.drawn_by(draw);
        self.shapes.push(Shape::Scale(cells));
    }

    /// Draws a part that pages let a reader pick, of which `title` is said.
    pub fn part(&mut self, part: Part, title: impl Into<String>, draw: impl FnOnce(&mut Canvas)) {
        let (title, shapes) = (title.into(), self.drawn_by(draw));
        self.shapes.push(Shape::Part { part, title, shapes });
    }

    fn drawn_by(&mut self, draw: impl FnOnce(&mut Canvas)) -> Vec<Shape> {
        let before = std::mem::take(&mut self.shapes);
        draw(self);
        std::mem::replace(&mut self.shapes, before)
    }

    /// Says in pages what is at a place, while the pointer is there: the numbers of a cell, a bar or a point.
    pub fn tip(&mut self, place: Rect, text: impl Into<String>) {
        self.tips.push((place, text.into()));
    }

    /// Texts with letters that no font at hand has, which are drawn as boxes.
    pub fn lacking(&self) -> &[String] {
        &self.lacking
    }

    /// The picture as a PNG file's bytes; it states its size, so that documents show it one column wide.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn to_png(&self) -> Result<Vec<u8>, FigureError> {
        Ok(Pixels::of(WIDTH, self.height, &self.shapes).to_png(PIXELS_PER_MM)?)
    }

    /// The picture as an SVG file, one column wide, on white; inlined in a page it takes the page's colours
    /// ([`html`](crate::report::html)).
    pub fn to_svg(&self) -> String {
        svg::write(WIDTH, self.height, &self.shapes, &self.tips)
    }

    /// Writes the picture as a PNG file, which appears whole or not at all.
    ///
    /// # Errors
    /// If it cannot be encoded or written.
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<(), FigureError> {
        Ok(write_file(path.as_ref(), &self.to_png()?)?)
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (i32, i32) {
        (WIDTH as i32, self.height as i32)
    }

    #[cfg(test)]
    pub(super) fn pixel(&self, x: i32, y: i32) -> Color {
        self.pixels.get_or_init(|| Pixels::of(WIDTH, self.height, &self.shapes)).at(x, y)
    }

    /// The parts that a reader can pick, with what is said of them.
    #[cfg(test)]
    pub(super) fn parts(&self) -> Vec<(Part, &str)> {
        let parts = self.shapes.iter().filter_map(|shape| match shape {
            Shape::Part { part, title, .. } => Some((*part, title.as_str())),
            _ => None,
        });
        parts.collect()
    }

    #[cfg(test)]
    pub(super) fn tips(&self) -> &[(Rect, String)] {
        &self.tips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Color = Color(255, 0, 0);
    const WHITE: Color = Color(255, 255, 255);

    #[test]
    fn a_rectangle_fills_its_pixels_and_no_others() {
        let mut canvas = Canvas::new(10);
        canvas.fill(Rect { left: 2, top: 3, width: 2, height: 2 }, RED);
        let red: Vec<(i32, i32)> =
            (0..10).flat_map(|y| (0..10).map(move |x| (x, y))).filter(|&(x, y)| canvas.pixel(x, y) == RED).collect();
        assert_eq!(red, [(2, 3), (3, 3), (2, 4), (3, 4)]);
    }

    #[test]
    fn drawing_beyond_the_edges_is_cut_off() {
        let mut canvas = Canvas::new(10);
        canvas.fill(Rect { left: -5, top: -5, width: 7, height: 7 }, RED);
        canvas.fill(Rect { left: 5, top: 5, width: 0, height: 3 }, RED);
        canvas.disc((0.0, 0.0), 4.0, RED);
        canvas.line((-10, 5), (5000, 5), RED, 3);
        canvas.text("out", -10.0, -10.0, TextStyle::new(40.0, RED));
        assert_eq!((canvas.pixel(1, 1), canvas.pixel(9, 9)), (RED, WHITE));
        assert!(canvas.to_png().is_ok());
    }

    #[test]
    fn text_that_no_font_has_letters_for_is_named() {
        let mut canvas = Canvas::new(60);
        canvas.text("violence", 10.0, 40.0, TextStyle::new(30.0, RED));
        assert!(canvas.lacking().is_empty());
        // Of this code point Unicode says that it will never be a letter.
        canvas.text_centered("\u{10fffe} (12)", 10.0, 40.0, TextStyle::new(30.0, RED));
        assert_eq!(canvas.lacking(), ["\u{10fffe} (12)"]);
    }

    #[test]
    fn the_same_picture_gives_the_same_bytes_and_states_its_size() {
        let make = || {
            let mut canvas = Canvas::new(50);
            canvas.text("Δ layer", 10.0, 40.0, TextStyle::new(30.0, RED));
            canvas.to_png().unwrap()
        };
        let bytes = make();
        assert_eq!(bytes, make());
        let reader = png::Decoder::new(bytes.as_slice()).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (WIDTH, 50));
        assert_eq!(reader.info().pixel_dims.unwrap().xppu, 20_000);
    }

    #[test]
    fn a_dashed_line_has_gaps_and_a_solid_one_has_none_round_a_corner() {
        let points = [(10.0, 5.5), (60.0, 5.5), (110.0, 5.5)];
        let drawn = |dash: &'static [f32]| -> Vec<bool> {
            let mut canvas = Canvas::new(12);
            canvas.polyline(&points, RED, 3.0, dash);
            (10..110).map(|x| canvas.pixel(x, 5) == RED).collect()
        };
        assert!(drawn(&[]).iter().all(|red| *red));
        let dashed = drawn(&[30.0, 30.0]);
        assert_eq!([dashed[10], dashed[45], dashed[75]], [true, false, true]);
    }

    #[test]
    fn a_band_covers_what_is_between_its_edges_once() {
        let mut canvas = Canvas::new(40);
        canvas.band(&[(10.0, 10.0, 20.0), (20.5, 10.0, 20.0), (30.0, 10.0, 30.0)], RED, 0.5);
        let half = Color(255, 128, 128);
        assert!((10..30).all(|x| canvas.pixel(x, 12) == half), "no gap, nothing twice");
        assert_eq!([canvas.pixel(15, 9), canvas.pixel(15, 20), canvas.pixel(30, 12)], [WHITE; 3]);
        assert_eq!(canvas.pixel(28, 22), half);
    }

    #[test]
    fn a_polygon_fills_its_inside() {
        let mut canvas = Canvas::new(30);
        canvas.polygon(&[(5.0, 5.0), (25.0, 5.0), (5.0, 25.0)], RED);
        assert_eq!([canvas.pixel(8, 8), canvas.pixel(20, 20), canvas.pixel(4, 8)], [RED, WHITE, WHITE]);
    }

    #[test]
    fn shapes_far_outside_or_nowhere_draw_nothing() {
        let mut canvas = Canvas::new(10);
        canvas.stroke((-1e9, -50.0), (1e9, -50.0), RED, 3.0);
        canvas.stroke((f32::NAN, 1.0), (5.0, f32::NAN), RED, 3.0);
        canvas.polygon(&[], RED);
        canvas.band(&[(0.0, -9.0, -2.0), (f32::NAN, 3.0, 4.0)], RED, 1.0);
        assert!((0..10).all(|x| (0..10).all(|y| canvas.pixel(x, y) == WHITE)));
    }
}
