//! InternLM 3: Llama with biases where they are switched on, of the output projection by a key of its own in its first files.

use super::{Family, llama, rotary};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader};

pub(super) static INTERNLM3: Family = Family::new("internlm3", describe, llama::TENSORS);

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // The first files say `bias` of the output projection and the MLP, `qkv_bias` of the rest.
    let (all, qkv) = (r.flag("bias", false)?, r.flag("qkv_bias", false)?);
    let bias = r.flag("attention_bias", all || qkv)?;
    let own = rotary::Own {
        qkv_bias: bias,
        out_bias: if qkv || all { all } else { bias },
        mlp_bias: r.flag("mlp_bias", all)?,
        ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 50_000_000.0, 1.0)?]),
        ..rotary::LLAMA
    };
    rotary::described(r, &own)
}
