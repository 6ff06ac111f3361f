//! GPT-NeoX and Pythia: attention and MLP side by side, layer norms, a quarter of each head rotated. Queries, keys and values
//! are stored in one, head by head.

use super::{Family, InGguf, Names, Qkv, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Activation, Arch, Norm};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::AttentionWeights;

pub(super) static GPT_NEOX: Family = Family {
    gguf: Some(InGguf { architecture: "gptneox", describe: describe_gguf, tensors: in_gguf::FUSED }),
    ..Family::new("gpt_neox", describe, TENSORS)
};

pub(super) const TENSORS: Tensors = Tensors {
    prefix: "gpt_neox.",
    embed: "embed_in",
    final_norm: "final_layer_norm",
    // `transformers` 5 saves the unembedding under the name that all others use.
    unembed: &["embed_out", "lm_head"],
    layer: Names {
        attention: AttentionWeights {
            q: "attention.query_key_value",
            k: Some("attention.query_key_value"),
            v: Some("attention.query_key_value"),
            q_norm: None,
            k_norm: None,
            sinks: None,
            gate: None,
            latent: None,
            difference: None,
            o: "attention.dense",
        },
        mlp: MlpWeights { gate: None, up: "mlp.dense_h_to_4h", down: "mlp.dense_4h_to_h", xielu: None },
        ..llama::TENSORS.layer
    },
    qkv: Qkv::ByHead,
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", true)?;
    let own = rotary::Own {
        norm: Norm::layer(1e-5),
        eps: "layer_norm_eps",
        parallel: r.flag("use_parallel_residual", true)?,
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: true,
        gated: false,
        activation: ("hidden_act", "gelu"),
        ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 10_000.0, 0.25)?]),
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let parallel = k.flag("use_parallel_residual", true)?;
    in_gguf::described(k, &in_gguf::Own { parallel, activation: Activation::Gelu, ..in_gguf::PLAIN })
}
