//! The end of the pass: what is read of the final norm and the logits.
//!
//! Both engines hand over the residual streams of single rows, named by run and position; only those that a readout
//! needs are normed and unembedded, and only the columns that it asks for unless it needs them all.

use super::edits::row_change;
use super::{Reading, RunError};
use crate::model::arch::Arch;
use crate::model::decoder::Decoder;
use crate::ops::vectors::dot;
use crate::ops::{self, RowEdit};
use crate::plan::{Change, Edit, Metric, Plan, Run, What, columns, resolve};
use crate::site::SiteKind;
use crate::stats::rng;
use candle_core::Tensor;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// A row of the end of the pass.
pub(super) type Row = (Run, usize);

/// Where the residual streams after the last layer come from.
pub(super) trait Residuals {
    /// The last layer's `resid_post` of these rows, in their order. `[rows, d_model]`
    fn rows(&self, rows: &[Row]) -> candle_core::Result<Tensor>;
}

/// Rows whose logits of a few tokens are held at once.
pub(super) const NARROW_ROWS: usize = 1024;

/// How many rows' logits over the whole vocabulary may be held at once, where so many copies of them stand side by side. A
/// streamed model is read its unembedding once for each so many.
pub(super) fn wide_rows(arch: &Arch, budget: usize, copies: usize) -> usize {
    (budget / (4 * copies * arch.vocab)).max(1)
}

/// Whether a readout is of the end of the pass.
pub(super) fn is_of_the_end(what: &What) -> bool {
    match what {
        What::Metric(_) | What::KlFrom(_) | What::Entropy | What::LogProbs { .. } => true,
        What::Attribution(_) => false,
        What::Activation { site, .. } | What::Projection { site, .. } => {
            matches!(site.kind, SiteKind::FinalNorm | SiteKind::Logits)
        }
        What::Gradient { .. } => false,
    }
}

/// Computes the readings of a plan's readouts that are of the end of the pass, with their numbers. `budget` is
/// [`super::Options::budget`].
pub(super) fn read(
    decoder: &Decoder,
    plan: &Plan,
    residuals: &dyn Residuals,
    budget: usize,
) -> Result<Vec<(usize, Reading)>, RunError> {
    let end = End { decoder, plan };
    let mut readings = Vec::new();
    // Readouts of a few columns go together in large products, the others a few at a time.
    let (narrow, wide): (Vec<usize>, Vec<usize>) = of_the_end(plan).partition(|i| end.columns(*i).is_some());
    // Logits are held on their device and on the host.
    for (list, most) in [(narrow, NARROW_ROWS), (wide, wide_rows(&decoder.arch, budget, 2))] {
        for chunk in chunks(plan, &list, most) {
            end.read_chunk(chunk, residuals, &mut readings)?;
        }
    }
    Ok(readings)
}

/// The readouts that are of the end of the pass.
fn of_the_end(plan: &Plan) -> impl Iterator<Item = usize> {
    (0..plan.readouts.len()).filter(|i| is_of_the_end(&plan.readouts[*i].what))
}

