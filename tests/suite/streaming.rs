//! Weights are read when they are needed, and no others; those that do not fit in memory give the same results as those
//! that do.

use crate::support::cli::{Bench, command, ended, pair};
use crate::support::copies::{Folder, Stored};
use crate::support::gguf_builder::{GgufBuilder, Meta};
use crate::support::{FAMILIES, Golden, family_dir, logits, open, other_families};
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Activation, Change, Edit, Gradient, Metric, Part, Plan, Positions, What};
use gatelens::run::{Engine, Options, run};
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

/// A model whose layers do not stay in memory.
fn streamed(dir: &Path) -> Model {
    let options = ModelOptions { max_memory: Some(1000), ..ModelOptions::default() };
    let model = Model::open(dir.to_str().expect("UTF-8"), &options).expect("a sound model");
    assert!(model.decoder.streamed());
    model
}

/// How many experts rows of a layer choose from.
fn experts(model: &Model, layer: usize) -> usize {
    model.decoder.arch.layers[layer].channel.neurons().experts
}

/// The plan of a prompt and a donor that looks at all that experts give, edits it, also of experts that no row chose, and wants gradients.
fn plan_of_experts(model: &Model, golden: &Golden) -> Plan {
    let (arch, mut plan) = (&model.decoder.arch, Plan::default());
    let (prompt, donor) = (plan.prompt("p", golden.ids("input_ids", 0)), plan.prompt("d", golden.ids("donor_ids", 0)));
    let metric = Metric::logit_difference(vec![11], vec![23]);
    let at = |site, positions| Activation { site, positions, part: Part::All };
    plan.read(prompt, at(SiteKind::Logits.at(0), Positions::All));
    for layer in (0..arch.n_layers).filter(|layer| experts(model, *layer) > 0) {
        for kind in [SiteKind::Router, SiteKind::MlpAct, SiteKind::ExpertOut] {
            let (site, positions, part) = (kind.at(layer), Positions::Last, Part::All);
            if site.check(arch).is_err() {
                continue;
            }
            plan.read(prompt, at(site, Positions::All));
            plan.read(prompt, Gradient { metric: metric.clone(), site, positions: Positions::All, part: part.clone() });
            let width = site.width(arch, 0);
            let changes = [Change::interchange(donor), Change::Set(vec![0.1; width].into()), Change::Zero];
            for change in changes {
                let edit = Edit { site, part: part.clone(), positions: positions.clone(), change };
                let fork = plan.fork(prompt, vec![edit]);
                plan.read(fork, What::Metric(metric.clone()));
                plan.read(fork, What::KlFrom(prompt));
            }
        }
    }
    plan
}

#[test]
fn experts_that_are_read_when_they_are_chosen_give_the_same_readings_bit_for_bit() {
    let mut found = 0;
    for family in other_families() {
        let (resident, golden) = (open(&family), Golden::of(&family));
        if (0..resident.decoder.arch.n_layers).all(|layer| experts(&resident, layer) == 0) {
            continue;
        }
        found += 1;
        let streamed = streamed(&family_dir(&family));
        let plan = plan_of_experts(&resident, &golden);
        // Also where rows go through the experts a few at a time.
        let whole = Options::default().budget;
        for (engine, budget) in [(Engine::Wavefront, whole), (Engine::Wavefront, 4096), (Engine::Full, whole)] {
            let options = Options { engine, budget, ..Options::default() };
            let readings = |model: &Model| run(&model.decoder, &plan, &options).expect("readings");
            assert_eq!(readings(&resident), readings(&streamed), "{family} {engine}");
        }
    }
    assert!(found > 0 || std::env::var("GATELENS_FAMILY").is_ok());
}

/// What is read of a model where a prompt of one token goes through all layers, in bytes.
fn bytes_of_a_row(model: &Model) -> u64 {
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", vec![7]);
    let site = SiteKind::ResidPost.at(model.decoder.arch.n_layers - 1);
    plan.read(prompt, Activation { site, positions: Positions::Last, part: Part::All });
    let before = model.decoder.bytes_read();
    run(&model.decoder, &plan, &Options::default()).expect("readings");
    model.decoder.bytes_read() - before
}

#[test]
fn of_experts_only_those_are_read_that_rows_chose() {
    // In tensors of their own, in stacks of either order, and one below another. Where gates and ups are columns of one tensor in
    // turn, it is read for each of the two.
    for (family, all, chosen, tensors, twice) in [
        ("glm4_moe", 8, 2, ".mlp.experts.", "-"),
        ("mixtral", 4, 2, ".experts.", "-"),
        ("granitemoe", 4, 2, "put_linear", "-"),
        ("gpt_oss", 4, 2, ".experts.", "gate_up_proj"),
        ("llama4", 4, 1, ".experts.", "gate_up_proj"),
        ("dbrx", 4, 2, ".experts.", "-"),
    ] {
        let dir = family_dir(&format!("families/{family}"));
        let (mut of_experts, mut of_layers) = (0, 0);
        for (name, tensor) in Folder::of(&format!("families/{family}")).tensors() {
            let (bytes, times) = (tensor.data.len() as u64, if name.contains(twice) { 2 } else { 1 });
            match name.contains(tensors) {
                true => of_experts += bytes * times,
                false if name.contains("layers.") || name.contains("blocks.") => of_layers += bytes,
                false => {}
            }
        }
        let model = streamed(&dir);
        let arch = &model.decoder.arch;
        let embedding = 2 * arch.d_model as u64;
        let row = of_layers + of_experts * chosen / all + embedding;
        assert_eq!(bytes_of_a_row(&model), row, "{family}");
        if arch.n_layers > 2 {
            assert_eq!(bytes_of_a_row(&model), row, "{family}, once more");
        }
        let whole = streamed(&dir);
        whole.decoder.read().expect("weights");
        assert!(whole.decoder.bytes_read() >= of_layers + of_experts, "{family}");
        let resident = open(&format!("families/{family}"));
        assert_eq!(bytes_of_a_row(&resident), of_layers + of_experts + embedding, "{family}, where layers stay");
        assert_eq!(bytes_of_a_row(&resident), embedding, "{family}, once all is there");
    }
}

