//! Each analysis recovers the demo model's known circuit, run as a user runs it.

use crate::support::cli::{gatelens, listed};
use crate::support::{Golden, family_dir, open};
use gatelens::analyses::vectors::from_file;
use gatelens::model::template::Message;
use gatelens::model::{Model, Options};
use gatelens::plan::{Activation, Change, Edit, Part, Plan, Positions};
use gatelens::site::SiteKind;
use gatelens::stats::welch;
use gatelens::table::Table;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;

/// `gatelens demo`, run once for all tests.
fn demo() -> &'static Path {
    static DEMO: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = DEMO.get_or_init(|| {
        let dir = TempDir::new().expect("a temporary folder");
        let out = dir.path().join("demo");
        gatelens(["demo", "--quiet", "--out", out.to_str().expect("UTF-8")]).done();
        (dir, out)
    });
    path
}

fn table(run: &str, name: &str) -> Table {
    let path = demo().join(run).join(format!("{name}.parquet"));
    Table::read_parquet(&path).unwrap_or_else(|e| panic!("{e}"))
}

type Head = (i64, i64);

/// The gate and the amplifiers of `circuit.json`.
fn circuit() -> (Head, Vec<Head>) {
    let circuit: Value = serde_json::from_slice(gatelens::demo::file("circuit.json").expect("a file")).expect("JSON");
    let heads = |key: &str| -> Vec<Head> { serde_json::from_value(circuit[key].clone()).expect("heads") };
    (heads("gate")[0], heads("amplifiers"))
}

struct Row {
    head: Head,
    variant: String,
    effect: f64,
    normalized: Option<f64>,
    q: f64,
}

fn rows(run: &str, variant: &str) -> Vec<Row> {
    let table = table(run, "heads");
    let (layers, heads, variants) =
        (table.ints("layer").unwrap(), table.ints("head").unwrap(), table.strs(variant).unwrap());
    let float = |name: &str| table.floats(name).unwrap();
    let row = |i: usize| Row {
        head: (layers[i], heads[i]),
        variant: variants[i].to_string(),
        effect: float("effect_mean")[i].unwrap(),
        normalized: float("effect_normalized")[i],
        q: float("q_value")[i].unwrap(),
    };
    (0..table.rows()).map(row).collect()
}

/// The heads of a variant, the largest absolute effect first.
fn strongest(rows: &[Row], variant: &str) -> Vec<Head> {
    let mut of: Vec<&Row> = rows.iter().filter(|r| r.variant == variant).collect();
    of.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
    of.iter().map(|r| r.head).collect()
}

#[test]
fn interchange_names_the_gate_first_in_both_directions_and_nothing_outside_the_circuit() {
    let (gate, amplifiers) = circuit();
    let rows = rows("interchange", "direction");
    for direction in ["necessity", "sufficiency"] {
        let first = rows.iter().find(|r| r.variant == direction && r.head == gate).unwrap();
        assert_eq!(strongest(&rows, direction)[0], gate, "{direction}");
        assert!(first.q < 0.01 && first.normalized.unwrap() > 0.8, "{direction}: q {}", first.q);
        for row in rows.iter().filter(|r| r.variant == direction && r.head != gate && !amplifiers.contains(&r.head)) {
            let large = row.normalized.unwrap().abs() > 0.02;
            assert!(!(row.q < 0.01 && large), "{direction}: {:?} has {:?} and q {}", row.head, row.normalized, row.q);
        }
    }
}

#[test]
fn attribution_gives_the_gate_next_to_nothing_and_finds_the_amplifiers() {
    let (gate, amplifiers) = circuit();
    let table = table("dla", "components");
    let (layers, names) = (table.ints("layer").unwrap(), table.strs("component").unwrap());
    let (means, shares) = (table.floats("attribution_mean").unwrap(), table.floats("share").unwrap());
    let mut heads: Vec<(Head, f64, f64)> = (0..table.rows())
        .filter_map(|i| {
            let head = names[i].strip_prefix("head.")?.parse().ok()?;
            Some(((layers[i], head), means[i]?, shares[i]?))
        })
        .collect();
    heads.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let of_gate = heads.iter().find(|h| h.0 == gate).unwrap();
    assert!(of_gate.2 > 0.0 && of_gate.2 < 0.01, "the gate's share is {}", of_gate.2);
    let top: HashSet<Head> = heads[..amplifiers.len()].iter().map(|h| h.0).collect();
    assert_eq!(top, amplifiers.iter().copied().collect());
}

