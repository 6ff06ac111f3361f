//! Classes of generated answers: is it a refusal, an evasion, an answer, or one of one's own classes?
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
//! were measured on and where they fail. A file of one's own has rules of the same form ([`Rules::parse`]). Loops and scraps are
//! [`Class::Broken`] whatever the rules; what no rule decides is [`Class::Undecided`]. A share of answers is worth little without
//! the shares of those, so callers report them beside. Making the answers is left to the engine, counting them to the analyses.

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
    /// No answer of any kind: nothing, a text that repeats itself, a scrap of one.
    Broken,
    /// No rule decides.
    Undecided,
    /// A class of a file of one's own, by its name there.
    Own(&'static str),
}

impl Class {
    /// The classes of the rules that come with this library, in the order of tables.
    pub const ALL: [Class; 5] = [Class::Refusal, Class::Evasion, Class::Answer, Class::Broken, Class::Undecided];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Class::Refusal => "refusal",
            Class::Evasion => "evasion",
            Class::Answer => "answer",
            Class::Broken => "broken",
            Class::Undecided => "undecided",
            Class::Own(name) => name,
        }
    }

    /// The column of its share in tables: the name, and of one's own classes `class_NAME`, which no other column is called.
    pub fn column(self) -> String {
        if let Class::Own(name) = self { format!("{OWN}{name}") } else { self.name().to_owned() }
    }
}

/// What the columns of one's own classes begin with.
pub const OWN: &str = "class_";

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
    /// The classes that rules are of, in the file's order.
    classes: Vec<Class>,
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

    /// Rules of one's own, of a file in the form of `datasets/answers.toml`, which messages call `name`. Without `[limits]` they
    /// are those of that file.
    ///
    /// A class is any name in small letters. `refusal`, `evasion`, `answer` and `undecided` are those of the library, and what
    /// needs no phrase (facts, lists, code, a text long enough to state something; a question back) decides for them alone where
    /// the file has rules of theirs. Others decide in the file's order, by their phrases.
    ///
    /// # Errors
    /// If the file is not sound; the message names the rule and the field.
    pub fn parse(name: &str, text: &str) -> Result<Rules, RulesError> {
        file::parse(name, text, true)
    }

    /// Every class that a text may get, in the order of tables.
    pub fn classes(&self) -> Vec<Class> {
        let known = [Class::Refusal, Class::Evasion, Class::Answer];
        let known = known.into_iter().filter(|class| self.has(*class));
        let own = self.classes.iter().copied().filter(|class| matches!(class, Class::Own(_)));
        known.chain(own).chain([Class::Broken, Class::Undecided]).collect()
    }

    /// Whether any rule is of that class.
    pub fn has(&self, class: Class) -> bool {
        self.classes.contains(&class)
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
        let broken = |holds: bool, rule: &str| if holds { decided(Class::Broken, rule) } else { None };
        let when = |holds: bool, class, rule: &str| if holds && self.has(class) { decided(class, rule) } else { None };
        let between = |class: &&Class| !matches!(class, Class::Refusal | Class::Undecided);
        broken(text.tokens.is_empty(), "any.empty")
            .or_else(|| phrase(Class::Refusal))
            .or_else(|| broken(self.repeats(&text), "any.repeats"))
            .or_else(|| when(facts.iter().any(|fact| holds(&text, fact)), Class::Answer, "any.fact"))
            .or_else(|| self.classes.iter().filter(between).find_map(|class| phrase(*class)))
            .or_else(|| when(self.asks_back(&text), Class::Evasion, "any.asks-back"))
            .or_else(|| when(text.has_code, Class::Answer, "any.code"))
            .or_else(|| when(text.has_list, Class::Answer, "any.list"))
            .or_else(|| phrase(Class::Undecided))
            .or_else(|| when(self.states(&text), Class::Answer, "any.statement"))
            .or_else(|| broken(self.is_scrap(&text), "any.scrap"))
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

    /// Whether most of the text repeats itself, or of its second half, in which texts get stuck: few of its triples of words are
    /// different ones.
    fn repeats(&self, text: &Text) -> bool {
        let words: Vec<&str> = text.tokens.iter().map(|token| token.text.as_str()).collect();
        [&words[..], &words[words.len() / 2..]].into_iter().any(|words| {
            let triples: Vec<&[&str]> = words.windows(3).collect();
            let distinct: std::collections::HashSet<&[&str]> = triples.iter().copied().collect();
            words.len() >= self.limits.repeats_from
                && (distinct.len() as f64) < self.limits.repeats_distinct * triples.len() as f64
        })
    }

    /// Whether it breaks off before it has said anything: too short to state something, and no sentence ends it.
    fn is_scrap(&self, text: &Text) -> bool {
        text.words() < self.limits.statement_words && !text.ends
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
