//! Experiment files, runs that go on where they were stopped, completions and manual pages.

use crate::support::cli::{Bench, gatelens, listed};
use crate::support::{Golden, family_dir, open};
use gatelens::plan::{Metric, Plan, What};
use gatelens::run::{Engine, Reading};
use gatelens::rundir::RunDir;
use gatelens::study::session::Session;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Golden pairs and prompts of the llama fixture, and an experiment on it.
struct Experiment {
    bench: Bench,
    model: PathBuf,
    pairs: PathBuf,
    prompts: PathBuf,
}

impl Experiment {
    fn new() -> Self {
        let (bench, golden) = (Bench::new(), Golden::of("llama"));
        let ids = |name: &str, i: usize| json!({ "ids": golden.ids(name, i) });
        let pair = |i: usize| json!({"id": i, "positive": ids("input_ids", i), "negative": ids("donor_ids", i)});
        let prompt = |i: usize| json!({"id": i, "prompt": ids("input_ids", i)});
        let pairs = bench.dataset("pairs.jsonl", &[pair(0), pair(1)]);
        let prompts = bench.dataset("prompts.jsonl", &[prompt(0), prompt(1)]);
        Experiment { bench, model: family_dir("llama"), pairs, prompts }
    }

    fn spec(&self, analyses: &str) -> PathBuf {
        let text = format!(
            "models = [{:?}]\n[defaults]\nanswer = [\"id:11\"]\nfoil = [\"id:23\"]\n{}",
            self.model.display().to_string(),
            analyses
                .replace("PAIRS", &format!("{:?}", self.pairs.display().to_string()))
                .replace("PROMPTS", &format!("{:?}", self.prompts.display().to_string()))
        );
        self.bench.text("spec.toml", &text)
    }

    fn run(&self, spec: &Path, more: &[&str]) -> crate::support::cli::Ended {
        let out = self.bench.out("all");
        let words = ["run", spec.to_str().unwrap(), "--quiet", "--out", out.to_str().unwrap()];
        gatelens([&words, more].concat())
    }
}

const TWO: &str = "[[analysis]]\ncommand = \"interchange\"\npairs = PAIRS\n[[analysis]]\ncommand = \"dla\"\nname = \"parts\"\n\
                   prompts = PROMPTS\n";

#[test]
fn an_experiment_leaves_a_run_directory_for_each_analysis_and_one_report() {
    let e = Experiment::new();
    let spec = e.spec(TWO);
    e.run(&spec, &[]).done();
    let names = listed(&e.bench.out("all"));
    for name in ["interchange", "parts", "report.html", "report.md", "run.json", "tables.tex"] {
        assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
    }
    assert_eq!(e.bench.written(), ["all"]);
    let report = std::fs::read_to_string(e.bench.out("all").join("report.md")).unwrap();
    assert!(report.contains("gatelens interchange") && report.contains("parts: Components"), "{report}");
    let record = std::fs::read_to_string(e.bench.out("all/interchange/run.json")).unwrap();
    assert!(record.contains(&format!("--out {}", e.bench.out("all/interchange").display())), "{record}");
    e.run(&spec, &[]).refused(&["exists already", "--force"]);
    e.run(&spec, &["--force"]).done();
}

#[test]
fn an_experiment_that_stopped_goes_on_with_what_is_not_finished() {
    let e = Experiment::new();
    let missing = e.bench.path("missing.jsonl");
    let spec = e.spec(&TWO.replace("PROMPTS", &format!("{:?}", missing.display().to_string())));
    // The first analysis is finished before the second is found to lack its file.
    e.run(&spec, &[]).refused_after("missing.jsonl");
    let first = e.bench.out("all.partial/interchange/run.json");
    let before = std::fs::read(&first).unwrap();
    e.run(&spec, &[]).refused(&["unfinished", "--resume"]);
    std::fs::write(&missing, std::fs::read(&e.prompts).unwrap()).unwrap();
    e.run(&spec, &["--resume"]).done();
    assert_eq!(std::fs::read(e.bench.out("all/interchange/run.json")).unwrap(), before, "it was not run again");
    assert!(e.bench.out("all/parts/components.parquet").is_file());
}

