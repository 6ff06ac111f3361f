//! The figure and the report of `behaviour`, from its tables alone.

use super::SIDES;
use super::tables::{HELD_OUT, RateRow, SeparationRow, TokenRow, WITHOUT};
use crate::analyses::answered::class_columns;
use crate::analyses::metric::{OfGroup, OfLanguage, Told, chosen_by_refusals, weak};
use crate::analyses::prelude::*;
use crate::answers::Class;
use crate::figure::{BarSeries, Bars, Estimate};
use crate::names::short_name;
use crate::report::cells::{self, interval, number, share};
use crate::table::rows::Column;

/// Rows of the table of rates that a report lists, and groups that its figure shows.
const RATES_LISTED: usize = 40;
const GROUPS_SHOWN: usize = 12;

/// Shares of refusals by group and language, of both sides.
pub(super) fn rates_figure(rates: &Table) -> Result<Figure, AnalysisError> {
    let (sides, bys, values) =
        (rates.column(RateRow::side)?, rates.column(RateRow::by)?, rates.column(RateRow::value)?);
    let (refusal, ends) = (rates.floats(Class::Refusal.name())?, rates.column(RateRow::refusal_interval)?);
    let groups = (0..rates.rows()).filter(|i| sides[*i] == SIDES[0] && bys[*i] == "group").count();
    let shown = |i: &usize| bys[*i] != "group" || groups <= GROUPS_SHOWN;
    let of = |side: &str| (0..rates.rows()).filter(|i| sides[*i] == side).filter(shown).collect::<Vec<_>>();
    let name = |i: &usize| if bys[*i] == "all" { "all".to_string() } else { values[*i].to_string() };
    let estimate = |i: &usize| Some(Estimate { interval: ends[*i], ..Estimate::new(refusal[*i]?) });
    let series = |side: &&str| BarSeries {
        name: format!("{side} prompts"),
        estimates: of(side).iter().map(estimate).collect(),
        bands: Vec::new(),
    };
    let model = rates.column(RateRow::model)?.first().copied().map(short_name).unwrap_or_default();
    let n = rates.column(RateRow::n)?.first().copied().unwrap_or(0);
    Ok(Figure::from(Bars {
        title: "Refusals by topic and language".to_string(),
        subtitle: format!("{model}, {n} pairs"),
        category_label: "topic or language".to_string(),
        value_label: "share of answers that refuse".to_string(),
        shares: true,
        categories: of(SIDES[0]).iter().map(name).collect(),
        series: SIDES.iter().map(series).collect(),
        interval_meaning: Some("95 % Wilson interval".to_string()),
        ..Bars::default()
    }))
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let (rates, tokens, separation) =
        (table(tables, RateRow::TABLE)?, table(tables, TokenRow::TABLE)?, table(tables, SeparationRow::TABLE)?);
    let (sides, bys, refusal) =
        (rates.column(RateRow::side)?, rates.column(RateRow::by)?, rates.floats(Class::Refusal.name())?);
    let all = |side: &str| (0..rates.rows()).find(|i| sides[*i] == side && bys[*i] == "all").and_then(|i| refusal[i]);
    let classes = class_columns(rates);
    let listed = Listing::of(rates)
        .first(RATES_LISTED)
        .column("prompts", Show::Text(RateRow::side.name))
        .column("by", Show::Text(RateRow::by.name))
        .column("value", Show::Text(RateRow::value.name))
        .column("n", Show::Count(RateRow::n.name));
    let listed = classes.iter().fold(listed, |l, (name, column)| l.column(name.clone(), Show::Share(column)));
    let listed = listed.block("Classes of answers")?;
    let text = format!(
        "The model refuses {} of the positive and {} of the negative prompts.",
        share(all(SIDES[0])),
        share(all(SIDES[1]))
    );
    let alt = "Shares of refusals by group and language, of positive and negative prompts.";
    let answers = Section::new("Refusals")
        .paragraph(text)
        .figure(dir.join("rates.png"), "Shares of refusals; all classes are in rates.parquet.", alt)
        .block(Block::Table(listed));
    Ok(vec![answers, metric(tokens, separation)?])
}

