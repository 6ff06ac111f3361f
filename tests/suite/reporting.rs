//! `gatelens report` and `gatelens compare`: what is made of run directories, and what they refuse.

use crate::support::cli::{Bench, gatelens, listed, pair};
use crate::support::{Golden, family_dir};
use gatelens::rundir::RunDir;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A run of `interchange` on the llama fixture.
fn run(bench: &Bench, name: &str, more: &[&str]) -> PathBuf {
    let golden = Golden::of("llama");
    let pairs = [0, 1].map(|i| pair(&format!("p{i}"), &golden.ids("input_ids", i), &golden.ids("donor_ids", i)));
    let pairs = bench.dataset("pairs.jsonl", &pairs);
    let out = bench.out(name);
    bench.interchange_to(&out, &family_dir("llama"), &pairs, &[&["--quiet"], more].concat()).done();
    out
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_report_over_several_runs_has_its_title_and_the_command_that_made_it() {
    let bench = Bench::new();
    let (a, b, out) = (run(&bench, "a", &[]), run(&bench, "b", &["--seed", "1"]), bench.out("report"));
    let said = gatelens(["report", text(&a), text(&b), "--title", "Two seeds", "--out", text(&out)]).done();
    assert!(said.contains("report.html"), "{said}");
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    for part in
        ["# Two seeds\n", "--title 'Two seeds'", "Interchange of llama (a)", "Interchange of llama (b)", "b: Necessity"]
    {
        assert!(report.contains(part), "no {part} in {report}");
    }
    for figure in ["01-a-necessity.png", "02-b-sufficiency.png"] {
        assert!(out.join(figure).is_file() && report.contains(&format!("(<{figure}>)")), "{figure}");
    }
    let record: Value = serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["command"], "report");
    // The command that the report begins with makes it again.
    let line = record["command_line"].as_str().unwrap();
    let words: Vec<String> = line.split(' ').skip(1).map(|word| word.replace('\'', "")).collect();
    assert!(words.contains(&"--title".to_string()) && words.contains(&text(&b).to_string()), "{line}");
}

#[test]
fn a_report_that_was_stopped_is_made_anew_without_more_ado() {
    let bench = Bench::new();
    let (a, out) = (run(&bench, "a", &[]), bench.out("report"));
    // What it leaves when it is killed: a folder with its lock and a figure.
    let stopped = RunDir::create(&out, false, false).unwrap();
    stopped.write_atomic("01-a-necessity.png", b"half").unwrap();
    drop(stopped);
    gatelens(["report", text(&a), "--out", text(&out)]).done();
    assert!(std::fs::read(out.join("01-a-necessity.png")).unwrap().starts_with(b"\x89PNG"));
    gatelens(["report", text(&a), "--out", text(&out)]).refused(&["exists", "--force"]);
}

#[test]
fn what_is_read_is_never_replaced_by_what_is_made_of_it() {
    let bench = Bench::new();
    let (a, b) = (run(&bench, "a", &[]), run(&bench, "b", &["--seed", "1"]));
    let before = listed(&a);
    for command in ["report", "compare"] {
        let around = bench.path("out");
        for out in [&a, &around] {
            let words = [command, text(&a), text(&b), "--force", "--out", text(out)];
            gatelens(words).refused(&["is to be read there", "--out"]);
        }
    }
    assert_eq!((listed(&a), bench.written()), (before, vec!["a".to_string(), "b".to_string()]));
}

#[test]
fn what_is_no_run_of_an_analysis_and_what_is_damaged_is_told() {
    let bench = Bench::new();
    let (a, report, again) = (run(&bench, "a", &[]), bench.out("report"), bench.out("again"));
    gatelens(["report", text(&a), "--out", text(&report)]).done();
    gatelens(["report", text(&report), "--out", text(&again)]).refused(&[
        "report",
        "made by `report`",
        "no run of an analysis",
    ]);
    gatelens(["compare", text(&report), text(&a), "--out", text(&again)]).refused(&["made by `report`"]);
    std::fs::write(a.join("heads.parquet"), "no table").unwrap();
    gatelens(["report", text(&a), "--out", text(&again)]).refused(&["heads.parquet", "not a Parquet file"]);
    gatelens(["report", text(&bench.out("none")), "--out", text(&again)]).refused(&["none", "give a run directory"]);
    assert_eq!(bench.written(), ["a", "report"]);
}

#[test]
fn only_runs_that_show_the_same_of_heads_are_compared() {
    let bench = Bench::new();
    let a = run(&bench, "a", &[]);
    let out = bench.out("compared");
    let refused = |name: &str, more: &[&str], parts: &[&str]| {
        let other = run(&bench, name, more);
        gatelens(["compare", text(&a), text(&other), "--out", text(&out)]).refused(parts);
    };
    refused("site", &["--site", "resid_pre"], &["site", "--site resid_pre", "--site z"]);
    refused("direction", &["--direction", "necessity"], &["direction", "--direction necessity", "both directions"]);
    refused("position", &["--position", "all"], &["position", "--position all", "at one position"]);
    let b = run(&bench, "b", &["--seed", "1"]);
    gatelens(["compare", text(&a), text(&b), "--out", text(&out)]).done();
    assert!(out.join("overlap.parquet").is_file());
}
