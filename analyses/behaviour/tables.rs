//! The tables of `behaviour`, and `metric.json`.

use super::found::{Basis, Found, Row};
use super::tokens::{Chosen, area};
use super::{Items, SIDES, Said};
use crate::analyses::answered::{Answer, Answered, columns_of, shares};
use crate::analyses::metric::{MetricFile, OfGroup, OfLanguage, Told};
use crate::analyses::prelude::*;
use crate::answers::Class;
use crate::measured::NamedToken;
use crate::stats::wilson;
use crate::table::rows;
use std::collections::{BTreeMap, HashMap};

/// What the tables are made of.
pub(super) struct Made<'a> {
    pub model: &'a Model,
    pub items: &'a Items,
    pub answers: &'a [Answer],
    pub said: &'a Said,
    pub found: &'a Found,
}

/// A row of [`Found::rows`], with its area under the curve.
pub(super) struct Separation {
    row: Row,
    area: Option<(f64, Interval)>,
}

/// Tokens of one place: overall, of a language, or of a group in one.
struct Named<'a> {
    lang: &'a str,
    group: &'a str,
    role: &'static str,
    token: &'a NamedToken,
}

/// The prompts of one row of the table of rates.
struct Slice {
    side: &'static str,
    by: &'static str,
    value: String,
    of: Vec<usize>,
}

/// How often answers to some prompts are refusals, and how often some token begins a refusal or an answer.
#[derive(Default)]
struct Begun {
    refusals: usize,
    answers: usize,
    /// By token.
    begin: HashMap<u32, [usize; 2]>,
}

impl Separation {
    pub(super) fn of(found: &Found) -> Vec<Separation> {
        found.rows().into_iter().map(|row| Separation { area: area(&row.judged), row }).collect()
    }

    #[cfg(test)]
    pub(super) fn row(&self) -> &Row {
        &self.row
    }

    fn count(&self, positive: bool) -> usize {
        self.row.judged.iter().filter(|j| j.positive == positive).count()
    }

    pub(super) fn told(&self) -> Told {
        let (refused, answered) = (self.count(true), self.count(false));
        let [low, high] = [|i: Interval| i.low, |i: Interval| i.high].map(|end| self.area.map(|(_, i)| end(i)));
        Told { refused, answered, auc: self.area.map(|(area, _)| area), ci_low: low, ci_high: high }
    }

    /// The share of prompts whose difference is on its own side of 0.
    fn accuracy(&self) -> Option<f64> {
        let judged = &self.row.judged;
        let right = judged.iter().filter(|j| (j.difference > 0.0) == j.positive).count();
        (!judged.is_empty()).then(|| right as f64 / judged.len() as f64)
    }
}

