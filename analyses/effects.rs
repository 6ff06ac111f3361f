//! Effects of edits over items: their statistics as a table, and that table as figures and text.
//!
//! Interchange and ablation measure the same thing in different ways: how far an edit of a head or site moves each
//! item's metric. A *variant* is a way of editing (a direction of interchange, a mode of ablation). All units of one
//! variant are a family: p-values are corrected over it, and their permutations flip the same signs.

use super::inputs::{Unit, unit_label};
use super::summary::{Swap, mean, sd};
use super::{AnalysisError, table};
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Estimate, Figure, Forest, ForestRow, Heatmap};
use crate::names::short_name;
use crate::report::cells::{self, p_value, share, signed};
use crate::report::{Heading, Section};
use crate::stats::{Bootstrap, bca_family, benjamini_hochberg, draws_for, sign_flip_family};
use crate::table::Table;

/// Significance in figures and text: q-values under this.
pub const SIGNIFICANT: f64 = 0.05;

/// What effects are measured in, for axes.
const VALUE: &str = "effect on the logit difference (nats)";

/// What intervals are, for legends.
pub const INTERVAL: &str = "95 % BCa interval";

/// How many groups and languages a report lists.
const SUBSETS_LISTED: usize = 16;

/// How many units a report's table and forest plot list.
const LISTED: usize = 12;

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
    let same_family = |a: &Measured, b: &Measured| a.variant == b.variant && a.subset == b.subset;
    let tested =
        rows.chunk_by(same_family).map(|rows| test(rows, shared.seed)).collect::<Result<Vec<_>, _>>()?.concat();
    let int = |f: &dyn Fn(&Measured) -> i64| rows.iter().map(f).collect::<Vec<_>>();
    let float = |f: &dyn Fn(&Measured) -> Option<f64>| rows.iter().map(f).collect::<Vec<_>>();
    let of = |f: &dyn Fn(&Tested) -> Option<f64>| tested.iter().map(f).collect::<Vec<_>>();
    let is_positive = |r: &Measured| shared.positive.is_none_or(|v| v == r.variant);
    let positive = |r: &Measured| r.over(|s| if is_positive(r) { Some(s.base) } else { s.other });
    let negative = |r: &Measured| r.over(|s| if is_positive(r) { s.other } else { Some(s.base) });
    let n = |r: &Measured| r.swaps.len().max(r.estimates.len()) as i64;
    let undefined = |r: &Measured| r.swaps.iter().filter(|s| s.other.is_some() && s.normalized().is_none()).count();
    let flips = |s: &Swap| Some(f64::from(u8::from(s.flips())));
    let mut table = Table::new(name)
        .str("model", "the model, as it was named", rows.iter().map(|_| shared.model))?
        .int("layer", "layer, from 0", int(&|r| r.unit.site.layer as i64))?
        .int("head", "head, from 0 (KV head at k, v, rot_k); -1 for a site as a whole", int(&|r| r.unit.head_number()))?
        .str(shared.variant.0, shared.variant.1, rows.iter().map(|r| r.variant))?
        .str("position", "where it was edited", rows.iter().map(|_| shared.position.clone()))?
        .int("n", "items", int(&n))?
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
            "mean effect as a share of each pair's gap",
            float(&|r| r.over(|s| s.normalized())),
        )?
        .int("gap_zero", "pairs without a gap, left out of effect_normalized", int(&|r| undefined(r) as i64))?
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
        )?
        .str("site", "what was edited", rows.iter().map(|r| r.unit.site.kind.name()))?;
    if rows.iter().any(|r| !r.estimates.is_empty()) {
        table = table.float(
            "estimate_mean",
            "mean first-order estimate of the effect, nats",
            float(&|r| mean(&r.estimates)),
        )?;
    }
    if rows.iter().any(|r| r.subset.is_some()) {
        let of = |f: &dyn Fn(&Subset) -> String| {
            rows.iter().map(|r| r.subset.as_ref().map_or(String::new(), f)).collect::<Vec<_>>()
        };
        table = table.str("by", "what the items were split by: group or lang", of(&|s| s.by.to_string()))?.str(
            "value",
            "which group or language",
            of(&|s| s.value.clone()),
        )?;
    }
    Ok(table)
}

