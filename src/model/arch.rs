//! The typed description of a model: all that the one decoder has to know to run any family.
//!
//! A family's page ([`super::families`]) makes it of a Hugging Face `config.json` or of GGUF metadata. What differs between
//! families, and between the layers of one model, is values of these types; [`super::decoder`] and the engines never ask
//! for a family.

pub use super::altup::AltUp;
pub use super::channel::{Channel, Experts, Groups, Mlp, Numbering, Router, Scores, Shared, Shifted};
use super::families::{Family, Tensors};
pub use super::mixer::{
    Alibi, Attention, Both, Carried, DeltaStored, Difference, Dynamic, Fed, Growth, Index, Kind, Latent, Mixer,
    NormOver, QkNorm, Recurrent,
};
pub use super::per_layer::PerLayer;
use super::rope::Rope;
pub use super::weights::Multipliers;
pub use crate::ops::attention::Heads;
pub use crate::ops::{Activation, NormKind};
use crate::site::{Lack, SiteKind, Units};

/// A norm, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    pub kind: NormKind,
    pub eps: f64,
    pub gain: Gain,
    /// Whether it has a bias.
    pub bias: bool,
}

/// What a norm multiplies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gain {
    /// By nothing.
    One,
    /// By its weight.
    Stored,
    /// By its weight, of which 1 less is stored (Gemma).
    LessOne,
}

impl Norm {
    /// A root-mean-square norm with a weight.
    pub const fn rms(eps: f64) -> Self {
        Norm { kind: NormKind::Rms, eps, gain: Gain::Stored, bias: false }
    }

    /// A layer norm with a weight and a bias.
    pub const fn layer(eps: f64) -> Self {
        Norm { kind: NormKind::Layer, eps, gain: Gain::Stored, bias: true }
    }

    /// What it divides a row by: its deviation or its root mean square, with the epsilon.
    pub fn divisor(self, row: &[f32]) -> f64 {
        let n = row.len() as f64;
        let mean = match self.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => row.iter().map(|v| f64::from(*v)).sum::<f64>() / n,
        };
        (row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n + self.eps).sqrt()
    }
}

/// What a model adds to the embeddings of tokens by their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    None,
    /// Rows of a table, the first of which stand for no position.
    Learned {
        skipped: usize,
    },
    /// Sines, then cosines, of the position and this many more (Vaswani et al. 2017).
    Sinusoidal {
        skipped: usize,
    },
}

/// Where a block's norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and before the MLP (most families).
    Before,
    /// After attention and after the MLP, none before (OLMo 2).
    After,
    /// Both (Gemma 2 and 3).
    Both,
}

impl NormPlacement {
    /// Whether a norm stands before attention and MLP.
    pub fn before(self) -> bool {
        self != NormPlacement::After
    }

    /// Whether a norm stands after attention and MLP, on what they add to the residual stream.
    pub fn after(self) -> bool {
        self != NormPlacement::Before
    }
}

/// What becomes of the residual stream where a mixer or a channel has worked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stream {
    /// What they give is added to it (almost all families).
    Sum,
    /// The sum is normed, each time; no norm stands before them, nor at the end (OPT 350M).
    Normed,
    /// What they give is added to what they read, both multiplied (MiniMax Text 01).
    Read { attention: Factors, recurrent: Factors, channel: Factors },
    /// It is the first of several, each of which is predicted from all and corrected in every layer (Gemma 3n).
    Several(AltUp),
}

/// What is multiplied before it is added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// What a mixer or channel read.
    pub kept: f64,
    /// What it gives.
    pub added: f64,
}

/// A layer: a mixer, which moves information between positions, and a channel, which works at each position by itself, or reads the
/// one before it too ([`Shifted`]).
/// Layers of one model may differ in kind and in shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    pub mixer: Mixer,
    pub channel: Channel,
}

impl Layer {
    /// Whether attention and channel come before a recurrent mixer, which alone adds to the residual stream ([`Fed`]).
    pub fn feeds(&self) -> bool {
        matches!(self.mixer, Mixer::Both(Both { fed: Some(_), .. }))
    }

    /// Whether it reads the embedding beside the residual stream.
    pub fn reads_embedding(&self) -> bool {
        self.mixer.attention().is_some_and(|attention| attention.beside_embedding)
    }

