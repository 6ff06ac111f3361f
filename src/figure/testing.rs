//! What the tests of all kinds of figures share.

use super::Figure;
use super::canvas::Canvas;
use super::style::PAPER;

/// Draws a figure, checks that nothing reaches the picture's edges, and keeps it where `GATELENS_FIGURES` says.
pub fn draw(name: &str, figure: impl Into<Figure>) -> Canvas {
    let canvas = figure.into().draw().unwrap_or_else(|error| panic!("{name}: {error}"));
    let (width, height) = canvas.size();
    let rows = (0..6).chain(height - 6..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let columns = (0..6).chain(width - 6..width).flat_map(|x| (0..height).map(move |y| (x, y)));
    let edge = rows.chain(columns);
    for (x, y) in edge {
        assert_eq!(
            canvas.pixel(x, y),
            PAPER,
            "{name}: something is drawn at the edge, at {x}, {y} of {width} x {height}"
        );
    }
    if let Some(folder) = std::env::var_os("GATELENS_FIGURES") {
        canvas.write_png(std::path::Path::new(&folder).join(format!("{name}.png"))).unwrap();
    }
    canvas
}

/// Noise between -0.5 and 0.5, the same every time.
pub fn noise(index: usize) -> f64 {
    let mixed = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66;
    let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
}
