//! The end of the pass: what is read of the final norm and the logits.
//!
//! Both engines hand over the residual streams of single rows, named by run and position; only those that a readout
//! needs are normed and unembedded, and only the columns that it asks for unless it needs them all.

use super::edits::row_edits;
use super::reading::of_rows;
use super::{Found, RunError};
use crate::model::arch::Arch;
use crate::model::decoder::{Acts, Decoder, Hook};
use crate::ops::rows::Rows;
use crate::ops::vectors::dot;
use crate::ops::{self, RowChange};
use crate::plan::{Array, EndReadout, EndWhat, Placed, Program, Reading, Row, Run};
use crate::site::{Site, SiteKind};
use crate::stats::rng;
use candle_core::{Result, Tensor};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Where the residual streams after the last layer come from.
pub(super) trait Residuals {
    /// The last layer's `resid_post` of these rows, in their order. `[rows, d_model]`
    fn rows(&self, rows: &[Row]) -> Result<Tensor>;
}

/// Rows whose logits of a few tokens are held at once.
pub(super) const NARROW_ROWS: usize = 1024;

/// How many rows' logits over the whole vocabulary may be held at once, where so many copies of them stand side by side. A
/// streamed model is read its unembedding once for each so many.
pub(super) fn wide_rows(arch: &Arch, budget: usize, copies: usize) -> usize {
    (budget / (4 * copies * arch.vocab)).max(1)
}

/// Computes the readings of a program's readouts that are of the end of the pass. `budget` is [`super::Options::budget`].
pub(super) fn read(
    decoder: &Decoder,
    program: &Program,
    residuals: &dyn Residuals,
    budget: usize,
) -> std::result::Result<Found, RunError> {
    let mut found = Found::new();
    // Readouts of a few columns go together in large products, the others a few at a time.
    let (narrow, wide): (Vec<&EndReadout>, Vec<&EndReadout>) =
        program.at_end.iter().partition(|read| columns(&decoder.arch, read).is_some());
    // Logits are held on their device and on the host.
    for (list, most) in [(narrow, NARROW_ROWS), (wide, wide_rows(&decoder.arch, budget, 2))] {
        for chunk in chunks(program, &list, most) {
            read_chunk(decoder, program, chunk, residuals, &mut found)?;
        }
    }
    Ok(found)
}

/// Readouts cut into lists that have at most so many rows each, those that interchanges take from included, or one readout.
fn chunks<'l, 'p>(program: &Program, list: &'l [&'p EndReadout<'p>], most: usize) -> Vec<&'l [&'p EndReadout<'p>]> {
    let (mut chunks, mut from, mut held) = (Vec::new(), 0, HashSet::new());
    for (at, read) in list.iter().enumerate() {
        let rows = with_donors(program, read.rows.clone());
        let more = rows.iter().filter(|row| !held.contains(*row)).count();
        if at > from && held.len() + more > most {
            chunks.push(&list[from..at]);
            from = at;
            held.clear();
        }
        held.extend(rows);
    }
    chunks.extend((from < list.len()).then(|| &list[from..]));
    chunks
}

/// All rows that readouts of the end need.
pub(super) fn rows_read(program: &Program) -> Vec<Row> {
    with_donors(program, program.at_end.iter().flat_map(|read| read.rows.iter().copied()).collect())
}

/// Whether a site is at the end of the pass.
fn is_at_end(site: Site) -> bool {
    matches!(site.kind, SiteKind::FinalNorm | SiteKind::Logits)
}

/// Rows, and those that interchanges at the end take from; each once, donors before their takers.
pub(super) fn with_donors(program: &Program, mut rows: Vec<Row>) -> Vec<Row> {
    let (mut at, mut donors) = (0, HashSet::new());
    while at < rows.len() {
        let (run, position) = rows[at];
        for edit in program.edits(run).into_iter().filter(|edit| is_at_end(edit.site)) {
            rows.extend(edit.donor_row(position).filter(|row| donors.insert(*row)));
        }
        at += 1;
    }
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// The edits at the end of the pass of some rows, as a hook of it.
pub(super) struct Edits<'a> {
    program: &'a Program<'a>,
    rows: &'a [Row],
    index: HashMap<Row, usize>,
    /// Whether rows of logits are whole. Readouts of a few columns have no edits there.
    logits_are_whole: bool,
}

impl<'a> Edits<'a> {
    pub(super) fn new(program: &'a Program<'a>, rows: &'a [Row], logits_are_whole: bool) -> Self {
        let index = rows.iter().enumerate().map(|(i, r)| (*r, i)).collect();
        Edits { program, rows, index, logits_are_whole }
    }

    /// A site's value with the edits of every row's run. `[rows, width]`
    pub(super) fn made(&self, site: Site, x: &Tensor) -> Result<Tensor> {
        if site.kind == SiteKind::Logits && !self.logits_are_whole {
            return Ok(x.clone());
        }
        let mut edits = Vec::new();
        for (i, (run, position)) in self.rows.iter().enumerate() {
            // Donors' rows are there: `with_donors`.
            let take = |donor: Run, p: usize, _: &[Range<usize>]| Ok(RowChange::CopyRow(self.index[&(donor, p)]));
            let here = |edit: &&Placed| edit.site.kind == site.kind && edit.positions.contains(position);
            for edit in self.program.edits(*run).into_iter().filter(here) {
                edits.extend(row_edits(edit, |p| (p == *position).then_some(i), take)?);
            }
        }
        ops::edit(x, &edits)
    }
}

impl Hook for Edits<'_> {
    fn wants(&self, site: Site) -> bool {
        is_at_end(site)
    }

    fn at(&mut self, site: Site, acts: &mut Acts) -> Result<()> {
        let edited = self.made(site, acts.get(site.kind)?)?;
        acts.put(site.kind, edited);
        Ok(())
    }

    fn opened(&self, _: usize) -> Result<Vec<usize>> {
        Ok(Vec::new())
    }

    fn at_opened(&mut self, _: Site, _: usize, value: Tensor) -> Result<Tensor> {
        Ok(value)
    }
}

