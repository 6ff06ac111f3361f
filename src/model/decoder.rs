//! The decoder: one forward pass for every family, layer by layer, with every site in reach.
//!
//! [`Decoder::layer`] runs one block over packed rows. At each site it hands the activations to a [`Hook`], which may read
//! them, change them, or add rows; an engine is a hook and an order of layers ([`crate::run`]). What differs between
//! families is in [`Arch`]; nothing here asks for a family's name.

use super::arch::{Arch, Mlp};
use super::places::{Places, moved};
use super::store::{Layers, Table};
use super::weights::{LayerWeights, Linear, NormWeights};
use crate::ops::rows::Rows;
use crate::ops::{self, Weight, attention::Heads, attention::opened};
use crate::site::{KINDS, Site, SiteKind};
use candle_core::{DType, Device, Result, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// The activations that are live at a site: what the rest of the pass still reads.
pub struct Acts {
    pub rows: Rows,
    live: [Option<Tensor>; KINDS.len()],
}

impl Acts {
    /// Activations of `rows`, none live yet.
    pub fn new(rows: Rows) -> Self {
        Acts { rows, live: [const { None }; KINDS.len()] }
    }

    /// The live value of a kind. `[rows, width]`
    ///
    /// # Errors
    /// If the pass is not where that kind is live.
    pub fn get(&self, kind: SiteKind) -> Result<&Tensor> {
        self.live[kind as usize].as_ref().ok_or_else(|| candle_core::Error::Msg(format!("`{kind}` is not live here")))
    }

    /// Sets the value of a kind.
    pub fn put(&mut self, kind: SiteKind, value: Tensor) {
        self.live[kind as usize] = Some(value);
    }

    /// Takes a value that nothing later reads.
    ///
    /// # Errors
    /// If it is not live.
    pub fn take(&mut self, kind: SiteKind) -> Result<Tensor> {
        self.live[kind as usize].take().ok_or_else(|| candle_core::Error::Msg(format!("`{kind}` is not live here")))
    }

    /// Replaces the rows, each new row being a copy of the old one that `from` names, in every live value.
    ///
    /// # Errors
    /// If a row is out of range or candle fails.
    pub fn gather(&mut self, rows: Rows, from: &[u32]) -> Result<()> {
        let old = self.rows.len();
        if from.iter().any(|r| *r as usize >= old) || from.len() != rows.len() {
            candle_core::bail!("{} new rows from {} of {old}", rows.len(), from.len())
        }
        for value in self.live.iter_mut().flatten() {
            let index = Tensor::new(from, value.device())?;
            *value = value.index_select(&index, 0)?;
        }
        self.rows = rows;
        Ok(())
    }

    /// Takes every live value to a device.
    fn move_to(&mut self, device: &Device) -> Result<()> {
        for value in self.live.iter_mut().flatten() {
            *value = moved(value, device)?;
        }
        Ok(())
    }
}

/// What an engine does at the sites of a pass.
pub trait Hook {
    /// Whether anything at this site is read or edited. Sites that cost extra (`head_out`) are computed only then.
    fn wants(&self, site: Site) -> bool;

    /// How many rows may be inside an MLP at once: there they are widest. An MLP of which the hook looks at a site takes all.
    fn most_rows(&self) -> usize {
        usize::MAX
    }

    /// Called at every site that the model has, in the order of the flow, except `scores` and `pattern`. The value is
    /// `acts.get(site.kind)`; a changed one is put back.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn at(&mut self, site: Site, acts: &mut Acts) -> Result<()>;

    /// The spans whose scores and patterns are read or edited in this layer; the others' never leave the kernel.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn opened(&self, layer: usize) -> Result<Vec<usize>>;

    /// Called just before a layer's attention with its keys, rotated, and its values, `[rows, n_kv_heads * d_head]` each;
    /// returns those that the spans name rows of: these themselves, unless the engine keeps them in a cache.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn keys_values(&mut self, _layer: usize, keys: Tensor, values: Tensor) -> Result<(Tensor, Tensor)> {
        Ok((keys, values))
    }

    /// Called with one opened span's scores, then with its pattern, `[span rows, n_heads, keys]` in f32; returns the value
    /// to go on with.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn at_opened(&mut self, site: Site, span: usize, value: Tensor) -> Result<Tensor>;
}

