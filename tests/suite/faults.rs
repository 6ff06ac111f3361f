//! Inputs that are wrong and work that fails: what is said, with which exit code, and that nothing is left behind.

use crate::support::cli::{Bench, Ended, command, ended, gatelens, pair};
use crate::support::copies::{Folder, INDEX, SHARDS, Stored};
use crate::support::gguf_builder::{GgufBuilder, Meta};
use crate::support::{Golden, assert_close, family_dir, logits};
use gatelens::model::{Model, Options};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;

/// Asks for an analysis of a model that is faulty.
#[track_caller]
fn refused(model: &Path, parts: &[&str]) {
    refused_with(model, &[], parts);
}

#[track_caller]
fn refused_with(model: &Path, more: &[&str], parts: &[&str]) {
    let bench = Bench::new();
    let pairs = bench.dataset("pairs.jsonl", &[pair("p", &[5, 6, 7], &[8, 9, 10])]);
    bench.interchange(model, &pairs, more).refused(parts);
    assert_eq!(bench.written(), [""; 0], "something was written");
}

/// Asks for an analysis of pairs that are faulty.
#[track_caller]
fn refused_pairs(text: &str, more: &[&str], parts: &[&str]) {
    let bench = Bench::new();
    let pairs = bench.text("pairs.jsonl", text);
    bench.interchange(&family_dir("llama"), &pairs, more).refused(&[&["pairs.jsonl"], parts].concat());
    assert_eq!(bench.written(), [""; 0], "something was written");
}

fn inspect(model: &Path, more: &[&str]) -> Ended {
    gatelens(["inspect", model.to_str().expect("UTF-8")].iter().chain(more))
}

fn open(model: &Path) -> Model {
    Model::open(model.to_str().expect("UTF-8"), &Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// Two golden prompts and one that is longer than any context that a fixture was first trained on.
fn prompts(family: &str) -> Vec<Vec<u32>> {
    let golden = Golden::of(family);
    vec![golden.ids("input_ids", 0), golden.ids("input_ids", 1), (3..103).collect()]
}

// Weights

#[test]
fn a_sharded_checkpoint_is_the_model_that_it_was_cut_from() {
    let ids = prompts("llama");
    let sharded = Folder::of("llama").sharded();
    assert_eq!(logits(&open(sharded.path()), &ids), logits(&open(&family_dir("llama")), &ids));
}

#[test]
fn a_missing_shard_is_named() {
    let model = Folder::of("llama").sharded();
    model.remove(SHARDS[1]);
    refused(model.path(), &[INDEX, SHARDS[1], "missing", "fetch it again"]);
}

#[test]
fn a_truncated_shard_is_named() {
    let model = Folder::of("llama").sharded();
    let bytes = std::fs::read(model.file(SHARDS[1])).expect("a shard");
    for kept in [bytes.len() - 1, bytes.len() / 2, 100, 7, 0] {
        model.write(SHARDS[1], &bytes[..kept]);
        refused(model.path(), &[SHARDS[1], "not a sound safetensors file", "fetch it again"]);
    }
}

/// A safetensors file with this header and this many bytes of data.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn a_header_that_lies_about_sizes_is_refused() {
    let tensor = |shape: &str, offsets: &str| {
        let name = "model.embed_tokens.weight";
        format!("{{\"{name}\": {{\"dtype\": \"F32\", \"shape\": {shape}, \"data_offsets\": {offsets}}}}}")
    };
    let model = Folder::of("llama");
    for header in [
        tensor("[1000, 48]", "[0, 16]"),
        tensor("[4]", "[16, 0]"),
        tensor("[4]", "[8, 24]"),
        tensor("[9223372036854775807, 9223372036854775807]", "[0, 16]"),
        tensor("[-4]", "[0, 16]"),
        tensor("[1073741824, 48]", "[0, 206158430208]"),
        "[]".to_string(),
        "{".to_string(),
    ] {
        model.write("model.safetensors", with_header(&header, 16));
        refused(model.path(), &["model.safetensors", "not a sound safetensors file"]);
    }
}

#[test]
fn a_header_of_absurd_length_is_refused() {
    let model = Folder::of("llama");
    for length in [u64::MAX, 1 << 62, 1 << 40, 100_000_000, 5_000] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        model.write("model.safetensors", bytes);
        refused(model.path(), &["model.safetensors", "not a sound safetensors file"]);
    }
}