#[test]
fn attributions_of_a_prompt_sum_to_its_metric() {
    let table = table("dla", "items");
    let (ids, attribution, metric) =
        (table.strs("id").unwrap(), table.floats("attribution").unwrap(), table.floats("metric").unwrap());
    let mut sums: std::collections::HashMap<&str, (f64, f64)> = std::collections::HashMap::new();
    for i in 0..table.rows() {
        let sum = sums.entry(ids[i]).or_insert((0.0, metric[i].unwrap()));
        sum.0 += attribution[i].unwrap();
    }
    assert_eq!(sums.len(), 80);
    for (id, (sum, metric)) in sums {
        assert!((sum - metric).abs() < 1e-4, "{id}: {sum} and {metric}");
    }
}

#[test]
fn what_several_tokens_logsumexp_has_beyond_its_weighted_sum_is_no_component_of_the_stream() {
    let (model, golden) = (open("llama"), Golden::of("llama"));
    let (answer, foil) = ([11, 30, 4], [23, 7]);
    let dir = TempDir::new().unwrap();
    let prompts = dir.path().join("prompts.jsonl");
    let line = |i: usize| {
        let ids = golden.ids("input_ids", i);
        json!({ "id": i.to_string(), "prompt": { "ids": ids }, "answer": answer, "foil": foil }).to_string()
    };
    std::fs::write(&prompts, [line(0), line(1)].join("\n")).unwrap();
    let (_own, out) = run(&["dla", family_dir("llama").to_str().unwrap(), "--prompts", prompts.to_str().unwrap()]);

    // The entropy of the answers' weights, less the foils'.
    let mut plan = Plan::default();
    for i in 0..2 {
        let prompt = plan.prompt("p", golden.ids("input_ids", i));
        let (site, positions) = (SiteKind::Logits.at(0), Positions::Last);
        plan.read(prompt, Activation { site, positions, part: Part::All });
    }
    let logits = gatelens::run::run(&model.decoder, &plan, &gatelens::run::Options::default()).unwrap();
    let entropy = |logits: &[f32], ids: &[u32]| -> f64 {
        let e: Vec<f64> = ids.iter().map(|id| f64::from(logits[*id as usize]).exp()).collect();
        e.iter().map(|x| x / e.iter().sum::<f64>()).map(|w| -w * w.ln()).sum()
    };
    let items = Table::read_parquet(out.join("items.parquet")).unwrap();
    let names = items.strs("component").unwrap();
    assert!(!names.contains(&"bias"), "llama has none");
    let found: Vec<f64> = (0..items.rows())
        .filter(|i| names[*i] == "logsumexp")
        .map(|i| items.floats("attribution").unwrap()[i].unwrap())
        .collect();
    assert_eq!(found.len(), 2);
    for (found, logits) in found.iter().zip(&logits) {
        let expected = entropy(&logits.values(), &answer) - entropy(&logits.values(), &foil);
        assert!((found - expected).abs() < 1e-5, "{found} and {expected}");
    }
    let components = Table::read_parquet(out.join("components.parquet")).unwrap();
    let (names, q) = (components.strs("component").unwrap(), components.floats("q_value").unwrap());
    assert!((0..components.rows()).all(|i| q[i].is_some() == (names[i] != "logsumexp")));
    assert!(std::fs::read_to_string(out.join("report.md")).unwrap().contains("before soft-capping of the logits"));
}

#[test]
fn ablation_finds_the_gate_and_the_amplifiers() {
    let (gate, amplifiers) = circuit();
    let rows = rows("ablate", "mode");
    let circuit: HashSet<Head> = amplifiers.iter().copied().chain([gate]).collect();
    let found: HashSet<Head> = strongest(&rows, "zero")[..circuit.len()].iter().copied().collect();
    assert_eq!(found, circuit);
    for row in rows.iter().filter(|r| r.variant == "zero" && circuit.contains(&r.head)) {
        assert!(row.effect < 0.0 && row.q < 0.01, "{:?}: {} with q {}", row.head, row.effect, row.q);
    }
}

