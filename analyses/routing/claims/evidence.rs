//! The tables that claims are judged by, and how numbers are looked up in them.

use crate::analyses::AnalysisError;
use crate::table::Table;
use std::collections::BTreeMap;

/// What was measured.
pub struct Evidence<'a> {
    /// The tables of each analysis, by its name.
    pub tables: &'a BTreeMap<String, Vec<Table>>,
    /// Analyses that could not be run, and why.
    pub left_out: &'a BTreeMap<String, String>,
    /// Pairs of checkpoints, if several were compared.
    pub overlap: Option<&'a Table>,
    /// How many parameters the model has.
    pub parameters: u64,
    /// The other checkpoints.
    pub others: &'a [Other],
}

/// Another checkpoint's tables of `behaviour`, `screen` and `contrast-methods`.
pub struct Other {
    pub model: String,
    pub parameters: u64,
    pub tables: BTreeMap<String, Vec<Table>>,
}

/// A table of one analysis.
pub(super) fn table<'a>(tables: &'a BTreeMap<String, Vec<Table>>, analysis: &str, name: &str) -> Option<&'a Table> {
    tables.get(analysis)?.iter().find(|t| t.name() == name)
}

impl<'a> Evidence<'a> {
    /// A table of an analysis; else why there is none.
    pub(super) fn table(&self, analysis: &str, name: &str) -> Result<&'a Table, String> {
        table(self.tables, analysis, name).ok_or_else(|| match self.left_out.get(analysis) {
            Some(why) => format!("`{analysis}` could not be run: {why}"),
            None => format!("`{analysis}` was not run"),
        })
    }
}

/// A row of a table.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    table: &'a Table,
    row: usize,
}

/// Rows whose text columns hold these values, in order.
pub(super) fn rows<'a>(table: &'a Table, wanted: &[(&str, &str)]) -> Result<Vec<At<'a>>, AnalysisError> {
    let columns = wanted.iter().map(|(column, value)| Ok((table.strs(column)?, *value)));
    let columns = columns.collect::<Result<Vec<_>, AnalysisError>>()?;
    let matches = |row: &usize| columns.iter().all(|(column, value)| column[*row] == *value);
    Ok((0..table.rows()).filter(matches).map(|row| At { table, row }).collect())
}

/// The first of [`rows`].
pub(super) fn row<'a>(table: &'a Table, wanted: &[(&str, &str)]) -> Result<Option<At<'a>>, AnalysisError> {
    Ok(rows(table, wanted)?.first().copied())
}

/// The row of a head.
pub(super) fn of_head<'a>(table: &'a Table, (layer, head): (i64, i64)) -> Result<Option<At<'a>>, AnalysisError> {
    let (layers, heads) = (table.ints("layer")?, table.ints("head")?);
    Ok((0..table.rows()).find(|i| (layers[*i], heads[*i]) == (layer, head)).map(|row| At { table, row }))
}

impl<'a> At<'a> {
    /// Whether the table has a column.
    pub(super) fn has(&self, column: &str) -> bool {
        self.table.has(column)
    }

    pub(super) fn float(&self, column: &str) -> Result<Option<f64>, AnalysisError> {
        Ok(self.table.floats(column)?[self.row])
    }

    pub(super) fn int(&self, column: &str) -> Result<i64, AnalysisError> {
        Ok(self.table.ints(column)?[self.row])
    }

    pub(super) fn flag(&self, column: &str) -> Result<bool, AnalysisError> {
        Ok(self.table.flags(column)?[self.row])
    }

    pub(super) fn text(&self, column: &str) -> Result<&'a str, AnalysisError> {
        Ok(self.table.strs(column)?[self.row])
    }

    /// The share of answers that are broken or that no rule decides; tables of before count both as undecided.
    pub(super) fn without_sense(&self) -> Result<Option<f64>, AnalysisError> {
        let broken = if self.table.has("broken") { self.float("broken")? } else { Some(0.0) };
        Ok(self.float("undecided")?.zip(broken).map(|(undecided, broken)| undecided + broken))
    }

    /// An interval from the columns of its ends.
    pub(super) fn interval(&self, low: &str, high: &str) -> Result<Option<(f64, f64)>, AnalysisError> {
        Ok(self.float(low)?.zip(self.float(high)?))
    }
}
