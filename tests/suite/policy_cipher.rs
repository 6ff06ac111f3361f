//! The cipher, its contrast and the modulation of the detected signal, on the demo's known circuit.

use crate::support::cli::gatelens;
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The demo's gate.
fn gate() -> String {
    let circuit: Value = serde_json::from_slice(gatelens::demo::file("circuit.json").unwrap()).unwrap();
    let head: (i64, i64) = serde_json::from_value(circuit["gate"][0].clone()).unwrap();
    format!("L{}.H{}", head.0, head.1)
}

/// The demo's amplifiers.
fn amplifiers() -> Vec<(i64, String)> {
    let circuit: Value = serde_json::from_slice(gatelens::demo::file("circuit.json").unwrap()).unwrap();
    let heads: Vec<(i64, i64)> = serde_json::from_value(circuit["amplifiers"].clone()).unwrap();
    heads.into_iter().map(|(layer, head)| (layer, format!("head.{head}"))).collect()
}

/// Runs an analysis in a folder of its own.
fn run(words: &[&str]) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("run");
    gatelens([words, &["--quiet", "--out", out.to_str().unwrap()]].concat()).done();
    (dir, out)
}

fn table(out: &Path, name: &str) -> Table {
    Table::read_parquet(out.join(format!("{name}.parquet"))).unwrap_or_else(|e| panic!("{e}"))
}

/// A number of the first row that has this text in this column.
fn at(table: &Table, column: &str, text: &str, number: &str) -> Option<f64> {
    let row = table.strs(column).unwrap().iter().position(|t| *t == text).unwrap();
    table.floats(number).unwrap()[row]
}

/// What a cipher that the model cannot read does: the gate is not needed, refusals are gone, and injection brings them back.
fn is_blind(out: &Path) {
    let (necessity, collapse, injection) = (table(out, "necessity"), table(out, "collapse"), table(out, "injection"));
    assert!(at(&necessity, "condition", "plain", "effect_normalized").unwrap() > 0.9);
    assert!(at(&necessity, "condition", "plain", "q_value").unwrap() < 0.01);
    let (found, low) = (at(&collapse, "by", "all", "collapse").unwrap(), at(&collapse, "by", "all", "ci_low").unwrap());
    assert!(found >= 0.95 && low > 0.9, "{found}, from {low}");
    let of = |condition: &str, number: &str| at(&injection, "condition", condition, number);
    assert_eq!((of("plain", "refusal"), of("cipher", "refusal")), (Some(1.0), Some(0.0)));
    assert!(of("injected", "restored").unwrap() >= 0.9 && of("injected", "restored_metric").unwrap() >= 0.9);
    assert!(of("control", "restored").unwrap() <= 0.05 && of("control", "restored_metric").unwrap().abs() < 0.05);
    assert!(of("injected", "p_refusals").unwrap() < 1e-6 && of("control", "p_refusals").unwrap() == 1.0);
    assert!(of("injected", "refusal_low").unwrap() > 0.8 && of("injected", "refusal_high") == Some(1.0));
    assert_eq!((of("plain", "restored"), of("cipher", "restored_metric")), (None, None));
}

#[test]
fn in_letters_that_the_demo_cannot_read_the_gate_is_not_needed_and_injecting_it_restores_refusals() {
    let gate = gate();
    let words = ["cipher", "demo", "--pairs", "demo:pairs.jsonl", "--max-pairs", "40", "--gate", &gate];
    let (_dir, out) = run(&[&words[..], &["--generate", "8"]].concat());
    is_blind(&out);
    let generations = table(&out, "generations");
    assert_eq!(generations.rows(), 4 * 40);
    let collapse = table(&out, "collapse");
    let by = collapse.strs("by").unwrap();
    assert!(by.contains(&"lang") && by.contains(&"group"));
    for i in 0..collapse.rows() {
        assert_eq!(collapse.floats("collapse").unwrap()[i].is_some(), collapse.flags("testable").unwrap()[i]);
    }
}

/// The cipher that comes with the demo, of 40 pairs.
const OF_DEMO: [&str; 6] = ["--pairs", "demo:pairs.jsonl", "--max-pairs", "40", "--cipher", "demo:cipher.jsonl"];

