//! Layers whose attention and MLP feed a recurrent mixer, share their weights in turn and read the embedding (Zamba 2): what reaches what,
//! what is refused, and where such weights are stored.

use crate::support::copies::Folder;
use crate::support::{Golden, family_dir, logits, open};
use gatelens::model::arch::Mixer;
use gatelens::model::{Model, Options as Loading};
use gatelens::plan::{Activation, Change, Edit, Gradient, Graph, Metric, Part, Plan, Positions, What};
use gatelens::run::{Engine, Options, run};
use gatelens::site::{Site, SiteKind};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const ZAMBA: &str = "families/zamba2";

/// Its first layer with a block, of four; layers 1 and 3 share one.
const L: usize = 1;

fn all(site: Site) -> Activation {
    Activation { site, positions: Positions::All, part: Part::All }
}

fn edit(site: Site, positions: Positions, change: Change) -> Edit {
    Edit { site, part: Part::All, positions, change }
}

fn at(position: usize) -> Positions {
    Positions::At(vec![position])
}

/// What is read of a plan: the same by both engines.
fn readings(model: &Model, plan: &Plan) -> Vec<Vec<f32>> {
    let by = |engine: Engine| -> Vec<Vec<f32>> {
        let options = Options { engine, ..Options::default() };
        run(&model.decoder, plan, &options).expect("readings").iter().map(|reading| reading.values()).collect()
    };
    let (found, expected) = (by(Engine::Wavefront), by(Engine::Full));
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let off = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
        assert!(off < 1e-4, "reading {i}: the engines differ by {off}");
    }
    found
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
}

#[test]
fn an_edit_of_the_embedding_reaches_blocks_though_no_stream_between_changes() {
    let model = open(ZAMBA);
    let mut plan = Plan::default();
    let (prompt, other) = (plan.prompt("p", (3..12).collect()), plan.prompt("other", (20..29).collect()));
    let swapped = |kind: SiteKind| edit(kind.at(0), at(4), Change::interchange(other));
    let restored = |layer: usize| edit(SiteKind::ResidPost.at(layer), Positions::All, Change::interchange(prompt));
    let embed = plan.fork(prompt, vec![swapped(SiteKind::Embed), restored(0), restored(1), restored(2)]);
    let stream = plan.fork(prompt, vec![swapped(SiteKind::ResidPre), restored(0)]);
    // One that parts from its base later has what its base changed before.
    let late = edit(SiteKind::Z.at(3), at(6), Change::Zero);
    let of_embed = plan.fork(embed, vec![late.clone()]);
    let of_prompt = plan.fork(prompt, vec![late]);
    for run in [prompt, embed, stream, of_embed, of_prompt] {
        plan.read(run, all(SiteKind::AttnIn.at(1)));
        plan.read(run, all(SiteKind::MixOut.at(3)));
    }
    let found = readings(&model, &plan);
    let [prompt, embed, stream, of_embed, of_prompt] = [0, 2, 4, 6, 8];
    assert!(!same(&found[embed], &found[prompt]) && !same(&found[embed + 1], &found[prompt + 1]));
    assert!(same(&found[stream], &found[prompt]) && same(&found[stream + 1], &found[prompt + 1]));
    assert!(!same(&found[of_embed + 1], &found[of_prompt + 1]), "a fork of a fork reads its base's embedding");
}

#[test]
fn attention_and_mlp_come_before_the_recurrent_mixer_and_reach_later_positions_by_it() {
    let model = open(ZAMBA);
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", (3..12).collect());
    let zero = |kind: SiteKind, position: usize| edit(kind.at(L), at(position), Change::Zero);
    use SiteKind::*;
    for kind in [AttnIn, V, Z, HeadOut, AttnOut, MlpIn, MlpGate, MlpPre, MlpAct, MlpOut, ConvIn, State] {
        let fork = plan.fork(prompt, vec![zero(kind, 3)]);
        plan.read(fork, all(ResidPost.at(L)));
    }
    for kind in [MixZ, MixOut, AttnDelta, ResidPost] {
        let fork = plan.fork(prompt, vec![zero(kind, 3)]);
        plan.read(fork, all(ResidPost.at(L)));
    }
    // What the pass reaches first is of a kind that stands later, and gives the fork its rows.
    for (first, later) in [(MlpOut, MixZ), (MlpAct, AttnDelta), (Z, MixOut), (MlpIn, State)] {
        let fork = plan.fork(prompt, vec![zero(later, 5), zero(first, 2)]);
        plan.read(fork, all(ResidPost.at(L)));
    }
    plan.read(prompt, all(ResidPost.at(L)));
    let found = readings(&model, &plan);
    let (d, clean) = (model.decoder.arch.d_model, found.last().expect("the prompt's"));
    let changed =
        |i: usize| (0..9).filter(|p| !same(&found[i][p * d..][..d], &clean[p * d..][..d])).collect::<Vec<_>>();
    (0..12).for_each(|i| assert_eq!(changed(i), [3, 4, 5, 6, 7, 8], "edit {i} of what the recurrent mixer reads"));
    (12..16).for_each(|i| assert_eq!(changed(i), [3], "edit {i} after it"));
    (16..20).for_each(|i| assert_eq!(changed(i), [2, 3, 4, 5, 6, 7, 8], "edit {i} of two places"));
}

