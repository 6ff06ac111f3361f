//! Where each part of a decoder is stored in a checkpoint, by the names on its family's page: which tensor, in which shape,
//! and which of its rows. Reading them is left to [`super`].

use super::form::{Located, There, Translate};
use super::multipliers::Scales;
use super::{LayerWeights, WeightsError};
use crate::model::arch::{Arch, Both, Channel, Gain, Mixer, Norm, Positions, Stream};
use crate::model::channel::{MlpWeights, Part};
use crate::model::checkpoint::{Checkpoint, Pick, Stored};
use crate::model::families::Tensors;
use crate::model::per_layer::{CONTEXT_NORM, SCALAR, TABLE};
use crate::model::places::Weight;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

/// Where a matrix and its bias are stored.
pub(in crate::model) struct LinearSpec {
    pub weight: Stored,
    pub bias: Option<Stored>,
    /// What it is multiplied by as it is read.
    pub scales: Scales,
    /// What is added to the matrix as it is read: the product of two narrow ones, of which the one that reads comes first.
    pub more: Option<[Stored; 2]>,
}

impl LinearSpec {
    fn stored(&self) -> impl Iterator<Item = &Stored> {
        std::iter::once(&self.weight).chain(&self.bias).chain(self.more.iter().flatten())
    }
}

/// What a norm is, and where it is stored.
pub(in crate::model) struct NormSpec {
    pub of: Norm,
    pub width: usize,
    /// How many numbers are scaled together.
    pub group: usize,
    pub weight: Option<Stored>,
    pub bias: Option<Stored>,
    /// Which of the stored numbers is each.
    pub order: Option<Vec<usize>>,
    /// What weight and bias are multiplied by.
    pub scale: f64,
}

impl NormSpec {
    fn stored(&self) -> impl Iterator<Item = &Stored> {
        self.weight.iter().chain(&self.bias)
    }
}

/// Where the parts of a layer are stored.
pub(super) type LayerSpec = LayerWeights<Located>;

/// Where the ends of the model are stored.
pub(super) struct EndSpec {
    pub embed: Stored,
    /// What leads from the tables' width to the model's, `[d_model, d_embed]`: for the embedding and for the unembedding.
    pub led: Option<[Stored; 2]>,
    pub embed_norm: Option<NormSpec>,
    pub positions: Option<Stored>,
    pub final_norm: Option<NormSpec>,
    pub unembed: Option<Stored>,
    /// The bias of logits.
    pub unembed_bias: Option<Stored>,
    /// The table of per-layer embeddings, and the norm of what is projected of the embedding.
    pub per_layer: Option<(Stored, NormSpec)>,
    /// What each layer multiplies the residual stream by, where it does.
    pub scalars: Vec<Stored>,
}

/// What stands before every name, found by the first layer's tensors: checkpoints of a bare decoder leave the model's own name
/// away, and those of a model with other parts, such as one that reads images, put more before it.
fn prefix(tensors: &Tensors, checkpoint: &Checkpoint) -> String {
    let layer = format!("{}0.", tensors.layers);
    let at = |prefix: &str| checkpoint.contains(&format!("{prefix}{}.weight", tensors.embed));
    let names = checkpoint.names();
    let before = |name: &String| name.find(&layer).map(|at| name[..at].to_string());
    let found: BTreeSet<String> =
        names.iter().filter_map(before).filter(|p| p.is_empty() || p.ends_with('.')).collect();
    // Another part may have layers of the same names; the decoder has its embedding beside them.
    let found = found.into_iter().min_by_key(|p| (!at(p), *p != tensors.prefix, p.len()));
    let bare = if at("") { "" } else { tensors.prefix };
    found.unwrap_or_else(|| bare.to_string())
}

/// How a model's tensors are named and laid out in a checkpoint.
pub(super) fn tensors_of(arch: &Arch, checkpoint: &Checkpoint) -> &'static Tensors {
    match (checkpoint, &arch.family.gguf) {
        (Checkpoint::Gguf(_), Some(gguf)) => arch.stored.unwrap_or(&gguf.tensors),
        _ => arch.stored.unwrap_or(&arch.family.tensors),
    }
}

