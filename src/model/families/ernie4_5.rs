//! ERNIE 4.5: Llama with interleaved rotation and, where it is switched on, biases everywhere.

use super::{Family, InGguf, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Norm};
use crate::model::config::{ConfigError, Reader};

pub(super) static ERNIE4_5: Family = Family {
    gguf: Some(InGguf {
        architecture: "ernie4_5",
        describe: |k| in_gguf::described(k, &in_gguf::LLAMA),
        tensors: in_gguf::INTERLEAVED,
    }),
    ..Family::new("ernie4_5", describe, TENSORS)
};

pub(super) const TENSORS: Tensors = Tensors { interleaved: true, ..llama::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let own = own(r)?;
    rotary::described(r, &own)
}

pub(super) fn own(r: &Reader) -> Result<rotary::Own, ConfigError> {
    let bias = r.flag("use_bias", false)?;
    Ok(rotary::Own {
        norm: Norm::rms(1e-5),
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: bias,
        ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 500_000.0, 1.0)?]),
        tied: true,
        ..rotary::LLAMA
    })
}