    /// In which part of the layer a pass reaches a site: the order of sites within one is that of their kinds.
    pub(crate) fn stage(&self, kind: SiteKind) -> u8 {
        use SiteKind::*;
        match kind {
            _ if !self.feeds() => 0,
            Router | MlpIn | MlpGate | MlpPre | MlpAct | SharedOut | ExpertOut | MlpOut => 1,
            ConvIn | State | MixZ | MixOut | AttnDelta => 2,
            PleOut | ResidPost => 3,
            _ => 0,
        }
    }

    /// Whether an edit at the kind reaches other positions in the layer by its mixer.
    pub(crate) fn mixes(&self, kind: SiteKind) -> bool {
        match self.feeds() {
            true => self.stage(kind) < 2 || matches!(kind, SiteKind::ConvIn | SiteKind::State),
            false => kind.is_mixed(),
        }
    }

    /// Why the layer's mixer or channel lacks a site; nothing where it has it, or the site is neither's.
    pub fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        if self.feeds() && matches!(kind, SiteKind::ResidMid | SiteKind::MlpDelta) {
            let nearest = if kind == SiteKind::ResidMid { SiteKind::ResidPost } else { SiteKind::MlpOut };
            return Some(Lack { why: "the layer's recurrent mixer alone adds to the residual stream", nearest });
        }
        self.mixer.lacks(kind).or_else(|| self.channel.lacks(kind))
    }

    /// How a site of the layer divides, in a model of this width.
    pub fn units(&self, kind: SiteKind, d_model: usize) -> Units {
        let own = self.mixer.units(kind, d_model).or_else(|| self.channel.units(kind, d_model));
        own.unwrap_or(Units::Columns { width: d_model })
    }

    /// How many heads the layer's mixer has; of one beside attention, those of attention.
    pub fn heads(&self) -> usize {
        match self.mixer {
            Mixer::Attention(attention) => attention.read().0,
            Mixer::Recurrent(recurrent) => recurrent.heads().unwrap_or(0),
            _ => self.mixer.heads().map_or(0, |heads| heads.n_heads),
        }
    }

    /// What a fork takes over from its base, in a model of this width: what the mixer hands over, then the channel.
    pub fn carried(&self, d_model: usize) -> Carried {
        let mut carried = self.mixer.carried(d_model);
        carried.parts.extend(self.channel.carried(d_model));
        carried
    }

    /// Weights of the layer, in numbers (biases and norms left out, which are under a thousandth).
    pub fn params(&self, d_model: usize) -> u64 {
        self.mixer.params(d_model) + self.channel.params(d_model)
    }

    /// Those that a row is multiplied with: of several experts, the chosen ones.
    pub fn active_params(&self, d_model: usize) -> u64 {
        self.mixer.params(d_model) + self.channel.active_params(d_model)
    }
}

/// A decoder, described. Sizes are in numbers, positions in tokens.
///
/// `n_heads`, `n_kv_heads`, `d_head` and `d_mlp` are the largest of any layer. Lists of heads and tables are made by them;
/// what a layer has is in [`Arch::layers`].
#[derive(Clone, Debug)]
pub struct Arch {
    pub family: &'static Family,
    pub d_model: usize,
    /// How wide the tables of tokens are, where they are not as wide as the model: a matrix leads from them to it, and one back.
    pub d_embed: Option<usize>,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
    pub d_mlp: usize,
    pub vocab: usize,
    /// The longest prompt that the model takes.
    pub n_ctx: usize,
    /// The norms before and after mixers and channels, and the final one where it has no description of its own.
    pub norm: Norm,
    pub final_norm: Option<Norm>,
    /// A norm of the embedding, before layer 0 (BLOOM).
    pub embed_norm: Option<Norm>,
    pub placement: NormPlacement,
    pub stream: Stream,
    /// Attention and MLP read the same residual stream and are added together (GPT-NeoX).
    pub parallel: bool,
    pub positions: Positions,
    /// The rotations that layers choose from by [`Attention::rope`].
    pub ropes: Vec<Rope>,
    /// One entry per layer.
    pub layers: Vec<Layer>,
    pub logit_softcap: Option<f64>,
    /// What logits are multiplied by, before soft-capping: the final norm carries it.
    pub logit_scale: f64,
    /// Whether each token's logit has a bias.
    pub unembed_bias: bool,
    /// What token embeddings are multiplied by.
    pub embed_scale: Option<f64>,
    /// What mixers and channels give is multiplied by this before it is added to the residual stream (Granite).
    pub residual_scale: Option<f64>,
    /// What each layer adds of its own embedding of the token (Gemma 4).
    pub per_layer: Option<PerLayer>,
    /// Whether each layer ends by multiplying the whole residual stream by a number of its own (Gemma 4).
    pub layer_scalars: bool,
    /// What parts of every layer are multiplied by as they are read.
    pub multipliers: Option<Multipliers>,
    /// How wide MLPs are in checkpoints of this family that another implementation made: where the tensors are so, they count (MPT).
    pub or_width: Option<usize>,
    /// The unembedding is the embedding.
    pub tied: bool,
    /// How many layers that predict tokens further on stand after the last in the checkpoint. They are not read.
    pub further: usize,
    /// How a variant of the family stores its tensors, where it does so in another way.
    pub(crate) stored: Option<&'static Tensors>,
}

