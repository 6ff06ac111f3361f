//! `gatelens rerun`: a record is enough to run it again, and what comes out otherwise is said.

use crate::support::cli::{Bench, Ended, gatelens, pair};
use crate::support::copies::{Folder, Stored};
use crate::support::{Golden, family_dir};
use serde_json::json;
use std::path::PathBuf;

/// A run of the llama fixture on two pairs, one file of them.
struct Recorded {
    bench: Bench,
    run: PathBuf,
    lines: [serde_json::Value; 2],
}

impl Recorded {
    fn new() -> Self {
        let (bench, golden) = (Bench::new(), Golden::of("llama"));
        let lines = [0, 1].map(|i| {
            let ids = |name: &str| json!({ "ids": golden.ids(name, i) });
            json!({"id": i, "positive": ids("input_ids"), "negative": ids("donor_ids")})
        });
        let run = bench.out("my run");
        let recorded = Recorded { bench, run, lines };
        recorded.bench.dataset("pairs.jsonl", &recorded.lines);
        let pairs = recorded.bench.path("pairs.jsonl");
        recorded
            .bench
            .interchange_to(
                &recorded.run,
                &family_dir("llama"),
                &pairs,
                &["--quiet", "--answer", "id:11", "--foil", "id:23"],
            )
            .done();
        recorded
    }

    fn rerun(&self, more: &[&str]) -> Ended {
        gatelens([&["rerun", self.run.to_str().unwrap()], more].concat())
    }

    /// Changes the recorded command.
    fn amend(&self, from: &str, to: &str) {
        let record = self.run.join("run.json");
        let text = std::fs::read_to_string(&record).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&record, text.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn a_run_comes_out_again_byte_for_byte() {
    let r = Recorded::new();
    let said = r.rerun(&[]).done();
    assert!(said.contains("my run.rerun: 12 files, byte for byte those of"), "{said}");
    assert_eq!(r.bench.written(), ["my run", "my run.rerun"]);
    let again = r.rerun(&[]);
    assert_eq!(again.stderr.matches("error: ").count(), 1, "{}", again.stderr);
    again.refused(&["my run.rerun", "exists", "--force"]);
    r.rerun(&["--force"]).done();
    let record = std::fs::read_to_string(r.run.join("run.json")).unwrap();
    assert!(record.contains("out/my run'"), "the first run's record is as it was: {record}");
}

#[test]
fn a_changed_dataset_is_named_and_so_is_what_came_of_it() {
    let r = Recorded::new();
    r.bench.dataset("pairs.jsonl", &r.lines[..1]);
    let ended = r.rerun(&[]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("pairs.jsonl has changed since"), "{}", ended.stderr);
    assert!(ended.stdout.contains("pairs.parquet: has") && ended.stdout.contains("rows, had"), "{}", ended.stdout);
    assert!(ended.stderr.contains("are not those of"), "{}", ended.stderr);
}

#[test]
fn a_changed_model_is_named() {
    let bench = Bench::new();
    let model = Folder::of("llama");
    let pairs = bench.dataset("pairs.jsonl", &[pair("p", &[5, 6, 7], &[8, 9, 10])]);
    bench.interchange(model.path(), &pairs, &["--quiet"]).done();
    let run = bench.out("run");
    let words = ["rerun", run.to_str().unwrap(), "--force"];
    let said = |ended: Ended| ended.stderr;
    assert!(!said(gatelens(words)).contains("changed"));
    // Other numbers in tensors of the same shapes, and one more that nobody reads.
    let model = model.weights(|tensors| {
        tensors.insert("extra".to_string(), Stored::floats(&[1], &[0.0]));
    });
    let now = said(gatelens(words));
    assert!(
        now.contains(&format!("note: model `{}`: its weights' files have changed", model.path().display())),
        "{now}"
    );
}

#[test]
fn a_changed_experiment_file_is_named_and_a_part_runs_again_by_itself() {
    let bench = Bench::new();
    let text = "models = [\"demo\"]\n[defaults]\npairs = \"demo:pairs.jsonl\"\nmax_pairs = 12\n[[analysis]]\ncommand = \"screen\"\n\
                [[analysis]]\ncommand = \"cascade\"\ncircuit = \"run:screen/circuit.json\"\n";
    let spec = bench.text("spec.toml", text);
    let all = bench.out("all");
    gatelens(["run", spec.to_str().unwrap(), "--quiet", "--out", all.to_str().unwrap()]).done();
    let (part, again) = (all.join("cascade"), bench.out("again"));
    let (part, again) = (part.to_str().unwrap(), again.to_str().unwrap());
    gatelens(["rerun", part]).refused(&["cascade", "part of an experiment", "--out"]);
    let said = gatelens(["rerun", part, "--out", again]);
    assert!(!said.stderr.contains("note: "), "{}", said.stderr);
    assert!(said.done().contains("byte for byte"));
    std::fs::write(&spec, text.replace("max_pairs = 12", "max_pairs = 10")).unwrap();
    let ended = gatelens(["rerun", all.to_str().unwrap()]);
    assert!(ended.stderr.contains("spec.toml has changed since"), "{}", ended.stderr);
    assert_eq!(ended.code, 1);
}

#[test]
fn what_another_command_changes_is_told_by_column() {
    let r = Recorded::new();
    r.amend("--answer id:11", "--answer id:12");
    let ended = r.rerun(&["--out", r.bench.out("other").to_str().unwrap()]);
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    for part in ["`effect_mean` differs in 32 of 32 rows", "`patched_metric` differs in 64 of 64 rows, by", " at most"]
    {
        assert!(ended.stdout.contains(part), "no {part} in: {}", ended.stdout);
    }
    assert!(ended.stderr.contains("of 12 files of"), "{}", ended.stderr);
}

#[test]
fn a_record_that_is_none_is_refused() {
    let r = Recorded::new();
    gatelens(["rerun", r.bench.out("nothing").to_str().unwrap()]).refused(&["run.json", "give a run directory"]);
    r.amend("gatelens interchange", "rm interchange");
    r.rerun(&[]).refused(&["run.json", "`command_line`", "no command of gatelens"]);
    r.amend("rm interchange", "'rm interchange");
    r.rerun(&[]).refused(&["`command_line`", "shell"]);
    std::fs::write(r.run.join("run.json"), "{").unwrap();
    r.rerun(&[]).refused(&["run.json"]);
    assert_eq!(r.bench.written(), ["my run"]);
}
