//! OLMo 2: Llama with norms after attention and MLP and none before, and norms over all queries and all keys.

use super::{Family, Names, Tensors, gemma2, llama, rotary};
use crate::model::arch::{Arch, Norm, NormPlacement};
use crate::model::config::{ConfigError, Reader};

pub(super) static OLMO2: Family = Family::new("olmo2", describe, TENSORS);

pub(super) const TENSORS: Tensors =
    Tensors { layer: Names { attn_norm: "", mlp_norm: "", ..gemma2::TENSORS.layer }, ..llama::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: Norm::rms(1e-5),
        placement: NormPlacement::After,
        qk_norm: rotary::OVER_HEADS,
        qkv_bias: bias,
        out_bias: bias,
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}
