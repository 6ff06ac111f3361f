//! GPT-OSS: several experts in every layer, whose gates and ups are stored in turn and cut off, heads with sinks, windows in every
//! second layer, biases everywhere.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Activation, Arch, Experts, Mlp, Norm, Router, Scores};
use crate::model::channel::{ExpertNames, StoredExperts};
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::AttentionWeights;
use crate::model::rope::Scaling;

pub(super) static GPT_OSS: Family = Family {
    gguf: Some(InGguf { architecture: "gpt-oss", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("gpt_oss", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights { sinks: Some("self_attn.sinks"), ..llama::TENSORS.layer.attention },
        experts: ExpertNames {
            router: "mlp.router",
            stored: StoredExperts::Turned {
                gate_up: "mlp.experts.gate_up_proj",
                down: "mlp.experts.down_proj",
                interleaved: true,
            },
            ..llama::EXPERTS
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

const IN_GGUF: Tensors =
    Tensors { layer: Names { mlp_norm: "post_attention_norm", ..in_gguf::TENSORS.layer }, ..in_gguf::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", true)?;
    r.pass_over(&["experts_per_token", "initial_context_length"]);
    let own = rotary::Own {
        d_head: Some(64),
        norm: Norm::rms(1e-5),
        qkv_bias: bias,
        out_bias: bias,
        windows: Windows { used: true, default: Some(128), slides: Slides::EverySecond },
        ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 150_000.0, 1.0)?]),
        ..rotary::LLAMA
    };
    let mut arch = rotary::described(r, &own)?;
    arch.each_attention(|_, attention| attention.sinks = true);
    let number = |key, default| Ok::<f32, ConfigError>(r.opt_number(key)?.unwrap_or(default) as f32);
    let activation =
        Activation::ClampedSwish { limit: number("swiglu_limit", 7.0)?, alpha: number("swiglu_alpha", 1.702)? };
    let experts = rotary::experts(r, r.size("num_local_experts")?, r.size("num_experts_per_tok")?, arch.d_mlp)?;
    let router = Router { scores: Scores::SoftmaxOfChosen, bias: true, ..experts.router };
    let mlp = Mlp { activation, bias: true, ..experts.mlp };
    Ok(rotary::with_experts(arch, Experts { mlp, router, ..experts }, |_| true))
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let windows = |k: &Keys, n: usize, _: usize| k.windows(n, 2, "GPT-OSS' local layers");
    let ropes = |k: &Keys, d_head: usize, n_ctx: usize| {
        let mut rope = k.rope(d_head, n_ctx, 150_000.0)?;
        // Files do not say so, and the released models' configurations do.
        if let Scaling::Yarn { truncate, .. } = &mut rope.scaling {
            *truncate = false;
        }
        Ok(vec![rope])
    };
    let mut arch = in_gguf::described(k, &in_gguf::Own { windows, ropes, ..in_gguf::LLAMA })?;
    arch.each_attention(|_, attention| attention.sinks = true);
    let activation = Activation::ClampedSwish { limit: 7.0, alpha: 1.702 };
    in_gguf::with_experts(k, arch, |experts| Experts {
        mlp: Mlp { activation, ..experts.mlp },
        router: Router { scores: Scores::SoftmaxOfChosen, ..experts.router },
        ..experts
    })
}
