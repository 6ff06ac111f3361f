//! The wavefront engine: every prompt and every fork of it through layer 0, then every one through layer 1, and so on.
//!
//! A fork gets rows where its first edit is, copied from its base, for the positions that the edit can reach
//! ([`super::cone`]); the positions before them it reads from its base, which is in the same matrix. What an interchange
//! takes is in hand where it is needed, because donor and fork are at the same site at the same time. Nothing outlives
//! its layer but the residual streams.
//!
//! Runs that have nothing to do with each other (pairs of a dataset) are run in batches within each layer, so that the
//! widest activation of a batch, not of the sweep, is what takes memory.

use super::attribution::Attributions;
use super::batches::{self, Runs, Set};
use super::cone::{Cone, cones};
use super::edits::row_edits;
use super::generate::Cache;
use super::head::{self, Residuals, Row, pick, project};
use super::{Options, Reading, RunError, gradient};
use crate::model::decoder::{Acts, Angles, Decoder, Hook};
use crate::model::rows::{Rows, Span};
use crate::ops::{self, RowChange, RowEdit};
use crate::plan::{Change, Edit, Plan, Run, What, columns, resolve};
use crate::site::{Site, SiteKind};
use candle_core::{Result, Tensor};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

pub(super) fn run(decoder: &Decoder, plan: &Plan, options: &Options) -> std::result::Result<Vec<Reading>, RunError> {
    let angles = Angles::new(decoder, plan.prompts.iter().map(|p| p.ids.len()))?;
    run_keeping(decoder, plan, options, &angles, None)
}

/// [`run`] with angles at hand, which leaves keys and values in a cache.
pub(super) fn run_keeping(
    decoder: &Decoder,
    plan: &Plan,
    options: &Options,
    angles: &Angles,
    cache: Option<&Cache>,
) -> std::result::Result<Vec<Reading>, RunError> {
    let arch = &decoder.arch;
    let cones = cones(plan, arch);
    // Three activations of the widest site stand side by side in a gated MLP.
    let rows = |width: usize| (options.budget / (3 * 4 * width.max(1))).max(1);
    let sweep = Sweep { decoder, plan, angles, cones: &cones, cache, mlp_rows: rows(arch.d_mlp) };
    let mut readings: Vec<Option<Reading>> = vec![None; plan.readouts.len()];
    let mut batches = batches::batches(plan, arch.n_layers, &cones, rows(batches::widest(plan, arch)))
        .into_iter()
        .map(|set| Batch::begin(sweep, set))
        .collect::<Result<Vec<_>>>()?;
    let deepest = batches.iter().map(|batch| batch.depth).max().unwrap_or(0);
    decoder.through(0..deepest, |l| {
        for batch in batches.iter_mut().filter(|batch| l < batch.depth) {
            batch.layer(l)?;
            (options.progress)(batch.acts.rows.len() as u64);
        }
        Result::Ok(())
    })?;
    for batch in &mut batches {
        batch.finish()?;
        for (i, reading) in batch.state.readings.drain(..) {
            readings[i] = Some(reading);
        }
    }
    for (i, reading) in head::read(decoder, plan, &Ends::new(sweep, &batches), options.budget)? {
        readings[i] = Some(reading);
    }
    drop(batches);
    for (i, reading) in gradient::read(decoder, plan, options)? {
        readings[i] = Some(reading);
    }
    let n = readings.len();
    let found: Vec<Reading> = readings.into_iter().flatten().collect();
    if found.len() != n {
        return Err(candle_core::Error::Msg(format!("{} of {n} readouts were not reached", n - found.len())).into());
    }
    Ok(found)
}

/// What all batches share.
#[derive(Clone, Copy)]
struct Sweep<'a> {
    decoder: &'a Decoder,
    plan: &'a Plan,
    angles: &'a Angles,
    /// One a fork.
    cones: &'a [Cone],
    /// Where keys and values of some runs are kept.
    cache: Option<&'a Cache>,
    /// How many rows may be inside an MLP at once.
    mlp_rows: usize,
}

/// Runs that go through each layer together.
struct Batch<'a> {
    /// How many layers they go through, from the first.
    depth: usize,
    acts: Acts,
    state: State<'a>,
}

