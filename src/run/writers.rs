//! Exchanges of edges: what writers add to the residual stream, and what readers read where some of it is another run's.
//!
//! While a pass goes by, the writers of the runs that exchanges need are kept ([`Program::written`]). Where a reader is reached,
//! the stream that it reads in a run is the run's own plus, for every writer that it takes from the donor, what that adds there less
//! what it adds in the run. The reader's norm and projection are computed anew from it; all that follows is the pass' own work.
//! Where a family norms what a layer's heads add, the mixed sum goes through that norm anew.

use crate::model::decoder::{Acts, Decoder};
use crate::ops::{self, RowChange, RowEdit};
use crate::plan::{Exchanged, Program, Reader, Run, Writer};
use crate::site::{Site, SiteKind};
use candle_core::{Result, Tensor};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// What the writers of some runs add, as far as the pass has come.
pub(super) struct Writers<'a> {
    decoder: &'a Decoder,
    program: &'a Program<'a>,
    /// The runs whose writers are kept.
    runs: HashSet<Run>,
    /// By run and site: the first position that is kept, and the rows from there on. `[positions, width]`
    kept: HashMap<(Run, Site), (usize, Vec<f32>)>,
}

impl<'a> Writers<'a> {
    pub(super) fn new(decoder: &'a Decoder, program: &'a Program<'a>, runs: HashSet<Run>) -> Self {
        Writers { decoder, program, runs, kept: HashMap::new() }
    }

    /// Whether a run's writers are kept.
    pub(super) fn keeps(&self, run: Run) -> bool {
        self.runs.contains(&run)
    }

    /// Whether something is kept at a site.
    pub(super) fn wants(&self, site: Site) -> bool {
        let post = self.decoder.arch.placement.after();
        let here = match site.kind {
            SiteKind::Embed | SiteKind::Z | SiteKind::MlpOut => true,
            SiteKind::AttnOut | SiteKind::AttnDelta | SiteKind::MlpDelta => post,
            _ => false,
        };
        here && !self.runs.is_empty()
    }

