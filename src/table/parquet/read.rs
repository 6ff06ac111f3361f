//! A Parquet file's bytes to a table, whoever wrote them.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use polars_arrow::array::{Array, BooleanArray, PrimitiveArray, Utf8ViewArray};
use polars_arrow::datatypes::{ArrowDataType, ArrowSchema, Field};
use polars_compute::cast::{CastOptionsImpl, cast};
use polars_parquet::parquet::page::CompressedPage;
use polars_parquet::read::{
    BasicDecompressor, ColumnChunkMetadata, FileMetadata, PageReader, RowGroupMetadata, column_iter_to_arrays,
    infer_schema, read_metadata,
};
use rayon::prelude::*;

use super::super::{Data, Kind, Table, TableError};
use super::{DOCS_KEY, Failure, NAME_KEY, damaged};

type Arrays = Vec<Box<dyn Array>>;

pub(super) fn decoded(path: &Path, bytes: &[u8]) -> Result<Table, TableError> {
    let (file, schema) = opened(bytes).map_err(|reason| damaged(path, reason))?;
    let mut notes: BTreeMap<&str, &str> = BTreeMap::new();
    for note in file.key_value_metadata().iter().flatten() {
        notes.extend(note.value.as_deref().map(|value| (note.key.as_str(), value)));
    }
    let docs: BTreeMap<String, String> =
        notes.get(DOCS_KEY).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut table = Table::new(notes.get(NAME_KEY).map_or_else(stem, |&name| name.to_owned()));
    let fields: Vec<Field> = schema.iter_values().map(plain).collect();
    // Refused before anything is decoded.
    let kinds: Vec<Kind> = fields.iter().map(|field| kind(path, field)).collect::<Result<_, _>>()?;
    let columns = fields.par_iter().zip(kinds).map(|(field, kind)| {
        let name = field.name.as_str();
        let told = |reason: Failure| damaged(path, format!("column \"{name}\": {reason}").into());
        let arrays = widened(arrays(&file, bytes, field).map_err(told)?, kind).map_err(told)?;
        match data(kind, &arrays) {
            Ok(data) => Ok(data),
            Err(Cells::Empty { row }) => Err(table.empty_cell(name, row)),
            Err(Cells::Mistyped) => Err(told("its values are not of the type that it says".into())),
        }
    });
    let columns: Vec<Data> = columns.collect::<Result<_, _>>()?;
    for (field, data) in fields.iter().zip(columns) {
        let doc = docs.get(field.name.as_str()).map_or("", String::as_str);
        table = table.with(field.name.as_str(), doc, data)?;
    }
    Ok(table)
}

fn opened(bytes: &[u8]) -> Result<(FileMetadata, ArrowSchema), Failure> {
    let file = read_metadata(&mut Cursor::new(bytes))?;
    let schema = infer_schema(&file)?;
    Ok((file, schema))
}

/// Categories are stored as the text that they stand for.
fn plain(field: &Field) -> Field {
    match field.dtype() {
        ArrowDataType::Dictionary(_, values, _) => Field::new(field.name.clone(), (**values).clone(), true),
        _ => field.clone(),
    }
}

fn kind(path: &Path, field: &Field) -> Result<Kind, TableError> {
    use ArrowDataType::*;
    let found = match field.dtype() {
        Utf8View => return Ok(Kind::Str),
        Boolean => return Ok(Kind::Flag),
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => return Ok(Kind::Int),
        Float32 | Float64 => return Ok(Kind::Float),
        Float16 => "floats of 16 bits".to_owned(),
        Null => "cells that are all empty".to_owned(),
        Binary | BinaryView | FixedSizeBinary(_) => "bytes".to_owned(),
        Date32 | Date64 => "dates".to_owned(),
        Timestamp(..) => "timestamps".to_owned(),
        Time32(_) | Time64(_) => "times".to_owned(),
        Decimal(..) | Decimal256(..) => "decimals".to_owned(),
        List(_) | LargeList(_) | FixedSizeList(..) => "lists".to_owned(),
        Struct(_) => "structs".to_owned(),
        other => format!("{other:?}"),
    };
    Err(TableError::Foreign { path: path.to_owned(), column: field.name.to_string(), found })
}

/// A column's values, an array or more for each row group.
fn arrays(file: &FileMetadata, bytes: &[u8], field: &Field) -> Result<Arrays, Failure> {
    let mut arrays = Arrays::new();
    for group in &file.row_groups {
        arrays.extend(group_arrays(group, bytes, field)?);
    }
    Ok(arrays)
}

