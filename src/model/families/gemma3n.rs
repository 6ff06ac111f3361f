//! Gemma 3n: Gemma 4's attention, shared keys and values and embeddings of each layer's own, on the first of several residual
//! streams. The gates of the first layers open only where they are far above their mean; layers may differ in width.

use super::{Family, gemma2, gemma4, rotary};
use crate::model::arch::*;
use crate::model::config::{Cap, ConfigError, Reader, Slides, Windows};
use serde_json::{Value, json};

pub(super) static GEMMA3N: Family = Family {
    wrappers: &["gemma3n"],
    sizes: &[
        ("vocab_size", 262_400),
        ("hidden_size", 2048),
        ("intermediate_size", 16_384),
        ("num_hidden_layers", 35),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 2),
        ("max_position_embeddings", 32_768),
    ],
    ..Family::new("gemma3n_text", describe, gemma2::TENSORS)
};

/// Keys of training, and the scale of scores, which `transformers` does not read: it is 1.
const NOT_READ: &[&str] = &["altup_coef_clip", "altup_lr_multiplier", "query_pre_attn_scalar"];

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    r.pass_over(NOT_READ);
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        d_head: Some(256),
        placement: NormPlacement::Both,
        qk_norm: rotary::BY_HEAD,
        qkv_bias: bias,
        out_bias: bias,
        activation: ("hidden_activation", "gelu_pytorch_tanh"),
        softcaps: [Cap::Never, Cap::Or(30.0)],
        windows: Windows { used: true, default: Some(512), slides: Slides::AllButEvery(5) },
        ropes: |r, d_head, n_ctx| r.global_and_local_ropes(d_head, n_ctx, [1e6, 1e4]),
        scaled_embedding: true,
        tied: true,
        ..rotary::LLAMA
    };
    let n = r.bounded_layers(r.size("num_hidden_layers")?)?;
    let (widths, cuts) = (widths(r, n)?, cuts(r, n)?);
    let widest = widths.iter().copied().max().unwrap_or(0);
    let mut arch = rotary::of_sizes(r, &own, &rotary::Sizes::with_mlp(r, own.d_head, widest)?)?;
    for (layer, (width, cut)) in arch.layers.iter_mut().zip(widths.into_iter().zip(cuts)) {
        if let Channel::Mlp(mlp) = &mut layer.channel {
            (mlp.width, mlp.cut) = (width, cut);
        }
    }
    arch.each_attention(|_, attention| {
        attention.heads.scale = 1.0;
        attention.value_norm = attention.qk_norm.map(|norm| Norm { gain: Gain::One, ..norm.of });
    });
    gemma4::shared_layers(r, &mut arch, 15)?;
    arch.per_layer = gemma4::per_layer(r, 262_144)?;
    arch.stream = Stream::Several(streams(r)?);
    Ok(arch)
}

/// The residual streams. `transformers` reads any of them as the one that layers work on; all releases have the first.
fn streams(r: &Reader) -> Result<AltUp, ConfigError> {
    r.require("altup_active_idx", &json!(0))?;
    let or = |key: &str, default: usize| Ok(r.opt_size(key)?.unwrap_or_else(|| r.assumed(key, default)));
    let (streams, rank) = (or("altup_num_inputs", 4)?, or("laurel_rank", 64)?);
    Ok(AltUp { streams, rank, scaled: r.flag("altup_correct_scale", true)? })
}

/// How wide each layer's MLP is: one number for all, or one a layer.
fn widths(r: &Reader, n: usize) -> Result<Vec<usize>, ConfigError> {
    const KEY: &str = "intermediate_size";
    let Some(Value::Array(all)) = r.take(KEY) else { return Ok(vec![r.size(KEY)?; n]) };
    let found: Option<Vec<usize>> = all.iter().map(|width| width.as_u64()?.try_into().ok()).collect();
    let found = found.filter(|found| found.len() == n);
    found.ok_or_else(|| r.key(KEY, format!("expected a whole number, or a list of {n}, one a layer")))
}

/// By how many deviations a gate must be above the mean in each layer: so many that of normally distributed gates the share that is
/// given stays shut. None where it is 0.
fn cuts(r: &Reader, n: usize) -> Result<Vec<Option<f64>>, ConfigError> {
    const KEY: &str = "activation_sparsity_pattern";
    let shares: Option<Vec<f64>> = match r.take(KEY) {
        // By default, the first ten layers of more are sparse.
        None => {
            let sparse = if n > 10 { 10 } else { 0 };
            r.assumed(KEY, format!("0.95 in the first {sparse} layers"));
            Some((0..n).map(|l| if l < sparse { 0.95 } else { 0.0 }).collect())
        }
        Some(given) => given.as_array().and_then(|all| all.iter().map(Value::as_f64).collect()),
    };
    let shares = shares.filter(|shares| shares.len() == n && shares.iter().all(|share| (0.0..1.0).contains(share)));
    let shares = shares.ok_or_else(|| r.key(KEY, format!("expected a list of {n} shares below 1, one a layer")))?;
    Ok(shares.into_iter().map(|share| (share > 0.0).then(|| deviations(share))).collect())
}

/// How many deviations above the mean of a normal distribution this share of it ends.
fn deviations(share: f64) -> f64 {
    2f64.sqrt() * candle_core::cpu::erf::erf_inv(2.0 * share - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_ends_where_tables_of_the_normal_distribution_say() {
        for (share, expected) in [(0.5, 0.0), (0.9, 1.281_551_565_5), (0.95, 1.644_853_626_9)] {
            assert!((deviations(share) - expected).abs() < 1e-9, "{share}: {}", deviations(share));
        }
    }
}
