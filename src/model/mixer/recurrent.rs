//! Recurrent mixers: what a layer has in place of attention where it keeps a state instead of all keys and values.
//!
//! All go one way: projections of what the layer reads, a short causal convolution in most, a linear recurrence ([`ops::scan`]) in
//! most, a gate and a norm, an output projection. [`Kind`] says what stands at each step. What is before the output projection is the
//! site `z`, by head where there are heads, and what comes after it is `attn_out`; both are also called `mix_z` and `mix_out`.

use super::Carried;
use super::delta::{DeltaShape, DeltaStored};
use super::rwkv::{self, Dynamic};
use super::states::{States, Steps};
use crate::model::arch::{Norm, positive_if_any};
use crate::model::checkpoint::{Pick, Stored};
use crate::model::pass::{Acts, Around, Hook};
use crate::model::weights::Linear;
use crate::model::weights::form::{Form, Loaded, Located, Translate};
use crate::model::weights::layout::{LayerLayout, NormSpec, Outputs};
use crate::ops::{self, Activation, NormBy, NormKind, Recurrence};
use crate::site::{Lack, SiteKind, Units};
use candle_core::{D, DType, Result, Tensor};
use std::ops::Range;

/// A recurrent mixer, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recurrent {
    pub kind: Kind,
    /// How many positions the convolution reads; none where there is none.
    pub conv: Option<usize>,
    /// Whether the convolution has a bias.
    pub conv_bias: bool,
    /// Whether the projections in and out have biases.
    pub bias: bool,
}

/// What a recurrent mixer does between its projections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// The gated delta rule (Yang et al. 2025): value heads share key heads; the norm of what they give, then a SiLU gate.
    Delta { key_heads: usize, value_heads: usize, d_key: usize, d_value: usize, norm: Norm, stored: DeltaStored },
    /// The same with a decay of each channel of the keys and a sigmoid gate (Kimi Team 2025).
    Channelwise { heads: usize, d_head: usize, rank: usize, norm: Norm },
    /// Mamba 2 (Dao and Gu 2024): heads with one decay each, `groups` of which share `B` and `C`; a gate, then a norm.
    Mamba2 {
        heads: usize,
        d_head: usize,
        d_state: usize,
        groups: usize,
        /// What time steps are cut off at.
        limits: [f64; 2],
        /// None where there is the gate alone.
        norm: Option<Norm>,
        /// How many parts of what heads give are normed apart.
        norm_groups: usize,
        /// Whether the gate comes after the norm.
        gate_last: bool,
    },
    /// Mamba (Gu and Dao 2023): each channel by itself, with a decay for every number of its state.
    Mamba {
        width: usize,
        d_state: usize,
        rank: usize,
        /// Norms of the time steps, `B` and `C`.
        inner: Option<Norm>,
    },
    /// Lightning attention (Qin et al. 2024): linear attention whose heads have a decay each that does not depend on what is read; a
    /// norm over all heads, then a sigmoid gate.
    Lightning {
        heads: usize,
        d_head: usize,
        /// Of queries, keys and values.
        activation: Activation,
        /// What the heads' slopes are multiplied by, whose powers of e^-1 are the decays: powers of 2, as those of ALiBi.
        slope: f64,
        norm: Norm,
    },
    /// A convolution alone, gated before and after (LFM 2).
    Short { width: usize },
    /// The RG-LRU (De et al. 2024): one number of state a channel, gates by blocks.
    Lru { width: usize, blocks: usize, activation: Activation },
    /// RWKV-4 (Peng et al. 2023): channels by themselves.
    Wkv { width: usize },
    /// RWKV-7 (Peng et al. 2025).
    Dynamic(Dynamic),
}

