//! The reference engine: every prompt and fork by a whole forward pass, one after another.
//!
//! It shares the decoder with the wavefront and nothing of its bookkeeping: a run is its own prompt, all its edits are
//! made where they stand, and what later runs take from it or readouts read of it is kept until the end. Slow, and easy to
//! see right.

use super::attribution::Attributions;
use super::edits::row_edits;
use super::end::{self, Residuals};
use super::size::full_runs;
use super::writers::{Writers, add};
use super::{Found, Options, RunError, estimates, gradient, reading};
use crate::model::decoder::{Acts, Angles, Decoder, Hook};
use crate::ops::rows::{Rows, Span};
use crate::ops::{self, RowChange};
use crate::plan::{Exchanged, Placed, Program, Row, Run};
use crate::site::{Site, SiteKind};
use candle_core::{Result, Tensor};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Values kept of finished runs: `[positions, width]` each.
type Kept = HashMap<(Run, Site), Tensor>;

pub(super) fn run(decoder: &Decoder, program: &Program, options: &Options) -> std::result::Result<Found, RunError> {
    let (runs, depths) = (full_runs(program), program.depths());
    let angles = Angles::new(decoder, program.plan.prompts.iter().map(|p| p.ids.len()))?;
    let mut wanted: HashMap<Run, HashSet<Site>> = HashMap::new();
    let donors: HashSet<Run> = runs.iter().flat_map(|run| program.exchanges(*run)).map(|e| e.donor).collect();
    let written = runs.iter().copied().filter(|run| !program.exchanges(*run).is_empty());
    let mut writers = Writers::new(decoder, program, written.chain(donors.iter().copied()).collect());
    for edit in runs.iter().flat_map(|run| program.edits(*run)) {
        if let Some(donor) = edit.donor() {
            wanted.entry(donor).or_default().insert(edit.site);
        }
    }
    for read in &program.at_sites {
        wanted.entry(read.run).or_default().insert(read.site);
    }
    let (mut kept, mut ends, mut found) = (Kept::new(), Ends::of(program), Found::new());
    for run in runs {
        let mut hook = OneRun {
            decoder,
            program,
            run,
            edits: program.edits(run),
            exchanges: program.exchanges(run),
            writers: &mut writers,
            wanted: wanted.remove(&run).unwrap_or_default(),
            kept: &mut kept,
            attributions: Attributions::new(decoder, program, |r| r == run)?,
            states: Vec::new(),
        };
        let depth = depths[program.root(run)];
        let resid = hook.pass(&angles, depth)?;
        if let Some(attributions) = hook.attributions {
            let last = last_row(&resid)?.repeat((attributions.runs().count(), 1))?;
            found.extend(attributions.finish(&last)?);
        }
        ends.keep(run, &at_logits(&writers, run, &resid)?)?;
        if !donors.contains(&run) {
            // What a run of many adds is read in its own pass alone.
            writers.forget(run);
        }
        options.advance(program.length(run) * depth)?;
    }
    found.extend(end::read(decoder, program, &ends, options.budget)?);
    found.extend(gradient::read(decoder, program, options)?);
    found.extend(estimates::read(decoder, program, options)?);
    for read in &program.at_sites {
        let value = &kept[&(read.run, read.site)];
        let (width, values) = (value.dim(1)?, ops::to_vec(value)?);
        let rows = read.positions.iter().flat_map(|p| &values[p * width..(p + 1) * width]);
        let rows: Vec<f32> = rows.copied().collect();
        found.push((read.readout, reading::of_rows(&read.take, &rows, read.positions.len())));
    }
    Ok(found)
}

/// A run's last residual stream as the logits read it. `[positions, d_model]`
fn at_logits(writers: &Writers, run: Run, resid: &Tensor) -> Result<Tensor> {
    let mut edits = Vec::new();
    for row in 0..resid.dim(0)? {
        edits.extend(writers.at_logits(run, row)?.map(|more| add(row, more)));
    }
    ops::edit(resid, &edits)
}

/// The last residual streams of the rows that are read at the end.
struct Ends {
    /// The positions of each run that are read, ascending.
    positions: HashMap<Run, Vec<u32>>,
    /// Their rows, once their run is done. `[positions, d_model]`
    rows: HashMap<Run, Tensor>,
}

impl Ends {
    fn of(program: &Program) -> Self {
        let mut positions: HashMap<Run, Vec<u32>> = HashMap::new();
        for (run, position) in end::rows_read(program) {
            positions.entry(run).or_default().push(position as u32);
        }
        Ends { positions, rows: HashMap::new() }
    }

    /// Keeps what is read of a run's last residual stream, `[positions, d_model]`.
    fn keep(&mut self, run: Run, resid: &Tensor) -> Result<()> {
        if let Some(positions) = self.positions.get(&run) {
            let index = Tensor::new(positions.as_slice(), resid.device())?;
            self.rows.insert(run, resid.index_select(&index, 0)?);
        }
        Ok(())
    }
}

