//! What the tables of a modulation say: figures and text.

use super::SIDES;
use super::tables::{ChangeRow, DifferenceRow, DoseRow, METRIC, OfPrompts, ThresholdRow};
use crate::analyses::answered::class_columns;
use crate::analyses::effects::{INTERVAL, SIGNIFICANT};
use crate::analyses::halves::{Moved, Shown, moved};
use crate::analyses::{AnalysisError, Figures, power, table};
use crate::answers::Class;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Estimate, Figure, Forest, ForestRow, Threshold};
use crate::names::short_name;
use crate::report::cells::{self, EMPTY, number, p_value, plural, share, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Heading, Section, TableBlock};
use crate::table::Table;
use crate::table::rows::Row as _;
use std::path::Path;

/// How many rows of thresholds a forest plot and a report have.
const LISTED: usize = 60;

/// The rows of all prompts of a side.
fn overall(table: &Table, side: &str) -> Result<Vec<usize>, AnalysisError> {
    let (sides, by) = (table.column(OfPrompts::side)?, table.column(OfPrompts::by)?);
    Ok((0..table.rows()).filter(|i| sides[*i] == side && by[*i] == "all").collect())
}

fn generated(dose: &Table) -> Result<bool, AnalysisError> {
    Ok(dose.column(DoseRow::answers)?.iter().any(|n| *n > 0))
}

/// A column over the coefficients, of all prompts of a side.
fn curve(
    dose: &Table,
    side: &str,
    column: &str,
    name: &str,
    role: CurveRole,
    band: bool,
) -> Result<Curve, AnalysisError> {
    let (x, y) = (dose.column(DoseRow::coefficient)?, dose.floats(column)?);
    let ends = dose.column(DoseRow::interval)?;
    // A control has values at the grid's ends and at 0 alone: its line goes from one to the next.
    let there = |i: &usize| role == CurveRole::Series || y[*i].is_some();
    let point = |i: usize| {
        let interval = if band { ends[i] } else { None };
        Some(CurvePoint { x: x[i]?, y: y[i], interval })
    };
    Ok(Curve {
        name: name.to_string(),
        role,
        points: overall(dose, side)?.into_iter().filter(there).filter_map(point).collect(),
    })
}

fn curves(dose: &Table, title: &str, what: &str, y_label: &str) -> Result<Curves, AnalysisError> {
    let model = short_name(dose.column(DoseRow::model)?.first().copied().unwrap_or_default());
    let site = dose.strs(DoseRow::site.name)?.first().copied().unwrap_or_default();
    Ok(Curves {
        title: title.to_string(),
        subtitle: format!("{model}, {what}, signal changed at {site}"),
        x_label: "coefficient of the concept's direction".to_string(),
        y_label: y_label.to_string(),
        curves: Vec::new(),
        thresholds: Vec::new(),
        y_range: None,
        interval_meaning: None,
    })
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let (dose, thresholds) = (table(tables, DoseRow::TABLE)?, table(tables, ThresholdRow::TABLE)?);
    let n = overall(dose, SIDES[0])?.first().map_or(0, |i| dose.column(DoseRow::n).map_or(0, |n| n[*i]));
    let mut of_metric = curves(dose, "Signal and logit difference", &plural(n, "pair"), "logit difference (nats)")?;
    for (of, side) in SIDES.into_iter().enumerate() {
        let name = format!("{side} prompts");
        of_metric.curves.push(curve(dose, side, DoseRow::metric_mean.name, &name, CurveRole::Series, true)?);
        let (control, role) = (format!("random directions, {side}"), CurveRole::ControlOf(of));
        of_metric.curves.push(curve(dose, side, DoseRow::random_metric_mean.name, &control, role, false)?);
        of_metric.thresholds.extend(flags(dose, thresholds, side, |class| class == METRIC, &|_| name.clone())?);
    }
    of_metric.interval_meaning = Some(INTERVAL.to_string());
    let mut figures: Figures = Vec::new();
    if generated(dose)? {
        for (side, file) in SIDES.into_iter().zip(["modulation.png", "modulation-negative.png"]) {
            figures.push((file.to_string(), answers_figure(dose, thresholds, side)?));
        }
        figures.push(("metric.png".to_string(), of_metric.into()));
    } else {
        figures.push(("modulation.png".to_string(), of_metric.into()));
    }
    figures.extend(forest(dose, thresholds)?.map(|forest| ("thresholds.png".to_string(), forest)));
    let (shown, rows) = apart(dose)?;
    figures.extend(shown.figure(&rows).map(|figure| (shown.file, figure)));
    Ok(figures)
}

