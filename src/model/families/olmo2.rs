//! OLMo 2: Llama with norms after attention and MLP and none before, and norms over all queries and all keys.

use super::{Family, InGguf, Names, Tensors, gemma2, in_gguf, llama, olmo3, rotary};
use crate::model::arch::{Arch, Norm, NormPlacement};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static OLMO2: Family = Family {
    gguf: Some(InGguf { architecture: "olmo2", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("olmo2", describe, TENSORS)
};

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

/// Of OLMo 3 too, which is told by its windows.
pub(super) fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let own = in_gguf::Own { placement: NormPlacement::After, ..in_gguf::LLAMA };
    if k.window()?.is_none() {
        return in_gguf::described(k, &own);
    }
    let windows = |k: &Keys, n: usize, _: usize| k.windows(n, 4, "OLMo 3's local layers");
    let ropes = |k: &Keys, d_head: usize, n_ctx: usize| {
        let whole = k.rope(d_head, n_ctx, 500_000.0)?;
        let local = k.local_rope(d_head, whole.base)?;
        Ok(vec![whole, local])
    };
    let arch = in_gguf::described(k, &in_gguf::Own { windows, ropes, ..own })?;
    Ok(Arch { family: &olmo3::OLMO3, ..arch })
}
