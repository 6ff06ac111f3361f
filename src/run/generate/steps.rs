//! One batch's course: the prompt pass, then one row a run and step until all have ended.

use super::batch::{Batch, excerpt, holders};
use super::cache::{Cache, Kept};
use super::sample::Sampler;
use super::{Generated, Generation, Steps};
use crate::model::decoder::{Acts, Angles, Decoder, Hook};
use crate::ops::rows::{Rows, Span};
use crate::ops::{self, RowChange, RowEdit};
use crate::plan::{Activation, Made, Part, Placed, Plan, Positions, Program, Run};
use crate::run::end::wide_rows;
use crate::run::{Options, RunError, Told, wavefront};
use crate::site::{Site, SiteKind};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// What all batches share.
pub(super) struct Course<'a> {
    pub decoder: &'a Decoder,
    pub program: &'a Program<'a>,
    pub generation: &'a Generation,
    pub options: &'a Options<'a>,
    pub angles: &'a Angles,
    /// For each of [`Generation::runs`], how often the run was listed before.
    pub samples: &'a [u64],
}

/// A run that goes on.
struct Stream<'a> {
    /// Its number in [`Generation::runs`].
    member: usize,
    /// Its number in the batch.
    number: usize,
    run: Run,
    /// How long its prompt is.
    length: usize,
    /// The slots of the prompt's positions, in order.
    prompt: Vec<Range<usize>>,
    /// The slot of the first new token; the others follow.
    slot: usize,
    ids: Vec<u32>,
    sampler: Sampler,
    /// Edits that are made for every new token.
    edits: Vec<Lasting<'a>>,
}

impl Stream<'_> {
    /// The span of the row that the last token is: all new tokens before it are kept.
    fn span(&self, row: usize) -> Span {
        let own = self.slot..self.slot + self.ids.len();
        Span { rows: row..row + 1, start: self.length, prefix: self.prompt.clone(), own }
    }

    /// The position of the last token.
    fn position(&self) -> usize {
        self.length + self.ids.len() - 1
    }
}

impl<'a> Course<'a> {
    /// What each member of a batch comes to, with its number.
    pub fn run(&self, batch: &Batch) -> std::result::Result<Vec<(usize, Generated)>, RunError> {
        let (kept, used) = batch.slots();
        let slots = used + batch.members.len() * (self.generation.max_tokens - 1);
        let mut streams = self.streams(batch, &kept, used);
        let (part, there) = excerpt(self.program.plan, &batch.runs);
        let kept = kept.into_iter().map(|(run, kept)| (there[&run], kept)).collect();
        let mut going: HashMap<Run, Vec<usize>> = HashMap::new();
        streams.iter().for_each(|s| going.entry(there[&s.run]).or_default().push(s.number));
        let cache = Cache::new(self.decoder, slots, kept, going)?;
        let first = self.prompts(part, &there, &cache, &streams)?;
        let rows: Vec<&[f32]> = streams.iter().map(|s| first[&s.run].as_slice()).collect();
        let mut tokens = self.choose(&mut streams, &rows)?;
        drop(first);
        let mut ended = Vec::new();
        loop {
            let before = ended.len();
            streams = self.sort_out(streams, tokens, &mut ended);
            self.spare(&ended[before..])?;
            if streams.is_empty() {
                return Ok(ended);
            }
            tokens = self.step(&mut streams, &cache)?;
        }
    }

