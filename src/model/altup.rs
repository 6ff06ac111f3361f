//! Alternating updates (AltUp): a residual stream of several, of which layers work on the first alone (Gemma 3n).
//!
//! Before a layer, each stream is predicted from all of them; the layer works on the first one's prediction; then every prediction
//! is corrected by what the layer changed in the first (Baykal et al. 2023, "Alternating Updates for Efficient Transformers"). How
//! much, a router says at each position. The streams begin as projections of the embedding, and end as the mean of projections
//! back, all as large as the first. Beside the mixer, a layer adds what it reads and a low-rank map of it (LAuReL: Menghani et al.
//! 2024, "Learned Augmented Residual Layer").
//!
//! The sites of the residual stream are of the first stream. The others are lent from each layer to the next ([`Lent::Streams`]):
//! what is edited in the first reaches them by the next prediction or correction.

use super::pass::{Acts, Lent};
use super::weights::form::{Form, Loaded, Located, Translate};
use super::weights::layout::{LayerLayout, Outputs};
use crate::ops;
use crate::site::SiteKind;
use candle_core::{D, DType, Result, Tensor};

/// Alternating updates, described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltUp {
    /// How many streams there are.
    pub streams: usize,
    /// Whether per-layer embeddings read the first stream times a number for each of its own.
    pub scaled: bool,
    /// The rank of the map beside the mixer.
    pub rank: usize,
}

/// What the families call the parts: the same in all that have them.
const SPREAD: &str = "altup_projections";
const GATHERED: &str = "altup_unembed_projections";
const ROUTER_NORM: &str = "altup.router_norm";
const ROUTER: &str = "altup.modality_router";
const PREDICTION: &str = "altup.prediction_coefs";
const CORRECTION: &str = "altup.correction_coefs";
const SCALE: &str = "altup.correct_output_scale";
const LAUREL: [&str; 2] = ["laurel.linear_left", "laurel.linear_right"];
const LAUREL_NORM: &str = "laurel.post_laurel_norm";

/// The least mean square that a projection of a stream counts as having where it is made as large as the first.
const LEAST: f64 = 1e-5;

impl AltUp {
    /// Numbers of a row in the streams beside the first.
    pub(super) fn others(&self, d_model: usize) -> usize {
        (self.streams - 1) * d_model
    }

    /// Weights of one layer of so many, in numbers.
    pub(super) fn params(&self, layer: usize, n_layers: usize, d_model: usize) -> u64 {
        let ends = usize::from(layer == 0) + usize::from(layer + 1 == n_layers);
        d_model as u64 * (2 * self.rank + self.streams + ends * self.others(d_model)) as u64
    }

    /// Checks what the decoder relies on.
    ///
    /// # Errors
    /// A sentence that names the number that no model has.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        if !(2..=256).contains(&self.streams) {
            return Err(format!("the number of streams is {}, which no model has", self.streams));
        }
        if self.rank == 0 || self.rank > 1 << 26 {
            return Err(format!("the rank of the map beside mixers is {}, which no model has", self.rank));
        }
        Ok(())
    }

    /// Where the parts of a layer are stored. The streams begin in the first layer and end in the last.
    pub(super) fn stored(&self, layer: usize, at: &LayerLayout, whole: &LayerLayout) -> AltUpWeights<Located> {
        let (d, n) = (at.d_model, self.streams);
        let matrix =
            |name: &str, inputs: usize, outputs: usize| at.linear(name, inputs, Outputs::whole(outputs), false);
        let projections = |name: &str, there: bool| {
            let each = (0..n - 1).filter(|_| there);
            each.map(|i| whole.linear(&format!("{name}.{i}"), d, Outputs::whole(d), false)).collect()
        };
        AltUpWeights {
            router_norm: at.norm(ROUTER_NORM, at.arch.norm, d),
            router: matrix(ROUTER, d, n),
            prediction: matrix(PREDICTION, n, n * n),
            correction: matrix(CORRECTION, n, n),
            scale: at.numbers(SCALE, vec![d]),
            laurel: [matrix(LAUREL[0], d, self.rank), matrix(LAUREL[1], self.rank, d)],
            laurel_norm: at.norm(LAUREL_NORM, at.arch.norm, d),
            spread: projections(SPREAD, layer == 0),
            gathered: projections(GATHERED, layer + 1 == at.arch.n_layers),
        }
    }
}

