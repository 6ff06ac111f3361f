//! What the tables of a modulation say: figures and text.

use super::SIDES;
use super::tables::{ChangeRow, DifferenceRow, DoseRow, METRIC, OfPrompts, ThresholdRow};
use crate::analyses::answered::class_columns;
use crate::analyses::effects::{INTERVAL, SIGNIFICANT};
use crate::analyses::halves::{Moved, Order, Shown, moved};
use crate::analyses::power;
use crate::analyses::prelude::*;
use crate::answers::Class;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Estimate, Forest, ForestRow, Threshold};
use crate::names::short_name;
use crate::report::TableBlock;
use crate::report::cells::{EMPTY, exact, number, p_value, plural, points, points_interval, share, signed};
use crate::stats::{counted, wilson};

/// What is under the figure of the metric.
const METRIC_CAPTION: &str = "The mean logit difference by coefficient. Thin lines: the mean of random directions of the same norm, \
                              run at both ends of the grid and at 0. Vertical lines: where a mean crosses 0, with its interval \
                              over the plot.";

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
        ..Curves::default()
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
        let label = |_: &str| format!("{side} cross 0");
        of_metric.thresholds.extend(flags(dose, thresholds, side, |class| class == METRIC, &label)?);
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
            ends.into_iter().filter(|i| x[*i] != Some(0.0)).map(|i| (i, format!("{side}, {}", signed_exact(x[i])))),
        );
    }
    let model = short_name(dose.column(DoseRow::model)?.first().copied().unwrap_or_default());
    let n = dose.column(DoseRow::n)?.first().copied().unwrap_or(0);
    let shown = Shown {
        title: "Modulation: answer and foil apart".to_string(),
        subtitle: format!("{model}, {}, lowest and highest coefficient", plural(n, "pair")),
        subject: "modulating",
        order: Order::Own("prompts, coefficient"),
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
        let mut of = curve(dose, side, &column, &name, CurveRole::Series, false)?;
        of.points.iter_mut().for_each(|p| p.interval = p.y.and_then(|share| wilson_of_share(share, answers)));
        let aside = [Class::Broken, Class::Undecided].iter().any(|class| class.name() == name);
        if !aside || of.points.iter().any(|p| p.y.is_some_and(|y| y > 0.0)) {
            figure.curves.push(of);
        }
    }
    if dose.column(DoseRow::random_answers)?.iter().any(|n| *n > 0) {
        let name = format!("refusal, {}", plural(answering(dose)?, "random direction"));
        let control = curve(dose, side, DoseRow::random_refusal.name, &name, CurveRole::Control, false)?;
        figure.curves.push(control);
    }
    let shown = |class: &str| class == Class::Refusal.name() || class == Class::Answer.name();
    figure.thresholds = flags(dose, thresholds, side, shown, &|class| format!("{class} 50 % (fit)"))?;
    figure.interval_meaning = Some("95 % interval".to_string());
    figure.y_range = Some((0.0, 1.0));
    figure.shares = true;
    Ok(figure.into())
}

/// How many random directions generated answers.
fn answering(dose: &Table) -> Result<i64, AnalysisError> {
    let (answers, random) = (dose.column(DoseRow::answers)?, dose.column(DoseRow::random_answers)?);
    Ok(answers.iter().zip(random).filter(|(n, _)| **n > 0).map(|(n, random)| random / n).max().unwrap_or(0))
}

/// The 95 % Wilson interval of a share of answers.
fn wilson_of_share(share: f64, answers: i64) -> Option<(f64, f64)> {
    let (successes, n) = counted(share, answers);
    wilson(successes, n).map(|i| (i.low, i.high))
}

/// A coefficient with its sign: `+4.00`.
fn signed_exact(x: Option<f64>) -> String {
    let plus = if x.is_some_and(|x| x > 0.0) { "+" } else { "" };
    format!("{plus}{}", exact(x))
}

