//! The doses of steering: tables of a sweep's numbers; figures and text from the tables alone.
//!
//! What is run, and with which vector, is left to `steer` and `plans`; what is said of answers, to `texts`.

use super::plans::{Condition, OF_FORK, OF_PROMPT};
use super::{Items, texts};
use crate::analyses::answered::{Answer, class_columns, shares};
use crate::analyses::effects::INTERVAL;
use crate::analyses::halves::{Moved, Order, Shown};
use crate::analyses::summary::{less, mean};
use crate::analyses::{AnalysisError, Figures, halves, power, table};
use crate::answers::Class;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Figure, Threshold};
use crate::names::short_name;
use crate::report::cells::{exact, p_value, plural, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::session::Session;
use crate::stats::{Bootstrap, bca_mean};
use crate::table::Table;
use std::path::Path;

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
    session: &Session,
    items: &Items,
    conditions: &[Condition],
    numbers: &[f64],
    answers: &[Option<Vec<Answer>>],
) -> Result<Vec<Table>, AnalysisError> {
    let of_prompt: Vec<&[f64]> = numbers.chunks_exact(OF_PROMPT + OF_FORK * conditions.len()).collect();
    let of_base = |c: usize| of_prompt.iter().map(|p| p[c]).collect::<Vec<f64>>();
    let (base, base_half) = (of_base(0), of_base(2));
    let measured: Vec<Measured> = conditions
        .iter()
        .enumerate()
        .map(|(k, condition)| {
            let column = |c: usize| of_prompt.iter().map(|p| p[OF_PROMPT + OF_FORK * k + c]).collect::<Vec<f64>>();
            let (metric, answer) = (column(0), less(&column(3), &base_half));
            let foil = less(&answer, &less(&metric, &base));
            let (kl, entropy, answers) = (column(1), column(2), answers[k].as_deref());
            Measured { condition, metric, kl, entropy, halves: [answer, foil], answers }
        })
        .collect();
    let bootstrap = Bootstrap { seed: session.seed, ..Bootstrap::default() };
    let rows = rows(&base, &measured, &items.rules.classes(), &bootstrap);
    let dose = dose_table(&session.model.name, items, &rows)?;
    let halves = |side: usize| rows.iter().map(|r| r.halves[side].clone()).collect::<Vec<_>>();
    let dose =
        halves::columns(dose, "effect", "vector: steered minus base of", [&halves(0), &halves(1)], session.seed)?;
    let mut tables = vec![dose, items_table(items, &base, &measured)?];
    if answers.iter().any(Option::is_some) {
        tables.push(texts::generations_table(items, &measured)?);
        if texts::are_classed(items, &measured) {
            tables.push(texts::thresholds_table(items, &measured, &bootstrap)?);
        }
    }
    Ok(tables)
}

/// A row of the dose table: the vector under a condition, or all random directions under it.
struct Row {
    kind: &'static str,
    coefficient: Option<f64>,
    direction: &'static str,
    directions: i64,
    base: Option<f64>,
    metric: Option<f64>,
    interval: Option<(f64, f64)>,
    kl: Option<f64>,
    entropy: Option<f64>,
    /// How often a random direction moves the mean metric as far.
    p_over_random: Option<f64>,
    answers: i64,
    /// How many of the directions the answers are of.
    answer_directions: i64,
    /// Shares of the rules' classes.
    shares: Vec<Option<f64>>,
    /// The vector's effects on the answer's and the foil's half, one a prompt; none of random directions.
    halves: [Vec<f64>; 2],
}

