//! Effects of edits over items: their statistics as a table. What figures and text make of that table is in `read`.
//!
//! Interchange and ablation measure the same thing in different ways: how far an edit of a head or site moves each
//! item's metric. A *variant* is a way of editing (a direction of interchange, a mode of ablation). All units of one
//! variant are a family: p-values are corrected over it, and their permutations flip the same signs.

mod read;

pub use read::{Read, Row, interval, read, subset_section};

use super::inputs::Unit;
use super::marks::MarkArgs;
use super::summary::{Swap, mean, sd};
use super::{AnalysisError, halves, marks};
use crate::stats::{Bootstrap, bca_family, bca_ratio_family, benjamini_hochberg, draws_for, sign_flip_family};
use crate::table::Table;

/// Significance in figures and text: q-values under this.
pub const SIGNIFICANT: f64 = 0.05;

/// What intervals are, for legends.
pub const INTERVAL: &str = "95 % BCa interval";

/// A unit under one variant, over items.
pub struct Measured {
    pub unit: Unit,
    pub variant: &'static str,
    /// What the items are, if not all.
    pub subset: Option<Subset>,
    /// One an item; none where the unit was only estimated.
    pub swaps: Vec<Swap>,
    /// Estimated effects, one an item; none where none was asked for.
    pub estimates: Vec<f64>,
}

impl Measured {
    fn effects(&self) -> Vec<f64> {
        self.swaps.iter().map(|s| s.effect()).collect()
    }

    fn over(&self, f: impl Fn(&Swap) -> Option<f64>) -> Option<f64> {
        mean(&self.swaps.iter().filter_map(f).collect::<Vec<_>>())
    }
}

/// The items of one group or language.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// `group` or `lang`.
    pub by: &'static str,
    pub value: String,
    pub items: Vec<usize>,
}

/// What all rows of a table share.
pub struct Shared<'a> {
    pub model: &'a str,
    /// What the variants are: the column's name and its documentation.
    pub variant: (&'a str, &'a str),
    pub position: String,
    pub seed: u64,
    /// The variant whose base is the positive prompt, where bases are prompts of pairs.
    pub positive: Option<&'a str>,
    /// Which rows have a dot in heatmaps.
    pub marks: MarkArgs,
}

impl Shared<'_> {
    /// What shares are of: the gap to the other prompt, or, without one, the base.
    fn share_of(&self) -> &'static str {
        if self.positive.is_some() { "gap" } else { "base" }
    }
}

/// What the statistics say of one row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tested {
    /// 95 % BCa interval of the mean.
    pub interval: Option<(f64, f64)>,
    /// Two-sided sign-flip p-value.
    pub p: Option<f64>,
    /// Benjamini-Hochberg over the family.
    pub q: Option<f64>,
    /// Family-wise, by the max statistic.
    pub p_max: Option<f64>,
}

/// The tables of effects: `heads` over all items, and `groups` where the items, of which `labels` are the groups and
/// languages, divide. `rows` gives the units of all variants over a subset's items, or over all.
///
/// # Errors
/// If a table cannot be made.
pub fn effects_tables<'a>(
    shared: &Shared,
    labels: impl Iterator<Item = (Option<&'a str>, Option<&'a str>)>,
    rows: impl Fn(Option<Subset>) -> Vec<Measured>,
) -> Result<Vec<Table>, AnalysisError> {
    let mut tables = vec![effects_table("heads", shared, &rows(None))?];
    let (groups, langs): (Vec<_>, Vec<_>) = labels.unzip();
    let subsets = subsets(&groups, &langs);
    if !subsets.is_empty() {
        let rows: Vec<Measured> = subsets.into_iter().flat_map(|subset| rows(Some(subset))).collect();
        tables.push(effects_table("groups", shared, &rows)?);
    }
    Ok(tables)
}

