//! Generated texts: one's own classes of them, what is shown of studies that have none, and what generating costs.

use crate::support::cli::{Bench, Ended, gatelens};
use gatelens::table::Table;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Which of two words a text begins with, and what no text holds.
const POLITE: &str = r#"
[[rule]]
id = "begins-sorry"
class = "polite"
lang = "any"
at = "opening"
phrases = ["sorry"]

[[rule]]
id = "begins-sure"
class = "eager"
lang = "any"
at = "opening"
phrases = ["sure"]
"#;

/// The first prompts of the demo with a label, without the facts that a right answer holds.
fn prompts(bench: &Bench, label: &str, n: usize) -> PathBuf {
    let text = std::str::from_utf8(gatelens::demo::file("prompts.jsonl").unwrap()).unwrap();
    let all =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|item| item["label"] == label);
    let bare = |mut item: Value| {
        item.as_object_mut().unwrap().remove("facts");
        item
    };
    bench.dataset(&format!("{label}.jsonl"), &all.map(bare).take(n).collect::<Vec<_>>())
}

/// Steers some prompts along the demo's own direction.
fn steer(prompts: &Path, out: &Path, more: &[&str]) -> Ended {
    let words = ["steer", "demo", "--from", "caa", "--pairs", "demo:pairs.jsonl", "--layer", "4", "--controls", "3"];
    let files = ["--prompts", prompts.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens([&words[..], &files, &["--quiet"], more].concat())
}

fn table(dir: &Path, name: &str) -> Table {
    Table::read_parquet(dir.join(format!("{name}.parquet"))).unwrap_or_else(|e| panic!("{e}"))
}

fn report(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("report.md")).unwrap()
}

#[test]
fn texts_are_classified_by_ones_own_classes_and_all_of_them_are_in_the_report() {
    let bench = Bench::new();
    let (prompts, classes, out) =
        (prompts(&bench, "sensitive", 3), bench.text("polite.toml", POLITE), bench.out("run"));
    let own = ["--classes", classes.to_str().unwrap(), "--coefficients", "-1,0", "--generate", "12"];
    steer(&prompts, &out, &own).done();
    let (dose, generations) = (table(&out, "dose"), table(&out, "generations"));
    assert!(dose.has("class_polite") && dose.has("class_eager") && dose.has("broken") && !dose.has("refusal"));
    let (directions, coefficients) = (dose.strs("direction").unwrap(), dose.floats("coefficient").unwrap());
    let at = |x: f64| (0..dose.rows()).find(|i| directions[*i] == "vector" && coefficients[*i] == Some(x)).unwrap();
    let share = |column: &str, x: f64| dose.floats(column).unwrap()[at(x)].unwrap();
    // What the rules say, from the texts themselves.
    let (texts, classes) = (generations.strs("text").unwrap(), generations.strs("class").unwrap());
    for (text, class) in texts.iter().zip(&classes) {
        let expected = match () {
            () if text.starts_with("Sorry") => "polite",
            () if text.starts_with("Sure") => "eager",
            () => continue,
        };
        assert_eq!(*class, expected, "{text}");
    }
    assert_eq!((share("class_polite", 0.0), share("class_eager", 0.0)), (1.0, 0.0));
    let report = report(&out);
    assert!(
        report.contains("## Classes of answers") && report.contains("| polite |") && out.join("answers.png").is_file()
    );
    // Every prompt at every coefficient, along the vector.
    let (ids, direction) = (generations.strs("id").unwrap(), generations.ints("direction").unwrap());
    let own: Vec<usize> = (0..generations.rows()).filter(|i| direction[*i] == 0).collect();
    assert_eq!(own.len(), 6);
    let listed = report.split("Every prompt at every coefficient").nth(1).unwrap();
    for i in own {
        let row = listed.lines().filter(|line| line.starts_with(&format!("| {} |", ids[i])));
        assert!(
            row.clone().count() == 2 && row.clone().any(|line| line.contains(texts[i].trim())),
            "{}: {listed}",
            ids[i]
        );
    }
    let record: Value = serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap();
    assert!(record["dataset_sha256"].as_object().unwrap().keys().any(|name| name.ends_with("polite.toml")), "{record}");
}

