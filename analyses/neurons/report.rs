//! Figures and text of neurons, from their tables.

use super::tables::{ContextRow, EffectRow, Key, NeuronRow, SetRow, named};
use super::{FILE, LISTED};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT};
use crate::analyses::lens::visible;
use crate::analyses::prelude::*;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Estimate, Forest, ForestRow};
use crate::names::short_name;
use crate::report::cells::{self, number, p_value, plural, share, share_interval, signed};

/// How many neurons a table and a figure list, and of how many contexts are shown.
const ROWS: usize = 15;
const SHOWN: usize = 8;
/// How many contexts of each are shown.
const CONTEXTS: i64 = 3;

const FOREST: &str = "forest.png";
const ACTIVITY: &str = "activity.png";

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let neurons = NeuronRow::read(table(tables, NeuronRow::TABLE)?)?;
    let model = short_name(neurons.first().map_or("", |row| row.model));
    let mut figures: Figures = Vec::new();
    if let Ok(effects) = table(tables, EffectRow::TABLE) {
        let rows = EffectRow::read(effects)?;
        let n = rows.first().map_or(0, |row| row.n);
        let row = |row: &EffectRow| {
            let effect =
                row.effect_mean.map(|value| Estimate { value, interval: row.interval, marked: Some(significant(row)) });
            let added =
                row.attribution_mean.map(|value| Estimate { value, interval: row.attribution_interval, marked: None });
            ForestRow { label: row.name(), estimates: vec![effect, added] }
        };
        let figure = Forest {
            title: "What the strongest neurons do to the answer".to_string(),
            subtitle: format!("{model}, {}", plural(n, "prompt")),
            value_label: "logit difference (nats)".to_string(),
            series: vec!["silenced".to_string(), "attribution".to_string()],
            rows: strongest(&rows).into_iter().take(ROWS).map(row).collect(),
            mark_meaning: Some(format!("q < {SIGNIFICANT}")),
            interval_meaning: Some(INTERVAL.to_string()),
            missing_meaning: None,
        };
        figures.push((FOREST.to_string(), Figure::from(figure)));
    }
    let layers = layers(&neurons);
    if layers.len() > 1 {
        let of = |value: fn(&NeuronRow) -> Option<f64>| -> Vec<CurvePoint> {
            let point = |(layer, rows): &(i64, Vec<&NeuronRow>)| {
                let values: Vec<f64> = rows.iter().filter_map(|row| value(row)).collect();
                CurvePoint { x: *layer as f64, y: mean(&values), interval: None }
            };
            layers.iter().map(point).collect()
        };
        let curve = |name: &str, points| Curve { name: name.to_string(), role: CurveRole::Series, points };
        let n = neurons.first().map_or(0, |row| row.n);
        let figure = Curves {
            title: "How many neurons are at work".to_string(),
            subtitle: format!("{model}, mean over {}", plural(n, "position")),
            x_label: "layer".to_string(),
            y_label: "share of the layer's neurons".to_string(),
            shares: true,
            curves: vec![curve("at work", of(|row| row.activity)), curve("above 0", of(|row| row.positive))],
            ..Curves::default()
        };
        figures.push((ACTIVITY.to_string(), Figure::from(figure)));
    }
    Ok(figures)
}

fn significant(row: &EffectRow) -> bool {
    row.q_value.is_some_and(|q| q < SIGNIFICANT)
}

/// The largest effects first.
fn strongest<'a, 'r>(rows: &'r [EffectRow<'a>]) -> Vec<&'r EffectRow<'a>> {
    let size = |row: &EffectRow| row.effect_mean.map_or(0.0, f64::abs);
    let mut rows: Vec<&EffectRow> = rows.iter().collect();
    rows.sort_by(|a, b| size(b).total_cmp(&size(a)));
    rows
}

/// The rows of each layer.
fn layers<'a, 'r>(rows: &'r [NeuronRow<'a>]) -> Vec<(i64, Vec<&'r NeuronRow<'a>>)> {
    let chunks = rows.chunk_by(|a, b| a.layer == b.layer);
    chunks.map(|rows| (rows[0].layer, rows.iter().collect())).collect()
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let neurons = NeuronRow::read(table(tables, NeuronRow::TABLE)?)?;
    let mut sections = Vec::new();
    if let Ok(effects) = table(tables, EffectRow::TABLE) {
        sections.push(of_answer(&EffectRow::read(effects)?, &neurons, dir));
    }
    if let Ok(sets) = table(tables, SetRow::TABLE) {
        sections.extend(together(&SetRow::read(sets)?));
    }
    if let Ok(contexts) = table(tables, ContextRow::TABLE) {
        let contexts = ContextRow::read(contexts)?;
        let listed: Vec<Key> = match table(tables, EffectRow::TABLE) {
            Ok(effects) => strongest(&EffectRow::read(effects)?).iter().map(|row| row.key()).collect(),
            Err(_) => loudest(&neurons).iter().map(|row| row.key()).collect(),
        };
        sections.extend(fire(&contexts, &neurons, &listed));
    }
    sections.push(activity(&neurons, dir));
    Ok(sections)
}

