//! The wavefront engine: every prompt and every fork of it through layer 0, then every one through layer 1, and so on.
//!
//! A fork gets rows where its first edit is, copied from its base, for the positions that the edit can reach
//! ([`super::cone`]); the positions before them it reads from its base, which is in the same matrix. What an interchange
//! takes is in hand where it is needed, because donor and fork are at the same site at the same time. Nothing outlives
//! its layer but the residual streams, and what else later layers read: keys and values that several layers share, and the
//! embedding where layers read it. A fork that gets rows later takes these over from its base like its stream, which
//! they equal up to where it parts.
//!
//! Runs that have nothing to do with each other (pairs of a dataset) are run in batches within each layer, so that the
//! widest activation of a batch, not of the sweep, is what takes memory.

use super::attribution::Attributions;
use super::batches::{self, Runs, Set};
use super::edits::row_edits;
use super::end::{self, Residuals};
use super::generate::Cache;
use super::writers::{Writers, add};
use super::{Found, Options, RunError, estimates, gradient, reading};
use crate::model::decoder::{Acts, Angles, Decoder, Hook};
use crate::ops::rows::{Rows, Span};
use crate::ops::{self, RowChange, RowEdit};
use crate::plan::{Exchanged, Made, Placed, Program, Row, Run, SiteReadout};
use crate::site::{Site, SiteKind};
use candle_core::{Result, Tensor};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

pub(super) fn run(decoder: &Decoder, program: &Program, options: &Options) -> std::result::Result<Found, RunError> {
    let angles = Angles::new(decoder, program.plan.prompts.iter().map(|p| p.ids.len()))?;
    run_keeping(decoder, program, options, &angles, None)
}

/// [`run`] with angles at hand, which leaves keys and values in a cache.
pub(super) fn run_keeping(
    decoder: &Decoder,
    program: &Program,
    options: &Options,
    angles: &Angles,
    cache: Option<&Cache>,
) -> std::result::Result<Found, RunError> {
    // Three activations of the widest site stand side by side in a gated MLP.
    let rows = |width: usize| (options.budget / (3 * 4 * width.max(1))).max(1);
    let sweep = Sweep { decoder, program, angles, cache, mlp_rows: rows(decoder.arch.d_mlp) };
    let mut batches = batches::batches(program, rows(batches::widest(program)))
        .into_iter()
        .map(|set| Batch::begin(sweep, set))
        .collect::<Result<Vec<_>>>()?;
    let deepest = batches.iter().map(|batch| batch.depth).max().unwrap_or(0);
    decoder.through(0..deepest, |l| {
        for batch in batches.iter_mut().filter(|batch| l < batch.depth) {
            batch.layer(l)?;
            options.advance(batch.acts.rows.len())?;
        }
        Result::Ok(())
    })?;
    let mut found = Found::new();
    for batch in &mut batches {
        batch.finish()?;
        found.append(&mut batch.state.found);
    }
    found.extend(end::read(decoder, program, &Ends::new(sweep, &batches), options.budget)?);
    drop(batches);
    found.extend(gradient::read(decoder, program, options)?);
    found.extend(estimates::read(decoder, program, options)?);
    Ok(found)
}

/// What all batches share.
#[derive(Clone, Copy)]
struct Sweep<'a> {
    decoder: &'a Decoder,
    program: &'a Program<'a>,
    angles: &'a Angles,
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
    edits: HashMap<Site, Vec<(Run, &'a Placed<'a>)>>,
    /// Forks by the site at which they part from their base.
    joins: HashMap<Site, Vec<Run>>,
    reads: HashMap<Site, Vec<&'a SiteReadout<'a>>>,
    found: Found,
    attributions: Option<Attributions<'a>>,
    /// Runs by the sites at which they read what is another's.
    exchanges: HashMap<Site, Vec<(Run, &'a Exchanged)>>,
    writers: Writers<'a>,
    /// Scores and patterns of the layer at hand that are read or taken from, `[span rows, n_heads * keys]` on the host.
    opened: HashMap<(Run, Site), Vec<f32>>,
    /// States of the layer at hand that are read or taken from, after these positions of the runs that have rows for them, as far as
    /// they are in hand.
    states: HashMap<Row, Option<Vec<f32>>>,
}