#[test]
fn a_pointer_in_the_place_of_the_weights_is_told_for_what_it_is() {
    let model = Folder::of("llama");
    model.write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n");
    refused(model.path(), &["model.safetensors", "git lfs pull"]);
}

#[test]
fn a_tensor_of_the_wrong_shape_is_named() {
    let name = "model.layers.2.self_attn.k_proj.weight";
    let model = Folder::of("llama").weights(|t| t.get_mut(name).expect("a tensor").shape = vec![48, 24]);
    refused(model.path(), &["model.safetensors", name, "[48, 24]", "[24, 48]"]);
}

#[test]
fn a_tensor_of_a_dtype_that_is_no_weight_is_named() {
    let model = Folder::of("llama").weights(|t| {
        let stored = Stored { dtype: safetensors::Dtype::I64, shape: vec![48], data: vec![0; 48 * 8] };
        t.insert("model.norm.weight".to_string(), stored);
    });
    refused(model.path(), &["model.safetensors", "model.norm.weight", "I64", "F32, F16 and BF16"]);
}

#[test]
fn a_missing_tensor_is_named_with_the_nearest() {
    let name = "model.layers.3.mlp.up_proj.weight";
    let model = Folder::of("llama").weights(|t| drop(t.remove(name)));
    refused(model.path(), &[name, "missing", "model.layers.2.mlp.up_proj.weight"]);
}

#[test]
fn a_tensor_in_a_layer_that_the_decoder_would_not_use_is_refused_in_whichever_layer() {
    for layer in [0, 3] {
        let name = format!("model.layers.{layer}.self_attn.q_proj.bias");
        let model = Folder::of("llama").weights(|t| drop(t.insert(name.clone(), Stored::floats(&[48], &[0.5; 48]))));
        refused(model.path(), &["model.safetensors", &name, "llama"]);
    }
}

#[test]
fn weights_of_more_layers_than_the_description_says_are_refused() {
    let model = Folder::of("llama").key("num_hidden_layers", json!(3));
    refused(model.path(), &["model.layers.3.", "config.json"]);
    let model = Folder::of("llama").key("num_hidden_layers", json!(5));
    refused(model.path(), &["model.layers.4.", "missing"]);
}

#[test]
fn a_weight_that_is_not_a_number_is_named() {
    for value in [f32::NAN, f32::INFINITY] {
        let name = "model.layers.1.mlp.down_proj.weight";
        let model = Folder::of("llama").weights(|t| {
            t.get_mut(name).expect("a tensor").data[400..404].copy_from_slice(&value.to_le_bytes());
        });
        refused(model.path(), &["model.safetensors", name, "not finite"]);
    }
}

#[test]
fn a_weight_that_half_precision_cannot_hold_is_named() {
    let name = "model.layers.1.mlp.down_proj.weight";
    let model = Folder::of("llama").weights(|t| {
        t.get_mut(name).expect("a tensor").data[400..404].copy_from_slice(&1e6f32.to_le_bytes());
    });
    refused_with(model.path(), &["--dtype", "f16"], &[name, "f16", "--dtype f32"]);
}

#[test]
fn an_index_that_points_outside_its_folder_is_refused() {
    let outside = Folder::of("llama");
    let absolute = outside.file("model.safetensors");
    for name in ["../x.safetensors", "..", "a/../../x.safetensors", absolute.to_str().expect("UTF-8"), "", "."] {
        let model = Folder::of("llama").sharded().index_names(name);
        refused(model.path(), &[INDEX, &format!("`{name}`")]);
    }
}

#[test]
fn an_index_that_is_none_is_refused() {
    for text in ["", "{}", "[1]", r#"{"weight_map": 3}"#, r#"{"weight_map": {"a": 1}}"#, "\u{0}"] {
        let model = Folder::of("llama").sharded();
        model.write(INDEX, text);
        refused(model.path(), &[INDEX, "not an index"]);
    }
}

#[test]
fn a_folder_without_weights_says_which_are_read() {
    let model = Folder::of("llama");
    model.remove("model.safetensors");
    model.write("pytorch_model.bin", "x");
    refused(model.path(), &["model.safetensors", "save_pretrained", "GGUF"]);
}

// Descriptions

#[test]
fn a_configuration_that_is_no_json_object_is_refused() {
    let model = Folder::of("llama");
    for text in ["", "{", "[]", "3", "{\"hidden_size\": 48,}"] {
        model.write("config.json", text);
        refused(model.path(), &["config.json", "JSON"]);
    }
    model.write("config.json", b"{\"a\": \"\xff\"}");
    refused(model.path(), &["config.json", "UTF-8"]);
}

