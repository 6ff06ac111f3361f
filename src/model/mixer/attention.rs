//! Softmax attention over grouped heads: rotated or not, windowed or not, with or without norms of queries and keys.

use super::Carried;
use crate::model::arch::{Arch, positive_if_any};
use crate::model::families::Qkv;
use crate::model::pass::{Acts, Around, Hook, norm};
use crate::model::rope::Rope;
use crate::model::weights::layout::{LayerLayout, LinearSpec, NormSpec, Outputs};
use crate::model::weights::{Linear, NormWeights};
use crate::ops::rows::Rows;
use crate::ops::{self, attention::Heads, attention::opened};
use crate::site::{Lack, SiteKind, Units};
use candle_core::{Result, Tensor};

/// Whether queries and keys are normed before rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    None,
    /// Each head by itself, one weight of `d_head` for all heads (Qwen 3, Gemma 3).
    PerHead,
    /// All heads together, a weight of `n_heads * d_head` (OLMo 2).
    Whole,
}

/// Attention, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// How many heads there are and how large each is, how scores are scaled and capped, how far back they look.
    pub heads: Heads,
    /// Which of [`super::super::arch::Arch::ropes`] turns queries and keys; none where nothing does.
    pub rope: Option<usize>,
    pub qk_norm: QkNorm,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub out_bias: bool,
}

impl Attention {
    /// Numbers of all queries, and of all keys or all values, at one position.
    fn widths(&self) -> (usize, usize) {
        let Heads { n_heads, n_kv_heads, d_head, .. } = self.heads;
        (n_heads * d_head, n_kv_heads * d_head)
    }

    pub(super) fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        let nearest = match kind {
            SiteKind::RotQ => SiteKind::Q,
            SiteKind::RotK => SiteKind::K,
            _ => return None,
        };
        let lack = Lack { why: "it learns its positions and rotates nothing", nearest };
        self.rope.is_none().then_some(lack)
    }

    pub(super) fn units(&self, kind: SiteKind, d_model: usize) -> Option<Units> {
        use SiteKind::*;
        let Heads { n_heads, n_kv_heads, d_head, .. } = self.heads;
        Some(match kind {
            Q | RotQ | Z => Units::Heads { n: n_heads, width: d_head },
            K | V | RotK => Units::Heads { n: n_kv_heads, width: d_head },
            HeadOut => Units::Heads { n: n_heads, width: d_model },
            Scores | Pattern => Units::HeadsByKeys { n: n_heads },
            _ => return None,
        })
    }

    /// Every later position sees the last one that differs, as far as the window lets it look back.
    pub(super) fn reach(&self, end: usize, length: usize) -> usize {
        self.heads.window.map_or(length, |w| length.min(end + w - 1))
    }

    pub(super) fn by_query_head(mut self) -> Self {
        self.heads.n_kv_heads = self.heads.n_heads;
        self
    }

    pub(super) fn carried(&self) -> Carried {
        Carried::KeysValues { width: self.widths().1 }
    }

    pub(super) fn params(&self, d_model: usize) -> u64 {
        let Heads { n_heads, n_kv_heads, d_head, .. } = self.heads;
        d_model as u64 * d_head as u64 * (2 * n_heads as u64 + 2 * n_kv_heads as u64)
    }

    /// Scores, and what is read by them: two operations each for every number of a head and key that a row sees.
    pub(super) fn flops(&self, start: usize, rows: usize) -> f64 {
        // Position `p` sees `p + 1` keys, or as many as the window has.
        let (end, triangle) = (start + rows, |n: usize| n * (n + 1) / 2);
        let growing = self.heads.window.map_or(end, |w| end.min(w).max(start));
        let keys = triangle(growing) - triangle(start) + (end - growing) * self.heads.window.unwrap_or(0);
        4.0 * keys as f64 * self.widths().0 as f64
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
        if self.heads.window == Some(0) {
            return Err("a sliding window of 0 positions sees nothing".to_string());
        }
        Ok(())
    }

    pub(super) fn stored(&self, at: &LayerLayout) -> AttentionWeights<LinearSpec, NormSpec> {
        let (names, d_model) = (&at.tensors.layer.attention, at.d_model);
        let (queries, _) = self.widths();
        let [q, k, v] = self.outputs(at.tensors.qkv);
        let qk_norm = |name: Option<&str>, heads: usize| match self.qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead => Some(at.norm(name.unwrap_or_default(), self.heads.d_head)),
            QkNorm::Whole => Some(at.norm(name.unwrap_or_default(), heads * self.heads.d_head)),
        };
        AttentionWeights {
            q: at.linear(names.q, d_model, q, self.qkv_bias),
            k: at.linear(names.k, d_model, k, self.qkv_bias),
            v: at.linear(names.v, d_model, v, self.qkv_bias),
            q_norm: qk_norm(names.q_norm, self.heads.n_heads),
            k_norm: qk_norm(names.k_norm, self.heads.n_kv_heads),
            o: at.linear(names.o, queries, Outputs::whole(d_model), self.out_bias),
        }
    }

    /// Which outputs of the stored projections are queries, keys and values.
    fn outputs(&self, stored: Qkv) -> [Outputs; 3] {
        let Heads { n_heads, n_kv_heads, d_head, .. } = self.heads;
        let (q, kv) = self.widths();
        match stored {
            Qkv::Apart => [q, kv, kv].map(Outputs::whole),
            Qkv::Interleaved => {
                [Outputs::interleaved(n_heads, d_head), Outputs::interleaved(n_kv_heads, d_head), Outputs::whole(kv)]
            }
            Qkv::InTurn => {
                let all = q + 2 * kv;
                [Outputs::of(all, 0..q), Outputs::of(all, q..q + kv), Outputs::of(all, q + kv..all)]
            }
            Qkv::ByHead => [0, 1, 2].map(|part| Outputs {
                stored: 3 * q,
                rows: (0..n_heads).map(|h| (3 * h + part) * d_head..(3 * h + part + 1) * d_head).collect(),
            }),
        }
    }
}

