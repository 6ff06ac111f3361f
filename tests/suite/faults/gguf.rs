//! GGUF files that are wrong, and one that is right.

use super::*;
use gatelens::model::gguf::Gguf;
use gatelens::model::gguf_config;

/// Keys of a llama GGUF file that describe the llama fixture.
fn llama_keys(architecture: &str) -> GgufBuilder {
    description(architecture)
        .key(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Meta::F32(1e-6))
        .key(&format!("{architecture}.rope.freq_base"), Meta::F32(10_000.0))
}

/// The sizes among them.
fn description(architecture: &str) -> GgufBuilder {
    let size = |key: &str, n: u32| (format!("{architecture}.{key}"), Meta::U32(n));
    let keys = [
        size("block_count", 4),
        size("context_length", 128),
        size("embedding_length", 48),
        size("feed_forward_length", 80),
        size("attention.head_count", 4),
        size("attention.head_count_kv", 2),
        size("rope.dimension_count", 12),
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
    refused_gguf(
        &llama_tensors(llama_keys("rwkv6")),
        &["`rwkv6`", " llama, ", " qwen2, qwen3, gemma, gemma2, gemma3, ", " gpt-oss, "],
    );
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
fn gguf_keys_are_named_all_at_once_and_each_can_be_passed_over() {
    let bench = Bench::new();
    let path = bench.path("model.gguf");
    let more = llama_keys("llama").key("llama.zeta", Meta::U32(1)).key("llama.alpha", Meta::U32(1));
    llama_tensors(more.key("llama.attention.sliding_window", Meta::U32(64))).write(&path);
    let both = "`ignore_config_key = llama.alpha` `ignore_config_key = llama.zeta`";
    unopened(&path, &["`llama.alpha`, `llama.zeta`: are not understood", both]);
    let window = open_with(&path, &["llama.alpha", "llama.zeta"]).err().expect("an error").to_string();
    holds_all(&window, &["`ignore_config_key = llama.attention.sliding_window`"]);
    open_with(&path, &["llama.alpha", "llama.zeta", "llama.attention.sliding_window"]).expect("a sound model");
    let slip = open_with(&path, &["llama.alpah"]).err().expect("an error").to_string();
    holds_all(&slip, &["`llama.alpah`", "no such key", "nearest names are: llama.alpha"]);
    let all = ["llama.alpha", "llama.zeta", "llama.attention.sliding_window", "qwen2.beta"];
    assert_eq!(open_with(&path, &all).expect("a sound model").warnings.len(), 1, "of another model's key");
    let needed = open_with(&path, &["llama.alpha", "llama.zeta", "llama.block_count"]).err().expect("an error");
    holds_all(&needed.to_string(), &["`llama.block_count`", "cannot be passed over"]);
}

#[test]
fn a_part_of_a_split_gguf_is_told_for_what_it_is() {
    let part = GgufBuilder::new().key("split.no", Meta::U32(1)).key("split.count", Meta::U32(3));
    refused_gguf(&part, &["one of 3 parts", "llama-gguf-split --merge"]);
    let bench = Bench::new();
    let path = bench.path("whole.gguf");
    llama_tensors(llama_keys("llama").key("split.count", Meta::U32(1))).write(&path);
    open(&path);
}

#[test]
fn a_gguf_tensor_that_the_decoder_would_not_use_is_not_blamed_on_a_file_that_there_is_not() {
    let experts = llama_tensors(llama_keys("llama")).floats("blk.0.ffn_gate_inp.weight", &[4, 48], &[0.5; 192]);
    let bench = Bench::new();
    let path = bench.path("model.gguf");
    experts.write(&path);
    let error = open_with(&path, &[]).err().expect("an error").to_string();
    assert!(error.contains("blk.0.ffn_gate_inp.weight") && error.contains("variant"), "{error}");
    assert!(!error.contains("config.json"), "{error}");
}

#[test]
fn a_gguf_scaling_beside_a_frequency_table_is_refused_unless_it_scales_nothing() {
    let bench = Bench::new();
    let path = bench.path("model.gguf");
    let write = |kind: Option<&str>, factor: Option<f32>| {
        let keys = kind.iter().fold(llama_keys("llama"), |b, kind| b.key("llama.rope.scaling.type", *kind));
        let keys = factor.iter().fold(keys, |b, f| b.key("llama.rope.scaling.factor", Meta::F32(*f)));
        llama_tensors(keys).floats("rope_freqs.weight", &[6], &[2.0; 6]).write(&path);
    };
    for (kind, factor) in [(Some("none"), Some(4.0)), (Some("linear"), Some(1.0)), (Some("linear"), None)] {
        write(kind, factor);
        open(&path);
    }
    for (kind, factor) in [(Some("linear"), Some(2.0)), (None, Some(2.0)), (Some("yarn"), Some(4.0))] {
        write(kind, factor);
        unopened(&path, &["`llama.rope.scaling.type`", "rope_freqs.weight"]);
    }
}

#[test]
fn gguf_defaults_that_no_tensor_contradicts_are_said() {
    let (bench, embedding) = (Bench::new(), [0.5; 160 * 48]);
    let path = bench.path("model.gguf");
    let read = |keys: GgufBuilder| {
        keys.floats("token_embd.weight", &[160, 48], &embedding).write(&path);
        gguf_config::read(&Gguf::open(&path).expect("a sound file"), &[]).expect("a description").1
    };
    let gemma = llama_keys("gemma3").key("gemma3.attention.sliding_window", Meta::U32(64));
    assert_eq!(
        read(gemma),
        [
            "`gemma3.rope.freq_base_swa` is not given: 10000, the architecture's default, is assumed",
            "`gemma3.attention.sliding_window_pattern` is not given: 6, the architecture's default, is assumed",
        ]
    );
    let llama = description("llama").key("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-6));
    assert_eq!(read(llama), ["`llama.rope.freq_base` is not given: 10000, the architecture's default, is assumed"]);
}

#[test]
fn gguf_numbers_that_no_formula_takes_are_refused() {
    let keys = || description("llama").key("llama.rope.freq_base", Meta::F32(1e4));
    let epsilon = |value: f32| keys().key("llama.attention.layer_norm_rms_epsilon", Meta::F32(value));
    let bench = Bench::new();
    let path = bench.path("model.gguf");
    for (builder, part) in [
        (epsilon(f32::NAN), "epsilon is NaN"),
        (epsilon(-1.0), "epsilon is -1"),
        (epsilon(1e-6).key("llama.rope.scaling.factor", Meta::F32(f32::NAN)), "factor is NaN"),
        (epsilon(1e-6).key("llama.rope.scaling.factor", Meta::F32(0.0)), "factor is 0"),
    ] {
        llama_tensors(builder).write(&path);
        unopened(&path, &["model.gguf", part]);
    }
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

#[test]
fn a_tokenizer_that_does_not_say_how_it_cuts_is_warned_of_unless_it_is_to_be_quiet() {
    let bench = Bench::new();
    let path = bench.path("model.gguf");
    let pieces: Vec<String> = (3..160).map(|i| format!("piece{i}")).collect();
    let pieces: Vec<&str> = ["a", "b", "ab"].into_iter().chain(pieces.iter().map(String::as_str)).collect();
    let keys = llama_keys("llama").key("tokenizer.ggml.model", "gpt2").key("tokenizer.ggml.tokens", &pieces[..]);
    llama_tensors(keys.key("tokenizer.ggml.merges", &["a b"][..])).write(&path);
    let said = |more: &[&str]| {
        let ended = inspect(&path, more);
        let said = ended.stderr.clone();
        ended.done();
        said
    };
    let told = said(&[]);
    assert!(told.starts_with("warning: ") && told.contains("tokenizer.ggml.pre"), "{told}");
    assert_eq!(said(&["--quiet"]), "");
}
