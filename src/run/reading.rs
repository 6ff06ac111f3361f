//! Rows of a site as readings.

use crate::ops::vectors::dot;
use crate::plan::{Array, Reading, Take};
use std::ops::Range;

/// The reading of `n` whole rows of a site, one after another in `values`.
pub(super) fn of_rows(take: &Take, values: &[f32], n: usize) -> Reading {
    let width = values.len() / n;
    let rows = values.chunks_exact(width);
    Reading::Array(match take {
        Take::Columns(columns) => {
            let wide = columns.iter().map(Range::len).sum();
            Array { shape: vec![n, wide], values: rows.flat_map(|row| pick(row, columns)).collect() }
        }
        Take::Along(direction) => {
            // One for all rows, or one a row.
            let directions = direction.chunks_exact(width).cycle();
            Array { shape: vec![n], values: rows.zip(directions).map(|(row, along)| project(row, along)).collect() }
        }
    })
}

/// Columns of a row, joined.
pub(super) fn pick(row: &[f32], columns: &[Range<usize>]) -> Vec<f32> {
    columns.iter().flat_map(|c| row[c.clone()].iter().copied()).collect()
}

/// The inner product, summed in f64.
fn project(row: &[f32], direction: &[f32]) -> f32 {
    dot(row, direction) as f32
}
