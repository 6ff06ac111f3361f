//! RecurrentGemma: two of three layers have an RG-LRU in place of attention, which in the others looks back through a window.

use super::gemma2::LESS_ONE;
use super::{Family, Names, Tensors, llama, rotary};
use crate::model::arch::{Activation, Arch, Channel, Kind, Mlp, Norm, Recurrent};
use crate::model::channel::MlpWeights;
use crate::model::config::{Cap, ConfigError, Reader, Slides, Windows};
use crate::model::mixer::{AttentionWeights, RecurrentNames};
use serde_json::Value;

pub(super) static RECURRENT_GEMMA: Family = Family::new("recurrent_gemma", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    final_norm: "final_norm",
    layer: Names {
        attn_norm: "temporal_pre_norm",
        attention: AttentionWeights {
            q: "temporal_block.q_proj",
            k: Some("temporal_block.k_proj"),
            v: Some("temporal_block.v_proj"),
            o: "temporal_block.o_proj",
            ..llama::TENSORS.layer.attention
        },
        mlp_norm: "channel_pre_norm",
        mlp: MlpWeights {
            gate: Some("mlp_block.gate_proj"),
            up: "mlp_block.up_proj",
            down: "mlp_block.down_proj",
            xielu: None,
        },
        recurrent: RecurrentNames {
            inputs: ["temporal_block.linear_y", "temporal_block.linear_x", "", "", "", ""],
            conv: "temporal_block.conv_1d.weight",
            conv_bias: "temporal_block.conv_1d.bias",
            conv_parts: &[],
            decay: "temporal_block.rg_lru.recurrent_param",
            decays: false,
            dt_bias: "",
            skip: "",
            prefix: "temporal_block.rg_lru.",
            others: &[],
            norm: "",
            out: "temporal_block.linear_out",
            fused_shares: None,
        },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(&["final_w_init_variance_scale", "w_init_variance_scale", "embeddings_scale_by_sqrt_dim"]);
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        norm: Norm { ..LESS_ONE },
        qkv_bias: bias,
        out_bias: true,
        mlp_bias: true,
        activation: ("hidden_activation", "gelu_pytorch_tanh"),
        windows: Windows { used: false, default: None, slides: Slides::None },
        ropes: rotary::partial,
        softcaps: [Cap::Never, Cap::Never],
        tied: true,
        ..rotary::LLAMA
    };
    let mut arch = rotary::described(r, &own)?;
    let window = Some(r.opt_size("attention_window_size")?.unwrap_or(2048));
    arch.each_attention(|_, attention| attention.heads.window = window);
    for layer in &mut arch.layers {
        if let Channel::Mlp(mlp) = &mut layer.channel {
            // What is given counts both halves.
            *mlp = Mlp { width: mlp.width / 2, ..*mlp };
        }
    }
    let arch = Arch {
        d_mlp: arch.d_mlp / 2,
        logit_softcap: Some(r.or_default("logits_soft_cap", 30.0)?),
        // Rounded to bfloat16, in float32 too.
        embed_scale: Some(f64::from(half::bf16::from_f64((arch.d_model as f64).sqrt()).to_f32())),
        ..arch
    };
    let width = r.opt_size("lru_width")?.unwrap_or(arch.d_model);
    let kind = Kind::Lru { width, blocks: arch.n_heads, activation: Activation::GeluTanh };
    let recurrent = Recurrent { kind, conv: Some(r.size("conv1d_width")?), conv_bias: true, bias: true };
    let words = ["block_types", "_block_types"].into_iter().find_map(|key| r.take(key)).and_then(Value::as_array);
    let pattern: Vec<bool> = match words {
        Some(words) if !words.is_empty() => words.iter().map(|word| word.as_str() == Some("recurrent")).collect(),
        _ => vec![true, true, false],
    };
    rotary::with_recurrent(r, arch, recurrent, |l| pattern[l % pattern.len()])
}
