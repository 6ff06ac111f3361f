//! GPT-Neo: GPT-2 in matrices that are not transposed, with a window in every second layer and scores that are not scaled.

use super::{Family, Names, Qkv, Tensors, gpt2};
use crate::model::arch::*;
use crate::model::config::{ConfigError, Reader};
use crate::model::mixer::AttentionWeights;
use serde_json::Value;

pub(super) static GPT_NEO: Family = Family::new("gpt_neo", describe, TENSORS);

const TENSORS: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights {
            q: "attn.attention.q_proj",
            k: Some("attn.attention.k_proj"),
            v: Some("attn.attention.v_proj"),
            o: "attn.attention.out_proj",
            ..gpt2::TENSORS.layer.attention
        },
        ..gpt2::TENSORS.layer
    },
    qkv: Qkv::Apart,
    transposed: false,
    ..gpt2::TENSORS
};

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    let (d_model, n_layers, n_heads) = (r.size("hidden_size")?, r.size("num_layers")?, r.size("num_heads")?);
    let d_head = r.divide("hidden_size", d_model, n_heads)?;
    let width = r.opt_size("intermediate_size")?.unwrap_or(d_model.saturating_mul(4));
    let (vocab, n_ctx) = (r.size("vocab_size")?, r.size("max_position_embeddings")?);
    let norm = Norm::layer(r.or_default("layer_norm_epsilon", 1e-5)?);
    let activation = r.activation("activation_function", "gelu_new")?;
    let (windows, window) = (windows(r, r.bounded_layers(n_layers)?)?, r.size("window_size")?);
    r.pass_over(&["embed_dropout", "resid_dropout"]);
    let layer = |slides: bool| {
        let window = slides.then_some(window);
        let heads = Heads { n_heads, n_kv_heads: n_heads, d_head, scale: 1.0, window, ..Heads::default() };
        Layer {
            mixer: Mixer::Attention(Attention { rope: None, out_bias: true, ..Attention::plain(heads) }),
            channel: Channel::Mlp(Mlp { width, gated: false, activation, xielu: false, cut: None, bias: true }),
        }
    };
    Ok(Arch {
        positions: Positions::Learned { skipped: 0 },
        tied: r.flag("tie_word_embeddings", true)?,
        ..Arch::plain(r.family, [d_model, vocab, n_ctx], norm, windows.into_iter().map(layer).collect())
    })
}

/// Whether each layer has a window: `attention_layers` names them, `attention_types` repeats a pattern.
fn windows(r: &Reader, n: usize) -> Result<Vec<bool>, ConfigError> {
    let (layers, types) = (r.take("attention_layers"), r.take("attention_types"));
    let slides = |kind: &Value| match kind.as_str() {
        Some("local") => Some(true),
        Some("global") => Some(false),
        _ => None,
    };
    let pattern = |entry: &Value| -> Option<Vec<bool>> {
        let (kinds, times) = (entry.get(0)?.as_array()?, usize::try_from(entry.get(1)?.as_u64()?).ok()?);
        let kinds = kinds.iter().map(slides).collect::<Option<Vec<bool>>>()?;
        (times <= n).then(|| kinds.repeat(times))
    };
    let found = match (layers, types) {
        (Some(layers), _) => layers.as_array().and_then(|all| all.iter().map(slides).collect::<Option<Vec<bool>>>()),
        (None, Some(types)) => {
            let patterns = types.as_array().and_then(|all| all.iter().map(pattern).collect::<Option<Vec<_>>>());
            patterns.map(|patterns| patterns.concat())
        }
        (None, None) => Some((0..n).map(|l| l % 2 == 1).collect()),
    };
    let key = if layers.is_some() { "attention_layers" } else { "attention_types" };
    found
        .filter(|found| found.len() == n)
        .ok_or_else(|| r.key(key, format!("does not say `global` or `local` of each of {n} layers")))
}
