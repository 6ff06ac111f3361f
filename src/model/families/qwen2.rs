//! Qwen 2 and 2.5: Llama with biases of queries, keys and values, and a window in the later layers where it is switched on.

use super::{Family, InGguf, in_gguf, llama, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use serde_json::json;

pub(super) static QWEN2: Family = Family {
    text_parts: &["qwen2_vl_text", "qwen2_5_vl_text"],
    sizes: &SIZES,
    gguf: Some(InGguf {
        architecture: "qwen2",
        describe: |k| in_gguf::described(k, &in_gguf::LLAMA),
        tensors: in_gguf::TENSORS,
    }),
    ..Family::new("qwen2", describe, llama::TENSORS)
};

/// Those of Qwen 3 too.
pub(super) const SIZES: [(&str, usize); 7] = [
    ("vocab_size", 151_936),
    ("hidden_size", 4096),
    ("intermediate_size", 22_016),
    ("num_hidden_layers", 32),
    ("num_attention_heads", 32),
    ("num_key_value_heads", 32),
    ("max_position_embeddings", 32_768),
];

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.require("use_mrope", &json!(false))?;
    rotary::described(r, &rotary::Own { qkv_bias: true, windows: windows(r)?, ..rotary::LLAMA })
}

/// The windows of Qwen 2 and 3.
pub(super) fn windows(r: &Reader) -> Result<Windows, ConfigError> {
    let used = r.flag("use_sliding_window", false)?;
    Ok(Windows { used, default: Some(4096), slides: Slides::From(28) })
}
