//! The tables that claims are judged by, and how numbers are looked up in them.

use crate::analyses::prelude::*;
use crate::answers::Class;
use crate::table::rows::{Cells, Column};
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

/// Rows whose columns hold these texts, in order.
pub(super) fn rows<'a>(table: &'a Table, wanted: &[(Column<&'a str>, &str)]) -> Result<Vec<At<'a>>, AnalysisError> {
    let columns = wanted.iter().map(|(column, value)| Ok((table.column(*column)?, *value)));
    let columns = columns.collect::<Result<Vec<_>, AnalysisError>>()?;
    let matches = |row: &usize| columns.iter().all(|(column, value)| column[*row] == *value);
    Ok((0..table.rows()).filter(matches).map(|row| At { table, row }).collect())
}

/// The first of [`rows`].
pub(super) fn row<'a>(table: &'a Table, wanted: &[(Column<&'a str>, &str)]) -> Result<Option<At<'a>>, AnalysisError> {
    Ok(rows(table, wanted)?.first().copied())
}

/// The row of a head, by the columns of its layer and its number.
pub(super) fn of_head<'a>(
    table: &'a Table,
    [layer, head]: [Column<i64>; 2],
    wanted: (i64, i64),
) -> Result<Option<At<'a>>, AnalysisError> {
    let mut heads = table.column(layer)?.into_iter().zip(table.column(head)?);
    Ok(heads.position(|head| head == wanted).map(|row| At { table, row }))
}

impl<'a> At<'a> {
    /// A cell.
    pub(super) fn get<T: Cells<'a>>(&self, column: Column<T>) -> Result<T, AnalysisError> {
        Ok(column.cells(self.table, "")?(self.row))
    }

    /// A part of a field of several columns.
    pub(super) fn part<G, T: Cells<'a>>(&self, of: Column<G>, part: Column<T>) -> Result<T, AnalysisError> {
        Ok(part.cells(self.table, of.name)?(self.row))
    }

    /// The share of answers of a class.
    pub(super) fn share(&self, class: Class) -> Result<Option<f64>, AnalysisError> {
        self.get(Column::new(class.name()))
    }

    /// The share of answers that are broken or that no rule decides; tables of before count both as undecided.
    pub(super) fn without_sense(&self) -> Result<Option<f64>, AnalysisError> {
        let broken = if self.table.has(Class::Broken.name()) { self.share(Class::Broken)? } else { Some(0.0) };
        Ok(self.share(Class::Undecided)?.zip(broken).map(|(undecided, broken)| undecided + broken))
    }
}
