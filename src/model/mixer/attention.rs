//! Softmax attention over grouped heads: rotated or not, windowed or not, with or without norms of queries and keys.

use crate::model::arch::{Gain, Norm, positive_if_any};
use crate::model::checkpoint::Stored;
use crate::model::families::Qkv;
use crate::model::pass::{Acts, Around, Hook, Lent, norm};
use crate::model::rope::Rope;
use crate::model::weights::form::{Form, Loaded, Located, Named, Same, Translate};
use crate::model::weights::layout::{LayerLayout, NormSpec, Outputs, interleaved};
use crate::model::weights::{Linear, NormWeights};
use crate::ops::rows::Rows;
use crate::ops::{
    self, Activation, NormBy, NormKind, attention::Heads, attention::Terms, attention::chosen, attention::opened,
};
use crate::site::{Lack, SiteKind, Units};
use candle_core::{Result, Tensor};
use std::ops::Range;

/// The norms of queries and of keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QkNorm {
    pub of: Norm,
    pub over: NormOver,
    /// Whether they come after the rotation.
    pub rotated: bool,
}

/// What such a norm is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormOver {
    /// Each head by itself, one weight of `d_head` for all heads (Qwen 3, Gemma 3).
    Head,
    /// Each head by itself, with a weight of its own (Cohere).
    OwnHead,
    /// All heads together, a weight of `n_heads * d_head` (OLMo 2).
    All,
}

/// Attention, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// How many heads there are and how large each is, how scores are scaled and capped, how far back they look.
    pub heads: Heads,
    /// Which of [`super::super::arch::Arch::ropes`] turns queries and keys; none where nothing does.
    pub rope: Option<usize>,
    pub qk_norm: Option<QkNorm>,
    /// Queries, keys and values are cut off at this size on both sides (OLMo).
    pub clip: Option<f64>,
    /// Whether scores fall with the distance of keys.
    pub alibi: Option<Alibi>,
    /// Whether each head has a sink, a score that takes its share of the pattern and reads nothing (GPT-OSS).
    pub sinks: bool,
    /// Queries grow with their position.
    pub growth: Option<Growth>,
    /// Whether what each head reads is multiplied by a gate of its own (gated attention; Qiu et al. 2025).
    pub gated: bool,
    /// Queries, keys and values come by way of fewer numbers (multi-head latent attention; DeepSeek-AI 2024).
    pub latent: Option<Latent>,
    /// The earlier layer whose keys and values it reads, having none of its own (Gemma 4).
    pub shares: Option<usize>,
    /// Whether values are what keys are before their norm: one projection makes both (Gemma 4).
    pub keys_as_values: bool,
    /// The norm of each head's value, which has no parameters (Gemma 4).
    pub value_norm: Option<Norm>,
    /// What each head reads is the difference of what two patterns read.
    pub difference: Option<Difference>,
    /// Whether it reads what entered layer 0 beside the residual stream, one after the other in a row of twice the width (Zamba 2).
    pub beside_embedding: bool,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub out_bias: bool,
}

/// Differential attention (Ye et al. 2025). `heads` are those of queries, keys and patterns. A head of `z` is a pair of them, one of the
/// first half and one of the second: what the one reads less a share of what the other reads, of two values side by side, one of either
/// half of the KV heads. Then comes a norm without a weight, times what the share began with less than 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// What the share began with in training.
    pub start: f64,
    /// The norm's epsilon.
    pub eps: f64,
}

/// How scores fall with the distance of keys (ALiBi; Press et al. 2022).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alibi {
    /// The heads' slopes are powers of this share of 2: 8.
    pub most: f64,
    /// Whether scores instead gain slopes times the positions of keys, rounded to bfloat16, before they are scaled (Falcon).
    pub rounded: bool,
}

/// The narrow ways of latent attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latent {
    /// How many numbers all queries are made of, where they are made of fewer than the width.
    pub queries: Option<usize>,
    /// How many numbers all keys and values are made of, the rotated part of keys apart.
    pub keys_values: usize,
    /// How many numbers of a query and a key are rotated: all heads share those of the key.
    pub rotary: usize,
    /// What chooses the keys that each position sees, where it does not see all.
    pub index: Option<Index>,
}

/// A lightning indexer (DeepSeek-AI 2025): few small heads, whose queries are made of the narrow numbers of all queries and share one
/// key, say which keys each position sees. Which ones these are depends on what attention reads; the choice has no gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    pub heads: usize,
    pub d_head: usize,
    /// How many keys a position sees at most.
    pub top: usize,
}

/// How queries grow with their position `p`: they are multiplied by `1 + beta ln(1 + floor((p + shift) / original))`
/// (Llama 4's temperature tuning).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    pub beta: f64,
    pub original: f64,
    pub shift: f64,
}

impl Growth {
    fn at(self, position: usize) -> f32 {
        (1.0 + self.beta * (1.0 + ((position as f64 + self.shift) / self.original).floor()).ln()) as f32
    }
}

impl Attention {
    /// Attention of these heads, rotated by the model's first rotation, with nothing else.
    pub const fn plain(heads: Heads) -> Self {
        Attention {
            heads,
            rope: Some(0),
            qk_norm: None,
            clip: None,
            alibi: None,
            sinks: false,
            growth: None,
            gated: false,
            latent: None,
            shares: None,
            keys_as_values: false,
            value_norm: None,
            difference: None,
            beside_embedding: false,
            qkv_bias: false,
            out_bias: false,
        }
    }

