//! The texts of steered prompts: their table, where their classes take over, and what a report says of them.
//!
//! Which prompts are gone on with, and how, is [`super::answers`]'; shares of classes by dose are in [`super::dose`].

use super::Items;
use super::dose::{DoseRow, Measured, OfSteered, answering};
use crate::analyses::answered::{Answered, class_columns};
use crate::analyses::columns::OfPrompt;
use crate::analyses::doses::class_thresholds;
use crate::analyses::effects::interval;
use crate::analyses::prelude::*;
use crate::answers::Class;
use crate::report::cells::{self, exact, number};
use std::collections::HashMap;

/// Texts that a report lists, and how many letters of each.
const LISTED: usize = 2000;
const LETTERS: usize = 400;

/// Whether there is something to classify: a file of classes is given, prompts have facts that a right answer holds, or some text
/// refuses or evades. Where there is nothing, all that the rules say is that a text is one.
pub(super) fn are_classed(items: &Items, measured: &[Measured]) -> bool {
    let kinds = [Class::Refusal, Class::Evasion];
    let of_texts = || measured.iter().filter_map(|m| m.answers).flatten().any(|a| kinds.contains(&a.class));
    items.own_classes || items.dataset.items.iter().any(|item| !item.facts.is_empty()) || of_texts()
}

rows! {
    /// The text of a prompt under a condition.
    pub(super) struct GenerationRow<'a> in "generations" {
        steered: OfSteered<'a> as "",
        answer: Answered<'a> as "",
    }

    /// Where a class of answers takes over.
    pub struct ThresholdRow<'a> in "thresholds" {
        class: &'a str = "the class of answers",
        coefficient: Option<f64> = "where its share crosses one half, by a logistic fit",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of its 95 % BCa interval over prompts, empty where a resample does not cross",
            "upper end",
        ],
        rises: bool = "whether the share rises with the coefficient",
    }
}

/// Every text: each prompt under each condition.
pub(super) fn generations_table(items: &Items, measured: &[Measured]) -> Result<Table, AnalysisError> {
    let given = measured.iter().filter_map(|m| Some((m.condition, m.answers?)));
    let rows = given.flat_map(|(condition, answers)| {
        items.dataset.items.iter().zip(answers).enumerate().map(move |(i, (item, answer))| GenerationRow {
            steered: OfSteered::new(condition, (i, item)),
            answer: answer.into(),
        })
    });
    Ok(GenerationRow::table(rows)?)
}

/// Where each class of answers takes over along the coefficients.
pub(super) fn thresholds_table(
    items: &Items,
    measured: &[Measured],
    bootstrap: &Bootstrap,
) -> Result<Table, AnalysisError> {
    let own = measured.iter().filter(|m| m.condition.direction == 0);
    let doses: Vec<(f64, &Measured)> = own.filter_map(|m| Some((m.condition.kind.coefficient()?, m))).collect();
    let x: Vec<f64> = doses.iter().map(|d| d.0).collect();
    let class = |i: usize, m: &Measured| m.answers.map(|answers| answers[i].class);
    let prompts: Vec<Vec<Option<Class>>> =
        (0..items.tokens.len()).map(|i| doses.iter().map(|d| class(i, d.1)).collect()).collect();
    let found = class_thresholds(&x, &prompts, &items.rules.classes(), bootstrap);
    Ok(ThresholdRow::table(found.iter().map(|(class, found)| ThresholdRow {
        class: class.name(),
        coefficient: Some(found.at),
        interval: found.interval.map(Interval::ends),
        rises: found.rises,
    }))?)
}

/// What is said of the classes of texts, where there are any, and all texts along the vector.
pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let Ok(generations) = table(tables, GenerationRow::TABLE) else { return Ok(Vec::new()) };
    let thresholds = table(tables, ThresholdRow::TABLE).ok();
    let classes = thresholds.map(|thresholds| answers_section(thresholds, tables, dir)).transpose()?;
    let texts = texts_section(generations, table(tables, DoseRow::TABLE)?, thresholds.is_some())?;
    Ok(classes.into_iter().chain([texts]).collect())
}

