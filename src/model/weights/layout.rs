//! Where each part of a decoder is stored in a checkpoint, by the family's own names, or GGUF's: which tensor, in which
//! shape, and which of its rows. Reading them is left to [`super`].

use super::WeightsError;
use crate::model::arch::{Arch, Family, Mlp, NormKind, QkNorm};
use crate::model::checkpoint::{Checkpoint, Pick, Stored};
use crate::model::places::Weight;
use std::collections::BTreeSet;
use std::ops::Range;

/// Where a matrix and its bias are stored.
pub(super) struct LinearSpec {
    pub weight: Stored,
    pub bias: Option<Stored>,
}

/// Where a norm is stored.
pub(super) struct NormSpec {
    pub weight: Stored,
    pub bias: Option<Stored>,
}

/// Where the parts of a layer are stored.
pub(super) struct LayerSpec {
    pub attn_norm: Option<NormSpec>,
    pub q: LinearSpec,
    pub k: LinearSpec,
    pub v: LinearSpec,
    pub q_norm: Option<NormSpec>,
    pub k_norm: Option<NormSpec>,
    pub o: LinearSpec,
    pub attn_post_norm: Option<NormSpec>,
    pub mlp_norm: Option<NormSpec>,
    pub gate: Option<LinearSpec>,
    pub up: LinearSpec,
    pub down: LinearSpec,
    pub mlp_post_norm: Option<NormSpec>,
}

/// Where the ends of the model are stored.
pub(super) struct EndSpec {
    pub embed: Stored,
    pub positions: Option<Stored>,
    pub final_norm: NormSpec,
    pub unembed: Option<Stored>,
}

/// What stands before every name, found by the first layer's last matrix: checkpoints of a bare decoder leave the model's
/// own name away, and those of a model with other parts, such as one that reads images, put more before it.
fn prefix(arch: &Arch, checkpoint: &Checkpoint) -> String {
    let (usual, layer, embed) = match arch.family {
        _ if matches!(checkpoint, Checkpoint::Gguf(_)) => return String::new(),
        Family::Gpt2 => ("transformer.", "h.0.mlp.c_proj.weight", "wte.weight"),
        Family::GptNeox => ("gpt_neox.", "layers.0.mlp.dense_4h_to_h.weight", "embed_in.weight"),
        _ => ("model.", "layers.0.mlp.down_proj.weight", "embed_tokens.weight"),
    };
    let at = |prefix: &str, name: &str| checkpoint.contains(&format!("{prefix}{name}"));
    let names = checkpoint.names();
    let found = names.iter().filter_map(|name| name.strip_suffix(layer)).filter(|p| p.is_empty() || p.ends_with('.'));
    // Another part may have layers of the same names; the decoder has its embedding beside them.
    let found = found.min_by_key(|p| (!at(p, embed), *p != usual, p.len()));
    let bare = if at("", embed) { "" } else { usual };
    found.unwrap_or(bare).to_string()
}

/// A checkpoint, read as a description says.
pub(super) struct Layout<'a> {
    arch: &'a Arch,
    checkpoint: &'a Checkpoint,
    prefix: String,
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

/// Names that may stand there without being weights: masks and frequencies, some of which older versions saved.
const BUFFERS: &[&str] =
    &["attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias", "rotary_emb.inv_freq", ROPE_FREQS];

/// A GGUF file's frequencies, which [`super::gguf_config`] reads.
const ROPE_FREQS: &str = "rope_freqs.weight";

impl<'a> Layout<'a> {
    pub fn new(arch: &'a Arch, checkpoint: &'a Checkpoint) -> Self {
        Layout { arch, checkpoint, prefix: prefix(arch, checkpoint) }
    }

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

    /// The names of the embedding, the final norm and the unembedding.
    fn end_names(&self) -> [String; 3] {
        let at = |name: &str| format!("{}{name}", self.prefix);
        match self.arch.family {
            _ if self.gguf() => ["token_embd", "output_norm", "output"].map(String::from),
            Family::Gpt2 => [at("wte"), at("ln_f"), self.head(&["lm_head"])],
            // `transformers` 5 saves the unembedding under the name that all others use.
            Family::GptNeox => [at("embed_in"), at("final_layer_norm"), self.head(&["embed_out", "lm_head"])],
            _ => [at("embed_tokens"), at("norm"), self.head(&["lm_head"])],
        }
    }

    /// The unembedding's name: the one of these that is there, beside the decoder or beside one of those that it is in.
    fn head(&self, names: &[&str]) -> String {
        let mut outer: Vec<&str> = self.prefix.match_indices('.').map(|(i, _)| &self.prefix[..=i]).collect();
        outer.insert(0, "");
        let mut all = names.iter().flat_map(|name| outer.iter().rev().map(move |outer| format!("{outer}{name}")));
        let found = all.find(|name| self.checkpoint.contains(&format!("{name}.weight")));
        found.unwrap_or_else(|| "lm_head".to_string())
    }

