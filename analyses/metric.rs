//! The metric's tokens: those of items, of flags, and of `metric.json`, which has them by language.
//!
//! Which tokens a language gets, and how well they tell, is `behaviour`'s finding; which of them an item is measured by is decided
//! here, and what a reader of its numbers has to know of them is put in words here alone.

use super::inputs::read_input;
use crate::analyses::prelude::*;
use crate::dataset::TokenRef;
use crate::dataset::encode::{At, EncodeError, token_ids};
use crate::dataset::shown::counted;
use crate::measured::NamedToken;
use crate::parameters::Param;
use crate::report::cells;
use std::collections::{BTreeMap, BTreeSet};

/// Prompts of each kind, refused and answered, that a language needs: to have tokens chosen by them, and for an area under the
/// curve over them to say anything.
pub const ENOUGH: usize = 8;

/// The area under the curve from which tokens tell one kind of prompts from the other.
pub const TELLS: f64 = 0.7;

parameters! {
    /// Which tokens the metric compares, where the dataset names none
    #[serde(default)]
    pub struct MetricArgs {
        /// Answer token for items that name none: a string, of which the first token counts, or id:N (repeatable)
        // A text would be taken as it is otherwise, `id:5` too.
        answer: Vec<TokenRef>, [value_name = "TOKEN", allow_hyphen_values = true, value_parser = str::parse::<TokenRef>];

        /// Foil token for items that name none (repeatable)
        // A text would be taken as it is otherwise, `id:5` too.
        foil: Vec<TokenRef>, [value_name = "TOKEN", allow_hyphen_values = true, value_parser = str::parse::<TokenRef>];

        /// Take answer and foil tokens, by language, from the metric.json that `behaviour` writes
        ///
        /// They count only for an item that names no tokens itself, and where no answer or foil token is given beside the file.
        metric_file: Option<Data>, [long = "metric", value_name = "FILE"];
    }
}

impl MetricArgs {
    /// Looks the flags' tokens up, and reads the file, if there is one.
    ///
    /// # Errors
    /// If the model has not a token, or the file cannot be read, or is of a model with other tokens.
    pub fn open(&self, model: &Model) -> Result<Metrics, AnalysisError> {
        let ids = |of: Param, tokens: &[TokenRef]| {
            token_ids(model, tokens).map_err(|why| AnalysisError::Bad(format!("{of}: {why}")))
        };
        let flags = [ids(param("answer"), &self.answer)?, ids(param("foil"), &self.foil)?];
        let given = self.answer.iter().chain(&self.foil).cloned().collect();
        let Some(path) = &self.metric_file else { return Ok(Metrics { flags, given, file: None, source: None }) };
        let (file, source) = MetricFile::read(path, model)?;
        let name = path.path().file_name().map_or_else(|| source.0.clone(), |name| name.to_string_lossy().into_owned());
        Ok(Metrics { flags, given, file: Some((name, file)), source: Some(source) })
    }

    /// Warns of a flag that stands in for nothing, where every item names its own answer, or its own foil.
    /// `named` says of each item whether it does.
    pub fn warn_unused(&self, named: &[[bool; 2]]) {
        for (side, (flag, given)) in [("answer", &self.answer), ("foil", &self.foil)].into_iter().enumerate() {
            if !given.is_empty() && named.iter().all(|named| named[side]) {
                tracing::warn!("{}: does nothing, for every item names its own `{flag}`", param(flag));
            }
        }
    }
}

/// What an item says of its metric: its own tokens, and whose tokens stand in for them.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub answer: &'a [TokenRef],
    pub foil: &'a [TokenRef],
    pub lang: Option<&'a str>,
    pub group: Option<&'a str>,
}

impl<'a> From<&'a Pair> for Asked<'a> {
    fn from(pair: &'a Pair) -> Self {
        let (lang, group) = (pair.lang.as_deref(), pair.group.as_deref());
        Asked { answer: &pair.answer, foil: &pair.foil, lang, group }
    }
}

impl<'a> From<&'a Item> for Asked<'a> {
    fn from(item: &'a Item) -> Self {
        let (lang, group) = (item.lang.as_deref(), item.group.as_deref());
        Asked { answer: &item.answer, foil: &item.foil, lang, group }
    }
}

/// The tokens that stand in where items name none.
pub struct Metrics {
    /// The tokens that the parameters `answer` and `foil` name.
    flags: [Vec<u32>; 2],
    /// What the flags say.
    given: Vec<TokenRef>,
    /// The file by its name, where there is one.
    file: Option<(String, MetricFile)>,
    /// The file that they are from, with its SHA-256.
    pub source: Option<(String, String)>,
}