/// The vector's rows, each with the random directions' row after it.
fn rows(base: &[f64], measured: &[Measured], classes: &[Class], bootstrap: &Bootstrap) -> Vec<Row> {
    let base_mean = mean(base);
    let mut rows = Vec::new();
    for own in measured.iter().filter(|m| m.condition.direction == 0) {
        let same = |m: &&Measured| m.condition.direction > 0 && m.condition.kind == own.condition.kind;
        let random: Vec<&Measured> = measured.iter().filter(same).collect();
        let change = |m: &Measured| mean(&m.metric.iter().zip(base).map(|(m, b)| m - b).collect::<Vec<_>>());
        let far = |m: &&&Measured| change(m).map(f64::abs) >= change(own).map(f64::abs);
        let hits = random.iter().filter(far).count();
        let interval = bca_mean(&own.metric, bootstrap);
        let all: Vec<&Answer> = own.answers.into_iter().flatten().collect();
        rows.push(Row {
            kind: own.condition.kind.name(),
            coefficient: own.condition.kind.coefficient(),
            direction: "vector",
            directions: 1,
            base: base_mean,
            metric: mean(&own.metric),
            interval: interval.map(|i| (i.low, i.high)),
            kl: mean(&own.kl),
            entropy: mean(&own.entropy),
            p_over_random: (!random.is_empty()).then(|| (hits + 1) as f64 / (random.len() + 1) as f64),
            answers: all.len() as i64,
            answer_directions: i64::from(own.answers.is_some()),
            shares: shares(&all, classes),
            halves: own.halves.clone(),
        });
        let mut means: Vec<f64> = random.iter().filter_map(|m| mean(&m.metric)).collect();
        means.sort_by(f64::total_cmp);
        let over =
            |of: &dyn Fn(&Measured) -> Option<f64>| mean(&random.iter().filter_map(|m| of(m)).collect::<Vec<_>>());
        let all: Vec<&Answer> = random.iter().filter_map(|m| m.answers).flatten().collect();
        rows.push(Row {
            kind: own.condition.kind.name(),
            coefficient: own.condition.kind.coefficient(),
            direction: "random",
            directions: random.len() as i64,
            base: base_mean,
            metric: mean(&means),
            interval: means.first().copied().zip(means.last().copied()),
            kl: over(&|m| mean(&m.kl)),
            entropy: over(&|m| mean(&m.entropy)),
            p_over_random: None,
            answers: all.len() as i64,
            answer_directions: random.iter().filter(|m| m.answers.is_some()).count() as i64,
            shares: shares(&all, classes),
            halves: Default::default(),
        });
    }
    rows
}

fn dose_table(model: &str, items: &Items, rows: &[Row]) -> Result<Table, AnalysisError> {
    let n = items.tokens.len() as i64;
    let mut table = Table::new("dose")
        .str("model", "the model, as it was named", rows.iter().map(|_| model))?
        .str(
            "kind",
            "add: times the coefficient; ablate: taken out of every layer; gcav: each prompt its own",
            rows.iter().map(|r| r.kind),
        )?
        .str("direction", "vector, or random: directions of the same norm", rows.iter().map(|r| r.direction))?
        .int("directions", "how many directions the row is over", rows.iter().map(|r| r.directions))?
        .float("coefficient", "coefficient; empty but for kind add", rows.iter().map(|r| r.coefficient))?
        .int("n", "prompts", rows.iter().map(|_| n))?
        .float("base_mean", "mean metric of the prompts without steering, nats", rows.iter().map(|r| r.base))?
        .float("metric_mean", "mean metric, nats", rows.iter().map(|r| r.metric))?
        .float(
            "ci_low",
            "vector: lower end of its 95 % BCa interval; random: least mean of a direction",
            rows.iter().map(|r| r.interval.map(|i| i.0)),
        )?
        .float(
            "ci_high",
            "vector: upper end; random: largest mean of a direction",
            rows.iter().map(|r| r.interval.map(|i| i.1)),
        )?
        .float(
            "p_over_random",
            "share of random directions that move the mean metric as far, (hits + 1) / (R + 1)",
            rows.iter().map(|r| r.p_over_random),
        )?
        .float(
            "kl_to_base",
            "mean KL divergence of the next token from the run without steering, nats",
            rows.iter().map(|r| r.kl),
        )?
        .float("entropy", "mean entropy of the next token, nats", rows.iter().map(|r| r.entropy))?
        .int("answers", "generated answers", rows.iter().map(|r| r.answers))?
        .int(
            "answer_directions",
            "how many of the row's directions the answers and their shares are of",
            rows.iter().map(|r| r.answer_directions),
        )?;
    for (c, class) in items.rules.classes().iter().enumerate() {
        table = table.float(
            &class.column(),
            "share of generated answers of this class",
            rows.iter().map(|r| r.shares[c]),
        )?;
    }
    Ok(table.str("site", "where it was added", rows.iter().map(|_| items.site.to_string()))?)
}

