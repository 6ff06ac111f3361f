//! The figure and the text of who is right, from the tables.

use super::tables::{AccuracyRow, NONE, NeuronRow};
use super::votes::METHODS;
use crate::analyses::prelude::*;
use crate::figure::{BarSeries, Bars, Estimate};
use crate::names::short_name;
use crate::report::cells::{self, plural, share, share_interval};
use std::cmp::Ordering;

const ACCURACY: &str = "accuracy.png";

/// How many neurons are listed.
const LISTED: usize = 10;

/// What is held out, in words.
pub fn named(held_out: &str) -> String {
    if held_out == NONE { "all topics mixed".to_string() } else { format!("{held_out} held out") }
}

/// What is held out, in the order of the table.
fn splits<'r>(rows: &'r [AccuracyRow]) -> Vec<&'r str> {
    let mut names: Vec<&str> = rows.iter().map(|row| row.held_out.as_ref()).collect();
    names.dedup();
    names
}

fn find<'a, 'r>(rows: &'r [AccuracyRow<'a>], held_out: &str, method: &str) -> Option<&'r AccuracyRow<'a>> {
    rows.iter().find(|row| row.held_out == held_out && row.method == method)
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let rows = AccuracyRow::read(table(tables, AccuracyRow::TABLE)?)?;
    let model = short_name(rows.first().map_or("", |row| row.model));
    let splits = splits(&rows);
    let series = |method: &str| {
        let of = |held_out: &&str| {
            let row = find(&rows, held_out, method)?;
            Some(Estimate { interval: row.interval, ..Estimate::new(row.accuracy?) })
        };
        BarSeries { name: method.replace('_', " "), estimates: splits.iter().map(of).collect(), bands: Vec::new() }
    };
    let figure = Bars {
        title: "Who knows which statement is true".to_string(),
        subtitle: model,
        category_label: "what was not labelled".to_string(),
        value_label: "share of items that are right".to_string(),
        shares: true,
        categories: splits.iter().map(|name| named(name)).collect(),
        series: METHODS.into_iter().map(series).collect(),
        reference: rows.first().and_then(|row| row.chance).map(|chance| (chance, "guessing".to_string())),
        interval_meaning: Some("95 % Wilson interval".to_string()),
        ..Bars::default()
    };
    Ok(vec![(ACCURACY.to_string(), Figure::from(figure))])
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let rows = AccuracyRow::read(table(tables, AccuracyRow::TABLE)?)?;
    let neurons = NeuronRow::read(table(tables, NeuronRow::TABLE)?)?;
    Ok(vec![accuracy(&rows, dir), voters(&neurons)])
}

impl AccuracyRow<'_> {
    /// Whether it is beyond guessing, and on which side, as far as the interval says so.
    pub fn beyond_guessing(&self) -> Option<Ordering> {
        match (self.interval?, self.chance?) {
            ((low, _), chance) if low > chance => Some(Ordering::Greater),
            ((_, high), chance) if high < chance => Some(Ordering::Less),
            _ => None,
        }
    }
}

/// What an interval says of a share beside chance.
fn beside_chance(row: &AccuracyRow) -> &'static str {
    match row.beyond_guessing() {
        Some(Ordering::Greater) => "better than guessing",
        Some(_) => "worse than guessing",
        None => "no better than guessing, as far as so many items tell",
    }
}

fn accuracy(rows: &[AccuracyRow], dir: &Path) -> Section {
    let labelled = rows.first().map_or(0, |row| row.labelled);
    let mut section = Section::new("Who is right?").paragraph(format!(
        "Neurons and probe were found by {}; the likelihood needs none. Where a topic is held out, none of its items is among these: what \
         was found is then tested on what it has not seen.",
        plural(labelled, "labelled item"),
    ));
    let mut said = Vec::new();
    for held_out in splits(rows) {
        let Some(neurons) = find(rows, held_out, METHODS[0]) else { continue };
        said.push(format!(
            "With {}, the neurons' vote is right on {} of {} ({}): {}.",
            named(held_out),
            share(neurons.accuracy),
            plural(neurons.n, "item"),
            share_interval(neurons.interval),
            beside_chance(neurons),
        ));
    }
    section = section.paragraph(said.join(" "));
    let caption = "The share of items on which each method is right.";
    section = section.figure(dir.join(ACCURACY), caption, "Bars of accuracies with intervals, by topic and method.");
    let header = vec![
        Heading::text("not labelled"),
        Heading::text("method"),
        Heading::number("items"),
        Heading::number("right"),
        Heading::number("95 % interval"),
        Heading::text("beside guessing"),
    ];
    let cells = rows.iter().map(|row| {
        vec![
            named(&row.held_out),
            row.method.replace('_', " "),
            row.n.to_string(),
            share(row.accuracy),
            share_interval(row.interval),
            beside_chance(row).to_string(),
        ]
    });
    section.table("Accuracy", header, cells.collect())
}

fn voters(rows: &[NeuronRow]) -> Section {
    let of: Vec<&NeuronRow> = rows.iter().filter(|row| row.held_out == NONE).collect();
    let header = vec![
        Heading::text("neuron"),
        Heading::text("chooses the"),
        Heading::number("right on labelled items"),
        Heading::number("right on the others"),
        Heading::number("95 % interval"),
    ];
    let cells = of.iter().take(LISTED).map(|row| {
        vec![
            cells::neuron(row.layer, row.expert.0, row.neuron),
            format!("{} activation", row.sense),
            share(row.labelled),
            share(row.accuracy),
            share_interval(row.interval),
        ]
    });
    Section::new("Which neurons vote?")
        .paragraph(
            "Those that were right most often on the labelled items, with all topics mixed. Of so many neurons some are right on few items by \
             luck: what each is worth is its share on the others.",
        )
        .table("The first voters", header, cells.collect())
}
