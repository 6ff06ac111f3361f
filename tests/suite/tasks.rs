//! Pairs of tasks: what is written is cut alike by the tokenizer, scored by one token, the same for a seed; and what cannot be
//! made is said with numbers.

use crate::support::cli::{Bench, Ended, gatelens};
use crate::support::copies::Folder;
use crate::support::fixtures;
use gatelens::model::{Model, Options};
use gatelens::task::{self, Rejection, Task};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Words that answer the tasks, and some that prompts differ in. All others are cut into letters.
const WORDS: [&str; 63] = [
    " Mary",
    " John",
    " Tom",
    " Anna",
    " Paul",
    " Mark",
    " Kate",
    " Jack",
    " Emma",
    " Adam",
    " is",
    " are",
    " was",
    " were",
    " has",
    " have",
    " Paris",
    " Rome",
    " Tokyo",
    " Cairo",
    " Oslo",
    " Madrid",
    " London",
    " Berlin",
    " red",
    " blue",
    " green",
    " black",
    " white",
    " brown",
    " size",
    " files",
    " last",
    " name",
    " path",
    " mode",
    " key",
    " value",
    " index",
    " count",
    " data",
    " text",
    " line",
    " user",
    " date",
    " time",
    " type",
    " Japan",
    " Egypt",
    " Norway",
    " Spain",
    " England",
    " Germany",
    " teacher",
    " teachers",
    " dog",
    " dogs",
    " doctor",
    " doctors",
    " student",
    " students",
    " girl",
    " girls",
];

fn model() -> Folder {
    Folder::of("inputs/bytes").with_words(&WORDS)
}

