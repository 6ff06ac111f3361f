//! Which tensors of a checkpoint make up a decoder, and their conversion into it.
//!
//! Each family names its tensors in its own way; GGUF names them in one. A `LayerSpec` says where each part of a layer
//! is stored and which rows of what is stored belong to it: fused projections are cut apart, the query and key rows
//! that GGUF permutes are put back in order, transposed matrices are turned. Every matrix ends as `[out, in]` in the
//! compute dtype, every norm's weight in f32.

use super::arch::{Arch, Family, Mlp, NormKind, QkNorm};
use super::checkpoint::{Checkpoint, CheckpointError, Pick, Stored};
use super::decoder::Decoder;
use super::places::{Places, Weight};
use super::store::{Layers, Stream, Table};
use super::upload::Upload;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A matrix `[out, in]` with its bias `[out]`.
pub struct Linear {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

/// A norm's weight and, for layer norms, bias, in f32.
pub struct NormWeights {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

/// The weights of one layer.
pub struct LayerWeights {
    pub attn_norm: Option<NormWeights>,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub q_norm: Option<NormWeights>,
    pub k_norm: Option<NormWeights>,
    pub o: Linear,
    pub attn_post_norm: Option<NormWeights>,
    pub mlp_norm: Option<NormWeights>,
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub mlp_post_norm: Option<NormWeights>,
}

/// What went wrong while weights were loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("tensor `{tensor}` has numbers that {dtype} cannot hold; load the model with --dtype f32 or bf16")]
    Overflow { tensor: String, dtype: &'static str },
    #[error(
        "{path}: tensor `{tensor}`: a {family} decoder of {layers} layers has no use for it: the weights are not those \
         that config.json describes; take both from one checkpoint",
        path = path.display()
    )]
    Unused { path: PathBuf, tensor: String, family: Family, layers: usize },
    #[error("layer {layer}: the thread that read it stopped")]
    Stopped { layer: usize },
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Where a matrix and its bias are stored.
struct LinearSpec {
    weight: Stored,
    bias: Option<Stored>,
}

/// Where a norm is stored.
struct NormSpec {
    weight: Stored,
    bias: Option<Stored>,
}

/// Where the parts of a layer are stored.
struct LayerSpec {
    attn_norm: Option<NormSpec>,
    q: LinearSpec,
    k: LinearSpec,
    v: LinearSpec,
    q_norm: Option<NormSpec>,
    k_norm: Option<NormSpec>,
    o: LinearSpec,
    attn_post_norm: Option<NormSpec>,
    mlp_norm: Option<NormSpec>,
    gate: Option<LinearSpec>,
    up: LinearSpec,
    down: LinearSpec,
    mlp_post_norm: Option<NormSpec>,
}

/// Where the ends of the model are stored.
struct EndSpec {
    embed: Stored,
    positions: Option<Stored>,
    final_norm: NormSpec,
    unembed: Option<Stored>,
}

/// How a checkpoint becomes weights: what is stored where, and in what it is kept.
pub(super) struct WeightReader {
    arch: Arch,
    checkpoint: Checkpoint,
    dtype: DType,
    places: Places,
}

impl WeightReader {
    pub(super) fn n_layers(&self) -> usize {
        self.arch.n_layers
    }

    /// Reads one layer.
    ///
    /// # Errors
    /// If a tensor is missing, has the wrong shape or dtype, holds NaN, or does not fit the dtype.
    pub(super) fn layer(&self, layer: usize) -> Result<LayerWeights, WeightsError> {
        let upload = Upload::in_order(self.places.layer(layer));
        self.loader(upload).layer(&self.layout().layer(layer))
    }

    /// Reads one layer while the device that it is for computes another.
    ///
    /// # Errors
    /// As [`WeightReader::layer`].
    pub(super) fn layer_ahead(&self, layer: usize) -> Result<LayerWeights, WeightsError> {
        let upload = Upload::beside(self.places.layer(layer))?;
        self.loader(upload).layer(&self.layout().layer(layer))
    }

    /// Reads one tensor, for a device.
    ///
    /// # Errors
    /// As [`WeightReader::layer`].
    pub(super) fn tensor(&self, stored: &Stored, device: &Device) -> Result<Tensor, WeightsError> {
        self.loader(Upload::in_order(device)).tensor(stored)
    }

    fn layout(&self) -> Layout<'_> {
        Layout { arch: &self.arch, checkpoint: &self.checkpoint, prefix: prefix(&self.arch, &self.checkpoint) }
    }

