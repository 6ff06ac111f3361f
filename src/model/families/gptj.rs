//! GPT-J: attention and a plain MLP side by side after one layer norm, a part of each head rotated, interleaved, a bias of the logits.

use super::{Family, Names, Qkv, Tensors, gpt2};
use crate::model::arch::{Arch, Positions};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::mixer::AttentionWeights;
use crate::model::rope::{Rope, Scaling};

pub(super) static GPTJ: Family = Family::new("gptj", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights {
            q: "attn.q_proj",
            k: Some("attn.k_proj"),
            v: Some("attn.v_proj"),
            o: "attn.out_proj",
            ..gpt2::TENSORS.layer.attention
        },
        mlp_norm: "ln_1",
        mlp: MlpWeights { gate: None, up: "mlp.fc_in", down: "mlp.fc_out", xielu: None },
        ..gpt2::TENSORS.layer
    },
    qkv: Qkv::Apart,
    transposed: false,
    interleaved: true,
    ..gpt2::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let heads = r.size("n_head")?;
    let rotary = r.size("rotary_dim")?;
    let mut arch = gpt2::described(r, heads)?;
    arch.each_attention(|_, attention| {
        (attention.rope, attention.qkv_bias, attention.out_bias) = (Some(0), false, false);
    });
    let rope = Rope { base: 10_000.0, rotary, scaling: Scaling::None, reversed: false };
    Ok(Arch {
        positions: Positions::None,
        parallel: true,
        ropes: vec![rope],
        unembed_bias: true,
        tied: r.flag("tie_word_embeddings", false)?,
        ..arch
    })
}
