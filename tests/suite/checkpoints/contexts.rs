//! How long a prompt may be, and what depends on a layer's depth.

use super::*;
use gatelens::plan::{Activation, Change, Edit, Gradient, Metric, Part, Plan, Positions, What};
use gatelens::run::{self, Engine, run};
use gatelens::site::SiteKind;

/// The context of the llama fixture, of 128 positions, with a rotation.
fn context(rotation: &Value, more: &[(&str, Value)]) -> usize {
    let model = Folder::of("llama").config(|c| {
        c.remove("rope_parameters");
        c.insert("rope_theta".to_string(), json!(1e4));
        c.insert("rope_scaling".to_string(), rotation.clone());
        c.extend(more.iter().map(|(key, value)| ((*key).to_string(), value.clone())));
    });
    open(model.path()).decoder.arch.n_ctx
}

#[test]
fn a_stretched_rotation_takes_prompts_as_long_as_it_stretches_to() {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let longer = [("max_position_embeddings", json!(512))];
    for kind in ["yarn", "linear"] {
        let alone = json!({ "type": kind, "factor": 4.0 });
        let with = |original: u64| json!({ "rope_type": kind, "factor": 4.0, ORIGINAL: original });
        assert_eq!(context(&alone, &[]), 512, "{kind}");
        assert_eq!(context(&with(128), &[]), 512, "{kind}: as Qwen's model cards have it");
        assert_eq!(context(&with(128), &longer), 512, "{kind}: as DeepSeek has it");
        assert_eq!(context(&with(16), &[]), 128, "{kind}: never less than the description says");
        assert_eq!(context(&alone, &[(ORIGINAL, json!(64))]), 256, "{kind}: given outside");
    }
    assert_eq!(context(&json!({ "rope_type": "linear", "factor": 2.5 }), &[]), 320);
    assert_eq!(context(&json!({ "rope_type": "dynamic", "factor": 2.0 }), &[]), 256);
    // The context of these is the stretched one.
    let llama3 =
        json!({ "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, ORIGINAL: 64 });
    assert_eq!(context(&llama3, &[]), 128);
    let longrope = json!({ "rope_type": "longrope", "short_factor": [1, 1, 1, 1, 1, 1], "long_factor": [2, 2, 2, 2, 2, 2], "factor": 8.0, ORIGINAL: 64 });
    assert_eq!(context(&longrope, &[]), 128);
    assert_eq!(context(&json!({ "rope_type": "default" }), &[]), 128);
}

#[test]
fn a_prompt_in_the_stretched_part_runs_and_one_beyond_it_does_not() {
    let model = Folder::of("qwen2").config(|c| {
        c.remove("rope_parameters");
        c.insert("max_position_embeddings".to_string(), json!(32));
        c.insert("rope_theta".to_string(), json!(1e4));
        c.insert(
            "rope_scaling".to_string(),
            json!({ "type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32 }),
        );
    });
    let model = open(model.path());
    assert_eq!(model.decoder.arch.n_ctx, 64);
    assert!(logits(&model, &[(3..67).collect()]).iter().all(|x| x.is_finite()));
}

#[test]
fn a_rotation_that_stays_keeps_the_context_of_a_model_with_two() {
    let context = |rotations: Value| {
        let model = Folder::of("gemma3").key("rope_parameters", rotations);
        open(model.path()).decoder.arch.n_ctx
    };
    let given = open(&family_dir("gemma3")).decoder.arch.n_ctx;
    let (linear, plain) = (
        json!({ "rope_type": "linear", "factor": 8.0, "rope_theta": 1e6 }),
        json!({ "rope_type": "default", "rope_theta": 1e4 }),
    );
    assert_eq!(context(json!({ "full_attention": linear, "sliding_attention": plain })), given);
}

/// GPT-2 of which layer `l` divides its scores by `l + 1`.
fn by_depth() -> Folder {
    Folder::of("gpt2").key("scale_attn_by_inverse_layer_idx", json!(true)).key("reorder_and_upcast_attn", json!(true))
}

/// The same model without the key: its queries are divided.
fn divided() -> Folder {
    Folder::of("gpt2").weights(|t| {
        for l in 0..4 {
            for part in ["weight", "bias"] {
                let stored = t.get_mut(&format!("transformer.h.{l}.attn.c_attn.{part}")).expect("a tensor");
                let (width, mut values) = (*stored.shape.last().expect("a width"), stored.values());
                let queries = values.chunks_mut(width).flat_map(|row| row[..width / 3].iter_mut());
                queries.for_each(|q| *q /= (l + 1) as f32);
                *stored = Stored::floats(&stored.shape.clone(), &values);
            }
        }
    })
}

#[test]
fn scores_divided_by_depth_are_as_in_transformers() {
    let found = logits(&open(by_depth().path()), &[vec![5, 9, 17, 33, 71, 120, 2, 8]]);
    let vocab = found.len() / 8;
    let last = [2.545681, -1.567494, -1.124382, -1.952362, -2.500324];
    assert_close("last position", &found[7 * vocab..7 * vocab + 5], &last, 2e-5, 2e-5);
    let fourth = [3.348708, -2.12713, -0.820125, -0.437263];
    assert_close("position 3", &found[3 * vocab + 100..3 * vocab + 104], &fourth, 2e-5, 2e-5);
}

#[test]
fn scores_divided_by_depth_are_those_of_queries_divided_by_depth_whatever_is_asked() {
    let (ids, donor) = (prompts("gpt2"), Golden::of("gpt2").ids("donor_ids", 0));
    let asked = |model: &Model, engine: Engine| -> Vec<f32> {
        let mut plan = Plan::default();
        let [base, other] = [&ids[0], &donor].map(|ids| plan.prompt("p", ids.clone()));
        let metric = || What::Metric(Metric::logit_difference(vec![11], vec![23]));
        for (layer, head) in model.heads() {
            let site = SiteKind::Z.at(layer);
            let (part, change) = (Part::Heads(vec![head]), Change::interchange(other));
            let fork = plan.fork(base, vec![Edit { site, part, positions: Positions::Last, change }]);
            plan.read(fork, metric());
        }
        for kind in [SiteKind::Pattern, SiteKind::Scores] {
            let what = Activation { site: kind.at(3), positions: Positions::Last, part: Part::All };
            plan.read(base, what);
        }
        let (site, positions, part) = (SiteKind::ResidPre.at(1), Positions::All, Part::All);
        plan.read(base, Gradient { metric: Metric::logit_difference(vec![11], vec![23]), site, positions, part });
        let readings = run(&model.decoder, &plan, &run::Options { engine, ..Default::default() }).expect("readings");
        readings.iter().flat_map(|r| r.values()).collect()
    };
    let (by_depth, divided) = (open(by_depth().path()), open(divided().path()));
    for engine in [Engine::Full, Engine::Wavefront] {
        assert_close(&format!("{engine}"), &asked(&by_depth, engine), &asked(&divided, engine), 1e-4, 1e-4);
    }
    let plain = open(&family_dir("gpt2"));
    assert_ne!(logits(&by_depth, &ids), logits(&plain, &ids), "the key changes something");
}