/// The halves of the effects at the grid's ends, of all prompts of each side; nothing of tables of older builds.
fn apart(dose: &Table) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
    let x = dose.column(DoseRow::coefficient)?;
    let mut rows = Vec::new();
    for side in SIDES {
        let all = overall(dose, side)?;
        let mut ends: Vec<usize> = all.first().into_iter().chain(all.last()).copied().collect();
        ends.dedup();
        rows.extend(
            ends.into_iter().filter(|i| x[*i] != Some(0.0)).map(|i| (i, format!("{side}, {}", number(x[i], 2)))),
        );
    }
    let model = short_name(dose.column(DoseRow::model)?.first().copied().unwrap_or_default());
    let shown = Shown {
        subtitle: format!("{model}, all prompts, by the coefficient at the grid's ends"),
        what: "effect",
        subject: "modulating",
        strongest: false,
        ..Shown::default()
    };
    let known = dose.holds(DoseRow::effect_mean);
    let effects = dose.column(DoseRow::effect_mean)?;
    let rows = if known { moved(dose.column(DoseRow::halves)?, effects, rows) } else { Vec::new() };
    Ok((shown, rows))
}

/// The classes of answers of a side.
fn answers_figure(dose: &Table, thresholds: &Table, side: &str) -> Result<Figure, AnalysisError> {
    let answers = overall(dose, side)?.first().map_or(0, |i| dose.column(DoseRow::answers).map_or(0, |n| n[*i]));
    let what = plural(answers, &format!("{side} prompt"));
    let mut figure = curves(dose, "Signal and answers", &what, "share of answers")?;
    for (name, column) in class_columns(dose) {
        let of = curve(dose, side, &column, &name, CurveRole::Series, false)?;
        let aside = [Class::Broken, Class::Undecided].iter().any(|class| class.name() == name);
        if !aside || of.points.iter().any(|p| p.y.is_some_and(|y| y > 0.0)) {
            figure.curves.push(of);
        }
    }
    if dose.column(DoseRow::random_answers)?.iter().any(|n| *n > 0) {
        let control = curve(dose, side, DoseRow::random_refusal.name, "refusal, random", CurveRole::Control, false)?;
        figure.curves.push(control);
    }
    let shown = |class: &str| class == Class::Refusal.name() || class == Class::Answer.name();
    figure.thresholds = flags(dose, thresholds, side, shown, &|class| format!("half {class}"))?;
    figure.interval_meaning = Some(INTERVAL.to_string());
    figure.y_range = Some((0.0, 1.0));
    Ok(figure.into())
}

/// The intervals of thresholds as they are drawn: one that goes on beyond the grid, to the grid's end.
fn drawn(dose: &Table, thresholds: &Table) -> Result<Vec<Option<(f64, f64)>>, AnalysisError> {
    let (low, high) = (thresholds.column(ThresholdRow::ci_low)?, thresholds.column(ThresholdRow::ci_high)?);
    let (low_open, high_open) =
        (thresholds.column(ThresholdRow::low_open)?, thresholds.column(ThresholdRow::high_open)?);
    let grid = || dose.column(DoseRow::coefficient).into_iter().flatten().flatten();
    let (first, last) = (grid().reduce(f64::min), grid().reduce(f64::max));
    let end = |own: Option<f64>, open: bool, of_grid: Option<f64>| if open { of_grid } else { own };
    let one = |i: usize| end(low[i], low_open[i], first).zip(end(high[i], high_open[i], last));
    Ok((0..thresholds.rows()).map(one).collect())
}

/// The interval of a threshold, in words where it goes on beyond the grid.
pub(in crate::analyses) fn ends(low: Option<f64>, high: Option<f64>, open: (bool, bool), digits: usize) -> String {
    let end = |own: Option<f64>, open: bool, beyond: &str| {
        if open { Some(beyond.to_string()) } else { own.map(|own| number(own, digits)) }
    };
    match end(low, open.0, "below the grid").zip(end(high, open.1, "above the grid")) {
        Some((low, high)) => format!("[{low},\u{a0}{high}]"),
        None => EMPTY.to_string(),
    }
}

