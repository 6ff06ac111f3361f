//! What a pass hands from one part of a layer to the next: the activations that are live, the engine that looks at them, and
//! what is around a part.

use super::arch::Arch;
use super::places::moved;
use super::weights::NormWeights;
use crate::ops::rows::Rows;
use crate::site::{KINDS, Site, SiteKind};
use candle_core::{Device, Result, Tensor};

/// The activations that are live at a site: what the rest of the pass still reads.
pub struct Acts {
    pub rows: Rows,
    live: [Option<Tensor>; KINDS.len()],
    lasting: Option<Tensor>,
}

impl Acts {
    /// Activations of `rows`, none live yet.
    pub fn new(rows: Rows) -> Self {
        Acts { rows, live: [const { None }; KINDS.len()], lasting: None }
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

    /// What a layer left for later ones to read beside the residual stream, if it did: RWKV-7's values of layer 0. `[rows, width]`
    pub fn lasting(&self) -> Option<&Tensor> {
        self.lasting.as_ref()
    }

    /// Leaves it.
    pub fn put_lasting(&mut self, value: Tensor) {
        self.lasting = Some(value);
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
        for value in self.live.iter_mut().chain([&mut self.lasting]).flatten() {
            let index = Tensor::new(from, value.device())?;
            *value = value.index_select(&index, 0)?;
        }
        self.rows = rows;
        Ok(())
    }

    /// Takes every live value to a device.
    pub(super) fn move_to(&mut self, device: &Device) -> Result<()> {
        for value in self.live.iter_mut().chain([&mut self.lasting]).flatten() {
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

    /// Called with each part of what later positions read of these (see [`super::mixer::Mixer::carried`]): keys, rotated, and values;
    /// returns what the spans name rows of: these themselves, unless the engine keeps them in a cache.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn carry(&mut self, _layer: usize, _part: usize, value: Tensor) -> Result<Tensor> {
        Ok(value)
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

/// What is around a mixer that runs.
pub(crate) struct Around<'a> {
    pub layer: usize,
    pub arch: &'a Arch,
    /// The cosines and sines of each of [`Arch::ropes`], on the layer's device.
    pub angles: &'a [(Tensor, Tensor)],
    /// Whether it stands beside attention, which reads the same after it.
    pub beside: bool,
}

impl Around<'_> {
    /// What the mixer reads.
    ///
    /// # Errors
    /// If it is not live.
    pub(super) fn read(&self, acts: &mut Acts) -> Result<Tensor> {
        if self.beside { acts.get(SiteKind::AttnIn).cloned() } else { acts.take(SiteKind::AttnIn) }
    }

    /// What its output projection reads.
    pub(super) fn z(&self) -> SiteKind {
        if self.beside { SiteKind::MixZ } else { SiteKind::Z }
    }

    /// The number of a part that it carries: those of attention come first.
    pub(super) fn part(&self, own: usize) -> usize {
        if self.beside { own + 2 } else { own }
    }
}

/// A norm of `x`, if there is one.
///
/// # Errors
/// If candle fails.
pub(super) fn norm(x: &Tensor, w: Option<&NormWeights>) -> Result<Tensor> {
    w.map_or_else(|| Ok(x.clone()), |w| w.apply(x))
}
