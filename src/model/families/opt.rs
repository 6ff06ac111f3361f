//! OPT: layer norms, biases everywhere, ReLUs, learned positions of which the first two rows stand for none.

use super::{Family, Names, Tensors, llama, rotary};
use crate::model::arch::{Arch, Norm, Positions, Stream};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::mixer::AttentionWeights;
use serde_json::json;

pub(super) static OPT: Family = Family::new("opt", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    prefix: "model.decoder.",
    positions: "embed_positions",
    led: ["project_in", "project_out"],
    final_norm: "final_layer_norm",
    layer: LAYER,
    ..llama::TENSORS
};

/// That of XGLM too.
pub(super) const LAYER: Names = Names {
    attn_norm: "self_attn_layer_norm",
    attention: AttentionWeights { o: "self_attn.out_proj", ..llama::TENSORS.layer.attention },
    mlp_norm: "final_layer_norm",
    mlp: MlpWeights { gate: None, up: "fc1", down: "fc2", xielu: None },
    ..llama::TENSORS.layer
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // The 350M alone norms the sum of both, and has embeddings of another width.
    let stream = if r.flag("do_layer_norm_before", true)? { Stream::Sum } else { Stream::Normed };
    r.require("_remove_final_layer_norm", &json!(false))?;
    r.require("layer_norm_elementwise_affine", &json!(true))?;
    let d_model = r.size("hidden_size")?;
    let d_embed = r.opt_size("word_embed_proj_dim")?.filter(|n| *n != d_model);
    r.pass_over(&["dropout", "layerdrop", "init_std"]);
    let bias = r.flag("enable_bias", true)?;
    let own = rotary::Own { qkv_bias: bias, out_bias: bias, mlp_bias: bias, ..own() };
    let (n_heads, vocab) = (r.size("num_attention_heads")?, r.size("vocab_size")?);
    let sizes = rotary::Sizes {
        d_model,
        n_layers: r.size("num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        d_head: r.divide("hidden_size", d_model, n_heads)?,
        d_mlp: r.size("ffn_dim")?,
        vocab,
        n_ctx: r.size("max_position_embeddings")?,
    };
    let arch = rotary::of_sizes(r, &own, &sizes)?;
    Ok(Arch { positions: Positions::Learned { skipped: 2 }, stream, d_embed, ..arch })
}

/// What XGLM has too.
pub(super) fn own() -> rotary::Own {
    rotary::Own {
        norm: Norm::layer(1e-5),
        eps: "",
        qkv_bias: true,
        out_bias: true,
        mlp_bias: true,
        gated: false,
        activation: ("activation_function", "relu"),
        ropes: |_, _, _| Ok(Vec::new()),
        tied: true,
        ..rotary::LLAMA
    }
}
