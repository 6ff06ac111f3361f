//! DeepSeek V3 and R1: latent attention, several experts after the first layers, chosen by groups and by a bias of the choice alone,
//! beside one that all rows go through.

use super::{Family, InGguf, Names, Tensors, deepseek_v2, glm4_moe, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Heads, Latent, Norm};
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::{AttentionWeights, LatentWeights};
use crate::model::rope::{Scaling, yarn_mscale};
use crate::model::weights::form::Named;
use serde_json::json;

pub(super) static DEEPSEEK_V3: Family = Family {
    gguf: Some(InGguf { architecture: "deepseek2", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("deepseek_v3", describe, TENSORS)
};

pub(super) const TENSORS: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights {
            k: Some("self_attn.kv_b_proj"),
            v: Some("self_attn.kv_b_proj"),
            latent: Some(LATENT),
            ..llama::TENSORS.layer.attention
        },
        ..llama::TENSORS.layer
    },
    interleaved: true,
    ..llama::TENSORS
};

/// The names of what latent attention is made of.
pub(super) const LATENT: LatentWeights<Named> = LatentWeights {
    q_up: Some("self_attn.q_b_proj"),
    q: Some("self_attn.q_a_proj"),
    q_norm: Some("self_attn.q_a_layernorm"),
    kv: Some("self_attn.kv_a_proj_with_mqa"),
    kv_norm: Some("self_attn.kv_a_layernorm"),
    k_rotary: None,
    index: None,
};

pub(super) const IN_GGUF: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights { k: Some("attn_k_b"), v: Some("attn_v_b"), ..in_gguf::TENSORS.layer.attention },
        ..in_gguf::TENSORS.layer
    },
    ..in_gguf::INTERLEAVED
};

/// Of older files, which have the matrices of keys and values in one, as folders do.
static JOINED: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights { k: Some("attn_kv_b"), v: Some("attn_kv_b"), ..in_gguf::TENSORS.layer.attention },
        ..in_gguf::TENSORS.layer
    },
    ..in_gguf::INTERLEAVED
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.require("scoring_func", &json!("sigmoid"))?;
    r.require("rope_interleave", &json!(true))?;
    r.pass_over(&["topk_method", "seq_aux", "aux_loss_alpha"]);
    let arch = latent(r, true)?;
    glm4_moe::by_groups(r, arch, r.size("n_routed_experts")?)
}

/// A model of these keys with latent attention and an MLP in every layer.
pub(super) fn latent(r: &Reader, stretched: bool) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: Norm::rms(1e-6),
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: r.flag("mlp_bias", false)?,
        windows: Windows { used: false, default: None, slides: Slides::None },
        ..rotary::LLAMA
    };
    let (rotary, still) = (r.size("qk_rope_head_dim")?, r.size("qk_nope_head_dim")?);
    let (d_model, n_heads) = (r.size("hidden_size")?, r.size("num_attention_heads")?);
    // What these say follows from the others.
    r.pass_over(&["head_dim", "qk_head_dim", "num_key_value_heads"]);
    let sizes = rotary::Sizes {
        d_model,
        n_layers: r.size("num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        // Of rotations, this is a head.
        d_head: rotary,
        d_mlp: r.size("intermediate_size")?,
        vocab: r.size("vocab_size")?,
        n_ctx: r.first_size(&["max_position_embeddings", "model_max_length"])?,
    };
    let mut arch = rotary::of_sizes(r, &own, &sizes)?;
    let latent =
        Latent { queries: r.opt_size("q_lora_rank")?, keys_values: r.size("kv_lora_rank")?, rotary, index: None };
    let (d_head, d_value) = (rotary.saturating_add(still), Some(r.size("v_head_dim")?));
    // Stretched contexts sharpen scores twice, for queries and for keys.
    let sharper = match (arch.ropes.first().map(|rope| &rope.scaling), r.in_rope("mscale_all_dim")?) {
        (Some(Scaling::Yarn { factor, .. }), Some(all)) if stretched && all != 0.0 => yarn_mscale(*factor, all).powi(2),
        _ => 1.0,
    };
    let scale = (d_head as f64).powf(-0.5) * sharper;
    arch.each_attention(|_, attention| {
        attention.latent = Some(latent);
        attention.heads = Heads { d_head, d_value, scale, ..attention.heads };
    });
    Ok(Arch { d_head, ..arch })
}

/// Of DeepSeek V2 too, which is told by how its experts are chosen.
pub(super) fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let (d_model, n_heads) = (k.d_model()?, k.size("attention.head_count")?);
    let n_layers = k.layers(n_heads)?;
    let rotary = k.size("rope.dimension_count")?;
    // Newer files have the sizes of the narrow way under the usual keys; older ones have one KV head for each.
    let or = |key: &str, older: &str| k.opt_size(key)?.map_or_else(|| k.size(older), Ok);
    let d_head = or("attention.key_length_mla", "attention.key_length")?;
    let d_value = Some(or("attention.value_length_mla", "attention.value_length")?);
    let heads = Heads { n_heads, n_kv_heads: n_heads, d_head, d_value, ..Heads::default() };
    let mut arch = in_gguf::of_heads(k, &in_gguf::LLAMA, d_model, heads)?;
    let keys_values = k.size("attention.kv_lora_rank")?;
    let queries = k.opt_size("attention.q_lora_rank")?.filter(|n| *n > 0);
    let sharper = sharpened(k, &mut arch)?;
    arch.each_attention(|_, attention| {
        attention.latent = Some(Latent { queries, keys_values, rotary, index: None });
        attention.heads.scale *= sharper;
    });
    k.pass_over(&["attention.head_count_kv", "attention.key_length", "attention.value_length"]);
    let gating = k.opt_size("expert_gating_func")?.filter(|kind| *kind > 0);
    let biased = k.first_with(n_layers, "exp_probs_b.bias").is_some();
    let sigmoids = gating.map_or(biased, |kind| kind == 2);
    let arch = glm4_moe::by_groups_in_gguf(k, arch, sigmoids)?;
    let stored = k.has("blk.0.attn_kv_b.weight").then_some(&JOINED);
    let family = if sigmoids { &DEEPSEEK_V3 } else { &deepseek_v2::DEEPSEEK_V2 };
    Ok(Arch { family, stored, ..arch })
}

/// By how much stretched contexts sharpen scores, for queries and for keys; the rotation then leaves their size as it is.
fn sharpened(k: &Keys, arch: &mut Arch) -> Result<f64, GgufConfigError> {
    let Some(logarithms) = k.factor_if_any("rope.scaling.yarn_log_multiplier")? else { return Ok(1.0) };
    match arch.ropes.first_mut().map(|rope| &mut rope.scaling) {
        Some(Scaling::Yarn { factor, attention_factor, .. }) => {
            *attention_factor = 1.0;
            // The key has a tenth of the configuration's `mscale_all_dim`.
            Ok(yarn_mscale(*factor, 10.0 * logarithms).powi(2))
        }
        _ => Ok(1.0),
    }
}
