//! Effects of edits over items: their statistics as a table. What figures and text make of that table is in `read`.
//!
//! Interchange and ablation measure the same thing in different ways: how far an edit of a head or site moves each
//! item's metric. A *variant* is a way of editing (a direction of interchange, a mode of ablation). All units of one
//! variant at one place are a family: p-values are corrected over it, and their permutations flip the same signs.

mod read;

pub use read::{Read, interval, read, read_places, subset_section};

use super::halves::{self, Halves};
use super::inputs::Unit;
use super::marks::{Mark, MarkArgs};
use super::summary::{Swap, sd};
use crate::analyses::prelude::*;
use crate::stats::{bca_family, bca_ratio_family, benjamini_hochberg, draws_for, sign_flip_family};
use crate::table::rows;
use std::marker::PhantomData;

/// Significance in figures and text: q-values under this.
pub const SIGNIFICANT: f64 = 0.05;

/// What intervals are, for legends.
pub const INTERVAL: &str = "95 % BCa interval";

/// A unit under one variant, over items.
pub struct Measured {
    pub unit: Unit,
    pub variant: &'static str,
    /// Where it was edited: `last`, `all`, a number, or a span's name.
    pub position: String,
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

/// A way of editing, of which an analysis has several variants: what the columns that are its own are called, and what they mean.
pub trait Edited: Clone + std::fmt::Debug + Default + PartialEq + 'static {
    /// The column of the variants.
    const VARIANT: (&'static str, &'static str);
    /// The column of the effect as a share of the whole.
    const SHARE: (&'static str, &'static str);
    /// What that share is of: `gap` or `base`.
    const SHARE_OF: &'static str;
}

rows! {
    /// The items that the rows of a table of groups are over.
    pub struct OfSubset<'a> {
        by: &'a str = "what the items were split by: group or lang",
        value: &'a str = "which group or language",
    }

    /// The mean effect as a share of the mean gap, or of the mean base where there is no other prompt.
    #[derive(Copy)]
    pub struct Share {
        value: Option<f64> as "" = "{}",
        interval: Option<(f64, f64)> as "_ci_" = [
            "lower end of that share's 95 % BCa interval, effect and what it is a share of resampled together; empty where the \
             latter is not beyond chance",
            "its upper end",
        ],
    }

    /// A unit under one variant, over items.
    pub struct Row<'a, E: Edited> in "heads" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0 (KV head at k, v, rot_k); -1 for a site as a whole",
        variant: &'a str as (E::VARIANT.0) = E::VARIANT.1,
        position: &'a str = "where it was edited",
        n: i64 = "items",
        positive_mean: Option<f64> = "mean metric of the positive prompts (ablation: of the prompts), nats",
        negative_mean: Option<f64> = "mean metric of the negative prompts, nats",
        effect_mean: Option<f64> = "mean of edited minus base metric, nats",
        effect_sd: Option<f64> = "standard deviation of the effect over items, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean effect's 95 % BCa interval, nats",
            "upper end of the mean effect's 95 % BCa interval, nats",
        ],
        effect_normalized: Option<f64> =
            "mean over pairs of the effect divided by that pair's own gap; ruled by the pairs whose gap is near 0, where there \
             are any. Reports and figures show share_of_gap, the ratio of the means",
        gap_zero: i64 = "pairs without a gap, left out of effect_normalized",
        flip_rate: Option<f64> = "share of items whose metric changes its sign (of pairs: towards the other prompt)",
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean effect",
        q_value: Option<f64> =
            "Benjamini-Hochberg q-value over all units of the variant, those that were only estimated with p = 1",
        p_max: Option<f64> =
            "family-wise p-value by the max statistic, same sign flips for every unit; empty where some were only \
             estimated",
        site: &'a str = "what was edited",
        estimate_mean: Option<f64> [if any] = "mean first-order estimate of the effect, nats",
        /// Group or language, and which.
        subset: Option<OfSubset<'a>> [if any] as "",
        share: Share [newer] as (E::SHARE.0) = E::SHARE.1,
        halves: Halves [newer] as "effect" = "edited minus base of",
        /// Whether heatmaps have a dot on it.
        mark: Option<Mark<'a>> [newer] as "",
        edited: PhantomData<E> as "",
    }
}

/// What all rows of a table share.
pub struct Shared<'a> {
    pub model: &'a str,
    pub seed: u64,
    /// The variant whose base is the positive prompt, where bases are prompts of pairs.
    pub positive: Option<&'a str>,
    /// Which rows have a dot in heatmaps.
    pub marks: MarkArgs,
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
pub fn effects_tables<'a, E: Edited>(
    shared: &Shared,
    labels: impl Iterator<Item = (Option<&'a str>, Option<&'a str>)>,
    rows: impl Fn(Option<Subset>) -> Vec<Measured>,
) -> Result<Vec<Table>, AnalysisError> {
    let mut tables = vec![effects_table::<E>(Row::<E>::TABLE, shared, &rows(None))?];
    let (groups, langs): (Vec<_>, Vec<_>) = labels.unzip();
    let subsets = subsets(&groups, &langs);
    if !subsets.is_empty() {
        let rows: Vec<Measured> = subsets.into_iter().flat_map(|subset| rows(Some(subset))).collect();
        tables.push(effects_table::<E>(GROUPS, shared, &rows)?);
    }
    Ok(tables)
}