/// A checkpoint, read as a description says.
pub(super) struct Layout<'a> {
    arch: &'a Arch,
    checkpoint: &'a Checkpoint,
    tensors: &'static Tensors,
    prefix: String,
}

/// Names that may stand there without being weights: masks and frequencies, some of which older versions saved.
pub(in crate::model) const BUFFERS: &[&str] = &[
    "attn.bias",
    "attn.masked_bias",
    "attention.bias",
    "attention.masked_bias",
    "rotary_emb.inv_freq",
    "self_attn.slope_rate",
    "self_attn.query_decay",
    "self_attn.key_decay",
    "self_attn.diagonal_decay",
    // Of GGUF files; [`super::gguf_config`] reads them.
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
    // Of GGUF files of RWKV-7, where layer 0 has copies of others that nothing reads.
    "blk.0.time_mix_v0.weight",
    "blk.0.time_mix_v1.weight",
    "blk.0.time_mix_v2.weight",
];

impl<'a> Layout<'a> {
    pub fn new(arch: &'a Arch, checkpoint: &'a Checkpoint) -> Self {
        let tensors = tensors_of(arch, checkpoint);
        Layout { arch, checkpoint, tensors, prefix: prefix(tensors, checkpoint) }
    }

    /// What stands before the names of all layers' tensors.
    pub(super) fn layers_prefix(&self) -> String {
        self.at(self.tensors.layers)
    }

    /// The name of the matrix that leads into the MLP of layer 0.
    pub(super) fn first_up(&self) -> String {
        format!("{}0.{}.weight", self.layers_prefix(), self.tensors.layer.mlp.up)
    }

