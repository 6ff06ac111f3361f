//! Reads rules from their data file and checks them; every error names the file, the rule and the field.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;
use thiserror::Error;

use super::pattern::Pattern;
use super::{Class, Limits, Place, Rule, Rules};
use crate::names::{nearest, suggestion};

const BUILTIN: &str = include_str!("../../datasets/answers.toml");
const BUILTIN_NAME: &str = "datasets/answers.toml";

/// Why rules cannot be used.
#[derive(Debug, Error)]
pub enum RulesError {
    /// The file is missing or may not be read.
    #[error("{file}: cannot be read: {source}; check the path and its permissions")]
    Read {
        /// The file.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not TOML, or lacks a field, or has one that rules do not have.
    #[error("{file}: line {line}: {reason}")]
    Form {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The reader's reason.
        reason: String,
    },
    /// A number of `[limits]` makes no sense.
    #[error("{file}: [limits]: {field}: {reason}")]
    Limit {
        /// The file.
        file: String,
        /// The field.
        field: &'static str,
        /// What it must be.
        reason: &'static str,
    },
    /// A rule is not sound.
    #[error("{file}: rule \"{rule}\": {field}: {reason}")]
    Rule {
        /// The file.
        file: String,
        /// The rule's id, or its number from 1 where it has none.
        rule: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    limits: Limits,
    #[serde(default)]
    rule: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    id: String,
    class: String,
    lang: String,
    at: String,
    within: Option<usize>,
    shorter_than: Option<usize>,
    phrases: Vec<String>,
    #[serde(default)]
    unless: Vec<String>,
}

pub(super) fn builtin() -> Result<Rules, RulesError> {
    parse(BUILTIN_NAME, BUILTIN)
}

pub(super) fn read(path: &Path) -> Result<Rules, RulesError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| RulesError::Read { file: file.clone(), source })?;
    parse(&file, &text)
}

pub(super) fn parse(file: &str, text: &str) -> Result<Rules, RulesError> {
    let raw: RawFile = toml::from_str(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count();
        RulesError::Form { file: file.to_owned(), line, reason: error.message().to_owned() }
    })?;
    check(file, &raw.limits)?;
    let mut ids = HashSet::new();
    let mut rules = Vec::with_capacity(raw.rule.len());
    for (at, raw_rule) in raw.rule.iter().enumerate() {
        let id = raw_rule.id.trim();
        let name = if id.is_empty() { (at + 1).to_string() } else { id.to_owned() };
        let wrong = |(field, reason): (&'static str, String)| {
            let (file, rule) = (file.to_owned(), name.clone());
            RulesError::Rule { file, rule, field, reason }
        };
        if id.is_empty() || !ids.insert(id) {
            return Err(wrong(("id", "must be there once in the file, and not be empty".to_owned())));
        }
        rules.push(rule(raw_rule, &raw.limits).map_err(wrong)?);
    }
    Ok(Rules { limits: raw.limits, rules })
}

fn check(file: &str, limits: &Limits) -> Result<(), RulesError> {
    let positive = "must be 1 or more";
    let checks = [
        ("start", limits.start > 0, positive),
        ("repeats_from", limits.repeats_from >= 3, "must be 3 or more: words are compared by threes"),
        ("repeats_distinct", (0.0..=1.0).contains(&limits.repeats_distinct), "is a share, from 0 to 1"),
        ("statement_words", limits.statement_words > 0, positive),
        ("statement_scripts", limits.statement_scripts > 0, positive),
    ];
    match checks.into_iter().find(|(_, sound, _)| !sound) {
        Some((field, _, reason)) => Err(RulesError::Limit { file: file.to_owned(), field, reason }),
        None => Ok(()),
    }
}

type Wrong = (&'static str, String);

fn rule(raw: &RawRule, limits: &Limits) -> Result<Rule, Wrong> {
    let known = Class::ALL.map(Class::name);
    let class = Class::ALL.into_iter().find(|class| class.name() == raw.class).ok_or_else(|| {
        let hint = suggestion(&nearest(&raw.class, known));
        ("class", format!("`{}` is none of {}{hint}", raw.class, known.join(", ")))
    })?;
    let tag = raw.lang.len() >= 2 && raw.lang.bytes().all(|letter| letter.is_ascii_lowercase());
    if !tag {
        return Err(("lang", format!("`{}` is neither `any` nor a language's tag, as `en`", raw.lang)));
    }
    if raw.within.is_some() && raw.at != "start" {
        return Err(("within", "is for rules with at = \"start\"".to_owned()));
    }
    let place = match raw.at.as_str() {
        "opening" => Place::Opening,
        "start" => Place::Start(raw.within.unwrap_or(limits.start)),
        "anywhere" => Place::Anywhere,
        other => return Err(("at", format!("`{other}` is none of opening, start, anywhere"))),
    };
    for (field, words) in [("within", raw.within), ("shorter_than", raw.shorter_than)] {
        if words == Some(0) {
            return Err((field, "is a number of words, 1 or more".to_owned()));
        }
    }
    if raw.phrases.is_empty() {
        return Err(("phrases", "is empty; the rule could never decide".to_owned()));
    }
    Ok(Rule {
        id: raw.id.trim().to_owned(),
        class,
        lang: raw.lang.clone(),
        place,
        shorter_than: raw.shorter_than,
        phrases: patterns("phrases", &raw.phrases)?,
        unless: patterns("unless", &raw.unless)?,
    })
}

fn patterns(field: &'static str, phrases: &[String]) -> Result<Vec<Pattern>, Wrong> {
    let pattern = |phrase: &String| Pattern::parse(phrase).map_err(|why| (field, format!("\"{phrase}\": {why}")));
    phrases.iter().map(pattern).collect()
}
