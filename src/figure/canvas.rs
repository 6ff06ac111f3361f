//! A picture of one column's width to draw on, and its way into a PNG file.
//!
//! Shapes are drawn by plotters, text by [`text`](super::text). A failure while drawing is kept and reported when the
//! picture is encoded, so that figures read as a list of what is drawn.

use std::path::Path;

use plotters::backend::{BitMapBackend, DrawingBackend};
use plotters::style::{RGBAColor, RGBColor, ShapeStyle};

use super::FigureError;
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

/// A white picture to draw on; the origin is at the top left.
pub struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    failure: Option<String>,
    lacking: Vec<String>,
}

impl Canvas {
    /// A white picture of [`WIDTH`] by `height` pixels.
    pub fn new(height: u32) -> Canvas {
        let pixels = vec![255; WIDTH as usize * height as usize * 3];
        Canvas { width: WIDTH, height, pixels, failure: None, lacking: Vec::new() }
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, rect: Rect, color: RGBColor) {
        if rect.width <= 0 || rect.height <= 0 {
            return;
        }
        // The backend leaves out the last row and column of what it fills.
        let end = (rect.right(), rect.bottom());
        self.draw(|backend| backend.draw_rect((rect.left, rect.top), end, &color, true));
    }

    /// Fills a rectangle with diagonal stripes `width` pixels wide, one every `period` pixels along a row.
    pub fn hatch(&mut self, rect: Rect, ground: RGBColor, stripe: RGBColor, period: i32, width: i32) {
        self.pattern(rect, ground, stripe, |x, y| (x + y).rem_euclid(period.max(1)) < width);
    }

    /// Fills a rectangle with `ground`, and with `stripe` the pixels for which `inside` holds.
    pub fn pattern(&mut self, rect: Rect, ground: RGBColor, stripe: RGBColor, inside: impl Fn(i32, i32) -> bool) {
        self.fill(rect, ground);
        for y in rect.top..rect.bottom() {
            for x in rect.left..rect.right() {
                if inside(x, y) {
                    self.blend(x, y, stripe, 1.0);
                }
            }
        }
    }

    /// Draws a rectangle's border, `width` pixels wide, just outside of it.
    pub fn frame(&mut self, rect: Rect, color: RGBColor, width: i32) {
        let Rect { left, top, width: across, height: down } = rect;
        let (full, left_of, above) = (across + 2 * width, left - width, top - width);
        self.fill(Rect { left: left_of, top: above, width: full, height: width }, color);
        self.fill(Rect { left: left_of, top: rect.bottom(), width: full, height: width }, color);
        self.fill(Rect { left: left_of, top, width, height: down }, color);
        self.fill(Rect { left: rect.right(), top, width, height: down }, color);
    }

    /// Draws a line `width` pixels wide.
    pub fn line(&mut self, from: (i32, i32), to: (i32, i32), color: RGBColor, width: u32) {
        let style = ShapeStyle { color: RGBAColor::from(color), filled: false, stroke_width: width };
        self.draw(|backend| backend.draw_path([from, to], &style));
    }

    /// Draws a filled circle, anti-aliased.
    pub fn disc(&mut self, center: (f32, f32), radius: f32, color: RGBColor) {
        let reach = radius.ceil() as i32 + 1;
        let (column, row) = (center.0.floor() as i32, center.1.floor() as i32);
        for y in row - reach..=row + reach {
            for x in column - reach..=column + reach {
                let distance = (x as f32 + 0.5 - center.0).hypot(y as f32 + 0.5 - center.1);
                self.blend(x, y, color, (radius - distance + 0.5).clamp(0.0, 1.0));
            }
        }
    }

    /// Draws a straight line with round ends, anti-aliased, between two places in pixels and fractions of them.
    pub fn stroke(&mut self, from: (f32, f32), to: (f32, f32), color: RGBColor, width: f32) {
        let reach = width / 2.0 + 1.0;
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = (dx * dx + dy * dy).max(f32::MIN_POSITIVE);
        let rows = span(from.1.min(to.1) - reach, from.1.max(to.1) + reach, self.height);
        let columns = span(from.0.min(to.0) - reach, from.0.max(to.0) + reach, self.width);
        for y in rows {
            for x in columns.clone() {
                let (px, py) = (x as f32 + 0.5 - from.0, y as f32 + 0.5 - from.1);
                let along = ((px * dx + py * dy) / length).clamp(0.0, 1.0);
                let distance = (px - along * dx).hypot(py - along * dy);
                self.blend(x, y, color, (width / 2.0 - distance + 0.5).clamp(0.0, 1.0));
            }
        }
    }

