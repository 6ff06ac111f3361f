//! Ministral 3: Mistral with a stretched rotation and queries that grow with their position.

use super::{Family, llama, rotary};
use crate::model::arch::{Arch, Growth};
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::rope::Scaling;

pub(super) static MINISTRAL3: Family = Family { wrappers: &[], ..Family::new("ministral3", describe, llama::TENSORS) };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let windows = Windows { used: true, default: None, slides: Slides::All };
    let mut arch =
        rotary::described(r, &rotary::Own { norm: crate::model::arch::Norm::rms(1e-5), windows, ..rotary::LLAMA })?;
    let beta = r.in_rope("llama_4_scaling_beta")?;
    let original = match arch.ropes.first().map(|rope| &rope.scaling) {
        Some(Scaling::Yarn { original, .. }) => *original,
        _ => arch.n_ctx,
    };
    let growth = beta.map(|beta| Growth { beta, original: original as f64, shift: 0.0 });
    arch.each_attention(|_, attention| attention.growth = growth);
    Ok(arch)
}