/// The grid's first and last coefficient.
fn grid(dose: &Table) -> Result<[Option<f64>; 2], AnalysisError> {
    let x: Vec<f64> = dose.column(DoseRow::coefficient)?.into_iter().flatten().collect();
    Ok([f64::min, f64::max].map(|of| x.iter().copied().reduce(of)))
}

impl ThresholdRow<'_> {
    fn is_of_all(&self, side: &str) -> bool {
        self.prompts.side == side && self.prompts.by == "all"
    }

    /// The interval as it is drawn: one that goes on beyond the grid, to the grid's end.
    fn drawn(&self, [first, last]: [Option<f64>; 2]) -> Option<(f64, f64)> {
        let end = |own: Option<f64>, open: bool, of_grid: Option<f64>| if open { of_grid } else { own };
        end(self.ci_low, self.low_open, first).zip(end(self.ci_high, self.high_open, last))
    }

    /// The interval in words.
    fn ends(&self, digits: usize) -> String {
        ends(self.ci_low, self.ci_high, (self.low_open, self.high_open), digits)
    }
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

/// Thresholds over all prompts of a side, of chosen classes.
fn flags(
    dose: &Table,
    thresholds: &Table,
    side: &str,
    shown: impl Fn(&str) -> bool,
    label: &dyn Fn(&str) -> String,
) -> Result<Vec<Threshold>, AnalysisError> {
    let (rows, grid) = (ThresholdRow::read(thresholds)?, grid(dose)?);
    let of = rows.iter().filter(|row| row.is_of_all(side) && shown(row.class));
    let flag = |row: &ThresholdRow| {
        Some(Threshold { x: row.coefficient?, label: label(row.class), interval: row.drawn(grid) })
    };
    Ok(of.filter_map(flag).collect())
}

/// The metric's thresholds of all prompts, each language and each group; none where there are none.
fn forest(dose: &Table, thresholds: &Table) -> Result<Option<Figure>, AnalysisError> {
    let (crossings, grid) = (ThresholdRow::read(thresholds)?, grid(dose)?);
    if !crossings.iter().any(|of| of.class == METRIC) {
        return Ok(None);
    }
    // Of every part that was measured: also of one that does not cross 0.
    let all = dose.column(OfPrompts::by)?.into_iter().zip(dose.column(OfPrompts::value)?);
    let all: Vec<(&str, &str)> = all.collect();
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for part in ["all", "group", "lang"] {
        for of in all.iter().filter(|(by, _)| *by == part) {
            if !rows.contains(of) {
                rows.push(*of);
            }
        }
    }
    rows.truncate(LISTED);
    let estimate = |part: &(&str, &str), side: &str| {
        let here = |of: &&ThresholdRow| (of.prompts.side, of.prompts.by, of.prompts.value) == (side, part.0, part.1);
        let of = crossings.iter().filter(|of| of.class == METRIC).find(here)?;
        Some(Estimate { interval: of.drawn(grid), ..Estimate::new(of.coefficient?) })
    };
    let row = |of: &(&str, &str)| ForestRow {
        label: if of.0 == "all" { "all prompts".to_string() } else { of.1.to_string() },
        estimates: SIDES.iter().map(|side| estimate(of, side)).collect(),
    };
    let model = short_name(crossings.first().map_or("", |of| of.model));
    let forest = Forest {
        title: "Where the logit difference crosses 0".to_string(),
        subtitle: format!("{model}, over all prompts, by topic and by language"),
        value_label: "coefficient of the concept's direction".to_string(),
        series: SIDES.iter().map(|side| format!("{side} prompts")).collect(),
        rows: rows.iter().map(row).collect(),
        mark_meaning: None,
        interval_meaning: Some(INTERVAL.to_string()),
        missing_meaning: Some("does not cross 0 on the grid".to_string()),
    };
    Ok((!forest.rows.is_empty()).then(|| forest.into()))
}

/// A part of the prompts: its side, what it is told apart by, and the value of that.
type Part<'a> = (&'a str, &'a str, &'a str);

