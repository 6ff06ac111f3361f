//! Figures and text of values, from their tables.

use super::tables::{ABLATE, EffectRow, NeuronRow, OverlapRow, PROMPT, PreferenceRow, STEER, VectorRow, Written};
use super::{CONTEXTS, SETS, VECTORS};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, interval as ends};
use crate::analyses::power::Power;
use crate::analyses::prelude::*;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Estimate, Forest, ForestRow, MOST_SERIES};
use crate::names::short_name;
use crate::report::cells::{self, capitalised, count, exact, number, p_value, plural, share, share_interval, signed};
use crate::stats::beyond_zero;

const COSINE: &str = "cosine.png";
const ABLATION: &str = "ablation.png";
const STEERING: &str = "steering.png";

/// How many rows a forest has at most, and how many neurons of a set are listed.
const ROWS: usize = 60;
const LISTED: usize = 8;

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let vectors = VectorRow::read(table(tables, VectorRow::TABLE)?)?;
    let effects = EffectRow::read(table(tables, EffectRow::TABLE)?)?;
    let model = short_name(effects.first().map_or("", |row| row.model));
    let mut figures = vec![(COSINE.to_string(), Figure::from(cosines(&vectors, &model)))];
    for (file, kind, title) in
        [(ABLATION, ABLATE, "What silencing value neurons does"), (STEERING, STEER, "What adding a value vector does")]
    {
        figures.extend(forest(&effects, kind, title, &model).map(|figure| (file.to_string(), Figure::from(figure))));
    }
    Ok(figures)
}

/// The values in the order of a table.
fn values<'r>(names: impl Iterator<Item = &'r str>) -> Vec<&'r str> {
    let mut names: Vec<&str> = names.collect();
    names.dedup();
    names
}

/// How alike the two vectors of each value are, layer by layer.
fn cosines(rows: &[VectorRow], model: &str) -> Curves {
    let curve = |value: &str| {
        let of = rows.iter().filter(|row| row.value == value && row.vector == VECTORS[0]);
        let point = |row: &VectorRow| CurvePoint { x: row.layer as f64, y: row.cosine, interval: row.cosine_interval };
        Curve { name: value.to_string(), role: CurveRole::Series, points: of.map(point).collect() }
    };
    let n = rows.first().map_or(0, |row| row.n);
    Curves {
        title: "Intrinsic and prompted vector".to_string(),
        subtitle: format!("{model}, vectors of {}", plural(n, "item")),
        x_label: "layer".to_string(),
        y_label: "cosine".to_string(),
        curves: values(rows.iter().map(|row| row.value)).into_iter().take(MOST_SERIES).map(curve).collect(),
        interval_meaning: Some(INTERVAL.to_string()),
        ..Curves::default()
    }
}

/// The effects of one kind, each in both contexts; none without rows.
fn forest(rows: &[EffectRow], kind: &str, title: &str, model: &str) -> Option<Forest> {
    let of = |context: &str| -> Vec<&EffectRow> {
        rows.iter().filter(|row| row.done.kind == kind && row.context == context).take(ROWS).collect()
    };
    let estimate = |row: &EffectRow| {
        let marked = Some(significant(row));
        row.effect.mean.map(|value| Estimate { value, interval: row.effect.interval, marked })
    };
    let row = |(a, b): (&EffectRow, &EffectRow)| ForestRow {
        label: format!("{}: {}", a.value, a.label()),
        estimates: vec![estimate(a), estimate(b)],
    };
    let rows: Vec<ForestRow> = of(CONTEXTS[0]).into_iter().zip(of(CONTEXTS[1])).map(row).collect();
    (!rows.is_empty()).then(|| Forest {
        title: title.to_string(),
        subtitle: format!("{model}, items that were held out"),
        value_label: "change of the preference (nats a token)".to_string(),
        series: CONTEXTS.map(str::to_string).to_vec(),
        rows,
        mark_meaning: Some(format!("q < {SIGNIFICANT}")),
        interval_meaning: Some(INTERVAL.to_string()),
        missing_meaning: None,
    })
}

fn significant(row: &EffectRow) -> bool {
    row.q_value.is_some_and(|q| q < SIGNIFICANT)
}

