//! The metric's tokens by language, and how well they tell prompts that they were not chosen by.
//!
//! The whole choice (tokens over all prompts, then of each language, then of groups of one) is made once with all prompts, which
//! gives the metric, and once without each fold of the pairs, which says how well such a choice tells prompts that it has not
//! seen. How tokens are chosen from prompts is [`super::tokens`]'.

use super::tokens::{Chosen, Judged, Shown, separation};
use super::{Items, Said};
use crate::analyses::metric::ENOUGH;
use crate::stats::rng;
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, HashMap};

/// Parts of the pairs, each of which is judged by what is chosen without it.
const FOLDS: usize = 4;

/// How much better, by the area under the curve, a group's own tokens must tell its prompts than its language's do, for the group to
/// have its own: those that a group chooses always tell the prompts that chose them a little better.
const APART: f64 = 0.1;

/// What the tokens were chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// Refused against answered prompts.
    Behaviour,
    /// Positive against negative prompts, because the model refuses or answers too few.
    Sides,
    /// Nothing: no answer's first token is more frequent on one side.
    None,
}

/// A language, or a group of prompts in one, with prompts enough of each class to have tokens of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// The number of the language.
    pub lang: usize,
    pub group: Option<String>,
}

/// A prompt with a class.
struct Prompt {
    positive: bool,
    lang: usize,
    fold: usize,
    /// The cell of its group in its language, and that of its language.
    cells: [Option<usize>; 2],
    /// By the candidates of all prompts, compared within languages.
    overall: Shown,
    /// By the candidates of its language.
    own: Shown,
}

/// What was chosen from some prompts.
struct Choice {
    overall: Chosen,
    scarce: bool,
    /// Of each cell, where it has its own.
    own: Vec<Option<Chosen>>,
}

/// The tokens that were chosen, and the prompts that they were chosen and judged by.
pub(super) struct Found {
    pub basis: Basis,
    choice: Choice,
    /// What was chosen without each fold.
    without: Vec<Choice>,
    pub cells: Vec<Cell>,
    prompts: Vec<Prompt>,
    /// Whether each language is one, or that of the prompts without.
    named: Vec<bool>,
}

/// How well some tokens tell some prompts.
pub(super) struct Row {
    /// Whether these prompts chose the tokens; else those that chose them are others.
    pub chosen_by_them: bool,
    /// The number of the language, and the group; none of all prompts.
    pub lang: Option<usize>,
    pub group: Option<String>,
    /// Whose tokens: `as used`, `overall`, `language` or `group`.
    pub tokens: &'static str,
    /// Whether the metric measures these prompts by them.
    pub used: bool,
    pub judged: Vec<Judged>,
}

impl Found {
    /// Chooses up to `most` tokens a side; `class` says of each prompt whether it is refused (true), answered (false) or neither.
    pub(super) fn choose(items: &Items, said: &Said, class: &[Option<bool>], most: usize, seed: u64) -> Found {
        let refused = class.iter().filter(|class| **class == Some(true)).count();
        let answered = class.iter().filter(|class| **class == Some(false)).count();
        let (basis, class) = match refused.min(answered) >= 2 * ENOUGH {
            true => (Basis::Behaviour, class.to_vec()),
            false => (Basis::Sides, (0..class.len()).map(|i| Some(i.is_multiple_of(2))).collect()),
        };
        let cells = if basis == Basis::Behaviour { cells(items, &class) } else { Vec::new() };
        let prompts = prompts(items, said, &class, &cells, &folds(items, &class, seed));
        let of = |out: Option<usize>| {
            let some: Vec<&Prompt> = prompts.iter().filter(|p| Some(p.fold) != out).collect();
            Choice::of(&some, cells.len(), said, most)
        };
        let without = (0..FOLDS).map(|fold| of(Some(fold)).unwrap_or_else(|| Choice::nothing(cells.len())));
        let without = without.collect();
        let (basis, choice) = match of(None) {
            Some(choice) => (basis, choice),
            None => (Basis::None, Choice::nothing(cells.len())),
        };
        let named = items.langs.iter().map(Option::is_some).collect();
        Found { basis, choice, without, cells, prompts, named }
    }