/// A file in which experts are stacks of Q8_0: blocks of 32 numbers with a scale each.
fn quantised_stacks(path: &Path) {
    let (d, width, n, vocab) = (64, 32, 8, 64);
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let mut file = GgufBuilder::new().key("general.architecture", "llama");
    for (key, value) in [
        ("block_count", 3),
        ("context_length", 64),
        ("embedding_length", d),
        ("feed_forward_length", width),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("expert_count", n),
        ("expert_used_count", 2),
        ("vocab_size", vocab),
        ("rope.dimension_count", 16),
    ] {
        file = file.key(&format!("llama.{key}"), Meta::U32(value as u32));
    }
    file = file.key("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5));
    let mut shapes = vec![("token_embd".to_string(), vec![vocab, d]), ("output".to_string(), vec![vocab, d])];
    shapes.push(("output_norm".to_string(), vec![d]));
    for l in 0..3 {
        let shapes_of_layer = [
            ("attn_norm", vec![d]),
            ("ffn_norm", vec![d]),
            ("attn_q", vec![d, d]),
            ("attn_k", vec![d / 2, d]),
            ("attn_v", vec![d / 2, d]),
            ("attn_output", vec![d, d]),
            ("ffn_gate_inp", vec![n, d]),
            ("ffn_gate_exps", vec![n, width, d]),
            ("ffn_up_exps", vec![n, width, d]),
            ("ffn_down_exps", vec![n, d, width]),
        ];
        shapes.extend(shapes_of_layer.map(|(name, shape)| (format!("blk.{l}.{name}"), shape)));
    }
    for (name, shape) in shapes {
        let (name, numbers) = (format!("{name}.weight"), shape.iter().product::<usize>());
        file = match shape.len() {
            3 => {
                let block = |_| [0x20, 0x1c].into_iter().chain((0..32).map(|_| next() as u8)).collect::<Vec<u8>>();
                file.tensor(&name, &shape, 8, &(0..numbers / 32).flat_map(block).collect::<Vec<u8>>())
            }
            _ => {
                let values: Vec<f32> = (0..numbers).map(|_| next() as f32 / (1 << 24) as f32 - 0.5).collect();
                file.floats(&name, &shape, &values)
            }
        };
    }
    file.write(path);
}

#[test]
fn quantised_stacks_of_a_gguf_file_are_read_expert_by_expert() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let path = dir.path().join("model.gguf");
    quantised_stacks(&path);
    let (resident, streamed) =
        (Model::open(path.to_str().expect("UTF-8"), &ModelOptions::default()).expect("a sound model"), streamed(&path));
    let prompts = [vec![7, 3, 9, 7, 60], vec![5]];
    assert_eq!(logits(&resident, &prompts), logits(&streamed, &prompts));
    let (of_an_expert, before) = (3 * 32 * 64 / 32 * 34, streamed.decoder.bytes_read());
    streamed.decoder.read().expect("weights");
    let all = streamed.decoder.bytes_read() - before;
    // Before a pass of a single row rows of the layers have been read, of which the last two are there.
    let (embedding, once_more) = (4 * 64, bytes_of_a_row(&self::streamed(&path)));
    assert_eq!(once_more, all - 3 * 6 * of_an_expert + embedding);
}

#[test]
fn a_damaged_expert_is_named_by_whoever_reads_it_and_one_of_another_shape_when_the_model_is_opened() {
    let name = |e: usize| format!("model.layers.2.mlp.experts.{e}.up_proj.weight");
    let damaged = |e: usize, with: &dyn Fn(&Stored) -> Stored| {
        Folder::of("families/glm4_moe").weights(|tensors| {
            let found = with(&tensors[&name(e)]);
            tensors.insert(name(e), found);
        })
    };
    let nan = |of: &Stored| Stored::floats(&of.shape, &vec![f32::NAN; of.shape.iter().product()]);
    let mut failed = 0;
    for e in 0..8 {
        let folder = damaged(e, &nan);
        let model = streamed(folder.path());
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", vec![7]);
        plan.read(prompt, What::Entropy);
        let named = |error: &str| {
            [&name(e), "not finite", folder.file("model.safetensors").to_str().expect("UTF-8")]
                .iter()
                .for_each(|part| assert!(error.contains(part), "no `{part}` in: {error}"));
        };
        if let Err(error) = run(&model.decoder, &plan, &Options::default()) {
            named(&error.to_string());
            failed += 1;
        }
        named(&model.decoder.read().expect_err("an error").to_string());
    }
    assert_eq!(failed, 2, "the row chose two");
    let other = damaged(7, &|of| Stored::floats(&[of.shape[1], of.shape[0]], &vec![0.0; of.shape.iter().product()]));
    let options = ModelOptions { max_memory: Some(1000), ..ModelOptions::default() };
    let error = Model::open(other.path().to_str().expect("UTF-8"), &options).err().expect("an error").to_string();
    assert!(error.contains(&name(7)) && error.contains("[16, 48]"), "{error}");
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
