//! Gemma 3: Gemma 2 with a norm of each head's query and key, no soft-caps, and five layers with a window and a rotation of their
//! own to one without.

use super::gemma2::{self, LESS_ONE, WINDOWS, gemma};
use super::{Family, InGguf, in_gguf, rotary};
use crate::model::arch::{Activation, Arch, NormOver, NormPlacement, QkNorm};
use crate::model::config::{Cap, ConfigError, Reader, Slides, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static GEMMA3: Family = Family {
    wrappers: &["gemma3"],
    sizes: &[
        ("vocab_size", 262_208),
        ("hidden_size", 2304),
        ("intermediate_size", 9216),
        ("num_hidden_layers", 26),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("max_position_embeddings", 131_072),
    ],
    gguf: Some(InGguf { architecture: "gemma3", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("gemma3_text", describe, gemma2::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = rotary::Own {
        qk_norm: Some(QkNorm { of: LESS_ONE, over: NormOver::Head, rotated: false }),
        softcaps: [Cap::Given, Cap::Given],
        windows: Windows { slides: Slides::AllButEvery(6), ..WINDOWS },
        ropes: |r, d_head, n_ctx| r.global_and_local_ropes(d_head, n_ctx, [1e6, 1e4]),
        ..gemma(r)?
    };
    rotary::described(r, &own)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    // The 27B divides scores by the root of d_model / n_heads, all others by that of the head's size.
    let largest = k.size("block_count")? == 62;
    let scalar = k.size("embedding_length")? as f64 / k.size("attention.head_count")? as f64;
    let own = in_gguf::Own {
        placement: NormPlacement::Both,
        activation: Activation::GeluTanh,
        query_scalar: largest.then_some(scalar),
        windows: |k, n, _| k.windows(n, 6, "Gemma 3's local layers"),
        ropes: |k, d_head, n_ctx| Ok(vec![k.rope(d_head, n_ctx, 1e6)?, k.local_rope(d_head, 1e4)?]),
        scaled_embedding: true,
        ..in_gguf::LLAMA
    };
    in_gguf::described(k, &own)
}
