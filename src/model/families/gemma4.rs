//! Gemma 4: Gemma 3 with norms of plain weights, values with a norm of their own, scores that are not scaled, and full layers whose
//! heads are larger and fewer and turn in part. The last layers read the keys and values of earlier ones; each layer may add an
//! embedding of the token of its own, and multiplies the residual stream by a number. Some models have experts beside the MLP.

use super::{Family, Names, Tensors, gemma2, llama, rotary};
use crate::model::arch::*;
use crate::model::channel::{ApartWeights, ExpertNames, MlpWeights, StoredExperts};
use crate::model::config::{Cap, ConfigError, Reader, Slides, Windows};
use crate::model::rope::{Rope, Scaling};
use serde_json::Value;

pub(super) static GEMMA4: Family = Family {
    wrappers: &["gemma4"],
    sizes: &[
        ("vocab_size", 262_144),
        ("hidden_size", 2304),
        ("intermediate_size", 9216),
        ("num_hidden_layers", 30),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("max_position_embeddings", 131_072),
    ],
    ..Family::new("gemma4_text", describe, TENSORS)
};

const TENSORS: Tensors = Tensors {
    layer: Names {
        experts: ExpertNames {
            router: "router.proj",
            stored: StoredExperts::Stacked { gate_up: "experts.gate_up_proj", down: "experts.down_proj" },
            shared: MlpWeights { gate: Some("mlp.gate_proj"), up: "mlp.up_proj", down: "mlp.down_proj", xielu: None },
            apart: Some(ApartWeights {
                read: "pre_feedforward_layernorm_2",
                router: "router.scale",
                each: "router.per_expert_scale",
                routed: "post_feedforward_layernorm_2",
                shared: "post_feedforward_layernorm_1",
            }),
            ..llama::EXPERTS
        },
        ..gemma2::TENSORS.layer
    },
    ..gemma2::TENSORS
};

const FULL: &str = "full_attention";

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    refuse(r)?;
    let bias = r.flag("attention_bias", false)?;
    let own = rotary::Own {
        d_head: Some(256),
        placement: NormPlacement::Both,
        qk_norm: rotary::BY_HEAD,
        qkv_bias: bias,
        out_bias: bias,
        activation: ("hidden_activation", "gelu_pytorch_tanh"),
        softcaps: [Cap::Never, Cap::Given],
        windows: Windows { used: true, default: Some(512), slides: Slides::AllButEvery(6) },
        // The larger heads of full layers have theirs below.
        ropes: |r, d_head, n_ctx| {
            let plain = Rope { base: 1e4, rotary: d_head, scaling: Scaling::None, reversed: false };
            let sliding = r.rope_of("sliding_attention", d_head, n_ctx, 1e4)?.unwrap_or(plain);
            Ok(vec![sliding.clone(), sliding])
        },
        scaled_embedding: true,
        tied: true,
        ..rotary::LLAMA
    };
    let mut arch = rotary::described(r, &own)?;
    full_layers(r, &mut arch)?;
    shared_layers(r, &mut arch, 0)?;
    arch.per_layer = per_layer(r, arch.vocab)?;
    arch.layer_scalars = true;
    beside_experts(r, arch)
}

/// What the decoder does not do.
fn refuse(r: &Reader) -> Result<(), ConfigError> {
    // Of text alone, what it says of images changes nothing.
    match r.opt_text("use_bidirectional_attention")? {
        None | Some("vision") => Ok(()),
        Some(other) => {
            Err(r.key("use_bidirectional_attention", format!("is {other}; gatelens reads from left to right")))
        }
    }
}

/// Gives full layers their heads and their rotation, and all layers what their attention has in common.
fn full_layers(r: &Reader, arch: &mut Arch) -> Result<(), ConfigError> {
    if let Some(last) = arch.layers.last_mut()
        && let Mixer::Attention(attention) = &mut last.mixer
        && attention.heads.window.take().is_some()
    {
        r.warn("the last layer sees all positions, whatever `layer_types` says of it, as in transformers".to_string());
        attention.rope = Some(0);
    }
    let full: Vec<usize> = (0..arch.n_layers).filter(|l| arch.layers[*l].mixer.window().is_none()).collect();
    let keys_as_values = r.flag("attention_k_eq_v", false)?;
    let own_heads = of_full_layers(r, arch, &full, keys_as_values)?;
    let mut d_full = None;
    arch.each_attention(|l, attention| {
        attention.heads.scale = 1.0;
        attention.value_norm = attention.qk_norm.map(|norm| Norm { gain: Gain::One, ..norm.of });
        if let Some([d_head, n_kv_heads]) = full.contains(&l).then_some(own_heads) {
            (attention.heads.d_head, attention.heads.n_kv_heads) = (d_head, n_kv_heads);
            attention.keys_as_values = keys_as_values;
            d_full = Some(d_head);
        }
    });
    if let Some(d_head) = d_full {
        let scaling = Scaling::Proportional { share: 0.25, factor: 1.0 };
        let default = Rope { base: 1e6, rotary: d_head, scaling, reversed: false };
        arch.ropes[0] = r.rope_of(FULL, d_head, arch.n_ctx, 1e6)?.unwrap_or(default);
        arch.d_head = arch.d_head.max(d_head);
    }
    let kv = |layer: &Layer| layer.mixer.heads().map_or(0, |heads| heads.n_kv_heads);
    arch.n_kv_heads = arch.layers.iter().map(kv).max().unwrap_or(0);
    Ok(())
}

