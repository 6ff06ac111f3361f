use std::borrow::Cow;
use std::marker::PhantomData;

use crate::table::rows::Row;
use crate::table::{Kind, Table, TableError};

crate::rows! {
    /// A number with its interval.
    #[derive(Copy)]
    struct Mean {
        mean: Option<f64> = "mean of {}, nats",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of the interval of {}", "its upper end"],
    }

    struct Split<'a> {
        by: &'a str = "what by",
        value: &'a str = "which",
    }

    struct Item<'a> in "rows" {
        id: &'a str = "the item",
        label: Cow<'a, str> = "its label",
        group: Option<&'a str> = "its group",
        writer: Option<Cow<'a, str>> = "its writer",
        layer: i64 = "layer, from 0",
        weight: f64 = "its weight",
        effect: Mean as "effect_" = "the effect",
        shares: Vec<Option<f64>> = "share of this class",
        estimate: Option<f64> [if any] = "an estimate",
        split: Option<Split<'a>> [if any] as "",
        score: Option<f64> [newer] = "a score",
        base: Mean [newer] as "base_" = "the base",
        marked: bool = "whether it is marked",
    }

    struct Edited<'a, V: Variant> in "heads" {
        variant: &'a str as (V::COLUMN) = V::DOC,
        of: PhantomData<V> as "",
    }

    struct Bare in "bare" {
        n: i64 = "items",
    }
}

trait Variant: Default + 'static {
    const COLUMN: &'static str;
    const DOC: &'static str;
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Ablation;

impl Variant for Ablation {
    const COLUMN: &'static str = "mode";
    const DOC: &'static str = "zero or mean";
}

#[test]
fn a_parameter_of_the_row_type_names_columns() {
    let row = Edited { variant: "zero", of: PhantomData::<Ablation> };
    let table = Edited::table([row.clone()]).unwrap();
    assert_eq!((names(&table), table.name()), (vec!["mode"], "heads"));
    assert_eq!(Edited::<Ablation>::variant.name, "mode");
    assert_eq!(Edited::read(&table).unwrap(), [row]);
}

fn row(id: &str) -> Item<'_> {
    let effect = Mean { mean: Some(0.5), interval: Some((0.25, 0.75)) };
    Item { id, label: format!("l{id}").into(), layer: 3, weight: 2.0, effect, ..Item::default() }
}

fn names(table: &Table) -> Vec<&str> {
    table.columns().map(|column| column.name).collect()
}

#[test]
fn rows_come_back_equal_with_empty_cells() {
    let mut rows = vec![row("a"), row("b"), row("a")];
    rows[1] = Item { group: Some("g"), writer: Some("w".into()), effect: Mean::default(), marked: true, ..row("b") };
    rows[2].score = Some(f64::NAN);
    let table = Item::table(rows.clone()).unwrap();
    rows[2].score = None;
    assert_eq!(Item::read(&table).unwrap(), rows);
    assert_eq!(table.opt_strs("group").unwrap(), [None, Some("g"), None]);
    assert_eq!(table.floats("effect_ci_low").unwrap(), [Some(0.25), None, Some(0.25)]);
    assert_eq!(Bare::read(&Bare::table([Bare { n: 2 }]).unwrap()).unwrap(), [Bare { n: 2 }]);
}

#[test]
fn columns_stand_in_the_order_of_the_fields_with_kind_and_documentation() {
    let table = Item::table([row("a")]).unwrap();
    let all = ["id", "label", "group", "writer", "layer", "weight", "effect_mean", "effect_ci_low", "effect_ci_high"];
    let newer = ["score", "base_mean", "base_ci_low", "base_ci_high", "marked"];
    assert_eq!(names(&table), [&all[..], &newer].concat());
    let info = |name: &str| table.columns().find(|column| column.name == name).map(|c| (c.kind, c.doc.to_owned()));
    assert_eq!(info("layer"), Some((Kind::Int, "layer, from 0".to_owned())));
    assert_eq!(info("effect_mean"), Some((Kind::Float, "mean of the effect, nats".to_owned())));
    assert_eq!(info("base_ci_low"), Some((Kind::Float, "lower end of the interval of the base".to_owned())));
    assert_eq!(table.name(), "rows");
}

#[test]
fn a_table_without_rows_has_the_columns_that_every_table_has() {
    let table = Item::table([]).unwrap();
    assert_eq!(names(&table), names(&Item::table([row("a")]).unwrap()));
    assert_eq!(Item::read(&table).unwrap(), []);
}

#[test]
fn columns_that_no_row_has_are_left_out_and_read_as_none() {
    let split = Some(Split { by: "group", value: "g" });
    let (with, without) = (Item { estimate: Some(1.0), split, ..row("a") }, row("b"));
    let table = Item::table([with.clone(), without.clone()]).unwrap();
    assert_eq!(table.strs("value").unwrap(), ["g", ""]);
    assert_eq!(Item::read(&table).unwrap()[0], with);
    let table = Item::table([without.clone()]).unwrap();
    assert!(!table.has("estimate") && !table.has("by"));
    assert_eq!(Item::read(&table).unwrap(), [without]);
    assert_eq!(table.column(Item::estimate).unwrap(), [None]);
}

#[test]
fn listed_columns_are_named_when_the_table_is_made() {
    let listed = ["refusal".to_owned(), "class_own".to_owned()];
    let rows = [Item { shares: vec![Some(0.5), None], ..row("a") }, row("b")];
    let table = super::table("other", &listed, rows).unwrap();
    assert_eq!(table.floats("refusal").unwrap(), [Some(0.5), None]);
    assert_eq!((table.name(), names(&table)[9..11].to_vec()), ("other", vec!["refusal", "class_own"]));
}

/// A table of some rows without some of its columns.
fn without(gone: &[&str]) -> Table {
    let mut table = Item::table([row("a")]).unwrap();
    table.columns.retain(|column| !gone.contains(&column.name.as_str()));
    table
}

#[test]
fn an_older_table_lacks_what_is_newer_and_nothing_else() {
    let older = without(&["score", "base_mean", "base_ci_low", "base_ci_high"]);
    assert_eq!(Item::read(&older).unwrap(), [row("a")]);
    assert_eq!(older.column(Item::base).unwrap(), [Mean::default()]);
    let error = Item::read(&without(&["base_ci_low"])).unwrap_err();
    assert!(error.to_string().contains("no column \"base_ci_low\""), "a part of it is not enough: {error}");
    let error = Item::read(&without(&["layer"])).unwrap_err();
    assert!(matches!(&error, TableError::Unknown { column, .. } if column == "layer"), "{error}");
    let table = Table::new("rows").float("layr", "", [1.0]).unwrap();
    let error = table.column(Item::layer).unwrap_err().to_string();
    assert_eq!(error, "table rows: no column \"layer\"; did you mean \"layr\"?");
}

#[test]
fn a_column_of_another_kind_or_an_empty_cell_is_an_error_that_names_it() {
    let table = Table::new("rows").float("layer", "", [1.0]).unwrap().float("weight", "", [None]).unwrap();
    let said = |error: TableError| error.to_string();
    assert!(said(table.column(Item::layer).unwrap_err()).contains("expected integer values, found float"));
    assert!(said(table.column(Item::weight).unwrap_err()).contains("column \"weight\", row 1: expected a value"));
    let twice = super::table("rows", &["id".to_owned()], [row("a")]).unwrap_err();
    assert!(matches!(twice, TableError::Repeated { .. }));
}
