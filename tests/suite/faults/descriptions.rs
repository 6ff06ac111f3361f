//! Configurations that are wrong, unknown or contradict themselves.

use super::*;
use gatelens::model::rope::{Rope, Scaling};

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
    let model = Folder::of("llama").key("model_type", json!("zamba"));
    refused(model.path(), &[&["config.json", "`zamba`"], &known[..]].concat());
    let model = Folder::of("llama").config(|c| drop(c.remove("model_type")));
    refused(model.path(), &["model_type", "llama"]);
}

#[test]
fn a_key_that_may_change_the_forward_pass_must_be_understood_or_passed_over_by_name() {
    let model = Folder::of("llama").key("residual_multiplier", json!(0.22));
    refused(model.path(), &["config.json", "`residual_multiplier`", "--ignore-config-key residual_multiplier"]);
    let slip = ["`residual_multiplyer`", "no such key", "nearest names are: residual_multiplier"];
    refused_with(model.path(), &["--ignore-config-key", "residual_multiplyer"], &slip);
    inspect(model.path(), &["--ignore-config-key", "residual_multiplier"]).done();
    // A key that is another model's is only warned of.
    let other = open_with(&family_dir("llama"), &["residual_multiplier"]).expect("a sound model");
    assert!(other.warnings.len() == 1 && other.warnings[0].contains("no such key"), "{:?}", other.warnings);
    let model = model.key("expert_bias", json!(true));
    let both = "`ignore_config_key = residual_multiplier` `ignore_config_key = expert_bias`";
    unopened(model.path(), &["`residual_multiplier`, `expert_bias`", both]);
}

#[test]
fn every_key_can_be_passed_over_but_those_without_which_there_is_no_model() {
    for (family, key, value) in [
        ("llama", "final_logit_softcapping", json!(30.0)),
        ("gemma3", "use_bidirectional_attention", json!(true)),
        ("phi3", "full_attn_mod", json!(2)),
        ("llama", "rope_scaling", json!({ "rope_type": "linear", "factor": 4.0 })),
    ] {
        let model = Folder::of(family).key(key, value);
        unopened(model.path(), &[key]);
        let ids = prompts(family);
        let found = open_with(model.path(), &[key]).unwrap_or_else(|e| panic!("{key}: {e}"));
        assert_eq!(logits(&found, &ids), logits(&open(&family_dir(family)), &ids), "{key}");
    }
    let needed = open_with(&family_dir("llama"), &["hidden_size"]).err().expect("an error").to_string();
    holds_all(&needed, &["`hidden_size`", "cannot be passed over"]);
}

#[test]
fn a_key_within_a_rotation_is_passed_over_by_its_whole_name() {
    let rope = json!({ "rope_type": "default", "rope_theta": 1e4, "twist": 2, "finetuned": true });
    let model = Folder::of("llama").key("rope_parameters", rope);
    unopened(model.path(), &["`rope_parameters.twist`: is not", "`ignore_config_key = rope_parameters.twist`"]);
    let found = open_with(model.path(), &["rope_parameters.twist"]).expect("a sound model");
    assert_eq!(found.warnings, [""; 0]);
    let slip = open_with(model.path(), &["rope_parameters.twits"]).err().expect("an error").to_string();
    holds_all(&slip, &["no such key", "nearest names are: rope_parameters.twist"]);
}

#[test]
fn what_the_released_phi_4_mini_says_of_itself_is_understood() {
    let model = Folder::of("phi3").key("full_attn_mod", json!(1)).key("interpolate_factor", json!(1));
    let model = model.key("lm_head_bias", json!(false)).key("mlp_bias", json!(false));
    assert_eq!(open(model.path()).warnings, [""; 0]);
}

#[test]
fn a_key_that_is_off_and_sounds_as_if_it_mattered_warns() {
    let model = Folder::of("llama").key("rms_norm", json!(false)).key("o_bias", json!(false)).key("new", json!(false));
    let warnings = open(model.path()).warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("`rms_norm`"), "{warnings:?}");
}

#[test]
fn defaults_that_no_tensor_contradicts_are_said() {
    for (family, gone, said) in [
        ("llama", &["rms_norm_eps"][..], "`rms_norm_eps` is not given: 0.000001"),
        ("llama", &["hidden_act"], "`hidden_act` is not given: silu"),
        ("gpt2", &["layer_norm_epsilon"], "`layer_norm_epsilon` is not given: 0.00001"),
        ("gpt_neox", &["layer_norm_eps"], "`layer_norm_eps` is not given: 0.00001"),
        ("gpt_neox", &["rope_parameters"], "`rotary_pct` is not given: 0.25"),
        ("gemma2", &["query_pre_attn_scalar"], "`query_pre_attn_scalar` is not given: 256"),
        ("gemma3", &["rope_parameters"], "`rope_local_base_freq` is not given: 10000"),
        ("gemma3", &["layer_types", "_sliding_window_pattern"], "`sliding_window_pattern` is not given: 6"),
    ] {
        let model = Folder::of(family).config(|c| gone.iter().for_each(|key| drop(c.remove(*key))));
        let warnings = open(model.path()).warnings;
        assert!(warnings.iter().any(|w| w.starts_with(said)), "{family} without {gone:?}: {warnings:?}");
    }
    let windowed = Folder::of("qwen2").key("use_sliding_window", json!(true)).key("sliding_window", json!(6));
    let windowed = windowed.config(|c| ["layer_types", "max_window_layers"].iter().for_each(|k| drop(c.remove(*k))));
    let warnings = open(windowed.path()).warnings;
    assert!(warnings.iter().any(|w| w.starts_with("`max_window_layers` is not given: 28")), "{warnings:?}");
}

