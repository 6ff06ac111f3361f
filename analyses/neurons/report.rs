//! Figures and text of neurons, from their tables.

use super::drivers::{DriverRow, GATE, HEAD, NAMED};
use super::tables::{ContextRow, ContrastRow, EffectRow, Key, NeuronRow, SetRow, WordRow, named};
use super::{BOTH, FILE, HEADS, LISTED, random_of, words};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT};
use crate::analyses::halves::LEAST;
use crate::analyses::lens::visible;
use crate::analyses::prelude::*;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Estimate, Forest, ForestRow};
use crate::names::short_name;
use crate::report::cells::{self, number, p_value, plural, share, share_interval, signed};
use std::collections::HashSet;

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
    if let Ok(words) = table(tables, WordRow::TABLE) {
        sections.push(of_words(&WordRow::read(words)?, &neurons));
    }
    if let Ok(effects) = table(tables, EffectRow::TABLE) {
        sections.push(of_answer(&EffectRow::read(effects)?, &neurons, dir));
    }
    if let Ok(sets) = table(tables, SetRow::TABLE) {
        sections.extend(together(&SetRow::read(sets)?));
    }
    if let Ok(contrasts) = table(tables, ContrastRow::TABLE) {
        sections.push(by_label(&ContrastRow::read(contrasts)?));
    }
    if let Ok(drivers) = table(tables, DriverRow::TABLE) {
        sections.extend(driven(&DriverRow::read(drivers)?));
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

/// All neurons that were listed, the heads that were named, or both, silenced together; and the mean effects of random sets like it.
pub fn beside<'r, 'a>(rows: &'r [SetRow<'a>], set: &str) -> Option<(&'r SetRow<'a>, Vec<f64>)> {
    let whole = || rows.iter().filter(|row| row.is_whole());
    let own = whole().find(|row| row.set == set)?;
    Some((own, whole().filter(|row| is_random(&row.set, set)).filter_map(|row| row.effect_mean).collect()))
}

/// Whether a set is a random one that is like another.
fn is_random(name: &str, like: &str) -> bool {
    name.rsplit_once(' ').is_some_and(|(of, number)| of == random_of(like) && number.parse::<usize>().is_ok())
}

/// The least and the most of some numbers.
fn ends(numbers: &[f64]) -> Option<(f64, f64)> {
    let least = numbers.iter().copied().reduce(f64::min);
    least.zip(numbers.iter().copied().reduce(f64::max))
}

/// How sentences name what was silenced.
fn called(set: &str, neurons: i64, heads: i64) -> String {
    match set {
        HEADS => plural(heads, "head"),
        BOTH => format!("{} and {}", plural(neurons, "neuron"), plural(heads, "head")),
        _ => plural(neurons, "neuron"),
    }
}

/// Everything that was listed silenced at once, beside random sets.
fn together(rows: &[SetRow]) -> Option<Section> {
    let said = |set: &str| {
        let (own, random) = beside(rows, set)?;
        let (low, high) = own.interval.unzip();
        let [all, at_once] = if own.neurons + own.heads == 1 { ["", ""] } else { ["all ", " together"] };
        let mut text = format!(
            "Silencing {all}{}{at_once} changes the logit difference by {} nats, 95 % interval {}, {} of it ({}).{}",
            called(set, own.neurons, own.heads),
            signed(own.effect_mean, 3),
            cells::interval(low, high, 3),
            share(own.share.value),
            share_interval(own.share.interval),
            own.halves.sentence("That"),
        );
        if let Some((low, high)) = ends(&random) {
            let others = match set {
                HEADS => "heads",
                BOTH => "neurons and heads",
                _ => "neurons",
            };
            text += &format!(
                " {} of as many random {others} of the same layers {} it by {} to {} nats.",
                plural(random.len() as i64, "set"),
                if random.len() == 1 { "changes" } else { "change" },
                signed(low, 3),
                signed(high, 3),
            );
        }
        Some(text)
    };
    let section = Section::new("All of them together").paragraph(said(LISTED)?);
    Some([HEADS, BOTH].into_iter().filter_map(said).fold(section, Section::paragraph))
}

/// What silencing a set does to the prompts of a label against the others, where its interval excludes 0.
pub struct Standing<'r, 'a> {
    pub row: &'r ContrastRow<'a>,
    /// 1 where the label's difference is raised against the others', -1 where it is lowered.
    pub sign: f64,
    /// The same differences of random sets like it.
    pub random: Vec<f64>,
}

impl Standing<'_, '_> {
    /// Whether it is beyond what every random set does in either direction; none where there is no random set.
    pub fn is_beyond(&self) -> Option<bool> {
        let most = self.random.iter().copied().map(f64::abs).reduce(f64::max)?;
        Some(self.row.against.difference?.abs() > most)
    }

