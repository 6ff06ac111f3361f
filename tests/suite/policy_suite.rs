//! Behaviour, screen, comparison and the whole policy suite, on the demo's two variants, whose verdicts are known because the
//! models were built.

use crate::support::cli::{Bench, command, gatelens, listed};
use gatelens::table::Table;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

fn table(dir: &Path, name: &str) -> Table {
    Table::read_parquet(dir.join(format!("{name}.parquet"))).unwrap_or_else(|e| panic!("{e}"))
}

/// Runs the suite on a model of the demo, all pairs.
fn policy(bench: &Bench, out: &str, words: &[&str]) {
    let out = bench.out(out);
    let all = ["--max-pairs", "160", "--generate", "16", "--quiet", "--out", out.to_str().unwrap()];
    gatelens([&["policy"], words, &all].concat()).done();
}

/// Each claim's verdict.
fn verdicts(dir: &Path) -> BTreeMap<String, String> {
    let claims = table(dir, "claims");
    let (names, verdicts) = (claims.strs("claim").unwrap(), claims.strs("verdict").unwrap());
    names.iter().zip(verdicts).map(|(name, verdict)| ((*name).to_string(), verdict.to_string())).collect()
}

const HOLDS: &str = "holds";
const NOT: &str = "does not hold";
const UNTESTABLE: &str = "not testable here";

/// What both variants were built for: one gate that writes little, amplifiers behind it, a signal that decides by degrees,
/// topics that are marked with different strength, languages that are not.
const BUILT: [(&str, &str); 10] = [
    ("refuses", HOLDS),
    ("gate-necessity", HOLDS),
    ("gate-attribution", HOLDS),
    ("cascade", HOLDS),
    // The gate writes nothing for a harmless topic: to silence it is to exchange it.
    ("ablation-misses", NOT),
    ("modulation", HOLDS),
    ("evasion", HOLDS),
    ("thresholds-topic", HOLDS),
    ("thresholds-language", NOT),
    ("commitment", HOLDS),
];

fn expect(found: &BTreeMap<String, String>, wanted: &[(&str, &str)]) {
    for (claim, verdict) in BUILT.iter().chain(wanted) {
        assert_eq!(found.get(*claim).map(String::as_str), Some(*verdict), "{claim}: {found:?}");
    }
    assert_eq!(found.len(), BUILT.len() + wanted.len());
}

/// The edges at the gate that matter, as the suite found them: beyond chance, and at least 1 % of the gap.
fn gates_edges(dir: &Path) -> BTreeSet<String> {
    let edges = table(dir, "edges");
    let (writers, readers) = (edges.strs("writer").unwrap(), edges.strs("reader").unwrap());
    let [q, share] = ["q_value", "share_of_gap"].map(|name| edges.floats(name).unwrap());
    let [low, high] = ["ci_low", "ci_high"].map(|name| edges.floats(name).unwrap());
    assert!(writers.iter().zip(&readers).all(|(w, r)| *w == "a3.h5" || r.starts_with("a3.h5<")));
    assert!(edges.floats("effect_mean").unwrap().iter().all(Option::is_some), "all are run");
    let matter = |i: &usize| q[*i].unwrap() < 0.05 && share[*i].unwrap().abs() >= 0.01;
    let found: Vec<usize> = (0..edges.rows()).filter(matter).collect();
    assert!(found.iter().all(|i| low[*i].unwrap() * high[*i].unwrap() > 0.0), "no interval holds 0");
    found.into_iter().map(|i| format!("{}->{}", writers[i], readers[i])).collect()
}

/// Those that were built there.
fn built_at_the_gate() -> BTreeSet<String> {
    let built: Value = serde_json::from_slice(gatelens::demo::file("edges.json").unwrap()).unwrap();
    let at_gate = built["edges"].as_object().unwrap().keys().filter(|edge| edge.contains("a3.h5"));
    at_gate.cloned().collect()
}