    /// The whole of a name.
    pub(super) fn at(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The unembedding's name: the one of the family's that is there, beside the decoder or beside one of those that it is in.
    fn unembed(&self) -> String {
        let mut outer: Vec<&str> = self.prefix.match_indices('.').map(|(i, _)| &self.prefix[..=i]).collect();
        outer.insert(0, "");
        let names = self.tensors.unembed;
        let mut all = names.iter().flat_map(|name| outer.iter().rev().map(move |outer| format!("{outer}{name}")));
        let found = all.find(|name| self.checkpoint.contains(&format!("{name}.weight")));
        found.unwrap_or_else(|| names.last().copied().unwrap_or_default().to_string())
    }

    /// Where the embedding is stored: a tied one may be there under the unembedding's name alone.
    fn embed(&self) -> Stored {
        let [embed, head] = [self.at(self.tensors.embed), self.unembed()].map(|name| self.table(&name));
        let elsewhere =
            self.arch.tied && !self.checkpoint.contains(&embed.name) && self.checkpoint.contains(&head.name);
        if elsewhere { head } else { embed }
    }

    /// A table with a row for every token.
    fn table(&self, name: &str) -> Stored {
        stored(
            format!("{name}.weight"),
            vec![self.arch.vocab, self.arch.d_embed.unwrap_or(self.arch.d_model)],
            Pick::All,
        )
    }

    /// Where an unembedding of its own is stored, if there is one.
    pub fn own_unembed(&self) -> Stored {
        self.table(&self.unembed())
    }

    pub fn ends(&self) -> EndSpec {
        let a = self.arch;
        let positions = format!("{}.weight", self.at(self.tensors.positions));
        let positions = match a.positions {
            Positions::Learned { skipped } => Some(stored(positions, vec![skipped + a.n_ctx, a.d_model], Pick::All)),
            _ => None,
        };
        let norm = |of: Norm, name: &str| norm(of, &self.at(name), a.d_model);
        let final_norm = norm(a.final_norm.unwrap_or(a.norm), self.tensors.final_norm);
        let bias = || stored(format!("{}.bias", self.unembed()), vec![a.vocab], Pick::All);
        EndSpec {
            embed: self.embed(),
            embed_norm: a.embed_norm.map(|of| norm(of, self.tensors.embed_norm)),
            positions,
            final_norm: a.norms_at_end().then_some(NormSpec { scale: a.logit_scale, ..final_norm }),
            led: a.d_embed.map(|n| {
                let [into, out] = self.tensors.led.map(|name| format!("{}.weight", self.at(name)));
                let turned = Pick::Turned { rows: 0..n, columns: std::iter::once(0..a.d_model).collect() };
                [stored(into, vec![a.d_model, n], Pick::All), stored(out, vec![n, a.d_model], turned)]
            }),
            unembed: (!a.tied).then(|| self.own_unembed()),
            unembed_bias: a.unembed_bias.then(bias),
            per_layer: a.per_layer.map(|of| {
                let table =
                    stored(format!("{}.weight", self.at(TABLE)), vec![of.vocab, a.n_layers * of.width], Pick::All);
                (table, self::norm(a.norm, &self.at(CONTEXT_NORM), of.width))
            }),
            scalars: (0..a.n_layers).filter(|_| a.layer_scalars).map(|l| self.scalar(l)).collect(),
        }
    }

    /// What a layer multiplies the residual stream by at its end.
    fn scalar(&self, l: usize) -> Stored {
        stored(format!("{}{l}.{SCALAR}", self.layers_prefix()), vec![1], Pick::All)
    }

    /// What may stand in layers that read another's keys and values, though nothing reads it: released checkpoints keep it.
    fn of_shared_layers(&self) -> impl Iterator<Item = String> {
        let (layers, names) = (self.layers_prefix(), &self.tensors.layer.attention);
        let there = (0..self.arch.n_layers).filter(|l| self.arch.keys_of(*l) != *l);
        let names = [names.k, names.v, names.k_norm].into_iter().flatten().collect::<Vec<_>>();
        there.flat_map(move |l| names.iter().map(|name| format!("{layers}{l}.{name}.weight")).collect::<Vec<_>>())
    }

    pub fn layer(&self, l: usize) -> LayerSpec {
        let (a, layer, names) = (self.arch, &self.arch.layers[l], &self.tensors.layer);
        let (prefix, block) = (self.prefix.clone(), String::new());
        let whole = LayerLayout { arch: a, d_model: a.d_model, tensors: self.tensors, prefix, block };
        let (own, places) = (format!("{}{l}.", self.layers_prefix()), self.places_of_block(l));
        let block = places.first().unwrap_or(&own).clone();
        let at = LayerLayout { prefix: own, block, ..whole };
        let block = at.of_block();
        let norm = |name: &str, there: bool| there.then(|| block.norm(name, a.norm, a.d_model));
        let bare = |mut spec: NormSpec| {
            let bare = spec.weight.as_mut().filter(|_| self.tensors.bare_mlp_norm);
            bare.into_iter().for_each(|weight| weight.name = weight.name.replace(".weight", ""));
            spec
        };
        let (before, after) = (a.norms_before(), a.placement.after());
        let sum = a.stream == Stream::Normed;
        let (mixes, works) = (layer.mixer != Mixer::None, layer.channel != Channel::None);
        let inputs = layer.mixer.attention().map_or(a.d_model, |attention| attention.inputs(a.d_model));
        let mut spec = LayerWeights {
            attn_norm: (before && mixes).then(|| block.norm(names.attn_norm, a.norm, inputs)),
            mixer: layer.mixer.stored(&at),
            attn_post_norm: norm(names.attn_post_norm, after && mixes),
            attn_sum_norm: norm(names.attn_norm, sum && mixes),
            mlp_norm: norm(names.mlp_norm, before && works).map(bare),
            channel: layer.channel.stored(&block),
            mlp_post_norm: norm(names.mlp_post_norm, after && works),
            mlp_sum_norm: norm(names.mlp_norm, sum && works),
            per_layer: a.per_layer.map(|of| of.stored(l, &at, &whole)),
            altup: a.altup().map(|of| of.stored(l, &at, &whole)),
        };
        if let Mixer::Both(Both { fed: Some(fed), .. }) = layer.mixer {
            fed.adapt(&mut spec.channel, &block);
        }
        a.multipliers.iter().for_each(|by| by.scale(&mut spec));
        if places.len() < 2 {
            return spec;
        }
        // It never fails.
        spec.translate(&InPlaceOf { checkpoint: self.checkpoint, places }).unwrap_or_else(|never| match never {})
    }

    /// What may stand before the names of a layer's attention and channel, where layers share these in turn: they are stored in the place
    /// of one of those that do, mostly the first. Empty where a layer has its own.
    fn places_of_block(&self, l: usize) -> Vec<String> {
        let turn = |l: usize| match self.arch.layers[l].mixer {
            Mixer::Both(Both { fed: Some(fed), .. }) => Some(fed.turn % fed.blocks.max(1)),
            _ => None,
        };
        let (Some(own), Some(names)) = (turn(l), &self.tensors.layer.fed) else { return Vec::new() };
        let alike = (0..self.arch.n_layers).filter(|l| turn(*l) == Some(own));
        alike.map(|l| format!("{}{l}.{}", self.layers_prefix(), names.block)).collect()
    }

    /// What may stand in layers whose attention and channel are read in another's place: some checkpoints hold it more than once.
    fn of_shared_blocks(&self) -> Vec<String> {
        let mut found = Vec::new();
        for l in (0..self.arch.n_layers).filter(|l| self.arch.layers[*l].feeds()) {
            let places = self.places_of_block(l);
            for stored in self.layer(l).stored() {
                let within = places.iter().find_map(|place| stored.name.strip_prefix(place));
                found.extend(
                    within.into_iter().flat_map(|rest| places.iter().map(move |place| format!("{place}{rest}"))),
                );
            }
        }
        found
    }

    fn layers(&self) -> impl Iterator<Item = LayerSpec> {
        (0..self.arch.n_layers).map(|l| self.layer(l))
    }

    /// The names of matrices that are stored as `[in, out]`.
    pub fn turned(&self) -> BTreeSet<String> {
        let stored = self.layers().flat_map(|layer| layer.stored());
        stored.filter(|stored| matches!(stored.pick, Pick::Turned { .. })).map(|stored| stored.name).collect()
    }

    /// How many parameters the model has; a tied unembedding counts once.
    pub fn parameters(&self) -> u64 {
        let mut seen = BTreeSet::new();
        self.layers().fold(size(self.ends().stored()), |sum, layer| {
            let stored = layer.stored();
            // What layers share counts once too; of one tensor they may have different parts.
            let part = |stored: &Stored| (stored.name.clone(), format!("{:?}", stored.pick));
            let own = size(stored.iter().filter(|stored| !seen.contains(&part(stored))));
            seen.extend(stored.iter().map(part));
            sum.saturating_add(own)
        })
    }

    /// How many numbers are held where all weights stay in memory: layers that share some hold them each.
    pub fn held(&self) -> u64 {
        self.layers().fold(size(self.ends().stored()), |sum, layer| sum.saturating_add(size(&layer.stored())))
    }

    /// What the parts of the model take that devices share among them, in parameters.
    pub fn weight(&self, ends: &EndSpec) -> Weight {
        let layers = self.layers().map(|layer| size(&layer.stored())).fold(0, u64::saturating_add);
        Weight {
            first: size([&ends.embed].into_iter().chain(&ends.positions)),
            layer: layers / self.arch.n_layers.max(1) as u64,
            last: size([ends.unembed.as_ref().unwrap_or(&ends.embed)]),
        }
    }

    /// Holds every tensor that the model is of to what it must be, as far as can be told without its numbers.
    ///
    /// # Errors
    /// If one is missing, or has the wrong shape or dtype.
    pub fn check(&self) -> Result<(), WeightsError> {
        self.ends().stored().try_for_each(|stored| self.checkpoint.check(stored))?;
        for layer in self.layers() {
            layer.stored().iter().try_for_each(|stored| self.checkpoint.check(stored))?;
        }
        Ok(())
    }

    /// Every tensor must have its use. One of a layer without means that the description and the weights do not fit; those
    /// outside the layers are returned, as a warning.
    pub fn account_for_every_tensor(&self) -> Result<Option<String>, WeightsError> {
        let mut known = BTreeSet::from([self.own_unembed().name]);
        known.extend(self.ends().stored().map(|s| s.name.clone()));
        known.extend(self.of_shared_layers());
        known.extend(self.of_shared_blocks());
        for layer in self.layers() {
            known.extend(layer.stored().into_iter().map(|s| s.name));
        }
        let names = self.checkpoint.names().into_iter();
        let unused = names.filter(|name| !known.contains(name) && !BUFFERS.iter().any(|b| name.ends_with(b)));
        let unused = unused.filter(|name| !self.checkpoint.is_scale(name));
        let layers = self.layers_prefix();
        let all = self.arch.n_layers..self.arch.n_layers.saturating_add(self.arch.further);
        let further =
            |rest: &str| rest.split_once('.').and_then(|(l, _)| l.parse().ok()).is_some_and(|l| all.contains(&l));
        let inside = |name: &String| name.strip_prefix(&layers).is_some_and(|rest| !further(rest));
        let (inside, outside): (Vec<String>, Vec<String>) = unused.partition(inside);
        if let Some(tensor) = inside.into_iter().next() {
            let why = match self.checkpoint {
                Checkpoint::Safetensors(_) => {
                    "the weights are not those that config.json describes; take both from one checkpoint"
                }
                Checkpoint::Gguf(_) => "the file is of a variant of the architecture that gatelens does not run",
            };
            let (family, layers) = (self.arch.family.name, self.arch.n_layers);
            return Err(WeightsError::Unused { path: self.checkpoint.path_of(&tensor), tensor, family, layers, why });
        }
        Ok(outside.split_first().map(|(first, rest)| {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            format!("tensor `{first}`{more}: a {} decoder has no use for it; it is not read", self.arch.family.name)
        }))
    }
}

/// The numbers of all these.
fn size<'a>(stored: impl IntoIterator<Item = &'a Stored>) -> u64 {
    let one = |s: &Stored| s.picked_shape().iter().fold(1u64, |all, n| all.saturating_mul(*n as u64));
    stored.into_iter().map(one).fold(0, u64::saturating_add)
}