/// [`ends`] of every row.
fn all_ends(thresholds: &Table, digits: usize) -> Result<Vec<String>, AnalysisError> {
    let (low, high) = (thresholds.column(ThresholdRow::ci_low)?, thresholds.column(ThresholdRow::ci_high)?);
    let (low_open, high_open) =
        (thresholds.column(ThresholdRow::low_open)?, thresholds.column(ThresholdRow::high_open)?);
    let one = |i: usize| ends(low[i], high[i], (low_open[i], high_open[i]), digits);
    Ok((0..thresholds.rows()).map(one).collect())
}

/// Thresholds over all prompts of a side, of chosen classes.
fn flags(
    dose: &Table,
    thresholds: &Table,
    side: &str,
    shown: impl Fn(&str) -> bool,
    label: &dyn Fn(&str) -> String,
) -> Result<Vec<Threshold>, AnalysisError> {
    let (class, x) = (thresholds.column(ThresholdRow::class)?, thresholds.column(ThresholdRow::coefficient)?);
    let drawn = drawn(dose, thresholds)?;
    let of = overall(thresholds, side)?.into_iter().filter(|i| shown(class[*i]));
    let flag = |i: usize| Some(Threshold { x: x[i]?, label: label(class[i]), interval: drawn[i] });
    Ok(of.filter_map(flag).collect())
}

/// The metric's thresholds of all prompts, each language and each group; none where there are none.
fn forest(dose: &Table, thresholds: &Table) -> Result<Option<Figure>, AnalysisError> {
    let (sides, class) = (thresholds.column(OfPrompts::side)?, thresholds.column(ThresholdRow::class)?);
    let (by, value) = (thresholds.column(OfPrompts::by)?, thresholds.column(OfPrompts::value)?);
    let (x, drawn) = (thresholds.column(ThresholdRow::coefficient)?, drawn(dose, thresholds)?);
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for part in ["all", "lang", "group"] {
        for i in (0..thresholds.rows()).filter(|i| by[*i] == part && class[*i] == METRIC) {
            if !rows.contains(&(by[i], value[i])) {
                rows.push((by[i], value[i]));
            }
        }
    }
    rows.truncate(LISTED);
    let estimate = |row: &(&str, &str), side: &str| {
        let here = |i: &usize| (by[*i], value[*i]) == *row && sides[*i] == side && class[*i] == METRIC;
        let i = (0..thresholds.rows()).find(here)?;
        Some(Estimate { interval: drawn[i], ..Estimate::new(x[i]?) })
    };
    let row = |of: &(&str, &str)| ForestRow {
        label: if of.0 == "all" { "all prompts".to_string() } else { of.1.to_string() },
        estimates: SIDES.iter().map(|side| estimate(of, side)).collect(),
    };
    let model = short_name(thresholds.column(ThresholdRow::model)?.first().copied().unwrap_or_default());
    let forest = Forest {
        title: "Where the logit difference crosses 0".to_string(),
        subtitle: format!("{model}, over all prompts, by language and by group"),
        value_label: "coefficient of the concept's direction".to_string(),
        series: SIDES.iter().map(|side| format!("{side} prompts")).collect(),
        rows: rows.iter().map(row).collect(),
        mark_meaning: None,
        interval_meaning: Some(INTERVAL.to_string()),
    };
    Ok((!forest.rows.is_empty()).then(|| forest.into()))
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let (dose, thresholds) = (table(tables, DoseRow::TABLE)?, table(tables, ThresholdRow::TABLE)?);
    let change = tables.iter().find(|t| t.name() == ChangeRow::TABLE);
    let mut sections = vec![dose_section(dose, thresholds, change, dir)?];
    let (shown, rows) = apart(dose)?;
    sections.extend(shown.section(&rows, dir, true));
    sections.push(thresholds_section(thresholds, table(tables, DifferenceRow::TABLE)?, dir)?);
    Ok(sections)
}

/// Where a class or the metric takes over in all prompts of a side, in words.
fn takes_over(thresholds: &Table, side: &str, class: &str) -> Result<Option<String>, AnalysisError> {
    let (classes, rises) = (thresholds.column(ThresholdRow::class)?, thresholds.column(ThresholdRow::rises)?);
    let (x, ends) = (thresholds.column(ThresholdRow::coefficient)?, all_ends(thresholds, 2)?);
    let found = overall(thresholds, side)?.into_iter().find(|i| classes[*i] == class);
    Ok(found.map(|i| {
        let way = if rises[i] { "rises" } else { "falls" };
        let ends = if ends[i] == EMPTY { String::new() } else { format!(", 95 % interval {}", ends[i]) };
        format!("**{}** (it {way} with the coefficient{ends})", number(x[i], 2))
    }))
}