impl<'a> Batch<'a> {
    /// The embeddings of a batch's prompts, with what is edited and read there.
    fn begin(sweep: Sweep<'a>, set: Set) -> Result<Self> {
        let mut state = State::new(sweep, set.runs)?;
        let prompts = state.runs.iter().filter(|run| matches!(run, Run::Prompt(_)));
        let ranges: Vec<(Run, Range<usize>)> = prompts.map(|run| (*run, 0..sweep.program.length(*run))).collect();
        let ids: Vec<u32> = ranges.iter().flat_map(|(run, _)| sweep.program.ids(*run)).copied().collect();
        let positions: Vec<u32> = ranges.iter().flat_map(|(_, r)| r.clone().map(|p| p as u32)).collect();
        let rows = state.lay_out(&ranges);
        let acts = sweep.decoder.begin((&ids, &positions), rows, &mut state)?;
        Ok(Batch { depth: set.depth, acts, state })
    }

    fn layer(&mut self, l: usize) -> Result<()> {
        self.state.grow(l, &mut self.acts)?;
        self.state.sweep.decoder.layer(l, self.state.sweep.angles, &mut self.acts, &mut self.state)?;
        self.state.opened.clear();
        self.state.states.clear();
        Ok(())
    }
}

impl Batch<'_> {
    /// At the end: the readings that need the whole pass.
    fn finish(&mut self) -> Result<()> {
        let Some(attributions) = self.state.attributions.take() else { return Ok(()) };
        let resid = self.state.last_rows(&attributions, self.acts.get(SiteKind::ResidPre)?)?;
        self.state.found.extend(attributions.finish(&resid)?);
        Ok(())
    }
}

impl<'a> State<'a> {
    fn new(sweep: Sweep<'a>, runs: Runs) -> Result<Self> {
        let (mut edits, mut joins): (HashMap<Site, Vec<_>>, HashMap<Site, Vec<_>>) = Default::default();
        let members: HashSet<Run> = runs.iter().copied().collect();
        for run in &runs {
            let Run::Fork(f) = run else { continue };
            joins.entry(joining_site(sweep, sweep.program.cone(*f).join)).or_default().push(*run);
            for edit in sweep.program.edits(*run) {
                edits.entry(edit.site).or_default().push((*run, edit));
            }
        }
        let mut exchanges: HashMap<Site, Vec<(Run, &Exchanged)>> = HashMap::new();
        for run in &runs {
            for exchange in sweep.program.exchanges(*run) {
                exchange.readers.keys().for_each(|site| exchanges.entry(*site).or_default().push((*run, exchange)));
            }
        }
        let written = sweep.program.written().into_iter().filter(|run| members.contains(run)).collect();
        let mut reads: HashMap<Site, Vec<&SiteReadout>> = HashMap::new();
        for read in sweep.program.at_sites.iter().filter(|read| members.contains(&read.run)) {
            reads.entry(read.site).or_default().push(read);
        }
        Ok(State {
            attributions: Attributions::new(sweep.decoder, sweep.program, |run| members.contains(&run))?,
            exchanges,
            writers: Writers::new(sweep.decoder, sweep.program, written),
            sweep,
            runs,
            spans: HashMap::new(),
            order: Vec::new(),
            edits,
            joins,
            reads,
            found: Found::new(),
            opened: HashMap::new(),
            states: HashMap::new(),
        })
    }