impl EndSpec {
    /// The same of a model without weights: norms multiply by their scale alone, and logits have no bias.
    pub(super) fn without_numbers(self) -> Self {
        let plain = |norm: NormSpec| NormSpec { weight: None, bias: None, ..norm };
        let (embed_norm, final_norm) = (self.embed_norm.map(plain), self.final_norm.map(plain));
        let per_layer = self.per_layer.map(|(table, norm)| (table, plain(norm)));
        EndSpec { embed_norm, final_norm, led: None, unembed_bias: None, per_layer, scalars: Vec::new(), ..self }
    }

    /// Everything that the ends read.
    fn stored(&self) -> impl Iterator<Item = &Stored> {
        let norms = self.final_norm.iter().chain(&self.embed_norm).flat_map(NormSpec::stored);
        let per_layer = self.per_layer.iter().flat_map(|(table, norm)| std::iter::once(table).chain(norm.stored()));
        let tables = std::iter::once(&self.embed).chain(self.led.iter().flatten());
        let tables = tables.chain(&self.positions).chain(&self.unembed);
        tables.chain(&self.unembed_bias).chain(norms).chain(per_layer).chain(&self.scalars)
    }
}

impl LayerSpec {
    /// Everything that the layer reads. Parts of one tensor are several; a norm that two read is one.
    fn stored(&self) -> Vec<Stored> {
        let found = Found(RefCell::new(Vec::new()));
        // It never fails.
        let _ = self.translate(&found);
        let mut found = found.0.into_inner();
        let mut seen = BTreeSet::new();
        found.retain(|s| s.pick != Pick::All || seen.insert(s.name.clone()));
        found
    }
}

