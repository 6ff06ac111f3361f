//! Models that read more than text: their text part is run.

use super::*;
use gatelens::model::arch::{Arch, Attention, Mixer};
use gatelens::model::rope::Scaling;

/// Wraps a fixture as a model that also reads images, as `transformers` saves one; `name` says where tensors go.
fn wrapped(family: &str, wrapper: &str, name: impl Fn(&str) -> String) -> Folder {
    let folder = Folder::of(family).config(|c| {
        let text = std::mem::take(c);
        let keys = json!({
            "architectures": ["SomeForConditionalGeneration"], "model_type": wrapper, "text_config": text,
            "boi_token_index": 5, "eoi_token_index": 6, "image_token_index": 7, "mm_tokens_per_image": 4,
            "eos_token_id": [1, 106], "projector_hidden_act": "gelu", "vision_feature_layer": -2, "torch_dtype": "bfloat16",
            "vision_config": { "hidden_size": 16, "model_type": "siglip_vision_model", "num_hidden_layers": 1 },
        });
        *c = keys.as_object().expect("an object").clone();
    });
    folder.renamed(name).weights(|t| {
        let floats = |shape: &[usize]| Stored::floats(shape, &vec![0.5; shape.iter().product()]);
        for name in ["self_attn.q_proj.weight", "mlp.fc1.weight"] {
            t.insert(format!("vision_tower.vision_model.encoder.layers.0.{name}"), floats(&[16, 16]));
        }
        t.insert("multi_modal_projector.mm_input_projection_weight".to_string(), floats(&[16, 48]));
    })
}

/// Where three published layouts put the tensors of a decoder.
fn layouts() -> [fn(&str) -> String; 3] {
    [
        |name| format!("language_model.{name}"),
        |name| name.strip_prefix("model.").map_or(name.to_string(), |rest| format!("model.language_model.{rest}")),
        |name| {
            name.strip_prefix("model.").map_or(format!("text.{name}"), |rest| format!("text.model.text_model.{rest}"))
        },
    ]
}

#[test]
fn the_text_part_of_a_wrapper_is_the_model_that_was_wrapped() {
    for (family, wrapper) in [("gemma3", "gemma3"), ("mistral", "mistral3"), ("llama", "llava"), ("qwen2", "internvl")]
    {
        let expected = logits(&open(&family_dir(family)), &prompts(family));
        for (i, layout) in layouts().into_iter().enumerate() {
            for folder in [wrapped(family, wrapper, layout), wrapped(family, wrapper, layout).sharded()] {
                let found = open(folder.path());
                assert_eq!(logits(&found, &prompts(family)), expected, "{family}, layout {i}");
                let [weights, wrapped] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
                assert!(weights.contains("`multi_modal_projector.") && weights.contains("and 2 more"), "{weights}");
                assert!(wrapped.contains(wrapper) && wrapped.contains("text part"), "{wrapped}");
                assert_eq!(found.stop_tokens(), open_stops(family), "{family}");
            }
        }
    }
}

/// What ends a text of the fixture, and what the wrapper adds to it.
fn open_stops(family: &str) -> Vec<u32> {
    let mut stops = open(&family_dir(family)).stop_tokens().to_vec();
    stops.extend([1, 106]);
    stops.sort_unstable();
    stops.dedup();
    stops
}

#[test]
fn another_part_with_layers_of_the_same_names_is_not_taken_for_the_decoder() {
    let expected = logits(&open(&family_dir("llama")), &prompts("llama"));
    let folder = wrapped("llama", "llava", |name| format!("language_model.{name}")).weights(|t| {
        let stored = t["language_model.model.layers.0.mlp.down_proj.weight"].clone();
        t.insert("a.layers.0.mlp.down_proj.weight".to_string(), stored);
    });
    assert_eq!(logits(&open(folder.path()), &prompts("llama")), expected);
}

#[test]
fn a_tensor_in_a_wrapped_layer_without_a_use_is_refused_and_a_missing_one_is_named() {
    let name = "language_model.model.layers.1.self_attn.q_proj.bias";
    let folder = wrapped("llama", "llava", |name| format!("language_model.{name}"));
    let folder = folder.weights(|t| drop(t.insert(name.to_string(), Stored::floats(&[48], &[0.5; 48]))));
    unopened(folder.path(), &[name, "llama"]);
    let name = "language_model.model.layers.2.mlp.up_proj.weight";
    let folder = wrapped("llama", "llava", |name| format!("language_model.{name}"));
    unopened(folder.weights(|t| drop(t.remove(name))).path(), &[name, "is missing"]);
}

/// The released `gemma-3-4b-it`, which leaves out what `transformers` has for default.
const GEMMA_3_4B: &str = r#"{"architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999,
    "eoi_token_index": 256000, "eos_token_id": [1, 106], "image_token_index": 262144, "initializer_range": 0.02,
    "mm_tokens_per_image": 256, "model_type": "gemma3", "text_config": {"hidden_size": 2560, "intermediate_size": 10240,
    "model_type": "gemma3_text", "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024}, "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0", "vision_config":
    {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model",
    "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": false}}"#;

fn attention(arch: &Arch, layer: usize) -> Attention {
    let Mixer::Attention(attention) = arch.layers[layer].mixer else { panic!("no attention") };
    attention
}

