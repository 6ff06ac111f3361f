//! The logit lens, held to the definition in f64 on golden activations.

use crate::support::cli::{Bench, gatelens};
use crate::support::copies::Folder;
use crate::support::{Golden, family_dir};
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::Path;

const ANSWER: [u32; 2] = [11, 30];

/// The two prompts of a family's golden values.
fn prompts(golden: &Golden) -> Vec<Value> {
    let one =
        |i: usize| json!({ "id": i.to_string(), "prompt": { "ids": golden.ids("input_ids", i) }, "answer": ANSWER });
    vec![one(0), one(1)]
}

fn lens(bench: &Bench, model: &Path, lines: &[Value], more: &[&str]) -> std::path::PathBuf {
    let (path, out) = (bench.dataset("prompts.jsonl", lines), bench.out(&format!("lens{}", more.concat())));
    let words = ["lens", model.to_str().unwrap(), "--prompts", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens([&words[..], &["--quiet"], more].concat()).done();
    out
}

/// What reads a family's residual stream: the norm's gain, the unembedding by rows, the cap.
struct Reader {
    gain: Vec<f64>,
    rows: Vec<Vec<f64>>,
    cap: Option<f64>,
}

impl Reader {
    fn of(family: &str) -> Reader {
        let tensors = Folder::of(family).tensors();
        let values = |name: &str| tensors[name].values().iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let (less, cap, rows) = match family {
            "gemma2" => (1.0, Some(30.0), "model.embed_tokens.weight"),
            _ => (0.0, None, "lm_head.weight"),
        };
        let gain: Vec<f64> = values("model.norm.weight").iter().map(|w| w + less).collect();
        let rows = values(rows).chunks(gain.len()).map(<[f64]>::to_vec).collect();
        Reader { gain, rows, cap }
    }

    /// Log-probabilities of all tokens.
    fn logprobs(&self, stream: &[f32]) -> Vec<f64> {
        let x: Vec<f64> = stream.iter().map(|x| f64::from(*x)).collect();
        let scale = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-6).sqrt();
        let normed: Vec<f64> = x.iter().zip(&self.gain).map(|(x, w)| x / scale * w).collect();
        let logit = |row: &Vec<f64>| row.iter().zip(&normed).map(|(a, b)| a * b).sum::<f64>();
        let capped = |x: f64| self.cap.map_or(x, |cap| cap * (x / cap).tanh());
        let logits: Vec<f64> = self.rows.iter().map(|row| capped(logit(row))).collect();
        let sum = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
        logits.iter().map(|x| x - sum).collect()
    }
}

#[test]
fn every_row_is_what_norm_and_unembedding_make_of_the_golden_activations() {
    for family in ["llama", "gemma2"] {
        for (site, golden_site) in [("resid_post", "resid_post"), ("mlp_out", "mlp_out")] {
            let (bench, golden, reader) = (Bench::new(), Golden::of(family), Reader::of(family));
            let out = lens(&bench, &family_dir(family), &prompts(&golden), &["--site", site, "--top", "3"]);
            let table = Table::read_parquet(out.join("lens.parquet")).unwrap();
            let (ids, layers, positions) =
                (table.strs("id").unwrap(), table.ints("layer").unwrap(), table.ints("position").unwrap());
            let (ranks, predicted) = (table.ints("rank").unwrap(), table.ints("predicted_id").unwrap());
            let float = |name: &str| table.floats(name).unwrap();
            assert_eq!(table.rows(), 2 * 4 * 12 * 3, "{family}: prompts, layers, positions, tokens");
            for i in 0..table.rows() {
                let (prompt, layer, position) = (ids[i].parse::<usize>().unwrap(), layers[i], positions[i] as usize);
                let stream = |site: &str, layer: i64| {
                    let values = golden.values(&format!("clean.{site}.{layer}"));
                    values[(prompt * 12 + position) * 48..][..48].to_vec()
                };
                let here = reader.logprobs(&stream(golden_site, layer));
                let last = reader.logprobs(&stream("resid_post", 3));
                let at = format!("{family} {site} prompt {prompt} layer {layer} position {position} rank {}", ranks[i]);
                let close = |name: &str, expected: f64| {
                    let found = float(name)[i].unwrap();
                    assert!((found - expected).abs() < 2e-4, "{at}: {name} {found} and {expected}");
                };
                let mut sorted = here.clone();
                sorted.sort_by(|a, b| b.total_cmp(a));
                close("logprob", sorted[ranks[i] as usize - 1]);
                close("logprob", here[predicted[i] as usize]);
                let best = ANSWER.iter().map(|id| here[*id as usize]).fold(f64::MIN, f64::max);
                let rank = here.iter().filter(|x| **x > best + 1e-5).count() + 1;
                let may = rank..=here.iter().filter(|x| **x > best - 1e-5).count();
                assert!(may.contains(&(float("answer_rank")[i].unwrap() as usize)), "{at}: {may:?}");
                close("answer_logprob", ANSWER.iter().map(|id| here[*id as usize].exp()).sum::<f64>().ln());
                close("kl_to_last", last.iter().zip(&here).map(|(p, q)| p.exp() * (p - q)).sum());
            }
            let layers = Table::read_parquet(out.join("layers.parquet")).unwrap();
            let of_prompt =
                |prompt: usize| reader.logprobs(&golden.values("clean.resid_post.1")[(prompt * 12 + 11) * 48..][..48]);
            if site == "resid_post" {
                let answer = |p: Vec<f64>| ANSWER.iter().map(|id| p[*id as usize].exp()).sum::<f64>().ln();
                let mean = (answer(of_prompt(0)) + answer(of_prompt(1))) / 2.0;
                assert!((layers.floats("logprob_mean").unwrap()[1].unwrap() - mean).abs() < 2e-4, "{family}");
                assert_eq!(layers.floats("same").unwrap()[3], Some(1.0), "{family}: after the last layer");
                assert!(layers.floats("kl_mean").unwrap()[3].unwrap().abs() < 1e-9, "{family}");
            }
        }
    }
}