/// The statistics of a family: units of one variant over the same items.
fn test(rows: &[Measured], seed: u64) -> Result<Vec<Tested>, AnalysisError> {
    let measured: Vec<usize> = (0..rows.len()).filter(|i| !rows[*i].swaps.is_empty()).collect();
    let effects: Vec<Vec<f64>> = measured.iter().map(|i| rows[*i].effects()).collect();
    let mut tested = vec![Tested::default(); rows.len()];
    let found = family(&effects, seed)?;
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
    let tests = sign_flip_family(numbers, draws_for(numbers.len()), seed);
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

/// A table of effects, read back: what figures and text need of it.
pub struct Read<'a> {
    pub model: String,
    pub site: String,
    pub position: String,
    /// The variants in the table's order.
    pub variants: Vec<&'a str>,
    pub rows: Vec<Row<'a>>,
}

/// A row of a table of effects.
pub struct Row<'a> {
    pub layer: i64,
    pub head: i64,
    pub variant: &'a str,
    pub n: i64,
    pub positive: Option<f64>,
    pub negative: Option<f64>,
    pub effect: Option<f64>,
    pub interval: Option<(f64, f64)>,
    pub normalized: Option<f64>,
    pub flip_rate: Option<f64>,
    pub p: Option<f64>,
    pub q: Option<f64>,
    pub p_max: Option<f64>,
    pub estimate: Option<f64>,
    /// Group or language, and which.
    pub subset: Option<(&'a str, &'a str)>,
}

impl Row<'_> {
    /// What rows are ordered by: whether there is an effect, and its size, or that of its estimate.
    fn strength(&self) -> (bool, f64) {
        (self.effect.is_some(), self.effect.or(self.estimate).map_or(0.0, f64::abs))
    }

    /// The order of rows from the strongest on.
    fn before(&self, other: &Row) -> std::cmp::Ordering {
        let ((a, x), (b, y)) = (self.strength(), other.strength());
        b.cmp(&a).then(y.total_cmp(&x))
    }

    fn significant(&self) -> bool {
        self.q.is_some_and(|q| q < SIGNIFICANT)
    }
}

/// Reads a table of effects back.
///
/// # Errors
/// If it is not one.
pub fn read<'a>(table: &'a Table, variant: &str) -> Result<Read<'a>, AnalysisError> {
    let (layers, heads, variants) = (table.ints("layer")?, table.ints("head")?, table.strs(variant)?);
    let float = |name: &str| table.floats(name);
    let (positive, negative) = (float("positive_mean")?, float("negative_mean")?);
    let (effects, low, high) = (float("effect_mean")?, float("ci_low")?, float("ci_high")?);
    let (normalized, flips) = (float("effect_normalized")?, float("flip_rate")?);
    let (p, q, p_max, n) = (float("p_value")?, float("q_value")?, float("p_max")?, table.ints("n")?);
    let estimates = table.has("estimate_mean").then(|| float("estimate_mean")).transpose()?;
    let subsets =
        table.has("by").then(|| Ok::<_, AnalysisError>((table.strs("by")?, table.strs("value")?))).transpose()?;
    let row = |i: usize| Row {
        layer: layers[i],
        head: heads[i],
        variant: variants[i],
        n: n[i],
        positive: positive[i],
        negative: negative[i],
        effect: effects[i],
        interval: low[i].zip(high[i]),
        normalized: normalized[i],
        flip_rate: flips[i],
        p: p[i],
        q: q[i],
        p_max: p_max[i],
        estimate: estimates.and_then(|e| e[i]),
        subset: subsets.as_ref().map(|(by, value)| (by[i], value[i])),
    };
    let mut names: Vec<&str> = Vec::new();
    for variant in &variants {
        if !names.contains(variant) {
            names.push(variant);
        }
    }
    let first = |name: &str| Ok::<_, AnalysisError>(table.strs(name)?.first().copied().unwrap_or_default().to_string());
    Ok(Read {
        model: short_name(&first("model")?),
        site: first("site")?,
        position: first("position")?,
        variants: names,
        rows: (0..table.rows()).map(row).collect(),
    })
}

