//! Where heads look part by part: a prompt's positions are its spans, the first token where it is in none, and the rest.
//!
//! Prompts of one task name the same things at different places. Their spans let weights, and what is read by them, be told apart by
//! thing and be averaged over prompts. Parts share no position and leave none out, so that what a head gives to them sums to what it
//! gives to a prompt. Of what is attributed to an answer this is exact too, since a head's output is a sum over what it reads.

use super::{Kept, Score};
use crate::analyses::halves::LEAST;
use crate::analyses::heads::Head;
use crate::analyses::inputs::{REST, Spanned, disjoint, named_twice, rest};
use crate::analyses::prelude::*;
use crate::figure::Heatmap;
use crate::names::short_name;
use crate::report::cells::{self, number, p_value, plural, signed};
use crate::stats::{bca_family, benjamini_hochberg_present, beyond_zero, draws_for, sign_flip};
use std::collections::BTreeMap;

/// What looks where nothing else is asked for.
const LAST: &str = "last";
/// The first token, where it is in no span.
const FIRST: &str = "first";
/// All positions: what the parts sum to.
const WHOLE: &str = "all";

/// Which parts of prompts are told apart, and from where.
pub struct Parts {
    /// What looks: the last position, or spans.
    queries: Vec<Spanned>,
    /// What is looked at: the first token, spans, the rest. No two share a position.
    sources: Vec<Spanned>,
}

/// What a head gives to one part of a prompt, or what several do together.
#[derive(Clone, Copy, Default)]
pub struct Given {
    /// How many positions of it the query sees.
    positions: usize,
    /// Attention weight; the mean over the query's positions.
    weight: f64,
    /// Weights times sizes of what is moved; the mean over the query's positions.
    moved: f64,
    /// Attribution of what is read there to the logit difference, nats; none unless the query is a prompt's last position.
    attribution: Option<f64>,
}

/// What is given to each part and then to all positions, `[queries][sources + 1]`; none where a prompt has no query or no part that
/// the query sees.
pub type ToParts = Vec<Vec<Option<Given>>>;

/// What heads give to the parts of one prompt.
#[derive(Default)]
pub struct OfPrompt {
    /// Of the chosen heads, by their number.
    chosen: BTreeMap<usize, ToParts>,
    /// Of all heads, added up.
    sums: ToParts,
    heads: usize,
}

impl OfPrompt {
    /// Takes one more head in, with its number if it is a chosen one.
    pub fn add(&mut self, chosen: Option<usize>, given: ToParts) {
        self.heads += 1;
        if self.sums.is_empty() {
            self.sums = given.clone();
        } else {
            let sums = self.sums.iter_mut().flatten().zip(given.iter().flatten());
            sums.for_each(|(sum, given)| {
                sum.iter_mut().zip(given).for_each(|(sum, given)| sum.add(given));
            });
        }
        self.chosen.extend(chosen.map(|h| (h, given)));
    }

    /// What a chosen head gives to a part; without a head what all give, weights and sizes as means over them.
    fn given(&self, head: Option<usize>, query: usize, source: usize) -> Option<Given> {
        let of = head.map_or(Some(&self.sums), |h| self.chosen.get(&h));
        let given = (*of?.get(query)?.get(source)?)?;
        let heads = if head.is_none() { self.heads.max(1) as f64 } else { 1.0 };
        Some(Given { weight: given.weight / heads, moved: given.moved / heads, ..given })
    }
}

impl Given {
    fn add(&mut self, other: &Given) {
        self.weight += other.weight;
        self.moved += other.moved;
        self.attribution = self.attribution.zip(other.attribution).map(|(a, b)| a + b);
    }
}

