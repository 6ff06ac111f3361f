//! GLM 4.7 Flash: latent attention, and GLM 4.5's experts.

use super::{Family, deepseek_v3, glm4_moe};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader};
use serde_json::json;

pub(super) static GLM4_MOE_LITE: Family = Family::new("glm4_moe_lite", describe, deepseek_v3::TENSORS);

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.require("rope_interleave", &json!(true))?;
    let arch = deepseek_v3::latent(r, true)?;
    glm4_moe::by_groups(r, arch, r.size("n_routed_experts")?)
}