impl Arch {
    /// A decoder of these layers, with norms before mixers and channels, an unembedding of its own, and nothing else.
    pub(super) fn plain(
        family: &'static Family,
        [d_model, vocab, n_ctx]: [usize; 3],
        norm: Norm,
        layers: Vec<Layer>,
    ) -> Self {
        let most = |of: &dyn Fn(&Layer) -> usize| layers.iter().map(of).max().unwrap_or(0);
        let heads = |of: fn(&Heads) -> usize| most(&|layer| layer.mixer.heads().map_or(0, |heads| of(&heads)));
        let recurrent = most(&|layer| layer.heads());
        Arch {
            family,
            d_model,
            d_embed: None,
            n_layers: layers.len(),
            // Tables of heads have one column at least.
            n_heads: recurrent.max(1),
            n_kv_heads: heads(|h| h.n_kv_heads),
            d_head: heads(|h| h.d_head),
            d_mlp: most(&|layer| layer.channel.width()),
            vocab,
            n_ctx,
            norm,
            final_norm: None,
            embed_norm: None,
            placement: NormPlacement::Before,
            stream: Stream::Sum,
            parallel: false,
            positions: Positions::None,
            ropes: Vec::new(),
            layers,
            logit_softcap: None,
            logit_scale: 1.0,
            unembed_bias: false,
            embed_scale: None,
            residual_scale: None,
            per_layer: None,
            layer_scalars: false,
            multipliers: None,
            or_width: None,
            tied: false,
            further: 0,
            stored: None,
        }
    }

    /// Changes the attention of every layer, of whose numbers the first is.
    pub(super) fn each_attention(&mut self, mut change: impl FnMut(usize, &mut Attention)) {
        for (l, layer) in self.layers.iter_mut().enumerate() {
            if let Some(attention) = layer.mixer.attention_mut() {
                change(l, attention);
            }
        }
    }

    /// Whether what a mixer or channel adds to the residual stream is not what it gives: a norm or a scale stands between.
    pub fn changes_what_is_added(&self) -> bool {
        self.placement.after() || self.residual_scale.is_some() || matches!(self.stream, Stream::Read { .. })
    }

    /// Whether the residual stream is the sum of what all parts add to it, as attribution and edges take it.
    ///
    /// # Errors
    /// A sentence that says what it is instead.
    pub fn adds_up(&self) -> Result<(), String> {
        let why = match self.stream {
            Stream::Sum => return Ok(()),
            Stream::Normed => "is normed itself in every layer",
            Stream::Several(_) => "is one of several, of which every layer makes each anew from all",
            Stream::Read { .. } => "goes on from what each part reads, after its norm, in every layer",
        };
        Err(format!("the residual stream of this model is no sum of what its parts add: it {why}"))
    }

    /// Whether the final norm reads the residual stream itself after the last layer, as a logit lens takes it.
    ///
    /// # Errors
    /// A sentence that says what it reads instead.
    pub fn read_at_end(&self) -> Result<(), String> {
        self.altup().map_or(Ok(()), |of| {
            let n = of.streams;
            Err(format!(
                "the final norm of this model reads the mean of {n} residual streams, of which sites show the first"
            ))
        })
    }

    /// What a layer's mixer, or its channel, reads and gives is multiplied by, where that is added to what it reads.
    pub(super) fn factors(&self, layer: usize, channel: bool) -> Option<Factors> {
        let Stream::Read { attention, recurrent, channel: of_channel } = self.stream else { return None };
        Some(match self.layers.get(layer).map(|layer| layer.mixer) {
            _ if channel => of_channel,
            Some(Mixer::Recurrent(_)) => recurrent,
            _ => attention,
        })
    }

    /// What a layer's mixer, or its channel, gives is multiplied by before it is added.
    pub fn added_times(&self, layer: usize, channel: bool) -> Option<f64> {
        self.factors(layer, channel).map(|factors| factors.added).or(self.residual_scale)
    }