    /// Draws a line through all points; `dash` is the lengths of pen down and pen up by turns, none for a solid line.
    pub fn polyline(&mut self, points: &[(f32, f32)], color: RGBColor, width: f32, dash: &[f32]) {
        let mut pen = Pen { dash, index: 0, left: dash.first().copied().unwrap_or(f32::INFINITY) };
        for pair in points.windows(2) {
            pen.along(pair[0], pair[1], |from, to| self.stroke(from, to, color, width));
        }
    }

    /// Fills a polygon, anti-aliased.
    pub fn polygon(&mut self, corners: &[(f32, f32)], color: RGBColor) {
        let bounds = |of: fn(&(f32, f32)) -> f32| {
            let values = corners.iter().map(of);
            values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let ((left, right), (top, bottom)) = (bounds(|corner| corner.0), bounds(|corner| corner.1));
        for y in span(top, bottom, self.height) {
            for x in span(left, right, self.width) {
                let hits = SAMPLES.iter().flat_map(|dy| SAMPLES.map(|dx| (x as f32 + dx, y as f32 + dy)));
                let hits = hits.filter(|place| encloses(corners, *place)).count();
                self.blend(x, y, color, hits as f32 / (SAMPLES.len() * SAMPLES.len()) as f32);
            }
        }
    }

    /// Shades what lies between two lines, given as places along with the upper and the lower line's height there.
    pub fn band(&mut self, edges: &[(f32, f32, f32)], color: RGBColor, opacity: f32) {
        for pair in edges.windows(2) {
            let ((from, ..), (to, ..)) = (pair[0], pair[1]);
            // A column belongs to the pair that holds its middle, so that none is shaded twice.
            for x in span((from - 0.5).ceil(), (to - 0.5).ceil() - 1.0, self.width) {
                let part = (x as f32 + 0.5 - from) / (to - from).max(f32::MIN_POSITIVE);
                let upper = pair[0].1 + (pair[1].1 - pair[0].1) * part;
                let lower = pair[0].2 + (pair[1].2 - pair[0].2) * part;
                for y in span(upper, lower, self.height) {
                    let covered = (lower.min(y as f32 + 1.0) - upper.max(y as f32)).clamp(0.0, 1.0);
                    self.blend(x, y, color, covered * opacity);
                }
            }
        }
    }

    /// Writes text whose baseline goes through `(x, y)`.
    pub fn text(&mut self, text: &str, x: f32, y: f32, style: TextStyle) {
        if style.lacks(text) {
            self.lacking.push(text.to_owned());
        }
        style.rasterize(text, x, y, |x, y, coverage| self.blend(x, y, style.color, coverage));
    }

    /// Writes text whose capitals are centred on `(x, y)` across the line; along it the anchor decides.
    pub fn text_centered(&mut self, text: &str, x: f32, y: f32, style: TextStyle) {
        let half = style.cap_height() / 2.0;
        let (x, y) = if style.upwards { (x + half, y) } else { (x, y + half) };
        self.text(text, x, y, style);
    }

    /// Texts with letters that the font has not, which are drawn as boxes.
    pub fn lacking(&self) -> &[String] {
        &self.lacking
    }

    /// The picture as a PNG file's bytes; it states its size, so that documents show it one column wide.
    pub fn to_png(&self) -> Result<Vec<u8>, FigureError> {
        if let Some(reason) = &self.failure {
            return Err(FigureError::Draw { reason: reason.clone() });
        }
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        // Most rows repeat the one above: as differences to it they nearly vanish.
        encoder.set_filter(png::FilterType::Up);
        // The encoder's own choice is for speed, at three times the size.
        encoder.set_compression(png::Compression::Default);
        let per_metre = PIXELS_PER_MM * 1000;
        let size = png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter };
        encoder.set_pixel_dims(Some(size));
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(bytes)
    }

