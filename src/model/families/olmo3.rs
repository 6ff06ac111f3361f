//! OLMo 3: OLMo 2 with a window in three of four layers, which are rotated as the model was first trained; the others stretch.

use super::{Family, InGguf, in_gguf, olmo2, rotary};
use crate::model::arch::{Arch, Norm, NormPlacement};
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::rope::{Rope, Scaling};
use serde_json::Value;

pub(super) static OLMO3: Family = Family {
    gguf: Some(InGguf { architecture: "olmo2", describe: olmo2::describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("olmo3", describe, olmo2::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: Norm::rms(1e-5),
        placement: NormPlacement::After,
        qk_norm: rotary::OVER_HEADS,
        qkv_bias: bias,
        out_bias: bias,
        windows: Windows { used: true, default: Some(4096), slides: Slides::AllButEvery(4) },
        ropes,
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}

/// That of all positions, then that of windows: the same base, not stretched.
fn ropes(r: &Reader, d_head: usize, n_ctx: usize) -> Result<Vec<Rope>, ConfigError> {
    let apart = r.take("rope_parameters").and_then(Value::as_object).is_some_and(|p| p.contains_key("full_attention"));
    if apart {
        return r.global_and_local_ropes(d_head, n_ctx, [500_000.0; 2]);
    }
    let whole = r.rope(d_head, n_ctx, 500_000.0, 1.0)?;
    Ok(vec![whole.clone(), Rope { scaling: Scaling::None, ..whole }])
}
