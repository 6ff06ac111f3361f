//! Granite 4: Mamba 2 in place of attention in most layers; the others may rotate nothing; several experts and an MLP that all rows
//! go through, or that alone.

use super::{Family, InGguf, Names, Tensors, bamba, granite, granitemoe, in_gguf, llama, mamba, mamba2, rotary};
use crate::model::arch::{Arch, Channel, Experts, Mlp, Router, Scores, Shared};
use crate::model::channel::{ExpertNames, MlpWeights};
use crate::model::config::{ConfigError, Reader, Slides, Windows};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static GRANITEMOEHYBRID: Family = Family {
    gguf: Some(InGguf { architecture: "granitehybrid", describe: describe_gguf, tensors: in_gguf::PERMUTED }),
    ..Family::new("granitemoehybrid", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        mlp: MlpWeights {
            gate: Some("shared_mlp.input_linear"),
            up: "shared_mlp.input_linear",
            down: "shared_mlp.output_linear",
            xielu: None,
        },
        experts: ExpertNames {
            shared: MlpWeights {
                gate: Some("shared_mlp.input_linear"),
                up: "shared_mlp.input_linear",
                down: "shared_mlp.output_linear",
                xielu: None,
            },
            ..granitemoe::TENSORS.layer.experts
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(&["normalization_function", "init_method"]);
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        qkv_bias: bias,
        out_bias: bias,
        windows: Windows { used: false, default: None, slides: Slides::None },
        ..rotary::LLAMA
    };
    let words = r.take("layer_types").is_some();
    let mut arch = rotary::described(r, &own)?;
    if r.opt_text("position_embedding_type")? != Some("rope") {
        arch.each_attention(|_, attention| attention.rope = None);
    }
    let shared = r.size("shared_intermediate_size")?;
    let n = r.opt_size("num_local_experts")?.unwrap_or(0);
    r.pass_over(rotary::OF_TRAINING);
    let wide = |mlp: Mlp| Mlp { width: shared, ..mlp };
    arch = match n {
        0 => {
            r.pass_over(&["num_experts_per_tok"]);
            for layer in &mut arch.layers {
                if let Channel::Mlp(mlp) = &mut layer.channel {
                    *mlp = wide(*mlp);
                }
            }
            Arch { d_mlp: shared, ..arch }
        }
        n => {
            let experts = rotary::experts(r, n, r.size("num_experts_per_tok")?, arch.d_mlp)?;
            let router = Router { scores: Scores::SoftmaxOfChosen, ..experts.router };
            let shared = Some(Shared { mlp: wide(experts.mlp), gated: false });
            rotary::with_experts(arch, Experts { router, shared, ..experts }, |_| true)
        }
    };
    let recurrent = bamba::mamba2(r, &arch)?;
    let words = if words { r.layer_words("layer_types", arch.n_layers)? } else { None };
    let arch = granite::scaled(r, arch)?;
    rotary::with_recurrent(r, arch, recurrent, |l| {
        words.as_ref().is_none_or(|words| ["mamba", "linear_attention"].contains(&words[l]))
    })
}

/// Of Bamba too, which multiplies nothing.
pub(super) fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let multiplies = k.gives("embedding_scale") || k.gives("logit_scale");
    let (arch, recurrent) = in_gguf::hybrid(k, &in_gguf::Own { width_of_tensor: true, ..in_gguf::LLAMA })?;
    let arch = granite::scaled_in_gguf(k, arch)?;
    let mixer = mamba::mixer_in_gguf(k, mamba2::kind_in_gguf(k, arch.norm)?, arch.n_layers)?;
    let arch = granitemoe::mixed_in_gguf(k, rotary::replaced(arch, mixer, |l| recurrent[l]))?;
    let family = if multiplies { &GRANITEMOEHYBRID } else { &bamba::BAMBA };
    Ok(Arch { family, ..arch })
}
