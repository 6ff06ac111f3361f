//! Models that read more than text: their text part is run.

use super::*;
use gatelens::model::arch::{AltUp, Arch, Attention, Channel, Mixer};
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
    let [gemma4, gemma3n] = [("families/gemma4", "gemma4"), ("families/gemma3n", "gemma3n")];
    let others = [("mistral", "mistral3"), ("llama", "llava"), ("qwen2", "internvl")];
    for (family, wrapper) in [("gemma3", "gemma3"), gemma4, gemma3n].into_iter().chain(others) {
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
    let model = open(&family_dir(family));
    let mut stops = model.stop_tokens().to_vec();
    stops.extend([1, 106].into_iter().filter(|stop| (*stop as usize) < model.decoder.arch.vocab));
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

/// A description in the manner of Gemma 4's releases: two in three layers slide, and the last three share.
const GEMMA_4: &str = r#"{"model_type": "gemma4", "boa_token_id": 256000, "audio_config": {}, "vision_config": {},
    "vision_soft_tokens_per_image": 280, "text_config": {"model_type": "gemma4_text", "hidden_size": 1536,
    "intermediate_size": 6144, "num_hidden_layers": 9, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
    "global_head_dim": 512, "num_global_key_value_heads": 2, "attention_k_eq_v": false, "num_kv_shared_layers": 4,
    "use_double_wide_mlp": true, "hidden_size_per_layer_input": 256, "vocab_size_per_layer_input": 262144,
    "vocab_size": 262144, "max_position_embeddings": 131072, "sliding_window": 512, "final_logit_softcapping": 30.0,
    "enable_moe_block": false, "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh", "layer_types":
    ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "sliding_attention",
    "full_attention", "sliding_attention", "sliding_attention", "sliding_attention"], "use_bidirectional_attention": null,
    "rope_parameters": {"full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta":
    1000000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}}"#;

#[test]
fn gemma_4_reads_the_keys_and_values_of_the_last_layer_that_sees_as_far() {
    let found = described(GEMMA_4).expect("in the manner of releases");
    let arch = &found.arch;
    assert_eq!((arch.family.name(), arch.tied, arch.layer_scalars), ("gemma4_text", true, true));
    let shares: Vec<Option<usize>> = (0..9).map(|l| attention(arch, l).shares).collect();
    // The last layer sees all positions, whatever its type says.
    assert_eq!(shares, [None, None, None, None, None, Some(2), Some(4), Some(4), Some(2)]);
    assert!(found.warnings.iter().any(|w| w.starts_with("the last layer sees all positions")), "{:?}", found.warnings);
    let heads = |l: usize| attention(arch, l).heads;
    // Without shared projections, full layers have as many KV heads as the others.
    assert_eq!([heads(0).d_head, heads(0).n_kv_heads, heads(2).d_head, heads(2).n_kv_heads], [256, 1, 512, 1]);
    assert_eq!([heads(0).window, heads(8).window], [Some(512), None]);
    assert!((0..9).all(|l| heads(l).scale == 1.0 && !attention(arch, l).keys_as_values));
    assert_eq!(arch.layers.iter().map(|l| l.channel.width()).collect::<Vec<_>>()[4..6], [6144, 12_288]);
    assert_eq!(arch.ropes[0].scaling, Scaling::Proportional { share: 0.25, factor: 1.0 });
    assert_eq!((arch.ropes[0].rotary, arch.ropes[1].rotary, arch.per_layer.map(|of| of.width)), (512, 256, Some(256)));
    let with = |from: &str, to: &str| described(&GEMMA_4.replacen(from, to, 1));
    let equal = with("\"attention_k_eq_v\": false", "\"attention_k_eq_v\": true").expect("keys for values").arch;
    assert_eq!((attention(&equal, 2).keys_as_values, attention(&equal, 2).heads.n_kv_heads), (true, 2));
    assert!(!attention(&equal, 0).keys_as_values && attention(&equal, 0).heads.n_kv_heads == 1);
    let experts =
        "enable_moe_block\": true, \"num_experts\": 128, \"top_k_experts\": 8, \"moe_intermediate_size\": 704";
    let experts = with("enable_moe_block\": false", experts).expect("experts").arch;
    let Channel::Experts(of) = experts.layers[8].channel else { panic!("no experts") };
    // The MLP beside them stays as wide as it is without them.
    let widths = (of.n, of.chosen, of.mlp.width, of.shared.map(|shared| shared.mlp.width));
    assert_eq!(widths, (128, 8, 704, Some(12_288)));
    assert!(of.apart.is_some() && of.router.renormalised);
    let none = with("layer_input\": 256", "layer_input\": 0").expect("no embeddings of layers").arch;
    assert_eq!(none.per_layer, None);
}