#[test]
fn an_unknown_architecture_is_answered_with_the_known() {
    let known = ["gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2"];
    let model = Folder::of("llama").key("model_type", json!("mamba"));
    refused(model.path(), &[&["config.json", "`mamba`"], &known[..]].concat());
    let model = Folder::of("llama").config(|c| drop(c.remove("model_type")));
    refused(model.path(), &["model_type", "llama"]);
}

#[test]
fn a_key_that_may_change_the_forward_pass_must_be_understood_or_passed_over_by_name() {
    let model = Folder::of("llama").key("residual_multiplier", json!(0.22));
    refused(model.path(), &["config.json", "`residual_multiplier`", "--ignore-config-key residual_multiplier"]);
    refused_with(model.path(), &["--ignore-config-key", "residual"], &["`residual_multiplier`"]);
    inspect(model.path(), &["--ignore-config-key", "residual_multiplier"]).done();
}

#[test]
fn a_key_that_looks_harmless_only_warns() {
    let model = Folder::of("llama").key("favourite_colour", json!("blue"));
    let ended = inspect(model.path(), &[]);
    assert!(ended.stderr.starts_with("warning: ") && ended.stderr.contains("`favourite_colour`"), "{}", ended.stderr);
    ended.done();
    let quiet = inspect(model.path(), &["--quiet"]);
    assert_eq!(quiet.stderr, "");
    quiet.done();
}

#[test]
fn a_key_of_the_wrong_type_or_without_sense_is_named() {
    let faults = [
        ("hidden_size", json!("48"), "a whole number"),
        ("hidden_size", json!(48.5), "a whole number"),
        ("hidden_size", json!(-48), "a whole number"),
        ("num_hidden_layers", json!(1u64 << 60), "more than any model has"),
        ("num_attention_heads", json!(0), "heads"),
        ("num_key_value_heads", json!(3), "heads"),
        ("rms_norm_eps", json!([1]), "a number"),
        ("tie_word_embeddings", json!("yes"), "true or false"),
        ("hidden_act", json!("mish"), "silu, gelu"),
        ("hidden_act", json!(3), "hidden_act"),
        ("rope_parameters", json!([1]), "an object"),
        ("rope_parameters", json!({ "rope_type": "default" }), "rope_theta"),
        ("rope_parameters", json!({ "rope_type": 3, "rope_theta": 1e4 }), "rope_type"),
        ("rope_parameters", json!({ "rope_type": "linear", "rope_theta": 1e4 }), "factor"),
        ("rope_parameters", json!({ "rope_type": "default", "rope_theta": 0 }), "rope_theta"),
        ("rope_parameters", json!({ "rope_type": "default", "rope_theta": 1e4, "twist": 2 }), "rope_parameters.twist"),
        ("vocab_size", Value::Null, "is missing"),
    ];
    for (key, value, part) in faults {
        let model = Folder::of("llama").key(key, value);
        refused(model.path(), &["config.json", part]);
    }
}

#[test]
fn sizes_that_no_machine_holds_are_refused_before_they_are_allocated() {
    for (key, value) in [("vocab_size", 1u64 << 62), ("hidden_size", 1 << 61), ("intermediate_size", u64::MAX)] {
        let model = Folder::of("llama").key(key, json!(value));
        refused(model.path(), &[]);
    }
}

#[test]
fn an_unknown_rotation_is_answered_with_the_known() {
    let rope = json!({ "rope_type": "spiral", "rope_theta": 1e4, "factor": 2.0 });
    let model = Folder::of("llama").key("rope_parameters", rope);
    refused(model.path(), &["rope_type", "`spiral`", "linear, dynamic, llama3, yarn, longrope"]);
}

/// Checks that a fixture with its rotation in the older keys is the same model.
#[track_caller]
fn same_with_older_keys(family: &str, older: &[(&str, Value)], gone: &[&str]) {
    let model = Folder::of(family).config(|config| {
        for key in gone {
            assert!(config.remove(*key).is_some(), "no {key}");
        }
        config.extend(older.iter().map(|(k, v)| ((*k).to_string(), v.clone())));
    });
    let ids = prompts(family);
    let found = open(model.path());
    assert_eq!(found.warnings, [""; 0]);
    assert_eq!(logits(&found, &ids), logits(&open(&family_dir(family)), &ids), "{family}");
}

