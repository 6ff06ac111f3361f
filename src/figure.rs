//! Figures as SVG and PNG files, drawn from tables alone.
//!
//! All figures are one column (85 mm) wide, so that their text has the same size in print beside each other and is
//! never scaled down, and all can be read in greyscale, but for the signs in heatmaps. This module holds what they share;
//! each kind of figure is a file of its own: [`bars`], [`curves`], [`forest`], [`graph`], [`heatmap`], [`scatter`],
//! [`waterfall`].
//! Which table becomes which figure is left to the analyses.

mod axis;
pub mod bars;
pub mod canvas;
pub mod curves;
mod estimate;
mod fonts;
pub mod forest;
pub mod graph;
pub mod heatmap;
mod marks;
mod parts;
mod raster;
pub mod scatter;
mod sign;
pub mod style;
mod svg;
#[cfg(test)]
mod testing;
pub mod text;
pub mod waterfall;

use std::path::Path;

use thiserror::Error;

use crate::rundir::WriteError;

pub use bars::{BarSeries, Bars};
pub use canvas::Canvas;
pub use curves::{Curve, CurvePoint, CurveRole, Curves, Threshold};
pub use estimate::Estimate;
pub use forest::{Forest, ForestRow};
pub use graph::{Graph, GraphEdge, GraphNode};
pub use heatmap::Heatmap;
pub use marks::MOST_SERIES;
pub use scatter::{Scatter, ScatterPoint};
pub(crate) use svg::OPENING as SVG_OPENING;
pub use waterfall::{Waterfall, WaterfallLayer, WaterfallPart};

/// The name of a figure's SVG file, which stands beside its PNG file.
pub fn beside(png: &str) -> String {
    format!("{}.svg", png.strip_suffix(".png").unwrap_or(png))
}

/// A figure of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Figure {
    /// A number for every head.
    Heatmap(Heatmap),
    /// Estimates against zero, row by row.
    Forest(Forest),
    /// Parts that add up.
    Waterfall(Waterfall),
    /// Values by category.
    Bars(Bars),
    /// Lines over a number.
    Curves(Curves),
    /// Two numbers against each other.
    Scatter(Scatter),
    /// Parts of a model and the edges between them.
    Graph(Graph),
}

impl Figure {
    /// Draws it.
    ///
    /// # Errors
    /// If there is nothing to draw or more than can be told apart, and if the parts do not go together.
    pub fn draw(&self) -> Result<Canvas, FigureError> {
        match self {
            Figure::Heatmap(figure) => figure.draw(),
            Figure::Forest(figure) => figure.draw(),
            Figure::Waterfall(figure) => figure.draw(),
            Figure::Bars(figure) => figure.draw(),
            Figure::Curves(figure) => figure.draw(),
            Figure::Scatter(figure) => figure.draw(),
            Figure::Graph(figure) => figure.draw(),
        }
    }

    /// Draws it and writes it as a PNG file, which appears whole or not at all.
    ///
    /// # Errors
    /// As [`draw`](Figure::draw), and if the file cannot be written.
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<(), FigureError> {
        self.draw()?.write_png(path)
    }
}

impl From<Heatmap> for Figure {
    fn from(figure: Heatmap) -> Figure {
        Figure::Heatmap(figure)
    }
}

impl From<Forest> for Figure {
    fn from(figure: Forest) -> Figure {
        Figure::Forest(figure)
    }
}

impl From<Waterfall> for Figure {
    fn from(figure: Waterfall) -> Figure {
        Figure::Waterfall(figure)
    }
}

impl From<Bars> for Figure {
    fn from(figure: Bars) -> Figure {
        Figure::Bars(figure)
    }
}

impl From<Curves> for Figure {
    fn from(figure: Curves) -> Figure {
        Figure::Curves(figure)
    }
}

impl From<Scatter> for Figure {
    fn from(figure: Scatter) -> Figure {
        Figure::Scatter(figure)
    }
}

impl From<Graph> for Figure {
    fn from(figure: Graph) -> Figure {
        Figure::Graph(figure)
    }
}

/// Why a figure cannot be made.
#[derive(Debug, Error)]
pub enum FigureError {
    /// There is nothing to draw.
    #[error("figure \"{title}\": has no {what}; expected at least one")]
    Empty {
        /// The figure's title.
        title: String,
        /// What there is none of.
        what: &'static str,
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
    /// More of something than can be told apart, or than fits a page.
    #[error("figure \"{title}\": {found} {what} are more than the {limit} that can be drawn; make several figures")]
    TooMany {
        /// The figure's title.
        title: String,
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// The most.
        limit: usize,
    },
    /// A part that has not one value for each of what it belongs to.
    #[error("figure \"{title}\": {what} has {found} values, expected {expected}, one for each {each}")]
    Unequal {
        /// The figure's title.
        title: String,
        /// Which part.
        what: String,
        /// Its values.
        found: usize,
        /// The values that it must have.
        expected: usize,
        /// What there must be a value for.
        each: &'static str,
    },
    /// An edge of a graph that cannot be drawn.
    #[error("figure \"{title}\": the edge {edge} {why}; expected one to a later part")]
    Edge {
        /// The figure's title.
        title: String,
        /// The edge's name.
        edge: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The picture cannot be turned into PNG.
    #[error("a figure cannot be encoded as PNG: {0}")]
    Encode(#[from] png::EncodingError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
