//! Falcon-H1: attention and Mamba 2 side by side in every layer, and multipliers of nearly everything (muP).

use super::{Family, InGguf, Tensors, bamba, in_gguf, mamba, mamba2 as mamba_2, rotary};
use crate::model::arch::{Arch, Both, Kind, Mixer, Multipliers, Norm, Recurrent};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use serde_json::json;

pub(super) static FALCON_H1: Family = Family {
    gguf: Some(InGguf { architecture: "falcon-h1", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("falcon_h1", describe, TENSORS)
};

const TENSORS: Tensors = bamba::TENSORS;

const IN_GGUF: Tensors = Tensors { bare_mlp_norm: true, ..in_gguf::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(mamba::OF_TRAINING);
    r.pass_over(&["mlp_expansion_factor", "expansion_factor", "attn_layer_indices"]);
    r.require("mamba_use_mlp", &json!(true))?;
    let bias = r.flag("attention_bias", false)?;
    let mlp_bias = r.flag("mlp_bias", false)?;
    let own = rotary::Own { norm: Norm::rms(1e-5), qkv_bias: bias, out_bias: bias, mlp_bias, ..rotary::LLAMA };
    let mut arch = rotary::described(r, &own)?;
    let recurrent = mamba2(r, &arch)?;
    let scales = [r.or_default("attention_out_multiplier", 1.0)?, r.or_default("ssm_out_multiplier", 1.0)?];
    arch.multipliers = Some(multipliers(r, &recurrent)?);
    for layer in &mut arch.layers {
        if let Mixer::Attention(attention) = layer.mixer {
            layer.mixer = Mixer::Both(Both { attention, recurrent, scales, fed: None });
        }
    }
    Ok(Arch {
        embed_scale: Some(r.or_default("embedding_multiplier", 1.0)?),
        logit_scale: r.or_default("lm_head_multiplier", 1.0)?,
        ..arch
    })
}

/// The recurrent mixer: normed after its gate, before it, or not at all.
fn mamba2(r: &Reader, arch: &Arch) -> Result<Recurrent, ConfigError> {
    let found = bamba::mamba2(r, arch)?;
    r.require("projectors_bias", &json!(found.bias))?;
    let (norms, last) = (r.flag("mamba_rms_norm", false)?, r.flag("mamba_norm_before_gate", true)?);
    let kind = match found.kind {
        Kind::Mamba2 { heads, d_head, d_state, groups, limits, norm, norm_groups, .. } => {
            let norm = norm.filter(|_| norms);
            Kind::Mamba2 { heads, d_head, d_state, groups, limits, norm, norm_groups, gate_last: last && norms }
        }
        other => other,
    };
    Ok(Recurrent { kind, ..found })
}

/// The multipliers of projections.
fn multipliers(r: &Reader, recurrent: &Recurrent) -> Result<Multipliers, ConfigError> {
    let [gate, down] = list(r, "mlp_multipliers")?;
    let [z, x, b, c, dt] = list(r, "ssm_multipliers")?;
    let (heads, states) = match recurrent.kind {
        Kind::Mamba2 { heads, d_state, groups, .. } => (heads, groups * d_state),
        _ => (0, 0),
    };
    let width = recurrent.width();
    Ok(Multipliers {
        attention: r.or_default("attention_in_multiplier", 1.0)?,
        keys: r.or_default("key_multiplier", 1.0)?,
        recurrent: r.or_default("ssm_in_multiplier", 1.0)?,
        projections: [(width, z), (width, x), (states, b), (states, c), (heads, dt)],
        gate,
        down,
    })
}

/// So many numbers; ones where there are none.
fn list<const N: usize>(r: &Reader, key: &str) -> Result<[f64; N], ConfigError> {
    let Some(value) = r.take(key) else { return Ok([1.0; N]) };
    let numbers = value.as_array().and_then(|all| all.iter().map(|v| v.as_f64()).collect::<Option<Vec<f64>>>());
    let found = numbers.and_then(|all| <[f64; N]>::try_from(all).ok());
    found.ok_or_else(|| r.key(key, format!("expected {N} numbers, found {value}")))
}

/// Weights are there as the multipliers make them: what attention and the recurrent mixer give is as it is added.
fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let mut arch = in_gguf::described(k, &in_gguf::LLAMA)?;
    let mut recurrent = mamba::mixer_in_gguf(k, mamba_2::kind_in_gguf(k, arch.norm)?, arch.n_layers)?;
    let normed = k.first_with(arch.n_layers, "ssm_norm.weight").is_some();
    if let Kind::Mamba2 { norm, .. } = &mut recurrent.kind {
        *norm = norm.filter(|_| normed);
    }
    for layer in &mut arch.layers {
        if let Mixer::Attention(attention) = layer.mixer {
            layer.mixer = Mixer::Both(Both { attention, recurrent, scales: [1.0; 2], fed: None });
        }
    }
    Ok(arch)
}
