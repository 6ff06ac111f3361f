//! What a pass hands from one part of a layer to the next: the activations that are live, the engine that looks at them, and
//! what is around a part.

use super::arch::Arch;
use super::per_layer::TokenRows;
use super::places::moved;
use super::weights::NormWeights;
use crate::ops::rows::Rows;
use crate::site::{KINDS, Site, SiteKind};
use candle_core::{Device, Result, Tensor};
use std::collections::BTreeMap;

/// The activations that are live at a site: what the rest of the pass still reads.
#[derive(Clone)]
pub struct Acts {
    pub rows: Rows,
    live: [Option<Tensor>; KINDS.len()],
    /// What later layers read beside the residual stream.
    pub(crate) loans: Loans,
}

/// What a place of the pass leaves to later layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lent {
    /// What enters layer 0, as it is after edits: per-layer embeddings are made of it, and some attention reads it. `[rows, d_model]`
    Embed,
    /// The keys of a layer, rotated. `[rows, n_kv_heads * d_head]`, or where an engine keeps them in a cache, all of that
    Keys(usize),
    /// The values of a layer, as its keys.
    Values(usize),
    /// The residual streams beside the first, which every layer reads and leaves anew, `[rows, (streams - 1) * d_model]`; within a
    /// layer all streams as they are predicted. `[rows, streams * d_model]`
    Streams,
}

impl Lent {
    /// Where it is read off the pass, first: what is at this site, or before it, changes it.
    pub fn site(self) -> Site {
        match self {
            Lent::Embed | Lent::Streams => SiteKind::Embed.at(0),
            Lent::Keys(layer) => SiteKind::RotK.at(layer),
            Lent::Values(layer) => SiteKind::V.at(layer),
        }
    }
}

/// All that places of the pass have left to later layers: empty in models whose layers read the residual stream alone.
#[derive(Clone, Default)]
pub(crate) struct Loans {
    values: BTreeMap<Lent, Tensor>,
    /// The tokens of the rows, where later layers read those.
    pub tokens: Option<TokenRows>,
}

impl Loans {
    /// What was lent.
    ///
    /// # Errors
    /// If the pass has not been where it is lent.
    pub fn get(&self, lent: Lent) -> Result<&Tensor> {
        let missing = || candle_core::Error::Msg(format!("what `{}` leaves to later layers is not here", lent.site()));
        self.values.get(&lent).ok_or_else(missing)
    }

    /// What was lent, which is then lent no more.
    ///
    /// # Errors
    /// As [`Loans::get`].
    pub fn take(&mut self, lent: Lent) -> Result<Tensor> {
        let value = self.get(lent)?.clone();
        self.values.remove(&lent);
        Ok(value)
    }

    /// Leaves a value to later layers, in place of what was there.
    pub fn lend(&mut self, lent: Lent, value: Tensor) {
        self.values.insert(lent, value);
    }

    /// Replaces the rows, as [`Acts::gather`] does.
    fn gather(&mut self, from: &[u32]) -> Result<()> {
        for value in self.values.values_mut() {
            *value = value.index_select(&Tensor::new(from, value.device())?, 0)?;
        }
        self.tokens.iter_mut().for_each(|tokens| tokens.gather(from));
        Ok(())
    }
}

impl Acts {
    /// Activations of `rows`, none live yet.
    pub fn new(rows: Rows) -> Self {
        Acts { rows, live: [const { None }; KINDS.len()], loans: Loans::default() }
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
            *value = value.index_select(&Tensor::new(from, value.device())?, 0)?;
        }
        self.loans.gather(from)?;
        self.rows = rows;
        Ok(())
    }

    /// Takes every live value to a device.
    pub(super) fn move_to(&mut self, device: &Device) -> Result<()> {
        for value in self.live.iter_mut().flatten().chain(self.loans.values.values_mut()) {
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

    /// Called with each part of what later positions read of these (see [`super::mixer::Mixer::carried`]): keys, rotated, values, and
    /// what keys are chosen by; returns what the spans name rows of: these themselves, unless the engine keeps them in a cache.
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

    /// Called with the state after the last row of each span that [`Hook::stops`] names, `[1, numbers of a state]` in f32 on the
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
