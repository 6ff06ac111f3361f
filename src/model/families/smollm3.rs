//! SmolLM 3: Llama in which every fourth layer rotates nothing.

use super::{Family, InGguf, in_gguf, llama, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static SMOLLM3: Family = Family {
    gguf: Some(InGguf { architecture: "smollm3", describe: describe_gguf, tensors: in_gguf::PERMUTED }),
    ..Family::new("smollm3", describe, llama::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let mlp_bias = r.flag("mlp_bias", false)?;
    let used = r.flag("use_sliding_window", false)?;
    let windows = Windows { used, default: None, slides: Slides::From(28) };
    let own = rotary::Own {
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias,
        windows,
        tied: true,
        ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 2_000_000.0, 1.0)?]),
        ..rotary::LLAMA
    };
    let mut arch = rotary::described(r, &own)?;
    let rotated = rotary::rotated_layers(r, arch.n_layers)?;
    arch.each_attention(|l, attention| attention.rope = attention.rope.filter(|_| rotated[l]));
    Ok(arch)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let arch = in_gguf::described(k, &in_gguf::LLAMA)?;
    Ok(in_gguf::rotating(arch, |l, _| !(l + 1).is_multiple_of(4)))
}