    fn loader(&self, upload: Upload) -> Loader<'_> {
        Loader { checkpoint: &self.checkpoint, dtype: self.dtype, upload, plus_one: self.arch.norm_plus_one }
    }
}

/// Builds a decoder from a checkpoint. Weights that would take more than `max_memory` bytes are read layer by layer as they
/// are needed. The layers are split over the devices, in their order.
///
/// # Errors
/// If a tensor is missing, has the wrong shape or dtype, holds NaN, does not fit the dtype, or is in a layer and unused.
pub fn load(
    arch: Arch,
    checkpoint: Checkpoint,
    dtype: DType,
    devices: &[Device],
    max_memory: Option<u64>,
) -> Result<Decoder, WeightsError> {
    let layout = Layout { arch: &arch, checkpoint: &checkpoint, prefix: prefix(&arch, &checkpoint) };
    layout.account_for_every_tensor()?;
    let (ends, parameters) = (layout.ends(), layout.parameters());
    let places = Places::split(devices, arch.n_layers, layout.weight(&ends));
    let source = Arc::new(WeightReader { arch: arch.clone(), checkpoint, dtype, places: places.clone() });
    let streamed = max_memory.is_some_and(|most| parameters * dtype.size_in_bytes() as u64 > most);
    let table = |stored: &Stored, device: &Device| -> Result<Table, WeightsError> {
        match streamed {
            true => Ok(Table::Stored { source: source.clone(), stored: stored.clone(), device: device.clone() }),
            false => Ok(Table::Resident(source.tensor(stored, device)?)),
        }
    };
    let embed = table(&ends.embed, places.first())?;
    let unembed = match &ends.unembed {
        Some(stored) => table(stored, places.last())?,
        None if places.first().same_device(places.last()) => embed.clone(),
        None => table(&ends.embed, places.last())?,
    };
    let positions = ends.positions.as_ref().map(|stored| table(stored, places.first())).transpose()?;
    let final_norm = source.loader(Upload::in_order(places.last())).norm(&ends.final_norm)?;
    let layers = if streamed {
        Layers::Streamed(Stream::new(source.clone()))
    } else {
        let layers = (0..arch.n_layers).map(|l| Ok(Arc::new(source.layer(l)?)));
        Layers::Resident(layers.collect::<Result<Vec<_>, WeightsError>>()?)
    };
    Ok(Decoder { arch, dtype, places, parameters, embed, positions, final_norm, unembed, layers })
}

/// What stands before every name: checkpoints of a bare decoder leave the model's own name away.
fn prefix(arch: &Arch, checkpoint: &Checkpoint) -> &'static str {
    let (full, probe) = match arch.family {
        _ if matches!(checkpoint, Checkpoint::Gguf(_)) => return "",
        Family::Gpt2 => ("transformer.", "wte.weight"),
        Family::GptNeox => ("gpt_neox.", "embed_in.weight"),
        _ => ("model.", "embed_tokens.weight"),
    };
    if checkpoint.contains(probe) { "" } else { full }
}

struct Layout<'a> {
    arch: &'a Arch,
    checkpoint: &'a Checkpoint,
    prefix: &'static str,
}

/// Names of a layer's parts in one way of storing; empty where the part does not exist.
struct Names {
    attn_norm: &'static str,
    q: &'static str,
    k: &'static str,
    v: &'static str,
    q_norm: &'static str,
    k_norm: &'static str,
    o: &'static str,
    attn_post_norm: &'static str,
    mlp_norm: &'static str,
    gate: &'static str,
    up: &'static str,
    down: &'static str,
    mlp_post_norm: &'static str,
}

const LLAMA: Names = Names {
    attn_norm: "input_layernorm",
    q: "self_attn.q_proj",
    k: "self_attn.k_proj",
    v: "self_attn.v_proj",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    o: "self_attn.o_proj",
    attn_post_norm: "",
    mlp_norm: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    mlp_post_norm: "",
};

const GEMMA: Names = Names {
    attn_post_norm: "post_attention_layernorm",
    mlp_norm: "pre_feedforward_layernorm",
    mlp_post_norm: "post_feedforward_layernorm",
    ..LLAMA
};

const OLMO2: Names = Names { attn_norm: "", mlp_norm: "", ..GEMMA };

const PHI3: Names = Names {
    q: "self_attn.qkv_proj",
    k: "self_attn.qkv_proj",
    v: "self_attn.qkv_proj",
    gate: "mlp.gate_up_proj",
    up: "mlp.gate_up_proj",
    ..LLAMA
};

const GPT_NEOX: Names = Names {
    q: "attention.query_key_value",
    k: "attention.query_key_value",
    v: "attention.query_key_value",
    o: "attention.dense",
    gate: "",
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
    ..LLAMA
};

