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
    pub(super) fn move_to(&mut self, device: &Device) -> Result<()> {
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

    /// Called at every site that the model has, in the order of the flow, except `scores`, `pattern` and `state`. The value is
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

    /// Called with each part of what later positions read of these (see [`super::mixer::Carried`]): keys, rotated, and values;
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

    /// The spans whose state this layer's recurrence shows, each with the positions after which it does, ascending; of the others it
    /// never leaves the kernel. A span of which the hook keeps a state before or after its rows is among them.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn stops(&mut self, _layer: usize) -> Result<Vec<(usize, Vec<usize>)>> {
        Ok(Vec::new())
    }

    /// Called with the state of a span after each of these positions, `[1, width of the site]` in f32 on the host; returns the one to
    /// go on with. Spans come in their order, and a span's positions in theirs.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn at_state(&mut self, _site: Site, (_span, _position): (usize, usize), state: Tensor) -> Result<Tensor> {
        Ok(state)
    }

    /// The state that a span's rows go on from, where the engine has kept it, as [`Hook::state_after`] was given it.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn state_before(&self, _layer: usize, _span: usize) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Called with the state after the last row of each span that [`Hook::stops`] names, `[1, heads * keys * values]` in f32 on the
    /// host.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn state_after(&mut self, _layer: usize, _span: usize, _state: &Tensor) -> Result<()> {
        Ok(())
    }
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
}

/// A norm of `x`, if there is one.
///
/// # Errors
/// If candle fails.
pub(super) fn norm(x: &Tensor, w: Option<&NormWeights>) -> Result<Tensor> {
    w.map_or_else(|| Ok(x.clone()), |w| w.apply(x))
}