/// The table of rows; those of one variant and subset stand together and are one family.
fn effects_table(name: &str, shared: &Shared, rows: &[Measured]) -> Result<Table, AnalysisError> {
    let tested =
        rows.chunk_by(same_family).map(|rows| test(rows, shared.seed)).collect::<Result<Vec<_>, _>>()?.concat();
    let n = |r: &Measured| r.swaps.len().max(r.estimates.len()) as i64;
    let table = Table::new(name)
        .str("model", "the model, as it was named", rows.iter().map(|_| shared.model))?
        .int("layer", "layer, from 0", rows.iter().map(|r| r.unit.site.layer as i64))?
        .int(
            "head",
            "head, from 0 (KV head at k, v, rot_k); -1 for a site as a whole",
            rows.iter().map(|r| r.unit.head_number()),
        )?
        .str(shared.variant.0, shared.variant.1, rows.iter().map(|r| r.variant))?
        .str("position", "where it was edited", rows.iter().map(|_| shared.position.clone()))?
        .int("n", "items", rows.iter().map(n))?;
    let table = effect_columns(table, shared, rows, &tested)?;
    let table = table.str("site", "what was edited", rows.iter().map(|r| r.unit.site.kind.name()))?;
    let table = optional_columns(table, rows)?;
    let (table, shares) = share_columns(table, shared, rows)?;
    let half = |f: fn(&Swap) -> Option<f64>| -> Vec<Vec<f64>> {
        rows.iter().map(|r| r.swaps.iter().filter_map(f).collect()).collect()
    };
    let (answers, foils) = (half(|s| s.answer), half(|s| s.foil()));
    let table = halves::columns(table, "effect", "edited minus base of", [&answers, &foils], shared.seed)?;
    let whole: Vec<bool> = rows
        .chunk_by(same_family)
        .flat_map(|family| vec![family.iter().all(|r| !r.swaps.is_empty()); family.len()])
        .collect();
    let marked =
        tested.iter().zip(&shares).zip(&whole).map(|((t, share), whole)| shared.marks.marks(t, *share, *whole));
    let rules = whole.iter().map(|whole| shared.marks.rule(*whole, shared.share_of()));
    marks::columns(table, marked.collect(), rules.collect())
}

fn same_family(a: &Measured, b: &Measured) -> bool {
    a.variant == b.variant && a.subset == b.subset
}

/// The mean effect as a share of the mean gap, or of the mean base where there is no other prompt, with its interval; returns
/// the shares too.
fn share_columns(table: Table, shared: &Shared, rows: &[Measured]) -> Result<(Table, Vec<Option<f64>>), AnalysisError> {
    let (mut shares, mut intervals) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for family in rows.chunk_by(same_family) {
        // All units of a family that were run have the same items.
        let swaps = family.iter().map(|r| &r.swaps).find(|swaps| !swaps.is_empty());
        let wholes: Vec<f64> = swaps.into_iter().flatten().map(|s| s.whole()).collect();
        let effects: Vec<Vec<f64>> = family.iter().map(Measured::effects).collect();
        let options = Bootstrap { seed: shared.seed, ..Bootstrap::default() };
        intervals.extend(bca_ratio_family(&effects, &wholes, &options));
        let share = |r: &Measured| {
            let base = r.over(|s| Some(s.base))?;
            let whole = if shared.positive.is_some() { r.over(|s| s.other)? - base } else { base };
            Some(mean(&r.effects())? / whole).filter(|share| share.is_finite())
        };
        shares.extend(family.iter().map(share));
    }
    let name = format!("share_of_{}", shared.share_of());
    let doc = match shared.positive {
        Some(_) => {
            "share of the gap: the mean effect over the mean of (other minus base metric), a ratio of means; reports and figures \
             show this one"
        }
        None => "the mean effect over the mean base metric, a ratio of means; reports and figures show this one",
    };
    let table = table
        .float(&name, doc, shares.iter().copied())?
        .float(
            &format!("{name}_ci_low"),
            "lower end of that share's 95 % BCa interval, effect and what it is a share of resampled together; empty where the \
             latter is not beyond chance",
            intervals.iter().map(|i| i.map(|i| i.low)),
        )?
        .float(&format!("{name}_ci_high"), "its upper end", intervals.iter().map(|i| i.map(|i| i.high)))?;
    Ok((table, shares))
}

