//! EXAONE 4: norms after attention and MLP and none before, a norm of each head's query and key, and, in the models that have
//! windows, layers without, which rotate nothing.

use super::{Family, InGguf, in_gguf, olmo2, rotary};
use crate::model::arch::{Arch, Norm, NormPlacement};
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static EXAONE4: Family = Family {
    gguf: Some(InGguf { architecture: "exaone4", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("exaone4", describe, olmo2::TENSORS)
};

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

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let own = in_gguf::Own { placement: NormPlacement::After, ..in_gguf::LLAMA };
    if k.window()?.is_none() {
        return in_gguf::described(k, &own);
    }
    let windows = |k: &Keys, n: usize, _: usize| k.windows(n, 4, "EXAONE 4's local layers");
    let arch = in_gguf::described(k, &in_gguf::Own { windows, ..own })?;
    Ok(in_gguf::rotating(arch, |_, attention| attention.heads.window.is_some()))
}
