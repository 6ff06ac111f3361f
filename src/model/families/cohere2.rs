//! Command R7B and A: Command R with a window in three of four layers; the others rotate nothing.

use super::{Family, InGguf, cohere, in_gguf, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static COHERE2: Family = Family {
    gguf: Some(InGguf { architecture: "cohere2", describe: describe_gguf, tensors: cohere::IN_GGUF }),
    ..Family::new("cohere2", describe, cohere::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let windows = Windows { used: true, default: Some(4096), slides: Slides::AllButEvery(4) };
    let mut arch = cohere::described(r, rotary::Own { windows, ..rotary::LLAMA })?;
    arch.each_attention(|_, attention| attention.rope = attention.rope.filter(|_| attention.heads.window.is_some()));
    Ok(arch)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let windows = |k: &Keys, n: usize, _: usize| k.windows(n, 4, "Command R7B's local layers");
    let arch = cohere::described_in_gguf(k, in_gguf::Own { windows, ..in_gguf::LLAMA })?;
    Ok(in_gguf::rotating(arch, |_, attention| attention.heads.window.is_some()))
}
