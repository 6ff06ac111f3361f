//! Neurons: their attribution, their vocabulary, what silencing them does, and where they were highest.

use crate::support::cli::{Bench, gatelens};
use crate::support::copies::Folder;
use crate::support::{Golden, family_dir, fixtures, open};
use gatelens::model::Model;
use gatelens::plan::{Activation, Change, Edit, Metric, Part, Plan, Positions};
use gatelens::run::{Engine, Options};
use gatelens::site::{Site, SiteKind};
use gatelens::stats::{Bootstrap, bca_difference, benjamini_hochberg, welch};
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

/// In families whose down projection has no bias, an MLP is the sum of its neurons, and so are several experts.
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
        // Several experts: without and with a shared one, with a residual multiplier, weighing what they read.
        others.join("mixtral"),
        others.join("qwen2_moe"),
        others.join("granitemoe"),
        others.join("llama4"),
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

/// The tensors of a layer's down projection, of the final norm's gain and of the unembedding.
const NAMES: [(&str, [&str; 3]); 2] = [
    ("llama", ["model.layers.2.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"]),
    ("gpt2", ["transformer.h.2.mlp.c_proj.weight", "transformer.ln_f.weight", "transformer.wte.weight"]),
];

/// What each neuron of layer 2 adds to the logits for a unit, by the tensors in f64: `W_U (g * column)`, for a layer norm of the centred
/// column. `[neurons][vocab]`
fn logits(family: &str, names: [&str; 3]) -> Vec<Vec<f64>> {
    let folder = Folder::of(family);
    let tensors = folder.tensors();
    let [down, gain, unembedding] = names.map(|name| {
        // Checkpoints of GPT-2 have its tensors with and without this.
        let short = name.strip_prefix("transformer.").unwrap_or(name);
        let found = tensors.get(name).or_else(|| tensors.get(short));
        found.unwrap_or_else(|| panic!("{family} has no {name}: {:?}", tensors.keys())).values()
    });
    let d = gain.len();
    let width = down.len() / d;
    let of_neuron = |neuron: usize| {
        let column: Vec<f64> = (0..d)
            .map(|i| f64::from(if family == "gpt2" { down[neuron * d + i] } else { down[i * width + neuron] }))
            .collect();
        let mean = if family == "gpt2" { column.iter().sum::<f64>() / d as f64 } else { 0.0 };
        let logit = |token: usize| -> f64 {
            (0..d).map(|i| f64::from(unembedding[token * d + i]) * f64::from(gain[i]) * (column[i] - mean)).sum()
        };
        (0..unembedding.len() / d).map(logit).collect()
    };
    (0..width).map(of_neuron).collect()
}