/// An interval in nats as a cell.
pub fn interval(interval: Option<(f64, f64)>) -> String {
    cells::interval(interval.map(|i| i.0), interval.map(|i| i.1), 3)
}

impl<'a> Read<'a> {
    /// A variant's rows, the strongest first.
    pub fn strongest(&self, variant: &str) -> Vec<&Row<'a>> {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|r| r.variant == variant).collect();
        rows.sort_by(|a, b| a.before(b));
        rows
    }

    /// What a unit is called.
    pub fn label(&self, row: &Row) -> String {
        unit_label(&self.site, row.layer, row.head)
    }

    fn by_head(&self) -> bool {
        self.rows.iter().any(|r| r.head >= 0)
    }

    /// What is in a subtitle: model, items, position.
    fn subtitle(&self, what: &str, items: &str) -> String {
        let n = self.rows.iter().map(|r| r.n).max().unwrap_or(0);
        format!("{}, {n} {items}{}, {what}, position {}", self.model, if n == 1 { "" } else { "s" }, self.position)
    }

    /// The effects of one variant: layer by head, or by layer for whole sites.
    pub fn map(&self, title: &str, what: &str, items: &str, variant: &str) -> Figure {
        let rows: Vec<&Row> = self.rows.iter().filter(|r| r.variant == variant).collect();
        let subtitle = self.subtitle(what, items);
        if !self.by_head() {
            let point = |r: &&Row| CurvePoint { x: r.layer as f64, y: r.effect.or(r.estimate), interval: r.interval };
            let points = rows.iter().map(point).collect();
            return Figure::from(Curves {
                title: title.to_string(),
                subtitle,
                x_label: "layer".to_string(),
                y_label: VALUE.to_string(),
                curves: vec![Curve { name: self.site.clone(), role: CurveRole::Series, points }],
                thresholds: Vec::new(),
                y_range: None,
                interval_meaning: Some(INTERVAL.to_string()),
            });
        }
        let size = |of: &dyn Fn(&Row) -> i64| rows.iter().map(|r| of(r)).max().map_or(0, |m| m as usize + 1);
        let mut values = vec![vec![None; size(&|r| r.head)]; size(&|r| r.layer)];
        let mut marks = values.iter().map(|row| vec![false; row.len()]).collect::<Vec<_>>();
        for row in rows {
            values[row.layer as usize][row.head as usize] = row.effect;
            marks[row.layer as usize][row.head as usize] = row.significant();
        }
        let marked = marks.iter().flatten().any(|m| *m);
        Figure::from(Heatmap {
            title: title.to_string(),
            subtitle,
            x_label: if matches!(self.site.as_str(), "k" | "v" | "rot_k") { "KV head" } else { "head" }.to_string(),
            y_label: "layer".to_string(),
            value_label: VALUE.to_string(),
            values,
            marks: if marked { marks } else { Vec::new() },
            mark_meaning: marked.then(|| format!("q < {SIGNIFICANT}")),
        })
    }

    /// The strongest units of any variant with their intervals in each.
    pub fn forest(&self, title: &str, items: &str) -> Figure {
        let mut units: Vec<(i64, i64)> = Vec::new();
        let each = LISTED.div_ceil(self.variants.len().max(1));
        for variant in &self.variants {
            let strongest = self.strongest(variant).into_iter().filter(|r| r.effect.is_some()).take(each);
            units.extend(strongest.map(|r| (r.layer, r.head)));
        }
        units.sort_unstable();
        units.dedup();
        let estimate = |unit: &(i64, i64), variant: &str| {
            let row = self.rows.iter().find(|r| (r.layer, r.head) == *unit && r.variant == variant)?;
            Some(Estimate { value: row.effect?, interval: row.interval, marked: row.significant() })
        };
        let row = |unit: &(i64, i64)| ForestRow {
            label: unit_label(&self.site, unit.0, unit.1),
            estimates: self.variants.iter().map(|v| estimate(unit, v)).collect(),
        };
        Figure::from(Forest {
            title: title.to_string(),
            subtitle: self.subtitle("strongest units", items),
            value_label: VALUE.to_string(),
            series: self.variants.iter().map(|v| (*v).to_string()).collect(),
            rows: units.iter().map(row).collect(),
            mark_meaning: Some(format!("q < {SIGNIFICANT}")),
            interval_meaning: Some(INTERVAL.to_string()),
        })
    }

    /// A variant's strongest units as a report's table.
    pub fn listed(&self, section: Section, variant: &str) -> Section {
        let estimated = self.rows.iter().any(|r| r.estimate.is_some());
        let mut header =
            vec![Heading::text("unit"), Heading::number("effect (nats)"), Heading::number("95 % interval")];
        header.push(Heading::number("share of gap"));
        header.extend(["flip rate", "p", "q", "family-wise p"].map(Heading::number));
        if estimated {
            header.push(Heading::number("estimate (nats)"));
        }
        let cells = |r: &Row| {
            let mut cells = vec![
                self.label(r),
                signed(r.effect, 3),
                interval(r.interval),
                share(r.normalized),
                share(r.flip_rate),
                p_value(r.p),
                p_value(r.q),
                p_value(r.p_max),
            ];
            if estimated {
                cells.push(signed(r.estimate, 3));
            }
            cells
        };
        let rows = self.strongest(variant).into_iter().take(LISTED).map(cells).collect();
        section.table(format!("The strongest by absolute effect ({variant}); all are in the tables"), header, rows)
    }

    /// A sentence on the strongest unit of a variant, and on how many are significant.
    pub fn finding(&self, variant: &str) -> String {
        let rows = self.strongest(variant);
        let Some(first) = rows.first() else { return "Nothing was measured.".to_string() };
        let significant = rows.iter().filter(|r| r.significant()).count();
        let least = 2f64.powi(1 - i32::try_from(first.n).unwrap_or(i32::MAX).min(1000));
        let power = match significant {
            0 if least * rows.len() as f64 > SIGNIFICANT => format!(
                "; with {} items no p-value is under {}, too large to survive a correction over {}",
                first.n,
                p_value(Some(least)),
                rows.len()
            ),
            _ => String::new(),
        };
        let run = rows.iter().filter(|r| r.effect.is_some()).count();
        let of_gap = first.normalized.map_or(String::new(), |n| format!(", {} of the gap", share(n)));
        let estimated =
            if run < rows.len() { format!(" ({run} of them were run, the others estimated)") } else { String::new() };
        format!(
            "The strongest is **{}**: {} nats, 95 % interval {}{of_gap} (q {}). {significant} of {}{estimated} have q < \
             {SIGNIFICANT}{power}.",
            self.label(first),
            signed(first.effect, 3),
            interval(first.interval),
            p_value(first.q),
            rows.len(),
        )
    }
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