#[test]
fn gradients_stop_at_a_function_of_the_callers_that_the_pass_reaches_later() {
    let model = open(ZAMBA);
    let with = |edited: SiteKind, read: SiteKind| {
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", (3..12).collect());
        let map = Change::Map(Arc::new(|v: &mut [f32]| v.iter_mut().for_each(|x| *x = x.tanh())));
        let fork = plan.fork(prompt, vec![edit(edited.at(L), Positions::Last, map)]);
        let (metric, site) = (Metric::logit_difference(vec![11], vec![23]), read.at(L));
        plan.read(fork, Gradient { metric, site, positions: Positions::Last, part: Part::All });
        run(&model.decoder, &plan, &Options::default()).map(|found| found[0].values())
    };
    let refused = with(SiteKind::MixZ, SiteKind::MlpOut).expect_err("an unknown derivative").to_string();
    assert!(refused.contains("mix_z.1") && refused.contains("derivative"), "{refused}");
    assert!(with(SiteKind::MlpOut, SiteKind::MixZ).expect("a gradient").iter().any(|g| *g != 0.0));
}

#[test]
fn heads_add_nothing_by_themselves_and_what_has_no_meaning_is_refused_by_name() {
    let (model, golden) = (open(ZAMBA), Golden::of(ZAMBA));
    let arch = &model.decoder.arch;
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", golden.ids("input_ids", 0));
    plan.read(prompt, What::Attribution(Metric::logit_difference(vec![11], vec![23])));
    let cells = readings(&model, &plan).concat();
    let row = |layer: usize| &cells[layer * (arch.n_heads + 2)..][..arch.n_heads + 2];
    // In the layer with a block the recurrent mixer is all that adds, in the column of the bias; alone, its heads are told apart.
    assert!(row(L)[..=arch.n_heads].iter().all(|x| *x == 0.0) && row(L)[arch.n_heads + 1] != 0.0);
    assert!(row(0)[..arch.n_heads].iter().all(|x| *x != 0.0));
    for (kind, nearest) in [(SiteKind::ResidMid, "resid_post.1"), (SiteKind::MlpDelta, "mlp_out.1")] {
        let error = kind.at(L).check(arch).expect_err("no such site").to_string();
        assert!(error.contains("recurrent mixer alone adds"), "{error}");
        assert!(error.contains(nearest), "{error}");
    }
    let edges = Graph::there(arch).expect_err("no edges");
    assert!(edges.contains("layer 0 has a recurrent mixer"), "{edges}");
    let neurons = model.decoder.neuron_writes(L).map(|_| ()).expect_err("neurons that add nothing").to_string();
    assert!(neurons.contains("layer 1") && neurons.contains("recurrent mixer alone"), "{neurons}");
    assert!(model.decoder.head_weights(L).expect("a layer").is_none());
}

fn prompts() -> Vec<Vec<u32>> {
    vec![(3..14).collect(), vec![7, 30, 2, 9]]
}

#[test]
fn a_block_is_found_in_the_place_of_any_layer_that_shares_it_and_may_be_there_more_than_once() {
    let expected = logits(&open(ZAMBA), &prompts());
    let of = |folder: &Folder| logits(&open(folder.path().to_str().expect("UTF-8")), &prompts());
    let (first, last) = ("model.layers.1.shared_transformer.", "model.layers.3.shared_transformer.");
    let last_alone = Folder::of(ZAMBA).renamed(|name| name.replace(first, last));
    assert_eq!(of(&last_alone), expected);
    // Part of it here, part there.
    let apart = Folder::of(ZAMBA).renamed(|name| match name.contains("adapter") {
        true => name.replace(first, last),
        false => name.to_string(),
    });
    assert_eq!(of(&apart), expected);
    let twice = Folder::of(ZAMBA).weights(|tensors| {
        let copies = tensors.iter().filter(|(name, _)| name.starts_with(first));
        let copies: Vec<_> = copies.map(|(name, stored)| (name.replace(first, last), stored.clone())).collect();
        tensors.extend(copies);
    });
    assert_eq!(of(&twice), expected);
}

