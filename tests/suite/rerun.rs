//! `gatelens rerun`: a record is enough to run it again, and what comes out otherwise is said.

use crate::support::cli::{Bench, Ended, gatelens, pair};
use crate::support::copies::{Folder, Stored};
use crate::support::{Golden, family_dir};
use gatelens::analyses::AnalysisError;
use gatelens::analyses::dla::Dla;
use gatelens::dataset::{Input, Item};
use gatelens::run::{Cancel, RunError};
use gatelens::session::SessionError;
use gatelens::study::{self, Origin, Place, Progress, Study, Work, run_into};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

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
    r.amend("\"id:11\"", "\"id:12\"");
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
    // What is no analysis is run by its command.
    r.amend("\"command\": \"interchange\"", "\"command\": \"rm\"");
    r.amend("gatelens interchange", "rm interchange");
    r.rerun(&[]).refused(&["run.json", "`command_line`", "no command of gatelens"]);
    r.amend("rm interchange", "'rm interchange");
    r.rerun(&[]).refused(&["`command_line`", "shell"]);
    std::fs::write(r.run.join("run.json"), "{").unwrap();
    r.rerun(&[]).refused(&["run.json"]);
    assert_eq!(r.bench.written(), ["my run"]);
}

/// Pairs of the llama fixture in memory, and their metric's tokens.
fn in_memory() -> Dla {
    let golden = Golden::of("llama");
    let pair = |i| Item::new(Input::Ids(golden.ids("input_ids", i))).answer([11]).foil([23]);
    Dla { measured: vec![pair(0), pair(1)].into(), ..Dla::default() }
}

#[test]
fn a_study_that_was_run_from_rust_on_data_in_memory_runs_again() {
    let bench = Bench::new();
    let out = bench.out("mine");
    let study = Study { seed: 7, ..Study::open(family_dir("llama").to_str().unwrap()).unwrap() };
    let finished = run_into(&in_memory(), &study, &Place::at(&out), &Origin::default()).unwrap();
    let tables = study::run(&in_memory(), &study).unwrap().tables;
    assert!(tables.iter().eq(&finished.tables), "in memory and in a run directory");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap();
    assert_eq!((&record["command_line"], &record["seed"]), (&json!(""), &json!(7)));
    let named = record["parameters"]["prompts"].as_str().unwrap();
    assert!(out.join(named.strip_prefix("memory:").unwrap()).is_file(), "{named} is kept beside the tables");
    assert!(record["dataset_sha256"][named].is_string() && record["products"].is_string());
    let ended = gatelens(["rerun", out.to_str().unwrap()]);
    assert!(!ended.stderr.contains("note: "), "{}", ended.stderr);
    assert!(ended.done().contains("byte for byte those of"));
    let again = bench.out("mine.rerun");
    gatelens(["rerun", again.to_str().unwrap()]).done();
    std::fs::remove_file(out.join(named.strip_prefix("memory:").unwrap())).unwrap();
    gatelens(["rerun", out.to_str().unwrap(), "--force"]).refused(&["prompts-", "cannot be read"]);
}

/// Cancels a study once it has computed something.
struct Impatient(Cancel);

impl Progress for Impatient {
    fn advance(&self, _: Work) {
        self.0.cancel();
    }
}

#[test]
fn a_study_is_cancelled_between_two_layers_and_leaves_nothing_half_done() {
    let (bench, cancel) = (Bench::new(), Cancel::default());
    let progress: Option<Arc<dyn Progress>> = Some(Arc::new(Impatient(cancel.clone())));
    let study = Study { cancel, progress, ..Study::open(family_dir("llama").to_str().unwrap()).unwrap() };
    let why = study::run(&in_memory(), &study).map(drop).unwrap_err();
    assert!(matches!(why, AnalysisError::Session(SessionError::Run(RunError::Cancelled(_)))), "{why}");
    let why = run_into(&in_memory(), &study, &Place::at(bench.out("run")), &Origin::default()).map(drop);
    assert!(why.is_err_and(|why| !why.of_input() && why.to_string().contains("cancelled")));
    assert_eq!(bench.written(), [""; 0]);
}
