//! MiniMax Text 01: lightning attention in most layers and attention in some, several experts in every layer. What each part gives is
//! added to what it reads, both multiplied.

use super::{Family, Names, Tensors, llama, mixtral, rotary};
use crate::model::arch::{Arch, Experts, Factors, Kind, Mixer, Norm, Recurrent, Router, Stream};
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::mixer::RecurrentNames;

pub(super) static MINIMAX: Family = Family::new("minimax", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    layer: Names {
        recurrent: RecurrentNames {
            inputs: ["self_attn.qkv_proj", "self_attn.output_gate", "", "", "", ""],
            prefix: "self_attn.",
            norm: "self_attn.norm",
            out: "self_attn.out_proj",
            ..llama::RECURRENT
        },
        ..mixtral::TENSORS.layer
    },
    ..mixtral::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // Of training, and of how the reference computes what comes to the same.
    r.pass_over(&["router_jitter_noise", "block_size"]);
    let n_layers = r.size("num_hidden_layers")?;
    let words = r.layer_words("layer_types", n_layers)?;
    let windows = Windows { used: false, default: None, slides: Slides::None };
    r.require("sliding_window", &serde_json::Value::Null)?;
    let ropes = |r: &Reader, d_head: usize, n_ctx: usize| Ok(vec![r.rope(d_head, n_ctx, 1e6, 1.0)?]);
    let own = rotary::Own { norm: Norm::rms(1e-5), windows, ropes, ..rotary::LLAMA };
    let arch = rotary::described(r, &own)?;
    let experts = rotary::experts(r, r.size("num_local_experts")?, r.size("num_experts_per_tok")?, arch.d_mlp)?;
    let router = Router { renormalised: true, ..experts.router };
    let arch = rotary::with_experts(arch, Experts { router, ..experts }, |_| true);
    let factors = |part: &str| -> Result<Factors, ConfigError> {
        let read = |which: &str| r.opt_number(&format!("{part}_{which}_factor"));
        Ok(Factors { kept: read("alpha")?.unwrap_or(1.0), added: read("beta")?.unwrap_or(1.0) })
    };
    let [attention, recurrent, channel] = [factors("full_attn")?, factors("linear_attn")?, factors("mlp")?];
    let kind = Kind::Lightning {
        heads: r.size("num_attention_heads")?,
        d_head: arch.d_head,
        activation: r.activation("hidden_act", "silu")?,
        slope: 1.0,
        norm: Norm::rms(1e-6),
    };
    let mixer = Recurrent { kind, conv: None, conv_bias: false, bias: false };
    let mut arch = rotary::with_recurrent(r, arch, mixer, |l| match &words {
        Some(words) => words[l] == "linear_attention",
        None => !l.is_multiple_of(2),
    })?;
    // Decays are slower in later layers.
    for (l, layer) in arch.layers.iter_mut().enumerate() {
        if let Mixer::Recurrent(Recurrent { kind: Kind::Lightning { slope, .. }, .. }) = &mut layer.mixer {
            *slope = 1.0 - l as f64 / (n_layers as f64 - 1.0 + 1e-5) + 1e-5;
        }
    }
    Ok(Arch { stream: Stream::Read { attention, recurrent, channel }, ..arch })
}
