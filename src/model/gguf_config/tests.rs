use super::*;
use crate::gguf_builder::{GgufBuilder, Meta};

fn sized(name: &str) -> GgufBuilder {
    with_kv_heads(name, Meta::U32(2))
}

fn with_kv_heads(name: &str, heads: Meta) -> GgufBuilder {
    let sizes = [
        ("block_count", 6),
        ("context_length", 128),
        ("embedding_length", 48),
        ("feed_forward_length", 80),
        ("attention.head_count", 4),
        ("rope.dimension_count", 12),
    ];
    let start = GgufBuilder::new()
        .key("general.architecture", name)
        .key(&format!("{name}.attention.layer_norm_rms_epsilon"), Meta::F32(1e-6))
        .key(&format!("{name}.rope.freq_base"), Meta::F32(10_000.0))
        .key(&format!("{name}.attention.head_count_kv"), heads)
        .floats("token_embd.weight", &[16, 48], &[0.5; 16 * 48]);
    sizes.into_iter().fold(start, |b, (key, n)| b.key(&format!("{name}.{key}"), Meta::U32(n)))
}

fn arch(builder: &GgufBuilder) -> Result<Arch, GgufConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    builder.write(&path);
    read(&Gguf::open(&path).unwrap(), &[]).map(|(arch, _)| arch)
}

fn llama(keys: &[(&str, Meta)]) -> Result<Arch, GgufConfigError> {
    arch(&keys.iter().fold(sized("llama"), |b, (key, value)| b.key(&format!("llama.{key}"), value.clone())))
}

#[test]
fn keys_that_change_nothing_are_accepted_at_those_values_only() {
    let plain = llama(&[]).unwrap();
    for (key, value) in [
        ("attention.causal", Meta::Bool(true)),
        ("attention.layer_norm_epsilon", Meta::F32(1e-5)),
        ("attention.clamp_kqv", Meta::F32(0.0)),
        ("attention.scale", Meta::F32(0.0)),
        ("attention.sliding_window", Meta::U32(128)),
        ("attention.value_length_swa", Meta::U32(12)),
        ("embedding_length_out", Meta::U32(48)),
        ("expert_shared_count", Meta::U32(0)),
        ("logit_scale", Meta::F32(1.0)),
        ("pooling_type", Meta::U32(0)),
        ("residual_scale", Meta::F32(0.0)),
        ("rope.dimension_count_swa", Meta::U32(12)),
        ("rope.scale_linear", Meta::F32(1.0)),
        ("rope.scaling.yarn_attn_factor", Meta::F32(1.0)),
        ("rope.scaling.yarn_ext_factor", Meta::F32(-1.0)),
        ("tensor_data_layout", Meta::from("Meta AI original pth")),
        ("use_parallel_residual", Meta::Bool(false)),
    ] {
        let found = llama(&[(key, value)]).unwrap();
        assert_eq!(format!("{found:?}"), format!("{plain:?}"), "{key}");
    }
    for (key, value) in [
        ("attention.causal", Meta::Bool(false)),
        ("attention.clamp_kqv", Meta::F32(8.0)),
        ("attention.scale", Meta::F32(0.1)),
        ("attention.sliding_window", Meta::U32(64)),
        ("attention.value_length_swa", Meta::U32(16)),
        ("embedding_length_out", Meta::U32(32)),
        ("expert_shared_count", Meta::U32(1)),
        ("logit_scale", Meta::F32(0.0625)),
        ("rope.dimension_count_swa", Meta::U32(6)),
        ("rope.scaling.yarn_ext_factor", Meta::F32(0.5)),
        ("rope.scaling.yarn_log_multiplier", Meta::F32(0.1)),
        ("use_parallel_residual", Meta::Bool(true)),
        ("never_heard_of", Meta::U32(0)),
    ] {
        let why = llama(&[(key, value)]).unwrap_err().to_string();
        assert!(why.contains(&format!("llama.{key}")), "{why}");
    }
}

#[test]
fn one_size_a_layer_is_taken_where_all_are_the_same() {
    let each = |sizes: [i32; 6]| {
        let keys = [("attention.key_length", Meta::I32s(sizes.to_vec()))];
        llama(&keys)
    };
    assert_eq!(each([12; 6]).unwrap().d_head, 12);
    for sizes in [[12, 12, 12, 12, 12, 6], [-12; 6]] {
        assert!(each(sizes).unwrap_err().to_string().contains("attention.key_length"));
    }
}

