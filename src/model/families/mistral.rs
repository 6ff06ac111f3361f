//! Mistral: Llama with a sliding window in every layer.

use super::{Family, llama, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader, Slides, Windows};

pub(super) static MISTRAL: Family = Family {
    wrappers: &["mistral3"],
    sizes: &[
        ("vocab_size", 32_000),
        ("hidden_size", 4096),
        ("intermediate_size", 14_336),
        ("num_hidden_layers", 32),
        ("num_attention_heads", 32),
        ("num_key_value_heads", 8),
        ("max_position_embeddings", 131_072),
    ],
    ..Family::new("mistral", describe, llama::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let windows = Windows { used: true, default: Some(4096), slides: Slides::All };
    rotary::described(r, &rotary::Own { qkv_bias: bias, out_bias: bias, windows, ..rotary::LLAMA })
}