#[test]
fn the_blind_variant_loses_its_gate_in_the_demos_cipher_and_the_demo_does_not() {
    let gate = gate();
    let more = ["--gate", gate.as_str(), "--generate", "8"];
    let (_blind, out) = run(&[&["cipher", "demo:blind"], &OF_DEMO[..], &more[..]].concat());
    is_blind(&out);
    let (_sees, out) = run(&[&["cipher", "demo"], &OF_DEMO[..], &more[..]].concat());
    let (necessity, collapse, injection) =
        (table(&out, "necessity"), table(&out, "collapse"), table(&out, "injection"));
    assert!(at(&necessity, "condition", "cipher", "effect_normalized").unwrap() > 0.9);
    assert!(at(&necessity, "condition", "cipher", "q_value").unwrap() < 0.01);
    assert!(at(&collapse, "by", "all", "collapse").unwrap().abs() < 0.1);
    assert_eq!(at(&injection, "condition", "cipher", "refusal"), Some(1.0));
    // Nothing was lost, so nothing can come back.
    assert_eq!(at(&injection, "condition", "injected", "restored"), None);
    assert_eq!(at(&injection, "condition", "injected", "restored_metric"), None);
}

#[test]
fn what_survives_in_the_demos_cipher_is_what_the_model_sees() {
    let survives = |model: &str| {
        let (_dir, out) = run(&[&["contrast", model], &OF_DEMO[..]].concat());
        let heads = table(&out, "heads");
        let (layers, names) = (heads.ints("layer").unwrap(), heads.strs("component").unwrap());
        let row =
            |a: &(i64, String)| (0..heads.rows()).find(|i| (layers[*i], names[*i]) == (a.0, a.1.as_str())).unwrap();
        let column = |name: &str, i: usize| heads.floats(name).unwrap()[i].unwrap();
        let of = |i: usize| (column("survives_mean", i), column("contrast_mean", i));
        amplifiers().iter().map(|a| of(row(a))).collect::<Vec<_>>()
    };
    for (own, contrast) in survives("demo") {
        assert!(own > 1.0 && contrast.abs() < 0.2 * own, "{own}, {contrast}");
    }
    for (own, contrast) in survives("demo:blind") {
        assert!(contrast > 1.0 && own.abs() < 0.01, "{own}, {contrast}");
    }
}

#[test]
fn pairs_of_other_scripts_are_left_out_and_counted() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("pairs.jsonl");
    let pair = |id: &str, positive: &str, negative: &str| {
        json!({"id": id, "positive": positive, "negative": negative, "answer": ["Sorry"], "foil": ["Sure"]}).to_string()
    };
    let chinese = pair("zh", "炸药 是 什么", "面包 是 什么");
    let english = |id: &str| pair(id, "Tell me about explosives.", "Tell me about bread.");
    std::fs::write(&path, [english("a"), chinese.clone(), english("b")].join("\n")).unwrap();
    let words = ["contrast", "demo", "--pairs", path.to_str().unwrap()];
    let (_dir, out) = run(&words);
    let heads = table(&out, "heads");
    assert_eq!((heads.ints("n").unwrap()[0], heads.ints("left_out").unwrap()[0]), (2, 1));
    std::fs::write(&path, &chinese).unwrap();
    let out = dir.path().join("none");
    gatelens([&words[..], &["--out", out.to_str().unwrap()]].concat()).refused(&[
        "pairs.jsonl",
        "none of 1 pairs",
        "--cipher",
    ]);
}

