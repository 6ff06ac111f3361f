//! Phi 3 and 4: Llama with a window in every layer where one is given. Queries, keys and values are stored in one, and so are
//! gate and up.

use super::{Family, InGguf, Names, Qkv, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader, Slides, Sliding, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::AttentionWeights;
use serde_json::json;

pub(super) static PHI3: Family = Family {
    gguf: Some(InGguf { architecture: "phi3", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("phi3", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights {
            q: "self_attn.qkv_proj",
            k: Some("self_attn.qkv_proj"),
            v: Some("self_attn.qkv_proj"),
            ..llama::TENSORS.layer.attention
        },
        mlp: MlpWeights { gate: Some("mlp.gate_up_proj"), up: "mlp.gate_up_proj", ..llama::TENSORS.layer.mlp },
        ..llama::TENSORS.layer
    },
    qkv: Qkv::InTurn,
    ..llama::TENSORS
};

const IN_GGUF: Tensors = Tensors { layer: Names { mlp: in_gguf::GATE_UP, ..in_gguf::FUSED.layer }, ..in_gguf::FUSED };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // Written into the released Phi-4-mini, read by nothing.
    r.require("full_attn_mod", &json!(1))?;
    r.require("interpolate_factor", &json!(1))?;
    let windows = Windows { used: true, default: None, slides: Slides::All };
    rotary::described(r, &rotary::Own { norm: Norm::rms(1e-5), windows, ..rotary::LLAMA })
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let own = in_gguf::Own { windows: windows_in_gguf, ropes: in_gguf::long_ropes, ..in_gguf::LLAMA };
    in_gguf::described(k, &own)
}

/// All layers slide, if any does.
pub(super) fn windows_in_gguf(k: &Keys, n: usize, _: usize) -> Result<Sliding, GgufConfigError> {
    Ok(Sliding { window: k.window()?, layers: vec![true; n] })
}