impl Metrics {
    /// The tokens that flags name.
    pub fn given(&self) -> impl Iterator<Item = &TokenRef> {
        self.given.iter()
    }

    /// The logit difference between an item's answer and foil tokens, or those that stand in: a flag's, else those that the file
    /// has for its language and group.
    ///
    /// # Errors
    /// If neither names any, a token is unknown, or one is on both sides.
    pub fn metric<'a>(
        &self,
        model: &Model,
        asked: Asked<'_>,
        at: impl Fn(&'static str) -> At<'a>,
    ) -> Result<Metric, EncodeError> {
        let of_file = self.file.as_ref().map(|(_, file)| file.tokens(asked.lang, asked.group));
        let side =
            |side: usize, field, own: &[TokenRef]| match (own, self.flags[side].as_slice(), of_file) {
                ([], [], None) => Err(at(field)
                    .error(format!("is not given; add it to the line, or give {} for all lines", param(field)))),
                ([], [], Some(of_file)) => Ok(of_file[side].iter().map(|token| token.id).collect()),
                ([], flag, _) => Ok(flag.to_vec()),
                (own, ..) => token_ids(model, own).map_err(|why| at(field).error(why)),
            };
        let (answer, foil) = (side(0, "answer", asked.answer)?, side(1, "foil", asked.foil)?);
        match answer.iter().find(|id| foil.contains(id)) {
            Some(both) => Err(at("foil").error(collision(model, *both, [asked.answer, asked.foil]))),
            None => Ok(Metric::logit_difference(answer, foil)),
        }
    }

    /// What a reader of these items' numbers has to know of the file's tokens: where they do not tell refusals from answers, and
    /// which items took the overall tokens because the file has none for their language. Nothing where no item takes any.
    pub fn notes<'a>(&self, items: impl Iterator<Item = Asked<'a>>) -> Vec<String> {
        let Some((name, file)) = &self.file else { return Vec::new() };
        let from_file = |asked: &Asked| {
            let own = [asked.answer, asked.foil];
            (0..2).any(|side| own[side].is_empty() && self.flags[side].is_empty())
        };
        let mut taken = items.filter(from_file).peekable();
        if taken.peek().is_none() {
            return Vec::new();
        }
        let unknown = file.unknown(taken);
        file.weak().into_iter().chain(unknown).map(|text| format!("{name}: {text}")).collect()
    }
}

/// Why an answer and a foil cannot be told apart, in their own texts where they were given so.
fn collision(model: &Model, token: u32, own: [&[TokenRef]; 2]) -> String {
    let text = model.tokenizer().ok().and_then(|t| t.token(token)).unwrap_or_default();
    let written = |tokens: &[TokenRef]| {
        let begins = |t: &&TokenRef| token_ids(model, std::slice::from_ref(*t)).is_ok_and(|ids| ids.contains(&token));
        tokens
            .iter()
            .find(begins)
            .and_then(|t| if let TokenRef::Text(text) = t { Some(format!("{text:?}")) } else { None })
    };
    let [answer, foil] = own.map(written);
    let said = match (answer, foil) {
        (Some(answer), Some(foil)) if answer != foil => {
            format!("{answer} and {foil} begin with the same token, {text:?}")
        }
        (Some(one), _) | (_, Some(one)) => format!("{one} is on both sides, by its first token {text:?}"),
        (None, None) => return format!("token {token} {text:?} is an answer too; the two must differ"),
    };
    format!("{said} (token {token}): the first token alone counts, and the two must differ")
}

/// `metric.json`: the tokens by which a model's behaviour is told, over all prompts and in each language.
///
/// A file without `languages` has one metric for all.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MetricFile {
    /// The model that the tokens were chosen for, as it was named.
    pub model: String,
    /// Tokens of the behaviour.
    pub answer: Vec<NamedToken>,
    /// Tokens of its absence.
    pub foil: Vec<NamedToken>,
    /// What they were chosen by, as the table `separation` has it; none in files of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<String>,
    /// How well all prompts, each by its language's tokens, are told where they did not choose them; none in files of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<Told>,
    /// Each language of the prompts that the tokens were chosen by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<OfLanguage>,
}

/// A language's tokens, and how well they tell.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct OfLanguage {
    /// As the dataset names it.
    pub lang: String,
    /// Whether they were chosen in this language; else they are the overall ones.
    pub own: bool,
    pub answer: Vec<NamedToken>,
    pub foil: Vec<NamedToken>,
    /// How well they tell prompts of this language that they were not chosen by.
    pub held_out: Told,
    /// Groups of prompts in this language with tokens of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<OfGroup>,
}