#[test]
fn the_demo_which_sees_through_the_cipher_gets_the_verdicts_that_it_was_built_for() {
    let bench = Bench::new();
    policy(&bench, "suite", &["demo", "--against", "demo:blind"]);
    let dir = bench.out("suite");
    expect(
        &verdicts(&dir),
        &[
            // Both variants have as many parameters, and the same circuit.
            ("ablation-weakens", UNTESTABLE),
            ("relocation", NOT),
            ("cipher-collapse", NOT),
            ("cipher-puzzle", NOT),
            ("injection", UNTESTABLE),
            ("cipher-contrast", NOT),
        ],
    );
    let claims = table(&dir, "claims");
    let row = |claim: &str| claims.strs("claim").unwrap().iter().position(|c| *c == claim).unwrap();
    let float = |claim: &str, column: &str| claims.floats(column).unwrap()[row(claim)];
    assert!(float("gate-attribution", "statistic").unwrap() < 0.01);
    assert!(float("gate-necessity", "p_value").unwrap() < 0.001);
    // The gate decides alone, on pairs that it was not picked on too.
    let held_out = table(&dir, "demo-screen/held_out");
    assert_eq!(float("gate-necessity", "statistic"), held_out.floats("necessity").unwrap()[2]);
    assert!((float("gate-necessity", "statistic").unwrap() - 1.0).abs() < 0.01);
    assert_eq!(float("commitment", "statistic"), Some(3.0));
    assert_eq!(float("relocation", "statistic"), Some(1.0));
    for name in
        ["claims.parquet", "compare-overlap.parquet", "compare-checkpoints.parquet", "report.html", "tables.tex"]
    {
        assert!(dir.join(name).is_file(), "{name}");
    }
    let report = std::fs::read_to_string(dir.join("report.md")).unwrap();
    let figures = report.matches("![").count();
    assert!(figures > 20, "{figures}");
    for (at, _) in report.match_indices("](<") {
        let name = report[at + 3..].split(">)").next().unwrap();
        assert!(dir.join(name).is_file(), "the report shows {name}");
        // Controls of two series are in tints of their colours.
        let caption =
            report[at..].split_once("\n\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or_default());
        let tinted = ["modulate-metric", "commitment"].iter().any(|of| name.contains(of));
        assert!(!tinted || !caption.contains("grey"), "{name}: {caption}");
    }
    assert_eq!(gates_edges(&dir.join("demo-edges")), built_at_the_gate());
    let parts = table(&dir.join("demo-edges"), "parts");
    let (sides, strongest) = (parts.strs("side").unwrap(), parts.opt_strs("strongest").unwrap());
    assert_eq!((&sides[..], parts.ints("matter").unwrap()), (&["q", "k", "v", "out"][..], &[0, 1, 1, 5][..]));
    assert_eq!(strongest[1..3], [Some("m1"), Some("m1")]);
    let [mean, low, high] = ["effect_mean", "ci_low", "ci_high"].map(|name| parts.floats(name).unwrap());
    assert!((1..4).all(|i| mean[i].unwrap() < 0.0 && low[i] <= mean[i] && mean[i] <= high[i] && high[i] < Some(0.0)));
    assert!(report.contains("What feeds the parts, and what reads them") && report.contains("**a3.h5.** Its query:"));
    let record = std::fs::read_to_string(dir.join("demo-cascade/run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["parameters"]["circuit"], "run:demo-screen/circuit.json");
}

#[test]
fn the_variant_that_is_blind_to_the_cipher_gets_the_verdicts_that_it_was_built_for() {
    let bench = Bench::new();
    policy(&bench, "suite", &["demo:blind"]);
    expect(
        &verdicts(&bench.out("suite")),
        &[
            ("ablation-weakens", UNTESTABLE),
            ("relocation", UNTESTABLE),
            ("cipher-collapse", HOLDS),
            ("cipher-puzzle", HOLDS),
            ("injection", HOLDS),
            ("cipher-contrast", HOLDS),
        ],
    );
}

#[test]
fn a_suite_that_was_stopped_goes_on_and_comes_to_the_same() {
    let bench = Bench::new();
    let few = ["demo", "--max-pairs", "16", "--generate", "8", "--generate-pairs", "8"];
    let run = |out: &str, more: &[&str]| {
        let out = bench.out(out);
        gatelens([&["policy"], &few[..], more, &["--quiet", "--out", out.to_str().unwrap()]].concat())
    };
    run("whole", &[]).done();
    let (whole, partial) = (bench.out("whole"), bench.out("again.partial"));
    // Stopped once the first three were there.
    let out = bench.out("again");
    let words = [&["policy"], &few[..], &["--quiet", "--out", out.to_str().unwrap()]].concat();
    let mut child = command(words).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !partial.join("contrast-methods").is_dir() && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "{:?}", listed(&partial));
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(partial.is_dir(), "it came to its end before it was stopped");
    run("again", &["--resume"]).done();
    let again = bench.out("again");
    assert_eq!(listed(&whole), listed(&again));
    for name in ["claims.parquet", "cipher/injection.parquet", "commitment/layers.parquet", "contrast/heads.parquet"] {
        assert_eq!(std::fs::read(whole.join(name)).unwrap(), std::fs::read(again.join(name)).unwrap(), "{name}");
    }
}

/// The demo's pairs, positive prompts replaced by harmless ones of other pairs.
fn harmless(bench: &Bench, n: usize) -> std::path::PathBuf {
    let pairs = String::from_utf8(gatelens::demo::file("pairs.jsonl").unwrap().to_vec()).unwrap();
    let pairs: Vec<Value> = pairs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let one = |i: usize| {
        let mut pair = pairs[i].clone();
        pair["positive"] = pairs[(i + 7) % pairs.len()]["negative"].clone();
        pair
    };
    bench.dataset("harmless.jsonl", &(0..n).map(one).collect::<Vec<_>>())
}

#[test]
fn a_model_that_refuses_nothing_gets_a_report_that_says_so() {
    let bench = Bench::new();
    let pairs = harmless(&bench, 32);
    let words = ["demo", "--pairs", pairs.to_str().unwrap(), "--cipher", pairs.to_str().unwrap()];
    policy(&bench, "suite", &words);
    let found = verdicts(&bench.out("suite"));
    assert_eq!(found["refuses"], NOT);
    for (claim, verdict) in found.iter().filter(|(claim, _)| *claim != "refuses") {
        assert_eq!(verdict, UNTESTABLE, "{claim}");
    }
    let claims = table(&bench.out("suite"), "claims");
    assert!(claims.strs("because").unwrap()[1].contains("there is no refusal to route"));
}

#[test]
fn what_the_suite_costs_is_said_before_it_runs() {
    let bench = Bench::new();
    let out = bench.out("suite");
    let said = gatelens(["policy", "demo", "--dry-run", "--quiet", "--out", out.to_str().unwrap()]).done();
    assert_eq!(said.matches("wavefront").count(), 9, "{said}");
    assert!(bench.written().is_empty());
}

#[test]
fn the_suite_refuses_what_it_cannot_read_and_leaves_nothing() {
    let bench = Bench::new();
    let out = bench.out("suite");
    let out = out.to_str().unwrap();
    let run = |words: &[&str]| gatelens([&["policy"], words, &["--quiet", "--out", out]].concat());
    run(&["demo", "--pairs", "nowhere.jsonl"]).refused(&["nowhere.jsonl", "check the path"]);
    run(&["nowhere"]).refused(&["nowhere"]);
    run(&["demo", "--against", "nowhere/step-*"]).refused(&["nothing matches"]);
    assert!(!bench.written().iter().any(|name| name == "suite"), "{:?}", bench.written());
}

#[test]
fn behaviour_finds_the_words_that_answers_begin_with_and_other_analyses_take_them() {
    let bench = Bench::new();
    let out = bench.out("behaviour");
    let pairs = "demo:pairs.jsonl";
    let words = ["behaviour", "demo", "--pairs", pairs, "--generate", "16", "--quiet", "--out", out.to_str().unwrap()];
    gatelens(words).done();
    let metric: Value = serde_json::from_slice(&std::fs::read(out.join("metric.json")).unwrap()).unwrap();
    assert_eq!(
        (metric["answer"][0]["text"].clone(), metric["foil"][0]["text"].clone()),
        (json!("Sorry"), json!("Sure"))
    );
    let rates = table(&out, "rates");
    let (sides, bys) = (rates.strs("side").unwrap(), rates.strs("by").unwrap());
    let refusals = |side: &str| (0..rates.rows()).find(|i| sides[*i] == side && bys[*i] == "all").unwrap();
    assert_eq!(rates.floats("refusal").unwrap()[refusals("positive")], Some(1.0));
    assert_eq!(rates.floats("refusal").unwrap()[refusals("negative")], Some(0.0));
    let separation = table(&out, "separation");
    assert!(separation.strs("basis").unwrap().iter().all(|b| *b == "refusals"));
    assert!(separation.floats("auc").unwrap().iter().all(|auc| *auc == Some(1.0)));

    // The same pairs without tokens of their own.
    let text = String::from_utf8(gatelens::demo::file("pairs.jsonl").unwrap().to_vec()).unwrap();
    let bare = |line: &str| {
        let mut pair: Value = serde_json::from_str(line).unwrap();
        let fields = pair.as_object_mut().unwrap();
        fields.remove("answer");
        fields.remove("foil");
        pair
    };
    let bare = bench.dataset("bare.jsonl", &text.lines().take(8).map(bare).collect::<Vec<_>>());
    let metric = out.join("metric.json");
    let (bare, metric) = (bare.to_str().unwrap(), metric.to_str().unwrap());
    let with = bench.out("with");
    let words = ["interchange", "demo", "--pairs", bare, "--quiet", "--out", with.to_str().unwrap()];
    gatelens(words).refused(&["bare.jsonl", "answer", "is not given"]);
    gatelens([&words[..], &["--metric", metric]].concat()).done();
    let base = table(&with, "pairs").floats("base_metric").unwrap()[0].unwrap();
    assert!(base > 3.0, "{base}");
}

#[test]
fn a_metric_of_another_model_is_refused() {
    let bench = Bench::new();
    let file = json!({"model": "other", "answer": [{"id": 7, "text": "Nope"}], "foil": [{"id": 6, "text": "Sure"}]});
    let metric = bench.text("metric.json", &file.to_string());
    let out = bench.out("run");
    let words = ["interchange", "demo", "--pairs", "demo:pairs.jsonl", "--quiet", "--out", out.to_str().unwrap()];
    let with = |path: &Path| gatelens([&words[..], &["--metric", path.to_str().unwrap()]].concat());
    with(&metric).refused(&["metric.json", "\"Nope\" in other", "run `behaviour`"]);
    with(&bench.text("broken.json", "{")).refused(&["broken.json", "is no metric.json"]);
    with(&bench.path("missing.json")).refused(&["missing.json", "check the path"]);
}

#[test]
fn screening_names_the_gate_and_counts_what_the_estimate_misses() {
    let bench = Bench::new();
    let out = bench.out("screen");
    let words = ["screen", "demo", "--pairs", "demo:pairs.jsonl", "--quiet", "--out", out.to_str().unwrap()];
    gatelens([&words[..], &["--candidates", "8", "--sample", "12"]].concat()).done();
    let file: Value = serde_json::from_slice(&std::fs::read(out.join("circuit.json")).unwrap()).unwrap();
    let built: Value = serde_json::from_slice(gatelens::demo::file("circuit.json").unwrap()).unwrap();
    assert_eq!(file["gate"], built["gate"]);
    let mut carriers: Vec<(i64, i64)> = serde_json::from_value(file["carriers"].clone()).unwrap();
    carriers.sort_unstable();
    let mut circuit: Vec<(i64, i64)> = serde_json::from_value(built["amplifiers"].clone()).unwrap();
    circuit.extend(serde_json::from_value::<Vec<(i64, i64)>>(built["gate"].clone()).unwrap());
    circuit.sort_unstable();
    for head in &circuit {
        assert!(carriers.contains(head), "{head:?}: {carriers:?}");
    }
    let (heads, missed) = (table(&out, "heads"), table(&out, "missed"));
    let run = |direction: &str| -> Vec<bool> {
        let (directions, effects) = (heads.strs("direction").unwrap(), heads.floats("effect_mean").unwrap());
        (0..heads.rows()).filter(|i| directions[*i] == direction).map(|i| effects[i].is_some()).collect()
    };
    // Each direction names eight; what either names is run in both, and so is the sample.
    let candidates = missed.ints("candidates").unwrap()[0];
    assert!((8..=16).contains(&candidates), "{candidates}");
    assert_eq!(run("necessity"), run("sufficiency"));
    assert_eq!(run("necessity").into_iter().filter(|run| *run).count() as i64, candidates + 12);
    assert_eq!(missed.strs("direction").unwrap(), ["necessity", "sufficiency", "both"]);
    for i in 0..3 {
        let int = |name: &str| missed.ints(name).unwrap()[i];
        assert_eq!((int("candidates") + int("rest"), int("sampled")), (64, 12));
        let ends = (missed.floats("ci_low").unwrap()[i].unwrap(), missed.floats("ci_high").unwrap()[i].unwrap());
        let found = missed.floats("missed").unwrap()[i].unwrap();
        let most = (int("rest") - int("sampled") + int("significant")) as f64;
        assert!(ends.0 <= found && found <= ends.1 && ends.1 <= most, "{found}: {ends:?}");
        assert!(int("significant") as f64 <= ends.0);
    }
    // Whichever half picks it, it is the gate, and as strong on the other.
    let held_out = table(&out, "held_out");
    assert_eq!((held_out.ints("layer").unwrap(), held_out.ints("head").unwrap()), (&[3; 3][..], &[5; 3][..]));
    assert!(held_out.floats("necessity").unwrap().iter().all(|share| (share.unwrap() - 1.0).abs() < 0.01));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("Each half of the pairs by itself picks L3.H5 too"));
}

#[test]
fn estimates_are_made_of_pairs_of_every_language() {
    let bench = Bench::new();
    // Languages in turn: every third line is of one.
    let pairs = String::from_utf8(gatelens::demo::file("pairs.jsonl").unwrap().to_vec()).unwrap();
    let pairs: Vec<Value> = pairs.lines().take(30).map(|line| serde_json::from_str(line).unwrap()).collect();
    let turned = |(i, pair): (usize, &Value)| {
        let mut pair = pair.clone();
        pair["lang"] = json!(["en", "de", "fr"][i % 3]);
        pair
    };
    let file = bench.dataset("turns.jsonl", &pairs.iter().enumerate().map(turned).collect::<Vec<_>>());
    let out = bench.out("screen");
    let words = ["screen", "demo", "--pairs", file.to_str().unwrap(), "--estimate-pairs", "10", "--quiet", "--out"];
    gatelens([&words[..], &[out.to_str().unwrap()]].concat()).done();
    let groups = table(&out, "groups");
    let (bys, values) = (groups.strs("by").unwrap(), groups.strs("value").unwrap());
    let estimates = groups.floats("estimate_mean").unwrap();
    for lang in ["en", "de", "fr"] {
        let of = (0..groups.rows()).filter(|i| bys[*i] == "lang" && values[*i] == lang).collect::<Vec<_>>();
        assert!(!of.is_empty() && of.iter().all(|i| estimates[*i].is_some()), "{lang}");
    }
}

#[test]
fn pairs_are_chosen_evenly_from_languages() {
    let bench = Bench::new();
    let out = bench.out("screen");
    let words = ["screen", "demo", "--pairs", "demo:pairs.jsonl", "--max-pairs", "20", "--quiet", "--out"];
    gatelens([&words[..], &[out.to_str().unwrap()]].concat()).done();
    let pairs = table(&out, "pairs");
    let (ids, langs) = (pairs.strs("id").unwrap(), pairs.strs("lang").unwrap());
    let unique: BTreeMap<&str, &str> = ids.iter().copied().zip(langs.iter().copied()).collect();
    assert_eq!(unique.len(), 20);
    assert_eq!(unique.values().filter(|lang| **lang == "de").count(), 4, "32 of 160 pairs are German");
}

#[test]
fn checkpoints_are_compared_by_their_run_directories() {
    let bench = Bench::new();
    let run = |command: &str, model: &str, out: &str| {
        let dir = bench.out(out);
        let words = [command, model, "--pairs", "demo:pairs.jsonl", "--max-pairs", "40", "--quiet", "--out"];
        gatelens([&words[..], &[dir.to_str().unwrap()]].concat()).done();
        dir.to_str().unwrap().to_string()
    };
    let a = run("screen", "demo", "a");
    let b = run("interchange", "demo:blind", "b");
    let c = run("behaviour", "demo", "c");
    let out = bench.out("compared");
    gatelens(["compare", &a, &b, &c, "--out", out.to_str().unwrap()]).done();
    let (checkpoints, overlap) = (table(&out, "checkpoints"), table(&out, "overlap"));
    assert_eq!(checkpoints.strs("model").unwrap(), ["demo", "demo:blind"]);
    assert_eq!(checkpoints.ints("gate_layer").unwrap(), [3, 3]);
    assert_eq!(checkpoints.floats("refusal").unwrap().iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
    assert!(overlap.floats("shared").unwrap()[0].unwrap() >= 5.0);
    assert!(overlap.floats("p_value").unwrap()[0].unwrap() < 0.001);
    assert_eq!(overlap.floats("gate_shift").unwrap(), [Some(0.0)]);
    let again = bench.out("again");
    let again = again.to_str().unwrap();
    gatelens(["compare", &a, "--out", again]).refused(&["needs two checkpoints"]);
    gatelens(["compare", &a, "nowhere", "--out", again]).refused(&["nowhere"]);
    let record: Value = serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap();
    assert_eq!(
        (record["pairs"][1]["heads"]["file"].clone(), record["pairs"][1]["heads"]["n"].clone()),
        (json!("demo:pairs.jsonl"), json!(40))
    );
}

#[test]
fn only_runs_over_the_same_pairs_are_compared() {
    let bench = Bench::new();
    let run = |out: &str, command: &str, more: &[&str]| {
        let dir = bench.out(out);
        let words = [command, "demo", "--pairs", "demo:pairs.jsonl", "--quiet", "--out", dir.to_str().unwrap()];
        gatelens([&words, more].concat()).done();
        dir.to_str().unwrap().to_string()
    };
    let few = ["--max-pairs", "12"];
    let first = run("first", "interchange", &few);
    let compare = |other: &str, more: &[&str]| {
        let out = bench.out("compared");
        gatelens([&["compare", &first, other, "--out", out.to_str().unwrap()], more].concat())
    };
    let more = run("more", "interchange", &["--max-pairs", "16"]);
    compare(&more, &[]).refused(&[&first, "12 pairs", &more, "16 pairs", "--different-pairs"]);
    let asked = run("asked", "behaviour", &["--max-pairs", "16", "--generate", "4"]);
    let same = run("same", "screen", &few);
    let out = bench.out("compared");
    let words = ["compare", &first, &same, &asked, "--out", out.to_str().unwrap()];
    gatelens(words).refused(&[&asked, "16 pairs"]);
    compare(&more, &["--different-pairs"]).done();
    assert_eq!(table(&out, "checkpoints").flags("same_pairs").unwrap(), [true, false]);
    assert!(std::fs::read_to_string(out.join("report.md")).unwrap().contains("The pairs are not the same"));
    let record: Value = serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["different_pairs"], json!(true));
}

#[test]
fn experiment_files_name_patterns_of_models_and_files_of_their_own_run() {
    let bench = Bench::new();
    let run = |text: &str| {
        let spec = bench.text("spec.toml", text);
        let out = bench.out("run");
        gatelens(["run", spec.to_str().unwrap(), "--quiet", "--force", "--out", out.to_str().unwrap()])
    };
    let demo = gatelens::demo::folder().unwrap();
    let pattern = demo.join("[bm]*d*").display().to_string();
    let analyses = "[defaults]\npairs = \"demo:pairs.jsonl\"\nmax_pairs = 12\n[[analysis]]\ncommand = \"screen\"\n\
                    [[analysis]]\ncommand = \"cascade\"\ncircuit = \"run:screen/circuit.json\"\n";
    run(&format!("models = [{pattern:?}]\ncompare = \"screen\"\n{analyses}")).done();
    let names = listed(&bench.out("run"));
    for name in ["blind-screen", "blind-cascade", "model-screen", "model-cascade", "compare-overlap.parquet"] {
        assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
    }
    run(&format!("models = [\"nowhere/*\"]\n{analyses}")).refused(&["nothing matches"]);
    run(&format!("models = [\"demo\"]\ncompare = \"other\"\n{analyses}")).refused(&["compare", "other"]);
    let late = analyses.replace("run:screen/", "run:later/");
    run(&format!("models = [\"demo\"]\n{late}")).refused(&["cascade", "circuit", "no entry before this one"]);
    run(&format!("models = [\"demo\"]\n{}", analyses.replace("run:screen/", "run:"))).refused(&["run:NAME/FILE"]);
}