    /// The basis as tables name it.
    pub(super) fn basis(&self) -> &'static str {
        match (self.basis, self.choice.scarce) {
            (Basis::Behaviour, false) => "refusals",
            (Basis::Behaviour, true) => "refusals, few alike",
            (Basis::Sides, false) => "sides",
            (Basis::Sides, true) => "sides, few alike",
            (Basis::None, _) => "none",
        }
    }

    /// The tokens over all prompts, as numbers of the candidates of all.
    pub(super) fn overall(&self) -> &Chosen {
        &self.choice.overall
    }

    /// The cells that have tokens of their own, with these, as numbers of their language's candidates.
    pub(super) fn own(&self) -> impl Iterator<Item = (&Cell, &Chosen)> {
        self.cells.iter().zip(&self.choice.own).filter_map(|(cell, own)| Some((cell, own.as_ref()?)))
    }

    /// The metric of every prompt, also of those that have no class.
    pub(super) fn metrics(&self, items: &Items, said: &Said) -> Vec<f64> {
        let own: HashMap<_, _> = self.own().map(|(cell, own)| ((cell.lang, cell.group.as_deref()), own)).collect();
        let one = |i: usize| {
            let (lang, group, [all, of_lang]) = (items.lang[i], items.items[i].group.as_deref(), &said.logits[i]);
            match group.and_then(|_| own.get(&(lang, group))).or_else(|| own.get(&(lang, None))) {
                Some(own) => own.difference(of_lang),
                None => self.choice.overall.difference(all),
            }
        };
        (0..items.items.len()).map(one).collect()
    }

    /// Whether any language has tokens of its own.
    pub(super) fn by_language(&self) -> bool {
        self.own().next().is_some()
    }

    /// How well the tokens tell: all prompts, each language and each group with its own, the prompts that chose them first; then
    /// the same of prompts that did not. What is used stands before what could be.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut of_lang: Vec<Vec<&Prompt>> = vec![Vec::new(); self.named.len()];
        let mut of_cell: Vec<Vec<&Prompt>> = vec![Vec::new(); self.cells.len()];
        for prompt in &self.prompts {
            of_lang[prompt.lang].push(prompt);
            prompt.cells.iter().flatten().for_each(|cell| of_cell[*cell].push(prompt));
        }
        let all: Vec<&Prompt> = self.prompts.iter().collect();
        let mut rows = Vec::new();
        for chosen_by_them in [true, false] {
            let row = |place: (Option<usize>, Option<&str>), tokens, used, of: &[&Prompt]| {
                let own = tokens != OVERALL;
                let judged = of.iter().map(|p| self.judged(p, chosen_by_them, own)).collect();
                Row { chosen_by_them, lang: place.0, group: place.1.map(str::to_owned), tokens, used, judged }
            };
            let mut place = |place, of: &[&Prompt], own: Option<&'static str>| match own {
                Some(own) => rows.extend([row(place, own, true, of), row(place, OVERALL, false, of)]),
                None => rows.push(row(place, OVERALL, true, of)),
            };
            place((None, None), &all, self.by_language().then_some("as used"));
            for (lang, of) in of_lang.iter().enumerate() {
                // Where no prompt has a language, all of them are those without.
                if self.named == [false] {
                    continue;
                }
                let cells =
                    || (0..self.cells.len()).filter(|c| self.cells[*c].lang == lang && self.choice.own[*c].is_some());
                let has_own = cells().any(|c| self.cells[c].group.is_none());
                place((Some(lang), None), of, has_own.then_some("language"));
                for cell in cells() {
                    if let Some(group) = self.cells[cell].group.as_deref() {
                        place((Some(lang), Some(group)), &of_cell[cell], Some("group"));
                    }
                }
            }
        }
        rows
    }

    /// A prompt by the tokens that it chose among others, or by those that were chosen without its fold; by its own place's tokens
    /// or the overall ones. Those of one fold, language and choice of tokens are compared.
    fn judged(&self, prompt: &Prompt, chosen_by_it: bool, own: bool) -> Judged {
        let (choice, fold) = match chosen_by_it {
            true => (&self.choice, 0),
            false => (&self.without[prompt.fold], prompt.fold),
        };
        let cell = prompt.cells.iter().flatten().find(|cell| own && choice.own[**cell].is_some());
        let difference = match cell.and_then(|cell| choice.own[*cell].as_ref()) {
            Some(own) => own.difference(&prompt.own.logits),
            None => choice.overall.difference(&prompt.overall.logits),
        };
        let of = cell.map_or(0, |cell| 1 + cell);
        let stratum = (prompt.lang * (1 + self.cells.len()) + of) * FOLDS + fold;
        Judged { stratum, positive: prompt.positive, difference }
    }
}

