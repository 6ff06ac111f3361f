//! LFM 2: gated short convolutions in place of attention in most layers, a norm of each head's query and key in the others.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Kind, Norm, Recurrent};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::{AttentionWeights, RecurrentNames};
use serde_json::Value;

pub(super) static LFM2: Family = Family {
    gguf: Some(InGguf { architecture: "lfm2", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("lfm2", describe, TENSORS)
};

pub(super) const TENSORS: Tensors = Tensors {
    final_norm: "embedding_norm",
    layer: Names {
        attn_norm: "operator_norm",
        attention: AttentionWeights {
            q_norm: Some("self_attn.q_layernorm"),
            k_norm: Some("self_attn.k_layernorm"),
            o: "self_attn.out_proj",
            ..llama::TENSORS.layer.attention
        },
        mlp_norm: "ffn_norm",
        mlp: MlpWeights { gate: Some("feed_forward.w1"), up: "feed_forward.w3", down: "feed_forward.w2", xielu: None },
        recurrent: RecurrentNames {
            inputs: ["conv.in_proj", "", "", "", "", ""],
            conv: "conv.conv.weight",
            conv_bias: "conv.conv.bias",
            out: "conv.out_proj",
            ..llama::RECURRENT
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

pub(super) const IN_GGUF: Tensors = Tensors {
    // llama.cpp calls the final norm so.
    final_norm: "token_embd_norm",
    layer: Names {
        recurrent: RecurrentNames {
            inputs: ["shortconv.in_proj", "", "", "", "", ""],
            conv: "shortconv.conv.weight",
            conv_bias: "shortconv.conv.bias",
            out: "shortconv.out_proj",
            ..in_gguf::TENSORS.layer.recurrent
        },
        ..in_gguf::TENSORS.layer
    },
    ..in_gguf::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let given = r.first_size(&["intermediate_size", "block_ff_dim"])?;
    described(r, width(r, given)?)
}

/// A model of these keys with MLPs of this width.
pub(super) fn described(r: &Reader, d_mlp: usize) -> Result<Arch, ConfigError> {
    r.pass_over(&[
        "conv_dim",
        "conv_dim_out",
        "conv_use_xavier_init",
        "block_dim",
        "block_use_swiglu",
        "block_norm_eps",
    ]);
    r.pass_over(&["block_mlp_init_scale", "block_out_init_scale", "block_use_xavier_init", "num_heads", "use_pos_enc"]);
    let n_heads = r.size("num_attention_heads")?;
    let d_model = r.size("hidden_size")?;
    let n_layers = r.size("num_hidden_layers")?;
    let sizes = rotary::Sizes {
        d_model,
        n_layers,
        n_heads,
        n_kv_heads: r.kv_heads(n_heads)?,
        d_head: r.divide("hidden_size", d_model, n_heads)?,
        d_mlp,
        vocab: r.size("vocab_size")?,
        n_ctx: r.size("max_position_embeddings")?,
    };
    let own = rotary::Own {
        norm: Norm::rms(1e-5),
        eps: "norm_eps",
        qk_norm: rotary::BY_HEAD,
        activation: ("", "silu"),
        windows: Windows { used: false, default: None, slides: Slides::None },
        ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 1e6, 1.0)?]),
        tied: true,
        ..rotary::LLAMA
    };
    let arch = rotary::of_sizes(r, &own, &sizes)?;
    let bias = r.flag("conv_bias", false)?;
    let kind = Kind::Short { width: d_model };
    let recurrent = Recurrent { kind, conv: Some(r.size("conv_L_cache")?), conv_bias: bias, bias };
    let words = r.layer_words("layer_types", n_layers)?;
    let named = r.take("full_attn_idxs").and_then(Value::as_array);
    rotary::with_recurrent(r, arch, recurrent, |l| match (&words, named) {
        (Some(words), _) => words[l] == "conv",
        (None, Some(list)) => !list.iter().any(|layer| layer.as_u64() == Some(l as u64)),
        (None, None) => false,
    })
}

/// The MLP's width: two thirds of what is given, times a factor, rounded up, where the description says so.
fn width(r: &Reader, given: usize) -> Result<usize, ConfigError> {
    let (factor, of) = (r.opt_number("block_ffn_dim_multiplier")?, r.opt_size("block_multiple_of")?);
    if !r.flag("block_auto_adjust_ff_dim", true)? {
        return Ok(given);
    }
    let narrow = given.saturating_mul(2) / 3;
    let wide = factor.map_or(narrow, |factor| (factor * narrow as f64) as usize);
    let of = of.unwrap_or(256).max(1);
    Ok(wide.div_ceil(of).saturating_mul(of))
}

/// Of the model with experts too, before it has them.
pub(super) fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let ropes = |k: &Keys, d_head: usize, n_ctx: usize| Ok(vec![k.rope(d_head, n_ctx, 1e6)?]);
    let (arch, recurrent) = in_gguf::hybrid(k, &in_gguf::Own { ropes, ..in_gguf::LLAMA })?;
    let has = |tensor: &str| k.first_with(arch.n_layers, tensor).is_some();
    let mixer = Recurrent {
        kind: Kind::Short { width: arch.d_model },
        conv: Some(k.size("shortconv.l_cache")?),
        conv_bias: has("shortconv.conv.bias"),
        bias: has("shortconv.in_proj.bias"),
    };
    Ok(rotary::replaced(arch, mixer, |l| recurrent[l]))
}
