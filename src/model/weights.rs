//! Which tensors of a checkpoint make up a decoder, and their conversion into it.
//!
//! Each family names its tensors in its own way ([`super::families`]); GGUF names them in one. `layout` says where each part of a layer
//! is stored and which rows of what is stored belong to it: fused projections are cut apart, the query and key rows
//! that GGUF permutes are put back in order, transposed matrices are turned. Every matrix ends as `[out, in]` in the
//! compute dtype, every norm's weight in f32.

pub(super) mod form;
pub(super) mod layout;
mod matrices;
mod multipliers;

pub use super::altup::AltUpWeights;
use super::arch::{Arch, Channel, Gain, Norm};
use super::channel::RoutedExperts;
pub use super::channel::{ChannelWeights, MlpWeights};
use super::checkpoint::{Checkpoint, CheckpointError, Stored};
use super::decoder::Decoder;
pub use super::mixer::{AttentionWeights, MixerWeights};
pub use super::per_layer::PerLayerWeights;
use super::per_layer::TokenEmbedding;
use super::places::Places;
use super::store::{Layers, Table};
use super::upload::Upload;
use crate::ops::{self, NormBy, Weight};
use crate::parameters::param;
use candle_core::{DType, Device, Tensor};
pub use form::{Form, Loaded};
use form::{Located, Same, Translate};
pub(super) use layout::BUFFERS;
use layout::{Layout, LinearSpec, NormSpec};
pub use matrices::{HeadWeights, StoredMatrix};
pub use multipliers::Multipliers;
pub(super) use multipliers::Scales;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// A matrix `[out, in]` with its bias `[out]`.
#[derive(Clone)]
pub struct Linear {
    pub weight: Weight,
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `x . weight^T + bias`. `[rows, in]` to `[rows, out]`
    ///
    /// # Errors
    /// If the widths differ or candle fails.
    pub fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = self.weight.product(x)?;
        match &self.bias {
            None => Ok(y),
            Some(bias) => ops::add_bias(&y, bias),
        }
    }

    /// Of each row what one group of the outputs gives alone, `width` one after another; `groups` says of each row which.
    /// `[rows, in]` to `[rows, width]`
    ///
    /// # Errors
    /// As [`Weight::product_by_group`].
    pub fn apply_by_group(&self, x: &Tensor, groups: &[usize], width: usize) -> candle_core::Result<Tensor> {
        let y = self.weight.product_by_group(x, groups, width)?;
        match &self.bias {
            None => Ok(y),
            Some(bias) => ops::add(&y, &of_groups(bias, groups, width)?),
        }
    }

    /// Some of its outputs, in this order.
    pub(super) fn of_rows(&self, rows: &[u32]) -> candle_core::Result<Linear> {
        Ok(Linear { weight: Weight::new(&self.weight.rows(rows)?)?, bias: picked_if(&self.bias, rows)? })
    }
}

/// Of numbers in groups of `width`, those of the group of each row. `[rows, width]`
fn of_groups(numbers: &Tensor, groups: &[usize], width: usize) -> candle_core::Result<Tensor> {
    let index: Vec<u32> = groups.iter().map(|group| *group as u32).collect();
    numbers.reshape(((), width))?.index_select(&Tensor::new(index, numbers.device())?, 0)
}

/// A norm: its weight, ones where it has none, and, for layer norms that have one, its bias, in f32.
#[derive(Clone)]
pub struct NormWeights {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub by: NormBy,
}

impl NormWeights {
    /// A norm without parameters, of rows so wide or several times as wide.
    ///
    /// # Errors
    /// If candle fails.
    pub(super) fn plain(of: Norm, width: usize, device: &Device) -> candle_core::Result<NormWeights> {
        let weight = Tensor::ones(width, DType::F32, device)?;
        Ok(NormWeights { weight, bias: None, by: NormBy { kind: of.kind, eps: of.eps, group: width } })
    }

