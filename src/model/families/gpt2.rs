//! GPT-2: learned positions, layer norms, a plain MLP, biases everywhere. Matrices are stored transposed, queries, keys and
//! values in one.

use super::{Family, Names, Qkv, Tensors};
use crate::model::arch::*;
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::mixer::AttentionWeights;
use serde_json::json;

pub(super) static GPT2: Family = Family::new("gpt2", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    prefix: "transformer.",
    embed: "wte",
    positions: "wpe",
    final_norm: "ln_f",
    unembed: &["lm_head"],
    layers: "h.",
    layer: Names {
        attn_norm: "ln_1",
        attention: AttentionWeights {
            q: "attn.c_attn",
            k: "attn.c_attn",
            v: "attn.c_attn",
            q_norm: None,
            k_norm: None,
            o: "attn.c_proj",
        },
        attn_post_norm: "",
        mlp_norm: "ln_2",
        mlp: MlpWeights { gate: None, up: "mlp.c_fc", down: "mlp.c_proj" },
        mlp_post_norm: "",
    },
    qkv: Qkv::InTurn,
    transposed: true,
    norm_plus_one: false,
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let (d_model, n_layers, n_heads) = (r.size("n_embd")?, r.size("n_layer")?, r.size("n_head")?);
    r.require("scale_attn_weights", &json!(true))?;
    r.require("add_cross_attention", &json!(false))?;
    let d_head = r.divide("n_embd", d_model, n_heads)?;
    let d_mlp = r.opt_size("n_inner")?.unwrap_or(d_model.saturating_mul(4));
    let (vocab, n_ctx) = (r.size("vocab_size")?, r.size("n_positions")?);
    let norm_eps = r.or_default("layer_norm_epsilon", 1e-5)?;
    let activation = r.activation("activation_function", "gelu_new")?;
    let by_depth = r.flag("scale_attn_by_inverse_layer_idx", false)?;
    let layer = |l: usize| {
        let scale = (d_head as f64).powf(-0.5);
        let scale = if by_depth { scale / (l + 1) as f64 } else { scale };
        let heads = Heads { n_heads, n_kv_heads: n_heads, d_head, scale, softcap: None, window: None };
        Layer {
            mixer: Mixer::Attention(Attention {
                heads,
                rope: None,
                qk_norm: QkNorm::None,
                qkv_bias: true,
                out_bias: true,
            }),
            channel: Channel::Mlp(Mlp { width: d_mlp, gated: false, activation, bias: true }),
        }
    };
    Ok(Arch {
        family: r.family,
        d_model,
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        d_head,
        d_mlp,
        vocab,
        n_ctx,
        norm: NormKind::Layer,
        norm_eps,
        placement: NormPlacement::Before,
        parallel: false,
        learned_positions: true,
        ropes: Vec::new(),
        layers: (0..r.bounded_layers(n_layers)?).map(layer).collect(),
        logit_softcap: None,
        embed_scale: None,
        tied: r.flag("tie_word_embeddings", true)?,
    })
}