impl EffectRow<'_> {
    /// What is done, as a label.
    pub fn label(&self) -> String {
        let what = self.done.what.replace('_', " ");
        match (self.done.kind, self.done.coefficient) {
            (STEER, Some(coefficient)) => format!("{what} × {} after layer {}", exact(coefficient), self.done.layer),
            (ABLATE, _) => format!("{what}, {} silenced", plural(self.neurons, "neuron")),
            _ => what,
        }
    }
}

/// What is done in a row, as what a sentence begins with.
fn doing(row: &EffectRow) -> String {
    let what = row.done.what.replace('_', " ");
    match (row.done.kind, row.done.coefficient) {
        (STEER, Some(coefficient)) => {
            format!("adding the {what} vector × {} after layer {}", exact(coefficient), row.done.layer)
        }
        _ => format!("silencing the set `{what}` ({})", plural(row.neurons, "neuron")),
    }
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let preferences = PreferenceRow::read(table(tables, PreferenceRow::TABLE)?)?;
    let vectors = VectorRow::read(table(tables, VectorRow::TABLE)?)?;
    let overlap = OverlapRow::read(table(tables, OverlapRow::TABLE)?)?;
    let neurons = NeuronRow::read(table(tables, NeuronRow::TABLE)?)?;
    let effects = EffectRow::read(table(tables, EffectRow::TABLE)?)?;
    Ok(vec![
        preferred(&preferences, &effects),
        alike(&vectors, dir),
        whose(&overlap, &neurons),
        silencing(&effects, dir),
        steering(&effects, dir),
    ])
}

/// What an interval says of a number: the first word where it is above 0, the second where it is below.
fn beside_zero(interval: Option<(f64, f64)>, [above, below, neither]: [&str; 3]) -> &str {
    beyond_zero(interval, 0.0).map_or(neither, |up| if up { above } else { below })
}

fn preferred(rows: &[PreferenceRow], effects: &[EffectRow]) -> Section {
    let mut said = vec![
        "Each item has a question and two replies, of which one shows the value. The preference is the log-probability of that reply less that \
         of the other, each by the token. The numbers are of items that were held out from all that was found."
            .to_string(),
    ];
    for value in values(rows.iter().map(|row| row.value)) {
        said.extend(rows.iter().find(|row| row.value == value && row.context == CONTEXTS[0]).map(by_itself));
        said.extend(effects.iter().find(|row| row.value == value && row.done.kind == PROMPT).map(of_prompt));
    }
    let header = vec![
        Heading::text("value"),
        Heading::text("context"),
        Heading::number("items"),
        Heading::number("preference (nats a token)"),
        Heading::number("95 % interval"),
        Heading::number("prefers it"),
        Heading::number("95 % interval"),
    ];
    let cells = rows.iter().map(|row| {
        vec![
            row.value.to_string(),
            row.context.to_string(),
            count(row.n),
            signed(row.preference_mean, 3),
            ends(row.interval),
            share(row.preferred),
            share_interval(row.preferred_interval),
        ]
    });
    Section::new("Which reply does it prefer?").paragraph(said.join(" ")).table("Preferences", header, cells.collect())
}

/// What the model prefers without a prompt.
fn by_itself(row: &PreferenceRow) -> String {
    let words = [
        "the model prefers replies with the value",
        "the model prefers replies without the value",
        "neither kind of reply is preferred beyond chance",
    ];
    format!(
        "{}: without a prompt {} ({} nats a token, 95 % interval {}).",
        capitalised(row.value),
        beside_zero(row.interval, words),
        signed(row.preference_mean, 3),
        ends(row.interval),
    )
}

/// What the prompt does to that.
fn of_prompt(row: &EffectRow) -> String {
    let words = ["raises", "lowers", "does not move"];
    let interval = row.effect.interval.filter(|_| significant(row));
    let beyond = if significant(row) { "" } else { " beyond chance" };
    format!(
        "The prompt {} that preference{beyond} ({}, {}, q {}).",
        beside_zero(interval, words),
        signed(row.effect.mean, 3),
        ends(row.effect.interval),
        p_value(row.q_value),
    )
}

