//! RWKV-7, as flash-linear-attention stores it: a delta rule whose decay and rate depend on what is read, values of layer 0 in all
//! layers, and a channel that reads the position before each too.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama};
use crate::model::arch::{Activation, Arch, Channel, Dynamic, Kind, Layer, Mixer, Mlp, Norm, Recurrent, Shifted};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::RecurrentNames;
use serde_json::{Value, json};

pub(super) static RWKV7: Family = Family {
    gguf: Some(InGguf { architecture: "rwkv7", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("rwkv7", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    embed: "embeddings",
    embed_norm: "layers.0.pre_norm",
    layer: Names {
        attn_norm: "attn_norm",
        mlp_norm: "ffn_norm",
        mlp: MlpWeights { gate: None, up: "ffn.key", down: "ffn.value", xielu: None },
        shifts: &["ffn.x_k"],
        recurrent: RecurrentNames {
            inputs: ["attn.r_proj", "attn.k_proj", "attn.v_proj", "", "", ""],
            prefix: "attn.",
            norm: "attn.g_norm",
            out: "attn.o_proj",
            ..llama::RECURRENT
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

const IN_GGUF: Tensors = Tensors {
    layer: Names {
        mlp_norm: "attn_norm_2",
        mlp: MlpWeights { gate: None, up: "channel_mix_key", down: "channel_mix_value", xielu: None },
        shifts: &["channel_mix_lerp_k.weight"],
        recurrent: RecurrentNames {
            inputs: ["time_mix_receptance", "time_mix_key", "time_mix_value", "", "", ""],
            prefix: "time_mix_",
            norm: "time_mix_ln",
            out: "time_mix_output",
            fused_shares: Some("time_mix_lerp_fused.weight"),
            ..in_gguf::TENSORS.layer.recurrent
        },
        ..in_gguf::TENSORS.layer
    },
    ..in_gguf::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(&["attn_mode", "fuse_norm", "fuse_cross_entropy", "hidden_ratio", "elementwise_affine"]);
    // Some models have attention in some layers; none of theirs was seen.
    r.require("attn", &Value::Null)?;
    r.require("norm_first", &json!(true))?;
    r.require("hidden_act", &json!("sqrelu"))?;
    let (d_model, d_head) = (r.size("hidden_size")?, r.size("head_dim")?);
    let heads = match r.opt_size("num_heads")? {
        Some(heads) => heads,
        None => r.divide("head_dim", d_model, d_head)?,
    };
    if heads.saturating_mul(d_head) != d_model {
        return Err(r.key("num_heads", format!("{heads} heads of {d_head} are not as wide as the model, {d_model}")));
    }
    let n = r.bounded_layers(r.size("num_hidden_layers")?)?;
    values_are_as_wide(r, d_model)?;
    let bias = r.flag("norm_bias", true)?;
    let eps = r.or_default("norm_eps", 1e-5)?;
    let norm = Norm { bias, ..Norm::layer(eps) };
    let ranks = [
        r.size("decay_low_rank_dim")?,
        r.size("a_low_rank_dim")?,
        r.size("gate_low_rank_dim")?,
        r.size("v_low_rank_dim")?,
    ];
    // Heads are normed with an epsilon that grows with their size.
    let of_heads = Norm::layer(d_head as f64 * eps);
    let of = Dynamic { heads, d_head, ranks, norm: of_heads, first: true };
    let layers = layers(of, r.size("intermediate_size")?, n);
    let n_ctx = r.opt_size("max_position_embeddings")?.unwrap_or(1 << 20);
    let sizes = [d_model, r.size("vocab_size")?, n_ctx];
    Ok(Arch {
        embed_norm: Some(norm),
        tied: r.flag("tie_word_embeddings", false)?,
        ..Arch::plain(r.family, sizes, norm, layers)
    })
}

/// Layers with such a mixer, of which the first is that of layer 0, and a channel of this width.
fn layers(of: Dynamic, width: usize, n: usize) -> Vec<Layer> {
    let mlp = Mlp { width, gated: false, activation: Activation::SquaredRelu, xielu: false, cut: None, bias: false };
    let layer = |l: usize| {
        let kind = Kind::Dynamic(Dynamic { first: l == 0, ..of });
        Layer {
            mixer: Mixer::Recurrent(Recurrent { kind, conv: None, conv_bias: false, bias: false }),
            channel: Channel::Shifted(Shifted { mlp, receptance: false, of_previous: true }),
        }
    };
    (0..n).map(layer).collect()
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let (d_model, d_head) = (k.d_model()?, k.size("wkv.head_size")?);
    if d_head == 0 || !d_model.is_multiple_of(d_head) {
        return Err(k.bad("wkv.head_size", format!("{d_model} numbers do not divide over heads of {d_head}")));
    }
    let ranks = [
        k.size("attention.decay_lora_rank")?,
        k.size("attention.iclr_lora_rank")?,
        k.size("attention.gate_lora_rank")?,
        k.size("attention.value_residual_mix_lora_rank")?,
    ];
    let norm = in_gguf::layer(k)?;
    let of_heads = Norm::layer(d_head as f64 * norm.eps);
    let of = Dynamic { heads: d_model / d_head, d_head, ranks, norm: of_heads, first: true };
    let layers = layers(of, k.size("feed_forward_length")?, k.layers(1)?);
    Ok(Arch { embed_norm: Some(norm), ..in_gguf::of_layers(k, d_model, norm, layers)? })
}

/// Values may be of another width in each layer, which no released model has.
fn values_are_as_wide(r: &Reader, d_model: usize) -> Result<(), ConfigError> {
    let Some(value) = r.take("value_dim") else { return Ok(()) };
    let all: Vec<&Value> = value.as_array().map_or_else(|| vec![value], |all| all.iter().collect());
    match all.iter().find(|n| n.as_u64() != Some(d_model as u64)) {
        Some(other) => Err(r.key("value_dim", format!("is {other}; gatelens implements only {d_model}, the width"))),
        None => Ok(()),
    }
}
