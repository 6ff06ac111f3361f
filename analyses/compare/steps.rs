//! What runs of one analysis say of the checkpoints of one training, step by step: the metric, heads, edges, the chosen circuit and what
//! the lens shows.
//!
//! Numbers and intervals are those of the runs' own tables; nothing is computed anew but the metric's interval and the overlap of
//! circuits.

use super::super::checkpoints::paths::{short_names, training};
use super::super::circuit::StabilityRow;
use super::super::edges::EdgeRow;
use super::super::effects::read_places;
use super::super::interchange::{Direction, Exchange, PairRow};
use super::super::lens::LayerRow;
use super::super::marks::{LEAST_SHARE, matters};
use crate::analyses::prelude::*;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, MOST_SERIES};
use crate::report::cells::{self, interval, number, plural, signed};
use crate::stats::bca_mean;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The commands whose runs can be followed over the steps of a training, each with the tables that are read of it, the first of which
/// must be there.
pub const FOLLOWED: [(&str, &[&str]); 5] = [
    ("interchange", &["heads", "pairs"]),
    ("screen", &["heads", "pairs"]),
    ("edges", &["edges"]),
    ("circuit", &["stability"]),
    ("lens", &["layers"]),
];

/// A run of one checkpoint.
pub struct AtStep {
    /// The model, as it was named.
    pub model: String,
    /// How many steps it was trained.
    pub step: f64,
    pub command: String,
    /// Its tables by name.
    pub tables: BTreeMap<String, Table>,
}

rows! {
    /// A number of one checkpoint.
    pub struct StepRow<'a> in "steps" {
        model: Cow<'a, str> = "the model, as it was named",
        step: f64 = "how many steps it was trained",
        command: Cow<'a, str> = "the analysis whose run says it",
        what: Cow<'a, str> = "of what: a head, an edge, the prompts of one side, a layer, or the chosen circuit",
        direction: Cow<'a, str> = "necessity or sufficiency; for circuits what edges are ranked by; empty elsewhere",
        measure: Cow<'a, str> =
            "metric (mean, nats), effect (mean, nats), logprob (of the answer by the lens, mean, nats), jaccard_first or jaccard_before \
             (overlap of the chosen circuit with that of the first step, or of the step before)",
        n: i64 = "pairs or prompts; of circuits, their edges",
        value: Option<f64> = "the number",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of its 95 % interval", "its upper end"],
        share: Option<f64> = "an effect as a share of the gap",
        significant: bool = "whether an effect is significant (q < 0.05 over its family) and at least 1 % of the gap at this step",
    }
}

/// The table of steps: of heads and edges those that are significant and at least 1 % of the gap at one step, at every step; where
/// none is, the largest.
///
/// # Errors
/// If a table is not one of its command.
pub fn table(runs: &[AtStep], seed: u64) -> Result<Table, AnalysisError> {
    let mut order: Vec<&AtStep> = runs.iter().collect();
    order.sort_by(|a, b| a.command.cmp(&b.command).then(a.step.total_cmp(&b.step)));
    let mut rows = Vec::new();
    for of_command in order.chunk_by(|a, b| a.command == b.command) {
        match of_command[0].command.as_str() {
            "edges" => rows.extend(edges(of_command)?),
            "circuit" => rows.extend(circuits(of_command)?),
            "lens" => rows.extend(lens(of_command)?),
            _ => rows.extend(heads(of_command, seed)?),
        }
    }
    Ok(StepRow::table(rows)?)
}

impl AtStep {
    fn table(&self, name: &str) -> Result<&Table, AnalysisError> {
        let missing = || AnalysisError::Bad(format!("{}: the table {name}.parquet is missing", self.model));
        self.tables.get(name).ok_or_else(missing)
    }

    fn row(&self) -> StepRow<'static> {
        StepRow {
            model: self.model.clone().into(),
            step: self.step,
            command: self.command.clone().into(),
            ..StepRow::default()
        }
    }
}

/// How many effects are followed where none is significant.
const LARGEST: usize = 5;