/// The parts of attention: its weights, or where each is stored, or what a family calls it. `M` is of matrices, `N` of norms.
#[derive(Clone, Copy)]
pub struct AttentionWeights<M = Linear, N = NormWeights> {
    pub q: M,
    pub k: M,
    pub v: M,
    pub q_norm: Option<N>,
    pub k_norm: Option<N>,
    pub o: M,
}

impl<M, N> AttentionWeights<M, N> {
    pub(super) fn norms(&self) -> impl Iterator<Item = &N> {
        self.q_norm.iter().chain(&self.k_norm)
    }

    pub(super) fn matrices(&self) -> impl Iterator<Item = &M> {
        [&self.q, &self.k, &self.v, &self.o].into_iter()
    }

    pub(super) fn try_map<P, Q, E>(
        &self,
        matrix: &impl Fn(&M) -> std::result::Result<P, E>,
        norm: &impl Fn(&N) -> std::result::Result<Q, E>,
    ) -> std::result::Result<AttentionWeights<P, Q>, E> {
        Ok(AttentionWeights {
            q: matrix(&self.q)?,
            k: matrix(&self.k)?,
            v: matrix(&self.v)?,
            q_norm: self.q_norm.as_ref().map(norm).transpose()?,
            k_norm: self.k_norm.as_ref().map(norm).transpose()?,
            o: matrix(&self.o)?,
        })
    }
}

impl AttentionWeights {
    /// Those of a shape whose heads share keys and values, for one whose heads share none.
    pub(super) fn by_query_head(&self, shape: &Attention) -> Result<AttentionWeights> {
        let Heads { n_heads, n_kv_heads, d_head, .. } = shape.heads;
        let of_head = |head: usize| (0..d_head).map(move |i| (head * n_kv_heads / n_heads * d_head + i) as u32);
        let rows: Vec<u32> = (0..n_heads).flat_map(of_head).collect();
        // A norm over all heads together weighs each as often as it is there, which leaves its mean as it is.
        let k_norm = match (&self.k_norm, shape.qk_norm) {
            (Some(norm), QkNorm::Whole) => Some(norm.of_rows(&rows)?),
            (norm, _) => norm.clone(),
        };
        let (k, v) = (self.k.of_rows(&rows)?, self.v.of_rows(&rows)?);
        Ok(AttentionWeights { q: self.q.clone(), k, v, q_norm: self.q_norm.clone(), k_norm, o: self.o.clone() })
    }

    pub(super) fn forward(
        &self,
        shape: &Attention,
        around: &Around,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        use SiteKind::*;
        let (l, arch) = (around.layer, around.arch);
        let x = acts.take(AttnIn)?;
        acts.put(Q, norm(arch, &self.q.apply(&x)?, self.q_norm.as_ref())?);
        acts.put(K, norm(arch, &self.k.apply(&x)?, self.k_norm.as_ref())?);
        acts.put(V, self.v.apply(&x)?);
        drop(x);
        for kind in [Q, K, V] {
            hook.at(kind.at(l), acts)?;
        }
        shape.rotate(around, acts, hook)?;
        let z = shape.attend(l, acts, hook)?;
        acts.put(Z, z);
        hook.at(Z.at(l), acts)?;
        self.out(shape.heads, around, acts, hook)
    }

    /// What each head adds by itself. `[rows, n_heads * d_head]` to `[rows, n_heads * d_model]`
    pub(crate) fn head_outputs(&self, heads: Heads, z: &Tensor) -> Result<Tensor> {
        let d = heads.d_head;
        let head = |i: usize| self.o.weight.product_of(i * d..(i + 1) * d, &z.narrow(1, i * d, d)?);
        Tensor::cat(&(0..heads.n_heads).map(head).collect::<Result<Vec<_>>>()?, 1)
    }

