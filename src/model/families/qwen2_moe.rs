//! Qwen 2 with several experts in most layers, beside one that all rows go through, by a gate.

use super::qwen2::windows;
use super::{Family, InGguf, Names, Tensors, in_gguf, llama, rotary};
use crate::model::arch::{Arch, Experts, Mlp, Router, Shared};
use crate::model::channel::{ExpertNames, MlpWeights};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use serde_json::Value;

pub(super) static QWEN2_MOE: Family = Family {
    gguf: Some(InGguf { architecture: "qwen2moe", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("qwen2_moe", describe, TENSORS)
};

/// Those of Qwen 3 Next too.
pub(super) const TENSORS: Tensors =
    Tensors { layer: Names { experts: EXPERTS, ..llama::TENSORS.layer }, ..llama::TENSORS };

pub(super) const EXPERTS: ExpertNames = ExpertNames {
    shared: MlpWeights {
        gate: Some("mlp.shared_expert.gate_proj"),
        up: "mlp.shared_expert.up_proj",
        down: "mlp.shared_expert.down_proj",
        xielu: None,
    },
    shared_gate: "mlp.shared_expert_gate",
    ..llama::EXPERTS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("qkv_bias", true)?;
    let arch = rotary::described(r, &rotary::Own { qkv_bias: bias, windows: windows(r)?, ..rotary::LLAMA })?;
    mixed(r, arch, true)
}

/// A model of these keys with its experts.
pub(super) fn mixed(r: &Reader, arch: Arch, shared: bool) -> Result<Arch, ConfigError> {
    let n = r.first_size(&["num_experts", "num_local_experts"])?;
    let (chosen, width) = (r.size("num_experts_per_tok")?, r.size("moe_intermediate_size")?);
    let experts = rotary::experts(r, n, chosen, width)?;
    let router = Router { renormalised: r.flag("norm_topk_prob", false)?, ..experts.router };
    let shared = match shared {
        true => {
            let width = r.size("shared_expert_intermediate_size")?;
            Some(Shared { mlp: Mlp { width, ..experts.mlp }, gated: true })
        }
        false => None,
    };
    let dense = dense_layers(r)?;
    let every = r.opt_size("decoder_sparse_step")?.unwrap_or(1).max(1);
    let sparse = |l: usize| !dense.contains(&l) && (l + 1).is_multiple_of(every);
    Ok(rotary::with_experts(arch, Experts { router, shared, ..experts }, sparse))
}

/// The layers that have one MLP.
fn dense_layers(r: &Reader) -> Result<Vec<usize>, ConfigError> {
    const KEY: &str = "mlp_only_layers";
    let Some(list) = r.take(KEY) else { return Ok(Vec::new()) };
    let numbers = list.as_array().map(|all| all.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>());
    let numbers = numbers.flatten().ok_or_else(|| r.key(KEY, "expected a list of layers"))?;
    Ok(numbers.into_iter().map(|l| l as usize).collect())
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    in_gguf::with_experts(k, in_gguf::described(k, &in_gguf::LLAMA)?, |experts| experts)
}