impl Parts {
    /// The parts of prompts by their spans, seen from spans of these names or, where none is given, from the last position.
    ///
    /// # Errors
    /// If no prompt has spans, a span has a position that its prompt has not or the name of another part, or a query is no span or
    /// stands twice.
    pub fn of(prompts: &Prompts, queries: &[String]) -> Result<Parts, AnalysisError> {
        let spans = prompts.spans()?;
        let path = prompts.dataset.path.display();
        if let Some(name) = spans.iter().map(|span| &span.name).find(|name| [FIRST, REST].contains(&name.as_str())) {
            let why = format!("a span is called `{name}`, as another part of every prompt is: call it otherwise");
            return Err(AnalysisError::Bad(format!("{path}: {why}")));
        }
        if let Some(name) = named_twice(queries) {
            return Err(AnalysisError::Bad(format!("{}: names {name} twice", param("query"))));
        }
        let last = [LAST.to_string()];
        let names = if queries.is_empty() { &last } else { queries };
        let queries = names.iter().map(|name| query(prompts, &spans, name)).collect::<Result<_, _>>()?;
        let first = |i| (i, Positions::At(vec![0]));
        let mut sources = vec![Spanned { name: FIRST.to_string(), of: (0..prompts.ids.len()).map(first).collect() }];
        sources.extend(spans);
        disjoint(&mut sources);
        sources.extend(rest(&sources, prompts.ids.iter().map(Vec::len)));
        Ok(Parts { queries, sources })
    }

    /// What a head gives to each part of a prompt of so many tokens.
    pub fn given(&self, prompt: usize, n: usize, seen: &Kept) -> ToParts {
        let all: Vec<usize> = (0..n).collect();
        let sources = || self.sources.iter().map(|source| source.at(prompt)).chain([Some(&all[..])]);
        let from = |query: &[usize]| sources().map(|source| seen.given(n, query, source?)).collect();
        self.queries.iter().map(|query| query.at(prompt).map_or(vec![None; self.sources.len() + 1], from)).collect()
    }

    /// The table of what heads give to the parts, in the order of queries, heads and parts; what all heads do comes after the chosen ones.
    ///
    /// # Errors
    /// If the table cannot be made.
    pub fn table(&self, about: &About, heads: &[Head], found: &[OfPrompt]) -> Result<Table, AnalysisError> {
        let rows = (0..self.queries.len()).flat_map(|query| self.rows(about, query, heads, found));
        Ok(SpanRow::table(rows)?)
    }

    /// The rows of one query, whose attributions are one family of tests.
    fn rows<'a>(&'a self, about: &About<'a>, query: usize, heads: &[Head], found: &[OfPrompt]) -> Vec<SpanRow<'a>> {
        let samples: Vec<Sample> = (0..heads.len())
            .map(Some)
            .chain([None])
            .flat_map(|head| (0..=self.sources.len()).map(move |source| Sample::of(found, head, query, source)))
            .filter(|sample| !sample.weights.is_empty())
            .collect();
        let tests = draws_for(samples.len());
        let p: Vec<Option<f64>> = samples.iter().map(|s| sign_flip(&s.attributions, tests, about.seed)).collect();
        let q = benjamini_hochberg_present(&p);
        let weights = scores(samples.iter().map(|s| &s.weights), about.seed);
        let moved = scores(samples.iter().map(|s| &s.moved), about.seed);
        let attributions = scores(samples.iter().map(|s| &s.attributions), about.seed);
        let row = |(i, sample): (usize, &Sample)| {
            let head = sample.head.map(|h| heads[h]);
            SpanRow {
                model: about.model,
                query: &self.queries[query].name,
                layer: head.map_or(-1, |head| head.layer as i64),
                head: head.map_or(-1, |head| head.head as i64),
                source: self.sources.get(sample.source).map_or(WHOLE, |source| &source.name),
                n: sample.weights.len() as i64,
                tokens: mean(&sample.positions),
                weight: weights[i],
                weighted_norm: moved[i],
                attribution: attributions[i],
                p_value: p[i],
                q_value: q[i],
            }
        };
        samples.iter().enumerate().map(row).collect()
    }
}

/// The positions of a query by its name.
fn query(prompts: &Prompts, spans: &[Spanned], name: &str) -> Result<Spanned, AnalysisError> {
    if name == LAST {
        let last = |(i, ids): (usize, &Vec<u32>)| (i, Positions::At(vec![ids.len() - 1]));
        return Ok(Spanned { name: name.to_string(), of: prompts.ids.iter().enumerate().map(last).collect() });
    }
    let found = spans.iter().find(|span| span.name == name);
    let found = found.map(|span| Spanned { name: name.to_string(), of: span.of.clone() });
    found.ok_or_else(|| {
        let names = spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>().join(", ");
        let path = prompts.dataset.path.display();
        AnalysisError::Bad(format!("{}: {path} has no span `{name}`; there are {LAST}, {names}", param("query")))
    })
}