/// Lists the tensors that parts are stored in.
struct Found(RefCell<Vec<Stored>>);

impl Translate<Located, There> for Found {
    type Error = Infallible;

    fn matrix(&self, part: &LinearSpec) -> Result<(), Infallible> {
        self.0.borrow_mut().extend(part.stored().cloned());
        Ok(())
    }

    fn norm(&self, part: &NormSpec) -> Result<(), Infallible> {
        self.0.borrow_mut().extend(part.stored().cloned());
        Ok(())
    }

    fn numbers(&self, part: &Stored) -> Result<(), Infallible> {
        self.0.borrow_mut().push(part.clone());
        Ok(())
    }

    fn experts(&self, part: &Arc<Vec<MlpWeights<Located>>>) -> Result<(), Infallible> {
        part.iter().try_for_each(|expert| expert.translate(self).map(drop))
    }
}

/// Finds what several layers share where it is stored: in the place of one of them, which need not be the first.
struct InPlaceOf<'a> {
    checkpoint: &'a Checkpoint,
    places: Vec<String>,
}

impl InPlaceOf<'_> {
    fn stored(&self, part: &Stored) -> Stored {
        let within = self.places.first().and_then(|first| part.name.strip_prefix(first));
        let mut all = within.into_iter().flat_map(|rest| self.places.iter().map(move |place| format!("{place}{rest}")));
        let found = all.find(|name| self.checkpoint.contains(name));
        Stored { name: found.unwrap_or_else(|| part.name.clone()), ..part.clone() }
    }
}