/// The tokens of a group of prompts in a language.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct OfGroup {
    pub group: String,
    pub answer: Vec<NamedToken>,
    pub foil: Vec<NamedToken>,
    pub held_out: Told,
}

/// How well tokens tell refused from answered prompts that they were not chosen by.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Told {
    pub refused: usize,
    pub answered: usize,
    /// The area under the ROC curve with its 95 % interval; none where there is only one kind of prompts.
    pub auc: Option<f64>,
    pub ci_low: Option<f64>,
    pub ci_high: Option<f64>,
}

/// Whether tokens tell refused from answered prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    Yes,
    No,
    /// There are too few of either kind to say.
    TooFew,
}

impl Telling {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Telling::Yes => "yes",
            Telling::No => "no",
            Telling::TooFew => "too few",
        }
    }
}

impl Told {
    /// Whether they tell: an area of [`TELLS`] or more, over [`ENOUGH`] prompts of each kind at least.
    pub fn telling(&self) -> Telling {
        match self.auc {
            _ if self.refused.min(self.answered) < ENOUGH => Telling::TooFew,
            Some(auc) if auc >= TELLS => Telling::Yes,
            _ => Telling::No,
        }
    }

    /// A sentence on where they do not tell, without its end.
    fn weak(&self, whose: &str, place: &str) -> Option<String> {
        let prompts = format!("{} refused and {} answered prompts", self.refused, self.answered);
        match self.telling() {
            Telling::Yes => None,
            Telling::TooFew => Some(format!(
                "{prompts} in {place} are too few to say whether the {whose} tokens tell the two apart there ({ENOUGH} of each \
                 are needed)"
            )),
            Telling::No => Some(format!(
                "the {whose} tokens do not tell refused from answered prompts in {place}: the area under the curve is {} (95 % \
                 interval {}) over {prompts} that they were not chosen by",
                cells::number(self.auc, 3),
                cells::interval(self.ci_low, self.ci_high, 3).replace('\u{a0}', " "),
            )),
        }
    }
}

/// The two sides, answer and foil.
type Sides<'a> = [&'a [NamedToken]; 2];

impl MetricFile {
    /// Reads a file for a model; returns it with its name and SHA-256.
    ///
    /// # Errors
    /// If it cannot be read, its tokens are others in this model, or it is not sound.
    pub fn read(path: &Data, model: &Model) -> Result<(MetricFile, (String, String)), AnalysisError> {
        let (bytes, source) = read_input(path)?;
        let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", path.display()));
        let file: MetricFile = serde_json::from_slice(&bytes)
            .map_err(|e| bad(format!("is no metric.json as `behaviour` writes it: {e}")))?;
        file.check().map_err(bad)?;
        let tokenizer = model.tokenizer().map_err(|e| bad(e.to_string()))?;
        // A stand-in has no texts that could be others.
        let known = !tokenizer.is_planned();
        for token in file.all().flat_map(|(_, sides)| sides).flatten().filter(|_| known) {
            let text = tokenizer.decode_generated(&[token.id]).unwrap_or_default();
            if text != token.text {
                return Err(bad(format!(
                    "token {} is \"{}\" in {}, for which it was made, and \"{text}\" in this model; run `behaviour` on this \
                     model",
                    token.id, token.text, file.model
                )));
            }
        }
        Ok((file, source))
    }

    /// What is wrong with what it says, whatever the model.
    fn check(&self) -> Result<(), String> {
        for (place, sides) in self.all() {
            for (side, tokens) in ["answer", "foil"].into_iter().zip(sides) {
                if tokens.is_empty() {
                    return Err(format!("names no {side} token{place}; each side needs one"));
                }
            }
        }
        let mut langs = BTreeSet::new();
        match self.languages.iter().find(|of| !langs.insert(&of.lang)) {
            Some(twice) => Err(format!("names the language `{}` twice; leave one out", twice.lang)),
            None => Ok(()),
        }
    }