/// Those whose vocabulary is known: what they write at once at most, the largest first.
fn loudest<'a, 'r>(rows: &'r [NeuronRow<'a>]) -> Vec<&'r NeuronRow<'a>> {
    let written = |row: &NeuronRow| {
        let most = row.max.map_or(0.0, f64::abs).max(row.min.map_or(0.0, f64::abs));
        row.size.map_or(0.0, |size| size * most)
    };
    let mut rows: Vec<&NeuronRow> = rows.iter().filter(|row| row.vocabulary.is_some()).collect();
    rows.sort_by(|a, b| written(b).total_cmp(&written(a)));
    rows
}

/// The tokens that a neuron raises.
fn raises(neurons: &[NeuronRow], neuron: Key) -> String {
    let row = neurons.iter().find(|row| row.key() == neuron);
    let list = row.and_then(|row| row.vocabulary.as_deref()).unwrap_or_default();
    list.split(' ').take(4).collect::<Vec<_>>().join(" ")
}

fn of_answer(rows: &[EffectRow], neurons: &[NeuronRow], dir: &Path) -> Section {
    let by_effect = strongest(rows);
    let found = rows.iter().filter(|row| significant(row)).count();
    let n = rows.first().map_or(0, |row| row.n);
    let base = rows.first().and_then(|row| row.base_mean);
    let (mode, position) = rows.first().map_or(("", ""), |row| (&row.mode, &row.position));
    let place = match position {
        "last" => "at the last position".to_string(),
        "all" => "at all positions".to_string(),
        other => format!("at position {other}"),
    };
    let by = if mode == "mean" { "set to its mean" } else { "set to 0" };
    let mut text = format!(
        "Over {} the logit difference is {} nats. Each of {} was {by} {place}. Of these, {} {} it beyond chance (q < {SIGNIFICANT}).",
        plural(n, "prompt"),
        signed(base, 3),
        plural(rows.len() as i64, "neuron"),
        found,
        if found == 1 { "moves" } else { "move" },
    );
    match by_effect.first() {
        Some(first) if significant(first) => {
            let (low, high) = first.interval.unzip();
            text += &format!(
                " The strongest is {}: without it the difference changes by {} nats, 95 % interval {}, {} of it.{}",
                first.name(),
                signed(first.effect_mean, 3),
                cells::interval(low, high, 3),
                share(first.share.value),
                first.halves.sentence("Its silencing"),
            );
        }
        _ if n < 2 => text += " One prompt is too few to tell anything from chance.",
        _ => text += " None of them stands out.",
    }
    let header = vec![
        Heading::text("neuron"),
        Heading::number("silenced (nats)"),
        Heading::number("95 % interval"),
        Heading::number("share"),
        Heading::number("q"),
        Heading::number("attribution (nats)"),
        Heading::text("silencing it"),
        Heading::text("raises, if active"),
    ];
    let cells = by_effect.iter().take(ROWS).map(|row| {
        let (low, high) = row.interval.unzip();
        vec![
            row.name(),
            signed(row.effect_mean, 3),
            cells::interval(low, high, 3),
            share(row.share.value),
            p_value(row.q_value),
            signed(row.attribution_mean, 3),
            row.halves.words().unwrap_or_default(),
            raises(neurons, row.key()),
        ]
    });
    let section = Section::new("Neurons that the answer depends on").paragraph(text);
    let caption = "The neurons whose silencing moves the logit difference most, beside what each adds to it.";
    let section = section.figure(dir.join(FOREST), caption, "Forest plot of neurons with 95 % intervals.");
    section.table("The strongest", header, cells.collect()).paragraph(format!(
        "A neuron's attribution is what it adds to the logit difference by itself, with the norms held as they are; what later layers \
         make of it is in the effect of silencing it alone. `{FILE}` lists these neurons for `--set`."
    ))
}

/// All listed neurons together, and the mean effects of random sets of as many.
pub fn beside<'r, 'a>(rows: &'r [SetRow<'a>]) -> Option<(&'r SetRow<'a>, Vec<f64>)> {
    let listed = rows.iter().find(|row| row.set == LISTED)?;
    Some((listed, rows.iter().filter(|row| row.set != LISTED).filter_map(|row| row.effect_mean).collect()))
}

