//! What `gatelens policy` refuses and leaves out before anything long is run, its flags, and its report made again.

use crate::support::cli::{Bench, Ended, gatelens, listed};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn policy(out: &Path, words: &[&str]) -> Ended {
    gatelens([&["policy"], words, &["--quiet", "--out", out.to_str().unwrap()]].concat())
}

/// Pairs of the demo with one more that no cipher has.
fn with_another(bench: &Bench) -> PathBuf {
    let own = String::from_utf8(gatelens::demo::file("pairs.jsonl").unwrap().to_vec()).unwrap();
    let mut lines: Vec<Value> = own.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut another = lines[0].clone();
    another["id"] = "another".into();
    lines.push(another);
    bench.dataset("mine.jsonl", &lines)
}

#[test]
fn a_pair_without_its_cipher_is_found_before_anything_is_run() {
    let bench = Bench::new();
    let (pairs, out) = (with_another(&bench), bench.out("suite"));
    let pairs = pairs.to_str().unwrap();
    let all = ["--max-pairs", "1000", "--dry-run"];
    let run = |words: &[&str]| policy(&out, &[words, &all].concat());
    run(&["demo", "--pairs", pairs, "--cipher", "demo:cipher.jsonl"]).refused(&[
        "cipher.jsonl",
        "`another`",
        "mine.jsonl",
    ]);
    // The default pairs are looked at too.
    run(&["demo:blind", "--cipher", pairs, "--pairs", "demo:policy.jsonl"]).refused(&["mine.jsonl", "policy.jsonl"]);
    // Pairs of one's own have no cipher of ours: the letter cipher is taken.
    run(&["demo", "--pairs", pairs]).done();
    // What is not used needs none.
    policy(&out, &["demo", "--pairs", pairs, "--cipher", "demo:cipher.jsonl", "--max-pairs", "10", "--dry-run"]).done();
    assert!(bench.written().is_empty());
}

#[test]
fn the_model_is_one_and_no_pattern() {
    let bench = Bench::new();
    let folder = gatelens::demo::folder().unwrap();
    let pattern = folder.join("[bm]*d*").display().to_string();
    policy(&bench.out("suite"), &[&pattern]).refused(&["is a pattern", "--against"]);
    assert!(bench.written().is_empty());
}

#[test]
fn the_suite_takes_the_flags_of_every_command() {
    let bench = Bench::new();
    // One thread, whatever the machine has; two models are looked at before the first is run.
    gatelens(["policy", "demo", "--dry-run", "--threads", "1", "--ignore-config-key", "mlp_bias"]).done();
    gatelens(["policy", "demo", "--dry-run", "--threads", "0"]).refused(&["--threads", "1..=1024"]);
    let printed = gatelens(["policy", "demo", "--dry-run", "--json", "--max-pairs", "8"]).done();
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), lines[0]["entry"].as_str()), (9, Some("behaviour")));
    let out = bench.out("suite");
    let words = ["demo", "--max-pairs", "16", "--generate", "8", "--generate-pairs", "4", "--seed", "2"];
    policy(&out, &[&words[..], &["--engine", "full"]].concat()).done();
    let record = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(out.join(name).join("run.json")).unwrap()).unwrap()
    };
    assert_eq!(record("")["command"], "policy");
    assert_eq!((&record("screen")["engine"], &record("screen")["seed"]), (&"full".into(), &2.into()));
}

#[test]
fn a_model_that_refuses_nothing_is_asked_nothing_more_unless_all_is_asked_for() {
    let bench = Bench::new();
    // Requests that nobody refuses, on both sides.
    let own = String::from_utf8(gatelens::demo::file("pairs.jsonl").unwrap().to_vec()).unwrap();
    let own: Vec<Value> = own.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let harmless = |i: usize| {
        let mut pair = own[i].clone();
        pair["positive"] = own[(i + 7) % own.len()]["negative"].clone();
        pair
    };
    let pairs = bench.dataset("harmless.jsonl", &(0..16).map(harmless).collect::<Vec<_>>());
    let words =
        ["demo", "--pairs", pairs.to_str().unwrap(), "--max-pairs", "16", "--generate", "8", "--generate-pairs", "4"];
    let (few, all) = (bench.out("few"), bench.out("all"));
    policy(&few, &words).done();
    assert!(few.join("behaviour").is_dir() && !few.join("screen").exists(), "{:?}", listed(&few));
    let report = std::fs::read_to_string(few.join("report.md")).unwrap();
    assert!(report.contains("Left out, and why") && report.contains("15 claims are **not testable here**"), "{report}");
    assert_eq!(report.matches("there is no refusal to route").count(), 1, "a reason is said once: {report}");
    assert!(
        report.contains("Of 16 claims on this checkpoint 1 does not hold and 15 are not testable here."),
        "{report}"
    );
    policy(&all, &[&words[..], &["--all"]].concat()).done();
    assert!(all.join("screen").is_dir());
    let claims = |dir: &Path| gatelens::table::Table::read_parquet(dir.join("claims.parquet")).unwrap();
    assert_eq!(claims(&few).strs("verdict").unwrap(), claims(&all).strs("verdict").unwrap());
}

#[test]
fn the_report_of_a_suite_is_made_again_with_its_verdicts() {
    let bench = Bench::new();
    let (out, again, both) = (bench.out("suite"), bench.out("again"), bench.out("both"));
    let words = ["demo", "--against", "demo:blind", "--max-pairs", "32", "--generate", "8", "--generate-pairs", "4"];
    policy(&out, &words).done();
    gatelens(["report", out.to_str().unwrap(), "--out", again.to_str().unwrap()]).done();
    let report = |dir: &Path| std::fs::read_to_string(dir.join("report.md")).unwrap();
    let without_command = |dir: &Path| -> Vec<String> {
        let command = |line: &str| line.starts_with("gatelens policy") || line.starts_with("gatelens report");
        report(dir).lines().filter(|line| !command(line)).map(str::to_string).collect()
    };
    assert_eq!(without_command(&out), without_command(&again));
    assert!(report(&again).contains("## Verdicts") && report(&again).contains("(<compare-depth.png>)"));
    for (at, _) in report(&again).match_indices("](<") {
        let name = report(&again)[at + 3..].split(">)").next().unwrap().to_string();
        assert!(again.join(&name).is_file(), "the report shows {name}");
    }
    // Beside another run it says which is which.
    let screen = out.join("demo-screen");
    gatelens(["report", screen.to_str().unwrap(), out.to_str().unwrap(), "--out", both.to_str().unwrap()]).done();
    let report = report(&both);
    assert!(report.starts_with("# Report\n") && report.contains("## 02-suite: Verdicts"), "{report}");
    for (at, _) in report.match_indices("](<") {
        let name = report[at + 3..].split(">)").next().unwrap();
        assert!(both.join(name).is_file(), "the report shows {name}");
    }
}
