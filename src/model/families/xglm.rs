//! XGLM: OPT with sines and cosines for positions, a scaled embedding and GELUs.

use super::{Family, Tensors, llama, opt, rotary};
use crate::model::arch::{Arch, Positions};
use crate::model::config::{ConfigError, Reader};
use serde_json::json;

pub(super) static XGLM: Family = Family::new("xglm", describe, TENSORS);

const TENSORS: Tensors = Tensors { final_norm: "layer_norm", layer: opt::LAYER, ..llama::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.require("add_cross_attention", &json!(false))?;
    r.pass_over(&["dropout", "activation_dropout", "layerdrop", "init_std", "decoder_start_token_id"]);
    let own = rotary::Own {
        activation: ("activation_function", "gelu"),
        scaled_embedding: r.flag("scale_embedding", true)?,
        ..opt::own()
    };
    let (d_model, n_heads) = (r.size("d_model")?, r.size("attention_heads")?);
    let sizes = rotary::Sizes {
        d_model,
        n_layers: r.size("num_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        d_head: r.divide("d_model", d_model, n_heads)?,
        d_mlp: r.size("ffn_dim")?,
        vocab: r.size("vocab_size")?,
        n_ctx: r.size("max_position_embeddings")?,
    };
    Ok(Arch { positions: Positions::Sinusoidal { skipped: 2 }, ..rotary::of_sizes(r, &own, &sizes)? })
}
