//! Answer and foil apart: which of them does an edit move, or a component write?
//!
//! A logit difference cannot tell a raised answer from a lowered foil. So every effect on it stands beside its two halves, the
//! changes of `logsumexp(answer) - mean logit` and of `logsumexp(foil) - mean logit` ([`Metric::AboveMean`]), whose difference
//! it is. What a report says of answer and foil, it says in the words of this file, and these need the halves' intervals.

use super::summary::Swap;
use crate::analyses::prelude::*;
use crate::figure::{BarSeries, Bars, Estimate};
use crate::report::cells::{interval, signed};
use crate::stats::{bca_family, beyond_zero};
use crate::table::TableError;
use crate::table::rows::{At, Cells, Named};

/// What is read of a run: its metric, and the answer's half, if the metric has one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    pub metric: f64,
    pub answer: Option<f64>,
}

impl Value {
    /// Adds the readouts to a plan.
    pub fn ask(plan: &mut Plan, run: Run, metric: &Metric) -> Asked {
        let of_run = plan.read(run, metric.clone());
        Asked { metric: of_run, answer: metric.answer_half().map(|half| plan.read(run, half)) }
    }

    /// What several runs come to on average; none of none.
    pub fn mean(values: &[Value]) -> Option<Value> {
        let n = values.len() as f64;
        let answers: Option<Vec<f64>> = values.iter().map(|v| v.answer).collect();
        let metric = values.iter().map(|v| v.metric).sum::<f64>() / n;
        (!values.is_empty()).then(|| Value { metric, answer: answers.map(|a| a.iter().sum::<f64>() / n) })
    }

    /// This run under an edit that brings it to `patched`, with what it takes from `other`, if from any.
    pub fn swap(self, other: Option<Value>, patched: Value) -> Swap {
        Swap {
            base: self.metric,
            other: other.map(|o| o.metric),
            patched: patched.metric,
            answer: patched.answer.zip(self.answer).map(|(patched, base)| patched - base),
        }
    }
}

/// A [`Value`] that a plan reads.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub metric: Handle<f64>,
    pub answer: Option<Handle<f64>>,
}

impl Asked {
    /// What it came to.
    pub fn of(self, readings: &Readings) -> Value {
        Value { metric: readings[self.metric], answer: self.answer.map(|answer| readings[answer]) }
    }
}

/// A logit difference and its answer's half, whose attributions stand side by side. Pairs' metrics are logit differences; of another
/// metric the whole stands for the half.
pub fn metric_and_half(metric: &Metric) -> [Metric; 2] {
    [metric.clone(), metric.answer_half().unwrap_or_else(|| metric.clone())]
}

/// The least number that is not written as 0, nats.
pub(super) const LEAST: f64 = 0.0005;

rows! {
    /// A half of an effect or of an attribution over items, nats.
    #[derive(Copy)]
    pub struct Half {
        mean: Option<f64> = "{} less the mean logit, mean, nats",
        /// Its 95 % BCa interval.
        interval: Option<(f64, f64)> as "ci_" = ["lower end of that mean's 95 % BCa interval, nats", "its upper end, nats"],
    }
}

impl Half {
    /// Whether it is above 0 beyond chance, or below; none where the interval holds 0 as it is written. What rounding makes of runs
    /// that an edit does not touch has intervals without 0 too.
    fn up(self) -> Option<bool> {
        beyond_zero(self.interval, LEAST)
    }

    fn estimate(self) -> Option<Estimate> {
        Some(Estimate { interval: self.interval, ..Estimate::new(self.mean?) })
    }
}

/// What kind of numbers halves are of, and with it what is said of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// What an edit changes, or what a component adds: it raises or lowers.
    #[default]
    Change,
    /// What a component adds in one run beyond what it adds in another: it gives more or less.
    Comparison,
}

/// Both halves, the answer's and the foil's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Halves {
    pub answer: Half,
    pub foil: Half,
}

impl Halves {
    /// What happens to answer and foil, after a subject: `raises the answer and lowers the foil`. Only of a half whose interval
    /// excludes 0 anything is said; none where the halves are not known.
    pub fn words(self) -> Option<String> {
        self.words_of(Way::Change)
    }

