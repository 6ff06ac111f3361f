//! Behaviour: does the model refuse, which requests, and which first tokens tell?
//!
//! Both prompts of every pair are answered, and the answers classified by [`crate::answers`]. Where some are refused and some
//! answered, the tokens are sought whose logits at the prompt's last position separate the two best, within each language:
//! candidates are first tokens that several answers of one class share; a pair of tokens, then more as long as they help to
//! order the prompts or to put 0 between the two, are chosen on one half of the pairs and judged on the other half. `metric.json`
//! holds them, and every analysis takes it as its metric (`--metric`). A model that refuses too little gets tokens that tell the
//! positive prompts from the negative ones, and is said to be such a one.
//! Source: "How Alignment Routes" (2026) measures routing in the model's own refusals.

mod tokens;

use super::answered::{Answer, continued, item_of};
use super::inputs::{MetricFile, PairFile, Sources, halves, room};
use super::scored::Scored;
use super::{Analysis, AnalysisError, Figures, Output, Plans, batches, planned, table};
use crate::answers::Class;
use crate::dataset::encode::prompt_ids;
use crate::dataset::shown::Prompt;
use crate::dataset::{Dataset, Item, Pair};
use crate::figure::{BarSeries, Bars, Estimate, Figure};
use crate::measured::NamedToken;
use crate::model::Model;
use crate::names::short_name;
use crate::plan::{Part, Plan, Positions, Run, What};
use crate::report::cells::{number, share};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::run::{Generated, Reading, Steps};
use crate::session::Session;
use crate::site::SiteKind;
use crate::stats::{Interval, wilson};
use crate::table::Table;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use tokens::{Chosen, Judged, Shown, area_interval, separation};

/// Find out what the model refuses, and which first tokens tell
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Behaviour {
    #[command(flatten)]
    #[serde(flatten)]
    pub file: PairFile,

    /// Generate this many tokens per answer
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub generate: u32,

    /// Use at most this many tokens on each side of the metric
    #[arg(long, default_value_t = 8, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub tokens: u16,
}

/// The prompts as the model reads them.
pub struct Items {
    pairs: Dataset<Pair>,
    sources: Sources,
    scored: Scored,
    /// Positive and negative prompt of each pair in turn.
    prompts: Vec<Vec<u32>>,
    /// The same as items, for the classes of their answers.
    items: Vec<Item>,
}

/// The sides of a pair, in the order of [`Items::prompts`].
const SIDES: [&str; 2] = ["positive", "negative"];

/// First tokens that are considered.
const CANDIDATES: usize = 48;

/// Rows of the table of rates that a report lists, and groups that its figure shows.
const RATES_LISTED: usize = 40;
const GROUPS_SHOWN: usize = 12;

/// Refusals and answers that each half needs for tokens to be chosen by them.
const ENOUGH: usize = 8;