    /// What becomes of several streams, where there are such.
    pub fn altup(&self) -> Option<AltUp> {
        if let Stream::Several(of) = self.stream { Some(of) } else { None }
    }

    /// Numbers of a row in the residual stream, or in all of several.
    pub fn stream_width(&self) -> usize {
        self.d_model + self.altup().map_or(0, |of| of.others(self.d_model))
    }

    /// Whether a norm stands before the unembedding.
    pub(super) fn norms_at_end(&self) -> bool {
        self.stream != Stream::Normed
    }

    /// Whether norms stand before mixers and channels.
    pub(super) fn norms_before(&self) -> bool {
        self.placement.before() && self.stream != Stream::Normed
    }

    /// Whether each head has one pattern and reads values of its own by it.
    ///
    /// # Errors
    /// A sentence that names the first layer where it is not so.
    pub fn one_pattern_a_head(&self) -> Result<(), String> {
        let pairs =
            |layer: &Layer| matches!(layer.mixer, Mixer::Attention(attention) if attention.difference.is_some());
        let why = "read by two patterns each: what one pattern moves is not told apart";
        self.layers.iter().position(pairs).map_or(Ok(()), |l| Err(format!("the heads of layer {l} {why}")))
    }

    /// The layer whose keys and values a layer's attention reads: mostly its own.
    pub fn keys_of(&self, layer: usize) -> usize {
        let attention = |layer: &Layer| if let Mixer::Attention(of) = layer.mixer { of.shares } else { None };
        self.layers.get(layer).and_then(attention).unwrap_or(layer)
    }

    /// Whether other layers read a layer's keys and values too.
    pub fn is_shared(&self, layer: usize) -> bool {
        (layer + 1..self.layers.len()).any(|later| self.keys_of(later) == layer)
    }

    /// Numbers of a row that outlive their layer: the residual stream, and what else later layers read.
    pub fn kept_width(&self) -> usize {
        let shared = (0..self.layers.len()).filter(|l| self.is_shared(*l)).filter_map(|l| self.layers[l].mixer.heads());
        let shared: usize = shared.map(|heads| heads.widths()[1] + heads.widths()[2]).sum();
        shared + self.stream_width() + if self.lends_embedding() { self.d_model } else { 0 }
    }

    /// Whether later layers read what enters layer 0 beside the residual stream.
    pub(crate) fn lends_embedding(&self) -> bool {
        self.per_layer.is_some() || self.layers.iter().any(Layer::reads_embedding)
    }

    /// Weights of a layer that a row is multiplied with, in numbers.
    pub fn active_params(&self, layer: usize) -> u64 {
        let per_layer = self.per_layer.map_or(0, |per_layer| per_layer.params(self.d_model));
        let altup = self.altup().map_or(0, |of| of.params(layer, self.n_layers, self.d_model));
        self.layers.get(layer).map_or(0, |layer| layer.active_params(self.d_model)) + per_layer + altup
    }

    /// Weights of one layer that a row is multiplied with, in numbers: the mean over the layers.
    pub fn layer_params(&self) -> u64 {
        let n = self.layers.len();
        (0..n).map(|layer| self.active_params(layer)).sum::<u64>() / n.max(1) as u64
    }

    /// The same with keys and values for every query head.
    #[must_use]
    pub fn by_query_head(&self) -> Arch {
        let layer = |layer: &Layer| Layer { mixer: layer.mixer.by_query_head(), ..*layer };
        Arch { n_kv_heads: self.n_heads, layers: self.layers.iter().map(layer).collect(), ..self.clone() }
    }