    /// The same of numbers of another kind.
    fn words_of(self, way: Way) -> Option<String> {
        self.answer.mean.and(self.foil.mean)?;
        let of = |what: &str, up: bool| match (way, up) {
            (Way::Change, true) => format!("raises {what}"),
            (Way::Change, false) => format!("lowers {what}"),
            (Way::Comparison, true) => format!("gives {what} more"),
            (Way::Comparison, false) => format!("gives {what} less"),
        };
        Some(match (self.answer.up(), self.foil.up()) {
            (Some(answer), Some(foil)) if answer == foil => of("both", answer),
            (Some(answer), Some(foil)) => format!("{} and {}", of("the answer", answer), of("the foil", foil)),
            (Some(answer), None) => of("the answer", answer),
            (None, Some(foil)) => of("the foil", foil),
            (None, None) if way == Way::Comparison => "differs in neither beyond chance".to_string(),
            (None, None) => "moves neither beyond chance".to_string(),
        })
    }

    /// [`Halves::words`] with both numbers, as a sentence after a space; nothing where the halves are not known.
    pub fn sentence(self, subject: &str) -> String {
        let number = |half: Half| {
            let (low, high) = half.interval.unzip();
            format!("{} nats, 95 % interval {}", signed(half.mean, 3), interval(low, high, 3))
        };
        self.words().map_or(String::new(), |words| {
            format!(" {subject} {words} (answer {}; foil {}).", number(self.answer), number(self.foil))
        })
    }
}

/// The halves of some rows, one list of items' numbers a row; a row without items has none.
pub fn over_items(answers: &[Vec<f64>], foils: &[Vec<f64>], seed: u64) -> Vec<Halves> {
    let [answers, foils] = [answers, foils].map(|rows| {
        let intervals = bca_family(rows, &Bootstrap { seed, ..Bootstrap::default() });
        let half = |(x, interval): (&Vec<f64>, Option<Interval>)| Half {
            mean: mean(x),
            interval: interval.map(Interval::ends),
        };
        rows.iter().zip(intervals).map(half).collect::<Vec<_>>()
    });
    answers.into_iter().zip(foils).map(|(answer, foil)| Halves { answer, foil }).collect()
}

/// Some rows of a table with what its columns of halves and of whole effects say, under labels of their own.
pub fn moved(
    halves: Vec<Halves>,
    whole: Vec<Option<f64>>,
    rows: impl IntoIterator<Item = (usize, String)>,
) -> Vec<Moved> {
    rows.into_iter().map(|(i, label)| Moved { label, whole: whole[i], halves: halves[i] }).collect()
}

/// The columns are called `answer_WHAT_mean`, `answer_WHAT_ci_low` and so on, where WHAT is what an embedding struct calls them; its
/// documentation says what they are halves of.
impl<'t> Cells<'t> for Halves {
    type Columns = [<Half as Cells<'t>>::Columns; 2];

    fn columns(named: Named<'_>) -> Self::Columns {
        SIDES.map(|side| {
            let doc = named.docs.first().map(|of| format!("{of} logsumexp({side} logits)")).unwrap_or_default();
            Half::columns(Named { name: &of_side(side, named.name), docs: &[&doc], ..named })
        })
    }

    fn add(self, [answer, foil]: &mut Self::Columns) {
        self.answer.add(answer);
        self.foil.add(foil);
    }

    fn finish([answer, foil]: Self::Columns, table: Table) -> Result<Table, TableError> {
        Half::finish(foil, Half::finish(answer, table)?)
    }

    fn is_in(table: &Table, name: &str) -> bool {
        Half::is_in(table, &of_side("answer", name))
    }

    fn in_table(table: &'t Table, name: &str) -> Result<At<'t, Self>, TableError> {
        let [answer, foil] = SIDES.map(|side| Half::in_table(table, &of_side(side, name)));
        let (answer, foil) = (answer?, foil?);
        Ok(Box::new(move |row| Halves { answer: answer(row), foil: foil(row) }))
    }
}

/// The sides of a metric, as columns are called.
const SIDES: [&str; 2] = ["answer", "foil"];

/// What the names of a side's columns begin with.
fn of_side(side: &str, what: &str) -> String {
    format!("{side}_{what}_")
}

/// A unit or component with its whole effect or attribution and its halves.
pub struct Moved {
    pub label: String,
    pub whole: Option<f64>,
    pub halves: Halves,
}

/// What a table or figure of halves shows: effects or attributions.
pub struct Shown<'a> {
    /// The figure's file.
    pub file: String,
    /// The heading of the section and title of the figure.
    pub title: String,
    /// What else a reader needs, under the figure's title.
    pub subtitle: String,
    /// `effect`, `attribution` or `contrast`
    pub what: &'a str,
    /// Who moves the answer and the foil: `the exchange`, `the component`.
    pub subject: &'a str,
    /// What the numbers are.
    pub way: Way,
    /// Which rows are shown, in which order.
    pub order: Order<'a>,
}

/// The rows of [`Shown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order<'a> {
    /// The largest of many, whatever their sign, the largest first.
    Largest,
    /// All in their own order; with what a row is: `coefficient`.
    Own(&'a str),
}

/// All that a run has halves of.
impl Default for Shown<'_> {
    fn default() -> Self {
        Shown {
            file: "halves.png".to_string(),
            title: "Answer and foil apart".to_string(),
            subtitle: String::new(),
            what: "effect",
            subject: "",
            way: Way::Change,
            order: Order::Own(""),
        }
    }
}