    /// How many numbers it reads of a row, in a model of this width.
    pub(in crate::model) fn inputs(&self, d_model: usize) -> usize {
        if self.beside_embedding { 2 * d_model } else { d_model }
    }

    /// What its projections make, in the order of the flow: all three, but for attention that reads another layer's keys and values.
    fn ports(&self) -> &'static [SiteKind] {
        if self.shares.is_some() { &[SiteKind::Q] } else { &[SiteKind::Q, SiteKind::K, SiteKind::V] }
    }

    /// What a head's scores lose for each position that a key lies back: those of `transformers` for BLOOM and MPT.
    fn slopes(&self) -> Vec<f32> {
        let Some(Alibi { most, .. }) = self.alibi else { return Vec::new() };
        let n = self.heads.n_heads;
        let whole = if n.is_power_of_two() { n } else { n.next_power_of_two() / 2 };
        let power = |i: usize, of: usize| 2f64.powf(-most * i as f64 / of as f64) as f32;
        // Of other numbers of heads, the rest lies between the first.
        (0..n).map(|i| if i < whole { power(i + 1, whole) } else { power(2 * (i - whole) + 1, 2 * whole) }).collect()
    }

    pub(super) fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        if self.shares.is_some() && matches!(kind, SiteKind::K | SiteKind::V | SiteKind::RotK) {
            return Some(Lack { why: "the layer reads the keys and values of an earlier one", nearest: kind });
        }
        let nearest = match kind {
            SiteKind::RotQ => SiteKind::Q,
            SiteKind::RotK => SiteKind::K,
            SiteKind::AttnGate => {
                let lack = Lack { why: "what its heads read has no gate", nearest: SiteKind::Z };
                return (!self.gated).then_some(lack);
            }
            SiteKind::ConvIn | SiteKind::State => {
                let why = "attention keeps keys and values, and neither a state nor a convolution";
                return Some(Lack { why, nearest: SiteKind::K });
            }
            _ => return None,
        };
        let lack = Lack { why: "the layer rotates nothing", nearest };
        self.rope.is_none().then_some(lack)
    }

    pub(super) fn units(&self, kind: SiteKind, d_model: usize) -> Option<Units> {
        use SiteKind::*;
        let Heads { n_heads, n_kv_heads, d_head, .. } = self.heads;
        let d_value = self.heads.d_value();
        let (n_read, d_read) = self.read();
        Some(match kind {
            Q | RotQ => Units::Heads { n: n_heads, width: d_head },
            K | RotK => Units::Heads { n: n_kv_heads, width: d_head },
            Z | AttnGate => Units::Heads { n: n_read, width: d_read },
            V => Units::Heads { n: n_kv_heads, width: d_value },
            HeadOut => Units::Heads { n: n_read, width: d_model },
            AttnIn if self.beside_embedding => Units::Columns { width: self.inputs(d_model) },
            Scores | Pattern => Units::HeadsByKeys { n: n_heads },
            _ => return None,
        })
    }

    /// Every later position sees the last one that differs, as far as window and chunk let it look back.
    pub(super) fn reach(&self, end: usize, length: usize) -> usize {
        let in_window = self.heads.window.map_or(length, |w| length.min(end + w - 1));
        self.heads.chunk.map_or(in_window, |n| in_window.min(end.next_multiple_of(n)))
    }

    pub(super) fn by_query_head(mut self) -> Self {
        self.heads.n_kv_heads = self.heads.n_heads;
        self
    }

    pub(super) fn carried(&self) -> Vec<usize> {
        if self.shares.is_some() {
            return vec![0, 0];
        }
        let [_, keys, values, _] = self.heads.widths();
        [keys, values].into_iter().chain(self.index().map(|of| of.d_head)).collect()
    }

    /// How many heads `z` has, and how many numbers each.
    pub fn read(&self) -> (usize, usize) {
        let Heads { n_heads, .. } = self.heads;
        match self.difference {
            Some(_) => (n_heads / 2, 2 * self.heads.d_value()),
            None => (n_heads, self.heads.d_value()),
        }
    }

    /// The heads whose patterns read values, as these are side by side.
    fn reading(&self) -> Heads {
        let d_value = self.difference.map(|_| 2 * self.heads.d_value());
        Heads { d_value: d_value.or(self.heads.d_value), ..self.heads }
    }

    /// What chooses the keys that each position sees, where it does not see all.
    pub fn index(&self) -> Option<Index> {
        self.latent.and_then(|latent| latent.index)
    }

    pub(super) fn params(&self, d_model: usize) -> u64 {
        let [q, k, v, read] = self.heads.widths().map(|n| n as u64);
        let [k, v] = match (self.shares, self.keys_as_values) {
            (Some(_), _) => [0, 0],
            (None, true) => [k, 0],
            (None, false) => [k, v],
        };
        let (d, gate) = (d_model as u64, if self.gated { read } else { 0 });
        let inputs = self.inputs(d_model) as u64;
        let Some(of) = self.latent else { return inputs * (q + k + v + gate) + d * read };
        let (narrow, rotary) = (of.keys_values as u64, of.rotary as u64);
        let queries = of.queries.map_or(d * q, |n| n as u64 * (d + q));
        let index = of.index.map_or(0, |index| {
            let (heads, each) = (index.heads as u64, index.d_head as u64);
            of.queries.unwrap_or(0) as u64 * heads * each + d * (heads + each)
        });
        queries + index + d * (narrow + rotary + read + gate) + narrow * (k - self.heads.n_heads as u64 * rotary + v)
    }

    /// Scores, and what is read by them: two operations each for every number of a head and key that a row sees.
    pub(super) fn flops(&self, start: usize, rows: usize) -> f64 {
        // Position `p` sees `p + 1` keys, or as many as the window has.
        let (end, triangle) = (start + rows, |n: usize| n * (n + 1) / 2);
        let growing = self.heads.window.map_or(end, |w| end.min(w).max(start));
        let keys = triangle(growing) - triangle(start) + (end - growing) * self.heads.window.unwrap_or(0);
        let [queries, .., read] = self.reading().widths();
        let index = self.index().map_or(0, |of| of.heads * of.d_head);
        2.0 * keys as f64 * (queries + read + index) as f64
    }

    pub(super) fn check(&self, ropes: &[Rope]) -> std::result::Result<(), String> {
        let Heads { n_heads, n_kv_heads, d_head, .. } = self.heads;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(format!("{n_heads} heads do not divide over {n_kv_heads} KV heads"));
        }
        positive_if_any("the scale of attention scores", Some(self.heads.scale))?;
        positive_if_any("the soft-cap of attention scores", self.heads.softcap)?;
        let rope = self.rope.and_then(|rope| ropes.get(rope));
        if let Some(rope) = rope.filter(|r| 2 * r.pairs() > d_head || r.rotary == 0) {
            return Err(format!("{} rotated dimensions do not fit a head of {d_head}", rope.rotary));
        }
        if let Some(of) = self.latent
            && (of.rotary > d_head || n_heads != n_kv_heads || of.keys_values == 0 || of.queries == Some(0))
        {
            return Err(format!("latent attention of {of:?} does not fit {n_heads} heads of {d_head}"));
        }
        if self.keys_as_values && self.heads.d_value() != d_head || self.latent.is_some() && self.shares.is_some() {
            return Err("keys cannot stand for values here".to_string());
        }
        if let Some((latent, of)) = self.latent.and_then(|latent| Some((latent, latent.index?))) {
            let sizes = [of.heads, of.d_head, of.top];
            if latent.queries.is_none() || rope.is_none_or(|rope| 2 * rope.pairs() > of.d_head) || sizes.contains(&0) {
                return Err(format!("keys chosen by {of:?} do not fit {latent:?}"));
            }
            if self.alibi.is_some() {
                return Err("scores that fall with distance are not implemented where keys are chosen".to_string());
            }
        }
        if self.beside_embedding && (self.latent.is_some() || self.shares.is_some() || self.gated) {
            return Err("latent, gated or shared attention does not read the embedding".to_string());
        }
        if self.alibi.is_some_and(|alibi| alibi.rounded) && self.heads.softcap.is_some() {
            return Err("scores that gain with position and a soft-cap do not go together".to_string());
        }
        if let Some(of) = self.difference {
            if !n_kv_heads.is_multiple_of(2) || self.latent.is_some() || !of.start.is_finite() {
                return Err(format!("{n_heads} heads and {n_kv_heads} KV heads do not make differences of {of:?}"));
            }
            positive_if_any("the epsilon of the heads' norm", Some(of.eps))?;
        }
        if self.heads.chunk == Some(0) {
            return Err("attention within chunks of 0 positions sees nothing".to_string());
        }
        if self.heads.window == Some(0) {
            return Err("a sliding window of 0 positions sees nothing".to_string());
        }
        Ok(())
    }

    pub(super) fn stored(&self, at: &LayerLayout) -> AttentionWeights<Located> {
        let (names, d_model, inputs) = (&at.tensors.layer.attention, at.d_model, self.inputs(at.d_model));
        if let Some(of) = self.latent {
            return self.stored_latent(of, at);
        }
        let [queries, .., read] = self.heads.widths();
        let order = self.order(at);
        let [q, k, v] = self.outputs(at.tensors.qkv);
        // Under one name each head's gate follows its query.
        let (q, gate) = match self.gated && names.gate == Some(names.q) {
            true => (self.half(2 * queries, 0), self.half(2 * queries, 1)),
            false => (q, Outputs::whole(read)),
        };
        let [q, k] = [q, k].map(|outputs| match &order {
            Some(order) => outputs.reordered(order),
            None => outputs,
        });
        let qk_norm = |name: Option<&str>, heads: usize| {
            self.qk_norm.map(|norm| self.norm(norm, at, name.unwrap_or_default(), heads, order.as_deref()))
        };
        let own = self.shares.is_none();
        let of_own = |name: Option<&str>, outputs: Outputs| {
            own.then(|| at.linear(name.unwrap_or_default(), inputs, outputs, self.qkv_bias))
        };
        AttentionWeights {
            q: at.linear(names.q, inputs, q, self.qkv_bias),
            k: of_own(names.k, k),
            // Read twice and multiplied twice: so an edit or a gradient at `k` or `v` is of that alone.
            v: of_own(if self.keys_as_values { names.k } else { names.v }, v),
            q_norm: qk_norm(names.q_norm, self.heads.n_heads),
            k_norm: qk_norm(names.k_norm, self.heads.n_kv_heads).filter(|_| own),
            sinks: self.sinks.then(|| at.numbers(names.sinks.unwrap_or_default(), vec![self.heads.n_heads])),
            gate: self.gated.then(|| at.linear(names.gate.unwrap_or_default(), inputs, gate, self.qkv_bias)),
            latent: None,
            difference: self.difference.and(names.difference.as_ref()).map(|names| {
                let number = |name: &str| at.numbers(name, vec![self.heads.d_head]);
                DifferenceWeights {
                    q1: number(names.q1),
                    k1: number(names.k1),
                    q2: number(names.q2),
                    k2: number(names.k2),
                }
            }),
            o: at.linear(names.o, read, Outputs::whole(d_model), self.out_bias),
        }
    }

    /// Every second of the heads' parts in `stored` outputs.
    fn half(&self, stored: usize, half: usize) -> Outputs {
        let d = self.heads.d_head;
        Outputs { stored, rows: (0..stored / (2 * d)).map(|h| (2 * h + half) * d..(2 * h + half + 1) * d).collect() }
    }

    /// Where latent attention is stored. Heads have what is rotated last; here it comes first.
    fn stored_latent(&self, of: Latent, at: &LayerLayout) -> AttentionWeights<Located> {
        let (names, d_model, bias) = (&at.tensors.layer.attention, at.d_model, self.qkv_bias);
        let named = names.latent.as_ref();
        let name = |part: fn(&LatentWeights<Named>) -> Option<&'static str>| named.and_then(part).unwrap_or_default();
        let (heads, d, d_value) = (self.heads.n_heads, self.heads.d_head, self.heads.d_value());
        let still = d - of.rotary;
        let turned = match at.tensors.interleaved {
            true => interleaved(of.rotary, of.rotary),
            false => (0..of.rotary).collect(),
        };
        let order: Vec<usize> = turned.iter().map(|i| still + i).chain(0..still).collect();
        let inner = Norm::rms(1e-6);
        let all = of.keys_values + of.rotary;
        let part = |from: usize, n: usize| Outputs {
            stored: heads * (still + d_value),
            rows: (0..heads).map(|h| h * (still + d_value) + from..h * (still + d_value) + from + n).collect(),
        };
        let keys = Outputs::of(all, of.keys_values..all).reordered(&turned);
        let queries = Outputs::whole(heads * d).reordered(&order);
        let (q, inputs) = of.queries.map_or((names.q, d_model), |n| (name(|l| l.q_up), n));
        // Under two names keys' matrices are stored as they multiply queries, and values' as they are (GGUF).
        let (apart, whole) = (names.k != names.v, |name: &str| format!("{name}.weight"));
        AttentionWeights {
            q: at.linear(q, inputs, queries, false),
            k: names.k.map(|name| match apart {
                true => at.turned_each(&whole(name), [heads, of.keys_values, still]),
                false => at.linear(name, of.keys_values, part(0, still), false),
            }),
            v: names.v.map(|name| match apart {
                true => at.each(&whole(name), [heads, d_value, of.keys_values]),
                false => at.linear(name, of.keys_values, part(still, d_value), false),
            }),
            q_norm: None,
            k_norm: None,
            sinks: None,
            gate: None,
            difference: None,
            latent: Some(LatentWeights {
                q_up: None,
                q: of.queries.map(|n| at.linear(name(|l| l.q), d_model, Outputs::whole(n), bias)),
                q_norm: of.queries.map(|n| at.norm(name(|l| l.q_norm), inner, n)),
                kv: Some(at.linear(name(|l| l.kv), d_model, Outputs::of(all, 0..of.keys_values), bias)),
                kv_norm: Some(at.norm(name(|l| l.kv_norm), inner, of.keys_values)),
                k_rotary: Some(at.linear(name(|l| l.kv), d_model, keys, bias)),
                index: of.index.zip(named.and_then(|of| of.index.as_ref())).map(|(index, names)| IndexWeights {
                    q: at.linear(
                        names.q,
                        of.queries.unwrap_or(d_model),
                        Outputs::whole(index.heads * index.d_head),
                        false,
                    ),
                    k: at.linear(names.k, d_model, Outputs::whole(index.d_head), false),
                    k_norm: at.norm(names.k_norm, Norm::layer(1e-6), index.d_head),
                    weights: at.linear(names.weights, d_model, Outputs::whole(index.heads), false),
                }),
            }),
            o: at.linear(names.o, heads * d_value, Outputs::whole(d_model), self.out_bias),
        }
    }

    /// The order of a head's numbers in checkpoints that interleave the halves which turn against each other.
    fn order(&self, at: &LayerLayout) -> Option<Vec<usize>> {
        let d_head = self.heads.d_head;
        if at.tensors.permuted {
            return Some(interleaved(d_head, d_head));
        }
        let rope = self.rope.and_then(|rope| at.arch.ropes.get(rope)).filter(|_| at.tensors.interleaved)?;
        Some(interleaved(d_head, rope.rotary))
    }

    /// The norm of the queries or keys of some heads.
    fn norm(&self, norm: QkNorm, at: &LayerLayout, name: &str, heads: usize, order: Option<&[usize]>) -> NormSpec {
        let d = self.heads.d_head;
        let spec = |width: usize| at.norm(name, norm.of, width);
        let found = match norm.over {
            NormOver::Head => spec(d),
            NormOver::OwnHead => {
                let own = |stored: Stored| Stored { shape: vec![heads, d], ..stored };
                let spec = spec(heads * d);
                NormSpec { group: d, weight: spec.weight.map(own), bias: spec.bias.map(own), ..spec }
            }
            NormOver::All => spec(heads * d),
        };
        let order = order.filter(|_| norm.of.gain != Gain::One && !norm.rotated);
        let order = order.map(|order| (0..found.width).step_by(d).flat_map(|head| order.iter().map(move |i| head + i)));
        NormSpec { order: order.map(Iterator::collect), ..found }
    }

    /// Which outputs of the stored projections are queries, keys and values.
    fn outputs(&self, stored: Qkv) -> [Outputs; 3] {
        let Heads { n_heads, n_kv_heads, d_head, .. } = self.heads;
        let [q, k, v, _] = self.heads.widths();
        let heads = |rows: &dyn Fn(usize) -> Range<usize>, n: usize, stored| Outputs {
            stored,
            rows: (0..n).map(rows).collect(),
        };
        match stored {
            Qkv::Apart => [q, k, v].map(Outputs::whole),
            Qkv::InTurn => {
                let all = q + k + v;
                [Outputs::of(all, 0..q), Outputs::of(all, q..q + k), Outputs::of(all, q + k..all)]
            }
            Qkv::ByHead => {
                [0, 1, 2].map(|part| heads(&|h| (3 * h + part) * d_head..(3 * h + part + 1) * d_head, n_heads, 3 * q))
            }
            Qkv::ByGroup => {
                let group = n_heads / n_kv_heads;
                let (wide, all) = ((group + 2) * d_head, q + k + v);
                let part = |from: usize, n: usize| heads(&|g| g * wide + from..g * wide + from + n, n_kv_heads, all);
                [part(0, group * d_head), part(group * d_head, d_head), part((group + 1) * d_head, d_head)]
            }
        }
    }
}