#[test]
fn within_the_letter_ciphers_instructions_the_request_in_plain_is_a_form_of_its_own() {
    let gate = gate();
    let words = ["cipher", "demo", "--pairs", "demo:pairs.jsonl", "--max-pairs", "24", "--gate", &gate];
    let (_dir, out) = run(&words);
    let (necessity, collapse, items) = (table(&out, "necessity"), table(&out, "collapse"), table(&out, "items"));
    assert_eq!(necessity.strs("condition").unwrap(), ["plain", "wrapped", "cipher"]);
    let effect = |form: &str| at(&necessity, "condition", form, "effect_mean").unwrap();
    let of = |column: &str| at(&collapse, "by", "all", column).unwrap();
    assert_eq!(of("wrapped_effect"), effect("wrapped"));
    assert!((of("wrapped_collapse") - (1.0 - effect("wrapped") / effect("plain"))).abs() < 1e-9);
    assert!(of("wrapped_ci_low") <= of("wrapped_collapse") && of("wrapped_collapse") <= of("wrapped_ci_high"));
    assert!(items.floats("wrapped_exchanged").unwrap().iter().all(Option::is_some));
    // The demo knows no instructions: the topic is read within them as without.
    assert!(of("wrapped_ci_high") < of("ci_low"), "{} and {}", of("wrapped_collapse"), of("collapse"));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("The instructions around the request take away"));

    let (_dir, out) = run(&[&["cipher", "demo"], &OF_DEMO[..], &["--gate", &gate]].concat());
    let (necessity, collapse, items) = (table(&out, "necessity"), table(&out, "collapse"), table(&out, "items"));
    assert_eq!(necessity.strs("condition").unwrap(), ["plain", "cipher"]);
    for (table, column) in [(&collapse, "wrapped_effect"), (&collapse, "wrapped_ci_high"), (&items, "wrapped_positive")]
    {
        assert!(table.floats(column).unwrap().iter().all(Option::is_none), "{column}");
    }
    assert!(std::fs::read_to_string(out.join("report.md")).unwrap().contains("the cipher is a file's"));
}

#[test]
fn pairs_that_the_ciphers_instructions_make_too_long_are_left_out_and_counted() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("pairs.jsonl");
    let pair = |id: &str, more: usize| {
        let request = |topic: &str| format!("Tell me about {topic}{}.", " today".repeat(more));
        let (positive, negative) = (request("explosives"), request("bread"));
        json!({"id": id, "positive": positive, "negative": negative, "answer": ["Sorry"], "foil": ["Sure"]}).to_string()
    };
    // The model's context is 256: in plain there is room for both.
    std::fs::write(&path, [pair("a", 0), pair("long", 200), pair("b", 1)].join("\n")).unwrap();
    let gate = gate();
    let pairs = ["--pairs", path.to_str().unwrap()];
    let (_dir, out) = run(&[&["contrast", "demo"], &pairs[..]].concat());
    let heads = table(&out, "heads");
    let first = |column: &str| heads.ints(column).unwrap()[0];
    assert_eq!((first("n"), first("left_out"), first("too_long")), (2, 0, 1));
    let (_dir, out) = run(&[&["cipher", "demo", "--gate", &gate], &pairs[..]].concat());
    let necessity = table(&out, "necessity");
    assert_eq!((necessity.ints("n").unwrap()[0], necessity.ints("too_long").unwrap()[0]), (2, 1));
    assert!(std::fs::read_to_string(out.join("report.md")).unwrap().contains("1 pair would be longer in the cipher"));
    std::fs::write(&path, pair("long", 200)).unwrap();
    let out = dir.path().join("none");
    gatelens([&["contrast", "demo", "--out", out.to_str().unwrap()], &pairs[..]].concat()).refused(&[
        "pairs.jsonl",
        "longer with its instructions than the model's context of 256",
        "--examples 0",
    ]);
}

#[test]
fn a_pair_that_the_ciphers_file_lacks_is_named() {
    let dir = TempDir::new().unwrap();
    let all = std::str::from_utf8(gatelens::demo::file("pairs.jsonl").unwrap()).unwrap();
    let path = dir.path().join("cipher.jsonl");
    std::fs::write(&path, all.lines().skip(1).collect::<Vec<_>>().join("\n")).unwrap();
    let first: Value = serde_json::from_str(all.lines().next().unwrap()).unwrap();
    let out = dir.path().join("out");
    let words = ["contrast", "demo", "--pairs", "demo:pairs.jsonl", "--cipher", path.to_str().unwrap(), "--out"];
    gatelens([&words[..], &[out.to_str().unwrap()]].concat()).refused(&[
        "cipher.jsonl",
        first["id"].as_str().unwrap(),
        "line 1 of demo:pairs.jsonl",
        "same id",
    ]);
}