impl Translate<Located, Located> for InPlaceOf<'_> {
    type Error = Infallible;

    fn matrix(&self, part: &LinearSpec) -> Result<LinearSpec, Infallible> {
        Ok(LinearSpec {
            weight: self.stored(&part.weight),
            bias: part.bias.as_ref().map(|bias| self.stored(bias)),
            scales: part.scales.clone(),
            more: part.more.as_ref().map(|[reads, gives]| [self.stored(reads), self.stored(gives)]),
        })
    }

    fn norm(&self, part: &NormSpec) -> Result<NormSpec, Infallible> {
        let (weight, bias) = (part.weight.as_ref(), part.bias.as_ref());
        Ok(NormSpec {
            weight: weight.map(|weight| self.stored(weight)),
            bias: bias.map(|bias| self.stored(bias)),
            order: part.order.clone(),
            ..*part
        })
    }

    fn numbers(&self, part: &Stored) -> Result<Stored, Infallible> {
        Ok(self.stored(part))
    }

    fn experts(&self, part: &Arc<Vec<MlpWeights<Located>>>) -> Result<Arc<Vec<MlpWeights<Located>>>, Infallible> {
        Ok(Arc::new(part.iter().map(|expert| expert.translate(self)).collect::<Result<_, _>>()?))
    }
}

/// Where the parts of one layer are to be looked for.
pub(in crate::model) struct LayerLayout<'a> {
    pub arch: &'a Arch,
    pub d_model: usize,
    pub tensors: &'static Tensors,
    /// What stands before all of the layer's names.
    prefix: String,
    /// What stands before those of attention and channel.
    block: String,
}