/// The parts of attention.
pub struct AttentionWeights<F: Form = Loaded> {
    pub q: F::Matrix,
    /// Keys and values have none where they are another layer's ([`Attention::shares`]).
    pub k: Option<F::Matrix>,
    pub v: Option<F::Matrix>,
    pub q_norm: Option<F::Norm>,
    pub k_norm: Option<F::Norm>,
    /// A number a head.
    pub sinks: Option<F::Numbers>,
    pub gate: Option<F::Matrix>,
    pub latent: Option<LatentWeights<F>>,
    pub difference: Option<DifferenceWeights<F>>,
    pub o: F::Matrix,
}

/// What the share of the second pattern is made of, a number of each for every number of a query.
pub struct DifferenceWeights<F: Form = Loaded> {
    pub q1: F::Numbers,
    pub k1: F::Numbers,
    pub q2: F::Numbers,
    pub k2: F::Numbers,
}

impl<F: Form> DifferenceWeights<F> {
    fn translate<G: Form, T: Translate<F, G>>(&self, to: &T) -> std::result::Result<DifferenceWeights<G>, T::Error> {
        let [q1, k1, q2, k2] = [&self.q1, &self.k1, &self.q2, &self.k2].map(|part| to.numbers(part));
        Ok(DifferenceWeights { q1: q1?, k1: k1?, q2: q2?, k2: k2? })
    }
}