#[test]
fn a_study_without_classes_shows_none_and_one_with_refusals_does() {
    let bench = Bench::new();
    let run = |label: &str| {
        let out = bench.out(label);
        steer(&prompts(&bench, label, 3), &out, &["--coefficients", "0,0.01", "--generate", "12"]).done();
        out
    };
    let (plain, refused) = (run("harmless"), run("sensitive"));
    assert!(!plain.join("thresholds.parquet").exists() && !plain.join("answers.png").exists());
    let (plain, refused) = (report(&plain), report(&refused));
    assert!(
        !plain.contains("## Classes of answers") && !plain.contains("| evasion |") && !plain.contains("refusal"),
        "{plain}"
    );
    assert!(plain.contains("## Texts") && plain.contains("Sure, here"), "{plain}");
    assert!(refused.contains("## Classes of answers") && refused.contains("refusal") && refused.contains("## Texts"));
}

#[test]
fn what_generating_along_random_directions_costs_is_said_before_it_runs() {
    let bench = Bench::new();
    let prompts = prompts(&bench, "harmless", 3);
    let dry = |more: &[&str]| {
        let words = ["--coefficients", "0,1", "--dry-run"];
        steer(&prompts, &bench.out("none"), &[&words[..], more].concat()).done()
    };
    let said = dry(&["--generate", "12"]);
    assert!(said.contains("of which answers along the vector: "), "{said}");
    assert!(said.contains("of which answers along 2 random directions (--generate-controls 2): "), "{said}");
    let json: Value = serde_json::from_str(&dry(&["--generate", "12", "--json"])).unwrap();
    let flops = |part: &Value| part["wavefront"]["flops"].as_f64().unwrap();
    let parts = json["of_which"].as_object().unwrap();
    let random = parts.iter().find(|(what, _)| what.contains("random")).unwrap().1;
    // Two directions generate what one does twice.
    assert!((flops(random) / flops(&parts["answers along the vector"]) - 2.0).abs() < 1e-9, "{json}");
    let without: Value =
        serde_json::from_str(&dry(&["--generate", "12", "--generate-controls", "0", "--json"])).unwrap();
    assert!((flops(&json) - flops(&without) - flops(random)).abs() < 1e-6 * flops(&json), "{json} {without}");
    assert!(!dry(&["--generate", "12", "--generate-controls", "0"]).contains("random direction"));
    assert!(!dry(&[]).contains("of which"));
    // The same of a modulation.
    let words =
        ["modulate", "demo", "--pairs", "demo:pairs.jsonl", "--max-pairs", "4", "--layer", "3", "--dry-run", "--quiet"];
    let said = gatelens([&words[..], &["--generate", "8", "--generate-controls", "2"]].concat()).done();
    assert!(said.contains("of which answers along 2 random directions (--generate-controls 2): "), "{said}");
}

#[test]
fn classes_that_cannot_be_used_are_refused_with_what_would_mend_it() {
    let bench = Bench::new();
    let prompts = prompts(&bench, "harmless", 2);
    let classes = bench.text("polite.toml", POLITE);
    let (classes, out) = (classes.to_str().unwrap(), bench.out("run"));
    steer(&prompts, &out, &["--classes", classes]).refused(&["--classes", "give --generate N"]);
    let broken = bench.text("broken.toml", &POLITE.replace("\"opening\"", "\"end\""));
    let generate = ["--generate", "4", "--classes"];
    steer(&prompts, &out, &[&generate[..], &[broken.to_str().unwrap()]].concat()).refused(&[
        "broken.toml",
        "rule \"begins-sorry\"",
        "at: `end`",
    ]);
    let behaviour = ["behaviour", "demo", "--pairs", "demo:pairs.jsonl", "--quiet", "--out", out.to_str().unwrap()];
    gatelens([&behaviour[..], &["--classes", classes]].concat()).refused(&[
        "polite.toml",
        "class `refusal`",
        "add rules of both",
    ]);
    let modulate =
        ["modulate", "demo", "--pairs", "demo:pairs.jsonl", "--layer", "3", "--quiet", "--out", out.to_str().unwrap()];
    gatelens([&modulate[..], &["--generate", "4", "--classes", classes]].concat())
        .refused(&["polite.toml", "class `refusal`"]);
    let likely = bench.text("likely.toml", &POLITE.replace("class = \"polite\"", "class = \"refusals\""));
    let words = ["steer", "demo", "--from", "caa", "--pairs", "demo:pairs.jsonl", "--layer", "4", "--dry-run"];
    let more = ["--prompts", prompts.to_str().unwrap(), "--generate", "4", "--classes", likely.to_str().unwrap()];
    let ended = gatelens([&words[..], &more].concat());
    assert!(
        ended.stderr.contains("class `refusals` is taken for a class of its own; if `refusal` was meant"),
        "{}",
        ended.stderr
    );
    ended.done();
}
