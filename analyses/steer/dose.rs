//! The doses of steering: tables of a sweep's numbers; figures and text from the tables alone.
//!
//! What is run, and with which vector, is left to `steer` and `plans`; what is said of answers, to `texts`.

use super::plans::{Condition, Read, Swept};
use super::texts::ThresholdRow;
use super::{Items, texts};
use crate::analyses::answered::{Answer, class_columns, columns_of, shares};
use crate::analyses::columns::{EffectHalves, OfPrompt};
use crate::analyses::effects::INTERVAL;
use crate::analyses::halves::{Halves, Moved, Order, Shown};
use crate::analyses::prelude::*;
use crate::analyses::summary::less;
use crate::analyses::{halves, power};
use crate::answers::Class;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Threshold};
use crate::names::short_name;
use crate::report::cells::{exact, p_value, plural, signed};
use crate::stats::bca_mean;
use crate::table::rows;
use std::borrow::Cow;

/// Classes that say nothing of what was asked.
const SIDE: [&str; 2] = ["broken", "undecided"];

/// A condition's numbers, one a prompt.
pub(super) struct Measured<'a> {
    pub(super) condition: &'a Condition,
    metric: Vec<f64>,
    kl: Vec<f64>,
    entropy: Vec<f64>,
    /// How far the metric's two halves, the answer's and the foil's, are moved.
    halves: [Vec<f64>; 2],
    pub(super) answers: Option<&'a [Answer]>,
}

/// The tables of a sweep's numbers, and of the answers under each condition that generates.
pub(super) fn tables(
    about: &About,
    items: &Items,
    conditions: &[Condition],
    read: &[Swept],
    answers: &[Option<Vec<Answer>>],
) -> Result<Vec<Table>, AnalysisError> {
    let base: Vec<f64> = read.iter().map(|of| of.clean.value.metric).collect();
    let measured: Vec<Measured> = conditions
        .iter()
        .enumerate()
        .map(|(k, condition)| {
            let column = |of: fn(&Read) -> f64| read.iter().map(|p| of(&p.steered[k])).collect::<Vec<f64>>();
            // Prompts' metrics are logit differences, and have halves.
            let answer = read.iter().filter_map(|p| p.clean.value.swap(None, p.steered[k].value).answer);
            let (metric, answer) = (column(|r| r.value.metric), answer.collect::<Vec<f64>>());
            let foil = less(&answer, &less(&metric, &base));
            let (kl, entropy, answers) = (column(|r| r.kl), column(|r| r.entropy), answers[k].as_deref());
            Measured { condition, metric, kl, entropy, halves: [answer, foil], answers }
        })
        .collect();
    let bootstrap = Bootstrap { seed: about.seed, ..Bootstrap::default() };
    let classes = items.rules.classes();
    let (rows, effects): (Vec<DoseRow>, Vec<[Vec<f64>; 2]>) =
        rows(about.model, items, &base, &measured, &bootstrap).into_iter().unzip();
    let halves = |side: usize| effects.iter().map(|halves| halves[side].clone()).collect::<Vec<_>>();
    let halves = halves::over_items(&halves(0), &halves(1), about.seed);
    let rows = rows.into_iter().zip(halves).map(|(row, halves)| DoseRow { halves, ..row });
    let dose = rows::table(DoseRow::TABLE, &columns_of(&classes), rows)?;
    let mut tables = vec![dose, items_table(items, &base, &measured)?];
    if answers.iter().any(Option::is_some) {
        tables.push(texts::generations_table(items, &measured)?);
        if texts::are_classed(items, &measured) {
            tables.push(texts::thresholds_table(items, &measured, &bootstrap)?);
        }
    }
    Ok(tables)
}

