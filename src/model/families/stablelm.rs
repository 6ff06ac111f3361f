//! StableLM: Llama with layer norms, a quarter of each head rotated, and biases of queries, keys and values in some.

use super::{Family, InGguf, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Norm};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use serde_json::json;

pub(super) static STABLELM: Family = Family {
    gguf: Some(InGguf { architecture: "stablelm", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("stablelm", describe, llama::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // These store a norm's weight for each head in a tensor of its own.
    r.require("qk_layernorm", &json!(false))?;
    r.require("use_parallel_residual", &json!(false))?;
    let own = rotary::Own {
        norm: Norm::layer(1e-5),
        eps: "layer_norm_eps",
        qkv_bias: r.flag("use_qkv_bias", false)?,
        ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 10_000.0, 0.25)?]),
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    in_gguf::described(k, &in_gguf::Own { norm: in_gguf::layer, ..in_gguf::LLAMA })
}