/// Where the runs of a batch are, and what is done at each site.
struct State<'a> {
    sweep: Sweep<'a>,
    runs: Runs,
    /// The rows and first position of each run that has rows.
    spans: HashMap<Run, Span>,
    /// The runs of `acts.rows.spans`, in their order.
    order: Vec<Run>,
    /// Edits that hold in each fork, by site: its own and those of the runs it descends from.
    edits: HashMap<Site, Vec<(Run, &'a Edit)>>,
    /// Forks by the site at which they part from their base.
    joins: HashMap<Site, Vec<Run>>,
    reads: HashMap<Site, Vec<usize>>,
    readings: Vec<(usize, Reading)>,
    attributions: Option<Attributions<'a>>,
    /// Scores and patterns of the layer at hand that are read or taken from, `[span rows, n_heads * keys]` on the host.
    opened: HashMap<(Run, Site), Vec<f32>>,
}

impl<'a> Batch<'a> {
    /// The embeddings of a batch's prompts, with what is edited and read there.
    fn begin(sweep: Sweep<'a>, set: Set) -> Result<Self> {
        let mut state = State::new(sweep, set.runs)?;
        let prompts: Vec<usize> =
            state.runs.iter().filter_map(|r| if let Run::Prompt(p) = r { Some(*p) } else { None }).collect();
        let ranges: Vec<(Run, Range<usize>)> =
            prompts.iter().map(|p| (Run::Prompt(*p), 0..sweep.plan.prompts[*p].ids.len())).collect();
        let ids: Vec<u32> = prompts.iter().flat_map(|p| sweep.plan.prompts[*p].ids.iter().copied()).collect();
        let positions: Vec<u32> = ranges.iter().flat_map(|(_, r)| r.clone().map(|p| p as u32)).collect();
        let mut acts = Acts::new(state.lay_out(&ranges));
        acts.put(SiteKind::Embed, sweep.decoder.embed(&ids, &positions)?);
        state.at(SiteKind::Embed.at(0), &mut acts)?;
        let embed = acts.take(SiteKind::Embed)?;
        acts.put(SiteKind::ResidPre, embed);
        Ok(Batch { depth: set.depth, acts, state })
    }

    fn layer(&mut self, l: usize) -> Result<()> {
        self.state.grow(l, &mut self.acts)?;
        self.state.sweep.decoder.layer(l, self.state.sweep.angles, &mut self.acts, &mut self.state)?;
        self.state.opened.clear();
        Ok(())
    }
}

impl Batch<'_> {
    /// At the end: the readings that need the whole pass.
    fn finish(&mut self) -> Result<()> {
        let Some(attributions) = self.state.attributions.take() else { return Ok(()) };
        let resid = self.state.last_rows(&attributions, self.acts.get(SiteKind::ResidPre)?)?;
        self.state.readings.extend(attributions.finish(&resid)?);
        Ok(())
    }
}

impl<'a> State<'a> {
    fn new(sweep: Sweep<'a>, runs: Runs) -> Result<Self> {
        let (mut edits, mut joins): (HashMap<Site, Vec<_>>, HashMap<Site, Vec<_>>) = Default::default();
        let members: HashSet<Run> = runs.iter().copied().collect();
        for run in &runs {
            let Run::Fork(f) = run else { continue };
            joins.entry(joining_site(sweep, sweep.cones[*f].join)).or_default().push(*run);
            for edit in sweep.plan.edits(*run) {
                edits.entry(edit.site).or_default().push((*run, edit));
            }
        }
        let mut reads: HashMap<Site, Vec<usize>> = HashMap::new();
        for (i, readout) in sweep.plan.readouts.iter().enumerate().filter(|(_, r)| members.contains(&r.run)) {
            if let What::Activation { site, .. } | What::Projection { site, .. } = &readout.what
                && !head::is_of_the_end(&readout.what)
            {
                reads.entry(*site).or_default().push(i);
            }
        }
        Ok(State {
            attributions: Attributions::new(sweep.decoder, sweep.plan, |run| members.contains(&run))?,
            sweep,
            runs,
            spans: HashMap::new(),
            order: Vec::new(),
            edits,
            joins,
            reads,
            readings: Vec::new(),
            opened: HashMap::new(),
        })
    }

