//! Command R7B and A: Command R with a window in three of four layers; the others rotate nothing.

use super::{Family, cohere, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader, Slides, Windows};

pub(super) static COHERE2: Family = Family::new("cohere2", describe, cohere::TENSORS);

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let windows = Windows { used: true, default: Some(4096), slides: Slides::AllButEvery(4) };
    let mut arch = cohere::described(r, rotary::Own { windows, ..rotary::LLAMA })?;
    arch.each_attention(|_, attention| attention.rope = attention.rope.filter(|_| attention.heads.window.is_some()));
    Ok(arch)
}