fn answers_section(thresholds: &Table, tables: &[Table], dir: &Path) -> Result<Section, AnalysisError> {
    let (class, at, rises) = (
        thresholds.column(ThresholdRow::class)?,
        thresholds.column(ThresholdRow::coefficient)?,
        thresholds.column(ThresholdRow::rises)?,
    );
    let ends = thresholds.column(ThresholdRow::interval)?;
    let dose = table(tables, DoseRow::TABLE)?;
    let controls = answering(dose)?;
    let refusals = class_columns(dose).first().map_or("the first class".to_string(), |(name, _)| name.clone());
    let text = "Thresholds are where a class' share of the answers along the vector crosses one half, by a logistic fit over the \
                coefficients, with intervals over prompts.";
    let header = vec![
        Heading::text("class"),
        Heading::number("threshold"),
        Heading::number("95 % interval"),
        Heading::text("with the coefficient it"),
    ];
    let row = |i: usize| {
        let way = if rises[i] { "rises" } else { "falls" };
        vec![class[i].to_string(), number(at[i], 3), interval(ends[i]), way.to_string()]
    };
    let alt = "Shares of each class of answers by coefficient.";
    let section = Section::new("Classes of answers").paragraph(text);
    let caption = format!(
        "Shares of each class by coefficient. Thin grey line: {refusals} along {controls}. Vertical lines: where a logistic fit \
         crosses one half, with its interval over the plot."
    );
    let section = section.figure(dir.join("answers.png"), caption, alt);
    Ok(section.table("Thresholds", header, (0..thresholds.rows()).map(row).collect()))
}

/// Every text along the vector, prompt by prompt.
fn texts_section(generations: &Table, dose: &Table, classed: bool) -> Result<Section, AnalysisError> {
    let (id, text, class) =
        (generations.column(OfPrompt::id)?, generations.column(Answered::text)?, generations.column(Answered::class)?);
    let (direction, kind) = (generations.column(OfSteered::direction)?, generations.column(OfSteered::kind)?);
    let coefficient = generations.column(OfSteered::coefficient)?;
    let mut order: HashMap<&str, usize> = HashMap::new();
    id.iter().for_each(|id| {
        let next = order.len();
        order.entry(id).or_insert(next);
    });
    let mut own: Vec<usize> = (0..generations.rows()).filter(|i| direction[*i] == 0).collect();
    // Conditions are in the table's order.
    own.sort_by_key(|i| order[id[*i]]);
    let broken = own.iter().filter(|i| class[**i] == Class::Broken.name()).count();
    let undecided = own.iter().filter(|i| class[**i] == Class::Undecided.name()).count();
    let share = |n: usize| cells::share(n as f64 / own.len().max(1) as f64);
    let broken = match broken {
        0 => String::new(),
        n => format!(" Of those along the vector {} are broken: they repeat themselves, or are a scrap.", share(n)),
    };
    let rules = match undecided {
        n if classed && n > 0 => format!(" On {} of those along the vector no rule decides.", share(n)),
        _ => String::new(),
    };
    let left = own.len().saturating_sub(LISTED);
    let rest = if left > 0 { format!(" The first {LISTED} are listed.") } else { String::new() };
    let words = format!(
        "{} texts were generated along the vector, and {} along {}.{broken}{rules} All are in generations.parquet.{rest}",
        cells::count(own.len() as i64),
        cells::count((generations.rows() - own.len()) as i64),
        answering(dose)?,
    );
    let shown = |class: &str| match classed || class == Class::Broken.name() {
        true => class.to_string(),
        false => String::new(),
    };
    let row = |i: &usize| {
        let place = [id[*i].to_string(), kind[*i].to_string(), exact(coefficient[*i])];
        [&place[..], &[shown(class[*i]), shortened(text[*i])]].concat()
    };
    let header = vec![
        Heading::text("prompt"),
        Heading::text("kind"),
        Heading::number("coefficient"),
        Heading::text("class"),
        Heading::text("text"),
    ];
    let rows = own.iter().take(LISTED).map(row).collect();
    Ok(Section::new("Texts").paragraph(words).table("Every prompt at every coefficient", header, rows))
}

/// The beginning of a text, on one line.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
