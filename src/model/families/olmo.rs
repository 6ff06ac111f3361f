//! OLMo: Llama with layer norms that have neither weight nor bias, and queries, keys and values that are cut off.

use super::{Family, InGguf, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Gain, Norm};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static OLMO: Family = Family {
    gguf: Some(InGguf { architecture: "olmo", describe: describe_gguf, tensors: in_gguf::INTERLEAVED }),
    ..Family::new("olmo", describe, llama::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: Norm { gain: Gain::One, bias: false, ..Norm::layer(1e-5) },
        eps: "",
        qkv_bias: bias,
        out_bias: bias,
        ..rotary::LLAMA
    };
    let (clip, mut arch) = (r.opt_number("clip_qkv")?, rotary::described(r, &own)?);
    arch.each_attention(|_, attention| attention.clip = clip);
    Ok(arch)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let norm = |k: &Keys| Ok(Norm { gain: Gain::One, ..in_gguf::layer(k)? });
    let clip = k.factor_if_any("attention.clamp_kqv")?;
    let mut arch = in_gguf::described(k, &in_gguf::Own { norm, ..in_gguf::LLAMA })?;
    arch.each_attention(|_, attention| attention.clip = clip);
    Ok(arch)
}