    /// Checks what the decoder relies on.
    ///
    /// # Errors
    /// A sentence that names the number that no model has, or the two that do not fit.
    pub fn check(&self) -> Result<(), String> {
        let positive =
            [("d_model", self.d_model), ("layers", self.n_layers), ("vocabulary", self.vocab), ("context", self.n_ctx)];
        let positive = positive.into_iter().chain(self.d_embed.map(|n| ("the width of embeddings", n)));
        for (name, n) in positive {
            if n == 0 || n > 1 << 26 {
                return Err(format!("{name} is {n}, which no model has"));
            }
        }
        for layer in &self.layers {
            let sizes = layer.mixer.heads().map(|h| [h.n_heads, h.n_kv_heads, h.d_head, h.d_value()]);
            let sizes = sizes.into_iter().flatten().zip(["heads", "KV heads", "head size", "value size"]);
            let width = (layer.channel != Channel::None).then_some((layer.channel.width(), "MLP size"));
            if let Some((n, name)) = sizes.chain(width).find(|(n, _)| *n == 0 || *n > 1 << 26) {
                return Err(format!("{name} is {n}, which no model has"));
            }
        }
        // Lists of heads and their rows are made before any tensor is seen.
        if self.n_heads.saturating_mul(self.d_head) > 1 << 22 || self.n_layers > 10_000 {
            return Err(format!("{} heads of {} in {} layers are no model", self.n_heads, self.d_head, self.n_layers));
        }
        let numbers = [
            ("the norms' epsilon", Some(self.norm.eps)),
            ("the scale of logits", Some(self.logit_scale)),
            ("the scale of what is added to the residual stream", self.residual_scale),
            ("the soft-cap of logits", self.logit_softcap),
            ("the scale of embeddings", self.embed_scale),
        ];
        numbers.into_iter().try_for_each(|(name, n)| positive_if_any(name, n))?;
        if let Stream::Read { attention, recurrent, channel } = self.stream {
            for Factors { kept, added } in [attention, recurrent, channel] {
                positive_if_any("the share of what a part reads", Some(kept))?;
                positive_if_any("the share of what a part gives", Some(added))?;
            }
        }
        if !self.norms_at_end() && self.logit_scale != 1.0 {
            return Err("logits are multiplied by the final norm, and there is none".to_string());
        }
        self.altup().map_or(Ok(()), |of| of.check())?;
        let others = self.altup().is_none() && self.placement != NormPlacement::Before;
        if self.stream != Stream::Sum && (self.parallel || others) {
            return Err("a residual stream that is no sum has one part after another, with a norm for each".to_string());
        }
        self.ropes.iter().try_for_each(Rope::check)?;
        self.per_layer.iter().try_for_each(|per_layer| per_layer.check())?;
        (0..self.layers.len()).try_for_each(|l| self.check_shared(l).and_then(|()| self.check_fed(l)))?;
        self.layers.iter().try_for_each(|layer| layer.mixer.check(&self.ropes).and_then(|()| layer.channel.check()))
    }
}

impl Arch {
    /// Checks that a layer whose attention and channel feed its recurrent mixer has both, and that no other reads the embedding.
    fn check_fed(&self, l: usize) -> Result<(), String> {
        let layer = &self.layers[l];
        let Mixer::Both(Both { fed: Some(fed), scales, recurrent, .. }) = layer.mixer else {
            let lone = layer.reads_embedding();
            return if lone { Err(format!("layer {l} reads the embedding, and feeds nothing")) } else { Ok(()) };
        };
        let plain = self.stream == Stream::Sum && !self.parallel && self.placement == NormPlacement::Before;
        let whole = matches!(layer.channel, Channel::Mlp(_)) && scales[0] == 0.0 && recurrent.conv.is_some();
        match plain && whole && fed.blocks > 0 && fed.rank > 0 && fed.rank <= 1 << 22 {
            true => Ok(()),
            false => Err(format!("layer {l} cannot feed its recurrent mixer by {fed:?}")),
        }
    }

    /// Checks that keys and values of another layer fit a layer.
    fn check_shared(&self, layer: usize) -> Result<(), String> {
        let lender = self.keys_of(layer);
        if lender == layer {
            return Ok(());
        }
        let shape = |l: usize| match self.layers.get(l).filter(|_| l <= layer).map(|layer| layer.mixer) {
            Some(Mixer::Attention(of)) => Some((of.heads.n_kv_heads, of.heads.d_head, of.heads.d_value(), of.rope)),
            _ => None,
        };
        match shape(lender) == shape(layer) && self.keys_of(lender) == lender {
            true => Ok(()),
            false => Err(format!("layer {layer} cannot read the keys and values of layer {lender}: they do not fit")),
        }
    }
}

/// Checks a number that need not be there.
///
/// # Errors
/// If it is not a positive number.
pub(super) fn positive_if_any(name: &str, n: Option<f64>) -> Result<(), String> {
    match n.filter(|n| !(*n > 0.0 && n.is_finite())) {
        Some(n) => Err(format!("{name} is {n}; it is a positive number")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_norm_divides_by_the_deviation_and_an_rms_norm_by_the_root_mean_square() {
        assert!((Norm::layer(0.0).divisor(&[1.0, 3.0]) - 1.0).abs() < 1e-12);
        assert!((Norm::rms(0.0).divisor(&[1.0, 3.0]) - 5f64.sqrt()).abs() < 1e-12);
    }
}
