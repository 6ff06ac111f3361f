//! What an analysis scores, and whether that is what was meant: which tokens of which prompts, how likely they are there, and
//! what is likely a mistake in them. Warnings that need no model are given when the data are read, the others as soon as the
//! session has run the prompts.

use super::inputs::PairTokens;
use super::metric::{Asked, Metrics};
use crate::analyses::prelude::*;
use crate::dataset::shown::{Prompt, Shown, counted, joined};
use crate::dataset::{TokenRef, warn_once};
use crate::measured::{MeanMetric, Measured, NamedToken, ScoredToken, ShownPrompt};
use crate::model::tokenizer::Tokenizer;
use crate::run::log_sum_exp;
use crate::study::session::{Scores, Wanted};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

/// Items whose prompts are looked at for how likely the tokens are, evenly from all.
const LOOKED_AT: usize = 64;

/// By how many nats " x" is likelier than "x" where the space was likely forgotten, and how likely it is then at least.
const FAR_LIKELIER: f64 = 2.0;
const LIKELY: f64 = 1e-3;

/// What an analysis scores.
#[derive(Clone, Debug, Default)]
pub struct Scored {
    path: PathBuf,
    shown: Shown,
    items: Vec<ScoredItem>,
    /// By token, its text and the longer answer that it begins, if it does.
    names: BTreeMap<u32, ScoredName>,
    /// By token that was given without a space, the token of the same answer with one.
    spaced: BTreeMap<u32, NamedToken>,
    warnings: Vec<String>,
}

#[derive(Clone, Debug)]
struct ScoredName {
    text: String,
    first_of: Option<String>,
}

/// An item's prompts (of pairs: positive and negative) and the tokens that its metric compares.
#[derive(Clone, Debug)]
struct ScoredItem {
    prompts: Vec<Vec<u32>>,
    answer: Vec<u32>,
    foil: Vec<u32>,
}

impl Scored {
    /// Of pairs, as the model reads them.
    pub fn of_pairs(model: &Model, dataset: &Dataset<Pair>, tokens: &[PairTokens], metrics: &Metrics) -> Scored {
        let all = dataset.items.iter().zip(tokens);
        let prompts = all.clone().flat_map(|(pair, tokens)| {
            let prompt = |input, ids, field| Prompt { input, ids, id: &pair.id, field };
            [
                prompt(&pair.positive, tokens.positive.as_slice(), "positive"),
                prompt(&pair.negative, &tokens.negative, "negative"),
            ]
        });
        let items = all.clone().map(|(_, t)| item(vec![t.positive.clone(), t.negative.clone()], &t.metric));
        let asked = dataset.items.iter().map(|pair| (pair.line, pair.into()));
        Scored::new(model, &dataset.path, prompts, items.collect(), asked, metrics)
    }

    /// Of prompts with a metric, as the model reads them.
    pub fn of_items(
        model: &Model,
        dataset: &Dataset<Item>,
        tokens: &[(Vec<u32>, Metric)],
        metrics: &Metrics,
    ) -> Scored {
        let all = dataset.items.iter().zip(tokens);
        let prompts =
            all.clone().map(|(item, (ids, _))| Prompt { input: &item.prompt, ids, id: &item.id, field: "prompt" });
        let items = all.clone().map(|(_, (ids, metric))| item(vec![ids.clone()], metric));
        let asked = dataset.items.iter().map(|item| (item.line, item.into()));
        Scored::new(model, &dataset.path, prompts, items.collect(), asked, metrics)
    }

