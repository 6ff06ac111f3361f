//! Tables to Parquet files and back, through polars' own Parquet crate without the rest of polars.
//!
//! Names and documentation travel in the file's key-value metadata, where any Parquet tool shows them.

mod read;
mod write;

pub(super) use write::{array, field};

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{Table, TableError};
use crate::rundir::write_file;

const NAME_KEY: &str = "gatelens.table";
const DOCS_KEY: &str = "gatelens.columns";

/// What the Parquet crates say, or what we say of a file in their place.
type Failure = Box<dyn Error + Send + Sync>;

impl Table {
    /// The table as a Parquet file's bytes, the same for the same table.
    pub fn to_parquet(&self) -> Result<Vec<u8>, TableError> {
        write::encoded(self).map_err(|source| TableError::Encode { table: self.name.clone(), source })
    }

    /// Writes the table as a Parquet file, which appears whole or not at all.
    pub fn write_parquet(&self, path: impl AsRef<Path>) -> Result<(), TableError> {
        Ok(write_file(path.as_ref(), &self.to_parquet()?)?)
    }

    /// Reads a table back. Files from elsewhere are read too: their name is the file's stem, their columns have no
    /// documentation, numbers of any width become `i64` and `f64`, and categories become text.
    pub fn read_parquet(path: impl AsRef<Path>) -> Result<Table, TableError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| TableError::Read { path: path.to_owned(), source })?;
        Table::from_parquet(path, &bytes)
    }

    /// The table that a Parquet file holds; messages call the file by its path. See [`Table::read_parquet`].
    pub fn from_parquet(path: &Path, bytes: &[u8]) -> Result<Table, TableError> {
        // A damaged file can trip an assertion inside the decoder; for a reader that is one more way to be damaged.
        catch_unwind(AssertUnwindSafe(|| read::decoded(path, bytes)))
            .unwrap_or_else(|_| Err(damaged(path, "its contents contradict each other".into())))
    }

    /// What the file says of the table beside its values.
    fn notes(&self) -> [(&str, String); 2] {
        // In the order of the columns: the notes are part of the bytes, which must be the same every time.
        let docs: serde_json::Map<String, serde_json::Value> =
            self.columns.iter().map(|column| (column.name.clone(), column.doc.clone().into())).collect();
        [(NAME_KEY, self.name.clone()), (DOCS_KEY, serde_json::Value::Object(docs).to_string())]
    }
}

fn damaged(path: &Path, reason: Failure) -> TableError {
    TableError::Damaged { path: path.to_owned(), reason: reason.to_string() }
}
