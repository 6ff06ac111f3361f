//! Where the parts of a heatmap are: cells as square as the column's width allows, the named cells where room is left.

use super::super::canvas::{Rect, WIDTH};
use super::super::style::{LABEL_SIZE, TICK_SIZE, TITLE_SIZE};

const MARGIN: i32 = 24;
const LEFT: i32 = 186;
const BAR_WIDTH: i32 = 44;
/// From the cells to the colour bar.
const BAR_GAP: i32 = 44;
/// From the colour bar to its far side: ticks and label.
const BAR_TEXT: i32 = 262;
/// What the names of cells need when they stand to the right.
const STRIP_WIDTH: i32 = 390;
const PLOT_HEIGHT: i32 = 1500;
const SMALLEST_PLOT: i32 = 280;
const SHORTEST_BAR: i32 = 400;
const LARGEST_CELL: i32 = 190;

/// The places of a heatmap's parts, in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub height: u32,
    pub title_top: i32,
    /// All cells together.
    pub plot: Rect,
    pub bar: Rect,
    /// The signs' meanings, lines one under the other.
    pub legend: Rect,
    /// The named cells.
    pub strip: Rect,
    /// The named cells stand in this many columns.
    pub strip_columns: usize,
    rows: i32,
    columns: i32,
}

/// How many lines the parts of text take.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextLines {
    pub title: usize,
    pub subtitle: usize,
    pub legend: usize,
    pub named: usize,
}

impl Layout {
    pub(super) fn new(rows: usize, columns: usize, lines: TextLines) -> Layout {
        let (rows, columns) = (rows as i32, columns as i32);
        let beside = LEFT + BAR_GAP + BAR_WIDTH + BAR_TEXT + MARGIN;
        let room = WIDTH as i32 - beside;
        let (cell_width, cell_height) = cell_size(rows, columns, room);
        let title_top = MARGIN;
        let plot_top = title_top + line(TITLE_SIZE, lines.title) + line(TICK_SIZE, lines.subtitle) + 28;
        let plot = Rect { left: LEFT, top: plot_top, width: cell_width * columns, height: cell_height * rows };
        // A short plot still needs a colour bar that can be read.
        let bar_height = plot.height.max(SHORTEST_BAR);
        let bar = Rect { left: plot.right() + BAR_GAP, top: plot_top, width: BAR_WIDTH, height: bar_height };
        let axis_bottom = bar.bottom().max(plot.bottom() + line(TICK_SIZE, 1) + line(LABEL_SIZE, 1) + 24);
        let legend = Rect {
            left: MARGIN,
            top: axis_bottom + 24,
            width: WIDTH as i32 - 2 * MARGIN,
            height: line(TICK_SIZE, lines.legend),
        };
        let strip_left = bar.right() + BAR_TEXT + MARGIN;
        let strip_height = if lines.named == 0 { 0 } else { line(TICK_SIZE, lines.named + 1) };
        let right_of_plot = WIDTH as i32 - strip_left >= STRIP_WIDTH && strip_height <= axis_bottom - plot_top;
        let (strip, strip_columns) = if right_of_plot {
            (Rect { left: strip_left, top: plot_top, width: STRIP_WIDTH - MARGIN, height: strip_height }, 1)
        } else {
            let height = if lines.named == 0 { 0 } else { line(TICK_SIZE, lines.named.div_ceil(3) + 1) + 20 };
            (Rect { left: MARGIN, top: legend.bottom() + 20, width: legend.width, height }, 3)
        };
        let bottom = legend.bottom().max(strip.bottom()) + MARGIN;
        Layout { height: bottom as u32, title_top, plot, bar, legend, strip, strip_columns, rows, columns }
    }

    /// The cell of a row, counted from the bottom, and a column.
    pub(super) fn cell(&self, row: usize, column: usize) -> Rect {
        let (width, height) = (self.plot.width / self.columns, self.plot.height / self.rows);
        let from_top = self.rows - 1 - row as i32;
        Rect { left: self.plot.left + column as i32 * width, top: self.plot.top + from_top * height, width, height }
    }

    /// The width that title and subtitle may take.
    pub(super) fn text_width() -> f32 {
        (WIDTH as i32 - 2 * MARGIN) as f32
    }

    /// Where title and subtitle start.
    pub(super) fn text_left() -> f32 {
        MARGIN as f32
    }
}

fn line(size: f32, count: usize) -> i32 {
    (size * 1.25 * count as f32).ceil() as i32
}

/// Cells fill the room across, or down if that is less, and are at most 1.6 times as long one way as the other,
/// unless the whole plot would be a sliver.
fn cell_size(rows: i32, columns: i32, room: i32) -> (i32, i32) {
    let (widest, highest) = ((room / columns).min(LARGEST_CELL), (PLOT_HEIGHT / rows).min(LARGEST_CELL));
    let (widest, highest) = (widest.max(1), highest.max(1));
    let width = widest.min(highest * 8 / 5).max((SMALLEST_PLOT / columns).min(widest));
    let height = highest.min(widest * 8 / 5).max((SMALLEST_PLOT / 2 / rows).min(highest));
    (width, height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_fits_the_column_with_cells_of_one_pixel_or_more() {
        let lines = TextLines { title: 1, subtitle: 1, legend: 1, named: 6 };
        for rows in [1, 2, 9, 30, 64, 100, 200] {
            for columns in [1, 2, 14, 64, 128, 200] {
                let layout = Layout::new(rows, columns, lines);
                let cell = layout.cell(0, 0);
                assert!(cell.width >= 1 && cell.height >= 1, "{rows}x{columns}");
                assert!(layout.bar.right() + BAR_TEXT <= WIDTH as i32, "{rows}x{columns}");
                assert!(layout.strip.right() <= WIDTH as i32, "{rows}x{columns}");
                assert!(layout.height < 2600, "{rows}x{columns}: {}", layout.height);
            }
        }
    }

    #[test]
    fn row_zero_is_at_the_bottom() {
        let layout = Layout::new(3, 2, TextLines { title: 1, subtitle: 0, legend: 0, named: 0 });
        assert!(layout.cell(0, 0).top > layout.cell(2, 0).top);
        assert_eq!(layout.cell(0, 0).bottom(), layout.plot.bottom());
    }
}
