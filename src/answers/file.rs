//! Reads the rules from their data file and checks them; every error names the rule and the field.

use std::collections::HashSet;

use serde::Deserialize;
use thiserror::Error;

use super::pattern::Pattern;
use super::{Class, Limits, Place, Rule, Rules};
use crate::names::{nearest, suggestion};

const BUILTIN: &str = include_str!("../../datasets/answers.toml");

/// Why the rules that this library was built with cannot be used: who changes the file sees it in the tests.
#[derive(Debug, Error)]
#[error("datasets/answers.toml: {place}: {reason}")]
pub struct RulesError {
    /// The line, the section or the rule, with the field.
    place: String,
    reason: String,
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
    parse(BUILTIN)
}

pub(super) fn parse(text: &str) -> Result<Rules, RulesError> {
    let raw: RawFile = toml::from_str(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count();
        RulesError { place: format!("line {line}"), reason: error.message().to_owned() }
    })?;
    check(&raw.limits)?;
    let mut ids = HashSet::new();
    let mut rules = Vec::with_capacity(raw.rule.len());
    for (at, raw_rule) in raw.rule.iter().enumerate() {
        let id = raw_rule.id.trim();
        let name = if id.is_empty() { (at + 1).to_string() } else { id.to_owned() };
        let wrong = |(field, reason): Wrong| RulesError { place: format!("rule \"{name}\": {field}"), reason };
        if id.is_empty() || !ids.insert(id) {
            return Err(wrong(("id", "must be there once in the file, and not be empty".to_owned())));
        }
        rules.push(rule(raw_rule, &raw.limits).map_err(wrong)?);
    }
    Ok(Rules { limits: raw.limits, rules })
}

fn check(limits: &Limits) -> Result<(), RulesError> {
    let positive = "must be 1 or more";
    let checks = [
        ("start", limits.start > 0, positive),
        ("repeats_from", limits.repeats_from >= 3, "must be 3 or more: words are compared by threes"),
        ("repeats_distinct", (0.0..=1.0).contains(&limits.repeats_distinct), "is a share, from 0 to 1"),
        ("statement_words", limits.statement_words > 0, positive),
        ("statement_scripts", limits.statement_scripts > 0, positive),
    ];
    match checks.into_iter().find(|(_, sound, _)| !sound) {
        Some((field, _, reason)) => Err(RulesError { place: format!("[limits]: {field}"), reason: reason.to_owned() }),
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
        other => return Err(("at", format!("`{other}` is neither opening nor start"))),
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