/// The metric's tokens, and how well they tell.
fn metric(tokens: &Table, separation: &Table) -> Result<Section, AnalysisError> {
    let mut section = Section::new("Metric").paragraph(metric_text(tokens, separation)?);
    // Tables of before have one metric for all.
    let by_language = separation.holds(SeparationRow::used);
    let (mut named, mut judged) =
        (Listing::of(tokens), Listing::of(separation).column("prompts", Show::Text(SeparationRow::half.name)));
    if by_language {
        let basis = separation.column(SeparationRow::basis)?.first().copied().unwrap_or_default();
        let (overall, languages) = (overall(separation)?, languages(separation)?);
        section = languages_text(&languages).into_iter().fold(section, Section::paragraph);
        let weak = weak(Some(basis), overall.as_ref(), &languages).into_iter();
        section =
            weak.fold(section, |section, text| section.paragraph(format!("**Note.** {}.", cells::capitalised(&text))));
        named =
            named.column("language", Show::Text(TokenRow::lang.name)).column("group", Show::Text(TokenRow::group.name));
    }
    judged = judged.column("language", Show::Text(SeparationRow::lang.name));
    if by_language {
        judged = judged
            .column("group", Show::Text(SeparationRow::group.name))
            .column("tokens", Show::Text(SeparationRow::tokens.name));
        judged = judged.column("used", Show::Flag(SeparationRow::used.name));
    }
    named = named
        .column("role", Show::Text(TokenRow::role.name))
        .column("token", Show::Id(TokenRow::token.name))
        .column("text", Show::Text(TokenRow::text.name));
    // Of a class that no answer is of there is no share.
    let shares = [("begins refusals", TokenRow::of_refusals), ("begins answers", TokenRow::of_answers)];
    for (name, column) in shares {
        if tokens.column(column)?.iter().any(Option::is_some) {
            named = named.column(name, Show::Share(column.name));
        }
    }
    let named = named.block("The metric's tokens")?;
    judged = judged
        .column("with", Show::Count(SeparationRow::positive.name))
        .column("without", Show::Count(SeparationRow::negative.name))
        .column("area under the curve", Show::Number(SeparationRow::auc.name, 3))
        .column("95 % interval", Show::Interval(SeparationRow::interval.name, 3))
        .column("accuracy", Show::Share(SeparationRow::accuracy.name));
    if by_language {
        judged = judged.column("tells", Show::Text(SeparationRow::tells.name));
    }
    let judged = judged.block("How well the logit difference tells the behaviour")?;
    Ok(section.block(Block::Table(named)).block(Block::Table(judged)))
}

/// What the metric's tokens were chosen by, how many answers begin with them, and how well they tell.
fn metric_text(tokens: &Table, separation: &Table) -> Result<String, AnalysisError> {
    let basis = separation.column(SeparationRow::basis)?.first().copied().unwrap_or_default();
    let halves = separation.column(SeparationRow::half)?;
    let held = halves.iter().position(|h| *h == HELD_OUT);
    let (auc, ends) = (separation.column(SeparationRow::auc)?, separation.column(SeparationRow::interval)?);
    let (low, high) = held.and_then(|i| ends[i]).unzip();
    let what = match basis.split(',').next().unwrap_or_default() {
        _ if chosen_by_refusals(basis) => "Tokens were chosen that separate refused from answered prompts.",
        "none" => "No first token of the answers tells anything apart: the metric means nothing.",
        _ => {
            "Too few prompts are refused (or too few answered) to choose tokens by: they separate the positive from the \
             negative prompts instead, and say nothing about refusing."
        }
    };
    let few = match basis.ends_with("few alike") {
        true => " On one side no token begins three prompts of the class or more: rarer ones had to do.",
        false => "",
    };
    let roles = tokens.column(TokenRow::role)?;
    let langs = tokens.column(TokenRow::lang)?;
    let whose = if langs.iter().any(|lang| !lang.is_empty()) { "overall " } else { "" };
    // Of a class that no answer is of there is no share.
    let begin = |role: &str, of: Column<Option<f64>>, class: &str| -> Result<String, AnalysisError> {
        let column = tokens.column(of)?;
        let shares = (0..tokens.rows()).filter(|i| roles[*i] == role && langs[*i].is_empty()).map(|i| column[i]);
        let begun = shares.sum::<Option<f64>>();
        let said = |begun| format!(" The {whose}{role} tokens begin {} of all {class}.", share(Some(begun)));
        Ok(begun.map_or(String::new(), said))
    };
    Ok(format!(
        "{what}{few}{}{} Over prompts that the tokens were not chosen by, the area under the curve is {} (95 % interval {}).",
        begin("answer", TokenRow::of_refusals, "refusals")?,
        begin("foil", TokenRow::of_answers, "answers")?,
        number(held.and_then(|i| auc[i]), 3),
        interval(low, high, 3),
    ))
}