const GPT2: Names = Names {
    attn_norm: "ln_1",
    q: "attn.c_attn",
    k: "attn.c_attn",
    v: "attn.c_attn",
    o: "attn.c_proj",
    mlp_norm: "ln_2",
    gate: "",
    up: "mlp.c_fc",
    down: "mlp.c_proj",
    ..LLAMA
};

const GGUF: Names = Names {
    attn_norm: "attn_norm",
    q: "attn_q",
    k: "attn_k",
    v: "attn_v",
    q_norm: "attn_q_norm",
    k_norm: "attn_k_norm",
    o: "attn_output",
    attn_post_norm: "post_attention_norm",
    mlp_norm: "ffn_norm",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
    mlp_post_norm: "post_ffw_norm",
};

/// Names that may stand in a layer without being weights: masks and frequencies that older versions saved.
const BUFFERS: &[&str] =
    &["attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"];

impl Layout<'_> {
    fn gguf(&self) -> bool {
        matches!(self.checkpoint, Checkpoint::Gguf(_))
    }

    fn names(&self) -> &'static Names {
        match self.arch.family {
            _ if self.gguf() => &GGUF,
            Family::Gpt2 => &GPT2,
            Family::GptNeox => &GPT_NEOX,
            Family::Gemma2 | Family::Gemma3 => &GEMMA,
            Family::Olmo2 => &OLMO2,
            Family::Phi3 => &PHI3,
            Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 => &LLAMA,
        }
    }

    /// What stands before the names of all layers' tensors.
    fn layers_prefix(&self) -> String {
        match self.arch.family {
            _ if self.gguf() => "blk.".to_string(),
            Family::Gpt2 => format!("{}h.", self.prefix),
            _ => format!("{}layers.", self.prefix),
        }
    }

    fn ends(&self) -> EndSpec {
        let a = self.arch;
        let [embed, norm, unembed] = match a.family {
            _ if self.gguf() => ["token_embd", "output_norm", "output"].map(String::from),
            Family::Gpt2 => [format!("{}wte", self.prefix), format!("{}ln_f", self.prefix), "lm_head".to_string()],
            Family::GptNeox => [
                format!("{}embed_in", self.prefix),
                format!("{}final_layer_norm", self.prefix),
                // `transformers` 5 saves it under the name that all others use.
                if self.checkpoint.contains("embed_out.weight") { "embed_out" } else { "lm_head" }.to_string(),
            ],
            _ => [format!("{}embed_tokens", self.prefix), format!("{}norm", self.prefix), "lm_head".to_string()],
        };
        let table = |name: String| stored(format!("{name}.weight"), vec![a.vocab, a.d_model], Pick::All);
        let positions = stored(format!("{}wpe.weight", self.prefix), vec![a.n_ctx, a.d_model], Pick::All);
        EndSpec {
            embed: table(embed),
            positions: a.ropes.is_empty().then_some(positions),
            final_norm: self.norm(&norm, a.d_model),
            unembed: (!a.tied).then(|| table(unembed)),
        }
    }

    fn layer(&self, l: usize) -> LayerSpec {
        let (a, n) = (self.arch, self.names());
        let (before, after) = (a.placement.before(), a.placement.after());
        let at = |name: &str| format!("{}{l}.{name}", self.layers_prefix());
        let norm = |name: &str, there: bool| there.then(|| self.norm(&at(name), a.d_model));
        let qk_norm = |name: &str, heads: usize| match a.qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead => Some(self.norm(&at(name), a.d_head)),
            QkNorm::Whole => Some(self.norm(&at(name), heads * a.d_head)),
        };
        let (d, attn) = (a.d_model, a.n_heads * a.d_head);
        let [q, k, v] = self.qkv();
        let [gate, up] = self.gate_up();
        LayerSpec {
            attn_norm: norm(n.attn_norm, before),
            q: self.linear(at(n.q), d, q, a.biases.qkv),
            k: self.linear(at(n.k), d, k, a.biases.qkv),
            v: self.linear(at(n.v), d, v, a.biases.qkv),
            q_norm: qk_norm(n.q_norm, a.n_heads),
            k_norm: qk_norm(n.k_norm, a.n_kv_heads),
            o: self.linear(at(n.o), attn, whole(d), a.biases.attn_out),
            attn_post_norm: norm(n.attn_post_norm, after),
            mlp_norm: norm(n.mlp_norm, before),
            gate: (a.mlp == Mlp::Gated).then(|| self.linear(at(n.gate), d, gate, a.biases.mlp)),
            up: self.linear(at(n.up), d, up, a.biases.mlp),
            down: self.linear(at(n.down), a.d_mlp, whole(d), a.biases.mlp),
            mlp_post_norm: norm(n.mlp_post_norm, after),
        }
    }

    /// Which outputs of the stored projection are queries, keys and values.
    fn qkv(&self) -> [Outputs; 3] {
        let a = self.arch;
        let (q, kv) = (a.n_heads * a.d_head, a.n_kv_heads * a.d_head);
        match a.family {
            // GGUF files of the llama architecture interleave the halves that rotate against each other.
            Family::Llama if self.gguf() => {
                [interleaved(a.n_heads, a.d_head), interleaved(a.n_kv_heads, a.d_head), whole(kv)]
            }
            Family::Phi3 | Family::Gpt2 => {
                let total = q + 2 * kv;
                [outputs(total, 0..q), outputs(total, q..q + kv), outputs(total, q + kv..total)]
            }
            // One head after another, each with its query, key and value.
            Family::GptNeox => [0, 1, 2].map(|part| Outputs {
                stored: 3 * q,
                rows: (0..a.n_heads).map(|h| (3 * h + part) * a.d_head..(3 * h + part + 1) * a.d_head).collect(),
            }),
            _ => [whole(q), whole(kv), whole(kv)],
        }
    }

    fn gate_up(&self) -> [Outputs; 2] {
        let m = self.arch.d_mlp;
        if self.arch.family == Family::Phi3 && !self.gguf() {
            [outputs(2 * m, 0..m), outputs(2 * m, m..2 * m)]
        } else {
            [whole(m), whole(m)]
        }
    }

    fn linear(&self, name: String, inputs: usize, out: Outputs, bias: bool) -> LinearSpec {
        let transposed = self.arch.family == Family::Gpt2 && !self.gguf();
        let all = std::iter::once(0..out.stored).eq(out.rows.iter().cloned());
        let rows = |rows: Vec<Range<usize>>| if all { Pick::All } else { Pick::Rows(rows) };
        let weight = if transposed {
            let columns = out.rows.first().cloned().unwrap_or(0..out.stored);
            stored(format!("{name}.weight"), vec![inputs, out.stored], Pick::Columns(columns))
        } else {
            stored(format!("{name}.weight"), vec![out.stored, inputs], rows(out.rows.clone()))
        };
        let bias = bias.then(|| stored(format!("{name}.bias"), vec![out.stored], rows(out.rows)));
        LinearSpec { weight, bias }
    }

    fn norm(&self, name: &str, width: usize) -> NormSpec {
        let part = |what: &str| stored(format!("{name}.{what}"), vec![width], Pick::All);
        NormSpec { weight: part("weight"), bias: (self.arch.norm == NormKind::Layer).then(|| part("bias")) }
    }

    /// How many parameters the model has; a tied unembedding counts once.
    fn parameters(&self) -> u64 {
        let ends = self.ends();
        let norm = std::iter::once(&ends.final_norm.weight).chain(&ends.final_norm.bias);
        let of_ends = size([&ends.embed].into_iter().chain(&ends.positions).chain(&ends.unembed).chain(norm));
        let of_layer = size(self.layer(0).stored());
        of_ends.saturating_add(of_layer.saturating_mul(self.arch.n_layers as u64))
    }

    /// What the parts of the model take that devices share among them, in parameters.
    fn weight(&self, ends: &EndSpec) -> Weight {
        Weight {
            first: size([&ends.embed].into_iter().chain(&ends.positions)),
            layer: size(self.layer(0).stored()),
            last: size([ends.unembed.as_ref().unwrap_or(&ends.embed)]),
        }
    }

    /// A tensor of a layer that the decoder would not use means that the description and the weights do not fit.
    fn account_for_every_tensor(&self) -> Result<(), WeightsError> {
        let mut known = BTreeSet::new();
        for l in 0..self.arch.n_layers {
            known.extend(self.layer(l).stored().map(|s| s.name.clone()));
        }
        let layers = self.layers_prefix();
        let unused = |name: &String| {
            name.starts_with(&layers) && !known.contains(name) && !BUFFERS.iter().any(|b| name.ends_with(b))
        };
        match self.checkpoint.names().into_iter().find(unused) {
            Some(tensor) => Err(WeightsError::Unused {
                path: self.checkpoint.path_of(&tensor),
                tensor,
                family: self.arch.family,
                layers: self.arch.n_layers,
            }),
            None => Ok(()),
        }
    }
}

