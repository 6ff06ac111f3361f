//! The circuits that were found.

use super::read;
use crate::analyses::circuit::{FaithfulnessRow, SummaryRow, with_interval};
use crate::report::cells::{number, plural};
use crate::table::Table;

/// Lines on the circuits that were found.
pub(super) fn circuits(tables: &[Table]) -> Option<Vec<String>> {
    if let Some(rows) = read::<FaithfulnessRow>(tables) {
        let line = |row: &FaithfulnessRow| {
            format!("  {} on paths keep {} of the gap", plural(row.edges_left, "edge"), with_interval(&row.kept))
        };
        return Some(std::iter::once("the file's circuit:".to_string()).chain(rows.iter().map(line)).collect());
    }
    let rows = read::<SummaryRow>(tables)?;
    let line = |row: &SummaryRow| match row.edges_left {
        0 => format!("  {:<12} the two prompts do not differ", row.score),
        left => format!(
            "  {:<12} {} on paths keep {} of the gap, CPR {}, CMD {}",
            row.score,
            plural(left, "edge"),
            with_interval(&row.faithfulness),
            number(row.cpr, 3),
            number(row.cmd, 3),
        ),
    };
    Some(std::iter::once("circuits, by what edges are ranked:".to_string()).chain(rows.iter().map(line)).collect())
}