/// Effects that are significant at one step, at every step; in a direction in which none is, the largest.
fn followed(all: Vec<StepRow<'static>>) -> Vec<StepRow<'static>> {
    let key = |row: &StepRow| (row.direction.to_string(), row.what.to_string());
    let mut chosen: BTreeSet<(String, String)> = all.iter().filter(|row| row.significant).map(key).collect();
    let directions: BTreeSet<String> = all.iter().map(|row| row.direction.to_string()).collect();
    for direction in directions {
        if chosen.iter().all(|(of, _)| *of != direction) {
            let mut own: Vec<&StepRow> =
                all.iter().filter(|row| row.direction == direction && row.value.is_some()).collect();
            let size = |row: &StepRow| row.value.unwrap_or(0.0).abs();
            own.sort_by(|a, b| size(b).total_cmp(&size(a)));
            let mut largest: Vec<(String, String)> = Vec::new();
            for row in own {
                if largest.len() < LARGEST && !largest.contains(&key(row)) {
                    largest.push(key(row));
                }
            }
            chosen.extend(largest);
        }
    }
    all.into_iter().filter(|row| chosen.contains(&key(row))).collect()
}

fn heads(runs: &[&AtStep], seed: u64) -> Result<Vec<StepRow<'static>>, AnalysisError> {
    let (mut found, mut all) = (Vec::new(), Vec::new());
    for run in runs {
        found.extend(metrics(run, seed)?);
        for row in read_places::<Exchange>(run.table("heads")?)?.iter().flat_map(|place| &place.rows) {
            let share = row.crossed();
            all.push(StepRow {
                what: cells::head(row.layer, row.head).into(),
                direction: row.variant.to_string().into(),
                measure: "effect".into(),
                n: row.n,
                value: row.effect_mean,
                interval: row.interval,
                share,
                significant: matters(row.q_value, share),
                ..run.row()
            });
        }
    }
    found.extend(followed(all));
    Ok(found)
}

/// The metric of both prompts, from the pairs where these are there.
fn metrics(run: &AtStep, seed: u64) -> Result<Vec<StepRow<'static>>, AnalysisError> {
    let Some(pairs) = run.tables.get("pairs") else { return Ok(Vec::new()) };
    let mut sides: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    let rows = PairRow::read(pairs)?;
    for row in &rows {
        let side = if row.direction == Direction::Necessity.name() { "positive" } else { "negative" };
        if let Some(metric) = row.base_metric {
            sides.entry(side).or_default().insert(row.pair.id, metric);
        }
    }
    let of_side = |(side, by_pair): (&str, BTreeMap<&str, f64>)| {
        let values: Vec<f64> = by_pair.into_values().collect();
        let options = Bootstrap { seed, ..Bootstrap::default() };
        StepRow {
            what: format!("{side} prompts").into(),
            measure: "metric".into(),
            n: values.len() as i64,
            value: mean(&values),
            interval: bca_mean(&values, &options).map(Interval::ends),
            ..run.row()
        }
    };
    Ok(sides.into_iter().map(of_side).collect())
}

fn edges(runs: &[&AtStep]) -> Result<Vec<StepRow<'static>>, AnalysisError> {
    let mut all = Vec::new();
    for run in runs {
        for row in EdgeRow::read(run.table("edges")?)? {
            all.push(StepRow {
                what: format!("{}->{}", row.edge.writer, row.edge.reader).into(),
                direction: row.direction.to_string().into(),
                measure: "effect".into(),
                n: row.n,
                value: row.effect_mean,
                interval: row.interval,
                share: row.share.value,
                significant: matters(row.q_value, row.share.value),
                ..run.row()
            });
        }
    }
    Ok(followed(all))
}

fn lens(runs: &[&AtStep]) -> Result<Vec<StepRow<'static>>, AnalysisError> {
    let mut found = Vec::new();
    for run in runs {
        let rows = LayerRow::read(run.table("layers")?)?;
        found.extend(rows.iter().filter(|row| row.logprob_mean.is_some()).map(|row| StepRow {
            what: format!("layer {}", row.layer).into(),
            direction: row.site.to_string().into(),
            measure: "logprob".into(),
            n: row.answers,
            value: row.logprob_mean,
            interval: row.logprob_interval,
            ..run.row()
        }));
    }
    Ok(found)
}

/// How far the chosen circuits overlap.
fn circuits(runs: &[&AtStep]) -> Result<Vec<StepRow<'static>>, AnalysisError> {
    let mut chosen: Vec<(&AtStep, BTreeMap<String, BTreeSet<String>>)> = Vec::new();
    for run in runs {
        let mut by_score: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in StabilityRow::read(run.table("stability")?)? {
            let edges = by_score.entry(row.score.to_string()).or_default();
            if row.in_circuit {
                edges.insert(format!("{}->{} {}", row.edge.writer, row.edge.reader, row.position.unwrap_or_default()));
            }
        }
        chosen.push((*run, by_score));
    }
    let mut found = Vec::new();
    for (i, (run, by_score)) in chosen.iter().enumerate() {
        for (score, edges) in by_score {
            let others = [("jaccard_first", 0), ("jaccard_before", i.saturating_sub(1))];
            found.extend(others.into_iter().filter(|_| i > 0).filter_map(|(measure, other)| {
                let theirs = chosen[other].1.get(score)?;
                let (shared, either) = (edges.intersection(theirs).count(), edges.union(theirs).count());
                Some(StepRow {
                    what: "chosen circuit".into(),
                    direction: score.clone().into(),
                    measure: measure.into(),
                    n: edges.len() as i64,
                    value: (either > 0).then(|| shared as f64 / either as f64),
                    ..run.row()
                })
            }));
        }
    }
    Ok(found)
}