/// The numbers of all these.
fn size<'a>(stored: impl IntoIterator<Item = &'a Stored>) -> u64 {
    let one = |s: &Stored| s.picked_shape().iter().fold(1u64, |all, n| all.saturating_mul(*n as u64));
    stored.into_iter().map(one).fold(0, u64::saturating_add)
}

impl LayerSpec {
    /// Everything that the layer reads.
    fn stored(&self) -> impl Iterator<Item = &Stored> {
        let norms =
            [&self.attn_norm, &self.q_norm, &self.k_norm, &self.attn_post_norm, &self.mlp_norm, &self.mlp_post_norm];
        let linears = [
            Some(&self.q),
            Some(&self.k),
            Some(&self.v),
            Some(&self.o),
            self.gate.as_ref(),
            Some(&self.up),
            Some(&self.down),
        ];
        let of_norms = norms.into_iter().flatten().flat_map(|n| std::iter::once(&n.weight).chain(&n.bias));
        of_norms.chain(linears.into_iter().flatten().flat_map(|l| std::iter::once(&l.weight).chain(&l.bias)))
    }
}

/// Which of a stored projection's outputs are wanted.
struct Outputs {
    stored: usize,
    rows: Vec<Range<usize>>,
}

fn whole(n: usize) -> Outputs {
    outputs(n, 0..n)
}