#[test]
fn what_is_wrong_with_an_experiment_is_said_before_anything_runs() {
    let e = Experiment::new();
    let interchange = "[[analysis]]\ncommand = \"interchange\"\npairs = PAIRS\n";
    for (analyses, parts) in [
        (format!("{interchange}positon = \"all\"\n"), &["[[analysis]] 1 (interchange)", "`positon`", "`position`"][..]),
        (format!("{interchange}position = \"everywhere\"\n"), &["interchange", "everywhere", "last, all"][..]),
        (format!("{interchange}position = [[1]]\n"), &["`position`", "found array"][..]),
        (format!("{interchange}{interchange}"), &["[[analysis]] 2", "\"interchange\" is there already"][..]),
        (format!("{interchange}name = \"../up\"\n"), &["`name`", "no folder's name"][..]),
        ("[[analysis]]\ncommand = \"interchnge\"\n".to_string(), &["`interchnge` is no analysis"][..]),
        ("[[analysis]]\npairs = PAIRS\n".to_string(), &["[[analysis]] 1: `command` is missing"][..]),
        (format!("[[analysys]]\n{interchange}"), &["spec.toml", "analysys"][..]),
        (interchange.replace("command", "draws = 3\ncommand"), &["no flag `draws`"][..]),
    ] {
        e.run(&e.spec(&analyses), &[]).refused(parts);
        assert!(e.bench.written().is_empty(), "{analyses}");
    }
    let spec =
        e.bench.text("defaults.toml", "models = [\"demo\"]\n[defaults]\npears = 1\n[[analysis]]\ncommand = \"dla\"\n");
    e.run(&spec, &[]).refused(&["[defaults]", "`pears`"]);
    e.run(&e.bench.text("empty.toml", "models = []\nanalysis = []\n"), &[]).refused(&["need one entry at least"]);
    e.run(&e.bench.path("none.toml"), &[]).refused(&["none.toml", "cannot be read"]);
}

#[test]
fn a_dry_run_of_an_experiment_prints_costs_and_writes_nothing() {
    let e = Experiment::new();
    let spec = e.spec(TWO);
    let printed = e.run(&spec, &["--dry-run"]).done();
    assert!(printed.matches("rows x layers").count() == 2, "{printed}");
    assert!(printed.contains("interchange: ") && printed.contains("parts: "), "{printed}");
    // Without --out too, and for machines.
    let printed = gatelens(["run", spec.to_str().unwrap(), "--dry-run", "--json"]).done();
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!([&lines[0]["entry"], &lines[1]["entry"]], [&json!("interchange"), &json!("parts")]);
    assert_eq!((lines.len(), &lines[0]["full"]["forks"]), (2, &json!(64)));
    assert!(lines.iter().all(|line| line["wavefront"]["seconds"].as_f64().is_some_and(|s| s > 0.0)), "{printed}");
    gatelens(["run", spec.to_str().unwrap()]).refused(&["--out"]);
    assert!(e.bench.written().is_empty());
}

#[test]
fn what_an_entry_costs_that_reads_a_file_of_the_run_is_not_known_before() {
    let e = Experiment::new();
    let spec = e.bench.text(
        "spec.toml",
        "models = [\"demo\"]\n[defaults]\npairs = \"demo:pairs.jsonl\"\nmax_pairs = 4\n[[analysis]]\ncommand = \"screen\"\n\
         [[analysis]]\ncommand = \"cascade\"\ncircuit = \"run:screen/circuit.json\"\n[[analysis]]\ncommand = \"interchange\"\n",
    );
    let printed = gatelens(["run", spec.to_str().unwrap(), "--dry-run", "--json"]).done();
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["wavefront"].is_object() && lines[2]["wavefront"].is_object(), "{printed}");
    let unknown = lines[1]["unknown"].as_str().unwrap();
    assert!(unknown.contains("screen/circuit.json") && lines[1]["wavefront"].is_null(), "{printed}");
}

#[test]
fn a_flag_of_an_entry_takes_precedence_over_defaults_that_exclude_it() {
    let e = Experiment::new();
    let spec = e.bench.text(
        "spec.toml",
        "models = [\"demo\"]\n[defaults]\npairs = \"demo:pairs.jsonl\"\n[[analysis]]\ncommand = \"attention\"\n\
         prompts = \"demo:prompts.jsonl\"\n[[analysis]]\ncommand = \"attention\"\nname = \"pairs\"\n",
    );
    let printed = gatelens(["run", spec.to_str().unwrap(), "--dry-run"]).done();
    let of = |field: &str| printed.lines().filter(|line| line.contains(&format!(", {field})"))).count();
    assert_eq!((of("prompt"), of("positive")), (1, 1), "{printed}");
}