#[test]
fn the_concept_separates_from_the_gates_layer_on_and_is_at_chance_before() {
    let (gate, _) = circuit();
    let table = table("cav", "cavs");
    let (layers, accuracy) = (table.ints("layer").unwrap(), table.floats("accuracy").unwrap());
    for i in 0..table.rows() {
        let accuracy = accuracy[i].unwrap();
        match layers[i] >= gate.0 {
            true => assert_eq!(accuracy, 1.0, "layer {}", layers[i]),
            false => assert!((accuracy - 0.5).abs() < 0.1, "layer {}: {accuracy}", layers[i]),
        }
    }
}

#[test]
fn tcav_is_significant_from_the_gates_layer_on_and_its_test_is_that_of_its_scores() {
    let (gate, _) = circuit();
    let (tcav, scores) = (table("cav", "tcav"), table("cav", "scores"));
    let (layers, p, significant) =
        (tcav.ints("layer").unwrap(), tcav.floats("p_value").unwrap(), tcav.flags("significant").unwrap());
    let (methods, classes) = (tcav.strs("method").unwrap(), tcav.strs("class").unwrap());
    assert!(tcav.flags("whole_groups").unwrap().iter().all(|whole| *whole), "there are 12 groups for 12 runs");
    let early = (0..tcav.rows()).filter(|i| layers[*i] < gate.0 && significant[*i]);
    // q-values under 5 % let a twentieth of what is found be false; what is drawn is the same for all classes and methods.
    assert!(early.map(|i| layers[i]).collect::<HashSet<_>>().len() <= 1);
    let late: Vec<usize> = (0..tcav.rows()).filter(|i| layers[*i] >= gate.0).collect();
    let missed = late.iter().filter(|i| !significant[**i]).count();
    assert!(missed * 10 <= late.len(), "{missed} of {} are not significant", late.len());
    assert!(late.iter().all(|i| tcav.floats("tcav").unwrap()[*i] == Some(1.0)), "every run's CAV raises the metric");
    for i in 0..tcav.rows() {
        let of = |kind: &str| -> Vec<f64> {
            let same = |j: &usize| {
                (scores.ints("layer").unwrap()[*j], scores.strs("method").unwrap()[*j]) == (layers[i], methods[i])
                    && (scores.strs("class").unwrap()[*j], scores.strs("kind").unwrap()[*j]) == (classes[i], kind)
            };
            (0..scores.rows()).filter(same).map(|j| scores.floats("score").unwrap()[j].unwrap()).collect()
        };
        assert_eq!(welch(&of("concept"), &of("random")), p[i]);
    }
}

#[test]
fn steering_moves_refusals_from_none_to_all_and_random_directions_do_not() {
    let table = table("steer", "dose");
    let (x, direction) = (table.floats("coefficient").unwrap(), table.strs("direction").unwrap());
    let (refusal, kl) = (table.floats("refusal").unwrap(), table.floats("kl_to_base").unwrap());
    let of = |name: &str| -> Vec<(f64, f64)> {
        (0..table.rows()).filter(|i| direction[*i] == name).map(|i| (x[i].unwrap(), refusal[i].unwrap())).collect()
    };
    let vector = of("vector");
    assert!(vector.iter().any(|(x, r)| *x == 0.0 && *r == 0.0) && vector.iter().any(|(_, r)| *r == 1.0), "{vector:?}");
    assert!(vector.windows(2).all(|pair| pair[0].1 <= pair[1].1), "refusals fall somewhere: {vector:?}");
    assert!(of("random").iter().all(|(_, r)| *r == 0.0));
    let unsteered = (0..table.rows()).filter(|i| x[*i] == Some(0.0));
    // A fork's attention sums its keys in another order than its base's.
    assert!(unsteered.map(|i| kl[i].unwrap()).all(|kl| kl < 1e-6));
}

#[test]
fn evasions_stand_between_answers_and_refusals() {
    let table = table("steer", "dose");
    let (direction, evasion) = (table.strs("direction").unwrap(), table.floats("evasion").unwrap());
    let of: Vec<f64> = (0..table.rows()).filter(|i| direction[*i] == "vector").map(|i| evasion[i].unwrap()).collect();
    let most = of.iter().copied().fold(0.0, f64::max);
    assert!(most > 0.3 && of[0] == 0.0 && of[of.len() - 1] == 0.0, "{of:?}");
}