/// What a curve is of, in the order of the figures.
struct Shown {
    file: &'static str,
    title: &'static str,
    y_label: &'static str,
    caption: &'static str,
    of: fn(&StepRow) -> bool,
}

const SHOWN: [Shown; 6] = [
    Shown {
        file: "steps-metric.png",
        title: "The metric over training",
        y_label: "mean metric (nats)",
        caption: "The mean metric of the positive and of the negative prompts.",
        of: |row| row.measure == "metric",
    },
    Shown {
        file: "steps-heads.png",
        title: "Heads over training",
        y_label: "effect on the metric, necessity (nats)",
        caption: "The heads whose exchange has the largest effect at any step (necessity).",
        of: |row| row.measure == "effect" && row.direction == "necessity" && !row.what.contains("->"),
    },
    Shown {
        file: "steps-heads-sufficiency.png",
        title: "Heads over training",
        y_label: "effect on the metric, sufficiency (nats)",
        caption: "The heads whose exchange has the largest effect at any step (sufficiency).",
        of: |row| row.measure == "effect" && row.direction == "sufficiency" && !row.what.contains("->"),
    },
    Shown {
        file: "steps-edges.png",
        title: "Edges over training",
        y_label: "effect on the metric (nats)",
        caption: "The edges whose exchange has the largest effect at any step.",
        of: |row| row.measure == "effect" && row.what.contains("->"),
    },
    Shown {
        file: "steps-circuit.png",
        title: "The chosen circuit over training",
        y_label: "overlap with the first step's (Jaccard)",
        caption: "How many edges the chosen circuit shares with that of the first step, as a share of those in either.",
        of: |row| row.measure == "jaccard_first",
    },
    Shown {
        file: "steps-lens.png",
        title: "What the lens shows over training",
        y_label: "mean log-probability of the answer (nats)",
        caption: "The answer's log-probability as the lens reads it after some layers.",
        of: |row| row.measure == "logprob",
    },
];

/// A thing that is followed: its rows, step by step.
type Course<'r, 'a> = Vec<&'r StepRow<'a>>;

/// What is followed of a kind, the largest first; of layers, an even choice.
fn courses<'r, 'a>(rows: &'r [StepRow<'a>], of: fn(&StepRow) -> bool) -> Vec<Course<'r, 'a>> {
    let mut found: Vec<Course> = Vec::new();
    for row in rows.iter().filter(|row| of(row)) {
        let same = |course: &&mut Course| {
            let first = course[0];
            let of =
                |row: &StepRow| (row.command.to_string(), training(&row.model).to_string(), row.measure.to_string());
            of(first) == of(row) && first.what == row.what && first.direction == row.direction
        };
        match found.iter_mut().find(same) {
            Some(course) => course.push(row),
            None => found.push(vec![row]),
        }
    }
    if found.first().is_some_and(|course| course[0].measure == "logprob") {
        let step = found.len().div_ceil(MOST_SERIES).max(1);
        let last = found.len() - 1;
        return found
            .into_iter()
            .enumerate()
            .filter(|(i, _)| (last - i).is_multiple_of(step))
            .map(|(_, course)| course)
            .collect();
    }
    let largest = |course: &Course| course.iter().filter_map(|row| row.value).map(f64::abs).fold(0.0, f64::max);
    found.sort_by(|a, b| largest(b).total_cmp(&largest(a)));
    found
}

/// Figures by file name, from the table alone.
///
/// # Errors
/// If the table is not one of steps.
pub fn figures(steps: &Table) -> Result<Figures, AnalysisError> {
    let rows = StepRow::read(steps)?;
    let mut figures = Figures::new();
    for shown in &SHOWN {
        let courses = courses(&rows, shown.of);
        if courses.is_empty() {
            continue;
        }
        let curve = |course: &Course| Curve {
            name: named(&rows, course),
            role: CurveRole::Series,
            points: course.iter().map(|row| CurvePoint { x: row.step, y: row.value, interval: row.interval }).collect(),
        };
        let figure = Curves {
            title: shown.title.to_string(),
            subtitle: match courses.len() > MOST_SERIES {
                true => format!("the {MOST_SERIES} largest of {}", courses.len()),
                false => String::new(),
            },
            x_label: "training step".to_string(),
            y_label: shown.y_label.to_string(),
            curves: courses.iter().take(MOST_SERIES).map(curve).collect(),
            ..Curves::default()
        };
        figures.push((shown.file.to_string(), figure.into()));
    }
    Ok(figures)
}