impl DifferenceWeights {
    /// How much of what the second pattern reads is taken off.
    fn share(&self, of: Difference) -> Result<f64> {
        let product = |q: &Tensor, k: &Tensor| -> Result<f64> {
            let terms = ops::to_vec(q)?.into_iter().zip(ops::to_vec(k)?);
            Ok(terms.map(|(q, k)| f64::from(q) * f64::from(k)).sum::<f64>().exp())
        };
        Ok(product(&self.q1, &self.k1)? - product(&self.q2, &self.k2)? + of.start)
    }
}

/// The narrow parts of latent attention: what queries, and keys and values, are made of.
pub struct LatentWeights<F: Form = Loaded> {
    /// Only as a name: that of queries' second matrix, where they have two.
    pub q_up: Option<F::Matrix>,
    pub q: Option<F::Matrix>,
    pub q_norm: Option<F::Norm>,
    pub kv: Option<F::Matrix>,
    pub kv_norm: Option<F::Norm>,
    /// The part of keys that is rotated, the same for all heads.
    pub k_rotary: Option<F::Matrix>,
    pub index: Option<IndexWeights<F>>,
}

/// The parts of an [`Index`].
pub struct IndexWeights<F: Form = Loaded> {
    /// Of the narrow numbers of queries.
    pub q: F::Matrix,
    pub k: F::Matrix,
    pub k_norm: F::Norm,
    /// How much each head counts.
    pub weights: F::Matrix,
}