/// The table of effects over each group and language.
const GROUPS: &str = "groups";

/// The table of rows; those of one variant and subset stand together and are one family.
fn effects_table<E: Edited>(name: &str, shared: &Shared, rows: &[Measured]) -> Result<Table, AnalysisError> {
    let families = || rows.chunk_by(same_family);
    let tested = families().map(|rows| test(rows, shared.seed)).collect::<Result<Vec<_>, _>>()?.concat();
    let shares = families().flat_map(|family| shares(shared, family));
    let half = |f: fn(&Swap) -> Option<f64>| -> Vec<Vec<f64>> {
        rows.iter().map(|r| r.swaps.iter().filter_map(f).collect()).collect()
    };
    let halves = halves::over_items(&half(|s| s.answer), &half(|s| s.foil()), shared.seed);
    let whole = families().flat_map(|family| vec![family.iter().all(|r| !r.swaps.is_empty()); family.len()]);
    let all = rows.iter().zip(tested).zip(shares).zip(halves).zip(whole);
    let all = all.map(|((((of, tested), share), halves), whole)| {
        let marked = shared.marks.marks(&tested, share.value, whole);
        let mark = Mark { marked, mark_rule: shared.marks.rule(whole, E::SHARE_OF).into() };
        Row::<E> { share, halves, mark: Some(mark), ..row(shared, of, &tested) }
    });
    Ok(rows::table(name, &[], all)?)
}

fn same_family(a: &Measured, b: &Measured) -> bool {
    a.variant == b.variant && a.position == b.position && a.subset == b.subset
}

/// The mean effects of a family as shares of the mean gap, or of the mean base where there is no other prompt.
fn shares(shared: &Shared, family: &[Measured]) -> Vec<Share> {
    // All units of a family that were run have the same items.
    let swaps = family.iter().map(|r| &r.swaps).find(|swaps| !swaps.is_empty());
    let wholes: Vec<f64> = swaps.into_iter().flatten().map(|s| s.whole()).collect();
    let effects: Vec<Vec<f64>> = family.iter().map(Measured::effects).collect();
    let options = Bootstrap { seed: shared.seed, ..Bootstrap::default() };
    let share = |r: &Measured| {
        let base = r.over(|s| Some(s.base))?;
        let whole = if shared.positive.is_some() { r.over(|s| s.other)? - base } else { base };
        Some(mean(&r.effects())? / whole).filter(|share| share.is_finite())
    };
    let intervals = bca_ratio_family(&effects, &wholes, &options);
    let both = family.iter().zip(intervals);
    both.map(|(r, interval)| Share { value: share(r), interval: interval.map(Interval::ends) }).collect()
}

/// Means over items and their statistics, without shares and halves.
fn row<'a, E: Edited>(shared: &'a Shared, of: &'a Measured, tested: &Tested) -> Row<'a, E> {
    let is_positive = shared.positive.is_none_or(|v| v == of.variant);
    let (base, other) = (of.over(|s| Some(s.base)), of.over(|s| s.other));
    let (positive_mean, negative_mean) = if is_positive { (base, other) } else { (other, base) };
    let undefined = of.swaps.iter().filter(|s| s.other.is_some() && s.normalized().is_none()).count();
    Row {
        model: shared.model,
        layer: of.unit.site.layer as i64,
        head: of.unit.head_number(),
        variant: of.variant,
        position: &of.position,
        n: of.swaps.len().max(of.estimates.len()) as i64,
        positive_mean,
        negative_mean,
        effect_mean: mean(&of.effects()),
        effect_sd: sd(&of.effects()),
        interval: tested.interval,
        effect_normalized: of.over(|s| s.normalized()),
        gap_zero: undefined as i64,
        flip_rate: of.over(|s| Some(f64::from(u8::from(s.flips())))),
        p_value: tested.p,
        q_value: tested.q,
        p_max: tested.p_max,
        site: of.unit.site.kind.name(),
        estimate_mean: mean(&of.estimates),
        subset: of.subset.as_ref().map(|s| OfSubset { by: s.by, value: &s.value }),
        ..Row::default()
    }
}

/// The statistics of a family: units of one variant at one place over the same items.
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
pub(super) fn part_of_family(numbers: &[Vec<f64>], tests: usize, seed: u64) -> Result<Vec<Tested>, AnalysisError> {
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

/// The means of numbers over the same items as shares of the mean gap.
pub(super) fn shares_of_gap(numbers: &[Vec<f64>], gaps: &[f64], seed: u64) -> Vec<Share> {
    let gap = mean(gaps).filter(|gap| *gap != 0.0);
    let intervals = bca_ratio_family(numbers, gaps, &Bootstrap { seed, ..Bootstrap::default() });
    let share = |(numbers, interval): (&Vec<f64>, Option<Interval>)| Share {
        value: mean(numbers).zip(gap).map(|(mean, gap)| mean / gap),
        interval: interval.map(Interval::ends),
    };
    numbers.iter().zip(intervals).map(share).collect()
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
        let position = "last".to_string();
        Measured { unit, variant, position, subset: None, swaps, estimates: estimates.to_vec() }
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
