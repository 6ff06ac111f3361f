//! Gemma: Llama with norms whose weights are stored less 1, a scaled embedding and a GELU.

use super::gemma2::{self, LESS_ONE};
use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Activation, Arch, NormPlacement};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static GEMMA: Family = Family {
    gguf: Some(InGguf { architecture: "gemma", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("gemma", describe, TENSORS)
};

const TENSORS: Tensors = Tensors { layer: Names { ..llama::TENSORS.layer }, ..llama::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = rotary::Own { norm: LESS_ONE, placement: NormPlacement::Before, query_scalar: None, ..gemma2::gemma(r)? };
    rotary::described(r, &own)
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let own = in_gguf::Own { activation: Activation::GeluTanh, scaled_embedding: true, ..in_gguf::LLAMA };
    in_gguf::described(k, &own)
}
