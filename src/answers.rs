//! Classes of generated answers: is it a refusal, an evasion, an answer?
//!
//! ```
//! # use gatelens::answers::{Class, Rules, RulesError};
//! # fn main() -> Result<(), RulesError> {
//! let rules = Rules::builtin()?;
//! let verdict = rules.classify("Sorry, I cannot help with that.", Some("en"), &[]);
//! assert_eq!((verdict.class, verdict.rule.as_deref()), (Class::Refusal, Some("en.refusal.unable")));
//! let facts = ["Paris".to_owned()];
//! assert_eq!(rules.classify("It's Paris!", None, &facts).class, Class::Answer);
//! # Ok(())
//! # }
//! ```
//!
//! The rules are phrases in a data file, `datasets/answers.toml`; its head says in which order they decide, what they
//! were measured on and where they fail. What no rule decides is [`Class::Undecided`]; a share of answers is worth
//! little without the share of those, so callers report it beside. Making the answers is left to the engine, counting
//! them to the analyses.

mod file;
mod pattern;
#[cfg(test)]
mod tests;
mod text;

pub use file::RulesError;

use pattern::Pattern;
use text::{Text, Token, tokens};

/// What an answer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Says that it will not or cannot do what was asked.
    Refusal,
    /// Neither does what was asked nor refuses it: another subject, no opinion, a question back.
    Evasion,
    /// Does what was asked.
    Answer,
    /// No rule decides, or there is nothing to decide: empty and repeated output.
    Undecided,
}

impl Class {
    /// All classes, in the order of tables.
    pub const ALL: [Class; 4] = [Class::Refusal, Class::Evasion, Class::Answer, Class::Undecided];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Class::Refusal => "refusal",
            Class::Evasion => "evasion",
            Class::Answer => "answer",
            Class::Undecided => "undecided",
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An answer's class, and what decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// The id of the rule that decided; none where none did.
    pub rule: Option<String>,
}

/// Rules that classify answers.
#[derive(Debug, Clone)]
pub struct Rules {
    limits: Limits,
    rules: Vec<Rule>,
}

/// The numbers of the rules that are not phrases, each as the data file documents it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    start: usize,
    repeats_from: usize,
    repeats_distinct: f64,
    opener_words: usize,
    question_words: usize,
    statement_words: usize,
    statement_scripts: usize,
}

/// Phrases of one language that decide for one class.
#[derive(Debug, Clone)]
struct Rule {
    id: String,
    class: Class,
    /// `any`, or a language's primary tag.
    lang: String,
    place: Place,
    /// Only answers of fewer words.
    shorter_than: Option<usize>,
    phrases: Vec<Pattern>,
    /// A phrase does not count where one of these begins in it or later in its sentence: `I can't help but smile` is no
    /// `I can't help`.
    unless: Vec<Pattern>,
}

/// Where a phrase must begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the very first word.
    Opening,
    /// Within so many words.
    Start(usize),
}

impl Rules {
    /// The rules that come with this library: English, Chinese, German, French, Spanish and Arabic.
    ///
    /// # Errors
    /// Never, unless this build's own file is unsound, which its tests rule out.
    pub fn builtin() -> Result<Rules, RulesError> {
        file::builtin()
    }