impl Recurrent {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Delta { .. } => "a gated delta rule",
            Kind::Channelwise { .. } => "a delta rule by channel",
            Kind::Mamba2 { .. } => "Mamba 2",
            Kind::Mamba { .. } => "Mamba",
            Kind::Lightning { .. } => "lightning attention",
            Kind::Short { .. } => "a short convolution",
            Kind::Lru { .. } => "an RG-LRU",
            Kind::Wkv { .. } => "RWKV-4",
            Kind::Dynamic(_) => "RWKV-7",
        }
    }

    /// Numbers that the output projection reads.
    pub fn width(&self) -> usize {
        match self.kind {
            Kind::Delta { value_heads, d_value, .. } => value_heads * d_value,
            Kind::Channelwise { heads, d_head, .. }
            | Kind::Mamba2 { heads, d_head, .. }
            | Kind::Lightning { heads, d_head, .. } => heads * d_head,
            Kind::Mamba { width, .. } | Kind::Short { width } | Kind::Lru { width, .. } | Kind::Wkv { width } => width,
            Kind::Dynamic(of) => of.width(),
        }
    }

    /// How many heads there are, where what they give is told apart.
    pub fn heads(&self) -> Option<usize> {
        match self.kind {
            Kind::Delta { value_heads, .. } => Some(value_heads),
            Kind::Channelwise { heads, .. } | Kind::Mamba2 { heads, .. } | Kind::Lightning { heads, .. } => Some(heads),
            Kind::Dynamic(of) => Some(of.heads),
            _ => None,
        }
    }

    /// Its recurrence of keys by values, where it has one: RWKV-4's is of sums ([`ops::Wkv`]).
    pub fn recurrence(&self) -> Option<Recurrence> {
        let of = |heads, keys, values, delta| Some(Recurrence { heads, keys, values, delta });
        match self.kind {
            Kind::Delta { value_heads, d_key, d_value, .. } => of(value_heads, d_key, d_value, true),
            Kind::Channelwise { heads, d_head, .. } => of(heads, d_head, d_head, true),
            Kind::Mamba2 { heads, d_head, d_state, .. } => of(heads, d_state, d_head, false),
            Kind::Mamba { width, d_state, .. } => of(width, d_state, 1, false),
            Kind::Lightning { heads, d_head, .. } => of(heads, d_head, d_head, false),
            Kind::Lru { width, .. } => of(width, 1, 1, false),
            Kind::Dynamic(of) => Some(of.recurrence()),
            Kind::Short { .. } | Kind::Wkv { .. } => None,
        }
    }

    /// Numbers of its state after a position; none where it has a convolution alone.
    pub fn cells(&self) -> usize {
        match self.kind {
            // Of each channel a sum of values, one of weights, and an exponent.
            Kind::Wkv { width } => 3 * width,
            _ => self.recurrence().map_or(0, |of| of.cells()),
        }
    }

    /// Whether what it gives at a position reads the state after it; if not, the next position is the first that does.
    pub fn reads_state_after(&self) -> bool {
        !matches!(self.kind, Kind::Wkv { .. })
    }

    /// Channels of the convolution.
    fn channels(&self) -> usize {
        match self.kind {
            Kind::Delta { key_heads, value_heads, d_key, d_value, .. } => 2 * key_heads * d_key + value_heads * d_value,
            Kind::Channelwise { heads, d_head, .. } | Kind::Lightning { heads, d_head, .. } => 3 * heads * d_head,
            Kind::Mamba2 { heads, d_head, d_state, groups, .. } => heads * d_head + 2 * groups * d_state,
            Kind::Mamba { width, .. } | Kind::Short { width } | Kind::Lru { width, .. } => width,
            Kind::Wkv { .. } | Kind::Dynamic(_) => 0,
        }
    }

    pub(super) fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        use SiteKind::*;
        match kind {
            ConvIn if self.conv.is_none() => {
                return Some(Lack { why: "the layer's recurrent mixer has no convolution", nearest: AttnIn });
            }
            State if self.cells() == 0 => {
                return Some(Lack {
                    why: "the layer's mixer is a convolution alone and keeps no state",
                    nearest: ConvIn,
                });
            }
            _ => {}
        }
        let why = "the layer has a recurrent mixer in place of attention";
        if let Some(lack) = super::lacks_beside(kind) {
            return Some(Lack { why: "its recurrent mixer stands alone", ..lack });
        }
        let of_attention = [Q, K, V, RotQ, RotK, Scores, Pattern, AttnGate].contains(&kind);
        let nearest = if of_attention { Z } else { AttnOut };
        (of_attention || (kind == HeadOut && self.heads().is_none())).then_some(Lack { why, nearest })
    }

    pub(super) fn units(&self, kind: SiteKind, d_model: usize) -> Option<Units> {
        let state = self.cells();
        match (kind, self.heads()) {
            (SiteKind::ConvIn, _) => Some(Units::Columns { width: self.channels() }),
            (SiteKind::State, Some(n)) => Some(Units::Heads { n, width: state / n }),
            (SiteKind::State, None) => Some(Units::Columns { width: state }),
            (SiteKind::Z, Some(n)) => Some(Units::Heads { n, width: self.width() / n }),
            (SiteKind::Z, None) => Some(Units::Columns { width: self.width() }),
            (SiteKind::HeadOut, Some(n)) => Some(Units::Heads { n, width: d_model }),
            _ => None,
        }
    }

    /// A state carries everything on; a convolution alone as far as it is wide.
    pub(super) fn reach(&self, end: usize, length: usize) -> usize {
        match self.kind {
            Kind::Short { .. } => length.min(end + self.conv.unwrap_or(1) - 1),
            _ => length,
        }
    }

    pub(super) fn carried(&self, d_model: usize) -> Carried {
        let parts = match self.kind {
            Kind::Wkv { .. } | Kind::Dynamic(_) => vec![d_model],
            _ => vec![if self.conv.is_some() { self.channels() } else { 0 }],
        };
        Carried { parts, state: self.cells() }
    }

    pub(super) fn params(&self, d_model: usize) -> u64 {
        let (d, width) = (d_model as u64, self.width() as u64);
        let inputs = match self.kind {
            Kind::Delta { value_heads, .. } => d * (self.channels() as u64 + width + 2 * value_heads as u64),
            Kind::Channelwise { heads, rank, .. } => {
                d * (3 * width + 2 * rank as u64 + heads as u64) + 2 * rank as u64 * width
            }
            Kind::Mamba2 { heads, .. } => d * (width + self.channels() as u64 + heads as u64),
            Kind::Mamba { d_state, rank, .. } => d * 2 * width + width * (2 * rank + 2 * d_state) as u64,
            Kind::Short { .. } => 3 * d * width,
            Kind::Lightning { .. } => 4 * d * width,
            Kind::Lru { blocks, .. } => 2 * d * width + 2 * width * width / blocks.max(1) as u64,
            Kind::Wkv { .. } => 3 * d * width,
            Kind::Dynamic(of) => 3 * d * width + of.narrow() * (d + width),
        };
        inputs + d * width
    }

    /// Of the recurrence: six operations for each number of the state, twice as many for a delta rule.
    pub(super) fn flops(&self, rows: usize) -> f64 {
        let conv = 2.0 * (self.conv.unwrap_or(0) * self.channels()) as f64;
        let state = self.recurrence().map_or(0.0, |of| {
            let each = if of.delta { 12.0 } else { 6.0 };
            each * (of.heads * of.keys * of.values) as f64
        });
        let channels = if let Kind::Wkv { width } = self.kind { 12.0 * width as f64 } else { 0.0 };
        rows as f64 * (conv + state + channels)
    }

    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let sizes = match self.kind {
            Kind::Delta { key_heads, value_heads, d_key, d_value, norm, .. } => {
                positive_if_any("the epsilon of a recurrent mixer's norm", Some(norm.eps))?;
                if key_heads == 0 || !value_heads.is_multiple_of(key_heads) {
                    return Err(format!("{value_heads} value heads do not divide over {key_heads} key heads"));
                }
                [value_heads, d_key, d_value]
            }
            Kind::Channelwise { heads, d_head, rank, .. } => [heads, d_head, rank],
            Kind::Lightning { heads, d_head, slope, .. } => {
                positive_if_any("the slope of decays", Some(slope))?;
                [heads, d_head, d_head]
            }
            Kind::Mamba2 { heads, d_head, d_state, groups, norm_groups, .. } => {
                if groups == 0 || !heads.is_multiple_of(groups) || norm_groups == 0 {
                    return Err(format!("{heads} heads do not divide over {groups} groups"));
                }
                [heads, d_head, d_state]
            }
            Kind::Mamba { width, d_state, rank, .. } => [width, d_state, rank],
            Kind::Short { width } | Kind::Wkv { width } => [width; 3],
            Kind::Dynamic(of) => [of.heads, of.d_head, of.ranks.into_iter().min().unwrap_or(0)],
            Kind::Lru { width, blocks, .. } => {
                if blocks == 0 || !width.is_multiple_of(blocks) {
                    return Err(format!("{width} channels do not divide over {blocks} blocks"));
                }
                [width, blocks, 1]
            }
        };
        match sizes.into_iter().chain(self.conv).find(|n| *n == 0 || *n > 1 << 22) {
            Some(n) => Err(format!("a recurrent mixer has {n} of something, which no model has")),
            None => Ok(()),
        }
    }

    pub(super) fn stored(&self, at: &LayerLayout) -> RecurrentWeights<Located> {
        match self.kind {
            Kind::Wkv { width } => return rwkv::stored_wkv(width, at),
            Kind::Dynamic(of) => return of.stored(at),
            _ => {}
        }
        let (names, d) = (&at.tensors.layer.recurrent, at.d_model);
        let inputs = self.inputs().into_iter();
        let inputs = inputs.map(|(name, outputs)| at.linear(names.inputs[name], d, outputs, self.bias)).collect();
        let renamed = |name: &str| names.others.iter().find(|(own, _)| *own == name).map(|(_, stored)| *stored);
        let whole = |name: &str| renamed(name).map_or(format!("{}{name}", names.prefix), str::to_string);
        let parts = self.parts();
        let numbers = |name: &'static str, shape: Option<Vec<usize>>| shape.map(|shape| at.numbers(name, shape));
        let conv = |bias: bool| match (self.conv.filter(|_| !bias || self.conv_bias), names.conv_parts) {
            (None, _) => Vec::new(),
            (Some(_), []) if bias => vec![at.numbers(names.conv_bias, vec![self.channels()])],
            (Some(n), []) => vec![at.numbers(names.conv, vec![self.channels(), 1, n])],
            (Some(n), apart) => {
                let each = self.channels() / apart.len();
                apart.iter().map(|name| at.numbers(name, vec![each, 1, n])).collect()
            }
        };
        let weights = RecurrentWeights {
            inputs,
            conv: conv(false),
            conv_bias: conv(true),
            decay: numbers(names.decay, parts.decay).map(|decay| match names.decays {
                true => {
                    Stored { pick: Pick::Logs(std::iter::once(0..decay.shape.iter().product()).collect()), ..decay }
                }
                false => decay,
            }),
            dt_bias: numbers(names.dt_bias, parts.dt_bias),
            skip: numbers(names.skip, parts.skip),
            gates: parts.gates.into_iter().map(|(name, shape)| at.numbers(&whole(name), shape)).collect(),
            inner: parts.inner.into_iter().map(|(name, of, width)| at.norm(&whole(name), of, width)).collect(),
            narrow: parts
                .narrow
                .into_iter()
                .map(|(name, i, o, bias)| at.linear(&whole(name), i, Outputs::whole(o), bias))
                .collect(),
            norm: parts.norm.map(|(of, width, group)| NormSpec { group, ..at.norm(names.norm, of, width) }),
            out: at.linear(names.out, self.width(), Outputs::whole(d), self.bias),
        };
        match self.kind {
            Kind::Delta { stored: DeltaStored::InTurn, key_heads, value_heads, d_key, d_value, .. } => {
                DeltaShape { key_heads, value_heads, d_key, d_value }.in_turn(weights)
            }
            _ => weights,
        }
    }

    /// Which names the projections of what the layer reads have, and which outputs of what is stored they are.
    fn inputs(&self) -> Vec<(usize, Outputs)> {
        match self.kind {
            Kind::Delta { key_heads, value_heads, d_key, d_value, stored, .. } => {
                DeltaShape { key_heads, value_heads, d_key, d_value }.inputs(stored)
            }
            Kind::Channelwise { heads, d_head, rank, .. } => {
                let width = heads * d_head;
                let outputs = [width, width, width, heads, rank, rank].map(Outputs::whole);
                outputs.into_iter().enumerate().collect()
            }
            Kind::Mamba2 { heads, .. } => {
                let (width, channels) = (self.width(), self.channels());
                let all = width + channels + heads;
                let of = |rows: Range<usize>| Outputs::of(all, rows);
                vec![(0, of(width..width + channels)), (0, of(0..width)), (0, of(width + channels..all))]
            }
            Kind::Mamba { width, .. } => {
                vec![(0, Outputs::of(2 * width, 0..width)), (0, Outputs::of(2 * width, width..2 * width))]
            }
            Kind::Lightning { heads, d_head, .. } => {
                // Stored head by head.
                let part = |i: usize| (0..heads).map(move |h| (3 * h + i) * d_head..(3 * h + i + 1) * d_head);
                let rows = (0..3).flat_map(part).collect();
                vec![(0, Outputs { stored: 3 * self.width(), rows }), (1, Outputs::whole(self.width()))]
            }
            Kind::Short { width } => (0..3).map(|i| (0, Outputs::of(3 * width, i * width..(i + 1) * width))).collect(),
            Kind::Lru { width, .. } => vec![(0, Outputs::whole(width)), (1, Outputs::whole(width))],
            Kind::Wkv { .. } | Kind::Dynamic(_) => Vec::new(),
        }
    }

    /// The shapes of what else it has.
    fn parts(&self) -> Parts {
        let none = Parts::default();
        match self.kind {
            Kind::Delta { value_heads, d_value, norm, .. } => Parts {
                decay: Some(vec![value_heads]),
                dt_bias: Some(vec![value_heads]),
                norm: Some((norm, d_value, d_value)),
                ..none
            },
            Kind::Channelwise { heads, d_head, rank, norm } => Parts {
                decay: Some(vec![1, 1, heads, 1]),
                dt_bias: Some(vec![heads * d_head]),
                narrow: vec![("f_b_proj", rank, heads * d_head, false), ("g_b_proj", rank, heads * d_head, false)],
                norm: Some((norm, d_head, d_head)),
                ..none
            },
            Kind::Mamba2 { heads, norm, norm_groups, .. } => Parts {
                decay: Some(vec![heads]),
                dt_bias: Some(vec![heads]),
                skip: Some(vec![heads]),
                norm: norm.map(|norm| (norm, self.width(), self.width() / norm_groups.max(1))),
                ..none
            },
            Kind::Mamba { width, d_state, rank, inner } => Parts {
                decay: Some(vec![width, d_state]),
                skip: Some(vec![width]),
                narrow: vec![("x_proj", width, rank + 2 * d_state, false), ("dt_proj", rank, width, true)],
                inner: inner.map_or_else(Vec::new, |of| {
                    vec![("dt_layernorm", of, rank), ("b_layernorm", of, d_state), ("c_layernorm", of, d_state)]
                }),
                ..none
            },
            Kind::Short { .. } | Kind::Wkv { .. } | Kind::Dynamic(_) => none,
            Kind::Lightning { norm, .. } => Parts { norm: Some((norm, self.width(), self.width())), ..none },
            Kind::Lru { width, blocks, .. } => {
                let each = width / blocks.max(1);
                Parts {
                    decay: Some(vec![width]),
                    gates: vec![
                        ("input_gate_weight", vec![blocks, each, each]),
                        ("input_gate_bias", vec![blocks, each]),
                        ("recurrent_gate_weight", vec![blocks, each, each]),
                        ("recurrent_gate_bias", vec![blocks, each]),
                    ],
                    ..none
                }
            }
        }
    }
}

