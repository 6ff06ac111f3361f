//! Exchanges of edges: what writers add to the residual stream, and what readers read where some of it is another run's.
//!
//! While a pass goes by, the writers of the runs that exchanges need are kept ([`Program::written`]). Where a reader is reached,
//! the stream that it reads in a run is the run's own plus, for every writer that it takes from the donor, what that adds there less
//! what it adds in the run. The reader's norm and projection are computed anew from it; all that follows is the pass' own work.
//! Where a family norms what a layer's heads add, the mixed sum goes through that norm anew.

use crate::model::decoder::{Acts, Decoder};
use crate::ops::{self, RowChange, RowEdit};
use crate::plan::{Exchanged, Matched, Program, Reader, Run, Writer};
use crate::site::{Site, SiteKind};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

/// What the writers of some runs add, as far as the pass has come.
pub(super) struct Writers<'a> {
    decoder: &'a Decoder,
    program: &'a Program<'a>,
    /// The runs whose writers are kept.
    runs: HashSet<Run>,
    /// Those whose streams are kept too: readers that take most writers of a donor start from its stream.
    donors: HashSet<Run>,
    /// By run and site: the first position that is kept, and the rows from there on. `[positions, width]`
    kept: HashMap<(Run, Site), (usize, Vec<f32>)>,
}

impl<'a> Writers<'a> {
    pub(super) fn new(decoder: &'a Decoder, program: &'a Program<'a>, runs: HashSet<Run>) -> Self {
        Writers { decoder, program, runs, donors: program.donors_of_edges(), kept: HashMap::new() }
    }

    /// Whether a run's writers are kept.
    pub(super) fn keeps(&self, run: Run) -> bool {
        self.runs.contains(&run)
    }

    /// Whether something is kept at a site.
    pub(super) fn wants(&self, site: Site) -> bool {
        let post = self.decoder.arch.changes_what_is_added();
        let here = match site.kind {
            SiteKind::Embed | SiteKind::Z | SiteKind::MlpOut | SiteKind::ResidPre | SiteKind::ResidMid => true,
            SiteKind::AttnOut | SiteKind::AttnDelta | SiteKind::MlpDelta => post,
            _ => false,
        };
        here && !self.runs.is_empty()
    }

    /// Keeps a run's rows at a site, of positions from `start` on. `[positions, width]`
    pub(super) fn keep(&mut self, run: Run, site: Site, start: usize, rows: &Tensor) -> Result<()> {
        let stream = matches!(site.kind, SiteKind::ResidPre | SiteKind::ResidMid);
        if stream && !self.donors.contains(&run) {
            return Ok(());
        }
        let values = match site.kind {
            SiteKind::Z => ops::to_vec(&self.decoder.head_outputs(site.layer, rows)?)?,
            _ => ops::to_vec(rows)?,
        };
        self.kept.insert((run, site), (start, values));
        Ok(())
    }

    /// Lets go of what a run adds: nothing reads it any more.
    pub(super) fn forget(&mut self, run: Run) {
        self.kept.retain(|(of, _), _| *of != run);
    }

    /// A run's row at a site: its own, or that of the nearest run that it descends from.
    fn row(&self, mut run: Run, site: Site, position: usize, width: usize) -> &[f32] {
        loop {
            if let Some((start, values)) = self.kept.get(&(run, site))
                && let Some(at) = position.checked_sub(*start).map(|p| p * width)
                && let Some(row) = values.get(at..at + width)
            {
                return row;
            }
            // A prompt has all its rows: it is kept whole.
            run = self.program.base(run).unwrap_or(Run::Prompt(self.program.root(run)));
        }
    }

