//! Gemma 2: norms before and after, their weights stored less 1, a scaled embedding, soft-caps, a window in every second layer.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Activation, Arch, Gain, Norm, NormPlacement};
use crate::model::config::{Cap, ConfigError, Reader, Slides, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};
use serde_json::json;

pub(super) static GEMMA2: Family = Family {
    gguf: Some(InGguf { architecture: "gemma2", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("gemma2", describe, TENSORS)
};

/// Those of Gemma 3 too.
pub(super) const TENSORS: Tensors = Tensors {
    layer: Names {
        attn_post_norm: "post_attention_layernorm",
        mlp_norm: "pre_feedforward_layernorm",
        mlp_post_norm: "post_feedforward_layernorm",
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = rotary::Own {
        softcaps: [Cap::Or(50.0), Cap::Or(30.0)],
        windows: Windows { slides: Slides::EverySecond, ..WINDOWS },
        ..gemma(r)?
    };
    rotary::described(r, &own)
}

/// Norms whose weights are stored less 1.
pub(super) const LESS_ONE: Norm = Norm { gain: Gain::LessOne, ..Norm::rms(1e-6) };

pub(super) const WINDOWS: Windows = Windows { used: true, default: Some(4096), slides: Slides::All };

/// What Gemma 2 and 3 have in common.
pub(super) fn gemma(r: &Reader) -> Result<rotary::Own, ConfigError> {
    r.require("use_bidirectional_attention", &json!(false))?;
    let bias = r.flag("attention_bias", false)?;
    // Gemma's first configurations say `hidden_act: gelu` and mean the tanh form; the reference does not read it.
    r.take("hidden_act");
    Ok(rotary::Own {
        d_head: Some(256),
        norm: LESS_ONE,
        placement: NormPlacement::Both,
        qkv_bias: bias,
        out_bias: bias,
        activation: ("hidden_activation", "gelu_pytorch_tanh"),
        query_scalar: Some(256.0),
        scaled_embedding: true,
        tied: true,
        ..rotary::LLAMA
    })
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    // The 27B divides scores by the root of d_model / n_heads, all others by that of the head's size.
    let largest = k.size("block_count")? == 46;
    let own = in_gguf::Own {
        placement: NormPlacement::Both,
        activation: Activation::GeluTanh,
        query_scalar: largest.then_some(k.size("embedding_length")? as f64 / k.size("attention.head_count")? as f64),
        windows: |k, n, _| k.windows(n, 2, "Gemma 2's local layers"),
        scaled_embedding: true,
        ..in_gguf::LLAMA
    };
    in_gguf::capped(k, in_gguf::described(k, &own)?)
}
