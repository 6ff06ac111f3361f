//! Zamba 2: Mamba 2 in every layer. In some, few blocks of attention and an MLP, which these share in turn, add to what it reads.

use super::{Family, Names, Tensors, llama, mamba};
use crate::model::arch::*;
use crate::model::channel::MlpWeights;
use crate::model::config::{ConfigError, Reader};
use crate::model::mixer::{FedNames, RecurrentNames};
use serde_json::{Value, json};

pub(super) static ZAMBA2: Family = Family::new("zamba2", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    final_norm: "final_layernorm",
    layer: Names {
        mlp_norm: "pre_ff_layernorm",
        mlp: MlpWeights {
            gate: Some("feed_forward.gate_up_proj"),
            up: "feed_forward.gate_up_proj",
            down: "feed_forward.down_proj",
            xielu: None,
        },
        recurrent: RecurrentNames {
            inputs: ["mamba.in_proj", "", "", "", "", ""],
            conv: "mamba.conv1d.weight",
            conv_bias: "mamba.conv1d.bias",
            decay: "mamba.A_log",
            dt_bias: "mamba.dt_bias",
            skip: "mamba.D",
            prefix: "mamba.",
            norm: "mamba.norm",
            out: "mamba.out_proj",
            ..mamba::TENSORS.layer.recurrent
        },
        fed: Some(FedNames {
            block: "shared_transformer.",
            recurrent: "mamba_decoder.",
            down: "linear",
            adapters: [
                "self_attn.linear_q_adapter_list",
                "self_attn.linear_k_adapter_list",
                "self_attn.linear_v_adapter_list",
                "feed_forward.gate_up_proj_adapter_list",
            ],
        }),
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(mamba::OF_TRAINING);
    // What follows from the other sizes, in `transformers` too.
    r.pass_over(&["attention_hidden_size", "attention_head_dim", "mamba_headdim", "kv_channels", "num_query_groups"]);
    r.pass_over(&["ffn_hidden_size", "use_mem_eff_path", "time_step_limit"]);
    r.require("use_conv_bias", &json!(true))?;
    r.require("use_shared_mlp_adapter", &json!(true))?;
    let (d_model, n_heads) = (r.size("hidden_size")?, r.size("num_attention_heads")?);
    let norm = Norm::rms(r.or_default("rms_norm_eps", 1e-5)?);
    let d_head = r.divide("num_attention_heads", d_model.saturating_mul(2), n_heads)?;
    // The flag for longer prompts changes nothing else in `transformers` 5.
    let n_ctx = if r.flag("use_long_context", false)? {
        r.pass_over(&["max_position_embeddings"]);
        16_384
    } else {
        r.size("max_position_embeddings")?
    };
    let ropes = match r.flag("use_mem_rope", false)? {
        true => vec![r.rope(d_head, n_ctx, 10_000.0, 1.0)?],
        false => {
            r.pass_over(&["rope_theta", "rope_scaling", "rope_parameters"]);
            Vec::new()
        }
    };
    let scale = (d_head as f64 / 2.0).powf(-0.5);
    let heads = Heads { n_heads, n_kv_heads: r.kv_heads(n_heads)?, d_head, scale, ..Heads::default() };
    let rope = (!ropes.is_empty()).then_some(0);
    let attention = Attention { rope, beside_embedding: true, ..Attention::plain(heads) };
    let bias = r.flag("add_bias_linear", false)?;
    let recurrent = mamba2(r, d_model, bias)?;
    let mlp = Channel::Mlp(Mlp {
        width: r.opt_size("intermediate_size")?.unwrap_or(d_model.saturating_mul(4)),
        gated: true,
        activation: r.activation("hidden_act", "gelu")?,
        xielu: false,
        cut: None,
        bias,
    });
    let (feeds, fed) = (feeding(r)?, fed(r)?);
    let (mut turn, mut layers) = (0, Vec::with_capacity(feeds.len()));
    for feeds in feeds {
        layers.push(if feeds {
            let fed = Some(Fed { turn, ..fed });
            turn += 1;
            Layer { mixer: Mixer::Both(Both { attention, recurrent, scales: [0.0, 1.0], fed }), channel: mlp }
        } else {
            Layer { mixer: Mixer::Recurrent(recurrent), channel: Channel::None }
        });
    }
    let arch = Arch::plain(r.family, [d_model, r.size("vocab_size")?, n_ctx], norm, layers);
    Ok(Arch { ropes, tied: r.flag("tie_word_embeddings", true)?, ..arch })
}

fn mamba2(r: &Reader, d_model: usize, bias: bool) -> Result<Recurrent, ConfigError> {
    let heads = r.size("n_mamba_heads")?;
    let width = d_model.saturating_mul(r.opt_size("mamba_expand")?.unwrap_or(2));
    let groups = r.opt_size("mamba_ngroups")?.unwrap_or(1);
    let kind = Kind::Mamba2 {
        heads,
        d_head: r.divide("n_mamba_heads", width, heads)?,
        d_state: r.size("mamba_d_state")?,
        groups,
        // In steps of generation too, where `transformers` 5 leaves it out.
        limits: [r.opt_number("time_step_min")?.unwrap_or(0.001), f64::INFINITY],
        norm: Some(Norm::rms(1e-5)),
        norm_groups: groups,
        gate_last: false,
    };
    Ok(Recurrent { kind, conv: Some(r.size("mamba_d_conv")?), conv_bias: true, bias })
}

/// What all blocks have alike.
fn fed(r: &Reader) -> Result<Fed, ConfigError> {
    Ok(Fed {
        turn: 0,
        blocks: r.opt_size("num_mem_blocks")?.unwrap_or(1),
        rank: r.opt_size("adapter_rank")?.unwrap_or(128),
        adapts_attention: r.flag("use_shared_attention_adapter", false)?,
    })
}

/// Of each layer, whether it has a block: by words, or, where there are none, by the numbers of those that have.
fn feeding(r: &Reader) -> Result<Vec<bool>, ConfigError> {
    const WORDS: &str = "layers_block_type";
    const NUMBERS: &str = "hybrid_layer_ids";
    let n = r.bounded_layers(r.size("num_hidden_layers")?)?;
    let numbers = r.take(NUMBERS).map(|list| {
        let list = list.as_array().map(|all| all.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>());
        list.flatten().ok_or_else(|| r.key(NUMBERS, "expected a list of layers' numbers"))
    });
    let numbered = numbers.transpose()?.map(|list| (0..n).map(|l| list.contains(&(l as u64))).collect::<Vec<bool>>());
    let feeds = |word: &&str| match *word {
        "hybrid" => Some(true),
        "mamba" | "mamba2" | "m" | "linear_attention" => Some(false),
        _ => None,
    };
    let worded = r.layer_words(WORDS, n)?.map(|words| {
        let found: Option<Vec<bool>> = words.iter().map(feeds).collect();
        found.ok_or_else(|| r.key(WORDS, "names a layer that is neither `hybrid` nor of Mamba 2 alone"))
    });
    match (worded.transpose()?, numbered) {
        (Some(words), Some(numbers)) if words != numbers => Err(
            r.key(NUMBERS, format!("names other layers than `{WORDS}`; keep the one that the model was trained with"))
        ),
        (Some(found), _) | (None, Some(found)) => Ok(found),
        (None, None) => Err(r.missing(WORDS)),
    }
}
