//! DeepSeek V3.2: V3, but each position sees only the keys that an indexer chooses.

use super::{Family, InGguf, Names, Tensors, deepseek_v3, glm4_moe, in_gguf};
use crate::model::arch::{Arch, Index, Latent};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::{AttentionWeights, IndexWeights, LatentWeights};
use serde_json::json;

pub(super) static DEEPSEEK_V32: Family = Family {
    gguf: Some(InGguf { architecture: "deepseek32", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("deepseek_v32", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights {
            latent: Some(LatentWeights {
                index: Some(IndexWeights {
                    q: "self_attn.indexer.wq_b",
                    k: "self_attn.indexer.wk",
                    k_norm: "self_attn.indexer.k_norm",
                    weights: "self_attn.indexer.weights_proj",
                }),
                ..deepseek_v3::LATENT
            }),
            ..deepseek_v3::TENSORS.layer.attention
        },
        ..deepseek_v3::TENSORS.layer
    },
    ..deepseek_v3::TENSORS
};

const IN_GGUF: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights {
            latent: Some(LatentWeights {
                index: Some(IndexWeights {
                    q: "indexer.attn_q_b",
                    k: "indexer.attn_k",
                    k_norm: "indexer.k_norm",
                    weights: "indexer.proj",
                }),
                ..in_gguf::LATENT
            }),
            ..deepseek_v3::IN_GGUF.layer.attention
        },
        ..deepseek_v3::IN_GGUF.layer
    },
    ..deepseek_v3::IN_GGUF
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.require("scoring_func", &json!("sigmoid"))?;
    r.pass_over(&["topk_method", "seq_aux", "aux_loss_alpha"]);
    let (heads, d_head) = (r.size("index_n_heads")?, r.size("index_head_dim")?);
    let index = Some(Index { heads, d_head, top: r.size("index_topk")? });
    let arch = indexed(deepseek_v3::latent(r, true)?, index);
    glm4_moe::by_groups(r, arch, r.size("n_routed_experts")?)
}

/// The same with this indexer in every layer.
fn indexed(mut arch: Arch, index: Option<Index>) -> Arch {
    arch.each_attention(|_, attention| {
        attention.latent = attention.latent.map(|latent| Latent { index, ..latent });
    });
    arch
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let of = |part: &str| k.size(&format!("attention.indexer.{part}"));
    let index = Some(Index { heads: of("head_count")?, d_head: of("key_length")?, top: of("top_k")? });
    // No file has keys and values in one, as those of DeepSeek V3 may.
    Ok(Arch { family: &DEEPSEEK_V32, stored: None, ..indexed(deepseek_v3::describe_gguf(k)?, index) })
}