fn items_table(items: &Items, base: &[f64], measured: &[Measured]) -> Result<Table, AnalysisError> {
    let rows: Vec<(usize, &Measured)> = measured.iter().flat_map(|m| (0..base.len()).map(move |i| (i, m))).collect();
    let item = |r: &(usize, &Measured)| &items.dataset.items[r.0];
    let coefficient = |r: &(usize, &Measured)| r.1.condition.kind.coefficient_of(r.0);
    Ok(Table::new("items")
        .str("id", "the prompt", rows.iter().map(|r| item(r).id.as_str()))?
        .opt_str("group", "the prompt's group", rows.iter().map(|r| item(r).group.as_deref()))?
        .opt_str("lang", "the prompt's language", rows.iter().map(|r| item(r).lang.as_deref()))?
        .str("kind", "add, ablate or gcav", rows.iter().map(|r| r.1.condition.kind.name()))?
        .int(
            "direction",
            "0: the vector; from 1 on: random directions",
            rows.iter().map(|r| r.1.condition.direction as i64),
        )?
        .float("coefficient", "coefficient", rows.iter().map(coefficient))?
        .float("base_metric", "metric without steering, nats", rows.iter().map(|r| base[r.0]))?
        .float("metric", "metric, nats", rows.iter().map(|r| r.1.metric[r.0]))?
        .float(
            "kl_to_base",
            "KL divergence of the next token from the run without steering, nats",
            rows.iter().map(|r| r.1.kl[r.0]),
        )?
        .float("entropy", "entropy of the next token, nats", rows.iter().map(|r| r.1.entropy[r.0]))?
        .float("effect", "metric minus base_metric, nats", rows.iter().map(|r| r.1.metric[r.0] - base[r.0]))?
        .float(
            "answer_effect",
            "the same of logsumexp(answer logits) less the mean logit, nats",
            rows.iter().map(|r| r.1.halves[0][r.0]),
        )?
        .float(
            "foil_effect",
            "the same of the foil: answer_effect less this is effect",
            rows.iter().map(|r| r.1.halves[1][r.0]),
        )?)
}

/// Each prompt's smallest coefficient.
pub(super) fn smallest_table(items: &Items, smallest: &[f64]) -> Result<Table, AnalysisError> {
    let all = &items.dataset.items;
    Ok(Table::new("gcav")
        .str("id", "the prompt", all.iter().map(|i| i.id.as_str()))?
        .opt_str("group", "the prompt's group", all.iter().map(|i| i.group.as_deref()))?
        .float(
            "coefficient",
            "smallest coefficient that brings the classifier's probability to the wanted one; 0: it is there already",
            smallest.iter().copied(),
        )?)
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
    let (kinds, directions) = (dose.strs("kind")?, dose.strs("direction")?);
    let (x, y) = (dose.floats("coefficient")?, dose.floats(column)?);
    let (low, high) = (dose.floats("ci_low")?, dose.floats("ci_high")?);
    let of = (0..dose.rows()).filter(|i| kinds[*i] == "add" && directions[*i] == direction);
    let point = |i: usize| {
        let interval = if band { low[i].zip(high[i]) } else { None };
        Some(CurvePoint { x: x[i]?, y: y[i], interval })
    };
    Ok(Curve { name: name.to_string(), role, points: of.filter_map(point).collect() })
}