    /// All tokens, with the place that messages name: overall, then of each language and group.
    fn all(&self) -> impl Iterator<Item = (String, Sides<'_>)> {
        let of_language = |of: &'_ OfLanguage| format!(" for the language `{}`", of.lang);
        let of_groups = move |of: &'_ OfLanguage| -> Vec<String> {
            of.groups.iter().map(|group| format!("{}, group `{}`", of_language(of), group.group)).collect()
        };
        let overall = (String::new(), [self.answer.as_slice(), &self.foil]);
        let rest = self.languages.iter().flat_map(move |of| {
            let own = (of_language(of), [of.answer.as_slice(), &of.foil]);
            let groups = of_groups(of).into_iter().zip(&of.groups);
            std::iter::once(own).chain(groups.map(|(place, g)| (place, [g.answer.as_slice(), &g.foil])))
        });
        std::iter::once(overall).chain(rest)
    }

    /// What it has of a language: `zh` stands in for `zh-CN`.
    fn language(&self, lang: &str) -> Option<&OfLanguage> {
        let primary = lang.split(['-', '_']).next().unwrap_or(lang);
        let of = |name: &str| self.languages.iter().find(|of| of.lang.eq_ignore_ascii_case(name));
        of(lang).or_else(|| of(primary))
    }

    /// Answer and foil tokens of an item of a language and group.
    fn tokens(&self, lang: Option<&str>, group: Option<&str>) -> Sides<'_> {
        let Some(of) = lang.and_then(|lang| self.language(lang)) else { return [&self.answer, &self.foil] };
        match group.and_then(|group| of.groups.iter().find(|g| g.group == group)) {
            Some(of) => [&of.answer, &of.foil],
            None => [&of.answer, &of.foil],
        }
    }

    /// Where its tokens do not tell refusals from answers, in sentences without their ends.
    pub fn weak(&self) -> Vec<String> {
        weak(self.basis.as_deref(), self.held_out.as_ref(), &self.languages)
    }

    /// What is said of items in a language that it does not know.
    fn unknown<'a>(&self, items: impl Iterator<Item = Asked<'a>>) -> Option<String> {
        if self.languages.is_empty() {
            return None;
        }
        let (mut counts, mut without, mut known): (BTreeMap<&str, usize>, usize, BTreeMap<&str, bool>) =
            Default::default();
        for asked in items {
            match asked.lang {
                None => without += 1,
                Some(lang) if *known.entry(lang).or_insert_with(|| self.language(lang).is_some()) => {}
                Some(lang) => *counts.entry(lang).or_default() += 1,
            }
        }
        let list = counts.iter().map(|(lang, n)| format!("`{lang}` ({})", counted(*n, "item")));
        let list: Vec<String> =
            list.chain((without > 0).then(|| format!("no language ({})", counted(without, "item")))).collect();
        let langs: Vec<String> = self.languages.iter().map(|of| format!("`{}`", of.lang)).collect();
        let all = counts.values().sum::<usize>() + without;
        (all > 0).then(|| {
            format!(
                "{} of {} took the overall tokens, because the file has tokens for {} alone; run `behaviour` on prompts in the \
                 other languages, or give the items their `lang`",
                counted(all, "item"),
                list.join(", "),
                langs.join(", ")
            )
        })
    }
}

/// Where tokens do not tell refusals from answers, by what they were chosen by and how they tell all prompts and those in each
/// language; in sentences without their ends.
pub fn weak(basis: Option<&str>, overall: Option<&Told>, languages: &[OfLanguage]) -> Vec<String> {
    if basis.is_some_and(|basis| !chosen_by_refusals(basis)) {
        let why = "too few prompts are refused, or too few answered, to choose tokens by: the metric says nothing about refusing in \
                   any language";
        return vec![why.to_string()];
    }
    let whose = |of: &OfLanguage| if of.own { "language's own" } else { "overall" };
    let each = languages.iter().flat_map(|of| {
        let group =
            |g: &OfGroup| g.held_out.weak("group's own", &format!("the group `{}` of language `{}`", g.group, of.lang));
        let language = of.held_out.weak(whose(of), &format!("language `{}`", of.lang));
        language.into_iter().chain(of.groups.iter().filter_map(group))
    });
    overall.and_then(|told| told.weak("metric's", "all languages together")).into_iter().chain(each).collect()
}