#[test]
fn the_demonstration_leaves_one_report_with_every_figure_and_a_run_directory_for_each_analysis() {
    let names = listed(demo());
    for name in ["report.html", "report.md", "tables.tex", "run.json", "interchange", "ablate", "dla", "cav", "steer"] {
        assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
    }
    let report = std::fs::read_to_string(demo().join("report.md")).unwrap();
    let figures: Vec<&String> = names.iter().filter(|n| n.ends_with(".png")).collect();
    assert!(figures.len() >= 14);
    assert!(figures.iter().all(|f| report.contains(f.as_str())), "{figures:?}");
    assert!(figures.iter().all(|f| names.contains(&f.replace(".png", ".svg"))), "{names:?}");
    assert!(!listed(demo().parent().unwrap()).iter().any(|n| n.ends_with(".partial")));
}

#[test]
fn a_report_made_again_from_the_tables_has_the_same_figures_and_words() {
    let again = demo().parent().unwrap().join("again");
    let dir = demo().join("interchange");
    gatelens(["report", dir.to_str().unwrap(), "--out", again.to_str().unwrap()]).done();
    let bytes = |path: PathBuf| std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for name in ["necessity.png", "sufficiency.png", "forest.png", "necessity.svg", "forest.svg"] {
        assert_eq!(bytes(again.join(format!("01-interchange-{name}"))), bytes(dir.join(name)), "{name}");
    }
    let words = |path: PathBuf| String::from_utf8(bytes(path)).unwrap();
    let (own, made) = (words(dir.join("report.md")), words(again.join("report.md")));
    for line in own.lines().filter(|l| l.starts_with('|') || l.contains("The strongest")) {
        assert!(made.contains(line), "{line}");
    }
    assert!(words(again.join("tables.tex")).contains("\\toprule"));
}

/// Runs an analysis of the demo model in a folder of its own.
fn run(words: &[&str]) -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a temporary folder");
    let out = dir.path().join("run");
    gatelens([words, &["--quiet", "--out", out.to_str().unwrap()]].concat()).done();
    (dir, out)
}

fn few_pairs(dir: &Path, n: usize) -> PathBuf {
    let all = std::str::from_utf8(gatelens::demo::file("pairs.jsonl").unwrap()).unwrap();
    let path = dir.join("pairs.jsonl");
    std::fs::write(&path, all.lines().take(n).collect::<Vec<_>>().join("\n")).unwrap();
    path
}

#[test]
fn the_gradients_estimate_screens_and_the_strongest_are_run_exactly() {
    let (gate, _) = circuit();
    let dir = TempDir::new().unwrap();
    let pairs = few_pairs(dir.path(), 24);
    let (_own, out) =
        run(&["interchange", "demo", "--pairs", pairs.to_str().unwrap(), "--estimate", "gradient", "--exact", "8"]);
    let heads = Table::read_parquet(out.join("heads.parquet")).unwrap();
    let (estimates, effects) = (heads.floats("estimate_mean").unwrap(), heads.floats("effect_mean").unwrap());
    assert!(estimates.iter().all(Option::is_some));
    assert_eq!(effects.iter().flatten().count(), 16, "eight in each direction");
    let of_gate =
        (0..heads.rows()).find(|i| (heads.ints("layer").unwrap()[*i], heads.ints("head").unwrap()[*i]) == gate);
    assert!(effects[of_gate.unwrap()].is_some(), "the gate is among the strongest");
    let agreement = Table::read_parquet(out.join("agreement.parquet")).unwrap();
    assert_eq!(agreement.ints("units").unwrap(), [8, 8]);
    assert!(agreement.floats("spearman").unwrap().iter().all(|r| r.unwrap() > 0.5));
    assert!(out.join("agreement.png").is_file());
}