#[test]
fn the_contrast_names_the_amplifiers_in_three_passes_a_pair() {
    let (_dir, out) = run(&["contrast", "demo", "--pairs", "demo:pairs.jsonl", "--max-pairs", "40"]);
    let (heads, passes) = (table(&out, "heads"), table(&out, "passes"));
    assert_eq!(passes.ints("passes").unwrap().iter().sum::<i64>(), 3 * 40);
    let (layers, names) = (heads.ints("layer").unwrap(), heads.strs("component").unwrap());
    let (means, sensitive) = (heads.floats("contrast_mean").unwrap(), heads.flags("sensitive").unwrap());
    let mut found: Vec<usize> = (0..heads.rows()).filter(|i| names[*i].starts_with("head.")).collect();
    found.sort_by(|a, b| means[*b].unwrap().abs().total_cmp(&means[*a].unwrap().abs()));
    let amplifiers = amplifiers();
    let top: Vec<(i64, String)> =
        found[..amplifiers.len()].iter().map(|i| (layers[*i], names[*i].to_string())).collect();
    assert!(amplifiers.iter().all(|a| top.contains(a)), "{top:?}");
    assert!(found[..amplifiers.len()].iter().all(|i| sensitive[*i]));
    // What all components lose is what the metric loses.
    let drop = at(&passes, "condition", "plain", "metric_mean").unwrap()
        - at(&passes, "condition", "cipher", "metric_mean").unwrap();
    let sum: f64 = means.iter().flatten().sum();
    assert!((sum - drop).abs() < 1e-3, "{sum} and {drop}");
    // Every request is unknown words in the cipher: nothing of its content survives.
    assert!(heads.floats("survives_mean").unwrap().iter().flatten().all(|s| s.abs() < 0.2));
}

/// Coefficients and a number of a side's prompts, over all pairs, where there is one.
fn along(dose: &Table, side: &str, number: &str) -> Vec<(f64, f64)> {
    let (sides, by) = (dose.strs("side").unwrap(), dose.strs("by").unwrap());
    let (x, y) = (dose.floats("coefficient").unwrap(), dose.floats(number).unwrap());
    let of = (0..dose.rows()).filter(|i| sides[*i] == side && by[*i] == "all");
    of.filter_map(|i| Some((x[i].unwrap(), y[i]?))).collect()
}

/// Positive prompts turn where the signal is weakened, negative ones where it is strengthened.
fn modulation_thresholds(thresholds: &Table) {
    let (sides, by) = (thresholds.strs("side").unwrap(), thresholds.strs("by").unwrap());
    let (classes, found) = (thresholds.strs("class").unwrap(), thresholds.floats("coefficient").unwrap());
    let of = |side: &str, class: &str| {
        let row = (0..thresholds.rows()).find(|i| (sides[*i], by[*i], classes[*i]) == (side, "all", class));
        found[row.unwrap_or_else(|| panic!("no threshold of {class} in {side} prompts"))].unwrap()
    };
    for class in ["metric", "refusal", "answer"] {
        let (p, n) = (of("positive", class), of("negative", class));
        assert!((-1.0..0.0).contains(&p) && (0.0..1.0).contains(&n), "{class}: {p} and {n}");
    }
    assert!(by.contains(&"lang") && by.contains(&"group"));
}