    /// Of prompts of which no tokens are scored.
    pub fn of_prompts<'a>(model: &Model, path: &Path, prompts: impl Iterator<Item = Prompt<'a>>) -> Scored {
        Scored { path: path.to_owned(), shown: Shown::of(model, path, prompts), ..Scored::default() }
    }

    fn new<'a>(
        model: &Model,
        path: &Path,
        prompts: impl Iterator<Item = Prompt<'a>>,
        items: Vec<ScoredItem>,
        asked: impl Iterator<Item = (usize, Asked<'a>)> + Clone,
        metrics: &Metrics,
    ) -> Scored {
        let mut scored = Scored::of_prompts(model, path, prompts);
        scored.items = items;
        scored.note(metrics.notes(asked.clone().map(|(_, asked)| asked)));
        let Ok(tokenizer) = model.tokenizer() else { return scored };
        let written =
            asked.flat_map(|(line, asked)| asked.answer.iter().chain(asked.foil).map(move |token| (Some(line), token)));
        let mut longer: BTreeMap<&str, (Option<usize>, Vec<u32>)> = BTreeMap::new();
        for (line, token) in written.chain(metrics.given().map(|token| (None, token))) {
            let TokenRef::Text(text) = token else { continue };
            // What has no tokens was an error before.
            let Ok(tokens) = tokenizer.answer_tokens(text) else { continue };
            scored.space(tokenizer, text, tokens[0]);
            let first_of = (tokens.len() > 1).then(|| text.clone());
            scored
                .names
                .entry(tokens[0])
                .or_insert_with(|| ScoredName { text: text_of(tokenizer, tokens[0]), first_of });
            if tokens.len() > 1 {
                longer.entry(text.as_str()).or_insert((line, tokens));
            }
        }
        for id in scored.items.iter().flat_map(|item| item.answer.iter().chain(&item.foil)) {
            let name = || ScoredName { text: text_of(tokenizer, *id), first_of: None };
            scored.names.entry(*id).or_insert_with(name);
        }
        let warning = of_longer(tokenizer, &longer).map(|text| format!("{}: {text}", path.display()));
        scored.note(warning.into_iter().collect());
        scored
    }

    /// Adds what a reader of the numbers has to know, each once, and warns of it.
    pub fn note(&mut self, notes: Vec<String>) {
        warn_once(&notes);
        for note in notes {
            if !self.warnings.contains(&note) {
                self.warnings.push(note);
            }
        }
    }

    /// Notes the token of an answer with a space before it, where that is another.
    fn space(&mut self, tokenizer: &Tokenizer, text: &str, token: u32) {
        let begins_word = text.starts_with(|c: char| c.is_alphanumeric());
        if !tokenizer.tells_spaces() || !begins_word {
            return;
        }
        let spaced = tokenizer.first_token(&format!(" {text}")).ok().filter(|spaced| *spaced != token);
        let spaced = spaced.map(|id| NamedToken { id, text: text_of(tokenizer, id) });
        self.spaced.extend(spaced.filter(|named| !named.text.trim().is_empty()).map(|named| (token, named)));
    }

    /// What a session is to read of the prompts that are looked at.
    pub fn wanted(&self) -> Wanted {
        let mut wanted: HashMap<Vec<u32>, BTreeSet<u32>> = HashMap::new();
        for item in self.looked_at() {
            let spaced = item.tokens().filter_map(|id| Some(self.spaced.get(&id)?.id));
            let tokens: Vec<u32> = item.tokens().chain(spaced).collect();
            for ids in item.prompts.iter().filter(|_| !tokens.is_empty()) {
                wanted.entry(ids.clone()).or_default().extend(&tokens);
            }
        }
        wanted.into_iter().map(|(ids, tokens)| (ids, tokens.into_iter().collect())).collect()
    }

    fn looked_at(&self) -> impl Iterator<Item = &ScoredItem> {
        let (all, n) = (self.items.len(), self.items.len().min(LOOKED_AT));
        (0..n).map(move |k| &self.items[k * all / n])
    }

    /// The first prompt, as the model reads it.
    pub fn first_prompt(&self) -> Option<&ShownPrompt> {
        self.shown.first_prompt.as_ref()
    }

    /// The record, with what the session found.
    pub fn measured(&self, scores: &Scores) -> Measured {
        let found = Found { wanted: self.wanted(), scores };
        let metric = self.metric(&found);
        let mut warnings = self.shown.warnings.clone();
        warnings.extend(self.warnings.iter().cloned());
        warnings.extend(self.late_warnings(&found, metric));
        Measured {
            template: self.shown.template,
            first_prompt: self.shown.first_prompt.clone(),
            answer: self.side(&found, |item| &item.answer),
            foil: self.side(&found, |item| &item.foil),
            metric,
            warnings,
        }
    }

    /// Gives the warnings that need the session's scores.
    pub fn warn(&self, scores: &Scores) {
        let found = Found { wanted: self.wanted(), scores };
        warn_once(&self.late_warnings(&found, self.metric(&found)));
    }

    /// The tokens of one side of the metric, in the order of how many items they are of.
    fn side(&self, found: &Found, of: impl Fn(&ScoredItem) -> &Vec<u32>) -> Vec<ScoredToken> {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        self.items.iter().flat_map(&of).for_each(|id| *counts.entry(*id).or_default() += 1);
        let mean = |id: u32, side: usize| {
            let items = self.looked_at().filter(|item| of(item).contains(&id));
            mean(items.filter_map(|item| found.logprob(item.prompts.get(side)?, id)))
        };
        let one = |(id, items): (&u32, &usize)| {
            let name = self.names.get(id);
            ScoredToken {
                id: *id,
                text: name.map_or_else(String::new, |name| name.text.clone()),
                first_of: name.and_then(|name| name.first_of.clone()),
                items: *items,
                mean_logprob: mean(*id, 0),
                mean_logprob_negative: mean(*id, 1),
            }
        };
        let mut tokens: Vec<ScoredToken> = counts.iter().map(one).collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(token.items));
        tokens
    }

    /// The metric over the prompts that were looked at and run.
    fn metric(&self, found: &Found) -> Option<MeanMetric> {
        let of = |item: &ScoredItem, side: usize| found.difference(item.prompts.get(side)?, item);
        let each: Vec<(f64, Option<f64>)> =
            self.looked_at().filter_map(|item| Some((of(item, 0)?, of(item, 1)))).collect();
        let pairs: Vec<(f64, f64)> =
            each.iter().filter_map(|(positive, negative)| Some((*positive, (*negative)?))).collect();
        Some(MeanMetric {
            items: each.len(),
            mean: mean(each.iter().map(|(metric, _)| *metric))?,
            negative_mean: mean(pairs.iter().map(|(_, negative)| *negative)),
            positive_below: (!pairs.is_empty()).then(|| pairs.iter().filter(|(p, n)| p < n).count()),
        })
    }

    fn late_warnings(&self, found: &Found, metric: Option<MeanMetric>) -> Vec<String> {
        let texts = metric.and_then(of_swapped).into_iter().chain(self.of_spaces(found));
        texts.map(|text| format!("{}: {text}", self.path.display())).collect()
    }

    /// Answers without a space before them, where one is far likelier.
    fn of_spaces(&self, found: &Found) -> Option<String> {
        let mut forgotten = Vec::new();
        for (id, spaced) in &self.spaced {
            let with = self.looked_at().filter(|item| item.tokens().any(|token| token == *id));
            let of = |ids: &Vec<u32>| Some((found.logprob(ids, *id)?, found.logprob(ids, spaced.id)?));
            let both: Vec<(f64, f64)> = with.flat_map(|item| &item.prompts).filter_map(of).collect();
            let (own, other) = (mean(both.iter().map(|b| b.0)), mean(both.iter().map(|b| b.1)));
            if let (Some(own), Some(other)) = (own, other)
                && other - own > FAR_LIKELIER
                && other > LIKELY.ln()
            {
                let name = self.names.get(id).map_or("", |name| name.text.as_str());
                forgotten.push((
                    spaced,
                    format!("{:?} is {:.1} nats likelier there than {name:?}", spaced.text, other - own),
                ));
            }
        }
        let (spaced, first) = forgotten.first()?;
        let rest = forgotten.len() - 1;
        let more = if rest > 0 { format!(" (and {rest} more so)") } else { String::new() };
        Some(format!(
            "{first}{more}: was the space before the answer forgotten? The tokens that the file names were scored; write the \
             answer with its space, as in {:?}",
            spaced.text
        ))
    }
}