/// What a recurrent mixer has besides its projections and its convolution.
#[derive(Default)]
struct Parts {
    decay: Option<Vec<usize>>,
    dt_bias: Option<Vec<usize>>,
    skip: Option<Vec<usize>>,
    gates: Vec<(&'static str, Vec<usize>)>,
    inner: Vec<(&'static str, Norm, usize)>,
    /// Names, inputs, outputs and whether there is a bias.
    narrow: Vec<(&'static str, usize, usize, bool)>,
    /// The norm of what heads give, its width, and how many numbers are scaled together.
    norm: Option<(Norm, usize, usize)>,
}

/// What the tensors of a recurrent mixer are called.
pub(crate) struct RecurrentNames {
    /// The projections of what the layer reads, in the order of [`Recurrent::inputs`].
    pub inputs: [&'static str; 6],
    /// These are whole names, `.weight` and `.bias` included.
    pub conv: &'static str,
    pub conv_bias: &'static str,
    /// Where the convolution is stored in several tensors, one a part of its channels.
    pub conv_parts: &'static [&'static str],
    pub decay: &'static str,
    /// Whether `A` itself is stored there, which is negative, not its logarithm.
    pub decays: bool,
    pub dt_bias: &'static str,
    pub skip: &'static str,
    /// What stands before the names of what is only in some kinds.
    pub prefix: &'static str,
    /// Those of them that have a whole name of their own.
    pub others: &'static [(&'static str, &'static str)],
    pub norm: &'static str,
    pub out: &'static str,
    /// Where all that RWKV-7 says of the previous position is stored in one tensor, the whole name of that: its narrow ways are then
    /// numbered (GGUF).
    pub fused_shares: Option<&'static str>,
}

/// The parts of a recurrent mixer.
pub struct RecurrentWeights<F: Form = Loaded> {
    pub inputs: Vec<F::Matrix>,
    /// `[channels, 1, width]`, of all channels or of parts of them.
    pub conv: Vec<F::Numbers>,
    pub conv_bias: Vec<F::Numbers>,
    /// What decays are made of: the logarithm of `A`, or the recurrent parameter.
    pub decay: Option<F::Numbers>,
    pub dt_bias: Option<F::Numbers>,
    /// `D`: how much of what a head reads goes past the state.
    pub skip: Option<F::Numbers>,
    /// Weights and biases of the input gate and of the recurrent gate.
    pub gates: Vec<F::Numbers>,
    /// Norms of the time steps, `B` and `C`.
    pub inner: Vec<F::Norm>,
    pub narrow: Vec<F::Matrix>,
    pub norm: Option<F::Norm>,
    pub out: F::Matrix,
}

impl<F: Form> RecurrentWeights<F> {
    /// The output projection alone.
    pub(super) fn bare(out: F::Matrix) -> Self {
        RecurrentWeights {
            inputs: Vec::new(),
            conv: Vec::new(),
            conv_bias: Vec::new(),
            decay: None,
            dt_bias: None,
            skip: None,
            gates: Vec::new(),
            inner: Vec::new(),
            narrow: Vec::new(),
            norm: None,
            out,
        }
    }

    pub(super) fn translate<G: Form, T: Translate<F, G>>(
        &self,
        to: &T,
    ) -> std::result::Result<RecurrentWeights<G>, T::Error> {
        Ok(RecurrentWeights {
            inputs: self.inputs.iter().map(|part| to.matrix(part)).collect::<std::result::Result<_, _>>()?,
            conv: self.conv.iter().map(|part| to.numbers(part)).collect::<std::result::Result<_, _>>()?,
            conv_bias: self.conv_bias.iter().map(|part| to.numbers(part)).collect::<std::result::Result<_, _>>()?,
            decay: to.numbers_if(&self.decay)?,
            dt_bias: to.numbers_if(&self.dt_bias)?,
            skip: to.numbers_if(&self.skip)?,
            gates: self.gates.iter().map(|part| to.numbers(part)).collect::<std::result::Result<_, _>>()?,
            inner: self.inner.iter().map(|part| to.norm(part)).collect::<std::result::Result<_, _>>()?,
            narrow: self.narrow.iter().map(|part| to.matrix(part)).collect::<std::result::Result<_, _>>()?,
            norm: to.norm_if(&self.norm)?,
            out: to.matrix(&self.out)?,
        })
    }
}

/// A part that the description says is there.
pub(super) fn there<T>(part: Option<&T>) -> Result<&T> {
    part.ok_or_else(|| candle_core::Error::Msg("a recurrent mixer lacks a part that its description has".to_string()))
}

/// Numbers in f32 through a matrix that may be kept in another type, as f32.
pub(super) fn through(matrix: &Linear, x: &Tensor) -> Result<Tensor> {
    matrix.apply(&x.to_dtype(matrix.weight.dtype())?)?.to_dtype(DType::F32)
}

/// `ln(1 + e^x)`, in f32.
fn softplus(x: &Tensor) -> Result<Tensor> {
    // Of a large number it is the number.
    let positive = x.maximum(0f64)?;
    positive + ((x.abs()?.neg()?.exp()? + 1.0)?.log()?)
}

pub(super) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    ops::activate(x, Activation::Sigmoid)
}

/// Vectors of `d` numbers to the length 1, or to `scale`.
fn unit(x: &Tensor, d: usize, scale: f64) -> Result<Tensor> {
    let weight = Tensor::full((scale / (d as f64).sqrt()) as f32, d, x.device())?;
    ops::norm(x, &weight, None, NormBy { kind: NormKind::Rms, eps: 1e-6 / d as f64, group: d })
}

/// Each of `n` parts of every row as often as `times`, one after another.
fn repeated(x: &Tensor, n: usize, times: usize) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let parts = x.reshape((rows, n, 1, width / n))?.broadcast_as((rows, n, times, width / n))?;
    parts.contiguous()?.reshape((rows, width * times))
}

/// A number a head, for every number of the head.
pub(super) fn spread(x: &Tensor, each: usize) -> Result<Tensor> {
    let (rows, heads) = x.dims2()?;
    x.unsqueeze(2)?.broadcast_as((rows, heads, each))?.contiguous()?.reshape((rows, heads * each))
}

impl RecurrentWeights {
    pub(in crate::model) fn forward(
        &self,
        of: &Recurrent,
        around: &Around,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        match of.kind {
            Kind::Wkv { .. } => return self.forward_wkv(around, acts, hook),
            Kind::Dynamic(shape) => return self.forward_dynamic(&shape, around, acts, hook),
            _ => {}
        }
        let (l, x) = (around.layer, around.read(acts)?);
        let read = self.inputs.iter().map(|matrix| matrix.apply(&x)).collect::<Result<Vec<_>>>()?;
        let first = match of.kind {
            Kind::Short { .. } => (&read[0] * &read[2])?,
            Kind::Channelwise { .. } => Tensor::cat(&read[..3], 1)?,
            Kind::Lru { .. } => read[1].clone(),
            _ => read[0].clone(),
        };
        let mixed = self.convolved(of, around, first, acts, hook)?.to_dtype(DType::F32)?;
        let wide: Vec<Tensor> = read.iter().map(|x| x.to_dtype(DType::F32)).collect::<Result<_>>()?;
        let z = match of.kind {
            Kind::Short { .. } => (mixed * &wide[1])?,
            _ => {
                let (packed, past) = self.packed(of, &mixed, &wide, acts)?;
                let recurrence = there(of.recurrence().as_ref())?.to_owned();
                // As `transformers` lays the state out.
                let by_value = matches!(of.kind, Kind::Mamba2 { .. });
                let steps = Steps::Scan { of: recurrence, by_value };
                let states = States { steps, layer: l, rows: &acts.rows };
                let given = states.through(&packed, hook)?;
                let given = past.map_or(Ok(given.clone()), |past| given + past)?;
                self.finished(of, &given, &wide)?
            }
        };
        acts.put(around.z(), z.to_dtype(x.dtype())?);
        hook.at(around.z().at(l), acts)?;
        super::projected(&self.out, of.heads(), around, acts, hook)
    }

