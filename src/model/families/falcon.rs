//! Falcon: attention and a plain MLP side by side, layer norms, one key and value for all heads, or one for a group of them, which
//! then is stored with its group.

use super::{Family, InGguf, Names, Qkv, Tensors, bloom, in_gguf, rotary};
use crate::model::arch::{Activation, Arch, Norm};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use serde_json::json;

pub(super) static FALCON: Family = Family {
    gguf: Some(InGguf { architecture: "falcon", describe: describe_gguf, tensors: ONE_NORM_IN_GGUF }),
    ..Family::new("falcon", describe, ONE_NORM)
};

/// Of the models whose attention and MLP read the same norm.
const ONE_NORM: Tensors = Tensors {
    layer: Names { mlp_norm: "input_layernorm", ..bloom::TENSORS.layer },
    qkv: Qkv::InTurn,
    ..bloom::TENSORS
};

/// Of those with a norm for each.
static TWO_NORMS: Tensors = Tensors {
    layer: Names { attn_norm: "ln_attn", mlp_norm: "ln_mlp", ..bloom::TENSORS.layer },
    qkv: Qkv::ByGroup,
    ..bloom::TENSORS
};

/// Of the newer ones with one norm.
static GROUPS: Tensors = Tensors { qkv: Qkv::ByGroup, ..ONE_NORM };

const ONE_NORM_IN_GGUF: Tensors =
    Tensors { layer: Names { mlp_norm: "attn_norm", ..in_gguf::FUSED.layer }, ..in_gguf::FUSED };

static TWO_NORMS_IN_GGUF: Tensors = Tensors {
    layer: Names { attn_norm: "attn_norm_2", mlp_norm: "attn_norm", ..in_gguf::FUSED.layer },
    ..in_gguf::FUSED
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // The reference counts its slopes twice, rounds them to bfloat16, and divides them with the scores.
    r.require("alibi", &json!(false))?;
    r.require("multi_query", &json!(true))?;
    let grouped = r.flag("new_decoder_architecture", false)?;
    r.require("parallel_attn", &json!(true))?;
    let one = r.opt_size("num_ln_in_parallel_attn")?.map_or(!grouped, |n| n == 1);
    let n_heads = r.first_size(&["num_attention_heads", "n_head"])?;
    let shared = r.opt_size("num_kv_heads")?.or(r.opt_size("n_head_kv")?);
    let d_model = r.size("hidden_size")?;
    let sizes = rotary::Sizes {
        d_model,
        n_layers: r.first_size(&["num_hidden_layers", "n_layer"])?,
        n_heads,
        n_kv_heads: if grouped { shared.unwrap_or(n_heads) } else { 1 },
        d_head: r.divide("hidden_size", d_model, n_heads)?,
        d_mlp: r.opt_size("ffn_hidden_size")?.unwrap_or(d_model.saturating_mul(4)),
        vocab: r.size("vocab_size")?,
        n_ctx: r.opt_size("max_position_embeddings")?.unwrap_or(2048),
    };
    let bias = r.flag("bias", false)?;
    let own = rotary::Own {
        norm: Norm::layer(1e-5),
        eps: "layer_norm_epsilon",
        parallel: true,
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: bias,
        gated: false,
        activation: if r.opt_text("activation")?.is_some() { ("activation", "gelu") } else { ("", "gelu") },
        tied: true,
        ..rotary::LLAMA
    };
    let arch = rotary::of_sizes(r, &own, &sizes)?;
    let stored = match (grouped, one) {
        (false, _) => None,
        (true, true) => Some(&GROUPS),
        (true, false) => Some(&TWO_NORMS),
    };
    Ok(Arch { stored, ..arch })
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let own = in_gguf::Own { parallel: true, activation: Activation::Gelu, width_of_tensor: true, ..in_gguf::PLAIN };
    let stored = k.has("blk.0.attn_norm_2.weight").then_some(&TWO_NORMS_IN_GGUF);
    Ok(Arch { stored, ..in_gguf::described(k, &own)? })
}