#[test]
fn a_vocabulary_is_the_unembedding_of_a_column_of_the_down_projection() {
    for (family, names) in NAMES {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let logits = logits(family, names).swap_remove(5);
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
fn neurons_are_chosen_by_how_far_their_columns_raise_or_lower_the_words() {
    for (family, names) in NAMES {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let words = [11, 30, 7];
        let score = |logits: &Vec<f64>| {
            let n = logits.len() as f64;
            let mean = logits.iter().sum::<f64>() / n;
            let deviation = (logits.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
            words.iter().map(|word| (logits[*word] - mean) / deviation).sum::<f64>() / 3.0
        };
        let logits = logits(family, names);
        let expected: Vec<f64> = logits.iter().map(score).collect();
        let more = ["--words", "id:11,id:30,id:7", "--layers", "2", "--list", "5", "--vocabulary", "6"];
        let out = run(&bench, "neurons", &family_dir(family), &prompts(&golden), &more);
        let neurons = table(&out, "neurons");
        let found = neurons.floats("words_score").unwrap();
        assert_eq!(found.len(), expected.len(), "every neuron of the layer has a score");
        found.iter().zip(&expected).for_each(|(a, b)| close(a.unwrap(), *b, 1e-4, family));
        let mut order: Vec<usize> = (0..expected.len()).collect();
        order.sort_by(|a, b| expected[*b].abs().total_cmp(&expected[*a].abs()));
        let listed = std::fs::read_to_string(out.join("neurons.txt")).unwrap();
        let best: Vec<String> = order[..5].iter().map(|neuron| format!("L2.N{neuron}")).collect();
        assert_eq!(listed.lines().skip(1).collect::<Vec<_>>(), best, "{family}");
        assert!(listed.starts_with("# ") && listed.contains("id:11, id:30, id:7"), "{listed}");
        // Of those that were looked at closely, how many of the words are among the six at the end that the score says.
        for (neuron, found) in neurons.floats("words_found").unwrap().iter().enumerate() {
            let sign = expected[neuron].signum();
            let above =
                |word: &&usize| logits[neuron].iter().filter(|x| *x * sign > logits[neuron][**word] * sign).count() < 6;
            let count = words.iter().filter(above).count() as f64;
            assert_eq!(*found, order[..5].contains(&neuron).then_some(count), "{family} {neuron}");
        }
        // They were not chosen by the prompts: only these five were tested.
        let effects = table(&out, "effects");
        let p: Vec<f64> = effects.floats("p_value").unwrap().iter().flatten().copied().collect();
        let q: Vec<f64> = effects.floats("q_value").unwrap().iter().flatten().copied().collect();
        assert_eq!((q, effects.rows()), (benjamini_hochberg(&p), 5));
        let report = std::fs::read_to_string(out.join("report.md")).unwrap();
        assert!(report.contains("Neurons that hold the words") && report.contains(&best[0]), "{report}");
    }
}

#[test]
fn a_word_of_several_tokens_is_scored_by_its_first_and_warned_of() {
    let bench = Bench::new();
    let path = bench.text("prompts.jsonl", r#"{"prompt": {"text": "the books are about bread"}}"#);
    let words = |given: &str| {
        let out = bench.out(given);
        let words = ["neurons", "demo", "--prompts", path.to_str().unwrap(), "--list", "3", "--words", given, "--out"];
        let ended = gatelens([&words[..], &[out.to_str().unwrap()]].concat());
        let warned = ended.stderr.clone();
        ended.done();
        (table(&out, "words"), warned)
    };
    let (found, warned) = words("bread,chess");
    assert_eq!((found.strs("word").unwrap(), found.rows()), (vec!["bread", "chess"], 2));
    let model = Model::open("demo", &Default::default()).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let expected = ["bread", "chess"].map(|word| {
        let within = tokenizer.encode(&format!("the {word}"), false).unwrap();
        i64::from(*within.last().unwrap())
    });
    assert_eq!(found.ints("token_id").unwrap(), expected, "as the words are written after others");
    assert!(!warned.contains("is scored"), "{warned}");
    let (_, warned) = words("bread?");
    assert!(warned.contains("--words: `bread?` is 2 tokens") && warned.contains("the first one is scored"), "{warned}");
}

/// Eight prompts with labels, of golden ids from different positions on.
fn labelled(golden: &Golden) -> Vec<Value> {
    let line = |i: usize| {
        let ids = golden.ids("input_ids", i % 2);
        let label = ["one", "one", "other"][i % 3];
        json!({ "id": i.to_string(), "prompt": { "ids": ids[i / 2..] }, "answer": [11, 30], "foil": [23, 7], "label": label })
    };
    (0..8).map(line).collect()
}

/// The effect of an edit on each of some prompts, and the mean at sites over all positions but the first of each.
struct Reference {
    model: Model,
    prompts: Vec<Vec<u32>>,
}

impl Reference {
    fn of(family: &str, lines: &[Value]) -> Reference {
        let ids = |line: &Value| serde_json::from_value(line["prompt"]["ids"].clone()).unwrap();
        Reference { model: open(family), prompts: lines.iter().map(ids).collect() }
    }

    fn effects(&self, edits: &[Edit]) -> Vec<f64> {
        let mut plan = Plan::default();
        let metric = || Metric::logit_difference(vec![11, 30], vec![23, 7]);
        for ids in &self.prompts {
            let prompt = plan.prompt("p", ids.clone());
            let fork = plan.fork(prompt, edits.to_vec());
            plan.read(prompt, metric());
            plan.read(fork, metric());
        }
        let readings = gatelens::run::run(&self.model.decoder, &plan, &Options::default()).unwrap();
        let numbers: Vec<f64> = readings.iter().map(|reading| reading.number().unwrap()).collect();
        numbers.chunks_exact(2).map(|both| both[1] - both[0]).collect()
    }

    fn mean(&self, site: Site) -> Vec<f32> {
        let mut plan = Plan::default();
        for ids in &self.prompts {
            let prompt = plan.prompt("p", ids.clone());
            plan.read(prompt, Activation { site, positions: Positions::All, part: Part::All });
        }
        let readings = gatelens::run::run(&self.model.decoder, &plan, &Options::default()).unwrap();
        let rows: Vec<&[f32]> = readings.iter().flat_map(|reading| reading.rows().skip(1)).collect();
        let mean = |i: usize| (rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / rows.len() as f64) as f32;
        (0..rows[0].len()).map(mean).collect()
    }
}

#[test]
fn heads_are_silenced_alone_and_with_neurons_and_labels_are_told_apart() {
    for (mode, position) in [("zero", "last"), ("mean", "all")] {
        let (bench, golden) = (Bench::new(), Golden::of("llama"));
        let lines = labelled(&golden);
        let heads = bench.text("heads.txt", "# two of them\nL1.H2\nL0.H1\n");
        let more = ["--neuron", "L1.N3,L2.N8,L2.N1", "--mode", mode, "--position", position, "--circuit"];
        let more = [&more[..], &[heads.to_str().unwrap()]].concat();
        let out = run(&bench, "neurons", &family_dir("llama"), &lines, &more);
        let reference = Reference::of("llama", &lines);
        let positions = if position == "all" { Positions::All } else { Positions::Last };
        let edit = |kind: SiteKind, layer: usize, part: Part, columns: &[usize]| {
            let mean = || columns.iter().map(|i| reference.mean(kind.at(layer))[*i]).collect();
            let change = if mode == "mean" { Change::Set(mean()) } else { Change::Zero };
            Edit { site: kind.at(layer), part, positions: positions.clone(), change }
        };
        let neurons =
            |layer: usize, columns: &[usize]| edit(SiteKind::MlpAct, layer, Part::Columns(columns.to_vec()), columns);
        // Four heads of 12.
        let head = |layer: usize, head: usize| {
            edit(SiteKind::Z, layer, Part::Heads(vec![head]), &(12 * head..12 * head + 12).collect::<Vec<_>>())
        };
        let listed = vec![neurons(1, &[3]), neurons(2, &[1, 8])];
        let named = vec![head(0, 1), head(1, 2)];
        let both = [listed.clone(), named.clone()].concat();
        let (sets, contrasts) = (table(&out, "sets"), table(&out, "contrasts"));
        // Of three other heads of two layers there are nine sets at most.
        let drawn = |like: &str| {
            let name = |i: &usize| {
                sets.opt_strs("label").unwrap()[*i].is_none() && sets.strs("set").unwrap()[*i].starts_with(like)
            };
            (0..sets.rows()).filter(name).count()
        };
        assert_eq!(drawn("random neurons and heads"), drawn("random heads"));
        assert!((2..=9).contains(&drawn("random heads")), "{}", drawn("random heads"));
        assert_eq!(drawn("random ") - 2 * drawn("random heads"), 10);
        let own = |i: &usize| lines[*i]["label"] == "one";
        let mut p = Vec::new();
        for (set, edits, size) in
            [("listed", listed, [3, 0]), ("heads", named, [0, 2]), ("listed and heads", both, [3, 2])]
        {
            let effects = reference.effects(&edits);
            let [ones, others] = [true, false].map(|one| {
                let of = (0..8).filter(|i| own(i) == one).map(|i| effects[i]);
                of.collect::<Vec<f64>>()
            });
            let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
            assert!(mean(&effects).abs() > 1e-4, "{set}: nothing was silenced");
            for (label, expected) in [(None, &effects), (Some("one"), &ones), (Some("other"), &others)] {
                let row = (0..sets.rows())
                    .find(|i| sets.strs("set").unwrap()[*i] == set && sets.opt_strs("label").unwrap()[*i] == label)
                    .unwrap();
                close(sets.floats("effect_mean").unwrap()[row].unwrap(), mean(expected), 1e-4, set);
                assert_eq!(sets.ints("n").unwrap()[row] as usize, expected.len());
                assert_eq!([sets.ints("neurons").unwrap()[row], sets.ints("heads").unwrap()[row]], size);
            }
            let row = |label: &str| {
                let is = |i: &usize| {
                    contrasts.strs("set").unwrap()[*i] == set && contrasts.strs("label").unwrap()[*i] == label
                };
                (0..contrasts.rows()).find(is).unwrap()
            };
            let float = |name: &str, i: usize| contrasts.floats(name).unwrap()[i].unwrap();
            for (label, own, others) in [("one", &ones, &others), ("other", &others, &ones)] {
                let i = row(label);
                close(float("effect_mean", i), mean(own), 1e-4, set);
                close(float("others_mean", i), mean(others), 1e-4, set);
                close(float("difference", i), mean(own) - mean(others), 1e-3, set);
                let expected = bca_difference(own, others, &Bootstrap::default()).unwrap();
                close(float("difference_ci_low", i), expected.low, 1e-3, set);
                close(float("difference_ci_high", i), expected.high, 1e-3, set);
                close(float("p_value", i), welch(own, others).unwrap(), 1e-3, set);
                p.push((i, float("p_value", i)));
            }
        }
        p.sort_by_key(|(i, _)| *i);
        let q = benjamini_hochberg(&p.iter().map(|(_, p)| *p).collect::<Vec<_>>());
        for ((i, _), q) in p.iter().zip(q) {
            close(contrasts.floats("q_value").unwrap()[*i].unwrap(), q, 1e-9, "q");
        }
        let tested = contrasts.floats("q_value").unwrap().iter().flatten().count();
        assert_eq!(tested, p.len(), "random sets are to compare with, not to be tested");
        let report = std::fs::read_to_string(out.join("report.md")).unwrap();
        assert!(
            report.contains("By label") && report.contains("Silencing all 3 neurons and 2 heads together"),
            "{report}"
        );
    }
}

#[test]
fn a_dry_run_counts_the_runs_of_random_heads_too() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let path = bench.dataset("prompts.jsonl", &labelled(&golden));
    let (model, out) = (family_dir("llama"), bench.out("dry"));
    let forks = |more: &[&str]| {
        let words = [
            "neurons",
            model.to_str().unwrap(),
            "--prompts",
            path.to_str().unwrap(),
            "--list",
            "4",
            "--dry-run",
            "--json",
        ];
        let printed = gatelens([&words[..], &["--out", out.to_str().unwrap()], more].concat()).done();
        let line: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
        line["wavefront"]["forks"].as_u64().unwrap()
    };
    // Four neurons, all of them and ten random sets of neurons, of eight prompts; then two sets with heads, and three of random heads
    // by themselves and with neurons.
    assert_eq!(forks(&[]), 8 * (4 + 11));
    assert_eq!(forks(&["--head", "L1.H0"]), 8 * (4 + 11 + 2 + 2 * 3));
    assert_eq!(forks(&["--words", "id:11", "--drivers"]), 8 * (4 + 11));
}

/// What parts add to the gates sums to what these read, with norms after attention, layer norms with biases, parallel blocks and scaled
/// residuals too; and what one head adds is its output through the norm and the gates' rows.
#[test]
fn what_drives_neurons_sums_to_what_their_gates_read() {
    let others = fixtures().join("families");
    for folder in [
        family_dir("llama"),
        family_dir("gpt2"),
        family_dir("gemma2"),
        family_dir("olmo2"),
        others.join("granite"),
        others.join("cohere"),
        others.join("gptj"),
        others.join("stablelm"),
        others.join("nemotron"),
        others.join("recurrent_gemma"),
        others.join("lfm2"),
    ] {
        let (bench, golden) = (Bench::new(), Golden::at(&folder));
        let model = Model::open(folder.to_str().unwrap(), &Default::default()).unwrap();
        let layers: Vec<usize> = (0..model.decoder.arch.n_layers)
            .filter(|layer| SiteKind::MlpPre.at(*layer).check(&model.decoder.arch).is_ok())
            .collect();
        let (first, last) = layers.first().zip(layers.last()).unwrap();
        let chosen = format!("L{first}.N4,L{last}.N7,L{last}.N2");
        let more = ["--neuron", &chosen, "--drivers", "--position", "-2", "--head", "L0.H0"];
        let more = if model.decoder.arch.layers[0].heads() > 0 { &more[..] } else { &more[..5] };
        let out = run(&bench, "neurons", &folder, &prompts(&golden), more);
        let drivers = table(&out, "drivers");
        let component = drivers.strs("component").unwrap();
        let means = drivers.floats("mean").unwrap();
        let sum = |of: &dyn Fn(&str) -> bool| -> f64 {
            (0..drivers.rows()).filter(|i| of(component[*i])).filter_map(|i| means[i]).sum()
        };
        let gate = sum(&|name| name == "gate");
        let parts = sum(&|name| !["gate", "named"].contains(&name));
        let at = folder.display().to_string();
        close(parts, gate, 2e-3, &at);
        // The gates as a plan reads them.
        let arch = &model.decoder.arch;
        let mut plan = Plan::default();
        for i in 0..2 {
            let ids = golden.ids("input_ids", i);
            let position = Positions::At(vec![ids.len() - 2]);
            let prompt = plan.prompt("p", ids);
            for (layer, neurons) in [(*first, vec![4]), (*last, vec![2, 7])] {
                let gated = SiteKind::MlpGate.at(layer).check(arch).is_ok();
                let site = if gated { SiteKind::MlpGate } else { SiteKind::MlpPre }.at(layer);
                plan.read(prompt, Activation { site, positions: position.clone(), part: Part::Columns(neurons) });
            }
        }
        let readings = gatelens::run::run(&model.decoder, &plan, &Options::default()).unwrap();
        let read: f64 = readings.iter().flat_map(|reading| reading.values()).map(f64::from).sum();
        close(gate, read / 6.0, 1e-4, &at);
        if at.ends_with("llama") {
            close(sum(&|name| name == "rest"), 0.0, 1e-4, "a family without biases");
            let named = sum(&|name| name == "named");
            let head = (0..drivers.rows()).find(|i| component[*i] == "head").unwrap();
            assert_eq!(Some(named), means[head], "L0.H0 is the first head");
            close(named, by_hand(&golden, &model), 1e-4, "L0.H0");
        }
    }
}

/// What L0.H0 of the llama fixture adds to the gates of L0.N4, L2.N7 and L2.N2 (or those of the last layer), on average, by the tensors.
fn by_hand(golden: &Golden, model: &Model) -> f64 {
    let folder = Folder::of("llama");
    let tensors = folder.tensors();
    let d = model.decoder.arch.d_model;
    let last = model.decoder.arch.n_layers - 1;
    let o = tensors["model.layers.0.self_attn.o_proj.weight"].values();
    let mut total = 0.0;
    for i in 0..2 {
        let ids = golden.ids("input_ids", i);
        let position = Positions::At(vec![ids.len() - 2]);
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", ids);
        let mut read =
            |site: Site, part: Part| plan.read(prompt, Activation { site, positions: position.clone(), part });
        let z = read(SiteKind::Z.at(0), Part::Heads(vec![0]));
        let streams = [0, last].map(|layer| read(SiteKind::ResidMid.at(layer), Part::All));
        let readings = gatelens::run::run(&model.decoder, &plan, &Options::default()).unwrap();
        let z = &readings[z].values;
        let wide = o.len() / d;
        let write: Vec<f64> =
            (0..d).map(|row| (0..z.len()).map(|k| f64::from(o[row * wide + k]) * f64::from(z[k])).sum()).collect();
        for ((layer, neurons), stream) in [(0, vec![4]), (last, vec![2, 7])].into_iter().zip(streams) {
            let gain = tensors[&format!("model.layers.{layer}.post_attention_layernorm.weight")].values();
            let gate = tensors[&format!("model.layers.{layer}.mlp.gate_proj.weight")].values();
            let scale = model.decoder.arch.norm.divisor(&readings[stream].values);
            for neuron in neurons {
                let row = &gate[neuron * d..(neuron + 1) * d];
                let each = (0..d).map(|k| f64::from(row[k]) * f64::from(gain[k]) * write[k]);
                total += each.sum::<f64>() / scale;
            }
        }
    }
    total / 6.0
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
        (vec!["--neuron", "L1.E0.N3"], "L1.E0.N3: the layer has one MLP, not several experts; write L1.N3"),
        (vec!["--neuron", "L1.N3", "--layers", "0"], "--layers: leaves out L1.N3"),
        (vec!["--layers", "7"], "is no layer or range of layers"),
        (vec!["--head", "L0.N3"], "`L0.N3` is no head; write L14.H5"),
        (vec!["--head", "L0.H9"], "--head: L0.H9 is not in this model"),
        (vec!["--words", "id:99999"], "--words: token id 99999 is out of range"),
        (vec!["--words", "vault"], "--words: "),
        (vec!["--position", "40"], "40"),
    ] {
        refused(&family_dir("llama"), &more, said);
    }
    let empty = bench.text("heads.txt", "# none\n");
    refused(&family_dir("llama"), &["--circuit", empty.to_str().unwrap()], "heads.txt: names no head");
    let others = fixtures().join("families");
    for (family, neuron, said) in [
        ("mixtral", "L1.N3", "L1.N3: the layer has experts 0 to 3; write L1.E0.N0"),
        ("mixtral", "L1.E4.N3", "L1.E4.N3: the layer has experts 0 to 3"),
        ("mixtral", "L1.E0.N16", "L1.E0.N16: each expert of the layer has neurons 0 to 15"),
        ("qwen2_moe", "L2.N24", "L2.N24: the layer has neurons 0 to 23"),
        ("qwen2_moe", "L1.E0.N0", "L1.E0.N0: the layer has one MLP"),
        ("mamba", "L1.N0", "no MLP"),
    ] {
        refused(&others.join(family), &["--neuron", neuron], said);
    }
}

/// The readings of a run, each `[positions][width]`.
fn rows(
    readings: &gatelens::run::Readings,
    handles: &[gatelens::plan::Handle<gatelens::plan::Array>],
) -> Vec<Vec<Vec<f32>>> {
    handles.iter().map(|handle| readings[*handle].rows().map(<[f32]>::to_vec).collect()).collect()
}

fn everywhere(site: gatelens::site::Site) -> Activation {
    Activation { site, positions: Positions::All, part: Part::All }
}

#[test]
fn the_neurons_of_an_expert_write_what_it_adds_and_are_0_where_it_was_not_chosen() {
    // Plain; with a shared expert; with biases; weighing what is read; chosen by groups.
    for (family, layer, chosen, biased) in [
        ("mixtral", 1, 2, false),
        ("qwen2_moe", 2, 2, false),
        ("gpt_oss", 3, 2, true),
        ("llama4", 1, 1, false),
        ("deepseek_v3", 2, 3, false),
    ] {
        let folder = fixtures().join("families").join(family);
        let model = Model::open(folder.to_str().unwrap(), &gatelens::model::Options::default()).unwrap();
        let (decoder, numbering) = (&model.decoder, model.decoder.arch.layers[layer].channel.neurons());
        let columns: Vec<Vec<f32>> = decoder
            .neuron_columns(layer)
            .unwrap()
            .flat_map(|matrix| matrix.unwrap().to_vec2::<f32>().unwrap())
            .collect();
        assert_eq!(columns.len(), numbering.total(), "{family}");
        for engine in [Engine::Wavefront, Engine::Full] {
            let mut plan = Plan::default();
            let prompt = plan.prompt("p", Golden::at(&folder).ids("input_ids", 0));
            let sites = [SiteKind::MlpAct, SiteKind::ExpertOut, SiteKind::MlpOut];
            let handles = sites.map(|kind| plan.read(prompt, everywhere(kind.at(layer))));
            let options = Options { engine, ..Options::default() };
            let readings = gatelens::run::run(decoder, &plan, &options).unwrap();
            let [acts, experts, _] = rows(&readings, &handles).try_into().unwrap();
            // Reading neurons changes nothing.
            let mut alone = Plan::default();
            let prompt = alone.prompt("p", Golden::at(&folder).ids("input_ids", 0));
            let out = alone.read(prompt, everywhere(SiteKind::MlpOut.at(layer)));
            let alone = gatelens::run::run(decoder, &alone, &options).unwrap();
            for (a, b) in readings[handles[2]].values.iter().zip(&alone[out].values) {
                close(f64::from(*a), f64::from(*b), 1e-5, family);
            }
            let d = decoder.arch.d_model;
            for (act, out) in acts.iter().zip(&experts) {
                let mut there = 0;
                for e in 0..numbering.experts {
                    let first = numbering.common + e * numbering.of_each;
                    let (own, added) = (first..first + numbering.of_each, &out[e * d..(e + 1) * d]);
                    let is_chosen = added.iter().any(|x| *x != 0.0);
                    there += usize::from(is_chosen);
                    assert_eq!(act[own.clone()].iter().any(|x| *x != 0.0), is_chosen, "{family}: expert {e}");
                    for i in (0..d).filter(|_| !biased) {
                        let written: f64 = own.clone().map(|n| f64::from(act[n]) * f64::from(columns[n][i])).sum();
                        close(written, f64::from(added[i]), 1e-5, &format!("{family}: expert {e}"));
                    }
                }
                assert_eq!(there, chosen, "{family}");
            }
        }
    }
}

#[test]
fn silencing_all_neurons_of_an_expert_silences_it_and_one_that_was_not_chosen_can_be_set() {
    for (family, layer) in [("mixtral", 1), ("qwen2_moe", 2), ("llama4", 3)] {
        let folder = fixtures().join("families").join(family);
        let model = Model::open(folder.to_str().unwrap(), &gatelens::model::Options::default()).unwrap();
        let (decoder, numbering) = (&model.decoder, model.decoder.arch.layers[layer].channel.neurons());
        let own = |e: usize| {
            let first = numbering.common + e * numbering.of_each;
            (first..first + numbering.of_each).collect::<Vec<usize>>()
        };
        for engine in [Engine::Wavefront, Engine::Full] {
            let mut plan = Plan::default();
            let prompt = plan.prompt("p", Golden::at(&folder).ids("input_ids", 0));
            let edit = |kind: SiteKind, part: Part, change: Change| {
                vec![Edit { site: kind.at(layer), part, positions: Positions::All, change }]
            };
            let mut asked = Vec::new();
            for e in 0..numbering.experts {
                let parts = [(SiteKind::MlpAct, Part::Columns(own(e))), (SiteKind::ExpertOut, Part::Heads(vec![e]))];
                let forks = parts.map(|(kind, part)| plan.fork(prompt, edit(kind, part, Change::Zero)));
                let set = plan
                    .fork(prompt, edit(SiteKind::MlpAct, Part::Columns(vec![own(e)[3]]), Change::Set([2.5].into())));
                asked.push((
                    forks.map(|fork| plan.read(fork, everywhere(SiteKind::Logits.at(0)))),
                    plan.read(set, everywhere(SiteKind::ExpertOut.at(layer))),
                ));
            }
            let clean = plan.read(prompt, everywhere(SiteKind::Logits.at(0)));
            let experts = plan.read(prompt, everywhere(SiteKind::ExpertOut.at(layer)));
            let acts = plan.read(prompt, everywhere(SiteKind::MlpAct.at(layer)));
            let readings = gatelens::run::run(decoder, &plan, &Options { engine, ..Options::default() }).unwrap();
            let columns: Vec<Vec<f32>> =
                decoder.neuron_columns(layer).unwrap().flat_map(|m| m.unwrap().to_vec2::<f32>().unwrap()).collect();
            let (mut moved, d) = (0.0f32, decoder.arch.d_model);
            for (e, (silenced, set)) in asked.into_iter().enumerate() {
                let [neurons, whole] = silenced.map(|handle| &readings[handle].values);
                neurons.iter().zip(whole).for_each(|(a, b)| close(f64::from(*a), f64::from(*b), 1e-4, family));
                moved = neurons.iter().zip(&readings[clean].values).map(|(a, b)| (a - b).abs()).fold(moved, f32::max);
                let n = own(e)[3];
                let both = readings[set].rows().zip(readings[experts].rows()).zip(readings[acts].rows());
                for ((set, clean), act) in both {
                    for i in 0..d {
                        let added = clean[e * d + i] + (2.5 - act[n]) * columns[n][i];
                        close(f64::from(set[e * d + i]), f64::from(added), 1e-4, family);
                    }
                }
            }
            assert!(moved > 1e-3, "{family}: nothing was silenced");
        }
    }
}

#[test]
fn the_neurons_of_experts_are_told_apart_by_a_column_and_count_0_where_they_were_not_chosen() {
    let folder = fixtures().join("families").join("qwen2_moe");
    let (bench, golden) = (Bench::new(), Golden::at(&folder));
    let out = run(&bench, "neurons", &folder, &prompts(&golden), &["--list", "6", "--contexts", "40"]);
    let (neurons, contexts) = (table(&out, "neurons"), table(&out, "contexts"));
    // Layer 1 has an MLP of 24, the others a shared expert of 24 and four of 16.
    let of = |table: &Table, i: usize| {
        let int = |name: &str| table.ints(name).unwrap()[i];
        (int("layer"), int("expert"), int("neuron"))
    };
    let names: Vec<(i64, i64, i64)> = (0..neurons.rows()).map(|i| of(&neurons, i)).collect();
    assert_eq!(names.len(), 3 * (24 + 4 * 16) + 24);
    assert_eq!(
        [names[23], names[24], names[88], names[111], names[112]],
        [(0, -1, 23), (0, 0, 0), (1, -1, 0), (1, -1, 23), (2, -1, 0)]
    );
    let model = Model::open(folder.to_str().unwrap(), &gatelens::model::Options::default()).unwrap();
    let mut plan = Plan::default();
    for i in 0..2 {
        let prompt = plan.prompt("p", golden.ids("input_ids", i));
        plan.read(prompt, everywhere(SiteKind::MlpAct.at(2)));
    }
    let readings = gatelens::run::run(&model.decoder, &plan, &Options::default()).unwrap();
    let acts: Vec<f32> = readings.iter().flat_map(|r| r.values()).collect();
    let (n, width) = (golden.shape("input_ids")[1], 24 + 4 * 16);
    for column in [3, 24 + 5, 24 + 3 * 16 + 15] {
        let all: Vec<f64> =
            (0..2 * n).filter(|row| row % n != 0).map(|row| f64::from(acts[row * width + column])).collect();
        let row = 112 + column;
        let float = |name: &str| neurons.floats(name).unwrap()[row].unwrap();
        close(float("mean"), all.iter().sum::<f64>() / all.len() as f64, 1e-5, "mean");
        close(float("positive"), all.iter().filter(|x| **x > 0.0).count() as f64 / all.len() as f64, 1e-9, "positive");
        let kept = (0..contexts.rows()).filter(|i| of(&contexts, *i) == names[row]);
        let kept = kept.filter(|i| contexts.strs("end").unwrap()[*i] == "high").count();
        assert_eq!(kept, all.iter().filter(|x| **x != 0.0).count(), "contexts in which it is 0");
    }
    // What the list of the strongest says is read back, by name and by a file.
    let list = std::fs::read_to_string(out.join("neurons.txt")).unwrap();
    let named: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    let effects = table(&out, "effects");
    let of_effects: Vec<String> = (0..effects.rows())
        .map(|i| match of(&effects, i) {
            (layer, -1, neuron) => format!("L{layer}.N{neuron}"),
            (layer, expert, neuron) => format!("L{layer}.E{expert}.N{neuron}"),
        })
        .collect();
    assert_eq!(named, of_effects);
    let again = run(&bench, "neurons", &folder, &prompts(&golden), &["--neuron", &named.join(",")]);
    let floats = |table: &Table| table.floats("effect_mean").unwrap().to_vec();
    assert_eq!(floats(&table(&again, "effects")), floats(&effects));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(named.iter().all(|name| report.contains(name)), "{report}");
}

#[test]
fn votes_and_values_name_the_neurons_of_experts() {
    let words = ["bread", " bread", "cheese", " cheese", "rivers", " rivers", "music", " music", "theft", " theft"];
    let folder = Folder::of("families/mixtral").with_words(&words);
    let bench = Bench::new();
    let analysed = |command: &str, lines: &[Value], more: &[&str]| {
        let (items, out) = (bench.dataset(&format!("{command}.jsonl"), lines), bench.out(command));
        let model = folder.path().to_str().unwrap();
        let words = [command, model, "--items", items.to_str().unwrap(), "--out", out.to_str().unwrap(), "--quiet"];
        gatelens([&words[..], more].concat()).done();
        let neurons = table(&out, "neurons");
        assert!(neurons.rows() > 0 && neurons.ints("expert").unwrap().iter().all(|e| (0..4).contains(e)), "{command}");
        (out, neurons)
    };
    let pairs: Vec<[&str; 2]> = (0..5).flat_map(|i| (0..5).map(move |j| [words[2 * i], words[2 * j + 1]])).collect();
    let item = |(i, [first, second]): (usize, &[&str; 2])| json!({ "stem": first, "candidates": [format!("{second} a"), format!("{second} b")], "true": i % 2 });
    let items: Vec<Value> = pairs.iter().enumerate().map(item).collect();
    let (out, neurons) = analysed("truth", &items, &["--labelled", "8", "--voters", "6"]);
    let named = format!("L{}.E{}.N", neurons.ints("layer").unwrap()[0], neurons.ints("expert").unwrap()[0]);
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains(&named), "{named}: {report}");
    let item = |[first, second]: &[&str; 2]| json!({ "value": "v", "prompt": "music", "question": first, "with": format!("{second} theft"), "without": second });
    let items: Vec<Value> = pairs.iter().map(item).collect();
    let (out, _) = analysed("values", &items, &["--neurons", "5", "--controls", "2", "--layers", "2"]);
    let lists = ["shared", "only_intrinsic", "only_prompted"].map(|set| out.join(format!("v.{set}.txt")));
    let list = lists.iter().find(|path| path.exists()).expect("a set of neurons");
    assert!(std::fs::read_to_string(list).unwrap().lines().skip(1).all(|line| line.contains(".E")));
}

#[test]
fn heads_that_one_entry_of_an_experiment_lists_are_silenced_by_another() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let prompts = bench.dataset("prompts.jsonl", &labelled(&golden));
    let spec = format!(
        "models = [{:?}]\n[defaults]\nprompts = {:?}\nlist = 3\n[[analysis]]\ncommand = \"attention\"\n[[analysis]]\n\
         command = \"neurons\"\nwords = [\"id:11\", \"id:30\"]\ncircuit = \"run:attention/heads.txt\"\ndrivers = true\n",
        family_dir("llama").display().to_string(),
        prompts.display().to_string(),
    );
    let (spec, out) = (bench.text("spec.toml", &spec), bench.out("all"));
    gatelens(["run", spec.to_str().unwrap(), "--quiet", "--out", out.to_str().unwrap()]).done();
    let sets = table(&out.join("neurons"), "sets");
    let row = (0..sets.rows()).find(|i| sets.strs("set").unwrap()[*i] == "listed and heads").unwrap();
    assert_eq!([sets.ints("neurons").unwrap()[row], sets.ints("heads").unwrap()[row]], [3, 3]);
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("What drives them") && report.contains("The heads that were named add"), "{report}");
}

/// The prompts that come with the project are read and are as the documentation says.
#[test]
fn prompts_on_concepts_and_verdicts_have_one_answer_and_one_foil_each() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (folder, labels) in [
        ("concepts", &[("animals", 20), ("colours", 20), ("months", 20)][..]),
        ("verification", &[("other", 24), ("verdict", 24)]),
    ] {
        let path = root.join("datasets").join(folder).join("prompts.jsonl");
        let dataset = gatelens::dataset::read_prompts(path.as_path()).unwrap();
        let mut counts = std::collections::BTreeMap::new();
        for item in &dataset.items {
            assert!(item.answer.len() == 1 && item.foil.len() == 1 && item.answer != item.foil, "{}", item.id);
            *counts.entry(item.label.clone().unwrap()).or_insert(0) += 1;
        }
        assert_eq!(counts.iter().map(|(label, n)| (label.as_str(), *n)).collect::<Vec<_>>(), labels);
        assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
    }
}
