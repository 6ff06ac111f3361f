//! Llama 4: attention within chunks in three of four layers, which alone rotate, queries that grow with their position in the
//! others, several experts in some layers, of which one is chosen and weighs what it reads, beside one that all rows go through.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Channel, Experts, Gain, Growth, Mlp, Norm, NormOver, QkNorm, Router, Scores, Shared};
use crate::model::channel::{ExpertNames, MlpWeights, StoredExperts};
use crate::model::config::{ConfigError, Reader, Slides, Sliding, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};
use serde_json::Value;

pub(super) static LLAMA4_TEXT: Family = Family {
    wrappers: &["llama4"],
    gguf: Some(InGguf { architecture: "llama4", describe: describe_gguf, tensors: in_gguf::INTERLEAVED }),
    ..Family::new("llama4_text", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        mlp: MlpWeights {
            gate: Some("feed_forward.gate_proj"),
            up: "feed_forward.up_proj",
            down: "feed_forward.down_proj",
            xielu: None,
        },
        experts: ExpertNames {
            router: "feed_forward.router",
            stored: StoredExperts::Turned {
                gate_up: "feed_forward.experts.gate_up_proj",
                down: "feed_forward.experts.down_proj",
                interleaved: false,
            },
            shared: MlpWeights {
                gate: Some("feed_forward.shared_expert.gate_proj"),
                up: "feed_forward.shared_expert.up_proj",
                down: "feed_forward.shared_expert.down_proj",
                xielu: None,
            },
            ..llama::EXPERTS
        },
        ..llama::TENSORS.layer
    },
    interleaved: true,
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(&["router_jitter_noise", "for_llm_compressor"]);
    let bias = r.flag("attention_bias", false)?;
    let plain = Norm { gain: Gain::One, ..Norm::rms(1e-5) };
    let own = rotary::Own {
        norm: Norm::rms(1e-5),
        qkv_bias: bias,
        out_bias: bias,
        windows: Windows { used: false, default: None, slides: Slides::None },
        ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 500_000.0, 1.0)?]),
        ..rotary::LLAMA
    };
    let mut arch = rotary::described(r, &own)?;
    let (rotated, chunk) = (rotary::rotated_layers(r, arch.n_layers)?, r.opt_size("attention_chunk_size")?);
    let growth = match r.flag("attn_temperature_tuning", true)? {
        true => Some(Growth {
            beta: r.or_default("attn_scale", 0.1)?,
            original: r.or_default("floor_scale", 8192.0)?,
            shift: 1.0,
        }),
        false => None,
    };
    let normed = r.flag("use_qk_norm", true)?;
    let of = Norm { eps: arch.norm.eps, ..plain };
    arch.each_attention(|l, attention| match rotated[l] {
        true => {
            attention.heads.chunk = chunk;
            attention.qk_norm = normed.then_some(QkNorm { of, over: NormOver::Head, rotated: true });
        }
        false => (attention.rope, attention.growth) = (None, growth),
    });
    mixed(r, arch)
}

/// The model with its experts: where there are none, MLPs are wider.
fn mixed(r: &Reader, mut arch: Arch) -> Result<Arch, ConfigError> {
    let (width, dense) = (arch.d_mlp, r.size("intermediate_size_mlp")?);
    let experts = rotary::experts(r, r.size("num_local_experts")?, r.size("num_experts_per_tok")?, width)?;
    let router = Router { scores: Scores::Sigmoid, ..experts.router };
    let shared = Some(Shared { mlp: Mlp { width, ..experts.mlp }, gated: false });
    let every = r.opt_size("interleave_moe_layer_step")?.unwrap_or(1).max(1);
    let named = r.take("moe_layers").and_then(Value::as_array);
    let sparse = |l: usize| match named {
        Some(list) => list.iter().any(|layer| layer.as_u64() == Some(l as u64)),
        None => (l + 1).is_multiple_of(every),
    };
    for layer in &mut arch.layers {
        if let Channel::Mlp(mlp) = &mut layer.channel {
            mlp.width = dense;
        }
    }
    Ok(rotary::with_experts(arch, Experts { router, shared, weighs_input: true, ..experts }, sparse))
}

/// Files do not say how wide chunks are, which layers rotate and how queries grow: those of the released models are meant, as
/// llama.cpp takes it.
fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    const CHUNK: usize = 8192;
    const WINDOW: &str = "attention.sliding_window";
    if k.opt_size(WINDOW)?.is_some_and(|n| n != CHUNK) {
        return Err(k.bad(WINDOW, format!("gatelens implements only chunks of {CHUNK} for this architecture")));
    }
    k.pass_over(&["interleave_moe_layer_step"]);
    let own = in_gguf::Own {
        windows: |_, n, _| Ok(Sliding { window: None, layers: vec![false; n] }),
        ropes: |k, d_head, n_ctx| Ok(vec![k.rope(d_head, n_ctx, 500_000.0)?]),
        ..in_gguf::LLAMA
    };
    let mut arch = in_gguf::described(k, &own)?;
    // Of Maverick's 128 experts and of Scout's 16, which alone norms queries and keys.
    let of = Norm { gain: Gain::One, ..arch.norm };
    let qk_norm = (k.size("expert_count")? != 128).then_some(QkNorm { of, over: NormOver::Head, rotated: true });
    arch.each_attention(|l, attention| match (l + 1).is_multiple_of(4) {
        true => {
            let growth = Growth { beta: 0.1, original: 8192.0, shift: 1.0 };
            (attention.rope, attention.growth) = (None, Some(growth));
        }
        false => (attention.heads.chunk, attention.qk_norm) = (Some(CHUNK), qk_norm),
    });
    in_gguf::with_experts(k, arch, |experts| Experts {
        router: Router { scores: Scores::Sigmoid, ..experts.router },
        weighs_input: true,
        ..experts
    })
}
