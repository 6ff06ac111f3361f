//! The end of the pass: what is read of the final norm and the logits.
//!
//! Both engines hand over the residual streams of single rows, named by run and position; only those that a readout
//! needs are normed and unembedded, and only the columns that it asks for unless it needs them all.

use super::{Reading, RunError};
use crate::model::decoder::Decoder;
use crate::ops::vectors::dot;
use crate::ops::{self, RowEdit};
use crate::plan::{Change, Edit, Metric, Plan, Run, What, columns, resolve};
use crate::site::SiteKind;
use candle_core::Tensor;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// A row of the end of the pass.
pub(super) type Row = (Run, usize);

/// Where the residual streams after the last layer come from.
pub(super) trait Residuals {
    /// The last layer's `resid_post` of these rows, in their order. `[rows, d_model]`
    fn rows(&self, rows: &[Row]) -> candle_core::Result<Tensor>;
}

/// Rows whose logits over the whole vocabulary are held at once.
pub(super) const ROWS_AT_ONCE: usize = 64;

/// Whether a readout is of the end of the pass.
pub(super) fn is_of_the_end(what: &What) -> bool {
    match what {
        What::Metric(_) | What::KlFrom(_) | What::Entropy => true,
        What::Attribution(_) => false,
        What::Activation { site, .. } | What::Projection { site, .. } => {
            matches!(site.kind, SiteKind::FinalNorm | SiteKind::Logits)
        }
        What::Gradient { .. } => false,
    }
}

/// Computes the readings of a plan's readouts that are of the end of the pass, with their numbers.
pub(super) fn read(
    decoder: &Decoder,
    plan: &Plan,
    residuals: &dyn Residuals,
) -> Result<Vec<(usize, Reading)>, RunError> {
    let end = End { decoder, plan };
    let mut readings = Vec::new();
    // Readouts of a few columns go together in large products, the others a few at a time.
    let (narrow, wide): (Vec<usize>, Vec<usize>) = (0..plan.readouts.len())
        .filter(|i| is_of_the_end(&plan.readouts[*i].what))
        .partition(|i| end.columns(*i).is_some());
    for (list, step) in [(narrow, 16 * ROWS_AT_ONCE), (wide, ROWS_AT_ONCE)] {
        for chunk in list.chunks(step) {
            end.read_chunk(chunk, residuals, &mut readings)?;
        }
    }
    Ok(readings)
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
        let edits_logits = self.plan.edits(r.run).iter().any(|e| e.site.kind == SiteKind::Logits);
        match &r.what {
            What::Metric(Metric::LogitDifference { answer, foil }) if !edits_logits => {
                Some(answer.iter().chain(foil).copied().collect())
            }
            What::Activation { site, .. } | What::Projection { site, .. } if site.kind == SiteKind::FinalNorm => {
                Some(Vec::new())
            }
            _ => None,
        }
    }

    /// The rows that a readout needs.
    fn rows(&self, readout: usize) -> Vec<Row> {
        let r = &self.plan.readouts[readout];
        let length = self.plan.length(r.run);
        match &r.what {
            What::Metric(Metric::LogitDifference { .. }) | What::Entropy => vec![(r.run, length - 1)],
            What::Metric(Metric::Continuation { from }) => (from - 1..length - 1).map(|p| (r.run, p)).collect(),
            What::KlFrom(other) => vec![(r.run, length - 1), (*other, self.plan.length(*other) - 1)],
            What::Attribution(_) => Vec::new(),
            What::Activation { positions, .. } | What::Projection { positions, .. } => {
                resolve(positions, length).unwrap_or_default().into_iter().map(|p| (r.run, p)).collect()
            }
            What::Gradient { .. } => Vec::new(),
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
            rows.extend(self.rows(*i));
            match (self.columns(*i), &mut tokens) {
                (Some(more), Some(tokens)) => tokens.extend(more),
                _ => tokens = None,
            }
        }
        if let Some(tokens) = &mut tokens {
            tokens.sort_unstable();
            tokens.dedup();
        }
        let rows = self.with_donors(rows);
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

    /// Rows, and those that interchanges at the end take from; each once, donors before their takers.
    pub(super) fn with_donors(&self, rows: Vec<Row>) -> Vec<Row> {
        let mut all: Vec<Row> = rows;
        let mut at = 0;
        while at < all.len() {
            let (run, position) = all[at];
            for edit in self.plan.edits(run) {
                let at_end = matches!(edit.site.kind, SiteKind::FinalNorm | SiteKind::Logits);
                if let (true, Some(donor)) = (at_end, self.donor_row(edit, run, position)) {
                    all.push(donor);
                }
            }
            at += 1;
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The row that an interchange takes for a position, if it edits that position.
    fn donor_row(&self, edit: &Edit, run: Run, position: usize) -> Option<Row> {
        let Change::Interchange { donor, positions } = &edit.change else { return None };
        let keys = self.plan.length(run);
        let wanted = resolve(&edit.positions, keys).ok()?;
        let from = self.plan.donor_positions(edit, *donor, positions.as_deref(), keys).ok()?;
        wanted.iter().position(|p| *p == position).map(|i| (*donor, from[i]))
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
                let donor = self.donor_row(edit, *run, *position).and_then(|row| index.get(&row).copied());
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
        let rows = self.rows(i);
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
            What::Metric(Metric::Continuation { from }) => {
                let ids = &self.plan.prompts[self.plan.root(r.run)].ids;
                let values = logits()?;
                let each = rows.iter().zip(&ids[*from..]).map(|(row, id)| log_probability(values.row(*row), *id));
                Reading::Number(each.sum())
            }
            What::Attribution(_) => {
                return Err(candle_core::Error::Msg(format!("readout {i} is of the whole pass")).into());
            }
            What::Entropy => Reading::Number(entropy(logits()?.row(rows[0]))),
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
            What::Gradient { .. } => {
                return Err(candle_core::Error::Msg(format!("readout {i} is not of the end of the pass")).into());
            }
        })
    }
}