/// Looks at nothing.
pub(crate) struct Unwatched;

impl Hook for Unwatched {
    fn wants(&self, _: Site) -> bool {
        false
    }

    fn at(&mut self, _: Site, _: &mut Acts) -> Result<()> {
        Ok(())
    }

    fn opened(&self, _: usize) -> Result<Vec<usize>> {
        Ok(Vec::new())
    }

    fn at_opened(&mut self, _: Site, _: usize, value: Tensor) -> Result<Tensor> {
        Ok(value)
    }
}

/// Cosines and sines for every rotation of a model: the positions of each regime one after another, as many as its longest
/// prompt has.
pub struct Angles {
    /// For each device, one pair for each of [`Arch::ropes`]: `[entries, pairs]` each, f32.
    tables: Vec<Vec<(Tensor, Tensor)>>,
    /// The entry of the first position, for each prompt length that the tables were made for.
    starts: BTreeMap<usize, usize>,
}

impl Angles {
    /// Tables for prompts of these lengths.
    ///
    /// # Errors
    /// If candle fails.
    pub fn new(decoder: &Decoder, lengths: impl IntoIterator<Item = usize>) -> Result<Self> {
        Angles::reaching(decoder, lengths, 0)
    }

    /// Tables for prompts of these lengths that go on for `more` positions, in the regime of the prompts' own lengths.
    ///
    /// # Errors
    /// If candle fails.
    pub fn reaching(decoder: &Decoder, lengths: impl IntoIterator<Item = usize>, more: usize) -> Result<Self> {
        let arch = &decoder.arch;
        let mut by_regime: BTreeMap<Vec<usize>, BTreeSet<usize>> = BTreeMap::new();
        for n in lengths {
            by_regime.entry(arch.ropes.iter().map(|r| r.regime(n)).collect()).or_default().insert(n);
        }
        let (mut starts, mut entries, mut parts) = (BTreeMap::new(), 0, Vec::new());
        for (regimes, lengths) in &by_regime {
            let positions = lengths.last().copied().unwrap_or(0) + more;
            starts.extend(lengths.iter().map(|n| (*n, entries)));
            entries += positions;
            parts.push((regimes, positions));
        }
        let table = |(i, rope): (usize, &super::rope::Rope), device: &Device| {
            let (mut cos, mut sin) = (Vec::new(), Vec::new());
            for (regimes, positions) in &parts {
                let angles = rope.angles(regimes[i], *positions);
                cos.extend(angles.cos);
                sin.extend(angles.sin);
            }
            let shape = (entries, rope.pairs());
            Ok((Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?))
        };
        let all = |device| arch.ropes.iter().enumerate().map(|r| table(r, device)).collect::<Result<_>>();
        let tables = decoder.places.iter().map(|(device, _)| all(device)).collect::<Result<_>>()?;
        Ok(Angles { tables, starts })
    }

    /// The entry of a position of a prompt of `length` tokens, one of those that the tables were made for.
    pub fn entry(&self, length: usize, position: usize) -> u32 {
        (self.starts.get(&length).copied().unwrap_or(0) + position) as u32
    }
}

/// A model's weights with the pass over them.
pub struct Decoder {
    pub arch: Arch,
    /// What activations and matrices are kept in.
    pub dtype: DType,
    /// Which device holds which layers.
    pub places: Places,
    /// How many parameters the model has; a tied unembedding counts once.
    pub parameters: u64,
    /// `[vocab, d_model]`
    pub(super) embed: Table,
    /// `[n_ctx, d_model]` where positions are learned.
    pub(super) positions: Option<Table>,
    pub(crate) final_norm: NormWeights,
    /// `[vocab, d_model]`; the embedding itself where the two are tied.
    pub(super) unembed: Table,
    /// The mean of its rows, once it was asked for.
    pub(super) mean_unembed: OnceLock<Vec<f32>>,
    pub(super) layers: Layers,
}

