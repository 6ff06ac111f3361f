//! DeepSeek V3.2: V3, but each position sees only the keys that an indexer chooses.

use super::{Family, Names, Tensors, deepseek_v3, glm4_moe};
use crate::model::arch::{Arch, Index, Latent};
use crate::model::config::{ConfigError, Reader};
use crate::model::mixer::{AttentionWeights, IndexWeights, LatentWeights};
use serde_json::json;

pub(super) static DEEPSEEK_V32: Family = Family::new("deepseek_v32", describe, TENSORS);

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

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.require("scoring_func", &json!("sigmoid"))?;
    r.pass_over(&["topk_method", "seq_aux", "aux_loss_alpha"]);
    let (heads, d_head) = (r.size("index_n_heads")?, r.size("index_head_dim")?);
    let index = Some(Index { heads, d_head, top: r.size("index_topk")? });
    let mut arch = deepseek_v3::latent(r, true)?;
    arch.each_attention(|_, attention| {
        attention.latent = attention.latent.map(|latent| Latent { index, ..latent });
    });
    glm4_moe::by_groups(r, arch, r.size("n_routed_experts")?)
}
