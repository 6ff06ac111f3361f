//! Weights are read when they are needed, and no others; those that do not fit in memory give the same results as those
//! that do.

use crate::support::cli::{Bench, command, ended, pair};
use crate::support::{FAMILIES, Golden, family_dir, open};
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Activation, Change, Edit, Metric, Part, Plan, Positions, What};
use gatelens::run::{Options, run};
use gatelens::site::SiteKind;
use serde_json::json;
use std::path::Path;

#[test]
fn streamed_weights_give_the_same_readings_bit_for_bit_in_every_family() {
    for family in FAMILIES {
        let (resident, golden) = (open(family), Golden::of(family));
        let dir = family_dir(family);
        let options = ModelOptions { max_memory: Some(1000), ..ModelOptions::default() };
        let streamed = Model::open(dir.to_str().expect("UTF-8"), &options).expect("a sound model");
        assert!(streamed.decoder.streamed() && !resident.decoder.streamed());
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", golden.ids("input_ids", 0));
        let donor = plan.prompt("d", golden.ids("donor_ids", 0));
        let logits = Activation { site: SiteKind::Logits.at(0), positions: Positions::All, part: Part::All };
        plan.read(prompt, logits);
        for (layer, head) in resident.heads() {
            let change = Change::interchange(donor);
            let (site, part) = (SiteKind::Z.at(layer), Part::Heads(vec![head]));
            let fork = plan.fork(prompt, vec![Edit { site, part, positions: Positions::Last, change }]);
            plan.read(fork, What::Metric(Metric::logit_difference(vec![11], vec![23])));
            plan.read(fork, What::KlFrom(prompt));
        }
        let readings = |model: &Model| run(&model.decoder, &plan, &Options::default()).expect("readings");
        assert_eq!(readings(&resident), readings(&streamed), "{family}");
    }
}

#[test]
fn a_model_that_fits_the_limit_is_not_streamed() {
    let dir = family_dir("llama");
    let options = ModelOptions { max_memory: Some(1 << 30), ..ModelOptions::default() };
    let model = Model::open(dir.to_str().expect("UTF-8"), &options).expect("a sound model");
    assert!(!model.decoder.streamed());
}

/// What a command read, in order: layers by their numbers, whole tables by their names.
fn read(words: &[&str]) -> Vec<String> {
    let ended = ended(command(words).env("GATELENS_LOG", "gatelens=debug").output().expect("the binary starts"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let what = |line: &str| Some(line.strip_prefix("note: ")?.split_once(": read in ")?.0.to_string());
    ended.stderr.lines().filter_map(what).collect()
}

fn layers(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|l| format!("layer {l}")).collect()
}

/// `trace` of some sites of a family's fixture.
fn traced(bench: &Bench, family: &str, sites: &str, more: &[&str]) -> Vec<String> {
    let prompts = bench.dataset("prompts.jsonl", &[json!({"prompt": {"ids": [5, 6, 7]}})]);
    let (model, out) = (family_dir(family), bench.out("t.safetensors"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_string();
    let [model, prompts, out] = [&model, &prompts, &out].map(|path| text(path));
    let words = ["trace", &model, "--prompts", &prompts, "--sites", sites, "--out", &out, "--force"];
    read(&words.iter().chain(more).copied().collect::<Vec<_>>())
}

#[test]
fn what_a_command_does_not_need_is_not_read() {
    let bench = Bench::new();
    let (model, prompts) = (family_dir("llama"), bench.dataset("p.jsonl", &[json!({"prompt": {"ids": [5, 6, 7]}})]));
    let pairs = bench.dataset("pairs.jsonl", &[pair("p", &[5, 6, 7], &[8, 9, 10])]);
    let [model, prompts, pairs] = [&model, &prompts, &pairs].map(|path| path.to_str().expect("UTF-8"));
    let none: [String; 0] = [];
    assert_eq!(read(&["inspect", model]), none);
    assert_eq!(read(&["trace", model, "--prompts", prompts, "--sites", "embed", "--dry-run"]), none);
    // One layer tells the pace.
    assert_eq!(read(&["trace", model, "--prompts", prompts, "--sites", "z", "--dry-run"]), layers([0]));
    assert_eq!(read(&["interchange", model, "--pairs", pairs, "--dry-run"]), layers([0]));
    for more in [&[][..], &["--engine", "full"], &["--max-memory", "1KB"]] {
        assert_eq!(traced(&bench, "llama", "embed", more), none, "{more:?}");
        assert_eq!(traced(&bench, "llama", "resid_post.0", more), layers([0]), "{more:?}");
        assert_eq!(traced(&bench, "llama", "z.1,resid_pre.2", more), layers([0, 1, 2]), "{more:?}");
        assert_eq!(traced(&bench, "llama", "final_norm", more), layers(0..4), "{more:?}");
    }
}

#[test]
fn what_stays_in_memory_is_read_once() {
    let bench = Bench::new();
    let whole = |tensor: &str| layers(0..4).into_iter().chain([format!("tensor `{tensor}`")]).collect::<Vec<_>>();
    // An unembedding of its own, and one that is the embedding, of which single rows are read before.
    assert_eq!(traced(&bench, "llama", "logits", &[]), whole("lm_head.weight"));
    assert_eq!(traced(&bench, "qwen2", "embed,logits", &[]), whole("model.embed_tokens.weight"));
    let pairs: Vec<_> = (0..40).map(|i| pair(&format!("p{i}"), &[5, 6, 7 + i], &[8, 9, 10])).collect();
    let pairs = bench.dataset("pairs.jsonl", &pairs);
    let (model, out) = (family_dir("llama"), bench.out("run"));
    let [model, pairs, out] = [&model, &pairs, &out].map(|path| path.to_str().expect("UTF-8"));
    let mut found = read(&["interchange", model, "--pairs", pairs, "--out", out]);
    found.sort();
    assert_eq!(found, whole("lm_head.weight"));
}

#[test]
fn layers_read_in_any_order_and_by_many_at_once_give_the_same_bits() {
    for family in ["llama", "gpt2", "gemma3"] {
        let (golden, plain) = (Golden::of(family), open(family));
        let readings = |model: &Model| {
            let mut plan = Plan::default();
            let prompt = plan.prompt("p", golden.ids("input_ids", 0));
            let site = SiteKind::Logits.at(0);
            plan.read(prompt, Activation { site, positions: Positions::All, part: Part::All });
            run(&model.decoder, &plan, &Options::default()).expect("readings")
        };
        let expected = readings(&plain);
        let ready = open(family);
        (0..ready.decoder.arch.n_layers).rev().for_each(|l| drop(ready.decoder.weights(l).expect("a layer")));
        ready.decoder.read().expect("weights");
        assert_eq!(readings(&ready), expected, "{family}");
        let shared = open(family);
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(|| readings(&shared))).collect();
            assert!(all.into_iter().all(|one| one.join().expect("readings") == expected), "{family}");
        });
    }
}