    /// The run whose rows hold a position of `run`, itself or the nearest of those that it descends from, and the row. A prompt
    /// has all its rows throughout.
    fn owner(&self, run: Run, position: usize) -> (Run, usize) {
        let has = |run: &Run| self.spans.get(run).is_some_and(|s| (s.start..s.keys()).contains(&position));
        let lineage = std::iter::successors(Some(run), |run| self.sweep.program.base(*run));
        let own = lineage.take_while(|run| self.sweep.program.base(*run).is_some()).find(has);
        let owner = own.unwrap_or(Run::Prompt(self.sweep.program.root(run)));
        let span = &self.spans[&owner];
        (owner, span.rows.start + position - span.start)
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
            let length = self.sweep.program.length(*run);
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
        while let Some(base) = self.sweep.program.base(at).filter(|_| end > 0) {
            at = base;
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
        let from: Vec<u32> = each.map(|(run, p)| self.owner(run, p).1 as u32).collect();
        let rows = self.lay_out(ranges);
        acts.gather(rows, &from)
    }

    /// The positions of each run that has rows now, and of those that `more` adds, in the order of runs.
    fn ranges(&self, layer: usize, more: &[Run]) -> Vec<(Run, Range<usize>)> {
        let more: HashSet<&Run> = more.iter().collect();
        let has_rows = |run: &&Run| self.spans.contains_key(run) || more.contains(run);
        let range = |run: &Run| match run {
            Run::Prompt(_) => (*run, 0..self.sweep.program.length(*run)),
            Run::Fork(f) => {
                let cone = self.sweep.program.cone(*f);
                (*run, cone.start..cone.ends[layer] as usize)
            }
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
            let take = |donor: Run, p: usize, _: &[Range<usize>]| Ok(RowChange::CopyRow(self.owner(donor, p).1));
            edits.extend(self.row_edits(edit, span, span.rows.start, take)?);
        }
        ops::edit(x, &edits)
    }

    /// One edit as changes to rows, the first of the fork's span being row `first`. Positions outside the span are its base's,
    /// which has that edit too.
    fn row_edits(
        &self,
        edit: &Placed,
        span: &Span,
        first: usize,
        take: impl Fn(Run, usize, &[Range<usize>]) -> Result<RowChange>,
    ) -> Result<Vec<RowEdit>> {
        let row = |p: usize| (span.start..span.keys()).contains(&p).then(|| first + p - span.start);
        row_edits(edit, row, take)
    }

    /// Lets readers read what is another run's.
    fn exchange(&self, site: Site, acts: &mut Acts) -> Result<()> {
        let Some(runs) = self.exchanges.get(&site) else { return Ok(()) };
        let row = |run: Run, position: usize| {
            let span = self.spans.get(&run)?;
            (span.start..span.keys()).contains(&position).then(|| span.rows.start + position - span.start)
        };
        if let Some(value) = self.writers.read(site, acts, runs, row)? {
            acts.put(site.kind, value);
        }
        Ok(())
    }

    /// Keeps what writers add in the runs that exchanges need.
    fn keep_writers(&mut self, site: Site, x: &Tensor) -> Result<()> {
        if !self.writers.wants(site) {
            return Ok(());
        }
        for run in &self.runs {
            if let Some(span) = self.spans.get(run).filter(|_| self.writers.keeps(*run)) {
                let rows = x.narrow(0, span.rows.start, span.rows.len())?;
                self.writers.keep(*run, site, span.start, &rows)?;
            }
        }
        Ok(())
    }

    /// Takes the readings of a site.
    fn read(&mut self, site: Site, x: &Tensor) -> Result<()> {
        for read in self.reads.get(&site).into_iter().flatten() {
            let index: Vec<u32> = read.positions.iter().map(|p| self.owner(read.run, *p).1 as u32).collect();
            let values = ops::to_vec(&x.index_select(&Tensor::new(index, x.device())?, 0)?)?;
            self.found.push((read.readout, reading::of_rows(&read.take, &values, read.positions.len())));
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
        let row = |run: Run| self.owner(run, self.sweep.program.length(run) - 1).1 as u32;
        let rows: Vec<u32> = attributions.runs().map(row).collect();
        x.index_select(&Tensor::new(rows, x.device())?, 0)
    }

    /// The runs whose scores or patterns are edited, taken from or read in a layer.
    fn opened_runs(&self, layer: usize) -> HashSet<Run> {
        let mut found = HashSet::new();
        for site in [SiteKind::Scores.at(layer), SiteKind::Pattern.at(layer)] {
            for (run, edit) in self.edits.get(&site).into_iter().flatten() {
                found.insert(*run);
                if let Made::Taken { donor, from } = &edit.made {
                    found.extend(from.iter().map(|p| self.owner(*donor, *p).0));
                }
            }
            for read in self.reads.get(&site).into_iter().flatten() {
                found.extend(read.positions.iter().map(|p| self.owner(read.run, *p).0));
            }
        }
        found
    }

    /// The rows of a layer whose states are read or taken from.
    fn looked_up(&self, layer: usize) -> HashSet<Row> {
        let (mut found, site) = (HashSet::new(), SiteKind::State.at(layer));
        let mut look_up = |run: Run, positions: &[usize]| {
            found.extend(positions.iter().map(|p| (self.owner(run, *p).0, *p)));
        };
        for read in self.reads.get(&site).into_iter().flatten() {
            look_up(read.run, &read.positions);
        }
        for (_, edit) in self.edits.get(&site).into_iter().flatten() {
            if let Made::Taken { donor, from } = &edit.made {
                look_up(*donor, from);
            }
        }
        found
    }

    /// The runs that stop for their states in a layer, and the positions after which they do: where these are looked up or edited. A
    /// run with edits before its own rows, and one whose last state is kept, may stop nowhere.
    fn stopped(&self, layer: usize) -> BTreeMap<Run, BTreeSet<usize>> {
        let mut found: BTreeMap<Run, BTreeSet<usize>> = BTreeMap::new();
        for (run, position) in self.states.keys() {
            found.entry(*run).or_default().insert(*position);
        }
        for (run, edit) in self.edits.get(&SiteKind::State.at(layer)).into_iter().flatten() {
            if let Some(span) = self.spans.get(run) {
                let own = edit.positions.iter().filter(|p| (span.start..span.keys()).contains(*p));
                found.entry(*run).or_default().extend(own);
            }
        }
        for run in self.runs.iter().filter(|run| self.sweep.cache.is_some_and(|cache| cache.goes_on(**run))) {
            found.entry(self.last_owner(*run)).or_default();
        }
        found
    }

    /// A state that was looked up. Runs come in their order: it is in hand.
    fn state(&self, row: &Row) -> Result<&[f32]> {
        let state = self.states.get(row).and_then(Option::as_deref);
        state.ok_or_else(|| candle_core::Error::Msg(format!("the state after {row:?} is not in hand")))
    }

    /// The run whose rows hold the last position of a run.
    fn last_owner(&self, run: Run) -> Run {
        self.owner(run, self.sweep.program.length(run) - 1).0
    }

    /// A run's state after a position, `[1, width]`, with the run's edits there.
    fn edit_state(&self, site: Site, (run, position): Row, state: &Tensor) -> Result<Tensor> {
        let mut edits = Vec::new();
        let take = |donor: Run, p: usize, columns: &[Range<usize>]| {
            let owner = self.owner(donor, p).0;
            Ok(RowChange::Set(reading::pick(self.state(&(owner, p))?, columns).into()))
        };
        for (_, edit) in self.edits.get(&site).into_iter().flatten().filter(|(of, _)| *of == run) {
            edits.extend(row_edits(edit, |p| (p == position).then_some(0), take)?);
        }
        ops::edit(state, &edits)
    }

    /// Takes the readings of states that are all in hand once that of a row is.
    fn read_states(&mut self, site: Site, row: Row) -> Result<()> {
        for read in self.reads.get(&site).into_iter().flatten() {
            let rows: Vec<Row> = read.positions.iter().map(|p| (self.owner(read.run, *p).0, *p)).collect();
            // Runs come in their order, and so do their positions.
            if rows.iter().max() == Some(&row) {
                let states = rows.iter().map(|row| self.state(row)).collect::<Result<Vec<_>>>()?;
                self.found.push((read.readout, reading::of_rows(&read.take, &states.concat(), rows.len())));
            }
        }
        Ok(())
    }

    /// Leaves keys and values in the cache. What a fork has no rows for here is its base's.
    fn keep(&self, cache: &Cache, layer: usize, part: usize, value: &Tensor) -> Result<()> {
        for run in &self.runs {
            let Some(kept) = cache.kept(*run) else { continue };
            let rows: Vec<usize> = kept.positions.clone().map(|p| self.owner(*run, p).1).collect();
            let mut slot = kept.slot;
            for rows in rows.chunk_by(|a, b| a + 1 == *b) {
                cache.put(layer, part, slot, &value.narrow(0, rows[0], rows.len())?)?;
                slot += rows.len();
            }
        }
        Ok(())
    }

    /// Whether opened scores or patterns are read, or taken from.
    fn is_taken(&self, site: Site) -> bool {
        let taken = |(_, edit): &(Run, &Placed)| edit.donor().is_some();
        self.reads.contains_key(&site) || self.edits.get(&site).is_some_and(|edits| edits.iter().any(taken))
    }

    /// A row of the layer's opened scores or pattern: [`State::opened_runs`] has all that are taken from or read.
    fn opened_row(&self, site: Site, run: Run, position: usize) -> &[f32] {
        let (owner, _) = self.owner(run, position);
        let width = site.width(&self.sweep.decoder.arch, self.sweep.program.length(run));
        let at = (position - self.spans[&owner].start) * width;
        &self.opened[&(owner, site)][at..at + width]
    }

    /// One fork's edits of scores or pattern, on its span's rows.
    fn edit_opened(&self, site: Site, run: Run, mut x: Tensor) -> Result<Tensor> {
        let own = |e: &&(Run, &Placed)| e.0 == run;
        for (_, edit) in self.edits.get(&site).into_iter().flatten().filter(own) {
            let take = |donor: Run, p: usize, columns: &[Range<usize>]| {
                Ok(RowChange::Set(reading::pick(self.opened_row(site, donor, p), columns).into()))
            };
            x = ops::edit(&x, &self.row_edits(edit, &self.spans[&run], 0, take)?)?;
        }
        Ok(x)
    }
}

/// Where a fork gets its rows: at its first edit; before the attention, if that is of scores or pattern, and before a recurrent
/// mixer, if it is within that.
fn joining_site(sweep: Sweep, site: Site) -> Site {
    match site.kind {
        SiteKind::Scores | SiteKind::Pattern => {
            let last = [SiteKind::RotK, SiteKind::V, SiteKind::RotQ].map(|kind| kind.at(site.layer));
            let there = last.into_iter().find(|site| site.check(&sweep.decoder.arch).is_ok());
            there.unwrap_or(SiteKind::Q.at(site.layer))
        }
        // A recurrent mixer makes several things of what it reads.
        SiteKind::ConvIn | SiteKind::State => SiteKind::AttnIn.at(site.layer),
        _ => site,
    }
}

impl Hook for State<'_> {
    fn most_rows(&self) -> usize {
        self.sweep.mlp_rows
    }

    fn wants(&self, site: Site) -> bool {
        self.edits.contains_key(&site)
            || self.exchanges.contains_key(&site)
            || self.writers.wants(site)
            || self.reads.contains_key(&site)
            || self.joins.contains_key(&site)
            || self.attributions.as_ref().is_some_and(|a| a.wants(site))
    }

    fn at(&mut self, site: Site, acts: &mut Acts) -> Result<()> {
        self.join(site, acts)?;
        self.exchange(site, acts)?;
        if self.edits.contains_key(&site) {
            let edited = self.edit(site, acts.get(site.kind)?)?;
            acts.put(site.kind, edited);
        }
        if self.reads.contains_key(&site) {
            self.read(site, &acts.get(site.kind)?.clone())?;
        }
        self.keep_writers(site, acts.get(site.kind)?)?;
        self.attribute(site, acts.get(site.kind)?)
    }

    fn carry(&mut self, layer: usize, part: usize, value: Tensor) -> Result<Tensor> {
        if let Some(cache) = self.sweep.cache {
            self.keep(cache, layer, part, &value)?;
        }
        Ok(value)
    }

    fn opened(&self, layer: usize) -> Result<Vec<usize>> {
        let runs = self.opened_runs(layer);
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
        for read in self.reads.get(&site).into_iter().flatten() {
            let owners = read.positions.iter().map(|p| self.owner(read.run, *p).0);
            if owners.max() != Some(run) {
                continue;
            }
            let rows = read.positions.iter().map(|p| self.opened_row(site, read.run, *p));
            let values: Vec<f32> = rows.flatten().copied().collect();
            self.found.push((read.readout, reading::of_rows(&read.take, &values, read.positions.len())));
        }
        flat.reshape((n, heads, keys))
    }

    fn stops(&mut self, layer: usize) -> Result<Vec<(usize, Vec<usize>)>> {
        self.states = self.looked_up(layer).into_iter().map(|row| (row, None)).collect();
        let stopped = self.stopped(layer);
        let spans = self.order.iter().enumerate();
        Ok(spans.filter_map(|(i, run)| Some((i, stopped.get(run)?.iter().copied().collect()))).collect())
    }

    fn at_state(&mut self, site: Site, (span, position): (usize, usize), state: Tensor) -> Result<Tensor> {
        let row = (self.order[span], position);
        let state = self.edit_state(site, row, &state)?;
        if let Some(looked_up) = self.states.get_mut(&row) {
            *looked_up = Some(ops::to_vec(&state)?);
            self.read_states(site, row)?;
        }
        Ok(state)
    }

    fn state_after(&mut self, layer: usize, span: usize, state: &Tensor) -> Result<()> {
        let Some(cache) = self.sweep.cache else { return Ok(()) };
        let last = self.runs.iter().filter(|run| cache.goes_on(**run) && self.last_owner(**run) == self.order[span]);
        last.copied().try_for_each(|run| cache.put_state(layer, run, state))
    }
}

/// The last residual streams of all batches.
struct Ends<'a, 'b> {
    batches: &'b [Batch<'a>],
    /// The batch of each prompt.
    of_prompt: HashMap<usize, usize>,
    program: &'a Program<'a>,
}

