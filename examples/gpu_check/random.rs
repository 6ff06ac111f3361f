//! Models of random weights in the shapes of known ones: what they take is what the known ones take.

use crate::Failed;
use candle_core::{DType, Device};
use gatelens::model::{Model, Options};
use half::bf16;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use safetensors::{Dtype, View, serialize_to_file};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

/// The shape of a llama.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub layers: usize,
    pub d_model: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub d_mlp: usize,
    pub vocab: usize,
    /// Whether it unembeds with its embedding.
    pub tied: bool,
}

/// SmolLM2-135M.
pub const SMALL: Shape = Shape {
    name: "SmolLM2's shape",
    layers: 30,
    d_model: 576,
    heads: 9,
    kv_heads: 3,
    d_mlp: 1536,
    vocab: 49_152,
    tied: true,
};

/// Llama 2 7B.
pub const LARGE: Shape =
    Shape { name: "7B", layers: 32, d_model: 4096, heads: 32, kv_heads: 32, d_mlp: 11_008, vocab: 32_000, tied: false };

impl Shape {
    /// One that a CPU takes seconds for.
    pub fn for_cpu(self) -> Shape {
        let Shape { layers, d_model, d_mlp, vocab, .. } = self;
        Shape { name: "small", layers: layers / 5, d_model: d_model / 4, d_mlp: d_mlp / 8, vocab: vocab / 16, ..self }
    }

    fn config(&self) -> Value {
        json!({
            "model_type": "llama", "hidden_size": self.d_model, "intermediate_size": self.d_mlp,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "hidden_act": "silu", "tie_word_embeddings": self.tied,
        })
    }

    /// The tensors outside the layers, with their shapes.
    fn ends(&self) -> Vec<(String, Vec<usize>)> {
        let table = vec![self.vocab, self.d_model];
        let unembed = (!self.tied).then(|| ("lm_head.weight".to_string(), table.clone()));
        let norm = ("model.norm.weight".to_string(), vec![self.d_model]);
        [("model.embed_tokens.weight".to_string(), table), norm].into_iter().chain(unembed).collect()
    }

    /// Those of a layer.
    fn layer(&self, layer: usize) -> Vec<(String, Vec<usize>)> {
        let (d, kv) = (self.d_model, self.d_model / self.heads * self.kv_heads);
        let all: [(&str, Vec<usize>); 9] = [
            ("input_layernorm", vec![d]),
            ("post_attention_layernorm", vec![d]),
            ("self_attn.q_proj", vec![d, d]),
            ("self_attn.k_proj", vec![kv, d]),
            ("self_attn.v_proj", vec![kv, d]),
            ("self_attn.o_proj", vec![d, d]),
            ("mlp.gate_proj", vec![self.d_mlp, d]),
            ("mlp.up_proj", vec![self.d_mlp, d]),
            ("mlp.down_proj", vec![d, self.d_mlp]),
        ];
        all.into_iter().map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)).collect()
    }
}

/// A folder of random weights, which goes when this does.
pub struct Weights {
    pub shape: Shape,
    folder: PathBuf,
}

impl Weights {
    /// Writes weights of a shape in bf16, a file a layer, to a folder of their own.
    pub fn write(shape: Shape, scratch: &Path) -> Result<Weights, Failed> {
        let weights = Weights { shape, folder: scratch.join(format!("random-{}", std::process::id())) };
        let folder = &weights.folder;
        fs::create_dir_all(folder)?;
        fs::write(folder.join("config.json"), shape.config().to_string())?;
        let mut places = Map::new();
        let parts = std::iter::once(shape.ends()).chain((0..shape.layers).map(|layer| shape.layer(layer)));
        for (part, tensors) in parts.enumerate() {
            let file = format!("{part}.safetensors");
            places.extend(tensors.iter().map(|(name, _)| (name.clone(), Value::from(file.clone()))));
            let made = tensors.into_iter().enumerate().map(|(i, (name, shape))| {
                let seed = (part * 100 + i) as u64;
                (name, Made { shape, seed })
            });
            serialize_to_file(made, None, &folder.join(file))?;
        }
        let index = json!({ "metadata": {}, "weight_map": places });
        fs::write(folder.join("model.safetensors.index.json"), index.to_string())?;
        Ok(weights)
    }

    /// The model of them.
    pub fn open(&self, device: &Device, dtype: DType, max_memory: Option<u64>) -> Result<Model, Failed> {
        let options = Options { devices: vec![device.clone()], dtype, max_memory, ..Options::default() };
        Ok(Model::open(&self.folder.to_string_lossy(), &options)?)
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        // What is left goes with the scratch folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A tensor that is made when it is written: a matrix that keeps the size of what it multiplies, or a norm's ones.
struct Made {
    shape: Vec<usize>,
    seed: u64,
}

/// Bytes that one thread makes at a time.
const PIECE: usize = 1 << 20;

impl View for Made {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data_len(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let [_, inputs] = self.shape[..] else {
            return bf16::ONE.to_le_bytes().repeat(self.data_len() / 2).into();
        };
        // Even numbers of this size have a variance of 1 over the inputs.
        let size = (3.0 / inputs as f32).sqrt() / 32_768.0;
        let mut bytes = vec![0; self.data_len()];
        bytes.par_chunks_mut(PIECE).enumerate().for_each(|(i, piece)| {
            let mut random = ChaCha8Rng::seed_from_u64((self.seed << 32) + i as u64);
            random.fill_bytes(piece);
            for number in piece.chunks_exact_mut(2) {
                let value = f32::from(i16::from_le_bytes([number[0], number[1]])) * size;
                number.copy_from_slice(&bf16::from_f32(value).to_le_bytes());
            }
        });
        bytes.into()
    }
}