/// Readouts cut into lists that have at most so many rows each, those that interchanges take from included, or one readout.
fn chunks<'l>(plan: &Plan, list: &'l [usize], most: usize) -> Vec<&'l [usize]> {
    let (mut chunks, mut from, mut held) = (Vec::new(), 0, HashSet::new());
    for (at, i) in list.iter().enumerate() {
        let rows = with_donors(plan, rows_of(plan, *i));
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
pub(super) fn rows_read(plan: &Plan) -> Vec<Row> {
    with_donors(plan, of_the_end(plan).flat_map(|i| rows_of(plan, i)).collect())
}

/// The rows that a readout needs.
fn rows_of(plan: &Plan, readout: usize) -> Vec<Row> {
    let r = &plan.readouts[readout];
    let last = |run: Run| (run, plan.length(run) - 1);
    match &r.what {
        What::Metric(Metric::LogitDifference { .. } | Metric::AboveMean { .. })
        | What::Entropy
        | What::LogProbs { .. } => vec![last(r.run)],
        What::Metric(Metric::Continuation { from }) => (from - 1..last(r.run).1).map(|p| (r.run, p)).collect(),
        What::KlFrom(other) => vec![last(r.run), last(*other)],
        What::Activation { positions, .. } | What::Projection { positions, .. } => {
            let positions = resolve(positions, plan.length(r.run)).unwrap_or_default();
            positions.into_iter().map(|p| (r.run, p)).collect()
        }
        What::Attribution(_) | What::Gradient { .. } => Vec::new(),
    }
}

/// Rows, and those that interchanges at the end take from; each once, donors before their takers.
pub(super) fn with_donors(plan: &Plan, mut rows: Vec<Row>) -> Vec<Row> {
    let (mut at, mut donors) = (0, HashSet::new());
    while at < rows.len() {
        let (run, position) = rows[at];
        for edit in plan.lineage(run).flat_map(|fork| &fork.edits) {
            let at_end = matches!(edit.site.kind, SiteKind::FinalNorm | SiteKind::Logits);
            rows.extend(
                at_end.then(|| donor_row(plan, edit, run, position)).flatten().filter(|row| donors.insert(*row)),
            );
        }
        at += 1;
    }
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// The row that an interchange takes for a position, if it edits that position.
fn donor_row(plan: &Plan, edit: &Edit, run: Run, position: usize) -> Option<Row> {
    let Change::Interchange { donor, positions } = &edit.change else { return None };
    let keys = plan.length(run);
    let wanted = resolve(&edit.positions, keys).ok()?;
    let from = plan.donor_positions(edit, *donor, positions.as_deref(), keys).ok()?;
    wanted.iter().position(|p| *p == position).map(|i| (*donor, from[i]))
}

pub(super) struct End<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) plan: &'a Plan,
}

/// Values of some rows of the end: `[rows, width]` on the host, and which row of the pass each is.
struct Values {
    index: HashMap<Row, usize>,
    width: usize,
    values: Vec<f32>,
}

impl Values {
    fn row(&self, row: Row) -> &[f32] {
        let at = self.index[&row] * self.width;
        &self.values[at..at + self.width]
    }
}

