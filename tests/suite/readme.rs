//! Every number and word that the README says of a head stands in the committed tables.

use gatelens::table::Table;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A table's columns at the rows where `at` holds.
struct Rows {
    table: Table,
    rows: Vec<usize>,
}

impl Rows {
    fn of(file: &str, at: impl Fn(&Table, usize) -> bool) -> Self {
        let table = Table::read_parquet(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let rows = (0..table.rows()).filter(|row| at(&table, *row)).collect();
        Rows { table, rows }
    }

    /// The number in the only row.
    fn number(&self, column: &str) -> f64 {
        assert_eq!(self.rows.len(), 1, "{column}");
        self.table.floats(column).unwrap()[self.rows[0]].unwrap_or_else(|| panic!("{column} is empty"))
    }
}

/// A head's row of `interchange`, of the positive run.
fn interchange(layer: i64, head: i64) -> Rows {
    Rows::of("reports/ioi-smollm2/heads.parquet", |t, row| {
        let is = |name: &str, value: i64| t.ints(name).unwrap()[row] == value;
        is("layer", layer) && is("head", head) && t.strs("direction").unwrap()[row] == "necessity"
    })
}

/// A head's row of `dla`.
fn attribution(layer: i64, head: i64) -> Rows {
    Rows::of("reports/ioi-smollm2-dla/components.parquet", |t, row| {
        t.ints("layer").unwrap()[row] == layer && t.strs("component").unwrap()[row] == format!("head.{head}")
    })
}

/// `−0.05 [−0.42, 0.23]` as numbers.
fn numbers(cell: &str) -> Vec<f64> {
    let plain = cell.replace('−', "-").replace(['[', ']', ',', '+'], " ");
    plain.split_whitespace().map(|word| word.parse().unwrap_or_else(|e| panic!("{cell}: {e}"))).collect()
}

#[track_caller]
fn assert_shown(cell: &str, expected: &[f64]) {
    let shown = numbers(cell);
    assert_eq!(shown.len(), expected.len(), "{cell}");
    for (shown, expected) in shown.iter().zip(expected) {
        assert!((shown - expected).abs() <= 0.0051, "{cell} shows {shown}, the table has {expected}");
    }
}

/// What may be said of a head by the intervals of its two halves.
fn words([answer, foil]: [[f64; 3]; 2]) -> &'static str {
    let sign = |[_, low, high]: [f64; 3]| i32::from(low > 0.0) - i32::from(high < 0.0);
    match (sign(answer), sign(foil)) {
        (0, -1) => "lowers the wrong name",
        (1, 1) if answer[0] > foil[0] => "raises both, the right name more",
        (-1, -1) if answer[0] < foil[0] => "lowers both, the right name more",
        _ if answer[0].abs() < 0.25 && foil[0].abs() < 0.25 => "hardly writes towards either",
        other => panic!("nothing is said of {other:?}"),
    }
}

#[test]
fn as_many_heads_have_a_dot_as_the_readme_says() {
    let marked = Rows::of("reports/ioi-smollm2/heads.parquet", |t, row| {
        t.flags("marked").unwrap()[row] && t.strs("direction").unwrap()[row] == "necessity"
    });
    let layers = || marked.rows.iter().map(|row| marked.table.ints("layer").unwrap()[*row]);
    let (first, last) = (layers().min().unwrap(), layers().max().unwrap());
    let said = format!("{} heads, all in layers {first} to {last}, have a dot", marked.rows.len());
    assert!(std::fs::read_to_string(root().join("README.md")).unwrap().contains(&said), "{said}");
}

#[test]
fn what_the_readme_says_of_heads_is_what_the_committed_tables_say() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with("| L") && line.contains(".H")).collect();
    assert!(lines.len() >= 5, "{lines:?}");
    for line in lines {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (layer, head) = cells[0][1..].split_once(".H").expect("a head");
        let (layer, head) = (layer.parse().unwrap(), head.parse().unwrap());
        assert_shown(cells[1], &[interchange(layer, head).number("effect_mean")]);
        let row = attribution(layer, head);
        let half =
            |name: &str| ["_mean", "_ci_low", "_ci_high"].map(|end| row.number(&format!("{name}_attribution{end}")));
        let halves = [half("answer"), half("foil")];
        assert_shown(cells[2], &halves[0]);
        assert_shown(cells[3], &halves[1]);
        assert_eq!(cells[4], words(halves), "{line}");
    }
}