rows! {
    /// The vector under a condition, or all random directions under it.
    pub struct DoseRow<'a> in "dose" {
        model: &'a str = "the model, as it was named",
        kind: &'a str = "add: times the coefficient; ablate: taken out of every layer; gcav: each prompt its own",
        direction: &'a str = "vector, or random: directions of the same norm",
        directions: i64 = "how many directions the row is over",
        coefficient: Option<f64> = "coefficient; empty but for kind add",
        n: i64 = "prompts",
        base_mean: Option<f64> = "mean metric of the prompts without steering, nats",
        metric_mean: Option<f64> = "mean metric, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "vector: lower end of its 95 % BCa interval; random: least mean of a direction",
            "vector: upper end; random: largest mean of a direction",
        ],
        p_over_random: Option<f64> =
            "share of random directions that move the mean metric as far, (hits + 1) / (R + 1)",
        kl_to_base: Option<f64> =
            "mean KL divergence of the next token from the run without steering, nats",
        entropy: Option<f64> = "mean entropy of the next token, nats",
        answers: i64 = "generated answers",
        answer_directions: i64 = "how many of the row's directions the answers and their shares are of",
        /// Of the rules' classes.
        shares: Vec<Option<f64>> = "share of generated answers of this class",
        site: Cow<'a, str> = "where it was added",
        /// The vector's effects on the answer's and the foil's half; none of random directions.
        halves: Halves [newer] as "effect" = "vector: steered minus base of",
    }

    /// The prompt and the condition that a row is of.
    #[derive(Copy)]
    pub(super) struct OfSteered<'a> {
        prompt: OfPrompt<'a> as "",
        kind: &'a str = "add, ablate or gcav",
        direction: i64 = "0: the vector; from 1 on: random directions",
        coefficient: Option<f64> = "coefficient",
    }

    /// One prompt under a condition.
    pub(super) struct ItemRow<'a> in "items" {
        steered: OfSteered<'a> as "",
        base_metric: Option<f64> = "metric without steering, nats",
        metric: Option<f64> = "metric, nats",
        kl_to_base: Option<f64> = "KL divergence of the next token from the run without steering, nats",
        entropy: Option<f64> = "entropy of the next token, nats",
        effect: Option<f64> = "metric minus base_metric, nats",
        halves: EffectHalves as "",
    }

    /// A prompt with its smallest coefficient.
    pub(super) struct SmallestRow<'a> in "gcav" {
        id: &'a str = "the prompt",
        group: Option<&'a str> = "the prompt's group",
        coefficient: Option<f64> =
            "smallest coefficient that brings the classifier's probability to the wanted one; 0: it is there already",
    }
}

/// What the rows of the vector are called.
pub const VECTOR: &str = "vector";
/// What the rows of random directions are called.
pub const RANDOM: &str = "random";

/// The vector's rows, each with the random directions' row after it; with the vector's effects on both halves, one a prompt.
fn rows<'a>(
    model: &'a str,
    items: &Items,
    base: &[f64],
    measured: &[Measured],
    bootstrap: &Bootstrap,
) -> Vec<(DoseRow<'a>, [Vec<f64>; 2])> {
    let (base_mean, classes) = (mean(base), items.rules.classes());
    let mut rows = Vec::new();
    for own in measured.iter().filter(|m| m.condition.direction == 0) {
        let kind = &own.condition.kind;
        let row = || DoseRow {
            model,
            kind: kind.name(),
            coefficient: kind.coefficient(),
            n: items.tokens.len() as i64,
            base_mean,
            site: items.site.to_string().into(),
            ..DoseRow::default()
        };
        let same = |m: &&Measured| m.condition.direction > 0 && m.condition.kind == *kind;
        let random: Vec<&Measured> = measured.iter().filter(same).collect();
        let change = |m: &Measured| mean(&m.metric.iter().zip(base).map(|(m, b)| m - b).collect::<Vec<_>>());
        let far = |m: &&&Measured| change(m).map(f64::abs) >= change(own).map(f64::abs);
        let hits = random.iter().filter(far).count();
        let all: Vec<&Answer> = own.answers.into_iter().flatten().collect();
        let vector = DoseRow {
            direction: VECTOR,
            directions: 1,
            metric_mean: mean(&own.metric),
            interval: bca_mean(&own.metric, bootstrap).map(Interval::ends),
            kl_to_base: mean(&own.kl),
            entropy: mean(&own.entropy),
            p_over_random: (!random.is_empty()).then(|| (hits + 1) as f64 / (random.len() + 1) as f64),
            answers: all.len() as i64,
            answer_directions: i64::from(own.answers.is_some()),
            shares: shares(&all, &classes),
            ..row()
        };
        rows.push((vector, own.halves.clone()));
        rows.push((of_random(&random, &classes, row()), Default::default()));
    }
    rows
}