impl Decoder {
    /// The weights of a layer, read if they are not in memory.
    ///
    /// # Errors
    /// If there is no such layer, or it cannot be read.
    pub fn weights(&self, layer: usize) -> Result<Arc<LayerWeights>> {
        Ok(self.layers.get(layer)?)
    }

    /// Takes a pass through layers in this order, whatever it does in each. The weights of the next one are read meanwhile.
    ///
    /// # Errors
    /// If a layer cannot be read, and whatever stops the pass.
    pub fn through<E: From<candle_core::Error>>(
        &self,
        order: impl IntoIterator<Item = usize>,
        mut each: impl FnMut(usize) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut order = order.into_iter().peekable();
        while let Some(layer) = order.next() {
            self.layers.enter(layer, order.peek().copied()).map_err(candle_core::Error::from)?;
            each(layer)?;
            tracing::debug!("layer {layer}: done");
        }
        Ok(())
    }

    /// Reads now what a pass would read when it came to it: for whoever wants to hear of damaged numbers first, or measures
    /// passes alone. Of weights that do not stay in memory, every layer is read and let go.
    ///
    /// # Errors
    /// If a layer or a table cannot be read.
    pub fn read(&self) -> Result<()> {
        self.through(0..self.arch.n_layers, |_| Result::Ok(()))?;
        [Some(&self.embed), self.positions.as_ref(), Some(&self.unembed)]
            .into_iter()
            .flatten()
            .try_for_each(Table::read)
    }

    /// Whether weights do not stay in memory: each pass reads them anew.
    pub fn streamed(&self) -> bool {
        self.layers.streamed()
    }

    /// What enters layer 0, for one token id and position a row. `[rows, d_model]`
    ///
    /// # Errors
    /// If an id or a position is out of range, or candle fails.
    pub fn embed(&self, ids: &[u32], positions: &[u32]) -> Result<Tensor> {
        let x = self.embed.rows(ids)?;
        // Rounded to the model's dtype, as the families that scale do.
        let x = match self.arch.embed_scale {
            Some(scale) => x.broadcast_mul(&Tensor::new(scale as f32, x.device())?.to_dtype(self.dtype)?)?,
            None => x,
        };
        match &self.positions {
            Some(table) => ops::add(&x, &table.rows(positions)?),
            None => Ok(x),
        }
    }

    /// Begins a pass over rows, of one token id and position each: `resid_pre` of layer 0.
    ///
    /// # Errors
    /// If an id or a position is out of range, the hook stops the pass, or candle fails.
    pub fn begin(&self, (ids, positions): (&[u32], &[u32]), rows: Rows, hook: &mut dyn Hook) -> Result<Acts> {
        let mut acts = Acts::new(rows);
        acts.put(SiteKind::Embed, self.embed(ids, positions)?);
        hook.at(SiteKind::Embed.at(0), &mut acts)?;
        let embed = acts.take(SiteKind::Embed)?;
        acts.put(SiteKind::ResidPre, embed);
        Ok(acts)
    }

    /// Ends a pass: from `resid_pre` after the last layer to `final_norm` and to the `logits` of all tokens, or of some, none maybe.
    ///
    /// # Errors
    /// If a token is out of range, the hook stops the pass, or candle fails.
    pub fn end(&self, tokens: Option<&[u32]>, acts: &mut Acts, hook: &mut dyn Hook) -> Result<()> {
        let resid = acts.take(SiteKind::ResidPre)?;
        acts.put(SiteKind::FinalNorm, self.final_norm(&resid)?);
        hook.at(SiteKind::FinalNorm.at(0), acts)?;
        if tokens.is_some_and(<[u32]>::is_empty) {
            return Ok(());
        }
        let logits = self.logits(acts.get(SiteKind::FinalNorm)?, tokens)?;
        acts.put(SiteKind::Logits, logits);
        hook.at(SiteKind::Logits.at(0), acts)
    }

    /// Runs a layer: from `resid_pre`, which must be live, to the next layer's `resid_pre`.
    ///
    /// # Errors
    /// If the hook stops the pass or candle fails.
    pub fn layer(&self, l: usize, angles: &Angles, acts: &mut Acts, hook: &mut dyn Hook) -> Result<()> {
        let w = self.weights(l)?;
        acts.move_to(self.places.layer(l))?;
        hook.at(SiteKind::ResidPre.at(l), acts)?;
        self.attention(l, &w, angles, acts, hook)?;
        self.mlp(l, &w, acts, hook)?;
        let resid = acts.take(SiteKind::ResidPost)?;
        acts.put(SiteKind::ResidPre, resid);
        Ok(())
    }