impl Kept {
    /// What is given from some positions of a prompt of `n` tokens to others; none where they see none of those.
    fn given(&self, n: usize, query: &[usize], source: &[usize]) -> Option<Given> {
        let latest = query.iter().max()?;
        let seen: Vec<usize> = source.iter().copied().filter(|key| key <= latest).collect();
        let over = |of: &dyn Fn(usize) -> f64| seen.iter().map(|key| of(*key)).sum::<f64>();
        let weight = |t: usize, key: usize| self.pattern.get(t * n + key).map_or(0.0, |weight| f64::from(*weight));
        let size = |key: usize| self.norms.get(key).copied().unwrap_or(0.0);
        let from = |of: &dyn Fn(usize) -> f64| query.iter().map(|t| of(*t)).sum::<f64>() / query.len() as f64;
        let at_end = query.iter().all(|t| t + 1 == n);
        let sources = self.sources.as_ref().filter(|_| at_end);
        (!seen.is_empty()).then(|| Given {
            positions: seen.len(),
            weight: from(&|t| over(&|key| weight(t, key))),
            moved: from(&|t| over(&|key| weight(t, key) * size(key))),
            attribution: sources.map(|sources| over(&|key| sources.get(key).copied().unwrap_or(0.0))),
        })
    }
}

/// What a head, or all, give to a part over the prompts that have it.
struct Sample {
    /// The number of a chosen head; none of all heads.
    head: Option<usize>,
    source: usize,
    positions: Vec<f64>,
    weights: Vec<f64>,
    moved: Vec<f64>,
    /// Empty unless every prompt has one.
    attributions: Vec<f64>,
}

impl Sample {
    fn of(found: &[OfPrompt], head: Option<usize>, query: usize, source: usize) -> Sample {
        let given: Vec<Given> = found.iter().filter_map(|prompt| prompt.given(head, query, source)).collect();
        let attributions: Option<Vec<f64>> = given.iter().map(|given| given.attribution).collect();
        Sample {
            head,
            source,
            positions: given.iter().map(|given| given.positions as f64).collect(),
            weights: given.iter().map(|given| given.weight).collect(),
            moved: given.iter().map(|given| given.moved).collect(),
            attributions: attributions.unwrap_or_default(),
        }
    }
}

/// Means with their intervals.
fn scores<'a>(samples: impl Iterator<Item = &'a Vec<f64>>, seed: u64) -> Vec<Score> {
    let samples: Vec<&Vec<f64>> = samples.collect();
    let intervals = bca_family(&samples, &Bootstrap { seed, ..Bootstrap::default() });
    let score = |(sample, interval): (&&Vec<f64>, Option<Interval>)| Score {
        value: mean(sample),
        interval: interval.map(Interval::ends),
    };
    samples.iter().zip(intervals).map(score).collect()
}

rows! {
    /// What a head gives to one part of prompts, over the prompts that have it.
    pub struct SpanRow<'a> in "spans" {
        model: &'a str = "the model, as it was named",
        query: &'a str = "what looks: last (a prompt's last position), or a span",
        layer: i64 = "layer, from 0; -1: all heads of the model",
        head: i64 = "head, from 0; -1: all heads of the model",
        source: &'a str =
            "what is looked at: a span; first (the first token, where it is in no span); rest (all other positions); all (the whole, \
             to which these sum in each prompt). A position in several spans is the last one's",
        n: i64 = "prompts that have query and source, the source not wholly after the query",
        tokens: Option<f64> = "mean number of the source's positions that the query sees",
        weight: Score as "weight" =
            "attention weight from the query to the source, of several positions of the query their mean; of all heads the mean over \
             them",
        weighted_norm: Score as "weighted_norm" =
            "the same of weights times the size of what the head moves from each position, its value through the output projection",
        attribution: Score as "attribution" =
            "what the head adds to the logit difference of what it reads there, nats; of all heads the sum over them; empty unless \
             the query is the last position and prompts have an answer and a foil",
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean attribution",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over all rows of the query",
    }
}

