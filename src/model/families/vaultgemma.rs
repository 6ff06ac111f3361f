//! VaultGemma: Gemma 2 without norms after attention and MLP.

use super::gemma2::{self, WINDOWS};
use super::{Family, Names, Tensors, rotary};
use crate::model::arch::{Arch, NormPlacement};
use crate::model::config::{Cap, ConfigError, Reader, Slides, Windows};

pub(super) static VAULTGEMMA: Family = Family::new("vaultgemma", describe, TENSORS);

const TENSORS: Tensors =
    Tensors { layer: Names { attn_post_norm: "", mlp_post_norm: "", ..gemma2::TENSORS.layer }, ..gemma2::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = rotary::Own {
        placement: NormPlacement::Before,
        softcaps: [Cap::Or(50.0), Cap::Or(30.0)],
        windows: Windows { slides: Slides::EverySecond, ..WINDOWS },
        ..gemma2::gemma(r)?
    };
    rotary::described(r, &own)
}