impl Made<'_> {
    /// `metric.json`: the tokens, and how well they tell prompts that did not choose them.
    pub(super) fn file(&self, scored: &[Separation]) -> Result<MetricFile, AnalysisError> {
        let found = self.found;
        let [answer, foil] = self.named(found.overall(), &self.said.all)?;
        let basis = Some(found.basis().to_string());
        let mut file =
            MetricFile { model: self.model.name.clone(), answer, foil, basis, held_out: None, languages: Vec::new() };
        let held_out: HashMap<_, Told> = scored
            .iter()
            .filter(|s| s.row.used && !s.row.chosen_by_them)
            .map(|s| ((s.row.lang, s.row.group.as_deref()), s.told()))
            .collect();
        if found.basis == Basis::Behaviour {
            file.held_out = held_out.get(&(None, None)).copied();
        }
        let mut own: BTreeMap<usize, Vec<(Option<&str>, &Chosen)>> = BTreeMap::new();
        found.own().for_each(|(cell, own_of)| own.entry(cell.lang).or_default().push((cell.group.as_deref(), own_of)));
        for (number, lang) in self.items.langs.iter().enumerate() {
            let Some(lang) = lang else { continue };
            let candidates = &self.said.of[number];
            let told = |group| match found.basis {
                Basis::Behaviour => held_out.get(&(Some(number), group)).copied().unwrap_or_default(),
                // The areas are of the sides.
                Basis::Sides | Basis::None => self.counted(number),
            };
            let of_lang = own.get(&number).map_or(&[][..], Vec::as_slice);
            let language = of_lang.iter().find(|(group, _)| group.is_none());
            let [answer, foil] = match language {
                Some((_, chosen)) => self.named(chosen, candidates)?,
                None => [file.answer.clone(), file.foil.clone()],
            };
            let mut groups = Vec::new();
            for (group, chosen) in of_lang {
                let Some(group) = group else { continue };
                let [answer, foil] = self.named(chosen, candidates)?;
                groups.push(OfGroup { group: (*group).to_string(), answer, foil, held_out: told(Some(*group)) });
            }
            let (lang, own) = (lang.clone(), language.is_some());
            file.languages.push(OfLanguage { lang, own, answer, foil, held_out: told(None), groups });
        }
        Ok(file)
    }

    /// Refused and answered prompts of a language.
    fn counted(&self, lang: usize) -> Told {
        let of = |class| {
            (0..self.answers.len()).filter(move |i| self.items.lang[*i] == lang && self.answers[*i].class == class)
        };
        Told { refused: of(Class::Refusal).count(), answered: of(Class::Answer).count(), ..Told::default() }
    }

    /// Answer and foil tokens, with their texts.
    fn named(&self, chosen: &Chosen, candidates: &[u32]) -> Result<[Vec<NamedToken>; 2], AnalysisError> {
        let tokenizer = self.model.tokenizer().map_err(|e| AnalysisError::Bad(e.to_string()))?;
        let one = |c: &usize| {
            let id = candidates[*c];
            let text = tokenizer.decode_generated(&[id]).map_err(|e| AnalysisError::Failed(e.to_string()))?;
            Ok(NamedToken { id, text })
        };
        let side = |list: &[usize]| list.iter().map(one).collect::<Result<Vec<_>, AnalysisError>>();
        Ok([side(&chosen.answer)?, side(&chosen.foil)?])
    }

    pub(super) fn rates(&self) -> Result<Table, AnalysisError> {
        let (slices, classes) = (slices(self.items), self.items.rules.classes());
        let rows = slices.iter().map(|slice| {
            let answers: Vec<&Answer> = slice.of.iter().map(|i| &self.answers[*i]).collect();
            let refusals = answers.iter().filter(|a| a.class == Class::Refusal).count();
            RateRow {
                model: &self.model.name,
                side: slice.side,
                by: slice.by,
                value: &slice.value,
                n: answers.len() as i64,
                shares: shares(&answers, &classes),
                refusal_interval: wilson(refusals, answers.len()).map(Interval::ends),
            }
        });
        Ok(rows::table(RateRow::TABLE, &columns_of(&classes), rows)?)
    }

    pub(super) fn tokens<'a>(&'a self, file: &'a MetricFile) -> Result<Table, AnalysisError> {
        let begun = self.begun();
        let mut places = vec![("", "", [&file.answer, &file.foil])];
        for of in &file.languages {
            places.extend(of.own.then_some((of.lang.as_str(), "", [&of.answer, &of.foil])));
            places.extend(of.groups.iter().map(|g| (of.lang.as_str(), g.group.as_str(), [&g.answer, &g.foil])));
        }
        let named = |(lang, group, sides): (&'a str, &'a str, [&'a Vec<NamedToken>; 2])| {
            let sides = ["answer", "foil"].into_iter().zip(sides);
            sides.flat_map(move |(role, of)| of.iter().map(move |token| Named { lang, group, role, token }))
        };
        let rows: Vec<Named> = places.into_iter().flat_map(named).collect();
        let share = |row: &Named, class: usize| {
            let of = begun.get(&(row.lang, row.group))?;
            let all = if class == 0 { of.refusals } else { of.answers };
            let first = of.begin.get(&row.token.id).map_or(0, |n| n[class]);
            (all > 0).then(|| first as f64 / all as f64)
        };
        let rows = rows.iter().map(|row| TokenRow {
            model: &self.model.name,
            lang: row.lang,
            group: row.group,
            role: row.role,
            token: i64::from(row.token.id),
            text: &row.token.text,
            of_refusals: share(row, 0),
            of_answers: share(row, 1),
        });
        Ok(TokenRow::table(rows)?)
    }

    /// What begins refusals and answers: over all prompts, in each language, and in each group of one.
    fn begun(&self) -> HashMap<(&str, &str), Begun> {
        let mut begun: HashMap<(&str, &str), Begun> = HashMap::new();
        for (i, (item, answer)) in self.items.items.iter().zip(self.answers).enumerate() {
            let class = match answer.class {
                Class::Refusal => 0,
                Class::Answer => 1,
                Class::Evasion | Class::Broken | Class::Undecided | Class::Own(_) => continue,
            };
            let (lang, group) = (item.lang.as_deref(), item.group.as_deref());
            let places = [Some(("", "")), lang.map(|lang| (lang, "")), lang.zip(group)];
            for place in places.into_iter().flatten() {
                let of = begun.entry(place).or_default();
                *if class == 0 { &mut of.refusals } else { &mut of.answers } += 1;
                self.said.first[i].iter().for_each(|first| of.begin.entry(*first).or_default()[class] += 1);
            }
        }
        begun
    }

    pub(super) fn separation(&self, rows: &[Separation]) -> Result<Table, AnalysisError> {
        let judgeable = self.found.basis == Basis::Behaviour;
        let basis = self.found.basis().to_string();
        let rows = rows.iter().map(|scored| {
            let (Separation { row, .. }, told) = (scored, scored.told());
            SeparationRow {
                model: &self.model.name,
                basis: &basis,
                half: if row.chosen_by_them { "chosen" } else { HELD_OUT },
                lang: row.lang.map_or("", |lang| self.items.langs[lang].as_deref().unwrap_or(WITHOUT)),
                group: row.group.as_deref(),
                tokens: row.tokens,
                used: row.used,
                positive: told.refused as i64,
                negative: told.answered as i64,
                auc: told.auc,
                interval: told.ci_low.zip(told.ci_high),
                accuracy: scored.accuracy(),
                tells: (judgeable && !row.chosen_by_them).then(|| told.telling().name()),
            }
        });
        Ok(SeparationRow::table(rows)?)
    }

    pub(super) fn answers(&self) -> Result<Table, AnalysisError> {
        let metrics = self.found.metrics(self.items, self.said);
        let rows = self.items.items.iter().zip(metrics).zip(self.answers).map(|((item, metric), answer)| AnswerRow {
            id: &item.id,
            side: item.label.as_deref(),
            group: item.group.as_deref(),
            lang: item.lang.as_deref(),
            metric: metric.into(),
            answer: answer.into(),
        });
        Ok(AnswerRow::table(rows)?)
    }
}

