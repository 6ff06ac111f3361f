//! Ministral 8B: Mistral with a window in some layers.

use super::{Family, llama, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader, Slides, Windows};

pub(super) static MINISTRAL: Family = Family::new("ministral", describe, llama::TENSORS);

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let windows = Windows { used: true, default: Some(4096), slides: Slides::All };
    rotary::described(r, &rotary::Own { windows, ..rotary::LLAMA })
}