impl Shown<'_> {
    /// The halves side by side; none where no row has any.
    pub fn figure(&self, rows: &[Moved]) -> Option<Figure> {
        let known: Vec<&Moved> = rows.iter().filter(|r| r.halves.answer.mean.is_some()).collect();
        let series = |name: &str, half: fn(&Halves) -> Half| BarSeries {
            name: name.to_string(),
            estimates: known.iter().map(|r| half(&r.halves).estimate()).collect(),
            bands: Vec::new(),
        };
        let whole = BarSeries {
            name: "answer less foil".to_string(),
            estimates: known.iter().map(|r| r.whole.map(Estimate::new)).collect(),
            bands: Vec::new(),
        };
        let of = match self.what {
            "attribution" => "attribution to",
            "loss" => "loss of attribution to",
            "contrast" => "contrast of",
            _ => "effect on",
        };
        let bars = || Bars {
            title: self.title.clone(),
            subtitle: self.subtitle.clone(),
            category_label: match self.order {
                Order::Largest => "the largest difference first".to_string(),
                Order::Own(what) => what.to_string(),
            },
            value_label: format!("{of} answer or foil (nats)"),
            categories: known.iter().map(|r| r.label.clone()).collect(),
            series: vec![series("answer", |h| h.answer), series("foil", |h| h.foil), whole],
            interval_meaning: Some(super::effects::INTERVAL.to_string()),
            ..Bars::default()
        };
        (!known.is_empty()).then(|| Figure::from(bars()))
    }

    /// The report's section: what moved, in numbers and words; none where no row has halves. What halves are is said if it is the
    /// `first` of a report.
    pub fn section(&self, rows: &[Moved], dir: &Path, first: bool) -> Option<Section> {
        let known: Vec<&Moved> = rows.iter().filter(|r| r.halves.answer.mean.is_some()).collect();
        if known.is_empty() {
            return None;
        }
        let (what, subject) = (self.what, self.subject);
        let header = vec![
            Heading::text("unit"),
            Heading::number(format!("{what} (nats)")),
            Heading::number("answer (nats)"),
            Heading::number("95 % interval"),
            Heading::number("foil (nats)"),
            Heading::number("95 % interval"),
            Heading::text(format!("{subject} ...")),
        ];
        let ends = |half: Half| interval(half.interval.map(|i| i.0), half.interval.map(|i| i.1), 3);
        let cells = |r: &&Moved| {
            let Halves { answer, foil } = r.halves;
            vec![
                r.label.clone(),
                signed(r.whole, 3),
                signed(answer.mean, 3),
                ends(answer),
                signed(foil.mean, 3),
                ends(foil),
                r.halves.words_of(self.way).unwrap_or_default(),
            ]
        };
        let text = format!(
            "The logit difference alone does not say whether the answer or the foil moved. Here both stand apart, each measured \
             from the mean logit of the vocabulary: the answer's {what} less the foil's is the {what}. Nothing is said of a half \
             whose interval holds 0."
        );
        let largest = self.order == Order::Largest;
        let of = if largest { " of the largest" } else { "" };
        let caption = format!(
            "The answer's and the foil's part{of}. All tables have both parts of each {what} in columns of their own."
        );
        let alt = format!("Bars of the answer's and the foil's half{of}.");
        let section = Section::new(self.title.clone());
        let section = if first { section.paragraph(text) } else { section };
        let rows = known.iter().map(cells).collect();
        let table = if largest { "What moved: the largest" } else { "What moved" };
        Some(section.figure(dir.join(&self.file), caption, alt).table(table, header, rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::rows::{Column, Row};

    rows! {
        struct Halved in "heads" {
            effect: Halves [newer] = "mean change of",
        }
    }

    const EFFECT: Column<Halves> = Halved::effect;

    fn half(mean: f64, low: f64, high: f64) -> Half {
        Half { mean: Some(mean), interval: Some((low, high)) }
    }

    fn words(answer: Half, foil: Half) -> Option<String> {
        Halves { answer, foil }.words()
    }

    #[test]
    fn only_a_half_whose_interval_excludes_0_is_spoken_of() {
        let (up, down) = (half(1.0, 0.5, 1.5), half(-1.0, -1.5, -0.5));
        let (wide, edge) = (half(9.0, -0.1, 20.0), half(1.0, 0.0, 2.0));
        let said = |answer, foil| words(answer, foil).unwrap();
        assert_eq!(said(up, down), "raises the answer and lowers the foil");
        assert_eq!(said(down, up), "lowers the answer and raises the foil");
        assert_eq!(said(wide, down), "lowers the foil");
        assert_eq!(said(up, edge), "raises the answer");
        assert_eq!(said(wide, edge), "moves neither beyond chance");
        assert_eq!([said(up, up), said(down, down)], ["raises both", "lowers both"]);
        assert_eq!(
            said(half(1e-6, 9e-7, 2e-6), half(-0.001, -0.0015, -0.0006)),
            "lowers the foil",
            "the first is 0.000"
        );
        let alone = Half { mean: Some(5.0), interval: None };
        assert_eq!(said(alone, alone), "moves neither beyond chance", "one item has no interval");
    }

    #[test]
    fn of_what_is_a_difference_of_two_runs_nothing_is_said_to_rise() {
        let (up, down, wide) = (half(1.0, 0.5, 1.5), half(-1.0, -1.5, -0.5), half(9.0, -0.1, 20.0));
        let said = |answer, foil| Halves { answer, foil }.words_of(Way::Comparison).unwrap();
        assert_eq!(said(up, down), "gives the answer more and gives the foil less");
        assert_eq!([said(up, up), said(down, wide)], ["gives both more", "gives the answer less"]);
        assert_eq!(said(wide, wide), "differs in neither beyond chance");
    }

    #[test]
    fn without_the_columns_nothing_is_said() {
        let known = half(1.0, 0.5, 1.5);
        assert_eq!(words(Half::default(), known), None);
        assert_eq!(words(known, Half::default()), None);
        let old = Table::new("heads").float("effect_mean", "", [-1.0]).unwrap();
        let halves = old.column(EFFECT).unwrap();
        assert_eq!(halves, [Halves::default()]);
        assert_eq!(halves[0].sentence("The exchange"), "");
        let rows = [Moved { label: "L0.H0".to_string(), whole: Some(-1.0), halves: halves[0] }];
        let [file, title, subtitle] = ["f", "t", "s"].map(str::to_string);
        let shown = Shown { file, title, subtitle, subject: "it", order: Order::Largest, ..Shown::default() };
        assert!(shown.figure(&rows).is_none() && shown.section(&rows, Path::new(""), true).is_none());
    }

    #[test]
    fn columns_come_back_as_the_halves_that_they_were_made_of() {
        let answers = vec![vec![1.0, 1.5, 0.5, 1.0], Vec::new()];
        let foils = vec![vec![-0.5, -0.25, -0.75, -0.5], Vec::new()];
        let table = Halved::table(over_items(&answers, &foils, 0).into_iter().map(|effect| Halved { effect })).unwrap();
        let names: Vec<&str> = table.columns().map(|column| column.name).collect();
        assert_eq!((names.len(), names[0], names[5]), (6, "answer_effect_mean", "foil_effect_ci_high"));
        let doc = table.columns().next().unwrap().doc;
        assert_eq!(doc, "mean change of logsumexp(answer logits) less the mean logit, mean, nats");
        let halves = table.column(EFFECT).unwrap();
        assert_eq!((halves[0].answer.mean, halves[0].foil.mean), (Some(1.0), Some(-0.5)));
        assert_eq!(halves[0].words().unwrap(), "raises the answer and lowers the foil");
        assert_eq!(halves[1], Halves::default());
        let said = halves[0].sentence("The exchange");
        assert!(said.starts_with(" The exchange raises the answer and lowers the foil (answer +1.000 nats"), "{said}");
    }

    #[test]
    fn a_swap_keeps_both_halves() {
        let value = |metric, answer| Value { metric, answer: Some(answer) };
        let swap = value(2.0, 3.0).swap(Some(value(-2.0, 0.0)), value(1.0, 1.5));
        assert_eq!((swap.effect(), swap.answer, swap.foil()), (-1.0, Some(-1.5), Some(-0.5)));
        let alone = Value { metric: 1.0, answer: None };
        assert_eq!(alone.swap(None, value(2.0, 3.0)).foil(), None);
        assert_eq!(Value::mean(&[value(1.0, 2.0), value(3.0, 6.0)]), Some(value(2.0, 4.0)));
        assert_eq!(Value::mean(&[]), None);
    }
}