#[test]
fn rotations_in_older_keys_are_those_of_rope_parameters() {
    let scaling = json!({
        "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 32, "rope_type": "llama3",
    });
    let theta = json!(500000.0);
    same_with_older_keys("llama3_rope", &[("rope_theta", theta), ("rope_scaling", scaling)], &["rope_parameters"]);

    let scaling = json!({
        "long_factor": [1.5, 1.8, 2.1, 2.4, 2.7, 3.0], "short_factor": [1.0, 1.05, 1.1, 1.15, 1.2, 1.25],
        "type": "longrope",
    });
    same_with_older_keys("phi3", &[("rope_theta", json!(1e4)), ("rope_scaling", scaling)], &["rope_parameters"]);

    let older = [
        ("rope_theta", json!(1e6)),
        ("rope_local_base_freq", json!(1e4)),
        ("rope_scaling", Value::Null),
        ("sliding_window_pattern", json!(6)),
    ];
    same_with_older_keys("gemma3", &older, &["rope_parameters", "layer_types", "_sliding_window_pattern"]);

    let older = [("rotary_pct", json!(0.25)), ("rotary_emb_base", json!(10000))];
    same_with_older_keys("gpt_neox", &older, &["rope_parameters"]);
}

#[test]
fn a_rotation_without_its_base_warns_that_one_is_assumed() {
    let model = Folder::of("llama").config(|c| drop(c.remove("rope_parameters")));
    let warnings = open(model.path()).warnings;
    assert!(warnings.iter().any(|w| w.contains("rope_theta") && w.contains("10000")), "{warnings:?}");
}

#[test]
fn rotations_that_contradict_each_other_are_refused() {
    let scaling = json!({ "rope_type": "linear", "factor": 4.0 });
    let model = Folder::of("llama").key("rope_scaling", scaling);
    refused(model.path(), &["config.json", "rope_scaling", "rope_parameters"]);
}

// GGUF

/// Keys of a llama GGUF file that describe the llama fixture.
fn llama_keys(architecture: &str) -> GgufBuilder {
    let size = |key: &str, n: u32| (format!("{architecture}.{key}"), Meta::U32(n));
    let keys = [
        size("block_count", 4),
        size("context_length", 128),
        size("embedding_length", 48),
        size("feed_forward_length", 80),
        size("attention.head_count", 4),
        size("attention.head_count_kv", 2),
        size("rope.dimension_count", 12),
        (format!("{architecture}.attention.layer_norm_rms_epsilon"), Meta::F32(1e-6)),
        (format!("{architecture}.rope.freq_base"), Meta::F32(10_000.0)),
    ];
    let start = GgufBuilder::new().key("general.architecture", architecture);
    keys.into_iter().fold(start, |b, (key, value)| b.key(&key, value))
}

/// Rows as llama.cpp's converter permutes those of queries and keys: the halves of each head interleaved.
fn interleaved(tensor: &Stored, heads: usize) -> Stored {
    let (values, columns) = (tensor.values(), tensor.shape[1]);
    let half = tensor.shape[0] / heads / 2;
    let row = |r: usize| {
        let (head, i, part) = (r / (2 * half), r % (2 * half) / 2, r % 2);
        let from = head * 2 * half + part * half + i;
        values[from * columns..(from + 1) * columns].to_vec()
    };
    Stored::floats(&tensor.shape, &(0..tensor.shape[0]).flat_map(row).collect::<Vec<_>>())
}

/// The llama fixture with the names and the order of rows of GGUF.
fn llama_tensors(builder: GgufBuilder) -> GgufBuilder {
    let parts = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let ends = [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];
    let in_layer = |l: usize| parts.map(|(from, to)| (format!("model.layers.{l}.{from}"), format!("blk.{l}.{to}")));
    let names = ends.map(|(from, to)| (from.to_string(), to.to_string())).into_iter().chain((0..4).flat_map(in_layer));
    let tensors = Folder::of("llama").tensors();
    names.fold(builder, |b, (from, to)| {
        let stored = &tensors[&format!("{from}.weight")];
        let stored = match to.rsplit('.').next() {
            Some("attn_q") => interleaved(stored, 4),
            Some("attn_k") => interleaved(stored, 2),
            _ => stored.clone(),
        };
        b.floats(&format!("{to}.weight"), &stored.shape, &stored.values())
    })
}

/// Asks for an analysis of a GGUF file that is faulty.
#[track_caller]
fn refused_gguf(builder: &GgufBuilder, parts: &[&str]) {
    let bench = Bench::new();
    let path = bench.path("model.gguf");
    builder.write(&path);
    refused(&path, &[&["model.gguf"], parts].concat());
}

