//! What training changed of a matrix.

use crate::analyses::AnalysisError;
use crate::linear::spectrum::{Singular, principal_angles};
use crate::model::Model;
use crate::model::weights::StoredMatrix;
use crate::plan::{Array, Reading};
use candle_core::{Device, Tensor};
use half::bf16;

/// How a matrix differs from its parent's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Against {
    /// `|W - W0| / |W0|`
    pub relative_change: f64,
    /// The share of entries that are the same once both are rounded to bf16, within a thousandth of the larger.
    pub update_sparsity: f64,
    /// `|s - s0| / |s0|` over the singular values that are known of both.
    pub spectral_drift: f64,
    /// The largest and the mean angle between the principal left subspaces, degrees; none where a matrix is 0.
    pub left: Option<[f64; 2]>,
    /// The same on the right.
    pub right: Option<[f64; 2]>,
    /// The share of the changed entries that are among the largest tenth of the parent's principal part; none where none changed.
    pub in_principal: Option<f64>,
    /// The share of them that are among the parent's smallest tenth.
    pub in_small: Option<f64>,
}

/// The child's matrix.
pub(super) struct Side<'a> {
    pub values: &'a Tensor,
    pub singular: &'a Singular,
}

/// The parent's, which is read again.
pub(super) struct Parent<'a> {
    pub model: &'a Model,
    pub matrix: &'a StoredMatrix,
    pub singular: &'a Singular,
}

/// Entries that are compared at once.
const AT_ONCE: usize = 1 << 20;

/// Two entries are the same where they differ by no more than this share of the larger ("The Path Not Taken").
const SAME: f64 = 1e-3;

/// Some rows of both matrices.
struct Rows {
    child: Vec<f32>,
    parent: Vec<f32>,
    /// The magnitudes of the parent's principal part.
    principal: Vec<f64>,
}

impl Against {
    pub(super) fn new(child: &Side, parent: &Parent) -> Result<Against, AnalysisError> {
        let failed =
            |e: String| AnalysisError::Failed(format!("{}: `{}`: {e}", parent.model.name, parent.matrix.tensor));
        // A matrix of a lower rank has no more directions than that.
        let k = rank(child.singular).min(rank(parent.singular));
        let angles = |a: &Tensor, b: &Tensor| -> Result<Option<[f64; 2]>, AnalysisError> {
            if k == 0 {
                return Ok(None);
            }
            let top =
                |of: &Tensor| of.narrow(0, 0, k).and_then(|of| of.contiguous()).map_err(|e| failed(e.to_string()));
            let found = principal_angles(&top(a)?, &top(b)?).map_err(|e| failed(e.to_string()))?;
            let mean = found.iter().sum::<f64>() / found.len().max(1) as f64;
            Ok(Some([found.iter().copied().fold(0.0, f64::max), mean].map(f64::to_degrees)))
        };
        let entries = Entries::count(child, parent)?;
        Ok(Against {
            relative_change: entries.relative_change,
            update_sparsity: 1.0 - entries.changed as f64 / entries.all.max(1) as f64,
            spectral_drift: drift(&child.singular.values, &parent.singular.values),
            left: angles(&child.singular.left, &parent.singular.left)?,
            right: angles(&child.singular.right, &parent.singular.right)?,
            in_principal: entries.share(entries.in_principal),
            in_small: entries.share(entries.in_small),
        })
    }

    pub(super) fn reading(self) -> Reading {
        let share = |x: Option<f64>| x.unwrap_or(f64::NAN);
        let [left, left_mean] = self.left.unwrap_or([f64::NAN; 2]);
        let [right, right_mean] = self.right.unwrap_or([f64::NAN; 2]);
        let numbers = [
            self.relative_change,
            self.update_sparsity,
            self.spectral_drift,
            left,
            left_mean,
            right,
            right_mean,
            share(self.in_principal),
            share(self.in_small),
        ];
        Reading::Array(Array { shape: vec![numbers.len()], values: numbers.iter().map(|x| *x as f32).collect() })
    }

    pub(super) fn of(reading: &Reading) -> Option<Against> {
        let numbers: Vec<f64> = reading.values().iter().map(|x| f64::from(*x)).collect();
        let [change, sparsity, drift, left, left_mean, right, right_mean, principal, small] = numbers[..] else {
            return None;
        };
        let share = |x: f64| x.is_finite().then_some(x);
        Some(Against {
            relative_change: change,
            update_sparsity: sparsity,
            spectral_drift: drift,
            left: share(left).map(|left| [left, left_mean]),
            right: share(right).map(|right| [right, right_mean]),
            in_principal: share(principal),
            in_small: share(small),
        })
    }
}

