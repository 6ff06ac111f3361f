//! The end of the pass, backwards: from metrics to the last residual stream.
//!
//! A metric is a sum over rows of a function of the row's logits, whose gradient is written down in closed form. Only rows
//! that a metric reads are normed and unembedded, and only the columns that it names, unless it needs them all.

use super::{Batch, Gradient, NoGradient, gradient_of, pull};
use crate::model::decoder::{Acts, Hook};
use crate::ops;
use crate::ops::rows::Rows;
use crate::plan::{Array, GradientReadout, Metric, Reading, Row, Run};
use crate::run::end::{Edits, NARROW_ROWS, log_sum_exp, mean_tokens, wide_rows, with_donors};
use crate::run::{Found, RunError};
use crate::site::{Site, SiteKind};
use candle_core::{Tensor, Var};
use std::collections::HashMap;

/// What a metric adds up over its rows.
enum Term<'a> {
    /// `logsumexp(answer logits) - logsumexp(foil logits)`
    Difference { answer: &'a [u32], foil: &'a [u32] },
    /// `logsumexp(the tokens' logits) - mean logit`
    AboveMean(&'a [u32]),
    /// The log-probability of a token.
    Token(u32),
}

/// A gradient that is read at the end.
struct Reader<'a> {
    read: &'a GradientReadout<'a>,
    columns: Vec<usize>,
    /// `[positions, columns]`; 0 for rows that the metric does not read.
    values: Vec<f32>,
}

impl<'a> Reader<'a> {
    fn of(Gradient { read, .. }: Gradient<'a>) -> Self {
        let columns: Vec<usize> = read.columns.iter().cloned().flatten().collect();
        Reader { read, values: vec![0f32; read.positions.len() * columns.len()], columns }
    }

    /// Takes the gradient at a row, of which `value` gives the columns.
    fn take(&mut self, (run, position): Row, value: impl Fn(usize) -> f32) {
        if run != self.read.run {
            return;
        }
        let lines = self.read.positions.iter().zip(self.values.chunks_exact_mut(self.columns.len()));
        for (_, line) in lines.filter(|(p, _)| **p == position) {
            line.iter_mut().zip(&self.columns).for_each(|(to, c)| *to = value(*c));
        }
    }
}

/// Takes one metric of every run back to the last residual stream, `[rows, d_model]`, and reads what is wanted on the way.
pub(super) fn back(
    batch: &Batch,
    round: usize,
    last: &Tensor,
    budget: usize,
    found: &mut Found,
) -> Result<Tensor, RunError> {
    let (mut narrow, mut wide) = (Vec::new(), Vec::new());
    for asked in &batch.asked {
        let edits_logits = batch.program.edits_at(asked.run, SiteKind::Logits);
        match asked.metrics.get(round) {
            Some(metric @ Metric::LogitDifference { .. }) if !edits_logits => {
                narrow.extend(terms(batch, asked.run, metric))
            }
            Some(metric) => wide.extend(terms(batch, asked.run, metric)),
            None => {}
        }
    }
    let at_end = |g: &Gradient| matches!(g.read.site.kind, SiteKind::FinalNorm | SiteKind::Logits);
    let mut readers: Vec<Reader> = batch.gradients(round).filter(at_end).map(Reader::of).collect();
    let mut upstream = last.zeros_like()?;
    // Logits, what edits make of them, slopes, on the device and on the host, and the gradients.
    let at_once = wide_rows(&batch.decoder.arch, budget, 6);
    for (terms, step, all) in [(narrow, NARROW_ROWS, false), (wide, at_once, true)] {
        for chunk in terms.chunks(step) {
            let (rows, gradient) = Chunk::new(batch, chunk, all).back(last, &mut readers)?;
            upstream = upstream.index_add(&rows, &gradient, 0)?;
        }
    }
    found.extend(readers.into_iter().map(|r| {
        let shape = vec![r.read.positions.len(), r.columns.len()];
        (r.read.readout, Reading::Array(Array { shape, values: r.values }))
    }));
    Ok(upstream)
}

