//! The decoder: one forward pass for every family, layer by layer, with every site in reach.
//!
//! [`Decoder::layer`] runs one layer over packed rows: its mixer, then its channel. At each site it hands
//! the activations to a [`Hook`], which may read them, change them, or add rows; an engine is a hook and an order of layers.
//! What differs between families is in [`Arch`]; nothing here asks for a family.

mod angles;
mod fed;

pub use super::pass::{Acts, Hook};
pub(crate) use super::pass::{Lent, Loans, Unwatched};
pub use angles::Angles;

use super::arch::{Arch, Factors, Layer, NormKind, Positions};
use super::channel::ChannelWeights;
use super::mixer::{Attention, AttentionWeights, MixerWeights, head_outputs};
use super::pass::{Around, norm};
use super::per_layer::TokenEmbedding;
use super::places::{Places, moved};
use super::store::{Layers, Table};
use super::weights::{LayerWeights, NormWeights};
use crate::ops::rows::Rows;
use crate::ops::{self, Weight};
use crate::plan::Kv;
use crate::site::SiteKind;
use candle_core::{DType, Result, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

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
    pub(super) embed_norm: Option<NormWeights>,
    /// `[skipped + n_ctx, d_model]` where positions are learned.
    pub(super) positions: Option<Table>,
    /// None where the residual stream is normed in every layer.
    pub(crate) final_norm: Option<NormWeights>,
    /// `[vocab, d_model]`; the embedding itself where the two are tied.
    pub(super) unembed: Table,
    /// What each token's logit has besides. `[vocab]`, f32
    pub(super) unembed_bias: Option<Tensor>,
    pub(super) per_layer: Option<TokenEmbedding>,
    /// What each layer multiplies the residual stream by at its end, where layers do.
    pub(super) scalars: Vec<f64>,
    /// The mean of its rows, once it was asked for.
    pub(super) mean_unembed: OnceLock<Vec<f32>>,
    pub(super) layers: Arc<Layers>,
    /// Where it tells keys and values apart by query head: layers with those, made of what is read.
    pub(super) by_query: Option<Mutex<BTreeMap<usize, Arc<LayerWeights>>>>,
    /// The same decoder with keys and values told apart by query head, once it was asked for.
    pub(super) told_apart: OnceLock<Box<Decoder>>,
}

impl Decoder {
    /// The decoder for plans of this kind. For [`Kv::Query`] it has as many KV heads as heads, equal ones where the model has one; it
    /// computes the same, and shares all other weights.
    pub fn of(&self, kv: Kv) -> &Decoder {
        if kv == Kv::Head || self.arch.n_kv_heads == self.arch.n_heads {
            return self;
        }
        self.told_apart.get_or_init(|| {
            Box::new(Decoder {
                arch: self.arch.by_query_head(),
                dtype: self.dtype,
                places: self.places.clone(),
                parameters: self.parameters,
                embed: self.embed.clone(),
                embed_norm: self.embed_norm.clone(),
                positions: self.positions.clone(),
                final_norm: self.final_norm.clone(),
                unembed: self.unembed.clone(),
                unembed_bias: self.unembed_bias.clone(),
                per_layer: self.per_layer.clone(),
                scalars: self.scalars.clone(),
                mean_unembed: self.mean_unembed.clone(),
                layers: self.layers.clone(),
                by_query: Some(Mutex::default()),
                told_apart: OnceLock::new(),
            })
        })
    }

