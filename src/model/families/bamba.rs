//! Bamba: Llama with Mamba 2 in place of attention in most layers, half of each head rotated in the others.

use super::{Family, InGguf, Names, Tensors, granitemoehybrid, in_gguf, llama, mamba, rotary};
use crate::model::arch::{Arch, Kind, Norm, Recurrent};
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use serde_json::Value;

pub(super) static BAMBA: Family = Family {
    gguf: Some(InGguf {
        architecture: "granitehybrid",
        describe: granitemoehybrid::describe_gguf,
        tensors: in_gguf::PERMUTED,
    }),
    ..Family::new("bamba", describe, TENSORS)
};

/// Those of Jamba too.
pub(super) const TENSORS: Tensors = Tensors {
    final_norm: "final_layernorm",
    layer: Names {
        mlp_norm: "pre_ff_layernorm",
        mlp: MlpWeights {
            gate: Some("feed_forward.gate_proj"),
            up: "feed_forward.up_proj",
            down: "feed_forward.down_proj",
            xielu: None,
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // Of training.
    r.pass_over(&["z_loss_coefficient"]);
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: Norm::rms(1e-5),
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: r.flag("mlp_bias", false)?,
        ropes: rotary::partial,
        ..rotary::LLAMA
    };
    let arch = rotary::described(r, &own)?;
    let recurrent = mamba2(r, &arch)?;
    let named = r.take("attn_layer_indices").and_then(Value::as_array);
    let attends = |l: usize| named.is_some_and(|list| list.iter().any(|layer| layer.as_u64() == Some(l as u64)));
    rotary::with_recurrent(r, arch, recurrent, |l| !attends(l))
}

/// Mamba 2 by the keys of hybrids.
pub(super) fn mamba2(r: &Reader, arch: &Arch) -> Result<Recurrent, ConfigError> {
    r.pass_over(mamba::OF_TRAINING);
    r.pass_over(&["mamba_chunk_size", "mamba_expand"]);
    let heads = r.size("mamba_n_heads")?;
    let expanded = arch.d_model.saturating_mul(r.opt_size("mamba_expand")?.unwrap_or(2));
    let inner = r.opt_size("mamba_d_ssm")?.unwrap_or(expanded);
    let d_head = match r.take("mamba_d_head").filter(|d| d.as_str() != Some("auto")) {
        None => r.divide("mamba_n_heads", inner, heads)?,
        Some(_) => r.size("mamba_d_head")?,
    };
    let groups = r.opt_size("mamba_n_groups")?.unwrap_or(1);
    let kind = Kind::Mamba2 {
        heads,
        d_head,
        d_state: r.size("mamba_d_state")?,
        groups,
        limits: r.limits("time_step_limit")?,
        norm: Some(arch.norm),
        norm_groups: groups,
        gate_last: false,
    };
    let (conv_bias, bias) = (r.flag("mamba_conv_bias", true)?, r.flag("mamba_proj_bias", false)?);
    Ok(Recurrent { kind, conv: Some(r.size("mamba_d_conv")?), conv_bias, bias })
}
