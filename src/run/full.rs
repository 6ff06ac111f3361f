//! The reference engine: every prompt and fork by a whole forward pass, one after another.
//!
//! It shares the decoder with the wavefront and nothing of its bookkeeping: a run is its own prompt, all its edits are
//! made where they stand, and what later runs take from it or readouts read of it is kept until the end. Slow, and easy to
//! see right.

use super::attribution::Attributions;
use super::edits::row_change;
use super::head::{self, Residuals, Row, pick, project};
use super::size::full_runs;
use super::{Options, Reading, RunError, gradient};
use crate::model::decoder::{Acts, Angles, Decoder, Hook};
use crate::model::rows::{Rows, Span};
use crate::ops::{self, RowEdit};
use crate::plan::{Change, Edit, Part, Plan, Run, What, columns, resolve};
use crate::site::{Site, SiteKind};
use candle_core::{Result, Tensor};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// Values kept of finished runs: `[positions, width]` each.
type Kept = HashMap<(Run, Site), Tensor>;

pub(super) fn run(decoder: &Decoder, plan: &Plan, options: &Options) -> std::result::Result<Vec<Reading>, RunError> {
    let (runs, depths) = (full_runs(plan), plan.depths(decoder.arch.n_layers));
    let angles = Angles::new(decoder, plan.prompts.iter().map(|p| p.ids.len()))?;
    let mut wanted: HashMap<Run, HashSet<Site>> = HashMap::new();
    for run in &runs {
        for edit in plan.edits(*run) {
            if let Some(donor) = edit.change.donor() {
                wanted.entry(donor).or_default().insert(edit.site);
            }
        }
    }
    for readout in &plan.readouts {
        if let What::Activation { site, .. } | What::Projection { site, .. } = &readout.what {
            wanted.entry(readout.run).or_default().insert(*site);
        }
    }
    let (mut kept, mut ends) = (Kept::new(), Ends::of(plan));
    let mut readings: Vec<Option<Reading>> = vec![None; plan.readouts.len()];
    for run in runs {
        let mut hook = OneRun {
            decoder,
            plan,
            run,
            edits: plan.edits(run),
            wanted: wanted.remove(&run).unwrap_or_default(),
            kept: &mut kept,
            attributions: Attributions::new(decoder, plan, |r| r == run)?,
        };
        let depth = depths[plan.root(run)];
        let resid = hook.pass(&angles, depth)?;
        if let Some(attributions) = hook.attributions {
            let last = last_row(&resid)?.repeat((attributions.runs().count(), 1))?;
            attributions.finish(&last)?.into_iter().for_each(|(i, reading)| readings[i] = Some(reading));
        }
        ends.keep(run, &resid)?;
        (options.progress)((plan.length(run) * depth) as u64);
    }
    for (i, reading) in head::read(decoder, plan, &ends, options.budget)? {
        readings[i] = Some(reading);
    }
    for (i, reading) in gradient::read(decoder, plan, options)? {
        readings[i] = Some(reading);
    }
    for (i, reading) in readings.iter_mut().enumerate().filter(|(_, r)| r.is_none()) {
        *reading = Some(read(decoder, plan, i, &kept)?);
    }
    Ok(readings.into_iter().flatten().collect())
}

/// A reading of a site within the layers, from what was kept.
fn read(decoder: &Decoder, plan: &Plan, readout: usize, kept: &Kept) -> std::result::Result<Reading, RunError> {
    let r = &plan.readouts[readout];
    let (What::Activation { site, positions, .. } | What::Projection { site, positions, .. }) = &r.what else {
        return Err(candle_core::Error::Msg(format!("readout {readout} is of the end of the pass")).into());
    };
    let length = plan.length(r.run);
    let value = kept.get(&(r.run, *site)).ok_or_else(|| candle_core::Error::Msg(format!("`{site}` was not kept")))?;
    let (width, values) = (value.dim(1)?, ops::to_vec(value)?);
    let rows = resolve(positions, length).unwrap_or_default();
    let row = |p: &usize| &values[p * width..(p + 1) * width];
    if let What::Projection { direction, .. } = &r.what {
        let values = rows.iter().map(|p| project(row(p), direction)).collect();
        return Ok(Reading::Array { shape: vec![rows.len()], values });
    }
    let part = if let What::Activation { part, .. } = &r.what { part } else { &Part::All };
    let columns = columns(*site, part, &decoder.arch, length).map_err(candle_core::Error::wrap)?;
    let values = rows.iter().flat_map(|p| pick(row(p), &columns)).collect();
    Ok(Reading::Array { shape: vec![rows.len(), columns.iter().map(Range::len).sum()], values })
}

/// The last residual streams of the rows that are read at the end.
struct Ends {
    /// For each run its positions, ascending, and their rows, once it is done. `[positions, d_model]`
    rows: HashMap<Run, (Vec<u32>, Option<Tensor>)>,
}

impl Ends {
    fn of(plan: &Plan) -> Self {
        let mut rows: HashMap<Run, (Vec<u32>, Option<Tensor>)> = HashMap::new();
        for (run, position) in head::rows_read(plan) {
            rows.entry(run).or_default().0.push(position as u32);
        }
        Ends { rows }
    }

    /// Keeps what is read of a run's last residual stream, `[positions, d_model]`.
    fn keep(&mut self, run: Run, resid: &Tensor) -> Result<()> {
        if let Some((positions, kept)) = self.rows.get_mut(&run) {
            *kept = Some(resid.index_select(&Tensor::new(positions.as_slice(), resid.device())?, 0)?);
        }
        Ok(())
    }
}

