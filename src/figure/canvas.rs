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
}

impl Canvas {
    /// A white picture of [`WIDTH`] by `height` pixels.
    pub fn new(height: u32) -> Canvas {
        let pixels = vec![255; WIDTH as usize * height as usize * 3];
        Canvas { width: WIDTH, height, pixels, failure: None }
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
        self.fill(rect, ground);
        for y in rect.top..rect.bottom() {
            for x in rect.left..rect.right() {
                if (x + y).rem_euclid(period.max(1)) < width {
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

    /// Writes text whose baseline goes through `(x, y)`.
    pub fn text(&mut self, text: &str, x: f32, y: f32, style: TextStyle) {
        style.rasterize(text, x, y, |x, y, coverage| self.blend(x, y, style.color, coverage));
    }

    /// Writes text whose capitals are centred on `(x, y)` across the line; along it the anchor decides.
    pub fn text_centered(&mut self, text: &str, x: f32, y: f32, style: TextStyle) {
        let half = style.cap_height() / 2.0;
        let (x, y) = if style.upwards { (x + half, y) } else { (x, y + half) };
        self.text(text, x, y, style);
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
        if x < 0 || y < 0 || x >= self.width as i32 || y >= self.height as i32 {
            return;
        }
        let start = (y as usize * self.width as usize + x as usize) * 3;
        for (below, above) in self.pixels[start..start + 3].iter_mut().zip([color.0, color.1, color.2]) {
            let mixed = f32::from(*below) + (f32::from(above) - f32::from(*below)) * coverage;
            *below = mixed.round() as u8;
        }
    }

    #[cfg(test)]
    pub(super) fn pixel(&self, x: i32, y: i32) -> RGBColor {
        let start = (y as usize * self.width as usize + x as usize) * 3;
        RGBColor(self.pixels[start], self.pixels[start + 1], self.pixels[start + 2])
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
}