/// The size of a head of full layers, and how many KV heads these have: by the keys of releases, or by the list that
/// `transformers` 5 writes of the layers that differ.
fn of_full_layers(r: &Reader, arch: &Arch, full: &[usize], keys_as_values: bool) -> Result<[usize; 2], ConfigError> {
    const LIST: &str = "per_layer_config";
    let (d_head, heads) = (r.opt_size("global_head_dim")?, r.opt_size("num_global_key_value_heads")?);
    let Some(list) = r.take(LIST) else {
        let d_head = d_head.unwrap_or_else(|| r.assumed("global_head_dim", 512));
        return Ok([d_head, heads.filter(|_| keys_as_values).unwrap_or(arch.n_kv_heads)]);
    };
    let of_layer = |l: &usize| {
        let given = list.get(l.to_string()).or_else(|| list.get(FULL));
        let size = |key: &str| given.and_then(|given| given.get(key)).and_then(Value::as_u64).map(|n| n as usize);
        let known = given
            .and_then(Value::as_object)
            .is_none_or(|given| given.keys().all(|key| ["head_dim", "num_key_value_heads"].contains(&key.as_str())));
        known.then(|| [size("head_dim").unwrap_or(arch.d_head), size("num_key_value_heads").unwrap_or(arch.n_kv_heads)])
    };
    let mut found = full.iter().map(of_layer);
    let others = list.as_object().map_or(0, |list| list.keys().filter(|key| !known(key, full)).count());
    match found.next().flatten().filter(|first| others == 0 && found.all(|other| other == Some(*first))) {
        Some(found) => Ok(found),
        None => Err(r.key(
            LIST,
            "is not understood: gatelens runs full layers whose heads are all alike, of their own size and number",
        )),
    }
}

/// Whether a key of the list is of a full layer.
fn known(key: &str, full: &[usize]) -> bool {
    key == FULL || full.iter().any(|l| key == l.to_string())
}

/// The last layers read the keys and values of the last layer before them that sees as far; their MLP may be twice as wide. Where it is
/// not said how many do, so many do.
pub(super) fn shared_layers(r: &Reader, arch: &mut Arch, default: usize) -> Result<(), ConfigError> {
    const KEY: &str = "num_kv_shared_layers";
    let given = r.opt_size(KEY)?;
    let n = given.unwrap_or_else(|| if default > 0 { r.assumed(KEY, default) } else { 0 });
    let wide = r.flag("use_double_wide_mlp", false)?;
    if n >= arch.n_layers {
        return Err(r.key(KEY, format!("is {n}: no layer of {} is left to have keys and values", arch.n_layers)));
    }
    let first = arch.n_layers - n;
    let windows: Vec<Option<usize>> = arch.layers.iter().map(|layer| layer.mixer.window()).collect();
    for l in first..arch.n_layers {
        let Some(lender) = (0..first).rev().find(|earlier| windows[*earlier] == windows[l]) else {
            return Err(r.key(KEY, format!("is {n}: layer {l} has no earlier layer that sees as far as it does")));
        };
        let layer = &mut arch.layers[l];
        if let Mixer::Attention(attention) = &mut layer.mixer {
            (attention.shares, attention.keys_as_values, attention.value_norm) = (Some(lender), false, None);
        }
        if let Channel::Mlp(mlp) = &mut layer.channel {
            mlp.width *= if wide { 2 } else { 1 };
            arch.d_mlp = arch.d_mlp.max(mlp.width);
        }
    }
    Ok(())
}

/// Puts experts beside every layer's MLP, where the model has such.
fn beside_experts(r: &Reader, mut arch: Arch) -> Result<Arch, ConfigError> {
    if !r.flag("enable_moe_block", false)? {
        r.pass_over(&["num_experts", "top_k_experts", "moe_intermediate_size"]);
        return Ok(arch);
    }
    let (n, chosen) = (r.size("num_experts")?, r.size("top_k_experts")?);
    let width = r.size("moe_intermediate_size")?;
    let router = Router { renormalised: true, ..Router::SOFTMAX };
    for layer in &mut arch.layers {
        if let Channel::Mlp(mlp) = layer.channel {
            let shared = Some(Shared { mlp, gated: false });
            let mlp = Mlp { width, ..mlp };
            let apart = Some(arch.norm);
            layer.channel = Channel::Experts(Experts { n, chosen, mlp, router, shared, weighs_input: false, apart });
        }
    }
    Ok(arch)
}

/// The per-layer embeddings, of so many tokens where it is not said; none where their width is 0.
pub(super) fn per_layer(r: &Reader, vocab: usize) -> Result<Option<PerLayer>, ConfigError> {
    let or = |key: &str, default: usize| Ok(r.opt_size(key)?.unwrap_or_else(|| r.assumed(key, default)));
    let (width, vocab) = (or("hidden_size_per_layer_input", 256)?, or("vocab_size_per_layer_input", vocab)?);
    let activation = r.activation("hidden_activation", "gelu_pytorch_tanh")?;
    Ok((width > 0).then_some(PerLayer { width, vocab, activation }))
}
