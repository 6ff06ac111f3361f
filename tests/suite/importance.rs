//! Rankings of tokens: on the demo, where the topic decides, and against runs that are masked by hand.

use crate::support::cli::{Bench, gatelens};
use crate::support::{Golden, family_dir, open};
use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions};
use gatelens::run::{Engine, Options, run};
use gatelens::site::SiteKind;
use gatelens::table::Table;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn importance(bench: &Bench, model: &str, prompts: &str, more: &[&str]) -> PathBuf {
    let out = bench.out("importance");
    let words = ["importance", model, "--prompts", prompts, "--out", out.to_str().unwrap(), "--quiet", "--masks", "60"];
    gatelens([&words[..], more].concat()).done();
    out
}

fn table(dir: &Path, name: &str) -> Table {
    Table::read_parquet(dir.join(format!("{name}.parquet"))).unwrap()
}

/// In the demo the topic alone decides: no other token is as important, and the template is not masked.
#[test]
fn the_topic_is_what_the_demo_depends_on_and_rankings_that_find_it_are_better_than_chance() {
    let bench = Bench::new();
    let out = importance(&bench, "demo", "demo:prompts.jsonl", &["--label", "sensitive"]);
    let tokens = table(&out, "tokens");
    let (ids, names, own) = (tokens.strs("id").unwrap(), tokens.strs("token").unwrap(), tokens.flags("own").unwrap());
    let mut prompts: Vec<&str> = ids.to_vec();
    prompts.dedup();
    assert_eq!(prompts.len(), 80);
    for prompt in prompts {
        let rows: Vec<usize> = (0..tokens.rows()).filter(|i| ids[*i] == prompt).collect();
        assert!(rows.iter().any(|i| !own[*i]) && !own[*rows.last().unwrap()], "the template's tokens stay");
        for ranking in ["occlusion", "rise"] {
            let scores = tokens.floats(ranking).unwrap();
            let best = rows
                .iter()
                .copied()
                .filter(|i| own[*i])
                .max_by(|a, b| scores[*a].unwrap().total_cmp(&scores[*b].unwrap()));
            // Prompts are named by topic: `en-explosives-5`.
            let topic = prompt.split('-').nth(1).unwrap();
            assert_eq!(names[best.unwrap()].trim(), topic, "{ranking} of {prompt}");
        }
    }
    let summary = table(&out, "summary");
    let (names, over) = (summary.strs("ranking").unwrap(), summary.floats("over_random_ci_low").unwrap());
    for (name, low) in names.iter().zip(over).filter(|(name, _)| ["occlusion", "rise"].contains(*name)) {
        assert!(low.unwrap() > 3.0, "{name}: {low:?}");
    }
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("Better than random rankings beyond chance"), "{report}");
}

/// A masked token's embedding is the mean of all; where positions are learned, that of its place is added.
#[test]
fn occlusion_is_the_change_of_a_run_that_is_masked_by_hand() {
    for (family, embedding, positions) in [
        ("llama", "model.embed_tokens.weight", None),
        ("gpt2", "transformer.wte.weight", Some("transformer.wpe.weight")),
    ] {
        let (bench, golden, model) = (Bench::new(), Golden::of(family), open(family));
        let line = json!({ "id": "a", "prompt": { "ids": golden.ids("input_ids", 0) }, "answer": [11], "foil": [23] });
        let path = bench.dataset("prompts.jsonl", &[line]);
        let out = importance(&bench, family_dir(family).to_str().unwrap(), path.to_str().unwrap(), &[]);
        let occlusion = table(&out, "tokens").floats("occlusion").unwrap().to_vec();
        let tensors = crate::support::copies::Folder::of(family).tensors();
        let values = |name: &str| {
            let short = name.strip_prefix("transformer.").unwrap_or(name);
            tensors.get(name).or_else(|| tensors.get(short)).unwrap().values()
        };
        let (d, table) = (model.decoder.arch.d_model, values(embedding));
        let n = (table.len() / d) as f64;
        let mean: Vec<f64> =
            (0..d).map(|k| table.iter().skip(k).step_by(d).map(|x| f64::from(*x)).sum::<f64>() / n).collect();
        let mut plan = Plan::default();
        let prompt = plan.prompt("a", golden.ids("input_ids", 0));
        let metric = Metric::logit_difference(vec![11], vec![23]);
        let whole = plan.read(prompt, metric.clone());
        let masked: Vec<_> = (0..occlusion.len())
            .map(|p| {
                let added = |k: usize| positions.map_or(0.0, |name| f64::from(values(name)[p * d + k]));
                let row: Vec<f32> = (0..d).map(|k| (mean[k] + added(k)) as f32).collect();
                let edit = Edit {
                    site: SiteKind::Embed.at(0),
                    part: Part::All,
                    positions: Positions::At(vec![p]),
                    change: Change::Set(Arc::from(row)),
                };
                let fork = plan.fork(prompt, vec![edit]);
                plan.read(fork, metric.clone())
            })
            .collect();
        let readings = run(&model.decoder, &plan, &Options { engine: Engine::Full, ..Options::default() }).unwrap();
        for (p, handle) in masked.into_iter().enumerate() {
            let (found, expected) = (occlusion[p].unwrap(), readings[whole] - readings[handle]);
            assert!((found - expected).abs() < 1e-4, "{family}: {p}: {found} and {expected}");
        }
        assert!(occlusion.iter().flatten().any(|x| x.abs() > 1e-3), "{family}: nothing was masked");
    }
}

#[test]
fn a_prompt_with_nothing_to_rank_is_refused() {
    let bench = Bench::new();
    let path = bench.text("p.jsonl", "{\"prompt\": {\"ids\": [3]}, \"answer\": [5], \"foil\": [6]}\n");
    let out = bench.out("out");
    let words = ["importance", "demo", "--prompts", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens(words).refused(&["line 1", "fewer than two tokens of its own"]);
}