impl<'a, 'b> Ends<'a, 'b> {
    fn new(sweep: Sweep<'a>, batches: &'b [Batch<'a>]) -> Self {
        let prompts = |(b, batch): (usize, &Batch)| -> Vec<(usize, usize)> {
            batch.state.runs.iter().filter_map(|r| if let Run::Prompt(p) = r { Some((*p, b)) } else { None }).collect()
        };
        let of_prompt = batches.iter().enumerate().flat_map(prompts).collect();
        Ends { batches, of_prompt, program: sweep.program }
    }
}

impl Residuals for Ends<'_, '_> {
    fn rows(&self, rows: &[Row]) -> Result<Tensor> {
        let mut found: Vec<(usize, u32)> = Vec::with_capacity(rows.len());
        for (run, position) in rows {
            let batch = self.of_prompt[&self.program.root(*run)];
            found.push((batch, self.batches[batch].state.owner(*run, *position).1 as u32));
        }
        // Rows of one batch that follow each other are taken together.
        let mut parts = Vec::new();
        for part in found.chunk_by(|a, b| a.0 == b.0) {
            let resid = self.batches[part[0].0].acts.get(SiteKind::ResidPre)?;
            let index: Vec<u32> = part.iter().map(|(_, row)| *row).collect();
            parts.push(resid.index_select(&Tensor::new(index, resid.device())?, 0)?);
        }
        let resid = Tensor::cat(&parts, 0)?;
        let mut edits = Vec::new();
        for (row, (run, position)) in rows.iter().enumerate() {
            let batch = self.of_prompt[&self.program.root(*run)];
            edits.extend(self.batches[batch].state.writers.at_logits(*run, *position)?.map(|more| add(row, more)));
        }
        ops::edit(&resid, &edits)
    }
}