    /// `lowers the logit difference of months by 0.80 nats against the others'`, after a subject.
    fn words(&self) -> String {
        let against = &self.row.against;
        let (low, high) = against.interval.unzip();
        format!(
            "{} the logit difference of `{}` by {} nats against that of the other prompts, 95 % interval {} ({} and {} nats)",
            if self.sign > 0.0 { "raises" } else { "lowers" },
            self.row.label,
            number(against.difference.map(f64::abs), 3),
            cells::interval(low, high, 3),
            signed(self.row.effect_mean, 3),
            signed(against.others_mean, 3),
        )
    }
}

/// The sets that stand out by a label, random ones left out. Of two labels that all prompts have between them each is the other turned
/// round: it is said of the one whose prompts move more.
pub fn standings<'r, 'a>(rows: &'r [ContrastRow<'a>]) -> Vec<Standing<'r, 'a>> {
    let is_mirror = |row: &ContrastRow, of: &ContrastRow| {
        (&row.set, row.n, row.against.n_others) == (&of.set, of.against.n_others, of.n) && row.label != of.label
    };
    let size = |row: &ContrastRow| row.effect_mean.map_or(0.0, f64::abs);
    let labels: HashSet<&str> = rows.iter().map(|row| &*row.label).collect();
    let said_of_other = |row: &ContrastRow| {
        let other = rows.iter().find(|of| labels.len() == 2 && is_mirror(row, of));
        other.is_some_and(|of| size(row).total_cmp(&size(of)).then(of.label.cmp(&row.label)).is_lt())
    };
    let own = rows.iter().filter(|row| !row.is_random() && !said_of_other(row));
    let of =
        |row: &'r ContrastRow<'a>| Some(Standing { row, sign: row.against.sign()?, random: random_like(rows, row) });
    own.filter_map(of).collect()
}

/// The differences of random sets that are like a row's, of its label.
fn random_like(rows: &[ContrastRow], of: &ContrastRow) -> Vec<f64> {
    let like = rows.iter().filter(|row| row.label == of.label && is_random(&row.set, &of.set));
    like.filter_map(|row| row.against.difference).collect()
}

/// What silencing does to the prompts of each label, beside what it does to the others.
fn by_label(rows: &[ContrastRow]) -> Section {
    let mut text =
        "A concept's own neurons move its prompts and leave the others: the difference between the two counts."
            .to_string();
    let found = standings(rows);
    for of in &found {
        let subject = match &*of.row.set {
            HEADS => "Silencing the heads",
            BOTH => "Silencing the neurons and the heads",
            _ => "Silencing the neurons",
        };
        let (low, high) = ends(&of.random).unzip();
        let range = format!("{} to {} nats", signed(low, 3), signed(high, 3));
        let random = plural(of.random.len() as i64, "random set");
        let beside = match of.is_beyond() {
            Some(true) => format!("None of {random} does as much ({range})."),
            Some(false) => {
                format!("One at least of {random} does as much ({range}): nothing points to this set in particular.")
            }
            None => "There is no random set to compare with.".to_string(),
        };
        text += &format!(" {subject} {}. {beside}", of.words());
    }
    if found.is_empty() {
        text += " No interval of such a difference excludes 0.";
    }
    let header = vec![
        Heading::text("silenced"),
        Heading::text("label"),
        Heading::number("on it (nats)"),
        Heading::number("on the others (nats)"),
        Heading::number("difference (nats)"),
        Heading::number("95 % interval"),
        Heading::number("q"),
        Heading::text("random sets (nats)"),
    ];
    let cells = rows.iter().filter(|row| !row.is_random()).map(|row| {
        let (low, high) = row.against.interval.unzip();
        let random = ends(&random_like(rows, row));
        vec![
            row.set.to_string(),
            row.label.to_string(),
            signed(row.effect_mean, 3),
            signed(row.against.others_mean, 3),
            signed(row.against.difference, 3),
            cells::interval(low, high, 3),
            p_value(row.against.q_value),
            random.map_or(cells::EMPTY.to_string(), |(low, high)| format!("{} to {}", signed(low, 3), signed(high, 3))),
        ]
    });
    let caption = "What silencing each set does to the prompts of each label, less what it does to all others.";
    Section::new("By label").paragraph(text).table(caption, header, cells.collect())
}