/// The rows that a metric reads, and of what it is a sum.
fn terms<'a>(batch: &Batch<'a>, run: Run, metric: &'a Metric) -> Vec<(Row, Term<'a>)> {
    let length = batch.program.length(run);
    match metric {
        Metric::LogitDifference { answer, foil } => vec![((run, length - 1), Term::Difference { answer, foil })],
        Metric::AboveMean { tokens } => vec![((run, length - 1), Term::AboveMean(tokens))],
        Metric::Continuation { from } => {
            let ids = batch.program.ids(run);
            (*from..length).map(|p| ((run, p - 1), Term::Token(ids[p]))).collect()
        }
    }
}

/// Rows that are unembedded together.
struct Chunk<'b, 'a> {
    batch: &'b Batch<'a>,
    terms: HashMap<Row, &'b Term<'b>>,
    /// The rows of the terms, and those that edits at the end take from.
    rows: Vec<Row>,
    /// The columns of the logits, ascending; none for all.
    tokens: Option<Vec<u32>>,
}

impl<'b, 'a> Chunk<'b, 'a> {
    fn new(batch: &'b Batch<'a>, terms: &'b [(Row, Term<'b>)], all: bool) -> Self {
        let mut tokens: Vec<u32> = Vec::new();
        for (_, term) in terms {
            match term {
                Term::Difference { answer, foil } => tokens.extend(answer.iter().chain(*foil)),
                Term::AboveMean(ids) => tokens.extend(*ids),
                Term::Token(id) => tokens.push(*id),
            }
        }
        tokens.sort_unstable();
        tokens.dedup();
        let rows = with_donors(batch.program, terms.iter().map(|(row, _)| *row).collect());
        let terms = terms.iter().map(|(row, term)| (*row, term)).collect();
        Chunk { batch, terms, rows, tokens: (!all).then_some(tokens) }
    }

    /// The batch's rows of this chunk, and the gradients with respect to their last residual streams.
    fn back(&self, last: &Tensor, readers: &mut [Reader]) -> Result<(Tensor, Tensor), RunError> {
        let decoder = self.batch.decoder;
        let index: Vec<u32> = self.rows.iter().map(|(run, p)| self.batch.row(*run, *p) as u32).collect();
        let index = Tensor::new(index, last.device())?;
        let resid = Var::from_tensor(&last.index_select(&index, 0)?)?;
        let mut tape = Tape::new(Edits::new(self.batch.program, &self.rows, self.tokens.is_none()));
        let mut acts = Acts::new(Rows::default());
        acts.put(SiteKind::ResidPre, resid.as_tensor().clone());
        decoder.end(self.tokens.as_deref(), &mut acts, &mut tape)?;
        let edited = acts.take(SiteKind::Logits)?;
        let (normed, logits) = tape.taken()?;
        let upstream = self.slopes(&edited, readers)?;
        let grads = pull(&edited, &upstream)?;
        let upstream = gradient_of(&grads, SiteKind::Logits.at(0), Some(&logits))?;
        let upstream = decoder.logits_back(&logits, upstream, self.tokens.as_deref())?;
        let (width, values) = (upstream.dim(1)?, ops::to_vec(&upstream)?);
        for reader in readers.iter_mut().filter(|r| r.read.site.kind == SiteKind::FinalNorm) {
            self.lines(&values, width).for_each(|(row, line)| reader.take(row, |c| line[c]));
        }
        let grads = pull(&normed, &upstream)?;
        let last_layer = decoder.arch.n_layers - 1;
        Ok((index, gradient_of(&grads, SiteKind::ResidPost.at(last_layer), Some(&resid))?.clone()))
    }

    /// The metrics' gradients with respect to the logits; 0 in rows that are there only to be taken from.
    fn slopes(&self, logits: &Tensor, readers: &mut [Reader]) -> Result<Tensor, RunError> {
        let (width, mut values) = (logits.dim(1)?, ops::to_vec(logits)?);
        for (row, values) in self.rows.iter().zip(values.chunks_exact_mut(width)) {
            let of = values.to_vec();
            values.fill(0.0);
            match self.terms.get(row) {
                Some(Term::Difference { answer, foil }) => {
                    add_softmax(values, &of, answer.iter().filter_map(|id| self.column(*id)), 1.0);
                    add_softmax(values, &of, foil.iter().filter_map(|id| self.column(*id)), -1.0);
                }
                Some(Term::AboveMean(ids)) => {
                    add_softmax(values, &of, ids.iter().filter_map(|id| self.column(*id)), 1.0);
                    self.take_mean(values);
                }
                Some(Term::Token(id)) => {
                    add_softmax(values, &of, 0..width, -1.0);
                    self.column(*id).into_iter().for_each(|c| values[c] += 1.0);
                }
                None => {}
            }
        }
        for reader in readers.iter_mut().filter(|r| r.read.site.kind == SiteKind::Logits) {
            let value = |line: &[f32], c: usize| self.column(c as u32).map_or(0.0, |c| line[c]);
            self.lines(&values, width).for_each(|(row, line)| reader.take(row, |c| value(line, c)));
        }
        Ok(Tensor::from_vec(values, logits.shape(), logits.device())?.to_dtype(logits.dtype())?)
    }

    /// Takes the gradient of the mean logit off a row over the whole vocabulary.
    fn take_mean(&self, row: &mut [f32]) {
        match mean_tokens(&self.batch.decoder.arch) {
            Some(sample) => {
                let share = (sample.len() as f64).recip() as f32;
                sample.iter().filter_map(|id| self.column(*id)).for_each(|c| row[c] -= share);
            }
            None => {
                let share = (row.len() as f64).recip() as f32;
                row.iter_mut().for_each(|x| *x -= share);
            }
        }
    }

    /// The rows of this chunk's terms, each with its part of `[rows, width]`. Of a row that is there only to be taken from the
    /// gradient is another chunk's, if any is asked for.
    fn lines<'v>(&self, values: &'v [f32], width: usize) -> impl Iterator<Item = (Row, &'v [f32])> {
        let lines = self.rows.iter().copied().zip(values.chunks_exact(width));
        lines.filter(|(row, _)| self.terms.contains_key(row))
    }

    /// Where a token's logit is, if it is there.
    fn column(&self, id: u32) -> Option<usize> {
        match &self.tokens {
            Some(tokens) => tokens.binary_search(&id).ok(),
            None => Some(id as usize),
        }
    }
}

