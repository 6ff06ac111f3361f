//! Mamba 2: in every layer a state-space model by heads, and nothing else.

use super::{Family, InGguf, in_gguf, mamba};
use crate::model::arch::{Arch, Kind, Norm, Recurrent};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use serde_json::json;

pub(super) static MAMBA2: Family = Family {
    gguf: Some(InGguf { architecture: "mamba2", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("mamba2", describe, mamba::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(mamba::OF_TRAINING);
    r.pass_over(&["expand", "time_step_rank", "rms_norm", "norm_before_gate"]);
    r.require("hidden_act", &json!("silu"))?;
    let eps = r.or_default("layer_norm_epsilon", 1e-5)?;
    let groups = r.opt_size("n_groups")?.unwrap_or(1);
    let kind = Kind::Mamba2 {
        heads: r.size("num_heads")?,
        d_head: r.size("head_dim")?,
        d_state: r.size("state_size")?,
        groups,
        limits: r.limits("time_step_limit")?,
        norm: Some(Norm::rms(eps)),
        norm_groups: groups,
        gate_last: false,
    };
    let conv_bias = r.flag("use_conv_bias", true)?;
    let recurrent = Recurrent { kind, conv: Some(r.size("conv_kernel")?), conv_bias, bias: r.flag("use_bias", false)? };
    mamba::of_layers(r, r.size("hidden_size")?, recurrent)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    mamba::of_layers_in_gguf(k, kind_in_gguf(k, in_gguf::rms(k)?)?)
}

/// Mamba 2, with such a norm.
pub(super) fn kind_in_gguf(k: &Keys, norm: Norm) -> Result<Kind, GgufConfigError> {
    let (heads, groups) = (k.size("ssm.time_step_rank")?, k.size("ssm.group_count")?);
    let width = k.size("ssm.inner_size")?;
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(k.bad("ssm.inner_size", format!("{width} does not divide over {heads} heads")));
    }
    Ok(Kind::Mamba2 {
        heads,
        d_head: width / heads,
        d_state: k.size("ssm.state_size")?,
        groups,
        limits: [0.0, f64::INFINITY],
        norm: Some(norm),
        gate_last: false,
        norm_groups: groups,
    })
}