/// An edit's change as it is made on a row, with the row that an interchange takes from.
pub(super) fn row_change(change: &Change, donor: Option<usize>) -> ops::RowChange {
    match change {
        Change::Zero => ops::RowChange::Zero,
        Change::Set(v) => ops::RowChange::Set(v.clone()),
        // The plan was checked: every interchange has its donor's row.
        Change::Interchange { .. } => ops::RowChange::CopyRow(donor.unwrap_or(usize::MAX)),
        Change::Add { vector, coefficient } => ops::RowChange::Add(vector.clone(), *coefficient),
        Change::ProjectOut(v) => ops::RowChange::ProjectOut(v.clone()),
        Change::Scale(c) => ops::RowChange::Scale(*c),
        Change::Clamp { low, high } => ops::RowChange::Clamp(*low, *high),
        Change::Map(f) => ops::RowChange::Map(f.clone()),
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

pub(crate) fn log_sum_exp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = x.clone().fold(f64::NEG_INFINITY, f64::max);
    max + x.map(|v| (v - max).exp()).sum::<f64>().ln()
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

    #[test]
    fn divergences_and_log_probabilities_follow_their_formulas() {
        let (p, q) = ([0.0f32, 0.0], [1f32.exp().ln(), 0.0]);
        let (a, b) = (1f64.exp() / (1f64.exp() + 1.0), 1.0 / (1f64.exp() + 1.0));
        assert!((kl(&p, &q) - (0.5 * (0.5 / a).ln() + 0.5 * (0.5 / b).ln())).abs() < 1e-7);
        assert_eq!(kl(&q, &q), 0.0);
        assert!((entropy(&p) - 2f64.ln()).abs() < 1e-7);
        assert!((entropy(&q) + a * a.ln() + b * b.ln()).abs() < 1e-7);
        assert!((log_probability(&q, 0) - a.ln()).abs() < 1e-7);
        assert!((log_sum_exp([1000.0, 1000.0].into_iter()) - (1000.0 + 2f64.ln())).abs() < 1e-9);
    }
}