/// Whether a basis, as the table `separation` has it, is refused against answered prompts; be it that few begin alike, which it
/// says after a comma.
pub fn chosen_by_refusals(basis: &str) -> bool {
    basis.split(',').next() == Some("refusals")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: u32) -> Vec<NamedToken> {
        vec![NamedToken { id, text: String::new() }]
    }

    fn told(refused: usize, auc: f64) -> Told {
        Told { refused, answered: 20, auc: Some(auc), ci_low: Some(auc - 0.1), ci_high: Some(auc + 0.1) }
    }

    /// Overall tokens 1 and 2; English has its own, Chinese and one of its groups too, German the overall ones.
    fn file() -> MetricFile {
        let of = |lang: &str, id: u32, held_out| OfLanguage {
            lang: lang.to_string(),
            own: id != 1,
            answer: named(id),
            foil: named(2),
            held_out,
            groups: Vec::new(),
        };
        let group = OfGroup { group: "theft".into(), answer: named(9), foil: named(2), held_out: told(8, 0.9) };
        let chinese = OfLanguage { groups: vec![group], ..of("zh", 7, told(12, 0.6)) };
        MetricFile {
            model: "m".to_string(),
            answer: named(1),
            foil: named(2),
            basis: Some("refusals".to_string()),
            held_out: Some(told(45, 0.72)),
            languages: vec![of("en", 5, told(30, 0.7)), chinese, of("de", 1, told(3, 0.95))],
        }
    }

    fn asked<'a>(lang: Option<&'a str>, group: Option<&'a str>) -> Asked<'a> {
        Asked { answer: &[], foil: &[], lang, group }
    }

    fn metrics(file: MetricFile) -> Metrics {
        let file = Some(("metric.json".to_string(), file));
        Metrics { flags: Default::default(), given: Vec::new(), file, source: None }
    }

    #[test]
    fn an_item_takes_the_tokens_of_its_group_then_of_its_language_then_the_overall_ones() {
        let file = file();
        let answer = |lang, group| file.tokens(lang, group)[0][0].id;
        assert_eq!(
            [answer(Some("en"), None), answer(Some("zh"), Some("fraud")), answer(Some("zh"), Some("theft"))],
            [5, 7, 9]
        );
        assert_eq!([answer(Some("zh-CN"), None), answer(Some("ZH"), None)], [7, 7]);
        assert_eq!([answer(Some("de"), None), answer(Some("fr"), None), answer(None, Some("theft"))], [1, 1, 1]);
    }

    #[test]
    fn an_area_under_seven_tenths_and_too_few_prompts_are_said_and_nothing_else() {
        let weak = file().weak();
        assert_eq!(weak.len(), 2, "{weak:?}");
        assert!(weak[0].starts_with("the language's own tokens do not tell") && weak[0].contains("0.600"), "{weak:?}");
        assert!(weak[0].contains("12 refused and 20 answered") && weak[0].contains("[0.500, 0.700]"), "{weak:?}");
        assert!(weak[1].starts_with("3 refused and 20 answered prompts in language `de` are too few"), "{weak:?}");
        let sides = MetricFile { basis: Some("sides, few alike".to_string()), ..file() };
        assert!(sides.weak().len() == 1 && sides.weak()[0].contains("says nothing about refusing"));
        assert!(MetricFile { basis: None, held_out: None, languages: Vec::new(), ..file() }.weak().is_empty());
        // Prompts without a language are told of too.
        let without = MetricFile { held_out: Some(told(45, 0.55)), languages: Vec::new(), ..file() }.weak();
        assert!(without.len() == 1 && without[0].starts_with("the metric's tokens do not tell"), "{without:?}");
    }

    #[test]
    fn items_in_languages_that_the_file_does_not_know_are_counted() {
        let items = [Some("en"), Some("fr"), Some("fr"), None, Some("it"), Some("de-AT")].map(|lang| asked(lang, None));
        let notes = metrics(file()).notes(items.into_iter());
        let last = notes.last().unwrap();
        let said =
            "metric.json: 4 items of `fr` (2 items), `it` (1 item), no language (1 item) took the overall tokens";
        assert!(notes.len() == 3 && last.starts_with(said) && last.contains("`en`, `zh`, `de` alone"), "{notes:?}");
        // A file of before has one metric for all, and knows no languages.
        let old = MetricFile { basis: None, languages: Vec::new(), ..file() };
        assert!(metrics(old).notes(items.into_iter()).is_empty());
    }

    #[test]
    fn where_no_item_takes_the_files_tokens_nothing_is_said_of_them() {
        let own = [TokenRef::Id(3)];
        let item = Asked { answer: &own, foil: &own, ..asked(Some("fr"), None) };
        assert!(metrics(file()).notes([item].into_iter()).is_empty());
        let flags = Metrics { flags: [vec![3], vec![4]], ..metrics(file()) };
        assert!(flags.notes([asked(Some("fr"), None)].into_iter()).is_empty());
        // The foil alone is the item's own.
        let half = Asked { foil: &own, ..asked(Some("en"), None) };
        assert_eq!(metrics(file()).notes([half].into_iter()).len(), 2);
    }

    #[test]
    fn a_file_that_is_not_sound_says_where() {
        let mut lacking = file();
        lacking.languages[1].groups[0].foil.clear();
        assert_eq!(
            lacking.check().unwrap_err(),
            "names no foil token for the language `zh`, group `theft`; each side needs one"
        );
        let mut twice = file();
        twice.languages[2].lang = "en".to_string();
        assert!(twice.check().unwrap_err().contains("`en` twice"));
    }
}