#[test]
fn older_files_name_the_factor_of_a_linear_scaling_their_own_way() {
    let scaling = |keys: &[(&str, Meta)]| llama(keys).unwrap().ropes.remove(0).scaling;
    let (older, newer) = (("rope.scale_linear", Meta::F32(2.0)), ("rope.scaling.factor", Meta::F32(4.0)));
    assert_eq!(scaling(std::slice::from_ref(&older)), Scaling::Linear { factor: 2.0 });
    assert_eq!(scaling(&[older, newer]), Scaling::Linear { factor: 4.0 });
}

#[test]
fn a_scaled_rotation_lengthens_the_context() {
    let n_ctx = |kind: &str, factor: f32, original: Option<u32>| {
        let mut keys = vec![("rope.scaling.type", Meta::from(kind)), ("rope.scaling.factor", Meta::F32(factor))];
        keys.extend(original.map(|n| ("rope.scaling.original_context_length", Meta::U32(n))));
        llama(&keys).unwrap().n_ctx
    };
    for kind in ["yarn", "linear"] {
        assert_eq!(n_ctx(kind, 4.0, Some(128)), 512, "{kind}");
        assert_eq!(n_ctx(kind, 4.0, Some(32)), 128, "{kind}: it is scaled already");
        assert_eq!(n_ctx(kind, 4.0, None), 128, "{kind}");
    }
    assert_eq!(n_ctx("none", 4.0, Some(128)), 128);
}

#[test]
fn which_layers_slide_may_be_said_of_each() {
    let gemma = |pattern: Meta| {
        arch(
            &sized("gemma3")
                .key("gemma3.attention.sliding_window", Meta::U32(64))
                .key("gemma3.attention.sliding_window_pattern", pattern),
        )
    };
    let slides = [true, false, true, true, false, false];
    let windows = |arch: Arch| arch.layers.iter().map(|layer| layer.mixer.window().is_some()).collect::<Vec<_>>();
    assert_eq!(windows(gemma(Meta::Bools(slides.to_vec())).unwrap()), slides);
    assert_eq!(windows(gemma(Meta::U32(2)).unwrap()), [true, false, true, false, true, false]);
    assert!(gemma(Meta::Bools(vec![true; 5])).unwrap_err().to_string().contains("5 entries for 6 layers"));
}

#[test]
fn layers_without_kv_heads_are_recurrent() {
    let lfm2 = |heads: Meta| arch(&with_kv_heads("lfm2", heads).key("lfm2.shortconv.l_cache", Meta::U32(3)));
    let found = lfm2(Meta::I32s(vec![0, 2, 0, 0, 2, 0])).unwrap();
    let recurrent = found.layers.iter().map(|layer| layer.mixer.recurrent().is_some()).collect::<Vec<_>>();
    assert_eq!((recurrent, found.n_kv_heads), (vec![true, false, true, true, false, true], 2));
    assert!(lfm2(Meta::U32(2)).unwrap().layers.iter().all(|layer| layer.mixer.attention().is_some()));
    for (heads, why) in [
        (vec![0, 2, 0, 0, 4, 0], "differs between layers with attention"),
        (vec![0, 2, 0], "3 entries for 6 layers"),
        (vec![0, -2, 0, 0, -2, 0], "-2 is no number of heads"),
    ] {
        let found = lfm2(Meta::I32s(heads)).unwrap_err().to_string();
        assert!(found.contains("lfm2.attention.head_count_kv") && found.contains(why), "{found}");
    }
}

#[test]
fn what_an_architecture_takes_for_granted_is_refused_where_a_file_says_otherwise() {
    let with = |name: &str, keys: &[(&str, Meta)]| {
        let file = keys.iter().fold(sized(name), |b, (key, value)| b.key(&format!("{name}.{key}"), value.clone()));
        arch(&file).unwrap_err().to_string()
    };
    let experts = [("expert_count", Meta::U32(4)), ("expert_used_count", Meta::U32(1))];
    for window in [0, 64] {
        let keys = [&experts[..], &[("attention.sliding_window", Meta::U32(window))]].concat();
        let why = with("llama4", &keys);
        assert!(why.contains("llama4.attention.sliding_window") && why.contains("chunks of 8192"), "{why}");
    }
    let gating = [("expert_gating_func", Meta::U32(1)), ("shortconv.l_cache", Meta::U32(3))];
    assert!(with("lfm2moe", &[&experts[..], &gating].concat()).contains("lfm2moe.expert_gating_func"));
    let epsilon = [("attention.layer_norm_epsilon", Meta::F32(1e-5)), ("attention.max_alibi_bias", Meta::F32(0.0))];
    assert!(with("mpt", &epsilon).contains("mpt.attention.max_alibi_bias"));
    assert!(with("apertus", &[]).contains("xielu.alpha_p"));
}