fn make(model: &Path, task: &str, n: &str, out: &Path, more: &[&str]) -> Ended {
    let words = ["task", task, "--n", n, "--model", model.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens([&words, more].concat())
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("pairs");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What `gatelens tokens` says of a pair's field: each token with its text.
fn tokens(model: &Path, pairs: &Path) -> Vec<(String, String, Vec<String>)> {
    let out = gatelens(["tokens", model.to_str().unwrap(), "--pairs", pairs.to_str().unwrap(), "--json"]).done();
    let one = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let texts = line["tokens"].as_array().unwrap().iter().map(|token| token["text"].as_str().unwrap().to_string());
        (line["id"].as_str().unwrap().to_string(), line["field"].as_str().unwrap().to_string(), texts.collect())
    };
    out.lines().map(one).collect()
}

#[test]
fn pairs_of_every_task_are_cut_alike_and_scored_by_single_tokens() {
    let (bench, model) = (Bench::new(), model());
    for task in Task::ALL {
        let out = bench.out(task.name());
        let said = make(model.path(), task.name(), "6", &out, &[]).done();
        assert!(said.contains("6 pairs of") && said.contains("  positive  \""), "{said}");
        let (pairs, tokens) = (lines(&out), tokens(model.path(), &out));
        let of = |id: &Value, field: &str| {
            let found = tokens.iter().find(|(of, name, _)| id == of && name == field);
            &found.unwrap_or_else(|| panic!("{task}: no {field} of {id}")).2
        };
        assert_eq!(pairs.len(), 6);
        for pair in &pairs {
            let [positive, negative] = ["positive", "negative"].map(|field| of(&pair["id"], field));
            assert_eq!(positive.len(), negative.len(), "{task}: {pair}");
            assert_ne!(positive, negative, "{task}: {pair}");
            assert!(pair["positive"]["text"].is_string() && pair["group"].is_string(), "{pair}");
            let [answer, foil] = ["answer", "foil"].map(|field| {
                let (written, read) = (pair[field].as_array().unwrap().len(), of(&pair["id"], field));
                assert_eq!(read.len(), written, "{task}: one token each: {pair}");
                read.iter().collect::<HashSet<_>>()
            });
            assert!(answer.is_disjoint(&foil), "{task}: {pair}");
            assert_eq!(pair["spans"]["END"], json!([positive.len() - 1]), "{task}: {pair}");
        }
        let ids: HashSet<&str> = pairs.iter().map(|pair| pair["id"].as_str().unwrap()).collect();
        let prompts: HashSet<String> =
            pairs.iter().map(|pair| format!("{}{}", pair["positive"], pair["negative"])).collect();
        assert_eq!((ids.len(), prompts.len()), (6, 6), "{task}");
    }
}

#[test]
fn the_spans_of_a_task_are_the_tokens_of_its_words() {
    let (bench, model) = (Bench::new(), model());
    let out = bench.out("ioi");
    make(model.path(), "ioi", "8", &out, &[]).done();
    let tokens = tokens(model.path(), &out);
    for pair in lines(&out) {
        let text = |field: &str, span: &str| -> String {
            let (_, _, texts) = tokens.iter().find(|(id, name, _)| pair["id"] == **id && name == field).unwrap();
            let at = pair["spans"][span].as_array().unwrap().iter().map(|at| at.as_u64().unwrap() as usize);
            at.map(|at| texts[at].as_str()).collect()
        };
        let (io, s1, s2) = (text("positive", "IO"), text("positive", "S1"), text("positive", "S2"));
        assert_eq!((pair["answer"][0].as_str(), pair["foil"][0].as_str()), (Some(io.as_str()), Some(s1.as_str())));
        assert_eq!((&s1, text("positive", "END").as_str()), (&s2, " to"), "the subject comes up again: {pair}");
        assert_eq!(text("negative", "S2"), io, "the counterfactual repeats the other name: {pair}");
        assert_eq!((text("negative", "IO"), text("negative", "S1")), (io, s1), "{pair}");
    }
}

#[test]
fn what_is_written_runs_by_span() {
    let (bench, model) = (Bench::new(), model());
    let out = bench.out("ioi.jsonl");
    make(model.path(), "ioi", "3", &out, &["--quiet"]).done();
    let ended = bench.interchange(model.path(), &out, &["--by-span", "--direction", "necessity"]);
    assert!(!ended.stderr.contains("scored"), "every answer is one token: {}", ended.stderr);
    ended.done();
    assert!(bench.out("run").join("necessity-S2.png").is_file());
}

#[test]
fn a_seed_makes_the_same_file_and_another_makes_another() {
    let (bench, model) = (Bench::new(), model());
    let made = |name: &str, seed: &str| {
        let out = bench.out(name);
        make(model.path(), "colours", "12", &out, &["--seed", seed]).done();
        std::fs::read(out).unwrap()
    };
    assert_eq!(made("a", "1"), made("b", "1"));
    assert_ne!(made("c", "1"), made("d", "2"));
}

#[test]
fn sentence_piece_is_scored_by_the_digit_and_not_by_the_space_before() {
    let (bench, model) = (Bench::new(), fixtures().join("inputs/sentencepiece"));
    let out = bench.out("addition.jsonl");
    make(&model, "addition", "10", &out, &[]).done();
    let tokens = tokens(&model, &out);
    for pair in lines(&out) {
        let texts = |field: &str| &tokens.iter().find(|(id, name, _)| pair["id"] == **id && name == field).unwrap().2;
        let at = |span: &str| pair["spans"][span][0].as_u64().unwrap() as usize;
        let number = |text: &str| text.trim().parse::<u32>().unwrap_or_else(|_| panic!("{text:?} of {pair}"));
        let [a, b] = ["A", "B"].map(|span| number(&texts("positive")[at(span)]));
        let other = number(&texts("negative")[at("B")]);
        assert_eq!((number(&texts("answer")[0]), number(&texts("foil")[0])), (a + b, a + other), "{pair}");
        assert_eq!(texts("answer")[0], (a + b).to_string(), "no space");
        assert_eq!(texts("positive")[0], "<s>");
    }
}

#[test]
fn too_few_candidates_are_told_with_their_number_and_the_reasons() {
    let bench = Bench::new();
    let out = bench.out("pairs.jsonl");
    let parts = [
        "addition: 0 of 4000 candidates can be used, and 5 pairs are wanted",
        "no token for a part of them",
        "another task",
    ];
    make(Path::new("demo"), "addition", "5", &out, &[]).refused(&parts);
    let parts =
        ["capitals: 0 of 4000 candidates", "answer or foil is more than one token", "different numbers of tokens"];
    make(&fixtures().join("inputs/sentencepiece"), "capitals", "5", &out, &[]).refused(&parts);
    assert_eq!(bench.written(), [""; 0]);
}

#[test]
fn a_file_is_replaced_only_by_force_and_flags_that_exclude_each_other_are_told() {
    let (bench, model) = (Bench::new(), model());
    let out = bench.out("pairs.jsonl");
    make(model.path(), "ioi", "2", &out, &[]).done();
    make(model.path(), "ioi", "3", &out, &[]).refused(&["pairs.jsonl", "--force"]);
    make(model.path(), "ioi", "3", &out, &["--force"]).done();
    assert_eq!(lines(&out).len(), 3);
    make(model.path(), "ioi", "0", &out, &["--force"]).told_by_the_parser(&["0 is not in 1.."]);
    make(model.path(), "ioi", "3", &out, &["--import", "a.csv"]).told_by_the_parser(&["--import"]);
    make(model.path(), "poetry", "3", &out, &[]).told_by_the_parser(&["poetry", "greater-than"]);
    let model = model.path().to_str().unwrap();
    gatelens(["task", "ioi", "--model", model, "--out", "x.jsonl"]).told_by_the_parser(&["--n"]);
    gatelens(["task", "--model", model, "--out", "x.jsonl"]).told_by_the_parser(&["NAME"]);
}

#[test]
fn a_check_runs_the_model_on_the_pairs() {
    let (bench, model) = (Bench::new(), model());
    let out = bench.out("pairs.jsonl");
    let said = make(model.path(), "agreement", "40", &out, &["--check", "--json"]).done();
    let summary: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&summary["pairs"], &summary["of"]), (&json!(40), &json!("agreement")), "{said}");
    let rejected: u64 = summary["rejected"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(summary["candidates"].as_u64().unwrap(), 40 + rejected);
    assert_eq!(summary["first"]["answer"].as_array().unwrap().len(), 1, "{said}");
    // What interchange says of the same pairs without an edit.
    bench.interchange(model.path(), &out, &["--direction", "necessity"]).done();
    let pairs = gatelens::table::Table::read_parquet(bench.out("run").join("pairs.parquet")).unwrap();
    let share = |column: &str, prefers: fn(f64) -> bool| {
        let values = &pairs.floats(column).unwrap()[..40];
        values.iter().filter(|value| prefers(value.unwrap())).count() as f64 / 40.0
    };
    assert_eq!(summary["check"]["positive_prefers_answer"], json!(share("base_metric", |metric| metric > 0.0)));
    assert_eq!(summary["check"]["negative_prefers_foil"], json!(share("other_metric", |metric| metric < 0.0)));
    let text = make(model.path(), "agreement", "4", &out, &["--check", "--force"]).done();
    assert!(text.contains("check: the positive prompt prefers the answer in "), "{text}");
}

