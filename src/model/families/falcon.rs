//! Falcon: layer norms, a plain MLP. The released ones have attention and MLP side by side, and one key and value for all heads, or one
//! for a group of them, which then is stored with its group; those of RefinedWeb alone have them in turn, and scores that fall with
//! distance.

use super::{Family, InGguf, Names, Qkv, Tensors, bloom, in_gguf, rotary};
use crate::model::arch::{Activation, Alibi, Arch, Norm};
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

/// Of those whose attention and MLP come in turn, one key and value for all heads.
static IN_TURN: Tensors = Tensors { qkv: Qkv::InTurn, ..bloom::TENSORS };

/// Of those that come in turn with a key and a value for each head.
static IN_TURN_BY_HEAD: Tensors = Tensors { ..bloom::TENSORS };

/// Of those side by side with a key and a value for each head.
static BY_HEAD: Tensors = Tensors { qkv: Qkv::ByHead, ..ONE_NORM };
const ONE_NORM_IN_GGUF: Tensors =
    Tensors { layer: Names { mlp_norm: "attn_norm", ..in_gguf::FUSED.layer }, ..in_gguf::FUSED };

static TWO_NORMS_IN_GGUF: Tensors = Tensors {
    layer: Names { attn_norm: "attn_norm_2", mlp_norm: "attn_norm", ..in_gguf::FUSED.layer },
    ..in_gguf::FUSED
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let (alibi, shares) = (r.flag("alibi", false)?, r.flag("multi_query", true)?);
    let grouped = r.flag("new_decoder_architecture", false)?;
    let parallel = r.flag("parallel_attn", true)?;
    if grouped {
        r.require("parallel_attn", &json!(true))?;
    }
    if alibi {
        // Nothing is rotated.
        r.pass_over(&["rope_parameters", "rope_theta", "rope_scaling"]);
    }
    let one = r.opt_size("num_ln_in_parallel_attn")?.map_or(!grouped, |n| n == 1);
    let n_heads = r.first_size(&["num_attention_heads", "n_head"])?;
    let shared = r.opt_size("num_kv_heads")?.or(r.opt_size("n_head_kv")?);
    let d_model = r.size("hidden_size")?;
    let sizes = rotary::Sizes {
        d_model,
        n_layers: r.first_size(&["num_hidden_layers", "n_layer"])?,
        n_heads,
        n_kv_heads: match (grouped, shares) {
            (true, _) => shared.unwrap_or(n_heads),
            (false, true) => 1,
            (false, false) => n_heads,
        },
        d_head: r.divide("hidden_size", d_model, n_heads)?,
        d_mlp: r.opt_size("ffn_hidden_size")?.unwrap_or(d_model.saturating_mul(4)),
        vocab: r.size("vocab_size")?,
        n_ctx: r.opt_size("max_position_embeddings")?.unwrap_or(2048),
    };
    let bias = r.flag("bias", false)?;
    let own = rotary::Own {
        norm: Norm::layer(1e-5),
        eps: "layer_norm_epsilon",
        parallel,
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: bias,
        gated: false,
        activation: if r.opt_text("activation")?.is_some() { ("activation", "gelu") } else { ("", "gelu") },
        tied: true,
        ropes: if alibi { |_, _, _| Ok(Vec::new()) } else { rotary::LLAMA.ropes },
        ..rotary::LLAMA
    };
    let mut arch = rotary::of_sizes(r, &own, &sizes)?;
    // The reference's plain attention counts slopes twice; its others, and the model as it was released, count them once.
    arch.each_attention(|_, attention| attention.alibi = alibi.then_some(Alibi { most: 8.0, rounded: true }));
    let stored = match (grouped, parallel, shares) {
        (true, ..) => Some(if one { &GROUPS } else { &TWO_NORMS }),
        (false, true, true) => None,
        (false, true, false) => Some(&BY_HEAD),
        (false, false, true) => Some(&IN_TURN),
        (false, false, false) => Some(&IN_TURN_BY_HEAD),
    };
    Ok(Arch { stored, ..arch })
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let own = in_gguf::Own { parallel: true, activation: Activation::Gelu, width_of_tensor: true, ..in_gguf::PLAIN };
    let stored = k.has("blk.0.attn_norm_2.weight").then_some(&TWO_NORMS_IN_GGUF);
    Ok(Arch { stored, ..in_gguf::described(k, &own)? })
}