    /// The norm of `x`, whose rows are as wide as the weight or several times as wide.
    ///
    /// # Errors
    /// If candle fails.
    pub fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        ops::norm(x, &self.weight, self.bias.as_ref(), self.by)
    }

    /// The norm of rows of which each is one group alone: `groups` says which, for weights that differ from group to group.
    /// `[rows, group]`
    ///
    /// # Errors
    /// If candle fails.
    pub fn apply_by_group(&self, x: &Tensor, groups: &[usize]) -> candle_core::Result<Tensor> {
        let width = x.dim(1)?;
        if self.weight.elem_count() == width {
            return self.apply(x);
        }
        let (one, dtype) = (self.weight.narrow(0, 0, width)?.ones_like()?, x.dtype());
        let scaled =
            (ops::norm(x, &one, None, self.by)?.to_dtype(DType::F32)? * of_groups(&self.weight, groups, width)?)?;
        match &self.bias {
            None => scaled,
            Some(bias) => (scaled + of_groups(bias, groups, width)?)?,
        }
        .to_dtype(dtype)
    }

    /// Some of its numbers, in this order.
    pub(super) fn of_rows(&self, rows: &[u32]) -> candle_core::Result<NormWeights> {
        Ok(NormWeights { weight: picked(&self.weight, rows)?, bias: picked_if(&self.bias, rows)?, by: self.by })
    }
}

/// Some rows of a tensor, in this order.
fn picked(of: &Tensor, rows: &[u32]) -> candle_core::Result<Tensor> {
    of.index_select(&Tensor::new(rows, of.device())?, 0)
}

fn picked_if(of: &Option<Tensor>, rows: &[u32]) -> candle_core::Result<Option<Tensor>> {
    of.as_ref().map(|of| picked(of, rows)).transpose()
}

/// The parts of a layer: its weights, or where each is stored.
pub struct LayerWeights<F: Form = Loaded> {
    pub attn_norm: Option<F::Norm>,
    pub mixer: MixerWeights<F>,
    pub attn_post_norm: Option<F::Norm>,
    /// Of the residual stream itself, after attention.
    pub attn_sum_norm: Option<F::Norm>,
    pub mlp_norm: Option<F::Norm>,
    pub channel: ChannelWeights<F>,
    pub mlp_post_norm: Option<F::Norm>,
    pub per_layer: Option<PerLayerWeights<F>>,
    /// Where the residual stream is one of several.
    pub altup: Option<AltUpWeights<F>>,
    /// Of the residual stream itself, after the MLP.
    pub mlp_sum_norm: Option<F::Norm>,
}

impl<F: Form> LayerWeights<F> {
    /// The same in another form.
    fn translate<G: Form, T: Translate<F, G>>(&self, to: &T) -> Result<LayerWeights<G>, T::Error> {
        Ok(LayerWeights {
            attn_norm: to.norm_if(&self.attn_norm)?,
            mixer: self.mixer.translate(to)?,
            attn_post_norm: to.norm_if(&self.attn_post_norm)?,
            attn_sum_norm: to.norm_if(&self.attn_sum_norm)?,
            mlp_norm: to.norm_if(&self.mlp_norm)?,
            channel: self.channel.translate(to)?,
            mlp_post_norm: to.norm_if(&self.mlp_post_norm)?,
            per_layer: self.per_layer.as_ref().map(|weights| weights.translate(to)).transpose()?,
            altup: self.altup.as_ref().map(|weights| weights.translate(to)).transpose()?,
            mlp_sum_norm: to.norm_if(&self.mlp_sum_norm)?,
        })
    }
}

impl LayerWeights {
    /// The same with keys and values for every query head; all else is shared.
    ///
    /// # Errors
    /// If candle fails.
    pub(super) fn by_query_head(&self) -> candle_core::Result<LayerWeights> {
        let same = self.translate(&Same)?;
        Ok(LayerWeights { mixer: self.mixer.by_query_head()?, ..same })
    }
}