    /// The members of a batch, before their first tokens; `used` slots hold the prompts.
    fn streams(&self, batch: &Batch, kept: &HashMap<Run, Kept>, used: usize) -> Vec<Stream<'a>> {
        let stream = |(i, member): (usize, &usize)| {
            let run = self.generation.runs[*member];
            let prompt = holders(self.program, run);
            Stream {
                member: *member,
                number: i,
                run,
                length: self.program.length(run),
                prompt: prompt.iter().map(|(holder, positions)| kept[holder].slots(positions)).collect(),
                slot: used + i * (self.generation.max_tokens - 1),
                ids: Vec::new(),
                sampler: Sampler::new(self.generation.sampling, run, self.samples[*member]),
                edits: self.edits(run),
            }
        };
        batch.members.iter().enumerate().map(stream).collect()
    }

    /// The edits of a run that are made for every new token.
    fn edits(&self, run: Run) -> Vec<Lasting<'a>> {
        match self.generation.steps {
            Steps::PromptOnly => Vec::new(),
            Steps::Every => self.program.edits(run).into_iter().filter_map(Lasting::of).collect(),
        }
    }

    /// The prompt pass: fills the cache and returns the last logits of every run that goes on.
    fn prompts(
        &self,
        mut part: Plan,
        there: &HashMap<Run, Run>,
        cache: &Cache,
        streams: &[Stream],
    ) -> std::result::Result<HashMap<Run, Vec<f32>>, RunError> {
        let mut runs: Vec<Run> = streams.iter().map(|s| s.run).collect();
        runs.dedup();
        for run in &runs {
            let site = SiteKind::Logits.at(0);
            part.read(there[run], Activation { site, positions: Positions::Last, part: Part::All });
        }
        let program = part.compile(&self.decoder.arch)?;
        let found = wavefront::run_keeping(self.decoder, &program, self.options, self.angles, Some(cache))?;
        Ok(found.into_iter().map(|(readout, logits)| (runs[readout], logits.into_values())).collect())
    }

    /// The next token of every run, by a row of logits each.
    fn choose(&self, streams: &mut [Stream], logits: &[&[f32]]) -> std::result::Result<Vec<u32>, RunError> {
        let token = |(stream, row): (&mut Stream, &&[f32])| match row.iter().find(|v| !v.is_finite()) {
            None => Ok(stream.sampler.choose(row)),
            Some(v) => {
                let at = format!(
                    "a logit of {} after {} new tokens",
                    self.program.plan.describe(stream.run),
                    stream.ids.len()
                );
                Err(RunError::NotFinite { at, value: f64::from(*v), dtype: self.decoder.dtype })
            }
        };
        streams.par_iter_mut().zip(logits).map(token).collect()
    }

    /// Gives the runs their tokens and takes out those that have ended.
    fn sort_out<'s>(
        &self,
        streams: Vec<Stream<'s>>,
        tokens: Vec<u32>,
        ended: &mut Vec<(usize, Generated)>,
    ) -> Vec<Stream<'s>> {
        let mut open = Vec::with_capacity(streams.len());
        for (mut stream, token) in streams.into_iter().zip(tokens) {
            let stopped = self.generation.stop.contains(&token);
            if !stopped {
                stream.ids.push(token);
            }
            if stopped || stream.ids.len() == self.generation.max_tokens {
                ended.push((stream.member, Generated { ids: stream.ids, stopped }));
            } else {
                open.push(stream);
            }
        }
        open
    }

    /// Tells of the steps that runs which have just ended do not need.
    fn spare(&self, ended: &[(usize, Generated)]) -> Result<()> {
        let most = self.generation.max_tokens - 1;
        let spared: usize = ended.iter().map(|(_, generated)| most.saturating_sub(generated.steps())).sum();
        let told = Told::Spared((spared * self.decoder.arch.n_layers) as u64);
        if spared > 0 { self.options.tell(told) } else { Ok(()) }
    }

    /// One step of all runs: their last tokens go through the model, and the next ones are chosen.
    fn step(&self, streams: &mut [Stream], cache: &Cache) -> std::result::Result<Vec<u32>, RunError> {
        let resid = {
            let mut pass = Pass::new(streams, cache);
            self.layers(streams, &mut pass)?
        };
        let mut tokens = Vec::with_capacity(streams.len());
        let at_once = wide_rows(&self.decoder.arch, self.options.budget, 2);
        for (c, streams) in streams.chunks_mut(at_once).enumerate() {
            let resid = resid.narrow(0, c * at_once, streams.len())?;
            let logits = {
                let mut acts = Acts::new(Rows::default());
                acts.put(SiteKind::ResidPre, resid);
                self.decoder.end(None, &mut acts, &mut Pass::new(streams, cache))?;
                ops::to_vec(acts.get(SiteKind::Logits)?)?
            };
            let rows: Vec<&[f32]> = logits.chunks_exact(self.decoder.arch.vocab).collect();
            tokens.extend(self.choose(streams, &rows)?);
        }
        Ok(tokens)
    }

    /// The last tokens' residual streams after the last layer. `[streams, d_model]`
    fn layers(&self, streams: &[Stream], pass: &mut Pass) -> Result<Tensor> {
        let ids: Vec<u32> = streams.iter().filter_map(|s| s.ids.last().copied()).collect();
        let positions: Vec<u32> = streams.iter().map(|s| s.position() as u32).collect();
        let rows = Rows {
            spans: streams.iter().enumerate().map(|(row, s)| s.span(row)).collect(),
            entries: streams.iter().map(|s| self.angles.entry(s.length, s.position())).collect(),
        };
        let mut acts = self.decoder.begin((&ids, &positions), rows, pass)?;
        self.decoder.through(0..self.decoder.arch.n_layers, |l| {
            self.decoder.layer(l, self.angles, &mut acts, pass)?;
            self.options.tell(Told::Tokens(streams.len() as u64))?;
            Result::Ok(())
        })?;
        acts.take(SiteKind::ResidPre)
    }
}

/// What is done at the sites of one step.
struct Pass<'p> {
    streams: &'p [Stream<'p>],
    cache: &'p Cache,
    sites: HashSet<Site>,
}