    /// The run whose rows hold a position of `run`: itself, or the nearest of those that it descends from.
    fn owner(&self, mut run: Run, position: usize) -> Result<(Run, usize)> {
        loop {
            if let Some(span) = self.spans.get(&run)
                && position >= span.start
                && position < span.keys()
            {
                return Ok((run, span.rows.start + position - span.start));
            }
            match run {
                Run::Fork(f) => run = self.sweep.plan.forks[f].base,
                Run::Prompt(p) => candle_core::bail!("prompt {p} has no row for position {position}"),
            }
        }
    }

    /// Gives runs their rows, in this order, and says what the rows are.
    fn lay_out(&mut self, ranges: &[(Run, Range<usize>)]) -> Rows {
        self.spans.clear();
        self.order = ranges.iter().map(|(run, _)| *run).collect();
        let mut at = 0;
        for (run, positions) in ranges {
            let rows = at..at + positions.len();
            at = rows.end;
            self.spans.insert(*run, Span::new(rows, positions.start, Vec::new()));
        }
        let mut rows = Rows { spans: Vec::with_capacity(ranges.len()), entries: Vec::with_capacity(at) };
        for (run, positions) in ranges {
            let length = self.sweep.plan.length(*run);
            rows.entries.extend(positions.clone().map(|p| self.sweep.angles.entry(length, p)));
            let own = &self.spans[run];
            let prefix = self.prefix(*run, positions.start);
            rows.spans.push(Span::new(own.rows.clone(), own.start, prefix));
        }
        rows
    }

    /// The rows that hold positions `0..end` of what a run forks from, in order.
    fn prefix(&self, run: Run, end: usize) -> Vec<Range<usize>> {
        let (mut pieces, mut at, mut end) = (Vec::new(), run, end);
        while let (Run::Fork(f), true) = (at, end > 0) {
            at = self.sweep.plan.forks[f].base;
            if let Some(span) = self.spans.get(&at)
                && span.start < end
                && span.keys() >= end
            {
                pieces.push(span.rows.start..span.rows.start + end - span.start);
                end = span.start;
            }
        }
        pieces.reverse();
        pieces
    }

    /// Lays the rows out anew, each copied from where it was or from the run that it parts from.
    fn relayout(&mut self, ranges: &[(Run, Range<usize>)], acts: &mut Acts) -> Result<()> {
        let each = ranges.iter().flat_map(|(run, positions)| positions.clone().map(move |p| (*run, p)));
        let from = each.map(|(run, p)| self.owner(run, p).map(|(_, row)| row as u32)).collect::<Result<Vec<_>>>()?;
        let rows = self.lay_out(ranges);
        acts.gather(rows, &from)
    }

    /// The positions of each run that has rows now, and of those that `more` adds, in the order of runs.
    fn ranges(&self, layer: usize, more: &[Run]) -> Vec<(Run, Range<usize>)> {
        let more: HashSet<&Run> = more.iter().collect();
        let has_rows = |run: &&Run| self.spans.contains_key(run) || more.contains(run);
        let range = |run: &Run| match run {
            Run::Prompt(p) => (*run, 0..self.sweep.plan.prompts[*p].ids.len()),
            Run::Fork(f) => (*run, self.sweep.cones[*f].start..self.sweep.cones[*f].ends[layer] as usize),
        };
        self.runs.iter().filter(has_rows).map(range).collect()
    }

    /// At the beginning of a layer: forks grow as far as their edits reach in it.
    fn grow(&mut self, layer: usize, acts: &mut Acts) -> Result<()> {
        let ranges = self.ranges(layer, &[]);
        let same = |(run, range): &(Run, Range<usize>)| self.spans.get(run).is_some_and(|s| s.keys() == range.end);
        if ranges.iter().all(same) { Ok(()) } else { self.relayout(&ranges, acts) }
    }

    /// The forks that part from their bases here get rows.
    fn join(&mut self, site: Site, acts: &mut Acts) -> Result<()> {
        let Some(joining) = self.joins.remove(&site) else { return Ok(()) };
        let ranges = self.ranges(if site.kind.in_layers() { site.layer } else { 0 }, &joining);
        self.relayout(&ranges, acts)
    }