/// Values of some rows of the end, on the host.
struct Values<'a> {
    index: &'a HashMap<Row, usize>,
    width: usize,
    /// `[rows, width]`
    values: Vec<f32>,
}

impl<'a> Values<'a> {
    fn of(index: &'a HashMap<Row, usize>, x: &Tensor) -> Result<Self> {
        Ok(Values { index, width: x.dim(1)?, values: ops::to_vec(x)? })
    }

    fn row(&self, row: Row) -> &[f32] {
        let at = self.index[&row] * self.width;
        &self.values[at..at + self.width]
    }

    /// Rows, joined.
    fn rows(&self, rows: &[Row]) -> Vec<f32> {
        rows.iter().flat_map(|row| self.row(*row)).copied().collect()
    }
}

/// The tokens whose logits a readout needs; none if it needs them all.
fn columns(arch: &Arch, read: &EndReadout) -> Option<Vec<u32>> {
    match &read.what {
        EndWhat::Difference { answer, foil } if !read.logits_are_edited => {
            Some(answer.iter().chain(*foil).copied().collect())
        }
        EndWhat::AboveMean(tokens) if !read.logits_are_edited => {
            Some(tokens.iter().copied().chain(mean_tokens(arch).unwrap_or_default()).collect())
        }
        EndWhat::Normed(_) => Some(Vec::new()),
        _ => None,
    }
}

/// The tokens whose logits some readouts need, ascending; none if one of them needs them all.
fn tokens_of(arch: &Arch, chunk: &[&EndReadout]) -> Option<Vec<u32>> {
    let mut tokens = chunk.iter().map(|read| columns(arch, read)).collect::<Option<Vec<_>>>()?.concat();
    tokens.sort_unstable();
    tokens.dedup();
    Some(tokens)
}

fn read_chunk(
    decoder: &Decoder,
    program: &Program,
    chunk: &[&EndReadout],
    residuals: &dyn Residuals,
    found: &mut Found,
) -> std::result::Result<(), RunError> {
    let tokens = tokens_of(&decoder.arch, chunk);
    let rows = with_donors(program, chunk.iter().flat_map(|read| read.rows.iter().copied()).collect());
    let mut hook = Edits::new(program, &rows, tokens.is_none());
    let mut acts = Acts::new(Rows::default());
    acts.put(SiteKind::ResidPre, residuals.rows(&rows)?);
    decoder.end(tokens.as_deref(), &mut acts, &mut hook)?;
    let normed = Values::of(&hook.index, acts.get(SiteKind::FinalNorm)?)?;
    let logits = match tokens.as_deref() {
        Some([]) => Values { index: &hook.index, width: 0, values: Vec::new() },
        _ => Values::of(&hook.index, acts.get(SiteKind::Logits)?)?,
    };
    for read in chunk {
        found.push((read.readout, reading(decoder, read, &normed, (&logits, tokens.as_deref()))?));
    }
    Ok(())
}