    /// Keeps a run's rows at a site, of positions from `start` on. `[positions, width]`
    pub(super) fn keep(&mut self, run: Run, site: Site, start: usize, rows: &Tensor) -> Result<()> {
        let values = match site.kind {
            SiteKind::Z => ops::to_vec(&self.decoder.head_outputs(site.layer, rows)?)?,
            _ => ops::to_vec(rows)?,
        };
        self.kept.insert((run, site), (start, values));
        Ok(())
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
    fn difference(&self, run: Run, donor: Run, writers: &[Writer], positions: &[usize]) -> Result<Vec<f32>> {
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
    fn add_whole(&self, run: Run, donor: Run, writer: Writer, positions: &[usize], sums: &mut [f32]) -> Result<()> {
        let d = self.decoder.arch.d_model;
        let row = |run, site, p: usize| self.row(run, site, p, d);
        let site = match writer {
            Writer::Mlp { layer } => SiteKind::MlpOut.at(layer),
            _ => SiteKind::Embed.at(0),
        };
        if site.kind == SiteKind::MlpOut && self.decoder.arch.placement.after() {
            let theirs: Vec<f32> = positions.iter().flat_map(|p| row(donor, site, *p)).copied().collect();
            let normed = self.decoder.after_channel(site.layer, &self.tensor(theirs, positions.len())?)?;
            let own = SiteKind::MlpDelta.at(site.layer);
            return self.add_less(&ops::to_vec(&normed)?, (run, own), positions, sums);
        }
        for (p, sum) in positions.iter().zip(sums.chunks_exact_mut(d)) {
            add_difference(sum, row(donor, site, *p), row(run, site, *p));
        }
        Ok(())
    }

    /// Adds what some heads of one layer add more in the donor.
    fn add_heads(&self, run: Run, donor: Run, heads: &[Writer], positions: &[usize], sums: &mut [f32]) -> Result<()> {
        let Some(layer) = heads.first().and_then(|writer| layer_of(*writer)) else { return Ok(()) };
        let (d, z) = (self.decoder.arch.d_model, SiteKind::Z.at(layer));
        let wide = self.decoder.arch.n_heads * d;
        let mixed = |sum: &mut [f32], p: usize| {
            let (theirs, own) = (self.row(donor, z, p, wide), self.row(run, z, p, wide));
            for writer in heads {
                if let Writer::Head { head, .. } = writer {
                    let of = head * d..(head + 1) * d;
                    add_difference(sum, &theirs[of.clone()], &own[of]);
                }
            }
        };
        if !self.decoder.arch.placement.after() {
            positions.iter().zip(sums.chunks_exact_mut(d)).for_each(|(p, sum)| mixed(sum, *p));
            return Ok(());
        }
        let out = SiteKind::AttnOut.at(layer);
        let mut all: Vec<f32> = positions.iter().flat_map(|p| self.row(run, out, *p, d)).copied().collect();
        positions.iter().zip(all.chunks_exact_mut(d)).for_each(|(p, sum)| mixed(sum, *p));
        let normed = self.decoder.after_mixer(layer, &self.tensor(all, positions.len())?)?;
        self.add_less(&ops::to_vec(&normed)?, (run, SiteKind::AttnDelta.at(layer)), positions, sums)
    }

    /// Adds rows less a run's own at a site.
    fn add_less(&self, rows: &[f32], own: (Run, Site), positions: &[usize], sums: &mut [f32]) -> Result<()> {
        let d = self.decoder.arch.d_model;
        for ((p, sum), row) in positions.iter().zip(sums.chunks_exact_mut(d)).zip(rows.chunks_exact(d)) {
            add_difference(sum, row, self.row(own.0, own.1, *p, d));
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
        for exchange in self.program.exchanges(run).into_iter().filter(|e| e.positions.contains(&position)) {
            for (_, writers) in exchange.readers.get(&SiteKind::FinalNorm.at(0)).into_iter().flatten() {
                let more = self.difference(run, exchange.donor, writers, &[position])?;
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
        let mut edits = Vec::new();
        for (run, exchange) in runs {
            let rows: Vec<(usize, usize)> =
                exchange.positions.iter().filter_map(|p| Some((*p, row(*run, *p)?))).collect();
            if let Some(readers) = exchange.readers.get(&site).filter(|_| !rows.is_empty()) {
                self.read_run(site, acts, (*run, exchange.donor), readers, &rows, &mut edits)?;
            }
        }
        let of = acts.get(site.kind)?;
        if edits.is_empty() { Ok(None) } else { ops::edit(of, &edits).map(Some) }
    }

    /// Adds the changes of one run's rows at a site.
    fn read_run(
        &self,
        site: Site,
        acts: &Acts,
        (run, donor): (Run, Run),
        readers: &[(Reader, Vec<Writer>)],
        rows: &[(usize, usize)],
        edits: &mut Vec<RowEdit>,
    ) -> Result<()> {
        let (positions, index): (Vec<usize>, Vec<u32>) = rows.iter().map(|(p, row)| (*p, *row as u32)).unzip();
        let of_mlp = site.kind == SiteKind::MlpIn && !self.decoder.arch.parallel;
        let stream = acts.get(if of_mlp { SiteKind::ResidMid } else { SiteKind::ResidPre })?;
        let stream = stream.index_select(&Tensor::new(index, stream.device())?, 0)?;
        let read = |writers: &[Writer]| -> Result<Tensor> {
            let more = self.tensor(self.difference(run, donor, writers, &positions)?, positions.len())?;
            ops::add(&stream, &more.to_device(stream.device())?)
        };
        let (value, columns) = match site.kind {
            SiteKind::MlpIn => {
                let whole: Vec<Range<usize>> = std::iter::once(0..self.decoder.arch.d_model).collect();
                (self.decoder.read_by_channel(site.layer, &read(&readers[0].1)?)?, whole)
            }
            _ => self.decoder.read_by_heads(
                site,
                &stream,
                &mut readers.iter().map(|(reader, writers)| Ok((head_of(*reader), read(writers)?))),
            )?,
        };
        let (width, values) = (value.dim(1)?, ops::to_vec(&value)?);
        for ((_, row), values) in rows.iter().zip(values.chunks_exact(width)) {
            let taken: Vec<f32> = columns.iter().flat_map(|c| values[c.clone()].iter().copied()).collect();
            edits.push(RowEdit { row: *row, columns: columns.clone().into(), change: RowChange::Set(taken.into()) });
        }
        Ok(())
    }
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