#[test]
fn what_gemma_4_has_beside_is_refused_by_name() {
    let refused = |from: &str, to: &str, part: &str| {
        let error = described(&GEMMA_4.replacen(from, to, 1)).expect_err("not run").to_string();
        assert!(error.contains(part), "no `{part}` in: {error}");
    };
    refused("\"enable_moe_block\": false", "\"enable_moe_block\": true", "`num_experts`: is missing");
    refused("attention\": null", "attention\": \"all\"", "from left to right");
    refused("shared_layers\": 4", "shared_layers\": 9", "no layer of 9 is left");
    refused("shared_layers\": 4", "shared_layers\": 7", "layer 2 has no earlier layer that sees as far");
    let heads = "\"per_layer_config\": {\"2\": {\"head_dim\": 512}, \"5\": {\"head_dim\": 256}}, \"rms_norm_eps\"";
    refused("\"rms_norm_eps\"", heads, "per_layer_config");
}

/// A description in the manner of Gemma 3n's releases: four in five layers slide, and the last four share.
const GEMMA_3N: &str = r#"{"model_type": "gemma3n", "audio_config": {}, "vision_config": {}, "audio_token_id": 262273,
    "text_config": {"model_type": "gemma3n_text", "hidden_size": 2048, "intermediate_size": [8192, 8192, 8192, 8192, 8192,
    8192, 8192, 8192, 8192, 16384], "num_hidden_layers": 10, "num_attention_heads": 8, "num_key_value_heads": 2,
    "head_dim": 256, "num_kv_shared_layers": 4, "hidden_size_per_layer_input": 256, "vocab_size_per_layer_input": 262144,
    "vocab_size": 262400, "max_position_embeddings": 32768, "sliding_window": 512, "final_logit_softcapping": 30.0,
    "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "laurel_rank": 64,
    "altup_num_inputs": 4, "altup_active_idx": 0, "altup_coef_clip": 120.0, "altup_correct_scale": true,
    "altup_lr_multiplier": 1.0, "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    "rope_local_base_freq": 10000.0, "rope_scaling": null, "rope_theta": 1000000.0, "layer_types": ["sliding_attention",
    "sliding_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention",
    "sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]}}"#;

#[test]
fn gemma_3n_has_several_streams_and_cuts_the_gates_of_the_layers_that_it_names() {
    let arch = described(GEMMA_3N).expect("in the manner of releases").arch;
    assert_eq!((arch.family.name(), arch.tied, arch.logit_softcap), ("gemma3n_text", true, Some(30.0)));
    assert_eq!(arch.altup(), Some(AltUp { streams: 4, scaled: true, rank: 64 }));
    assert_eq!((arch.stream_width(), arch.d_mlp), (4 * 2048, 16_384));
    let mlp = |l: usize| if let Channel::Mlp(mlp) = arch.layers[l].channel { mlp } else { panic!("no MLP") };
    assert_eq!(
        [mlp(0), mlp(2), mlp(9)].map(|mlp| (mlp.width, mlp.cut.is_some())),
        [(8192, true), (8192, false), (16_384, false)]
    );
    let shares: Vec<Option<usize>> = (5..10).map(|l| attention(&arch, l).shares).collect();
    assert_eq!(shares, [None, Some(5), Some(5), Some(5), Some(4)]);
    assert!((0..10).all(|l| attention(&arch, l).heads.scale == 1.0));
    assert_eq!(arch.ropes.iter().map(|rope| rope.base).collect::<Vec<_>>(), [1e6, 1e4]);
    let refused = |from: &str, to: &str, part: &str| {
        let error = described(&GEMMA_3N.replacen(from, to, 1)).expect_err("not run").to_string();
        assert!(error.contains(part), "no `{part}` in: {error}");
    };
    refused("active_idx\": 0", "active_idx\": 1", "`altup_active_idx`: is 1");
    refused("inputs\": 4", "inputs\": 1", "the number of streams is 1");
    refused("[0.95, ", "[1.5, ", "`activation_sparsity_pattern`: expected a list of 10 shares");
    refused("[8192, ", "[", "`intermediate_size`: expected a whole number, or a list of 10");
}

#[test]
fn what_shared_layers_keep_of_their_own_keys_and_values_is_passed_over() {
    let family = "families/gemma4";
    let expected = logits(&open(&family_dir(family)), &prompts(family));
    let folder = Folder::of(family).weights(|t| {
        for name in ["k_proj", "v_proj", "k_norm"] {
            let stored = t[&format!("model.layers.3.self_attn.{}.weight", name.replace("v_proj", "k_proj"))].clone();
            t.insert(format!("model.layers.4.self_attn.{name}.weight"), stored);
        }
    });
    assert_eq!(logits(&open(folder.path()), &prompts(family)), expected);
}

#[test]
fn a_wrapper_whose_text_part_is_not_run_says_which_it_is() {
    let of = |outer: &str, text: &str| {
        let text = format!(r#"{{"model_type": "{outer}", "text_config": {{"model_type": "{text}"}}}}"#);
        described(&text).expect_err("not run").to_string()
    };
    for (outer, text) in [("zamba", "zamba2_text"), ("mllama", "mllama_text_model")] {
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
