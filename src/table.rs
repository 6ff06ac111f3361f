//! Tidy tables with typed, documented columns, and their one way to and from Parquet.
//!
//! ```text
//! rows! {
//!     pub struct HeadRow in "heads" {
//!         layer: i64 = "layer, from 0",
//!         head: i64 = "head within the layer, from 0",
//!         effect_mean: Option<f64> = "mean effect over the items, in logits",
//!     }
//! }
//! HeadRow::table(rows)?.write_parquet(&dir.path("heads.parquet")?)?;
//! ```
//!
//! A table is declared once, as the struct that its rows are ([`rows`]): what writes it and what reads it share that type.
//! Every table of the project is written here, so that bytes are the same for the same values and every column
//! carries its documentation. What the columns mean is left to the analyses, how they look to figures and reports.

mod arrow;
mod parquet;
pub mod rows;
#[cfg(test)]
mod tests;
mod texts;

use std::path::PathBuf;

use thiserror::Error;

use crate::names::meant;
use crate::rundir::WriteError;
use texts::Texts;

/// What a column's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text, possibly with empty cells.
    Str,
    /// Whole numbers, `i64`.
    Int,
    /// Numbers, `f64`, possibly with empty cells.
    Float,
    /// True or false.
    Flag,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Kind::Str => "text",
            Kind::Int => "integer",
            Kind::Float => "float",
            Kind::Flag => "flag",
        })
    }
}

/// One column as a reader of the table sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnInfo<'a> {
    /// The column's name.
    pub name: &'a str,
    /// What its values are.
    pub kind: Kind,
    /// One line that says what the values mean; empty when the table came from elsewhere.
    pub doc: &'a str,
}

/// A named table: columns of equal length, in the order they were added.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    name: String,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq)]
struct Column {
    name: String,
    doc: String,
    data: Data,
}

#[derive(Debug, Clone, PartialEq)]
enum Data {
    Str(Texts),
    Int(Vec<i64>),
    Float(Vec<Option<f64>>),
    Flag(Vec<bool>),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Data::Str(values) => values.len(),
            Data::Int(values) => values.len(),
            Data::Float(values) => values.len(),
            Data::Flag(values) => values.len(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Data::Str(_) => Kind::Str,
            Data::Int(_) => Kind::Int,
            Data::Float(_) => Kind::Float,
            Data::Flag(_) => Kind::Flag,
        }
    }
}

/// Why a table cannot be built, read or written.
#[derive(Debug, Error)]
pub enum TableError {
    /// A column does not have the table's number of rows.
    #[error("table {table}: column \"{column}\" has {found} rows, expected {expected} as in the columns before it")]
    Length {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The table's rows.
        expected: usize,
        /// The column's rows.
        found: usize,
    },
    /// Two columns have the same name.
    #[error("table {table}: column \"{column}\" is there already; column names are unique")]
    Repeated {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// There is no such column.
    #[error("table {table}: no column \"{column}\"; {}", suggestion(nearest.as_deref(), known))]
    Unknown {
        /// The table.
        table: String,
        /// The column asked for.
        column: String,
        /// The nearest name there is.
        nearest: Option<String>,
        /// All names there are.
        known: Vec<String>,
    },
    /// A column holds another kind of values than was asked for.
    #[error("table {table}: column \"{column}\": expected {expected} values, found {found} values")]
    Kind {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// What was asked for.
        expected: Kind,
        /// What the column holds.
        found: Kind,
    },
    /// A cell is empty where a value is needed.
    #[error("table {table}: column \"{column}\", row {row}: expected a value, found an empty cell")]
    EmptyCell {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The row, from 1.
        row: usize,
    },
    /// A Parquet column has a type that tables here do not have.
    #[error("{}: column \"{column}\": expected text, integers, floats or booleans, found {found}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not Parquet, or damaged.
    #[error("{}: is not a Parquet file that can be read: {reason}; make the table again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        reason: String,
    },
    /// The table cannot be turned into Parquet.
    #[error("table {table}: cannot be encoded as Parquet: {source}")]
    Encode {
        /// The table.
        table: String,
        /// The encoder's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn suggestion(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("it has {}", known.join(", ")),
    }
}

impl Table {
    /// An empty table; `name` is its file's stem: `heads` for `heads.parquet`.
    pub fn new(name: impl Into<String>) -> Table {
        Table { name: name.into(), columns: Vec::new() }
    }

    /// Adds a column of text.
    pub fn str<S: Into<String>>(
        self,
        name: &str,
        doc: &str,
        values: impl IntoIterator<Item = S>,
    ) -> Result<Table, TableError> {
        self.with(name, doc, Data::Str(values.into_iter().map(|value| Some(value.into())).collect()))
    }