/// What went wrong while weights were loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("tensor `{tensor}` has numbers that {dtype} cannot hold; load the model with {f32} or bf16", f32 = param("dtype").is("f32"))]
    Overflow { tensor: String, dtype: &'static str },
    #[error(
        "{path}: tensor `{tensor}`: a {family} decoder of {layers} layers has no use for it: {why}",
        path = path.display()
    )]
    Unused { path: PathBuf, tensor: String, family: &'static str, layers: usize, why: &'static str },
    #[error(
        "{path}: no `{tensor}`; if the model ties its embedding, set `tie_word_embeddings` to true in config.json",
        path = path.display()
    )]
    NoHead { path: PathBuf, tensor: String },
    #[error(
        "{path}: the adapter changes `{tensor}`, which the base ties to its unembedding, and not that; merge it in Python: \
         `model.merge_and_unload()` and `save_pretrained`",
        path = path.display()
    )]
    HalfTied { path: PathBuf, tensor: String },
    #[error("there is no layer {layer}")]
    NoLayer { layer: usize },
    #[error("{what}: the thread that read it stopped")]
    Stopped { what: String },
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl WeightsError {
    /// Whether the checkpoint is at fault, or how it is to be read, rather than the work having failed.
    pub(crate) fn of_input(&self) -> bool {
        !matches!(self, WeightsError::NoLayer { .. } | WeightsError::Stopped { .. } | WeightsError::Candle(_))
    }

    /// The error that stopped a pass, if weights that were read meanwhile did.
    pub(crate) fn within(e: &candle_core::Error) -> Option<&WeightsError> {
        if let candle_core::Error::Io(e) = e { e.get_ref()?.downcast_ref() } else { None }
    }
}

impl From<WeightsError> for candle_core::Error {
    fn from(e: WeightsError) -> Self {
        match e {
            WeightsError::Candle(e) => e,
            // The one of candle's errors that lets this be found within it again.
            e => std::io::Error::new(std::io::ErrorKind::InvalidData, e).into(),
        }
    }
}

/// How a checkpoint becomes weights: what is stored where, and in what it is kept.
pub(super) struct WeightReader {
    arch: Arch,
    checkpoint: Checkpoint,
    dtype: DType,
    places: Places,
    /// Whether layers do not stay in memory.
    streamed: bool,
    /// Whether rows chose nearly all experts of the last layer that they went through and that does not stay.
    wide: Arc<AtomicBool>,
}

impl WeightReader {
    /// Reads one layer, `ahead` while the device that it is for computes another. Of one that does not stay in memory, the experts
    /// that rows choose from are left where they are until rows choose them, unless it is likely that they will choose nearly all.
    ///
    /// # Errors
    /// If a tensor holds NaN or does not fit the dtype.
    pub(super) fn layer(self: &Arc<Self>, layer: usize, ahead: bool) -> Result<LayerWeights, WeightsError> {
        let (begun, device) = (Instant::now(), self.places.layer(layer));
        let upload = if ahead { Upload::beside(device)? } else { Upload::in_order(device) };
        let left = self.streamed && !(ahead && self.wide.load(Relaxed));
        let loader = Loader { left: left.then(|| (self.clone(), layer)), ..self.loader(upload) };
        let found = self.layout().layer(layer).translate(&loader)?;
        tracing::debug!("layer {layer}: read in {:.3} s", begun.elapsed().as_secs_f64());
        Ok(found)
    }

    /// Reads one expert of a layer, while the device that it is for computes.
    ///
    /// # Errors
    /// As [`WeightReader::layer`].
    fn expert(&self, layer: usize, e: usize, spec: &MlpWeights<Located>) -> Result<MlpWeights, WeightsError> {
        let begun = Instant::now();
        let found = spec.translate(&self.loader(Upload::beside(self.places.layer(layer))?))?;
        tracing::debug!("layer {layer}, expert {e}: read in {:.3} s", begun.elapsed().as_secs_f64());
        Ok(found)
    }

