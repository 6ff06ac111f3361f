//! Hunyuan: Llama with a norm of each head's query and key after rotation, whose base may be raised.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Norm, NormOver, QkNorm};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::AttentionWeights;

pub(super) static HUNYUAN_V1_DENSE: Family = Family {
    gguf: Some(InGguf { architecture: "hunyuan-dense", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("hunyuan_v1_dense", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights {
            q_norm: Some("self_attn.query_layernorm"),
            k_norm: Some("self_attn.key_layernorm"),
            ..llama::TENSORS.layer.attention
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    r.take("eod_token_id");
    let own = rotary::Own {
        norm: Norm::rms(1e-5),
        qk_norm: Some(QkNorm { of: Norm::rms(1e-5), over: NormOver::Head, rotated: true }),
        qkv_bias: bias,
        out_bias: bias,
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}

/// The base of the rotation is there as it was raised.
fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let mut arch = in_gguf::described(k, &in_gguf::LLAMA)?;
    arch.each_attention(|_, attention| {
        attention.qk_norm = attention.qk_norm.map(|norm| QkNorm { rotated: true, ..norm });
    });
    Ok(arch)
}