#[test]
fn a_llama_gguf_is_the_model_that_it_was_made_from() {
    let bench = Bench::new();
    let path = bench.path("model.gguf");
    llama_tensors(llama_keys("llama")).write(&path);
    let ids = prompts("llama");
    let (found, expected) = (logits(&open(&path), &ids), logits(&open(&family_dir("llama")), &ids));
    assert_close("logits of the GGUF file", &found, &expected, 1e-5, 1e-5);
    let pairs = bench.dataset("pairs.jsonl", &[pair("p", &[5, 6, 7], &[8, 9, 10])]);
    bench.interchange(&path, &pairs, &[]).done();
    assert_eq!(bench.written(), ["run"]);
}

#[test]
fn a_gguf_file_that_is_none_is_refused() {
    let changed = |change: fn(&mut GgufBuilder)| {
        let mut whole = llama_tensors(llama_keys("llama"));
        change(&mut whole);
        whole
    };
    refused_gguf(&changed(|b| b.magic = *b"GGML"), &["not a GGUF file", "GGML"]);
    refused_gguf(&changed(|b| b.version = 7), &["version 7", "2 and 3"]);
    refused_gguf(&changed(|b| b.version = 3u32.swap_bytes()), &["big-endian"]);
    refused_gguf(&changed(|b| b.counts = Some((u64::MAX, 3))), &["damaged"]);
    refused_gguf(&changed(|b| b.counts = Some((3, 1 << 40))), &["damaged"]);
    let beyond = llama_keys("llama").tensor_at("token_embd.weight", &[160, 48], 0, 1 << 20);
    refused_gguf(&beyond, &["token_embd.weight", "incomplete"]);
    let far = llama_keys("llama").tensor_at("token_embd.weight", &[160, 48], 0, u64::MAX - 31);
    refused_gguf(&far, &["token_embd.weight"]);
}

#[test]
fn a_gguf_file_cut_short_anywhere_is_refused() {
    let bench = Bench::new();
    let (path, bytes) = (bench.path("cut.gguf"), llama_tensors(llama_keys("llama")).bytes());
    for kept in (0..3000).step_by(101).chain([bytes.len() / 2, bytes.len() - 1]) {
        std::fs::write(&path, &bytes[..kept]).expect("a file");
        let error = Model::open(path.to_str().expect("UTF-8"), &Options::default()).err().expect("an error");
        assert!(error.to_string().contains("cut.gguf"), "{kept}: {error}");
    }
    refused(&path, &["cut.gguf", "again"]);
}

#[test]
fn a_gguf_architecture_that_is_unknown_is_answered_with_the_known() {
    refused_gguf(&llama_tensors(llama_keys("rwkv6")), &["`rwkv6`", "llama, qwen2, qwen3, gemma3"]);
}

#[test]
fn a_gguf_key_that_may_change_the_forward_pass_must_be_understood_or_passed_over_by_name() {
    let bench = Bench::new();
    let path = bench.path("model.gguf");
    llama_tensors(llama_keys("llama").key("llama.residual_scale", Meta::F32(0.22))).write(&path);
    refused(&path, &["model.gguf", "`llama.residual_scale`", "--ignore-config-key llama.residual_scale"]);
    inspect(&path, &["--ignore-config-key", "llama.residual_scale"]).done();
}

#[test]
fn gguf_keys_of_what_the_decoder_does_not_do_may_only_switch_it_off() {
    let bench = Bench::new();
    let path = bench.path("model.gguf");
    let with = |value: Meta| llama_tensors(llama_keys("llama").key("llama.expert_count", value));
    for off in [Meta::U32(0), Meta::I32(0), Meta::F32(0.0)] {
        with(off).write(&path);
        inspect(&path, &[]).done();
    }
    for on in [Meta::U32(8), Meta::F32(0.5), Meta::Bool(true), Meta::from("8")] {
        refused_gguf(&with(on), &["`llama.expert_count`", "does not do"]);
    }
}

#[test]
fn a_gguf_frequency_table_of_another_size_is_refused() {
    let rotary = llama_tensors(llama_keys("llama")).floats("rope_freqs.weight", &[6], &[1.0; 6]);
    let bench = Bench::new();
    let path = bench.path("model.gguf");
    rotary.write(&path);
    inspect(&path, &[]).done();
    let short = llama_tensors(llama_keys("llama")).floats("rope_freqs.weight", &[5], &[1.0; 5]);
    refused_gguf(&short, &["rope_freqs.weight", "5 divisors", "12 rotated"]);
}