impl<F: Form> IndexWeights<F> {
    fn translate<G: Form, T: Translate<F, G>>(&self, to: &T) -> std::result::Result<IndexWeights<G>, T::Error> {
        let (q, k) = (to.matrix(&self.q)?, to.matrix(&self.k)?);
        Ok(IndexWeights { q, k, k_norm: to.norm(&self.k_norm)?, weights: to.matrix(&self.weights)? })
    }
}

impl<F: Form> LatentWeights<F> {
    fn translate<G: Form, T: Translate<F, G>>(&self, to: &T) -> std::result::Result<LatentWeights<G>, T::Error> {
        Ok(LatentWeights {
            q_up: to.matrix_if(&self.q_up)?,
            q: to.matrix_if(&self.q)?,
            q_norm: to.norm_if(&self.q_norm)?,
            kv: to.matrix_if(&self.kv)?,
            kv_norm: to.norm_if(&self.kv_norm)?,
            k_rotary: to.matrix_if(&self.k_rotary)?,
            index: self.index.as_ref().map(|index| index.translate(to)).transpose()?,
        })
    }
}

impl<F: Form> AttentionWeights<F> {
    pub(super) fn translate<G: Form, T: Translate<F, G>>(
        &self,
        to: &T,
    ) -> std::result::Result<AttentionWeights<G>, T::Error> {
        Ok(AttentionWeights {
            q: to.matrix(&self.q)?,
            k: to.matrix_if(&self.k)?,
            v: to.matrix_if(&self.v)?,
            q_norm: to.norm_if(&self.q_norm)?,
            k_norm: to.norm_if(&self.k_norm)?,
            sinks: to.numbers_if(&self.sinks)?,
            gate: to.matrix_if(&self.gate)?,
            latent: self.latent.as_ref().map(|latent| latent.translate(to)).transpose()?,
            difference: self.difference.as_ref().map(|difference| difference.translate(to)).transpose()?,
            o: to.matrix(&self.o)?,
        })
    }
}