    /// The weights of a layer, read if they are not in memory.
    ///
    /// # Errors
    /// If there is no such layer, or it cannot be read.
    pub fn weights(&self, layer: usize) -> Result<Arc<LayerWeights>> {
        let stored = || Ok(self.layers.get(layer)?);
        let Some(made) = &self.by_query else { return stored() };
        let made = || made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = made().get(&layer) {
            return Ok(found.clone());
        }
        // Made without the lock: whoever waits for what rayon does here may be given work that comes here too.
        let found = Arc::new(stored()?.by_query_head()?);
        let mut made = made();
        if self.streamed() {
            // Of weights that do not stay in memory, those of one layer do.
            made.clear();
        }
        made.insert(layer, found.clone());
        Ok(found)
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
    /// passes alone. Of weights that do not stay in memory, every layer is read and let go. The table of per-layer embeddings is not
    /// read, of which no pass needs the whole.
    ///
    /// # Errors
    /// If a layer or a table cannot be read.
    pub fn read(&self) -> Result<()> {
        self.through(0..self.arch.n_layers, |layer| self.layers.get(layer)?.channel.read())?;
        [Some(&self.embed), self.positions.as_ref(), Some(&self.unembed)]
            .into_iter()
            .flatten()
            .try_for_each(Table::read)
    }

    /// Whether there are weights to compute with; none where the model is only described.
    pub fn has_weights(&self) -> bool {
        !self.embed.source().is_described()
    }

    /// What the weights take in a dtype, in bytes.
    pub fn weight_bytes(&self, dtype: DType) -> u64 {
        self.parameters.saturating_mul(dtype.size_in_bytes() as u64)
    }

    /// Whether weights do not stay in memory: each pass reads them anew.
    pub fn streamed(&self) -> bool {
        self.layers.streamed()
    }

    /// How many bytes of the checkpoint's files were read as weights since the model was opened; what was read again counts again.
    /// Scales of quantised numbers are left out.
    pub fn bytes_read(&self) -> u64 {
        self.embed.source().bytes_read()
    }

    /// What enters layer 0, for one token id and position a row. `[rows, d_model]`
    ///
    /// # Errors
    /// If an id or a position is out of range, or candle fails.
    pub fn embed(&self, ids: &[u32], positions: &[u32]) -> Result<Tensor> {
        self.embedded(&self.embed.rows(ids)?, positions)
    }

    /// What would enter layer 0 at these positions, were the token the mean of all: it says nothing of any. `[rows, d_model]`
    ///
    /// # Errors
    /// As [`Decoder::embed`].
    pub fn embed_mean(&self, positions: &[u32]) -> Result<Tensor> {
        let mean = Tensor::new(self.embed.mean()?, self.places.first())?.to_dtype(self.dtype)?;
        self.embedded(&mean.unsqueeze(0)?.repeat((positions.len(), 1))?, positions)
    }

    /// Rows of the embedding at positions.
    fn embedded(&self, x: &Tensor, positions: &[u32]) -> Result<Tensor> {
        // Rounded to the model's dtype, as the families that scale do.
        let x = match self.arch.embed_scale {
            Some(scale) => x.broadcast_mul(&Tensor::new(scale as f32, x.device())?.to_dtype(self.dtype)?)?,
            None => x.clone(),
        };
        let x = match (&self.positions, self.arch.positions) {
            (Some(table), Positions::Learned { skipped }) => {
                let rows: Vec<u32> = positions.iter().map(|p| p + skipped as u32).collect();
                ops::add(&x, &table.rows(&rows)?)?
            }
            (None, Positions::Sinusoidal { skipped }) => ops::add(&x, &self.sinusoids(positions, skipped)?)?,
            _ => x,
        };
        norm(&x, self.embed_norm.as_ref())
    }

    /// The sines and cosines that stand for positions. `[rows, d_model]`
    fn sinusoids(&self, positions: &[u32], skipped: usize) -> Result<Tensor> {
        let (d, half) = (self.arch.d_model, self.arch.d_model / 2);
        let rate = |i: usize| (-(10_000f64.ln()) * i as f64 / (half - 1).max(1) as f64).exp();
        let of_row = |p: &u32| {
            let angle = (0..half).map(|i| (*p as usize + skipped) as f64 * rate(i)).collect::<Vec<_>>();
            let sines = angle.iter().map(|a| a.sin()).chain(angle.iter().map(|a| a.cos()));
            sines.chain(std::iter::repeat_n(0.0, d % 2)).map(|v| v as f32).collect::<Vec<f32>>()
        };
        let values: Vec<f32> = positions.iter().flat_map(of_row).collect();
        Tensor::from_vec(values, (positions.len(), d), self.places.first())?.to_dtype(self.dtype)
    }

    /// Begins a pass over rows, of one token id and position each: `resid_pre` of layer 0.
    ///
    /// # Errors
    /// If an id or a position is out of range, the hook stops the pass, or candle fails.
    pub fn begin(&self, (ids, positions): (&[u32], &[u32]), rows: Rows, hook: &mut dyn Hook) -> Result<Acts> {
        let mut acts = Acts::new(rows);
        acts.put(SiteKind::Embed, self.embed(ids, positions)?);
        if let (Some(embedding), Some(of)) = (&self.per_layer, &self.arch.per_layer) {
            acts.loans.tokens = Some(embedding.rows(of, ids)?);
        }
        hook.at(SiteKind::Embed.at(0), &mut acts)?;
        let embed = acts.take(SiteKind::Embed)?;
        if self.arch.lends_embedding() {
            acts.loans.lend(Lent::Embed, embed.clone());
        }
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
        if let Some(altup) = &w.altup {
            altup.begin(acts)?;
        }
        hook.at(SiteKind::ResidPre.at(l), acts)?;
        if let Some(altup) = &w.altup {
            altup.predict(acts)?;
        }
        if let MixerWeights::Both(both, attention, recurrent, Some(fed)) = &w.mixer {
            self.feed(&self.around(l, angles), &w, (both, attention, recurrent, fed), acts, hook)?;
            return self.next(l, &w, acts, hook);
        }
        match w.mixer {
            MixerWeights::None => {
                let resid = acts.take(SiteKind::ResidPre)?;
                acts.put(SiteKind::ResidMid, resid);
                hook.at(SiteKind::ResidMid.at(l), acts)?;
            }
            _ => self.mix(&self.around(l, angles), &w, acts, hook)?,
        }
        match w.channel {
            ChannelWeights::None => {
                let resid = acts.take(SiteKind::ResidMid)?;
                acts.put(SiteKind::ResidPost, resid);
            }
            _ => self.channel(l, &w, acts, hook)?,
        }
        self.next(l, &w, acts, hook)
    }

    /// The end of a layer, and `resid_post` as the next one's `resid_pre`.
    fn next(&self, l: usize, w: &LayerWeights, acts: &mut Acts, hook: &mut dyn Hook) -> Result<()> {
        self.close(l, w, acts, hook)?;
        let mut resid = acts.take(SiteKind::ResidPost)?;
        if let Some(altup) = &w.altup {
            resid = altup.end(resid, acts)?;
        }
        acts.put(SiteKind::ResidPre, resid);
        Ok(())
    }

    /// The mixer between its norms: `resid_pre` to `attn_delta`, and to `resid_mid` where there is one.
    fn mix(&self, around: &Around, w: &LayerWeights, acts: &mut Acts, hook: &mut dyn Hook) -> Result<()> {
        use SiteKind::*;
        let l = around.layer;
        acts.put(AttnIn, norm(acts.get(ResidPre)?, w.attn_norm.as_ref())?);
        hook.at(AttnIn.at(l), acts)?;
        let out = w.mixer.forward(around, acts, hook)?;
        acts.put(AttnOut, out);
        hook.at(AttnOut.at(l), acts)?;
        let delta = self.added(&w.mixer.sum(acts)?, w.attn_post_norm.as_ref(), self.arch.added_times(l, false))?;
        acts.put(AttnDelta, delta);
        hook.at(AttnDelta.at(l), acts)?;
        if !self.arch.parallel {
            let kept = self.kept(acts.take(ResidPre)?, w.attn_norm.as_ref(), self.arch.factors(l, false))?;
            let delta = acts.take(AttnDelta)?;
            let resid = match &w.altup {
                Some(altup) => altup.after_mixer(&kept, &norm(&kept, w.attn_norm.as_ref())?, &delta)?,
                None => ops::add(&kept, &delta)?,
            };
            acts.put(ResidMid, norm(&resid, w.attn_sum_norm.as_ref())?);
            hook.at(ResidMid.at(l), acts)?;
        }
        Ok(())
    }

    /// What comes after a layer's channel: the correction of all streams where there are several, what it adds of the token's own
    /// embedding, and the number that it multiplies by.
    fn close(&self, l: usize, w: &LayerWeights, acts: &mut Acts, hook: &mut dyn Hook) -> Result<()> {
        use SiteKind::*;
        let altup = w.altup.as_ref().zip(self.arch.altup());
        if let Some((weights, _)) = altup {
            weights.correct(acts)?;
        }
        if let (Some(weights), Some(of), Some(embedding)) = (&w.per_layer, &self.arch.per_layer, &self.per_layer) {
            let resid = acts.get(ResidPost)?;
            let read = altup.map_or_else(|| Ok(resid.clone()), |(weights, of)| weights.read(&of, resid))?;
            let out = weights.forward((&self.arch, of), l, embedding, acts, &read)?;
            acts.put(PleOut, out);
            hook.at(PleOut.at(l), acts)?;
            let out = acts.take(PleOut)?;
            match altup {
                Some((weights, _)) => weights.add_to_others(&out, acts)?,
                None => {
                    let resid = ops::add(&acts.take(ResidPost)?, &out)?;
                    acts.put(ResidPost, resid);
                }
            }
        }
        if let Some(scalar) = self.scalars.get(l) {
            let resid = (acts.take(ResidPost)? * *scalar)?;
            acts.put(ResidPost, resid);
        }
        hook.at(ResidPost.at(l), acts)
    }

    /// What these layers multiply the residual stream by: what is added in the first of them counts so much less or more after the
    /// last. 1 where layers multiply by nothing.
    pub fn scale_of(&self, layers: Range<usize>) -> f64 {
        self.scalars.iter().take(layers.end).skip(layers.start).product()
    }

    /// The channel between its norms: the residual stream to what it and the channel make together.
    fn channel(&self, l: usize, w: &LayerWeights, acts: &mut Acts, hook: &mut dyn Hook) -> Result<()> {
        use SiteKind::*;
        let resid = if self.arch.parallel { ResidPre } else { ResidMid };
        let out = self.in_parts(l, w, resid, acts, hook)?;
        acts.put(MlpOut, out);
        hook.at(MlpOut.at(l), acts)?;
        let delta = self.added(&acts.take(MlpOut)?, w.mlp_post_norm.as_ref(), self.arch.added_times(l, true))?;
        acts.put(MlpDelta, delta);
        hook.at(MlpDelta.at(l), acts)?;
        let kept = self.kept(acts.take(resid)?, w.mlp_norm.as_ref(), self.arch.factors(l, true))?;
        let mut post = ops::add(&kept, &acts.take(MlpDelta)?)?;
        if self.arch.parallel {
            post = ops::add(&post, &acts.take(AttnDelta)?)?;
        }
        acts.put(ResidPost, norm(&post, w.mlp_sum_norm.as_ref())?);
        Ok(())
    }

    /// The residual stream `resid`, which stays live, through the channel: all rows at once where the hook looks inside it,
    /// else as many as it allows.
    fn in_parts(
        &self,
        l: usize,
        w: &LayerWeights,
        resid: SiteKind,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        let through = |acts: &mut Acts, hook: &mut dyn Hook| {
            acts.put(SiteKind::MlpIn, norm(acts.get(resid)?, w.mlp_norm.as_ref())?);
            hook.at(SiteKind::MlpIn.at(l), acts)?;
            w.channel.forward(l, self.arch.layers[l].mixer.carried(self.arch.d_model).parts.len(), acts, hook)
        };
        let watched = hook.wants(SiteKind::MlpIn.at(l)) || w.channel.inside().iter().any(|kind| hook.wants(kind.at(l)));
        let (rows, most) = (acts.rows.len(), hook.most_rows().max(1));
        if watched || w.channel.moves() || rows <= most {
            return through(acts, hook);
        }
        let part = |from: usize| {
            let mut part = Acts::new(Rows::default());
            part.put(resid, acts.get(resid)?.narrow(0, from, most.min(rows - from))?);
            through(&mut part, &mut Unwatched)
        };
        Tensor::cat(&(0..rows).step_by(most).map(part).collect::<Result<Vec<_>>>()?, 0)
    }

    /// What each head of a layer adds by itself: `z` through its slice of the output projection, without the bias, before a norm after
    /// it. `[rows, n_heads * d_head]` to `[rows, n_heads * d_model]`
    ///
    /// # Errors
    /// If the layer cannot be read or candle fails.
    pub fn head_outputs(&self, layer: usize, z: &Tensor) -> Result<Tensor> {
        let weights = self.weights(layer)?;
        match weights.mixer.out() {
            Some((out, Some(heads))) => head_outputs(out, heads, z),
            _ => candle_core::bail!("layer {layer} has no heads"),
        }
    }

    /// What each neuron of a layer adds to the residual stream for a unit of its activation: its column of the down projection, through
    /// the gain of a norm after the MLP, but not that norm's scale. `[neurons, d_model]`, f32
    ///
    /// Neurons stand as in `mlp_act`. They come matrix by matrix: those of an MLP at once, those of several experts expert by expert,
    /// since all together may be a gigabyte.
    ///
    /// # Errors
    /// If the layer has no MLP or cannot be read, or candle fails.
    pub fn neuron_writes(&self, layer: usize) -> Result<impl Iterator<Item = Result<Tensor>>> {
        if self.arch.layers.get(layer).is_some_and(Layer::feeds) {
            candle_core::bail!(
                "the neurons of layer {layer} add nothing to the residual stream: its recurrent mixer alone reads what they give"
            )
        }
        let (weights, scale) = (self.weights(layer)?, self.arch.added_times(layer, true));
        let gained = move |columns: Tensor| match &weights.mlp_post_norm {
            Some(norm) => match norm.by.kind {
                NormKind::Rms => columns.broadcast_mul(&norm.weight),
                // A layer norm reads what is left when the mean is taken out.
                NormKind::Layer => columns.broadcast_sub(&columns.mean_keepdim(1)?)?.broadcast_mul(&norm.weight),
            },
            None => Ok(columns),
        };
        Ok(self.neuron_columns(layer)?.map(move |columns| match (gained(columns?), scale) {
            (gained, Some(scale)) => gained? * scale,
            (gained, None) => gained,
        }))
    }

    /// Each neuron's column of the down projection, matrix by matrix. `[neurons, d_model]`, f32
    ///
    /// # Errors
    /// As [`Decoder::neuron_writes`].
    pub fn neuron_columns(&self, layer: usize) -> Result<impl Iterator<Item = Result<Tensor>>> {
        let weights = self.weights(layer)?;
        let matrices = weights.channel.downs();
        if matrices == 0 {
            candle_core::bail!("layer {layer} has no neurons")
        }
        Ok((0..matrices)
            .map(move |i| weights.channel.down(i)?.weight.tensor()?.to_dtype(DType::F32)?.t()?.contiguous()))
    }

    /// What rows that are added to the residual stream add to the logit of every token, through the final norm's gain but not its
    /// scale: the vocabulary of a neuron, or of a vector. `[rows, d_model]` to `[rows, vocab]`, f32
    ///
    /// # Errors
    /// If candle fails.
    pub fn vocabulary(&self, rows: &Tensor) -> Result<Tensor> {
        let gained = self.read_by_unembedding(rows)?.to_dtype(self.dtype)?;
        self.unembed.product(&gained.contiguous()?)?.to_dtype(DType::F32)
    }

    /// What the unembedding reads of rows that are added to the residual stream: through the final norm's gain but not its scale.
    /// `[rows, d_model]`, f32
    ///
    /// # Errors
    /// If candle fails.
    pub fn read_by_unembedding(&self, rows: &Tensor) -> Result<Tensor> {
        let rows = moved(rows, self.places.last())?.to_dtype(DType::F32)?;
        self.through_final_norm(&rows)
    }

    /// Asks a layer's mixer, which has queries, keys and values.
    pub(crate) fn ports<T>(
        &self,
        layer: usize,
        ask: impl FnOnce(&Attention, &AttentionWeights) -> Result<T>,
    ) -> Result<T> {
        match &self.weights(layer)?.mixer {
            MixerWeights::Attention(shape, of) => ask(shape, of),
            _ => candle_core::bail!("layer {layer} has no queries, keys and values"),
        }
    }

    /// What a layer's channel gives for residual streams, before a norm after it; the hook is not asked. `[rows, d_model]`
    ///
    /// # Errors
    /// If the layer cannot be read or candle fails.
    pub fn channel_of(&self, layer: usize, resid: &Tensor) -> Result<Tensor> {
        let mut acts = Acts::new(Rows::default());
        acts.put(SiteKind::MlpIn, self.read_by_channel(layer, resid)?);
        let weights = self.weights(layer)?;
        if weights.channel.moves() {
            candle_core::bail!("the channel of layer {layer} reads other positions too");
        }
        weights.channel.forward(layer, 0, &mut acts, &mut Unwatched)
    }

    /// What is around a layer's mixer.
    pub(crate) fn around<'a>(&'a self, layer: usize, angles: &'a Angles) -> Around<'a> {
        Around { layer, arch: &self.arch, angles: &angles.tables[self.places.index(layer)], beside: false }
    }

    /// What a layer's mixer reads of residual streams: after its norm, where it has one before. `[rows, d_model]`
    ///
    /// # Errors
    /// If the layer cannot be read or candle fails.
    pub fn read_by_mixer(&self, layer: usize, resid: &Tensor) -> Result<Tensor> {
        norm(resid, self.weights(layer)?.attn_norm.as_ref())
    }

    /// What a layer's channel reads of residual streams: after its norm, where it has one before. `[rows, d_model]`
    ///
    /// # Errors
    /// If the layer cannot be read or candle fails.
    pub fn read_by_channel(&self, layer: usize, resid: &Tensor) -> Result<Tensor> {
        norm(resid, self.weights(layer)?.mlp_norm.as_ref())
    }

    /// What is added to the residual stream of what a part gives.
    fn added(&self, out: &Tensor, after: Option<&NormWeights>, times: Option<f64>) -> Result<Tensor> {
        let normed = norm(out, after)?;
        match times {
            Some(scale) => normed * scale,
            None => Ok(normed),
        }
    }

    /// What a part adds to: the residual stream, or what it reads of it.
    fn kept(&self, resid: Tensor, before: Option<&NormWeights>, factors: Option<Factors>) -> Result<Tensor> {
        match factors {
            Some(factors) => norm(&resid, before)? * factors.kept,
            None => Ok(resid),
        }
    }

    /// What is added to the residual stream of a mixer's output: after its norm, where the family has one after. `[rows, d_model]`
    ///
    /// # Errors
    /// If the layer cannot be read or candle fails.
    pub fn after_mixer(&self, layer: usize, out: &Tensor) -> Result<Tensor> {
        self.added(out, self.weights(layer)?.attn_post_norm.as_ref(), self.arch.added_times(layer, false))
    }

    /// What is added to the residual stream of a channel's output: after its norm, where the family has one after. `[rows, d_model]`
    ///
    /// # Errors
    /// If the layer cannot be read or candle fails.
    pub fn after_channel(&self, layer: usize, out: &Tensor) -> Result<Tensor> {
        self.added(out, self.weights(layer)?.mlp_post_norm.as_ref(), self.arch.added_times(layer, true))
    }

    /// The final norm of residual streams. `[rows, d_model]`
    ///
    /// # Errors
    /// If candle fails.
    pub fn final_norm(&self, resid: &Tensor) -> Result<Tensor> {
        // Without layers on the last device, no layer has brought the residual stream there.
        norm(&moved(resid, self.places.last())?, self.final_norm.as_ref())
    }

    /// Rows through the final norm's gain, centred where it centres, but not through its scale. `[rows, d_model]`, f32
    fn through_final_norm(&self, rows: &Tensor) -> Result<Tensor> {
        let Some(norm) = &self.final_norm else { return Ok(rows.clone()) };
        match norm.by.kind {
            NormKind::Rms => rows.broadcast_mul(&norm.weight),
            NormKind::Layer => rows.broadcast_sub(&rows.mean_keepdim(1)?)?.broadcast_mul(&norm.weight),
        }
    }

    /// Logits of normed residual streams, of all tokens or of some. `[rows, tokens]`
    ///
    /// # Errors
    /// If a token is out of range or candle fails.
    pub fn logits(&self, normed: &Tensor, tokens: Option<&[u32]>) -> Result<Tensor> {
        let logits = match tokens {
            None => {
                let logits = self.unembed.product(&normed.contiguous()?)?;
                match &self.unembed_bias {
                    Some(bias) => ops::add_bias(&logits, &bias.to_dtype(logits.dtype())?)?,
                    None => logits,
                }
            }
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
        let logits = Weight::new(&self.unembed.rows(tokens)?)?.product(&normed.contiguous()?)?;
        match &self.unembed_bias {
            Some(bias) => {
                let ids = Tensor::new(tokens, bias.device())?;
                ops::add_bias(&logits, &bias.index_select(&ids, 0)?.to_dtype(logits.dtype())?)
            }
            None => Ok(logits),
        }
    }

    /// What some tokens' logits have besides the product with the unembedding, 0 in most families, and the mean over all.
    ///
    /// # Errors
    /// If a token is out of range or candle fails.
    pub fn unembedding_bias(&self, tokens: &[u32]) -> Result<(Vec<f32>, f64)> {
        let Some(bias) = &self.unembed_bias else { return Ok((vec![0.0; tokens.len()], 0.0)) };
        let all = ops::to_vec(bias)?;
        let mean = all.iter().map(|b| f64::from(*b)).sum::<f64>() / all.len().max(1) as f64;
        let found: Option<Vec<f32>> = tokens.iter().map(|t| all.get(*t as usize).copied()).collect();
        Ok((found.ok_or_else(|| candle_core::Error::Msg("a token is out of range".to_string()))?, mean))
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
}
