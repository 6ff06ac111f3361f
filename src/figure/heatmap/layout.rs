//! Where the parts of a heatmap are: cells as square as the column's width allows, the named cells where room is left.

use super::super::canvas::{Rect, WIDTH};
use super::super::parts::{MARGIN, line_height};
use super::super::style::{LABEL_SIZE, TICK_SIZE};

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
/// How many cells are named under the plot, where their names take height.
const NAMED_BELOW: usize = 6;
/// How many are named beside it, where there is height for them anyway.
pub(super) const NAMED_BESIDE: usize = 24;

/// The places of a heatmap's parts, in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub height: u32,
    /// All cells together.
    pub plot: Rect,
    pub bar: Rect,
    /// Where the signs' meanings start.
    pub legend_top: i32,
    /// The named cells.
    pub strip: Rect,
    /// The named cells stand in this many columns.
    pub strip_columns: usize,
    /// How many cells are named.
    pub named: usize,
    rows: i32,
    columns: i32,
}

/// The height of a cell with a text in it, and of the tallest plot of such.
const TEXT_CELL: i32 = 56;
const TEXT_PLOT: i32 = 2200;

impl Layout {
    /// Places the parts: the plot under a heading, the legend under that (of these heights), and the names of cells, of which there
    /// are so many at most. `texts` says whether something is written in cells, which then are as wide as there is room.
    pub(super) fn new(rows: usize, columns: usize, heading: i32, legend: i32, cells: usize, texts: bool) -> Layout {
        let (rows, columns) = (rows as i32, columns as i32);
        let beside = LEFT + BAR_GAP + BAR_WIDTH + BAR_TEXT + MARGIN;
        let room = WIDTH as i32 - beside;
        let (cell_width, cell_height) = match texts {
            true => ((room / columns).max(1), TEXT_CELL.min(TEXT_PLOT / rows).max(1)),
            false => cell_size(rows, columns, room),
        };
        let plot = Rect { left: LEFT, top: heading, width: cell_width * columns, height: cell_height * rows };
        // A short plot still needs a colour bar that can be read.
        let bar_height = plot.height.max(SHORTEST_BAR);
        let bar = Rect { left: plot.right() + BAR_GAP, top: heading, width: BAR_WIDTH, height: bar_height };
        let axis_bottom = bar.bottom().max(plot.bottom() + line_height(TICK_SIZE, 1) + line_height(LABEL_SIZE, 1) + 24);
        let legend_top = axis_bottom + 24;
        let legend_bottom = legend_top + legend;
        let strip_left = bar.right() + BAR_TEXT + MARGIN;
        let strip_height = |named: usize| if named == 0 { 0 } else { line_height(TICK_SIZE, named + 1) };
        let named = cells.min(NAMED_BELOW);
        let right_of_plot = WIDTH as i32 - strip_left >= STRIP_WIDTH && strip_height(named) <= axis_bottom - heading;
        let (strip, strip_columns, named) = if right_of_plot {
            // What height there is beside the plot is given to more names.
            let fits = |more: &usize| strip_height(*more) <= bar.bottom() - heading;
            let named = (named..=cells.min(NAMED_BESIDE)).take_while(fits).last().unwrap_or(named);
            let (width, height) = (STRIP_WIDTH - MARGIN, strip_height(named));
            (Rect { left: strip_left, top: heading, width, height }, 1, named)
        } else {
            let height = if named == 0 { 0 } else { line_height(TICK_SIZE, named.div_ceil(3) + 1) + 20 };
            let (top, width) = (legend_bottom + 20, WIDTH as i32 - 2 * MARGIN);
            (Rect { left: MARGIN, top, width, height }, 3, named)
        };
        let bottom = legend_bottom.max(strip.bottom()) + MARGIN;
        Layout { height: bottom as u32, plot, bar, legend_top, strip, strip_columns, named, rows, columns }
    }

    /// How large what stands in cells is.
    pub(super) fn text_size(&self) -> f32 {
        (0.66 * self.cell(0, 0).height as f32).min(0.8 * TICK_SIZE)
    }

    /// The cell of a row, counted from the bottom, and a column.
    pub(super) fn cell(&self, row: usize, column: usize) -> Rect {
        let (width, height) = (self.plot.width / self.columns, self.plot.height / self.rows);
        let from_top = self.rows - 1 - row as i32;
        Rect { left: self.plot.left + column as i32 * width, top: self.plot.top + from_top * height, width, height }
    }
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
    use super::super::MOST_CELLS;
    use super::*;

    #[test]
    fn every_shape_fits_the_column_with_cells_of_four_pixels_or_more() {
        for rows in [1, 2, 9, 30, 64, 100, 200, MOST_CELLS] {
            for columns in [1, 2, 14, 64, 128, 200, MOST_CELLS] {
                let layout = Layout::new(rows, columns, 177, 55, 6, false);
                let cell = layout.cell(0, 0);
                assert!(cell.width >= 4 && cell.height >= 4, "{rows}x{columns}");
                assert!(layout.bar.right() + BAR_TEXT <= WIDTH as i32, "{rows}x{columns}");
                assert!(layout.strip.right() <= WIDTH as i32, "{rows}x{columns}");
                assert!(layout.height < 2600, "{rows}x{columns}: {}", layout.height);
            }
        }
    }

    #[test]
    fn a_tall_plot_has_as_many_names_beside_it_as_there_is_height_for() {
        let tall = Layout::new(30, 9, 177, 55, 200, false);
        assert!(tall.strip_columns == 1 && tall.named > 20, "{tall:?}");
        assert!(tall.strip.bottom() <= tall.bar.bottom() && tall.strip.bottom() > tall.plot.bottom() - 300);
        assert_eq!(Layout::new(30, 9, 177, 55, 4, false).named, 4, "no more than there are");
        // A wide plot has them below, where each line takes height.
        let wide = Layout::new(24, 32, 177, 55, 200, false);
        assert_eq!((wide.strip_columns, wide.named), (3, 6));
    }

    #[test]
    fn row_zero_is_at_the_bottom() {
        let layout = Layout::new(3, 2, 177, 0, 0, false);
        assert!(layout.cell(0, 0).top > layout.cell(2, 0).top);
        assert_eq!(layout.cell(0, 0).bottom(), layout.plot.bottom());
    }
}