/// The section on groups and languages: for each, the strongest unit; none where items were not split.
///
/// # Errors
/// If the table is not one of effects.
pub fn subset_section(tables: &[Table], variant: &str) -> Result<Option<Section>, AnalysisError> {
    let Ok(groups) = table(tables, "groups") else { return Ok(None) };
    let read = read(groups, variant)?;
    let header = vec![
        Heading::text("by"),
        Heading::text("value"),
        Heading::text(variant),
        Heading::number("n"),
        Heading::text("strongest"),
        Heading::number("effect (nats)"),
        Heading::number("95 % interval"),
        Heading::number("q"),
    ];
    let same = |a: &Row, b: &Row| a.subset == b.subset && a.variant == b.variant;
    let best = |rows: &[Row]| {
        let first = rows.iter().min_by(|a, b| a.before(b))?;
        let (by, value) = first.subset?;
        Some(vec![
            by.to_string(),
            value.to_string(),
            first.variant.to_string(),
            first.n.to_string(),
            read.label(first),
            signed(first.effect, 3),
            interval(first.interval),
            p_value(first.q),
        ])
    };
    let mut rows: Vec<Vec<String>> = read.rows.chunk_by(same).filter_map(best).collect();
    let n = rows.len();
    rows.truncate(SUBSETS_LISTED);
    let rest = if n > rows.len() { format!(" The first {} of {n} are listed.", rows.len()) } else { String::new() };
    let section = Section::new("Groups and languages").paragraph(format!(
        "Each group and language by itself, with statistics over its own items; every unit of each is in groups.parquet.{rest}"
    ));
    Ok(Some(section.table("The strongest unit of each", header, rows)))
}