/// Adds `sign` times the softmax over some logits, which is the gradient of their `logsumexp`.
fn add_softmax(to: &mut [f32], logits: &[f32], columns: impl Iterator<Item = usize> + Clone, sign: f32) {
    let total = log_sum_exp(columns.clone().map(|c| f64::from(logits[c])));
    columns.for_each(|c| to[c] += sign * (f64::from(logits[c]) - total).exp() as f32);
}

/// The end of the pass as two graphs, which the product with the unembedding parts: its gradient is written down, not recorded.
struct Tape<'a> {
    edits: Edits<'a>,
    /// The final norm as the edits leave it, at the end of the first graph.
    normed: Option<Tensor>,
    /// The logits before their edits, at the beginning of the second.
    logits: Option<Var>,
}

impl<'a> Tape<'a> {
    fn new(edits: Edits<'a>) -> Self {
        Tape { edits, normed: None, logits: None }
    }

    /// The end of the first graph and the beginning of the second, once the pass went by.
    fn taken(self) -> Result<(Tensor, Var), NoGradient> {
        self.normed.zip(self.logits).ok_or(NoGradient { site: SiteKind::Logits.at(0) })
    }
}

impl Hook for Tape<'_> {
    fn wants(&self, site: Site) -> bool {
        self.edits.wants(site)
    }

    fn at(&mut self, site: Site, acts: &mut Acts) -> candle_core::Result<()> {
        let value = acts.get(site.kind)?;
        let value = if site.kind == SiteKind::FinalNorm {
            let normed = self.edits.made(site, value)?;
            self.normed.insert(normed).detach()
        } else {
            let logits = Var::from_tensor(value)?;
            self.edits.made(site, self.logits.insert(logits))?
        };
        acts.put(site.kind, value);
        Ok(())
    }

    fn opened(&self, _: usize) -> candle_core::Result<Vec<usize>> {
        Ok(Vec::new())
    }

    fn at_opened(&mut self, _: Site, _: usize, value: Tensor) -> candle_core::Result<Tensor> {
        Ok(value)
    }
}