#[test]
fn a_gguf_key_that_is_missing_or_of_the_wrong_type_is_named() {
    let bare = GgufBuilder::new().key("general.architecture", "llama");
    refused_gguf(&llama_tensors(bare), &["llama."]);
    let typed = llama_tensors(llama_keys("llama").key("llama.attention.key_length", "twelve"));
    refused_gguf(&typed, &["llama.attention.key_length"]);
    refused_gguf(&llama_keys("llama"), &["token_embd.weight"]);
}

// Datasets

#[test]
fn a_token_id_out_of_range_is_named_with_its_line() {
    let lines = [pair("a", &[1, 2], &[3, 4]), pair("b", &[1, 160], &[3, 4])].map(|v| v.to_string());
    refused_pairs(&lines.join("\n"), &[], &["line 2", "\"b\"", "160", "0 to 159"]);
    let answer =
        json!({ "id": "a", "positive": { "ids": [1] }, "negative": { "ids": [2] }, "answer": [160], "foil": [1] });
    refused_pairs(&answer.to_string(), &[], &["line 1", "\"answer\"", "160", "0 to 159"]);
}

#[test]
fn an_empty_dataset_is_refused() {
    for text in ["", "\n\n", "  \n"] {
        refused_pairs(text, &[], &["no item"]);
    }
}

#[test]
fn a_line_that_is_no_json_object_is_named_by_its_number() {
    let good = pair("a", &[1, 2], &[3, 4]).to_string();
    refused_pairs(&format!("{good}\n\n{{\"id\": 3,\n"), &[], &["line 3"]);
    refused_pairs(&format!("{good}\n[1]"), &[], &["line 2, column 1", "object"]);
    refused_pairs(&format!("{good}\n{good}"), &[], &["line 2", "line 1", "\"a\""]);
    refused_pairs(r#"{"id": 1, "positiv": "x", "negative": "y"}"#, &[], &["line 1", "\"positive\"", "positiv"]);
}

#[test]
fn a_prompt_longer_than_the_context_is_named_with_both_lengths() {
    let long: Vec<u32> = (0..129).collect();
    refused_pairs(&pair("long one", &[1], &long).to_string(), &[], &["line 1", "\"long one\"", "129", "128"]);
}

#[test]
fn a_prompt_as_long_as_the_context_is_run() {
    let bench = Bench::new();
    let long: Vec<u32> = (0..128).collect();
    let pairs = bench.dataset("pairs.jsonl", &[pair("p", &long, &[1])]);
    for family in ["llama", "gpt2", "gemma2"] {
        bench.interchange_to(&bench.out(family), &family_dir(family), &pairs, &[]).done();
    }
}

#[test]
fn pairs_of_unequal_length_are_refused_where_all_positions_are_exchanged() {
    let line = pair("uneven", &[1, 2, 3], &[4, 5]).to_string();
    let parts = ["line 1", "\"uneven\"", "3 tokens", "2", "--position last"];
    refused_pairs(&line, &["--position", "all"], &parts);
    let far = ["line 1", "\"uneven\"", "2 tokens", "-3"];
    refused_pairs(&line, &["--position", "-3"], &far);
}

#[test]
fn a_metric_needs_an_answer_and_a_foil_that_differ() {
    let line = |more: Value| {
        let mut line = json!({ "id": "p", "positive": { "ids": [1] }, "negative": { "ids": [2] } });
        line.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        line.to_string()
    };
    refused_pairs(&line(json!({})), &[], &["line 1", "\"p\"", "\"answer\"", "--answer"]);
    refused_pairs(&line(json!({ "answer": [1] })), &[], &["line 1", "\"p\"", "\"foil\"", "--foil"]);
    refused_pairs(&line(json!({ "answer": [1, 2], "foil": [3, 2] })), &[], &["line 1", "\"p\"", "token 2"]);
    refused_pairs(&line(json!({ "answer": [], "foil": [3] })), &[], &["line 1", "\"answer\"", "empty list"]);
    // A text needs a tokenizer, which the fixture has not.
    refused_pairs(&line(json!({ "answer": ["yes"], "foil": [3] })), &[], &["line 1", "\"answer\"", "tokenizer.json"]);
}

#[test]
fn a_text_prompt_without_a_tokenizer_says_what_is_missing() {
    let line = json!({ "id": "p", "positive": "hello", "negative": "you", "answer": [1], "foil": [2] });
    refused_pairs(&line.to_string(), &[], &["line 1", "\"positive\"", "tokenizer.json"]);
}

#[test]
fn a_dataset_that_is_not_there_is_named() {
    let bench = Bench::new();
    bench.interchange(&family_dir("llama"), &bench.path("none.jsonl"), &[]).refused(&["none.jsonl", "check the path"]);
    bench.interchange(&family_dir("llama"), &bench.path("out"), &[]).refused(&["out", "directory"]);
    assert_eq!(bench.written(), [""; 0]);
}

#[test]
fn a_chat_template_that_never_ends_is_stopped() {
    let endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    let model = Folder::of("llama").with_template(endless);
    let bench = Bench::new();
    let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "p", "prompt": "how are you" })]);
    let started = std::time::Instant::now();
    let parts = ["prompts.jsonl", "line 1", "\"p\"", "chat template", "loops without end"];
    bench.trace(model.path(), &prompts, "logits", &[]).refused(&parts);
    assert!(started.elapsed().as_secs() < 60, "it took {:?}", started.elapsed());
    assert_eq!(bench.written(), [""; 0]);
}

