//! What is done at the sites of a batch's passes: the runs' edits, and, on the way back, the variables whose gradients are
//! wanted.

use super::{Batch, NoGradient};
use crate::model::decoder::{Acts, Hook};
use crate::ops;
use crate::plan::{Made, Placed, Row, Run};
use crate::run::edits::row_edits;
use crate::run::reading::pick;
use crate::site::{Site, SiteKind};
use candle_core::{Result, Tensor, Var};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// Whether a site's values are there for single spans only ([`Hook::at_opened`]). States are there for single rows
/// ([`Hook::at_state`]).
pub(super) fn is_opened(site: Site) -> bool {
    matches!(site.kind, SiteKind::Scores | SiteKind::Pattern)
}

/// A pass over a batch.
pub(super) struct Pass<'b, 'a> {
    batch: &'b Batch<'a>,
    /// Whether variables are added at the sites that are wanted.
    taps: bool,
    /// Whether the layer's input is tracked, and so must be all that is computed from it.
    tracked: bool,
    /// The variables, by site, and by span where the site is there for single spans, or by row where it is there for these.
    variables: HashMap<(Site, Option<usize>), Var>,
    /// Scores and patterns of the layer at hand that others take from. `[positions, n_heads * keys]`
    opened: HashMap<(Run, Site), Vec<f32>>,
    /// States of the layer at hand that others take from.
    states: HashMap<Row, Vec<f32>>,
}

impl<'b, 'a> Pass<'b, 'a> {
    /// A pass that makes edits alone.
    pub(super) fn plain(batch: &'b Batch<'a>) -> Self {
        Pass {
            batch,
            taps: false,
            tracked: false,
            variables: HashMap::new(),
            opened: HashMap::new(),
            states: HashMap::new(),
        }
    }

    /// A pass that also adds variables; `tracked` says that its layer's input is one.
    pub(super) fn tapping(batch: &'b Batch<'a>, tracked: bool) -> Self {
        Pass { taps: true, tracked, ..Pass::plain(batch) }
    }

    /// Lets go of what was kept of a layer.
    pub(super) fn forget(&mut self) {
        self.opened.clear();
        self.states.clear();
    }

    /// The variable of a row's state.
    pub(super) fn tap_state(&self, site: Site, (run, position): Row) -> Option<&Var> {
        self.variables.get(&(site, Some(self.batch.row(run, position))))
    }

    /// The variable at a site, which is not `state`.
    pub(super) fn tap(&self, site: Site, run: Run) -> Option<&Var> {
        let span = is_opened(site).then(|| self.batch.spans[&run]);
        self.variables.get(&(site, span))
    }

    /// A value as the rest of the pass reads it: with a variable, if its gradient is wanted.
    fn tapped(&mut self, site: Site, span: Option<usize>, x: Tensor) -> Result<Tensor> {
        if self.tracked && !x.track_op() {
            return Err(candle_core::Error::wrap(NoGradient { site }));
        }
        if !self.is_tapped(site) {
            return Ok(x);
        }
        let variable = Var::zeros(x.shape(), x.dtype(), x.device())?;
        let x = ops::add(&x, &variable)?;
        self.variables.insert((site, span), variable);
        Ok(x)
    }

    fn is_tapped(&self, site: Site) -> bool {
        self.taps && self.batch.tapped.contains(&site)
    }

    /// The edits of a run at a site.
    fn edits_of(&self, site: Site, run: Run) -> impl Iterator<Item = &'a Placed<'a>> {
        self.batch.edits.get(&site).into_iter().flatten().filter(move |(r, _)| *r == run).map(|(_, edit)| *edit)
    }

    /// A row of a donor's scores or pattern: [`Pass::gives`] says which are kept.
    fn opened_row(&self, site: Site, donor: Run, position: usize) -> &[f32] {
        let width = site.width(&self.batch.decoder.arch, self.batch.program.length(donor));
        &self.opened[&(donor, site)][position * width..(position + 1) * width]
    }

