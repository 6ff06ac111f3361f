use super::*;

fn heads() -> Table {
    Table::new("heads")
        .str("model", "the model's name", ["demo", "demo", "demo"])
        .and_then(|table| table.opt_str("group", "the subset", [Some("a"), None, Some("ü→")]))
        .and_then(|table| table.int("layer", "layer, from 0", [0, 1, -2]))
        .and_then(|table| table.float("effect_mean", "in logits", [Some(0.25), None, Some(f64::NAN)]))
        .and_then(|table| table.flag("significant", "q < 0.05", [true, false, true]))
        .unwrap()
}

#[test]
fn a_table_comes_back_from_parquet_as_it_was_with_its_documentation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heads.parquet");
    heads().write_parquet(&path).unwrap();
    let back = Table::read_parquet(&path).unwrap();
    assert_eq!(back, heads());
    assert_eq!(back.columns().nth(2).unwrap(), ColumnInfo { name: "layer", kind: Kind::Int, doc: "layer, from 0" });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn the_same_table_gives_the_same_bytes() {
    assert_eq!(heads().to_parquet().unwrap(), heads().to_parquet().unwrap());
}

#[test]
fn a_table_larger_than_one_row_group_keeps_its_order_and_bytes() {
    let rows = 600_000i64;
    let make = || {
        Table::new("items")
            .int("row", "", 0..rows)
            .and_then(|table| table.str("id", "", (0..rows).map(|row| format!("p{}", row % 97))))
            .and_then(|table| table.float("metric", "", (0..rows).map(|row| row as f64 / 3.0)))
            .unwrap()
    };
    let bytes = make().to_parquet().unwrap();
    assert_eq!(bytes, make().to_parquet().unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    assert_eq!(Table::read_parquet(file.path()).unwrap(), make());
}

#[test]
fn nan_and_none_are_empty_cells() {
    assert_eq!(heads().floats("effect_mean").unwrap(), [Some(0.25), None, None]);
    let plain = Table::new("t").float("x", "", [1.0, f64::NAN]).unwrap();
    assert_eq!(plain.floats("x").unwrap(), [Some(1.0), None]);
}

#[test]
fn columns_of_unequal_length_are_refused() {
    let error = heads().int("n", "", [1]).unwrap_err().to_string();
    assert_eq!(error, "table heads: column \"n\" has 1 rows, expected 3 as in the columns before it");
}

#[test]
fn a_repeated_column_is_refused() {
    assert!(heads().int("layer", "", [1, 2, 3]).unwrap_err().to_string().contains("is there already"));
}

#[test]
fn an_unknown_column_is_an_error_with_the_nearest_name() {
    let error = heads().floats("efect_mean").unwrap_err().to_string();
    assert_eq!(error, "table heads: no column \"efect_mean\"; did you mean \"effect_mean\"?");
    assert!(heads().ints("zzzzzz").unwrap_err().to_string().contains("it has model, group, layer"));
}

#[test]
fn a_column_of_another_kind_is_an_error_that_names_both() {
    let error = heads().ints("model").unwrap_err().to_string();
    assert_eq!(error, "table heads: column \"model\": expected integer values, found text values");
}

#[test]
fn strs_refuses_empty_cells_and_opt_strs_shows_them() {
    assert!(heads().strs("group").unwrap_err().to_string().contains("column \"group\", row 2"));
    assert_eq!(heads().opt_strs("group").unwrap(), [Some("a"), None, Some("ü→")]);
    assert_eq!(heads().strs("model").unwrap(), ["demo"; 3]);
}

#[test]
fn a_table_without_rows_keeps_its_columns() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let empty = Table::new("none").str("id", "the id", [""; 0]).and_then(|t| t.float("x", "", [0.0; 0])).unwrap();
    empty.write_parquet(file.path()).unwrap();
    let back = Table::read_parquet(file.path()).unwrap();
    assert_eq!((back.rows(), back.columns().count()), (0, 2));
}

