//! Gemma 2: norms before and after, their weights stored less 1, a scaled embedding, soft-caps, a window in every second layer.

use super::{Family, Names, Tensors, llama, rotary};
use crate::model::arch::{Arch, Gain, Norm, NormPlacement};
use crate::model::config::{Cap, ConfigError, Reader, Slides, Windows};
use serde_json::json;

pub(super) static GEMMA2: Family = Family::new("gemma2", describe, TENSORS);

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
