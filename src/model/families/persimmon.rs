//! Persimmon: layer norms, of each head's query and key too, biases everywhere, a plain MLP of squared ReLUs, half of each head
//! rotated. Queries, keys and values are stored in one, head by head.

use super::{Family, Names, Qkv, Tensors, llama, rotary};
use crate::model::arch::{Arch, Norm, NormOver, QkNorm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::mixer::AttentionWeights;

pub(super) static PERSIMMON: Family = Family::new("persimmon", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    final_norm: "final_layernorm",
    layer: Names {
        attention: AttentionWeights {
            q: "self_attn.query_key_value",
            k: Some("self_attn.query_key_value"),
            v: Some("self_attn.query_key_value"),
            q_norm: Some("self_attn.q_layernorm"),
            k_norm: Some("self_attn.k_layernorm"),
            sinks: None,
            gate: None,
            latent: None,
            difference: None,
            o: "self_attn.dense",
        },
        mlp: MlpWeights { gate: None, up: "mlp.dense_h_to_4h", down: "mlp.dense_4h_to_h", xielu: None },
        ..llama::TENSORS.layer
    },
    qkv: Qkv::ByHead,
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let normed = r.flag("qk_layernorm", true)?;
    let own = rotary::Own {
        norm: Norm::layer(1e-5),
        eps: "layer_norm_eps",
        qk_norm: normed.then_some(QkNorm { of: Norm::layer(1e-5), over: NormOver::Head, rotated: false }),
        qkv_bias: true,
        out_bias: true,
        mlp_bias: true,
        gated: false,
        activation: ("hidden_act", "relu2"),
        ropes: rotary::partial,
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}