#[test]
fn a_damaged_file_is_an_error_wherever_the_damage_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heads.parquet");
    let bytes = heads().to_parquet().unwrap();
    for cut in (0..bytes.len()).step_by(97) {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(matches!(Table::read_parquet(&path), Err(TableError::Damaged { .. })), "cut at {cut}");
    }
    assert!(matches!(Table::read_parquet(folder.path().join("no")), Err(TableError::Read { .. })));
}

#[test]
fn no_changed_byte_makes_the_reader_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heads.parquet");
    let bytes = heads().to_parquet().unwrap();
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 0x55;
        std::fs::write(&path, changed).unwrap();
        // Some bytes are values or documentation: then another table is read.
        let _ = Table::read_parquet(&path);
    }
}

fn elsewhere(name: &str) -> Result<Table, TableError> {
    Table::read_parquet(format!("{}/tests/fixtures/tables/{name}.parquet", env!("CARGO_MANIFEST_DIR")))
}

#[test]
fn a_file_from_elsewhere_is_read_with_wider_numbers() {
    let table = elsewhere("numbers").unwrap();
    assert_eq!((table.name(), table.rows()), ("numbers", 5));
    for column in ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"] {
        assert_eq!(table.ints(column).unwrap(), [1, 2, 3, 4, 5], "{column}");
    }
    for column in ["f32", "f64"] {
        assert_eq!(table.floats(column).unwrap(), [Some(0.5), None, Some(-1.25), None, Some(3.0)], "{column}");
    }
    assert_eq!(table.opt_strs("text").unwrap(), [Some("a"), Some("ü→"), None, Some(""), Some("a")]);
    assert_eq!(table.strs("large_text").unwrap(), ["v", "w", "x", "y", "z"]);
    assert_eq!(table.flags("flag").unwrap(), [true, false, true, true, false]);
}

#[test]
fn categories_are_read_as_text() {
    let red = [Some("red"), Some("blue"), None, Some("red"), Some("red")];
    assert_eq!(elsewhere("numbers").unwrap().opt_strs("category").unwrap(), red);
    let table = elsewhere("polars").unwrap();
    assert_eq!(table.opt_strs("category").unwrap(), [Some("red"), None, Some("blue")]);
    assert_eq!(table.strs("level").unwrap(), ["low", "high", "low"]);
}

#[test]
fn a_file_without_arrows_schema_is_read() {
    let table = elsewhere("duckdb").unwrap();
    assert_eq!(table.ints("n").unwrap(), [0, 1, 2]);
    assert_eq!(table.floats("x").unwrap(), [Some(0.0), Some(0.5), Some(1.0)]);
    assert_eq!(table.strs("id").unwrap(), ["p0", "p1", "p2"]);
    assert_eq!(table.flags("flag").unwrap(), [false, false, true]);
}

#[test]
fn every_compression_is_read() {
    let ids: Vec<String> = (0..300).map(|row| format!("row {}", row % 7)).collect();
    let numbers: Vec<Option<f64>> = (0..300).map(|row| Some(f64::from(row) / 4.0)).collect();
    for codec in ["none", "snappy", "gzip", "brotli", "lz4", "zstd"] {
        for version in [1, 2] {
            let table = elsewhere(&format!("codec-{codec}-{version}")).unwrap();
            assert_eq!(table.strs("id").unwrap(), ids, "{codec}, pages of version {version}");
            assert_eq!(table.floats("x").unwrap(), numbers, "{codec}, pages of version {version}");
        }
    }
}

#[test]
fn what_no_table_holds_is_refused_by_its_column() {
    let error = elsewhere("dates").unwrap_err().to_string();
    assert!(error.ends_with("column \"when\": expected text, integers, floats or booleans, found dates"), "{error}");
    let error = elsewhere("beyond").unwrap_err().to_string();
    assert!(error.contains("column \"n\": it has whole numbers beyond the range of i64"), "{error}");
}
