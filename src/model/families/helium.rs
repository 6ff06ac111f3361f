//! Helium: Llama with interleaved rotation.

use super::{Family, Tensors, llama, rotary};
use crate::model::arch::{Arch, Norm};
use crate::model::config::{ConfigError, Reader};

pub(super) static HELIUM: Family = Family::new("helium", describe, Tensors { interleaved: true, ..llama::TENSORS });

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // The reference reads `attention_bias` for queries, keys and values alone.
    let own = rotary::Own {
        norm: Norm::rms(1e-8),
        qkv_bias: r.flag("attention_bias", false)?,
        mlp_bias: r.flag("mlp_bias", false)?,
        ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 100_000.0, 1.0)?]),
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}