impl SpanRow<'_> {
    fn is_of_all_heads(&self) -> bool {
        self.layer < 0
    }

    /// What reports call the head, or all heads.
    fn of(&self) -> String {
        if self.is_of_all_heads() { "all heads".to_string() } else { cells::head(self.layer, self.head) }
    }
}

/// How many chosen heads figures and report show; the table has all.
const HEADS: usize = 24;

/// The rows of one query.
struct Query<'r, 'a> {
    name: &'r str,
    /// Each head's rows, those of all heads together at the end.
    heads: Vec<&'r [SpanRow<'a>]>,
}

impl<'r, 'a> Query<'r, 'a> {
    fn all(rows: &'r [SpanRow<'a>]) -> Vec<Query<'r, 'a>> {
        let of = |rows: &'r [SpanRow<'a>]| {
            let by_head = || rows.chunk_by(|a, b| (a.layer, a.head) == (b.layer, b.head));
            let (chosen, together): (Vec<_>, Vec<_>) = by_head().partition(|rows| !rows[0].is_of_all_heads());
            let heads = chosen.into_iter().take(HEADS).chain(together).collect();
            Query { name: rows[0].query, heads }
        };
        rows.chunk_by(|a, b| a.query == b.query).map(of).collect()
    }

    /// What it is called in sentences.
    fn looks(&self) -> &'r str {
        if self.name == LAST { "the last position" } else { self.name }
    }

    fn file(&self, what: &str) -> String {
        format!("{what}-by-span-{}.png", self.name)
    }

    fn rows(&self) -> impl Iterator<Item = &'r SpanRow<'a>> {
        self.heads.iter().flat_map(|rows| rows.iter())
    }

    fn is_attributed(&self) -> bool {
        self.rows().any(|row| row.attribution.value.is_some())
    }

    /// Heads by parts, the first head at the top. Where heads were chosen, what all give together would be of another size.
    fn heatmap(&self, of: impl Fn(&SpanRow) -> Option<f64>) -> Heatmap {
        let chosen = self.heads.iter().filter(|rows| !rows[0].is_of_all_heads() || self.heads.len() == 1);
        let heads: Vec<&&[SpanRow]> = chosen.rev().collect();
        let mut columns: Vec<&str> = Vec::new();
        for row in self.rows().filter(|row| row.source != WHOLE) {
            if !columns.contains(&row.source) {
                columns.push(row.source);
            }
        }
        let cells = |rows: &&&[SpanRow]| -> Vec<Option<f64>> {
            columns.iter().map(|column| rows.iter().find(|row| row.source == *column).and_then(&of)).collect()
        };
        let values: Vec<Vec<Option<f64>>> = heads.iter().map(cells).collect();
        let text = |value: &Option<f64>| value.map_or(String::new(), |value| number(value, 2));
        Heatmap {
            subtitle: self.subtitle(),
            x_label: "part that is looked at".to_string(),
            y_label: "head".to_string(),
            texts: values.iter().map(|row| row.iter().map(text).collect()).collect(),
            values,
            row_names: heads.iter().map(|rows| rows[0].of()).collect(),
            column_names: columns.iter().map(|column| column.to_string()).collect(),
            ..Heatmap::default()
        }
    }

    fn subtitle(&self) -> String {
        // The whole is over all prompts that have the query.
        let whole = self.rows().find(|row| row.source == WHOLE);
        whole.map_or(String::new(), |row| format!("{}, {}", short_name(row.model), plural(row.n, "prompt")))
    }

    fn figures(&self) -> Figures {
        let weights = Heatmap {
            title: format!("Attention by part, from {}", self.looks()),
            value_label: "attention weight".to_string(),
            limit: Some(1.0),
            from_zero: true,
            ..self.heatmap(|row| row.weight.value)
        };
        let attributions = || Heatmap {
            title: format!("What heads add of each part, from {}", self.looks()),
            value_label: "attribution (nats)".to_string(),
            ..self.heatmap(|row| row.attribution.value)
        };
        let attributions = self.is_attributed().then(|| (self.file("attribution"), Figure::from(attributions())));
        [(self.file("weight"), Figure::from(weights))].into_iter().chain(attributions).collect()
    }

    fn section(&self, dir: &Path) -> Section {
        let mut section = Section::new(format!("Part by part, from {}", self.looks())).paragraph(
            "A prompt's positions are divided into its spans, the first token, where it is in no span, and the rest. What a head \
             gives to these sums to what it gives to the prompt. Each row is a mean over the prompts that have the part.",
        );
        for rows in &self.heads {
            section = section.paragraph(said(rows));
        }
        section = section.figure(
            dir.join(self.file("weight")),
            "The mean weight that each head gives to each part.",
            "Heatmap of attention weights by head and part.",
        );
        if self.is_attributed() {
            section = section.figure(
                dir.join(self.file("attribution")),
                "What each head adds to the logit difference of what it reads at each part, before later components change it.",
                "Heatmap of attributions by head and part.",
            );
        }
        let (header, cells) = self.listed();
        section.table("Weights and attributions by part; spans.parquet has them for all chosen heads", header, cells)
    }

    fn listed(&self) -> (Vec<Heading>, Vec<Vec<String>>) {
        let mut header = vec![Heading::text("head"), Heading::text("part")];
        let numbers = ["prompts", "tokens", "weight", "95 % interval", "size moved", "95 % interval"];
        header.extend(numbers.map(Heading::number));
        let attributed = self.is_attributed();
        if attributed {
            header.extend(["attribution (nats)", "95 % interval", "q"].map(Heading::number));
        }
        let row = |row: &SpanRow| {
            let mut cells = vec![row.of(), row.source.to_string(), cells::count(row.n), number(row.tokens, 1)];
            for score in [row.weight, row.weighted_norm] {
                cells.extend([number(score.value, 3), score.ends(3)]);
            }
            if attributed {
                cells.extend([signed(row.attribution.value, 3), row.attribution.ends(3), p_value(row.q_value)]);
            }
            cells
        };
        (header, self.rows().map(row).collect())
    }
}