    /// The positions after which states of a run are edited, taken from, or their gradient is wanted; none if none are.
    fn stopped(&self, site: Site, run: Run) -> BTreeSet<usize> {
        let mut found: BTreeSet<usize> =
            self.edits_of(site, run).flat_map(|edit| edit.positions.iter().copied()).collect();
        for (_, edit) in self.batch.edits.get(&site).into_iter().flatten() {
            if let Made::Taken { donor, from } = &edit.made
                && *donor == run
            {
                found.extend(from);
            }
        }
        if self.is_tapped(site) {
            let wanted = self.batch.program.gradients.iter().filter(|g| g.run == run && g.site == site);
            found.extend(wanted.flat_map(|g| &g.positions));
        }
        found
    }

    /// Whether others take from a run at a site.
    fn gives(&self, site: Site, run: Run) -> bool {
        let takes = |(_, edit): &(Run, &Placed)| edit.donor() == Some(run);
        self.batch.edits.get(&site).is_some_and(|edits| edits.iter().any(takes))
    }

    /// Whether a run's scores or pattern are edited, taken from, or their gradient is wanted.
    fn opens(&self, site: Site, run: Run) -> bool {
        let wanted = || self.batch.program.gradients.iter().any(|g| g.run == run && g.site == site);
        self.edits_of(site, run).next().is_some() || self.gives(site, run) || self.is_tapped(site) && wanted()
    }
}

impl Hook for Pass<'_, '_> {
    fn wants(&self, site: Site) -> bool {
        self.batch.edits.contains_key(&site) || self.is_tapped(site)
    }

    fn at(&mut self, site: Site, acts: &mut Acts) -> Result<()> {
        let mut changes = Vec::new();
        for (run, edit) in self.batch.edits.get(&site).into_iter().flatten() {
            let take = |donor: Run, position: usize, _: &[Range<usize>]| {
                Ok(ops::RowChange::CopyRow(self.batch.row(donor, position)))
            };
            let first = self.batch.row(*run, 0);
            changes.extend(row_edits(edit, |p| Some(first + p), take)?);
        }
        let edited = ops::edit(acts.get(site.kind)?, &changes)?;
        let value = self.tapped(site, None, edited)?;
        acts.put(site.kind, value);
        Ok(())
    }

    fn opened(&self, layer: usize) -> Result<Vec<usize>> {
        let sites = [SiteKind::Scores.at(layer), SiteKind::Pattern.at(layer)];
        let opens = |i: &usize| sites.iter().any(|site| self.opens(*site, self.batch.runs[*i]));
        Ok((0..self.batch.runs.len()).filter(opens).collect())
    }

    fn at_opened(&mut self, site: Site, span: usize, value: Tensor) -> Result<Tensor> {
        let run = self.batch.runs[span];
        let (n, heads, keys) = value.dims3()?;
        let mut x = value.reshape((n, heads * keys))?;
        for edit in self.edits_of(site, run) {
            let take = |donor: Run, position: usize, columns: &[Range<usize>]| {
                Ok(ops::RowChange::Set(pick(self.opened_row(site, donor, position), columns).into()))
            };
            x = ops::edit(&x, &row_edits(edit, Some, take)?)?;
        }
        if self.gives(site, run) {
            self.opened.insert((run, site), ops::to_vec(&x)?);
        }
        self.tapped(site, Some(span), x)?.reshape((n, heads, keys))
    }

    fn stops(&mut self, layer: usize) -> Result<Vec<(usize, Vec<usize>)>> {
        let stopped = |run: &Run| self.stopped(SiteKind::State.at(layer), *run).into_iter().collect::<Vec<_>>();
        let each = self.batch.runs.iter().map(stopped).enumerate();
        Ok(each.filter(|(_, positions)| !positions.is_empty()).collect())
    }

    fn at_state(&mut self, site: Site, (span, position): (usize, usize), state: Tensor) -> Result<Tensor> {
        let run = self.batch.runs[span];
        let mut x = state;
        for edit in self.edits_of(site, run) {
            let take = |donor: Run, position: usize, columns: &[Range<usize>]| {
                Ok(ops::RowChange::Set(pick(&self.states[&(donor, position)], columns).into()))
            };
            x = ops::edit(&x, &row_edits(edit, |p| (p == position).then_some(0), take)?)?;
        }
        if self.gives(site, run) {
            self.states.insert((run, position), ops::to_vec(&x)?);
        }
        self.tapped(site, Some(self.batch.row(run, position)), x)
    }
}