fn alike(rows: &[VectorRow], dir: &Path) -> Section {
    let text = "A value vector is the mean difference of the residual stream between replies with the value and replies without, over the \
                replies' own tokens. The intrinsic one is made without a prompt that asks for the value, the prompted one with it before both \
                replies. Both kinds of vector are made of the same replies, so some likeness of the two is to be expected. Items that were held out \
                tell what a vector is worth: is their reply with the value the one that is farther along it?";
    let mut header = vec![
        Heading::text("value"),
        Heading::number("layer"),
        Heading::number("cosine"),
        Heading::number("95 % interval"),
    ];
    for vector in VECTORS {
        header.extend([
            Heading::number(format!("{vector}: norm")),
            Heading::number("right on new items"),
            Heading::number("95 % interval"),
        ]);
    }
    let both = rows.iter().filter(|row| row.vector == VECTORS[0]).filter_map(|a| {
        let b = rows.iter().find(|b| (b.value, b.layer) == (a.value, a.layer) && b.vector == VECTORS[1])?;
        Some((a, b))
    });
    let cells = both.map(|(a, b)| {
        let (low, high) = a.cosine_interval.unzip();
        let mut cells = vec![a.value.to_string(), count(a.layer), number(a.cosine, 2), cells::interval(low, high, 2)];
        for row in [a, b] {
            cells.extend([number(row.norm, 2), share(row.right), share_interval(row.right_interval)]);
        }
        cells
    });
    let caption = "The cosine between the intrinsic and the prompted vector of each layer.";
    Section::new("Are the two vectors alike?")
        .paragraph(text)
        .figure(dir.join(COSINE), caption, "Lines of cosines over layers with intervals.")
        .table("Vectors by layer", header, cells.collect())
}

fn whose(overlap: &[OverlapRow], neurons: &[NeuronRow]) -> Section {
    let mut said = vec![format!(
        "A value neuron writes more along the vector of its layer in replies with the value than in replies without, by the items that the \
         vectors were made of (p < {SIGNIFICANT} for each, which some neurons reach by chance). The strongest of each vector were taken. New items \
         tell which of them hold: there the interval is above 0."
    )];
    said.extend(overlap.iter().map(|row| format!("{} {}", shared(row), hold(row.value, neurons))));
    let mut section = Section::new("Whose neurons are they?").paragraph(said.join(" "));
    let header = vec![
        Heading::text("value"),
        Heading::text("set"),
        Heading::text("neuron"),
        Heading::number("along the intrinsic vector"),
        Heading::number("new items"),
        Heading::number("95 % interval"),
        Heading::number("along the prompted vector"),
        Heading::number("new items"),
        Heading::number("95 % interval"),
    ];
    let sets = neurons.chunk_by(|a, b| (a.value, a.set) == (b.value, b.set));
    let cells: Vec<Vec<String>> = sets.flat_map(|rows| rows.iter().take(LISTED)).map(of_neuron).collect();
    if !cells.is_empty() {
        section = section.table("The first neurons of each set", header, cells);
    }
    section.paragraph(
        "The first number of a vector is over the items by which the neuron was chosen, and flatters it. Items that were held out do not. \
         Files such as `honesty.shared.txt` list the neurons of a set for `neurons --set`.",
    )
}

/// How many value neurons of each vector write more with the value in new items too.
fn hold(value: &str, neurons: &[NeuronRow]) -> String {
    let of = |other: &str, written: fn(&NeuronRow) -> Written| -> (i64, i64) {
        let own = neurons.iter().filter(|row| row.value == value && row.set != other);
        let held = own.clone().filter(|row| beyond_zero(written(row).interval, 0.0) == Some(true));
        (held.count() as i64, own.count() as i64)
    };
    let (a, of_a) = of(SETS[2], |row| row.intrinsic);
    let (b, of_b) = of(SETS[1], |row| row.prompted);
    format!(
        "In new items {} of {} hold along the intrinsic vector, and {} of {} along the prompted one.",
        count(a),
        count(of_a),
        count(b),
        count(of_b)
    )
}

/// How many neurons the vectors of a value share.
fn shared(row: &OverlapRow) -> String {
    if row.intrinsic == 0 || row.prompted == 0 {
        return format!(
            "{}: {} of the intrinsic vector and {} of the prompted one were found among {}.",
            capitalised(row.value),
            count(row.intrinsic),
            count(row.prompted),
            plural(row.neurons, "neuron"),
        );
    }
    let more = if row.overlap_p.is_some_and(|p| p < SIGNIFICANT) { "more than" } else { "no more than" };
    format!(
        "{}: of {} of the intrinsic vector and {} of the prompted one, {} {} shared, {more} random choices would have in \
         common ({} on average, p {}).",
        capitalised(row.value),
        plural(row.intrinsic, "neuron"),
        count(row.prompted),
        count(row.shared),
        if row.shared == 1 { "is" } else { "are" },
        number(row.by_chance, 1),
        p_value(row.overlap_p),
    )
}