/// What modulating does to refusals, in words: one sentence for either side and part of the grid from 0 on.
fn changes(change: &Table) -> Result<String, AnalysisError> {
    let (sides, parts) = (change.column(ChangeRow::side)?, change.column(ChangeRow::part)?);
    let float = |column| change.column(column);
    let (to, before) = (float(ChangeRow::to)?, float(ChangeRow::refusal_from)?);
    let (after, difference) = (float(ChangeRow::refusal_to)?, float(ChangeRow::change)?);
    let (p, over_random) = (float(ChangeRow::p_value)?, float(ChangeRow::p_over_random)?);
    let intervals = change.column(ChangeRow::interval)?;
    let percent = |x: Option<f64>| x.map(|x| 100.0 * x);
    let sentence = |i: usize| {
        format!(
            " Refusals of the {} prompts go from {} at 0 to {} at {}: {}, 95 % interval {} %, sign test p {}; against random \
             directions the metric's change has p {}.",
            sides[i],
            share(before[i]),
            share(after[i]),
            number(to[i], 2),
            share(difference[i]),
            cells::interval(percent(intervals[i].unzip().0), percent(intervals[i].unzip().1), 1),
            p_value(p[i]),
            p_value(over_random[i]),
        )
    };
    Ok((0..change.rows()).filter(|i| parts[*i] != "whole").map(sentence).collect())
}

/// What is said of random directions that are too few for a small p; nothing of an older table, which does not count them.
fn too_few_directions(dose: &Table) -> Result<String, AnalysisError> {
    if !dose.holds(DoseRow::directions) {
        return Ok(String::new());
    }
    Ok(power::of_directions(dose.column(DoseRow::directions)?.first().copied().unwrap_or(0)))
}

fn dose_section(
    dose: &Table,
    thresholds: &Table,
    change: Option<&Table>,
    dir: &Path,
) -> Result<Section, AnalysisError> {
    let metric = dose.column(DoseRow::metric_mean)?;
    let ends = |side: &str| -> Result<String, AnalysisError> {
        let rows = overall(dose, side)?;
        let at = |i: Option<&usize>| signed(i.and_then(|i| metric[*i]), 2);
        Ok(format!("from {} to {} nats in the {side} prompts", at(rows.first()), at(rows.last())))
    };
    let mut text = format!("Over the grid the logit difference goes {} and {}.", ends(SIDES[0])?, ends(SIDES[1])?);
    for side in SIDES {
        text += &match takes_over(thresholds, side, METRIC)? {
            Some(at) => format!(" In the {side} prompts it crosses 0 at {at}."),
            None => format!(" In the {side} prompts it does not cross 0."),
        };
        for (name, _) in class_columns(dose) {
            if let Some(at) = takes_over(thresholds, side, &name)? {
                text += &format!(" The share of {name} crosses one half at {at}.");
            }
        }
    }
    text += &change.map(changes).transpose()?.unwrap_or_default();
    text += &too_few_directions(dose)?;
    let section = Section::new("Signal and answers").paragraph(text);
    let alt = "Curves over the coefficients of the concept's direction.";
    let section = if generated(dose)? {
        section
            .figure(dir.join("modulation.png"), "Shares of answers to the positive prompts by coefficient.", alt)
            .figure(dir.join("modulation-negative.png"), "The same of the negative prompts.", alt)
            .figure(
                dir.join("metric.png"),
                "The mean logit difference; grey: random directions of the same norm, at the grid's ends and at 0.",
                alt,
            )
    } else {
        let caption = "The mean logit difference by coefficient; grey: random directions of the same norm, at the grid's ends and at 0.";
        section.figure(dir.join("modulation.png"), caption, alt)
    };
    let mut listing = Listing::of(dose)
        .only(OfPrompts::by.name, "all")
        .column("prompts", Show::Text(OfPrompts::side.name))
        .column("coefficient", Show::Number(DoseRow::coefficient.name, 2))
        .column("metric (nats)", Show::Signed(DoseRow::metric_mean.name, 2))
        .column("95 % interval", Show::Interval(DoseRow::interval.name, 2))
        .column("random (nats)", Show::Signed(DoseRow::random_metric_mean.name, 2))
        .column("p over random", Show::PValue(DoseRow::p_over_random.name))
        .column("KL", Show::Number(DoseRow::kl_to_base.name, 3));
    let classes = class_columns(dose);
    if generated(dose)? {
        listing = classes.iter().fold(listing, |l, (name, column)| l.column(name.clone(), Show::Share(column)));
    }
    Ok(section.block(Block::Table(listing.block("Every dose; groups and languages are in dose.parquet")?)))
}