#[test]
fn a_chat_template_that_refuses_or_is_wrong_is_an_error_at_its_line() {
    let bench = Bench::new();
    let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "p", "prompt": "how are you" })]);
    for (template, part) in [("{{ raise_exception('no users here') }}", "no users here"), ("{% for %}", "template")] {
        let model = Folder::of("llama").with_template(template);
        bench.trace(model.path(), &prompts, "logits", &[]).refused(&["prompts.jsonl", "line 1", part]);
        inspect(model.path(), &[]).done();
    }
}

// Models that are not there

#[test]
fn a_path_that_is_not_there_is_never_asked_of_the_hub() {
    let hub = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    hub.set_nonblocking(true).expect("a listener that does not wait");
    let endpoint = format!("http://{}", hub.local_addr().expect("an address"));
    let bench = Bench::new();
    for (name, hint) in [("owner/name", "hf:owner/name"), ("./owner/name", "no such"), ("some.gguf", "no such")] {
        let mut command = command(["inspect", name]);
        command.env("HF_ENDPOINT", &endpoint).env("HF_HOME", bench.path("cache")).current_dir(bench.path("out"));
        ended(command.output().expect("the binary starts")).refused(&[name, "no such file or folder", hint]);
    }
    assert!(hub.accept().is_err(), "the hub was asked");
    assert!(!bench.path("cache").exists());
}

#[test]
fn a_model_that_is_neither_folder_nor_gguf_says_what_is_read() {
    let bench = Bench::new();
    inspect(&bench.path("out"), &[]).refused(&["config.json", ".gguf"]);
    let file = bench.text("model.bin", "x");
    inspect(&file, &[]).refused(&["model.bin", ".gguf"]);
    inspect(&family_dir("llama").join("model.safetensors"), &[]).refused(&["folder that holds"]);
}

#[test]
fn cuda_in_a_build_without_it_is_refused() {
    if candle_core::utils::cuda_is_available() {
        println!("skipped: this build has CUDA");
        return;
    }
    refused_with(&family_dir("llama"), &["--device", "cuda"], &["cuda", "this build has no CUDA", "--device cpu"]);
    refused_with(&family_dir("llama"), &["--device", "cuda:x"], &["cuda:x", "cpu, cuda or cuda:N"]);
}

// Output

#[test]
fn what_no_run_made_is_never_replaced() {
    let bench = Bench::new();
    let pairs = bench.dataset("pairs.jsonl", &[pair("p", &[5, 6, 7], &[8, 9, 10])]);
    let (model, run) = (family_dir("llama"), bench.out("run"));
    std::fs::create_dir(&run).expect("a folder");
    std::fs::write(run.join("thesis.tex"), "years of work").expect("a file");
    bench.interchange(&model, &pairs, &[]).refused(&["run", "exists"]);
    bench.interchange(&model, &pairs, &["--force"]).refused(&["run", "run.json", "--force does not replace"]);
    assert!(run.join("thesis.tex").exists());
    bench.interchange_to(Path::new("/"), &model, &pairs, &["--force"]).refused(&["/"]);
    bench.interchange_to(&bench.path("pairs.jsonl"), &model, &pairs, &["--force"]).refused(&["pairs.jsonl"]);
    assert!(pairs.is_file());
}