/// How many of a matrix's principal directions are more than rounding.
fn rank(of: &Singular) -> usize {
    let first = of.values.first().copied().unwrap_or(0.0);
    let k = of.left.dims().first().copied().unwrap_or(0);
    of.values.iter().take(k).take_while(|s| **s > 1e-6 * first).count()
}

/// How far the values moved, as a share of the parent's.
fn drift(child: &[f64], parent: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let moved: f64 = child.iter().zip(parent).map(|(s, s0)| square(s - s0)).sum();
    let all: f64 = parent.iter().take(child.len()).map(|s| square(*s)).sum();
    if all > 0.0 { (moved / all).sqrt() } else { 0.0 }
}

/// What was counted over all entries.
struct Entries {
    all: usize,
    changed: usize,
    in_principal: usize,
    in_small: usize,
    relative_change: f64,
}

impl Entries {
    fn share(&self, of: usize) -> Option<f64> {
        (self.changed > 0).then(|| of as f64 / self.changed as f64)
    }

    /// Goes over both matrices three times, some rows at a time: which entries are the largest tenth is known exactly only at the
    /// end of the second.
    fn count(child: &Side, parent: &Parent) -> Result<Entries, AnalysisError> {
        let all = parent.matrix.rows * parent.matrix.columns;
        let (mut principal, mut small) = (Tenth::new(End::Largest, all), Tenth::new(End::Smallest, all));
        let (mut moved, mut whole, mut changed) = (0.0f64, 0.0f64, 0);
        each_rows(child, parent, &mut |rows| {
            for ((w, w0), p) in rows.child.iter().zip(&rows.parent).zip(&rows.principal) {
                let (w, w0) = (f64::from(*w), f64::from(*w0));
                moved += (w - w0) * (w - w0);
                whole += w0 * w0;
                principal.place(*p);
                small.place(w0);
            }
            changed += rows.child.iter().zip(&rows.parent).filter(|(w, w0)| is_changed(**w, **w0)).count();
        })?;
        principal.settle_bin();
        small.settle_bin();
        each_rows(child, parent, &mut |rows| {
            rows.principal.iter().for_each(|p| principal.collect(*p));
            rows.parent.iter().for_each(|w0| small.collect(f64::from(*w0)));
        })?;
        principal.settle();
        small.settle();
        let (mut in_principal, mut in_small) = (0, 0);
        each_rows(child, parent, &mut |rows| {
            for ((w, w0), p) in rows.child.iter().zip(&rows.parent).zip(&rows.principal) {
                // Ties are taken in the order of the entries, changed or not.
                let (large, least) = (principal.holds(*p), small.holds(f64::from(*w0)));
                if is_changed(*w, *w0) {
                    in_principal += usize::from(large);
                    in_small += usize::from(least);
                }
            }
        })?;
        let relative_change = if whole > 0.0 { (moved / whole).sqrt() } else { 0.0 };
        Ok(Entries { all, changed, in_principal, in_small, relative_change })
    }
}

/// Whether an entry is another one once both are rounded to bf16.
fn is_changed(w: f32, w0: f32) -> bool {
    let [w, w0] = [w, w0].map(|x| f64::from(bf16::from_f32(x).to_f32()));
    (w - w0).abs() > SAME * w.abs().max(w0.abs())
}

/// Hands over both matrices, some rows at a time.
fn each_rows(child: &Side, parent: &Parent, then: &mut dyn FnMut(&Rows)) -> Result<(), AnalysisError> {
    let (matrix, model) = (parent.matrix, parent.model);
    let failed = |e: String| AnalysisError::Failed(format!("{}: `{}`: {e}", model.name, matrix.tensor));
    let step = (AT_ONCE / matrix.columns).max(1);
    let scales = &parent.singular.values[..parent.singular.left.dims()[0]];
    for from in (0..matrix.rows).step_by(step) {
        let rows = from..matrix.rows.min(from + step);
        let of_parent = model.decoder.rows_of(matrix, rows.clone()).map_err(|e| failed(e.to_string()))?;
        let made = || -> candle_core::Result<(Vec<f32>, Vec<f64>)> {
            let child = child.values.narrow(0, rows.start, rows.len())?.flatten_all()?.to_vec1::<f32>()?;
            let scales = Tensor::from_vec(scales.to_vec(), (1, scales.len()), &Device::Cpu)?;
            let left = parent.singular.left.narrow(1, rows.start, rows.len())?.t()?.contiguous()?;
            let part = left.broadcast_mul(&scales)?.matmul(&parent.singular.right)?;
            Ok((child, part.abs()?.flatten_all()?.to_vec1::<f64>()?))
        };
        let (child, principal) = made().map_err(|e| failed(e.to_string()))?;
        then(&Rows { child, parent: of_parent, principal });
    }
    Ok(())
}

/// Which end of an order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Largest,
    Smallest,
}

