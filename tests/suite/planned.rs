//! Plans on paper: a model of which there is a `config.json` alone is shown and counted as the model itself is, and never
//! run.

use crate::support::cli::{Bench, gatelens};
use crate::support::copies::Folder;
use crate::support::{FAMILIES, family_dir, fixtures, open, other_families};
use gatelens::model::{Model, Options};
use gatelens::plan::{Entropy, Plan};
use gatelens::run::{self, run};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The only object that a command prints.
fn object(printed: &str) -> Map<String, Value> {
    serde_json::from_str(printed).expect("one JSON object")
}

/// A model of three layers with a tokenizer, and its description by itself.
fn model() -> (PathBuf, PathBuf) {
    let folder = fixtures().join("inputs/bytes");
    let config = folder.join("config.json");
    (folder, config)
}

/// How many tokens each prompt of these tests has.
const TOKENS: usize = 12;

/// A prompt of so many tokens, of which none is special: its first token is its own.
fn ids(prompt: usize) -> Value {
    json!({ "ids": (0..TOKENS).map(|position| 100 + (prompt + position) % 200).collect::<Vec<_>>() })
}

/// Six pairs, and twelve prompts, as token ids and as texts.
struct Data {
    ids: BTreeMap<&'static str, PathBuf>,
    texts: BTreeMap<&'static str, PathBuf>,
}

impl Data {
    fn new(bench: &Bench) -> Self {
        let said = |prompt: usize| json!({ "text": format!("This is the text of prompt {prompt}.") });
        let pairs = |prompt: &dyn Fn(usize) -> Value, [answer, foil]: [Value; 2]| -> Vec<Value> {
            let pair = |i: usize| {
                let (positive, negative) = (prompt(2 * i), prompt(2 * i + 1));
                let id = i.to_string();
                json!({"id": id, "positive": positive, "negative": negative, "answer": [answer], "foil": [foil]})
            };
            (0..6).map(pair).collect()
        };
        let prompts = |prompt: &dyn Fn(usize) -> Value, [answer, foil]: [Value; 2]| -> Vec<Value> {
            let line = |i: usize| json!({"id": i.to_string(), "prompt": prompt(i), "answer": [answer], "foil": [foil]});
            (0..12).map(line).collect()
        };
        let (numbers, words) = ([json!(150), json!(151)], [json!(" yes"), json!(" no")]);
        let file = |name: &str, lines: &[Value]| bench.dataset(name, lines);
        Data {
            ids: BTreeMap::from([
                ("--pairs", file("ids-pairs.jsonl", &pairs(&ids, numbers.clone()))),
                ("--prompts", file("ids-prompts.jsonl", &prompts(&ids, numbers))),
            ]),
            texts: BTreeMap::from([
                ("--pairs", file("pairs.jsonl", &pairs(&said, words.clone()))),
                ("--prompts", file("prompts.jsonl", &prompts(&said, words))),
            ]),
        }
    }
}

/// Analyses with their data and with what keeps them small.
const ANALYSES: [(&str, &str, &[&str]); 11] = [
    ("interchange", "--pairs", &["--position", "all"]),
    ("screen", "--pairs", &["--candidates", "3", "--sample", "2"]),
    ("edges", "--pairs", &["--exact", "40", "--sample", "10"]),
    ("circuit", "--pairs", &["--random", "1"]),
    ("interactions", "--pairs", &["--top", "3"]),
    ("behaviour", "--pairs", &["--generate", "8"]),
    ("ablate", "--prompts", &["--mode", "zero,mean"]),
    ("dla", "--prompts", &[]),
    ("lens", "--prompts", &[]),
    ("attention", "--prompts", &[]),
    ("importance", "--prompts", &["--masks", "20"]),
];

const ENGINES: [&str; 2] = ["wavefront", "full"];

/// What is counted of a model, which may know no more than how long prompts are.
fn counted(
    model: &Path,
    (command, flag, more): (&str, &str, &[&str]),
    data: &Path,
    planned: bool,
) -> Map<String, Value> {
    let n = TOKENS.to_string();
    let planned: &[&str] = if planned { &["--prompt-tokens", &n] } else { &[] };
    let words =
        [&[command, text(model), flag, text(data)], more, planned, &["--dry-run", "--json", "--quiet"]].concat();
    object(&gatelens(words).done())
}

