//! OLMo: Llama with layer norms that have neither weight nor bias, and queries, keys and values that are cut off.

use super::{Family, llama, rotary};
use crate::model::arch::{Arch, Gain, Norm};
use crate::model::config::{ConfigError, Reader};

pub(super) static OLMO: Family = Family::new("olmo", describe, llama::TENSORS);

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
