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

/// What the page on circuits says of SmolLM2 stands in the committed tables.
#[test]
fn the_page_on_circuits_says_what_its_tables_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports/circuits-smollm2/circuit");
    let table = |name: &str| Table::read_parquet(folder.join(format!("{name}.parquet"))).unwrap();
    let page = include_str!("../../docs/circuits.md");
    let start = page.find("## And in a trained model?").unwrap();
    let section = page[start..].split("\n## ").next().unwrap().replace('\n', " ");
    let said = |part: String| assert!(section.contains(&part), "no `{part}`");
    let share = |x: f64| format!("{:.1}", 100.0 * x).replace('-', "−");
    let (summary, curve) = (table("summary"), table("curve"));
    let number = |row: usize, column: &str| summary.floats(column).unwrap()[row].unwrap();
    for (score, name) in
        [("exact", "exact effects"), ("reader_exact", "`reader`"), ("eap", "`eap`"), ("eap_ig", "`eap-ig`")]
    {
        let row = summary.strs("score").unwrap().iter().position(|of| *of == score).unwrap();
        let left = summary.ints("edges_left").unwrap()[row].to_string().replace("70328", "70,328");
        let all = if score == "exact" { " of 70,651" } else { "" };
        let [cpr, cmd, overlap] = ["cpr", "cmd", "jaccard"].map(|column| number(row, column));
        said(format!("| {name} | {left}{all} | {cpr:.3} | {cmd:.3} | {overlap:.2} |"));
    }
    assert!(curve.ints("edges").unwrap().contains(&70651));
    let ends = |column: &str| ["_ci_low", "_ci_high"].map(|end| share(number(0, &format!("{column}{end}"))));
    let [low, high] = ends("faithfulness");
    said(format!("keep {} % of the gap (95 % interval {low} to {high} %)", share(number(0, "faithfulness"))));
    let [low, high] = ends("completeness");
    said(format!("{} % is left ({low} to {high} %)", share(number(0, "completeness"))));

    let tested = table("minimality");
    let names: Vec<String> = ["writer", "reader"].map(|name| tested.strs(name).unwrap())[..]
        .iter()
        .fold(vec![String::new(); tested.rows()], |names, column| {
            names.into_iter().zip(column.iter()).map(|(name, part)| format!("{name}{part}->")).collect()
        })
        .into_iter()
        .map(|name| name.trim_end_matches("->").to_string())
        .collect();
    let (scores, lost) = (tested.strs("score").unwrap(), tested.floats("faithfulness_lost").unwrap());
    let ends = ["ci_low", "ci_high"].map(|name| tested.floats(name).unwrap());
    let exact: Vec<usize> = (0..tested.rows()).filter(|row| scores[*row] == "exact").collect();
    assert!(exact.iter().all(|row| ends[0][*row].unwrap() > 0.0 || ends[1][*row].unwrap() < 0.0));
    let against: Vec<&String> = exact.iter().filter(|row| lost[**row].unwrap() < 0.0).map(|row| &names[*row]).collect();
    assert_eq!((exact.len(), against), (23, vec![&"a19.h2->a20.h0<v>".to_string()]));
    let of = |name: &str| {
        lost[*exact.iter().find(|row| names[**row] == name).unwrap_or_else(|| panic!("no {name}"))].unwrap()
    };
    for name in ["input->m0", "m0->a23.h1<v>", "m0->a17.h4<q>", "a23.h3->logits"] {
        said(format!("`{name}` ({} %)", share(of(name))));
    }
    for name in ["a17.h4->a20.h0<v>", "a17.h4->m17", "m17->a20.h0<v>"] {
        assert!(of(name) > 0.0);
    }
    for head in [0, 1, 2, 7] {
        assert!(of(&format!("a20.h0->a23.h{head}<q>")) > 0.0 && of(&format!("a23.h{head}->logits")) > 0.0);
    }
    // A score is minus an effect.
    let support = table("stability");
    let rows =
        |i: &usize| support.strs("writer").unwrap()[*i] == "input" && support.strs("reader").unwrap()[*i] == "m0";
    let of: BTreeMap<&str, f64> = (0..support.rows())
        .filter(rows)
        .map(|i| (support.strs("score").unwrap()[i], support.floats("support").unwrap()[i].unwrap()))
        .collect();
    said(format!("(+{:.1}, exactly −{:.1})", -of["eap"], of["exact"]));
}

/// What the page on checkpoints says of two fine-tunings stands in the committed tables.
#[test]
fn the_page_on_checkpoints_says_what_its_tables_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports/checkpoints-smollm2");
    let changes = Table::read_parquet(folder.join("changes.parquet")).unwrap();
    let page = include_str!("../../docs/checkpoints.md").replace('\n', " ");
    let texts = |name: &str| changes.strs(name).unwrap();
    let (models, kinds, measures) = (texts("model"), texts("kind"), texts("measure"));
    let of = |model: &str, measure: &str| {
        let row =
            (0..changes.rows()).find(|i| models[*i] == model && kinds[*i] == "all" && measures[*i] == measure).unwrap();
        ["mean", "ci_low", "ci_high"].map(|column| changes.floats(column).unwrap()[row].unwrap())
    };
    let share = |x: f64| format!("{:.1}", 100.0 * x);
    /// A line's name, its measure, how a number is written, and its unit.
    type Line<'a> = (&'a str, &'a str, &'a dyn Fn(f64) -> String, &'a str);
    let written: [Line; 7] = [
        ("unchanged entries", "update_sparsity", &share, " %"),
        ("relative change", "relative_change", &|x| format!("{x:.4}"), ""),
        ("spectral drift", "spectral_drift", &|x| format!("{x:.5}"), ""),
        ("largest left angle", "angle_left_max", &|x| if x < 1.0 { format!("{x:.2}") } else { format!("{x:.1}") }, "°"),
        (
            "largest right angle",
            "angle_right_max",
            &|x| if x < 1.0 { format!("{x:.2}") } else { format!("{x:.1}") },
            "°",
        ),
        ("changed entries in the principal tenth", "in_principal", &share, " %"),
        ("changed entries in the smallest tenth", "in_small", &share, " %"),
    ];
    for (name, measure, format, unit) in written {
        let cell = |model: &str| {
            let [mean, low, high] = of(model, measure).map(format);
            format!("{mean}{unit} ({low} to {high})")
        };
        let line = format!("| {name} | {} | {} |", cell("sft/checkpoint-200"), cell("off-principal/checkpoint-200"));
        assert!(page.contains(&line), "no `{line}`");
    }
}