/// A readout's reading from the final norm's rows and the logits, of some tokens or of all.
fn reading(
    decoder: &Decoder,
    read: &EndReadout,
    normed: &Values,
    (logits, tokens): (&Values, Option<&[u32]>),
) -> std::result::Result<Reading, RunError> {
    let rows = &read.rows;
    let row = || logits.row(rows[0]);
    let column = |id: u32| match tokens {
        Some(tokens) => tokens.partition_point(|t| *t < id),
        None => id as usize,
    };
    let total = |ids: &[u32]| log_sum_exp(ids.iter().map(|id| f64::from(row()[column(*id)])));
    Ok(match &read.what {
        EndWhat::Difference { answer, foil } => Reading::Number(total(answer) - total(foil)),
        EndWhat::AboveMean(ids) => {
            let mean = match (mean_tokens(&decoder.arch), tokens) {
                (Some(sample), _) => mean_of(sample.iter().map(|id| row()[column(*id)])),
                (None, None) => mean_of(row().iter().copied()),
                (None, Some(_)) => {
                    dot(normed.row(rows[0]), decoder.mean_unembedding()?) + decoder.unembedding_bias(&[])?.1
                }
            };
            Reading::Number(total(ids) - mean)
        }
        EndWhat::Continuation(ids) => {
            let each = rows.iter().zip(*ids).map(|(row, id)| log_probability(logits.row(*row), *id));
            Reading::Number(each.sum())
        }
        EndWhat::Entropy => Reading::Number(entropy(row())),
        EndWhat::Rank(token) => {
            let (row, own) = (row(), row()[*token as usize]);
            Reading::Number(1.0 + row.iter().filter(|logit| **logit > own).count() as f64)
        }
        EndWhat::LogProbs(tokens) => {
            let values = log_probabilities(row(), tokens);
            Reading::Array(Array { shape: vec![tokens.len()], values })
        }
        EndWhat::Kl => Reading::Number(kl(logits.row(rows[1]), row())),
        EndWhat::Normed(take) => of_rows(take, &normed.rows(rows), rows.len()),
        EndWhat::Logits(take) => of_rows(take, &logits.rows(rows), rows.len()),
    })
}

/// Where logits are soft-capped, the tokens whose mean logit stands in for the vocabulary's, ascending and the same for every run
/// of a model; none where the mean is that of the vocabulary, which is linear in what the final norm gives.
pub(super) fn mean_tokens(arch: &Arch) -> Option<Vec<u32>> {
    let n = n_mean_tokens(arch)?;
    let mut rng = rng(0, "mean logit");
    let mut sample = rand::seq::index::sample(&mut rng, arch.vocab, n).into_vec();
    sample.sort_unstable();
    Some(sample.into_iter().map(|id| id as u32).collect())
}

/// How many [`mean_tokens`] there are.
pub(super) fn n_mean_tokens(arch: &Arch) -> Option<usize> {
    arch.logit_softcap.map(|_| MEAN_TOKENS.min(arch.vocab))
}

/// How many tokens a mean is over where it would need every logit.
const MEAN_TOKENS: usize = 1024;

fn mean_of(logits: impl ExactSizeIterator<Item = f32>) -> f64 {
    let n = logits.len() as f64;
    logits.map(f64::from).sum::<f64>() / n
}

pub(crate) fn log_sum_exp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = x.clone().fold(f64::NEG_INFINITY, f64::max);
    max + x.map(|v| (v - max).exp()).sum::<f64>().ln()
}

/// The log-probabilities of some tokens, in nats.
fn log_probabilities(logits: &[f32], tokens: &[u32]) -> Vec<f32> {
    let total = log_sum_exp(logits.iter().map(|v| f64::from(*v)));
    tokens.iter().map(|id| (f64::from(logits[*id as usize]) - total) as f32).collect()
}

fn log_probability(logits: &[f32], id: u32) -> f64 {
    f64::from(logits[id as usize]) - log_sum_exp(logits.iter().map(|v| f64::from(*v)))
}

/// `KL(p || q)` of the distributions that two rows of logits give, in nats.
fn kl(p: &[f32], q: &[f32]) -> f64 {
    let total = |x: &[f32]| log_sum_exp(x.iter().map(|v| f64::from(*v)));
    let (zp, zq) = (total(p), total(q));
    let each = p.iter().zip(q).map(|(p, q)| {
        let (lp, lq) = (f64::from(*p) - zp, f64::from(*q) - zq);
        lp.exp() * (lp - lq)
    });
    // Rounding can leave a divergence of nothing a hair below it.
    each.sum::<f64>().max(0.0)
}