#[test]
fn one_position_is_read_by_its_number_and_reports_have_their_figures() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let out = lens(&bench, &family_dir("llama"), &prompts(&golden), &["--position", "-2"]);
    let table = Table::read_parquet(out.join("lens.parquet")).unwrap();
    assert!(table.rows() == 2 * 4 * 5 && table.ints("position").unwrap().iter().all(|p| *p == 10));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    for words in ["prompt-1.png", "prompt-2.png", "shares.png", "answer.png", "divergence.png", "likeliest token is"] {
        assert!(report.contains(words), "the report has no `{words}`");
    }
    // Nobody named an answer: nothing is said of one.
    let without = vec![json!({ "id": "a", "prompt": { "ids": golden.ids("input_ids", 0) } })];
    let out = lens(&bench, &family_dir("llama"), &without, &[]);
    assert!(!std::fs::read_to_string(out.join("report.md")).unwrap().contains("answer.png"));
    let table = Table::read_parquet(out.join("lens.parquet")).unwrap();
    assert!(table.floats("answer_rank").unwrap().iter().all(Option::is_none));
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let (model, path) = (family_dir("llama"), bench.dataset("p.jsonl", &prompts(&golden)));
    let refused = |more: &[&str], parts: &[&str]| {
        let words = ["lens", model.to_str().unwrap(), "--prompts", path.to_str().unwrap()];
        gatelens([&words[..], &["--out", bench.out("x").to_str().unwrap()], more].concat()).refused(parts);
    };
    refused(&["--site", "z"], &["--site", "`z`", "residual stream"]);
    refused(&["--position", "40"], &["12 tokens", "no position 40"]);
    refused(&["--answer", "id:400"], &["--answer", "400"]);
    let (several, out) = (family_dir("families/gemma3n"), bench.out("x"));
    let words =
        ["lens", several.to_str().unwrap(), "--prompts", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens(words).refused(&["the mean of 3 residual streams"]);
}

#[test]
fn the_vocabulary_of_a_vector_needs_no_prompt() {
    let bench = Bench::new();
    let tensors = Folder::of("llama").tensors();
    let (unembedding, gain) = (tensors["lm_head.weight"].values(), tensors["model.norm.weight"].values());
    let vector: Vec<f32> = (0..gain.len()).map(|i| (i as f32 * 0.7).sin()).collect();
    let logit = |token: usize| -> f64 {
        let row = &unembedding[token * gain.len()..];
        (0..gain.len()).map(|i| f64::from(row[i]) * f64::from(gain[i]) * f64::from(vector[i])).sum()
    };
    let mut logits: Vec<(f64, i64)> = (0..unembedding.len() / gain.len()).map(|t| (logit(t), t as i64)).collect();
    let mean = logits.iter().map(|(logit, _)| logit).sum::<f64>() / logits.len() as f64;
    logits.sort_by(|a, b| b.0.total_cmp(&a.0));
    let path = bench.path("v.safetensors");
    let tensor = candle_core::Tensor::new(&vector[..], &candle_core::Device::Cpu).unwrap();
    candle_core::safetensors::save(&std::collections::HashMap::from([("mine", tensor)]), &path).unwrap();
    let (model, out) = (family_dir("llama"), bench.out("lens"));
    let words = ["lens", model.to_str().unwrap(), "--vector", path.to_str().unwrap(), "--top", "3"];
    gatelens([&words[..], &["--out", out.to_str().unwrap(), "--quiet"]].concat()).done();
    let vocabulary = Table::read_parquet(out.join("vocabulary.parquet")).unwrap();
    let expected: Vec<(f64, i64)> = logits[..3].iter().chain(logits.iter().rev().take(3)).copied().collect();
    assert_eq!(vocabulary.ints("token_id").unwrap(), expected.iter().map(|(_, id)| *id).collect::<Vec<_>>());
    for (found, (logit, _)) in vocabulary.floats("logit").unwrap().iter().zip(&expected) {
        assert!((found.unwrap() - (logit - mean)).abs() < 1e-4, "{found:?} and {logit}");
    }
    assert!(!out.join("lens.parquet").exists());
    assert!(std::fs::read_to_string(out.join("report.md")).unwrap().contains("mine of"));
    let nothing = ["lens", model.to_str().unwrap(), "--out", out.to_str().unwrap(), "--force"];
    gatelens(nothing).told_by_the_parser(&["--prompts"]);
}
