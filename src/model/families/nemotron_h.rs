//! Nemotron-H: layers of one part each: Mamba 2, attention that rotates nothing, an MLP of squared ReLUs, or several experts.

use super::{Family, InGguf, Names, Tensors, in_gguf, llama, mamba, mamba2};
use crate::model::arch::*;
use crate::model::channel::{ExpertNames, MlpWeights, StoredExperts};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::AttentionWeights;
use serde_json::json;

pub(super) static NEMOTRON_H: Family = Family {
    gguf: Some(InGguf { architecture: "nemotron_h nemotron_h_moe", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("nemotron_h", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights {
            q: "mixer.q_proj",
            k: Some("mixer.k_proj"),
            v: Some("mixer.v_proj"),
            o: "mixer.o_proj",
            ..llama::TENSORS.layer.attention
        },
        mlp_norm: "norm",
        mlp: MlpWeights { gate: None, up: "mixer.up_proj", down: "mixer.down_proj", xielu: None },
        experts: ExpertNames {
            router: "mixer.gate",
            choice_bias: "mixer.gate.e_score_correction_bias",
            each: "mixer.experts.{e}.",
            stored: StoredExperts::Each { gate: "", up: "up_proj", down: "down_proj" },
            shared: MlpWeights {
                gate: None,
                up: "mixer.shared_experts.up_proj",
                down: "mixer.shared_experts.down_proj",
                xielu: None,
            },
            ..llama::EXPERTS
        },
        ..mamba::TENSORS.layer
    },
    ..mamba::TENSORS
};

/// A layer has one norm, whatever part it has. The converter interleaves queries and keys, though nothing rotates.
const IN_GGUF: Tensors =
    Tensors { layer: Names { mlp_norm: "attn_norm", ..in_gguf::TENSORS.layer }, ..in_gguf::PERMUTED };

/// What a layer is.
#[derive(Clone, Copy)]
enum Part {
    Mamba,
    Attention,
    Mlp,
    Experts,
}

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(mamba::OF_TRAINING);
    r.pass_over(&["expand", "mamba_ssm_cache_dtype", "mtp_layers_block_type", "moe_shared_expert_overlap"]);
    r.pass_over(&["num_nextn_predict_layers", "output_router_logits", "mamba_proj_bias", "num_hidden_layers"]);
    r.require("moe_latent_size", &json!(0))?;
    r.require("mamba_hidden_act", &json!("silu"))?;
    let parts = parts(r)?;
    let (d_model, n_heads) = (r.size("hidden_size")?, r.size("num_attention_heads")?);
    let eps = r.first_number(&["layer_norm_epsilon", "norm_eps", "rms_norm_eps"])?.unwrap_or(1e-5);
    let (norm, d_head) = (Norm::rms(eps), r.first_size(&["head_dim", "attention_head_dim"])?);
    let scale = (d_head as f64).powf(-0.5);
    let heads = Heads { n_heads, n_kv_heads: r.kv_heads(n_heads)?, d_head, scale, ..Heads::default() };
    let bias = r.flag("attention_bias", false)?;
    let attention = Attention { rope: None, qkv_bias: bias, out_bias: bias, ..Attention::plain(heads) };
    let groups = r.opt_size("n_groups")?.unwrap_or(1);
    let kind = Kind::Mamba2 {
        heads: r.size("mamba_num_heads")?,
        d_head: r.size("mamba_head_dim")?,
        d_state: r.size("ssm_state_size")?,
        groups,
        limits: r.limits("time_step_limit")?,
        norm: Some(norm),
        norm_groups: groups,
        gate_last: false,
    };
    let (conv_bias, plain) = (r.flag("use_conv_bias", true)?, r.flag("use_bias", false)?);
    let recurrent = Recurrent { kind, conv: Some(r.size("conv_kernel")?), conv_bias, bias: plain };
    let activation = r.activation("mlp_hidden_act", "relu2")?;
    let width = r.size("intermediate_size")?;
    let mlp = Mlp { width, gated: false, activation, xielu: false, cut: None, bias: r.flag("mlp_bias", false)? };
    let experts = experts(r, mlp)?;
    let layer = |part: &Part| match part {
        Part::Mamba => Layer { mixer: Mixer::Recurrent(recurrent), channel: Channel::None },
        Part::Attention => Layer { mixer: Mixer::Attention(attention), channel: Channel::None },
        Part::Mlp => Layer { mixer: Mixer::None, channel: Channel::Mlp(mlp) },
        Part::Experts => Layer { mixer: Mixer::None, channel: Channel::Experts(experts) },
    };
    let (vocab, n_ctx) = (r.size("vocab_size")?, r.size("max_position_embeddings")?);
    let arch = Arch::plain(r.family, [d_model, vocab, n_ctx], norm, parts.iter().map(layer).collect());
    Ok(Arch { tied: r.flag("tie_word_embeddings", false)?, ..arch })
}

/// What each layer is: by words, or, in older files, by a letter each.
fn parts(r: &Reader) -> Result<Vec<Part>, ConfigError> {
    let older = r.opt_text("hybrid_override_pattern")?;
    let words = r.take("layers_block_type").and_then(|list| list.as_array());
    let part = |word: &str| match word {
        "linear_attention" | "mamba" | "M" => Some(Part::Mamba),
        "full_attention" | "attention" | "*" => Some(Part::Attention),
        "mlp" | "-" => Some(Part::Mlp),
        "moe" | "E" => Some(Part::Experts),
        _ => None,
    };
    let found: Option<Vec<Part>> = match (words, older) {
        (Some(words), _) => words.iter().map(|word| part(word.as_str()?)).collect(),
        (None, Some(letters)) => letters.chars().map(|letter| part(&letter.to_string())).collect(),
        (None, None) => return Err(r.missing("layers_block_type")),
    };
    let found = found.ok_or_else(|| {
        r.key("layers_block_type", "names a part of a layer other than mamba, attention, mlp and moe")
    })?;
    r.bounded_layers(found.len())?;
    Ok(found)
}

/// The experts of the layers that have such; one that is never used where the description has none.
fn experts(r: &Reader, mlp: Mlp) -> Result<Experts, ConfigError> {
    let Some(n) = r.opt_size("n_routed_experts")?.filter(|n| *n > 0) else {
        r.pass_over(&["num_experts_per_tok", "moe_intermediate_size", "moe_shared_expert_intermediate_size"]);
        r.pass_over(&["n_group", "topk_group", "n_shared_experts", "norm_topk_prob", "routed_scaling_factor"]);
        return Ok(Experts {
            n: 1,
            chosen: 1,
            mlp,
            router: Router::SOFTMAX,
            shared: None,
            weighs_input: false,
            apart: None,
        });
    };
    let (groups, kept) = (r.opt_size("n_group")?.unwrap_or(1), r.opt_size("topk_group")?.unwrap_or(1));
    let router = Router {
        scores: Scores::Sigmoid,
        choice_bias: true,
        renormalised: r.flag("norm_topk_prob", true)?,
        scale: r.opt_number("routed_scaling_factor")?.unwrap_or(1.0),
        groups: (groups > 1).then_some(Groups { n: groups, chosen: kept, best: 2 }),
        ..Router::SOFTMAX
    };
    let (width, shared) = (r.size("moe_intermediate_size")?, r.opt_size("moe_shared_expert_intermediate_size")?);
    let several = r.opt_size("n_shared_experts")?.unwrap_or(1);
    let shared = shared.filter(|_| several > 0);
    let shared = shared.map(|width| Shared { mlp: Mlp { width: width.saturating_mul(several), ..mlp }, gated: false });
    let chosen = r.size("num_experts_per_tok")?;
    Ok(Experts { n, chosen, mlp: Mlp { width, ..mlp }, router, shared, weighs_input: false, apart: None })
}

/// What each layer is, its tensors tell.
fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let (d_model, n_heads) = (k.d_model()?, k.size("attention.head_count")?);
    let (n, d_head) = (k.layers(n_heads)?, k.d_head(d_model, n_heads)?);
    let norm = Norm::rms(in_gguf::layer(k)?.eps);
    let (n_kv_heads, _) = k.kv_heads_or_none(n)?;
    let scale = (d_head as f64).powf(-0.5);
    let heads = Heads { n_heads, n_kv_heads, d_head, scale, ..Heads::default() };
    let some = |tensor: &str| k.first_with(n, tensor);
    let (qkv_bias, out_bias) = (some("attn_q.bias").is_some(), some("attn_output.bias").is_some());
    let attention = Attention { rope: None, qkv_bias, out_bias, ..Attention::plain(heads) };
    let mixer = mamba::mixer_in_gguf(k, mamba2::kind_in_gguf(k, norm)?, n)?;
    k.pass_over(&["feed_forward_length"]);
    let width = some("ffn_up.weight").and_then(|(_, shape)| shape.first().copied()).unwrap_or(0);
    let bias = some("ffn_up.bias").is_some();
    let mlp = Mlp { width, gated: false, activation: Activation::SquaredRelu, xielu: false, cut: None, bias };
    let layer = |l: usize| {
        let has = |tensor: &str| k.has(&format!("blk.{l}.{tensor}.weight"));
        match (has("ssm_in"), has("attn_q")) {
            (true, _) => Layer { mixer: Mixer::Recurrent(mixer), channel: Channel::None },
            (_, true) => Layer { mixer: Mixer::Attention(attention), channel: Channel::None },
            _ => Layer { mixer: Mixer::None, channel: Channel::Mlp(mlp) },
        }
    };
    let arch = in_gguf::of_layers(k, d_model, norm, (0..n).map(layer).collect())?;
    if some("ffn_gate_inp.weight").is_none() {
        return Ok(arch);
    }
    in_gguf::sigmoids(k)?;
    let (groups, kept) = (k.opt_size("expert_group_count")?.unwrap_or(1), k.opt_size("expert_group_used_count")?);
    let groups = (groups > 1).then_some(Groups { n: groups, chosen: kept.unwrap_or(1), best: 2 });
    let plain = |of: Mlp| Mlp { gated: false, activation: mlp.activation, ..of };
    in_gguf::with_experts(k, arch, |experts| Experts {
        mlp: plain(experts.mlp),
        shared: experts.shared.map(|shared| Shared { mlp: plain(shared.mlp), ..shared }),
        router: Router { scores: Scores::Sigmoid, groups, ..experts.router },
        ..experts
    })
}
