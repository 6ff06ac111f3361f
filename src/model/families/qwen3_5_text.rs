//! Qwen 3.5: Qwen 3 Next with an MLP in every layer and projections of the delta rule that are stored apart.

use super::{Family, InGguf, Names, Tensors, qwen3_next};
use crate::model::arch::{Arch, DeltaStored};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::RecurrentNames;

pub(super) static QWEN3_5_TEXT: Family = Family {
    wrappers: &["qwen3_5"],
    gguf: Some(InGguf { architecture: "qwen35", describe: describe_gguf, tensors: IN_GGUF }),
    ..Family::new("qwen3_5_text", describe, TENSORS)
};

pub(super) const TENSORS: Tensors = Tensors {
    layer: Names {
        recurrent: RecurrentNames {
            inputs: [
                "linear_attn.in_proj_qkv",
                "linear_attn.in_proj_z",
                "linear_attn.in_proj_b",
                "linear_attn.in_proj_a",
                "",
                "",
            ],
            ..qwen3_next::TENSORS.layer.recurrent
        },
        ..qwen3_next::TENSORS.layer
    },
    ..qwen3_next::TENSORS
};

pub(super) const IN_GGUF: Tensors = Tensors {
    layer: Names {
        recurrent: RecurrentNames {
            inputs: ["attn_qkv", "attn_gate", "ssm_beta", "ssm_alpha", "", ""],
            ..qwen3_next::IN_GGUF.layer.recurrent
        },
        ..qwen3_next::IN_GGUF.layer
    },
    ..qwen3_next::IN_GGUF
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    pass_over(r);
    qwen3_next::described(r, DeltaStored::Apart, None)
}

/// Keys of training, of a head that guesses ahead, and of what all models of the family have.
pub(super) fn pass_over(r: &Reader) {
    r.pass_over(&["mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "mlp_only_layers"]);
    r.pass_over(&["attn_output_gate", "mamba_ssm_dtype"]);
}

/// Of the model with experts too, before it has them.
pub(super) fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    // How the rotation is divided over places in pictures: those of a text are all one.
    k.pass_over(&["rope.dimension_sections"]);
    qwen3_next::described_in_gguf(k, DeltaStored::InTurn)
}