    /// How many bytes of the checkpoint's files were read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.checkpoint.bytes_read()
    }

    /// Reads one tensor, for a device.
    ///
    /// # Errors
    /// As [`WeightReader::layer`].
    pub(super) fn tensor(&self, stored: &Stored, device: &Device) -> Result<Tensor, WeightsError> {
        self.loader(Upload::in_order(device)).tensor(stored)
    }

    /// [`WeightReader::tensor`] of a whole table, for products.
    ///
    /// # Errors
    /// As [`WeightReader::layer`].
    pub(super) fn whole(&self, stored: &Stored, device: &Device) -> Result<Weight, WeightsError> {
        let begun = Instant::now();
        let found = Weight::new(&self.tensor(stored, device)?)?;
        tracing::debug!("tensor `{}`: read in {:.3} s", stored.name, begun.elapsed().as_secs_f64());
        Ok(found)
    }

    /// Single numbers, one a tensor.
    ///
    /// # Errors
    /// As [`WeightReader::layer`].
    fn scalars(&self, stored: &[Stored]) -> Result<Vec<f64>, WeightsError> {
        let number = |stored: &Stored| -> Result<f64, WeightsError> {
            Ok(f64::from(self.checkpoint.read(stored)?.first().copied().unwrap_or(1.0)))
        };
        stored.iter().map(number).collect()
    }

    /// Whether there are no weights, because the model is only described.
    pub(super) fn is_described(&self) -> bool {
        self.checkpoint.is_described()
    }

    fn layout(&self) -> Layout<'_> {
        Layout::new(&self.arch, &self.checkpoint)
    }

    fn loader(&self, upload: Upload) -> Loader<'_> {
        Loader {
            checkpoint: &self.checkpoint,
            dtype: self.dtype,
            upload,
            left: None,
            wide: self.streamed.then(|| self.wide.clone()),
        }
    }
}

/// Builds a decoder from a checkpoint, and says what a user should know about which tensors it is of. Weights are read when
/// they are first needed; what is wrong with numbers comes out then. Those that would take more than `max_memory` bytes do
/// not stay in memory. The layers are split over the devices, in their order. Where a model is only described, every attempt
/// to read its weights is an error.
///
/// # Errors
/// If a tensor is missing, has the wrong shape or dtype, or is in a layer and unused.
pub fn load(
    mut arch: Arch,
    checkpoint: Checkpoint,
    dtype: DType,
    devices: &[Device],
    max_memory: Option<u64>,
) -> Result<(Decoder, Vec<String>), WeightsError> {
    let mut warnings = checkpoint.warnings().to_vec();
    if !checkpoint.is_described() {
        warnings.extend(fit(&mut arch, &checkpoint)?);
    }
    let layout = Layout::new(&arch, &checkpoint);
    let (ends, parameters, held) = (layout.ends(), layout.parameters(), layout.held());
    let places = Places::split(devices, arch.n_layers, layout.weight(&ends));
    let ends = if checkpoint.is_described() { ends.without_numbers() } else { ends };
    let streamed = max_memory.is_some_and(|most| held.saturating_mul(dtype.size_in_bytes() as u64) > most);
    let source = Arc::new(WeightReader {
        arch: arch.clone(),
        checkpoint,
        dtype,
        places: places.clone(),
        streamed,
        wide: Arc::default(),
    });
    let table =
        |stored: &Stored, device: &Device| Table::new(source.clone(), stored.clone(), device.clone(), !streamed);
    let embed = table(&ends.embed, places.first());
    let unembed = match &ends.unembed {
        Some(stored) => table(stored, places.last()),
        // Tied, they are one table, which is read once.
        None if places.first().same_device(places.last()) => embed.clone(),
        None => table(&ends.embed, places.last()),
    };
    let (embed, unembed) = match &ends.led {
        Some([into, out]) => {
            let (into, out) = (source.whole(into, places.first())?, source.whole(out, places.last())?);
            (embed.led_by(into), unembed.led_by(out))
        }
        None => (embed, unembed),
    };
    let positions = ends.positions.as_ref().map(|stored| table(stored, places.first()));
    let (at_first, at_last) =
        (source.loader(Upload::in_order(places.first())), source.loader(Upload::in_order(places.last())));
    let (embed_norm, final_norm) = (at_first.norm_if(&ends.embed_norm)?, at_last.norm_if(&ends.final_norm)?);
    let unembed_bias = at_last.numbers_if(&ends.unembed_bias)?;
    let per_layer = ends.per_layer.as_ref().map(|(stored, norm)| -> Result<TokenEmbedding, WeightsError> {
        Ok(TokenEmbedding { table: table(stored, places.first()), norm: at_first.norm(norm)? })
    });
    let (per_layer, scalars) = (per_layer.transpose()?, source.scalars(&ends.scalars)?);
    let reader = source.clone();
    let layers = Arc::new(Layers::new(arch.n_layers, !streamed, move |layer, ahead| reader.layer(layer, ahead)));
    let decoder = Decoder {
        arch,
        dtype,
        places,
        parameters,
        embed,
        embed_norm,
        positions,
        final_norm,
        unembed,
        unembed_bias,
        per_layer,
        scalars,
        mean_unembed: OnceLock::new(),
        layers,
        by_query: None,
        told_apart: OnceLock::new(),
    };
    Ok((decoder, warnings))
}