impl ScoredItem {
    fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        self.answer.iter().chain(&self.foil).copied()
    }
}

fn item(prompts: Vec<Vec<u32>>, metric: &Metric) -> ScoredItem {
    let (answer, foil) = match metric {
        Metric::LogitDifference { answer, foil } => (answer.clone(), foil.clone()),
        Metric::AboveMean { .. } | Metric::Continuation { .. } => Default::default(),
    };
    ScoredItem { prompts, answer, foil }
}

/// What a session found, by prompt and token.
struct Found<'a> {
    wanted: Wanted,
    scores: &'a Scores,
}

impl Found<'_> {
    fn logprob(&self, ids: &[u32], token: u32) -> Option<f64> {
        let at = self.wanted.get(ids)?.iter().position(|id| *id == token)?;
        self.scores.get(ids)?.get(at).copied()
    }

    /// The logit difference: log-probabilities are logits less one number for all.
    fn difference(&self, ids: &[u32], item: &ScoredItem) -> Option<f64> {
        let side = |tokens: &[u32]| -> Option<f64> {
            let each: Option<Vec<f64>> = tokens.iter().map(|id| self.logprob(ids, *id)).collect();
            each.filter(|each| !each.is_empty()).map(|each| log_sum_exp(each.into_iter()))
        };
        Some(side(&item.answer)? - side(&item.foil)?)
    }
}