#[test]
fn models_are_compared_by_an_entry_that_shows_heads_of_two_models() {
    let e = Experiment::new();
    let model = |name: &str| {
        let folder = e.bench.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(e.model.join(file), folder.join(file)).unwrap();
        }
        folder
    };
    let (a, b) = (model("a"), model("b"));
    let run = |models: &[&PathBuf], compare: &str, analyses: &str| {
        let models: Vec<String> = models.iter().map(|m| m.display().to_string()).collect();
        let text = std::fs::read_to_string(e.spec(analyses)).unwrap();
        let (_, rest) = text.split_once('\n').unwrap();
        let spec = e.bench.text("spec.toml", &format!("models = {models:?}\ncompare = \"{compare}\"\n{rest}"));
        e.run(&spec, &[])
    };
    run(&[&a], "interchange", TWO).refused(&["`compare`", "`interchange` is run on one model"]);
    run(&[&a, &b], "parts", TWO).refused(&["`compare`", "`parts` is a run of `dla`", "`screen` or `interchange`"]);
    run(&[&a, &b], "none", TWO).refused(&["`compare`", "no [[analysis]] is called `none`"]);
    assert!(e.bench.written().is_empty());
    run(&[&a, &b], "interchange", TWO).done();
    assert!(e.bench.out("all/compare-overlap.parquet").is_file());
}

#[test]
fn records_name_the_command_and_what_each_run_cost_itself() {
    let e = Experiment::new();
    // The first does most of the work, the second next to none.
    let analyses =
        TWO.replace("pairs = PAIRS", "pairs = \"demo:pairs.jsonl\"").replace("PROMPTS", "\"demo:prompts.jsonl\"");
    let text = format!("models = [\"demo\"]\n{analyses}").replace("name = \"parts\"", "label = \"harmless\"");
    let spec = e.bench.text("spec.toml", &text);
    e.run(&spec, &[]).done();
    let record = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(e.bench.out("all").join(name).join("run.json")).unwrap()).unwrap()
    };
    assert_eq!(record("")["command"], "run");
    let cpu = |name: &str| record(name)["cpu_s"].as_f64().unwrap();
    assert!(cpu("dla") < cpu("interchange"), "{} after {}", cpu("dla"), cpu("interchange"));
}

/// The experiment file that docs/experiments.md shows.
fn documented() -> &'static str {
    let page = include_str!("../../docs/experiments.md");
    page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example")
}

#[test]
fn the_experiment_that_the_documentation_shows_runs_and_its_report_is_made_again_with_all_it_said() {
    let bench = Bench::new();
    let (spec, out, again) = (bench.text("spec.toml", documented()), bench.out("all"), bench.out("again"));
    gatelens(["run", spec.to_str().unwrap(), "--quiet", "--out", out.to_str().unwrap()]).done();
    for name in ["demo-screen", "demo-blind-screen", "demo-whole-prompt", "demo-cascade", "compare-overlap.parquet"] {
        assert!(out.join(name).exists(), "{name}: {:?}", listed(&out));
    }
    assert!(!out.join("demo-blind-whole-prompt").exists());
    gatelens(["report", out.to_str().unwrap(), "--out", again.to_str().unwrap()]).done();
    let [first, second] = [&out, &again].map(|dir| std::fs::read_to_string(dir.join("report.md")).unwrap());
    let without_command =
        |text: &str| text.lines().filter(|l| !l.starts_with("gatelens r")).collect::<Vec<_>>().join("\n");
    assert_eq!(without_command(&first), without_command(&second));
    for part in ["# Refusals of the two demo models", "Both were built, not trained", "(<compare-depth.png>)"] {
        assert!(second.contains(part), "{part}");
    }
    assert_eq!(
        std::fs::read(out.join("compare-depth.png")).unwrap(),
        std::fs::read(again.join("compare-depth.png")).unwrap()
    );
}