    /// Makes the edits of all forks at a site.
    fn edit(&self, site: Site, x: &Tensor) -> Result<Tensor> {
        let mut edits = Vec::new();
        for (run, edit) in self.edits.get(&site).into_iter().flatten() {
            // A fork that has not parted from its base yet shares its base's rows, which have this edit.
            let Some(span) = self.spans.get(run) else { continue };
            let take = |donor: Run, p: usize, _: &[Range<usize>]| Ok(RowChange::CopyRow(self.owner(donor, p)?.1));
            edits.extend(self.row_edits(*run, edit, span, span.rows.start, take)?);
        }
        ops::edit(x, &edits)
    }

    /// One edit as changes to rows, the first of the fork's span being row `first`. Positions outside the span are its base's,
    /// which has that edit too.
    fn row_edits(
        &self,
        run: Run,
        edit: &Edit,
        span: &Span,
        first: usize,
        take: impl Fn(Run, usize, &[Range<usize>]) -> Result<RowChange>,
    ) -> Result<Vec<RowEdit>> {
        let row = |p: usize| (span.start..span.keys()).contains(&p).then(|| first + p - span.start);
        row_edits(self.sweep.plan, &self.sweep.decoder.arch, run, edit, row, take)
    }

    /// Takes the readings of a site.
    fn read(&mut self, site: Site, x: &Tensor) -> Result<()> {
        let Some(readouts) = self.reads.get(&site) else { return Ok(()) };
        for i in readouts.clone() {
            let run = self.sweep.plan.readouts[i].run;
            let rows = self.positions_read(i)?.iter().map(|p| self.owner(run, *p)).collect::<Result<Vec<_>>>()?;
            let index: Vec<u32> = rows.iter().map(|(_, row)| *row as u32).collect();
            let values = ops::to_vec(&x.index_select(&Tensor::new(index, x.device())?, 0)?)?;
            let reading = self.reading(i, site, &values, rows.len())?;
            self.readings.push((i, reading));
        }
        Ok(())
    }

    /// Takes what attributions read of a site.
    fn attribute(&mut self, site: Site, x: &Tensor) -> Result<()> {
        let Some(mut attributions) = self.attributions.take_if(|a| a.wants(site)) else { return Ok(()) };
        let value = self.last_rows(&attributions, x)?;
        attributions.at(site, &value)?;
        self.attributions = Some(attributions);
        Ok(())
    }

    /// The last rows of the runs that attributions are read of.
    fn last_rows(&self, attributions: &Attributions, x: &Tensor) -> Result<Tensor> {
        let row = |run: Run| Ok(self.owner(run, self.sweep.plan.length(run) - 1)?.1 as u32);
        let rows = attributions.runs().map(row).collect::<Result<Vec<u32>>>()?;
        x.index_select(&Tensor::new(rows, x.device())?, 0)
    }

    fn positions_read(&self, readout: usize) -> Result<Vec<usize>> {
        let r = &self.sweep.plan.readouts[readout];
        match &r.what {
            What::Activation { positions, .. } | What::Projection { positions, .. } => {
                resolve(positions, self.sweep.plan.length(r.run)).map_err(candle_core::Error::Msg)
            }
            _ => candle_core::bail!("readout {readout} is of the end of the pass"),
        }
    }

    /// A readout's reading of `n` whole rows.
    fn reading(&self, readout: usize, site: Site, values: &[f32], n: usize) -> Result<Reading> {
        let r = &self.sweep.plan.readouts[readout];
        let rows = values.chunks_exact((values.len() / n.max(1)).max(1));
        match &r.what {
            What::Activation { part, .. } => {
                let keys = self.sweep.plan.length(r.run);
                let columns = columns(site, part, &self.sweep.decoder.arch, keys).map_err(candle_core::Error::wrap)?;
                let wide = columns.iter().map(Range::len).sum();
                Ok(Reading::Array { shape: vec![n, wide], values: rows.flat_map(|row| pick(row, &columns)).collect() })
            }
            What::Projection { direction, .. } => {
                Ok(Reading::Array { shape: vec![n], values: rows.map(|row| project(row, direction)).collect() })
            }
            _ => candle_core::bail!("readout {readout} is of the end of the pass"),
        }
    }