#[test]
fn the_signal_weakened_ends_refusals_and_strengthened_makes_them_and_random_directions_do_neither() {
    let gate = gate();
    let (_dir, out) = run(&[
        "modulate",
        "demo",
        "--pairs",
        "demo:pairs.jsonl",
        "--max-pairs",
        "64",
        "--gate",
        &gate,
        "--generate",
        "8",
        "--generate-pairs",
        "20",
        "--generate-controls",
        "1",
    ]);
    let dose = table(&out, "dose");
    let (positive, negative) = (along(&dose, "positive", "refusal"), along(&dose, "negative", "refusal"));
    for (side, shares) in [("positive", &positive), ("negative", &negative)] {
        assert!(shares.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{side}: {shares:?}");
        assert_eq!((shares[0].1, shares[shares.len() - 1].1), (0.0, 1.0), "{side}: {shares:?}");
    }
    let unmodulated = |shares: &[(f64, f64)]| shares.iter().find(|s| s.0 == 0.0).unwrap().1;
    assert_eq!((unmodulated(&positive), unmodulated(&negative)), (1.0, 0.0));
    let base = along(&dose, "positive", "metric_mean").iter().find(|m| m.0 == 0.0).unwrap().1;
    // Random directions are asked at the ends of the grid; at 0 they change nothing.
    assert_eq!(
        along(&dose, "positive", "random_metric_mean").iter().map(|r| r.0).collect::<Vec<_>>(),
        [-1.5, 0.0, 1.5]
    );
    assert_eq!(along(&dose, "positive", "p_over_random").iter().map(|p| p.0).collect::<Vec<_>>(), [-1.5, 1.5]);
    for (x, metric) in along(&dose, "positive", "random_metric_mean") {
        assert!((metric - base).abs() < 0.25 * base.abs(), "{metric} at {x} along random directions, {base} without");
    }
    let random = along(&dose, "negative", "random_refusal");
    assert!(random.len() == 2 && random.iter().all(|r| r.1 < 0.1), "{random:?}");
    let kl = along(&dose, "positive", "kl_to_base");
    assert!(kl.iter().find(|k| k.0 == 0.0).unwrap().1 < 1e-6 && kl[0].1 > 0.1);
    modulation_thresholds(&table(&out, "thresholds"));
    let change = table(&out, "change");
    let row = |part: &str| change.strs("part").unwrap().iter().position(|p| *p == part).unwrap();
    let of = |column: &str| change.floats(column).unwrap()[row("weakening")].unwrap();
    assert_eq!((of("from"), of("to"), of("change"), of("lost")), (0.0, -1.5, -1.0, 1.0));
    assert!(of("ci_high") < -0.7 && of("p_value") < 1e-4 && of("p_over_random") < 0.2);
    let differences = table(&out, "differences");
    let n: Vec<i64> = differences.ints("n").unwrap().to_vec();
    assert!(n.iter().all(|n| *n == 64), "{n:?}: prompts that do not cross are ranked too");
    assert!(differences.strs("by").unwrap().contains(&"lang"));
    assert!(differences.floats("p_value").unwrap().iter().all(|p| p.is_some_and(|p| p > 0.0 && p <= 1.0)));
}

#[test]
fn modulating_needs_a_place_and_two_pairs() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let words = ["modulate", "demo", "--pairs", "demo:pairs.jsonl", "--out", out.to_str().unwrap()];
    gatelens(words).refused(&["--layer"]);
    gatelens([&words[..], &["--layer", "9"]].concat()).refused(&["9"]);
    gatelens([&words[..], &["--layer", "3", "--max-pairs", "1"]].concat()).refused(&["one pair", "demo:pairs.jsonl"]);
}

#[test]
fn a_dry_run_counts_what_generating_costs() {
    let gate = gate();
    let cases: [&[&str]; 3] = [
        &["behaviour", "demo"],
        &["modulate", "demo", "--gate", &gate, "--generate-controls", "2"],
        &["cipher", "demo", "--gate", &gate],
    ];
    for words in cases {
        let rows = |tokens: &str| {
            let words = [words, &["--pairs", "demo:pairs.jsonl", "--max-pairs", "12", "--generate", tokens]].concat();
            let counted = gatelens([&words[..], &["--dry-run", "--json"]].concat()).done();
            let counted: Value = serde_json::from_str(&counted).unwrap();
            let (_dir, out) = run(&words);
            let record: Value = serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap();
            (counted["wavefront"]["rows"].as_f64().unwrap(), record["rows"].as_f64().unwrap())
        };
        // No answer of the demo has ended after four tokens.
        let (dry, ran) = rows("4");
        assert!((dry / ran - 1.0).abs() < 0.1, "{}: {dry} and {ran}", words[0]);
        // Beforehand it is counted as if none ended early.
        let (dry, ran) = rows("24");
        assert!(ran < dry, "{}: {dry} and {ran}", words[0]);
    }
}