/// A part of a side's prompts whose mean metric does not cross 0 on the grid.
pub(in crate::analyses) struct Uncrossed<'a> {
    side: &'a str,
    by: &'a str,
    value: &'a str,
    /// Where it is instead: `above 0 on the whole grid`.
    place: &'static str,
}

impl Uncrossed<'_> {
    /// `The mean of politics is above 0 on the whole grid.`
    pub(in crate::analyses) fn sentence(&self) -> String {
        format!("The mean of {} is {}.", self.value, self.place)
    }
}

/// The parts of the prompts, by topic or language, that have no threshold, of a side or of both.
pub(in crate::analyses) fn uncrossed<'a>(
    dose: &'a Table,
    thresholds: &Table,
    wanted: impl Fn(&str, &str) -> bool,
) -> Result<Vec<Uncrossed<'a>>, AnalysisError> {
    let (sides, by, value) =
        (thresholds.column(OfPrompts::side)?, thresholds.column(OfPrompts::by)?, thresholds.column(OfPrompts::value)?);
    let class = thresholds.column(ThresholdRow::class)?;
    let crosses =
        |part: &Part| (0..thresholds.rows()).any(|i| class[i] == METRIC && (sides[i], by[i], value[i]) == *part);
    let (of_side, of_by, of_value) =
        (dose.column(OfPrompts::side)?, dose.column(OfPrompts::by)?, dose.column(OfPrompts::value)?);
    let metric = dose.column(DoseRow::metric_mean)?;
    let mut means: Vec<(Part, Vec<f64>)> = Vec::new();
    for i in (0..dose.rows()).filter(|i| of_by[*i] != "all" && wanted(of_side[*i], of_by[*i])) {
        let part = (of_side[i], of_by[i], of_value[i]);
        match means.iter_mut().find(|(other, _)| *other == part) {
            Some((_, means)) => means.extend(metric[i]),
            None => means.push((part, metric[i].into_iter().collect())),
        }
    }
    let place = |means: &[f64]| match (means.iter().all(|m| *m > 0.0), means.iter().all(|m| *m <= 0.0)) {
        (true, _) => "above 0 on the whole grid",
        (_, true) => "not above 0 anywhere on the grid",
        _ => "on both sides of 0, but crosses it the other way alone",
    };
    let found = means.into_iter().filter(|(part, means)| !means.is_empty() && !crosses(part));
    Ok(found.map(|((side, by, value), means)| Uncrossed { side, by, value, place: place(&means) }).collect())
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let (dose, thresholds) = (table(tables, DoseRow::TABLE)?, table(tables, ThresholdRow::TABLE)?);
    let change = tables.iter().find(|t| t.name() == ChangeRow::TABLE);
    let mut sections = vec![dose_section(dose, thresholds, change, dir)?];
    let (shown, rows) = apart(dose)?;
    sections.extend(shown.section(&rows, dir, true));
    let uncrossed = uncrossed(dose, thresholds, |_, _| true)?;
    sections.push(thresholds_section(thresholds, &uncrossed, table(tables, DifferenceRow::TABLE)?, dir)?);
    Ok(sections)
}

/// Where the metric and the classes of answers take over in all prompts of each side, as a table.
fn crossings(dose: &Table, thresholds: &Table) -> Result<TableBlock, AnalysisError> {
    let (found, mut rows) = (ThresholdRow::read(thresholds)?, Vec::new());
    for side in SIDES {
        let metric = [(METRIC.to_string(), "the logit difference crosses 0".to_string())];
        let shares = class_columns(dose).into_iter().map(|(name, _)| {
            let what = format!("the share of class {name} crosses 50 % (logistic fit)");
            (name, what)
        });
        for (class, what) in metric.into_iter().chain(shares) {
            let Some(found) = found.iter().find(|of| of.is_of_all(side) && of.class == class) else {
                if class == METRIC {
                    rows.push([side, &what, "nowhere on the grid", EMPTY, EMPTY].map(str::to_string).to_vec());
                }
                continue;
            };
            let ends = found.ends(2);
            let interval = if ends == EMPTY { "none: some resamples do not cross" } else { &ends };
            let way = if found.rises { "rises" } else { "falls" };
            rows.push([side, &what, &number(found.coefficient, 2), interval, way].map(str::to_string).to_vec());
        }
    }
    let header = vec![
        Heading::text("prompts"),
        Heading::text("what"),
        Heading::number("at"),
        Heading::number("95 % interval"),
        Heading::text("with the coefficient it"),
    ];
    Ok(TableBlock { caption: "Where the curves cross, over all prompts".to_string(), header, rows })
}

