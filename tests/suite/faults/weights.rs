//! Weights that are damaged, missing or not those of the description.

use super::*;

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
fn an_unembedding_of_its_own_counts_over_what_the_description_ties() {
    let (ids, embed, head) = (prompts("llama"), "model.embed_tokens.weight", "lm_head.weight");
    let tied = Folder::of("llama").key("tie_word_embeddings", json!(true));
    // The fixture's is another than its embedding.
    let found = open(tied.path());
    assert!(!found.decoder.arch.tied);
    assert!(found.warnings.len() == 1 && found.warnings[0].contains(head), "{:?}", found.warnings);
    assert_eq!(logits(&found, &ids), logits(&open(&family_dir("llama")), &ids));
    // One that is the embedding once more, however it is stored, is none of its own.
    let alone = Folder::of("llama").key("tie_word_embeddings", json!(true)).weights(|t| drop(t.remove(head)));
    let expected = logits(&open(alone.path()), &ids);
    let halves = |stored: &Stored| {
        let data = stored.values().iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
        Stored { dtype: safetensors::Dtype::BF16, shape: stored.shape.clone(), data }
    };
    let twice = alone.weights(|t| drop(t.insert(head.to_string(), t[embed].clone())));
    let found = open(twice.path());
    assert!(found.decoder.arch.tied && found.warnings.is_empty(), "{:?}", found.warnings);
    assert_eq!(logits(&found, &ids), expected);
    let rounded = twice.weights(|t| drop(t.insert(head.to_string(), halves(&t[embed]))));
    assert!(!open(rounded.path()).decoder.arch.tied, "rounded, it is another");
    let both =
        rounded.weights(|t| drop(t.insert(embed.to_string(), Stored::floats(&t[head].shape, &widened(&t[head])))));
    assert!(open(both.path()).decoder.arch.tied, "rounded alike, it is the same");
}

/// The numbers of a tensor in bf16.
fn widened(stored: &Stored) -> Vec<f32> {
    stored.data.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
}

#[test]
fn tensors_outside_the_layers_without_a_use_are_said() {
    let model = Folder::of("llama").weights(|t| {
        t.insert("lm_head.bias".to_string(), Stored::floats(&[160], &[0.5; 160]));
        t.insert("model.norm.bias".to_string(), Stored::floats(&[48], &[0.5; 48]));
        t.insert("model.rotary_emb.inv_freq".to_string(), Stored::floats(&[6], &[0.5; 6]));
    });
    let warnings = open(model.path()).warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("`lm_head.bias` and 1 more"), "{warnings:?}");
}

#[test]
fn a_single_file_comes_before_the_shards_whose_index_was_left_behind() {
    let ids = prompts("llama");
    let sharded = Folder::of("llama").sharded();
    let other = Folder::of("llama").weights(|t| {
        let norm = t.get_mut("model.norm.weight").expect("a tensor");
        *norm = Stored::floats(&[48], &[0.25; 48]);
    });
    let bytes = std::fs::read(other.file("model.safetensors")).expect("weights");
    sharded.write("model.safetensors", bytes);
    for gone in [None, Some(SHARDS[0])] {
        gone.iter().for_each(|shard| sharded.remove(shard));
        let found = open(sharded.path());
        assert!(found.warnings.len() == 1 && found.warnings[0].contains(INDEX), "{:?}", found.warnings);
        assert_eq!(logits(&found, &ids), logits(&open(other.path()), &ids));
    }
}

/// The llama fixture with one number of a tensor replaced.
fn with_number(tensor: &str, value: f32) -> Folder {
    Folder::of("llama").weights(|t| {
        t.get_mut(tensor).expect("a tensor").data[400..404].copy_from_slice(&value.to_le_bytes());
    })
}

#[test]
fn a_weight_that_is_not_a_number_is_named() {
    for value in [f32::NAN, f32::INFINITY] {
        for name in ["model.layers.1.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"] {
            let model = match name {
                "model.norm.weight" => Folder::of("llama").weights(|t| {
                    t.get_mut(name).expect("a tensor").data[..4].copy_from_slice(&value.to_le_bytes());
                }),
                _ => with_number(name, value),
            };
            for more in [&[][..], &["--max-memory", "1KB"], &["--engine", "full"]] {
                refused_with(model.path(), more, &["model.safetensors", name, "not finite"]);
            }
        }
    }
}

#[test]
fn a_weight_that_is_not_a_number_stops_what_reads_it_and_nothing_else() {
    let name = "model.layers.1.mlp.down_proj.weight";
    let model = with_number(name, f32::NAN);
    inspect(model.path(), &[]).done();
    let bench = Bench::new();
    let prompts = bench.dataset("prompts.jsonl", &[json!({"prompt": {"ids": [5, 6, 7]}})]);
    bench.trace(model.path(), &prompts, "resid_post.0", &[]).done();
    for sites in ["resid_post.1", "z.3", "logits"] {
        let out = bench.out("other.safetensors");
        bench.trace_to(&out, model.path(), &prompts, sites, &[]).refused(&["model.safetensors", name, "not finite"]);
        assert_eq!(bench.written(), ["trace.safetensors"], "something was written");
    }
    // Of the embedding, the rows of the prompts' tokens are read: 400 bytes in, that of token 2.
    let model = with_number("model.embed_tokens.weight", f32::NAN);
    bench.trace(model.path(), &prompts, "resid_post.0", &["--force"]).done();
    let prompts = bench.dataset("prompts.jsonl", &[json!({"prompt": {"ids": [5, 2, 7]}})]);
    let parts = ["model.safetensors", "model.embed_tokens.weight", "not finite"];
    bench.trace(model.path(), &prompts, "resid_post.0", &["--force"]).refused(&parts);
}

#[test]
fn what_can_be_told_without_numbers_is_told_when_a_model_is_opened() {
    let name = "model.layers.3.mlp.up_proj.weight";
    let missing = Folder::of("llama").weights(|t| drop(t.remove(name)));
    let short = Folder::of("llama").weights(|t| t.get_mut(name).expect("a tensor").shape = vec![48, 80]);
    let whole = Folder::of("llama").weights(|t| {
        let stored = Stored { dtype: safetensors::Dtype::I64, shape: vec![48], data: vec![0; 48 * 8] };
        t.insert("model.layers.3.input_layernorm.weight".to_string(), stored);
    });
    for more in [&[][..], &["--max-memory", "1KB"]] {
        inspect(missing.path(), more).refused(&[name, "missing"]);
        inspect(short.path(), more).refused(&[name, "[48, 80]", "[80, 48]"]);
        inspect(whole.path(), more).refused(&["model.layers.3.input_layernorm.weight", "I64"]);
    }
}

#[test]
fn a_weight_that_half_precision_cannot_hold_is_named() {
    let name = "model.layers.1.mlp.down_proj.weight";
    let model = with_number(name, 1e6);
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