    /// The convolution of what it reads, after its non-linearity.
    fn convolved(
        &self,
        of: &Recurrent,
        around: &Around,
        x: Tensor,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        if of.conv.is_none() {
            return Ok(x);
        }
        acts.put(SiteKind::ConvIn, x);
        hook.at(SiteKind::ConvIn.at(around.layer), acts)?;
        let all = hook.carry(around.layer, around.part(0), acts.take(SiteKind::ConvIn)?)?;
        let joined = |parts: &[Tensor]| if parts.len() == 1 { Ok(parts[0].clone()) } else { Tensor::cat(parts, 0) };
        let bias = if self.conv_bias.is_empty() { None } else { Some(joined(&self.conv_bias)?) };
        let found = ops::convolution(&all, &joined(&self.conv)?, bias.as_ref(), &acts.rows)?;
        match of.kind {
            Kind::Short { .. } | Kind::Lru { .. } => Ok(found),
            _ => ops::activate(&found, Activation::Silu),
        }
    }

    /// What the recurrence reads at each row, as [`Recurrence`] lays it out, and what goes past it.
    fn packed(&self, of: &Recurrent, mixed: &Tensor, read: &[Tensor], acts: &Acts) -> Result<(Tensor, Option<Tensor>)> {
        let numbers = |part: &Option<Tensor>| there(part.as_ref())?.flatten_all()?.unsqueeze(0);
        match of.kind {
            Kind::Delta { key_heads, value_heads, d_key, d_value, .. } => {
                let (keys, each) = (key_heads * d_key, value_heads / key_heads);
                let part = |from: usize, scale: f64| {
                    repeated(&unit(&mixed.narrow(1, from, keys)?, d_key, scale)?, key_heads, each)
                };
                let (q, k) = (part(0, (d_key as f64).powf(-0.5))?, part(keys, 1.0)?);
                let v = mixed.narrow(1, 2 * keys, value_heads * d_value)?;
                let dt = softplus(&read[3].broadcast_add(&numbers(&self.dt_bias)?)?)?;
                let decay = dt.broadcast_mul(&numbers(&self.decay)?.exp()?.neg()?)?.exp()?;
                delta_rule([&q, &k, &v], &spread(&decay, d_key)?, &sigmoid(&read[2])?, [d_key, d_value])
            }
            Kind::Channelwise { heads, d_head, .. } => {
                let width = heads * d_head;
                let part = |i: usize, scale: f64| unit(&mixed.narrow(1, i * width, width)?, d_head, scale);
                let (q, k) = (part(0, (d_head as f64).powf(-0.5))?, part(1, 1.0)?);
                let v = mixed.narrow(1, 2 * width, width)?;
                let dt = through(there(self.narrow.first())?, &read[4])?;
                let dt = softplus(&dt.broadcast_add(&numbers(&self.dt_bias)?)?)?;
                let rate = spread(&numbers(&self.decay)?.exp()?.neg()?, d_head)?;
                delta_rule([&q, &k, &v], &dt.broadcast_mul(&rate)?.exp()?, &sigmoid(&read[3])?, [d_head, d_head])
            }
            Kind::Mamba2 { heads, d_head, d_state, groups, limits, .. } => {
                let (width, states) = (heads * d_head, groups * d_state);
                let x = mixed.narrow(1, 0, width)?;
                let of_group =
                    |i: usize| repeated(&mixed.narrow(1, width + i * states, states)?, groups, heads / groups);
                let dt = softplus(&read[2].broadcast_add(&numbers(&self.dt_bias)?)?)?;
                let dt = dt.maximum(limits[0])?.minimum(limits[1])?;
                let decay = dt.broadcast_mul(&numbers(&self.decay)?.exp()?.neg()?)?.exp()?;
                let v = (&x * spread(&dt, d_head)?)?;
                let past = x.broadcast_mul(&spread(&numbers(&self.skip)?, d_head)?)?;
                let packed = Tensor::cat(&[&of_group(1)?, &of_group(0)?, &spread(&decay, d_state)?, &v], 1)?;
                Ok((packed, Some(past)))
            }
            Kind::Mamba { width, d_state, rank, .. } => {
                let narrow = through(there(self.narrow.first())?, mixed)?;
                let normed = |i: usize, x: Tensor| self.inner.get(i).map_or(Ok(x.clone()), |norm| norm.apply(&x));
                let dt = normed(0, narrow.narrow(1, 0, rank)?.contiguous()?)?;
                let b = normed(1, narrow.narrow(1, rank, d_state)?.contiguous()?)?;
                let c = normed(2, narrow.narrow(1, rank + d_state, d_state)?.contiguous()?)?;
                let dt = softplus(&through(there(self.narrow.get(1))?, &dt)?)?;
                let rate = there(self.decay.as_ref())?.exp()?.neg()?.unsqueeze(0)?;
                let (rows, cells) = (mixed.dim(0)?, width * d_state);
                let decay = dt.unsqueeze(2)?.broadcast_mul(&rate)?.exp()?.reshape((rows, cells))?;
                let all = |x: &Tensor| repeated(x, 1, width);
                let past = mixed.broadcast_mul(&numbers(&self.skip)?)?;
                Ok((Tensor::cat(&[&all(&c)?, &all(&b)?, &decay, &(dt * mixed)?], 1)?, Some(past)))
            }
            Kind::Lightning { heads, d_head, activation, slope, .. } => {
                lightning(&ops::activate(mixed, activation)?, [heads, d_head], slope)
            }
            Kind::Lru { width, blocks, .. } => {
                let gate = |i: usize| -> Result<Tensor> {
                    let (weight, bias) = (there(self.gates.get(2 * i))?, there(self.gates.get(2 * i + 1))?);
                    let rows = mixed.dim(0)?;
                    let x = mixed.reshape((rows, blocks, width / blocks))?.transpose(0, 1)?.contiguous()?;
                    let made = x.matmul(weight)?.transpose(0, 1)?.contiguous()?.reshape((rows, width))?;
                    sigmoid(&made.broadcast_add(&bias.flatten_all()?.unsqueeze(0)?)?)
                };
                let (input, recurrent) = (gate(0)?, gate(1)?);
                let log = recurrent.broadcast_mul(&(softplus(&numbers(&self.decay)?)? * -8.0)?)?;
                // The first position of a prompt begins anew: nothing is kept, and what is read is not made smaller.
                let begins: Vec<f32> = acts.rows.positions().map(|p| if p == 0 { 0.0 } else { 1.0 }).collect();
                let goes_on = Tensor::from_vec(begins, (mixed.dim(0)?, 1), mixed.device())?;
                let kept = log.exp()?.broadcast_mul(&goes_on)?;
                let smaller = ((kept.sqr()?.neg()? + 1.0)?.maximum(0f64)?).sqrt()?;
                let v = ((mixed * input)? * smaller)?;
                let ones = v.ones_like()?;
                Ok((Tensor::cat(&[&ones, &ones, &kept, &v], 1)?, None))
            }
            Kind::Short { .. } | Kind::Wkv { .. } | Kind::Dynamic(_) => {
                candle_core::bail!("{} has no such recurrence", of.name())
            }
        }
    }