impl Analysis for Behaviour {
    const NAME: &'static str = "behaviour";
    const ABOUT: &'static str = "Find out what the model refuses, and which first tokens tell";
    const TITLE: &'static str = "Behaviour";
    type Items = Items;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        let pairs = self.file.read()?;
        let (mut prompts, mut items) = (Vec::new(), Vec::new());
        for pair in &pairs.items {
            for (side, input) in SIDES.into_iter().zip([&pair.positive, &pair.negative]) {
                let at = pairs.at(pair.line, &pair.id, side);
                let ids = prompt_ids(model, input, at)?;
                room(&model.decoder.arch, ids.len(), self.generate as usize).map_err(|why| at.error(why))?;
                prompts.push(ids);
                items.push(Item { label: Some(side.to_string()), ..item_of(pair, input) });
            }
        }
        let shown = items.iter().zip(&prompts).zip(SIDES.into_iter().cycle());
        let shown = shown.map(|((item, ids), field)| Prompt { input: &item.prompt, ids, id: &item.id, field });
        let scored = Scored::of_prompts(model, &pairs.path, shown);
        Ok(Items { sources: vec![pairs.source()], scored, pairs, prompts, items })
    }

    fn datasets(items: &Items) -> Sources {
        items.sources.clone()
    }

    fn scored(items: &Items) -> &Scored {
        &items.scored
    }

    fn plans<'a>(&'a self, _: &'a Model, items: &'a Items) -> Result<Plans<'a>, AnalysisError> {
        let generated = move |some| plan(items, some, &[0]).longer(self.generate as usize - 1);
        Ok(planned(prompts(items).map(generated).chain(prompts(items).map(|some| plan(items, some, &[0])))))
    }

    fn compute(&self, session: &Session, items: &Items) -> Result<Output, AnalysisError> {
        let (mut generated, mut answers) = (Vec::new(), Vec::new());
        for some in prompts(items) {
            let runs = (0..some.len()).map(Run::Prompt).collect();
            let (plan, greedy) = (plan(items, some.clone(), &[]), (self.generate, Steps::PromptOnly));
            let (own, classes) = continued(session, &plan, runs, greedy, &items.items[some])?;
            generated.extend(own);
            answers.extend(classes);
        }
        let mut candidates = candidates(&generated);
        if candidates.len() < 2 {
            candidates.extend(runners_up(session, items, &candidates)?);
        }
        let columns: Vec<usize> = candidates.iter().map(|(token, _)| *token as usize).collect();
        let logits = logits(session, items, prompts(items), &columns)?;
        let first = |g: &Generated| candidates.iter().position(|(token, _)| Some(token) == g.ids.first());
        let first: Vec<Option<usize>> = generated.iter().map(first).collect();
        let found = self.found(items, &answers, (&logits, &first), candidates.len());
        let file = metric_file(session.model, &candidates, &found.chosen)?;
        let metric = serde_json::to_vec_pretty(&file).map_err(|e| AnalysisError::Failed(e.to_string()))?;
        let name = &session.model.name;
        let tables = vec![
            rates_table(name, items, &answers)?,
            tokens_table(name, &file, &generated, &answers)?,
            separation_table(name, items, &found, session.seed)?,
            answers_table(items, &answers, &found, &logits)?,
        ];
        Ok(Output { tables, files: vec![("metric.json".to_string(), metric)] })
    }

    fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
        let rates = table(tables, "rates")?;
        Ok(vec![("rates.png".to_string(), rates_figure(rates)?)])
    }

    fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
        sections(tables, dir)
    }
}

/// The prompts that are planned at once.
fn prompts(items: &Items) -> impl Iterator<Item = Range<usize>> {
    batches(items.prompts.len(), 1)
}

/// Some prompts, with the logits of some tokens where there are any.
fn plan(items: &Items, some: Range<usize>, columns: &[usize]) -> Plan {
    let mut plan = Plan::default();
    for i in some {
        let run = plan.prompt(format!("{} {}", items.items[i].id, SIDES[i % 2]), items.prompts[i].clone());
        if !columns.is_empty() {
            let part = Part::Columns(columns.to_vec());
            plan.read(run, What::Activation { site: SiteKind::Logits.at(0), positions: Positions::Last, part });
        }
    }
    plan
}

/// Some tokens' logits at the last position of every prompt, so many prompts at a time.
fn logits(
    session: &Session,
    items: &Items,
    prompts: impl Iterator<Item = Range<usize>>,
    columns: &[usize],
) -> Result<Vec<Vec<f64>>, AnalysisError> {
    let mut logits = Vec::with_capacity(items.prompts.len());
    for some in prompts {
        let readings = session.run(&plan(items, some, columns))?;
        logits.extend(readings.iter().map(|r| r.values().iter().map(|x| f64::from(*x)).collect()));
    }
    Ok(logits)
}

/// The answers' first tokens with how often each is one, the most frequent first.
fn candidates(generated: &[Generated]) -> Vec<(u32, usize)> {
    let mut counts = BTreeMap::new();
    for first in generated.iter().filter_map(|g| g.ids.first()) {
        *counts.entry(*first).or_insert(0) += 1;
    }
    let mut candidates: Vec<(u32, usize)> = counts.into_iter().collect();
    candidates.sort_by_key(|(token, n)| (std::cmp::Reverse(*n), *token));
    candidates.truncate(CANDIDATES);
    candidates
}

/// Two tokens that the model nearly said: where all answers begin alike, there is nothing else to compare.
fn runners_up(session: &Session, items: &Items, said: &[(u32, usize)]) -> Result<Vec<(u32, usize)>, AnalysisError> {
    let mut plan = Plan::default();
    let prompt = plan.prompt("the first prompt", items.prompts[0].clone());
    let logits = SiteKind::Logits.at(0);
    plan.read(prompt, What::Activation { site: logits, positions: Positions::Last, part: Part::All });
    let logits = session.run(&plan)?.first().map(Reading::values).unwrap_or_default();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let unsaid = order.into_iter().map(|token| token as u32).filter(|token| said.iter().all(|(s, _)| s != token));
    Ok(unsaid.take(2).map(|token| (token, 0)).collect())
}