/// Means over items and their statistics.
fn effect_columns(table: Table, shared: &Shared, rows: &[Measured], tested: &[Tested]) -> Result<Table, AnalysisError> {
    let float = |f: &dyn Fn(&Measured) -> Option<f64>| rows.iter().map(f).collect::<Vec<_>>();
    let of = |f: &dyn Fn(&Tested) -> Option<f64>| tested.iter().map(f).collect::<Vec<_>>();
    let is_positive = |r: &Measured| shared.positive.is_none_or(|v| v == r.variant);
    let positive = |r: &Measured| r.over(|s| if is_positive(r) { Some(s.base) } else { s.other });
    let negative = |r: &Measured| r.over(|s| if is_positive(r) { s.other } else { Some(s.base) });
    let undefined = |r: &Measured| r.swaps.iter().filter(|s| s.other.is_some() && s.normalized().is_none()).count();
    let flips = |s: &Swap| Some(f64::from(u8::from(s.flips())));
    Ok(table
        .float(
            "positive_mean",
            "mean metric of the positive prompts (ablation: of the prompts), nats",
            float(&positive),
        )?
        .float("negative_mean", "mean metric of the negative prompts, nats", float(&negative))?
        .float("effect_mean", "mean of edited minus base metric, nats", float(&|r| mean(&r.effects())))?
        .float("effect_sd", "standard deviation of the effect over items, nats", float(&|r| sd(&r.effects())))?
        .float("ci_low", "lower end of the mean effect's 95 % BCa interval, nats", of(&|t| t.interval.map(|i| i.0)))?
        .float("ci_high", "upper end of the mean effect's 95 % BCa interval, nats", of(&|t| t.interval.map(|i| i.1)))?
        .float(
            "effect_normalized",
            "mean over pairs of the effect divided by that pair's own gap; ruled by the pairs whose gap is near 0, where there \
             are any. Reports and figures show share_of_gap, the ratio of the means",
            float(&|r| r.over(|s| s.normalized())),
        )?
        .int("gap_zero", "pairs without a gap, left out of effect_normalized", rows.iter().map(|r| undefined(r) as i64))?
        .float(
            "flip_rate",
            "share of items whose metric changes its sign (of pairs: towards the other prompt)",
            float(&|r| r.over(flips)),
        )?
        .float("p_value", "two-sided sign-flip permutation p-value of the mean effect", of(&|t| t.p))?
        .float(
            "q_value",
            "Benjamini-Hochberg q-value over all units of the variant, those that were only estimated with p = 1",
            of(&|t| t.q),
        )?
        .float(
            "p_max",
            "family-wise p-value by the max statistic, same sign flips for every unit; empty where some were only \
             estimated",
            of(&|t| t.p_max),
        )?)
}

/// Estimates and subsets, where there are any.
fn optional_columns(mut table: Table, rows: &[Measured]) -> Result<Table, AnalysisError> {
    if rows.iter().any(|r| !r.estimates.is_empty()) {
        let estimates = rows.iter().map(|r| mean(&r.estimates));
        table = table.float("estimate_mean", "mean first-order estimate of the effect, nats", estimates)?;
    }
    if rows.iter().any(|r| r.subset.is_some()) {
        let of = |f: fn(&Subset) -> &str| rows.iter().map(move |r| r.subset.as_ref().map_or("", f));
        table = table.str("by", "what the items were split by: group or lang", of(|s| s.by))?;
        table = table.str("value", "which group or language", of(|s| s.value.as_str()))?;
    }
    Ok(table)
}