fn of_neuron(row: &NeuronRow) -> Vec<String> {
    let mut cells =
        vec![row.value.to_string(), row.set.replace('_', " "), cells::neuron(row.layer, row.expert.0, row.neuron)];
    for of in [row.intrinsic, row.prompted] {
        cells.extend([signed(of.write, 3), signed(of.held_out, 3), ends(of.interval)]);
    }
    cells
}

fn silencing(rows: &[EffectRow], dir: &Path) -> Section {
    let text = "The neurons of a set were set to 0 at every position of question and reply. Beside each set stand as many random neurons of the same \
                layers, none of which is a value neuron: the effect of a set itself may be that of any neurons.";
    let caption = "The change of the preference when a set is silenced, without and with the prompt.";
    let alt = "Forest plot of sets with 95 % intervals.";
    of_kind("What does silencing each set do?", rows, ABLATE, text, (dir.join(ABLATION), caption, alt))
}

fn steering(rows: &[EffectRow], dir: &Path) -> Section {
    let text = "Each vector was added to the residual stream where the reply's own tokens are read, times a coefficient. A coefficient of 1 is the \
                whole mean difference; the two vectors differ in length. Beside each stand random directions of the same length.";
    let caption = "The change of the preference when a vector is added, without and with the prompt.";
    let alt = "Forest plot of vectors and coefficients with 95 % intervals.";
    of_kind("What does adding each vector do?", rows, STEER, text, (dir.join(STEERING), caption, alt))
}

/// The section of one kind of edit: what is sure, the figure, and all rows.
fn of_kind(
    heading: &str,
    rows: &[EffectRow],
    kind: &str,
    text: &str,
    (figure, caption, alt): (std::path::PathBuf, &str, &str),
) -> Section {
    let of: Vec<&EffectRow> = rows.iter().filter(|row| row.done.kind == kind).collect();
    let section = Section::new(heading).paragraph(text);
    let Some(first) = of.first() else {
        return section.paragraph("There was nothing to do: no value neuron was found.");
    };
    let mut said: Vec<String> = of.iter().filter(|row| significant(row)).map(|row| sentence(row)).collect();
    if said.is_empty() {
        let family = rows.iter().filter(|row| (row.value, row.context) == (first.value, first.context)).count();
        let power = Power { items: first.n, item: "item", tests: family };
        said.push(format!("None of it moves the preference beyond chance (q < {SIGNIFICANT}).{}", power.sentence()));
    }
    let header = vec![
        Heading::text("value"),
        Heading::text("context"),
        Heading::text("what is done"),
        Heading::number("effect (nats a token)"),
        Heading::number("95 % interval"),
        Heading::number("q"),
        Heading::number("reply with"),
        Heading::number("reply without"),
        Heading::number("over random"),
        Heading::number("95 % interval"),
    ];
    let cells = of.iter().map(|row| {
        vec![
            row.value.to_string(),
            row.context.to_string(),
            row.label(),
            signed(row.effect.mean, 3),
            ends(row.effect.interval),
            p_value(row.q_value),
            signed(row.with.mean, 3),
            signed(row.without.mean, 3),
            signed(row.over_random.mean, 3),
            ends(row.over_random.interval),
        ]
    });
    section.paragraph(said.join(" ")).figure(figure, caption, alt).table("All effects", header, cells.collect())
}

/// What an effect that is beyond chance does, and whether it is more than random ones.
fn sentence(row: &EffectRow) -> String {
    let raises = row.effect.mean.is_some_and(|x| x > 0.0);
    let beside = match (row.controls, beyond_zero(row.over_random.interval, 0.0)) {
        (0, _) => "no random set could stand beside it".to_string(),
        (_, Some(up)) if up == raises => {
            format!("more than random ones: {} {}", signed(row.over_random.mean, 3), ends(row.over_random.interval))
        }
        _ => format!("not more than random ones, as far as so many items tell: {}", ends(row.over_random.interval)),
    };
    format!(
        "{}, {}: {} {} the preference by {} nats a token {} ({beside}).",
        capitalised(row.value),
        row.context,
        doing(row),
        if raises { "raises" } else { "lowers" },
        number(row.effect.mean.map(f64::abs), 3),
        ends(row.effect.interval),
    )
}