/// What all random directions under a condition come to.
fn of_random<'a>(random: &[&Measured], classes: &[Class], row: DoseRow<'a>) -> DoseRow<'a> {
    let mut means: Vec<f64> = random.iter().filter_map(|m| mean(&m.metric)).collect();
    means.sort_by(f64::total_cmp);
    let over = |of: &dyn Fn(&Measured) -> Option<f64>| mean(&random.iter().filter_map(|m| of(m)).collect::<Vec<_>>());
    let all: Vec<&Answer> = random.iter().filter_map(|m| m.answers).flatten().collect();
    DoseRow {
        direction: RANDOM,
        directions: random.len() as i64,
        metric_mean: mean(&means),
        interval: means.first().copied().zip(means.last().copied()),
        kl_to_base: over(&|m| mean(&m.kl)),
        entropy: over(&|m| mean(&m.entropy)),
        answers: all.len() as i64,
        answer_directions: random.iter().filter(|m| m.answers.is_some()).count() as i64,
        shares: shares(&all, classes),
        ..row
    }
}

impl<'a> OfSteered<'a> {
    /// A prompt, by its number, under a condition.
    pub(super) fn new(condition: &Condition, (i, item): (usize, &'a Item)) -> Self {
        OfSteered {
            prompt: item.into(),
            kind: condition.kind.name(),
            direction: condition.direction as i64,
            coefficient: condition.kind.coefficient_of(i),
        }
    }
}

fn items_table(items: &Items, base: &[f64], measured: &[Measured]) -> Result<Table, AnalysisError> {
    let under = |m: &Measured| {
        let Measured { condition, metric, kl, entropy, halves: [answers, foils], .. } = m;
        let row = |(i, item)| ItemRow {
            steered: OfSteered::new(condition, (i, item)),
            base_metric: Some(base[i]),
            metric: Some(metric[i]),
            kl_to_base: Some(kl[i]),
            entropy: Some(entropy[i]),
            effect: Some(metric[i] - base[i]),
            halves: EffectHalves { answer_effect: Some(answers[i]), foil_effect: Some(foils[i]) },
        };
        items.dataset.items.iter().enumerate().map(row).collect::<Vec<_>>()
    };
    Ok(ItemRow::table(measured.iter().flat_map(under))?)
}

/// Each prompt's smallest coefficient.
pub(super) fn smallest_table(items: &Items, smallest: &[f64]) -> Result<Table, AnalysisError> {
    let rows = items.dataset.items.iter().zip(smallest).map(|(item, coefficient)| SmallestRow {
        id: &item.id,
        group: item.group.as_deref(),
        coefficient: Some(*coefficient),
    });
    Ok(SmallestRow::table(rows)?)
}

/// Rows of kind add, of one direction, that have a value in a column.
fn curve(
    dose: &Table,
    direction: &str,
    column: &str,
    name: &str,
    role: CurveRole,
    band: bool,
) -> Result<Curve, AnalysisError> {
    let (kinds, directions) = (dose.column(DoseRow::kind)?, dose.column(DoseRow::direction)?);
    let (x, y) = (dose.column(DoseRow::coefficient)?, dose.floats(column)?);
    let ends = dose.column(DoseRow::interval)?;
    let of = (0..dose.rows()).filter(|i| kinds[*i] == "add" && directions[*i] == direction);
    let point = |i: usize| {
        let interval = if band { ends[i] } else { None };
        Some(CurvePoint { x: x[i]?, y: y[i], interval })
    };
    Ok(Curve { name: name.to_string(), role, points: of.filter_map(point).collect() })
}

fn subtitle(dose: &Table) -> Result<String, AnalysisError> {
    let (model, site, n) = (dose.column(DoseRow::model)?, dose.strs(DoseRow::site.name)?, dose.column(DoseRow::n)?);
    let first = |x: &[&str]| x.first().copied().unwrap_or_default().to_string();
    Ok(format!(
        "{}, {}, added at {}",
        short_name(&first(&model)),
        plural(n.first().copied().unwrap_or(0), "prompt"),
        first(&site)
    ))
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let dose = table(tables, DoseRow::TABLE)?;
    let base = |title: &str, y_label: &str| -> Result<Curves, AnalysisError> {
        Ok(Curves {
            title: title.to_string(),
            subtitle: subtitle(dose)?,
            x_label: "coefficient".to_string(),
            y_label: y_label.to_string(),
            ..Curves::default()
        })
    };
    let vector = |column: &str, name: &str| curve(dose, VECTOR, column, name, CurveRole::Series, false);
    let random = |column: &str, name: &str| curve(dose, RANDOM, column, name, CurveRole::Control, false);
    let mean = DoseRow::metric_mean.name;
    let metric = Curves {
        curves: vec![
            curve(dose, VECTOR, mean, "vector", CurveRole::Series, true)?,
            curve(dose, RANDOM, mean, "random directions, least to largest", CurveRole::Control, true)?,
        ],
        interval_meaning: Some(format!("{INTERVAL}; of random directions their range")),
        ..base("Dose and response", "logit difference (nats)")?
    };
    let spread = Curves {
        curves: vec![
            vector(DoseRow::kl_to_base.name, "KL divergence from the unsteered run")?,
            vector(DoseRow::entropy.name, "entropy")?,
            random(DoseRow::kl_to_base.name, "KL divergence, random directions")?,
        ],
        ..base("Change and entropy of the next token", "divergence or entropy (nats)")?
    };
    let mut figures = vec![("dose.png".to_string(), metric.into()), ("spread.png".to_string(), spread.into())];
    figures.extend(halves_figure(dose)?);
    if let Ok(found) = table(tables, ThresholdRow::TABLE) {
        let mut curves = Vec::new();
        for (name, column) in class_columns(dose) {
            let of = vector(&column, &name)?;
            // What is left aside is shown where there is some.
            if !SIDE.contains(&name.as_str()) || of.points.iter().any(|p| p.y.is_some_and(|y| y > 0.0)) {
                curves.push(of);
            }
        }
        if let Some((name, column)) = class_columns(dose).first() {
            curves.push(random(column, &format!("{name}, {}", answering(dose)?))?);
        }
        let answers = Curves {
            curves,
            thresholds: thresholds(found)?,
            y_range: Some((0.0, 1.0)),
            shares: true,
            interval_meaning: Some(INTERVAL.to_string()),
            ..base("Generated answers", "share of answers")?
        };
        figures.push(("answers.png".to_string(), answers.into()));
    }
    Ok(figures)
}

impl DoseRow<'_> {
    /// What is done with the vector: `coefficient 1.50`, `taken out`.
    pub fn done(&self) -> String {
        match (self.coefficient, self.kind) {
            (Some(c), _) => format!("coefficient {}", exact(c)),
            (None, "ablate") => "taken out".to_string(),
            (None, _) => "own coefficients".to_string(),
        }
    }

