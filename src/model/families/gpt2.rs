//! GPT-2: learned positions, layer norms, a plain MLP, biases everywhere. Matrices are stored transposed, queries, keys and
//! values in one.

use super::{Family, InGguf, Names, Qkv, Tensors, in_gguf, llama};
use crate::model::arch::*;
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::AttentionWeights;
use serde_json::json;

pub(super) static GPT2: Family = Family {
    gguf: Some(InGguf { architecture: "gpt2", describe: describe_gguf, tensors: in_gguf::FUSED }),
    ..Family::new("gpt2", describe, TENSORS)
};

pub(super) const TENSORS: Tensors = Tensors {
    prefix: "transformer.",
    embed: "wte",
    embed_norm: "",
    led: [""; 2],
    positions: "wpe",
    final_norm: "ln_f",
    unembed: &["lm_head"],
    layers: "h.",
    layer: Names {
        attn_norm: "ln_1",
        attention: AttentionWeights {
            q: "attn.c_attn",
            k: Some("attn.c_attn"),
            v: Some("attn.c_attn"),
            q_norm: None,
            k_norm: None,
            sinks: None,
            gate: None,
            latent: None,
            difference: None,
            o: "attn.c_proj",
        },
        attn_post_norm: "",
        mlp_norm: "ln_2",
        mlp: MlpWeights { gate: None, up: "mlp.c_fc", down: "mlp.c_proj", xielu: None },
        experts: llama::EXPERTS,
        recurrent: llama::RECURRENT,
        mlp_post_norm: "",
        shifts: &[],
        fed: None,
    },
    qkv: Qkv::InTurn,
    transposed: true,
    interleaved: false,
    permuted: false,
    bare_mlp_norm: false,
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let heads = r.size("n_head")?;
    described(r, heads)
}

/// A model of GPT-2's keys, with so many KV heads.
pub(super) fn described(r: &Reader, n_kv_heads: usize) -> Result<Arch, ConfigError> {
    let (d_model, n_layers, n_heads) = (r.size("n_embd")?, r.size("n_layer")?, r.size("n_head")?);
    r.require("scale_attn_weights", &json!(true))?;
    r.require("add_cross_attention", &json!(false))?;
    let d_head = r.divide("n_embd", d_model, n_heads)?;
    let width = r.opt_size("n_inner")?.unwrap_or(d_model.saturating_mul(4));
    let (vocab, n_ctx) = (r.size("vocab_size")?, r.size("n_positions")?);
    let norm = Norm::layer(r.or_default("layer_norm_epsilon", 1e-5)?);
    let activation = r.activation("activation_function", "gelu_new")?;
    let by_depth = r.flag("scale_attn_by_inverse_layer_idx", false)?;
    let layer = |l: usize| {
        let scale = (d_head as f64).powf(-0.5);
        let scale = if by_depth { scale / (l + 1) as f64 } else { scale };
        let heads = Heads { n_heads, n_kv_heads, d_head, scale, ..Heads::default() };
        let plain = Attention::plain(heads);
        Layer {
            mixer: Mixer::Attention(Attention { rope: None, qkv_bias: true, out_bias: true, ..plain }),
            channel: Channel::Mlp(Mlp { width, gated: false, activation, xielu: false, cut: None, bias: true }),
        }
    };
    let layers = (0..r.bounded_layers(n_layers)?).map(layer).collect();
    Ok(Arch {
        positions: Positions::Learned { skipped: 0 },
        tied: r.flag("tie_word_embeddings", true)?,
        ..Arch::plain(r.family, [d_model, vocab, n_ctx], norm, layers)
    })
}

/// Of StarCoder too.
pub(super) fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let own = in_gguf::Own { width_of_tensor: true, ropes: in_gguf::none, ..in_gguf::PLAIN };
    Ok(Arch { positions: Positions::Learned { skipped: 0 }, ..in_gguf::described(k, &own)? })
}