impl Residuals for Ends {
    fn rows(&self, rows: &[Row]) -> Result<Tensor> {
        let row = |(run, position): &Row| {
            let (positions, kept) = self.rows.get(run)?;
            Some((positions.binary_search(&(*position as u32)).ok()?, kept.as_ref()?))
        };
        let row = |at: &Row| match row(at) {
            Some((i, kept)) => kept.narrow(0, i, 1),
            None => candle_core::bail!("position {} of {:?} was not kept", at.1, at.0),
        };
        Tensor::cat(&rows.iter().map(row).collect::<Result<Vec<_>>>()?, 0)
    }
}

/// One run's forward pass.
struct OneRun<'a> {
    decoder: &'a Decoder,
    plan: &'a Plan,
    run: Run,
    edits: Vec<&'a Edit>,
    /// Sites to keep: those that are read, and that later runs take from.
    wanted: HashSet<Site>,
    kept: &'a mut Kept,
    attributions: Option<Attributions<'a>>,
}

/// `[1, width]`
fn last_row(x: &Tensor) -> Result<Tensor> {
    x.narrow(0, x.dim(0)? - 1, 1)
}

impl OneRun<'_> {
    /// The pass through the first `depth` layers; returns the residual stream after them. `[positions, d_model]`
    fn pass(&mut self, angles: &Angles, depth: usize) -> Result<Tensor> {
        let ids = &self.plan.prompts[self.plan.root(self.run)].ids;
        let n = ids.len();
        let positions: Vec<u32> = (0..n as u32).collect();
        let entries = (0..n).map(|p| angles.entry(n, p)).collect();
        let rows = Rows { spans: vec![Span::new(0..n, 0, Vec::new())], entries };
        let mut acts = Acts::new(rows);
        acts.put(SiteKind::Embed, self.decoder.embed(ids, &positions)?);
        self.at(SiteKind::Embed.at(0), &mut acts)?;
        let embed = acts.take(SiteKind::Embed)?;
        acts.put(SiteKind::ResidPre, embed);
        let decoder = self.decoder;
        decoder.through(0..depth, |l| decoder.layer(l, angles, &mut acts, self))?;
        acts.take(SiteKind::ResidPre)
    }

    /// Makes this run's edits at a site, on `[positions, width]`.
    fn edited(&self, site: Site, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        let length = self.plan.length(self.run);
        for edit in self.edits.iter().filter(|e| e.site == site) {
            let positions = resolve(&edit.positions, length).map_err(candle_core::Error::Msg)?;
            let columns = columns(site, &edit.part, &self.decoder.arch, length).map_err(candle_core::Error::wrap)?;
            let columns: Arc<[Range<usize>]> = columns.into();
            let row_edits = match &edit.change {
                Change::Interchange { donor, positions: from } => {
                    let from = self.plan.donor_positions(edit, *donor, from.as_deref(), length);
                    self.taken(site, *donor, &from.map_err(candle_core::Error::Msg)?, &positions, &columns)?
                }
                change => {
                    let one =
                        |p: &usize| RowEdit { row: *p, columns: columns.clone(), change: row_change(change, None) };
                    positions.iter().map(one).collect()
                }
            };
            x = ops::edit(&x, &row_edits)?;
        }
        Ok(x)
    }

    /// An interchange as edits that set what the donor had.
    fn taken(
        &self,
        site: Site,
        donor: Run,
        from: &[usize],
        to: &[usize],
        columns: &Arc<[Range<usize>]>,
    ) -> Result<Vec<RowEdit>> {
        let Some(value) = self.kept.get(&(donor, site)) else {
            candle_core::bail!("`{site}` of {donor:?} was not kept")
        };
        let each = from.iter().zip(to).map(|(from, to)| {
            let row = ops::to_vec(&value.narrow(0, *from, 1)?)?;
            let values: Arc<[f32]> = pick(&row, columns).into();
            Ok(RowEdit { row: *to, columns: columns.clone(), change: ops::RowChange::Set(values) })
        });
        each.collect()
    }
}

impl Hook for OneRun<'_> {
    fn wants(&self, site: Site) -> bool {
        self.wanted.contains(&site)
            || self.edits.iter().any(|e| e.site == site)
            || self.attributions.as_ref().is_some_and(|a| a.wants(site))
    }

    fn at(&mut self, site: Site, acts: &mut Acts) -> Result<()> {
        if !self.wants(site) {
            return Ok(());
        }
        let value = self.edited(site, acts.get(site.kind)?)?;
        if self.wanted.contains(&site) {
            self.kept.insert((self.run, site), value.clone());
        }
        if let Some(attributions) = self.attributions.as_mut().filter(|a| a.wants(site)) {
            let n = attributions.runs().count();
            attributions.at(site, &last_row(&value)?.repeat((n, 1))?)?;
        }
        acts.put(site.kind, value);
        Ok(())
    }

    fn opened(&self, layer: usize) -> Result<Vec<usize>> {
        let wanted = self.wants(SiteKind::Scores.at(layer)) || self.wants(SiteKind::Pattern.at(layer));
        Ok(if wanted { vec![0] } else { Vec::new() })
    }

    fn at_opened(&mut self, site: Site, _span: usize, value: Tensor) -> Result<Tensor> {
        if !self.wants(site) {
            return Ok(value);
        }
        let (n, heads, keys) = value.dims3()?;
        let flat = self.edited(site, &value.reshape((n, heads * keys))?)?;
        if self.wanted.contains(&site) {
            self.kept.insert((self.run, site), flat.clone());
        }
        flat.reshape((n, heads, keys))
    }
}
