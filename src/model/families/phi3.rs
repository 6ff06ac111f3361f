//! Phi 3 and 4: Llama with a window in every layer where one is given. Queries, keys and values are stored in one, and so are
//! gate and up.

use super::{Family, Names, Qkv, Tensors, llama, rotary};
use crate::model::arch::{Arch, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::mixer::AttentionWeights;
use serde_json::json;

pub(super) static PHI3: Family = Family::new("phi3", describe, TENSORS);

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

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // Written into the released Phi-4-mini, read by nothing.
    r.require("full_attn_mod", &json!(1))?;
    r.require("interpolate_factor", &json!(1))?;
    let windows = Windows { used: true, default: None, slides: Slides::All };
    rotary::described(r, &rotary::Own { norm: Norm::rms(1e-5), windows, ..rotary::LLAMA })
}