fn outputs(stored: usize, rows: Range<usize>) -> Outputs {
    Outputs { stored, rows: vec![rows] }
}

/// The rows of a projection that llama GGUF files interleave within each head, in the order that halves rotate in.
fn interleaved(heads: usize, d_head: usize) -> Outputs {
    let row = |h: usize, i: usize, half: usize| h * d_head + 2 * i + half;
    let rows = (0..heads).flat_map(|h| (0..2).flat_map(move |half| (0..d_head / 2).map(move |i| row(h, i, half))));
    Outputs { stored: heads * d_head, rows: rows.map(|r| r..r + 1).collect() }
}

fn stored(name: String, shape: Vec<usize>, pick: Pick) -> Stored {
    Stored { name, shape, pick }
}

/// Converts stored parts into tensors.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    dtype: DType,
    upload: Upload,
    plus_one: bool,
}

impl Loader<'_> {
    fn tensor(&self, stored: &Stored) -> Result<Tensor, WeightsError> {
        let values = self.checkpoint.read(stored)?;
        if self.dtype == DType::F16 && values.iter().any(|v| v.abs() > 65_504.0) {
            return Err(WeightsError::Overflow { tensor: stored.name.clone(), dtype: "f16" });
        }
        let tensor = Tensor::from_vec(values, stored.picked_shape(), &Device::Cpu)?;
        Ok(self.upload.send(&tensor.to_dtype(self.dtype)?)?)
    }

    fn linear(&self, spec: &LinearSpec) -> Result<Linear, WeightsError> {
        let bias = spec.bias.as_ref().map(|b| self.tensor(b)).transpose()?;
        Ok(Linear { weight: self.tensor(&spec.weight)?, bias })
    }

    fn norm(&self, spec: &NormSpec) -> Result<NormWeights, WeightsError> {
        let read = |stored: &Stored, offset: f32| -> Result<Tensor, WeightsError> {
            let values: Vec<f32> = self.checkpoint.read(stored)?.into_iter().map(|v| v + offset).collect();
            Ok(self.upload.send(&Tensor::from_vec(values, stored.picked_shape(), &Device::Cpu)?)?)
        };
        let bias = spec.bias.as_ref().map(|b| read(b, 0.0)).transpose()?;
        Ok(NormWeights { weight: read(&spec.weight, f32::from(u8::from(self.plus_one)))?, bias })
    }

    fn layer(&self, spec: &LayerSpec) -> Result<LayerWeights, WeightsError> {
        let norm = |spec: &Option<NormSpec>| spec.as_ref().map(|n| self.norm(n)).transpose();
        Ok(LayerWeights {
            attn_norm: norm(&spec.attn_norm)?,
            q: self.linear(&spec.q)?,
            k: self.linear(&spec.k)?,
            v: self.linear(&spec.v)?,
            q_norm: norm(&spec.q_norm)?,
            k_norm: norm(&spec.k_norm)?,
            o: self.linear(&spec.o)?,
            attn_post_norm: norm(&spec.attn_post_norm)?,
            mlp_norm: norm(&spec.mlp_norm)?,
            gate: spec.gate.as_ref().map(|g| self.linear(g)).transpose()?,
            up: self.linear(&spec.up)?,
            down: self.linear(&spec.down)?,
            mlp_post_norm: norm(&spec.mlp_post_norm)?,
        })
    }
}