impl Score {
    /// Its interval as a table has it.
    fn ends(self, digits: usize) -> String {
        let (low, high) = self.interval.unzip();
        cells::interval(low, high, digits)
    }
}

/// What the intervals say of a head, or of all heads together.
fn said(rows: &[SpanRow]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let (gives, reads) = match first.is_of_all_heads() {
        true => ("All heads together give".to_string(), "they read"),
        false => (format!("{} gives", first.of()), "it reads"),
    };
    let parts: Vec<&SpanRow> = rows.iter().filter(|row| row.source != WHOLE).collect();
    let looks = match most(&parts) {
        Some(row) => format!(
            "{gives} {} more weight than any other part: {} (95 % interval {}).",
            part(row.source),
            number(row.weight.value, 3),
            row.weight.ends(3)
        ),
        None => format!("{gives} no part more weight than every other, as far as the intervals say."),
    };
    match parts.iter().any(|row| row.attribution.interval.is_some()) {
        true => format!("{looks} {}", moves(&parts, reads)),
        false => looks,
    }
}

/// The part whose weight is above that of each other part, interval by interval.
fn most<'r, 'a>(parts: &[&'r SpanRow<'a>]) -> Option<&'r SpanRow<'a>> {
    let weight = |row: &SpanRow| row.weight.value.unwrap_or(f64::NEG_INFINITY);
    let largest = parts.iter().copied().max_by(|a, b| weight(a).total_cmp(&weight(b)))?;
    let (low, _) = largest.weight.interval?;
    let below = |row: &&SpanRow| row.weight.interval.is_some_and(|(_, high)| high < low);
    let mut others = parts.iter().filter(|row| row.source != largest.source);
    (parts.len() > 1 && others.all(below)).then_some(largest)
}

