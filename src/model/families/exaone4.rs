//! EXAONE 4: norms after attention and MLP and none before, a norm of each head's query and key, and, in the models that have
//! windows, layers without, which rotate nothing.

use super::{Family, olmo2, rotary};
use crate::model::arch::{Arch, Norm, NormPlacement};
use crate::model::config::{ConfigError, Reader, Slides, Windows};

pub(super) static EXAONE4: Family = Family::new("exaone4", describe, olmo2::TENSORS);

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = rotary::Own {
        norm: Norm::rms(1e-5),
        placement: NormPlacement::After,
        qk_norm: rotary::BY_HEAD,
        windows: Windows { used: true, default: None, slides: Slides::AllButEvery(4) },
        ..rotary::LLAMA
    };
    let mut arch = rotary::described(r, &own)?;
    let some_slide = arch.layers.iter().any(|layer| layer.mixer.window().is_some());
    arch.each_attention(|_, attention| {
        attention.rope = attention.rope.filter(|_| !some_slide || attention.heads.window.is_some());
    });
    Ok(arch)
}