/// The entropy of the distribution that a row of logits gives, in nats.
fn entropy(logits: &[f32]) -> f64 {
    let z = log_sum_exp(logits.iter().map(|v| f64::from(*v)));
    logits.iter().map(|v| f64::from(*v) - z).map(|lp| -lp.exp() * lp).sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Activation, Change, Edit, Entropy, Part, Plan, Positions, What};

    #[test]
    fn divergences_and_log_probabilities_follow_their_formulas() {
        let (p, q) = ([0.0f32, 0.0], [1f32.exp().ln(), 0.0]);
        let (a, b) = (1f64.exp() / (1f64.exp() + 1.0), 1.0 / (1f64.exp() + 1.0));
        assert!((kl(&p, &q) - (0.5 * (0.5 / a).ln() + 0.5 * (0.5 / b).ln())).abs() < 1e-7);
        assert_eq!(kl(&q, &q), 0.0);
        assert!((entropy(&p) - 2f64.ln()).abs() < 1e-7);
        assert!((entropy(&q) + a * a.ln() + b * b.ln()).abs() < 1e-7);
        assert!((log_probability(&q, 0) - a.ln()).abs() < 1e-7);
        let both = log_probabilities(&q, &[1, 0]);
        assert!((f64::from(both[0]) - b.ln()).abs() < 1e-7 && (f64::from(both[1]) - a.ln()).abs() < 1e-7);
        assert!((log_sum_exp([1000.0, 1000.0].into_iter()) - (1000.0 + 2f64.ln())).abs() < 1e-9);
    }

    #[test]
    fn the_mean_of_soft_capped_logits_is_over_the_same_tokens_in_every_run() {
        let mut arch = crate::model::tests::tiny_arch();
        arch.logit_softcap = None;
        assert_eq!(mean_tokens(&arch), None);
        arch.logit_softcap = Some(30.0);
        arch.vocab = 256_000;
        let sample = mean_tokens(&arch).expect("a sample");
        assert!(sample.len() == 1024 && sample.windows(2).all(|w| w[0] < w[1]) && sample[1023] < 256_000);
        assert!(sample[0] < 2_000 && sample[1023] > 254_000, "spread over the vocabulary");
        assert_eq!(mean_tokens(&arch), Some(sample));
        arch.vocab = 100;
        assert_eq!(mean_tokens(&arch), Some((0..100).collect()));
    }

    #[test]
    fn readouts_are_read_together_while_their_rows_are_few() {
        let mut plan = Plan::default();
        let runs = [5, 40, 3].map(|n| plan.prompt("p", vec![1; n]));
        let logits = |positions: Positions| {
            What::Activation(Activation { site: SiteKind::Logits.at(0), positions, part: Part::All })
        };
        for run in runs {
            plan.read(run, logits(Positions::All));
        }
        // Of the last row alone, which are there already, but for the other's.
        for what in [What::Entropy, What::KlFrom(runs[0]), logits(Positions::Last)] {
            plan.read(runs[2], what);
        }
        let arch = crate::model::tests::tiny_arch();
        let sizes = |plan: &Plan, readouts: std::ops::Range<usize>, most: usize| {
            let program = plan.compile(&arch).expect("a sound plan");
            let list: Vec<&EndReadout> = program.at_end[readouts].iter().collect();
            chunks(&program, &list, most).iter().map(|c| c.len()).collect::<Vec<_>>()
        };
        let at_most = |most: usize| sizes(&plan, 0..6, most);
        assert_eq!(at_most(48), [6]);
        assert_eq!(at_most(45), [2, 4]);
        assert_eq!(at_most(4), [1, 1, 4]);
        assert_eq!(at_most(3), [1, 1, 2, 2]);
        assert_eq!(at_most(1), [1, 1, 1, 1, 1, 1]);
        assert!(sizes(&plan, 0..0, 1).is_empty());
        // What an interchange takes from is held too.
        let change = Change::interchange(runs[1]);
        let edit = Edit { site: SiteKind::Logits.at(0), part: Part::All, positions: Positions::Last, change };
        let fork = plan.fork(runs[0], vec![edit]);
        for run in [fork, runs[2]] {
            plan.read(run, Entropy);
        }
        assert_eq!(sizes(&plan, 6..8, 2).len(), 2);
        assert_eq!(sizes(&plan, 6..8, 3).len(), 1);
    }

    #[test]
    fn rows_that_take_from_each_other_in_chains_are_found_once() {
        let mut plan = Plan::default();
        let mut run = plan.prompt("p", vec![1; 2]);
        // Two ways from each to the one before it: by names alone there would be 2^40 rows.
        for _ in 0..40 {
            let of = |kind: SiteKind| Edit {
                site: kind.at(0),
                part: Part::All,
                positions: Positions::Last,
                change: Change::interchange(run),
            };
            run = plan.fork(Run::Prompt(0), vec![of(SiteKind::FinalNorm), of(SiteKind::Logits)]);
        }
        let arch = crate::model::tests::tiny_arch();
        let program = plan.compile(&arch).expect("a sound plan");
        assert_eq!(with_donors(&program, vec![(run, 1)]).len(), 41);
    }
}