    /// What the recurrence gives, gated and normed.
    fn finished(&self, of: &Recurrent, given: &Tensor, read: &[Tensor]) -> Result<Tensor> {
        let norm = |x: &Tensor| self.norm.as_ref().map_or(Ok(x.clone()), |norm| norm.apply(x));
        match of.kind {
            Kind::Delta { .. } => ops::activate_gate(&read[1], &norm(given)?, Activation::Silu),
            Kind::Channelwise { .. } => {
                let gate = through(there(self.narrow.get(1))?, &read[5])?;
                ops::activate_gate(&gate, &norm(given)?, Activation::Sigmoid)
            }
            Kind::Mamba2 { gate_last: true, .. } => ops::activate_gate(&read[1], &norm(given)?, Activation::Silu),
            Kind::Mamba2 { .. } => norm(&ops::activate_gate(&read[1], given, Activation::Silu)?),
            Kind::Mamba { .. } => ops::activate_gate(&read[1], given, Activation::Silu),
            Kind::Lightning { .. } => ops::activate_gate(&read[1], &norm(given)?, Activation::Sigmoid),
            Kind::Lru { activation, .. } => ops::activate_gate(&read[0], given, activation),
            Kind::Short { .. } | Kind::Wkv { .. } | Kind::Dynamic(_) => Ok(given.clone()),
        }
    }
}

/// The row of lightning attention: queries, keys and values one after another, and a decay of each head that is always the same.
fn lightning(mixed: &Tensor, [heads, d_head]: [usize; 2], slope: f64) -> Result<(Tensor, Option<Tensor>)> {
    let width = heads * d_head;
    let rate = |h: usize| 2f64.powf(-8.0 * (h + 1) as f64 / heads as f64) * slope;
    let decay: Vec<f32> = (0..heads).map(|h| (-rate(h)).exp() as f32).collect();
    let decay = spread(&Tensor::from_vec(decay, (1, heads), mixed.device())?, d_head)?;
    let decay = decay.broadcast_as((mixed.dim(0)?, width))?;
    let part = |i: usize| mixed.narrow(1, i * width, width);
    Ok((Tensor::cat(&[&part(0)?, &part(1)?, &decay, &part(2)?], 1)?, None))
}

/// The row of a gated delta rule: with the decay `d` and how much is written `w`, what is at `k` is replaced by `v` as far as `w`
/// says: `S <- d * S - w k ((d * k)^T S) + w k v^T`.
fn delta_rule(
    [q, k, v]: [&Tensor; 3],
    decay: &Tensor,
    written: &Tensor,
    [d_key, d_value]: [usize; 2],
) -> Result<(Tensor, Option<Tensor>)> {
    let (by_key, by_value) = (spread(written, d_key)?, spread(written, d_value)?);
    let (a, b) = ((k * by_key)?.neg()?, (decay * k)?);
    Ok((Tensor::cat(&[q, k, decay, &a, &b, &(v * by_value)?], D::Minus1)?, None))
}