    /// `resid_pre` to `attn_delta`, and to `resid_mid` where there is one.
    fn attention(
        &self,
        l: usize,
        w: &LayerWeights,
        angles: &Angles,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<()> {
        use SiteKind::*;
        acts.put(AttnIn, self.norm(acts.get(ResidPre)?, w.attn_norm.as_ref())?);
        hook.at(AttnIn.at(l), acts)?;
        let x = acts.take(AttnIn)?;
        acts.put(Q, self.norm(&w.q.apply(&x)?, w.q_norm.as_ref())?);
        acts.put(K, self.norm(&w.k.apply(&x)?, w.k_norm.as_ref())?);
        acts.put(V, w.v.apply(&x)?);
        for kind in [Q, K, V] {
            hook.at(kind.at(l), acts)?;
        }
        self.rotate(l, angles, acts, hook)?;
        let z = self.attend(l, acts, hook)?;
        acts.put(Z, z);
        hook.at(Z.at(l), acts)?;
        let out = self.attn_out(l, w, acts, hook)?;
        acts.put(AttnOut, out);
        hook.at(AttnOut.at(l), acts)?;
        let delta = self.norm(&acts.take(AttnOut)?, w.attn_post_norm.as_ref())?;
        acts.put(AttnDelta, delta);
        hook.at(AttnDelta.at(l), acts)?;
        if !self.arch.parallel {
            let resid = ops::add(&acts.take(ResidPre)?, &acts.take(AttnDelta)?)?;
            acts.put(ResidMid, resid);
            hook.at(ResidMid.at(l), acts)?;
        }
        Ok(())
    }

    /// `q` and `k` to `rot_q` and `rot_k`; a model without rotations passes them on.
    fn rotate(&self, l: usize, angles: &Angles, acts: &mut Acts, hook: &mut dyn Hook) -> Result<()> {
        let table = angles.tables[self.places.index(l)].get(self.arch.layers[l].rope);
        for (from, to) in [(SiteKind::Q, SiteKind::RotQ), (SiteKind::K, SiteKind::RotK)] {
            let x = acts.take(from)?;
            let x = match table {
                Some((cos, sin)) => ops::rotate(&x, self.arch.d_head, cos, sin, &acts.rows.entries)?,
                None => x,
            };
            acts.put(to, x);
        }
        if table.is_some() {
            hook.at(SiteKind::RotQ.at(l), acts)?;
            hook.at(SiteKind::RotK.at(l), acts)?;
        }
        Ok(())
    }

    /// The shape of a layer's attention.
    fn heads(&self, l: usize) -> Heads {
        let a = &self.arch;
        Heads {
            n_heads: a.n_heads,
            n_kv_heads: a.n_kv_heads,
            d_head: a.d_head,
            scale: a.score_scale_of(l),
            softcap: a.score_softcap,
            window: a.layers[l].window,
        }
    }

    /// `z` of all rows: by the kernel, and step by step for the spans that the hook opens.
    fn attend(&self, l: usize, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        let q = acts.take(SiteKind::RotQ)?;
        let (k, v) = hook.keys_values(l, acts.take(SiteKind::RotK)?, acts.take(SiteKind::V)?)?;
        let heads = self.heads(l);
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

    /// `z` through the output projection, head by head where the hook looks at single heads.
    fn attn_out(&self, l: usize, w: &LayerWeights, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        let site = SiteKind::HeadOut.at(l);
        if !hook.wants(site) {
            return w.o.apply(&acts.take(SiteKind::Z)?);
        }
        let (h, d) = (self.arch.n_heads, self.arch.d_head);
        let z = acts.get(SiteKind::Z)?;
        let head = |i: usize| w.o.weight.product_of(i * d..(i + 1) * d, &z.narrow(1, i * d, d)?);
        let clean = Tensor::cat(&(0..h).map(head).collect::<Result<Vec<_>>>()?, 1)?;
        acts.put(SiteKind::HeadOut, clean);
        // Kept as a live value of the pass, so that rows which the hook adds get theirs too.
        acts.put(SiteKind::AttnOut, acts.get(SiteKind::HeadOut)?.clone());
        hook.at(site, acts)?;
        // The edits' difference is added to the plain product: rows without edits are as they would be without the hook.
        let (edited, clean) = (acts.take(SiteKind::HeadOut)?, acts.take(SiteKind::AttnOut)?);
        let change = (edited - clean)?.reshape((acts.rows.len(), h, self.arch.d_model))?.sum(1)?;
        ops::add(&w.o.apply(&acts.take(SiteKind::Z)?)?, &change)
    }

    /// The residual stream to `resid_post`.
    fn mlp(&self, l: usize, w: &LayerWeights, acts: &mut Acts, hook: &mut dyn Hook) -> Result<()> {
        use SiteKind::*;
        let resid = if self.arch.parallel { ResidPre } else { ResidMid };
        let watched = [MlpIn, MlpGate, MlpPre, MlpAct].iter().any(|kind| hook.wants(kind.at(l)));
        let (rows, most) = (acts.rows.len(), hook.most_rows().max(1));
        let out = if watched || rows <= most {
            self.mlp_inside(l, w, resid, acts, hook)?
        } else {
            let part = |from: usize| {
                let mut part = Acts::new(Rows::default());
                part.put(resid, acts.get(resid)?.narrow(0, from, most.min(rows - from))?);
                self.mlp_inside(l, w, resid, &mut part, &mut Unwatched)
            };
            Tensor::cat(&(0..rows).step_by(most).map(part).collect::<Result<Vec<_>>>()?, 0)?
        };
        acts.put(MlpOut, out);
        hook.at(MlpOut.at(l), acts)?;
        let delta = self.norm(&acts.take(MlpOut)?, w.mlp_post_norm.as_ref())?;
        acts.put(MlpDelta, delta);
        hook.at(MlpDelta.at(l), acts)?;
        let mut post = ops::add(&acts.take(resid)?, &acts.take(MlpDelta)?)?;
        if self.arch.parallel {
            post = ops::add(&post, &acts.take(AttnDelta)?)?;
        }
        acts.put(ResidPost, post);
        hook.at(ResidPost.at(l), acts)
    }

    /// The residual stream `resid`, which stays live, to what the MLP's last product gives.
    fn mlp_inside(
        &self,
        l: usize,
        w: &LayerWeights,
        resid: SiteKind,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        use SiteKind::*;
        acts.put(MlpIn, self.norm(acts.get(resid)?, w.mlp_norm.as_ref())?);
        hook.at(MlpIn.at(l), acts)?;
        let x = acts.take(MlpIn)?;
        if let Some(gate) = &w.gate {
            acts.put(MlpGate, gate.apply(&x)?);
        }
        acts.put(MlpPre, w.up.apply(&x)?);
        if self.arch.mlp == Mlp::Gated {
            hook.at(MlpGate.at(l), acts)?;
        }
        hook.at(MlpPre.at(l), acts)?;
        let pre = acts.take(MlpPre)?;
        let act = match self.arch.mlp {
            Mlp::Gated => ops::activate_gate(&acts.take(MlpGate)?, &pre, self.arch.activation)?,
            Mlp::Plain => ops::activate(&pre, self.arch.activation)?,
        };
        acts.put(MlpAct, act);
        hook.at(MlpAct.at(l), acts)?;
        w.down.apply(&acts.take(MlpAct)?)
    }

    /// The final norm of residual streams. `[rows, d_model]`
    ///
    /// # Errors
    /// If candle fails.
    pub fn final_norm(&self, resid: &Tensor) -> Result<Tensor> {
        // Without layers on the last device, no layer has brought the residual stream there.
        self.norm(&moved(resid, self.places.last())?, Some(&self.final_norm))
    }

    /// Logits of normed residual streams, of all tokens or of some. `[rows, tokens]`
    ///
    /// # Errors
    /// If a token is out of range or candle fails.
    pub fn logits(&self, normed: &Tensor, tokens: Option<&[u32]>) -> Result<Tensor> {
        let logits = match tokens {
            None => self.unembed.product(&normed.contiguous()?)?,
            Some(ids) => self.uncapped_logits(normed, ids)?,
        };
        match self.arch.logit_softcap {
            Some(cap) => ops::softcap(&logits, cap),
            None => Ok(logits),
        }
    }

    /// Logits of some tokens before soft-capping. `[rows, tokens]`
    ///
    /// # Errors
    /// As [`Decoder::logits`].
    pub fn uncapped_logits(&self, normed: &Tensor, tokens: &[u32]) -> Result<Tensor> {
        Weight::new(&self.unembed.rows(tokens)?)?.product(&normed.contiguous()?)
    }

    /// The unembedding's rows of some tokens, in f32. `[tokens, d_model]`
    ///
    /// # Errors
    /// If a token is out of range or candle fails.
    pub fn unembedding(&self, tokens: &[u32]) -> Result<Tensor> {
        self.unembed.rows(tokens)?.to_dtype(DType::F32)
    }

    /// The mean of the unembedding's rows: its product with a normed residual stream is the mean logit before soft-capping.
    /// `[d_model]`, computed once.
    ///
    /// # Errors
    /// If the unembedding cannot be read or candle fails.
    pub fn mean_unembedding(&self) -> Result<&[f32]> {
        if let Some(mean) = self.mean_unembed.get() {
            return Ok(mean);
        }
        let mean = self.unembed.mean()?;
        Ok(self.mean_unembed.get_or_init(|| mean))
    }

    /// The gradient with respect to normed residual streams of what has the gradient `upstream` with respect to their
    /// `logits`, both `[rows, tokens]` and of the same tokens. `[rows, d_model]`
    ///
    /// # Errors
    /// If a token is out of range, the shapes differ or candle fails.
    pub fn logits_back(&self, logits: &Tensor, upstream: &Tensor, tokens: Option<&[u32]>) -> Result<Tensor> {
        let upstream = match self.arch.logit_softcap {
            Some(cap) => (upstream * (1.0 - (logits / cap)?.sqr()?)?)?,
            None => upstream.clone(),
        };
        match tokens {
            None => self.unembed.product_back(&upstream),
            Some(ids) => Weight::new(&self.unembed.rows(ids)?)?.product_back(&upstream),
        }
    }

    fn norm(&self, x: &Tensor, w: Option<&NormWeights>) -> Result<Tensor> {
        match w {
            None => Ok(x.clone()),
            Some(w) => ops::norm(x, &w.weight, w.bias.as_ref(), self.arch.norm, self.arch.norm_eps),
        }
    }
}

impl Linear {
    /// `x . weight^T + bias`. `[rows, in]` to `[rows, out]`
    ///
    /// # Errors
    /// If the widths differ or candle fails.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.weight.product(x)?;
        match &self.bias {
            None => Ok(y),
            Some(bias) => ops::add_bias(&y, bias),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regimes_table_is_as_long_as_its_own_longest_prompt() {
        // The fixture rotates prompts of more than 64 tokens in another way.
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/phi3");
        let decoder = crate::model::Model::open(dir, &crate::model::Options::default()).expect("a sound model").decoder;
        let angles = Angles::reaching(&decoder, [10, 80, 7, 100], 2).expect("tables");
        assert_eq!(angles.tables[0][0].0.dims(), [12 + 102, decoder.arch.ropes[0].pairs()]);
        let firsts = [7, 10, 80, 100].map(|length| angles.entry(length, 3));
        assert_eq!(firsts, [3, 3, 15, 15]);
        let rows = |length: u32| angles.tables[0][0].1.get(angles.entry(length as usize, 3) as usize);
        let alone = |length: usize| Angles::new(&decoder, [length]).expect("tables").tables[0][0].1.get(3);
        for length in [7, 80] {
            let (found, expected) = (rows(length).expect("a row"), alone(length as usize).expect("a row"));
            assert_eq!(found.to_vec1::<f32>().expect("numbers"), expected.to_vec1::<f32>().expect("numbers"));
        }
    }
}
