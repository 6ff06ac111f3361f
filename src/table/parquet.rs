//! Tables to Parquet bytes and back, through polars.
//!
//! Names and documentation travel in the file's key-value metadata, where any Parquet tool shows them.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use polars::error::PolarsResult;
use polars::prelude::{
    Column as Series, DataFrame, DataType, KeyValueMetadata, NamedFrom, ParquetCompression, ParquetReader,
    ParquetWriter, PlSmallStr, SerReader, Series as PolarsSeries,
};

use super::{Column, Data, Table, TableError};
use crate::rundir::write_file;

const NAME_KEY: &str = "gatelens.table";
const DOCS_KEY: &str = "gatelens.columns";

/// Rows that polars compresses together. Fixed, so that the bytes depend on nothing but the table.
const ROW_GROUP: usize = 1 << 18;

impl Table {
    /// The table as a Parquet file's bytes, the same for the same table.
    pub fn to_parquet(&self) -> Result<Vec<u8>, TableError> {
        let encode = || -> PolarsResult<Vec<u8>> {
            let mut frame = self.to_frame()?;
            let mut bytes = Vec::new();
            ParquetWriter::new(&mut bytes)
                .with_compression(ParquetCompression::Zstd(None))
                .with_row_group_size(Some(ROW_GROUP))
                .with_key_value_metadata(Some(KeyValueMetadata::from_static(self.metadata())))
                .finish(&mut frame)?;
            Ok(bytes)
        };
        encode().map_err(|source| TableError::Encode { table: self.name.clone(), source })
    }

    /// Writes the table as a Parquet file, which appears whole or not at all.
    pub fn write_parquet(&self, path: impl AsRef<Path>) -> Result<(), TableError> {
        Ok(write_file(path.as_ref(), &self.to_parquet()?)?)
    }

    /// Reads a table back. Files from elsewhere are read too: their name is the file's stem, their columns have no
    /// documentation, and numbers of any width become `i64` and `f64`.
    pub fn read_parquet(path: impl AsRef<Path>) -> Result<Table, TableError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| TableError::Read { path: path.to_owned(), source })?;
        let damaged = |reason: String| TableError::Damaged { path: path.to_owned(), reason };
        // A damaged file can trip an assertion inside the decoder; for a reader that is one more way to be damaged.
        let decoded = catch_unwind(AssertUnwindSafe(|| decode(bytes)))
            .map_err(|_| damaged("its contents contradict each other".to_owned()))?;
        let (frame, mut metadata) = decoded.map_err(|error| damaged(error.to_string()))?;
        let docs: BTreeMap<String, String> =
            metadata.remove(DOCS_KEY).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = metadata.remove(NAME_KEY).unwrap_or_else(stem);
        from_frame(path, name, &docs, &frame)
    }

    fn to_frame(&self) -> PolarsResult<DataFrame> {
        let series = |column: &Column| -> Series {
            let name = PlSmallStr::from_str(&column.name);
            let series = match &column.data {
                Data::Str(values) => PolarsSeries::new(name, values.iter().collect::<Vec<_>>()),
                Data::Int(values) => PolarsSeries::new(name, values),
                Data::Float(values) => PolarsSeries::new(name, values),
                Data::Flag(values) => PolarsSeries::new(name, values),
            };
            series.into()
        };
        DataFrame::new(self.rows(), self.columns.iter().map(series).collect())
    }

    fn metadata(&self) -> Vec<(String, String)> {
        // A sorted map: the metadata is part of the bytes, which must be the same every time.
        let docs: serde_json::Map<String, serde_json::Value> =
            self.columns.iter().map(|column| (column.name.clone(), column.doc.clone().into())).collect();
        vec![
            (NAME_KEY.to_owned(), self.name.clone()),
            (DOCS_KEY.to_owned(), serde_json::Value::Object(docs).to_string()),
        ]
    }
}

type Metadata = BTreeMap<String, String>;

fn decode(bytes: Vec<u8>) -> PolarsResult<(DataFrame, Metadata)> {
    let mut reader = ParquetReader::new(Cursor::new(bytes));
    let mut metadata = Metadata::new();
    for entry in reader.get_metadata()?.key_value_metadata().iter().flatten() {
        if let Some(value) = &entry.value {
            metadata.insert(entry.key.clone(), value.clone());
        }
    }
    Ok((reader.finish()?, metadata))
}

fn from_frame(path: &Path, name: String, docs: &Metadata, frame: &DataFrame) -> Result<Table, TableError> {
    let mut table = Table::new(name);
    for series in frame.columns() {
        let column = series.name().as_str();
        let data = match series.dtype() {
            DataType::String => strings(path, series)?,
            DataType::Boolean => Data::Flag(filled(&table, column, flags(path, series)?)?),
            kind if kind.is_integer() => Data::Int(filled(&table, column, ints(path, series)?)?),
            kind if kind.is_float() => floats(path, series)?,
            other => {
                return Err(TableError::Foreign {
                    path: path.to_owned(),
                    column: column.to_owned(),
                    found: other.to_string(),
                });
            }
        };
        let doc = docs.get(column).map_or("", String::as_str);
        table = table.with(column, doc, data)?;
    }
    Ok(table)
}

fn strings(path: &Path, series: &Series) -> Result<Data, TableError> {
    let values = series.str().map_err(|error| damaged(path, &error))?;
    Ok(Data::Str(values.iter().map(|cell| cell.map(str::to_owned)).collect()))
}

fn flags(path: &Path, series: &Series) -> Result<Vec<Option<bool>>, TableError> {
    let values = series.bool().map_err(|error| damaged(path, &error))?;
    Ok(values.iter().collect())
}

fn ints(path: &Path, series: &Series) -> Result<Vec<Option<i64>>, TableError> {
    let wide = series.strict_cast(&DataType::Int64).map_err(|error| damaged(path, &error))?;
    let values = wide.i64().map_err(|error| damaged(path, &error))?;
    Ok(values.iter().collect())
}

fn floats(path: &Path, series: &Series) -> Result<Data, TableError> {
    let wide = series.cast(&DataType::Float64).map_err(|error| damaged(path, &error))?;
    let values = wide.f64().map_err(|error| damaged(path, &error))?;
    let present = |cell: Option<f64>| cell.filter(|number| !number.is_nan());
    Ok(Data::Float(values.iter().map(present).collect()))
}

fn filled<T>(table: &Table, column: &str, cells: Vec<Option<T>>) -> Result<Vec<T>, TableError> {
    let value = |(row, cell): (usize, Option<T>)| cell.ok_or_else(|| table.empty_cell(column, row));
    cells.into_iter().enumerate().map(value).collect()
}

fn damaged(path: &Path, error: &polars::error::PolarsError) -> TableError {
    TableError::Damaged { path: path.to_owned(), reason: error.to_string() }
}
