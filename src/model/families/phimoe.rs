//! Phi 3.5 MoE: layer norms, biases, several experts in every layer, each chosen by a softmax over those near the best.

use super::{Family, InGguf, in_gguf, mixtral, phi3, rotary};
use crate::model::arch::{Arch, Experts, Norm, Router, Scores};
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static PHIMOE: Family = Family {
    gguf: Some(InGguf { architecture: "phimoe", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("phimoe", describe, mixtral::TENSORS)
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // Of training.
    r.pass_over(&["input_jitter_noise"]);
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: Norm::layer(1e-5),
        qkv_bias: bias,
        out_bias: bias,
        windows: Windows { used: true, default: None, slides: Slides::All },
        ropes: |r, d_head, n_ctx| Ok(vec![r.rope(d_head, n_ctx, 1e6, 1.0)?]),
        ..rotary::LLAMA
    };
    let arch = rotary::described(r, &own)?;
    let experts = rotary::experts(r, r.size("num_local_experts")?, r.size("num_experts_per_tok")?, arch.d_mlp)?;
    let jitter = r.opt_number("router_jitter_noise")?.unwrap_or(0.01);
    let router = Router { scores: Scores::Sparse { jitter }, ..experts.router };
    let arch = rotary::with_experts(arch, Experts { router, ..experts }, |_| true);
    Ok(Arch { unembed_bias: r.flag("lm_head_bias", false)?, ..arch })
}

/// How near scores must be is not in the file; it is the released model's.
fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    // The epsilon is under the key of other norms.
    let norm = |k: &Keys| Ok(Norm { eps: in_gguf::rms(k)?.eps, bias: k.has("output_norm.bias"), ..Norm::layer(1e-5) });
    let own = in_gguf::Own { norm, windows: phi3::windows_in_gguf, ropes: in_gguf::long_ropes, ..in_gguf::LLAMA };
    let arch = in_gguf::with_experts(k, in_gguf::described(k, &own)?, |experts| Experts {
        router: Router { scores: Scores::Sparse { jitter: 0.01 }, ..experts.router },
        ..experts
    })?;
    Ok(Arch { unembed_bias: k.has("output.bias"), ..arch })
}
