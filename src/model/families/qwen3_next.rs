//! Qwen 3 Next: three of four layers have a gated delta rule in place of attention, the others gated attention; norms whose weights
//! are stored less 1; several experts in most layers, beside one that all rows go through, by a gate.

use super::gemma2::LESS_ONE;
use super::{Family, InGguf, Names, Tensors, in_gguf, qwen2_moe, rotary};
use crate::model::arch::{Arch, DeltaStored, Gain, Kind, Norm, NormOver, QkNorm, Recurrent};
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::{AttentionWeights, RecurrentNames};
use crate::model::rope::Rope;

pub(super) static QWEN3_NEXT: Family = Family {
    gguf: Some(InGguf { architecture: "qwen3next", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("qwen3_next", describe, TENSORS)
};

/// Those of Qwen 3.5 too, but for the projections.
pub(super) const TENSORS: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights { gate: Some("self_attn.q_proj"), ..qwen2_moe::TENSORS.layer.attention },
        recurrent: RecurrentNames {
            inputs: ["linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba", "", "", "", ""],
            conv: "linear_attn.conv1d.weight",
            conv_bias: "",
            conv_parts: &[],
            decay: "linear_attn.A_log",
            decays: false,
            dt_bias: "linear_attn.dt_bias",
            skip: "",
            prefix: "linear_attn.",
            others: &[],
            norm: "linear_attn.norm",
            out: "linear_attn.out_proj",
            fused_shares: None,
        },
        ..qwen2_moe::TENSORS.layer
    },
    ..qwen2_moe::TENSORS
};

/// Those of Qwen 3.5 too, but for the projections.
pub(super) const IN_GGUF: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights { gate: Some("attn_q"), ..in_gguf::TENSORS.layer.attention },
        mlp_norm: "post_attention_norm",
        recurrent: RecurrentNames {
            inputs: ["attn_qkv", "attn_gate", "ssm_ba", "", "", ""],
            ..in_gguf::TENSORS.layer.recurrent
        },
        ..in_gguf::TENSORS.layer
    },
    ..in_gguf::TENSORS
};

/// Of older files, which have the projections of the delta rule as folders do.
static JOINED: Tensors = Tensors {
    layer: Names {
        recurrent: RecurrentNames { inputs: ["ssm_in", "ssm_ba", "", "", "", ""], ..in_gguf::TENSORS.layer.recurrent },
        ..IN_GGUF.layer
    },
    ..IN_GGUF
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    qwen2_moe::mixed(r, described(r, DeltaStored::ByKeyHead, None)?, true)
}

/// A model of these keys with an MLP in every layer, of this width where it has no key.
pub(super) fn described(r: &Reader, stored: DeltaStored, d_mlp: Option<usize>) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    r.pass_over(&["full_attention_interval"]);
    let own = rotary::Own {
        d_head: Some(256),
        norm: LESS_ONE,
        qk_norm: Some(QkNorm { of: LESS_ONE, over: NormOver::Head, rotated: false }),
        qkv_bias: bias,
        out_bias: bias,
        windows: Windows { used: false, default: None, slides: Slides::None },
        ropes,
        ..rotary::LLAMA
    };
    let types = r.take("layer_types").cloned();
    let mut arch = match d_mlp {
        Some(d_mlp) => rotary::of_sizes(r, &own, &rotary::Sizes::with_mlp(r, own.d_head, d_mlp)?)?,
        None => rotary::described(r, &own)?,
    };
    arch.each_attention(|_, attention| attention.gated = true);
    let kind = Kind::Delta {
        key_heads: r.size("linear_num_key_heads")?,
        value_heads: r.size("linear_num_value_heads")?,
        d_key: r.size("linear_key_head_dim")?,
        d_value: r.size("linear_value_head_dim")?,
        norm: Norm { gain: Gain::Stored, ..arch.norm },
        stored,
    };
    let conv = Some(r.size("linear_conv_kernel_dim")?);
    let every = r.opt_size("full_attention_interval")?.unwrap_or(4).max(1);
    let words = if types.is_some() { r.layer_words("layer_types", arch.n_layers)? } else { None };
    rotary::with_recurrent(r, arch, Recurrent { kind, conv, conv_bias: false, bias: false }, |l| match &words {
        Some(words) => words[l] == "linear_attention",
        None => !(l + 1).is_multiple_of(every),
    })
}

/// A quarter of each head is rotated.
fn ropes(r: &Reader, d_head: usize, n_ctx: usize) -> Result<Vec<Rope>, ConfigError> {
    Ok(vec![r.rope(d_head, n_ctx, 10_000_000.0, 0.25)?])
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let joined = k.first_with(k.layers(1)?, "ssm_in.weight").is_some();
    let stored = if joined { DeltaStored::ByKeyHead } else { DeltaStored::StepsByKeyHead };
    let arch = in_gguf::with_experts(k, described_in_gguf(k, stored)?, in_gguf::renormalised)?;
    Ok(Arch { stored: joined.then_some(&JOINED), ..arch })
}

/// A model of these keys with an MLP in every layer.
pub(super) fn described_in_gguf(k: &Keys, stored: DeltaStored) -> Result<Arch, GgufConfigError> {
    let ropes = |k: &Keys, d_head: usize, n_ctx: usize| Ok(vec![k.rope(d_head, n_ctx, 10_000_000.0)?]);
    let mut arch = in_gguf::described(k, &in_gguf::Own { ropes, ..in_gguf::LLAMA })?;
    arch.each_attention(|_, attention| attention.gated = true);
    let (key_heads, value_heads) = (k.size("ssm.group_count")?, k.size("ssm.time_step_rank")?);
    let width = k.size("ssm.inner_size")?;
    if value_heads == 0 || !width.is_multiple_of(value_heads) {
        return Err(k.bad("ssm.inner_size", format!("{width} does not divide over {value_heads} heads")));
    }
    let (d_key, d_value) = (k.size("ssm.state_size")?, width / value_heads);
    let kind = Kind::Delta { key_heads, value_heads, d_key, d_value, norm: arch.norm, stored };
    let recurrent = Recurrent { kind, conv: Some(k.size("ssm.conv_kernel")?), conv_bias: false, bias: false };
    let which = k.recurrent_layers(arch.n_layers)?;
    Ok(rotary::replaced(arch, recurrent, |l| which[l]))
}