/// What the tokens were chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    /// Refused against answered prompts.
    Behaviour,
    /// Positive against negative prompts, because the model refuses or answers too few.
    Sides,
    /// Nothing: no answer's first token is more frequent on one side.
    None,
}

/// The tokens that were chosen, and the prompts that they were chosen and judged by.
struct Found {
    basis: Basis,
    chosen: Chosen,
    /// Whether a side's tokens begin fewer prompts of its class than they should, because none begins as many.
    scarce: bool,
    /// The prompts of each half that have a class, with their numbers.
    halves: [Vec<(usize, Shown)>; 2],
}

impl Found {
    /// The basis as tables name it.
    fn basis(&self) -> &'static str {
        match (self.basis, self.scarce) {
            (Basis::Behaviour, false) => "refusals",
            (Basis::Behaviour, true) => "refusals, few alike",
            (Basis::Sides, false) => "sides",
            (Basis::Sides, true) => "sides, few alike",
            (Basis::None, _) => "none",
        }
    }
}

impl Behaviour {
    fn found(&self, items: &Items, answers: &[Answer], said: Said, candidates: usize) -> Found {
        let refused = |i: usize| match answers[i].class {
            Class::Refusal => Some(true),
            Class::Answer => Some(false),
            Class::Evasion | Class::Undecided => None,
        };
        let by_class = classed(items, said, refused);
        let enough = |half: &Vec<(usize, Shown)>| {
            let positive = half.iter().filter(|(_, s)| s.positive).count();
            positive.min(half.len() - positive) >= ENOUGH
        };
        let (basis, halves) = match by_class.iter().all(enough) {
            true => (Basis::Behaviour, by_class),
            false => (Basis::Sides, classed(items, said, |i| Some(i.is_multiple_of(2)))),
        };
        let shown: Vec<&Shown> = halves[0].iter().map(|(_, s)| s).collect();
        let chosen = Chosen::choose(&shown, candidates, usize::from(self.tokens));
        // Where nothing separates any two tokens are as good.
        match chosen {
            Some((chosen, scarce)) => Found { basis, chosen, scarce, halves },
            None => {
                let chosen = Chosen { answer: vec![0], foil: vec![1] };
                Found { basis: Basis::None, chosen, scarce: false, halves }
            }
        }
    }
}

/// Each prompt's logits of the candidates, and the candidate that its answer begins with.
type Said<'a> = (&'a [Vec<f64>], &'a [Option<usize>]);

/// The prompts with a class, in two halves of whole pairs.
fn classed(items: &Items, (logits, first): Said, class: impl Fn(usize) -> Option<bool>) -> [Vec<(usize, Shown)>; 2] {
    let mut langs: Vec<&Option<String>> = items.pairs.items.iter().map(|p| &p.lang).collect();
    langs.sort_unstable();
    langs.dedup();
    let mut found = [Vec::new(), Vec::new()];
    for ((pair, half), of) in halves(&items.pairs.items).into_iter().enumerate().zip(&items.pairs.items) {
        for i in [2 * pair, 2 * pair + 1] {
            let Some(positive) = class(i) else { continue };
            let stratum = langs.binary_search(&&of.lang).unwrap_or(0);
            found[half].push((i, Shown { logits: logits[i].clone(), first: first[i], positive, stratum }));
        }
    }
    found
}

fn metric_file(model: &Model, candidates: &[(u32, usize)], chosen: &Chosen) -> Result<MetricFile, AnalysisError> {
    let tokenizer = model.tokenizer().map_err(|e| AnalysisError::Bad(e.to_string()))?;
    let named = |list: &[usize]| -> Result<Vec<NamedToken>, AnalysisError> {
        let one = |c: &usize| {
            let id = candidates[*c].0;
            let text = tokenizer.decode_generated(&[id]).map_err(|e| AnalysisError::Failed(e.to_string()))?;
            Ok(NamedToken { id, text })
        };
        list.iter().map(one).collect()
    };
    Ok(MetricFile { model: model.name.clone(), answer: named(&chosen.answer)?, foil: named(&chosen.foil)? })
}

/// The prompts of one row of the table of rates.
struct Slice {
    side: &'static str,
    by: &'static str,
    value: String,
    of: Vec<usize>,
}