/// The parts of one layer.
pub struct AltUpWeights<F: Form = Loaded> {
    /// The norm of what the router reads, and the router. `[streams, d_model]`
    pub router_norm: F::Norm,
    pub router: F::Matrix,
    /// How much of each stream is in each one's prediction. `[streams * streams, streams]`
    pub prediction: F::Matrix,
    /// How much of what the layer changed corrects each stream. `[streams, streams]`
    pub correction: F::Matrix,
    /// What per-layer embeddings read the first stream times. `[d_model]`
    pub scale: F::Numbers,
    /// The map beside the mixer, narrowing and widening, `[rank, d_model]` and `[d_model, rank]`, and the norm of what it gives.
    pub laurel: [F::Matrix; 2],
    pub laurel_norm: F::Norm,
    /// In the first layer: what makes the other streams of the embedding. `[d_model, d_model]` each
    pub spread: Vec<F::Matrix>,
    /// In the last layer: what the other streams are read through. `[d_model, d_model]` each
    pub gathered: Vec<F::Matrix>,
}

impl<F: Form> AltUpWeights<F> {
    pub(super) fn translate<G: Form, T: Translate<F, G>>(
        &self,
        to: &T,
    ) -> std::result::Result<AltUpWeights<G>, T::Error> {
        let all = |parts: &[F::Matrix]| parts.iter().map(|part| to.matrix(part)).collect::<std::result::Result<_, _>>();
        Ok(AltUpWeights {
            router_norm: to.norm(&self.router_norm)?,
            router: to.matrix(&self.router)?,
            prediction: to.matrix(&self.prediction)?,
            correction: to.matrix(&self.correction)?,
            scale: to.numbers(&self.scale)?,
            laurel: [to.matrix(&self.laurel[0])?, to.matrix(&self.laurel[1])?],
            laurel_norm: to.norm(&self.laurel_norm)?,
            spread: all(&self.spread)?,
            gathered: all(&self.gathered)?,
        })
    }
}

impl AltUpWeights {
    /// Before the first layer: makes the other streams of the first, which is the embedding. Before others it does nothing.
    ///
    /// # Errors
    /// If the first stream is not live, or candle fails.
    pub(super) fn begin(&self, acts: &mut Acts) -> Result<()> {
        if self.spread.is_empty() {
            return Ok(());
        }
        let first = acts.get(SiteKind::ResidPre)?;
        let size = magnitude(first, 0.0)?;
        let others = self.spread.iter().map(|projection| as_large(&projection.apply(first)?, &size));
        let others = Tensor::cat(&others.collect::<Result<Vec<_>>>()?, 1)?;
        acts.loans.lend(Lent::Streams, others);
        Ok(())
    }

    /// Predicts every stream from all: the first's prediction takes the place of `resid_pre`, and all are kept for
    /// [`AltUpWeights::correct`], `[rows, streams * d_model]`.
    ///
    /// # Errors
    /// If the streams are not there, or candle fails.
    pub(super) fn predict(&self, acts: &mut Acts) -> Result<()> {
        let first = acts.take(SiteKind::ResidPre)?;
        let (rows, d) = first.dims2()?;
        let all = Tensor::cat(&[&first, acts.loans.get(Lent::Streams)?], 1)?;
        let n = all.dim(1)? / d;
        let shares = self.prediction.apply(&self.routed(&first)?)?.reshape((rows, n, n))?;
        let predicted = shares.contiguous()?.matmul(&all.reshape((rows, n, d))?)?.reshape((rows, n * d))?;
        let predicted = ops::add(&predicted, &all)?;
        acts.put(SiteKind::ResidPre, predicted.narrow(1, 0, d)?.contiguous()?);
        acts.loans.lend(Lent::Streams, predicted);
        Ok(())
    }

