//! Mamba: in every layer a selective state-space model, and nothing else.

use super::{Family, InGguf, Names, Tensors, falcon_mamba, in_gguf, llama};
use crate::model::arch::{Arch, Channel, Gain, Kind, Layer, Mixer, Norm, Recurrent};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::RecurrentNames;
use serde_json::json;

pub(super) static MAMBA: Family = Family {
    gguf: Some(InGguf { architecture: "mamba", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("mamba", |r| describe(r, None), TENSORS)
};

/// Those of Falcon Mamba and Mamba 2 too.
pub(super) const TENSORS: Tensors = Tensors {
    prefix: "backbone.",
    embed: "embeddings",
    final_norm: "norm_f",
    layer: Names {
        attn_norm: "norm",
        recurrent: RecurrentNames {
            inputs: ["mixer.in_proj", "", "", "", "", ""],
            conv: "mixer.conv1d.weight",
            conv_bias: "mixer.conv1d.bias",
            conv_parts: &[],
            decay: "mixer.A_log",
            decays: false,
            dt_bias: "mixer.dt_bias",
            skip: "mixer.D",
            prefix: "mixer.",
            others: &[],
            norm: "mixer.norm",
            out: "mixer.out_proj",
            fused_shares: None,
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

/// Keys that change nothing afterwards, or whose one value is what the decoder does.
pub(super) const OF_TRAINING: &[&str] = &[
    "rescale_prenorm_residual",
    "residual_in_fp32",
    "time_step_floor",
    "time_step_init_scheme",
    "time_step_max",
    "time_step_min",
    "time_step_scale",
    "use_associative_scan",
    "use_mambapy",
    "use_falcon_mambapy",
    "chunk_size",
    "use_mamba_kernels",
    "num_logits_to_keep",
];

/// A model of these keys, with such norms of time steps, `B` and `C`.
pub(super) fn describe(r: &Reader, inner: Option<Norm>) -> Result<Arch, ConfigError> {
    r.pass_over(OF_TRAINING);
    r.require("hidden_act", &json!("silu"))?;
    let d_model = r.size("hidden_size")?;
    let expand = r.opt_size("expand")?.unwrap_or(2);
    let width = r.first_size(&["intermediate_size", "d_inner"]).or_else(|_| Ok::<_, ConfigError>(d_model * expand))?;
    let rank = match r.take("time_step_rank").filter(|rank| rank.as_str() != Some("auto")) {
        None => d_model.div_ceil(16),
        Some(_) => r.size("time_step_rank")?,
    };
    let kind = Kind::Mamba { width, d_state: r.first_size(&["state_size", "d_state"])?, rank, inner };
    let conv_bias = r.flag("use_conv_bias", true)?;
    let recurrent = Recurrent { kind, conv: Some(r.size("conv_kernel")?), conv_bias, bias: r.flag("use_bias", false)? };
    of_layers(r, d_model, recurrent)
}

/// A model of such mixers alone.
pub(super) fn of_layers(r: &Reader, d_model: usize, recurrent: Recurrent) -> Result<Arch, ConfigError> {
    let n = r.first_size(&["num_hidden_layers", "n_layer"])?;
    let norm = Norm::rms(r.or_default("layer_norm_epsilon", 1e-5)?);
    let layer = Layer { mixer: Mixer::Recurrent(recurrent), channel: Channel::None };
    // A state has no end; tokens are counted on beyond what the released models were trained on.
    let (vocab, n_ctx) = (r.size("vocab_size")?, r.opt_size("max_position_embeddings")?.unwrap_or(1 << 20));
    let arch = Arch::plain(r.family, [d_model, vocab, n_ctx], norm, vec![layer; r.bounded_layers(n)?]);
    Ok(Arch { tied: r.flag("tie_word_embeddings", true)?, ..arch })
}

/// Of Falcon Mamba too, which is told by its norms.
pub(super) fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    // The epsilon of these norms is not in the file; it is the released model's.
    let normed = k.flag("ssm.dt_b_c_rms", false)?;
    let inner = normed.then_some(Norm { gain: Gain::One, ..Norm::rms(1e-6) });
    let arch = of_layers_in_gguf(k, kind_in_gguf(k, inner)?)?;
    Ok(if normed { Arch { family: &falcon_mamba::FALCON_MAMBA, ..arch } } else { arch })
}

/// Mamba with such norms of time steps, `B` and `C`.
pub(super) fn kind_in_gguf(k: &Keys, inner: Option<Norm>) -> Result<Kind, GgufConfigError> {
    Ok(Kind::Mamba {
        width: k.size("ssm.inner_size")?,
        d_state: k.size("ssm.state_size")?,
        rank: k.size("ssm.time_step_rank")?,
        inner,
    })
}

/// A model of such mixers alone.
pub(super) fn of_layers_in_gguf(k: &Keys, kind: Kind) -> Result<Arch, GgufConfigError> {
    let n = k.layers(1)?;
    let layers = vec![Layer { mixer: Mixer::Recurrent(mixer_in_gguf(k, kind, n)?), channel: Channel::None }; n];
    in_gguf::of_layers(k, k.d_model()?, in_gguf::rms(k)?, layers)
}

/// Such a mixer, as some of `n` layers have it.
pub(super) fn mixer_in_gguf(k: &Keys, kind: Kind, n: usize) -> Result<Recurrent, GgufConfigError> {
    let has = |tensor: &str| k.first_with(n, tensor).is_some();
    let conv = Some(k.size("ssm.conv_kernel")?);
    Ok(Recurrent { kind, conv, conv_bias: has("ssm_conv1d.bias"), bias: has("ssm_in.bias") })
}
