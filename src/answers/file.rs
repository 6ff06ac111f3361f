//! Reads rules from their data file and checks them; every error names the file, the rule and the field.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use thiserror::Error;

use super::pattern::Pattern;
use super::{Class, Limits, Place, Rule, Rules};
use crate::dataset::warn_once;
use crate::names::{meant, nearest, suggestion};

const BUILTIN: &str = include_str!("../../datasets/answers.toml");

/// What messages call it.
const NAME: &str = "datasets/answers.toml";

/// Why a file of rules cannot be used. The one that this library was built with can: who changes it sees it in the tests.
#[derive(Debug, Error)]
#[error("{file}: {place}: {reason}")]
pub struct RulesError {
    file: String,
    /// The line, the section or the rule, with the field.
    place: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    limits: Option<Limits>,
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
    parse(NAME, BUILTIN, false)
}

/// Rules of a text; `own` says whether it may have classes of its own, and do without limits.
pub(super) fn parse(file: &str, text: &str, own: bool) -> Result<Rules, RulesError> {
    let error = |place: String, reason: String| RulesError { file: file.to_owned(), place, reason };
    let raw: RawFile = toml::from_str(text).map_err(|e| {
        let before = e.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count();
        error(format!("line {line}"), e.message().to_owned())
    })?;
    let limits = match raw.limits {
        Some(limits) => limits,
        None if own => builtin()?.limits,
        None => return Err(error("[limits]".to_owned(), "is missing".to_owned())),
    };
    check(&limits).map_err(|(place, reason)| error(place, reason))?;
    if own && raw.rule.is_empty() {
        return Err(error("[[rule]]".to_owned(), "there is none; write one rule for each class at least".to_owned()));
    }
    let (mut ids, mut rules, mut classes) = (HashSet::new(), Vec::with_capacity(raw.rule.len()), Vec::new());
    for (at, raw_rule) in raw.rule.iter().enumerate() {
        let id = raw_rule.id.trim();
        let name = if id.is_empty() { (at + 1).to_string() } else { id.to_owned() };
        let wrong = |(field, reason): Wrong| error(format!("rule \"{name}\": {field}"), reason);
        if id.is_empty() || !ids.insert(id) {
            return Err(wrong(("id", "must be there once in the file, and not be empty".to_owned())));
        }
        let rule = rule(raw_rule, &limits, own).map_err(wrong)?;
        if !classes.contains(&rule.class) {
            classes.push(rule.class);
            likely_meant(file, &name, rule.class);
        }
        rules.push(rule);
    }
    Ok(Rules { limits, rules, classes })
}

/// Warns of a class of one's own that is nearly called as one of the library's.
fn likely_meant(file: &str, rule: &str, class: Class) {
    let Class::Own(name) = class else { return };
    if let Some(known) = meant(name, Class::ALL.map(Class::name)) {
        warn_once(&[format!(
            "{file}: rule \"{rule}\": class `{name}` is taken for a class of its own; if `{known}` was meant, write that"
        )]);
    }
}

/// A class of one's own, whose name lives as long as the program: files have few, and the same again and again.
fn own_class(name: &str) -> Class {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = names.get(name).copied();
    let name = known.unwrap_or_else(|| Box::leak(name.to_owned().into_boxed_str()));
    names.insert(name);
    Class::Own(name)
}

/// The longest name of a class.
const LONGEST: usize = 40;

/// The class of that name.
fn class(name: &str, own: bool) -> Result<Class, Wrong> {
    if name == Class::Broken.name() {
        return Err((
            "class",
            "`broken` is for loops and scraps, which no phrase decides; choose another name".to_owned(),
        ));
    }
    let known = Class::ALL.into_iter().find(|class| class.name() == name);
    let sound = name.len() <= LONGEST
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
    match known {
        Some(known) => Ok(known),
        None if own && sound => Ok(own_class(name)),
        None if own => Err((
            "class",
            format!("`{name}` is no name of a class: write up to {LONGEST} of a-z, 0-9, - and _, a letter first"),
        )),
        None => {
            let known = Class::ALL.map(Class::name);
            let hint = suggestion(&nearest(name, known));
            Err(("class", format!("`{name}` is none of {}{hint}", known.join(", "))))
        }
    }
}

fn check(limits: &Limits) -> Result<(), (String, String)> {
    let positive = "must be 1 or more";
    let checks = [
        ("start", limits.start > 0, positive),
        ("repeats_from", limits.repeats_from >= 3, "must be 3 or more: words are compared by threes"),
        ("repeats_distinct", (0.0..=1.0).contains(&limits.repeats_distinct), "is a share, from 0 to 1"),
        ("statement_words", limits.statement_words > 0, positive),
        ("statement_scripts", limits.statement_scripts > 0, positive),
    ];
    match checks.into_iter().find(|(_, sound, _)| !sound) {
        Some((field, _, reason)) => Err((format!("[limits]: {field}"), reason.to_owned())),
        None => Ok(()),
    }
}

type Wrong = (&'static str, String);

fn rule(raw: &RawRule, limits: &Limits, own: bool) -> Result<Rule, Wrong> {
    let class = class(&raw.class, own)?;
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