const OVERALL: &str = "overall";

impl Choice {
    /// Where nothing separates any two tokens are as good.
    fn nothing(cells: usize) -> Choice {
        Choice { overall: Chosen { answer: vec![0], foil: vec![1] }, scarce: false, own: vec![None; cells] }
    }

    /// Tokens over some prompts, then of each language that has prompts enough, then of those of its groups that its tokens tell
    /// much worse than their own.
    fn of(prompts: &[&Prompt], cells: usize, said: &Said, most: usize) -> Option<Choice> {
        let shown: Vec<&Shown> = prompts.iter().map(|p| &p.overall).collect();
        let (overall, scarce) = Chosen::choose(&shown, said.all.len(), most)?;
        let mut members: Vec<Vec<&Prompt>> = vec![Vec::new(); cells];
        prompts.iter().for_each(|p| p.cells.iter().flatten().for_each(|cell| members[*cell].push(p)));
        let mut own: Vec<Option<Chosen>> = vec![None; cells];
        // Languages come before their groups.
        for (cell, of) in members.iter().enumerate() {
            let Some(first) = of.first() else { continue };
            let shown: Vec<&Shown> = of.iter().map(|p| &p.own).collect();
            let Some((tokens, _)) = Chosen::choose(&shown, said.of[first.lang].len(), most) else { continue };
            let area = |judged: Vec<Judged>| separation(&judged).map_or(0.5, |score| score.area);
            let language = first.cells[1].filter(|language| *language != cell);
            let apart = language.is_none_or(|language| {
                let before = match &own[language] {
                    Some(of_language) => area(of_language.judged(&shown)),
                    None => area(overall.judged(&of.iter().map(|p| &p.overall).collect::<Vec<_>>())),
                };
                area(tokens.judged(&shown)) >= before + APART
            });
            own[cell] = apart.then_some(tokens);
        }
        Some(Choice { overall, scarce, own })
    }
}

/// The languages that have prompts enough of each class, and after each those of its groups that have.
fn cells(items: &Items, class: &[Option<bool>]) -> Vec<Cell> {
    let mut counts = BTreeMap::new();
    for (i, class) in class.iter().enumerate() {
        let (lang, Some(class)) = (items.lang[i], class) else { continue };
        let group = items.items[i].group.clone();
        for place in [(lang, None), (lang, group.clone())].into_iter().take(1 + usize::from(group.is_some())) {
            counts.entry(place).or_insert([0; 2])[usize::from(*class)] += 1;
        }
    }
    let enough =
        counts.into_iter().filter(|((lang, _), n)| items.langs[*lang].is_some() && n.iter().all(|n| *n >= ENOUGH));
    enough.map(|((lang, group), _)| Cell { lang, group }).collect()
}

/// The fold of each pair: as many pairs of each language and class in each; which ones is drawn.
fn folds(items: &Items, class: &[Option<bool>], seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items.pairs.items.len()).collect();
    order.shuffle(&mut rng(seed, "folds of behaviour"));
    order.sort_by_key(|pair| (items.lang[2 * pair], class[2 * pair], class[2 * pair + 1]));
    let mut folds = vec![0; order.len()];
    order.into_iter().enumerate().for_each(|(rank, pair)| folds[pair] = rank % FOLDS);
    folds
}