fn thresholds_section(thresholds: &Table, differences: &Table, dir: &Path) -> Result<Section, AnalysisError> {
    let (sides, by) = (differences.column(DifferenceRow::side)?, differences.column(DifferenceRow::by)?);
    let (p, q, between) = (
        differences.column(DifferenceRow::p_value)?,
        differences.column(DifferenceRow::q_value)?,
        differences.column(DifferenceRow::between)?,
    );
    let (n, below, above) = (
        differences.column(DifferenceRow::n)?,
        differences.column(DifferenceRow::below)?,
        differences.column(DifferenceRow::above)?,
    );
    let least = differences.column(DifferenceRow::least_p)?;
    // Alone among all that are tested.
    let least_q = |i: usize| least[i].map(|p| (p * differences.rows() as f64).min(1.0));
    let sentence = |i: usize| {
        let what = if by[i] == "group" { "topic" } else { "language" };
        let told = q[i].is_some_and(|q| q < SIGNIFICANT);
        let differ = if told { "differ" } else { "cannot be told to differ" };
        let few = least_q(i).filter(|q| !told && *q >= SIGNIFICANT);
        let few = few.map_or(String::new(), |q| {
            format!(" **So few prompts cannot tell**: the least q that the test alone can have is {}.", number(q, 3))
        });
        format!(
            "Thresholds of the {} prompts {differ} by {what} ({} of the variance of their ranks, p {}, q {}; {}{}).{few}",
            sides[i],
            share(between[i]),
            p_value(p[i]),
            p_value(q[i]),
            plural(n[i], "prompt"),
            beyond_the_grid(below[i], above[i]),
        )
    };
    let tested: Vec<String> = (0..differences.rows()).map(sentence).collect();
    let tested = if tested.is_empty() {
        "Whether thresholds differ by topic or language cannot be tested: too few prompts cross 0, or all have one label.".to_string()
    } else {
        format!(
            "{} The test ranks the prompts' own thresholds, those beyond the grid before or after all others, deals out the labels \
             anew, and compares how much of the variance of the ranks lies between them.",
            tested.join(" ")
        )
    };
    let mut section = Section::new("Thresholds by topic and language").paragraph(tested);
    if thresholds.column(ThresholdRow::class)?.contains(&METRIC) {
        let caption = "The coefficient at which the mean logit difference crosses 0.";
        section = section.figure(dir.join("thresholds.png"), caption, "Forest plot of thresholds.");
    }
    Ok(section.block(Block::Table(listed(thresholds)?)))
}

/// How many prompts cross 0 beyond which end of the grid; nothing where none does.
fn beyond_the_grid(below: i64, above: i64) -> String {
    let crosses = |n: i64| if n == 1 { "crosses" } else { "cross" };
    match (below, above) {
        (0, 0) => String::new(),
        (n, 0) => format!(", of which {n} {} 0 below the grid", crosses(n)),
        (0, n) => format!(", of which {n} {} 0 above the grid", crosses(n)),
        (n, m) => format!(", of which {n} {} 0 below the grid and {m} above it", crosses(n)),
    }
}

/// The table of thresholds. An interval may go on beyond the grid, which is written in words.
fn listed(thresholds: &Table) -> Result<TableBlock, AnalysisError> {
    let listing = Listing::of(thresholds)
        .first(LISTED)
        .column("prompts", Show::Text(OfPrompts::side.name))
        .column("by", Show::Text(OfPrompts::by.name))
        .column("value", Show::Text(OfPrompts::value.name))
        .column("of", Show::Text(ThresholdRow::class.name))
        .column("n", Show::Count(ThresholdRow::n.name))
        .column("threshold", Show::Number(ThresholdRow::coefficient.name, 3))
        .column("rises", Show::Flag(ThresholdRow::rises.name));
    let (ends, rows) = (all_ends(thresholds, 3)?, listing.rows()?);
    let mut block = listing.block("Thresholds")?;
    block.header.push(Heading::number("95 % interval"));
    block.rows.iter_mut().zip(rows).for_each(|(row, i)| row.push(ends[i].clone()));
    Ok(block)
}
