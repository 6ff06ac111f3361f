//! A table's columns to a Parquet file's bytes.

use std::ops::Range;

use polars_arrow::array::{Array, BooleanArray, PrimitiveArray, Utf8ViewArray};
use polars_arrow::datatypes::{ArrowDataType, ArrowSchema, Field};
use polars_parquet::write::{
    CompressedPage, CompressionOptions, DynIter, DynStreamingIterator, FileWriter, KeyValue, ParquetType,
    StatisticsOptions, Version, WriteOptions, array_to_columns, compress, fallible_streaming_iterator,
    get_dtype_encoding, schema_to_metadata_key,
};
use rayon::prelude::*;

use super::super::{Column, Data, Table};
use super::Failure;

/// Rows that are compressed together at least, if there are as many. Fixed, so that the bytes depend on nothing but
/// the table.
const ROW_GROUP: usize = 1 << 18;

const OPTIONS: WriteOptions = WriteOptions {
    statistics: StatisticsOptions {
        min_value: true,
        max_value: true,
        distinct_count: false,
        null_count: true,
        binary_statistics_truncate_length: None,
    },
    version: Version::V1,
    compression: CompressionOptions::Zstd(None),
    data_page_size: None,
};

pub(super) fn encoded(table: &Table) -> Result<Vec<u8>, Failure> {
    let schema: ArrowSchema = table.columns.iter().map(field).collect();
    let mut notes = vec![schema_to_metadata_key(&schema)];
    notes.extend(table.notes().map(|(key, value)| KeyValue { key: key.to_owned(), value: Some(value) }));
    let mut writer = FileWriter::try_new(Vec::new(), schema, OPTIONS)?;
    let types = writer.parquet_schema().fields().to_vec();
    for rows in row_groups(table.rows()) {
        let columns = table.columns.par_iter().zip(&types);
        let columns: Vec<_> =
            columns.map(|(column, kind)| pages(&column.data, rows.clone(), kind)).collect::<Result<_, _>>()?;
        let columns = columns.iter().map(|pages| {
            let pages = fallible_streaming_iterator::convert(pages.iter().map(Ok));
            Ok(DynStreamingIterator::new(pages))
        });
        writer.write(rows.len() as u64, DynIter::new(columns))?;
    }
    writer.end(Some(notes))?;
    Ok(writer.into_inner())
}

/// A column as a field of a schema.
pub(in crate::table) fn field(column: &Column) -> Field {
    let kind = match &column.data {
        Data::Str(_) => ArrowDataType::Utf8View,
        Data::Int(_) => ArrowDataType::Int64,
        Data::Float(_) => ArrowDataType::Float64,
        Data::Flag(_) => ArrowDataType::Boolean,
    };
    Field::new(column.name.as_str().into(), kind, true)
}

/// Groups of equal length, but for the last, which has what is left over.
fn row_groups(rows: usize) -> Vec<Range<usize>> {
    if rows == 0 {
        return Vec::new();
    }
    let groups = (rows / ROW_GROUP).max(1);
    let length = rows / groups;
    let end = |group| if group + 1 == groups { rows } else { (group + 1) * length };
    (0..groups).map(|group| group * length..end(group)).collect()
}

/// The compressed pages of some rows of a column.
fn pages(data: &Data, rows: Range<usize>, kind: &ParquetType) -> Result<Vec<CompressedPage>, Failure> {
    let array = array(data, rows);
    let encodings = get_dtype_encoding(array.dtype());
    let mut pages = Vec::new();
    for column in array_to_columns(array, kind.clone(), OPTIONS, &encodings)? {
        for page in column {
            pages.push(compress(page?, Vec::new(), OPTIONS.compression)?);
        }
    }
    Ok(pages)
}

/// Some cells of a column.
pub(in crate::table) fn array(data: &Data, rows: Range<usize>) -> Box<dyn Array> {
    match data {
        Data::Str(texts) => {
            let cells: Vec<Option<&str>> = texts.rows(rows).collect();
            Utf8ViewArray::from_slice(cells).boxed()
        }
        Data::Int(values) => PrimitiveArray::from_slice(&values[rows]).boxed(),
        Data::Float(cells) => PrimitiveArray::from(&cells[rows]).boxed(),
        Data::Flag(values) => BooleanArray::from_slice(&values[rows]).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_groups_are_whole_and_cover_every_row_once() {
        assert!(row_groups(0).is_empty());
        assert_eq!(row_groups(5), [0..5]);
        assert_eq!(row_groups(ROW_GROUP + 1), [0..ROW_GROUP + 1]);
        assert_eq!(row_groups(1_000_000), [0..333_333, 333_333..666_666, 666_666..1_000_000]);
    }
}