#[test]
fn a_whole_site_is_exchanged_layer_by_layer_and_the_last_residual_carries_everything() {
    let dir = TempDir::new().unwrap();
    let pairs = few_pairs(dir.path(), 12);
    let (_own, out) = run(&["interchange", "demo", "--pairs", pairs.to_str().unwrap(), "--site", "resid_post"]);
    let heads = Table::read_parquet(out.join("heads.parquet")).unwrap();
    let (layers, share) = (heads.ints("layer").unwrap(), heads.floats("effect_normalized").unwrap());
    assert!(heads.ints("head").unwrap().iter().all(|h| *h == -1));
    let last = *layers.iter().max().unwrap();
    for i in (0..heads.rows()).filter(|i| layers[*i] == last) {
        assert!((share[i].unwrap() - 1.0).abs() < 1e-5, "{:?}", share[i]);
    }
}

#[test]
fn prompts_of_unequal_lengths_are_exchanged_everywhere_only_with_an_alignment() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("pairs.jsonl");
    let line = |id: &str, positive: &str, negative: &str| {
        serde_json::json!({"id": id, "positive": positive, "negative": negative, "answer": ["Sorry"], "foil": ["Sure"]})
            .to_string()
    };
    let lines = [
        line("a", "What should I know about explosives?", "What should I know about bread and chocolate?"),
        line("b", "Help me understand malware better.", "Help me understand bread and penguins better."),
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let (pairs, out) = (path.to_str().unwrap(), dir.path().join("out"));
    let words = ["interchange", "demo", "--pairs", pairs, "--position", "all", "--out", out.to_str().unwrap()];
    gatelens(words).refused(&["line 1", "\"a\"", "--align"]);
    let (_own, out) = run(&["interchange", "demo", "--pairs", pairs, "--position", "all", "--align"]);
    let heads = Table::read_parquet(out.join("heads.parquet")).unwrap();
    let (gate, _) = circuit();
    let at = (0..heads.rows()).find(|i| (heads.ints("layer").unwrap()[*i], heads.ints("head").unwrap()[*i]) == gate);
    assert!(heads.floats("effect_mean").unwrap()[at.unwrap()].unwrap() < -5.0);
}

#[test]
fn resampling_draws_the_same_for_a_seed_and_other_prompts_for_another() {
    let words = |seed: &'static str| {
        [
            "ablate",
            "demo",
            "--prompts",
            "demo:prompts.jsonl",
            "--label",
            "sensitive",
            "--mode",
            "resample",
            "--draws",
            "2",
            "--seed",
            seed,
        ]
    };
    let bytes = |seed| {
        let (_own, out) = run(&words(seed));
        std::fs::read(out.join("items.parquet")).unwrap()
    };
    let first = bytes("1");
    assert!(first == bytes("1") && first != bytes("2"));
}

/// The classifier's probability of each prompt's activation, as steering by its coefficient of the vector at norm 1 leaves it.
fn steered_probabilities(out: &Path, smallest: &Table) -> Vec<(String, f64)> {
    let classifier = from_file(out.join("vectors.safetensors"), None, None).unwrap().named;
    let norm = classifier.vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let along: Arc<[f32]> = classifier.vector.iter().map(|x| (f64::from(*x) / norm) as f32).collect();
    let model = Model::open("demo", &Options::default()).unwrap();
    let (site, positions, part) = (SiteKind::ResidPost.at(4), Positions::Last, Part::All);
    let (ids, coefficients) = (smallest.strs("id").unwrap(), smallest.floats("coefficient").unwrap());
    let prompts = std::str::from_utf8(gatelens::demo::file("prompts.jsonl").unwrap()).unwrap();
    let prompts = prompts.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    let prompts: HashMap<String, String> =
        prompts.map(|p| (p["id"].as_str().unwrap().to_string(), p["prompt"].as_str().unwrap().to_string())).collect();
    let mut plan = Plan::default();
    for (id, coefficient) in ids.iter().zip(coefficients) {
        let message = Message::user(prompts[*id].as_str());
        let prompt = plan.prompt(*id, model.tokenizer().unwrap().encode_chat(&[message], true).unwrap());
        let change = Change::Add { vector: along.clone(), coefficient: coefficient.unwrap() as f32 };
        let edit = Edit { site, part: part.clone(), positions: positions.clone(), change };
        let fork = plan.fork(prompt, vec![edit]);
        plan.read(fork, Activation { site, positions: positions.clone(), part: part.clone() });
    }
    let rows = gatelens::run::run(&model.decoder, &plan, &gatelens::run::Options::default()).unwrap();
    let dot = |row: &[f32]| row.iter().zip(&classifier.vector).map(|(x, v)| f64::from(*x) * f64::from(*v)).sum::<f64>();
    let logit = |row: &[f32]| dot(row) + classifier.bias.unwrap();
    ids.iter().zip(&rows).map(|(id, r)| (id.to_string(), 1.0 / (1.0 + (-logit(&r.values())).exp()))).collect()
}