    /// How far the mean metric is moved.
    pub fn change(&self) -> Option<f64> {
        self.metric_mean.zip(self.base_mean).map(|(metric, base)| metric - base)
    }

    /// The size of that change.
    pub fn size(&self) -> f64 {
        self.change().map_or(0.0, f64::abs)
    }
}

/// The halves of the vector's effects, in the order of its coefficients.
fn apart(dose: &Table) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
    let mut own = DoseRow::read(dose)?;
    // At coefficient 0 nothing is steered.
    own.retain(|row| row.direction == VECTOR && row.coefficient != Some(0.0));
    // Where not all fit, those are shown that do most.
    own.sort_by(|a, b| b.size().total_cmp(&a.size()));
    own.truncate(MOVED);
    let place = |row: &DoseRow| row.coefficient.unwrap_or(f64::INFINITY);
    own.sort_by(|a, b| place(a).total_cmp(&place(b)));
    let moved = |row: &DoseRow| Moved { label: row.done(), whole: row.change(), halves: row.halves };
    let rows = own.iter().map(moved).collect();
    let shown = Shown {
        title: "Steering: answer and foil apart".to_string(),
        subtitle: subtitle(dose)?,
        subject: "the vector",
        order: Order::Own("what is done with the vector"),
        ..Shown::default()
    };
    Ok((shown, rows))
}

/// The halves of the vector's effects as a figure.
fn halves_figure(dose: &Table) -> Result<Option<(String, Figure)>, AnalysisError> {
    let (shown, rows) = apart(dose)?;
    Ok(shown.figure(&rows).map(|figure| (shown.file, figure)))
}

/// How many of the vector's effects are shown in halves.
const MOVED: usize = 12;

/// The random directions that generated: `2 random directions`.
pub(super) fn answering(dose: &Table) -> Result<String, AnalysisError> {
    let rows = DoseRow::read(dose)?;
    let answering = rows.iter().filter(|row| row.direction == RANDOM).map(|row| row.answer_directions);
    Ok(plural(answering.max().unwrap_or(0), "random direction"))
}

impl ThresholdRow<'_> {
    /// Whether it is of refusal or answer, or of a class of one's own.
    pub fn is_shown(&self) -> bool {
        self.class != "evasion" && !SIDE.contains(&self.class)
    }
}