    /// A port's projection of what attention reads, before the port's norm. `[rows, d_model]` to `[rows, width]`
    pub(crate) fn project(&self, port: SiteKind, x: &Tensor) -> Result<Tensor> {
        self.port(port).0.apply(x)
    }

    /// A port's projection after its norm, if it has one.
    pub(crate) fn normed(&self, arch: &Arch, port: SiteKind, projected: &Tensor) -> Result<Tensor> {
        norm(arch, projected, self.port(port).1)
    }

    /// The projection of queries, keys or values, and the norm after it.
    fn port(&self, port: SiteKind) -> (&Linear, Option<&NormWeights>) {
        match port {
            SiteKind::Q => (&self.q, self.q_norm.as_ref()),
            SiteKind::K => (&self.k, self.k_norm.as_ref()),
            _ => (&self.v, None),
        }
    }

    /// Whether a port's norm is over all heads together, so that what one head reads moves the others.
    pub(crate) fn norms_across(&self, shape: &Attention, port: SiteKind) -> bool {
        shape.qk_norm == QkNorm::Whole && self.port(port).1.is_some()
    }

    /// `z` through the output projection, head by head where the hook looks at single heads.
    fn out(&self, heads: Heads, around: &Around, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        let site = SiteKind::HeadOut.at(around.layer);
        if !hook.wants(site) {
            return self.o.apply(&acts.take(SiteKind::Z)?);
        }
        let (h, clean) = (heads.n_heads, self.head_outputs(heads, acts.get(SiteKind::Z)?)?);
        acts.put(SiteKind::HeadOut, clean);
        // Kept as a live value of the pass, so that rows which the hook adds get theirs too.
        acts.put(SiteKind::AttnOut, acts.get(SiteKind::HeadOut)?.clone());
        hook.at(site, acts)?;
        // The edits' difference is added to the plain product: rows without edits are as they would be without the hook.
        let (edited, clean) = (acts.take(SiteKind::HeadOut)?, acts.take(SiteKind::AttnOut)?);
        let change = (edited - clean)?.reshape((acts.rows.len(), h, around.arch.d_model))?.sum(1)?;
        ops::add(&self.o.apply(&acts.take(SiteKind::Z)?)?, &change)
    }
}

impl Attention {
    /// `z` of queries, keys and values that are not rotated yet, `[rows, width]` each.
    pub(crate) fn attended(&self, around: &Around, q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows) -> Result<Tensor> {
        let rotated = |x: &Tensor| match self.rope.and_then(|rope| around.angles.get(rope)) {
            Some((cos, sin)) => ops::rotate(x, self.heads.d_head, cos, sin, &rows.entries),
            None => Ok(x.clone()),
        };
        ops::attention::attention(&rotated(q)?, &rotated(k)?, v, rows, self.heads)
    }

    /// `q` and `k` to `rot_q` and `rot_k`; where nothing rotates, they are passed on.
    fn rotate(&self, around: &Around, acts: &mut Acts, hook: &mut dyn Hook) -> Result<()> {
        let table = self.rope.and_then(|rope| around.angles.get(rope));
        for (from, to) in [(SiteKind::Q, SiteKind::RotQ), (SiteKind::K, SiteKind::RotK)] {
            let x = acts.take(from)?;
            let x = match table {
                Some((cos, sin)) => ops::rotate(&x, self.heads.d_head, cos, sin, &acts.rows.entries)?,
                None => x,
            };
            acts.put(to, x);
        }
        if table.is_some() {
            hook.at(SiteKind::RotQ.at(around.layer), acts)?;
            hook.at(SiteKind::RotK.at(around.layer), acts)?;
        }
        Ok(())
    }

    /// `z` of all rows: by the kernel, and step by step for the spans that the hook opens.
    fn attend(&self, l: usize, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        let (q, heads) = (acts.take(SiteKind::RotQ)?, self.heads);
        let (k, v) = hook.keys_values(l, acts.take(SiteKind::RotK)?, acts.take(SiteKind::V)?)?;
        let z = ops::attention::attention(&q, &k, &v, &acts.rows, heads)?;
        let opened_spans = hook.opened(l)?;
        if opened_spans.is_empty() {
            return Ok(z);
        }
        let mut parts: Vec<Tensor> = Vec::new();
        for (i, span) in acts.rows.spans.iter().enumerate() {
            parts.push(if opened_spans.contains(&i) {
                let scores = hook.at_opened(SiteKind::Scores.at(l), i, opened::scores(&q, &k, span, heads)?)?;
                let pattern = hook.at_opened(SiteKind::Pattern.at(l), i, opened::pattern(&scores)?)?;
                opened::z(&pattern, &v, span, heads)?
            } else {
                z.narrow(0, span.rows.start, span.rows.len())?
            });
        }
        Tensor::cat(&parts, 0)
    }
}