#[test]
fn the_smallest_coefficient_moves_each_prompt_to_the_probability_and_ablation_takes_refusals_away() {
    let words = [
        "steer",
        "demo",
        "--prompts",
        "demo:prompts.jsonl",
        "--label",
        "sensitive",
        "--from",
        "cav",
        "--pairs",
        "demo:pairs.jsonl",
        "--layer",
        "4",
        "--coefficients",
        "0,1",
        "--scale",
        "unit",
        "--gcav",
        "0.05",
        "--ablate",
        "--controls",
        "3",
        "--generate",
        "10",
        "--generate-controls",
        "3",
    ];
    let (_own, out) = run(&words);
    let smallest = Table::read_parquet(out.join("gcav.parquet")).unwrap();
    assert!(smallest.floats("coefficient").unwrap().iter().all(|c| c.unwrap() < 0.0), "refused prompts are moved back");
    for (id, p) in steered_probabilities(&out, &smallest) {
        assert!((p - 0.05).abs() < 1e-3, "{id}: {p}");
    }
    let dose = Table::read_parquet(out.join("dose.parquet")).unwrap();
    let (kind, direction, refusal) =
        (dose.strs("kind").unwrap(), dose.strs("direction").unwrap(), dose.floats("refusal").unwrap());
    let of = |k: &str, d: &str| {
        (0..dose.rows()).find(|i| kind[*i] == k && direction[*i] == d).map(|i| refusal[i].unwrap()).unwrap()
    };
    assert_eq!((of("add", "vector"), of("ablate", "vector"), of("gcav", "vector")), (1.0, 0.0, 0.0));
    assert!(of("ablate", "random") > 0.5, "{}", of("ablate", "random"));
}

#[test]
fn files_of_one_name_are_two_classes() {
    let dir = TempDir::new().unwrap();
    let prompts = std::str::from_utf8(gatelens::demo::file("prompts.jsonl").unwrap()).unwrap();
    let lines: Vec<Value> = prompts.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let file = |folder: &str, some: &[Value]| {
        let path = dir.path().join(folder).join("prompts.jsonl");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let unlabelled = some.iter().cloned().map(|mut line| {
            line.as_object_mut().unwrap().remove("label");
            line.to_string()
        });
        std::fs::write(&path, unlabelled.collect::<Vec<_>>().join("\n")).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (en, de) = (file("en", &lines[..3]), file("de", &lines[3..8]));
    let words =
        ["cav", "demo", "--concept", "demo:concept.jsonl", "--label", "concept", "--random", "demo:random.jsonl"];
    let more = ["--layers", "4", "--method", "mean", "--runs", "5", "--class", &en, "--class", &de];
    let (_own, out) = run(&[&words[..], &more].concat());
    let tcav = Table::read_parquet(out.join("tcav.parquet")).unwrap();
    assert_eq!(tcav.strs("class").unwrap(), [en.as_str(), de.as_str()]);
    assert_eq!(tcav.ints("n").unwrap(), [3, 5]);
}

#[test]
fn a_vector_that_was_written_is_read_back_and_steers_the_same() {
    let common = [
        "--prompts",
        "demo:prompts.jsonl",
        "--label",
        "harmless",
        "--layer",
        "4",
        "--coefficients",
        "0,1",
        "--controls",
        "2",
    ];
    let (_one, first) =
        run(&[&["steer", "demo", "--from", "caa", "--pairs", "demo:pairs.jsonl"][..], &common].concat());
    let file = first.join("vectors.safetensors");
    let (_two, second) = run(&[&["steer", "demo", "--vector", file.to_str().unwrap()][..], &common].concat());
    assert_eq!(std::fs::read(first.join("dose.parquet")).unwrap(), std::fs::read(second.join("dose.parquet")).unwrap());
}