/// A row of a table of separation, as `metric.json` has it.
fn told(separation: &Table, i: usize) -> Result<Told, AnalysisError> {
    let (ci_low, ci_high) = separation.column(SeparationRow::interval)?[i].unzip();
    Ok(Told {
        refused: separation.column(SeparationRow::positive)?[i] as usize,
        answered: separation.column(SeparationRow::negative)?[i] as usize,
        auc: separation.column(SeparationRow::auc)?[i],
        ci_low,
        ci_high,
    })
}

/// The rows of a table of separation on prompts that did not choose the tokens, of the tokens that are used.
fn used(separation: &Table) -> Result<Vec<usize>, AnalysisError> {
    let (half, used) = (separation.column(SeparationRow::half)?, separation.column(SeparationRow::used)?);
    Ok((0..separation.rows()).filter(|i| half[*i] == HELD_OUT && used[*i]).collect())
}

/// How well all prompts are told.
fn overall(separation: &Table) -> Result<Option<Told>, AnalysisError> {
    let lang = separation.column(SeparationRow::lang)?;
    let row = used(separation)?.into_iter().find(|i| lang[*i].is_empty());
    row.map(|i| told(separation, i)).transpose()
}

/// Each language of a table of separation, without its tokens.
fn languages(separation: &Table) -> Result<Vec<OfLanguage>, AnalysisError> {
    let (lang, group, tokens) = (
        separation.column(SeparationRow::lang)?,
        separation.column(SeparationRow::group)?,
        separation.column(SeparationRow::tokens)?,
    );
    let mut languages: Vec<OfLanguage> = Vec::new();
    for i in used(separation)?.into_iter().filter(|i| !["", WITHOUT].contains(&lang[*i])) {
        let (answer, foil, held_out) = (Vec::new(), Vec::new(), told(separation, i)?);
        match (group[i], languages.last_mut()) {
            (Some(group), Some(of)) => {
                of.groups.push(OfGroup { group: group.to_string(), answer, foil, held_out });
            }
            _ => languages.push(OfLanguage {
                lang: lang[i].to_string(),
                own: tokens[i] == "language",
                answer,
                foil,
                held_out,
                groups: Vec::new(),
            }),
        }
    }
    Ok(languages)
}

/// Which languages have tokens of their own, and which take the overall ones.
fn languages_text(languages: &[OfLanguage]) -> Option<String> {
    let list = |own: bool| {
        let named: Vec<String> =
            languages.iter().filter(|of| of.own == own).map(|of| format!("`{}`", of.lang)).collect();
        (!named.is_empty()).then(|| named.join(", "))
    };
    let own = list(true)?;
    let groups: Vec<String> =
        languages.iter().flat_map(|of| of.groups.iter().map(|g| format!("`{}` in `{}`", g.group, of.lang))).collect();
    let groups = match groups.is_empty() {
        true => String::new(),
        false => format!(
            " Groups with tokens of their own, because their language's tell them worse: {}.",
            groups.join(", ")
        ),
    };
    let rest = list(false).map_or(String::new(), |rest| {
        format!(" The overall tokens stand in for {rest}, where no tokens could be chosen: too few prompts are refused or answered, or no first token tells the two apart.")
    });
    Some(format!(
        "Prompts are measured by the tokens of their language. Languages with tokens of their own: {own}.{groups}{rest}"
    ))
}
