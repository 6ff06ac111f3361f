//! The checkpoint's files: `config.json` and the weights in f16, as `transformers` lays a llama model out.

use super::circuit::{SIZES, Weights};
use super::codes::{BOS, END, Vocabulary};
use super::layer::{Matrix, ROPE_THETA};
use super::tokenizer::N_CTX;
use half::f16;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `config.json`.
pub fn config(vocabulary: &Vocabulary) -> Value {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary.tokens.len(),
        "max_position_embeddings": N_CTX,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": ROPE_THETA,
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": false,
        "bos_token_id": vocabulary.id(BOS),
        "eos_token_id": vocabulary.id(END),
        "torch_dtype": "float16",
    });
    for (key, size) in SIZES {
        config[key] = size.into();
    }
    config
}

/// `generation_config.json`.
pub fn generation_config(vocabulary: &Vocabulary) -> Value {
    json!({
        "bos_token_id": vocabulary.id(BOS),
        "eos_token_id": vocabulary.id(END),
        "do_sample": false,
    })
}

/// `model.safetensors`.
///
/// # Errors
/// If the format refuses a tensor.
pub fn weights(weights: &Weights) -> Result<Vec<u8>, SafeTensorError> {
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let mut vector = |name: String, values: &[f64]| tensors.insert(name, (vec![values.len()], halves(values)));
    for (l, layer) in weights.layers.iter().enumerate() {
        vector(format!("model.layers.{l}.input_layernorm.weight"), &layer.attn_norm.gain);
        vector(format!("model.layers.{l}.post_attention_layernorm.weight"), &layer.mlp_norm.gain);
    }
    vector("model.norm.weight".to_string(), &weights.final_norm);
    let mut matrix = |name: String, Matrix(rows): &Matrix| {
        let shape = vec![rows.len(), rows.first().map_or(0, Vec::len)];
        tensors.insert(name, (shape, rows.iter().flat_map(|row| halves(row)).collect()))
    };
    for (l, layer) in weights.layers.iter().enumerate() {
        for (name, values) in [("q", &layer.q), ("k", &layer.k), ("v", &layer.v), ("o", &layer.o)] {
            matrix(format!("model.layers.{l}.self_attn.{name}_proj.weight"), values);
        }
        for (name, values) in [("gate", &layer.gate), ("up", &layer.up), ("down", &layer.down)] {
            matrix(format!("model.layers.{l}.mlp.{name}_proj.weight"), values);
        }
    }
    matrix("model.embed_tokens.weight".to_string(), &weights.embed);
    matrix("lm_head.weight".to_string(), &weights.unembed);
    let views: Result<Vec<_>, SafeTensorError> = tensors
        .iter()
        .map(|(name, (shape, data))| Ok((name, TensorView::new(Dtype::F16, shape.clone(), data)?)))
        .collect();
    let about = [("format".to_string(), "pt".to_string())].into();
    safetensors::serialize(views?, Some(about))
}

/// The numbers in f16, little-endian.
fn halves(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| f16::from_f64(*x).to_le_bytes()).collect()
}