    /// The runs whose scores or patterns are edited, taken from or read in a layer.
    fn opened_runs(&self, layer: usize) -> Result<HashSet<Run>> {
        let mut found = HashSet::new();
        for site in [SiteKind::Scores.at(layer), SiteKind::Pattern.at(layer)] {
            for (run, edit) in self.edits.get(&site).into_iter().flatten() {
                found.insert(*run);
                if let Change::Interchange { donor, positions } = &edit.change {
                    let keys = self.sweep.plan.length(*run);
                    let from = self.sweep.plan.donor_positions(edit, *donor, positions.as_deref(), keys);
                    for p in from.map_err(candle_core::Error::Msg)? {
                        found.insert(self.owner(*donor, p)?.0);
                    }
                }
            }
            for i in self.reads.get(&site).into_iter().flatten() {
                for p in self.positions_read(*i)? {
                    found.insert(self.owner(self.sweep.plan.readouts[*i].run, p)?.0);
                }
            }
        }
        Ok(found)
    }

    /// Leaves keys and values in the cache. What a fork has no rows for here is its base's.
    fn keep(&self, cache: &Cache, layer: usize, keys: &Tensor, values: &Tensor) -> Result<()> {
        for run in &self.runs {
            let Some(kept) = cache.kept(*run) else { continue };
            let owners = kept.positions.clone().map(|p| self.owner(*run, p).map(|(_, row)| row));
            let rows = owners.collect::<Result<Vec<usize>>>()?;
            let mut slot = kept.slot;
            for rows in rows.chunk_by(|a, b| a + 1 == *b) {
                let part = |x: &Tensor| x.narrow(0, rows[0], rows.len());
                cache.put(layer, slot, &part(keys)?, &part(values)?)?;
                slot += rows.len();
            }
        }
        Ok(())
    }

    /// Whether opened scores or patterns are read, or taken from.
    fn is_taken(&self, site: Site) -> bool {
        let taken = |(_, edit): &(Run, &Edit)| edit.change.donor().is_some();
        self.reads.contains_key(&site) || self.edits.get(&site).is_some_and(|edits| edits.iter().any(taken))
    }

    /// A row of the layer's opened scores or pattern.
    fn opened_row(&self, site: Site, run: Run, position: usize) -> Result<&[f32]> {
        let (owner, _) = self.owner(run, position)?;
        let width = self.sweep.decoder.arch.n_heads * self.sweep.plan.length(run);
        let at = (position - self.spans[&owner].start) * width;
        let rows = self.opened.get(&(owner, site)).and_then(|rows| rows.get(at..at + width));
        rows.ok_or_else(|| candle_core::Error::Msg(format!("`{site}` of {owner:?} was not opened")))
    }

    /// One fork's edits of scores or pattern, on its span's rows.
    fn edit_opened(&self, site: Site, run: Run, mut x: Tensor) -> Result<Tensor> {
        let own = |e: &&(Run, &Edit)| e.0 == run;
        for (_, edit) in self.edits.get(&site).into_iter().flatten().filter(own) {
            let take = |donor: Run, p: usize, columns: &[Range<usize>]| {
                Ok(RowChange::Set(pick(self.opened_row(site, donor, p)?, columns).into()))
            };
            x = ops::edit(&x, &self.row_edits(run, edit, &self.spans[&run], 0, take)?)?;
        }
        Ok(x)
    }
}

/// Where a fork gets its rows: at its first edit; before the attention, if that is of scores or pattern.
fn joining_site(sweep: Sweep, site: Site) -> Site {
    match site.kind {
        SiteKind::Scores | SiteKind::Pattern if sweep.decoder.arch.ropes.is_empty() => SiteKind::V.at(site.layer),
        SiteKind::Scores | SiteKind::Pattern => SiteKind::RotK.at(site.layer),
        _ => site,
    }
}