#[cfg(target_os = "linux")]
mod disks {
    use super::*;
    use crate::support::tmpfs::Tmpfs;

    fn pairs(bench: &Bench) -> std::path::PathBuf {
        bench.dataset("pairs.jsonl", &[pair("p", &[5, 6, 7], &[8, 9, 10]), pair("q", &[1, 2], &[3, 4])])
    }

    #[test]
    fn a_full_disk_leaves_no_run_directory_and_the_run_goes_on_when_there_is_room() {
        let Some(disk) = Tmpfs::mount("size=64k") else { return };
        let (bench, model) = (Bench::new(), family_dir("llama"));
        let (pairs, out) = (pairs(&bench), disk.path().join("run"));
        bench.interchange_to(&out, &model, &pairs, &[]).failed(1, &["No space left", "free space"]);
        assert!(!out.exists());
        bench.interchange_to(&out, &model, &pairs, &[]).refused(&["run.partial", "--resume"]);
        disk.remount("size=16m");
        bench.interchange_to(&out, &model, &pairs, &["--resume"]).done();
        bench.interchange(&model, &pairs, &[]).done();
        // The reports state their commands, which differ.
        for name in ["heads.parquet", "pairs.parquet", "necessity.png", "sufficiency.png"] {
            let read = |dir: &Path| std::fs::read(dir.join(name)).expect(name);
            assert!(read(&out) == read(&bench.out("run")), "{name} differs after --resume");
        }
        assert!(!disk.path().join("run.partial").exists());
    }

    #[test]
    fn a_full_disk_leaves_no_part_of_a_trace() {
        let Some(disk) = Tmpfs::mount("size=16k") else { return };
        let bench = Bench::new();
        let ids: Vec<u32> = (0..100).collect();
        let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "p", "prompt": { "ids": ids } })]);
        let out = disk.path().join("x.safetensors");
        bench.trace_to(&out, &family_dir("llama"), &prompts, "logits", &[]).failed(1, &["x.safetensors", "free space"]);
        assert_eq!(crate::support::cli::listed(disk.path()), [""; 0]);
    }

    #[test]
    fn a_read_only_disk_is_an_error_that_names_it() {
        let Some(disk) = Tmpfs::mount("size=1m,ro") else { return };
        let bench = Bench::new();
        let out = disk.path().join("run");
        bench.interchange_to(&out, &family_dir("llama"), &pairs(&bench), &[]).failed(1, &["run", "Read-only", "--out"]);
        let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "p", "prompt": { "ids": [1] } })]);
        let out = disk.path().join("x.safetensors");
        bench.trace_to(&out, &family_dir("llama"), &prompts, "logits", &[]).failed(1, &["x.safetensors", "--out"]);
    }

    #[test]
    fn what_is_no_file_is_never_replaced_by_one() {
        let bench = Bench::new();
        let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "p", "prompt": { "ids": [1] } })]);
        // A socket stands for devices too: a defect must not cost the machine one.
        let socket = bench.out("socket");
        let _open = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        for more in [&[][..], &["--force"]] {
            bench.trace_to(&socket, &family_dir("llama"), &prompts, "logits", more).refused(&["socket", "not a file"]);
            assert_eq!(bench.written(), ["socket"]);
        }
        assert!(!std::fs::symlink_metadata(&socket).expect("a socket").is_file());
    }

    #[test]
    fn a_summary_that_cannot_be_written_is_an_error() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let model = family_dir("llama");
        let mut command = command(["inspect".as_ref(), model.as_os_str()]);
        ended(command.stdout(full).output().expect("the binary starts"))
            .failed(1, &["standard output", "No space left"]);
    }
}

#[test]
fn a_reader_who_closes_the_pipe_early_is_no_error() {
    let model = Folder::of("llama").key("favourite_colour", json!("blue"));
    let run = |args: &[&std::ffi::OsStr]| {
        let mut child = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        // Neither the summary nor the warning finds a reader.
        drop((child.stdout.take(), child.stderr.take()));
        child.wait().expect("an end").code()
    };
    assert_eq!(run(&["inspect".as_ref(), model.path().as_ref()]), Some(0));
    assert_eq!(run(&["inspect".as_ref(), model.path().as_ref(), "--json".as_ref()]), Some(0));
    assert_eq!(run(&["inspect".as_ref(), "/nowhere".as_ref()]), Some(2));
    assert_eq!(run(&["interchange".as_ref(), "--help".as_ref()]), Some(0));
}
