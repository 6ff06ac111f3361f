//! The exercise of CONTRIBUTING.md, compiled and run: an analysis is one file and one line of a registry.

use crate::support::cli::Bench;
use clap::Parser;
use serde_json::json;

#[path = "toy_analysis/surprise.rs"]
mod surprise;

gatelens::registry! {
    surprise::Surprise,
}

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[test]
fn the_exercise_runs_from_its_flags_to_its_report() {
    let bench = Bench::new();
    let prompts = bench.dataset("prompts.jsonl", &[json!({"id": "a", "prompt": "Help me understand bread better."})]);
    let out = bench.out("run");
    let words =
        ["x", "surprise", "demo", "--prompts", prompts.to_str().unwrap(), "--quiet", "--out", out.to_str().unwrap()];
    let cli = Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{e}"));
    gatelens::cli::analysis::run(cli.command.job(), &[]).unwrap_or_else(|e| panic!("{e}"));
    let table = gatelens::table::Table::read_parquet(out.join("entropies.parquet")).unwrap();
    assert!(table.floats("entropy").unwrap()[0].unwrap() > 0.0);
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("of 1 prompts"), "{report}");
    assert_eq!(WRITERS.len(), 1);
}

#[test]
fn the_exercise_is_the_one_that_contributing_shows() {
    let code = include_str!("toy_analysis/surprise.rs").trim();
    assert!(include_str!("../../CONTRIBUTING.md").contains(code), "CONTRIBUTING.md shows another analysis");
}