/// The prompts that have a class.
fn prompts(items: &Items, said: &Said, class: &[Option<bool>], cells: &[Cell], folds: &[usize]) -> Vec<Prompt> {
    let number: HashMap<(usize, Option<&str>), usize> =
        cells.iter().enumerate().map(|(i, cell)| ((cell.lang, cell.group.as_deref()), i)).collect();
    let one = |(i, class): (usize, &Option<bool>)| {
        let (positive, lang, fold) = ((*class)?, items.lang[i], folds[i / 2]);
        let group = items.items[i].group.as_deref();
        let cells = [group.and_then(|group| number.get(&(lang, Some(group)))), number.get(&(lang, None))];
        let shown = |logits: &[f64], candidates: &[u32], stratum| {
            let first = candidates.iter().position(|token| Some(*token) == said.first[i]);
            Shown { logits: logits.to_vec(), first, positive, stratum }
        };
        let [all, own] = &said.logits[i];
        Some(Prompt {
            positive,
            lang,
            fold,
            cells: cells.map(|cell| cell.copied()),
            overall: shown(all, &said.all, lang),
            own: shown(own, &said.of[lang], 0),
        })
    };
    class.iter().enumerate().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tables;
    use super::*;
    use crate::analyses::metric::{Telling, Told};
    use crate::dataset::{Dataset, Input, Item, Pair};

    /// A prompt of the constructed model: its language and group, and whether it is refused.
    struct Made {
        lang: &'static str,
        group: &'static str,
        refused: bool,
    }

    /// The first token of an answer: refusals of English begin with 10, of Chinese with 11, of German with 12; answers with 20,
    /// 21 and 22. Refusals of the Chinese group "odd" begin with 13.
    fn first(made: &Made) -> u32 {
        let base = if made.refused { 10 } else { 20 };
        match (made.lang, made.group, made.refused) {
            ("zh", "odd", true) => 13,
            ("en", ..) => base,
            ("zh", ..) => base + 1,
            _ => base + 2,
        }
    }

    /// What tokens say of a prompt: a language's own tell in it alone, as clearly as its answers are sure; German ones do not; in
    /// the group "odd" those of the rest of Chinese say the contrary.
    fn logit(made: &Made, i: usize, token: u32) -> f64 {
        let noise = noise(i, token);
        let side = if made.refused { 1.0 } else { -1.0 };
        let signal = match (made.lang, made.group, token) {
            ("en", _, 10) | ("zh", "odd", 13) => side,
            ("zh", "odd", 11) => -2.0 * side,
            ("zh", group, 11) if group != "odd" => side,
            // Chinese prompts that are answered look like English ones that are refused.
            ("zh", _, 10) => -side,
            _ => 0.0,
        };
        2.0 * signal + noise
    }

    /// Between -1 and 1, without order: splitmix64.
    fn noise(i: usize, token: u32) -> f64 {
        let mut x = ((i as u64) << 32 | u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    fn items(all: &[Made]) -> Items {
        let pair = |i: usize| Pair {
            line: i + 1,
            id: i.to_string(),
            positive: Input::text("+"),
            negative: Input::text("-"),
            group: Some(all[2 * i].group.to_string()),
            lang: Some(all[2 * i].lang.to_string()),
            answer: Vec::new(),
            foil: Vec::new(),
            spans: Vec::new(),
        };
        let pairs: Vec<Pair> = (0..all.len() / 2).map(pair).collect();
        let item = |i: usize| crate::analyses::answered::item_of(&pairs[i / 2], &pairs[i / 2].positive);
        let items: Vec<Item> = (0..all.len()).map(item).collect();
        let mut langs: Vec<Option<String>> = items.iter().map(|item| item.lang.clone()).collect();
        langs.sort_unstable();
        langs.dedup();
        let lang = items.iter().map(|item| langs.binary_search(&item.lang).unwrap()).collect();
        let pairs = Dataset { path: "pairs.jsonl".into(), sha256: String::new(), items: pairs, warnings: Vec::new() };
        Items {
            pairs,
            prompts: vec![Vec::new(); all.len()],
            items,
            langs,
            lang,
            rules: crate::answers::Rules::builtin().unwrap(),
        }
    }

    fn said(all: &[Made], items: &Items) -> Said {
        let of = |lang: &str| -> Vec<u32> {
            let mut own: Vec<u32> = all.iter().filter(|made| made.lang == lang).map(first).collect();
            own.sort_unstable();
            own.dedup();
            own
        };
        let of: Vec<Vec<u32>> = items.langs.iter().map(|lang| of(lang.as_deref().unwrap())).collect();
        let tokens: Vec<u32> = vec![10, 11, 12, 13, 20, 21, 22];
        let logits = all.iter().enumerate().map(|(i, made)| {
            let of_list = |list: &[u32]| list.iter().map(|token| logit(made, i, *token)).collect();
            [of_list(&tokens), of_list(&of[items.lang[i]])]
        });
        Said { logits: logits.collect(), first: all.iter().map(|made| Some(first(made))).collect(), all: tokens, of }
    }

    /// Pairs of a refused and an answered prompt.
    fn pairs(lang: &'static str, group: &'static str, n: usize) -> impl Iterator<Item = Made> {
        (0..2 * n).map(move |i| Made { lang, group, refused: i.is_multiple_of(2) })
    }

    fn found(all: &[Made], seed: u64) -> (Items, Said, Found) {
        let items = items(all);
        let said = said(all, &items);
        let class: Vec<Option<bool>> = all.iter().map(|made| Some(made.refused)).collect();
        let found = Found::choose(&items, &said, &class, 4, seed);
        (items, said, found)
    }

    /// A language's tokens in the file: answer and foil.
    fn tokens(items: &Items, said: &Said, found: &Found, lang: &str, group: Option<&str>) -> Option<[Vec<u32>; 2]> {
        let number = items.langs.iter().position(|l| l.as_deref() == Some(lang)).unwrap();
        let own = found.own().find(|(cell, _)| cell.lang == number && cell.group.as_deref() == group)?.1;
        Some([&own.answer, &own.foil].map(|side| side.iter().map(|c| said.of[number][*c]).collect()))
    }

    /// How well a language's tokens, or the overall ones, tell its prompts that did not choose them.
    fn told(items: &Items, found: &Found, lang: &str, overall: bool) -> Told {
        let number = items.langs.iter().position(|l| l.as_deref() == Some(lang));
        let row = tables::Separation::of(found).into_iter().find(|s| {
            let (row, of) = (s.row(), if overall { s.row().tokens == OVERALL } else { s.row().used });
            !row.chosen_by_them && row.lang == number && row.group.is_none() && of
        });
        row.unwrap().told()
    }

    #[test]
    fn two_languages_that_need_different_tokens_get_them_and_one_whose_tokens_do_not_tell_is_known() {
        let all: Vec<Made> = pairs("en", "a", 24).chain(pairs("zh", "a", 24)).chain(pairs("de", "a", 24)).collect();
        for seed in 0..3 {
            let (items, said, found) = found(&all, seed);
            assert_eq!(found.basis(), "refusals");
            assert_eq!(tokens(&items, &said, &found, "en", None), Some([vec![10], vec![20]]));
            assert_eq!(tokens(&items, &said, &found, "zh", None).unwrap()[0], [11]);
            let area = |lang, overall| told(&items, &found, lang, overall).auc.unwrap();
            assert!(area("en", false) > 0.9 && area("zh", false) > 0.9);
            // One choice for all cannot serve both: what leads refusals in English leads answers in Chinese.
            let gains = ["en", "zh"].map(|lang| area(lang, false) - area(lang, true));
            assert!(gains.iter().any(|gain| *gain > 0.2), "{gains:?}");
            // Nothing tells in German: tokens that were chosen by chance on some prompts do not tell others.
            let german = told(&items, &found, "de", false);
            assert!(german.auc.unwrap() < 0.7 && german.telling() == Telling::No, "{german:?}");
            assert!(german.ci_low.unwrap() < 0.5 && (german.refused, german.answered) == (24, 24));
            assert_eq!(told(&items, &found, "en", false).telling(), Telling::Yes);
        }
    }

    #[test]
    fn tokens_are_never_judged_on_prompts_that_chose_them() {
        // Nothing tells: with 24 tokens a side to choose from, the best of them look good on those that chose them alone.
        let all: Vec<Made> = pairs("de", "a", 20).collect();
        let items = items(&all);
        let lists: Vec<u32> = (0..48).collect();
        let logits = (0..all.len()).map(|i| [0, 1].map(|_| lists.iter().map(|t| noise(i, *t)).collect())).collect();
        let first =
            all.iter().enumerate().map(|(i, m)| Some((i / 2 % 6) as u32 + if m.refused { 0 } else { 24 })).collect();
        let said = Said { all: lists.clone(), of: vec![lists], logits, first };
        let class: Vec<Option<bool>> = all.iter().map(|made| Some(made.refused)).collect();
        let found = Found::choose(&items, &said, &class, 4, 0);
        let area = |chosen_by_them: bool| {
            let rows = tables::Separation::of(&found);
            let row = rows.iter().find(|s| s.row().chosen_by_them == chosen_by_them && s.row().lang.is_none()).unwrap();
            row.told().auc.unwrap()
        };
        assert!(area(true) > 0.65 && area(false) < 0.62, "{} and {}", area(true), area(false));
    }

    #[test]
    fn a_group_has_its_own_tokens_where_those_of_its_language_tell_it_worse_and_only_there() {
        let all: Vec<Made> = pairs("zh", "odd", 12).chain(pairs("zh", "a", 120)).chain(pairs("en", "a", 16)).collect();
        let (items, said, found) = found(&all, 0);
        assert_eq!(tokens(&items, &said, &found, "zh", Some("odd")).unwrap()[0], [13]);
        assert_eq!(tokens(&items, &said, &found, "zh", None).unwrap()[0][0], 11);
        assert_eq!(
            (tokens(&items, &said, &found, "zh", Some("a")), tokens(&items, &said, &found, "en", Some("a"))),
            (None, None)
        );
        // The prompts of the group are measured by them.
        let (metrics, zh) =
            (found.metrics(&items, &said), items.langs.iter().position(|l| l.as_deref() == Some("zh")).unwrap());
        let (_, own) = found.own().find(|(cell, _)| cell.group.as_deref() == Some("odd")).unwrap();
        for i in (0..all.len()).filter(|i| all[*i].group == "odd") {
            let of_lang: Vec<f64> = said.of[zh].iter().map(|token| logit(&all[i], i, *token)).collect();
            assert_eq!(metrics[i], own.difference(&of_lang));
        }
    }

    #[test]
    fn too_few_of_either_kind_take_the_overall_tokens() {
        let few = pairs("de", "a", ENOUGH - 1);
        let all: Vec<Made> = pairs("en", "a", 20).chain(few).collect();
        let (items, said, found) = found(&all, 0);
        assert_eq!(tokens(&items, &said, &found, "de", None), None);
        let told = told(&items, &found, "de", true);
        assert!(told.telling() == Telling::TooFew && told.auc.is_some(), "{told:?}");
    }

    #[test]
    fn folds_hold_as_much_of_each_language_and_class_and_another_seed_draws_others() {
        let all: Vec<Made> = pairs("en", "a", 24).chain(pairs("zh", "a", 9)).collect();
        let items = items(&all);
        let class: Vec<Option<bool>> = all.iter().map(|made| Some(made.refused)).collect();
        let folds = folds(&items, &class, 0);
        let count = |fold: usize, range: std::ops::Range<usize>| folds[range].iter().filter(|f| **f == fold).count();
        assert!((0..FOLDS).all(|fold| count(fold, 0..24) == 6 && [2, 3].contains(&count(fold, 24..33))));
        assert_ne!(folds, super::folds(&items, &class, 1));
        assert_eq!(folds, super::folds(&items, &class, 0));
    }
}