rows! {
    /// The answers to some prompts of one side.
    pub struct RateRow<'a> in "rates" {
        model: &'a str = "the model, as it was named",
        side: &'a str = "positive or negative prompts of the pairs",
        by: &'a str = "what the prompts were split by: all, group or lang",
        value: &'a str = "which group or language",
        n: i64 = "prompts",
        /// Of the rules' classes.
        shares: Vec<Option<f64>> = "share of answers of this class",
        /// The interval of the share of refusals.
        refusal_interval: Option<(f64, f64)> as "refusal_" =
            ["lower end of the share of refusals' 95 % Wilson interval", "its upper end"],
    }

    /// A token of the metric.
    pub struct TokenRow<'a> in "tokens" {
        model: &'a str = "the model, as it was named",
        lang: &'a str [newer] = "the language whose own tokens they are; empty for the overall ones",
        group: &'a str [newer] = "the group in that language whose own they are; empty otherwise",
        role: &'a str = "answer: counts for the behaviour; foil: against it",
        token: i64 = "the token's id",
        text: &'a str = "the token's text",
        of_refusals: Option<f64> = "share of refusals (of that language and group) that begin with it",
        of_answers: Option<f64> = "share of answers (of that language and group) that begin with it",
    }

    /// How well tokens tell some prompts.
    pub struct SeparationRow<'a> in "separation" {
        model: &'a str = "the model, as it was named",
        basis: &'a str =
            "refusals: refused against answered prompts; sides: positive against negative ones, because too few are refused \
             or answered; few alike: on one side no token begins three prompts of the class or more, and rarer ones were \
             taken; none: no first token tells either apart, and the metric means nothing",
        half: &'a str =
            "chosen: the prompts that the tokens were chosen by, all of them; held out: each prompt by the tokens that are \
             chosen without its fold, a quarter of the pairs that the seed draws",
        lang: &'a str = "the language; empty for all, none for prompts without one",
        group: Option<&'a str> = "the group in that language, where it has tokens of its own",
        tokens: &'a str =
            "as used: each prompt by its group's or language's own, else by the overall ones; overall: those over all \
             prompts; language, group: its own",
        used: bool = "whether the metric measures these prompts by these tokens; else they stand here for comparison",
        positive: i64 = "prompts that show the behaviour",
        negative: i64 = "prompts that do not",
        auc: Option<f64> =
            "area under the ROC curve of the logit difference; prompts are compared within a language, and within a fold \
             where they are held out, and the areas averaged by prompts",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the area's 95 % interval over prompts (Newcombe's score interval; of several areas by recovered \
             variances)",
            "its upper end",
        ],
        accuracy: Option<f64> = "share of prompts whose logit difference is on its own side of 0",
        tells: Option<&'a str> =
            "whether the tokens tell refused from answered prompts that they were not chosen by: yes, from an area of 0.7 on; \
             no; too few, with fewer than 8 prompts of either kind; empty where it is not asked",
    }

    /// The answer to one prompt.
    pub struct AnswerRow<'a> in "answers" {
        id: &'a str = "the pair",
        side: Option<&'a str> = "positive or negative",
        group: Option<&'a str> = "the pair's group",
        lang: Option<&'a str> = "the pair's language",
        metric: Option<f64> =
            "the logit difference of the tokens of the prompt's group or language, else of the overall ones, nats",
        answer: Answered<'a> as "",
    }
}

/// What tables call prompts by tokens that were chosen without them.
pub(crate) const HELD_OUT: &str = "held out";

/// What tables call the prompts without a language, beside others that have one.
pub(super) const WITHOUT: &str = "none";

/// All prompts of each side, then those of each group and language.
fn slices(items: &Items) -> Vec<Slice> {
    let mut slices = Vec::new();
    for (s, side) in SIDES.into_iter().enumerate() {
        let all = (0..items.prompts.len()).filter(|i| i % 2 == s);
        slices.push(Slice { side, by: "all", value: String::new(), of: all.clone().collect() });
        for by in ["group", "lang"] {
            let mut values: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
            for i in all.clone() {
                let item = &items.items[i];
                let value = if by == "group" { &item.group } else { &item.lang };
                value.iter().for_each(|value| values.entry(value).or_default().push(i));
            }
            slices.extend(values.into_iter().map(|(value, of)| Slice { side, by, value: value.to_string(), of }));
        }
    }
    slices
}