fn text_of(tokenizer: &Tokenizer, id: u32) -> String {
    tokenizer.token(id).unwrap_or_default()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values.fold((0usize, 0.0), |(n, sum), value| (n + 1, sum + value));
    (n > 0).then(|| sum / n as f64)
}

/// Answers of several tokens, of which the first is scored.
fn of_longer(tokenizer: &Tokenizer, longer: &BTreeMap<&str, (Option<usize>, Vec<u32>)>) -> Option<String> {
    let one = |(text, (line, tokens)): (&&str, &(Option<usize>, Vec<u32>))| {
        let place = line.map_or_else(String::new, |line| format!(" (line {line})"));
        format!("{text:?}{place} is {}", joined(&tokenizer.named(tokens)))
    };
    let list: Vec<String> = longer.iter().take(3).map(one).collect();
    let rest = longer.len().saturating_sub(list.len());
    let more = if rest > 0 { format!(", and {rest} more") } else { String::new() };
    (!list.is_empty()).then(|| {
        format!(
            "{} {} of several tokens, of which the first alone is scored: {}{more}; choose answers and foils whose first \
             tokens tell them apart",
            counted(longer.len(), "text"),
            if longer.len() == 1 { "is an answer or foil" } else { "are answers or foils" },
            list.join(", ")
        )
    })
}