fn import(bench: &Bench, model: &Path, csv: &str, more: &[&str]) -> (Ended, PathBuf) {
    let (csv, out) = (bench.text("data.csv", csv), bench.out("data.jsonl"));
    let words = ["task", "--import", csv.to_str().unwrap(), "--model", model.to_str().unwrap(), "--out"];
    (gatelens([&words[..], &[out.to_str().unwrap()], more].concat()), out)
}

#[test]
fn csv_becomes_pairs_and_rows_of_unequal_length_are_left_out() {
    let (bench, model) = (Bench::new(), fixtures().join("inputs/bytes"));
    let csv = "clean,corrupted,correct_idx,incorrect_idx,note\n\
               \"When Mary, John\",\"When John, Mary\",352,353,x\n\
               When Mary,When Mary and John,352,353,unequal\n\
               When John,When Mary,\"[352, 351]\",[353],y\n\
               When John,When Mary,352,353,again\n";
    let (ended, out) = import(&bench, &model, csv, &[]);
    let said = ended.done();
    assert!(said.contains("2 pairs of") && said.contains("of 4 candidates"), "{said}");
    assert!(said.contains("1 rejected because the two prompts have different numbers of tokens"), "{said}");
    let pairs = lines(&out);
    assert_eq!(pairs.iter().map(|pair| &pair["id"]).collect::<Vec<_>>(), ["data-1", "data-3"]);
    assert_eq!(pairs[0]["positive"], json!({"text": "When Mary, John"}));
    assert_eq!((&pairs[0]["answer"], &pairs[0]["foil"]), (&json!([352]), &json!([353])));
    assert_eq!((&pairs[1]["answer"], &pairs[1]["foil"]), (&json!([352, 351]), &json!([353])));
    assert!(pairs[0]["spans"]["END"].is_array());
}

#[test]
fn wrong_csv_is_refused_with_its_line_and_column() {
    let model = fixtures().join("inputs/bytes");
    let names = "clean,corrupted,correct_idx,incorrect_idx";
    let cases = [
        (
            "clean,corrupted,correct,incorrect_idx\n",
            vec!["no column \"correct_idx\"", "found clean, corrupted, correct,"],
        ),
        ("NAMES\n", vec!["holds no pair"]),
        ("NAMES\na,b,1,2\na,b,x,2\n", vec!["line 3", "column \"correct_idx\"", "found \"x\"", "as in 12 or [12, 40]"]),
        ("NAMES\na,b,1,[]\n", vec!["line 2", "column \"incorrect_idx\"", "found \"[]\""]),
        ("NAMES\na,b,1,400\n", vec!["line 2", "from 0 to 399", "found \"400\""]),
        ("NAMES\na,,1,2\n", vec!["line 2", "column \"corrupted\"", "expected a text, found nothing"]),
        ("NAMES\na,b,1\n", vec!["cannot be read as CSV"]),
        ("NAMES\na,b c d,1,2\n", vec!["none of 1 rows can be used", "different numbers of tokens"]),
        ("NAMES\na,b,7,\"[1, 7]\"\n", vec!["none of 1 rows", "answer and foil are the same token"]),
    ];
    for (csv, parts) in cases {
        let bench = Bench::new();
        let (ended, _) = import(&bench, &model, &csv.replace("NAMES", names), &[]);
        ended.refused(&[&["data.csv"], &parts[..]].concat());
        assert_eq!(bench.written(), [""; 0]);
    }
}

#[test]
fn pairs_are_made_in_rust_too() {
    let folder = model();
    let model = Model::open(folder.path().to_str().unwrap(), &Options::default()).unwrap();
    let made = task::make(Task::Docstring, &model, 3, 7).unwrap();
    assert_eq!((made.pairs.len(), made.pairs[0].id.as_str()), (3, "docstring-1"));
    assert!(made.pairs.iter().all(|pair| pair.spans.iter().any(|span| span.name == "C_def")));
    assert!(made.rejected.0.contains_key(&Rejection::Answers));
    assert_eq!(made.candidates, 3 + made.rejected.0.values().sum::<usize>());
}
