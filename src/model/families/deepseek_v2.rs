//! DeepSeek V2: latent attention, several experts after the first layers, chosen by groups, beside those that all rows go through.

use super::{Family, InGguf, Tensors, deepseek_v3, glm4_moe};
use crate::model::arch::{Arch, Channel, Groups, Router, Scores};
use crate::model::config::{ConfigError, Reader};
use serde_json::json;

pub(super) static DEEPSEEK_V2: Family = Family {
    gguf: Some(InGguf {
        architecture: "deepseek2",
        describe: deepseek_v3::describe_gguf,
        tensors: Tensors { ..deepseek_v3::IN_GGUF },
    }),
    ..Family::new("deepseek_v2", describe, Tensors { ..deepseek_v3::TENSORS })
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.require("scoring_func", &json!("softmax"))?;
    r.pass_over(&["seq_aux", "aux_loss_alpha", "topk_method"]);
    let by_groups = r.take("topk_method").and_then(|method| method.as_str()) == Some("group_limited_greedy");
    let arch = deepseek_v3::latent(r, true)?;
    let normed = r.flag("norm_topk_prob", false)?;
    let mut arch = glm4_moe::by_groups(r, arch, r.size("n_routed_experts")?)?;
    for layer in &mut arch.layers {
        if let Channel::Experts(experts) = &mut layer.channel {
            let groups = experts.router.groups.filter(|_| by_groups).map(|groups| Groups { best: 1, ..groups });
            experts.router = Router {
                scores: Scores::Softmax,
                choice_bias: false,
                renormalised: normed,
                // Renormalised weights are not scaled.
                scale: if normed { 1.0 } else { experts.router.scale },
                groups,
                ..experts.router
            };
        }
    }
    Ok(arch)
}