#[test]
fn numbers_that_no_formula_takes_are_refused() {
    let rope = |more: Value| {
        let mut rope = json!({ "rope_theta": 1e4, "factor": 2.0 });
        rope.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        rope
    };
    for (family, key, value, part) in [
        ("llama", "rms_norm_eps", json!(-1), "epsilon is -1"),
        ("gemma2", "query_pre_attn_scalar", json!(0), "scale of attention scores is inf"),
        ("gemma2", "query_pre_attn_scalar", json!(-4), "scale of attention scores is NaN"),
        ("gemma2", "attn_logit_softcapping", json!(0), "soft-cap of attention scores is 0"),
        ("llama", "rope_parameters", rope(json!({ "rope_type": "linear", "factor": 0 })), "factor is 0"),
        ("llama", "rope_parameters", rope(json!({ "rope_type": "yarn", "beta_slow": -1 })), "slow beta is -1"),
        (
            "llama",
            "rope_parameters",
            rope(json!({ "rope_type": "yarn", "original_max_position_embeddings": 0 })),
            "original context is 0",
        ),
        (
            "llama3_rope",
            "rope_parameters",
            rope(json!({ "rope_type": "llama3", "low_freq_factor": 1, "high_freq_factor": 4,
                         "original_max_position_embeddings": -32 })),
            "a whole number",
        ),
        ("llama", "rope_parameters", rope(json!({ "rope_type": "dynamic", "factor": 1e300 })), "context is"),
    ] {
        unopened(Folder::of(family).key(key, value).path(), &["config.json", part]);
    }
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
        refused(model.path(), &["config.json", &value.to_string(), "which no model has"]);
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

/// The rotation of the llama fixture with these keys.
fn rotation(keys: &[(&str, Value)]) -> (Rope, Vec<String>) {
    let model = Folder::of("llama").config(|c| c.extend(keys.iter().map(|(k, v)| ((*k).to_string(), v.clone()))));
    let found = open(model.path());
    (found.decoder.arch.ropes[0].clone(), found.warnings)
}

#[test]
fn the_original_context_counts_where_transformers_looks_for_it() {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let yarn = json!({ "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0 });
    let with = |rope: &Value, original: u64| {
        let mut rope = rope.clone();
        rope[ORIGINAL] = json!(original);
        rope
    };
    let (outer, warnings) = rotation(&[("rope_parameters", yarn.clone()), (ORIGINAL, json!(32))]);
    assert_eq!((&outer, warnings.len()), (&rotation(&[("rope_parameters", with(&yarn, 32))]).0, 0));
    let (assumed, warnings) = rotation(&[("rope_parameters", yarn.clone())]);
    assert_eq!(assumed, rotation(&[("rope_parameters", with(&yarn, 128))]).0);
    assert!(assumed != outer && warnings[0].starts_with("`original_max_position_embeddings` is not given: 128"));
    let (both, warnings) = rotation(&[("rope_parameters", with(&yarn, 64)), (ORIGINAL, json!(32))]);
    assert!(both == outer && warnings[0].contains("32 counts"), "{warnings:?}");

    let llama3 = json!({ "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0 });
    let outer = rotation(&[("rope_parameters", llama3.clone()), (ORIGINAL, json!(32))]).0;
    assert_eq!(outer, rotation(&[("rope_parameters", with(&llama3, 32))]).0);

    // Dynamic scaling begins at the context itself.
    let dynamic = json!({ "rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0 });
    let (found, warnings) = rotation(&[("rope_parameters", with(&dynamic, 32))]);
    assert_eq!(found.scaling, Scaling::Dynamic { factor: 2.0, original: 128 });
    assert!(warnings[0].contains("128") && warnings[0].contains("is not used"), "{warnings:?}");
}

#[test]
fn rotations_that_contradict_each_other_are_refused() {
    let scaling = json!({ "rope_type": "linear", "factor": 4.0 });
    let model = Folder::of("llama").key("rope_scaling", scaling);
    refused(model.path(), &["config.json", "rope_scaling", "rope_parameters"]);
}
