//! Behaviour: does the model refuse, which requests, and which first tokens tell?
//!
//! Both prompts of every pair are answered, and the answers classified by [`crate::answers`]. Where some are refused and some
//! answered, the tokens are sought whose logits at the prompt's last position separate the two best: over all prompts, compared
//! within each language; then in each language with prompts enough of both kinds; then in each group of one that its language's
//! tokens tell much worse than its own. Candidates are first tokens that several answers of one class share; a pair of tokens is
//! chosen, then more as long as they help to order the prompts or to put 0 between the two. How well tokens tell is measured by
//! cross-fitting over four folds of the pairs: no prompt is judged by tokens that it helped to choose. `metric.json` holds the
//! tokens of each language, and every analysis takes it as its metric. A model that refuses too little gets tokens
//! that tell the positive prompts from the negative ones, and is said to be such a one.
//! Source: "How Alignment Routes" (2026) measures routing in the model's own refusals.

mod found;
mod report;
mod tables;
mod tokens;

use super::answered::{Answer, ClassArgs, continued, item_of};
use super::inputs::{PairFile, room};
use super::scored::Scored;
use crate::analyses::prelude::*;
use crate::answers::{Class, Rules};
use crate::dataset::encode::prompt_ids;
use crate::dataset::shown::Prompt;
use crate::dataset::warn_once;
use crate::run::{Generated, Steps};
use found::Found;
use std::collections::BTreeMap;
pub(crate) use tables::HELD_OUT;
use tables::Made;
pub use tables::{AnswerRow, RateRow, SeparationRow};

parameters! {
    /// Find out what the model refuses, and which first tokens tell
    #[serde(default)]
    pub struct Behaviour {
        ..file: PairFile;

        /// Generate this many tokens per answer
        generate: u32 = 32, in 1..=1_000_000, [value_name = "N"];

        /// Use at most this many tokens on each side of the metric
        tokens: u16 = 8, in 1..=16, [value_name = "K"];

        ..classes: ClassArgs;
    }
}

/// The prompts as the model reads them.
pub struct Items {
    pairs: Dataset<Pair>,
    /// Positive and negative prompt of each pair in turn.
    prompts: Vec<Vec<u32>>,
    /// The same as items, for the classes of their answers.
    items: Vec<Item>,
    /// The languages of the prompts, in their order; none for those that have none.
    langs: Vec<Option<String>>,
    /// The number of each prompt's language.
    lang: Vec<usize>,
    /// What classifies the answers.
    rules: Rules,
}

/// What the model said first after each prompt, and how likely it found what it might have said.
struct Said {
    /// First tokens that are considered: of all prompts' answers, and of each language's.
    all: Vec<u32>,
    of: Vec<Vec<u32>>,
    /// Each prompt's logits of the candidates of all, and of those of its language.
    logits: Vec<[Vec<f64>; 2]>,
    /// The first token of each answer.
    first: Vec<Option<u32>>,
}

/// What was found of the prompts.
pub struct Measured {
    said: Said,
    answers: Vec<Answer>,
}

/// The file of the metric.
const METRIC: &str = "metric.json";

/// The sides of a pair, in the order of [`Items::prompts`].
const SIDES: [&str; 2] = ["positive", "negative"];

/// First tokens that are considered: so many over all prompts, and so many in each language.
const CANDIDATES: usize = 48;

impl Analysis for Behaviour {
    const NAME: &'static str = "behaviour";
    const TITLE: &'static str = "Behaviour";
    const FROM_TABLES: FromTables = FromTables { figures, sections: report::sections };
    type Items = Items;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
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
        let mut langs: Vec<Option<String>> = items.iter().map(|item| item.lang.clone()).collect();
        langs.sort_unstable();
        langs.dedup();
        let lang = items.iter().map(|item| langs.binary_search(&item.lang).unwrap_or(0)).collect();
        let mut sources = vec![pairs.source()];
        let rules = self.classes.open_for_refusals(true, &mut sources)?;
        Ok(Prepared { items: Items { pairs, prompts, items, langs, lang, rules }, sources, scored })
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Measured, AnalysisError> {
        let (mut generated, mut answers) = (Vec::new(), Vec::new());
        for some in prompts(items) {
            let runs = (0..some.len()).map(Run::Prompt).collect();
            let (plan, greedy) = (plan(items, some.clone(), &[]).0, (self.generate, Steps::PromptOnly));
            let (own, classes) = continued(runner, &plan, runs, greedy, (&items.rules, &items.items[some]))?;
            generated.extend(own);
            answers.extend(classes);
        }
        Ok(Measured { said: Said::of(runner, items, &generated)?, answers })
    }

    fn tables(&self, about: &About, items: &Items, measured: Measured) -> Result<Output, AnalysisError> {
        let Measured { said, answers } = measured;
        let class = |answer: &Answer| match answer.class {
            Class::Refusal => Some(true),
            Class::Answer => Some(false),
            Class::Evasion | Class::Broken | Class::Undecided | Class::Own(_) => None,
        };
        let class: Vec<Option<bool>> = answers.iter().map(class).collect();
        let found = Found::choose(items, &said, &class, usize::from(self.tokens), about.seed);
        let made = Made { model: about.loaded, items, answers: &answers, said: &said, found: &found };
        let rows = tables::Separation::of(&found);
        let file = made.file(&rows)?;
        warn_once(&file.weak().iter().map(|text| format!("{METRIC}: {text}")).collect::<Vec<_>>());
        let metric = serde_json::to_vec_pretty(&file).map_err(|e| AnalysisError::Failed(e.to_string()))?;
        let tables = vec![made.rates()?, made.tokens(&file)?, made.separation(&rows)?, made.answers()?];
        Ok(Output { tables, files: vec![(METRIC.to_string(), metric)] })
    }
}

fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    Ok(vec![("rates.png".to_string(), report::rates_figure(table(tables, RateRow::TABLE)?)?)])
}

const LOGITS: Site = Site { kind: SiteKind::Logits, layer: 0 };

/// The prompts that are planned at once.
fn prompts(items: &Items) -> impl Iterator<Item = Range<usize>> {
    batches(items.prompts.len(), 1)
}

/// Some prompts, with the logits of some tokens, those of each prompt's language, where there are any.
fn plan(items: &Items, some: Range<usize>, columns: &[Vec<usize>]) -> (Plan, Vec<Handle<Array>>) {
    let (mut plan, mut asked) = (Plan::default(), Vec::new());
    for i in some {
        let run = plan.prompt(format!("{} {}", items.items[i].id, SIDES[i % 2]), items.prompts[i].clone());
        if let Some(columns) = columns.get(items.lang[i]) {
            let part = Part::Columns(columns.clone());
            asked.push(plan.read(run, Activation { site: LOGITS, positions: Positions::Last, part }));
        }
    }
    (plan, asked)
}

/// The logits of some tokens, those of each prompt's language, at the last position of every prompt; so many prompts at a time.
fn logits(
    runner: &dyn Runner,
    items: &Items,
    prompts: impl Iterator<Item = Range<usize>>,
    columns: &[Vec<usize>],
) -> Result<Vec<Vec<f64>>, AnalysisError> {
    let mut logits = Vec::with_capacity(items.prompts.len());
    for some in prompts {
        let (plan, asked) = plan(items, some, columns);
        let readings = runner.run(&plan)?;
        logits.extend(asked.iter().map(|of| readings[*of].values.iter().map(|x| f64::from(*x)).collect()));
    }
    Ok(logits)
}

impl Said {
    /// Of answers, one a prompt.
    fn of(runner: &dyn Runner, items: &Items, generated: &[Generated]) -> Result<Said, AnalysisError> {
        let first: Vec<Option<u32>> = generated.iter().map(|g| g.ids.first().copied()).collect();
        let mut all = candidates(first.iter().flatten());
        if all.len() < 2 {
            all.extend(runners_up(runner, items, &all)?);
        }
        let mut by_lang = vec![Vec::new(); items.langs.len()];
        first.iter().zip(&items.lang).for_each(|(first, lang)| by_lang[*lang].extend(first));
        let of: Vec<Vec<u32>> = by_lang.iter().map(|first| candidates(first.iter())).collect();
        let columns: Vec<Vec<usize>> =
            of.iter().map(|own| all.iter().chain(own).map(|token| *token as usize).collect()).collect();
        let split = |values: Vec<f64>| {
            let (overall, own) = values.split_at(all.len());
            [overall.to_vec(), own.to_vec()]
        };
        let logits = logits(runner, items, prompts(items), &columns)?.into_iter().map(split).collect();
        Ok(Said { all, of, logits, first })
    }
}

/// First tokens, the most frequent first.
fn candidates<'a>(first: impl Iterator<Item = &'a u32>) -> Vec<u32> {
    let mut counts = BTreeMap::new();
    first.for_each(|first| *counts.entry(*first).or_insert(0usize) += 1);
    let mut candidates: Vec<(u32, usize)> = counts.into_iter().collect();
    candidates.sort_by_key(|(token, n)| (std::cmp::Reverse(*n), *token));
    candidates.into_iter().take(CANDIDATES).map(|(token, _)| token).collect()
}

/// Two tokens that the model nearly said: where all answers begin alike, there is nothing else to compare.
fn runners_up(runner: &dyn Runner, items: &Items, said: &[u32]) -> Result<Vec<u32>, AnalysisError> {
    let mut plan = Plan::default();
    let prompt = plan.prompt("the first prompt", items.prompts[0].clone());
    let asked = plan.read(prompt, Activation { site: LOGITS, positions: Positions::Last, part: Part::All });
    let readings = runner.run(&plan)?;
    let logits = &readings[asked].values;
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    Ok(order.into_iter().map(|token| token as u32).filter(|token| !said.contains(token)).take(2).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::Study;

    #[test]
    fn logits_do_not_depend_on_which_prompts_are_planned_at_once() {
        let study = Study::open(crate::demo::NAME).unwrap();
        let file = PairFile { max_pairs: Some(3), ..PairFile::from("demo:pairs.jsonl") };
        let items =
            Behaviour { file, generate: 2, tokens: 2, ..Behaviour::default() }.prepare(&study.model).unwrap().items;
        let session = study.session();
        let columns = vec![vec![3, 5, 7]; items.langs.len()];
        let of = |prompts: Vec<Range<usize>>| logits(&session, &items, prompts.into_iter(), &columns).unwrap();
        let whole = of(vec![0..6]);
        assert_eq!((whole.len(), whole[0].len()), (6, 3));
        assert_eq!(whole, of(vec![0..1, 1..5, 5..6]));
    }
}
