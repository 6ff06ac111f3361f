//! RWKV-4: in every layer a mean of values by channel whose weights decay with distance, and a channel that reads the position before
//! each too. `transformers` halves the stream every few layers (`rescale_every`) so that half precision does not overflow, and what is
//! added to it with it; here it is not, which differs by the norms' epsilon alone.

use super::{Family, Names, Tensors, llama};
use crate::model::arch::{Activation, Arch, Channel, Kind, Layer, Mixer, Mlp, Norm, Recurrent, Shifted};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::mixer::RecurrentNames;

pub(super) static RWKV: Family = Family::new("rwkv", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    prefix: "rwkv.",
    embed: "embeddings",
    embed_norm: "blocks.0.pre_ln",
    final_norm: "ln_out",
    unembed: &["head"],
    layers: "blocks.",
    layer: Names {
        attn_norm: "ln1",
        mlp_norm: "ln2",
        mlp: MlpWeights {
            gate: Some("feed_forward.receptance"),
            up: "feed_forward.key",
            down: "feed_forward.value",
            xielu: None,
        },
        shifts: &["feed_forward.time_mix_key", "feed_forward.time_mix_receptance"],
        recurrent: RecurrentNames {
            inputs: ["attention.key", "attention.value", "attention.receptance", "", "", ""],
            decay: "attention.time_decay",
            skip: "attention.time_first",
            prefix: "attention.",
            out: "attention.output",
            ..llama::RECURRENT
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(&["rescale_every"]);
    let d_model = r.size("hidden_size")?;
    let width = r.opt_size("attention_hidden_size")?.unwrap_or(d_model);
    let d_mlp = r.opt_size("intermediate_size")?.unwrap_or(4 * d_model);
    let kind = Kind::Wkv { width };
    let mixer = Mixer::Recurrent(Recurrent { kind, conv: None, conv_bias: false, bias: false });
    let mlp =
        Mlp { width: d_mlp, gated: false, activation: Activation::SquaredRelu, xielu: false, cut: None, bias: false };
    let layer = Layer { mixer, channel: Channel::Shifted(Shifted { mlp, receptance: true, of_previous: false }) };
    let norm = Norm::layer(r.or_default("layer_norm_epsilon", 1e-5)?);
    let n_ctx = r.first_size(&["context_length", "max_position_embeddings"])?;
    let layers = vec![layer; r.bounded_layers(r.size("num_hidden_layers")?)?];
    Ok(Arch {
        embed_norm: Some(norm),
        // It has the epsilon of PyTorch whatever the others have.
        final_norm: Some(Norm::layer(1e-5)),
        tied: r.flag("tie_word_embeddings", false)?,
        ..Arch::plain(r.family, [d_model, r.size("vocab_size")?, n_ctx], norm, layers)
    })
}