    /// Where the embedding is stored: a tied one may be there under the unembedding's name alone.
    fn embed(&self) -> Stored {
        let [embed, _, head] = self.end_names().map(|name| self.table(&name));
        let elsewhere =
            self.arch.tied && !self.checkpoint.contains(&embed.name) && self.checkpoint.contains(&head.name);
        if elsewhere { head } else { embed }
    }

    /// A table with a row for every token.
    fn table(&self, name: &str) -> Stored {
        stored(format!("{name}.weight"), vec![self.arch.vocab, self.arch.d_model], Pick::All)
    }

    /// Where an unembedding of its own is stored, if there is one.
    pub fn own_unembed(&self) -> Stored {
        let [_, _, unembed] = self.end_names();
        self.table(&unembed)
    }

    pub fn ends(&self) -> EndSpec {
        let a = self.arch;
        let [_, norm, _] = self.end_names();
        let positions = stored(format!("{}wpe.weight", self.prefix), vec![a.n_ctx, a.d_model], Pick::All);
        EndSpec {
            embed: self.embed(),
            positions: a.ropes.is_empty().then_some(positions),
            final_norm: self.norm(&norm, a.d_model),
            unembed: (!a.tied).then(|| self.own_unembed()),
        }
    }

    pub fn layer(&self, l: usize) -> LayerSpec {
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
    pub fn parameters(&self) -> u64 {
        let of_ends = size(self.ends().stored());
        let of_layer = size(self.layer(0).stored());
        of_ends.saturating_add(of_layer.saturating_mul(self.arch.n_layers as u64))
    }

    /// What the parts of the model take that devices share among them, in parameters.
    pub fn weight(&self, ends: &EndSpec) -> Weight {
        Weight {
            first: size([&ends.embed].into_iter().chain(&ends.positions)),
            layer: size(self.layer(0).stored()),
            last: size([ends.unembed.as_ref().unwrap_or(&ends.embed)]),
        }
    }

    /// Holds every tensor that the model is of to what it must be, as far as can be told without its numbers.
    ///
    /// # Errors
    /// If one is missing, or has the wrong shape or dtype.
    pub fn check(&self) -> Result<(), WeightsError> {
        self.ends().stored().try_for_each(|stored| self.checkpoint.check(stored))?;
        for l in 0..self.arch.n_layers {
            self.layer(l).stored().try_for_each(|stored| self.checkpoint.check(stored))?;
        }
        Ok(())
    }

    /// Every tensor must have its use. One of a layer without means that the description and the weights do not fit; those
    /// outside the layers are returned, as a warning.
    pub fn account_for_every_tensor(&self) -> Result<Option<String>, WeightsError> {
        let mut known = BTreeSet::from([self.own_unembed().name]);
        known.extend(self.ends().stored().map(|s| s.name.clone()));
        for l in 0..self.arch.n_layers {
            known.extend(self.layer(l).stored().map(|s| s.name.clone()));
        }
        let names = self.checkpoint.names().into_iter();
        let unused = names.filter(|name| !known.contains(name) && !BUFFERS.iter().any(|b| name.ends_with(b)));
        let unused = unused.filter(|name| !self.checkpoint.is_scale(name));
        let layers = self.layers_prefix();
        let (inside, outside): (Vec<String>, Vec<String>) = unused.partition(|name| name.starts_with(&layers));
        if let Some(tensor) = inside.into_iter().next() {
            let why = match self.checkpoint {
                Checkpoint::Safetensors(_) => {
                    "the weights are not those that config.json describes; take both from one checkpoint"
                }
                Checkpoint::Gguf(_) => "the file is of a variant of the architecture that gatelens does not run",
            };
            let (family, layers) = (self.arch.family, self.arch.n_layers);
            return Err(WeightsError::Unused { path: self.checkpoint.path_of(&tensor), tensor, family, layers, why });
        }
        Ok(outside.split_first().map(|(first, rest)| {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            format!("tensor `{first}`{more}: a {} decoder has no use for it; it is not read", self.arch.family)
        }))
    }
}

/// The numbers of all these.
fn size<'a>(stored: impl IntoIterator<Item = &'a Stored>) -> u64 {
    let one = |s: &Stored| s.picked_shape().iter().fold(1u64, |all, n| all.saturating_mul(*n as u64));
    stored.into_iter().map(one).fold(0, u64::saturating_add)
}

impl EndSpec {
    /// Everything that the ends read.
    fn stored(&self) -> impl Iterator<Item = &Stored> {
        let norm = std::iter::once(&self.final_norm.weight).chain(&self.final_norm.bias);
        std::iter::once(&self.embed).chain(&self.positions).chain(&self.unembed).chain(norm)
    }
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