/// Holds a checkpoint to its description, and says what a user should know about where they differ.
///
/// # Errors
/// As [`load`].
fn fit(arch: &mut Arch, checkpoint: &Checkpoint) -> Result<Vec<String>, WeightsError> {
    let mut warnings = Vec::from_iter(untie(arch, checkpoint)?);
    warnings.extend(widen(arch, checkpoint));
    let layout = Layout::new(arch, checkpoint);
    let unembed = layout.own_unembed().name;
    if !arch.tied && !checkpoint.contains(&unembed) {
        return Err(WeightsError::NoHead { path: checkpoint.path_of(&unembed), tensor: unembed });
    }
    let embed = layout.ends().embed.name;
    if arch.tied && checkpoint.adapts(&embed) && !checkpoint.contains(&unembed) {
        return Err(WeightsError::HalfTied { path: checkpoint.path_of(&embed), tensor: embed });
    }
    warnings.extend(layout.account_for_every_tensor()?);
    layout.check()?;
    Ok(warnings)
}

/// The names of a checkpoint's matrices that are stored as `[in, out]`.
pub(super) fn turned(arch: &Arch, checkpoint: &Checkpoint) -> BTreeSet<String> {
    Layout::new(arch, checkpoint).turned()
}

/// Where the description ties the unembedding to the embedding and the checkpoint has one that is not it, that one counts,
/// as in `transformers` 5; says so.
fn untie(arch: &mut Arch, checkpoint: &Checkpoint) -> Result<Option<String>, WeightsError> {
    let layout = Layout::new(arch, checkpoint);
    let (embed, own) = (layout.ends().embed, layout.own_unembed());
    if !arch.tied || !checkpoint.contains(&own.name) || checkpoint.equal(&embed, &own)? {
        return Ok(None);
    }
    arch.tied = false;
    Ok(Some(format!(
        "`{}` is not `{}`, to which `tie_word_embeddings` ties it: it is used as it is stored, as transformers 5 does",
        own.name, embed.name
    )))
}

/// Where MLPs may have another width than the description's and the checkpoint's have it, that one counts; says so.
fn widen(arch: &mut Arch, checkpoint: &Checkpoint) -> Option<String> {
    let width = arch.or_width?;
    let name = Layout::new(arch, checkpoint).first_up();
    if checkpoint.shape(&name)?.first() != Some(&width) {
        return None;
    }
    for layer in &mut arch.layers {
        if let Channel::Mlp(mlp) = &mut layer.channel {
            mlp.width = width;
        }
    }
    let usual = std::mem::replace(&mut arch.d_mlp, width);
    Some(format!("`{name}` is {width} wide, as it is stored; transformers takes {usual} and would refuse it"))
}

/// Converts stored parts into tensors.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    dtype: DType,
    upload: Upload,
    /// Who reads the experts that rows choose from, and of which layer, where they are left until rows choose them.
    left: Option<(Arc<WeightReader>, usize)>,
    /// Where it is noted whether rows chose nearly all experts, of layers that do not stay in memory.
    wide: Option<Arc<AtomicBool>>,
}

