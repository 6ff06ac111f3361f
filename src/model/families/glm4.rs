//! GLM 4 (0414): the first GLM 4 with norms after attention and MLP too.

use super::{Family, InGguf, Names, Tensors, glm, in_gguf, rotary};
use crate::model::arch::{Arch, NormPlacement};
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static GLM4: Family = Family {
    gguf: Some(InGguf { architecture: "glm4", describe: describe_gguf, tensors: glm::IN_GGUF }),
    ..Family::new("glm4", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        attn_post_norm: "post_self_attn_layernorm",
        mlp_post_norm: "post_mlp_layernorm",
        ..glm::TENSORS.layer
    },
    ..glm::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    rotary::described(r, &rotary::Own { placement: NormPlacement::Both, ..glm::own(r)? })
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    in_gguf::described(k, &in_gguf::Own { placement: NormPlacement::Both, ..in_gguf::LLAMA })
}