#[test]
fn shared_weights_count_once_and_give_the_same_where_they_do_not_stay_in_memory() {
    let dir = family_dir(ZAMBA);
    let dir = dir.to_str().expect("UTF-8");
    let model = open(ZAMBA);
    let stored: usize = Folder::of(ZAMBA).tensors().values().map(|t| t.shape.iter().product::<usize>()).sum();
    assert_eq!(model.decoder.parameters, stored as u64);
    let streamed = Model::open(dir, &Loading { max_memory: Some(1000), ..Loading::default() }).expect("a sound model");
    assert!(streamed.decoder.streamed());
    assert_eq!(logits(&streamed, &prompts()), logits(&model, &prompts()));
}

/// The keys of the released model of 2.7 billion parameters, as older versions of `transformers` wrote them.
fn released() -> Value {
    let hybrid = [6, 12, 18, 24, 30, 36, 42, 47, 51];
    let words: Vec<&str> = (0..54).map(|l| if hybrid.contains(&l) { "hybrid" } else { "mamba" }).collect();
    json!({
        "model_type": "zamba2", "architectures": ["Zamba2ForCausalLM"], "hidden_size": 2560, "num_hidden_layers": 54,
        "num_attention_heads": 32, "num_key_value_heads": 32, "attention_head_dim": 160, "attention_hidden_size": 5120,
        "kv_channels": 80, "num_query_groups": 32, "intermediate_size": 10240, "ffn_hidden_size": 10240, "hidden_act": "gelu",
        "layers_block_type": words, "hybrid_layer_ids": hybrid, "num_mem_blocks": 2, "adapter_rank": 128,
        "use_shared_attention_adapter": false, "use_mem_rope": false, "rope_theta": 10000, "use_long_context": false,
        "mamba_d_state": 64, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_ngroups": 1, "mamba_headdim": 64, "n_mamba_heads": 80,
        "use_conv_bias": true, "add_bias_linear": false, "chunk_size": 256, "time_step_min": 0.001, "time_step_max": 0.1,
        "time_step_floor": 0.0001, "time_step_limit": null, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "vocab_size": 32000, "tie_word_embeddings": true, "num_logits_to_keep": 1, "use_mamba_kernels": true,
    })
}

fn described(config: &Value) -> Result<Model, String> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("config.json");
    std::fs::write(&path, config.to_string()).expect("a file");
    Model::described("m", Path::new(&path), &Loading::default()).map_err(|e| e.to_string())
}

#[test]
fn older_descriptions_say_the_same_in_other_words_and_what_contradicts_itself_is_refused() {
    let with = |key: &str, value: Value| {
        let mut config = released();
        config[key] = value;
        described(&config)
    };
    let model = described(&released()).expect("a sound description");
    let arch = &model.decoder.arch;
    assert_eq!(model.decoder.parameters, 2_662_214_560);
    let turns = |arch: &gatelens::model::arch::Arch| -> Vec<(usize, usize)> {
        let turn = |(l, layer): (usize, &gatelens::model::arch::Layer)| match layer.mixer {
            Mixer::Both(both) => Some((l, both.fed?.turn % both.fed?.blocks)),
            _ => None,
        };
        arch.layers.iter().enumerate().filter_map(turn).collect()
    };
    let expected = [(6, 0), (12, 1), (18, 0), (24, 1), (30, 0), (36, 1), (42, 0), (47, 1), (51, 0)];
    assert_eq!((turns(arch), arch.n_ctx, arch.ropes.len()), (expected.to_vec(), 4096, 0));
    // The numbers alone say it too.
    assert_eq!(turns(&with("layers_block_type", Value::Null).expect("numbers").decoder.arch), expected);
    assert_eq!(with("use_long_context", json!(true)).expect("longer").decoder.arch.n_ctx, 16_384);
    let rotated = with("use_mem_rope", json!(true)).expect("rotated").decoder.arch.ropes[0].clone();
    assert_eq!((rotated.rotary, rotated.base), (160, 10_000.0));
    for (key, value, named) in [
        ("hybrid_layer_ids", json!([6, 12]), "layers_block_type"),
        ("layers_block_type", json!(vec!["attention"; 54]), "hybrid"),
        ("num_mem_blocks", json!(0), "cannot feed"),
        ("use_conv_bias", json!(false), "use_conv_bias"),
    ] {
        let error = with(key, value).map(|_| ()).expect_err("not sound");
        assert!(error.contains(named), "{key}: {error}");
    }
    let names: BTreeSet<&str> = arch.layers.iter().map(|layer| layer.mixer.name()).collect();
    assert_eq!(names, BTreeSet::from(["Mamba 2", "attention before a recurrent mixer"]));
}
