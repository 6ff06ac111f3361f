//! What tells series apart, in colour and in greyscale: colour, marker, dash and filling, by the series' place.

use super::canvas::{Canvas, Rect, Weave, WeaveKind};
use super::style::{Color, EMPTY_GROUND, EMPTY_STRIPE, PAPER, SERIES};

/// The most series in one figure: more could not be told apart.
pub const MOST_SERIES: usize = SERIES.len();

/// The line around markers and bars that are not filled.
const OUTLINE: f32 = 5.0;

/// Pen down and pen up by turns, in pixels; lines have round ends that take a few pixels of the gaps.
const DASHES: [&[f32]; MOST_SERIES] = [
    &[],
    &[34.0, 18.0],
    &[4.0, 16.0],
    &[30.0, 16.0, 4.0, 16.0],
    &[16.0, 14.0],
    &[60.0, 18.0],
    &[30.0, 16.0, 4.0, 16.0, 4.0, 16.0],
];

/// Markers' corners for a radius of 1; no corners are a disc.
const SHAPES: [&[(f32, f32)]; MOST_SERIES] = [
    &[],
    &[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    &[(0.0, -1.25), (1.08, 0.62), (-1.08, 0.62)],
    &[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
    &[(0.0, 1.25), (1.08, -0.62), (-1.08, -0.62)],
    &[(-1.4, -0.7), (1.4, -0.7), (1.4, 0.7), (-1.4, 0.7)],
    &[(-0.7, -1.4), (0.7, -1.4), (0.7, 1.4), (-0.7, 1.4)],
];

/// The colour of a series.
pub(super) fn color(series: usize) -> Color {
    SERIES[series % MOST_SERIES]
}

/// The dashes of a series.
pub(super) fn dash(series: usize) -> &'static [f32] {
    DASHES[series % MOST_SERIES]
}

/// Draws a series' marker, filled or as an outline.
pub(super) fn draw_marker(canvas: &mut Canvas, series: usize, center: (f32, f32), radius: f32, filled: bool) {
    let (corners, color) = (SHAPES[series % MOST_SERIES], color(series));
    let line = OUTLINE.min(radius * 0.45);
    if corners.is_empty() {
        canvas.disc(center, radius, color);
        if !filled {
            canvas.disc(center, radius - line, PAPER);
        }
        return;
    }
    let radius = if filled { radius } else { radius - line * 0.4 };
    let mut corners: Vec<(f32, f32)> =
        corners.iter().map(|(x, y)| (center.0 + x * radius, center.1 + y * radius)).collect();
    canvas.polygon(&corners, if filled { color } else { PAPER });
    if !filled {
        corners.push(corners[0]);
        canvas.polyline(&corners, color, line, &[]);
    }
}

/// Draws a series' bar: filled, hatched, tinted, hatched the other way, an outline, striped, dotted.
pub(super) fn draw_filling(canvas: &mut Canvas, series: usize, bar: Rect) {
    let color = color(series);
    let Rect { width, height, .. } = bar;
    let outline = (width / 6).clamp(1, OUTLINE as i32).min(height / 2).max(1);
    canvas.fill(bar, color);
    let inside = Rect {
        left: bar.left + outline,
        top: bar.top + outline,
        width: width - 2 * outline,
        height: height - 2 * outline,
    };
    // Wide bars have wide stripes.
    let period = (width / 4).clamp(6, 20);
    let mut striped = |kind| canvas.striped(inside, PAPER, color, Weave { kind, period, width: (period / 3).max(2) });
    match series % MOST_SERIES {
        0 => {}
        1 => striped(WeaveKind::Rising),
        2 => canvas.fill(inside, tint(color, 0.35)),
        3 => striped(WeaveKind::Falling),
        4 => canvas.fill(inside, PAPER),
        5 => striped(WeaveKind::Level),
        _ => striped(WeaveKind::Dots),
    }
}

/// Draws a bar of a colour, filled or as an outline; one thinner than three pixels across is drawn with three.
pub(super) fn draw_bar(canvas: &mut Canvas, bar: Rect, color: Color, filled: bool) {
    let bar = if bar.width < 3 { Rect { left: bar.left - (3 - bar.width) / 2, width: 3, ..bar } } else { bar };
    canvas.fill(bar, color);
    // However thin the bar is, half of it is inside of the line.
    let line = (bar.height / 5).clamp(2, 4).min(bar.width / 4).max(1);
    if !filled {
        let (width, height) = (bar.width - 2 * line, bar.height - 2 * line);
        canvas.fill(Rect { left: bar.left + line, top: bar.top + line, width, height }, PAPER);
    }
}

/// Draws what stands where a value is missing.
pub(super) fn draw_missing(canvas: &mut Canvas, place: Rect) {
    let weave = Weave { kind: WeaveKind::Rising, period: 14, width: 3 };
    canvas.striped(place, EMPTY_GROUND, EMPTY_STRIPE, weave);
}

/// A colour thinned with white; `strength` is its share.
pub(super) fn tint(color: Color, strength: f32) -> Color {
    let mix = |part: u8| (255.0 + (f32::from(part) - 255.0) * strength).round() as u8;
    Color(mix(color.0), mix(color.1), mix(color.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The picture of one sign in shades of grey.
    fn grey(draw: impl FnOnce(&mut Canvas)) -> Vec<i32> {
        let mut canvas = Canvas::new(60);
        draw(&mut canvas);
        let luma = |Color(r, g, b)| (299 * i32::from(r) + 587 * i32::from(g) + 114 * i32::from(b)) / 1000;
        (0..60).flat_map(|y| (0..60).map(move |x| (x, y))).map(|(x, y)| luma(canvas.pixel(x, y))).collect()
    }

    fn assert_all_differ(signs: &[Vec<i32>]) {
        for (index, sign) in signs.iter().enumerate() {
            for (other, twin) in signs.iter().enumerate().skip(index + 1) {
                let different = sign.iter().zip(twin).filter(|(a, b)| (*a - *b).abs() > 40).count();
                assert!(different > 60, "{index} and {other} differ in {different} pixels");
            }
        }
    }

    #[test]
    fn markers_differ_in_greyscale_also_filled_from_open() {
        let marker = |series, filled| grey(|canvas| draw_marker(canvas, series, (30.0, 30.0), 15.0, filled));
        let signs: Vec<Vec<i32>> =
            (0..MOST_SERIES).flat_map(|series| [marker(series, true), marker(series, false)]).collect();
        assert_all_differ(&signs);
    }

    #[test]
    fn fillings_differ_in_greyscale() {
        let bar = Rect { left: 5, top: 5, width: 30, height: 50 };
        let signs: Vec<Vec<i32>> =
            (0..MOST_SERIES).map(|series| grey(|canvas| draw_filling(canvas, series, bar))).collect();
        assert_all_differ(&signs);
    }

    #[test]
    fn a_thin_bar_is_an_outline_still_where_it_is_not_filled() {
        for width in [3, 4, 5, 8, 40] {
            let drawn = |filled: bool| {
                let mut canvas = Canvas::new(40);
                draw_bar(&mut canvas, Rect { left: 10, top: 5, width, height: 20 }, color(0), filled);
                let row: Vec<Color> = (10..10 + width).map(|x| canvas.pixel(x, 15)).collect();
                (row[0], row[width as usize / 2], row.iter().filter(|pixel| **pixel == PAPER).count() as i32)
            };
            assert_eq!(drawn(true), (color(0), color(0), 0));
            let (edge, middle, white) = drawn(false);
            assert_eq!((edge, middle), (color(0), PAPER), "{width} pixels");
            assert!(3 * white >= width, "{white} of {width} pixels");
        }
    }

    #[test]
    fn the_smallest_bar_is_still_there() {
        let mut canvas = Canvas::new(10);
        draw_filling(&mut canvas, 4, Rect { left: 2, top: 2, width: 2, height: 1 });
        assert_eq!(canvas.pixel(2, 2), color(4));
    }
}
