//! Tables to Arrow's C stream interface, by which data frames of any library take them.

use super::parquet::{array, field};
use super::{Table, TableError};
use polars_arrow::array::StructArray;
use polars_arrow::datatypes::{ArrowDataType, Field, Metadata};
use polars_arrow::ffi::{ArrowArrayStream, export_iterator};
use std::sync::Arc;

/// The key of a field's metadata under which its column's documentation stands.
const DOC: &str = "doc";

impl Table {
    /// The table as a stream of one batch, in the C stream interface: a struct with a nullable field a column, each with its
    /// documentation as its metadata `doc`. Text is `Utf8View`.
    ///
    /// # Errors
    /// If columns do not go together, as those of a table always do.
    pub fn to_arrow(&self) -> Result<ArrowArrayStream, TableError> {
        let documented = |column| {
            let field = field(column);
            let doc = Metadata::from([(DOC.into(), column.doc.as_str().into())]);
            Field { metadata: Some(Arc::new(doc)), ..field }
        };
        let kind = ArrowDataType::Struct(self.columns.iter().map(documented).collect());
        let columns = self.columns.iter().map(|column| array(&column.data, 0..self.rows())).collect();
        let batch = StructArray::try_new(kind.clone(), self.rows(), columns, None)
            .map_err(|e| TableError::Encode { table: self.name.clone(), source: Box::new(e) })?;
        Ok(export_iterator(Box::new(std::iter::once(Ok(batch.boxed()))), Field::new("".into(), kind, false)))
    }
}