    /// What some writers add in a donor less what they add in a run, at some positions. `[positions, d_model]`
    pub(super) fn difference(
        &self,
        run: Run,
        donor: Run,
        writers: &[Writer],
        positions: &[Matched],
    ) -> Result<Vec<f32>> {
        let d = self.decoder.arch.d_model;
        let mut sums = vec![0f32; positions.len() * d];
        for of_layer in writers.chunk_by(|a, b| layer_of(*a) == layer_of(*b)) {
            let (heads, others): (Vec<Writer>, Vec<Writer>) =
                of_layer.iter().partition(|writer| matches!(writer, Writer::Head { .. }));
            self.add_heads(run, donor, &heads, positions, &mut sums)?;
            for writer in others {
                self.add_whole(run, donor, writer, positions, &mut sums)?;
            }
        }
        Ok(sums)
    }

    /// Adds what the embedding or an MLP adds more in the donor.
    fn add_whole(&self, run: Run, donor: Run, writer: Writer, positions: &[Matched], sums: &mut [f32]) -> Result<()> {
        let d = self.decoder.arch.d_model;
        let row = |run, site, p: usize| self.row(run, site, p, d);
        let site = match writer {
            Writer::Mlp { layer } => SiteKind::MlpOut.at(layer),
            _ => SiteKind::Embed.at(0),
        };
        if site.kind == SiteKind::MlpOut && self.decoder.arch.changes_what_is_added() {
            let theirs: Vec<f32> = positions.iter().flat_map(|at| row(donor, site, at.theirs)).copied().collect();
            let normed = self.decoder.after_channel(site.layer, &self.tensor(theirs, positions.len())?)?;
            let own = SiteKind::MlpDelta.at(site.layer);
            return self.add_less(&ops::to_vec(&normed)?, (run, own), positions, sums);
        }
        for (at, sum) in positions.iter().zip(sums.chunks_exact_mut(d)) {
            add_difference(sum, row(donor, site, at.theirs), row(run, site, at.own));
        }
        Ok(())
    }

    /// Adds what some heads of one layer add more in the donor.
    fn add_heads(&self, run: Run, donor: Run, heads: &[Writer], positions: &[Matched], sums: &mut [f32]) -> Result<()> {
        let Some(layer) = heads.first().and_then(|writer| layer_of(*writer)) else { return Ok(()) };
        let (d, z) = (self.decoder.arch.d_model, SiteKind::Z.at(layer));
        let wide = self.decoder.arch.n_heads * d;
        let mixed = |sum: &mut [f32], at: &Matched| {
            let (theirs, own) = (self.row(donor, z, at.theirs, wide), self.row(run, z, at.own, wide));
            for writer in heads {
                if let Writer::Head { head, .. } = writer {
                    let of = head * d..(head + 1) * d;
                    add_difference(sum, &theirs[of.clone()], &own[of]);
                }
            }
        };
        if !self.decoder.arch.changes_what_is_added() {
            positions.iter().zip(sums.chunks_exact_mut(d)).for_each(|(at, sum)| mixed(sum, at));
            return Ok(());
        }
        let out = SiteKind::AttnOut.at(layer);
        let mut all: Vec<f32> = positions.iter().flat_map(|at| self.row(run, out, at.own, d)).copied().collect();
        positions.iter().zip(all.chunks_exact_mut(d)).for_each(|(at, sum)| mixed(sum, at));
        let normed = self.decoder.after_mixer(layer, &self.tensor(all, positions.len())?)?;
        self.add_less(&ops::to_vec(&normed)?, (run, SiteKind::AttnDelta.at(layer)), positions, sums)
    }

    /// Adds rows less a run's own at a site.
    fn add_less(&self, rows: &[f32], own: (Run, Site), positions: &[Matched], sums: &mut [f32]) -> Result<()> {
        let d = self.decoder.arch.d_model;
        for ((at, sum), row) in positions.iter().zip(sums.chunks_exact_mut(d)).zip(rows.chunks_exact(d)) {
            add_difference(sum, row, self.row(own.0, own.1, at.own, d));
        }
        Ok(())
    }

    fn tensor(&self, values: Vec<f32>, rows: usize) -> Result<Tensor> {
        let device = self.decoder.places.last();
        Tensor::from_vec(values, (rows, self.decoder.arch.d_model), device)?.to_dtype(self.decoder.dtype)
    }