fn group_arrays(group: &RowGroupMetadata, bytes: &[u8], field: &Field) -> Result<Arrays, Failure> {
    let mut chunks = group.columns_under_root_iter(&field.name).into_iter().flatten();
    let (Some(chunk), None) = (chunks.next(), chunks.next()) else {
        return Err("it is not in every row group once".into());
    };
    let rows = group.num_rows();
    if usize::try_from(chunk.num_values()) != Ok(rows) {
        return Err(format!("it has {} values in a group of {rows} rows", chunk.num_values()).into());
    }
    check_pages(pages(chunk, bytes)?, rows)?;
    let pages = BasicDecompressor::new(pages(chunk, bytes)?, Vec::new());
    let kind = &chunk.descriptor().descriptor.primitive_type;
    let (arrays, _) = column_iter_to_arrays(vec![pages], vec![kind], field.clone(), None)?;
    let found: usize = arrays.iter().map(|array| array.len()).sum();
    if found != rows {
        return Err(format!("it has {found} cells in a group of {rows} rows").into());
    }
    Ok(arrays)
}

/// The pages of a column, compressed as they are stored.
fn pages(chunk: &ColumnChunkMetadata, bytes: &[u8]) -> Result<PageReader, Failure> {
    let place = chunk.byte_range();
    let stored = usize::try_from(place.start).ok().zip(usize::try_from(place.end).ok());
    let stored = stored.and_then(|(start, end)| bytes.get(start..end)).ok_or("it lies beyond the file's end")?;
    Ok(PageReader::new(Cursor::new(stored.to_vec().into()), chunk, Vec::new(), usize::MAX))
}

/// The decoder takes memory for as many values as a page says that it has, and believes it.
fn check_pages(pages: PageReader, rows: usize) -> Result<(), Failure> {
    let mut left = rows;
    for page in pages {
        if let CompressedPage::Data(page) = page? {
            left = left.checked_sub(page.num_values()).ok_or("its pages have more values than there are rows")?;
        }
    }
    Ok(())
}

/// Numbers as wide as a table's are.
fn widened(arrays: Arrays, kind: Kind) -> Result<Arrays, Failure> {
    let wide = match kind {
        Kind::Int => ArrowDataType::Int64,
        Kind::Float => ArrowDataType::Float64,
        Kind::Str | Kind::Flag => return Ok(arrays),
    };
    let widened = arrays.iter().map(|array| {
        let widened = cast(array.as_ref(), &wide, CastOptionsImpl::default())?;
        if widened.null_count() > array.null_count() {
            return Err("it has whole numbers beyond the range of i64".into());
        }
        Ok(widened)
    });
    widened.collect()
}

/// Why cells are no column.
enum Cells {
    Empty { row: usize },
    Mistyped,
}

fn data(kind: Kind, arrays: &Arrays) -> Result<Data, Cells> {
    Ok(match kind {
        Kind::Str => Data::Str(typed::<Utf8ViewArray>(arrays)?.iter().flat_map(|array| array.iter()).collect()),
        Kind::Flag => Data::Flag(filled(typed::<BooleanArray>(arrays)?.iter().flat_map(|array| array.iter()))?),
        Kind::Int => {
            let cells = typed::<PrimitiveArray<i64>>(arrays)?;
            Data::Int(filled(cells.iter().flat_map(|array| array.iter()).map(|cell| cell.copied()))?)
        }
        Kind::Float => {
            let cells = typed::<PrimitiveArray<f64>>(arrays)?;
            let cells = cells.iter().flat_map(|array| array.iter()).map(|cell| cell.copied());
            Data::Float(cells.map(|cell| cell.filter(|number| !number.is_nan())).collect())
        }
    })
}

/// The arrays as what they are by their type.
fn typed<A: Array>(arrays: &Arrays) -> Result<Vec<&A>, Cells> {
    let typed = arrays.iter().map(|array| array.as_any().downcast_ref());
    typed.collect::<Option<_>>().ok_or(Cells::Mistyped)
}

fn filled<T>(cells: impl Iterator<Item = Option<T>>) -> Result<Vec<T>, Cells> {
    cells.enumerate().map(|(row, cell)| cell.ok_or(Cells::Empty { row })).collect()
}
