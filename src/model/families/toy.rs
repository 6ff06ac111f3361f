//! Toy, the exercise of CONTRIBUTING.md: Llama with a window in every second layer, and names of its own.

use super::{Family, Names, Tensors, llama, rotary};
use crate::model::arch::Arch;
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use serde_json::json;

pub(super) static TOY: Family = Family::new("toy", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    prefix: "toy.",
    embed: "tokens",
    layers: "blocks.",
    layer: Names {
        attn_norm: "norm_1",
        mlp_norm: "norm_2",
        mlp: MlpWeights { gate: Some("mlp.gate"), up: "mlp.up", down: "mlp.down", xielu: None },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // What the decoder does not do is refused.
    r.require("noise", &json!(0))?;
    let own = rotary::Own {
        activation: ("activation", "silu"),
        windows: Windows { used: true, default: Some(8), slides: Slides::EverySecond },
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}
