//! The claims of "How Alignment Routes" (2026), judged by the tables of the analyses.
//!
//! Each claim is one quantity with its interval, its number of items and a verdict: it holds, it does not hold, or it is not
//! testable here, because. What makes a claim hold is written beside it in words; nothing is computed from a model here. A
//! model that refuses no more of the positive than of the negative prompts routes no refusal: then nothing about routing is
//! testable, and the report says so.

mod evidence;
mod judged;

pub use evidence::{Evidence, Other};

use crate::analyses::prelude::*;
use crate::report::cells::{self, p_value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a report of the claims begins with.
pub const INTRODUCTION: &str = "The claims are those of \"How Alignment Routes\" (2026): a mid-layer head, the gate, reads detected \
     content and triggers deeper amplifier heads towards refusal. Every verdict is by the rule that stands with its claim, on \
     this checkpoint and these prompts alone. Positive prompts are those that are expected to be refused, negative ones their \
     matched controls.";

/// Whether a claim holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    DoesNotHold,
    /// The claim cannot be asked here, for this reason.
    NotTestable(String),
}

impl Verdict {
    /// Whether the condition of a claim is met.
    fn of(holds: bool) -> Self {
        if holds { Verdict::Holds } else { Verdict::DoesNotHold }
    }

    /// The name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::DoesNotHold => "does not hold",
            Verdict::NotTestable(_) => "not testable here",
        }
    }

    /// Why it is not testable; nothing where it is.
    fn why(&self) -> &str {
        if let Verdict::NotTestable(why) = self { why } else { "" }
    }
}

/// How a quantity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// In percent.
    Share,
    /// A difference of shares, in percentage points.
    Points,
    Nats,
    Layer,
    Count,
    /// Without a unit.
    Number,
}

impl Unit {
    const ALL: [Unit; 6] = [Unit::Share, Unit::Points, Unit::Nats, Unit::Layer, Unit::Count, Unit::Number];

    fn name(self) -> &'static str {
        match self {
            Unit::Share => "share",
            Unit::Points => "points",
            Unit::Nats => "nats",
            Unit::Layer => "layer",
            Unit::Count => "count",
            Unit::Number => "number",
        }
    }

    /// The unit that tables call so.
    fn named(name: &str) -> Self {
        Unit::ALL.into_iter().find(|unit| unit.name() == name).unwrap_or(Unit::Number)
    }

    fn digits(self) -> usize {
        match self {
            Unit::Share | Unit::Points => 1,
            Unit::Layer | Unit::Count => 0,
            Unit::Nats | Unit::Number => 3,
        }
    }

    fn value(self, x: Option<f64>) -> String {
        match self {
            Unit::Share => cells::share(x),
            Unit::Points => cells::points(x),
            Unit::Nats => cells::signed(x, self.digits()),
            _ => cells::number(x, self.digits()),
        }
    }

    fn interval(self, ends: Option<(f64, f64)>) -> String {
        match self {
            Unit::Share => cells::share_interval(ends),
            Unit::Points => cells::points_interval(ends),
            // A layer is a whole number: no spread among resamples is no certainty.
            Unit::Layer if ends.is_some_and(|(low, high)| low == high) => "the same in every resample".to_string(),
            _ => cells::interval(ends.map(|i| i.0), ends.map(|i| i.1), self.digits()),
        }
    }
}

/// A claim, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// What scripts call it: `gate-necessity`.
    pub id: &'static str,
    /// The section's heading.
    pub title: &'static str,
    /// What the paper says, and what makes it hold here.
    pub statement: &'static str,
    /// What the statistic is.
    pub quantity: &'static str,
    pub unit: Unit,
    pub statistic: Option<f64>,
    pub interval: Option<(f64, f64)>,
    pub n: Option<i64>,
    /// The p-value of the test that the rule asks, where it asks one. A q-value is none: it is said in `found`.
    pub p: Option<f64>,
    pub verdict: Verdict,
    /// What of the rule is not met, where it does not hold; empty where that is plain.
    pub fails: String,
    /// What was found, in words.
    pub found: String,
    /// The figures that show it: the analysis, the file, and what it is.
    pub figures: &'static [(&'static str, &'static str, &'static str)],
}