/// All prompts of each side, then those of each group and language.
fn slices(items: &Items) -> Vec<Slice> {
    let mut slices = Vec::new();
    for (s, side) in SIDES.into_iter().enumerate() {
        let all: Vec<usize> = (0..items.prompts.len()).filter(|i| i % 2 == s).collect();
        slices.push(Slice { side, by: "all", value: String::new(), of: all.clone() });
        for (by, label) in [("group", (|i: &Item| i.group.clone()) as fn(&Item) -> _), ("lang", |i| i.lang.clone())] {
            let mut values: Vec<String> = all.iter().filter_map(|i| label(&items.items[*i])).collect();
            values.sort_unstable();
            values.dedup();
            slices.extend(values.into_iter().map(|value| {
                let of = all.iter().copied().filter(|i| label(&items.items[*i]).as_ref() == Some(&value)).collect();
                Slice { side, by, value, of }
            }));
        }
    }
    slices
}

fn rates_table(model: &str, items: &Items, answers: &[Answer]) -> Result<Table, AnalysisError> {
    let slices = slices(items);
    let count = |s: &Slice, class: Class| s.of.iter().filter(|i| answers[**i].class == class).count();
    let refusal = |s: &Slice| wilson(count(s, Class::Refusal), s.of.len());
    let mut table = Table::new("rates")
        .str("model", "the model, as it was named", slices.iter().map(|_| model))?
        .str("side", "positive or negative prompts of the pairs", slices.iter().map(|s| s.side))?
        .str("by", "what the prompts were split by: all, group or lang", slices.iter().map(|s| s.by))?
        .str("value", "which group or language", slices.iter().map(|s| s.value.as_str()))?
        .int("n", "prompts", slices.iter().map(|s| s.of.len() as i64))?;
    for class in Class::ALL {
        let share = |s: &Slice| count(s, class) as f64 / s.of.len() as f64;
        table = table.float(class.name(), "share of answers of this class", slices.iter().map(share))?;
    }
    Ok(table
        .float(
            "refusal_low",
            "lower end of the share of refusals' 95 % Wilson interval",
            slices.iter().map(|s| refusal(s).map(|i| i.low)),
        )?
        .float("refusal_high", "its upper end", slices.iter().map(|s| refusal(s).map(|i| i.high)))?)
}

fn tokens_table(
    model: &str,
    file: &MetricFile,
    generated: &[Generated],
    answers: &[Answer],
) -> Result<Table, AnalysisError> {
    let rows: Vec<(&str, &NamedToken)> =
        file.answer.iter().map(|t| ("answer", t)).chain(file.foil.iter().map(|t| ("foil", t))).collect();
    let share = |token: u32, class: Class| {
        let of: Vec<&Generated> =
            generated.iter().zip(answers).filter(|(_, a)| a.class == class).map(|g| g.0).collect();
        let first = of.iter().filter(|g| g.ids.first() == Some(&token)).count();
        (!of.is_empty()).then(|| first as f64 / of.len() as f64)
    };
    Ok(Table::new("tokens")
        .str("model", "the model, as it was named", rows.iter().map(|_| model))?
        .str("role", "answer: counts for the behaviour; foil: against it", rows.iter().map(|r| r.0))?
        .int("token", "the token's id", rows.iter().map(|r| i64::from(r.1.id)))?
        .str("text", "the token's text", rows.iter().map(|r| r.1.text.as_str()))?
        .float(
            "of_refusals",
            "share of refusals that begin with it",
            rows.iter().map(|r| share(r.1.id, Class::Refusal)),
        )?
        .float(
            "of_answers",
            "share of answers that begin with it",
            rows.iter().map(|r| share(r.1.id, Class::Answer)),
        )?)
}