impl Hook for State<'_> {
    fn most_rows(&self) -> usize {
        self.sweep.mlp_rows
    }

    fn wants(&self, site: Site) -> bool {
        self.edits.contains_key(&site)
            || self.reads.contains_key(&site)
            || self.joins.contains_key(&site)
            || self.attributions.as_ref().is_some_and(|a| a.wants(site))
    }

    fn at(&mut self, site: Site, acts: &mut Acts) -> Result<()> {
        self.join(site, acts)?;
        if self.edits.contains_key(&site) {
            let edited = self.edit(site, acts.get(site.kind)?)?;
            acts.put(site.kind, edited);
        }
        if self.reads.contains_key(&site) {
            self.read(site, &acts.get(site.kind)?.clone())?;
        }
        self.attribute(site, acts.get(site.kind)?)
    }

    fn keys_values(&mut self, layer: usize, keys: Tensor, values: Tensor) -> Result<(Tensor, Tensor)> {
        if let Some(cache) = self.sweep.cache {
            self.keep(cache, layer, &keys, &values)?;
        }
        Ok((keys, values))
    }

    fn opened(&self, layer: usize) -> Result<Vec<usize>> {
        let runs = self.opened_runs(layer)?;
        Ok((0..self.order.len()).filter(|i| runs.contains(&self.order[*i])).collect())
    }

    fn at_opened(&mut self, site: Site, span: usize, value: Tensor) -> Result<Tensor> {
        let run = self.order[span];
        let (n, heads, keys) = value.dims3()?;
        let flat = self.edit_opened(site, run, value.reshape((n, heads * keys))?)?;
        if self.is_taken(site) {
            self.opened.insert((run, site), ops::to_vec(&flat)?);
        }
        // Spans come in the order of runs: all that a later one takes from, or that is read, is in hand at the last.
        for i in self.reads.get(&site).cloned().unwrap_or_default() {
            let reader = self.sweep.plan.readouts[i].run;
            let positions = self.positions_read(i)?;
            let owners = positions.iter().map(|p| self.owner(reader, *p)).collect::<Result<Vec<_>>>()?;
            if owners.iter().map(|(owner, _)| *owner).max() != Some(run) {
                continue;
            }
            let rows = positions.iter().map(|p| self.opened_row(site, reader, *p).map(<[f32]>::to_vec));
            let values: Vec<f32> = rows.collect::<Result<Vec<_>>>()?.concat();
            let reading = self.reading(i, site, &values, positions.len())?;
            self.readings.push((i, reading));
        }
        flat.reshape((n, heads, keys))
    }
}

/// The last residual streams of all batches.
struct Ends<'a, 'b> {
    batches: &'b [Batch<'a>],
    /// The batch of each prompt.
    of_prompt: HashMap<usize, usize>,
    plan: &'a Plan,
}

impl<'a, 'b> Ends<'a, 'b> {
    fn new(sweep: Sweep<'a>, batches: &'b [Batch<'a>]) -> Self {
        let prompts = |(b, batch): (usize, &Batch)| -> Vec<(usize, usize)> {
            batch.state.runs.iter().filter_map(|r| if let Run::Prompt(p) = r { Some((*p, b)) } else { None }).collect()
        };
        let of_prompt = batches.iter().enumerate().flat_map(prompts).collect();
        Ends { batches, of_prompt, plan: sweep.plan }
    }
}

impl Residuals for Ends<'_, '_> {
    fn rows(&self, rows: &[Row]) -> Result<Tensor> {
        let mut found: Vec<(usize, u32)> = Vec::with_capacity(rows.len());
        for (run, position) in rows {
            let batch = self.of_prompt[&self.plan.root(*run)];
            found.push((batch, self.batches[batch].state.owner(*run, *position)?.1 as u32));
        }
        // Rows of one batch that follow each other are taken together.
        let mut parts = Vec::new();
        for part in found.chunk_by(|a, b| a.0 == b.0) {
            let resid = self.batches[part[0].0].acts.get(SiteKind::ResidPre)?;
            let index: Vec<u32> = part.iter().map(|(_, row)| *row).collect();
            parts.push(resid.index_select(&Tensor::new(index, resid.device())?, 0)?);
        }
        Tensor::cat(&parts, 0)
    }
}