/// All that an engine would do, but for how long it would take.
fn work(counted: &Map<String, Value>, engine: &str) -> Value {
    let mut work = counted[engine].clone();
    work.as_object_mut().expect("a size").remove("seconds").expect("seconds, or null");
    assert!(work["rows"].as_u64() > Some(0) && work["flops"].as_f64() > Some(0.0), "{engine}: {work}");
    work
}

#[test]
fn a_description_has_the_sizes_and_the_parameters_of_the_model_that_it_is_of() {
    for family in FAMILIES.into_iter().map(str::to_string).chain(other_families()) {
        let config = family_dir(&family).join("config.json");
        let described = Model::described(&family, &config, &Options::default());
        let (described, whole) = (described.unwrap_or_else(|e| panic!("{family}: {e}")), open(&family));
        let (found, expected) = (&described.decoder, &whole.decoder);
        assert_eq!(found.parameters, expected.parameters, "{family}");
        assert_eq!(format!("{:?}", found.arch), format!("{:?}", expected.arch), "{family}");
        assert!(!found.has_weights() && expected.has_weights(), "{family}");
    }
}

#[test]
fn inspect_shows_of_a_description_what_it_shows_of_the_model_but_for_what_other_files_hold() {
    for family in FAMILIES {
        let folder = family_dir(family);
        let config = folder.join("config.json");
        let whole = object(&gatelens(["inspect", text(&folder), "--dtype", "bf16", "--json"]).done());
        let words = ["inspect", "--config", text(&config), "--dtype", "bf16", "--json"];
        let described = object(&gatelens(words).done());
        for (key, fact) in described.iter().filter(|(key, _)| *key != "model") {
            assert_eq!(Some(fact), whole.get(key), "{family}: {key}");
        }
        let more: Vec<&String> = whole.keys().filter(|key| !described.contains_key(*key)).collect();
        assert_eq!(more, ["chat_template", "sha256"], "{family}");
        let (parameters, memory) = (&described["parameters"], &described["weights_memory_by_dtype_bytes"]);
        let bytes = |width: u64| Some(width * parameters.as_u64().expect("a number"));
        assert_eq!([&memory["f32"], &memory["bf16"], &memory["f16"]].map(Value::as_u64), [4, 2, 2].map(bytes));
        assert_eq!(described["weights_memory_bytes"], memory["bf16"], "{family}");
    }
    let said = gatelens(["inspect", "--config", text(&family_dir("llama").join("config.json"))]).done();
    for part in ["parameters", "resid_post", "weights_memory", "f32 ", "bf16 ", "4 heads"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
}

#[test]
fn a_description_that_is_none_is_refused_with_what_is_wrong() {
    let bench = Bench::new();
    let refused = |config: &Path, parts: &[&str]| gatelens(["inspect", "--config", text(config)]).refused(parts);
    refused(&bench.path("none.json"), &["none.json", "there is no such file"]);
    refused(&bench.text("broken.json", "{"), &["broken.json", "not JSON"]);
    refused(&bench.text("list.json", "[]"), &["list.json", "expected a JSON object"]);
    refused(&bench.text("other.json", "{\"a\": 1}"), &["other.json", "no `model_type`"]);
    let without = Folder::of("llama").config(|map| drop(map.remove("hidden_size")));
    refused(&without.file("config.json"), &["config.json", "`hidden_size`", "is missing"]);
    let unknown = Folder::of("llama").key("model_type", json!("lama"));
    refused(&unknown.file("config.json"), &["architecture `lama` is unknown"]);
    // A MODEL or a description, and one of them.
    let (folder, config) = model();
    gatelens(["inspect", text(&folder), "--config", text(&config)]).told_by_the_parser(&["--config", "MODEL"]);
    gatelens(["inspect", text(&config)]).refused(&["config.json", "has no weights", "--config"]);
}

/// The twelve models that the page on planning counts, with the numbers of parameters that they were published with.
const PUBLISHED: [(&str, u64); 12] = [
    ("gemma-2-27b", 27_227_128_320),
    ("gemma-2-2b", 2_614_341_888),
    ("gemma-2-9b", 9_241_705_984),
    ("glm-4-9b-0414", 9_400_279_040),
    ("llama-3.1-8b", 8_030_261_248),
    ("llama-3.3-70b", 70_553_706_496),
    ("mistral-7b-v0.3", 7_248_023_552),
    ("phi-4", 14_659_507_200),
    ("qwen2.5-14b", 14_770_033_664),
    ("qwen2.5-32b", 32_763_876_352),
    ("qwen2.5-72b", 72_706_203_648),
    ("qwen2.5-7b", 7_615_616_512),
];

#[test]
fn the_descriptions_of_released_models_have_their_published_numbers_of_parameters() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/configs");
    let all = std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let described = all.filter(|path| path.extension().is_some_and(|extension| extension == "json")).map(|path| {
        let model = Model::described(text(&path), &path, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        assert!(model.warnings.is_empty(), "{}: {:?}", path.display(), model.warnings);
        (path.file_stem().expect("a name").to_string_lossy().into_owned(), model.decoder.parameters)
    });
    let described: BTreeMap<String, u64> = described.collect();
    assert_eq!(described, PUBLISHED.into_iter().map(|(name, n)| (name.to_string(), n)).collect());
}

#[test]
fn an_analysis_of_a_description_counts_what_it_counts_of_the_model_on_prompts_of_that_length() {
    let bench = Bench::new();
    let (data, (folder, config)) = (Data::new(&bench), model());
    for analysis in ANALYSES {
        let (command, flag, _) = analysis;
        let whole = counted(&folder, analysis, &data.ids[flag], false);
        let planned = counted(&config, analysis, &data.texts[flag], true);
        for engine in ENGINES {
            assert_eq!(work(&planned, engine), work(&whole, engine), "{command}, {engine}");
            assert!(
                planned[engine]["seconds"].is_null() && whole[engine]["seconds"].is_number(),
                "{command}, {engine}"
            );
        }
        assert_eq!(planned["weights"], whole["weights"], "{command}");
    }
    assert_eq!(bench.written(), [""; 0]);
}

#[test]
fn weights_that_are_there_give_the_pace_of_prompts_that_are_not() {
    let bench = Bench::new();
    let (data, (folder, config)) = (Data::new(&bench), model());
    let analysis = ANALYSES[0];
    let texts = &data.texts[analysis.1];
    let (whole, described) = (counted(&folder, analysis, texts, true), counted(&config, analysis, texts, true));
    for engine in ENGINES {
        assert_eq!(work(&whole, engine), work(&described, engine));
        assert!(whole[engine]["seconds"].as_f64() > Some(0.0), "{whole:?}");
    }
}

#[test]
fn a_dry_run_says_what_the_weights_take_and_not_what_a_prompt_is_that_was_not_read() {
    let bench = Bench::new();
    let (data, (_, config)) = (Data::new(&bench), model());
    let words =
        ["dla", text(&config), "--prompts", text(&data.texts["--prompts"]), "--prompt-tokens", "12", "--dry-run"];
    let said = gatelens([&words[..], &["--dtype", "bf16"]].concat());
    assert!(said.code == 0 && !said.stderr.contains("warning"), "{}", said.stderr);
    assert!(said.stdout.contains("the weights take ") && said.stdout.contains(" in bf16"), "{}", said.stdout);
    assert!(!said.stdout.contains("the first prompt") && !said.stdout.contains("pace"), "{}", said.stdout);
    let json = object(&gatelens([&words[..], &["--dtype", "bf16", "--json"]].concat()).done());
    let facts = object(&gatelens(["inspect", "--config", text(&config), "--json"]).done());
    assert_eq!(json["weights"], json!({"dtype": "bf16", "bytes": facts["weights_memory_by_dtype_bytes"]["bf16"]}));
}

#[test]
fn conversations_have_the_length_that_is_given_too_and_need_no_template() {
    let bench = Bench::new();
    let (_, config) = model();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let messages = |said: &str| json!({"messages": [turn("system", "Be brief."), turn("user", said)]});
    let line = |i: usize| {
        let (id, negative) = (i.to_string(), format!("A plain string, {i}."));
        json!({"id": id, "positive": messages("Hello."), "negative": negative, "answer": "x", "foil": "y"})
    };
    let pairs = bench.dataset("pairs.jsonl", &[line(1), line(2)]);
    let words = ["interchange", text(&config), "--pairs", text(&pairs), "--prompt-tokens", "9", "--dry-run", "--json"];
    let ended = gatelens(words);
    assert!(!ended.stderr.contains("template"), "{}", ended.stderr);
    work(&object(&ended.done()), "wavefront");
}

#[test]
fn an_experiment_and_the_suite_are_planned_as_an_analysis_is() {
    let bench = Bench::new();
    let (data, (_, config)) = (Data::new(&bench), model());
    let spec = format!(
        "models = [{:?}]\n[[analysis]]\ncommand = \"interchange\"\npairs = {:?}\n\
         [[analysis]]\ncommand = \"dla\"\nprompts = {:?}\n",
        text(&config),
        text(&data.texts["--pairs"]),
        text(&data.texts["--prompts"])
    );
    let spec = bench.text("spec.toml", &spec);
    let (run, dry) = (["run", text(&spec)], ["--prompt-tokens", "12", "--dry-run", "--json"]);
    let lines = |printed: String| -> Vec<Map<String, Value>> { printed.lines().map(object).collect() };
    let entries = lines(gatelens([&run[..], &dry].concat()).done());
    assert_eq!(entries.len(), 2);
    let interchange = counted(&config, ("interchange", "--pairs", &[]), &data.texts["--pairs"], true);
    assert_eq!(work(&entries[0], "full"), work(&interchange, "full"));
    gatelens([&run[..], &["--prompt-tokens", "12"]].concat()).told_by_the_parser(&["--dry-run"]);

    let few = ["--max-pairs", "8", "--generate", "8", "--generate-pairs", "4", "--quiet"];
    let suite = lines(gatelens([&["policy", text(&config)], &few[..], &dry].concat()).done());
    assert_eq!((suite.len(), &suite[0]["entry"]), (9, &json!("behaviour")));
    for entry in &suite {
        ENGINES.iter().for_each(|engine| drop(work(entry, engine)));
        assert!(entry["wavefront"]["seconds"].is_null(), "{entry:?}");
    }
    let out = bench.out("suite");
    gatelens([&["policy", text(&config)], &few[..], &["--out", text(&out)]].concat()).refused(&["has no weights"]);
    assert_eq!(bench.written(), [""; 0]);
}

#[test]
fn a_model_without_weights_is_not_run_and_says_what_would_mend_it() {
    let bench = Bench::new();
    let (data, (folder, config)) = (Data::new(&bench), model());
    let (pairs, out) = (&data.texts["--pairs"], bench.out("run"));
    let of = |model: &Path, more: &[&str]| {
        gatelens([&["interchange", text(model), "--pairs", text(pairs), "--out", text(&out)], more].concat())
    };
    let mended =
        ["config.json", "has no weights", "--dry-run with --prompt-tokens", "`gatelens inspect` with --config"];
    of(&config, &[]).refused(&mended);
    of(&config, &["--dry-run"]).refused(&mended);
    of(&config, &["--prompt-tokens", "12"]).told_by_the_parser(&["--dry-run"]);
    of(&folder, &["--prompt-tokens", "12"]).told_by_the_parser(&["--dry-run"]);
    of(&config, &["--prompt-tokens", "0", "--dry-run"]).told_by_the_parser(&["--prompt-tokens"]);
    of(&config, &["--prompt-tokens", "600", "--dry-run"]).refused(&["600 tokens", "context is 512"]);
    // A folder with nothing else.
    let bare = bench.path("bare");
    std::fs::create_dir(&bare).expect("a folder");
    std::fs::copy(&config, bare.join("config.json")).expect("a copy");
    of(&bare, &[]).refused(&["has neither", "--dry-run and --prompt-tokens"]);
    of(&bare, &["--prompt-tokens", "12", "--dry-run"]).done();
    assert_eq!(bench.written(), [""; 0]);
}

#[test]
fn whatever_is_computed_of_a_description_is_an_error() {
    let (_, config) = model();
    let model = Model::described("described", &config, &Options::default()).expect("a sound description");
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", vec![5, 6, 7]);
    plan.read(prompt, Entropy);
    let why = run(&model.decoder, &plan, &run::Options::default()).expect_err("no weights").to_string();
    assert!(why.contains("config.json") && why.contains("only described"), "{why}");
    assert!(model.decoder.read().is_err() && model.tokenizer().is_err());
}