fn sizes(a: &Arch) -> [usize; 8] {
    [a.vocab, a.d_model, a.d_mlp, a.n_layers, a.n_heads, a.n_kv_heads, a.d_head, a.n_ctx]
}

#[test]
fn what_a_wrapper_leaves_out_is_its_familys_and_said() {
    let found = described(GEMMA_3_4B).expect("as it was released");
    let arch = &found.arch;
    assert_eq!((arch.family.name(), arch.tied), ("gemma3_text", true));
    assert_eq!(sizes(arch), [262_208, 2560, 10_240, 34, 8, 4, 256, 131_072]);
    assert_eq!(arch.ropes[0].scaling, Scaling::Linear { factor: 8.0 });
    assert_eq!((arch.ropes[0].base, arch.ropes[1].base, &arch.ropes[1].scaling), (1e6, 1e4, &Scaling::None));
    let heads = |l: usize| attention(arch, l).heads;
    assert_eq!((heads(4).window, heads(5).window), (Some(1024), None));
    assert_eq!((heads(0).scale, found.eos_token_id), (1.0 / 16.0, Some(json!([1, 106]))));
    for said in [
        "`vocab_size` is not given: 262208",
        "`num_attention_heads` is not given: 8",
        "`rope_theta` is not given: 1000000",
    ] {
        assert!(found.warnings.iter().any(|w| w.starts_with(said)), "{said}: {:?}", found.warnings);
    }
    // Alone, a description says its sizes.
    let alone =
        r#"{"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}"#;
    assert!(described(alone).expect_err("no heads").to_string().contains("`num_attention_heads`: is missing"));
}

#[test]
fn released_wrappers_of_other_families_are_described() {
    let llava = described(
        r#"{"model_type": "llava", "ignore_index": -100, "image_token_index": 32000, "pad_token_id": 32001,
        "projector_hidden_act": "gelu", "text_config": {"_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures":
        ["LlamaForCausalLM"], "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05, "torch_dtype":
        "float16", "vocab_size": 32064}, "tie_word_embeddings": false, "torch_dtype": "float16", "vision_config": {},
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064}"#,
    );
    let arch = llava.expect("as it was released").arch;
    assert_eq!((arch.family.name(), sizes(&arch)), ("llama", [32_064, 4096, 11_008, 32, 32, 32, 128, 4096]));

    let mistral = described(
        r#"{"model_type": "mistral3", "image_token_index": 10, "multimodal_projector_bias": false,
        "projector_hidden_act": "gelu", "spatial_merge_size": 2, "text_config": {"attention_dropout": 0.0, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02, "intermediate_size": 32768,
        "max_position_embeddings": 131072, "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 40,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000000.0, "sliding_window": null, "use_cache": true,
        "vocab_size": 131072}, "vision_config": {}, "vision_feature_layer": -1}"#,
    );
    let arch = mistral.expect("as it was released").arch;
    assert_eq!(sizes(&arch), [131_072, 5120, 32_768, 40, 32, 8, 128, 131_072]);
    assert!(arch.layers.iter().all(|l| l.mixer.window().is_none()) && !arch.tied);

    let qwen = described(
        r#"{"model_type": "qwen2_5_vl", "image_token_id": 151655, "video_token_id": 151656,
        "vision_start_token_id": 151652, "tie_word_embeddings": true, "text_config": {"hidden_size": 2048,
        "intermediate_size": 11008, "model_type": "qwen2_5_vl_text", "num_attention_heads": 16, "num_hidden_layers": 36,
        "num_key_value_heads": 2, "max_position_embeddings": 128000, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": 151936, "hidden_act": "silu"},
        "vision_config": {}}"#,
    );
    let arch = qwen.expect("as it is released").arch;
    assert_eq!(
        (arch.family.name(), arch.tied, attention(&arch, 0).qkv_bias, arch.ropes[0].scaling.clone()),
        ("qwen2", true, true, Scaling::None)
    );
}

#[test]
fn a_wrapper_whose_text_part_is_not_run_says_which_it_is() {
    let of = |outer: &str, text: &str| {
        let text = format!(r#"{{"model_type": "{outer}", "text_config": {{"model_type": "{text}"}}}}"#);
        described(&text).expect_err("not run").to_string()
    };
    for (outer, text) in [("zamba", "zamba2_text"), ("mllama", "mllama_text_model"), ("gemma3n", "gemma3n_text")] {
        let error = of(outer, text);
        assert!(error.contains(outer) && error.contains(text) && error.contains("gatelens runs"), "{error}");
    }
    assert!(of("paligemma", "gemma2").contains("lets every token of a prompt read all others"));
    // What changes the forward pass is not passed over, wherever it stands.
    let changed = GEMMA_3_4B.replacen("\"boi_token_index\"", "\"attention_rescale\": 2, \"boi_token_index\"", 1);
    assert!(described(&changed).expect_err("not known").to_string().contains("attention_rescale"));
    let changed = GEMMA_3_4B.replacen("\"sliding_window\"", "\"attention_rescale\": 2, \"sliding_window\"", 1);
    assert!(described(&changed).expect_err("not known").to_string().contains("attention_rescale"));
}