    /// Writes the picture as a PNG file, which appears whole or not at all.
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<(), FigureError> {
        Ok(write_file(path.as_ref(), &self.to_png()?)?)
    }

    fn draw<E: std::fmt::Display>(&mut self, shape: impl FnOnce(&mut BitMapBackend<'_>) -> Result<(), E>) {
        let mut backend = BitMapBackend::with_buffer(&mut self.pixels, (self.width, self.height));
        if let Err(error) = shape(&mut backend) {
            self.failure.get_or_insert(error.to_string());
        }
    }

    fn blend(&mut self, x: i32, y: i32, color: RGBColor, coverage: f32) {
        if coverage.is_nan() || x < 0 || y < 0 || x >= self.width as i32 || y >= self.height as i32 {
            return;
        }
        let start = (y as usize * self.width as usize + x as usize) * 3;
        for (below, above) in self.pixels[start..start + 3].iter_mut().zip([color.0, color.1, color.2]) {
            let mixed = f32::from(*below) + (f32::from(above) - f32::from(*below)) * coverage;
            *below = mixed.round() as u8;
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (i32, i32) {
        (self.width as i32, self.height as i32)
    }

    #[cfg(test)]
    pub(super) fn pixel(&self, x: i32, y: i32) -> RGBColor {
        let start = (y as usize * self.width as usize + x as usize) * 3;
        RGBColor(self.pixels[start], self.pixels[start + 1], self.pixels[start + 2])
    }
}

/// Where a pixel is sampled, along either side.
const SAMPLES: [f32; 4] = [0.125, 0.375, 0.625, 0.875];

/// The pixels from one place to another that are in the picture.
fn span(low: f32, high: f32, size: u32) -> std::ops::Range<i32> {
    if low <= high {
        (low.floor() as i32).max(0)..(high.floor() as i32).saturating_add(1).min(size as i32)
    } else {
        0..0
    }
}

/// Whether a place is inside of a polygon.
fn encloses(corners: &[(f32, f32)], (x, y): (f32, f32)) -> bool {
    let next = corners.iter().cycle().skip(1);
    let crossed = corners
        .iter()
        .zip(next)
        .filter(|(a, b)| (a.1 > y) != (b.1 > y) && x < a.0 + (y - a.1) / (b.1 - a.1) * (b.0 - a.0));
    crossed.count() % 2 == 1
}

/// How far a dashed line has come in its pattern.
struct Pen<'a> {
    dash: &'a [f32],
    index: usize,
    /// What is left of the present dash or gap.
    left: f32,
}

impl Pen<'_> {
    /// Calls `draw` with every dash between two points, and goes on from there next time.
    fn along(&mut self, from: (f32, f32), to: (f32, f32), mut draw: impl FnMut((f32, f32), (f32, f32))) {
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let at = |done: f32| {
            let part = if length > 0.0 { done / length } else { 0.0 };
            (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part)
        };
        let mut done = 0.0;
        while done < length {
            let step = self.left.min(length - done);
            if self.index.is_multiple_of(2) {
                draw(at(done), at(done + step));
            }
            done += step;
            self.left -= step;
            if self.left <= 0.0 {
                self.index = (self.index + 1) % self.dash.len();
                // Not less than a pixel: a pattern of zeros would never end.
                self.left = self.dash[self.index].max(1.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: RGBColor = RGBColor(255, 0, 0);
    const WHITE: RGBColor = RGBColor(255, 255, 255);

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
    fn text_that_the_font_has_no_letters_for_is_named() {
        let mut canvas = Canvas::new(60);
        canvas.text("violence", 10.0, 40.0, TextStyle::new(30.0, RED));
        assert!(canvas.lacking().is_empty());
        canvas.text_centered("暴力 (12)", 10.0, 40.0, TextStyle::new(30.0, RED));
        assert_eq!(canvas.lacking(), ["暴力 (12)"]);
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
        let drawn = |dash: &[f32]| -> Vec<bool> {
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
        let half = RGBColor(255, 128, 128);
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