impl AttentionWeights {
    /// Those of a shape whose heads share keys and values, for one whose heads share none.
    pub(super) fn by_query_head(&self, shape: &Attention) -> Result<AttentionWeights> {
        let same = self.translate(&Same)?;
        let Heads { n_heads, n_kv_heads, d_head, .. } = shape.heads;
        if n_heads == n_kv_heads {
            return Ok(same);
        }
        let rows = |d: usize| -> Vec<u32> {
            let of_head = |head: usize| (0..d).map(move |i| (head * n_kv_heads / n_heads * d + i) as u32);
            (0..n_heads).flat_map(of_head).collect()
        };
        // A norm over all heads together weighs each as often as it is there, which leaves its mean as it is.
        let k_norm = match (&self.k_norm, shape.qk_norm) {
            (Some(norm), Some(QkNorm { over: NormOver::All | NormOver::OwnHead, .. })) => {
                let by = NormBy { group: if norm.by.group == d_head { d_head } else { n_heads * d_head }, ..norm.by };
                Some(NormWeights { by, ..norm.of_rows(&rows(d_head))? })
            }
            (norm, _) => norm.clone(),
        };
        let of_rows = |matrix: &Option<Linear>, d: usize| matrix.as_ref().map(|m| m.of_rows(&rows(d))).transpose();
        let (k, v) = (of_rows(&self.k, d_head)?, of_rows(&self.v, shape.heads.d_value())?);
        Ok(AttentionWeights { k, v, k_norm, ..same })
    }

    pub(in crate::model) fn forward(
        &self,
        shape: &Attention,
        around: &Around,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        use SiteKind::*;
        let l = around.layer;
        let x = acts.take(AttnIn)?;
        for port in shape.ports() {
            acts.put(*port, self.normed(shape, *port, &self.project(shape, *port, &x, None)?, None)?);
        }
        if let Some(gate) = &self.gate {
            acts.put(AttnGate, ops::activate(&gate.apply(&x)?, Activation::Sigmoid)?);
        }
        match shape.index() {
            // Kept as a live value of the pass, so that rows which the hook adds have it too.
            Some(_) => acts.put(AttnIn, x),
            None => drop(x),
        }
        for kind in shape.ports() {
            hook.at(kind.at(l), acts)?;
        }
        self.rotate(shape, around, acts, hook)?;
        let z = self.attend(shape, around, acts, hook)?;
        acts.put(Z, z);
        if shape.gated {
            hook.at(AttnGate.at(l), acts)?;
            let gated = (acts.take(Z)? * acts.take(AttnGate)?)?;
            acts.put(Z, gated);
        }
        hook.at(Z.at(l), acts)?;
        super::projected(&self.o, Some(shape.read().0), around, acts, hook)
    }

    /// A port's projection of what attention reads, before the port's norm. `[rows, d_model]` to `[rows, width]`; where `of` says
    /// which head each row is for, that head's part alone, `[rows, width of a head]`
    pub(crate) fn project(
        &self,
        shape: &Attention,
        port: SiteKind,
        x: &Tensor,
        of: Option<&[usize]>,
    ) -> Result<Tensor> {
        let matrix = self.matrix(port)?;
        let heads = if port == SiteKind::Q { shape.heads.n_heads } else { shape.heads.n_kv_heads };
        let applied = |x: &Tensor| match of {
            None => matrix.apply(x),
            Some(of) => matrix.apply_by_group(x, of, matrix.weight.dims()?.0 / heads),
        };
        let Some(latent) = &self.latent else { return applied(x) };
        let made = match port {
            SiteKind::Q => applied(&narrow(x, &latent.q, &latent.q_norm)?)?,
            _ => applied(&narrow(x, &latent.kv, &latent.kv_norm)?)?,
        };
        let (SiteKind::K, Some(rotary)) = (port, &latent.k_rotary) else { return Ok(made) };
        // All heads have the same.
        let (rows, heads) = (x.dim(0)?, if of.is_some() { 1 } else { heads });
        let turned = rotary.apply(x)?.unsqueeze(1)?;
        let turned = turned.broadcast_as((rows, heads, turned.dim(2)?))?;
        Tensor::cat(&[&turned, &made.reshape((rows, heads, ()))?], 2)?.reshape((rows, ()))
    }