/// All listed neurons silenced at once, beside random ones.
fn together(rows: &[SetRow]) -> Option<Section> {
    let (listed, random) = beside(rows)?;
    let (low, high) = listed.interval.unzip();
    let mut text = format!(
        "Silencing all {} together changes the logit difference by {} nats, 95 % interval {}, {} of it ({}).{}",
        plural(listed.neurons, "neuron"),
        signed(listed.effect_mean, 3),
        cells::interval(low, high, 3),
        share(listed.share.value),
        share_interval(listed.share.interval),
        listed.halves.sentence("That"),
    );
    let ends = random
        .iter()
        .copied()
        .fold(None, |ends: Option<(f64, f64)>, x| Some(ends.map_or((x, x), |(low, high)| (low.min(x), high.max(x)))));
    if let Some((low, high)) = ends {
        text += &format!(
            " {} of as many random neurons of the same layers change it by {} to {} nats.",
            plural(random.len() as i64, "set"),
            signed(low, 3),
            signed(high, 3),
        );
    }
    Some(Section::new("All of them together").paragraph(text))
}

/// Where the first neurons fire.
fn fire(contexts: &[ContextRow], neurons: &[NeuronRow], listed: &[Key]) -> Option<Section> {
    let mut section = Section::new("Where they fire").paragraph(
        "The tokens at which each neuron was highest, in bold, with what stands around them. In an MLP with a gate a neuron is as much \
         at work below 0, where it lowers what it raises above: there the lowest are shown too. contexts.parquet has all neurons'.",
    );
    let mut some = false;
    for neuron in listed.iter().take(SHOWN) {
        let of = contexts.iter().filter(|row| row.key() == *neuron && row.rank <= CONTEXTS);
        let header = vec![Heading::number("activation"), Heading::text("context"), Heading::text("text")];
        let cells: Vec<Vec<String>> = of
            .map(|row| {
                let context = format!("{}**{}**{}", plain(&row.before), shown(&row.token), plain(&row.after));
                vec![number(row.activation, 2), context, row.id.to_string()]
            })
            .collect();
        some |= !cells.is_empty();
        let row = neurons.iter().find(|row| row.key() == *neuron);
        let raised = raises(neurons, *neuron);
        let lowered = row.and_then(|row| row.vocabulary_low.as_deref()).unwrap_or_default();
        let lowered = lowered.split(' ').take(4).collect::<Vec<_>>().join(" ");
        section = section.table(format!("{}: raises {raised}; lowers {lowered}", named(*neuron)), header, cells);
    }
    some.then_some(section)
}

/// A text within a line of a table, without marks.
fn plain(text: &str) -> String {
    let seen = |c: char| match c {
        '*' | '`' | '|' | '\\' => ' ',
        c if c.is_whitespace() || c.is_control() => ' ',
        c => c,
    };
    text.chars().map(seen).collect()
}

/// A token in bold: marks need a character that is no space at their ends.
fn shown(token: &str) -> String {
    let seen: String = visible(token).chars().map(|c| if matches!(c, '*' | '`' | '|') { '·' } else { c }).collect();
    if seen.is_empty() { "·".to_string() } else { seen }
}

fn activity(neurons: &[NeuronRow], dir: &Path) -> Section {
    let n = neurons.first().map_or(0, |row| row.n);
    let layers = layers(neurons);
    let of = |rows: &[&NeuronRow]| mean(&rows.iter().filter_map(|row| row.activity).collect::<Vec<_>>());
    let mut section = Section::new("How many are at work");
    let by_layer: Vec<(i64, f64)> = layers.iter().filter_map(|(layer, rows)| Some((*layer, of(rows)?))).collect();
    let dead = neurons.iter().filter(|row| row.activity == Some(0.0)).count();
    let mut text = format!("Over {}, the first of each text left out,", plural(n, "position"));
    let ends = (by_layer.iter().min_by(|a, b| a.1.total_cmp(&b.1)), by_layer.iter().max_by(|a, b| a.1.total_cmp(&b.1)));
    match ends {
        (Some(least), Some(most)) if by_layer.len() > 1 => {
            text += &format!(
                " between {} (layer {}) and {} (layer {}) of a layer's neurons are at work at a position.",
                share(least.1),
                least.0,
                share(most.1),
                most.0
            );
        }
        (Some(only), _) => text += &format!(" {} of the neurons are at work at a position.", share(only.1)),
        _ => {}
    }
    text += &match dead {
        0 => " Every neuron was at work somewhere.".to_string(),
        1 => " One neuron was at work nowhere.".to_string(),
        dead => format!(
            " {} of {} neurons were at work nowhere.",
            cells::count(dead as i64),
            cells::count(neurons.len() as i64)
        ),
    };
    section = section.paragraph(text);
    if layers.len() > 1 {
        let caption = "The mean share of a layer's neurons that are at work at a position, and of those above 0.";
        section = section.figure(dir.join(ACTIVITY), caption, "Shares of active neurons by layer.");
    }
    section
}