impl End<'_> {
    /// The tokens whose logits a readout needs; none if it needs them all.
    fn columns(&self, readout: usize) -> Option<Vec<u32>> {
        let r = &self.plan.readouts[readout];
        let edits_logits = self.plan.edits_at(r.run, SiteKind::Logits);
        match &r.what {
            What::Metric(Metric::LogitDifference { answer, foil }) if !edits_logits => {
                Some(answer.iter().chain(foil).copied().collect())
            }
            What::Metric(Metric::AboveMean { tokens }) if !edits_logits => {
                let sample = mean_tokens(&self.decoder.arch).unwrap_or_default();
                Some(tokens.iter().copied().chain(sample).collect())
            }
            What::Activation { site, .. } | What::Projection { site, .. } if site.kind == SiteKind::FinalNorm => {
                Some(Vec::new())
            }
            _ => None,
        }
    }

    fn read_chunk(
        &self,
        chunk: &[usize],
        residuals: &dyn Residuals,
        readings: &mut Vec<(usize, Reading)>,
    ) -> Result<(), RunError> {
        let mut tokens: Option<Vec<u32>> = Some(Vec::new());
        let mut rows: Vec<Row> = Vec::new();
        for i in chunk {
            rows.extend(rows_of(self.plan, *i));
            match (self.columns(*i), &mut tokens) {
                (Some(more), Some(tokens)) => tokens.extend(more),
                _ => tokens = None,
            }
        }
        if let Some(tokens) = &mut tokens {
            tokens.sort_unstable();
            tokens.dedup();
            // The CPU sums a product with one column in another order than one with more: half of a difference may have one
            // token, and its reading must not depend on what is read beside it.
            if tokens.len() == 1 && self.decoder.arch.vocab > 1 {
                tokens.push(u32::from(tokens[0] == 0));
                tokens.sort_unstable();
            }
        }
        let rows = with_donors(self.plan, rows);
        let normed = self.decoder.final_norm(&residuals.rows(&rows)?)?;
        let normed = self.edited(normed, SiteKind::FinalNorm, &rows)?;
        let index: HashMap<Row, usize> = rows.iter().enumerate().map(|(i, r)| (*r, i)).collect();
        let logits = match &tokens {
            Some(tokens) if tokens.is_empty() => None,
            _ => Some(self.decoder.logits(&normed, tokens.as_deref())?),
        };
        let logits = match (logits, &tokens) {
            // Edits of logits are of whole rows; readouts of a few columns have none.
            (Some(logits), None) => Some(self.edited(logits, SiteKind::Logits, &rows)?),
            (logits, _) => logits,
        };
        let on_host = |t: Tensor| -> Result<Values, RunError> {
            Ok(Values { index: index.clone(), width: t.dim(1)?, values: ops::to_vec(&t)? })
        };
        let normed = on_host(normed)?;
        let logits = logits.map(on_host).transpose()?;
        for i in chunk {
            readings.push((*i, self.reading(*i, &normed, logits.as_ref(), tokens.as_deref())?));
        }
        Ok(())
    }

    /// Applies the edits of every row's run at `final_norm` or `logits`.
    pub(super) fn edited(&self, x: Tensor, kind: SiteKind, rows: &[Row]) -> Result<Tensor, RunError> {
        let index: HashMap<Row, usize> = rows.iter().enumerate().map(|(i, r)| (*r, i)).collect();
        let mut edits = Vec::new();
        for (i, (run, position)) in rows.iter().enumerate() {
            for edit in self.plan.edits(*run).into_iter().filter(|e| e.site.kind == kind) {
                let keys = self.plan.length(*run);
                if !resolve(&edit.positions, keys).unwrap_or_default().contains(position) {
                    continue;
                }
                let donor = donor_row(self.plan, edit, *run, *position).and_then(|row| index.get(&row).copied());
                let columns = columns(edit.site, &edit.part, &self.decoder.arch, keys);
                let columns: Arc<[Range<usize>]> = columns.map_err(candle_core::Error::wrap)?.into();
                edits.push(RowEdit { row: i, columns, change: row_change(&edit.change, donor) });
            }
        }
        Ok(ops::edit(&x, &edits)?)
    }

    fn reading(
        &self,
        i: usize,
        normed: &Values,
        logits: Option<&Values>,
        tokens: Option<&[u32]>,
    ) -> Result<Reading, RunError> {
        let r = &self.plan.readouts[i];
        let rows = rows_of(self.plan, i);
        let logits = || logits.ok_or_else(|| candle_core::Error::Msg("logits were not computed".to_string()));
        let column = |id: u32| match tokens {
            Some(tokens) => tokens.binary_search(&id).unwrap_or(0),
            None => id as usize,
        };
        Ok(match &r.what {
            What::Metric(Metric::LogitDifference { answer, foil }) => {
                let row = logits()?.row(rows[0]);
                let of = |ids: &[u32]| log_sum_exp(ids.iter().map(|id| f64::from(row[column(*id)])));
                Reading::Number(of(answer) - of(foil))
            }
            What::Metric(Metric::AboveMean { tokens: ids }) => {
                let row = logits()?.row(rows[0]);
                let above = log_sum_exp(ids.iter().map(|id| f64::from(row[column(*id)])));
                let mean = match (mean_tokens(&self.decoder.arch), tokens) {
                    (Some(sample), _) => mean_of(sample.iter().map(|id| row[column(*id)])),
                    (None, None) => mean_of(row.iter().copied()),
                    (None, Some(_)) => dot(normed.row(rows[0]), self.decoder.mean_unembedding()?),
                };
                Reading::Number(above - mean)
            }
            What::Metric(Metric::Continuation { from }) => {
                let ids = &self.plan.prompts[self.plan.root(r.run)].ids;
                let values = logits()?;
                let each = rows.iter().zip(&ids[*from..]).map(|(row, id)| log_probability(values.row(*row), *id));
                Reading::Number(each.sum())
            }
            What::Entropy => Reading::Number(entropy(logits()?.row(rows[0]))),
            What::LogProbs { tokens } => {
                let values = log_probabilities(logits()?.row(rows[0]), tokens);
                Reading::Array { shape: vec![tokens.len()], values }
            }
            What::KlFrom(_) => Reading::Number(kl(logits()?.row(rows[1]), logits()?.row(rows[0]))),
            What::Activation { site, part, .. } => {
                let of_logits = site.kind == SiteKind::Logits;
                let from = if of_logits { logits()? } else { normed };
                let columns = columns(*site, part, &self.decoder.arch, 0).map_err(candle_core::Error::wrap)?;
                let values = rows.iter().flat_map(|row| pick(from.row(*row), &columns)).collect();
                Reading::Array { shape: vec![rows.len(), columns.iter().map(Range::len).sum()], values }
            }
            What::Projection { site, direction, .. } => {
                let from = if site.kind == SiteKind::Logits { logits()? } else { normed };
                let values = rows.iter().map(|row| project(from.row(*row), direction)).collect();
                Reading::Array { shape: vec![rows.len()], values }
            }
            What::Attribution(_) | What::Gradient { .. } => {
                return Err(candle_core::Error::Msg(format!("readout {i} is not of the end of the pass")).into());
            }
        })
    }
}

