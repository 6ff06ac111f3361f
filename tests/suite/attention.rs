//! Scores of attention patterns and the patterns of chosen heads, held to golden patterns and to the weights.

use crate::support::cli::{Bench, gatelens};
use crate::support::copies::Folder;
use crate::support::{Golden, family_dir, fixtures, open};
use gatelens::plan::{Activation, Part, Plan, Positions};
use gatelens::run::{Options, run};
use gatelens::site::SiteKind;
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::Path;

/// The two prompts of golden values.
fn prompts(golden: &Golden) -> Vec<Value> {
    let one = |i: usize| json!({ "id": i.to_string(), "prompt": { "ids": golden.ids("input_ids", i) } });
    vec![one(0), one(1)]
}

fn attention(bench: &Bench, model: &Path, lines: &[Value], more: &[&str]) -> std::path::PathBuf {
    let (path, out) = (bench.dataset("prompts.jsonl", lines), bench.out("attention"));
    let words =
        ["attention", model.to_str().unwrap(), "--prompts", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens([&words[..], &["--quiet"], more].concat()).done();
    out
}

/// The scores of one golden pattern by their definitions: previous, first, self, entropy.
fn by_hand(weight: impl Fn(usize, usize) -> f64, n: usize) -> [f64; 4] {
    let mean = |of: &dyn Fn(usize) -> f64| (1..n).map(of).sum::<f64>() / (n - 1) as f64;
    let entropy = |t: usize| (0..=t).map(|j| weight(t, j)).filter(|w| *w > 0.0).map(|w| -w * w.ln()).sum::<f64>();
    [mean(&|t| weight(t, t - 1)), mean(&|t| weight(t, 0)), mean(&|t| weight(t, t)), mean(&entropy)]
}

#[test]
fn scores_and_patterns_are_those_of_golden_patterns() {
    for family in ["llama", "gemma2", "gpt2", "olmo2"] {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let named = |l: usize| format!("clean.pattern.{l}");
        let out = attention(&bench, &family_dir(family), &prompts(&golden), &["--head", "L1.H2,L0.H1"]);
        let table = Table::read_parquet(out.join("heads.parquet")).unwrap();
        let float = |name: &str| table.floats(name).unwrap();
        let (n_heads, n) = (golden.shape(&named(0))[1], golden.shape(&named(0))[2]);
        let layers = table.rows() / n_heads;
        let weights: Vec<Vec<f32>> = (0..layers).map(|l| golden.values(&named(l))).collect();
        let weight = |l: usize, prompt: usize, head: usize, t: usize, j: usize| -> f64 {
            f64::from(weights[l][((prompt * n_heads + head) * n + t) * n + j])
        };
        for (l, head) in (0..layers).flat_map(|l| (0..n_heads).map(move |head| (l, head))) {
            let [a, b] = [0, 1].map(|prompt| by_hand(|t, j| weight(l, prompt, head, t, j), n));
            for (k, name) in ["previous", "first", "self", "entropy"].into_iter().enumerate() {
                let (found, expected) = (float(name)[l * n_heads + head].unwrap(), (a[k] + b[k]) / 2.0);
                let near = (found - expected).abs() < 1e-5 * (1.0 + expected);
                assert!(near, "{family}: {name} of {l}.{head}: {found} and {expected}");
            }
        }
        let patterns = Table::read_parquet(out.join("patterns.parquet")).unwrap();
        let ints = ["layer", "head", "query", "key"].map(|name| patterns.ints(name).unwrap());
        let (ids, found) = (patterns.strs("id").unwrap(), patterns.floats("weight").unwrap());
        assert_eq!(patterns.rows(), 2 * 2 * n * (n + 1) / 2);
        for i in 0..patterns.rows() {
            let [l, head, t, j] = ints.each_ref().map(|column| column[i] as usize);
            let expected = weight(l, ids[i].parse().unwrap(), head, t, j);
            assert!((found[i].unwrap() - expected).abs() < 1e-4, "{family}: {l}.{head} {t} {j}: {expected}");
        }
    }
}

#[test]
fn what_a_head_moves_is_its_value_through_its_part_of_the_output_projection() {
    let (bench, golden, model) = (Bench::new(), Golden::of("llama"), open("llama"));
    let out = attention(&bench, &family_dir("llama"), &prompts(&golden), &["--head", "L2.H3"]);
    let patterns = Table::read_parquet(out.join("patterns.parquet")).unwrap();
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", golden.ids("input_ids", 0));
    plan.read(prompt, Activation { site: SiteKind::V.at(2), positions: Positions::All, part: Part::All });
    let readings = run(&model.decoder, &plan, &Options::default()).unwrap();
    let values: Vec<f32> = readings.iter().flat_map(|r| r.values()).collect();
    // Four heads of 12 share two heads of values: those of the last one are columns 12 to 24.
    let o = Folder::of("llama").tensors()["model.layers.2.self_attn.o_proj.weight"].values();
    let norm = |j: usize| {
        let v = &values[j * 24 + 12..][..12];
        let of_row = |row: usize| -> f64 {
            v.iter().zip(&o[row * 48 + 36..][..12]).map(|(v, o)| f64::from(*v) * f64::from(*o)).sum()
        };
        (0..48).map(|row| of_row(row).powi(2)).sum::<f64>().sqrt()
    };
    let (ids, weights) = (patterns.strs("id").unwrap(), patterns.floats("weight").unwrap());
    let (keys, found) = (patterns.ints("key").unwrap(), patterns.floats("weighted_norm").unwrap());
    for i in (0..patterns.rows()).filter(|i| ids[*i] == "0") {
        let expected = weights[i].unwrap() * norm(keys[i] as usize);
        assert!((found[i].unwrap() - expected).abs() < 1e-5, "{i}: {:?} and {expected}", found[i]);
    }
}

#[test]
fn what_a_head_adds_of_each_position_sums_to_its_attribution_with_gates_sinks_and_latent_attention_too() {
    let others = fixtures().join("families");
    for (folder, layer) in [
        (family_dir("llama"), 1),
        (family_dir("gpt2"), 2),
        (family_dir("gemma2"), 3),
        (family_dir("olmo2"), 0),
        (others.join("gpt_oss"), 1),
        (others.join("qwen3_next"), 3),
        (others.join("deepseek_v3"), 1),
        (others.join("granite"), 1),
    ] {
        let (bench, golden) = (Bench::new(), Golden::at(&folder));
        let line = |i: usize| {
            let ids = golden.ids("input_ids", i);
            json!({ "id": i.to_string(), "prompt": { "ids": ids }, "answer": [11, 30], "foil": [23, 7] })
        };
        let model = gatelens::model::Model::open(folder.to_str().unwrap(), &Default::default()).unwrap();
        let n = model.decoder.arch.layers[layer].heads();
        let heads: Vec<String> = (0..n).map(|head| format!("L{layer}.H{head}")).collect();
        let out = attention(&bench, &folder, &[line(0), line(1)], &["--head", &heads.join(",")]);
        let (path, dla) = (bench.path("prompts.jsonl"), bench.out("dla"));
        let words = ["dla", folder.to_str().unwrap(), "--prompts", path.to_str().unwrap(), "--quiet", "--out"];
        gatelens([&words[..], &[dla.to_str().unwrap()]].concat()).done();
        let sources = Table::read_parquet(out.join("sources.parquet")).unwrap();
        let items = Table::read_parquet(dla.join("items.parquet")).unwrap();
        for (prompt, head) in (0..2).flat_map(|prompt| (0..n).map(move |head| (prompt, head))) {
            let rows = (0..sources.rows()).filter(|i| {
                sources.strs("id").unwrap()[*i] == prompt.to_string()
                    && sources.ints("head").unwrap()[*i] == head as i64
            });
            let rows: Vec<usize> = rows.collect();
            let sum: f64 = rows.iter().filter_map(|i| sources.floats("attribution").unwrap()[*i]).sum();
            let whole = (0..items.rows()).find(|i| {
                items.strs("id").unwrap()[*i] == prompt.to_string()
                    && items.ints("layer").unwrap()[*i] == layer as i64
                    && items.strs("component").unwrap()[*i] == format!("head.{head}")
            });
            let whole = items.floats("attribution").unwrap()[whole.expect("the head")].unwrap();
            let at = format!("{} prompt {prompt} head {head}", folder.display());
            assert!((sum - whole).abs() < 2e-5 * (1.0 + whole.abs()), "{at}: {sum} and {whole}");
            assert!(rows.len() == golden.shape("input_ids")[1], "{at}: a row for each position");
        }
        let report = std::fs::read_to_string(out.join("report.md")).unwrap();
        assert!(report.contains("What they read for the answer"), "{}", folder.display());
    }
}

#[test]
fn repeated_tokens_alone_have_duplicates_and_layers_without_attention_are_passed_over() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let half = &golden.ids("input_ids", 0)[..5];
    let both = [half, half].concat();
    let twice = json!({ "id": "twice", "prompt": { "ids": both } });
    let once = json!({ "id": "once", "prompt": { "ids": (20..28).collect::<Vec<u32>>() } });
    let out = attention(&bench, &family_dir("llama"), &[twice, once], &[]);
    let table = Table::read_parquet(out.join("heads.parquet")).unwrap();
    assert!(table.ints("n").unwrap().iter().all(|n| *n == 2));
    assert!(table.ints("n_duplicate").unwrap().iter().all(|n| *n == 1));
    assert!(table.floats("induction").unwrap().iter().all(Option::is_some));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    for words in ["previous.png", "induction.png", "that looks most at the first token is L", "an entropy of"] {
        assert!(report.contains(words), "the report has no `{words}`");
    }
    // A hybrid: only some of its layers have patterns.
    let (bench, hybrid) = (Bench::new(), fixtures().join("families/qwen3_next"));
    let lines = [json!({ "id": "a", "prompt": { "ids": [3, 5, 7, 3, 5] } })];
    let table = Table::read_parquet(attention(&bench, &hybrid, &lines, &[]).join("heads.parquet")).unwrap();
    let mut layers = table.ints("layer").unwrap().to_vec();
    layers.dedup();
    assert!(!layers.is_empty() && layers.len() < 4, "the layers with attention: {layers:?}");
}

#[test]
fn heads_that_are_not_there_and_models_without_attention_are_refused() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let path = bench.dataset("p.jsonl", &prompts(&golden));
    let refused = |model: &Path, more: &[&str], parts: &[&str]| {
        let words = ["attention", model.to_str().unwrap(), "--prompts", path.to_str().unwrap()];
        gatelens([&words[..], &["--out", bench.out("x").to_str().unwrap()], more].concat()).refused(parts);
    };
    refused(&family_dir("llama"), &["--head", "L9.H0"], &["--head", "L9.H0", "layers 0 to 3"]);
    refused(&family_dir("llama"), &["--head", "L1.H0,L1.H0"], &["--head", "twice"]);
    refused(&fixtures().join("families/mamba"), &[], &["pattern", "recurrent"]);
}
