//! Neurons: their attribution, their vocabulary, what silencing them does, and where they were highest.

use crate::support::cli::{Bench, gatelens};
use crate::support::copies::Folder;
use crate::support::{Golden, family_dir, fixtures, open};
use gatelens::plan::{Activation, Part, Plan, Positions};
use gatelens::run::Options;
use gatelens::site::SiteKind;
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The two prompts of golden values with an answer and a foil of several tokens.
fn prompts(golden: &Golden) -> Vec<Value> {
    let line = |i: usize| {
        let ids = golden.ids("input_ids", i);
        json!({ "id": i.to_string(), "prompt": { "ids": ids }, "answer": [11, 30], "foil": [23, 7] })
    };
    vec![line(0), line(1)]
}

fn run(bench: &Bench, command: &str, model: &Path, lines: &[Value], more: &[&str]) -> PathBuf {
    let name: String = more.concat().chars().filter(char::is_ascii_alphanumeric).collect();
    let out = bench.out(&format!("{command}{name}"));
    let path = bench.dataset("prompts.jsonl", lines);
    let words = [command, model.to_str().unwrap(), "--prompts", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens([&words[..], &["--quiet"], more].concat()).done();
    out
}

fn table(dir: &Path, name: &str) -> Table {
    Table::read_parquet(dir.join(format!("{name}.parquet"))).unwrap()
}

fn close(found: f64, expected: f64, tolerance: f64, at: &str) {
    assert!((found - expected).abs() < tolerance * (1.0 + expected.abs()), "{at}: {found} and {expected}");
}

/// In families whose down projection has no bias, an MLP is the sum of its neurons.
#[test]
fn what_neurons_add_sums_to_the_attribution_of_their_mlp() {
    let others = fixtures().join("families");
    for folder in [
        family_dir("llama"),
        family_dir("gemma2"),
        family_dir("olmo2"),
        others.join("granite"),
        others.join("cohere"),
        others.join("exaone4"),
    ] {
        let (bench, golden) = (Bench::new(), Golden::at(&folder));
        let neurons = table(&run(&bench, "neurons", &folder, &prompts(&golden), &[]), "neurons");
        let items = table(&run(&bench, "dla", &folder, &prompts(&golden), &[]), "items");
        let layers = *neurons.ints("layer").unwrap().last().unwrap() + 1;
        for layer in 0..layers {
            let sum: f64 = (0..neurons.rows())
                .filter(|i| neurons.ints("layer").unwrap()[*i] == layer)
                .filter_map(|i| neurons.floats("attribution_mean").unwrap()[i])
                .sum();
            let mlp = (0..items.rows())
                .filter(|i| items.ints("layer").unwrap()[*i] == layer && items.strs("component").unwrap()[*i] == "mlp");
            let mlp: Vec<f64> = mlp.filter_map(|i| items.floats("attribution").unwrap()[i]).collect();
            assert_eq!(mlp.len(), 2);
            close(sum, (mlp[0] + mlp[1]) / 2.0, 1e-4, &format!("{} layer {layer}", folder.display()));
        }
    }
}

/// `W_U (g * column)` in f64, less its mean: for a layer norm of the centred column.
#[test]
fn a_vocabulary_is_the_unembedding_of_a_column_of_the_down_projection() {
    for (family, down, gain, unembedding) in [
        ("llama", "model.layers.2.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"),
        ("gpt2", "transformer.h.2.mlp.c_proj.weight", "transformer.ln_f.weight", "transformer.wte.weight"),
    ] {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let folder = Folder::of(family);
        let tensors = folder.tensors();
        let wanted = |name: &str| {
            // Checkpoints of GPT-2 have its tensors with and without this.
            let short = name.strip_prefix("transformer.").unwrap_or(name);
            let found = tensors.get(name).or_else(|| tensors.get(short));
            found.unwrap_or_else(|| panic!("{family} has no {name}: {:?}", tensors.keys())).values()
        };
        let (down, gain, unembedding) = (wanted(down), wanted(gain), wanted(unembedding));
        let (d, neuron) = (gain.len(), 5);
        let width = down.len() / d;
        let column: Vec<f64> = (0..d)
            .map(|i| f64::from(if family == "gpt2" { down[neuron * d + i] } else { down[i * width + neuron] }))
            .collect();
        let mean = if family == "gpt2" { column.iter().sum::<f64>() / d as f64 } else { 0.0 };
        let logit = |token: usize| -> f64 {
            (0..d).map(|i| f64::from(unembedding[token * d + i]) * f64::from(gain[i]) * (column[i] - mean)).sum()
        };
        let logits: Vec<f64> = (0..unembedding.len() / d).map(logit).collect();
        let mean = logits.iter().sum::<f64>() / logits.len() as f64;
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let out =
            run(&bench, "neurons", &family_dir(family), &prompts(&golden), &["--neuron", "L2.N5", "--vocabulary", "4"]);
        let vocabulary = table(&out, "vocabulary");
        let ids = vocabulary.ints("token_id").unwrap();
        let expected: Vec<i64> = order[..4].iter().chain(order.iter().rev().take(4)).map(|id| *id as i64).collect();
        assert_eq!(ids, expected, "{family}");
        assert_eq!(vocabulary.strs("end").unwrap(), [["raised"; 4], ["lowered"; 4]].concat());
        for (id, found) in ids.iter().zip(vocabulary.floats("logit").unwrap()) {
            close(found.unwrap(), logits[*id as usize] - mean, 1e-5, family);
        }
        assert_eq!(table(&out, "neurons").rows(), 1, "only the neuron that was named");
    }
}

#[test]
fn silencing_is_that_of_the_reference_engine_alone_and_together_with_zeros_and_with_the_mean() {
    for (family, mode, position) in [("llama", "zero", "last"), ("gpt2", "mean", "all"), ("gemma2", "mean", "-2")] {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let more = ["--list", "6", "--mode", mode, "--position", position];
        let wave = run(&bench, "neurons", &family_dir(family), &prompts(&golden), &more);
        let full = run(
            &bench,
            "neurons",
            &family_dir(family),
            &prompts(&golden),
            &[&more[..], &["--engine", "full"]].concat(),
        );
        for (name, rows) in [("effects", 6), ("sets", 11)] {
            let [wave, full] = [&wave, &full].map(|dir| table(dir, name));
            assert_eq!(wave.rows(), rows);
            let [wave, full] = [wave, full].map(|t| t.floats("effect_mean").unwrap().to_vec());
            assert!(wave.iter().flatten().any(|effect| effect.abs() > 1e-4), "{family}: nothing was silenced");
            wave.iter().zip(full).for_each(|(a, b)| close(a.unwrap(), b.unwrap(), 1e-4, family));
        }
        // The neurons that were chosen are those with the largest attributions.
        let (neurons, effects) = (table(&wave, "neurons"), table(&wave, "effects"));
        let mut sizes: Vec<f64> =
            neurons.floats("attribution_mean").unwrap().iter().flatten().map(|x| x.abs()).collect();
        sizes.sort_by(|a, b| b.total_cmp(a));
        let chosen = effects.floats("attribution_mean").unwrap();
        chosen.iter().zip(sizes).for_each(|(a, b)| close(a.unwrap().abs(), b, 1e-5, family));
        // A file of theirs is read back as the same choice.
        let list = wave.join("neurons.txt");
        let again = run(
            &bench,
            "neurons",
            &family_dir(family),
            &prompts(&golden),
            &["--set", list.to_str().unwrap(), "--mode", mode, "--position", position],
        );
        let of = |t: Table| t.floats("effect_mean").unwrap().to_vec();
        assert_eq!(of(table(&again, "effects")), of(effects), "{family}");
    }
}

#[test]
fn numbers_and_contexts_are_those_of_the_activations() {
    for (family, gated) in [("llama", true), ("gpt2", false)] {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let out = run(&bench, "neurons", &family_dir(family), &prompts(&golden), &["--contexts", "3"]);
        let mut plan = Plan::default();
        for i in 0..2 {
            let prompt = plan.prompt("p", golden.ids("input_ids", i));
            plan.read(prompt, Activation { site: SiteKind::MlpAct.at(1), positions: Positions::All, part: Part::All });
        }
        let readings = gatelens::run::run(&open(family).decoder, &plan, &Options::default()).unwrap();
        let acts: Vec<f32> = readings.iter().flat_map(|r| r.values()).collect();
        let n = golden.shape("input_ids")[1];
        let width = acts.len() / (2 * n);
        let (neurons, contexts) = (table(&out, "neurons"), table(&out, "contexts"));
        for neuron in [0, 7, width - 1] {
            let mut all: Vec<(f64, i64, String)> = (0..2 * n)
                .filter(|row| row % n != 0)
                .map(|row| (f64::from(acts[row * width + neuron]), (row % n) as i64, (row / n).to_string()))
                .collect();
            let row = (0..neurons.rows()).find(|i| {
                neurons.ints("layer").unwrap()[*i] == 1 && neurons.ints("neuron").unwrap()[*i] == neuron as i64
            });
            let float = |name: &str| neurons.floats(name).unwrap()[row.unwrap()].unwrap();
            close(float("mean"), all.iter().map(|a| a.0).sum::<f64>() / all.len() as f64, 1e-5, family);
            close(float("positive"), all.iter().filter(|a| a.0 > 0.0).count() as f64 / all.len() as f64, 1e-9, family);
            if !gated {
                assert_eq!(float("activity"), float("positive"));
            }
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            close(float("max"), all[0].0, 1e-6, family);
            let of = |end: &str| -> Vec<(f64, i64, String)> {
                (0..contexts.rows())
                    .filter(|i| {
                        contexts.ints("layer").unwrap()[*i] == 1
                            && contexts.ints("neuron").unwrap()[*i] == neuron as i64
                            && contexts.strs("end").unwrap()[*i] == end
                    })
                    .map(|i| {
                        let activation = contexts.floats("activation").unwrap()[i].unwrap();
                        let id = contexts.strs("id").unwrap()[i].to_string();
                        (activation, contexts.ints("position").unwrap()[i], id)
                    })
                    .collect()
            };
            assert_eq!(of("high"), all[..3], "{family}");
            all.reverse();
            assert_eq!(of("low"), if gated { all[..3].to_vec() } else { Vec::new() }, "{family}");
        }
    }
}

#[test]
fn a_corpus_of_plain_text_is_read_in_pieces_and_has_no_answer() {
    let bench = Bench::new();
    let text = "the vault is open\n\nthe garden is green and the vault is closed\n".repeat(40);
    let path = bench.text("corpus.txt", &text);
    let out = bench.out("neurons");
    let words =
        ["neurons", "demo", "--prompts", path.to_str().unwrap(), "--length", "24", "--out", out.to_str().unwrap()];
    let words: Vec<String> = words.iter().map(|word| (*word).to_string()).collect();
    gatelens([words.clone(), vec!["--quiet".to_string()]].concat()).done();
    assert!(!out.join("effects.parquet").exists(), "nothing is measured");
    let contexts = table(&out, "contexts");
    assert!(contexts.strs("id").unwrap().iter().all(|id| id.starts_with("text, piece ")));
    assert!(std::fs::read_to_string(out.join("report.md")).unwrap().contains("Where they fire"));
    let cost = gatelens([words.clone(), vec!["--dry-run".to_string()]].concat()).done();
    assert!(cost.contains("prompts"), "{cost}");
    let answered = [words, ["--force", "--answer", "x"].map(str::to_string).to_vec()].concat();
    gatelens(answered).refused(&["--answer", "is a corpus: no token of it is an answer"]);
}

#[test]
fn what_cannot_be_asked_is_said_with_what_would_mend_it() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let path = bench.dataset("prompts.jsonl", &prompts(&golden));
    let refused = |folder: &Path, more: &[&str], said: &str| {
        let words = ["neurons", folder.to_str().unwrap(), "--prompts", path.to_str().unwrap()];
        let out = bench.out("refused");
        gatelens([&words[..], &["--out", out.to_str().unwrap()], more].concat()).refused(&[said]);
    };
    for (more, said) in [
        (vec!["--neuron", "L1.H3"], "`L1.H3` is no neuron; write L5.N1234"),
        (vec!["--neuron", "L9.N3"], "--neuron: L9.N3: the model has layers 0 to"),
        (vec!["--neuron", "L1.N3,L1.N3"], "--neuron names L1.N3 twice"),
        (vec!["--neuron", "L1.N3", "--layers", "0"], "--layers: leaves out L1.N3"),
        (vec!["--layers", "7"], "is no layer or range of layers"),
        (vec!["--position", "40"], "40"),
    ] {
        refused(&family_dir("llama"), &more, said);
    }
    refused(&fixtures().join("families").join("mixtral"), &[], "several experts");
}