/// What modulating does to refusals: a row for either side and part of the grid from 0 on.
fn changes(change: &Table) -> Result<TableBlock, AnalysisError> {
    let cells = |row: &ChangeRow| {
        vec![
            row.side.to_string(),
            signed_exact(row.to),
            share(row.refusal_from),
            share(row.refusal_to),
            points(row.change),
            points_interval(row.interval),
            p_value(row.p_value),
            p_value(row.p_over_random),
        ]
    };
    let header = vec![
        Heading::text("prompts"),
        Heading::number("from 0 to"),
        Heading::number("refused at 0"),
        Heading::number("refused there"),
        Heading::number("change"),
        Heading::number("95 % interval"),
        Heading::number("p (sign test)"),
        Heading::number("p of the metric's change over random directions"),
    ];
    let rows = ChangeRow::read(change)?.iter().filter(|row| row.part != "whole").map(cells).collect();
    Ok(TableBlock { caption: "What changing the signal does to refusals".to_string(), header, rows })
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
    text += &too_few_directions(dose)?;
    let mut section = Section::new("Signal and answers").paragraph(text);
    section = section.block(Block::Table(crossings(dose, thresholds)?));
    if let Some(change) = change {
        section = section.block(Block::Table(changes(change)?));
    }
    let alt = "Curves over the coefficients of the concept's direction.";
    let section = if generated(dose)? {
        section
            .figure(dir.join("modulation.png"), "Shares of answers to the positive prompts by coefficient.", alt)
            .figure(dir.join("modulation-negative.png"), "The same for the negative prompts.", alt)
            .figure(dir.join("metric.png"), METRIC_CAPTION, alt)
    } else {
        section.figure(dir.join("modulation.png"), METRIC_CAPTION, alt)
    };
    let mut listing = Listing::of(dose)
        .only(OfPrompts::by.name, "all")
        .column("prompts", Show::Text(OfPrompts::side.name))
        .column("coefficient", Show::Exact(DoseRow::coefficient.name))
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

fn thresholds_section(
    thresholds: &Table,
    uncrossed: &[Uncrossed],
    differences: &Table,
    dir: &Path,
) -> Result<Section, AnalysisError> {
    let rows = DifferenceRow::read(differences)?;
    let sentence = |row: &DifferenceRow| {
        let what = if row.by == "group" { "topic" } else { "language" };
        let told = row.q_value.is_some_and(|q| q < SIGNIFICANT);
        let differ = if told { "differ" } else { "cannot be told to differ" };
        // Alone among all that are tested.
        let least_q = row.least_p.map(|p| (p * rows.len() as f64).min(1.0));
        let few = least_q.filter(|q| !told && *q >= SIGNIFICANT);
        let few = few.map_or(String::new(), |q| {
            format!(" **So few prompts cannot tell**: the least q that the test alone can have is {}.", number(q, 3))
        });
        format!(
            "Thresholds of the {} prompts {differ} by {what} ({} of the variance of their ranks, p {}, q {}; {}{}).{few}",
            row.side,
            share(row.between),
            p_value(row.p_value),
            p_value(row.q_value),
            plural(row.n, "prompt"),
            beyond_the_grid(row.below, row.above),
        )
    };
    let tested: Vec<String> = rows.iter().map(sentence).collect();
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
        let caption =
            "The coefficient at which the mean logit difference crosses 0. Where it does not, the row is hatched.";
        section = section.figure(dir.join("thresholds.png"), caption, "Forest plot of thresholds.");
    }
    Ok(section.block(Block::Table(listed(thresholds, uncrossed)?)))
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

/// The table of thresholds. An interval may go on beyond the grid, which is written in words, and so is what does not cross 0.
fn listed(thresholds: &Table, uncrossed: &[Uncrossed]) -> Result<TableBlock, AnalysisError> {
    let listing = Listing::of(thresholds)
        .first(LISTED)
        .column("prompts", Show::Text(OfPrompts::side.name))
        .column("by", Show::Text(OfPrompts::by.name))
        .column("value", Show::Text(OfPrompts::value.name))
        .column("of", Show::Text(ThresholdRow::class.name))
        .column("n", Show::Count(ThresholdRow::n.name))
        .column("threshold", Show::Number(ThresholdRow::coefficient.name, 3))
        .column("rises", Show::Flag(ThresholdRow::rises.name));
    let (found, rows) = (ThresholdRow::read(thresholds)?, listing.rows()?);
    let mut block = listing.block("Thresholds")?;
    block.header.push(Heading::number("95 % interval"));
    block.rows.iter_mut().zip(rows).for_each(|(row, i)| row.push(found[i].ends(3)));
    block.rows.extend(uncrossed.iter().map(|part| {
        let cells = [part.side, part.by, part.value, METRIC, EMPTY, part.place, EMPTY, EMPTY];
        cells.map(str::to_string).to_vec()
    }));
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two topics of one side at two coefficients: one crosses 0, the other is above it.
    fn tables() -> (Table, Table) {
        let of = |value| OfPrompts { side: "positive", by: "group", value };
        let doses = [("drugs", -1.0, -1.0), ("drugs", 1.0, 1.0), ("politics", -1.0, 1.0), ("politics", 1.0, 2.0)];
        let dose = doses.map(|(value, coefficient, metric)| DoseRow {
            model: "m",
            prompts: of(value),
            coefficient: Some(coefficient),
            metric_mean: Some(metric),
            ..DoseRow::default()
        });
        let threshold = ThresholdRow {
            model: "m",
            prompts: of("drugs"),
            class: METRIC,
            n: 15,
            coefficient: Some(0.0),
            ci_low: Some(-0.5),
            ci_high: Some(0.5),
            rises: true,
            ..ThresholdRow::default()
        };
        (DoseRow::table(dose).unwrap(), ThresholdRow::table([threshold]).unwrap())
    }

    #[test]
    fn a_topic_that_does_not_cross_0_has_a_row_in_the_figure_and_in_the_table() {
        let (dose, thresholds) = tables();
        let Some(Figure::Forest(forest)) = forest(&dose, &thresholds).unwrap() else { panic!("no forest") };
        let labels: Vec<&str> = forest.rows.iter().map(|row| row.label.as_str()).collect();
        assert_eq!((labels, forest.rows[1].estimates[0]), (vec!["drugs", "politics"], None));
        let found = uncrossed(&dose, &thresholds, |_, _| true).unwrap();
        assert_eq!(found[0].sentence(), "The mean of politics is above 0 on the whole grid.");
        let block = listed(&thresholds, &found).unwrap();
        assert_eq!(block.rows[1][2..6], ["politics", "metric", EMPTY, "above 0 on the whole grid"]);
        assert!(block.rows.iter().all(|row| row.len() == block.header.len()));
        assert!(uncrossed(&dose, &thresholds, |_, by| by == "lang").unwrap().is_empty());
    }

    #[test]
    fn coefficients_have_their_sign() {
        assert_eq!([Some(4.0), Some(-0.125), Some(0.0)].map(signed_exact), ["+4.00", "−0.125", "0.00"]);
        // Controls of a series are drawn in a tint of its colour.
        assert!(!METRIC_CAPTION.contains("grey"));
    }
}
