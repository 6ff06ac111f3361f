//! Figures and text of a function vector, from its tables.

use super::tables::{AccuracyRow, HeadRow, ItemRow, SummaryRow, VocabularyRow};
use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::lens::visible;
use crate::analyses::prelude::*;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Heatmap};
use crate::names::short_name;
use crate::report::cells::{self, number, p_value, plural, points, points_interval, share, share_interval, signed};
use crate::stats::beyond_zero;

const HEADS: &str = "heads.png";

/// How many heads and words are listed.
const LISTED: usize = 12;

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let heads = HeadRow::read(table(tables, HeadRow::TABLE)?)?;
    let accuracy = AccuracyRow::read(table(tables, AccuracyRow::TABLE)?)?;
    let summary = SummaryRow::read(table(tables, SummaryRow::TABLE)?)?;
    let first = heads.first().cloned().unwrap_or_default();
    let model = short_name(first.model);
    let of = |row: &HeadRow| {
        let place = usize::try_from(row.layer).ok().zip(usize::try_from(row.head).ok());
        place.map(|(layer, head)| (layer, head, row.effect_mean, row.chosen))
    };
    let (values, marks) = Heatmap::of_heads(heads.iter().filter_map(of));
    let map = Heatmap {
        title: "Which heads carry the task".to_string(),
        subtitle: format!("{model}, {} with shuffled examples", plural(first.n, "prompt")),
        x_label: "head".to_string(),
        y_label: "layer".to_string(),
        value_label: "average indirect effect (probability)".to_string(),
        values,
        marks,
        mark_meaning: Some("the vector is made of it".to_string()),
        ..Heatmap::default()
    };
    let mut figures: Figures = vec![(HEADS.to_string(), Figure::from(map))];
    for (i, row) in summary.iter().enumerate() {
        let curve = |vector: &str, name: &str, role: CurveRole| {
            let here = |of: &&AccuracyRow| {
                of.form == row.form
                    && of.words == "held out"
                    && of.vector == vector
                    && of.coefficient == row.coefficient
            };
            let point = |of: &AccuracyRow| CurvePoint { x: of.layer as f64, y: of.accuracy, interval: of.interval };
            Curve { name: name.to_string(), role, points: accuracy.iter().filter(here).map(point).collect() }
        };
        let figure = Curves {
            title: "Where the vector does the task".to_string(),
            subtitle: format!("{model}, {}, coefficient {}", plural(row.n, "word"), row.coefficient),
            x_label: "layer after which it is added".to_string(),
            y_label: "words that are right".to_string(),
            shares: true,
            curves: vec![
                curve("function", "function vector", CurveRole::Series),
                curve("random", "random heads", CurveRole::Series),
            ],
            reference: row.without.map(|without| (without, "without a vector".to_string())),
            interval_meaning: Some("95 % interval".to_string()),
            y_range: Some((0.0, 1.0)),
            ..Curves::default()
        };
        figures.push((file(i), Figure::from(figure)));
    }
    Ok(figures)
}

/// The figure of a kind of prompts.
fn file(form: usize) -> String {
    format!("accuracy-{}.png", form + 1)
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let heads = HeadRow::read(table(tables, HeadRow::TABLE)?)?;
    let accuracy = AccuracyRow::read(table(tables, AccuracyRow::TABLE)?)?;
    let summary = SummaryRow::read(table(tables, SummaryRow::TABLE)?)?;
    let vocabulary = VocabularyRow::read(table(tables, VocabularyRow::TABLE)?)?;
    let items = ItemRow::read(table(tables, ItemRow::TABLE)?)?;
    let mut sections = vec![does_it(&accuracy, &summary, dir), carriers(&heads, dir)];
    let list = |end: &str| -> String {
        let of = vocabulary.iter().filter(|row| row.end == end);
        of.map(|row| format!("`{}`", visible(&row.token).replace('`', "'"))).collect::<Vec<_>>().join(" ")
    };
    sections.push(
        Section::new("What it says").paragraph(format!(
            "Read through the final norm's gain and the unembedding, the vector raises {}. It lowers {}. A vector need not say what it \
             does: later layers read it too.",
            list("raised"),
            list("lowered"),
        )),
    );
    sections.extend(words(&items));
    Ok(sections)
}

fn does_it(accuracy: &[AccuracyRow], summary: &[SummaryRow], dir: &Path) -> Section {
    let shown = |vector: &str| accuracy.iter().find(|row| row.vector == vector);
    let said = |row: Option<&AccuracyRow>| {
        row.map_or(String::new(), |row| format!("{} ({})", share(row.accuracy), share_interval(row.interval)))
    };
    let n = summary.first().map_or(0, |row| row.n);
    let mut section = Section::new("Does the vector do the task?").paragraph(format!(
        "Of {} that the vector was not made from, {} are right after examples, and {} after examples with each other's outputs. A word \
         is right where the first token of its output is the likeliest. Intervals are of 95 %.",
        plural(n, "word"),
        said(shown("examples")),
        said(shown("shuffled")),
    ));
    let header = vec![
        Heading::text("prompt"),
        Heading::number("layer"),
        Heading::number("times"),
        Heading::number("without"),
        Heading::number("random heads"),
        Heading::number("function vector"),
        Heading::number("interval"),
        Heading::number("over random"),
        Heading::number("interval"),
        Heading::number("p"),
    ];
    let cells = summary.iter().map(|row| {
        vec![
            row.form.to_string(),
            row.layer.to_string(),
            cells::exact(row.coefficient),
            share(row.without),
            share(row.random),
            share(row.accuracy),
            share_interval(row.interval),
            points(row.over_random),
            points_interval(row.over_random_interval),
            p_value(row.p_value),
        ]
    });
    section = section.table(
        "Words that were held out, without examples; layer and coefficient were chosen by the words for training",
        header,
        cells.collect(),
    );
    for (i, row) in summary.iter().enumerate() {
        section = section.paragraph(sentence(row));
        let caption = format!("Accuracy in `{}` by the layer after which the vector is added.", row.form);
        section = section.figure(dir.join(file(i)), caption, "Accuracy by layer with intervals.");
    }
    section
}