    /// The residual stream after the mixer: what was before it, what the mixer adds and what stands beside it, of which `read` is
    /// what both read, over the root of two. `[rows, d_model]`
    ///
    /// # Errors
    /// If candle fails.
    pub(super) fn after_mixer(&self, before: &Tensor, read: &Tensor, delta: &Tensor) -> Result<Tensor> {
        let beside = self.laurel[1].apply(&self.laurel[0].apply(read)?)?;
        let beside = ops::add(read, &self.laurel_norm.apply(&beside)?)?;
        ops::add(&ops::add(before, delta)?, &beside)? * 0.5f64.sqrt()
    }

    /// Corrects every stream's prediction by what `resid_post` has more than the first's.
    ///
    /// # Errors
    /// If the predictions are not there, or candle fails.
    pub(super) fn correct(&self, acts: &mut Acts) -> Result<()> {
        let made = acts.take(SiteKind::ResidPost)?;
        let (rows, d) = made.dims2()?;
        let predicted = acts.loans.take(Lent::Streams)?;
        let n = predicted.dim(1)? / d;
        let more = (&made - predicted.narrow(1, 0, d)?)?;
        let shares = (self.correction.apply(&self.routed(&made)?)? + 1.0)?;
        let added = shares.reshape((rows, n, 1))?.broadcast_mul(&more.reshape((rows, 1, d))?)?;
        let corrected = ops::add(&predicted, &added.reshape((rows, n * d))?)?;
        acts.put(SiteKind::ResidPost, corrected.narrow(1, 0, d)?.contiguous()?);
        acts.loans.lend(Lent::Streams, corrected.narrow(1, d, (n - 1) * d)?.contiguous()?);
        Ok(())
    }

    /// What per-layer embeddings read of the first stream. `[rows, d_model]`
    ///
    /// # Errors
    /// If candle fails.
    pub(super) fn read(&self, of: &AltUp, first: &Tensor) -> Result<Tensor> {
        if of.scaled { first.broadcast_mul(&self.scale.to_dtype(first.dtype())?) } else { Ok(first.clone()) }
    }

    /// Adds to all streams but the first. `[rows, d_model]`
    ///
    /// # Errors
    /// If the streams are not there, or candle fails.
    pub(super) fn add_to_others(&self, more: &Tensor, acts: &mut Acts) -> Result<()> {
        let others = acts.loans.take(Lent::Streams)?;
        let n = others.dim(1)? / more.dim(1)?;
        acts.loans.lend(Lent::Streams, ops::add(&others, &more.repeat((1, n))?)?);
        Ok(())
    }

    /// What goes on after a layer, of the first stream: after the last layer the mean of all streams, each read through its
    /// projection and made as large as the first. `[rows, d_model]`
    ///
    /// # Errors
    /// If the streams are not there, or candle fails.
    pub(super) fn end(&self, first: Tensor, acts: &mut Acts) -> Result<Tensor> {
        if self.gathered.is_empty() {
            return Ok(first);
        }
        let (others, d) = (acts.loans.take(Lent::Streams)?, first.dim(1)?);
        let size = magnitude(&first, 0.0)?;
        let mut sum = first;
        for (i, projection) in self.gathered.iter().enumerate() {
            let read = projection.apply(&others.narrow(1, i * d, d)?.contiguous()?)?;
            sum = ops::add(&sum, &as_large(&read, &size)?)?;
        }
        sum / (1 + self.gathered.len()) as f64
    }

    /// What the router says of rows of the first stream, from -1 to 1. `[rows, streams]`
    fn routed(&self, first: &Tensor) -> Result<Tensor> {
        let read = (self.router_norm.apply(first)? / first.dim(1)? as f64)?;
        self.router.apply(&read)?.to_dtype(DType::F32)?.tanh()?.to_dtype(first.dtype())
    }
}

/// The root mean square of each row, whose square is at least this. `[rows, 1]`, f32
fn magnitude(x: &Tensor, least: f64) -> Result<Tensor> {
    x.to_dtype(DType::F32)?.sqr()?.mean_keepdim(D::Minus1)?.maximum(least)?.sqrt()
}

/// Rows with the root mean square of these.
fn as_large(x: &Tensor, size: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)?.broadcast_mul(&(size / magnitude(x, LEAST)?)?)?.to_dtype(x.dtype())
}
