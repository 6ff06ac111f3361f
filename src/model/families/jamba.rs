//! Jamba: Mamba in place of attention in most layers, with norms of the time steps, `B` and `C`; the others rotate nothing; several
//! experts in every second layer.

use super::{Family, InGguf, Names, Tensors, bamba, in_gguf, llama, mamba, rotary};
use crate::model::arch::{Arch, Kind, Recurrent};
use crate::model::channel::ExpertNames;
use crate::model::config::{ConfigError, Reader};
use crate::model::gguf_config::{GgufConfigError, Keys};

pub(super) static JAMBA: Family = Family {
    gguf: Some(InGguf { architecture: "jamba", describe: describe_gguf, tensors: in_gguf::TENSORS }),
    ..Family::new("jamba", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        experts: ExpertNames { router: "feed_forward.router", each: "feed_forward.experts.{e}.", ..llama::EXPERTS },
        ..bamba::TENSORS.layer
    },
    ..bamba::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(mamba::OF_TRAINING);
    let own = rotary::Own { ropes: |_, _, _| Ok(Vec::new()), ..rotary::LLAMA };
    let arch = rotary::described(r, &own)?;
    let rank = match r.take("mamba_dt_rank").filter(|rank| rank.as_str() != Some("auto")) {
        None => arch.d_model.div_ceil(16),
        Some(_) => r.size("mamba_dt_rank")?,
    };
    let kind = Kind::Mamba {
        width: arch.d_model.saturating_mul(r.opt_size("mamba_expand")?.unwrap_or(2)),
        d_state: r.size("mamba_d_state")?,
        rank,
        inner: Some(arch.norm),
    };
    let (conv_bias, bias) = (r.flag("mamba_conv_bias", true)?, r.flag("mamba_proj_bias", false)?);
    let recurrent = Recurrent { kind, conv: Some(r.size("mamba_d_conv")?), conv_bias, bias };
    let every = |period: &str, offset: &str| -> Result<(usize, usize), ConfigError> {
        Ok((r.size(period)?.max(1), r.size(offset)?))
    };
    let (attention, experts) =
        (every("attn_layer_period", "attn_layer_offset")?, every("expert_layer_period", "expert_layer_offset")?);
    let at = |l: usize, (period, offset): (usize, usize)| l % period == offset;
    let n = r.size("num_experts")?;
    let of = rotary::experts(r, n, r.size("num_experts_per_tok")?, arch.d_mlp)?;
    let arch = rotary::with_experts(arch, of, |l| n > 1 && at(l, experts));
    rotary::with_recurrent(r, arch, recurrent, |l| !at(l, attention))
}

fn describe_gguf(k: &Keys) -> Result<Arch, GgufConfigError> {
    let (arch, recurrent) = in_gguf::hybrid(k, &in_gguf::Own { ropes: in_gguf::none, ..in_gguf::LLAMA })?;
    let mixer = mamba::mixer_in_gguf(k, mamba::kind_in_gguf(k, Some(arch.norm))?, arch.n_layers)?;
    let arch = rotary::replaced(arch, mixer, |l| recurrent[l]);
    // Files count experts where no layer has any.
    match k.first_with(arch.n_layers, "ffn_gate_inp.weight") {
        Some(_) => in_gguf::with_experts(k, arch, |experts| experts),
        None => {
            k.pass_over(&["expert_count", "expert_used_count"]);
            Ok(arch)
        }
    }
}
