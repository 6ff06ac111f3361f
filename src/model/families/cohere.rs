//! Command R: attention and gated MLP side by side after one layer norm without bias, interleaved rotation, scaled logits, and,
//! in the larger ones, a norm for each head's query and key.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Norm, NormOver, QkNorm};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static COHERE: Family = Family {
    gguf: Some(InGguf { architecture: "command-r", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("cohere", describe, TENSORS)
};

/// Those of Command R7B and A too.
pub(super) const TENSORS: Tensors = Tensors {
    layer: Names { mlp_norm: "input_layernorm", ..llama::TENSORS.layer },
    interleaved: true,
    ..llama::TENSORS
};

/// Those of Command R7B and A too.
pub(super) const IN_GGUF: Tensors =
    Tensors { layer: Names { mlp_norm: "attn_norm", ..in_gguf::TENSORS.layer }, ..in_gguf::INTERLEAVED };

/// A layer norm without bias.
const NORM: Norm = Norm { bias: false, ..Norm::layer(1e-5) };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let normed = r.flag("use_qk_norm", false)?;
    let qk_norm = normed.then_some(QkNorm { of: NORM, over: NormOver::OwnHead, rotated: false });
    described(r, rotary::Own { qk_norm, ..rotary::LLAMA })
}

/// A model of either generation.
pub(super) fn described(r: &Reader, own: rotary::Own) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: NORM,
        eps: "layer_norm_eps",
        parallel: true,
        qkv_bias: bias,
        out_bias: bias,
        tied: true,
        ..own
    };
    let arch = rotary::described(r, &own)?;
    Ok(Arch { logit_scale: r.or_default("logit_scale", 0.0625)?, ..arch })
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    described_in_gguf(k, in_gguf::LLAMA)
}

/// A model of either generation in a GGUF file.
pub(super) fn described_in_gguf(k: &Keys, own: in_gguf::Own) -> Result<Arch, GgufConfigError> {
    let arch = in_gguf::described(k, &in_gguf::Own { norm: in_gguf::layer, parallel: true, ..own })?;
    Ok(Arch { logit_scale: k.factor_if_any("logit_scale")?.unwrap_or(1.0), ..arch })
}