/// At which parts what is read raises or lowers the logit difference: those whose interval, as it is written, excludes 0.
fn moves(parts: &[&SpanRow], reads: &str) -> String {
    let at = |up: bool| {
        let moving = parts.iter().filter(|row| beyond_zero(row.attribution.interval, LEAST) == Some(up));
        let written = moving.map(|row| {
            let ends = row.attribution.ends(3);
            format!("{} ({} nats, 95 % interval {ends})", part(row.source), signed(row.attribution.value, 3))
        });
        written.collect::<Vec<_>>().join("; ")
    };
    let (up, down) = (at(true), at(false));
    let mut sentences = Vec::new();
    if !up.is_empty() {
        sentences.push(format!("The logit difference is raised by what {reads} at {up}."));
    }
    if !down.is_empty() {
        sentences.push(format!("The logit difference is lowered by what {reads} at {down}."));
    }
    match sentences.is_empty() {
        true => format!("Of what {reads}, no part moves the logit difference beyond chance."),
        false => sentences.join(" "),
    }
}

/// What a part is called in sentences.
fn part(source: &str) -> &str {
    match source {
        FIRST => "the first token",
        REST => "the rest",
        span => span,
    }
}

/// Figures of the table, two a query.
pub fn figures(rows: &[SpanRow]) -> Figures {
    Query::all(rows).iter().flat_map(Query::figures).collect()
}

/// What the report says of the table, a section a query.
pub fn sections(rows: &[SpanRow], dir: &Path) -> Vec<Section> {
    Query::all(rows).iter().map(|query| query.section(dir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(value: f64, low: f64, high: f64) -> Score {
        Score { value: Some(value), interval: Some((low, high)) }
    }

    fn row(source: &'static str, weight: Score, attribution: Score) -> SpanRow<'static> {
        SpanRow { query: LAST, layer: 23, head: 3, source, n: 30, weight, attribution, ..SpanRow::default() }
    }

    #[test]
    fn only_what_intervals_say_is_said() {
        let whole = row(WHOLE, score(1.0, 1.0, 1.0), score(2.0, 1.5, 2.5));
        let rows = [
            row("IO", score(0.5, 0.45, 0.55), score(1.5, 1.0, 2.0)),
            row(REST, score(0.3, 0.25, 0.4), score(-0.25, -0.5, -0.125)),
            row(FIRST, score(0.2, 0.1, 0.3), score(0.1, -0.1, 0.2)),
            whole.clone(),
        ];
        let text = said(&rows);
        assert!(
            text.starts_with("L23.H3 gives IO more weight than any other part: 0.500 (95 % interval [0.450,"),
            "{text}"
        );
        assert!(text.contains("raised by what it reads at IO (+1.500 nats, 95 % interval [1.000,"), "{text}");
        assert!(text.contains("lowered by what it reads at the rest (−0.250 nats"), "{text}");
        assert!(!text.contains("first token"), "its interval holds 0: {text}");
        // Intervals that overlap do not say which is larger, and one prompt has none.
        let near = row(FIRST, score(0.45, 0.4, 0.5), score(0.0, -0.0001, 0.0001));
        let text = said(&[row("IO", score(0.5, 0.45, 0.55), score(0.0, -0.1, 0.1)), near, whole.clone()]);
        assert!(text.starts_with("L23.H3 gives no part more weight than every other, as far as"), "{text}");
        assert!(text.ends_with("no part moves the logit difference beyond chance."), "{text}");
        let alone = Score { value: Some(0.9), interval: None };
        let text = said(&[row("IO", alone, Score::default()), row(REST, alone, Score::default()), whole]);
        assert_eq!(text, "L23.H3 gives no part more weight than every other, as far as the intervals say.");
    }

    #[test]
    fn what_comes_after_a_query_is_not_seen_and_only_the_last_position_is_attributed() {
        let pattern = vec![1.0, 0.0, 0.0, 0.25, 0.75, 0.0, 0.5, 0.25, 0.25];
        let kept = Kept { pattern, norms: vec![1.0, 2.0, 4.0], sources: Some(vec![0.5, -1.0, 2.0]) };
        assert!(kept.given(3, &[0, 1], &[2]).is_none());
        let both = kept.given(3, &[0, 1], &[1, 2]).unwrap();
        assert_eq!((both.positions, both.weight, both.moved, both.attribution), (1, 0.375, 0.75, None));
        let last = kept.given(3, &[2], &[0, 2]).unwrap();
        assert_eq!((last.positions, last.weight, last.moved, last.attribution), (2, 0.75, 1.5, Some(2.5)));
    }
}
