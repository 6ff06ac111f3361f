//! Gemma: Llama with norms whose weights are stored less 1, a scaled embedding and a GELU.

use super::gemma2::{self, LESS_ONE};
use super::{Family, Names, Tensors, llama, rotary};
use crate::model::arch::{Arch, NormPlacement};
use crate::model::config::{ConfigError, Reader};

pub(super) static GEMMA: Family = Family::new("gemma", describe, TENSORS);

const TENSORS: Tensors = Tensors { layer: Names { ..llama::TENSORS.layer }, ..llama::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = rotary::Own { norm: LESS_ONE, placement: NormPlacement::Before, query_scalar: None, ..gemma2::gemma(r)? };
    rotary::described(r, &own)
}
