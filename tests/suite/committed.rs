//! The committed example reports are of today's tables: each can be made again from its folder, and lacks no column that today's
//! runs write.

use crate::support::cli::{Bench, gatelens};
use gatelens::table::Table;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The columns of each table, by its command and name.
type Columns = BTreeMap<(String, String), BTreeSet<String>>;

fn parquet(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "parquet")).collect()
}

/// The command that a folder's record is of, if it has one.
fn command(dir: &Path) -> Option<String> {
    let record: Value = serde_json::from_slice(&std::fs::read(dir.join("run.json")).ok()?).unwrap();
    record["command"].as_str().map(str::to_string)
}

/// All folders below one that have a record and tables.
fn runs(below: &Path, found: &mut Vec<PathBuf>) {
    if command(below).is_some() && !parquet(below).is_empty() {
        found.push(below.to_path_buf());
    }
    let mut folders: Vec<PathBuf> = std::fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders.iter().filter(|path| path.is_dir()).for_each(|path| runs(path, found));
}

fn columns(dir: &Path, into: &mut Columns) {
    let command = command(dir).unwrap();
    for file in parquet(dir) {
        let table = Table::read_parquet(&file).unwrap();
        let names = table.columns().map(|column| column.name.to_string());
        into.entry((command.clone(), table.name().to_string())).or_default().extend(names);
    }
}

/// What today's runs on the demo model write.
fn today(bench: &Bench) -> Columns {
    let [demo, policy] = ["demo", "policy"].map(|name| bench.out(name));
    gatelens(["demo", "--quiet", "--out", demo.to_str().unwrap()]).done();
    let few = ["policy", "demo", "--max-pairs", "16", "--generate", "8", "--generate-pairs", "8"];
    gatelens([&few[..], &["--quiet", "--out", policy.to_str().unwrap()]].concat()).done();
    let (mut found, mut all) = (Vec::new(), Columns::new());
    [demo, policy].iter().for_each(|dir| runs(dir, &mut found));
    found.iter().for_each(|dir| columns(dir, &mut all));
    all
}

/// A share is in percent, and so is its interval: text, figures and tables agree.
#[test]
fn an_interval_beside_a_share_is_in_percent_too() {
    let reports = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports");
    let folders = std::fs::read_dir(reports).unwrap().map(|entry| entry.unwrap().path().join("report.md"));
    let mut intervals = 0;
    for report in folders.filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(&report).unwrap();
        for line in text.lines().filter(|line| line.starts_with('|')) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let beside = cells.windows(2).filter(|pair| pair[0].ends_with('%') && pair[1].starts_with("\\["));
            for pair in beside {
                assert!(pair[1].ends_with('%'), "{}: {line}", report.display());
                intervals += 1;
            }
        }
    }
    assert!(intervals > 20, "{intervals}");
}

#[test]
fn every_committed_report_can_be_made_of_its_folder_and_has_all_columns_of_today() {
    let bench = Bench::new();
    let reports = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports");
    let mut committed = Vec::new();
    runs(&reports, &mut committed);
    assert!(committed.len() > 10, "{committed:?}");
    let (today, mut wrong) = (today(&bench), Vec::new());
    for (number, dir) in committed.iter().enumerate() {
        let name = dir.strip_prefix(&reports).unwrap().display().to_string();
        let out = bench.out(&format!("report-{number}"));
        let ended = gatelens(["report", dir.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        if ended.code != 0 {
            wrong.push(format!("{name}: {}", ended.stderr.trim()));
        }
        let mut here = Columns::new();
        columns(dir, &mut here);
        for ((command, table), columns) in here {
            let wanted = today.get(&(command, table.clone()));
            let missing: Vec<&String> = wanted.into_iter().flatten().filter(|name| !columns.contains(*name)).collect();
            if !missing.is_empty() {
                wrong.push(format!("{name}/{table}.parquet lacks {missing:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "make these reports again:\n{}", wrong.join("\n"));
}
