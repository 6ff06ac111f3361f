//! nanochat: norms without weights, of the embedding and of rotated queries and keys too, rotation the other way, a plain MLP of
//! squared ReLUs, soft-capped logits.

use super::{Family, Names, Tensors, llama, rotary};
use crate::model::arch::{Arch, Gain, Norm, NormOver, QkNorm};
use crate::model::channel::MlpWeights;
use crate::model::config::{Cap, ConfigError, Reader};
use crate::model::rope::Rope;

pub(super) static NANOCHAT: Family = Family::new("nanochat", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    layer: Names {
        mlp: MlpWeights { gate: None, up: "mlp.fc1", down: "mlp.fc2", xielu: None },
        ..llama::TENSORS.layer
    },
    ..llama::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let bias = r.flag("attention_bias", false)?;
    let norm = Norm { gain: Gain::One, ..Norm::rms(1e-6) };
    let own = rotary::Own {
        norm,
        qk_norm: Some(QkNorm { of: norm, over: NormOver::Head, rotated: true }),
        qkv_bias: bias,
        out_bias: bias,
        gated: false,
        activation: ("hidden_act", "relu2"),
        softcaps: [Cap::Never, Cap::Or(15.0)],
        ropes: |r, d_head, n_ctx| Ok(vec![Rope { reversed: true, ..r.rope(d_head, n_ctx, 10_000.0, 1.0)? }]),
        ..rotary::LLAMA
    };
    let arch = rotary::described(r, &own)?;
    Ok(Arch { embed_norm: Some(arch.norm), ..arch })
}