/// The report's section, from the table alone; figures stand in `dir`.
///
/// # Errors
/// If the table is not one of steps.
pub fn sections(steps: &Table, dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let rows = StepRow::read(steps)?;
    let mut at: Vec<f64> = rows.iter().map(|row| row.step).collect();
    at.sort_by(f64::total_cmp);
    at.dedup();
    let (Some(first), Some(last)) = (at.first(), at.last()) else { return Ok(Vec::new()) };
    let checkpoints: BTreeSet<&str> = rows.iter().map(|row| row.model.as_ref()).collect();
    let mut section = Section::new("Over the steps of training").paragraph(format!(
        "{} from step {first} to step {last}. Heads and edges are shown that are significant (q < 0.05) and at least {} of the gap at \
         one step; where none is, the report says so and shows the largest. **Moved** says that the 95 % intervals of the first and the last step do not overlap; checkpoints of one training \
         are no independent samples of trainings, and what is shown was chosen for being large at some step.",
        cells::capitalised(&plural(checkpoints.len() as i64, "checkpoint")),
        cells::share(LEAST_SHARE),
    ));
    for shown in &SHOWN {
        let courses = courses(&rows, shown.of);
        if courses.is_empty() {
            continue;
        }
        let mut effects = courses.iter().flatten().filter(|row| row.measure == "effect").peekable();
        if effects.peek().is_some() && effects.all(|row| !row.significant) {
            section = section.paragraph(format!(
                "{}: none is significant at any step, among all that were tested together. The largest are shown all the same; more pairs \
                 would tell.",
                shown.title
            ));
        }
        section = section.figure(
            dir.join(shown.file),
            shown.caption,
            format!("Curves over training steps. {}", shown.caption),
        );
        let cells =
            courses.iter().take(LISTED).filter_map(|course| ends(&rows, course, [*first, *last])).collect::<Vec<_>>();
        if !cells.is_empty() {
            let header = vec![
                Heading::text("of what"),
                Heading::text("direction"),
                Heading::number(format!("step {first}")),
                Heading::number("95 % interval"),
                Heading::number(format!("step {last}")),
                Heading::number("95 % interval"),
                Heading::text("moved"),
            ];
            section = section.table(format!("{}: first and last step", shown.title), header, cells);
        }
    }
    Ok(vec![section])
}

/// How many things a table lists.
const LISTED: usize = 10;

/// What a thing is called; of several trainings, or commands that both have heads, with which.
fn named(rows: &[StepRow], course: &Course) -> String {
    let first = course[0];
    let name = match first.measure.as_ref() {
        "jaccard_first" | "jaccard_before" => first.direction.to_string(),
        _ => first.what.to_string(),
    };
    let trainings: BTreeSet<&str> = rows.iter().map(|row| training(&row.model)).collect();
    let commands: BTreeSet<&str> =
        rows.iter().filter(|row| row.measure == first.measure).map(|row| row.command.as_ref()).collect();
    let all: Vec<&str> = trainings.iter().copied().collect();
    let own = all.iter().position(|of| *of == training(&first.model));
    let of_training = own.filter(|_| all.len() > 1).and_then(|i| short_names(&all).get(i).cloned());
    let of_command =
        (commands.contains("screen") && commands.contains("interchange")).then(|| first.command.to_string());
    of_training.into_iter().chain(of_command).fold(name, |name, more| format!("{name}, {more}"))
}

/// What a thing is at the first and at the last of all steps; none where it is not known at both.
fn ends(rows: &[StepRow], course: &Course, [first, last]: [f64; 2]) -> Option<Vec<String>> {
    let at = |step: f64| course.iter().find(|row| row.step == step);
    let (first, last) = (at(first)?, at(last)?);
    let moved = match (first.interval, last.interval) {
        (Some(a), Some(b)) if b.0 > a.1 => "up",
        (Some(a), Some(b)) if b.1 < a.0 => "down",
        (Some(_), Some(_)) => "intervals overlap",
        _ => cells::EMPTY,
    };
    let value = |row: &StepRow| match row.measure.as_ref() {
        "jaccard_first" | "jaccard_before" => number(row.value, 2),
        _ => signed(row.value, 3),
    };
    let ends = |row: &StepRow| {
        let (low, high) = row.interval.unzip();
        interval(low, high, 3)
    };
    Some(vec![
        named(rows, course),
        first.direction.to_string(),
        value(first),
        ends(first),
        value(last),
        ends(last),
        moved.to_string(),
    ])
}