/// Pairs whose positive prompts have less of the metric than their negative ones.
fn of_swapped(metric: MeanMetric) -> Option<String> {
    let (below, items) = (metric.positive_below?, metric.items);
    (2 * below > items).then(|| {
        format!(
            "in {below} of {items} pairs the metric is lower after the positive prompt than after the negative one: are \
             positive and negative, or answer and foil, swapped?"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Input;

    fn model() -> Model {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/inputs/bytes");
        Model::open(dir, &Default::default()).unwrap()
    }

    /// A pair of texts with an answer and a foil, as the model reads it.
    fn scored(model: &Model, answer: &str, foil: &str) -> Scored {
        let text = |text: &str| Input::text(text);
        let (answer, foil) = (vec![TokenRef::Text(answer.into())], vec![TokenRef::Text(foil.into())]);
        let (id, path) = ("a".to_owned(), PathBuf::from("pairs.jsonl"));
        let pair = Pair {
            line: 1,
            id,
            positive: text("When Mary"),
            negative: text("When John"),
            group: None,
            lang: None,
            answer,
            foil,
            spans: Vec::new(),
        };
        let dataset = Dataset { path, sha256: String::new(), items: vec![pair], warnings: Vec::new() };
        let metrics = super::super::metric::MetricArgs::default().open(model).unwrap();
        let tokens = super::super::inputs::pair_tokens(model, &dataset, &dataset.items[0], &metrics).unwrap();
        Scored::of_pairs(model, &dataset, &[tokens], &metrics)
    }

    #[test]
    fn a_space_that_was_likely_forgotten_is_told_by_how_likely_the_token_with_it_is() {
        let model = model();
        let spaced = model.tokenizer().unwrap().first_token(" Mary").unwrap();
        let of = |answer: &str, with_space: f64| {
            let scored = scored(&model, answer, " John");
            let of_token = |id: &u32| if *id == spaced { with_space } else { -4.0 };
            let wanted = scored.wanted().into_iter();
            let scores = wanted.map(|(ids, tokens)| (ids, tokens.iter().map(of_token).collect()));
            scored.measured(&scores.collect()).warnings
        };
        let told = |answer: &str, with_space: f64| {
            of(answer, with_space).iter().any(|w| w.contains("the space before the answer"))
        };
        assert!(told("Mary", -1.0));
        let warning = of("Mary", -1.0).pop().unwrap();
        assert!(warning.contains("\" Mary\" is 3.0 nats likelier there than"), "{warning}");
        // Not by much; hardly likely itself; or given with its space.
        assert!(!told("Mary", -2.5) && !told(" Mary", -1.0));
        assert!(!told("Mary", -8.0));
    }

    #[test]
    fn the_example_of_a_forgotten_space_is_the_answer_whose_space_was_forgotten() {
        let model = model();
        for forgotten in [" Mary", " John"] {
            let likely = model.tokenizer().unwrap().first_token(forgotten).unwrap();
            let scored = scored(&model, "Mary", "John");
            let of_token = |id: &u32| if *id == likely { -1.0 } else { -4.0 };
            let wanted = scored.wanted().into_iter();
            let scores = wanted.map(|(ids, tokens)| (ids, tokens.iter().map(of_token).collect()));
            let warning = scored.measured(&scores.collect()).warnings.pop().unwrap();
            assert!(warning.ends_with(&format!("as in {forgotten:?}")), "{warning}");
        }
    }

    #[test]
    fn what_is_asked_of_the_session_is_bounded_and_even() {
        let one = |i: u32| ScoredItem { prompts: vec![vec![i]], answer: vec![1], foil: vec![2] };
        let scored = Scored { items: (0..1000).map(one).collect(), ..Scored::default() };
        let mut asked: Vec<u32> = scored.wanted().into_keys().map(|ids| ids[0]).collect();
        asked.sort_unstable();
        assert_eq!((asked.len(), asked[0], asked[1], asked[63]), (64, 0, 15, 984));
    }

    #[test]
    fn the_metric_of_log_probabilities_is_that_of_logits() {
        let items = vec![ScoredItem { prompts: vec![vec![0], vec![9]], answer: vec![1, 3], foil: vec![2] }];
        let scored = Scored { items, ..Scored::default() };
        // Log-probabilities of tokens 1, 2, 3.
        let scores = HashMap::from([(vec![0], vec![-1.0, -2.0, -3.0]), (vec![9], vec![-4.0, -1.0, -4.0])]);
        let metric = scored.measured(&scores).metric.unwrap();
        let expected = ((-1f64).exp() + (-3f64).exp()).ln() + 2.0;
        assert!((metric.mean - expected).abs() < 1e-12);
        assert!((metric.negative_mean.unwrap() - ((2.0 * (-4f64).exp()).ln() + 1.0)).abs() < 1e-12);
        assert_eq!(metric.positive_below, Some(0));
    }
}