impl SummaryRow<'_> {
    /// What the vector does: only what the intervals hold and, where there is one, the test. A few words that differ have an interval
    /// beyond zero before they are beyond chance.
    pub fn verdict(&self) -> &'static str {
        let gain = beyond_zero(self.gain_interval, 0.0);
        let over_random = beyond_zero(self.over_random_interval, 0.0);
        match (gain, over_random.filter(|_| self.p_value.is_some_and(|p| p < SIGNIFICANT))) {
            (Some(true), Some(true)) => "does more than nothing and more than random heads",
            (Some(true), _) => "does more than nothing, but not more than random heads beyond chance",
            (Some(false), _) => "does harm",
            (None, Some(true)) => "does more than random heads, but not more than nothing beyond chance",
            (None, Some(false)) => "does nothing beyond chance, and less than random heads",
            (None, None) => "does nothing beyond chance",
        }
    }
}

/// What is said of one kind of prompts.
fn sentence(row: &SummaryRow) -> String {
    let what = row.verdict();
    format!(
        "In `{}`, added after layer {}, the vector {what}: {} of {} are right, {} without it ({}, interval {}).",
        row.form,
        row.layer,
        share(row.accuracy),
        plural(row.n, "word"),
        share(row.without),
        points(row.gain),
        points_interval(row.gain_interval),
    )
}

fn carriers(heads: &[HeadRow], dir: &Path) -> Section {
    let first = heads.first().cloned().unwrap_or_default();
    let significant = heads.iter().filter(|row| row.q_value.is_some_and(|q| q < SIGNIFICANT)).count();
    let mut strongest: Vec<&HeadRow> = heads.iter().filter(|row| row.chosen).collect();
    strongest.sort_by(|a, b| b.effect_mean.unwrap_or(0.0).total_cmp(&a.effect_mean.unwrap_or(0.0)));
    let text = format!(
        "In {} whose examples have each other's outputs, the right output has a probability of {} on average. Of {} heads, the mean of \
         {} after right examples, put in its place, changes that beyond chance (q < {SIGNIFICANT}).",
        plural(first.n, "prompt"),
        share(first.base_mean),
        cells::count(heads.len() as i64),
        cells::count(significant as i64),
    );
    let header = vec![
        Heading::text("head"),
        Heading::number("effect (probability)"),
        Heading::number("95 % interval"),
        Heading::number("q"),
    ];
    let cells = strongest.iter().take(LISTED).map(|row| {
        let (low, high) = row.interval.unzip();
        vec![
            cells::head(row.layer, row.head),
            signed(row.effect_mean, 4),
            cells::interval(low, high, 4),
            p_value(row.q_value),
        ]
    });
    let caption = "The average indirect effect of every head.";
    let section = Section::new("Which heads carry it").paragraph(text);
    let section = section.figure(dir.join(HEADS), caption, "Layer-by-head heatmap of average indirect effects.");
    section.table("The heads that the vector is made of", header, cells.collect())
}

fn words(items: &[ItemRow]) -> Option<Section> {
    let form = &items.first()?.form;
    let header = vec![
        Heading::text("word"),
        Heading::text("output"),
        Heading::number("rank without"),
        Heading::number("with the vector"),
        Heading::number("after examples"),
    ];
    let cells = items.iter().filter(|row| row.form == *form).take(LISTED).map(|row| {
        let rank = |rank: Option<f64>| number(rank, 0);
        vec![
            row.input.to_string(),
            row.output.to_string(),
            rank(row.rank_without),
            rank(row.rank),
            rank(row.rank_examples),
        ]
    });
    let caption = format!("The first words that were held out, in `{form}`: the rank of the output's first token");
    Some(Section::new("Word by word").table(caption, header, cells.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_the_interval_and_the_test() {
        let said = |gain: (f64, f64), over: (f64, f64), p: f64| {
            let (gain_interval, over_random_interval) = (Some(gain), Some(over));
            SummaryRow { gain_interval, over_random_interval, p_value: Some(p), ..SummaryRow::default() }.verdict()
        };
        let (above, below, around) = ((0.02, 0.2), (-0.2, -0.02), (-0.1, 0.1));
        assert_eq!(said(above, above, 0.001), "does more than nothing and more than random heads");
        // Three words of forty: BCa's interval is above zero, the test is not under 0.05.
        let not_beyond = "does more than nothing, but not more than random heads beyond chance";
        assert_eq!(said(above, (0.005, 0.175), 0.249), not_beyond);
        assert_eq!(said(above, around, 0.9), not_beyond);
        assert_eq!(said(above, below, 0.001), not_beyond);
        assert_eq!(said(around, above, 0.01), "does more than random heads, but not more than nothing beyond chance");
        assert_eq!(said(around, below, 0.002), "does nothing beyond chance, and less than random heads");
        assert_eq!(said(around, below, 0.3), "does nothing beyond chance");
        assert_eq!(said(around, around, 0.3), "does nothing beyond chance");
        assert_eq!(said(below, below, 0.001), "does harm");
    }
}
