//! RWKV-7, as flash-linear-attention stores it: a delta rule whose decay and rate depend on what is read, values of layer 0 in all
//! layers, and a channel that reads the position before each too.

use super::{Family, Names, Tensors, llama};
use crate::model::arch::{Activation, Arch, Channel, Dynamic, Kind, Layer, Mixer, Mlp, Norm, Recurrent, Shifted};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::mixer::RecurrentNames;
use serde_json::{Value, json};

pub(super) static RWKV7: Family = Family::new("rwkv7", describe, TENSORS);

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
    let width = r.size("intermediate_size")?;
    let mlp = Mlp { width, gated: false, activation: Activation::SquaredRelu, xielu: false, cut: None, bias: false };
    let layer = |l: usize| {
        // Heads are normed with an epsilon that grows with their size.
        let of_heads = Norm::layer(d_head as f64 * eps);
        let kind = Kind::Dynamic(Dynamic { heads, d_head, ranks, norm: of_heads, first: l == 0 });
        Layer {
            mixer: Mixer::Recurrent(Recurrent { kind, conv: None, conv_bias: false, bias: false }),
            channel: Channel::Shifted(Shifted { mlp, receptance: false, of_previous: true }),
        }
    };
    let n_ctx = r.opt_size("max_position_embeddings")?.unwrap_or(1 << 20);
    let sizes = [d_model, r.size("vocab_size")?, n_ctx];
    Ok(Arch {
        embed_norm: Some(norm),
        tied: r.flag("tie_word_embeddings", false)?,
        ..Arch::plain(r.family, sizes, norm, (0..n).map(layer).collect())
    })
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
