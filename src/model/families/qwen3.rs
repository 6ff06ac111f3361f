//! Qwen 3: Qwen 2 with a norm of each head's query and key, heads of their own size, and biases only where they are switched on.

use super::qwen2::{SIZES, windows};
use super::{Family, InGguf, in_gguf, llama, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader};

pub(super) static QWEN3: Family = Family {
    text_parts: &["qwen3_vl_text"],
    sizes: &SIZES,
    gguf: Some(InGguf {
        architecture: "qwen3",
        describe: |k| in_gguf::described(k, &in_gguf::LLAMA),
        tensors: in_gguf::TENSORS,
    }),
    ..Family::new("qwen3", describe, llama::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = own(r)?;
    rotary::described(r, &own)
}

/// What the models with several experts have too.
pub(super) fn own(r: &Reader) -> Result<rotary::Own, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    Ok(rotary::Own {
        d_head: Some(128),
        qk_norm: rotary::BY_HEAD,
        qkv_bias: bias,
        out_bias: bias,
        windows: windows(r)?,
        ..rotary::LLAMA
    })
}
