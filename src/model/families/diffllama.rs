//! DiffLlama: Llama with differential attention: what a head reads is the difference of what two patterns read.

use super::{Family, Names, Tensors, llama, rotary};
use crate::model::arch::{Arch, Difference, Norm};
use crate::model::config::{ConfigError, Reader};
use crate::model::mixer::{AttentionWeights, DifferenceWeights};

pub(super) static DIFFLLAMA: Family = Family::new("diffllama", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights {
            difference: Some(DifferenceWeights {
                q1: "self_attn.lambda_q1",
                k1: "self_attn.lambda_k1",
                q2: "self_attn.lambda_q2",
                k2: "self_attn.lambda_k2",
            }),
            ..llama::TENSORS.layer.attention
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(&["lambda_std_dev"]);
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own { norm: Norm::rms(1e-5), qkv_bias: bias, out_bias: bias, ..rotary::LLAMA };
    let mut arch = rotary::described(r, &own)?;
    let eps = arch.norm.eps;
    arch.each_attention(|l, attention| {
        attention.difference = Some(Difference { start: 0.8 - 0.6 * (-0.3 * l as f64).exp(), eps });
    });
    // Lists of heads are of what heads read.
    Ok(Arch { n_heads: arch.n_heads / 2, ..arch })
}