/// What opens the neurons' gates.
fn driven(rows: &[DriverRow]) -> Option<Section> {
    let whole: Vec<&DriverRow> = rows.iter().filter(|row| row.label.is_none()).collect();
    let gate = whole.iter().find(|row| row.component == GATE)?;
    let sum = |component: &str| -> f64 {
        whole.iter().filter(|row| row.component == component).filter_map(|row| row.mean).sum()
    };
    let (low, high) = gate.interval.unzip();
    let mut text = format!(
        "Over {} the gates of {} read {} on average, 95 % interval {}. Of that, heads add {}, MLPs {}, the embedding {}, and \
         what is left, biases mostly, {}.",
        plural(gate.n, "prompt"),
        plural(gate.neurons, "neuron"),
        signed(gate.mean, 3),
        cells::interval(low, high, 3),
        signed(sum(HEAD), 3),
        signed(sum("mlp"), 3),
        signed(sum("embed"), 3),
        signed(sum("rest"), 3),
    );
    if let Some(named) = whole.iter().find(|row| row.component == NAMED) {
        let (low, high) = named.interval.unzip();
        let (mean, interval) = (signed(named.mean, 3), cells::interval(low, high, 3));
        text += &format!(" The heads that were named add {mean} together, 95 % interval {interval}.");
    }
    let size = |row: &DriverRow| row.mean.map_or(0.0, f64::abs);
    let mut heads: Vec<&&DriverRow> = whole.iter().filter(|row| row.component == HEAD && size(row) >= LEAST).collect();
    heads.sort_by(|a, b| size(b).total_cmp(&size(a)));
    let mut labels: Vec<&str> = rows.iter().filter_map(|row| row.label).collect();
    labels.dedup();
    let mut header = vec![
        Heading::text("head"),
        Heading::number("adds"),
        Heading::number("95 % interval"),
        Heading::number("neurons after it"),
    ];
    header.extend(labels.iter().map(|label| Heading::number(format!("{label} against the others (q)"))));
    let cells = heads.iter().take(ROWS).map(|row| {
        let (low, high) = row.interval.unzip();
        let mut cells = vec![
            cells::head(row.layer, row.head),
            signed(row.mean, 3),
            cells::interval(low, high, 3),
            row.neurons.to_string(),
        ];
        cells.extend(labels.iter().map(|label| {
            let of = rows.iter().find(|of| of.label == Some(label) && (of.layer, of.head) == (row.layer, row.head));
            let against = of.and_then(|of| of.against).unwrap_or_default();
            format!("{} ({})", signed(against.difference, 3), p_value(against.q_value))
        }));
        cells
    });
    let section = Section::new("What drives them").paragraph(text);
    Some(section.table("The heads that add most to what the gates read", header, cells.collect()).paragraph(
        "A part's share is what it adds by itself, with the norms held as they are: a head that gives much may do so on every prompt. \
         drivers.parquet has all parts.",
    ))
}

/// The neurons that hold the words.
fn of_words(rows: &[WordRow], neurons: &[NeuronRow]) -> Section {
    let named: Vec<String> = rows.iter().map(|row| row.word.to_string()).collect();
    let size = |row: &NeuronRow| row.words_score.map_or(0.0, f64::abs);
    let mut listed: Vec<&NeuronRow> = neurons.iter().filter(|row| row.words_found.is_some()).collect();
    listed.sort_by(|a, b| size(b).total_cmp(&size(a)));
    let found: f64 = listed.iter().filter_map(|row| row.words_found).sum();
    let mut text = format!(
        "Of {}, those are listed whose vocabulary holds these words best: {}.",
        plural(neurons.len() as i64, "neuron"),
        words::named(&named),
    );
    if let (Some(first), Some(last)) = (listed.first(), listed.last()) {
        text += &format!(
            " The words' logits lie {} standard deviations from the vocabulary's mean in the best of them ({}), and {} in the last; \
             on average {} of {} are among the tokens that a neuron raises or lowers most.",
            number(size(first), 1),
            super::tables::named(first.key()),
            number(size(last), 1),
            number(found / listed.len() as f64, 1),
            plural(named.len() as i64, "word"),
        );
    }
    let header = vec![
        Heading::text("neuron"),
        Heading::number("score"),
        Heading::number("words found"),
        Heading::text("raises, if active"),
        Heading::text("lowers"),
    ];
    let list = |of: &Option<std::borrow::Cow<str>>| {
        of.as_deref().unwrap_or_default().split(' ').take(6).collect::<Vec<_>>().join(" ")
    };
    let cells = listed.iter().take(ROWS).map(|row| {
        vec![
            super::tables::named(row.key()),
            signed(row.words_score, 2),
            number(row.words_found, 0),
            list(&row.vocabulary),
            list(&row.vocabulary_low),
        ]
    });
    let section = Section::new("Neurons that hold the words").paragraph(text);
    section.table("The best of them", header, cells.collect()).paragraph(
        "They were chosen by the model's weights alone. A score below 0 says that a negative activation raises the words. neurons.parquet \
         has the score of every neuron.",
    )
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