    /// Adds a column of text in which cells may be empty.
    pub fn opt_str<S: Into<String>>(
        self,
        name: &str,
        doc: &str,
        values: impl IntoIterator<Item = Option<S>>,
    ) -> Result<Table, TableError> {
        self.with(name, doc, Data::Str(values.into_iter().map(|value| value.map(Into::into)).collect()))
    }

    /// Adds a column of whole numbers.
    pub fn int(self, name: &str, doc: &str, values: impl IntoIterator<Item = i64>) -> Result<Table, TableError> {
        self.with(name, doc, Data::Int(values.into_iter().collect()))
    }

    /// Adds a column of numbers, `f64` or `Option<f64>`; `None` and NaN become empty cells.
    pub fn float<F: Into<Option<f64>>>(
        self,
        name: &str,
        doc: &str,
        values: impl IntoIterator<Item = F>,
    ) -> Result<Table, TableError> {
        let present = |value: F| value.into().filter(|number| !number.is_nan());
        self.with(name, doc, Data::Float(values.into_iter().map(present).collect()))
    }

    /// Adds a column of true and false.
    pub fn flag(self, name: &str, doc: &str, values: impl IntoIterator<Item = bool>) -> Result<Table, TableError> {
        self.with(name, doc, Data::Flag(values.into_iter().collect()))
    }

    fn with(mut self, name: &str, doc: &str, data: Data) -> Result<Table, TableError> {
        if self.columns.iter().any(|column| column.name == name) {
            return Err(TableError::Repeated { table: self.name, column: name.to_owned() });
        }
        if !self.columns.is_empty() && data.len() != self.rows() {
            return Err(TableError::Length {
                expected: self.rows(),
                table: self.name,
                column: name.to_owned(),
                found: data.len(),
            });
        }
        self.columns.push(Column { name: name.to_owned(), doc: doc.to_owned(), data });
        Ok(self)
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rows every column has.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.data.len())
    }

    /// Name, kind and documentation of every column, in order.
    pub fn columns(&self) -> impl Iterator<Item = ColumnInfo<'_>> {
        self.columns.iter().map(|column| ColumnInfo { name: &column.name, kind: column.data.kind(), doc: &column.doc })
    }

    /// Whether there is a column of that name.
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|candidate| candidate.name == column)
    }

    /// The values of a text column without empty cells.
    pub fn strs(&self, column: &str) -> Result<Vec<&str>, TableError> {
        let cells = self.opt_strs(column)?;
        let filled = |(row, cell): (usize, Option<_>)| cell.ok_or_else(|| self.empty_cell(column, row));
        cells.into_iter().enumerate().map(filled).collect()
    }

    /// The cells of a text column.
    pub fn opt_strs(&self, column: &str) -> Result<Vec<Option<&str>>, TableError> {
        match self.data(column)? {
            Data::Str(values) => Ok(values.iter().collect()),
            other => Err(self.wrong_kind(column, Kind::Str, other)),
        }
    }

    /// The values of an integer column.
    pub fn ints(&self, column: &str) -> Result<&[i64], TableError> {
        match self.data(column)? {
            Data::Int(values) => Ok(values),
            other => Err(self.wrong_kind(column, Kind::Int, other)),
        }
    }

    /// The cells of a float column.
    pub fn floats(&self, column: &str) -> Result<&[Option<f64>], TableError> {
        match self.data(column)? {
            Data::Float(values) => Ok(values),
            other => Err(self.wrong_kind(column, Kind::Float, other)),
        }
    }

    /// The values of a flag column.
    pub fn flags(&self, column: &str) -> Result<&[bool], TableError> {
        match self.data(column)? {
            Data::Flag(values) => Ok(values),
            other => Err(self.wrong_kind(column, Kind::Flag, other)),
        }
    }

    fn data(&self, column: &str) -> Result<&Data, TableError> {
        let names = || self.columns.iter().map(|candidate| candidate.name.as_str());
        match self.columns.iter().find(|candidate| candidate.name == column) {
            Some(found) => Ok(&found.data),
            None => Err(TableError::Unknown {
                table: self.name.clone(),
                column: column.to_owned(),
                nearest: meant(column, names()).map(str::to_owned),
                known: names().map(str::to_owned).collect(),
            }),
        }
    }

    fn wrong_kind(&self, column: &str, expected: Kind, found: &Data) -> TableError {
        TableError::Kind { table: self.name.clone(), column: column.to_owned(), expected, found: found.kind() }
    }

    fn empty_cell(&self, column: &str, row: usize) -> TableError {
        TableError::EmptyCell { table: self.name.clone(), column: column.to_owned(), row: row + 1 }
    }
}