/// The tenth of many numbers whose magnitudes are at one end, found without holding them: they are counted by their leading bits,
/// then those that share the bits of the last one that is in are held and ordered.
struct Tenth {
    end: End,
    wanted: usize,
    counts: Vec<usize>,
    /// The leading bits of the last one that is in, and how many come before all that have them.
    bin: usize,
    before: usize,
    held: Vec<u64>,
    /// The last one that is in, and how many equal to it are.
    last: u64,
    ties: usize,
}

/// Bits of a magnitude that it is not counted by.
const REST: u32 = 48;

/// A magnitude as a number that has its order: bits of numbers that are not negative are ordered as they are.
fn bits(x: f64) -> u64 {
    x.abs().to_bits()
}

impl Tenth {
    fn new(end: End, all: usize) -> Tenth {
        let wanted = (all + 5) / 10;
        Tenth { end, wanted, counts: vec![0; 1 << 16], bin: 0, before: 0, held: Vec::new(), last: 0, ties: 0 }
    }

    fn place(&mut self, x: f64) {
        self.counts[(bits(x) >> REST) as usize] += 1;
    }

    /// All are placed.
    fn settle_bin(&mut self) {
        let last = self.counts.len() - 1;
        for i in 0..=last {
            self.bin = if self.end == End::Largest { last - i } else { i };
            if self.before + self.counts[self.bin] >= self.wanted {
                return;
            }
            self.before += self.counts[self.bin];
        }
    }

    fn collect(&mut self, x: f64) {
        if (bits(x) >> REST) as usize == self.bin {
            self.held.push(bits(x));
        }
    }

    /// All that may be the last one in are collected.
    fn settle(&mut self) {
        self.held.sort_unstable();
        if self.end == End::Largest {
            self.held.reverse();
        }
        let within = &self.held[..self.wanted.saturating_sub(self.before).min(self.held.len())];
        self.last = within.last().copied().unwrap_or(0);
        self.ties = within.iter().filter(|bits| **bits == self.last).count();
        self.held = Vec::new();
    }

    /// Whether the next number, in the order of the entries, is in.
    fn holds(&mut self, x: f64) -> bool {
        let bits = bits(x);
        if bits == self.last {
            let is = self.ties > 0;
            self.ties -= usize::from(is);
            return is;
        }
        match self.end {
            _ if self.wanted == 0 => false,
            End::Largest => bits > self.last,
            End::Smallest => bits < self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenth(end: End, numbers: &[f64]) -> Vec<usize> {
        let mut tenth = Tenth::new(end, numbers.len());
        numbers.iter().for_each(|x| tenth.place(*x));
        tenth.settle_bin();
        numbers.iter().for_each(|x| tenth.collect(*x));
        tenth.settle();
        (0..numbers.len()).filter(|i| tenth.holds(numbers[*i])).collect()
    }

    #[test]
    fn a_tenth_is_that_of_the_sorted_magnitudes_and_of_equal_ones_the_first() {
        let numbers: Vec<f64> = (0..40).map(|i| f64::from((i * 17) % 40) - 20.0).collect();
        let mut by_size: Vec<usize> = (0..40).collect();
        by_size.sort_by(|a, b| numbers[*a].abs().total_cmp(&numbers[*b].abs()).then(a.cmp(b)));
        let mut least = by_size[..4].to_vec();
        least.sort_unstable();
        assert_eq!(tenth(End::Smallest, &numbers), least);
        let mut by_size: Vec<usize> = (0..40).collect();
        by_size.sort_by(|a, b| numbers[*b].abs().total_cmp(&numbers[*a].abs()).then(a.cmp(b)));
        let mut most = by_size[..4].to_vec();
        most.sort_unstable();
        assert_eq!(tenth(End::Largest, &numbers), most);
        assert_eq!(tenth(End::Largest, &[2.0; 30]), [0, 1, 2]);
        assert_eq!(tenth(End::Smallest, &[0.0; 30]), [0, 1, 2]);
        assert!(tenth(End::Smallest, &[1.0, 2.0]).is_empty());
    }

    #[test]
    fn an_entry_is_changed_where_bf16_shows_it() {
        assert!(!is_changed(1.0, 1.001), "they round to one number");
        assert!(is_changed(1.0, 1.01) && is_changed(0.0, 1e-30) && !is_changed(0.0, 0.0));
        // Neighbours of bf16 differ by 1 of 256.
        assert!(is_changed(1.0, 1.0 + 1.0 / 128.0));
    }

    #[test]
    fn values_drift_by_how_far_they_moved() {
        assert!((drift(&[3.0, 4.0], &[0.0, 5.0]) - (10.0f64).sqrt() / 5.0).abs() < 1e-12);
        assert_eq!(drift(&[1.0], &[1.0]), 0.0);
    }
}