impl<'p> Pass<'p> {
    fn new(streams: &'p [Stream<'p>], cache: &'p Cache) -> Self {
        let sites = streams.iter().flat_map(|s| s.edits.iter().map(|e| e.placed.site)).collect();
        Pass { streams, cache, sites }
    }

    /// The edits of a run at a site, of the row that it is.
    fn row_edits(&self, stream: &Stream, site: Site, row: usize) -> Vec<RowEdit> {
        let edit = |e: &Lasting| {
            let columns = e.columns(stream.length, stream.position() + 1);
            RowEdit { row, columns, change: e.change.clone() }
        };
        stream.edits.iter().filter(|e| e.placed.site == site).map(edit).collect()
    }

    /// A site's value with the edits of all runs. `[streams, width]`
    fn edited(&self, site: Site, x: &Tensor) -> Result<Tensor> {
        if !self.wants(site) {
            return Ok(x.clone());
        }
        let each = self.streams.iter().enumerate().map(|(row, stream)| self.row_edits(stream, site, row));
        ops::edit(x, &each.flatten().collect::<Vec<_>>())
    }
}

/// An edit that is made for every new token.
struct Lasting<'p> {
    placed: &'p Placed<'p>,
    change: RowChange,
}

impl<'p> Lasting<'p> {
    /// An edit, if it goes on: one of single positions is of the prompt's, and a donor has no row for a new token.
    fn of(placed: &'p Placed<'p>) -> Option<Self> {
        match &placed.made {
            Made::Change(change) if !matches!(placed.edit.positions, Positions::At(_)) => {
                Some(Lasting { placed, change: change.clone() })
            }
            _ => None,
        }
    }

    /// Its columns in the row of a new token, which sees `keys` positions, `prompt` of them the prompt's.
    fn columns(&self, prompt: usize, keys: usize) -> Arc<[Range<usize>]> {
        let found = &self.placed.columns;
        if !matches!(self.placed.site.kind, SiteKind::Scores | SiteKind::Pattern) {
            return found.clone();
        }
        let whole = !matches!(self.placed.edit.part, Part::Columns(_)) && !self.placed.edit.change.has_vector();
        let by_head = found.iter().flat_map(|c| {
            // A range of the prompt's columns may cover several heads.
            let heads = c.start / prompt..=(c.end - 1) / prompt;
            heads.map(move |h| (h, c.start.max(h * prompt) - h * prompt..c.end.min((h + 1) * prompt) - h * prompt))
        });
        let of_step = |(h, c): (usize, Range<usize>)| {
            if whole { h * keys..(h + 1) * keys } else { h * keys + c.start..h * keys + c.end }
        };
        by_head.map(of_step).collect()
    }
}

impl Hook for Pass<'_> {
    fn wants(&self, site: Site) -> bool {
        self.sites.contains(&site)
    }

    fn at(&mut self, site: Site, acts: &mut Acts) -> Result<()> {
        if self.wants(site) {
            let edited = self.edited(site, acts.get(site.kind)?)?;
            acts.put(site.kind, edited);
        }
        Ok(())
    }

    fn carry(&mut self, layer: usize, part: usize, value: Tensor) -> Result<Tensor> {
        for (row, stream) in self.streams.iter().enumerate() {
            let slot = stream.slot + stream.ids.len() - 1;
            self.cache.put(layer, part, slot, &value.narrow(0, row, 1)?)?;
        }
        Ok(self.cache.part(layer, part))
    }

    fn opened(&self, layer: usize) -> Result<Vec<usize>> {
        let here = [SiteKind::Scores.at(layer), SiteKind::Pattern.at(layer)];
        let opens = |s: &Stream| s.edits.iter().any(|e| here.contains(&e.placed.site));
        Ok((0..self.streams.len()).filter(|row| opens(&self.streams[*row])).collect())
    }

    fn at_opened(&mut self, site: Site, span: usize, value: Tensor) -> Result<Tensor> {
        let shape = value.shape().clone();
        let flat = value.reshape((1, shape.elem_count()))?;
        ops::edit(&flat, &self.row_edits(&self.streams[span], site, 0))?.reshape(shape)
    }

    fn stops(&mut self, layer: usize) -> Result<Vec<(usize, Vec<usize>)>> {
        let site = SiteKind::State.at(layer);
        let at = |s: &Stream| s.edits.iter().any(|e| e.placed.site == site).then(|| s.position());
        Ok(self.streams.iter().enumerate().map(|(row, s)| (row, at(s).into_iter().collect())).collect())
    }

    fn at_state(&mut self, site: Site, (span, _): (usize, usize), state: Tensor) -> Result<Tensor> {
        ops::edit(&state, &self.row_edits(&self.streams[span], site, 0))
    }

    fn state_before(&self, layer: usize, span: usize) -> Result<Option<Tensor>> {
        self.cache.state(layer, self.streams[span].number).map(Some)
    }

    fn state_after(&mut self, layer: usize, span: usize, state: &Tensor) -> Result<()> {
        self.cache.put_state_of(layer, self.streams[span].number, state)
    }
}