    /// A port's projection after its norm, if it has one before rotation, and cut off where it is to be; `of` is that of
    /// [`AttentionWeights::project`], where no norm goes over several heads.
    pub(crate) fn normed(
        &self,
        shape: &Attention,
        port: SiteKind,
        projected: &Tensor,
        of: Option<&[usize]>,
    ) -> Result<Tensor> {
        if let (SiteKind::V, Some(norm)) = (port, shape.value_norm) {
            return NormWeights::plain(norm, shape.heads.d_value(), projected.device())?.apply(projected);
        }
        let before = self.norm_of(port).filter(|_| shape.qk_norm.is_some_and(|norm| !norm.rotated));
        let normed = match (before, of) {
            (Some(weights), Some(of)) => weights.apply_by_group(projected, of)?,
            (weights, _) => norm(projected, weights)?,
        };
        match shape.clip {
            Some(most) => normed.clamp(-most, most),
            None => Ok(normed),
        }
    }

    /// The projection of queries, keys or values.
    fn matrix(&self, port: SiteKind) -> Result<&Linear> {
        let found = match port {
            SiteKind::Q => Some(&self.q),
            SiteKind::K => self.k.as_ref(),
            _ => self.v.as_ref(),
        };
        found.ok_or_else(|| candle_core::Error::Msg(format!("the layer has no `{port}` of its own")))
    }

    /// The norm of queries or keys.
    fn norm_of(&self, port: SiteKind) -> Option<&NormWeights> {
        match port {
            SiteKind::Q => self.q_norm.as_ref(),
            SiteKind::K => self.k_norm.as_ref(),
            _ => None,
        }
    }

    /// Whether a port's norm is over all heads together, so that what one head reads moves the others.
    pub(crate) fn norms_across(&self, shape: &Attention, port: SiteKind) -> bool {
        shape.qk_norm.is_some_and(|norm| norm.over == NormOver::All) && self.norm_of(port).is_some()
    }
}

/// The narrow numbers that latent attention makes queries, or keys and values, of.
fn narrow(x: &Tensor, matrix: &Option<Linear>, of: &Option<NormWeights>) -> Result<Tensor> {
    match matrix {
        Some(matrix) => norm(&matrix.apply(x)?, of.as_ref()),
        None => Ok(x.clone()),
    }
}

impl AttentionWeights {
    /// What a head's scores have beside the products.
    fn terms(&self, shape: &Attention) -> Result<Terms> {
        let sinks = self.sinks.as_ref().map(ops::to_vec).transpose()?.unwrap_or_default();
        let rounded = shape.alibi.filter(|alibi| alibi.rounded).map(|_| shape.heads.scale as f32);
        Ok(Terms { slopes: shape.slopes().into(), rounded, sinks: sinks.into(), chosen: None })
    }