/// Thresholds of refusal and answer, and of one's own classes; those between are seen.
fn thresholds(table: &Table) -> Result<Vec<Threshold>, AnalysisError> {
    let rows = ThresholdRow::read(table)?;
    let shown = rows.iter().filter(|row| row.is_shown());
    let one = |row: &ThresholdRow| {
        let label = format!("{} 50 % (fit)", row.class);
        Some(Threshold { x: row.coefficient?, label, interval: row.interval })
    };
    Ok(shown.filter_map(one).collect())
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let dose = table(tables, DoseRow::TABLE)?;
    let rows = DoseRow::read(dose)?;
    let own = rows.iter().enumerate().filter(|(_, row)| row.direction == VECTOR);
    let largest = own.max_by(|(_, a), (_, b)| a.size().total_cmp(&b.size()));
    let most = largest.map_or(String::new(), |(i, row)| {
        let at = match (row.coefficient, row.kind) {
            (Some(c), _) => format!("at coefficient {}", exact(c)),
            (None, "ablate") => "with the direction taken out".to_string(),
            (None, _) => "with each prompt's own coefficient".to_string(),
        };
        let chance = rows.get(i + 1).filter(|next| next.direction == RANDOM).and_then(|random| {
            let ((low, high), base) = (random.interval?, random.base_mean?);
            Some(format!(
                "; {} of the same norm {} it by {} to {} (p over random {})",
                plural(random.directions, "random direction"),
                if random.directions == 1 { "changes" } else { "change" },
                signed(Some(low - base), 2),
                signed(Some(high - base), 2),
                p_value(row.p_over_random),
            ))
        });
        let moved = row.halves.sentence("The vector");
        format!("The largest change is {} nats {at}{}.{moved}", signed(row.change(), 2), chance.unwrap_or_default())
    });
    let directions = rows.iter().filter(|row| row.direction == RANDOM).map(|row| row.directions).max().unwrap_or(0);
    let text = format!(
        "Without steering the mean logit difference is {} nats. {most}{}",
        signed(rows.first().and_then(|row| row.base_mean), 2),
        power::of_directions(directions),
    );
    let caption = "The mean logit difference by coefficient. Thin grey line: the same norm in random directions, on average; the grey \
                   band goes from the least to the largest.";
    let section = Section::new("Dose and response").paragraph(text);
    let section = section.figure(
        dir.join("dose.png"),
        caption,
        "Dose-response curve of the logit difference with random directions.",
    );
    let mut sections = vec![listed(section, dose, table(tables, ThresholdRow::TABLE).is_ok())?];
    let (shown, rows) = apart(dose)?;
    sections.extend(shown.section(&rows, dir, true));
    let spread = "Divergence of the next token from the unsteered run, and its entropy.";
    sections.push(Section::new("Side effects").figure(
        dir.join("spread.png"),
        spread,
        "KL divergence and entropy by coefficient.",
    ));
    sections.extend(texts::sections(tables, dir)?);
    Ok(sections)
}

/// The dose table as a report's, with the classes of answers where the study has any.
fn listed(section: Section, dose: &Table, classed: bool) -> Result<Section, AnalysisError> {
    let mut listing = Listing::of(dose);
    let kinds = dose.column(DoseRow::kind)?;
    if kinds.iter().any(|kind| *kind != "add") {
        listing = listing.column("kind", Show::Text(DoseRow::kind.name));
    }
    let mut listing = listing
        .column("direction", Show::Text(DoseRow::direction.name))
        .column("coefficient", Show::Exact(DoseRow::coefficient.name))
        .column("metric (nats)", Show::Signed(DoseRow::metric_mean.name, 2))
        .column("interval or range", Show::Interval(DoseRow::interval.name, 3))
        .column("p over random", Show::PValue(DoseRow::p_over_random.name))
        .column("KL", Show::Number(DoseRow::kl_to_base.name, 3))
        .column("entropy", Show::Number(DoseRow::entropy.name, 2));
    let classes = if classed { class_columns(dose) } else { Vec::new() };
    // Said of the random ones in the text, where all are of as many.
    if classed && dose.column(DoseRow::answer_directions)?.iter().any(|n| *n > 1) {
        listing = listing.column("directions that answered", Show::Count(DoseRow::answer_directions.name));
    }
    listing = classes.iter().fold(listing, |l, (name, column)| l.column(name.clone(), Show::Share(column)));
    let block = listing.block("Every dose; each prompt's numbers are in items.parquet")?;
    Ok(section.block(Block::Table(block)))
}
