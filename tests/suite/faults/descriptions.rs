//! Configurations that are wrong, unknown or contradict themselves.

use super::*;

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
