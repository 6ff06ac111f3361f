//! Seed-OSS: Llama with biases of queries, keys and values.

use super::{Family, llama, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader};
use serde_json::json;

pub(super) static SEED_OSS: Family = Family::new("seed_oss", describe, llama::TENSORS);

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