fn separation_table(model: &str, items: &Items, found: &Found, seed: u64) -> Result<Table, AnalysisError> {
    let mut langs: Vec<Option<&str>> = items.items.iter().map(|i| i.lang.as_deref()).collect();
    langs.sort_unstable();
    langs.dedup();
    let each = if langs.len() > 1 { langs } else { Vec::new() };
    let mut rows: Vec<(&str, String, Vec<&Shown>)> = Vec::new();
    for (half, name) in found.halves.iter().zip(["chosen", "held out"]) {
        rows.push((name, String::new(), half.iter().map(|(_, s)| s).collect()));
        for lang in &each {
            let of = half.iter().filter(|(i, _)| items.items[*i].lang.as_deref() == *lang).map(|(_, s)| s).collect();
            rows.push((name, lang.unwrap_or("none").to_string(), of));
        }
    }
    let judged: Vec<Vec<Judged>> = rows.iter().map(|r| found.chosen.judged(&r.2)).collect();
    let scores: Vec<Option<f64>> = judged.iter().map(|j| Some(separation(j)?.area)).collect();
    let intervals: Vec<Option<Interval>> = judged.iter().map(|j| area_interval(j, seed)).collect();
    let n = |positive: bool| judged.iter().map(move |j| j.iter().filter(|j| j.positive == positive).count() as i64);
    let right = |judged: &Vec<Judged>| {
        let right = judged.iter().filter(|j| (j.difference > 0.0) == j.positive).count();
        (!judged.is_empty()).then(|| right as f64 / judged.len() as f64)
    };
    Ok(Table::new("separation")
        .str("model", "the model, as it was named", rows.iter().map(|_| model))?
        .str(
            "basis",
            "refusals: refused against answered prompts; sides: positive against negative ones, because too few are \
             refused or answered; few alike: on one side no token begins three prompts of the class or more, and rarer ones \
             were taken; none: no first token tells either apart, and the metric means nothing",
            rows.iter().map(|_| found.basis()),
        )?
        .str(
            "half",
            "chosen: the pairs that the tokens were chosen on; held out: the others",
            rows.iter().map(|r| r.0),
        )?
        .str("lang", "the language; empty for all", rows.iter().map(|r| r.1.as_str()))?
        .int("positive", "prompts that show the behaviour", n(true))?
        .int("negative", "prompts that do not", n(false))?
        .float("auc", "area under the ROC curve of the logit difference, within languages", scores)?
        .float(
            "ci_low",
            "lower end of the area's 95 % BCa interval over prompts, resampled within class and language; empty for fewer \
             than two prompts of a class",
            intervals.iter().map(|i| i.map(|i| i.low)),
        )?
        .float("ci_high", "its upper end", intervals.iter().map(|i| i.map(|i| i.high)))?
        .float(
            "accuracy",
            "share of prompts whose logit difference is on its own side of 0",
            judged.iter().map(right),
        )?)
}

fn answers_table(
    items: &Items,
    answers: &[Answer],
    found: &Found,
    logits: &[Vec<f64>],
) -> Result<Table, AnalysisError> {
    let all = || items.items.iter();
    Ok(Table::new("answers")
        .str("id", "the pair", all().map(|i| i.id.as_str()))?
        .opt_str("side", "positive or negative", all().map(|i| i.label.as_deref()))?
        .opt_str("group", "the pair's group", all().map(|i| i.group.as_deref()))?
        .opt_str("lang", "the pair's language", all().map(|i| i.lang.as_deref()))?
        .float(
            "metric",
            "the logit difference of the chosen tokens, nats",
            logits.iter().map(|l| found.chosen.difference(l)),
        )?
        .str("class", "refusal, evasion, answer or undecided", answers.iter().map(|a| a.class.name()))?
        .opt_str("rule", "the rule that decided", answers.iter().map(|a| a.rule.as_deref()))?
        .flag("stopped", "whether the answer ended by itself", answers.iter().map(|a| a.stopped))?
        .str("text", "the generated answer", answers.iter().map(|a| a.text.as_str()))?)
}

/// Shares of refusals by group and language, of both sides.
fn rates_figure(rates: &Table) -> Result<Figure, AnalysisError> {
    let (sides, bys, values) = (rates.strs("side")?, rates.strs("by")?, rates.strs("value")?);
    let (refusal, low, high) = (rates.floats("refusal")?, rates.floats("refusal_low")?, rates.floats("refusal_high")?);
    let groups = (0..rates.rows()).filter(|i| sides[*i] == SIDES[0] && bys[*i] == "group").count();
    let shown = |i: &usize| bys[*i] != "group" || groups <= GROUPS_SHOWN;
    let of = |side: &str| (0..rates.rows()).filter(|i| sides[*i] == side).filter(shown).collect::<Vec<_>>();
    let name = |i: &usize| if bys[*i] == "all" { "all".to_string() } else { values[*i].to_string() };
    let estimate = |i: &usize| Some(Estimate { value: refusal[*i]?, interval: low[*i].zip(high[*i]), marked: false });
    let series = |side: &&str| BarSeries {
        name: format!("{side} prompts"),
        estimates: of(side).iter().map(estimate).collect(),
        bands: Vec::new(),
    };
    let model = rates.strs("model")?.first().copied().map(short_name).unwrap_or_default();
    let n = rates.ints("n")?.first().copied().unwrap_or(0);
    Ok(Figure::from(Bars {
        title: "Share of answers that refuse".to_string(),
        subtitle: format!("{model}, {n} pairs"),
        category_label: "group or language".to_string(),
        value_label: "share of refusals".to_string(),
        categories: of(SIDES[0]).iter().map(name).collect(),
        series: SIDES.iter().map(series).collect(),
        range: Some((0.0, 1.0)),
        reference: None,
        mark_meaning: None,
        interval_meaning: Some("95 % Wilson interval".to_string()),
        band_meaning: None,
    }))
}

fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let (rates, tokens, separation) = (table(tables, "rates")?, table(tables, "tokens")?, table(tables, "separation")?);
    let (sides, bys, refusal) = (rates.strs("side")?, rates.strs("by")?, rates.floats("refusal")?);
    let all = |side: &str| (0..rates.rows()).find(|i| sides[*i] == side && bys[*i] == "all").and_then(|i| refusal[i]);
    let listed = Listing::of(rates)
        .first(RATES_LISTED)
        .column("prompts", Show::Text("side"))
        .column("by", Show::Text("by"))
        .column("value", Show::Text("value"))
        .column("n", Show::Count("n"))
        .column("refusal", Show::Share("refusal"))
        .column("evasion", Show::Share("evasion"))
        .column("answer", Show::Share("answer"))
        .column("undecided", Show::Share("undecided"))
        .block("Classes of answers")?;
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
    let named = Listing::of(tokens)
        .column("role", Show::Text("role"))
        .column("token", Show::Id("token"))
        .column("text", Show::Text("text"))
        .column("begins refusals", Show::Share("of_refusals"))
        .column("begins answers", Show::Share("of_answers"))
        .block("The metric's tokens")?;
    let judged = Listing::of(separation)
        .column("pairs", Show::Text("half"))
        .column("language", Show::Text("lang"))
        .column("with", Show::Count("positive"))
        .column("without", Show::Count("negative"))
        .column("area under the curve", Show::Number("auc", 3))
        .column("95 % interval", Show::Interval("ci_low", "ci_high", 3))
        .column("accuracy", Show::Share("accuracy"))
        .block("How well the logit difference tells the behaviour")?;
    let text = metric_text(tokens, separation)?;
    Ok(vec![answers, Section::new("Metric").paragraph(text).block(Block::Table(named)).block(Block::Table(judged))])
}

/// What the metric's tokens were chosen by, how many answers begin with them, and how well they tell.
fn metric_text(tokens: &Table, separation: &Table) -> Result<String, AnalysisError> {
    let basis = separation.strs("basis")?.first().copied().unwrap_or_default();
    let halves = separation.strs("half")?;
    let held = halves.iter().position(|h| *h == "held out").and_then(|i| separation.floats("auc").ok()?[i]);
    let what = match basis.split(',').next().unwrap_or_default() {
        "refusals" => "Tokens were chosen that separate refused from answered prompts on one half of the pairs.",
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
    let roles = tokens.strs("role")?;
    // Of a class that no answer is of there is no share.
    let begin = |role: &str, of: &str, class: &str| -> Result<String, AnalysisError> {
        let shares = tokens.floats(of)?.iter().zip(&roles).filter(|(_, r)| **r == role).map(|(s, _)| *s);
        let begun = shares.sum::<Option<f64>>();
        Ok(begun.map_or(String::new(), |begun| format!(" The {role} tokens begin {} of all {class}.", share(begun))))
    };
    Ok(format!(
        "{what}{few}{}{} On the other half the area under the curve is {}.",
        begin("answer", "of_refusals", "refusals")?,
        begin("foil", "of_answers", "answers")?,
        number(held, 3),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Engine;

    #[test]
    fn logits_do_not_depend_on_which_prompts_are_planned_at_once() {
        let model = Model::open(crate::demo::NAME, &Default::default()).unwrap();
        let file = PairFile { pairs: "demo:pairs.jsonl".into(), max_pairs: Some(3) };
        let items = Behaviour { file, generate: 2, tokens: 2 }.prepare(&model).unwrap();
        let session = Session::new(&model, Engine::Wavefront, 0);
        let of = |prompts: Vec<Range<usize>>| logits(&session, &items, prompts.into_iter(), &[3, 5, 7]).unwrap();
        let whole = of(vec![0..6]);
        assert_eq!((whole.len(), whole[0].len()), (6, 3));
        assert_eq!(whole, of(vec![0..1, 1..5, 5..6]));
    }
}