/// The statistics of a family: units of one variant over the same items.
fn test(rows: &[Measured], seed: u64) -> Result<Vec<Tested>, AnalysisError> {
    let measured: Vec<usize> = (0..rows.len()).filter(|i| !rows[*i].swaps.is_empty()).collect();
    let effects: Vec<Vec<f64>> = measured.iter().map(|i| rows[*i].effects()).collect();
    let mut tested = vec![Tested::default(); rows.len()];
    let found = part_of_family(&effects, rows.len(), seed)?;
    // Units that were only estimated count as tested without success: they were chosen against on the same items.
    let p: Vec<f64> = found.iter().filter_map(|t| t.p).chain((measured.len()..rows.len()).map(|_| 1.0)).collect();
    let q = benjamini_hochberg(&p);
    let whole = measured.len() == rows.len();
    for ((i, found), q) in measured.into_iter().zip(found).zip(q) {
        tested[i] = Tested { q: Some(q), p_max: found.p_max.filter(|_| whole), ..found };
    }
    Ok(tested)
}

/// Intervals of means and their tests, of a family: numbers over the same items.
///
/// # Errors
/// If the family's numbers are not all there.
pub fn family(numbers: &[Vec<f64>], seed: u64) -> Result<Vec<Tested>, AnalysisError> {
    part_of_family(numbers, numbers.len(), seed)
}

/// [`family`], of which only these are measured of so many tests that p-values are corrected over.
fn part_of_family(numbers: &[Vec<f64>], tests: usize, seed: u64) -> Result<Vec<Tested>, AnalysisError> {
    let tests = sign_flip_family(numbers, draws_for(tests), seed);
    let tests = tests.map_err(|e| AnalysisError::Failed(format!("statistics: {e}")))?;
    let q = benjamini_hochberg(&tests.iter().map(|t| t.p).collect::<Vec<_>>());
    let intervals = bca_family(numbers, &Bootstrap { seed, ..Bootstrap::default() });
    let of = |((test, q), interval): ((&crate::stats::FlipTest, f64), Option<crate::stats::Interval>)| Tested {
        interval: interval.map(|i| (i.low, i.high)),
        p: Some(test.p),
        q: Some(q),
        p_max: Some(test.p_max),
    };
    Ok(tests.iter().zip(q).zip(intervals).map(of).collect())
}

/// The items that share a group, and those that share a language, where there are two or more.
pub fn subsets(groups: &[Option<&str>], langs: &[Option<&str>]) -> Vec<Subset> {
    let mut found = Vec::new();
    for (by, labels) in [("group", groups), ("lang", langs)] {
        let mut values: Vec<&str> = labels.iter().flatten().copied().collect();
        values.sort_unstable();
        values.dedup();
        if values.len() < 2 {
            continue;
        }
        for value in values {
            let items = (0..labels.len()).filter(|i| labels[*i] == Some(value)).collect();
            found.push(Subset { by, value: value.to_string(), items });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::SiteKind;

    /// A head under interchange, with a swap for each effect.
    pub(super) fn measured(head: usize, variant: &'static str, effects: &[f64], estimates: &[f64]) -> Measured {
        let unit = Unit { site: SiteKind::Z.at(0), head: Some(head) };
        let half = |effect: f64| Some(0.75 * effect);
        let swap = |e: &f64| Swap { base: 2.0, other: Some(-2.0), patched: 2.0 + e, answer: half(*e) };
        let swaps = effects.iter().map(swap).collect();
        Measured { unit, variant, subset: None, swaps, estimates: estimates.to_vec() }
    }

    #[test]
    fn a_lone_effect_survives_the_correction_over_all_units_that_were_only_estimated() {
        let steady: Vec<f64> = (0..24).map(|i| -1.0 - f64::from(i) / 100.0).collect();
        let mut rows = vec![measured(0, "necessity", &steady, &[0.0; 24])];
        rows.extend((1..1024).map(|head| measured(head, "necessity", &[], &[0.0; 24])));
        let tested = test(&rows, 0).unwrap();
        assert!(tested[0].q.is_some_and(|q| q < SIGNIFICANT), "{:?}", tested[0]);
        assert!(tested[0].p_max.is_none() && tested[1].q.is_none());
    }
}