#[test]
fn the_help_and_the_documentation_say_what_an_experiment_file_holds() {
    let help = gatelens(["run", "--help"]).done();
    for part in ["[[analysis]]", "[defaults]", "compare = ", "run:screen/circuit.json", "docs/experiments.md"] {
        assert!(help.contains(part), "no {part} in {help}");
    }
    let page = include_str!("../../docs/experiments.md");
    for writer in gatelens::analyses::WRITERS {
        assert!(page.contains(&format!("`{}`", writer.name)), "docs/experiments.md does not name {}", writer.name);
    }
}

#[test]
fn the_demonstration_takes_a_seed_and_threads_and_records_itself() {
    let bench = Bench::new();
    let out = bench.out("my demo");
    let words = ["demo", "--seed", "3", "--threads", "1", "--json", "--quiet", "--out", out.to_str().unwrap()];
    let said = gatelens(words).done();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 5);
    assert!(lines.iter().all(|line| line["seed"] == 3), "{said}");
    let record: Value = serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["command"], "demo");
    let line = record["command_line"].as_str().unwrap();
    assert!(line.starts_with("gatelens demo --seed 3") && line.ends_with("my demo'"), "{line}");
    // How many threads computed it is no part of what it is: another process may go on with it on as many as it has.
    let again = |seed| gatelens(["demo", "--seed", seed, "--threads", "2", "--resume", "--out", out.to_str().unwrap()]);
    assert!(again("3").done().contains("nothing is left to run"));
    again("4").refused(&["my demo"]);
    gatelens(["demo", "--threads", "0", "--dry-run"]).refused(&["--threads", "1..=1024"]);
    assert_eq!(gatelens(["demo", "--dry-run", "--quiet"]).done().matches("rows x layers").count(), 5);
}

/// A plan of both golden prompts.
fn plan(golden: &Golden) -> Plan {
    let mut plan = Plan::default();
    for i in 0..2 {
        let prompt = plan.prompt(format!("{i}"), golden.ids("input_ids", i));
        plan.read(prompt, What::Metric(Metric::logit_difference(vec![11], vec![23])));
    }
    plan
}

#[test]
fn finished_pieces_are_taken_up_and_damaged_ones_are_named() {
    let (bench, golden, model) = (Bench::new(), Golden::of("llama"), Arc::new(open("llama")));
    let out = bench.out("run");
    let run = |resume: bool| {
        let directory = RunDir::create(&out, false, resume).unwrap();
        directory.claim(&serde_json::Map::new()).unwrap();
        Session::new(&model, Engine::Wavefront, 0).resumable(directory.parts()).run(&plan(&golden))
    };
    let first = run(false).unwrap();
    let parts = bench.out("run.partial/.parts");
    let names = listed(&parts);
    assert_eq!(names.len(), 1, "{names:?}");
    let part = parts.join(&names[0]);
    // A number that was never computed comes back: it was read, not computed again.
    let mut bytes = std::fs::read(&part).unwrap();
    let at = bytes.len() - 16;
    bytes[at..at + 8].copy_from_slice(&42f64.to_le_bytes());
    std::fs::write(&part, &bytes).unwrap();
    let second = run(true).unwrap();
    assert_eq!((&second[0], &second[1]), (&Reading::Number(42.0), &first[1]));
    std::fs::write(&part, &bytes[..at]).unwrap();
    let why = run(true).unwrap_err().to_string();
    assert!(why.contains(&names[0]) && why.contains("`force`"), "{why}");
}

#[test]
fn every_command_has_completions_and_a_manual_page() {
    let help = gatelens(["--help"]).done();
    let listed_there = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What stands further in goes on from the line before.
    let named = listed_there.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    let names: Vec<&str> = named.filter_map(|rest| rest.split_whitespace().next()).collect();
    assert!(names.len() > 20 && names.contains(&"rerun"), "{names:?}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = gatelens(["completions", shell]).done();
        names.iter().for_each(|name| assert!(text.contains(name), "{name} in {shell}"));
    }
    let bench = Bench::new();
    gatelens(["man", "--out", bench.out("man").to_str().unwrap()]).done();
    let pages = listed(&bench.out("man"));
    for name in names.into_iter().filter(|name| *name != "help") {
        assert!(pages.contains(&format!("gatelens-{name}.1")), "{name} in {pages:?}");
    }
    assert!(pages.iter().any(|page| page == "gatelens.1"), "{pages:?}");
    assert!(gatelens(["man"]).done().contains(".TH"));
}