    /// What the logits' reader reads more in a run at a position than its own stream; none where it takes nothing. `[d_model]`
    pub(super) fn at_logits(&self, run: Run, position: usize) -> Result<Option<Vec<f32>>> {
        let mut found: Option<Vec<f32>> = None;
        for exchange in self.program.exchanges(run) {
            let Some(at) = exchange.positions.iter().find(|at| at.own == position) else { continue };
            for reads in exchange.readers.get(&SiteKind::FinalNorm.at(0)).into_iter().flatten() {
                let more = self.difference(run, exchange.donor, &reads.writers, &[*at])?;
                match &mut found {
                    None => found = Some(more),
                    Some(sum) => sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more),
                }
            }
        }
        Ok(found)
    }

    /// The value of a site with what readers of some runs make of the streams that they read. `row` gives the row of a run's position,
    /// if it has one of its own.
    pub(super) fn read(
        &self,
        site: Site,
        acts: &Acts,
        runs: &[(Run, &Exchanged)],
        row: impl Fn(Run, usize) -> Option<usize>,
    ) -> Result<Option<Tensor>> {
        let of_mlp = site.kind == SiteKind::MlpIn && !self.decoder.arch.parallel;
        let kind = if of_mlp { SiteKind::ResidMid } else { SiteKind::ResidPre };
        // What is read of which row and head, and what of it each reader takes: a reader that takes from several has one place.
        let (mut read, mut place, mut taken) = (Vec::new(), HashMap::new(), Vec::new());
        for (run, exchange) in runs {
            let (positions, rows): (Vec<Matched>, Vec<usize>) =
                exchange.positions.iter().filter_map(|at| Some((*at, row(*run, at.own)?))).unzip();
            for reads in exchange.readers.get(&site).into_iter().flatten().filter(|_| !rows.is_empty()) {
                let of_row = |row: &usize| {
                    let by = (*row, head_of(reads.reader));
                    *place.entry(by).or_insert_with(|| {
                        read.push(by);
                        read.len() - 1
                    })
                };
                let places: Vec<usize> = rows.iter().map(of_row).collect();
                taken.push((*run, exchange.donor, reads, positions.clone(), places));
            }
        }
        if read.is_empty() {
            return Ok(None);
        }
        let (stream, d) = (acts.get(kind)?, self.decoder.arch.d_model);
        let index: Vec<u32> = read.iter().map(|(row, _)| *row as u32).collect();
        let own = ops::to_vec(&stream.index_select(&Tensor::new(index, stream.device())?, 0)?)?;
        let more = taken.par_iter().map(|(run, donor, reads, positions, places)| {
            if !reads.all_but {
                return self.difference(*run, *donor, &reads.writers, positions);
            }
            // A stream is the sum of what all writers add: the donor's with what is not taken as it is in the run.
            let turned: Vec<Matched> = positions.iter().map(|at| Matched { own: at.theirs, theirs: at.own }).collect();
            let mut more = self.difference(*donor, *run, &reads.writers, &turned)?;
            for ((at, place), more) in positions.iter().zip(places).zip(more.chunks_exact_mut(d)) {
                let theirs = self.row(*donor, kind.at(site.layer), at.theirs, d);
                add_difference(more, theirs, &own[place * d..(place + 1) * d]);
            }
            Ok(more)
        });
        let more = more.collect::<Result<Vec<_>>>()?;
        let mut streams = own.clone();
        for ((.., places), more) in taken.iter().zip(more) {
            for (place, more) in places.iter().zip(more.chunks_exact(d)) {
                streams[place * d..(place + 1) * d].iter_mut().zip(more).for_each(|(stream, more)| *stream += more);
            }
        }
        let streams = self.tensor(streams, read.len())?.to_device(stream.device())?;
        let edits = match site.kind {
            SiteKind::MlpIn => self.whole_rows(&self.decoder.read_by_channel(site.layer, &streams)?, &read)?,
            _ => self.by_heads(site, acts, &streams, &read)?,
        };
        ops::edit(acts.get(site.kind)?, &edits).map(Some)
    }

    /// Each row's new value is a whole row.
    fn whole_rows(&self, value: &Tensor, read: &[(usize, usize)]) -> Result<Vec<RowEdit>> {
        let (width, values) = (value.dim(1)?, ops::to_vec(value)?);
        let set = |((row, _), values): (&(usize, usize), &[f32])| set(*row, 0..width, values);
        Ok(read.iter().zip(values.chunks_exact(width)).map(set).collect())
    }

    /// Queries, keys or values of single heads, `read` saying of each stream which row and head it is for. Where a norm spans the
    /// heads, the row's other heads are projected as they are, and the whole row goes through that norm.
    fn by_heads(&self, site: Site, acts: &Acts, streams: &Tensor, read: &[(usize, usize)]) -> Result<Vec<RowEdit>> {
        let (layer, port) = (site.layer, site.kind);
        let read_in = self.decoder.read_by_mixer(layer, streams)?;
        let heads: Vec<usize> = read.iter().map(|(_, head)| *head).collect();
        self.decoder.ports(layer, |shape, of| {
            let projected = of.project(shape, port, &read_in, Some(&heads))?;
            let d = projected.dim(1)?;
            if !of.norms_across(shape, port) {
                let values = ops::to_vec(&of.normed(shape, port, &projected, Some(&heads))?)?;
                let set =
                    |((row, head), values): (&(usize, usize), &[f32])| set(*row, head * d..(head + 1) * d, values);
                return Ok(read.iter().zip(values.chunks_exact(d)).map(set).collect());
            }
            let rows: Vec<usize> = read.iter().map(|(row, _)| *row).collect::<BTreeSet<_>>().into_iter().collect();
            let index: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
            let own = acts.get(SiteKind::ResidPre)?.index_select(&Tensor::new(index, streams.device())?, 0)?;
            let own = of.project(shape, port, &self.decoder.read_by_mixer(layer, &own)?, None)?;
            let (width, values, mut mixed) = (own.dim(1)?, ops::to_vec(&projected)?, ops::to_vec(&own)?);
            for ((row, head), values) in read.iter().zip(values.chunks_exact(d)) {
                let at = rows.partition_point(|r| r < row) * width + head * d;
                mixed[at..at + d].copy_from_slice(values);
            }
            let mixed = Tensor::from_vec(mixed, own.dims2()?, own.device())?.to_dtype(own.dtype())?;
            let whole: Vec<(usize, usize)> = rows.iter().map(|row| (*row, 0)).collect();
            self.whole_rows(&of.normed(shape, port, &mixed, None)?, &whole)
        })
    }
}

/// A row's columns take these numbers.
fn set(row: usize, columns: Range<usize>, values: &[f32]) -> RowEdit {
    RowEdit { row, columns: std::iter::once(columns).collect(), change: RowChange::Set(values.into()) }
}

fn layer_of(writer: Writer) -> Option<usize> {
    match writer {
        Writer::Input => None,
        Writer::Head { layer, .. } | Writer::Mlp { layer } => Some(layer),
    }
}

/// The number of a reader in its layer: its head, or 0 where there is one.
fn head_of(reader: Reader) -> usize {
    if let Reader::Head { head, .. } = reader { head } else { 0 }
}

/// Numbers that are added to a whole row.
pub(super) fn add(row: usize, more: Vec<f32>) -> RowEdit {
    let columns = std::iter::once(0..more.len()).collect();
    RowEdit { row, columns, change: RowChange::Add(more.into(), 1.0) }
}

fn add_difference(sum: &mut [f32], theirs: &[f32], own: &[f32]) {
    for ((sum, theirs), own) in sum.iter_mut().zip(theirs).zip(own) {
        *sum += theirs - own;
    }
}
