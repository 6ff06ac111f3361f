//! Seed-OSS: Llama with biases of queries, keys and values.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader};
use serde_json::json;

pub(super) static SEED_OSS: Family = Family {
    gguf: Some(InGguf {
        architecture: "seed_oss",
        describe: |k| in_gguf::described(k, &in_gguf::LLAMA),
        tensors: IN_GGUF,
    }),
    ..Family::new("seed_oss", describe, llama::TENSORS)
};

const IN_GGUF: Tensors =
    Tensors { layer: Names { mlp_norm: "post_attention_norm", ..in_gguf::TENSORS.layer }, ..in_gguf::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // Of training.
    r.take("residual_dropout");
    r.require("use_sliding_window", &json!(false))?;
    let own = rotary::Own {
        qkv_bias: r.flag("attention_bias", true)?,
        out_bias: r.flag("attention_out_bias", false)?,
        mlp_bias: r.flag("mlp_bias", false)?,
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}