    /// Which keys each row sees, where the layer chooses them by what it reads, which must be live then.
    fn choose(
        &self,
        shape: &Attention,
        around: &Around,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Option<chosen::Chosen>> {
        let weights = self.latent.as_ref().and_then(|latent| Some((latent, latent.index.as_ref()?)));
        let (Some(of), Some((latent, index))) = (shape.index(), weights) else { return Ok(None) };
        let (x, rows) = (acts.take(SiteKind::AttnIn)?.detach(), &acts.rows);
        let turned = |x: Tensor| match shape.rope.and_then(|rope| around.angles.get(rope)) {
            Some((cos, sin)) => ops::rotate(&x, of.d_head, cos, sin, &rows.entries),
            None => Ok(x),
        };
        let queries = turned(index.q.apply(&narrow(&x, &latent.q, &latent.q_norm)?)?)?;
        let keys = turned(norm(&index.k.apply(&x)?, Some(&index.k_norm))?)?;
        let keys = &hook.carry(around.layer, 2, keys)?;
        let (queries, weights) = (&queries, &index.weights.apply(&x)?);
        chosen::chosen(&chosen::Index { queries, weights, keys, top: of.top }, rows, shape.heads).map(Some)
    }

    /// `z` of queries, keys and values that are not rotated yet, `[rows, width]` each.
    pub(crate) fn attended(
        &self,
        shape: &Attention,
        around: &Around,
        [q, k, v]: [&Tensor; 3],
        rows: &Rows,
    ) -> Result<Tensor> {
        let rotated = |port: SiteKind, x: &Tensor| self.turned(shape, around, port, x, rows);
        let (q, k) = (rotated(SiteKind::Q, q)?, rotated(SiteKind::K, k)?);
        let z = ops::attention::attend(&q, &k, &side_by_side(shape, v)?, rows, shape.reading(), &self.terms(shape)?)?;
        self.less_its_share(shape, z)
    }

    /// What pairs of heads read, where they are read as differences. `[rows, n_heads * 2 * d_value]` to half as many
    fn less_its_share(&self, shape: &Attention, z: Tensor) -> Result<Tensor> {
        let (Some(of), Some(weights)) = (shape.difference, &self.difference) else { return Ok(z) };
        let (width, group) = (z.dim(1)? / 2, shape.read().1);
        let (first, second) = (z.narrow(1, 0, width)?, z.narrow(1, width, width)?);
        let difference = (first - (second * weights.share(of)?)?)?;
        let gain = Tensor::full((1.0 - of.start) as f32, group, z.device())?;
        ops::norm(&difference, &gain, None, NormBy { kind: NormKind::Rms, eps: of.eps, group })
    }

    /// Queries or keys as their products are taken: rotated, with what else comes after.
    fn turned(&self, shape: &Attention, around: &Around, port: SiteKind, x: &Tensor, rows: &Rows) -> Result<Tensor> {
        let x = match shape.rope.and_then(|rope| around.angles.get(rope)) {
            Some((cos, sin)) => ops::rotate(x, shape.heads.d_head, cos, sin, &rows.entries)?,
            None => x.clone(),
        };
        let x = norm(&x, self.norm_of(port).filter(|_| shape.qk_norm.is_some_and(|norm| norm.rotated)))?;
        match shape.growth.filter(|_| port == SiteKind::Q) {
            Some(growth) => {
                let by: Vec<f32> = rows.positions().map(|p| growth.at(p)).collect();
                x.broadcast_mul(&Tensor::from_vec(by, (rows.len(), 1), x.device())?.to_dtype(x.dtype())?)
            }
            None => Ok(x),
        }
    }

    /// `q` and `k` to `rot_q` and `rot_k`; where nothing rotates, they are passed on.
    fn rotate(&self, shape: &Attention, around: &Around, acts: &mut Acts, hook: &mut dyn Hook) -> Result<()> {
        let all = [(SiteKind::Q, SiteKind::RotQ), (SiteKind::K, SiteKind::RotK)];
        let own = all.into_iter().filter(|(from, _)| shape.ports().contains(from));
        for (from, to) in own.clone() {
            let x = acts.take(from)?;
            let turned = self.turned(shape, around, from, &x, &acts.rows)?;
            acts.put(to, turned);
        }
        for (_, to) in own.filter(|_| shape.rope.is_some()) {
            hook.at(to.at(around.layer), acts)?;
        }
        Ok(())
    }

    /// The keys, rotated, and values that the layer reads: its own, which are left to those layers that read them too, or another's.
    fn keys_values(
        &self,
        shape: &Attention,
        around: &Around,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<[Tensor; 2]> {
        let l = around.layer;
        if let Some(lender) = shape.shares {
            return Ok([acts.loans.get(Lent::Keys(lender))?.clone(), acts.loans.get(Lent::Values(lender))?.clone()]);
        }
        let k = hook.carry(l, 0, acts.take(SiteKind::RotK)?)?;
        let v = hook.carry(l, 1, acts.take(SiteKind::V)?)?;
        if around.arch.is_shared(l) {
            acts.loans.lend(Lent::Keys(l), k.clone());
            acts.loans.lend(Lent::Values(l), v.clone());
        }
        Ok([k, v])
    }

    /// `z` of all rows: by the kernel, and step by step for the spans that the hook opens.
    fn attend(&self, shape: &Attention, around: &Around, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        let (l, heads) = (around.layer, shape.reading());
        let terms = Terms { chosen: self.choose(shape, around, acts, hook)?, ..self.terms(shape)? };
        let q = acts.take(SiteKind::RotQ)?;
        let [k, v] = self.keys_values(shape, around, acts, hook)?;
        let v = side_by_side(shape, &v)?;
        let z = ops::attention::attend(&q, &k, &v, &acts.rows, heads, &terms)?;
        let opened_spans = hook.opened(l)?;
        if opened_spans.is_empty() {
            return self.less_its_share(shape, z);
        }
        let mut parts: Vec<Tensor> = Vec::new();
        for (i, span) in acts.rows.spans.iter().enumerate() {
            parts.push(if opened_spans.contains(&i) {
                let scores = opened::scores_with(&q, &k, span, heads, &terms)?;
                let scores = hook.at_opened(SiteKind::Scores.at(l), i, scores)?;
                let pattern = opened::pattern_beside(&scores, &terms)?;
                let pattern = hook.at_opened(SiteKind::Pattern.at(l), i, pattern)?;
                opened::z(&pattern, &v, span, heads)?
            } else {
                z.narrow(0, span.rows.start, span.rows.len())?
            });
        }
        self.less_its_share(shape, Tensor::cat(&parts, 0)?)
    }
}

/// Values as patterns read them: where heads are read as differences, each KV head has two, one of either half. `[rows, n_kv_heads *
/// d_value]` to twice as many
fn side_by_side(shape: &Attention, v: &Tensor) -> Result<Tensor> {
    if shape.difference.is_none() {
        return Ok(v.clone());
    }
    let (rows, width) = v.dims2()?;
    let half = shape.heads.n_kv_heads / 2;
    let pairs =
        v.reshape((rows, 2, half, width / (2 * half)))?.transpose(1, 2)?.contiguous()?.reshape((rows, width))?;
    Tensor::cat(&[&pairs, &pairs], 1)
}
