//! Llama: RMS norms, a gated MLP, rotary positions, grouped queries. Its names of tensors are those of most families. GGUF files
//! of the architecture hold Mistral and Mixtral models too.

use super::rotary::{self, described};
use super::{Family, InGguf, Names, Qkv, Tensors, in_gguf, mixtral};
use crate::model::arch::Arch;
use crate::model::channel::{ExpertNames, MlpWeights, StoredExperts};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::{AttentionWeights, RecurrentNames};
use crate::model::rope::Rope;

pub(super) static LLAMA: Family = Family {
    wrappers: &["llava", "llava_next"],
    sizes: &[
        ("vocab_size", 32_000),
        ("hidden_size", 4096),
        ("intermediate_size", 11_008),
        ("num_hidden_layers", 32),
        ("num_attention_heads", 32),
        ("max_position_embeddings", 2048),
    ],
    gguf: Some(InGguf { architecture: "llama", describe: describe_gguf, tensors: in_gguf::INTERLEAVED }),
    ..Family::new("llama", describe, TENSORS)
};

pub(super) const TENSORS: Tensors = Tensors {
    prefix: "model.",
    embed: "embed_tokens",
    embed_norm: "",
    led: [""; 2],
    positions: "",
    final_norm: "norm",
    unembed: &["lm_head"],
    layers: "layers.",
    layer: Names {
        attn_norm: "input_layernorm",
        attention: AttentionWeights {
            q: "self_attn.q_proj",
            k: Some("self_attn.k_proj"),
            v: Some("self_attn.v_proj"),
            q_norm: Some("self_attn.q_norm"),
            k_norm: Some("self_attn.k_norm"),
            sinks: None,
            gate: None,
            latent: None,
            difference: None,
            o: "self_attn.o_proj",
        },
        attn_post_norm: "",
        mlp_norm: "post_attention_layernorm",
        mlp: MlpWeights { gate: Some("mlp.gate_proj"), up: "mlp.up_proj", down: "mlp.down_proj", xielu: None },
        experts: EXPERTS,
        recurrent: RECURRENT,
        mlp_post_norm: "",
        shifts: &[],
        fed: None,
    },
    qkv: Qkv::Apart,
    transposed: false,
    interleaved: false,
    permuted: false,
    bare_mlp_norm: false,
};

/// The names of recurrent mixers in the manner of Mamba 2.
pub(super) const RECURRENT: RecurrentNames = RecurrentNames {
    inputs: ["mamba.in_proj", "", "", "", "", ""],
    conv: "mamba.conv1d.weight",
    conv_bias: "mamba.conv1d.bias",
    conv_parts: &[],
    decay: "mamba.A_log",
    decays: false,
    dt_bias: "mamba.dt_bias",
    skip: "mamba.D",
    prefix: "mamba.",
    others: &[],
    norm: "mamba.norm",
    out: "mamba.out_proj",
    fused_shares: None,
};

/// The names of experts that most families have.
pub(super) const EXPERTS: ExpertNames = ExpertNames {
    router: "mlp.gate",
    choice_bias: "mlp.gate.e_score_correction_bias",
    choice_bias_in_rows: false,
    each: "mlp.experts.{e}.",
    stored: StoredExperts::Each { gate: "gate_proj", up: "up_proj", down: "down_proj" },
    shared: MlpWeights {
        gate: Some("mlp.shared_experts.gate_proj"),
        up: "mlp.shared_experts.up_proj",
        down: "mlp.shared_experts.down_proj",
        xielu: None,
    },
    shared_gate: "",
    apart: None,
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let mlp_bias = r.flag("mlp_bias", false)?;
    described(r, &rotary::Own { qkv_bias: bias, out_bias: bias, mlp_bias, ..rotary::LLAMA })
}

/// Of Mixtral models too, which are told by their experts.
pub(super) fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let arch = in_gguf::described(k, &in_gguf::Own { ropes: whole, ..in_gguf::LLAMA })?;
    if !k.gives("expert_count") || k.first_with(arch.n_layers, "ffn_gate_inp.weight").is_none() {
        return Ok(arch);
    }
    in_gguf::with_experts(k, Arch { family: &mixtral::MIXTRAL, ..arch }, in_gguf::renormalised)
}

/// The rotation of whole heads: how the halves of a part are interleaved, no file has shown.
fn whole(k: &Keys, d_head: usize, n_ctx: usize) -> Result<Vec<Rope>, GgufConfigError> {
    let rotary = k.rotary(d_head)?;
    if rotary != d_head {
        let why = format!("is {rotary} where a head has {d_head}");
        let why = format!("{why}: partial rotation is not implemented for this architecture");
        return Err(k.bad("rope.dimension_count", why));
    }
    (in_gguf::LLAMA.ropes)(k, d_head, n_ctx)
}
