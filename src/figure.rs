//! Figures as PNG files, drawn from tables alone.
//!
//! All figures are one column (85 mm) wide, so that their text has the same size in print beside each other and is
//! never scaled down. This module holds what they share; each kind of figure is a file of its own: [`heatmap`].
//! Which table becomes which figure is left to the analyses.

pub mod canvas;
pub mod heatmap;
pub mod style;
pub mod text;

use thiserror::Error;

use crate::rundir::WriteError;

pub use canvas::Canvas;
pub use heatmap::Heatmap;

/// Why a figure cannot be made.
#[derive(Debug, Error)]
pub enum FigureError {
    /// There is nothing to draw.
    #[error("figure \"{title}\": has no cells; expected at least one row and one column")]
    Empty {
        /// The figure's title.
        title: String,
    },
    /// Rows of unequal length.
    #[error("figure \"{title}\": row {row} of the {what} has {found} columns, expected {expected} as in row 0")]
    Ragged {
        /// The figure's title.
        title: String,
        /// Which of the inputs.
        what: &'static str,
        /// The row, from 0.
        row: usize,
        /// The columns of the first row of values.
        expected: usize,
        /// The row's columns.
        found: usize,
    },
    /// More cells than can be told apart.
    #[error("figure \"{title}\": {rows} x {columns} cells are more than the {limit} a side that can be drawn")]
    TooLarge {
        /// The figure's title.
        title: String,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        columns: usize,
        /// The most of either.
        limit: usize,
    },
    /// The drawing library failed.
    #[error("a figure cannot be drawn: {reason}")]
    Draw {
        /// Its reason.
        reason: String,
    },
    /// The picture cannot be turned into PNG.
    #[error("a figure cannot be encoded as PNG: {0}")]
    Encode(#[from] png::EncodingError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
