//! Shapes as pixels, anti-aliased, the same on every machine: no library and no system font draws them, but for letters
//! that the font which travels with the project has not ([`fonts`](super::fonts)).

use super::canvas::{Rect, Shape, Weave, WeaveKind};
use super::style::{Color, PAPER};

/// A picture of red, green and blue bytes.
#[derive(Debug)]
pub(super) struct Pixels {
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

impl Pixels {
    /// Shapes drawn one over the other on white.
    pub fn of(width: u32, height: u32, shapes: &[Shape]) -> Pixels {
        let Color(red, green, blue) = PAPER;
        let bytes = [red, green, blue].repeat(width as usize * height as usize);
        let mut pixels = Pixels { width, height, bytes };
        shapes.iter().for_each(|shape| pixels.draw(shape));
        pixels
    }

    /// The picture as a PNG file's bytes, which says how many pixels a millimetre has.
    pub fn to_png(&self, per_mm: u32) -> Result<Vec<u8>, png::EncodingError> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        // Most rows repeat the one above: as differences to it they nearly vanish.
        encoder.set_filter(png::FilterType::Up);
        // The encoder's own choice is for speed, at three times the size.
        encoder.set_compression(png::Compression::Default);
        let per_metre = per_mm * 1000;
        let size = png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter };
        encoder.set_pixel_dims(Some(size));
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.bytes)?;
        writer.finish()?;
        Ok(file)
    }

    fn draw(&mut self, shape: &Shape) {
        match shape {
            Shape::Fill(rect, color) => self.fill(*rect, *color),
            Shape::Stripes(rect, color, weave) => self.stripes(*rect, *color, *weave),
            Shape::Disc { center, radius, color } => self.disc(*center, *radius, *color),
            Shape::Line { points, color, width, dash } => self.polyline(points, *color, *width, dash),
            Shape::Polygon(corners, color) => self.polygon(corners, *color),
            Shape::Band { edges, color, opacity } => self.band(edges, *color, *opacity),
            Shape::Text(text, (x, y), style) => {
                style.rasterize(text, *x, *y, |x, y, coverage| self.blend(x, y, style.color, coverage));
            }
            Shape::Scale(shapes) | Shape::Part { shapes, .. } => shapes.iter().for_each(|shape| self.draw(shape)),
        }
    }

    fn fill(&mut self, rect: Rect, Color(red, green, blue): Color) {
        let inside =
            |from: i32, to: i32, size: u32| from.clamp(0, size as i32) as usize..to.clamp(0, size as i32) as usize;
        let columns = inside(rect.left, rect.right(), self.width);
        for y in inside(rect.top, rect.bottom(), self.height) {
            let row = y * self.width as usize;
            let bytes = &mut self.bytes[(row + columns.start) * 3..(row + columns.end) * 3];
            bytes.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&[red, green, blue]));
        }
    }

    fn stripes(&mut self, rect: Rect, color: Color, weave: Weave) {
        for y in rect.top..rect.bottom() {
            for x in rect.left..rect.right() {
                if weave.covers(x, y) {
                    self.blend(x, y, color, 1.0);
                }
            }
        }
    }

    fn disc(&mut self, center: (f32, f32), radius: f32, color: Color) {
        let reach = radius.ceil() as i32 + 1;
        let (column, row) = (center.0.floor() as i32, center.1.floor() as i32);
        for y in row - reach..=row + reach {
            for x in column - reach..=column + reach {
                let distance = (x as f32 + 0.5 - center.0).hypot(y as f32 + 0.5 - center.1);
                self.blend(x, y, color, (radius - distance + 0.5).clamp(0.0, 1.0));
            }
        }
    }

    fn stroke(&mut self, from: (f32, f32), to: (f32, f32), color: Color, width: f32) {
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

    fn polyline(&mut self, points: &[(f32, f32)], color: Color, width: f32, dash: &[f32]) {
        let mut pen = Pen { dash, index: 0, left: dash.first().copied().unwrap_or(f32::INFINITY) };
        for pair in points.windows(2) {
            pen.along(pair[0], pair[1], |from, to| self.stroke(from, to, color, width));
        }
    }

    fn polygon(&mut self, corners: &[(f32, f32)], color: Color) {
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

    fn band(&mut self, edges: &[(f32, f32, f32)], color: Color, opacity: f32) {
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

    fn blend(&mut self, x: i32, y: i32, color: Color, coverage: f32) {
        if coverage.is_nan() || x < 0 || y < 0 || x >= self.width as i32 || y >= self.height as i32 {
            return;
        }
        let start = (y as usize * self.width as usize + x as usize) * 3;
        for (below, above) in self.bytes[start..start + 3].iter_mut().zip([color.0, color.1, color.2]) {
            let mixed = f32::from(*below) + (f32::from(above) - f32::from(*below)) * coverage;
            *below = mixed.round() as u8;
        }
    }

    /// The colour of a pixel.
    #[cfg(test)]
    pub fn at(&self, x: i32, y: i32) -> Color {
        let start = (y as usize * self.width as usize + x as usize) * 3;
        Color(self.bytes[start], self.bytes[start + 1], self.bytes[start + 2])
    }
}

impl Weave {
    /// Whether a stripe is at a pixel.
    fn covers(self, x: i32, y: i32) -> bool {
        let on = |along: i32| along.rem_euclid(self.period.max(1)) < self.width;
        match self.kind {
            WeaveKind::Rising => on(x + y),
            WeaveKind::Falling => on(x - y),
            WeaveKind::Level => on(y),
            WeaveKind::Dots => on(x) && on(y),
        }
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