impl Residuals for Ends {
    fn rows(&self, rows: &[Row]) -> Result<Tensor> {
        let row = |(run, position): &Row| {
            let before = self.positions[run].partition_point(|p| (*p as usize) < *position);
            self.rows[run].narrow(0, before, 1)
        };
        Tensor::cat(&rows.iter().map(row).collect::<Result<Vec<_>>>()?, 0)
    }
}

/// One run's forward pass.
struct OneRun<'a, 'p> {
    decoder: &'a Decoder,
    program: &'a Program<'a>,
    run: Run,
    edits: Vec<&'a Placed<'a>>,
    exchanges: Vec<&'a Exchanged>,
    writers: &'a mut Writers<'p>,
    /// Sites to keep: those that are read, and that later runs take from.
    wanted: HashSet<Site>,
    kept: &'a mut Kept,
    attributions: Option<Attributions<'a>>,
    /// Those of the layer at hand, position by position.
    states: Vec<Tensor>,
}

/// `[1, width]`
fn last_row(x: &Tensor) -> Result<Tensor> {
    x.narrow(0, x.dim(0)? - 1, 1)
}

impl OneRun<'_, '_> {
    /// The pass through the first `depth` layers; returns the residual stream after them. `[positions, d_model]`
    fn pass(&mut self, angles: &Angles, depth: usize) -> Result<Tensor> {
        let ids = self.program.ids(self.run);
        let n = ids.len();
        let positions: Vec<u32> = (0..n as u32).collect();
        let entries = (0..n).map(|p| angles.entry(n, p)).collect();
        let rows = Rows { spans: vec![Span::new(0..n, 0, Vec::new())], entries };
        let decoder = self.decoder;
        let mut acts = decoder.begin((ids, &positions), rows, self)?;
        decoder.through(0..depth, |l| decoder.layer(l, angles, &mut acts, self))?;
        acts.take(SiteKind::ResidPre)
    }

    /// Makes this run's edits at a site, on `[positions, width]`.
    fn edited(&self, site: Site, x: &Tensor) -> Result<Tensor> {
        self.edited_rows(site, x, Some)
    }

    /// Makes this run's edits at a site on some of its rows.
    fn edited_rows(&self, site: Site, x: &Tensor, row: impl Fn(usize) -> Option<usize> + Copy) -> Result<Tensor> {
        let mut x = x.clone();
        // An interchange sets what the donor had, which is done.
        let take = |donor: Run, position: usize, columns: &[Range<usize>]| {
            let row = ops::to_vec(&self.kept[&(donor, site)].narrow(0, position, 1)?)?;
            Ok(RowChange::Set(reading::pick(&row, columns).into()))
        };
        for edit in self.edits.iter().filter(|e| e.site == site) {
            x = ops::edit(&x, &row_edits(edit, row, take)?)?;
        }
        Ok(x)
    }
}

impl Hook for OneRun<'_, '_> {
    fn wants(&self, site: Site) -> bool {
        self.wanted.contains(&site)
            || self.edits.iter().any(|e| e.site == site)
            || self.exchanges.iter().any(|e| e.readers.contains_key(&site))
            || self.writers.keeps(self.run) && self.writers.wants(site)
            || self.attributions.as_ref().is_some_and(|a| a.wants(site))
    }

    fn at(&mut self, site: Site, acts: &mut Acts) -> Result<()> {
        if !self.wants(site) {
            return Ok(());
        }
        let read: Vec<(Run, &Exchanged)> = self.exchanges.iter().map(|e| (self.run, *e)).collect();
        if let Some(value) = self.writers.read(site, acts, &read, |_, position| Some(position))? {
            acts.put(site.kind, value);
        }
        let value = self.edited(site, acts.get(site.kind)?)?;
        if self.writers.keeps(self.run) && self.writers.wants(site) {
            self.writers.keep(self.run, site, 0, &value)?;
        }
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

    fn stops(&mut self, layer: usize) -> Result<Vec<(usize, Vec<usize>)>> {
        let every = (0..self.program.length(self.run)).collect();
        Ok(if self.wants(SiteKind::State.at(layer)) { vec![(0, every)] } else { Vec::new() })
    }

    fn at_state(&mut self, site: Site, (_, position): (usize, usize), state: Tensor) -> Result<Tensor> {
        let state = self.edited_rows(site, &state, |p| (p == position).then_some(0))?;
        if self.wanted.contains(&site) {
            self.states.push(state.clone());
            if self.states.len() == self.program.length(self.run) {
                self.kept.insert((self.run, site), Tensor::cat(&std::mem::take(&mut self.states), 0)?);
            }
        }
        Ok(state)
    }
}