fn subtitle(dose: &Table) -> Result<String, AnalysisError> {
    let (model, site, n) = (dose.strs("model")?, dose.strs("site")?, dose.ints("n")?);
    let first = |x: &[&str]| x.first().copied().unwrap_or_default().to_string();
    Ok(format!(
        "{}, {}, added at {}",
        short_name(&first(&model)),
        plural(n.first().copied().unwrap_or(0), "prompt"),
        first(&site)
    ))
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let dose = table(tables, "dose")?;
    let base = |title: &str, y_label: &str| -> Result<Curves, AnalysisError> {
        Ok(Curves {
            title: title.to_string(),
            subtitle: subtitle(dose)?,
            x_label: "coefficient".to_string(),
            y_label: y_label.to_string(),
            shares: false,
            curves: Vec::new(),
            thresholds: Vec::new(),
            reference: None,
            y_range: None,
            interval_meaning: None,
        })
    };
    let vector = |column: &str, name: &str| curve(dose, "vector", column, name, CurveRole::Series, false);
    let random = |column: &str, name: &str| curve(dose, "random", column, name, CurveRole::Control, false);
    let metric = Curves {
        curves: vec![
            curve(dose, "vector", "metric_mean", "vector", CurveRole::Series, true)?,
            curve(dose, "random", "metric_mean", "random directions, least to largest", CurveRole::Control, true)?,
        ],
        interval_meaning: Some(format!("{INTERVAL}; of random directions their range")),
        ..base("Dose and response", "logit difference (nats)")?
    };
    let spread = Curves {
        curves: vec![
            vector("kl_to_base", "KL divergence from the unsteered run")?,
            vector("entropy", "entropy")?,
            random("kl_to_base", "KL divergence, random directions")?,
        ],
        ..base("Change and entropy of the next token", "divergence or entropy (nats)")?
    };
    let mut figures = vec![("dose.png".to_string(), metric.into()), ("spread.png".to_string(), spread.into())];
    figures.extend(halves_figure(dose)?);
    if let Ok(found) = table(tables, "thresholds") {
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

/// What is done with the vector in a row: `coefficient 1.50`, `taken out`.
fn done(coefficient: Option<f64>, kind: &str) -> String {
    match (coefficient, kind) {
        (Some(c), _) => format!("coefficient {}", exact(c)),
        (None, "ablate") => "taken out".to_string(),
        (None, _) => "own coefficients".to_string(),
    }
}

/// The halves of the vector's effects, in the order of its coefficients.
fn apart(dose: &Table) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
    let (kinds, directions, x) = (dose.strs("kind")?, dose.strs("direction")?, dose.floats("coefficient")?);
    let (metric, base) = (dose.floats("metric_mean")?, dose.floats("base_mean")?);
    let effect = |i: usize| metric[i].zip(base[i]).map(|(m, b)| m - b);
    let halves = halves::read(dose, "effect")?;
    // At coefficient 0 nothing is steered.
    let steered = |i: &usize| directions[*i] == "vector" && x[*i] != Some(0.0);
    let row = |i: usize| Moved { label: done(x[i], kinds[i]), whole: effect(i), halves: halves[i] };
    let mut own: Vec<usize> = (0..dose.rows()).filter(steered).collect();
    // Where not all fit, those are shown that do most.
    let size = |i: &usize| effect(*i).map_or(0.0, f64::abs);
    own.sort_by(|a, b| size(b).total_cmp(&size(a)));
    own.truncate(MOVED);
    own.sort_by(|a, b| x[*a].unwrap_or(f64::INFINITY).total_cmp(&x[*b].unwrap_or(f64::INFINITY)));
    let rows = own.into_iter().map(row).collect();
    let shown = Shown {
        title: "Steering: answer and foil apart".to_string(),
        subtitle: subtitle(dose)?,
        subject: "the vector",
        order: Order::Own("what is done with the vector"),
        ..Shown::default()
    };
    Ok((shown, rows))
}

/// Those halves as a figure.
fn halves_figure(dose: &Table) -> Result<Option<(String, Figure)>, AnalysisError> {
    let (shown, rows) = apart(dose)?;
    Ok(shown.figure(&rows).map(|figure| (shown.file, figure)))
}

/// How many of the vector's effects are shown in halves.
const MOVED: usize = 12;

/// The random directions that generated: `2 random directions`.
pub(super) fn answering(dose: &Table) -> Result<String, AnalysisError> {
    let (directions, answering) = (dose.strs("direction")?, dose.ints("answer_directions")?);
    let n = (0..dose.rows()).filter(|i| directions[*i] == "random").map(|i| answering[i]).max().unwrap_or(0);
    Ok(plural(n, "random direction"))
}

/// Thresholds of refusal and answer, and of one's own classes; those between are seen.
fn thresholds(table: &Table) -> Result<Vec<Threshold>, AnalysisError> {
    let (class, at) = (table.strs("class")?, table.floats("coefficient")?);
    let (low, high) = (table.floats("ci_low")?, table.floats("ci_high")?);
    let of = (0..table.rows()).filter(|i| class[*i] != "evasion" && !SIDE.contains(&class[*i]));
    let one = |i: usize| {
        Some(Threshold { x: at[i]?, label: format!("{} 50 % (fit)", class[i]), interval: low[i].zip(high[i]) })
    };
    Ok(of.filter_map(one).collect())
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let dose = table(tables, "dose")?;
    let (kinds, directions) = (dose.strs("kind")?, dose.strs("direction")?);
    let (coefficient, metric, base) =
        (dose.floats("coefficient")?, dose.floats("metric_mean")?, dose.floats("base_mean")?);
    let (low, high, over_random) = (dose.floats("ci_low")?, dose.floats("ci_high")?, dose.floats("p_over_random")?);
    let (number_of, halves) = (dose.ints("directions")?, halves::read(dose, "effect")?);
    let change = |i: usize| metric[i].zip(base[i]).map(|(m, b)| m - b);
    let own: Vec<usize> = (0..dose.rows()).filter(|i| directions[*i] == "vector").collect();
    let largest = own.iter().copied().max_by(|a, b| {
        let size = |i: &usize| change(*i).map_or(0.0, f64::abs);
        size(a).total_cmp(&size(b))
    });
    let most = largest.map_or(String::new(), |i| {
        let at = match (coefficient[i], kinds[i]) {
            (Some(c), _) => format!("at coefficient {}", exact(c)),
            (None, "ablate") => "with the direction taken out".to_string(),
            (None, _) => "with each prompt's own coefficient".to_string(),
        };
        let random = (0..dose.rows()).find(|j| *j == i + 1 && directions[*j] == "random");
        let chance = random.and_then(|j| {
            let (low, high, base) = (low[j]?, high[j]?, base[j]?);
            Some(format!(
                "; {} of the same norm {} it by {} to {} (p over random {})",
                plural(number_of[j], "random direction"),
                if number_of[j] == 1 { "changes" } else { "change" },
                signed(Some(low - base), 2),
                signed(Some(high - base), 2),
                p_value(over_random[i]),
            ))
        });
        let moved = halves[i].sentence("The vector");
        format!("The largest change is {} nats {at}{}.{moved}", signed(change(i), 2), chance.unwrap_or_default())
    });
    let directions = (0..dose.rows()).filter(|i| directions[*i] == "random").map(|i| number_of[i]).max().unwrap_or(0);
    let text = format!(
        "Without steering the mean logit difference is {} nats. {most}{}",
        signed(base.first().copied().flatten(), 2),
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
    let mut sections = vec![listed(section, dose, table(tables, "thresholds").is_ok())?];
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
    let kinds = dose.strs("kind")?;
    if kinds.iter().any(|kind| *kind != "add") {
        listing = listing.column("kind", Show::Text("kind"));
    }
    let mut listing = listing
        .column("direction", Show::Text("direction"))
        .column("coefficient", Show::Exact("coefficient"))
        .column("metric (nats)", Show::Signed("metric_mean", 2))
        .column("interval or range", Show::Interval("ci_low", "ci_high", 3))
        .column("p over random", Show::PValue("p_over_random"))
        .column("KL", Show::Number("kl_to_base", 3))
        .column("entropy", Show::Number("entropy", 2));
    let classes = if classed { class_columns(dose) } else { Vec::new() };
    // Said of the random ones in the text, where all are of as many.
    if classed && dose.ints("answer_directions")?.iter().any(|n| *n > 1) {
        listing = listing.column("directions that answered", Show::Count("answer_directions"));
    }
    listing = classes.iter().fold(listing, |l, (name, column)| l.column(name.clone(), Show::Share(column)));
    let block = listing.block("Every dose; each prompt's numbers are in items.parquet")?;
    Ok(section.block(Block::Table(block)))
}