    /// Classifies a generated answer.
    ///
    /// `lang` is the language of the prompt, `en` or `zh-CN`: its rules come first within each class. Those of the
    /// other languages follow, because models change the language. `facts` are strings of which a right answer holds
    /// one, as whole words (in scripts without spaces: anywhere); facts without letters and digits are passed over.
    pub fn classify(&self, text: &str, lang: Option<&str>, facts: &[String]) -> Verdict {
        let text = Text::of(text);
        let lang = lang.map(|tag| tag.split(['-', '_']).next().unwrap_or(tag).to_ascii_lowercase());
        let phrase = |class| self.phrase(class, &text, lang.as_deref());
        let decided = |class, rule: &str| Some(Verdict { class, rule: Some(rule.to_owned()) });
        let when = |holds: bool, class, rule: &str| if holds { decided(class, rule) } else { None };
        when(text.tokens.is_empty(), Class::Undecided, "any.empty")
            .or_else(|| phrase(Class::Refusal))
            .or_else(|| when(self.repeats(&text), Class::Undecided, "any.repeats"))
            .or_else(|| when(facts.iter().any(|fact| holds(&text, fact)), Class::Answer, "any.fact"))
            .or_else(|| phrase(Class::Evasion))
            .or_else(|| phrase(Class::Answer))
            .or_else(|| when(self.asks_back(&text), Class::Evasion, "any.asks-back"))
            .or_else(|| when(text.has_code, Class::Answer, "any.code"))
            .or_else(|| when(text.has_list, Class::Answer, "any.list"))
            .or_else(|| phrase(Class::Undecided))
            .or_else(|| when(self.states(&text), Class::Answer, "any.statement"))
            .unwrap_or(Verdict { class: Class::Undecided, rule: None })
    }

    /// The first rule of that class that finds its phrase, the language's own before the others.
    fn phrase(&self, class: Class, text: &Text, lang: Option<&str>) -> Option<Verdict> {
        let own = |rule: &&Rule| lang.is_some_and(|lang| rule.lang == lang);
        let of_class = || self.rules.iter().filter(|rule| rule.class == class);
        let in_order = of_class().filter(own).chain(of_class().filter(|rule| !own(rule)));
        let enough = class != Class::Answer || text.words() >= self.limits.opener_words;
        let found = in_order.filter(|_| enough).find(|rule| rule.finds(text))?;
        Some(Verdict { class, rule: Some(found.id.clone()) })
    }

    /// Whether most of the text repeats itself: few of its triples of words are different ones.
    fn repeats(&self, text: &Text) -> bool {
        let words: Vec<&str> = text.tokens.iter().map(|token| token.text.as_str()).collect();
        let triples: Vec<&[&str]> = words.windows(3).collect();
        let distinct: std::collections::HashSet<&[&str]> = triples.iter().copied().collect();
        words.len() >= self.limits.repeats_from
            && (distinct.len() as f64) < self.limits.repeats_distinct * triples.len() as f64
    }

    /// Whether it is a question, or little before one.
    fn asks_back(&self, text: &Text) -> bool {
        let short = text.sentences() == 2 && text.words() <= self.limits.question_words;
        text.asks && (text.sentences() == 1 || short)
    }

    /// Whether it is long enough to say something, in no more scripts than people mix.
    fn states(&self, text: &Text) -> bool {
        text.words() >= self.limits.statement_words && text.scripts() <= self.limits.statement_scripts
    }
}

impl Rule {
    fn finds(&self, text: &Text) -> bool {
        if self.shorter_than.is_some_and(|words| text.words() >= words) {
            return false;
        }
        let tokens = text.spoken();
        let last = match self.place {
            Place::Opening => 1,
            Place::Start(words) => tokens.iter().take_while(|token| token.words_before() < words).count(),
        };
        (0..last.min(tokens.len()))
            .any(|at| self.phrases.iter().any(|phrase| phrase.matches_at(tokens, at)) && !self.excepted(&tokens[at..]))
    }

    /// Whether an exception begins in the rest of a sentence, from a phrase's first token on.
    fn excepted(&self, from: &[Token]) -> bool {
        let length = from.iter().take_while(|token| token.sentence == from[0].sentence).count();
        (0..length).any(|at| self.unless.iter().any(|phrase| phrase.matches_at(from, at)))
    }
}

/// Whether the text holds a fact: its words one after another, sentences aside.
fn holds(text: &Text, fact: &str) -> bool {
    let fact = tokens(fact);
    let same = |words: &[Token]| words.iter().zip(&fact).all(|(a, b)| a.text == b.text);
    !fact.is_empty() && text.tokens.windows(fact.len()).any(same)
}