impl LayerLayout<'_> {
    /// Where attention and channel are to be looked for.
    pub fn of_block(&self) -> Self {
        LayerLayout { prefix: self.block.clone(), block: self.block.clone(), ..*self }
    }

    /// Where the parts are to be looked for before whose names this stands too.
    pub fn within(&self, part: &str) -> Self {
        LayerLayout { prefix: format!("{}{part}", self.prefix), block: self.block.clone(), ..*self }
    }

    /// A matrix of the layer: some outputs of what is stored under this name.
    pub fn linear(&self, name: &str, inputs: usize, out: Outputs, bias: bool) -> LinearSpec {
        let name = format!("{}{name}", self.prefix);
        let all = std::iter::once(0..out.stored).eq(out.rows.iter().cloned());
        let rows = |rows: Vec<Range<usize>>| if all { Pick::All } else { Pick::Rows(rows) };
        let weight = if self.tensors.transposed {
            stored(
                format!("{name}.weight"),
                vec![inputs, out.stored],
                Pick::Turned { rows: 0..inputs, columns: out.rows.clone() },
            )
        } else {
            stored(format!("{name}.weight"), vec![out.stored, inputs], rows(out.rows.clone()))
        };
        let bias = bias.then(|| stored(format!("{name}.bias"), vec![out.stored], rows(out.rows)));
        LinearSpec { weight, bias, scales: Scales::default(), more: None }
    }

    /// A matrix of the layer that is stored under this name as it is, without bias.
    pub fn plain(&self, name: &str, inputs: usize, out: Outputs) -> LinearSpec {
        let weight = stored(format!("{}{name}", self.prefix), vec![out.stored, inputs], Pick::Rows(out.rows));
        LinearSpec { weight, bias: None, scales: Scales::default(), more: None }
    }

    /// Rows of a matrix that is stored under this name as it is, turned.
    pub fn turned(&self, name: &str, shape: [usize; 2], rows: Range<usize>) -> Stored {
        let columns = std::iter::once(0..shape[1]).collect();
        stored(format!("{}{name}", self.prefix), shape.to_vec(), Pick::Turned { rows, columns })
    }

    /// Each matrix of a stack `[n, inputs, outputs]` that is stored under this name as it is, turned, without bias.
    pub fn turned_each(&self, name: &str, shape: [usize; 3]) -> LinearSpec {
        let weight = stored(format!("{}{name}", self.prefix), shape.to_vec(), Pick::TurnedEach);
        LinearSpec { weight, bias: None, scales: Scales::default(), more: None }
    }

    /// All matrices of a stack `[n, outputs, inputs]` that is stored under this name as it is, without bias.
    pub fn each(&self, name: &str, shape: [usize; 3]) -> LinearSpec {
        let rows = std::iter::once(0..shape[0] * shape[1]).collect();
        LinearSpec {
            weight: stored(format!("{}{name}", self.prefix), shape.to_vec(), Pick::Rows(rows)),
            bias: None,
            scales: Scales::default(),
            more: None,
        }
    }

    /// A part of one matrix of a stack `[n, rows, columns]`, and of its bias `[n, outputs]`, which is called as the stack is.
    pub fn in_stack(
        &self,
        name: &str,
        [n, rows, columns]: [usize; 3],
        one: usize,
        part: Part,
        bias: bool,
    ) -> LinearSpec {
        let (name, first) = (format!("{}{name}", self.prefix), one * rows);
        let (outputs, pick) = match &part {
            Part::Rows(range) => (rows, Pick::Rows(vec![first + range.start..first + range.end])),
            Part::Columns(columns_of) => {
                (columns, Pick::Turned { rows: first..first + rows, columns: columns_of.clone() })
            }
        };
        let ranges = match part {
            Part::Rows(range) => vec![range],
            Part::Columns(ranges) => ranges,
        };
        let of_bias = || Pick::Flat(ranges.iter().map(|r| one * outputs + r.start..one * outputs + r.end).collect());
        let bias_name = name.strip_suffix(".weight").map_or(format!("{name}_bias"), |stem| format!("{stem}.bias"));
        let bias = bias.then(|| stored(bias_name, vec![n, outputs], of_bias()));
        LinearSpec { weight: stored(name, vec![n, rows, columns], pick), bias, scales: Scales::default(), more: None }
    }

    /// A norm of the layer.
    pub fn norm(&self, name: &str, of: Norm, width: usize) -> NormSpec {
        norm(of, &format!("{}{name}", self.prefix), width)
    }

    /// Numbers of the layer, stored under this name as it is.
    pub fn numbers(&self, name: &str, shape: Vec<usize>) -> Stored {
        stored(format!("{}{name}", self.prefix), shape, Pick::All)
    }
}

fn norm(of: Norm, name: &str, width: usize) -> NormSpec {
    let part = |what: &str| stored(format!("{name}.{what}"), vec![width], Pick::All);
    let weight = (of.gain != Gain::One).then(|| part("weight"));
    NormSpec { of, width, group: width, weight, bias: of.bias.then(|| part("bias")), order: None, scale: 1.0 }
}

/// Which of a stored projection's outputs are wanted, in their order.
pub(in crate::model) struct Outputs {
    pub stored: usize,
    pub rows: Vec<Range<usize>>,
}

impl Outputs {
    /// All `n`.
    pub fn whole(n: usize) -> Self {
        Outputs::of(n, 0..n)
    }

    /// Consecutive ones of `stored`.
    pub fn of(stored: usize, rows: Range<usize>) -> Self {
        Outputs { stored, rows: vec![rows] }
    }

    /// The same, each head's numbers in this order.
    pub fn reordered(self, order: &[usize]) -> Self {
        let rows: Vec<usize> = self.rows.into_iter().flatten().collect();
        let row = |head: &[usize]| order.iter().map(|i| head[*i]..head[*i] + 1).collect::<Vec<_>>();
        Outputs { stored: self.stored, rows: rows.chunks_exact(order.len()).flat_map(row).collect() }
    }
}

/// Where the numbers of a head are stored whose first `rotary` have the halves that turn against each other interleaved.
pub(in crate::model) fn interleaved(d_head: usize, rotary: usize) -> Vec<usize> {
    let halves = (0..2).flat_map(|half| (0..rotary / 2).map(move |i| 2 * i + half));
    halves.chain(rotary / 2 * 2..d_head).collect()
}

fn stored(name: String, shape: Vec<usize>, pick: Pick) -> Stored {
    Stored { name, shape, pick }
}