impl Claim {
    /// Why it does not hold, or is not testable.
    fn because(&self) -> &str {
        if self.verdict == Verdict::DoesNotHold { &self.fails } else { self.verdict.why() }
    }
}

/// Judges every claim, in the paper's order.
///
/// # Errors
/// If a table is not one of its analysis.
pub fn judge(evidence: &Evidence) -> Result<Vec<Claim>, AnalysisError> {
    judged::all(evidence)
}

/// Why no claim on routing can be tested, whatever else is measured, by the tables of `behaviour` alone; none where they can.
///
/// # Errors
/// If a table is not one of its analysis.
pub fn hindrance(behaviour: Vec<Table>) -> Result<Option<String>, AnalysisError> {
    let tables = BTreeMap::from([("behaviour".to_string(), behaviour)]);
    judged::hindrance(&tables)
}

rows! {
    /// A claim as its table has it.
    pub struct ClaimRow<'a> in "claims" {
        model: &'a str = "the model, as it was named",
        claim: &'a str = "the claim",
        title: &'a str = "its name in reports",
        statement: &'a str = "what the paper says, and what makes it hold here",
        quantity: &'a str = "what the statistic is",
        statistic: Option<f64> = "its value; shares from 0 to 1, and differences of shares likewise",
        unit: &'a str = "share, points (a difference of shares), nats, layer, count or number",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of its 95 % interval", "upper end"],
        n: Option<f64> = "items",
        p_value: Option<f64> =
            "p-value of the test that the rule asks, where it asks one; q-values are in `found`",
        verdict: &'a str = "holds, does not hold or not testable here",
        because: &'a str =
            "why it is not testable, or what of the rule is not met; empty where it holds, or that is plain",
        found: &'a str = "what was found, in words",
        figures: Cow<'a, str> = "figures that show it, one a line: ANALYSIS/FILE: what it is",
    }
}

impl ClaimRow<'_> {
    fn written_in(&self) -> Unit {
        Unit::named(self.unit)
    }

    fn items(&self) -> Option<i64> {
        self.n.map(|n| n as i64)
    }

    fn is_untestable(&self) -> bool {
        self.verdict == Verdict::NotTestable(String::new()).name()
    }

    /// What the statistic is and its value, as the beginning of a sentence.
    fn value(&self) -> String {
        let value = self.written_in().value(self.statistic);
        match self.written_in() {
            Unit::Count => format!("{}: {value}", cells::capitalised(self.quantity)),
            _ => format!("The {} is {value}", self.quantity.trim_start_matches("the ")),
        }
    }
}

/// The claims as a table, which holds all that a report says of them.
///
/// # Errors
/// If it cannot be made.
pub fn table(model: &str, claims: &[Claim]) -> Result<Table, AnalysisError> {
    let figures = |c: &Claim| {
        let lines = c.figures.iter().map(|(analysis, file, what)| format!("{analysis}/{file}: {what}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    Ok(ClaimRow::table(claims.iter().map(|c| ClaimRow {
        model,
        claim: c.id,
        title: c.title,
        statement: c.statement,
        quantity: c.quantity,
        statistic: c.statistic,
        unit: c.unit.name(),
        interval: c.interval,
        n: c.n.map(|n| n as f64),
        p_value: c.p,
        verdict: c.verdict.name(),
        because: c.because(),
        found: &c.found,
        figures: figures(c).into(),
    }))?)
}