impl Loader<'_> {
    fn tensor(&self, stored: &Stored) -> Result<Tensor, WeightsError> {
        self.of_values(stored, self.checkpoint.read(stored)?)
    }

    /// What is stored somewhere, as these numbers.
    fn of_values(&self, stored: &Stored, values: Vec<f32>) -> Result<Tensor, WeightsError> {
        if self.dtype == DType::F16 && values.iter().any(|v| v.abs() > 65_504.0) {
            return Err(WeightsError::Overflow { tensor: stored.name.clone(), dtype: "f16" });
        }
        let tensor = Tensor::from_vec(values, stored.picked_shape(), &Device::Cpu)?;
        Ok(self.upload.send(&tensor.to_dtype(self.dtype)?)?)
    }

    /// Adds the product of two narrow matrices, `[rank, in]` and `[out, rank]`, to `[out, in]`.
    fn add_product(&self, matrix: &mut [f32], more: &[Stored; 2]) -> Result<(), WeightsError> {
        let read = |stored: &Stored| -> Result<Tensor, WeightsError> {
            Ok(Tensor::from_vec(self.checkpoint.read(stored)?, stored.picked_shape(), &Device::Cpu)?)
        };
        let product = ops::to_vec(&read(&more[1])?.matmul(&read(&more[0])?)?)?;
        matrix.iter_mut().zip(product).for_each(|(x, more)| *x += more);
        Ok(())
    }

    /// Numbers in f32, in one row.
    fn wide(&self, values: Vec<f32>) -> Result<Tensor, WeightsError> {
        let n = values.len();
        Ok(self.upload.send(&Tensor::from_vec(values, n, &Device::Cpu)?)?)
    }
}

impl Translate<Located, Loaded> for Loader<'_> {
    type Error = WeightsError;

    fn matrix(&self, spec: &LinearSpec) -> Result<Linear, WeightsError> {
        let bias = match &spec.bias {
            Some(bias) => Some(self.of_values(bias, spec.scaled_bias(self.checkpoint.read(bias)?))?),
            None => None,
        };
        let mut weight = spec.scaled(self.checkpoint.read(&spec.weight)?);
        if let Some(more) = &spec.more {
            self.add_product(&mut weight, more)?;
        }
        Ok(Linear { weight: Weight::new(&self.of_values(&spec.weight, weight)?)?, bias })
    }

    fn norm(&self, spec: &NormSpec) -> Result<NormWeights, WeightsError> {
        let read = |stored: &Stored, offset: f32| -> Result<Tensor, WeightsError> {
            let values = self.checkpoint.read(stored)?;
            let order = spec.order.clone().unwrap_or_else(|| (0..values.len()).collect());
            self.wide(order.into_iter().map(|i| (values[i] + offset) * spec.scale as f32).collect())
        };
        let offset = if spec.of.gain == Gain::LessOne { 1.0 } else { 0.0 };
        let weight = match &spec.weight {
            Some(stored) => read(stored, offset)?,
            None => self.wide(vec![spec.scale as f32; spec.width])?,
        };
        let bias = spec.bias.as_ref().map(|b| read(b, 0.0)).transpose()?;
        let by = NormBy { kind: spec.of.kind, eps: spec.of.eps, group: spec.group };
        Ok(NormWeights { weight, bias, by })
    }

    fn numbers(&self, spec: &Stored) -> Result<Tensor, WeightsError> {
        let values = self.checkpoint.read(spec)?;
        Ok(self.upload.send(&Tensor::from_vec(values, spec.picked_shape(), &Device::Cpu)?)?)
    }

    fn experts(&self, specs: &Arc<Vec<MlpWeights<Located>>>) -> Result<RoutedExperts, WeightsError> {
        let n = specs.len();
        let experts = match self.left.clone() {
            None => Layers::here(specs.iter().map(|spec| spec.translate(self)).collect::<Result<_, _>>()?),
            Some((reader, layer)) => {
                let specs = specs.clone();
                let read = move |e: usize, _| reader.expert(layer, e, &specs[e]);
                Layers::new(n, true, read).named(format!("layer {layer}, expert"))
            }
        };
        let experts = RoutedExperts::new(experts);
        Ok(match &self.wide {
            Some(wide) => experts.told(n, wide),
            None => experts,
        })
    }
}
