//! Kimi Linear: three of four layers have a delta rule with a decay of each channel in place of attention, the others latent
//! attention that rotates nothing; several experts after the first layer.

use super::{Family, InGguf, Names, Tensors, deepseek_v3, glm4_moe, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Channel, Kind, Recurrent};
use crate::model::channel::{ExpertNames, MlpWeights, StoredExperts};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::RecurrentNames;

pub(super) static KIMI_LINEAR: Family = Family {
    gguf: Some(InGguf { architecture: "kimi-linear", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("kimi_linear", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        mlp: MlpWeights {
            gate: Some("block_sparse_moe.gate_proj"),
            up: "block_sparse_moe.up_proj",
            down: "block_sparse_moe.down_proj",
            xielu: None,
        },
        experts: ExpertNames {
            router: "block_sparse_moe.gate",
            choice_bias: "block_sparse_moe.gate.e_score_correction_bias",
            each: "block_sparse_moe.experts.{e}.",
            stored: StoredExperts::Each { gate: "w1", up: "w3", down: "w2" },
            shared: MlpWeights {
                gate: Some("block_sparse_moe.shared_experts.gate_proj"),
                up: "block_sparse_moe.shared_experts.up_proj",
                down: "block_sparse_moe.shared_experts.down_proj",
                xielu: None,
            },
            ..llama::EXPERTS
        },
        recurrent: RecurrentNames {
            inputs: [
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.b_proj",
                "self_attn.f_a_proj",
                "self_attn.g_a_proj",
            ],
            conv: "",
            conv_bias: "",
            conv_parts: &["self_attn.q_conv1d.weight", "self_attn.k_conv1d.weight", "self_attn.v_conv1d.weight"],
            decay: "self_attn.A_log",
            decays: false,
            dt_bias: "self_attn.dt_bias",
            skip: "",
            prefix: "self_attn.",
            others: &[],
            norm: "self_attn.o_norm",
            out: "self_attn.o_proj",
            fused_shares: None,
        },
        ..deepseek_v3::TENSORS.layer
    },
    interleaved: false,
    permuted: false,
    ..deepseek_v3::TENSORS
};

const IN_GGUF: Tensors = Tensors {
    layer: Names {
        recurrent: RecurrentNames {
            inputs: ["attn_q", "attn_k", "attn_v", "ssm_beta", "ssm_f_a", "ssm_g_a"],
            conv_parts: &["ssm_conv1d_q.weight", "ssm_conv1d_k.weight", "ssm_conv1d_v.weight"],
            others: &[("f_b_proj", "ssm_f_b"), ("g_b_proj", "ssm_g_b")],
            out: "attn_output",
            ..in_gguf::TENSORS.layer.recurrent
        },
        ..deepseek_v3::IN_GGUF.layer
    },
    interleaved: false,
    ..deepseek_v3::IN_GGUF
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let mut arch = deepseek_v3::latent(r, false)?;
    arch.each_attention(|_, attention| attention.rope = None);
    let kind = Kind::Channelwise {
        heads: r.size("linear_num_heads")?,
        d_head: r.size("linear_head_dim")?,
        rank: r.size("linear_head_dim")?,
        norm: arch.norm,
    };
    let conv = Some(r.size("linear_conv_kernel_dim")?);
    let words = r.layer_words("layer_types", arch.n_layers)?;
    let arch = glm4_moe::by_groups(r, arch, r.size("num_experts")?)?;
    rotary::with_recurrent(r, arch, Recurrent { kind, conv, conv_bias: false, bias: false }, |l| match &words {
        Some(words) => words[l] == "linear_attention",
        None => !(l + 1).is_multiple_of(4),
    })
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    // Of one group of experts.
    k.pass_over(&["expert_group_used_count"]);
    let mut arch = deepseek_v3::describe_gguf(k)?;
    arch.each_attention(|_, attention| attention.rope = None);
    for layer in &mut arch.layers {
        if let Channel::Experts(experts) = &mut layer.channel {
            experts.router.renormalised = true;
        }
    }
    let (_, recurrent) = k.kv_heads_or_none(arch.n_layers)?;
    let d_head = k.size("kda.head_dim")?;
    let kind = Kind::Channelwise { heads: k.size("attention.head_count")?, d_head, rank: d_head, norm: arch.norm };
    let mixer = Recurrent { kind, conv: Some(k.size("ssm.conv_kernel")?), conv_bias: false, bias: false };
    // No file has keys and values in one, as those of DeepSeek V3 may.
    let arch = Arch { family: &KIMI_LINEAR, stored: None, ..arch };
    Ok(rotary::replaced(arch, mixer, |l| recurrent[l]))
}