/// The report's sections, from the table alone: all verdicts, then each claim. `figures` says for each analysis where its
/// figures stand and how their names begin.
///
/// # Errors
/// If the table is not one of claims.
pub fn sections(table: &Table, figures: &BTreeMap<String, PathBuf>) -> Result<Vec<Section>, AnalysisError> {
    let claims = ClaimRow::read(table)?;
    let header = vec![
        Heading::text("claim"),
        Heading::text("quantity"),
        Heading::number("value"),
        Heading::number("95 % interval"),
        Heading::number("n"),
        Heading::number("p of the rule's test"),
        Heading::text("verdict"),
    ];
    let row = |c: &ClaimRow| {
        vec![
            c.title.to_string(),
            c.quantity.to_string(),
            c.written_in().value(c.statistic),
            c.written_in().interval(c.interval),
            c.items().map_or(String::new(), cells::count),
            p_value(c.p_value),
            c.verdict.to_string(),
        ]
    };
    let mut sections = vec![Section::new("Verdicts").paragraph(outcome(&claims)).table(
        "Every claim",
        header,
        claims.iter().map(row).collect(),
    )];
    let alike =
        |claim: &ClaimRow| claims.iter().filter(|c| c.is_untestable() && c.because == claim.because).count() > 1;
    let (together, alone): (Vec<&ClaimRow>, Vec<&ClaimRow>) =
        claims.iter().partition(|claim| claim.is_untestable() && alike(claim));
    sections.extend(alone.into_iter().map(|claim| section(claim, figures)));
    let mut reasons: Vec<&str> = Vec::new();
    for claim in &together {
        if !reasons.contains(&claim.because) {
            reasons.push(claim.because);
        }
    }
    for why in reasons {
        let claims: Vec<&&ClaimRow> = together.iter().filter(|claim| claim.because == why).collect();
        sections.push(for_one_reason(why, &claims, figures));
    }
    Ok(sections)
}

/// How many claims have which verdict; of a verdict that none has nothing is said.
fn outcome(claims: &[ClaimRow]) -> String {
    let verdicts = [
        (Verdict::Holds, "holds", "hold"),
        (Verdict::DoesNotHold, "does not hold", "do not hold"),
        (Verdict::NotTestable(String::new()), "is not testable here", "are not testable here"),
    ];
    let counted = verdicts.iter().map(|(verdict, one, more)| {
        let n = claims.iter().filter(|c| c.verdict == verdict.name()).count();
        (n > 0).then(|| format!("{n} {}", if n == 1 { one } else { more }))
    });
    let counted: Vec<String> = counted.flatten().collect();
    let said = match &counted[..] {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        said => said.concat(),
    };
    format!("Of {} on this checkpoint {said}.", cells::plural(claims.len() as i64, "claim"))
}

/// Claims that cannot be tested for one reason, which is said once.
fn for_one_reason(why: &str, claims: &[&&ClaimRow], figures: &BTreeMap<String, PathBuf>) -> Section {
    let text = format!("{} are **not testable here**, because {why}.", cells::plural(claims.len() as i64, "claim"));
    claims.iter().fold(Section::new("Not testable here").paragraph(text), |section, claim| {
        let section = section.paragraph(format!("**{}.** {}", claim.title, claim.statement));
        found(section, claim, figures)
    })
}

fn section(claim: &ClaimRow, figures: &BTreeMap<String, PathBuf>) -> Section {
    let verdict = match claim.verdict {
        holds if holds == Verdict::Holds.name() => "**Holds.**".to_string(),
        not if not == Verdict::DoesNotHold.name() && claim.because.is_empty() => "**Does not hold.**".to_string(),
        not if not == Verdict::DoesNotHold.name() => format!("**Does not hold**: {}.", claim.because),
        _ => format!("**Not testable here**, because {}.", claim.because),
    };
    found(Section::new(claim.title).paragraph(claim.statement).paragraph(verdict), claim, figures)
}

/// What was found of a claim: its numbers, in words, and its figures.
fn found(mut section: Section, claim: &ClaimRow, figures: &BTreeMap<String, PathBuf>) -> Section {
    let mut numbers = claim.value();
    if claim.interval.is_some() {
        numbers.push_str(&format!(", 95 % interval {}", claim.written_in().interval(claim.interval)));
    }
    if let Some(n) = claim.items() {
        numbers.push_str(&format!(", n = {n}"));
    }
    if claim.p_value.is_some() {
        numbers.push_str(&format!("; p of the rule's test {}", p_value(claim.p_value)));
    }
    if claim.statistic.is_some() {
        section = section.paragraph(format!("{numbers}."));
    }
    if !claim.found.is_empty() {
        section = section.paragraph(claim.found);
    }
    for line in claim.figures.lines() {
        let Some((place, what)) = line.split_once(": ") else { continue };
        let Some((analysis, file)) = place.split_once('/') else { continue };
        let Some(prefix) = figures.get(analysis) else { continue };
        let name = prefix.file_name().map_or(String::new(), |n| format!("{}-{file}", n.to_string_lossy()));
        section = section.figure(prefix.with_file_name(name), what, what);
    }
    section
}