/// Columns of a row, joined.
pub(super) fn pick(row: &[f32], columns: &[Range<usize>]) -> Vec<f32> {
    columns.iter().flat_map(|c| row[c.clone()].iter().copied()).collect()
}

/// The inner product, summed in f64.
pub(super) fn project(row: &[f32], direction: &[f32]) -> f32 {
    dot(row, direction) as f32
}

/// Where logits are soft-capped, the tokens whose mean logit stands in for the vocabulary's, ascending and the same for every run
/// of a model; none where the mean is that of the vocabulary, which is linear in what the final norm gives.
pub(super) fn mean_tokens(arch: &Arch) -> Option<Vec<u32>> {
    arch.logit_softcap?;
    let mut rng = rng(0, "mean logit");
    let mut sample = rand::seq::index::sample(&mut rng, arch.vocab, MEAN_TOKENS.min(arch.vocab)).into_vec();
    sample.sort_unstable();
    Some(sample.into_iter().map(|id| id as u32).collect())
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
    use crate::plan::{Part, Positions};

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
        let logits =
            |positions: Positions| What::Activation { site: SiteKind::Logits.at(0), positions, part: Part::All };
        for run in runs {
            plan.read(run, logits(Positions::All));
        }
        // Of the last row alone, which are there already, but for the other's.
        for what in [What::Entropy, What::KlFrom(runs[0]), logits(Positions::Last)] {
            plan.read(runs[2], what);
        }
        let at_most =
            |most: usize| chunks(&plan, &[0, 1, 2, 3, 4, 5], most).iter().map(|c| c.len()).collect::<Vec<_>>();
        assert_eq!(at_most(48), [6]);
        assert_eq!(at_most(45), [2, 4]);
        assert_eq!(at_most(4), [1, 1, 4]);
        assert_eq!(at_most(3), [1, 1, 2, 2]);
        assert_eq!(at_most(1), [1, 1, 1, 1, 1, 1]);
        assert!(chunks(&plan, &[], 1).is_empty());
        // What an interchange takes from is held too.
        let change = Change::interchange(runs[1]);
        let edit = Edit { site: SiteKind::Logits.at(0), part: Part::All, positions: Positions::Last, change };
        let fork = plan.fork(runs[0], vec![edit]);
        let entropies = [fork, runs[2]].map(|run| plan.read(run, What::Entropy));
        assert_eq!(chunks(&plan, &entropies, 2).len(), 2);
        assert_eq!(chunks(&plan, &entropies, 3).len(), 1);
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
        assert_eq!(with_donors(&plan, vec![(run, 1)]).len(), 41);
    }
}
